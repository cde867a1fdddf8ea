"""Threads on one handle: every write counted, no row half written, scans see a consistent table."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import MakeDb

from snapdb import ColumnDef, Schema, SnapDB

THREADS = 8
SCHEMA = Schema(
    [
        ColumnDef("owner", "u8"),
        ColumnDef("a", "i64"),
        ColumnDef("b", "i64"),
        ColumnDef("t", "str"),
        ColumnDef("f", "f64", not_null=False),
    ]
)
KEYED = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("n", "i64")])


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*work: Callable[[], Any]) -> None:
    """Run every function in a thread of its own; the first exception of any is raised here."""
    gate = threading.Barrier(len(work))
    failures: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        gate.wait()
        try:
            job()
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=run, args=(job,)) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def make_row(owner: int, value: int) -> dict[str, Any]:
    """Every column follows from ``owner`` and ``value``, so that a torn row shows."""
    return {"owner": owner, "a": value, "b": -value, "t": f"{value}", "f": value / 4}


def check_row(row: dict[str, Any]) -> None:
    assert row == make_row(row["owner"], row["a"])


ROUNDS = {"c": 3000, "numpy": 400, "python": 400}


@pytest.mark.smoke
def test_mixed_work(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    rounds = ROUNDS[backend_name]
    left: list[dict[int, int]] = [{} for _ in range(THREADS)]  # each thread's own rows: id to value

    def work(owner: int) -> None:
        draw, mine = random.Random(owner), left[owner]
        for i in range(rounds):
            action = draw.randrange(10)
            if action < 5 or not mine:
                mine[db.insert(make_row(owner, i))] = i
            elif action < 8:
                idx = draw.choice(list(mine))
                if action == 5:
                    db.update(idx, make_row(owner, i + 7))
                    mine[idx] = i + 7
                elif action == 6:
                    db.delete(idx)
                    del mine[idx]
                else:
                    assert db.get(idx) == make_row(owner, mine[idx])
            elif action == 8:
                for row in db.select_where([("owner", "eq", owner)], limit=20):
                    check_row(row)
                assert db.count_where([("owner", "eq", owner)]) == len(mine)
            elif i % 10 == 0:
                first = len(mine)
                assert db.batch_insert(make_row(owner, i) for _ in range(40)) == 40
                found = [idx for idx, row in db if row["owner"] == owner and idx not in mine]
                assert len(found) == 40, (first, len(found))
                mine.update(dict.fromkeys(found, i))

    together(*(lambda owner=owner: work(owner) for owner in range(THREADS)))
    expected = {idx: make_row(owner, value) for owner, mine in enumerate(left) for idx, value in mine.items()}
    assert dict(db) == expected
    assert len(db) == sum(map(len, left)) == db.count_where([])
    assert db.aggregate("a") == sum(sum(mine.values()) for mine in left)


def test_inserts_only(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    count = ROUNDS[backend_name] * 2  # across the fold of a tail at 8,192 rows where it is compiled
    ids: list[list[int]] = [[] for _ in range(THREADS)]
    together(
        *(
            lambda owner=owner: ids[owner].extend(db.insert(make_row(owner, i)) for i in range(count))
            for owner in range(THREADS)
        )
    )
    assert sorted(idx for mine in ids for idx in mine) == list(range(THREADS * count))
    for owner, mine in enumerate(ids):
        assert mine == sorted(mine)
        assert [db.get(idx) for idx in mine[::50]] == [make_row(owner, i) for i in range(0, count, 50)]


def test_no_torn_rows(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    db.batch_insert(make_row(0, 0) for _ in range(3000))
    stop = threading.Event()
    rounds = ROUNDS[backend_name] * 2

    def write(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for i in range(rounds):
                db.update(draw.randrange(3000), make_row(seed, i))
        finally:
            stop.set()

    def read(seed: int) -> None:
        draw = random.Random(seed)
        while not stop.is_set():
            for _ in range(20):
                check_row(db.get(draw.randrange(3000)))
            for row in db.select_where([("a", "gt", draw.randrange(200))], limit=50):
                check_row(row)
            for _, row in zip(range(200), (row for _, row in db)):
                check_row(row)

    together(
        *(lambda seed=seed: write(seed) for seed in range(3)), *(lambda seed=seed: read(seed) for seed in range(5))
    )
    for _, row in db:
        check_row(row)


def test_batches_are_seen_whole(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    stop = threading.Event()
    size, batches = 500, ROUNDS[backend_name] // 25

    def insert() -> None:
        try:
            for i in range(batches):
                db.batch_insert([make_row(1, i)] * size)
        finally:
            stop.set()

    def scan() -> None:
        seen = 0
        while not stop.is_set():
            count = db.count_where([("owner", "eq", 1)])
            assert count % size == 0
            assert count >= seen
            seen = count
            values = [row["a"] for row in db.select(columns=["a"])]
            assert values == [i // size for i in range(len(values))]
            assert len(values) % size == 0

    together(insert, *(scan for _ in range(4)))
    assert len(db) == size * batches


def test_batch_updates_are_seen_whole(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    db.batch_insert(make_row(0, 0) for _ in range(2500))
    stop = threading.Event()

    def write() -> None:
        try:
            for i in range(1, ROUNDS[backend_name] // 25):
                assert db.batch_update([], make_row(0, i)) == 2500
        finally:
            stop.set()

    def scan() -> None:
        while not stop.is_set():
            assert len({row["a"] for row in db.select(columns=["a"])}) == 1
            assert db.aggregate("a", "min") <= db.aggregate("a", "max")
            assert len(set(db.select_column("b"))) == 1
            assert len({row["a"] for _, row in db}) == 1
            assert db.aggregate("a") % 2500 == 0

    together(write, *(scan for _ in range(3)))


def test_deletes_and_compact_beside_scans(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(SCHEMA)
    stop = threading.Event()

    def write() -> None:
        try:
            for i in range(ROUNDS[backend_name] // 25):
                db.batch_insert(make_row(1, value) for value in range(100))
                db.delete_where([("a", "lt", 50)])
                if i % 5 == 4:
                    db.compact()
        finally:
            stop.set()

    def scan() -> None:
        while not stop.is_set():
            values = db.select_column("a")
            assert len(values) % 50 == 0
            assert values.count(99) in (len(values) // 50, (len(values) - 50) // 50)
            for _, row in db:
                check_row(row)
            db.group_by("a", "f", "sum")
            db.memory_usage()
            db.stats()
            if values:
                db.column_buffer("a")

    together(write, *(scan for _ in range(3)))
    assert sorted(set(db.select_column("a"))) == list(range(50, 100))


@pytest.mark.smoke
def test_unique_keys_are_given_once(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(KEYED)
    wins = [0] * THREADS

    def insert(owner: int) -> None:
        for key in range(ROUNDS[backend_name] // 3):
            try:
                db.insert({"id": key, "n": owner})
                wins[owner] += 1
            except ValueError:
                continue

    together(*(lambda owner=owner: insert(owner) for owner in range(THREADS)))
    assert sum(wins) == len(db) == ROUNDS[backend_name] // 3
    assert sorted(db.select_column("id")) == list(range(len(db)))


def test_upserts_count_exactly(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(KEYED)
    together(
        *(lambda: [db.upsert({"id": i % 10, "n": i}) for i in range(ROUNDS[backend_name] // 3)] for _ in range(THREADS))
    )
    assert sorted(db.select_column("id")) == list(range(10))


def test_iterator_shared_by_threads_stays_whole(make_db: MakeDb, engine: str) -> None:
    db: SnapDB = make_db(SCHEMA)
    db.batch_insert(make_row(1, i) for i in range(5000))
    iterators = [iter(db) for _ in range(4)]
    got: list[list[Any]] = [[] for _ in iterators]
    together(
        *(lambda at=at, iterator=iterator: got[at].extend(iterator) for at, iterator in enumerate(iterators)),
        lambda: db.batch_update([], {"a": 0, "b": 0, "t": "0", "f": 0.0}),
        lambda: db.delete_where([("owner", "eq", 1)]),
    )
    for pairs in got:
        assert [idx for idx, _ in pairs] == list(range(5000))
        assert [row["a"] for _, row in pairs] == list(range(5000))


INDEXED = Schema(
    [
        ColumnDef("id", "i64", primary_key=True),
        ColumnDef("mail", "str", unique=True, not_null=False),
        ColumnDef("team", "i32"),
        ColumnDef("n", "f64", not_null=False),
    ]
)
OPERATIONS = {"c": 10_000, "numpy": 625, "python": 625}


class Undone(Exception):
    """Takes a transaction back."""


class Worker:
    """One thread's part of ``test_indexes_beside_each_other``: rows whose ids are its own, among those of others, and
    mails that all of them want.
    """

    def __init__(self, db: SnapDB, owner: int, operations: int) -> None:
        self.db, self.owner, self.operations = db, owner, operations
        self.rows: dict[int, dict[str, Any]] = {}  # by key
        self.draw = random.Random(owner)

    def __call__(self) -> None:
        ways = [self.insert] * 5 + [self.update] * 5 + [self.upsert, self.delete, self.delete] + [self.read] * 5
        ways += [self.batch]
        for _ in range(self.operations):
            self.draw.choice(ways)()
            if self.draw.random() < 0.005:
                self.back()

    def fresh(self) -> dict[str, Any]:
        key = self.draw.randrange(200) * THREADS + self.owner
        mail = self.draw.choice([None, f"mine {key}", f"wanted {self.draw.randrange(40)}"])
        return {"id": key, "mail": mail, "team": self.draw.randrange(9), "n": self.draw.choice([None, key / 2, 0.5])}

    def insert(self) -> None:
        row = self.fresh()
        try:
            self.db.insert(row)
        except ValueError:
            assert row["id"] in self.rows or str(row["mail"]).startswith("wanted")
        else:
            assert row["id"] not in self.rows
            self.rows[row["id"]] = row

    def update(self) -> None:
        row = self.fresh()
        try:
            found = self.db.batch_update([("id", "eq", row["id"])], {k: v for k, v in row.items() if k != "id"})
        except ValueError:
            assert str(row["mail"]).startswith("wanted")
        else:
            assert found == (row["id"] in self.rows)
            if found:
                self.rows[row["id"]] = row

    def upsert(self) -> None:
        row = self.fresh()
        try:
            self.db.upsert(row)
        except ValueError:
            assert str(row["mail"]).startswith("wanted")
        else:
            self.rows[row["id"]] = row

    def delete(self) -> None:
        key = self.fresh()["id"]
        assert self.db.delete_where([("id", "eq", key)]) == (key in self.rows)
        self.rows.pop(key, None)

    def batch(self) -> None:
        rows = [{**self.fresh(), "mail": None} for _ in range(3)]
        keys = [row["id"] for row in rows]
        taken = len(set(keys)) < 3 or any(key in self.rows for key in keys)
        try:
            self.db.batch_insert(rows)
        except ValueError:
            assert taken
        else:
            assert not taken
            self.rows.update(zip(keys, rows))

    def read(self) -> None:
        row = self.fresh()
        assert self.db.lookup("id", row["id"]) == self.rows.get(row["id"])
        found = self.db.lookup("mail", f"mine {row['id']}")
        assert found is None or found == self.rows[row["id"]]
        way = self.draw.randrange(40)
        if way == 0:
            assert all(one["team"] == row["team"] for one in self.db.find(team=row["team"]))
        elif way == 1:
            values = [one["n"] for one in self.db.range_find("n", 10.0, 30.0)]
            assert values == sorted(values) and all(10 <= value <= 30 for value in values)
        elif way == 2:
            keys = [one["id"] for _, one in self.db]
            assert len(keys) == len(set(keys))

    def back(self) -> None:
        """Everything that a transaction did is taken back."""
        kept = dict(self.rows)
        try:
            with self.db.transaction():
                self.insert()
                self.delete()
                self.update()
                raise Undone
        except Undone:
            self.rows = kept


def test_indexes_beside_each_other(make_db: MakeDb, backend_name: str) -> None:
    db = make_db(INDEXED)
    db.create_index("team")
    db.create_range_index("n")
    workers = [Worker(db, owner, OPERATIONS[backend_name]) for owner in range(THREADS)]
    together(*workers)
    expected = [row for worker in workers for row in worker.rows.values()]
    assert sorted((row for _, row in db), key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])
    assert len(db) == len(expected)
    assert list(db._indexes.verify()) == []
    mails = [row["mail"] for row in expected if row["mail"] is not None]
    assert len(mails) == len(set(mails))
    for row in expected:
        assert db.lookup("id", row["id"]) == row
