"""Static headers and superblocks, sealed: refused, or they are what encodes to the same fields."""

from __future__ import annotations

import struct
import zlib

import driver

from snapdb.errors import CorruptionError, NotSupportedError
from snapdb.storage.superblock import PAGE, StaticHeader, Superblock, read_holder, read_slots, read_static
from snapdb.testing.layers import RecordingLayer

_UUID = bytes(range(16))
_BLOCK = Superblock(1, False, _UUID, 7, 0x4000, 300, 5, 12, 3, bytes(16), 9, 0x8000, 0x9000, 1 << 50)


def seeds() -> list[bytes]:
    static = StaticHeader(_UUID, sequence=3).encode()
    return [static + _BLOCK.encode(), static + _BLOCK._replace(clean=True, slot=0).encode()]


def one(data: bytes) -> None:
    static = bytearray(data[:PAGE].ljust(PAGE, b"\0"))
    struct.pack_into("<I", static, 4028, zlib.crc32(static[:4028]))
    block = bytearray(data[PAGE : PAGE + 512].ljust(512, b"\0"))
    struct.pack_into("<I", block, 508, zlib.crc32(block[:508]))
    found = Superblock.decode(bytes(block))
    if found is not None:
        assert Superblock.decode(found.encode()) == found
        assert max(found.lsn, found.epoch, found.generation) < 1 << 63
    try:
        header = StaticHeader.decode(bytes(static))
        assert StaticHeader.decode(header.encode()) == header
    except (CorruptionError, NotSupportedError):
        pass
    image = bytes(static) + bytes(block).ljust(PAGE, b"\0") + bytes(static) + bytes(block).ljust(PAGE, b"\0")
    file = RecordingLayer({"f": image}, record=False).open("f", "r")
    try:
        read_static(file, "f")
        assert all(each.slot in (0, 1) for each in read_slots(file))
    except (CorruptionError, NotSupportedError):
        pass
    read_holder(file)


if __name__ == "__main__":
    driver.main("superblock")
