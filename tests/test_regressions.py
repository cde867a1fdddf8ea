"""One test for each defect that was found and must not come back."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from typing import Any, Callable

import pytest

from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB, _ext
from snapdb._ext._common import SEGMENT
from snapdb.errors import SchemaError

PLAIN = Schema([ColumnDef("a", "i64"), ColumnDef("s", "str")])
KEYED = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("v", "f64", not_null=False), ColumnDef("t", "str")])


def test_inserts_that_wait_for_a_fold_do_not_pass_the_end_of_a_segment(backend_name: str) -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="columnar")
    db.insert_columns({"a": range(SEGMENT - 4), "s": ["x"] * (SEGMENT - 4)})
    threads = [threading.Thread(target=lambda: [db.insert({"a": -1, "s": "y"}) for _ in range(3)]) for _ in range(4)]
    with db._engine.lock:  # a reader or a long write holds it while the tail fills
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.2)
    for thread in threads:
        thread.join()
    assert len(db) == SEGMENT + 8
    assert db.select_column("a") == [*range(SEGMENT - 4), *[-1] * 12]
    assert all(idx in db for idx in range(SEGMENT - 4, SEGMENT + 8))


def test_compact_keeps_rows_inserted_meanwhile(engine: str, backend_name: str) -> None:
    db = SnapDB(":memory:", PLAIN, storage_type=engine)
    db.insert_columns({"a": range(2000), "s": ["x"] * 2000})
    stop = threading.Event()
    inserted = []

    def insert() -> None:
        while not stop.is_set() and len(inserted) < 3000:
            inserted.append(db.insert({"a": -1, "s": "new"}))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=insert)
    try:
        thread.start()
        for _ in range(10):
            db.compact()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert db.count_where([("a", "eq", -1)]) == len(inserted) == len(db) - 2000


def test_a_row_deleted_by_another_thread_does_not_split_a_batch_update(backend_name: str) -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="row")
    db.insert_columns({"a": range(100), "s": ["x"] * 100})
    others: list[threading.Thread] = []

    def changed(row: dict[str, Any]) -> dict[str, Any]:
        if row["a"] == 50:
            others.append(threading.Thread(target=db.delete, args=(70,)))
            others[0].start()
            others[0].join(0.2)  # it waits for the batch: without that the batch failed half way
        return {"s": "new"}

    assert db.batch_update([], changed) == 100
    others[0].join()
    assert db.count_where([("s", "eq", "new")]) == len(db) == 99


def test_memory_usage_counts_unique_keys(engine: str) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        db = SnapDB(":memory:", KEYED, storage_type=engine)
        db.batch_insert({"id": 1000 + i, "v": 1.5, "t": "x"} for i in range(30_000))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert db.memory_usage() == pytest.approx(held, rel=0.1)


def test_updates_of_a_long_tail_are_folded_in() -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="columnar")
    for i in range(6000):
        db.insert({"a": i, "s": "x"})
    for i in range(1000, 5000):  # each one sealed the segment anew once there were 1,310
        db.update(i, {"a": -i})
    column = db._engine.columns["a"]
    assert sum(len(rows) for rows in column.overlays.values()) <= 1310
    assert db.select_column("a") == [-i if 1000 <= i < 5000 else i for i in range(6000)]


def test_a_zone_map_that_settles_a_condition_saves_reading_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="columnar")
    db.insert_columns({"a": range(SEGMENT), "s": ["x"] * SEGMENT})
    db.update(5, {"a": 7})
    monkeypatch.setattr(type(db._engine.view()), "pieces", None)
    assert db.count_where([("a", "lt", -5)]) == 0
    assert db.count_where([("a", "gte", 0)]) == SEGMENT


def test_one_row_of_the_row_engine_does_not_gather_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="row")
    db.insert_columns({"a": range(3000), "s": ["x"] * 3000})
    monkeypatch.setattr(type(db._engine.view()), "pieces", None)
    assert db.select(limit=2, offset=1500) == [{"a": 1500, "s": "x"}, {"a": 1501, "s": "x"}]


def test_a_flat_copy_is_dropped_at_the_next_write() -> None:
    db = SnapDB(":memory:", PLAIN, storage_type="columnar")
    db.insert_columns({"a": range(5000), "s": ["x"] * 5000})
    held = db.column_buffer("a")
    before = db.memory_usage()
    db.update(0, {"a": 9})
    assert db.memory_usage() < before - 30_000 and held[0] == 0
    assert db.column_buffer("a")[0] == 9


# -- whatever a write raises, wherever it is interrupted, it happened or it did not ------------------------------------
class Interrupted(KeyboardInterrupt):
    """Stands for a Ctrl-C."""


WRITES: dict[str, Callable[[SnapDB], Any]] = {
    "insert": lambda db: db.insert({"id": 9999, "v": 1e9, "t": "zzzz"}),
    "batch_insert": lambda db: db.batch_insert([{"id": 9000 + i, "v": -1e9, "t": "zz"} for i in range(3)]),
    "insert_columns": lambda db: db.insert_columns({"id": [9001, 9002], "v": [1.0, None], "t": ["~", "~"]}),
    "update": lambda db: db.update(3, {"id": 7777, "v": 1e12, "t": "~~~"}),
    "upsert": lambda db: db.upsert({"id": 8, "v": 1e12, "t": "~"}),
    "batch_update": lambda db: db.batch_update([("id", "lt", 4)], lambda row: {"id": row["id"] + 5000, "v": -5e9}),
    "delete": lambda db: db.delete(9),
    "delete_where": lambda db: db.delete_where([("id", "lt", 4)]),
    "compact": lambda db: db.compact(),
}


def loaded(engine: str) -> SnapDB:
    db = SnapDB(":memory:", KEYED, storage_type=engine)
    db.batch_insert({"id": i, "v": float(i), "t": f"t{i}" * (i % 5)} for i in range(1030))
    db.delete(5)
    db.update(7, {"v": None})
    return db


def state(db: SnapDB) -> Any:
    numbers = [db.aggregate("v", agg) for agg in ("sum", "min", "max", "count")]
    counts = [db.count_where([("v", "gte", 1e3)]), db.count_where([("t", "gt", "t9")]), len(db), db._engine.rows]
    return list(db), numbers, counts, list(db._indexes.verify())


def interrupted(write: Callable[[SnapDB], Any], db: SnapDB, at: int) -> bool:
    """Carry out a write and interrupt it at its ``at``-th line of Python; whether it was long enough for that."""
    left = at

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        name = frame.f_code.co_filename.replace("\\", "/")
        if "/snapdb/" not in name or "/_ext/" in name or frame.f_code.co_name.startswith("<"):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        write(db)
    except Interrupted:
        return True
    finally:
        sys.settrace(old)
    return False


@pytest.mark.skipif("c" not in _ext.available(), reason="only calls of compiled code are one step")
@pytest.mark.parametrize("name", WRITES)
def test_an_interrupt_anywhere_leaves_all_or_nothing(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "BACKEND", "c")
    db, done = loaded(engine), loaded(engine)
    before = state(db)
    WRITES[name](done)
    after = state(done)
    at = 1
    while interrupted(WRITES[name], db, at):
        now = state(db)
        assert now in (before, after), f"torn at line {at} of the write"
        if now == after:
            db = loaded(engine)
        at += 1
    assert at > 1 and state(db) == after


@pytest.mark.parametrize("name", ["batch_update", "delete_where"])
def test_a_kernel_that_runs_out_of_memory_half_way_leaves_nothing(
    name: str, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = loaded("row")
    before = state(db)

    class Fails:
        """The slabs, but the third write of a row finds no memory however often it is tried, and taking back neither
        at first."""

        def __init__(self, slabs: Any) -> None:
            self.slabs, self.writes = slabs, 0

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.slabs, attribute)

        def put(self, *args: Any) -> None:
            self.failing(self.slabs.put, *args)

        def remove(self, *args: Any) -> None:
            self.failing(self.slabs.remove, *args)

        def failing(self, write: Any, *args: Any) -> None:
            self.writes += 1
            if 3 <= self.writes < 28:
                raise MemoryError
            write(*args)

    slabs = db._engine.slabs
    db._engine.slabs = Fails(slabs)
    with pytest.raises(MemoryError):
        WRITES[name](db)
    db._engine.slabs = slabs
    assert state(db) == before
    WRITES[name](db)
    assert state(db) != before


@pytest.mark.parametrize("schema", [[("a",)], [("a", "i32", "x")], 5, [5], [("a", "nope")], []])
def test_a_bad_columnar_schema_is_a_schema_error(schema: Any) -> None:
    with pytest.raises(SchemaError):
        ColumnarTable("t", schema)
