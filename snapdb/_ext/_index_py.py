"""Indexes: words of keys, a hash table and an ordered tree from words to row ids. The readable twin of ``_index.pyx``.

Nothing here knows tables. A key comes as a 64-bit word, a row as its id. What goes in as a batch is first copied,
checked and sorted, so nothing has changed where that fails. A word with one id has it in a dict; the ids of a word with
several stand in a tree of pairs, where removing one costs the same however many there are.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress, count
from operator import index as as_index
from struct import Struct
from time import perf_counter as clock
from typing import Any, Optional, Union

from ._bits_py import checked, flags_of
from ._common import BOOL, FLOATS, INTS, LIMITS, U8, U16, U32, U64, VARLEN
from ._seed import SEEDS
from ._values_py import ColumnBuffer

__all__ = [
    "Gate", "HashTable", "Meter", "OrderTree", "Tally", "exact", "key_word", "key_words", "order_word", "order_words",
]  # fmt: skip

Physical = Union[int, float, bytes, None]
Pair = tuple[int, int]

LARGEST_ID = 2**48 - 1  # six bytes: more than rows that fit anywhere

_ALL = 2**64 - 1
_TOP = 2**63
_GONE = {4: 2**32 - 1, 8: _ALL}
_MANY = -1  # in the place of a word's one id: they stand in the tree
_LEAF = 512  # pairs of a leaf that is built; one of twice as many is split
_UNSIGNED = frozenset((U8, U16, U32, U64, BOOL))
_DOUBLE, _BITS = Struct("<d"), Struct("<Q")


# -- words -------------------------------------------------------------------


def _check_code(code: int) -> None:
    if code not in INTS and code not in FLOATS and code not in VARLEN and code != BOOL:
        raise ValueError(f"unknown dtype code {code}")


def exact(code: int) -> bool:
    """Whether words of this dtype are the whole key: equal words mean equal values."""
    _check_code(code)
    return code not in VARLEN


def _mixed(bits: int) -> int:
    """Each word to another one. Multiply-shift with secret odd factors: nobody can aim at one place."""
    bits = (bits ^ SEEDS[0]) * SEEDS[1] & _ALL
    bits = (bits ^ bits >> 32) * SEEDS[2] & _ALL
    return bits ^ bits >> 32


def _bits(code: int, value: Any) -> Optional[int]:
    """A number as 64 bits: two's complement, or those of a double; None for NaN."""
    if code in FLOATS:
        number = float(value)
        found: int = _BITS.unpack(_DOUBLE.pack(number + 0.0))[0]  # -0.0 is 0.0
        return found if number == number else None
    whole = as_index(value)
    low, high = LIMITS[code]
    if not low <= whole <= high:
        raise ValueError(f"dtype {code} cannot hold {whole}")
    return whole & _ALL


def _text(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"a string's physical value is bytes, not {type(value).__name__}")
    return value


def key_word(code: int, value: Physical) -> Optional[int]:
    """The 64-bit hash word of one physical value; None for null and NaN, which no index has."""
    _check_code(code)
    if value is None:
        return None
    if code in VARLEN:
        return hash(_text(value)) & _ALL  # SipHash with the process's secret
    bits = _bits(code, value)
    return None if bits is None else _mixed(bits)


def order_word(code: int, value: Physical) -> Optional[int]:
    """As ``key_word``, but in the order of values; of text the first 8 bytes."""
    _check_code(code)
    if value is None:
        return None
    if code in VARLEN:
        return int.from_bytes(_text(value)[:8].ljust(8, b"\0"), "big")
    bits = _bits(code, value)
    if bits is None or code in _UNSIGNED:
        return bits
    if code in FLOATS and bits >= _TOP:
        return bits ^ _ALL
    return bits ^ _TOP


def _words(source: Any, mask: Any, word: Any) -> tuple[memoryview, Optional[memoryview]]:
    buffer = source if isinstance(source, ColumnBuffer) else source.decode()
    code, rows = buffer.code, range(buffer.rows)
    wanted: Iterable[int] = rows
    if mask is not None:
        view = checked(mask, len(rows))
        bits = int.from_bytes(view, "little") & (1 << len(rows)) - 1
        wanted = compress(rows, flags_of(bits, len(rows)))
    found = [(row, word(code, buffer.physical(row))) for row in wanted]
    words = array("Q", [each for _, each in found if each is not None])
    if len(words) == len(rows):
        return memoryview(words), None
    return memoryview(words), memoryview(array("I", [row for row, each in found if each is not None]))


def key_words(source: Any, mask: Any = None) -> tuple[memoryview, Optional[memoryview]]:
    """The hash words of a buffer or chunk, or of the rows that a bitmap selects: (words, their rows or None)."""
    return _words(source, mask, key_word)


def order_words(source: Any, mask: Any = None) -> tuple[memoryview, Optional[memoryview]]:
    """``order_word`` for a buffer or chunk, as ``key_words``."""
    return _words(source, mask, order_word)


# -- what comes in -----------------------------------------------------------


def _word(value: Any) -> int:
    word = as_index(value)
    if not 0 <= word <= _ALL:
        raise ValueError(f"a word is 0 to 2**64 - 1, not {word}")
    return word


def _id(value: Any) -> int:
    found = as_index(value)
    if not 0 <= found <= LARGEST_ID:
        raise ValueError(f"an id is 0 to 2**48 - 1, not {found}")
    return found


def _unsigned(data: Any, narrow: bool) -> memoryview:
    """A contiguous buffer of u64, or with ``narrow`` of u32; ValueError for anything else."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("the memory must be contiguous")
    if view.format.lstrip("@=<") in ("Q", "L", "I") and view.ndim == 1:
        if view.itemsize == 8 or (narrow and view.itemsize == 4):
            return view
    raise ValueError(f"expected a buffer of {'u32 or u64' if narrow else 'u64'}, got format {view.format!r}")


def _pairs(words: Any, ids: Any, base: int) -> list[Pair]:
    """A batch's pairs, checked, in the batch's order."""
    given = _unsigned(words, False).tolist()
    _id(base)
    if not hasattr(ids, "__len__"):
        first = _id(base + ids)
        _id(first + max(0, len(given) - 1))
        return list(zip(given, range(first, first + len(given))))
    numbers = _unsigned(ids, True).tolist()
    if len(numbers) != len(given):
        raise ValueError(f"{len(numbers)} ids for {len(given)} words")
    if numbers:
        _id(base + max(numbers))
    return [(word, base + number) for word, number in zip(given, numbers)]


def _mapped(pairs: Iterable[Pair], mapping: Any) -> list[Pair]:
    """Each id's new one, in order; pairs of rows that are gone are left out."""
    view = _unsigned(mapping, True)
    gone, known = _GONE[view.itemsize], len(view)
    found = set()
    for word, old in pairs:
        if old >= known:
            raise IndexError(f"id {old} is outside the mapping of {known} ids")
        if view[old] != gone:
            found.add((word, _id(view[old])))
    return sorted(found)


def _view(values: Iterable[int] = ()) -> memoryview:
    return memoryview(array("Q", values))


# -- the tree ----------------------------------------------------------------


class _Leaf:
    """Pairs in order: two arrays, so that no pair is an object."""

    __slots__ = ("ids", "words")

    def __init__(self, pairs: list[Pair]) -> None:
        self.words = array("Q", [word for word, _ in pairs])
        self.ids = array("Q", [row for _, row in pairs])

    def __len__(self) -> int:
        return len(self.words)

    def place(self, word: int, row: int) -> int:
        """How many pairs are before this one."""
        low = bisect_left(self.words, word)
        return bisect_left(self.ids, row, low, bisect_right(self.words, word, low))

    def has(self, at: int, word: int, row: int) -> bool:
        return at < len(self.words) and self.words[at] == word and self.ids[at] == row


class OrderTree:
    """A set of (word, id) pairs in order: leaves, and a list of where each begins."""

    __slots__ = ("_count", "_leaves", "_starts")

    def __init__(self) -> None:
        self._become([])

    def _become(self, pairs: list[Pair]) -> None:
        """Have these sorted pairs and no others."""
        leaves = [_Leaf(pairs[at : at + _LEAF]) for at in range(0, len(pairs), _LEAF)]
        starts = pairs[::_LEAF]
        self._leaves, self._starts, self._count = leaves, starts, len(pairs)

    def _leaf_of(self, word: int, row: int) -> int:
        """The number of the leaf where a pair is or belongs."""
        return max(0, bisect_right(self._starts, (word, row)) - 1)

    def _put(self, word: int, row: int) -> bool:
        if not self._leaves:
            self._become([(word, row)])
            return True
        number = self._leaf_of(word, row)
        leaf = self._leaves[number]
        at = leaf.place(word, row)
        if leaf.has(at, word, row):
            return False
        if len(leaf) == 2 * _LEAF:
            self._split(number)
            return self._put(word, row)
        leaf.words.insert(at, word)
        try:
            leaf.ids.insert(at, row)
        except MemoryError:
            del leaf.words[at]
            raise
        self._count += 1
        return True

    def _split(self, number: int) -> None:
        """Half of a leaf to a new one behind it."""
        leaf, other = self._leaves[number], _Leaf([])
        other.words, other.ids = leaf.words[_LEAF:], leaf.ids[_LEAF:]
        self._starts.insert(number + 1, (other.words[0], other.ids[0]))
        try:
            self._leaves.insert(number + 1, other)
        except MemoryError:
            del self._starts[number + 1]
            raise
        del leaf.words[_LEAF:], leaf.ids[_LEAF:]

    def _drop(self, word: int, row: int) -> bool:
        if not self._leaves:
            return False
        number = self._leaf_of(word, row)
        leaf = self._leaves[number]
        at = leaf.place(word, row)
        if not leaf.has(at, word, row):
            return False
        del leaf.words[at], leaf.ids[at]
        self._count -= 1
        if len(leaf) <= _LEAF // 2:
            self._thin(number)
        return True

    def _thin(self, number: int) -> None:
        """Merge a leaf with one beside it, where both fit into one."""
        leaves = self._leaves
        if not leaves[number]:
            del leaves[number], self._starts[number]
            return
        for left in (number, number - 1):
            if 0 <= left < len(leaves) - 1 and len(leaves[left]) + len(leaves[left + 1]) <= _LEAF:
                leaves[left].words += leaves[left + 1].words
                leaves[left].ids += leaves[left + 1].ids
                del leaves[left + 1], self._starts[left + 1]
                return

    def _put_sorted(self, pairs: list[Pair]) -> int:
        before = self._count
        if len(pairs) > before >> 3:
            self._become(sorted({*self, *pairs}))
            return self._count - before
        fresh = []
        try:
            for pair in pairs:
                if self._put(*pair):
                    fresh.append(pair)
        except MemoryError:
            for pair in fresh:
                self._drop(*pair)
            raise
        return len(fresh)

    def add(self, word: int, id: int) -> bool:
        """Whether the pair was not there yet."""
        return self._put(_word(word), _id(id))

    def remove(self, word: int, id: int) -> bool:
        """Whether the pair was there."""
        return self._drop(_word(word), _id(id))

    def add_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
        pairs = _pairs(words, ids, base)
        return self._put_sorted(sorted(set(pairs))) == len(pairs)

    def remove_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Remove what is there; whether all of them were."""
        pairs = _pairs(words, ids, base)
        return sum(self._drop(word, row) for word, row in pairs) == len(pairs)

    def build(self, words: Any, ids: Any, base: int = 0) -> None:
        """Replace what there is by a batch, sorted once."""
        self.fill([(words, ids, base)])

    def fill(self, batches: list[tuple[Any, Any, int]]) -> None:
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them, sorted once."""
        self._become(sorted({pair for batch in batches for pair in _pairs(*batch)}))

    def _place(self, word: int) -> tuple[int, int]:
        """(leaf, place in it) of the first pair of a word or a later one; behind the last one: (leaves, 0)."""
        if word > _ALL or not self._leaves:
            return len(self._leaves), 0
        number = self._leaf_of(word, 0)
        at = self._leaves[number].place(word, 0)
        return (number, at) if at < len(self._leaves[number]) else (number + 1, 0)

    def _ends(
        self, low: Optional[int], high: Optional[int], low_open: bool, high_open: bool
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        first = 0 if low is None else _word(low) + bool(low_open)
        end = _ALL + 1 if high is None else _word(high) + (not high_open)
        place = self._place(first)
        return place, max(place, self._place(end))

    def _slices(self, start: tuple[int, int], end: tuple[int, int]) -> list[tuple[_Leaf, int, int]]:
        """(leaf, from, to) of the pairs between two places."""
        (first, at), (last, to) = start, end
        found = []
        for number in range(first, min(last + 1, len(self._leaves))):
            leaf = self._leaves[number]
            found.append((leaf, at if number == first else 0, to if number == last else len(leaf)))
        return found

    def _walk(
        self,
        low: Optional[int],
        high: Optional[int],
        low_open: bool,
        high_open: bool,
        descending: bool,
        limit: int,
    ) -> tuple[Any, Any]:
        words, ids = array("Q"), array("Q")
        slices = self._slices(*self._ends(low, high, low_open, high_open))
        for leaf, first, end in reversed(slices) if descending else slices:
            step = -1 if descending else 1
            words += leaf.words[first:end][::step]
            ids += leaf.ids[first:end][::step]
            if 0 <= limit <= len(ids):
                break
        if limit >= 0:
            del words[limit:], ids[limit:]
        return words, ids

    def range(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
        descending: bool = False,
        limit: int = -1,
    ) -> memoryview:
        """The ids of a range in the order of (word, id), or exactly reversed; at most ``limit`` of them (-1: all)."""
        return memoryview(self._walk(low, high, low_open, high_open, descending, limit)[1])

    def pairs(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
        descending: bool = False,
        limit: int = -1,
    ) -> tuple[memoryview, memoryview]:
        """As ``range``: the words and the ids."""
        words, ids = self._walk(low, high, low_open, high_open, descending, limit)
        return memoryview(words), memoryview(ids)

    def count_range(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
    ) -> int:
        """How many pairs a range has."""
        return sum(end - first for _, first, end in self._slices(*self._ends(low, high, low_open, high_open)))

    def first(self) -> Optional[Pair]:
        """The first (word, id), None where there is none."""
        return (self._leaves[0].words[0], self._leaves[0].ids[0]) if self._leaves else None

    def last(self) -> Optional[Pair]:
        """The last (word, id), None where there is none."""
        return (self._leaves[-1].words[-1], self._leaves[-1].ids[-1]) if self._leaves else None

    def renumber(self, mapping: Any) -> None:
        """Id i becomes ``mapping[i]``; all ones: its pairs go. Changes all or nothing."""
        self._become(_mapped(self, mapping))

    def clear(self) -> None:
        """Remove everything."""
        self._become([])

    def copy(self) -> OrderTree:
        """Another tree with the same pairs."""
        made = OrderTree()
        made._become(list(self))
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        leaves = sum(_size(leaf.words) + _size(leaf.ids) for leaf in self._leaves)
        return leaves + _size(self._starts) + _size(self._leaves) + len(self._starts) * 120

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Pair]:
        pair: Optional[Pair] = (0, -1)
        while pair is not None:
            page, pair = self._behind(pair), None
            for pair in page:
                yield pair

    def _behind(self, pair: Pair) -> list[Pair]:
        """The next pairs, up to the end of a leaf."""
        word, row = pair
        for leaf in self._leaves[self._leaf_of(word, row + 1) :][:2]:
            at = leaf.place(word, row + 1)
            if at < len(leaf):
                return list(zip(leaf.words[at:], leaf.ids[at:]))
        return []


def _size(owned: Any) -> int:
    try:
        return sys.getsizeof(owned)
    except TypeError:  # PyPy does not know
        return len(owned) * 8


# -- the table ---------------------------------------------------------------


class HashTable:
    """A multimap of 64-bit words to row ids, a set of pairs. What fails for want of memory changes nothing."""

    __slots__ = ("_rest", "_several", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}  # a word's one id, or _MANY
        self._several = 0  # words with several ids
        self._rest = OrderTree()

    def _drop(self, word: int, row: int) -> bool:
        present = self._slots.get(word)
        if present == _MANY:
            if not self._rest._drop(word, row):
                return False
            if self._rest.count_range(word, word) == 1:
                left = self._rest.range(word, word)[0]
                self._rest._drop(word, left)
                self._slots[word] = left
                self._several -= 1
            return True
        if present != row:
            return False
        del self._slots[word]
        return True

    def _put_pairs(self, pairs: Iterable[Pair]) -> int:
        before, slots = len(self), self._slots
        fresh: dict[int, int] = {}
        spilled = set()
        for word, row in pairs:
            present = fresh.get(word, slots.get(word))
            if present is None:
                fresh[word] = row
            elif present == _MANY:
                spilled.add((word, row))
            elif present != row:
                spilled.update(((word, present), (word, row)))
                fresh[word] = _MANY
        old = {word: slots[word] for word in fresh if word in slots}
        try:
            slots.update(fresh)
            self._rest._put_sorted(sorted(spilled))
        except MemoryError:
            for word in fresh:
                slots.pop(word, None)
            slots.update(old)
            raise
        self._several += sum(row == _MANY for row in fresh.values())
        return len(self) - before

    def add(self, word: int, id: int) -> bool:
        """Whether the pair was not there yet."""
        word, row = _word(word), _id(id)
        present = self._slots.get(word)
        if present is None:
            self._slots[word] = row
            return True
        if present == _MANY:
            return self._rest._put(word, row)
        return self._put_pairs([(word, row)]) == 1

    def remove(self, word: int, id: int) -> bool:
        """Whether the pair was there."""
        return self._drop(_word(word), _id(id))

    def first(self, word: int) -> int:
        """The lowest id of a word, -1 where it has none."""
        row = self._slots.get(_word(word))
        if row == _MANY:
            return self._rest.range(word, word, limit=1)[0]
        return -1 if row is None else row

    def ids(self, word: int) -> memoryview:
        """All ids of a word, rising."""
        row = self._slots.get(_word(word))
        if row == _MANY:
            return self._rest.range(word, word)
        return _view() if row is None else _view((row,))

    def count(self, word: int) -> int:
        """How many ids a word has."""
        row = self._slots.get(_word(word))
        return self._rest.count_range(word, word) if row == _MANY else int(row is not None)

    def fill(self, batches: list[tuple[Any, Any, int]]) -> None:
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them."""
        made = HashTable()
        for batch in batches:
            made._put_pairs(_pairs(*batch))
        self._slots, self._several, self._rest = made._slots, made._several, made._rest

    def add_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
        pairs = _pairs(words, ids, base)
        return self._put_pairs(pairs) == len(pairs)

    def remove_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Remove what is there; whether all of them were."""
        pairs = _pairs(words, ids, base)
        return sum(self._drop(word, row) for word, row in pairs) == len(pairs)

    def clashes(self, words: Any) -> memoryview:
        """The positions, rising, of the batch's words that are in the table, or in the batch more than once."""
        given = _unsigned(words, False).tolist()
        times = Counter(given)
        return _view(at for at, word in enumerate(given) if word in self._slots or times[word] > 1)

    def reserve(self, rows: int) -> None:
        """Make room for that many more words, so that adding them does not have to: a dict cannot."""
        if rows < 0:
            raise ValueError(f"rows must not be negative, got {rows}")
        if rows > 2**32:
            raise MemoryError

    def renumber(self, mapping: Any) -> None:
        """Id i becomes ``mapping[i]``; all ones: its pairs go. Changes all or nothing."""
        made = HashTable()
        made._put_pairs(_mapped(self._pairs(), mapping))
        self._slots, self._rest, self._several = made._slots, made._rest, made._several

    def _pairs(self) -> Iterator[Pair]:
        yield from (pair for pair in self._slots.items() if pair[1] != _MANY)
        yield from self._rest

    def clear(self) -> None:
        """Remove everything."""
        self._slots, self._rest, self._several = {}, OrderTree(), 0

    def copy(self) -> HashTable:
        """Another table with the same pairs."""
        made = HashTable()
        made._slots, made._rest, made._several = self._slots.copy(), self._rest.copy(), self._several
        return made

    @property
    def distinct(self) -> int:
        """How many words there are."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return _size(self._slots) + len(self._slots) * 68 + self._rest.nbytes  # two ints of 36 and 32 bytes

    def __len__(self) -> int:
        return len(self._slots) - self._several + len(self._rest)


# -- the gate ----------------------------------------------------------------


class Gate:
    """An ``insert(row)`` that outlasts the making of an index. While ``open`` is true it is ``fast(row)``, which tells
    no index; else ``slow(row)``, which does. ``late()`` is called where it was shut while ``fast`` was at work.
    """

    __slots__ = ("_fast", "_late", "_slow", "open")

    def __init__(
        self, fast: Callable[[Mapping[str, Any]], int], slow: Callable[[Mapping[str, Any]], int],
        late: Callable[[], None],
    ) -> None:  # fmt: skip
        self._fast, self._slow, self._late = fast, slow, late
        self.open: Any = True  # a bool that others change

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row; returns its id."""
        if not self.open:
            return self._slow(row)
        idx = self._fast(row)
        if not self.open:
            self._late()
        return idx


class Tally:
    """How often an operation went well (``ok``) and how often it raised (``failed``), exactly, whichever threads call.
    One call in ``every`` that goes well is timed, the first one too: ``observe(seconds)``.
    """

    __slots__ = ("_due", "_every", "_failed", "_observe", "_ok", "_taken")

    def __init__(self, every: int, observe: Callable[[float], Any]) -> None:
        if every < 1:
            raise ValueError(f"every is 1 or more, not {every}")
        self._every = every
        self._observe = observe
        self._due = True
        self.clear()

    @property
    def ok(self) -> int:
        """Calls that went well."""
        return _counted(self._ok)

    @property
    def failed(self) -> int:
        """Calls that raised."""
        return _counted(self._failed)

    def done(self, seconds: float) -> None:
        """A call went well and took so long."""
        next(self._ok)
        _observed(self._observe, seconds)

    def fail(self) -> None:
        """A call raised."""
        next(self._failed)

    def clear(self) -> None:
        """Begin at 0."""
        # next() of a count is one step under the GIL, which `+= 1` is not
        self._ok, self._failed = count(), count()

    def _run(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        due = self._due
        if due:
            self._due = False
            begin = clock()
        try:
            found = call(*arguments)
        except BaseException:
            next(self._failed)
            if due:
                self._due = True
            raise
        if not (next(self._ok) + 1) % self._every:
            self._due = True
        if due:
            _observed(self._observe, clock() - begin)
        return found


def _counted(counter: count[int]) -> int:
    return int(repr(counter)[6:-1])  # the only way to ask a count without changing it


def _observed(observe: Callable[[float], Any], seconds: float) -> None:
    try:
        observe(seconds)
    except MemoryError:
        pass  # the call itself is done: a figure is no reason to say that it is not


class Meter:
    """Single-row operations that a ``Tally`` counts, each the same as ``call``. With an ``owner``, a weak reference,
    ``call`` gets what it refers to first; where that is gone, ``gone()`` says so.
    """

    __slots__ = ("_call", "_gone", "_owner", "_tally")

    def __init__(
        self, tally: Tally, call: Callable[..., Any], owner: Optional[Callable[[], Any]], gone: Callable[[], Any]
    ) -> None:
        if not isinstance(tally, Tally):
            raise TypeError(f"a Tally is needed, not {type(tally).__name__}")
        self._tally = tally
        self._call = call
        self._owner = owner
        self._gone = gone

    def _run(self, *given: Any) -> Any:
        owner = self._owner
        if owner is None:
            return self._tally._run(self._call, given)
        it = owner()
        return self._tally._run(self._gone, ()) if it is None else self._tally._run(self._call, (it, *given))

    def get(self, idx: Any) -> Any:
        """The row with this id, None where there is none."""
        return self._run(idx)

    def insert(self, row: Any) -> Any:
        """Append a row; returns its id."""
        return self._run(row)

    def lookup(self, column_name: Any, value: Any) -> Any:
        """The first row whose column equals the value, None where there is none."""
        return self._run(column_name, value)

    def update(self, idx: Any, row: Any) -> Any:
        """Merge ``row`` into row ``idx``."""
        return self._run(idx, row)

    def delete(self, idx: Any) -> Any:
        """Delete row ``idx``."""
        return self._run(idx)
