"""Aggregates and group-by over a view. Both engines speak it.

Integer sums are exact. Float sums have one definition, whatever the engine, encoding or backend: blocks of 1,024
positions, 32 lanes each, folded by halves; blocks in order within a segment, segments in order. Group sums: one
accumulator per (segment, group, position mod 4).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import NAN, UNSELECTED, logical
from .errors import AggregateError, UnknownColumnError, ValueTypeError, shorten
from .scan import Selector, View, filter_of, segment_mask, selected, submask

if TYPE_CHECKING:
    from .dtypes import DType
    from .schema import Schema

__all__ = ["AGGREGATES", "aggregate", "group_by", "group_plan"]

AGGREGATES = ("sum", "min", "max", "avg", "count")
# names of other systems, for the hint of an error only
_ELSEWHERE = {
    "mean": "avg", "average": "avg", "len": "count", "size": "count", "length": "count", "total": "sum",
    "minimum": "min", "maximum": "max",
}  # fmt: skip


def check_aggregate(name: str, dtype: DType, agg: Any) -> str:
    """The aggregate's name; AggregateError where it is unknown or has no meaning for the dtype."""
    if agg not in AGGREGATES:
        plain = agg.strip().lower() if isinstance(agg, str) else ""
        near = plain if plain in AGGREGATES else _ELSEWHERE.get(plain)
        hint = f"did you mean {near!r}?" if near else None
        raise AggregateError(f"unknown aggregate {shorten(agg)}: use one of {', '.join(AGGREGATES)}", hint=hint)
    if agg in ("sum", "avg") and not dtype.is_numeric:
        raise AggregateError(f"{agg} of column {name!r} has no meaning: it is {dtype.name}; use min, max or count")
    return str(agg)


def column_index(schema: Schema, name: Any, hint: str) -> int:
    """The column's position; UnknownColumnError, with ``hint`` for the ``*`` of SQL."""
    if isinstance(name, str) and name == "*" and name not in schema:
        raise UnknownColumnError("unknown column '*'", column=name, hint=hint)
    return schema.index(name)


def aggregate(view: View, j: int, agg: str, where: Optional[Selector], zone_answers: bool = True) -> Any:
    """One aggregate of one column over the live matching rows; null values do not count.

    Over no values: sum 0, count 0, others None. With ``zone_answers`` a segment that is wholly selected is answered
    from its zone map.
    """
    dtype = view.schema.columns[j].type
    if agg == "count":
        return _count(view, j, where, zone_answers)
    if agg in ("min", "max"):
        return _bound(view, j, where, agg == "max", zone_answers)
    total = _sum(view, j, where, zone_answers)
    if agg == "sum":
        return _canonical(total) if dtype.is_float else total
    values = _count(view, j, where, zone_answers)
    return None if values == 0 else _canonical(total / values)


def _canonical(value: Any) -> Any:
    """One NaN for every computation (its sign and payload would differ between processors)."""
    return NAN if value != value else value


def _fresh_zone(view: View, j: int, k: int, mask: Any, zone_answers: bool) -> Any:
    """The zone map that may answer for the first chunk: every row selected, nothing changed since it was made."""
    if mask is not None or not zone_answers:
        return None
    zone = view.zone(j, k)
    return zone if zone is not None and zone.exact else None


def _answers(view: View, j: int, k: int, mask: Any, zone_answers: bool) -> Iterator[tuple[Any, Any, int, Any]]:
    """(zone map, chunk, rows, mask) of each chunk of a segment: where the zone map answers there is no chunk, and no
    value is read.
    """
    zone = _fresh_zone(view, j, k, mask, zone_answers)
    chunks: Any = None
    start = 0
    for p, size in enumerate(view.bounds(k)):
        if p == 0 and zone is not None:
            yield zone, None, size, None
        else:
            if chunks is None:
                chunks = view.chunks(j, k)
            yield None, chunks[p], size, submask(mask, start, size)
        start += size


class _Reduction:
    """One aggregate of one column, segment by segment: many at a call where that can be, else one by its chunks."""

    def __init__(self, view: View, j: int, where: Optional[Selector], zone_answers: bool, start: Any) -> None:
        self.total = start
        self.view = view
        self.j = j
        self.zone_answers = zone_answers
        self._where = where
        self._sweep, self.conditions = filter_of(view, where)

    def run(self) -> Any:
        """The aggregate over all segments."""
        k, stop = 0, self.view.segments()
        while k < stop:
            if self._sweep is not None:
                k = self.sweep(self._sweep, k)
                if k == stop:
                    break
            for _, mask in segment_mask(self.view, self._where, k):
                self.segment(_answers(self.view, self.j, k, mask, self.zone_answers))
            k += 1
        return self.total

    def sweep(self, sweep: Any, k: int) -> int:
        """Add what the segments from k on give, as far as they can be done at a call; the next segment."""
        raise NotImplementedError

    def segment(self, answers: Iterable[tuple[Any, Any, int, Any]]) -> None:
        """Add one segment."""
        raise NotImplementedError


class _Sum(_Reduction):
    def sweep(self, sweep: Any, k: int) -> int:
        self.total, k = sweep.sum(self.conditions, self.j, k, self.total, self.zone_answers)
        return k

    def segment(self, answers: Iterable[tuple[Any, Any, int, Any]]) -> None:
        part: Any = 0.0 if isinstance(self.total, float) else 0
        for zone, chunk, _, chosen in answers:
            part = zone.total if zone is not None else chunk.sum(chosen, part)
        self.total += part


class _Count(_Reduction):
    def sweep(self, sweep: Any, k: int) -> int:
        found, k = sweep.values(self.conditions, self.j, k, self.zone_answers)
        self.total += found
        return k

    def segment(self, answers: Iterable[tuple[Any, Any, int, Any]]) -> None:
        for zone, chunk, size, chosen in answers:
            self.total += size - zone.nulls if zone is not None else chunk.count(chosen)


class _Bounds(_Reduction):
    def sweep(self, sweep: Any, k: int) -> int:
        found, k = sweep.bounds(self.conditions, self.j, k, self.zone_answers)
        for bounds in found:
            self._widen(bounds)
        return k

    def segment(self, answers: Iterable[tuple[Any, Any, int, Any]]) -> None:
        for zone, chunk, _, chosen in answers:
            if zone is None:
                self._widen(chunk.bounds(chosen))
            else:
                self._widen(None if zone.lo is None else (zone.lo, zone.hi))

    def _widen(self, found: Any) -> None:
        if found is not None:
            lo, hi = self.total
            self.total = _better(lo, found[0], False), _better(hi, found[1], True)


def _sum(view: View, j: int, where: Optional[Selector], zone_answers: bool) -> Any:
    return _Sum(view, j, where, zone_answers, 0.0 if view.schema.columns[j].type.is_float else 0).run()


def _count(view: View, j: int, where: Optional[Selector], zone_answers: bool) -> int:
    total: int = _Count(view, j, where, zone_answers, 0).run()
    return total


def _bound(view: View, j: int, where: Optional[Selector], greatest: bool, zone_answers: bool) -> Any:
    best = _Bounds(view, j, where, zone_answers, (None, None)).run()[greatest]
    code = view.schema.columns[j].type.code
    return _canonical(best) if isinstance(best, float) else logical(code, best)


def _better(best: Any, value: Any, greatest: bool) -> Any:
    """The lesser or greater of two values: NaN loses to any number, -0.0 is the smaller zero."""
    if best is None or best != best:
        return value
    if value != value:
        return best
    if value == best:
        if value == 0 and isinstance(value, float):
            negative = str(value)[0] == "-"
            return value if negative != greatest else best
        return best
    return value if (value > best) == greatest else best


# -- group by --------------------------------------------------------------


class GroupPlan:
    """What a ``group_by`` call asks for: key columns, and (column, aggregate, result name) triples."""

    def __init__(self, keys: list[int], values: list[tuple[int, str, str]], tuple_keys: bool, named: bool) -> None:
        self.keys = keys
        self.values = values
        self.tuple_keys = tuple_keys
        self.named = named
        self.columns = [*keys, *[j for j, _, _ in values]]


def group_plan(schema: Schema, key_column: Any, value_column: Any, agg: Any) -> GroupPlan:
    """Read ``group_by``'s arguments; UnknownColumnError or AggregateError before anything is read."""
    tuple_keys = not isinstance(key_column, str)
    key_names = _listed("key_column", key_column) if tuple_keys else [key_column]
    if not key_names:
        raise UnknownColumnError("group_by needs at least one key column")
    keys = [schema.index(name) for name in key_names]
    named = isinstance(value_column, Mapping)
    wanted = _named_values(value_column) if named else [(value_column, agg)]
    values = []
    for name, one in wanted:
        j = column_index(schema, name, "count a column that is not null")
        values.append((j, check_aggregate(name, schema.columns[j].type, one), f"{name}_{one}"))
    return GroupPlan(keys, values, tuple_keys, named)


def _listed(what: str, names: Any) -> list[Any]:
    try:
        given = iter(names)
    except TypeError:
        raise ValueTypeError(f"group_by: {what} is a name or a list of names, not {type(names).__name__}") from None
    return list(given)


def _named_values(value_column: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = []
    for name, aggs in value_column.items():
        for one in [aggs] if isinstance(aggs, str) else _listed(f"aggregates of {shorten(name)}", aggs):
            wanted.append((name, one))
    if not wanted:
        raise AggregateError("group_by needs at least one aggregate")
    return wanted


def group_by(view: View, plan: GroupPlan, where: Optional[Selector]) -> dict[Any, Any]:
    """Aggregates per group, groups in order of their first live matching row."""
    groups: dict[Any, int] = {}
    needed = _accumulators(plan)
    for k, mask in selected(view, where):
        first, answers = _segment_answers(view, plan, list(needed), k, mask)
        ids = _group_ids(view, plan, k, first, groups)
        for (_, kind), state, answer in zip(needed, needed.values(), answers):
            _accumulate(state, kind, ids, len(groups), answer)
    return _results(view, plan, groups, needed)


def _segment_answers(
    view: View, plan: GroupPlan, needed: Sequence[tuple[int, str]], k: int, mask: Any
) -> tuple[Any, Sequence[Sequence[Any]]]:
    """Each group's first row in one segment, and for each (column, kind) that is needed an answer a group."""
    if len(plan.keys) == 1 and len(view.bounds(k)) == 1:
        chunks = {j: view.chunks(j, k)[0] for j in (plan.keys[0], *(j for j, _ in needed))}
        found: tuple[Any, Sequence[Sequence[Any]]] = chunks[plan.keys[0]].grouped(
            mask, [(chunks[j], kind) for j, kind in needed]
        )
        return found
    if len(plan.keys) == 1 and len(view.bounds(k)) == 2:
        pairs = {j: list(view.chunks(j, k)) for j in (plan.keys[0], *(j for j, _ in needed))}
        key, tail = pairs[plan.keys[0]]
        if type(key) is type(tail):
            both = key.grouped_on(
                mask, [(pairs[j][0], kind) for j, kind in needed], tail, [pairs[j][1] for j, _ in needed]
            )
            if both is not None:
                return both
    codes, first = _segment_groups(view, plan, k, mask)
    count = len(first)
    values = {j: view.whole(j, k) for j, _ in needed} if count else {}
    return first, [getattr(values[j], f"group_{kind}")(codes, count) if count else [] for j, kind in needed]


def _segment_groups(view: View, plan: GroupPlan, k: int, mask: Any) -> tuple[Any, Any]:
    """Group numbers of one segment's rows and each group's first row."""
    codes, first = _column_groups(view, plan.keys[0], k, mask)
    for j in plan.keys[1:]:
        more, more_first = _column_groups(view, j, k, mask)
        codes, first = view.kernels.mask.combine(codes, len(first), more, len(more_first))
    return codes, first


def _column_groups(view: View, j: int, k: int, mask: Any) -> tuple[Any, Any]:
    """Group numbers of one segment's rows by one column: each chunk by its own encoding, then numbered together."""
    chunks = view.chunks(j, k)
    if len(chunks) == 1:
        return chunks[0].group(mask)
    codes, first = array("I"), array("I")
    numbers: dict[Any, int] = {}
    start = 0
    for chunk, size in zip(chunks, view.bounds(k)):
        found, heads = chunk.group(submask(mask, start, size))
        renumbered = {UNSELECTED: UNSELECTED}
        for code, value in enumerate(chunk.take(heads)):
            number = renumbered[code] = numbers.setdefault(_key(value), len(numbers))
            if number == len(first):
                first.append(start + heads[code])
        if start:
            codes.extend(map(renumbered.__getitem__, found))
        else:
            codes.frombytes(bytes(found))  # the first chunk's numbers stand
        start += size
    return memoryview(codes), memoryview(first)


def _values_at(view: View, j: int, k: int, rows: Sequence[int]) -> list[Any]:
    """Column j's logical values at ascending rows of segment k."""
    values: list[Any] = []
    start = 0
    for chunk, size in zip(view.chunks(j, k), view.bounds(k)):
        here = array("I", [row - start for row in rows if start <= row < start + size])
        values.extend(chunk.take(memoryview(here)))
        start += size
    return values


def _group_ids(view: View, plan: GroupPlan, k: int, first: Any, groups: dict[Any, int]) -> list[int]:
    """Table-wide group numbers of one segment's groups; new groups are entered."""
    columns = [[_key(value) for value in _values_at(view, j, k, first)] for j in plan.keys]
    keys: Iterable[Any] = zip(*columns) if plan.tuple_keys else columns[0]
    return [groups.setdefault(key, len(groups)) for key in keys]


def _key(value: Any) -> Any:
    # one object for NaN, so that a dict finds it by identity
    return NAN if value != value else value


def _accumulators(plan: GroupPlan) -> dict[tuple[int, str], list[Any]]:
    """One list of per-group state for each (column, kind) that the aggregates need."""
    needed: dict[tuple[int, str], list[Any]] = {}
    for j, agg, _ in plan.values:
        kinds = {"avg": ("sum", "count"), "min": ("bounds",), "max": ("bounds",)}.get(agg, (agg,))
        for kind in kinds:
            needed.setdefault((j, kind), [])
    return needed


def _accumulate(state: list[Any], kind: str, ids: Sequence[int], groups: int, answers: Sequence[Any]) -> None:
    """Add one segment's groups to the table's."""
    state.extend([None] * (groups - len(state)))
    if kind == "bounds":
        for group, found in zip(ids, answers):
            if found is not None:
                lo, hi = state[group] or (None, None)
                state[group] = (_better(lo, found[0], False), _better(hi, found[1], True))
        return
    for group, part in zip(ids, answers):
        state[group] = part if state[group] is None else state[group] + part


def _results(
    view: View, plan: GroupPlan, groups: dict[Any, int], needed: dict[tuple[int, str], list[Any]]
) -> dict[Any, Any]:
    columns = []
    for j, agg, _ in plan.values:
        code = view.schema.columns[j].type.code
        columns.append([_result(needed, j, agg, group, code) for group in range(len(groups))])
    if not plan.named:
        return dict(zip(groups, columns[0]))
    names = [name for _, _, name in plan.values]
    return {key: dict(zip(names, row)) for key, row in zip(groups, zip(*columns))}


def _result(needed: dict[tuple[int, str], list[Any]], j: int, agg: str, group: int, code: int) -> Any:
    if agg == "avg":
        values = needed[j, "count"][group]
        return None if values == 0 else _canonical(needed[j, "sum"][group] / values)
    if agg in ("min", "max"):
        found = needed[j, "bounds"][group]
        if found is None:
            return None
        best = found[agg == "max"]
        return _canonical(best) if isinstance(best, float) else logical(code, best)
    return _canonical(needed[j, agg][group])
