"""What a value read from a file may be, beyond what its bytes can say: dates that Python has, text that is UTF-8."""

from __future__ import annotations

from itertools import islice
from typing import Any, Optional

from ._common import DATE, DATETIME, LIMITS, TYPECODES, WIDTHS
from ._lanes_py import typed

__all__ = ["MOMENTS", "NOT_UTF8", "NO_MOMENT", "RANGES", "is_text", "wrong_moment", "wrong_text"]

NOT_UTF8 = "text that is not UTF-8"
NO_MOMENT = "a date outside the years 1 to 9999"

#: least and greatest date in days and datetime in microseconds since 1970
MOMENTS = {DATE: (-719162, 2932896), DATETIME: (-62135596800000000, 253402300799999999)}
#: inclusive range of what an integer column may hold
RANGES = {**LIMITS, **MOMENTS}

#: places in a value, and the bytes there of all that lies from 1970 to about 8900: found without a look at each value
_USUAL = {DATE: ((3, b"\0"), (2, bytes(range(0x2C)))), DATETIME: ((7, b"\0\1\2"),)}
_INSIDE = frozenset(range(0x80, 0xC0))  # bytes that go on with a character


def wrong_moment(code: int, data: Any) -> Optional[int]:
    """The first of the stored values (little-endian bytes) that is no date or datetime, None where there is none."""
    raw = bytes(data)
    if not any(raw[at :: WIDTHS[code]].translate(None, usual) for at, usual in _USUAL[code]):
        return None
    low, high = MOMENTS[code]
    values = typed(TYPECODES[code], raw)
    if low <= min(values) and max(values) <= high:
        return None
    return next(row for row, value in enumerate(values) if not low <= value <= high)


def is_text(value: bytes) -> bool:
    """Whether bytes are UTF-8 as Python reads it."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def wrong_text(heap: Any, ends: Any) -> Optional[int]:
    """The first of the strings that fill a heap (offsets rising from 0) that is not UTF-8, None where there is none."""
    whole = bytes(heap)
    if whole.isascii():
        return None
    count = len(ends) - 1
    padded = whole + b"\0"  # an empty string may stand at the end
    if is_text(whole) and _INSIDE.isdisjoint(map(padded.__getitem__, islice(ends, count))):
        return None
    texts = (whole[ends[row] : ends[row + 1]] for row in range(count))
    return next((row for row, text in enumerate(texts) if not is_text(text)), None)
