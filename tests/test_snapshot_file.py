"""Snapshots of a table in a file: reopened, after crashes and damage, without room, read-only, in forked children.

What holds in memory too is in ``test_snapshots.py``; storage alone is in ``test_snapshot_store.py``.
"""

from __future__ import annotations

import errno
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from conftest import Files
from test_fork_and_locks import on_posix, quiet_fork, ran

from snapdb import ColumnDef, Schema, SnapDB, errors
from snapdb.storage import archive
from snapdb.storage.files import using
from snapdb.storage.recovery import read_root
from snapdb.storage.superblock import SLOTS, read_slots
from snapdb.testing.layers import RecordingLayer

KEYED = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("t", "str", not_null=False)])
PATH = "t.snapdb"

Rows = list[tuple[int, dict[str, Any]]]
State = tuple[Rows, dict[str, Rows]]


def row(i: int) -> dict[str, Any]:
    return {"id": i, "t": f"text {i}"}


def keyed(files: Files, rows: int = 500, **options: Any) -> SnapDB:
    db = files.open(KEYED, **options)
    db.insert_columns({"id": range(rows), "t": [f"text {i}" for i in range(rows)]})
    return db


def names(db: SnapDB) -> list[str]:
    return [found["name"] for found in db.list_snapshots()]


def seen(db: SnapDB) -> State:
    """Rows, and those of every snapshot."""
    kept = {}
    for name in names(db):
        with db.open_snapshot(name) as shown:
            kept[name] = list(shown)
    return list(db), kept


def same(one: Any, other: Any) -> bool:
    return bool(one == other)


@contextmanager
def opened(contents: dict[str, bytes], **options: Any) -> Iterator[SnapDB]:
    """A database from the bytes of its files, in a place of its own."""
    layer = RecordingLayer(contents, maps=True)
    with using(layer), SnapDB(PATH, **options) as db:
        yield db


def work(db: SnapDB) -> list[State]:
    """Snapshots made, replaced, gone back to and dropped, with writes between; the states."""
    states = [seen(db)]

    def did(*calls: Callable[[], Any]) -> None:
        for call in calls:
            call()
            states.append(seen(db))

    did(lambda: db.snapshot("a"), lambda: db.update(1, {"t": "one"}), lambda: db.snapshot("b"))
    did(lambda: db.insert(row(10_000)), lambda: db.delete(2), lambda: db.snapshot("c"), lambda: db.snapshot("a"))
    did(lambda: db.restore("b"), lambda: db.insert(row(20_000)), lambda: db.snapshot("d"), lambda: db.restore("c"))
    did(lambda: db.delete(3), lambda: db.drop_snapshot("b"), lambda: db.restore("c"), lambda: db.restore("a"))
    did(
        lambda: db.batch_insert(map(row, range(30_000, 31_000))),
        lambda: db.snapshot("e"),
        lambda: db.drop_snapshot("d"),
    )
    return states


# -- reopened ------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal", "none"])
def test_they_are_there_when_it_is_opened_again(files: Files, durability: str) -> None:
    db = keyed(files, durability=durability)
    state = work(db)[-1]
    listed = db.list_snapshots()
    for _ in range(2):
        db.close()
        db = files.open()
        assert db.list_snapshots() == listed
        assert same(seen(db), state)
        assert db.fsck()["issues"] == []
    db.restore("c")
    assert same(list(db), state[1]["c"])
    for name in names(db):
        db.drop_snapshot(name)
    db.close()
    with files.open() as db:
        assert db.list_snapshots() == []
        assert same(list(db), state[1]["c"])
        assert db.fsck()["issues"] == []


def test_they_are_there_after_a_crash_at_any_time(files: Files) -> None:
    """The log has what no checkpoint took in; at level "full" all of it."""
    db = keyed(files, 200, durability="full")
    images: list[dict[str, bytes]] = []
    before = db.list_snapshots

    def watched() -> Any:
        images.append(files.contents())
        return before()

    db.list_snapshots = watched  # type: ignore[method-assign]
    states = work(db)
    assert len(images) == len(states)
    for contents, state in zip(images, states):
        for read_only in (True, False):
            with opened(contents, read_only=read_only) as again:
                assert same(seen(again), state)
                assert again.fsck()["issues"] == []


def bridging(db: SnapDB) -> Iterator[tuple[bool, State]]:
    """Steps with both slots in use; whether the newest tree is one that was restored, and what is there."""
    db.snapshot("old")
    db.checkpoint()
    steps: list[Callable[[], Any]] = [
        lambda: db.snapshot("a"), lambda: db.update(1, {"t": "x"}), lambda: db.checkpoint(),
        lambda: db.snapshot("b"), lambda: db.restore("a"), lambda: db.checkpoint(), lambda: db.drop_snapshot("old"),
        lambda: db.insert(row(1000)), lambda: db.checkpoint(), lambda: db.snapshot("c"), lambda: db.snapshot("a"),
        lambda: db.restore("b"), lambda: db.delete(5),
    ]  # fmt: skip
    for at, step in enumerate(steps):
        step()
        yield 5 <= at < 8, seen(db)


@pytest.mark.parametrize("damage", ["slot", "root"])
def test_a_damaged_newest_root_is_bridged(files: Files, damage: str) -> None:
    """The older slot's root and both logs say what was there, snapshots too."""
    db = keyed(files, 300, durability="full")
    bridged = 0
    for _, state in bridging(db):
        contents = damaged(files.contents(), damage)
        if contents is None:
            continue
        bridged += 1
        with opened(contents) as again:
            assert same(seen(again), state)
            assert again.fsck()["issues"] == []
            again.snapshot("more")
            again.update(0, {"t": "more"})
            for name in names(again):
                again.drop_snapshot(name)
            assert again.fsck()["issues"] == []
    assert bridged >= 8


def test_a_damaged_newest_tree_is_bridged(files: Files) -> None:
    """Snapshots of the very tree that is damaged cannot be shown, but for that all is as it was."""
    db = keyed(files, 300, durability="full")
    bridged = lost = 0
    for is_restored, state in bridging(db):
        contents = damaged(files.contents(), "top")
        if contents is None:
            continue
        if is_restored:  # the log says to go back to a tree that is damaged
            with pytest.raises(errors.CorruptionError), opened(contents):
                pass
            continue
        bridged += 1
        with opened(contents) as again:
            assert same(list(again), state[0])
            assert names(again) == list(state[1])
            found = again.fsck()
            broken = []
            for name, rows in state[1].items():
                try:
                    with again.open_snapshot(name) as shown:
                        assert same(list(shown), rows)
                except errors.CorruptionError:
                    broken.append(name)
            assert found["ok"] == (not broken)
            again.update(1, {"t": "goes on"})
            for name in broken:
                again.drop_snapshot(name)
            again.checkpoint()
            assert again.fsck()["issues"] == []
            lost += len(broken)
    assert bridged >= 4
    assert lost >= 3


def damaged(contents: dict[str, bytes], what: str) -> Optional[dict[str, bytes]]:
    """The newest root is not to be read; None where the other slot has it too."""
    layer = RecordingLayer(contents)
    with using(layer), SnapDB(PATH, read_only=True) as db:
        assert db._file is not None
        store = db._file.store
        blocks = sorted(read_slots(store.file, store.static.uuid), key=lambda block: block.generation)
        newest, other = blocks[-1], blocks[0]
        top = read_root(store.extents, newest).top
        if newest.root_at == other.root_at or top is None or top == read_root(store.extents, other).top:
            return None
        at = {"slot": SLOTS[newest.slot] + 40, "root": newest.root_at + 128 + 20, "top": top.extent + top.at + 20}[what]
    data = bytearray(contents[PATH])
    data[at] ^= 0x10
    return {**contents, PATH: bytes(data)}


# -- what is written and when --------------------------------------------------


def test_what_a_snapshot_writes(files: Files) -> None:
    db = keyed(files, 20_000)
    db.update(3, {"t": "x"})
    db.checkpoint()
    assert files.layer is not None
    before = len(files.contents()[PATH])
    layer = files.layer
    layer.record = True
    for i in range(5):
        db.snapshot(f"s{i}")
    layer.record = False
    writes = [op for op in layer.log if op.kind == "write"]
    assert 4096 <= len(files.contents()[PATH]) - before <= 5 * 4096
    assert sum(op.size for op in writes) <= 5 * (4096 + 512)
    assert len([op for op in layer.log if op.kind == "sync"]) <= 2  # the flusher's, at most


def test_a_snapshot_of_what_is_not_folded_in_takes_a_checkpoint(files: Files) -> None:
    db = keyed(files)
    generation = db.stats()["generation"]
    db.update(1, {"t": "x"})
    db.snapshot("a")
    folded = db.stats()["generation"]
    assert folded > generation
    db.snapshot("b")
    db.drop_snapshot("a")
    db.restore("b")
    db.snapshot("c")  # what came between has changed no row since
    assert db.stats()["generation"] == folded
    db.insert(row(900))
    db.snapshot("d")
    assert db.stats()["generation"] > folded
    assert [found["rows"] for found in db.list_snapshots()] == [501, 500, 500]


def test_growth_is_that_of_what_changes(files: Files) -> None:
    db = keyed(files, 30_000)
    db.checkpoint()
    db.snapshot("first")
    db.checkpoint()
    before = db.stats()
    for turn in range(20):
        for i in range(10):
            db.update(turn * 1000 + i, {"t": f"turn {turn}"})
        db.snapshot(f"s{turn}")
    db.checkpoint()
    after = db.stats()
    assert after["file_bytes"] - before["file_bytes"] < 20 * 300_000
    assert after["snapshot_bytes"] > before["snapshot_bytes"]
    whole = after["file_bytes"]
    for turn in range(20):
        db.drop_snapshot(f"s{turn}")
    db.drop_snapshot("first")
    db.checkpoint()
    assert db.stats()["snapshot_bytes"] == 0
    db.compact()
    assert db.stats()["file_bytes"] < whole
    assert db.fsck()["issues"] == []


@pytest.mark.parametrize("order", [1, -1])
def test_space_comes_back_after_restores(files: Files, order: int) -> None:
    db = keyed(files, 3000)
    db.snapshot("a")
    for turn in range(4):
        db.batch_update([("id", "lt", 1500)], {"t": f"turn {turn}"})
        db.snapshot(f"s{turn}")
        db.restore("a" if turn % 2 else "s0")
    db.restore("s3")
    db.restore("a")
    for name in names(db)[::order]:
        db.drop_snapshot(name)
    db.checkpoint()
    db.checkpoint()
    stats = db.stats()
    assert stats["snapshot_bytes"] == 0
    assert db.fsck()["issues"] == []
    assert same(list(db), [(i, row(i)) for i in range(3000)])


# -- handles -------------------------------------------------------------------


def test_read_only(files: Files) -> None:
    db = keyed(files)
    db.snapshot("a")
    db.update(1, {"t": "x"})
    db.snapshot("b")
    state = seen(db)
    for clean in (True, False):
        if clean:
            db.close()
        else:
            db._abandon()
        with files.open(read_only=True) as reader:
            assert same(seen(reader), state)
            assert reader.diff_snapshots("a", "b") == {"added": [], "changed": [1] if clean else [], "removed": []}
            calls: list[Callable[[], Any]] = [
                lambda: reader.snapshot("c"), lambda: reader.restore("a"), lambda: reader.drop_snapshot("a"),
                reader.compact,
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(errors.ReadOnlyError):
                    call()
            with reader.open_snapshot("a") as shown:  # writes stay in memory
                shown.insert(row(9999))
                shown.delete(0)
                assert len(shown) == 500
        if not clean:
            break
        db = files.open()
        db.restore("a")
        db.restore("b")
        db.drop_snapshot("a")
        db.snapshot("a")
        state = seen(db)
        db.update(1, {"t": "y"})
        db.restore("b")


def test_an_open_snapshot_keeps_the_file(files: Files) -> None:
    db = keyed(files, 3000)
    db.snapshot("a")
    db.update(5, {"t": "live"})
    shown = db.open_snapshot("a")
    other = db.open_snapshot("a")
    db.close()
    with pytest.raises(errors.LockedError, match="already open"):
        files.open()
    assert shown.get(5) == row(5)
    assert same(list(shown), [(i, row(i)) for i in range(3000)])
    shown.close()
    shown.close()
    with pytest.raises(errors.LockedError, match="already open"):
        files.open()
    del other
    gc.collect()
    with files.open() as again:
        assert again.get(5) == {"id": 5, "t": "live"}
        assert again.fsck()["issues"] == []


def test_nothing_of_a_closed_snapshot_is_read_from_what_is_there_now(files: Files) -> None:
    """Extents of a dropped snapshot are used again; what was taken from it before shows what it did, or says so."""
    db = keyed(files, 70_000)
    db.snapshot("a")
    db.batch_update([], {"t": "changed"})
    db.checkpoint()
    shown = db.open_snapshot("a")
    items, buffer = iter(shown), shown.column_buffer("id")
    got = [next(items) for _ in range(10)]
    shown.close()
    db.drop_snapshot("a")
    for turn in range(4):
        db.batch_update([("id", "lt", 3000)], {"t": f"turn {turn}"})
        db.checkpoint()
    assert same(list(buffer), list(range(70_000)))
    try:
        got += list(items)
    except errors.ClosedError:
        pass
    assert same(got, [(i, row(i)) for i in range(len(got))])


def test_what_was_not_read_when_it_is_restored(files: Files) -> None:
    """A view from before still reads its parts of the file, whatever is written there afterwards."""
    db = keyed(files, 140_000)
    db.snapshot("a")
    db.batch_update([("id", "gte", 60_000)], {"t": "changed"})
    changed = list(db)
    db.close()
    db = files.open()
    items = iter(db)
    got = [next(items)]
    db.restore("a")
    for turn in range(4):
        db.batch_update([("id", "lt", 3000)], {"t": f"turn {turn}"})
        db.checkpoint()
    db.drop_snapshot("a")
    db.delete_where([("id", "gte", 100_000)])
    db.checkpoint()
    db.checkpoint()
    assert same([*got, *items], changed)
    assert db.get(70_000) == row(70_000)


def test_threads_read_while_it_is_restored(files: Files) -> None:
    """Groups and segments that come from the file only when they are asked for are those of the table as it is."""
    db = keyed(files, 20_000)
    db.snapshot("a")
    db.batch_update([], {"t": "changed"})
    db.snapshot("b")
    problems: list[BaseException] = []
    stop = threading.Event()

    def read(at: int) -> None:
        i = at
        try:
            while not stop.is_set():
                i = (i * 7919 + 1) % 20_000
                found = db.get(i)
                assert found in (row(i), {"id": i, "t": "changed"}), found
                if i % 50 == 0:
                    assert len({found["t"] == "changed" for _, found in db}) == 1
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=read, args=(at,)) for at in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for turn in range(30):
            db.restore("ab"[turn % 2])
            assert db.count_where([("t", "eq", "changed")]) == (20_000 if turn % 2 else 0)
    finally:
        sys.setswitchinterval(before)
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems


def test_an_abandoned_handle_leaves_its_snapshots(files: Files) -> None:
    db = keyed(files)
    db.snapshot("a")
    shown = db.open_snapshot("a")
    assert db._file is not None
    db._file.store.poison(OSError(errno.EIO, "gone"))
    for call in (lambda: db.snapshot("b"), db.list_snapshots, lambda: db.open_snapshot("a"), lambda: db.restore("a")):
        with pytest.raises(errors.DurabilityError):
            call()
    assert shown.get(3) == row(3)
    db.close()
    shown.close()
    assert names(files.open()) == ["a"]


FORKED = """
import os, sys
from snapdb import SnapDB, Schema, ColumnDef
from snapdb.errors import ClosedError, LockedError
schema = Schema([ColumnDef("n", "i64")])
db = SnapDB(sys.argv[1], schema, storage_type=sys.argv[2])
db.insert_columns({"n": range(5000)})
db.snapshot("a")
db.update(1, {"n": -1})
shown = db.open_snapshot("a")
if len(sys.argv) > 3:
    db.close()
    del db
child = os.fork()
if not child:
    for call in (lambda: shown.get(1), lambda: shown.insert({"n": 1}), lambda: len(shown), lambda: list(shown)):
        try:
            call()
        except ClosedError as error:
            if "forked" not in str(error):
                os._exit(2)
        else:
            os._exit(1)
    sys.stdin.readline()
    os._exit(0)
assert shown.get(1) == {"n": 1}
shown.close()
if len(sys.argv) == 3:
    db.close()
with SnapDB(sys.argv[1]) as again:  # the child has let go of the lock, too
    assert again.get(1) == {"n": -1}
assert os.waitpid(child, 0)[1] == 0
"""


@on_posix
@pytest.mark.parametrize("closed", [(), ("closed",)])
def test_a_forked_child(tmp_path: Path, engine: str, closed: tuple[str, ...]) -> None:
    assert ran(quiet_fork + FORKED, tmp_path / "x.snapdb", engine, *closed) == ""


# -- what cannot be done ---------------------------------------------------------


class Tight(RecordingLayer):
    """A disk that may be full; ``refused`` counts how often it was."""

    refused = 0

    def take(self, *args: Any) -> None:
        try:
            super().take(*args)
        except OSError:
            self.refused += 1
            raise


@pytest.mark.parametrize("what", ["snapshot", "folded", "replace", "drop", "restore", "open", "compact"])
def test_no_room(files: Files, what: str) -> None:
    """However little room there is, nothing has happened or all of it, and the table goes on."""
    pages, refused = 0, True
    while refused:
        layer = Tight(maps=True, record=False)
        layer.threads = False
        with using(layer):
            refused = in_room(layer, files.engine, what, pages)
        pages += 1
    assert pages > 1 or what in ("open", "drop", "restore")


def in_room(layer: Tight, engine: str, what: str, pages: int) -> bool:
    """Do something where there is room for so many pages; whether there was too little."""
    db = SnapDB(PATH, KEYED, storage_type=engine)
    db.insert_columns({"id": range(300), "t": [f"text {i}" for i in range(300)]})
    db.snapshot("a")
    db.update(1, {"t": "x"})
    db.snapshot("b")
    if what != "folded":
        db.delete(2)
    calls: dict[str, Callable[[], Any]] = {
        "snapshot": lambda: db.snapshot("c"), "folded": lambda: db.snapshot("c"), "replace": lambda: db.snapshot("a"),
        "drop": lambda: db.drop_snapshot("a"), "restore": lambda: db.restore("a"), "compact": db.compact,
        "open": lambda: db.open_snapshot("a").close(),
    }  # fmt: skip
    before = seen(db)
    layer.space = sum(map(len, layer.contents().values())) + pages * 4096
    try:
        calls[what]()
    except errors.StorageError:
        assert same(seen(db), before)
        assert layer.refused
    else:
        assert what == "compact" or not layer.refused  # which has happened, only room is not given back
    layer.space = None
    assert db.fsck()["issues"] == []
    if same(seen(db), before):
        calls[what]()
    db.update(0, {"t": "goes on"})
    db.restore("b")
    state = seen(db)
    db.close()
    with SnapDB(PATH) as again:
        assert same(seen(again), state)
        assert again.fsck()["issues"] == []
    return bool(layer.refused)


def test_there_is_a_limit(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_SNAPSHOTS", 3)
    db = keyed(files, 3)
    for name in "abc":
        db.snapshot(name)
    with pytest.raises(errors.NotSupportedError, match="3 snapshots"):
        db.snapshot("d")
    db.snapshot("b")  # in place of another one
    assert names(db) == ["b", "c", "a"]
    db.drop_snapshot("a")
    db.snapshot("d")


def test_what_is_said_of_a_snapshot_is_checked(files: Files) -> None:
    db = keyed(files, 3)
    db.snapshot("a")
    assert db._file is not None
    history = db._file.store.history
    for meta in (b"{}", b"[1]", b"\xff", b'{"rows": 3}'):
        history.records[0] = history.records[0]._replace(meta=meta)
        with pytest.raises(errors.CorruptionError, match="snapshot 'a'"):
            db.list_snapshots()


# -- compact ---------------------------------------------------------------------


def test_compact_leaves_snapshots_as_they_are(files: Files) -> None:
    db = keyed(files, 5000)
    db.snapshot("a")
    db.delete_where([("id", "lt", 2500)])
    db.snapshot("b")
    kept = seen(db)[1]
    for turn in range(3):
        db.delete(next(iter(db))[0])
        assert db.compact() >= 0
        assert next(iter(db)) == (0, row(2501 + turn))
        assert same(seen(db)[1], kept)
        assert db.fsck()["issues"] == []
        db.insert(row(10_000 + turn))
    shown = db.open_snapshot("b")
    for call in (db.compact, lambda: db.drop_snapshot("b"), lambda: db.snapshot("b")):
        with pytest.raises(errors.SnapshotInUseError, match="open in this process"):
            call()
    assert same(list(shown), kept["b"])
    shown.close()
    state = seen(db)
    db._abandon()
    db = files.open()
    assert same(seen(db), state)
    db.restore("a")
    assert same(list(db), kept["a"])
    db.drop_snapshot("a")
    db.drop_snapshot("b")
    before = db.stats()["file_bytes"]
    db.delete_where([("id", "gte", 100)])
    db.compact()
    assert db.get(99) == row(99)  # a kernel's twin remembers how it has read a segment, and that keeps the file long
    db.compact()
    assert db.stats()["file_bytes"] < before
    assert db.fsck()["issues"] == []


@pytest.mark.parametrize("mmap", [True, False])
def test_compact_once_is_enough(files: Files, mmap: bool) -> None:
    """Also where the second copy of the rows finds a small gap behind a large one."""
    db = keyed(files, 20_000, mmap=mmap)
    db.snapshot("a")
    db.delete_where([("id", "lt", 10_000)])
    db.compact()
    db.batch_update([("id", "gte", 19_000)], {"t": "changed"})
    db.snapshot("b")
    db.drop_snapshot("a")
    db.drop_snapshot("b")
    db.delete_where([("id", "lt", 19_500)])
    gc.collect()
    assert db.compact() > 0
    size = db.stats()["file_bytes"]
    gc.collect()
    db.compact()
    assert size <= db.stats()["file_bytes"] + (32 << 10)
    assert [found for _, found in db] == [{"id": i, "t": "changed"} for i in range(19_500, 20_000)]
    assert db.fsck()["issues"] == []


def test_compact_in_a_transaction_with_snapshots(files: Files) -> None:
    db = keyed(files, 300)
    db.snapshot("a")
    db.delete(0)
    before = list(db)
    with pytest.raises(RuntimeError, match="stop"), db.transaction():
        db.compact()
        raise RuntimeError("stop")
    assert same(list(db), before)
    assert db._engine.last_generation == 0  # what a replay of the log says, too
    with db.transaction():
        db.compact()
        db.insert(row(999))
    db.snapshot("b")
    assert same(seen(db)[1], {"a": [(i, row(i)) for i in range(300)], "b": list(db)})
    with pytest.raises(errors.TransactionError), db.transaction():
        db.snapshot("c")
    with db.open_snapshot("a"), pytest.raises(errors.SnapshotInUseError), db.transaction():
        db.compact()
    assert db.diff_snapshots("a", "b") == {"added": [299], "changed": [], "removed": [0]}


# -- generations of row ids ------------------------------------------------------


def test_generations_are_never_given_out_twice(files: Files) -> None:
    db = keyed(files, 100)
    db.snapshot("zero")
    db.delete(0)
    db.compact()
    db.snapshot("one")
    db.restore("zero")
    db._abandon()
    db = files.open()  # the log restores it
    db.delete(7)
    db.compact()
    db.snapshot("two")
    assert db._engine.generation == 2
    db.restore("zero")
    db.close()
    db = files.open()
    assert (db._engine.generation, db._engine.last_generation) == (0, 2)
    assert db.diff_snapshots("one", "two") == {"added": [0], "changed": [], "removed": [6]}
    db.compact()
    assert db._engine.generation == 3
    assert db.fsck()["issues"] == []


def test_statistics(files: Files) -> None:
    db = keyed(files, 2000)
    assert db.stats()["snapshot_bytes"] == 0
    db.snapshot("a")
    assert db.stats()["snapshot_bytes"] == 4096
    db.batch_update([], {"t": "x" * 30})
    db.checkpoint()
    stats = db.stats()
    assert 8192 < stats["snapshot_bytes"] < stats["file_bytes"]
    assert db.memory_usage() == stats["memory_bytes"]
    db.close()
    with files.open(read_only=True) as reader:
        assert reader.stats()["snapshot_bytes"] == stats["snapshot_bytes"]
