"""The log: its header, and frames whose checksums are made right again; all backends find the same ones."""

from __future__ import annotations

import struct
import zlib

import driver
from kernels import agree
from log_frames import EPOCH, FRAME, LINK, LSN, SALT, START, chain

from snapdb.errors import CorruptionError
from snapdb.storage.recovery import bulk_entries, bulk_extents
from snapdb.storage.wal import WalHeader


def seeds() -> list[bytes]:
    header = WalHeader(bytes(range(16)), EPOCH, LSN + 1, LINK, SALT).encode()
    logs = [chain([b"", b"a" * 30, b"b" * 100]), chain([bytes(200)]), chain([b"x"] * 20, durable=LSN + 5)]
    bulk = struct.pack("<IIQQQQII", 1, 0, 0x4000, 8192, 0, 5, 0, 0)
    return [header + log[START:] + bytes(64) for log in [*logs, chain([bulk, bulk])]]


def _seal(data: bytes) -> bytes:
    """Frames that verify and are linked, as far as their lengths go."""
    sealed = bytearray(data)
    seed = zlib.crc32(SALT + struct.pack("<Q", EPOCH))
    at, link = START, LINK
    while at + FRAME <= len(sealed):
        end = at + FRAME + struct.unpack_from("<I", sealed, at + 8)[0]
        if end > len(sealed) or not any(sealed[at : at + FRAME]):
            break
        if sealed[at + 4] & 7 != 5:  # some links stay wrong
            struct.pack_into("<I", sealed, at + 4, link)
        link = zlib.crc32(sealed[at + 4 : end], seed)
        struct.pack_into("<I", sealed, at, link)
        at = end + 7 & -8
    return bytes(sealed)


def one(data: bytes) -> None:
    header = data[:60].ljust(60, b"\0")
    found = WalHeader.decode(header + struct.pack("<I", zlib.crc32(header)))
    if found is not None:
        assert WalHeader.decode(found.encode()) == found
    for log in (data, _seal(data)):
        frames, end, _ = agree(lambda backend: backend.wal.scan(log, SALT, EPOCH, LSN, LINK))  # noqa: B023
        assert START <= end <= max(START, len(log) + 8)
        last = LSN
        for lsn, _, kind, _, begin, stop in frames:
            assert lsn == last + 1 and START + FRAME <= begin <= stop <= len(log)
            last = lsn
            if kind in (1, 6):
                _bulk(log[begin:stop])
        agree(lambda backend: backend.wal.stray(log, end, SALT, EPOCH, last))  # noqa: B023


def _bulk(payload: bytes) -> None:
    for read in (bulk_extents, lambda data: bulk_entries(data, "f")):
        try:
            read(memoryview(payload))
        except CorruptionError:
            pass


if __name__ == "__main__":
    driver.main("wal")
