"""A call that is interrupted leaves the table as it was before, or has happened whole; in memory and in the file alike.

Interrupts come at every place where the interpreter looks for signals (a profile function raises there), and from real
signals and other threads at random moments. Memory runs out at every allocation, files may not grow.
"""

from __future__ import annotations

import gc
import inspect
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Optional

import pytest
from kill_writer import SCHEMA, Course, Step, carry_out, small_files  # noqa: F401 - the programs below use it

from snapdb import SnapDB, _ext, tablefile
from snapdb.errors import DurabilityError, SnapDBError
from snapdb.storage.files import local_layer, using
from snapdb.testing.layers import RecordingLayer

PATH = "interrupted.snapdb"
LEVELS = ("full", "none")
PATIENCE = 120.0
GENERATOR = inspect.CO_GENERATOR
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class At:
    """A profile function that sends SIGINT the n-th time that SnapDB's Python code calls or is called.

    These are the places where the interpreter itself would run its handler, which raises KeyboardInterrupt.
    """

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_return") or not frame.f_globals.get("__name__", "").startswith("snapdb"):
            return
        code = frame.f_code
        if event == "call" and code.co_flags & GENERATOR or self.is_dropped(frame):
            return  # an exception there goes nowhere; a generator that is let go is called too
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    def is_dropped(self, frame: Optional[FrameType]) -> bool:
        """Whether this runs in a destructor or a callback of a weak reference."""
        while frame is not None and frame.f_code.co_name not in ("__del__", "_dropped", "_ended"):
            frame = frame.f_back
        return frame is not None

    def run(self, call: Callable[[], Any]) -> bool:
        """Do the call; whether it was interrupted."""
        sys.setprofile(self)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return self.left <= 0


class Watched:
    """A database in memory files, and the model of what it must hold."""

    def __init__(self, engine: str, durability: str = "full", seed: int = 0, path: Optional[Path] = None) -> None:
        self.layer: Any = RecordingLayer(record=False) if path is None else local_layer()
        self.path = PATH if path is None else str(path)
        self.durability = durability
        self.course = Course(seed, most=60, bulk_rows=25)
        self.interrupted = self.poisoned = 0
        with using(self.layer):
            self.db = SnapDB(self.path, SCHEMA, storage_type=engine, durability=durability)

    def try_step(self, step: Step, before: Any, call: Callable[[Callable[[], Any]], bool]) -> bool:
        """Do a step that may be cut short; the model follows. Whether it was cut short."""
        cut = call(lambda: carry_out(step, self.db))
        model = self.course.model
        try:
            rows = self.rows()
        except DurabilityError:
            # cut between a checkpoint in the file and the table's learning of it: the handle says that it is of no use
            assert cut
            self.poisoned += 1
            self.db.close()
            with using(self.layer):
                self.db = SnapDB(self.path, durability=self.durability)
            rows = self.rows()
        if not cut:
            assert rows == model.rows, f"{told(step)}: other rows"
            return False
        self.interrupted += 1
        if rows != model.rows:
            assert rows == before[0], f"{told(step)}: neither before nor after"
            model.rows, model.positions = dict(before[0]), before[1]
        # settled: nobody else is kept out, the next write works as if nothing had been
        assert self.db._engine.rows in (model.positions, before[1])
        model.positions = self.db._engine.rows
        assert is_free(self.db), f"{told(step)}: the table is left locked"
        return True

    def rows(self) -> dict[int, Any]:
        rows = dict(self.db)
        assert len(self.db) == len(rows)
        return rows

    def next(self) -> tuple[Step, Any]:
        """The next step, and the rows and ids before it."""
        model = self.course.model
        before = dict(model.rows), model.positions
        return self.course.next(), before

    def check_reopened(self) -> None:
        """What a killed process would leave is what the table shows, but for what durability allows to be missing."""
        self.db.flush()
        with using(RecordingLayer.from_contents(self.layer.contents(), record=False)):
            with SnapDB(PATH) as db:
                assert dict(db) == self.rows(), "the file shows something else"
                assert db.fsck()["ok"]

    def close(self) -> None:
        wanted = self.rows()
        self.db.close()
        with using(self.layer), SnapDB(self.path) as db:
            assert dict(db) == wanted
            assert db.fsck()["ok"]


def told(step: Step) -> str:
    """A step for a message."""
    return f"{step.kind} {', '.join(name for name, _ in step.calls)}"


def is_free(db: SnapDB) -> bool:
    """Whether another thread can write."""
    free: list[bool] = []

    def tries() -> None:
        if db._engine.lock.acquire(timeout=5):
            db._engine.lock.release()
            free.append(True)

    thread = threading.Thread(target=tries)
    thread.start()
    thread.join()
    return bool(free)


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, also where whoever started this process had it ignored: nothing would be tried."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tablefile, "BULK", 1500)


def example(course: Course, what: str) -> Step:
    """A step of a certain kind."""
    draw = course._draw
    row = course._row

    def call() -> tuple[str, tuple[Any, ...]]:
        some = list(course.model.rows)
        idx = some[draw.randrange(len(some))]
        return {
            "insert": lambda: ("insert", (row(),)),
            "update": lambda: ("update", (idx, {"n": draw.randrange(60), "name": "changed", "x": None})),
            "key": lambda: ("update", (idx, {"id": course._new_key()})),
            "delete": lambda: ("delete", (idx,)),
            "batch_insert": lambda: ("batch_insert", ([row() for _ in range(3)],)),
            "bulk": lambda: ("insert_columns", (columns([row() for _ in range(25)]),)),
            "batch_update": lambda: ("batch_update", ([("n", "lt", 40)], {"blob": b"new", "n": draw.randrange(64)})),
            "most": lambda: ("delete_where", ([("n", "lt", 50)],)),
            "delete_where": lambda: ("delete_where", ([("n", "eq", course.model.rows[idx]["n"])],)),
            "upsert": lambda: ("upsert", ({**row(), "id": course.model.rows[idx]["id"]},)),
            "upsert_new": lambda: ("upsert", (row(),)),
            "checkpoint": lambda: ("checkpoint", ()),
            "flush": lambda: ("flush", ()),
            "compact": lambda: ("compact", ()),
        }[what]()

    if what in ("transaction", "undone"):
        inner = ("insert", "update", "batch_insert", "delete", "bulk")
        calls = []
        for name in inner:
            what = name
            calls.append(call())
            if name == "delete":  # of a row that the other calls leave alone
                calls[-1] = ("delete", (max(course.model.rows),))
        return Step("transaction" if what != "undone" else "undone", calls)
    return Step("bare", [call()])


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in SCHEMA.names}


EXAMPLES = (
    "insert", "update", "key", "delete", "batch_insert", "bulk", "batch_update", "delete_where", "upsert", "upsert_new",
    "transaction", "undone", "flush", "checkpoint", "compact",
)  # fmt: skip


#: a twin's kernel is Python code, which an interrupt may cut anywhere: ``snapdb/step.py``
COMPILED = pytest.mark.skipif(_ext.BACKEND != "c", reason="only the compiled kernels are not cut by a signal")
#: every place takes minutes; a few of them are tried always
DOSES = pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.long, id="all"), pytest.param(29, id="some")]
)


@COMPILED
@DOSES
@pytest.mark.parametrize("what", EXAMPLES)
@pytest.mark.parametrize("level", LEVELS)
def test_at_every_place(engine: str, level: str, what: str, stride: int, small_batches: None) -> None:
    watched = Watched(engine, level)
    course = watched.course
    for _ in range(40):
        watched.try_step(Step("bare", [("insert", (fresh(course, "insert"),))]), None, plainly)
    n, tries = 2 - stride, 0
    while True:
        n, tries = n + stride, tries + 1
        while len(course.model.rows) < 20:
            watched.try_step(Step("bare", [("insert", (fresh(course, "insert"),))]), None, plainly)
        if what in ("checkpoint", "compact", "flush"):  # there must be something to do
            changes = ["bulk", "update", "delete"] if len(course.model.rows) < 100 else ["most", "update", "delete"]
            for change in changes:
                step = example(course, change)
                carry_out(step, course.model)
                watched.try_step(step, None, plainly)
        before = dict(course.model.rows), course.model.positions
        step = example(course, what)
        if step.kind != "undone":
            carry_out(Step("bare", step.calls), course.model)
        if not watched.try_step(step, before, At(n).run):
            break
        if what in ("transaction", "undone", "bulk") and tries % 3 == 0:  # room that was given back is used again
            watched.try_step(Step("bare", [("checkpoint", ())]), None, plainly)
        if tries % 4 == 0:
            watched.check_reopened()
    assert n > 2
    assert not watched.poisoned, "an interrupt has cost the handle"
    watched.check_reopened()
    watched.close()


def fresh(course: Course, _: str) -> dict[str, Any]:
    row = course._row()
    course.model.insert(row)
    return row


def plainly(call: Callable[[], Any]) -> bool:
    call()
    return False


def open_into(handles: list[SnapDB], options: dict[str, Any]) -> None:
    handles.append(SnapDB(PATH, **options))


@COMPILED
@DOSES
@pytest.mark.filterwarnings("ignore:the database:ResourceWarning")  # of a handle that nobody was given
@pytest.mark.parametrize("end", ["close", "open", "open unclean", "create"])
def test_opening_and_closing_at_every_place(engine: str, end: str, stride: int) -> None:
    """Interrupted while it opens or closes: nothing is lost, and it can be opened again."""
    watched = Watched(engine)
    for _ in range(30):
        watched.try_step(*watched.next(), plainly)
    wanted = watched.rows()
    unclean = watched.layer.contents()
    watched.db.close()
    files = unclean if end in ("open unclean", "close") else watched.layer.contents()
    stride, cut = stride if stride == 1 else 7 * stride, True
    n = 2 - stride
    while cut:
        n += stride
        layer = RecordingLayer({} if end == "create" else files, record=False)
        with using(layer):
            handles: list[SnapDB] = []
            if end == "close":
                db = SnapDB(PATH)
                db.update(next(iter(wanted)), {"n": wanted[next(iter(wanted))]["n"]})
                cut = At(n).run(db.close)
                db.close()  # it is closed, or can be closed again
                del db
            else:
                options: dict[str, Any] = {"schema": SCHEMA, "storage_type": engine} if end == "create" else {}
                cut = At(n).run(partial(open_into, handles, options))
                while handles:
                    handles.pop().close()
            gc.collect()
            with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
                assert dict(db) == ({} if end == "create" else wanted)
                assert db.fsck()["ok"]
            assert [name for name in layer.contents() if ".tmp-" not in name] == [PATH]
    assert n > 20


# -- real signals --------------------------------------------------------------
#: Python itself drops what a handler raises in a destructor
SWALLOWED = pytest.mark.filterwarnings("ignore:Exception ignored in.*__del__:pytest.PytestUnraisableExceptionWarning")


class Alarm:
    """A signal some time after a call begins."""

    def __init__(self, draw: random.Random, most: float) -> None:
        self.after = draw.random() * most + 1e-6

    def run(self, call: Callable[[], Any]) -> bool:
        def ring(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, self.after)
            try:
                call()
                return False
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            return True
        finally:
            signal.signal(signal.SIGALRM, before)


class FromThread:
    """KeyboardInterrupt from another thread, as debuggers and notebooks raise it."""

    def __init__(self, draw: random.Random, most: float) -> None:
        self.after = draw.random() * most

    def run(self, call: Callable[[], Any]) -> bool:
        import ctypes

        here = ctypes.c_ulong(threading.get_ident())
        raised = threading.Event()
        go = threading.Event()

        def raises() -> None:
            go.wait()
            until = time.perf_counter() + self.after
            while time.perf_counter() < until:
                pass
            ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(KeyboardInterrupt))
            raised.set()

        thread = threading.Thread(target=raises)
        thread.start()
        try:
            try:
                go.set()
                call()
            finally:
                while not raised.is_set():
                    pass
                for _ in range(100):
                    pass
            thread.join()
            return False
        except KeyboardInterrupt:
            thread.join()
            return True


@pytest.mark.long
@SWALLOWED
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize("how", [Alarm, FromThread])
@pytest.mark.parametrize("level", ["full", "normal", "none"])
def test_at_random_moments(engine: str, level: str, how: Any, small_batches: None) -> None:
    if how is FromThread and (sys.implementation.name != "cpython" or level == "normal"):
        pytest.skip("a thread that is being started may get the exception of its parent, and then the start never ends")
    draw = random.Random(f"{engine} {level} {how.__name__}")
    watched = Watched(engine, level, seed=draw.randrange(1 << 30))
    for turn in range(400):
        step, before = watched.next()
        watched.try_step(step, before, how(draw, draw.choice((2e-5, 1e-4, 5e-4))).run)
        if turn % 50 == 49:
            watched.check_reopened()
    assert watched.interrupted and watched.poisoned * 20 <= watched.interrupted
    watched.close()


@pytest.mark.long
@SWALLOWED
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize("level", ["full", "normal"])
def test_at_random_moments_on_a_disk(tmp_path: Path, engine: str, level: str, small_batches: None) -> None:
    """With real files the kernel writes by itself."""
    draw = random.Random(f"disk {engine} {level}")
    watched = Watched(engine, level, draw.randrange(1 << 30), tmp_path / "disk.snapdb")
    for turn in range(300):
        step, before = watched.next()
        watched.try_step(step, before, Alarm(draw, draw.choice((5e-5, 3e-4, 1e-3))).run)
        if turn % 50 == 49:
            copy = tmp_path / f"copy {turn}"
            copy.mkdir()
            for name in os.listdir(tmp_path):
                if name.startswith("disk"):
                    shutil.copy(tmp_path / name, copy)
            with SnapDB(copy / "disk.snapdb") as db:
                assert dict(db) == watched.rows() and db.fsck()["ok"]
    watched.close()


# -- no memory -----------------------------------------------------------------
NO_MEMORY = """
import os, sys
sys.path.insert(0, sys.argv[1])
import _testcapi
from test_signals import *

engine, what = sys.argv[2:4]
tablefile.BULK = 1500
watched = Watched(engine)
course = watched.course
for _ in range(40):
    watched.try_step(Step("bare", [("insert", (fresh(course, "insert"),))]), None, plainly)
where = None

def nomemory(n):
    def run(call):
        global where
        _testcapi.set_nomemory(n, n + 1)
        try:
            call()
        except MemoryError as error:
            _testcapi.remove_mem_hooks()
            where = error.__traceback__
            return True
        finally:
            _testcapi.remove_mem_hooks()
        return False
    return run

hits, quiet, n, stride = 0, 0, 0, int(sys.argv[4])

def tell():
    # for the message of a failure: which allocation it was, and where
    import traceback
    print("allocation", n, "failed in", *(f"{f.filename.rpartition('snapdb')[2]}:{f.lineno} {f.name}"
          for f in traceback.extract_tb(where)[2:]), sep="\\n  ", file=sys.stderr, flush=True)

import atexit
atexit.register(tell)
for warm in range(3):  # caches are filled
    before = dict(course.model.rows), course.model.positions
    step = example(course, what)
    if step.kind != "undone":
        carry_out(Step("bare", step.calls), course.model)
    watched.try_step(step, before, plainly)
first = int(os.environ.get("SNAPDB_ALLOCATION", "1"))
n = first - stride
while quiet < 60 // min(stride, 12) and n < 3000:
    n += stride
    while len(course.model.rows) < 20:
        watched.try_step(Step("bare", [("insert", (fresh(course, "insert"),))]), None, plainly)
    before = dict(course.model.rows), course.model.positions
    step = example(course, what)
    if step.kind != "undone":
        carry_out(Step("bare", step.calls), course.model)
    cut = watched.try_step(step, before, nomemory(n))
    hits += cut
    quiet = 0 if cut else quiet + 1
    if cut:
        watched.check_reopened()
watched.check_reopened()
watched.close()
atexit.unregister(tell)
print(hits, "of", n)
"""


# CPython 3.12 and 3.13 give a function's code back twice where there is no memory to make the function: the next call
# of the code around it may crash, with or without SnapDB
SURVIVES = """
import _testcapi, os, sys

def outer(k):
    return list((j, k) for j in (1, 2))

inner = next(each for each in outer.__code__.co_consts if hasattr(each, "co_name"))
before = sys.getrefcount(inner)
outer(1)
for n in (1, 2, 3):
    _testcapi.set_nomemory(n, n + 1)
    try:
        outer(1)
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print(sys.getrefcount(inner) == before, flush=True)
os._exit(0)
"""


@lru_cache(None)
def survives_no_memory() -> bool:
    """Whether this interpreter goes on after an allocation of its own failed, and can be told to fail one."""
    if sys.implementation.name != "cpython" or FREE_THREADED:
        return False
    done = subprocess.run([sys.executable, "-c", SURVIVES], capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout.strip() == "True"


ALLOCATING = ("insert", "update", "batch_insert", "bulk", "delete", "upsert", "transaction", "checkpoint")


@DOSES
@pytest.mark.parametrize("what", ALLOCATING)
def test_without_memory(engine: str, what: str, stride: int) -> None:
    """The n-th allocation fails, for every n: in a process of its own, for the interpreter may not survive it."""
    if not survives_no_memory() or _ext.BACKEND == "numpy":  # NumPy ends in a SystemError
        pytest.skip("this interpreter does not survive a failed allocation by itself, or cannot be told to fail one")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-X", "faulthandler", "-c", NO_MEMORY, here, engine, what, str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert done.returncode == 0, (done.stderr + done.stdout)[-4000:]
    assert int(done.stdout.split()[0]) > 0, done.stdout


MEMORY_TABLE = """
import gc, sys, threading
import _testcapi
from snapdb import ColumnDef, Schema, SnapDB

engine, failing = sys.argv[1], int(sys.argv[2])
schema = Schema([ColumnDef("a", "i64"), ColumnDef("s", "str"), ColumnDef("u", "i32", unique=True)])

def work(db, end):
    with db.transaction():
        db.insert({"a": 99, "s": "new", "u": 99})
        db.update(3, {"s": "changed", "u": 77})
        db.delete(5)
        db.batch_insert([{"a": n, "s": "b", "u": n} for n in (200, 201, 202)])
        if end == "rollback":
            raise ZeroDivisionError

def rows(db):
    return [(idx, dict(row)) for idx, row in db]

def fresh():
    db = SnapDB(":memory:", schema, storage_type=engine)
    db.batch_insert([{"a": n, "s": str(n), "u": n} for n in range(30)])
    return db

db = fresh()
before = rows(db)
work(db, "commit")
after = rows(db)
gc.disable()
for end in ("commit", "rollback"):
    n = quiet = hits = 0
    while quiet < 3:
        n += 1
        db = fresh()
        error = None
        _testcapi.set_nomemory(n, n + failing)
        try:
            work(db, end)
        except BaseException as caught:
            error = type(caught)
        _testcapi.remove_mem_hooks()
        cut = error is MemoryError
        hits, quiet = hits + cut, 0 if cut else quiet + 1
        assert rows(db) == (before if error else after), (n, end, error)
        done = []
        thread = threading.Thread(target=lambda: done.append(db.insert({"a": 1, "s": "o", "u": 1000})), daemon=True)
        thread.start()
        thread.join(30)
        assert done, (n, end, error, "others are kept out")
        assert db.lookup("u", 1000)["a"] == 1 and (db.lookup("u", 99) is None) == bool(error)
    assert hits > 100
print("all or nothing")
"""


@pytest.mark.parametrize("failing", [1, 3])
def test_a_transaction_in_memory_without_memory(engine: str, failing: int) -> None:
    """All or nothing, unique keys too, whichever allocation fails; and nobody is kept out for ever."""
    if not survives_no_memory() or _ext.BACKEND != "c":
        pytest.skip("needs the compiled kernels, and an interpreter that survives a failed allocation by itself")
    command = [sys.executable, "-X", "faulthandler", "-c", MEMORY_TABLE, engine, str(failing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert done.stdout.strip() == "all or nothing", (done.stderr + done.stdout)[-4000:]


# -- files that may not grow -----------------------------------------------------
FILE_SIZE = """
import os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from snapdb.errors import StorageError
from test_signals import *

path, engine, level = sys.argv[2:5]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
course = Course(3, most=800)
small_files()
db = SnapDB(path, SCHEMA, storage_type=engine, durability=level)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
draw = random.Random(7)
refused = 0
for turn in range(12):
    for _ in range(10):
        step = course.next()
        carry_out(step, db)
    largest = max(os.path.getsize(path + end) for end in ("", "-wal0", "-wal1") if os.path.exists(path + end))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + draw.choice((0, 0, 3000, 20000)), hard))
    wanted = refused + 2
    for _ in range(300):
        if refused == wanted:
            break
        before = dict(course.model.rows), course.model.positions
        step = course.next()
        try:
            carry_out(step, db)
        except StorageError as error:
            refused += 1
            rows = dict(db)
            if rows != course.model.rows:
                assert rows == before[0], step
                course.model.rows, course.model.positions = before
        assert dict(db) == course.model.rows, step
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    db.flush()
    assert dict(db) == course.model.rows
db.close()
with SnapDB(path) as db:
    assert dict(db) == course.model.rows
    assert db.fsck()["ok"]
print(refused)
"""


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(signal, "SIGXFSZ"), reason="no limit of file sizes")
@pytest.mark.parametrize("level", ["full", "normal", "none"])
def test_files_that_may_not_grow(tmp_path: Path, engine: str, level: str) -> None:
    """What is refused is not there, and when there is room again everything goes on."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", FILE_SIZE, here, str(tmp_path / "limited.snapdb"), engine, level]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 0, "nothing was refused"


BELOW = """
import os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from snapdb.errors import DurabilityError, StorageError
from test_signals import *

path, engine, limit = sys.argv[2:5]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
course = Course(3, most=150)
db = SnapDB(path, SCHEMA, storage_type=engine, durability="full")
for _ in range(40):
    carry_out(course.next(), db)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
for _ in range(10):
    before = dict(course.model.rows), course.model.positions
    step = course.next()
    try:
        carry_out(step, db)
    except StorageError:
        rows = dict(db)
        if rows != course.model.rows:
            assert rows == before[0], step
            course.model.rows, course.model.positions = before
    except DurabilityError:
        # it can neither be written nor taken back
        db.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        db = SnapDB(path)
        rows = dict(db)
        if rows != course.model.rows:
            assert rows == before[0], step
            course.model.rows, course.model.positions = before
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for _ in range(20):
    carry_out(course.next(), db)
db.close()
with SnapDB(path) as db:
    assert dict(db) == course.model.rows
    assert db.fsck()["ok"]
"""


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(signal, "SIGXFSZ"), reason="no limit of file sizes")
@pytest.mark.parametrize("limit", [0, 100, 5000, 30000])
def test_a_limit_below_what_is_there(tmp_path: Path, engine: str, limit: int) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", BELOW, here, str(tmp_path / "limited.snapdb"), engine, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_refused_first_write(tmp_path: Path, engine: str) -> None:
    """The log cannot be made: nothing was written, and the file is as clean as before."""
    text = (
        "import resource, signal, sys\n"
        "from snapdb import *\nfrom snapdb.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path, engine = sys.argv[1:]\n"
        "schema = Schema([ColumnDef('k', 'i64')])\n"
        "SnapDB(path, schema, storage_type=engine).close()\n"
        "content = open(path, 'rb').read()\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "db = SnapDB(path)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))\n"
        "for _ in range(3):\n"
        "  try:\n    db.insert({'k': 1})\n"
        "  except StorageError as error:\n    assert error.errno, error\n"
        "  else:\n    raise SystemExit('it was written')\n"
        "assert len(db) == 0\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "assert db.insert({'k': 5}) == 0\n"
        "db.close()\n"
        "assert SnapDB(path, read_only=True).select() == [{'k': 5}]\n"
    )
    if sys.platform == "win32":
        pytest.skip("no limit of file sizes")
    command = [sys.executable, "-W", "ignore", "-c", text, str(tmp_path / "first.snapdb"), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]


# -- what a caller sees -----------------------------------------------------------
def test_an_interrupted_transaction_block(tmp_path: Path, engine: str) -> None:
    with SnapDB(tmp_path / "block.snapdb", SCHEMA, storage_type=engine) as db:
        course = Course(1)
        kept = course._row()
        db.insert(kept)
        with pytest.raises(KeyboardInterrupt), db.transaction():
            db.insert(course._row())
            db.update(0, {"n": 5})
            raise KeyboardInterrupt
        assert [row for _, row in db] == [kept]
        with db.transaction():
            db.insert(course._row())
        assert len(db) == 2


def test_an_iterable_that_raises(tmp_path: Path, engine: str) -> None:
    with SnapDB(tmp_path / "rows.snapdb", SCHEMA, storage_type=engine) as db:
        course = Course(1)

        def rows(error: BaseException) -> Any:
            yield course._row()
            yield course._row()
            raise error

        for error in (KeyboardInterrupt(), MemoryError(), ValueError("mine"), SystemExit(3)):
            with pytest.raises(type(error)):
                db.batch_insert(rows(error))
            assert len(db) == 0
        assert db.insert(course._row()) == 0


def test_errors_that_poison_say_so() -> None:
    assert issubclass(DurabilityError, SnapDBError) and issubclass(DurabilityError, OSError)
