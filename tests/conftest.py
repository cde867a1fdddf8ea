"""Fixtures: every kernel test on every backend, every public test on engine x backend."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, settings
from model import Model
from people import PLAIN, SCHEMA, people

from snapdb import SnapDB, _ext
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

ENGINES = ("row", "columnar")
MakeDb = Callable[..., SnapDB]

# The same examples in every run, and no limit on the time of one: pure Python on a busy machine is slow, not wrong.
# HYPOTHESIS_PROFILE=explore draws new ones.
_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
}
settings.register_profile("default", derandomize=True, **_COMMON)
settings.register_profile("explore", max_examples=500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_report_header() -> str:
    return f"snapdb backend: {_ext.BACKEND} ({_ext.REASON}); available: {', '.join(_ext.available())}"


@pytest.fixture(params=_ext.available())
def kernels(request: pytest.FixtureRequest) -> _ext.Backend:
    """The kernel namespace of each backend that is there."""
    return _ext.backend(request.param)


@pytest.fixture(params=_ext.available())
def backend_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend that is there, in force for what the test makes."""
    monkeypatch.setattr(_ext, "BACKEND", request.param)
    name: str = request.param
    return name


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each storage engine."""
    name: str = request.param
    return name


@pytest.fixture
def make_db(engine: str, backend_name: str) -> Iterator[MakeDb]:
    """Makes an empty database in memory from a schema; each engine on each backend. Closed after the test."""
    made: list[SnapDB] = []

    def make(schema: Any, **options: Any) -> SnapDB:
        options.setdefault("storage_type", engine)
        db = SnapDB(":memory:", schema, **options)
        made.append(db)
        return db

    yield make
    for db in made:
        db.close()


@pytest.fixture(params=[40, 2600], ids=["tail", "sealed"])
def filled(request: pytest.FixtureRequest, make_db: MakeDb) -> tuple[SnapDB, Model]:
    """A table with deleted and updated rows, and its model; small enough to be all tail, or with sealed blocks."""
    db, model = make_db(SCHEMA), Model(SCHEMA)
    for it in (db, model):
        it.batch_insert(people(request.param))
        for idx in (0, 7, 8, 33):
            it.delete(idx)
        for idx, changes in (
            (1, {"age": None}),
            (2, {"name": "ü" * 50, "score": -0.5}),
            (35, {"flag": True, "age": 7}),
        ):
            it.update(idx, changes)
    return db, model


@pytest.fixture
def plain(make_db: MakeDb) -> SnapDB:
    db = make_db(PLAIN)
    db.batch_insert({"k": i, "v": i / 2 if i % 4 else None, "s": f"s{i % 3}"} for i in range(12))
    return db


class Files:
    """Databases of one engine in one place; ``layer`` is None where that is a folder. Closed after the test."""

    def __init__(self, engine: str, folder: str, layer: Optional[RecordingLayer]) -> None:
        self.engine = engine
        self.folder = folder
        self.layer = layer
        self.made: list[SnapDB] = []

    def path(self, name: str = "t.snapdb") -> str:
        return os.path.join(self.folder, name)

    def open(self, schema: Any = None, name: str = "t.snapdb", **options: Any) -> SnapDB:
        """Open a database; with a schema make it, where it is not there, with this place's engine."""
        if schema is not None:
            options.setdefault("storage_type", self.engine)
        db = SnapDB(self.path(name), schema, **options)
        self.made.append(db)
        return db

    def kill(self, db: SnapDB, name: str = "t.snapdb", **options: Any) -> SnapDB:
        """What is there when a process that has it open dies: opened again."""
        db._abandon()
        return self.open(name=name, **options)

    def contents(self) -> dict[str, bytes]:
        """The bytes of every file here by name."""
        if self.layer is not None:
            return {os.path.relpath(name, self.folder): data for name, data in self.layer.contents().items()}
        found = {}
        for name in sorted(os.listdir(self.folder)):
            with open(self.path(name), "rb") as file:
                found[name] = file.read()
        return found

    def write(self, name: str, data: bytes, offset: Optional[int] = None) -> None:
        """Make a file, or with an offset change a part of one, whoever has it open."""
        path = self.path(name)
        if self.layer is not None:
            if offset is None and self.layer.exists(path):
                self.layer.unlink(path)  # a map of the old one may be alive
            file = self.layer.open(path, "x" if offset is None else "w")
            file.pwrite(data, offset or 0)
            file.close()
            return
        if offset is None and os.path.exists(path):
            os.unlink(path)
        with open(path, "wb" if offset is None else "r+b") as opened:
            opened.seek(offset or 0)
            opened.write(data)

    def close(self) -> None:
        for db in self.made:
            db.close()


@contextmanager
def _open_files(engine: str, folder: Path, in_memory: bool) -> Iterator[Files]:
    with ExitStack() as stack:
        if in_memory:
            layer = RecordingLayer(record=False, maps=True)
            stack.enter_context(using(layer))
            made = Files(engine, "", layer)
        else:
            folder.mkdir()
            made = Files(engine, str(folder), None)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def files(engine: str, backend_name: str, tmp_path: Path) -> Iterator[Files]:
    """A place in memory for files; each engine on each backend."""
    with _open_files(engine, tmp_path / "files", True) as made:
        yield made


# The bytes are the same on each backend, so one is enough for what only the disk can show; the log's end is compiled.
_BACKENDS = _ext.available()
_ON_DISK = [(name, "disk") for name in _BACKENDS if name in (_BACKENDS[0], "python")]
_ANYWHERE = [(name, "memory") for name in _BACKENDS] + _ON_DISK[:1]


@pytest.fixture(params=_ON_DISK, ids="-".join)
def disk_files(
    request: pytest.FixtureRequest, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Files]:
    """A folder for files; each engine, compiled and not."""
    monkeypatch.setattr(_ext, "BACKEND", request.param[0])
    with _open_files(engine, tmp_path / "files", False) as made:
        yield made


@pytest.fixture(params=_ANYWHERE, ids="-".join)
def any_files(
    request: pytest.FixtureRequest, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Files]:
    """Both kinds of places; each engine, in memory on each backend."""
    monkeypatch.setattr(_ext, "BACKEND", request.param[0])
    with _open_files(engine, tmp_path / "files", request.param[1] == "memory") as made:
        yield made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on",
        metavar="BACKENDS",
        help="of tests that run once on each backend only these runs, as in --on=c,numpy; tests that compare backends, "
        "or do not ask for one, are all run",
    )


#: the parameters by which a test runs on each backend
_ON = ("kernels", "backend_name", "backend", "disk_files", "any_files")


def _runs_on(item: Any) -> Optional[str]:
    """The one backend that a test runs on; None for one that runs on what is in force, or may use several."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    found = {value[0] if isinstance(value, tuple) else value for name, value in parameters.items() if name in _ON}
    return str(found.pop()) if len(found) == 1 and not _uses_several(item.module) else None


#: what a module does whose tests have several backends side by side, or arrays of NumPy beside another one
_SEVERAL = re.compile(r"""(?<!\("backend", )_ext\.available\(\)|_ext\.backend\(|(skip|find_spec)\("(numpy|pandas)""")


@functools.cache
def _uses_several(module: Any) -> bool:
    return _SEVERAL.search(inspect.getsource(module)) is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the backends that are not asked for, and what takes minutes unless it is."""
    wanted = config.getoption("--on")
    if wanted is not None:
        names = wanted.split(",")
        if not set(names) <= set(_ext.BACKENDS):
            raise pytest.UsageError(f"--on={wanted}: backends are {', '.join(_ext.BACKENDS)}")
        left_out = [item for item in items if _runs_on(item) not in (None, *names)]
        config.hook.pytest_deselected(items=left_out)
        gone = set(map(id, left_out))
        items[:] = [item for item in items if id(item) not in gone]
    if not os.environ.get("SNAPDB_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: SNAPDB_LONG=1"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the tests counted with ``record_property("count: …", n)``."""
    counts: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if name.startswith("count: "):
                    counts[name[7:]] = counts.get(name[7:], 0) + value
    if counts:
        terminalreporter.section("counts")
    for name, value in counts.items():
        terminalreporter.write_line(f"{value:>9,} {name}")
