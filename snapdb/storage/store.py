"""The store: entries under keys in one file, and a log of what changed since. It ties ``storage`` together.

Two superblock slots say which root is the database. Between checkpoints the log's file of the running epoch has what
changed; the one before stays until the next checkpoint, so that a damaged superblock can be bridged. A superblock goes
to the slot that is not the newest, and only after a flush of everything it reaches.

Where no log is needed (after creation, a recovery or a clean close) both slots carry the same root and the clean flag.
The first write leaves that state: both log files first, then a superblock without the flag.
"""

from __future__ import annotations

import datetime
import os
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from ..errors import (
    ClosedError,
    DurabilityError,
    InternalError,
    NotSupportedError,
    ReadOnlyError,
    StorageError,
    WrongKeyError,
)
from ..pieces import Entry, Ref
from ..step import insist
from . import creation, lock
from .archive import Archive, Restoring
from .catalog import Root, Tree
from .checkpoint import Applied, Draft, Places, Written, build_space, places, plain, root_place
from .extents import Extents
from .layer import File, FileLayer
from .pins import tidy
from .recovery import Frame, LogFile, State, cut_torn_page, read_logs, recover
from .sealed import OVERHEAD, unlock
from .shrinking import shrink, trim
from .snapshots import History
from .space import Space
from .superblock import (
    NO_TAG,
    PAGE,
    PREAMBLE,
    StaticHeader,
    Superblock,
    equalize,
    read_slots,
    read_static,
    replace_static,
    write_holder,
    write_slot,
)
from .wal import Mark, Wal, WalHeader, refused, wal_path

if TYPE_CHECKING:
    from .crypto import Cipher

__all__ = ["Frame", "Options", "Restoring", "Store", "moment"]

WAL_LIMIT = 16 << 20  # bytes of log after which a checkpoint is due
_TRIES = 20  # to say that it failed, where there is no memory
WAITING_SHARE = 64  # a checkpoint first frees what waits, where that is one byte in so many of the file


class Options(NamedTuple):
    """How a store is opened. ``kernel``: the module with ``Log``, ``scan`` and ``stray``; ``timeout``: seconds to wait
    for the lock; ``map``: read through a map where there is one; ``wal_limit``: bytes after which ``full`` is called;
    ``key``: what was given for an encrypted database, or ``crypto.Keys`` made of it: only those make one;
    ``patience``: seconds to wait for readers that are just opening snapshots, at least one.
    """

    layer: FileLayer
    kernel: Any
    durability: str = "normal"
    read_only: bool = False
    timeout: float = 0.0
    map: bool = True
    wal_limit: int = WAL_LIMIT
    key: Any = None
    patience: float = 0.0


def _nothing(*_: Any) -> None:
    return None


class _Held:
    """What a store must give back, whoever forgets it. The file stays for its ``uses``: readers, by number, and the
    snapshot that each of them reads.
    """

    def __init__(self, claim: lock.Claim, extents: Extents) -> None:
        self.claim: Optional[lock.Claim] = claim
        self.extents = extents
        self.wal: Optional[Wal] = None
        self.uses: dict[int, int] = {}
        self._numbers = count()
        self.over = False

    @property
    def held(self) -> bool:
        """Whether the file is open."""
        return self.claim is not None

    def use(self, serial: int) -> int:
        """The file is to stay open for a reader of this snapshot; its number."""
        number = next(self._numbers)
        self.uses[number] = serial
        return number

    def unuse(self, number: int) -> None:
        """That reader went. A finalizer may say so in the middle of anything."""
        self.uses.pop(number, None)
        if self.over and not self.uses:
            self.release()

    def release(self, abandon: bool = False) -> None:
        """Close everything as it is, the file with its last user. ``abandon``: in a forked child."""
        self.over = True
        claim: Optional[lock.Claim] = None
        if abandon or not self.uses:
            claim, self.claim = self.claim, None
        wal, self.wal = self.wal, None
        try:
            if claim is not None:
                self.extents.close()  # what is still looked at must be known to whoever opens the file next
            if wal is not None:
                wal.close(abandon)
        finally:
            if claim is not None:
                claim.release(abandon)


def _dropped(held: _Held, path: str) -> None:
    """A store went without ``close()``: its log stays, the next opening recovers."""
    held.release()
    warnings.warn(f"the database {path!r} was not closed", ResourceWarning, stacklevel=2)


class Store(Archive):
    """An open database file.

    ``header``: the table's, as of the last checkpoint; ``replay``: frames that are not in it yet, for the caller to
    carry out and then to ``checkpoint()``; ``unclean``: that checkpoint is needed before anything is written.
    ``failed``: why nothing can be done any more. ``full()`` is called where the log is past its limit,
    ``broken(error)`` where stable storage failed, ``alone()`` gives a block in which nobody else writes.
    ``bulk_bytes``: written by ``write`` since the last checkpoint. ``generation``: that of the newest superblock.
    ``history``: the snapshots.
    """

    def __init__(
        self,
        path: str,
        options: Options,
        claim: lock.Claim,
        static: StaticHeader,
        mapped: bool,
        cipher: Optional[Cipher] = None,
    ) -> None:
        self.path = path
        self.read_only = options.read_only
        self.failed: Optional[BaseException] = None
        self._told = False
        self._unsaid = DurabilityError(f"{path} could not be put on stable storage")  # if there is no memory for more
        self.full: Callable[[], None] = _nothing
        self.broken: Callable[[BaseException], None] = _nothing
        self.synced: Optional[Callable[[float], None]] = None  # told how long each flush of the log took
        self.alone: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.bulk_bytes = 0
        self.layer = options.layer
        self.static = static
        self.cipher = cipher  # None: it is a plain database
        self.file: File = claim.file
        # everything in the file can be read; what is free is found out when space is first needed
        length = max(PREAMBLE, self.file.size() // PAGE * PAGE)
        self.extents = Extents(self.file, Space(length), static.uuid, mapped, cipher)
        self._options = options
        self._held = _Held(claim, self.extents)
        self._spaced = False
        self.bulk: Places = set()  # extents that frames of the running epoch name
        self._finalizer: Any = None

    # -- making and opening ------------------------------------------------------
    @classmethod
    def create(cls, path: str, header: dict[str, Any], options: Options) -> None:
        """Make a database with this header and no entries: whole, or not at all. FileExistsError where something is at
        the path or its log is beside it (an empty file does not count), StorageError, LockedError.
        """
        creation.create(options.layer, path, header, options.timeout, options.key)

    @classmethod
    def open(cls, path: str, options: Options, claim: Optional[lock.Claim] = None) -> Store:
        """Open a database; everything is released where that fails, the ``claim`` too that the caller may have on it.
        LockedError, CorruptionError, NotSupportedError, WrongKeyError, ImportError where it is encrypted and the
        package is missing, DurabilityError, OSError.
        """
        layer, path = options.layer, creation.resolved(options.layer, path)
        if claim is None:
            claim = lock.acquire(layer, path, not options.read_only, options.timeout)
        held: Any = claim
        try:
            static = read_static(claim.file, path, sealed=True)
            cipher = unlock(static, options.key, path)
            if static.must_not_write and not options.read_only:
                raise NotSupportedError(f"{path} was written by a newer SnapDB; open it with read_only=True")
            mapped = options.map and layer.maps and not layer.is_remote(path)
            store = cls(path, options, claim, static, mapped, cipher)
            held = store._held
            store._begin(recover(layer, path, store.extents, static.uuid, options.kernel))
        except BaseException:
            held.release()
            raise
        store._finalizer = weakref.finalize(store, _dropped, store._held, path)
        store._finalizer.atexit = False
        lock.guard_fork(store)
        return store

    def _begin(self, state: State) -> None:
        self.block = state.block
        self.root = state.root
        self.tree = Tree(self.extents, state.root.top)
        self.history = History(self.extents, state.root.snapshots, state.root.serial)
        self._folded_lsn = state.block.lsn  # no frame up to here has changed a row since the root
        self._unproven = state.unproven
        self.generation, self._epoch = state.generation, state.epoch
        self.bulk = set(state.bulk)
        self._older, self._older_bulk = state.older, state.older_bulk  # what the other slot reaches
        self._lsn, self._crc = state.lsn, state.crc
        self.replay: list[Frame] = state.frames
        self.unclean = bool(state.frames)
        self.wal: Optional[Wal] = None
        if self.read_only:
            return
        options = self._options
        self.wal = self._held.wal = Wal(
            self.layer, self.path, options.kernel, options.durability, options.wal_limit, self, state.lsn, state.crc,
            self.cipher,
        )  # fmt: skip
        if self.cipher is not None:
            self._one_key()
        try:
            write_holder(self.file, os.getpid())
        except OSError:
            pass  # it is for messages only
        cut_torn_page(self.extents)
        if state.generation <= creation.AS_MADE:  # whoever made it may have died, or failed, before this
            creation.sync_name(self.layer, self.path)
        if not state.settled and not state.frames:
            self._settle_slots(self._root_ref(), self.root)

    # -- what it is ----------------------------------------------------------------
    @property
    def options(self) -> Options:
        """How it was opened."""
        options: Options = self._options
        return options

    @property
    def header(self) -> dict[str, Any]:
        """The table's header as of the last checkpoint."""
        return self.root.header

    @property
    def log(self) -> Any:
        """The kernel's ``Log``; None where nothing may be written."""
        return None if self.wal is None else self.wal.log

    @property
    def started(self) -> bool:
        """Whether an epoch of the log runs: something was written since the file was opened."""
        return self.wal is not None and self.wal.started

    @property
    def space(self) -> Optional[Space]:
        """What is free; None as long as nothing had to be known of it."""
        return self.extents.space if self._spaced else None

    def entry(self, key: int) -> Optional[Entry]:
        """The entry under a key as of the last checkpoint. CorruptionError, ClosedError."""
        self._alive()
        return self.tree.get(key)

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Every entry as of the last checkpoint, keys ascending. CorruptionError."""
        return self.tree.items()

    def read(self, ref: Ref) -> memoryview:
        """The verified bytes of a piece, valid as long as they are held. CorruptionError, ClosedError."""
        self._alive()  # once the lock is given up, others may write
        return self.extents.read(ref)

    def statistics(self) -> dict[str, Any]:
        """Figures of the file; ``live_bytes`` and ``free_bytes`` need the tree to be walked once."""
        self._alive()
        if not self.read_only:
            self._ensure_space()
        space = self.extents.space
        behind = max(0, self.extents.length - space.high_water)  # room at the end of the file
        spare = space.free_bytes + space.waiting_bytes if self._spaced else 0
        block = self.block
        log = self.log
        return {
            "file_bytes": self.file.size(),
            "wal_bytes": self._wal_bytes(),
            "live_bytes": (space.high_water if self._spaced else block.high_water) - PREAMBLE - spare,
            "free_bytes": spare + behind,
            "last_checkpoint": moment(block.time),
            "generation": self.generation,
            "lsn": self._lsn if log is None else log.lsn,
            "durable_lsn": self._lsn if log is None else log.durable_lsn,
        }

    def _wal_bytes(self) -> int:
        """The size of the log's files, those that another handle has left too."""
        if self.started:
            return self._wal().bytes
        paths = [wal_path(self.path, parity) for parity in (0, 1)]
        return sum(self.layer.size(path) for path in paths if self.layer.exists(path))

    # -- whether it may be used -----------------------------------------------------
    def _alive(self) -> None:
        failed = self.failed
        if isinstance(failed, ClosedError):
            raise ClosedError(str(failed))
        if failed is not None:
            raise DurabilityError(f"{failed}; close the database and open it again") from failed

    def usable(self) -> None:
        """Raise where nothing may be written: closed, failed, opened for reading, or a checkpoint is due first."""
        self._alive()
        if self.read_only:
            raise ReadOnlyError(f"{self.path} was opened with read_only=True")
        if self.unclean:
            raise InternalError(f"{self.path} was recovered; a checkpoint must come before the first write")

    def poison(self, error: BaseException) -> DurabilityError:
        """Stable storage failed: nothing is written or promised from here on. Returns what to raise."""
        problem = self.failed
        if problem is None:
            problem = self._unsaid
            try:
                problem = DurabilityError(
                    f"{self.path} could not be put on stable storage ({error}); what of the last writes is there is "
                    f"known only after opening it again"
                )
                if isinstance(error, OSError):
                    problem.errno = error.errno
            except MemoryError:
                pass
            self.failed = problem
            if self.wal is not None:
                self.wal.log.limit = 0
        if not isinstance(problem, ClosedError):
            self._tell(problem)
        return problem if isinstance(problem, DurabilityError) else DurabilityError(str(problem))

    def _tell(self, problem: BaseException) -> None:
        """Whoever works with the store knows that it failed; told once, again where there was no memory to hear it."""
        tries = 0
        while not self._told and tries < _TRIES:
            try:
                self.broken(problem)
                self._told = True
            except MemoryError:
                tries += 1

    # -- what the log asks for ---------------------------------------------------------
    def sync_data(self) -> None:
        """Put the data file on stable storage. OSError."""
        self.file.sync()

    def long(self) -> None:
        """The log is past its limit."""
        self.full()

    def first_write(self) -> None:
        """Leave the settled state: log files, synced with their names; then a superblock without the clean flag."""
        self.usable()
        wal, block = self._wal(), self.block
        self._refuse_foreign_logs()
        epoch = block.epoch + 1
        header = WalHeader(self.static.uuid, epoch, block.lsn + 1, block.frame_crc, os.urandom(16))
        try:
            wal.create(header)
        except (StorageError, DurabilityError):
            raise
        except OSError as error:
            wal.discard()
            raise refused(error, f"the log of {self.path} cannot be made, nothing was written") from error
        self._write_block(block._replace(clean=False, epoch=epoch, salt=header.salt))
        wal.start(header)
        self._epoch = epoch

    def _refuse_foreign_logs(self) -> None:
        for log in read_logs(self.layer, self.path, whole=False):
            if self._is_foreign(log):
                raise refused(
                    FileExistsError(17, "it is the log of another database", log.path),
                    f"{log.path} is in the way; move it to where its database is",
                )

    # -- superblocks ---------------------------------------------------------------------
    def _write_block(self, block: Superblock) -> None:
        """Write a superblock to the slot that is not the newest, on stable storage. Whatever fails here poisons."""
        block = block._replace(slot=1 - self.block.slot, generation=self.generation + 1, time=time.time_ns() // 1000)
        try:
            insist(partial(write_slot, self.file, block, self.cipher))
            self.file.sync()
            self.block, self.generation = block, block.generation
        except BaseException as error:
            problem = self.poison(error)
            if not isinstance(error, OSError):
                raise
            raise problem from error

    def _settle_slots(self, ref: Ref, root: Root) -> None:
        """Both slots carry this root, clean: no log is needed any more."""
        block = self._next_block(ref, clean=True)
        self._write_block(block)
        self._write_block(block)
        self._epoch = block.epoch
        self.root = root
        self.unclean, self.replay, self._older, self._older_bulk = False, [], None, set()
        self._wal().log.durable_lsn = block.lsn

    def _next_block(self, ref: Ref, clean: bool) -> Superblock:
        """A superblock for this root and an epoch of its own."""
        wal = self._wal()
        high_water = self.extents.space.high_water if self._spaced else self.block.high_water
        if high_water > self.extents.length:
            raise InternalError(f"{self.path}: the file ends at {self.extents.length}, before {high_water}")
        return self.block._replace(
            clean=clean, root_at=ref.extent, root_bytes=ref.length, root_crc=ref.crc, lsn=wal.log.lsn,
            frame_crc=wal.log.crc, epoch=self._epoch + 1, salt=os.urandom(16), high_water=high_water,
            file_length=high_water, tag=ref.tag or NO_TAG,
        )  # fmt: skip

    def _root_ref(self) -> Ref:
        block = self.block
        return Ref(block.root_at, 0, 0, block.root_bytes, block.root_crc, block.tag)

    def _wal(self) -> Wal:
        if self.wal is None:
            raise ReadOnlyError(f"{self.path} was opened with read_only=True")
        return self.wal

    # -- writing ---------------------------------------------------------------------------
    def _ensure_space(self) -> None:
        """Find out what is free, before the first extent is written or where a change of it was cut short."""
        older = self._older
        if self._spaced:
            if not self.extents.space.doubtful:
                return
            blocks = read_slots(self.file, self.static.uuid, self.cipher)
            older = next((block for block in blocks if block.slot != self.block.slot), None)
        self.extents.space = build_space(
            self.extents, self.tree, self.block, older, self.bulk, self._older_bulk, self.history
        )
        self._spaced = True

    def write(self, key: int, entry: Entry) -> Entry:
        """Write the pieces that have data to an extent of their own, not synced; the entry with references only.

        A frame that names the extent must follow, or ``forget``. StorageError: nothing was written.
        """
        self.usable()
        self._ensure_space()
        draft = Draft(self.extents, self.generation + 1)
        try:
            stored = draft.entry(key, entry)
        except BaseException as error:
            draft.forget()
            if isinstance(error, OSError):
                raise refused(error, f"{self.path} has no room, nothing was written") from error
            raise
        self.bulk |= draft.made
        self.bulk_bytes += sum(size for _, size in draft.made)
        self._wal().data_waits = True
        return stored

    def forget(self, entry: Entry) -> None:
        """Give back extents of ``write`` that no frame names."""
        gone = places(entry) & self.bulk
        self.bulk -= gone
        self.bulk_bytes -= sum(size for _, size in gone)
        self.extents.release(sorted(gone))

    def checkpoint(
        self, header: dict[str, Any], changes: Iterable[tuple[int, Optional[Entry]]]
    ) -> list[tuple[int, Optional[Entry]]]:
        """Fold the log into the file: these entries (None: removed) and this header. The entries as stored.

        StorageError or CorruptionError: everything is as before and the database goes on. DurabilityError: it does not.
        """
        self._alive()
        wal = self._wal()
        if wal.log.inner:
            raise InternalError(f"{self.path}: a checkpoint inside a transaction")
        if wal.started:
            wal.sync()
        self._ensure_space()
        if not self._is_saved(header):
            self._reuse_waiting()
        draft = Draft(self.extents, self.generation + 1, self._unproven if self.unclean else ())
        try:
            stored = [(key, None if entry is None else draft.entry(key, entry)) for key, entry in changes]
            if not stored and not self.bulk and not self.unclean and self._is_saved(header):
                return []
            changed = dict(stored)
            applied = draft.apply(self.tree, self.root.entries, changed)
            unused = self._unused_bulk(changed)
            written = self.write_root(draft, header, applied, self.bulk - unused)
            unused -= {record.root[:2] for record in written.filed.records} | self.history.keeps(unused)
        except BaseException as error:
            draft.forget()
            if isinstance(error, OSError) and not isinstance(error, (StorageError, DurabilityError)):
                raise refused(error, f"the checkpoint of {self.path} failed, nothing is lost") from error
            raise
        self.sync_draft(draft)
        try:
            self.publish(written, unused)
        except BaseException:
            if self.failed is None and self.root is not written.root:
                draft.forget()
            raise
        return stored

    def write_root(self, draft: Draft, header: dict[str, Any], applied: Applied, reached: Places) -> Written:
        """Write what snapshots say, and a root above them and this tree. ``reached``: those extents of the epoch's
        frames that it reaches. CorruptionError, OSError.
        """
        filed = self.history.write(draft, applied.released, reached)
        if self.unclean:
            filed = self.rooted_anew(draft, filed)
        lsn, serial = self._wal().log.lsn, self.history.serial
        root = Root(plain(header), applied.top, applied.entries, lsn, tuple(filed.records), serial)
        return draft.root(root, filed)

    def _reuse_waiting(self) -> None:
        """Where much waits for the older superblock to let go, let the newer one's root stand in both slots first: the
        file then has room for what is new, and need not hold three states at once.
        """
        space = self.extents.space
        if not self.unclean and space.waiting_bytes * WAITING_SHARE > space.high_water:
            self.repeat_block()

    def _is_saved(self, header: dict[str, Any]) -> bool:
        return plain(header) == self.root.header and self._wal().log.lsn == self.block.lsn

    def _unused_bulk(self, changed: dict[int, Optional[Entry]]) -> Places:
        """Extents of the epoch's frames that no entry refers to (any more); the older slot's log names them."""
        unused = set(self.bulk)
        for entry in changed.values():
            unused -= places(entry)
        return unused

    def sync_draft(self, draft: Draft) -> None:
        """What was written is on stable storage, or the store is of no further use."""
        try:
            self.file.sync()
        except OSError as error:
            raise self.poison(error) from error
        except BaseException:
            draft.forget()
            raise

    def publish(self, written: Written, unused: Places) -> None:
        """The superblock, and from there on no way back: whatever fails poisons. What fails before it does not."""
        wal = self._wal()
        released = written.filed.free | {root_place(self.block)} | unused
        block = self._next_block(written.ref, clean=False)
        header = WalHeader(block.uuid, block.epoch, block.lsn + 1, block.frame_crc, block.salt)
        switch = partial(wal.switch, header)
        try:
            if wal.started:
                with wal.lock:
                    self._write_block(block)
                    self._take(written, released)
                    insist(switch)
                self._epoch = block.epoch
            else:
                self._settle_slots(written.ref, written.root)
                self._take(written, released)
                self._older_bulk = set()
                self.extents.space.promote()
        except BaseException as error:
            problem = self.poison(error)
            if not isinstance(error, OSError) or isinstance(error, DurabilityError):
                raise
            raise problem from error

    def _take(self, written: Written, released: Places) -> None:
        """The new root is the database: what the slot overwritten reached is free, what the other one reaches waits."""
        space = self.extents.space
        self.root = written.root
        self.tree.top = written.root.top
        self.history.saved(written.filed)
        self._folded_lsn = self.block.lsn
        self.bulk_bytes = 0
        try:
            self._older_bulk, self.bulk = self.bulk, set()
            space.promote()
            for place in sorted(released):
                space.wait(*place)
        except MemoryError:
            space.doubt()  # what is free is found out anew when it is needed

    # -- keys --------------------------------------------------------------------------------
    @property
    def overhead(self) -> int:
        """By how much the payload of a frame grows in the log."""
        return 0 if self.cipher is None else OVERHEAD

    def rekey(self, key: Any) -> None:
        """From here on another key opens the database, and the one before does not. Nothing else is written anew.

        WrongKeyError where it is not encrypted, ValidationError where it can be no key: nothing happened.
        DurabilityError: one of the two opens it.
        """
        self.usable()
        if self.cipher is None:
            raise WrongKeyError(
                f"{self.path} is not encrypted, so it has no key to change",
                hint="backup(destination, encryption_key=...) writes an encrypted copy",
            )
        cipher = self.cipher.rewrapped(key)
        try:
            replace_static(self.file, cipher.static)
        except BaseException as error:
            problem = self.poison(error)
            if not isinstance(error, OSError):
                raise
            raise problem from error
        self.static, self.cipher, self.extents.cipher = cipher.static, cipher, cipher

    def _one_key(self) -> None:
        """Where a change of the key was cut short one of the two is in force: the other must not come back."""
        try:
            equalize(self.file)
        except OSError as error:
            raise DurabilityError(f"{self.path} could not be put on stable storage ({error})") from error

    # -- the log -----------------------------------------------------------------------------
    def settle(self) -> None:
        """What is due after a change: see ``Log.after``."""
        self._wal().settle()

    def flush(self) -> None:
        """Everything logged so far is on stable storage. DurabilityError, StorageError."""
        self._wal().sync()

    sync = flush

    def begin(self) -> None:
        """The frames from here on are one transaction."""
        self._wal().begin()

    def commit(self, sync: Optional[bool] = None) -> None:
        """End it; on stable storage unless ``sync`` is False (which is what None means at durability "none").

        StorageError: nothing of it is logged, and it is over. DurabilityError: unknown.
        """
        self._wal().commit(self._options.durability != "none" if sync is None else sync)

    def rollback(self) -> None:
        """Forget its frames; nothing where none is running."""
        self._wal().rollback()

    def rollback_to(self, mark: Mark) -> None:
        """Forget the frames made since ``mark``, in the file too. DurabilityError: they may still be there."""
        self._wal().rollback_to(mark)

    # -- the end -------------------------------------------------------------------------------
    def close(self, clean: bool = True) -> None:
        """The end. ``clean``: everything is checkpointed; both slots say so and the log files go. Otherwise the log
        stays beside the file, synced, and the next opening recovers. Everything is released whatever is raised.
        """
        if isinstance(self.failed, ClosedError):
            return
        try:
            if self.failed is None and self.wal is not None:
                self._end(self.wal, clean)
        finally:
            self._let_go(ClosedError(f"{self.path} is closed"))

    def _end(self, wal: Wal, clean: bool) -> None:
        if wal.started:
            wal.sync()
            clean = clean and wal.log.lsn == self.block.lsn and not self.bulk
        wal.ended = True
        try:
            write_holder(self.file, None)
        except OSError:
            pass  # it is for messages only
        if self.unclean or not clean:
            return
        if wal.started:
            block = self.block._replace(clean=True)
            self._write_block(block)
            self._write_block(block)
            wal.stop()
            self._remove_logs(wal)
            if self._spaced:
                trim(self)
        else:
            self._remove_logs(wal)
        tidy(self.layer, self.path)

    def _remove_logs(self, wal: Wal) -> None:
        """Nothing needs the log files: the slots are clean. Those of another database stay."""
        try:
            logs = read_logs(self.layer, self.path, whole=False)
            if any(log.there for log in logs) and not any(self._is_foreign(log) for log in logs):
                wal.remove()
        except OSError:
            pass  # left over they are harmless

    def _is_foreign(self, log: LogFile) -> bool:
        return log.header is not None and log.header.uuid != self.static.uuid

    def hand_over(self) -> Optional[lock.Claim]:
        """Release everything without a write but for the lock, which the caller has from here on."""
        claim: Optional[lock.Claim] = self._held.claim
        self._held.claim = None
        self.extents.close()
        self.abandon()
        return claim

    def abandon(self) -> None:
        """Release everything without a write: the next opening recovers. For a handle that failed."""
        self._let_go(ClosedError(f"{self.path} is closed"))

    def forked(self) -> None:
        """In a forked child: the parent's lock and log are not ours."""
        self._let_go(ClosedError(f"{self.path} was opened before this process was forked; open it again"), True)

    def _let_go(self, error: ClosedError, forked: bool = False) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        if self.wal is not None:
            self.wal.log.limit = 0
        if not isinstance(self.failed, ClosedError):
            self.failed = error
        self._held.release(forked)
        if forked:
            self.broken(error)

    def shrink(self) -> int:
        """Give free space at the end of the file back to the file system; how many bytes. Entries stay where they are.
        Nothing where a view of the file is alive, or the log is not folded in. StorageError, DurabilityError.
        """
        self.usable()
        if self._wal().log.lsn != self.block.lsn:
            return 0
        self._ensure_space()
        return shrink(self)

    def repeat_block(self) -> None:
        """The same root in the other slot too."""
        high_water = self.extents.space.high_water
        self._write_block(self.block._replace(high_water=high_water, file_length=high_water))
        self._older_bulk = set()
        self.extents.space.promote()


def moment(micros: int) -> Optional[datetime.datetime]:
    """So many microseconds after 1970, where that is a date."""
    try:
        return datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(microseconds=micros)
    except OverflowError:
        return None
