"""Snapshots of a store: made, replaced and dropped, through checkpoints, crashes, damaged slots and refusals; what they
show, and that no room is lost or given back too early.
"""

from __future__ import annotations

import gc
import os
import random
import struct
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from test_store import KERNEL, PATH, Rows, Toy, flip

from snapdb import ColumnDef, Schema, SnapDB
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    InternalError,
    LockedError,
    NotSupportedError,
    ReadOnlyError,
    StorageError,
)
from snapdb.step import carry_out
from snapdb.storage import archive, checkpoint, fsck, recovery, snapshots, store
from snapdb.storage.catalog import Root, Tree
from snapdb.storage.extents import HEADER
from snapdb.storage.files import local_layer, using
from snapdb.storage.layer import FileLayer
from snapdb.storage.recovery import DROP, RESTORE, SNAPSHOT, Frame, read_pinned
from snapdb.storage.snapshots import History, Snapshot, encode_frame
from snapdb.storage.store import Options, Store
from snapdb.storage.superblock import PAGE, PREAMBLE, SLOTS, read_slots
from snapdb.testing.disk import Disk
from snapdb.testing.layers import RecordingLayer

View = tuple[Rows, dict[str, Rows]]


class Keeper(Toy):
    """The toy table with snapshots."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows, self.stored, self.changed = {}, {}, set()
        for key, entry in store.items():
            self._take(key, entry)
        for frame in store.replay:
            if frame.kind in (SNAPSHOT, DROP, RESTORE):
                store.replay_history(frame)
                if frame.kind == RESTORE:
                    self.adopt()
            else:
                self._replay(frame.kind, frame.payload)
        if store.unclean and not store.read_only:
            self.checkpoint()

    def snapshot(self, name: str) -> None:
        store = self.store
        if not store.folded:
            self.checkpoint()
        old = store.history.find(name)
        replaced = None if old is None else old.serial
        if replaced is not None:
            store.history.load(replaced)
        record = store.pin(name, b"{}")
        mark = store.log.mark()
        try:
            if replaced is not None:
                store.log.append(DROP, struct.pack("<Q", replaced), 1)
            store.log.append(SNAPSHOT, encode_frame(record), 3 if replaced is None else 2)
        except BaseException:
            if store.log.mark() != mark:
                store.rollback_to(mark)
            store.unpin(record)
            raise
        store.pinned(record, replaced)
        store.log.after()

    def drop(self, name: str) -> None:
        record = self.store.history.find(name)
        assert record is not None
        self.store.history.load(record.serial)
        self.store.log.append(DROP, struct.pack("<Q", record.serial))
        self.store.dropped(record.serial)
        self.store.log.after()

    def restore(self, name: str) -> None:
        record = self.store.history.find(name)
        assert record is not None
        restoring = self.store.prepare_restore(record.serial)
        self.store.log.append(RESTORE, struct.pack("<Q", record.serial))
        self.store.restored(restoring)
        self.adopt()
        self.store.log.after()

    def adopt(self) -> None:
        self.rows, self.stored, self.changed = {}, {}, set()
        for key, entry in self.store.items():
            self._take(key, entry)

    def shown(self, record: Snapshot) -> Rows:
        extents = self.store.extents
        rows = {}
        for key, entry in Tree(extents, read_pinned(extents, record).top).items():
            assert entry.pieces[0].ref is not None
            rows[key] = bytes(extents.read(entry.pieces[0].ref))
        return rows

    def view(self) -> View:
        return dict(self.rows), {record.name: self.shown(record) for record in self.store.history.records}


OPEN: list[Keeper] = []


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    for keeper in OPEN:
        keeper.store.abandon()
    OPEN.clear()


def options(layer: FileLayer, durability: str = "full", **more: Any) -> Options:
    return Options(layer, KERNEL, durability, **more)


def make(layer: FileLayer, durability: str = "full", **more: Any) -> Keeper:
    if not layer.exists(PATH):
        Store.create(PATH, {"rows": 0}, options(layer))
    opened = Store.open(PATH, options(layer, durability, **more))
    try:
        keeper = Keeper(opened)
    except BaseException:
        opened.abandon()
        raise
    OPEN.append(keeper)
    return keeper


def sound(keeper: Keeper) -> None:
    assert fsck.check(keeper.store, True) == []


def free_of_snapshots(keeper: Keeper) -> None:
    """Drop all, and see that nothing but the tree and its root is left."""
    for record in list(keeper.store.history.records):
        keeper.drop(record.name)
    for _ in range(3):
        keeper.put(1000, b"after")
        keeper.checkpoint()
    sound(keeper)
    space = keeper.store.space
    assert space is not None
    live = sum(size for _, size in keeper.store.tree.reachable()) + PAGE
    assert space.high_water - PREAMBLE - space.free_bytes - space.waiting_bytes == live


def reopened(contents: dict[str, bytes], drop: bool = True) -> View:
    """The view of an image; it is opened, checked, written to, closed and opened again."""
    layer = RecordingLayer.from_contents(contents, record=False)
    keeper = make(layer)
    try:
        rows, shown = keeper.view()
        sound(keeper)
        keeper.put(1000, b"after")
        keeper.checkpoint()
        assert keeper.view() == ({**rows, 1000: b"after"}, shown)
        if drop and len(shown) > 1:
            keeper.drop(sorted(shown)[len(shown) // 2])
        keeper.close()
        keeper = make(layer)
        sound(keeper)
        assert all(shown[name] == each for name, each in keeper.view()[1].items())
        if drop:
            free_of_snapshots(keeper)
    finally:
        keeper.store.abandon()
    return rows, shown


# -- making and dropping -------------------------------------------------------
@pytest.mark.parametrize("durability", ["full", "normal", "none"])
@pytest.mark.parametrize("maps", [False, True])
def test_snapshots_show_what_was(durability: str, maps: bool) -> None:
    layer = RecordingLayer(maps=maps)
    keeper = make(layer, durability)
    expected: dict[str, Rows] = {}
    for turn in range(30):
        for key in range(turn % 5 + 1):
            keeper.put(key * 3 % 7, b"%d " % turn * (200 * key + 1))
        if turn % 4 == 3:
            keeper.delete(0)
        if turn % 3 == 2:
            keeper.bulk({20 + turn: b"bulk %d" % turn * 1000})
        name = f"s{turn % 11}"
        keeper.snapshot(name)
        expected.pop(name, None)
        expected[name] = dict(keeper.rows)
        if turn % 5 == 4:
            gone = sorted(expected)[turn % len(expected)]
            keeper.drop(gone)
            del expected[gone]
        if turn % 7 == 6:
            keeper.checkpoint()
        if turn % 6 == 3:
            back = sorted(expected)[turn % len(expected)]
            keeper.restore(back)
            assert keeper.rows == expected[back] and keeper.store.folded
        assert keeper.view() == (keeper.rows, expected)
        sound(keeper)
        if turn % 10 == 9:
            if turn % 20 == 9:
                keeper.close()
            else:
                keeper.store.flush()
                keeper.store.abandon()
            keeper = make(layer, durability)
            assert keeper.view()[1] == expected
    serials = [record.serial for record in keeper.store.history.records]
    assert serials == sorted(serials) and keeper.store.history.serial == 31
    free_of_snapshots(keeper)


def test_a_snapshot_of_a_started_handle_is_one_page_and_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = RecordingLayer()
    layer.threads = False
    monkeypatch.setattr("snapdb.storage.wal._DELAY", float("inf"))  # a flush that is due is not the snapshot's
    keeper = make(layer, "normal")
    keeper.store.long = keeper.store.full = lambda: None  # type: ignore[method-assign]
    for key in range(50):
        keeper.put(key, bytes(3000))
    keeper.checkpoint()
    assert keeper.store.wal is not None
    log = keeper.store.wal.file.path
    for turn in range(3):
        before, size = len(layer.log), layer.size(PATH)
        keeper.snapshot(f"s{turn}")
        done = [(op.kind, op.path) for op in layer.log[before:] if op.kind != "allocate"]
        assert done == [("write", PATH), ("write", log)]
        assert layer.size(PATH) - size == (PAGE if layer.size(PATH) > size else 0)
    assert len(keeper.store.history.records) == 3
    keeper.snapshot("s1")
    sound(keeper)


def test_only_what_is_folded_in_is_pinned() -> None:
    keeper = make(RecordingLayer())
    assert keeper.store.folded
    keeper.put(1, b"one")
    assert not keeper.store.folded
    with pytest.raises(InternalError, match="folded"):
        keeper.store.pin("x", b"")
    keeper.checkpoint()
    keeper.snapshot("a")
    keeper.snapshot("b")
    assert keeper.store.folded
    keeper.drop("a")
    assert keeper.store.folded
    keeper.put(1, b"two")
    keeper.drop("b")
    assert not keeper.store.folded
    keeper.snapshot("c")
    keeper.close()
    with pytest.raises(Exception, match="closed"):
        keeper.store.pin("x", b"")


def test_a_pinned_root_whose_frame_did_not_come_is_free_again() -> None:
    keeper = make(RecordingLayer())
    keeper.put(1, b"one")
    keeper.checkpoint()
    space = keeper.store.space
    assert space is not None
    before = space.high_water, space.free
    keeper.store.unpin(keeper.store.pin("x", b""))
    assert (space.high_water, space.free) == before and keeper.store.history.records == []
    sound(keeper)


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = make(RecordingLayer())
    keeper.snapshot("a")
    monkeypatch.setattr(archive, "MOST_SNAPSHOTS", 1)
    with pytest.raises(NotSupportedError, match="drop some"):
        keeper.snapshot("b")
    monkeypatch.setattr(archive, "MOST_SNAPSHOTS", 9)
    monkeypatch.setattr(archive, "RECORDS_LIMIT", 500)
    keeper.snapshot("b")
    with pytest.raises(NotSupportedError, match="drop some"):
        keeper.snapshot("c" * 200)
    sound(keeper)


def test_many_lists_of_a_few_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LIST_LIMIT", 8)
    layer, draw = RecordingLayer(record=False), random.Random(2)
    keeper = make(layer, "none")
    expected = {}
    for turn in range(50):
        for _ in range(8):
            keeper.put(draw.randrange(40), bytes([turn]) * draw.choice([10, 5000]))
        keeper.snapshot(f"s{turn}")
        expected[f"s{turn}"] = dict(keeper.rows)
        if turn % 4 == 3:
            gone = draw.choice(sorted(expected))
            keeper.drop(gone)
            del expected[gone]
        if turn % 16 == 15:
            sound(keeper)
            keeper.close()
            keeper = make(layer, "none")
            assert keeper.view()[1] == expected
    keeper.checkpoint()
    assert max(len(record.lists) for record in keeper.store.history.records) > 2
    sound(keeper)
    free_of_snapshots(keeper)


def test_a_reader_sees_snapshots_that_only_the_log_has() -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("a")
    keeper.put(1, b"two")
    keeper.snapshot("b")
    keeper.drop("a")
    keeper.snapshot("c")
    keeper.put(1, b"three")
    keeper.restore("b")
    keeper.put(2, b"four")
    view = keeper.view()
    keeper.store.abandon()
    before = layer.contents()
    reader = make(layer, read_only=True)
    assert reader.view() == view
    sound(reader)
    with pytest.raises(ReadOnlyError):
        reader.store.pin("x", b"")
    reader.store.close()
    assert layer.contents() == before


def test_a_checkpoint_that_fails_changes_nothing() -> None:
    layer = RecordingLayer()
    keeper = make(layer, "normal")
    for key in range(6):
        keeper.put(key, bytes(5000))
    keeper.snapshot("a")
    keeper.put(0, b"new")
    keeper.snapshot("b")
    keeper.put(1, b"new")
    keeper.drop("a")
    store, history = keeper.store, keeper.store.history
    before = keeper.view(), sorted(history.reach()), set(history.pending)
    for kind in ("dead", "root"):
        with pytest.MonkeyPatch.context() as patch:

            def refuse(*arguments: Any) -> Any:
                raise OSError(28, "full")

            patch.setattr(checkpoint.Draft, kind, refuse)
            with pytest.raises(StorageError, match="nothing is lost"):
                keeper.checkpoint()
        assert (keeper.view(), sorted(history.reach()), set(history.pending)) == before
        sound(keeper)
    keeper.checkpoint()
    assert store.failed is None and not history.pending
    sound(keeper)
    free_of_snapshots(keeper)


def test_shrinking_leaves_what_snapshots_reach() -> None:
    layer = RecordingLayer(record=False)
    keeper = make(layer, "none")
    keeper.bulk({key: bytes([key]) * 20_000 for key in range(60)})
    keeper.checkpoint()
    keeper.snapshot("full")
    for key in range(5, 60):
        keeper.delete(key)
    keeper.snapshot("few")
    expected = keeper.view()
    for _ in range(2):
        keeper.checkpoint()
        keeper.store.shrink()
        sound(keeper)
        assert keeper.view() == expected
    size = layer.size(PATH)
    keeper.close()
    keeper = make(layer, "none")
    assert keeper.view() == expected and layer.size(PATH) <= size
    keeper.drop("full")
    keeper.drop("few")
    keeper.close()
    assert layer.size(PATH) < 300_000
    keeper = make(layer, "none")
    assert keeper.view() == (expected[0], {})
    free_of_snapshots(keeper)


def test_a_doubtful_space_is_made_anew_with_all_of_it() -> None:
    keeper = make(RecordingLayer())
    for turn in range(6):
        for key in range(5):
            keeper.put(key, bytes([turn]) * 3000)
        keeper.snapshot(f"s{turn % 4}")
        if turn % 2:
            keeper.drop(f"s{turn % 4}")
        keeper.store.extents.space.doubt()
        view = keeper.view()
        keeper.put(9, b"x")
        keeper.checkpoint()
        sound(keeper)
        assert keeper.view()[1] == view[1]
    free_of_snapshots(keeper)


# -- readers of a snapshot -----------------------------------------------------
def rows_of(source: Any) -> Rows:
    return {key: bytes(source.read(entry.pieces[0].ref)) for key, entry in source.items()}


@pytest.mark.parametrize("maps", [False, True])
def test_a_source_shows_its_snapshot_whatever_happens(maps: bool) -> None:
    layer = RecordingLayer(maps=maps)
    keeper = make(layer)
    expected = []
    for turn in range(4):
        keeper.put(turn, bytes([turn]) * 9000)
        keeper.put(0, b"%d" % turn)
        keeper.snapshot(f"s{turn}")
        expected.append(dict(keeper.rows))
    sources = [keeper.store.snapshot_source(record) for record in keeper.store.history.records]
    assert keeper.store.users == {1: 1, 2: 1, 3: 1, 4: 1}
    assert sources[1].header == {"rows": 2} and sources[1].entry(2) is None
    another = keeper.store.snapshot_source(keeper.store.history.records[2])
    assert keeper.store.users[3] == 2
    another.close()
    for turn in range(5):
        keeper.put(0, b"more %d" % turn * 3000)
        keeper.checkpoint()
        assert [rows_of(source) for source in sources] == expected
    view = sources[3].read(sources[3].entry(1).pieces[0].ref)  # type: ignore[union-attr, arg-type]
    sources[0].close()
    assert keeper.store.users == {2: 1, 3: 1, 4: 1}
    with pytest.raises(ClosedError, match="snapshot 's0' is closed"):
        sources[0].entry(0)
    keeper.close()
    assert [rows_of(source) for source in sources[1:]] == expected[1:]
    with pytest.raises(ClosedError):
        keeper.store.snapshot_source(sources[1].record)
    with pytest.raises(LockedError):
        make(layer)
    sources[1].close()
    sources[1].close()
    del sources[2]
    gc.collect()
    assert rows_of(sources[2]) == expected[3]
    with pytest.raises(LockedError):
        make(layer)
    sources[2].close()
    assert view == bytes([1]) * 9000
    assert make(layer).view()[1]["s2"] == expected[2]


def test_a_source_keeps_the_file_of_a_store_that_was_left() -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("a")
    source = keeper.store.snapshot_source(keeper.store.history.records[0])
    keeper.store.abandon()
    assert rows_of(source) == {1: b"one"}
    source.forked()
    with pytest.raises(ClosedError, match="forked"):
        source.items()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_source(tmp_path: Path) -> None:
    path = str(tmp_path / "x.snapdb")
    Store.create(path, {"rows": 0}, options(local_layer()))
    keeper = Keeper(Store.open(path, options(local_layer())))
    OPEN.append(keeper)
    keeper.put(1, b"one")
    keeper.snapshot("a")
    source = keeper.store.snapshot_source(keeper.store.history.records[0])
    for closed in (False, True):
        if closed:
            keeper.close()
        child = os.fork()
        if not child:
            try:
                source.entry(1)
            except ClosedError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert rows_of(source) == {1: b"one"}
    source.close()
    again = Keeper(Store.open(path, options(local_layer())))
    OPEN.append(again)
    assert again.view() == ({1: b"one"}, {"a": {1: b"one"}})


# -- damage --------------------------------------------------------------------
def test_damage_is_named() -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    for turn in range(3):
        keeper.put(1, bytes([turn]) * 9000)
        keeper.snapshot(f"s{turn}")
    keeper.put(1, b"last")
    keeper.close()
    contents = layer.contents()
    first = keeper.store.history.records[0]
    for ref in (first.root, first.lists[0]):
        damaged = RecordingLayer(flip(contents, PATH, ref.extent + HEADER + 9))
        reader = make(damaged, read_only=True)
        assert reader.rows == {1: b"last"}
        (finding,) = fsck.check(reader.store, True)
        assert finding["kind"] == "snapshot" and ref.extent <= finding["where"] <= ref.extent + HEADER
        reader.store.close()
    keeper = make(RecordingLayer(flip(contents, PATH, first.lists[0].extent + HEADER + 9)))
    with pytest.raises(CorruptionError):
        keeper.put(2, b"two")
        keeper.checkpoint()


def crooked(keeper: Keeper, change: Callable[[list[Any]], None]) -> list[str]:
    """What fsck says where the lists of a store are changed."""
    lists = keeper.store.history._lists
    change([lists[record.serial] for record in keeper.store.history.records])
    return sorted({finding["kind"] for finding in fsck.check(keeper.store)})


def test_fsck_finds_lists_that_break_the_rules() -> None:
    def three() -> Keeper:
        keeper = make(RecordingLayer())
        for turn in range(3):
            keeper.put(1, bytes([turn]) * 9000)
            keeper.put(2, b"%d" % turn)
            keeper.snapshot(f"s{turn}")
        keeper.put(1, b"last")
        keeper.checkpoint()
        sound(keeper)
        return keeper

    def lost(lists: list[Any]) -> None:
        lists[1][0].items.popitem()

    def older(lists: list[Any]) -> None:
        items = lists[0][0].items
        for offset, item in items.items():
            items[offset] = item._replace(birth=1 << 50)

    def newer(lists: list[Any]) -> None:
        lists[0][0].items.update(lists[2][0].items)
        lists[2].clear()

    for change in (lost, older, newer):
        assert "snapshot" in crooked(three(), change), change
    keeper = three()
    live = max(keeper.store.tree.reachable())
    assert "snapshot" in crooked(keeper, lambda lists: lists[0][0].items.update({live[0]: snapshots.Dead(*live, 1)}))


def test_a_frame_that_makes_no_sense_is_damage() -> None:
    keeper = make(RecordingLayer())
    keeper.put(1, b"one")
    keeper.snapshot("a")
    record = keeper.store.history.records[0]
    payload = encode_frame(record._replace(serial=2, name="b", lsn=7))
    for kind, data, lsn in ((DROP, b"", 9), (DROP, bytes(8), 9), (10, bytes(8), 9), (SNAPSHOT, payload, 7)):
        with pytest.raises((ValueError, KeyError)):
            keeper.store.replay_history(Frame(lsn, lsn, kind, memoryview(data), True))
    for wrong in (record._replace(serial=1, name="b"), record._replace(serial=2)):
        with pytest.raises(ValueError, match="taken"):
            keeper.store.replay_history(Frame(9, 9, SNAPSHOT, memoryview(encode_frame(wrong)), True))
    with pytest.raises(CorruptionError):
        keeper.store.replay_history(Frame(9, 9, SNAPSHOT, memoryview(b"x" * 20), True))


def test_a_frame_of_a_kind_to_come_is_refused_by_its_number() -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.store.log.append(77, b"?")
    keeper.store.flush()
    keeper.store.abandon()
    with pytest.raises(NotSupportedError, match="kind 77"):
        make(layer)


# -- pinned roots that only the log names ----------------------------------------
def without_flushes(layer: RecordingLayer) -> Keeper:
    """A store with two snapshots that nobody has flushed."""
    layer.threads = False
    keeper = make(layer, "normal")
    keeper.store.long = keeper.store.full = lambda: None  # type: ignore[method-assign]
    keeper.put(1, b"one")
    keeper.snapshot("zero")
    keeper.checkpoint()
    keeper.snapshot("a")
    keeper.snapshot("b")
    return keeper


def written(layer: RecordingLayer, place: tuple[int, int]) -> bool:
    """Whether something was written to a part of the data file."""
    begin, end = place[0], sum(place)
    return any(
        op.kind == "write" and op.path == PATH and op.offset < end and op.offset + op.size > begin for op in layer.log
    )


def test_recovery_writes_pinned_roots_anew() -> None:
    """Their flush may have failed: the system then shows what will never be on the disk."""
    layer = RecordingLayer()
    keeper = without_flushes(layer)
    expected = keeper.view()
    before = {record.name: record.root for record in keeper.store.history.records}
    again = RecordingLayer(layer.contents())
    keeper = make(again)
    found = {record.name: record.root for record in keeper.store.history.records}
    assert found["zero"] == before["zero"]
    for name in "ab":
        assert found[name] != before[name]
        assert not written(again, before[name][:2])
        assert written(again, found[name][:2])
    assert keeper.view() == expected
    sound(keeper)
    free_of_snapshots(keeper)


def test_nothing_gets_where_a_torn_frame_says_something_is() -> None:
    """With a second crash it could be what the frame names after all."""
    layer = RecordingLayer()
    keeper = without_flushes(layer)
    torn = keeper.store.history.records[2].root
    contents = flip(layer.contents(), PATH, torn.extent + torn.at + 8)
    again = RecordingLayer(contents)
    keeper = make(again)
    assert [record.name for record in keeper.store.history.records] == ["zero", "a"]
    assert not written(again, torn[:2])
    sound(keeper)
    for turn in range(3):  # then it is free
        keeper.put(turn, bytes(9000))
        keeper.checkpoint()
    assert written(again, torn[:2])
    sound(keeper)


# -- crashes -------------------------------------------------------------------
Mark = Callable[[Keeper, bool], None]


def workload(layer: RecordingLayer, durability: str, mark: Mark) -> None:
    keeper = make(layer, durability)
    mark(keeper, True)

    def did(*calls: Callable[[], None], durable: bool = durability == "full") -> None:
        for call in calls:
            call()
            mark(keeper, durable)

    def put(key: int, value: bytes) -> Callable[[], None]:
        return lambda: keeper.put(key, value)

    def snapshot(name: str) -> Callable[[], None]:
        return lambda: keeper.snapshot(name)

    def drop(name: str) -> Callable[[], None]:
        return lambda: keeper.drop(name)

    def restore(name: str) -> Callable[[], None]:
        return lambda: keeper.restore(name)

    did(*(put(key, b"a" * (key + 1) * 2000) for key in range(3)))
    did(snapshot("first"), put(0, b"zero"), snapshot("second"), snapshot("third"), drop("second"))
    did(lambda: keeper.bulk({5: b"bulk" * 1500, 6: b"more"}), snapshot("bulk"), put(5, b"over"))
    did(snapshot("first"), put(1, b"uno"), drop("bulk"))
    did(restore("third"), put(1, b"dos"), snapshot("branch"), restore("first"), put(2, b"tres"), restore("branch"))
    did(lambda: keeper.checkpoint(), durable=True)
    did(drop("third"), lambda: keeper.bulk({7: b"seven" * 900}), put(2, b"two"), snapshot("fourth"), drop("fourth"))
    did(lambda: keeper.checkpoint(), durable=True)
    keeper.close()
    keeper = make(layer, durability)
    did(snapshot("settled"), drop("first"), restore("branch"), drop("settled"))  # the first write is a snapshot
    keeper.store.abandon()
    keeper = make(layer, durability)
    did(snapshot("last"), put(9, b"third life"), restore("branch"))
    did(lambda: keeper.store.flush(), durable=True)
    keeper.close()


def recorded(durability: str) -> tuple[RecordingLayer, list[Optional[View]]]:
    layer = RecordingLayer()
    seen: list[Optional[View]] = [None]
    layer.threads = False

    def mark(keeper: Keeper, durable: bool) -> None:
        seen.append(keeper.view())
        layer.mark((len(seen) - 1, durable))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workload(layer, durability, mark)
    return layer, seen


def crash_everywhere(durability: str, states_each: int) -> int:
    layer, views = recorded(durability)
    disk, draw = Disk(), random.Random(5)
    kept = acknowledged = states = 0
    done: set[tuple[int, int]] = set()
    for op in layer.log:
        if op.kind == "mark":
            kept, durable = op.data
            acknowledged = kept if durable else acknowledged
            continue
        disk.step(op)
        for state in disk.states(states_each, draw):
            key = hash(tuple(sorted(state.contents.items())))
            least = acknowledged if durability == "none" or not state.killed else kept
            if (key, least) in done:
                continue
            done.add((key, least))
            states += 1
            contents = {name: data for name, data in state.contents.items() if ".tmp-" not in name}
            view = reopened(contents) if PATH in contents else None
            assert view in views[least : kept + 2], f"{state.variant} after {op.kind} {op.path}: {view}"
    return states


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_every_crash_leaves_snapshots_as_they_were(durability: str) -> None:
    assert crash_everywhere(durability, 3) > 300


@pytest.mark.parametrize("where", ["slot", "root"])
def test_a_damaged_newest_root_never_shows_older_snapshots(where: str) -> None:
    layer, views = recorded("full")
    disk, kept, answers = Disk(), 0, 0
    for op in layer.log:
        if op.kind == "mark":
            kept = op.data[0]
            continue
        disk.step(op)
        for state in disk.states(0, random.Random(1)):
            if PATH not in state.contents:
                continue
            slots = read_slots(RecordingLayer(state.contents).open(PATH, "r"))
            if len(slots) == 1 or (where == "root" and slots[0].root_at == slots[1].root_at):
                continue  # none is left
            at = SLOTS[slots[0].slot] + 30 if where == "slot" else slots[0].root_at + HEADER + 50
            view = reopened(flip(state.contents, PATH, at))
            assert view in views[kept : kept + 2], f"{state.variant} after {op.kind} {op.path}: {view}"
            answers += 1
    assert answers > 100


@pytest.mark.parametrize("restored", [False, True])
def test_a_crash_in_the_recovery_of_a_bridge(restored: bool) -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one" * 2000)
    keeper.checkpoint()
    keeper.bulk({5: b"bulk" * 1500, 6: b"more" * 1500})
    keeper.put(6, b"over")
    keeper.checkpoint()
    keeper.snapshot("both")  # of what only the newest root reaches
    if restored:
        keeper.put(5, b"five")
        keeper.restore("both")
    keeper.put(1, b"uno")
    view = keeper.view()
    (newest, _) = read_slots(layer.open(PATH, "r"))
    base = flip(layer.contents(), PATH, newest.root_at + HEADER + 50)
    layer = RecordingLayer(base)
    keeper = make(layer)
    assert keeper.view() == view
    sound(keeper)
    keeper.drop("both")
    disk, draw = Disk(base), random.Random(3)
    for op in layer.log:
        disk.step(op)
        for state in disk.states(2, draw):
            assert reopened(state.contents) in (view, (view[0], {})), state.variant
    keeper.checkpoint()
    keeper.checkpoint()
    assert keeper.view() == (view[0], {})
    free_of_snapshots(keeper)


def test_recovery_uses_nothing_that_the_older_root_needs() -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    for turn in range(4):
        for key in range(4):
            keeper.put(key, bytes([turn]) * 5000)
        keeper.snapshot(f"s{turn}")
    keeper.checkpoint()
    keeper.drop("s1")
    keeper.drop("s2")
    keeper.put(1, b"one")
    keeper.checkpoint()  # the root before this one has snapshots that this one has not
    for key in range(50):  # enough to fill what is free
        keeper.put(key, b"more")
    view, base = keeper.view(), layer.contents()
    layer = RecordingLayer(base)
    make(layer).store.abandon()
    disk, states = Disk(base), 0
    for at, op in enumerate(layer.log):
        disk.step(op)
        for state in disk.states(0, random.Random(1)) if at % 15 == 0 or op.kind == "sync" else ():
            slots = read_slots(RecordingLayer(state.contents).open(PATH, "r"))
            if len(slots) == 2:
                states += 1
                damaged = flip(state.contents, PATH, SLOTS[slots[0].slot] + 30)
                assert reopened(damaged, False)[1] == view[1], state.variant
    assert states > 10


# -- what was forgotten --------------------------------------------------------
Break = Callable[[pytest.MonkeyPatch], None]
VARIANTS: dict[str, Break] = {}


def variant(function: Break) -> Break:
    VARIANTS[function.__name__] = function
    return function


@variant
def pinned_roots_are_not_flushed_before_their_frames(patch: pytest.MonkeyPatch) -> None:
    pin = Store.pin

    def broken(self: Any, name: str, meta: bytes) -> Any:
        found = pin(self, name, meta)
        self._wal().data_waits = False
        return found

    patch.setattr(Store, "pin", broken)


@variant
def a_pinned_root_that_does_not_verify_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "read_pinned", lambda extents, record: None)


@variant
def frames_do_not_keep_pinned_roots(patch: pytest.MonkeyPatch) -> None:
    before = recovery.frame_extents
    patch.setattr(recovery, "frame_extents", lambda kind, data: [] if kind == SNAPSHOT else before(kind, data))
    pinned = Store.pinned

    def broken(self: Any, record: Any, replaced: Any = None) -> None:
        pinned(self, record, replaced)
        self.bulk.discard(record.root[:2])

    patch.setattr(Store, "pinned", broken)
    drop = History.drop

    def free(self: Any, serial: int) -> None:
        root = self.by_serial(serial).root[:2]
        drop(self, serial)
        self.pending.discard(root)
        self._extents.release([root])

    patch.setattr(History, "drop", free)


@variant
def the_older_root_has_no_snapshots(patch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_root
    patch.setattr(checkpoint, "read_root", lambda extents, block: before(extents, block)._replace(snapshots=()))


@variant
def what_was_given_up_is_free_at_once(patch: pytest.MonkeyPatch) -> None:
    drop = History.drop

    def broken(self: Any, serial: int) -> None:
        drop(self, serial)
        gone = {place for place in self.pending if place[0] in self._extents._births}
        self.pending -= gone
        if self._extents.space.high_water != self._extents.length:
            self._extents.release(sorted(gone))

    patch.setattr(History, "drop", broken)


@variant
def snapshots_are_made_of_what_is_not_folded_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "folded", True)


@variant
def a_drop_is_not_replayed(patch: pytest.MonkeyPatch) -> None:
    before = Store.replay_history
    patch.setattr(Store, "replay_history", lambda self, frame: frame.kind == DROP or before(self, frame))


@variant
def a_restore_is_not_replayed(patch: pytest.MonkeyPatch) -> None:
    before = Store.replay_history
    patch.setattr(Store, "replay_history", lambda self, frame: frame.kind == RESTORE or before(self, frame))


@variant
def a_restore_buries_nothing(patch: pytest.MonkeyPatch) -> None:
    before = Store.restored
    patch.setattr(Store, "restored", lambda self, found: before(self, found._replace(gone=set())))


@variant
def a_restore_resurrects_nothing(patch: pytest.MonkeyPatch) -> None:
    before = Store.restored
    patch.setattr(Store, "restored", lambda self, found: before(self, found._replace(back=set())))


@variant
def what_a_restore_brings_back_is_the_logs_still(patch: pytest.MonkeyPatch) -> None:
    before = Store.restored

    def broken(self: Any, found: Any) -> None:
        bulk = set(self.bulk)
        before(self, found)
        self.bulk |= bulk

    patch.setattr(Store, "restored", broken)


@variant
def a_checkpoint_does_not_write_the_history(patch: pytest.MonkeyPatch) -> None:
    before = Store.write_root

    def broken(self: Any, draft: Any, header: Any, applied: Any, reached: Any) -> Any:
        written = before(self, draft, header, applied, reached)
        root = written.root._replace(snapshots=self.root.snapshots, serial=self.root.serial)
        return draft.root(root, written.filed)

    patch.setattr(Store, "write_root", broken)


@variant
def strangers_are_left_out_of_a_bridge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "_strangers", lambda self, record: set())


@variant
def what_a_bridge_brings_back_is_listed_and_live(patch: pytest.MonkeyPatch) -> None:
    before = History.write
    patch.setattr(History, "write", lambda self, draft, released, reached: before(self, draft, released, set()))


@variant
def what_a_snapshot_shares_is_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "_sorted", lambda self, places: ({}, set(places)))


@variant
def the_space_knows_nothing_of_lists(patch: pytest.MonkeyPatch) -> None:
    before = checkpoint.build_space
    patch.setattr(store, "build_space", lambda *given: before(*given[:-1], History(given[0])))


@variant
def the_root_says_another_next_serial(patch: pytest.MonkeyPatch) -> None:
    before = Root.encode
    patch.setattr(Root, "encode", lambda self: before(self._replace(serial=len(self.snapshots) + 1)))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_broken_variant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    VARIANTS[name](monkeypatch)
    with pytest.raises(Exception):  # noqa: B017 - whatever comes first
        test_snapshots_show_what_was("full", False)
        for restored in (False, True):
            test_a_crash_in_the_recovery_of_a_bridge(restored)
        crash_everywhere("full", 2)
        test_recovery_uses_nothing_that_the_older_root_needs()
        test_a_damaged_newest_root_never_shows_older_snapshots("slot")


# -- the journal of a table --------------------------------------------------
@pytest.mark.parametrize("engine", ["row", "columnar"])
def test_the_journal_of_a_table_makes_and_drops_snapshots(engine: str) -> None:
    layer = RecordingLayer()

    def snapshot(db: SnapDB, name: str, replaced: Optional[int] = None) -> None:
        assert db._file is not None
        if not db._file.store.folded:
            db.checkpoint()
        record = db._file.store.pin(name, b'{"rows": 100, "storage_type": "any"}')
        with db._journal.snapshot(record, replaced) as step:
            carry_out(step.first, step.then)

    with using(layer):
        db = SnapDB(PATH, Schema([ColumnDef("k", "i64"), ColumnDef("s", "str")]), storage_type=engine)
        assert db._file is not None
        db.batch_insert([{"k": k, "s": str(k)} for k in range(100)])
        snapshot(db, "one")
        db.delete(5)
        snapshot(db, "two")
        with db.transaction():
            db.insert({"k": 7, "s": "x"})
            with pytest.raises(RuntimeError, match="transaction"):
                db._journal.dropped(1)
        snapshot(db, "one", 1)
        mark, records = db._file.store.log.mark(), list(db._file.store.history.records)
        record = db._file.store.pin("three", b"")
        with pytest.raises(ZeroDivisionError), db._journal.snapshot(record, 2) as step:
            carry_out([*step.first, partial(divmod, 1, 0)], step.then)  # the frames are taken back
        db._file.store.unpin(record)
        assert db._file.store.log.mark() == mark and db._file.store.history.records == records
        with db._journal.dropped(2) as step:
            carry_out(step.first, step.then)
        assert db.fsck()["ok"]
        files = layer.contents()
        db.close()
    for read_only in (True, False):
        with using(RecordingLayer(files)), SnapDB(PATH, read_only=read_only) as db:
            assert db._file is not None
            assert [(one.serial, one.name) for one in db._file.store.history.records] == [(3, "one")]
            assert len(db) == 100 and db.fsck()["ok"]
            if read_only:
                with pytest.raises(ReadOnlyError):
                    db._journal.dropped(3)
