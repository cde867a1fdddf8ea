"""Somebody who can write the files of an encrypted database, knows the format and has no key: what is found out, and
what docs/encryption.md says is not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Optional

import pytest

pytest.importorskip("cryptography", reason="the extra 'encryption' is not installed")

import test_flips
from sealed_files import (
    SLOTS,
    STATIC,
    Extent,
    SealedFiles,
    frames_of,
    reseal_block,
    reseal_extent,
    reseal_log,
    reseal_static,
)
from test_crypto import RAW, Layout
from test_flips import PATH, Image, columns, row

from snapdb import SnapDB
from snapdb.errors import CorruptionError, NotSupportedError, SnapDBError, WrongKeyError
from snapdb.storage import crypto, fsck
from snapdb.storage.extents import Extents
from snapdb.storage.files import using
from snapdb.testing import RecordingLayer

ENGINES = ("row", "columnar")
SHARDS = 4
ALL = bool(os.environ.get("SNAPDB_FLIPS"))
LOG = f"{PATH}-wal"


def keyed(path: Any, *args: Any, **options: Any) -> SnapDB:
    return SnapDB(path, *args, **{"encryption_key": RAW, **options})


@pytest.fixture(autouse=True)
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "SCRYPT", (4, 8, 1))
    monkeypatch.setattr(test_flips, "SnapDB", keyed)


def build_small(engine: str) -> Image:
    """A few rows and commits, as small as can be."""
    layer = RecordingLayer(record=False)
    states: list[tuple[int, Any]] = []
    with using(layer):
        db = SnapDB(PATH, test_flips.SCHEMA, storage_type=engine, durability="full", encryption_key=RAW)
        log = db._file.store.log  # type: ignore[union-attr]
        db.batch_insert([row(n) for n in range(6)])
        db.checkpoint()
        db.update(1, {"s": "changed"})
        db.checkpoint()
        states.append((log.mark()[2], columns(db)))
        for change in (lambda: db.insert(row(7)), lambda: db.update(2, {"x": 0.5}), lambda: db.delete(3)):
            change()
            states.append((log.mark()[2], columns(db)))
        with db.transaction():
            db.insert(row(8))
            db.delete(0)
        states.append((log.mark()[2], columns(db)))
        files = layer.contents()
        name = f"{PATH}-wal{db._file.store.wal.epoch & 1}"  # type: ignore[union-attr]
        db._abandon()
    return Image(files, states, name)


@functools.cache
def image(engine: str, kind: str) -> Image:
    return build_small(engine) if kind == "small" else test_flips.build(engine, kind == "closed")


@functools.cache
def sealed(engine: str, kind: str) -> SealedFiles:
    return SealedFiles(image(engine, kind).files, PATH, RAW)


def outcome(files: dict[str, bytes], key: Any = RAW, read_only: bool = True) -> tuple[str, Any]:
    """What opening these and reading everything gives: ``rows`` and them, or the name of the error and its text."""
    with using(RecordingLayer.from_contents(files, record=False)):
        db = None
        try:
            db = SnapDB(PATH, encryption_key=key, read_only=read_only)
            found = columns(db)
            assert [[row[name] for _, row in db] for name in test_flips.SCHEMA.names] == found
            return "rows", found
        except SnapDBError as error:
            return type(error).__name__, str(error)
        finally:
            if db is not None:
                with contextlib.suppress(SnapDBError):
                    db.close()


def found_out(files: dict[str, bytes], kinds: tuple[str, ...] = ("CorruptionError",), key: Any = RAW) -> str:
    """It is an error of these kinds for readers and writers; the text."""
    text = ""
    for read_only in (True, False):
        kind, text = outcome(files, key, read_only)
        assert kind in kinds, (kind, text)
    return text


def changed(files: dict[str, bytes], name: str, at: int, data: bytes) -> dict[str, bytes]:
    old = files[name]
    return {**files, name: old[:at] + data + old[at + len(data) :]}


@pytest.mark.parametrize("kind", ["small", "open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_image(engine: str, kind: str) -> None:
    """What the tests change is there, and is right as it is."""
    whole, parts, clean = image(engine, kind), sealed(engine, kind), kind == "closed"
    assert outcome(whole.files) == outcome(whole.files, read_only=False) == ("rows", whole.rows)
    kinds = [extent.kind for extent in parts.extents.values()]
    assert {1, 2, 3} <= set(kinds) and parts.clean is clean
    assert clean or len(parts.frames) > 4


# -- flipped bytes ---------------------------------------------------------------
def places(parts: SealedFiles, shard: int, every: int) -> Iterator[tuple[str, int]]:
    every_one = [(name, at) for name, begin, end in parts.covered for at in range(begin, end)]
    yield from every_one[shard * every :: SHARDS * every]


def every(backend_name: str, kind: str) -> int:
    """Each so-manieth byte: all of the small files."""
    if backend_name != "c" or os.environ.get("SNAPDB_SANITIZED"):
        return 20 if kind == "small" else 400
    return 1 if kind == "small" else 4 if ALL else 100


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("image_kind", ["small", "open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_byte_under_a_tag(
    engine: str, image_kind: str, shard: int, backend_name: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """With checksums made anew, as far as that needs no key, and not looked at where they are sealed themselves."""
    monkeypatch.setattr(Extents, "_verify", lambda *_: None)
    whole, parts, clean = image(engine, image_kind), sealed(engine, image_kind), image_kind == "closed"
    draw = random.Random(shard)
    count = 0
    for name, at in places(parts, shard, every(backend_name, image_kind)):
        data = bytearray(whole.files[name])
        data[at] ^= 1 << draw.randrange(8)
        slot: Optional[int] = None
        if name == PATH and at < 0x4000:
            slot = SLOTS.index(at - at % 4096)
            reseal_block(data, slot)
        elif name == PATH:
            for extent in parts.extents.values():  # where it is in the header of one
                if extent.offset <= at < extent.offset + 124:
                    reseal_extent(data, extent.offset)
        else:
            block = parts.block
            reseal_log(data, block[80:96], parts.epoch, struct.unpack_from("<I", block, 96)[0])
        files = {**whole.files, name: bytes(data)}
        kind, said = outcome(files)
        where = f"byte {at} of {name}"
        if name == PATH and slot is None:
            if kind == "rows" and not clean and at in top_places(parts):
                assert said == whole.rows, where  # the superblock before answers, and the logs lead past this one
            else:
                assert kind == "CorruptionError" and "changed" in said, (where, kind, said)
        elif slot is None:
            # what is no frame any more is the end of the log: of its last group nothing says that there was more
            allowed = [whole.states[-2][1]] if at >= whole.last_group and at not in parts.payloads else []
            if at in link_places(parts):
                allowed.append(whole.rows)  # that was made anew
            assert kind == "CorruptionError" or (kind == "rows" and said in allowed), (where, kind, said)
        else:
            assert kind in ("rows", "CorruptionError"), (where, kind, said)
            assert kind != "rows" or said == whole.rows, where
            with using(RecordingLayer.from_contents(files, record=False)), contextlib.suppress(CorruptionError):
                with SnapDB(PATH, encryption_key=RAW, read_only=True) as db:
                    issues = [issue["message"] for issue in db.fsck()["issues"]]
                assert any(f"superblock {slot} was changed" in issue or "not verify" in issue for issue in issues)
        count += 1
    record_property("count: changed bytes of encrypted databases", count)
    assert count > 3


def top_places(parts: SealedFiles) -> set[int]:
    """The bytes of the root and of nodes."""
    above = [extent for extent in parts.extents.values() if extent.kind in (2, 3)]
    return {at for extent in above for at in range(extent.offset, extent.offset + extent.size)}


def link_places(parts: SealedFiles) -> frozenset[int]:
    """The bytes of the log that ``reseal_log`` writes anyway."""
    return frozenset(at for frame in parts.frames for at in range(frame.start + 4, frame.start + 8))


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", ["small", "open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_byte(engine: str, kind: str, shard: int, backend_name: str, record_property: Any) -> None:
    """As of a plain database: what is not under a tag changes no answer, and nothing is another error."""
    whole = image(engine, kind)
    draw = random.Random(shard)
    seen = {"right": 0, "older": 0, "error": 0}
    apart = (8 if ALL else 100) if backend_name == "c" else 400
    for name, data in sorted(whole.files.items()):
        for at in range(shard * apart, len(data), SHARDS * apart):
            older = name == whole.log and at >= whole.last_group
            files = test_flips.flipped(whole.files, name, at, draw.randrange(1, 256))
            allowed = [whole.states[-2][1]] if older else []
            try:
                seen[test_flips.outcome(whole, files, allowed, draw.random() < 0.06)] += 1
            except BaseException as error:
                if isinstance(error, WrongKeyError) and name == PATH and at < 0x3000:
                    seen["error"] += 1
                    continue
                raise AssertionError(f"byte {at} of {name}: {type(error).__name__}: {error}") from error
    record_property("count: changed bytes of encrypted databases", sum(seen.values()))
    assert seen["right"] and (seen["error"] or backend_name != "c")


# -- extents ------------------------------------------------------------------------
@functools.cache
def with_snapshots(engine: str) -> tuple[dict[str, bytes], SealedFiles]:
    """A closed database of many extents of one page."""
    with using(RecordingLayer(record=False)) as layer:
        with SnapDB(PATH, test_flips.SCHEMA, storage_type=engine, encryption_key=RAW) as db:
            for turn in range(4):
                db.batch_insert([row(n) for n in range(30)])
                db.snapshot(f"s{turn}")
        files: dict[str, bytes] = layer.contents()  # type: ignore[attr-defined]
    return files, SealedFiles(files, PATH, RAW)


def bytes_of(files: dict[str, bytes], extent: Extent) -> bytes:
    return files[PATH][extent.offset : extent.offset + extent.size]


def sound(files: dict[str, bytes]) -> tuple[str, str]:
    """The first error of opening these, reading all rows and all snapshots, and then of fsck."""
    with using(RecordingLayer.from_contents(files, record=False)):
        db = None
        try:
            db = SnapDB(PATH, encryption_key=RAW, read_only=True)
            columns(db)
            for each in db.list_snapshots():
                with db.open_snapshot(each["name"]) as shown:
                    columns(shown)
            issues = db.fsck()["issues"]
            return ("fsck", issues[0]["message"]) if issues else ("", "")
        except SnapDBError as error:
            return type(error).__name__, str(error)
        finally:
            if db is not None:
                with contextlib.suppress(SnapDBError):
                    db.close()


@pytest.mark.parametrize("first", [0, 56, 128], ids=["extents", "salts and payloads", "payloads"])
@pytest.mark.parametrize("engine", ENGINES)
def test_swapped(engine: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any two of one size, or one in the place of the other; with checksums that fit, too."""
    files, parts = with_snapshots(engine)
    assert sound(files) == ("", "")
    extents = [extent for extent in parts.extents.values() if extent.size == 4096]
    tried = 0
    for one in extents:
        for other in extents:
            if one.offset == other.offset:
                continue
            copied = changed(files, PATH, one.offset + first, bytes_of(files, other)[first:])
            swapped = changed(copied, PATH, other.offset + first, bytes_of(files, one)[first:])
            for bad in (copied, swapped):
                kind, said = sound(bad)
                assert kind and ("not verify" in said or "changed" in said), (one.kind, other.kind, kind, said)
                with monkeypatch.context() as patch:
                    patch.setattr(Extents, "_verify", lambda *_: None)
                    patch.setattr(fsck._Check, "_sum", lambda _, ref: ref.crc)
                    kind, said = sound(bad)
                # dead lists are read where something is written or checked
                assert kind == "CorruptionError" or (kind == "fsck" and 4 in (one.kind, other.kind)), said
                assert "was changed" in said or (first == 56 and "header of the extent" in said), said
                tried += 1
    assert tried >= 40


@pytest.mark.parametrize("engine", ENGINES)
def test_blanked(engine: str) -> None:
    files = image(engine, "closed").files
    for extent in sealed(engine, "closed").extents.values():
        found_out(changed(files, PATH, extent.offset, bytes(extent.size)))
        found_out(changed(files, PATH, extent.offset + 128, bytes(extent.size - 128)))


@pytest.mark.parametrize("engine", ENGINES)
def test_one_old_extent_put_back(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version of an entry where the present one is, header and all, and its checksum is not looked at."""
    layer = RecordingLayer(record=False)
    with using(layer):
        db = SnapDB(PATH, test_flips.SCHEMA, storage_type=engine, encryption_key=RAW)
        for n in range(30):
            db.insert(row(n))
        db.checkpoint()
        versions: list[tuple[dict[str, bytes], SealedFiles, Any]] = []
        for turn in range(6):
            db.update(3, {"s": f"turn {turn}"})
            db.checkpoint()
            files = layer.contents()
            versions.append((files, SealedFiles(files, PATH, RAW), columns(db)))
        db.close()
    tried = 0
    for files, now, rows in versions:
        assert outcome(files) == ("rows", rows)
        for older, past, _ in versions:
            if past is now:
                continue
            for extent in now.extents.values():
                for old in past.extents.values():
                    if (old.kind, old.key, old.size) != (extent.kind, extent.key, extent.size):
                        continue
                    if bytes_of(older, old) == bytes_of(files, extent):
                        continue
                    put_back = changed(files, PATH, extent.offset, bytes_of(older, old))
                    kind, said = outcome(put_back)
                    if kind == "rows" and extent.kind > 1:
                        assert said == rows  # the superblock before answers, and its logs lead past this one
                        continue
                    assert kind == "CorruptionError"
                    with monkeypatch.context() as patch:
                        patch.setattr(Extents, "_verify", lambda *_: None)
                        kind, said = outcome(put_back)
                    assert kind == "CorruptionError" and "was changed" in said
                    tried += 1
    assert tried > 5


def test_parts_of_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the same rows under the same key, byte for byte as long: no part of it fits."""
    layer = RecordingLayer(record=False)
    with using(layer):
        for path in (PATH, "other"):
            with SnapDB(path, test_flips.SCHEMA, encryption_key=RAW) as db:
                db.batch_insert([row(n) for n in range(30)])
    files, other = {PATH: layer.contents()[PATH]}, layer.contents()["other"]
    assert len(files[PATH]) == len(other)
    parts = SealedFiles(files, PATH, RAW)
    monkeypatch.setattr(Extents, "_verify", lambda *_: None)
    for at in range(0x4000, len(other), 4096):
        kind, said = outcome(changed(files, PATH, at, other[at : at + 4096]))
        reached = any(extent.offset <= at < extent.offset + extent.size for extent in parts.extents.values())
        assert kind == ("CorruptionError" if reached else "rows"), said
    for slots in ((0,), (1,), (0, 1)):
        mixed = files
        for slot in slots:
            mixed = changed(mixed, PATH, SLOTS[slot], other[SLOTS[slot] : SLOTS[slot] + 512])
        kind, said = outcome(mixed)
        assert kind == ("CorruptionError" if len(slots) == 2 else "rows"), said
    # the uuid is made to fit, and the checksum
    data = bytearray(changed(files, PATH, SLOTS[0], other[SLOTS[0] : SLOTS[0] + 512])[PATH])
    data[SLOTS[1] : SLOTS[1] + 512] = other[SLOTS[1] : SLOTS[1] + 512]
    for slot in (0, 1):
        data[SLOTS[slot] + 8 : SLOTS[slot] + 24] = files[PATH][16:32]
        reseal_block(data, slot)
    assert "superblocks" in found_out({PATH: bytes(data)})


# -- the header -----------------------------------------------------------------------
def with_static(files: dict[str, bytes], at: int, data: bytes) -> dict[str, bytes]:
    """Both copies of the static header changed and sealed again."""
    new = bytearray(files[PATH])
    for copy in STATIC:
        new[copy + at : copy + at + len(data)] = data
    reseal_static(new)
    return {**files, PATH: bytes(new)}


def made(key: Any, count: int = 30) -> dict[str, bytes]:
    with using(RecordingLayer(record=False)) as layer:
        with SnapDB(PATH, test_flips.SCHEMA, encryption_key=key) as db:
            db.batch_insert([row(n) for n in range(count)])
        contents: dict[str, bytes] = layer.contents()  # type: ignore[attr-defined]
    return contents


@pytest.mark.parametrize("key", [RAW, "a passphrase"], ids=["raw", "passphrase"])
def test_every_bit_of_the_keys(key: Any) -> None:
    """Cipher, derivation, cost, salt, uuid and the key slot: nothing opens, and nothing else than that is said."""
    files = made(key)
    assert outcome(files, key)[0] == "rows"
    for at in [*range(16, 32), 45, 46, *range(48, 80), *range(88, 152)]:
        for bit in range(8) if at < 52 else (at % 8,):
            data = bytes([files[PATH][at] ^ 1 << bit])
            if at == 48 and key != RAW and (data[0] > 14 or not data[0]):
                continue  # more memory than a test should take; test_crypto has the bounds
            found_out(with_static(files, at, data), ("WrongKeyError", "NotSupportedError"), key)
    for at in (152, 300):  # slots that are not used
        kind, _ = outcome(with_static(files, at, b"\1"), key)
        assert kind == "rows"


def test_a_passphrase_made_cheaper() -> None:
    files = made("a passphrase")
    assert files[PATH][48:51] == b"\4\x08\1"
    for cost in (b"\1\x08\1", b"\4\1\1", b"\3\x08\1", b"\1\1\1", b"\5\x08\1"):
        found_out(with_static(files, 48, cost), ("WrongKeyError",), "a passphrase")
    for cost in (b"\0\x08\1", b"\xff\x08\1", b"\x15\x08\1", b"\4\0\1", b"\4\x21\1", b"\4\x08\0", b"\x14\x20\1"):
        assert "scrypt" in found_out(with_static(files, 48, cost), ("NotSupportedError",), "a passphrase")
    # as if it were made with a raw key, of which there are many fewer guesses in a passphrase of 32 bytes
    found_out(with_static(files, 46, b"\2"), ("WrongKeyError",), "a passphrase")
    found_out(with_static(with_static(files, 46, b"\2"), 48, bytes(16)), ("WrongKeyError",), b"x" * 32)


def test_slots_of_another_database() -> None:
    """Under the same passphrase, and with all that the derivation needs: a backup has even the same salt."""
    with using(RecordingLayer(record=False)) as layer:
        with SnapDB(PATH, test_flips.SCHEMA, encryption_key="a passphrase") as db:
            db.batch_insert([row(n) for n in range(30)])
            db.backup("copy")
        files = {PATH: layer.contents()[PATH]}  # type: ignore[attr-defined]
        copy = layer.contents()["copy"]  # type: ignore[attr-defined]
    assert copy[48:80] == files[PATH][48:80] and copy[88:152] != files[PATH][88:152]
    assert Layout(copy[:4096], "a passphrase").data_key != Layout(files[PATH][:4096], "a passphrase").data_key
    found_out(with_static(files, 88, copy[88:152]), ("WrongKeyError",), "a passphrase")
    found_out(with_static(files, 44, copy[44:152]), ("WrongKeyError",), "a passphrase")
    # the whole header, uuid and all, opens, and then nothing below it is of that database
    found_out(with_static(files, 16, copy[16:152]), ("CorruptionError",), "a passphrase")
    found_out(with_static(files, 152, files[PATH][88:152]), ("rows",), "a passphrase")  # the same once more: no harm
    second = with_static(with_static(files, 152, files[PATH][88:152]), 88, bytes(64))
    found_out(second, ("WrongKeyError",), "a passphrase")  # in another slot it does not open


def test_a_database_made_plain() -> None:
    """By its header: where a key is given that is refused, and without one there is nothing that verifies."""
    files = made(RAW)
    plain = with_static(with_static(files, 45, b"\0\0"), 64, bytes(16))
    assert "is not encrypted" in found_out(plain, ("WrongKeyError",))
    assert "superblocks" in found_out(plain, key=None)
    data = bytearray(plain[PATH])
    for slot in (0, 1):
        data[SLOTS[slot] + 48 : SLOTS[slot] + 64] = data[SLOTS[slot] + 128 : SLOTS[slot] + 144] = bytes(16)
        reseal_block(data, slot)
    found_out({PATH: bytes(data)}, key=None)
    found_out({PATH: bytes(data)}, ("WrongKeyError",))


# -- superblocks ----------------------------------------------------------------------
@pytest.mark.parametrize("engine", ENGINES)
def test_superblocks(engine: str) -> None:
    """Edited and sealed again, one counts as one that does not verify, and fsck knows better."""
    whole = image(engine, "closed")
    for slot in (0, 1):
        for at, what in ((24, "<Q"), (32, "<Q"), (40, "<I"), (64, "<Q"), (104, "<Q"), (120, "<Q"), (200, "<Q")):
            data = bytearray(whole.files[PATH])
            value = struct.unpack_from(what, data, SLOTS[slot] + at)[0] + (4096 if at in (32, 104) else 1)
            struct.pack_into(what, data, SLOTS[slot] + at, value)
            reseal_block(data, slot)
            files = {**whole.files, PATH: bytes(data)}
            assert outcome(files) == ("rows", whole.rows)
            with using(RecordingLayer.from_contents(files, record=False)):
                with SnapDB(PATH, encryption_key=RAW, read_only=True) as db:
                    issues = db.fsck()["issues"]
            assert [(issue["kind"], issue["where"]) for issue in issues] == [("superblock", SLOTS[slot])]
            assert "was changed" in issues[0]["message"] or "does not verify" in issues[0]["message"]
    both = bytearray(whole.files[PATH])
    for slot in (0, 1):
        both[SLOTS[slot] + 64] ^= 1
        reseal_block(both, slot)
    assert "superblocks" in found_out({**whole.files, PATH: bytes(both)})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_superblock_of_another_time(engine: str) -> None:
    """The slots of a later state over the file of an earlier one, and the other way round."""
    layer = RecordingLayer(record=False)
    with using(layer):
        db = SnapDB(PATH, test_flips.SCHEMA, storage_type=engine, encryption_key=RAW)
        states = []
        for _ in range(3):
            db.batch_insert([row(n) for n in range(30)])
            db.close()
            db = SnapDB(PATH, encryption_key=RAW)
            states.append((layer.contents()[PATH], columns(db)))
        db.close()
    for file, _ in states:
        for other, _ in states:
            data = file[:0x1000] + other[0x1000:0x1200] + file[0x1200:0x3000] + other[0x3000:0x3200] + file[0x3200:]
            kind, said = outcome({PATH: data})
            # superblocks of an older state are a part of putting all of that back: as long as nothing was written over
            # what they reach it is there
            assert kind == "CorruptionError" or said in [rows for _, rows in states]


# -- the log ----------------------------------------------------------------------------
def resealed(parts: SealedFiles, files: dict[str, bytes], log: bytes) -> dict[str, bytes]:
    data = bytearray(log)
    reseal_log(data, parts.block[80:96], parts.epoch, struct.unpack_from("<I", parts.block, 96)[0])
    return {**files, parts.log: bytes(data)}


@pytest.mark.parametrize("engine", ENGINES)
def test_frames(engine: str, backend_name: str) -> None:
    """Exchanged, repeated, left out, with another kind or LSN, all checksums and links made anew."""
    whole, parts = image(engine, "open"), sealed(engine, "open")
    files, log = whole.files, whole.files[parts.log]
    assert resealed(parts, files, log) == files
    frames = list(frames_of(log))
    pieces = [log[start : end + (-(end - start) & 7)] for start, end in frames]
    head, rest = log[:64], bytes(4096)

    def joined(order: list[bytes], lsns: bool) -> dict[str, bytes]:
        first = struct.unpack_from("<Q", pieces[0], 16)[0]
        new = []
        for at, piece in enumerate(order):
            data = bytearray(piece)
            if lsns:
                shift = first + at - struct.unpack_from("<Q", data, 16)[0]
                for place in (16, 24):
                    struct.pack_into("<Q", data, place, struct.unpack_from("<Q", data, place)[0] + shift)
            struct.pack_into("<Q", data, 32, 0)
            new.append(bytes(data))
        return resealed(parts, files, head + b"".join(new) + rest)

    whole_ones = [at for at, piece in enumerate(pieces) if piece[13] == 3]
    tried = 0
    for one in whole_ones:
        for other in whole_ones:
            if one < other:
                order = list(pieces)
                order[one], order[other] = order[other], order[one]
                assert "was changed" in found_out(joined(order, True))
                tried += 1
    for at in whole_ones[:-1]:
        assert "was changed" in found_out(joined(pieces[: at + 1] + pieces[at:], True))
        assert "was changed" in found_out(joined(pieces[:at] + pieces[at + 1 :], True))
        other = bytearray(pieces[at])
        other[12] = 7 if other[12] != 7 else 1
        assert "was changed" in found_out(joined([*pieces[:at], bytes(other), *pieces[at + 1 :]], True))
        tried += 3
    assert tried > 5


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_of_another_epoch(engine: str) -> None:
    """A change that was made once before, made again: its frame from an older log in the place of a new one."""
    layer = RecordingLayer(record=False)
    with using(layer):
        db = SnapDB(PATH, test_flips.SCHEMA, storage_type=engine, encryption_key=RAW, durability="full")
        db.insert(row(1))
        db.checkpoint()
        db.update(0, {"s": "first"})
        old = layer.contents()
        db.checkpoint()
        db.update(0, {"s": "later"})
        new = layer.contents()
        db._abandon()
    before, after = (SealedFiles(files, PATH, RAW) for files in (old, new))
    (first,), (later,) = before.frames, after.frames
    assert first.end - first.start == later.end - later.start
    log = bytearray(new[after.log])
    log[later.start : later.end] = old[before.log][first.start : first.end]
    assert outcome(resealed(after, new, bytes(log))) == ("rows", [[1], [9.25], ["first"]])  # no frame of this epoch
    struct.pack_into("<QQ", log, later.start + 16, later.lsn, later.lsn)
    assert "was changed" in found_out(resealed(after, new, bytes(log)))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_found_out(engine: str) -> None:
    """As the documentation says: the end of the log, and the newest superblock; a whole older set of files."""
    whole, parts = image(engine, "open"), sealed(engine, "open")
    last = parts.frames[-1]
    cut = {**whole.files, parts.log: whole.files[parts.log][: last.start]}
    kind, rows = outcome(cut)
    assert kind == "rows" and rows == whole.states[-2][1]
    slot = [at for at in SLOTS if whole.files[PATH][at : at + 512] == parts.block][0]
    assert outcome(changed(whole.files, PATH, slot, bytes(512))) == ("rows", whole.rows)  # the logs lead past it


# -- wrong keys ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_keys_read_nothing(engine: str, kind: str) -> None:
    """One error before anything behind the first 16 KiB was looked at."""
    files = image(engine, kind).files
    for key in (b"\0" * 32, RAW[::-1], "guess", None, RAW[:31]):
        with using(RecordingLayer.from_contents(files)) as layer:
            with pytest.raises(WrongKeyError):
                SnapDB(PATH, encryption_key=key)
            assert layer.contents() == files  # type: ignore[attr-defined]
        garbage = {name: data[:0x1000] + os.urandom(len(data) - 0x1000) for name, data in files.items()}
        garbage[PATH] = garbage[PATH][:0x2000] + files[PATH][0x2000:0x3000] + garbage[PATH][0x3000:]
        with using(RecordingLayer.from_contents(garbage, record=False)), pytest.raises(WrongKeyError):
            SnapDB(PATH, encryption_key=key)


def test_the_checks_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tag is not looked at, what is put back is taken."""
    layer = RecordingLayer(record=False)
    with using(layer):
        db = SnapDB(PATH, test_flips.SCHEMA, encryption_key=RAW)
        db.insert(row(1))
        db.checkpoint()
        files, first = layer.contents(), SealedFiles(layer.contents(), PATH, RAW)
        db.close()
    extent = next(extent for extent in first.extents.values() if extent.kind == 1)
    other = bytes_of(files, extent)
    data = other[:128] + bytes([other[128] ^ 1]) + other[129:]
    files = changed(files, PATH, extent.offset, data)
    monkeypatch.setattr(Extents, "_verify", lambda *_: None)
    assert outcome(files)[0] == "CorruptionError"
    monkeypatch.setattr(crypto.Sealer, "open", lambda self, at, data, tag: _unchecked(self, at, data, tag))
    assert "was changed" not in outcome(files)[1]


def _unchecked(sealer: Any, at: int, data: bytes, tag: bytes) -> bytes:
    """GCM without its tag: the counter mode below it, where two tries give the key stream."""
    zero: bytes = sealer.seal(at, bytes(len(data)))[0]
    return bytes(a ^ b for a, b in zip(zero, data))


def test_crc_is_no_secret() -> None:
    """The helpers make what the database makes: else the tests above would find their mistakes instead."""
    files = made(RAW)
    data = bytearray(files[PATH])
    reseal_static(data)
    reseal_block(data, 0)
    reseal_block(data, 1)
    assert bytes(data) == files[PATH] and zlib.crc32(data[:4028]) == struct.unpack_from("<I", data, 4028)[0]
    with pytest.raises((WrongKeyError, NotSupportedError)):
        raise WrongKeyError("the errors are what is said")
