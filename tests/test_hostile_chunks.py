"""Chunk bytes that are not trusted: a damaged chunk is refused by name or reads as what it says, never crashes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from chunk_columns import N, columns, filled, sealed

from snapdb import _ext
from snapdb._ext import _common as c

ENDS = {c.DATE: (-719162, 2932896), c.DATETIME: (-62135596800000000, 253402300799999999)}  # the years 1 to 9999


def touch(chunk: Any) -> None:
    """Ask a chunk for everything."""
    chunk.decode()
    chunk.valid()
    chunk.count()
    chunk.bounds()
    chunk.group()
    chunk.nbytes  # noqa: B018
    low: Any = b"a" if chunk.code in c.VARLEN else 0.5 if chunk.code in c.FLOATS else 1
    chunk.select(low, None)
    chunk.select(None, low)
    chunk.select_in([low, low + low])
    if chunk.code not in c.VARLEN:
        chunk.sum()
    for row in (0, chunk.rows - 1):
        chunk.physical(row)
        shown = chunk.fetch(row)  # dates too: one that Python does not have is refused with the chunk
        assert chunk.code != c.STR or shown is None or isinstance(shown, str)


HOSTILE = [
    (c.I64, "small null"), (c.I64, "up"), (c.U64, "few"), (c.I16, "wide"), (c.F64, "plain null"), (c.F32, "few null"),
    (c.STR, "few null"), (c.STR, "unique"), (c.BYTES, "const"), (c.BOOL, "mixed null"), (c.DATE, "const"),
    (c.DATE, "wide null"), (c.DATETIME, "few"), (c.DATETIME, "up"), (c.STR, "const"), (c.STR, "top"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "name"), HOSTILE)
def test_hostile_headers(kernels: _ext.Backend, code: int, name: str) -> None:
    whole = bytes(sealed(kernels, code, columns(code)[name][:N])[0].data)
    chance = random.Random(9)
    for place in range(128):
        for value in {whole[place] ^ (1 << chance.randrange(8)), whole[place] ^ 0xFF, 0, 0x7F}:
            hostile = bytearray(whole)
            hostile[place] = value
            try:
                chunk = kernels.codecs.Chunk(bytes(hostile))
            except ValueError:
                continue
            touch(chunk)
            if place >= 72:
                assert hostile == whole


@pytest.mark.parametrize(("code", "name"), HOSTILE)
def test_truncated_chunks_are_refused(kernels: _ext.Backend, code: int, name: str) -> None:
    whole = bytes(sealed(kernels, code, columns(code)[name][:N])[0].data)
    for size in {0, 1, 16, 71, 127, 128, 192, len(whole) // 2, len(whole) - 64, len(whole) - 1}:
        if size < len(whole):
            with pytest.raises(ValueError):
                kernels.codecs.Chunk(whole[:size])
    with pytest.raises(ValueError):
        kernels.codecs.Chunk(whole + bytes(64))


def test_hostile_sections(kernels: _ext.Backend) -> None:
    def put(whole: bytes, at: int, value: bytes) -> bytes:
        return whole[:at] + value + whole[at + len(value) :]

    refused = []
    unique = bytes(sealed(kernels, c.STR, columns(c.STR)["unique"][:N])[0].data)
    refused.append(put(unique, 128 + 4 * 10, struct.pack("<I", 2**31)))  # an offset past the heap
    refused.append(put(unique, 128 + 4 * 10, struct.pack("<I", 0)))  # offsets that fall
    refused.append(put(unique, 128, struct.pack("<I", 1)))  # offsets that do not start at 0
    words = bytes(sealed(kernels, c.STR, [b"a", b"b", b"d"] * 341 + [b"a"])[0].data)
    codes = struct.unpack_from("<Q", words, 40)[0]
    heap = struct.unpack_from("<Q", words, 56)[0]
    refused.append(put(words, codes, b"\xff" * 16))  # code 3 of 3 values
    refused.append(put(words, heap, b"cb"))  # not sorted
    refused.append(put(words, heap, b"bb"))  # not distinct
    floats = bytes(sealed(kernels, c.F64, [-1.0, 2.0] * 512)[0].data)
    heap = struct.unpack_from("<Q", floats, 56)[0]
    refused.append(put(floats, heap, struct.pack("<dd", 2.0, -1.0)))
    nulls = bytes(sealed(kernels, c.I64, columns(c.I64)["wide null"][:N])[0].data)
    refused.append(put(nulls, 128, bytes([nulls[128] ^ 1])))  # one null more than counted
    line = bytes(sealed(kernels, c.I32, list(range(N)))[0].data)
    refused.append(put(line, 24, struct.pack("<q", 2**31)))  # a sequence that leaves its type
    for hostile in refused:
        with pytest.raises(ValueError):
            kernels.codecs.Chunk(hostile)


def test_random_bodies_never_crash(kernels: _ext.Backend) -> None:
    chance = random.Random(11)
    for code, name in HOSTILE:
        whole = bytes(sealed(kernels, code, columns(code)[name][:N])[0].data)
        for _ in range(6):
            hostile = bytearray(whole)
            for _ in range(chance.choice([1, 8, 100])):
                hostile[chance.randrange(len(whole))] = chance.randrange(256)
            try:
                chunk = kernels.codecs.Chunk(bytes(hostile))
            except ValueError:
                continue
            touch(chunk)


def test_what_is_not_a_chunk(kernels: _ext.Backend) -> None:
    for data in (b"", bytes(128), bytes(4096), b"\xff" * 256):
        with pytest.raises(ValueError):
            kernels.codecs.Chunk(data)
    chunk, _ = sealed(kernels, c.I64, list(range(N)))
    view = kernels.codecs.Chunk.view(filled(kernels, c.I64, [1]))
    with pytest.raises(ValueError):
        chunk.parts()
    with pytest.raises(ValueError):
        view.data  # noqa: B018
    assert kernels.codecs.Chunk(memoryview(bytearray(chunk.data))).take() == list(range(N))


def raw(code: int, values: list[int]) -> bytes:
    """A RAW chunk of integers."""
    body = struct.pack(f"<{len(values)}{c.TYPECODES[code]}", *values)
    places = (0, 128, 0, 0, 128 + len(body))
    return struct.pack("<BBBBIIIqqQQQQQ", c.RAW, code, 0, 0, len(values), 0, 0, 0, 0, *places).ljust(128, b"\0") + body


@pytest.mark.parametrize("code", sorted(ENDS))
def test_dates_that_python_does_not_have(kernels: _ext.Backend, code: int) -> None:
    low, high = ENDS[code]
    least, most = c.LIMITS[code]
    chance = random.Random(code)
    few = [low, 0, high, 77]
    shapes: dict[str, Any] = {
        "raw": lambda value: [*few * 200, value, *few * 55, 1, 2, 3],
        "const": lambda value: [value] * N,
        "const null": lambda value: [None, value] * (N // 2),
        "dict": lambda value: [chance.choice([value, 0, few[3]]) for _ in range(N)],
        "for": lambda value: [value + (i % 9 if value < 0 else -(i % 9)) for i in range(N)],
        "for null": lambda value: [None if i % 5 == 0 else value - i % 9 * (1 if value > 0 else -1) for i in range(N)],
        "up": lambda value: [value - N + 1 + i if value > 0 else value + i for i in range(N)],
        "down": lambda value: [value - i if value > 0 else value + N - 1 - i for i in range(N)],
    }
    seen = set()
    for name, shape in shapes.items():
        for value in (low, high, low - 1, high + 1, least, most):
            fits = low <= value <= high
            values = shape(value)
            data = raw(code, values) if name == "raw" else bytes(sealed(kernels, code, values, c.DICT)[0].data)
            seen.add(data[0])
            if fits:
                chunk = kernels.codecs.Chunk(data)
                touch(chunk)
                assert [chunk.physical(row) for row in range(N)] == values
            else:
                with pytest.raises(ValueError, match="damaged chunk"):
                    kernels.codecs.Chunk(data)
    assert seen >= {c.RAW, c.CONST, c.AFFINE, c.FOR}
    with pytest.raises(ValueError, match="row 9: "):
        kernels.codecs.Chunk(raw(code, [0] * 9 + [high + 1] + [0] * (N - 10)))


def test_dates_in_a_dictionary(kernels: _ext.Backend) -> None:
    low, high = ENDS[c.DATETIME]
    for value, fits in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        data = bytes(sealed(kernels, c.DATETIME, [value, 0, 5, None] * (N // 4), c.DICT)[0].data)
        assert data[0] == c.DICT
        if fits:
            touch(kernels.codecs.Chunk(data))
        else:
            with pytest.raises(ValueError, match="entry [02]: "):
                kernels.codecs.Chunk(data)


def test_text_that_is_not_utf8(kernels: _ext.Backend) -> None:
    for wrong in (b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"a" * 40 + b"\xe2\x82", b"\xf4\x90\x80\x80"):
        shapes = {
            c.RAW: [b"%05d" % i for i in range(N - 1)] + [wrong],
            c.DICT: [b"a", b"b", wrong, b"\xc3\xa9"] * (N // 4),
            c.CONST: [wrong] * N,
        }
        for codec, values in shapes.items():
            for code in (c.STR, c.BINARY):
                data = bytes(sealed(kernels, code, values)[0].data)
                assert data[0] == codec
                if code == c.BINARY:
                    assert kernels.codecs.Chunk(data).take() == values
                    continue
                place = {c.RAW: f"row {N - 1}: ", c.DICT: "entry [0-3]: ", c.CONST: "its value is "}[codec]
                with pytest.raises(ValueError, match=place):
                    kernels.codecs.Chunk(data)
    halves = [b"%05d" % i for i in range(N - 2)] + [b"\xc3", b"\xa9"]  # whole text, cut inside a character
    with pytest.raises(ValueError, match=f"row {N - 2}: "):
        kernels.codecs.Chunk(bytes(sealed(kernels, c.STR, halves)[0].data))
    ends = ["\u00e9".encode(), b""] * 300 + [b"%05d" % i for i in range(N - 602)] + [b"", b""]
    assert kernels.codecs.Chunk(bytes(sealed(kernels, c.STR, ends)[0].data)).take()[-3:] == ["00421", "", ""]


@pytest.mark.parametrize("code", sorted(c.VARLEN))
def test_a_string_behind_a_null(kernels: _ext.Backend, code: int) -> None:
    """Each backend decoded it to something else."""
    values = [None if row % 7 == 3 else b"%05d" % row for row in range(N)]
    whole = bytes(sealed(kernels, code, values)[0].data)
    assert whole[0] == c.RAW
    offsets = struct.unpack_from("<Q", whole, 56 - 8)[0]
    for row, more, fits in ((10, 0, True), (10, 1, False), (3, 5, False), (1004, 2, False), (N - 1, 0, True)):
        ends = list(struct.unpack_from(f"<{N + 1}I", whole, offsets))
        ends[row] -= more  # the end of the row before
        hostile = bytearray(whole)
        struct.pack_into(f"<{N + 1}I", hostile, offsets, *ends)
        if fits:
            touch(kernels.codecs.Chunk(bytes(hostile)))
        else:
            with pytest.raises(ValueError, match=f"damaged chunk: row {row} is null and has {more} bytes"):
                kernels.codecs.Chunk(bytes(hostile))
