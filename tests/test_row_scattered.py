"""Changes of few rows in many groups: kept in one entry, folded into the groups a few at a time."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Optional
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_row_file import PLAIN, STEPS, WIDE, WIDE_PAGE, Disk, Workload, created, numbers, opened, rows_of, wide

from snapdb import SnapDB, _ext, errors, row_file, row_scattered
from snapdb.pieces import Entry, Piece, Ref
from snapdb.row_file import GROUP, PATCH
from snapdb.row_scattered import (
    LIMIT,
    MOST,
    ROW,
    SCATTERED,
    SCATTERED_KEY,
    Changes,
    bits_of,
    decode_bits,
    encode_bits,
    groups_of,
    pack_rows,
    read_rows,
)
from snapdb.rowstore import RowTable
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

HEAD = struct.Struct("<II").pack


def pieces(disk: Disk) -> list[Piece]:
    entry = disk.tree.get(SCATTERED_KEY)
    return [] if entry is None else entry.pieces


def groups_in(piece: Piece) -> list[int]:
    return groups_of(int.from_bytes(piece.meta, "little"))


def span_of(table: RowTable) -> int:
    return int(table.slabs.slab_rows * table.slabs.group_slabs)


def filled(backend: str, count: int = 60) -> tuple[RowTable, Disk]:
    """WIDE rows in a file."""
    table, disk = created(WIDE, backend, WIDE_PAGE)
    table.batch_insert([wide(i) for i in range(count)])
    return opened(disk, disk.checkpoint(table), WIDE, backend, WIDE_PAGE), disk


def again(disk: Disk, table: RowTable) -> RowTable:
    """The table as it is in the file, which shows what this one does."""
    found = opened(disk, disk.checkpoint(table), table.schema, table.kernels.name, table.page_size)
    unread = opened(disk, table.header(), table.schema, table.kernels.name, table.page_size)
    assert list(unread.verify()) == []
    assert rows_of(found) == rows_of(table) and list(found.verify()) == [] and list(found.changes()) == []
    return found


def touch(table: RowTable, ids: Any, text: str) -> None:
    table.apply([table.plan_update(idx, {"s": text}) for idx in ids])


# -- bytes -------------------------------------------------------------------
@given(st.dictionaries(st.integers(0, 9999), st.one_of(st.none(), st.binary(max_size=30)), max_size=20))
def test_pieces_come_back(rows: dict[int, Optional[bytes]]) -> None:
    rows = dict(sorted(rows.items()))
    found = Changes(pack_rows(rows), 100, 100)
    assert found.bits == bits_of(idx // 100 for idx in rows)
    back = {group * 100 + row: packed for group in range(100) for row, packed in found.rows(group)}
    assert back == rows and list(back) == list(rows)


@given(st.sets(st.integers(0, 999), min_size=1))
def test_bitmaps_come_back(groups: set[int]) -> None:
    bits = bits_of(groups)
    meta = encode_bits(bits)
    assert groups_of(bits) == sorted(groups) and bits_of([]) == 0 and groups_of(0) == []
    assert len(meta) == (max(groups) // 64 + 1) * 8
    assert decode_bits(meta, max(groups) + 1) == bits
    with pytest.raises(ValueError, match="bitmap"):
        decode_bits(meta, max(groups))


@pytest.mark.parametrize("meta", [b"", bytes(8), b"\1", b"\1" * 9, bytes(7) + b"\x80" + b"\1"])
def test_bitmaps_that_make_no_sense(meta: bytes) -> None:
    with pytest.raises(ValueError, match="bitmap"):
        decode_bits(meta, 1000)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 60))
def test_changed_pieces_are_refused_or_well_formed(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(pack_rows({3: b"three", 250: None, 251: b"x" * 30, 999: b""}))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = Changes(bytes(data[: len(data) - max(0, cut - 40)]), 100, 10)
    except ValueError:
        return
    rows = [row for group in range(10) for row in found.rows(group)]
    assert all(0 <= row < 100 for row, _ in rows) and found.bits < 1 << 10


def test_the_bytes_are_those_of_the_format() -> None:
    data = pack_rows({5: b"ab", 1 << 40: None})
    rows = "0500000000000000 01000000 02000000 6162", "0000000000010000 00000000 00000000"
    assert data == bytes.fromhex(" ".join(["0200000000000000", *rows]))
    assert [row for row, *_ in read_rows(memoryview(data), ROW, 1 << 41, "piece")] == [5, 1 << 40]
    assert (SCATTERED, SCATTERED_KEY, LIMIT, MOST) == (0x7000000, 1 << 63, 262_144, 64)


# -- what is written ---------------------------------------------------------
def test_few_changes_of_many_groups_are_one_piece(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    groups = list(range(60 // span))
    before = dict(disk.tree)
    touch(table, range(0, len(groups) * span, span), "one")
    table = again(disk, table)
    assert {key: entry for key, entry in disk.tree.items() if key != SCATTERED_KEY} == before
    assert [groups_in(piece) for piece in pieces(disk)] == [groups] and disk.written < 2000
    touch(table, range(1, len(groups) * span, span), "two")
    touch(table, [0], "later")  # the later piece wins
    table.delete(span)
    table = again(disk, table)
    assert [groups_in(piece) for piece in pieces(disk)] == [groups, groups]
    assert table.get(0)["s"] == "later" and table.get(span) is None  # type: ignore[index]
    assert {key: entry for key, entry in disk.tree.items() if key != SCATTERED_KEY} == before


def test_one_group_is_patched(backend_name: str) -> None:
    table, disk = filled(backend_name)
    touch(table, [3, 4], "one")
    again(disk, table)
    assert pieces(disk) == [] and [piece.tag for piece in disk.tree[0].pieces] == [GROUP, PATCH]


def test_a_group_that_is_written_takes_what_is_scattered_along(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    groups = list(range(60 // span))
    touch(table, range(0, len(groups) * span, span), "one")
    table.delete(span + 1)
    table = again(disk, table)
    touch(table, [1], "alone")  # a patch, with row 0
    table = again(disk, table)
    assert [groups_in(piece) for piece in pieces(disk)] == [groups[1:]]
    patch = disk.read(disk.tree[0].pieces[1].ref)  # type: ignore[arg-type]
    assert [row for row, *_ in read_rows(patch, row_file._ROW, span, "patch")] == [0, 1]
    table.remove([idx for idx in range(span, 2 * span) if idx != span + 1])  # nothing is left of group 1
    table = again(disk, table)
    assert 1 not in disk.tree and [groups_in(piece) for piece in pieces(disk)] == [groups[2:]]
    for group in groups[2:]:
        touch(table, [group * span + 2], "more")
        table = again(disk, table)
    assert SCATTERED_KEY not in disk.tree
    assert all(idx % span > 2 or row["s"] != wide(idx)["s"] for idx, row in rows_of(table).items() if idx % span == 0)


def test_images_take_what_is_scattered_along(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    touch(table, range(0, 60, span), "one")
    table = again(disk, table)
    touch(table, range(60), "x" * 9000)  # too much for patches
    table = again(disk, table)
    assert SCATTERED_KEY not in disk.tree and disk.written > 60 * 9000
    assert all([piece.tag for piece in entry.pieces] == [GROUP] for entry in disk.tree.values())


@pytest.mark.parametrize("taken_back", [False, True])
def test_compact(backend_name: str, taken_back: bool) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    touch(table, range(0, 60, span), "one")
    table = again(disk, table)
    kept = pieces(disk)
    table.begin()
    table.remove([*range(2, 5), *range(35, 55)])  # there are fewer groups then
    table.compact()
    if taken_back:
        table.rollback()
        touch(table, range(1, 60, span), "two")
        table = again(disk, table)
        assert len(pieces(disk)) == 2 and pieces(disk)[:1] == kept
    else:
        table.commit()
        table = again(disk, table)
        assert SCATTERED_KEY not in disk.tree
        assert [row["k"] for row in rows_of(table).values()] == [0, 1, *range(5, 35), *range(55, 60)]


def test_a_batch_goes_its_own_way(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    made = table.prepare(table.stage([wide(i) for i in range(60, 200)]))
    stored = [(key, disk.write(entry)) for key, entry in made.entries]
    table.publish(made, stored)
    touch(table, range(0, 200, span), "one")
    again(disk, table)
    (piece,) = pieces(disk)
    assert groups_in(piece) == list(range(60 // span))  # those of the batch are new to the tree


def test_a_checkpoint_that_failed_is_made_again(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    for turn in range(3):
        touch(table, range(turn, 60, span), f"turn {turn}")
        changes = iter(table.changes())
        next(changes)  # and is never told of its being saved
        table = again(disk, table)
    assert len(pieces(disk)) == 3


# -- folding -----------------------------------------------------------------
@contextmanager
def limits(size: int, most: int) -> Iterator[None]:
    with mock.patch.multiple(row_scattered, LIMIT=size, SHARE=0, MOST=most):
        yield


def test_folding_is_spread_and_keeps_to_the_limits(backend_name: str) -> None:
    count = 300 if backend_name == "c" else 120
    table, disk = filled(backend_name, count)
    span, draw = span_of(table), random.Random(4)
    groups = -(-count // span)
    expected = rows_of(table)
    folded: list[int] = []
    with limits(10_000, 8):
        for turn in range(60):
            ids = sorted(draw.sample(range(count), 8))
            touch(table, ids, f"turn {turn}")
            before = dict(disk.tree)
            disk.checkpoint(table)
            for idx in ids:
                expected[idx] = {**expected[idx], "s": f"turn {turn}"}
            kept = pieces(disk)
            assert len(kept) <= 2 * 8 and sum(piece.ref.length for piece in kept if piece.ref) <= 2 * 10_000
            folded.append(sum(before[key] != entry for key, entry in disk.tree.items() if key != SCATTERED_KEY))
            if turn % 7 == 0:
                table = opened(disk, table.header(), WIDE, backend_name, WIDE_PAGE)
                assert rows_of(table) == expected
    assert max(folded) <= groups // 2 and sum(folded) > groups  # all of them, and never many at once
    assert sum(folded[-20:]) > 0
    assert list(table.verify()) == []


def test_many_small_pieces_are_folded_too(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    with limits(1 << 20, 4):
        for turn in range(30):
            touch(table, [turn % span, span + turn % span], f"turn {turn}")
            table = again(disk, table)
            assert len(pieces(disk)) <= 8


def test_what_is_far_over_the_limits_is_folded_at_once(backend_name: str) -> None:
    table, disk = filled(backend_name)
    span = span_of(table)
    for turn in range(5):
        touch(table, range(turn, 60, span), f"turn {turn}")
        table = again(disk, table)
    assert len(pieces(disk)) == 5
    with limits(1 << 20, 2):
        touch(table, [0, span], "then")
        table = again(disk, table)
    assert pieces(disk) == []


def test_a_million_changes_read_back() -> None:
    if "c" not in _ext.available():
        pytest.skip("too slow without compiled kernels")
    table, disk = created(PLAIN, "c")
    table.extend(numbers(table, 100_000))
    table = opened(disk, disk.checkpoint(table), PLAIN, "c")
    values = {}
    draw, most, total = random.Random(1), 0, 0
    for turn in range(150):
        for idx in draw.sample(range(100_000), 20):
            values[idx] = float(turn)
            table.update(idx, {"v": values[idx]})
        header = disk.checkpoint(table)
        most, total = max(most, disk.written), total + disk.written
    assert total < 150 * 4000 and most < 20_000
    table = opened(disk, header, PLAIN, "c")
    assert all(table.get(idx) == {"k": idx, "v": value, "n": idx} for idx, value in values.items())
    assert list(table.verify()) == []


# -- damage ------------------------------------------------------------------
def damaged(backend: str) -> tuple[Disk, Mapping[str, Any], int]:
    """A row of every group is scattered, in two pieces: the groups from 2 on are in the second one only."""
    table, disk = filled(backend)
    span = span_of(table)
    touch(table, [0, span], "one")
    disk.checkpoint(table)
    touch(table, range(2 * span, 60, span), "two")
    header = disk.checkpoint(table)
    assert [groups_in(piece)[0] for piece in pieces(disk)] == [0, 2]
    return disk, header, span


def row(idx: int, live: int, data: bytes, zeros: bytes = b"\0\0\0") -> bytes:
    return struct.pack("<QB3sI", idx, live, zeros, len(data)) + data


def test_a_damaged_piece_takes_its_groups_along_and_no_others(backend_name: str) -> None:
    disk, header, span = damaged(backend_name)
    good = RowTable(WIDE, WIDE_PAGE, backend=backend_name).codec.pack([1, b"p", None, 0.5, 1])
    first, second = pieces(disk)
    both = row(0, 1, good) + row(span, 1, good)
    for data in (
        b"", HEAD(0, 0), HEAD(2, 0), HEAD(2, 1) + both, HEAD(2**32 - 1, 0) + both, HEAD(2, 0) + both[:-1],
        HEAD(2, 0) + both + b"\0", HEAD(1, 0) + row(0, 1, good), HEAD(2, 0) + row(span, 1, good) + row(0, 1, good),
        HEAD(2, 0) + row(0, 1, good) + row(0, 1, good), HEAD(2, 0) + row(0, 2, good) + row(span, 1, good),
        HEAD(2, 0) + row(0, 0, good) + row(span, 1, good), HEAD(2, 0) + row(0, 1, b"") + row(span, 1, b""),
        HEAD(2, 0) + row(0, 1, good, b"\0\1\0") + row(span, 1, good),
        HEAD(2, 0) + row(0, 1, good[:-1]) + row(span, 1, good[:-1]),
        HEAD(3, 0) + both + row(1 << 40, 1, good), HEAD(3, 0) + both + row((1 << 64) - 1, 0, b""),
    ):  # fmt: skip
        (other,) = disk.write(Entry(b"", [Piece(SCATTERED, first.meta, data)])).pieces
        disk.tree[SCATTERED_KEY] = Entry(b"", [other, second])
        table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
        assert table.get(2 * span)["s"] == "two"  # type: ignore[index]
        for idx in (0, 1, span):
            for _ in range(2):
                with pytest.raises(errors.CorruptionError, match=r"scattered changes|slab group"):
                    table.get(idx)
        with pytest.raises(errors.CorruptionError):
            table.update(1, {"s": "y"})
        with pytest.raises(errors.CorruptionError):
            list(table.items())
        assert table.get(3 * span)["s"] == "two"  # type: ignore[index]
        assert 1 <= len(list(table.verify())) <= 2


def entries_that_make_no_sense(one: Piece, other: Piece) -> list[Entry]:
    ref: Any = one.ref
    assert isinstance(ref, Ref)
    return [
        Entry(b"", []), Entry(b"x", [one]), Entry(b"", [one._replace(tag=GROUP)]),
        Entry(b"", [one._replace(tag=PATCH)]), Entry(b"", [one._replace(tag=SCATTERED + 1)]),
        Entry(b"", [one._replace(meta=b"")]),
        Entry(b"", [one._replace(meta=bytes(8))]), Entry(b"", [one._replace(meta=b"\1")]),
        Entry(b"", [one, other._replace(meta=b"\xff" * 8)]), Entry(b"", [one._replace(meta=b"\1" * 80)]),
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(10))
def test_entries_of_other_pieces(backend_name: str, which: int) -> None:
    disk, header, span = damaged(backend_name)
    disk.tree[SCATTERED_KEY] = entries_that_make_no_sense(*pieces(disk))[which]
    table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    for idx in (0, 2 * span):
        with pytest.raises(errors.CorruptionError, match="scattered changes"):
            table.get(idx)
    assert len(list(table.verify())) == 1


def test_a_piece_counts_where_it_has_rows(backend_name: str) -> None:
    disk, header, span = damaged(backend_name)
    one, other = pieces(disk)
    disk.tree[SCATTERED_KEY] = Entry(b"", [one._replace(meta=encode_bits(0b111)), other])
    table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    with pytest.raises(errors.CorruptionError, match="no rows of group 2"):
        table.get(0)
    assert any("no rows of group 2" in text for text in table.verify())
    disk.tree[SCATTERED_KEY] = Entry(b"", [one._replace(meta=encode_bits(0b10)), other])
    table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    assert (table.get(0), table.get(span)) == (wide(0), {**wide(span), "s": "one"})


def test_changes_of_a_group_without_an_image(backend_name: str) -> None:
    disk, header, span = damaged(backend_name)
    del disk.tree[1]
    table = opened(disk, header, WIDE, backend_name, WIDE_PAGE)
    with pytest.raises(errors.CorruptionError, match="slab group 1: .* no image"):
        table.get(span)
    assert any("slab group 1" in text for text in table.verify())
    assert table.get(0)["s"] == "one"  # type: ignore[index]


def test_a_live_row_past_the_end(backend_name: str) -> None:
    table, disk = filled(backend_name, 55)
    packed = table.codec.pack([1, b"p", None, 0.5, 1])
    last = 55 // span_of(table)
    data = pack_rows({0: packed, 55: packed})
    disk.tree[SCATTERED_KEY] = disk.write(Entry(b"", [Piece(SCATTERED, encode_bits(1 | 1 << last), data)]))
    table = opened(disk, table.header(), WIDE, backend_name, WIDE_PAGE)
    assert any("past the end" in text for text in table.verify())
    with pytest.raises(errors.CorruptionError, match="slab group"):
        table.get(54)
    with pytest.raises(errors.CorruptionError, match="slab group"):
        table.insert(wide(55))


# -- against a dict ----------------------------------------------------------
@pytest.mark.parametrize("backend", _ext.available())
@pytest.mark.parametrize("small", [True, False])
@settings(max_examples=30)
@given(steps=STEPS, seed=st.integers(0, 9))
def test_workloads(backend: str, small: bool, steps: list[Any], seed: int) -> None:
    work = Workload(backend)
    draw = random.Random(seed)
    with limits(1500 if small else LIMIT, 3 if small else MOST):
        work.batch(40 + seed * 10)
        work.open()
        for name, *arguments in steps:
            getattr(work, name)(*arguments)
            for place in sorted(draw.random() for _ in range(seed % 4)):
                work.update(place, f"{name} {place}")
        work.rollback()
        work.open()
        assert list(work.table.verify()) == []
        work.check()
        assert list(work.table.verify()) == []
        assert list(work.table.changes()) == []


# -- whole files -------------------------------------------------------------
def test_files_with_scattered_changes(backend_name: str, tmp_path: Any) -> None:
    count = 20_000 if backend_name == "c" else 6000
    draw = random.Random(2)
    with using(RecordingLayer()), limits(4000, 6):
        db = SnapDB("x.snapdb", PLAIN)
        db.batch_insert({"k": i, "v": i / 2, "n": i} for i in range(count))
        states: dict[str, dict[int, Any]] = {}
        rows = dict(db)
        for turn in range(30):
            for idx in draw.sample(range(count), 8):
                if turn % 5 == 4 and idx in rows and draw.random() < 0.3:
                    db.delete(idx)
                    del rows[idx]
                elif idx in rows:
                    db.update(idx, {"v": float(turn)})
                    rows[idx] = {**rows[idx], "v": float(turn)}
            if turn % 3 == 0:
                db.snapshot(f"s{turn}")
                states[f"s{turn}"] = dict(rows)
            elif turn % 3 == 1:
                db.checkpoint()
            if turn == 20:
                db._abandon()
                db = SnapDB("x.snapdb")
            if turn == 23:
                db.restore("s9")
                rows = dict(states["s9"])
        assert db.fsck()["ok"] and dict(db) == rows
        for name, state in states.items():
            with db.open_snapshot(name) as shown:
                assert dict(shown) == state
                assert shown.fsck()["ok"]
        db.backup("copy.snapdb")
        db.close()
        for name in ("x.snapdb", "copy.snapdb"):
            with SnapDB(name, read_only=name == "copy.snapdb") as db:
                assert dict(db) == rows and db.fsck()["ok"]
        with SnapDB("x.snapdb") as db:
            db.restore("s27" if "s27" in states else "s0")
            db.compact()
            assert [row for _, row in db] == list(states["s27" if "s27" in states else "s0"].values())
            assert db.fsck()["ok"]


def test_a_checkpoint_of_changes_here_and_there_is_small() -> None:
    """The same with patches only writes a page a group."""
    written: dict[bool, int] = {}
    for scattered in (True, False):
        layer = RecordingLayer(record=False)
        with using(layer), mock.patch.object(row_file, "LARGEST", row_file.LARGEST if scattered else -1):
            with SnapDB("x.snapdb", PLAIN) as db:
                db.insert_columns({"k": range(200_000), "v": [0.5] * 200_000, "n": range(200_000)})
                db.checkpoint()
                db.snapshot("one")
                for idx in range(0, 200_000, 2000):
                    db.update(idx, {"v": 1.0})
                before = db.stats()["file_bytes"]
                db.checkpoint()
                written[scattered] = db.stats()["live_bytes"]
                assert db.stats()["file_bytes"] >= before
    assert written[True] + 100 * 1024 < written[False]
