"""Parts of chunks, grouping in one call, and bits of masks taken and put at rows: alike on every backend."""

from __future__ import annotations

import math
import random
import struct
from array import array
from typing import Any

import pytest
import reference_chunks as made

from snapdb._ext import _common as c

ROWS = 5 * 1024


def column(code: int) -> list[Any]:
    """Runs with nulls in them, a few large values, and a block that is all null."""
    rng = random.Random(code)
    out: list[Any] = []
    while len(out) < ROWS:
        value: Any = rng.randrange(90)
        if rng.random() < 0.05:
            value += 20_000
        if code in c.VARLEN:
            value = b"a shared prefix %d" % value
        elif code in c.FLOATS:
            value = -0.0 if value == 7 else value / 4
        out += [value] * rng.randrange(1, 30)
    del out[ROWS:]
    if code != c.I64:  # a slope has no nulls
        for row in (0, 1, 500, 1023, 1024, *range(3072, 4096), ROWS - 1):
            out[row] = None
    return out


FORMS = [
    (f"{code} {name}", code, data)
    for code in (c.I64, c.I32, c.U16, c.F64, c.F32, c.STR)
    for name, data in made.every_form(code, column(code))
]


def same(value: Any) -> Any:
    """Floats by their bits."""
    if isinstance(value, (list, tuple)):
        return [same(each) for each in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return value


def cut(mask: bytes, first: int, blocks: int) -> bytes:
    return mask[128 * first : 128 * (first + blocks)]


@pytest.mark.parametrize(("name", "code", "data"), FORMS, ids=[form[0] for form in FORMS])
def test_a_part_answers_as_its_rows_do(kernels: Any, name: str, code: int, data: bytes) -> None:
    chunk = kernels.codecs.Chunk(data)
    values = column(code)
    mask = random.Random(3).randbytes(ROWS // 8)
    assert chunk.part(1, 2).nbytes < chunk.nbytes
    for first, blocks in ((0, 5), (0, 1), (1, 2), (2, 2), (3, 1), (4, 1)):
        part = chunk.part(first, blocks)
        start, rows = first * 1024, blocks * 1024
        buffer = kernels.values.ColumnBuffer(code)
        for value in values[start : start + rows]:
            buffer.append(value)
        raw = kernels.codecs.Chunk.view(buffer)
        chosen = cut(mask, first, blocks)
        assert (part.rows, part.null_count, part.sealed) == (rows, raw.null_count, False)
        assert same(part.take()) == same(raw.take())
        assert part.valid() == raw.valid()
        assert same([part.physical(row) for row in range(0, rows, 41)]) == same(values[start : start + rows : 41])
        assert same(part.bounds(chosen)) == same(raw.bounds(chosen))
        known = [value for value in values if value is not None]
        low, high = min(known[9], known[-9]), max(known[9], known[-9])
        assert part.select(low, high) == raw.select(low, high)
        assert part.select_in(known[:3]) == raw.select_in(known[:3])
        assert [list(x) for x in part.group(chosen)] == [list(x) for x in raw.group(chosen)]
        if code not in c.VARLEN:
            assert same(part.sum(chosen)) == same(raw.sum(chosen))
        whole = kernels.codecs.Chunk.adopt(part)
        assert same(whole.decode().fetch(3)) == same(raw.fetch(3))
        again = part.part(blocks - 1, 1)
        assert same(again.take()) == same(raw.take()[-1024:])


def test_a_part_of_a_view(kernels: Any) -> None:
    buffer = kernels.values.ColumnBuffer(c.I32)
    for value in range(2500):
        buffer.append(None if value % 7 == 0 else value)
    view = kernels.codecs.Chunk.view(buffer)
    part = view.part(1, 2)
    assert part.take() == view.take()[1024:]
    assert part.sum() == sum(value for value in range(1024, 2500) if value % 7)
    for first, blocks in ((0, 4), (3, 1), (-1, 1), (0, 0), (1, -1)):
        with pytest.raises(ValueError, match="are outside 0..3"):
            view.part(first, blocks)


@pytest.mark.parametrize("code", [c.I64, c.STR])
def test_grouped_is_the_four_calls(kernels: Any, code: int) -> None:
    key = kernels.codecs.Chunk(next(data for _, form, data in FORMS if form == code))
    value = kernels.codecs.Chunk(next(data for _, form, data in FORMS if form == c.F64))
    for mask in (None, random.Random(5).randbytes(ROWS // 8), bytes(ROWS // 8)):
        codes, first = key.group(mask)
        groups = len(first)
        wanted = [(value, "count"), (value, "sum"), (key, "count"), (value, "bounds"), (key, "bounds")]
        found, answers = key.grouped(mask, wanted)
        assert list(found) == list(first)
        assert same(answers) == same([getattr(chunk, f"group_{kind}")(codes, groups) for chunk, kind in wanted])
    with pytest.raises(ValueError):
        key.grouped(None, [(value, "middle")])


# -- bits of a mask at rows ------------------------------------------------------
def test_pick_and_scatter(kernels: Any) -> None:
    rng = random.Random(11)
    mask = kernels.mask
    for size, count in ((64, 0), (64, 1), (64, 64), (1024, 65), (4096, 900)):
        before = rng.randbytes(size // 8)
        rows = array("I", rng.sample(range(size), count))
        picked = mask.pick(before, rows)
        assert len(picked) == c.mask_bytes(count)
        assert [mask.test(before, row) for row in rows] == [mask.test(picked, i) for i in range(count)]
        assert mask.count(picked) == sum(mask.test(before, row) for row in rows)
        bits = bytearray(c.mask_bytes(count))
        for i in range(count):
            if rng.random() < 0.5:
                mask.set_bit(bits, i)
        target = bytearray(before)
        mask.scatter(target, rows, bits)
        chosen = {row: mask.test(bits, i) for i, row in enumerate(rows)}
        assert [mask.test(target, row) for row in range(size)] == [
            chosen.get(row, mask.test(before, row)) for row in range(size)
        ]


def test_pick_and_scatter_refuse(kernels: Any) -> None:
    mask = kernels.mask
    with pytest.raises(IndexError, match="row 64 is outside a mask of 64 rows"):
        mask.pick(bytes(8), array("I", [3, 64, 80]))
    with pytest.raises(IndexError, match="row 64 is outside a mask of 64 rows"):
        mask.scatter(bytearray(8), array("I", [64]), bytes(8))
    with pytest.raises(ValueError, match="a mask over 1 rows has 8 bytes, got 16"):
        mask.scatter(bytearray(8), array("I", [3]), bytes(16))
