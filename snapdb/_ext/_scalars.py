"""Values of documents that are neither common nor nested, as bytes and back, for ``_doc`` and its twin.

The form is *Documents* in ``docs/format.md``. ValueError for damage, and TypeError for what cannot be stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from operator import index
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["damaged", "plain", "read", "written"]

LONG, MOMENT, DATE, DECIMAL, ID = 4, 8, 9, 10, 11
_U32, _I32, _PAIR = Struct("<I"), Struct("<i"), Struct("<qq")
_NO_OFFSET = -(2**63)  # of a clock that says none
_EPOCH, _DAY = dt.datetime(1970, 1, 1), dt.date(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)


def damaged(why: str) -> ValueError:
    """What is raised for bytes that no document has."""
    return ValueError(f"a damaged document: {why}")


# -- writing -------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value equal to this one, of a type that is written as it is: for a derived type its base, for an integer of
    another library an int. TypeError where there is none.
    """
    for kind, base in _BASES:
        if isinstance(value, kind):
            return base(value)
    from uuid import UUID  # not at the top: CPython 3.9 loads subprocess with it

    if isinstance(value, UUID):
        return UUID(bytes=value.bytes)
    name = type(value).__name__
    if name in _NO_INTEGERS:  # asked first: it would warn
        raise TypeError(f"{name} cannot be stored")
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} cannot be stored") from None


def _plain_moment(value: dt.datetime) -> dt.datetime:
    found = dt.datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    )
    if found != value:
        raise TypeError(f"{type(value).__name__} cannot be stored: it has more digits than microseconds")
    return found


# what a derived type overrides is not asked
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (list, lambda value: [*list.__iter__(value)]),
    (tuple, lambda value: [*tuple.__iter__(value)]),
    (dict, lambda value: dict(dict.items(value))),
    (dt.datetime, _plain_moment),
    (dt.date, lambda value: dt.date(value.year, value.month, value.day)),
    (Decimal, Decimal),
)
_NO_INTEGERS = ("bool_", "bool")  # NumPy's, which ``index`` takes in releases before 2.0


def written(value: Any) -> bytes:
    """A long integer, datetime, date, Decimal or UUID with its tag; TypeError for anything else."""
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    from uuid import UUID

    if type(value) is not UUID:
        raise TypeError(f"{type(value).__name__} cannot be stored")
    return bytes((ID,)) + value.bytes


def _long(value: int) -> bytes:
    return value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "little", signed=True)


def _sized(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + _U32.pack(len(data)) + data


def _moment(value: dt.datetime) -> bytes:
    offset = value.utcoffset()
    shown = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return bytes((MOMENT,)) + _PAIR.pack(shown, _NO_OFFSET if offset is None else offset // _MICROSECOND)


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    int: lambda value: _sized(LONG, _long(value)),
    dt.datetime: _moment,
    dt.date: lambda value: bytes((DATE,)) + _I32.pack((value - _DAY).days),
    Decimal: lambda value: _sized(DECIMAL, str(value).encode("ascii")),
}


# -- reading -------------------------------------------------------------------


def read(tag: int, view: memoryview) -> tuple[Any, int]:
    """The value of a tag, of which this is what follows and maybe more, and how many bytes of it are the value's."""
    reader = _READERS.get(tag)
    if reader is None:
        raise damaged(f"there is no tag {tag}")
    try:
        return reader(view)
    except StructError:
        raise damaged("a value is cut off") from None


def _data(view: memoryview) -> bytes:
    (size,) = _U32.unpack_from(view)
    if size > len(view) - 4:
        raise damaged("a value is cut off")
    return bytes(view[4 : 4 + size])


def _long_of(view: memoryview) -> tuple[int, int]:
    data = _data(view)
    value = int.from_bytes(data, "little", signed=True)
    if -(2**63) <= value < 2**63 or _long(value) != data:
        raise damaged("an integer has more bytes than it needs")
    return value, 4 + len(data)


def _moment_of(view: memoryview) -> tuple[dt.datetime, int]:
    shown, offset = _PAIR.unpack_from(view)
    try:
        found = _EPOCH + dt.timedelta(microseconds=shown)
        if offset != _NO_OFFSET:
            found = found.replace(tzinfo=dt.timezone(dt.timedelta(microseconds=offset)) if offset else dt.timezone.utc)
    except (OverflowError, ValueError):
        raise damaged("there is no such moment") from None
    return found, 16


def _date_of(view: memoryview) -> tuple[dt.date, int]:
    try:
        return _DAY + dt.timedelta(days=_I32.unpack_from(view)[0]), 4
    except OverflowError:
        raise damaged("there is no such date") from None


def _decimal_of(view: memoryview) -> tuple[Decimal, int]:
    data = _data(view)
    try:
        value = Decimal(data.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        raise damaged("it is no decimal number") from None
    if str(value).encode("ascii") != data:
        raise damaged("it is no decimal number")
    return value, 4 + len(data)


def _id_of(view: memoryview) -> tuple[UUID, int]:
    from uuid import UUID

    if len(view) < 16:
        raise damaged("a value is cut off")
    return UUID(bytes=bytes(view[:16])), 16


_READERS: dict[int, Callable[[memoryview], tuple[Any, int]]] = {
    LONG: _long_of,
    MOMENT: _moment_of,
    DATE: _date_of,
    DECIMAL: _decimal_of,
    ID: _id_of,
}
