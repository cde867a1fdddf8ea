"""The columnar engine in a file: segments come when they are asked for, what has changed is all that is written, and a
transaction leaves nothing behind.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Callable, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import bits

from snapdb import ColumnarTable, ColumnDef, Schema, _ext
from snapdb._ext._common import BLOCK, LIMITS, SEGMENT, Zone
from snapdb.columnar_file import (
    DELETED,
    OVERLAY,
    SEALED,
    TAIL_ROWS,
    bitmap_from,
    overlay_bytes,
    overlay_from,
    zone_bytes,
    zone_from,
)
from snapdb.errors import CorruptionError, InternalError, SnapDBError
from snapdb.pieces import Entry, Piece, Ref
from snapdb.segments import Sealed, Unread
from snapdb.table import Change

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
            entry.meta, [piece if piece.ref else Piece(piece.tag, piece.meta, None, next(refs)) for piece in entry.pieces]
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


# -- anything in any order ---------------------------------------------------------------------------------------------


class Driver:
    """A table in a file and a dict of its rows, side by side."""

    def __init__(self, backend: str, hints: dict[str, Any]) -> None:
        self.backend, self.hints = backend, hints
        self.table, self.disk = created(backend, SCHEMA, **hints)
        self.rows: dict[int, dict[str, Any]] = {}
        self.positions = 0
        self.log: list[tuple[int, int, list[tuple[int, Entry]]]] = []
        self.before: Optional[tuple[dict[int, dict[str, Any]], int]] = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.rows.update(enumerate(rows, self.positions))
        self.positions += len(rows)

    def insert(self, draw: random.Random) -> None:
        rows = [row(draw.randrange(10_000)) for _ in range(draw.choice((1, 3, 60)))]
        for one in rows:
            self.table.insert(one)
        self.add(rows)

    def values(self, draw: random.Random) -> None:
        one = row(draw.randrange(10_000))
        self.table.append_values(self.table.codec.encode(one))
        self.add([one])

    def batch(self, draw: random.Random) -> None:
        rows = [row(i) for i in range(draw.choice((1, 700, 1100, 2500)))]
        self.table.batch_insert(rows)
        self.add(rows)

    def large(self, draw: random.Random) -> None:
        rows = [row(i) for i in range(draw.choice((5, 1500, 3000)))]
        bulk(self.table, self.disk, columns_of(rows))
        self.add(rows)

    def segment(self, draw: random.Random) -> None:
        """Past the end of a segment."""
        rows = [row(i % 5000) for i in range(SEGMENT + 10)]
        (self.table.insert_columns if draw.random() < 0.5 else partial(bulk, self.table, self.disk))(columns_of(rows))
        self.add(rows)

    def drop(self, draw: random.Random) -> None:
        ids = [idx for idx in self.rows if idx < SEGMENT]
        self.table.remove(ids)
        for idx in ids:
            del self.rows[idx]

    def ids(self, draw: random.Random, most: int) -> list[int]:
        known = list(self.rows)
        return draw.sample(known, min(len(known), draw.randrange(1, most)))

    def update(self, draw: random.Random) -> None:
        for idx in self.ids(draw, 12):
            given = dict(draw.sample(list(row(draw.randrange(10_000)).items()), 2))
            self.table.update(idx, given)
            self.rows[idx] = {**self.rows[idx], **given}

    def wear(self, draw: random.Random) -> None:
        given = {"f": draw.random(), "s": "x" * draw.choice((1, 50))}
        ids = self.ids(draw, 200)
        values = self.table.codec.encode_partial(given)
        self.table.apply([Change(idx, values) for idx in ids])
        for idx in ids:
            self.rows[idx] = {**self.rows[idx], **given}

    def delete(self, draw: random.Random) -> None:
        ids = self.ids(draw, 300) if self.rows else []
        self.table.remove(ids)
        for idx in ids:
            del self.rows[idx]

    def compact(self, draw: random.Random) -> None:
        self.table.compact()
        self.rows = dict(enumerate(self.rows.values()))
        self.positions = len(self.rows)

    def save(self, draw: random.Random) -> None:
        if self.before is None:
            self.disk.checkpoint(self.table)

    def reopen(self, draw: random.Random) -> None:
        if self.before is None:
            self.table = reopened(self.table, self.disk, self.backend, **self.hints)
            if draw.random() < 0.5:
                self.check()

    def begin(self, draw: random.Random) -> None:
        if self.before is None:
            self.table.begin()
            self.table.port.paused = True
            self.before = dict(self.rows), self.positions

    def end(self, draw: random.Random) -> None:
        if self.before is None:
            return
        if draw.random() < 0.4:
            self.table.commit()
        else:
            self.table.rollback()
            self.rows, self.positions = self.before
        self.table.port.paused = False
        self.before = None
        self.check()

    def check(self) -> None:
        table = self.table
        assert (table.rows, len(table)) == (self.positions, len(self.rows))
        assert repr(dict(table.items())) == repr(self.rows)  # tells 0.0 from -0.0 and True from 1, and is quick
        assert table.aggregate("a") == sum(one["a"] for one in self.rows.values())
        assert table.aggregate("s", "count") == sum(one["s"] is not None for one in self.rows.values())
        for idx in list(self.rows)[::500]:
            assert bits(table.get(idx)) == bits(self.rows[idx])
        assert_sound(table)


OPS = (
    "insert", "insert", "values", "batch", "large", "update", "update", "wear", "wear", "delete", "save", "save", "reopen",
    "begin", "begin", "end", "compact", "drop",
)  # fmt: skip
HINTS: list[dict[str, Any]] = [{}, {"dict_columns": ["s", "f"], "delta_columns": ["a"], "for_columns": ["n"]}]


def drive(backend: str, seed: int, steps: int, segments: bool = False) -> None:
    draw = random.Random(seed)
    driver = Driver(backend, draw.choice(HINTS))
    if segments:
        driver.segment(draw)
        driver.reopen(draw)
    for _ in range(steps):
        getattr(driver, draw.choice(OPS[: len(OPS) - (len(driver.rows) < SEGMENT)]))(draw)
    driver.check()
    driver.end(draw)
    driver.reopen(draw)
    driver.check()


@pytest.mark.parametrize("backend", _ext.available())
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40))
def test_a_table_in_a_file_and_a_model(backend: str, seed: int, steps: int) -> None:
    drive(backend, seed, steps)


@pytest.mark.parametrize("seed", range(3))
def test_several_segments_and_a_model(seed: int) -> None:
    drive(_ext.available()[0], seed, 20, True)


def test_segments_of_all_kinds(backend_name: str) -> None:
    """Dead, updated, with deleted rows, open: all come back, and so do the entries of a copy."""
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(3 * SEGMENT + 1500))
    table.remove(range(SEGMENT))
    table.remove(range(SEGMENT + 5, SEGMENT + 90))
    table.remove([3 * SEGMENT + 3])
    for i in range(2 * SEGMENT, 2 * SEGMENT + 40):
        table.update(i, {"s": None, "v": -1.0})
    expected = state_of_plain(table)
    again = reopened(table, disk, backend_name)
    assert sorted(disk.tree) == [1, 2, 3]
    assert state_of_plain(again) == expected
    assert again.get(7) is None and again.get(SEGMENT + 6) is None and again.get(2 * SEGMENT + 5) == table.get(
        2 * SEGMENT + 5
    )
    assert_sound(again)
    copy = Disk()
    copy.tree = {key: copy.write(entry) for key, entry in again.entries()}
    memory = ColumnarTable("m", PLAIN, backend=backend_name)
    memory.insert_columns(plain(2000))
    assert [key for key, _ in memory.entries()] == [0]
    third = opened(copy, again.header(), backend_name, PLAIN)
    assert state_of_plain(third) == expected
    third.compact()
    assert state_of_plain(third)[1:3] == (expected[1], list(range(expected[1])))
    fourth = reopened(third, copy, backend_name)
    assert sorted(copy.tree) == [0, 1, 2] and len(fourth) == expected[1]
    assert_sound(fourth)


def state_of_plain(table: ColumnarTable) -> tuple[Any, ...]:
    with table.view() as view:
        ids = [idx for k in range(view.segments()) if not view.dead(k) for idx in live_ids(view, k)]
    return table.rows, len(table), ids, *(table.select_column(name) for name in table.schema.names)


def live_ids(view: Any, k: int) -> list[int]:
    mask = view.live(k)
    rows = range(view.size(k)) if mask is None else view.kernels.mask.ids(mask).tolist()
    return [k * SEGMENT + at for at in rows]


def test_backends_read_each_others_segments() -> None:
    tables = []
    for backend in _ext.available():
        table, disk = created(backend)
        table.batch_insert([row(i) for i in range(2500)])
        table.update(3, {"f": 0.25})
        table.remove([5])
        tables.append((disk.checkpoint(table), disk, state_of(table)))
    assert all(one.tree == tables[0][1].tree and one.extents == tables[0][1].extents for _, one, _ in tables)
    for backend in _ext.available():
        for header, disk, state in tables:
            assert state_of(opened(disk, header, backend)) == state


# -- what is written -----------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_written(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(200_000))
    whole = disk.checkpoint(table)
    assert disk.written > 100_000 and disk.keys == [0, 1, 2, 3]
    disk.checkpoint(table)
    assert disk.keys == [] and disk.written == 0
    table.update(70_000, {"v": -5.0})
    disk.checkpoint(table)
    assert disk.keys == [1] and 0 < disk.written < 100
    table.update(70_001, {"a": -5})
    disk.checkpoint(table)
    assert disk.keys == [1] and 0 < disk.written < 100  # the overlay of the other column stays
    table.insert({"a": 1, "v": 1.0, "s": "x"})
    disk.checkpoint(table)
    rows = 200_001 % BLOCK  # in the last piece of the tail
    assert disk.keys == [3] and 0 < disk.written < rows * 40
    table.remove([7])
    disk.checkpoint(table)
    assert disk.keys == [0] and disk.written == SEGMENT // 8
    table = opened(disk, {**whole, "rows": table.rows, "live": len(table)}, backend_name, PLAIN)
    assert list(table.changes()) == []
    table.update(150_000, {"s": "y"})
    disk.checkpoint(table)
    assert disk.keys == [2] and disk.written < 100
    assert_sound(table)


def test_full_pieces_of_a_tail_are_written_once(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    for i in range(3000):
        table.insert({"a": i, "v": 0.5, "s": "x"})
    disk.checkpoint(table)
    full = disk.written
    for i in range(10):
        table.insert({"a": i, "v": 0.5, "s": "x"})
    disk.checkpoint(table)
    assert 0 < disk.written < full * 0.4
    again = opened(disk, table.header(), backend_name, PLAIN)
    again.batch_insert([{"a": 1, "v": 0.5, "s": None}] * 5)  # folded: the tail is long
    assert again.select_column("a") == [*range(3000), *range(10), *[1] * 5]
    disk.checkpoint(again)
    third = opened(disk, again.header(), backend_name, PLAIN)
    third.batch_insert([{"a": 2, "v": 0.5, "s": None}] * 5)  # the tail is a copy with more rows
    places = [piece.ref for piece in disk.tree[0].pieces]
    disk.checkpoint(third)
    assert [piece.tag >> 24 for piece in disk.tree[0].pieces] == [SEALED] * 3 + [TAIL_ROWS] * 3
    assert [piece.ref for piece in disk.tree[0].pieces][:3] == places[:3]
    assert third.select_column("a")[-6:] == [1, 2, 2, 2, 2, 2]


def test_a_checkpoint_that_failed_is_made_again(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(2000))
    table.update(3, {"v": 9.0})
    lost = [key for key, _ in table.changes()]
    assert lost == [0]
    table.insert({"a": 1, "v": 1.0, "s": "x"})
    assert len(reopened(table, disk, backend_name)) == 2001


def test_rewritten_extents_are_found(backend_name: str) -> None:
    """Storage may put pieces elsewhere when it writes an entry: what is not read yet is looked for there."""
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 10))
    table = reopened(table, disk, backend_name)
    with table.view() as view:
        table.remove([4])
        stored: Stored = []
        for key, entry in table.changes():
            assert entry is not None
            whole = [Piece(p.tag, p.meta, p.data if p.ref is None else bytes(disk.read(p.ref))) for p in entry.pieces]
            stored.append((key, disk.write(Entry(b"", whole))))
        disk.tree.update({key: entry for key, entry in stored if entry is not None})
        table.saved(stored)
        disk.collect()
        assert view.whole(0, 0).take()[:3] == [0, 1, 2]
    assert table.get(3) == {"a": 3, "v": 1.5, "s": "s3"}
    assert_sound(table)


def test_a_view_outlives_its_segments(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(2 * SEGMENT + 10))
    for change in (lambda it: it.remove(range(SEGMENT)), lambda it: it.compact()):
        opened_again = reopened(table, disk, backend_name)
        opened_again.remove([SEGMENT + 1])
        view = opened_again.view()
        change(opened_again)
        disk.checkpoint(opened_again)  # extents that no entry has are something else now
        disk.checkpoint(opened_again)
        assert view.whole(0, 0).take() == list(range(SEGMENT))
        assert view.whole(1, 1).take()[:3] == [SEGMENT * 0.5, SEGMENT * 0.5 + 0.5, SEGMENT * 0.5 + 1.0]
        table, disk = created(backend_name, PLAIN)
        table.insert_columns(plain(2 * SEGMENT + 10))


# -- what is read ------------------------------------------------------------------------------------------------------


def test_segments_are_read_when_they_are_needed(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(5 * SEGMENT + 2000))
    header = disk.checkpoint(table)
    disk.reads, disk.asked = [], []
    table = opened(disk, header, backend_name, PLAIN)
    opening = len(disk.reads)
    assert disk.asked == [5] and opening <= 6
    assert table.get(3 * SEGMENT + 7) == {"a": 3 * SEGMENT + 7, "v": (3 * SEGMENT + 7) * 0.5, "s": f"s{(3*SEGMENT+7)%7}"}
    assert disk.asked == [5, 3]
    assert {ref.extent for ref in disk.reads[opening:]} == {p.ref.extent for p in disk.tree[3].pieces if p.ref}
    assert len(disk.reads) == opening + 3
    assert type(table.column_list[0].parts[1]) is Unread
    disk.reads.clear()
    count = 5 * SEGMENT + 2000
    assert table.aggregate("a", "min") == 0 and table.aggregate("a", "max") == count - 1
    assert table.aggregate("v", "count") == count and table.aggregate("a") == count * (count - 1) // 2
    assert table.count_where([("a", "lt", -1)]) == 0 and table.count_where([("a", "gte", 0)]) == count
    assert len(table) == count and SEGMENT in table.view()._zones[0] or True
    assert disk.reads == []
    assert type(table.column_list[0].parts[1]) is Sealed
    assert table.contains(SEGMENT + 1) and len(disk.reads) == 1
    assert table.count_where([("a", "eq", 2 * SEGMENT + 3)]) == 1 and len(disk.reads) == 2
    assert table.select_where([("a", "eq", 2 * SEGMENT + 3)], ["v"]) == [{"v": (2 * SEGMENT + 3) * 0.5}]
    assert len(disk.reads) == 3
    used = table.memory_usage()
    assert len(table.select_column("s")) == count and table.memory_usage() > used
    assert table.columns["a"].encoding == "delta"


def test_views_share_what_is_read(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(2 * SEGMENT))
    table = reopened(table, disk, backend_name)
    first, second = table.view(), table.view()
    disk.reads.clear()
    assert first.whole(0, 0).rows == SEGMENT and second.whole(0, 0).rows == SEGMENT and table.contains(1)
    assert len(disk.reads) == 1


def test_deleted_and_updated_rows_are_seen_at_once(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(2 * SEGMENT + 5))
    table.remove([9])
    table.update(8, {"s": "new", "v": None} if False else {"s": "new"})
    header = disk.checkpoint(table)
    for ask in (
        lambda it: (it.get(9), it.contains(9), it.get(8)["s"]) == (None, False, "new"),
        lambda it: not it.contains(9) and it.get(8)["s"] == "new",
        lambda it: it.update(8, {"a": 1}) is None and it.get(8) == {"a": 1, "v": 4.0, "s": "new"},
        lambda it: it.delete(8) is None and it.get(8) is None and len(it) == 2 * SEGMENT + 3,
        lambda it: it.column_list[2][8] == "new" and it.column_list[0][SEGMENT + 1] == SEGMENT + 1,
        lambda it: list(it.column_buffer("a")[7:10]) == [7, 8, 0],
        lambda it: it.columns["s"].encodings == ["dict", "dict", "str"],
        lambda it: it.columns["a"].encoding == "delta" and it.column_stats()["a"]["encoding"] == "delta",
        lambda it: it.remove(range(10, SEGMENT)) is None and len(it) == SEGMENT + 14,
    ):
        table = opened(disk, header, backend_name, PLAIN)
        assert ask(table)
    with pytest.raises(KeyError):
        opened(disk, header, backend_name, PLAIN).update(9, {"a": 1})


def test_hints_come_back(backend_name: str) -> None:
    hints: dict[str, Any] = {"dict_columns": ["s", "f"], "delta_columns": ["a"], "for_columns": ["n"]}
    table, disk = created(backend_name, SCHEMA, **hints)
    table.batch_insert([{**row(i), "f": 0.5, "n": i % 9} for i in range(100)])
    assert [table.columns[name].hint for name in "sfan"] == ["dict", "dict", "delta", "for"]
    disk.checkpoint(table)
    table = opened(disk, json.loads(json.dumps(table.header())), backend_name, SCHEMA, **hints)
    assert [table.columns[name].hint for name in "sfan"] == ["dict", "dict", "delta", "for"]
    table.insert({**row(1), "a": -1})
    assert table.columns["a"].hint is None
    table = reopened(table, disk, backend_name, **hints)
    assert table.columns["a"].hint is None and table.columns["s"].hint == "dict"
    wide, other = created(backend_name, PLAIN, dict_columns=["a"], dict_threshold=100_000)
    wide.insert_columns(plain(6000))
    assert wide.columns["a"].hint == "dict"
    header = other.checkpoint(wide)
    assert len(json.dumps(header)) < 1000
    assert opened(other, header, backend_name, PLAIN).columns["a"].hint == "dict"
    for damaged in ({"a": {}}, {"a": 7}, 5, {"a": {**header["hints"]["a"], "seen": -1}}):
        with pytest.raises(CorruptionError):
            opened(other, {**header, "hints": damaged}, backend_name, PLAIN)


# -- large batches -----------------------------------------------------------------------------------------------------


def test_a_prepared_batch_changes_nothing_until_it_is_published(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 500))
    table.update(SEGMENT + 7, {"v": -1.0})
    table.remove([SEGMENT + 8])
    header = disk.checkpoint(table)
    before = state_of_plain(table)
    made = table.prepare(table.stage_columns(plain(SEGMENT + 9, SEGMENT + 500)))
    assert state_of_plain(table) == before and [key for key, _ in made.entries] == [1, 2]
    stored = [(key, disk.write(entry)) for key, entry in made.entries]
    with pytest.raises(ZeroDivisionError):
        table.publish(made, stored, first=[partial(divmod, 1, 0)])
    assert state_of_plain(table) == before
    told: list[int] = []
    assert table.publish(made, stored, [partial(told.append, 2)], [partial(told.append, 1)]) == SEGMENT + 500
    assert told == [1, 2]
    after = state_of_plain(table)
    assert after[0] == 2 * SEGMENT + 509 and after[3][-1] == 2 * SEGMENT + 508
    with pytest.raises(InternalError):
        table.publish(made, stored)
    # the log's side of it
    again = opened(disk, header, backend_name, PLAIN)
    again.remove([SEGMENT + 9])  # a frame between
    disk.reads.clear()
    again.replay(made.first, made.rows, stored)
    assert state_of_plain(again)[2:4] == ([i for i in after[2] if i != SEGMENT + 9], [i for i in after[3] if i != SEGMENT + 9])
    assert_sound(again)
    for one in (table, again):
        wrote = disk.written
        assert all(piece.ref for _, entry in one.changes() if entry for piece in entry.pieces[:3])
        assert disk.written == wrote
    assert state_of_plain(reopened(table, disk, backend_name)) == after
    assert disk.written < 10


@pytest.mark.parametrize("rows", [1, 1023, 1024, SEGMENT - 700, SEGMENT, 2 * SEGMENT - 700])
def test_batches_of_any_size_are_replayed(backend_name: str, rows: int) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(700))
    table.update(699, {"s": "new"})
    table.remove([698])
    header = disk.checkpoint(table)
    first, count, stored = bulk(table, disk, plain(rows, 700))
    table.insert({"a": -1, "v": 0.0, "s": "end"})
    again = opened(disk, header, backend_name, PLAIN)
    again.replay(first, count, stored)
    again.insert({"a": -1, "v": 0.0, "s": "end"})
    assert state_of_plain(again) == state_of_plain(table)
    assert_sound(again)
    assert state_of_plain(reopened(again, disk, backend_name)) == state_of_plain(table)
    for bad in ((first + 1, count, stored), (first, count + SEGMENT, stored), (first, 0, stored), (first, count, [])):
        with pytest.raises(CorruptionError):
            opened(disk, header, backend_name, PLAIN).replay(*bad)


def test_a_segment_that_came_and_went_is_not_written(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    bulk(table, disk, plain(SEGMENT + 5))
    table.remove(range(SEGMENT))
    disk.checkpoint(table)
    assert disk.keys == [1] and disk.written == 0
    table.remove([SEGMENT])
    table.compact()
    disk.checkpoint(table)
    assert sorted(disk.tree) == [0] and disk.keys == [0, 1]


# -- transactions --------------------------------------------------------------------------------------------------


def fold(table: ColumnarTable) -> None:
    for i in range(8300):
        table.insert({"a": i, "v": 0.25, "s": None})


def reseal(table: ColumnarTable) -> None:
    values = table.codec.encode_partial({"v": -9.0, "s": "worn"})
    table.apply([Change(idx, values) for idx in range(10, 3010)])
    assert not table.column_list[1].overlays.get(0)


WRITES: dict[str, Callable[[ColumnarTable], Any]] = {
    "insert": lambda it: it.insert({"a": 1, "v": 2.0, "s": "in"}),
    "append_values": lambda it: it.append_values([1, 2.0, b"in"]),
    "batch": lambda it: it.batch_insert([{"a": 1, "v": 2.0, "s": "in"}] * 5),
    "sealed batch": lambda it: it.insert_columns(plain(3000)),
    "several segments": lambda it: it.insert_columns(plain(3 * SEGMENT)),
    "update": lambda it: it.update(5, {"a": -1, "s": None}),
    "update of the tail": lambda it: it.update(SEGMENT + 1999, {"a": -1, "s": "x" * 99}),
    "updates": reseal,
    "delete": lambda it: it.remove([3, SEGMENT + 4]),
    "drop": lambda it: it.remove(range(SEGMENT)),
    "fold": fold,
    "compact": lambda it: it.compact(),
    "everything": lambda it: [WRITES[name](it) for name in ("batch", "updates", "fold", "update", "drop", "compact")],
}


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("write", WRITES)
def test_rollback(backend_name: str, write: str, where: str) -> None:
    table, disk = created(backend_name, PLAIN)
    if where == "memory":
        table = ColumnarTable("t", PLAIN, backend=backend_name, dict_columns=["s"])
    table.insert_columns(plain(SEGMENT + 2000))
    table.update(6, {"v": -4.0})
    table.update(SEGMENT + 1998, {"v": -4.0})
    table.remove([7, SEGMENT + 1])
    if where == "file":
        table = reopened(table, disk, backend_name, dict_columns=["s"])
    before = state_of_plain(ColumnarTable.view(table) and table) if where == "memory" else None
    with table.writing():
        table.begin()
        WRITES[write](table)
        during = table.view()
        size = during.rows, [during.whole(0, k).take()[-2:] for k in range(during.segments()) if not during.dead(k)]
        WRITES["insert"](table)
        table.rollback()
        assert size == (
            during.rows, [during.whole(0, k).take()[-2:] for k in range(during.segments()) if not during.dead(k)]
        )  # fmt: skip
    assert table.rows == SEGMENT + 2000 and len(table) == SEGMENT + 1998
    assert table.select_column("a") == [i for i in range(SEGMENT + 2000) if i not in (7, SEGMENT + 1)]
    assert table.get(6) == {"a": 6, "v": -4.0, "s": "s6"} and table.get(SEGMENT + 1998)["v"] == -4.0  # type: ignore[index]
    assert before is None or state_of_plain(table) == before
    assert list(table.column_buffer("a")[5:9]) == [5, 6, 0, 8]
    assert_sound(table)
    assert table.insert({"a": 1, "v": 1.0, "s": "next"}) == SEGMENT + 2000
    WRITES["update"](table)
    if where == "file":
        again = reopened(table, disk, backend_name)
        assert state_of_plain(again) == state_of_plain(table)
        assert_sound(again)


def test_rollback_of_a_batch_that_was_written(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(500))
    table.update(3, {"a": -3})
    disk.checkpoint(table)
    table.update(4, {"a": -4})
    before = state_of_plain(table)
    for rows in (5, 600, SEGMENT):
        with table.writing():
            table.begin()
            bulk(table, disk, plain(rows))
            table.update(10, {"v": 0.0})
            table.rollback()
        assert state_of_plain(table) == before
        assert_sound(table)
    assert state_of_plain(reopened(table, disk, backend_name)) == before
    with table.writing():
        table.begin()
        bulk(table, disk, plain(SEGMENT))
        table.commit()
    assert len(reopened(table, disk, backend_name)) == SEGMENT + 500


def test_commit_keeps_everything(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 2000))
    table = reopened(table, disk, backend_name)
    with table.writing():
        table.begin()
        WRITES["everything"](table)
        table.commit()
        table.rollback()  # there is nothing to take back any more
    assert len(table) > 2000
    assert state_of_plain(reopened(table, disk, backend_name)) == state_of_plain(table)


def test_what_raises_before_a_change_leaves_the_table_as_it_was(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 2000))
    table = reopened(table, disk, backend_name)
    before = state_of_plain(table)
    bad: list[Any] = [partial(divmod, 1, 0)]
    batch = table.stage_columns(plain(3000))
    change = [Change(idx, table.codec.encode_partial({"a": 5})) for idx in (4, SEGMENT + 1)]
    for write in (
        lambda: table.append_values([1, 2.0, b""], bad),
        lambda: table.extend(batch, [], bad),
        lambda: table.apply(change, [], bad),
        lambda: table.apply(change[:1], [], bad),
        lambda: table.remove([3], [], bad),
        lambda: table.remove(range(SEGMENT), [], bad),
        lambda: table.compact([], bad),
    ):
        with pytest.raises(ZeroDivisionError):
            write()
        assert state_of_plain(table) == before
    assert_sound(table)
    told: list[str] = []
    order: Any = {"then": [partial(told.append, "then")], "first": [partial(told.append, "first")]}
    table.extend(batch, **order)
    table.apply(change, **order)
    table.remove([3], **order)
    table.compact(**order)
    table.append_values([1, 2.0, b""], order["first"])
    assert told == ["first", "then"] * 4 + ["first"]
    with pytest.raises(KeyError):  # said before anything is told
        table.apply([Change(10**9, change[0].values)], **order)
    assert told[-1] == "first" and len(told) == 9


# -- bytes ---------------------------------------------------------------------------------------------------------

ZONES: list[tuple[int, Zone]] = [
    (4, Zone(-5, 2**63 - 1, True, 3, 0, 2**70)),
    (8, Zone(0, 2**64 - 1, False, 0, 0, None)),
    (4, Zone(None, None, True, 1024, 0, 0)),
    (10, Zone(-math.inf, 2.5, True, 1, 2, -0.0)),
    (10, Zone(None, None, False, 2, 2, None)),
    (9, Zone(0.5, 0.5, True, 0, 0, math.inf)),
    (13, Zone(b"", b"z" * 32, True, 0, 0, None)),
    (13, Zone(b"a", None, False, 0, 0, None)),
    (11, Zone(0, 1, True, 0, 0, 500)),
    (15, Zone(*LIMITS[4][:0], -719_162, 2_932_896, True, 0, 0, 5)),
]


def test_zone_maps_come_back() -> None:
    for code, zone in ZONES:
        assert bits(zone_from(zone_bytes(zone, 1024, code), code)) == bits((1024, zone))
    low, high = b"a" * 40, b"b" * 31 + b"\xff" * 9
    rows, zone = zone_from(zone_bytes(Zone(low, high, False, 5000, 0, None), 2048, 13), 13)
    assert (rows, zone) == (2048, Zone(b"a" * 32, b"b" * 30 + b"c", False, 2048, 0, None)) and zone.hi > high  # type: ignore[operator]
    assert zone_from(zone_bytes(Zone(b"", b"\xff" * 33, False, 0, 0, None), 1024, 13), 13)[1].hi is None
    data = zone_bytes(ZONES[0][1], 1024, 4)
    assert data[:16] == struct.pack("<BxxxIII", 1 | 2 | 4 | 8, 1024, 3, 0) and len(data) == 64


def test_damaged_zone_maps() -> None:
    for code, zone in ZONES:
        data = zone_bytes(zone, 1024, code)
        for bad in (data[:-1], data + b"\0", data[:15], b""):
            with pytest.raises(ValueError, match="zone map"):
                zone_from(bad, code)
        other = 13 if code != 13 else 4
        with pytest.raises(ValueError, match="flags"):
            zone_from(data, other)
        for at in range(len(data)):
            for flip in (1, 0x80, 0xFF):
                changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
                try:
                    rows, found = zone_from(changed, code)
                except ValueError:
                    continue
                assert 0 < rows <= SEGMENT and rows % BLOCK == 0 and found.nulls <= rows


def test_overlays_come_back(kernels: _ext.Backend) -> None:
    for code, overlay in (
        (4, {0: 5, 65535: -1, 7: None}),
        (13, {1: b"", 2: b"\xff" * 100, 3: None}),
        (10, {9: 0.5}),
        (11, {1: 1, 2: 0}),
    ):
        data = overlay_bytes(kernels, code, overlay)
        assert overlay_from(kernels, code, data, SEGMENT) == overlay
        other = bytes([data[0] ^ 3])
        for bad in (data[:-1], data[:7], data[:9], b"", data + bytes(8), other + data[1:], data[:4] + b"\7" + data[5:]):
            with pytest.raises(ValueError):
                overlay_from(kernels, code, bad, SEGMENT)
        with pytest.raises(ValueError, match="rise or are outside"):
            overlay_from(kernels, code, data, max(overlay))
    twice = bytearray(overlay_bytes(kernels, 4, {3: 1, 4: 2}))
    twice[10] = 3
    with pytest.raises(ValueError, match="rise"):
        overlay_from(kernels, 4, twice, SEGMENT)
    late = overlay_bytes(kernels, 15, {3: 3_000_000})
    with pytest.raises(ValueError, match="years"):
        overlay_from(kernels, 15, late, SEGMENT)


def test_bitmaps_of_deleted_rows(kernels: _ext.Backend) -> None:
    mask = kernels.mask.empty(SEGMENT)
    kernels.mask.set_bit(mask, 99)
    assert bitmap_from(kernels, bytes(mask), 100) == mask
    for bad, size in ((mask, 99), (mask[:-8], SEGMENT), (mask + bytes(8), SEGMENT), (b"", SEGMENT)):
        with pytest.raises(ValueError):
            bitmap_from(kernels, bytes(bad), size)


# -- damage below the checksums ------------------------------------------------------------------------------------


@pytest.fixture
def damaged(backend_name: str) -> tuple[Disk, dict[str, Any], str]:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 3000))
    table.update(4, {"s": "u"})
    table.update(SEGMENT + 2999, {"a": 9})
    table.remove([5, SEGMENT + 6])
    return disk, disk.checkpoint(table), backend_name


def refuse(case: tuple[Disk, dict[str, Any], str], header: Optional[dict[str, Any]] = None) -> None:
    """Whatever reads the damaged part says that it is damaged, and verify() tells it too."""
    disk, good, backend = case
    try:
        table = opened(disk, good if header is None else header, backend, PLAIN)
    except CorruptionError:
        return
    assert list(table.verify()) != []
    with pytest.raises(CorruptionError):
        table.select()
    for ask in (
        lambda: table.get(3), lambda: table.update(3, {"a": 1}), lambda: table.remove([3]), lambda: table.get(SEGMENT + 3)
    ):  # fmt: skip
        try:
            ask()
        except CorruptionError:
            return
    raise AssertionError("no damage was found")


@pytest.mark.parametrize("header", [
    {}, {"rows": 5}, {"rows": "5", "live": 5}, {"rows": 5, "live": 6}, {"rows": -1, "live": -1}, {"rows": 2**60, "live": 0},
    {"rows": True, "live": True}, {"rows": 1.0, "live": 1.0}, {"rows": 5, "live": None}, {"rows": 2 * SEGMENT, "live": 7},
    {"rows": SEGMENT, "live": 7}, {"rows": SEGMENT + 2999, "live": 7}, {"rows": SEGMENT + 3001, "live": 7},
    {"rows": 3000, "live": 7}, {"rows": 3 * SEGMENT + 3000, "live": 7},
])  # fmt: skip
def test_headers_that_cannot_be(damaged: tuple[Disk, dict[str, Any], str], header: dict[str, Any]) -> None:
    disk, _, backend = damaged
    if header == {"rows": SEGMENT, "live": 7}:
        assert list(opened(disk, header, backend, PLAIN).verify()) == [f"{SEGMENT - 1} rows are live, not 7 as the counters say"]
    else:
        refuse(damaged, header)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("kind", [SEALED, TAIL_ROWS, OVERLAY, DELETED])
def test_pieces_that_cannot_be(damaged: tuple[Disk, dict[str, Any], str], k: int, kind: int) -> None:
    disk, header, backend = damaged
    whole = disk.tree[k]
    pieces = [piece for piece in whole.pieces if piece.tag >> 24 == kind]
    if not pieces:
        return
    one = pieces[0]
    rest = [piece for piece in whole.pieces if piece is not one]
    data = bytes(disk.read(one.ref))  # type: ignore[arg-type]
    broken = [Piece(0, b"", data), Piece(5 << 24, b"", data), Piece(kind << 24 | 3, one.meta, data)]
    broken += [Piece(one.tag, one.meta + b"\0", data), Piece(one.tag, one.meta, data[:-8]), Piece(one.tag, one.meta, b"")]
    broken += [Piece(one.tag, one.meta, bytes(len(data)))] if kind != DELETED else []
    for piece in broken:
        disk.tree[k] = disk.write(Entry(b"", [*rest, piece]))
        refuse(damaged)
    disk.tree[k] = Entry(b"", [*whole.pieces, one])  # twice
    refuse(damaged)
    if kind in (SEALED, TAIL_ROWS):
        disk.tree[k] = Entry(b"", rest)
        refuse(damaged)
        swapped = {pieces[0].tag: pieces[1], pieces[1].tag: pieces[0]}
        mixed = [Piece(p.tag, p.meta, None, swapped.get(p.tag, p).ref) for p in whole.pieces]
        disk.tree[k] = Entry(b"", mixed)  # another column's values
        refuse(damaged)
    disk.tree[k] = Entry(b"x", whole.pieces)
    refuse(damaged)
    disk.tree[k] = whole
    assert list(opened(disk, header, backend, PLAIN).verify()) == []


def test_tails_that_overlap_or_leave_out(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, _, _ = damaged
    whole = disk.tree[1]
    for meta in (1, 1024, 952, 2**32 - 1):
        disk.tree[1] = Entry(b"", [p._replace(meta=struct.pack("<I", meta)) if p.tag == tag(TAIL_ROWS) else p for p in whole.pieces])
        refuse(damaged)


def test_a_missing_segment_is_dead_and_counted(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    del disk.tree[0]
    table = opened(disk, header, backend, PLAIN)
    assert table.get(3) is None and table.count_where([]) == 2999
    assert list(table.verify()) == [f"2999 rows are live, not {SEGMENT + 2998} as the counters say"]
    del disk.tree[1]
    with pytest.raises(CorruptionError):
        opened(disk, header, backend, PLAIN)


def test_verify_finds_zone_maps_that_lie(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    whole = disk.tree[0]
    count = SEGMENT
    lies = [
        (0, Zone(1, count - 1, True, 0, 0, count * (count - 1) // 2)),
        (0, Zone(0, count - 1, True, 0, 0, 7)),
        (0, Zone(5, count, False, 0, 0, None)),
        (0, Zone(0, count - 2, False, 0, 0, None)),
        (0, Zone(None, None, False, 0, 0, None)),
        (1, Zone(0.0, 32767.5, True, 0, 1, 5.0)),
        (2, Zone(b"s1", b"u", False, 0, 0, None)),
        (2, Zone(b"s0", b"s6", True, 0, 0, None)),
    ]
    codes = [column.type.code for column in PLAIN.columns]
    for j, zone in lies:
        disk.tree[0] = whole
        disk.replace(0, tag(SEALED, j), meta=zone_bytes(zone, SEGMENT, codes[j]))
        found = list(opened(disk, header, backend, PLAIN).verify())
        assert len(found) == 1 and "zone map" in found[0] and repr(PLAIN.names[j]) in found[0]
    disk.tree[0] = whole
    disk.replace(0, tag(SEALED, 2), meta=zone_bytes(Zone(b"", None, False, 9, 0, None), SEGMENT, codes[2]))
    assert list(opened(disk, header, backend, PLAIN).verify()) == []


def test_dates_that_python_has_not(backend_name: str) -> None:
    schema = Schema([ColumnDef("d", "date"), ColumnDef("t", "datetime", not_null=False)])
    table, disk = created(backend_name, schema)
    table.insert_columns({"d": [dt.date(2000, 1, 1)] * 1030, "t": [NOON] * 1030})
    header = disk.checkpoint(table)
    kernels = _ext.backend(backend_name)
    for j, code in ((0, 15), (1, 16)):
        buffer = kernels.values.ColumnBuffer(code)
        for i in range(1024):
            buffer.append(2**30 + i if code == 15 else 2**60 + i)
        chunk, zone = kernels.codecs.encode(buffer, 0, 1024)
        whole = disk.tree[0]
        disk.replace(0, tag(SEALED, j), bytes(chunk.data))
        with pytest.raises(CorruptionError, match="years"):
            opened(disk, header, backend_name, schema)
        disk.replace(0, tag(SEALED, j), meta=zone_bytes(zone, 1024, code))
        with pytest.raises(CorruptionError, match="years"):
            opened(disk, header, backend_name, schema)
        disk.tree[0] = whole
        disk.replace(0, tag(TAIL_ROWS, j), bytes(kernels.values.pack_column(buffer, 0, 6)))
        with pytest.raises(CorruptionError, match="years"):
            opened(disk, header, backend_name, schema)
        disk.tree[0] = whole


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_no_damage_does_anything_but_raise(seed: int) -> None:
    """Metas and pieces with a few bytes changed, below checksums that are right."""
    draw = random.Random(seed)
    backend = draw.choice(_ext.available())
    table, disk = created(backend)
    table.batch_insert([row(i) for i in range(2300)])
    for i in (1, 5, 2299):
        table.update(i, {"s": "new", "f": None, "t": NOON, "n": 3})
    table.remove([2, 2298])
    header = disk.checkpoint(table)
    pieces = list(disk.tree[0].pieces)
    at = draw.randrange(len(pieces))
    data, meta = bytearray(disk.read(pieces[at].ref)), bytearray(pieces[at].meta)  # type: ignore[arg-type]
    target = meta if meta and draw.random() < 0.3 else data
    for _ in range(draw.choice((1, 1, 3))):
        target[draw.randrange(min(len(target), draw.choice((64, 1 << 20))))] ^= 1 << draw.randrange(8)
    pieces[at] = Piece(pieces[at].tag, bytes(meta), bytes(data))
    disk.tree[0] = disk.write(Entry(b"", pieces))
    try:
        table = opened(disk, header, backend)
        list(table.verify())
        for idx in (0, 1, 2, 1500, 2299):
            table.get(idx)
        state_of(table)
        table.update(1500, {"a": 4})
        table.remove([7])
        table.batch_insert([row(i) for i in range(2000)])
        table.compact()
    except SnapDBError as error:
        assert isinstance(error, CorruptionError), error


def test_errors_name_their_place(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    disk.replace(0, tag(SEALED, 1), b"\x07" * 256)
    table = opened(disk, header, backend, PLAIN)
    assert table.column_list[0][3] == 3
    with pytest.raises(CorruptionError, match=r"column 'v', segment 0: ") as caught:
        table.get(3)
    assert (caught.value.column, caught.value.segment) == ("v", 0) and caught.value.offset is not None
    broken = next(piece for piece in disk.tree[0].pieces if piece.tag == tag(SEALED, 2))
    disk.extents[broken.ref.extent] = b""  # type: ignore[union-attr]
    with pytest.raises(CorruptionError) as caught:
        table.select_column("s")
    assert (caught.value.column, caught.value.segment) == ("s", 0)
    assert table.get(SEGMENT + 2999) == {"a": 9, "v": (SEGMENT + 2999) * 0.5, "s": f"s{(SEGMENT + 2999) % 7}"}
