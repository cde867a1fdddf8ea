"""A sealed part with a few updated rows, as one chunk: every verb is that of the chunk below, and then these rows are
put right. Only what must have the values side by side (groups) decodes all of it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol

from ._ext._common import BLOCK, FLOATS, RAW, SEGMENT, logical, mask_bytes
from .aggregate import _better

if TYPE_CHECKING:
    from ._ext import Backend

__all__ = ["PatchedChunk", "is_worth_it", "piece_chunks"]

_SHARE = 64  # a chunk is patched where at most one in so many of its rows was updated; else all of it is decoded
_MOST_BLOCKS = 8  # with updated rows, of floats to be summed block by block


class Patched(Protocol):
    """A column, as far as its chunks are put together here."""

    kernels: Backend

    def new_buffer(self) -> Any:
        """An empty buffer of the column's type."""


def is_worth_it(rows: int, updates: int) -> bool:
    """Whether so few updates of so many rows are better patched than put into a decoded copy."""
    return 0 < updates * _SHARE <= rows


class PatchedChunk:
    """``Chunk`` over a chunk and the values that replace some of its rows. ``take`` and ``gather`` want ascending
    rows.
    """

    sealed = False
    codec = RAW
    width = 0

    def __init__(self, kernels: Backend, clean: Any, overlay: Mapping[int, Any]) -> None:
        self._kernels = kernels
        self._clean = clean
        self._overlay = overlay
        self.code: int = clean.code
        self.rows: int = clean.rows
        self._listed = sorted(overlay)
        self._changed = memoryview(array("I", self._listed))
        values: Any = kernels.values.ColumnBuffer(self.code)
        for row in self._listed:
            values.append(overlay[row])
        self._values: Any = kernels.codecs.Chunk.view(values)
        self._flat: Any = None

    def _whole(self) -> Any:
        """All of it decoded."""
        if self._flat is None:
            self._flat = self._kernels.codecs.Chunk.view(self.decode())
        return self._flat

    def __getattr__(self, name: str) -> Any:
        """What needs every value side by side: groups, and how a view hands over its memory."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole(), name)

    @property
    def null_count(self) -> int:
        """Null rows."""
        return self.rows - self.count()

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return int(self._clean.nbytes + self._values.nbytes)

    # -- rows ----------------------------------------------------------------
    def physical(self, row: int) -> Any:
        """See ``Chunk.physical``."""
        return self._overlay[row] if row in self._overlay else self._clean.physical(row)

    def fetch(self, row: int) -> Any:
        """See ``Chunk.fetch``."""
        return logical(self.code, self._overlay[row]) if row in self._overlay else self._clean.fetch(row)

    def decode(self) -> Any:
        """See ``Chunk.decode``."""
        buffer = self._clean.decode()
        buffer.patch(self._overlay)
        return buffer

    def take(self, rows: Any = None) -> list[Any]:
        """See ``Chunk.take``."""
        found: list[Any] = self._clean.take(rows)
        for at, row in self._places(rows):
            found[at] = logical(self.code, self._overlay[row])
        return found

    def gather(self, rows: Any) -> Any:
        """See ``Chunk.gather``."""
        found = self._clean.gather(rows)
        found.patch({at: self._overlay[row] for at, row in self._places(rows)})
        return found

    def _places(self, rows: Any) -> Sequence[tuple[int, int]]:
        """(place in ``rows``, row) of the updated ones among ascending rows; None: all rows."""
        if rows is None:
            return [(row, row) for row in self._listed]
        size = len(rows)
        if size <= len(self._listed):
            return [(at, row) for at, row in enumerate(rows) if row in self._overlay]
        found = [(bisect_left(rows, row), row) for row in self._listed]
        return [(at, row) for at, row in found if at < size and rows[at] == row]

    # -- which rows ------------------------------------------------------------
    def valid(self) -> bytearray:
        """See ``Chunk.valid``."""
        return self._mended(self._clean.valid(), self._values.valid())

    def select(self, lo: Any, hi: Any, lo_open: bool = False, hi_open: bool = False) -> bytearray:
        """See ``Chunk.select``."""
        return self._mended(self._clean.select(lo, hi, lo_open, hi_open), self._values.select(lo, hi, lo_open, hi_open))

    def select_in(self, values: Any) -> bytearray:
        """See ``Chunk.select_in``."""
        return self._mended(self._clean.select_in(values), self._values.select_in(values))

    def _mended(self, mask: bytearray, bits: bytearray) -> bytearray:
        self._kernels.mask.scatter(mask, self._changed, bits)
        return mask

    def _parted(self, mask: Any) -> tuple[bytearray, Optional[bytearray]]:
        """The selected rows that were not updated, and the selected ones of those that were (None: all)."""
        kernel = self._kernels.mask
        bits = None if mask is None else kernel.pick(mask, self._changed)
        rest: bytearray = kernel.full(self.rows) if mask is None else bytearray(mask)
        return self._mended(rest, kernel.empty(len(self._listed))), bits

    # -- what they come to -------------------------------------------------------
    def count(self, mask: Any = None) -> int:
        """See ``Chunk.count``."""
        rest, bits = self._parted(mask)
        return int(self._clean.count(rest) + self._values.count(bits))

    def bounds(self, mask: Any = None) -> Any:
        """See ``Chunk.bounds``."""
        rest, bits = self._parted(mask)
        found, more = self._clean.bounds(rest), self._values.bounds(bits)
        if found is None or more is None:
            return more if found is None else found
        return _better(found[0], more[0], False), _better(found[1], more[1], True)

    def sum(self, mask: Any = None, start: Any = 0) -> Any:
        """See ``Chunk.sum``."""
        if self.code in FLOATS:
            return self._float_sum(mask, start)
        rest, bits = self._parted(mask)
        return self._values.sum(bits, self._clean.sum(rest, start))

    def _float_sum(self, mask: Any, start: Any) -> Any:
        """Blocks are added in order; those with updated rows are decoded."""
        blocks = sorted({row // BLOCK for row in self._listed})
        if len(blocks) > _MOST_BLOCKS or self._flat is not None:
            return self._whole().sum(mask, start)
        done = 0
        for block in blocks:
            if block > done:
                start = self._clean.part(done, block - done).sum(_cut(mask, done, block), start)
            values = self._clean.part(block, 1).decode()
            first = block * BLOCK
            low, high = bisect_left(self._listed, first), bisect_left(self._listed, first + BLOCK)
            values.patch({row - first: self._overlay[row] for row in self._listed[low:high]})
            start = self._kernels.codecs.Chunk.view(values).sum(_cut(mask, block, block + 1), start)
            done = block + 1
        if done * BLOCK < self.rows:
            stop = self.rows // BLOCK
            start = self._clean.part(done, stop - done).sum(_cut(mask, done, stop), start)
        return start


def _cut(mask: Any, first: int, stop: int) -> Any:
    """The part of a mask that covers some blocks."""
    width = mask_bytes(BLOCK)
    return None if mask is None else memoryview(mask)[first * width : stop * width]


# -- a segment -------------------------------------------------------------


def piece_chunks(column: Patched, part: Any, overlay: Optional[dict[int, Any]], size: Optional[int]) -> list[Any]:
    """The chunks of one segment with its updates applied; ``size`` rows where given (a view of the past)."""
    if part is None:
        blank = column.new_buffer()
        for _ in range(SEGMENT):
            blank.append(None)
        return [column.kernels.codecs.Chunk.view(blank)]
    sealed, tail = part
    view = column.kernels.codecs.Chunk.view
    base = 0 if sealed is None else sealed.rows
    chunks = []
    if sealed is not None:
        chunks.append(_updated(column, sealed, overlay) if _touches(overlay, 0, base) else sealed)
    rows = 0 if tail is None else (tail.rows if size is None else size - base)
    if rows:
        chunk = view(tail, 0, rows)
        chunks.append(view(_patched(chunk.decode(), overlay, base)) if _touches(overlay, base, base + rows) else chunk)
    return chunks


def _updated(column: Patched, sealed: Any, overlay: Optional[dict[int, Any]]) -> Any:
    """A sealed part with its updates."""
    changed = {row: value for row, value in (overlay or {}).items() if row < sealed.rows}
    if is_worth_it(sealed.rows, len(changed)):
        return PatchedChunk(column.kernels, sealed, changed)
    return column.kernels.codecs.Chunk.view(_patched(sealed.decode(), changed, 0))


def _touches(overlay: Optional[dict[int, Any]], start: int, stop: int) -> bool:
    return bool(overlay) and any(start <= row < stop for row in overlay or ())


def _patched(buffer: Any, overlay: Optional[dict[int, Any]], start: int) -> Any:
    stop = start + buffer.rows
    buffer.patch({row - start: value for row, value in (overlay or {}).items() if start <= row < stop})
    return buffer
