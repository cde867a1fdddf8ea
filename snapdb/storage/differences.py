"""Two versions of the catalog walked together, at a cost that follows what differs between them.

A tree is changed by copying paths, so what two versions have in common stands below references that are equal in both.
These are skipped, and nothing below them is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from ..errors import CorruptionError
from ..pieces import Entry, Ref
from .catalog import NO_LIMIT, Node, Tree, extents_of
from .space import Space

if TYPE_CHECKING:
    from .checkpoint import Places

__all__ = ["differing", "reach_without"]


def differing(a: Tree, b: Tree) -> Iterator[tuple[int, Optional[Entry], Optional[Entry]]]:
    """Each key whose entry is not the same in both, ascending, with the entry in ``a`` and in ``b`` (None: none there).

    Both trees are of one file and stay as they are until the last key was taken. CorruptionError.
    """
    return _differences(*_sides(a, b))


def reach_without(a: Tree, b: Tree) -> tuple[Places, Places]:
    """The extents that only ``a`` reaches, and those that only ``b`` does: of their nodes and of their entries.

    Both trees are of one file. CorruptionError, also where two extents overlap, two entries share one, or one is out of
    bounds; only what is not below an equal reference is looked at.
    """
    one, other = _sides(a, b)
    for _, mine, theirs in _differences(one, other):
        if mine is not None:
            one.reached += extents_of(mine)
        if theirs is not None:
            other.reached += extents_of(theirs)
    # a piece may have moved from one key to another, so what counts is the whole of both
    first, second = one.places(), other.places()
    Space.of(first | second, a.extents.space.high_water, a.extents.path)
    return first - second, second - first


class _Side:
    """A place in a tree. Its *head* is the first child or item, keys ascending, that was neither entered nor passed.

    ``done``: there is none; else ``key`` is its (first) key and ``level`` a child's level, -1 for an item of a leaf.
    ``reached``: the extents of the nodes that were entered, and what the caller adds to them.
    """

    def __init__(self, tree: Tree, top: Optional[Ref]) -> None:
        self.tree = tree
        self.reached: list[tuple[int, int]] = []
        self.done = top is None
        self.key = self.level = 0
        self._above: list[tuple[Ref, Node, int, int]] = []  # nodes that were left for a child, and where to go on
        if top is not None:
            node = tree.node(top)
            # as though it were a child, and the only one
            self._ref, self._node, self._limit = top, Node(node.level + 1, node.keys[:1], b"", [], [top]), NO_LIMIT
            self._turn(0)

    def same(self, other: _Side) -> bool:
        """Whether what is at and below the heads, which have one key and one level, is the same."""
        if self.level >= 0:
            return self._node.refs[self._index] == other._node.refs[other._index]
        return self._node.item(self._index) == other._node.item(other._index)

    def entry(self) -> Entry:
        """The entry of the item at the head."""
        return self.tree.entry(self._ref, self._node, self._index)

    def enter(self) -> None:
        """Go on with what is below the child at the head."""
        self._above.append((self._ref, self._node, self._limit, self._index + 1))
        self._ref, self._node, self._limit = self.tree.child(self._node, self._index, self._limit)
        self.reached.append(self._ref[:2])
        self._turn(0)

    def skip(self) -> None:
        """Go on behind the head."""
        index = self._index + 1
        while index == len(self._node.keys):
            if not self._above:
                self.done = True
                return
            self._ref, self._node, self._limit, index = self._above.pop()
        self._turn(index)

    def _turn(self, index: int) -> None:
        self._index = index
        self.key = self._node.keys[index]
        self.level = self._node.level - 1

    def places(self) -> Places:
        """What was reached, as a set."""
        found = set(self.reached)
        if len(found) != len(self.reached):
            path = self.tree.extents.path
            raise CorruptionError(f"{path}: two parts of the catalog have one extent", path=path)
        return found


def reach_despite_damage(a: Tree, b: Tree) -> Places:
    """What ``a`` reaches and ``b`` does not, as far as the nodes of ``a`` can be read. CorruptionError where one of
    ``b`` cannot.
    """
    found: Places = set()
    waiting = [] if a.top is None else [a.top]
    while waiting:
        ref = waiting.pop()
        if ref[:2] in found:
            continue
        found.add(ref[:2])
        try:
            node = a.node(ref)
            for index in range(0 if node.level else len(node.keys)):
                found.update(extents_of(a.entry(ref, node, index)))
        except CorruptionError:
            continue
        waiting += node.refs
    return found.difference(b.reachable())


def _sides(a: Tree, b: Tree) -> tuple[_Side, _Side]:
    """Both at their beginning; at their end where they are one tree."""
    same = a.top == b.top
    return _Side(a, None if same else a.top), _Side(b, None if same else b.top)


def _differences(a: _Side, b: _Side) -> Iterator[tuple[int, Optional[Entry], Optional[Entry]]]:
    """Walk to the end of both. A node of both trees is met as the head of both at once, for whatever stands above it
    begins at its key or before it: so the head with the lesser key goes first, and of two with one key the higher one.
    """
    while not (a.done and b.done):
        if a.done or b.done or a.key != b.key:
            side = b if a.done or not b.done and b.key < a.key else a
            if side.level >= 0:
                side.enter()
                continue
            entry = side.entry()
            yield (side.key, entry, None) if side is a else (side.key, None, entry)
            side.skip()
        elif a.level != b.level:
            (a if a.level > b.level else b).enter()
        elif a.same(b):
            a.skip()
            b.skip()
        elif a.level >= 0:
            a.enter()
            b.enter()
        else:
            yield a.key, a.entry(), b.entry()
            a.skip()
            b.skip()
