"""Whole databases, damaged below their checksums in ways that the input says: refused, or well formed answers."""

from __future__ import annotations

import random
import struct
from typing import Optional

import driver
import hostile
from reseal import Sealed

_IMAGES = ("row closed", "row open", "columnar closed", "columnar open", "tree", "row snapshots", "columnar snapshots")


def seeds() -> list[bytes]:
    images = range(len(_IMAGES))
    return [bytes([image, kind, 0]) + struct.pack("<HI", 8 * kind, kind) for image in images for kind in range(11)]


def one(data: bytes) -> None:
    """Read and write in what ``damaged`` makes of the input."""
    files = damaged(data)
    if files is not None:
        hostile.exercise(files, random.Random(data).random() < 0.5)


def damaged(data: bytes) -> Optional[dict[str, bytes]]:
    """Bytes: image, kind of part, which part; then (place, number) pairs to write there."""
    if len(data) < 3:
        return None
    sealed = Sealed(hostile.image(_IMAGES[data[0] % len(_IMAGES)]), hostile.PATH)
    kinds = sealed.kinds()
    parts = sealed.parts[kinds[data[1] % len(kinds)]]
    part = parts[data[2] % len(parts)]
    size = part.end - part.start
    for at in range(3, min(len(data), 3 + 6 * 16) - 5, 6):
        place, number = struct.unpack_from("<HI", data, at)
        if size:
            width = 1 + number % 4 if place & 1 else 4
            sealed.write(part, place % size, number.to_bytes(4, "little")[:width])
    sealed.seal(part)
    return sealed.contents()


if __name__ == "__main__":
    driver.main("file")
