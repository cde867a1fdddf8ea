"""Selection bitmaps: every function against sets of row numbers, on every backend."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import _ext
from snapdb._ext._common import mask_bytes

NONE = 0xFFFFFFFF
SIZES = (0, 1, 7, 8, 63, 64, 65, 1000, 1024, 4096)


def bits(mask: Any) -> set[int]:
    return {row for row in range(len(mask) * 8) if mask[row >> 3] >> (row & 7) & 1}


def made(rows: set[int], size: int) -> bytearray:
    mask = bytearray(mask_bytes(size))
    for row in rows:
        mask[row >> 3] |= 1 << (row & 7)
    return mask


@pytest.mark.parametrize("rows", SIZES)
def test_full_and_empty(kernels: _ext.Backend, rows: int) -> None:
    mask = kernels.mask
    assert type(mask.full(rows)) is bytearray and type(mask.empty(rows)) is bytearray
    assert len(mask.full(rows)) == len(mask.empty(rows)) == mask_bytes(rows)
    assert bits(mask.full(rows)) == set(range(rows))
    assert bits(mask.empty(rows)) == set()
    assert mask.count(mask.full(rows)) == rows
    assert mask.any_set(mask.full(rows)) == (rows > 0)
    assert not mask.any_set(mask.empty(rows))
    assert mask.last(mask.full(rows)) == rows - 1
    assert mask.last(mask.empty(rows)) == -1
    assert mask.ids(mask.full(rows)).tolist() == list(range(rows))


def test_negative_sizes_are_refused(kernels: _ext.Backend) -> None:
    for call in (kernels.mask.full, kernels.mask.empty):
        with pytest.raises(ValueError):
            call(-1)
    with pytest.raises(ValueError):
        kernels.mask.from_ids(array("I"), -1)


sets = st.sets(st.integers(0, 299), max_size=300)


@settings(max_examples=60, deadline=None)
@given(sets, sets)
def test_operations(a: set[int], b: set[int]) -> None:
    for name in _ext.available():
        mask = _ext.backend(name).mask
        for call, wanted in ((mask.and_into, a & b), (mask.or_into, a | b), (mask.andnot_into, a - b)):
            for kind in (bytes, bytearray, memoryview):
                target = made(a, 300)
                assert call(target, kind(made(b, 300))) is None
                assert bits(target) == wanted
        held = made(a, 300)
        assert mask.count(held) == len(a)
        assert mask.any_set(held) == bool(a)
        assert mask.last(held) == max(a, default=-1)
        assert [mask.test(held, row) for row in range(300)] == [row in a for row in range(300)]


@settings(max_examples=60, deadline=None)
@given(sets, sets, sets)
def test_pick_and_scatter(held: set[int], rows: set[int], given_bits: set[int]) -> None:
    listed = array("I", sorted(rows))
    of = {place for place in range(len(listed)) if listed[place] in given_bits}
    for name in _ext.available():
        mask = _ext.backend(name).mask
        picked = mask.pick(bytes(made(held, 300)), listed)
        assert type(picked) is bytearray and len(picked) == mask_bytes(len(listed))
        assert bits(picked) == {place for place in range(len(listed)) if listed[place] in held}
        target = made(held, 300)
        assert mask.scatter(target, listed, bytes(made(of, len(listed)))) is None
        assert bits(target) == held - rows | rows & given_bits


def test_pick_and_scatter_refuse_what_does_not_fit(kernels: _ext.Backend) -> None:
    mask, outside = kernels.mask, array("I", [3, 64])
    with pytest.raises(IndexError, match="row 64 is outside a mask of 64 rows"):
        mask.pick(bytes(8), outside)
    target = bytearray(8)
    with pytest.raises(IndexError, match="row 64 is outside a mask of 64 rows"):
        mask.scatter(target, outside, b"\3" + bytes(7))
    assert not any(target)
    with pytest.raises(ValueError, match="a mask over 2 rows has 8 bytes, got 16"):
        mask.scatter(bytearray(16), outside, bytes(16))


@settings(max_examples=60, deadline=None)
@given(sets, st.integers(0, 20), st.integers(-1, 20))
def test_ids(rows: set[int], skip: int, limit: int) -> None:
    wanted = sorted(rows)[skip:]
    if limit >= 0:
        wanted = wanted[:limit]
    for name in _ext.available():
        mask = _ext.backend(name).mask
        found = mask.ids(made(rows, 300), skip, limit)
        assert isinstance(found, memoryview) and found.format == "I" and found.itemsize == 4
        assert found.tolist() == wanted
        assert bits(mask.from_ids(found, 300)) == set(wanted)
        assert len(mask.from_ids(found, 300)) == mask_bytes(300)


def test_set_bit_and_test_outside(kernels: _ext.Backend) -> None:
    mask = kernels.mask.empty(100)
    kernels.mask.set_bit(mask, 99)
    assert bits(mask) == {99}
    for row in (-1, 128, 1 << 40):
        with pytest.raises(IndexError):
            kernels.mask.set_bit(mask, row)
        with pytest.raises(IndexError):
            kernels.mask.test(mask, row)
    with pytest.raises(IndexError):
        kernels.mask.from_ids(array("I", [3, 100]), 100)


def test_lengths_must_agree(kernels: _ext.Backend) -> None:
    mask = kernels.mask
    for call in (mask.and_into, mask.or_into, mask.andnot_into):
        target = mask.full(64)
        with pytest.raises(ValueError):
            call(target, mask.full(128))
        assert bits(target) == set(range(64))


def test_row_numbers_must_be_u32(kernels: _ext.Backend) -> None:
    for wrong in (array("Q", [1]), array("H", [1]), b"abcd", memoryview(array("I", range(4)))[::2]):
        with pytest.raises(ValueError):
            kernels.mask.from_ids(wrong, 10)
        with pytest.raises(ValueError):
            kernels.mask.combine(wrong, 1, wrong, 1)


def combined(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    numbers: dict[tuple[int, int], int] = {}
    codes, first = [], []
    for row, pair in enumerate(zip(a, b)):
        if NONE in pair:
            codes.append(NONE)
            continue
        if pair not in numbers:
            numbers[pair] = len(numbers)
            first.append(row)
        codes.append(numbers[pair])
    return codes, first


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 5, 900, NONE]), st.integers(0, 4)), max_size=200), st.integers(0, 3))
def test_combine(pairs: list[tuple[int, int]], wide: int) -> None:
    a = [code for code, _ in pairs]
    b = [NONE if code == NONE else other << 9 * wide for code, other in pairs]
    groups_b = (4 << 9 * wide) + 1
    for name in _ext.available():
        codes, first = _ext.backend(name).mask.combine(array("I", a), 901, array("I", b), groups_b)
        assert (codes.format, first.format) == ("I", "I")
        assert (codes.tolist(), first.tolist()) == combined(a, b)


def test_combine_refuses_what_does_not_fit(kernels: _ext.Backend) -> None:
    combine = kernels.mask.combine
    for args in (
        (array("I", [0]), 1, array("I", [0, 0]), 1),
        (array("I", [1]), 1, array("I", [0]), 1),
        (array("I", [0]), 1, array("I", [7]), 7),
        (array("I", [0]), -1, array("I", [0]), 1),
    ):
        with pytest.raises(ValueError):
            combine(*args)


def test_simd_level(kernels: _ext.Backend) -> None:
    assert kernels.mask.simd_level() == kernels.codecs.simd_level()
    assert kernels.mask.simd_level() in (("base", "v3", "v4") if kernels.name == "c" else ("none",))
