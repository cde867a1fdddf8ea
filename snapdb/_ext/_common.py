"""Constants and small conversions that every kernel, compiled or pure, shares.

This module is the one place below the kernels: it imports nothing of SnapDB. The numbers here are part of the file
format (``docs/format.md``).
"""

from __future__ import annotations

import datetime as _dt
from typing import Any, NamedTuple, Union

__all__ = [
    "AFFINE", "BINARY", "BITMAP", "BLOCK", "BOOL", "BYTES", "CODEC_NAMES", "CONST", "DATE", "DATETIME", "DEC",
    "DICT", "EXCEPTED", "F32", "F64", "FLOATS", "FOR", "FRONT", "HEADER", "Half", "I8", "I16", "I32", "I64", "INTS",
    "LIMITS", "MOST_ODD", "MOST_RUNS", "NAN", "PACKED", "RAW", "RESTART", "RUNS", "SEGMENT", "SLOPE", "STR",
    "STRINGS", "TAIL", "TEXTS", "TYPECODES", "U8", "U16", "U32", "U64", "UNSELECTED", "VARLEN", "WIDTHS", "Zone",
    "container", "decode_text", "logical", "mask_bytes", "packed_width", "to_date", "to_datetime",
]  # fmt: skip

# -- units -----------------------------------------------------------------
BLOCK = 1024  # rows in a block, the unit of packing and of float summation
SEGMENT = 65536  # row positions in a segment
TAIL = 8192  # rows at which a tail is folded into the sealed part
UNSELECTED = 0xFFFFFFFF  # the group number of a row that is not selected
HEADER = 128  # bytes of a chunk header; every section is aligned to 64

# -- dtype codes -----------------------------------------------------------
I8, I16, I32, I64, U8, U16, U32, U64, F32, F64, BOOL, BYTES, STR, BINARY, DATE, DATETIME = range(1, 17)

INTS = frozenset((I8, I16, I32, I64, U8, U16, U32, U64, DATE, DATETIME))  # stored as integers
FLOATS = frozenset((F32, F64))
VARLEN = frozenset((BYTES, STR, BINARY))  # physical value: bytes
TEXTS = frozenset((BYTES, STR))
STRINGS = VARLEN

#: physical width in bytes of one value in a typed column (bool: one byte)
WIDTHS = {I8: 1, I16: 2, I32: 4, I64: 8, U8: 1, U16: 2, U32: 4, U64: 8, F32: 4, F64: 8, BOOL: 1, DATE: 4, DATETIME: 8}
#: ``array`` / ``memoryview`` type code of a typed column
TYPECODES = {
    I8: "b", I16: "h", I32: "i", I64: "q", U8: "B", U16: "H", U32: "I", U64: "Q",
    F32: "f", F64: "d", BOOL: "B", DATE: "i", DATETIME: "q",
}  # fmt: skip
#: inclusive range of the integer types (bool: 0 and 1)
LIMITS = {
    I8: (-(2**7), 2**7 - 1), I16: (-(2**15), 2**15 - 1), I32: (-(2**31), 2**31 - 1), I64: (-(2**63), 2**63 - 1),
    U8: (0, 2**8 - 1), U16: (0, 2**16 - 1), U32: (0, 2**32 - 1), U64: (0, 2**64 - 1),
    DATE: (-(2**31), 2**31 - 1), DATETIME: (-(2**63), 2**63 - 1), BOOL: (0, 1),
}  # fmt: skip

# -- codec numbers ---------------------------------------------------------
RAW, CONST, AFFINE, FOR, DICT, BITMAP, SLOPE, DEC = range(1, 9)
CODEC_NAMES = {
    RAW: "raw", CONST: "const", AFFINE: "delta", FOR: "for", DICT: "dict", BITMAP: "bool", SLOPE: "delta",
    DEC: "decimal",
}  # fmt: skip

# -- layouts: how the codes of FOR, DICT, SLOPE and DEC are stored -----------
PACKED, EXCEPTED, RUNS = range(3)
MOST_RUNS = 8192  # runs in a chunk
MOST_ODD = 16  # odd values of DEC
FRONT = 1  # flag of a chunk: its dictionary is front-coded
RESTART = 16  # entries of a front-coded dictionary from one whole entry to the next

#: the one NaN that comes out of every computation (bits 0x7ff8000000000000)
NAN = float("nan")

Physical = Union[int, float, bytes, None]


class Half(MemoryError):
    """There is no memory to go on with a change, nor to take it back: it is done in part."""


class Zone(NamedTuple):
    """What a zone map says of the sealed part of one segment of one column.

    ``lo`` and ``hi`` are physical values (for text at most 32 bytes; a cut ``hi`` is rounded up, None if it cannot
    be), both None where there is no non-null value; floats: NaN only where every value is NaN, and -0.0 < 0.0.
    ``exact`` says that ``lo`` and ``hi`` are values of the column. ``total`` is the sum: an exact int, a float of
    the sum's one definition, or None for text.
    """

    lo: Physical
    hi: Physical
    exact: bool
    nulls: int
    nans: int
    total: Union[int, float, None]


def mask_bytes(rows: int) -> int:
    """Bytes of a selection bitmap over ``rows`` rows: whole 64-bit words."""
    return (rows + 63) // 64 * 8


def packed_width(span: int) -> int:
    """Bits per packed value for offsets 0..span, rounded up to a whole container only where that costs little."""
    width = span.bit_length()
    if width == 15:
        return 16
    if width == 31:
        return 32
    if width >= 62:
        return 64
    return width


def container(width: int) -> int:
    """The container width T (8, 16, 32 or 64) that holds ``width`` bits."""
    if width <= 8:
        return 8
    if width <= 16:
        return 16
    return 32 if width <= 32 else 64


_EPOCH_DATE = _dt.date(1970, 1, 1).toordinal()
_EPOCH = _dt.datetime(1970, 1, 1, tzinfo=_dt.timezone.utc)


def to_date(days: int) -> _dt.date:
    """Days since 1970-01-01 as a date."""
    return _dt.date.fromordinal(_EPOCH_DATE + days)


def to_datetime(micros: int) -> _dt.datetime:
    """Microseconds since 1970-01-01 UTC as an aware datetime in UTC."""
    return _EPOCH + _dt.timedelta(microseconds=micros)


def decode_text(value: bytes) -> Union[str, bytes]:
    """Text as ``str`` where it is valid UTF-8, else the bytes unchanged."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def logical(code: int, value: Physical) -> Any:
    """The Python value a user sees for a physical value of dtype ``code``."""
    if value is None:
        return None
    if code in (BYTES, STR):
        return decode_text(value)  # type: ignore[arg-type]
    if code == BOOL:
        return bool(value)
    if code == DATE:
        return to_date(int(value))
    if code == DATETIME:
        return to_datetime(int(value))
    return value
