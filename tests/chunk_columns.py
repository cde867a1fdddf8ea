"""Columns that together reach every codec with every dtype, and how to seal them."""

from __future__ import annotations

import functools
import random
import struct
from array import array
from typing import Any

import pytest

from snapdb import _ext
from snapdb._ext import _common as c

N = 1024
NAN, INF = float("nan"), float("inf")
NONE = 0xFFFFFFFF
ODD_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
DAYS = frozenset((c.DATE, c.DATETIME))  # not every stored integer can be shown


def filled(kernels: _ext.Backend, code: int, values: list[Any]) -> Any:
    buffer = kernels.values.ColumnBuffer(code)
    for value in values:
        buffer.append(value)
    return buffer


def sealed(kernels: _ext.Backend, code: int, values: list[Any], prefer: int = 0) -> tuple[Any, c.Zone]:
    chunk, zone = kernels.codecs.encode(filled(kernels, code, values), 0, len(values), prefer)
    return chunk, zone


def f32(value: float) -> float:
    return array("f", [value])[0]


def nulled(values: list[Any], every: int) -> list[Any]:
    return [None if row % every == every - 1 else value for row, value in enumerate(values)]


def int_columns(code: int, chance: random.Random) -> dict[str, list[Any]]:
    low, high = c.LIMITS[code]
    small = [chance.randint(0, min(high, 9)) for _ in range(2 * N)]
    wide = [chance.randint(low, high) for _ in range(2 * N)]
    wide[3], wide[700] = low, high
    few = [chance.choice([low, high, 0, high // 3, low // 5]) for _ in range(2 * N)]
    step = (high - low) // (2 * N) or 0
    found = {
        "small": small,
        "wide": wide,
        "few": few,
        "mid": [value // 3 for value in wide],
        "const": [high] * N,
        "const0": [0] * N,
        "null": [None] * N,
        "small null": nulled(small, 3),
        "wide null": nulled(wide, 7),
        "few null": nulled(few, 5),
        "const null": nulled([low] * N, 2),
    }
    if step:
        found["up"] = [low + i * step for i in range(2 * N)]
        found["down"] = [high - i * step for i in range(2 * N)]
        found["up but one"] = found["up"][:-1] + [high]
    return found


def float_columns(code: int, chance: random.Random) -> dict[str, list[Any]]:
    cut = f32 if code == c.F32 else float
    plain = [cut(chance.uniform(-50, 50)) for _ in range(2 * N)]
    few = [cut(chance.choice([1.5, -2.25, 0.1, 1e10, -0.0, 0.0])) for _ in range(2 * N)]
    wild = [chance.choice([NAN, INF, -INF, 0.0, -0.0, 5e-324, cut(1.5), cut(-1e30)]) for _ in range(2 * N)]
    wild = [cut(value) for value in wild]
    return {
        "plain": plain,
        "few": few,
        "wild": wild,
        "wild plain": plain[:N] + wild[:N],
        "const": [cut(0.1)] * N,
        "zero": [0.0] * N,
        "negative zero": [-0.0] * N,
        "zeros": [0.0, -0.0] * (N // 2),
        "nan": [NAN] * N,
        "inf": [INF] * N,
        "nan and one": [NAN] * (N - 1) + [cut(2.5)],
        "many": [cut(chance.choice(range(300)) / 7) for _ in range(2 * N)],
        "null": [None] * N,
        "plain null": nulled(plain, 3),
        "few null": nulled(few, 4),
        "wild null": nulled(wild, 5),
        "negative zero null": nulled([-0.0] * N, 2),
        "many null": nulled([cut(chance.choice(range(300)) / 7) for _ in range(2 * N)], 9),
    }


def text_columns(code: int, chance: random.Random) -> dict[str, list[Any]]:
    few = [chance.choice([b"active", b"", b"idle", "é€".encode(), b"z" * 40]) for _ in range(2 * N)]
    unique = [b"%06d" % chance.randrange(10**6) + b"x" * (i % 5) for i in range(2 * N)]
    many = [b"value %d" % chance.randrange(400) for _ in range(2 * N)]
    top = "\U0010ffff".encode() if code == c.STR else b"\xff"  # str is UTF-8
    found = {
        "few": few,
        "unique": unique,
        "many": many,
        "const": [b"same"] * N,
        "empty": [b""] * N,
        "null": [None] * N,
        "few null": nulled(few, 3),
        "unique null": nulled(unique, 4),
        "many null": nulled(many, 6),
        "empty null": nulled([b""] * N, 3),
        "top": [top * 40 + b"%d" % (i % 700) for i in range(N)],
    }
    return found


@functools.lru_cache(None)
def columns(code: int) -> dict[str, list[Any]]:
    chance = random.Random(code)
    if code in c.VARLEN:
        return text_columns(code, chance)
    if code in c.FLOATS:
        return float_columns(code, chance)
    if code == c.BOOL:
        mixed = [chance.randint(0, 1) for _ in range(2 * N)]
        return {
            "mixed": mixed, "true": [1] * N, "false": [0] * N, "null": [None] * N,
            "mixed null": nulled(mixed, 3), "true null": nulled([1] * N, 2), "one": [0] * (N - 1) + [1],
        }  # fmt: skip
    if code in (c.DATE, c.DATETIME):  # what datetime can show
        day = 1 if code == c.DATE else 86_400_000_000
        few = [chance.randrange(5) * 3000 * day for _ in range(2 * N)]
        wide = [chance.randrange(-700_000, 2_900_000) * day for _ in range(2 * N)]
        return {
            "few": few, "wide": wide, "up": [i * day for i in range(N)], "const": [-day] * N, "null": [None] * N,
            "few null": nulled(few, 3), "wide null": nulled(wide, 5), "small": [day + i % 9 for i in range(N)],
        }  # fmt: skip
    return int_columns(code, chance)


CODES = sorted(c.WIDTHS.keys() | c.VARLEN)
CASES = [(code, name) for code in CODES for name in columns(code)]
NAMES = [f"{code}-{name}" for code, name in CASES]
every_case = pytest.mark.parametrize(("code", "name"), CASES, ids=NAMES)


def forms(kernels: _ext.Backend, code: int, values: list[Any]) -> list[Any]:
    """A column as this backend's chunks: sealed as chosen, sealed with hints, and as a raw view."""
    buffer = filled(kernels, code, values)
    made = [kernels.codecs.Chunk.view(buffer)]
    seen = set()
    for prefer in (0, c.DICT, c.FOR):
        chunk = kernels.codecs.encode(buffer, 0, len(values), prefer)[0]
        if chunk.codec not in seen:
            seen.add(chunk.codec)
            made.append(chunk)
    return made
