"""The benchmark's rows and reads. They never change, so that figures compare over the years.

This file imports nothing of SnapDB: ``asv_benchmarks/baseline_worker.py`` loads it inside another environment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
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
#: rows of the small table of the join; each has a number of partners
ROOMS = 1000
#: rows between the two ends of a range, about
BETWEEN = 100


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


def span(column: str, keys: Iterable[int], count: int) -> Iterator[tuple[float, float]]:
    """For each key two values of ``ts``, or of ``temp``, that have ``BETWEEN`` of so many rows between them."""
    for key in keys:
        first = key % max(1, count - BETWEEN)
        if column == "ts":
            yield 1_700_000_000 + first, 1_700_000_000 + first + BETWEEN - 1
        else:
            yield 20 + 30 * first / count, 20 + 30 * (first + BETWEEN) / count
