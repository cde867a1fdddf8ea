"""A columnar segment's bytes, and what is wrong with them below checksums that are right."""

from __future__ import annotations

import datetime as dt
import math
import random
import struct
from typing import Any, Optional

import pytest
from entry_disk import (
    NOON,
    PLAIN,
    Disk,
    created,
    opened,
    plain,
    row,
    state_of,
    tag,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model import bits

from snapdb import ColumnDef, Schema, _ext
from snapdb._ext._common import BLOCK, LIMITS, SEGMENT, Zone
from snapdb.columnar_file import (
    DELETED,
    OVERLAY,
    SEALED,
    TAIL_ROWS,
    bitmap_from,
    overlay_bytes,
    overlay_from,
    zone_bytes,
    zone_from,
)
from snapdb.errors import CorruptionError, SnapDBError
from snapdb.pieces import Entry, Piece

# -- bytes ---------------------------------------------------------------------------------------------------------

ZONES: list[tuple[int, Zone]] = [
    (4, Zone(-5, 2**63 - 1, True, 3, 0, 2**70)),
    (8, Zone(0, 2**64 - 1, False, 0, 0, None)),
    (4, Zone(None, None, True, 1024, 0, 0)),
    (10, Zone(-math.inf, 2.5, True, 1, 2, -0.0)),
    (10, Zone(None, None, False, 2, 2, None)),
    (9, Zone(0.5, 0.5, True, 0, 0, math.inf)),
    (13, Zone(b"", b"z" * 32, True, 0, 0, None)),
    (13, Zone(b"a", None, False, 0, 0, None)),
    (11, Zone(0, 1, True, 0, 0, 500)),
    (15, Zone(*LIMITS[4][:0], -719_162, 2_932_896, True, 0, 0, 5)),
]


def test_zone_maps_come_back() -> None:
    for code, zone in ZONES:
        assert bits(zone_from(zone_bytes(zone, 1024, code), code)) == bits((1024, zone))
    low, high = b"a" * 40, b"b" * 31 + b"\xff" * 9
    rows, zone = zone_from(zone_bytes(Zone(low, high, False, 5000, 0, None), 2048, 13), 13)
    assert (rows, zone) == (2048, Zone(b"a" * 32, b"b" * 30 + b"c", False, 2048, 0, None)) and zone.hi > high  # type: ignore[operator]
    assert zone_from(zone_bytes(Zone(b"", b"\xff" * 33, False, 0, 0, None), 1024, 13), 13)[1].hi is None
    data = zone_bytes(ZONES[0][1], 1024, 4)
    assert data[:16] == struct.pack("<BxxxIII", 1 | 2 | 4 | 8, 1024, 3, 0) and len(data) == 64


def test_damaged_zone_maps() -> None:
    for code, zone in ZONES:
        data = zone_bytes(zone, 1024, code)
        for bad in (data[:-1], data + b"\0", data[:15], b""):
            with pytest.raises(ValueError, match="zone map"):
                zone_from(bad, code)
        other = 13 if code != 13 else 4
        with pytest.raises(ValueError, match="flags"):
            zone_from(data, other)
        for at in range(len(data)):
            for flip in (1, 0x80, 0xFF):
                changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
                try:
                    rows, found = zone_from(changed, code)
                except ValueError:
                    continue
                assert 0 < rows <= SEGMENT and rows % BLOCK == 0 and found.nulls <= rows


def test_overlays_come_back(kernels: _ext.Backend) -> None:
    for code, overlay in (
        (4, {0: 5, 65535: -1, 7: None}),
        (14, {1: b"", 2: b"\xff" * 100, 3: None}),
        (10, {9: 0.5}),
        (11, {1: 1, 2: 0}),
    ):
        data = overlay_bytes(kernels, code, overlay)
        assert overlay_from(kernels, code, data, SEGMENT) == overlay
        other = bytes([data[0] ^ 3])
        for bad in (data[:-1], data[:7], data[:9], b"", data + bytes(8), other + data[1:], data[:4] + b"\7" + data[5:]):
            with pytest.raises(ValueError):
                overlay_from(kernels, code, bad, SEGMENT)
        with pytest.raises(ValueError, match="rise or are outside"):
            overlay_from(kernels, code, data, max(overlay))
    twice = bytearray(overlay_bytes(kernels, 4, {3: 1, 4: 2}))
    twice[10] = 3
    with pytest.raises(ValueError, match="rise"):
        overlay_from(kernels, 4, twice, SEGMENT)
    late = overlay_bytes(kernels, 15, {3: 3_000_000})
    with pytest.raises(ValueError, match="years|range|date"):
        overlay_from(kernels, 15, late, SEGMENT)


def test_bitmaps_of_deleted_rows(kernels: _ext.Backend) -> None:
    mask = kernels.mask.empty(SEGMENT)
    kernels.mask.set_bit(mask, 99)
    assert bitmap_from(kernels, bytes(mask), 100) == mask
    for bad, size in ((mask, 99), (mask[:-8], SEGMENT), (mask + bytes(8), SEGMENT), (b"", SEGMENT)):
        with pytest.raises(ValueError):
            bitmap_from(kernels, bytes(bad), size)


# -- damage below the checksums ------------------------------------------------------------------------------------


@pytest.fixture
def damaged(backend_name: str) -> tuple[Disk, dict[str, Any], str]:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 3000))
    table.update(4, {"s": "u"})
    table.update(SEGMENT + 2999, {"a": 9})
    table.remove([5, SEGMENT + 6])
    return disk, disk.checkpoint(table), backend_name


def refuse(case: tuple[Disk, dict[str, Any], str], header: Optional[dict[str, Any]] = None) -> None:
    """Whatever reads the damaged part says that it is damaged, and verify() tells it too."""
    disk, good, backend = case
    try:
        table = opened(disk, good if header is None else header, backend, PLAIN)
    except CorruptionError:
        return
    assert list(table.verify()) != []
    with pytest.raises(CorruptionError):
        table.select()
    for ask in (
        lambda: table.get(3),
        lambda: table.update(3, {"a": 1}),
        lambda: table.remove([3]),
        lambda: table.get(SEGMENT + 3),
    ):
        try:
            ask()
        except CorruptionError:
            return
    raise AssertionError("no damage was found")


@pytest.mark.parametrize("header", [
    {}, {"rows": 5}, {"rows": "5", "live": 5}, {"rows": 5, "live": 6}, {"rows": -1, "live": -1},
    {"rows": 2**60, "live": 0}, {"rows": True, "live": True}, {"rows": 1.0, "live": 1.0}, {"rows": 5, "live": None},
    {"rows": 2 * SEGMENT, "live": 7}, {"rows": SEGMENT, "live": 7},
    {"rows": SEGMENT + 2999, "live": 7}, {"rows": SEGMENT + 3001, "live": 7},
    {"rows": 3000, "live": 7}, {"rows": 3 * SEGMENT + 3000, "live": 7},
])  # fmt: skip
def test_headers_that_cannot_be(damaged: tuple[Disk, dict[str, Any], str], header: dict[str, Any]) -> None:
    disk, _, backend = damaged
    if header == {"rows": SEGMENT, "live": 7}:
        assert list(opened(disk, header, backend, PLAIN).verify()) == [
            f"{SEGMENT - 1} rows are live, not 7 as the counters say"
        ]
    else:
        refuse(damaged, header)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("kind", [SEALED, TAIL_ROWS, OVERLAY, DELETED])
def test_pieces_that_cannot_be(damaged: tuple[Disk, dict[str, Any], str], k: int, kind: int) -> None:
    disk, header, backend = damaged
    whole = disk.tree[k]
    pieces = [piece for piece in whole.pieces if piece.tag >> 24 == kind]
    if not pieces:
        return
    one = pieces[0]
    rest = [piece for piece in whole.pieces if piece is not one]
    data = bytes(disk.read(one.ref))  # type: ignore[arg-type]
    broken = [Piece(0, b"", data), Piece(5 << 24, b"", data), Piece(kind << 24 | 3, one.meta, data)]
    broken += [
        Piece(one.tag, one.meta + b"\0", data),
        Piece(one.tag, one.meta, data[:-8]),
        Piece(one.tag, one.meta, b""),
    ]
    broken += [Piece(one.tag, one.meta, bytes(len(data)))] if kind != DELETED else []
    for piece in broken:
        disk.tree[k] = disk.write(Entry(b"", [*rest, piece]))
        refuse(damaged)
    disk.tree[k] = Entry(b"", [*whole.pieces, one])  # twice
    refuse(damaged)
    if kind in (SEALED, TAIL_ROWS):
        disk.tree[k] = Entry(b"", rest)
        refuse(damaged)
        swapped = {pieces[0].tag: pieces[1], pieces[1].tag: pieces[0]}
        mixed = [Piece(p.tag, p.meta, None, swapped.get(p.tag, p).ref) for p in whole.pieces]
        disk.tree[k] = Entry(b"", mixed)  # another column's values
        refuse(damaged)
    disk.tree[k] = Entry(b"x", whole.pieces)
    refuse(damaged)
    disk.tree[k] = whole
    assert list(opened(disk, header, backend, PLAIN).verify()) == []


def test_tails_that_overlap_or_leave_out(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, _, _ = damaged
    whole = disk.tree[1]
    for meta in (1, 1024, 952, 2**32 - 1):
        disk.tree[1] = Entry(
            b"", [p._replace(meta=struct.pack("<I", meta)) if p.tag == tag(TAIL_ROWS) else p for p in whole.pieces]
        )
        refuse(damaged)


def test_a_missing_segment_is_dead_and_counted(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    del disk.tree[0]
    table = opened(disk, header, backend, PLAIN)
    assert table.get(3) is None and table.count_where([]) == 2999
    assert list(table.verify()) == [f"2999 rows are live, not {SEGMENT + 2998} as the counters say"]
    del disk.tree[1]
    with pytest.raises(CorruptionError):
        opened(disk, header, backend, PLAIN)


def test_verify_finds_zone_maps_that_lie(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    whole = disk.tree[0]
    count = SEGMENT
    lies = [
        (0, Zone(1, count - 1, True, 0, 0, count * (count - 1) // 2)),
        (0, Zone(0, count - 1, True, 0, 0, 7)),
        (0, Zone(5, count, False, 0, 0, None)),
        (0, Zone(0, count - 2, False, 0, 0, None)),
        (0, Zone(None, None, False, 0, 0, None)),
        (1, Zone(0.0, 32767.5, True, 0, 1, 5.0)),
        (2, Zone(b"s1", b"u", False, 0, 0, None)),
        (2, Zone(b"s0", b"s6", True, 0, 0, None)),
    ]
    codes = [column.type.code for column in PLAIN.columns]
    for j, zone in lies:
        disk.tree[0] = whole
        disk.replace(0, tag(SEALED, j), meta=zone_bytes(zone, SEGMENT, codes[j]))
        found = list(opened(disk, header, backend, PLAIN).verify())
        assert len(found) == 1 and "zone map" in found[0] and repr(PLAIN.names[j]) in found[0]
    disk.tree[0] = whole
    disk.replace(0, tag(SEALED, 2), meta=zone_bytes(Zone(b"", None, False, 9, 0, None), SEGMENT, codes[2]))
    assert list(opened(disk, header, backend, PLAIN).verify()) == []


def test_dates_that_python_has_not(backend_name: str) -> None:
    schema = Schema([ColumnDef("d", "date"), ColumnDef("t", "datetime", not_null=False)])
    table, disk = created(backend_name, schema)
    table.insert_columns({"d": [dt.date(2000, 1, 1)] * 1030, "t": [NOON] * 1030})
    header = disk.checkpoint(table)
    kernels = _ext.backend(backend_name)
    for j, code in ((0, 15), (1, 16)):
        buffer = kernels.values.ColumnBuffer(code)
        for i in range(1024):
            buffer.append(2**30 + i if code == 15 else 2**60 + i)
        chunk, zone = kernels.codecs.encode(buffer, 0, 1024)
        whole = disk.tree[0]
        disk.replace(0, tag(SEALED, j), bytes(chunk.data))
        table = opened(disk, header, backend_name, schema)  # nothing of the chunk is read yet
        with pytest.raises(CorruptionError, match="years|range|date"):
            table.get(0)
        disk.replace(0, tag(SEALED, j), meta=zone_bytes(zone, 1024, code))
        with pytest.raises(CorruptionError, match="years|range|date"):
            opened(disk, header, backend_name, schema)
        disk.tree[0] = whole
        disk.replace(0, tag(TAIL_ROWS, j), bytes(kernels.values.pack_column(buffer, 0, 6)))
        with pytest.raises(CorruptionError, match="years|range|date"):
            opened(disk, header, backend_name, schema)
        disk.tree[0] = whole


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_no_damage_does_anything_but_raise(seed: int) -> None:
    """Metas and pieces with a few bytes changed, below checksums that are right."""
    draw = random.Random(seed)
    backend = draw.choice(_ext.available())
    table, disk = created(backend)
    table.batch_insert([row(i) for i in range(2300)])
    for i in (1, 5, 2299):
        table.update(i, {"s": "new", "f": None, "t": NOON, "n": 3})
    table.remove([2, 2298])
    header = disk.checkpoint(table)
    pieces = list(disk.tree[0].pieces)
    at = draw.randrange(len(pieces))
    data, meta = bytearray(disk.read(pieces[at].ref)), bytearray(pieces[at].meta)  # type: ignore[arg-type]
    target = meta if meta and draw.random() < 0.3 else data
    for _ in range(draw.choice((1, 1, 3))):
        target[draw.randrange(min(len(target), draw.choice((64, 1 << 20))))] ^= 1 << draw.randrange(8)
    pieces[at] = Piece(pieces[at].tag, bytes(meta), bytes(data))
    disk.tree[0] = disk.write(Entry(b"", pieces))
    try:
        table = opened(disk, header, backend)
        list(table.verify())
        for idx in (0, 1, 2, 1500, 2299):
            table.get(idx)
        state_of(table)
        table.update(1500, {"a": 4})
        table.remove([7])
        table.batch_insert([row(i) for i in range(2000)])
        table.compact()
    except SnapDBError as error:
        assert isinstance(error, CorruptionError), error


def test_parts_that_are_more_than_their_chunk(backend_name: str) -> None:
    """What a chunk's parts have together is known before they are read and joined."""
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT))
    header = disk.checkpoint(table)
    whole = disk.tree[0]
    one = next(piece for piece in whole.pieces if piece.tag == tag(SEALED, 1))
    rest = [piece for piece in whole.pieces if piece is not one]
    data = bytes(disk.read(one.ref))  # type: ignore[arg-type]

    def parts(*pieces: bytes) -> list[Piece]:
        return [Piece(one.tag, one.meta if not at else b"", piece) for at, piece in enumerate(pieces)]

    def read_as(pieces: list[Piece], reads: int, match: str) -> None:
        disk.tree[0] = disk.write(Entry(b"", [*rest, *pieces]))
        found = opened(disk, header, backend_name, PLAIN)
        disk.reads.clear()
        with pytest.raises(CorruptionError, match=match):
            found.select_column("v")
        assert len(disk.reads) <= reads

    step = len(data) // 16
    disk.tree[0] = disk.write(Entry(b"", [*rest, *parts(*(data[at : at + step] for at in range(0, len(data), step)))]))
    assert opened(disk, header, backend_name, PLAIN).get(5) == {"a": 5, "v": 2.5, "s": "s5"}
    read_as([one, *[one._replace(meta=b"")] * 2000], 1, "2001 parts, at most 16")
    read_as([one, *[one._replace(meta=b"")] * 15], 1, "have [0-9]+ bytes, it has")
    step = len(data) // 17
    read_as(parts(*(data[at : at + step] for at in range(0, len(data), step))), 1, "1[78] parts, at most 16")
    read_as(parts(data[:64], data[64:]), 1, "its header")
    half = data[: len(data) // 2]
    twice = disk.write(Entry(b"", parts(half))).pieces[0]
    assert 2 * len(half) == len(data)
    read_as([twice, twice._replace(meta=b"")], 1, "share bytes")


def test_errors_name_their_place(damaged: tuple[Disk, dict[str, Any], str]) -> None:
    disk, header, backend = damaged
    disk.replace(0, tag(SEALED, 1), b"\x07" * 256)
    table = opened(disk, header, backend, PLAIN)
    assert table.column_list[0][3] == 3
    with pytest.raises(CorruptionError, match=r"column 'v', segment 0: ") as caught:
        table.get(3)
    assert (caught.value.column, caught.value.segment) == ("v", 0) and caught.value.offset is not None
    broken = next(piece for piece in disk.tree[0].pieces if piece.tag == tag(SEALED, 2))
    disk.extents[broken.ref.extent] = b""  # type: ignore[union-attr]
    with pytest.raises(CorruptionError) as caught:
        table.select_column("s")
    assert (caught.value.column, caught.value.segment) == ("s", 0)
    assert table.get(SEGMENT + 2999) == {"a": 9, "v": (SEGMENT + 2999) * 0.5, "s": f"s{(SEGMENT + 2999) % 7}"}
