"""The write-ahead log's frames: made, chained, written, found again. See ``_wal_py`` for the readable twin."""

from collections.abc import Callable
from typing import Any, Optional

FRAME: int  # bytes of a frame's header
START: int  # where the first frame of a file is
LARGEST: int  # bytes of payload that a frame may have
FIRST: int  # flags
LAST: int
ROW: int  # the kind of an insert of one row, which the row kernels write themselves

def crc32(data: Any, value: int = 0) -> int:
    """CRC-32 as ``zlib.crc32``, continued from ``value``."""

class Log:
    """The frames of one epoch, made and written in order. It knows files only as functions.

    ``write(data, offset)`` writes all of it or raises OSError; with ``fd`` of 0 or more the compiled log calls ``pwrite``
    itself instead. ``room(end)`` makes the file ready for frames up to ``end``: it is called before a frame is made where
    the log is not started (``limit`` 0), and before bytes are written past ``limit``; it calls ``start`` or sets
    ``limit``, or raises. ``failed(error)`` is called with the OSError of a write that failed (cut by an interrupt: with an InterruptedError), and raises; the
    frame does not count then. ``settle()`` is called by ``after()`` (see there).
    """

    limit: int  # up to where the file has room; 0: not started
    durable_lsn: int  # goes into every frame
    hold: bool  # keep frames in memory until ``flush()`` (a transaction, or durability "none")
    inner: bool  # in a transaction: frames carry no LAST, and FIRST only the first one made since this was set to True
    attention: bool  # ``after()`` always calls ``settle()``
    threshold: int  # ``after()`` calls ``settle()`` where ``position`` is past it
    def __init__(
        self,
        write: Callable[[Any, int], None],
        room: Callable[[int], None],
        failed: Callable[[OSError], None],
        settle: Callable[[], None],
    ) -> None: ...
    @property
    def lsn(self) -> int:
        """LSN of the last frame made."""
    @property
    def crc(self) -> int:
        """CRC field of the last frame made."""
    @property
    def position(self) -> int:
        """Where the next frame goes; held frames count."""
    @property
    def written(self) -> int:
        """Up to where the file is written."""
    @property
    def opening(self) -> bool:
        """In a transaction whose next frame is its first one."""
    def start(self, salt: bytes, epoch: int, lsn: int, crc: int, limit: int, fd: int = -1) -> None:
        """Begin an epoch whose file has room up to ``limit``: the next frame is ``lsn + 1`` at ``START`` and links to ``crc``. ValueError for a salt that is not 16 bytes, RuntimeError where frames are held."""
    def stop(self) -> None:
        """Not started any more: ``limit`` is 0, the fd and what was held are forgotten, and ``position`` is ``START``."""
    def append(self, kind: int, payload: Any, flags: int = -1) -> int:
        """Make one frame and write or hold it; returns its LSN. ``flags`` of -1: FIRST and LAST, or what ``inner`` says. ValueError for a payload over ``LARGEST``, a kind outside 1 to 255 or other flags."""
    def after(self) -> None:
        """What every writer calls when its change is in the table: ``settle()`` where somebody asked for it."""
    def mark(self) -> tuple[int, int, int]:
        """(lsn, crc, position): where the log is now."""
    def rollback(self, mark: tuple[int, int, int]) -> int:
        """Forget the frames made since ``mark``; returns how many bytes of them are in the file (from ``mark[2]`` on) and have to be erased; 0 where the log is not started. ValueError for a mark of another epoch (past ``position`` or before ``START``)."""
    def flush(self) -> None:
        """Write what is held. Where that fails it is still held."""

def scan(data: Any, salt: bytes, epoch: int, lsn: int, crc: int) -> tuple[list[tuple[int, int, int, int, int, int]], int, int]:
    """The frames of a log file's bytes (its header included) that verify, in order, from ``START`` on; the first is to be ``lsn + 1`` and to link to ``crc``.

    Returns ([(lsn, transaction, kind, flags, first byte of the payload, byte past it)], where the next frame would be, CRC field of the last one).
    """

def stray(data: Any, start: int, salt: bytes, epoch: int, lsn: int) -> Optional[tuple[int, int, int]]:
    """The first frame past ``start`` (looking at every multiple of 8) that verifies by itself, has an LSN over ``lsn`` and a durable LSN of at least ``lsn``: (lsn, durable LSN, place). It proves that the frame ``lsn`` at ``start``, which does not verify, was acknowledged."""
