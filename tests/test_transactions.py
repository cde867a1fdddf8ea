"""Transactions through SnapDB, in memory and in a file: whole or not at all, whatever is written in them and however
they end; one at a time; other threads wait.
"""

from __future__ import annotations

import copy
import errno
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import Files
from model import Model
from people import SCHEMA, people, person

from snapdb import ColumnDef, Schema, SnapDB, errors, tablefile
from snapdb.storage.files import using
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

KEYED = Schema(
    [
        ColumnDef("k", "i64", primary_key=True),
        ColumnDef("mail", "str", unique=True, not_null=False),
        ColumnDef("v", "f64", not_null=False),
    ]
)
BARE = Schema([ColumnDef("k", "i64"), ColumnDef("v", "f64", not_null=False), ColumnDef("s", "str", not_null=False)])


class Stop(Exception):
    """Raised to leave a transaction."""


class Place:
    """A database and its model, in memory or in a file."""

    def __init__(self, files: Files, in_file: bool, schema: Schema = SCHEMA, **options: Any) -> None:
        self.files = files
        self.in_file = in_file
        if in_file:
            self.db = files.open(schema, **options)
        else:
            self.db = SnapDB(":memory:", schema, storage_type=files.engine, **options)
            files.made.append(self.db)
        self.model = Model(schema)

    @property
    def both(self) -> tuple[SnapDB, Model]:
        return self.db, self.model

    def check(self) -> None:
        """The database holds what the model says, and its unique values, counters and ids are those of the rows."""
        db, model = self.db, self.model
        assert repr(list(db)) == repr(model.items())
        assert len(db) == len(model.rows)
        figures = db.stats()
        assert (figures["rows"], figures["deleted_rows"]) == (len(model.rows), model.positions - len(model.rows))
        key = model.primary_key
        if key is not None:
            assert {db._indexes.find(0, row[key]) for row in model.rows.values()} == set(model.rows)
            assert list(db._indexes.verify()) == []
        column = "score" if "score" in model.names else "v"
        assert db.aggregate(column, "max") == model.aggregate(column, "max")
        assert db.aggregate(column, "count") == model.aggregate(column, "count")
        report = db.fsck()
        assert report["ok"], report

    def reopen(self, kill: bool = False) -> None:
        """Close, or be killed, and open again; in memory nothing."""
        if not self.in_file:
            return
        if kill:
            self.db = self.files.kill(self.db)
        else:
            self.db.close()
            self.db = self.files.open()


@pytest.fixture(params=["memory", "file"])
def in_file(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "file")


@pytest.fixture
def place(files: Files, in_file: bool) -> Place:
    """1,500 people, some deleted."""
    made = Place(files, in_file, page_size=512)
    for it in made.both:
        it.batch_insert(people(1500))
        for idx in (3, 700, 1499):
            it.delete(idx)
    return made


def new(i: int) -> dict[str, Any]:
    return {**person(i), "id": 100_000 + i}


# Each does the same to a database and to a model.
WRITES: dict[str, Callable[[Any], Any]] = {
    "insert": lambda it: it.insert(new(1)),
    "batch_insert": lambda it: it.batch_insert(new(i) for i in range(100, 1200)),
    "insert_columns": lambda it: it.insert_columns({name: [new(i)[name] for i in (50, 51)] for name in SCHEMA.names}),
    "update": lambda it: it.update(5, {"name": "long " * 300, "age": None, "id": 7_000_000}),
    "updates of one row": lambda it: [it.update(6, {"score": i / 8, "name": "x" * i}) for i in range(5)],
    "batch_update": lambda it: it.batch_update([("id", "between", (1010, 1400))], {"name": "same", "blob": None}),
    "batch_update by callables": lambda it: it.batch_update(
        lambda row: row["flag"], lambda row: {"score": row["id"] / 2, "age": 1}
    ),
    "delete": lambda it: it.delete(9),
    "delete_where": lambda it: it.delete_where([("id", "between", (1600, 1800))]),
    "upsert of a row": lambda it: it.upsert({**person(20), "name": "upserted"}),
    "upsert of none": lambda it: it.upsert(new(30)),
    "compact": lambda it: it.compact(),
    "delete and insert again": lambda it: (it.delete(12), it.insert(person(12))),
    "swap of keys": lambda it: (
        it.update(14, {"id": -1}),
        it.update(15, {"id": 1014}),
        it.update(14, {"id": 1015}),
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_kind_of_write_is_kept_or_taken_back(place: Place, write: str) -> None:
    for end in ("exception", "commit"):
        if end == "exception":
            with pytest.raises(Stop), place.db.transaction():
                WRITES[write](place.db)
                raise Stop
        else:
            with place.db.transaction():
                for it in place.both:
                    WRITES[write](it)
                assert len(place.db) == len(place.model.rows)  # visible within
        place.check()
        place.reopen(kill=True)
        place.check()
    place.reopen()
    place.check()


def test_everything_in_one_transaction(place: Place) -> None:
    def all_of_it(it: Any) -> None:
        for name, write in WRITES.items():
            if name != "compact":
                write(it)
        it.compact()
        it.batch_insert({**person(i), "id": 200_000 + i} for i in range(900))
        it.delete_where([("id", "gt", 200_800)])

    with pytest.raises(Stop), place.db.transaction():
        all_of_it(place.db)
        raise Stop
    place.check()
    place.reopen(kill=True)
    place.check()
    with place.db.transaction():
        for it in place.both:
            all_of_it(it)
    place.check()
    place.reopen(kill=True)
    place.check()
    with pytest.raises(Stop), place.db.transaction():
        place.db.compact()
        place.db.batch_insert(new(i) for i in range(5000, 5100))
        place.db.compact()
        place.db.update(0, {"name": "y"})
        raise Stop
    place.check()


def test_random_mixtures(files: Files, in_file: bool) -> None:
    """Transactions of a few random writes, kept or not, with bare writes, checkpoints and openings between."""
    draw = random.Random(11)
    place = Place(files, in_file, KEYED)
    fresh = 0

    def some(it: Any, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(dice.randrange(1, 6)):
            ids = sorted(place.model.rows) if it is place.db else sorted(it.rows)
            ids = [idx for idx, _ in it] if it is place.db else ids
            kind = dice.randrange(7)
            if kind == 0 or not ids:
                it.insert({"k": seed * 100_000 + dice.randrange(90_000), "v": 1.5})
            elif kind == 1:
                first = seed * 1_000_000 + 500_000_000 + dice.randrange(1000) * 200
                it.batch_insert({"k": first + i, "mail": f"m{first + i}"} for i in range(dice.randrange(1, 120)))
            elif kind == 2:
                it.update(dice.choice(ids), {"v": dice.random(), "mail": None})
            elif kind == 3:
                it.delete(dice.choice(ids))
            elif kind == 4:
                it.batch_update([("v", "gt", dice.random())], {"v": None})
            elif kind == 5:
                low = dice.choice(ids)
                it.delete_where([("k", "between", (low, low + 40))])
            else:
                it.compact()

    for _ in range(120):
        fresh += 1
        if draw.random() < 0.5:
            after = copy.deepcopy(place.model)
            with place.db.transaction():
                some(place.db, fresh)
            some(after, fresh)
            place.model = after
        else:
            with pytest.raises(Stop), place.db.transaction():
                some(place.db, fresh)
                raise Stop
        dice = draw.random()
        if dice < 0.15:
            place.db.checkpoint()
        elif dice < 0.3:
            place.reopen(kill=draw.random() < 0.5)
        if fresh % 6 == 0:
            place.check()
    place.check()


# -- across the units of storage --------------------------------------------------------------
def bare(i: int) -> dict[str, Any]:
    return {"k": i * 7, "v": None if i % 5 == 0 else i / 4, "s": f"s{i % 50}"}


@pytest.fixture
def large(files: Files, in_file: bool, backend_name: str) -> Place:
    """Enough rows for a sealed part and a tail."""
    made = Place(files, in_file, BARE)
    for it in made.both:
        it.batch_insert(bare(i) for i in range(9000))
    return made


LARGE_WRITES: dict[str, Callable[[Any], Any]] = {
    "inserts until the tail folds": lambda it: [it.insert(bare(i)) for i in range(9000, 17_500)],
    "a batch over several folds": lambda it: it.batch_insert(bare(i) for i in range(9000, 26_000)),
    "sealed rows are updated": lambda it: it.batch_update([("k", "lt", 7 * 5000)], {"v": -1.0, "s": "new"}),
    "all rows are deleted": lambda it: it.delete_where([("k", "gte", 0)]),
    "the sealed rows are deleted": lambda it: it.delete_where([("k", "lt", 7 * 8192)]),
    "all are deleted, then more": lambda it: (
        it.delete_where([("k", "gte", 0)]),
        it.batch_insert(bare(i) for i in range(9000)),
        it.update(9500, {"v": 0.5}),
    ),
    "compact and more": lambda it: (
        it.delete_where([("k", "lt", 7 * 4000)]),
        it.compact(),
        it.batch_insert(bare(i) for i in range(5000)),
        it.update(1, {"s": "x" * 100}),
    ),
}


@pytest.mark.parametrize("write", LARGE_WRITES)
def test_writes_across_folds(large: Place, write: str) -> None:
    for checkpointed in (False, True):
        if checkpointed:
            large.db.checkpoint()
        with pytest.raises(Stop), large.db.transaction():
            LARGE_WRITES[write](large.db)
            large.db.insert(bare(1))
            raise Stop
        large.check()
    large.reopen(kill=True)
    with large.db.transaction():
        for it in large.both:
            LARGE_WRITES[write](it)
    large.check()
    large.db.checkpoint()
    large.reopen()
    for it in large.both:
        it.insert(bare(3))
    large.check()


@pytest.mark.slow
def test_a_whole_segment_comes_and_goes(files: Files, in_file: bool, backend_name: str) -> None:
    place = Place(files, in_file, BARE)
    rows = 140_000 if backend_name == "c" else 70_000
    columns = {"k": list(range(rows)), "v": [i / 2 for i in range(rows)], "s": [f"s{i % 9}" for i in range(rows)]}
    for it in place.both:
        it.insert_columns(columns)
    for _ in range(2):
        with pytest.raises(Stop), place.db.transaction():
            place.db.delete_where([("k", "lt", 65_536)])
            place.db.insert_columns(columns)
            place.db.batch_update([("k", "gt", 66_000)], {"v": 0.25})
            raise Stop
        place.check()
        place.db.checkpoint()
        place.reopen()
    with place.db.transaction():
        for it in place.both:
            it.delete_where([("k", "lt", 65_536)])
            it.insert_columns(columns)
    place.reopen(kill=True)
    place.check()


def test_large_batches_are_given_back(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that do not go through the log leave nothing behind when they are rolled back."""
    monkeypatch.setattr(tablefile, "BULK", 20_000)
    place = Place(files, True, KEYED)

    def batch(first: int) -> Iterator[dict[str, Any]]:
        return ({"k": first + i, "mail": f"m{first + i}", "v": i / 3} for i in range(3000))

    for it in place.both:
        it.batch_insert(batch(0))
    place.db.checkpoint()
    place.db.checkpoint()
    before = place.db.stats()
    for step in range(6):
        with pytest.raises(Stop), place.db.transaction():
            place.db.insert({"k": -1})
            place.db.batch_insert(batch(100_000))
            place.db.update(4000, {"mail": "changed"})
            place.db.batch_insert(batch(200_000))
            assert len(place.db) == 9001
            raise Stop
        assert place.db.stats()["free_bytes"] + 4096 * 4 >= before["free_bytes"]
        if step == 2:
            place.check()
            place.reopen(kill=True)
    place.check()
    place.db.checkpoint()
    place.db.checkpoint()
    after = place.db.stats()
    assert after["live_bytes"] <= before["live_bytes"] + 8192
    assert after["file_bytes"] <= before["file_bytes"] + 400_000  # of one transaction, used again each time
    with place.db.transaction():
        for it in place.both:
            it.batch_insert(batch(100_000))
            it.update(4000, {"mail": "changed"})
            it.batch_insert(batch(200_000))
    place.check()
    place.reopen(kill=True)
    place.check()
    place.reopen()
    place.check()


# -- how a transaction ends ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "error", [ValueError, KeyError, Stop, KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit]
)
def test_any_exception_rolls_back_and_goes_on(place: Place, error: type[BaseException]) -> None:
    raised = error("why")
    with pytest.raises(error) as caught:
        with place.db.transaction():
            place.db.insert(new(1))
            place.db.delete(0)
            raise raised
    assert caught.value is raised
    place.check()
    assert place.db.insert(new(1)) == place.model.insert(new(1))  # it is usable, and the value is free
    place.check()


def test_an_error_that_is_caught_inside_undoes_its_write_only(place: Place) -> None:
    with place.db.transaction():
        for it in place.both:
            it.insert(new(1))
        for write, error in (
            (lambda: place.db.insert(new(1)), errors.UniqueError),
            (lambda: place.db.batch_insert([new(2), new(1)]), errors.UniqueError),
            (lambda: place.db.batch_insert([new(2), {**new(3), "age": 256}]), errors.ValidationError),
            (lambda: place.db.update(1, {"id": 1002}), errors.UniqueError),
            (lambda: place.db.update(3, {"age": 1}), KeyError),
            (lambda: place.db.delete(3), KeyError),
            (lambda: place.db.batch_update([], {"id": 5}), errors.UniqueError),
            (lambda: place.db.delete_where([]), ValueError),
        ):
            with pytest.raises(error):
                write()
        for it in place.both:
            it.insert(new(4))
    place.check()
    place.reopen(kill=True)
    place.check()


def test_an_empty_transaction(place: Place) -> None:
    for _ in range(3):
        with place.db.transaction():
            pass
        with pytest.raises(Stop), place.db.transaction():
            raise Stop
    place.check()
    place.reopen(kill=True)
    place.check()


def test_nested_transactions_are_refused(place: Place) -> None:
    with place.db.transaction():
        for it in place.both:
            it.insert(new(1))
        for _ in range(2):
            with pytest.raises(errors.TransactionError, match="Nested transactions are not supported") as caught:
                with place.db.transaction():
                    raise AssertionError("entered")
            assert isinstance(caught.value, RuntimeError)
        for it in place.both:
            it.insert(new(2))  # the outer one is as it was
    place.check()
    with pytest.raises(errors.TransactionError):
        with place.db.transaction():
            place.db.insert(new(3))
            with place.db.transaction():
                pass
    place.check()
    place.reopen(kill=True)
    place.check()


def test_a_transaction_is_used_once(place: Place) -> None:
    transaction = place.db.transaction()
    with transaction:
        for it in place.both:
            it.insert(new(1))
        with pytest.raises(errors.TransactionError):
            transaction.__enter__()
    with pytest.raises(errors.TransactionError, match="once"):
        transaction.__enter__()
    later = place.db.transaction()  # made before another one runs
    with place.db.transaction():
        pass
    with later:
        for it in place.both:
            it.insert(new(2))
    place.check()


def test_close_inside_rolls_back(place: Place) -> None:
    with place.db.transaction():
        place.db.insert(new(1))
        place.db.batch_update([], {"name": "gone"})
        place.db.close()
        with pytest.raises(errors.ClosedError):
            place.db.insert(new(2))
        with pytest.raises(errors.ClosedError):
            place.db.transaction()
    with pytest.raises(errors.ClosedError):
        place.db.get(0)
    if place.in_file:
        assert list(place.files.contents()) == ["t.snapdb"]
        place.db = place.files.open()
        place.check()


def test_close_inside_and_an_exception(place: Place) -> None:
    with pytest.raises(Stop), place.db.transaction():
        place.db.insert(new(1))
        place.db.close()
        raise Stop
    if place.in_file:
        place.db = place.files.open()
        place.check()


def test_a_transaction_that_is_never_left(files: Files) -> None:
    place = Place(files, True)
    for it in place.both:
        it.batch_insert(people(20))
    for kill in (True, False):
        endless = place.db.transaction()
        endless.__enter__()
        place.db.insert(new(1))
        place.reopen(kill)
        place.check()
        del endless
        place.check()


@pytest.mark.parametrize("name", ["flush", "checkpoint", "backup"])
def test_what_is_refused_inside(place: Place, name: str) -> None:
    arguments = [place.files.path("copy")] if name == "backup" else []
    with place.db.transaction():
        for it in place.both:
            it.insert(new(1))
        if place.in_file or name == "backup":
            with pytest.raises(errors.TransactionError, match=name):
                getattr(place.db, name)(*arguments)
        for it in place.both:
            it.insert(new(2))
    place.check()
    getattr(place.db, name)(*arguments)
    place.reopen(kill=True)
    place.check()


def test_a_long_log_waits_for_the_end(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is made in the middle of a transaction."""
    options = tablefile.Options
    limited = lambda *given, **named: options(*given, **named)._replace(wal_limit=20_000)  # noqa: E731
    monkeypatch.setattr(tablefile, "Options", limited)
    place = Place(files, True)
    for it in place.both:
        it.batch_insert(people(10))
    generations = set()
    with pytest.raises(Stop), place.db.transaction():
        for i in range(200):
            place.db.insert({**new(i), "blob": bytes(1000)})
            generations.add(place.db.stats()["generation"])
        raise Stop
    assert len(generations) == 1
    place.check()
    with place.db.transaction():
        for i in range(200):
            for it in place.both:
                it.insert({**new(i), "blob": bytes(1000)})
    assert place.db.stats()["generation"] > max(generations)
    place.reopen(kill=True)
    place.check()


# -- exceptions in the middle of one write -------------------------------------------------------
def failing(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield new(i)
    raise Stop


class Bomb:
    """A sequence whose n-th item raises."""

    def __init__(self, values: list[Any], at: int) -> None:
        self.values, self.at = values, at

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        if i == self.at:
            raise Stop
        return self.values[i]

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self)):
            yield self[i]


class BadInt:
    def __index__(self) -> int:
        raise Stop


def once(times: int) -> Callable[[Any], dict[str, Any]]:
    """An update that raises at the n-th row."""
    left = iter(range(times))

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if next(left, None) is None:
            raise Stop
        return {"name": "changed"}

    return change


def raising(row: dict[str, Any]) -> bool:
    if row["id"] > 1100:
        raise Stop
    return True


MIDDLE: dict[str, Callable[[SnapDB], Any]] = {
    "a generator that raises": lambda db: db.batch_insert(failing(1200)),
    "a generator that raises at once": lambda db: db.batch_insert(failing(0)),
    "a value that raises": lambda db: db.batch_insert([new(1), {**new(2), "age": BadInt()}]),
    "a bad row": lambda db: db.batch_insert([*map(new, range(50)), {**new(60), "name": 5}]),
    "a row that is none": lambda db: db.batch_insert([new(1), 7]),  # type: ignore[list-item]
    "a unique value that is taken": lambda db: db.batch_insert([*map(new, range(50)), person(0)]),
    "a unique value twice": lambda db: db.batch_insert([*map(new, range(50)), new(0)]),
    "columns that raise": lambda db: db.insert_columns(
        {**{name: [new(i)[name] for i in range(40)] for name in SCHEMA.names}, "age": Bomb([1] * 40, 30)}
    ),
    "columns of different length": lambda db: db.insert_columns(
        {**{name: [new(1)[name]] for name in SCHEMA.names}, "age": [1, 2]}
    ),
    "columns with a taken value": lambda db: db.insert_columns(
        {name: [new(1)[name], person(0)[name]] for name in SCHEMA.names}
    ),
    "an update that raises": lambda db: db.batch_update([], once(700)),
    "a predicate that raises": lambda db: db.batch_update(raising, {"name": "changed"}),
    "an update to a bad value": lambda db: db.batch_update([], lambda row: {"age": 300 if row["id"] == 1200 else 1}),
    "an update to one unique value": lambda db: db.batch_update([("id", "gt", 1400)], {"id": 9}),
    "an upsert of a bad value": lambda db: db.upsert({**person(5), "name": None}),
    "an upsert that raises": lambda db: db.upsert({**person(5), "age": BadInt()}),
    "an update that raises inside": lambda db: db.update(5, {"name": "changed", "age": BadInt()}),
    "an insert that raises": lambda db: db.insert({**new(1), "age": BadInt()}),
}


@pytest.mark.parametrize("write", MIDDLE)
def test_a_write_that_raises_in_its_middle_did_nothing(place: Place, write: str) -> None:
    with pytest.raises((Stop, ValueError, KeyError, TypeError)):
        MIDDLE[write](place.db)
    place.check()
    with place.db.transaction():
        for it in place.both:
            it.insert(new(9000))
        with pytest.raises((Stop, ValueError, KeyError, TypeError)):
            MIDDLE[write](place.db)
        for it in place.both:
            it.insert(new(9001))
    place.check()
    for it in place.both:
        it.batch_insert(new(i) for i in range(60))  # what had been staged is free
    place.reopen(kill=True)
    place.check()


def test_callables_that_write(place: Place) -> None:
    """What a callable does to the table itself happens, and is rolled back with the transaction."""

    def meddle(row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] == 1010:
            place.db.insert(new(77))
        return {"score": 0.5}

    with pytest.raises(Stop), place.db.transaction():
        place.db.batch_update([("id", "between", (1005, 1015))], meddle)
        raise Stop
    place.check()
    place.reopen(kill=True)
    place.check()


# -- the disk refuses -----------------------------------------------------------------------------
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("kind", ["write", "allocate"])
@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_at_commit(engine: str, backend_name: str, durability: str, kind: str, short: bool) -> None:
    """The transaction is rolled back, everything before it stays, and the database goes on."""
    layer = FaultyLayer(RecordingLayer(record=False))
    with using(layer):
        files = Files(engine, "", None)
        place = Place(files, True, durability=durability)
        for it in place.both:
            it.batch_insert(people(50))
        place.db.flush()  # else the flusher's may come between the next two lines, and is counted
        # what was allocated before can be written to on a full disk
        layer.operations = 0
        layer.plan = Plan(1, errno.ENOSPC, short=short, forever=kind == "allocate", kinds=frozenset([kind]))
        with pytest.raises(errors.StorageError) as caught:
            with place.db.transaction():
                for i in range(400):  # more than what is allocated
                    place.db.insert({**new(i), "blob": bytes(1000)})
                place.db.update(1, {"name": "lost"})
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value, OSError)
        assert layer.failures > 0
        place.check()
        layer.plan = None
        with place.db.transaction():
            for it in place.both:
                it.insert(new(1))
        place.check()
        place.reopen(kill=True)
        place.check()
        files.close()


def test_a_flush_that_fails_at_commit(engine: str, backend_name: str) -> None:
    """Nobody knows what is on the disk: the handle is of no further use, and opening again tells."""
    layer = FaultyLayer(RecordingLayer(record=True))
    with using(layer):
        files = Files(engine, "", None)
        place = Place(files, True)
        for it in place.both:
            it.batch_insert(people(50))
        place.db.flush()
        layer.operations, layer.plan = 0, Plan(1, kinds=frozenset(["sync"]))
        with pytest.raises(errors.DurabilityError):
            with place.db.transaction():
                place.db.insert(new(1))
        with pytest.raises(errors.DurabilityError):
            place.db.insert(new(2))
        with pytest.raises(errors.DurabilityError):
            place.db.transaction().__enter__()
        place.db.close()
        layer.plan = None
        place.db = files.open()
        rows = len(place.db)
        assert rows in (50, 51)
        if rows == 51:
            place.model.insert(new(1))
        place.check()
        files.close()


# -- threads ---------------------------------------------------------------------------------------
def test_other_threads_wait_with_their_writes(place: Place) -> None:
    done: list[str] = []
    started = threading.Barrier(len(OTHER) + 1)
    problems: list[BaseException] = []

    def run(name: str) -> None:
        try:
            started.wait()
            OTHER[name](place.db)
            done.append(name)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in OTHER]
    for thread in threads:
        thread.start()
    with place.db.transaction():
        started.wait()
        time.sleep(0.05)
        for i in range(50):
            place.db.insert(new(i))
        time.sleep(0.05)
        # a table in memory has nothing to flush
        assert set(done) <= (set() if place.in_file else {"flush", "checkpoint"})
        assert len(place.db) == 1497 + 50
    for thread in threads:
        thread.join()
    assert problems == []
    assert sorted(done) == sorted(OTHER)
    assert place.db.fsck()["ok"]
    assert place.db.count_where([("id", "between", (100_000, 100_049))]) == 50
    assert place.db.find(id=300_000)
    assert place.db.find(name="by another thread", id=1001)
    assert not place.db.find(id=1002)


OTHER: dict[str, Callable[[SnapDB], Any]] = {
    "insert": lambda db: db.insert({**person(1), "id": 300_000}),
    "batch_insert": lambda db: db.batch_insert([{**person(1), "id": 300_001}]),
    "insert_columns": lambda db: db.insert_columns({n: [v] for n, v in {**person(1), "id": 300_002}.items()}),
    "update": lambda db: db.update(1, {"name": "by another thread"}),
    "delete": lambda db: db.delete(2),
    "upsert": lambda db: db.upsert({**person(4), "name": "upserted"}),
    "batch_update": lambda db: db.batch_update([("id", "eq", 1005)], {"name": "changed"}),
    "delete_where": lambda db: db.delete_where([("id", "eq", 1006)]),
    "transaction": lambda db: in_transaction(db, 300_003),
    "flush": lambda db: db.flush(),
    "checkpoint": lambda db: db.checkpoint(),
}


def in_transaction(db: SnapDB, key: int) -> None:
    with db.transaction():
        db.insert({**person(1), "id": key})


def test_inserts_of_other_threads_wait_where_nothing_is_unique(files: Files, in_file: bool) -> None:
    """Single rows go straight to the kernel there."""
    place = Place(files, in_file, BARE)
    place.db.insert(bare(0))
    done = threading.Event()
    began = threading.Event()

    def run() -> None:
        began.set()
        place.db.insert({"k": -1})
        done.set()

    thread = threading.Thread(target=run)
    with pytest.raises(Stop), place.db.transaction():
        place.db.insert(bare(1))
        thread.start()
        began.wait()
        assert not done.wait(0.1)
        place.db.insert(bare(2))
        raise Stop
    thread.join()
    assert place.db.select_column("k") == [0, -1]
    place.reopen(kill=True)
    assert place.db.select_column("k") == [0, -1]


def test_many_threads_in_transactions(files: Files, in_file: bool) -> None:
    """Money moves between accounts; the sum never changes at a commit, whoever commits."""
    place = Place(files, in_file, BARE)
    place.db.batch_insert({"k": 100} for _ in range(10))
    problems: list[BaseException] = []

    def move(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for step in range(40):
                source, target = draw.sample(range(10), 2)
                try:
                    with place.db.transaction():
                        amount = draw.randrange(30)
                        place.db.update(source, {"k": place.db[source]["k"] - amount})
                        if step % 5 == 4:
                            raise Stop
                        place.db.update(target, {"k": place.db[target]["k"] + amount})
                        assert place.db.aggregate("k", "sum") == 1000
                except Stop:
                    pass
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=move, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert place.db.aggregate("k", "sum") == 1000
    place.reopen(kill=True)
    assert place.db.aggregate("k", "sum") == 1000
    assert place.db.fsck()["ok"]


def test_readers_see_either(place: Place) -> None:
    """The state before, what the transaction has done so far, or what it did."""
    seen: list[int] = []

    def read() -> None:
        seen.append(len(place.db.select([("id", "lt", 1010)])))
        seen.append(sum(place.db.get(idx) is not None for idx in range(10)))
        seen.append(place.db.count_where([("id", "lt", 1010)]))

    threads = [threading.Thread(target=read) for _ in range(3)]
    with place.db.transaction():
        place.db.delete(0)
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        place.db.delete(1)
    for thread in threads:
        thread.join()
    assert len(seen) == 9
    assert set(seen) <= {9, 8, 7}


def test_close_by_another_thread_waits(place: Place) -> None:
    closer = threading.Thread(target=place.db.close)
    with place.db.transaction():
        closer.start()
        time.sleep(0.05)
        for it in place.both:
            it.insert(new(1))
    closer.join()
    with pytest.raises(errors.ClosedError):
        place.db.get(0)
    if place.in_file:
        place.db = place.files.open()
        place.check()
