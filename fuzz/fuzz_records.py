"""Payloads of the log's frames, carried out on a table: CorruptionError, or rows that fit the schema."""

from __future__ import annotations

from typing import Any

import driver
from kernels import agree
from people import SCHEMA, people

from snapdb import _ext
from snapdb.columnar import ColumnarTable
from snapdb.errors import CorruptionError
from snapdb.records import BULK, Replay, Writer
from snapdb.rowstore import RowTable
from snapdb.storage.recovery import Frame
from snapdb.table import Change


def _table(engine: int, name: str) -> Any:
    table = RowTable(SCHEMA, 512, backend=name) if engine else ColumnarTable("t", SCHEMA, backend=name)
    table.extend(table.stage(people(12)))
    return table


def seeds() -> list[bytes]:
    table = _table(1, _ext.BACKEND)
    writer = Writer(table, 1 << 20)
    values = [table.codec.encode(row) for row in people(14)[12:]]
    records = [
        *writer.row(12, values[0]), *writer.rows(12, table.stage(people(14)[12:])), *writer.deletions([3, 5, 11]),
        *writer.changes([Change(2, [(1, b"new"), (2, None)]), Change(7, [(3, 0.5)])]), *writer.compacted(),
    ]  # fmt: skip
    return [bytes([engine, record.kind]) + bytes(record.payload) for engine in (0, 1) for record in records]


def one(data: bytes) -> None:
    engine, kind = data[0] & 1 if data else 0, data[1] % 9 if len(data) > 1 else 0
    payload = memoryview(data[2:])
    agree(lambda backend: _carry_out(engine, backend.name, [Frame(1, 1, kind, payload, True)]))


def _carry_out(engine: int, name: str, frames: list[Frame]) -> Any:
    table = _table(engine, name)
    if frames[0].kind == BULK:
        return None  # that needs a file: fuzz_wal.py and fuzz_file.py have it
    try:
        Replay(table, "t", lambda frame: None).run(frames)
    except CorruptionError:
        return "refused"
    rows = list(table.items())
    for _, row in rows:
        table.codec.encode(row)
    return repr(rows)


if __name__ == "__main__":
    driver.main("records")
