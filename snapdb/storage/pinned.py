"""A snapshot read by a process that has no lock on the file, beside one that writes to it."""

from __future__ import annotations

import itertools
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from ..errors import ClosedError, CorruptionError, LockedError, NotFoundError, NotSupportedError, close_names, shorten
from . import pins
from .catalog import Tree
from .creation import resolved
from .extents import Extents
from .recovery import DROP, SNAPSHOT, State, recover
from .sealed import unlock
from .snapshots import Snapshot, decode_frame
from .sources import SnapshotSource
from .space import Space
from .store import moment
from .superblock import PAGE, PREAMBLE, StaticHeader, read_slots, read_static

if TYPE_CHECKING:
    from .crypto import Cipher
    from .layer import File, FileLayer
    from .store import Frame, Options

__all__ = ["PinnedStore"]

PATIENCE = 5.0  # seconds after which damage is not just a writer at work
_PAUSE, _LONGEST = 0.001, 0.05


class _File(NamedTuple):
    """The open data file, and how to read it."""

    layer: FileLayer
    path: str
    file: File
    static: StaticHeader
    cipher: Optional[Cipher]

    def extents(self, mapped: bool) -> Extents:
        """The extents of the file as long as it is now."""
        space = Space(max(PREAMBLE, self.file.size() // PAGE * PAGE))
        return Extents(self.file, space, self.static.uuid, mapped, self.cipher, inherits=False)

    @property
    def replaced(self) -> bool:
        """Whether the name is another file's by now."""
        identity = self.file.identity()
        return identity is not None and self.layer.identity(self.path) != identity


class _Held:
    """What a reader gives back: the file, then its pin, when nothing of the file's map is looked at any more."""

    def __init__(self, opened: _File, extents: Extents, pin: pins.Pin) -> None:
        self.extents = extents
        self._file: Optional[File] = opened.file
        self._give_back = partial(_give_back, opened.layer, opened.path, pin)

    @property
    def held(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def use(self, serial: int) -> int:
        """There is one user."""
        return serial

    def unuse(self, number: int) -> None:
        """It went."""
        self.release()

    def release(self, abandon: bool = False) -> None:
        """Close the file; again it does nothing. ``abandon``: in a forked child."""
        file, self._file = self._file, None
        if file is None:
            return
        viewed = [] if abandon else self.extents.viewed
        try:
            self.extents.close()
            file.close(abandon)
        finally:
            if viewed:
                _outlive(viewed, self._give_back)
            elif not abandon:
                self._give_back()


def _give_back(layer: FileLayer, path: str, pin: pins.Pin) -> None:
    pin.release()
    pins.tidy(layer, path)


def _outlive(windows: list[Any], give_back: Callable[[], None]) -> None:
    """Give a pin back with the last of these: a view of a map must never change."""
    last = len(windows) - 1
    gone = itertools.count()  # its next() is one step, wherever the views go
    for window in windows:
        weakref.finalize(window, _gone, gone, last, give_back).atexit = False


def _gone(gone: itertools.count[int], last: int, give_back: Callable[[], None]) -> None:
    if next(gone) == last:
        give_back()


class PinnedStore(SnapshotSource):
    """A snapshot and a pin on it, for as long as it is open. Others may write to the file meanwhile, and close it.

    It has what a table needs of a ``Store`` that is only read.
    """

    read_only = True
    unclean = started = False

    def __init__(self, opened: _File, held: _Held, record: Snapshot) -> None:
        super().__init__(held, record)
        self.static = opened.static
        self.cipher = opened.cipher
        self.generation = record.generation
        self.failed: Optional[BaseException] = None
        self.replay: list[Frame] = []
        self._opened = opened
        self._held = held

    @classmethod
    def open(
        cls,
        path: str,
        name: str,
        options: Options,
    ) -> PinnedStore:
        """Open a snapshot of a database that others may be writing to. Everything is given back where that fails.

        NotFoundError where there is no such snapshot, LockedError where it cannot be pinned now, StorageError where the
        pin's file cannot be made, WrongKeyError, CorruptionError, NotSupportedError, FileNotFoundError, OSError.
        """
        layer, path = options.layer, resolved(options.layer, path)
        if layer.is_remote(path):
            what = f"{path} is on a network file system, whose locks are not to be trusted"
            raise NotSupportedError(what, hint="copy it, or open it with read_only=True where nobody writes to it")
        while True:
            opened = _open(layer, path, options.key)
            try:
                with pins.Gate(layer, path, False, options.timeout):
                    if not opened.replaced:
                        return cls._pinned(opened, name, options)
            except BaseException:
                opened.file.close()
                raise
            opened.file.close()  # it was repaired in this moment

    @classmethod
    def _pinned(cls, opened: _File, name: str, options: Options) -> PinnedStore:
        """With the gate held: find the snapshot, pin it, read its root."""
        record = _find(opened, name, options.kernel)
        pin = pins.take(opened.layer, opened.path, record.serial)
        try:
            while True:
                extents = opened.extents(options.map and opened.layer.maps)
                try:
                    return cls(opened, _Held(opened, extents, pin), record)
                except CorruptionError:
                    # a writer that recovers copies pinned roots of which nothing proves that they were flushed
                    before, record = record, _find(opened, name, options.kernel)
                    if record.root == before.root:
                        raise
        except BaseException:
            pin.release()
            raise

    # -- what it is --------------------------------------------------------------
    @property
    def extents(self) -> Extents:
        """The extents of the file."""
        return self._held.extents

    def statistics(self) -> dict[str, Any]:
        """Figures of the file; of what is free only a writer knows."""
        self._alive()
        size = self._opened.file.size()
        return {
            "file_bytes": size,
            "wal_bytes": 0,
            "live_bytes": size - PREAMBLE,
            "free_bytes": 0,
            "last_checkpoint": moment(self.record.time),
            "generation": self.generation,
            "lsn": self.record.lsn,
            "durable_lsn": self.record.lsn,
        }

    def check(self, full: bool) -> list[dict[str, Any]]:
        """What is wrong with the snapshot: a dict each with ``kind``, ``where`` and ``message``. ``full``: every piece
        is read again.
        """
        self._alive()
        return list(_findings(Tree(self._opened.extents(False), self._root.top), self._root.entries, full))

    # -- the end -----------------------------------------------------------------
    def close(self) -> None:
        """The end. Views that were read stay valid, and the snapshot pinned until they are gone."""
        if self.failed is None:
            self.failed = ClosedError(self._reason)
        super().close()

    abandon = close

    def forked(self) -> None:
        """In a forked child: file and pin are the parent's."""
        if not self.closed:
            self.failed = ClosedError("it was opened before this process was forked")
            super().forked()


def _open(layer: FileLayer, path: str, key: Any) -> _File:
    file = layer.open(path, "r")
    try:
        static = read_static(file, path, sealed=True)
        return _File(layer, path, file, static, unlock(static, key, path))
    except BaseException:
        file.close()
        raise


# -- finding a snapshot beside a writer ----------------------------------------
def _find(opened: _File, name: str, kernel: Any) -> Snapshot:
    """The record of this name. The gate is held: a snapshot that is found stays. Where a checkpoint came meanwhile it
    looks again, whatever it found: the next one writes over the log that was being read, and what is read then may have
    the beginning of one epoch and the end of another one, without the drop of a snapshot that stood there.
    """
    until = time.monotonic() + PATIENCE
    pause = _PAUSE
    while True:
        begin = _generation(opened)
        problem: Optional[CorruptionError] = None
        state: Optional[State] = None
        try:
            state = recover(opened.layer, opened.path, opened.extents(False), opened.static.uuid, kernel, history=True)
        except CorruptionError as error:
            problem = error
        late = time.monotonic() >= until
        if state is not None:
            records = {record.name: record for record in _records(state, opened.cipher is not None)}
            if _generation(opened) == begin:
                if name in records:
                    return records[name]
                raise _missing(opened.path, name, list(records))
            if late:
                what = f"{opened.path}: one checkpoint follows on another one, so its snapshots cannot be read"
                raise LockedError(what, hint="try again")
        elif problem is not None:
            if late:
                raise problem
            time.sleep(pause)  # a writer is in the middle of something, or this is damage
            pause = min(2 * pause, _LONGEST)


def _generation(opened: _File) -> int:
    """The generation of the newest superblock, -1 where none verifies."""
    return max([block.generation for block in read_slots(opened.file, opened.static.uuid, opened.cipher)], default=-1)


def _records(state: State, sealed: bool) -> list[Snapshot]:
    """The snapshots: those of the root, and what the log says since."""
    records = {record.serial: record for record in state.root.snapshots}
    for frame in state.frames:
        if frame.kind == SNAPSHOT:
            record = decode_frame(frame.payload, sealed)
            records[record.serial] = record
        elif frame.kind == DROP:
            records.pop(int.from_bytes(frame.payload, "little"), None)
    return list(records.values())


def _missing(path: str, name: str, names: list[str]) -> NotFoundError:
    close = close_names(name, names)
    if close:
        hint = f"did you mean {' or '.join(map(shorten, close))}?"
    elif names:
        hint = f"there are {', '.join(map(shorten, names[-10:]))}"
    else:
        hint = "it has none: snapshot() makes one"
    return NotFoundError(f"{path} has no snapshot {shorten(name)}", hint=hint)


def _findings(tree: Tree, entries: int, full: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    extents, count = tree.extents, 0
    try:
        for key, entry in tree.items():
            count += 1
            for ref in [piece.ref for piece in entry.pieces if piece.ref is not None]:
                try:
                    extents.check(ref)
                    if full:
                        extents.read(ref)
                except CorruptionError as error:
                    found.append({"kind": "piece", "where": error.offset, "message": f"entry {key}: {error}"})
    except CorruptionError as error:
        return [*found, {"kind": "tree", "where": error.offset, "message": str(error)}]
    if count != entries:
        what = f"the tree has {count} entries, its root says {entries}"
        found.append({"kind": "tree", "where": None, "message": what})
    return found
