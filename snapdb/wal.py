"""A write-ahead log for those who keep their own state: what is to happen to it, on stable storage before it does.

It stands alone; a database has a log of its own (``storage/wal.py``). ``wal_file`` has the bytes: a frame holds the
records of one transaction, or a single one, so what is read back is whole transactions.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Optional, Union

from . import _ext
from .errors import ClosedError, CorruptionError, TransactionError, ValidationError
from .interrupts import Uninterrupted
from .storage.lock import guard_fork
from .wal_file import WalFile, damaged

__all__ = ["WAL"]

Record = dict[str, Any]


class WAL:
    """A log in a file, of records ``{"op": op, **fields}``. A context manager.

    Values of fields are what documents have: JSON's, and bytes, datetime, date, Decimal and UUID, nested. A record is
    on stable storage when ``append`` has returned, or within a transaction when ``commit`` has. ``encryption_key``: as
    for a database. One WAL has a file open at a time; threads that share it share its transaction.

    LockedError, WrongKeyError, CorruptionError for a damaged header, ValidationError for a file that is no such log
    (it is left alone), StorageError where it cannot be opened, DurabilityError. A log with damage in its middle opens:
    ``replay`` gives what is before it and says where it is, ``clear`` begins anew, and nothing is appended.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], encryption_key: Any = None) -> None:
        self.path = os.fsdecode(path)
        self._lock = threading.RLock()
        self._doc = _ext.backend(_ext.BACKEND).doc
        self._open: Optional[list[Record]] = None  # the records of the transaction, where there is one
        self._tx = 0
        self._clears = 0
        self._file: Optional[WalFile] = WalFile(os.path.abspath(self.path), encryption_key)
        self._dropped = weakref.finalize(self, self._file.close)
        self._dropped.atexit = False
        guard_fork(self)

    # -- writing -------------------------------------------------------------------
    def append(self, op: str, **fields: Any) -> None:
        """Add a record. ValidationError for a value that cannot be stored, with nothing added; StorageError where the
        file system refuses, with nothing added; DurabilityError where it is not known whether it is there;
        CorruptionError where the log is damaged.
        """
        record = {"op": op, **fields}
        with self._lock:
            self._writable()
            data = self._encoded([record])  # in a transaction too: a bad value is refused here, not by commit()
            if self._open is None:
                self._write(data)
            else:
                self._open.append(record)

    def begin(self) -> int:
        """Begin a transaction; its number. TransactionError within another one; CorruptionError."""
        with self._lock:
            self._writable()
            if self._open is not None:
                raise TransactionError("Nested transactions are not supported")
            self._open = []
            self._tx += 1
            return self._tx

    def commit(self) -> None:
        """Write the records of the transaction, all or none. TransactionError where there is none; where the write
        fails (errors as ``append``) the transaction is over, as after ``rollback``.
        """
        with self._lock:
            records = self._ended("commit()")
            if records:
                self._write(self._encoded(records))

    def rollback(self) -> None:
        """Forget the records of the transaction. TransactionError where there is none."""
        with self._lock:
            self._ended("rollback()")

    def clear(self) -> None:
        """Remove every record. TransactionError within a transaction; StorageError, DurabilityError."""
        with self._lock:
            file = self._usable()
            if self._open is not None:
                raise TransactionError("clear() within a transaction: commit() or rollback() first")
            self._clears += 1
            with Uninterrupted():
                file.clear()

    def close(self) -> None:
        """Close the file; a transaction that is open is rolled back. Again it does nothing."""
        with self._lock:
            self._open = None
            file, self._file = self._file, None
            if file is not None:
                self._dropped.detach()
                file.close()

    def forked(self) -> None:
        """In a forked child the log is closed; the parent has it still. Called by the guard."""
        self._lock = threading.RLock()  # another thread of the parent may have had it
        self._open = None
        file, self._file = self._file, None
        if file is not None:
            self._dropped.detach()
            file.close(abandon=True)

    def __enter__(self) -> WAL:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WAL({self.path!r}{', closed' if self._file is None else f', frames={self._file.number}'})"

    def _usable(self) -> WalFile:
        if self._file is None:
            raise ClosedError(f"the log {self.path!r} is closed: open it again with WAL(...)")
        self._file.usable()
        return self._file

    def _writable(self) -> WalFile:
        file = self._usable()
        if file.is_damaged:
            raise damaged(self.path, file.end)
        return file

    def _ended(self, call: str) -> list[Record]:
        self._usable()
        if self._open is None:
            raise TransactionError(f"{call} without begin()")
        records, self._open = self._open, None
        return records

    def _encoded(self, records: list[Record]) -> bytes:
        try:
            return bytes(self._doc.encode(records))
        except (TypeError, ValueError) as error:
            raise ValidationError(f"the record cannot be stored: {error}") from None

    def _write(self, data: bytes) -> None:
        file = self._writable()
        with Uninterrupted():  # a record is there or not, and who wrote it knows
            file.append(data)

    # -- reading -------------------------------------------------------------------
    def replay(self) -> Iterator[Record]:
        """The records as of now, in order, those of a transaction that is open left out; ``clear`` ends it.
        CorruptionError, behind the records that are before the damage; StorageError.
        """
        with self._lock:
            file = self._usable()
            return self._records(file.end, self._clears)

    def _records(self, end: int, clears: int) -> Iterator[Record]:
        at, number = -1, 0
        while True:
            with self._lock:
                file = self._usable()
                at = file.start if at < 0 else at
                if self._clears != clears:
                    return
                if at >= end:
                    break
                payload, after = file.payload(at, number)
            yield from self._decoded(payload, at)
            at, number = after, number + 1
        if file.is_damaged:
            raise damaged(self.path, file.end)

    def _decoded(self, payload: bytes, at: int) -> list[Record]:
        try:
            found = self._doc.decode(payload)
        except (ValueError, CorruptionError):
            raise damaged(self.path, at) from None
        if not isinstance(found, list) or not all(isinstance(one, dict) and "op" in one for one in found):
            raise damaged(self.path, at)
        return found
