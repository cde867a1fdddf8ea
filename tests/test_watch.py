"""Live queries: what a watch tells adds up to what its query answers, after every commit and never else."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from pathlib import Path
from typing import Any, Callable

import pytest

from snapdb import ColumnDef, Schema, SnapDB
from snapdb.errors import ReadOnlyError, TransactionError, UnknownColumnError, ValidationError, ValueTypeError
from snapdb.query import Query, query
from snapdb.watch import MOST, Batch

SCHEMA = Schema([
    ColumnDef("id", "i64", primary_key=True), ColumnDef("v", "f64", not_null=False),
    ColumnDef("s", "bytes:4", not_null=False),
])  # fmt: skip
Row = dict[str, Any]
QUERIES: dict[str, Callable[[SnapDB], Any]] = {
    "all": lambda db: None,
    "conditions": lambda db: [("v", "gt", 3), ("s", "ne", "b")],
    "null": lambda db: {"v": {"is_null": None}},
    "callable": lambda db: lambda row: row["id"] % 3 == 0,
    "limit": lambda db: query(db).slice(4),
    "best": lambda db: query(db).filter(s="a").order("v", desc=True).slice(5, 2),
    "two orders": lambda db: query(db).order("s").order("v").slice(3),
    "tail": lambda db: query(db).order("v").slice(None, 5),
    "ordered": lambda db: query(db).filter(("v", "lt", 5)).order("v"),
    "nothing": lambda db: query(db).slice(0),
}


def answer(db: SnapDB, asked: Any) -> list[tuple[int, Row]]:
    """What the query gives now."""
    if isinstance(asked, Query):
        return asked.execute()
    return (query(db).where_fn(asked) if callable(asked) else query(db).filter(asked or [])).execute()


class Mirror:
    """What a watch has told so far."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.batches = 0
        self.lsn = -1

    def __call__(self, batch: Batch) -> None:
        self.batches += 1
        assert batch.lsn >= self.lsn
        self.lsn = batch.lsn
        if batch.reset:
            self.rows = {}
        else:
            assert batch.added or batch.changed or batch.removed
        for idx, row in batch.removed:
            assert repr(self.rows.pop(idx)) == repr(row)
        for idx, row in batch.added:
            assert idx not in self.rows
            self.rows[idx] = row
        for idx, row in batch.changed:
            assert repr(self.rows[idx]) != repr(row)
            self.rows[idx] = row

    def check(self, db: SnapDB, asked: Any) -> None:
        assert repr(sorted(self.rows.items())) == repr(sorted(answer(db, asked)))


def values(draw: random.Random) -> Row:
    return {
        "v": draw.choice([None, float("nan"), -0.0, draw.randrange(20) / 2]),
        "s": draw.choice(["a", "b", None, b"\xff"]),
    }


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("seed", range(3))
def test_a_watch_tells_what_its_query_answers(
    tmp_path: Path, engine: str, backend_name: str, place: str, seed: int
) -> None:
    draw = random.Random(seed)
    path = ":memory:" if place == "memory" else tmp_path / "t.snap"
    with SnapDB(path, SCHEMA, storage_type=engine) as db:
        db.batch_insert([{"id": at, **values(draw)} for at in range(200)])
        db.snapshot("s")
        mirrors = []
        for make in QUERIES.values():
            asked, mirror = make(db), Mirror()
            db.watch(asked, mirror)
            mirrors.append((asked, mirror))
        for key in range(200, 320):
            step(db, draw, key)
            for asked, mirror in mirrors:
                mirror.check(db, asked)


def step(db: SnapDB, draw: random.Random, key: int) -> None:
    ids = [idx for idx, _ in db]
    what = draw.randrange(40)
    if what < 10 or not ids:
        db.insert({"id": key * 10, **values(draw)})
    elif what < 20:
        db.update(draw.choice(ids), values(draw))
    elif what < 30:
        db.delete(draw.choice(ids))
    elif what < 34:
        with db.transaction():
            for at in range(4):
                db.insert({"id": key * 10 + at, **values(draw)})
                db.update(draw.choice(ids), values(draw))
            db.delete(draw.choice(ids))
    elif what < 36:
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.delete(ids[0])
            raise ZeroDivisionError
    elif what == 36:
        db.batch_update({"s": "a"}, {"v": draw.random() * 9})
    elif what == 37:
        db.compact()
    elif what == 38:
        db.delete_where([("v", "lt", 2)])
    else:
        db.restore("s")


def test_it_is_silent_where_nothing_changed(engine: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        mirror = Mirror()
        db.watch({"s": "a"}, mirror)
        assert mirror.batches == 1
        db.insert({"id": 1, "v": 1.0, "s": "b"})
        idx = db.insert({"id": 2, "v": float("nan"), "s": "a"})
        assert mirror.batches == 2
        db.update(idx, {"v": float("nan")})
        db.update(0, {"v": 9.0})
        with db.transaction():
            db.update(idx, {"s": "c"})
            db.update(idx, {"s": "a"})
        db.compact()
        assert mirror.batches == 2


def test_the_table_is_asked_again_only_when_the_slice_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with SnapDB(":memory:", SCHEMA) as db:
        db.batch_insert([{"id": at, "v": float(at), "s": "a"} for at in range(2000)])
        asked = query(db).order("v").slice(10)
        mirror = Mirror()
        db.watch(asked, mirror)
        reads = []
        real = Query.execute
        monkeypatch.setattr(Query, "execute", lambda self: (reads.append(1), real(self))[1])
        for idx in range(500):
            db.delete(idx)
        assert 500 // 74 <= len(reads) <= 500 // 60
        mirror.check(db, asked)


def test_cancel_gives_the_short_way_back(tmp_path: Path, engine: str, backend_name: str) -> None:
    schema = Schema([ColumnDef("id", "i64")])
    for path in (":memory:", tmp_path / "t.snap"):
        with SnapDB(path, schema, storage_type=engine) as db:
            insert = db.insert
            mirror = Mirror()
            watch = db.watch(None, mirror)
            insert({"id": 1})
            assert len(mirror.rows) == 1
            watch.cancel()
            watch.cancel()
            insert({"id": 2})
            assert len(mirror.rows) == 1 and db._feed is None
            with db.watch(None, mirror):
                assert len(mirror.rows) == 2 and mirror.batches == 3
            db.watch(None, mirror)
        assert repr(watch) == "Watch(over)"


def test_a_cancelled_callback_is_called_no_more() -> None:
    with SnapDB(":memory:", SCHEMA) as db:
        told: list[Batch] = []
        watch = db.watch(None, lambda batch: (told.append(batch), watch.cancel() if len(told) > 1 else None))
        db.insert({"id": 1, "v": None, "s": None})
        db.insert({"id": 2, "v": None, "s": None})
        assert len(told) == 2


def test_a_dropped_handle_goes(tmp_path: Path) -> None:
    db = SnapDB(":memory:", SCHEMA)
    watch = db.watch(query(db).order("v").slice(3), Mirror())
    there = weakref.ref(db)
    gc.disable()
    try:
        del db
        assert there() is None
    finally:
        gc.enable()
    watch.cancel()


def test_wrong_questions() -> None:
    with SnapDB(":memory:", SCHEMA) as db, SnapDB(":memory:", SCHEMA) as other:
        with pytest.raises(ValidationError, match="another"):
            db.watch(query(other))
        with pytest.raises(UnknownColumnError):
            db.watch({"no": 1})
        with pytest.raises(ValueTypeError):
            db.watch(None, "callback")  # type: ignore[arg-type]
        with db.transaction(), pytest.raises(TransactionError):
            db.watch()
        assert db._feed is None


def test_reading_handles_are_refused(tmp_path: Path) -> None:
    SnapDB(tmp_path / "t.snap", SCHEMA).close()
    with SnapDB(tmp_path / "t.snap", read_only=True) as db, pytest.raises(ReadOnlyError):
        db.watch()


def test_batches_wait_to_be_pulled(engine: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        watch = db.watch()
        mirror = Mirror()
        for key in range(MOST + 10):
            db.insert({"id": key, "v": None, "s": None})
        batches = watch.pull()
        assert len(batches) < 20 and batches[0].reset
        for batch in batches:
            mirror(batch)
        mirror.check(db, None)
        assert watch.pull() == []


def test_async(engine: str) -> None:
    async def follow(db: SnapDB) -> list[int]:
        watch = db.watch()
        found = []

        def write() -> None:
            for key in range(5):
                db.insert({"id": key, "v": None, "s": None})

        thread = threading.Thread(target=write)
        thread.start()
        async for batch in watch:
            found += [row["id"] for _, row in batch.added]
            if len(found) == 5:
                watch.cancel()
        thread.join()
        return found

    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        assert asyncio.run(follow(db)) == [0, 1, 2, 3, 4]


def test_threads(engine: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        questions = [None, {"v": {"gt": 0.5}}, query(db).order("v").slice(7)]
        mirrors = [Mirror() for _ in questions]
        for asked, mirror in zip(questions, mirrors):
            db.watch(asked, mirror)

        def work(base: int) -> None:
            draw = random.Random(base)
            for at in range(150):
                idx = db.insert({"id": base + at, "v": draw.random(), "s": None})
                if at % 3 == 0:
                    db.update(idx, {"v": draw.random()})
                if at % 4 == 0:
                    db.delete(idx)

        threads = [threading.Thread(target=work, args=(base * 1000,)) for base in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for asked, mirror in zip(questions, mirrors):
            mirror.check(db, asked)
