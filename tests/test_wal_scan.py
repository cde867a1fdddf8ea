"""What of a damaged log is found again; and the checksum, which equals zlib's."""

from __future__ import annotations

import random
import struct
import zlib
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_frames import (
    BACKENDS,
    EPOCH,
    FIRST,
    FRAME,
    LAST,
    LINK,
    LSN,
    OTHER,
    SALT,
    START,
    chain,
    crc_of,
    make,
    scan,
    seal,
)

from snapdb import _ext


def test_equals_zlib(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    data = random.Random(1).randbytes(70_000)
    for size in [*range(70), 255, 1000, 4096, 16383, 16384, 16385, 65537]:
        for start in (0, 1, 3):
            piece = memoryview(data)[start : start + size]
            for value in (0, 1, 0xFFFFFFFF, 0x12345678):
                assert crc32(piece, value) == zlib.crc32(piece, value)
    assert crc32(b"") == 0 and crc32(b"123456789") == 0xCBF43926


def test_continues(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    data = bytes(range(256)) * 200
    for cut in (0, 1, 15, 16, 17, 20_000, len(data)):
        assert crc32(data[cut:], crc32(data[:cut])) == zlib.crc32(data)
    assert crc32(b"abc", value=-1) == zlib.crc32(b"abc", -1)
    assert crc32(b"abc", 2**40 + 5) == zlib.crc32(b"abc", 5)


def test_takes_any_contiguous_buffer(kernels: Any) -> None:
    crc32 = kernels.wal.crc32
    for data in (
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        array("I", [1, 2, 3]),
        memoryview(bytes(8)).cast("B", (2, 4)),
    ):
        assert crc32(data) == zlib.crc32(data)
    for data in ("abc", 5, None, [1]):
        with pytest.raises(TypeError):
            crc32(data)
    with pytest.raises(TypeError):
        crc32(b"", 1.5)
    with pytest.raises(BufferError):
        crc32(memoryview(b"abcdef")[::2])


# -- frames found again ----------------------------------------------------------------------------------------------

PAYLOADS = [b"", b"a", b"12345678", b"x" * 21, b"", bytes(16)]


def test_scan_round_trip(kernels: Any) -> None:
    data = chain(PAYLOADS)
    for form in (data, bytearray(data), memoryview(data), array("Q", data), data + bytes(1000), data + bytes(7)):
        frames, end, crc = scan(kernels.wal, form)
        assert [bytes(memoryview(data)[frame[4] : frame[5]]) for frame in frames] == PAYLOADS
        assert [frame[:4] for frame in frames] == [(lsn, lsn, 1, 3) for lsn in range(LSN + 1, LSN + 7)]
        assert end == len(data) and crc == crc_of(data[frames[-1][4] - FRAME :])
    for wrong in ((OTHER, EPOCH, LSN, LINK), (SALT, 8, LSN, LINK), (SALT, EPOCH, 99, LINK), (SALT, EPOCH, LSN, 0)):
        assert kernels.wal.scan(data, *wrong) == ([], START, wrong[3])
    for short in (b"", bytes(10), bytes(START), bytes(START + 39), bytes(500)):
        assert scan(kernels.wal, short) == ([], START, LINK)


def test_scan_of_every_truncation(kernels: Any) -> None:
    data = chain(PAYLOADS)
    whole = scan(kernels.wal, data)[0]
    for size in range(len(data)):
        frames, end, _ = scan(kernels.wal, data[:size])
        assert frames == [frame for frame in whole if frame[5] <= size]
        assert end == (frames[-1][5] + 7 & ~7 if frames else START)


def test_scan_of_every_flip(kernels: Any) -> None:
    data = chain(PAYLOADS)
    whole = scan(kernels.wal, data)[0]
    for place in range(START, len(data)):
        hit = next(number for number, frame in enumerate(whole) if place < (frame[5] + 7 & ~7))
        padding = place >= whole[hit][5]
        for bits in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= bits
            assert scan(kernels.wal, damaged)[0] == (whole if padding else whole[:hit])


def test_scan_of_old_frames_behind_new_ones(kernels: Any) -> None:
    old = chain([b"o" * 8] * 10)
    new = chain([b"n" * 8] * 4)
    frames, end, _ = scan(kernels.wal, new + old[len(new) :])
    assert len(frames) == 4 and end == len(new)
    other = bytes(START) + make(LINK, 1, 3, LSN + 1, LSN + 1, b"", salt=OTHER)
    assert scan(kernels.wal, other)[0] == []


def test_scan_checks_what_is_sealed(kernels: Any) -> None:
    def header(**changed: int) -> bytes:
        names = ("link", "size", "kind", "flags", "header", "lsn", "first", "durable")
        values = dict(zip(names, (LINK, 8, 1, 3, FRAME, LSN + 1, LSN + 1, 0)), **changed)
        return bytes(START) + seal(struct.pack("<IIBBHQQQ", *(values[name] for name in names)), b"12345678")

    wal = kernels.wal
    assert len(scan(wal, header())[0]) == 1
    assert scan(wal, header(flags=1, kind=255, durable=2**64 - 1))[0] == [(101, 101, 255, 1, 104, 112)]
    for changed in (
        {"link": 0}, {"size": 0}, {"size": 9}, {"size": 2**32 - 1}, {"size": (16 << 20) + 1}, {"kind": 0}, {"flags": 4},
        {"flags": 7}, {"flags": 255}, {"header": 0}, {"header": 48}, {"header": FRAME + 256}, {"lsn": LSN},
        {"lsn": LSN + 2}, {"first": LSN}, {"first": LSN + 2}, {"flags": 2},
        {"flags": 0, "first": LSN}, {"flags": 2, "first": 0},
    ):  # fmt: skip
        assert scan(wal, header(**changed)) == ([], START, LINK), changed


def test_scan_checks_transactions(kernels: Any) -> None:
    first = make(LINK, 1, FIRST, LSN + 1, LSN + 1)
    for running, expected in ((LSN + 1, 2), (LSN, 1), (LSN + 2, 1), (0, 1)):
        second = make(crc_of(first), 7, LAST, LSN + 2, running)
        assert len(scan(kernels.wal, bytes(START) + first + second)[0]) == expected


def test_stray(kernels: Any) -> None:
    data = bytearray(chain(PAYLOADS, durable=LSN + 3))
    frames = scan(kernels.wal, data)[0]
    starts = [frame[4] - FRAME for frame in frames]

    def stray(damaged: Any, number: int) -> Any:
        return kernels.wal.stray(damaged, starts[number], SALT, EPOCH, frames[number][0])

    # LSN 101 ... 106, all with durable LSN 103; one whose durable LSN is over its own proves nothing by itself
    damaged = data[:]
    damaged[starts[1] + 20] ^= 1
    assert stray(damaged, 1) == (LSN + 3, LSN + 3, starts[2])
    assert stray(bytes(damaged), 1) == stray(memoryview(damaged), 1) == stray(damaged + bytes(9), 1)
    assert stray(damaged, 2) == (LSN + 4, LSN + 3, starts[3])
    assert stray(damaged, 3) is None  # LSN 104 is not known to be durable
    damaged[starts[2] + 40] ^= 1
    assert stray(damaged, 1) == (LSN + 4, LSN + 3, starts[3])
    assert kernels.wal.stray(damaged, starts[1], OTHER, EPOCH, LSN + 2) is None
    assert kernels.wal.stray(damaged, starts[1], SALT, EPOCH + 1, LSN + 2) is None
    for start in (-100, -9, -8, -1, 0, 63, starts[2], starts[3] - 1):
        assert kernels.wal.stray(damaged, start, SALT, EPOCH, LSN + 2) == (LSN + 4, LSN + 3, starts[3])
    assert kernels.wal.stray(damaged, starts[3], SALT, EPOCH, LSN + 2) == (LSN + 5, LSN + 3, starts[4])
    for start in (starts[5], len(damaged), len(damaged) + 8, 2**62):
        assert kernels.wal.stray(damaged, start, SALT, EPOCH, LSN + 2) is None


def test_stray_among_other_bytes(kernels: Any) -> None:
    frame = make(5, 2, 3, 50, 50, b"payload", durable=40)
    noise = random.Random(4).randbytes(8192)
    marks = b"\x28\0" * 4096
    for around in (bytes(8192), noise, marks, b"\x28" * 8192):
        data = around + frame + around
        assert kernels.wal.stray(data, 64, SALT, EPOCH, 40) == (50, 40, 8192)
        assert kernels.wal.stray(data, 64, SALT, EPOCH, 41) is None
        assert kernels.wal.stray(data, 8192, SALT, EPOCH, 40) is None
        assert kernels.wal.stray(around[:-4] + frame + around, 64, SALT, EPOCH, 40) is None, "not at a multiple of 8"
        assert kernels.wal.stray(around + frame[:-2], 64, SALT, EPOCH, 40) is None
        assert kernels.wal.stray(around + frame[:-1], 64, SALT, EPOCH, 40) == (50, 40, 8192)
    assert kernels.wal.stray(b"", 0, SALT, EPOCH, 0) is None


def test_stray_wants_a_proof(kernels: Any) -> None:
    for lsn, durable, proves in ((51, 50, True), (51, 51, True), (60, 49, False), (50, 50, False), (51, 52, False)):
        data = bytes(128) + make(0, 1, 3, lsn, lsn, b"", durable)
        assert kernels.wal.stray(data, 64, SALT, EPOCH, 50) == ((lsn, durable, 128) if proves else None)


def test_a_frame_over_the_largest_is_none(kernels: Any) -> None:
    for more, count in ((0, 1), (1, 0)):
        data = bytes(START) + make(LINK, 1, 3, LSN + 1, LSN + 1, bytes(kernels.wal.LARGEST + more), LSN + 1)
        assert len(scan(kernels.wal, data)[0]) == count
        assert (kernels.wal.stray(data, 0, SALT, EPOCH, LSN) is None) == (not count)


def test_stray_gives_up_on_bytes_made_to_be_slow(kernels: Any) -> None:
    # headers that each claim all that follows: without a bound this takes the square of the size
    size = 1 << 19
    heads = b"".join(
        struct.pack("<IIIBBHQQQ", 0, 0, size - 40 - at, 1, 3, FRAME, 50, 50, 40) for at in range(0, size - 40, 40)
    )
    end = make(0, 1, 3, 50, 50, b"", 40)
    assert kernels.wal.stray(heads.ljust(size, b"\0") + end, 0, SALT, EPOCH, 40) is None
    assert kernels.wal.stray(bytes(size) + end, 0, SALT, EPOCH, 40) == (50, 40, size)


# -- both implementations give the same --------------------------------------------------------------------------------

fields = st.tuples(
    st.sampled_from([1, 2, 7, 255, 0]),
    st.sampled_from([3, 3, 1, 2, 0, 4]),
    st.sampled_from([FRAME, FRAME, FRAME, FRAME, FRAME, 0, FRAME + 256]),
    st.sampled_from([1, 1, 1, 1, 0, 2, 2**64 - 1]),  # step of the LSN
    st.sampled_from(["own", "own", "running", "running", "other"]),
    st.booleans(),  # whether the link is surely right
    st.integers(0, 120),  # durable LSN
    st.binary(max_size=20),
    st.integers(-60, 400),  # a byte that is changed, where it is 0 or more
)


@given(st.lists(fields, max_size=8), st.integers(0, 500), st.integers(95, 110))
def test_scan_and_stray_are_the_same(specs: list[Any], start: int, lsn: int) -> None:
    data, number, link, running = bytearray(START), LSN, LINK, 0
    for kind, flags, header, step, which, linked, durable, payload, change in specs:
        number = (number + step) % 2**64
        running = {"own": number, "running": running, "other": 5}[which]
        before = link if linked or payload[:1] > b"\x10" else 0
        head = struct.pack("<IIBBHQQQ", before, len(payload), kind, flags, header, number, running, durable)
        frame = bytearray(seal(head, payload))
        link = crc_of(frame)
        if 0 <= change < len(frame):
            frame[change] ^= 1 << (change & 7)
        data += frame
    answers = []
    for name in BACKENDS:
        wal = _ext.backend(name).wal
        answers.append((scan(wal, data), wal.stray(data, start, SALT, EPOCH, lsn)))
    frames, end, _ = answers[0][0]
    assert [frame[0] for frame in frames] == list(range(LSN + 1, LSN + 1 + len(frames)))
    assert end == (frames[-1][5] + 7 & ~7 if frames else START) <= len(data)
    assert answers[0] == answers[-1]
