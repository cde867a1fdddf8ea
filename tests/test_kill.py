"""A writer that is killed with SIGKILL at some moment has lost nothing that its durability level promised.

``kill_writer.py`` is the writer; it reports each acknowledged step over a pipe. After each kill a copy of its files is
opened here and compared with a model, and the next writer goes on with the files as they were left, so that recovery
runs in a process that is killed too. SNAPDB_KILLS says how many are killed in all.
"""

from __future__ import annotations

import glob
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import pytest
from kill_writer import SCHEMA, Course

from snapdb import SnapDB
from snapdb.testing import history

pytestmark = pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes")

WRITER = Path(__file__).with_name("kill_writer.py")
LIVES = 4  # of one file, each ended by a kill
ENGINES = ("row", "columnar")
LEVELS = ("full", "normal", "none")
KILLS = int(os.environ.get("SNAPDB_KILLS", "24"))
CHAINS = max(1, -(-KILLS // (LIVES * len(ENGINES) * len(LEVELS))))
PATIENCE = 60.0


class Life:
    """One run of the writer."""

    def __init__(self, path: Path, engine: str, level: str, seed: int, start: int) -> None:
        command = [sys.executable, str(WRITER), str(path), engine, level, str(seed), str(start)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self._said = b""

    def kill_at(self, acks: int, wait: float) -> bytes:
        """Kill it ``wait`` seconds after so many acknowledged steps (-1: after it began to open); what it said."""
        assert self._process.stdout is not None and self._process.stderr is not None
        needed = 1 if acks < 0 else 2 + acks
        while len(self._said) < needed and b"X" not in self._said:
            some = os.read(self._process.stdout.fileno(), 1 << 16)
            if not some:
                break  # it ended by itself: its error is shown below
            self._said += some
        until = time.perf_counter() + wait
        while time.perf_counter() < until:
            pass  # a sleep would end at the clock's ticks
        ended = self._process.poll()
        self._process.kill()
        rest, errors = self._process.communicate(timeout=PATIENCE)
        assert ended is None, f"the writer ended by itself: {errors.decode(errors='replace')[-3000:]}"
        return self._said + rest


def moment(draw: random.Random) -> tuple[int, float]:
    """When to kill: mostly in the middle of the work, sometimes while it opens."""
    if draw.random() < 0.2:
        return -1, draw.random() * 0.02
    return int(draw.random() ** 2 * 500), draw.random() * 0.003


def promised(said: bytes, level: str) -> tuple[int, int]:
    """How many steps must be there at least after these reports, and how many may be."""
    acks = said.replace(b"o", b"").replace(b"r", b"")
    last = acks.rfind(b"!") + 1 if level == "none" else len(acks)
    return last, len(acks) + 1


def find_state(course: Course, shown: Any, least: int, most: int) -> Optional[int]:
    """How many steps these rows and snapshots are the outcome of, beginning at ``least``; the course ends there."""
    course.skip(least - course.steps)
    while course.model.shown != shown:
        if course.steps >= most:
            return None
        course.next()
    return course.steps


def check_copy(path: Path, copies: Path, course: Course, least: int, most: int) -> int:
    """Open a copy of a killed writer's files: the steps it has, which must be one of these."""
    copies.mkdir()
    for name in glob.glob(f"{path}*"):
        shutil.copy(name, copies)
    copy = copies / path.name
    with SnapDB(copy) as db:
        rows, kept = history(db)
        found = db.fsck(full=True)
        assert found["ok"], found["issues"]
        assert len(db) == len(rows) == found["rows"]
    steps = find_state(course, (rows, kept), least, most)
    what = f"{len(rows)} rows and snapshots {sorted(kept)}"
    assert steps is not None, f"{what} are the state after none of the steps {least} to {most}"
    assert sorted(os.listdir(copies)) == sorted({path.name, *leftovers(copies)})
    with SnapDB(copy, read_only=True) as db:
        assert history(db) == (rows, kept)
        assert db.fsck(full=True)["ok"]
    shutil.rmtree(copies)
    return steps


def leftovers(folder: Path) -> set[str]:
    """What a writer that was killed while it made the file may leave."""
    return {name for name in os.listdir(folder) if ".tmp-" in name}


@pytest.mark.parametrize("chain", range(CHAINS))
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_writer(tmp_path: Path, engine: str, level: str, chain: int) -> None:
    seed = chain * 1000 + ENGINES.index(engine) * 10 + LEVELS.index(level)
    draw = random.Random(seed)
    path = tmp_path / "killed.snapdb"
    steps = 0
    for life in range(LIVES):
        said = Life(path, engine, level, seed, steps).kill_at(*moment(draw))
        assert b"X" not in said, f"life {life} began with other rows than those after {steps} steps"
        least, most = promised(said, level)
        if not path.exists():
            assert steps == 0 and b"r" not in said
            continue
        course = Course(seed, snapshots=True)
        steps = check_copy(path, tmp_path / f"copy {life}", course, steps + least, steps + most)


def test_the_course_is_the_same_each_time() -> None:
    one, two = Course(5, snapshots=True), Course(5, snapshots=True)
    for _ in range(300):
        assert one.next() == two.next()
        assert one.model.rows == two.model.rows and list(one.model.rows) == list(two.model.rows)
    assert list(SCHEMA.names) == one.model.names
    kinds = {name for _ in range(1500) for name, _ in one.next().calls}
    assert kinds >= {"insert", "update", "delete", "insert_columns", "delete_where", "checkpoint", "flush", "compact"}
    assert kinds >= {"snapshot", "drop_snapshot", "restore"}
