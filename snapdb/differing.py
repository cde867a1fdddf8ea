"""What differs between two states of a table: values of columns by their stored bytes, and rows by primary key."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol, Union

from ._ext._common import SEGMENT, WIDTHS
from .pieces import Source

if TYPE_CHECKING:
    from ._ext import ColumnBuffer
    from .pieces import Entry
    from .scan import View

__all__ = ["Difference", "Stored", "by_key", "differing_rows", "is_same", "rows_of"]

_BITS = SEGMENT.bit_length() - 1
_LEAST = 8  # values that are compared one by one
_FLAGS = bytes(48) + b"\0\1" + bytes(206)  # translation table: binary digits to flags

Flags = Union[bytes, bytearray]


class Stored(Source, Protocol):
    """A state of a table in a file."""

    @property
    def header(self) -> dict[str, Any]:
        """The table's header as of then."""
        ...

    def differing(self, other: Any) -> Iterable[tuple[int, Optional[Entry], Optional[Entry]]]:
        """Each key whose entry is not the same in both, ascending, with its entries here and there (None: none)."""
        ...


class Difference(NamedTuple):
    """Ids of rows, ascending: those that only the second state has, those whose values differ (its ids again),
    and those that only the first one has.
    """

    added: list[int]
    changed: list[int]
    removed: list[int]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of a column are stored as the same bytes: NaN is like itself, 0.0 is not like -0.0."""
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return bool(one == other)


def rows_of(bitmap: int) -> list[int]:
    """The numbers of the bits that are set."""
    digits = format(bitmap, "b").encode()[::-1]
    return list(compress(range(len(digits)), digits.translate(_FLAGS)))


def differing_rows(one: ColumnBuffer, other: ColumnBuffer) -> set[int]:
    """The rows whose stored values differ; both buffers are of one dtype and have as many rows."""
    nulls, others = _bitmap(one.nulls), _bitmap(other.nulls)
    found = set(rows_of(nulls ^ others))
    a, b = bytes(one.data), bytes(other.data)
    width = WIDTHS.get(one.code)
    if width is None:
        if a != b or bytes(one.offsets or b"") != bytes(other.offsets or b""):
            found.update([row for row, (x, y) in enumerate(zip(one.tolist(), other.tolist())) if x != y])
    else:
        _halve(a, b, width, 0, one.rows, found)
    both = nulls & others
    return found.difference(rows_of(both)) if both and found else found


def _bitmap(nulls: Any) -> int:
    return 0 if nulls is None else int.from_bytes(nulls, "little")


def _halve(a: bytes, b: bytes, width: int, low: int, high: int, found: set[int]) -> None:
    """Note the rows ``low..high`` that differ; parts that do not are left after one comparison."""
    if a[low * width : high * width] == b[low * width : high * width]:
        return
    if high - low <= _LEAST:
        rows = range(low, high)
        found.update([row for row in rows if a[row * width : (row + 1) * width] != b[row * width : (row + 1) * width]])
        return
    middle = (low + high) // 2
    _halve(a, b, width, low, middle, found)
    _halve(a, b, width, middle, high, found)


def by_key(before: View, after: View, key: str) -> Difference:
    """What differs between two tables, rows of the same value in the column ``key`` being the same row. Rows whose key
    is NaN are never that.
    """
    j = before.schema.index(key)
    gone: dict[Any, int] = {}
    removed: list[int] = []
    for k in range(before.segments()):
        for idx, value in _keys(before, j, k):
            if value == value:
                gone[value] = idx
            else:
                removed.append(idx)
    found = Difference([], [], [])
    for k in range(after.segments()):
        pairs: list[tuple[int, int]] = []
        for idx, value in _keys(after, j, k):
            was = gone.pop(value, None) if value == value else None
            if was is None:
                found.added.append(idx)
            else:
                pairs.append((was, idx))
        found.changed.extend(_changed(before, after, k, sorted(pairs)))
    found.removed.extend(sorted([*removed, *gone.values()]))
    return found


def _keys(view: View, j: int, k: int) -> Iterator[tuple[int, Any]]:
    """(id, value of a column) of the live rows of a segment."""
    if view.dead(k) or not view.size(k):
        return
    live = view.live(k)
    rows = array("I", range(view.size(k)) if live is None else rows_of(int.from_bytes(live, "little")))
    start = k * SEGMENT
    yield from zip([start + row for row in rows], view.whole(j, k).take(rows))


def _changed(before: View, after: View, k: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The ids, ascending, of the rows in segment ``k`` of ``after`` of which a value differs: ``pairs`` are (id before,
    id after), sorted.
    """
    places: dict[int, array[int]] = {}
    for was, _ in pairs:
        places.setdefault(was >> _BITS, array("I")).append(was & SEGMENT - 1)
    rows = array("I", [idx & SEGMENT - 1 for _, idx in pairs])
    found: set[int] = set()
    for j in range(len(after.schema.columns) if pairs else 0):
        mine = [before.whole(j, segment).gather(some) for segment, some in places.items()]
        for more in mine[1:]:
            mine[0].extend(more)
        found |= differing_rows(mine[0], after.whole(j, k).gather(rows))
    return sorted(pairs[at][1] for at in found)
