"""Which rows of a damaged slab group verify.

The state of a row is in the latest of the group's layers that has it: image, patch, scattered changes. So of what lies
below a layer that is lost nothing is known, and what lies above it stands by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .columnar_file import blank_rows
from .errors import CorruptionError
from .pieces import Entry, Piece
from .remains import Batch, Judged, Range, bit_ranges
from .row_file import GROUP, PATCH, SlabOwner, _bits, _look, _read_patch, _span
from .row_scattered import SCATTERED, Changes, decode_bits, encode_bits

if TYPE_CHECKING:
    from .pieces import Source

__all__ = ["Layer", "batch", "judge", "layers", "without"]


class _Group:
    """One group as far as it is known: ``slabs`` has its rows from position 0 on, ``sure`` are those of which the state
    is known, ``intact`` whether the entry may stay as it is.
    """

    def __init__(self, table: SlabOwner) -> None:
        self.table = table
        self.span = _span(table)
        self.past: list[Range] = []
        self.reason = ""
        self.intact = True
        self.lose("")

    def lose(self, reason: str) -> None:
        """Nothing is known of any row."""
        self.slabs: Any = self.table.new_slabs()
        self.slabs.skip(self.span)
        self.sure = 0
        if reason:
            self.intact, self.reason = False, self.reason or reason

    def image(self, data: Any) -> None:
        """The group's image."""
        try:
            self.slabs.load(0, data)
            self.sure = _bits(0, self.span)
        except ValueError as error:
            self.lose(str(error))

    def rows(self, changes: Sequence[tuple[int, Optional[Any]]]) -> None:
        """A later layer: packed rows, None for a dead one. ValueError where one is none; call ``lose`` then."""
        unpacked = [(row, None if packed is None else self.table.codec.unpack(packed)) for row, packed in changes]
        for row, values in unpacked:
            self.sure |= 1 << row
            if self.slabs.contains(row):
                self.slabs.remove(row)
            if values is not None:
                self.slabs.revive(row, values)

    def check(self, count: int) -> None:
        """Give up the rows whose values make no sense, and those past the end."""
        self.past = bit_ranges(_alive(self.slabs, count, self.span), count) if count < self.span else []
        if self.past:
            self.intact, self.reason = False, self.reason or "a live row past the end of the table"
            for first, last in self.past:
                for row in range(first, last + 1):
                    self.slabs.remove(row)
        try:
            _, wrong = _look(self.table, self.slabs, 0, self.span)
        except (ValueError, OverflowError) as error:
            wrong = str(error)
        if wrong is None:
            return
        self.intact, self.reason = False, self.reason or wrong
        for row in range(count):
            if self.slabs.contains(row) and _look(self.table, self.slabs, row, row + 1)[1] is not None:
                self.sure &= ~(1 << row)
                self.slabs.remove(row)

    def lost(self, count: int) -> int:
        """The rows of ``count`` positions of which nothing is known."""
        return _bits(0, count) & ~self.sure


class Layer(NamedTuple):
    """A piece of scattered changes: the groups in which it counts, and its rows where it verifies."""

    piece: Piece
    bits: int
    changes: Optional[Changes]
    reason: str = ""


def layers(source: Source, entry: Optional[Entry], span: int, groups: int) -> list[Layer]:
    """The pieces of scattered changes, in order of time. ValueError where it is not known which groups they are for."""
    found = []
    for piece in [] if entry is None else entry.pieces:
        if piece.tag != SCATTERED or piece.ref is None:
            raise ValueError(f"scattered changes with a piece {piece.tag:#x}")
        bits = decode_bits(piece.meta, groups)
        try:
            changes = Changes(bytes(source.read(piece.ref)), span, groups)
            if bits & ~changes.bits:
                raise ValueError("a piece has no rows of a group that it counts in")
            found.append(Layer(piece, bits, changes))
        except (CorruptionError, ValueError) as error:
            found.append(Layer(piece, bits, None, f"scattered changes: {error}"))
    return found


def without(found: Iterable[Layer], gone: int) -> Optional[Entry]:
    """The entry of scattered changes that do not count in these groups any more; None where nothing is left."""
    pieces = [one.piece._replace(meta=encode_bits(one.bits & ~gone)) for one in found if one.bits & ~gone]
    return Entry(b"", pieces) if pieces else None


def _resolved(
    table: SlabOwner, source: Source, group: int, entry: Optional[Entry], count: int, later: Sequence[Layer] = ()
) -> _Group:
    """What an entry says of ``count`` positions; None: it is lost."""
    found = _Group(table)
    pieces = [] if entry is None else entry.pieces
    tags = [piece.tag for piece in pieces]
    if tags not in ([GROUP], [GROUP, PATCH]):
        found.lose(f"slab group {group}: " + (f"its entry has pieces {tags}" if tags else "its entry is lost"))
        pieces = []
    for piece in pieces:
        try:
            data = source.read(piece.ref)  # type: ignore[arg-type]
            if piece.tag == GROUP:
                found.image(data)
            else:
                found.rows(list(_read_patch(memoryview(data), found.span)))
        except CorruptionError as error:
            found.lose(f"slab group {group}: {error}")
        except (ValueError, OverflowError) as error:
            found.lose(f"slab group {group}: {error}")
    for layer in later:
        if layer.bits >> group & 1:
            try:
                if layer.changes is None:
                    raise ValueError(layer.reason)
                found.rows(list(layer.changes.rows(group)))
            except (ValueError, OverflowError) as error:
                found.lose(str(error))
    found.check(count)
    return found


def judge(
    table: SlabOwner, source: Source, group: int, entry: Optional[Entry], rows: int, later: Sequence[Layer] = ()
) -> Judged:
    """The entry of a group in a table of ``rows`` positions; ``later``: the scattered changes."""
    span = _span(table)
    base = group * span
    count = min(rows - base, span)
    found = _resolved(table, source, group, entry, count, later)
    lost = found.lost(count)
    live = _live(found)
    if found.intact and not lost:
        return Judged(entry, live, [])
    kept = Entry(b"", [Piece(GROUP, b"", found.slabs.dump(0))]) if live else None
    past = [(base + first, base + last) for first, last in found.past]
    return Judged(kept, live, bit_ranges(lost, base), found.reason, past)


def _live(found: _Group) -> int:
    return bin(_alive(found.slabs, 0, found.span)).count("1")


def _alive(slabs: Any, start: int, stop: int) -> int:
    """Bitmap of the live rows of positions ``start..stop``, ``start`` first."""
    view = slabs.pin()
    try:
        mask = view.live_mask(start, stop)
    finally:
        view.release()
    return (1 << (stop - start)) - 1 if mask is None else int.from_bytes(mask, "little")


def batch(
    table: SlabOwner, source: Source, first: int, rows: int, stored: Sequence[tuple[int, Optional[Entry]]]
) -> Batch:
    """A batch of the log, of whose entries some are damaged."""
    span = _span(table)
    kernels, codes = table.kernels, [column.type.code for column in table.schema.columns]
    entries = dict(stored)
    buffers = [kernels.values.ColumnBuffer(code) for code in codes]
    lost: list[Range] = []
    reason = ""
    for group in range(first // span, -(-(first + rows) // span)):
        base = group * span
        start, stop = max(first - base, 0), min(first + rows - base, span)
        found = _resolved(table, source, group, entries.get(group), stop)
        reason = reason or found.reason
        live = _alive(found.slabs, start, stop) << start
        view = found.slabs.pin()
        for a, b in bit_ranges(live):
            _blank_to(kernels, codes, buffers, base + a - first)
            for j, buffer in enumerate(buffers):
                buffer.extend(view.gather(j, a, b + 1))
        view.release()
        _blank_to(kernels, codes, buffers, base + stop - first)
        lost += bit_ranges(_bits(start, stop) & ~live, base)
    return Batch(buffers, lost, reason)


def _blank_to(kernels: Any, codes: Sequence[int], buffers: Sequence[Any], rows: int) -> None:
    """Zeros up to so many rows."""
    for code, buffer in zip(codes, buffers):
        if buffer.rows < rows:
            buffer.extend(blank_rows(kernels, code, rows - buffer.rows))
