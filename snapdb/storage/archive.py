"""What a store does with its snapshots: pinned, dropped, gone back to, and carried out again from the log."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Optional

from ..errors import CorruptionError, InternalError, NotSupportedError
from .catalog import Root, Tree
from .checkpoint import Draft, Places
from .differences import reach_despite_damage, reach_without
from .extents import ROOT, Extents
from .layer import FileLayer
from .pins import Unpinned
from .recovery import DROP, RESTORE, SNAPSHOT, Frame, read_pinned
from .snapshots import MOST_SNAPSHOTS, Filed, History, Snapshot, decode_frame
from .sources import SnapshotSource
from .superblock import ROOT_LIMIT
from .wal import Wal, refused

__all__ = ["Archive", "Restoring"]

RECORDS_LIMIT = ROOT_LIMIT // 2  # bytes of the records of all snapshots: there must be room for what grows


class Restoring(NamedTuple):
    """All that a restore needs of the file: ``back`` are extents that the snapshot's tree has and the live one has not,
    ``gone`` those of which it is the other way round.
    """

    record: Snapshot
    root: Root
    back: Places
    gone: Places


class Archive:
    """The part of ``Store`` that has to do with snapshots; the store makes what it builds on. ``history``: which there
    are.
    """

    path: str
    layer: FileLayer
    read_only: bool
    extents: Extents
    history: History
    root: Root
    tree: Tree
    bulk: Places
    generation: int
    wal: Optional[Wal]
    _options: Any
    _held: Any  # who has the file, for the readers of snapshots too
    _folded_lsn: int  # no frame up to here has changed a row since the root

    def usable(self) -> None:
        """Raise where nothing may be written."""
        raise NotImplementedError

    def _alive(self) -> None:
        """Raise where the store is closed or failed."""
        raise NotImplementedError

    def _wal(self) -> Wal:
        """The log of a store that may be written."""
        raise NotImplementedError

    @property
    def folded(self) -> bool:
        """Whether every change of a row is in the tree: what a snapshot needs. Else a checkpoint must come first."""
        return self.wal is not None and bool(self.wal.log.lsn == self._folded_lsn)

    def pinned_elsewhere(self, serial: Optional[int], what: str) -> AbstractContextManager[Any]:
        """A block in which no other process reads this snapshot (None: any), nor begins to. Where one does, a
        SnapshotInUseError that says so, and ``what``; LockedError, StorageError.
        """
        name = None if serial is None else self.history.by_serial(serial).name
        return Unpinned(self.layer, self.path, what, serial, name, self._options.patience)

    def pin(self, name: str, meta: bytes, replaced: Optional[int] = None) -> Snapshot:
        """Write the pinned root of a snapshot of the state as it is, for a frame that must follow, and then ``pinned``;
        or else ``unpin``. Nothing is changed by it. ``replaced``: the serial of a snapshot that goes with that frame.
        StorageError; NotSupportedError where there are too many.
        """
        self.usable()
        lsn, serial = self._wal().log.lsn, self.history.serial
        if not self.folded:
            raise InternalError(f"{self.path}: a snapshot of what is not folded in")
        others = [record for record in self.history.records if record.serial != replaced]
        held = sum([len(each.meta) + 4 * len(each.name) + 160 for each in others])
        if len(others) >= MOST_SNAPSHOTS or held + len(meta) + 4 * len(name) > RECORDS_LIMIT:
            what = f"{self.path} has {len(others)} snapshots of {held} bytes; it takes no more"
            raise NotSupportedError(what, hint="drop some of them")
        data = Root(self.root.header, self.tree.top, self.root.entries, lsn).encode(self.extents.sealed)
        try:
            (ref,) = self.extents.write(ROOT, serial, [data], self.generation + 1, ahead=False)
        except OSError as error:
            raise refused(error, f"{self.path} has no room, nothing was written") from error
        self._wal().data_waits = True
        return Snapshot(serial, name, self.generation, lsn, time.time_ns() // 1000, ref, meta)

    def snapshot_source(self, record: Snapshot) -> SnapshotSource:
        """What the state of a snapshot is read from; it counts among ``users``. CorruptionError, ClosedError."""
        self._alive()
        return SnapshotSource(self._held, record)

    @property
    def users(self) -> dict[int, int]:
        """How many sources of each snapshot are open, by serial."""
        return dict(Counter(list(self._held.uses.values())))

    def unpin(self, record: Snapshot) -> None:
        """The frame of a pinned snapshot did not come to be."""
        self.extents.release([record.root[:2]])

    def pinned(self, record: Snapshot, replaced: Optional[int] = None) -> None:
        """The frame is in the log, behind that which drops the ``replaced`` one (``history.load`` must have read that).
        Cannot fail but for memory, and can be called again then.
        """
        if replaced is not None and any(one.serial == replaced for one in self.history.records):
            self.history.drop(replaced)
        self.bulk.add(record.root[:2])
        if self.history.serial <= record.serial:
            self.history.add(record)
        self._follow(1 if replaced is None else 2)

    def dropped(self, serial: int) -> None:
        """The frame is in the log; see ``pinned``."""
        if any(one.serial == serial for one in self.history.records):
            self.history.drop(serial)
        self._follow(1)

    def prepare_restore(self, serial: int) -> Restoring:
        """Read what a restore to this snapshot needs, for a frame that must follow, and then ``restored``. Nothing is
        changed by it. KeyError where there is no such snapshot; CorruptionError, OSError.
        """
        history = self.history
        record = history.by_serial(serial)
        root = read_pinned(self.extents, record)
        back, gone = reach_without(Tree(self.extents, root.top), self.tree)
        if not self.read_only:
            history.load_all()
            history.shares(gone)  # reads their births
        return Restoring(record, root, back, gone)

    def restored(self, restoring: Restoring) -> None:
        """The frame is in the log: the tree, and the header, are those of the snapshot. See ``pinned``."""
        record, root, back, gone = restoring
        if not self.read_only:
            self.history.resurrect(back)
            self.history.pending |= self.history.bury(gone - self.history.keeps(gone))
            self.bulk -= back
        tree, header = Tree(self.extents, root.top), root.header
        self.root = self.root._replace(header=header, top=root.top, entries=root.entries)
        self.tree = tree
        if self.wal is not None:
            self._folded_lsn = self.wal.log.lsn  # whatever rows were changed before

    def _follow(self, frames: int) -> None:
        """So many frames that change no row were made."""
        lsn = self._wal().log.lsn
        if lsn - frames == self._folded_lsn:
            self._folded_lsn = lsn

    def show(self) -> None:
        """What was logged is given to the system, where other processes see it: at durability "none" too."""
        wal = self._wal()
        if wal.started and wal.log.hold:
            wal.show()

    def replay_history(self, frame: Frame) -> None:
        """Carry out a frame of a snapshot. After one that restores, the table is to be read again. CorruptionError;
        ValueError, KeyError: it makes no sense.
        """
        if frame.kind == SNAPSHOT:
            record = decode_frame(frame.payload, self.extents.sealed)
            if record.lsn >= frame.lsn:
                raise ValueError(f"it makes a snapshot of LSN {record.lsn}")
            self.history.add(record, set() if self.read_only else self._strangers(record))
        elif frame.kind in (DROP, RESTORE) and len(frame.payload) == 8:
            serial = int.from_bytes(frame.payload, "little")
            if frame.kind == RESTORE:
                self.restored(self.prepare_restore(serial))
            elif self.read_only:
                self.history.forget(serial)
            else:
                self.history.drop(serial)
        else:
            raise ValueError(f"kind {frame.kind} with {len(frame.payload)} bytes")

    def _strangers(self, record: Snapshot) -> Places:
        """What a snapshot reaches and the tree in force does not: that of an older root, where the newer is damaged."""
        top = read_pinned(self.extents, record, alone=True).top
        if top == self.tree.top:
            return set()
        try:
            return reach_without(Tree(self.extents, top), self.tree)[0]
        except CorruptionError:  # the damage that is bridged: this snapshot cannot be shown, everything else can
            return reach_despite_damage(Tree(self.extents, top), self.tree)

    def rooted_anew(self, draft: Draft, filed: Filed) -> Filed:
        """Have new copies of the pinned roots that the draft does not trust. CorruptionError, OSError."""
        records = list(filed.records)
        for at, record in enumerate(records):
            if record.root[:2] in draft.unproven:
                data = read_pinned(self.extents, record, alone=True).encode(self.extents.sealed)
                records[at] = record._replace(root=draft.pinned(record.serial, data))
        return filed._replace(records=records)
