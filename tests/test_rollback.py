"""What a transaction takes back, below the handle: rows, values, deleted rows, counters and unique keys."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import SCHEMA, people, person

from snapdb import _ext, errors, rowstore
from snapdb.columnar import ColumnarTable
from snapdb.indexes import Indexes
from snapdb.rowstore import RowTable
from snapdb.table import Change, Table

ENGINES = ("row", "columnar")


class Handle:
    """A table and its keys, written to as SnapDB does."""

    def __init__(self, engine: str, backend: str, page_size: int = 512) -> None:
        self.table: Any = (
            RowTable(SCHEMA, page_size, backend=backend)
            if engine == "row"
            else ColumnarTable("t", SCHEMA, backend=backend)
        )
        self.keys = Indexes(SCHEMA, self.table.kernels, self.table)

    def insert(self, row: dict[str, Any]) -> int:
        values = self.table.codec.encode(row)
        idx: int = self.table.rows
        self.table.append_values(values, self.keys.entering(idx, self.keys.check_row(values)))
        return idx

    def batch(self, rows: list[dict[str, Any]]) -> None:
        staged = self.table.stage(rows)
        keys = self.keys.check_batch(staged)
        self.table.extend(staged, self.keys.entering_batch(self.table.rows, keys))

    def update(self, ids: list[int], row: Callable[[int], dict[str, Any]]) -> None:
        changes = [self.table.plan_update(idx, row(idx)) for idx in ids]
        self.table.apply(changes, self.keys.moving(self.keys.check_changes(self.table, changes)))

    def remove(self, ids: list[int]) -> None:
        self.table.remove(ids, self.keys.forgetting(self.table, ids))

    def compact(self) -> None:
        self.table.compact(self.keys.rebuilding())

    def begin(self) -> None:
        self.table.begin()
        self.keys.begin()

    def commit(self) -> None:
        self.table.commit()
        self.keys.commit()

    def rollback(self) -> None:
        self.table.rollback()
        self.keys.rollback()

    def state(self) -> Any:
        table = self.table
        rows = dict(table.items())
        ids = {row["id"]: idx for idx, row in rows.items()}
        assert self.keys.find(0, -1) is None
        assert list(self.keys.verify()) == []
        assert {key: self.keys.find(0, key) for key in ids} == ids
        assert len(table) == len(rows)
        assert table.select_column("name") == [row["name"] for row in rows.values()]
        assert table.aggregate("score") == pytest.approx(sum(row["score"] or 0 for row in rows.values()))
        ages = [row["age"] for row in rows.values() if row["age"] is not None]
        assert (
            (table.aggregate("age", "min"), table.aggregate("age", "max")) == (min(ages), max(ages)) if ages else True
        )
        assert all(table.get(idx) == row for idx, row in list(rows.items())[::7])
        return table.rows, rows


@pytest.fixture(params=ENGINES)
def handle(request: pytest.FixtureRequest, backend_name: str) -> Handle:
    made = Handle(request.param, backend_name)
    made.batch(people(1500))
    made.remove([3, 700, 1499])
    return made


def new_person(i: int) -> dict[str, Any]:
    return {**person(i), "id": 100_000 + i}


def test_nothing_is_as_it_was(handle: Handle) -> None:
    before = handle.state()
    handle.begin()
    handle.rollback()
    assert handle.state() == before


def test_every_kind_of_write_is_taken_back(handle: Handle) -> None:
    before = handle.state()
    writes: list[Callable[[], Any]] = [
        lambda: handle.insert(new_person(1)),
        lambda: handle.batch([new_person(i) for i in range(10, 2000)]),
        lambda: handle.update([5], lambda _: {"name": "long " * 300, "age": None, "id": 7_000_000}),
        lambda: handle.update([5, 6, 5], lambda _: {"score": 0.125, "city": "", "flag": None}),
        lambda: handle.update(list(range(10, 400)), lambda idx: {"name": f"n{idx}", "age": 1, "blob": None}),
        lambda: handle.update([10, 11], lambda idx: {"id": {10: 1011, 11: 1010}[idx]}),
        lambda: handle.remove([9]),
        lambda: handle.remove([idx for idx in range(600, 800) if idx != 700]),
        lambda: handle.compact(),
    ]
    for write in writes:
        handle.begin()
        write()
        assert handle.state() != before
        handle.rollback()
        assert handle.state() == before
    handle.begin()
    for write in writes:
        write()
    handle.insert(new_person(5000))
    handle.remove([0, 1])
    handle.compact()
    handle.update([3], lambda _: {"age": 3})
    handle.rollback()
    assert handle.state() == before
    assert handle.insert(new_person(1)) == 1500  # ids are given out again


def test_a_commit_stays(handle: Handle) -> None:
    handle.begin()
    handle.insert(new_person(1))
    handle.update([4], lambda _: {"age": 9})
    handle.remove([0])
    handle.commit()
    after = handle.state()
    assert 0 not in after[1] and after[1][4]["age"] == 9 and after[0] == 1501
    handle.begin()
    handle.update([4], lambda _: {"age": 10})
    handle.rollback()
    assert handle.state() == after


def test_iterators_see_what_there_was(handle: Handle) -> None:
    before = dict(handle.table.items())
    waiting = handle.table.items()
    handle.begin()
    handle.update(list(range(100, 200)), lambda _: {"name": "changed"})
    handle.remove([50, 51])
    during = handle.table.items()
    seen = dict(handle.table.items())
    handle.rollback()
    assert dict(waiting) == before == dict(handle.table.items())
    assert dict(during) == seen != before


def test_rows_of_the_transaction_itself(handle: Handle) -> None:
    before = handle.state()
    handle.begin()
    handle.batch([new_person(i) for i in range(200)])
    handle.update(list(range(1500, 1650)), lambda _: {"name": "n", "score": 1.0})
    handle.update([1500, 2], lambda _: {"age": 4})
    handle.remove([*range(1600, 1700), 2])
    assert handle.insert(new_person(900)) == 1700
    handle.remove([1700])
    handle.rollback()
    assert handle.state() == before


def test_all_rows_of_a_slab_go_and_come_back(handle: Handle) -> None:
    before = handle.state()
    handle.begin()
    for idx in range(30):
        if idx != 3:
            handle.remove([idx])
    handle.rollback()
    assert handle.state() == before


def test_what_fails_leaves_no_trace(handle: Handle) -> None:
    """Whichever of the calls around a write fails, inside a transaction and outside."""
    table = handle.table

    def fail() -> None:
        raise MemoryError("no memory")

    bad = [partial(fail)]
    changes = [Change(idx, [(2, 77), (1, b"new")]) for idx in range(100, 220)]
    staged = table.stage([new_person(i) for i in range(30)])
    values = table.codec.encode(new_person(1))
    firsts: list[Callable[..., Any]] = [
        lambda **calls: table.apply(changes, **calls),
        lambda **calls: table.apply(changes[:3], **calls),
        lambda **calls: table.remove([*range(10, 150)], **calls),
        lambda **calls: table.remove([10], **calls),
        lambda **calls: table.extend(staged, **calls),
        lambda **calls: table.compact(**calls),
    ]
    before = handle.state()
    for open_ in (False, True):
        if open_:
            handle.begin()
        with pytest.raises(MemoryError):
            table.append_values(values, first=bad)
        for write in firsts:
            with pytest.raises(MemoryError):
                write(first=bad)
            assert handle.state() == before
    handle.rollback()
    assert handle.state() == before


def test_what_fails_afterwards_is_undone(backend_name: str) -> None:
    handle = Handle("row", backend_name)
    handle.batch(people(1500))
    table = handle.table

    def fail() -> None:
        raise MemoryError("no memory")

    changes = [Change(idx, [(2, 77), (1, b"new")]) for idx in range(100, 220)]
    staged = table.stage([new_person(i) for i in range(30)])
    writes: list[Callable[..., Any]] = [
        lambda **calls: table.apply(changes, **calls),
        lambda **calls: table.apply(changes[:3], **calls),
        lambda **calls: table.remove([*range(10, 150)], **calls),
        lambda **calls: table.remove([10], **calls),
        lambda **calls: table.extend(staged, **calls),
        lambda **calls: table.compact(**calls),
    ]
    before = handle.state()
    for open_ in (False, True):
        if open_:
            handle.begin()
        for write in writes:
            with pytest.raises(MemoryError):
                write(then=[partial(fail)])
            assert handle.state() == before
    handle.rollback()
    assert handle.state() == before


def test_an_interrupt_after_the_step_leaves_it_whole(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log has by then happens, and what it has not does not."""
    handle = Handle("row", backend_name)
    handle.batch(people(300))
    run, carry_out = rowstore.run, rowstore.carry_out

    def interrupted(*parts: Any) -> None:
        run(*parts)
        raise KeyboardInterrupt

    def cut(*parts: Any) -> None:
        carry_out(*parts)
        raise KeyboardInterrupt

    writes: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: handle.update([4], lambda _: {"age": 201}), lambda: handle.table.get(4)["age"] == 201),
        (lambda: handle.update(list(range(200)), lambda _: {"age": 202}), lambda: handle.table.get(4)["age"] == 202),
        (lambda: handle.remove([4]), lambda: handle.table.get(4) is None),
        (lambda: handle.remove(list(range(10, 120))), lambda: handle.table.get(11) is None),
        (lambda: handle.insert(new_person(1)), lambda: handle.table.get(300)["id"] == 100_001),
        (lambda: handle.batch([new_person(i) for i in range(2, 9)]), lambda: handle.table.rows == 308),
        (lambda: handle.compact(), lambda: handle.table.rows == 308 - 111),
    ]
    for open_ in (True, False):
        before = handle.state()
        if open_:
            handle.begin()
        for write, happened in writes:
            with monkeypatch.context() as patch:
                patch.setattr(rowstore, "run", interrupted)
                patch.setattr(rowstore, "carry_out", cut)
                with pytest.raises(KeyboardInterrupt):
                    write()
            assert happened()
            handle.state()
        if open_:
            handle.rollback()
            assert handle.state() == before


def test_firsts_come_before_and_thens_after(handle: Handle) -> None:
    table = handle.table
    told: list[Any] = []

    def calls() -> dict[str, Any]:
        return {
            "first": [partial(lambda: told.append((table.rows, table.get(5)["age"], table.contains(6))))],
            "then": [partial(lambda: told.append((table.rows, table.get(5)["age"], table.contains(6))))],
        }

    age = table.get(5)["age"]
    table.apply([Change(5, [(2, 33)])], **calls())
    assert told == [(1500, age, True), (1500, 33, True)]
    told.clear()
    table.remove([6], **calls())
    assert told == [(1500, 33, True), (1500, 33, False)]
    told.clear()
    table.extend(table.stage([new_person(1)]), **calls())
    assert told == [(1500, 33, False), (1501, 33, False)]


def test_single_row_writes_of_the_row_engine(backend_name: str) -> None:
    table = RowTable(SCHEMA, backend=backend_name)
    table.batch_insert(people(50))
    before = dict(table.items())
    table.begin()
    with table.writing():  # and so by the slow way
        table.insert(new_person(1))
        table.slabs.update(4, {"name": "x"})
        table.slabs.delete(5)
    table.update(6, {"name": "y"})
    table.delete(7)
    with pytest.raises(errors.NotFoundError):
        table.update(7, {"name": "y"})
    with pytest.raises(errors.NotFoundError):
        table.delete(7)
    assert dict(table.items()) != before
    table.rollback()
    assert dict(table.items()) == before and table.rows == 50
    with pytest.raises(errors.TransactionError):
        table.begin()
        table.begin()


def test_a_rollback_cut_short_goes_on(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: the second call finds what the first has left."""
    handle = Handle("row", backend_name)
    handle.batch(people(900))
    before = handle.state()
    contains = handle.table.contains
    for stop in (1, 2):
        handle.begin()
        handle.update(list(range(300)), lambda idx: {"name": f"n{idx}"})
        handle.update([5], lambda idx: {"name": "five"})
        handle.remove([7, 8])
        handle.batch([new_person(i) for i in range(10)])
        handle.compact()
        handle.update([0], lambda idx: {"name": "zero"})
        asked: list[int] = []

        def interrupted(idx: int, asked: list[int] = asked, stop: int = stop) -> Any:
            asked.append(idx)
            if len(asked) == stop:
                raise KeyboardInterrupt
            return contains(idx)

        with monkeypatch.context() as patch:
            patch.setattr(handle.table, "contains", interrupted)
            with pytest.raises(KeyboardInterrupt):
                handle.table.rollback()
        handle.rollback()
        handle.table.rollback()  # nothing is open: nothing to do
        assert handle.state() == before


@pytest.mark.parametrize("read_first", [False, True])
def test_keys_that_are_read_inside_a_transaction(handle: Handle, read_first: bool) -> None:
    before = handle.state()
    handle.keys.stale(handle.table)
    assert handle.keys.memory_usage() == 0
    handle.begin()
    if read_first:
        assert handle.keys.find(0, 1005) == 5
    handle.remove([5])
    assert handle.keys.find(0, 1005) is None
    handle.insert(new_person(7))
    handle.rollback()
    assert handle.keys.memory_usage() == 0
    assert handle.state() == before
    handle.begin()
    handle.remove([9])
    handle.keys.stale(handle.table)
    handle.remove([5])
    handle.insert(new_person(7))
    handle.rollback()
    assert handle.state() == before


def test_keys_are_unique_again_after_a_rollback(handle: Handle) -> None:
    handle.begin()
    handle.remove([5])
    handle.insert(person(5))
    handle.rollback()
    with pytest.raises(errors.UniqueError, match="id=1005"):
        handle.insert(person(5))
    handle.remove([5])
    assert handle.insert(person(5)) == 1500


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.just(1)),
        st.tuples(st.just("batch"), st.integers(1, 200)),
        st.tuples(st.just("update"), st.integers(1, 120)),
        st.tuples(st.just("remove"), st.integers(1, 120)),
        st.tuples(st.just("move"), st.integers(2, 20)),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", _ext.available())
@settings(max_examples=20)
@given(committed=STEPS, taken_back=STEPS, seed=st.randoms(use_true_random=False))
def test_workloads(engine: str, backend: str, committed: list[Any], taken_back: list[Any], seed: Any) -> None:
    handle = Handle(engine, backend)
    handle.batch(people(seed.choice([5, 300, 1100])))
    number = 0

    def carry_out(name: str, count: int) -> None:
        nonlocal number
        ids = sorted(idx for idx, _ in handle.table.items())
        some = seed.sample(ids, min(count, len(ids)))
        number += count
        if name == "insert":
            handle.insert(new_person(number))
        elif name == "batch":
            handle.batch([new_person(number - i) for i in range(count)])
        elif name == "update":
            handle.update(some, lambda idx: {"name": f"n{number}", "age": idx % 200, "score": None, "flag": True})
        elif name == "move":  # keys go round
            names = [handle.table.get(idx)["id"] for idx in some]
            turned = dict(zip(some, names[1:] + names[:1]))
            handle.update(some, lambda idx: {"id": turned[idx]})
        elif name == "remove":
            handle.remove(some)
        else:
            handle.compact()

    handle.begin()
    for step in committed:
        carry_out(*step)
    handle.commit()
    before = handle.state()
    handle.begin()
    for step in taken_back:
        carry_out(*step)
    handle.state()
    handle.rollback()
    assert handle.state() == before
    carry_out("batch", 3)
    carry_out("update", 3)
    assert handle.state() != before


def test_both_engines_have_them() -> None:
    for method in (
        "begin",
        "commit",
        "rollback",
        "changes",
        "saved",
        "entries",
        "prepare",
        "publish",
        "replay",
        "verify",
    ):
        for engine in (RowTable, ColumnarTable):
            assert getattr(engine, method) is not getattr(Table, method)
