"""The index kernels: words of keys, the hash table and the ordered tree, on every backend against plain models."""

# ruff: noqa: A001  (the kernels say `id`)
from __future__ import annotations

import math
import random
import struct
import subprocess
import sys
import tracemalloc
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import product
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_signals import survives_no_memory

from snapdb import _ext
from snapdb._ext import _common as c

TOP = 2**64 - 1
LARGEST = 2**48 - 1
BACKENDS = _ext.available()

needs_c = pytest.mark.skipif("c" not in BACKENDS, reason="the compiled kernels are not built")

#: ids around the places where their width changes
EDGES = [0, 1, 2, 2**31, 2**32 - 3, 2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1, 2**40 - 1, 2**40, LARGEST]
ids = st.one_of(st.integers(0, 30), st.sampled_from(EDGES))
small_ids = st.integers(0, 400)
few_words = st.sampled_from([0, 1, 2, 2**63, TOP - 1, TOP])
words = st.one_of(few_words, st.integers(0, 40).map(lambda n: n << 56), st.integers(0, TOP))


def u64(values: Any) -> array[int]:
    return array("Q", values)


# -- words -------------------------------------------------------------------------------------------------------------

FIXED = [c.I8, c.I16, c.I32, c.I64, c.U8, c.U16, c.U32, c.U64, c.F32, c.F64, c.BOOL, c.DATE, c.DATETIME]
TEXTS = [c.BYTES, c.STR, c.BINARY]
SPECIAL = [0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7976931348623157e308]


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0] if abs(value) < 3e38 else math.copysign(math.inf, value)


def values_of(code: int) -> st.SearchStrategy[Any]:
    """Physical values of a dtype."""
    if code == c.F64:
        return st.one_of(st.floats(), st.sampled_from(SPECIAL))
    if code == c.F32:
        return st.one_of(st.floats(width=32), st.sampled_from(SPECIAL).map(f32))
    if code in TEXTS:
        return st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\0", b"a", b"a\0", b"abcdefgh", b"abcdefghi"]))
    low, high = c.LIMITS[code]
    if code == c.DATE:
        low, high = -719162, 2932896
    if code == c.DATETIME:
        low, high = -62135596800000000, 253402300799999999
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0, min(high, 1)]))


def has_word(value: Any) -> bool:
    return value is not None and value == value


def filled(kernels: Any, code: int, values: list[Any]) -> Any:
    buffer = kernels.values.ColumnBuffer(code)
    for value in values:
        buffer.append(value)
    return buffer


@pytest.mark.parametrize("code", FIXED + TEXTS)
@given(data=st.data())
@settings(max_examples=30)
def test_words_of_values(kernels: Any, code: int, data: Any) -> None:
    """Equal where keys are equal, in order where keys are; the same alone, in a buffer, in a chunk and in the twin."""
    values = data.draw(st.lists(st.one_of(st.none(), values_of(code)), max_size=40))
    index, twin = kernels.index, _ext.backend("python").index
    keys = [index.key_word(code, value) for value in values]
    orders = [index.order_word(code, value) for value in values]
    for value, key, order in zip(values, keys, orders):
        assert (key is None) == (order is None) == (not has_word(value))
        assert key == twin.key_word(code, value) and order == twin.order_word(code, value)
    exact = index.exact(code)
    assert exact == (code not in TEXTS)
    rows = [row for row, value in enumerate(values) if has_word(value)]
    for a, b in product(rows, rows):
        if values[a] == values[b]:
            assert keys[a] == keys[b] and orders[a] == orders[b]
        elif values[a] < values[b]:
            assert orders[a] <= orders[b]
            assert not exact or (orders[a] < orders[b] and keys[a] != keys[b])
    buffer = filled(kernels, code, values)
    for source in (buffer, kernels.codecs.Chunk.view(buffer)):
        for many, single in ((index.key_words, keys), (index.order_words, orders)):
            found, places = many(source)
            assert (list(range(len(values))) if places is None else places.tolist()) == rows
            assert found.tolist() == [single[row] for row in rows]
    mask = kernels.mask.from_ids(array("I", range(0, len(values), 3)), len(values))
    found, places = index.key_words(buffer, mask)
    wanted = [row for row in rows if row % 3 == 0]
    assert (list(range(len(values))) if places is None else places.tolist()) == wanted
    assert found.tolist() == [keys[row] for row in wanted]


@pytest.mark.parametrize("code", [c.I64, c.F64, c.STR])
def test_words_of_sealed_chunks(kernels: Any, code: int) -> None:
    value = {c.I64: lambda n: n % 50, c.F64: lambda n: n / 4, c.STR: lambda n: b"t%d" % n}[code]
    values = [value(n) if n % 7 else None for n in range(2048)]
    buffer = filled(kernels, code, values)
    chunk, _ = kernels.codecs.encode(buffer, 0, len(values))
    for many in (kernels.index.key_words, kernels.index.order_words):
        for ours, theirs in zip(many(chunk), many(buffer)):
            assert ours.tolist() == theirs.tolist()


def test_words_refuse(kernels: Any) -> None:
    index = kernels.index
    for word in (index.key_word, index.order_word):
        for code, value in (
            (c.I8, 128), (c.U8, -1), (c.U64, 2**64), (c.U64, -1), (c.I64, 2**63), (c.BOOL, 2), (c.I32, 2**80)
        ):  # fmt: skip
            with pytest.raises(ValueError, match="cannot hold"):
                word(code, value)
        with pytest.raises(TypeError, match="bytes, not str"):
            word(c.STR, "a")
        with pytest.raises(TypeError):
            word(c.I32, 1.0)
        for code in (0, 17, -1):
            with pytest.raises(ValueError, match="unknown dtype"):
                word(code, 1)
    with pytest.raises(ValueError, match="unknown dtype"):
        index.exact(99)
    buffer = filled(kernels, c.I32, [1, 2, 3])
    for mask in (b"", bytes(9)):
        with pytest.raises(ValueError, match="a mask over 3 rows has 8 bytes"):
            index.key_words(buffer, mask)
    with pytest.raises(AttributeError):
        index.key_words([1, 2])


def test_texts_do_not_meet(kernels: Any) -> None:
    """Near relatives have words of their own: in 64 bits a meeting by chance would be news."""
    texts = {b"%d" % n for n in range(3000)} | {bytes(n) for n in range(200)} | {b"x" * n for n in range(200)}
    assert len({kernels.index.key_word(c.BINARY, text) for text in texts}) == len(texts)


# -- the hash table ----------------------------------------------------------------------------------------------------


class TableMachine(RuleBasedStateMachine):
    """A table against a dict of sets."""

    name = "python"

    @initialize()
    def start(self) -> None:
        self.table = _ext.backend(self.name).index.HashTable()
        self.model: dict[int, set[int]] = {}

    def put(self, word: int, id: int) -> bool:
        fresh = id not in self.model.setdefault(word, set())
        self.model[word].add(id)
        return fresh

    def drop(self, word: int, id: int) -> bool:
        found = self.model.get(word, set())
        if id not in found:
            return False
        found.remove(id)
        if not found:
            del self.model[word]
        return True

    @rule(word=words, id=ids)
    def add(self, word: int, id: int) -> None:
        assert self.table.add(word, id) == self.put(word, id)

    @rule(word=words, id=ids)
    def remove(self, word: int, id: int) -> None:
        assert self.table.remove(word, id) == self.drop(word, id)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_present(self, data: Any) -> None:
        word = data.draw(st.sampled_from(sorted(self.model)))
        id = data.draw(st.sampled_from(sorted(self.model[word])))
        assert self.table.remove(word, id) and self.drop(word, id)

    @rule(pairs=st.lists(st.tuples(words, ids), max_size=30))
    def add_many(self, pairs: list[tuple[int, int]]) -> None:
        added = self.table.add_many(u64(w for w, _ in pairs), u64(i for _, i in pairs))
        expected = [self.put(word, id) for word, id in pairs]
        assert added == all(expected)

    @rule(word=words, count=st.integers(0, 900), step=st.sampled_from([0, 1, 2**40]), first=ids, base=st.integers(0, 9))
    def add_consecutive(self, word: int, count: int, step: int, first: int, base: int) -> None:
        if base + first + count > LARGEST:
            return
        given = [(word + n * step) & TOP for n in range(count)]
        added = self.table.add_many(u64(given), first, base)
        expected = [self.put(each, base + first + n) for n, each in enumerate(given)]
        assert added == all(expected)

    @rule(pairs=st.lists(st.tuples(words, st.integers(0, 30)), max_size=30), base=st.sampled_from([0, 1, 2**31]))
    def remove_many(self, pairs: list[tuple[int, int]], base: int) -> None:
        removed = self.table.remove_many(u64(w for w, _ in pairs), array("I", [i for _, i in pairs]), base)
        expected = [self.drop(word, base + id) for word, id in pairs]
        assert removed == all(expected)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_word(self, data: Any) -> None:
        word = data.draw(st.sampled_from(sorted(self.model)))
        gone = self.model.pop(word)
        assert self.table.remove_many(u64([word] * len(gone)), u64(gone)) is True

    @rule(given=st.lists(words, max_size=20))
    def clashes(self, given: list[int]) -> None:
        expected = [at for at, word in enumerate(given) if word in self.model or given.count(word) > 1]
        assert self.table.clashes(u64(given)).tolist() == expected

    @rule(rows=st.integers(0, 3000))
    def reserve(self, rows: int) -> None:
        self.table.reserve(rows)

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    @rule()
    def copy(self) -> None:
        old, self.table = self.table, self.table.copy()
        old.add(7, 7)
        old.clear()

    @rule(data=st.data())
    def renumber(self, data: Any) -> None:
        present = {id for found in self.model.values() for id in found}
        if max(present, default=0) > 5000:
            with pytest.raises(IndexError, match="outside the mapping"):
                self.table.renumber(array("I", range(5000)))
            return
        mapping = list(range(max(present, default=0) + 1))
        random.Random(data.draw(st.integers(0, 9))).shuffle(mapping)
        for id in data.draw(st.lists(st.sampled_from(mapping), max_size=20)):
            mapping[id] = TOP
        self.table.renumber(u64(mapping))
        moved = {word: {mapping[id] for id in found} - {TOP} for word, found in self.model.items()}
        self.model = {word: found for word, found in moved.items() if found}

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.table) == sum(map(len, self.model.values()))
        assert self.table.distinct == len(self.model)
        for word in {0, 1, 2**63, TOP, 3 << 56, *self.model}:
            found = sorted(self.model.get(word, ()))
            assert self.table.ids(word).tolist() == found
            assert self.table.count(word) == len(found)
            assert self.table.first(word) == (found[0] if found else -1)


# -- the tree ----------------------------------------------------------------------------------------------------------


class TreeMachine(RuleBasedStateMachine):
    """A tree against a sorted list."""

    name = "python"

    @initialize()
    def start(self) -> None:
        self.tree = _ext.backend(self.name).index.OrderTree()
        self.model: list[tuple[int, int]] = []

    def put(self, pair: tuple[int, int]) -> bool:
        at = bisect_left(self.model, pair)
        if self.model[at : at + 1] == [pair]:
            return False
        self.model.insert(at, pair)
        return True

    def drop(self, pair: tuple[int, int]) -> bool:
        at = bisect_left(self.model, pair)
        if self.model[at : at + 1] != [pair]:
            return False
        del self.model[at]
        return True

    @rule(word=words, id=ids)
    def add(self, word: int, id: int) -> None:
        assert self.tree.add(word, id) == self.put((word, id))

    @rule(word=words, id=ids)
    def remove(self, word: int, id: int) -> None:
        assert self.tree.remove(word, id) == self.drop((word, id))

    @rule(pairs=st.lists(st.tuples(words, ids), max_size=40))
    def add_many(self, pairs: list[tuple[int, int]]) -> None:
        added = self.tree.add_many(u64(w for w, _ in pairs), u64(i for _, i in pairs))
        expected = [self.put(pair) for pair in pairs]
        assert added == all(expected)

    @rule(word=words, count=st.integers(0, 2000), step=st.sampled_from([0, 1, -1, 2**40]), first=small_ids)
    def add_one_by_one(self, word: int, count: int, step: int, first: int) -> None:
        for n in range(count):
            pair = (word + n * step) & TOP, first + n
            assert self.tree.add(*pair) == self.put(pair)

    @rule(count=st.integers(0, 3000), seed=st.integers(0, 99), span=st.sampled_from([3, 500, TOP]))
    def add_random(self, count: int, seed: int, span: int) -> None:
        draw = random.Random(seed)
        pairs = [(draw.randint(0, span), draw.randint(0, 600)) for _ in range(count)]
        added = self.tree.add_many(u64(w for w, _ in pairs), array("I", [i for _, i in pairs]))
        expected = [self.put(pair) for pair in pairs]
        assert added == all(expected)

    @rule(seed=st.integers(0, 99), part=st.sampled_from([0.1, 0.7, 1.0]), many=st.booleans())
    def remove_random(self, seed: int, part: float, many: bool) -> None:
        gone = random.Random(seed).sample(self.model, int(len(self.model) * part))
        if many:
            assert self.tree.remove_many(u64(w for w, _ in gone), u64(i for _, i in gone)) is True
        else:
            assert all(self.tree.remove(*pair) for pair in gone)
        self.model = sorted(set(self.model) - set(gone))

    @rule(first=st.integers(0, 50), part=st.sampled_from([0.3, 0.9]))
    def remove_stretch(self, first: int, part: float) -> None:
        gone = self.model[first : int(len(self.model) * part)]
        for pair in gone:
            assert self.tree.remove(*pair)
        del self.model[first : int(len(self.model) * part)]

    @rule(pairs=st.lists(st.tuples(words, small_ids), max_size=40), base=st.sampled_from([0, 2**32, 2**40]))
    def build(self, pairs: list[tuple[int, int]], base: int) -> None:
        self.model = sorted({(word, base + id) for word, id in pairs})
        self.tree.build(u64(w for w, _ in pairs), array("I", [i for _, i in pairs]), base)

    @rule(data=st.data(), low_open=st.booleans(), high_open=st.booleans(), limit=st.sampled_from([-1, 0, 1, 7, 300]))
    def ranges(self, data: Any, low_open: bool, high_open: bool, limit: int) -> None:
        present = st.sampled_from(self.model).map(lambda pair: pair[0]) if self.model else st.just(5)
        ends = st.one_of(st.none(), words, present)
        low, high = data.draw(ends), data.draw(ends)
        found = [pair for pair in self.model if inside(pair[0], low, high, low_open, high_open)]
        assert self.tree.count_range(low, high, low_open, high_open) == len(found)
        for descending in (False, True):
            cut = (found[::-1] if descending else found)[: None if limit < 0 else limit]
            options = {"low_open": low_open, "high_open": high_open, "descending": descending, "limit": limit}
            assert self.tree.range(low, high, **options).tolist() == [id for _, id in cut]
            assert list(zip(*self.tree.pairs(low, high, **options))) == cut

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.model.clear()

    @rule()
    def copy(self) -> None:
        old, self.tree = self.tree, self.tree.copy()
        old.add(7, 7)
        old.clear()

    @rule(seed=st.integers(0, 9))
    def renumber(self, seed: int) -> None:
        most = max((id for _, id in self.model), default=0)
        if most > 10000:
            with pytest.raises(IndexError, match="outside the mapping"):
                self.tree.renumber(array("I", range(5000)))
            return
        mapping = list(range(most + 1))
        draw = random.Random(seed)
        if seed > 4:
            draw.shuffle(mapping)
        mapping = [2**32 - 1 if draw.random() < 0.3 else id for id in mapping]
        self.tree.renumber(array("I", mapping))
        self.model = sorted((word, mapping[id]) for word, id in self.model if mapping[id] != 2**32 - 1)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.tree) == len(self.model)
        assert list(self.tree) == self.model
        assert self.tree.range().tolist() == [id for _, id in self.model]
        assert self.tree.first() == (self.model[0] if self.model else None)
        assert self.tree.last() == (self.model[-1] if self.model else None)


def inside(word: int, low: Optional[int], high: Optional[int], low_open: bool, high_open: bool) -> bool:
    behind = low is None or (word > low if low_open else word >= low)
    return behind and (high is None or (word < high if high_open else word <= high))


def test_table_machine(backend_name: str) -> None:
    run_machine(TableMachine, backend_name)


def test_tree_machine(backend_name: str) -> None:
    run_machine(TreeMachine, backend_name)


def run_machine(machine: Any, name: str) -> None:
    run_state_machine_as_test(type(machine.__name__, (machine,), {"name": name}), settings=settings(max_examples=60))


# -- larger, hostile ---------------------------------------------------------------------------------------------------


def size_of(kernels: Any, large: int) -> int:
    """How many entries a backend is tried with: the twins are slower, not other."""
    return large if kernels.name == "c" else large // 20


HOSTILE = {
    "equal": lambda n: 5,
    "rising": lambda n: n,
    "falling": lambda n: TOP - n,
    "high bits": lambda n: n << 44,
    "middle bits": lambda n: n << 20 & TOP,
    "three": lambda n: n * 7919 % 3,
    "pairs": lambda n: n // 2,
    "all bits": lambda n: n * 0x9E3779B97F4A7C15 & TOP,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_many_words_of_a_kind(kernels: Any, kind: str) -> None:
    """They come one by one, come as a batch, and go again; nobody waits for ever."""
    count = size_of(kernels, 60_000)
    given = [HOSTILE[kind](n) for n in range(count)]
    index = kernels.index
    table, tree, other = index.HashTable(), index.OrderTree(), index.HashTable()
    for id, word in enumerate(given):
        assert table.add(word, id) and tree.add(word, id)
    assert other.add_many(u64(given), 0) is True
    groups: dict[int, list[int]] = {}
    for id, word in enumerate(given):
        groups.setdefault(word, []).append(id)
    for word in [*groups][:: max(1, len(groups) // 500)]:
        assert table.ids(word).tolist() == other.ids(word).tolist() == groups[word]
        assert table.first(word) == groups[word][0] and table.count(word) == len(groups[word])
    assert list(tree) == sorted(zip(given, range(count)))
    order = random.Random(1).sample(range(count), count)
    for id in order[: count - 20]:
        assert table.remove(given[id], id) and tree.remove(given[id], id)
        assert not table.remove(given[id], id)
    left = sorted((given[id], id) for id in order[count - 20 :])
    assert list(tree) == left and len(table) == 20
    assert sorted((word, id) for word in {word for word, _ in left} for id in table.ids(word).tolist()) == left
    assert other.remove_many(u64(given), 0) is True and len(other) == 0
    if kernels.name == "c":
        assert max(table.nbytes, tree.nbytes, other.nbytes) < 40_000


@needs_c
@pytest.mark.slow
def test_a_tall_tree() -> None:
    """Nodes over nodes over nodes: built, thinned at random until little is left, filled again."""
    tree = _ext.backend("c").index.OrderTree()
    count = 900_000
    draw = random.Random(8)
    pairs = [(draw.getrandbits(20), id) for id in range(count)]
    tree.build(u64(word for word, _ in pairs), 0)
    model = sorted(pairs)
    for part in (0.9, 0.99):
        assert tree.range().tolist() == [id for _, id in model]
        for word in (0, 1, 2**19, 777_777, 2**20):
            assert tree.count_range(None, word, False, True) == bisect_left(model, (word, 0))
            assert tree.range(word, limit=3).tolist() == [id for _, id in model[bisect_left(model, (word, 0)) :][:3]]
        gone = draw.sample(model, int(len(model) * part))
        assert tree.remove_many(u64(word for word, _ in gone), u64(id for _, id in gone))
        model = sorted(set(model) - set(gone))
    assert list(tree) == model and tree.nbytes < 100 * len(model)
    for word, id in draw.sample(pairs, 300_000):
        tree.add(word, id)
        model.append((word, id))
    model = sorted(set(model))
    assert list(tree) == model and tree.count_range() == len(model)
    assert tree.count_range(5000, 600_000) == sum(5000 <= word <= 600_000 for word, _ in model)


def test_what_is_refused_changes_nothing(kernels: Any) -> None:
    for made in (kernels.index.HashTable(), kernels.index.OrderTree()):
        made.add(1, 1)
        for word, id in ((-1, 0), (2**64, 0), (0, -1), (0, LARGEST + 1), (2**70, 0), (0, 2**70)):
            with pytest.raises(ValueError):
                made.add(word, id)
            with pytest.raises(ValueError):
                made.remove(word, id)
        for word, id in ((1.5, 0), (0, 1.5), ("a", 0), (None, 0)):
            with pytest.raises(TypeError):
                made.add(word, id)
        for words, ids, base in (
            (u64([1, 2]), u64([1]), 0),
            (u64([1, 2]), u64([3, LARGEST + 1]), 0),
            (u64([1, 2]), u64([3, TOP]), 2),
            (u64([1, 2]), u64([3, LARGEST]), 1),
            (u64([1, 2]), LARGEST, 0),
            (u64([1, 2]), -1, 0),
            (u64([1, 2]), 0, -1),
            (array("I", [1, 2]), 0, 0),
            (array("q", [1, 2]), 0, 0),
            (array("d", [1, 2]), 0, 0),
            (memoryview(u64([1, 2, 3]))[::2], 0, 0),
            (u64([1, 2]), array("H", [1, 2]), 0),
        ):
            for batch in (made.add_many, made.remove_many):
                with pytest.raises(ValueError):
                    batch(words, ids, base)
        for mapping in (u64([0]), array("I", [])):
            with pytest.raises(IndexError, match="id 1 is outside the mapping of . ids"):
                made.renumber(mapping)
        for mapping in (u64([0, LARGEST + 1]), array("H", [0, 1])):
            with pytest.raises(ValueError):
                made.renumber(mapping)
        assert len(made) == 1 and made.remove(1, 1)
    table = kernels.index.HashTable()
    with pytest.raises(ValueError):
        table.reserve(-1)
    with pytest.raises(MemoryError):
        table.reserve(2**60)
    with pytest.raises(ValueError):
        table.clashes(array("I", [1]))
    tree = kernels.index.OrderTree()
    with pytest.raises(ValueError):
        tree.range(-1)
    with pytest.raises(ValueError):
        tree.count_range(0, 2**64)


def test_ranges_at_the_ends_of_all_words(kernels: Any) -> None:
    tree = kernels.index.OrderTree()
    pairs = [(0, 1), (0, 2), (1, 3), (TOP - 1, 4), (TOP, 5), (TOP, 6)]
    tree.build(u64(word for word, _ in pairs), u64(id for _, id in pairs))
    ends = [None, 0, 1, TOP - 1, TOP]
    for low, high, low_open, high_open in product(ends, ends, (False, True), (False, True)):
        found = [id for word, id in pairs if inside(word, low, high, low_open, high_open)]
        assert tree.range(low, high, low_open, high_open).tolist() == found, (low, high, low_open, high_open)
        assert tree.range(low, high, low_open, high_open, True).tolist() == found[::-1]
        assert tree.count_range(low, high, low_open, high_open) == len(found)


def test_other_buffers(kernels: Any) -> None:
    numpy = pytest.importorskip("numpy")
    tree = kernels.index.OrderTree()
    assert tree.add_many(numpy.arange(5, dtype="u8"), numpy.arange(5, dtype="u4"), 10)
    assert list(tree) == [(n, n + 10) for n in range(5)]
    assert tree.add_many(memoryview(u64([9])), memoryview(array("I", [1]))) == 1
    with pytest.raises(ValueError, match="u64"):
        tree.add_many(numpy.arange(5, dtype="i8"), 0)


def test_an_iteration_goes_on_where_it_was(kernels: Any) -> None:
    tree = kernels.index.OrderTree()
    for n in range(3000):
        tree.add(7, 2 * n)
    found = []
    for pair in tree:
        found.append(pair)
        tree.remove(*pair)
    assert found == [(7, 2 * n) for n in range(3000)] and len(tree) == 0
    tree.build(u64([1]), 0)
    pairs = iter(tree)
    next(pairs)
    tree.clear()
    assert list(pairs) == []


@pytest.mark.parametrize("kind", ["HashTable", "OrderTree"])
@pytest.mark.parametrize("rows", [0, 5, 70_000])
def test_fill_replaces_what_there_is(kernels: Any, kind: str, rows: int) -> None:
    if rows > 5 and kernels.name != "c":
        rows = 2000
    draw = random.Random(rows)
    words = [draw.choice((draw.getrandbits(64), draw.randrange(50))) for _ in range(rows)]
    batches = [
        (u64(words), 0, 0),
        (u64(words[:99]), array("I", [2 * n for n in range(len(words[:99]))]), 2**40),
        (u64([]), 0, 0),
        (u64(words[-9:]), 3, 10**6),
    ]
    filled, told = getattr(kernels.index, kind)(), getattr(kernels.index, kind)()
    filled.add_many(u64([1, 2, 3]), 9)
    filled.fill(batches)
    for batch in batches:
        told.add_many(*batch)
    assert len(filled) == len(told)
    if kind == "OrderTree":
        assert list(filled) == list(told)
    else:
        for word in {*words, 77}:
            assert filled.ids(word).tolist() == told.ids(word).tolist()
            assert filled.first(word) == told.first(word)
    for wrong in ([(u64([1]), 0, 0), (u64([1, 2]), u64([1]), 0)], [(u64([5]), 2**48, 0)], [(array("i", [1]), 0, 0)]):
        with pytest.raises(ValueError):
            filled.fill(wrong)
        assert len(filled) == len(told)


# -- memory ------------------------------------------------------------------------------------------------------------

@needs_c
@pytest.mark.parametrize("count", [1_001, 1_500, 4_000, 33_000, 150_000])
def test_bytes_per_entry(count: int) -> None:
    index = _ext.backend("c").index
    draw = random.Random(count)
    spread = [draw.getrandbits(64) for _ in range(count)]
    for words in (spread, range(count), [n // 2 for n in range(count)], [1] * count):
        single, batch, built = index.HashTable(), index.HashTable(), index.OrderTree()
        for id, word in enumerate(words):
            single.add(word, id)
        batch.add_many(u64(words), 0)
        built.build(u64(words), 0)
        assert single.nbytes <= 40 * count and batch.nbytes <= 40 * count
        assert built.nbytes <= (24 if count > 4000 else 28) * count
        if count < 40_000:
            gone = draw.sample(range(count), count - 1001)
            for id in gone:
                assert single.remove(words[id], id)
            assert single.nbytes <= 40 * 1001 + 12 * 1024 + 4000


@needs_c
@pytest.mark.parametrize("order", ["rising", "falling", "three"])
def test_what_comes_in_order_fills_leaves_and_what_goes_gives_back(order: str) -> None:
    tree, count = _ext.backend("c").index.OrderTree(), 40_000
    pairs = [(HOSTILE[order](n), n) for n in range(count)]
    for pair in pairs:
        tree.add(*pair)
    assert tree.nbytes <= 14 * count
    for pair in random.Random(2).sample(pairs, count * 3 // 4):
        tree.remove(*pair)
    assert tree.nbytes <= 26 * len(tree)


@needs_c
def test_wide_ids_cost_more_only_where_they_are() -> None:
    index = _ext.backend("c").index
    draw = random.Random(3)
    words = u64(draw.getrandbits(64) for _ in range(50_000))
    table, tree = index.HashTable(), index.OrderTree()
    for made in (table, tree):
        made.add_many(words, 0)
        narrow = made.nbytes
        assert narrow <= 24 * len(words)
        made.add(5, 2**40)
        assert narrow < made.nbytes <= 40 * len(words)
    assert table.ids(5).tolist() == [2**40] and table.first(words[9]) == 9
    assert tree.range(5, 5).tolist() == [2**40]
    assert tree.copy().nbytes <= tree.nbytes + 5000


@needs_c
def test_memory_is_seen() -> None:
    """It comes from Python's raw allocator, it is what ``nbytes`` says, and it is given back."""
    index = _ext.backend("c").index
    draw = random.Random(4)
    words = u64(draw.getrandbits(64) for _ in range(100_000))
    tracemalloc.start()
    try:
        for kind in (index.HashTable, index.OrderTree):
            before = tracemalloc.get_traced_memory()[0]
            made = kind()
            made.add_many(words, 0)
            seen = tracemalloc.get_traced_memory()[0] - before
            assert made.nbytes <= seen <= made.nbytes * 1.01 + 1000
            copied = made.copy()
            made.renumber(array("I", range(100_000)))
            made.clear()
            assert made.nbytes == 0
            del copied, made
            assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()


# what is called, with the n-th allocation failing: all of it has happened or nothing
NO_MEMORY = """
import random
import _testcapi
from array import array
from snapdb import _ext

index = _ext.backend("c").index
draw = random.Random(5)

def u64(values):
    return array("Q", values)

spread = u64(draw.getrandbits(64) for _ in range(700))
few = u64(draw.randrange(4) for _ in range(700))
mixed = u64([*spread[:350], *few[:350]])
mapping = array("I", [(n * 3) % 2003 for n in range(2003)])

def contents(made):
    if isinstance(made, index.OrderTree):
        return list(made)
    words = {*spread, *few, *range(2000), 9}
    return sorted((word, id) for word in words for id in made.ids(word).tolist()) + [len(made), made.distinct]

def fill(made, source):
    made.add_many(source, 0)
    return made

cases = []
for kind in (index.HashTable, index.OrderTree):
    for source in (spread, few, mixed):
        start = lambda kind=kind, source=source: fill(kind(), source)
        for batch in (spread, few, mixed):
            cases.append((start, lambda made, batch=batch: made.add_many(batch, 1000)))
            cases.append((start, lambda made, batch=batch: made.add_many(batch, 2**40)))
            cases.append((start, lambda made, batch=batch: made.add_many(u64(batch[:20]), 1200)))
        cases.append((start, lambda made: made.fill([(few, 1000, 0), (mixed, 0, 2**40)])))
        cases.append((start, lambda made: made.renumber(mapping)))
        cases.append((start, lambda made: made.add(9, 2**40)))
        cases.append((start, lambda made, source=source: made.add(source[0], 1500)))
        cases.append((start, lambda made: made.copy()))
        cases.append((start, lambda made: made.clear()))
        cases.append((start, lambda made, source=source: made.remove_many(source, 0)))
    if kind is index.OrderTree:
        cases.append((start, lambda made: made.build(few, 1000)))
        for words in (range(2000), [1] * 2000):
            # the next one splits a leaf
            for already in (0, 255, 256, 767, 1024, 1535):
                def start(kind=kind, words=words, already=already):
                    made = kind()
                    for id in range(already):
                        made.add(words[id], id)
                    return made
                cases.append((start, lambda made, words=words, already=already: made.add(words[already], already)))
        cases.append((start, lambda made: made.range(3)))
        # the batch has a pair that is there, and one for which a leaf is split
        for batch, numbers in ((u64([1, 1]), u64([5, 9000])), (u64([1] * 9), u64([*range(8), 9000]))):
            def start(kind=kind):
                made = kind()
                for id in range(256):
                    made.add(1, id)
                return made
            cases.append((start, lambda made, batch=batch, numbers=numbers: made.add_many(batch, numbers)))
    else:
        cases.append((start, lambda made: made.clashes(mixed)))
        for already in (12, 13, 23, 50):
            def start(kind=kind, already=already):
                made = kind()
                for id in range(already):
                    made.add(id, id)
                return made
            cases.append((start, lambda made, already=already: made.add(already, already)))
            cases.append((start, lambda made, already=already: made.add(already - 1, already)))
        for already in (254, 255, 256):
            # a word gets its second id: the first goes to a leaf that is full then
            def start(kind=kind, already=already):
                made = kind()
                for id in range(already):
                    made.add(1, id)
                for word in range(2, 40):
                    made.add(word, 5)
                return made
            cases.append((start, lambda made: made.add(20, 700)))
            cases.append((start, lambda made: made.add(20, 3)))

hits = 0
for number, (start, call) in enumerate(cases):
    done = start()
    call(done)
    before, after = contents(start()), contents(done)
    n = quiet = 0
    while quiet < 3:
        n += 1
        made = start()
        failed = False
        _testcapi.set_nomemory(n, n + 1)
        try:
            call(made)
        except MemoryError:
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        hits, quiet = hits + failed, 0 if failed else quiet + 1
        assert contents(made) == (before if failed else after), (number, n, failed)
print(hits)
"""


@needs_c
def test_without_memory_nothing_changes() -> None:
    """The n-th allocation fails, for every n. (In the twins the interpreter allocates at every step.)"""
    if not survives_no_memory():
        pytest.skip("this interpreter does not survive a failed allocation by itself, or cannot be told to fail one")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", NO_MEMORY], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stderr + done.stdout)[-4000:]
    assert int(done.stdout) > 1000, done.stdout


# -- the twins ---------------------------------------------------------------------------------------------------------


def course(seed: int) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Calls for a table and a tree, with arguments that only sometimes are good."""
    draw = random.Random(seed)
    for _ in range(400):
        rare = [draw.randrange(6), draw.getrandbits(64), TOP, 2**64, -1]
        word = draw.choice(rare if draw.random() < 0.2 else [1, 2, 3])
        id = draw.choice([draw.randrange(300), *EDGES, -1, 2**48])
        batch = u64(draw.randrange(5) for _ in range(draw.randrange(40)))
        yield "both", draw.choice(["add", "add", "remove"]), (word, id)
        numbers, base = draw.choice([id, batch]), draw.choice([0, 1, id])
        yield "both", draw.choice(["add_many", "remove_many"]), (batch, numbers, base)
        yield "table", draw.choice(["ids", "first", "count"]), (word,)
        yield "tree", draw.choice(["range", "count_range"]), (word, draw.choice([None, id, TOP]))
        yield "table", "clashes", (batch,)


@pytest.mark.parametrize("seed", range(6))
def test_twins_give_equal_answers(seed: int) -> None:
    def answers(name: str) -> Iterator[Any]:
        index = _ext.backend(name).index
        made = {"table": index.HashTable(), "tree": index.OrderTree()}
        for where, method, arguments in course(seed):
            for kind in made if where == "both" else (where,):
                try:
                    answer = getattr(made[kind], method)(*arguments)
                except (ValueError, TypeError, OverflowError) as error:
                    answer = type(error), str(error)
                yield answer.tolist() if isinstance(answer, memoryview) else answer
        yield list(made["tree"]), len(made["table"])

    expected = list(answers("python"))
    for name in BACKENDS:
        assert list(answers(name)) == expected, name
