"""One writer, or readers: the lock on the data file, the registry of this process, and what a forked child forgets.

``flock`` and its like do not tell two handles of one process apart on every platform, and some platforms have no lock
at all; the registry, by (device, inode), does.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections import deque
from typing import Optional, Protocol

from ..errors import LockedError
from .disk import DiskLayer
from .layer import File, FileLayer, failure
from .superblock import read_holder

__all__ = ["Claim", "acquire", "guard_fork", "on_disk"]

_PAUSE = 0.001  # seconds before the second try, doubled up to _LONGEST
_LONGEST = 0.05

_Key = tuple[object, object]


class _Claims:
    """Which files this process has open: -1 for writing, else by how many readers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[_Key, int] = {}
        self.given: deque[_Key] = deque()

    def take(self, key: _Key, exclusive: bool) -> bool:
        with self.lock:
            while self.given:
                self._work_off(self.given.popleft())
            count = self.open.get(key, 0)
            if count < 0 or (exclusive and count):
                return False
            self.open[key] = -1 if exclusive else count + 1
            return True

    def give(self, key: _Key) -> None:
        # a handle may be dropped by a collection, or closed in a signal handler, in the middle of take(): no lock here
        self.given.append(key)

    def _work_off(self, key: _Key) -> None:
        count = self.open.pop(key, 0)
        if count > 1:
            self.open[key] = count - 1


_claims = _Claims()


class Claim:
    """A locked, open data file. ``release`` gives everything back."""

    def __init__(self, file: File, key: _Key) -> None:
        self.file = file
        self._key: Optional[_Key] = key

    def release(self, abandon: bool = False) -> None:
        """Unlock and close; ``abandon``: in a forked child, whose parent keeps its lock."""
        key, self._key = self._key, None
        try:
            self.file.close(abandon)
        finally:
            if key is not None and not abandon:
                _claims.give(key)


def acquire(layer: FileLayer, path: str, exclusive: bool, timeout: float) -> Claim:
    """Open the data file and lock it, for writing or shared; tries for ``timeout`` seconds.

    The file locked is the one that has the name: a rename meanwhile is noticed. LockedError, OSError.
    """
    deadline = time.monotonic() + timeout
    pause = _PAUSE
    while True:
        try:
            claim = _try(layer, path, exclusive)
        except LockedError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST)
        else:
            if claim is not None:
                return claim


def _try(layer: FileLayer, path: str, exclusive: bool) -> Optional[Claim]:
    """None: the name went to another file while this one was being locked."""
    file = _opened(layer, path, exclusive)
    try:
        identity = file.identity()
        key = _key(layer, path, identity)
        if not _claims.take(key, exclusive):
            raise LockedError(
                f"{path} is already open in this process (pid {os.getpid()})",
                pid=os.getpid(),
                hint="use that handle, close it first, or wait with timeout=",
            )
    except BaseException:
        file.close()
        raise
    claim = Claim(file, key)
    try:
        if not file.lock(exclusive):
            raise _locked(file, path)
        if identity is None or layer.identity(path) == identity:
            return claim
        if not layer.exists(path):
            raise failure(errno.ENOENT, path, "The file was removed while it was being opened")
    except BaseException:
        claim.release()
        raise
    claim.release()
    return None


def _opened(layer: FileLayer, path: str, exclusive: bool) -> File:
    try:
        return layer.open(path, "w" if exclusive else "r")
    except OSError as error:
        if exclusive and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise failure(error.errno, path, f"{error.strerror}; to read it, open it with read_only=True") from error
        raise


def _locked(file: File, path: str) -> LockedError:
    pid: Optional[int] = None
    try:
        pid = read_holder(file)
    except OSError:
        pass  # a lock that forbids reading; the name of the holder is only for the message
    told = "" if pid is None else f" by process {pid}"
    return LockedError(
        f"{path} is locked{told}: it is open for writing there, or for reading",
        pid=pid,
        hint="close it there, or wait with timeout=; its snapshots can be read meanwhile: read_only=True, snapshot=",
    )


def on_disk(layer: FileLayer) -> bool:
    """Whether the layer's files are the operating system's."""
    return isinstance(_innermost(layer), DiskLayer)


def _innermost(layer: FileLayer) -> object:
    inner: object = layer
    while True:  # a layer around another one has that one's files
        below = getattr(inner, "inner", None)
        if below is None:
            return inner
        inner = below


def _key(layer: FileLayer, path: str, identity: Optional[tuple[int, int]]) -> _Key:
    space = None if on_disk(layer) else _innermost(layer)
    return (space, os.path.abspath(path) if identity is None else identity)


# -- fork ------------------------------------------------------------------
class Forkable(Protocol):
    """What must not go on in a forked child."""

    def forked(self) -> None:
        """Called in the child: forget everything without touching what the parent shares."""


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()


def guard_fork(store: Forkable) -> None:
    """Have ``store.forked()`` called in every child that is forked while the store lives."""
    _alive.add(store)


def _after_fork() -> None:
    global _claims
    _claims = _Claims()  # another thread of the parent may have had its lock
    for store in list(_alive):
        store.forked()
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
