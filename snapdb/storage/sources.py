"""What an opened snapshot is read from: its own version of the tree, in the file that its store has open."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..errors import ClosedError
from ..pieces import Entry, Ref
from . import lock
from .catalog import Tree
from .differences import differing
from .recovery import read_pinned

if TYPE_CHECKING:
    from .extents import Extents
    from .snapshots import Snapshot

__all__ = ["Holder", "SnapshotSource"]


class Holder(Protocol):
    """Who has the file and its lock."""

    extents: Extents

    @property
    def held(self) -> bool:
        """Whether the file is open."""
        ...

    def use(self, serial: int) -> int:
        """The file is to stay open for a reader of this snapshot; its number."""
        ...

    def unuse(self, number: int) -> None:
        """That reader went."""

    def release(self, abandon: bool = False) -> None:
        """Close the file; ``abandon``: in a forked child."""


def _nothing(error: BaseException) -> None:
    """Nobody is to be told."""


class SnapshotSource:
    """The entries of a snapshot. The file stays open and locked until ``close``, or until nothing refers to this any
    more, although the store may be closed before. ``broken(error)`` is called in a forked child.
    """

    def __init__(self, holder: Holder, record: Snapshot) -> None:
        self.record = record
        self.broken: Callable[[BaseException], Any] = _nothing
        self._holder = holder
        self._root = read_pinned(holder.extents, record)
        self._tree = Tree(holder.extents, self._root.top)
        self._reason = f"the snapshot {record.name!r} is closed"
        self._finalizer: Any = weakref.finalize(self, holder.unuse, holder.use(record.serial))
        self._finalizer.atexit = False
        lock.guard_fork(self)

    @property
    def path(self) -> str:
        """The file's."""
        return self._holder.extents.path

    @property
    def header(self) -> dict[str, Any]:
        """The table's header as of the snapshot."""
        return self._root.header

    @property
    def closed(self) -> bool:
        """Whether nothing can be read any more."""
        return not self._finalizer.alive or not self._holder.held

    def _alive(self) -> None:
        if self.closed:
            raise ClosedError(self._reason)

    def entry(self, key: int) -> Optional[Entry]:
        """The entry under a key. CorruptionError, ClosedError."""
        self._alive()
        return self._tree.get(key)

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Every entry, keys ascending. CorruptionError, ClosedError."""
        self._alive()
        return self._tree.items()

    def read(self, ref: Ref) -> memoryview:
        """The verified bytes of a piece, valid as long as they are held. CorruptionError, ClosedError."""
        self._alive()
        return self._holder.extents.read(ref)

    @property
    def tree(self) -> Tree:
        """The snapshot's version of the tree, to be walked beside another one. ClosedError."""
        self._alive()
        return self._tree

    def differing(self, other: SnapshotSource) -> Iterator[tuple[int, Optional[Entry], Optional[Entry]]]:
        """Each key whose entry is not the same in both, ascending, with this one's entry and the other's; what both
        share is not read. CorruptionError, ClosedError.
        """
        return differing(self.tree, other.tree)

    def close(self) -> None:
        """The end. Views that were read stay valid."""
        self._finalizer()

    def forked(self) -> None:
        """In a forked child: the parent's file is not ours."""
        self._reason = f"the snapshot {self.record.name!r} was opened before this process was forked; open it again"
        self._finalizer.detach()
        self._holder.release(True)
        self.broken(ClosedError(self._reason))
