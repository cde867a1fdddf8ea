"""A table in a file, through SnapDB: making and opening it, what is refused, closing, several handles, values, large
batches, views that are held, backup, fsck and figures. Crashes and I/O errors have tests of their own.
"""

from __future__ import annotations

import datetime as dt
import errno
import math
import os
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Files
from model import Model, bits
from people import PLAIN, SCHEMA, people, person

from snapdb import ColumnDef, Schema, SnapDB, errors, tablefile
from snapdb.storage.files import using
from snapdb.testing.disk import Disk
from snapdb.testing.layers import RecordingLayer

NAME = "t.snapdb"
UTC = dt.timezone.utc


def filled(files: Files, count: int = 40, **options: Any) -> tuple[SnapDB, Model]:
    """A file with deleted and updated rows, and its model. Not checkpointed."""
    db, model = files.open(SCHEMA, **options), Model(SCHEMA)
    for it in (db, model):
        it.batch_insert(people(count))
        it.insert(person(count))
        it.delete(3)
        it.update(2, {"name": "ü" * 50, "score": -0.5, "age": None})
        it.delete_where([("id", "between", (1010, 1012))])
        it.batch_update([("id", "gt", 1000 + count - 5)], {"flag": None})
    return db, model


def same(got: Any, expected: Any) -> bool:
    """Whether every value is the same: repr tells 0.0 from -0.0 and 1 from True, takes NaN for NaN, and is quick."""
    return repr(got) == repr(expected)


def without_holder(data: bytes) -> bytes:
    """A file without the note of who holds it, which is for messages and outside every checksum."""
    return data[:4032] + data[4096:]


def check(db: SnapDB, model: Model, full: bool = True) -> None:
    """The database holds what the model says, under the same ids, and is sound."""
    assert same(list(db), model.items())
    assert len(db) == len(model.rows)
    assert db.stats()["deleted_rows"] == model.positions - len(model.rows)
    report = db.fsck(full)
    assert report["ok"], report
    assert report["rows"] == len(model.rows)


# -- making and opening -----------------------------------------------------------
def test_what_was_written_is_there_after_reopening(any_files: Files) -> None:
    db, model = filled(any_files, 2600)
    check(db, model)
    db.close()
    assert list(any_files.contents()) == [NAME]  # no log, nothing temporary
    db = any_files.open()
    check(db, model)
    assert db.find(name="name 7") == [row for row in model.rows.values() if row["name"] == "name 7"]
    assert db.aggregate("age", "max") == model.aggregate("age", "max")
    assert db.insert(person(9000)) == model.insert(person(9000))  # the next id, not one of a deleted row
    db = any_files.kill(db)
    check(db, model)


def test_an_existing_file_says_how_it_was_made(files: Files) -> None:
    hints = {"dict_columns": ["name"], "for_columns": ["age"], "delta_columns": ["id"]}
    db = files.open(SCHEMA, page_size=512, **hints)
    db.batch_insert(people(3000))
    encodings = {name: figures["encoding"] for name, figures in db.stats()["columns"].items()}
    db.close()
    for options in ({}, {"page_size": 4096}, {"schema": SCHEMA}, {"storage_type": files.engine}):
        db = files.open(**options)
        assert (db.storage_type, db.page_size, db.schema) == (files.engine, 512, SCHEMA)
        assert db.is_columnar() == (files.engine == "columnar")
        assert {name: figures["encoding"] for name, figures in db.stats()["columns"].items()} == encodings
        assert os.fspath(db.path) == NAME
        db.close()
    db = files.open()
    db.batch_insert({**person(i), "name": f"name {i % 4}"} for i in range(5000, 15_000))  # the hints are in force
    assert db.stats()["columns"]["name"]["encoding"] == encodings["name"]


def test_a_new_file_is_stored_by_row(tmp_path: Path) -> None:
    with SnapDB(tmp_path / "new", PLAIN) as db:
        assert db.storage_type == "row"
    with SnapDB(tmp_path / "new", storage_type="row") as db:
        assert (len(db), db.page_size) == (0, 4096)


@pytest.mark.parametrize("options", [{}, {"storage_type": "row"}, {"schema": PLAIN, "read_only": True}])
def test_no_file_and_nothing_to_make_one(any_files: Files, options: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"no database there") as caught:
        any_files.open(**options)
    assert caught.value.filename == any_files.path()
    assert any_files.contents() == {}


def test_no_folder(disk_files: Files) -> None:
    for schema in (None, PLAIN):
        with pytest.raises(OSError) as caught:
            disk_files.open(schema, name=os.path.join("no", "such", "folder"))
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError):
        SnapDB(disk_files.folder)
    with pytest.raises(OSError):
        SnapDB(disk_files.folder, PLAIN)
    assert disk_files.contents() == {}


def test_an_empty_file_is_a_new_database(any_files: Files) -> None:
    any_files.write(NAME, b"")
    with pytest.raises(FileNotFoundError):
        any_files.open()
    db = any_files.open(PLAIN)
    db.insert({"k": 1})
    db.close()
    assert any_files.open().get(0) == {"k": 1, "v": None, "s": None}


def test_an_empty_file_beside_a_log_is_damage(any_files: Files) -> None:
    any_files.write(NAME, b"")
    any_files.write(NAME + "-wal1", b"")
    before = any_files.contents()
    for schema in (None, PLAIN):
        with pytest.raises(errors.CorruptionError):
            any_files.open(schema)
    assert any_files.contents() == before


def test_a_log_without_its_database_is_not_overwritten(any_files: Files) -> None:
    db = any_files.open(PLAIN)
    db.insert({"k": 1})
    db._abandon()
    left = any_files.contents()
    for name, data in left.items():
        if name != NAME:
            any_files.write("other" + name[len(NAME) :], data)
    before = any_files.contents()
    with pytest.raises((OSError, errors.CorruptionError), match="other-wal"):
        any_files.open(PLAIN, name="other")
    assert any_files.contents() == before


def test_a_short_file_is_damage(files: Files) -> None:
    db, _ = filled(files, 100)
    db.close()
    whole = files.contents()[NAME]
    sizes = [1, 7, 8, 100, 4095, 4096, 8192, 12288, 16383, 16384, 20480, len(whole) // 2, len(whole) - 4096]
    for size in sizes:
        files.write(NAME, whole[:size])
        for schema in (None, SCHEMA):
            with pytest.raises(errors.CorruptionError) as caught:
                files.open(schema)
            assert caught.value.path == NAME
        assert files.contents() == {NAME: whole[:size]}
    files.write(NAME, whole)
    assert len(files.open()) == 97


@pytest.mark.parametrize(
    "data", [b"hello\n", bytes(70_000), b"SQLite format 3\0" + bytes(8176), os.urandom(20_000)],
    ids=["text", "zeros", "sqlite", "noise"],
)  # fmt: skip
def test_a_file_of_another_kind(any_files: Files, data: bytes) -> None:
    any_files.write(NAME, data)
    for schema in (None, PLAIN):
        with pytest.raises(errors.CorruptionError, match="not a SnapDB database|t.snapdb"):
            any_files.open(schema)
    assert any_files.contents() == {NAME: data}


def test_a_schema_that_differs(files: Files) -> None:
    columns = list(PLAIN.columns)
    filled_plain = files.open(PLAIN)
    filled_plain.insert({"k": 1})
    filled_plain.close()
    before = files.contents()[NAME]
    for other, told in (
        ([ColumnDef("key", "i32"), *columns[1:]], "'key'"),
        ([ColumnDef("k", "i64"), *columns[1:]], "i64"),
        ([ColumnDef("k", "i32", unique=True), *columns[1:]], "unique"),
        ([ColumnDef("k", "i32", primary_key=True), *columns[1:]], "primary_key"),
        ([columns[0], ColumnDef("v", "f64"), columns[2]], "'v'"),
        ([columns[1], columns[0], columns[2]], "'k'"),
        (columns[:2], "3 columns, given 2"),
        ([*columns, ColumnDef("more", "u8")], "3 columns, given 4"),
    ):
        with pytest.raises(errors.SchemaMismatchError, match=told) as caught:
            files.open(Schema(other))
        assert isinstance(caught.value, ValueError)
        assert NAME in str(caught.value)
    engine = "row" if files.engine == "columnar" else "columnar"
    with pytest.raises(errors.SchemaMismatchError, match=engine):
        files.open(storage_type=engine)
    assert list(files.contents()) == [NAME]
    assert without_holder(files.contents()[NAME]) == without_holder(before)
    assert len(files.open(PLAIN)) == 1  # nothing holds the file


@pytest.mark.parametrize(
    "options",
    [
        {"schema": "no schema"}, {"storage_type": "rows"}, {"page_size": 16}, {"page_size": "row"},
        {"dict_columns": ["nope"]}, {"for_columns": "k"}, {"durability": "much"}, {"timeout": -1},
        {"timeout": math.nan}, {"timeout": None}, {"encryption_key": ""}, {"metrics": object()},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_cannot_be_made_makes_no_file(any_files: Files, options: dict[str, Any]) -> None:
    if any_files.engine == "columnar" and options.get("page_size") == 16:
        pytest.skip("columns have no pages")
    with pytest.raises((ValueError, TypeError, KeyError, errors.NotSupportedError)):
        any_files.open(**{"schema": PLAIN, "storage_type": any_files.engine, **options})
    assert any_files.contents() == {}


@pytest.mark.parametrize("path", [b"bytes", 5, None, "", "a\0b"])
def test_a_path_that_is_none(path: Any) -> None:
    with pytest.raises((errors.ValidationError, TypeError)):
        SnapDB(path, PLAIN)


@pytest.mark.parametrize(
    "name", ["plain", "with.dots.and.more", "a b", "ünï—日本", ".hidden", "x-wal0.db", "-dash", "x" * 180]
)
def test_names(disk_files: Files, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(disk_files.folder)
    monkeypatch.chdir(folder)
    for path in (name, folder / name, str(folder / name)):
        with SnapDB(path, PLAIN, storage_type=disk_files.engine) as db:
            assert os.fspath(db.path) == os.fspath(path)
            db.insert({"k": 1})
            assert sorted(os.listdir(folder)) == sorted([name, name + "-wal0", name + "-wal1"])
        assert os.listdir(folder) == [name]
    with SnapDB(name) as db:
        assert len(db) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_leads_to_the_same_database(disk_files: Files) -> None:
    db = disk_files.open(PLAIN)
    os.mkdir(disk_files.path("elsewhere"))
    os.symlink(disk_files.path(), disk_files.path("elsewhere/link"))
    db.insert({"k": 1})
    with pytest.raises(errors.LockedError):
        disk_files.open(name="elsewhere/link")
    db = disk_files.kill(db, "elsewhere/link")  # its log is found beside the file, not beside the link
    assert len(db) == 1
    assert os.listdir(disk_files.path("elsewhere")) == ["link"]


def test_without_maps_it_is_the_same(any_files: Files) -> None:
    db, model = filled(any_files, 2600, mmap=False)
    check(db, model)
    db.close()
    for mmap in (False, True):
        db = any_files.open(mmap=mmap)
        check(db, model)
        for it in (db, model):
            it.insert(person(8000 + mmap))
            it.update(100, {"score": 1.25 + mmap})
        db.checkpoint()
        check(db, model)
        db.close()


def test_a_layer_without_maps_locks_and_threads(engine: str, backend_name: str) -> None:
    layer = RecordingLayer(record=False, maps=False)
    layer.threads = layer.locks = False
    with using(layer):
        files = Files(engine, "", layer)
        db, model = filled(files, 1500)
        db.flush()
        db = files.kill(db)
        check(db, model)
        files.close()


# -- one writer, many readers --------------------------------------------------------
def test_one_writer(any_files: Files) -> None:
    db = any_files.open(PLAIN)
    for options in ({}, {"read_only": True}, {"timeout": 0.05}):
        started = time.monotonic()
        with pytest.raises(errors.LockedError, match="already open|locked") as caught:
            any_files.open(**options)
        assert isinstance(caught.value, RuntimeError)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.pid == os.getpid()
        assert str(os.getpid()) in str(caught.value)
        assert time.monotonic() - started >= options.get("timeout", 0)
    db.insert({"k": 1})
    db.close()
    assert len(any_files.open()) == 1


def test_waiting_for_the_lock(any_files: Files) -> None:
    db = any_files.open(PLAIN)
    db.insert({"k": 1})
    closer = threading.Timer(0.15, db.close)
    closer.start()
    try:
        assert len(any_files.open(timeout=30)) == 1
    finally:
        closer.join()


def test_readers_share(any_files: Files) -> None:
    db, model = filled(any_files)
    db.close()
    readers = [any_files.open(read_only=True) for _ in range(3)]
    for reader in readers:
        check(reader, model)
    with pytest.raises(errors.LockedError):
        any_files.open()
    for reader in readers:
        reader.close()
    any_files.open()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of descriptors")
def test_a_failed_open_leaves_nothing_behind(disk_files: Files) -> None:
    db, model = filled(disk_files)
    db._abandon()
    db = disk_files.open()
    db.close()
    whole = disk_files.contents()[NAME]
    before = descriptors()
    with open("/proc/self/maps") as file:
        maps = file.read().count(NAME)
    for damage in (b"", whole[:5000], bytes(len(whole)), whole[: len(whole) - 4096]):
        disk_files.write(NAME, damage)
        for options in ({}, {"read_only": True}):
            with pytest.raises((errors.CorruptionError, FileNotFoundError)):
                disk_files.open(**options)
    disk_files.write(NAME, whole)
    with pytest.raises(errors.SchemaMismatchError):
        disk_files.open(PLAIN)
    assert descriptors() == before
    with open("/proc/self/maps") as file:
        assert file.read().count(NAME) == maps
    check(disk_files.open(), model)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of descriptors")
def test_opening_often_leaks_nothing(disk_files: Files) -> None:
    disk_files.open(PLAIN).close()
    before = descriptors()
    for i in range(20):
        with SnapDB(disk_files.path()) as db:
            db.insert({"k": i})
            assert len(db.select()) == i + 1
        with SnapDB(disk_files.path(), read_only=True) as db:
            assert len(db.select()) == i + 1
    assert descriptors() == before


# -- read only ---------------------------------------------------------------------------
WRITES: dict[str, Callable[[SnapDB], Any]] = {
    "insert": lambda db: db.insert(person(5000)),
    "insert nothing good": lambda db: db.insert({}),
    "batch_insert": lambda db: db.batch_insert([person(5000)]),
    "batch_insert of none": lambda db: db.batch_insert([]),
    "insert_columns": lambda db: db.insert_columns({name: [value] for name, value in person(5000).items()}),
    "insert_columns of none": lambda db: db.insert_columns({name: [] for name in person(0)}),
    "update": lambda db: db.update(0, {"age": 1}),
    "update of nothing": lambda db: db.update(0, {}),
    "update of no row": lambda db: db.update(10**6, {"age": 1}),
    "delete": lambda db: db.delete(0),
    "delete of no row": lambda db: db.delete(10**6),
    "upsert": lambda db: db.upsert(person(0)),
    "batch_update": lambda db: db.batch_update([("id", "gt", 0)], {"age": 1}),
    "batch_update that matches nothing": lambda db: db.batch_update([("id", "lt", 0)], {"age": 1}),
    "batch_update by callables": lambda db: db.batch_update(lambda row: True, lambda row: {"age": 2}),
    "delete_where": lambda db: db.delete_where([("id", "gt", 0)]),
    "delete_where that matches nothing": lambda db: db.delete_where([("id", "lt", 0)]),
    "compact": lambda db: db.compact(),
    "checkpoint": lambda db: db.checkpoint(),
    "transaction": lambda db: db.transaction().__enter__(),
}


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_reader_changes_nothing(any_files: Files, left: str) -> None:
    """Every write is refused, and the log of a killed writer is replayed in memory only."""
    db, model = filled(any_files, 1500)
    if left == "killed":
        db.checkpoint()
        for it in (db, model):
            it.insert(person(2000))
            it.delete(20)
        db._abandon()
    else:
        db.close()
    before = any_files.contents()
    assert (len(before) > 1) == (left == "killed")
    for options in ({}, {"mmap": False}, {"schema": SCHEMA}):
        with any_files.open(read_only=True, **options) as db:
            check(db, model)
            assert db.stats()["file_bytes"] == len(before[NAME])
            for name, write in WRITES.items():
                with pytest.raises(errors.ReadOnlyError, match="read_only=True"):
                    write(db)
                assert len(db) == len(model.rows), name
            db.flush()  # everything acknowledged is there already
            check(db, model)
        assert any_files.contents() == before
    db = any_files.open()
    check(db, model)
    db.close()
    check(any_files.open(read_only=True), model)


def test_a_reader_of_a_file_that_cannot_be_written(disk_files: Files) -> None:
    db, model = filled(disk_files)
    db.close()
    os.chmod(disk_files.path(), 0o444)
    check(disk_files.open(read_only=True), model)


def test_nothing_is_made_for_a_table_in_memory_to_read() -> None:
    with pytest.raises(errors.NotSupportedError):
        SnapDB(":memory:", PLAIN, read_only=True)


# -- closing -------------------------------------------------------------------------------
def test_a_closed_handle_says_so(files: Files, tmp_path: Path) -> None:
    db, model = filled(files)
    db.close()
    db.close()
    assert "closed" in repr(db)
    reads: dict[str, Callable[[SnapDB], Any]] = {
        "get": lambda db: db.get(0),
        "get_raw": lambda db: db.get_raw(0),
        "getitem": lambda db: db[0],
        "in": lambda db: 0 in db,
        "len": len,
        "iter": lambda db: list(db),
        "iter_raw": lambda db: list(db.iter_raw()),
        "lookup": lambda db: db.lookup("id", 1),
        "find": lambda db: db.find(id=1),
        "range_find": lambda db: db.range_find("id"),
        "query": lambda db: list(db.query(lambda row: True)),
        "select": lambda db: db.select(),
        "select_where": lambda db: db.select_where([]),
        "count_where": lambda db: db.count_where([]),
        "aggregate": lambda db: db.aggregate("id"),
        "group_by": lambda db: db.group_by("age", "id"),
        "select_column": lambda db: db.select_column("id"),
        "to_numpy": lambda db: db.to_numpy("id"),
        "column_buffer": lambda db: db.column_buffer("id"),
        "memory_usage": lambda db: db.memory_usage(),
        "stats": lambda db: db.stats(),
        "is_columnar": lambda db: db.is_columnar(),
        "flush": lambda db: db.flush(),
        "fsck": lambda db: db.fsck(),
        "backup": lambda db: db.backup(tmp_path / "copy"),
        "enter": lambda db: db.__enter__(),
    }
    for read_only in (False, True):
        for name, call in {**reads, **WRITES}.items():
            with pytest.raises(errors.ClosedError, match="closed"):
                raise AssertionError(f"{name} gave {call(db)!r}")
        db = files.open(read_only=not read_only)
        check(db, model)
        db.close()
    assert not (tmp_path / "copy").exists()
    assert list(files.contents()) == [NAME]


def test_leaving_the_block_closes(any_files: Files) -> None:
    with any_files.open(PLAIN) as db:
        db.insert({"k": 1})
    with pytest.raises(errors.ClosedError):
        db.get(0)
    with pytest.raises(ZeroDivisionError), any_files.open() as db:
        db.insert({"k": 2})
        raise ZeroDivisionError
    with any_files.open() as db:
        assert db.select_column("k") == [1, 2]
        db.close()


def test_a_handle_without_writes_leaves_the_bytes(any_files: Files) -> None:
    db, model = filled(any_files, 1500)
    db.close()
    before = any_files.contents()[NAME]
    with any_files.open() as db:
        check(db, model)
        db.checkpoint()
        db.flush()
        assert db.batch_insert([]) == 0
        assert db.batch_update([("id", "lt", 0)], {"age": 1}) == 0
        assert db.delete_where([("id", "lt", 0)]) == 0
        with pytest.raises(KeyError):
            db.update(3, {"age": 1})
        with pytest.raises(ValueError):
            db.insert({**person(77777), "age": 300})
    after = any_files.contents()[NAME]
    assert without_holder(before) == without_holder(after)


def test_a_dropped_handle_lets_go(any_files: Files) -> None:
    db = SnapDB(any_files.path(), PLAIN, storage_type=any_files.engine)
    db.insert({"k": 1})
    with pytest.warns(ResourceWarning, match="was not closed"):
        del db
    with any_files.open() as db:
        assert len(db) == 1


def test_opening_again_and_again(files: Files) -> None:
    db, model = filled(files, 500)
    draw = random.Random(5)
    sizes = []
    for step in range(30):
        for it in (db, model):
            it.insert(person(10_000 + step))
            it.update(100 + step, {"name": "n" * (step % 9 * 20), "score": step / 8})
            it.delete(200 + step)
        if step % 7 == 6:
            db.compact()
            model.compact()
            for it in (db, model):
                it.batch_insert(person(20_000 + 100 * step + i) for i in range(60))
        if draw.random() < 0.4:
            db = files.kill(db)
        else:
            db.close()
            sizes.append(len(files.contents()[NAME]))
            db = files.open()
        check(db, model, full=step % 5 == 0)
    assert max(sizes) <= 4 * sizes[0]


# -- what lasts, and when ---------------------------------------------------------------------
class Cut:
    """A database whose disk can be looked at as a power cut would leave it."""

    def __init__(self, engine: str, durability: str) -> None:
        self.layer = RecordingLayer(maps=True)
        self.layer.threads = False  # nothing is flushed but by a call
        with using(self.layer):
            self.db = SnapDB("cut", PLAIN, storage_type=engine, durability=durability)

    def rows(self, power: bool) -> list[list[int]]:
        """What is there after the process is killed; with ``power`` after every way in which what no flush covered may
        be lost altogether.
        """
        if not power:
            return [self.opened(self.layer.contents())]
        disk = Disk()
        for op in self.layer.log:
            disk.step(op)
        return [
            self.opened(state.contents) for state in disk.states(0, random.Random(0))
            if state.variant.endswith("nothing unsynced")
        ]  # fmt: skip

    @staticmethod
    def opened(contents: dict[str, bytes]) -> list[int]:
        with using(RecordingLayer(contents, record=False)):
            with SnapDB("cut") as db:
                assert db.fsck()["ok"]
                return db.select_column("k")


def test_full_lasts_at_once(engine: str, backend_name: str) -> None:
    cut = Cut(engine, "full")
    db = cut.db
    for write in (
        lambda: db.insert({"k": 1}),
        lambda: db.batch_insert([{"k": 2}, {"k": 3}]),
        lambda: db.update(0, {"k": 9}),
        lambda: db.delete(1),
        lambda: db.insert_columns({"k": [4]}),
        lambda: db.batch_update([("k", "gt", 3)], {"k": 5}),
        lambda: db.delete_where([("k", "eq", 3)]),
        lambda: db.compact(),
    ):
        write()
        expected = db.select_column("k")
        assert all(rows == expected for rows in cut.rows(True) + cut.rows(False))
    db.close()


def test_normal_outlives_the_process_and_a_transaction_the_power(engine: str, backend_name: str) -> None:
    cut = Cut(engine, "normal")
    db = cut.db
    db.insert({"k": 1})
    assert cut.rows(False) == [[1]]
    assert [] in cut.rows(True)  # so this test can tell
    db.flush()
    assert all(rows == [1] for rows in cut.rows(True))
    db.insert({"k": 2})
    with db.transaction():
        db.insert({"k": 3})
        db.update(0, {"k": 0})
        assert cut.rows(False) == [[1, 2]]
    assert all(rows == [0, 2, 3] for rows in cut.rows(True))
    db.insert({"k": 4})
    db.checkpoint()
    assert all(rows == [0, 2, 3, 4] for rows in cut.rows(True))
    db.insert({"k": 5})
    db.close()
    assert all(rows == [0, 2, 3, 4, 5] for rows in cut.rows(True))


def test_none_keeps_writes_until_told(engine: str, backend_name: str) -> None:
    cut = Cut(engine, "none")
    db = cut.db
    db.insert({"k": 1})
    assert cut.rows(False) == [[]]
    with db.transaction():
        db.insert({"k": 2})
    assert cut.rows(False) == [[]]
    assert db.select_column("k") == [1, 2]
    for k, tell in ((3, db.flush), (4, db.checkpoint), (5, db.close)):
        db.insert({"k": k})
        expected = db.select_column("k")
        assert cut.rows(False) == [expected[:-1]] or k == 3
        tell()
        assert all(rows == expected for rows in cut.rows(True) + cut.rows(False))


def test_flush_leaves_the_data_file_and_checkpoint_folds_in(files: Files) -> None:
    db, model = filled(files, 300)
    before = files.contents()[NAME]
    db.update(20, {"score": 5.5})
    model.update(20, {"score": 5.5})
    db.flush()
    assert files.contents()[NAME] == before
    assert db.stats()["wal_bytes"] > 0
    generation = db.stats()["generation"]
    db.checkpoint()
    after = files.contents()
    assert after[NAME] != before
    assert db.stats()["generation"] > generation
    db.checkpoint()  # nothing to do
    assert files.contents() == after
    db._abandon()
    with using(RecordingLayer({NAME: after[NAME], **{n: d for n, d in after.items() if n != NAME}}, record=False)):
        with SnapDB(NAME) as copy:
            check(copy, model)


def test_a_table_in_memory_has_nothing_to_flush(engine: str, backend_name: str) -> None:
    with SnapDB(":memory:", PLAIN, storage_type=engine) as db:
        db.insert({"k": 1})
        db.flush()
        db.checkpoint()
        assert db.fsck() == {"ok": True, "issues": [], "rows": 1, "full": True}
        figures = db.stats()
        assert (figures["file_bytes"], figures["wal_bytes"], figures["last_checkpoint"]) == (0, 0, None)


@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_the_log_is_folded_in_when_it_is_long(files: Files, durability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"wal_limit": 50_000}
    monkeypatch.setattr(tablefile, "Options", lambda *given, **named: _options(*given, **named)._replace(**short))
    db, model = files.open(SCHEMA, durability=durability), Model(SCHEMA)
    seen = set()
    for i in range(300):
        row = {**person(i), "blob": bytes(1000)}
        assert db.insert(row) == model.insert(row)
        seen.add(db.stats()["generation"])
    assert len(seen) >= 5
    assert db.stats()["wal_bytes"] < 500_000
    check(db, model)
    if durability != "none":
        check(files.kill(db), model)


_options = tablefile.Options


# -- values ---------------------------------------------------------------------------------------
TINY = struct.unpack("<f", b"\1\0\0\0")[0]
VALUES: dict[str, list[Any]] = {
    **{f"i{n}": [-(2 ** (n - 1)), 2 ** (n - 1) - 1, 0, None, -1] for n in (8, 16, 32, 64)},
    **{f"u{n}": [0, 2**n - 1, 1, None, 2 ** (n - 1)] for n in (8, 16, 32, 64)},
    "f32": [math.nan, -0.0, math.inf, None, TINY, -math.inf, 1.5, 0.0],
    "f64": [math.nan, -0.0, math.inf, None, 5e-324, -1.7976931348623157e308, 0.1, 0.0],
    "bool": [True, False, None],
    "bytes:6": ["", "abcdef", b"\xff\xfe", None, "a\0", "é\0"],
    "str": ["", "a\0b", "\U0001d11e" * 3, None, "x" * 5000, "é", "\uffff"],
    "binary": [b"", b"\0", bytes(range(256)), None, b"\xff" * 3000],
    "binary:3": [b"", b"\0\0\0", None, b"\xff"],
    "date": [dt.date.min, dt.date.max, None, dt.date(1970, 1, 1)],
    "datetime": [
        dt.datetime.min.replace(tzinfo=UTC), dt.datetime.max.replace(tzinfo=UTC), None,
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
}  # fmt: skip
EVERY = Schema([ColumnDef(dtype.replace(":", ""), dtype, not_null=False) for dtype in VALUES])


def odd(i: int) -> dict[str, Any]:
    """A row of odd values; after 840 rows every value has been met."""
    return {dtype.replace(":", ""): values[i % len(values)] for dtype, values in VALUES.items()}


@pytest.mark.parametrize("how", ["insert", "batch", "columns", "bulk", "update", "batch_update"])
@pytest.mark.parametrize("left", ["closed", "killed"])
def test_every_value_comes_back(files: Files, how: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = files.open(EVERY)
    rows = [odd(i) for i in range(100)]
    if how == "bulk":
        monkeypatch.setattr(tablefile, "BULK", 0)
    if how == "insert":
        for row in rows:
            db.insert(row)
    elif how in ("batch", "bulk"):
        db.batch_insert(rows)
    elif how == "columns":
        db.insert_columns({name: [row[name] for row in rows] for name in EVERY.names})
    else:
        db.batch_insert({} for _ in rows)
        db.checkpoint()
        if how == "update":
            for idx, row in enumerate(rows):
                db.update(idx, row)
        else:
            remaining = iter(rows)
            db.batch_update([], lambda row: next(remaining))
    assert bits(db.select()) == bits(rows)
    if left == "killed":
        db = files.kill(db)
    else:
        db.close()
        db = files.open()
    assert bits(db.select()) == bits(rows)
    assert bits([db.get(i) for i in range(100)]) == bits(rows)
    assert db.count_where([("u64", "eq", 2**64 - 1)]) == sum(row["u64"] == 2**64 - 1 for row in rows)
    assert db.fsck()["ok"]


def test_large_values(files: Files) -> None:
    schema = Schema(
        [ColumnDef("k", "i32"), ColumnDef("s", "str", not_null=False), ColumnDef("b", "binary", not_null=False)]
    )
    db, model = files.open(schema), Model(schema)
    two, ten = "é" * (1 << 20), "ab" * (5 << 20)
    for it in (db, model):
        it.insert({"k": 1, "s": two})
        it.batch_insert([{"k": 2, "s": ten}, {"k": 3, "b": two.encode()}])
        it.update(2, {"s": two})
        it.insert_columns({"k": [4, 5], "b": [ten.encode(), b""]})
    before = files.contents()
    seventeen = "z" * (17 << 20)
    for write in (lambda: db.insert({"k": 9, "s": seventeen}), lambda: db.update(0, {"s": seventeen})):
        with pytest.raises(errors.ValidationError, match=r"178\d+.*batch_insert"):
            write()
    assert files.contents() == before
    for it in (db, model):
        it.batch_insert([{"k": 6, "s": seventeen}])
    assert bits(list(db)) == bits(model.items())
    db = files.kill(db)
    assert bits(list(db)) == bits(model.items())
    db.close()
    db = files.open()
    check(db, model)
    assert db.delete_where([("k", "gt", 0)]) == 6
    db.checkpoint()
    db.checkpoint()
    assert db.compact() > 20 << 20
    assert db.stats()["file_bytes"] < 1 << 20


def test_a_wide_table(files: Files) -> None:
    names = [f"c{i}" for i in range(300)]
    dtypes = ("i16", "str", "f64", "bool")
    schema = Schema([ColumnDef(name, dtypes[i % 4], not_null=False) for i, name in enumerate(names)])
    db, model = files.open(schema), Model(schema)
    row = {name: (i - 150, f"v{i}", i / 4, i % 8 < 4)[i % 4] for i, name in enumerate(names) if i % 11}
    for it in (db, model):
        it.insert(row)
        it.batch_insert({**row, names[i]: None, names[-4]: i} for i in range(30))
        it.update(3, dict.fromkeys(names[100:280]))
        it.delete(4)
    check(files.kill(db), model)
    files.made[-1].close()
    db = files.open()
    check(db, model)
    assert db.count_where([(names[-4], "gte", 10)]) == len(model.ids([(names[-4], "gte", 10)]))
    assert len(db.schema) == 300


@pytest.mark.parametrize("page_size", [64, 65_535])
def test_page_sizes(files: Files, page_size: int) -> None:
    db, model = files.open(PLAIN, page_size=page_size), Model(PLAIN)
    for it in (db, model):
        it.batch_insert({"k": i, "v": i / 2, "s": "s" * (i % 50)} for i in range(700))
        it.delete(5)
        it.update(600, {"s": "long" * 100})
    check(files.kill(db), model)
    files.made[-1].close()
    db = files.open()
    assert db.page_size == page_size
    check(db, model)


def test_column_names_of_any_language(files: Files) -> None:
    names = ["größe", "名前", "with space", 'quo"te', "\U0001f600", "a" * 300, "__class__"]
    schema = Schema([ColumnDef(name, "i32", not_null=False) for name in names])
    db = files.open(schema)
    row = {name: i for i, name in enumerate(names)}
    db.insert(row)
    db = files.kill(db)
    db.close()
    db = files.open()
    assert db.schema == schema
    assert db.get(0) == row
    assert db.find(名前=1) == [row]


def test_empty_tables_and_empty_batches(any_files: Files) -> None:
    db = any_files.open(SCHEMA)
    assert db.batch_insert([]) == 0
    assert db.insert_columns({name: [] for name in SCHEMA.names}) == 0
    assert db.delete_where([("age", "eq", 1)]) == 0
    assert db.batch_update([], {"age": 1}) == 0
    db.checkpoint()
    db.compact()
    db.close()
    db = any_files.open()
    check(db, Model(SCHEMA))
    assert db.select() == []
    assert db.aggregate("age", "min") is None
    db.insert(person(1))
    db.delete(0)
    db.close()
    db = any_files.open()
    assert (len(db), db.get(0), db.insert(person(2))) == (0, None, 1)


# -- constraints and ids -------------------------------------------------------------------------
def test_unique_values_are_kept_apart_after_reopening(files: Files) -> None:
    schema = Schema(
        [
            ColumnDef("k", "i32", primary_key=True),
            ColumnDef("mail", "str", unique=True, not_null=False),
            ColumnDef("v", "u8"),
        ]
    )
    db = files.open(schema)
    db.batch_insert({"k": i, "mail": None if i % 3 else f"m{i}", "v": i % 200} for i in range(300))
    db.delete(6)
    db.update(9, {"mail": "new"})
    for left in ("killed", "closed"):
        if left == "killed":
            db = files.kill(db)
        else:
            db.close()
            db = files.open()
        for bad in ({"k": 5, "v": 1}, {"k": 1000, "mail": "m3", "v": 1}, {"k": 1000, "mail": "new", "v": 1}):
            with pytest.raises(errors.UniqueError, match="UNIQUE constraint failed: "):
                db.insert(bad)
            with pytest.raises(errors.UniqueError):
                db.batch_insert([{"k": 2000, "v": 1}, bad])
        with pytest.raises(errors.UniqueError):
            db.update(1, {"k": 2})
        with pytest.raises(errors.UniqueError):
            db.batch_update([("k", "between", (1, 3))], {"mail": "same"})
        assert len(db) == 299
    assert db.insert({"k": 6, "mail": "m6", "v": 1}) == 300  # both are free again
    assert db.upsert({"k": 5, "v": 99}) == 5
    assert db.upsert({"k": 555, "mail": "m9", "v": 98}) == 301
    db = files.kill(db)
    assert [db.get(i) for i in (5, 300, 301)] == [
        {"k": 5, "mail": None, "v": 99}, {"k": 6, "mail": "m6", "v": 1}, {"k": 555, "mail": "m9", "v": 98},
    ]  # fmt: skip
    assert db.upsert({"k": 5, "v": 97}) == 5
    with pytest.raises(errors.UniqueError):
        db.upsert({"k": 5, "mail": "m6", "v": 97})


def test_ids_are_dense_and_stay(files: Files) -> None:
    db, model = files.open(PLAIN), Model(PLAIN)
    for step in range(12):
        for it in (db, model):
            assert it.insert({"k": step}) == step * 3
            it.batch_insert([{"k": -1}, {"k": -2}])
            it.delete(step * 3 + 2)
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.insert({"k": 5})
            db.delete(step * 3)
            raise ZeroDivisionError
        if step % 3 == 0:
            db = files.kill(db)
        elif step % 3 == 1:
            db.close()
            db = files.open()
        check(db, model)


def test_compact_and_reopen(files: Files) -> None:
    db, model = filled(files, 3000)
    db.checkpoint()
    for it in (db, model):
        it.delete_where([("id", "between", (1100, 3500))])
    before = db.stats()["file_bytes"] + db.stats()["wal_bytes"]
    freed = db.compact()
    model.compact()
    assert freed == before - db.stats()["file_bytes"] - db.stats()["wal_bytes"] > 0
    check(db, model)
    assert db.insert(person(7000)) == model.insert(person(7000))
    for it in (db, model):
        it.update(0, {"age": 55})
    db = files.kill(db)
    check(db, model)
    assert db.compact() >= 0
    db.close()
    db = files.open()
    check(db, model)


# -- large batches ---------------------------------------------------------------------------------
@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_large_batch(files: Files, backend_name: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 45_000
    if backend_name != "c":
        rows = 9000
        monkeypatch.setattr(tablefile, "BULK", 4096)
    db, model = files.open(PLAIN), Model(PLAIN)
    first = [{"k": i, "v": i * 0.37, "s": f"s{i % 1000}"} for i in range(100)]
    large = [{"k": i, "v": i % 512 / 4 if i % 9 else None, "s": f"s{i % 3000}"} for i in range(100, rows)]
    for it in (db, model):
        it.batch_insert(first)
        it.batch_insert(large)
    assert db.stats()["wal_bytes"] < 1 << 20  # only places are logged
    for it in (db, model):
        it.insert({"k": -1})
        for idx in (0, 99, 100, 5000, rows - 1):
            it.update(idx, {"v": -1.5, "s": None})
        it.delete(6000)
        it.delete_where([("k", "between", (7000, 7500))])
    if left == "killed":
        db = files.kill(db)
    else:
        db.close()
        db = files.open()
    check(db, model)
    for it in (db, model):
        it.insert_columns({name: [row[name] for row in large] for name in PLAIN.names})
        it.batch_update([("k", "between", (300, 400))], {"s": "again"})
    check(db, model, full=False)
    db = files.kill(db)
    check(db, model)


# -- views that are held -----------------------------------------------------------------------------
HELD = Schema([ColumnDef("k", "i32"), ColumnDef("v", "f64", not_null=False), ColumnDef("b", "bytes:16")])


class Holder:
    """Views of a database and what they must say for ever."""

    def __init__(self) -> None:
        self.views: list[tuple[memoryview, bytes]] = []
        self.iterators: list[tuple[Any, list[Any]]] = []

    def hold(self, db: SnapDB) -> None:
        for iterator in (iter(db), db.query(lambda row: True)):
            expected = list(db)
            assert [next(iterator) for _ in range(3)] == expected[:3]
            self.iterators.append((iterator, expected[3:]))
        for name in ("k", "v"):
            view = db.column_buffer(name)
            self.views.append((view, bytes(view)))
        if not db.is_columnar():
            raws = [db.get_raw(idx) for idx in (0, 1, 5000, 11_999)] + [raw for _, raw in zip(range(3), db.iter_raw())]
            self.views += [(raw, bytes(raw)) for raw in raws if isinstance(raw, memoryview)]
            iterator = db.iter_raw()
            self.iterators.append((iterator, [(idx, bytes(raw)) for idx, raw in db.iter_raw()]))

    def check(self) -> None:
        for view, data in self.views:
            assert view.readonly
            assert bytes(view) == data
        for iterator, expected in self.iterators:
            assert [(idx, bytes(it) if isinstance(it, memoryview) else it) for idx, it in iterator] == expected


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_held_stays_as_it_was(any_files: Files, mmap: bool) -> None:
    """Whatever is written, and although the space is used again."""
    db, count, holder = any_files.open(HELD, mmap=mmap), 12_000, Holder()
    db.batch_insert({"k": i, "v": i / 4, "b": f"b{i % 100}"} for i in range(count))
    db.close()
    db = any_files.open(mmap=mmap)
    holder.hold(db)
    for step in range(4):
        db.batch_update([], {"v": -1.0 - step, "b": f"step{step}"})
        db.checkpoint()
        if step % 2:
            holder.hold(db)
        db.batch_insert({"k": -i, "v": None, "b": "new"} for i in range(3000))
        db.delete_where([("k", "lt", 0)])
        db.checkpoint()
        db.update(0, {"k": step})
    holder.hold(db)
    db.delete_where([("k", "between", (100, 11_000))])
    db.compact()
    holder.hold(db)
    db.checkpoint()
    db.batch_insert({"k": i, "v": 1.0, "b": "full" * 4} for i in range(count))
    db.checkpoint()
    db.close()
    holder.check()


NEXT = """
import sys
from snapdb import SnapDB
path, engine = sys.argv[1:]
from snapdb import Schema, ColumnDef
schema = Schema([ColumnDef("k", "i32"), ColumnDef("v", "f64", not_null=False)])
with SnapDB(path, schema, storage_type=engine) as db:
    db.batch_insert({"k": i * i % 9973, "v": i / 4} for i in range(60_000))
db = SnapDB(path)
expected, iterator = list(db), iter(db)
assert next(iterator) == expected[0]
view = db.column_buffer("k")
data = bytes(view)
db.close()
with SnapDB(path) as other:
    for step in range(4):
        other.batch_update([], {"v": step / 7, "k": step})
        other.checkpoint()
    other.delete_where([("k", "gte", 0)])
    other.compact()
    other.compact()
    other.batch_insert({"k": -i, "v": i / 9} for i in range(30_000))
assert list(iterator) == expected[1:]
assert bytes(view) == data
"""


def test_what_a_closed_handle_gave_outlives_the_next_one(engine: str, tmp_path: Path) -> None:
    """In a process of its own: a map of what was cut off kills."""
    subprocess.run([sys.executable, "-c", NEXT, str(tmp_path / "x"), engine], check=True, timeout=120)


def test_what_a_closed_handle_gave_outlives_the_next_one_in_memory(files: Files) -> None:
    db, holder = files.open(HELD), Holder()
    db.batch_insert({"k": i, "v": i / 4, "b": f"b{i % 100}"} for i in range(12_000))
    db.close()
    db = files.open()
    holder.hold(db)
    db.close()
    with files.open() as other:
        for step in range(4):
            other.batch_update([], {"v": step / 7, "b": "other"})
            other.checkpoint()
        other.delete_where([("k", "gt", 10)])
        other.compact()
        for step in range(4):
            other.batch_insert({"k": -step, "v": step / 9, "b": "reused"} for _ in range(5000))
            other.checkpoint()
    holder.check()


# -- backup ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", ["file", "reader", "memory", "recovered"])
def test_a_backup_opens_on_its_own(any_files: Files, source: str) -> None:
    db, model = filled(any_files, 2600, dict_columns=["name"], page_size=512)
    if source == "reader":
        db._abandon()
        db = any_files.open(read_only=True)
    elif source == "recovered":
        db = any_files.kill(db)
    elif source == "memory":
        db.close()
        db = SnapDB(":memory:", SCHEMA, storage_type=any_files.engine, dict_columns=["name"], page_size=512)
        any_files.made.append(db)
        model = Model(SCHEMA)
        for it in (db, model):
            it.batch_insert(people(2600))
            it.delete(2599)
            it.delete(7)
            it.update(1500, {"name": "changed"})
    before = any_files.contents()
    target = any_files.path("copy")
    iterator = iter(db)
    some = [next(iterator) for _ in range(5)]
    assert db.backup(target) == Path(target)
    after = any_files.contents()
    assert set(after) - set(before) == {"copy"}
    if source in ("reader", "memory"):
        assert {name: after[name] for name in before} == before
    assert some + list(iterator) == model.items()
    copy = any_files.open(name="copy")
    assert (copy.storage_type, copy.schema, copy.page_size) == (any_files.engine, SCHEMA, 512)
    check(copy, model)
    if source != "reader":  # they go their own ways
        db.insert(person(4000))
    check(copy, model)
    assert copy.insert(person(5000)) == model.positions
    with pytest.raises(errors.UniqueError):
        copy.insert(person(5000))
    copy.delete(model.positions)
    copy.backup(any_files.path("second"))
    assert list(any_files.open(name="second")) == model.items()


def test_a_backup_takes_no_ones_place(any_files: Files) -> None:
    db, _ = filled(any_files)
    db.checkpoint()
    any_files.write("there", b"something")
    before = any_files.contents()
    for target in ("there", NAME):
        with pytest.raises(FileExistsError):
            db.backup(any_files.path(target))
    with db.transaction():
        with pytest.raises(errors.TransactionError, match="backup"):
            db.backup(any_files.path("copy"))
    assert any_files.contents() == before


def test_a_backup_that_has_no_folder_leaves_nothing(disk_files: Files) -> None:
    db, model = filled(disk_files)
    with pytest.raises(FileNotFoundError, match="no folder") as failed:
        db.backup(disk_files.path("no/such/copy"))
    assert ".tmp-" not in failed.value.filename
    assert set(disk_files.contents()) == {NAME, NAME + "-wal0", NAME + "-wal1"}
    check(db, model)


def test_a_backup_while_others_write(disk_files: Files) -> None:
    db = disk_files.open(PLAIN)
    db.batch_insert({"k": 1, "v": 0.0} for _ in range(50))
    stop = threading.Event()
    problems: list[BaseException] = []

    def write() -> None:
        value = 0.0
        try:
            while not stop.is_set():
                value += 1.0
                db.batch_update([], {"v": value})
        except BaseException as error:
            problems.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(8):
            with SnapDB(db.backup(disk_files.path(f"copy{number}"))) as copy:
                assert len(copy) == 50
                assert len(set(copy.select_column("v"))) == 1
                assert copy.fsck()["ok"]
    finally:
        stop.set()
        writer.join()
    assert problems == []


# -- fsck ------------------------------------------------------------------------------------------------
def test_fsck_finds_damage(files: Files) -> None:
    """In the first entry, of several: the last one is read when the file is opened, which raises then."""
    count = 70_000
    db = files.open(PLAIN)
    db.insert_columns(
        {"k": range(count), "v": [i * 0.3 for i in range(count)], "s": [f"s{i % 9}" for i in range(count)]}
    )
    db.close()
    whole = files.contents()[NAME]
    with files.open() as db:
        first = next(iter(db._file.store.items()))[1]  # type: ignore[union-attr]
        refs = [piece.ref for piece in first.pieces]
    assert refs
    for ref in refs:
        assert ref is not None
        at = ref.extent + ref.at + ref.length // 2
        files.write(NAME, whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with files.open(read_only=True) as db:
            report = db.fsck()
            assert (report["ok"], report["full"], report["rows"]) == (False, True, count)
            assert report["issues"]
            for issue in report["issues"]:
                assert set(issue) == {"kind", "where", "message"}
                assert issue["message"]
            assert db.fsck(full=False) == {"ok": True, "issues": [], "rows": count, "full": False}  # reads no pieces
        with files.open(read_only=True) as db, pytest.raises(errors.CorruptionError) as caught:
            list(db)
        assert caught.value.path == NAME
        assert caught.value.offset == ref.extent + ref.at
    for at, kind in (
        (100, "header"),
        (0x2000 + 20, "header"),
        (0x1000 + 40, "superblock"),
        (0x3000 + 40, "superblock"),
    ):
        files.write(NAME, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with files.open(read_only=True) as db:  # one of two copies: everything is there
            for full in (False, True):
                report = db.fsck(full)
                assert {issue["kind"] for issue in report["issues"]} == {kind}
            assert db.aggregate("k", "sum") == sum(range(count))


def test_fsck_of_a_good_file_at_every_moment(files: Files) -> None:
    db, model = filled(files, 1500)
    for step in (
        lambda: db.checkpoint(), lambda: db.insert(person(9000)), lambda: db.flush(), lambda: db.delete(50),
        lambda: db.batch_insert(person(i) for i in range(10_000, 13_000)), lambda: db.checkpoint(),
        lambda: db.compact(), lambda: db.delete_where([("id", "gt", 0)]), lambda: db.checkpoint(),
        lambda: db.checkpoint(), lambda: db.compact(), lambda: db.insert(person(1)),
    ):  # fmt: skip
        step()
        for full in (False, True):
            assert db.fsck(full) == {"ok": True, "issues": [], "rows": len(db), "full": full}
    with db.transaction():
        db.insert(person(2))
        assert db.fsck()["ok"]


# -- figures -------------------------------------------------------------------------------------------------
def test_figures(any_files: Files) -> None:
    began = dt.datetime.now(UTC) - dt.timedelta(seconds=1)
    db, model = filled(any_files, 1500)
    db.checkpoint()
    db.insert(person(4000))
    db.flush()
    figures = db.stats()
    held = any_files.contents()
    assert figures["rows"] == len(model.rows) + 1
    assert figures["deleted_rows"] == 4
    assert figures["storage_type"] == any_files.engine
    assert figures["durability"] == "normal"
    assert figures["file_bytes"] == len(held.pop(NAME))
    assert figures["wal_bytes"] == sum(map(len, held.values())) > 0
    assert 0 < figures["live_bytes"] < figures["file_bytes"]
    assert 0 <= figures["free_bytes"] < figures["file_bytes"]
    assert figures["live_bytes"] + figures["free_bytes"] <= figures["file_bytes"]
    assert began < figures["last_checkpoint"] < dt.datetime.now(UTC) + dt.timedelta(seconds=1)
    assert figures["lsn"] == figures["durable_lsn"] > 0
    assert set(figures["columns"]) == set(SCHEMA.names)
    assert figures["memory_bytes"] == db.memory_usage()
    db.close()
    with any_files.open() as db:
        assert db.stats()["wal_bytes"] == 0
        assert db.stats()["lsn"] == figures["lsn"]


def test_repr_names_the_file(files: Files) -> None:
    with files.open(PLAIN) as db:
        db.insert({"k": 1})
        assert repr(db) == f"SnapDB({NAME!r}, storage_type={files.engine!r}, rows=1, indexes=[])"
