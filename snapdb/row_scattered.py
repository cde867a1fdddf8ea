"""Changes of few rows in many slab groups, kept together: one piece a checkpoint instead of a patch in each group.

A piece has rows of many groups and a bitmap of those groups in which they still count: where a group is written by
itself (its patch or image then says it all) its bit goes, and a piece without bits goes too. So the changes are folded
into their groups a few at a time. Bytes are in ``docs/format.md``, "Scattered changes".
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Optional

from .errors import CorruptionError
from .pieces import Entry, Piece

if TYPE_CHECKING:
    from .pieces import Ref, Source

__all__ = ["SCATTERED", "SCATTERED_KEY", "Changes", "Scattered", "bits_of", "groups_of", "pack_rows", "read_rows"]

SCATTERED_KEY = 1 << 63  # above every group
SCATTERED = 7 << 24  # tag
LIMIT = 256 << 10  # bytes of the pieces, or
SHARE = 1 << 10  # for each group of the table, where that is more, and
MOST = 64  # their number, about which a writer keeps
LARGEST = LIMIT // 4  # bytes of a piece that is written
EAGER = 4  # folding begins where they are as full as one in so many
PAGE = 4096
HEADER = 128  # bytes that an extent has in front
HEAD = struct.Struct("<II")
ROW = struct.Struct("<QB3sI")

Rows = Mapping[int, Optional[bytes]]  # row id -> its packed values, None for a dead one


def pages(size: int) -> int:
    """Pages of an extent with so many bytes in it."""
    return -(-(HEADER + size) // PAGE)


# -- bytes -------------------------------------------------------------------
def read_rows(data: memoryview, form: struct.Struct, limit: int, what: str) -> Iterator[tuple[int, int, int, int]]:
    """(row, live, start and end of its packed bytes) of a patch or a piece of scattered changes, whose rows have
    ``form`` before their bytes and are below ``limit``. ValueError for bytes that are none.
    """
    if len(data) < HEAD.size:
        raise ValueError(f"the {what} is cut short")
    count, zero = HEAD.unpack_from(data)
    at, last, end = HEAD.size, -1, len(data)
    if zero or count > (end - at) // form.size:
        raise ValueError(f"a {what} of {end} bytes cannot have {count} rows")
    for _ in range(count):
        if end - at < form.size:
            raise ValueError(f"the {what} is cut short")
        row, live, zeros, size = form.unpack_from(data, at)
        at += form.size
        if not last < row < limit or live > 1 or zeros != b"\0\0\0" or size > end - at or (size and not live):
            raise ValueError(f"the {what} says row {row}, live {live}, {size} bytes")
        yield row, live, at, at + size
        at += size
        last = row
    if at != end:
        raise ValueError(f"the {what} has {end - at} bytes too many")


def pack_rows(rows: Rows) -> bytes:
    """A piece with these rows, ids ascending."""
    parts = [HEAD.pack(len(rows), 0)]
    for idx, packed in rows.items():
        data = packed or b""
        parts += (ROW.pack(idx, packed is not None, b"\0\0\0", len(data)), data)
    return b"".join(parts)


def packed_size(rows: Iterable[Optional[bytes]]) -> int:
    """The bytes that these rows take in a piece."""
    return sum(ROW.size + len(packed or b"") for packed in rows)


def bits_of(groups: Iterable[int]) -> int:
    """A bitmap of groups."""
    found = bytearray()
    for group in groups:
        if group >> 3 >= len(found):
            found += bytes((group >> 3) + 1 - len(found))
        found[group >> 3] |= 1 << (group & 7)
    return int.from_bytes(found, "little")


def groups_of(bits: int) -> list[int]:
    """The groups of a bitmap, ascending."""
    digits = bin(bits)[:1:-1]
    groups, at = [], digits.find("1")
    while at >= 0:
        groups.append(at)
        at = digits.find("1", at + 1)
    return groups


def encode_bits(bits: int) -> bytes:
    """A piece's ``meta``."""
    return bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")


def decode_bits(meta: bytes, groups: int) -> int:
    """The groups in which a piece counts, of a table that has so many. ValueError."""
    bits = int.from_bytes(meta, "little")
    if len(meta) % 8 or not bits or bits.bit_length() > groups:
        raise ValueError(f"a bitmap of {len(meta)} bytes for {groups} groups, the last {bits.bit_length() - 1}")
    return bits


class Changes:
    """The rows of a piece. ValueError for bytes that are none."""

    def __init__(self, data: bytes, span: int, groups: int) -> None:
        self._data = data
        self._span = span
        self._ids, self._starts, self._ends = array("Q"), array("I"), array("I")
        self._lives = bytearray()
        for idx, live, start, end in read_rows(memoryview(data), ROW, groups * span, "piece"):
            self._ids.append(idx)
            self._starts.append(start)
            self._ends.append(end)
            self._lives.append(live)
        self.bits = bits_of({idx // span for idx in self._ids})

    def rows(self, group: int) -> Iterator[tuple[int, Optional[bytes]]]:
        """(row of the group, packed row or None for a dead one), ascending."""
        base = group * self._span
        for at in range(bisect_left(self._ids, base), bisect_left(self._ids, base + self._span)):
            packed = self._data[self._starts[at] : self._ends[at]] if self._lives[at] else None
            yield self._ids[at] - base, packed


class Kept(NamedTuple):
    """A piece in the file and the groups in which it counts."""

    piece: Piece
    bits: int


# -- what is in the file -----------------------------------------------------
class Scattered:
    """The scattered changes as of the last checkpoint; the caller has the table's lock."""

    def __init__(self, source: Source, span: int, groups: int) -> None:
        self.source = source
        self._span = span
        self._groups = groups  # that the table had then
        self._kept: Optional[list[Kept]] = None
        self._read: dict[Ref, Changes] = {}

    def saved(self, groups: int) -> None:
        """There was a checkpoint, of a table of so many groups."""
        self._kept, self._groups = None, groups

    def kept(self) -> list[Kept]:
        """The pieces, in order of time. CorruptionError."""
        if self._kept is None:
            entry = self.source.entry(SCATTERED_KEY)
            found = [] if entry is None else [self._checked(piece) for piece in entry.pieces]
            if entry is not None and (entry.meta or not found):
                raise _damaged(f"an entry of {len(found)} pieces, its meta of {len(entry.meta)} bytes")
            refs = {one.piece.ref for one in found}
            self._read = {ref: changes for ref, changes in self._read.items() if ref in refs}
            self._kept = found
        return self._kept

    def _checked(self, piece: Piece) -> Kept:
        if piece.tag != SCATTERED or piece.ref is None:
            raise _damaged(f"a piece with tag {piece.tag:#x}")
        try:
            return Kept(piece, decode_bits(piece.meta, self._groups))
        except ValueError as error:
            raise _damaged(error) from error

    def changes(self, one: Kept) -> Changes:
        """The rows of a piece. CorruptionError."""
        ref: Ref = one.piece.ref  # type: ignore[assignment]
        found = self._read.get(ref)
        if found is None:
            try:
                found = Changes(bytes(self.source.read(ref)), self._span, self._groups)
            except ValueError as error:
                raise _damaged(error) from error
            if one.bits & ~found.bits:
                raise _damaged(f"a piece has no rows of group {groups_of(one.bits & ~found.bits)[0]}")
            self._read[ref] = found
        return found

    def rows(self, group: int) -> dict[int, Optional[bytes]]:
        """What counts of a group: (row of the group -> packed row, None for a dead one). CorruptionError."""
        found: dict[int, Optional[bytes]] = {}
        for one in self.kept():
            if one.bits >> group & 1:
                found.update(self.changes(one).rows(group))
        return found

    def counting(self) -> int:
        """A bitmap of the groups that have scattered changes. CorruptionError."""
        bits = 0
        for one in self.kept():
            bits |= one.bits
        return bits

    def verify(self) -> Iterator[str]:
        """What is wrong with the pieces."""
        try:
            kept = self.kept()
        except CorruptionError as error:
            yield str(error)
            return
        for one in kept:
            try:
                self.changes(one)
            except CorruptionError as error:
                yield str(error)

    # -- writing -------------------------------------------------------------
    def folding(self, size: int) -> list[int]:
        """The groups that are to be written by themselves where a piece of ``size`` bytes is added: as many as keep the
        pieces about at their limit, neighbours, beginning where the oldest piece counts. CorruptionError.
        """
        kept = self.kept()
        total = sum([one.piece.ref.length for one in kept if one.piece.ref is not None])
        limit = max(LIMIT, SHARE * self._groups)
        full = max(total / limit, len(kept) / MOST)
        if full * EAGER < 1:
            return []
        groups = groups_of(self.counting())
        # as many as keep them at their limit, and soon many more where they are above it
        count = ceil(len(groups) * max(size / limit, 1 / MOST) * max(full, full**3))
        first = bisect_left(groups, groups_of(kept[0].bits & -kept[0].bits)[0])
        return (groups[first:] + groups[:first])[:count]

    def change(self, gone: int, rows: Rows) -> Iterator[tuple[int, Optional[Entry]]]:
        """The entry to be written where the groups of ``gone`` are written by themselves and these rows are added;
        None: the key is gone. Nothing where it stays as it is.
        """
        pieces, changed = [], bool(rows)
        for piece, bits in self.kept():
            if bits & gone:
                changed, bits = True, bits & ~gone
                piece = piece._replace(meta=encode_bits(bits))
            if bits:
                pieces.append(piece)
        if rows:
            bits = bits_of({idx // self._span for idx in rows})
            pieces.append(Piece(SCATTERED, encode_bits(bits), pack_rows(rows)))
        if changed:
            yield SCATTERED_KEY, Entry(b"", pieces) if pieces else None


def _damaged(why: object) -> CorruptionError:
    return CorruptionError(f"scattered changes: {why}")
