"""The bytes of a columnar segment in a file (``docs/format.md``): what is in memory to pieces of an entry, and back.

What is read back is not trusted: whatever does not fit raises ValueError, which the caller turns into CorruptionError.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

from ._ext._common import BLOCK, DATE, DATETIME, FLOATS, HEADER, LIMITS, SEGMENT, VARLEN, Zone, mask_bytes
from .pieces import Entry, Piece, Ref

if TYPE_CHECKING:
    from ._ext import Backend, Chunk, ColumnBuffer

__all__ = [
    "DELETED", "OVERLAY", "SEALED", "TAIL_ROWS", "TIMES", "Packed", "Place", "Record", "Segment", "Sorted",
    "all_deleted", "base_of", "bitmap_from", "blank_rows", "check_parts", "check_times", "halves", "is_packed",
    "overlay_bytes", "overlay_from", "overlay_parts", "packed_tail", "pieces_of", "place_of", "placed", "sort_pieces",
    "tail_from", "tokens_of", "zone_bytes", "zone_from",
]  # fmt: skip

_T = TypeVar("_T")

#: kinds of pieces; a tag is ``kind << 24 | column``
SEALED, TAIL_ROWS, OVERLAY, DELETED = 1, 2, 3, 4
_SHIFT, _NUMBER = 24, (1 << 24) - 1
_SEVERAL = (SEALED, OVERLAY)  # kinds of which a column may have more than one piece, in order

# flags of a zone map
_EXACT, _LO, _HI, _TOTAL, _TEXT, _FLOAT = 1, 2, 4, 8, 16, 32
_ZONE = struct.Struct("<B3xIII")
_PREFIX = 32  # bytes of a text bound
_START = struct.Struct("<I")
_COUNT = struct.Struct("<II")
_TOTAL_BYTES, _TOTAL_AT = struct.Struct("<Q"), 64  # where a chunk's header says how long it is
#: what Python's date and datetime can be, as physical values
TIMES = {DATE: (-719_162, 2_932_896), DATETIME: (-62_135_596_800_000_000, 253_402_300_799_999_999)}

#: A chunk that takes the place of one of as many rows is written in parts of so many bytes (an extent of 32 pages with
#: its header) or, where it is large, in so many parts: they fit into whatever room there is.
_PART, _PARTS = (128 << 10) - 128, 16

#: Updates since the last checkpoint are a piece of their own behind those there are, where they are few: at most so
#: many pieces of a column, and of a segment about so many.
_UPDATES, _ALL_UPDATES = 16, 64
_FEWER = 4  # times as many updates there are in all, at least

#: a piece of a segment: (tag, first row of a tail's piece; of a chunk's parts or a column's updates which one; else 0)
Place = tuple[int, int]


class Segment(NamedTuple):
    """One segment as it is in memory, one item a column. A part is a tuple, or a ``Sealed`` that is not read yet; see
    ``halves``. ``packed``: see ``docs/format.md``, the packed tail.
    """

    parts: list[Any]
    zones: list[Optional[Zone]]
    overlays: list[Optional[dict[int, Any]]]
    deleted: Optional[bytearray]
    packed: Optional[list[Any]] = None  # chunks to be written in place of the open segment's chunks and tails


class Packed(NamedTuple):
    """Stands for a tail that is in the chunk: ``rows`` rows behind the ``base`` first ones."""

    base: int
    rows: int


class Record(NamedTuple):
    """What the file has of a segment: its row positions, and for each piece the thing in memory that it was written
    from and where it is.
    """

    rows: int
    places: dict[Place, tuple[Any, Ref]]


# -- zone maps -------------------------------------------------------------


def zone_bytes(zone: Zone, rows: int, code: int) -> bytes:
    """A zone map of ``rows`` rows of dtype ``code``."""
    lo: Any = zone.lo
    hi: Any = zone.hi
    if code in VARLEN and lo is not None:
        lo, hi = lo[:_PREFIX], None if hi is None else _rounded_up(hi)
    flags = (_EXACT if zone.exact else 0) | (_TEXT if code in VARLEN else 0) | (_FLOAT if code in FLOATS else 0)
    out = []
    for flag, value in ((_LO, lo), (_HI, hi), (_TOTAL, zone.total)):
        if value is not None:
            flags |= flag
            out.append(_number(value, code))
    # updates count each null they bring, also of a row that was null: no more than there are rows says the same
    return _ZONE.pack(flags, rows, min(zone.nulls, rows), min(zone.nans, rows)) + b"".join(out)


def _rounded_up(value: bytes) -> Optional[bytes]:
    """At most 32 bytes that are no less than ``value``; None where there are none."""
    if len(value) <= _PREFIX:
        return value
    kept = value[:_PREFIX].rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def _number(value: Any, code: int) -> bytes:
    if code in VARLEN:
        return _START.pack(len(value)) + bytes(value)
    return struct.pack("<d", value) if code in FLOATS else int(value).to_bytes(16, "little", signed=True)


def zone_from(data: bytes, code: int) -> tuple[int, Zone]:
    """(rows of the sealed part, its zone map)."""
    if len(data) < _ZONE.size or data[1:4] != b"\0\0\0":
        raise ValueError("the zone map is cut short or has a header that is none")
    flags, rows, nulls, nans = _ZONE.unpack_from(data)
    if flags >> 6 or bool(flags & _TEXT) != (code in VARLEN) or bool(flags & _FLOAT) != (code in FLOATS):
        raise ValueError(f"the zone map's flags {flags:#x} are not those of its column")
    if not 0 < rows <= SEGMENT or rows % BLOCK or nulls > rows or nans > rows or (nans and code not in FLOATS):
        raise ValueError(f"the zone map counts {nulls} nulls and {nans} NaNs in {rows} rows")
    found: list[Any] = []
    at = _ZONE.size
    for flag in (_LO, _HI, _TOTAL):
        value, at = _value_at(data, at, code) if flags & flag else (None, at)
        found.append(value)
    if at != len(data):
        raise ValueError(f"the zone map has {len(data)} bytes, not {at}")
    lo, hi, total = found
    zone = Zone(lo, hi, bool(flags & _EXACT), nulls, nans, total)
    _check_bounds(zone, code)
    if (total is not None and code in VARLEN) or (zone.exact and total is None and code not in VARLEN):
        raise ValueError("the zone map has a sum where there is none, or none where there is one")
    if zone.exact and (lo is None) != (nulls == rows):
        raise ValueError(f"the zone map counts {nulls} nulls in {rows} rows and says otherwise in its bounds")
    return rows, zone


def _value_at(data: bytes, at: int, code: int) -> tuple[Any, int]:
    width = 8 if code in FLOATS else 16
    if code in VARLEN:
        if at + 4 > len(data):
            raise ValueError("a bound of the zone map is cut short")
        (width,) = _START.unpack_from(data, at)
        if width > _PREFIX:
            raise ValueError(f"a bound of the zone map has {width} bytes, at most {_PREFIX} are allowed")
        at += 4
    stop = at + width
    if stop > len(data):
        raise ValueError("a bound of the zone map is cut short")
    raw = bytes(data[at:stop])
    if code in VARLEN:
        return raw, stop
    return (struct.unpack("<d", raw)[0] if code in FLOATS else int.from_bytes(raw, "little", signed=True)), stop


def _check_bounds(zone: Zone, code: int) -> None:
    lo: Any = zone.lo
    hi: Any = zone.hi
    if hi is None:
        if lo is not None and (zone.exact or code not in VARLEN):
            raise ValueError("the zone map has a lower bound alone")
        return
    if lo is None or lo > hi:
        raise ValueError("the zone map's bounds are not in order")
    if code in LIMITS:
        least, most = LIMITS[code]
        if lo < least or hi > most:
            raise ValueError("a bound of the zone map is outside its column's range")
        check_times(code, (lo, hi))


def check_times(code: int, bounds: Optional[Iterable[Any]]) -> None:
    """ValueError where a date or datetime (as physical value) is none that Python has."""
    if code in TIMES and bounds is not None:
        least, most = TIMES[code]
        if not all(least <= value <= most for value in bounds):
            raise ValueError("a date lies outside the years 1 to 9999")


# -- overlays, tails, deleted rows ------------------------------------------


def overlay_bytes(kernels: Backend, code: int, overlay: dict[int, Any]) -> bytes:
    """The updated rows of one column of a segment."""
    rows = sorted(overlay)
    buffer = kernels.values.ColumnBuffer(code)
    for row in rows:
        buffer.append(overlay[row])
    head = _COUNT.pack(len(rows), 0) + struct.pack(f"<{len(rows)}H", *rows)
    return head + bytes(-len(head) % 8) + bytes(kernels.values.pack_column(buffer))


def overlay_from(kernels: Backend, code: int, data: Any, size: int) -> dict[int, Any]:
    """Row of the segment (of ``size`` rows) to physical value."""
    rows, buffer = overlay_parts(kernels, code, data, size)
    return dict(zip(rows, map(buffer.physical, range(buffer.rows))))


def overlay_parts(kernels: Backend, code: int, data: Any, size: int) -> tuple[tuple[int, ...], ColumnBuffer]:
    """The rows of an overlay, ascending, and the value of each."""
    view = memoryview(data)
    if len(view) < _COUNT.size:
        raise ValueError("the overlay is cut short")
    count, zero = _COUNT.unpack_from(view)
    stop = _COUNT.size + 2 * count
    start = stop + -stop % 8
    if zero or not 0 < count <= size or start > len(view) or any(view[stop:start].tolist()):
        raise ValueError(f"the overlay of {count} rows does not fit")
    rows = struct.unpack_from(f"<{count}H", view, _COUNT.size)
    if rows[-1] >= size or any(map(int.__ge__, rows, rows[1:])):
        raise ValueError("the rows of the overlay do not rise or are outside the segment")
    buffer = kernels.values.unpack_column(view[start:], code)
    if buffer.rows != count:
        raise ValueError(f"the overlay has {buffer.rows} values for {count} rows")
    _check_buffer(buffer)
    return rows, buffer


def _check_buffer(buffer: ColumnBuffer) -> None:
    if buffer.code in TIMES and buffer.rows:
        data: Any = buffer.data
        check_times(buffer.code, (min(data), max(data)))


def tail_from(
    kernels: Backend, code: int, pieces: Iterable[tuple[int, Any]], base: int, size: int, deleted: Optional[bytearray]
) -> ColumnBuffer:
    """A tail, rows ``base`` to ``size`` of its segment, from its pieces: (first row, bytes) each, in order. Blocks of
    which every row is deleted have none.
    """
    held = dict(pieces)
    tail: ColumnBuffer = kernels.values.ColumnBuffer(code)
    for start in range(0, size - base, BLOCK):
        rows = min(BLOCK, size - base - start)
        data = held.pop(start, None)
        if data is not None:
            piece = kernels.values.unpack_column(data, code)
            if piece.rows != rows:
                raise ValueError(f"a piece of the tail has {piece.rows} rows from {start} on where {rows} should be")
            _check_buffer(piece)
            tail.extend(piece)
        elif all_deleted(deleted, base + start, rows):
            tail.extend(blank_rows(kernels, code, rows))
        else:
            raise ValueError(f"the tail has no rows from {start} on, and they are not deleted")
    if held:
        raise ValueError(f"a piece of the tail begins at row {next(iter(held))}, which does not follow on")
    return tail


def all_deleted(deleted: Optional[bytearray], start: int, rows: int) -> bool:
    """Whether so many rows of a segment from ``start`` on (a multiple of 8) are all deleted."""
    if deleted is None:
        return False
    held = int.from_bytes(deleted[start >> 3 : start + rows + 7 >> 3], "little")
    every = (1 << rows) - 1
    return held & every == every


def blank_rows(kernels: Backend, code: int, rows: int) -> ColumnBuffer:
    """A column of so many zeros or empty strings: what stands for rows that nobody can read."""
    found: ColumnBuffer = kernels.values.ColumnBuffer(code)
    if rows:
        found.append(b"" if code in VARLEN else 0.0 if code in FLOATS else 0)
    while found.rows < rows:
        more: ColumnBuffer = kernels.values.ColumnBuffer(code)
        more.extend(found)
        found.extend(more, 0, min(more.rows, rows - more.rows))
    return found


def bitmap_from(kernels: Backend, data: Any, size: int) -> bytearray:
    """The deleted rows of a segment of ``size`` rows."""
    if len(data) != mask_bytes(SEGMENT):
        raise ValueError(f"the bitmap of deleted rows has {len(data)} bytes, not {mask_bytes(SEGMENT)}")
    mask = bytearray(data)
    if kernels.mask.last(mask) >= size:
        raise ValueError("a deleted row is past the end of the segment")
    return mask


# -- a whole segment ---------------------------------------------------------


def pieces_of(
    kernels: Backend, codes: Sequence[int], segment: Segment, record: Optional[Record],
    fresh: Mapping[int, Optional[Collection[int]]],
) -> tuple[Entry, dict[Place, Any]]:  # fmt: skip
    """The entry of a segment, and for each piece what it was made from.

    What ``record`` says is in the file becomes a reference. ``fresh``: columns of which updates are not there yet, and
    these updates' rows, None where they are not known.
    """
    tokens: dict[Place, Any] = {}
    pieces: list[Piece] = []
    same: set[int] = set()  # columns whose chunk is where it was
    for place, token in tokens_of(segment).items():
        held = None if record is None else record.places.get(place)
        known = held is not None and _is_same(place, token, held[0], fresh)
        kind, j = place[0] >> _SHIFT, place[0] & _NUMBER
        if kind == TAIL_ROWS and (segment.packed is not None or type(held and held[0]) is Packed):
            known = known and len(same) == len(codes)  # in all chunks or in none
            if segment.packed is not None or known:  # it is in the chunk
                tokens[place] = Packed(*token)
                continue
        refs = _refs(record, place) if known else getattr(token, "refs", [])  # not read yet: it is where it is
        if kind == SEALED:
            refs = refs if segment.packed is None else []
            same.update([j] if refs else [])
        rows = None if known else _few_updates(codes, segment, record, place, fresh)
        if rows is not None:
            overlay: Any = segment.overlays[place[0] & _NUMBER]
            data = overlay_bytes(kernels, codes[place[0] & _NUMBER], {row: overlay[row] for row in rows})
            found = [*[Piece(place[0], b"", None, ref) for ref in _refs(record, place)], Piece(place[0], b"", data)]
        elif refs:
            found = [Piece(place[0], b"", None, ref) for ref in refs]
        else:
            data = _data(kernels, codes, segment, place)
            found = [Piece(place[0], b"", part) for part in _in_parts(data, token, held)]
        found[0] = found[0]._replace(meta=_meta(codes, segment, place, token))
        pieces += found
        tokens.update(((place[0], place[1] + at), token) for at in range(len(found)))
    return Entry(b"", pieces), tokens


def _refs(record: Optional[Record], place: Place) -> list[Ref]:
    """Where a piece is, or every part of a chunk, or all updates of a column."""
    places = {} if record is None else record.places
    if place[0] >> _SHIFT not in _SEVERAL:
        return [places[place][1]]
    return [ref for _, ref in _parts(places, place[0])]


def _few_updates(
    codes: Sequence[int], segment: Segment, record: Optional[Record], place: Place,
    fresh: Mapping[int, Optional[Collection[int]]],
) -> Optional[Collection[int]]:  # fmt: skip
    """The rows of the updates that are to be written behind those in the file; None where all are to be written."""
    kind, j = place[0] >> _SHIFT, place[0] & _NUMBER
    rows, overlay = fresh.get(j), segment.overlays[j]
    if kind != OVERLAY or not rows or not overlay or record is None or len(rows) * _FEWER > len(overlay):
        return None
    below = (SEALED << _SHIFT | j, 0)
    sealed, held = halves(segment.parts[j])[0], record.places.get(below, (None,))[0]
    if sealed is not held and not _is_same(below, sealed, held, ()):
        return None  # it was sealed anew: of what is there most is in it
    refs = _refs(record, place)
    if not refs or sum(ref.length for ref in refs[1:]) > refs[0].length or not all(row in overlay for row in rows):
        return None
    most = min(_UPDATES, _ALL_UPDATES // len(codes))
    most -= ((refs[0].extent >> 12) * 0x9E3779B1 >> 8) % (most // 2 or 1)  # else all segments come due together
    return rows if len(refs) < most else None


def _parts(places: Mapping[Place, _T], tag: int) -> list[_T]:
    """What there is for each part of a chunk, or each piece of a column's updates, in order."""
    found: list[_T] = []
    while (tag, len(found)) in places:
        found.append(places[tag, len(found)])
    return found


def _in_parts(data: Any, token: Any, held: Any) -> list[Any]:
    """The pieces that ``data`` is written in: more than one for a chunk in place of another of as many rows."""
    rows = getattr(token, "rows", None)
    if rows is None or held is None or getattr(held[0], "rows", None) != rows:
        return [data]
    view = memoryview(data)
    size = max(_PART, -(-view.nbytes // _PARTS))
    return [view[start : start + size] for start in range(0, view.nbytes, size)]


def is_packed(found: Sorted, base: int, size: int, deleted: Optional[bytearray]) -> bool:
    """Whether the tail of an open segment must be in its chunks: it has rows that somebody can read, and no piece."""
    if not 0 < base < size or any(found.tails):
        return False
    return not all_deleted(deleted, base, size - base)


def base_of(chunk: Chunk, base: int) -> Chunk:
    """A chunk's first rows, without the block of a packed tail."""
    return chunk if chunk.rows == base else chunk.part(0, base // BLOCK)


def packed_tail(chunk: Chunk, base: int, size: int) -> ColumnBuffer:
    """The rows ``base`` to ``size`` of a segment whose tail is in its chunk."""
    if not base < size <= chunk.rows:
        raise ValueError(f"the tail has no rows from {base} on, and they are not deleted")
    return chunk.gather(array("I", range(base, size)))


def check_parts(first: Any, refs: Sequence[Ref]) -> None:
    """Before the parts of a chunk are read and joined: ValueError where they cannot be those of the chunk whose first
    one is ``first``.
    """
    if len(refs) > _PARTS:
        raise ValueError(f"a chunk is in {len(refs)} parts, at most {_PARTS} are allowed")
    if len(first) < HEADER:
        raise ValueError(f"the first part of a chunk has {len(first)} bytes, its header {HEADER}")
    (total,) = _TOTAL_BYTES.unpack_from(first, _TOTAL_AT)
    size = sum(ref.length for ref in refs)
    if size != total:
        raise ValueError(f"the parts of a chunk have {size} bytes, it has {total}")
    spans = sorted((ref.extent + ref.at, ref.length) for ref in refs)
    if any(start + length > after for (start, length), (after, _) in zip(spans, spans[1:])):
        raise ValueError("the parts of a chunk share bytes")


def halves(part: Any) -> tuple[Any, Any]:
    """(sealed, tail) of a part, None for what it has none of; a ``Sealed`` stands for the chunk that it will read."""
    return part if type(part) is tuple else (part, None if part is None else part.tail)


def tokens_of(segment: Segment) -> dict[Place, Any]:
    """The place of each piece of a segment, and the thing in memory that is written there."""
    tokens: dict[Place, Any] = {}
    parts, _, overlays, deleted, _ = segment
    for j, part in enumerate(parts):
        sealed = halves(part)[0]
        if sealed is not None:
            tokens[SEALED << _SHIFT | j, 0] = sealed
    for j, part in enumerate(parts):
        sealed, tail = halves(part)
        if tail is not None:
            base = 0 if sealed is None else sealed.rows
            for start in range(0, tail.rows, BLOCK):
                rows = min(BLOCK, tail.rows - start)
                # rows of a tail never change as long as the sealed part before them has its length
                if not all_deleted(deleted, base + start, rows):
                    tokens[TAIL_ROWS << _SHIFT | j, start] = (base, rows)
    for j, overlay in enumerate(overlays):
        if overlay:
            tokens[OVERLAY << _SHIFT | j, 0] = None
    if deleted is not None:
        tokens[DELETED << _SHIFT, 0] = deleted
    return tokens


def _is_same(place: Place, token: Any, held: Any, fresh: Container[int]) -> bool:
    """Whether a piece that was written from ``held`` is what ``token`` would give."""
    kind = place[0] >> _SHIFT
    if kind == OVERLAY:
        return (place[0] & _NUMBER) not in fresh
    if kind == TAIL_ROWS:
        return bool(token == held)
    part = getattr(held, "part", None)  # it was not read yet when that was noted
    return token is held or (isinstance(part, tuple) and part[0] is token)


def _meta(codes: Sequence[int], segment: Segment, place: Place, token: Any) -> bytes:
    kind, j = place[0] >> _SHIFT, place[0] & _NUMBER
    if kind == SEALED:
        zone: Any = segment.zones[j]  # a sealed part always has one
        return zone_bytes(zone, token.rows, codes[j])
    return _START.pack(place[1]) if kind == TAIL_ROWS else b""


def _data(kernels: Backend, codes: Sequence[int], segment: Segment, place: Place) -> Any:
    kind, j, start = place[0] >> _SHIFT, place[0] & _NUMBER, place[1]
    if kind == DELETED:
        return segment.deleted
    if kind == OVERLAY:
        return overlay_bytes(kernels, codes[j], segment.overlays[j] or {})
    sealed, tail = halves(segment.parts[j])
    if kind == SEALED:
        if segment.packed is not None:
            return segment.packed[j].data
        if not sealed.sealed:  # the first part of a chunk that has a packed tail
            sealed, _ = kernels.codecs.encode(sealed.decode(), 0, sealed.rows)
        return sealed.data
    if type(tail) is Packed:  # in a chunk that is not read yet
        _, tail = segment.parts[j].resolve()
    return kernels.values.pack_column(tail, start, min(start + BLOCK, tail.rows))


def place_of(kind: int, j: int) -> Place:
    """Where the first piece of a kind of a column is."""
    return kind << _SHIFT | j, 0


def placed(pieces: Iterable[Piece]) -> Iterator[tuple[Place, Piece]]:
    """Which piece of its segment each of these is."""
    numbers: dict[int, int] = {}
    for piece in pieces:
        kind, number = piece.tag >> _SHIFT, 0
        if kind in _SEVERAL:
            number = numbers.get(piece.tag, 0)
            numbers[piece.tag] = number + 1
        elif kind == TAIL_ROWS and len(piece.meta) == _START.size:
            (number,) = _START.unpack(piece.meta)
        yield (piece.tag, number), piece


class Sorted(NamedTuple):
    """The pieces of an entry: those of a sealed part with its rows and zone map, and where each piece is."""

    sealed: list[Optional[tuple[int, Zone]]]
    tails: list[list[int]]  # first rows of each column's pieces, in order
    places: dict[Place, Ref]

    def ref(self, kind: int, j: int) -> Optional[Ref]:
        """Where a piece is of which a column has one, None where there is none."""
        return self.places.get(place_of(kind, j))

    def chunk(self, j: int) -> list[Ref]:
        """Where the parts of a column's chunk are, in order."""
        return _parts(self.places, SEALED << _SHIFT | j)

    def updates(self, j: int) -> list[Ref]:
        """Where a column's updates are, later ones behind earlier ones."""
        return _parts(self.places, OVERLAY << _SHIFT | j)

    def tail(self, j: int) -> list[tuple[int, Ref]]:
        """(first row, place) of each piece of a column's tail."""
        return [(start, self.places[TAIL_ROWS << _SHIFT | j, start]) for start in self.tails[j]]


def sort_pieces(entry: Entry, codes: Sequence[int]) -> Sorted:
    """What each piece of an entry is. Nothing is read."""
    sealed: list[Any] = [None] * len(codes)
    tails: list[list[int]] = [[] for _ in codes]
    places: dict[Place, Ref] = {}
    updates: set[Ref] = set()
    if entry.meta:
        raise ValueError("the segment has a description, which none has")
    for place, piece in placed(entry.pieces):
        kind, j = piece.tag >> _SHIFT, piece.tag & _NUMBER
        if kind not in (SEALED, TAIL_ROWS, OVERLAY, DELETED) or j >= (1 if kind == DELETED else len(codes)):
            raise ValueError(f"there is no piece with tag {piece.tag:#x}")
        is_first = kind == SEALED and not place[1]
        if not is_first and len(piece.meta) != (_START.size if kind == TAIL_ROWS else 0):
            raise ValueError(f"the piece with tag {piece.tag:#x} is described wrongly")
        if place in places or piece.ref is None or (kind == OVERLAY and piece.ref in updates):
            raise ValueError(f"the piece with tag {piece.tag:#x} is there twice or nowhere")
        places[place] = piece.ref
        if kind == OVERLAY:
            updates.add(piece.ref)
            if place[1] >= _UPDATES:
                raise ValueError(f"the updates of column {j} are in more than {_UPDATES} pieces")
        if is_first:
            sealed[j] = zone_from(bytes(piece.meta), codes[j])
        elif kind == TAIL_ROWS:
            tails[j].append(place[1])
    if len({None if one is None else one[0] for one in sealed}) > 1:
        raise ValueError("the columns have sealed parts of different lengths")
    return Sorted(sealed, tails, places)
