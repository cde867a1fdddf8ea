"""Every codec in every layout, by slow writers: each verb of a chunk answers as for the same column stored plainly."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from chunk_columns import DAYS, NAN, NONE, columns, filled
from reference_chunks import every_form, slope

from snapdb import _ext
from snapdb._ext import _common as c
from snapdb._ext._common import mask_bytes

COLUMNS = [
    (c.I8, "runs null"), (c.U8, "small null"), (c.I16, "outliers null"), (c.U16, "wide null"), (c.I32, "few"),
    (c.I32, "line with gaps"), (c.I32, "steps null"), (c.U32, "outliers in a block"), (c.I64, "outliers null"),
    (c.I64, "line to the end"), (c.I64, "wide"), (c.I64, "few null"), (c.U64, "line"), (c.U64, "wide null"),
    (c.U64, "runs null"), (c.DATE, "hours"), (c.DATETIME, "line"), (c.DATETIME, "few null"), (c.F32, "cents null"),
    (c.F32, "odd cents"), (c.F32, "few null"), (c.F64, "odd cents null"), (c.F64, "odd nan"), (c.F64, "wide"),
    (c.F64, "tenths in runs"), (c.F64, "wild null"), (c.F64, "tiny"), (c.BYTES, "urls null"), (c.STR, "long"),
    (c.STR, "runs"), (c.BINARY, "few null"),
]  # fmt: skip


def plain(answer: Any) -> Any:
    """Something that is equal exactly where two answers are the same, NaNs and the signs of zeros too."""
    if isinstance(answer, (bytes, bytearray)):
        return bytes(answer)
    if isinstance(answer, (list, tuple)):
        return [plain(each) for each in answer]
    if isinstance(answer, (array, memoryview)):
        return list(answer)
    return repr(answer) if isinstance(answer, float) else answer


def answers(chunk: Any, code: int, values: list[Any]) -> list[Any]:
    """What a chunk says when it is asked for everything."""
    rows, chance = len(values), random.Random(4)
    some = array("I", [chance.randrange(rows) for _ in range(60)])
    mask = bytes(chance.randrange(256) & chance.randrange(256) for _ in range(rows // 8)).ljust(mask_bytes(rows), b"\0")
    groups = array("I", [row % 5 if row % 7 else NONE for row in range(rows)])
    known = [value for value in values if value is not None and value == value]
    low, high = sorted(chance.sample(known, 2))
    found: list[Any] = [
        chunk.null_count, chunk.valid(), chunk.count(), chunk.count(mask), chunk.bounds(), chunk.bounds(mask),
        chunk.select(low, high), chunk.select(None, low), chunk.select(high, None), chunk.select(low, low),
        chunk.select_in([low]), chunk.select_in([low, high, known[0]]), chunk.select_in(known[:60]),
        chunk.group(), chunk.group(mask), chunk.group_count(groups, 5), chunk.group_bounds(groups, 5),
        [chunk.physical(row) for row in some],
    ]  # fmt: skip
    if code not in DAYS:
        found += [chunk.take(), chunk.take(some), chunk.gather(some).tolist(), [chunk.fetch(row) for row in some]]
    if code not in c.VARLEN:
        found += [chunk.select(low, high, True, True)] if code not in c.FLOATS else [chunk.select_in([NAN, low, 0.0])]
        found += [chunk.sum(), chunk.sum(mask), chunk.group_sum(groups, 5), bytes(chunk.decode().data)]
    return [plain(each) for each in found]


@pytest.mark.parametrize(("code", "name"), COLUMNS)
def test_every_form(kernels: _ext.Backend, code: int, name: str) -> None:
    values = columns(code)[name][:2048]
    wanted = answers(kernels.codecs.Chunk.view(filled(kernels, code, values)), code, values)
    forms = list(every_form(code, values))
    assert forms
    for form, data in forms:
        chunk = kernels.codecs.Chunk(data)
        assert chunk.sealed and bytes(chunk.data) == data
        found = answers(chunk, code, values)
        wrong = [place for place, (one, other) in enumerate(zip(wanted, found)) if one != other]
        assert not wrong, (form, wrong)
        again = kernels.codecs.Chunk.adopt(_ext.backend("python").codecs.Chunk(data))
        assert plain(again.physical(5)) == plain(values[5])


@pytest.mark.parametrize("width", [0, 1, 5, 8, 9, 16, 17, 33, 63])
def test_lines_wrap_around(kernels: _ext.Backend, width: int) -> None:
    """Both ends of the 64-bit types in one block: everything is modulo 2**64."""
    chance = random.Random(width)
    for code in (c.I64, c.U64):
        low, high = c.LIMITS[code]
        for values in (
            [high - row * 3 - (chance.getrandbits(width) if width < 60 else 0) for row in range(1024)],
            [low + row * 3 + (chance.getrandbits(width) if width else 0) for row in range(1024)],
        ):
            chunk = kernels.codecs.Chunk(slope(code, values, c.PACKED))
            assert [chunk.physical(row) for row in range(1024)] == values
            assert chunk.bounds() == (min(values), max(values))
            assert chunk.sum() == sum(values)
