"""What a hostile review of tables in files has found, one test each."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from snapdb import ColumnDef, Schema, SnapDB, _ext, tablefile
from snapdb.errors import ClosedError, CorruptionError, DurabilityError, SnapDBError, StorageError
from snapdb.filejournal import FileJournal
from snapdb.opening import for_copy
from snapdb.storage import lock
from snapdb.storage.files import using
from snapdb.storage.store import Options, Store
from snapdb.storage.wal import Wal
from snapdb.table import Table
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer

pytestmark = pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no threads")

SCHEMA = Schema([ColumnDef("k", "i64"), ColumnDef("s", "str", not_null=False)])
FIXED = Schema([ColumnDef("k", "i64")])
KEYED = Schema([ColumnDef("k", "i64", primary_key=True), ColumnDef("s", "str", not_null=False)])


@pytest.fixture
def path(tmp_path: Path, engine: str, backend_name: str) -> Path:
    """A closed database of ten rows."""
    where = tmp_path / "t.snapdb"
    with SnapDB(where, SCHEMA, storage_type=engine) as db:
        db.batch_insert([{"k": k, "s": f"row {k}"} for k in range(10)])
    return where


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run ``work(n)`` in so many threads; what they raised."""
    problems: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return problems


# -- closed handles ----------------------------------------------------------
@pytest.mark.parametrize("schema", [SCHEMA, FIXED, KEYED], ids=["text", "fixed", "keyed"])
@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_method_kept_from_before_the_close_writes_nothing(
    tmp_path: Path, engine: str, backend_name: str, schema: Schema, where: str
) -> None:
    """It said yes, gave an id, and the row went nowhere."""
    place: Any = tmp_path / "t.snapdb" if where == "file" else ":memory:"
    db = SnapDB(place, schema, storage_type=engine)
    row = {column.name: 1 if column.name == "k" else "s" for column in schema}
    kept: list[Callable[[], Any]] = []
    insert, kernel = db.insert, db._engine.insert
    kept += [lambda: insert({**row, "k": 2}), lambda: db.batch_insert([{**row, "k": 3}]), db.compact]
    if schema is not KEYED:
        kept.append(lambda: kernel({**row, "k": 4}))
    insert(row)
    db.close()
    for call in kept:
        with pytest.raises(ClosedError, match="closed"):
            call()
    if where == "file":
        with SnapDB(place) as db:
            assert len(db) == 1


@pytest.mark.parametrize("where", ["file", "read again", "unread", "memory", "empty"])
def test_a_method_kept_from_before_the_close_reads_nothing(
    tmp_path: Path, engine: str, backend_name: str, where: str
) -> None:
    """It said that there was no such row."""
    place: Any = tmp_path / "t.snapdb" if where != "memory" else ":memory:"
    db = SnapDB(place, SCHEMA, storage_type=engine)
    if where != "empty":
        db.batch_insert([{"k": k, "s": f"row {k}"} for k in range(3000)])
        db.delete(7)
    if where in ("read again", "unread"):
        db.close()
        db = SnapDB(place)
    get, kernel = db.get, db._engine
    if where in ("file", "read again", "memory"):
        assert get(0) == {"k": 0, "s": "row 0"} and get(7) is None
    db.close()
    for idx in (0, 7, 2999, 3000, 1 << 17):
        for call in (get, kernel.get, kernel.contains):
            with pytest.raises(ClosedError, match="is closed: open it again"):
                call(idx)
    for late in (lambda: list(kernel.items()), kernel.select, lambda: kernel.lookup("k", 5)):
        with pytest.raises(ClosedError):
            late()


def test_the_row_that_fills_the_tail_beside_a_close(tmp_path: Path, backend_name: str) -> None:
    """It was in the file, and its insert said that the database was closed."""
    place = tmp_path / "t.snapdb"
    db = SnapDB(place, FIXED, storage_type="columnar")
    db.batch_insert([{"k": k} for k in range(8191)])
    port, engine = db._engine.port, db._engine
    port.limit = engine.column_list[0].parts[-1][1].rows + 1
    insert = db.insert
    problems: list[BaseException] = []
    with engine.writing():
        port.paused = False  # let the row in, and its fold wait for the lock
        thread = threading.Thread(target=lambda: problems.extend(in_threads(1, lambda _: insert({"k": 1}))))
        thread.start()
        until = time.monotonic() + (20 if backend_name == "c" else 0.1)  # the twin takes the lock for the row itself
        while engine.rows < 8192 and time.monotonic() < until:
            time.sleep(0.001)
        if engine.rows == 8192:
            db.close()
    thread.join(20)
    assert problems == []
    db.close()
    with SnapDB(place) as db:
        assert len(db) == 8192


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_method_kept_from_before_a_fork_reads_nothing_in_the_child(path: Path) -> None:
    """What it had not copied yet is in a map of the file, whose places the parent gives to other rows."""
    with SnapDB(path) as db:
        get = db.get
        assert get(3) == {"k": 3, "s": "row 3"}
        child = os.fork()
        if not child:
            try:
                get(3)
            except ClosedError as error:
                os._exit(0 if "fork" in str(error) else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert get(3) == {"k": 3, "s": "row 3"}


def test_the_log_that_another_handle_has_left_counts(path: Path) -> None:
    """A reader of it said that there was none."""
    db = SnapDB(path, durability="full")
    assert db.stats()["wal_bytes"] == 0
    db.insert({"k": 1, "s": None})
    size = db.stats()["wal_bytes"]
    assert size == sum(Path(f"{path}-wal{parity}").stat().st_size for parity in (0, 1))
    db._abandon()
    with SnapDB(path, read_only=True) as db:
        assert db.stats()["wal_bytes"] == size
    with SnapDB(path) as db:
        assert db.stats()["wal_bytes"] == size  # it was folded in, and stays until the first write or the close
    with SnapDB(path) as db:
        assert db.stats()["wal_bytes"] == 0


def test_a_frame_without_a_beginning_is_not_added_to_the_transaction_before_it(backend_name: str) -> None:
    """A ``__del__`` that writes during its own commit made one; the transaction was replayed twice with it."""
    layer, kernel = RecordingLayer(record=False), _ext.backend(backend_name).wal
    options = Options(layer, kernel, "full")
    Store.create("x", {}, options)
    store = Store.open("x", options)
    for kind, flags in ((1, kernel.FIRST), (2, kernel.LAST), (3, 0), (4, kernel.LAST), (5, -1)):
        store.log.append(kind, b"", flags)
    store.abandon()
    store = Store.open("x", options)
    assert [frame.kind for frame in store.replay] == [1, 2, 3, 4, 5]
    store.abandon()


@pytest.mark.parametrize("level", ["normal", "full", "none"])
def test_what_an_insert_beside_a_close_says_is_true(path: Path, level: str) -> None:
    for _ in range(3):
        with SnapDB(path) as db:
            before = len(db)
        db = SnapDB(path, durability=level)
        done = [0, 0, 0]
        started = threading.Barrier(4)

        def writes(n: int, db: SnapDB = db, started: threading.Barrier = started, done: list[int] = done) -> None:
            started.wait()
            try:
                while True:
                    db.insert({"k": n, "s": "x"})
                    done[n] += 1
            except ClosedError:
                pass

        def closes(db: SnapDB = db, started: threading.Barrier = started) -> None:
            started.wait()
            time.sleep(0.02)
            db.close()

        assert in_threads(4, lambda n: writes(n) if n < 3 else closes()) == []
        with SnapDB(path) as db:
            assert len(db) == before + sum(done)
            assert db.fsck()["ok"]


def test_calls_that_wait_for_a_close_say_closed(path: Path) -> None:
    """They had looked for the file before they waited for the lock, and found None behind it."""
    for name in ("flush", "checkpoint", "stats", "fsck", "compact"):
        db = SnapDB(path)
        db.insert({"k": 1, "s": None})
        problems: list[BaseException] = []
        thread = threading.Thread(
            target=lambda db=db, name=name, to=problems: to.extend(in_threads(1, lambda _: getattr(db, name)()))
        )
        with db._engine.writing():
            thread.start()
            time.sleep(0.05)
            db.close()
        thread.join(60)
        assert [type(error) for error in problems] == [ClosedError], (name, problems)


def test_a_log_that_is_closed_has_no_descriptor(path: Path) -> None:
    """The compiled log writes to a number, which may be another file's by then."""
    for how in ("close", "abandon", "forked"):
        db = SnapDB(path)
        db.insert({"k": 1, "s": None})
        store = db._file.store  # type: ignore[union-attr]
        log = store.log
        getattr(db if how == "close" else store, how)()
        with open(path.with_name("other"), "w+b") as other:  # takes one of the numbers
            with pytest.raises((SnapDBError, RuntimeError)):
                log.append(1, b"x" * 100)
            log.flush()
            assert other.read() == b"" and log.limit == 0
        db.close()


# -- threads -----------------------------------------------------------------
@pytest.mark.parametrize("level", ["none", "normal", "full"])
def test_threads_that_insert_large_rows(path: Path, level: str) -> None:
    """Two asked for room at once, and one took from the other; or one wrote what was held while another added."""
    db = SnapDB(path, durability=level)
    rows = 40 if level == "full" else 400

    def writes(n: int) -> None:
        for k in range(rows):
            db.insert({"k": k, "s": "x" * 8000})

    assert in_threads(4, writes) == []
    assert len(db) == 10 + 4 * rows
    db.close()
    with SnapDB(path) as db:
        assert len(db) == 10 + 4 * rows and db.fsck()["ok"]


def test_a_write_while_the_flusher_ends_is_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came between the flusher's last look and its end, and stayed in the system's memory until the next write."""
    db = SnapDB(path)
    last = Wal._flusher_ends_idle
    late: list[int] = []

    def ends(wal: Wal) -> bool:
        if not late:
            late.append(db.insert({"k": 2, "s": "late"}))
        return last(wal)

    monkeypatch.setattr(Wal, "_flusher_ends_idle", ends)
    db.insert({"k": 1, "s": "early"})
    until = time.monotonic() + 20
    while time.monotonic() < until:
        figures = db.stats()
        if late and figures["durable_lsn"] == figures["lsn"]:
            break
        time.sleep(0.01)
    assert late == [11] and figures["durable_lsn"] == figures["lsn"]
    db.close()


def test_figures_do_not_find_out_what_is_free_while_another_thread_takes_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both made a Space, the second without what the first had given out."""
    db = SnapDB(path)
    made, inside = [], threading.Event()
    build = Store._ensure_space

    def slowly(store: Store) -> None:
        if not store._spaced:
            made.append(1)
            inside.set()
            time.sleep(0.05)
        build(store)

    monkeypatch.setattr(Store, "_ensure_space", slowly)

    def work(n: int) -> None:
        if n:
            inside.wait()
            db.stats()
        else:
            db.update(0, {"s": "y"})
            db.checkpoint()

    assert in_threads(2, work) == []
    assert made == [1]
    assert db.fsck()["ok"]
    db.close()


def test_the_registry_of_open_files_takes_no_lock_to_give_back(path: Path) -> None:
    """A collection inside ``take`` may drop a handle, whose end then waited for this very thread."""
    with lock._claims.lock:
        lock._claims.give(("nobody", "has this"))
    SnapDB(path).close()
    SnapDB(path).close()


# -- the log and its limit ---------------------------------------------------
def test_a_table_that_is_only_written_in_transactions_is_checkpointed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit asked whether the log was long, and inside a transaction nobody may."""
    defaults = tuple({**Options._field_defaults, "wal_limit": 1 << 16}.values())
    monkeypatch.setattr("snapdb.storage.store.Options.__new__.__defaults__", defaults)
    db = SnapDB(path)
    for _ in range(20):
        with db.transaction():
            for k in range(40):
                db.insert({"k": k, "s": "x" * 300})
    figures = db.stats()
    assert figures["generation"] > 4 and figures["wal_bytes"] <= 1 << 19
    db.close()
    with SnapDB(path) as db:
        assert len(db) == 10 + 800


def test_large_batches_in_transactions_make_a_checkpoint_due(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapdb.filejournal.BULK_SINCE_CHECKPOINT", 1 << 20)
    db, draw = SnapDB(path), random.Random(1)
    for _ in range(2):
        with db.transaction():  # texts that no codec makes smaller
            db.insert_columns({"k": range(3000), "s": [f"{draw.getrandbits(2400):0600x}" for _ in range(3000)]})
    assert db._file.store.bulk_bytes == 0  # type: ignore[union-attr]
    db.close()


def test_an_interrupt_at_the_start_of_a_transaction_leaves_none_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log held every later write for a commit that never came."""
    db = SnapDB(path)
    begin = FileJournal.begin

    def interrupted(journal: FileJournal) -> None:
        begin(journal)
        raise KeyboardInterrupt

    monkeypatch.setattr(FileJournal, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt), db.transaction():
        raise AssertionError
    monkeypatch.undo()
    db.insert({"k": 11, "s": None})
    with db.transaction():
        db.insert({"k": 12, "s": None})
    db._file.store.abandon()  # type: ignore[union-attr]
    db.close()
    with SnapDB(path) as db:
        assert len(db) == 12


# -- checkpoints -------------------------------------------------------------
def test_damage_found_by_a_writes_checkpoint_is_no_error_of_the_write(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row was in, and insert() raised."""
    db = SnapDB(path)

    def damaged(*_: Any) -> Any:
        raise CorruptionError("an extent does not verify")

    monkeypatch.setattr(Store, "checkpoint", damaged)
    db._file.store.full()  # type: ignore[union-attr]
    assert "does not verify" in caplog.text
    with pytest.raises(CorruptionError):
        db.checkpoint()
    monkeypatch.undo()
    db.close()


def test_a_compaction_that_cannot_give_room_back_is_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raised StorageError ("nothing was written") when every id had changed."""
    db = SnapDB(path)
    db.delete(0)

    def refuses(*_: Any) -> Any:
        raise StorageError("no room")

    monkeypatch.setattr(Store, "checkpoint", refuses)
    assert db.compact() == 0
    assert [idx for idx, _ in db] == list(range(9))
    monkeypatch.undo()
    db.close()
    with SnapDB(path) as db:
        assert [row["k"] for _, row in db] == list(range(1, 10))


@pytest.mark.parametrize("mmap", [True, False])
def test_rows_of_a_compacted_file_can_be_changed(tmp_path: Path, engine: str, mmap: bool) -> None:
    """The file was copied to its front without a word to the table, which then referred to what was free."""
    path, count, chosen = tmp_path / "t.snapdb", 150_000, random.Random(1)
    db = SnapDB(path, SCHEMA, storage_type=engine, mmap=mmap)
    db.insert_columns({"k": [chosen.randrange(1_000_000) for _ in range(count)], "s": ["text"] * count})
    db.checkpoint()
    db.delete_where([("k", "lt", 500_000)])
    assert db.compact() > 0
    rows: dict[int, Any] = dict(db)
    for turn in range(3):
        for idx in (5, 66_000):
            db.update(idx, {"s": f"turn {turn}"})
            rows[idx]["s"] = f"turn {turn}"
        db.delete(10 + turn)
        del rows[10 + turn]
        db.checkpoint()
        assert db.fsck()["issues"] == []
    db.close()
    with SnapDB(path, mmap=mmap) as db:
        assert dict(db) == rows and db.fsck()["issues"] == []


def test_an_interrupt_between_the_file_and_the_table_ends_the_handle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table went on with places in the file that were given back."""
    db = SnapDB(path)
    db.update(0, {"s": "changed"})
    kind: type[Table] = type(db._engine)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "saved", interrupted)
    with pytest.raises(KeyboardInterrupt):
        db.checkpoint()
    monkeypatch.undo()
    with pytest.raises(DurabilityError):
        db.update(1, {"s": "lost"})
    db.close()
    with SnapDB(path) as db:
        assert db[0]["s"] == "changed" and db[1]["s"] == "row 1" and db.fsck()["ok"]


# -- views -------------------------------------------------------------------
def test_rows_that_are_not_read_yet_are_not_read_from_a_file_that_is_given_up(tmp_path: Path, engine: str) -> None:
    """The lock was gone, and with it the promise that the bytes stay."""
    path, count = tmp_path / "t.snapdb", 70_000
    with SnapDB(path, SCHEMA, storage_type=engine) as db:
        db.insert_columns({"k": range(count), "s": ["text"] * count})
    db = SnapDB(path)
    rows = iter(db)
    assert next(rows)[1]["k"] == 0
    db.close()
    seen = 1
    with SnapDB(path) as db:
        db.batch_update([("k", "gte", 0)], {"k": -1})
        db.checkpoint()
        db.compact()
        try:
            for idx, row in rows:
                assert row["k"] == idx
                seen += 1
        except ClosedError:
            pass
        else:
            assert seen == count
    gc.collect()


@pytest.mark.parametrize("end", ["dropped", "refused", "two readers"])
def test_views_are_kept_from_the_next_handle_however_theirs_ended(tmp_path: Path, end: str) -> None:
    """Only close() told the next handle which extents are looked at, and of two readers only the last one."""
    path, count = tmp_path / "t.snapdb", 66_000
    with SnapDB(path, SCHEMA, storage_type="columnar") as db:
        db.insert_columns({"k": [k * 7919 % 65_537 for k in range(count)], "s": ["text"] * count})

    def opened() -> tuple[Store, memoryview]:
        """A handle's store and the first column's chunk in the file."""
        store = Store.open(str(path), for_copy(str(path), None).options._replace(read_only=end == "two readers"))
        piece = store.tree.get(0).pieces[0]  # type: ignore[union-attr]
        assert piece.ref is not None
        return store, store.read(piece.ref)

    store, view = opened()
    views = [view]
    if end == "two readers":
        other, view = opened()
        views.append(view)
        other.abandon()
        del other
    if end == "dropped":
        with pytest.warns(ResourceWarning):
            del store
            gc.collect()
    else:
        store.abandon()
    contents = [bytes(view) for view in views]
    if end == "refused":
        blocks = path.read_bytes()[:16384]
        with open(path, "r+b") as file:
            for slot in (4096, 12288):  # this is seen when the file is open already
                file.seek(slot)
                file.write(bytes(4096))
        with pytest.raises(SnapDBError):
            SnapDB(path)
        with open(path, "r+b") as file:
            file.write(blocks)
    del views[:-1], contents[:-1], view  # of two readers that of the first that went
    for turn in range(4):
        with SnapDB(path) as db:
            db.batch_update([("k", "gte", 0)], {"k": turn, "s": "other"})
            db.checkpoint()
            db.compact()
        assert [bytes(view) for view in views] == contents


def test_a_batch_whose_flush_failed_is_written_again(
    engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may go on showing what will never be on the disk; who opens the file next must not build on it."""
    monkeypatch.setattr(tablefile, "BULK", 1000)
    at, failed = 0, True
    while failed:
        at += 1
        layer = RecordingLayer(maps=True)
        layer.threads = False
        faulty = FaultyLayer(layer)
        with using(faulty):
            db = SnapDB("t.snapdb", FIXED, storage_type=engine, durability="full")
            db.insert({"k": -1})
            faulty.plan = Plan(at, kinds=frozenset({"sync"}))
            faulty.operations = 0
            try:
                db.insert_columns({"k": range(3000)})
                db.checkpoint()
            except DurabilityError:
                pass
            failed, faulty.plan = bool(faulty.failures), None
            db.close()
            with SnapDB("t.snapdb") as db:
                rows = list(db)
        on_disk = {path: layer.synced(number) for path, number in layer.numbers().items()}
        with using(RecordingLayer(on_disk, record=False)), SnapDB("t.snapdb") as db:
            assert list(db) == rows
            assert db.fsck()["issues"] == []
    assert at > 3
