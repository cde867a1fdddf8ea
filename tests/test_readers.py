"""Readers in other processes, real ones: of a snapshot beside a live writer, and of a whole database without one.

A reader adds up all rows again and again; killed, stopped or forked it keeps nobody from anything.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from test_fork_and_locks import PATIENCE, ran, script

from snapdb import ColumnDef, Schema, SnapDB
from snapdb.errors import ClosedError, LockedError, NotFoundError, SnapshotInUseError, StorageError
from snapdb.storage import pinned, pins, recovery
from snapdb.storage.superblock import SLOTS

pytestmark = pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes, no locks")
on_posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

LONG = bool(os.environ.get("SNAPDB_LONG"))
SCHEMA = Schema([ColumnDef("k", "i64"), ColumnDef("v", "f64"), ColumnDef("s", "str")])

#: prints what it found once for each line that it is given, and a last time when there are no more
READER = """
import hashlib
def sum_of(db):
    found = hashlib.sha256()
    for idx, row in db:
        found.update(repr((idx, row['k'], row['v'], row['s'])).encode())
    return found.hexdigest()[:16]
db = SnapDB(sys.argv[1], read_only=True, snapshot=sys.argv[2])
print('open', sum_of(db), flush=True)
rounds = 0
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until or not rounds:
    assert sum_of(db) == sys.argv[4] and len(db) == int(sys.argv[5]), 'another state'
    middle = db.aggregate('v')
    assert middle == db.aggregate('v')
    rounds += 1
    if os.path.exists(sys.argv[6]):
        break
db.close()
print(rounds, flush=True)
"""

#: opens a snapshot, says so, and closes it when its standard input ends
HOLDER = (
    "db = SnapDB(sys.argv[1], read_only=True, snapshot=sys.argv[2])\n"
    "print('open', len(db), flush=True)\nsys.stdin.read()\ndb.close()"
)


def made(path: Path, engine: str, count: int = 2000) -> SnapDB:
    """A new database of so many rows, open for writing."""
    db = SnapDB(path, SCHEMA, storage_type=engine)
    db.batch_insert([{"k": k, "v": k / 2, "s": f"row {k}"} for k in range(count)])
    return db


def sum_of(db: SnapDB) -> str:
    """What the readers find."""
    names: dict[str, Any] = {}
    exec(READER[: READER.index("db = SnapDB")], names)  # the same code
    return str(names["sum_of"](db))


class Reader:
    """Another process that has a snapshot open until it is told to go."""

    def __init__(self, path: Path, name: str) -> None:
        self.process = script(HOLDER, path, name)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == ["open"], self.process.communicate()
        self.rows = int(line[1])

    @property
    def pid(self) -> int:
        return self.process.pid

    def go(self) -> None:
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert not errors, errors

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def beside(path: Path) -> list[str]:
    """The files of readers that are there."""
    return sorted(name[len(path.name) :] for name in os.listdir(path.parent) if name.startswith(f"{path.name}-pin"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "read.snapdb"


# -- a writer and its readers --------------------------------------------------------
def run_beside(path: Path, engine: str, commits: int, seconds: float, kill: bool = True) -> dict[str, Any]:
    """Four readers of one snapshot beside a writer that commits, folds in and makes and drops other snapshots."""
    figures: dict[str, Any] = {"commits": 0, "checkpoints": 0}
    over = path.parent / "over"
    with made(path, engine) as db:
        db.snapshot("kept")
        total, count = sum_of(db), len(db)
        arguments = (path, "kept", seconds, total, count, over)
        readers = [script(READER, *arguments) for _ in range(5 if kill else 4)]
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == f"open {total}\n"
        draw, begin = random.Random(1), time.monotonic()
        for number in range(commits):
            what = draw.random()
            if what < 0.45:
                db.insert({"k": number, "v": float(number), "s": "new" * draw.randrange(20)})
            elif what < 0.9:
                with contextlib.suppress(NotFoundError):
                    db.update(draw.randrange(count), {"v": draw.random(), "s": f"changed {number}"})
            elif what < 0.97:
                with contextlib.suppress(NotFoundError):
                    db.delete(draw.randrange(count))
            else:
                with db.transaction():
                    db.batch_insert([{"k": k, "v": 0.5, "s": "x"} for k in range(20)])
            figures["commits"] += 1
            if number % 100 == 99:
                db.checkpoint()
                figures["checkpoints"] += 1
            if number % 1000 == 500:
                db.snapshot("other")
            if number % 1000 == 800:
                db.drop_snapshot("other")
            if kill and number == commits // 2:
                readers[4].kill()
                readers.pop().communicate(timeout=PATIENCE)
        figures["seconds"] = time.monotonic() - begin
        with pytest.raises(SnapshotInUseError) as caught:
            db.drop_snapshot("kept")
        assert any(f"process {reader.pid}:" in str(caught.value) for reader in readers)
        over.touch()
        figures["rounds"] = []
        for reader in readers:
            out, errors = reader.communicate(timeout=PATIENCE)
            assert reader.returncode == 0 and not errors, errors
            figures["rounds"].append(int(out))
        db.drop_snapshot("kept")
        assert db.fsck()["ok"]
    assert beside(path) == []
    return figures


@pytest.mark.smoke
def test_readers_beside_a_writer(path: Path, engine: str) -> None:
    figures = run_beside(path, engine, 2000, 300.0)
    assert figures["checkpoints"] == 20 and all(figures["rounds"])


@pytest.mark.long
def test_readers_beside_100_000_commits(path: Path, engine: str, record_property: Callable[[str, Any], None]) -> None:
    figures = run_beside(path, engine, 100_000, 3600.0)
    assert figures["commits"] == 100_000 and min(figures["rounds"]) > 20
    record_property(f"count: checks of a snapshot beside 100,000 commits, {engine}", sum(figures["rounds"]))


def test_what_a_reader_keeps_others_from(path: Path, engine: str) -> None:
    with made(path, engine) as db:
        db.snapshot("one")
        db.insert({"k": -1, "v": 0.0, "s": ""})
        db.snapshot("two")
        first, second = Reader(path, "one"), Reader(path, "two")
        assert (first.rows, second.rows) == (2000, 2001)
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: db.drop_snapshot("one"), f"snapshot 'one' is open in process {first.pid}: it cannot be dropped"),
            (lambda: db.snapshot("one"), f"snapshot 'one' is open in process {first.pid}: it cannot be replaced"),
            (lambda: db.drop_snapshot("two"), f"snapshot 'two' is open in process {second.pid}"),
            (db.compact, r"is open in process \d+: compact\(\) cannot be done"),
        ]
        for call, text in calls:
            with pytest.raises(SnapshotInUseError, match=text):
                call()
        first.go()
        db.drop_snapshot("one")
        with pytest.raises(SnapshotInUseError, match=str(second.pid)):
            db.compact()
        db.restore("two")  # takes nothing from anybody
        db.delete(0)
        second.go()
        db.compact()
        assert len(db) == 2000 and db.fsck()["ok"]
    assert beside(path) == []


def test_repair_waits_for_readers_to_go(path: Path, engine: str) -> None:
    with made(path, engine, 50) as db:
        db.snapshot("one")
    reader = Reader(path, "one")
    with open(path, "r+b") as file:
        file.seek(SLOTS[0])
        file.write(bytes(100))
    for _ in range(2):
        with pytest.raises(SnapshotInUseError, match=rf"process {reader.pid}: repair\(\) cannot be done"):
            SnapDB.repair_file(path)
    reader.go()
    report = SnapDB.repair_file(path)
    assert report["ok"] and report["snapshots"] == ["one"]
    reader = Reader(path, "one")
    assert reader.rows == 50
    reader.go()
    assert beside(path) == []


def test_a_reader_outlives_the_writer(path: Path, engine: str) -> None:
    with made(path, engine) as db:
        db.snapshot("one")
        reader = Reader(path, "one")
    assert beside(path) == ["-pin0", "-pins"]
    with SnapDB(path) as db:
        db.delete_where([("k", "gte", 0)])
        with pytest.raises(SnapshotInUseError, match=str(reader.pid)):
            db.drop_snapshot("one")
        second = Reader(path, "one")
        assert second.rows == 2000
        second.go()
    reader.go()
    assert beside(path) == []


# -- readers that do not end well --------------------------------------------------------
def loop(path: str, name: str) -> None:
    """Open a snapshot, read and close it, for ever: for a forked child."""
    while True:
        with SnapDB(path, read_only=True, snapshot=name) as db:
            if db.aggregate("v") != 500 * 999 / 2 or len(db) != 1000:
                os._exit(3)


def forked(work: Callable[[], None]) -> int:
    """A child process that does this and no more."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(2)
    os._exit(0)


@on_posix
def test_killed_at_any_moment(path: Path, engine: str) -> None:
    draw = random.Random(7)
    kills = 400 if LONG else 40
    with made(path, engine, 1000) as db:
        for number in range(kills):
            db.snapshot("s")
            children = [forked(lambda: loop(str(path), "s")) for _ in range(draw.choice((1, 1, 3)))]
            time.sleep(draw.random() * 0.03)
            db.update(number % 1000, {"s": f"{number}"})
            for child in children:
                os.kill(child, signal.SIGKILL)
            for child in children:
                _, status = os.waitpid(child, 0)
                assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
            db.drop_snapshot("s")  # nothing of theirs is in the way
        db.compact()
        assert db.fsck()["ok"]
    assert beside(path) == []


@on_posix
def test_stopped(path: Path, engine: str) -> None:
    with made(path, engine) as db:
        db.snapshot("s")
        reader = Reader(path, "s")
        os.kill(reader.pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                with pytest.raises(SnapshotInUseError, match=f"process {reader.pid}:"):
                    db.drop_snapshot("s")
            second = Reader(path, "s")  # does not mind
            second.go()
            db.checkpoint()
        finally:
            os.kill(reader.pid, signal.SIGCONT)
        reader.go()
        db.drop_snapshot("s")


@on_posix
def test_a_child_of_a_reader_is_none(path: Path, engine: str) -> None:
    """It lives longer than the reader, which is killed: the pin goes with the reader."""
    text = (
        "db = SnapDB(sys.argv[1], read_only=True, snapshot='s')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(os.getpid(), flush=True)\n"  # not the parent: the child has let go of the pin then
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "time.sleep(60)\n"
    )
    with made(path, engine) as db:
        db.snapshot("s")
        process = script(text, path, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        with pytest.raises(SnapshotInUseError, match=str(process.pid)):
            db.drop_snapshot("s")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        try:
            db.drop_snapshot("s")
        finally:
            os.kill(child, signal.SIGKILL)
            process.communicate()


@on_posix
def test_a_forked_reader(path: Path, engine: str) -> None:
    with made(path, engine) as db:
        db.snapshot("s")
        reader = SnapDB(path, read_only=True, snapshot="s")
        total = reader.aggregate("v")

        def child() -> None:
            for call in (lambda: reader[0], lambda: len(reader), lambda: reader.aggregate("v")):
                with pytest.raises(ClosedError, match="before this process was forked"):
                    call()
            reader.close()
            with SnapDB(path, read_only=True, snapshot="s") as own:
                assert own.aggregate("v") == total

        _, status = os.waitpid(forked(child), 0)
        assert status == 0
        assert reader.aggregate("v") == total and reader[5]["k"] == 5
        with pytest.raises(SnapshotInUseError):
            db.drop_snapshot("s")
        reader.close()
        db.drop_snapshot("s")
    assert beside(path) == []


# -- opening while it is dropped ---------------------------------------------------------
OPENING = """
import random
draw = random.Random(int(sys.argv[2]))
seen = missing = 0
print('open', flush=True)
while not seen or not os.path.exists(sys.argv[3]):  # once that is there the snapshot stays
    try:
        with SnapDB(sys.argv[1], read_only=True, snapshot='s', timeout=30) as db:
            values = set(db.select_column('v'))
            assert len(values) == 1 and len(db) == 200, (len(values), len(db))
            if draw.random() < 0.3:
                time.sleep(0.002)
            assert set(db.select_column('v')) == values
        seen += 1
    except NotFoundError:
        missing += 1
print(seen, missing, flush=True)
"""


def test_opened_while_it_is_dropped(path: Path, engine: str) -> None:
    """Whoever gets a snapshot has all of it, whoever does not is told so; the writer waits for no reader."""
    over = path.parent / "over"
    rounds = 4000 if LONG else 80
    with SnapDB(path, SCHEMA, storage_type=engine) as db:
        db.batch_insert([{"k": k, "v": 0.0, "s": "x" * 50} for k in range(200)])
        db.snapshot("s")
        readers = [script(OPENING, path, seed, over) for seed in range(3)]
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == "open\n"
        dropped = used = number = 0
        until = time.monotonic() + PATIENCE
        while number < rounds or not (dropped and used):
            assert time.monotonic() < until or number < rounds, (number, dropped, used)
            number += 1
            db.batch_update([("k", "gte", 0)], {"v": float(number)})
            if number % 3 == 0:
                db.checkpoint()
            try:
                if number % 2:
                    db.drop_snapshot("s")
                    dropped += 1
                db.snapshot("s")
            except SnapshotInUseError:
                used += 1
        over.touch()
        seen = 0
        for reader in readers:
            out, errors = reader.communicate(timeout=PATIENCE)
            assert reader.returncode == 0 and not errors, errors
            seen += int(out.split()[0])
        assert seen
        assert db.fsck()["ok"]
    assert beside(path) == []


def test_the_writer_is_busy(path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits while a snapshot is dropped, as long as it is told to."""
    monkeypatch.setattr(pins, "LEAST", 0.05)
    with made(path, engine) as db:
        db.snapshot("s")
        layer = db._file.store.layer  # type: ignore[union-attr]
        with pins.Gate(layer, str(path), True):
            with pytest.raises(LockedError, match="being dropped, or it is being compacted"):
                SnapDB(path, read_only=True, snapshot="s")
            timer = threading.Timer(0.3, lambda: gate.__exit__())
            gate = pins.Gate(layer, str(path.parent / "another"), True)
        gate = pins.Gate(layer, str(path), True)
        gate.__enter__()
        begin = time.monotonic()  # before the timer begins: this thread may wait between the two
        timer.start()
        with SnapDB(path, read_only=True, snapshot="s", timeout=PATIENCE) as reader:
            assert len(reader) == 2000 and time.monotonic() - begin > 0.2
        timer.join()
        with pins.Gate(layer, str(path), False), pytest.raises(LockedError, match="are opening its snapshots"):
            db.drop_snapshot("s")
        db.drop_snapshot("s")


# -- what is in the way ------------------------------------------------------------------
@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[Optional[int]]:
    """A folder in which this process, or a child with another user id, may not make files."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield 65534
        return
    folder.chmod(0o555)
    try:
        yield None
    finally:
        folder.chmod(0o755)


@on_posix
def test_a_folder_that_may_not_be_written(engine: str) -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = folder / "read.snapdb"
    try:
        with made(path, engine) as db:
            db.snapshot("s")
            path.chmod(0o644)
            with SnapDB(path, read_only=True, snapshot="s"):
                pass  # everything that it takes is imported
            with unwritable(folder) as user:

                def child() -> None:
                    if user is not None:
                        os.setuid(user)
                    hint = "right to make files in the folder.*read_only=True"
                    with pytest.raises(StorageError, match=hint) as caught:
                        SnapDB(path, read_only=True, snapshot="s")
                    assert caught.value.errno is not None

                _, status = os.waitpid(forked(child), 0)
                assert status == 0
            db.drop_snapshot("s")
    finally:
        shutil.rmtree(folder)


def test_files_that_were_left_over(path: Path, engine: str) -> None:
    with made(path, engine) as db:
        db.snapshot("s")
        texts = (b"", b"pid 1 snapshot 1\n".ljust(64, b"\0"), b"\xff" * 100, f"pid {os.getpid()} snapshot 1\n".encode())
        for number, text in enumerate(texts):
            path.with_name(f"{path.name}-pin{number}").write_bytes(text)
        path.with_name(f"{path.name}-pins").write_bytes(b"something")
        reader = Reader(path, "s")
        with pytest.raises(SnapshotInUseError, match=str(reader.pid)):
            db.drop_snapshot("s")
        reader.go()
        db.drop_snapshot("s")
    assert beside(path) == []


# -- without a writer ----------------------------------------------------------------------
WHOLE = """
db = SnapDB(sys.argv[1], read_only=True)
found = [len(db), db.aggregate('v')]
for one in db.list_snapshots():
    with db.open_snapshot(one['name']) as shown:
        assert len(shown) == one['rows']
        found.append((one['name'], len(shown), shown.aggregate('v')))
print(repr(found), flush=True)
sys.stdin.read()
db.close()
"""


def test_many_readers_of_what_a_crash_left(path: Path, engine: str) -> None:
    """Each has the log replayed in memory, with the snapshots that were made, dropped and gone back to in it."""
    db = made(path, engine)
    expected: dict[str, tuple[int, float]] = {}

    def snapshot(name: str) -> None:
        db.snapshot(name)
        expected[name] = (len(db), db.aggregate("v"))

    snapshot("one")
    db.insert({"k": 1, "v": 1000.0, "s": "more"})
    snapshot("two")
    db.checkpoint()
    for name in ("two", "three", "four"):
        db.delete(len(name))
        snapshot(name)
    db.drop_snapshot("three")
    del expected["three"]
    db.restore("one")
    db.update(7, {"v": -1.0})
    snapshot("five")
    db.insert({"k": 2, "v": 2.0, "s": "last"})
    db.flush()
    total = (len(db), db.aggregate("v"))
    db._abandon()
    names = list(expected)[::-1]
    names.sort(key=["five", "four", "two", "one"].index)
    said = repr([*total, *((name, *expected[name]) for name in names)])
    readers = [script(WHOLE, path) for _ in range(4)]
    try:
        for process in readers:
            assert process.stdout is not None
            assert process.stdout.readline() == said + "\n"
        with pytest.raises(LockedError):
            SnapDB(path)
        # beside them one that has only a snapshot, of the log that nobody has folded in
        for name, (count, value) in expected.items():
            with SnapDB(path, read_only=True, snapshot=name) as shown:
                assert (len(shown), shown.aggregate("v")) == (count, value)
        pinned = Reader(path, "five")
    finally:
        for process in readers:
            _, errors = process.communicate(timeout=PATIENCE)
            assert not errors, errors
    with SnapDB(path) as db:  # recovers, and folds in
        assert (len(db), db.aggregate("v")) == total
        with pytest.raises(SnapshotInUseError, match=str(pinned.pid)):
            db.drop_snapshot("five")
        for name, (count, value) in expected.items():
            with SnapDB(path, read_only=True, snapshot=name) as shown:
                assert (len(shown), shown.aggregate("v")) == (count, value)
        pinned.go()
        assert db.fsck()["ok"]


def test_a_reader_says_who_it_is(path: Path, engine: str) -> None:
    text = (
        "with SnapDB(sys.argv[1], read_only=True, snapshot='s') as db:\n"
        "    print(repr(db).replace(sys.argv[1], 'path'))\n"
        "    try:\n        db.delete(0)\n    except ReadOnlyError as error:\n        print('refused')"
    )
    with made(path, engine, 5) as db:
        db.snapshot("s")
        said = ran(text, path).splitlines()
        assert "snapshot='s'" in said[0] and said[1] == "refused"
        db.drop_snapshot("s")


@on_posix
@pytest.mark.skipif(sys.platform == "darwin", reason="processes start slowly there")
def test_the_writer_is_killed_among_readers(path: Path, engine: str) -> None:
    """What it left is read and recovered with readers on it."""
    writer_text = (
        "db = SnapDB(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "number = 0\n"
        "while True:\n"
        "    db.insert({'k': number, 'v': 1.0, 's': 'w'})\n"
        "    number += 1\n"
        "    if number % 20 == 0:\n        db.checkpoint()\n"
    )
    made(path, engine, 1000).close()
    with SnapDB(path) as db:
        db.snapshot("kept")
        total = sum_of(db)
    draw = random.Random(3)
    for _ in range(20 if LONG else 2):
        writer = script(writer_text, path, stderr=subprocess.DEVNULL)
        assert writer.stdout is not None and writer.stdout.readline() == "open\n"
        reader = Reader(path, "kept")
        time.sleep(0.02 + draw.random() * 0.05)
        writer.kill()
        writer.communicate()
        with SnapDB(path, read_only=True, snapshot="kept") as shown:
            assert sum_of(shown) == total
            with SnapDB(path, timeout=5) as db:
                db.checkpoint()
                assert db.fsck()["ok"]
                with pytest.raises(SnapshotInUseError):
                    db.compact()
            assert sum_of(shown) == total
        assert select.select([reader.process.stderr], [], [], 0)[0] == []
        reader.go()


def test_a_log_that_is_overwritten_while_it_is_read(path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning is of one epoch, its end of another one: a snapshot whose drop stood there is not pinned."""
    read, take = recovery.read_logs, pins.take
    taken: list[int] = []
    torn: list[recovery.LogFile] = []
    with SnapDB(path, SCHEMA, storage_type=engine, durability="none") as db:
        db.batch_insert([{"k": k, "v": 0.0, "s": "x" * 50} for k in range(200)])
        db.snapshot("s")
        db.checkpoint()
        db.update(0, {"v": 1.0})
        db.flush()
        before = [Path(f"{path}-wal{number}").read_bytes() for number in range(2)]
        db.drop_snapshot("s")

        def slowly(*args: Any) -> Any:
            early = read(*args)
            if torn:
                return early
            db.update(0, {"v": 2.0})
            db.checkpoint()
            torn.extend(log._replace(data=data) for log, data in zip(early, before))  # the frame of the drop is missing
            return tuple(torn)

        def noting(layer: Any, name: str, serial: int) -> Any:
            taken.append(serial)
            return take(layer, name, serial)

        monkeypatch.setattr(recovery, "read_logs", slowly)
        monkeypatch.setattr(pins, "take", noting)
        with pytest.raises(NotFoundError):
            SnapDB(path, read_only=True, snapshot="s")
        assert torn and not taken
        db.snapshot("s")
        SnapDB(path, read_only=True, snapshot="s").close()
        assert len(taken) == 1
    assert beside(path) == []


def test_checkpoints_without_end(path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never sees the file at rest says so, in the end."""
    read = recovery.read_logs
    monkeypatch.setattr(pinned, "PATIENCE", 0.3)
    with made(path, engine, 10) as db:
        db.snapshot("s")

        def slowly(*args: Any) -> Any:
            db.update(0, {"v": time.monotonic()})
            db.checkpoint()
            return read(*args)

        monkeypatch.setattr(recovery, "read_logs", slowly)
        with pytest.raises(LockedError, match="one checkpoint follows on another one.*; try again"):
            SnapDB(path, read_only=True, snapshot="s")
        monkeypatch.setattr(recovery, "read_logs", read)
        SnapDB(path, read_only=True, snapshot="s").close()
    assert beside(path) == []
