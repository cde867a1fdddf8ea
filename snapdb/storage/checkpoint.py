"""What a checkpoint writes: changed entries, the tree's changed paths, a root. All of it goes to free space.

Nothing on disk refers to it before the superblock does; where anything fails before that, ``forget`` gives it all back.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional

from ..errors import CorruptionError
from ..pieces import Entry, Piece, Ref
from .catalog import Root, Tree
from .extents import ENTRY, HEADER, ROOT, Extents, pages
from .recovery import read_root
from .space import Space
from .superblock import PAGE, Superblock

__all__ = ["Draft", "Places", "Written", "build_space", "places", "plain", "root_place", "write_root"]

Places = set[tuple[int, int]]  # extents (offset, size)


def places(entry: Optional[Entry]) -> Places:
    """The extents that an entry's pieces are in."""
    return set() if entry is None else {piece.ref[:2] for piece in entry.pieces if piece.ref is not None}


def plain(header: dict[str, Any]) -> dict[str, Any]:
    """A copy of a header as it will be read back."""
    copy: dict[str, Any] = json.loads(json.dumps(header, allow_nan=False))
    return copy


def write_root(extents: Extents, root: Root, generation: int) -> Ref:
    """Write the root's extent, without a flush."""
    return extents.write(ROOT, 0, [root.encode()], generation)[0]


class Written(NamedTuple):
    """A new root and what it no longer reaches."""

    root: Root
    ref: Ref
    released: Places


LARGE = 64 << 10  # bytes of a piece that has an extent to itself


class Draft:
    """New extents of one checkpoint (or one bulk write) that no superblock reaches yet."""

    def __init__(self, extents: Extents, generation: int) -> None:
        self.extents = extents
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
        if all(piece.ref is not None for piece in entry.pieces):
            return entry
        sparse = _sparse(entry)
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

    def tree(self, tree: Tree, root: Root, header: dict[str, Any], changes: dict[int, Optional[Entry]]) -> Written:
        """Write the changed paths of the tree and a root above them."""
        released: Places = set()
        top, entries = tree.top, root.entries
        if changes:
            change = tree.apply(changes, self.generation)
            self.made.update(change.written)
            released.update(change.released)
            top, entries = change.top, entries + change.added
        for entry in changes.values():  # pieces may have moved from one key to another
            released -= places(entry)
        new = Root(plain(header), top, entries)
        ref = write_root(self.extents, new, self.generation)
        self.made.add(ref[:2])
        return Written(new, ref, released)


def _sparse(entry: Entry) -> Places:
    """Extents of which the entry uses less than half; a single page is not worth moving."""
    used: dict[tuple[int, int], int] = {}
    for piece in entry.pieces:
        if piece.ref is not None:
            used[piece.ref[:2]] = used.get(piece.ref[:2], HEADER) + piece.ref.length
    return {place for place, size in used.items() if 2 * size < place[1] - PAGE}


def build_space(
    extents: Extents, tree: Tree, block: Superblock, older: Optional[Superblock], bulk: Places, older_bulk: Places
) -> Space:
    """Free is what neither slot's root, no frame and no view reaches. What only the older slot reaches waits for the
    superblock that overwrites it. CorruptionError.
    """
    ours = {*tree.reachable(), root_place(block)} | bulk
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
        return set(Tree(extents, read_root(extents, block).top).reachable())
    except CorruptionError:
        return set()
