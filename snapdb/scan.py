"""Filters and materialisation over a table as of one moment. Both engines speak it.

A ``View`` is a table as of the moment it was made: segments of 65,536 row positions, each column of a segment one or
two chunks (the sealed part and the tail). A ``Where`` turns conditions into a selection bitmap per segment. Nothing
here loops over rows; the kernels do.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from . import _ext
from ._ext._common import SEGMENT, TYPECODES, Zone, mask_bytes
from ._ext._zones import judge
from .conditions import ALIASES, Condition, Predicate, bind, normalize
from .errors import ValidationError, ValueTypeError, shorten
from .schema import Schema

if TYPE_CHECKING:
    from ._ext import Backend, Chunk

__all__ = [
    "ALL", "Among", "Page", "Selector", "View", "Where", "WhereCallable", "make_where", "pages", "pages_of", "pick",
    "read_by", "readable", "rows_at", "selected", "submask",
]  # fmt: skip

#: the mask of every row of a segment, told by identity
ALL = bytearray()
#: rows whose masks are made before the first of them is used
MANY = 16 * SEGMENT
#: bound conditions that a schema keeps, and the longest value of one, in bytes
KNOWN, LONG = 256, 256
#: more rows than any table has; what is asked beyond it means the same
ENDLESS = 2**48
_PLAIN = frozenset((int, float, str, bytes))
Found = Optional[bytearray]  # None: no row; ALL: every row; else a bitmap


def pick(own: Backend, use_numpy: Optional[bool]) -> Backend:
    """The kernels a call with ``use_numpy`` runs on. ImportError where NumPy is asked for and missing."""
    if use_numpy is None:
        return own
    if use_numpy:
        return _ext.backend("numpy")
    return _ext.backend("python") if own.name == "numpy" else own


class View:
    """A table as of one moment: what scans read. Engines subclass it; a context manager that releases what it pins."""

    slab_zones = False  # whether the sweep has zone maps of its own

    def __init__(self, kernels: Backend, own: Backend, schema: Schema, rows: int) -> None:
        self.kernels = kernels
        self.schema = schema
        self.rows = rows
        self._foreign = kernels is not own

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Give back what the view pins."""

    def segments(self) -> int:
        """Segments, the open one included."""
        return (self.rows + SEGMENT - 1) // SEGMENT

    def size(self, k: int) -> int:
        """Row positions of segment k."""
        return min(SEGMENT, self.rows - k * SEGMENT)

    def dead(self, k: int) -> bool:
        """Whether segment k has no live row and no bytes."""
        raise NotImplementedError

    def live(self, k: int) -> Optional[bytearray]:
        """A new bitmap of the live rows of segment k, None where all are live."""
        raise NotImplementedError

    def bounds(self, k: int) -> Sequence[int]:
        """Rows of each chunk of segment k, alike for all columns."""
        raise NotImplementedError

    def pieces(self, j: int, k: int) -> Sequence[Chunk]:
        """The chunks of column j of segment k, in row order."""
        raise NotImplementedError

    def zone(self, j: int, k: int) -> Optional[Zone]:
        """The zone map of the first chunk, None where there is none."""
        return None

    def sweep(self) -> Any:
        """What scans many segments at a call (``_codecs.pyi``), None where this view has no such thing."""
        return None

    def terms(self, where: Where) -> Any:
        """Conditions in the terms of ``sweep``."""
        return self.kernels.codecs.Filter([(j, *predicate) for j, predicate in where.plan], where.combine == "or")

    def chunks(self, j: int, k: int) -> Sequence[Chunk]:
        """``pieces`` as the chunks of this view's kernels."""
        pieces = self.pieces(j, k)
        if not self._foreign:
            return pieces
        adopt = self.kernels.codecs.Chunk.adopt
        return [adopt(piece) for piece in pieces]

    def physical(self, j: int, k: int, row: int) -> Any:
        """Column j's physical value of one row of segment k."""
        for piece, size in enumerate(self.bounds(k)):
            if row < size:
                return self.chunks(j, k)[piece].physical(row)
            row -= size
        raise IndexError(row)

    def take(self, j: int, page: Page) -> list[Any]:
        """Column j's logical values of a page's rows."""
        return self.chunks(j, page.k)[page.piece].take(page.rows)

    def whole(self, j: int, k: int) -> Chunk:
        """Column j of segment k as one chunk (a decoded copy where it is in two)."""
        pieces = self.chunks(j, k)
        if len(pieces) == 1:
            return pieces[0]
        buffer = pieces[0].decode()
        for piece in pieces[1:]:
            buffer.extend(piece.decode())
        chunk: Chunk = self.kernels.codecs.Chunk.view(buffer)
        return chunk


# -- which rows ------------------------------------------------------------


class Where:
    """Bound conditions: (column index, predicate) pairs, all of them or any of them."""

    __slots__ = ("combine", "plan")

    def __init__(self, plan: Sequence[tuple[int, Predicate]], combine: str) -> None:
        self.plan = plan
        self.combine = combine

    def mask(self, view: View, k: int) -> Found:
        """The rows of segment k that match, live or not."""
        return self._any(view, k) if self.combine == "or" else self._all(view, k)

    def _all(self, view: View, k: int) -> Found:
        kernel = view.kernels.mask
        result: Found = ALL
        for j, predicate in self.plan:
            found = _column_mask(view, j, k, predicate)
            if found is None:
                return None
            if found is ALL:
                continue
            if result is ALL:
                result = found
            else:
                kernel.and_into(result, found)
            if not kernel.any_set(result):
                return None
        return result

    def _any(self, view: View, k: int) -> Found:
        result: Found = None
        for j, predicate in self.plan:
            found = _column_mask(view, j, k, predicate)
            if found is ALL:
                return ALL
            if found is None:
                continue
            if result is None:
                result = found
            else:
                view.kernels.mask.or_into(result, found)
        return result


class WhereCallable:
    """A Python callable over whole rows: every row is built and asked."""

    def __init__(self, predicate: Callable[[dict[str, Any]], Any]) -> None:
        self.predicate = predicate

    def mask(self, view: View, k: int) -> Found:
        """The live rows of segment k that the callable accepts."""
        predicate = self.predicate
        live = view.live(k)
        hits = array("I")
        for page in _segment_pages(view, k, live, 0, -1):
            rows = page.records(view, range(len(view.schema.columns)), view.schema.names)
            offsets = range(len(rows)) if page.rows is None else page.rows
            hits.extend(page.start + at for at, row in zip(offsets, rows) if predicate(row))
        if not hits:
            return None
        found: bytearray = view.kernels.mask.from_ids(hits, view.size(k))
        return found


class Among:
    """Conditions that an index has narrowed down: ``ids`` are rising and have every row that meets them all, and
    ``plan`` is what these rows are still to be tested by.
    """

    __slots__ = ("ids", "plan")

    def __init__(self, plan: Sequence[tuple[int, Predicate]], ids: Sequence[int]) -> None:
        self.plan = plan
        self.ids = ids

    def mask(self, view: View, k: int) -> Found:
        """The rows of segment k that match, live or not."""
        base = k * SEGMENT
        ids = self.ids[bisect_left(self.ids, base) : bisect_left(self.ids, base + view.size(k))]
        rows = [idx - base for idx in ids]
        for j, predicate in self.plan:
            rows = [row for row in rows if predicate.matches(view.physical(j, k, row))]
        if not rows:
            return None
        found: bytearray = view.kernels.mask.from_ids(array("I", rows), view.size(k))
        return found


Selector = Union[Where, WhereCallable, Among]


def make_where(schema: Schema, where: Any, combine: str = "and") -> Optional[Selector]:
    """A selector from conditions or a callable, None for every row.

    Raises ConditionError (a ValueError) and UnknownColumnError before anything is read.
    """
    plan = None
    if type(where) is Among:
        return where
    if type(combine) is str and combine in ("and", "or"):
        if where is None:
            return None
        plan = _plan_again(schema, where) if type(where) is list else None
    if callable(where):
        normalize([], combine)
        return WhereCallable(where)
    if plan is None:
        plan = [_bound(schema, condition) for condition in normalize(where, combine)]
    return Where(plan, combine) if plan else None


def _bound(schema: Schema, condition: Condition) -> tuple[int, Predicate]:
    j = schema.index(condition.column)
    column = schema.columns[j]
    bound = j, bind(condition, column.type, not column.not_null)
    value = condition.value
    if type(value) in _PLAIN and getsizeof(value) <= LONG:
        known = schema._bound
        if len(known) >= KNOWN:
            known.clear()
        known[condition.column, condition.op, type(value), value] = bound
    return bound


def _plan_again(schema: Schema, where: list[Any]) -> Optional[list[tuple[int, Predicate]]]:
    """The plan of conditions that were all met before, None for others: binding takes longer than a small scan."""
    known = schema._bound
    plan = []
    for item in where:
        if type(item) is not tuple or len(item) != 3:
            return None
        column, op, value = item
        if type(column) is not str or type(op) is not str or type(value) not in _PLAIN:
            return None
        bound = known.get((column, ALIASES.get(op, op), type(value), value))
        if bound is None:
            return None
        plan.append(bound)
    return plan


def read_by(where: Optional[Selector], *columns: int) -> Optional[Sequence[int]]:
    """The columns that these conditions read, and ``columns``; None: any, as a callable sees whole rows."""
    if where is None:
        return columns
    return None if isinstance(where, WhereCallable) else [*columns, *[j for j, _ in where.plan]]


def _column_mask(view: View, j: int, k: int, predicate: Predicate) -> Found:
    """The rows of one segment that match one predicate: zone map first, then the chunks."""
    bounds = view.bounds(k)
    verdicts = [judge(view.zone(j, k) if p == 0 else None, *predicate) for p in range(len(bounds))]
    if all(verdict is False for verdict in verdicts):
        return None
    if all(verdict is True for verdict in verdicts):
        return ALL
    # only now are values read: a zone map that settles it saves decoding (columns with updates) and gathering (rows)
    chunks = view.chunks(j, k)
    masks = [_chunk_mask(view.kernels, chunks, p, size, predicate, verdicts[p]) for p, size in enumerate(bounds)]
    # every chunk but the last is whole blocks, so its bitmap is whole bytes: masks join by joining their bytes
    return masks[0] if len(masks) == 1 else bytearray().join(masks)


def _chunk_mask(
    kernels: Backend, chunks: Sequence[Chunk], p: int, rows: int, predicate: Predicate, verdict: Optional[bool]
) -> bytearray:
    if verdict is False or (predicate.kind == "never" and not predicate.negate):
        empty: bytearray = kernels.mask.empty(rows)
        return empty
    if verdict is True:
        full: bytearray = kernels.mask.full(rows)
        return full
    chunk = chunks[p]  # only now, for it may not be read yet
    if predicate.kind in ("not_null", "never"):
        return chunk.valid()
    if predicate.kind == "null":
        nulls: bytearray = kernels.mask.full(chunk.rows)
        kernels.mask.andnot_into(nulls, chunk.valid())
        return nulls
    if predicate.kind == "in":
        found = chunk.select_in(predicate.values)
    else:
        found = chunk.select(predicate.lo, predicate.hi, predicate.lo_open, predicate.hi_open)
    if predicate.negate:
        valid = chunk.valid()
        kernels.mask.andnot_into(valid, found)
        return valid
    return found


def filter_of(view: View, where: Optional[Selector]) -> tuple[Any, Any]:
    """The view's sweep and the conditions in its terms; (None, None) where it has none or they are a callable."""
    if where is not None and type(where) is not Where:
        return None, None
    sweep = view.sweep()
    if sweep is None or where is None:
        return sweep, None
    return sweep, view.terms(where)


def selected(view: View, where: Optional[Selector], most: int = MANY) -> Iterator[tuple[int, Optional[bytearray]]]:
    """(segment, bitmap of its live matching rows) for the segments that may have one; None: every position.

    Many segments are looked at before the first is given, unless ``most`` rows are found: who needs few, says so.
    """
    sweep, conditions = filter_of(view, where)
    k, count = 0, view.segments()
    while k < count:
        if sweep is not None:
            found, k = sweep.masks(conditions, k, min(most, MANY))
            yield from found
            if k == count or found:
                continue
        yield from segment_mask(view, where, k)
        k += 1


def segment_mask(view: View, where: Optional[Selector], k: int) -> list[tuple[int, Optional[bytearray]]]:
    """(k, bitmap of segment k's live matching rows) where there may be one: the path that does every segment."""
    if view.dead(k):
        return []
    mask = view.live(k)
    if where is not None:
        found = where.mask(view, k)
        if found is None:
            return []
        if found is not ALL:
            if mask is not None:
                view.kernels.mask.and_into(found, mask)
            mask = found
    return [(k, mask)]


def count(view: View, where: Optional[Selector]) -> int:
    """Live rows that match."""
    if type(where) is Among and not where.plan:
        return len(where.ids)
    sweep, conditions = filter_of(view, where)
    total = k = 0
    stop = view.segments()
    while k < stop:
        if sweep is not None:
            found, k = sweep.count(conditions, k)
            total += found
            if k == stop:
                break
        for _, mask in segment_mask(view, where, k):
            total += view.size(k) if mask is None else view.kernels.mask.count(mask)
        k += 1
    return total


# -- rows and columns of a selection ---------------------------------------


class Page(NamedTuple):
    """Selected rows of one chunk: ``rows`` are u32 positions in the chunk (None: all), the chunk starts at
    ``start``.
    """

    k: int
    piece: int
    start: int
    size: int
    rows: Any

    def selected(self) -> int:
        """How many rows of the chunk are selected."""
        return self.size if self.rows is None else len(self.rows)

    def ids(self) -> Iterable[int]:
        """Row ids."""
        base = self.k * SEGMENT + self.start
        if self.rows is None:
            return range(base, base + self.size)
        return [base + row for row in self.rows]

    def column(self, view: View, j: int) -> list[Any]:
        """Column j's logical values."""
        return view.take(j, self)

    def records(self, view: View, columns: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """The rows as dicts."""
        if not columns:
            return [{} for _ in range(self.selected())]
        rows: list[dict[str, Any]] = view.kernels.values.records(names, [self.column(view, j) for j in columns])
        return rows


def submask(mask: Any, start: int, rows: int) -> Any:
    """The part of a segment's bitmap that covers a chunk of ``rows`` rows from ``start`` (a multiple of 1,024)."""
    return None if mask is None else memoryview(mask)[start // 8 : start // 8 + mask_bytes(rows)]


def _segment_pages(view: View, k: int, mask: Optional[bytearray], skip: int, limit: int) -> Iterator[Page]:
    """Pages of one segment, after ``skip`` selected rows, at most ``limit`` (-1: all)."""
    kernel = view.kernels.mask
    start = 0
    for piece, size in enumerate(view.bounds(k)):
        part = submask(mask, start, size)
        found = size if part is None else kernel.count(part)
        if skip >= found:
            skip -= found
        else:
            if part is None and (skip or 0 <= limit < found):
                part = kernel.full(size)
            page = Page(k, piece, start, size, None if part is None else kernel.ids(part, skip, limit))
            yield page
            skip = 0
            if limit >= 0:
                limit -= page.selected()
        if limit == 0:
            return
        start += size


def pages(view: View, where: Optional[Selector], skip: int = 0, limit: int = -1) -> Iterator[Page]:
    """Pages of the live matching rows in id order, after ``skip`` of them, at most ``limit`` (-1: all)."""
    if limit == 0:
        return
    for k, mask in selected(view, where, MANY if limit < 0 else skip + limit):
        found = view.size(k) if mask is None else view.kernels.mask.count(mask)
        if skip >= found:
            skip -= found
            continue
        for page in _segment_pages(view, k, mask, skip, limit):
            yield page
            if limit >= 0:
                limit -= page.selected()
        skip = 0
        if limit == 0:
            return


def column_indexes(schema: Schema, columns: Optional[Iterable[str]]) -> tuple[list[int], list[str]]:
    """Indexes and names of the columns asked for, all of them for None. UnknownColumnError; ValueError for a
    bare str.
    """
    if columns is None:
        return list(range(len(schema.columns))), list(schema.names)
    names = name_list("columns", columns)
    return [schema.index(name) for name in names], names


def name_list(option: str, names: Iterable[str]) -> list[str]:
    """The column names given for an option; ValidationError for a bare str, ValueTypeError for no iterable."""
    if isinstance(names, str):
        raise ValidationError(f"{option}: give a list of column names, such as [{shorten(names)}]")
    try:
        given = iter(names)
    except TypeError:
        raise ValueTypeError(f"{option}: give a list of column names, not {type(names).__name__}") from None
    return list(given)


def window(limit: Optional[int], offset: int) -> tuple[int, int]:
    """(skip, limit) for the kernels: limit -1 is none, 0 is no rows. ValueError for a negative offset,
    ValueTypeError for what is no int.
    """
    skip = _whole("offset", offset)
    if skip < 0:
        raise ValidationError(f"offset must be 0 or more, got {shorten(skip)}")
    return min(skip, ENDLESS), -1 if limit is None else min(max(0, _whole("limit", limit)), ENDLESS)


def _whole(option: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueTypeError(f"{option} must be an int, not {type(value).__name__} {shorten(value)}") from None


def records(
    view: View, where: Optional[Selector], columns: Optional[Iterable[str]], limit: Optional[int], offset: int
) -> list[dict[str, Any]]:
    """The selected rows as dicts, in id order."""
    indexes, names = column_indexes(view.schema, columns)
    out: list[dict[str, Any]] = []
    for page in pages(view, where, *window(limit, offset)):
        out.extend(page.records(view, indexes, names))
    return out


def arrays(
    view: View, where: Optional[Selector], columns: Optional[Iterable[str]], limit: Optional[int], offset: int
) -> dict[str, Any]:
    """The selected rows as columns: ``array.array`` for numeric columns without nulls, else a list."""
    indexes, names = column_indexes(view.schema, columns)
    typed = [view.schema.columns[j].type.is_integer or view.schema.columns[j].type.is_float for j in indexes]
    buffers: list[Any] = [view.kernels.values.ColumnBuffer(view.schema.columns[j].type.code) for j in indexes]
    lists: list[list[Any]] = [[] for _ in indexes]
    for page in pages(view, where, *window(limit, offset)):
        for at, j in enumerate(indexes):
            if typed[at]:
                chunk = view.chunks(j, page.k)[page.piece]
                buffers[at].extend(chunk.decode() if page.rows is None else chunk.gather(page.rows))
            else:
                lists[at].extend(page.column(view, j))
    return {name: _exported(buffers[at]) if typed[at] else lists[at] for at, name in enumerate(names)}


def _exported(buffer: Any) -> Any:
    if buffer.null_count:
        return buffer.tolist()
    out = array(TYPECODES[buffer.code])
    out.frombytes(bytes(buffer.data))
    return out


def iterate(view: View, step: int = 4096) -> Iterator[tuple[int, dict[str, Any]]]:
    """(id, row) of the live rows in id order, built ``step`` rows at a time."""
    columns = range(len(view.schema.columns))
    for page in pages(view, None):
        rows = page.rows
        if rows is None:
            rows = memoryview(array("I", range(page.size)))
        for at in range(0, len(rows), step):
            part = page._replace(rows=rows[at : at + step])
            yield from zip(part.ids(), part.records(view, columns, view.schema.names))


def column_values(view: View, j: int) -> list[Any]:
    """One column's logical values, live rows only, in id order."""
    out: list[Any] = []
    for page in pages(view, None):
        out.extend(page.column(view, j))
    return out


def live_buffers(view: View) -> list[Any]:
    """Every column's live rows decoded into one buffer a column, in id order."""
    buffers = [view.kernels.values.ColumnBuffer(column.type.code) for column in view.schema.columns]
    for page in pages(view, None):
        for j, buffer in enumerate(buffers):
            chunk = view.chunks(j, page.k)[page.piece]
            buffer.extend(chunk.decode() if page.rows is None else chunk.gather(page.rows))
    return buffers


def pages_of(view: View, ids: Sequence[int]) -> Iterator[Page]:
    """Pages of rows named by their ids, which are ascending and distinct."""
    at = 0
    while at < len(ids):
        k = ids[at] // SEGMENT
        start = 0
        for piece, size in enumerate(view.bounds(k)):
            first = k * SEGMENT + start
            stop = bisect_left(ids, first + size, at)
            if stop - at == size:
                yield Page(k, piece, start, size, None)
            elif stop > at:
                rows = array("I", map((-first).__add__, ids[at:stop]))
                yield Page(k, piece, start, size, memoryview(rows))
            start += size
            at = stop


def rows_at(view: View, ids: Sequence[int]) -> list[dict[str, Any]]:
    """A new dict for each of these rows, in the order of the ids, which are distinct."""
    ascending = sorted(ids)
    columns = range(len(view.schema.columns))
    out: list[dict[str, Any]] = []
    for page in pages_of(view, ascending):
        out.extend(page.records(view, columns, view.schema.names))
    if ascending == ids:
        return out
    found = dict(zip(ascending, out))
    return list(map(found.__getitem__, ids))


def readable(db: Any, call: str) -> Any:
    """What a database, or a table in memory, makes views of. ClosedError; ValueTypeError for anything else."""
    opened = getattr(db, "_open_engine", None)
    if opened is not None and not isinstance(db, type):
        return opened()
    if isinstance(getattr(db, "schema", None), Schema) and callable(getattr(db, "view", None)):
        return db
    raise ValueTypeError(f"{call} takes an open SnapDB or a ColumnarTable, not {type(db).__name__}")
