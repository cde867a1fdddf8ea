"""Packed rows, packed changes and plain columns: every backend, the twins against each other, hostile bytes."""

from __future__ import annotations

import datetime as dt
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import _ext
from snapdb._ext import _common as c

CODES = tuple(range(c.I8, c.DATETIME + 1))
LIMIT = 8
COLUMNS = [(f"c{code}", code, LIMIT if code == c.BYTES else 0, code % 2 == 0) for code in CODES]
NULLABLE = [(f"n{code}", code, LIMIT if code == c.BYTES else 0, True) for code in CODES]
FLOATS = {c.F32: 32, c.F64: 64}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MICRO = dt.timedelta(microseconds=1)
ENDS = {
    c.DATE: tuple(day.toordinal() - EPOCH.toordinal() for day in (dt.date.min, dt.date.max)),
    c.DATETIME: tuple((day - EPOCH.replace(tzinfo=None)) // MICRO for day in (dt.datetime.min, dt.datetime.max)),
}


def no_coerce(column: int, value: Any, position: int) -> Any:
    raise AssertionError("nothing is coerced here")


def no_refuse(row: Any, position: int, partial: bool) -> None:
    raise AssertionError("nothing is refused here")


def codec(kernels: Any, columns: list[Any]) -> Any:
    return kernels.values.RowCodec(columns, no_coerce, no_refuse)


def physical(code: int, nullable: bool) -> Any:
    """Checked physical values of a dtype."""
    if code in c.FLOATS:
        values: Any = st.floats(width=FLOATS[code])
    elif code == c.STR:
        values = st.text(max_size=7).map(str.encode)
    elif code in c.VARLEN:
        values = st.binary(max_size=LIMIT if code == c.BYTES else 20)
    else:
        values = st.integers(*ENDS.get(code, c.LIMITS.get(code)))
    return st.none() | values if nullable else values


def row_of(columns: list[Any]) -> Any:
    return st.tuples(*(physical(spec[1], spec[3]) for spec in columns)).map(list)


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to NaN and the sign of zero told apart."""
    return repr(one) == repr(other)


def filled(kernels: Any, code: int, values: list[Any]) -> Any:
    buffer = kernels.values.ColumnBuffer(code)
    for value in values:
        buffer.append(value)
    return buffer


def physicals(buffer: Any) -> list[Any]:
    return [buffer.physical(row) for row in range(buffer.rows)]


def outcome(run: Any) -> Any:
    """What a call gives, or that it raised ValueError; anything else fails the test."""
    try:
        return repr(run())
    except ValueError:
        return ValueError


def backends() -> list[Any]:
    return [_ext.backend(name) for name in _ext.available()]


def mutations(data: bytes) -> list[bytes]:
    """Each byte flipped in three ways, each cut, and some bytes more."""
    found = [data[:end] for end in range(len(data))] + [data + b"\0", data + b"\x01" * 8]
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            found.append(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
    return found


# -- packed rows -----------------------------------------------------------

SMALL = [("a", c.I32, 0, False), ("s", c.BYTES, LIMIT, True), ("f", c.BOOL, 0, True), ("t", c.STR, 0, False)]


def test_the_bytes_of_a_row(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    assert small.pack([-2, b"abc", None, b""]) == b"\x04" + b"\xfe\xff\xff\xff" + b"\x03\0\0\0abc" + b"\0\0\0\0"
    assert small.pack((7, None, 1, b"\xff")) == b"\x02" + b"\x07\0\0\0" + b"\x01" + b"\x01\0\0\0\xff"
    assert codec(kernels, []).pack([]) == b"" and codec(kernels, []).unpack(b"") == []
    wide = codec(kernels, [(f"c{j}", c.U8, 0, True) for j in range(17)])
    assert wide.pack([None] * 16 + [5]) == b"\xff\xff\0\x05"


@settings(max_examples=80)
@given(st.lists(row_of(COLUMNS) | st.none(), max_size=4), st.lists(row_of(NULLABLE), max_size=12))
def test_rows_come_back(mixed: list[Any], nullable: list[Any]) -> None:
    for columns, rows in ((COLUMNS, [row for row in mixed if row is not None]), (NULLABLE, nullable)):
        seen = []
        for kernels in backends():
            row_codec = codec(kernels, columns)
            packed = [row_codec.pack(row) for row in rows]
            for row, data in zip(rows, packed):
                for form in (data, bytearray(data), memoryview(data)):
                    assert same(row_codec.unpack(form), row)
            ends = [sum(map(len, packed[:i])) for i in range(len(packed) + 1)]
            places = list(zip(ends, ends[1:]))
            buffers = row_codec.unpack_rows(b"".join(packed), places)
            assert [buffer.code for buffer in buffers] == [spec[1] for spec in columns]
            for j, buffer in enumerate(buffers):
                assert same(physicals(buffer), [row[j] for row in rows])
                assert buffer.null_count == sum(row[j] is None for row in rows)
            seen.append(packed)
        assert all(packed == seen[0] for packed in seen)


def test_rows_at_any_place(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    one, two = small.pack([1, b"x", 1, b"yy"]), small.pack([2, None, None, b""])
    data = b"??" + two + b"?" + one
    places = [(3 + len(two), len(data)), (2, 2 + len(two)), (2, 2 + len(two))]
    assert [physicals(b) for b in small.unpack_rows(data, places)] == [
        [1, 2, 2],
        [b"x", None, None],
        [1, None, None],
        [b"yy", b"", b""],
    ]
    assert [b.rows for b in small.unpack_rows(b"", [])] == [0, 0, 0, 0]
    end = len(data)
    for place in (
        (0, end + 1),
        (-1, 2),
        (3, 2),
        (end + 1, end + 1),
        (0, 2**70),
        (-(2**70), 3),
        (2, 1 + len(two)),
        (0,),
    ):
        with pytest.raises(ValueError):
            small.unpack_rows(data, [places[0], place])
    for given_places in ([5], 5, [(0.0, 1.0)]):
        with pytest.raises(TypeError):
            small.unpack_rows(data, given_places)
    with pytest.raises(TypeError):
        small.unpack_rows("text", places)
    with pytest.raises(ValueError):
        small.unpack(memoryview(data)[::2])


def test_what_is_no_checked_row_is_not_packed(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    for values, kind in (
        ([1, b"", 1], ValueError),
        ([1, b"", 1, b"", 1], ValueError),
        ([None, b"", 1, b""], ValueError),
        ([1, b"x" * 9, 1, b""], ValueError),
        ([1, "text", 1, b""], TypeError),
        ([1.5, b"", 1, b""], TypeError),
        (["1", b"", 1, b""], TypeError),
        ([2**31, b"", 1, b""], OverflowError),
        ([1, b"", 2, b""], OverflowError),
        ([1, b"", -1, b""], OverflowError),
        (5, TypeError),
    ):
        with pytest.raises(kind):
            small.pack(values)
    for code in CODES:
        one = codec(kernels, [("x", code, 0, True)])
        wrong: list[tuple[Any, Any]]
        if code in c.VARLEN:
            wrong = [("x", TypeError), (1, TypeError)]
        elif code in c.FLOATS:
            wrong = [("1.5", TypeError), (b"1", TypeError), (10**400, OverflowError)]
        else:
            low, high = c.LIMITS[code]
            wrong = [(low - 1, OverflowError), (high + 1, OverflowError), (2**70, OverflowError), (0.5, TypeError)]
        for value, kind in wrong:
            with pytest.raises(kind):
                one.pack([value])
    assert codec(kernels, [("x", c.F32, 0, False)]).unpack(codec(kernels, [("x", c.F32, 0, False)]).pack([1e39])) == [
        math.inf
    ]
    assert codec(kernels, [("x", c.F64, 0, False)]).pack([3]) == b"\0" + struct.pack("<d", 3.0)


def test_damaged_rows(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    good = small.pack([1, b"x" * 8, 1, b"y"])
    assert len(good) == 1 + 4 + 12 + 1 + 5
    for data in (
        b"",
        good[:-1],
        good + b"\0",
        b"\x10" + good[1:],  # a column past the last
        b"\x01" + good[5:],  # null where there is none
        good[:17] + b"\x02" + good[18:],  # bool
        good[:5] + b"\x09\0\0\0" + b"x" * 9 + good[17:],  # over the limit
        good[:18] + b"\x02\0\0\0y",
        good[:18] + b"\xff\xff\xff\xffy",
    ):
        with pytest.raises(ValueError):
            small.unpack(data)
        with pytest.raises(ValueError):
            small.unpack_rows(data, [(0, len(data))])


@settings(max_examples=25)
@given(row_of(COLUMNS))
def test_hostile_rows(row: list[Any]) -> None:
    codecs = [codec(kernels, COLUMNS) for kernels in backends()]
    for data in mutations(codecs[0].pack(row)):
        found = {outcome(lambda row_codec=row_codec, data=data: row_codec.unpack(data)) for row_codec in codecs}
        assert len(found) == 1
        if ValueError not in found:
            values = codecs[0].unpack(data)
            for row_codec in codecs:
                assert same([physicals(b)[0] for b in row_codec.unpack_rows(data, [(0, len(data))])], values)
            if not any(isinstance(value, float) and value != value for value in values):
                assert all(row_codec.pack(values) == data for row_codec in codecs)  # one form only


# -- packed changes --------------------------------------------------------


def changes_of(columns: list[Any]) -> Any:
    one = st.sets(st.integers(0, len(columns) - 1)).flatmap(
        lambda picked: st.tuples(*(st.tuples(st.just(j), physical(*columns[j][1:4:2])) for j in sorted(picked)))
    )
    return st.lists(st.tuples(st.integers(0, 2**64 - 1), one.map(list)), max_size=6)


def test_the_bytes_of_a_change(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    assert small.pack_changes([]) == bytes(8) and small.unpack_changes(bytes(8)) == []
    changes = [(5, [(0, -1), (1, None)]), (2**64 - 1, []), (5, [(3, b"ab")])]
    data = struct.pack("<II", 3, 0)
    data += struct.pack("<QI", 5, 2) + struct.pack("<HBBi", 0, 0, 0, -1) + struct.pack("<HBB", 1, 1, 0)
    data += struct.pack("<QI", 2**64 - 1, 0)
    data += struct.pack("<QI", 5, 1) + struct.pack("<HBBI", 3, 0, 0, 2) + b"ab"
    assert small.pack_changes((idx, iter(pairs)) for idx, pairs in changes) == data
    assert small.unpack_changes(bytearray(data)) == changes


@settings(max_examples=80)
@given(changes_of(COLUMNS))
def test_changes_come_back(changes: list[Any]) -> None:
    packed = []
    for kernels in backends():
        row_codec = codec(kernels, COLUMNS)
        packed.append(row_codec.pack_changes(changes))
        assert same(row_codec.unpack_changes(packed[-1]), changes)
    assert all(data == packed[0] for data in packed)


@settings(max_examples=15)
@given(changes_of(COLUMNS))
def test_hostile_changes(changes: list[Any]) -> None:
    codecs = [codec(kernels, COLUMNS) for kernels in backends()]
    for data in mutations(codecs[0].pack_changes(changes[:3])):
        found = {outcome(lambda row_codec=row_codec, data=data: row_codec.unpack_changes(data)) for row_codec in codecs}
        assert len(found) == 1


def test_what_is_no_change_is_not_packed(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    for changes, kind in (
        ([(-1, [])], ValueError),
        ([(2**64, [])], ValueError),
        ([(1.0, [])], TypeError),
        ([(1, [(4, 1)])], IndexError),
        ([(1, [(-1, 1)])], IndexError),
        ([(1, [(2, 1), (1, b"")])], ValueError),
        ([(1, [(2, 1), (2, 1)])], ValueError),
        ([(1, [(0, None)])], ValueError),
        ([(1, [(1, b"x" * 9)])], ValueError),
        ([(1, [(0, 2**31)])], OverflowError),
        ([(1, 5)], TypeError),
        ([1], TypeError),
        (5, TypeError),
    ):
        with pytest.raises(kind):
            small.pack_changes(changes)


def test_damaged_changes(kernels: Any) -> None:
    small = codec(kernels, SMALL)
    row = struct.pack("<QI", 5, 1)
    for data in (
        b"",
        bytes(7),
        bytes(9),
        struct.pack("<II", 0, 1),
        struct.pack("<II", 1, 0),
        struct.pack("<II", 2**32 - 1, 0) + row,
        struct.pack("<II", 1, 0) + row,
        struct.pack("<II", 1, 0) + struct.pack("<QI", 5, 2**32 - 1) + bytes(40),
        struct.pack("<II", 1, 0) + row + struct.pack("<HBB", 4, 1, 0),
        struct.pack("<II", 1, 0) + row + struct.pack("<HBB", 1, 2, 0),
        struct.pack("<II", 1, 0) + row + struct.pack("<HBB", 1, 1, 1),
        struct.pack("<II", 1, 0) + row + struct.pack("<HBB", 0, 1, 0),
        struct.pack("<II", 1, 0) + row + struct.pack("<HBB", 1, 1, 0) + b"\0",
        struct.pack("<II", 1, 0) + struct.pack("<QI", 5, 2) + struct.pack("<HBB", 1, 1, 0) * 2,
        struct.pack("<II", 1, 0) + struct.pack("<QI", 5, 2) + struct.pack("<HBBHBB", 2, 1, 0, 1, 1, 0),
    ):
        with pytest.raises(ValueError):
            small.unpack_changes(data)


# -- plain columns ---------------------------------------------------------


def test_the_bytes_of_a_column(kernels: Any) -> None:
    pack = kernels.values.pack_column
    head = struct.Struct("<BBHIIIQQ").pack
    assert pack(filled(kernels, c.I16, [])) == head(c.I16, 0, 0, 0, 0, 0, 0, 0)
    assert pack(filled(kernels, c.I16, [1, -1, 3])) == head(c.I16, 0, 0, 3, 0, 0, 6, 0) + b"\1\0\xff\xff\3\0\0\0"
    assert pack(filled(kernels, c.I16, [1, None, 3])) == (
        head(c.I16, 1, 0, 3, 1, 0, 6, 0) + b"\2" + bytes(7) + b"\1\0\0\0\3\0\0\0"
    )
    assert pack(filled(kernels, c.STR, [])) == head(c.STR, 0, 0, 0, 0, 0, 0, 0) + bytes(8)
    texts = filled(kernels, c.STR, [b"abc", None, b"", b"defghi"])
    assert pack(texts) == (
        head(c.STR, 1, 0, 4, 1, 0, 9, 0) + struct.pack("<Q5Q", 2, 0, 3, 3, 3, 9) + b"abcdefghi" + bytes(7)
    )
    assert pack(texts, 2) == head(c.STR, 0, 0, 2, 0, 0, 6, 0) + struct.pack("<3Q", 0, 0, 6) + b"defghi" + bytes(2)
    assert pack(texts, 1, 1) == head(c.STR, 0, 0, 0, 0, 0, 0, 0) + bytes(8)
    assert pack(texts, start=1, stop=2) == head(c.STR, 1, 0, 1, 1, 0, 0, 0) + struct.pack("<3Q", 1, 0, 0)
    for start, stop in ((-1, 2), (0, 5), (3, 2), (5, None)):
        with pytest.raises(ValueError):
            pack(texts, start, stop)


@settings(max_examples=150)
@given(st.sampled_from(CODES), st.data())
def test_columns_come_back(code: int, data: Any) -> None:
    values = data.draw(st.lists(physical(code, data.draw(st.booleans())), max_size=150))
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    packed = []
    for kernels in backends():
        packed.append(kernels.values.pack_column(filled(kernels, code, values), start, stop))
        for form in (packed[-1], bytearray(packed[-1]), memoryview(packed[-1]).cast("Q")):
            buffer = kernels.values.unpack_column(form, code)
            assert same(physicals(buffer), values[start:stop]) and buffer.code == code
        assert buffer.null_count == values[start:stop].count(None)
        buffer.append(None)  # it grows as any other
        buffer.append(values[0] if values else None)
        assert same(physicals(buffer), [*values[start:stop], None, values[0] if values else None])
        assert len(packed[-1]) % 8 == 0
    assert all(one == packed[0] for one in packed)


@settings(max_examples=40)
@given(st.sampled_from(CODES), st.data())
def test_hostile_columns(code: int, data: Any) -> None:
    values = data.draw(st.lists(physical(code, True), min_size=1, max_size=5))
    kernels = backends()
    packed = kernels[0].values.pack_column(filled(kernels[0], code, values))
    for hostile in mutations(packed):
        found = {outcome(lambda k=k, h=hostile: physicals(k.values.unpack_column(h, code))) for k in kernels}
        assert len(found) == 1
        if ValueError not in found:
            for k in kernels:
                assert k.values.pack_column(k.values.unpack_column(hostile, code)) == hostile  # one form only


def test_a_long_column(kernels: Any) -> None:
    values = [None if i % 3 == 0 else i for i in range(5000)]
    for code, wanted in ((c.I32, values), (c.BINARY, [v if v is None else str(v).encode() for v in values])):
        packed = kernels.values.pack_column(filled(kernels, code, wanted), 13, 4999)
        assert physicals(kernels.values.unpack_column(packed, code)) == wanted[13:4999]


def test_damaged_columns(kernels: Any) -> None:
    unpack = kernels.values.unpack_column
    head = struct.Struct("<BBHIIIQQ").pack
    big = 2**64 - 1
    for code, data in (
        (c.I32, b""),
        (c.I32, bytes(31)),
        (c.I32, head(c.U32, 0, 0, 0, 0, 0, 0, 0)),
        (c.I32, head(c.I32, 2, 0, 0, 0, 0, 0, 0)),
        (c.I32, head(c.I32, 1, 0, 0, 0, 0, 0, 0)),
        (c.I32, head(c.I32, 0, 1, 0, 0, 0, 0, 0)),
        (c.I32, head(c.I32, 0, 0, 0, 0, 1, 0, 0)),
        (c.I32, head(c.I32, 0, 0, 0, 0, 0, 0, 1)),
        (c.I32, head(c.I32, 0, 0, 0, 0, 0, 0, 0) + bytes(8)),
        (c.I32, head(c.I32, 0, 0, 2**32 - 1, 0, 0, 4 * (2**32 - 1), 0)),
        (c.I32, head(c.I32, 1, 0, 2**32 - 1, 2**32 - 1, 0, 4 * (2**32 - 1), 0)),
        (c.I32, head(c.I32, 0, 0, 1, 0, 0, 4, 0) + b"\1\0\0\0\1\0\0\0"),
        (c.I32, head(c.I32, 1, 0, 1, 2, 0, 4, 0) + bytes(16)),
        (c.I32, head(c.I32, 1, 0, 1, 1, 0, 4, 0) + struct.pack("<QQ", 1, 1)),  # a null row with a value
        (c.I32, head(c.I32, 1, 0, 1, 1, 0, 4, 0) + struct.pack("<QQ", 2, 0)),  # a null past the last row
        (c.I32, head(c.I32, 1, 0, 2, 2, 0, 8, 0) + struct.pack("<QQ", 1, 0)),
        (c.BOOL, head(c.BOOL, 0, 0, 1, 0, 0, 1, 0) + b"\2" + bytes(7)),
        (c.STR, head(c.STR, 0, 0, 0, 0, 0, 0, 0)),
        (c.STR, head(c.STR, 0, 0, 0, 0, 0, big, 0) + bytes(8)),
        (c.STR, head(c.STR, 0, 0, 2**32 - 1, 0, 0, 0, 0) + bytes(8)),
        (c.STR, head(c.STR, 0, 0, 1, 0, 0, 8, 0) + struct.pack("<QQQ", 1, 8, 0)),
        (c.STR, head(c.STR, 0, 0, 1, 0, 0, 8, 0) + struct.pack("<QQQ", 0, 7, 0)),
        (c.STR, head(c.STR, 0, 0, 1, 0, 0, 8, 0) + struct.pack("<QQQ", 0, big, 0)),
        (c.STR, head(c.STR, 0, 0, 2, 0, 0, 8, 0) + struct.pack("<QQQQ", 0, big, 8, 0)),
        (c.STR, head(c.STR, 1, 0, 1, 1, 0, 8, 0) + struct.pack("<QQQQ", 1, 0, 8, 0)),
    ):
        with pytest.raises(ValueError):
            unpack(data, code)
    for code in (0, 17, -1):
        with pytest.raises(ValueError):
            unpack(bytes(32), code)
    with pytest.raises(TypeError):
        unpack("text", c.I32)
    with pytest.raises(ValueError):
        unpack(memoryview(bytes(64))[::2], c.I32)


def test_a_column_is_a_copy(kernels: Any) -> None:
    data = bytearray(kernels.values.pack_column(filled(kernels, c.STR, [b"abc", b"d"])))
    buffer = kernels.values.unpack_column(data, c.STR)
    data[:] = bytes(len(data))
    data += b"more"
    assert buffer.tolist() == ["abc", "d"]
    rows = codec(kernels, SMALL)
    data = bytearray(rows.pack([1, b"x", None, b"yy"]))
    buffers, values = rows.unpack_rows(data, [(0, len(data))]), rows.unpack(data)
    data[:] = b"\xff" * len(data)
    assert values == [physicals(b)[0] for b in buffers] == [1, b"x", None, b"yy"]


# -- dates and text that no column can have ----------------------------------

NOT_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3(", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xe2\x82", b"\xe2\x82(", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf0\x9f\x98", b"\xff",
    b"a" * 40 + b"\xe9", b"\xe9" + b"a" * 40, "\u00e9".encode() * 20 + b"\xa9", b"a" * 15 + b"\xe2\x82" + b"b" * 9,
]  # fmt: skip
UTF8 = ["", "a", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
UTF8 += [
    "x" * n + middle + "y" * m for n in (0, 3, 8, 31, 40) for m in (0, 1, 9, 33) for middle in "\u00e9\u20ac\U0001f600"
]


def impossible() -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = [(c.STR, text) for text in NOT_UTF8]
    for code, (low, high) in ENDS.items():
        found += [(code, value) for value in (low - 1, high + 1, *c.LIMITS[code])]
    return found


def possible() -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = [(c.STR, text.encode()) for text in UTF8]
    found += [(code, text) for text in NOT_UTF8 for code in (c.BYTES, c.BINARY)]
    return found + [(code, value) for code, ends in ENDS.items() for value in (*ends, 0)]


def padded(code: int) -> Any:
    return b"" if code in c.VARLEN else 0


def test_impossible_values_in_rows_are_refused(kernels: Any) -> None:
    for code, value in impossible():
        rows = codec(kernels, [("a", c.I8, 0, False), ("b", code, 0, True)])
        packed = [rows.pack([1, padded(code)]), rows.pack([1, value]), rows.pack([1, None])]
        places = [(0, len(packed[0])), (len(packed[0]), len(packed[0]) + len(packed[1]))]
        with pytest.raises(ValueError, match="column 1"):
            rows.unpack(packed[1])
        with pytest.raises(ValueError, match="column 1"):
            rows.unpack_rows(b"".join(packed), places)
        with pytest.raises(ValueError, match="column 1"):
            rows.unpack_changes(rows.pack_changes([(7, [(0, 1)]), (8, [(0, 2), (1, value)])]))


def test_impossible_values_in_columns_are_refused(kernels: Any) -> None:
    for code, value in impossible():
        for values in ([value], [padded(code)] * 70 + [value], [None, value, None], [value] + [padded(code)] * 70):
            with pytest.raises(ValueError, match=f"row {values.index(value)} of a plain column"):
                kernels.values.unpack_column(kernels.values.pack_column(filled(kernels, code, values)), code)
    parts = filled(kernels, c.STR, ["abc\u00e9".encode(), b"x"])
    packed = bytearray(kernels.values.pack_column(parts))
    packed[40:48] = struct.pack("<Q", 4)  # the text is whole, but not as it is cut
    with pytest.raises(ValueError, match="row 0 of a plain column"):
        kernels.values.unpack_column(packed, c.STR)


def test_the_last_possible_values_are_taken(kernels: Any) -> None:
    for code, value in possible():
        rows = codec(kernels, [("a", c.I8, 0, False), ("b", code, 0, True)])
        packed = rows.pack([1, value])
        assert rows.unpack(packed) == [1, value]
        assert physicals(rows.unpack_rows(packed, [(0, len(packed))])[1]) == [value]
        assert rows.unpack_changes(rows.pack_changes([(8, [(1, value)])])) == [(8, [(1, value)])]
        values = [value, None, padded(code), value, padded(code)]
        buffer = kernels.values.unpack_column(kernels.values.pack_column(filled(kernels, code, values)), code)
        assert physicals(buffer) == values
        buffer.fetch(0)


@settings(max_examples=150)
@given(st.lists(st.text(max_size=5).map(str.encode) | st.binary(max_size=5), min_size=1, max_size=9))
def test_text_is_what_python_decodes(texts: list[bytes]) -> None:
    def fits(text: bytes) -> bool:
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
        return True

    wrong = [row for row, text in enumerate(texts) if not fits(text)]
    for kernels in backends():
        packed = kernels.values.pack_column(filled(kernels, c.STR, texts))
        rows = codec(kernels, [("t", c.STR, 0, False)])
        if wrong:
            with pytest.raises(ValueError, match=f"row {wrong[0]} "):
                kernels.values.unpack_column(packed, c.STR)
            with pytest.raises(ValueError, match="column 0"):
                rows.unpack(rows.pack([texts[wrong[0]]]))
        else:
            assert physicals(kernels.values.unpack_column(packed, c.STR)) == texts
