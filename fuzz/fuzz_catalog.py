"""Nodes, items and roots of the catalog: refused, or what encodes to the same bytes; a tree of one node is walked."""

from __future__ import annotations

from functools import partial

import driver

from snapdb.errors import CorruptionError
from snapdb.pieces import Entry, Piece, Ref
from snapdb.storage.catalog import Root, Tree, decode_items, decode_node, encode_items, encode_node
from snapdb.storage.extents import NODE, Extents
from snapdb.storage.space import Space
from snapdb.testing.layers import RecordingLayer

_UUID = bytes(range(16))


def _entry(number: int) -> Entry:
    extent = 0x4000 + number * 8192
    pieces = [Piece(1 << 24 | j, b"zone" * j, None, Ref(extent, 8192, 128 + 64 * j, 40, j)) for j in range(3)]
    return Entry(b"meta" if number % 2 else b"", pieces)


def seeds() -> list[bytes]:
    items = [(key * 3, _entry(key)) for key in range(6)]
    leaf = encode_node(0, [(key, encode_items([(key, entry)])) for key, entry in items])
    above = encode_node(1, [(key, key.to_bytes(8, "little") + bytes(8) + b"\1" + bytes(23)) for key in (0, 9, 20)])
    header = {"schema": [{"name": "a", "dtype": "i64"}], "rows": 5, "live": 5.0, "hints": {}}
    root = Root(header, Ref(0x4000, 4096, 128, 200, 1), 6).encode()
    empty = Root(header, None, 0).encode()
    return [b"\0" + leaf, b"\0" + above, b"\1" + encode_items(items), b"\2" + root, b"\2" + empty]


def one(data: bytes) -> None:
    which, data = data[:1], data[1:]
    try:
        if which == b"\1":
            items = decode_items(data, 6)
            assert decode_items(encode_items(items), 6) == items
        elif which == b"\2":
            root = Root.decode(data)
            assert Root.decode(root.encode()) == root
        else:
            node = decode_node(data)
            assert node.keys == sorted(set(node.keys))
            _walk(data)
    except CorruptionError:
        pass


def _walk(data: bytes) -> None:
    """The node as the top of a tree: what leads out of it is bounded, and nothing leads in circles."""
    file = RecordingLayer({"f": bytes(0x4000)}, record=False).open("f", "w")
    extents = Extents(file, Space(0x4000), _UUID, False)
    tree = Tree(extents, extents.write(NODE, 0, [data], 1)[0])
    asks = [
        lambda: list(tree.items()),
        lambda: list(tree.reachable()),
        *(partial(tree.get, key) for key in range(0, 30, 3)),
    ]
    for ask in asks:
        try:
            ask()
        except CorruptionError:
            pass


if __name__ == "__main__":
    driver.main("catalog")
