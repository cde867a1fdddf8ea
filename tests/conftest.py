"""Fixtures: every kernel test on every backend, every public test on engine x backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, settings
from model import Model
from people import PLAIN, SCHEMA, people

from snapdb import SnapDB, _ext

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
