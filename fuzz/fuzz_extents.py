"""Headers of extents and references to pieces: nothing outside of the file or the extent is read."""

from __future__ import annotations

import struct
import zlib

import driver

from snapdb.errors import CorruptionError
from snapdb.pieces import Ref
from snapdb.storage.extents import ENTRY, HEADER, ExtentHeader, Extents, decode_header, encode_header
from snapdb.storage.space import Space
from snapdb.testing.layers import RecordingLayer

_UUID = bytes(range(16))
REFERENCE = struct.Struct("<QIIQQ")


def _file() -> tuple[Extents, list[Ref]]:
    file = RecordingLayer({"f": bytes(0x4000)}, record=False).open("f", "w")
    extents = Extents(file, Space(0x4000), _UUID, False)
    return extents, [ref for key in range(3) for ref in extents.write(ENTRY, key, [b"a" * 100, b"", b"b" * 5000], 1)]


def seeds() -> list[bytes]:
    _, refs = _file()
    header = encode_header(ExtentHeader(1, _UUID[:8], 2, 3, 4, 5, 600))
    references = [REFERENCE.pack(ref.extent, ref.size >> 12, ref.crc, ref.at, ref.length) for ref in refs]
    return [header + reference for reference in references]


def one(data: bytes) -> None:
    header = bytearray(data[:HEADER].ljust(HEADER, b"\0"))
    struct.pack_into("<I", header, 124, zlib.crc32(header[:124]))
    found = decode_header(bytes(header))
    if found is not None:
        assert decode_header(encode_header(found)) == found
    extents, refs = _file()
    reference = data[HEADER : HEADER + REFERENCE.size].ljust(REFERENCE.size, b"\0")
    extent, pages, crc, at, length = REFERENCE.unpack(reference)
    for sum_ in (crc, zlib.crc32(b"a" * 100)):
        ref = Ref(extent, pages << 12, at, length, sum_)
        for read in (extents.read, extents.load):
            try:
                assert len(read(ref)) == length
            except CorruptionError:
                pass
    places = [ref[:2] for ref in refs] + [(extent, pages << 12)]
    try:
        space = Space.of(places, extents.space.high_water)
        assert space.free_bytes >= 0
    except CorruptionError:
        pass


if __name__ == "__main__":
    driver.main("extents")
