"""How codes are stored (``docs/format.md``, *Layouts*, *Choice*): the size of a stream of codes, its layout and its
sections; the parts of a chunk put together; front-coded dictionaries.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from math import gcd
from typing import Any, NamedTuple, Optional

from . import _lanes_py
from ._bits_py import popcount
from ._common import BLOCK, EXCEPTED, HEADER, MOST_RUNS, PACKED, RESTART, RUNS, container, packed_width
from ._lanes_py import as_bytes, lanes

__all__ = ["Codes", "Stream", "build", "common_divisor", "front_coded", "lane_bytes"]

_HEAD = struct.Struct("<BBBBIIIqqQQQQQBBBBIQQQQ")
_MASK64 = (1 << 64) - 1
_SAMPLE = 256
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_BIT_LENGTHS = bytes(value.bit_length() for value in range(256))


# -- a chunk's bytes ---------------------------------------------------------


def build(
    codec: int,
    code: int,
    rows: int,
    nulls: int,
    *,
    layout: int = PACKED,
    width: int = 0,
    packed: int = 0,
    count: int = 0,
    base: int = 0,
    step: int = 0,
    digits: int = 0,
    power: int = 0,
    plain: int = 0,
    flags: int = 0,
    marks: int = 0,
    null_bits: bytes = b"",
    values: bytes = b"",
    offsets: bytes = b"",
    heap: bytes = b"",
    places: bytes = b"",
    codes: bytes = b"",
    lines: bytes = b"",
) -> bytes:
    """A whole chunk."""
    found = []
    parts = [b""]
    at = HEADER
    for section in (null_bits, values, offsets, heap, places, codes, lines):
        found.append(at if section else 0)
        parts.append(section)
        at += len(section)
        parts.append(bytes(-at % 64))
        at += -at % 64
    base &= _MASK64
    base -= base >> 63 << 64  # two's complement
    head = _HEAD.pack(
        codec, code, width, packed, rows, nulls, count, base, step, *found[:4], at,
        layout, digits, power, flags, marks, *found[4:], plain,
    )  # fmt: skip
    parts[0] = head + bytes(HEADER - len(head))
    return b"".join(parts)


# -- codes -------------------------------------------------------------------


class Codes(NamedTuple):
    """A code for each row; null rows have 0."""

    data: bytes  # lanes of ``size`` bytes
    size: int  # bytes of the container of the largest code
    top: int  # the largest code of a non-null row
    flags: Optional[bytes]  # non-null rows, where some are null


class Stream:
    """The layout that the choice rule gives codes, and its size by the rule. NumPy's twin overrides the loops."""

    _lanes: Any = _lanes_py

    def __init__(self, codes: Codes) -> None:
        self.data, self.size, self.top, self.flags = codes
        self.rows = len(self.data) // self.size
        self.layout = PACKED
        self.width = packed_width(self.top)
        self.blocks = self.rows // BLOCK
        self.cost = 128 * self.width * self.blocks
        self.starts: Sequence[int] = ()  # RUNS: first rows of the runs, nulls before them apart
        if self.top:
            self._try_exceptions()
            self._try_runs()

    def fields(self) -> dict[str, Any]:
        """The header fields and sections of this layout."""
        bits = 8 * self.size
        if self.layout == PACKED:
            if not self.width:
                return {}
            return {"width": self.width, "packed": bits, "values": self._lanes.pack(self.data, self.width)}
        if self.layout == RUNS:
            return self._run_fields()
        rows, values, codes = self.split(self.width)
        starts = [bisect_left(rows, block * BLOCK) for block in range(self.blocks + 1)]
        places = struct.pack(f"<{len(starts)}I{len(rows)}H", *starts, *rows)
        fields = {"layout": EXCEPTED, "width": self.width, "packed": bits, "marks": len(rows)}
        return {**fields, "values": values, "places": places, "codes": codes}

    # -- exceptions ------------------------------------------------------------

    def _try_exceptions(self) -> None:
        bits, each, blocks = self.top.bit_length(), 2 + self.size, self.blocks
        longer = _longer(self.sample_lengths(), bits)
        # both sides times 256, so that a row of the sample stands for n/256 rows
        least = min(128 * w * blocks * _SAMPLE + each * self.rows * longer[w] for w in range(bits))
        if 10 * least > 9 * self.cost * _SAMPLE:
            return
        longer = self.longer(bits)
        cost, width = min((128 * w * blocks + 4 * (blocks + 1) + each * longer[w], w) for w in range(bits))
        if 10 * cost <= 9 * self.cost:
            self.layout, self.width, self.cost = EXCEPTED, width, cost

    def sample_lengths(self) -> dict[int, int]:
        """How many codes of the sample have each length in bits; null rows count as code 0."""
        items = lanes(self.size, self.data)
        return Counter(items[i * self.rows // _SAMPLE].bit_length() for i in range(_SAMPLE))

    def longer(self, bits: int) -> list[int]:
        """How many codes are longer than w bits, for w from 0 to ``bits``; null rows have code 0."""
        if self.size == 1:
            counted = self.data.translate(_BIT_LENGTHS)
            return _longer({length: counted.count(length) for length in range(9)}, bits)
        return _longer(Counter(map(int.bit_length, lanes(self.size, self.data))), bits)

    def split(self, width: int) -> tuple[Sequence[int], bytes, bytes]:
        """EXCEPTED: the rows with codes of ``2**width`` or more, all other codes packed, and those rows' codes."""
        top = (1 << 8 * self.size) - 1
        found = self._lanes.in_range(self.data, self.size, 1 << width, top)
        rows = self._lanes.rows_of(found, self.rows)
        items = lanes(self.size, self.data)
        codes = as_bytes(array(_LETTERS[self.size], [items[row] for row in rows]))
        if not width:
            return rows, b"", codes
        low = self._lanes.keep(self.data, self.size, self._lanes.flags_of(((1 << self.rows) - 1) ^ found, self.rows))
        return rows, self._lanes.pack(low, width, 8 * self.size), codes

    # -- runs --------------------------------------------------------------------

    def _try_runs(self) -> None:
        most = self.rows // 8
        starts = self.run_starts(most)
        if starts is None:
            return
        cost = 2 * self.blocks + (2 + self.size) * len(starts)
        if 10 * cost <= 9 * self.cost:
            self.layout, self.width, self.cost, self.starts = RUNS, 0, cost, starts

    def run_starts(self, most: int) -> Optional[Sequence[int]]:
        """The non-null rows whose code is not that of the non-null row before; None with more than ``most``."""
        data, size, top = self.data, self.size, (1 << 8 * self.size) - 1
        rows: Any = range(self.rows)
        if self.flags is not None:
            rows = list(compress(rows, self.flags))
            items = lanes(size, data)
            data = as_bytes(array(_LETTERS[size], compress(items, self.flags)))
        count = len(rows)
        starts = [rows[0]]
        step = 8 * BLOCK
        for at in range(1, count, step):
            stop = min(at + step, count)
            here = int.from_bytes(data[at * size : stop * size], "little")
            before = int.from_bytes(data[(at - 1) * size : (stop - 1) * size], "little")
            changed = here ^ before
            if not changed:
                continue
            found = self._lanes.in_range(changed.to_bytes((stop - at) * size, "little"), size, 1, top)
            if len(starts) + popcount(found) > most:
                return None
            starts += [rows[at + row] for row in self._lanes.rows_of(found, stop - at)]
        return starts if len(starts) <= min(most, MOST_RUNS) else None

    def _run_fields(self) -> dict[str, Any]:
        starts = self.starts
        items = lanes(self.size, self.data)
        codes = as_bytes(array(_LETTERS[self.size], [items[row] for row in starts]))
        last = [row - 1 for row in starts[1:]]
        last.append(self.rows - 1)
        first = [bisect_left(last, block * BLOCK) for block in range(self.blocks)]
        places = struct.pack(f"<{len(first)}H{len(last)}H", *first, *last)
        return {"layout": RUNS, "packed": 8 * self.size, "marks": len(last), "places": places, "codes": codes}


def _longer(lengths: dict[int, int], bits: int) -> list[int]:
    """How many are longer than w bits, for w from 0 to ``bits``."""
    found = [0] * (bits + 1)
    for w in range(bits - 1, -1, -1):
        found[w] = found[w + 1] + lengths.get(w + 1, 0)
    return found


def common_divisor(values: Sequence[int], low: int) -> int:
    """The greatest common divisor of every value less ``low``."""
    found = 0
    for at in range(0, len(values), BLOCK):
        found = gcd(found, *[value - low for value in values[at : at + BLOCK]])
        if found == 1:
            break
    return found


def lane_bytes(top: int) -> int:
    """Bytes of the container of the largest code."""
    return container(top.bit_length()) >> 3


# -- front coding --------------------------------------------------------------


def _shared(entry: bytes, before: bytes) -> int:
    """How many first bytes two strings have in common."""
    size = min(len(entry), len(before))
    one, other = entry[:size], before[:size]
    if one == other:
        return size
    differs = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return size - (differs.bit_length() + 7) // 8


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def front_coded(entries: Sequence[bytes]) -> tuple[bytes, bytes]:
    """(restarts, heap) of a sorted dictionary of strings."""
    restarts = []
    parts = []
    at = 0
    before = b""
    for number, entry in enumerate(entries):
        if number % RESTART:
            shared = _shared(entry, before)
            part = _varint(shared) + _varint(len(entry) - shared) + entry[shared:]
        else:
            restarts.append(at)
            part = _varint(len(entry)) + entry
        parts.append(part)
        at += len(part)
        before = entry
    return struct.pack(f"<{len(restarts) + 1}I", *restarts, at), b"".join(parts)
