"""``repair``: files that are damaged one way each, handles that are open, crashes and failures in the middle of it."""

from __future__ import annotations

import errno
import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damaged
import pytest
from conftest import Files
from crash_workloads import WORKLOADS
from damaged import FOLDER, KINDS, PATH, PREPARED
from people import SCHEMA, people, person
from repair_oracle import judge, repaired
from snapshot_workloads import SNAPSHOTS

from snapdb import SnapDB, _ext, repairing
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    LockedError,
    NotSupportedError,
    ReadOnlyError,
    SnapDBError,
    SnapshotInUseError,
    StorageError,
    TransactionError,
    UniqueError,
    ValidationError,
    WrongKeyError,
)
from snapdb.remains import Ranges, bit_ranges
from snapdb.storage import lock
from snapdb.storage.files import using
from snapdb.storage.salvage import Wreck
from snapdb.storage.store import Options
from snapdb.testing.disk import Disk
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

STORED = [name for name, kind in KINDS.items() if kind.stored]


# -- one damage each ---------------------------------------------------------
def stored(name: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of one kind of damage as they are kept, and what is to come of them."""
    files = {}
    for end in ("", "-wal0", "-wal1"):
        path = FOLDER / f"{name}.snapdb{end}"
        if path.exists():
            files[PATH + end] = path.read_bytes()
    return files, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STORED)
def test_a_kept_file(name: str, backend_name: str) -> None:
    if backend_name == "python" and STORED.index(name) % 4:
        pytest.skip("one in four with the twins")
    files, told = stored(name)
    assert len(files[PATH]) <= 65536 and all(len(data) <= 8192 for path, data in files.items() if path != PATH)
    key = told.pop("key")
    found, after = damaged.outcome(files, None if key is None else bytes.fromhex(key))
    assert found == told
    if "error" in found["repair"]:
        assert after == files


@pytest.mark.parametrize("name", KINDS)
def test_the_files_can_be_made_again(name: str) -> None:
    """And what comes of them is what came of those that are kept."""
    made, files = damaged.seed(KINDS[name].seed), damaged.build(name)
    found, _ = damaged.outcome(files, made.key)
    if KINDS[name].stored:
        told = stored(name)[1]
        del told["key"]
        assert found == told
    assert files != made.files
    opened = found["opens"] and not found["fsck"]
    harmless = {"longer", "log-last-frame", "log-zeroed", "log-older-epoch", "log-header"}
    assert not opened or any(name.startswith(one) for one in harmless), "nobody has seen the damage"


@pytest.mark.parametrize(
    ("name", "has_pieces", "blocks"),
    [("closed", True, 1), ("filled", False, 2), ("packed", False, 2), ("beside", True, 2)],
)
def test_where_the_tails_of_the_seeds_are(name: str, has_pieces: bool, blocks: int) -> None:
    """In pieces, in the chunks, or in pieces beside chunks that have an older one."""
    made = damaged.seed(f"columnar {name}")
    kinds = [kind for _, kind, _, _ in made.pieces]
    assert (kinds.count(1), 2 in kinds, {3, 4} <= set(kinds)) == (3, has_pieces, True)
    rows = {struct.unpack_from("<I", made.files[PATH], start + 4)[0] for _, kind, start, _ in made.pieces if kind == 1}
    assert rows == {blocks * 1024}
    for at in made.bulk:
        assert struct.unpack_from("<I", made.files[PATH], at + 128 + 4)[0] == 2048


def test_every_file_is_of_a_kind() -> None:
    kept = {path.name.split(".")[0] for path in FOLDER.iterdir()}
    assert kept == set(STORED)
    assert len(STORED) >= 40


# -- a crash in the middle -----------------------------------------------------
@pytest.mark.parametrize("name", PREPARED)
def test_a_crash_leaves_the_old_file_or_the_new_one(name: str, record_property: Any) -> None:
    made, files = damaged.seed(KINDS[name].seed), damaged.build(name)
    layer = RecordingLayer.from_contents(files)
    with using(layer):
        wanted = SnapDB.repair_file(PATH)
    told = {part: wanted[part] for part in ("ok", "rows", "lost", "source", "snapshots")}
    disk, draw = Disk(files), random.Random(name)
    seen: dict[int, bool] = {}
    states = 0
    for op in layer.log:
        disk.step(op)
        for state in disk.states(2, draw):
            contents = dict(state.contents)
            states += 1
            place = hash(tuple(sorted((one, data) for one, data in contents.items() if ".tmp-" not in one)))
            if place not in seen:
                seen[place] = _is_new(made, files, contents, told)
    assert set(seen.values()) == {False, True}
    record_property("count: crash states of repairs", states)


def test_a_repair_that_renames_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose log could be taken for that of the old file."""
    from snapdb.storage import salvage
    from snapdb.testing.layers import RecordingFile

    sync = RecordingFile.sync
    with monkeypatch.context() as patch:
        patch.setattr(RecordingFile, "sync", lambda file: None if ".tmp-" in file.path else sync(file))
        with pytest.raises((AssertionError, SnapDBError)):
            test_a_crash_leaves_the_old_file_or_the_new_one("logs-swapped-row-open", lambda *_: None)
    monkeypatch.setattr(salvage.Wreck, "epoch", property(lambda wreck: max(one.epoch for one in wreck.blocks) - 4))
    with pytest.raises((AssertionError, SnapDBError)):
        test_a_crash_leaves_the_old_file_or_the_new_one("log-middle-frame-columnar-open", lambda *_: None)


def _is_new(made: damaged.Seed, files: dict[str, bytes], contents: dict[str, bytes], told: dict[str, Any]) -> bool:
    """Whether a crash has left the new file; else it must be the old one, from which the same comes as without it."""
    if contents[PATH] == files[PATH]:
        assert all(contents[name] == data for name, data in files.items())
        found = repaired(contents, made.key)
        assert {part: found.report[part] for part in told} == told
        return False
    found = repaired(contents, made.key)
    assert found.report["ok"] and not found.report["issues"]
    assert (found.report["rows"], found.report["snapshots"]) == (told["rows"], told["snapshots"])
    assert judge(made, files, found._replace(report={**found.report, **told})) == ""
    return True


@pytest.mark.parametrize("name", ["bulk_normal-row", "overlays-columnar", "automatic_normal-row", "killed_kept-row"])
def test_what_a_crash_leaves_is_no_damage(name: str, record_property: Any) -> None:
    """A salvage of it has all that opening has, and nothing is said to be lost."""
    workload = WORKLOADS.get(name) or SNAPSHOTS[name]
    disk, draw, states = Disk(), random.Random(name), 0
    with workload.limited():
        for op in workload.record().log:
            disk.step(op)
            for state in disk.states(1, draw):
                contents = dict(state.contents)
                if draw.random() < 0.02 and contents.get("crash.snapdb"):
                    _salvaged_alike(contents, "crash.snapdb")
                    states += 1
    assert states > 5
    record_property("count: crash states salvaged", states)


def _salvaged_alike(contents: dict[str, bytes], path: str) -> None:
    with using(RecordingLayer.from_contents(contents, record=False)), SnapDB(path) as db:
        rows, names = dict(db), {one["name"] for one in db.list_snapshots()}
    layer = RecordingLayer.from_contents(contents, record=False)
    with using(layer):
        options = Options(layer, _ext.backend(_ext.BACKEND).wal)
        claim = lock.acquire(layer, path, True, 0.0)
        wreck = Wreck(layer, path, claim.file, options.kernel, lambda static: None)
        report, new = repairing._rebuilt(options, path, wreck, 0)
        claim.release()
        new.release()
        with SnapDB(path) as db:
            assert dict(db) == rows and report["lost"] == []
            assert {one["name"] for one in db.list_snapshots()} >= names


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", PREPARED[:3])
def test_a_file_operation_fails(name: str, code: int) -> None:
    """Every one, once: the old file is as it was, or the new one is there; or it is not known which."""
    files = damaged.build(name)
    inner = RecordingLayer.from_contents(files)
    with using(inner):
        SnapDB.repair_file(PATH)
    outcomes = set()
    for number in range(1, len(inner.log) + 40):
        inner = RecordingLayer.from_contents(files, record=False)
        layer = FaultyLayer(inner, Plan(number, code))
        with using(layer):
            try:
                SnapDB.repair_file(PATH)
            except (SnapDBError, OSError) as error:
                outcomes.add(type(error).__name__)
            else:
                outcomes.add("done")
        after = inner.contents()
        assert not [one for one in after if ".tmp-" in one] or "unlink" in str(layer.plan), number
        assert repaired({one: data for one, data in after.items() if ".tmp-" not in one}).rows is not None
    assert outcomes >= {"StorageError", "done"}


# -- an open handle ------------------------------------------------------------
@pytest.fixture
def harmed(files: Files) -> Iterator[tuple[Files, SnapDB]]:
    """An open database with a snapshot, whose first piece was damaged behind its back."""
    db = files.open(SCHEMA, page_size=256)
    db.batch_insert(people(1500))
    db.snapshot("kept")
    db.update(1400, {"name": "later"})
    db.checkpoint()
    data = files.contents()["t.snapdb"]
    file: Any = db._file
    entry = next(entry for _, entry in file.store.items())
    at = entry.pieces[0].ref.extent + entry.pieces[0].ref.at + 100
    files.write("t.snapdb", bytes(byte ^ 0xFF for byte in data[at : at + 20]), at)
    yield files, db


def test_an_open_handle_goes_on(harmed: tuple[Files, SnapDB]) -> None:
    files, db = harmed
    get, view = db.get, iter(db)
    before = next(view)
    report = db.repair()
    assert report["issues"] and not report["ok"] and report["source"] == "newest"
    (rows,) = [one for one in report["lost"] if one["kind"] == "rows"][:1]
    assert rows["first"] == 0 and db.get(0) is None and rows["reason"]
    assert {one["name"] for one in report["lost"] if one["kind"] == "snapshot"} == {"kept"}
    assert len(db) == report["rows"] < 1500
    assert dict(db).keys().isdisjoint(range(rows["first"], rows["last"] + 1))
    with pytest.raises(ClosedError, match="repaired"):
        get(1499)
    assert before[0] == 0  # what was read stands
    assert db.insert(person(7000)) == 1500, "ids are given out from where they were"
    with pytest.raises(UniqueError):
        db.insert(person(7000))
    assert db.repair() == {
        "ok": True, "issues": [], "rows": len(db), "reclaimed": 0, "lost": [], "source": "newest", "snapshots": [],
    }  # fmt: skip
    db.snapshot("new")
    rows_now = dict(db)
    db.close()
    assert sorted(files.contents()) == ["t.snapdb"]
    with files.open() as again:
        assert dict(again) == rows_now and again.fsck()["ok"]


def test_what_is_logged_and_not_in_the_file_yet_is_kept(harmed: tuple[Files, SnapDB]) -> None:
    files, db = harmed
    idx = db.insert(person(8000))
    with db.transaction():
        db.update(1450, {"name": "in the log"})
        db.delete(1451)
    lost = db.repair()["lost"]
    assert not [one for one in lost if one["kind"] == "commits"]
    assert db.get(idx) == person(8000) and db.get(1451) is None
    row = db.get(1450)
    assert row is None or row["name"] == "in the log"


def test_a_log_that_is_damaged_is_folded_in(files: Files) -> None:
    """The table has what it had."""
    db = files.open(SCHEMA)
    db.batch_insert(people(20))
    db.checkpoint()
    db.update(3, {"name": "in the log"})
    file: Any = db._file
    name = next(name for name in files.contents() if name.endswith(f"-wal{file.store.wal.epoch & 1}"))
    files.write(name, b"\xff" * 20, 80)
    report = db.repair()
    assert [issue["kind"] for issue in report["issues"]] == ["log"]
    assert report["ok"] and report["lost"] == [] and report["rows"] == 20
    row = db.get(3)
    assert row is not None and row["name"] == "in the log" and db.fsck()["ok"]


def test_rows_that_were_lost_can_be_deleted_by_the_log(harmed: tuple[Files, SnapDB]) -> None:
    """What became of them is known then, and no update of the log brings one back."""
    files, db = harmed
    db.delete(0)
    db.update(1, {"name": "known in part"})
    lost = db.repair()["lost"]
    named = [one for one in lost if one["kind"] == "rows"]
    assert named[0]["first"] == 1
    assert 0 not in db and 1 not in db


def test_a_handle_refuses_where_it_must(harmed: tuple[Files, SnapDB]) -> None:
    files, db = harmed
    with db.transaction():
        with pytest.raises(TransactionError):
            db.repair()
    with db.open_snapshot("kept") as shown:
        with pytest.raises(SnapshotInUseError):
            db.repair()
        with pytest.raises(NotSupportedError):
            shown.repair()
    assert db.get(1499) == person(1499)
    db.close()
    with pytest.raises(ClosedError):
        db.repair()
    with files.open(read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.repair()
    with SnapDB(":memory:", SCHEMA) as memory, pytest.raises(NotSupportedError):
        memory.repair()


def test_where_there_is_no_room_the_handle_goes_on_with_the_old_file(harmed: tuple[Files, SnapDB]) -> None:
    files, db = harmed
    layer: Any = files.layer
    layer.space = sum(map(len, layer.contents().values())) + 4096
    with pytest.raises(StorageError):
        db.repair()
    layer.space = None
    assert len(db) == 1500
    assert sorted(files.contents())[:1] == ["t.snapdb"] and not any(".tmp-" in name for name in files.contents())
    assert db.repair()["rows"] == len(db)


def test_other_threads_meet_the_old_table_or_the_new_one(harmed: tuple[Files, SnapDB]) -> None:
    files, db = harmed
    stop, errors = threading.Event(), []

    def write() -> None:
        number = 10_000
        while not stop.is_set():
            try:
                db.insert(person(number))
            except ClosedError:
                pass
            except Exception as error:
                errors.append(error)
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        db.repair()
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert db.fsck()["ok"]


# -- by its path -----------------------------------------------------------------
def test_a_file_that_is_open_is_locked(any_files: Files) -> None:
    db = any_files.open(SCHEMA)
    db.batch_insert(people(10))
    with pytest.raises(LockedError):
        SnapDB.repair_file(any_files.path())
    db.snapshot("here")
    db.close()
    assert SnapDB.repair_file(any_files.path())["snapshots"] == ["here"]
    assert sorted(any_files.contents()) == ["t.snapdb"]


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SnapDB.repair_file(tmp_path / "none.snapdb")
    with pytest.raises(ValidationError):
        SnapDB.repair_file(":memory:")
    other = tmp_path / "text.txt"
    other.write_bytes(b"no database at all\n" * 2000)
    with pytest.raises(CorruptionError):
        SnapDB.repair_file(other)
    assert other.read_bytes() == b"no database at all\n" * 2000
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_the_key_is_asked_for() -> None:
    pytest.importorskip("cryptography")
    files = damaged.build("group-tag-row-closed-key")
    for wrong in (None, b"w" * 32, "a passphrase"):
        layer = RecordingLayer.from_contents(files)
        with using(layer), pytest.raises(WrongKeyError):
            SnapDB.repair_file(PATH, wrong)
        assert layer.contents() == files
    with using(RecordingLayer.from_contents(damaged.build("group-row-closed"))), pytest.raises(WrongKeyError):
        SnapDB.repair_file(PATH, damaged.KEY)


def test_the_log_of_another_database_stays() -> None:
    name = "log-foreign-row-open"
    files = damaged.build(name)
    found = repaired(files)
    foreign = [path for path in files if path != PATH and files[path] != damaged.seed("row open").files[path]]
    assert {path: found.files[path] for path in foreign} == {path: files[path] for path in foreign}


def test_a_reader_of_a_snapshot_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "x.snapdb"
    with SnapDB(path, SCHEMA) as db:
        db.batch_insert(people(4000))
        db.snapshot("read")
    with SnapDB(path, read_only=True, snapshot="read"), SnapDB(path) as db:
        data = bytearray(path.read_bytes())
        entry = next(entry for _, entry in db._file.store.items())  # type: ignore[union-attr]
        at = entry.pieces[0].ref.extent + 200  # type: ignore[union-attr]
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes(byte ^ 1 for byte in data[at : at + 8]))
        with pytest.raises(SnapshotInUseError):
            db.repair()
    assert SnapDB.repair_file(path)["lost"]


# -- extents that are encrypted ------------------------------------------------
SPARE = (0, 5, 6, 8, 44, 48, 72, 119, 120, 124)  # bytes of an extent's header that open nothing
NEEDED = (4, 16, 24, 32, 40, 56, 71)  # the key's salt, and what the tags stand for


@pytest.mark.parametrize("name", ["row closed key", "columnar closed key", "row open key", "columnar snapshots key"])
def test_the_header_of_an_encrypted_extent(name: str) -> None:
    """What its pieces need no part of is made anew; else they are lost, and named."""
    pytest.importorskip("cryptography")
    made = damaged.seed(name)
    data = made.files[PATH]
    places = sorted({_extent(data, start) for _, _, start, _ in made.pieces})
    for at in (places[0], places[-1]):
        for byte in (*SPARE, *NEEDED):
            harmed = bytearray(data)
            harmed[at + byte] ^= 0x5A
            files = {**made.files, PATH: bytes(harmed)}
            try:
                found = repaired(files, made.key)
            except CorruptionError as error:
                assert byte in NEEDED and "nothing of" in str(error)
                continue
            assert judge(made, files, found) == ""
            assert found.report["issues"], byte
            assert (found.rows == made.rows and not found.report["lost"]) or byte in NEEDED, byte


def _extent(data: bytes, at: int) -> int:
    """Where the extent begins that has this byte."""
    at = at // 4096 * 4096
    while data[at : at + 4] != b"SNEX":
        at -= 4096
    return at


# -- where there is nothing ------------------------------------------------------
def test_a_file_of_which_nothing_is_left_stays(any_files: Files) -> None:
    db = any_files.open(SCHEMA)
    db.batch_insert(people(5000))
    db.snapshot("s1")
    db.close()
    whole = any_files.contents()["t.snapdb"]
    any_files.write("t.snapdb", bytes(len(whole) - 0x5000), 0x5000)  # all but what it was made as
    before = any_files.contents()
    with pytest.raises(CorruptionError, match="nothing of .* can be kept.*bring back a backup"):
        SnapDB.repair_file(any_files.path())
    assert any_files.contents() == before


def test_an_open_handle_of_which_nothing_is_left_goes_on(files: Files) -> None:
    with files.open(SCHEMA) as db:
        db.batch_insert(people(20))
        db.checkpoint()
        for name in ("a", "b"):  # until no log leads to these rows
            db.snapshot(name)
            db.drop_snapshot(name)
            db.checkpoint()
        file: Any = db._file
        ref = next(entry for _, entry in file.store.items()).pieces[0].ref
        at, size = ref.extent + ref.at, 20
        found = files.contents()["t.snapdb"][at : at + size]
        files.write("t.snapdb", bytes(byte ^ 0xFF for byte in found), at)
        with pytest.raises(CorruptionError, match="nothing of .* can be kept"):
            db.repair()
        files.write("t.snapdb", found, at)
        if db.storage_type == "row":  # else it cannot be read again, and the handle is closed
            assert len(db) == 20 and db.get(3) == person(3) and db.fsck()["ok"]
    with files.open() as db:
        assert len(db) == 20 and db.get(3) == person(3) and db.fsck()["ok"]


def test_an_empty_table_is_no_damage(any_files: Files) -> None:
    any_files.open(SCHEMA).close()
    report = SnapDB.repair_file(any_files.path())
    assert (report["ok"], report["rows"], report["lost"]) == (True, 0, [])


def test_what_is_not_there_is_not_repaired(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no database there to repair"):
        SnapDB.repair_file(tmp_path / "none.snapdb")
    empty = tmp_path / "empty.snapdb"
    empty.touch()
    with pytest.raises(CorruptionError, match="is empty: there is nothing to repair"):
        SnapDB.repair_file(empty)
    assert list(tmp_path.iterdir()) == [empty] and empty.stat().st_size == 0


def test_an_error_at_opening_says_what_to_do(any_files: Files) -> None:
    db = any_files.open(SCHEMA)
    db.batch_insert(people(20))
    db.close()
    for at in (0x1000, 0x3000):
        any_files.write("t.snapdb", bytes(512), at)
    with pytest.raises(CorruptionError, match="copy the file first$") as caught:
        any_files.open()
    assert caught.value.hint and "repair_file" in caught.value.hint
    any_files.write("text.txt", b"no database at all\n" * 2000)
    with pytest.raises(CorruptionError, match="is not a SnapDB database; is this the right path[?]$"):
        any_files.open(name="text.txt")
    (issue,) = SnapDB.repair_file(any_files.path())["issues"]
    assert issue["message"].endswith("both superblocks of " + any_files.path() + " are damaged")


# -- sets of ids -------------------------------------------------------------------
def test_ranges_are_a_set() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        ranges, model = Ranges(), set()
        for _ in range(draw.randrange(30)):
            first = draw.randrange(60)
            last = first + draw.choice((0, 0, 1, 5, 20))
            what = draw.randrange(4)
            if what < 2:
                ranges.add(first, last, "why")
                model |= set(range(first, last + 1))
            elif what == 2:
                assert ranges.discard(first) is (first in model)
                model.discard(first)
            else:
                ranges.remove(first, last)
                model -= set(range(first, last + 1))
            assert bool(ranges) is bool(model)
            assert ranges.meets(first, last) is (not model.isdisjoint(range(first, last + 1)))
        found = [(a, b) for a, b, _ in ranges]
        assert {idx for a, b in found for idx in range(a, b + 1)} == model
        assert all(idx in ranges for idx in model) and 61 + 30 not in ranges
        assert all(b + 1 < c for (_, b), (c, _) in zip(found, found[1:])), "ranges that touch are one"
        bits = sum(1 << idx for idx in model)
        assert bit_ranges(bits) == found
