"""Makes ``tests/data/vectors``, the stored bytes of packing and of chunks: ``python tests/make_vectors.py FOLDER``.

Everything comes from the slow writers of ``reference_chunks`` and from numbers that no library draws, so that another
implementation can make the same. What is stored must be read, and written again where the choice rule makes it, as long
as there is format 1: make them again only for a form that is new.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reference_chunks as slow
from reference_choice import choose

from snapdb._ext import _common as c

N = 1024
MASK = (1 << 64) - 1
CODECS = {c.RAW: "raw", c.CONST: "const", c.AFFINE: "affine", c.FOR: "for", c.DICT: "dict", c.BITMAP: "bitmap"}
CODECS |= {c.SLOPE: "slope", c.DEC: "dec"}
LAYOUTS = {c.PACKED: "packed", c.EXCEPTED: "excepted", c.RUNS: "runs"}
TYPES = {
    c.I32: "i32", c.I64: "i64", c.U64: "u64", c.DATE: "date",
    c.F32: "f32", c.F64: "f64", c.BYTES: "bytes", c.STR: "str",
}  # fmt: skip


def numbers(seed: int) -> Iterator[int]:
    """SplitMix64."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def packing_values(width: int, seed: int) -> list[int]:
    """A block of values of ``width`` bits."""
    drawn = numbers(seed)
    return [next(drawn) >> (64 - width) if width else 0 for _ in range(N)]


def packing() -> list[dict[str, Any]]:
    """Each W from 0 to 64 in its own container, and fewer bits in larger ones, as exceptions have them."""
    pairs = [(width, c.container(width)) for width in range(65)]
    pairs += [(width, size) for size in (16, 32, 64) for width in (1, 7, size // 2 - 1, size // 2, size // 2 + 1)]
    found = []
    for width, size in pairs:
        packed = slow.pack(packing_values(width, width), width, size)
        crc, first = zlib.crc32(packed), packed[:64].hex()
        found.append({"W": width, "T": size, "seed": width, "bytes": len(packed), "crc32": crc, "first": first})
    return found


# -- chunks ----------------------------------------------------------------
def base_of(code: int) -> int:
    return {c.I32: -(10**6), c.I64: -(10**12), c.U64: (1 << 63) + 5, c.DATE: 10_957}[code]


def integers(code: int, shape: str) -> list[int]:
    drawn, low, step = numbers(code), base_of(code), 1 if code == c.DATE else 250
    if shape == "runs":
        return [low + row // 90 * 7 * step for row in range(N)]
    if shape == "excepted":
        return [low + (next(drawn) % 16 if row % 100 != 7 else 5000 + row) * step for row in range(N)]
    if shape == "line":
        return [low + row * 3 * step + next(drawn) % 5 * step for row in range(N)]
    if shape == "line excepted":
        return [low + (row * 3 + next(drawn) % 3 + (900 if row % 200 == 9 else 0)) * step for row in range(N)]
    if shape == "line runs":
        return [low + (row * 3 + row // 120 * row // 120 * 40) * step for row in range(N)]
    if shape == "few":
        few = [low + next(drawn) % (60_000 if code == c.DATE else 10**8) for _ in range(20)]
        return [few[next(drawn) % 20] for _ in range(N)]
    if shape == "few excepted":
        few = [low + i * i * 97 for i in range(40)]
        return [few[next(drawn) % 40] if row % 60 == 3 else few[1] for row in range(N)]
    if shape == "few runs":
        few = [low + i * i * 9973 for i in range(6)]
        return [few[row // 100 % 6] for row in range(N)]
    return [low + next(drawn) % 100 * step for _ in range(N)]


def floats(code: int, shape: str) -> list[float]:
    drawn = numbers(code)

    def cut(value: float) -> float:
        return float(array("f", [value])[0]) if code == c.F32 else value

    if shape == "runs":
        return [cut(row // 80 / 4) for row in range(N)]
    if shape == "excepted":
        return [cut((next(drawn) % 16 if row % 100 != 7 else 5000 + row) / 100) for row in range(N)]
    if shape == "odd":
        odd = {50: cut(float("inf")), 60: -0.0, 70: cut(-1e30), 80: cut(float("-inf"))}
        return [odd.get(row % 150, cut(next(drawn) % 4000 / 100)) for row in range(N)]
    if shape == "few":
        few = [cut(next(drawn) / 2**64) for _ in range(20)]
        return [few[next(drawn) % 20] for _ in range(N)]
    if shape == "few excepted":
        few = [cut(1 / (i + 3)) for i in range(40)]
        return [few[next(drawn) % 40] if row % 60 == 3 else few[39] for row in range(N)]
    if shape == "few runs":
        return [cut(1 / (row // 100 % 6 + 3)) for row in range(N)]
    if shape == "steps":
        return [cut(next(drawn) % 3000 / 2) for _ in range(N)]
    return [cut((next(drawn) % 4000 - 2000) / 1000) for _ in range(N)]


def texts(shape: str) -> list[bytes]:
    drawn = numbers(13)
    if shape == "runs":
        return [b"town %d" % (row // 110) for row in range(N)]
    if shape == "excepted":
        return [b"usual" if row % 64 != 5 else b"z%03d" % row for row in range(N)]
    if shape == "front":
        return [b"https://example.org/a/long/path/%03d" % (next(drawn) % 200) for _ in range(N)]
    if shape == "front runs":
        return ["prefix in common of émigrés {:03}".format(row // 12).encode() for row in range(N)]  # noqa: UP032
    if shape == "front excepted":
        return [b"a common prefix" if row % 40 != 5 else b"a common prefix of %04d" % row for row in range(N)]
    return [bytes(chr(0x61 + next(drawn) % 9), "ascii") * (1 + row % 3) for row in range(N)]


def with_nulls(values: list[Any]) -> list[Any]:
    return [None if row < 3 or row % 9 == 4 else value for row, value in enumerate(values)]


def chunks() -> Iterator[tuple[str, int, list[Any], bytes, bool]]:
    """(name, dtype, values, bytes, whether the choice rule writes it)"""
    shaped: list[tuple[int, str, Any]] = []
    for code in (c.I32, c.I64, c.U64, c.DATE):
        shapes = ("packed", "runs", "excepted", "line", "line excepted", "line runs", "few", "few excepted", "few runs")
        shaped += [(code, shape, integers(code, shape)) for shape in shapes]
    for code in (c.F32, c.F64):
        shapes = ("packed", "runs", "excepted", "odd", "few", "few excepted", "few runs", "steps")
        shaped += [(code, shape, floats(code, shape)) for shape in shapes]
    for code in (c.BYTES, c.STR):
        shapes = ("packed", "runs", "excepted", "front", "front runs", "front excepted")
        shaped += [(code, shape, texts(shape)) for shape in shapes]
    shaped += [
        (code, f"{shape} null", with_nulls(values)) for code, shape, values in shaped
        if code in (c.I64, c.F64, c.STR) and not shape.startswith("line")
    ]  # fmt: skip
    seen = set()
    for code, shape, values in shaped:
        chosen = choose(code, values)
        if chosen.codec in (c.FOR, c.DICT, c.SLOPE, c.DEC):
            seen.add((code, chosen.codec, chosen.layout, chosen.front))
            yield f"{TYPES[code]} {shape}", code, values, chosen.chunk(code, values), True
    for code in TYPES:  # forms that the rule makes of none of these
        for codec in (c.FOR, c.SLOPE, c.DEC, c.DICT):
            for layout in LAYOUTS:
                for front in (False, True) if codec == c.DICT and code in c.VARLEN else (False,):
                    if (code, codec, layout, front) not in seen:
                        yield from by_hand(code, codec, layout, front)


def by_hand(code: int, codec: int, layout: int, front: bool) -> Iterator[tuple[str, int, list[Any], bytes, bool]]:
    name = f"{TYPES[code]} {CODECS[codec]} {LAYOUTS[layout]}{' front' if front else ''} by hand"
    if codec in (c.FOR, c.SLOPE):
        if code in c.INTS:
            values: list[Any] = integers(code, {c.EXCEPTED: "line excepted", c.RUNS: "runs"}.get(layout, "packed"))
            make = slow.frame if codec == c.FOR else slow.slope
            yield name, code, values, make(code, values, layout), False
    elif codec == c.DEC:
        if code in c.FLOATS:
            values = floats(code, "odd")
            yield name, code, values, slow.decimals(code, values, layout), False
    else:
        values = (
            texts("packed") if code in c.VARLEN else floats(code, "few") if code in c.FLOATS else integers(code, "few")
        )
        yield name, code, values, slow.dictionary(code, values, layout, front=front), False


def typed(code: int, values: list[Any]) -> bytes:
    """The values as a typed array, null rows as zeros; strings: length and bytes of each."""
    if code in c.VARLEN:
        return b"".join(struct.pack("<I", len(value or b"")) + (value or b"") for value in values)
    return struct.pack(
        f"<{len(values)}{c.TYPECODES[code]}", *[value or 0 if value is None else value for value in values]
    )


def make(folder: Path) -> None:
    (folder / "chunks").mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry) for entry in packing())
    (folder / "packing.json").write_text(f"[\n{lines}\n]\n", encoding="ascii")
    index = []
    for name, code, values, data, written in chunks():
        file = name.replace(" ", "_") + ".bin"
        (folder / "chunks" / file).write_bytes(data)
        kind = f"{CODECS[data[0]]} {LAYOUTS[data[72]]}{' front' if data[75] else ''}"
        index.append({
            "file": file, "dtype": code, "what": kind, "rows": len(values), "nulls": values.count(None),
            "written": written, "crc32": zlib.crc32(typed(code, values)),
        })  # fmt: skip
    lines = ",\n".join(json.dumps(entry) for entry in index)
    (folder / "chunks.json").write_text(f"[\n{lines}\n]\n", encoding="ascii")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
