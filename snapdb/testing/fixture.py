"""The pytest fixture ``snapdb_crash``: name this module in ``pytest_plugins`` of a ``conftest.py`` or a test module."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from .crash import Report, Workload, record, run

__all__ = ["snapdb_crash"]

_RECORD = ("path", "see", "read", "options", "keys", "files", "maps", "space")


@pytest.fixture
def snapdb_crash() -> Callable[..., Report]:
    """``snapdb_crash(workload, **options)`` tries the disk states that a crash of the workload could have left, and
    fails the test with the first that breaks the promise, or where the workload has opened nothing with
    ``session.open()``; else it returns the Report. Options are those of ``run``, and of ``record``: ``path``, ``see``
    (``see=history``: snapshots too), ``read``, ``options``, ``keys``, ``files``, ``maps`` and ``space``.
    """

    def crash(workload: Workload, **options: Any) -> Report:
        __tracebackhide__ = True
        recording = record(workload, **{name: options.pop(name) for name in _RECORD if name in options})
        if len(recording.commits) == 1:  # the state before anything was opened
            pytest.fail("the workload opened no database with session.open(): there is nothing to try", pytrace=False)
        report = run(recording, **options)
        if report.violations:
            point, variant, message = report.violations[0]
            op = recording.log[point - 1]
            pytest.fail(
                f"a crash after operation {point} of {len(recording.log)} ({op.kind} {op.path}), {variant}: {message} "
                f"({len(report.violations)} violations in {report.states} states)",
                pytrace=False,
            )
        return report

    return crash
