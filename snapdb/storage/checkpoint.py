"""What a checkpoint writes: changed entries, the tree's changed paths, a root. All of it goes to free space.

Nothing on disk refers to it before the superblock does; where anything fails before that, ``forget`` gives it all back.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple, Optional

from ..errors import CorruptionError
from ..pieces import Entry, Piece, Ref
from .catalog import Root, Tree
from .extents import DEAD, ENTRY, HEADER, ROOT, Extents, pages
from .recovery import read_root
from .snapshots import Filed, History, Places
from .space import Space
from .superblock import PAGE, Superblock

__all__ = ["Applied", "Draft", "Places", "Written", "build_space", "places", "plain", "root_place", "write_root"]


def places(entry: Optional[Entry]) -> Places:
    """The extents that an entry's pieces are in."""
    return set() if entry is None else {piece.ref[:2] for piece in entry.pieces if piece.ref is not None}


def plain(header: dict[str, Any]) -> dict[str, Any]:
    """A copy of a header as it will be read back."""
    copy: dict[str, Any] = json.loads(json.dumps(header, allow_nan=False))
    return copy


def write_root(extents: Extents, root: Root, generation: int) -> Ref:
    """Write the root's extent, without a flush."""
    return extents.write(ROOT, 0, [root.encode(extents.sealed)], generation)[0]


class Applied(NamedTuple):
    """A new tree: its ``top`` node, its number of ``entries``, and what it no longer reaches."""

    top: Optional[Ref]
    entries: int
    released: Places


class Written(NamedTuple):
    """A new root with its snapshots; ``filed.free`` is what it no longer reaches."""

    root: Root
    ref: Ref
    filed: Filed


LARGE = 64 << 10  # bytes of a piece that has an extent to itself


class Draft:
    """New extents of one checkpoint (or one bulk write) that no superblock reaches yet.

    ``unproven``: extents that are copied, for their flush may have failed: the system may show what will never be on
    stable storage, and no later flush puts it there.
    """

    def __init__(self, extents: Extents, generation: int, unproven: Collection[tuple[int, int]] = ()) -> None:
        self.extents = extents
        self.unproven = unproven
        self.generation = generation
        self.made: Places = set()

    def forget(self) -> None:
        """Give back everything written."""
        made, self.made = self.made, set()
        self.extents.release(sorted(made))

    def entry(self, key: int, entry: Entry) -> Entry:
        """The entry with every piece in the file: those with data in new extents, and with them those of extents
        that are less than half in use by now.
        """
        lost = places(entry).intersection(self.unproven)
        if not lost and all(piece.ref is not None for piece in entry.pieces):
            return entry
        sparse = _sparse(entry) | lost
        moving = [piece for piece in entry.pieces if piece.ref is None or piece.ref[:2] in sparse]
        parts = [piece.data if piece.ref is None else self.extents.load(piece.ref) for piece in moving]
        new = iter(self._write(key, parts))
        pieces = [
            Piece(piece.tag, piece.meta, None, next(new) if piece.ref is None or piece.ref[:2] in sparse else piece.ref)
            for piece in entry.pieces
        ]
        return Entry(entry.meta, pieces)

    def _write(self, key: int, parts: list[Any]) -> list[Ref]:
        """Write parts: a large one to an extent of its own, free when that piece changes, the others to one."""
        sizes = [memoryview(part).nbytes for part in parts]
        refs: dict[int, Ref] = {}
        groups = [[at] for at, size in enumerate(sizes) if size >= LARGE]
        groups.append([at for at, size in enumerate(sizes) if size < LARGE])
        for group in filter(None, groups):
            found = self.extents.write(ENTRY, key, [parts[at] for at in group], self.generation)
            self.made.add(found[0][:2])
            refs.update(zip(group, found))
        return [refs[at] for at in range(len(parts))]

    def apply(self, tree: Tree, entries: int, changes: dict[int, Optional[Entry]]) -> Applied:
        """Write the changed paths of a tree of so many entries."""
        if not changes:
            return Applied(tree.top, entries, set())
        change = tree.apply(changes, self.generation)
        self.made.update(change.written)
        released = set(change.released)
        for entry in changes.values():  # pieces may have moved from one key to another
            released -= places(entry)
        return Applied(change.top, entries + change.added, released)

    def dead(self, serial: int, data: bytes) -> Ref:
        """Write a dead list of this snapshot to an extent of its own."""
        ref = self.extents.write(DEAD, serial, [data], self.generation)[0]
        self.made.add(ref[:2])
        return ref

    def pinned(self, serial: int, data: bytes) -> Ref:
        """Write a snapshot's root to an extent of its own."""
        ref = self.extents.write(ROOT, serial, [data], self.generation)[0]
        self.made.add(ref[:2])
        return ref

    def root(self, root: Root, filed: Filed) -> Written:
        """Write the root above all that."""
        ref = write_root(self.extents, root, self.generation)
        self.made.add(ref[:2])
        return Written(root, ref, filed)


def _sparse(entry: Entry) -> Places:
    """Extents of which the entry uses less than half; a single page is not worth moving."""
    used: dict[tuple[int, int], int] = {}
    for piece in entry.pieces:
        if piece.ref is not None:
            used[piece.ref[:2]] = used.get(piece.ref[:2], HEADER) + piece.ref.length
    return {place for place, size in used.items() if 2 * size < place[1] - PAGE}


def build_space(
    extents: Extents, tree: Tree, block: Superblock, older: Optional[Superblock], bulk: Places, older_bulk: Places,
    history: History,
) -> Space:  # fmt: skip
    """Free is what neither slot's root, no snapshot, no frame and no view reaches. What only the older slot reaches
    waits for the superblock that overwrites it. CorruptionError, OSError.
    """
    live, kept = {*tree.reachable(), root_place(block)}, history.reach()
    if not live.isdisjoint(kept):
        offset = min(live & kept)[0]
        what = f"{extents.path}: the extent at {offset} is in use and in a snapshot's list of what is not"
        raise CorruptionError(what, path=extents.path, offset=offset)
    ours = live | kept | history.pending | bulk
    theirs = older_bulk | ({root_place(older), *_older_reach(extents, older)} if older is not None else set())
    try:
        space = Space.of(ours | theirs, extents.length, extents.path)
    except CorruptionError:
        # the older slot is damaged below its root, so it answers for nothing
        theirs = set()
        space = Space.of(ours, extents.length, extents.path)
    for place in sorted(theirs - ours):
        space.wait(*place)
    return space


def root_place(block: Superblock) -> tuple[int, int]:
    """The extent of the root that a superblock names."""
    return (block.root_at, pages(HEADER + block.root_bytes))


def _older_reach(extents: Extents, block: Superblock) -> Places:
    try:
        root = read_root(extents, block)
        return {*Tree(extents, root.top).reachable(), *History(extents, root.snapshots, root.serial).reach()}
    except CorruptionError:
        return set()
