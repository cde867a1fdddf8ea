"""The one table of types: what a column accepts, how it is stored, and what is said of a value that does not fit.

A *physical* value is what storage holds: an ``int`` (bool: 0 or 1, date: days and datetime: microseconds since
1970-01-01 UTC), a ``float``, or ``bytes``. ``snapdb._ext._common.logical`` turns it back into what a user reads.
"""

from __future__ import annotations

import datetime as _dt
import math
import operator
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Optional, Protocol, Union

from ._ext import _common as c
from .errors import (
    MissingColumnError,
    NotNullError,
    SchemaError,
    UnknownColumnError,
    ValidationError,
    ValueTypeError,
    close_names,
    shorten,
    suggest,
)

__all__ = [
    "MAX_LIMIT", "NAMES", "DType", "Refused", "convert", "is_numpy_bool", "make_coerce", "make_refuse", "parse",
    "physical",
]  # fmt: skip

#: the greatest N of ``bytes:N`` and ``binary:N``
MAX_LIMIT = 2**31 - 1

Value = Union[int, float, bytes]

_CODES = {
    "i8": c.I8, "i16": c.I16, "i32": c.I32, "i64": c.I64, "u8": c.U8, "u16": c.U16, "u32": c.U32, "u64": c.U64,
    "f32": c.F32, "f64": c.F64, "bool": c.BOOL, "bytes": c.BYTES, "str": c.STR, "binary": c.BINARY, "date": c.DATE,
    "datetime": c.DATETIME,
}  # fmt: skip
#: the names of the types, as a message lists them
NAMES = (
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64", "bool", "bytes:N", "str", "binary", "binary:N",
    "date", "datetime",
)  # fmt: skip
_FORMATS = {**c.TYPECODES, c.BOOL: "?"}
_SIZED = re.compile(r"(bytes|binary):([0-9]{1,20})", re.ASCII)
# names of other systems, for the hint of an error only
_ELSEWHERE = {
    "int": "i64", "integer": "i64", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8",
    "uint16": "u16", "uint32": "u32", "uint64": "u64", "float": "f64", "double": "f64", "real": "f64", "float32": "f32",
    "float64": "f64", "boolean": "bool", "text": "str", "string": "str", "varchar": "bytes:N", "blob": "binary",
    "bytes": "bytes:N", "timestamp": "datetime",
}  # fmt: skip


class DType(NamedTuple):
    """A column type: ``name`` as written in a schema, ``code`` in files and kernels, ``limit`` of bytes (0: none)."""

    name: str
    code: int
    limit: int = 0

    @property
    def width(self) -> int:
        """Bytes of the column's field in a fixed-width row; 8 where the value lies in the heap."""
        if self.code == c.BYTES:
            return self.limit
        return c.WIDTHS.get(self.code, 8)

    @property
    def fmt(self) -> str:
        """The ``struct`` format of that field; a heap reference is eight opaque bytes."""
        if self.is_varlen:
            return f"{self.width}s"
        return _FORMATS[self.code]

    @property
    def is_integer(self) -> bool:
        """An integer type a user would call one (i8 to u64)."""
        return c.I8 <= self.code <= c.U64

    @property
    def is_float(self) -> bool:
        """f32 or f64."""
        return self.code in c.FLOATS

    @property
    def is_bool(self) -> bool:
        """bool."""
        return self.code == c.BOOL

    @property
    def is_temporal(self) -> bool:
        """date or datetime."""
        return self.code in (c.DATE, c.DATETIME)

    @property
    def is_numeric(self) -> bool:
        """Can be summed and compared with numbers: integers, floats and bool."""
        return self.code <= c.BOOL

    @property
    def is_text(self) -> bool:
        """Reads back as ``str``: bytes:N and str."""
        return self.code in c.TEXTS

    @property
    def is_varlen(self) -> bool:
        """The physical value is ``bytes``: bytes:N, str, binary."""
        return self.code in c.VARLEN

    @property
    def is_variable(self) -> bool:
        """Lies in the heap, with no fixed width in a row: str, binary and binary:N."""
        return self.code in (c.STR, c.BINARY)

    @property
    def lo(self) -> Optional[int]:
        """The least physical value of a type stored as an integer, else None."""
        limits = c.LIMITS.get(self.code)
        return None if limits is None else limits[0]

    @property
    def hi(self) -> Optional[int]:
        """The greatest physical value of a type stored as an integer, else None."""
        limits = c.LIMITS.get(self.code)
        return None if limits is None else limits[1]

    @property
    def accepts(self) -> str:
        """What a column of this type takes, in words for a message."""
        return _ACCEPTS.get(self.code, "integers")

    def __str__(self) -> str:
        return self.name


_ACCEPTS = {
    c.F32: "numbers", c.F64: "numbers", c.BOOL: "True, False, 0 and 1", c.BYTES: "str and bytes",
    c.STR: "str and UTF-8 bytes", c.BINARY: "bytes", c.DATE: "datetime.date",
    c.DATETIME: "datetime.datetime with a time zone",
}  # fmt: skip


def parse(name: Union[str, DType]) -> DType:
    """The type of that name; SchemaError for any other, with what there is."""
    if isinstance(name, DType):
        return name
    if isinstance(name, str):
        sized = _SIZED.fullmatch(name)
        if sized:
            return _parse_sized(sized.group(1), int(sized.group(2)))
        if name in _CODES and name != "bytes":
            return DType(name, _CODES[name])
    hint = f"the types are {', '.join(NAMES)}"
    near = _ELSEWHERE.get(name.strip().lower()) if isinstance(name, str) else None
    if near:
        hint = f"did you mean {near!r}? {hint}"
    if name == "bytes":
        hint = f"say how many bytes, as in 'bytes:32', or use 'str' or 'binary' for any length; {hint}"
    raise SchemaError(f"unknown dtype {shorten(name)}", hint=hint)


def _parse_sized(base: str, limit: int) -> DType:
    if not 1 <= limit <= MAX_LIMIT:
        raise SchemaError(f"dtype {f'{base}:{limit}'!r}: the number of bytes must be 1 to {MAX_LIMIT}")
    return DType(f"{base}:{limit}", _CODES[base], limit)


# -- values in -------------------------------------------------------------
class Refused(Exception):
    """Why a value cannot become a physical value. Internal: callers add the column and raise an error of their own."""

    def __init__(self, reason: str, hint: Optional[str] = None, wrong_type: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.wrong_type = wrong_type


def _wrong_type(dtype: DType, value: Any, hint: Optional[str] = None) -> Refused:
    if type(value).__name__ in ("NAType", "NaTType"):
        hint = "use None for a missing value"
    return Refused(f"{dtype.name} takes {dtype.accepts}, not {type(value).__name__}", hint, True)


def _is_nat(value: _dt.datetime) -> bool:
    return not bool(value == value)  # pandas' NaT is a datetime that does not equal itself


def is_numpy_bool(value: Any) -> bool:
    """Whether the value is NumPy's bool, which has no ``__index__``."""
    # known by name, so that NumPy is not imported to find out
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")


def _index(dtype: DType, value: Any) -> int:
    """The value as an exact int by ``__index__``; NumPy's bool, which has none, counts as bool."""
    if is_numpy_bool(value):
        return int(value)
    try:
        return int.__index__(operator.index(value))
    except TypeError as error:
        hint = None
        if isinstance(value, float):
            hint = f"convert it first, as in {'bool' if dtype.is_bool else 'int'}(value)"
        elif isinstance(value, (str, bytes)) and dtype.is_bool:
            hint = "text is not converted: compare it, as in value == 'yes'"
        elif isinstance(value, (str, bytes)):
            hint = "numbers in text are not converted: use int(value)"
        raise _wrong_type(dtype, value, hint) from error
    except Exception as error:
        raise Refused(f"its __index__ failed: {error!r}") from error


def _to_integer(dtype: DType, value: Any) -> int:
    number = value if type(value) is int else _index(dtype, value)
    lo, hi = c.LIMITS[dtype.code]
    if not lo <= number <= hi:
        wider = "i64" if lo else "u64"
        hint = None if dtype.width == 8 else f"a wider type such as {wider} holds more"
        raise Refused(f"out of range for {dtype.name}, {lo} to {hi}", hint)
    return number


def _to_bool(dtype: DType, value: Any) -> int:
    if value is True or value is False:
        return int(value)
    number = _index(dtype, value)
    if number not in (0, 1):
        raise Refused("bool takes True, False, 0 and 1 only", "convert it first, as in bool(value)")
    return number


def _to_float(dtype: DType, value: Any) -> float:
    number = value if type(value) is float else _float(dtype, value)
    if dtype.code == c.F32:
        try:
            rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
        except OverflowError:
            raise Refused("out of range for f32, about -3.4e38 to 3.4e38", "f64 holds more") from None
        return rounded
    return number


def _float(dtype: DType, value: Any) -> float:
    kind = type(value)
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        raise _wrong_type(dtype, value, "numbers in text are not converted: use float(value)")
    if not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise _wrong_type(dtype, value)
    try:
        number = float.__pos__(float(value))
        # Decimal turns what is too large into an infinity where int and Fraction raise
        overflow = math.isinf(number) and not bool(value == number)
    except OverflowError:
        overflow = True
    except TypeError as error:
        raise _wrong_type(dtype, value) from error
    except Exception as error:
        raise Refused(f"it cannot become a float: {error!r}") from error
    if overflow:
        raise Refused(f"out of range for {dtype.name}, about -1.8e308 to 1.8e308")
    return number


def _raw_bytes(value: Any) -> Optional[bytes]:
    """An exact ``bytes`` copy of a bytes-like value, None for anything else."""
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return memoryview(value).tobytes()
        except ValueError as error:
            raise Refused(f"its bytes cannot be read: {error}") from error
    return None


def _to_text(dtype: DType, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            data = str.encode(value)
        except UnicodeEncodeError as error:
            raise Refused(
                f"not valid Unicode: a lone surrogate at character {error.start}",
                "encode it yourself, as in value.encode('utf-8', 'surrogatepass'), for a bytes:N or binary column",
            ) from None
    else:
        raw = _raw_bytes(value)
        if raw is None:
            raise _wrong_type(dtype, value, "convert it first, as in str(value)")
        data = raw
        if dtype.code == c.STR:
            _check_utf8(data)
    _check_length(dtype, data)
    return data


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"not valid UTF-8 at byte {error.start}", "declare the column bytes:N or binary for arbitrary bytes"
        ) from None


def _to_binary(dtype: DType, value: Any) -> bytes:
    data = _raw_bytes(value)
    if data is None:
        hint = "encode text first, as in value.encode()" if isinstance(value, str) else None
        raise _wrong_type(dtype, value, hint)
    _check_length(dtype, data)
    return data


def _check_length(dtype: DType, data: bytes) -> None:
    if dtype.limit and len(data) > dtype.limit:
        free = "binary" if dtype.code == c.BINARY else "str"
        raise Refused(
            f"{len(data)} bytes are too long for {dtype.name}, nothing is cut",
            f"shorten it, or declare the column {dtype.name.partition(':')[0]}:{len(data)} or {free}",
        )


_EPOCH = _dt.date(1970, 1, 1).toordinal()
_DAY = 86_400_000_000  # microseconds
_FIRST = (_dt.date.min.toordinal() - _EPOCH) * _DAY
_LAST = (_dt.date.max.toordinal() + 1 - _EPOCH) * _DAY - 1


def _to_date(dtype: DType, value: Any) -> int:
    if isinstance(value, _dt.datetime) and not _is_nat(value):
        raise _wrong_type(dtype, value, "take its day, as in value.date()")
    if not isinstance(value, _dt.date) or isinstance(value, _dt.datetime):
        text = isinstance(value, str)
        raise _wrong_type(dtype, value, "use datetime.date.fromisoformat(value)" if text else None)
    return value.toordinal() - _EPOCH


def _to_datetime(dtype: DType, value: Any) -> int:
    if not isinstance(value, _dt.datetime) or _is_nat(value):
        hint = None
        if isinstance(value, str):
            hint = "use datetime.datetime.fromisoformat(value) with a time zone"
        elif isinstance(value, _dt.date):
            hint = "use datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.timezone.utc)"
        raise _wrong_type(dtype, value, hint)
    try:
        offset = value.utcoffset()
        day = value.toordinal() - _EPOCH
    except Exception as error:
        raise Refused(f"its time zone cannot be worked out: {error!r}") from error
    if offset is None:
        raise Refused(
            "a naive datetime says no time zone",
            "add one, as in value.replace(tzinfo=datetime.timezone.utc) for a time that is in UTC",
        )
    if getattr(value, "nanosecond", 0):
        raise Refused("it is finer than a microsecond, nothing is cut", "round it first, as in value.floor('us')")
    seconds = (value.hour * 60 + value.minute) * 60 + value.second - offset.days * 86_400 - offset.seconds
    micros = day * _DAY + seconds * 1_000_000 + value.microsecond - offset.microseconds
    if not _FIRST <= micros <= _LAST:
        raise Refused("out of range in UTC, the years 1 to 9999")
    return micros


_CONVERTERS: dict[int, Callable[[DType, Any], Value]] = {
    **dict.fromkeys(range(c.I8, c.U64 + 1), _to_integer),
    c.F32: _to_float, c.F64: _to_float, c.BOOL: _to_bool, c.BYTES: _to_text, c.STR: _to_text, c.BINARY: _to_binary,
    c.DATE: _to_date, c.DATETIME: _to_datetime,
}  # fmt: skip


def convert(dtype: DType, value: Any) -> Value:
    """The physical value of a value that is not None; Refused says why there is none."""
    return _CONVERTERS[dtype.code](dtype, value)


def physical(dtype: DType, value: Any, column: Optional[str] = None, position: int = -1) -> Value:
    """The physical value of a value that is not None, by the value rules.

    ValueTypeError for a type the column never takes, ValidationError for a value that does not fit. ``position`` is the
    row's index in its batch, -1 for none.
    """
    try:
        return _CONVERTERS[dtype.code](dtype, value)
    except Refused as problem:
        error = ValueTypeError if problem.wrong_type else ValidationError
        what = "" if column is None else f"column {shorten(column)}: "
        raise error(
            f"{what}cannot store {shorten(value)}: {problem.reason}",
            column=column, row_index=position, hint=problem.hint,
        ) from problem.__cause__  # fmt: skip


# -- what the row codec calls ----------------------------------------------
class ColumnLike(Protocol):
    """A column as the functions below need it; ``dtype`` is a name or a DType."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def not_null(self) -> bool: ...


def make_coerce(columns: Sequence[ColumnLike]) -> Callable[[int, Any, int], Optional[Value]]:
    """``coerce(column index, value, position)`` for a RowCodec: the physical value, None for a null; or it raises."""
    table = [(column.name, parse(column.dtype), column.not_null) for column in columns]

    def coerce(index: int, value: Any, position: int) -> Optional[Value]:
        name, dtype, not_null = table[index]
        if value is not None:
            return physical(dtype, value, name, position)
        if not_null:
            raise NotNullError(
                f"NOT NULL constraint failed: {name} is None",
                column=name, row_index=position, hint=f"give a value, or declare {shorten(name)} with not_null=False",
            )  # fmt: skip
        return None

    return coerce


def make_refuse(columns: Sequence[ColumnLike]) -> Callable[[Any, int, bool], None]:
    """``refuse(row, position, partial)`` for a RowCodec: raises for a row that cannot be one, else returns.

    Missing columns before unknown ones; ``partial`` (an update) allows missing columns.
    """
    names = [column.name for column in columns]
    known = frozenset(names)
    required = [column.name for column in columns if column.not_null]

    def refuse(row: Any, position: int, partial: bool) -> None:
        if not isinstance(row, Mapping):
            raise ValueTypeError(
                f"a row must be a mapping of column names to values, not {type(row).__name__} {shorten(row)}",
                row_index=position, hint=f"write it as {{{shorten(names[0])}: ...}}",
            )  # fmt: skip
        unknown = [key for key in row if not isinstance(key, str) or key not in known]
        if not partial:
            for name in required:
                if name not in row:
                    _refuse_missing(name, unknown, position)
        if unknown:
            _refuse_unknown(unknown[0], names, position)

    return refuse


def _refuse_missing(name: str, unknown: list[Any], position: int) -> NoReturn:
    hint = f"give a value, or declare {shorten(name)} with not_null=False"
    near = close_names(name, (key for key in unknown if isinstance(key, str)))
    if near:
        hint = f"did you mean {shorten(name)} instead of {shorten(near[0])}?"
    elif unknown:
        hint = f"the row has {', '.join(map(shorten, unknown[:3]))}, which is no column; {hint}"
    raise MissingColumnError(f"Missing required column: {name}", column=name, row_index=position, hint=hint)


def _refuse_unknown(key: Any, names: Sequence[str], position: int) -> NoReturn:
    column = key if isinstance(key, str) else None
    raise UnknownColumnError(
        f"unknown column {shorten(key)}", column=column, row_index=position, hint=suggest(key, names)
    )
