"""Chunks: bytes, values and answers against slow literal readings of ``docs/format.md``, alike on every backend."""

from __future__ import annotations

import datetime as dt
import functools
import math
import random
import struct
from array import array
from typing import Any, Callable, Optional

import pytest
import reference_chunks
from chunk_columns import CODES, DAYS, INF, NAN, NONE, N, columns, every_case, filled, forms, sealed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapdb import _ext
from snapdb._ext import _common as c
from snapdb._ext._common import mask_bytes

# -- slow readings of the definitions ---------------------------------------------


def mask_of(rows: Any, size: int) -> bytearray:
    mask = bytearray(mask_bytes(size))
    for row in rows:
        mask[row >> 3] |= 1 << (row & 7)
    return mask


def rows_in(mask: Any) -> list[int]:
    return [row for row in range(len(mask) * 8) if mask[row >> 3] >> (row & 7) & 1]


def reference_pack(values: list[int], width: int) -> bytes:
    """The packing of the format page, bit by bit."""
    size = c.container(width)
    lanes = 1024 // size
    out = b""
    for block in range(0, len(values), 1024):
        words = [0] * (width * lanes)
        for i in range(1024):
            row, lane = divmod(i, lanes)
            for bit in range(width):
                if values[block + i] >> bit & 1:
                    at = row * width + bit
                    words[at // size * lanes + lane] |= 1 << (at % size)
        out += b"".join(word.to_bytes(size // 8, "little") for word in words)
    return out


def reference_sum(values: list[Optional[float]], chosen: Any, start: float = 0.0) -> float:
    """The one definition of a float sum."""
    total = start
    for block in range(0, len(values), 1024):
        lanes = [0.0] * 32
        for row in range(block, min(block + 1024, len(values))):
            value = values[row]
            if value is not None and row in chosen:
                lanes[row % 32] += value
        half = 16
        while half:
            for lane in range(half):
                lanes[lane] += lanes[lane + half]
            half //= 2
        total += lanes[0]
    return total


def bits_of(value: Any) -> Any:
    """Something equal exactly where the values are identical; all NaNs are one."""
    if isinstance(value, float):
        return ("float", b"nan" if value != value else struct.pack("<d", value))
    return (type(value).__name__, value)


def ordered(values: list[float]) -> Optional[tuple[float, float]]:
    real = [value for value in values if value == value]
    if not real:
        return (NAN, NAN) if values else None
    real.sort(key=lambda value: (value, math.copysign(1, value)))
    return real[0], real[-1]


def bounds_reference(code: int, values: list[Any]) -> Any:
    present = [value for value in values if value is not None]
    if code in c.FLOATS:
        return ordered(present)
    return (min(present), max(present)) if present else None


def group_key(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if value != value else value + 0.0
    return "null" if value is None else value


def grouped(values: list[Any], chosen: Any) -> tuple[list[int], list[int]]:
    numbers: dict[Any, int] = {}
    codes, first = [], []
    for row, value in enumerate(values):
        if row not in chosen:
            codes.append(NONE)
            continue
        key = group_key(value)
        if key not in numbers:
            numbers[key] = len(numbers)
            first.append(row)
        codes.append(numbers[key])
    return codes, first


PLAIN = frozenset((int, bool, str, bytes, type(None), dt.date, dt.datetime))
MEASURED = frozenset((float, type(None)))  # all NaNs are shown alike, and -0.0 is not shown as 0.0


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        types = list(map(type, a))
        if PLAIN.issuperset(types):
            return types == list(map(type, b)) and list(a) == list(b)
        if MEASURED.issuperset(types):
            return repr(list(a)) == repr(list(b))
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return bool(bits_of(a) == bits_of(b))


class Case:
    """A column of ``columns`` and what the slow readings say of it, each worked out once for all backends and forms."""

    def __init__(self, code: int, name: str) -> None:
        self.code = code
        self.values = columns(code)[name]
        self.size = len(self.values)
        self.shown = [c.logical(code, value) for value in self.values]
        self._found: dict[Any, Any] = {}

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        if key not in self._found:
            self._found[key] = work()
        return self._found[key]

    def valid(self) -> bytes:
        return bytes(mask_of([row for row, value in enumerate(self.values) if value is not None], self.size))

    def between(self, *asked: Any) -> bytes:
        def work() -> bytes:
            rows = [row for row, value in enumerate(self.values) if matches(self.code, value, *asked)]
            return bytes(mask_of(rows, self.size))

        return bytes(self.once(("between", *asked), work))

    def among(self, wanted: set[Any]) -> bytes:
        def work() -> bytes:
            rows = [row for row, value in enumerate(self.values) if value is not None and value in wanted]
            return bytes(mask_of(rows, self.size))

        return bytes(self.once(("among", frozenset(wanted)), work))

    def rows(self, chosen: Optional[set[int]]) -> Any:
        return range(self.size) if chosen is None else chosen

    def picked(self, which: int, chosen: Optional[set[int]]) -> list[Any]:
        found: list[Any] = self.once(("picked", which), lambda: [self.values[row] for row in sorted(self.rows(chosen))])
        return found

    def bounds(self, which: int, chosen: Optional[set[int]]) -> Any:
        return self.once(("bounds", which), lambda: bounds_reference(self.code, self.picked(which, chosen)))

    def sum(self, which: int, chosen: Optional[set[int]], start: float) -> Any:
        return self.once(("sum", which, start), lambda: reference_sum(self.values, self.rows(chosen), start))

    def grouped(self, which: int, chosen: Optional[set[int]]) -> Any:
        return self.once(("grouped", which), lambda: grouped(self.values, self.rows(chosen)))


case = functools.lru_cache(None)(Case)


@functools.lru_cache(None)
def forms_of(backend: str, code: int, name: str) -> list[Any]:
    return forms(_ext.backend(backend), code, columns(code)[name])


# -- bytes ----------------------------------------------------------------------------


@every_case
def test_every_backend_writes_the_same_bytes(code: int, name: str) -> None:
    values = columns(code)[name]
    for prefer in (0, c.DICT, c.FOR, c.AFFINE):
        found = {}
        for backend in _ext.available():
            chunk, zone = sealed(_ext.backend(backend), code, values, prefer)
            assert chunk.data.readonly
            found[backend] = (bytes(chunk.data), tuple(map(bits_of, zone)))
        first = found["python"]
        assert all(answer == first for answer in found.values()), (prefer, list(found))


@every_case
def test_zone(kernels: _ext.Backend, code: int, name: str) -> None:
    values = columns(code)[name]
    zone = sealed(kernels, code, values)[1]
    present = [value for value in values if value is not None]
    assert zone.nulls == len(values) - len(present)
    wanted = bounds_reference(code, values)
    if code in c.VARLEN:
        assert zone.total is None and zone.nans == 0
        if wanted is None:
            assert (zone.lo, zone.hi) == (None, None)
        else:
            assert len(zone.lo) <= 32 and zone.lo <= wanted[0] and wanted[0].startswith(zone.lo)
            assert zone.hi is None or (len(zone.hi) <= 32 and zone.hi >= wanted[1])
            assert zone.exact == ((zone.lo, zone.hi) == wanted)
        return
    assert zone.exact
    assert same((zone.lo, zone.hi), wanted or (None, None))
    assert zone.nans == sum(value != value for value in present)
    if code in c.FLOATS:
        assert same(zone.total, reference_sum(values, range(len(values))))
    else:
        assert zone.total == sum(present) and type(zone.total) is int


@pytest.mark.parametrize("width", range(1, 65))
def test_packing_is_that_of_the_format_page(kernels: _ext.Backend, width: int) -> None:
    chance = random.Random(width)
    values = [chance.getrandbits(width) for _ in range(2 * N)]
    values[0], values[5] = 0, (1 << width) - 1  # the column's least value, and its width
    chunk, _ = sealed(kernels, c.U64, values, c.FOR)
    packed = c.packed_width((1 << width) - 1)
    assert (chunk.codec, chunk.width) == (c.FOR, packed)
    assert bytes(chunk.data[128:]) == reference_pack(values, packed)
    assert chunk.take() == values


@pytest.mark.parametrize("width", [1, 3, 8, 11, 16])
def test_dictionary_codes_are_packed_alike(kernels: _ext.Backend, width: int) -> None:
    count = min(1 << width, 30_000)
    rows = 64 * N if width > 11 else 8 * N
    values = [i % count / 7 for i in range(rows)]
    chunk, _ = sealed(kernels, c.F64, values, c.DICT)
    assert (chunk.codec, chunk.width) == (c.DICT, c.packed_width(count - 1))
    if width <= 11:
        size = rows // N * 128 * chunk.width
        assert bytes(chunk.data[128 : 128 + size]) == reference_pack([i % count for i in range(rows)], chunk.width)
    assert chunk.take() == values


def test_widths_that_are_not_written_can_be_read(kernels: _ext.Backend) -> None:
    for width in (15, 31, 62, 63):
        chance = random.Random(width)
        values = [chance.getrandbits(width) for _ in range(N)]
        head = struct.pack(
            "<BBBBIIIqqQQQQQ", c.FOR, c.U64, width, c.container(width), N, 0, 0, 0, 0, 0, 128, 0, 0, 128 + 128 * width
        )
        chunk = kernels.codecs.Chunk(head.ljust(128, b"\0") + reference_pack(values, width))
        assert chunk.take() == values
        assert rows_in(chunk.select(values[7], values[7])) == [i for i in range(N) if values[i] == values[7]]


def test_the_choice(kernels: _ext.Backend) -> None:
    def chosen(code: int, values: list[Any], prefer: int = 0) -> int:
        return sealed(kernels, code, values, prefer)[0].codec  # type: ignore[no-any-return]

    chance = random.Random(1)
    few_wide = [chance.choice([1, 10**12, -(10**15)]) for _ in range(N)]
    assert chosen(c.I64, few_wide) == c.DICT
    assert chosen(c.I64, few_wide, c.FOR) == chosen(c.I64, few_wide, c.AFFINE) == c.FOR
    assert chosen(c.I64, [i % 10 for i in range(N)]) == c.FOR
    assert chosen(c.I64, [i % 10 for i in range(N)], c.DICT) == c.FOR
    assert chosen(c.I64, list(range(0, -N, -1))) == c.AFFINE
    assert chosen(c.U64, [0, 2**64 - 1] * (N // 2)) == c.DICT
    assert chosen(c.U64, [i % 2 * 2**63 + i for i in range(N)]) == c.FOR
    assert chosen(c.I16, few := [chance.choice([1, 30000]) for _ in range(N)]) == c.FOR
    assert chosen(c.I16, few, c.DICT) == c.FOR
    third = [i // 3 / 7 for i in range(N)]
    assert chosen(c.F64, third) == c.RAW
    assert chosen(c.F64, third, c.DICT) == c.DICT
    assert chosen(c.F64, [i / 7 for i in range(N)], c.DICT) == c.RAW
    assert chosen(c.F64, [1 / 3, -0.0] * (N // 2)) == c.DICT
    half = [(b"%050d" % min(i, N - 4))[::-1] if i % 2 else b"" for i in range(N)]
    assert chosen(c.STR, half) == c.RAW
    assert chosen(c.STR, half, c.DICT) == c.DICT
    assert chosen(c.STR, [b"a", b"b"] * (N // 2)) == c.DICT
    assert chosen(c.BOOL, [0, 1] * (N // 2)) == c.BITMAP


def test_encode_from_any_row(kernels: _ext.Backend) -> None:
    for code in (c.I32, c.F64, c.STR, c.BOOL):
        name = {c.STR: "few null", c.BOOL: "mixed null"}.get(code, "few null")
        values = columns(code)[name]
        values = values + values
        buffer = filled(kernels, code, values)
        for start in (0, 1, 13, N - 1):
            chunk, _ = kernels.codecs.encode(buffer, start, start + N)
            again, _ = sealed(kernels, code, values[start : start + N])
            assert bytes(chunk.data) == bytes(again.data)
        for start, stop in ((0, 0), (0, 5), (-N, 0), (N, 0), (0, len(values) + N), (0, 65 * N)):
            with pytest.raises(ValueError):
                kernels.codecs.encode(buffer, start, stop)


def test_distinct(kernels: _ext.Backend) -> None:
    distinct = kernels.codecs.distinct
    assert distinct(filled(kernels, c.I64, [1, 2, None, 2, 0]), 10) == 3
    assert distinct(filled(kernels, c.I64, list(range(9000))), 10) == 11
    assert distinct(filled(kernels, c.F64, [0.0, -0.0, NAN, NAN, 1.0]), 10) == 4
    assert distinct(filled(kernels, c.F32, [0.5] * 100 + [None]), 0) == 1
    assert distinct(filled(kernels, c.STR, [b"a", b"", None, b"a"]), 5) == 2
    assert distinct(filled(kernels, c.BOOL, [1, 0, 1]), 5) == 2
    assert distinct(filled(kernels, c.STR, []), 5) == 0


# -- values ---------------------------------------------------------------------------


@every_case
def test_values_come_back(kernels: _ext.Backend, code: int, name: str) -> None:
    known = case(code, name)
    values, size, shown = known.values, known.size, known.shown
    chance = random.Random(5)
    some = [0, size - 1, *(chance.randrange(size) for _ in range(30))]
    many = [chance.randrange(size) for _ in range(size // 2)]
    for chunk in forms_of(kernels.name, code, name):
        assert (chunk.code, chunk.rows, chunk.null_count) == (code, size, sum(value is None for value in values))
        assert chunk.nbytes > 0
        assert same(chunk.take(), shown)
        for rows in (some, many, []):
            assert same(chunk.take(array("I", rows)), [shown[row] for row in rows])
            gathered = chunk.gather(array("I", rows))
            assert gathered.rows == len(rows)
            assert gathered.null_count == sum(values[row] is None for row in rows)
            assert same(gathered.tolist(), [shown[row] for row in rows])
        for row in some:
            assert same(chunk.fetch(row), shown[row])
            assert same(chunk.physical(row), values[row])
        decoded = chunk.decode()
        assert (decoded.code, decoded.rows, decoded.null_count) == (code, size, chunk.null_count)
        assert same(decoded.tolist(), shown)
        if code not in c.VARLEN:
            empty = 0.0 if code in c.FLOATS else 0
            assert all(same(value, empty) for value, given in zip(decoded.data.tolist(), values) if given is None)
        decoded.append(values[0])
        assert chunk.rows == size
        assert bytes(chunk.valid()) == known.once("valid", known.valid)
        for row in (-1, size, 1 << 33):
            with pytest.raises(IndexError):
                chunk.fetch(row)
            with pytest.raises(IndexError):
                chunk.physical(row)
        for call in (chunk.take, chunk.gather):
            with pytest.raises(IndexError):
                call(array("I", [0, size]))
            with pytest.raises(ValueError):
                call(array("H", [0]))


@every_case
def test_chunks_are_read_by_every_backend(code: int, name: str) -> None:
    known = case(code, name)
    values, shown = known.values, known.shown
    everyone = [_ext.backend(backend) for backend in _ext.available()]
    for writer in everyone:
        chunk, _ = sealed(writer, code, values)
        view = writer.codecs.Chunk.view(filled(writer, code, values), 8, N - 3)
        for reader in everyone:
            assert same(reader.codecs.Chunk(bytes(chunk.data)).take(), shown)
            assert same(reader.codecs.Chunk.adopt(chunk).take(), shown)
            other = reader.codecs.Chunk.adopt(view)
            assert type(other) is reader.codecs.Chunk and not other.sealed
            assert same(other.take(), shown[8 : N - 3])
            assert same(other.fetch(0), shown[8])
            assert rows_in(other.valid()) == [row for row in range(N - 11) if values[row + 8] is not None]
            assert bytes(other.valid()) == bytes(view.valid())


def test_float_bits_are_kept(kernels: _ext.Backend) -> None:
    for bits in (0x7FF8000000000001, 0xFFF8000000000123, 0x7FF0000000000001):
        data = array("Q", [bits] * N)
        for rows in (data, array("Q", [bits, 0] * (N // 2)), array("Q", [bits, *range(N - 1)])):
            buffer = kernels.values.ColumnBuffer.from_parts(c.F64, N, rows)
            chunk, _ = kernels.codecs.encode(buffer, 0, N)
            assert bytes(chunk.decode().data) == rows.tobytes()
    rows = array("I", [0x7F800001, 0xFFC00123] * (N // 2))
    chunk, _ = kernels.codecs.encode(kernels.values.ColumnBuffer.from_parts(c.F32, N, rows), 0, N)
    assert chunk.codec == c.DICT
    assert bytes(chunk.decode().data) == rows.tobytes()


def test_views_do_not_see_later_rows(kernels: _ext.Backend) -> None:
    for code, value in ((c.I64, 5), (c.STR, b"five"), (c.F64, 0.5)):
        buffer = filled(kernels, code, [value, None, value, value])
        view = kernels.codecs.Chunk.view(buffer)
        for _ in range(5000):
            buffer.append(value)
        buffer.append(None)
        assert (view.rows, view.null_count, view.sealed, view.codec) == (4, 1, False, c.RAW)
        shown = c.logical(code, value)
        assert view.take() == [shown, None, shown, shown]
        later = kernels.codecs.Chunk.view(buffer, 8, 20)
        assert (later.rows, later.take()) == (12, [shown] * 12)
        assert later.parts()[:2] == (code, 12)
        for start, stop in ((1, 4), (8, 7), (0, 10**6), (-8, 4)):
            with pytest.raises(ValueError):
                kernels.codecs.Chunk.view(buffer, start, stop)


def test_empty_view(kernels: _ext.Backend) -> None:
    for code in CODES:
        view = kernels.codecs.Chunk.view(filled(kernels, code, []))
        assert (view.rows, view.take(), view.count(), view.bounds()) == (0, [], 0, None)
        assert view.decode().rows == 0 and len(view.valid()) == 0 and len(view.select(None, None)) == 0
        assert [part.tolist() for part in view.group()] == [[], []]
        if code not in c.VARLEN:
            assert view.sum() == 0


# -- select -----------------------------------------------------------------------------


def matches(code: int, value: Any, low: Any, high: Any, low_open: bool, high_open: bool) -> bool:
    if value is None or value != value:
        return False
    if low is not None and (value < low or (low_open and value == low)):
        return False
    return not (high is not None and (value > high or (high_open and value == high)))


def probes(code: int, values: list[Any], chance: random.Random) -> list[Any]:
    present = [value for value in values if value is not None and value == value] or [b"" if code in c.VARLEN else 0]
    picked = [chance.choice(present) for _ in range(4)]
    if code in c.VARLEN:
        return [*picked, b"", b"m", b"\xff" * 50, picked[0] + b"\0"]
    if code in c.FLOATS:
        return [*map(float, picked), 0.0, -0.0, INF, -INF, 1e300, -1e-300, 5e-324, picked[0] + 1e-9, 0.1, 3.5e38, -1e39]
    low, high = c.LIMITS[code]
    return [*picked, 0, low, high, low - 1, high + 1, 2**100, -(2**100), picked[0] + 1, 3]


@every_case
def test_select(kernels: _ext.Backend, code: int, name: str) -> None:
    values = columns(code)[name]
    known = case(code, name)
    chance = random.Random(len(name))
    bounds = probes(code, values, chance)
    ranges = [(None, None), (None, bounds[0]), (bounds[1], None), (bounds[0], bounds[0])]
    ranges += [(chance.choice(bounds), chance.choice(bounds)) for _ in range(4)]
    open_ends = [(False, False)] if code in c.FLOATS else [(False, False), (True, False), (False, True), (True, True)]
    for chunk in forms_of(kernels.name, code, name):
        for low, high in ranges:
            low_open, high_open = chance.choice(open_ends)
            found = chunk.select(low, high, low_open, high_open)
            assert type(found) is bytearray and len(found) == mask_bytes(len(values))
            asked = low, high, low_open, high_open
            assert found == known.between(*asked), (chunk.codec, *asked)
        for count in (0, 1, 2, 3, 30):
            wanted_values = [chance.choice(bounds) for _ in range(count)]
            if code in c.FLOATS and count > 1:
                wanted_values.append(NAN)
            if count == 30:
                wanted_values += [value for value in values[:40] if value is not None]
            found = chunk.select_in(wanted_values)
            assert type(found) is bytearray and len(found) == mask_bytes(len(values))
            comparable = {value for value in wanted_values if value == value}
            assert found == known.among(comparable), chunk.codec


def column_strategy(code: int) -> Any:
    if code in c.VARLEN:
        value: Any = st.binary(max_size=4)
    elif code in c.FLOATS:
        width = 32 if code == c.F32 else 64
        value = st.one_of(st.floats(width=width), st.sampled_from([0.0, -0.0, 1.5, NAN, INF]))
    else:
        low, high = c.LIMITS[code]
        edge = [v for v in (low, low + 1, -1, 0, 1, high - 1, high) if low <= v <= high]
        value = st.one_of(st.integers(low, high), st.sampled_from(edge))
    return st.lists(st.one_of(value, st.none()) if code % 2 else value, min_size=1, max_size=40)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_column(data: Any) -> None:
    code = data.draw(st.sampled_from(CODES))
    few = data.draw(column_strategy(code))
    spread = data.draw(st.integers(1, 7))
    values = [few[(row * spread + row // 300) % len(few)] for row in range(N)]
    chance = random.Random(data.draw(st.integers(0, 99)))
    chosen = {row for row in range(N) if chance.random() < 0.5}
    mask = mask_of(chosen, N)
    bounds = probes(code, values, chance)
    low, high = chance.choice(bounds), chance.choice(bounds)
    wanted = [row for row, value in enumerate(values) if matches(code, value, low, high, False, False)]
    present = [row for row, value in enumerate(values) if value is not None]
    answers = []
    for backend in _ext.available():
        kernels = _ext.backend(backend)
        answer = []
        for chunk in forms(kernels, code, values)[:2]:
            if code not in DAYS:
                assert same(chunk.take(), [c.logical(code, value) for value in values])
            assert rows_in(chunk.select(low, high)) == wanted
            assert chunk.count(mask) == len(chosen.intersection(present))
            assert same(chunk.bounds(mask), bounds_reference(code, [values[row] for row in sorted(chosen)]))
            assert tuple(part.tolist() for part in chunk.group(mask)) == grouped(values, chosen)
            if code in c.FLOATS:
                assert same(chunk.sum(mask, 0.5), reference_sum(values, chosen, 0.5))
            elif code not in c.VARLEN:
                assert chunk.sum(mask, 3) == 3 + sum(values[row] or 0 for row in chosen)
            if chunk.sealed:
                answer.append(bytes(chunk.data))
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers)


# -- aggregates and groups ----------------------------------------------------------------


@functools.lru_cache(None)
def masks(size: int) -> list[tuple[Optional[set[int]], Any]]:
    """Sets of rows, and their masks."""
    chance = random.Random(size)
    found = [
        set(), set(range(size)), {0}, {size - 1, 77},
        {row for row in range(size) if chance.random() < 0.5}, {row for row in range(size) if chance.random() < 0.02},
    ]  # fmt: skip
    return [(None, None), *((chosen, bytes(mask_of(chosen, size))) for chosen in found)]


@every_case
def test_aggregates(kernels: _ext.Backend, code: int, name: str) -> None:
    known = case(code, name)
    size = known.size
    for chunk in forms_of(kernels.name, code, name):
        for which, (chosen, mask) in enumerate(masks(size)):
            picked = known.picked(which, chosen)
            assert chunk.count(mask) == sum(value is not None for value in picked)
            assert same(chunk.bounds(mask), known.bounds(which, chosen)), chunk.codec
            if code in c.FLOATS:
                for start in (0, 1e16, -0.25):
                    assert same(chunk.sum(mask, start), known.sum(which, chosen, float(start))), chunk.codec
            elif code in c.VARLEN:
                with pytest.raises(TypeError):
                    chunk.sum(mask)
            else:
                assert chunk.sum(mask) == sum(value for value in picked if value is not None)
                assert chunk.sum(mask, 2**70) == 2**70 + chunk.sum(mask)
        wrong = bytes(mask_bytes(size) + 8)
        for call in (chunk.sum, chunk.count, chunk.bounds, chunk.group):
            if code in c.VARLEN and call == chunk.sum:
                continue
            with pytest.raises(ValueError):
                call(wrong)


@every_case
def test_groups(kernels: _ext.Backend, code: int, name: str) -> None:
    known = case(code, name)
    for number, chunk in enumerate(forms_of(kernels.name, code, name)):
        for which, (chosen, mask) in list(enumerate(masks(known.size)))[::2]:
            codes, first = chunk.group(None if mask is None else bytearray(mask))
            assert (codes.format, first.format) == ("I", "I")
            found = codes.tolist(), first.tolist()
            assert found == known.grouped(which, chosen), (chunk.codec, chosen and len(chosen))
        for groups in (1, 5, 300):
            check_group_aggregates(chunk, known, group_codes(known.size, groups, number), groups, number)


@functools.lru_cache(None)
def group_codes(size: int, groups: int, number: int) -> Any:
    chance = random.Random(groups + number)
    return array("I", [chance.choice([NONE, *range(groups)]) for _ in range(size)])


def group_answers(code: int, values: list[Any], by: Any, groups: int) -> tuple[list[int], list[Any], list[Any]]:
    """(counts, bounds, sums) of groups."""
    members: list[list[tuple[int, Any]]] = [[] for _ in range(groups)]
    for row, (group, value) in enumerate(zip(by, values)):
        if group != NONE and value is not None:
            members[group].append((row, value))
    sums: list[Any] = []
    for member in members if code not in c.VARLEN else ():
        if code not in c.FLOATS:
            sums.append(sum(value for _, value in member))
            continue
        lanes = [0.0] * 4
        for row, value in member:
            lanes[row % 4] += value
        sums.append((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
    bounds = [bounds_reference(code, [value for _, value in member]) for member in members]
    return [len(member) for member in members], bounds, sums


def check_group_aggregates(chunk: Any, known: Case, codes: Any, groups: int, number: int) -> None:
    key = "groups", groups, number
    counts, bounds, sums = known.once(key, lambda: group_answers(known.code, known.values, codes, groups))
    assert chunk.group_count(codes, groups) == counts
    assert same(chunk.group_bounds(codes, groups), bounds), chunk.codec
    if known.code in c.FLOATS:
        assert same(chunk.group_sum(codes, groups), sums), chunk.codec
    elif known.code in c.VARLEN:
        with pytest.raises(TypeError):
            chunk.group_sum(codes, groups)
    else:
        assert chunk.group_sum(codes, groups) == sums


def test_group_codes_are_checked(kernels: _ext.Backend) -> None:
    for code in (c.I64, c.F64, c.STR):
        chunk, _ = sealed(kernels, code, columns(code)["few"][:N])
        calls = [chunk.group_count, chunk.group_bounds] + ([] if code == c.STR else [chunk.group_sum])
        for call in calls:
            for wrong in (array("I", [0] * (N - 1)), array("I", [2] * N), array("I", [0] * (N - 1) + [NONE - 1])):
                with pytest.raises(ValueError):
                    call(wrong, 2)
            with pytest.raises(ValueError):
                call(array("I", [NONE] * N), -1)


def test_large_sums_are_exact(kernels: _ext.Backend) -> None:
    for code in (c.I64, c.U64, c.DATETIME):
        low, high = c.LIMITS[code]
        values = [high - row for row in range(N)] + [low + row * 3 for row in range(N)] + [high, high - 7] * N
        for chunk in forms(kernels, code, values):
            assert chunk.sum() == sum(values)
            codes = array("I", [row % 3 for row in range(4 * N)])
            assert chunk.group_sum(codes, 3) == [sum(values[group::3]) for group in range(3)]


@pytest.mark.filterwarnings("error")
def test_signaling_nans_are_nothing_to_warn_of(kernels: _ext.Backend) -> None:
    bits = array("I", [0x7F800001 if row % 5 == 0 else 0x3F800000 + row for row in range(N)])
    chunk = kernels.codecs.Chunk(reference_chunks.chunk(c.RAW, c.F32, N, values=bits.tobytes()))
    codes = array("I", [row % 5 for row in range(N)])
    assert math.isnan(chunk.group_bounds(codes, 5)[0][0])
    assert math.isnan(chunk.group_sum(codes, 5)[0])
    assert math.isnan(chunk.sum())
    assert kernels.mask.count(chunk.select_in([1.0 + 2**-23, 7.0])) == 1
    assert kernels.mask.count(chunk.select(None, 2.0)) == N - len(range(0, N, 5))
    assert len(chunk.group()[1]) == N - len(range(0, N, 5)) + 1
