"""Every workload is crashed at every operation: each disk state must open, verify and show what was promised.

``SNAPDB_CRASH_STATES`` scales how many states are tried: 1 is what ``.ci/run`` does with the compiled kernels, a plain
``pytest`` does 1/16. The terminal summary has the counts.
"""

from __future__ import annotations

import os
from typing import Callable

import pytest
from crash_workloads import WORKLOADS, Workload, soup

from snapdb.testing.crash import run

FACTOR = float(os.environ.get("SNAPDB_CRASH_STATES", "") or 1 / 16)
RANDOM = 30  # states for each crash point
SOUPS = max(1, round(64 * FACTOR))
EVERY = max(1, min(16, round(1 / FACTOR)))  # of the crash points of a fixed workload, each so-manieth
DOUBLE = 0.1


def check(workload: Workload, random_states: int, every: int, seed: int, count: Callable[[str, object], None]) -> None:
    recording = workload.record()
    points = range(1 + seed % every, len(recording.log) + 1, every)
    with workload.limited():
        report = run(recording, seed=seed, random_states=random_states, double_share=DOUBLE, points=points)
    count("count: crash states", report.states)
    count("count: of them double crashes", report.double)
    assert not report.violations, f"{len(report.violations)}, such as {report.violations[:3]}"


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name: str, record_property: Callable[[str, object], None]) -> None:
    """All crash points of a workload."""
    at = list(WORKLOADS).index(name)
    check(WORKLOADS[name], round(RANDOM * max(FACTOR, 0.25)), EVERY, at, record_property)


@pytest.mark.parametrize("engine", ["row", "columnar"])
@pytest.mark.parametrize("seed", range(SOUPS))
def test_soup(seed: int, engine: str, record_property: Callable[[str, object], None]) -> None:
    """All crash points of a drawn workload."""
    check(soup(seed, engine), 12, 1, seed, record_property)
