"""Packed rows and packed changes of rows: refused, or what packs to the same, the same from each backend."""

from __future__ import annotations

from typing import Any

import driver
from kernels import BACKENDS, agree
from people import SCHEMA, people

from snapdb import _ext
from snapdb.rowstore import RowTable

_CODECS = {backend.name: RowTable(SCHEMA, backend=backend.name).codec for backend in BACKENDS}


def seeds() -> list[bytes]:
    codec = _CODECS[BACKENDS[0].name]
    rows = [codec.encode(row) for row in people(6)]
    changes = [(idx, list(enumerate(values))[idx % 3 :: 2]) for idx, values in enumerate(rows)]
    packed = [b"\0" + bytes(codec.pack(values)) for values in rows]
    return [*packed, b"\1" + bytes(codec.pack_changes(changes)), b"\1" + bytes(8)]


def one(data: bytes) -> None:
    which, data = data[:1], data[1:]
    agree(lambda backend: _changes(backend, data) if which == b"\1" else _row(backend, data))


def _row(backend: _ext.Backend, data: bytes) -> Any:
    codec = _CODECS[backend.name]
    values = codec.unpack(data)
    buffers = codec.unpack_rows(data + data, [(0, len(data)), (len(data), 2 * len(data))])
    shown = codec.decode(values)
    assert codec.encode(shown) == values or any(value != value for value in values)
    return repr(values), bytes(codec.pack(values)), [repr(buffer.tolist()) for buffer in buffers], repr(shown)


def _changes(backend: _ext.Backend, data: bytes) -> Any:
    codec = _CODECS[backend.name]
    changes = codec.unpack_changes(data)
    return repr(changes), bytes(codec.pack_changes(changes))


if __name__ == "__main__":
    driver.main("rows")
