"""The catalog: a copy-on-write tree from keys to entries, and the root above it: ``docs/format.md``, "Catalog"."""

from __future__ import annotations

import json
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ..errors import CorruptionError, InternalError, NotSupportedError
from ..pieces import Entry, Ref
from .extents import HEADER, NODE, Extents, pages
from .nodes import (
    DEPTH,
    NODE_HEADER,
    NODE_LIMIT,
    PAGE_BITS,
    Bad,
    Item,
    Node,
    child_item,
    child_ref,
    decode_items,
    decode_node,
    encode_item,
    encode_items,
    encode_node,
    parse_entry,
    parse_node,
)  # fmt: skip
from .snapshots import Snapshot, decode_snapshots
from .space import Space
from .superblock import MOST, ROOT_LIMIT

__all__ = [
    "NODE_BYTES", "NO_LIMIT", "Change", "Node", "Root", "Tree", "decode_items", "decode_node", "encode_items",
    "encode_node", "extents_of",
]  # fmt: skip

NODE_BYTES = NODE_LIMIT - HEADER  # bytes of a node that is written: with the extent's header it fills four pages
LARGEST = 64 << 20  # bytes of a node of one item
_SMALL = NODE_BYTES // 4  # a changed node of fewer bytes is joined with a neighbour
_CACHE = 8 << 20  # bytes of the nodes that a tree keeps decoded
NO_LIMIT = 1 << 64  # above every key

VERSION = 2  # of the root that is written

_ROOT = struct.Struct("<4sIIIQIIQQQII")  # what both versions begin with
_MORE = struct.Struct("<QQ16s")  # what version 2 has behind that
_NO_REF = (0, 0, 0, 0, 0, b"")
_NO_TAG = bytes(16)
_THERE, _TAGGED = 1, 2  # flags: there is a tree; references have tags
_PADS = [bytes(-size % 8) for size in range(8)]


# -- the root --------------------------------------------------------------
class Root(NamedTuple):
    """What a superblock points to: the table's ``header`` (what JSON can say), the tree's ``top`` node (None: empty),
    and the number of ``entries``.

    ``snapshots``: their records, serials ascending; ``serial``: the next one's. ``lsn``: every frame up to it is in the
    tree (0: not known).
    """

    header: dict[str, Any]
    top: Optional[Ref]
    entries: int
    lsn: int = 0
    snapshots: tuple[Snapshot, ...] = ()
    serial: int = 1

    def encode(self, tagged: bool = False) -> bytes:
        """The bytes of the root; ``tagged``: its references have tags."""
        text = json.dumps(self.header, separators=(",", ":"), allow_nan=False).encode("ascii")
        records = b"".join([record.encode() for record in self.snapshots])
        if len(text) + len(records) + _ROOT.size + _MORE.size + 8 > ROOT_LIMIT:
            raise InternalError(f"a root of {len(text)} bytes, its snapshots of {len(records)}")
        extent, size, at, length, crc, tag = _NO_REF if self.top is None else self.top
        flags = (_THERE if self.top is not None else 0) | (_TAGGED if tagged else 0)
        head = _ROOT.pack(
            b"SNRT", VERSION, len(text), flags, extent, size >> PAGE_BITS, crc, at,
            length, self.entries, len(self.snapshots), len(records),
        )  # fmt: skip
        return b"".join([head, _MORE.pack(self.lsn, self.serial, tag), text, _PADS[len(text) & 7], records])

    @classmethod
    def decode(
        cls, data: bytes, path: Optional[str] = None, offset: Optional[int] = None, tagged: bool = False
    ) -> Root:
        """The root in these bytes. ``tagged``: its references must have tags, and else must not. CorruptionError (with
        ``path`` and ``offset``); NotSupportedError where a newer version wrote it.
        """
        try:
            return cls._parse(bytes(data), tagged)
        except Bad as error:
            raise CorruptionError(f"the root of the catalog: {error}", path=path, offset=offset) from None

    @classmethod
    def _parse(cls, data: bytes, tagged: bool) -> Root:
        if len(data) < _ROOT.size or data[:4] != b"SNRT":
            raise Bad("it is none")
        _, version, size, flags, extent, length, crc, at, used, entries, count, records = _ROOT.unpack_from(data)
        if version > VERSION:
            raise NotSupportedError(
                f"the root has version {version}, this SnapDB reads up to {VERSION}", hint="a newer SnapDB reads it"
            )
        if not version or flags & ~_THERE != (_TAGGED if tagged else 0):
            raise Bad(f"version {version}, flags {flags:#x}")
        ref = Ref(extent, length << PAGE_BITS, at, used, crc)
        there = bool(flags & _THERE)
        if not there and (any(ref) or entries):
            raise Bad(f"{entries} entries without a tree")
        top = ref if there else None
        if version == 1:
            if count or tagged or size != len(data) - _ROOT.size:
                raise Bad(f"a header of {size} bytes in {len(data)}, {count} snapshots")
            return cls(_header(data[_ROOT.size :]), top, entries)
        place = _ROOT.size + _MORE.size
        behind = place + size + (-size & 7)
        if len(data) < place or behind + records != len(data):
            raise Bad(f"a header of {size} bytes and snapshots of {records} in {len(data)}")
        lsn, serial, tag = _MORE.unpack_from(data, _ROOT.size)
        if tagged and top is not None:
            top = top._replace(tag=tag)
        elif tag != _NO_TAG:
            raise Bad("a tag of nothing")
        if any(data[place + size : behind]) or not 0 < serial <= MOST or lsn > MOST:
            raise Bad(f"LSN {lsn}, the next snapshot {serial}")
        snapshots = decode_snapshots(data[behind:], count, tagged)
        for record in snapshots:
            if record.serial >= serial or record.lsn > lsn:
                raise Bad(f"snapshot {record.serial} of LSN {record.lsn} is later than the root")
        return cls(_header(data[place : place + size]), top, entries, lsn, tuple(snapshots), serial)


def _constant(name: str) -> Any:
    raise Bad(f"{name} in its header")


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise Bad("a number in its header has no end")
    return value


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), parse_constant=_constant, parse_float=_float)
    except (ValueError, RecursionError) as error:
        raise Bad(f"its header is not JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise Bad(f"its header is a {type(header).__name__}")
    return header


# -- the tree --------------------------------------------------------------
class Change(NamedTuple):
    """What ``Tree.apply`` made. Nothing refers to it yet: where it is given up, ``written`` goes back to the space.

    ``top``: the new tree's; ``written``: the new nodes' extents (offset, size); ``released``: those that the new
    tree no longer reaches, old nodes and pieces of replaced entries; ``added``: by how many the entries grew in number.
    """

    top: Optional[Ref]
    written: list[tuple[int, int]]
    released: list[tuple[int, int]]
    added: int


class Tree:
    """One version of the tree, that below ``top``. Nothing is read before it is asked for."""

    def __init__(self, extents: Extents, top: Optional[Ref]) -> None:
        self.extents = extents
        self.top = top
        self._cache: dict[Ref, Node] = {}
        self._cached = 0
        self._lock = threading.RLock()  # a collection may run code that reads, here too

    # -- reading -----------------------------------------------------------
    def get(self, key: int) -> Optional[Entry]:
        """The entry under a key, None where there is none. CorruptionError."""
        if self.top is None:
            return None
        ref, node, limit = self.top, self.node(self.top), NO_LIMIT
        while node.level:
            index = bisect_right(node.keys, key) - 1
            if index < 0:
                return None
            ref, node, limit = self.child(node, index, limit)
        index = bisect_left(node.keys, key)
        if index == len(node.keys) or node.keys[index] != key:
            return None
        return self.entry(ref, node, index)

    def items(self) -> Iterator[tuple[int, Entry]]:
        """Keys and entries, keys ascending. CorruptionError."""
        for ref, node in self._nodes():
            if not node.level:
                for index, key in enumerate(node.keys):
                    yield key, self.entry(ref, node, index)

    def keys(self) -> Iterator[int]:
        """The keys, ascending. CorruptionError."""
        for _, node in self._nodes():
            if not node.level:
                yield from node.keys

    def reachable(self) -> Iterator[tuple[int, int]]:
        """The extents (offset, size) of the nodes and the entries, each once, ascending.

        CorruptionError where two of them overlap, two entries share one, or one is out of bounds.
        """
        found = []
        for ref, node in self._nodes():
            found.append(ref[:2])
            if not node.level:
                for index in range(len(node.keys)):
                    found += extents_of(self.entry(ref, node, index))
        Space.of(found, self.extents.space.high_water, self.extents.path)
        return iter(sorted(found))

    def _nodes(self) -> Iterator[tuple[Ref, Node]]:
        """Every node, a parent before its children, keys ascending."""
        if self.top is None:
            return
        ref, node, limit = self.top, self.node(self.top), NO_LIMIT
        path: list[tuple[Node, int, int]] = []  # nodes with children to come: (node, its limit, next child)
        while True:
            yield ref, node
            if node.level:
                path.append((node, limit, 0))
            while path and path[-1][2] == len(path[-1][0].keys):
                path.pop()
            if not path:
                return
            above, above_limit, index = path.pop()
            path.append((above, above_limit, index + 1))
            ref, node, limit = self.child(above, index, above_limit)

    def child(self, node: Node, index: int, limit: int = NO_LIMIT) -> tuple[Ref, Node, int]:
        """The child of a node, checked against what its parent says of it, and the limit of its keys.

        ``limit``: that of the node itself, which every key in it is below. CorruptionError.
        """
        ref = node.refs[index]
        child = self.node(ref)
        if index + 1 < len(node.keys):
            limit = node.keys[index + 1]
        if child.level != node.level - 1:
            raise self._damaged(ref, f"it has level {child.level}, its parent {node.level}")
        if child.keys[0] != node.keys[index]:
            raise self._damaged(ref, f"its first key is {child.keys[0]}, its parent says {node.keys[index]}")
        if child.keys[-1] >= limit:
            raise self._damaged(ref, f"its last key {child.keys[-1]} belongs to another node")
        return ref, child, limit

    def node(self, ref: Ref) -> Node:
        """The node at a reference, by itself: ``child`` checks it against its parent too. CorruptionError."""
        node = self._cache.get(ref)
        if node is not None:
            return node
        if ref.at != HEADER or ref.length > LARGEST or ref.size != pages(HEADER + ref.length):
            raise self._damaged(ref, f"{ref.length} bytes at {ref.at} of an extent of {ref.size}")
        data = self.extents.load(ref)
        try:
            node = parse_node(data)
        except Bad as error:
            raise self._damaged(ref, str(error)) from None
        if node.tagged is not self.extents.sealed:
            raise self._damaged(ref, "its references have tags, or none, as in another kind of database")
        self._keep(ref, node)
        return node

    def _keep(self, ref: Ref, node: Node) -> None:
        with self._lock:
            if ref not in self._cache:
                self._cached += ref.size
            self._cache[ref] = node
            while self._cached > _CACHE and self._cache:
                oldest = next(iter(self._cache))
                if self._cache.pop(oldest, None) is not None:
                    self._cached -= oldest.size

    def entry(self, ref: Ref, node: Node, index: int) -> Entry:
        """An entry of the leaf at ``ref``. CorruptionError."""
        try:
            return parse_entry(node.data, node.starts[index], node.tagged)
        except Bad as error:
            raise self._damaged(ref, f"entry {node.keys[index]}: {error}") from None

    def _damaged(self, ref: Ref, what: str) -> CorruptionError:
        path = self.extents.path
        offset = ref.extent + ref.at
        return CorruptionError(f"{path}: the catalog node at {offset}: {what}", path=path, offset=offset)

    # -- writing -----------------------------------------------------------
    def apply(self, changes: Mapping[int, Optional[Entry]], generation: int) -> Change:
        """Write the nodes of a tree with these entries set (None: removed), without a flush; only changed paths.

        This tree stays as it is: set ``top`` to the change's once it holds. Where writing fails, what was written is
        given back and the error passes on.
        """
        work = _Work(self, generation)
        try:
            top = work.run(sorted(changes.items()))
        except BaseException:
            self.extents.release(work.written)
            raise
        return Change(top, work.written, work.released, work.added)


def extents_of(entry: Entry) -> set[tuple[int, int]]:
    """The extents (offset, size) that an entry's pieces are in."""
    return {piece.ref[:2] for piece in entry.pieces if piece.ref is not None}


Changes = Sequence[tuple[int, Optional[Entry]]]


class _Work:
    """One ``Tree.apply``."""

    def __init__(self, tree: Tree, generation: int) -> None:
        self.tree = tree
        self.generation = generation
        self.written: list[tuple[int, int]] = []
        self.released: list[tuple[int, int]] = []
        self.added = 0

    def run(self, changes: Changes) -> Optional[Ref]:
        top = self.tree.top
        level = 0
        if top is None:
            items = self._leaf(None, None, changes)
        else:
            node = self.tree.node(top)
            level = node.level
            items = self._changed(top, node, NO_LIMIT, changes)
        if items is None:
            return top
        if top is not None:
            self.released.append(top[:2])
        return self._top(level, items)

    def _top(self, level: int, items: list[Item]) -> Optional[Ref]:
        """The one node above these items of a level, with as many levels as that takes."""
        while items:
            if level and len(items) == 1:  # a node of one child is no use at the top
                ref = child_ref(items[0][1])
                node = self.tree.node(ref)
                if not node.level or len(node.keys) > 1:
                    return ref
                self.released.append(ref[:2])
                level, items = level - 1, node.items()
                continue
            chunks = list(_chunks(items))
            written = [self._write(level, chunk) for chunk in chunks]
            if len(written) == 1:
                return written[0][1]
            items = [(key, child_item(key, ref)) for key, ref in written]
            level += 1
        return None

    def _changed(self, ref: Ref, node: Node, limit: int, changes: Changes) -> Optional[list[Item]]:
        """The items of a node after the changes below it, None where there are none."""
        if not node.level:
            return self._leaf(ref, node, changes)
        below: list[Optional[list[Item]]] = [None] * len(node.keys)
        for index, start, stop in _divide(node.keys, changes):
            below[index] = self._changed(*self.tree.child(node, index, limit), changes[start:stop])
        if all(items is None for items in below):
            return None
        return self._join(node, limit, below)

    def _join(self, node: Node, limit: int, below: list[Optional[list[Item]]]) -> list[Item]:
        """The children of a node: changed ones that stand side by side are cut anew, together; the others stay."""
        done: list[Item] = []
        index, count = 0, len(below)
        kept = -1  # the child that is the last of `done`, where that one was kept
        while index < count:
            if below[index] is None:
                done.append(node.item(index))
                kept = index
                index += 1
                continue
            run: list[Item] = []
            while index < count and below[index] is not None:
                run += below[index] or ()
                self.released.append(node.refs[index][:2])
                index += 1
            if run and sum([len(data) for _, data in run]) < _SMALL:
                if kept >= 0:
                    done.pop()
                    run = self._take(node, kept, limit) + run
                elif index < count:
                    run += self._take(node, index, limit)
                    index += 1
            kept = -1
            for chunk in _chunks(run):
                key, ref = self._write(node.level - 1, chunk)
                done.append((key, child_item(key, ref)))
        return done

    def _take(self, node: Node, index: int, limit: int) -> list[Item]:
        """The items of a child that a small neighbour is joined with."""
        ref, child, _ = self.tree.child(node, index, limit)
        self.released.append(ref[:2])
        return child.items()

    def _leaf(self, ref: Optional[Ref], node: Optional[Node], changes: Changes) -> Optional[list[Item]]:
        done: list[Item] = []
        place = 0
        touched = False
        keys = [] if node is None else node.keys
        for key, entry in changes:
            index = bisect_left(keys, key, place)
            if node is not None:
                done += [node.item(other) for other in range(place, index)]
            place = index
            old = None
            if node is not None and ref is not None and index < len(keys) and keys[index] == key:
                place += 1
                old = self.tree.entry(ref, node, index)
            if old is None and entry is None:
                continue
            new = None if entry is None else encode_item(key, entry)
            if new is not None:
                done.append((key, new))
                if old is not None and node is not None and new == node.item(index)[1]:
                    continue
            touched = True
            self.added += (new is not None) - (old is not None)
            if old is not None:
                self.released += sorted(extents_of(old) - (set() if entry is None else extents_of(entry)))
        if not touched:
            return None
        if node is not None:
            done += [node.item(other) for other in range(place, len(keys))]
        return done

    def _write(self, level: int, items: list[Item]) -> tuple[int, Ref]:
        data = encode_node(level, items, self.tree.extents.sealed)
        if len(data) > LARGEST or level >= DEPTH:
            raise InternalError(f"a catalog node of {len(data)} bytes at level {level}")
        ref = self.tree.extents.write(NODE, items[0][0], [data], self.generation)[0]
        self.written.append(ref[:2])
        self.tree._keep(ref, parse_node(data))
        return items[0][0], ref


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items cut into nodes that are about equally full."""
    room = NODE_BYTES - NODE_HEADER
    total = sum([len(data) for _, data in items])
    target = total / max(1, -(-total // room))
    chunk: list[Item] = []
    held = 0
    for item in items:
        size = len(item[1])
        if chunk and (held + size > room or held + size / 2 > target):
            yield chunk
            chunk, held = [], 0
        chunk.append(item)
        held += size
    if chunk:
        yield chunk


def _divide(keys: list[int], changes: Changes) -> Iterator[tuple[int, int, int]]:
    """Which changes belong below which child: (child, start, stop)."""
    start = 0
    while start < len(changes):
        index = max(0, bisect_right(keys, changes[start][0]) - 1)
        stop = start + 1
        while stop < len(changes) and (index + 1 == len(keys) or changes[stop][0] < keys[index + 1]):
            stop += 1
        yield index, start, stop
        start = stop
