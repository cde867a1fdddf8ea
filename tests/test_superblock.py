"""The first 16 KiB of a file: static header, superblocks, holder of the lock."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.errors import CorruptionError, NotSupportedError
from snapdb.storage import superblock as sb
from snapdb.storage.superblock import StaticHeader, Superblock
from snapdb.testing.layers import RecordingFile, RecordingLayer

UUID = bytes(range(16))
HEADER = StaticHeader(UUID, sequence=7)
BLOCK = Superblock(
    1, True, UUID, 41, 0x5000, 1000, 0xDEADBEEF, 12345, 6, bytes(range(100, 116)), 0xFEEDF00D, 0x9000, 0xB000, 1 << 50
)


def make(*pages: tuple[int, bytes], size: int = sb.PREAMBLE) -> RecordingFile:
    layer = RecordingLayer()
    file = layer.open("/x", "x")
    file.truncate(size)
    for at, data in pages:
        file.pwrite(data, at)
    return file


def seal(data: bytes, at: int) -> bytes:
    return data[:at] + struct.pack("<I", zlib.crc32(data[:at])) + data[at + 4 :]


def static(**changes: Any) -> bytes:
    return HEADER._replace(**changes).encode()


# -- bytes -----------------------------------------------------------------
def test_static_header_bytes() -> None:
    data = StaticHeader(
        UUID, 1, 2, 4096, 3, 4, 5, 1, 1, 2, b"s" * 16, b"t" * 16, 9, b"k" * 256
    ).encode()  # fmt: skip
    assert len(data) == 4096
    assert data[:8] == b"\x89SNAP\r\n\x1a"
    assert struct.unpack_from("<HHI", data, 8) == (1, 2, 4096)
    assert data[16:32] == UUID
    assert struct.unpack_from("<III", data, 32) == (3, 4, 5)
    assert data[44:48] == bytes((1, 1, 2, 0))
    assert data[48:64] == b"s" * 16 and data[64:80] == b"t" * 16
    assert struct.unpack_from("<Q", data, 80) == (9,)
    assert data[88:344] == b"k" * 256 and not any(data[344:4028])
    assert struct.unpack_from("<I", data, 4028) == (zlib.crc32(data[:4028]),)
    assert not any(data[4032:])


def test_superblock_bytes() -> None:
    data = BLOCK.encode()
    assert len(data) == 512
    assert data[:8] == b"SNSB\x01\x00\x01\x01"
    assert data[8:24] == UUID
    assert struct.unpack_from("<QQII", data, 24) == (41, 0x5000, 1000, 0xDEADBEEF)
    assert not any(data[48:64])
    assert struct.unpack_from("<QQ", data, 64) == (12345, 6)
    assert data[80:96] == bytes(range(100, 116))
    assert struct.unpack_from("<IIQQQ", data, 96) == (0xFEEDF00D, 0, 0x9000, 0xB000, 1 << 50)
    assert not any(data[128:508])
    assert BLOCK._replace(tag=b"t" * 16).encode()[48:64] == b"t" * 16
    assert struct.unpack_from("<I", data, 508) == (zlib.crc32(data[:508]),)
    assert Superblock.decode(BLOCK._replace(clean=False, slot=0).encode()) == BLOCK._replace(clean=False, slot=0)


U32, U64, B16 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16)


@given(B16, U32, U32, U64, B16)
def test_static_header_round_trip(uuid: bytes, compatible: int, read_only: int, sequence: int, salt: bytes) -> None:
    header = StaticHeader(uuid, compatible=compatible, read_only=read_only, sequence=sequence, salt=salt)
    assert StaticHeader.decode(header.encode()) == header
    assert header.must_not_write == bool(read_only)


COUNT = st.integers(0, 1 << 60)  # of what is counted on from: more is refused


@pytest.mark.parametrize("field", ["generation", "lsn", "epoch", "time"])
def test_a_count_that_no_database_reaches_is_damage(field: str) -> None:
    block = Superblock(0, True, bytes(16), 1, 0x4000, 99, 0, 1, 1, bytes(16), 0, 0x5000, 0x6000, 1)
    assert Superblock.decode(block._replace(**{field: 1 << 60}).encode()) is not None
    assert Superblock.decode(block._replace(**{field: (1 << 60) + 1}).encode()) is None


@given(st.integers(0, 1), st.booleans(), B16, st.tuples(COUNT, U32, COUNT, COUNT, U32, COUNT))
def test_superblock_round_trip(slot: int, clean: bool, uuid: bytes, numbers: tuple[int, ...]) -> None:
    generation, crc, lsn, epoch, frame, time = numbers
    block = Superblock(
        slot, clean, uuid, generation, 0x4000, 99, crc, lsn, epoch, uuid[::-1], frame, 0x5000, 0x6000, time, uuid[::-1]
    )  # fmt: skip
    assert Superblock.decode(block.encode()) == block


# -- damage ----------------------------------------------------------------
def test_every_flipped_byte_of_a_static_header_is_seen() -> None:
    data = static()
    for place in range(4096):
        other = bytearray(data)
        other[place] ^= 1 << place % 8
        if place < 4032:
            with pytest.raises(CorruptionError):
                StaticHeader.decode(bytes(other))
        else:  # who holds the lock is outside of the checksum
            assert StaticHeader.decode(bytes(other)) == HEADER


def test_every_flipped_byte_of_a_superblock_is_seen() -> None:
    data = BLOCK.encode()
    for place in range(512):
        other = bytearray(data)
        other[place] ^= 1 << place % 8
        assert Superblock.decode(bytes(other)) is None
    for size in range(512):
        assert Superblock.decode(data[:size]) is None


@given(st.lists(st.tuples(st.integers(0, 4027), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_resealed_static_header_is_refused_or_read(changes: list[tuple[int, int]]) -> None:
    data = bytearray(static())
    for place, value in changes:
        data[place % 360 if value & 1 else place] = value
    try:
        header = StaticHeader.decode(seal(bytes(data), 4028))
    except (CorruptionError, NotSupportedError):
        return
    assert (header.major, header.page, header.cipher, header.incompatible) in ((1, 4096, 0, 0), (0, 4096, 0, 0))


@given(st.lists(st.tuples(st.integers(0, 507), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_resealed_superblock_is_refused_or_plausible(changes: list[tuple[int, int]]) -> None:
    data = bytearray(BLOCK.encode())
    for place, value in changes:
        data[place % 128 if value & 1 else place] = value
    block = Superblock.decode(seal(bytes(data), 508))
    if block is not None:
        assert 0x4000 <= block.root_at < block.root_at + block.root_bytes < block.high_water <= block.file_length
        assert block.slot in (0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"root_at": 0x3000},
        {"root_at": 0x5001},
        {"root_at": 0x9000},
        {"root_bytes": 1 << 30, "high_water": 1 << 40, "file_length": 1 << 40},
        {"root_bytes": 0x4000},
        {"high_water": 0xC000},
        {"high_water": 0x9001},
        {"file_length": 0xB001},
        {"high_water": 1 << 63, "file_length": 1 << 63},
    ],
)
def test_a_superblock_that_cannot_be_is_none(changes: dict[str, int]) -> None:
    assert Superblock.decode(BLOCK._replace(**changes).encode()) is None


# -- files -----------------------------------------------------------------
def test_read_static_takes_the_copy_that_verifies_with_the_greater_sequence() -> None:
    file = make()
    sb.write_static(file, HEADER)
    assert sb.read_static(file, "/x") == HEADER
    file.pwrite(static(sequence=8), sb.STATIC[1])
    assert sb.read_static(file, "/x").sequence == 8
    file.pwrite(b"?", sb.STATIC[1] + 100)
    assert sb.read_static(file, "/x").sequence == 7
    file.pwrite(b"?", sb.STATIC[0])  # its magic
    with pytest.raises(CorruptionError, match="both copies of the static header of /x are damaged") as caught:
        sb.read_static(file, "/x")
    assert (caught.value.path, caught.value.offset) == ("/x", 0)
    file.pwrite(static(), sb.STATIC[1])
    assert sb.read_static(file, "/x") == HEADER


@pytest.mark.parametrize("data", [b"", b"\x89", b"SQLite format 3\0", bytes(20000), b"\x89SNAP\n\x1a\x00" * 3000])
def test_a_foreign_file_is_no_database(data: bytes) -> None:
    file = make((0, data), size=0)
    with pytest.raises(CorruptionError, match="/x is not a SnapDB database"):
        sb.read_static(file, "/x")
    assert sb.read_slots(file) == []
    assert sb.read_holder(file) is None


def test_a_file_cut_short_is_damaged() -> None:
    whole = make()
    sb.write_static(whole, HEADER)
    data = whole.pread(sb.PREAMBLE, 0)
    for size in (8, 12, 100, 4095, 4096, 8192, 0x2010, 0x3000, 0x3FFF):
        with pytest.raises(CorruptionError, match="damaged|ends within"):
            sb.read_static(make((0, data[:size]), size=0), "/x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"major": 2, "minor": 3}, r"format 2\.3, this version of SnapDB reads up to 1; a newer SnapDB reads it"),
        ({"incompatible": 0x10}, "incompatible feature bits 0x10"),
        ({"cipher": 1, "derivation": 1}, "is encrypted"),
        ({"cipher": 1, "derivation": 2}, "is encrypted"),
        ({"cipher": 1}, "cipher 1 and key derivation 0"),
        ({"cipher": 1, "derivation": 3}, "cipher 1 and key derivation 3"),
        ({"cipher": 2, "derivation": 1}, "cipher 2 and key derivation 1"),
        ({"derivation": 1}, "cipher 0 and key derivation 1"),
        ({"checksum": 2}, "checksum 2"),
        ({"page": 8192}, "pages of 8192"),
    ],
)
def test_what_this_version_cannot_read(changes: dict[str, int], words: str) -> None:
    file = make()
    sb.write_static(file, HEADER._replace(**changes))
    with pytest.raises(NotSupportedError, match=words):
        sb.read_static(file, "/x")


@pytest.mark.parametrize("derivation", [1, 2])
def test_an_encrypted_database_is_for_those_who_can_open_it(derivation: int) -> None:
    file = make()
    header = HEADER._replace(cipher=1, derivation=derivation)
    sb.write_static(file, header)
    assert sb.read_static(file, "/x", sealed=True) == header
    assert StaticHeader.decode(header.encode(), sealed=True) == header
    sb.write_static(file, header._replace(cipher=2))
    with pytest.raises(NotSupportedError, match="cipher 2"):
        sb.read_static(file, "/x", sealed=True)


def test_a_newer_version_is_named_though_its_checksum_is_elsewhere() -> None:
    page = bytearray(static(major=3))
    page[4028:4032] = b"else"
    with pytest.raises(NotSupportedError, match=r"format 3\.0"):
        sb.read_static(make((0, bytes(page)), (0x2000, bytes(page))), "/x")


def test_unknown_compatible_and_read_only_bits_are_read() -> None:
    file = make()
    sb.write_static(file, HEADER._replace(compatible=1, read_only=2))
    assert sb.read_static(file, "/x").must_not_write
    sb.write_static(file, HEADER._replace(compatible=1))
    assert not sb.read_static(file, "/x").must_not_write


def test_slots_are_read_newest_first_from_their_own_places() -> None:
    file = make()
    assert sb.read_slots(file) == []
    old, new = BLOCK._replace(slot=0, generation=40), BLOCK
    sb.write_slot(file, old)
    assert sb.read_slots(file) == [old]
    sb.write_slot(file, new)
    assert sb.read_slots(file) == [new, old]
    assert sb.read_slots(file, UUID) == [new, old]
    assert sb.read_slots(file, bytes(16)) == []
    file.pwrite(new.encode(), sb.SLOTS[0])  # a write that went to the wrong place
    assert sb.read_slots(file) == [new]
    file.pwrite(b"?", sb.SLOTS[1] + 33)
    assert sb.read_slots(file) == []


@pytest.mark.parametrize("at", [48, 63, 128, 143])
def test_a_plain_superblock_has_no_tag_and_no_mac(at: int) -> None:
    file = make()
    data = bytearray(BLOCK.encode())
    data[at] = 1
    file.pwrite(seal(bytes(data), 508), sb.SLOTS[1])
    assert sb.read_slots(file) == [] and sb.changed_slots(file, UUID) == [1]
    assert sb.changed_slots(file, bytes(16)) == []
    sb.write_slot(file, BLOCK)
    assert sb.read_slots(file) == [BLOCK] and sb.changed_slots(file, UUID) == []


def test_the_holder_of_the_lock() -> None:
    file = make()
    sb.write_static(file, HEADER)
    assert sb.read_holder(file) is None
    for pid in (1, 4194304, 2**32 - 1):
        sb.write_holder(file, pid)
        assert sb.read_holder(file) == pid
        assert sb.read_static(file, "/x") == HEADER
    sb.write_holder(file, 77)
    assert file.pread(8, 4032) == b"pid 77\n\0"
    sb.write_holder(file, None)
    assert sb.read_holder(file) is None
    for text in (b"pid", b"pid -4", b"pid x", b"\xff" * 64, b"pid 0", b"pid " + b"9" * 60, b"pid 1 2"):
        file.pwrite(text.ljust(64, b"\0"), 4032)
        assert sb.read_holder(file) is None


# -- another key -------------------------------------------------------------
def with_copies(one: StaticHeader, other: StaticHeader) -> RecordingFile:
    file = make(*((at, header.encode()[:4032]) for header, at in zip((one, other), sb.STATIC)))
    sb.write_holder(file, 77)
    return file


@pytest.mark.parametrize("newer", [0, 1, None])
def test_the_copy_in_force_is_written_last(newer: Optional[int]) -> None:
    """At every moment one of the two headers is in force; who has the lock is still said."""
    copies = [HEADER, HEADER]
    if newer is not None:
        copies[newer] = HEADER._replace(sequence=HEADER.sequence + 5)
    file = with_copies(*copies)
    next_one = HEADER._replace(sequence=HEADER.sequence + 6, salt=b"n" * 16)
    sb.replace_static(file, next_one)
    assert [StaticHeader.decode(file.pread(4096, at), sealed=True) for at in sb.STATIC] == [next_one, next_one]
    assert sb.read_holder(file) == 77


@pytest.mark.parametrize("newer", [0, 1])
def test_copies_that_differ_are_made_equal(newer: int) -> None:
    later = HEADER._replace(sequence=HEADER.sequence + 5, salt=b"n" * 16)
    file = with_copies(*((later, HEADER) if newer == 0 else (HEADER, later)))
    assert sb.read_static(file, "/x", sealed=True) == later
    sb.equalize(file)
    assert file.pread(4032, 0) == file.pread(4032, 0x2000) == later.encode()[:4032] and sb.read_holder(file) == 77
    before = file.pread(sb.PREAMBLE, 0)
    sb.equalize(file)
    assert file.pread(sb.PREAMBLE, 0) == before
    file.pwrite(b"torn", sb.STATIC[1 - newer] + 100)
    sb.equalize(file)
    assert file.pread(sb.PREAMBLE, 0) == before
