"""What the slab twins build on: the layout of a record, slabs, holds, and moving fields in and out of records."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any, Union

from ._common import BOOL, BYTES, TYPECODES, WIDTHS, decode_text, mask_bytes
from ._values_py import ColumnBuffer

__all__ = [
    "GARBAGE", "HEAP_LIMIT", "LOW", "Hold", "Layout", "Pins", "Slab", "bits", "buffer", "flags", "heap_error", "held",
    "load", "padded", "same_layout", "store", "texts",
]  # fmt: skip

Physical = Union[int, float, bytes, None]

GARBAGE = 4096  # bytes of dead heap that are never worth a rewrite
HEAP_LIMIT = 2**32 - 1  # heap offsets and lengths are u32
LOW = 2**32 - 1  # a heap reference: offset in the low half, length in the high half
_PACKED = 256  # strings padded in one call
_DIGITS = b"0" + b"1" * 255  # translation table: flags to binary digits
_FLAGS = bytes(48) + b"\0\1" + bytes(206)  # translation table: binary digits to flags


def held(owned: Any) -> int:
    try:
        return sys.getsizeof(owned)
    except TypeError:  # PyPy does not know
        return len(owned) if isinstance(owned, (bytearray, dict)) else 64


def bits(flags: Union[bytes, bytearray]) -> int:
    """Flag bytes as a bitmap (bit i is row i), as one integer."""
    return int(flags.translate(_DIGITS)[::-1], 2) if flags else 0


def flags(bitmap: Any, start: int, stop: int) -> bytes:
    """Rows ``start..stop`` of a bitmap as flag bytes."""
    low = start >> 3
    whole = int.from_bytes(bitmap[low : (stop + 7) >> 3], "little") >> (start & 7)
    count = stop - start
    digits = format(whole & ((1 << count) - 1), f"0{count}b")[::-1]
    return digits.encode().translate(_FLAGS)


def texts(values: list[bytes]) -> list[Any]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return [decode_text(value) for value in values]


def buffer(code: int, items: Any, nulls: int) -> ColumnBuffer:
    """A column buffer that owns ``items``; ``nulls`` is the null bitmap as an integer."""
    made = ColumnBuffer(code)
    made._items = items
    made.rows = len(items)
    if nulls:
        made._null_rows = bytearray(nulls.to_bytes(mask_bytes(made.rows), "little"))
        made.null_count = bin(nulls).count("1")
    return made


class Layout:
    """Where everything of a record is. Shared by a table and its views."""

    def __init__(self, columns: Sequence[Any], offsets: Sequence[int], row_width: int) -> None:
        if len(offsets) != len(columns):
            raise ValueError(f"{len(columns)} columns need as many offsets, got {len(offsets)}")
        self.columns = columns
        self.names = tuple(spec[0] for spec in columns)
        self.offsets = tuple(offsets)
        self.row_width = row_width
        self.inline: list[tuple[int, int]] = []  # bytes:N columns and the field of their length
        self.heaped: list[int] = []
        self.nullable: list[tuple[int, int]] = []  # nullable columns and the field of their null flag
        self.widths: list[int] = []
        self.places: list[int] = []  # byte offset of every field of the record
        form = self._row_fields() + self._side_fields()
        self.record = struct.Struct("<" + "".join(form))
        self.stride = self.record.size
        self.dead = bytes(self.stride)

    def _row_fields(self) -> list[str]:
        form, end = [], 0
        for (name, code, limit, _nullable), offset in zip(self.columns, self.offsets):
            width = WIDTHS.get(code) or (limit if code == BYTES else 8)
            if offset < end or offset + width > self.row_width:
                raise ValueError(f"column {name!r}: {width} bytes at {offset} do not fit a row of {self.row_width}")
            form.append(f"{offset - end}x")
            form.append("?" if code == BOOL else TYPECODES.get(code) or (f"{limit}s" if code == BYTES else "Q"))
            self.widths.append(width)
            self.places.append(offset)
            end = offset + width
        form.append(f"{self.row_width - end}x")
        return form

    def _side_fields(self) -> list[str]:
        form, at = [], self.row_width
        for column, (_name, code, limit, _nullable) in enumerate(self.columns):
            if code == BYTES:
                self.inline.append((column, len(self.places)))
                form.append("H" if limit < 65536 else "I")
                self.places.append(at)
                at += 2 if limit < 65536 else 4
            elif code not in WIDTHS:
                self.heaped.append(column)
        for column, spec in enumerate(self.columns):
            if spec[3]:
                self.nullable.append((column, len(self.places)))
                form.append("B")
                self.places.append(at)
                at += 1
        self.places.append(at)
        return [*form, "B"]

    def check(self, column: int, value: Physical) -> None:
        """ValueError for a null where none may be and for bytes that do not fit the row."""
        name, code, limit, nullable = self.columns[column]
        if value is None:
            if not nullable:
                raise ValueError(f"column {name!r} takes no null")
        elif code == BYTES and len(value) > limit:  # type: ignore[arg-type]
            raise ValueError(f"column {name!r} takes {limit} bytes, got {len(value)}")  # type: ignore[arg-type]

    def fields(self, values: Sequence[Physical], base: int) -> tuple[list[Any], list[bytes]]:
        """The record's fields for a row whose strings go to a heap of ``base`` bytes, and those strings."""
        fields: list[Any] = list(values)
        pieces: list[bytes] = []
        for column, _field in self.inline:
            value = fields[column] or b""
            fields[column] = value
            fields.append(len(value))
        for column in self.heaped:
            value = fields[column] or b""
            fields[column] = len(value) << 32 | base if value else 0
            base += len(value)
            pieces.append(value)
        if base > HEAP_LIMIT:
            raise heap_error()
        for column, _field in self.nullable:
            empty = values[column] is None
            fields.append(1 if empty else 0)
            if empty and not fields[column]:
                fields[column] = b"" if self.columns[column][1] == BYTES else 0
        fields.append(1)
        return fields, pieces


def same_layout(one: Layout, other: Layout) -> bool:
    """Whether records of both have the same bytes, whatever their columns are called."""
    alike = [spec[1:] for spec in one.columns] == [spec[1:] for spec in other.columns]
    return alike and (one.offsets, one.stride) == (other.offsets, other.stride)


def heap_error() -> ValueError:
    """The error for a slab whose strings would not be addressable."""
    return ValueError("the long strings of one slab would pass 4 GiB: use a smaller page_size")


class Slab:
    """``slab_rows`` records and their heap."""

    __slots__ = ("data", "garbage", "heap", "live", "stamp")

    def __init__(self, data: bytearray, heap: bytearray, live: int, garbage: int, stamp: int) -> None:
        self.data = data
        self.heap = heap
        self.live = live
        self.garbage = garbage  # heap bytes that no row refers to
        self.stamp = stamp  # epoch at which it was made: a view taken later sees it


class Pins:
    """Which views of a table, and of the tables branched from its views, still read.

    A view that was taken at an epoch sees what is older: while it reads, nobody writes to that in place.
    """

    __slots__ = ("holds", "next_epoch")

    def __init__(self) -> None:
        self.next_epoch = partial(next, count(1))  # one step: each table has a lock of its own
        self.holds: dict[int, int] = {}  # hold -> its epoch

    @property
    def newest(self) -> int:
        """Epoch of the newest view that still reads, 0 where none does."""
        return max(list(self.holds.values()), default=0)  # one step: holds are released without the lock


class Hold:
    """Keeps what a view, an iterator or a branch reads as it is, until released or dropped."""

    __slots__ = ("_holds",)

    def __init__(self, pins: Pins, epoch: int) -> None:
        self._holds = pins.holds
        self._holds[id(self)] = epoch

    def release(self) -> None:
        """Let go; harmless when done before."""
        self._holds.pop(id(self), None)  # one step, and without the lock: this may run in a finalizer

    def __enter__(self) -> None:
        """Held until the block ends."""

    def __exit__(self, *_error: object) -> None:
        self.release()

    __del__ = release


def padded(items: list[bytes], limit: int) -> bytes:
    """Strings one after the other, each zero padded to ``limit`` bytes."""
    pack = struct.Struct(f"{limit}s" * _PACKED).pack  # not struct.pack(): that keeps what it compiles
    whole = len(items) - len(items) % _PACKED
    pieces = [pack(*items[low : low + _PACKED]) for low in range(0, whole, _PACKED)]
    pieces.extend([item.ljust(limit, b"\0") for item in items[whole:]])
    return b"".join(pieces)


def store(block: bytearray, place: int, stride: int, width: int, raw: bytes) -> None:
    """Spread the values of ``raw`` over the records of ``block``."""
    if width == 1:
        block[place::stride] = raw
        return
    for byte in range(width):
        block[place + byte :: stride] = raw[byte::width]


def load(block: Union[bytes, bytearray], place: int, stride: int, width: int) -> Union[bytes, bytearray]:
    """Gather one field of the records of ``block``: the reverse of ``store``."""
    if width == 1:
        return block[place::stride]
    out = bytearray(len(block) // stride * width)
    for byte in range(width):
        out[byte::width] = block[place + byte :: stride]
    return out
