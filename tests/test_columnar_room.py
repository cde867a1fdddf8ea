"""What deleted rows and changed chunks of a columnar table take in a file, and what of it is read when."""

from __future__ import annotations

import math
from typing import Any, Callable

import pytest
from entry_disk import PLAIN, SCHEMA, Disk, assert_sound, bulk, created, opened, plain, reopened, row, state_of, tag
from model import bits

from snapdb import ColumnarTable, SnapDB, columnar_file
from snapdb._ext._common import BLOCK, SEGMENT
from snapdb.columnar_file import DELETED, OVERLAY, SEALED, TAIL_ROWS
from snapdb.errors import CorruptionError
from snapdb.pieces import Entry, Piece
from snapdb.segments import Sealed
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer


def kinds(disk: Disk, key: int) -> list[int]:
    return [piece.tag >> 24 for piece in disk.tree[key].pieces]


def parts_of(disk: Disk, key: int, j: int) -> list[Piece]:
    return [piece for piece in disk.tree[key].pieces if piece.tag == tag(SEALED, j)]


# -- chunks in parts ---------------------------------------------------------------------------------------------------


def roots(count: int) -> dict[str, Any]:
    """``plain`` rows with a second column that no codec makes smaller."""
    return {**plain(count), "v": [math.sqrt(i) for i in range(count)]}


def worn(backend: str) -> tuple[ColumnarTable, Disk]:
    """A table whose second column was sealed anew."""
    table, disk = created(backend, PLAIN)
    table.insert_columns(roots(SEGMENT + 10))
    disk.checkpoint(table)
    assert [len(parts_of(disk, 0, j)) for j in range(3)] == [1, 1, 1]
    for idx in range(0, SEGMENT, 49):
        table.update(idx, {"v": -float(idx)})
    disk.checkpoint(table)
    return table, disk


def test_a_chunk_in_place_of_another_is_in_parts(backend_name: str) -> None:
    table, disk = worn(backend_name)
    parts = parts_of(disk, 0, 1)
    assert len(parts) == 5 and [len(piece.meta) > 0 for piece in parts] == [True, False, False, False, False]
    assert {piece.ref.length for piece in parts[:4] if piece.ref} == {(128 << 10) - 128}
    assert [len(parts_of(disk, 0, j)) for j in (0, 2)] == [1, 1]
    expected = state_of_values(table)
    for _ in range(2):
        table = reopened(table, disk, backend_name)
        assert state_of_values(table) == expected
        assert_sound(table)
    disk.reads.clear()
    table = reopened(table, disk, backend_name)
    table.update(3, {"s": "changed"})  # the parts stay where they are, read or not
    disk.checkpoint(table)
    assert disk.written < 200 and parts_of(disk, 0, 1) == parts
    assert table.get(49) == {"a": 49, "v": -49.0, "s": "s0"}
    table.update(4, {"s": "changed"})
    disk.checkpoint(table)
    assert disk.written < 200 and parts_of(disk, 0, 1) == parts
    copy = Disk()
    copy.tree = {key: copy.write(entry) for key, entry in table.entries()}
    assert len(parts_of(copy, 0, 1)) == 1  # in a copy there is room for all of it
    table.compact()
    disk.checkpoint(table)
    assert len(parts_of(disk, 0, 1)) == 1


def state_of_values(table: ColumnarTable) -> list[Any]:
    return [len(table), *(table.select_column(name) for name in table.schema.names)]


def test_parts_that_storage_moves(backend_name: str) -> None:
    table, disk = worn(backend_name)
    expected = state_of_values(table)
    table = reopened(table, disk, backend_name)
    with table.view() as view:
        table.remove([4])
        stored = []
        for key, entry in table.changes():
            assert entry is not None
            whole = [Piece(p.tag, p.meta, p.data if p.ref is None else bytes(disk.read(p.ref))) for p in entry.pieces]
            stored.append((key, disk.write(Entry(b"", whole))))
        disk.tree.update(dict(stored))
        table.saved(list(stored))
        disk.collect()
        assert type(table.column_list[1].parts[0]) is Sealed
        assert view.whole(1, 0).take() == expected[2][:SEGMENT]
    table.update(5, {"a": 1})
    disk.checkpoint(table)
    assert disk.written < 200 and len(parts_of(disk, 0, 1)) == 5
    assert_sound(reopened(table, disk, backend_name))


@pytest.mark.parametrize(
    "change",
    [
        lambda pieces: pieces[:-1],
        lambda pieces: pieces[1:],
        lambda pieces: [*pieces, pieces[-1]],
        lambda pieces: [*pieces[1:], pieces[0]],
        lambda pieces: [*pieces[:-1], pieces[-1]._replace(meta=pieces[0].meta)],
        lambda pieces: [pieces[0]._replace(meta=b""), *pieces[1:]],
    ],
)
def test_parts_that_do_not_fit(change: Callable[[list[Piece]], list[Piece]]) -> None:
    table, disk = worn("python")
    header = disk.checkpoint(table)
    changed = change(parts_of(disk, 0, 1))
    rest = [piece for piece in disk.tree[0].pieces if piece.tag != tag(SEALED, 1)]
    disk.tree[0] = Entry(b"", rest + changed)
    with pytest.raises(CorruptionError):
        opened(disk, header, "python", PLAIN).select_column("v")


# -- rows that nobody can read -----------------------------------------------------------------------------------------


def test_blocks_of_a_tail_without_a_live_row_take_no_room(backend_name: str) -> None:
    table, disk = created(backend_name)
    for i in range(3000):
        table.insert(row(i))
    table._blanked[0] = SEGMENT  # or it would be sealed, as many of its rows are deleted
    disk.checkpoint(table)
    assert kinds(disk, 0).count(TAIL_ROWS) == 3 * 6
    table.remove(range(BLOCK - 1))
    disk.checkpoint(table)
    assert kinds(disk, 0).count(TAIL_ROWS) == 3 * 6 and disk.written == SEGMENT // 8
    for idx in (BLOCK - 1, *range(2 * BLOCK, 3000)):
        table.delete(idx)
    header = disk.checkpoint(table)
    assert kinds(disk, 0) == [TAIL_ROWS] * 6 + [DELETED]  # the block in the middle
    expected = state_of(table)
    table = opened(disk, header, backend_name)
    assert state_of(table) == expected and table.rows == 3000
    assert_sound(table)
    assert table.insert(row(1)) == 3000 and bits(table.get(3000)) == bits(row(1))
    assert_sound(reopened(table, disk, backend_name))


def test_a_block_of_a_tail_that_is_missing(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    for i in range(2 * BLOCK + 5):
        table.insert({"a": i, "v": 0.5, "s": "x"})
    header = disk.checkpoint(table)
    whole = disk.tree[0].pieces
    for at in range(len(whole)):
        disk.tree[0] = Entry(b"", whole[:at] + whole[at + 1 :])
        with pytest.raises(CorruptionError, match="not deleted"):
            opened(disk, header, backend_name, PLAIN)
    disk.tree[0] = Entry(b"", whole)
    table = opened(disk, header, backend_name, PLAIN)
    table._blanked[0] = SEGMENT
    table.remove(range(BLOCK, 2 * BLOCK))
    header = disk.checkpoint(table)
    assert kinds(disk, 0) == [TAIL_ROWS] * 6 + [DELETED]
    bitmap = bytearray(disk.data(0, tag(DELETED)))
    bitmap[BLOCK // 8] &= 0xFE
    disk.replace(0, tag(DELETED), bytes(bitmap))
    with pytest.raises(CorruptionError, match="not deleted"):
        opened(disk, header, backend_name, PLAIN)


@pytest.mark.parametrize("rows", [1, 7, BLOCK, 3000, SEGMENT - 1])
def test_an_open_segment_without_a_live_row_takes_no_room(backend_name: str, rows: int) -> None:
    table, disk = created(backend_name)
    table.batch_insert([row(i % 3000) for i in range(rows)])
    disk.checkpoint(table)
    assert sorted(disk.tree) == [0]
    table.remove(range(rows))
    header = disk.checkpoint(table)
    assert disk.tree == {} and not disk.written
    again = opened(disk, header, backend_name)
    assert (again.rows, len(again)) == (rows, 0) and again.get(0) is None and not again.contains(rows - 1)
    assert list(again.items()) == [] and again.aggregate("a", "count") == 0
    assert_sound(again)
    assert list(again.changes()) == []
    assert again.insert(row(4)) == rows
    assert bulk(again, disk, {name: [row(i)[name] for i in range(3, 2000)] for name in SCHEMA.names})[0] == rows + 1
    third = reopened(again, disk, backend_name)
    assert bits(third.get(rows)) == bits(row(4)) and bits(third.get(rows + 5)) == bits(row(7))
    assert third.rows == rows + 1998 and len(third) == 1998
    assert_sound(third)
    with pytest.raises(CorruptionError, match="the last segment is missing"):
        opened(Disk(), {"rows": rows, "live": 1}, backend_name)


@pytest.mark.parametrize("rows", [SEGMENT, SEGMENT - 700])
def test_few_live_rows_take_little_room(backend_name: str, rows: int) -> None:
    table, disk = created(backend_name)
    table.insert_columns({name: [row(i)[name] for i in range(rows)] for name in SCHEMA.names})
    table.update(rows - 3, {"f": math.nan, "s": "updated"})
    disk.checkpoint(table)
    kept = [5, *range(40_000, 40_100), rows - 3, rows - 1]
    table.remove(sorted(set(range(rows)) - set(kept)))
    disk.checkpoint(table)
    sealed = [piece.ref.length for piece in disk.tree[0].pieces if piece.tag >> 24 == SEALED and piece.ref]
    assert max(sealed) <= 256 and kinds(disk, 0).count(OVERLAY) == 6
    size = sum(piece.ref.length for piece in disk.tree[0].pieces if piece.ref)
    assert size < SEGMENT // 8 + 16_000 + rows % BLOCK * 60
    expected = state_of(table)
    assert [idx for idx, _ in table.items()] == kept and bits(table.get(40_007)) == bits(row(40_007))
    assert_sound(table)
    again = reopened(table, disk, backend_name)
    assert state_of(again) == expected
    assert again.count_where([("a", "between", (40_000_000, 40_050_000))]) == 51
    assert again.count_where([("s", "eq", "updated")]) == 1
    nulls = sum(one["f"] is None for _, one in again.items())
    assert again.count_where([("f", "is_null", None)]) == nulls > 0
    again.update(5, {"a": -7, "s": None})
    again.remove([rows - 1])
    expected = state_of(again)
    assert again.aggregate("a", "min") == -7
    assert_sound(again)
    assert state_of(reopened(again, disk, backend_name)) == expected


# -- what is read of the open segment ----------------------------------------------------------------------------------


def open_of(backend: str) -> tuple[ColumnarTable, Disk, list[Any]]:
    table, disk = created(backend, PLAIN)
    table.insert_columns(plain(5000))
    for i in range(30):
        table.insert({"a": i, "v": 0.25, "s": None})
    expected = state_of_values(table)
    table = reopened(table, disk, backend)
    return table, disk, expected


def test_of_the_open_segment_the_tail_is_read(backend_name: str) -> None:
    table, disk, expected = open_of(backend_name)
    chunks = {piece.ref for piece in disk.tree[0].pieces if piece.tag >> 24 == SEALED}
    assert len(disk.reads) == 3 and not chunks & set(disk.reads)
    assert len(table) == 5030 and list(table.changes()) == []
    assert table.aggregate("a", "max") == 4999 and table.aggregate("v", "min") == 0
    assert table.count_where([("a", "lt", -1)]) == 0 and table.aggregate("s", "count") == 5000
    assert not chunks & set(disk.reads)
    before = table.view()
    assert table.insert({"a": 1, "v": 0.0, "s": "new"}) == 5030
    table.update(7, {"v": 1e9})
    assert before.whole(0, 0).take() == expected[1] and before.whole(1, 0).take() == expected[2]
    assert table.get(5030) == {"a": 1, "v": 0.0, "s": "new"}
    assert table.column_list[0].encodings and table.memory_usage()
    third = reopened(table, disk, backend_name)
    assert third.select_column("a") == [*expected[1], 1] and third.get(7)["v"] == 1e9  # type: ignore[index]
    assert_sound(third)


@pytest.mark.parametrize("commits", [False, True])
def test_a_transaction_on_an_open_segment_that_is_not_read(backend_name: str, commits: bool) -> None:
    table, disk, expected = open_of(backend_name)
    table.begin()
    table.port.paused = True
    for i in range(3):
        table.insert({"a": i, "v": 0.0, "s": "new"})
    table.update(5029, {"a": -1})
    table.remove([3, 5030])
    (table.commit if commits else table.rollback)()
    table.port.paused = False
    assert len(table) == (5031 if commits else 5030)
    if not commits:
        assert state_of_values(table) == expected
        table.insert({"a": 9, "v": 0.5, "s": "later"})
    expected = state_of_values(table)
    assert_sound(table)
    assert state_of_values(reopened(table, disk, backend_name)) == expected


@pytest.mark.parametrize("use", [
    lambda table: table.get(3), lambda table: table.insert({"a": 1, "v": 0.0, "s": ""}), lambda table: table.delete(5),
    lambda table: table.update(9, {"a": 2}), lambda table: list(table.items()), lambda table: table.compact(),
    lambda table: table.insert_columns(plain(2000)), lambda table: table.select_column("a"),
])  # fmt: skip
def test_a_damaged_open_segment_is_found_at_use(backend_name: str, use: Callable[[ColumnarTable], Any]) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(5000))
    header = disk.checkpoint(table)
    disk.replace(0, tag(SEALED, 0), b"damaged" * 40)
    table = opened(disk, header, backend_name, PLAIN)
    for _ in range(2):
        with pytest.raises(CorruptionError) as caught:
            use(table)
        assert (caught.value.segment, caught.value.column) == (0, "a")
    assert len(table) == 5000 and [text for text in table.verify() if "'a', segment 0" in text]


def test_fsck_finds_a_damaged_open_segment() -> None:
    with using(RecordingLayer(record=False)) as layer:
        with SnapDB("room.snapdb", PLAIN, storage_type="columnar") as db:
            db.insert_columns(plain(5000))
        data = layer.open("room.snapdb", "w")
        image = data.pread(data.size(), 0)
        with SnapDB("room.snapdb") as db:
            ref = db._file.store.entry(0).pieces[1].ref  # type: ignore[union-attr]
        data.pwrite(bytes([image[ref.extent + ref.at + 200] ^ 1]), ref.extent + ref.at + 200)
        data.close()
        with SnapDB("room.snapdb") as db:
            assert len(db) == 5000 and not db.fsck()["ok"]
            with pytest.raises(CorruptionError):
                db.get(4)


# -- a whole file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [columnar_file._PART, 512])
def test_what_is_replayed_on_a_segment_without_a_live_row(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(columnar_file, "_PART", part)
    with using(RecordingLayer(record=False)):
        db = SnapDB("room.snapdb", PLAIN, storage_type="columnar")
        db.insert_columns(plain(3000))
        db.delete_where([("a", "gte", 0)])
        db.checkpoint()
        for step in range(6):
            db.insert_columns(plain(60_000, step * 60_000))  # large enough for extents of its own
            db.update(db.insert({"a": -1, "v": 0.0, "s": "x"}), {"s": "y"})
            db.batch_update([("a", "between", (step * 60_000, step * 60_000 + 2000))], {"v": -1.0})
            if step % 2:
                db.delete_where([("a", "lt", step * 60_000)])
                db.delete_where([("a", "gt", step * 60_000 + 10)])
            expected = dict(db)
            db._abandon()
            db = SnapDB("room.snapdb")
            assert dict(db) == expected and db.fsck(full=True)["ok"]
            if step == 3:
                db.delete_where([("v", "not_null")])
                db.checkpoint()
                assert db.stats()["live_bytes"] == 4096  # the root
        db.close()


def test_a_closing_cuts_a_file_that_is_mostly_free() -> None:
    with using(RecordingLayer(record=False)):
        with SnapDB("room.snapdb", PLAIN, storage_type="columnar") as db:
            db.insert_columns(roots(300_000))
        with SnapDB("room.snapdb") as db:
            large = db.stats()
            assert large["live_bytes"] + large["free_bytes"] + 16_384 == large["file_bytes"] > 2_000_000
            db.delete_where([("a", "gte", 0)])
            db.checkpoint()
            db.insert({"a": 1, "v": 0.5, "s": "x"})
            figures = db.stats()
            assert figures["file_bytes"] >= large["file_bytes"] and figures["live_bytes"] < 100_000
            assert figures["live_bytes"] + figures["free_bytes"] + 16_384 == figures["file_bytes"]
        with SnapDB("room.snapdb") as db:
            assert db.stats()["file_bytes"] < 200_000
            assert db.fsck()["ok"] and dict(db) == {300_000: {"a": 1, "v": 0.5, "s": "x"}}
