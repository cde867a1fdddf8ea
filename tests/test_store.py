"""The store: superblocks, log files, checkpoints, recovery and locks, with entries and frames that mean nothing."""

from __future__ import annotations

import errno
import gc
import os
import random
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from snapdb import _ext
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    DatabaseError,
    DurabilityError,
    LockedError,
    ReadOnlyError,
    StorageError,
)
from snapdb.pieces import Entry, Piece
from snapdb.storage import fsck
from snapdb.storage.catalog import encode_items
from snapdb.storage.files import local_layer
from snapdb.storage.layer import FileLayer
from snapdb.storage.store import Options, Store
from snapdb.storage.superblock import SLOTS, read_slots
from snapdb.storage.wal import WalHeader, wal_path
from snapdb.testing.disk import Disk
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

KERNEL = _ext.backend(_ext.BACKEND).wal
PATH = "x.snapdb"
Rows = dict[int, bytes]


def options(layer: FileLayer, durability: str = "full", **more: Any) -> Options:
    return Options(layer, KERNEL, durability, **more)


class Toy:
    """A table of bytes under integer keys on a store; a frame of kind 1 sets a key, kind 4 removes one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows: Rows = {}
        self.stored: dict[int, Entry] = {}
        self.changed: set[int] = set()
        for key, entry in store.items():
            self._take(key, entry)
        for frame in store.replay:
            self._replay(frame.kind, frame.payload)
        if store.unclean and not store.read_only:
            self.checkpoint()

    def _take(self, key: int, entry: Entry) -> None:
        self.stored[key] = entry
        ref = entry.pieces[0].ref
        assert ref is not None
        self.rows[key] = bytes(self.store.read(ref))

    def _replay(self, kind: int, payload: memoryview) -> None:
        if kind == 1:
            self._set(struct.unpack_from("<Q", payload)[0], bytes(payload[8:]))
        elif kind == 4:
            key = struct.unpack("<Q", payload)[0]
            del self.rows[key]
            self.changed.add(key)
        elif kind == 6:
            from snapdb.storage.recovery import bulk_entries

            for key, entry in bulk_entries(payload, PATH):
                self._take(key, entry)
                self.changed.add(key)

    def _set(self, key: int, value: bytes) -> None:
        self.rows[key] = value
        self.stored.pop(key, None)
        self.changed.add(key)

    def put(self, key: int, value: bytes) -> None:
        mark = self.store.log.mark()
        self.store.log.append(1, struct.pack("<Q", key) + value)
        assert self.store.log.mark() != mark
        self._set(key, value)
        self.store.log.after()

    def delete(self, key: int) -> None:
        self.store.log.append(4, struct.pack("<Q", key))
        del self.rows[key]
        self.stored.pop(key, None)
        self.changed.add(key)
        self.store.log.after()

    def bulk(self, rows: Rows) -> None:
        written = [(key, self.store.write(key, entry(value))) for key, value in sorted(rows.items())]
        extents = sorted({piece.ref[:2] for _, one in written for piece in one.pieces if piece.ref is not None})
        payload = struct.pack("<II", len(extents), 0) + b"".join(struct.pack("<QQ", *each) for each in extents)
        payload += struct.pack("<QQII", 0, len(rows), len(written), 0) + encode_items(written)
        self.store.log.append(6, payload)
        for key, one in written:
            self._set(key, rows[key])
            self.stored[key] = one
        self.store.log.after()

    def changes(self) -> Iterator[tuple[int, Optional[Entry]]]:
        for key in sorted(self.changed):
            if key not in self.rows:
                yield key, None
            else:
                yield key, self.stored.get(key) or entry(self.rows[key])

    def checkpoint(self) -> None:
        for key, one in self.store.checkpoint({"rows": len(self.rows)}, self.changes()):
            if one is not None:
                self.stored[key] = one
        self.changed = set()

    def close(self) -> None:
        self.checkpoint()
        self.store.close()


def entry(value: bytes) -> Entry:
    return Entry(b"m", [Piece(7, b"", value)])


OPEN: list[Toy] = []  # what the running test has opened


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    for toy in OPEN:
        toy.store.abandon()
    OPEN.clear()


def start(layer: FileLayer, durability: str = "full", path: str = PATH, **more: Any) -> Toy:
    if not layer.exists(path):
        Store.create(path, {"rows": 0}, options(layer))
    store = Store.open(path, options(layer, durability, **more))
    try:
        return Toy(store)
    except BaseException:
        store.abandon()
        raise


def make(layer: FileLayer, durability: str = "full", path: str = PATH, **more: Any) -> Toy:
    toy = start(layer, durability, path, **more)
    OPEN.append(toy)
    return toy


def reopened(contents: dict[str, bytes]) -> Rows:
    """The rows of an image; it is opened, checked, written to, closed and opened again."""
    layer = RecordingLayer.from_contents(contents, record=False)
    toy = start(layer)
    try:
        rows = dict(toy.rows)
        assert fsck.check(toy.store, True) == []
        toy.put(1000, b"after")
        toy.close()
        assert not layer.exists(wal_path(PATH, 0)) and not layer.exists(wal_path(PATH, 1))
        toy = start(layer)
        assert toy.rows == {**rows, 1000: b"after"}
    finally:
        toy.store.abandon()
    return rows


@pytest.fixture(params=["recording", "mapped", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FileLayer, str]:
    if request.param == "disk":
        return local_layer(), str(tmp_path / PATH)
    return RecordingLayer(maps=request.param == "mapped"), PATH


# -- living and dying -----------------------------------------------------------
@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_a_clean_close_leaves_one_file_with_everything(place: tuple[FileLayer, str], durability: str) -> None:
    layer, path = place
    toy = make(layer, durability, path)
    for key in range(50):
        toy.put(key, b"v%d" % key * key)
    toy.delete(7)
    expected = dict(toy.rows)
    toy.close()
    assert not layer.exists(path + "-wal0") and not layer.exists(path + "-wal1")
    again = make(layer, durability, path)
    assert again.rows == expected and again.store.header == {"rows": 49}
    assert not again.store.unclean and again.store.log.lsn == 51
    assert fsck.check(again.store, True) == []
    again.store.close()


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_frames_are_replayed_after_an_abandon(place: tuple[FileLayer, str], durability: str) -> None:
    layer, path = place
    toy = make(layer, durability, path)
    expected: list[Rows] = []
    for epoch in range(5):  # both parities, several times
        for key in range(10):
            toy.put(100 * epoch + key, os.urandom(key))
        if epoch % 2:
            toy.checkpoint()
        expected.append(dict(toy.rows))
        toy.store.abandon()
        toy = make(layer, durability, path)
        assert toy.rows == expected[-1]
        assert fsck.check(toy.store, True) == []
    toy.close()
    assert make(layer, durability, path).rows == expected[-1]


def test_held_frames_are_lost_and_flushed_ones_are_not(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    toy = make(layer, "none", path)
    toy.put(1, b"one")
    toy.store.flush()
    toy.put(2, b"two")
    toy.store.abandon()
    assert make(layer, "none", path).rows == {1: b"one"}


def test_a_read_only_store_writes_nothing_and_excludes_writers(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    toy = make(layer, "full", path)
    toy.put(1, b"one")
    toy.checkpoint()
    toy.put(2, b"two")
    toy.store.abandon()
    before = {name: layer.size(name) for name in (path, path + "-wal0", path + "-wal1")}
    one = make(layer, path=path, read_only=True)
    two = make(layer, path=path, read_only=True)
    assert one.rows == two.rows == {1: b"one", 2: b"two"}
    assert one.store.log is None and one.store.unclean
    for call in (one.store.usable, one.store.flush, one.checkpoint, lambda: one.store.write(1, entry(b"x"))):
        with pytest.raises(ReadOnlyError):
            call()
    with pytest.raises(LockedError, match="already open"):
        make(layer, path=path)
    one.store.close()
    two.store.close()
    assert {name: layer.size(name) for name in before} == before
    toy = make(layer, path=path)
    with pytest.raises(LockedError, match="already open"):
        make(layer, path=path, read_only=True)
    toy.close()


def test_a_store_that_nothing_was_written_to_leaves_no_trace() -> None:
    layer = RecordingLayer()
    make(layer).store.close()
    before = layer.contents()
    toy = make(layer)
    assert toy.store.checkpoint({"rows": 0}, []) == []
    toy.store.close()
    assert layer.contents() == before


def test_a_header_can_change_without_a_log() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    toy.store.checkpoint({"rows": 0, "more": "ü"}, [(3, entry(b"three"))])
    assert not toy.store.started
    toy.store.close()
    again = make(layer)
    assert again.store.header == {"rows": 0, "more": "ü"} and again.rows == {3: b"three"}
    blocks = read_slots(again.store.file)
    assert [block.clean for block in blocks] == [True, True] and blocks[0].root_at == blocks[1].root_at


def test_close_without_a_checkpoint_keeps_the_log() -> None:
    layer = RecordingLayer()
    toy = make(layer, "normal")
    toy.put(1, b"one")
    toy.store.close(clean=False)
    assert layer.exists(wal_path(PATH, 0))
    toy = make(layer)
    assert toy.rows == {1: b"one"}
    toy.put(2, b"two")
    toy.store.close()  # not checkpointed: clean or not, the log must stay
    assert make(layer).rows == {1: b"one", 2: b"two"}


def test_a_dropped_store_lets_go_with_a_warning(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    toy: Optional[Toy] = make(layer, "normal", path)
    assert toy is not None
    toy.put(1, b"one")
    OPEN.clear()
    with pytest.warns(ResourceWarning, match="was not closed"):
        toy = None
        gc.collect()
    assert make(layer, "normal", path).rows == {1: b"one"}


def test_a_closed_store_says_so() -> None:
    toy = make(RecordingLayer())
    toy.put(1, b"one")
    toy.close()
    for call in (toy.store.usable, lambda: toy.put(2, b""), toy.checkpoint, toy.store.statistics):
        with pytest.raises(ClosedError):
            call()
    toy.store.close()
    toy.store.abandon()


# -- transactions ----------------------------------------------------------------
@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_a_transaction_is_whole_or_not_there(durability: str) -> None:
    layer = RecordingLayer()
    toy = make(layer, durability)
    toy.put(0, b"before")
    toy.store.begin()
    toy.put(1, b"one")
    toy.put(2, b"two")
    inside = layer.contents()
    toy.store.commit()
    toy.store.flush()
    assert reopened(layer.contents()) == {0: b"before", 1: b"one", 2: b"two"}
    if durability != "none":
        assert reopened(inside) == {0: b"before"}
    toy.store.begin()
    toy.put(3, b"three")
    toy.store.rollback()
    toy.store.rollback()
    toy.store.begin()
    toy.store.commit()
    lsn = toy.store.log.lsn
    assert lsn == 4
    del toy.rows[3]
    toy.changed.discard(3)
    toy.put(4, b"four")
    toy.store.flush()
    assert reopened(layer.contents()) == toy.rows
    toy.close()


def test_rollback_to_erases_what_is_in_the_file() -> None:
    layer = RecordingLayer()
    toy = make(layer, "normal")
    toy.put(0, b"zero")
    mark = toy.store.log.mark()
    toy.store.log.append(1, struct.pack("<Q", 9) + b"gone" * 100)
    toy.store.flush()
    assert toy.store.log.durable_lsn == 2
    toy.store.rollback_to(mark)
    assert toy.store.log.lsn == toy.store.log.durable_lsn == 1
    assert b"gone" not in layer.contents()[wal_path(PATH, 1)]
    assert reopened(layer.contents()) == {0: b"zero"}
    toy.put(1, b"one")
    toy.close()
    assert make(layer).rows == {0: b"zero", 1: b"one"}


def test_a_checkpoint_is_asked_for_where_the_log_is_long() -> None:
    layer = RecordingLayer()
    for durability in ("full", "normal", "none"):
        toy = make(layer, durability, wal_limit=100_000)
        calls: list[int] = []

        def full(toy: Toy = toy, calls: list[int] = calls) -> None:
            calls.append(toy.store.log.position)
            toy.checkpoint()

        toy.store.full = full
        toy.store.begin()
        for key in range(60):
            toy.put(key, bytes(5000))
        assert not calls
        toy.store.commit()
        toy.store.settle()
        assert len(calls) == 1
        for key in range(60):
            toy.put(key, bytes(5000))
        assert len(calls) >= (1 if durability == "none" else 3)
        toy.close()


def test_a_checkpoint_that_fails_for_space_is_put_off() -> None:
    toy = make(RecordingLayer(), wal_limit=1 << 20)
    calls = []

    def full() -> None:
        calls.append(toy.store.log.position)
        raise StorageError("full")

    toy.store.full = full
    for key in range(300):
        toy.put(key, bytes(10_000))
    assert 1 <= len(calls) <= 3
    toy.close()


# -- bulk -------------------------------------------------------------------------
def test_extents_of_a_bulk_frame_are_synced_before_it_and_kept_until_no_log_needs_them() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    toy.bulk({1: b"1" * 5000, 2: b"2" * 9000})
    assert toy.store.bulk_bytes == 8192 + 12288
    kinds = [(op.kind, op.path) for op in layer.log]
    assert kinds[-2:] == [("sync", PATH), ("sync", wal_path(PATH, 1))]
    for key in (1, 2):
        toy.put(key, b"new")
    assert reopened(layer.contents()) == toy.rows
    bulk = set(toy.store.bulk)
    toy.checkpoint()
    space = toy.store.space
    assert space is not None and bulk <= set(space.waiting)  # the older slot's log names them
    toy.put(3, b"three")
    toy.checkpoint()
    assert not bulk & set(space.waiting)
    assert fsck.check(toy.store, True) == []
    toy.close()


def test_forgotten_extents_are_free_again() -> None:
    toy = make(RecordingLayer())
    written = toy.store.write(5, entry(b"x" * 50_000))
    space = toy.store.space
    assert space is not None
    high = space.high_water
    toy.store.forget(written)
    toy.store.forget(written)
    assert space.high_water == high - 53_248 and toy.store.bulk_bytes == 0
    assert fsck.check(toy.store, True) == []


def test_a_bulk_frame_whose_extents_were_not_synced_ends_the_log() -> None:
    layer = RecordingLayer()
    toy = make(layer, "none")
    toy.put(0, b"zero")
    toy.store.flush()
    toy.bulk({1: b"1" * 5000})
    ref = toy.stored[1].pieces[0].ref
    assert ref is not None
    toy.put(2, b"two")
    toy.store.log.flush()  # to the system, not to stable storage
    contents = layer.contents()
    assert reopened(contents) == {0: b"zero", 1: b"1" * 5000, 2: b"two"}
    data = bytearray(contents[PATH])
    data[ref.extent + ref.at + 100] ^= 1
    assert reopened({**contents, PATH: bytes(data)}) == {0: b"zero"}
    toy.store.flush()
    toy.put(3, b"three")  # says that the frames before are on stable storage
    toy.store.log.flush()
    data = bytearray(layer.contents()[PATH])
    data[ref.extent + ref.at + 100] ^= 1
    with pytest.raises(CorruptionError):
        reopened({**layer.contents(), PATH: bytes(data)})


# -- damage ------------------------------------------------------------------------
def running(checkpoints: int, tail: bool = True) -> tuple[RecordingLayer, Rows]:
    """A store in the middle of its life after so many checkpoints."""
    layer = RecordingLayer()
    toy = make(layer)
    for epoch in range(checkpoints + 1):
        for key in range(4):
            toy.put(10 * epoch + key, b"value %d %d" % (epoch, key))
        if epoch < checkpoints:
            toy.checkpoint()
    if not tail:
        toy.checkpoint()
    return layer, dict(toy.rows)


def flip(contents: dict[str, bytes], name: str, at: int) -> dict[str, bytes]:
    data = bytearray(contents[name])
    data[at] ^= 0x10
    return {**contents, name: bytes(data)}


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3])
def test_either_slot_may_be_damaged(checkpoints: int, tail: bool) -> None:
    layer, rows = running(checkpoints, tail)
    for at in SLOTS:
        assert reopened(flip(layer.contents(), PATH, at + 40)) == rows
    both = flip(flip(layer.contents(), PATH, SLOTS[0] + 40), PATH, SLOTS[1] + 40)
    with pytest.raises(CorruptionError, match="both superblocks"):
        reopened(both)


@pytest.mark.parametrize("checkpoints", [1, 2, 3])
def test_the_older_root_answers_where_the_log_leads_on(checkpoints: int) -> None:
    layer, rows = running(checkpoints)
    contents = layer.contents()
    newest, older = read_slots(layer.open(PATH, "r"))
    damaged = flip(contents, PATH, newest.root_at + 140)
    assert reopened(damaged) == rows
    # without the log of the older epoch there is no way
    gone = dict(damaged)
    name = wal_path(PATH, older.epoch)
    if older.clean:
        return
    del gone[name]
    with pytest.raises(CorruptionError):
        reopened(gone)
    with pytest.raises(CorruptionError):
        reopened(flip(damaged, name, 200))


def test_a_missing_empty_or_foreign_log_is_an_error() -> None:
    layer, rows = running(1)
    contents = layer.contents()
    newest = read_slots(layer.open(PATH, "r"))[0]
    name = wal_path(PATH, newest.epoch)
    for data in (None, b"", contents[name][:63]):
        changed = {key: value for key, value in contents.items() if key != name}
        if data is not None:
            changed[name] = data
        with pytest.raises(CorruptionError, match="missing or empty"):
            reopened(changed)
    other, _ = running(1)
    with pytest.raises(CorruptionError, match="another database"):
        reopened({**contents, name: other.contents()[name]})
    later, _ = running(1)
    with pytest.raises(CorruptionError):
        reopened({**contents, name: contents[wal_path(PATH, newest.epoch + 1)]})
    assert reopened(contents) == rows


def test_the_header_of_a_log_may_be_damaged() -> None:
    layer, rows = running(2)
    for parity in (0, 1):
        for at in (0, 9, 30, 50, 61):
            assert reopened(flip(layer.contents(), wal_path(PATH, parity), at)) == rows


def test_a_log_of_another_database_is_not_overwritten() -> None:
    layer, _ = running(0)
    contents = layer.contents()
    fresh = RecordingLayer()
    make(fresh).close()
    mixed = RecordingLayer({**contents, PATH: fresh.contents()[PATH]})
    toy = make(mixed)
    with pytest.raises(StorageError, match="another database"):
        toy.put(1, b"one")
    toy.store.close()
    assert mixed.contents()[wal_path(PATH, 1)] == contents[wal_path(PATH, 1)]


@pytest.mark.parametrize("state", ["running", "checkpointed", "closed", "bulk"])
def test_every_flipped_byte_is_harmless_or_named(state: str) -> None:
    layer = RecordingLayer()
    toy = make(layer)
    for key in range(6):
        toy.put(key, os.urandom(30))
    toy.checkpoint()
    for key in range(3, 9):
        toy.put(key, os.urandom(30))
    if state == "bulk":
        toy.bulk({20: os.urandom(300), 21: os.urandom(200)})
        toy.put(22, b"x")
    elif state != "running":
        toy.checkpoint()
    before_last = dict(toy.rows)
    last: Optional[int] = None
    if state == "closed":
        toy.store.close()
    elif state != "checkpointed":
        last = 30
        toy.put(last, b"last")
    rows = dict(toy.rows)
    contents = layer.contents()
    answers = errors = lost = 0
    for name, data in contents.items():
        end = len(data) if name == PATH else toy.store.wal.log.written if toy.store.wal else 0
        for at in range(min(len(data), max(end, 1200) if name != PATH else end)):
            if data[at : at + 1] == b"\0" and at % 7 and not name.endswith(("wal0", "wal1")):
                continue  # padding, mostly
            damaged = RecordingLayer(flip(contents, name, at), record=False)
            try:
                found = start(damaged)
                answer = found.rows
                found.store.abandon()
            except DatabaseError:
                errors += 1
                continue
            if last is not None and answer == before_last:
                lost += 1  # inside the last synced group
                continue
            assert answer == rows, f"byte {at} of {name}"
            answers += 1
    assert answers > 1000 and errors > 50
    assert lost <= (60 if last is not None else 0)


# -- crashes -------------------------------------------------------------------------
def workload(layer: RecordingLayer, durability: str, mark: Callable[[Toy, bool], None]) -> None:
    toy = make(layer, durability)
    mark(toy, True)
    full = durability == "full"

    def did(durable: bool = full) -> None:
        mark(toy, durable)

    for key in range(3):
        toy.put(key, b"a" * (key + 1) * 100)
        did()
    toy.checkpoint()
    did(True)
    toy.put(3, b"three")
    did()
    toy.store.begin()
    toy.put(0, b"in")
    toy.put(4, b"side" * 300)
    toy.delete(2)
    toy.store.commit()
    did(durability != "none")
    toy.bulk({5: b"bulk" * 1500, 6: b"more"})
    did()
    toy.put(5, b"over")
    did()
    toy.checkpoint()
    toy.put(1, b"again")
    did()
    toy.checkpoint()
    did(True)
    toy.bulk({7: b"seven" * 900})
    did()
    toy.store.flush()
    did(True)
    toy.delete(7)
    did()
    toy.checkpoint()
    toy.close()
    did(True)
    toy = make(layer, durability)
    toy.put(8, b"second life")
    did()
    toy.store.abandon()
    toy = make(layer, durability)
    toy.put(9, b"third life")
    did()
    toy.close()
    did(True)


@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_every_crash_leaves_a_prefix_with_all_that_was_acknowledged(durability: str) -> None:
    layer = RecordingLayer()
    history: list[Optional[Rows]] = [None]
    layer.threads = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        def mark(toy: Toy, durable: bool) -> None:
            history.append(dict(toy.rows))
            layer.mark((len(history) - 1, durable))

        workload(layer, durability, mark)
    disk, draw = Disk(), random.Random(5)
    kept = acknowledged = states = 0
    seen: set[int] = set()
    for op in layer.log:
        if op.kind == "mark":
            kept, durable = op.data
            acknowledged = kept if durable else acknowledged
            continue
        disk.step(op)
        for state in disk.states(6, draw):
            key = hash(tuple(sorted(state.contents.items())))
            least = acknowledged if durability == "none" or not state.killed else kept
            if (key, least) in seen:
                continue
            seen.add((key, least))
            states += 1
            contents = {name: data for name, data in state.contents.items() if ".tmp-" not in name}
            rows = reopened(contents) if PATH in contents else None
            found = [at for at, each in enumerate(history) if each == rows]
            assert found, f"{state.variant} after {op.kind} {op.path}: {rows}"
            assert max(found) >= least, f"{state.variant} after {op.kind} {op.path}: {found} of {least}"
            assert min(found) <= kept + 1
    assert states > 400


def test_a_crash_and_a_damaged_newest_slot_never_show_an_older_state() -> None:
    layer, history = RecordingLayer(), [{}]  # type: ignore[var-annotated]
    layer.threads = False

    def mark(toy: Toy, durable: bool) -> None:
        history.append(dict(toy.rows))
        layer.mark(len(history) - 1)

    workload(layer, "full", mark)
    disk, kept, answers = Disk(), 0, 0
    for op in layer.log:
        if op.kind == "mark":
            kept = op.data
            continue
        disk.step(op)
        for state in disk.states(0, random.Random(1)):
            if PATH not in state.contents:
                continue
            slots = read_slots(RecordingLayer(state.contents).open(PATH, "r"))
            damaged = flip(state.contents, PATH, SLOTS[slots[0].slot] + 30)
            if len(slots) == 1:  # killed within the write of the other slot: damage to this one leaves none
                with pytest.raises(CorruptionError, match="both superblocks"):
                    reopened(damaged)
                continue
            rows = reopened(damaged)
            assert max(at for at, each in enumerate(history) if each == rows) >= kept
            answers += 1
    assert answers > 200


def test_a_page_that_a_crash_cut_goes_before_the_file_grows() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    toy.put(1, b"one")
    toy.store.close(clean=False)
    contents = layer.contents()
    contents[PATH] += bytes(1536)
    for read_only in (True, False):
        torn = RecordingLayer(contents)
        toy = make(torn, read_only=True) if read_only else make(torn)
        assert toy.rows == {1: b"one"}
        kinds = ("truncate", "sync", "write", "allocate")
        changes = [op.kind for op in torn.log if op.path == PATH and op.kind in kinds]
        # before these comes the writer's process id
        assert changes[1:3] == ["truncate", "sync"] if not read_only else changes == []
        assert len(torn.contents()[PATH]) % 4096 == (1536 if read_only else 0)
        toy.store.close(clean=False)


def test_a_crash_during_recovery_is_harmless() -> None:
    base, rows = running(2)
    draw = random.Random(3)
    newest, older = read_slots(base.open(PATH, "r"))
    images = [base.contents(), flip(base.contents(), PATH, SLOTS[newest.slot] + 9)]
    images.append(flip(base.contents(), PATH, newest.root_at + 140))
    for image in images:
        layer = RecordingLayer(image)
        toy = make(layer)
        toy.put(500, b"next")
        disk = Disk(image)
        for op in layer.log:
            disk.step(op)
            for state in disk.states(2, draw):
                found = reopened(state.contents)
                assert found == rows or found == {**rows, 500: b"next"}, state.variant


# -- refusals of the system -----------------------------------------------------------
def faults(layer: FaultyLayer) -> Rows:
    """A workload that goes on after StorageError; the rows that were acknowledged."""
    toy = make(layer)
    kept: Rows = {}

    def attempt(call: Callable[[], None]) -> None:
        nonlocal kept
        mark, before = toy.store.log.mark(), dict(toy.rows)
        try:
            call()
            kept = dict(toy.rows)
        except StorageError:
            if toy.store.log.mark() == mark:
                toy.rows = before

    attempt(lambda: toy.put(1, b"one"))
    attempt(lambda: toy.put(2, b"two" * 2000))
    attempt(toy.checkpoint)
    attempt(lambda: toy.bulk({3: b"three" * 2000}))
    attempt(toy.checkpoint)
    attempt(lambda: toy.put(1, b"uno"))
    attempt(toy.checkpoint)
    toy.close()
    return kept


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_every_refused_operation_loses_nothing_acknowledged(code: int, forever: bool, short: bool) -> None:
    whole = FaultyLayer(RecordingLayer())
    expected = faults(whole)
    for at in range(1, whole.operations + 1):
        inner = RecordingLayer()
        layer = FaultyLayer(inner, Plan(at, code, short, lost=at % 2 == 0, forever=forever))
        kept: Rows = {}
        acknowledged: list[Rows] = []
        try:
            kept = one_by_one(layer, acknowledged)
        except (DatabaseError, OSError):
            kept = acknowledged[-1] if acknowledged else {}
        contents = {name: data for name, data in inner.contents().items() if ".tmp-" not in name}
        if PATH not in contents:
            assert not acknowledged
            continue
        found = reopened(contents)
        later = [rows for rows in (*acknowledged, *possible(acknowledged, expected)) if rows == found]
        assert later or found == kept, f"operation {at}: {sorted(found)} for {sorted(kept)}"
        assert all(found.get(key) is not None for key in kept), f"operation {at}"


def possible(acknowledged: list[Rows], expected: Rows) -> Iterator[Rows]:
    """What may be there too: the last write, whose outcome is unknown."""
    last = acknowledged[-1] if acknowledged else {}
    yield last
    for key, value in ((1, b"one"), (2, b"two" * 2000), (3, b"three" * 2000), (1, b"uno")):
        yield {**last, key: value}


def one_by_one(layer: FaultyLayer, acknowledged: list[Rows]) -> Rows:
    """The workload of ``faults``, noting what was acknowledged; a write that was refused left no trace."""
    toy = make(layer)
    acknowledged.append(dict(toy.rows))
    try:
        calls: list[Callable[[], None]] = [
            lambda: toy.put(1, b"one"),
            lambda: toy.put(2, b"two" * 2000),
            toy.checkpoint,
            lambda: toy.bulk({3: b"three" * 2000}),
            toy.checkpoint,
            lambda: toy.put(1, b"uno"),
            toy.checkpoint,
        ]
        for call in calls:
            try:
                call()
            except StorageError as error:
                assert error.errno in (errno.ENOSPC, errno.EIO)
                assert toy.store.failed is None
            else:
                acknowledged.append(dict(toy.rows))
        toy.close()
    except StorageError:
        toy.store.close(clean=False)
    finally:
        toy.store.abandon()
    return acknowledged[-1]


def test_a_failed_flush_poisons_and_reopening_tells() -> None:
    inner = RecordingLayer()
    make(inner).store.close()
    layer = FaultyLayer(inner)
    toy = make(layer)
    toy.put(1, b"one")
    broken: list[BaseException] = []
    toy.store.broken = broken.append
    layer.plan = Plan(layer.operations + 1, errno.EIO, lost=True, kinds=frozenset({"sync"}))
    with pytest.raises(DurabilityError):
        toy.put(2, b"two")
    assert len(broken) == 1 and toy.store.failed is broken[0]
    writes = len(inner.log)
    for call in (lambda: toy.put(3, b""), toy.checkpoint, toy.store.flush, toy.store.begin, toy.store.usable):
        with pytest.raises(DurabilityError):
            call()
    toy.store.rollback()
    toy.store.close()
    assert not [op for op in inner.log[writes:] if op.kind not in ("mark",)]
    assert make(inner).rows == {1: b"one"}


def test_held_frames_stay_in_memory_where_the_disk_is_full(caplog: pytest.LogCaptureFixture) -> None:
    layer = RecordingLayer()
    toy = make(layer, "none")
    toy.put(0, b"")
    layer.space = sum(map(len, layer.contents().values()))
    for key in range(350):
        toy.put(key, bytes(10_000))
    assert 2 <= len(caplog.records) <= 4 and toy.store.failed is None
    with pytest.raises(StorageError):
        toy.store.flush()
    layer.space = None
    toy.store.flush()
    assert len(reopened(layer.contents())) == 350


def test_a_full_disk_leaves_everything_usable() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    toy.put(1, b"one" * 100)
    toy.checkpoint()
    root_at = toy.store.block.root_at
    layer.space = sum(map(len, layer.contents().values()))
    high = toy.store.extents.space.high_water
    toy.put(2, b"2" * 30_000)
    with pytest.raises(StorageError) as caught:
        toy.put(3, b"3" * 70_000)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(StorageError):
        toy.checkpoint()
    with pytest.raises(StorageError):
        toy.store.write(4, entry(bytes(50_000)))
    assert toy.store.extents.space.high_water == high and toy.store.failed is None
    assert fsck.check(toy.store, True) == []
    toy.rows.pop(3, None)
    toy.put(4, b"four")
    assert toy.store.block.root_at == root_at
    toy.store.close(clean=False)
    layer.space = None
    assert make(layer).rows == {1: b"one" * 100, 2: b"2" * 30_000, 4: b"four"}


# -- stable storage ----------------------------------------------------------------------
def test_full_syncs_each_write_once() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    toy.put(0, b"")
    start = len(layer.log)
    for key in range(5):
        toy.put(key, b"x")
        assert toy.store.log.durable_lsn == toy.store.log.lsn
    assert [op.kind for op in layer.log[start:]] == ["write", "sync"] * 5
    toy.store.flush()
    assert len(layer.log) == start + 10


def test_normal_syncs_within_a_moment_by_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make(RecordingLayer(), "normal")
    for key in range(20):
        toy.put(key, b"x")
    deadline = time.monotonic() + 10
    while toy.store.log.durable_lsn < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert toy.store.log.durable_lsn == 20
    while any(thread.name == "snapdb-flusher" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.name == "snapdb-flusher" for thread in threading.enumerate())
    assert toy.store.log.attention
    monkeypatch.setattr("snapdb.storage.wal._PAUSE", 60.0)  # the next one is not done before one looks
    toy.put(20, b"y")
    assert not toy.store.log.attention
    toy.close()


def test_normal_without_threads_syncs_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = RecordingLayer()
    layer.threads = False
    now = [100.0]
    toy = make(layer, "normal")
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now[0]), "perf_counter": staticmethod(lambda: now[0])})
    monkeypatch.setattr("snapdb.storage.wal.time", clock)
    toy.put(1, b"")
    toy.put(2, b"")
    assert toy.store.log.durable_lsn == 0
    now[0] += 0.2
    toy.put(3, b"")
    assert toy.store.log.durable_lsn == 3
    toy.store.begin()
    toy.put(4, b"")
    toy.store.commit()
    assert toy.store.log.durable_lsn == 5


def test_none_writes_in_large_parts() -> None:
    layer = RecordingLayer()
    toy = make(layer, "none")
    toy.put(0, b"")
    start = len(layer.log)
    for key in range(300):
        toy.put(key, bytes(10_000))
    kinds = [op.kind for op in layer.log[start:]]
    assert 1 <= kinds.count("write") <= 3 and "sync" not in kinds
    toy.close()


# -- space -----------------------------------------------------------------------------
def test_space_is_used_again() -> None:
    layer = RecordingLayer()
    toy = make(layer)
    for key in range(20):
        toy.put(key, os.urandom(20_000))
    toy.checkpoint()
    toy.checkpoint()
    size = layer.size(PATH)
    for turn in range(30):
        toy.put(turn % 20, os.urandom(20_000))
        toy.checkpoint()
        assert fsck.check(toy.store) == []
    assert layer.size(PATH) < 1.4 * size
    toy.store.abandon()
    toy = make(layer)
    for turn in range(30):
        toy.put(turn % 20, os.urandom(20_000))
        toy.checkpoint()
        assert fsck.check(toy.store, True) == []
    assert layer.size(PATH) < 1.4 * size
    toy.close()


def test_shrink_gives_back_the_end_of_the_file(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    toy = make(layer, path=path)
    for key in range(30):
        toy.put(key, os.urandom(20_000))
    toy.checkpoint()
    for key in range(5, 30):
        toy.delete(key)
    toy.checkpoint()
    toy.checkpoint()
    before, first = layer.size(path), dict(toy.rows)
    gone = toy.store.shrink()
    assert gone > 400_000 and layer.size(path) == before - gone
    assert fsck.check(toy.store, True) == []
    assert bytes(toy.store.read(toy.stored[0].pieces[0].ref)) == first[0]  # type: ignore[arg-type]
    toy.put(5, os.urandom(90_000))
    toy.checkpoint()
    expected = dict(toy.rows)
    toy.store.abandon()
    toy = make(layer, path=path)
    assert toy.rows == expected
    toy.close()


def test_statistics(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    toy = make(layer, path=path)
    toy.put(1, b"x" * 10_000)
    figures = toy.store.statistics()
    assert figures["lsn"] == figures["durable_lsn"] == 1
    assert figures["wal_bytes"] == 2 * 65_536 and figures["generation"] == 3
    toy.checkpoint()
    figures = toy.store.statistics()
    assert figures["live_bytes"] + figures["free_bytes"] <= figures["file_bytes"]
    assert figures["last_checkpoint"].tzinfo is not None
    toy.close()


# -- locks -----------------------------------------------------------------------------
def test_a_second_writer_is_refused_with_the_pid(tmp_path: Path) -> None:
    path = str(tmp_path / PATH)
    toy = make(local_layer(), path=path)
    with pytest.raises(LockedError, match="already open") as caught:
        make(local_layer(), path=path)
    assert caught.value.pid == os.getpid()
    os.symlink(path, str(tmp_path / "link"))
    with pytest.raises(LockedError, match="already open"):
        make(local_layer(), path=str(tmp_path / "link"))
    toy.put(1, b"one")
    toy.close()
    make(local_layer(), path=path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_another_process_is_refused_and_waits(tmp_path: Path) -> None:
    path = str(tmp_path / PATH)
    make(local_layer(), path=path).close()
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        toy = make(local_layer(), path=path)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        toy.store.abandon()
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(LockedError, match=f"locked by process {child}") as caught:
            make(local_layer(), path=path)
        assert caught.value.pid == child
        start = time.monotonic()
        with pytest.raises(LockedError):
            make(local_layer(), path=path, timeout=0.1)
        assert time.monotonic() - start >= 0.1
        os.write(done[1], b"x")
        make(local_layer(), path=path, timeout=30).close()
    finally:
        os.waitpid(child, 0)
        for fd in (*ready, *done):
            os.close(fd)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_cannot_write_and_does_not_unlock(tmp_path: Path) -> None:
    path = str(tmp_path / PATH)
    toy = make(local_layer(), "normal", path)
    toy.put(1, b"one")
    child = os.fork()
    if not child:
        code = 1
        try:
            toy.put(2, b"two")
        except ClosedError:
            try:
                make(local_layer(), path=path)
            except LockedError:
                toy.store.close()
                code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0
    child = os.fork()
    if not child:
        try:
            make(local_layer(), path=path)
        except LockedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    toy.put(3, b"three")
    toy.close()
    assert make(local_layer(), path=path).rows == {1: b"one", 3: b"three"}


# -- creation ----------------------------------------------------------------------------
def test_create_refuses_what_is_there_and_replaces_an_empty_file(tmp_path: Path) -> None:
    layer, path = local_layer(), str(tmp_path / PATH)
    Path(path).touch()
    Store.create(path, {}, options(layer))
    with pytest.raises(FileExistsError):
        Store.create(path, {}, options(layer))
    os.unlink(path)
    Path(path + "-wal1").write_bytes(WalHeader(bytes(16), 1, 1, 0, bytes(16)).encode())
    with pytest.raises(FileExistsError, match="log of a database"):
        Store.create(path, {}, options(layer))
    assert sorted(os.listdir(tmp_path)) == [PATH + "-wal1"]


def test_the_name_of_a_database_lasts_before_those_of_its_logs() -> None:
    """The process that made or renamed it may have died before the directory was synced."""
    layer = RecordingLayer()
    Store.create(PATH, {"rows": 0}, options(layer))
    start = len(layer.log)
    make(layer).put(1, b"one")
    kinds = [(op.kind, op.path) for op in layer.log[start:]]
    assert kinds.index(("sync_dir", "")) < kinds.index(("create", wal_path(PATH, 0)))


def test_a_failed_create_leaves_nothing() -> None:
    whole = FaultyLayer(RecordingLayer())
    Store.create(PATH, {}, options(whole))
    for at in range(1, whole.operations):
        inner = RecordingLayer()
        with pytest.raises(StorageError):
            Store.create(PATH, {}, options(FaultyLayer(inner, Plan(at, errno.ENOSPC, short=True))))
        assert inner.contents() == {}


def test_a_failed_open_releases_everything(tmp_path: Path) -> None:
    layer, path = local_layer(), str(tmp_path / PATH)
    make(layer, path=path).close()
    data = bytearray(Path(path).read_bytes())
    for at in SLOTS:
        data[at + 9] ^= 1
    Path(path).write_bytes(data)
    for _ in range(3):
        with pytest.raises(CorruptionError):
            Store.open(path, options(layer))
    Path(path).write_bytes(b"something else entirely")
    with pytest.raises(CorruptionError, match="not a SnapDB database"):
        Store.open(path, options(layer))
