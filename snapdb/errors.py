"""Every exception SnapDB raises on purpose.

``SnapDBError`` is the root, the names of PEP 249 stand below it, and each class that a caller might already be catching
by a builtin name (``KeyError``, ``ValueError``, ``RuntimeError``, ``TimeoutError``, ``OSError``) inherits that builtin
too, so ``except ValueError`` around an insert keeps working. Messages name the column, the value (shortened), the row's
position in the batch and what to do; the same facts stand in the attributes ``column``, ``row_index`` and ``hint``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any, Optional

__all__ = [
    "AggregateError", "ClosedError", "ConditionError", "CorruptionError", "DataError", "DatabaseError",
    "DurabilityError", "Error", "HistoryLostError", "IntegrityError", "InterfaceError", "InternalError",
    "LockedError", "MissingColumnError", "NotFoundError", "NotNullError", "NotSupportedError", "OperationalError",
    "ProgrammingError", "ReadOnlyError", "RowKeyError", "SchemaError", "SchemaMismatchError", "SnapDBError",
    "SnapshotInUseError", "StorageError", "TransactionError", "UniqueError", "UnknownColumnError", "ValidationError",
    "ValueTypeError", "WrongKeyError", "close_names", "shorten", "suggest",
]  # fmt: skip

_WIDTH = 60  # characters of a value that a message shows


class SnapDBError(Exception):
    """The root of SnapDB's exceptions (PEP 249 calls it ``Error``).

    ``column``: the column's name, ``row_index``: the row's position in its batch, counted from 0, ``hint``: what to do;
    each None where it does not apply. The text of the exception has all three.
    """

    column: Optional[str]
    row_index: Optional[int]
    hint: Optional[str]

    def __init__(
        self,
        message: str = "",
        *,
        column: Optional[str] = None,
        row_index: Optional[int] = None,
        hint: Optional[str] = None,
    ) -> None:
        # a single row has position -1 in the kernels; it is no position for a reader
        if row_index is not None and row_index < 0:
            row_index = None
        text = message
        if row_index is not None:
            text += f" (row {row_index} of the batch)"
        if hint:
            text += f"; {hint}"
        super().__init__(text)
        self.column = column
        self.row_index = row_index
        self.hint = hint

    def __str__(self) -> str:
        # KeyError would print the repr of its message
        return str(self.args[0]) if self.args else ""


Error = SnapDBError


# -- PEP 249 ---------------------------------------------------------------
class InterfaceError(SnapDBError):
    """The handle was misused, not the data: PEP 249."""


class DatabaseError(SnapDBError):
    """Anything about the database itself: PEP 249."""


class DataError(DatabaseError):
    """A value cannot be processed: PEP 249."""


class OperationalError(DatabaseError):
    """The surroundings failed (files, locks, memory), not the program: PEP 249."""


class IntegrityError(DatabaseError):
    """A constraint would be broken: PEP 249."""


class InternalError(DatabaseError):
    """SnapDB found itself in a state that should not exist, please report it: PEP 249."""


class ProgrammingError(DatabaseError):
    """The call cannot mean anything (wrong names, arguments or order): PEP 249."""


class NotSupportedError(DatabaseError, NotImplementedError):
    """The engine or platform in use cannot do this: PEP 249."""


# -- schema and values -----------------------------------------------------
class SchemaError(ProgrammingError, ValueError):
    """A schema or column definition is not valid, or does not allow the call."""


class SchemaMismatchError(SchemaError):
    """The schema or storage type given differs from the one stored in the file."""


class ValidationError(DataError, ValueError):
    """A value does not fit its column; nothing was written."""


class ValueTypeError(ValidationError, TypeError):
    """A value has a type that its column never takes; caught by ``except ValueError`` and ``except TypeError``."""


class NotNullError(ValidationError, IntegrityError):
    """None in a column that is not null; nothing was written."""


class UniqueError(IntegrityError, ValueError):
    """A second row with the same value in a unique column; nothing was written."""


class MissingColumnError(ProgrammingError, KeyError):
    """A row leaves out a column that is not null; nothing was written."""


class UnknownColumnError(ProgrammingError, KeyError, ValueError):
    """A name that is no column of this table."""


class NotFoundError(ProgrammingError, KeyError):
    """No row with this id or key, no snapshot of this name, no such index."""


RowKeyError = NotFoundError


class ConditionError(ProgrammingError, ValueError):
    """A condition that cannot be understood, or whose value cannot be compared with its column."""


class AggregateError(ProgrammingError, ValueError):
    """An aggregate that does not exist, or has no meaning for the column's type."""


# -- the handle ------------------------------------------------------------
class ClosedError(InterfaceError, RuntimeError):
    """The database was closed. An InterfaceError: the handle is at fault, the data is well, and opening again helps."""


class TransactionError(ProgrammingError, RuntimeError):
    """A transaction was opened inside another one, or ended where there is none."""


class ReadOnlyError(OperationalError, PermissionError):
    """A write through a handle that was opened with ``read_only=True``."""


class LockedError(OperationalError, TimeoutError, RuntimeError):
    """The database is open for writing elsewhere. ``pid``: the holder's process id, None where it is not known."""

    pid: Optional[int]

    def __init__(self, message: str = "", *, pid: Optional[int] = None, hint: Optional[str] = None) -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class SnapshotInUseError(OperationalError, RuntimeError):
    """A snapshot that is open cannot be dropped, replaced or compacted away."""


class HistoryLostError(OperationalError, LookupError):
    """Changes as old as asked for are no longer on record. ``oldest``: the first LSN that is, None if there is none."""

    oldest: Optional[int]

    def __init__(self, message: str = "", *, oldest: Optional[int] = None, hint: Optional[str] = None) -> None:
        super().__init__(message, hint=hint)
        self.oldest = oldest


# -- the file --------------------------------------------------------------
class CorruptionError(DatabaseError):
    """The file is damaged; nothing was answered from the damaged part.

    Deliberately not a ValueError: ``except ValueError`` around a write is for bad values; it must not hide damage.
    ``path``: the file, ``offset``: the first byte of the damaged part, ``segment``: the segment or part it belongs to;
    None where not known.
    """

    path: Optional[str]
    offset: Optional[int]
    segment: Optional[int]

    def __init__(
        self,
        message: str = "",
        *,
        path: Optional[str] = None,
        offset: Optional[int] = None,
        segment: Optional[int] = None,
        column: Optional[str] = None,
        hint: Optional[str] = None,
    ) -> None:
        super().__init__(message, column=column, hint=hint)
        self.path = path
        self.offset = offset
        self.segment = segment


class DurabilityError(OperationalError, OSError):
    """The system could not put a write on stable storage; whether it is there is known only after reopening."""


class StorageError(OperationalError, OSError):
    """The file system refused (disk full, an input/output error, a limit); nothing of the write is in the database."""


class WrongKeyError(OperationalError, ValueError):
    """The encryption key does not open this database, or one is missing."""


# -- parts of messages -----------------------------------------------------
class _Shortener(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _WIDTH
        self.maxlevel = 2

    def repr_int(self, x: int, level: int) -> str:
        # the digits of a huge integer take long, and Python refuses more than 4,300 of them
        if x.bit_length() > 256:
            return f"<{'negative ' if x < 0 else ''}integer of {x.bit_length()} bits>"
        return repr(x)

    def repr_bytes(self, x: bytes, level: int) -> str:
        text = repr(x[:_WIDTH])
        return text if len(x) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


_shortener = _Shortener()


def shorten(value: Any) -> str:
    """The repr of any value for a message: one line, at most 60 characters, and never an exception."""
    try:
        text = _shortener.repr(value)
        text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception:  # noqa: BLE001 - a message must not fail for a repr that does
        text = f"<{type(value).__name__} object>"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def close_names(name: Any, known: Iterable[str]) -> list[str]:
    """At most three of the known names that were probably meant, nearest first; case and outer spaces do not count."""
    if not isinstance(name, str) or len(name) > 200:
        return []
    from difflib import get_close_matches  # only on the way to an error

    names = list(known)
    plain = name.strip().lower()
    same = [other for other in names if other.strip().lower() == plain]
    return [*same, *(other for other in get_close_matches(name, names, n=3) if other not in same)][:3]


def suggest(name: Any, known: Iterable[str]) -> str:
    """What to say after an unknown column name: the nearest names, then the names there are."""
    names = list(known)
    close = close_names(name, names)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    listed = ", ".join(map(shorten, names[:20])) + (", ..." if len(names) > 20 else "")
    return f"{hint}the columns are {listed}" if names else "there are no columns"
