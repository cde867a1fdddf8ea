"""The file of a stand-alone log: its header, its frames, and where they end. The bytes are *Stand-alone log* in
``docs/format.md``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, Optional

from .errors import (
    CorruptionError,
    DurabilityError,
    LockedError,
    NotSupportedError,
    SnapDBError,
    ValidationError,
    WrongKeyError,
)
from .storage.files import layer_for
from .storage.layer import File, FileLayer
from .storage.seals import BadTag, FrameCipher
from .storage.superblock import CRC, StaticHeader
from .storage.wal import refused

__all__ = ["WalFile", "damaged"]

_MAGIC = b"SNAPLOG\n"
_VERSION = 1
_HEADER = 512
_FIELDS = struct.Struct("<8sHBB4x16s16s16s256s")
_CRC = struct.Struct("<I")
_CRC_AT = _HEADER - _CRC.size
_MARK = b"SNLF"
_FRAME = struct.Struct("<4sIQII")  # mark, bytes of the payload, number, checksums of payload and frame
_PLACE = struct.Struct("<Q")
_ALIGN = 8
_CHUNK = 1 << 20


class _Frame(NamedTuple):
    """A frame that verifies: where the next one begins, and its payload as stored."""

    end: int
    payload: bytes


def damaged(path: str, at: int) -> CorruptionError:
    """The error for bytes that cannot be read."""
    return CorruptionError(f"{path}: the log is damaged at byte {at}", path=path, offset=at)


class WalFile:
    """An open file, locked. ``end``: where the next frame goes; ``number``: how many there are; ``is_damaged``: what is
    behind them cannot be read, and sound frames follow it.
    """

    def __init__(self, path: str, key: Any) -> None:
        self.path = path
        self.file = _opened(path, key)
        self.is_damaged = False
        self._failed: Optional[str] = None
        try:
            self._uuid, self._cipher = self._head(key)
            self.end, self.number = self._measured()
            self._sync()  # before anything is read: what a killed process has written may not be there yet
        except OSError as error:
            self.close()
            if isinstance(error, SnapDBError):
                raise
            raise refused(error, f"the log {path!r} cannot be read") from error
        except BaseException:
            self.close()
            raise

    def close(self, abandon: bool = False) -> None:
        """Close the file; nothing where that is done."""
        self.file.close(abandon)

    # -- writing -------------------------------------------------------------------
    def usable(self) -> None:
        """DurabilityError where a write has failed in a way that only opening anew can mend."""
        if self._failed is not None:
            raise DurabilityError(f"the log {self.path!r} has failed: {self._failed}; open it again to see what it has")

    def append(self, payload: bytes) -> None:
        """Write a frame, and put it on stable storage. StorageError, DurabilityError; whatever else is raised, by a
        signal's handler say, nothing was added.
        """
        self.usable()
        if self._cipher is not None:
            payload = self._cipher.seal(1, 0, self.number, 0, payload)
        head = _FRAME.pack(_MARK, len(payload), self.number, CRC(payload), 0)
        frame = head[:20] + _CRC.pack(self._head_crc(self.end, head)) + payload
        frame += bytes(-len(frame) % _ALIGN)
        try:
            try:
                self.file.pwrite(frame, self.end)
            except OSError as error:
                raise refused(error, f"nothing was added to the log {self.path!r}") from error
            self._sync()
        except DurabilityError:
            raise
        except BaseException as error:
            self._take_back(error)
            raise
        self.end += len(frame)
        self.number += 1

    def _take_back(self, error: BaseException) -> None:
        try:
            self.file.truncate(self.end)
        except OSError:
            self._failed = f"a write that failed could not be taken back ({error})"

    def clear(self) -> None:
        """Remove every frame. StorageError, DurabilityError."""
        self.usable()
        try:
            self.file.truncate(_HEADER)
        except OSError as error:
            raise refused(error, f"the log {self.path!r} cannot be cleared") from error
        self.end, self.number, self.is_damaged = _HEADER, 0, False
        self._sync()

    def _sync(self) -> None:
        try:
            self.file.sync()
        except OSError as error:
            self._failed = str(error)  # what the system has lost it will not say again
            raise DurabilityError(f"the log {self.path!r} could not be put on stable storage: {error}") from error

    # -- reading -------------------------------------------------------------------
    def payload(self, at: int, number: int) -> tuple[bytes, int]:
        """What the frame with this number holds, and where the next one begins. CorruptionError, StorageError."""
        try:
            frame = self._frame(at, number, self.end)
        except OSError as error:
            raise refused(error, f"the log {self.path!r} cannot be read") from error
        if frame is None:
            raise damaged(self.path, at)
        if self._cipher is None:
            return frame.payload, frame.end
        try:
            return self._cipher.open(1, 0, number, 0, frame.payload), frame.end
        except BadTag:
            raise damaged(self.path, at) from None

    @property
    def start(self) -> int:
        """Where the first frame is."""
        return _HEADER

    def _head_crc(self, at: int, head: bytes) -> int:
        return CRC(head[:20], CRC(_PLACE.pack(at), CRC(self._uuid)))

    def _is_head(self, at: int, head: bytes) -> bool:
        whole = len(head) == _FRAME.size and head[:4] == _MARK
        return whole and bool(_CRC.unpack_from(head, 20)[0] == self._head_crc(at, head))

    def _frame(self, at: int, number: int, end: int) -> Optional[_Frame]:
        """The frame with this number, None where none is there."""
        head = self.file.pread(_FRAME.size, at)
        if not self._is_head(at, head):
            return None
        _, size, found, crc, _ = _FRAME.unpack(head)
        last = at + _FRAME.size + size
        last += -last % _ALIGN
        if found != number or last > end:
            return None
        data = self.file.pread(last - at - _FRAME.size, at + _FRAME.size)
        if len(data) < last - at - _FRAME.size or any(data[size:]) or CRC(data[:size]) != crc:
            return None
        return _Frame(last, data[:size])

    def _measured(self) -> tuple[int, int]:
        """Where the sound frames end, and how many there are. What a crash has left behind them is cut off."""
        size = self.file.size()
        at, number = _HEADER, 0
        frame = self._frame(at, number, size)
        while frame is not None:
            at, number = frame.end, number + 1
            frame = self._frame(at, number, size)
        if at < size:
            if self._follows(at, number, size):
                self.is_damaged = True
            else:
                self.file.truncate(at)
        return at, number

    def _follows(self, at: int, number: int, size: int) -> bool:
        """Whether there is a sound frame with a greater number behind this place."""
        for place, head in self._heads(at, size):
            found = _FRAME.unpack(head)[2]
            if found > number and self._frame(place, found, size) is not None:
                return True
        return False

    def _heads(self, at: int, size: int) -> Iterator[tuple[int, bytes]]:
        """The frames from a place on, as their own checksums know them."""
        while at + _FRAME.size <= size:
            data = self.file.pread(min(_CHUNK, size - at), at)
            last = len(data) - _FRAME.size
            if last < 0:
                return  # it was cut meanwhile
            place = data.find(_MARK)
            while 0 <= place <= last:
                head = data[place : place + _FRAME.size]
                if self._is_head(at + place, head):
                    yield at + place, head
                place = data.find(_MARK, place + 1)
            at += last + 1

    # -- the header ----------------------------------------------------------------
    def _head(self, key: Any) -> tuple[bytes, Optional[FrameCipher]]:
        """The log's uuid, and what opens its frames."""
        data = self.file.pread(_HEADER, 0)
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValidationError(
                f"{self.path!r} is not such a log; it was left as it is", hint="give the name of a new file"
            )
        if len(data) < _HEADER or _CRC.unpack_from(data, _CRC_AT)[0] != CRC(data[:_CRC_AT]):
            raise CorruptionError(f"{self.path}: the header of the log is damaged", path=self.path, offset=0)
        _, version, cipher, derivation, uuid, scrypt, salt, keys = _FIELDS.unpack_from(data)
        if version != _VERSION:
            what = f"{self.path!r} is a log of version {version}; this version of SnapDB knows {_VERSION}"
            raise NotSupportedError(what, hint="a newer SnapDB reads it")
        static = StaticHeader(uuid, cipher=cipher, derivation=derivation, scrypt=scrypt, salt=salt, keys=keys)
        static.supported(self.path, sealed=True)
        if key is None and not cipher:
            return uuid, None
        if key is None or not cipher:
            state, give = ("encrypted", "give") if cipher else ("not encrypted", "give no")
            raise WrongKeyError(f"the log {self.path!r} is {state}", hint=f"{give} encryption_key=")
        from .storage.crypto import open_static

        opened = open_static(static, key, repr(self.path))
        return uuid, None if opened is None else opened.epoch(uuid, 0)


# -- opening -------------------------------------------------------------------------
def _opened(path: str, key: Any) -> File:
    """The file, locked; a new one where there is none, or an empty one."""
    layer = layer_for(path)
    try:
        if not layer.exists(path):
            _make(layer, path, key, replace=False)
        elif layer.size(path) == 0:
            _make(layer, path, key, replace=True)
        file = layer.open(path, "w")
    except OSError as error:
        _refuse(error, f"the log {path!r} cannot be opened")
    try:
        locked = not layer.locks or file.lock(True)
    except OSError as error:
        file.close()
        _refuse(error, f"the log {path!r} cannot be locked")
    if not locked:
        file.close()
        raise LockedError(f"the log {path!r} is already open", hint="close the other WAL first")
    return file


def _refuse(error: OSError, what: str) -> NoReturn:
    if isinstance(error, SnapDBError):
        raise error
    raise refused(error, what) from error


def _make(layer: FileLayer, path: str, key: Any, replace: bool) -> None:
    """A log without frames, whole or not at all. Where another process has made one meanwhile, that stays."""
    header = _new_header(key)
    part = f"{path}.{os.urandom(4).hex()}.part"
    try:
        file = layer.open(part, "x")
        try:
            file.pwrite(header, 0)
            file.sync()
        finally:
            file.close()
        try:
            layer.rename(part, path, replace)
        except FileExistsError:
            layer.unlink(part)
        layer.sync_dir(path)
    except BaseException:
        if layer.exists(part):
            layer.unlink(part)
        raise


def _new_header(key: Any) -> bytes:
    static = StaticHeader(os.urandom(16))
    if key is not None:
        from .storage.crypto import create, new_keys

        static = create(static, new_keys(key)).static
    fields = _FIELDS.pack(
        _MAGIC, _VERSION, static.cipher, static.derivation, static.uuid, static.scrypt, static.salt, static.keys
    )
    body = fields.ljust(_CRC_AT, b"\0")
    return body + _CRC.pack(CRC(body))
