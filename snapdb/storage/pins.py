"""Pins: files beside a database whose locks say which snapshots other processes are reading. Bytes and rules:
``docs/format.md``, "Pins".

Nothing is decided by a process id or a time: a pin counts as long as its file is locked, and the operating system drops
the locks of a process that ends, however it ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

from ..errors import LockedError, SnapshotInUseError, StorageError, shorten
from . import lock
from .layer import File, FileLayer
from .wal import refused

__all__ = ["MOST_PINS", "Gate", "Pin", "Pinned", "Unpinned", "pinned", "take", "tidy"]

MOST_PINS = 256  # of one database: so many readers at once
LEAST = 1.0  # seconds that whoever wants the gate waits at least
_PATIENCE = 0.1  # seconds after which what cannot be opened is not just being removed: Windows takes a moment for that
_PAUSE, _LONGEST = 0.001, 0.01
_BYTES = 64  # of a pin's text
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FILE = frozenset({errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP})  # it cannot be a pin of ours


def gate_path(path: str) -> str:
    """The gate of a database."""
    return f"{path}-pins"


def pin_path(path: str, number: int) -> str:
    """One of the pins that there can be."""
    return f"{path}-pin{number}"


class Pinned(NamedTuple):
    """A pin that counts: the snapshot's number and the reader's process id, None where the pin does not say."""

    serial: Optional[int]
    pid: Optional[int]
    path: str


# -- the gate ----------------------------------------------------------------
class Gate:
    """``with Gate(…):`` shared, no snapshot is dropped within the block; exclusive, none is opened within it either.

    Tries for ``timeout`` seconds, at least one. LockedError; StorageError where the gate cannot be made.
    """

    def __init__(self, layer: FileLayer, path: str, exclusive: bool, timeout: float = 0.0) -> None:
        self._layer = layer
        self._path = path
        self._exclusive = exclusive
        self._timeout = max(timeout, LEAST)
        self._file: Optional[File] = None

    def __enter__(self) -> Gate:
        if self._layer.locks:  # else there are no other processes
            self._wait()
            lock.guard_fork(self)
        return self

    def __exit__(self, *exc: object) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def forked(self) -> None:
        """In a forked child: the lock is the parent's."""
        file, self._file = self._file, None
        if file is not None:
            file.close(True)

    def _wait(self) -> None:
        begin, pause = time.monotonic(), _PAUSE
        while True:
            denied: Optional[OSError] = None
            try:
                if self.try_once():
                    return
            except OSError as error:
                if error.errno not in _DENIED:
                    raise refused(error, f"{gate_path(self._path)} cannot be used") from error
                denied = error
            waited = time.monotonic() - begin
            if denied is not None and waited >= min(_PATIENCE, self._timeout):
                raise _not_allowed(denied, gate_path(self._path), not self._exclusive) from denied
            if waited >= self._timeout:
                raise self._shut()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def try_once(self) -> bool:
        """Whether the gate could be had without waiting. OSError."""
        name = gate_path(self._path)
        file = _open_or_make(self._layer, name, "r")
        self._file = None if file is None else _locked(self._layer, file, name, self._exclusive)
        return self._file is not None

    def _shut(self) -> LockedError:
        name = gate_path(self._path)
        if self._exclusive:
            what = f"{self._path}: other processes are opening its snapshots, one after the other ({name} is locked)"
            return LockedError(what, hint="try again")
        what = f"{self._path}: a snapshot of it is being dropped, or it is being compacted ({name} is locked)"
        return LockedError(what, hint="try again, or wait with timeout=")


def _open_or_make(layer: FileLayer, name: str, mode: str) -> Optional[File]:
    """An empty file of this name is made where there is none. None: it came and went meanwhile. OSError."""
    try:
        return layer.open(name, mode)
    except FileNotFoundError:
        pass
    try:
        return layer.open(name, "x")
    except FileExistsError:
        return None


def _locked(layer: FileLayer, file: File, name: str, exclusive: bool) -> Optional[File]:
    """The file, if it could be locked and is the one that has the name; else None, and it is closed. OSError."""
    try:
        if file.lock(exclusive):
            identity = file.identity()
            if identity is None or layer.identity(name) == identity:
                return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _not_allowed(error: OSError, name: str, reading: bool = True) -> StorageError:
    if not reading:
        return refused(error, f"{name}, which keeps readers of snapshots away for a moment, cannot be used")
    return refused(
        error,
        f"{name} cannot be made, which a reader of a snapshot needs beside a writer",
        "it takes the right to make files in the folder; where nobody writes to the database, open it with "
        "read_only=True and then its open_snapshot()",
    )


# -- readers -----------------------------------------------------------------
class Pin:
    """The pin of one reader. Whoever has it calls ``release``; a process that dies has released it, too."""

    def __init__(self, layer: FileLayer, file: Optional[File]) -> None:
        self._layer = layer
        self._file = file
        if file is not None:
            lock.guard_fork(self)

    def release(self) -> None:
        """The end; again it does nothing. No error: a name that stays behind, unlocked, says nothing to anybody."""
        file, self._file = self._file, None
        if file is not None:
            _remove(self._layer, file)

    def forked(self) -> None:
        """In a forked child: the pin is the parent's."""
        file, self._file = self._file, None
        if file is not None:
            file.close(True)


def _remove(layer: FileLayer, file: File) -> None:
    """Take away the name of a file that is locked, then the lock: the other way round it could be another's."""
    try:
        identity = file.identity()
        if identity is None or layer.identity(file.path) == identity:
            layer.unlink(file.path)
    except OSError:
        pass  # it stays as a name with no lock on it
    finally:
        try:
            file.close()
        except OSError:
            pass


def take(layer: FileLayer, path: str, serial: int) -> Pin:
    """Pin a snapshot; the gate is held meanwhile. LockedError where there are too many readers, StorageError."""
    if not layer.locks:
        return Pin(layer, None)
    denied: Optional[OSError] = None
    found = 0
    for number in range(MOST_PINS):
        name = pin_path(path, number)
        try:
            pin = _take_one(layer, name, serial)
        except OSError as error:
            if error.errno not in _DENIED:
                raise refused(error, f"{name} cannot be used") from error
            denied = error  # not ours to write, or just being removed: another one may do
            continue
        if pin is not None:
            return pin
        found += 1
    if denied is not None and not found:
        raise _not_allowed(denied, pin_path(path, 0))
    raise LockedError(f"{path} has {MOST_PINS} readers of snapshots, which is the most there can be", hint="try later")


def _take_one(layer: FileLayer, name: str, serial: int) -> Optional[Pin]:
    """None: somebody has it. OSError."""
    file: Optional[File] = None
    for _ in range(3):  # a reader that just went takes its file with it
        try:
            opened = _open_or_make(layer, name, "w")
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        file = None if opened is None else _locked(layer, opened, name, True)
        if file is not None:
            break
    if file is None:
        return None
    try:
        file.pwrite((b"pid %d snapshot %d\n" % (os.getpid(), serial)).ljust(_BYTES, b"\0"), 0)
    except BaseException:
        _remove(layer, file)
        raise
    return Pin(layer, file)


# -- the writer ----------------------------------------------------------------
def pinned(layer: FileLayer, path: str) -> list[Pinned]:
    """The pins that count, whoever has them; what is left of others is removed. The gate is held exclusively.
    StorageError.
    """
    return list(_pins(layer, path)) if layer.locks else []


def _pins(layer: FileLayer, path: str) -> Iterator[Pinned]:
    until = time.monotonic() + _PATIENCE
    for number in range(MOST_PINS):
        name = pin_path(path, number)
        try:
            found = _look(layer, name, until) if layer.exists(name) else None
        except OSError as error:
            raise refused(error, f"{name} cannot be looked at") from error
        if found is not None:
            yield found


def _look(layer: FileLayer, name: str, until: float) -> Optional[Pinned]:
    """None: nobody has this pin (any more). OSError."""
    while True:
        try:
            file = layer.open(name, "r")
            break
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            if error.errno not in _DENIED:
                raise
        if time.monotonic() >= until:
            return Pinned(None, None, name)
        time.sleep(_PAUSE)
    try:
        stale = file.lock(True)
        text = b"" if stale else _text(file)
    except BaseException:
        file.close()
        raise
    if stale:
        _remove(layer, file)
        return None
    file.close()
    return _parsed(text, name)


def _text(file: File) -> bytes:
    try:
        return file.pread(_BYTES, 0)
    except OSError:
        return b""  # it counts all the same


def _parsed(text: bytes, name: str) -> Pinned:
    words = text.rstrip(b"\0").split()
    if len(words) != 4 or (words[0], words[2]) != (b"pid", b"snapshot"):
        return Pinned(None, None, name)
    pid, serial = (int(word) if word.isdigit() and len(word) <= 18 else None for word in (words[1], words[3]))
    return Pinned(serial, pid, name)


class Unpinned:
    """``with Unpinned(layer, path, "it cannot be dropped", serial, name):`` no other process reads that snapshot (None:
    any), and none opens one, until the block ends.

    SnapshotInUseError with the reader's process id; LockedError where the gate could not be had; StorageError.
    """

    def __init__(
        self,
        layer: FileLayer,
        path: str,
        what: str,
        serial: Optional[int] = None,
        name: Optional[str] = None,
        timeout: float = 0.0,
    ) -> None:
        self._gate = Gate(layer, path, True, timeout)
        self._layer = layer
        self._path = path
        self._what = what
        self._serial = serial
        self._name = name

    def __enter__(self) -> Unpinned:
        self._gate.__enter__()
        try:
            self._check()
        except BaseException:
            self._gate.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._gate.__exit__()

    def _check(self) -> None:
        for pin in pinned(self._layer, self._path):
            # what a pin does not say may be any snapshot
            if self._serial is None or pin.serial is None or pin.serial == self._serial:
                raise self._in_use(pin)

    def _in_use(self, pin: Pinned) -> SnapshotInUseError:
        which = f"a snapshot of {self._path}" if self._name is None else f"snapshot {shorten(self._name)}"
        if pin.pid is None:
            who = f"an unknown process, which has {pin.path} locked"
        elif pin.pid == os.getpid():
            who = f"this process (pid {pin.pid})"
        else:
            who = f"process {pin.pid}"
        return SnapshotInUseError(f"{which} is open in {who}: {self._what}", hint="close it there first")


def tidy(layer: FileLayer, path: str) -> None:
    """Remove the gate where nobody needs it. No error: left over it is harmless."""
    try:
        if not layer.locks or not layer.exists(gate_path(path)):
            return
        gate = Gate(layer, path, True)
        if not gate.try_once():
            return
        try:
            if not pinned(layer, path):
                layer.unlink(gate_path(path))
        finally:
            gate.__exit__()
    except (OSError, StorageError):
        pass
