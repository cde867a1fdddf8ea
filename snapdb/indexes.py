"""The indexes of a table: which columns have one, what is in them once that is needed, and what they forbid.

A unique column, or the primary key, has a hash index; ``create_index`` and ``create_range_index`` give others one. An
index holds words of values and row ids and no value (``_ext/_index.pyi``). It is made of the rows when it is first
needed and told of every write from then on; whatever cannot be told leaves it to be made again.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import scan
from ._ext._common import SEGMENT, logical
from .errors import CorruptionError, UniqueError, shorten
from .step import Call

if TYPE_CHECKING:
    from ._ext import Backend
    from .conditions import Predicate
    from .schema import Schema
    from .table import Change, Staged, Table

__all__ = ["KINDS", "Index", "Indexes", "Move"]

#: what an index is for: equality, or order too
KINDS = ("hash", "range")
#: rows that an index may name in any table
FEW = 16
#: row ids that are read from an index and intersected with others in the time in which one row is read and tested
INTERSECTED = 8
#: rows that are read in the time in which one is read and tested
UNTESTED = 4


class Index:
    """The index of one column. ``pairs``: a ``HashTable`` or an ``OrderTree`` of words and row ids; None: it is to be
    made of the rows. ``made``: since the transaction began.
    """

    __slots__ = ("_plain", "code", "column", "exact", "kind", "made", "name", "new", "pairs", "unique", "word", "words")

    def __init__(self, kernels: Backend, schema: Schema, column: int, kind: str) -> None:
        kernel = kernels.index
        definition = schema.columns[column]
        self.column, self.kind, self.name = column, kind, definition.name
        self.code = definition.type.code
        self.unique = definition.unique and kind == "hash"
        self.exact: bool = kernel.exact(self.code)
        ordered = kind == "range"
        self.new: Callable[[], Any] = kernel.OrderTree if ordered else kernel.HashTable
        self.word: Callable[[int, Any], Optional[int]] = kernel.order_word if ordered else kernel.key_word
        self.words: Callable[..., tuple[Any, Any]] = kernel.order_words if ordered else kernel.key_words
        self.pairs: Any = None
        self.made = False
        self._plain = float if definition.type.is_float else int if definition.type.is_integer else None

    def plain_ends(self, low: Any, high: Any) -> Optional[tuple[int, int]]:
        """The words of two numbers that a numeric column can hold as they are, which takes a tenth of the time that
        binding conditions does; None for all else.
        """
        if type(low) is not self._plain or type(high) is not self._plain:
            return None
        try:
            one, other = self.word(self.code, low), self.word(self.code, high)
        except ValueError:  # beyond the type
            return None
        return None if one is None or other is None else (one, other)

    # What follows is called in the one step in which the table changes: for want of memory nothing is raised, the
    # index is made again when it is needed. Doing one twice does no harm: the pairs are a set.

    def add(self, word: int, idx: int) -> None:
        """A row has this word."""
        self._tell("add", word, idx)

    def remove(self, word: int, idx: int) -> None:
        """A row has it no more."""
        self._tell("remove", word, idx)

    def add_many(self, words: Any, ids: Any, base: int) -> None:
        """Rows ``base`` + each of ``ids`` have these words."""
        self._tell("add_many", words, ids, base)

    def remove_many(self, words: Any, ids: Any, base: int) -> None:
        """They have them no more."""
        self._tell("remove_many", words, ids, base)

    def forget(self) -> None:
        """It is made of the rows again when it is needed."""
        self.pairs = None

    def _tell(self, what: str, *told: Any) -> None:
        pairs = self.pairs
        if pairs is None:
            return
        try:
            getattr(pairs, what)(*told)
        except MemoryError:
            self.pairs = None
        except BaseException:  # a signal in pure Python code
            self.pairs = None
            raise


class Move(NamedTuple):
    """A row's word in an index changes; None: it has none."""

    of: Index
    old: Optional[int]
    new: Optional[int]
    idx: int


class Named(NamedTuple):
    """Rows that indexes name: their ids, rising, the columns of the indexes, and which of the conditions these rows
    meet for certain; the others are to be tested.
    """

    ids: Sequence[int]
    columns: list[str]
    met: set[int]


class _Answer(NamedTuple):
    """How many rows an index names for some of the conditions, and what gives their ids, rising."""

    number: int
    of: Index
    conditions: list[int]
    ids: Callable[[], Any]


_Entry = tuple[Index, Any, Any]  # an index, words and the rows of a batch that have them (None: each has one)
_INVERSE = {"add": "remove", "remove": "add", "add_many": "remove_many", "remove_many": "add_many"}


class Indexes:
    """Every index of a table. Nulls and NaN are in none and never collide.

    With a ``table`` they are made of its rows when they are first needed.
    """

    def __init__(self, schema: Schema, kernels: Backend, table: Optional[Table] = None) -> None:
        self.schema = schema
        self._kernels = kernels
        self._unique = [
            Index(kernels, schema, j, "hash") for j, column in enumerate(schema.columns) if column.unique
        ]
        self._named: dict[str, dict[str, Index]] = {kind: {} for kind in KINDS}
        self._all: list[Index] = list(self._unique)
        self._notes: Optional[list[tuple[Index, str, tuple[Any, ...]]]] = None  # of the open transaction
        self._table = table
        if table is None:
            for index in self._unique:
                index.pairs = index.new()  # of no rows

    def __bool__(self) -> bool:
        return bool(self._all)

    # -- definitions ---------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """The columns that were given an index of this kind."""
        return list(self._named[kind])

    def define(self, name: str, kind: str) -> None:
        """Have an index of a column. It is made when it is needed."""
        if name in self._named[kind]:
            return
        index = self._of_unique(name) if kind == "hash" else None
        if index is None:
            index = Index(self._kernels, self.schema, self.schema.index(name), kind)
            self._all.append(index)
        self._named[kind][name] = index

    def drop(self, name: str, kind: str) -> bool:
        """Have it no more; whether there was one. What keeps a column unique stays."""
        index = self._named[kind].pop(name, None)
        if index is not None and not index.unique:
            self._all.remove(index)
            index.forget()  # a caller may still have the lookup() that asks it, and nothing tells it of writes now
        return index is not None

    def described(self) -> dict[str, list[str]]:
        """What a file keeps of the definitions, ready for JSON."""
        return {kind: list(named) for kind, named in self._named.items() if named}

    def _of_unique(self, name: str) -> Optional[Index]:
        return next((index for index in self._unique if index.name == name), None)

    def of(self, column: int, kind: str) -> Optional[Index]:
        """The index of a column, made by now; None where it has none. The caller holds the table's lock."""
        for index in self._all:
            if index.column == column and index.kind == kind:
                if index.pairs is None:
                    self._make([index])
                return index
        return None

    def hashed(self) -> dict[str, Index]:
        """The hash indexes by the names of their columns."""
        return {index.name: index for index in self._all if index.kind == "hash"}

    def has(self, column: int, kind: str) -> bool:
        """Whether a column has an index of this kind."""
        return any(index.column == column and index.kind == kind for index in self._all)

    # -- making them of the rows ---------------------------------------------

    def stale(self, table: Table) -> None:
        """Every index is made of the table's rows when it is next needed."""
        self._table = table
        self.forget()

    def forget(self) -> None:
        """Let go of what was made."""
        for index in self._all:
            index.forget()

    def _fresh(self) -> None:
        """Have what unique columns need. CorruptionError where two rows have the same: nobody could write that."""
        self._make([index for index in self._unique if index.pairs is None])

    def _make(self, indexes: Sequence[Index]) -> None:
        if not indexes:
            return
        taken = self._read(indexes)
        for index, batches in zip(indexes, taken):
            index.pairs = _pairs(index, batches)
            index.made = True
        for index in indexes:
            if index.unique:
                self._must_differ(index)

    def _read(self, indexes: Sequence[Index]) -> list[list[_Batch]]:
        """The words of every live row, for each index in batches."""
        taken: list[list[_Batch]] = [[] for _ in indexes]
        table = self._table
        if table is None:
            return taken
        with table.lock, table.view() as view:
            for k, mask in scan.selected(view, None):
                start = 0
                for piece, size in enumerate(view.bounds(k)):
                    part = scan.submask(mask, start, size)
                    for index, batches in zip(indexes, taken):
                        words, rows = index.words(view.chunks(index.column, k)[piece], part)
                        batches.append(_Batch(words, rows, k * SEGMENT + start))
                    start += size
        return taken

    def verify(self) -> Iterator[str]:
        """What is wrong with the indexes, a sentence each: every one that is made is compared with the rows. The
        caller holds the table's lock.
        """
        made = [index for index in self._all if index.pairs is not None]
        for index, batches in zip(made, self._read(made)):
            left = index.pairs.copy()
            for batch in batches:
                left.remove_many(*batch.told())
            missing = sum(len(batch.words) for batch in batches) - (len(index.pairs) - len(left))
            if missing or len(left):
                yield f"the {index.kind} index of column {index.name!r} lacks {missing} rows and has {len(left)} others"

    def _must_differ(self, index: Index) -> None:
        pairs, table = index.pairs, self._table
        if len(pairs) == pairs.distinct or table is None:
            return
        index.pairs = None
        seen: set[Any] = set()
        for value in table.select_column(index.name):
            if value is not None and value == value and value in seen:
                raise CorruptionError(
                    f"column {index.name!r} is unique and two rows have {shorten(value)}", column=index.name
                )
            seen.add(value)
        index.pairs = pairs  # different texts with the same word

    def memory_usage(self) -> int:
        """Bytes that they hold."""
        return sum(index.pairs.nbytes for index in self._all if index.pairs is not None)

    # -- transactions --------------------------------------------------------

    def begin(self) -> None:
        """From here on note what ``rollback`` needs."""
        for index in self._all:
            index.made = False
        self._notes = []

    def commit(self) -> None:
        """Forget what was noted."""
        self._notes = None

    def rollback(self) -> None:
        """The indexes as they were at ``begin``; it may be called again where an interrupt cut it short."""
        notes = self._notes or []
        for index in self._all:
            if index.made:  # of rows that are taken back
                index.forget()
        for index, what, told in reversed(notes):
            index._tell(_INVERSE[what], *told)
        self._notes = None

    # -- reads -----------------------------------------------------------------

    def candidates(self, plan: Sequence[tuple[int, Predicate]], rows: int) -> Optional[Named]:
        """The rows among which all are that meet all conditions; None where a scan of ``rows`` rows is faster, or no
        index can say. The caller holds the table's lock.
        """
        most = max(FEW, rows // self._table.scanned) if self._table is not None else FEW
        answers = sorted(self._answers(plan), key=_number)
        if not answers or not _is_worth(answers, rows, most, len(plan)):
            return None
        named = Named(answers[0].ids(), [], set())
        for answer in answers:
            if answer.number > INTERSECTED * len(named.ids):
                break
            if answer.of.name in named.columns:
                continue
            if named.columns:
                named = named._replace(ids=sorted(set(named.ids).intersection(answer.ids())))
            named.columns.append(answer.of.name)
            named.met.update(answer.conditions if answer.of.exact else ())
        return named if len(named.ids) <= (most if len(named.met) < len(plan) else UNTESTED * most) else None

    def _answers(self, plan: Sequence[tuple[int, Predicate]]) -> Iterator[_Answer]:
        """What the indexes say of the conditions: each of those of equality, and all ranges of a column at once."""
        for index in self._all:
            asked = [
                (at, predicate) for at, (j, predicate) in enumerate(plan) if j == index.column and not predicate.negate
            ]
            for at, predicate in asked:
                values = _values_of(predicate)
                if values is not None:
                    yield self._of_values(index, at, values)
            ranges = [(at, one) for at, one in asked if one.kind == "range" and _values_of(one) is None]
            if ranges and index.kind == "range":
                yield self._of_ranges(index, ranges)

    def _of_values(self, index: Index, at: int, values: Iterable[Any]) -> _Answer:
        words = {index.word(index.code, value) for value in values} - {None}
        pairs = self._made(index)
        if index.kind == "hash":
            number, ids = sum(map(pairs.count, words)), pairs.ids
        else:
            number, ids = sum(pairs.count_range(word, word) for word in words), lambda word: pairs.range(word, word)
        return _Answer(number, index, [at], lambda: _merged([ids(word) for word in words]))

    def _of_ranges(self, index: Index, ranges: Sequence[tuple[int, Predicate]]) -> _Answer:
        ends = [self.bounds(index, predicate) for _, predicate in ranges]
        low = max((low for low, _ in ends if low is not None), default=None)
        high = min((high for _, high in ends if high is not None), default=None)
        pairs = self._made(index)
        number = pairs.count_range(low, high)
        return _Answer(number, index, [at for at, _ in ranges], lambda: sorted(pairs.range(low, high)))

    def _made(self, index: Index) -> Any:
        """The pairs of an index, which is made if it is not yet."""
        if index.pairs is None:
            self._make([index])
        return index.pairs

    @staticmethod
    def bounds(index: Index, predicate: Predicate) -> tuple[Optional[int], Optional[int]]:
        """The words between which the values of a range lie, both included."""
        low = None if predicate.lo is None else index.word(index.code, predicate.lo)
        return low, None if predicate.hi is None else index.word(index.code, predicate.hi)

    def _call(self, index: Index, what: str, *told: Any) -> Call:
        if self._notes is not None:
            self._notes.append((index, what, told))
        return partial(getattr(index, what), *told)

    # -- checks --------------------------------------------------------------

    def find(self, j: int, physical: Any) -> Optional[int]:
        """The row that has this physical value in unique column j."""
        self._fresh()
        index = next(one for one in self._unique if one.column == j)
        return self.first(index, physical)

    def first(self, index: Index, physical: Any) -> Optional[int]:
        """The row with the lowest id that has a value. The caller holds the table's lock."""
        word = index.word(index.code, physical)
        return None if word is None else self._owner(index, word, physical)

    def _owner(self, index: Index, word: int, physical: Any) -> Optional[int]:
        """The row with the lowest id that has a value."""
        if index.exact:
            first: int = index.pairs.first(word)
            return None if first < 0 else first
        for idx in index.pairs.ids(word):
            if self._stored(index, idx) == physical:
                return int(idx)
        return None

    def _stored(self, index: Index, idx: int) -> Any:
        """The physical value of a stored row; None where it is not there any more."""
        table = self._table
        row = None if table is None else table.get(idx)
        if row is None or table is None:
            return None
        return table.codec.encode_value(index.column, row[index.name])

    def check_row(self, values: Sequence[Any]) -> list[tuple[Index, int]]:
        """The words of a new row of physical values; UniqueError where one is taken."""
        self._fresh()
        found = []
        for index in self._all:
            if index.pairs is None:
                continue
            physical = values[index.column]
            word = index.word(index.code, physical)
            if word is None:
                continue
            if index.unique:
                owner = self._owner(index, word, physical)
                if owner is not None:
                    raise self._taken(index, physical, _has_it(owner), -1)
            found.append((index, word))
        return found

    def check_batch(self, staged: Staged) -> list[_Entry]:
        """The words of staged rows; UniqueError names the first row that repeats a value, in the table or in the
        batch.
        """
        self._fresh()
        found = []
        for index in self._all:
            if index.pairs is not None:
                words, rows = index.words(staged.buffers[index.column])
                if index.unique:
                    self._check_words(index, words, rows, staged.buffers[index.column])
                found.append((index, words, rows))
        return found

    def _check_words(self, index: Index, words: Any, rows: Any, buffer: Any) -> None:
        seen: set[Any] = set()
        for at in index.pairs.clashes(words):
            position = at if rows is None else rows[at]
            physical = buffer.physical(position)
            owner = self._owner(index, words[at], physical)
            if owner is not None:
                raise self._taken(index, physical, _has_it(owner), position)
            key = words[at] if index.exact else physical
            if key in seen:
                raise self._taken(index, physical, "an earlier row of the same batch has it", position)
            seen.add(key)

    def check_changes(self, table: Table, changes: Iterable[Change]) -> list[Move]:
        """What planned updates move; UniqueError where the table would repeat a value after all of them."""
        changes = list(changes)
        touched = {j for change in changes for j, _ in change.values}
        self._make([index for index in self._unique if index.pairs is None and index.column in touched])
        moves: list[Move] = []
        values: list[tuple[Any, Any]] = []  # of each move the value of before and of after
        built: dict[int, list[Index]] = {}
        for index in self._all:
            if index.pairs is not None:
                built.setdefault(index.column, []).append(index)
        for idx, given in changes:
            row: Any = None
            for j, physical in given:
                for index in built.get(j, ()):
                    row = table.get(idx) if row is None else row
                    before = None if row is None else table.codec.encode_value(j, row[index.name])
                    moves.append(
                        Move(index, index.word(index.code, before), index.word(index.code, physical), idx)
                    )
                    values.append((before, physical))
        self._check_moves(moves, values)
        return moves

    def _check_moves(self, moves: Sequence[Move], values: Sequence[tuple[Any, Any]]) -> None:
        released = {(m.of, _key(m, m.old, v[0])) for m, v in zip(moves, values) if m.of.unique}
        given: dict[Any, int] = {}
        for move, (_, physical) in zip(moves, values):
            index, word = move.of, move.new
            if not index.unique or word is None:
                continue
            key = index, _key(move, word, physical)
            owner = self._owner(index, word, physical)
            if owner is not None and owner != move.idx and key not in released:
                raise self._taken(index, physical, _has_it(owner), -1)
            if given.setdefault(key, move.idx) != move.idx:
                raise self._taken(index, physical, f"the stored row with id {given[key]} would have it too", -1)

    # -- what follows prepares calls for the one step in which the table and its indexes change ------------------

    def entering(self, idx: int, words: Sequence[tuple[Index, int]]) -> list[Call]:
        """Calls that enter a new row."""
        return [self._call(index, "add", word, idx) for index, word in words]

    def leave(self, idx: int, words: Sequence[tuple[Index, int]]) -> None:
        """Take back what ``entering`` entered."""
        for index, word in words:
            index.remove(word, idx)

    def entering_batch(self, first: int, entries: Sequence[_Entry]) -> list[Call]:
        """Calls that enter rows ``first`` onwards."""
        return [
            self._call(index, "add_many", words, *((first, 0) if rows is None else (rows, first)))
            for index, words, rows in entries
        ]

    def moving(self, moves: Sequence[Move]) -> list[Call]:
        """Calls that carry out checked moves: every old word goes before any new one comes."""
        gone = [self._call(m.of, "remove", m.old, m.idx) for m in moves if m.old is not None]
        return gone + [self._call(m.of, "add", m.new, m.idx) for m in moves if m.new is not None]

    def forgetting(self, table: Table, ids: Sequence[int]) -> list[Call]:
        """Calls that take out rows that are deleted."""
        built = [index for index in self._all if index.pairs is not None]
        if not built:
            return []
        words = [(array("Q"), array("Q")) for _ in built]
        for idx in ids:
            row = table.get(idx)
            if row is None:
                continue
            for index, (found, places) in zip(built, words):
                word = index.word(index.code, table.codec.encode_value(index.column, row[index.name]))
                if word is not None:
                    found.append(word)
                    places.append(idx)
        return [self._call(index, "remove_many", found, places, 0) for index, (found, places) in zip(built, words)]

    def rebuilding(self) -> list[Call]:
        """Calls that leave every index to be made again: ``compact()`` gives the rows other ids."""
        for index in self._all:
            index.made = True  # and again where that is taken back
        return [partial(index.forget) for index in self._all]

    def _taken(self, index: Index, physical: Any, where: str, position: int) -> UniqueError:
        value = logical(index.code, physical)
        return UniqueError(
            f"UNIQUE constraint failed: {index.name}={shorten(value)}", column=index.name, row_index=position,
            hint=f"{where}: update that row, use upsert() with a primary key, or give another value",
        )  # fmt: skip


class _Batch(NamedTuple):
    """Words of rows that lie together: ``base`` + each of ``rows``; None: of consecutive ones from there."""

    words: Any
    rows: Any
    base: int

    def told(self) -> tuple[Any, Any, int]:
        """As the kernels take it."""
        return (self.words, self.base, 0) if self.rows is None else (self.words, self.rows, self.base)


def _pairs(index: Index, batches: Sequence[_Batch]) -> Any:
    """A table or tree of everything that was read."""
    made = index.new()
    made.fill([batch.told() for batch in batches])
    return made


def _number(answer: _Answer) -> int:
    return answer.number


def _is_worth(answers: Sequence[_Answer], rows: int, most: int, conditions: int) -> bool:
    """Whether reading rows that indexes name is faster than a scan: few of one, or fewer yet that two of them name."""
    first = answers[0]
    if first.number <= (UNTESTED * most if first.of.exact and len(first.conditions) == conditions else most):
        return True
    second = min((answer.number for answer in answers if answer.of.name != first.of.name), default=rows)
    return second <= INTERSECTED // 2 * most and first.number * second <= most * rows


def _values_of(predicate: Predicate) -> Optional[Sequence[Any]]:
    """The values of a condition of equality, None for another one."""
    if predicate.kind == "in":
        return predicate.values
    if predicate.kind == "never":
        return ()
    equal = predicate.kind == "range" and predicate.lo is not None and predicate.lo == predicate.hi
    return (predicate.lo,) if equal else None


def _merged(found: list[Any]) -> Any:
    """Rising ids of several words."""
    if len(found) <= 1:
        return found[0] if found else ()
    return sorted(idx for ids in found for idx in ids)


def _key(move: Move, word: Optional[int], physical: Any) -> Any:
    return word if move.of.exact else physical


def _has_it(idx: int) -> str:
    return f"the stored row with id {idx} has it"

