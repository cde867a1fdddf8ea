"""What is measured: each workload's name, unit and how one timing of it is taken."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from . import rows as data
from .peers import Contender


class Workload(NamedTuple):
    """One question put to every contender. ``run`` takes the loaded store and the keys of the point reads."""

    name: str
    title: str
    unit: str
    run: Callable[[Contender, list[int]], Any]


#: timed through the constructor, on a fresh store each time
BULK_INSERT = "bulk_insert"
POINT_READ = "point_read"
MEMORY = "memory"
#: the part of MEMORY that a store says of itself; a row of its own in the tables
REPORTED = "memory_reported"

READING: tuple[Workload, ...] = (
    Workload(POINT_READ, "point read by key", "ops/s", lambda store, keys: store.point_read(keys)),
    Workload("scan_sum", "full scan + SUM", "rows/s", lambda store, keys: store.scan_sum()),
    Workload("filtered_sum", "SUM where sensor > 8", "rows/s", lambda store, keys: store.filtered_sum()),
    Workload("zone_sum", "SUM, stored answers allowed", "rows/s", lambda store, keys: store.zone_sum()),
    Workload("count_three", "three-condition filter", "rows/s", lambda store, keys: store.count_three()),
    Workload("iterate", "iterate all rows", "rows/s", lambda store, keys: store.iterate()),
)
TITLES = {
    BULK_INSERT: "bulk insert",
    **{workload.name: workload.title for workload in READING},
    MEMORY: "memory footprint",
}
NAMES = tuple(TITLES)
TITLES[REPORTED] = "memory, as the store says"
UNITS = {BULK_INSERT: "rows/s", **{workload.name: workload.unit for workload in READING}, MEMORY: "MB", REPORTED: "MB"}


class WrongAnswer(Exception):
    """A contender answered differently; its figures would mean nothing."""


def expected(rows: list[dict[str, Any]], keys: list[int]) -> dict[str, Any]:
    """Every workload's answer, from the rows themselves."""
    over = [row for row in rows if row["sensor"] > 8]
    total = sum(row["temp"] for row in rows)
    return {
        POINT_READ: rows[keys[-1]],
        "scan_sum": total,
        "zone_sum": total,
        "filtered_sum": sum(row["temp"] for row in over),
        "count_three": sum(1 for row in over if row["status"] == "active" and row["temp"] < 35.0),
        "iterate": len(rows),
    }


def check(store: Contender, workload: str, answer: Any, right: Any) -> None:
    """Raise WrongAnswer unless ``answer`` is ``right``; sums may differ in their last digits (order of addition)."""
    if workload == POINT_READ:
        answer = store.as_dict(answer)
        same = answer == right
    elif isinstance(right, float):
        same = abs(answer - right) <= 1e-9 * abs(right)
    else:
        same = answer == right
    if not same:
        raise WrongAnswer(f"{store.label}: {TITLES[workload]}: {answer!r} instead of {right!r}")


def keys_for(store: type[Contender], keys: list[int]) -> list[int]:
    """The keys that this contender reads in one round."""
    if store.most_reads is None or len(keys) <= store.most_reads:
        return keys
    return keys[-store.most_reads :]


__all__ = [
    "BULK_INSERT",
    "MEMORY",
    "NAMES",
    "POINT_READ",
    "READING",
    "REPORTED",
    "TITLES",
    "UNITS",
    "Workload",
    "WrongAnswer",
]
__all__ += ["check", "data", "expected", "keys_for"]
