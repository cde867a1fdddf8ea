"""Damage below the checksums: finds every part of a database file that a checksum covers, and seals it again after a
change, up to the superblocks. Made from docs/format.md, without the storage modules.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Optional

__all__ = ["KINDS", "Part", "Sealed", "log_frames"]

SLOTS, STATIC = (0x1000, 0x3000), (0x0000, 0x2000)
EXTENT = 128  # bytes of an extent's header
PIECES = {1: "sealed", 2: "tail", 3: "overlay", 4: "deleted", 5: "group", 6: "patch", 7: "scattered"}
KINDS = ("static", "superblock", "root", "pinned", "dead", "node", *PIECES.values(), "frame")
_REF = struct.Struct("<QIIQQ")  # extent, pages, CRC, place, length
_CRC_IN_REF = 12
_LOG_HEADER, _FRAME = 64, 40


class Part:
    """Bytes ``start`` to ``end`` of a file under one checksum that stands at each of ``sums`` (in ``above``)."""

    def __init__(self, kind: str, name: str, start: int, end: int) -> None:
        self.kind = kind
        self.name = name
        self.start = start
        self.end = end
        self.sums: list[int] = []
        self.above: list[Part] = []

    def __repr__(self) -> str:
        return f"{self.kind} {self.start}:{self.end} of {self.name}"


class Sealed:
    """The files of a database, to be changed. ``parts``: what can be sealed again, by kind."""

    def __init__(self, files: dict[str, bytes], path: str) -> None:
        self.path = path
        self.files = {name: bytearray(data) for name, data in files.items()}
        self.parts: dict[str, list[Part]] = {kind: [] for kind in KINDS}
        self._known: dict[tuple[int, int], Part] = {}
        for at in STATIC:
            self._add(Part("static", path, at, at + 4028), at + 4028, None)
        for at in SLOTS:
            block = self._add(Part("superblock", path, at, at + 508), at + 508, None)
            self._root(block, at)
        for parity in (0, 1):
            name = f"{path}-wal{parity}"
            if name in self.files:
                self.parts["frame"] += [Part("frame", name, *place) for place in log_frames(self.files[name])]

    # -- finding -----------------------------------------------------------
    def _add(self, part: Part, crc_at: int, above: Optional[Part]) -> Part:
        place = (part.start, part.end)
        if place in self._known:
            part = self._known[place]
        else:
            self._known[place] = part
            self.parts[part.kind].append(part)
        if crc_at not in part.sums:
            part.sums.append(crc_at)
            if above is not None:
                part.above.append(above)
        return part

    def _root(self, block: Part, slot: int) -> None:
        data = self.files[self.path]
        at, size = struct.unpack_from("<QI", data, slot + 32)
        root = self._add(Part("root", self.path, at + EXTENT, at + EXTENT + size), slot + 44, block)
        if len(root.sums) > 1:
            return
        if struct.unpack_from("<I", data, root.start + 12)[0]:
            self._node(root, root.start + 16)
        place = root.start + 96 + (struct.unpack_from("<I", data, root.start + 8)[0] + 7 & -8)
        for _ in range(struct.unpack_from("<I", data, root.start + 56)[0]):
            record, lists = struct.unpack_from("<I36xI", data, place)
            pinned, _ = self._referred(root, "pinned", place + 64)
            if struct.unpack_from("<I", data, pinned.start + 12)[0]:
                self._node(pinned, pinned.start + 16)
            for at in range(lists):
                self._referred(root, "dead", place + 96 + 32 * at)
            place += record

    def _referred(self, above: Part, kind: str, reference: int) -> tuple[Part, bool]:
        """The part that a reference at this byte leads to, and whether it is a new one."""
        extent, _, _, at, length = _REF.unpack_from(self.files[self.path], reference)
        known = (extent + at, extent + at + length) in self._known
        part = Part(kind, self.path, extent + at, extent + at + length)
        return self._add(part, reference + _CRC_IN_REF, above), not known

    def _node(self, above: Part, reference: int) -> None:
        node, new = self._referred(above, "node", reference)
        if not new:
            return
        data = self.files[self.path]
        level, count = struct.unpack_from("<4xB3xI", data, node.start)
        at = node.start + 24
        for _ in range(count):
            if level:
                self._node(node, at + 8)
                at += 40
                continue
            pieces, meta = struct.unpack_from("<8xII", data, at)
            at += 16 + (meta + 7 & -8)
            for _ in range(pieces):
                tag, meta = struct.unpack_from("<II", data, at)
                self._referred(node, PIECES[tag >> 24], at + 8)
                at += 40 + (meta + 7 & -8)

    def kinds(self) -> list[str]:
        """The kinds of parts that there are."""
        return [kind for kind in KINDS if self.parts[kind]]

    # -- changing ----------------------------------------------------------
    def read(self, part: Part) -> bytes:
        """A part's bytes."""
        return bytes(self.files[part.name][part.start : part.end])

    def write(self, part: Part, at: int, data: bytes) -> None:
        """Overwrite bytes of a part, its own checksums left as they are; what would be past its end is cut off."""
        start = part.start + at
        data = data[: max(0, part.end - start)]
        self.files[part.name][start : start + len(data)] = data

    def seal(self, part: Part) -> None:
        """Make the checksums right: of the part, and of all that hold a checksum."""
        if part.kind == "frame":
            self._seal_frames(part)
            return
        data = self.files[part.name]
        crc = zlib.crc32(data[part.start : part.end])
        for at in part.sums:
            struct.pack_into("<I", data, at, crc)
        for above in part.above:
            self.seal(above)

    def _seal_frames(self, first: Part) -> None:
        data = self.files[first.name]
        epoch, salt = data[24:32], data[44:60]
        seed = zlib.crc32(bytes(salt + epoch))
        link: Optional[int] = None
        for part in self.parts["frame"]:
            if part.name != first.name or part.start < first.start:
                continue
            frame = part.start - _FRAME
            if link is not None:
                struct.pack_into("<I", data, frame + 4, link)
            link = zlib.crc32(data[frame + 4 : part.end], seed)
            struct.pack_into("<I", data, frame, link)

    def contents(self) -> dict[str, bytes]:
        """The files as they are now."""
        return {name: bytes(data) for name, data in self.files.items()}


def log_frames(data: Any) -> Iterator[tuple[int, int]]:
    """Where the payloads of a log file's frames begin and end."""
    at = _LOG_HEADER
    while at + _FRAME <= len(data):
        crc, _, size = struct.unpack_from("<III", data, at)
        if not crc or at + _FRAME + size > len(data):
            return
        yield at + _FRAME, at + _FRAME + size
        at += _FRAME + size + 7 & -8
