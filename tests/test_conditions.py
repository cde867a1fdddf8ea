"""Conditions: the forms users write, and what each means for the values of a column, against exact arithmetic."""

from __future__ import annotations

import datetime as dt
import math
import operator
import random
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb import ColumnDef, Schema, scan
from snapdb._ext import _common as c
from snapdb.conditions import ALIASES, OPERATORS, Condition, Predicate, bind, normalize
from snapdb.dtypes import parse, physical
from snapdb.errors import ConditionError, UnknownColumnError

UTC = dt.timezone.utc
COMPARE = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip
NEVER = Predicate("never")
EVERY = Predicate("range")  # of a column that is not a float column: every non-null value


def predicate(dtype: str, op: str, value: Any, nullable: bool = True) -> Predicate:
    (condition,) = normalize([("x", op, value)])
    return bind(condition, parse(dtype), nullable)


# -- normal form -----------------------------------------------------------
@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (None, []), ([], []), ((), []), ({}, []),
        ([("a", "eq", 1)], [("a", "eq", 1)]),
        ((["a", "==", 1], ("b", "not_null", 5)), [("a", "eq", 1), ("b", "not_null", None)]),
        ([("a", "is_null"), ["b", "not_null"]], [("a", "is_null", None), ("b", "not_null", None)]),
        ({"a": 1}, [("a", "eq", 1)]), ({"a": None}, [("a", "eq", None)]),
        ({"a": {">=": 1, "<": 5}, "b": "x"}, [("a", "gte", 1), ("a", "lt", 5), ("b", "eq", "x")]),
        (OrderedDict(a={"is_null": True}), [("a", "is_null", None)]),
        ([("a", "in", [1, 2])], [("a", "in", (1, 2))]), ([("a", "in", (n for n in "ab"))], [("a", "in", ("a", "b"))]),
        ([("a", "in", range(2))], [("a", "in", (0, 1))]), ([("a", "in", None)], [("a", "in", ())]),
        ([("a", "in", {5})], [("a", "in", (5,))]), ([("a", "in", {}.keys())], [("a", "in", ())]),
        ([("a", "between", [1, 2])], [("a", "between", (1, 2))]), ([("a", "between", None)], [("a", "between", None)]),
    ],
)  # fmt: skip
def test_forms(given_: Any, expected: list[Any]) -> None:
    found = normalize(given_)
    assert found == tuple(expected) and all(isinstance(item, Condition) for item in found)
    assert normalize(list(found), "or") == found  # the normal form is a form


def test_every_operator_and_alias() -> None:
    for name in OPERATORS:
        assert normalize([("a", name, (1, 2))])[0].op == name
    assert {alias: normalize([("a", alias, 1)])[0].op for alias in ALIASES} == {
        "==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte",
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        5, "age > 3", b"x", {("a", "eq", 1)}, iter([]),
        ("a", "eq", 1), [("a",)], [("a", "eq")], [("a", "eq", 1, 2)], ["a"], [5],
        [None], [{"a": 1}], [()], [(5, "eq", 1)], [(None, "is_null")], [("a", "like", "x")], [("a", "=", 1)],
        [("a", "EQ", 1)],
        [("a", None, 1)], [("a", ["eq"], 1)], {"a": {}}, {"a": {"nope": 1}}, {5: 1}, {"a": {1: 2}},
        [("a", "in", "abc")], [("a", "in", b"abc")], [("a", "in", bytearray(b"a"))], [("a", "in", {"a": 1})],
        [("a", "in", 5)],
        [("a", "between", 5)], [("a", "between", (1,))], [("a", "between", (1, 2, 3))], [("a", "between", "ab")],
        [("a", "between", b"ab")], [("a", "between", {1, 2})], [("a", "between", {1: 1, 2: 2})],
    ],
)  # fmt: skip
def test_what_cannot_be_understood(bad: Any) -> None:
    with pytest.raises(ConditionError) as caught:
        normalize(bad)
    assert isinstance(caught.value, ValueError) and not isinstance(caught.value, KeyError)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"a": {"is_null": False}}, "is_null takes no value; for the opposite use 'not_null'"),
        ([("a", "not_null", False)], "not_null takes no value; for the opposite use 'is_null'"),
        ([("a", "=", 1)], "did you mean '=='?"), ([("a", "<>", 1)], "did you mean '!='?"),
        ([("a", "GTE ", 1)], "did you mean 'gte'?"),
        *[([("a", op, "x")], "pass a callable to select()") for op in ("not in", "like", "startswith", "LIKE")],
        ([("a", "between", 1, 5)], "between takes one (low, high) pair: ('a', 'between', (1, 5))"),
        ([("a", "in", 1, 5, 7)], "in takes one list: ('a', 'in', [1, 5, 7])"),
    ],
)  # fmt: skip
def test_hints_on_common_mistakes(bad: Any, words: str) -> None:
    with pytest.raises(ConditionError) as caught:
        normalize(bad)
    assert words in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("ignored", [None, True, 0, "", 5, []])
def test_null_operators_ignore_a_value_but_false(ignored: Any) -> None:
    assert normalize([("a", "is_null", ignored)]) == (Condition("a", "is_null", None),)
    assert normalize({"a": {"not_null": ignored}}) == (Condition("a", "not_null", None),)


@pytest.mark.parametrize("combine", ["xor", "", "AND", None, 1, ["and"]])
def test_bad_combine(combine: Any) -> None:
    with pytest.raises(ConditionError, match="combine must be 'and' or 'or'"):
        normalize([], combine)


def test_unknown_columns() -> None:
    assert len(normalize({"a": 1, "b": 2}, known=("a", "b"))) == 2
    with pytest.raises(UnknownColumnError, match="unknown column 'agee'; did you mean 'age'") as caught:
        normalize([("age", "eq", 1), ("agee", "eq", 1)], known=["id", "age"])
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ValueError) and caught.value.column == "agee"


# -- shapes the engines rely on --------------------------------------------
INF = math.inf
EAST = dt.timezone(dt.timedelta(hours=1))
UP, DOWN = math.nextafter(5.0, INF), math.nextafter(5.0, -INF)
SHAPES = [
    ("i32", "eq", 5, Predicate("range", 5, 5)), ("i32", "ne", 5, Predicate("range", 5, 5, negate=True)),
    ("i32", "gt", 5, Predicate("range", 6, None)), ("i32", "lte", 5, Predicate("range", None, 5)),
    ("i32", "gt", 30.5, Predicate("range", 31, None)), ("i32", "lt", 30.5, Predicate("range", None, 30)),
    ("i32", "gte", Fraction(61, 2), Predicate("range", 31, None)),
    ("i32", "lte", Decimal("30.5"), Predicate("range", None, 30)),
    ("i32", "eq", 30.5, NEVER), ("i32", "ne", 30.5, NEVER._replace(negate=True)),
    ("i32", "eq", 30.0, Predicate("range", 30, 30)),
    ("u8", "lt", 10**30, EVERY), ("u8", "gt", 10**30, NEVER), ("u8", "eq", 10**30, NEVER), ("u8", "eq", -1, NEVER),
    ("u8", "gte", 0, EVERY), ("u8", "gt", -1e300, EVERY), ("u8", "lte", 255.9, EVERY), ("u8", "lt", 0, NEVER),
    ("u8", "eq", 0, Predicate("range", 0, 0)),
    ("u8", "gt", 254, Predicate("range", 255, 255)), ("u8", "between", (0, 255), EVERY),
    ("u8", "between", (-5, 3), Predicate("range", None, 3)),
    ("u8", "between", (4, 3), NEVER), ("u8", "between", (3.5, 3.9), NEVER),
    ("u8", "between", (3, 3.9), Predicate("range", 3, 3)),
    ("i8", "lt", INF, EVERY), ("i8", "lte", -INF, NEVER), ("i8", "gt", -INF, EVERY), ("i8", "gte", INF, NEVER),
    ("i8", "eq", INF, NEVER),
    ("i8", "ne", INF, NEVER._replace(negate=True)), ("i8", "between", (-INF, INF), EVERY),
    ("i64", "eq", True, Predicate("range", 1, 1)), ("u64", "eq", 2**64 - 1, Predicate("range", 2**64 - 1, 2**64 - 1)),
    ("i64", "gt", float(2**63), NEVER), ("i64", "lt", float(2**63), EVERY),
    ("i64", "gte", Decimal("1e999999999"), NEVER),
    ("i64", "lte", Decimal("-1e-999999999"), Predicate("range", None, -1)),
    ("i32", "in", [3, 1, 1.0, 2.5, None, math.nan, 10**30, True], Predicate("in", values=(1, 3))),
    ("i32", "in", [5, 5.0], Predicate("range", 5, 5)), ("i32", "in", [], NEVER), ("i32", "in", [None], NEVER),
    ("bool", "eq", True, Predicate("range", 1, 1)), ("bool", "lt", 0.5, Predicate("range", 0, 0)),
    ("bool", "gte", False, EVERY),
    ("bool", "in", [True, False], Predicate("in", values=(0, 1))), ("bool", "eq", 2, NEVER),
    ("f64", "eq", 5, Predicate("range", 5.0, 5.0)), ("f64", "gt", 5, Predicate("range", UP, INF)),
    ("f64", "lt", 5, Predicate("range", -INF, DOWN)), ("f64", "gte", 5, Predicate("range", 5.0, INF)),
    ("f64", "lte", INF, Predicate("range", -INF, INF)), ("f64", "gt", INF, NEVER), ("f64", "lt", -INF, NEVER),
    ("f64", "gt", -INF, Predicate("range", -1.7976931348623157e308, INF)),
    ("f64", "eq", -INF, Predicate("range", -INF, -INF)),
    ("f64", "gt", 10**400, Predicate("range", INF, INF)),
    ("f64", "lt", 10**400, Predicate("range", -INF, 1.7976931348623157e308)),
    ("f64", "eq", 10**400, NEVER), ("f64", "eq", 2**53 + 1, NEVER),
    ("f64", "gt", 2**53 + 1, Predicate("range", 2.0**53 + 2, INF)),
    ("f64", "gt", Decimal("1e-999999999"), Predicate("range", 5e-324, INF)), ("f64", "eq", Decimal("0.1"), NEVER),
    ("f32", "eq", 0.1, Predicate("range", 0.1, 0.1)),
    ("f64", "in", [0.0, -0.0, math.nan, Fraction(1, 3)], Predicate("range", 0.0, 0.0)),
    ("f64", "in", [2, 1.5], Predicate("in", values=(1.5, 2.0))),
    ("f64", "between", (1, INF), Predicate("range", 1.0, INF)),
    ("str", "eq", "é", Predicate("range", b"\xc3\xa9", b"\xc3\xa9")),
    ("str", "gt", b"a", Predicate("range", b"a", None, True, False)),
    ("bytes:2", "lte", "longer", Predicate("range", None, b"longer")),
    ("str", "eq", b"\xff", Predicate("range", b"\xff", b"\xff")),
    ("str", "lt", "", NEVER), ("str", "gte", "", Predicate("range", b"", None)), ("str", "between", ("b", b"a"), NEVER),
    ("str", "between", ("a", b"b"), Predicate("range", b"a", b"b")),
    ("str", "in", ["b", b"a", "a", None], Predicate("in", values=(b"a", b"b"))),
    ("binary:2", "eq", bytearray(b"abc"), Predicate("range", b"abc", b"abc")),
    ("binary", "lt", b"b", Predicate("range", None, b"b", False, True)),
    ("date", "gt", dt.date(1970, 1, 2), Predicate("range", 2, None)),
    ("date", "eq", dt.date(1969, 12, 31), Predicate("range", -1, -1)),
    ("datetime", "lt", dt.datetime(1970, 1, 1, 1, tzinfo=EAST), Predicate("range", None, -1)),
    ("datetime", "in", [dt.datetime(1970, 1, 1, tzinfo=UTC)], Predicate("range", 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "op", "value", "expected"), SHAPES)
def test_shapes(dtype: str, op: str, value: Any, expected: Predicate) -> None:
    found = predicate(dtype, op, value)
    assert found == expected
    for mine, wanted in zip((found.lo, found.hi, *found.values), (expected.lo, expected.hi, *expected.values)):
        assert type(mine) is type(wanted)
    assert math.copysign(1, found.lo) == 1 if found.lo == 0 else True  # never -0.0


ALL = ["i8", "u64", "f32", "f64", "bool", "bytes:3", "str", "binary", "date", "datetime"]


@pytest.mark.parametrize("dtype", ALL)
def test_nulls_and_none(dtype: str) -> None:
    good = c.logical(parse(dtype).code, b"a" if parse(dtype).is_varlen else 1)
    assert predicate(dtype, "is_null", 5) == Predicate("null") and predicate(dtype, "is_null", 5, False) == NEVER
    assert predicate(dtype, "not_null", None) == Predicate("not_null")
    for op in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "between"):
        assert predicate(dtype, op, None) == NEVER
    assert predicate(dtype, "between", (None, good)) == predicate(dtype, "between", (good, None)) == NEVER
    assert predicate(dtype, "in", [None, good]) == predicate(dtype, "eq", good)
    for op in COMPARE:
        assert not predicate(dtype, op, good).matches(None)
    assert Predicate("null").matches(None) and not Predicate("null").matches(1)
    assert Predicate("not_null").matches(math.nan) and not Predicate("not_null").matches(None)


@pytest.mark.parametrize("dtype", ["i8", "u64", "f32", "f64", "bool"])
@pytest.mark.parametrize("nan", [math.nan, -math.nan, Decimal("nan"), Decimal("sNaN")], ids=str)
def test_nan_matches_nothing_but_ne(dtype: str, nan: Any) -> None:
    for op in ("eq", "gt", "gte", "lt", "lte"):
        assert predicate(dtype, op, nan) == NEVER
    assert predicate(dtype, "ne", nan) == NEVER._replace(negate=True)
    assert predicate(dtype, "between", (nan, 5)) == predicate(dtype, "between", (-5, nan)) == NEVER
    assert predicate(dtype, "in", [nan]) == NEVER


def test_a_nan_in_the_column_matches_ne_only() -> None:
    for op, value in (("gt", -INF), ("gte", -INF), ("lte", INF), ("eq", 1), ("between", (-INF, INF)), ("in", [1, 2])):
        assert not predicate("f64", op, value).matches(math.nan)
    assert predicate("f64", "ne", 1).matches(math.nan) and predicate("f64", "ne", math.nan).matches(math.nan)


WRONG = [
    *[(dtype, value) for dtype in ("i8", "f64", "bool") for value in ("1", b"1", [1], 1j, object(), dt.date.min, {})],
    *[(dtype, value) for dtype in ("str", "bytes:3") for value in (1, 1.5, True, ["a"], dt.date.min, "\ud800")],
    ("binary", "a"), ("binary", 1), ("date", dt.datetime(2020, 1, 1, tzinfo=UTC)), ("date", "2020-01-01"), ("date", 1),
    ("datetime", dt.datetime(2020, 1, 1)), ("datetime", dt.date(2020, 1, 1)), ("datetime", "2020-01-01"),
    ("datetime", 0),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), WRONG)
def test_values_that_cannot_be_compared(dtype: str, value: Any) -> None:
    forms = [(op, value) for op in COMPARE] + [
        ("in", [None, value]),
        ("between", (value, value)),
        ("between", (None, value)),
    ]
    for op, wanted in forms:
        if isinstance(wanted, dict):
            continue  # a dict is the shorthand for operators there
        with pytest.raises(ConditionError, match=f"^column 'x' {op} ") as caught:
            predicate(dtype, op, wanted)
        assert caught.value.column == "x" and len(str(caught.value)) < 300


def test_messages_say_what_is_accepted() -> None:
    for dtype, value, text in (
        ("i32", "5", "compares with real numbers, not str"), ("i32", "5", "use a number, as in int(value)"),
        ("f32", "5", "use a number, as in float(value)"), ("bool", "yes", "as in True or False"),
        ("i32", [1, 2], "use {'x': {'in': [1, 2]}}"), ("str", ("a",), "use {'x': {'in': ['a']}}"),
        ("date", "2020-01-01", "datetime.date.fromisoformat(value)"), ("str", 5, "str and bytes, not int"),
        ("binary", "a", "value.encode()"),
        ("date", dt.datetime.now(), "value.date()"), ("datetime", dt.datetime.now(), "naive"),
    ):  # fmt: skip
        with pytest.raises(ConditionError) as caught:
            predicate(dtype, "eq", value)
        assert text in str(caught.value)


def test_numpy_values() -> None:
    np = pytest.importorskip("numpy")
    for value in (np.int8(5), np.uint64(5), np.float16(5), np.float32(5), np.float64(5), np.longdouble(5)):
        assert predicate("i32", "eq", value) == Predicate("range", 5, 5)
        assert predicate("f64", "lte", value) == Predicate("range", -INF, 5.0)
    assert predicate("bool", "eq", np.bool_(True)) == predicate("i8", "eq", np.bool_(True)) == Predicate("range", 1, 1)
    assert predicate("f64", "eq", np.float32(0.1)) == Predicate("range", float(np.float32(0.1)), float(np.float32(0.1)))
    for kind in (np.float16, np.float32, np.float64, np.longdouble):
        assert predicate("i8", "eq", kind("nan")) == NEVER and predicate("i8", "lt", kind("inf")) == EVERY
    assert predicate("i8", "in", np.array([3, 1, 3])) == Predicate("in", values=(1, 3))
    assert predicate("i8", "between", np.array([1.5, 3.5])) == Predicate("range", 2, 3)
    found = predicate("str", "in", np.array(["b", "a"]))
    assert found == Predicate("in", values=(b"a", b"b")) and type(found.values[0]) is bytes


# -- against an oracle -----------------------------------------------------
def exact(value: Any) -> Any:
    """A number that Python compares exactly with any other."""
    if isinstance(value, Decimal):
        if value.is_nan():
            return math.nan
        return float(value) if value.is_infinite() else Fraction(value)
    return value


def expected(op: str, stored: Any, value: Any) -> bool:
    if op == "between":
        return bool(exact(value[0]) <= stored <= exact(value[1]))
    if op == "in":
        return any(stored == exact(item) for item in value)
    return bool(COMPARE[op](stored, exact(value)))


EDGES = sorted({edge + step for code in range(c.I8, c.U64 + 1) for edge in c.LIMITS[code] for step in (-1, 0, 1)})
DOUBLES = [0.0, -0.0, 5e-324, -5e-324, 0.1, 0.5, 1.0, 30.5, 2.0**53, 2.0**63, 2.0**64, 1.7976931348623157e308, INF,
    -INF, -1.5, math.nan,
           float(2**24 + 1), 3.4028234663852886e38]  # fmt: skip
finite = st.floats(allow_nan=False, allow_infinity=False)
reals = st.one_of(
    st.integers(), st.sampled_from(EDGES), st.floats(), st.sampled_from(DOUBLES), st.fractions(), st.booleans(),
    st.decimals(), st.integers(-300, 300), st.fractions(-5, 5, max_denominator=4), st.integers(10**300, 10**320),
    st.builds(lambda f, step: Fraction(f) + Fraction(step, 10**400), finite, st.sampled_from((-1, 0, 1))),
)  # fmt: skip


def near(value: Any, ints: bool) -> list[Any]:
    """Stored values next to a constant, where mistakes live."""
    value = exact(value)
    if isinstance(value, float) and not math.isfinite(value):
        return [] if ints else [value]
    if ints:
        return [math.floor(value) + step for step in (-1, 0, 1, 2)]
    try:
        middle = float(value)
    except OverflowError:
        return []
    return [math.nextafter(middle, -INF), middle, math.nextafter(middle, INF)]


def cases(op: str, value: Any) -> list[Any]:
    return list(value) if op in ("in", "between") else [value]


operations = st.one_of(
    st.tuples(st.sampled_from(sorted(COMPARE)), reals),
    st.tuples(st.just("between"), st.tuples(reals, reals)),
    st.tuples(st.just("in"), st.lists(reals, max_size=5)),
)


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool"])
def test_integers_against_any_real(dtype: str) -> None:
    lo, hi = c.LIMITS[parse(dtype).code]

    @given(operations, st.lists(st.integers(lo, hi), max_size=5))
    def check(operation: tuple[str, Any], stored: list[int]) -> None:
        op, value = operation
        found = predicate(dtype, op, value)
        assert_sound(found, lo, hi)
        for constant in cases(op, value):
            stored += near(constant, True)
        for item in [*stored, lo, hi, 0]:
            if lo <= item <= hi:
                assert found.matches(item) == expected(op, item, value), (found, item)

    check()


def assert_sound(found: Predicate, lo: int, hi: int) -> None:
    assert found.kind in ("never", "range", "in")
    for bound in (found.lo, found.hi, *found.values):
        assert bound is None or (type(bound) is int and lo <= bound <= hi)
    if found.lo is not None and found.hi is not None:
        assert found.lo <= found.hi  # type: ignore[operator]
    assert list(found.values) == sorted(set(found.values)) and (found.kind != "in" or len(found.values) > 1)


@given(operations, st.lists(st.floats(), max_size=5))
def test_floats_against_any_real(operation: tuple[str, Any], stored: list[float]) -> None:
    op, value = operation
    found = predicate("f64", op, value)
    assert found == predicate("f32", op, value)
    for bound in (found.lo, found.hi, *found.values):
        assert bound is None or (type(bound) is float and not math.isnan(bound))
    assert found.kind != "range" or (found.lo is not None and found.hi is not None)
    for constant in cases(op, value):
        stored += near(constant, False)
    for item in [*stored, *DOUBLES]:
        assert found.matches(item) == expected(op, item, value), (found, item)


texts = st.one_of(st.text(max_size=4), st.binary(max_size=4), st.sampled_from(["", b"", "a", "a\0", b"a\xff", "é"]))


@given(
    st.one_of(
        st.tuples(st.sampled_from(sorted(COMPARE)), texts),
        st.tuples(st.just("between"), st.tuples(texts, texts)),
        st.tuples(st.just("in"), st.lists(texts, max_size=4)),
    ),
    st.lists(st.binary(max_size=4), max_size=5),
)
def test_text_compares_as_bytes(operation: tuple[str, Any], stored: list[bytes]) -> None:
    op, value = operation
    found = predicate("str", op, value)
    raw = [item.encode() if isinstance(item, str) else item for item in cases(op, value)]
    wanted = raw if op in ("in", "between") else raw[0]
    for item in [*stored, *raw, *(item + b"\0" for item in raw), b""]:
        assert found.matches(item) == expected(op, item, wanted), (found, item)


moments = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31), timezones=st.just(UTC))


@given(st.sampled_from(sorted(COMPARE)), moments, st.lists(moments, max_size=5))
def test_dates_and_datetimes(op: str, value: dt.datetime, stored: list[dt.datetime]) -> None:
    for dtype, take in (("datetime", lambda moment: moment), ("date", lambda moment: moment.date())):
        found = predicate(dtype, op, take(value))
        for item in [*stored, value, value + dt.timedelta(days=1), value - dt.timedelta(microseconds=1)]:
            assert found.matches(physical(parse(dtype), take(item))) == expected(op, take(item), take(value))


def test_values_are_searched_not_scanned() -> None:
    pick = random.Random(5)
    wanted = sorted(pick.sample(range(10**6), 2000))
    found = predicate("i32", "in", wanted)
    assert found.values == tuple(wanted)
    assert all(found.matches(item) == (item in set(wanted)) for item in [*wanted[:20], *range(20)])


def test_predicates_are_values() -> None:
    def same(op: str, value: Any) -> Optional[int]:
        return hash(predicate("i8", op, value))

    assert same("eq", 5) == same("eq", 5.0) == same("in", [5])


# -- conditions that were met before ---------------------------------------
class Name(str):
    """No plain text."""


def _plan(schema: Schema, conditions: Any) -> Any:
    try:
        where = scan.make_where(schema, conditions)
    except (ConditionError, UnknownColumnError) as error:
        return type(error), str(error)
    assert where is None or isinstance(where, scan.Where)
    return (
        None
        if where is None
        else (list(where.plan), [[type(item) for item in predicate] for _, predicate in where.plan])
    )


def test_conditions_met_again_mean_what_they_meant() -> None:
    """A schema keeps bound conditions by their plain values: equal values of other types are others."""
    names = ("i64", "f64", "bool", "str", "bytes:4", "binary", "u8", "date")
    columns = [ColumnDef(f"c{at}", name, not_null=at % 2 == 0) for at, name in enumerate(names)]
    known = Schema(columns)
    values = (
        1, True, 1.0, 0, False, 0.0, -0.0, float("nan"), float("inf"), 2**70, "1", b"1", "x" * 5, "x" * 300, None, [1],
        (1, 2), 10**400, Decimal(1), Fraction(1, 2),
    )  # fmt: skip
    asked = [
        (f"c{at}", op, value)
        for value in values
        for at in range(len(names))
        for op in ("==", "eq", ">", "gt", "in", "is_null")
    ]
    asked += [
        ("c9", "eq", 1),
        ("c0", "no", 1),
        ("c0", "eq"),
        ["c0", "eq", 1],
        5,
        (Name("c0"), "eq", 1),
        ("c0", Name("eq"), 1),
    ]
    for _ in range(2):
        for condition in asked:
            for conditions in ([condition], [("c0", "gt", 3), condition], (condition,)):
                assert _plan(known, conditions) == _plan(Schema(columns), conditions), conditions
    for i in range(3 * scan.KNOWN):
        assert _plan(known, [("c0", "gt", i)]) == _plan(Schema(columns), [("c0", "gt", i)])
    assert len(known._bound) <= scan.KNOWN
    for combine in ("or", "and"):
        where = scan.make_where(known, [("c0", "gt", 5), ("c1", "lt", 0.5)], combine)
        assert isinstance(where, scan.Where) and where.combine == combine
    for combine in ("xor", None, ["and"]):
        for conditions in ([("c0", "gt", 5)], None, [], len):
            with pytest.raises(ConditionError):
                scan.make_where(known, conditions, combine)
