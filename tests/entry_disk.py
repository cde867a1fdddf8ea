"""Storage as an engine sees it, in memory, and columnar tables that live in it."""

from __future__ import annotations

import datetime as dt
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from model import bits

from snapdb import ColumnarTable, ColumnDef, Schema
from snapdb._ext._common import SEGMENT
from snapdb.errors import CorruptionError
from snapdb.pieces import Entry, Piece, Ref

SCHEMA = Schema(
    [
        ColumnDef("a", "i64"),
        ColumnDef("n", "u8", not_null=False),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("b", "bool", not_null=False),
        ColumnDef("t", "datetime", not_null=False),
    ]
)
PLAIN = Schema([ColumnDef("a", "i64"), ColumnDef("v", "f64"), ColumnDef("s", "str", not_null=False)])
NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc)

Stored = list[tuple[int, Optional[Entry]]]


class Disk:
    """Entries in a dict, extents of pieces in another: what storage is to an engine."""

    def __init__(self) -> None:
        self.tree: dict[int, Entry] = {}
        self.extents: dict[int, bytes] = {}
        self.asked: list[int] = []
        self.reads: list[Ref] = []
        self.written = 0
        self.keys: list[int] = []

    def entry(self, key: int) -> Optional[Entry]:
        self.asked.append(key)
        return self.tree.get(key)

    def read(self, ref: Ref) -> memoryview:
        self.reads.append(ref)
        data = self.extents.get(ref.extent, b"")[ref.at : ref.at + ref.length]
        if zlib.crc32(data) != ref.crc or len(data) != ref.length:
            raise CorruptionError("a piece does not verify", offset=ref.extent)
        return memoryview(data)

    def write(self, entry: Entry) -> Entry:
        """New pieces of an entry go to one extent."""
        place = 4096 * (len(self.extents) + 4)
        image = bytearray(128)
        spots = []
        for piece in entry.pieces:
            assert (piece.data is None) != (piece.ref is None)
            if piece.data is not None:
                image += bytes(-len(image) % 64)
                data = bytes(piece.data)
                spots.append((len(image), len(data), zlib.crc32(data)))
                image += data
                self.written += len(data)
        if spots:
            self.extents[place] = bytes(image)
        refs = iter([Ref(place, len(image) + -len(image) % 4096, *spot) for spot in spots])
        return Entry(
            entry.meta,
            [piece if piece.ref else Piece(piece.tag, piece.meta, None, next(refs)) for piece in entry.pieces],
        )

    def checkpoint(self, table: ColumnarTable) -> dict[str, Any]:
        """Write what has changed and forget what is not needed; the header as it comes back from JSON."""
        self.written, self.keys = 0, []
        stored: Stored = []
        for key, entry in table.changes():
            self.keys.append(key)
            stored.append((key, None if entry is None else self.write(entry)))
        assert self.keys == sorted(set(self.keys))
        for key, kept in stored:
            if kept is None:
                del self.tree[key]
            else:
                self.tree[key] = kept
        table.saved(stored)
        assert list(table.changes()) == []
        self.collect()
        header: dict[str, Any] = json.loads(json.dumps(table.header()))
        return header

    def collect(self) -> None:
        """Extents that no entry has are something else from now on."""
        used = {piece.ref.extent for entry in self.tree.values() for piece in entry.pieces if piece.ref}
        for place in self.extents:
            if place not in used:
                self.extents[place] = b""

    def replace(self, key: int, tag: int, data: Optional[bytes] = None, meta: Optional[bytes] = None) -> None:
        """Other bytes or another description of a piece, below a checksum that is right."""
        pieces = []
        for piece in self.tree[key].pieces:
            if piece.tag == tag:
                old = bytes(self.read(piece.ref)) if piece.ref else b""
                piece = Piece(tag, piece.meta if meta is None else meta, old if data is None else data)
            pieces.append(piece)
        self.tree[key] = self.write(Entry(b"", pieces))

    def data(self, key: int, tag: int) -> bytes:
        return next(bytes(self.read(piece.ref)) for piece in self.tree[key].pieces if piece.tag == tag and piece.ref)


def tag(kind: int, j: int = 0) -> int:
    return kind << 24 | j


def opened(disk: Disk, header: Mapping[str, Any], backend: str, schema: Schema = SCHEMA, **hints: Any) -> ColumnarTable:
    table = ColumnarTable("t", schema, backend=backend, **hints)
    table.adopt(header, disk)
    return table


def created(backend: str, schema: Schema = SCHEMA, **hints: Any) -> tuple[ColumnarTable, Disk]:
    disk = Disk()
    return opened(disk, {"rows": 0, "live": 0}, backend, schema, **hints), disk


def reopened(table: ColumnarTable, disk: Disk, backend: str, **hints: Any) -> ColumnarTable:
    return opened(disk, disk.checkpoint(table), backend, table.schema, **hints)


def bulk(table: ColumnarTable, disk: Disk, columns: Mapping[str, Any]) -> tuple[int, int, list[tuple[int, Entry]]]:
    """A batch by way of its entries; what the log would have."""
    made = table.prepare(table.stage_columns(columns))
    stored = [(key, disk.write(entry)) for key, entry in made.entries]
    assert table.publish(made, stored) == made.first
    return made.first, made.rows, stored


def plain(count: int, start: int = 0) -> dict[str, list[Any]]:
    ids = range(start, start + count)
    return {"a": list(ids), "v": [i * 0.5 for i in ids], "s": [f"s{i % 7}" for i in ids]}


def row(i: int) -> dict[str, Any]:
    return {
        "a": i * 1000, "n": None if i % 11 == 0 else i % 200,
        "f": (None, 0.0, -0.0, math.nan, i / 3, -1e300)[i % 6],
        "s": None if i % 13 == 0 else ("ü" * (i % 40) + str(i % 50)),
        "b": (None, True, False)[i % 3], "t": None if i % 17 == 0 else NOON + dt.timedelta(seconds=i),
    }  # fmt: skip


def columns_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    rows = list(rows)
    return {name: [one[name] for one in rows] for name in SCHEMA.names}


def state_of(table: ColumnarTable) -> tuple[Any, ...]:
    """Everything that a reader can see."""
    sums = [table.aggregate(name, agg) for name in ("a", "f") for agg in ("sum", "min", "max", "count")]
    return table.rows, len(table), bits(dict(table.items())), bits(sums)


def assert_sound(table: ColumnarTable) -> None:
    assert list(table.verify()) == []


def state_of_plain(table: ColumnarTable) -> tuple[Any, ...]:
    with table.view() as view:
        ids = [idx for k in range(view.segments()) if not view.dead(k) for idx in live_ids(view, k)]
    return table.rows, len(table), ids, *(table.select_column(name) for name in table.schema.names)


def live_ids(view: Any, k: int) -> list[int]:
    mask = view.live(k)
    rows = range(view.size(k)) if mask is None else view.kernels.mask.ids(mask).tolist()
    return [k * SEGMENT + at for at in rows]
