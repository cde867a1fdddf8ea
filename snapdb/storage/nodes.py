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

_NODE = struct.Struct("<4sBB2xIIQ")
_CHILD = struct.Struct("<QQIIQQ")
_SEALED_CHILD = struct.Struct("<QQIIQQ16s")
_ITEM = struct.Struct("<QII")
_PIECE = struct.Struct("<IIQIIQQ")
_TAG = 16  # bytes of a tag, which stands behind a reference in an encrypted file
_TAGGED = 1  # flag of a node: references have tags
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
        extent, size, at, length, crc, proof = ref
        parts.append(_PIECE.pack(tag, len(words), extent, size >> PAGE_BITS, crc, at, length))
        if proof:
            parts.append(proof)
        if words:
            parts += (words, _PADS[len(words) & 7])
    return b"".join(parts)


def encode_items(items: Iterable[tuple[int, Entry]]) -> bytes:
    """Leaf items as they stand in a leaf and in a bulk frame: keys strictly ascending, references only; tags in all or
    in none.
    """
    return b"".join([encode_item(key, entry) for key, entry in items])


def decode_items(
    data: Any, count: int, *, tagged: bool = False, path: Optional[str] = None, offset: Optional[int] = None
) -> list[tuple[int, Entry]]:
    """``count`` leaf items that fill ``data``. CorruptionError (with ``path`` and ``offset``) where they are not that.

    ``tagged``: references have tags.
    The references are whole pages and stay within their extents; whether the file has these is for the reader to check.
    """
    try:
        data = bytes(data)
        keys, starts = _walk(data, 0, count, tagged)
        return [(key, parse_entry(data, start, tagged)) for key, start in zip(keys, starts)]
    except Bad as error:
        raise CorruptionError(f"damaged catalog items: {error}", path=path, offset=offset) from None


def _walk(data: bytes, place: int, count: int, tagged: bool) -> tuple[list[int], list[int]]:
    """The keys of leaf items, and their places with the end behind them."""
    end = len(data)
    least = _PIECE.size + (_TAG if tagged else 0)
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
            if pieces > (end - place) // least:
                raise Bad(f"{pieces} pieces in {end - place} bytes")
            for _ in range(pieces):
                size = pair(data, place)[1]
                place += least + (size + 7 & -8)
    except struct.error:
        raise Bad("an item ends behind it") from None
    if place != end:
        raise Bad(f"its items end at {place} of {end} bytes")
    starts.append(end)
    return keys, starts


def parse_entry(data: bytes, place: int, tagged: bool = False) -> Entry:
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
        proof = b""
        if tagged:
            proof = data[place : place + _TAG]
            place += _TAG
        words = data[place : place + size] if size else b""
        place += size + 7 & -8
        pieces.append(new(Piece, (tag, words, None, new(Ref, (extent, length, at, used, crc, proof)))))
    return Entry(meta, pieces)


# -- nodes -----------------------------------------------------------------
class Node(NamedTuple):
    """A node as it is kept. A leaf (``level`` 0) has ``data`` and ``starts`` (places of its items, and the end), others
    ``refs``. ``tagged``: references have tags.
    """

    level: int
    keys: list[int]
    data: bytes
    starts: list[int]
    refs: list[Ref]
    tagged: bool = False

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
    return _CHILD.pack(key, ref.extent, ref.size >> PAGE_BITS, ref.crc, ref.at, ref.length) + ref.tag


def child_ref(item: bytes) -> Ref:
    """The reference in the item of a node above the leaves."""
    _, extent, size, crc, at, length = _CHILD.unpack_from(item)
    return Ref(extent, size << PAGE_BITS, at, length, crc, item[_CHILD.size :])


def encode_node(level: int, items: Sequence[Item], tagged: bool = False) -> bytes:
    """The bytes of a node with these items, at least one; ``tagged``: their references have tags."""
    body = b"".join([data for _, data in items])
    flags = _TAGGED if tagged else 0
    return _NODE.pack(b"SNND", level, flags, len(items), NODE_HEADER + len(body), items[0][0]) + body


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
    _, level, flags, count, size, first = _NODE.unpack_from(data)
    if size != len(data) or flags & ~_TAGGED:
        raise Bad(f"it says {size} bytes and has {len(data)}, flags {flags:#x}")
    tagged = bool(flags)
    child = _SEALED_CHILD if tagged else _CHILD
    if not count or level >= DEPTH:
        raise Bad(f"{count} items at level {level}")
    if size > NODE_LIMIT and count > 1:
        raise Bad(f"{count} items in {size} bytes")
    if not level:
        keys, starts = _walk(data, NODE_HEADER, count, tagged)
        node = Node(0, keys, data, starts, [], tagged)
    elif count * child.size != size - NODE_HEADER:
        raise Bad(f"{count} children in {size} bytes")
    else:
        rows = list(child.iter_unpack(memoryview(data)[NODE_HEADER:]))
        keys = [row[0] for row in rows]
        if any(map(int.__ge__, keys, keys[1:])):
            raise Bad("its keys do not ascend")
        if tagged:
            refs = [Ref(extent, size << PAGE_BITS, at, used, crc, tag) for _, extent, size, crc, at, used, tag in rows]
        else:
            refs = [Ref(extent, length << PAGE_BITS, at, used, crc) for _, extent, length, crc, at, used in rows]
        node = Node(level, keys, b"", [], refs, tagged)
    if keys[0] != first:
        raise Bad(f"its first key is {keys[0]}, it says {first}")
    return node
