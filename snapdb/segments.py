"""A columnar table in a file: segments that are read when they are first needed, and what of them has changed since.

``Unread`` stands in the lists of every column where nothing of a segment is known yet. Loading its entry (zone maps,
updates, deleted rows) puts ``Sealed`` objects there, which read their chunk when a value of it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from weakref import WeakSet

from ._ext._common import BLOCK, SEGMENT, Zone
from .columnar_file import (
    DELETED,
    SEALED,
    TAIL_ROWS,
    Packed,
    Place,
    Record,
    Segment,
    Sorted,
    _is_same,
    all_deleted,
    base_of,
    bitmap_from,
    blank_rows,
    check_parts,
    check_times,
    halves,
    is_packed,
    overlay_from,
    packed_tail,
    pieces_of,
    place_of,
    placed,
    sort_pieces,
    tail_from,
    tokens_of,
)
from .columnar_pack import packed_open
from .errors import CorruptionError, InternalError
from .pieces import Entry, Ref, Source
from .step import Call, assign, carry_out

if TYPE_CHECKING:
    from .column import Column
    from .columnar_base import ColumnarBase

__all__ = ["Draft", "Loaded", "Sealed", "SegmentFile", "Unread", "counters", "recorded"]

#: rows of a segment that is being written, and what each piece was made from
Draft = tuple[int, dict[Place, Any]]
MOST_UPDATES = 1024  # rows of a column of a segment that are noted one by one
_NUMBER = (1 << 24) - 1  # of a column in a tag
MOST_ROWS = 1 << 40  # a header that says more is damaged: lists are made as long as it says


class Sealed:
    """The sealed part of one column of one segment, all of it in the file, with the tail behind it in the open one.
    Views share it with the table.
    """

    __slots__ = ("__weakref__", "_column", "_file", "_k", "part", "refs", "rows", "tail")

    def __init__(self, file: SegmentFile, column: Column, k: int, rows: int, refs: list[Ref], tail: Any) -> None:
        self._file = file
        self._column = column
        self._k = k
        self.rows = rows
        self.refs = refs
        self.tail = tail  # nothing is appended to it as long as this has not been read; ``Packed``: in the chunk
        self.part: Optional[tuple[Any, Any]] = None  # once it is read

    def resolve(self) -> tuple[Any, Any]:
        """Read it; the table has the result in its list from then on. CorruptionError."""
        with self._file.lock:
            if self.part is None:
                self.part = self._read()
            if self.is_in_use():
                self._column.parts[self._k] = self.part
            return self.part

    def _read(self) -> tuple[Any, Any]:
        file, rows, tail = self._file, self.rows, self.tail
        chunk = file.whole(self._column, self._k, rows, self.refs)
        if type(tail) is Packed:
            with file.damage(self._k, self._column, self.refs[0]):
                tail = packed_tail(chunk, rows, rows + tail.rows)
        return base_of(chunk, rows), tail

    def is_in_use(self) -> bool:
        """Whether the table still has this object in its list."""
        parts = self._column.parts
        return self._k < len(parts) and parts[self._k] is self


class Unread:
    """A segment whose entry is not read yet; one object for all columns."""

    __slots__ = ("_k", "file")

    def __init__(self, file: SegmentFile, k: int) -> None:
        self.file = file
        self._k = k

    def resolve(self) -> None:
        """Read the entry and the first column's chunk, by which it is found; who asks a second time wants every
        column's. CorruptionError.
        """
        file, k = self.file, self._k
        with file.lock:
            columns = file.columns[:1] if file.load(k) else file.columns
            for column in columns:
                if k < len(column.parts):
                    column.part(k)


class Loaded(NamedTuple):
    """A segment read from its entry, and what is to be noted of it (None: no live row)."""

    segment: Segment
    record: Optional[Record]


class SegmentFile:
    """What a columnar table knows of its file: where the entries are read from, and what they do not say yet."""

    def __init__(self, table: ColumnarBase, source: Source) -> None:
        self.lock = table.lock
        self.columns = table.column_list
        self._table = table
        self._source = source
        self._kernels = table.kernels
        self._codes = [column.type.code for column in self.columns]
        self.records: dict[int, Record] = {}  # what the file has of the segments that were read
        self.dirty: set[int] = set()  # segments whose entry is out of date; new rows of the open one are not told here
        # (column, segment) of updates that are not written yet: their rows, None where they are not known
        self.overlaid: dict[tuple[int, int], Optional[set[int]]] = {}
        self._uncatalogued: set[int] = set()  # segments that only the log knows of yet
        self._unread = 0
        self._left: WeakSet[Sealed] = WeakSet()  # given up by the table without having been read
        self._drafts: dict[int, Draft] = {}

    # -- reading -------------------------------------------------------------

    @contextmanager
    def damage(self, k: int, column: Optional[Column] = None, ref: Optional[Ref] = None) -> Iterator[None]:
        """Whatever does not fit is damage, said with its place."""
        name = None if column is None else column.name
        try:
            yield
        except CorruptionError as error:
            if error.segment is None:
                error.segment, error.column = k, name
            raise
        except (ValueError, OverflowError) as error:
            where = f"segment {k}" if name is None else f"column {name!r}, segment {k}"
            raise CorruptionError(
                f"{where}: {error}", path=getattr(self._source, "path", None), segment=k, column=name,
                offset=None if ref is None else ref.extent + ref.at,
            ) from error  # fmt: skip

    def chunk(self, column: Column, k: int, rows: int, refs: Sequence[Ref]) -> Any:
        """The sealed part of one column, verified, without the rows of a packed tail."""
        return base_of(self.whole(column, k, rows, refs), rows)

    def whole(self, column: Column, k: int, rows: int, refs: Sequence[Ref]) -> Any:
        """The chunk of one column with ``rows`` sealed rows, verified. An open segment's may have a block more."""
        most = rows + BLOCK if rows < SEGMENT else rows
        with self.damage(k, column, refs[0]):
            first: Any = self._source.read(refs[0])
            if len(refs) > 1:
                check_parts(first, refs)
                first = b"".join([first, *map(self._source.read, refs[1:])])
            chunk = self._kernels.codecs.Chunk(first)
            if chunk.code != column.type.code or chunk.rows not in (rows, most):
                raise ValueError(f"a chunk of dtype {chunk.code} with {chunk.rows} rows where {rows} should be")
            if column.type.is_temporal:
                check_times(chunk.code, chunk.bounds())
            return chunk

    def read(self, k: int, entry: Optional[Entry], size: int, is_open: bool) -> Loaded:
        """A segment of ``size`` row positions from its entry. Of the open one the tail is read too."""
        if entry is None:
            nothing: list[Any] = [None] * len(self.columns)
            return Loaded(Segment(nothing, nothing, nothing, None), None)
        with self.damage(k):
            found = sort_pieces(entry, self._codes)
            first = found.sealed[0]
            base = 0 if first is None else first[0]
            if base > size or (base < SEGMENT) != is_open:
                raise ValueError(f"{base} sealed rows do not make a segment of {size}")
            ref = found.ref(DELETED, 0)
            deleted = None if ref is None else bitmap_from(self._kernels, self._source.read(ref), size)
        parts = [self._part(k, j, found, base, size, deleted) for j in range(len(self.columns))]
        zones = [None if sealed is None else sealed[1] for sealed in found.sealed]
        overlays = [self._overlay(k, j, found, size) for j in range(len(self.columns))]
        segment = Segment(parts, zones, overlays, deleted)
        tokens = tokens_of(segment)
        # every part of a chunk was made from the same; what there is of deleted rows is needed no more
        made = {place: tokens.get((place[0], 0) if place[0] >> 24 == SEALED else place) for place in found.places}
        places = {place: (made[place], ref) for place, ref in found.places.items()}
        if is_packed(found, base, size, deleted):
            tails = {place_of(TAIL_ROWS, j): found.chunk(j)[0] for j in range(len(self.columns))}
            places.update((place, (Packed(*tokens[place]), ref)) for place, ref in tails.items())
        record = Record(size, places)
        return Loaded(segment, record)

    def _part(self, k: int, j: int, found: Sorted, base: int, size: int, deleted: Optional[bytearray]) -> Any:
        column, refs, tail = self.columns[j], found.chunk(j), None
        if refs and is_packed(found, base, size, deleted):
            return Sealed(self, column, k, base, refs, Packed(base, size - base))
        if base < SEGMENT or found.tails[j]:
            with self.damage(k, column, refs[0] if refs else None):
                pieces = [(start, self._source.read(one)) for start, one in found.tail(j)]
                tail = tail_from(self._kernels, column.type.code, pieces, base, size, deleted)
        return Sealed(self, column, k, base, refs, tail) if refs else (None, tail)

    def _overlay(self, k: int, j: int, found: Sorted, size: int) -> Optional[dict[int, Any]]:
        column, overlay = self.columns[j], {}
        for ref in found.updates(j):
            with self.damage(k, column, ref):
                overlay.update(overlay_from(self._kernels, column.type.code, self._source.read(ref), size))
        return overlay or None

    def adopt(self, rows: int, live: int) -> Loaded:
        """Note that the file has ``rows`` positions; the open segment, of which all but the chunks is read at once."""
        closed, size = rows >> 16, rows & (SEGMENT - 1)
        entry = self._entry(closed) if size else None
        with self.damage(closed):
            if size and entry is None and live > rows - size:
                raise ValueError("the last segment is missing")
        loaded = self._open(closed, entry, size)
        self._unread = closed
        if loaded.record is not None:
            self.records[closed] = loaded.record
        return loaded

    def _open(self, k: int, entry: Optional[Entry], size: int) -> Loaded:
        """The open segment, which is there also where it has no row."""
        if entry is not None:
            return self.read(k, entry, size, True)
        nothing: list[Any] = [None] * len(self.columns)
        parts, zones = zip(*[self._blank(column, size) for column in self.columns])
        deleted: Optional[bytearray] = None
        if size:  # no row of it is live, so nothing of it was written
            deleted = self._kernels.mask.empty(SEGMENT)
            every = self._kernels.mask.full(size)
            deleted[: len(every)] = every
        return Loaded(Segment(list(parts), list(zones), nothing, deleted), None)

    def _blank(self, column: Column, size: int) -> tuple[Any, Optional[Zone]]:
        """A part of so many rows that nobody can read, and its zone map."""
        kernels, base, code = self._kernels, size // BLOCK * BLOCK, column.type.code
        tail = blank_rows(kernels, code, size - base)
        if not base:
            return (None, tail), None
        chunk, zone = kernels.codecs.encode(blank_rows(kernels, code, base), 0, base)
        return (chunk, tail), zone

    def _entry(self, k: int) -> Optional[Entry]:
        with self.damage(k):
            return self._source.entry(k)

    def load(self, k: int) -> bool:
        """Read the entry of segment k, if it is not yet; whether it was not."""
        parts = self.columns[0].parts
        if k >= len(parts) or type(parts[k]) is not Unread or parts[k].file is not self:
            return False
        loaded = self.read(k, self._entry(k), SEGMENT, False)
        # readers look at the first column's part first: it comes last
        carry_out((), [*self._installing(k, loaded), partial(setattr, self, "_unread", self._unread - 1)])
        return True

    def _installing(self, k: int, loaded: Loaded) -> list[Call]:
        parts, zones, overlays, deleted, _ = loaded.segment
        found: list[Call] = [assign(self._table.deleted, k, deleted)]
        if loaded.record is not None:
            found.append(assign(self.records, k, loaded.record))
        for column, part, zone, overlay in reversed(list(zip(self.columns, parts, zones, overlays))):
            found += [assign(column.zones, k, zone), *column.overlaying(k, overlay), assign(column.parts, k, part)]
        return found

    def load_all(self) -> None:
        """Read every entry that is not read yet."""
        if self._unread:
            for k in range(len(self.columns[0].parts)):
                self.load(k)

    # -- what has changed ----------------------------------------------------

    def touch(self, k: int, columns: Iterable[int], rows: Optional[Set[int]] = None) -> None:
        """Segment k is about to change, and in ``columns`` the updates of its rows: of these, or of any."""
        self.dirty.add(k)
        for j in columns:
            if rows is None:
                self.overlaid[j, k] = None
                continue
            known = self.overlaid.setdefault((j, k), set())
            if known is not None:
                known.update(rows)
                if len(known) > MOST_UPDATES:
                    self.overlaid[j, k] = None

    def leave(self, ks: Iterable[int]) -> None:
        """The table is about to give up these segments: what is not read yet may still be asked for by a view."""
        for k in ks:
            self._left.update(column.parts[k] for column in self.columns if type(column.parts[k]) is Sealed)

    def succeed(self, before: SegmentFile, source: Source) -> None:
        """Be what the table has in place of another file, read from ``source`` from here on."""
        before.leave(range(len(self.columns[0].parts)))
        self._left, self._source = before._left, source

    def renumbering(self, segments: int) -> list[Call]:
        """The calls that note that every row has another place, in a table of so many segments."""
        stale = {k: Record(-1, {}) for k in self.records}
        return [partial(self.records.update, stale), partial(self.dirty.update, [*stale, *range(segments)])]

    def remembering(self, records: Mapping[int, Record]) -> list[Call]:
        """The calls that note what was written of segments that the catalog does not have yet."""
        written = [(j, k) for k in records for j in range(len(self.columns))]
        return [
            partial(self._uncatalogued.update, [k for k in records if k not in self.records]),
            partial(self.records.update, records),
            partial(self.dirty.update, list(records)),
            *[partial(self.overlaid.pop, place, None) for place in written],
        ]

    def recalling(self, records: Mapping[int, Optional[Record]]) -> list[Call]:
        """The calls that take back what was noted of these segments. What is written again needlessly does no harm."""
        rewritten = [(j, k) for k in records for j in range(len(self.columns))]
        return [
            *[
                partial(self.records.pop, k, None) if record is None else assign(self.records, k, record)
                for k, record in records.items()
            ],
            partial(self.dirty.update, list(records)),
            partial(self.overlaid.update, dict.fromkeys(rewritten)),
        ]

    def is_behind(self) -> bool:
        """Whether the open segment has changed since its entry was written."""
        last = len(self.columns[0].parts) - 1
        record = self.records.get(last)
        return last in self.dirty or self._table.segment_rows(last) != (0 if record is None else record.rows)

    def changes(self, final: bool = False) -> Iterator[tuple[int, Optional[Entry]]]:
        """See ``Table.changes``."""
        for sealed in list(self._left):  # views still have these, and the file may soon have something else there
            if not sealed.is_in_use():
                sealed.resolve()
        self._drafts = {}
        last = len(self.columns[0].parts) - 1
        for k in sorted(self.dirty | {last}) if self.is_behind() else sorted(self.dirty):
            segment = self._table.segment(k)
            if segment is not None and not all_deleted(segment.deleted, 0, self._table.segment_rows(k)):
                if final and k == last and not self._is_packed(segment, k):
                    segment = packed_open(self._table, segment, self._chunks_written(segment, k))
                fresh = {j: self.overlaid[j, k] for j in range(len(self.columns)) if (j, k) in self.overlaid}
                entry, tokens = pieces_of(self._kernels, self._codes, segment, self.records.get(k), fresh)
                self._drafts[k] = (self._table.segment_rows(k), tokens)
                yield k, entry
                continue
            for column in self.columns if segment is not None else ():
                column.part(k)  # the table goes on with these rows, and the file may soon have something else there
            if k in self.records and k not in self._uncatalogued:
                yield k, None
            else:  # came and went since
                self.dirty.discard(k)
                self.records.pop(k, None)

    def _is_packed(self, segment: Segment, k: int) -> bool:
        """Whether the tail of the open segment is in its chunks as it is."""
        record, (sealed, tail) = self.records.get(k), halves(segment.parts[0])
        held = None if record is None else record.places.get(place_of(TAIL_ROWS, 0))
        if held is None or type(held[0]) is not Packed or sealed is None or tail is None:
            return False
        return held[0] == (sealed.rows, tail.rows) and self._chunks_written(segment, k)

    def _chunks_written(self, segment: Segment, k: int) -> bool:
        """Whether the sealed parts of a segment are in the file as they are."""
        record = self.records.get(k)
        if record is None:
            return False
        held = [record.places.get(place_of(SEALED, j)) for j in range(len(self.columns))]
        parts = [halves(part)[0] for part in segment.parts]
        return all(
            one is not None and _is_same(place_of(SEALED, 0), part, one[0], ()) for part, one in zip(parts, held)
        )

    def saved(self, stored: Iterable[tuple[int, Optional[Entry]]]) -> None:
        """See ``Table.saved``."""
        for k, entry in stored:
            self.dirty.discard(k)
            self._uncatalogued.discard(k)
            for j in range(len(self.columns)):
                self.overlaid.pop((j, k), None)
            if entry is None:
                self.records.pop(k, None)
            elif k in self._drafts:
                self.records[k] = recorded(self._drafts[k], entry)
        self._drafts = {}

    # -- large batches -------------------------------------------------------

    def replayed(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> list[Loaded]:
        """The segments of a batch that the log says is appended from ``first`` on, the new open one included."""
        k, last, size = len(self.columns[0].parts) - 1, first + rows >> 16, first + rows & (SEGMENT - 1)
        with self.damage(k):
            if first != self._table.rows or rows < 1 or first + rows > MOST_ROWS:
                raise ValueError(f"{rows} rows from {first} on do not follow {self._table.rows} rows")
            if [key for key, _ in stored] != list(range(k, last + (size > 0))):
                raise ValueError(f"the log has other segments than those of rows {first} to {first + rows}")
        closed = [self.read(key, entry, SEGMENT, False) for key, entry in stored if key < last]
        return [*closed, self._open(last, stored[-1][1] if size else None, size)]


def recorded(draft: Draft, entry: Entry) -> Record:
    """What to note of a segment once its entry is written."""
    rows, tokens = draft
    refs = {place: piece.ref for place, piece in placed(entry.pieces)}
    places: dict[Place, tuple[Any, Ref]] = {}
    parts: dict[Sealed, list[Ref]] = {}
    for place, token in tokens.items():
        ref = refs.get(place_of(SEALED, place[0] & _NUMBER) if type(token) is Packed else place)
        if ref is None:
            raise InternalError(f"piece {place} of a segment was not written")
        if type(token) is Sealed:
            parts.setdefault(token, []).append(ref)
        places[place] = (token, ref)
    for token, found in parts.items():
        token.refs = found
    return Record(rows, places)


def counters(header: Mapping[str, Any]) -> tuple[int, int]:
    """(rows, live rows) of a file's header. CorruptionError where they make no sense."""
    rows, live = header.get("rows"), header.get("live")
    if type(rows) is not int or type(live) is not int or not 0 <= live <= rows <= MOST_ROWS:
        raise CorruptionError(f"the stored counters cannot be: {rows!r} rows, {live!r} of them live")
    return rows, live
