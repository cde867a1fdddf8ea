"""What each type accepts, how it is stored, and what is said of a value that does not fit."""

from __future__ import annotations

import array
import copy
import datetime as dt
import enum
import math
import pickle
import struct
from collections import OrderedDict, UserDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb import dtypes, errors
from snapdb._ext import _common as c
from snapdb.dtypes import DType, make_coerce, make_refuse, parse, physical
from snapdb.errors import (
    MissingColumnError,
    NotNullError,
    SchemaError,
    UnknownColumnError,
    ValidationError,
    ValueTypeError,
)
from snapdb.schema import ColumnDef

UTC = dt.timezone.utc
INTEGERS = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]
ALL = [*INTEGERS, "f32", "f64", "bool", "bytes:7", "str", "binary", "binary:7", "date", "datetime"]


def zone(hours: float) -> dt.timezone:
    return dt.timezone(dt.timedelta(hours=hours))


class Index:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class AsFloat:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Level(enum.IntEnum):
    LOW = 3


class Evil:
    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")


# -- names -----------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_parse_gives_the_type_of_a_name(name: str) -> None:
    dtype = parse(name)
    assert dtype.name == str(dtype) == name
    assert parse(dtype) is dtype
    assert dtype == parse(name) and hash(dtype) == hash(parse(name))
    assert struct.calcsize("<" + dtype.fmt) == dtype.width
    assert sum((dtype.is_integer, dtype.is_float, dtype.is_bool, dtype.is_temporal, dtype.is_varlen)) == 1
    assert dtype.accepts


def test_the_table_has_the_widths_and_formats_of_the_file_format() -> None:
    assert [(n, parse(n).width, parse(n).fmt) for n in ALL] == [
        ("i8", 1, "b"), ("i16", 2, "h"), ("i32", 4, "i"), ("i64", 8, "q"), ("u8", 1, "B"), ("u16", 2, "H"),
        ("u32", 4, "I"), ("u64", 8, "Q"), ("f32", 4, "f"), ("f64", 8, "d"), ("bool", 1, "?"), ("bytes:7", 7, "7s"),
        ("str", 8, "8s"), ("binary", 8, "8s"), ("binary:7", 8, "8s"), ("date", 4, "i"), ("datetime", 8, "q"),
    ]  # fmt: skip
    assert [n for n in ALL if parse(n).is_variable] == ["str", "binary", "binary:7"]
    assert [n for n in ALL if parse(n).is_text] == ["bytes:7", "str"]
    assert [n for n in ALL if parse(n).is_numeric] == [*INTEGERS, "f32", "f64", "bool"]
    assert parse("u16").lo == 0 and parse("u16").hi == 65535 and parse("f64").lo is None


def test_leading_zeros_of_a_length_are_normalised() -> None:
    assert parse("bytes:08") == DType("bytes:8", c.BYTES, 8)


@pytest.mark.parametrize(
    "name",
    ["", "i7", "I32", " i32", "i32\n", "bytes", "bytes:", "bytes:0", "bytes:-1", "bytes:x", "bytes:1.5",
     "bytes:2147483648",
     "bytes:" + "9" * 20, "bytes:" + "9" * 30, "bytes:٣", "str:8", "binary:0", "int", None, 5, b"i32", ["i32"]],
)  # fmt: skip
def test_parse_refuses_other_names(name: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        parse(name)
    assert isinstance(caught.value, ValueError) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "hint"), [("int", "'i64'"), ("VARCHAR", "'bytes:N'"), ("bytes", "'bytes:32'"), ("float32", "'f32'")]
)
def test_parse_says_what_was_probably_meant(name: str, hint: str) -> None:
    with pytest.raises(SchemaError, match=hint):
        parse(name)


# -- accepted --------------------------------------------------------------
ACCEPTED = [
    *[(name, value, value) for name in INTEGERS for value in c.LIMITS[parse(name).code]],
    ("i8", True, 1), ("i8", Level.LOW, 3), ("i8", Index(5), 5), ("u64", Index(2**64 - 1), 2**64 - 1),
    ("f64", 1, 1.0), ("f64", True, 1.0), ("f64", 1.5, 1.5), ("f64", Decimal("0.1"), 0.1),
    ("f64", Fraction(1, 3), 1 / 3),
    ("f64", AsFloat(2.5), 2.5), ("f64", Index(4), 4.0), ("f64", math.inf, math.inf),
    ("f64", Decimal("-Infinity"), -math.inf),
    ("f64", 2**53 + 1, float(2**53)), ("f32", 0.1, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
    ("f32", -math.inf, -math.inf),
    ("f32", 3.4028235677973362e38, 3.4028234663852886e38), ("f32", 1e-60, 0.0),
    ("bool", True, 1), ("bool", False, 0), ("bool", 0, 0), ("bool", 1, 1), ("bool", Index(1), 1),
    ("bytes:4", "éé", "éé".encode()), ("bytes:4", b"\xff\x00", b"\xff\x00"), ("bytes:4", "", b""),
    ("bytes:2", "a\0", b"a\0"),
    ("bytes:4", bytearray(b"ab"), b"ab"), ("bytes:4", memoryview(b"abcd")[::2], b"ac"),
    ("str", "x" * 1000, b"x" * 1000), ("str", "\U0001f600".encode(), "\U0001f600".encode()), ("str", "a\0b", b"a\0b"),
    ("binary", b"\xff", b"\xff"), ("binary:2", bytearray(b"ab"), b"ab"), ("binary", memoryview(b"abc"), b"abc"),
    ("binary", b"", b""),
    ("date", dt.date(1970, 1, 1), 0), ("date", dt.date(1969, 12, 31), -1), ("date", dt.date.max, 2932896),
    ("date", dt.date.min, -719162),
    ("datetime", dt.datetime(1970, 1, 1, tzinfo=UTC), 0),
    ("datetime", dt.datetime(1970, 1, 1, 2, 0, 0, 5, tzinfo=zone(2)), 5),
    ("datetime", dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), -1),
    ("datetime", dt.datetime.max.replace(tzinfo=UTC), 253402300799999999),
    ("datetime", dt.datetime.min.replace(tzinfo=UTC), -62135596800000000),
    ("datetime", dt.datetime.min.replace(tzinfo=zone(-14)), -62135596800000000 + 14 * 3600 * 10**6),
]  # fmt: skip


def _told(value: Any) -> str:
    return errors.shorten(value)[:30].partition(" at 0x")[0]  # an address would give a test another name each run


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED, ids=_told)
def test_accepted(name: str, value: Any, expected: Any) -> None:
    found = physical(parse(name), value)
    assert found == expected
    assert type(found) is type(expected)


def test_nan_is_a_value_of_float_columns() -> None:
    for value in (math.nan, Decimal("nan"), AsFloat(math.nan)):
        assert math.isnan(physical(parse("f64"), value)) and math.isnan(physical(parse("f32"), value))


def test_negative_zero_is_kept() -> None:
    assert math.copysign(1, physical(parse("f32"), -0.0)) == -1.0


def test_a_str_subclass_cannot_lie_about_its_bytes() -> None:
    class Liar(str):
        def encode(self, *args: Any) -> bytes:
            return b"lie"

    class LiarBytes(bytes):
        def __bytes__(self) -> bytes:
            return b"lie"

    assert physical(parse("str"), Liar("truth")) == b"truth"
    found = physical(parse("binary"), LiarBytes(b"truth"))
    assert found == b"truth" and type(found) is bytes


def test_what_was_stored_does_not_change_with_the_buffer_it_came_from() -> None:
    source = bytearray(b"abc")
    stored = physical(parse("binary"), source)
    source[0] = 0
    assert stored == b"abc"


# -- refused ---------------------------------------------------------------
WRONG_TYPE = [
    *[(name, value) for name in INTEGERS for value in (1.0, "1", b"1", Decimal(1), Fraction(1), [1], 1j)],
    ("f64", "1.5"), ("f64", b"1.5"), ("f64", bytearray(b"1")), ("f64", memoryview(b"1")), ("f64", 1j), ("f64", []),
    ("f32", dt.date.min),
    ("f64", AsFloat("1")), ("i64", Index("1")), ("i64", Index(TypeError("no"))),
    ("bool", 1.0), ("bool", "True"), ("bool", b""), ("bool", [1]),
    ("bytes:4", 1), ("bytes:4", ["a"]), ("str", 1.5), ("str", array.array("b", [1])), ("str", object()),
    ("binary", "text"), ("binary", 5), ("binary", [1, 2]), ("binary", array.array("i", [1])),
    ("date", dt.datetime(2020, 1, 1)), ("date", "2020-01-01"), ("date", 5), ("datetime", dt.date(2020, 1, 1)),
    ("datetime", "2020-01-01T00:00:00Z"), ("datetime", 0), ("datetime", 0.0), ("datetime", dt.timedelta(1)),
]  # fmt: skip
DOES_NOT_FIT = [
    *[(name, edge + step) for name in INTEGERS for edge, step in zip(c.LIMITS[parse(name).code], (-1, 1))],
    ("u8", True - 2), ("i64", 10**5000), ("i64", Index(2**63)), ("i64", Index(ZeroDivisionError("no"))),
    ("f64", 10**400), ("f64", -(10**400)), ("f64", Fraction(10**400)), ("f64", Decimal("1e400")),
    ("f64", Decimal("sNaN")),
    ("f64", AsFloat(ZeroDivisionError("no"))), ("f32", 3.5e38), ("f32", -1e39), ("f32", 10**39),
    ("f32", Decimal("1e999")),
    ("bool", 2), ("bool", -1), ("bool", 10**30),
    ("bytes:3", "éé"), ("bytes:3", b"abcd"), ("bytes:3", "abc\0"), ("bytes:3", "\ud800"), ("str", "a\udc80"),
    ("str", b"\xff"),
    ("str", bytearray(b"\xed\xa0\x80")), ("binary:3", b"abcd"),
    ("datetime", dt.datetime(2020, 1, 1)), ("datetime", dt.datetime.min.replace(tzinfo=zone(14))),
    ("datetime", dt.datetime.max.replace(tzinfo=zone(-0.5))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_TYPE, ids=lambda v: errors.shorten(v)[:30].partition(" at 0x")[0])
def test_wrong_types_are_both_a_value_error_and_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(ValueTypeError) as caught:
        physical(parse(name), value, "col", 17)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)
    check_message(caught.value, name, value)


@pytest.mark.parametrize(("name", "value"), DOES_NOT_FIT, ids=lambda v: errors.shorten(v)[:30].partition(" at 0x")[0])
def test_values_that_do_not_fit_are_a_value_error_only(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        physical(parse(name), value, "col", 17)
    assert isinstance(caught.value, ValueError) and not isinstance(caught.value, TypeError)
    check_message(caught.value, name, value)


def check_message(error: errors.SnapDBError, name: str, value: Any) -> None:
    text = str(error)
    assert "'col'" in text and "(row 17 of the batch)" in text and errors.shorten(value) in text
    assert (error.column, error.row_index) == ("col", 17)
    assert "\n" not in text and len(text) < 400
    if error.hint:
        assert text.endswith(error.hint)


@pytest.mark.parametrize("name", ALL)
def test_every_type_refuses_odd_objects_without_failing_over_their_repr(name: str) -> None:
    for value in (Evil(), object(), {}, None, ..., int):
        with pytest.raises(ValueTypeError):
            physical(parse(name), value)


def test_hints_say_what_to_do() -> None:
    for name, value, hint in (
        ("i64", 1.5, "int(value)"), ("f64", "1", "float(value)"), ("binary", "x", ".encode()"),
        ("bool", 1.5, "bool(value)"),
        ("date", dt.datetime.now(), ".date()"), ("datetime", dt.datetime.now(), "tzinfo=datetime.timezone.utc"),
        ("date", "2020-01-01", "use datetime.date.fromisoformat(value)"), ("i8", "1", "int(value)"),
        ("datetime", "2020-01-01", "use datetime.datetime.fromisoformat(value) with a time zone"),
        ("datetime", dt.date(2020, 1, 1), "value.month, value.day, tzinfo=datetime.timezone.utc)"),
        ("bool", "yes", "as in value == 'yes'"), ("bool", b"1", "as in value == 'yes'"),
        ("bytes:2", "abcd", "bytes:4"), ("u8", 256, "u64"), ("i8", 256, "i64"), ("str", b"\xff", "binary"),
    ):  # fmt: skip
        with pytest.raises(ValidationError) as caught:
            physical(parse(name), value)
        assert caught.value.hint is not None and hint in caught.value.hint


def test_a_broken_time_zone_is_a_validation_error() -> None:
    class Broken(dt.tzinfo):
        def utcoffset(self, when: Any) -> Any:
            raise LookupError("gone")

    with pytest.raises(ValidationError, match="time zone") as caught:
        physical(parse("datetime"), dt.datetime(2020, 1, 1, tzinfo=Broken()))
    assert isinstance(caught.value.__cause__, LookupError)


def test_numpy_scalars() -> None:
    np = pytest.importorskip("numpy")
    assert type(physical(parse("i64"), np.int16(-3))) is int
    assert physical(parse("u64"), np.uint64(2**64 - 1)) == 2**64 - 1
    assert physical(parse("i8"), np.bool_(True)) == 1 and physical(parse("bool"), np.bool_(True)) == 1
    assert physical(parse("bool"), np.int8(0)) == 0 and physical(parse("f64"), np.bool_(True)) == 1.0
    found = physical(parse("f64"), np.float64(0.1))
    assert found == 0.1 and type(found) is float
    assert physical(parse("f64"), np.float32(0.1)) == float(np.float32(0.1))
    assert physical(parse("str"), np.str_("é")) == "é".encode()
    assert type(physical(parse("binary"), np.bytes_(b"a"))) is bytes
    for name, value in (("i64", np.float64(1)), ("i8", np.float32(1)), ("f64", np.str_("1")), ("bool", np.float64(1)),
                        ("str", np.array([1])), ("datetime", np.datetime64("2020-01-01")),
                        ("i64", np.array([1, 2]))):  # fmt: skip
        with pytest.raises(ValueTypeError):
            physical(parse(name), value)


def test_pandas_scalars() -> None:
    pd = pytest.importorskip("pandas")
    moment = pd.Timestamp("2020-01-01 12:00:00.000001", tz="Europe/Berlin")
    assert physical(parse("datetime"), moment) == physical(parse("datetime"), moment.to_pydatetime())
    with pytest.raises(ValidationError, match="finer than a microsecond"):
        physical(parse("datetime"), pd.Timestamp(1, unit="ns", tz="UTC"))
    with pytest.raises(ValidationError, match="naive"):
        physical(parse("datetime"), pd.Timestamp("2020-01-01"))
    for name, value in (("datetime", pd.NaT), ("date", pd.NaT), ("i64", pd.NA), ("str", pd.NA), ("f64", pd.NA)):
        with pytest.raises(ValueTypeError, match="use None"):
            physical(parse(name), value)


# -- round trips -----------------------------------------------------------
ROUND_TRIPS = {
    "i64": st.integers(-(2**63), 2**63 - 1), "u8": st.integers(0, 255), "f64": st.floats(allow_nan=False),
    "f32": st.floats(width=32, allow_nan=False), "bool": st.booleans(), "str": st.text(),
    "bytes:80": st.text(max_size=20),
    "binary": st.binary(), "date": st.dates(), "datetime": st.datetimes(timezones=st.just(UTC)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_what_goes_in_comes_out(name: str) -> None:
    dtype = parse(name)

    @given(ROUND_TRIPS[name])
    def check(value: Any) -> None:
        found = c.logical(dtype.code, physical(dtype, value))
        assert found == value and type(found) is type(value)

    check()


@given(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31)), st.integers(-86_399_999_999, 86_399_999_999))
def test_datetimes_of_any_offset_are_the_same_moment(moment: dt.datetime, offset: int) -> None:
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(microseconds=offset)))
    found = c.logical(c.DATETIME, physical(parse("datetime"), aware))
    assert found == aware and found.tzinfo is UTC


@given(st.one_of(st.integers(), st.fractions(), st.decimals(allow_nan=False, allow_infinity=False)))
def test_floats_are_the_nearest_double_or_an_error(value: Any) -> None:
    try:
        expected = float(Fraction(value))
    except OverflowError:
        with pytest.raises(ValidationError):
            physical(parse("f64"), value)
    else:
        assert physical(parse("f64"), value) == expected


# -- what the row codec calls ----------------------------------------------
COLUMNS = [
    ColumnDef("id", "i32", primary_key=True), ColumnDef("name", "bytes:8"), ColumnDef("score", "f64", not_null=False)
]  # fmt: skip


def test_coerce_converts_and_names_column_and_position() -> None:
    coerce = make_coerce(COLUMNS)
    assert (coerce(0, True, -1), coerce(1, "é", 0), coerce(2, 1, 5), coerce(2, None, 5)) == (1, "é".encode(), 1.0, None)
    text = r"^NOT NULL constraint failed: name is None \(row 3 of the batch\); "
    with pytest.raises(NotNullError, match=text) as caught:
        coerce(1, None, 3)
    assert isinstance(caught.value, (ValueError,)) and isinstance(caught.value, errors.IntegrityError)
    assert (caught.value.column, caught.value.row_index) == ("name", 3)
    with pytest.raises(ValidationError, match="^column 'id': cannot store 2147483648: out of range for i32") as single:
        coerce(0, 2**31, -1)
    assert single.value.row_index is None and "batch" not in str(single.value)


def test_make_coerce_takes_columns_whose_dtype_is_parsed_already() -> None:
    class Plain:
        name, dtype, not_null = "x", parse("u8"), False

    assert make_coerce([Plain()])(0, 5, -1) == 5


def test_refuse_lets_good_rows_pass() -> None:
    refuse = make_refuse(COLUMNS)
    row = {"id": 1, "name": "a"}
    for kind in (dict, OrderedDict, UserDict, MappingProxyType):
        refuse(kind(row), 0, False)
    refuse({}, 0, True)
    refuse({"id": 1, "name": "a", "score": None}, 0, False)


@pytest.mark.parametrize("row", [None, 5, "id", [("id", 1)], (1, "a"), {"id", "name"}, Evil()])
def test_refuse_what_is_no_mapping(row: Any) -> None:
    with pytest.raises(ValueTypeError, match=r"a row must be a mapping .* \(row 2 of the batch\)"):
        make_refuse(COLUMNS)(row, 2, False)


def test_refuse_a_missing_column() -> None:
    with pytest.raises(MissingColumnError, match="^Missing required column: name") as caught:
        make_refuse(COLUMNS)({"id": 1}, 4, False)
    assert isinstance(caught.value, KeyError) and (caught.value.column, caught.value.row_index) == ("name", 4)


def test_a_missing_column_with_a_misspelt_one_says_both() -> None:
    for key in ("nmae", "NAME", " Name ", "\ufeffname"):
        with pytest.raises(MissingColumnError) as caught:
            make_refuse(COLUMNS)({"id": 1, "zzz": 0, key: "a"}, -1, False)
        assert str(caught.value) == f"Missing required column: name; did you mean 'name' instead of {key!r}?"
    text = r"^Missing required column: name; the row has 'zzz', 5, which is no column; give a value, or declare"
    with pytest.raises(MissingColumnError, match=text):
        make_refuse(COLUMNS)({"id": 1, "zzz": "a", 5: 1}, -1, False)


@pytest.mark.parametrize("key", ["scoer", "x", 5, None, b"id", ("id",)])
@pytest.mark.parametrize("partial", [False, True])
def test_refuse_an_unknown_key(key: Any, partial: bool) -> None:
    with pytest.raises(UnknownColumnError) as caught:
        make_refuse(COLUMNS)({"id": 1, "name": "a", key: 1}, 9, partial)
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"unknown column {key!r} (row 9 of the batch); ")
    assert "the columns are 'id', 'name', 'score'" in str(caught.value)
    assert ("did you mean 'score'?" in str(caught.value)) == (key == "scoer")


def test_an_unknown_column_in_another_case_is_recognised() -> None:
    with pytest.raises(UnknownColumnError, match="unknown column 'ID'.*did you mean 'id'"):
        make_refuse(COLUMNS)({"ID": 1}, -1, True)


TABLE = [(name, value) for name, value, _ in ACCEPTED] + WRONG_TYPE + DOES_NOT_FIT


@pytest.mark.parametrize(("name", "value"), TABLE, ids=lambda v: errors.shorten(v)[:30].partition(" at 0x")[0])
def test_the_row_codec_of_every_backend_follows_this_table(kernels: Any, name: str, value: Any) -> None:
    column = ColumnDef("x", name)
    specs = [("x", column.type.code, column.type.limit, False)]
    codec = kernels.values.RowCodec(specs, make_coerce([column]), make_refuse([column]))
    expected = outcome(lambda: physical(column.type, value, "x", 0))
    assert outcome(lambda: codec.encode_value(0, value, 0)) == expected
    assert outcome(lambda: codec.encode_rows([{"x": value}])[0].physical(0)) == expected


def outcome(call: Callable[[], Any]) -> tuple[type, Any]:
    try:
        found = call()
    except ValidationError as error:
        return type(error), str(error)
    return type(found), found


# -- errors ----------------------------------------------------------------
CLASSES = [cls for cls in map(errors.__dict__.get, errors.__all__) if isinstance(cls, type)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_prints_plainly_and_survives_pickle_and_copy(cls: Any) -> None:
    assert issubclass(cls, errors.SnapDBError) and cls.__doc__
    assert str(cls()) == ""
    error = cls("what 'happened'", hint="do this")
    error.column = "x"
    assert str(error) == "what 'happened'; do this"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls and str(twin) == str(error) and vars(twin) == vars(error)


def test_every_error_is_the_builtin_a_caller_would_catch() -> None:
    expected = {
        "SchemaError": ValueError, "SchemaMismatchError": ValueError, "ValidationError": ValueError,
        "ValueTypeError": TypeError,
        "NotNullError": ValueError, "UniqueError": ValueError, "MissingColumnError": KeyError,
        "UnknownColumnError": KeyError,
        "NotFoundError": KeyError, "ConditionError": ValueError, "ClosedError": RuntimeError,
        "TransactionError": RuntimeError,
        "ReadOnlyError": PermissionError, "LockedError": (TimeoutError,), "SnapshotInUseError": RuntimeError,
        "HistoryLostError": LookupError, "DurabilityError": OSError, "WrongKeyError": ValueError,
        "NotSupportedError": NotImplementedError,
    }  # fmt: skip
    for name, builtin in expected.items():
        assert issubclass(getattr(errors, name), builtin)
    assert issubclass(errors.LockedError, RuntimeError) and issubclass(errors.UnknownColumnError, ValueError)
    assert issubclass(errors.UniqueError, errors.IntegrityError) and errors.RowKeyError is errors.NotFoundError
    assert not issubclass(errors.CorruptionError, ValueError)  # `except ValueError` around a write must not hide damage
    assert errors.LockedError("locked", pid=7).pid == 7 and errors.LockedError("locked").errno is None


def test_shorten_is_short_and_never_fails() -> None:
    nested: list[Any] = []
    nested.append(nested)

    class BadText:
        def __repr__(self) -> str:
            return "\udc80\nx" * 100

    class BadKind:
        def __repr__(self) -> Any:
            return 5

    values = [
        5,
        "a",
        "a" * 10**6,
        b"a" * 10**6,
        10**10000,
        -(10**10000),
        [1] * 10**5,
        {"k": "v" * 999},
        nested,
        Evil(),
        BadText(),
        BadKind(),
    ]
    for value in values:
        text = errors.shorten(value)
        text.encode()
        assert len(text) <= 60 and "\n" not in text
    assert errors.shorten(5) == "5" and errors.shorten("it's") == '"it\'s"' and errors.shorten(b"a") == "b'a'"


def test_dtypes_all_is_there() -> None:
    assert all(hasattr(dtypes, name) for name in dtypes.__all__)
