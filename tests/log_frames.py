"""Frames of the write-ahead log made from docs/format.md, without the kernels."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from snapdb import _ext

SALT, OTHER = bytes(range(16)), bytes(16)
EPOCH, LSN, LINK = 7, 100, 0xDEADBEEF
START, FRAME, FIRST, LAST = 64, 40, 1, 2
BACKENDS = [name for name in ("c", "python") if name in _ext.available()]  # there is no NumPy variant


def seal(head: bytes, payload: bytes, salt: bytes = SALT, epoch: int = EPOCH) -> bytes:
    """A frame from its header without the CRC, as docs/format.md says."""
    crc = zlib.crc32(head + payload, zlib.crc32(salt + struct.pack("<Q", epoch)))
    frame = struct.pack("<I", crc) + head + payload
    return frame + bytes(-len(frame) % 8)


def make(
    link: int, kind: int, flags: int, lsn: int, first: int, payload: bytes = b"", durable: int = 0, **more: Any
) -> bytes:
    return seal(struct.pack("<IIBBHQQQ", link, len(payload), kind, flags, FRAME, lsn, first, durable), payload, **more)


def crc_of(frame: bytes) -> int:
    return int.from_bytes(frame[:4], "little")


def chain(payloads: list[bytes], lsn: int = LSN, link: int = LINK, durable: int = 0) -> bytes:
    """A log file with a frame for each payload."""
    data = bytes(START)
    for payload in payloads:
        lsn += 1
        frame = make(link, 1, FIRST | LAST, lsn, lsn, payload, durable)
        link = crc_of(frame)
        data += frame
    return data


def scan(wal: Any, data: Any) -> Any:
    return wal.scan(data, SALT, EPOCH, LSN, LINK)
