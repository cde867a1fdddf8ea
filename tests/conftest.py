"""Fixtures: every kernel test on every backend, every public test on engine x backend."""

from __future__ import annotations

import pytest

from snapdb import _ext


def pytest_report_header() -> str:
    return f"snapdb backend: {_ext.BACKEND} ({_ext.REASON}); available: {', '.join(_ext.available())}"


@pytest.fixture(params=_ext.available())
def kernels(request: pytest.FixtureRequest) -> _ext.Backend:
    """The kernel namespace of each backend that is there."""
    return _ext.backend(request.param)
