"""Chunks and plain columns: refused, or every question has an answer, the same from each backend."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import driver
from chunk_columns import columns, filled, sealed
from kernels import BACKENDS, agree

from snapdb import _ext
from snapdb._ext import _common as c

_CODES = (c.I64, c.U64, c.I16, c.U8, c.F64, c.F32, c.BOOL, c.STR, c.BYTES, c.DATE, c.DATETIME)


@lru_cache(maxsize=1)
def _seeds() -> list[bytes]:
    found = []
    backend = BACKENDS[0]
    for code in _CODES:
        for values in columns(code).values():
            found.append(b"\0" + bytes(sealed(backend, code, values[:1024])[0].data))
        buffer = filled(backend, code, next(iter(columns(code).values()))[:20])
        found.append(bytes([code]) + bytes(backend.values.pack_column(buffer)))
    return found


def seeds() -> list[bytes]:
    return _seeds()


def one(data: bytes) -> None:
    code, data = data[:1], data[1:]
    if code and code[0]:
        agree(lambda backend: _column(backend, data, code[0]))
    else:
        agree(lambda backend: _chunk(backend, data))


def _column(backend: _ext.Backend, data: bytes, code: int) -> Any:
    buffer = backend.values.unpack_column(data, code)
    again = bytes(backend.values.pack_column(buffer))
    return buffer.rows, buffer.null_count, again, repr(buffer.tolist()[:50])


def _chunk(backend: _ext.Backend, data: bytes) -> Any:
    chunk = backend.codecs.Chunk(data)
    some = struct.pack("<3I", 0, chunk.rows // 2, chunk.rows - 1) if chunk.rows else b""
    probe: Any = b"a" if chunk.code in c.VARLEN else 0.5 if chunk.code in c.FLOATS else 1
    answers = [
        chunk.codec, chunk.code, chunk.rows, chunk.null_count, bytes(chunk.valid()), chunk.count(),
        repr(chunk.bounds()), bytes(chunk.select(probe, None)), bytes(chunk.select_in([probe])),
        bytes(chunk.group()[0]), repr(chunk.take(memoryview(some).cast("I"))) if some else "",
    ]  # fmt: skip
    if chunk.code not in c.VARLEN:
        answers.append(repr(chunk.sum()))
    buffer = chunk.decode()  # what stands behind a null is nobody's business, and differs
    return [*answers, repr(buffer.tolist()), bytes(buffer.nulls or b"")]


if __name__ == "__main__":
    driver.main("segments")
