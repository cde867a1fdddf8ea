"""One writer or several readers, in this process and others; what a fork, a failed open and a lost handle leave."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Callable

import pytest
from people import PLAIN

from snapdb import SnapDB
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    LockedError,
    NotSupportedError,
    ReadOnlyError,
    SchemaMismatchError,
    SnapDBError,
    TransactionError,
)

pytestmark = pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes, no locks")

ROW = {"k": 1, "v": 0.5, "s": "x"}
on_posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path, engine: str) -> Path:
    """A closed database of ten rows."""
    where = tmp_path / "locked.snapdb"
    with SnapDB(where, PLAIN, storage_type=engine) as db:
        db.batch_insert([{"k": k, "v": k / 2, "s": f"row {k}"} for k in range(10)])
    return where


def script(text: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another Python that runs ``text``, with pipes."""
    command = [sys.executable, "-c", "import os, sys, time\nfrom snapdb import *\nfrom snapdb.errors import *\n" + text]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, *map(str, arguments)], text=True, **{**pipes, **options})


def ran(text: str, *arguments: object) -> str:
    """What such a Python printed; it must end well and without a word on standard error."""
    process = script(text, *arguments)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and not errors, errors
    return out


class Holder:
    """Another process that has the database open until it is told to go."""

    HOLD = (
        "db = SnapDB(sys.argv[1], read_only=sys.argv[2] == 'r')\n"
        "print('open', flush=True)\nsys.stdin.read()\ndb.close()"
    )

    def __init__(self, path: Path, mode: str = "w") -> None:
        self.process = script(self.HOLD, path, mode)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert not errors, errors


# -- one writer ------------------------------------------------------------
def test_twice_in_one_process(path: Path) -> None:
    with SnapDB(path) as db:
        for options in ({}, {"read_only": True}, {"schema": PLAIN}, {"timeout": 0.01}):
            with pytest.raises(LockedError, match="already open") as caught:
                SnapDB(path, **options)  # type: ignore[arg-type]
            assert caught.value.pid == os.getpid() and str(os.getpid()) in str(caught.value)
            assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, TimeoutError)
        db.insert(ROW)
    with SnapDB(path) as db:
        assert len(db) == 11


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_under_other_names(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    soft, hard = tmp_path / "soft", tmp_path / "folder" / "hard"
    soft.symlink_to(path)
    os.link(path, hard)
    (tmp_path / "there").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "folder")
    names = [soft, hard, "../locked.snapdb", tmp_path / "folder" / ".." / path.name, tmp_path / "there" / path.name]
    with SnapDB(path):
        for name in names:
            with pytest.raises(LockedError, match="already open"):
                SnapDB(name)
    with SnapDB(soft):
        for name in (path, *names[1:]):
            with pytest.raises(LockedError):
                SnapDB(name)
    with Holder(soft) as holder:
        for name in (path, *names):
            with pytest.raises(LockedError, match="locked") as caught:
                SnapDB(name)
            assert caught.value.pid == holder.process.pid


def test_in_another_process(path: Path) -> None:
    with Holder(path) as holder:
        for options in ({}, {"read_only": True}, {"timeout": 0.01}):
            with pytest.raises(LockedError, match="locked") as caught:
                SnapDB(path, **options)  # type: ignore[arg-type]
            assert caught.value.pid == holder.process.pid
            assert str(holder.process.pid) in str(caught.value)
    with SnapDB(path) as db:
        assert len(db) == 10


def test_the_holder_is_killed(path: Path) -> None:
    holder = Holder(path)
    holder.process.kill()
    holder.process.communicate(timeout=PATIENCE)
    with SnapDB(path, timeout=10) as db:
        assert len(db) == 10


def test_this_process_holds(path: Path) -> None:
    text = "try:\n  SnapDB(sys.argv[1])\nexcept LockedError as error:\n  print(error.pid)"
    with SnapDB(path):
        assert ran(text, path).split() == [str(os.getpid())]


def test_threads_race_for_it(path: Path) -> None:
    outcomes: list[Any] = []
    start = threading.Barrier(8)

    def opens() -> None:
        start.wait()
        try:
            outcomes.append(SnapDB(path))
        except LockedError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=opens) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handles = [each for each in outcomes if isinstance(each, SnapDB)]
    assert len(outcomes) == 8 and len(handles) == 1
    handles[0].close()


def test_two_make_the_same_file(tmp_path: Path, engine: str) -> None:
    where = tmp_path / "new.snapdb"
    text = (
        "schema = Schema([ColumnDef('k', 'i64')])\n"
        "with SnapDB(sys.argv[1], schema, storage_type=sys.argv[2], timeout=30) as db:\n"
        "  db.insert({'k': os.getpid()})\n"
    )
    processes = [script(text, where, engine) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    with SnapDB(where) as db:
        assert sorted(db.select_column("k")) == sorted(process.pid for process in processes)
    assert os.listdir(tmp_path) == ["new.snapdb"]


# -- waiting -----------------------------------------------------------------
def test_waiting_for_another_handle(path: Path) -> None:
    db = SnapDB(path)
    closing = threading.Timer(0.1, db.close)
    closing.start()
    with SnapDB(path, timeout=PATIENCE) as second:
        assert len(second) == 10
    closing.join()


def test_waiting_for_another_process(path: Path) -> None:
    holder = Holder(path)
    assert holder.process.stdin is not None
    closing = threading.Timer(0.1, holder.process.stdin.close)
    closing.start()
    with SnapDB(path, timeout=PATIENCE) as db:
        assert len(db) == 10
    closing.join()
    holder.process.wait(PATIENCE)
    for pipe in (holder.process.stdout, holder.process.stderr):
        assert pipe is not None
        pipe.close()


def test_waiting_in_vain(path: Path) -> None:
    with SnapDB(path):
        started = time.monotonic()
        with pytest.raises(LockedError):
            SnapDB(path, timeout=0.2)
        assert 0.2 <= time.monotonic() - started < 30


# -- readers ---------------------------------------------------------------
def test_readers_share(path: Path) -> None:
    with SnapDB(path, read_only=True) as one, SnapDB(path, read_only=True) as two, Holder(path, "r"):
        assert dict(one) == dict(two)
        with pytest.raises(LockedError):
            SnapDB(path)
        text = "print(len(SnapDB(sys.argv[1], read_only=True)))"
        assert ran(f"import warnings; warnings.simplefilter('ignore')\n{text}", path) == "10\n"
    with SnapDB(path) as db:
        db.insert(ROW)


def test_a_reader_goes_and_a_writer_comes(path: Path) -> None:
    one, two = SnapDB(path, read_only=True), SnapDB(path, read_only=True)
    one.close()
    one.close()
    with pytest.raises(LockedError):
        SnapDB(path)
    two.close()
    SnapDB(path).close()


def test_a_reader_in_another_process_keeps_a_writer_out(path: Path) -> None:
    with Holder(path, "r"):
        with pytest.raises(LockedError, match="locked"):
            SnapDB(path)
        with SnapDB(path, read_only=True) as db:
            assert len(db) == 10


def test_a_reader_leaves_no_trace(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    with SnapDB(path, read_only=True) as db:
        for write in (
            lambda: db.insert(ROW), lambda: db.batch_insert([ROW]), lambda: db.insert_columns({"k": [1]}),
            lambda: db.update(0, {"k": 2}), lambda: db.delete(0), lambda: db.delete_where([("k", "eq", 1)]),
            lambda: db.batch_update([("k", "eq", 1)], {"k": 2}), db.compact, db.checkpoint, db.transaction,
        ):  # fmt: skip
            with pytest.raises(ReadOnlyError):
                write()  # type: ignore[no-untyped-call]
        db.flush()
        assert db.fsck()["ok"]
    assert path.read_bytes() == content and os.listdir(tmp_path) == [path.name]


def test_a_reader_of_an_unclean_file_leaves_it_so(path: Path, tmp_path: Path) -> None:
    with SnapDB(path) as db:
        db.insert(ROW)
        wanted = dict(db)
        for name in os.listdir(tmp_path):
            (tmp_path / "copy").mkdir(exist_ok=True)
            if name != "copy":
                shutil.copy(tmp_path / name, tmp_path / "copy")
    copy = tmp_path / "copy" / path.name
    before = {name: (copy.parent / name).read_bytes() for name in os.listdir(copy.parent)}
    for _ in range(2):
        with SnapDB(copy, read_only=True) as one, SnapDB(copy, read_only=True) as two:
            assert dict(one) == dict(two) == wanted
    assert {name: (copy.parent / name).read_bytes() for name in os.listdir(copy.parent)} == before
    with SnapDB(copy) as db:
        assert dict(db) == wanted
    assert os.listdir(copy.parent) == [path.name]


# -- fork --------------------------------------------------------------------
FORKED = """
path, level = sys.argv[1:]
db = SnapDB(path, durability=level)
db.insert({"k": 100, "v": None, "s": "before"})
child = os.fork()
if not child:
    code = 0
    calls = [lambda: db.insert({"k": 1, "v": None, "s": None}), lambda: db.get(0), lambda: len(db), lambda: dict(db),
             lambda: db.update(0, {"k": 5}), lambda: db.delete(0), db.flush, db.checkpoint, db.compact, db.transaction,
             lambda: db.batch_insert([{"k": 1, "v": None, "s": None}]), db.__enter__, db.stats, db.fsck]
    for number, call in enumerate(calls):
        try:
            call()
        except ClosedError as error:
            if "fork" not in str(error):
                print("call", number, "says", error); code = 1
        except BaseException as error:
            print("call", number, type(error), error); code = 1
        else:
            print("call", number, "worked"); code = 1
    try:
        SnapDB(path)
        print("opened twice"); code = 1
    except LockedError as error:
        if error.pid != os.getppid():
            print("locked by", error.pid); code = 1
    db.close()
    db.close()
    del db, calls, call
    sys.stdout.flush()
    os._exit(code)
_, status = os.waitpid(child, 0)
assert status == 0, status
db.insert({"k": 101, "v": None, "s": "after"})
child = os.fork()
if not child:  # the handle is not even touched
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
db.update(0, {"s": "changed"})
with db.transaction():
    db.insert({"k": 102, "v": None, "s": "in one"})
child = os.fork()
if not child:
    try:
        SnapDB(path)
    except LockedError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
rows = dict(db)
db.close()
with SnapDB(path) as db:
    assert dict(db) == rows and len(db) == 13
child = os.fork()
if not child:
    with SnapDB(path) as db:
        db.insert({"k": 103, "v": None, "s": "the child's own"})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with SnapDB(path) as db:
    assert len(db) == 14 and db.fsck()["ok"]
"""

quiet_fork = "import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning)\n"


@on_posix
@pytest.mark.parametrize("level", ["full", "normal", "none"])
def test_a_forked_child(path: Path, level: str) -> None:
    assert ran(quiet_fork + FORKED, path, level) == ""


IN_TRANSACTION = """
db = SnapDB(sys.argv[1])
with db.transaction():
    db.insert({"k": 100, "v": None, "s": "x"})
    child = os.fork()
    if not child:
        try:
            db.insert({"k": 1, "v": None, "s": None})
        except ClosedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    db.insert({"k": 101, "v": None, "s": "y"})
child = os.fork()
if not child:
    try:
        with db.transaction():
            pass
    except ClosedError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
db.close()
with SnapDB(sys.argv[1]) as db:
    assert len(db) == 12
"""


@on_posix
def test_a_fork_inside_a_transaction(path: Path) -> None:
    assert ran(quiet_fork + IN_TRANSACTION, path) == ""


LEAVING = """
db = SnapDB(sys.argv[1])
child = os.fork()
if not child:
    try:
        with db.transaction():
            os._exit(3)
    except ClosedError:
        pass
    with SnapDB(sys.argv[1] + '.child', Schema([ColumnDef('k', 'i64')])) as own:
        own.insert({'k': 1})
    sys.exit(0)  # the interpreter ends as it does everywhere: finalizers run
assert os.waitpid(child, 0)[1] == 0
db.insert({"k": 100, "v": None, "s": "x"})
text = "import sys\\nfrom snapdb import *\\ntry:\\n  SnapDB(sys.argv[1])\\nexcept errors.LockedError:\\n  sys.exit(7)"
import subprocess
assert subprocess.run([sys.executable, '-c', text, sys.argv[1]]).returncode == 7
db.close()
db = SnapDB(sys.argv[1], read_only=True)
assert db.get(10)['k'] == 100
"""


@on_posix
def test_a_child_that_ends_does_not_unlock(path: Path) -> None:
    ran("import warnings; warnings.simplefilter('ignore')\n" + LEAVING, path)


READING = """
db = SnapDB(sys.argv[1], read_only=True)
view = db.get_raw(0) if sys.argv[2] == 'row' else db.column_buffer('k')
held = bytes(view)
child = os.fork()
if not child:
    assert bytes(view) == held  # what was handed out stays readable
    try:
        db.get(0)
    except ClosedError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert len(dict(db)) == 10
db.close()
"""


@on_posix
def test_a_fork_of_a_reader(path: Path, engine: str) -> None:
    assert ran(quiet_fork + READING, path, engine) == ""


def worker(path: str) -> str:
    """What a process of a pool sees of a database that its parent may have open."""
    try:
        with SnapDB(path, read_only=True) as db:
            return f"{len(db)} rows"
    except LockedError as error:
        return f"locked by {error.pid}"


def test_processes_of_a_pool(path: Path) -> None:
    text = "sys.path.insert(0, sys.argv[2])\nfrom test_fork_and_locks import worker\nprint(worker(sys.argv[1]))"
    here = Path(__file__).parent
    with SnapDB(path):
        assert ran(text, path, here) == f"locked by {os.getpid()}\n"
    assert ran(text, path, here) == "10 rows\n"


# -- what is left behind -------------------------------------------------------
def held(path: Path) -> list[str]:
    """The descriptors and maps of the files of a database that this process has."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if str(path) in target:
            found.append(f"descriptor of {target}")
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if str(path) in line:
            found.append(f"map of {line.split(None, 5)[-1]}")
    return found


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def unclean(path: Path) -> None:
    """As if the writer had been killed."""
    with SnapDB(path, durability="full") as db:
        for k in range(50):
            db.insert({"k": k, "v": None, "s": "logged"})
        files = {name: Path(name).read_bytes() for name in (str(path), f"{path}-wal0", f"{path}-wal1")}
    for name, data in files.items():
        Path(name).write_bytes(data)


def damage_both(path: Path, *places: int) -> None:
    for at in places:
        flip(path, at)


def missing_logs(path: Path) -> None:
    unclean(path)
    for parity in (0, 1):
        Path(f"{path}-wal{parity}").unlink()


def damaged_log(path: Path) -> None:
    unclean(path)
    for parity in (0, 1):
        name = Path(f"{path}-wal{parity}")
        if any(name.read_bytes()[64:200]):
            flip(name, 150)


def foreign_log(path: Path) -> None:
    other = path.with_name("other.snapdb")
    with SnapDB(other, PLAIN) as db:
        db.insert(ROW)
        logs = [Path(f"{other}-wal{parity}").read_bytes() for parity in (0, 1)]
    unclean(path)
    for parity in (0, 1):
        Path(f"{path}-wal{parity}").write_bytes(logs[parity])


def newer_version(path: Path) -> None:
    damage_both(path, 8, 0x2008)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:0x5000])


Damage = Callable[[Path], None]
FAILURES: list[tuple[str, Damage, type[BaseException], dict[str, Any]]] = [
    ("other kind", lambda path: path.write_bytes(b"text" * 5000) and None, CorruptionError, {}),
    ("static headers", lambda path: damage_both(path, 100, 0x2000 + 100), CorruptionError, {}),
    ("superblocks", lambda path: damage_both(path, 0x1000 + 40, 0x3000 + 40), CorruptionError, {}),
    ("newer", newer_version, NotSupportedError, {}),
    ("cut", cut_short, CorruptionError, {}),
    ("cut in the preamble", lambda path: path.write_bytes(path.read_bytes()[:9000]) and None, CorruptionError, {}),
    ("missing logs", missing_logs, CorruptionError, {}),
    ("damaged log", damaged_log, CorruptionError, {}),
    ("foreign log", foreign_log, CorruptionError, {}),
    ("schema", lambda path: None, SchemaMismatchError, {"schema": PLAIN, "storage_type": "other"}),
    ("unclean and schema", unclean, SchemaMismatchError, {"schema": PLAIN, "storage_type": "other"}),
]


@on_linux
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("failure", FAILURES, ids=[failure[0] for failure in FAILURES])
def test_a_failed_open_leaves_nothing(
    path: Path, failure: tuple[str, Damage, type[BaseException], dict[str, Any]], read_only: bool, engine: str
) -> None:
    _, damage, expected, options = failure
    if options:
        options = {**options, "storage_type": "row" if engine == "columnar" else "columnar"}
    whole = path.read_bytes()
    damage(path)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(expected):
                SnapDB(path, read_only=read_only, **options)
            assert held(path) == []
        assert len(os.listdir("/proc/self/fd")) == before and threading.active_count() <= threads
    finally:
        gc.enable()
    # and nothing of the lock
    for name in (path, Path(f"{path}-wal0"), Path(f"{path}-wal1")):
        name.unlink(missing_ok=True)
    path.write_bytes(whole)
    with SnapDB(path) as db:
        assert len(db) == 10
    assert held(path) == []


@on_linux
def test_a_refused_lock_leaves_nothing(path: Path) -> None:
    with Holder(path):
        for _ in range(3):
            with pytest.raises(LockedError):
                SnapDB(path)
            with pytest.raises(LockedError):
                SnapDB(path, read_only=True, timeout=0.01)
        assert held(path) == []
    SnapDB(path).close()


@on_linux
def test_opening_and_closing_adds_nothing(path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for turn in range(30):
            with SnapDB(path, read_only=turn % 3 == 0) as db:
                if turn % 3:
                    db.insert(ROW)
                assert db.aggregate("k", "count") == len(db)
            assert held(path) == []
        assert len(os.listdir("/proc/self/fd")) == before[0]
        until = time.monotonic() + 10
        while threading.active_count() > before[1] and time.monotonic() < until:
            time.sleep(0.02)
        assert threading.active_count() <= before[1]
    finally:
        gc.enable()


@on_linux
@pytest.mark.parametrize("level", ["full", "normal", "none"])
def test_a_handle_that_is_dropped(path: Path, level: str) -> None:
    db = SnapDB(path, durability=level)
    db.insert(ROW)
    db.flush()
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del db
        assert held(path) == []
        assert [each.category for each in caught if each.category is ResourceWarning] == [ResourceWarning]
        assert str(path) in str(caught[0].message)
        with SnapDB(path) as db:  # it was not closed: recovered
            assert len(db) == 11
    finally:
        gc.enable()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_handle_that_nobody_keeps(path: Path, read_only: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.suppress(ClosedError):
            row = SnapDB(path, read_only=read_only).get(7)
            assert row is not None and row["k"] == 7
        assert len(SnapDB(path, read_only=read_only).select()) == 10
        for given in (
            lambda: iter(SnapDB(path, read_only=read_only)),
            lambda: SnapDB(path, read_only=read_only).query(lambda row: True),
        ):
            rows = given()
            gc.collect()
            try:  # all of them, or it says that the handle is gone; never fewer
                assert [idx for idx, _ in rows] == list(range(10))
            except ClosedError:
                pass
            gc.collect()
    with SnapDB(path) as db:
        assert len(db) == 10


@on_linux
def test_a_reader_that_is_dropped(path: Path) -> None:
    db = SnapDB(path, read_only=True)
    assert len(dict(db)) == 10
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del db
        assert held(path) == []
        SnapDB(path).close()
    finally:
        gc.enable()


def test_a_process_that_does_not_close(path: Path) -> None:
    for level, added in (("full", 2), ("normal", 2)):
        text = (
            "db = SnapDB(sys.argv[1], durability=sys.argv[2])\n"
            "db.insert({'k': 1, 'v': None, 's': 'x'})\n"
            "with db.transaction():\n  db.insert({'k': 2, 'v': None, 's': 'y'})\n"
        )
        with SnapDB(path) as db:
            before = len(db)
        ran(text, path, level)
        with SnapDB(path) as db:
            assert len(db) == before + added


def test_a_transaction_that_a_process_does_not_end(path: Path) -> None:
    text = (
        "db = SnapDB(sys.argv[1])\n"
        "db.insert({'k': 1, 'v': None, 's': 'x'})\n"
        "held = db.transaction()\nheld.__enter__()\n"
        "for k in range(100):\n  db.insert({'k': k, 'v': None, 's': 'y' * 1000})\n"
        "db.update(0, {'k': 77})\n"
        "sys.stdout.flush()\nos._exit(0)\n"
    )
    ran(text, path)
    with SnapDB(path) as db:
        assert len(db) == 11 and db[0]["k"] == 0 and db.fsck()["ok"]


# -- views that outlive their handle -------------------------------------------
def test_views_after_close(path: Path, engine: str) -> None:
    db = SnapDB(path)
    views = views_of(db, engine)
    contents = [bytes(view) for view in views]
    db.update(0, {"k": 999, "s": "changed"})
    db.checkpoint()
    assert [bytes(view) for view in views] == contents
    db.close()
    assert [bytes(view) for view in views] == contents
    for turn in range(5):  # their bytes in the file are not used again as long as they are mapped
        with SnapDB(path) as db:
            db.batch_update([("k", "gte", 0)], {"s": f"turn {turn}", "k": turn})
            db.checkpoint()
            db.delete(turn)
            db.checkpoint()
            assert [bytes(view) for view in views] == contents
    with SnapDB(path) as db:
        assert len(db) == 5 and db.fsck()["ok"]
        if turn == 4:
            db.compact()
    assert [bytes(view) for view in views] == contents


def test_views_while_another_process_writes(path: Path, engine: str) -> None:
    """Its writer knows nothing of them, and yet they do not change."""
    text = (
        "for turn in range(6):\n"
        "  with SnapDB(sys.argv[1]) as db:\n"
        "    db.batch_update([('k', 'gte', 0)], {'s': f'turn {turn}', 'k': turn})\n"
        "    db.checkpoint()\n"
        "    db.batch_insert([{'k': 5, 'v': 1.0, 's': 'more'}] * 200)\n"
        "    db.checkpoint()\n"
        "    db.compact()\n"
    )
    for read_only in (False, True):
        db = SnapDB(path, read_only=read_only)
        views = views_of(db, engine)
        contents = [bytes(view) for view in views]
        rows = iter(db)
        first = next(rows)
        wanted = dict(db)
        db.close()
        ran(text, path)
        assert [bytes(view) for view in views] == contents
        try:
            assert dict([first, *rows]) == wanted
        except ClosedError:
            pass


@pytest.mark.parametrize("read_only", [False, True])
def test_a_view_of_the_map_while_another_process_writes(tmp_path: Path, read_only: bool) -> None:
    """Values as they are stored are not even copied, and still nobody can change them."""
    path = tmp_path / "mapped.snapdb"
    draw = random.Random(1)
    values = [draw.random() for _ in range(4096)]
    with SnapDB(path, PLAIN, storage_type="columnar") as db:
        db.insert_columns({"k": range(4096), "v": values, "s": [None] * 4096})
    db = SnapDB(path, read_only=read_only)
    view = db.column_buffer("v")
    db.close()
    text = (
        "for turn in range(8):\n"
        "  with SnapDB(sys.argv[1]) as db:\n"
        "    db.batch_update([('k', 'gte', 0)], {'v': -1.0 - turn})\n"
        "    db.checkpoint()\n"
        "    db.insert_columns({'k': range(4096), 'v': [7.5] * 4096, 's': ['more'] * 4096})\n"
        "    db.checkpoint()\n"
        "    db.delete_where([('s', 'eq', 'more')])\n"
        "    db.compact()\n"
    )
    ran(text, path)
    assert list(view) == values


def views_of(db: SnapDB, engine: str) -> list[memoryview]:
    if engine == "row":
        raw = [db.get_raw(idx) for idx in (0, 5, 9)]
        return [view for view in raw if view is not None]
    return [db.column_buffer("k"), db.column_buffer("v")]


@on_linux
def test_maps_go_with_their_views(path: Path, engine: str) -> None:
    db = SnapDB(path)
    views = views_of(db, engine)
    db.close()
    assert len(held(path)) <= 2  # the map, and the descriptor that it has of its own
    SnapDB(path).close()  # a view is no lock
    del views
    assert held(path) == []


def test_an_iterator_after_close(path: Path) -> None:
    db = SnapDB(path)
    rows = iter(db)
    first = next(rows)
    db.close()
    try:
        rest = list(rows)
    except ClosedError:
        rest = None
    assert first[0] == 0 and (rest is None or len(rest) == 9)


def test_everything_after_close(path: Path) -> None:
    db = SnapDB(path)
    db.close()
    db.close()
    for call in (
        lambda: db.insert(ROW), lambda: db.get(0), lambda: len(db), lambda: list(db), lambda: db.update(0, {}),
        lambda: db.delete(0), db.flush, db.checkpoint, db.compact, db.transaction, db.fsck, db.stats,
        lambda: db.backup(path.with_name("copy")), lambda: db.__enter__(), db.memory_usage, lambda: db.select(),
    ):  # fmt: skip
        with pytest.raises(ClosedError, match="closed"):
            call()
    assert "closed" in repr(db)


def test_close_inside_a_transaction(path: Path) -> None:
    db = SnapDB(path)
    with db.transaction():
        db.insert(ROW)
        with pytest.raises(TransactionError):
            db.checkpoint()
        db.close()
    with SnapDB(path) as db:
        assert len(db) == 10


def test_close_from_another_thread(path: Path) -> None:
    db = SnapDB(path)
    problems: list[BaseException] = []

    def writes() -> None:
        try:
            for k in range(100_000):
                db.insert({"k": k, "v": None, "s": "x"})
        except ClosedError:
            pass
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=writes) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    db.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert problems == []
    with SnapDB(path) as db:
        assert len(db) >= 10 and db.fsck()["ok"]


# -- names that change hands ---------------------------------------------------
@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its name there")
def test_a_file_that_was_moved_away(path: Path, tmp_path: Path, engine: str) -> None:
    """The lock is the file's, not the name's."""
    with SnapDB(path) as db:
        path.rename(tmp_path / "moved")
        with pytest.raises(LockedError):
            SnapDB(tmp_path / "moved")
        (tmp_path / "moved").rename(path)
        db.insert(ROW)
    with SnapDB(path) as db:
        assert len(db) == 11


def test_a_database_removed_and_made_again(path: Path) -> None:
    path.unlink()
    with pytest.raises(FileNotFoundError):
        SnapDB(path)
    with SnapDB(path, PLAIN) as db:
        assert len(db) == 0


def test_logs_without_their_database_are_not_taken_for_new(path: Path) -> None:
    unclean(path)
    path.unlink()
    logs = {parity: Path(f"{path}-wal{parity}").read_bytes() for parity in (0, 1)}
    for options in ({}, {"schema": PLAIN}):
        with pytest.raises((OSError, SnapDBError)):
            SnapDB(path, **options)  # type: ignore[arg-type]
    assert logs == {parity: Path(f"{path}-wal{parity}").read_bytes() for parity in (0, 1)}
    assert not path.exists()
