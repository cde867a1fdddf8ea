"""The log of an encrypted database: the kernel's ``Log`` with payloads that are sealed, and found frames opened again.

Frames, their chain and their checksums are those of a plain log; only what a frame says is encrypted. So whatever looks
for the end of a log, or erases one, needs no key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import CorruptionError
from .seals import OVERHEAD, BadTag

if TYPE_CHECKING:
    from . import crypto
    from .seals import Cipher, FrameCipher
    from .superblock import StaticHeader

__all__ = ["OVERHEAD", "SealedLog", "open_frame", "open_frames", "unlock"]

FIRST, LAST = 1, 2  # flags
_HEADER = 40  # bytes of a frame's header
_BEFORE = 36  # from a payload back to the CRC field of the frame before

Mark = tuple[int, int, int]
Raw = tuple[int, int, int, int, int, int]  # LSN, transaction, kind, flags, and where the payload begins and ends


def _through(name: str) -> Any:
    """An attribute that is the log's own."""

    def read(self: SealedLog) -> Any:
        return getattr(self._log, name)

    def write(self: SealedLog, value: Any) -> None:
        setattr(self._log, name, value)

    return property(read, write)


class SealedLog:
    """What the kernel's ``Log`` is to whoever writes frames, over one of these. Kernels cannot write to it themselves.

    ``room(end)``: as the log's own; it is called first where the log is not started, for an epoch has a key of its own.
    """

    def __init__(self, log: Any, cipher: Cipher, room: Callable[[int], None]) -> None:
        self._log = log
        self._cipher = cipher
        self._room = room
        self._frames: Optional[FrameCipher] = None

    # -- frames ------------------------------------------------------------
    def start(self, salt: bytes, epoch: int, lsn: int, crc: int, limit: int, fd: int = -1) -> None:
        """Begin an epoch: see ``Log.start``."""
        frames = self._cipher.epoch(salt, epoch)
        self._log.start(salt, epoch, lsn, crc, limit, fd)
        self._frames = frames

    def append(self, kind: int, payload: Any, flags: int = -1) -> int:
        """Make one frame and write or hold it; returns its LSN. Errors as of ``Log.append``: then nothing is logged."""
        log = self._log
        if log.limit <= 0:
            self._room(log.position + _HEADER + len(payload))
        frames = self._frames
        if frames is None:
            raise RuntimeError("the log is not started")
        if flags < 0:
            if not log.inner:
                flags = FIRST | LAST
            else:
                flags = FIRST if log.opening else 0
        sealed = frames.seal(kind, flags, log.lsn + 1, log.crc, payload)
        lsn: int = log.append(kind, sealed, flags)
        return lsn

    # -- as the log has it -------------------------------------------------
    limit: int = _through("limit")
    threshold: int = _through("threshold")
    durable_lsn: int = _through("durable_lsn")
    hold: bool = _through("hold")
    inner: bool = _through("inner")
    attention: bool = _through("attention")

    def stop(self) -> None:
        """Not started any more."""
        self._log.stop()

    def after(self) -> None:
        """What every writer calls when its change is in the table."""
        self._log.after()

    def mark(self) -> Mark:
        """(lsn, crc, position): where the log is now."""
        mark: Mark = self._log.mark()
        return mark

    def rollback(self, mark: Mark) -> int:
        """Forget the frames made since ``mark``; returns how many bytes of them are in the file."""
        gone: int = self._log.rollback(mark)
        return gone

    def flush(self) -> None:
        """Write what is held."""
        self._log.flush()

    @property
    def lsn(self) -> int:
        """LSN of the last frame made."""
        return int(self._log.lsn)

    @property
    def crc(self) -> int:
        """CRC field of the last frame made."""
        return int(self._log.crc)

    @property
    def position(self) -> int:
        """Where the next frame goes; held frames count."""
        return int(self._log.position)

    @property
    def written(self) -> int:
        """Up to where the file is written."""
        return int(self._log.written)


# -- opening -----------------------------------------------------------------
def unlock(static: StaticHeader, key: Any, path: str) -> Optional[crypto.Cipher]:
    """What encrypts the database with this static header, None for a plain one: ``crypto.open_static``, which a plain
    database without a key never asks.
    """
    if not static.cipher and key is None:
        return None
    from .crypto import open_static

    return open_static(static, key, path)


# -- reading -----------------------------------------------------------------
def open_frames(
    cipher: Cipher, data: bytes, salt: bytes, epoch: int, found: list[Raw], path: str
) -> tuple[bytes, list[Raw]]:
    """A log file's bytes with what its frames say in the place of what is stored, and these frames, shorter now.

    ``found``: frames of this epoch that ``scan`` found in ``data``. CorruptionError with the LSN and place of one whose
    checksum is right and whose tag is not: no crash leaves that behind.
    """
    opener = cipher.epoch(salt, epoch)
    opened = bytearray(data)
    shorter: list[Raw] = []
    for raw in found:
        payload = open_frame(opener, data, raw, path)
        lsn, transaction, kind, flags, begin, _ = raw
        opened[begin : begin + len(payload)] = payload
        shorter.append((lsn, transaction, kind, flags, begin, begin + len(payload)))
    return bytes(opened), shorter


def open_frame(opener: FrameCipher, data: bytes, raw: Raw, path: str) -> bytes:
    """What one of these frames says; ``opener``: of its epoch. CorruptionError."""
    lsn, _, kind, flags, begin, end = raw
    before = int.from_bytes(data[begin - _BEFORE : begin - _BEFORE + 4], "little")
    try:
        return opener.open(kind, flags, lsn, before, data[begin:end])
    except BadTag:
        what = f"{path}: frame {lsn} at {begin - _HEADER} was changed"
        raise CorruptionError(what, path=path, offset=begin - _HEADER) from None
