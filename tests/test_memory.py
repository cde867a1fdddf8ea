"""What tables say of their memory is what the allocator says, and columns are compressed."""

from __future__ import annotations

import gc
import random
import tracemalloc
from typing import Any

import pytest

from snapdb import ColumnDef, Schema, SnapDB

pytestmark = pytest.mark.usefixtures("backend_name")


def benchmark_columns(count: int) -> dict[str, Any]:
    draw = random.Random(42)
    return {
        "id": range(count), "ts": range(1_700_000_000, 1_700_000_000 + count), "sensor": [i % 16 for i in range(count)],
        "status": [("active", "idle", "banned")[i % 3] for i in range(count)],
        "temp": [20 + 30 * draw.random() for _ in range(count)],
    }  # fmt: skip


BENCHMARK = Schema(
    [
        ColumnDef("id", "i32"),
        ColumnDef("ts", "i64"),
        ColumnDef("sensor", "u8"),
        ColumnDef("status", "bytes:8"),
        ColumnDef("temp", "f64"),
    ]
)


def test_memory_usage_is_true(engine: str) -> None:
    columns = benchmark_columns(100_000)
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    check_memory(rows, engine, False)  # what kernels make at first use and keep is not the table's
    gc.collect()
    tracemalloc.start()
    try:
        check_memory(rows, engine, True)
    finally:
        tracemalloc.stop()


def check_memory(rows: list[dict[str, Any]], engine: str, traced: bool) -> None:
    before = tracemalloc.get_traced_memory()[0]

    def compare(db: SnapDB) -> None:
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        if traced:
            assert db.memory_usage() == pytest.approx(held, rel=0.1)

    with SnapDB(":memory:", BENCHMARK, storage_type=engine) as db:
        db.batch_insert(rows)
        compare(db)
        for i in range(3000):
            db.update(i * 7, {"temp": 0.5, "status": "idle"})
        db.delete_where([("sensor", "eq", 3)])
        compare(db)
        db.compact()
        for row in rows[:5000]:
            db.insert(row)
        compare(db)


def test_what_reads_keep_is_counted() -> None:
    draw = random.Random(7)
    names = [f"https://example.org/catalog/item-{draw.randrange(20_000):07d}" for _ in range(65_536)]
    rows = {"name": names, "kind": [None if i % 7 == 0 else i % 3 * 2**40 for i in range(65_536)]}
    schema = Schema([ColumnDef("name", "str"), ColumnDef("kind", "i64", not_null=False)])
    for traced in (False, True):
        if traced:
            gc.collect()
            tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with SnapDB(":memory:", schema, storage_type="columnar") as db:
                db.insert_columns(rows)
                for _ in range(2):
                    db.get(5)
                    db.count_where([("name", ">", names[5]), ("kind", "not_null", None)])
                    gc.collect()
                    held = tracemalloc.get_traced_memory()[0] - before
                    if traced:
                        assert db.memory_usage() == pytest.approx(held, rel=0.1)
        finally:
            if traced:
                tracemalloc.stop()


@pytest.mark.smoke
def test_columns_are_compressed() -> None:
    with SnapDB(":memory:", BENCHMARK, storage_type="columnar") as db:
        db.insert_columns(benchmark_columns(20_480))
        used = {name: column["bytes"] for name, column in db.stats()["columns"].items()}
        assert used["id"] < 2_500
        assert used["ts"] < 2_500
        assert used["sensor"] < 20_480 * 4 / 8 + 2_500
        assert used["status"] < 20_480 * 2 / 8 + 2_500
        assert used["temp"] < 20_480 * 8 + 2_500
