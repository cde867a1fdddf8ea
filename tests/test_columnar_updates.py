"""Updates of a columnar table in a file: those since the last checkpoint are written behind those that are there."""

from __future__ import annotations

import random
from functools import partial
from typing import Any
from unittest import mock

import pytest
from entry_disk import PLAIN, Disk, assert_sound, bulk, created, opened, plain, reopened

from snapdb import ColumnarTable, SnapDB, _ext, columnar_file
from snapdb._ext._common import SEGMENT
from snapdb.columnar_file import OVERLAY, overlay_bytes, overlay_from
from snapdb.errors import CorruptionError
from snapdb.pieces import Entry, Piece
from snapdb.storage.files import using
from snapdb.table import Change
from snapdb.testing.layers import RecordingLayer

V, S = OVERLAY << 24 | 1, OVERLAY << 24 | 2  # tags of PLAIN's columns


def updates(disk: Disk, k: int, tag: int) -> list[Piece]:
    return [piece for piece in disk.tree[k].pieces if piece.tag == tag]


def rows_in(disk: Disk, piece: Piece) -> list[int]:
    kernels = _ext.backend(_ext.available()[-1])
    code = PLAIN.columns[piece.tag & 0xFF].type.code
    return sorted(overlay_from(kernels, code, disk.read(piece.ref), SEGMENT))  # type: ignore[arg-type]


def change(table: ColumnarTable, rows: Any, value: float) -> None:
    table.apply([Change(row, [(1, value)]) for row in rows])


def updated(backend: str, count: int = SEGMENT + 2000) -> tuple[ColumnarTable, Disk]:
    """A table in whose first segment 40 rows of a column have changed, as of the checkpoint."""
    table, disk = created(backend, PLAIN)
    table.insert_columns(plain(count))
    disk.checkpoint(table)
    change(table, range(0, 400, 10), -1.0)
    return reopened(table, disk, backend), disk


def test_what_is_new_is_written_behind_what_is_there(backend_name: str) -> None:
    table, disk = updated(backend_name)
    (first,) = updates(disk, 0, V)
    change(table, [3, 10, 20], -2.0)
    table.update(5, {"v": -3.0})
    table = reopened(table, disk, backend_name)
    assert updates(disk, 0, V)[0] == first and disk.written < 100
    assert [rows_in(disk, piece) for piece in updates(disk, 0, V)] == [[*range(0, 400, 10)], [3, 5, 10, 20]]
    assert [table.get(row)["v"] for row in (0, 3, 5, 10, 20, 30)] == [-1.0, -2.0, -3.0, -2.0, -2.0, -1.0]  # type: ignore[index]
    table.update(10, {"v": 7.5})
    table.update(10, {"s": "x"})
    table = reopened(table, disk, backend_name)
    assert [rows_in(disk, piece) for piece in updates(disk, 0, V)[1:]] == [[3, 5, 10, 20], [10]]
    assert table.get(10) == {"a": 10, "v": 7.5, "s": "x"} and len(updates(disk, 0, S)) == 1
    assert_sound(table)
    assert list(table.changes()) == []


def test_many_updates_are_written_together(backend_name: str) -> None:
    table, disk = updated(backend_name)
    change(table, range(1, 20), -2.0)  # more than a quarter of them
    table = reopened(table, disk, backend_name)
    (piece,) = updates(disk, 0, V)
    assert rows_in(disk, piece) == sorted({*range(0, 400, 10), *range(1, 20)})
    pieces, most = [], 0
    for turn in range(60):
        change(table, [turn], float(turn))
        table = reopened(table, disk, backend_name)
        pieces.append(len(updates(disk, 0, V)))
        most = max(most, disk.written)
    assert 4 <= max(pieces) <= 16 and pieces.count(1) >= 2 and most < 2000
    assert table.select_column("v")[:60] == [float(turn) for turn in range(60)]
    assert_sound(table)


def test_what_comes_to_as_much_as_there_was_is_written_together(backend_name: str) -> None:
    table, disk = updated(backend_name)
    most = 0
    for turn in range(30):
        change(table, range(0, 100, 10), float(turn))
        table = reopened(table, disk, backend_name)
        first, *others = [piece.ref.length for piece in updates(disk, 0, V) if piece.ref]
        assert sum(others[:-1]) <= first
        most = max(most, len(others))
    assert 3 <= most <= 5
    assert table.select_column("v")[:12] == [29.0, *[row / 2 for row in range(1, 10)], 29.0, 5.5]


def test_a_batch_that_is_taken_back_leaves_updates_to_be_written(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(3000))
    change(table, range(40), -1.0)
    table = reopened(table, disk, backend_name)
    change(table, [3], -2.0)
    table.begin()
    bulk(table, disk, plain(2000, 3000))
    table.rollback()
    table = reopened(table, disk, backend_name)
    assert table.select_column("v")[:5] == [-1.0, -1.0, -1.0, -2.0, -1.0] and len(table) == 3000


@pytest.mark.parametrize("columns", [20, 70])
def test_a_table_of_many_columns_has_few_pieces_of_each(columns: int) -> None:
    from snapdb import ColumnDef, Schema

    schema = Schema([ColumnDef(f"c{j}", "i32") for j in range(columns)])
    table, disk = created(_ext.available()[0], schema)
    table.insert_columns({f"c{j}": range(2000) for j in range(columns)})
    disk.checkpoint(table)
    table.apply([Change(row, [(j, -1) for j in range(columns)]) for row in range(30)])
    for turn in range(10):
        disk.checkpoint(table)
        pieces = [piece for piece in disk.tree[0].pieces if piece.tag >> 24 == OVERLAY]
        assert columns <= len(pieces) <= max(64, columns)
        table.apply([Change(turn, [(j, turn) for j in range(columns)])])
    again = opened(disk, disk.checkpoint(table), table.kernels.name, schema)
    assert [again.get(row)["c7"] for row in range(12)] == [*range(10), -1, -1]  # type: ignore[index]


def test_a_segment_that_is_sealed_anew_has_none_of_the_old_ones(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(4500))
    change(table, [*range(40), *range(4100, 4120)], -1.0)  # these are in the tail
    table = reopened(table, disk, backend_name)
    assert len(rows_in(disk, updates(disk, 0, V)[0])) == 60
    change(table, [4110], -2.0)
    table.column_list[1].reseal(0)
    table = reopened(table, disk, backend_name)
    assert [rows_in(disk, piece) for piece in updates(disk, 0, V)] == [[*range(4100, 4120)]]
    assert [table.get(row)["v"] for row in (39, 40, 4100, 4110)] == [-1.0, 20.0, -1.0, -2.0]  # type: ignore[index]
    assert_sound(table)


def test_what_is_taken_back_is_not_written(backend_name: str) -> None:
    table, disk = updated(backend_name)
    table.begin()
    change(table, [10, 11], -5.0)
    table.rollback()
    table = reopened(table, disk, backend_name)
    assert (table.get(10)["v"], table.get(11)["v"]) == (-1.0, 5.5)  # type: ignore[index]
    change(table, [20], -6.0)
    table.begin()
    change(table, [20, 30, 31], -5.0)
    table.rollback()
    table = reopened(table, disk, backend_name)
    assert [table.get(row)["v"] for row in (10, 20, 30, 31)] == [-1.0, -6.0, -1.0, 15.5]  # type: ignore[index]
    assert_sound(table)


def test_a_failed_change_is_not_written(backend_name: str) -> None:
    table, disk = updated(backend_name)
    with pytest.raises(ZeroDivisionError):
        table.apply([Change(10, [(1, -5.0)]), Change(13, [(1, -5.0)])], first=[partial(divmod, 1, 0)])
    change(table, [20], -6.0)
    table = reopened(table, disk, backend_name)
    assert [table.get(row)["v"] for row in (10, 13, 20)] == [-1.0, 6.5, -6.0]  # type: ignore[index]


def test_updates_by_the_thousand_are_not_noted_one_by_one(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(20_000))
    disk.checkpoint(table)
    file: Any = table._file
    for start in range(0, 1000, 200):
        change(table, range(start, start + 200), -1.0)
    assert file.overlaid == {(1, 0): set(range(1000))}
    change(table, range(1000, 1200), -1.0)
    assert file.overlaid == {(1, 0): None}
    change(table, [3], -1.0)
    assert file.overlaid == {(1, 0): None}
    table = reopened(table, disk, backend_name)
    file = table._file
    change(table, range(5000), -1.0)
    assert file.overlaid == {(1, 0): None}
    table = reopened(table, disk, backend_name)
    assert table.select_column("v")[:5001] == [-1.0] * 5000 + [2500.0]


# -- damage ------------------------------------------------------------------
def test_updates_that_cannot_be(backend_name: str) -> None:
    table, disk = updated(backend_name)
    change(table, [3], -2.0)
    header = disk.checkpoint(table)
    whole = disk.tree[0]
    first, second = updates(disk, 0, V)
    rest = [piece for piece in whole.pieces if piece.tag != V]
    data = bytes(disk.read(second.ref))  # type: ignore[arg-type]
    code = PLAIN.columns[1].type.code
    many = [Piece(V, b"", overlay_bytes(table.kernels, code, {row: 1.0})) for row in range(16)]
    for broken in (
        [first, second, second], [first, first], [first, Piece(V, b"", b"")], [first, Piece(V, b"", data[:-8])],
        [first, Piece(V, b"", bytes(len(data)))], [first, Piece(V, b"\0", data)], [first, *many],
        [first, Piece(OVERLAY << 24 | 3, b"", data)], [first, second._replace(tag=S)],
    ):  # fmt: skip
        disk.tree[0] = disk.write(Entry(b"", [*rest, *broken]))
        found = opened(disk, header, backend_name, PLAIN)
        with pytest.raises(CorruptionError, match="segment 0"):
            found.get(3)
        assert list(found.verify()) != []
        assert found.get(SEGMENT + 5) == {"a": SEGMENT + 5, "v": (SEGMENT + 5) * 0.5, "s": f"s{(SEGMENT + 5) % 7}"}
    disk.tree[0] = Entry(b"", [*rest, second, first])  # in the other order: well-formed
    assert opened(disk, header, backend_name, PLAIN).get(3) == table.get(3)
    disk.tree[0] = disk.write(Entry(b"", [*rest, first, *many[:15]]))
    assert opened(disk, header, backend_name, PLAIN).get(14)["v"] == 1.0  # type: ignore[index]


# -- against a dict ----------------------------------------------------------
@pytest.mark.parametrize("backend", _ext.available())
@pytest.mark.parametrize("seed", range(4))
def test_updates_and_a_dict(backend: str, seed: int) -> None:
    draw = random.Random(seed)
    count = SEGMENT + 3000 if seed < 2 else 3000
    with mock.patch.multiple(columnar_file, _FEWER=draw.choice((1, 4)), _UPDATES=draw.choice((4, 16))):
        table, disk = created(backend, PLAIN)
        table.insert_columns(plain(count))
        expected = {i: i * 0.5 for i in range(count)}
        several = 0
        for turn in range(60):
            if draw.random() < 0.3:
                table.begin()
                change(table, draw.sample(sorted(expected), 5), 0.25)
                table.rollback()
            for row in draw.sample(sorted(expected), draw.choice((1, 5, 5, 5, 60))):
                table.update(row, {"v": float(turn)})
                expected[row] = float(turn)
            if draw.random() < 0.1:
                gone = draw.sample(sorted(expected), draw.choice((3, 300)))
                table.remove(gone)
                for row in gone:
                    del expected[row]
            disk.checkpoint(table)
            several = max(several, len(updates(disk, 0, V)))
            if draw.random() < 0.3:
                table = opened(disk, table.header(), backend, PLAIN)
            if turn % 10 == 9:
                assert [row["v"] for _, row in table.items()] == list(expected.values())
        assert several > 2
        assert_sound(table)
        assert_sound(reopened(table, disk, backend))


def test_snapshots_of_updates_differ_by_what_changed(backend_name: str) -> None:
    draw = random.Random(3)
    count = SEGMENT + 4000
    with using(RecordingLayer(record=False)), SnapDB("x.snapdb", PLAIN, storage_type="columnar") as db:
        db.insert_columns(plain(count))
        rows, states = {i: (i * 0.5, f"s{i % 7}") for i in range(count)}, {}
        for turn in range(25):
            for row in draw.sample([*range(40), *range(SEGMENT, SEGMENT + 40), *range(count - 40, count)], 12):
                rows[row] = (float(draw.randrange(3)), rows[row][1])
                if draw.random() < 0.5:
                    rows[row] = (rows[row][0], f"t{draw.randrange(3)}")
                db.update(row, {"v": rows[row][0], "s": rows[row][1]})
            db.snapshot(f"s{turn}")
            states[turn] = dict(rows)
        near = [(turn, turn + 2) for turn in range(20)]
        for one, other in [(0, 24), (24, 0), (3, 4), (10, 11), (5, 20), (23, 24), *near]:
            found = db.diff_snapshots(f"s{one}", f"s{other}")
            assert found["changed"] == [row for row in range(count) if states[one][row] != states[other][row]]
            assert found["added"] == found["removed"] == []
        for turn in (0, 12, 24):
            with db.open_snapshot(f"s{turn}") as shown:
                assert [(row["v"], row["s"]) for _, row in shown] == list(states[turn].values())
        assert db.fsck()["ok"]
