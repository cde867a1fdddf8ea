"""Views of a slab table: column gathers, masks and iteration over rows as of one moment. Part of the twin of
``_slab.pyx``.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, compress, repeat
from typing import Any, Callable, Optional, Union

from . import _mask_py
from ._codecs_py import Chunk
from ._common import BINARY, BYTES, DATE, DATETIME, SEGMENT, TYPECODES, WIDTHS, mask_bytes, to_date, to_datetime
from ._records import LOW, Hold, Layout, Pins, Slab, bits, buffer, flags, held, load, same_layout, texts
from ._slabwhere_py import check, met_by
from ._values_py import ColumnBuffer

__all__ = ["SlabView"]


def _only(raw: Union[bytes, bytearray], chosen: bytes, width: int) -> bytes:
    """Values of ``width`` bytes, 0 where a flag is not set."""
    wide = bytearray(len(raw))
    for byte in range(width):
        wide[byte::width] = chosen
    every = int.from_bytes(wide, "little") * 255
    return (int.from_bytes(raw, "little") & every).to_bytes(len(raw), "little")


class SlabView:
    """The rows as of the moment it was made; later writes do not show. Released by ``release()`` or when dropped."""

    _load = staticmethod(load)
    _chunk: Any = Chunk  # the backend's class of chunks and its masks
    _masks: Any = _mask_py

    def __init__(
        self, layout: Layout, slabs: dict[int, Slab], slab_rows: int, rows: int, live: int, pins: Pins, epoch: int
    ) -> None:
        self.rows = rows
        self.live = live
        self._layout = layout
        self._slabs: Optional[dict[int, Slab]] = slabs
        self._slab_rows = slab_rows
        self._pins = pins
        self._epoch = epoch
        self._hold = Hold(pins, epoch)

    def release(self) -> None:
        """Let go of the rows; harmless when done before. Iterators made earlier go on."""
        self._slabs = None
        self._hold.release()

    def _held_slabs(self) -> dict[int, Slab]:
        slabs = self._slabs
        if slabs is None:
            raise ValueError("the view was released")
        return slabs

    def _spans(self, start: int, stop: int) -> Iterator[tuple[Optional[Slab], int, int]]:
        """The slabs of positions ``start..stop`` with the rows wanted of each; None with the positions that lie between
        two slabs and have none.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"positions {start}..{stop} are outside 0..{self.rows}")
        slabs, size = self._held_slabs(), self._slab_rows
        numbers: Sequence[int] = range(start // size, -(-stop // size))
        if len(slabs) < len(numbers):  # mostly gaps: those are not looked at one by one
            numbers = sorted([number for number in list(slabs) if number in numbers])
        at = start
        for number in numbers:
            slab = slabs.get(number)
            if slab is not None:
                low = number * size
                if at < low:
                    yield None, at, low
                at = min(stop, low + size)
                yield slab, max(start - low, 0), at - low
        if at < stop:
            yield None, at, stop

    def _block(self, start: int, stop: int) -> bytes:
        """The records of positions ``start..stop``."""
        stride = self._layout.stride
        pieces = [
            bytes((high - low) * stride) if slab is None else slab.data[low * stride : high * stride]
            for slab, low, high in self._spans(start, stop)
        ]
        return b"".join(pieces)

    def gather(self, column: int, start: int, stop: int, mask: Any = None) -> ColumnBuffer:
        """Positions ``start..stop`` of one column, dead rows as null (zero slots), as are those that a mask has not.

        ValueError for positions that the view does not have, for a mask of another size and after ``release()``.
        """
        layout = self._layout
        if not 0 <= column < len(layout.names):
            raise IndexError(f"column {column} is outside 0..{len(layout.names)}")
        with Hold(self._pins, self._epoch):  # against a release() on another thread
            block = self._block(start, stop)
            rows = stop - start
            if mask is not None and memoryview(mask).nbytes != mask_bytes(rows):
                raise ValueError(
                    f"a mask over {rows} rows has {mask_bytes(rows)} bytes, got {memoryview(mask).nbytes}"
                )
            chosen = None if mask is None or not rows else flags(mask, 0, rows)
            return self._gather(column, start, stop, block, chosen)

    def _gather(self, column: int, start: int, stop: int, block: bytes, chosen: Optional[bytes]) -> ColumnBuffer:
        layout = self._layout
        code = layout.columns[column][1]
        nulls = self._nulls(column, block)
        items: Any
        if code in WIDTHS:
            items = array(TYPECODES[code])
            raw = self._load(block, layout.places[column], layout.stride, WIDTHS[code])
            items.frombytes(raw if chosen is None else _only(raw, chosen, WIDTHS[code]))
        elif code == BYTES:
            items = self._inline_items(column, block, chosen)
        else:
            items = self._heap_items(column, start, stop, chosen)
        if chosen is not None:
            nulls |= bits(chosen) ^ ((1 << len(chosen)) - 1)
        return buffer(code, items, nulls)

    def _nulls(self, column: int, block: bytes) -> int:
        stride = self._layout.stride
        alive = block[stride - 1 :: stride]
        nulls = 0
        if alive.count(1) < len(alive):
            nulls = bits(alive) ^ ((1 << len(alive)) - 1)
        field = dict(self._layout.nullable).get(column)
        if field is not None:
            unset = block[self._layout.places[field] :: stride]
            if unset.count(1):
                nulls |= bits(unset)
        return nulls

    def _inline_items(self, column: int, block: bytes, chosen: Optional[bytes]) -> list[bytes]:
        layout = self._layout
        limit = layout.widths[column]
        low = layout.places[column]
        at = layout.places[dict(layout.inline)[column]]
        wide = limit >= 65536
        rest = layout.stride - at - (4 if wide else 2)
        form = struct.Struct(f"<{low}x{limit}s{at - low - limit}x{'I' if wide else 'H'}{rest}x")
        if chosen is None:
            return [value[:size] for value, size in form.iter_unpack(block)]
        items = [b""] * len(chosen)
        for row in compress(range(len(chosen)), chosen):
            value, size = form.unpack_from(block, row * layout.stride)
            items[row] = value[:size]
        return items

    def _heap_items(self, column: int, start: int, stop: int, chosen: Optional[bytes]) -> list[bytes]:
        layout = self._layout
        stride, low = layout.stride, layout.places[column]
        form = struct.Struct(f"<{low}xII{stride - low - 8}x")
        items: list[bytes] = []
        for slab, first, last in self._spans(start, stop):
            if slab is None:
                items.extend([b""] * (last - first))
                continue
            refs = list(form.iter_unpack(slab.data[first * stride : last * stride]))
            heap = bytes(slab.heap)
            if chosen is not None:
                wanted = chosen[len(items) : len(items) + len(refs)]
                refs = [ref if keep else (0, 0) for ref, keep in zip(refs, wanted)]
            items.extend([heap[at : at + size] for at, size in refs])
        return items

    def live_mask(self, start: int, stop: int) -> Optional[bytearray]:
        """Bitmap of the live rows of positions ``start..stop``, None where all are live."""
        stride = self._layout.stride
        with Hold(self._pins, self._epoch):
            pieces = [
                bytes(high - low) if slab is None else slab.data[low * stride : high * stride][stride - 1 :: stride]
                for slab, low, high in self._spans(start, stop)
            ]
        alive = b"".join(pieces)
        if alive.count(1) == len(alive):
            return None
        return bytearray(bits(alive).to_bytes(mask_bytes(len(alive)), "little"))

    def select(self, terms: Sequence[tuple[Any, ...]], any_of: bool, start: int, stop: int) -> Optional[bytearray]:
        """Bitmap of the live rows of positions ``start..stop`` that meet all conditions, or any of them; None where
        none does.

        ``terms``: (column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as a ``Predicate`` has
        them; without any it is every live row. ValueError for positions that the view does not have, another kind, and
        after ``release()``; IndexError for a column that is not there.
        """
        terms = list(terms)
        check(terms, len(self._layout.names))
        with Hold(self._pins, self._epoch):
            live = self.live_mask(start, stop)
            found = met_by(self, terms, any_of, start, stop)
        if found is None:
            found = self._masks.full(stop - start) if live is None else live
        elif live is not None:
            self._masks.and_into(found, live)
        return found if self._masks.any_set(found) else None

    def count(self, terms: Sequence[tuple[Any, ...]], any_of: bool, start: int, stop: int) -> int:
        """How many rows ``select`` would have."""
        terms = list(terms)
        if start == stop:
            self.select(terms, any_of, start, stop)  # what is wrong is wrong without rows too
        total = 0
        for low in range(start, stop, SEGMENT):
            found = self.select(terms, any_of, low, min(stop, low + SEGMENT))
            total += 0 if found is None else self._masks.count(found)
        return total

    def select_rows(self, terms: Sequence[tuple[Any, ...]], any_of: bool) -> list[dict[str, Any]]:
        """The live rows that meet all conditions, or any of them, as dicts in id order; ``terms`` as in ``select``."""
        rows: list[dict[str, Any]] = []
        names = self._layout.names
        with Hold(self._pins, self._epoch):
            if not self.rows:
                self.select(terms, any_of, 0, 0)  # what is wrong is wrong without rows too
            for low in range(0, self.rows, SEGMENT):
                high = min(self.rows, low + SEGMENT)
                mask = self.select(terms, any_of, low, high)
                if mask is not None:
                    columns = [self.gather(j, low, high, mask) for j in range(len(names))]
                    for at in self._masks.ids(mask):
                        rows.append({name: column.fetch(at) for name, column in zip(names, columns)})
        return rows

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, row) of the live rows in order. The iterator keeps the view alive."""
        hold = Hold(self._pins, self._epoch)
        return chain.from_iterable(self._walk(self._slab_items, self._held_slabs(), hold))

    def raw_items(self) -> Iterator[tuple[int, memoryview]]:
        """(id, read-only bytes of the fixed-width row) of the live rows in order."""
        hold = Hold(self._pins, self._epoch)
        return chain.from_iterable(self._walk(self._slab_raw, self._held_slabs(), hold))

    def differing(self, other: SlabView) -> list[int]:
        """Numbers, ascending, of the slabs that are not the same memory in both; where one view has more rows, of those
        that have them too. ValueError for views of another layout, or released ones.
        """
        size = self._slab_rows
        if not same_layout(self._layout, other._layout) or size != other._slab_rows:
            raise ValueError("views of different layouts cannot be compared")
        mine, its = self._covered(), other._covered()
        apart = self.rows if self.rows == other.rows else min(self.rows, other.rows) // size
        changed = [n for n in mine.keys() | its.keys() if mine.get(n) is not its.get(n) or n >= apart]
        return sorted(changed)

    def _covered(self) -> dict[int, Slab]:
        """The slabs that have rows of the view, in a dict of their own."""
        end = -(-self.rows // self._slab_rows)
        return {number: slab for number, slab in dict(self._held_slabs()).items() if number < end}

    def footprint(self, seen: set[int]) -> int:
        """Bytes of memory that the view keeps and ``seen`` does not name yet; what it keeps is added to it."""
        slabs = self._held_slabs()
        total = 0
        if id(slabs) not in seen:
            seen.add(id(slabs))
            total = held(slabs) + 32 * len(slabs)
        for slab in self._covered().values():
            for part in (slab, slab.data, slab.heap):
                if id(part) not in seen:
                    seen.add(id(part))
                    total += held(part)
        return total

    def _walk(
        self, decode: Callable[[Slab, bytes], Iterator[Any]], slabs: dict[int, Slab], hold: Hold
    ) -> Iterator[Iterator[tuple[int, Any]]]:
        size, stride = self._slab_rows, self._layout.stride
        for number in sorted(slabs):
            low = number * size
            high = min(low + size, self.rows)
            if high <= low:
                break  # made after the view
            slab = slabs[number]
            block = bytes(slab.data[: (high - low) * stride])
            alive = block[stride - 1 :: stride]
            found = zip(range(low, high), decode(slab, block))
            yield found if alive.count(1) == len(alive) else compress(found, alive)
        hold.release()

    def _slab_raw(self, _slab: Slab, block: bytes) -> Iterator[memoryview]:
        stride, width = self._layout.stride, self._layout.row_width
        whole = memoryview(block)
        return (whole[at : at + width] for at in range(0, len(block), stride))

    def _slab_items(self, slab: Slab, block: bytes) -> Iterator[dict[str, Any]]:
        layout = self._layout
        fields: list[Sequence[Any]] = list(zip(*layout.record.iter_unpack(block)))
        columns: list[Sequence[Any]] = fields[: len(layout.names)]
        for column, field in layout.inline:
            columns[column] = texts([value[:size] for value, size in zip(columns[column], fields[field])])
        heap = bytes(slab.heap) if layout.heaped else b""
        for column in layout.heaped:
            values = [heap[ref & LOW : (ref & LOW) + (ref >> 32)] for ref in columns[column]]
            columns[column] = values if layout.columns[column][1] == BINARY else texts(values)
        for column, spec in enumerate(layout.columns):
            if spec[1] == DATE:
                columns[column] = list(map(to_date, columns[column]))
            elif spec[1] == DATETIME:
                columns[column] = list(map(to_datetime, columns[column]))
        for column, field in layout.nullable:
            if any(fields[field]):
                columns[column] = [None if null else value for value, null in zip(columns[column], fields[field])]
        return map(dict, map(zip, repeat(layout.names), zip(*columns)))
