"""Giving the free end of a file back. Entries stay where they are, for others know their places; nodes can move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CorruptionError, StorageError
from .catalog import Tree
from .checkpoint import Draft, places
from .superblock import PREAMBLE
from .wal import refused

if TYPE_CHECKING:
    from ..errors import DurabilityError
    from .catalog import Root
    from .checkpoint import Applied, Places, Written
    from .extents import Extents
    from .layer import File
    from .snapshots import History

__all__ = ["Shrinkable", "shrink", "trim"]

#: a closing cuts a file that is so much shorter then: by one half, and by so many bytes
TRIM_SHARE, TRIM_LEAST = 2, 256 << 10


class Shrinkable(Protocol):
    """A store whose log is folded in and whose free space is known, and no more of it than is needed here."""

    path: str
    file: File
    extents: Extents
    bulk: Places
    generation: int
    history: History
    root: Root
    tree: Tree

    @property
    def header(self) -> dict[str, Any]:
        """The table's header as of the last checkpoint."""
        ...

    def write_root(self, draft: Draft, header: dict[str, Any], applied: Applied, reached: Places) -> Written:
        """Write what snapshots say, and a root above them and this tree."""
        ...

    def repeat_block(self) -> None:
        """The same root in the other slot too."""

    def sync_draft(self, draft: Draft) -> None:
        """What was written is on stable storage, or the store is of no further use."""

    def publish(self, written: Written, unused: Places) -> None:
        """Make this root the database."""

    def poison(self, error: BaseException) -> DurabilityError:
        """Nothing is written or promised from here on; returns what to raise."""
        ...


def shrink(store: Shrinkable) -> int:
    """Cut the file to what is in use; how many bytes that gave back. StorageError, DurabilityError."""
    before = store.file.size()
    store.repeat_block()  # the older root is gone: what waited is free
    for least in (0, TRIM_LEAST):  # the first time parts of it may go to small gaps further behind
        if not _catalog_is_last(store, least):
            break
        _rewrite_catalog(store)
        store.repeat_block()
    end = store.extents.space.high_water
    if end >= before:
        return 0
    store.repeat_block()  # no slot may say more than will be there
    store.repeat_block()
    if not _shorten(store.extents, end):
        return 0
    try:
        store.file.sync()
    except OSError as error:
        raise store.poison(error) from error
    return before - end


def trim(store: Shrinkable) -> int:
    """At a clean end, both slots alike: ``shrink`` where that gives back much of the file, for it costs flushes. Where
    there is no room for a new catalog the file stays as it is. DurabilityError.
    """
    size, space = store.file.size(), store.extents.space
    least = max(TRIM_LEAST, size // TRIM_SHARE)
    live = space.high_water - PREAMBLE - space.free_bytes - space.waiting_bytes  # more than the catalog needs
    try:
        if size - live < least or size - _entries_end(store) - live < least or not store.extents.idle():
            return 0
        return shrink(store)
    except (StorageError, CorruptionError):  # a damaged node is for whoever reads it
        return 0


def _entries_end(store: Shrinkable) -> int:
    """Where the last extent ends that stays where it is: those of entries, and all that snapshots reach."""
    used = store.bulk | store.history.reach()
    for _, entry in store.tree.items():
        used |= places(entry)
    if store.history.records:
        used |= store.history.shares(set(store.tree.reachable()) - used)
    return max((offset + size for offset, size in used), default=PREAMBLE)


def _catalog_is_last(store: Shrinkable, least: int) -> bool:
    """Whether only nodes and the root are behind a part of the file that is free and has room for them, and that has
    at least so many bytes.
    """
    last = _entries_end(store)
    space = store.extents.space
    behind = sum(size for start, size in space.free if start >= last)
    return behind >= least and space.high_water - last - behind < space.free_bytes


def _rewrite_catalog(store: Shrinkable) -> None:
    """The same entries and header, in new nodes below a new root."""
    draft = Draft(store.extents, store.generation + 1)
    entries = dict(store.tree.items())
    nodes = set(store.tree.reachable())
    try:
        applied = draft.apply(Tree(store.extents, None), 0, dict(entries))
        for entry in entries.values():
            nodes -= places(entry)
        written = store.write_root(draft, store.header, applied._replace(released=nodes), set())
    except BaseException as error:
        draft.forget()
        if isinstance(error, OSError):
            raise refused(error, f"{store.path} has no room, nothing is lost") from error
        raise
    store.sync_draft(draft)
    store.publish(written, set())


def _shorten(extents: Extents, size: int) -> bool:
    """Cut the file to this size; False where a view of it is alive, or the platform cannot cut a mapped file."""
    before, extents.length = extents.length, size
    extents._map = extents._windows_of = None  # the next read makes a map of the new length
    if not any(ended() is not None for ended in list(extents._windows.values())):
        try:
            extents.file.truncate(size)
        except OSError:
            pass  # mapped, on a platform where that matters: the file stays longer, which is legal
        else:
            return True
    extents.length = before
    return False
