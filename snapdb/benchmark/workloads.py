"""What is measured: each workload's name, unit and how one timing of it is taken."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from . import rows as data
from .peers import MAKING, Contender


class Asked(NamedTuple):
    """What is asked for: the keys of the point reads, and the ranges of two columns."""

    keys: list[int]
    temp: list[tuple[float, float]]
    ts: list[tuple[int, int]]


class Workload(NamedTuple):
    """One question put to every contender. ``run`` takes the loaded store and what is asked for. ``once``: the store is
    made ready before each call.
    """

    name: str
    title: str
    unit: str
    run: Callable[[Contender, Asked], Any]
    once: bool = False


#: timed through a constructor, on a fresh store each time
BULK_INSERT = "bulk_insert"
INSERT_COLUMNS = "insert_columns"
SINGLE_INSERT = "single_insert"
SINGLE_UPDATE = "single_update"
SINGLE_DELETE = "single_delete"
POINT_READ = "point_read"
#: these ask a column of its own, which ``hold`` gives a store
PACKED_SUM = "packed_sum"
SIDE = frozenset((PACKED_SUM, *MAKING))
#: asks tables of its own, of at most so many rows
JOIN = "join"
JOINED = 1_000_000
#: bytes of an index per entry, of one for equality; and a row of its own for an ordered one
INDEX_BYTES = "index_bytes"
RANGE_INDEX_BYTES = "range_index_bytes"
MEMORY = "memory"
#: parts of MEMORY, rows of their own in the tables: what Python's allocator counts, and what a store says of itself
ALLOCATED = "memory_allocated"
REPORTED = "memory_reported"

READING: tuple[Workload, ...] = (
    Workload(POINT_READ, "point read by key", "ops/s", lambda store, asked: store.point_read(asked.keys)),
    Workload("scan_sum", "full scan + SUM", "rows/s", lambda store, asked: store.scan_sum()),
    Workload("filtered_sum", "SUM where sensor > 8", "rows/s", lambda store, asked: store.filtered_sum()),
    Workload("zone_sum", "SUM, stored answers allowed", "rows/s", lambda store, asked: store.zone_sum()),
    Workload("int_sum", "full scan + SUM of ts", "rows/s", lambda store, asked: store.int_sum()),
    Workload(PACKED_SUM, "full scan + SUM, 21 random bits", "rows/s", lambda store, asked: store.packed_sum()),
    Workload("bounds", "MIN, MAX, COUNT and SUM", "calls/s", lambda store, asked: store.bounds()),
    Workload("count_three", "three-condition filter", "rows/s", lambda store, asked: store.count_three()),
    Workload("select_records", "its ids as records", "rows/s", lambda store, asked: store.select_records()),
    Workload("select_columns", "its ids as a column", "rows/s", lambda store, asked: store.select_columns()),
    Workload("group_sum", "SUM by status", "rows/s", lambda store, asked: store.group_sum()),
    Workload("iterate", "iterate all rows", "rows/s", lambda store, asked: store.iterate()),
    Workload("query_top", "ten best rows under a condition", "rows/s", lambda store, asked: store.query_top()),
    Workload("lookup", "lookup by an indexed id", "ops/s", lambda store, asked: store.lookup(asked.keys)),
    Workload(
        "range_unsorted", "range of 100 rows, index", "ranges/s", lambda store, asked: store.range_temp(asked.temp)
    ),
    Workload(
        "range_sorted", "range of 100 rows, sorted, index", "ranges/s", lambda store, asked: store.range_ts(asked.ts)
    ),
    Workload(
        "range_zones", "range of 100 rows, sorted, no index", "ranges/s", lambda store, asked: store.range_ts(asked.ts)
    ),
    Workload("create_index", "create a hash index", "rows/s", lambda store, asked: store.create_index(), True),
    Workload(
        "create_range_index", "create a range index", "rows/s", lambda store, asked: store.create_range_index(), True
    ),
    Workload(JOIN, "join with 1,000 rows", "rows/s", lambda store, asked: store.join()),
)
TITLES = {
    BULK_INSERT: "bulk insert",
    INSERT_COLUMNS: "bulk insert of NumPy arrays",
    SINGLE_INSERT: "insert row by row",
    SINGLE_UPDATE: "update row by row",
    SINGLE_DELETE: "delete row by row",
    **{workload.name: workload.title for workload in READING},
    INDEX_BYTES: "hash index, per entry",
    MEMORY: "memory footprint",
}
NAMES = tuple(TITLES)
TITLES[RANGE_INDEX_BYTES] = "range index, per entry"
TITLES.update({ALLOCATED: "memory, as Python's allocator counts", REPORTED: "memory, as the store says"})
UNITS = {
    **dict.fromkeys((BULK_INSERT, INSERT_COLUMNS, SINGLE_INSERT, SINGLE_UPDATE, SINGLE_DELETE), "rows/s"),
    **{workload.name: workload.unit for workload in READING},
    **dict.fromkeys((INDEX_BYTES, RANGE_INDEX_BYTES), "bytes"),
    **dict.fromkeys((MEMORY, ALLOCATED, REPORTED), "MB"),
}


class WrongAnswer(Exception):
    """A contender answered differently; its figures would mean nothing."""


def asked_of(rows: list[dict[str, Any]], reads: int) -> Asked:
    """What is asked for of these rows."""
    temps, times = (data.ranges([row[name] for row in rows]) for name in ("temp", "ts"))
    return Asked(data.keys(len(rows), reads), temps, times)


def expected(rows: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    """Every workload's answer, from the rows themselves; but that of JOIN, which is of other rows."""
    over = [row for row in rows if row["sensor"] > 8]
    three = [row["id"] for row in over if row["status"] == "active" and row["temp"] < 35.0]
    temps = [row["temp"] for row in rows]
    total = sum(temps)
    groups: dict[str, float] = {}
    for row in rows:
        groups[row["status"]] = groups.get(row["status"], 0.0) + row["temp"]
    last = rows[asked.keys[-1]]
    packed = data.packed(len(rows))
    in_time = _between(rows, "ts", asked.ts[-1])
    return {
        POINT_READ: last,
        "lookup": last,
        "range_unsorted": _between(rows, "temp", asked.temp[-1]),
        "range_sorted": in_time,
        "range_zones": in_time,
        **dict.fromkeys(MAKING, packed.count(packed[0])),
        "query_top": sorted(over, key=lambda row: -float(row["temp"]))[:10],
        "scan_sum": total,
        "zone_sum": total,
        "filtered_sum": sum(row["temp"] for row in over),
        "int_sum": sum(row["ts"] for row in rows),
        PACKED_SUM: sum(packed),
        "bounds": {"min": min(temps), "max": max(temps), "count": len(temps), "sum": total},
        "count_three": len(three),
        "select_records": three,
        "select_columns": three,
        "group_sum": groups,
        "iterate": len(rows),
    }


def joined(count: int) -> list[tuple[int, str]]:
    """The answer of JOIN: each visit with its place's name."""
    names = [place["name"] for place in data.places()]
    return [(visit["visit"], names[visit["place"]]) for visit in data.visits(count)]


def _between(rows: list[dict[str, Any]], column: str, ends: tuple[Any, Any]) -> list[dict[str, Any]]:
    low, high = ends
    return sorted((row for row in rows if low <= row[column] <= high), key=lambda row: (row[column], row["id"]))


def handled(workload: Workload, asked: Asked, rows: int) -> int:
    """How many of what its unit counts one call of a workload handles."""
    return {"ops/s": len(asked.keys), "ranges/s": len(asked.temp), "calls/s": 1}.get(workload.unit, rows)


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
        told = f"{answer!r} instead of {right!r}" if not isinstance(right, list) else f"not the {len(right)} rows"
        raise WrongAnswer(f"{store.label}: {TITLES[workload]}: {told}")


def asked_from(store: type[Contender], asked: Asked) -> Asked:
    """What is asked for of this contender in one round."""
    if store.most_reads is None or len(asked.keys) <= store.most_reads:
        return asked
    return asked._replace(keys=asked.keys[-store.most_reads :])


__all__ = [
    "ALLOCATED", "BULK_INSERT", "INDEX_BYTES", "INSERT_COLUMNS", "JOIN", "JOINED", "MEMORY", "NAMES", "PACKED_SUM",
    "POINT_READ", "RANGE_INDEX_BYTES", "READING", "REPORTED", "SIDE", "SINGLE_DELETE", "SINGLE_INSERT",
    "SINGLE_UPDATE", "TITLES", "UNITS",
]  # fmt: skip
__all__ += ["Asked", "Workload", "WrongAnswer", "asked_from", "asked_of", "check", "data", "expected", "handled"]
__all__ += ["joined"]
