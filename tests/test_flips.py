"""Damage that the checksums must find: every byte of a database and its logs, one at a time, and larger holes.

A damaged database shows the rows it had, or it raises an error that names the damage. Never another exception, never
other rows. One exception is documented: damage within the last flushed group of the log looks like a write that a
crash cut short, and then the rows before that group are right too. Where the rest of a log is cut off or zeroed,
nothing in it proves how long it was, so any state since the last checkpoint is right.

SNAPDB_FLIPS=1 takes every byte of an open database on the compiled backend, one in 4 of a closed one; otherwise it is
one in 16, and one in 64 on the other backends.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from snapdb import ColumnDef, Schema, SnapDB, tablefile
from snapdb.errors import CorruptionError, NotSupportedError, SnapDBError
from snapdb.storage import wal
from snapdb.storage.files import using
from snapdb.storage.wal import HEADER
from snapdb.testing.layers import RecordingLayer

PATH = "flipped.snapdb"
SCHEMA = Schema([ColumnDef("n", "i32"), ColumnDef("x", "f64", not_null=False), ColumnDef("s", "str")])
ENGINES = ("row", "columnar")
SHARDS = 8  # of one image's bytes, for pytest-xdist
ALL = bool(os.environ.get("SNAPDB_FLIPS"))
PAGE = 4096
LIVE = 32 << 10  # bytes that an image has at least

Columns = list[list[Any]]


class Image(NamedTuple):
    """The files of a database, and what it shows.

    ``states``: (bytes of the log that it needs, rows) of each commit since the last checkpoint, oldest first; ``log``:
    the name of the log file that these are in.
    """

    files: dict[str, bytes]
    states: list[tuple[int, Columns]]
    log: str

    @property
    def rows(self) -> Columns:
        """What it must show."""
        return self.states[-1][1]

    @property
    def last_group(self) -> int:
        """Where the last flushed group begins in the log."""
        return self.states[-2][0] if len(self.states) > 1 else 1 << 62


def columns(db: SnapDB) -> Columns:
    return [db.select_column(name) for name in SCHEMA.names]


def row(n: int, text: str = "") -> dict[str, Any]:
    return {"n": n, "x": None if n % 5 == 2 else (n * 37 % 1013) / 4, "s": text or f"row {n} {n * n}"}


def build(engine: str, clean: bool) -> Image:
    """A database with a piece of each kind: whole and changed segments or groups, a tail, two epochs of log, a batch
    outside the log, deleted rows.
    """
    layer = RecordingLayer(record=False)
    states: list[tuple[int, Columns]] = []
    with using(layer), pytest.MonkeyPatch.context() as patch:
        patch.setattr(wal, "_LEAST_STEP", PAGE)  # less zeros
        patch.setattr(tablefile, "BULK", 2000)
        db = SnapDB(PATH, SCHEMA, storage_type=engine, durability="full")
        log = db._file.store.log  # type: ignore[union-attr]

        def note() -> None:
            states.append((log.mark()[2], columns(db)))

        db.batch_insert([row(n) for n in range(1040)])
        db.checkpoint()
        for n in range(0, 1040, 90):
            db.update(n, {"s": f"changed {n}"})
            db.delete(n + 1)
        db.batch_insert([row(n) for n in range(1040, 1060)])
        db.checkpoint()
        note()
        db.insert(row(2000))
        note()
        db.batch_insert([row(n) for n in range(2001, 2081)])  # past the log
        note()
        db.update(5, {"x": -1.0, "s": "once more"})
        note()
        with db.transaction():
            db.insert(row(3000))
            db.delete(7)
            db.update(8, {"s": "in a transaction"})
        note()
        files = layer.contents()
        log_name = f"{PATH}-wal{db._file.store.wal.epoch & 1}"  # type: ignore[union-attr]
        live = db.stats()["live_bytes"]
        assert live >= LIVE, live
        db.close()
    if clean:
        return Image(layer.contents(), states[-1:], "")
    assert sorted(files) == [PATH, f"{PATH}-wal0", f"{PATH}-wal1"]
    return Image(files, states, log_name)


@functools.cache
def image(engine: str, clean: bool) -> Image:
    return build(engine, clean)


def outcome(image: Image, files: dict[str, bytes], allowed: list[Columns], thorough: bool) -> str:
    """Open the files and read everything: ``right``, ``older`` or ``error``. Fails for anything else."""
    with using(RecordingLayer.from_contents(files, record=False)):
        db = None
        try:
            db = SnapDB(PATH, read_only=not thorough)
            found = columns(db)
            if thorough:
                assert [[row[name] for _, row in db] for name in SCHEMA.names] == found
                db.fsck(full=True)
        except (CorruptionError, NotSupportedError) as error:
            assert str(error)
            return "error"
        finally:
            if db is not None:
                try:
                    db.close()
                except SnapDBError:
                    pass
    if found == image.rows:
        return "right"
    assert found in allowed, "other rows than it had"
    return "older"


def places(image: Image, shard: int, apart: int) -> Iterator[tuple[str, int]]:
    """The bytes of this shard, which are spread over the files."""
    for name, data in sorted(image.files.items()):
        yield from ((name, at) for at in range(shard * apart, len(data), SHARDS * apart))


def every(backend_name: str, clean: bool) -> int:
    """Each so-manieth byte is flipped."""
    if backend_name != "c" or os.environ.get("SNAPDB_SANITIZED"):
        return 64
    return (4 if clean else 1) if ALL else 16


def flipped(files: dict[str, bytes], name: str, at: int, bits: int) -> dict[str, bytes]:
    data = bytearray(files[name])
    data[at] ^= bits
    return {**files, name: data}  # type: ignore[dict-item]


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("clean", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_byte(engine: str, clean: bool, shard: int, backend_name: str, record_property: Any) -> None:
    whole = image(engine, clean)
    draw = random.Random(shard)
    seen = {"right": 0, "older": 0, "error": 0}
    for name, at in places(whole, shard, every(backend_name, clean)):
        bits = draw.randrange(1, 256)
        older = name == whole.log and at >= whole.last_group
        allowed = [whole.states[-2][1]] if older else []
        try:
            seen[outcome(whole, flipped(whole.files, name, at, bits), allowed, draw.random() < 0.06)] += 1
        except BaseException as error:
            raise AssertionError(f"byte {at} of {name} xor {bits:#x}: {type(error).__name__}: {error}") from error
    record_property("flips", sum(seen.values()))
    assert seen["right"] and seen["error"]
    assert not clean or not seen["older"]


def cut_or_zeroed(image: Image) -> Iterator[tuple[str, str, int, dict[str, bytes]]]:
    """(what was done, file, first byte that is not as it was, the files)."""
    for name, data in sorted(image.files.items()):
        for at in range(0, len(data), 512):
            yield f"cut at {at}", name, at, {**image.files, name: data[:at]}
        for at in range(0, len(data), PAGE):
            page = data[at : at + PAGE]
            if page.strip(b"\0"):
                hole = data[:at] + bytes(len(page)) + data[at + PAGE :]
                yield f"zeroed at {at}", name, at, {**image.files, name: hole}
            following = data[at + PAGE : at + 2 * PAGE]
            if len(following) == PAGE and following != page:
                for what, two in (("doubled", page + page), ("swapped", following + page)):
                    yield f"{what} at {at}", name, at, {**image.files, name: data[:at] + two + data[at + 2 * PAGE :]}
        yield "removed", name, 0, {other: bytes_ for other, bytes_ in image.files.items() if other != name}
        yield "longer", name, len(data), {**image.files, name: data + bytes(3 * PAGE + 7)}
        yield "longer garbage", name, len(data), {**image.files, name: data + b"\xa5" * (PAGE + 1)}


def without_the_rest(image: Image, at: int) -> list[Columns]:
    """What a log shows of which nothing is left from this byte on. A new log's header may be lost in a crash too."""
    return [rows for end, rows in image.states if end <= max(at, HEADER)]


@pytest.mark.parametrize("clean", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_holes_and_ends(engine: str, clean: bool, backend_name: str) -> None:
    whole = image(engine, clean)
    draw = random.Random(1)
    for number, (what, name, at, files) in enumerate(cut_or_zeroed(whole)):
        if backend_name != "c" and number % 4:
            continue
        if name == PATH and (what == "removed" or not files[PATH]):
            continue  # no database; test_a_log_without_its_database
        allowed = without_the_rest(whole, at) if name == whole.log and what not in ("removed", "cut at 0") else []
        try:
            outcome(whole, files, allowed, draw.random() < 0.5)
        except BaseException as error:
            raise AssertionError(f"{name} {what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_after_a_hole_prove_that_there_was_more(engine: str) -> None:
    """A frame in the middle of the log that is gone is an error: later ones say that it was on stable storage."""
    whole = image(engine, False)
    data = whole.files[whole.log]
    for (begin, _), (end, _) in zip(whole.states[:-2], whole.states[1:-1]):
        files = {**whole.files, whole.log: data[:begin] + bytes(end - begin) + data[end:]}
        assert outcome(whole, files, [], True) == "error"


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_a_log_without_its_database(content: Any) -> None:
    files = {name: data for name, data in image("row", False).files.items() if name != PATH}
    if content is not None:
        files[PATH] = content
    with using(RecordingLayer.from_contents(files, record=False)) as layer:
        with pytest.raises((SnapDBError, OSError)):
            SnapDB(PATH)
        with pytest.raises((SnapDBError, OSError)):
            SnapDB(PATH, SCHEMA)
        assert layer.contents() == files  # type: ignore[attr-defined]
