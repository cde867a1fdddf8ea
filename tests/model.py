"""What SnapDB should do, over a plain dict of rows: slow, short and obviously right."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Optional

Row = dict[str, Any]

BLOCK, SEGMENT, LANES = 1024, 65536, 32

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip


def plain(value: Any) -> Any:
    """A value as conditions compare it: text by its UTF-8 bytes."""
    return value.encode() if isinstance(value, str) else value


def matches(value: Any, op: str, wanted: Any) -> bool:
    """One condition on one value. A null matches no comparison, and neither does None as a value."""
    if op == "is_null":
        return value is None
    if op == "not_null":
        return value is not None
    if value is None or wanted is None:
        return False
    value = plain(value)
    if op == "in":
        return any(item is not None and value == plain(item) for item in wanted)
    if op == "between":
        low, high = map(plain, wanted)
        return low is not None and high is not None and bool(low <= value <= high)
    return _COMPARE[op](value, plain(wanted))


def accepts(row: Row, conditions: Iterable[tuple[str, str, Any]], combine: str = "and") -> bool:
    """Whether a row meets the conditions; none at all are met by every row."""
    verdicts = [matches(row[column], op, value) for column, op, value in conditions]
    return not verdicts or (all(verdicts) if combine == "and" else any(verdicts))


def bits(value: Any) -> Any:
    """A value in a form that is equal only where the bits are: tells 0.0 from -0.0, 1 from True; NaN equals NaN."""
    if isinstance(value, float):
        return struct.pack("<d", value).hex()
    if isinstance(value, dict):
        return [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(bits, value)]
    return (type(value).__name__, value)


class Model:
    """A table: ``rows`` maps ids to rows, ``positions`` counts ids given out."""

    def __init__(self, schema: Any) -> None:
        self.names = list(schema.names)
        self.primary_key = schema.primary_key
        self.unique = [column.name for column in schema.columns if column.unique]
        self.floats = {column.name for column in schema.columns if column.dtype in ("f32", "f64")}
        self.rows: dict[int, Row] = {}
        self.positions = 0

    # -- writes ------------------------------------------------------------
    def taken(self, row: Row, own: Optional[int] = None) -> bool:
        """Whether another row has one of the row's unique values."""
        return any(
            row.get(name) is not None
            and any(other[name] == row[name] for idx, other in self.rows.items() if idx != own)
            for name in self.unique
        )

    def insert(self, row: Mapping[str, Any]) -> int:
        idx = self.positions
        self.rows[idx] = {name: row.get(name) for name in self.names}
        self.positions += 1
        return idx

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        return len([self.insert(row) for row in rows])

    def insert_columns(self, columns: Mapping[str, Any]) -> int:
        return self.batch_insert(dict(zip(columns, values)) for values in zip(*columns.values()))

    def update(self, idx: int, changes: Mapping[str, Any]) -> None:
        self.rows[idx] = {**self.rows[idx], **changes}

    def delete(self, idx: int) -> None:
        del self.rows[idx]

    def find_key(self, key: Any) -> Optional[int]:
        return next((idx for idx, row in self.rows.items() if row[self.primary_key or ""] == key), None)

    def upsert(self, row: Row) -> int:
        idx = self.find_key(row[self.primary_key or ""])
        if idx is None:
            return self.insert(row)
        self.update(idx, row)
        return idx

    def ids(self, where: Any, combine: str = "and") -> list[int]:
        if callable(where):
            return [idx for idx, row in self.rows.items() if where(dict(row))]
        return [idx for idx, row in self.rows.items() if accepts(row, where or [], combine)]

    def batch_update(self, where: Any, updates: Any) -> int:
        ids = self.ids(where)
        for idx in ids:
            self.update(idx, updates(dict(self.rows[idx])) if callable(updates) else updates)
        return len(ids)

    def delete_where(self, conditions: Any, combine: str = "and") -> int:
        ids = self.ids(conditions, combine)
        for idx in ids:
            del self.rows[idx]
        return len(ids)

    def compact(self) -> None:
        self.rows = dict(enumerate(self.rows.values()))
        self.positions = len(self.rows)

    # -- reads -------------------------------------------------------------
    def items(self) -> list[tuple[int, Row]]:
        return [(idx, dict(row)) for idx, row in self.rows.items()]

    def select(
        self, where: Any = None, columns: Any = None, limit: Any = None, offset: int = 0, combine: str = "and"
    ) -> list[Row]:
        names = self.names if columns is None else columns
        stop = None if limit is None else offset + max(0, limit)
        return [{name: self.rows[idx][name] for name in names} for idx in self.ids(where, combine)[offset:stop]]

    def aggregate(self, column: str, agg: str, where: Any = None) -> Any:
        values = [(idx, self.rows[idx][column]) for idx in self.ids(where) if self.rows[idx][column] is not None]
        return aggregate(values, agg, float_sum if column in self.floats else exact_sum)

    def group_by(self, keys: Any, column: str, agg: str, where: Any = None) -> dict[Any, Any]:
        groups: dict[Any, list[tuple[int, Any]]] = {}
        total = grouped_sum if column in self.floats else exact_sum
        one_nan = math.nan
        for idx in self.ids(where):
            row = self.rows[idx]
            parts = [row[name] for name in ([keys] if isinstance(keys, str) else keys)]
            parts = [one_nan if part != part else part for part in parts]
            groups.setdefault(parts[0] if isinstance(keys, str) else tuple(parts), []).append((idx, row[column]))
        return {
            key: aggregate([(idx, value) for idx, value in values if value is not None], agg, total)
            for key, values in groups.items()
        }


# -- aggregates, literally as the definition says ----------------------------
Values = list[tuple[int, Any]]  # (position, value that is not null), in position order


def aggregate(values: Values, agg: str, total: Callable[[Values], Any]) -> Any:
    """One aggregate; ``total`` is the sum's definition."""
    if agg == "count":
        return len(values)
    if agg in ("min", "max"):
        return bound([value for _, value in values], agg == "max")
    if agg == "sum":
        return total(values)
    return canonical(total(values) / len(values)) if values else None


def exact_sum(values: Values) -> int:
    return sum(int(value) for _, value in values)


def float_sum(values: Values) -> float:
    """Blocks of 1,024 positions, 32 lanes folded by halves, blocks in order within a segment, segments in order."""
    segments: dict[int, dict[int, list[float]]] = {}
    for position, value in values:
        lanes = segments.setdefault(position // SEGMENT, {}).setdefault(position // BLOCK, [0.0] * LANES)
        lanes[position % LANES] += value
    total = 0.0
    for _, blocks in sorted(segments.items()):
        part = 0.0
        for _, lanes in sorted(blocks.items()):
            part += folded(lanes)
        total += part
    return canonical(total)


def folded(lanes: list[float]) -> float:
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return lanes[0]


def grouped_sum(values: Values) -> float:
    """One accumulator per (segment, position mod 4), folded (0+1)+(2+3), segments in order."""
    segments: dict[int, list[float]] = {}
    for position, value in values:
        segments.setdefault(position // SEGMENT, [0.0] * 4)[position % 4] += value
    total = 0.0
    for _, (a, b, c, d) in sorted(segments.items()):
        total += (a + b) + (c + d)
    return canonical(total)


def canonical(value: Any) -> Any:
    return math.nan if value != value else value


def bound(values: list[Any], greatest: bool) -> Any:
    """min or max: text by its bytes, NaN only where every value is NaN, -0.0 below 0.0."""
    if not values:
        return None
    numbers = [value for value in values if value == value]
    if not numbers:
        return math.nan
    return (max if greatest else min)(numbers, key=order)


def order(value: Any) -> Any:
    """A sort key of one column's values: text by its bytes, -0.0 before 0.0, NaN last."""
    if isinstance(value, float):
        return (1, 0.0, 0.0) if value != value else (0, value, math.copysign(1.0, value))
    return plain(value)
