"""What is measured: each workload's name, unit and how one timing of it is taken."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from typing import Any, Callable, NamedTuple

from . import rows as data
from .peers import ORDERED, Contender


class Workload(NamedTuple):
    """One question put to every contender. ``run`` takes the loaded store and the keys of the point reads."""

    name: str
    title: str
    unit: str
    run: Callable[[Contender, list[int]], Any]


#: timed through a constructor, on a fresh store each time
BULK_INSERT = "bulk_insert"
INSERT_COLUMNS = "insert_columns"
SINGLE_INSERT = "single_insert"
POINT_READ = "point_read"
#: asks a column of its own, which ``hold`` gives a store
PACKED_SUM = "packed_sum"
#: asks tables of its own, which ``hold_rooms`` gives a store
JOIN = "join"
#: timed on a fresh store of few rows each time
UPDATE_EACH = "update_each"
DELETE_EACH = "delete_each"
#: done once in a timing, as it cannot be done twice
CREATE_INDEX = "create_index"
#: keys that a range is read for, at most, and rows of the join's large table
RANGES, JOINED = 500, 1_000_000
MEMORY = "memory"
#: parts of MEMORY, rows of their own in the tables: what Python's allocator counts, and what a store says of itself
ALLOCATED = "memory_allocated"
REPORTED = "memory_reported"

READING: tuple[Workload, ...] = (
    Workload(POINT_READ, "point read by key", "ops/s", lambda store, keys: store.point_read(keys)),
    Workload("scan_sum", "full scan + SUM", "rows/s", lambda store, keys: store.scan_sum()),
    Workload("filtered_sum", "SUM where sensor > 8", "rows/s", lambda store, keys: store.filtered_sum()),
    Workload("zone_sum", "SUM, stored answers allowed", "rows/s", lambda store, keys: store.zone_sum()),
    Workload("int_sum", "full scan + SUM of ts", "rows/s", lambda store, keys: store.int_sum()),
    Workload(PACKED_SUM, "full scan + SUM, 21 random bits", "rows/s", lambda store, keys: store.packed_sum()),
    Workload("bounds", "MIN, MAX, COUNT and SUM", "calls/s", lambda store, keys: store.bounds()),
    Workload("count_three", "three-condition filter", "rows/s", lambda store, keys: store.count_three()),
    Workload("select_records", "its ids as records", "rows/s", lambda store, keys: store.select_records()),
    Workload("select_columns", "its ids as a column", "rows/s", lambda store, keys: store.select_columns()),
    Workload("group_sum", "SUM by status", "rows/s", lambda store, keys: store.group_sum()),
    Workload("iterate", "iterate all rows", "rows/s", lambda store, keys: store.iterate()),
    Workload("lookup", "point read by an indexed column", "ops/s", lambda store, keys: store.lookups(keys)),
    Workload("range_index", "100 rows by an index of temp", "ops/s", lambda store, keys: store.ranges("temp", keys)),
    Workload("range_sorted", "100 rows by an index of ts", "ops/s", lambda store, keys: store.ranges("ts", keys)),
    Workload("range_zones", "the same without one (zone maps)", "ops/s", lambda store, keys: store.ranges("ts", keys)),
    Workload("query_top", "ten best where sensor > 8", "rows/s", lambda store, keys: store.top()),
    Workload(JOIN, "join with 1,000 rows", "rows/s", lambda store, keys: store.join()),
    Workload(CREATE_INDEX, "create an index of ts", "rows/s", lambda store, keys: store.make_index()),
)
CHANGING = {
    UPDATE_EACH: lambda store, keys: store.update_each(keys),
    DELETE_EACH: lambda store, keys: store.delete_each(keys),
}
TITLES = {
    BULK_INSERT: "bulk insert",
    INSERT_COLUMNS: "bulk insert of NumPy arrays",
    SINGLE_INSERT: "insert row by row",
    **{workload.name: workload.title for workload in READING},
    UPDATE_EACH: "update row by row",
    DELETE_EACH: "delete row by row",
    MEMORY: "memory footprint",
}
NAMES = tuple(TITLES)
TITLES.update({ALLOCATED: "memory, as Python's allocator counts", REPORTED: "memory, as the store says"})
UNITS = {
    **dict.fromkeys((BULK_INSERT, INSERT_COLUMNS, SINGLE_INSERT, UPDATE_EACH, DELETE_EACH), "rows/s"),
    **{workload.name: workload.unit for workload in READING},
    **dict.fromkeys((MEMORY, ALLOCATED, REPORTED), "MB"),
}


class WrongAnswer(Exception):
    """A contender answered differently; its figures would mean nothing."""


def expected(rows: list[dict[str, Any]], keys: list[int]) -> dict[str, Any]:
    """Every workload's answer, from the rows themselves."""
    over = [row for row in rows if row["sensor"] > 8]
    three = [row["id"] for row in over if row["status"] == "active" and row["temp"] < 35.0]
    temps = [row["temp"] for row in rows]
    total = sum(temps)
    groups: dict[str, float] = {}
    for row in rows:
        groups[row["status"]] = groups.get(row["status"], 0.0) + row["temp"]

    def ranged(column: str) -> int:
        values = sorted(row[column] for row in rows)
        asked = data.span(column, keys[-RANGES:], len(rows))
        return sum(bisect_right(values, high) - bisect_left(values, low) for low, high in asked)

    return {
        POINT_READ: rows[keys[-1]],
        "scan_sum": total,
        "zone_sum": total,
        "filtered_sum": sum(row["temp"] for row in over),
        "int_sum": sum(row["ts"] for row in rows),
        PACKED_SUM: sum(data.packed(len(rows))),
        "bounds": {"min": min(temps), "max": max(temps), "count": len(temps), "sum": total},
        "count_three": len(three),
        "select_records": three,
        "select_columns": three,
        "group_sum": groups,
        "iterate": len(rows),
        "lookup": rows[keys[-1]],
        "range_index": ranged("temp"),
        "range_sorted": ranged("ts"),
        "range_zones": ranged("ts"),
        "query_top": [row["id"] for row in heapq.nlargest(10, over, key=lambda row: (row["temp"], -row["id"]))],
        JOIN: min(len(rows), JOINED),
        CREATE_INDEX: None,
    }


def _same(answer: Any, right: Any) -> bool:
    """Whether an answer is right; sums may differ in their last digits (order of addition)."""
    if isinstance(right, dict):
        return set(answer) == set(right) and all(_same(answer[key], right[key]) for key in right)
    if isinstance(right, float):
        return bool(abs(answer - right) <= 1e-9 * abs(right))
    return bool(answer == right)


def check(store: Contender, workload: str, answer: Any, right: Any) -> None:
    """Raise WrongAnswer unless ``answer`` is ``right``."""
    answer = store.comparable(workload, answer)
    if not _same(answer, right):
        told = f"{answer!r} instead of {right!r}" if not isinstance(right, list) else f"not the {len(right)} ids"
        raise WrongAnswer(f"{store.label}: {TITLES[workload]}: {told}")


def keys_for(workload: str, store: type[Contender], keys: list[int]) -> list[int]:
    """The keys that this contender reads in one round."""
    if workload in ORDERED:
        return keys[-RANGES:]
    if store.most_reads is None or len(keys) <= store.most_reads:
        return keys
    return keys[-store.most_reads :]


__all__ = [
    "ALLOCATED", "BULK_INSERT", "CHANGING", "CREATE_INDEX", "INSERT_COLUMNS", "JOIN", "JOINED", "MEMORY", "NAMES",
    "PACKED_SUM", "POINT_READ", "RANGES", "READING", "REPORTED", "SINGLE_INSERT", "TITLES", "UNITS", "UPDATE_EACH",
    "Workload", "WrongAnswer",
]  # fmt: skip
__all__ += ["check", "data", "expected", "keys_for"]
