"""The write-ahead log's frames and its checksum. The readable twin of ``_wal.pyx``."""

from __future__ import annotations

import errno
import operator
import os
import struct
import zlib
from typing import Any, Callable, Optional, Union

__all__ = ["Log", "crc32", "scan", "stray"]

FRAME = 40  # bytes of a frame's header
START = 64  # where the first frame of a file is
LARGEST = 1 << 24  # bytes of payload that a frame may have
FIRST, LAST = 1, 2  # flags
ROW = 1  # the kind of an insert of one row

_SALT = 16
_NEVER = 2**63 - 1
_PATIENCE = 16  # how often over `stray` checks as many bytes as there are
#: a header behind its CRC: CRC field before, payload bytes, kind, flags, header bytes, LSN, transaction, durable LSN
_HEADER = struct.Struct("<IIBBHQQQ")
_CRC = struct.Struct("<I")
_MARK = FRAME.to_bytes(2, "little")  # "header bytes" of every frame
_MARK_AT = 14

Write = Callable[[Any, int], None]
Frame = tuple[int, int, int, int, int, int]


def crc32(data: Any, value: int = 0) -> int:
    """CRC-32 as ``zlib.crc32``, continued from ``value``."""
    return zlib.crc32(data, value)


def _seed(salt: Any, epoch: int) -> int:
    """The CRC-32 of salt and epoch, from which every frame's goes on."""
    number = operator.index(epoch).to_bytes(8, "little")
    view = _flat(salt)
    if len(view) != _SALT:
        raise ValueError(f"a salt has {_SALT} bytes, not {len(view)}")
    return zlib.crc32(number, zlib.crc32(view))


def _flat(data: Any) -> Union[bytes, memoryview]:
    """The bytes of a contiguous buffer."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous")
    if not view.nbytes:  # not everything empty can be cast
        return b""
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _unsigned(value: Any, width: int) -> int:
    """An integer of at most ``width`` bytes; OverflowError for another."""
    value = operator.index(value)
    value.to_bytes(width, "little")
    return int(value)


def _between(value: Any, low: int, high: int, what: str) -> int:
    value = operator.index(value)
    if not low <= value <= high:
        raise ValueError(f"{what} must be between {low} and {high}, not {value}")
    return int(value)


class Log:
    """The frames of one epoch, made and written in order. It knows files only as functions.

    ``write(data, offset)`` writes all of it or raises OSError. ``room(end)`` makes the file ready for frames up to
    ``end``, ``failed(error)`` is called with the OSError of a write that failed, ``settle()`` is called by ``after()``.
    One caller at a time.
    """

    __slots__ = (
        "_busy", "_crc", "_failed", "_first", "_held", "_inner", "_lsn", "_opening", "_position", "_room", "_seed",
        "_settle", "_transaction", "_write", "_written", "attention", "durable_lsn", "hold", "limit", "threshold",
    )  # fmt: skip

    limit: int
    threshold: int
    durable_lsn: int
    hold: bool
    attention: bool

    def __init__(
        self,
        write: Write,
        room: Callable[[int], None],
        failed: Callable[[OSError], None],
        settle: Callable[[], None],
    ) -> None:
        self._write, self._room, self._failed, self._settle = write, room, failed, settle
        self._held = bytearray()  # the frames from written to position
        self._position = self._written = START
        self._seed = self._lsn = self._crc = self._transaction = 0
        self._first = (0, 0)  # LSN and CRC field that the epoch links to
        self._inner = self._opening = False  # in a transaction; the next frame is its first
        self._busy = False  # write() is running
        self.limit = self.durable_lsn = 0
        self.threshold = _NEVER
        self.hold = self.attention = False

    @property
    def lsn(self) -> int:
        """LSN of the last frame made."""
        return self._lsn

    @property
    def crc(self) -> int:
        """CRC field of the last frame made."""
        return self._crc

    @property
    def position(self) -> int:
        """Where the next frame goes; held frames count."""
        return self._position

    @property
    def written(self) -> int:
        """Up to where the file is written."""
        return self._written

    @property
    def inner(self) -> bool:
        """In a transaction: frames carry no LAST, and FIRST only the first one made since this was set to True."""
        return self._inner

    @inner.setter
    def inner(self, value: bool) -> None:
        self._inner = self._opening = bool(value)

    @property
    def opening(self) -> bool:
        """In a transaction whose next frame is its first one."""
        return self._opening

    def start(self, salt: bytes, epoch: int, lsn: int, crc: int, limit: int, fd: int = -1) -> None:
        """Begin an epoch whose file has room up to ``limit``: frame ``lsn + 1`` is at ``START`` and links to ``crc``.

        ValueError for a salt that is not 16 bytes, RuntimeError where frames are held. ``fd`` is for the compiled log.
        """
        seed, first = _seed(salt, epoch), (_unsigned(lsn, 8), _unsigned(crc, 4))
        self._idle()
        if self._held:
            raise RuntimeError("the log cannot start an epoch: it holds frames of the one before")
        self._seed, self._first = seed, first
        self._lsn, self._crc = first
        self._position = self._written = START
        self.limit = limit

    def stop(self) -> None:
        """Not started any more: ``limit`` is 0, what was held is forgotten, and ``position`` is ``START``."""
        self.limit = 0
        self._position = self._written = START
        self._held = bytearray()

    def append(self, kind: int, payload: Any, flags: int = -1) -> int:
        """Make one frame and write or hold it; returns its LSN. ``flags`` of -1: FIRST | LAST, or what ``inner`` says.

        ValueError for a payload over ``LARGEST``, a kind outside 1 to 255 or other flags.
        """
        kind, flags = _between(kind, 1, 255, "kind"), _between(flags, -1, 3, "flags")
        data = _flat(payload)
        whole = FRAME + len(data) + (-len(data) & 7)
        self._make_ready(len(data), whole)
        if flags < 0:
            flags = FIRST | LAST if not self._inner else FIRST if self._opening else 0
        lsn = self._lsn + 1
        transaction = lsn if flags & FIRST else self._transaction
        head = _HEADER.pack(self._crc, len(data), kind, flags, FRAME, lsn, transaction, self.durable_lsn)
        crc = zlib.crc32(data, zlib.crc32(head, self._seed))
        frame = b"".join((_CRC.pack(crc), head, data, bytes(-len(data) & 7)))
        position, nothing = self._position + whole, bytearray()
        if self.hold:
            self._held += frame
        else:
            self._store(bytes(self._held) + frame if self._held else frame)
            # from here on nothing takes memory: the frame is in the file
            self._held = nothing
            self._written = position
        self._position, self._lsn, self._crc, self._transaction = position, lsn, crc, transaction
        self._opening = False
        return lsn

    def _make_ready(self, size: int, whole: int) -> None:
        """See that the log is started and that there is room; both may change everything but what is held."""
        self._idle()
        if size > LARGEST:
            raise ValueError(f"a frame's payload has at most {LARGEST} bytes, not {size}")
        if self.limit <= 0:
            self._room(self._position + whole)
            if self.limit <= 0:
                raise RuntimeError("the log is not started")
        if not self.hold and self._position + whole > self.limit:
            self._room(self._position + whole)
            if not self.hold and self._position + whole > self.limit:  # room() may have started an epoch
                raise RuntimeError(f"the log has no room for {whole} bytes at {self._position}")

    def _store(self, data: bytes) -> None:
        """Write bytes at ``written``."""
        try:
            self._busy = True
            try:
                self._write(data, self._written)
            finally:
                self._busy = False
        except OSError as error:
            self._failed(error)
            raise
        except BaseException:  # an interrupt or no memory: the bytes may be in the file all the same
            try:
                self._failed(InterruptedError(errno.EINTR, os.strerror(errno.EINTR)))
            except OSError:
                pass  # it says that nothing was kept, or that the log is of no further use
            raise

    def _idle(self) -> None:
        if self._busy:
            raise RuntimeError("the log is being written")

    def after(self) -> None:
        """What every writer calls when its change is in the table: ``settle()`` where somebody asked for it."""
        if self.attention or self._position > self.threshold:
            self._settle()

    def mark(self) -> tuple[int, int, int]:
        """(lsn, crc, position): where the log is now."""
        return (self._lsn, self._crc, self._position)

    def rollback(self, mark: tuple[int, int, int]) -> int:
        """Forget the frames made since ``mark``; returns how many bytes of them are in the file and have to be erased.

        0 where the log is not started. ValueError for a mark of another epoch.
        """
        lsn, crc, position = mark
        lsn, crc, position = _unsigned(lsn, 8), _unsigned(crc, 4), operator.index(position)
        self._idle()
        if self.limit <= 0:
            return 0
        if (lsn, crc, position) == (0, 0, START):  # made before the log was ever started
            lsn, crc = self._first
        if (
            not START <= position <= self._position
            or lsn > self._lsn
            or (position == self._position) != (lsn == self._lsn)
            or (position == START) != (lsn == self._first[0])
        ):
            raise ValueError("this mark is not of the log's epoch")
        gone = max(0, self._written - position)
        written = self._written - gone
        del self._held[position - written :]
        self._written, self._lsn, self._crc, self._position = written, lsn, crc, position
        if lsn < self._transaction:
            self._transaction = lsn
            self._opening = self._inner
        return gone

    def flush(self) -> None:
        """Write what is held. Where that fails it is still held."""
        self._idle()
        if not self._held:
            return
        if self._position > self.limit:
            self._room(self._position)
            if self._position > self.limit:
                raise RuntimeError(f"the log has no room for frames up to {self._position}")
            if not self._held:  # written meanwhile
                return
        nothing = bytearray()
        self._store(bytes(self._held))
        self._held, self._written = nothing, self._position


# -- finding frames ----------------------------------------------------------


def _look(data: Union[bytes, memoryview], at: int) -> Optional[tuple[int, int, int, int, int, int, int, int]]:
    """What ``_HEADER`` says of the frame at ``at``; None where it is not within the data or contradicts itself."""
    if len(data) - at < FRAME:
        return None
    fields = _HEADER.unpack_from(data, at + 4)
    _, size, kind, flags, header, lsn, transaction, _ = fields
    if header != FRAME or not kind or flags > FIRST | LAST or size > LARGEST or size > len(data) - at - FRAME:
        return None
    if transaction != lsn if flags & FIRST else transaction >= lsn:
        return None
    return fields


def _verifies(data: memoryview, at: int, size: int, seed: int) -> bool:
    crc: int = _CRC.unpack_from(data, at)[0]
    return zlib.crc32(data[at + 4 : at + FRAME + size], seed) == crc


def scan(data: Any, salt: bytes, epoch: int, lsn: int, crc: int) -> tuple[list[Frame], int, int]:
    """The frames of a log file's bytes that verify, in order, from ``START`` on.

    The first is to be ``lsn + 1`` and to link to ``crc``. Returns ([(lsn, transaction, kind, flags, first byte of the
    payload, byte past it)], where the next frame would be, CRC field of the last one).
    """
    seed, lsn, crc = _seed(salt, epoch), _unsigned(lsn, 8), _unsigned(crc, 4)
    view, at = memoryview(_flat(data)), START
    running: Optional[int] = None
    frames: list[Frame] = []
    while True:
        fields = _look(view, at)
        if fields is None:
            break
        before, size, kind, flags, _, found, transaction, _ = fields
        if found != lsn + 1 or before != crc or not (flags & FIRST or transaction == running):
            break
        if not _verifies(view, at, size, seed):
            break
        lsn, running = found, transaction
        crc = _CRC.unpack_from(view, at)[0]
        frames.append((lsn, transaction, kind, flags, at + FRAME, at + FRAME + size))
        at += FRAME + size + (-size & 7)
    return frames, at, crc


def stray(data: Any, start: int, salt: bytes, epoch: int, lsn: int) -> Optional[tuple[int, int, int]]:
    """The first frame past ``start`` that verifies by itself, with an LSN over ``lsn`` and a durable LSN not under it.

    Every multiple of 8 is looked at. Returns (lsn, durable LSN, place) or None. It proves that the frame ``lsn`` at
    ``start``, which does not verify, was acknowledged.
    """
    seed, lsn, start = _seed(salt, epoch), _unsigned(lsn, 8), operator.index(start)
    flat = _flat(data)
    text = flat if isinstance(flat, bytes) else bytes(flat)  # only bytes can be searched quickly
    view = memoryview(text)
    patience = _PATIENCE * len(text)  # real frames lie side by side; hostile ones could make this quadratic
    found = text.find(_MARK, max(start | 7, -1) + 1 + _MARK_AT)
    while found >= 0:
        at = found - _MARK_AT
        fields = _look(view, at) if not at & 7 else None
        if fields is not None and fields[5] > lsn and lsn <= fields[7] <= fields[5]:
            patience -= FRAME + fields[1]
            if patience < 0:
                return None
            if _verifies(view, at, fields[1], seed):
                return fields[5], fields[7], at
        found = text.find(_MARK, found + 1)
    return None
