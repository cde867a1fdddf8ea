"""Committed changes read again: from the write-ahead log of a file, carried out on a table of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .absent import Absent
from .commits import Commit
from .opening import described
from .records import Replay
from .step import carry_out
from .storage.catalog import Root, Tree
from .storage.recovery import DROP, RESTORE, SNAPSHOT, Frame, retrace
from .storage.snapshots import decode_frame
from .tablefile import stored_generations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    from .pieces import Entry, Ref
    from .storage.sources import SnapshotSource
    from .storage.store import Store

__all__ = ["History", "commits_on_record"]


class History(NamedTuple):
    """Commits in order; all those with an LSN above ``since`` are there."""

    since: int
    commits: list[Commit]


class _Past:
    """The entries of an older root, in the file that a store has open."""

    def __init__(self, store: Store, root: Root) -> None:
        self._extents = store.extents
        self._tree = Tree(store.extents, root.top)

    def entry(self, key: int) -> Optional[Entry]:
        """The entry under a key. CorruptionError."""
        return self._tree.get(key)

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Every entry, keys ascending. CorruptionError."""
        return self._tree.items()

    def read(self, ref: Ref) -> memoryview:
        """The verified bytes of a piece, valid as long as they are held. CorruptionError."""
        return self._extents.read(ref)


def commits_on_record(store: Store) -> History:
    """What the log of an open file still has. Nobody writes meanwhile. CorruptionError."""
    if store.wal is not None and store.started:
        store.wal.show()
    root, frames = retrace(store.layer, store.path, store.extents, store.static.uuid, store.options.kernel)
    table = described(root.header, store.path).table
    found: list[Commit] = []
    history = _Snapshots(store, table, root)
    try:
        table.generation, table.last_generation = stored_generations(root.header, store.path)
        table.adopt(root.header, _Past(store, root))
        Replay(table, store.path, history.carry_out).run(frames, found.append)
    finally:
        history.close()
        table.release(Absent("changes were read again"))
    return History(root.lsn, found)


class _Snapshots:
    """The snapshots that there were, for frames that go back to one."""

    def __init__(self, store: Store, table: Any, root: Root) -> None:
        self._store = store
        self._table = table
        self._sources: list[SnapshotSource] = []
        self._records = {record.serial: record for record in root.snapshots}

    def carry_out(self, frame: Frame) -> None:
        """One frame that makes, drops or restores a snapshot."""
        if frame.kind == SNAPSHOT:
            record = decode_frame(frame.payload, self._store.cipher is not None)
            self._records[record.serial] = record
            return
        serial = int.from_bytes(frame.payload, "little")
        if frame.kind == DROP:
            self._records.pop(serial, None)
        elif frame.kind == RESTORE:
            self._restore(serial)

    def _restore(self, serial: int) -> None:
        table, source = self._table, self._store.snapshot_source(self._records[serial])
        self._sources.append(source)
        carry_out((), table.replacing(source.header, source, source))
        generation, last = stored_generations(source.header, self._store.path)
        table.last_generation = max(last, table.last_generation, table.generation)
        table.generation = generation

    def close(self) -> None:
        """Nothing is read from them any more."""
        for source in self._sources:
            source.close()
