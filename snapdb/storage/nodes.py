"""The bytes of catalog nodes and of the items in them: ``docs/format.md``, "Catalog".

A leaf is kept as its bytes and the places of its items: an entry is decoded when it is asked for, and an item that did
not change is copied as bytes. Nothing that a node says is used before it is checked: its checksum stands in the parent,
but a checksum is no proof against a file that was made to do harm.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from ..errors import CorruptionError, InternalError
from ..pieces import Entry, Piece, Ref
from .extents import HEADER

__all__ = [
    "DEPTH", "NODE_HEADER", "NODE_LIMIT", "Bad", "Item", "Node", "child_item", "child_ref", "decode_items",
    "decode_node", "encode_item", "encode_items", "encode_node", "parse_entry", "parse_node",
]  # fmt: skip

DEPTH = 12  # levels of a tree, at most
NODE_LIMIT = 16384  # bytes of a node of more than one item
NODE_HEADER = 24  # bytes of a node before its items
PAGE_BITS = 12

_NODE = struct.Struct("<4sB3xIIQ")
_CHILD = struct.Struct("<QQIIQQ")
_ITEM = struct.Struct("<QII")
_PIECE = struct.Struct("<IIQIIQQ")
_PAIR = struct.Struct("<II")
_PADS = [bytes(-size % 8) for size in range(8)]

Item = tuple[int, bytes]  # a key and the bytes of its item in a node


class Bad(Exception):
    """What is wrong with bytes whose place the caller knows."""


# -- items -----------------------------------------------------------------
def encode_item(key: int, entry: Entry) -> bytes:
    """The bytes of a leaf's item. Every piece must be a reference."""
    meta = entry.meta
    parts = [_ITEM.pack(key, len(entry.pieces), len(meta)), meta, _PADS[len(meta) & 7]]
    for tag, words, _, ref in entry.pieces:
        if ref is None:
            raise InternalError(f"a piece of entry {key} is not written yet")
        parts.append(_PIECE.pack(tag, len(words), ref.extent, ref.size >> PAGE_BITS, ref.crc, ref.at, ref.length))
        if words:
            parts += (words, _PADS[len(words) & 7])
    return b"".join(parts)


def encode_items(items: Iterable[tuple[int, Entry]]) -> bytes:
    """Leaf items as they stand in a leaf and in a bulk frame: keys strictly ascending, references only."""
    return b"".join([encode_item(key, entry) for key, entry in items])


def decode_items(
    data: Any, count: int, *, path: Optional[str] = None, offset: Optional[int] = None
) -> list[tuple[int, Entry]]:
    """``count`` leaf items that fill ``data``. CorruptionError (with ``path`` and ``offset``) where they are not that.

    The references are whole pages and stay within their extents; whether the file has these is for the reader to check.
    """
    try:
        data = bytes(data)
        keys, starts = _walk(data, 0, count)
        return [(key, parse_entry(data, start)) for key, start in zip(keys, starts)]
    except Bad as error:
        raise CorruptionError(f"damaged catalog items: {error}", path=path, offset=offset) from None


def _walk(data: bytes, place: int, count: int) -> tuple[list[int], list[int]]:
    """The keys of leaf items, and their places with the end behind them."""
    end = len(data)
    if count > (end - place) // _ITEM.size:
        raise Bad(f"{count} items in {end - place} bytes")
    item, pair = _ITEM.unpack_from, _PAIR.unpack_from
    keys: list[int] = []
    starts: list[int] = []
    last = -1
    try:
        for _ in range(count):
            key, pieces, size = item(data, place)
            if key <= last:
                raise Bad("its keys do not ascend")
            last = key
            keys.append(key)
            starts.append(place)
            place += 16 + (size + 7 & -8)
            if pieces > (end - place) // 40:
                raise Bad(f"{pieces} pieces in {end - place} bytes")
            for _ in range(pieces):
                size = pair(data, place)[1]
                place += 40 + (size + 7 & -8)
    except struct.error:
        raise Bad("an item ends behind it") from None
    if place != end:
        raise Bad(f"its items end at {place} of {end} bytes")
    starts.append(end)
    return keys, starts


def parse_entry(data: bytes, place: int) -> Entry:
    """The entry of a leaf's item at this place, which was found to be whole. ``Bad`` says what is wrong."""
    _, count, size = _ITEM.unpack_from(data, place)
    place += 16
    meta = data[place : place + size]
    place += size + 7 & -8
    pieces = []
    unpack, new = _PIECE.unpack_from, tuple.__new__
    for _ in range(count):
        tag, size, extent, length, crc, at, used = unpack(data, place)
        length <<= PAGE_BITS
        if extent & 4095 or at & 63 or at < HEADER or at + used > length:
            raise Bad(f"a piece of {used} bytes at {at} of an extent of {length}")
        place += 40
        words = data[place : place + size] if size else b""
        place += size + 7 & -8
        pieces.append(new(Piece, (tag, words, None, new(Ref, (extent, length, at, used, crc)))))
    return Entry(meta, pieces)


# -- nodes -----------------------------------------------------------------
class Node(NamedTuple):
    """A node as it is kept. A leaf (``level`` 0) has ``data`` and ``starts`` (places of its items, and the end), others
    ``refs``.
    """

    level: int
    keys: list[int]
    data: bytes
    starts: list[int]
    refs: list[Ref]

    def item(self, index: int) -> Item:
        """An item as it is written."""
        if self.level:
            return self.keys[index], child_item(self.keys[index], self.refs[index])
        return self.keys[index], self.data[self.starts[index] : self.starts[index + 1]]

    def items(self) -> list[Item]:
        """All of them."""
        return [self.item(index) for index in range(len(self.keys))]


def child_item(key: int, ref: Ref) -> bytes:
    """The item of a node above the leaves: a child by its first key."""
    return _CHILD.pack(key, ref.extent, ref.size >> PAGE_BITS, ref.crc, ref.at, ref.length)


def child_ref(item: bytes) -> Ref:
    """The reference in the item of a node above the leaves."""
    _, extent, size, crc, at, length = _CHILD.unpack(item)
    return Ref(extent, size << PAGE_BITS, at, length, crc)


def encode_node(level: int, items: Sequence[Item]) -> bytes:
    """The bytes of a node with these items, at least one."""
    body = b"".join([data for _, data in items])
    return _NODE.pack(b"SNND", level, len(items), NODE_HEADER + len(body), items[0][0]) + body


def decode_node(data: Any, *, path: Optional[str] = None, offset: Optional[int] = None) -> Node:
    """The node in these bytes. CorruptionError (with ``path`` and ``offset``); what leads out of it is not checked."""
    try:
        return parse_node(bytes(data))
    except Bad as error:
        raise CorruptionError(f"damaged catalog node: {error}", path=path, offset=offset) from None


def parse_node(data: bytes) -> Node:
    """The node in these bytes; what leads out of it is not checked. ``Bad`` says what is wrong."""
    if len(data) < NODE_HEADER or data[:4] != b"SNND":
        raise Bad("it is none")
    _, level, count, size, first = _NODE.unpack_from(data)
    if size != len(data):
        raise Bad(f"it says {size} bytes and has {len(data)}")
    if not count or level >= DEPTH:
        raise Bad(f"{count} items at level {level}")
    if size > NODE_LIMIT and count > 1:
        raise Bad(f"{count} items in {size} bytes")
    if not level:
        keys, starts = _walk(data, NODE_HEADER, count)
        node = Node(0, keys, data, starts, [])
    elif count * _CHILD.size != size - NODE_HEADER:
        raise Bad(f"{count} children in {size} bytes")
    else:
        rows = list(_CHILD.iter_unpack(memoryview(data)[NODE_HEADER:]))
        keys = [row[0] for row in rows]
        if any(map(int.__ge__, keys, keys[1:])):
            raise Bad("its keys do not ascend")
        refs = [Ref(extent, length << PAGE_BITS, at, used, crc) for _, extent, length, crc, at, used in rows]
        node = Node(level, keys, b"", [], refs)
    if keys[0] != first:
        raise Bad(f"its first key is {keys[0]}, it says {first}")
    return node
