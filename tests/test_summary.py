"""Aggregates without a filter are kept; whatever was done to the table, they are what a scan says, to the last bit."""

from __future__ import annotations

import math
import random
import struct
from typing import Any, Callable

import pytest

from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB
from snapdb._ext._common import BLOCK, SEGMENT
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

SCHEMA = Schema(
    [
        ColumnDef(name, dtype, not_null=False)
        for name, dtype in (("i", "i64"), ("f", "f64"), ("s", "str"), ("d", "date"))
    ]
)
AGGREGATES = ("sum", "min", "max", "count", "avg")


def columns_of(count: int, seed: int = 0) -> dict[str, list[Any]]:
    import datetime as dt

    draw = random.Random(seed)
    some = [None if draw.random() < 0.01 else draw.uniform(-1e6, 1e6) for _ in range(997)]
    some[3:6] = [math.nan, -0.0, 0.0]
    day = dt.date(2000, 1, 1)
    return {
        "i": [None if at % 501 == 7 else (at * 7919 + seed) % 10_007 for at in range(count)],
        "f": [some[at % 997] for at in range(count)],
        "s": [f"x{at % 89}" for at in range(count)],
        "d": [day + dt.timedelta(at % 3000) for at in range(count)],
    }


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def answers(table: Any) -> dict[tuple[str, str], Any]:
    names = {"i": AGGREGATES, "f": AGGREGATES, "s": AGGREGATES[1:4], "d": AGGREGATES[1:4]}
    return {(name, agg): bits(table.aggregate(name, agg)) for name, aggs in names.items() for agg in aggs}


def assert_kept(table: Any) -> None:
    """Asked twice, the second time of what is kept; and by reading every value."""
    engine = getattr(table, "_engine", table)
    first, again = answers(table), answers(table)
    engine.zone_answers = False
    try:
        scanned = answers(table)
    finally:
        engine.zone_answers = True
    assert first == again == scanned


STEPS: dict[str, Callable[[Any, random.Random], None]] = {}


def step(work: Callable[[Any, random.Random], None]) -> Callable[[Any, random.Random], None]:
    STEPS[work.__name__] = work
    return work


@step
def insert(db: Any, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 5)):
        db.insert({"i": draw.randrange(-5, 5), "f": draw.choice((None, math.nan, -0.0, 1e300)), "s": "zz"})


@step
def batch(db: Any, draw: random.Random) -> None:
    db.insert_columns(columns_of(draw.choice((5, BLOCK, 9000)), draw.randrange(99)))


@step
def update(db: Any, draw: random.Random) -> None:
    for idx in draw.sample(range(db.rows if hasattr(db, "rows") else db._engine.rows), 5):
        if db.get(idx) is not None:
            db.update(idx, {"i": draw.randrange(10**6), "f": draw.choice((None, 2.5, -1e9))})
            db.update(idx, {"s": draw.choice(("", "zzz"))})


@step
def delete(db: Any, draw: random.Random) -> None:
    rows = db.rows if hasattr(db, "rows") else db._engine.rows
    for idx in draw.sample(range(rows), 3):
        if db.get(idx) is not None:
            db.delete(idx)


@step
def ask(db: Any, draw: random.Random) -> None:
    db.aggregate(draw.choice("if"), draw.choice(AGGREGATES))


@pytest.mark.parametrize("seed", range(3))
def test_a_table_in_memory(backend_name: str, seed: int) -> None:
    draw = random.Random(seed)
    table = ColumnarTable("t", SCHEMA, backend=backend_name)
    assert_kept(table)
    table.insert_columns(columns_of(SEGMENT + 3000))
    assert_kept(table)
    for turn in range(25):
        STEPS[draw.choice(list(STEPS))](table, draw)
        if draw.random() < 0.2:
            table.begin()
            STEPS[draw.choice(list(STEPS))](table, draw)
            answers(table)
            table.rollback()
        if turn % 5 == 0:
            assert_kept(table)
    assert_kept(table)
    table.compact()
    assert_kept(table)


def test_a_segment_without_a_live_row(backend_name: str) -> None:
    table = ColumnarTable("t", SCHEMA, backend=backend_name)
    table.insert_columns(columns_of(2 * SEGMENT + 10))
    answers(table)
    table.remove(range(SEGMENT))
    assert_kept(table)
    table.update(SEGMENT + 5, {"f": 1e12})
    assert_kept(table)
    assert table.aggregate("f", "max") == 1e12
    table.remove(range(SEGMENT, table.rows))
    assert_kept(table)
    assert table.aggregate("f", "sum") == 0 and table.aggregate("f", "min") is None


def test_a_file_with_snapshots(backend_name: str) -> None:
    draw = random.Random(7)
    with using(RecordingLayer(record=False)):
        db = SnapDB("sum.snapdb", SCHEMA, storage_type="columnar")
        db.insert_columns(columns_of(SEGMENT + 2500))
        db.snapshot("first")
        before = answers(db)
        for turn in range(12):
            STEPS[draw.choice(list(STEPS))](db, draw)
            if draw.random() < 0.3:
                with pytest.raises(ZeroDivisionError), db.transaction():
                    STEPS["update"](db, draw)
                    answers(db)
                    raise ZeroDivisionError
            if draw.random() < 0.3:
                db.checkpoint()
            if turn % 4 == 3:
                db.close()
                db = SnapDB("sum.snapdb")
            assert_kept(db)
        db.restore("first")
        assert_kept(db)
        assert answers(db) == before
        db.compact()
        assert_kept(db)
        db.close()


def test_no_value_is_read_and_no_view_made(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ColumnarTable("t", SCHEMA)
    table.insert_columns(columns_of(3 * SEGMENT + 100))
    expected = answers(table)
    with monkeypatch.context() as patch:
        patch.setattr(ColumnarTable, "view", lambda *_: pytest.fail("a view was made"))
        assert answers(table) == expected
        table.insert({"i": 1})
        answers(table)  # a tail is no reason either
    table.update(5, {"i": 10**9})
    assert table.aggregate("i", "max") == 10**9
    with monkeypatch.context() as patch:
        patch.setattr(ColumnarTable, "view", lambda *_: pytest.fail("a view was made"))
        assert table.aggregate("i", "max") == 10**9
