"""Documents as bytes, and back: the readable twin of ``_doc.pyx``. The form is *Documents* in ``docs/format.md``.

``encode`` raises TypeError for what cannot be stored and ValueError for what is too deep or too large; what reads bytes
raises ValueError for damage. Nothing here knows tables.
"""

from __future__ import annotations

from decimal import Decimal
from struct import Struct
from struct import error as StructError
from typing import Any, Optional, Union

from ._scalars import damaged, plain, read, written

__all__ = ["decode", "encode", "judge"]

DEPTH = 200  # arrays and objects inside of each other
MOST = 2**32 - 2  # bytes of a value
NULL, FALSE, TRUE, INT, LONG, FLOAT, TEXT, BYTES = range(8)
ARRAY, OBJECT = 16, 17

_U32, _I64, _F64, _HEAD = Struct("<I"), Struct("<q"), Struct("<d"), Struct("<BII")
_NAN = b"\x05" + bytes.fromhex("000000000000f87f")


# -- writing -------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """The bytes of a value: None, bool, int, float, str, bytes, datetime, date, Decimal, UUID, and lists, tuples (which
    read back as lists) and dicts with names of str of them. TypeError, ValueError.
    """
    return _encoded(value, 0)


def _encoded(value: Any, depth: int) -> bytes:
    kind = type(value)
    if value is None or kind is bool:
        return b"\x00" if value is None else b"\x02" if value else b"\x01"
    if kind is int:
        return b"\x03" + _I64.pack(value) if -(2**63) <= value < 2**63 else written(value)
    if kind is float:
        return _NAN if value != value else b"\x05" + _F64.pack(value)
    if kind is str:
        return _sized(b"\x06", value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return _sized(b"\x07", value)
    if kind is dict:
        _check_depth(depth)
        return _nested(OBJECT, [_name(name) + _encoded(one, depth + 1) for name, one in value.items()])
    if kind is list:
        _check_depth(depth)
        return _nested(ARRAY, [_encoded(one, depth + 1) for one in value])
    try:
        return written(value)
    except TypeError:
        other = plain(value)
    return written(other) if type(other) is kind else _encoded(other, depth)


def _check_depth(depth: int) -> None:
    if depth >= DEPTH:
        raise ValueError(f"it is nested more than {DEPTH} deep")


def _sized(tag: bytes, data: bytes) -> bytes:
    if len(data) > MOST - 5:
        raise ValueError("a value has less than 4 GiB")
    return tag + _U32.pack(len(data)) + data


def _name(name: Any) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    return _sized(b"", str.__str__(name).encode("utf-8", "surrogatepass"))


def _nested(tag: int, parts: list[bytes]) -> bytes:
    offsets = []
    at = 9 + 4 * len(parts)
    for part in parts:
        offsets.append(_U32.pack(at & 0xFFFFFFFF))
        at += len(part)
    if at > MOST:
        raise ValueError("a value has less than 4 GiB")
    return b"".join([_HEAD.pack(tag, at, len(parts)), *offsets, *parts])


# -- reading -------------------------------------------------------------------


def decode(data: Any) -> Any:
    """The value of these bytes, which are all of it. ValueError for damage."""
    view = memoryview(data).cast("B")
    return _value(view, 0, len(view), 0)


def _value(view: memoryview, at: int, end: int, depth: int) -> Any:
    """The value from ``at`` to ``end``."""
    if at >= end:
        raise damaged("a value is cut off")
    tag = view[at]
    if tag == OBJECT:
        return _object(view, at, end, depth)
    if tag == ARRAY:
        return [_value(view, one, other, depth + 1) for one, other in _spans(view, at, end, depth)]
    value, size = _scalar(tag, view[at + 1 : end])
    if at + 1 + size != end:
        raise damaged("a value does not end where it must")
    return value


def _object(view: memoryview, at: int, end: int, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    spans = _spans(view, at, end, depth)
    for start, stop in spans:
        name, size = _text(view[start:stop])
        found[name] = _value(view, start + size, stop, depth + 1)
    if len(found) != len(spans):
        raise damaged("two fields have one name")
    return found


def _scalar(tag: int, view: memoryview) -> tuple[Any, int]:
    """A value that is not nested, of which this is what follows its tag, and how many bytes that takes."""
    try:
        if tag == INT:
            return _I64.unpack_from(view)[0], 8
        if tag == FLOAT:
            return _F64.unpack_from(view)[0], 8
    except StructError:
        raise damaged("a value is cut off") from None
    if tag == TEXT:
        return _text(view)
    if tag == BYTES:
        size = _size(view)
        return bytes(view[4 : 4 + size]), 4 + size
    if tag <= TRUE:
        return (None, False, True)[tag], 0
    return read(tag, view)


def _size(view: memoryview) -> int:
    if len(view) < 4 or _U32.unpack_from(view)[0] > len(view) - 4:
        raise damaged("a value is cut off")
    size: int = _U32.unpack_from(view)[0]
    return size


def _text(view: memoryview) -> tuple[str, int]:
    size = _size(view)
    try:
        return str(view[4 : 4 + size], "utf-8", "surrogatepass"), 4 + size
    except UnicodeDecodeError:
        raise damaged("a text is not UTF-8") from None


def _spans(view: memoryview, at: int, end: int, depth: int) -> list[tuple[int, int]]:
    """From where to where the values or fields of an array or object go, which ends at ``end``."""
    if depth >= DEPTH:
        raise damaged(f"it is nested more than {DEPTH} deep")
    if end - at < 9:
        raise damaged("a value is cut off")
    _, size, count = _HEAD.unpack_from(view, at)
    first = 9 + 4 * count
    if size != end - at or first > size:
        raise damaged("a size is wrong")
    offsets = [offset for (offset,) in _U32.iter_unpack(view[at + 9 : at + first])] + [size]
    if offsets[0] != first or any(one >= other for one, other in zip(offsets, offsets[1:])):
        raise damaged("an offset is wrong")
    return [(at + one, at + other) for one, other in zip(offsets, offsets[1:])]


# -- judging many --------------------------------------------------------------

NO, YES, ASK = range(3)  # it does not match, it does, this cannot say
Bound = Union[int, float, None]


def judge(
    documents: list[bytes], parts: tuple[bytes, ...], text: Optional[bytes], low: Bound, high: Bound,
    low_open: bool, high_open: bool,
) -> bytearray:  # fmt: skip
    """For each document (bytes) whether the value that a path of names (bytes) leads to is this text, or with None a
    number between two bounds (None: without end): a bytearray of 0, no, 1, yes, and 2, which this does not say.
    """
    for bound in (low, high):
        if type(bound) is int and not -(2**63) <= bound < 2**63:
            raise OverflowError("a bound has 64 bits")
        if bound is not None and bound != bound:
            raise ValueError("a bound is not NaN")
    found = bytearray()
    names = [part.decode("utf-8", "surrogatepass") for part in parts]
    for document in documents:
        value, known = _at(decode(document), names)
        if known == YES:
            known = _verdict(value, text, low, high, low_open, high_open)
        found.append(known)
    return found


def _at(value: Any, names: list[str]) -> tuple[Any, int]:
    for name in names:
        if not isinstance(value, dict):
            return None, ASK if isinstance(value, list) else NO
        if name not in value:
            return None, NO
        value = value[name]
    return value, ASK if isinstance(value, list) else YES


def _verdict(value: Any, text: Optional[bytes], low: Bound, high: Bound, low_open: bool, high_open: bool) -> int:
    if text is not None:
        return YES if isinstance(value, str) and value.encode("utf-8", "surrogatepass") == text else NO
    if isinstance(value, Decimal) or (type(value) is int and not -(2**63) <= value < 2**63):
        return ASK
    if type(value) not in (int, float) or value != value:
        return NO
    if low is not None and (value < low or (low_open and value == low)):
        return NO
    return NO if high is not None and (value > high or (high_open and value == high)) else YES
