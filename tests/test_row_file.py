"""The row engine in a file: groups come when they are asked for, and what has changed is all that is written."""

from __future__ import annotations

import json
import random
import struct
import threading
import zlib
from array import array
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import SCHEMA, people, person

from snapdb import ColumnDef, Schema, _ext, errors, row_file
from snapdb.indexes import Indexes
from snapdb.pieces import Entry, Piece, Ref
from snapdb.row_file import GROUP, PATCH
from snapdb.row_scattered import SCATTERED_KEY
from snapdb.rowstore import RowTable
from snapdb.table import Change

WIDE = Schema(
    [  # few rows a group
        ColumnDef("k", "i64", unique=True),
        ColumnDef("pad", "bytes:6000"),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("f", "f32", not_null=False),
        ColumnDef("flag", "bool", not_null=False),
    ]
)
WIDE_PAGE = 8192
PLAIN = Schema([ColumnDef("k", "i64"), ColumnDef("v", "f64"), ColumnDef("n", "i32", not_null=False)])


class Disk:
    """Entries in a dict, pieces in another: what storage is to an engine."""

    def __init__(self) -> None:
        self.tree: dict[int, Entry] = {}
        self.extents: dict[int, bytes] = {}
        self.asked: list[int] = []
        self.written = 0

    def entry(self, key: int) -> Optional[Entry]:
        if key != SCATTERED_KEY:
            self.asked.append(key)
        return self.tree.get(key)

    def read(self, ref: Ref) -> memoryview:
        data = self.extents[ref.extent]
        if zlib.crc32(data) != ref.crc or len(data) != ref.length:
            raise errors.CorruptionError("a piece does not verify", offset=ref.extent)
        return memoryview(data)

    def write(self, entry: Entry) -> Entry:
        return Entry(entry.meta, [piece if piece.ref is not None else self._put(piece) for piece in entry.pieces])

    def _put(self, piece: Piece) -> Piece:
        data = bytes(piece.data)
        at = 4096 * (len(self.extents) + 1)
        self.extents[at] = data
        self.written += len(data)
        return Piece(piece.tag, piece.meta, None, Ref(at, 4096, 128, len(data), zlib.crc32(data)))

    def checkpoint(self, table: RowTable) -> dict[str, Any]:
        """Writes what has changed; returns the header as it comes back from JSON."""
        self.written = 0
        keys = []
        stored = []
        for key, entry in table.changes():
            keys.append(key)
            stored.append((key, None if entry is None else self.write(entry)))
        assert keys == sorted(set(keys))
        for key, kept in stored:
            if kept is None:
                del self.tree[key]  # only what is there is taken away
            else:
                self.tree[key] = kept
        table.saved(stored)
        header: dict[str, Any] = json.loads(json.dumps(table.header()))
        return header

    def live_bytes(self) -> int:
        return sum(piece.ref.length for entry in self.tree.values() for piece in entry.pieces if piece.ref)

    def damage(self, key: int, tag: int, data: bytes) -> None:
        """Other bytes, with a checksum that is right."""
        entry = self.tree[key]
        changed = self.write(Entry(b"", [Piece(tag, b"", data)])).pieces[0]
        self.tree[key] = Entry(b"", [changed if piece.tag == tag else piece for piece in entry.pieces])


def opened(disk: Disk, header: Mapping[str, Any], schema: Schema, backend: str, page_size: int = 4096) -> RowTable:
    table = RowTable(schema, page_size, backend=backend)
    table.adopt(header, disk)
    return table


def created(schema: Schema, backend: str, page_size: int = 4096) -> tuple[RowTable, Disk]:
    disk = Disk()
    return opened(disk, {"rows": 0, "live": 0}, schema, backend, page_size), disk


def rows_of(table: RowTable) -> dict[int, dict[str, Any]]:
    return dict(table.items())


def bulk(table: RowTable, disk: Disk, rows: Iterable[Mapping[str, Any]]) -> tuple[int, int, list[tuple[int, Entry]]]:
    """A batch by way of its entries; returns what the log would have."""
    made = table.prepare(table.stage(rows))
    stored = [(key, disk.write(entry)) for key, entry in made.entries]
    assert table.publish(made, stored) == made.first
    return made.first, made.rows, stored


def wide(i: int) -> dict[str, Any]:
    return {
        "k": i, "pad": "p" * (i % 5999), "s": None if i % 3 == 0 else f"text {i}" * (i % 5),
        "f": None if i % 4 == 0 else i / 8, "flag": (True, False, None)[i % 3],
    }  # fmt: skip


def numbers(table: RowTable, count: int) -> Any:
    """Staged rows of PLAIN."""
    columns = {"k": array("q", range(count)), "v": array("d", [i / 2 for i in range(count)])}
    return table.stage_columns({**columns, "n": array("i", range(count))})


# -- round trips -------------------------------------------------------------


def test_a_table_comes_back(backend_name: str) -> None:
    table, disk = created(SCHEMA, backend_name)
    table.batch_insert(people(3000))
    for idx in (0, 7, 2999, *range(600, 1900)):
        table.delete(idx)
    table.update(5, {"name": "é" * 300, "age": None})
    expected = rows_of(table)
    header = disk.checkpoint(table)
    again = opened(disk, header, SCHEMA, backend_name)
    assert (len(again), again.rows) == (len(table), 3000)
    assert rows_of(again) == expected
    assert list(again.verify()) == list(table.verify()) == []
    assert list(again.changes()) == []


@pytest.mark.parametrize("reader", _ext.available())
def test_backends_write_the_same_bytes(backend_name: str, reader: str) -> None:
    found = []
    for name in (backend_name, reader):
        table, disk = created(WIDE, name, WIDE_PAGE)
        table.batch_insert([wide(i) for i in range(45)])
        header = disk.checkpoint(table)
        for idx in (3, 17, 44):
            table.update(idx, {"s": "new", "f": None})
        table.delete(18)
        table.insert(wide(1000))
        header = disk.checkpoint(table)
        found.append({key: [disk.read(p.ref).tobytes() for p in e.pieces if p.ref] for key, e in disk.tree.items()})
        assert rows_of(opened(disk, header, WIDE, reader, WIDE_PAGE)) == rows_of(table)
    assert found[0] == found[1]


def test_only_the_groups_asked_for_are_read(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(105)])
    header = disk.checkpoint(table)
    disk.asked.clear()
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert disk.asked == []
    keys = Indexes(WIDE, again.kernels, again)
    assert (len(again), keys.memory_usage(), disk.asked) == (105, 0, [])
    span = again.slabs.slab_rows * again.slabs.group_slabs
    assert again.get(35) == wide(35) and disk.asked == [35 // span]
    assert again.get(36 // span * span) is not None and again.contains(35) and disk.asked == [35 // span]
    assert again.get(105) is None and again.get(-1) is None and disk.asked == [35 // span]
    assert again.insert(wide(105)) == 105 and disk.asked == [35 // span, 105 // span]
    again.update(1, {"s": "x"})
    assert disk.asked == [35 // span, 105 // span, 0]
    assert len(rows_of(again)) == 106
    assert sorted(disk.asked) == list(range(-(-106 // span)))


def test_a_view_is_whole(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(50)])
    header = disk.checkpoint(table)

    def fresh() -> RowTable:
        return opened(disk, header, WIDE, backend_name, WIDE_PAGE)

    assert fresh().select_column("k") == list(range(50))
    assert fresh().select_where([("k", "gte", 48)], columns=["k"]) == [{"k": 48}, {"k": 49}]
    assert list(fresh().column_buffer("k")) == list(range(50))
    assert [idx for idx, _ in fresh().raw_items()] == list(range(50))
    assert fresh().aggregate("k") == sum(range(50))
    again = fresh()
    again.remove(range(0, 50, 2))
    again.compact()
    assert again.select_column("k") == list(range(1, 50, 2))
    raw, pack = fresh().get_raw(3), struct.Struct("<q")
    assert raw is not None and pack.unpack_from(raw) == (3,)
    raw = None


# -- how much is written -----------------------------------------------------


def test_one_change_writes_little(backend_name: str) -> None:
    count = 200_000 if backend_name == "c" else 20_000
    table, disk = created(PLAIN, backend_name)
    table.extend(numbers(table, count))
    table = opened(disk, disk.checkpoint(table), PLAIN, backend_name)
    assert disk.written > count * 20
    steps = [
        (lambda: table.update(count // 2, {"v": -1.0}), 100),
        (lambda: table.insert({"k": 1, "v": 2.0, "n": None}), 65536),
        (lambda: table.delete(count // 3), 100),
        (lambda: None, 0),
        (lambda: table.apply([Change(count // 3 + 1, [(2, None)])]), 200),  # with all that has changed since the image
    ]
    for step, most in steps:
        step()
        table = opened(disk, disk.checkpoint(table), PLAIN, backend_name)
        assert (disk.written > 0) == (most > 0) and disk.written <= most
    assert table.get(count // 2) == {"k": count // 2, "v": -1.0, "n": count // 2}
    assert table.get(count // 3) is None and table.get(count) == {"k": 1, "v": 2.0, "n": None}
    after = count // 3 + 1
    assert table.get(after) == {"k": after, "v": after / 2, "n": None}
    assert len(table) == len(rows_of(table)) == count


def test_inserts_one_by_one_do_not_write_their_group_each_time(backend_name: str) -> None:
    table, disk = created(PLAIN, backend_name)
    table.extend(numbers(table, 2000))
    header = disk.checkpoint(table)
    written = 0
    for i in range(100):
        table.insert({"k": i, "v": 0.0})
        header = disk.checkpoint(table)
        written += disk.written
    assert written < 100 * 100 * 40
    again = opened(disk, header, PLAIN, backend_name)
    assert rows_of(again) == rows_of(table) and len(again) == 2100


def test_random_updates_keep_the_file_small() -> None:
    if "c" not in _ext.available():
        pytest.skip("too slow without compiled kernels")
    draw = random.Random(1)
    table, disk = created(PLAIN, "c")
    table.extend(numbers(table, 100_000))
    header = disk.checkpoint(table)
    start, whole = disk.live_bytes(), 0
    for turn in range(100):
        table.apply([Change(draw.randrange(100_000), [(1, draw.random())]) for _ in range(1000)])
        disk.checkpoint(table)
        assert disk.live_bytes() < start * 1.5
        whole += disk.written > start / 2
        if turn % 20 == 19:
            expected = rows_of(table)
            table = opened(disk, table.header(), PLAIN, "c")
            assert rows_of(table) == expected
    assert whole <= 5  # groups do not all come due together
    assert header == {"rows": 100_000, "live": 100_000}


def test_groups_that_change_alike_do_not_come_due_together() -> None:
    if "c" not in _ext.available():
        pytest.skip("too slow without compiled kernels")
    table, disk = created(PLAIN, "c")
    table.extend(numbers(table, 100_000))
    disk.checkpoint(table)
    whole, span, most = disk.written, table.slabs.slab_rows * table.slabs.group_slabs, 0
    for turn in range(40):
        ids = [start + row for start in range(0, 100_000 - span, span) for row in range(turn * 20, turn * 20 + 20)]
        table.apply([Change(idx, [(1, 0.5)]) for idx in ids])
        disk.checkpoint(table)
        most = max(most, disk.written)
    assert whole / 16 < most < whole / 2


def test_groups_without_a_live_row_leave_nothing(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(100)])
    disk.checkpoint(table)
    span = table.slabs.slab_rows * table.slabs.group_slabs
    table.remove(range(3 * span))
    header = disk.checkpoint(table)
    assert disk.written == 0 and sorted(disk.tree) == list(range(3, -(-100 // span)))
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert again.get(0) is None and again.get(3 * span) == wide(3 * span)
    assert list(again.verify()) == []
    again.compact()
    header = disk.checkpoint(again)
    assert sorted(disk.tree) == list(range(-(-(100 - 3 * span) // span)))
    assert list(opened(disk, header, WIDE, backend_name, WIDE_PAGE).verify()) == []
    again.remove(range(len(again)))
    again.compact()
    assert disk.checkpoint(again) == {"rows": 0, "live": 0} and disk.tree == {}


def test_a_failed_checkpoint_is_made_again(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(60)])
    disk.checkpoint(table)
    table.update(3, {"s": "x"})
    for _ in table.changes():
        break  # and is never told of its being saved
    table.update(33, {"s": "y"})
    table.insert(wide(60))
    header = disk.checkpoint(table)
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == rows_of(table)


# -- large batches -----------------------------------------------------------


@pytest.mark.parametrize("before", [0, 7, 10, 33])
def test_a_large_batch_is_not_written_twice(backend_name: str, before: int) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    span = table.slabs.slab_rows * table.slabs.group_slabs
    table.batch_insert([wide(i) for i in range(before)])
    header = disk.checkpoint(table)
    table.insert(wide(before))
    frame = bulk(table, disk, [wide(i) for i in range(before + 1, before + 72)])
    table.update(before + 70, {"s": "later"})
    table.insert(wide(before + 72))
    expected = rows_of(table)
    assert len(expected) == before + 73

    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)  # the log replayed
    again.insert(wide(before))
    again.replay(*frame)
    again.update(before + 70, {"s": "later"})
    again.insert(wide(before + 72))
    assert rows_of(again) == expected

    entries = dict(frame[2])
    header = disk.checkpoint(table)
    for key in range(-(-(before + 1) // span), (before + 70) // span):
        assert disk.tree[key] == entries[key]
    for found in (table, opened(disk, header, WIDE, backend_name, WIDE_PAGE)):
        assert rows_of(found) == expected
        assert list(found.verify()) == []


def test_a_batch_in_a_transaction_that_is_taken_back(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(25)])
    disk.checkpoint(table)
    table.insert(wide(25))
    table.begin()
    bulk(table, disk, [wide(i) for i in range(100, 160)])
    table.delete(3)
    table.rollback()
    assert rows_of(table) == {i: wide(i) for i in range(26)}
    header = disk.checkpoint(table)
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == rows_of(table)
    bulk(table, disk, [wide(i) for i in range(26, 70)])
    header = disk.checkpoint(table)
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == {i: wide(i) for i in range(70)}


def test_ids_of_a_batch_that_was_taken_back_are_given_out_again(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(5)])
    table.begin()
    bulk(table, disk, [wide(i) for i in range(100, 160)])
    table.rollback()
    table.batch_insert([wide(i) for i in range(5, 41)])
    header = disk.checkpoint(table)
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == {i: wide(i) for i in range(41)}


def test_compact_writes_groups_whole(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(60)])
    disk.checkpoint(table)
    table.remove(range(29))  # the last group that stays is small, and full in the file
    table.compact()
    header = disk.checkpoint(table)
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert list(again.verify()) == []
    assert rows_of(again) == {i: wide(i + 29) for i in range(31)}


@pytest.mark.parametrize("taken_back", [True, False])
def test_a_compact_that_did_not_happen_writes_nothing(backend_name: str, taken_back: bool) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(60)])
    header = disk.checkpoint(table)
    table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    table.update(59, {"s": "x"})
    if taken_back:
        table.begin()
        table.compact()
        table.rollback()
    else:
        with pytest.raises(ZeroDivisionError):
            table.compact(first=[partial(divmod, 1, 0)])
    header = disk.checkpoint(table)
    assert 0 < disk.written < 1000
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == rows_of(table)


def test_a_frame_of_a_batch_is_not_trusted(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(15)])
    header = disk.checkpoint(table)
    first, rows, stored = bulk(table, disk, [wide(i) for i in range(15, 60)])
    reversed_ = list(reversed(stored))
    no_piece = [(key, Entry(b"", [])) for key, _ in stored]
    for frame in (
        (first + 1, rows, stored), (first, rows + 1, stored), (first, rows - 1, stored), (first, 0, []),
        (first, -5, stored), (first, 1 << 60, stored), (first, rows, stored[1:]), (first, rows, reversed_),
        (first, rows, [(stored[0][0], stored[1][1]), *stored[1:]]), (first, rows, no_piece),
        (0, rows, stored), (-1, rows, stored),
        (first, rows, [(key, stored[0][1]) for key, _ in stored]),
    ):  # fmt: skip
        again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
        with pytest.raises(errors.CorruptionError):
            again.replay(*frame)
        assert (again.rows, len(again)) == (15, 15)
    again.replay(first, rows, stored)
    assert rows_of(again) == rows_of(table)


def test_entries_are_a_copy(backend_name: str) -> None:
    table = RowTable(WIDE, WIDE_PAGE, backend=backend_name)
    table.batch_insert([wide(i) for i in range(40)])
    table.remove([*range(12), 20])
    disk = Disk()
    disk.tree = {key: disk.write(entry) for key, entry in table.entries()}
    copy = opened(disk, table.header(), WIDE, backend_name, WIDE_PAGE)
    assert rows_of(copy) == rows_of(table)
    copy.update(30, {"s": "changed"})
    header = disk.checkpoint(copy)
    unread = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert len(list(unread.entries())) == len(disk.tree)
    assert list(table.verify()) == []


# -- damage ------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {}, {"rows": 5}, {"rows": -1, "live": 0}, {"rows": 3, "live": 4}, {"rows": "3", "live": 3},
        {"rows": 3.0, "live": 3},
        {"rows": True, "live": True}, {"rows": None, "live": 0}, {"rows": 1 << 90, "live": 0}, {"rows": 5, "live": -1},
    ],
)  # fmt: skip
def test_headers_that_make_no_sense(backend_name: str, header: dict[str, Any]) -> None:
    with pytest.raises(errors.CorruptionError):
        opened(Disk(), header, PLAIN, backend_name)


def damaged(backend: str) -> tuple[Disk, dict[str, Any]]:
    table, disk = created(WIDE, backend, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(25)])
    disk.checkpoint(table)
    table.update(1, {"s": "x"})
    table.delete(2)
    return disk, disk.checkpoint(table)


def packed_row(row: int, live: int, data: bytes, zeros: bytes = b"\0\0\0") -> bytes:
    return struct.pack("<IB3sI", row, live, zeros, len(data)) + data


def test_a_damaged_group_is_named_and_the_others_answer(backend_name: str) -> None:
    disk, header = damaged(backend_name)
    codec = RowTable(WIDE, WIDE_PAGE, backend=backend_name).codec
    good = codec.pack([1, b"p", None, 0.5, 1])
    entry = disk.tree[0]
    image = bytes(disk.read(entry.pieces[0].ref))  # type: ignore[arg-type]
    head = struct.Struct("<II").pack
    assert [piece.tag for piece in entry.pieces] == [GROUP, PATCH]
    for tag, data in (
        (GROUP, b""), (GROUP, image[:-8]), (GROUP, b"X" + image[1:]), (GROUP, image[:40] + b"\xff" * 8 + image[48:]),
        (PATCH, b""), (PATCH, head(0, 1)), (PATCH, head(1, 0)), (PATCH, head(2**32 - 1, 0)),
        (PATCH, head(0, 0) + b"\0"),
        (PATCH, head(1, 0) + packed_row(70000, 1, good)), (PATCH, head(1, 0) + packed_row(1, 2, good)),
        (PATCH, head(1, 0) + packed_row(1, 0, good)), (PATCH, head(1, 0) + packed_row(1, 1, good, b"\0\1\0")),
        (PATCH, head(1, 0) + packed_row(1, 1, good)[:-1]), (PATCH, head(1, 0) + packed_row(1, 1, good + b"\0")),
        (PATCH, head(1, 0) + packed_row(1, 1, b"")),
        (PATCH, head(2, 0) + packed_row(3, 1, good) + packed_row(3, 1, good)),
        (PATCH, head(2, 0) + packed_row(3, 1, good) + packed_row(2, 1, good)),
    ):  # fmt: skip
        disk.tree[0] = entry
        disk.damage(0, tag, data)
        again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
        for _ in range(2):
            with pytest.raises(errors.CorruptionError, match="slab group 0"):
                again.get(0)
        with pytest.raises(errors.CorruptionError):
            again.update(4, {"s": "y"})
        told: list[int] = []  # nothing is logged of what then cannot be done
        with pytest.raises(errors.CorruptionError):
            again.apply([Change(24, [(2, None)]), Change(4, [(2, None)])], first=[partial(told.append, 1)])
        with pytest.raises(errors.CorruptionError):
            again.remove([24, 4], first=[partial(told.append, 1)])
        assert told == []
        with pytest.raises(errors.CorruptionError):
            list(again.items())
        assert again.get(24) == wide(24)
        problems = list(again.verify())
        assert len(problems) == 1 and "slab group 0" in problems[0]


@pytest.mark.parametrize("tags", [[], [PATCH], [PATCH, GROUP], [GROUP, GROUP], [GROUP, PATCH, PATCH], [7]])
def test_entries_of_other_pieces(backend_name: str, tags: list[int]) -> None:
    disk, header = damaged(backend_name)
    ref = disk.tree[0].pieces[0].ref
    disk.tree[0] = Entry(b"", [Piece(tag, b"", None, ref) for tag in tags])
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    with pytest.raises(errors.CorruptionError, match="slab group 0"):
        again.get(1)


def test_rows_past_the_end(backend_name: str) -> None:
    disk, header = damaged(backend_name)
    for rows in (21, 24):
        again = opened(disk, {"rows": rows, "live": 20}, WIDE, backend_name, WIDE_PAGE)
        with pytest.raises(errors.CorruptionError, match="slab group 2"):
            again.insert(wide(1))
        assert any("slab group 2" in text for text in again.verify())
    again = opened(disk, {"rows": 25, "live": 20}, WIDE, backend_name, WIDE_PAGE)
    assert any("24 rows are live" in text for text in again.verify())
    assert header == {"rows": 25, "live": 24}


def test_verify_sees_what_a_lost_group_takes_along(backend_name: str) -> None:
    disk, header = damaged(backend_name)
    del disk.tree[1]
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert list(again.verify())


# -- unique keys -------------------------------------------------------------


def test_keys_are_read_when_needed(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(30)])
    table.delete(4)
    header = disk.checkpoint(table)
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    keys = Indexes(WIDE, again.kernels, again)
    keys.stale(again)
    assert keys.forgetting(again, [3]) == []
    assert keys.check_changes(again, [Change(3, [(2, b"x")])]) == []
    assert keys.memory_usage() == 0
    assert keys.find(0, 7) == 7 and keys.find(0, 4) is None
    assert keys.memory_usage() > 0
    with pytest.raises(errors.UniqueError, match="k=5"):
        keys.check_row(table.codec.encode(wide(5)))


def test_two_rows_of_one_key_are_damage(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in [*range(30), 17]])
    again = opened(disk, disk.checkpoint(table), WIDE, backend_name, WIDE_PAGE)
    keys = Indexes(WIDE, again.kernels, again)
    for _ in range(2):
        with pytest.raises(errors.CorruptionError, match="column 'k'.* 17"):
            keys.find(0, 3)


def test_two_rows_of_one_key_far_apart(backend_name: str) -> None:
    table = RowTable(Schema([ColumnDef("k", "i32", unique=True, not_null=False)]), backend=backend_name)
    table.extend(table.stage_columns({"k": array("i", [*range(65536), 70000, 5])}))
    with pytest.raises(errors.CorruptionError, match="two rows have 5"):
        Indexes(table.schema, table.kernels, table).find(0, 3)
    table.update(65537, {"k": None})
    table.update(9, {"k": None})
    keys = Indexes(table.schema, table.kernels, table)
    assert (keys.find(0, 70000), keys.find(0, 9), len(keys._unique[0].pairs)) == (65536, None, 65536)


# -- workloads ---------------------------------------------------------------

positions = st.floats(0, 0.999)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 99)),
        st.tuples(st.just("batch"), st.integers(0, 25)),
        st.tuples(st.just("bulk"), st.integers(1, 40)),
        st.tuples(st.just("update"), positions, st.sampled_from([None, "", "short", "long " * 400])),
        st.tuples(st.just("some"), st.integers(2, 9)),
        st.tuples(st.just("delete"), positions, st.integers(1, 25)),
        st.tuples(st.sampled_from(["compact", "save", "save", "save", "open", "open", "begin", "commit", "rollback"])),
    ),
    min_size=5,
    max_size=40,
)


class Workload:
    """A table in a file and a plain dict of its rows."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.table, self.disk = created(WIDE, backend, WIDE_PAGE)
        self.rows: dict[int, dict[str, Any]] = {}
        self.next = 0
        self.number = 0
        self.before: Any = None

    def new(self, count: int) -> list[dict[str, Any]]:
        made = [wide(self.number + i) for i in range(count)]
        self.number += count
        self.rows.update(enumerate(made, self.next))
        self.next += count
        return made

    def pick(self, place: float) -> int:
        return list(self.rows)[int(place * len(self.rows))]

    def insert(self, seed: int) -> None:
        (row,) = self.new(1)
        self.table.insert(row)

    def batch(self, count: int) -> None:
        self.table.batch_insert(self.new(count))

    def bulk(self, count: int) -> None:
        bulk(self.table, self.disk, self.new(count))

    def update(self, place: float, text: Optional[str]) -> None:
        if self.rows:
            idx = self.pick(place)
            self.table.update(idx, {"s": text, "f": 0.5})
            self.rows[idx] = {**self.rows[idx], "s": text, "f": 0.5}

    def some(self, step: int) -> None:
        ids = list(self.rows)[::step]
        changes = [self.table.plan_update(idx, {"flag": None, "s": f"turn {self.number}"}) for idx in ids]
        self.table.apply(changes)
        self.rows.update({idx: {**self.rows[idx], "flag": None, "s": f"turn {self.number}"} for idx in ids})

    def delete(self, place: float, count: int) -> None:
        if self.rows:
            start = self.pick(place)
            ids = [idx for idx in range(start, start + count) if idx in self.rows]
            self.table.remove(ids)
            for idx in ids:
                del self.rows[idx]

    def compact(self) -> None:
        self.table.compact()
        self.rows = dict(enumerate(self.rows.values()))
        self.next = len(self.rows)

    def save(self) -> None:
        if self.before is None:
            self.disk.checkpoint(self.table)

    def open(self) -> None:
        if self.before is None:
            header = self.disk.checkpoint(self.table)
            self.table = opened(self.disk, header, WIDE, self.backend, WIDE_PAGE)

    def begin(self) -> None:
        if self.before is None:
            self.table.begin()
            self.before = (dict(self.rows), self.next)

    def commit(self) -> None:
        if self.before is not None:
            self.table.commit()
            self.before = None

    def rollback(self) -> None:
        if self.before is not None:
            self.table.rollback()
            (self.rows, self.next), self.before = self.before, None
            self.check()

    def check(self) -> None:
        assert (self.table.rows, len(self.table)) == (self.next, len(self.rows))
        assert rows_of(self.table) == self.rows


@pytest.mark.parametrize("backend", _ext.available())
@settings(max_examples=40)
@given(steps=STEPS)
def test_workloads(backend: str, steps: list[Any]) -> None:
    work = Workload(backend)
    for name, *arguments in steps:
        getattr(work, name)(*arguments)
    work.rollback()
    work.open()
    assert list(work.table.verify()) == []
    work.check()
    assert list(work.table.verify()) == []
    assert list(work.table.changes()) == []


@pytest.mark.parametrize("scattered", [False, True])
def test_people_of_every_type_through_patches(
    backend_name: str, scattered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not scattered:
        monkeypatch.setattr(row_file, "LARGEST", -1)
    table, disk = created(SCHEMA, backend_name)
    table.batch_insert(people(1500))
    disk.checkpoint(table)
    for i in range(0, 1500, 150):
        table.apply([Change(i, list(enumerate(table.codec.encode(person(i + 7)))))])
    table.remove([1, 700])
    header = disk.checkpoint(table)
    assert (SCATTERED_KEY in disk.tree) == scattered
    assert any(len(entry.pieces) > 1 for entry in disk.tree.values()) != scattered
    again = opened(disk, header, SCHEMA, backend_name)
    assert rows_of(again) == rows_of(table)
    again.update(2, {"score": 1.25})
    header = disk.checkpoint(again)
    assert rows_of(opened(disk, header, SCHEMA, backend_name)) == rows_of(again)


def test_threads_that_ask_for_the_same_groups(backend_name: str) -> None:
    table, disk = created(WIDE, backend_name, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(300)])
    header = disk.checkpoint(table)
    again = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def read(seed: int) -> None:
        draw = random.Random(seed)
        start.wait()
        for _ in range(600):
            idx = draw.randrange(300)
            try:
                if again.get(idx) != wide(idx):
                    wrong.append(idx)
                if seed == 0 and idx % 3 == 0:
                    again.insert(wide(1000))
                if seed == 1 and idx % 9 == 0:
                    again.update(idx, wide(idx))
            except BaseException as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(again.verify()) == []
    header = disk.checkpoint(again)
    assert rows_of(opened(disk, header, WIDE, backend_name, WIDE_PAGE)) == rows_of(again)
