"""A write-ahead log for those who keep their own state: what is to happen to it, on stable storage before it does.

It stands alone; a database has a log of its own (``storage/wal.py``). A frame holds the records of one transaction, or
a single one, so what is read back is whole transactions. The bytes are *Stand-alone log* in ``docs/format.md``.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, Optional, Union

from . import _ext
from .errors import (
    ClosedError,
    CorruptionError,
    DurabilityError,
    LockedError,
    NotSupportedError,
    SnapDBError,
    TransactionError,
    ValidationError,
    WrongKeyError,
)
from .storage.files import layer_for
from .storage.layer import File, FileLayer
from .storage.lock import guard_fork
from .storage.seals import BadTag, FrameCipher
from .storage.superblock import CRC, StaticHeader
from .storage.wal import refused as _refused

__all__ = ["WAL"]

_MAGIC = b"SNAPLOG\n"
_VERSION = 1
_HEADER = 512
_FIELDS = struct.Struct("<8sHBB4x16s16s16s256s")
_CRC = struct.Struct("<I")
_CRC_AT = _HEADER - _CRC.size
_FRAME = struct.Struct("<IIQ")  # bytes of the payload, checksum, number
_CHUNK = 1 << 20

Record = dict[str, Any]


class _Frame(NamedTuple):
    """A frame that verifies: where the next one begins, and its payload as stored."""

    end: int
    payload: bytes


class WAL:
    """A log in a file, of records ``{"op": op, **fields}``. A context manager.

    Values of fields are what documents have: JSON's, and bytes, datetime, date, Decimal and UUID, nested. A record is
    on stable storage when ``append`` has returned, or within a transaction when ``commit`` has. ``encryption_key``: as
    for a database. One WAL has a file open at a time. LockedError, WrongKeyError, CorruptionError; ValidationError for
    a file that is no such log, StorageError where it cannot be opened.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], encryption_key: Any = None) -> None:
        self.path = os.fspath(path)
        self._lock = threading.RLock()
        self._doc = _ext.backend(_ext.BACKEND).doc
        self._open: Optional[list[Record]] = None  # the records of the transaction, where there is one
        self._tx = 0
        self._clears = 0
        self._failed: Optional[str] = None
        self._file: Optional[File] = _opened(self.path)
        try:
            self._static, self._cipher = self._head(self._file, encryption_key)
            self._end, self._number = self._measured(self._file)
        except OSError as error:
            self.close()
            if isinstance(error, SnapDBError):
                raise
            raise _refused(error, f"the log {self.path!r} cannot be read") from error
        except BaseException:
            self.close()
            raise
        guard_fork(self)

    # -- writing -------------------------------------------------------------------
    def append(self, op: str, **fields: Any) -> None:
        """Add a record. ValidationError for a value that cannot be stored, with nothing added; StorageError where the
        file system refuses, with nothing added; DurabilityError where it is not known whether it is there.
        """
        record = {"op": op, **fields}
        with self._lock:
            self._usable()
            if self._open is None:
                self._write([record])
            else:
                self._encoded([record])  # a bad value is refused here, not by commit()
                self._open.append(record)

    def begin(self) -> int:
        """Begin a transaction; its number. TransactionError within another one."""
        with self._lock:
            self._usable()
            if self._open is not None:
                raise TransactionError("Nested transactions are not supported")
            self._open = []
            self._tx += 1
            return self._tx

    def commit(self) -> None:
        """Write the records of the transaction, all or none. TransactionError where there is none; where the write
        fails (errors as ``append``) the transaction is over, as after ``rollback``.
        """
        records = self._ended("commit()")
        with self._lock:
            if records:
                self._write(records)

    def rollback(self) -> None:
        """Forget the records of the transaction. TransactionError where there is none."""
        self._ended("rollback()")

    def clear(self) -> None:
        """Remove every record. TransactionError within a transaction; StorageError, DurabilityError."""
        with self._lock:
            file = self._usable()
            if self._open is not None:
                raise TransactionError("clear() within a transaction: commit() or rollback() first")
            try:
                file.truncate(_HEADER)
            except OSError as error:
                raise _refused(error, f"the log {self.path!r} cannot be cleared") from error
            self._end, self._number = _HEADER, 0
            self._clears += 1
            self._sync(file)

    def close(self) -> None:
        """Close the file; a transaction that is open is rolled back. Again it does nothing."""
        with self._lock:
            self._open = None
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def forked(self) -> None:
        """In a forked child the log is closed; the parent has it still. Called by the guard."""
        self._lock = threading.RLock()  # another thread of the parent may have had it
        self._open = None
        file, self._file = self._file, None
        if file is not None:
            file.close(abandon=True)

    def __enter__(self) -> WAL:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WAL({self.path!r}{', closed' if self._file is None else f', frames={self._number}'})"

    def _usable(self) -> File:
        if self._file is None:
            raise ClosedError(f"the log {self.path!r} is closed: open it again with WAL(...)")
        if self._failed is not None:
            raise DurabilityError(f"the log {self.path!r} has failed: {self._failed}; open it again to see what it has")
        return self._file

    def _ended(self, call: str) -> list[Record]:
        with self._lock:
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

    def _write(self, records: list[Record]) -> None:
        file = self._usable()
        payload = self._encoded(records)
        if self._cipher is not None:
            payload = self._cipher.seal(1, 0, self._number, 0, payload)
        fields = _FRAME.pack(len(payload), 0, self._number)
        frame = _FRAME.pack(len(payload), _checksum(self._static.uuid, fields, payload), self._number) + payload
        try:
            file.pwrite(frame, self._end)
        except OSError as error:
            self._take_back(file, error)
        self._sync(file)
        self._end += len(frame)
        self._number += 1

    def _take_back(self, file: File, error: OSError) -> NoReturn:
        """A write was refused, and part of it may be there."""
        try:
            file.truncate(self._end)
        except OSError:
            self._failed = f"a write that failed could not be taken back ({error})"
        raise _refused(error, f"nothing was added to the log {self.path!r}") from error

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            self._failed = str(error)  # what the system has lost it will not say again
            raise DurabilityError(f"the log {self.path!r} could not be put on stable storage: {error}") from error

    # -- reading -------------------------------------------------------------------
    def replay(self) -> Iterator[Record]:
        """The records as of now, in order, those of a transaction that is open left out; ``clear`` ends it.
        CorruptionError.
        """
        with self._lock:
            self._usable()
            return self._frames(self._end, self._clears)

    def _frames(self, end: int, clears: int) -> Iterator[Record]:
        at, number = _HEADER, 0
        while at < end:
            with self._lock:
                if self._clears != clears:
                    return
                try:
                    frame = self._frame(self._usable(), at, number, end)
                except OSError as error:
                    if isinstance(error, SnapDBError):
                        raise
                    raise _refused(error, f"the log {self.path!r} cannot be read") from error
                if frame is None:
                    self._damaged(at)
                records = self._records(frame.payload, at, number)
            yield from records
            at, number = frame.end, number + 1

    def _records(self, payload: bytes, at: int, number: int) -> list[Record]:
        try:
            if self._cipher is not None:
                payload = self._cipher.open(1, 0, number, 0, payload)
            found = self._doc.decode(payload)
        except (BadTag, ValueError, CorruptionError):
            self._damaged(at)
        if not isinstance(found, list) or not all(isinstance(one, dict) and "op" in one for one in found):
            self._damaged(at)
        return found

    def _damaged(self, at: int) -> NoReturn:
        raise CorruptionError(f"{self.path}: the log is damaged at byte {at}", path=self.path, offset=at)

    def _frame(self, file: File, at: int, number: int, end: int) -> Optional[_Frame]:
        """The frame with this number, None where none is there."""
        head = file.pread(_FRAME.size, at)
        if len(head) < _FRAME.size:
            return None
        size, crc, found = _FRAME.unpack(head)
        if found != number or size > end - at - _FRAME.size:
            return None
        payload = file.pread(size, at + _FRAME.size)
        if len(payload) < size or _checksum(self._static.uuid, _FRAME.pack(size, 0, number), payload) != crc:
            return None
        return _Frame(at + _FRAME.size + size, payload)

    def _measured(self, file: File) -> tuple[int, int]:
        """Where the last frame ends, and how many there are. What a crash left behind it is cut off; CorruptionError
        where sound frames follow it, for each was on stable storage before the next one was written.
        """
        size = file.size()
        at, number = _HEADER, 0
        frame = self._frame(file, at, number, size)
        while frame is not None:
            at, number = frame.end, number + 1
            frame = self._frame(file, at, number, size)
        if at < size:
            if self._follows(file, at + 1, number, size):
                self._damaged(at)
            try:
                file.truncate(at)
            except OSError as error:
                raise _refused(error, f"the torn end of the log {self.path!r} cannot be cut off") from error
        return at, number

    def _follows(self, file: File, at: int, number: int, size: int) -> bool:
        """Whether there is a sound frame with a greater number anywhere from here on."""
        most = number + (size - at) // _FRAME.size + 1
        room = 8 * size  # bytes that are read for it: whoever made a file that takes more has damaged it
        while at + _FRAME.size <= size:
            data = file.pread(min(_CHUNK, size - at), at)
            for place in range(len(data) - _FRAME.size + 1):
                length, _, found = _FRAME.unpack_from(data, place)
                if number < found <= most and length <= size - at - place:
                    room -= length
                    if room < 0 or self._frame(file, at + place, found, size) is not None:
                        return True
            at += len(data) - _FRAME.size + 1
        return False

    # -- the header ----------------------------------------------------------------
    def _head(self, file: File, key: Any) -> tuple[StaticHeader, Optional[FrameCipher]]:
        """The header, made where there is none, and what opens the frames."""
        data = file.pread(_HEADER, 0)
        if len(data) < _HEADER or not (any(data) or file.size() > _HEADER):
            if any(data) and data[: len(_MAGIC)] != _MAGIC[: len(data)]:
                raise _no_log(self.path)
            return self._made(file, key)  # a new file, or one whose making was cut short
        magic, version, cipher, derivation, uuid, scrypt, salt, keys = _FIELDS.unpack_from(data)
        if magic != _MAGIC:
            raise _no_log(self.path)
        if _CRC.unpack_from(data, _CRC_AT)[0] != CRC(data[:_CRC_AT]):
            raise CorruptionError(f"{self.path}: the header of the log is damaged", path=self.path, offset=0)
        static = StaticHeader(uuid, cipher=cipher, derivation=derivation, scrypt=scrypt, salt=salt, keys=keys)
        if version != _VERSION:
            what = f"{self.path!r} is a log of version {version}; this version of SnapDB knows {_VERSION}"
            raise NotSupportedError(what, hint="a newer SnapDB reads it")
        static.supported(self.path, sealed=True)
        if key is None and not cipher:
            return static, None
        if key is None or not cipher:
            state, give = ("encrypted", "give") if cipher else ("not encrypted", "give no")
            raise WrongKeyError(f"the log {self.path!r} is {state}", hint=f"{give} encryption_key=")
        from .storage.crypto import open_static

        opened = open_static(static, key, repr(self.path))
        return static, None if opened is None else opened.epoch(uuid, 0)

    def _made(self, file: File, key: Any) -> tuple[StaticHeader, Optional[FrameCipher]]:
        static = StaticHeader(os.urandom(16))
        cipher: Optional[FrameCipher] = None
        if key is not None:
            from .storage.crypto import create, new_keys

            made = create(static, new_keys(key))
            static, cipher = made.static, made.epoch(static.uuid, 0)
        fields = _FIELDS.pack(
            _MAGIC, _VERSION, static.cipher, static.derivation, static.uuid, static.scrypt, static.salt, static.keys
        )
        body = fields.ljust(_CRC_AT, b"\0")
        try:
            file.truncate(0)
            file.pwrite(body + _CRC.pack(CRC(body)), 0)
            file.sync()
        except OSError as error:
            raise _refused(error, f"the log {self.path!r} cannot be made") from error
        return static, cipher


def _opened(path: str) -> File:
    """The file, locked; a new one where there is none."""
    layer = layer_for(path)
    try:
        file = _found(layer, path)
    except OSError as error:
        raise _refused(error, f"the log {path!r} cannot be opened") from error
    try:
        locked = not layer.locks or file.lock(True)
    except OSError as error:
        file.close()
        raise _refused(error, f"the log {path!r} cannot be locked") from error
    if not locked:
        file.close()
        raise LockedError(f"the log {path!r} is already open", hint="close the other WAL first")
    return file


def _found(layer: FileLayer, path: str) -> File:
    if layer.exists(path):
        return layer.open(path, "w")
    file = layer.open(path, "x")
    layer.sync_dir(path)
    return file


def _checksum(uuid: bytes, fields: bytes, payload: bytes) -> int:
    """Of a frame, and of whose it is: what is left of another log does not verify."""
    return CRC(payload, CRC(fields, CRC(uuid)))


def _no_log(path: str) -> ValidationError:
    return ValidationError(f"{path!r} is not such a log; it was left as it is", hint="give the name of a new file")
