"""Chunk bytes that are not trusted: a damaged chunk is refused by name or reads as what it says, never crashes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from chunk_columns import DAYS, N, columns, filled, sealed

from snapdb import _ext
from snapdb._ext import _common as c


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
        if chunk.code not in DAYS:
            chunk.fetch(row)


HOSTILE = [
    (c.I64, "small null"), (c.I64, "up"), (c.U64, "few"), (c.I16, "wide"), (c.F64, "plain null"), (c.F32, "few null"),
    (c.STR, "few null"), (c.STR, "unique"), (c.BYTES, "const"), (c.BOOL, "mixed null"), (c.DATE, "const"),
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
