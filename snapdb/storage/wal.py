"""The write-ahead log's two files: which epoch is where, room in them, and when they are put on stable storage.

The kernel's ``Log`` makes the frames and writes them; it asks here for room, reports a write that failed, and calls
``settle`` after a change where the durability level wants that. All that ends on stable storage does so under one lock,
because the flusher's thread does it too.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import weakref
import zlib
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Protocol

from ..errors import ClosedError, DurabilityError, StorageError
from ..step import insist
from .layer import File, FileLayer
from .superblock import MOST

if TYPE_CHECKING:
    from .seals import Cipher

__all__ = ["COMMIT", "HEADER", "Wal", "WalHeader", "refused", "wal_path"]

COMMIT = 7  # the kind of the frame that ends a transaction
HEADER = 64  # bytes of a log file's header; the first frame is behind it
LAST = 2

_PAGE = 4096
_LEAST_STEP, _LARGEST_STEP = 1 << 16, 1 << 22  # of preallocation
_HELD = 1 << 20  # bytes held in memory at durability "none"
_DELAY = 0.1  # seconds from the first unsynced write to its flush at durability "normal", where there are no threads
_PAUSE = 0.06  # seconds that the flusher waits: the flush itself takes some of the 100 ms too
_ZEROS = bytes(1 << 16)
_SPARE = 1 << 12  # bytes of room that other threads may take before the one who asked goes on
_FIELDS = struct.Struct("<4sHH16sQQI16s")
_CRC = struct.Struct("<I")

Mark = tuple[int, int, int]


def wal_path(path: str, epoch: int) -> str:
    """The log file of an epoch: the data file's whole name and an ending."""
    return f"{path}-wal{epoch & 1}"


def refused(error: OSError, what: str, hint: Optional[str] = None) -> StorageError:
    """The StorageError for an OSError; it has the same ``errno``."""
    problem = StorageError(f"{what}: {error.strerror or error}", hint=hint)
    problem.errno, problem.strerror, problem.filename = error.errno, error.strerror, error.filename
    return problem


class WalHeader(NamedTuple):
    """The start of a log file. ``first``: LSN of its first frame, ``link``: CRC field of the frame before that."""

    uuid: bytes
    epoch: int
    first: int
    link: int
    salt: bytes

    def encode(self) -> bytes:
        """The 64 bytes."""
        body = _FIELDS.pack(b"SNWL", 1, 0, self.uuid, self.epoch, self.first, self.link, self.salt)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> Optional[WalHeader]:
        """The header in these bytes, None where they do not verify."""
        if len(data) < HEADER or data[:4] != b"SNWL" or zlib.crc32(data[:60]) != _CRC.unpack_from(data, 60)[0]:
            return None
        _, version, _, *fields = _FIELDS.unpack_from(data)
        header = cls(*fields)
        return header if version == 1 and max(header.epoch, header.first) <= MOST else None


class Owner(Protocol):
    """What a log needs from its store."""

    synced: Optional[Callable[[float], None]]  # told how long each flush took, in seconds

    def usable(self) -> None:
        """Raise where nothing may be written any more."""

    def first_write(self) -> None:
        """Make the files and start the log."""

    def sync_data(self) -> None:
        """Put the data file on stable storage. OSError."""

    def poison(self, error: BaseException) -> DurabilityError:
        """Nothing is written or promised from here on; returns what to raise."""
        ...

    def long(self) -> None:
        """The log is past its limit: a checkpoint is due."""

    def alone(self) -> AbstractContextManager[Any]:
        """Nobody else makes frames meanwhile."""
        ...


class Wal:
    """The log of an open database. ``data_waits``: extents are written that frames refer to and that are not synced.
    ``cipher``: of an encrypted one.
    """

    def __init__(
        self,
        layer: FileLayer,
        path: str,
        kernel: Any,
        durability: str,
        limit: int,
        owner: Owner,
        lsn: int,
        crc: int,
        cipher: Optional[Cipher] = None,
    ) -> None:
        self.layer = layer
        self.path = path
        self.kernel = kernel
        self.durability = durability
        self.limit = limit
        self.data_waits = False
        self.lock = threading.RLock()  # orders what goes to stable storage, and the switch of epochs
        self.started = False  # the files are there and an epoch runs
        self.ended = False  # closed, with all that was logged on stable storage
        self.epoch = -1
        self._owner: Owner = weakref.proxy(owner)
        self._due = limit  # at which position a checkpoint is
        self._flush_at = _HELD  # at which position held frames are written, at durability "none"
        self._files: dict[int, File] = {}
        self._base = lsn  # frames up to here are in a file, whatever is held
        self._mark: Optional[Mark] = None  # where the transaction began
        self._flushing = False  # the flusher's thread runs
        self._unsynced_since: Optional[float] = None  # where there are no threads
        self._wake = threading.Event()
        # the log must not keep this object alive: a handle that is dropped gives back lock and descriptors at once
        call = _weak(self)
        self.log = kernel.Log(call("_write"), call("_room"), call("_failed"), call("_settle"))
        if cipher is not None:
            from .sealed import SealedLog

            self.log = SealedLog(self.log, cipher, call("_room"))
        self.log.start(bytes(16), 0, lsn, crc, 0)
        self.log.durable_lsn = lsn
        self._idle()

    def _idle(self) -> None:
        """The log's switches as they are outside a transaction. Attention does no harm where the flusher runs."""
        self.log.inner = False
        self.log.hold = self.durability == "none"
        self.log.attention = self.durability != "none"
        self._mark = None

    # -- files and epochs ------------------------------------------------------
    @property
    def file(self) -> File:
        """The file of the epoch that runs. ClosedError where it is closed."""
        try:
            return self._files[self.epoch & 1]
        except KeyError:
            raise ClosedError(f"the log of {self.path} is closed") from None

    def create(self, header: WalHeader) -> None:
        """Make both files, synced by content and name, and start this epoch. OSError: nothing is there that matters."""
        self.discard()
        self._sync_names()  # no log may outlive its database: whoever made or renamed that may have died before this
        older = WalHeader(header.uuid, header.epoch - 1, header.first, header.link, os.urandom(16))
        for one in (header, older):
            file = self._open(wal_path(self.path, one.epoch))
            self._files[one.epoch & 1] = file
            file.truncate(0)  # frames of an older life would not verify; this is for fsck and people
            file.allocate(0, _LEAST_STEP)
            file.pwrite(one.encode(), 0)
        for file in self._files.values():
            self._sync(file)
        self._sync_names()

    def _open(self, path: str) -> File:
        return self.layer.open(path, "w" if self.layer.exists(path) else "x")

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            raise self._owner.poison(error) from error

    def _sync_names(self) -> None:
        try:
            self.layer.sync_dir(self.path)
        except OSError as error:
            raise self._owner.poison(error) from error

    def start(self, header: WalHeader) -> None:
        """Frames go to this epoch from here on; everything before is on stable storage."""
        with self.lock:
            self.epoch = header.epoch
            self.started = True
            room, fd = self.file.size(), self.file.fileno()
            self.log.start(header.salt, header.epoch, header.first - 1, header.link, room, fd)
            self._base = self.log.durable_lsn = header.first - 1
            self._unsynced_since = None
            self._due, self._flush_at = self.limit, self.log.written + _HELD
            self._set_threshold()

    def switch(self, header: WalHeader) -> None:
        """Overwrite the older file's header and start the epoch there. OSError: nothing may be logged any more."""
        with self.lock:
            file = self._files[header.epoch & 1]
            if file.size() > 2 * max(self.limit, _LARGEST_STEP):
                file.truncate(max(self.limit, _LARGEST_STEP))  # one large transaction need not cost space for ever
            file.pwrite(header.encode(), 0)
            self.start(header)

    def stop(self) -> None:
        """No epoch runs; the next frame asks for a first write."""
        with self.lock:
            self.started = False
            self.log.stop()

    def remove(self) -> None:
        """Close the files and remove them, names synced. OSError: some are left, which harms nothing."""
        self.close()
        for epoch in (0, 1):
            try:
                self.layer.unlink(wal_path(self.path, epoch))
            except FileNotFoundError:
                pass
        self.layer.sync_dir(self.path)

    def discard(self) -> None:
        """Close files that could not all be made, or of which nothing came."""
        self._close_files(False)

    def close(self, abandon: bool = False) -> None:
        """Close the files as they are. ``abandon``: in a forked child, where threads that are gone may hold locks."""
        self._wake.set()
        if abandon:
            self._close_files(True)
            return
        with self.lock:
            self._close_files(False)

    def _close_files(self, abandon: bool) -> None:
        self.started = False
        self.log.stop()  # it has a bare descriptor, whose number may soon be another file's
        files, self._files = list(self._files.values()), {}
        for file in files:
            try:
                file.close(abandon)
            except OSError:
                pass  # everything that matters was synced before, or is given up

    @property
    def bytes(self) -> int:
        """The size of both files."""
        return sum(file.size() for file in self._files.values())

    # -- what the kernel's log calls -------------------------------------------
    def _write(self, data: Any, offset: int) -> None:
        self.file.pwrite(data, offset)

    def _room(self, end: int) -> None:
        """Room up to ``end``: the first write of all makes the files, later ones grow the file in steps.

        Several threads may come at once: who waited finds the room that another one made, and never makes it less.
        """
        self._owner.usable()  # in a forked child the lock may be that of a thread that is not there
        with self.lock:
            self._owner.usable()
            if not self.started:
                self._owner.first_write()
            elif max(end, self.log.position) + _SPARE > self.log.limit:
                self._grow(max(end, self.log.position))

    def _grow(self, end: int) -> None:
        limit = self.log.limit
        step = min(max(limit, _LEAST_STEP), _LARGEST_STEP)
        needed = max(_round(end), limit)
        for target in sorted({max(_round(limit + step), needed), needed}, reverse=True):
            try:
                if target > limit:
                    self.file.allocate(limit, target - limit)
            except OSError as error:
                problem = error
            else:
                self.log.limit = target
                return
        raise refused(problem, f"no room in the log of {self.path}, nothing was written") from problem

    def _failed(self, error: OSError) -> None:
        """A write failed: whatever part of it is in the file must not be found there."""
        with self.lock:
            self._insist(partial(self._erase, self.log.written, self.log.limit))
        raise refused(error, f"the log of {self.path} cannot be written, nothing of this write is kept") from error

    def _erase(self, begin: int, end: int) -> None:
        """Zeros over frames that do not count, on stable storage: they would be replayed. Failing that, poison."""
        try:
            for at in range(begin, end, len(_ZEROS)):
                self.file.pwrite(_ZEROS[: end - at], at)
            self.file.sync()
        except OSError as error:
            raise self._owner.poison(error) from error

    def _settle(self) -> None:
        self.settle()

    # -- stable storage --------------------------------------------------------
    def settle(self) -> None:
        """After a change: what the level says, and a checkpoint where the log is long. Nothing in a transaction."""
        if self.log.inner:
            return
        try:
            self._settle_level()
        except ClosedError:
            if not self.ended:  # else the change was in what the close put on stable storage
                raise

    def _settle_level(self) -> None:
        log = self.log
        if self.durability == "full":
            self.sync()
        elif self.durability == "normal":
            self._flush_soon()
        elif log.position >= self._flush_at:
            self._flush_held()
        if log.position > self._due:
            self._long()

    def show(self) -> None:
        """Give the system what is held: other processes see it then."""
        self._flush_held()

    def _flush_held(self) -> None:
        """Give the system what was held. The change that led here is done: a refusal is no error of its."""
        with self._owner.alone():
            self._owner.usable()
            try:
                self.log.flush()
            except StorageError as error:
                self._warn("the log of %s is kept in memory: %s", error)
                self._flush_at = self.log.position + _HELD
            else:
                self._flush_at = self.log.written + _HELD
            self._set_threshold()

    def _warn(self, text: str, error: BaseException) -> None:
        import logging  # not at the top: it is slow to load

        logging.getLogger("snapdb").warning(text, self.path, error)

    def _long(self) -> None:
        problem: Optional[StorageError] = None
        try:
            self._owner.long()
        except StorageError as error:
            problem = error
        log = self.log
        if log.position > self._due:  # the write itself is done and logged; try again when there is more to gain
            self._due = log.position + max(self.limit // 4, _HELD)
            self._set_threshold()
            if problem is not None:
                self._warn("the checkpoint of %s is put off: %s", problem)

    def _set_threshold(self) -> None:
        """At which position the log calls ``settle`` by itself."""
        self.log.threshold = min(self._due, self._flush_at) if self.durability == "none" else self._due

    def sync(self) -> None:
        """All that was logged, but for a running transaction, is on stable storage. DurabilityError, StorageError."""
        with self.lock:
            self._owner.usable()
            if not self.started:
                return
            if self.log.hold and not self.log.inner:
                self.log.flush()
                self._flush_at = self.log.written + _HELD
                self._set_threshold()
            self._force()

    def _written_lsn(self) -> int:
        """The last frame that is in a file."""
        lsn, _, position = self.log.mark()
        return int(lsn) if self.log.written >= position else self._base

    def _force(self) -> None:
        """What is written is put on stable storage, extents before the frames that name them. The lock is held."""
        lsn = self._written_lsn()
        if lsn <= self.log.durable_lsn:
            return
        try:
            if self.data_waits:
                self.data_waits = False
                try:
                    self._owner.sync_data()
                except BaseException:
                    self.data_waits = True
                    raise
            begin = time.perf_counter()
            self.file.sync()
        except OSError as error:
            raise self._owner.poison(error) from error
        self.log.durable_lsn = lsn
        self._unsynced_since = None
        if self._owner.synced is not None:
            self._owner.synced(time.perf_counter() - begin)

    # -- "normal": within 100 ms -------------------------------------------------
    def _flush_soon(self) -> None:
        with self.lock:
            if self._written_lsn() <= self.log.durable_lsn:
                return
            if not self.layer.threads:
                self._flush_if_late()
                return
            self.log.attention = False
            if self._flushing:
                return
            self._flushing = True
            try:
                _start_flusher(self)
                return
            except BaseException as error:
                self._flushing, self.log.attention = False, True
                if not isinstance(error, RuntimeError):
                    raise
            self._force()  # no thread can be started: at the end of the interpreter

    def _flush_if_late(self) -> None:
        now = time.monotonic()
        if self._unsynced_since is None:
            self._unsynced_since = now
        elif now - self._unsynced_since >= _DELAY:
            self._force()

    def flusher_turn(self) -> bool:
        """Sync what is written; whether there is more already. Called by the flusher's thread."""
        with self.lock:
            try:
                if not self.started:
                    return self._flusher_ends()
                self._owner.usable()
                self._force()
                return not self._flusher_ends_idle()
            except (OSError, ReferenceError, RuntimeError):  # poisoned or closed: whoever writes next is told
                return self._flusher_ends()

    def _flusher_ends_idle(self) -> bool:
        """End where nothing is unsynced. Writers take no lock: they must be asked for their call before one looks."""
        self.log.attention = True
        if self._written_lsn() > self.log.durable_lsn:
            self.log.attention = False
            return False
        self._flushing = False
        return True

    def _flusher_ends(self) -> bool:
        self._flushing = False
        self.log.attention = True
        return False

    # -- transactions ------------------------------------------------------------
    def begin(self) -> None:
        """Frames are held from here on and are one transaction."""
        with self.lock:
            self._owner.usable()
            if self._mark is not None:
                raise RuntimeError("a transaction is running")
            log = self.log
            if log.written >= log.position:
                self._base = log.lsn
            self._mark = log.mark()
            log.hold = log.inner = True

    def commit(self, sync: bool) -> None:
        """The frames since ``begin`` are a transaction. Where that raises StorageError nothing of it is logged."""
        with self.lock:
            mark = self._mark
            if mark is None:
                raise RuntimeError("no transaction is running")
            try:
                self._owner.usable()
                if self.log.lsn != mark[0]:
                    self.log.append(COMMIT, b"", LAST)
                    if sync or self.durability != "none":
                        self.log.flush()
            except BaseException:
                self.rollback()
                raise
            self._idle()
            if sync:
                self._force()

    def rollback(self) -> None:
        """Forget the frames since ``begin``; nothing where no transaction is running."""
        with self.lock:
            mark = self._mark
            if mark is None:
                return
            try:
                self.rollback_to(mark)
            finally:
                self._idle()

    def rollback_to(self, mark: Mark) -> None:
        """Forget the frames made since ``mark``, in the file too. DurabilityError: they may still be there."""
        with self.lock:
            erase = partial(self._erase, mark[2], self.log.written)
            gone = self.log.rollback(mark)
            self._base = min(self._base, mark[0])
            if gone:
                self._insist(erase)
                self.log.durable_lsn = min(self.log.durable_lsn, mark[0])

    def _insist(self, erase: Callable[[], None]) -> None:
        """Frames that are forgotten must not stay in the file, whether there is memory or not."""
        try:
            insist(erase)
        except MemoryError as error:
            raise self._owner.poison(error) from error


def _round(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _weak(wal: Wal) -> Callable[[str], Callable[..., None]]:
    """Methods of a log by name, through a weak reference."""
    reference = weakref.ref(wal)

    def by_name(name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            there = reference()
            if there is None:
                raise ClosedError("the database is closed: its handle is gone")
            getattr(there, name)(*arguments)

        return call

    return by_name


def _start_flusher(wal: Wal) -> None:
    thread = threading.Thread(
        target=_flush_until_synced, args=(weakref.ref(wal), wal._wake), name="snapdb-flusher", daemon=True
    )
    thread.start()


def _flush_until_synced(reference: weakref.ref[Wal], wake: threading.Event) -> None:
    """The flusher's thread: it must not keep a dropped handle alive."""
    while True:
        wake.wait(_PAUSE)
        wal = reference()
        if wal is None or not wal.flusher_turn():
            return
        del wal
