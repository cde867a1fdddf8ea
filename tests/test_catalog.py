"""The catalog: leaf items, nodes, the root, and the copy-on-write tree against a plain dict."""

from __future__ import annotations

import errno
import json
import random
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.errors import CorruptionError, InternalError, NotSupportedError
from snapdb.pieces import Entry, Piece, Ref
from snapdb.storage import catalog, nodes
from snapdb.storage.catalog import Change, Root, Tree, decode_items, decode_node, encode_items, encode_node
from snapdb.storage.extents import ENTRY, HEADER, NODE, Extents
from snapdb.storage.snapshots import Snapshot
from snapdb.storage.space import Space
from snapdb.storage.superblock import PAGE, PREAMBLE
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

UUID = bytes(range(16))
TOP = (1 << 64) - 1


def make(layer: Optional[Any] = None) -> Extents:
    layer = RecordingLayer() if layer is None else layer
    file = layer.open("/x", "x")
    file.pwrite(bytes(PREAMBLE), 0)
    return Extents(file, Space(), UUID)


def entry(extents: Extents, key: int, sizes: Iterable[int] = (10,), meta: bytes = b"", words: int = 0) -> Entry:
    parts = [bytes([key & 255]) * size for size in sizes]
    refs = extents.write(ENTRY, key, parts, 1) if parts else []
    return Entry(meta, [Piece((n & 255) << 24 | 5, bytes([n & 255]) * words, None, ref) for n, ref in enumerate(refs)])


@pytest.fixture
def small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a few items, so that a tree of a few hundred has four levels."""
    monkeypatch.setattr(catalog, "NODE_BYTES", 400)
    monkeypatch.setattr(catalog, "_SMALL", 100)


# -- items and nodes -------------------------------------------------------
def test_leaf_item_bytes() -> None:
    ref = Ref(0x5000, 0x3000, 192, 777, 0xCAFEF00D)
    item = encode_items([(9, Entry(b"abc", [Piece(0x01000002, b"", None, ref), Piece(7, b"12345678", None, ref)]))])
    assert struct.unpack_from("<QII", item) == (9, 2, 3) and item[16:24] == b"abc\0\0\0\0\0"
    assert struct.unpack_from("<IIQIIQQ", item, 24) == (0x01000002, 0, 0x5000, 3, 0xCAFEF00D, 192, 777)
    assert struct.unpack_from("<II", item, 64) == (7, 8) and item[104:] == b"12345678"
    assert decode_items(item, 1) == [
        (9, Entry(b"abc", [Piece(0x01000002, b"", None, ref), Piece(7, b"12345678", None, ref)]))
    ]
    node = encode_node(0, [(9, item)])
    assert node[:8] == b"SNND\0\0\0\0" and struct.unpack_from("<IIQ", node, 8) == (1, 24 + len(item), 9)
    assert node[24:] == item
    child = nodes.child_item(9, ref)
    assert struct.unpack("<QQIIQQ", child) == (9, 0x5000, 3, 0xCAFEF00D, 192, 777)
    assert decode_node(encode_node(3, [(9, child)])).refs == [ref]


def test_root_bytes() -> None:
    ref = Ref(0x5000, 0x3000, 128, 777, 0xCAFEF00D)
    pinned = Ref(0x9000, 0x1000, 128, 99, 7)
    snapshot = Snapshot(3, "naïve", 5, 70, 1_000_000, pinned, b"{}", (Ref(0xA000, 0x1000, 128, 40, 8),), 1, 4096)
    root = Root({"rows": 5, "schema": {"naïve": "é\ud800"}}, ref, 12, 77, (snapshot,), 4)
    data = root.encode()
    size = struct.unpack_from("<I", data, 8)[0]
    text, records = data[96 : 96 + size], data[96 + -(-size // 8) * 8 :]
    assert struct.unpack_from("<4sIII", data) == (b"SNRT", 2, len(text), 1)
    assert struct.unpack_from("<QIIQQ", data, 16) == (0x5000, 3, 0xCAFEF00D, 128, 777)
    assert struct.unpack_from("<QII", data, 48) == (12, 1, len(records))
    assert struct.unpack_from("<QQ", data, 64) == (77, 4) and not any(data[80:96])
    assert json.loads(text) == root.header and records == snapshot.encode()
    assert Root.decode(data) == root
    empty = Root({}, None, 0)
    assert not any(empty.encode()[12:72]) and Root.decode(empty.encode()) == empty


def test_a_root_of_version_1_is_read() -> None:
    text = b'{"rows":5}'
    data = struct.pack("<4sIIIQIIQQQII", b"SNRT", 1, len(text), 1, 0x5000, 3, 0xCAFEF00D, 128, 777, 12, 0, 0) + text
    assert Root.decode(data) == Root({"rows": 5}, Ref(0x5000, 0x3000, 128, 777, 0xCAFEF00D), 12, 0, (), 1)
    for bad in (data + b"\0", data[:56] + b"\1" + data[57:], data[:12] + b"\3" + data[13:]):
        with pytest.raises(CorruptionError):
            Root.decode(bad)


REFS = st.builds(
    lambda page, size, at, rest, crc: Ref(page * PAGE, size * PAGE, at * 64, min(rest, size * PAGE - at * 64), crc),
    st.integers(4, 2**40), st.integers(1, 2**30), st.integers(2, 60), st.integers(0, 2**40), st.integers(0, 2**32 - 1),
)  # fmt: skip
PIECES = st.builds(
    lambda tag, meta, ref: Piece(tag, meta, None, ref), st.integers(0, 2**32 - 1), st.binary(max_size=20), REFS
)
ENTRIES = st.builds(Entry, st.binary(max_size=20), st.lists(PIECES, max_size=5))
ITEMS = st.dictionaries(st.integers(0, TOP), ENTRIES, max_size=8).map(lambda found: sorted(found.items()))


@given(ITEMS)
def test_items_and_nodes_round_trip(items: list[tuple[int, Entry]]) -> None:
    data = encode_items(items)
    assert decode_items(memoryview(data), len(items)) == items
    for count in (len(items) + 1, max(0, len(items) - 1), 1 << 40):
        if count != len(items):
            with pytest.raises(CorruptionError):
                decode_items(data, count)
    if items:
        node = decode_node(encode_node(0, [(key, nodes.encode_item(key, one)) for key, one in items]))
        assert node.keys == [key for key, _ in items]
        assert [nodes.parse_entry(node.data, start) for start in node.starts[:-1]] == [one for _, one in items]


def tagged(items: list[tuple[int, Entry]], tag: bytes = bytes(range(16))) -> list[tuple[int, Entry]]:
    """The same with tags."""
    return [
        (key, Entry(one.meta, [piece._replace(ref=piece.ref._replace(tag=tag)) for piece in one.pieces if piece.ref]))
        for key, one in items
    ]


def test_bytes_with_tags() -> None:
    """In an encrypted file 16 bytes stand behind each reference."""
    ref = Ref(0x5000, 0x3000, 192, 777, 0xCAFEF00D, b"sixteen byte tag")
    plain = ref._replace(tag=b"")
    item = encode_items([(9, Entry(b"meta", [Piece(7, b"words", None, ref)]))])
    short = encode_items([(9, Entry(b"meta", [Piece(7, b"words", None, plain)]))])
    assert item == short[:64] + b"sixteen byte tag" + short[64:]
    node = encode_node(0, [(9, item)], True)
    assert node[4:6] == b"\0\1" and node[:4] + node[6:12] + node[16:24] == encode_node(0, [(9, item)])[:4] + node[
        6:12
    ] + node[16:24]
    assert nodes.child_item(5, ref) == nodes.child_item(5, plain) + b"sixteen byte tag"
    assert nodes.child_ref(nodes.child_item(5, ref)) == ref and nodes.child_ref(nodes.child_item(5, plain)) == plain
    root = Root({"rows": 5}, ref, 12, 70, (), 4).encode(True)
    assert root[12:16] == b"\3\0\0\0" and root[80:96] == b"sixteen byte tag"
    assert Root.decode(root, tagged=True) == Root({"rows": 5}, ref, 12, 70, (), 4)
    empty = Root({}, None, 0).encode(True)
    assert empty[12:16] == b"\2\0\0\0" and Root.decode(empty, tagged=True).top is None
    pinned = Ref(0x9000, 0x1000, 128, 99, 7, b"t" * 16)
    lists = (Ref(0xA000, 0x1000, 128, 40, 8, b"u" * 16), Ref(0xB000, 0x1000, 128, 40, 9, b"v" * 16))
    snapshot = Snapshot(3, "naïve", 5, 70, 1_000_000, pinned, b"{}", lists, 2, 8192)
    whole = Root({}, ref, 1, 70, (snapshot,), 4)
    assert Root.decode(whole.encode(True), tagged=True) == whole
    for data in (root, empty, whole.encode(True)):
        with pytest.raises(CorruptionError):  # in a plain file
            Root.decode(data)
    for one in (Root({}, None, 0), Root({"rows": 5}, plain, 12, 70, (), 4)):
        with pytest.raises(CorruptionError):
            Root.decode(one.encode(), tagged=True)
    with pytest.raises(CorruptionError, match="tag of nothing"):
        Root.decode(empty[:80] + b"\1" + empty[81:], tagged=True)
    with pytest.raises(CorruptionError):
        decode_node(node[:5] + b"\2" + node[6:])


@given(ITEMS)
def test_items_and_nodes_with_tags_round_trip(items: list[tuple[int, Entry]]) -> None:
    items = tagged(items)
    data = encode_items(items)
    assert decode_items(memoryview(data), len(items), tagged=True) == items
    if not items:
        return
    node = decode_node(encode_node(0, [(key, nodes.encode_item(key, one)) for key, one in items], True))
    assert node.tagged and node.keys == [key for key, _ in items]
    assert [nodes.parse_entry(node.data, start, True) for start in node.starts[:-1]] == [one for _, one in items]
    refs = [piece.ref for _, one in items for piece in one.pieces if piece.ref is not None]
    if refs:
        children = [(key, nodes.child_item(key, refs[0])) for key, _ in items]
        above = decode_node(encode_node(1, children, True))
        assert above.tagged and set(above.refs) == {refs[0]} and above.items() == children


@given(ITEMS, st.data())
def test_resealed_leaves_are_refused_or_well_formed(items: list[tuple[int, Entry]], data: Any) -> None:
    items = items or [(5, Entry(b"x", []))]
    node = bytearray(encode_node(0, [(key, nodes.encode_item(key, one)) for key, one in items]))
    for _ in range(data.draw(st.integers(1, 3))):
        node[data.draw(st.integers(0, len(node) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    del node[len(node) - data.draw(st.sampled_from([0, 0, 0, 1, 8, 40])) :]
    try:
        found = decode_node(bytes(node), path="/x", offset=7)
    except CorruptionError as error:
        assert (error.path, error.offset) == ("/x", 7)
        return
    assert found.keys and found.keys == sorted(set(found.keys))
    if not found.level:
        try:
            again = decode_items(found.data[24:], len(found.keys))
        except CorruptionError:
            return
        assert [key for key, _ in again] == found.keys


def bad_nodes() -> Iterator[tuple[str, bytes]]:
    leaf = encode_node(0, [(1, encode_items([(1, Entry(b"", []))])), (2, encode_items([(2, Entry(b"", []))]))])
    ref = Ref(0x4000, 0x1000, 128, 100, 0)
    inner = encode_node(1, [(1, nodes.child_item(1, ref)), (2, nodes.child_item(2, ref))])
    yield "nothing", b""
    yield "short", leaf[:23]
    yield "magic", b"SNNX" + leaf[4:]
    yield "size", leaf + b"\0"
    yield "no items", leaf[:8] + struct.pack("<IIQ", 0, 24, 0)
    yield "too deep", inner[:4] + b"\x0c" + inner[5:]
    yield "first key", inner[:16] + b"\x07" + inner[17:]
    yield "keys equal", inner[:64] + b"\x01" + inner[65:]
    yield "keys fall", leaf[:40] + b"\x00" + leaf[41:]
    yield "count", inner[:8] + b"\x03" + inner[9:]
    yield "many", leaf[:8] + b"\xff\xff\xff\xff" + leaf[12:]
    yield "pieces", leaf[:32] + b"\xff\xff\xff\xff" + leaf[36:]
    yield "meta", leaf[:36] + b"\xff\xff\xff\xff" + leaf[40:]
    yield "large", encode_node(0, [(n, encode_items([(n, Entry(bytes(9000), []))])) for n in (1, 2)])


@pytest.mark.parametrize(("name", "data"), list(bad_nodes()), ids=[name for name, _ in bad_nodes()])
def test_bad_nodes(name: str, data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_node(data)


def test_pieces_must_be_written_first() -> None:
    with pytest.raises(InternalError, match="entry 5"):
        encode_items([(5, Entry(b"", [Piece(1, b"", b"data")]))])


# -- the root below its checksum -------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"null", b"{", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": "\xff"}',
        b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a": 1}x', b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2])
def test_headers_that_are_no_json_object(text: bytes, version: int) -> None:
    data = struct.pack("<4sIII", b"SNRT", version, len(text), 0) + bytes(48)
    data += text if version == 1 else struct.pack("<QQ", 0, 1) + bytes(16) + text + bytes(-len(text) % 8)
    if text.startswith(b'{"a": 9') and not hasattr(__import__("sys"), "set_int_max_str_digits"):
        assert Root.decode(data).header
        return
    with pytest.raises(CorruptionError) as caught:
        Root.decode(data, "/x", 9)
    assert (caught.value.path, caught.value.offset) == ("/x", 9)


def test_the_root_is_checked() -> None:
    one = Snapshot(3, "x", 5, 70, 1, Ref(0x9000, 0x1000, 128, 99, 7))
    good = Root({"a": 1}, Ref(0x5000, 0x1000, 128, 100, 1), 3, 70, (one,), 4).encode()
    assert Root.decode(good).snapshots == (one,)
    bits = (0, 0), (4, 0), (4, 1), (8, 200), (8, 0), (12, 2), (12, 3), (12, 0), (56, 2), (56, 0), (60, 0), (61, 1)
    for place, value in (*bits, (64, 69), (72, 3), (72, 0), (80, 1), (95, 1), (103, 1)):
        bad = bytearray(good)
        bad[place] = value
        with pytest.raises(CorruptionError):
            Root.decode(bytes(bad))
    for version in (3, 255):
        with pytest.raises(NotSupportedError, match=f"version {version}, this SnapDB reads up to 2"):
            Root.decode(good[:4] + bytes([version]) + good[5:])
    for size in (0, 3, 63, 64, 95, len(good) - 1):
        with pytest.raises(CorruptionError):
            Root.decode(good[:size])
    with pytest.raises(CorruptionError):
        Root.decode(good + b" ")


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_resealed_root_is_refused_or_well_formed(changes: list[tuple[int, int]]) -> None:
    one = Snapshot(3, "x", 5, 70, 1, Ref(0x9000, 0x1000, 128, 99, 7))
    data = bytearray(
        Root({"a": [1.5, None, "x"], "rows": 7}, Ref(0x5000, 0x1000, 128, 100, 1), 3, 70, (one,), 4).encode()
    )
    for place, value in changes:
        data[place % len(data)] = value
    try:
        root = Root.decode(bytes(data))
    except (CorruptionError, NotSupportedError):
        return
    assert all(record.serial < root.serial and record.name for record in root.snapshots)
    assert isinstance(root.header, dict) and root.entries >= 0
    assert root.top is not None or not root.entries


# -- the tree --------------------------------------------------------------
class Checked:
    """A tree and a dict side by side; after each round the tree is read from the file's bytes by a fresh reader."""

    def __init__(self) -> None:
        self.layer = RecordingLayer(maps=True)
        self.extents = make(self.layer)
        self.top: Optional[Ref] = None
        self.tree = Tree(self.extents, None)
        self.model: dict[int, Entry] = {}
        self.generation = 0

    def apply(self, changes: dict[int, Optional[Entry]]) -> Change:
        self.generation += 1
        old = set(self.tree.reachable())
        change = self.tree.apply(changes, self.generation)
        assert dict(self.tree.items()) == self.model  # as it was
        before = len(self.model)
        for key, one in changes.items():
            if one is None:
                self.model.pop(key, None)
            else:
                self.model[key] = one
        self.tree.top = change.top
        assert change.added == len(self.model) - before
        new = set(self.tree.reachable())
        fresh = {piece.ref[:2] for one in changes.values() if one for piece in one.pieces if piece.ref}
        lost = set(change.released)
        assert len(lost) == len(change.released) and len(set(change.written)) == len(change.written)
        assert lost - set(change.written) == old - new
        assert new == (old | set(change.written) | fresh) - lost
        self.check(new)
        for offset, size in change.released:
            self.extents.space.release(offset, size)
        return change

    def check(self, reachable: set[tuple[int, int]]) -> None:
        extents = Extents(self.layer.open("/x", "r"), Space(self.extents.space.high_water), UUID)
        tree = Tree(extents, self.tree.top)
        assert list(tree.items()) == sorted(self.model.items())
        assert list(tree.keys()) == sorted(self.model)
        assert set(tree.reachable()) == reachable
        for key in [*self.model, *(key + 1 for key in self.model), 0, TOP]:
            assert tree.get(key) == self.model.get(key) == self.tree.get(key)
        for ref, node in tree._nodes():
            assert ref.length <= catalog.NODE_BYTES or len(node.keys) == 1

    def level(self) -> int:
        return -1 if self.tree.top is None else self.tree.node(self.tree.top).level


CHANGE = st.tuples(
    st.sampled_from(["set", "set", "drop", "meta", "same", "long"]), st.integers(0, 300), st.integers(0, 5)
)


@given(st.lists(st.lists(CHANGE, max_size=40), max_size=6), st.booleans())
def test_a_tree_against_a_dict(rounds: list[list[tuple[str, int, int]]], small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(catalog, "NODE_BYTES", 400)
            patch.setattr(catalog, "_SMALL", 100)
        checked = Checked()
        for steps in rounds:
            changes: dict[int, Optional[Entry]] = {}
            for what, key, number in steps:
                old = checked.model.get(key)
                if key in changes:
                    continue
                if what == "drop":
                    changes[key] = None
                elif what == "same" and old is not None:
                    changes[key] = old
                elif what == "meta" and old is not None:  # some of the old pieces, and one more
                    more = entry(checked.extents, key, [number])
                    changes[key] = Entry(b"m" * number, old.pieces[:number] + more.pieces)
                else:
                    words = 300 if what == "long" else number * 3
                    changes[key] = entry(checked.extents, key, [number * 50] * number, b"meta", words)
            checked.apply(changes)
        checked.apply(dict.fromkeys(checked.model))
        assert checked.tree.top is None and checked.extents.space.high_water == PREAMBLE


@pytest.mark.usefixtures("small_nodes")
def test_a_deep_tree_grows_and_shrinks() -> None:
    checked = Checked()
    chance = random.Random(5)
    for _ in range(8):
        keys = [chance.randrange(TOP + 1) for _ in range(60)]
        checked.apply({key: entry(checked.extents, key & 255, [5]) for key in keys})
    assert checked.level() == 3
    while checked.model:
        gone = chance.sample(sorted(checked.model), min(len(checked.model), 70))
        checked.apply(dict.fromkeys(gone))
    assert checked.tree.top is None


@pytest.mark.usefixtures("small_nodes")
@pytest.mark.parametrize("order", ["rising", "falling", "random"])
def test_one_at_a_time_keeps_the_tree_low(order: str) -> None:
    extents = make()
    tree = Tree(extents, None)
    keys = list(range(1000))
    if order == "falling":
        keys.reverse()
    elif order == "random":
        random.Random(1).shuffle(keys)
    for key in keys:
        change = tree.apply({key: Entry(b"", [])}, 1)
        extents.release(change.released)
        tree.top = change.top
    nodes = list(tree._nodes())
    assert nodes[0][1].level <= 4 and len(nodes) < 1000 // 6
    for key in keys[:990]:
        change = tree.apply({key: None}, 1)
        extents.release(change.released)
        tree.top = change.top
    assert list(tree.keys()) == sorted(keys[990:])
    assert len(list(tree._nodes())) <= 5


def test_one_change_writes_one_path() -> None:
    extents = make()
    tree = Tree(extents, None)
    entries = {key: entry(extents, key, [3, 4], b"m", 40) for key in range(0, 20_000, 2)}
    first = tree.apply(entries, 1)
    tree.top = first.top
    levels = tree.node(tree.top).level + 1 if tree.top else 0
    assert levels == 2 and first.added == 10_000
    change = tree.apply({5001: entry(extents, 1)}, 2)
    assert levels <= len(change.written) <= levels + 1 and sum(size for _, size in change.written) <= 48 << 10
    assert len(change.released) == levels
    change = tree.apply({5000: entry(extents, 1), 15_000: None}, 2)
    assert len(change.written) == 3 and change.added == -1
    gone = {piece.ref[:2] for key in (5000, 15_000) for piece in entries[key].pieces if piece.ref}
    assert gone < set(change.released) and len(change.released) == 3 + len(gone)


def test_what_changes_nothing_writes_nothing() -> None:
    extents = make()
    tree = Tree(extents, None)
    assert tree.apply({}, 1) == Change(None, [], [], 0) == tree.apply({5: None}, 1)
    one = entry(extents, 5)
    tree.top = tree.apply({5: one}, 1).top
    for changes in ({}, {5: one}, {6: None}, {4: None, 5: one}):
        assert tree.apply(changes, 2) == Change(tree.top, [], [], 0)


def test_pieces_that_stay_keep_their_extent() -> None:
    extents = make()
    tree = Tree(extents, None)
    old = entry(extents, 5, [10, 10, 10])
    tree.top = tree.apply({5: old}, 1).top
    more = entry(extents, 5, [7])
    change = tree.apply({5: Entry(b"", old.pieces[1:2] + more.pieces)}, 2)
    assert tree.top is not None and change.released == [tree.top[:2]]
    tree.top = change.top
    change = tree.apply({5: more}, 3)
    assert old.pieces[0].ref is not None
    assert tree.top is not None and set(change.released) == {tree.top[:2], old.pieces[0].ref[:2]}


def test_an_entry_larger_than_a_node_has_one_for_itself() -> None:
    checked = Checked()
    many = entry(checked.extents, 2, [1] * 700, b"", 50)
    checked.apply({key: many if key == 2 else entry(checked.extents, key) for key in range(5)})
    sizes = [(ref.length > nodes.NODE_LIMIT, len(node.keys)) for ref, node in checked.tree._nodes()]
    assert (True, 1) in sizes
    checked.apply({2: Entry(b"", many.pieces[:10])})
    checked.apply({2: None})


@pytest.mark.usefixtures("small_nodes")
def test_the_same_changes_give_the_same_bytes() -> None:
    images = []
    for _ in range(2):
        checked = Checked()
        for start in range(0, 200, 40):
            checked.apply({key: entry(checked.extents, key) for key in range(start, start + 60)})
        images.append(checked.layer.contents()["/x"])
    assert images[0] == images[1]


@pytest.mark.usefixtures("small_nodes")
def test_a_refused_apply_gives_everything_back() -> None:
    layer = FaultyLayer(RecordingLayer())
    extents = make(layer)
    tree = Tree(extents, None)
    entries = {key: entry(extents, key) for key in range(200)}
    tree.top = tree.apply(entries, 1).top
    changes: dict[int, Optional[Entry]] = {key: entry(extents, key) for key in range(0, 200, 7)}
    mark, free, reachable = extents.space.high_water, extents.space.free, list(tree.reachable())
    layer.plan = None
    start = layer.operations
    change = tree.apply(changes, 2)
    extents.release(change.written)
    assert (extents.space.high_water, extents.space.free) == (mark, free)
    steps = layer.operations - start
    assert steps > 20
    for step in range(steps):
        layer.plan = Plan(layer.operations + 1 + step, code=errno.ENOSPC, short=True)
        failures = layer.failures
        try:
            done = tree.apply(changes, 2)
        except OSError:
            pass
        else:
            extents.release(done.written)  # the file has grown meanwhile, so there was less to do
        assert (extents.space.high_water, extents.space.free) == (mark, free)
        assert layer.failures <= failures + 1
    layer.plan = None
    assert layer.failures > 10
    assert list(tree.reachable()) == reachable and dict(tree.items()) == entries
    assert tree.apply(changes, 2)._replace(written=[], top=None) == change._replace(written=[], top=None)


# -- a tree that was made to do harm ---------------------------------------
def image() -> tuple[RecordingLayer, Extents, Tree, dict[int, Entry]]:
    layer = RecordingLayer()
    extents = make(layer)
    tree = Tree(extents, None)
    entries = {key: entry(extents, key, [20], b"meta", key % 5) for key in range(60)}
    tree.top = tree.apply({**entries}, 1).top
    return layer, extents, tree, entries


def fresh(layer: RecordingLayer, extents: Extents, top: Optional[Ref]) -> Tree:
    return Tree(Extents(layer.open("/x", "w"), Space(extents.space.high_water), UUID), top)


@pytest.mark.usefixtures("small_nodes")
def test_every_flipped_byte_of_every_node_is_seen() -> None:
    layer, extents, tree, _ = image()
    nodes = list(tree._nodes())
    assert nodes[0][1].level == 2
    for ref, _ in nodes[:3]:
        for place in range(ref.length):
            offset = ref.extent + ref.at + place
            was = extents.file.pread(1, offset)
            extents.file.pwrite(bytes([was[0] ^ 1 << place % 8]), offset)
            with pytest.raises(CorruptionError) as caught:
                list(fresh(layer, extents, tree.top).items())
            assert caught.value.path == "/x" and caught.value.offset == ref.extent + HEADER
            extents.file.pwrite(was, offset)


@pytest.mark.usefixtures("small_nodes")
@given(
    st.integers(0, 5),
    st.integers(0, 1 << 20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
)
def test_a_resealed_tree_is_refused_or_well_formed(which: int, pick: int, edits: list[tuple[int, int]]) -> None:
    layer, extents, tree, entries = image()
    nodes = list(tree._nodes())
    ref = nodes[which % len(nodes)][0]
    data = bytearray(extents.load(ref))
    for place, value in edits:
        data[place % len(data)] = (0, 1, 255, pick & 255, value)[value % 5]
    top = reseal(extents, tree.top, ref, bytes(data))
    for read in (
        lambda one: list(one.items()), lambda one: list(one.reachable()), lambda one: list(one.keys()),
        lambda one: [one.get(key) for key in (*entries, TOP)],
        lambda one: one.apply({3: entry(one.extents, 3), 39: None, 17: Entry(b"", [])}, 2),
    ):  # fmt: skip
        try:
            found = read(fresh(layer, extents, top))
        except CorruptionError as error:
            assert error.path == "/x" and error.offset is not None
            continue
        keys = [one[0] if isinstance(one, tuple) else one for one in found] if isinstance(found, list) else []
        if keys and all(isinstance(key, int) for key in keys):
            assert keys == sorted(set(keys))


def reseal(extents: Extents, top: Optional[Ref], changed: Ref, data: bytes) -> Ref:
    """Put these bytes into a node, and its new checksum into those above it; what the top's reference is then."""
    assert top is not None and len(data) == changed.length
    extents.file.pwrite(data, changed.extent + changed.at)
    extents._verified.clear()
    was, now = changed, changed._replace(crc=zlib.crc32(data))
    while was != top:
        for ref, node in Parents(extents, top):
            if was in node.refs:
                body = bytearray(extents.file.pread(ref.length, ref.extent + ref.at))
                at = 24 + 40 * node.refs.index(was)
                body[at : at + 40] = nodes.child_item(node.keys[node.refs.index(was)], now)
                extents.file.pwrite(bytes(body), ref.extent + ref.at)
                was, now = ref, ref._replace(crc=zlib.crc32(body))
                break
        else:
            raise LookupError
    return now


class Parents:
    """The inner nodes below a top, without a check."""

    def __init__(self, extents: Extents, top: Ref) -> None:
        self.extents = extents
        self.top = top

    def __iter__(self) -> Iterator[tuple[Ref, catalog.Node]]:
        todo = [self.top]
        while todo:
            ref = todo.pop()
            data = self.extents.file.pread(ref.length, ref.extent + ref.at)
            if data[4]:
                node = decode_node(data)
                yield ref, node
                todo += node.refs


def put(extents: Extents, level: int, items: list[tuple[int, bytes]]) -> Ref:
    return extents.write(NODE, items[0][0], [encode_node(level, items)], 1)[0]


def leaf(extents: Extents, *keys: int) -> Ref:
    return put(extents, 0, [(key, encode_items([(key, entry(extents, key))])) for key in keys])


def above(extents: Extents, level: int, *children: tuple[int, Ref]) -> Ref:
    return put(extents, level, [(key, nodes.child_item(key, ref)) for key, ref in children])


def hostile_trees() -> Iterator[tuple[str, Any]]:
    yield "level skipped", lambda e: above(e, 2, (1, leaf(e, 1)), (5, leaf(e, 5)))
    yield "first key", lambda e: above(e, 1, (1, leaf(e, 1)), (5, leaf(e, 6)))
    yield "keys of the next child", lambda e: above(e, 1, (1, leaf(e, 1, 5)), (5, leaf(e, 5)))
    yield (
        "keys beyond the parent",
        lambda e: above(e, 2, (1, above(e, 1, (1, leaf(e, 1, 9)))), (5, above(e, 1, (5, leaf(e, 5))))),
    )
    yield "not the whole extent", lambda e: leaf(e, 1)._replace(size=8 * PAGE)
    yield "another place", lambda e: leaf(e, 1)._replace(at=192)
    yield "a length without end", lambda e: leaf(e, 1)._replace(length=1 << 60, size=1 << 43)
    yield "a length of a gigabyte", lambda e: leaf(e, 1)._replace(length=1 << 30, size=(1 << 30) + PAGE)
    yield "beyond the end", lambda e: leaf(e, 1)._replace(extent=1 << 40)
    yield "in the preamble", lambda e: leaf(e, 1)._replace(extent=PAGE)


@pytest.mark.parametrize(("name", "build"), list(hostile_trees()), ids=[name for name, _ in hostile_trees()])
def test_hostile_trees(name: str, build: Any) -> None:
    extents = make()
    tree = Tree(extents, build(extents))
    for read in (tree.items, tree.keys, tree.reachable):
        with pytest.raises(CorruptionError) as caught:
            list(read())
        assert caught.value.path == "/x" and caught.value.offset is not None
    changes: dict[int, Optional[Entry]] = dict.fromkeys((1, 5, 6, 9))
    with pytest.raises(CorruptionError):
        tree.apply(changes, 2)
    answers: list[Any] = []
    try:
        answers += [tree.get(key) for key in (1, 5, 6, 9)]
    except CorruptionError:
        answers.append("refused")
    assert answers


def test_a_node_that_points_to_itself() -> None:
    extents = make()
    offset = extents.space.high_water
    item = nodes.child_item(1, Ref(offset, PAGE, HEADER, 64, 0))
    ref = extents.write(NODE, 1, [encode_node(1, [(1, item)])], 1)[0]
    # no checksum can close the circle by chance; the level closes it where one is forged
    tree = Tree(extents, ref)
    tree._cache[Ref(offset, PAGE, HEADER, 64, 0)] = tree.node(ref)
    with pytest.raises(CorruptionError, match="level"):
        list(tree.items())


def test_extents_that_overlap_or_are_shared() -> None:
    extents = make()
    one, other = entry(extents, 1, [5000]), entry(extents, 2, [5000])
    ref = other.pieces[0].ref
    assert ref is not None
    inside = Piece(1, b"", None, Ref(ref.extent + PAGE, PAGE, 128, 5, 0))
    sized = Piece(1, b"", None, ref._replace(size=PAGE, length=9))
    beyond = Piece(1, b"", None, ref._replace(extent=1 << 40))
    assert len(list(Tree(extents, Tree(extents, None).apply({1: one, 2: other}, 1).top).reachable())) == 3
    for bad in ({1: one, 2: one}, {1: Entry(b"", [inside]), 2: other}, {2: Entry(b"", [*other.pieces, sized])},
                {2: Entry(b"", [beyond])}):  # fmt: skip
        tree = Tree(extents, Tree(extents, None).apply({**bad}, 1).top)
        with pytest.raises(CorruptionError):
            tree.reachable()


def test_a_piece_that_leaves_its_extent_is_refused() -> None:
    for ref in (
        Ref(0x4001, PAGE, 128, 1, 0), Ref(0x4000, PAGE, 64, 1, 0), Ref(0x4000, PAGE, 129, 1, 0),
        Ref(0x4000, PAGE, 128, PAGE, 0), Ref(0x4000, 0, 128, 0, 0), Ref(0x4000, PAGE, 1 << 63, 1, 0),
        Ref(0x4000, PAGE, 128, TOP, 0),
    ):  # fmt: skip
        data = encode_items([(1, Entry(b"", [Piece(1, b"", None, ref)]))])
        with pytest.raises(CorruptionError):
            decode_items(data, 1)


def test_decoded_nodes_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "NODE_BYTES", 400)
    monkeypatch.setattr(catalog, "_CACHE", 10 * PAGE)
    layer, extents, tree, entries = image()
    again = fresh(layer, extents, tree.top)
    for _ in range(2):
        assert dict(again.items()) == entries
        assert again._cached == sum(ref.size for ref in again._cache) <= 10 * PAGE
