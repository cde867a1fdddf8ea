"""Reads the files of an encrypted database by docs/format.md, without the storage modules: what every part says, which
bytes a tag covers, and checksums made anew after a change, as somebody without the key can make them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from test_crypto import Layout, expanded, ungcm

__all__ = [
    "Extent", "FrameAt", "SealedFiles", "frames_of", "reseal_block", "reseal_extent", "reseal_log", "reseal_static",
]  # fmt: skip

SLOTS, STATIC = (0x1000, 0x3000), (0x0000, 0x2000)
LOG_HEADER, FRAME = 64, 40
Range = tuple[str, int, int]  # a file, the first byte and the one behind the last


class Extent(NamedTuple):
    """An extent that something reaches. ``pieces``: (place, length, what it says)."""

    offset: int
    size: int
    kind: int
    key: int
    pieces: list[tuple[int, int, bytes]]


class FrameAt(NamedTuple):
    """A frame of a log file."""

    start: int
    end: int  # of its payload
    kind: int
    flags: int
    lsn: int
    payload: bytes


class SealedFiles:
    """What the files of a database say to somebody with the key.

    ``covered``: the ranges that a tag, or the MAC, covers. ``extents``: those of the newest root's tree, by offset;
    ``root``, ``nodes``: what these say; ``frames``: of the log of the newest superblock.
    """

    def __init__(self, files: dict[str, bytes], path: str, key: Any) -> None:
        self.data = data = files[path]
        self.path = path
        self.covered: list[Range] = []
        self.extents: dict[int, Extent] = {}
        self.nodes: list[bytes] = []
        pages = [data[at : at + 4096] for at in STATIC]
        page = max(pages, key=lambda page: struct.unpack_from("<Q", page, 80))
        self.layout = Layout(page, key)
        blocks = [data[at : at + 512] for at in SLOTS]
        for at, block in zip(SLOTS, blocks):
            assert block[128:144] == self.layout.mac(block), "a superblock's MAC"
            self.covered += [(path, at, at + 508)]
        self.block = max(blocks, key=lambda block: struct.unpack_from("<Q", block, 24))
        self.clean = bool(self.block[7] & 1)
        at, size, crc = struct.unpack_from("<QII", self.block, 32)
        self.root = self._piece(at, -(-(128 + size) // 4096) * 4096, 128, size, crc, self.block[48:64])
        assert self.root[:8] == b"SNRT\2\0\0\0"
        (flags,) = struct.unpack_from("<I", self.root, 12)
        assert flags & 2
        if flags & 1:
            self._node(self._ref(self.root, 16, self.root[80:96]))
        self._records()
        self.frames: list[FrameAt] = []
        self.payloads: set[int] = set()  # the bytes of these in the log
        self.epoch = struct.unpack_from("<Q", self.block, 72)[0]
        self.log = f"{path}-wal{self.epoch & 1}"
        if not self.clean:
            self._frames(files[self.log])

    # -- extents -----------------------------------------------------------
    @staticmethod
    def _ref(data: bytes, at: int, tag: bytes) -> tuple[int, int, int, int, int, bytes]:
        extent, pages, crc, place, length = struct.unpack_from("<QIIQQ", data, at)
        return extent, pages * 4096, place, length, crc, tag

    def _piece(self, extent: int, size: int, at: int, length: int, crc: int, tag: bytes) -> bytes:
        """What a piece says; its extent is noted."""
        head = self.data[extent : extent + 128]
        stored = self.data[extent + at : extent + at + length]
        assert len(tag) == 16 and zlib.crc32(stored) == crc and head[5] & 2
        kind, salt = head[4], head[56:72]
        layout = self.layout
        key = expanded(expanded(layout.data_key, b"snapdb 1 extent" + layout.uuid), b"extent" + salt)
        aad = b"SNEX" + bytes([kind, 0, 0, 0]) + layout.uuid + head[16:44] + bytes(4) + struct.pack("<QQ", at, length)
        said = ungcm(key, struct.pack("<QI", at, 0), aad, stored + tag)
        if extent not in self.extents:
            self.extents[extent] = Extent(extent, size, kind, struct.unpack_from("<Q", head, 32)[0], [])
            for begin, end in ((4, 5), (16, 44), (56, 72)):
                self.covered.append((self.path, extent + begin, extent + end))
        if (at, length, said) not in self.extents[extent].pieces:
            self.extents[extent].pieces.append((at, length, said))
            self.covered.append((self.path, extent + at, extent + at + length))
        return said

    def _node(self, ref: tuple[int, int, int, int, int, bytes]) -> None:
        node = self._piece(*ref)
        self.nodes.append(node)
        level, tagged, count = node[4], node[5], struct.unpack_from("<I", node, 8)[0]
        assert node[:4] == b"SNND" and tagged == 1
        place = 24
        for _ in range(count):
            if level:
                self._node(self._ref(node, place + 8, node[place + 40 : place + 56]))
                place += 56
                continue
            _, pieces, meta = struct.unpack_from("<QII", node, place)
            place += 16 + (meta + 7 & -8)
            for _ in range(pieces):
                _, words = struct.unpack_from("<II", node, place)
                self._piece(*self._ref(node, place + 8, node[place + 40 : place + 56]))
                place += 56 + (words + 7 & -8)
        assert place == len(node)

    def _records(self) -> None:
        """The pinned roots and dead lists of the snapshots."""
        place = 96 + (struct.unpack_from("<I", self.root, 8)[0] + 7 & -8)
        for _ in range(struct.unpack_from("<I", self.root, 56)[0]):
            size, lists = struct.unpack_from("<I36xI", self.root, place)
            for at in range(place + 64, place + 64 + 48 * (1 + lists), 48):
                self._piece(*self._ref(self.root, at, self.root[at + 32 : at + 48]))
            place += size

    # -- frames ------------------------------------------------------------
    def _frames(self, log: bytes) -> None:
        salt, before = self.block[80:96], struct.unpack_from("<I", self.block, 96)[0]
        seed = zlib.crc32(struct.pack("<Q", self.epoch), zlib.crc32(salt))
        for start, end in frames_of(log):
            kind, flags, lsn = log[start + 12], log[start + 13], struct.unpack_from("<Q", log, start + 16)[0]
            if struct.unpack_from("<I", log, start)[0] != zlib.crc32(log[start + 4 : end], seed):
                break  # of an older epoch
            assert struct.unpack_from("<I", log, start + 4)[0] == before
            stored = log[start + FRAME : end]
            said = self.layout.frame(salt, self.epoch, kind, flags, lsn, before, stored)
            self.frames.append(FrameAt(start, end, kind, flags, lsn, said))
            for begin, stop in ((4, 8), (12, 14), (16, 24), (40, end - start)):
                self.covered.append((self.log, start + begin, start + stop))
            self.payloads.update(range(start + FRAME, end))
            (before,) = struct.unpack_from("<I", log, start)

    @property
    def said(self) -> list[bytes]:
        """Everything that is encrypted, as it was."""
        pieces = [said for extent in self.extents.values() for _, _, said in extent.pieces]
        return [*pieces, *(frame.payload for frame in self.frames)]


def frames_of(log: bytes) -> Iterator[tuple[int, int]]:
    """(first byte, byte behind the payload) of the frames of a log file, as far as their headers make sense."""
    at = LOG_HEADER
    while at + FRAME <= len(log) and log[at + 14] == FRAME and log[at + 12]:
        (size,) = struct.unpack_from("<I", log, at + 8)
        yield at, at + FRAME + size
        at += FRAME + (size + 7 & -8)


# -- what needs no key ---------------------------------------------------------
def reseal_static(data: bytearray) -> None:
    for at in STATIC:
        data[at + 4028 : at + 4032] = struct.pack("<I", zlib.crc32(data[at : at + 4028]))


def reseal_block(data: bytearray, slot: int) -> None:
    at = SLOTS[slot]
    data[at + 508 : at + 512] = struct.pack("<I", zlib.crc32(data[at : at + 508]))


def reseal_extent(data: bytearray, at: int) -> None:
    data[at + 124 : at + 128] = struct.pack("<I", zlib.crc32(data[at : at + 124]))


def reseal_log(log: bytearray, salt: bytes, epoch: int, before: int) -> None:
    """Every frame's checksum and link made anew."""
    seed = zlib.crc32(struct.pack("<Q", epoch), zlib.crc32(salt))
    for start, end in list(frames_of(bytes(log))):
        log[start + 4 : start + 8] = struct.pack("<I", before)
        before = zlib.crc32(log[start + 4 : end], seed)
        log[start : start + 4] = struct.pack("<I", before)
