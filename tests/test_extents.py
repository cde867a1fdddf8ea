"""Free space, extents, and views that keep their extent from being used again."""

from __future__ import annotations

import errno
import gc
import random
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb import _ext
from snapdb._ext import _common as c
from snapdb.errors import CorruptionError, InternalError
from snapdb.pieces import Ref
from snapdb.storage import extents as extents_module
from snapdb.storage import views
from snapdb.storage.extents import (
    ENTRY,
    HEADER,
    NODE,
    ROOT,
    ExtentHeader,
    Extents,
    decode_header,
    encode_header,
    root_ref,
)
from snapdb.storage.files import local_layer
from snapdb.storage.space import Space
from snapdb.storage.superblock import PAGE, PREAMBLE
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

UUID = bytes(range(16))
K = PAGE


def make(layer: Optional[Any] = None, mapped: bool = True, maps: bool = True) -> Extents:
    layer = RecordingLayer(maps=maps) if layer is None else layer
    file = layer.open("/x", "x")
    file.pwrite(bytes(PREAMBLE), 0)
    return Extents(file, Space(), UUID, mapped)


# -- space -----------------------------------------------------------------
def test_allocation_is_best_fit_then_lowest_then_the_end() -> None:
    space = Space()
    offsets = [space.allocate(size * K) for size in (1, 2, 1, 4, 1, 2, 1)]
    assert offsets == [PREAMBLE + at * K for at in (0, 1, 3, 4, 8, 9, 11)]
    for at, size in ((1, 2), (4, 4), (9, 2)):
        space.release(PREAMBLE + at * K, size * K)
    assert space.free_bytes == 8 * K
    assert space.allocate(2 * K) == PREAMBLE + K
    assert space.allocate(2 * K) == PREAMBLE + 9 * K
    assert space.allocate(K) == PREAMBLE + 4 * K
    assert space.allocate(4 * K) == PREAMBLE + 12 * K
    assert space.free == [(PREAMBLE + 5 * K, 3 * K)]


def test_neighbours_join_and_the_end_goes_back_below_the_mark() -> None:
    space = Space()
    a, b, d, e = (space.allocate(K) for _ in range(4))
    space.release(a, K)
    space.release(d, K)
    assert space.free == [(a, K), (d, K)]
    space.release(b, K)
    assert space.free == [(a, 3 * K)]
    space.release(e, K)
    assert space.free == [] and space.high_water == PREAMBLE


def test_what_waits_is_free_after_the_next_superblock() -> None:
    space = Space()
    a, b, keep = space.allocate(K), space.allocate(K), space.allocate(K)
    space.promote()
    space.wait(a, K)
    assert (space.free, space.waiting, space.waiting_bytes) == ([], [(a, K)], K)
    space.promote()
    space.wait(b, K)
    assert (space.free, space.waiting) == ([(a, K)], [(b, K)])
    space.promote()
    space.wait(keep, K)
    assert (space.free, space.waiting) == ([(a, 2 * K)], [(keep, K)])
    space.promote()
    assert space.high_water == PREAMBLE and not space.waiting


def test_leased_extents_are_held() -> None:
    space = Space()
    a, b = space.allocate(K), space.allocate(K)
    space.lease(a)
    space.lease(a)
    space.release(a, K)
    assert space.free == [] and space.waiting == [(a, K)]
    space.unlease(a)
    space.reclaim()
    assert space.free == []
    space.unlease(a)
    assert space.allocate(K) == a  # allocate works off what ended
    space.lease(b)
    space.unlease(b)
    space.release(b, K)
    assert space.high_water == b


def test_leases_that_end_are_worked_off_by_readers_too() -> None:
    space = Space()
    for _ in range(5000):
        space.lease(PREAMBLE)
        space.unlease(PREAMBLE)
    assert len(space._ended) < 2000


def test_space_of_what_is_reachable() -> None:
    at = [PREAMBLE + page * K for page in range(12)]
    space = Space.of([(at[5], 2 * K), (at[1], K)], at[10])
    assert space.free == [(at[0], K), (at[2], 3 * K)] and space.high_water == at[7]
    assert Space.of([], at[10]).high_water == PREAMBLE
    for bad in (
        [(at[1], 2 * K), (at[2], K)], [(at[1], K), (at[1], K)], [(at[9], 2 * K)], [(at[1] + 1, K)], [(at[1], 5)],
        [(at[1], 0)], [(0, K)], [(at[1], -K)], [(1 << 64, K)],
    ):  # fmt: skip
        with pytest.raises(CorruptionError) as caught:
            Space.of(bad, at[10], "/x")
        assert caught.value.path == "/x" and caught.value.offset == bad[-1][0]


def test_reserve() -> None:
    at = [PREAMBLE + page * K for page in range(20)]
    space = Space.of([(at[5], K)], at[6])
    space.reserve(at[1], 2 * K)
    assert space.free == [(at[0], K), (at[3], 2 * K)]
    space.reserve(at[8], K)
    assert space.free == [(at[0], K), (at[3], 2 * K), (at[6], 2 * K)] and space.high_water == at[9]
    space.reserve(at[9], K)
    space.reserve(at[0], K)
    space.reserve(at[3], 2 * K)
    assert space.free == [(at[6], 2 * K)]
    for offset, size in ((at[1], K), (at[5], K), (at[6], 3 * K), (at[9], 2 * K), (at[4], K), (0, K), (at[6], 1)):
        with pytest.raises(CorruptionError):
            space.reserve(offset, size)


def test_misuse_of_space_is_an_internal_error() -> None:
    space = Space()
    a, b, _ = (space.allocate(2 * K) for _ in range(3))
    space.release(a, 2 * K)
    for offset, size in ((a, 2 * K), (a, K), (b, 8 * K), (0, K), (b, 0), (b + 1, K), (a + K, 2 * K)):
        with pytest.raises(InternalError):
            space.release(offset, size)
    for size in (0, -K, 5, K + 1):
        with pytest.raises(InternalError):
            space.allocate(size)
    with pytest.raises(InternalError):
        space.allocate(1 << 63)
    with pytest.raises(InternalError):
        Space(5)


STEPS = ["take", "take", "give", "wait", "promote", "lease", "unlease", "reopen"]
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 99))


@given(st.lists(STEP, max_size=80))
def test_space_against_a_model(steps: list[tuple[str, int]]) -> None:
    space = Space()
    used: dict[int, int] = {}  # what somebody refers to
    pending: dict[int, int] = {}  # given back since the last promote
    gone: dict[int, int] = {}  # given back for good; held where it is leased
    leases: list[int] = []
    for step, number in steps:
        chosen = sorted(used)[number % len(used)] if used else None
        if step == "take":
            size = (1 + number % 7) * K
            used[space.allocate(size)] = size
        elif step == "give" and chosen is not None:
            size = used.pop(chosen)
            space.release(chosen, size)
            gone[chosen] = size
        elif step == "wait" and chosen is not None:
            pending[chosen] = used.pop(chosen)
            space.wait(chosen, pending[chosen])
        elif step == "promote":
            space.promote()
            gone.update(pending)
            pending = {}
        elif step == "lease" and chosen is not None:
            space.lease(chosen)
            leases.append(chosen)
        elif step == "unlease" and leases:
            space.unlease(leases.pop(number % len(leases)))
        elif step == "reopen" and not leases:
            fresh = Space.of([*used.items(), *pending.items()], space.high_water)
            assert (fresh.free, fresh.high_water) == (space.free, space.high_water)
        space.reclaim()
        gone = {offset: size for offset, size in gone.items() if offset in leases}
        taken = {**used, **pending, **gone}
        assert len(taken) == len(used) + len(pending) + len(gone)
        assert dict(space.waiting) == {**pending, **gone} and space.leased == bool(leases)
        place = PREAMBLE  # free, waiting and reachable are disjoint and together are everything
        for offset, size in sorted([*taken.items(), *space.free]):
            assert offset == place
            place += size
        assert place == space.high_water
        assert space.free_bytes == sum(size for _, size in space.free)


# -- headers ---------------------------------------------------------------
def test_extent_header_bytes() -> None:
    header = ExtentHeader(1, b"abcdefgh", 5, 6, 7, 8, 9)
    data = encode_header(header)
    assert len(data) == 128 and data[:8] == b"SNEX\x01\0\0\0" and data[8:16] == b"abcdefgh"
    assert struct.unpack_from("<QQQIIQ", data, 16) == (5, 6, 7, 8, 0, 9)
    assert not any(data[56:124])
    summed = encode_header(header._replace(flags=1, crc=0xCAFEF00D))
    assert summed[5] == 1 and not any(summed[56:120]) and struct.unpack_from("<I", summed, 120)[0] == 0xCAFEF00D
    assert decode_header(summed) == header._replace(flags=1, crc=0xCAFEF00D)
    assert struct.unpack_from("<I", data, 124)[0] == zlib.crc32(data[:124])
    assert decode_header(data) == header
    for place in range(128):
        other = bytearray(data)
        other[place] ^= 0x20
        assert decode_header(bytes(other)) is None
        assert decode_header(data[:place]) is None


# -- writing ---------------------------------------------------------------
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("sizes", [[0], [1], [], [64, 64], [3, 0, 0, 100, 63, 65], [3968], [3969], [5000, 1, 9000]])
def test_pieces_are_where_the_format_says(sizes: list[int], mapped: bool) -> None:
    extents = make(mapped=mapped)
    parts: list[Any] = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    refs = extents.write(ENTRY, 77, parts, 5)
    again = extents.write(NODE, 78, [bytearray(b"next")], 5)[0]
    assert [ref.length for ref in refs] == sizes
    place = HEADER
    for ref, part in zip(refs, parts):
        place = -(-place // 64) * 64
        assert (ref.extent, ref.at, ref.crc) == (PREAMBLE, place, zlib.crc32(part))
        place += len(part)
        view = extents.read(ref)
        assert view == part and view.readonly and view.format == "B" and view.ndim == 1
        assert extents.load(ref) == part
    size = -(-place // K) * K
    assert {ref.size for ref in refs} <= {size} and again.extent == PREAMBLE + size
    data = extents.file.pread(size, PREAMBLE)
    assert decode_header(data) == ExtentHeader(ENTRY, UUID[:8], 0, 5, 77, len(sizes), place - HEADER)
    assert not any(data[place:])
    header = decode_header(extents.file.pread(HEADER, again.extent))
    assert header is not None and (header.number, header.kind) == (1, NODE)
    assert (header.flags, header.crc) == (1, zlib.crc32(b"next"))
    assert root_ref(again.extent, 4, again.crc) == again


def test_births_are_those_of_the_headers() -> None:
    extents = make()
    old, new, cut = (extents.write(NODE, 1, [b"node"], generation)[0].extent for generation in (5, 6, 7))
    assert [extents.birth(place) for place in (old, new, cut)] == [5, 6, 7]
    extents.file.pwrite(b"x", cut + 30)
    reader = Extents(extents.file, Space(), UUID)
    assert [reader.birth(place) for place in (old, new, cut, cut + K)] == [5, 6, 0, 0]
    other = Extents(extents.file, Space(), bytes(16))
    assert [other.birth(place) for place in (old, new)] == [0, 0]
    reader.space.high_water = extents.space.high_water
    reader.space.release(cut, K)
    assert reader.write(NODE, 1, [b"node"], 9)[0].extent == cut and reader.birth(cut) == 9


def test_an_extent_may_be_written_without_growth_ahead() -> None:
    extents = make()
    extents.write(ENTRY, 1, [bytes(8 << 20)], 1)
    extents.write(ENTRY, 1, [b""], 1)
    end = extents.space.high_water
    assert extents.length > end
    extents.shorten(end)
    extents.write(ROOT, 0, [b"root"], 1, ahead=False)
    assert extents.length == extents.file.size() == end + K


def test_an_extent_is_one_write_into_allocated_space_and_a_large_one_a_few() -> None:
    layer = RecordingLayer()
    extents = make(layer)
    del layer.log[:]
    extents.write(ENTRY, 1, [b"x" * 100] * 50, 1)
    assert [(op.kind, op.offset) for op in layer.log] == [("allocate", PREAMBLE), ("write", PREAMBLE)]
    large = bytes(range(256)) * 40000  # 10 MB
    del layer.log[:]
    refs = extents.write(ENTRY, 2, [b"a", large, memoryview(large)[5:4_000_000], b"b" * 70], 1)
    writes = [(op.offset, len(op.data)) for op in layer.log if op.kind == "write"]
    assert layer.log[0].kind == "allocate" and len(writes) == 4
    place = refs[0].extent
    for offset, size in writes:
        assert offset == place and size <= 4 << 20
        place += size
    assert place == refs[0].extent + refs[0].size
    assert [extents.load(ref) for ref in refs] == [b"a", large, large[5:4_000_000], b"b" * 70]


@given(st.lists(st.integers(0, 9000), max_size=8))
def test_cutting_into_batches_keeps_the_bytes(sizes: list[int]) -> None:
    batch = extents_module._BATCH
    parts = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    try:
        extents_module._BATCH = 4096
        extents = make(mapped=False)
        refs = extents.write(ENTRY, 1, parts, 1)
    finally:
        extents_module._BATCH = batch
    whole = make(mapped=False)
    assert whole.write(ENTRY, 1, parts, 1) == refs
    assert whole.file.pread(1 << 20, PREAMBLE) == extents.file.pread(1 << 20, PREAMBLE)


def test_the_file_grows_ahead_of_need_in_whole_pages() -> None:
    layer = RecordingLayer()
    extents = make(layer)
    extents.write(ENTRY, 1, [bytes(1 << 20)], 1)
    before = extents.length
    extents.write(ENTRY, 2, [bytes(1 << 20)], 1)
    grown = extents.length - before
    assert extents.length == extents.file.size() and not extents.length % PAGE
    assert (1 << 20) < grown <= (1 << 20) + 2 * PAGE + before // 16
    assert Extents(layer.open("/x", "w"), Space(), UUID).length == extents.length


# -- refusal ---------------------------------------------------------------
@pytest.mark.parametrize("kind", ["allocate", "write"])
def test_a_refused_write_gives_its_space_back(kind: str) -> None:
    layer = FaultyLayer(RecordingLayer())
    extents = make(layer)
    first = extents.write(ENTRY, 1, [b"first"], 1)[0]
    mark, length = extents.space.high_water, extents.length
    for code in (errno.ENOSPC, errno.EIO):
        layer.plan = Plan(layer.operations + 1, code=code, short=True, forever=True, kinds=frozenset([kind]))
        with pytest.raises(OSError) as caught:
            extents.write(ENTRY, 2, [bytes(100_000)], 1)
        assert caught.value.errno == code
        assert (extents.space.high_water, extents.space.free) == (mark, [])
        layer.plan = None
    assert extents.length >= length
    assert extents.load(extents.write(ENTRY, 2, [b"y" * 100_000], 1)[0]) == b"y" * 100_000
    assert extents.load(first) == b"first"


def test_a_nearly_full_disk_takes_what_fits_without_the_growth_ahead() -> None:
    layer = RecordingLayer(space=PREAMBLE + (1 << 20) + 3 * PAGE)
    extents = make(layer)
    extents.write(ENTRY, 1, [bytes((1 << 20) - HEADER)], 1)
    extents.write(ENTRY, 2, [b"two"], 1)
    assert extents.length == extents.file.size()
    with pytest.raises(OSError) as caught:
        extents.write(ENTRY, 3, [bytes(5 * PAGE)], 1)
    assert caught.value.errno == errno.ENOSPC
    assert extents.load(extents.write(ENTRY, 4, [b"four"], 1)[0]) == b"four"


# -- damage ----------------------------------------------------------------
@pytest.mark.parametrize("mapped", [True, False])
def test_a_piece_that_does_not_verify_is_named(mapped: bool) -> None:
    extents = make(mapped=mapped)
    refs = extents.write(ENTRY, 1, [b"good", b"damaged"], 1)
    extents.file.pwrite(b"?", refs[1].extent + refs[1].at + 3)
    assert extents.read(refs[0]) == b"good"
    for read in (extents.read, extents.load):
        with pytest.raises(CorruptionError, match="7 bytes at 16576 do not verify") as caught:
            read(refs[1])
        assert (caught.value.path, caught.value.offset) == ("/x", PREAMBLE + 192)
    assert extents.read(refs[1], verify=False) == b"dam?ged"


@pytest.mark.parametrize("mapped", [True, False])
def test_references_out_of_bounds_are_refused(mapped: bool) -> None:
    extents = make(mapped=mapped)
    good = extents.write(ENTRY, 1, [b"x" * 5000], 1)[0]
    extents.write(ENTRY, 2, [b"y"], 1)
    top = (1 << 64) - 1
    for changes in (
        {"extent": 0}, {"extent": 0x3000}, {"extent": good.extent + 1}, {"extent": good.extent + 2 * K, "size": 2 * K},
        {"extent": top}, {"extent": top - top % K}, {"size": 3 * K + 1}, {"size": 1 << 44}, {"size": 0}, {"at": 0},
        {"at": 64}, {"at": 129}, {"at": top}, {"at": top - 63}, {"length": top}, {"length": 2 * K}, {"at": 2 * K},
    ):  # fmt: skip
        bad = good._replace(**changes)
        for read in (extents.read, extents.load):
            with pytest.raises(CorruptionError, match="out of bounds") as caught:
                read(bad)
            assert caught.value.path == "/x" and caught.value.offset is not None


def test_a_file_that_became_shorter_is_damage() -> None:
    extents = make(mapped=False)
    ref = extents.write(ENTRY, 1, [b"x" * 5000], 1)[0]
    extents.file.truncate(PREAMBLE + 1000)
    with pytest.raises(CorruptionError, match="the file ends within"):
        extents.read(ref)


# -- maps and leases -------------------------------------------------------
def test_a_mapped_piece_is_verified_once_and_again_where_the_place_is_reused() -> None:
    extents = make()
    ref = extents.write(ENTRY, 1, [b"first"], 1)[0]
    assert extents.read(ref) == b"first"
    extents.file.pwrite(b"F", ref.extent + ref.at)
    assert extents.read(ref) == b"First"  # by contract: one open, one check
    with pytest.raises(CorruptionError):
        extents.read(ref._replace(crc=ref.crc ^ 1))
    extents.space.release(*ref[:2])
    again = extents.write(ENTRY, 2, [b"again"], 1)[0]
    assert again.extent == ref.extent
    extents.file.pwrite(b"A", ref.extent + ref.at)
    with pytest.raises(CorruptionError):
        extents.read(again)


def test_an_unmapped_piece_is_verified_each_time() -> None:
    extents = make(mapped=False)
    ref = extents.write(ENTRY, 1, [b"first"], 1)[0]
    assert extents.read(ref) == b"first"
    extents.file.pwrite(b"F", ref.extent + ref.at)
    with pytest.raises(CorruptionError):
        extents.read(ref)


def reused(extents: Extents, ref: Ref) -> bool:
    """Whether the next extent of this size would take the place."""
    gc.collect()
    offset = extents.space.allocate(ref.size)
    extents.space.release(offset, ref.size)
    return offset == ref.extent


@pytest.mark.parametrize(
    "derive",
    [
        lambda view: view,
        lambda view: view[10:20],
        lambda view: memoryview(view)[8:16].cast("Q"),
        lambda view: view.toreadonly().cast("H")[2:],
        lambda view: memoryview(view).cast("B")[3:].toreadonly()[4:],
    ],
)
def test_an_extent_is_not_reused_while_anything_made_from_a_view_lives(derive: Any) -> None:
    extents = make()
    ref = extents.write(ENTRY, 1, [bytes(range(256)) * 32], 1)[0]
    extents.write(ENTRY, 2, [b"behind"], 1)
    kept = derive(extents.read(ref))
    was = bytes(kept)
    other = extents.read(ref)
    extents.space.release(*ref[:2])
    assert extents.space.waiting == [ref[:2]] and not reused(extents, ref)
    del other
    assert not reused(extents, ref) and bytes(kept) == was
    del kept
    assert reused(extents, ref) and extents.space.waiting == []


def test_copies_hold_nothing() -> None:
    for extents in (make(mapped=False), make(maps=False)):
        ref = extents.write(ENTRY, 1, [b"x" * 5000], 1)[0]
        extents.write(ENTRY, 2, [b"behind"], 1)
        view = extents.read(ref)
        extents.space.release(*ref[:2])
        assert reused(extents, ref)
        extents.write(ENTRY, 3, [b"y" * 5000], 2)
        assert view == b"x" * 5000 and view.readonly


@pytest.mark.parametrize("what", ["chunk", "data"])
def test_a_chunk_over_a_view_keeps_its_extent(kernels: _ext.Backend, what: str) -> None:
    buffer = kernels.values.ColumnBuffer(c.I64)
    for value in range(1024):
        buffer.append(value * value)
    sealed = bytes(kernels.codecs.encode(buffer, 0, 1024)[0].data)
    extents = make()
    ref = extents.write(ENTRY, 1, [b"before", sealed], 1)[1]
    extents.write(ENTRY, 2, [b"behind"], 1)
    chunk: Any = kernels.codecs.Chunk(extents.read(ref))
    assert chunk.fetch(1000) == 1000000
    kept = chunk if what == "chunk" else chunk.data[64:]
    del chunk
    extents.space.release(*ref[:2])
    assert not reused(extents, ref)
    del kept
    assert reused(extents, ref)


def test_a_map_is_made_anew_for_what_lies_behind_it_and_the_old_one_lives_in_its_views() -> None:
    extents = make()
    first = extents.write(ENTRY, 1, [b"first"], 1)[0]
    old = extents.read(first)
    mapped = extents._map
    second = extents.write(ENTRY, 2, [b"s" * 500_000], 1)[0]
    assert extents.read(second) == b"s" * 500_000 and extents._map is not mapped
    assert old == b"first" and extents.read(first) == b"first"


def test_another_space_keeps_the_leases_of_live_views() -> None:
    extents = make()
    a = extents.write(ENTRY, 1, [b"a"], 1)[0]
    b = extents.write(ENTRY, 2, [b"b"], 1)[0]
    view = extents.read(a)
    extents.read(b)
    extents.space = Space.of([a[:2], b[:2]], extents.space.high_water)
    extents.space.release(*a[:2])
    assert extents.space.waiting == [a[:2]]
    assert not reused(extents, a) and view == b"a"
    del view
    assert reused(extents, a)


def test_readers_in_other_threads_never_see_a_place_reused(tmp_path: Path) -> None:
    file = local_layer().open(str(tmp_path / "x"), "x")
    file.pwrite(bytes(PREAMBLE), 0)
    extents = Extents(file, Space(), UUID)
    table = {key: extents.write(ENTRY, key, [bytes([key]) * (500 * key + 100)], 1)[0] for key in range(20)}
    publishing, done, wrong = threading.Lock(), threading.Event(), []

    def read(seed: int) -> None:
        chance, kept = random.Random(seed), []
        while not done.is_set():
            key = chance.randrange(20)
            with publishing:
                view = extents.read(table[key])
            kept.append((key, view[1:50]))
            del view, kept[: chance.randrange(3)]
            wrong.extend(key for key, part in kept if part != bytes([key]) * len(part))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for step in range(2000):
            key = step * 7 % 20
            ref = extents.write(ENTRY, key, [bytes([key]) * (500 * (step % 23) + 100)], 1)[0]
            with publishing:
                old, table[key] = table[key], ref
            extents.space.release(*old[:2])
    finally:
        done.set()
        for thread in threads:
            thread.join()
        extents._map = None
        file.close()
    gc.collect()
    assert wrong == [] and not extents.space.leased and extents.space.waiting == []
    used = sum(ref.size for ref in table.values())
    assert PREAMBLE + used + extents.space.free_bytes == extents.space.high_water


def test_a_file_is_shortened_once_nothing_looks_at_it() -> None:
    extents = make()
    first, last = (extents.write(ENTRY, key, [b"x" * 50_000], 1)[0] for key in (1, 2))
    kept, mark = extents.read(last)[5:6], last.extent
    extents.space.release(*last[:2])
    assert not extents.idle() and extents.space.high_water > mark
    del kept
    assert extents.idle() and extents.space.high_water == mark
    with pytest.raises(InternalError):
        extents.shorten(mark - PAGE)
    extents.shorten(mark)
    assert extents.length == extents.file.size() == mark
    assert extents.read(first) == b"x" * 50_000
    with pytest.raises(InternalError):
        extents.shorten(mark)  # there is a map again
    again = extents.write(ENTRY, 3, [b"y" * 90_000], 2)[0]
    assert again.extent == mark and extents.read(again) == b"y" * 90_000


def test_where_mapping_fails_reading_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = FaultyLayer(RecordingLayer(maps=True))
    extents = make(layer)
    ref = extents.write(ENTRY, 1, [b"piece"], 1)[0]
    layer.plan = Plan(layer.operations + 1, code=errno.ENOMEM, kinds=frozenset(["map"]), reads=True)
    assert extents.read(ref) == b"piece" and extents.read(ref) == b"piece" and extents._map is None

    def refuse(source: memoryview) -> Any:
        raise ImportError("no ctypes")

    monkeypatch.setattr(extents_module, "windows_of", refuse)
    extents = make()
    assert extents.read(extents.write(ENTRY, 1, [b"piece"], 1)[0]) == b"piece" and extents._map is None


@pytest.mark.parametrize("mapped", [True, False])
def test_on_a_disk(tmp_path: Path, mapped: bool) -> None:
    layer = local_layer()
    path = str(tmp_path / "x")
    file = layer.open(path, "x")
    try:
        file.pwrite(bytes(PREAMBLE), 0)
        extents = Extents(file, Space(), UUID, mapped)
        parts = [bytes([n]) * (n * 1000) for n in range(30)]
        refs = extents.write(ENTRY, 1, parts, 1)
        kept = [extents.read(ref) for ref in refs]
        more = extents.write(ENTRY, 2, [b"z" * 3_000_000], 1)[0]
        assert extents.read(more) == b"z" * 3_000_000
        assert (extents._map is not None) == (mapped and layer.maps)
        extents.space.release(*refs[0][:2])
        later = extents.write(ENTRY, 3, [b"w" * 100_000], 2)[0]
        assert extents.read(later) == b"w" * 100_000
        assert kept == parts
        del kept
        if extents._map is not None:
            assert reused(extents, refs[0])
    finally:
        extents._map = None
        file.close()


@pytest.mark.parametrize("make_windows", [views.windows_of, views._addressing])
def test_a_window_is_its_range_of_the_map(make_windows: Any) -> None:
    windows = make_windows(memoryview(bytes(range(200))))
    view = memoryview(windows(10, 20)).cast("B").toreadonly()
    gc.collect()
    assert bytes(view) == bytes(range(10, 30)) and view.format == "B"


def test_an_address_stays_within_its_map() -> None:
    windows = views._addressing(memoryview(bytes(200)))
    for offset, size in ((-1, 5), (0, 201), (200, 1), (5, -1)):
        with pytest.raises(IndexError):
            windows(offset, size)
