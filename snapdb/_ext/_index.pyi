"""Indexes: words of keys, a hash table and an ordered tree from words to row ids. See ``_index_py`` for the readable twin."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional, Union

Physical = Union[int, float, bytes, None]

LARGEST_ID: int  # 2**48 - 1

def exact(code: int) -> bool:
    """Whether words of this dtype are the whole key: equal words mean equal values. If not (text), candidates are to be verified."""

def key_word(code: int, value: Physical) -> Optional[int]:
    """The 64-bit hash word of one physical value; None for null and NaN, which no index has. Seeded per process. ValueError for a value that the dtype cannot hold."""

def key_words(source: Any, mask: Any = None) -> tuple[memoryview, Optional[memoryview]]:
    """The hash words of a whole ``ColumnBuffer`` or chunk, or of the rows that a bitmap selects: (words 'Q', their rows 'I').

    Rows is None where every row has a word. ValueError for a bitmap of another length.
    """

def order_word(code: int, value: Physical) -> Optional[int]:
    """As ``key_word``, but in order: where a < b, word(a) <= word(b), and < for dtypes that are ``exact``. Of text the first 8 bytes, filled up with NULs."""

def order_words(source: Any, mask: Any = None) -> tuple[memoryview, Optional[memoryview]]:
    """``order_word`` for a whole buffer or chunk, as ``key_words``."""

class HashTable:
    """A multimap of 64-bit words to row ids (0 to ``LARGEST_ID``), a set of pairs. What fails for want of memory changes nothing; removing never fails.

    Words are ints from 0 to 2**64 - 1, batches of them a contiguous buffer of u64 ('Q'); batches of ids one of u32 or u64 with ``base`` added to each, or an int: the first of consecutive ids.
    ValueError for other words, ids and lengths. Ids cost 4 bytes as long as all of a table are below 2**32 - 2, else 8.
    """

    def __init__(self) -> None: ...
    def add(self, word: int, id: int) -> bool:
        """Whether the pair was not there yet."""
    def remove(self, word: int, id: int) -> bool:
        """Whether the pair was there."""
    def first(self, word: int) -> int:
        """The lowest id of a word, -1 where it has none."""
    def ids(self, word: int) -> memoryview:
        """All ids of a word, rising ('Q')."""
    def count(self, word: int) -> int:
        """How many ids a word has."""
    def fill(self, batches: list[tuple[Any, Any, int]]) -> None:
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them."""
    def add_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
    def remove_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Remove what is there; whether all of them were."""
    def clashes(self, words: Any) -> memoryview:
        """The positions, rising ('Q'), of the batch's words that are in the table, or in the batch more than once."""
    def reserve(self, rows: int) -> None:
        """Make room for that many more words, so that adding them does not have to."""
    def renumber(self, mapping: Any) -> None:
        """Id i becomes ``mapping[i]`` (u32 or u64); all ones: its pairs go. IndexError for an id that is not in the mapping. Changes all or nothing."""
    def clear(self) -> None:
        """Remove everything."""
    def copy(self) -> "HashTable":
        """Another table with the same pairs."""
    @property
    def distinct(self) -> int:
        """How many words there are."""
    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
    def __len__(self) -> int: ...

class OrderTree:
    """A set of (word, id) pairs in order: a B+-tree with counts, so that counting a range does not walk it.

    Arguments, errors and failures are as those of ``HashTable``. Ids cost 4 bytes as long as all of a tree are below 2**32, else 8.
    Ranges are of words, ``low`` or ``high`` None meaning unbounded.
    """

    def __init__(self) -> None: ...
    def add(self, word: int, id: int) -> bool:
        """Whether the pair was not there yet."""
    def remove(self, word: int, id: int) -> bool:
        """Whether the pair was there."""
    def add_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
    def remove_many(self, words: Any, ids: Any, base: int = 0) -> bool:
        """Remove what is there; whether all of them were."""
    def fill(self, batches: list[tuple[Any, Any, int]]) -> None:
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them, sorted once."""
    def build(self, words: Any, ids: Any, base: int = 0) -> None:
        """Replace what there is by a batch, sorted once."""
    def range(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
        descending: bool = False,
        limit: int = -1,
    ) -> memoryview:
        """The ids ('Q') of a range in the order of (word, id), or exactly reversed; at most ``limit`` of them (-1: all)."""
    def pairs(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
        descending: bool = False,
        limit: int = -1,
    ) -> tuple[memoryview, memoryview]:
        """As ``range``: the words ('Q') and the ids."""
    def count_range(
        self,
        low: Optional[int] = None,
        high: Optional[int] = None,
        low_open: bool = False,
        high_open: bool = False,
    ) -> int:
        """How many pairs a range has, without walking it."""
    def first(self) -> Optional[tuple[int, int]]:
        """The first (word, id), None where there is none."""
    def last(self) -> Optional[tuple[int, int]]:
        """The last (word, id), None where there is none."""
    def renumber(self, mapping: Any) -> None:
        """As ``HashTable.renumber``."""
    def clear(self) -> None:
        """Remove everything."""
    def copy(self) -> "OrderTree":
        """Another tree with the same pairs."""
    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(word, id) pairs in order. A change in between shows where the iteration has not been yet."""

class Gate:
    """An ``insert(row)`` that outlasts the making of an index. While ``open`` is true it is ``fast(row)``, which tells no index; else ``slow(row)``, which does.

    ``late()`` is called where it was shut while ``fast`` was at work.
    """

    open: bool

    def __init__(self, fast: Callable[[Mapping[str, Any]], int], slow: Callable[[Mapping[str, Any]], int], late: Callable[[], None]) -> None: ...
    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row; returns its id."""

class Tally:
    """How often an operation went well (``ok``) and how often it raised (``failed``), exactly, whichever threads call.

    One call in ``every`` that goes well is timed, the first one too: ``observe(seconds)``.
    """

    def __init__(self, every: int, observe: Callable[[float], Any]) -> None: ...
    @property
    def ok(self) -> int:
        """Calls that went well."""
    @property
    def failed(self) -> int:
        """Calls that raised."""
    def done(self, seconds: float) -> None:
        """A call went well and took so long."""
    def fail(self) -> None:
        """A call raised."""
    def clear(self) -> None:
        """Begin at 0."""

class Meter:
    """Single-row operations that a ``Tally`` counts, each the same as ``call``.

    With an ``owner``, a weak reference, ``call`` gets what it refers to first; where that is gone, ``gone()`` says so.
    """

    def __init__(self, tally: Tally, call: Callable[..., Any], owner: Optional[Callable[[], Any]], gone: Callable[[], Any]) -> None: ...
    def get(self, idx: Any) -> Any:
        """The row with this id, None where there is none."""
    def insert(self, row: Any) -> Any:
        """Append a row; returns its id."""
    def lookup(self, column_name: Any, value: Any) -> Any:
        """The first row whose column equals the value, None where there is none."""
    def update(self, idx: Any, row: Any) -> Any:
        """Merge ``row`` into row ``idx``."""
    def delete(self, idx: Any) -> Any:
        """Delete row ``idx``."""
