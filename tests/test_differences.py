"""Two trees walked together: against dicts and sets, with what was read counted; nodes made to do harm."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.errors import CorruptionError
from snapdb.pieces import Entry, Piece, Ref
from snapdb.storage import catalog, nodes
from snapdb.storage.catalog import Tree, encode_node, extents_of
from snapdb.storage.differences import differing, reach_without
from snapdb.storage.extents import ENTRY, NODE, Extents
from snapdb.storage.space import Space
from snapdb.storage.superblock import PAGE, PREAMBLE
from snapdb.testing.layers import RecordingLayer

UUID = bytes(range(16))
TOP = (1 << 64) - 1
Model = dict[int, Entry]


class Counted(Extents):
    """Extents that remember which pieces were loaded."""

    def __init__(self) -> None:
        file = RecordingLayer(record=False).open("/x", "x")
        file.pwrite(bytes(PREAMBLE), 0)
        super().__init__(file, Space(), UUID)
        self.loaded: list[Ref] = []

    def load(self, ref: Ref) -> bytes:
        self.loaded.append(ref)
        return super().load(ref)


class Versions:
    """Trees of one file, each made from the one before; nothing is ever released."""

    def __init__(self) -> None:
        self.extents = Counted()
        self.model: Model = {}
        self.tree = Tree(self.extents, None)
        self.kept: list[tuple[Optional[Ref], Model]] = [(None, {})]

    def entry(self, key: int, pieces: int = 1) -> Entry:
        refs = self.extents.write(ENTRY, key, [bytes([key & 255, n]) for n in range(pieces)], 1) if pieces else []
        return Entry(b"meta", [Piece(n, b"", None, ref) for n, ref in enumerate(refs)])

    def apply(self, changes: dict[int, Optional[Entry]]) -> None:
        self.tree.top = self.tree.apply(changes, len(self.kept)).top
        for key, entry in changes.items():
            if entry is None:
                self.model.pop(key, None)
            else:
                self.model[key] = entry
        self.kept.append((self.tree.top, dict(self.model)))

    def fresh(self, version: int) -> Tree:
        """A tree that has read nothing yet."""
        return Tree(self.extents, self.kept[version][0])

    def nodes(self, version: int) -> set[Ref]:
        return {ref for ref, _ in self.fresh(version)._nodes()}

    def check(self, i: int, j: int) -> int:
        """Both walks from version i to j against the models, and what they read; how many nodes that was."""
        before, after = self.kept[i][1], self.kept[j][1]
        keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        a, b = self.fresh(i), self.fresh(j)
        self.extents.loaded.clear()
        assert list(differing(a, b)) == [(key, before.get(key), after.get(key)) for key in keys]
        read = list(self.extents.loaded)
        mine, theirs = self.nodes(i), self.nodes(j)
        # a top has to be read, for nothing says its level; else only what the other tree does not have, once
        tops = set() if a.top == b.top else {ref for ref in (a.top, b.top) if ref is not None}
        assert sorted(read) == sorted((mine ^ theirs) | tops)
        reached = [set(self.fresh(version).reachable()) for version in (i, j)]
        assert reach_without(a, b) == (reached[0] - reached[1], reached[1] - reached[0])
        return len(read)


@pytest.fixture
def small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "NODE_BYTES", 400)
    monkeypatch.setattr(catalog, "_SMALL", 100)


CHANGE = st.tuples(st.sampled_from(["set", "set", "drop", "more", "move"]), st.integers(0, 250), st.integers(0, 3))


@given(st.lists(st.lists(CHANGE, max_size=30), min_size=1, max_size=6), st.booleans())
def test_versions_against_dicts(rounds: list[list[tuple[str, int, int]]], small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(catalog, "NODE_BYTES", 400)
            patch.setattr(catalog, "_SMALL", 100)
        versions = Versions()
        versions.apply({key: versions.entry(key) for key in range(0, 120, 3)})
        for steps in rounds:
            changes: dict[int, Optional[Entry]] = {}
            for what, key, number in steps:
                old = versions.model.get(key)
                if key in changes:
                    continue
                if what == "drop":
                    changes[key] = None
                elif what == "more" and old is not None:  # an extent that two versions of an entry share
                    changes[key] = Entry(b"more", old.pieces[:number] + versions.entry(key).pieces)
                elif what == "move" and old is not None and key + 1 not in changes:
                    changes[key], changes[key + 1] = None, old
                else:
                    changes[key] = versions.entry(key, number)
            versions.apply(changes)
        for i, j in itertools.product(range(len(versions.kept)), repeat=2):
            versions.check(i, j)


@pytest.mark.usefixtures("small_nodes")
def test_deep_trees() -> None:
    chance = random.Random(7)
    versions = Versions()
    for _ in range(5):
        versions.apply({(key := chance.randrange(TOP + 1)): versions.entry(key & 255) for _ in range(80)})
    for _ in range(4):
        gone = chance.sample(sorted(versions.model), 60)
        versions.apply({**dict.fromkeys(gone[:40]), **{key: versions.entry(key & 255) for key in gone[40:]}})
    while versions.model:
        versions.apply(dict.fromkeys(chance.sample(sorted(versions.model), min(len(versions.model), 90))))
    levels = [-1 if top is None else versions.tree.node(top).level for top, _ in versions.kept]
    assert max(levels) >= 3 and levels[-1] == -1
    for i, j in itertools.product(range(len(levels)), repeat=2):
        versions.check(i, j)


def test_what_one_change_costs() -> None:
    versions = Versions()
    versions.apply({key: versions.entry(key) for key in range(0, 20_000, 2)})
    versions.apply({5001: versions.entry(1)})
    versions.apply({5001: None, 0: versions.entry(1)})
    assert versions.check(1, 2) == 2 * 2 + (len(versions.nodes(2)) - len(versions.nodes(1)))
    assert versions.check(2, 3) <= 2 * 3 + 1
    assert versions.check(2, 2) == 0
    a, b = versions.fresh(1), versions.fresh(3)
    versions.extents.loaded.clear()
    steps = differing(a, b)
    assert next(steps)[0] == 0 and len(versions.extents.loaded) == 4  # the path to it, no more


def test_a_tree_that_grew_a_level() -> None:
    """The top of one is a node in the middle of the other."""
    versions = Versions()
    leaf = {key: versions.entry(key) for key in range(5)}
    versions.apply(leaf)
    old = versions.kept[1][0]
    assert old is not None
    more = {key: versions.entry(key & 255) for key in range(100, 110)}
    items = [(key, nodes.encode_item(key, entry)) for key, entry in more.items()]
    new = versions.extents.write(NODE, 100, [encode_node(0, items)], 2)[0]
    children = [(0, nodes.child_item(0, old)), (100, nodes.child_item(100, new))]
    top = versions.extents.write(NODE, 0, [encode_node(1, children)], 2)[0]
    versions.kept.append((top, {**leaf, **more}))
    assert versions.check(1, 2) == 3  # both tops and the new leaf
    assert versions.check(2, 1) == 3


# -- damage ----------------------------------------------------------------
def outcome(a: Tree, b: Tree) -> str:
    """What comes of walking trees that may be anything: an error that is allowed, or answers that make sense."""
    try:
        keys = [key for key, _, _ in differing(a, b)]
    except CorruptionError:
        keys = []
    assert keys == sorted(set(keys))
    try:
        only_a, only_b = reach_without(a, b)
    except CorruptionError as error:
        assert error.path == "/x"
        return "refused"
    assert not only_a & only_b
    places = sorted(only_a | only_b)
    assert all(PREAMBLE <= at and at + size <= a.extents.space.high_water for at, size in places)
    assert all(first[0] + first[1] <= second[0] for first, second in zip(places, places[1:]))
    return "answered"


def built(extents: Extents, chance: random.Random) -> Iterator[Ref]:
    """Nodes that verify and say anything: children of wrong levels and keys, one child twice, places of no extent."""
    made: list[tuple[int, int, Ref]] = []  # level, first key, reference
    for _ in range(14):
        level = chance.choice((0, 0, 0, 1, 1, 2, 3))
        keys = sorted(chance.sample(range(12), chance.randrange(1, 4)))
        items = []
        for key in keys:
            if level:
                right = [ref for at, first, ref in made if at == level - 1 and first == key]
                ref = chance.choice(right or [ref for *_, ref in made] or [Ref(PREAMBLE, PAGE, 128, 9, 9)])
                if chance.random() < 0.02:
                    ref = ref._replace(extent=chance.choice((0, PREAMBLE, 1 << 40, 1 << 63)))
                items.append((key, nodes.child_item(key, ref)))
            else:
                place = chance.choice((PREAMBLE, PREAMBLE + PAGE, PREAMBLE + chance.randrange(60) * PAGE, 1 << 50))
                ref = Ref(place, chance.choice((1, 1, 2)) * PAGE, 128, 1, 0)
                pieces = [Piece(0, b"", None, ref)] * chance.randrange(3)
                items.append((key, nodes.encode_item(key, Entry(b"", pieces))))
        data = bytearray(encode_node(level, items))
        if chance.random() < 0.2:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        ref = extents.write(NODE, keys[0], [bytes(data)], 1)[0]
        made.append((level, keys[0], ref))
        yield ref


def test_hostile_trees() -> None:
    outcomes = []
    for seed in range(150):
        chance = random.Random(seed)
        extents = Counted()
        refs = list(built(extents, chance))
        for a, b in itertools.product(refs[::2], refs[1::2]):
            outcomes.append(outcome(Tree(extents, a), Tree(extents, b)))
    assert min(map(outcomes.count, ("refused", "answered"))) > 200


def test_two_entries_with_one_extent() -> None:
    versions = Versions()
    entry = versions.entry(1)
    versions.apply({1: entry, 2: entry})
    assert [key for key, _, _ in differing(versions.fresh(0), versions.fresh(1))] == [1, 2]
    for i, j in ((0, 1), (1, 0)):
        with pytest.raises(CorruptionError, match="one extent"):
            reach_without(versions.fresh(i), versions.fresh(j))


def test_extents_that_overlap_between_the_trees() -> None:
    versions = Versions()
    versions.apply({1: versions.entry(1)})
    place = next(iter(extents_of(versions.model[1])))
    wide = Piece(0, b"", None, Ref(place[0], 2 * PAGE, 128, 1, 0))
    versions.apply({1: Entry(b"", [wide])})
    with pytest.raises(CorruptionError):
        reach_without(versions.fresh(1), versions.fresh(2))


def test_a_child_at_another_level_is_no_equal_one() -> None:
    """The same reference, but a child of nodes of different levels: one of the trees lies."""
    extents = Counted()
    leaf = extents.write(NODE, 1, [encode_node(0, [(1, nodes.encode_item(1, Entry(b"", [])))])], 1)[0]
    tops = [extents.write(NODE, 1, [encode_node(level, [(1, nodes.child_item(1, leaf))])], 1)[0] for level in (1, 2)]
    walk: Any = differing(Tree(extents, tops[0]), Tree(extents, tops[1]))
    with pytest.raises(CorruptionError, match="level"):
        list(walk)
