"""Pins: which snapshots other processes read, said by locks; and a snapshot that is read beside its writer, with both
on one layer in memory so that each moment can be tried.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from people import PLAIN
from test_files import POSIX, FakeApi
from test_snapshot_store import Keeper, let_go, make, options
from test_store import PATH, Rows

from snapdb import SnapDB, _ext
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    LockedError,
    NotFoundError,
    NotSupportedError,
    ReadOnlyError,
    SnapshotInUseError,
    StorageError,
    ValidationError,
    WrongKeyError,
)
from snapdb.storage import pinned, pins
from snapdb.storage.disk import BareLayer
from snapdb.storage.files import local_layer, using
from snapdb.storage.layer import File, FileLayer, failure
from snapdb.storage.pinned import PinnedStore
from snapdb.storage.superblock import SLOTS
from snapdb.storage.windows import WindowsLayer
from snapdb.testing.layers import FaultyFile, FaultyLayer, Plan, RecordingLayer

GATE = f"{PATH}-pins"
__all__ = ["let_go"]  # the fixture that ends what ``make`` opens


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "LEAST", 0.01)
    monkeypatch.setattr(pinned, "PATIENCE", 0.05)


@pytest.fixture(params=["memory", "disk"] + ["windows"] * POSIX)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FileLayer, str]:
    """A layer, and the path of a database that need not be there."""
    if request.param == "memory":
        return RecordingLayer(), PATH
    layer = local_layer() if request.param == "disk" else WindowsLayer(FakeApi())
    if not layer.locks:
        pytest.skip("no locks")
    return layer, str(tmp_path / PATH)


def put(layer: FileLayer, name: str, data: bytes) -> None:
    """Make a file that nobody has locked."""
    file = layer.open(name, "x")
    file.pwrite(data, 0)
    file.close()


def counted(layer: FileLayer, path: str) -> list[tuple[Optional[int], Optional[int]]]:
    with pins.Gate(layer, path, True):
        return [(pin.serial, pin.pid) for pin in pins.pinned(layer, path)]


# -- the gate ----------------------------------------------------------------
def test_readers_share_the_gate_and_writers_do_not(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    with pins.Gate(layer, path, False), pins.Gate(layer, path, False):
        with pytest.raises(LockedError, match=r"opening its snapshots.*-pins is locked"), pins.Gate(layer, path, True):
            pass
    with pins.Gate(layer, path, True):
        for exclusive in (False, True):
            with pytest.raises(LockedError, match="-pins is locked"), pins.Gate(layer, path, exclusive):
                pass
    with pins.Gate(layer, path, True):
        pass
    assert layer.size(f"{path}-pins") == 0


def test_the_gate_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = RecordingLayer()
    for least, timeout in ((0.03, 0.0), (0.0, 0.03)):
        monkeypatch.setattr(pins, "LEAST", least)
        begin = time.monotonic()
        with pins.Gate(layer, PATH, True), pytest.raises(LockedError), pins.Gate(layer, PATH, False, timeout):
            pass
        assert time.monotonic() - begin >= 0.03


def test_a_gate_that_was_removed_is_no_gate(place: tuple[FileLayer, str]) -> None:
    layer, path = place

    class Late:
        """Removes the gate between its opening and its locking, once."""

        def __init__(self, file: File) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            if name == "lock" and removed.pop():
                layer.unlink(f"{path}-pins")
            return getattr(self.file, name)

    class Removing:
        def __getattr__(self, name: str) -> Any:
            return getattr(layer, name)

        def open(self, name: str, mode: str) -> Any:
            return Late(layer.open(name, mode))

    removed = [False, False, True]
    with pins.Gate(Removing(), path, True):  # type: ignore[arg-type]
        assert layer.exists(f"{path}-pins")
        with pytest.raises(LockedError), pins.Gate(layer, path, False):
            pass
    assert removed == [False]


# -- pins ---------------------------------------------------------------------
def test_a_pin_says_who_and_what(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    first, second = pins.take(layer, path, 7), pins.take(layer, path, 1 << 50)
    assert counted(layer, path) == [(7, os.getpid()), (1 << 50, os.getpid())]
    file = layer.open(f"{path}-pin0", "r")
    assert file.pread(100, 0) == (b"pid %d snapshot 7\n" % os.getpid()).ljust(64, b"\0")
    file.close()
    first.release()
    assert counted(layer, path) == [(1 << 50, os.getpid())]
    third = pins.take(layer, path, 8)
    assert counted(layer, path) == [(8, os.getpid()), (1 << 50, os.getpid())]
    for pin in (first, second, third, third):
        pin.release()
    assert not counted(layer, path)
    assert not any(layer.exists(f"{path}-pin{number}") for number in range(pins.MOST_PINS))


def test_what_a_dead_reader_leaves_is_nothing(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    put(layer, f"{path}-pins", b"")
    for number, text in enumerate((b"pid 1 snapshot 7\n".ljust(64, b"\0"), b"", b"garbage", bytes(64))):
        put(layer, f"{path}-pin{number}", text)
    put(layer, f"{path}-pin255", b"pid 1 snapshot 7\n")
    pin = pins.take(layer, path, 9)  # takes one of them over
    assert counted(layer, path) == [(9, os.getpid())]
    pin.release()
    assert not any(layer.exists(f"{path}-pin{number}") for number in range(pins.MOST_PINS))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"pid 12 snapshot 34\n", (34, 12)),
        (b"pid 12 snapshot 34", (34, 12)),
        (b"", (None, None)),
        (b"pid 12", (None, None)),
        (b"pid 12 snapshot 34 56", (None, None)),
        (b"pid x snapshot 34", (34, None)),
        (b"pid 12 snapshot -1", (None, 12)),
        (b"pid 12 snapshot " + b"9" * 19, (None, 12)),
        (b"dip 12 snapshot 34", (None, None)),
        (b"\xff" * 64, (None, None)),
    ],
)
def test_a_pin_counts_whatever_it_says(text: bytes, said: tuple[Optional[int], Optional[int]]) -> None:
    layer = RecordingLayer({f"{PATH}-pin3": text.ljust(64, b"\0")})
    file = layer.open(f"{PATH}-pin3", "r")
    assert file.lock(True)
    assert counted(layer, PATH) == [said]
    held = pytest.raises(SnapshotInUseError)
    with held, pins.Unpinned(layer, PATH, "no", 34):
        pass
    if said[0] is None:  # it may be any
        with held, pins.Unpinned(layer, PATH, "no", 35):
            pass
    else:
        with pins.Unpinned(layer, PATH, "no", 35):
            pass
    file.close()
    assert counted(layer, PATH) == [] and not layer.exists(f"{PATH}-pin3")


def test_a_reader_that_goes_takes_no_other_reader_with_it() -> None:
    """Its name goes before its lock: else the next one would have a pin that no writer sees."""
    layer = RecordingLayer()
    others = []

    class Meanwhile:
        def __getattr__(self, name: str) -> Any:
            return getattr(layer, name)

        def unlink(self, path: str) -> None:
            others.append(pins.take(layer, PATH, 2))
            layer.unlink(path)
            others.append(pins.take(layer, PATH, 3))

    leaving: Any = Meanwhile()
    pins.take(leaving, PATH, 1).release()
    others.append(pins.take(layer, PATH, 4))
    assert sorted(serial or 0 for serial, _ in counted(layer, PATH)) == [2, 3, 4]
    for pin in others:
        pin.release()


def test_256_readers_and_no_more() -> None:
    layer = RecordingLayer()
    taken = [pins.take(layer, PATH, 1) for _ in range(pins.MOST_PINS)]
    with pytest.raises(LockedError, match="256 readers"):
        pins.take(layer, PATH, 1)
    assert len(counted(layer, PATH)) == pins.MOST_PINS
    taken[100].release()
    taken[100] = pins.take(layer, PATH, 2)
    assert counted(layer, PATH)[100] == (2, os.getpid())


def test_a_folder_in_the_place_of_a_pin(tmp_path: Path) -> None:
    layer, path = local_layer(), str(tmp_path / PATH)
    if not layer.locks:
        pytest.skip("no locks")
    (tmp_path / f"{PATH}-pin0").mkdir()
    pin = pins.take(layer, path, 5)
    assert (tmp_path / f"{PATH}-pin1").exists()
    assert counted(layer, path) == [(5, os.getpid())]
    pin.release()
    (tmp_path / GATE).unlink()
    (tmp_path / GATE).mkdir()
    with pytest.raises(StorageError, match="-pins cannot be used"), pins.Gate(layer, path, False):
        pass


def test_who_is_named() -> None:
    layer = RecordingLayer()
    pin = pins.take(layer, PATH, 3)
    with pytest.raises(SnapshotInUseError, match=rf"snapshot 'x' is open in this process \(pid {os.getpid()}\): no"):
        pins.Unpinned(layer, PATH, "no", 3, "x").__enter__()
    file = layer.open(f"{PATH}-pin0", "w")
    file.pwrite(b"pid 999999 snapshot 3\n".ljust(64, b"\0"), 0)
    with pytest.raises(SnapshotInUseError, match="a snapshot of .* is open in process 999999: no; close it there"):
        pins.Unpinned(layer, PATH, "no").__enter__()
    file.pwrite(bytes(64), 0)
    with pytest.raises(SnapshotInUseError, match=r"is open in an unknown process, which has .*-pin0 locked: no"):
        pins.Unpinned(layer, PATH, "no").__enter__()
    with pins.Gate(layer, PATH, True):
        pass  # nothing of these has kept it
    pin.release()
    with pins.Unpinned(layer, PATH, "no"), pytest.raises(LockedError), pins.Gate(layer, PATH, False):
        pass


def test_the_gate_goes_where_nobody_needs_it(place: tuple[FileLayer, str]) -> None:
    layer, path = place
    pins.tidy(layer, path)
    pin = pins.take(layer, path, 3)
    with pins.Gate(layer, path, False):
        pins.tidy(layer, path)
    assert layer.exists(f"{path}-pins"), "somebody has it"
    pins.tidy(layer, path)
    assert layer.exists(f"{path}-pins"), "there is a pin"
    pin.release()
    put(layer, f"{path}-pin9", b"")
    pins.tidy(layer, path)
    assert not layer.exists(f"{path}-pins") and not layer.exists(f"{path}-pin9")


def test_without_locks_there_is_nothing(tmp_path: Path) -> None:
    layer, path = BareLayer(), str(tmp_path / PATH)
    with pins.Gate(layer, path, True), pins.Gate(layer, path, False):
        pin = pins.take(layer, path, 3)
        assert pins.pinned(layer, path) == []
        pin.release()
    pins.tidy(layer, path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_has_no_part_in_a_pin(tmp_path: Path) -> None:
    layer, path = local_layer(), str(tmp_path / PATH)
    pin = pins.take(layer, path, 3)
    with pins.Gate(layer, path, False):
        child = os.fork()
        if child == 0:
            pin.release()  # nothing, as all that it does
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(LockedError), pins.Gate(layer, path, True):
            pass
    assert counted(layer, path) == [(3, os.getpid())]
    pin.release()
    assert counted(layer, path) == []


# -- what fails ------------------------------------------------------------------
def test_whatever_fails_nothing_stays_locked() -> None:
    """Each operation of a reader's and of a writer's way fails once."""
    for at in range(1, 100):
        inner = RecordingLayer()
        put(inner, f"{PATH}-pin1", b"left over")
        layer = FaultyLayer(inner, Plan(at, errno.EIO, reads=True))
        pin: Optional[pins.Pin] = None
        try:
            with pins.Gate(layer, PATH, False):
                pin = pins.take(layer, PATH, 3)
            pin.release()
            pin = None
            with pins.Unpinned(layer, PATH, "no"):
                pass
        except StorageError as error:
            assert error.errno == errno.EIO
        if pin is not None:
            pin.release()
        assert counted(inner, PATH) == []
        if layer.operations < at:
            break
    else:
        raise AssertionError("it never went through")
    assert at > 10


class Denied:
    """A layer where some names cannot be opened for a while: deleted on Windows, or somebody else's."""

    def __init__(self, inner: FileLayer, names: set[str], seconds: float = 60.0, modes: str = "rwx") -> None:
        self._inner = inner
        self._names = names
        self._modes = modes
        self._until = time.monotonic() + seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def exists(self, path: str) -> bool:
        return path in self._names or self._inner.exists(path)

    def open(self, path: str, mode: str) -> File:
        if path in self._names and mode in self._modes and time.monotonic() < self._until:
            raise failure(errno.EACCES, path)
        return self._inner.open(path, mode)


def test_a_name_that_is_being_removed() -> None:
    """Windows: until the last handle goes the name is there, and cannot be opened."""
    inner = RecordingLayer()
    layer: Any = Denied(inner, {f"{PATH}-pin0", f"{PATH}-pin1"}, 0.02)
    pin = pins.take(layer, PATH, 3)  # takes the next one
    assert inner.exists(f"{PATH}-pin2")
    pin.release()
    with pins.Gate(inner, PATH, True):
        assert pins.pinned(layer, PATH) == []  # waits for it
        lasting: Any = Denied(inner, {f"{PATH}-pin1"})
        assert [tuple(pin)[:2] for pin in pins.pinned(lasting, PATH)] == [(None, None)]
    going: Any = Denied(RecordingLayer(), {GATE}, 0.02)
    with pins.Gate(going, PATH, False, 1.0):
        pass


def test_a_reader_who_may_not_write_in_the_folder() -> None:
    inner = RecordingLayer()
    names = {GATE, *(f"{PATH}-pin{number}" for number in range(pins.MOST_PINS))}
    hint = "cannot be made.*right to make files in the folder.*read_only=True and then its open_snapshot"
    closed: Any = Denied(inner, names)
    with pytest.raises(StorageError, match=f"-pins {hint}") as caught:
        pins.Gate(closed, PATH, False).__enter__()
    assert caught.value.errno == errno.EACCES
    with pytest.raises(StorageError, match="keeps readers of snapshots away"):
        pins.Gate(closed, PATH, True, 1.0).__enter__()
    with pins.Gate(inner, PATH, False):
        pass
    closed = Denied(inner, names - {GATE})  # somebody else has made the gate
    with pins.Gate(closed, PATH, False), pytest.raises(StorageError, match=f"-pin0 {hint}"):
        pins.take(closed, PATH, 1)


# -- a snapshot beside its writer ------------------------------------------------------
def shown(layer: FileLayer, name: str, **more: Any) -> Rows:
    """The rows of a snapshot as a reader has them."""
    store = PinnedStore.open(PATH, name, options(layer, **more))
    try:
        return rows_of(store)
    finally:
        store.close()


def rows_of(store: PinnedStore) -> Rows:
    rows = {}
    for key, entry in store.items():
        assert entry.pieces[0].ref is not None
        rows[key] = bytes(store.read(entry.pieces[0].ref))
    return rows


@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_a_snapshot_is_seen_at_once(durability: str) -> None:
    layer = RecordingLayer(maps=True)
    keeper = make(layer, durability)
    kept: dict[str, Rows] = {}
    for number in range(12):
        keeper.put(number, b"%d" % number)
        name = f"s{number % 5}"
        keeper.snapshot(name)
        keeper.store.show()
        kept[name] = dict(keeper.rows)
        if number % 3 == 1:
            keeper.drop("s1")
            keeper.store.show()
            kept.pop("s1", None)
        if number % 4 == 3:
            keeper.checkpoint()
        for known in range(5):
            if f"s{known}" in kept:
                assert shown(layer, f"s{known}") == kept[f"s{known}"]
            else:
                with pytest.raises(NotFoundError, match=f"no snapshot 's{known}'"):
                    shown(layer, f"s{known}")
        if "s1" not in kept and number < 11:
            keeper.put(100, b"more")
            keeper.snapshot("s1")
            keeper.store.show()
            kept["s1"] = dict(keeper.rows)
    keeper.store.abandon()
    assert all(shown(layer, name) == rows for name, rows in kept.items())  # of a log that nobody has folded in
    with contextlib.closing(make(layer, durability).store):
        assert all(shown(layer, name) == rows for name, rows in kept.items())
    assert all(shown(layer, name) == rows for name, rows in kept.items())
    assert not [name for name in layer.contents() if "-pin" in name]


def test_what_a_reader_has_and_has_not() -> None:
    layer = RecordingLayer(maps=True)
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("first")
    store = PinnedStore.open(PATH, "first", options(layer))
    assert store.header == keeper.store.header and store.path == PATH and store.read_only
    figures = store.statistics()
    assert figures["lsn"] == store.record.lsn and figures["last_checkpoint"].year > 2000
    assert store.check(True) == []
    store.close()
    store.close()
    with pytest.raises(ClosedError, match="'first' is closed"):
        store.entry(1)
    for name, hint in (("frist", "did you mean 'first'"), ("x", "there are 'first'")):
        with pytest.raises(NotFoundError, match=hint) as caught:
            PinnedStore.open(PATH, name, options(layer))
        assert isinstance(caught.value, KeyError)
    keeper.drop("first")
    with pytest.raises(NotFoundError, match="it has none"):
        PinnedStore.open(PATH, "first", options(layer))
    with pytest.raises(FileNotFoundError):
        PinnedStore.open("nowhere", "first", options(layer))


def test_a_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = RecordingLayer()
    make(layer)
    monkeypatch.setattr(layer, "is_remote", lambda path: True)
    with pytest.raises(NotSupportedError, match="network"):
        PinnedStore.open(PATH, "x", options(layer))


def test_a_file_that_is_replaced_while_it_is_opened() -> None:
    """By ``repair``, which has the gate: the reader that waited for that reads the new one."""
    layer = RecordingLayer()
    for value in (b"new", b"old"):
        keeper = make(layer)
        keeper.put(1, value)
        keeper.snapshot("kept")
        keeper.checkpoint()
        keeper.store.close()
        if value == b"new":
            layer.rename(PATH, "other.snapdb", False)

    class Replacing:
        def __getattr__(self, name: str) -> Any:
            return getattr(layer, name)

        def open(self, path: str, mode: str) -> File:
            if path == GATE and layer.exists("other.snapdb"):
                layer.rename("other.snapdb", PATH, True)
            return layer.open(path, mode)

    assert shown(Replacing(), "kept") == {1: b"new"}  # type: ignore[arg-type]
    assert counted(layer, PATH) == []


def test_a_pin_outlives_its_reader_as_long_as_a_view_does() -> None:
    layer = RecordingLayer(maps=True)
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.put(2, b"two")
    keeper.snapshot("kept")
    store = PinnedStore.open(PATH, "kept", options(layer))
    views = []
    for key, entry in store.items():
        assert entry.pieces[0].ref is not None
        views.append((key, store.read(entry.pieces[0].ref)[1:]))
    store.close()
    assert counted(layer, PATH) == [(store.record.serial, os.getpid())]
    assert bytes(views.pop()[1]) == b"wo"
    gc.collect()
    assert len(counted(layer, PATH)) == 1, "one is left"
    views.clear()
    gc.collect()
    assert counted(layer, PATH) == []


def test_views_of_an_earlier_handle_stay_as_they_are() -> None:
    """A reader that opens between two writers of one process does not make the second forget them."""
    layer = RecordingLayer(maps=True)
    keeper = make(layer)
    for key in range(20):
        keeper.put(key, b"%d" % key * 1000)
    keeper.checkpoint()
    entries = dict(keeper.store.items())
    views = {}
    for key in range(20):
        ref = entries[key].pieces[0].ref
        assert ref is not None
        views[key] = keeper.store.read(ref)
        keeper.delete(key)
    keeper.snapshot("empty")
    keeper.checkpoint()
    keeper.store.close()
    reader = PinnedStore.open(PATH, "empty", options(layer))
    keeper = make(layer)
    for number in range(60):
        keeper.put(number, b"x" * 2500)
        if number % 10 == 9:
            keeper.checkpoint()
    assert all(bytes(view) == b"%d" % key * 1000 for key, view in views.items())
    assert rows_of(reader) == {}
    reader.close()


def test_a_lost_reader_is_no_reader() -> None:
    layer = RecordingLayer(maps=True)
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("kept")
    store: Optional[PinnedStore] = PinnedStore.open(PATH, "kept", options(layer))
    assert store is not None and len(counted(layer, PATH)) == 1
    store = None
    gc.collect()
    assert counted(layer, PATH) == []


def test_damage_is_said_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("kept")
    keeper.checkpoint()
    keeper.store.close()
    record = keeper.store.history.find("kept")
    assert record is not None
    good = layer.contents()[PATH]
    for place, times in ((record.root.extent + record.root.at, 1), (SLOTS[0] + 9, 2)):
        bad = bytearray(good)
        for slot in range(times):  # both superblocks
            bad[place + slot * (SLOTS[1] - SLOTS[0])] ^= 1
        damaged = RecordingLayer({PATH: bytes(bad)})
        with pytest.raises(CorruptionError):
            PinnedStore.open(PATH, "kept", options(damaged))
        assert counted(damaged, PATH) == []
    keeper = make(RecordingLayer({PATH: good}))
    store = PinnedStore.open(PATH, "kept", options(keeper.store.layer))
    ((_, entry),) = store.items()
    ref = entry.pieces[0].ref
    assert ref is not None
    file = keeper.store.layer.open(PATH, "w")
    file.pwrite(b"X", ref.extent + ref.at)
    assert store.check(False) == []
    assert [issue["kind"] for issue in store.check(True)] == ["piece"]
    store.close()


def test_a_reader_waits_for_what_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that goes within the time that a writer may take is none."""
    layer = RecordingLayer()
    keeper = make(layer)
    keeper.put(1, b"one")
    keeper.snapshot("kept")
    keeper.checkpoint()
    good = layer.contents()[PATH]
    rows = dict(keeper.rows)
    keeper.store.close()
    good = layer.contents()[PATH]
    file = layer.open(PATH, "w")
    for slot in SLOTS:
        file.pwrite(bytes(64), slot)
    tries = []

    def pause(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            file.pwrite(good, 0)

    monkeypatch.setattr(pinned, "PATIENCE", 60)
    monkeypatch.setattr(pinned.time, "sleep", pause)
    assert shown(layer, "kept") == rows
    assert len(tries) == 3


class Nosy:
    """A layer that lets somebody else do something before each call of this one."""

    def __init__(self, inner: RecordingLayer, act: Callable[[], None]) -> None:
        self.inner = inner
        self.act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def open(self, path: str, mode: str) -> Any:
        self.act()
        return NosyFile(self.inner.open(path, mode), self.act)

    def size(self, path: str) -> int:
        self.act()
        return self.inner.size(path)


class NosyFile:
    def __init__(self, inner: File, act: Callable[[], None]) -> None:
        self.inner = inner
        self.act = act

    def __getattr__(self, name: str) -> Any:
        if name in ("pread", "size", "lock", "map", "pwrite"):
            self.act()
        return getattr(self.inner, name)


@pytest.mark.parametrize("seed", [*range(40), 43, 385, 516])
def test_a_writer_between_any_two_calls_of_a_reader(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes, folds in, makes snapshots, goes back, closes, dies and opens again while a reader opens and reads."""
    monkeypatch.setattr(pinned, "PATIENCE", 60.0)
    monkeypatch.setattr(pins, "LEAST", 60.0)  # a writer that closes takes the gate away
    monkeypatch.setattr(pinned.time, "sleep", lambda seconds: None)
    draw = random.Random(seed)
    layer = RecordingLayer(record=False, maps=bool(seed % 2))
    writer = [make(layer, draw.choice(("full", "normal", "none")))]
    kept: dict[str, Rows] = {}
    busy = [False]
    share = draw.choice((0.05, 0.3, 1.0))
    budget = [0]

    def act() -> None:
        if busy[0] or budget[0] <= 0 or draw.random() > share:
            return
        busy[0] = True
        budget[0] -= 1
        try:
            step(writer, kept, draw, layer)
        finally:
            busy[0] = False

    budget[0] = 20
    for _ in range(30):
        act()
    for number in range(12):
        keeper = writer[0]
        keeper.put(draw.randrange(40), b"%d" % number)
        keeper.snapshot(f"s{number}")
        keeper.store.show()
        kept[f"s{number}"] = dict(keeper.rows)
        name = draw.choice(list(kept))
        budget[0] = 25
        reader = PinnedStore.open(PATH, name, options(Nosy(layer, act)))  # type: ignore[arg-type]
        assert reader.record.name == name
        if share == 1.0:
            with pytest.raises(NotFoundError):
                PinnedStore.open(PATH, "another", options(Nosy(layer, act)))  # type: ignore[arg-type]
        for _ in range(3):
            assert rows_of(reader) == kept[name]
            budget[0] = 10
        if draw.random() < 0.5:
            gone = keeper = writer[0]
            record = gone.store.history.find(name)
            assert record is not None
            with pytest.raises(SnapshotInUseError), gone.store.pinned_elsewhere(record.serial, "no"):
                pass
        reader.close()
        if draw.random() < 0.5:
            with writer[0].store.pinned_elsewhere(None, "no"):
                writer[0].drop(name)
                writer[0].store.show()
            del kept[name]
            with pytest.raises(NotFoundError):
                shown(layer, name)
            if draw.random() < 0.5:
                writer[0].checkpoint()
    for name, rows in kept.items():
        assert shown(layer, name) == rows


def step(writer: list[Keeper], kept: dict[str, Rows], draw: random.Random, layer: RecordingLayer) -> None:
    keeper = writer[0]
    what = draw.choice(("put", "put", "put", "remove", "checkpoint", "checkpoint", "snapshot", "restore", "end"))
    if what == "put":
        keeper.put(draw.randrange(40), b"%d" % draw.getrandbits(40) * draw.choice((1, 1, 500)))
    elif what == "remove" and keeper.rows:
        keeper.delete(draw.choice(list(keeper.rows)))
    elif what == "checkpoint":
        keeper.checkpoint()
    elif what == "snapshot":
        name = f"more{len(kept)}"
        if name not in kept:
            keeper.snapshot(name)
            keeper.store.show()
            kept[name] = dict(keeper.rows)
    elif what == "restore" and kept:
        name = draw.choice(list(kept))
        keeper.restore(name)
        assert keeper.rows == kept[name]
    elif what == "end":
        if draw.random() < 0.5:
            keeper.checkpoint()
            keeper.store.close()
        else:
            keeper.store.show()
            if draw.random() < 0.5:
                keeper.store.flush()
            keeper.store.abandon()
        writer[0] = make(layer, draw.choice(("full", "normal", "none")))


def test_each_moment_of_a_writer() -> None:
    """After every single operation a reader finds each snapshot that was acknowledged, and its rows."""
    layer = RecordingLayer()
    marks: list[tuple[int, dict[str, Rows]]] = []
    keeper = make(layer, "normal")
    kept: dict[str, Rows] = {}

    def mark() -> None:
        marks.append((len(layer.log), dict(kept)))

    draw = random.Random(5)
    for number in range(14):
        keeper.put(draw.randrange(8), b"%d" % number * 30)
        keeper.snapshot(f"s{number}")
        kept[f"s{number}"] = dict(keeper.rows)
        mark()
        if number % 4 == 2:
            name = draw.choice(list(kept))
            before = kept.pop(name)
            mark()  # from here on it may be gone
            keeper.drop(name)
            assert before is not None
        if number % 5 == 3:
            keeper.checkpoint()
            mark()
        if number % 6 == 5:
            keeper.checkpoint()
            keeper.store.close()
            keeper = make(layer, "normal")
            mark()
    log, moments = list(layer.log), 0
    replayed = RecordingLayer(record=False)
    known: dict[str, Rows] = {}
    following = iter([*marks, (len(log) + 1, {})])
    due, state = next(following)
    files: dict[int, Any] = {}
    for at, op in enumerate(log, 1):
        repeat(replayed, files, op)
        while at >= due:
            known = state
            due, state = next(following)
        if op.kind in ("sync", "mark", "sync_dir") or not known:
            continue
        moments += 1
        for name in {next(iter(known)), next(reversed(known))} & state.keys():
            assert shown(replayed, name) == known[name], (at, op.kind, op.path, name)
    assert moments > 60


def repeat(layer: RecordingLayer, files: dict[int, Any], op: Any) -> None:
    """Do what an operation of another layer did."""
    if op.kind == "create":
        files[op.file] = layer.open(op.path, "x")
    elif op.kind == "write":
        files[op.file].pwrite(op.data, op.offset)
    elif op.kind == "truncate":
        files[op.file].truncate(op.size)
    elif op.kind == "allocate":
        files[op.file].allocate(op.offset, op.size)
    elif op.kind == "rename":
        layer.rename(op.path, op.target, True)
    elif op.kind == "unlink":
        layer.unlink(op.path)


# -- handles ------------------------------------------------------------------------
def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [{"k": k, "v": k / 2, "s": f"row {k}"} for k in range(start, start + count)]


def test_a_handle_that_reads_a_snapshot(any_files: Any) -> None:
    with any_files.open(PLAIN) as db:
        db.batch_insert(rows(0, 3000))
        db.snapshot("early")
        db.update(5, {"s": "later"})
        db.delete(6)
        path = any_files.path()
        with SnapDB(path, read_only=True, snapshot="early") as reader:
            assert len(reader) == 3000 and reader[5]["s"] == "row 5" and 6 in reader
            assert reader.aggregate("v") == sum(k / 2 for k in range(3000))
            assert "snapshot='early'" in repr(reader) and reader.fsck()["ok"] and reader.list_snapshots() == []
            assert reader.stats()["snapshot_bytes"] == 0
            writes: list[Callable[[], object]] = [
                lambda: reader.insert({"k": 1, "v": 1.0, "s": ""}),
                lambda: reader.batch_insert([]),
                lambda: reader.update(0, {"k": 1}),
                lambda: reader.delete(0),
                lambda: reader.delete_where([("k", "eq", 1)]),
                lambda: reader.snapshot("x"),
                lambda: reader.restore("early"),
                lambda: reader.drop_snapshot("early"),
                reader.compact,
                reader.transaction,
                reader.checkpoint,
            ]
            for write in writes:
                with pytest.raises(ReadOnlyError):
                    write()
            for other in (lambda: reader.open_snapshot("early"), lambda: reader.diff_snapshots("early", "early")):
                with pytest.raises(NotSupportedError):
                    other()
            reader.flush()
            for call in (lambda: db.drop_snapshot("early"), lambda: db.snapshot("early"), db.compact):
                with pytest.raises(SnapshotInUseError, match=str(os.getpid())):
                    call()
            db.snapshot("late")
            db.drop_snapshot("late")
            db.restore("early")
            db.checkpoint()
            assert dict(reader) == dict(db)
            db.batch_insert(rows(3000, 3000))
            db.checkpoint()
            copy = reader.backup(any_files.path("copy.snapdb"))
            assert len(reader) == 3000
        with SnapDB(copy) as db2:
            assert len(db2) == 3000
        db.compact()
        db.drop_snapshot("early")
        with pytest.raises(NotFoundError):
            SnapDB(path, read_only=True, snapshot="early")
    assert [name for name in any_files.contents() if "-pin" in name] == []


def test_what_may_be_asked_for(files: Any) -> None:
    with files.open(PLAIN) as db:
        db.insert({"k": 1, "v": 1.0, "s": ""})
        db.snapshot("s")
    path = files.path()
    with pytest.raises(ValidationError, match="read_only=True"):
        SnapDB(path, snapshot="s")
    for name in ("", "a/b", 7, b"s"):
        with pytest.raises(ValidationError):
            SnapDB(path, read_only=True, snapshot=name)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        SnapDB(files.path("none.snapdb"), PLAIN, read_only=True, snapshot="s")
    with pytest.raises(NotSupportedError):
        SnapDB(":memory:", PLAIN, read_only=True, snapshot="s")
    with SnapDB(path, PLAIN, read_only=True, snapshot="s", storage_type=files.engine, mmap=False) as db:
        assert len(db) == 1


def test_an_encrypted_snapshot(files: Any) -> None:
    pytest.importorskip("cryptography")
    key, other = b"k" * 32, b"o" * 32
    path = files.path()
    with files.open(PLAIN, encryption_key=key) as db:
        db.batch_insert(rows(0, 700))
        db.snapshot("folded")
        db.checkpoint()
        db.delete(0)
        db.snapshot("logged")
        reader = SnapDB(path, read_only=True, snapshot="logged", encryption_key=key)
        assert len(reader) == 699 and reader.fsck()["ok"]
        for wrong in (None, other):
            with pytest.raises(WrongKeyError):
                SnapDB(path, read_only=True, snapshot="folded", encryption_key=wrong)
        db.rekey(other)
        with pytest.raises(WrongKeyError):
            SnapDB(path, read_only=True, snapshot="folded", encryption_key=key)
        with SnapDB(path, read_only=True, snapshot="folded", encryption_key=other) as second:
            assert len(second) == 700 and dict(second)[5] == rows(5, 1)[0]
        with pytest.raises(SnapshotInUseError):
            db.drop_snapshot("logged")
        assert len(list(reader)) == 699
        with SnapDB(reader.backup(files.path("copy.snapdb")), encryption_key=key) as copy:
            assert len(copy) == 699
        reader.close()
        db.drop_snapshot("logged")
    assert not any("-pin" in name for name in files.contents())


def test_a_writer_that_opens_later(files: Any) -> None:
    with files.open(PLAIN) as db:
        db.batch_insert(rows(0, 500))
        db.snapshot("s")
        db.batch_insert(rows(500, 500))
    with SnapDB(files.path(), read_only=True, snapshot="s") as reader, files.open() as db:
        db.delete_where([("k", "gte", 0)])
        db.checkpoint()
        db.batch_insert(rows(0, 2000))
        db.checkpoint()
        assert [row["k"] for _, row in reader] == list(range(500))
        with pytest.raises(SnapshotInUseError):
            db.drop_snapshot("s")
        db.close()
        assert [row["k"] for _, row in reader] == list(range(500))


def test_a_damaged_snapshot_can_still_be_dropped_beside_a_reader_that_failed(files: Any) -> None:
    with files.open(PLAIN) as db:
        db.batch_insert(rows(0, 10))
        db.snapshot("s")
        db.checkpoint()
        record = db._file.store.history.find("s")
        files.write("t.snapdb", b"\xff", record.root.extent + record.root.at)
        with pytest.raises(CorruptionError):
            SnapDB(files.path(), read_only=True, snapshot="s")
        db.drop_snapshot("s")


# -- three readers and a writer ------------------------------------------------------------
class Readers(RuleBasedStateMachine):
    """A writer, and up to three readers that come, go and die."""

    engine = "row"
    layer: RecordingLayer

    @initialize(maps=st.booleans(), durability=st.sampled_from(["full", "normal", "none"]))
    def begin(self, maps: bool, durability: str) -> None:
        self.layer = RecordingLayer(record=False, maps=maps)
        self.durability = durability
        self.kept: dict[str, dict[int, Any]] = {}
        self.readers: list[tuple[str, SnapDB]] = []
        self.serial = 0
        with using(self.layer):
            self.db = SnapDB(PATH, PLAIN, storage_type=self.engine, durability=durability)

    def pinned_names(self) -> set[str]:
        return {name for name, _ in self.readers}

    @rule(count=st.integers(1, 600))
    def insert(self, count: int) -> None:
        self.db.batch_insert(rows(self.serial, count))
        self.serial += count

    @precondition(lambda self: len(self.db))
    @rule(draw=st.randoms(use_true_random=False))
    def change(self, draw: random.Random) -> None:
        ids = [idx for idx, _ in self.db]
        for idx in draw.sample(ids, min(5, len(ids))):
            self.db.update(idx, {"s": f"changed {self.serial}"})
        self.db.delete(ids[draw.randrange(len(ids))])
        self.serial += 1

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule(name=st.sampled_from("abc"))
    def snapshot(self, name: str) -> None:
        if name in self.pinned_names():
            with pytest.raises(SnapshotInUseError, match="replaced"):
                self.db.snapshot(name)
        else:
            self.db.snapshot(name)
            self.kept[name] = dict(self.db)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        if name in self.pinned_names():
            with pytest.raises(SnapshotInUseError, match="dropped"):
                self.db.drop_snapshot(name)
        else:
            self.db.drop_snapshot(name)
            del self.kept[name]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.db.restore(name)
        assert dict(self.db) == self.kept[name]

    @rule()
    def compact(self) -> None:
        if self.readers:
            with pytest.raises(SnapshotInUseError, match="compact"):
                self.db.compact()
        else:
            self.db.compact()

    @rule(clean=st.booleans())
    def writer_ends(self, clean: bool) -> None:
        if clean:
            self.db.close()
        else:
            self.db.flush()
            self.db._abandon()
        with using(self.layer):
            self.db = SnapDB(PATH, durability=self.durability)

    @precondition(lambda self: self.kept and len(self.readers) < 3)
    @rule(data=st.data())
    def reader_comes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        with using(self.layer):
            self.readers.append((name, SnapDB(PATH, read_only=True, snapshot=name)))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def reader_reads(self, data: st.DataObject) -> None:
        name, reader = data.draw(st.sampled_from(self.readers))
        assert dict(reader) == self.kept[name]

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def reader_goes(self, data: st.DataObject) -> None:
        name, reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        assert dict(reader) == self.kept[name]
        reader.close()

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def reader_dies(self, data: st.DataObject) -> None:
        """The system drops its locks; the names stay."""
        _, reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        store: Any = reader._file.store  # type: ignore[union-attr]
        pin = store._held._give_back.args[2]
        pin._file.close()
        pin._file = None
        reader.close()

    @invariant()
    def all_is_there(self) -> None:
        if hasattr(self, "db"):
            assert {snapshot["name"] for snapshot in self.db.list_snapshots()} == set(self.kept)

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        for name, reader in self.readers:
            assert dict(reader) == self.kept[name]
            reader.close()
        assert self.db.fsck()["ok"]
        for name in self.kept:
            self.db.drop_snapshot(name)
        self.db.close()
        assert set(self.layer.contents()) == {PATH}


@pytest.mark.parametrize("backend", _ext.available())
def test_readers_and_a_writer(engine: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "BACKEND", backend)
    kind = type("Machine", (Readers,), {"engine": engine})
    examples = 25 if backend == "c" else 5
    run_state_machine_as_test(kind, settings=settings(max_examples=examples, stateful_step_count=30))


def test_the_fault_layer_hands_locks_on() -> None:
    layer = FaultyLayer(RecordingLayer())
    one, other = layer.open(PATH, "x"), layer.open(PATH, "r")
    assert isinstance(one, FaultyFile) and one.lock(True) and not other.lock(False)
