"""What a whole column is given as: typed memory, or a list of Python values.

Both backends of the row codec use this. NumPy is never imported: its arrays are known by the buffer protocol and, for
``datetime64`` (which has no buffer), by their ``dtype``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from typing import Any, Callable, Optional, Union

from ._common import BOOL, DATE, DATETIME, FLOATS, INTS, VARLEN, mask_bytes

__all__ = ["NAT", "moments", "source", "texts"]

NAT = -(2**63)  # how datetime64 stores "not a time"

_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_NATIVE = "@=" + ("<" if sys.byteorder == "little" else ">")

#: microseconds of one step of a datetime64 unit; a negative number divides
_MICROS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1, "ns": -1000, "ps": -1_000_000}
_DAY_RANGE = (-719162, 2932896)  # date.min and date.max in days since 1970
_MICRO_RANGE = (-62135596800000000, 253402300799999999)  # datetime.min and datetime.max in UTC


def _letter(view: memoryview) -> Optional[str]:
    """The canonical type code (``bBhHiIqQfd?``) of a memoryview's items, None where it is none of them."""
    form = view.format
    if len(form) == 2 and form[0] in _NATIVE:
        form = form[1]
    if form in ("?", "f", "d"):
        return form
    if form in ("b", "h", "i", "l", "q", "n"):
        return _SIGNED.get(view.itemsize)
    if form in ("B", "H", "I", "L", "Q", "N"):
        return _UNSIGNED.get(view.itemsize)
    return None


def _fits(letter: str, code: int) -> bool:
    """Whether typed memory can go into a column as a whole, without the rules for single values."""
    if code in FLOATS:
        return True
    return letter not in "fd" and (code == BOOL or (code in INTS and code not in (DATE, DATETIME)))


def source(values: Any, code: int) -> Union[memoryview, list[Any]]:
    """A contiguous memoryview with a canonical format that can be converted as a whole, else a list of Python values.

    TypeError for what is not a sequence of values (text, mappings, sets); ValueError for more than one dimension.
    """
    if isinstance(values, list):
        return values
    if isinstance(values, (Mapping, Set)):
        raise TypeError(f"a column must be a sequence of values, not {type(values).__name__}, which has no order")
    if isinstance(values, str) or (code in VARLEN and isinstance(values, (bytes, bytearray))):
        raise TypeError(f"a column must be a sequence of values, not one {type(values).__name__}: put it into a list")
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"a column must have one dimension, not {values.ndim}")
    if hasattr(values, "mask") and hasattr(values, "filled"):
        return list(values.tolist())  # a masked array's buffer does not show its mask
    try:
        view = memoryview(values)
    except (TypeError, ValueError, BufferError):
        return _listed(values)
    if view.ndim != 1:
        raise ValueError(f"a column must have one dimension, not {view.ndim}")
    letter = _letter(view)
    if letter is None or not view.c_contiguous or not _fits(letter, code):
        return _listed(values)
    try:
        return view.cast("B").cast(letter)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):  # an item format with a byte order mark cannot be cast
        return _listed(values)


def _listed(values: Any) -> list[Any]:
    to_list = getattr(values, "tolist", None)
    return list(values if to_list is None else to_list())


def texts(values: Any, code: int) -> Optional[tuple[bool, int, memoryview]]:
    """A NumPy array of fixed-width text as (whether of code points, bytes of an item, its memory), else None.

    An item of kind ``S`` is bytes, one of kind ``U`` 32-bit code points; NULs at its end are padding. Where a value is
    no good for the column, the list that ``source`` gives says so.
    """
    if code not in VARLEN or getattr(getattr(values, "dtype", None), "kind", None) not in ("S", "U"):
        return None
    if hasattr(values, "mask") and hasattr(values, "filled"):
        return None
    try:
        view = memoryview(values)
    except (TypeError, ValueError, BufferError):
        return None
    form = view.format.lstrip(_NATIVE)
    if view.ndim != 1 or not view.c_contiguous or form[-1:] not in ("s", "w") or not form[:-1].isdigit():
        return None
    wide = form[-1] == "w"
    if view.itemsize == 0 or view.itemsize != int(form[:-1]) * (4 if wide else 1):
        return None
    return wide, view.itemsize, view


def _unit(values: Any) -> Optional[str]:
    """The unit of a datetime64 array, None for anything else."""
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "kind", None) != "M" or hasattr(dtype, "tz"):
        return None
    text = str(getattr(dtype, "str", ""))
    start = text.find("[")
    return text[start + 1 : -1] if start > 0 else None


def moments(
    values: Any,
    code: int,
    nullable: bool,
    check: Callable[[Any, int], Any],
) -> Optional[tuple[int, bytes, Optional[bytes]]]:
    """A datetime64 array as (rows, stored bytes, null bitmap or None); None where ``values`` goes another way.

    Dates take the unit D, datetimes every unit from hours to picoseconds, read as UTC. ``check(value, position)`` must
    raise: it is called for the first value that is out of range or finer than a microsecond, or NaT (as None) where
    nothing may be null.
    """
    if code not in (DATE, DATETIME):
        return None
    unit = _unit(values)
    if unit is None or (unit != "D" if code == DATE else unit not in _MICROS):
        return None
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if values.ndim != 1:
        raise ValueError(f"a column must have one dimension, not {values.ndim}")
    raw = values.astype(values.dtype.newbyteorder("=")).view("i8")  # astype copies: raw is ours to change
    factor = 1 if code == DATE else _MICROS[unit]
    low, high = _DAY_RANGE if code == DATE else _MICRO_RANGE
    if factor > 0:
        low, high = -(-low // factor), high // factor
    else:
        low, high = max(low * -factor, NAT + 1), min((high + 1) * -factor - 1, 2**63 - 1)
    unset = raw == NAT
    bad = (raw < low) | (raw > high)
    if factor < 0:
        bad |= raw % -factor != 0  # nothing is cut
    if nullable:
        bad &= ~unset
    if bad.any():
        place = int(bad.argmax())
        check(None if unset[place] else values[place], place)
        raise ValueError(f"{values[place]} at position {place} cannot be stored exactly")
    nulls = _bitmap(len(raw), unset.nonzero()[0].tolist())
    raw[unset] = 0
    if factor > 0:
        raw *= factor
    else:
        raw //= -factor
    return len(raw), raw.astype("i4" if code == DATE else "i8").tobytes(), nulls


def _bitmap(rows: int, positions: list[int]) -> Optional[bytes]:
    if not positions:
        return None
    bits = bytearray(mask_bytes(rows))
    for row in positions:
        bits[row >> 3] |= 1 << (row & 7)
    return bytes(bits)
