"""The workloads of tables in files: durable commits, inserts, loading, opening, reopening after a kill.

Everything stands in a temporary directory that is removed at the end. Rounds are interleaved as in memory. A table is
closed, and so on stable storage, before the next one's turn: nobody pays for another's unwritten pages.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from . import rows as data
from .file_peers import FILE_BY_NAME, FileContender, size_on_disk
from .machine import file_system
from .peers import OURS
from .timing import engine_ratios, figure, rotated, seconds
from .typed_files import weather_sizes
from .workloads import WrongAnswer

__all__ = [
    "FILE_NAMES", "FILE_TITLES", "FILE_UNITS", "FilePlan", "built", "child", "copied", "killed", "run",
]  # fmt: skip

Note = Callable[[str], None]

COMMIT, INSERT, LOAD, STORED = "commit_full", "insert_normal", "load_file", "load_stored"
OPEN, BOUNDS, RECOVER, SIZE, PARQUET = "open_file", "open_bounds", "recover", "file_size", "file_parquet"
_ALL = (
    (COMMIT, "durable commit of one row", "commits/s"),
    (INSERT, "bare insert", "rows/s"),
    (LOAD, "bulk insert", "rows/s"),
    (STORED, "bulk insert and close", "rows/s"),
    (OPEN, "open", "ms"),
    (BOUNDS, "open, then MIN, MAX, COUNT", "ms"),
    (RECOVER, "reopen after a kill, 16 MiB of log", "ms"),
    (SIZE, "file size", "MB"),
    (PARQUET, "weather.csv as a file, and as Parquet", "bytes"),
)
FILE_TITLES = {name: title for name, title, _ in _ALL}
FILE_UNITS = {name: unit for name, _, unit in _ALL}
FILE_NAMES = tuple(FILE_TITLES)

OPENINGS = 5  # in one timing: one alone takes less than a millisecond
PART = 100_000  # rows at a time where a table is only made to be opened
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from snapdb.benchmark.files import child; child(sys.argv[2], sys.argv[3], int(sys.argv[4]))"
)


class FilePlan(NamedTuple):
    """What to run. ``directory``: where the temporary directory is made; ``commits``: in one round."""

    rows: int
    commits: int
    rounds: int
    workloads: tuple[str, ...]
    contenders: tuple[type[FileContender], ...]
    directory: Optional[str] = None


def run(what: FilePlan, say: Note) -> dict[str, Any]:
    """Measure; the raw rounds, figures, sizes and ratios as a JSON-ready dict. WrongAnswer where rows got lost."""
    for contender in what.contenders:
        contender.prepare()
    timed: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    weather: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="snapdb-bench-", dir=what.directory or os.curdir) as root:
        system = file_system(root)
        rows = list(data.generate(_rows_needed(what)))
        if COMMIT in what.workloads:
            timed[COMMIT] = _writes(what, Path(root), rows, COMMIT, say)
        if INSERT in what.workloads:
            timed[INSERT] = _writes(what, Path(root), rows, INSERT, say)
        if {LOAD, STORED, SIZE} & set(what.workloads):
            loads, sizes = _loads(what, Path(root), rows, say)
            timed.update({name: loads[name] for name in loads if name in what.workloads})
        del rows
        if {OPEN, BOUNDS, RECOVER} & set(what.workloads):
            timed.update(_openings(what, Path(root), say))
        if PARQUET in what.workloads:
            say(FILE_TITLES[PARQUET])
            weather = weather_sizes((one.name for one in what.contenders if one.name in OURS), root)
    found = {name: {"unit": FILE_UNITS[name], "contenders": timed[name]} for name in FILE_NAMES if name in timed}
    report = {
        "file_system": system,
        "commits": what.commits,
        "labels": {contender.name: contender.label for contender in what.contenders},
        "workloads": found,
        "sizes": sizes if SIZE in what.workloads else {},
        "weather": weather,
        "ratios": {name: engine_ratios(timed[name], OURS) for name in found},
    }
    return report


def _rows_needed(what: FilePlan) -> int:
    """How many rows must be at hand at once."""
    if {LOAD, STORED, SIZE} & set(what.workloads):
        return what.rows
    inserts = max((one.inserts for one in what.contenders), default=0) if INSERT in what.workloads else 0
    return min(what.rows, max(inserts, what.commits if COMMIT in what.workloads else 0))


# -- writing ---------------------------------------------------------------------------------------------------------
def _writes(what: FilePlan, root: Path, rows: list[dict[str, Any]], workload: str, say: Note) -> dict[str, Any]:
    """Row by row into a fresh file each time; the first row, which makes the log, is not timed."""
    durability = "full" if workload == COMMIT else "normal"
    taken: dict[str, list[float]] = {one.name: [] for one in what.contenders}
    chosen = {one.name: rows[: what.commits if workload == COMMIT else one.inserts] for one in what.contenders}
    for number in range(what.rounds):
        say(f"{FILE_TITLES[workload]}, round {number + 1}")
        for kind in rotated(what.contenders, number):
            with tempfile.TemporaryDirectory(dir=root) as folder:
                path = os.path.join(folder, "t")
                store = kind(path, durability)
                first, rest = chosen[kind.name][:1], chosen[kind.name][1:]
                store.insert_each(first)
                write = store.commit_each if workload == COMMIT else store.insert_each
                took, _ = seconds(partial(write, rest))
                store.close()
                taken[kind.name].append(took)
                _check(kind, path, chosen[kind.name], workload)
    return {name: figure(took, max(len(chosen[name]) - 1, 1), 1) for name, took in taken.items()}


def _loads(
    what: FilePlan, root: Path, rows: list[dict[str, Any]], say: Note
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """All rows at once into a fresh file; the call alone, and to the end of ``close()``.

    The first row is written before, and not timed: it makes the log, for which sqlite3's connection has its own moment.
    """
    called: dict[str, list[float]] = {one.name: [] for one in what.contenders}
    stored: dict[str, list[float]] = {one.name: [] for one in what.contenders}
    sizes: dict[str, int] = {}
    first, rest = rows[:1], rows[1:]
    items = max(len(rest), 1)
    for number in range(what.rounds):
        say(f"{FILE_TITLES[LOAD]}, round {number + 1}")
        for kind in rotated(what.contenders, number):
            with tempfile.TemporaryDirectory(dir=root) as folder:
                path = os.path.join(folder, "t")
                store = kind(path)
                store.insert_each(first)
                took, _ = seconds(partial(store.load, rest))
                start = time.perf_counter()
                store.close()
                called[kind.name].append(took)
                stored[kind.name].append(took + time.perf_counter() - start)
                sizes[kind.name] = size_on_disk(path)
                _check(kind, path, rows, LOAD)
    return {
        LOAD: {name: figure(took, items, 1) for name, took in called.items()},
        STORED: {name: figure(took, items, 1) for name, took in stored.items()},
    }, sizes


def _check(kind: type[FileContender], path: str, rows: Sequence[dict[str, Any]], workload: str) -> None:
    """Open the file again: it must hold these rows."""
    store = kind.open(path)
    try:
        count, total = store.total()
    finally:
        store.close()
    right = sum(row["temp"] for row in rows)
    if count != len(rows) or abs(total - right) > 1e-9 * abs(right):
        raise WrongAnswer(f"{kind.label}: {FILE_TITLES[workload]}: {count} rows, sum {total} after reopening")


# -- opening ---------------------------------------------------------------------------------------------------------
def built(kind: type[FileContender], path: str, rows: int) -> None:
    """Make a closed file of the benchmark's rows, a part at a time so that any size fits in memory."""
    store = kind(path)
    made = data.generate(rows)
    while True:
        part = list(itertools.islice(made, PART))
        if not part:
            break
        store.load(part)
    store.close()


def _openings(what: FilePlan, root: Path, say: Note) -> dict[str, Any]:
    """The workloads that begin with a file of all rows."""
    timed: dict[str, Any] = {}
    files = {}
    for kind in what.contenders:
        if kind.recovers or {OPEN, BOUNDS} & set(what.workloads):
            say(f"making {what.rows:,} rows, {kind.label}")
            folder = root / f"built {kind.name}"
            folder.mkdir()
            files[kind.name] = folder / "t"
            built(kind, str(files[kind.name]), what.rows)
    low, high = _bounds(what.rows)
    for workload in (OPEN, BOUNDS):
        if workload in what.workloads:
            say(FILE_TITLES[workload])
            timed[workload] = _opened(what, files, workload, (low, high, what.rows))
    if RECOVER in what.workloads:
        timed[RECOVER] = _recoveries(what, root, files, say)
    return timed


def _bounds(rows: int) -> tuple[float, float]:
    low, high = float("inf"), float("-inf")
    for row in data.generate(rows):
        low, high = min(low, row["temp"]), max(high, row["temp"])
    return low, high


def _opened(what: FilePlan, files: dict[str, Path], workload: str, right: tuple[float, float, int]) -> dict[str, Any]:
    """Open a closed file for writing, and for BOUNDS ask the three questions; closing is not timed."""
    taken: dict[str, list[float]] = {one.name: [] for one in what.contenders}
    for number in range(-1, what.rounds):  # the first round warms up
        for kind in rotated(what.contenders, number):
            path, total = str(files[kind.name]), 0.0
            for _ in range(OPENINGS):
                gc.collect()
                start = time.perf_counter()
                store = kind.open(path)
                answer = store.bounds() if workload == BOUNDS else right
                total += time.perf_counter() - start
                store.close()
                if answer != right:
                    raise WrongAnswer(f"{kind.label}: {FILE_TITLES[workload]}: {answer!r} instead of {right!r}")
            if number >= 0:
                taken[kind.name].append(total / OPENINGS)
    return {name: figure(took, 1, OPENINGS) for name, took in taken.items()}


# -- a killed writer -------------------------------------------------------------------------------------------------
def child(name: str, path: str, start: int) -> None:
    """Insert rows until the log is nearly full for the second time, say how many rows there are, and wait for the end.

    The second time, so that both log files are there in full, as after hours of work.
    """
    store: Any = FILE_BY_NAME[name].open(path)
    made = itertools.islice(data.generate(sys.maxsize), start, None)
    store.insert_each(itertools.islice(made, 1))  # makes the log, which counts as a generation
    generation = store.db.stats()["generation"]
    full = 0
    while store.db.stats()["generation"] == generation:  # a checkpoint empties the log
        store.insert_each(itertools.islice(made, 1000))
        full += 1000
    generation = store.db.stats()["generation"]
    store.insert_each(itertools.islice(made, full * 97 // 100))
    if store.db.stats()["generation"] != generation:
        raise RuntimeError("the log was emptied once more")
    sys.stdout.write(f"{len(store.db)}\n")
    sys.stdout.flush()
    sys.stdin.read()


def killed(name: str, path: str, start: int) -> int:
    """Have a process write into the file until its log is nearly full, and kill it; the rows that it had written."""
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), name, path, str(start)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        said: Any = writer.stdout
        line = said.readline()
        writer.kill()
    if not line:
        raise RuntimeError("the writer that was to be killed failed")
    return int(line)


def copied(path: Path, folder: Path) -> Path:
    """A copy of a file and of what stands beside it, on stable storage: its pages are nobody's to write later."""
    for part in path.parent.iterdir():
        target = folder / part.name
        shutil.copyfile(part, target)
        with target.open("r+b") as file:
            os.fsync(file.fileno())
    return folder / path.name


def _recoveries(what: FilePlan, root: Path, files: dict[str, Path], say: Note) -> dict[str, Any]:
    """Open copies of what a killed writer left; every acknowledged row must be there."""
    kinds = [one for one in what.contenders if one.recovers]
    left: dict[str, tuple[Path, int]] = {}
    for kind in kinds:
        say(f"killing a writer, {kind.label}")
        folder = root / f"killed {kind.name}"
        folder.mkdir()
        path = copied(files[kind.name], folder)
        left[kind.name] = path, killed(kind.name, str(path), what.rows)
    taken: dict[str, list[float]] = {one.name: [] for one in kinds}
    for number in range(what.rounds):
        say(f"{FILE_TITLES[RECOVER]}, round {number + 1}")
        for kind in rotated(kinds, number):
            path, rows = left[kind.name]
            with tempfile.TemporaryDirectory(dir=root) as made:
                took, store = seconds(partial(kind.open, str(copied(path, Path(made)))))
                count, _ = store.total()
                store.close()
                if count != rows:
                    raise WrongAnswer(f"{kind.label}: {count} rows after a kill, {rows} were acknowledged")
                taken[kind.name].append(took)
    return {name: figure(took, 1, 1) for name, took in taken.items()}
