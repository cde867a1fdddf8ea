"""A sealed part with updated rows answers as the decoded values with the updates put in do, to the last bit."""

from __future__ import annotations

import math
import random
import struct
from array import array
from typing import Any

import pytest

from snapdb import ColumnarTable, _ext
from snapdb._ext._common import BOOL, BYTES, F32, F64, I64, U8, mask_bytes
from snapdb.columnar_patch import PatchedChunk, is_worth_it

ROWS = 5 * 1024
VALUES: dict[int, Any] = {
    I64: lambda draw: draw.choice((None, draw.randrange(-(10**6), 10**6))),
    U8: lambda draw: draw.randrange(7),
    F64: lambda draw: draw.choice((None, draw.uniform(-1e9, 1e9), math.nan, -0.0, 0.0, math.inf)),
    F32: lambda draw: draw.choice((0.5, 2.0**99, -0.0, math.nan)),
    BOOL: lambda draw: draw.randrange(2),
    BYTES: lambda draw: draw.choice((None, b"", b"abc", b"%d" % draw.randrange(50))),
}


def plain(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    return tuple(map(plain, value)) if isinstance(value, (tuple, list)) else value


def made(kernels: Any, code: int, changed: int, seed: int = 0) -> tuple[Any, Any]:
    """(patched, decoded with the updates)."""
    draw = random.Random(seed)
    buffer = kernels.values.ColumnBuffer(code)
    for _ in range(ROWS):
        buffer.append(VALUES[code](draw))
    chunk, _ = kernels.codecs.encode(buffer, 0, ROWS)
    overlay = {row: VALUES[code](draw) for row in draw.sample(range(ROWS), changed)}
    buffer.patch(overlay)
    return PatchedChunk(kernels, chunk, overlay), kernels.codecs.Chunk.view(buffer)


@pytest.mark.parametrize("changed", [1, 3, 60])
@pytest.mark.parametrize("code", VALUES)
def test_every_verb(kernels: Any, code: int, changed: int) -> None:
    one, other = made(kernels, code, changed)
    draw = random.Random(5)
    assert (one.code, one.rows, one.null_count) == (other.code, other.rows, other.null_count)
    assert plain(one.decode().tolist()) == plain(other.decode().tolist()) == plain(one.take()) == plain(other.take())
    some = memoryview(array("I", sorted(draw.sample(range(ROWS), 700))))
    near = memoryview(array("I", sorted(list(one._overlay)[:2])))
    for rows in (some, near, memoryview(array("I"))):
        assert plain(one.take(rows)) == plain(other.take(rows))
        assert plain(one.gather(rows).tolist()) == plain(other.gather(rows).tolist())
    for row in [*one._overlay, 0, ROWS - 1]:
        assert plain(one.physical(row)) == plain(other.physical(row))
        assert plain(one.fetch(row)) == plain(other.fetch(row))
    assert one.valid() == other.valid()
    known = [value for value in (VALUES[code](draw) for _ in range(40)) if value is not None and value == value]
    for lo in known[:6]:
        hi = max(lo, known[-1])
        assert one.select(lo, hi) == other.select(lo, hi)
        assert one.select(None, lo) == other.select(None, lo)
        assert one.select_in([lo]) == other.select_in([lo])
    masks: list[Any] = [None, kernels.mask.empty(ROWS), kernels.mask.full(ROWS)]
    masks.append(kernels.mask.from_ids(some, ROWS))
    for mask in masks:
        assert one.count(mask) == other.count(mask)
        assert plain(one.bounds(mask)) == plain(other.bounds(mask))
        if code != BYTES:
            start = 0.25 if code in (F32, F64) else 7
            assert plain(one.sum(mask, start)) == plain(other.sum(mask, start))
        codes, first = one.group(mask)
        expected = other.group(mask)
        assert bytes(codes) == bytes(expected[0]) and bytes(first) == bytes(expected[1])
        assert one.group_count(codes, len(first)) == other.group_count(codes, len(first))
        assert plain(one.group_bounds(codes, len(first))) == plain(other.group_bounds(codes, len(first)))
    assert all(len(mask) == mask_bytes(ROWS) for mask in masks[1:])


def test_float_sums_read_blocks_with_updates_alone(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = made(kernels, F64, 1)
    monkeypatch.setattr(one, "decode", lambda: pytest.fail("everything was decoded"), raising=False)
    assert plain(one.sum()) == plain(other.sum())
    one.count(), one.bounds(), one.valid(), one.select(0.0, 1.0)


def test_other_kernels_take_it(kernels: Any) -> None:
    one, other = made(kernels, I64, 5)
    for name in _ext.available():
        adopted = _ext.backend(name).codecs.Chunk.adopt(one)
        assert adopted.take() == other.take() and adopted.sum() == other.sum()


def test_where_it_is_used(backend_name: str) -> None:
    assert is_worth_it(65536, 1) and is_worth_it(65536, 1024)
    assert not is_worth_it(65536, 1025) and not is_worth_it(65536, 0)
    table = ColumnarTable("t", [("a", "i32"), ("v", "f64"), ("s", "str")], backend=backend_name)
    count = 9000
    rows = [{"a": i % 50, "v": i * 0.5, "s": f"s{i % 9}"} for i in range(count)]
    table.batch_insert(rows)
    draw = random.Random(1)
    for idx in draw.sample(range(count), 40):
        rows[idx] = {"a": draw.randrange(99), "v": float(draw.randrange(9)), "s": draw.choice(("new", "s1"))}
        table.update(idx, rows[idx])
    with table.view() as view:
        assert type(view.pieces(0, 0)[0]) is PatchedChunk
    for use in (None, True) if "numpy" in _ext.available() else (None,):
        where = [("a", "between", (10, 60)), ("s", "in", ["new", "s1", "s3"]), ("v", "lt", 2000.0)]
        expected = [row for row in rows if 10 <= row["a"] <= 60 and row["s"] in ("new", "s1", "s3") and row["v"] < 2000]
        assert table.select_where(where, use_numpy=use) == expected
        assert table.count_where(where, use_numpy=use) == len(expected)
        assert table.aggregate("v", "sum", where, use_numpy=use) == sum(row["v"] for row in expected)
    groups = table.group_by("s", "a", "count")
    assert groups == {key: sum(row["s"] == key for row in rows) for key in groups} and sum(groups.values()) == count
    assert [row for _, row in table] == rows
