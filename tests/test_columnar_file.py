"""The columnar engine in a file: segments come when they are asked for, what has changed is all that is written."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from typing import Any, Callable

import pytest
from entry_disk import (
    PLAIN,
    SCHEMA,
    Disk,
    Stored,
    assert_sound,
    bulk,
    created,
    opened,
    plain,
    reopened,
    row,
    state_of,
    state_of_plain,
)

from snapdb import ColumnarTable, _ext
from snapdb._ext._common import BLOCK, SEGMENT
from snapdb.columnar_file import (
    SEALED,
    TAIL_ROWS,
)
from snapdb.errors import CorruptionError, InternalError
from snapdb.pieces import Entry, Piece
from snapdb.segments import Sealed, Unread


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
    assert (
        again.get(7) is None
        and again.get(SEGMENT + 6) is None
        and again.get(2 * SEGMENT + 5) == table.get(2 * SEGMENT + 5)
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
    assert table.get(3 * SEGMENT + 7) == {
        "a": 3 * SEGMENT + 7,
        "v": (3 * SEGMENT + 7) * 0.5,
        "s": f"s{(3 * SEGMENT + 7) % 7}",
    }
    assert disk.asked == [5, 3]
    assert {ref.extent for ref in disk.reads[opening:]} == {p.ref.extent for p in disk.tree[3].pieces if p.ref}
    assert len(disk.reads) == opening + 3
    assert type(table.column_list[0].parts[1]) is Unread
    disk.reads.clear()
    count = 5 * SEGMENT + 2000
    assert table.aggregate("a", "min") == 0 and table.aggregate("a", "max") == count - 1
    assert table.aggregate("v", "count") == count and table.aggregate("a") == count * (count - 1) // 2
    assert table.count_where([("a", "lt", -1)]) == 0 and table.count_where([("a", "gte", 0)]) == count
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


def test_threads_that_meet_segments_not_read_yet(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(4 * SEGMENT + 100))
    header = disk.checkpoint(table)
    ids = [k * SEGMENT + at for k in (0, 2, 1, 3) for at in range(0, SEGMENT, 9000)]
    asks: list[Callable[[ColumnarTable], Any]] = [
        lambda it: [it.get(idx)["a"] for idx in ids] == ids,  # type: ignore[index]
        lambda it: all(it.contains(idx) for idx in reversed(ids)),
        lambda it: it.select_where([("a", "in", ids)], ["a"]) == [{"a": idx} for idx in sorted(ids)],
        lambda it: [it.update(idx, {"s": "new"}) for idx in ids] == [None] * len(ids),
        lambda it: [it.insert({"a": 1, "v": 0.0, "s": None}) for _ in ids] == list(range(it.rows - len(ids), it.rows)),
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(3):
            again = opened(disk, header, backend_name, PLAIN)
            right: list[bool] = []
            told = [partial(lambda ask, it, right: right.append(ask(it)), ask, again, right) for ask in asks]
            threads = [threading.Thread(target=one) for one in told]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert right == [True] * len(asks)
            assert again.count_where([("s", "eq", "new")]) == len(ids)
            assert_sound(again)
    finally:
        sys.setswitchinterval(interval)


def test_deleted_and_updated_rows_are_seen_at_once(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(2 * SEGMENT + 5))
    table.remove([9])
    table.update(8, {"s": "new"})
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
    assert state_of_plain(again)[2:4] == (
        [i for i in after[2] if i != SEGMENT + 9],
        [i for i in after[3] if i != SEGMENT + 9],
    )
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
