"""The checksum equals zlib's."""

from __future__ import annotations

import random
import zlib
from array import array
from typing import Any

import pytest


def test_equals_zlib(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    data = random.Random(1).randbytes(70_000)
    for size in [*range(70), 255, 1000, 4096, 16383, 16384, 16385, 65537]:
        for start in (0, 1, 3):
            piece = memoryview(data)[start : start + size]
            for value in (0, 1, 0xFFFFFFFF, 0x12345678):
                assert crc32(piece, value) == zlib.crc32(piece, value)
    assert crc32(b"") == 0 and crc32(b"123456789") == 0xCBF43926


def test_continues(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    data = bytes(range(256)) * 200
    for cut in (0, 1, 15, 16, 17, 20_000, len(data)):
        assert crc32(data[cut:], crc32(data[:cut])) == zlib.crc32(data)
    assert crc32(b"abc", value=-1) == zlib.crc32(b"abc", -1)
    assert crc32(b"abc", 2**40 + 5) == zlib.crc32(b"abc", 5)


def test_takes_any_contiguous_buffer(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    for data in (
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        array("I", [1, 2, 3]),
        memoryview(bytes(8)).cast("B", (2, 4)),
    ):
        assert crc32(data) == zlib.crc32(data)
    for data in ("abc", 5, None, [1]):
        with pytest.raises(TypeError):
            crc32(data)
    with pytest.raises(TypeError):
        crc32(b"", 1.5)
    with pytest.raises(BufferError):
        crc32(memoryview(b"abcdef")[::2])
