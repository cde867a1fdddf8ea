"""Conditions put to rows in slabs: every kernel beside ``Predicate.matches``, the row engine beside the other."""

from __future__ import annotations

import datetime as dt
import math
import random
from array import array
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_slab import MIXED, from_bits, make

from snapdb import ColumnDef, Schema, SnapDB
from snapdb._ext import _common as c
from snapdb.conditions import Predicate

#: (name, code, bytes:N, nullable): every kind of value, with and without nulls
COLUMNS = [
    *MIXED,
    ("l", c.F64, 0, True),
    ("m", c.U64, 0, False),
    ("n", c.BYTES, 12, True),
    ("o", c.I32, 0, False),
    ("p", c.I16, 0, True),
]
TEXTS = [b"", b"a", b"b", b"ab", b"abc", b"a\0", b"\xff", b"abcdef", b"abcdefgh", b"abcdefghi", b"\0", b"abcdefghijkl"]
FLOATS = [0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 2.0**-149, 3.0]


def points(column: Any, bound: bool = False) -> Any:
    """Physical values of a column, few enough to meet again; as bounds no NaN, and texts of any length."""
    _, code, limit, _ = column
    if code in c.LIMITS:
        lo, hi = c.LIMITS[code]
        return st.sampled_from(sorted({lo, hi, *(v for v in (-2, -1, 0, 1, 2, 5, 100) if lo <= v <= hi)}))
    if code in (c.F32, c.F64):
        return st.sampled_from([v for v in FLOATS if not bound or v == v])
    return st.sampled_from([text for text in TEXTS if bound or code != c.BYTES or len(text) <= limit])


@st.composite
def predicates(draw: Any, column: Any) -> Predicate:
    kind = draw(st.sampled_from(["range"] * 4 + ["in", "never", "null", "not_null"]))
    negate = draw(st.booleans())
    value = points(column, bound=True)
    if kind == "in":
        return Predicate("in", values=tuple(sorted(draw(st.sets(value, min_size=1, max_size=8)))), negate=negate)
    if kind != "range":
        return Predicate(kind, negate=negate and kind == "never")
    if draw(st.booleans()):
        point = draw(value)
        return Predicate("range", point, point, negate=negate)
    is_float, is_text = column[1] in (c.F32, c.F64), column[1] in c.VARLEN
    lo = draw(value) if is_float else draw(st.none() | value)
    hi = draw(value) if is_float else draw(st.none() | value)
    return Predicate("range", lo, hi, is_text and draw(st.booleans()), is_text and draw(st.booleans()), negate=negate)


def value_of(column: Any) -> Any:
    return st.none() | points(column) if column[3] else points(column)


ROW = st.tuples(*[value_of(column) for column in COLUMNS])


@st.composite
def questions(draw: Any) -> list[tuple[int, Predicate]]:
    columns = draw(st.lists(st.sampled_from(range(len(COLUMNS))), max_size=4))
    return [(j, draw(predicates(COLUMNS[j]))) for j in columns]


def terms_of(plan: list[tuple[int, Predicate]]) -> list[tuple[Any, ...]]:
    return [(j, *predicate) for j, predicate in plan]


def expected(rows: list[Optional[list[Any]]], plan: list[tuple[int, Predicate]], any_of: bool) -> list[bool]:
    """What the predicates say of each row; None is a dead one."""
    unite = any if any_of and plan else all
    return [row is not None and unite(p.matches(row[j]) for j, p in plan) for row in rows]


def stored(view: Any) -> list[Optional[list[Any]]]:
    """The physical values of each position, None for a dead one."""
    buffers = [view.gather(j, 0, view.rows) for j in range(len(COLUMNS))]
    alive = from_bits(view.live_mask(0, view.rows), view.rows)
    return [[buffer.physical(i) for buffer in buffers] if alive[i] else None for i in range(view.rows)]


def check(view: Any, rows: list[Optional[list[Any]]], plan: Any, any_of: bool, start: int, stop: int) -> None:
    wanted = expected(rows[start:stop], plan, any_of)
    mask = view.select(terms_of(plan), any_of, start, stop)
    assert (mask is None) == (not any(wanted))
    if mask is not None:
        assert from_bits(mask, stop - start) == wanted
    assert view.count(terms_of(plan), any_of, start, stop) == sum(wanted)


@settings(max_examples=120)
@given(st.data())
def test_select_is_what_predicates_say(kernels: Any, data: Any) -> None:
    made = make(kernels, COLUMNS, data.draw(st.sampled_from([1, 300, 1000, 4096])))
    table = made.table
    for row in data.draw(st.lists(ROW, max_size=40)):
        table.append_values(row)
    for idx in range(table.rows):
        if data.draw(st.integers(0, 9)) == 0:
            table.remove(idx)
    view = table.pin()
    rows = stored(view)
    stop = data.draw(st.integers(0, view.rows))
    start = data.draw(st.integers(0, stop))
    for _ in range(3):
        plan, any_of = data.draw(questions()), data.draw(st.booleans())
        check(view, rows, plan, any_of, 0, view.rows)
        check(view, rows, plan, any_of, start, stop)


@pytest.fixture(params=[61, 4096], ids=["one", "many"])
def large(request: pytest.FixtureRequest, kernels: Any) -> Iterator[tuple[Any, list[Optional[list[Any]]]]]:
    """A view of some blocks, rows and whole slabs of which are dead, with one row or many in a slab."""
    rng = random.Random(3)
    made = make(kernels, COLUMNS, request.param)
    drawn: dict[str, list[Any]] = {}
    for column in COLUMNS:
        _, code, limit, nullable = column
        if code in c.LIMITS:
            lo, hi = c.LIMITS[code]
            pool = [v for v in (lo, hi, -2, -1, 0, 1, 2, 5, 100) if lo <= v <= hi]
        else:
            pool = FLOATS if code in (c.F32, c.F64) else [t for t in TEXTS if code != c.BYTES or len(t) <= limit]
        drawn[column[0]] = [*pool, None] if nullable else pool
    for _ in range(2600):
        made.table.append_values([rng.choice(drawn[column[0]]) for column in COLUMNS])
    for idx in [*range(1100, 1400), *rng.sample(range(1100), 90)]:
        made.table.remove(idx)
    view = made.table.pin()
    yield view, stored(view)
    view.release()


def test_select_over_blocks(large: Any) -> None:
    view, rows = large
    rng = random.Random(4)
    for j in range(len(COLUMNS)):
        values = sorted({row[j] for row in rows if row is not None and row[j] is not None and row[j] == row[j]})
        lo, hi = values[len(values) // 3], values[2 * len(values) // 3]
        plans = [
            Predicate("range", lo, hi), Predicate("range", hi, hi, negate=True),
            Predicate("in", values=tuple(values[::2])), Predicate("in", values=tuple(values), negate=True),
            Predicate("null"), Predicate("not_null"), *(Predicate("range", v, v) for v in values[:4]),
        ]  # fmt: skip
        for predicate in plans:
            other = (rng.randrange(len(COLUMNS)), Predicate("not_null"))
            for plan in ([(j, predicate)], [other, (j, predicate)], [(10, Predicate("range", 5, 5)), (j, predicate)]):
                for any_of in (False, True):
                    check(view, rows, plan, any_of, 0, view.rows)
                    check(view, rows, plan, any_of, 1000, 1501)


def test_a_masked_gather_reads_what_the_mask_has(large: Any, kernels: Any) -> None:
    view, rows = large
    rng = random.Random(5)
    for start, stop in ((0, view.rows), (37, 1333), (5, 5)):
        for share in (0.0, 0.05, 0.9, 1.0):
            chosen = [row for row in range(stop - start) if rng.random() < share]
            mask = kernels.mask.from_ids(array("I", chosen), stop - start)
            for j in range(len(COLUMNS)):
                found = view.gather(j, start, stop, mask)
                whole = view.gather(j, start, stop)
                kept = set(chosen)
                for row in range(stop - start):
                    a, b = found.physical(row), whole.physical(row) if row in kept else None
                    assert a == b or (a != a and b != b)
                assert found.null_count == sum(found.physical(row) is None for row in range(stop - start))
                if COLUMNS[j][1] in c.WIDTHS:
                    width = c.WIDTHS[COLUMNS[j][1]]
                    raw = bytes(found.data)
                    left_out = [row for row in range(stop - start) if row not in kept]
                    assert not any(any(raw[row * width : (row + 1) * width]) for row in left_out)


def test_what_select_refuses(kernels: Any) -> None:
    made = make(kernels, COLUMNS)
    view = made.table.pin()
    good = (0, *Predicate("range", 1, 2))
    for call in (view.select, view.count):
        with pytest.raises(IndexError, match="column 16 is outside"):
            call([(16, *Predicate("not_null"))], False, 0, 0)
        with pytest.raises(IndexError):
            call([(-1, *Predicate("not_null"))], False, 0, 0)
        with pytest.raises(ValueError, match="unknown condition 'like'"):
            call([(0, "like", *Predicate("range")[1:])], False, 0, 0)
        with pytest.raises(ValueError, match="outside 0..0"):
            call([good], False, 0, 1)
        with pytest.raises(ValueError, match="outside 0..0"):
            call([good], False, -1, 0)
    with pytest.raises(ValueError, match="a mask over 0 rows has 0 bytes, got 8"):
        view.gather(0, 0, 0, bytes(8))
    assert view.select([good], False, 0, 0) is None
    view.release()
    for call in (view.select, view.count):
        with pytest.raises(ValueError, match="released"):
            call([good], False, 0, 0)


# -- the engine ----------------------------------------------------------------

SCHEMA = Schema([
    ColumnDef("id", "i32"), ColumnDef("ts", "datetime"), ColumnDef("sensor", "u8"),
    ColumnDef("status", "bytes:8"),
    ColumnDef("temp", "f64", not_null=False), ColumnDef("note", "str", not_null=False),
])  # fmt: skip
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
WHERE: list[tuple[Any, str]] = [
    ([("sensor", "gt", 8), ("status", "eq", "active"), ("temp", "lt", 35.0)], "and"),
    ([("sensor", "in", [1, 3]), ("note", "eq", "n7"), ("temp", "is_null", None)], "or"),
    ([("ts", "between", (START, START + dt.timedelta(hours=9)))], "and"),
    ([("status", "gte", "b"), ("note", "ne", "n3")], "and"),
    ([("id", "lt", 10**30), ("id", "gte", 4.5)], "and"),
    ([("temp", "ne", float("nan"))], "and"),
    ([("sensor", "lt", 0)], "and"),
    ({}, "and"),
]  # fmt: skip


def sensor_row(i: int, rng: random.Random) -> dict[str, Any]:
    return {
        "id": i, "ts": START + dt.timedelta(minutes=i), "sensor": i % 16,
        "status": ("active", "idle", "banned")[i % 3],
        "temp": rng.choice([None, float("nan"), -0.0, 20 + 30 * rng.random()]),
        "note": rng.choice([None, "", f"n{i % 9}"]),
    }  # fmt: skip


def pair(backend_name: str, rows: int) -> tuple[SnapDB, SnapDB]:
    """The same changes to a table of each engine."""
    made = []
    for engine in ("row", "columnar"):
        rng = random.Random(8)
        db = SnapDB(":memory:", SCHEMA, storage_type=engine)
        db.batch_insert([sensor_row(i, rng) for i in range(rows)])
        for idx in range(0, rows, 7):
            db.delete(idx)
        for idx in range(3, rows, 50):
            if idx % 7:
                db.update(idx, {"temp": 30.0, "status": "active", "note": "n7"})
        made.append(db)
    return made[0], made[1]


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize("use_numpy", [None, False])
def test_both_engines_answer_alike(backend_name: str, use_numpy: Optional[bool]) -> None:
    one, other = pair(backend_name, 1700)
    for where, combine in WHERE:
        counts = [db.count_where(where, combine, use_numpy) for db in (one, other)]
        assert counts[0] == counts[1], where
        for limit, offset in ((None, 0), (5, 0), (300, 17)):
            assert same(*[db.select_where(where, None, limit, offset, combine, use_numpy) for db in (one, other)])
        if combine == "or":
            continue
        for column, agg in (
            ("temp", "sum"), ("temp", "avg"), ("temp", "min"), ("temp", "max"), ("temp", "count"), ("id", "sum"),
            ("note", "count"), ("note", "max"), ("ts", "min"), ("status", "min"), ("id", "count"),
        ):  # fmt: skip
            found = [db.aggregate(column, agg, where, use_numpy) for db in (one, other)]
            assert same(*found), (where, column, agg)
        assert same(*[db.group_by("sensor", "temp", "sum", where) for db in (one, other)])


def test_scans_of_more_than_a_segment() -> None:
    db = SnapDB(":memory:", Schema([ColumnDef("id", "i32"), ColumnDef("kind", "bytes:4")]), storage_type="row")
    rows = c.SEGMENT + 5000
    db.batch_insert([{"id": i, "kind": "ab" if i % 5 else "cd"} for i in range(rows)])
    db.delete(c.SEGMENT)
    assert db.count_where([("id", "gte", c.SEGMENT - 1)]) == 5000
    assert db.count_where([("id", "gte", c.SEGMENT - 1), ("kind", "eq", "ab")]) == 3999
    assert db.aggregate("id", "min", where=[("id", "gt", c.SEGMENT - 1)]) == c.SEGMENT + 1
    assert [row["id"] for row in db.select([("kind", "eq", "cd"), ("id", "gt", rows - 7)])] == [rows - 6, rows - 1]
    assert db.count_where({}) == rows - 1


def test_a_scan_sees_the_table_as_it_was(kernels: Any) -> None:
    made = make(kernels, [("a", c.I64, 0, False)], 64)
    for i in range(100):
        made.table.append_values([i])
    view = made.table.pin()
    made.table.put(3, [(0, 1000)])
    made.table.remove(4)
    made.table.append_values([5])
    term = [(0, *Predicate("range", 3, 5))]
    assert view.count(term, False, 0, 100) == 3
    later = made.table.pin()
    assert later.count(term, False, 0, 101) == 2
