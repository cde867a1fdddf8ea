"""Which type the cells of a column of text have, and how values are written as cells again.

A type is given only where it loses nothing: integers without leading zeros that fit in 64 bits, decimals that are what
a double is written as, ``true`` and ``false``, ISO dates and UTC moments as they would be written again. Whatever
else there is, text it stays.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Callable, Optional

from .errors import ValidationError, shorten

__all__ = ["Detector", "cell", "moment_text", "reader_of"]

_INTEGER = re.compile(r"(0|-?[1-9][0-9]*)\Z")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z\Z")
_KNOWN = 1 << 16  # texts of a column that are remembered as seen: most columns have few different ones


def moment_text(value: dt.datetime) -> str:
    """A moment as it is written: ``2013-01-01T06:00:00Z``."""
    return value.astimezone(dt.timezone.utc).replace(tzinfo=None).isoformat() + "Z"


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text[:-1]).replace(tzinfo=dt.timezone.utc)


def _is_decimal(text: str) -> bool:
    if not _DECIMAL.match(text):
        return False
    value = float(text)
    if not math.isfinite(value):
        return False
    exact = Decimal(text)
    if exact.is_signed() and not exact:
        return False
    # what a double is written as: the shortest text that it is, or with 17 digits, as C and R do it
    return exact == Decimal(repr(value)) or exact == Decimal(f"{value:.17g}")


def _is_date(text: str) -> bool:
    try:
        return bool(_DATE.match(text)) and dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_moment(text: str) -> bool:
    try:
        return bool(_MOMENT.match(text)) and moment_text(_moment(text)) == text
    except (ValueError, OverflowError):
        return False


def _fits(text: str, low: int, high: int) -> bool:
    return len(text) <= 20 and bool(_INTEGER.match(text)) and low <= int(text) <= high


#: dtype and whether a text can be of it, in the order in which they are tried
_TESTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("i64", lambda text: _fits(text, -(2**63), 2**63 - 1)),
    ("u64", lambda text: _fits(text, 0, 2**64 - 1)),
    ("f64", _is_decimal),
    ("bool", lambda text: text in ("true", "false")),
    ("date", _is_date),
    ("datetime", _is_moment),
)


class Detector:
    """The type of one column, narrowed down by its cells. ``nulls``: texts that stand for a missing value."""

    def __init__(self, nulls: Iterable[str]) -> None:
        self._nulls = frozenset(nulls)
        self._left = list(_TESTS)
        self._seen: set[str] = set()
        self.empty = True  # no cell has had a value
        self.missing = False  # some cell stands for a missing value
        self.blank = False  # some cell was empty

    def see(self, texts: Iterable[str]) -> None:
        """Some of the column's cells."""
        seen = self._seen
        for text in texts:
            if text in seen:
                continue
            if len(seen) < _KNOWN:
                seen.add(text)
            if text == "":
                self.blank = True
            if text in self._nulls:
                self.missing = True
                continue
            self.empty = False
            if self._left:
                self._left = [test for test in self._left if test[1](text)]

    @property
    def dtype(self) -> str:
        """The type of all that was seen; ``str`` where there was nothing."""
        return self._left[0][0] if self._left and not self.empty else "str"


def reader_of(dtype: str) -> Callable[[str], Any]:
    """What makes a value of the text of a cell. ValueError where it cannot."""
    if dtype in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"):
        return int
    if dtype in ("f32", "f64"):
        return float
    if dtype == "bool":
        return _read_bool
    if dtype == "date":
        return dt.date.fromisoformat
    if dtype == "datetime":
        return _read_moment
    if dtype.startswith("binary"):
        return bytes.fromhex
    return str


def _read_bool(text: str) -> bool:
    found = {"true": True, "false": False, "1": True, "0": False}.get(text.lower())
    if found is None:
        raise ValueError("it is neither true nor false")
    return found


def _read_moment(text: str) -> dt.datetime:
    value = _moment(text) if text.endswith("Z") else dt.datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("it has no time zone")
    return value


def read(reader: Callable[[str], Any], text: str, column: str, line: int) -> Any:
    """The value of a cell. ValidationError that names its place."""
    try:
        return reader(text)
    except ValueError as error:
        what = f"line {line}, column {column!r}: {shorten(text)} cannot be stored there: {error}"
        raise ValidationError(what, column=column) from None


def cell(value: Any, null: str) -> str:
    """A value as the text of a cell. Binary is written as hexadecimal digits."""
    if value is None:
        return null
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return repr(value)
    if isinstance(value, dt.datetime):
        return moment_text(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if kind is bytes:
        return str(value.hex())
    return str(value)


def plain(value: Any) -> Optional[Any]:
    """A value as JSON has it: moments, dates and what is not finite as text, binary as hexadecimal digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, (dt.date, bytes)):
        return cell(value, "")
    return value
