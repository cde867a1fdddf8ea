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


def shaped_ints(code: int, chance: random.Random) -> dict[str, list[Any]]:
    """Columns for runs, exceptions, steps and lines."""
    low, high = c.LIMITS[code]
    runs = [low + (row // 150 * 7 + row // 900 * 3) % 60 for row in range(3 * N)]
    within = [None if row < 70 or row % 11 == 3 or N <= row < 2 * N else value for row, value in enumerate(runs)]
    if code in (c.I8, c.U8):
        return {"runs null": within}
    high = min(high, low + 10**12) if code != c.U64 else high
    rare = [low + chance.randrange(12) for _ in range(2 * N)]
    for row in (0, 7, 900, N, 2 * N - 1):
        rare[row] = high - row
    if code in (c.I16, c.U16):
        return {"runs": runs, "outliers null": nulled(rare, 4)}
    crowded = [low + chance.randrange(12) for _ in range(3 * N)]
    crowded[N + 5 : N + 160 : 3] = [high - chance.randrange(9) for _ in range(52)]
    found = {"runs null": within, "outliers": rare, "outliers null": nulled(rare, 4), "outliers in a block": crowded}
    apart = (high - low) // 5000
    jitter = [low + 40 + row * apart + chance.randrange(-20, 20) for row in range(3 * N)]
    if code == c.U32:
        return {"runs": runs, "outliers in a block": crowded, "line": jitter}
    found |= {
        "steps": [low + 5 + chance.randrange(4000) * apart for _ in range(2 * N)],
        "steps null": nulled([low + chance.randrange(300) * 3600 for _ in range(2 * N)], 5),
        "line": jitter,
        "falling line": jitter[::-1],
        "line with gaps": [value + row // 500 * apart for row, value in enumerate(jitter)],
        "exact lines": [low + row * 5 + row // N * 1000 for row in range(3 * N)],
        "line of steps": [low + row * 7200 // 1023 * 900 + row % 2 * 900 for row in range(3 * N)],
        "line with outliers": [high - 3 if row % 800 == 700 else value for row, value in enumerate(jitter)],
        "lines in runs": [low + row // 100 * 100 for row in range(3 * N)],
    }
    if code in (c.I64, c.U64):
        end = c.LIMITS[code][1]
        found["line to the end"] = [end - value + min(jitter) for value in jitter]
    return found


def decimal_columns(code: int, chance: random.Random) -> dict[str, list[Any]]:
    cut = f32 if code == c.F32 else float
    cents = [cut(chance.randrange(-3000, 3000) / 100) for _ in range(2 * N)]
    odd = list(cents)
    odd[5::300] = [cut(chance.choice([NAN, INF, -INF, -0.0, 1e-30, 1e30])) for _ in odd[5::300]]
    many = list(cents)
    many[9::150] = [cut(chance.random()) for _ in many[9::150]]
    rare = list(cents)
    rare[11::700] = [cut(chance.randrange(10**6) / 100) for _ in rare[11::700]]
    found = {
        "cents": cents,
        "cents null": nulled(cents, 3),
        "odd cents": odd,
        "odd cents null": nulled(odd, 7),
        "too many odd": many,
        "rare cents": rare,
        "tenths in runs": [cut(row // 170 / 10) for row in range(3 * N)],
        "halves": [cut(chance.randrange(9000) / 2 - 7.5) for _ in range(2 * N)],
        "more digits later": [*cents, *[cut(chance.randrange(9000) / 1000) for _ in range(N)]],
        "tiny": [cut(chance.randrange(30) * (1e-9 if code == c.F32 else 1e-15)) for _ in range(2 * N)],
        "whole": [cut(chance.randrange(10**6)) for _ in range(2 * N)],
    }
    if code == c.F64:
        wide = [chance.randrange(10**14) / 10 for _ in range(2 * N)]
        found["wide"] = [1e14 + 0.1, -1e14 - 0.3, 5e-324, *wide[3:]]
        found["odd nan"] = [ODD_NAN if row % 500 == 3 else value for row, value in enumerate(cents)]
    return found


def front_columns(chance: random.Random) -> dict[str, list[Any]]:
    names = [f"https://example.com/shop/{chance.choice(['shoes', 'shirts'])}/{row:04}" for row in range(500)]
    urls = [chance.choice(names).encode() for _ in range(2 * N)]
    long = [b"", b"y", b"x" * 70_000, b"x" * 70_000 + b"z", b"x" * 300]
    return {
        "urls": urls,
        "urls null": nulled([b"" if row % 50 == 7 else url for row, url in enumerate(urls)], 6),
        "long": [chance.choice(long[:2] if row % 64 else long) for row in range(N)],
        "runs": [b"%03d" % (row // 130 % 7) for row in range(3 * N)],
        "rare": [b"%05d" % row if row % 200 == 3 else b"usual" for row in range(2 * N)],
    }


@functools.lru_cache(None)
def columns(code: int) -> dict[str, list[Any]]:
    chance = random.Random(code)
    if code in c.VARLEN:
        return {**text_columns(code, chance), **front_columns(chance)}
    if code in c.FLOATS:
        return {**float_columns(code, chance), **decimal_columns(code, chance)}
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
            "runs": [row // 200 * day for row in range(3 * N)],
            "hours": [chance.randrange(20_000) * (day // 24 or 7) for row in range(3 * N)],
            "line": [row * (day // 144 or 9) + chance.randrange(5) for row in range(3 * N)],
            "outliers": [9000 * day + row if row % 700 == 5 else row % 12 for row in range(3 * N)],
        }  # fmt: skip
    return {**int_columns(code, chance), **shaped_ints(code, chance)}


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
