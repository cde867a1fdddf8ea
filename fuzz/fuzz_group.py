"""Images of slab groups: refused, or every row can be read, the same from each backend."""

from __future__ import annotations

import threading
from typing import Any

import driver
from kernels import BACKENDS, agree
from people import SCHEMA, people

from snapdb import _ext
from snapdb.rowstore import RowTable


def _table(backend: _ext.Backend) -> RowTable:
    return RowTable(SCHEMA, 512, backend=backend.name)


def _image(rows: int, gone: range) -> bytes:
    table = _table(BACKENDS[0])
    table.extend(table.stage(people(rows)))
    for idx in gone:
        table.slabs.delete(idx)
    return bytes(table.slabs.dump(0))


def seeds() -> list[bytes]:
    return [_image(1, range(0)), _image(40, range(3, 30, 4)), _image(9, range(9)), _image(150, range(20, 90))]


def one(data: bytes) -> None:
    agree(lambda backend: _load(backend, data))


def _load(backend: _ext.Backend, data: bytes) -> Any:
    slabs = _table(backend).slabs
    slabs.skip(200)
    slabs.load(0, data)
    view = slabs.pin()
    try:
        rows = [(idx, repr(row)) for idx, row in view.items()]
        raw = [(idx, bytes(row)) for idx, row in view.raw_items()]
        columns = [repr(view.gather(column, 0, 200).tolist()) for column in range(len(SCHEMA.names))]
    finally:
        view.release()
    assert len(raw) == len(rows)
    with threading.Lock():
        again = bytes(slabs.dump(0))
    return rows, raw, columns, again


if __name__ == "__main__":
    driver.main("group")
