"""Two file layers for tests: ``RecordingLayer`` keeps files in memory and logs what is done to them, ``FaultyLayer``
makes the n-th operation of another layer fail.
"""

from __future__ import annotations

import errno
import itertools
import os.path
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Union

from ..storage.layer import File, FileLayer, failure

__all__ = ["FaultyFile", "FaultyLayer", "Op", "Plan", "RecordingFile", "RecordingLayer"]

_devices = itertools.count(1)  # each layer is one: its files are no other layer's


class Op(NamedTuple):
    """One operation on a RecordingLayer, in the order in which they took effect.

    ``kind``: what was done, and then which of the other fields count:

    * ``"write"`` - ``offset``, ``data``; ``"truncate"`` - ``size``; ``"allocate"`` - ``offset``, ``size``;
    * ``"sync"`` - everything done to this file before is on stable storage;
    * ``"sync_failed"`` - (a FaultyLayer's doing) the unsynced bytes stay readable, and no later sync writes them;
    * ``"lost"`` - (the same) the unsynced bytes are gone at once; ``data`` is what the file has now;
    * ``"create"``, ``"unlink"``; ``"rename"`` - ``path`` became ``target``;
    * ``"sync_dir"`` - ``path`` is the directory: its creates, renames and unlinks before are on stable storage;
    * ``"mark"`` - ``data`` is the object given to ``mark()``.

    ``path`` is the name the file was opened by, ``file`` its number, which a rename does not change (0: no file).
    """

    kind: str
    path: str = ""
    file: int = 0
    offset: int = 0
    data: Any = None
    size: int = 0
    target: str = ""


class _Node:
    """A file's bytes, whatever its name. ``bytes`` until the first change, so that opening an image copies nothing."""

    __slots__ = ("data", "exclusive", "mapped", "number", "shadows", "shared")

    def __init__(self, number: int, data: Union[bytes, bytearray]) -> None:
        self.number = number
        self.data = data
        self.mapped = 0  # the most that was ever mapped
        self.shadows: list[bytearray] = []  # older arrays that maps still look at
        self.exclusive: Optional[RecordingFile] = None
        self.shared: set[RecordingFile] = set()

    def writable(self) -> bytearray:
        data = self.data
        if isinstance(data, bytes):
            data = self.data = bytearray(data)
        return data

    def write(self, chunk: bytes, offset: int) -> None:
        data = self.writable()
        end = offset + len(chunk)
        if end > len(data):
            data = self.resize(end)
        data[offset:end] = chunk
        for shadow in self.shadows:
            if offset < len(shadow):
                part = chunk[: len(shadow) - offset]
                shadow[offset : offset + len(part)] = part

    def resize(self, size: int) -> bytearray:
        """Zeros where it grows. An array that a map looks at cannot change its size; a longer copy takes its place."""
        data = self.writable()
        if self.shadows:
            self.shadows = [shadow for shadow in self.shadows if _exported(shadow)]
        try:
            if size < len(data):
                del data[size:]
            else:
                data.extend(bytes(size - len(data)))
        except BufferError:
            if size < min(self.mapped, len(data)):
                raise failure(errno.EBUSY, None, "Mapped there: this can kill readers") from None
            self.shadows.append(data)
            data = self.data = data[:size] + bytes(max(0, size - len(data)))
        return data


def _exported(data: bytearray) -> bool:
    """Whether somebody holds a view of an array that is not otherwise needed."""
    try:
        data.append(0)
    except BufferError:
        return True
    return False


class RecordingFile(File):
    """An open file of a RecordingLayer."""

    def __init__(self, path: str, node: _Node, layer: RecordingLayer, writable: bool) -> None:
        self.path = path
        self._node: Optional[_Node] = node
        self._layer = layer
        self._log = layer.log
        self._writable = writable

    def _there(self, writing: bool = False) -> _Node:
        node = self._node
        if node is None or (writing and not self._writable):
            raise failure(errno.EBADF, self.path)
        return node

    def pread(self, size: int, offset: int) -> bytes:
        node = self._node
        if node is None:
            raise failure(errno.EBADF, self.path)
        if offset < 0 or size < 0:
            raise failure(errno.EINVAL, self.path)
        return bytes(node.data[offset : offset + size])

    def pwrite(self, data: Any, offset: int) -> None:
        node = self._there(True)
        if offset < 0:
            raise failure(errno.EINVAL, self.path)
        chunk = data if type(data) is bytes else memoryview(data).tobytes()
        if not chunk:
            return
        layer = self._layer
        if layer.space is not None:
            layer.take(node, offset + len(chunk))
        node.write(chunk, offset)
        if layer.record:
            self._log.append(Op("write", self.path, node.number, offset, chunk, len(chunk)))

    def size(self) -> int:
        return len(self._there().data)

    def sync(self) -> None:
        node = self._there()
        if self._layer.record:
            self._log.append(Op("sync", self.path, node.number))

    def truncate(self, size: int) -> None:
        node = self._there(True)
        if size < 0:
            raise failure(errno.EINVAL, self.path)
        node.resize(size)
        if self._layer.record:
            self._log.append(Op("truncate", self.path, node.number, 0, None, size))

    def allocate(self, offset: int, size: int) -> None:
        node = self._there(True)
        if size <= 0:
            return
        if offset < 0:
            raise failure(errno.EINVAL, self.path)
        self._layer.take(node, offset + size)
        if offset + size > len(node.data):
            node.resize(offset + size)
        if self._layer.record:
            self._log.append(Op("allocate", self.path, node.number, offset, None, size))

    def map(self, size: int) -> Optional[memoryview]:
        node = self._there()
        if size > len(node.data):
            raise failure(errno.EINVAL, self.path, "The file is shorter than the map")
        if not self._layer.maps:
            return None
        node.mapped = max(node.mapped, size)
        return memoryview(node.writable()).toreadonly()[: max(size, 0)]

    def lock(self, exclusive: bool) -> bool:
        node = self._there()
        self.unlock()
        if node.exclusive is not None or (exclusive and node.shared):
            return False
        if exclusive:
            node.exclusive = self
        else:
            node.shared.add(self)
        return True

    def unlock(self) -> None:
        node = self._node
        if node is not None:
            if node.exclusive is self:
                node.exclusive = None
            node.shared.discard(self)

    def identity(self) -> Optional[tuple[int, int]]:
        return self._layer.device, self._there().number

    def fileno(self) -> int:
        return -1

    def close(self, abandon: bool = False) -> None:
        if not abandon:
            self.unlock()
        self._node = None

    def lose(self) -> None:
        """What is not synced is gone: zeros, or the bytes before, in a file that keeps its length.

        Linux may leave that of a file whose flush failed: the pages count as written and can be dropped. ValueError
        where nothing is recorded.
        """
        node = self._there()
        if not self._layer.record:
            raise ValueError("only a layer that records knows what was synced")
        kept = self._layer.synced(node.number)[: len(node.data)]
        data = kept + bytes(len(node.data) - len(kept))
        node.write(data, 0)
        self._log.append(Op("lost", self.path, node.number, 0, data, len(data)))

    def fail_sync(self) -> None:
        """Record that what is not synced will not become so, although it can still be read."""
        if self._layer.record:
            self._log.append(Op("sync_failed", self.path, self._there().number))


class RecordingLayer(FileLayer):
    """Files in memory. ``log`` has an ``Op`` for everything that changes one; ``files`` says what is there at first.

    ``record=False`` keeps no log. With ``maps``, files can be mapped: a map shows later writes, and shortening a file
    below a live map is an OSError (EBUSY) here, where a real system would kill the reader. ``space``: bytes that all
    files together may have before a write is refused with ENOSPC. Locks hold within the layer. One writer at a time.
    """

    threads = True
    locks = True

    def __init__(
        self,
        files: Optional[Mapping[str, bytes]] = None,
        *,
        record: bool = True,
        maps: bool = False,
        space: Optional[int] = None,
    ) -> None:
        self.log: list[Op] = []
        self.device = next(_devices)
        self.record = record
        self.maps = maps
        self.space = space
        self._names: dict[str, _Node] = {}
        self._last = 0
        if files:
            for path, data in files.items():
                self._last += 1
                self._names[path] = _Node(self._last, bytes(data))
        self._first = self.numbered() if record else {}

    @classmethod
    def from_contents(cls, files: Mapping[str, bytes], **options: Any) -> RecordingLayer:
        """A layer that begins with these files, all of them on stable storage; options as for the class."""
        return cls(files, **options)

    def contents(self) -> dict[str, bytes]:
        """The present bytes of every file by name."""
        return {path: bytes(node.data) for path, node in self._names.items()}

    def numbers(self) -> dict[str, int]:
        """The number that ``Op.file`` has for each file, by the name it has now."""
        return {path: node.number for path, node in self._names.items()}

    def numbered(self) -> dict[int, bytes]:
        """The present bytes of every file by number; ``from_contents`` counts from 1 in the order of its argument."""
        return {node.number: bytes(node.data) for node in self._names.values()}

    def mark(self, value: object) -> None:
        """Put an object into the log, for instance what was acknowledged up to here."""
        if self.record:
            self.log.append(Op("mark", data=value))

    def synced(self, number: int) -> bytes:
        """The bytes of a file as of its last sync; from the log, so it takes the time of replaying it."""
        node = _Node(number, self._first.get(number, b""))
        waiting: list[Op] = []
        for op in self.log:
            if op.file != number:
                continue
            if op.kind == "sync":
                for before in waiting:
                    apply(node, before)
                waiting = []
            elif op.kind in ("sync_failed", "lost"):
                # of what was written, only the length can still reach the disk
                waiting = [before._replace(kind="allocate") if before.kind == "write" else before for before in waiting]
            else:
                waiting.append(op)
        return bytes(node.data)

    def take(self, node: _Node, end: int) -> None:
        """Refuse to make a file ``end`` bytes long where ``space`` is not enough."""
        if self.space is not None and end > len(node.data):
            nodes = {id(it): len(it.data) for it in self._names.values()}
            if sum(nodes.values()) + end - len(node.data) > self.space:
                raise failure(errno.ENOSPC)

    def promises(self) -> str:
        return "Nothing outlives the process; everything else is kept exactly."

    def open(self, path: str, mode: str) -> RecordingFile:
        node = self._names.get(path)
        if mode == "x":
            if node is not None:
                raise failure(errno.EEXIST, path)
            self._last += 1
            node = self._names[path] = _Node(self._last, b"")
            if self.record:
                self.log.append(Op("create", path, node.number))
        elif mode not in ("r", "w"):
            raise KeyError(mode)
        elif node is None:
            raise failure(errno.ENOENT, path)
        return RecordingFile(path, node, self, mode != "r")

    def exists(self, path: str) -> bool:
        return path in self._names

    def _find(self, path: str) -> _Node:
        try:
            return self._names[path]
        except KeyError:
            raise failure(errno.ENOENT, path) from None

    def size(self, path: str) -> int:
        return len(self._find(path).data)

    def identity(self, path: str) -> Optional[tuple[int, int]]:
        node = self._names.get(path)
        return None if node is None else (self.device, node.number)

    def rename(self, source: str, target: str, replace: bool) -> None:
        node = self._find(source)
        if not replace and target in self._names:
            raise failure(errno.EEXIST, target)
        del self._names[source]
        self._names[target] = node
        if self.record:
            self.log.append(Op("rename", source, node.number, target=target))

    def unlink(self, path: str) -> None:
        node = self._find(path)
        del self._names[path]
        if self.record:
            self.log.append(Op("unlink", path, node.number))

    def sync_dir(self, path: str) -> None:
        if self.record:
            self.log.append(Op("sync_dir", os.path.dirname(path)))

    def is_remote(self, path: str) -> bool:
        return False


def apply(node: _Node, op: Op) -> None:
    """Do to a file what an operation did; nothing for those that change no bytes."""
    if op.kind == "write":
        node.write(op.data, op.offset)
    elif op.kind == "truncate":
        node.resize(op.size)
    elif op.kind == "allocate" and op.offset + op.size > len(node.data):
        node.resize(op.offset + op.size)


# -- failing ---------------------------------------------------------------
class Plan(NamedTuple):
    """Which operations fail, and how.

    ``at``: the first that fails, counted from 1 (0: none, count only). ``code``: its errno. ``short``: half of what a
    write or an allocation was to do is done. ``lost``: where a sync fails, the bytes that are not synced are gone; else
    they stay readable, and no later sync writes them (both as Linux does it). ``forever``: every later operation fails
    too. ``kinds``: count only these, None for all of open, create, write, truncate, allocate, sync, rename, unlink,
    sync_dir, lock, and with ``reads`` also read and map.
    """

    at: int
    code: int = errno.EIO
    short: bool = False
    lost: bool = False
    forever: bool = False
    kinds: Optional[frozenset[str]] = None
    reads: bool = False


class FaultyFile(File):
    """An open file of a FaultyLayer. A sync, read, write or map that fails leaves the file open and as it was."""

    def __init__(self, inner: File, layer: FaultyLayer) -> None:
        self.path = inner.path
        self.inner = inner
        self._layer = layer

    def pread(self, size: int, offset: int) -> bytes:
        self._layer.check("read", self.path)
        return self.inner.pread(size, offset)

    def pwrite(self, data: Any, offset: int) -> None:
        plan = self._layer.fault("write")
        if plan is None:
            self.inner.pwrite(data, offset)
            return
        if plan.short:
            view = memoryview(data).cast("B")
            self.inner.pwrite(view[: len(view) // 2], offset)
        raise failure(plan.code, self.path)

    def size(self) -> int:
        return self.inner.size()

    def sync(self) -> None:
        plan = self._layer.fault("sync")
        if plan is None:
            self.inner.sync()
            return
        if isinstance(self.inner, RecordingFile):
            if plan.lost:
                self.inner.lose()
            else:
                self.inner.fail_sync()
        raise failure(plan.code, self.path)

    def truncate(self, size: int) -> None:
        self._layer.check("truncate", self.path)
        self.inner.truncate(size)

    def allocate(self, offset: int, size: int) -> None:
        plan = self._layer.fault("allocate")
        if plan is None:
            self.inner.allocate(offset, size)
            return
        if plan.short:
            self.inner.allocate(offset, size // 2)
        raise failure(plan.code, self.path)

    def map(self, size: int) -> Optional[memoryview]:
        self._layer.check("map", self.path)
        return self.inner.map(size)

    def lock(self, exclusive: bool) -> bool:
        self._layer.check("lock", self.path)
        return self.inner.lock(exclusive)

    def unlock(self) -> None:
        self.inner.unlock()

    def identity(self) -> Optional[tuple[int, int]]:
        return self.inner.identity()

    def fileno(self) -> int:
        return -1

    def close(self, abandon: bool = False) -> None:
        self.inner.close(abandon)


class FaultyLayer(FileLayer):
    """Another layer, failing as ``plan`` says (None: not at all, which counts the operations of a run).

    ``operations``: how many were counted; ``trace``: their kinds, in order; ``failures``: how many failed. ``plan`` may
    be set at any time; the count goes on. Closing, unlocking and asking for names and sizes never fail.
    """

    def __init__(self, inner: FileLayer, plan: Optional[Plan] = None) -> None:
        self.inner = inner
        self.plan = plan
        self.operations = 0
        self.failures = 0
        self.trace: list[str] = []
        self.threads = inner.threads
        self.maps = inner.maps
        self.locks = inner.locks
        self._counting = threading.Lock()

    def fault(self, kind: str) -> Optional[Plan]:
        """Count an operation; the plan where it is to fail now."""
        plan = self.plan
        if plan is None or not plan.reads:
            if kind in ("read", "map"):
                return None
        if plan is not None and plan.kinds is not None and kind not in plan.kinds:
            return None
        with self._counting:
            self.operations += 1
            self.trace.append(kind)
            if plan is None or not 0 < plan.at <= self.operations or (self.operations > plan.at and not plan.forever):
                return None
            self.failures += 1
        return plan

    def check(self, kind: str, path: str) -> None:
        """Count an operation, and raise where it is to fail now."""
        plan = self.fault(kind)
        if plan is not None:
            raise failure(plan.code, path)

    def promises(self) -> str:
        return self.inner.promises()

    def open(self, path: str, mode: str) -> FaultyFile:
        self.check("create" if mode == "x" else "open", path)
        return FaultyFile(self.inner.open(path, mode), self)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def size(self, path: str) -> int:
        return self.inner.size(path)

    def identity(self, path: str) -> Optional[tuple[int, int]]:
        return self.inner.identity(path)

    def rename(self, source: str, target: str, replace: bool) -> None:
        self.check("rename", target)
        self.inner.rename(source, target, replace)

    def unlink(self, path: str) -> None:
        self.check("unlink", path)
        self.inner.unlink(path)

    def sync_dir(self, path: str) -> None:
        self.check("sync_dir", path)
        self.inner.sync_dir(path)

    def is_remote(self, path: str) -> bool:
        return self.inner.is_remote(path)
