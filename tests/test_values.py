"""Column buffers and the row codec: every backend, and the twins against each other."""

from __future__ import annotations

import datetime as dt
import math
import operator
import struct
from array import array
from collections import OrderedDict, UserDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import _ext
from snapdb._ext import _common as c
from snapdb._ext import _values_py

UTC = dt.timezone.utc
CODES = (
    c.I8,
    c.I16,
    c.I32,
    c.I64,
    c.U8,
    c.U16,
    c.U32,
    c.U64,
    c.F32,
    c.F64,
    c.BOOL,
    c.BYTES,
    c.STR,
    c.BINARY,
    c.DATE,
    c.DATETIME,
)
LIMIT = 8


class Bad(Exception):
    """What the rules of this test raise: (kind, column, position)."""


def rules(columns: list[Any]) -> tuple[Any, Any]:
    """A simple coerce and refuse: exact, and telling what was asked of them."""

    def coerce(column: int, value: Any, position: int) -> Any:
        _name, code, limit, nullable = columns[column]
        if value is None:
            if nullable:
                return None
            raise Bad("null", column, position)
        try:
            return strict(code, limit, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise Bad("value", column, position) from error

    def refuse(row: Any, position: int, partial: bool) -> None:
        raise Bad("row", bool(partial), position)

    return coerce, refuse


def strict(code: int, limit: int, value: Any) -> Any:
    if code in (c.DATE, c.DATETIME):
        if code == c.DATE:
            if type(value) is not dt.date:
                raise TypeError(value)
            return value.toordinal() - dt.date(1970, 1, 1).toordinal()
        return (value - dt.datetime(1970, 1, 1, tzinfo=UTC)) // dt.timedelta(microseconds=1)
    if code in c.FLOATS:
        if isinstance(value, (str, bytes)):
            raise TypeError(value)
        number = float(value)
        return struct.unpack("<f", struct.pack("<f", number))[0] if code == c.F32 else number
    if code in c.VARLEN:
        stored = value.encode() if isinstance(value, str) and code != c.BINARY else value
        if not isinstance(stored, bytes) or (limit and len(stored) > limit):
            raise ValueError(value)
        if code == c.STR:
            stored.decode()
        return bytes(stored)
    number = int(operator.index(value))
    low, high = c.LIMITS[code]
    if not low <= number <= high:
        raise ValueError(value)
    return number


def codec(values: Any, columns: list[Any]) -> Any:
    coerce, refuse = rules(columns)
    return values.RowCodec(columns, coerce, refuse)


def shape(buffer: Any) -> tuple[Any, ...]:
    """All that a buffer shows."""
    nulls, offsets = buffer.nulls, buffer.offsets
    return (
        buffer.code,
        buffer.rows,
        buffer.null_count,
        buffer.data.format,
        buffer.data.tobytes(),
        buffer.data.readonly,
        None if offsets is None else (offsets.format, offsets.tolist()),
        None if nulls is None else nulls.tobytes(),
    )


def outcome(run: Any) -> Any:
    try:
        return run()
    except Exception as error:  # the kind and what it says of column and position
        return type(error), error.args if isinstance(error, Bad) else None


def sample(code: int) -> list[Any]:
    """Physical values of a dtype, its ends among them."""
    if code in c.FLOATS:
        return [0.0, -0.0, 1.5, -2.25, math.inf, -math.inf]
    if code in c.VARLEN:
        return [b"", b"a", b"abc", "grüß".encode(), b"x" * 8]
    if code == c.BOOL:
        return [0, 1]
    if code == c.DATE:
        return [0, -719162, 2932896, 19000]
    if code == c.DATETIME:
        return [0, -62135596800000000, 253402300799999999, -1, 1700000000123456]
    return [0, 1, *c.LIMITS[code]]


# -- buffers ---------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_buffer_keeps_what_is_appended(kernels: Any, code: int) -> None:
    buffer = kernels.values.ColumnBuffer(code)
    assert (buffer.rows, buffer.null_count, buffer.nulls, buffer.tolist()) == (0, 0, None, [])
    wanted: list[Any] = []
    for turn in range(40):
        for value in (*sample(code), None):
            buffer.append(value)
            wanted.append(value)
        assert buffer.rows == len(wanted) and buffer.null_count == turn + 1
    assert [buffer.physical(row) for row in range(buffer.rows)] == wanted
    logical = [c.logical(code, value) for value in wanted]
    assert buffer.tolist() == logical
    assert [buffer.fetch(row) for row in range(buffer.rows)] == logical
    assert buffer.nulls.nbytes == c.mask_bytes(buffer.rows)
    assert [buffer.nulls[row >> 3] >> (row & 7) & 1 for row in range(buffer.rows)] == [
        value is None for value in wanted
    ]
    assert buffer.nbytes >= buffer.data.nbytes
    if code in c.VARLEN:
        assert len(buffer.offsets) == buffer.rows + 1 and buffer.offsets.format == "Q"
        ends = buffer.offsets.tolist()
        assert [bytes(buffer.data[low:high]) for low, high in zip(ends, ends[1:])] == [value or b"" for value in wanted]
    else:
        assert buffer.data.format == c.TYPECODES[code] and buffer.offsets is None
        assert buffer.data.tolist() == [value or 0 for value in wanted]


@pytest.mark.parametrize("code", CODES)
def test_views_stay_as_they_were(kernels: Any, code: int) -> None:
    buffer = kernels.values.ColumnBuffer(code)
    held = []
    for turn in range(70):
        value = None if turn % 5 == 3 else sample(code)[turn % len(sample(code))]
        buffer.append(value)
        view = (buffer.data, buffer.offsets, buffer.nulls)
        held.append((view, tuple(part if part is None else part.tobytes() for part in view)))
        with pytest.raises(TypeError):
            buffer.data[0] = 1
    for view, wanted in held:
        assert tuple(part if part is None else part.tobytes() for part in view) == wanted


def test_rows_outside_raise(kernels: Any) -> None:
    buffer = kernels.values.ColumnBuffer(c.I32)
    buffer.append(5)
    for row in (-1, 1, 10**6):
        for call in (buffer.fetch, buffer.physical, lambda row: buffer.put(row, 1), lambda row: buffer.patch({row: 1})):
            with pytest.raises(IndexError):
                call(row)
    for code in (0, 17, -1):
        with pytest.raises(ValueError):
            kernels.values.ColumnBuffer(code)


@pytest.mark.parametrize("code", CODES)
def test_extend(kernels: Any, code: int) -> None:
    make = kernels.values.ColumnBuffer
    values = [*sample(code), None] * 50
    source = make(code)
    for value in values:
        source.append(value)
    target, wanted = make(code), []
    for start, stop in ((0, 0), (3, 70), (0, 1), (65, 130), (0, None)):
        target.extend(source, start, stop)
        wanted += values[start:stop]
    target.extend(target, 0, 10)
    wanted += wanted[:10]
    target.append(None)
    wanted.append(None)
    assert [target.physical(row) for row in range(target.rows)] == wanted
    assert target.null_count == wanted.count(None)
    for start, stop in ((-1, 2), (5, 4), (0, source.rows + 1)):
        with pytest.raises(ValueError):
            target.extend(source, start, stop)
    with pytest.raises(ValueError):
        target.extend(make(c.I8 if code != c.I8 else c.I16))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("many", [False, True])
def test_put_and_patch(kernels: Any, code: int, many: bool) -> None:
    values = [*sample(code), None] * 10
    buffer = kernels.values.ColumnBuffer(code)
    for value in values:
        buffer.append(value)
    changes = {row: ([*sample(code), None] * 2)[row * 7 % (len(sample(code)) + 1)] for row in range(0, len(values), 3)}
    if many:
        buffer.patch(changes)
    else:
        for row, value in changes.items():
            buffer.put(row, value)
    for row, value in changes.items():
        values[row] = value
    again = kernels.values.ColumnBuffer(code)
    for value in values:
        again.append(value)
    assert shape(buffer) == shape(again)
    buffer.append(None)
    assert buffer.physical(len(values)) is None


@pytest.mark.parametrize("code", CODES)
def test_from_parts(kernels: Any, code: int) -> None:
    make = kernels.values.ColumnBuffer
    source = make(code)
    for value in [*sample(code), None] * 20:
        source.append(value)
    copy = make.from_parts(code, source.rows, source.data, source.offsets, source.nulls)
    assert shape(copy) == shape(source)
    copy.append(None)
    assert copy.rows == source.rows + 1
    empty = make.from_parts(code, 0, b"", array("Q", [0]) if code in c.VARLEN else None)
    assert shape(empty) == shape(make(code))
    for wrong in (
        lambda: make.from_parts(code, source.rows + 1, source.data, source.offsets),
        lambda: make.from_parts(code, -1, source.data, source.offsets),
        lambda: make.from_parts(code, source.rows, source.data, source.offsets, b"\0"),
        lambda: make.from_parts(code, source.rows, source.data, None if source.offsets else b""),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_from_parts_makes_null_slots_empty(kernels: Any) -> None:
    make = kernels.values.ColumnBuffer
    numbers = make.from_parts(c.I16, 3, array("h", [1, 2, 3]), None, bytes([0b1111_1010]) + bytes(7))
    assert numbers.tolist() == [1, None, 3] and numbers.data.tolist() == [1, 0, 3] and numbers.null_count == 1
    texts = make.from_parts(c.STR, 3, b"xxabcd", array("Q", [2, 3, 5, 6]), bytes([0b010]) + bytes(7))
    assert texts.tolist() == ["a", None, "d"]
    assert texts.offsets.tolist() == [0, 1, 1, 2] and texts.data.tobytes() == b"ad"
    assert make.from_parts(c.I8, 1, b"\1", None, bytes(8)).nulls is None


def test_from_parts_checks_offsets(kernels: Any) -> None:
    make = kernels.values.ColumnBuffer
    for ends in ([0, 2, 1, 3], [0, 1, 2, 4], [3, 3, 3, 2**63], [2**64 - 1, 0, 1, 2]):
        with pytest.raises(ValueError):
            make.from_parts(c.STR, 3, b"abc", array("Q", ends))
    with pytest.raises(ValueError):
        make.from_parts(c.BOOL, 2, b"\0\2")
    with pytest.raises(ValueError):
        make.from_parts(c.I8, 2, memoryview(b"abcd")[::2])


def test_a_physical_value_must_fit(kernels: Any) -> None:
    for code, value, kind in (
        (c.I8, 128, OverflowError),
        (c.U64, -1, OverflowError),
        (c.U64, 2**64, OverflowError),
        (c.I64, 2**63, OverflowError),
        (c.I32, 1.5, TypeError),
        (c.F64, "1", TypeError),
        (c.DATE, "x", TypeError),
    ):
        buffer = kernels.values.ColumnBuffer(code)
        with pytest.raises(kind):
            buffer.append(value)
        assert buffer.rows == 0 and len(buffer.data) == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(-719162, 2932896), st.integers(-62135596800000000, 253402300799999999))
def test_dates_read_back(days: int, micros: int) -> None:
    for name in _ext.available():
        values = _ext.backend(name).values
        for code, number in ((c.DATE, days), (c.DATETIME, micros)):
            buffer = values.ColumnBuffer(code)
            buffer.append(number)
            value = buffer.fetch(0)
            assert value == c.logical(code, number) and type(value) is type(c.logical(code, number))
            assert codec(values, [("a", code, 0, False)]).encode({"a": value}) == [number]


def test_every_month_end_reads_back(kernels: Any) -> None:
    days = codec(kernels.values, [("d", c.DATE, 0, False)])
    for year in (1, 4, 100, 400, 1600, 1900, 1968, 1970, 1999, 2000, 2024, 2100, 2400, 9999):
        for month in range(1, 13):
            for day in (1, 28, 29, 30, 31):
                try:
                    date = dt.date(year, month, day)
                except ValueError:
                    continue
                assert days.decode(days.encode({"d": date})) == {"d": date}


def test_dates_beyond_python_raise_when_read(kernels: Any) -> None:
    for code, number in ((c.DATE, 2932897), (c.DATE, -719163), (c.DATETIME, 2**63 - 1), (c.DATETIME, -(2**63))):
        buffer = kernels.values.ColumnBuffer(code)
        buffer.append(number)
        with pytest.raises((ValueError, OverflowError)):
            buffer.fetch(0)


# -- one row ---------------------------------------------------------------

COLUMNS = [
    ("id", c.I32, 0, False),
    ("ts", c.I64, 0, True),
    ("sensor", c.U8, 0, False),
    ("status", c.BYTES, LIMIT, True),
    ("temp", c.F64, 0, False),
    ("small", c.F32, 0, True),
    ("ok", c.BOOL, 0, True),
    ("day", c.DATE, 0, True),
    ("at", c.DATETIME, 0, True),
    ("name", c.STR, 0, True),
    ("raw", c.BINARY, LIMIT, True),
    ("big", c.U64, 0, True),
]
ROW = {
    "id": 1,
    "ts": -5,
    "sensor": 255,
    "status": "ok",
    "temp": 1.25,
    "small": 0.5,
    "ok": True,
    "day": dt.date(2024, 2, 29),
    "at": dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC),
    "name": "grüß",
    "raw": b"\0\xff",
    "big": 2**64 - 1,
}


def test_encode_and_decode(kernels: Any) -> None:
    rows = codec(kernels.values, COLUMNS)
    physical = rows.encode(ROW)
    assert physical == [
        1,
        -5,
        255,
        b"ok",
        1.25,
        0.5,
        1,
        19782,
        1709209801000005,
        "grüß".encode(),
        b"\0\xff",
        2**64 - 1,
    ]
    assert rows.decode(physical) == ROW and list(rows.decode(physical)) == list(ROW)
    assert rows.decode([None] * 12) == dict.fromkeys(ROW)
    assert rows.columns == tuple(COLUMNS)
    assert rows.encode(OrderedDict(reversed(list(ROW.items())))) == physical
    assert rows.encode(UserDict(ROW)) == physical
    assert rows.encode({"id": 1, "sensor": 2, "temp": 3.0})[3] is None
    with pytest.raises(ValueError):
        rows.decode(physical[1:])


def test_rows_that_are_refused(kernels: Any) -> None:
    rows = codec(kernels.values, COLUMNS)
    for row in (5, None, "id", [("id", 1)], {}, {"id": 1}, {**ROW, "x": 1}, {**ROW, 5: 1}):
        with pytest.raises(Bad) as caught:
            rows.encode(row)
        assert caught.value.args == ("row", False, -1)
        with pytest.raises(Bad) as caught:
            rows.encode_rows([ROW, row])
        assert caught.value.args == ("row", False, 1)
    with pytest.raises(Bad) as caught:
        rows.encode_partial({"x": 1})
    assert caught.value.args == ("row", True, -1)
    with pytest.raises(TypeError):
        rows.encode_rows(5)


def test_a_refuse_that_returns_still_raises(kernels: Any) -> None:
    rows = kernels.values.RowCodec(COLUMNS, lambda *_: 0, lambda *_: None)
    for call in (rows.encode, lambda row: rows.encode_rows([row])):
        with pytest.raises(KeyError):
            call({})


def test_encode_partial_and_value(kernels: Any) -> None:
    rows = codec(kernels.values, COLUMNS)
    assert rows.encode_partial({}) == []
    assert rows.encode_partial({"status": None, "id": 7}) == [(0, 7), (3, None)]
    assert rows.encode_value(4, 2) == 2.0 and type(rows.encode_value(4, 2)) is float
    assert rows.encode_value(5, 0.1) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    for column in (-1, 12):
        with pytest.raises(IndexError):
            rows.encode_value(column, 1)
        with pytest.raises(IndexError):
            rows.encode_column(column, [1])
    with pytest.raises(Bad) as caught:
        rows.encode_value(0, None, 9)
    assert caught.value.args == ("null", 0, 9)


def test_codec_arguments(kernels: Any) -> None:
    for columns, kind in (([(5, c.I8, 0, False)], TypeError), ([("a", 99, 0, False)], ValueError)):
        with pytest.raises(kind):
            kernels.values.RowCodec(columns, None, None)


def test_a_value_that_drops_the_row(kernels: Any) -> None:
    """Values whose own code changes the row or the batch do no harm."""

    class Evil:
        def __index__(self) -> int:
            row.clear()
            batch.clear()
            return 3

    columns = [("name", c.STR, 0, False), ("n", c.I32, 0, False), ("m", c.I32, 0, True)]
    rows = codec(kernels.values, columns)
    batch: list[Any] = []
    row: dict[str, Any] = {}
    for fields in ({"name": 1, "n": 2}, {"n": 2, "name": 1, "m": 3}):
        for call in (rows.encode, rows.encode_rows):
            row = {name: "".join(["some", "text"]) if name == "name" else Evil() for name in fields}
            batch = [row, row]
            outcome(lambda call=call, given_as=row if call == rows.encode else batch: call(given_as))
    assert outcome(lambda: rows.encode_column(1, [Evil(), 2])).tolist() == [3, 2]


# -- the twins agree -------------------------------------------------------

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([-129, 255, 2**31, 2**63, 2**64 - 1, 2**64, 0, 1]),
    st.floats(),
    st.sampled_from([3.4028235677973366e38, 3.4028235677973362e38, 1e300, 5e-324]),
    st.text(max_size=5),
    st.binary(max_size=10),
    st.sampled_from(["\ud800", "grüßgott", "x" * 9]),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(),
    st.datetimes(timezones=st.just(dt.timezone(dt.timedelta(hours=5)))),
)


def plain(code: int) -> st.SearchStrategy[Any]:
    """Values of the plain type of a dtype, most of which fit."""
    if code in c.FLOATS:
        return st.floats(width=32)
    if code == c.BOOL:
        return st.booleans()
    if code == c.DATE:
        return st.dates()
    if code == c.DATETIME:
        return st.datetimes(timezones=st.just(UTC))
    if code in c.TEXTS:
        return st.one_of(st.text(max_size=3), st.binary(max_size=8) if code == c.BYTES else st.nothing())
    if code == c.BINARY:
        return st.binary(max_size=8)
    return st.integers(*c.LIMITS[code])


def same_floats(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CODES), ODD, st.booleans())
def test_odd_values_have_one_outcome(code: int, value: Any, nullable: bool) -> None:
    columns = [("a", code, LIMIT if code in (c.BYTES, c.BINARY) else 0, nullable)]
    wanted = outcome(lambda: codec(_values_py, columns).encode({"a": value}))
    coerce = rules(columns)[0]
    assert same_floats(wanted, outcome(lambda: [coerce(0, value, -1)]))  # the shortcuts are no second definition
    for name in _ext.available():
        rows = codec(_ext.backend(name).values, columns)
        assert same_floats(outcome(lambda rows=rows: rows.encode({"a": value})), wanted)
        assert same_floats(outcome(lambda rows=rows: [rows.encode_value(0, value)]), wanted)
        batch = outcome(lambda rows=rows: [rows.encode_rows([{"a": value}])[0].physical(0)])
        column = outcome(lambda rows=rows: [rows.encode_column(0, [value]).physical(0)])
        if isinstance(wanted, list):
            assert same_floats(batch, wanted) and same_floats(column, wanted)
        else:
            assert batch == column and batch[0] is wanted[0]


@st.composite
def batches(draw: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    codes = draw(st.lists(st.sampled_from(CODES), min_size=1, max_size=4))
    columns = [
        (f"c{j}", code, LIMIT if code in (c.BYTES, c.BINARY) else 0, draw(st.booleans()))
        for j, code in enumerate(codes)
    ]
    fields = {}
    for name, code, _limit, nullable in columns:
        kinds = [plain(code)] * 12 + [ODD] * draw(st.integers(0, 1))
        fields[name] = st.one_of(*kinds, *([st.none()] if nullable else []))
    optional = {name: fields.pop(name) for name, _c, _l, nullable in columns if nullable and draw(st.booleans())}
    return columns, draw(st.lists(st.fixed_dictionaries(fields, optional=optional), max_size=20))


@settings(max_examples=200, deadline=None)
@given(batches())
def test_batches_have_one_outcome(batch: tuple[list[Any], list[dict[str, Any]]]) -> None:
    columns, listed = batch

    def run(name: str, rows: Any) -> Any:
        return outcome(lambda: [shape(b) for b in codec(_ext.backend(name).values, columns).encode_rows(rows)])

    wanted = run("python", listed)
    for name in _ext.available():
        for given_as in (listed, tuple(listed), iter(listed), [OrderedDict(row) for row in listed]):
            assert run(name, given_as) == wanted
        rows = codec(_ext.backend(name).values, columns)
        if isinstance(wanted, list):
            single = [rows.encode(row) for row in listed]
            made = [_ext.backend(name).values.ColumnBuffer(spec[1]) for spec in columns]
            for physical in single:
                for buffer, value in zip(made, physical):
                    buffer.append(value)
            assert [shape(buffer) for buffer in made] == wanted


def test_the_first_bad_value_in_row_order_decides(kernels: Any) -> None:
    columns = [("a", c.I8, 0, False), ("b", c.STR, 0, False)]
    rows = codec(kernels.values, columns)
    batch = [{"a": 1, "b": "x"}, {"a": 2, "b": 5}, {"a": 300, "b": "y"}]
    with pytest.raises(Bad) as caught:
        rows.encode_rows(batch)
    assert caught.value.args == ("value", 1, 1)

    def broken() -> Any:
        yield from batch
        raise ArithmeticError

    with pytest.raises(Bad):
        rows.encode_rows(broken())
    with pytest.raises(ArithmeticError):
        rows.encode_rows(row for row in [batch[0], 1 / 0])  # type: ignore[list-item]


def test_a_large_batch(kernels: Any) -> None:
    columns = [("id", c.I64, 0, False), ("s", c.BYTES, 8, True), ("u", c.STR, 0, False), ("x", c.F64, 0, True)]
    batch = [
        {
            "id": i,
            "s": None if i % 7 == 0 else ("ok", "warn", "error")[i % 3],
            "u": f"name {i}",
            "x": None if i % 5 == 0 else i / 8,
        }
        for i in range(5000)
    ]
    made = codec(kernels.values, columns).encode_rows(batch)
    assert kernels.values.records([spec[0] for spec in columns], [buffer.tolist() for buffer in made]) == batch
    assert [shape(b) for b in made] == [shape(b) for b in codec(_values_py, columns).encode_rows(batch)]


# -- whole columns ---------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CODES), st.sampled_from("bBhHiIqQfd"), st.data())
def test_typed_columns_follow_the_value_rules(code: int, letter: str, data: Any) -> None:
    if letter in "fd":
        items = st.one_of(st.floats(width=32), st.floats())
    else:
        low, high = {ch: c.LIMITS[k] for k, ch in reversed(list(c.TYPECODES.items())) if k in c.INTS}[letter]
        items = st.one_of(st.integers(max(low, 0), 1), st.integers(low, high))
    numbers = array(
        letter, data.draw(st.lists(items.filter(lambda v: letter != "f" or v != v or abs(v) < 3e38), max_size=12))
    )
    columns = [("a", code, 0, False)]
    wanted = outcome(lambda: shape(codec(_values_py, columns).encode_column(0, numbers.tolist())))
    for name in _ext.available():
        rows = codec(_ext.backend(name).values, columns)
        for given_as in (numbers, memoryview(numbers), memoryview(numbers)[::1], tuple(numbers)):
            assert outcome(lambda rows=rows, given_as=given_as: shape(rows.encode_column(0, given_as))) == wanted
        strided = memoryview(numbers)[::2]
        assert outcome(lambda rows=rows, strided=strided: shape(rows.encode_column(0, strided))) == outcome(
            lambda: shape(codec(_values_py, columns).encode_column(0, numbers.tolist()[::2]))
        )


def test_what_is_no_column(kernels: Any) -> None:
    columns = [("a", c.STR, 0, True), ("n", c.U8, 0, True), ("b", c.BINARY, 0, True)]
    rows = codec(kernels.values, columns)
    for column in range(3):
        for values in ("abc", {"a": 1}, {1, 2}, frozenset([1]), 5, None, {}.keys()):
            with pytest.raises(TypeError):
                rows.encode_column(column, values)
    for column in (0, 2):
        for values in (b"abc", bytearray(b"abc")):
            with pytest.raises(TypeError):
                rows.encode_column(column, values)
    assert rows.encode_column(1, b"abc").tolist() == [97, 98, 99]
    assert rows.encode_column(1, iter([1, None, 3])).tolist() == [1, None, 3]
    assert rows.encode_column(1, []).tolist() == []
    assert rows.encode_column(1, array("d")).tolist() == []
    with pytest.raises(ValueError):
        rows.encode_column(1, memoryview(b"abcd").cast("B", (2, 2)))


def test_errors_in_typed_columns_name_the_position(kernels: Any) -> None:
    rows = codec(kernels.values, [("a", c.U8, 0, False), ("f", c.F32, 0, False)])
    for column, values, place in (
        (0, array("q", [1, 2, 256, -1]), 2),
        (0, array("d", [1.5]), 0),
        (1, array("d", [1.0, 1e39]), 1),
        (0, [1, None], 1),
    ):
        with pytest.raises(Bad) as caught:
            rows.encode_column(column, values)
        assert caught.value.args == ("null" if values == [1, None] else "value", column, place)


def test_numpy_columns(kernels: Any) -> None:
    np = pytest.importorskip("numpy")
    columns = [
        ("i", c.I32, 0, False),
        ("u", c.U64, 0, False),
        ("f", c.F64, 0, False),
        ("b", c.BOOL, 0, False),
        ("s", c.STR, 0, True),
        ("g", c.F32, 0, False),
    ]
    rows = codec(kernels.values, columns)
    for letter in "bhilBHILq?":
        for column in (0, 1, 2, 3, 5):
            assert rows.encode_column(column, np.array([0, 1, 1], letter)).tolist() == [0, 1, 1]
    for letter in (">i4", "<i2", "=u8"):
        assert rows.encode_column(0, np.array([1, 2], letter)).tolist() == [1, 2]
    assert rows.encode_column(1, np.array([2**64 - 1], "u8")).tolist() == [2**64 - 1]
    assert rows.encode_column(2, np.arange(10.0)[::-3]).tolist() == [9.0, 6.0, 3.0, 0.0]
    assert rows.encode_column(2, np.array([1.5], "f2")).tolist() == [1.5]
    assert rows.encode_column(4, np.array(["a", "ß"])).tolist() == ["a", "ß"]
    assert rows.encode_column(4, np.array(["a", None], object)).tolist() == ["a", None]
    assert rows.encode_column(4, np.ma.array(["a", "b"], mask=[0, 1])).tolist() == ["a", None]
    for wrong in (np.zeros((2, 2)), np.float64(3) * np.ones(()), np.zeros((2, 2), "M8[s]")):
        with pytest.raises(ValueError):
            rows.encode_column(2, wrong)
    with pytest.raises(Bad) as caught:
        rows.encode_column(1, np.array([1, -1]))
    assert caught.value.args == ("value", 1, 1)


_TEXTS = (
    *("", "a", "ab\0c", "\0", "x" * 7, "x" * 8, "x" * 9, "x" * 15, "x" * 16, "x" * 17, "x" * 40, "y", "", "zz"),
    *("ß", "\u07ff\u0800", "€", "\U0001f600z", "\U0010ffff", "\ue000\ud7ff", "q" * 30),
)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 9, 15, 16, 17, 45])
def test_numpy_text_arrays(kernels: Any, width: int) -> None:
    np = pytest.importorskip("numpy")
    rows = codec(kernels.values, [("t", c.BYTES, 64, False), ("s", c.STR, 0, True), ("b", c.BINARY, 0, False)])
    texts = [text for text in _TEXTS if len(text) <= width]
    for listed in (texts, texts * 3, texts[::-1], texts[:1], [], ["a"]):
        points = np.array(listed, f"U{width}")
        padded = [text.rstrip("\0") for text in listed]
        for column in (0, 1):
            for text_array in (points, points.astype(f">U{width}"), np.repeat(points, 2)[::2]):
                found = rows.encode_column(column, text_array)
                assert found.tolist() == padded
                assert found.offsets.tolist()[-1] == len("".join(padded).encode()) == len(found.data)
        coded = [text.encode() for text in listed if len(text.encode()) <= width]
        stored = [text.rstrip(b"\0") for text in coded]
        for column in (0, 1, 2):
            found = rows.encode_column(column, np.array(coded, f"S{width}"))
            assert found.tolist() == (stored if column == 2 else [text.decode() for text in stored])
            found.append(b"more")
            assert found.physical(found.rows - 1) == b"more"


@pytest.mark.parametrize("width", [1, 5, 8, 9, 16, 17])
def test_many_short_numpy_texts(kernels: Any, width: int) -> None:
    """Where short texts of one array go together: every length, NULs within, a text that is not ASCII, one too long."""
    np = pytest.importorskip("numpy")
    limit = min(width, 12)
    rows = codec(kernels.values, [("t", c.BYTES, limit, False), ("s", c.STR, 0, True), ("b", c.BINARY, 0, False)])
    rng = np.random.default_rng(width)
    count = (1 << 16) + 300
    points = rng.integers(1, 128, (count, width)).astype("u4")
    points[rng.random((count, width)) < 0.05] = 0
    points[np.arange(width) >= rng.integers(0, width + 1, count)[:, None]] = 0
    wide, plain = points.view(f"U{width}")[:, 0], points.astype("u1").view(f"S{width}")[:, 0]
    texts = wide.tolist()
    for column in (1,) if width > limit else (0, 1):
        for text_array in (wide, plain):
            found = rows.encode_column(column, text_array)
            assert found.tolist() == texts
            assert len(found.data) == found.offsets.tolist()[-1] == sum(map(len, texts))
    assert rows.encode_column(2, plain).tolist() == plain.tolist()
    for at in (0, count - 1, count // 2):
        odd = points.copy()
        odd[at, width - 1] = 0xE9
        letters = odd.view(f"U{width}")[:, 0]
        coded = odd.astype("u1").view(f"S{width}")[:, 0]
        assert rows.encode_column(1, letters).tolist() == letters.tolist()
        assert rows.encode_column(2, coded).tolist() == coded.tolist()
        for column, wrong in ((1, coded), *([(0, letters), (0, wide), (0, plain)] if width > limit else [])):
            with pytest.raises(Bad):
                rows.encode_column(column, wrong)


def test_numpy_texts_that_do_not_fit(kernels: Any) -> None:
    np = pytest.importorskip("numpy")
    rows = codec(kernels.values, [("t", c.BYTES, 3, False), ("s", c.STR, 0, True), ("b", c.BINARY, 0, False)])
    assert rows.encode_column(0, np.array([b"\xff\xfe", b"abc"])).tolist() == [b"\xff\xfe", "abc"]
    assert rows.encode_column(0, np.array(["abc\0\0\0", "d"])).tolist() == ["abc", "d"]
    assert rows.encode_column(1, np.ma.array([b"a", b"b"], mask=[0, 1])).tolist() == ["a", None]
    long = ["abc", "a€", "abc"]
    coded = np.array([text.encode() for text in long])
    for column, wrong in ((0, np.array(long)), (0, coded), (2, np.array(long)[1:])):
        with pytest.raises(Bad) as caught:
            rows.encode_column(column, wrong)
        assert caught.value.args == ("value", column, 1 if column == 0 else 0)
    surrogate = np.array(["ab", "a"])
    surrogate.view("u4")[3] = 0xD800
    with pytest.raises(Bad) as caught:
        rows.encode_column(1, surrogate[1:])
    assert caught.value.args == ("value", 1, 0)
    with pytest.raises(ValueError):
        rows.encode_column(1, np.array([["a"]]))


def test_lists_of_text_with_one_object_many_times(kernels: Any) -> None:
    rows = codec(kernels.values, [("t", c.BYTES, 4, True)])
    once, other = "".join(["a", "ß"]), b"\xff"
    texts = [once] * 40 + [other] * 3 + [once, None, once, "x" * 4, other] + [once] * 2
    assert rows.encode_column(0, texts).tolist() == texts
    with pytest.raises(Bad) as caught:
        rows.encode_column(0, [once] * 70 + ["x" * 5] * 2)
    assert caught.value.args == ("value", 0, 70)


def test_numpy_datetimes(kernels: Any) -> None:
    np = pytest.importorskip("numpy")
    columns = [("d", c.DATE, 0, True), ("t", c.DATETIME, 0, True), ("m", c.DATETIME, 0, False), ("e", c.DATE, 0, False)]
    rows = codec(kernels.values, columns)
    days = np.array(["1969-12-31", "NaT", "2024-02-29", "0001-01-01", "9999-12-31"], "M8[D]")
    found = rows.encode_column(0, days)
    assert found.tolist() == days.tolist()
    assert found.data.tolist()[1] == 0 and found.null_count == 1
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        given_as = np.array(["1969-12-31T23", "NaT", "2024-02-29T01"], f"M8[{unit}]")
        wanted = [dt.datetime(1969, 12, 31, 23, tzinfo=UTC), None, dt.datetime(2024, 2, 29, 1, tzinfo=UTC)]
        assert rows.encode_column(1, given_as).tolist() == wanted
        assert rows.encode_column(1, given_as[::2]).tolist() == wanted[::2]
        assert rows.encode_column(1, given_as.astype(given_as.dtype.newbyteorder())).tolist() == wanted
        with pytest.raises(Bad) as caught:
            rows.encode_column(2, given_as)
        assert caught.value.args == ("null", 2, 1)
    fine = np.array([1000, 1001], "i8").view("M8[ns]")
    for values in (fine, np.array([0, 253402300800], "i8").view("M8[s]"), np.array([0, 2**62], "i8").view("M8[s]")):
        with pytest.raises(Bad) as caught:
            rows.encode_column(1, values)
        assert caught.value.args == ("value", 1, 1)
    assert rows.encode_column(1, np.array(["0001-01-01", "9999-12-31T23:59:59.999999"], "M8[us]")).data.tolist() == [
        -62135596800000000,
        253402300799999999,
    ]
    with pytest.raises(Bad):
        rows.encode_column(3, np.array(["2024-01-01T00:00:00"], "M8[s]"))
    assert rows.encode_column(3, np.array(["2024-01", "2024-02"], "M8[M]")).tolist() == [
        dt.date(2024, 1, 1),
        dt.date(2024, 2, 1),
    ]
    assert rows.encode_column(0, np.array([], "M8[D]")).rows == 0


def test_records(kernels: Any) -> None:
    records = kernels.values.records
    assert records(["a", "b"], [[1, 2], ["x", None]]) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert records([], []) == [] and records(["a"], [[]]) == []
    assert records(("a",), (range(3),)) == [{"a": 0}, {"a": 1}, {"a": 2}]
    made = records(["a"], [[1, 1]])
    made[0]["b"] = 5
    assert made == [{"a": 1, "b": 5}, {"a": 1}]
    for names, columns in ((["a"], []), (["a", "b"], [[1], [1, 2]])):
        with pytest.raises(ValueError):
            records(names, columns)
