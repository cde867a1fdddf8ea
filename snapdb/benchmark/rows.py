"""The benchmark's rows and reads. They never change, so that figures compare over the years.

This file imports nothing of SnapDB: ``asv_benchmarks/baseline_worker.py`` loads it inside another environment.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

SCHEMA = (("id", "i32"), ("ts", "i64"), ("sensor", "u8"), ("status", "bytes:8"), ("temp", "f64"))
NAMES = tuple(name for name, _ in SCHEMA)
STATUS = ("active", "idle", "banned")
READS = 50_000
#: the NumPy type of each column, for tables given as arrays
ARRAYS = {"id": "i4", "ts": "i8", "sensor": "u1", "status": "S8", "temp": "f8"}
#: the three-condition filter, and the filter of the filtered SUM
THREE = (("sensor", "gt", 8), ("status", "eq", "active"), ("temp", "lt", 35.0))
SENSOR = (("sensor", "gt", 8),)
#: the rows of the join's tables, and their columns
VISITS = (("visit", "i32"), ("place", "i32"), ("spent", "f64"))
PLACES = (("place", "i32"), ("name", "str"))
SMALL = 1_000
#: ranges in one timing, and the rows in each
RANGES, SPAN = 200, 100


def generate(count: int) -> Iterator[dict[str, Any]]:
    """``count`` rows in key order, one at a time."""
    draw = random.Random(42).random
    for i in range(count):
        yield {
            "id": i,
            "ts": 1_700_000_000 + i,
            "sensor": i % 16,
            "status": STATUS[i % 3],
            "temp": 20 + 30 * draw(),
        }


def keys(count: int, reads: int = READS) -> list[int]:
    """Random keys for point reads."""
    draw = random.Random(43).randrange
    return [draw(count) for _ in range(reads)]


def packed(count: int) -> list[int]:
    """``count`` random integers of 21 bits, which are no column of the rows: their sum cannot be told from the ends."""
    draw = random.Random(43).getrandbits
    return [draw(21) for _ in range(count)]


def ranges(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Random ranges, both ends included, that hold SPAN of these values each (all of them, where there are fewer)."""
    draw = random.Random(44).randrange
    ordered = sorted(values)
    span = min(SPAN, len(ordered))
    starts = [draw(len(ordered) - span + 1) for _ in range(RANGES)]
    return [(ordered[start], ordered[start + span - 1]) for start in starts]


def changes(count: int, most: int) -> list[tuple[int, float]]:
    """Different keys in random order, of half the rows but at most ``most``, and a new temp for each."""
    source = random.Random(45)
    return [(key, 20 + 30 * source.random()) for key in source.sample(range(count), min(most, max(count // 2, 1)))]


def visits(count: int) -> Iterator[dict[str, Any]]:
    """The large table of the join, one row at a time: each names one of the SMALL places at random."""
    source = random.Random(46)
    for i in range(count):
        yield {"visit": i, "place": source.randrange(SMALL), "spent": 100 * source.random()}


def places() -> Iterator[dict[str, Any]]:
    """The small table of the join."""
    for i in range(SMALL):
        yield {"place": i, "name": f"place {i}"}
