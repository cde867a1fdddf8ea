"""Interleaved rounds: every contender once per round, so that a drift of the machine meets all alike.

A ratio is taken within a round; what is reported is the median of the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

from . import changes, files, machine, memory
from . import rows as data
from .file_peers import FILE_BY_NAME, FileContender
from .files import FILE_NAMES
from .peers import BY_NAME, OURS, Contender
from .timing import engine_ratios, figure, rotated, seconds, spread
from .workloads import (
    ALLOCATED,
    BULK_INSERT,
    INDEX_BYTES,
    INSERT_COLUMNS,
    JOIN,
    JOINED,
    MEMORY,
    NAMES,
    RANGE_INDEX_BYTES,
    READING,
    REPORTED,
    SIDE,
    SINGLE_INSERT,
    UNITS,
    Asked,
    Workload,
    WrongAnswer,
    asked_from,
    asked_of,
    check,
    expected,
    handled,
    joined,
)  # fmt: skip

#: one timing lasts at least this long, where repeating the call can make it so
LEAST_SECONDS = 0.02
MOST_CALLS = 2_000
#: rows of one timing that go in one by one
SINGLES = 100_000
COMMITS = 500
#: stands for every workload of files
FILES = "files"
Note = Callable[[str], None]


class Plan(NamedTuple):
    """What to run."""

    rows: int
    reads: int
    rounds: int
    workloads: tuple[str, ...]
    contenders: tuple[type[Contender], ...]
    skipped: tuple[str, ...] = ()  # labels of those whose libraries are not installed
    file_workloads: tuple[str, ...] = ()
    file_contenders: tuple[type[FileContender], ...] = ()
    commits: int = COMMITS
    directory: Optional[str] = None  # where the files are made; None: here


def plan(
    rows: int,
    reads: int,
    rounds: int,
    only: Sequence[str] = (),
    commits: int = COMMITS,
    directory: Optional[str] = None,
) -> Plan:
    """A plan for ``only`` these workloads and contenders (all, where none of a kind is named); "files" stands for
    the workloads of files.

    Contenders whose libraries are not installed are left out. Raises ValueError for an unknown name.
    """
    known = (*NAMES, *FILE_NAMES, FILES, *BY_NAME)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(f"unknown workload or contender {', '.join(unknown)}: use any of {', '.join(known)}")
    workloads = tuple(name for name in NAMES if name in only)
    in_files = tuple(name for name in FILE_NAMES if name in only or FILES in only)
    if not workloads and not in_files:
        workloads, in_files = NAMES, FILE_NAMES
    named = tuple(contender for name, contender in BY_NAME.items() if name in only) or tuple(BY_NAME.values())
    there = tuple(contender for contender in named if contender.available())
    skipped = tuple(contender.label for contender in named if contender not in there)
    with_files = tuple(FILE_BY_NAME[one.name] for one in there if one.name in FILE_BY_NAME)
    return Plan(rows, reads, rounds, workloads, there, skipped, in_files, with_files, commits, directory)


def run(what: Plan, note: Optional[Note] = None) -> dict[str, Any]:
    """Measure, and give the raw rounds, the figures and the ratios as one JSON-ready dict.

    Raises WrongAnswer where a contender's answer is not the rows' own.
    """
    say: Note = note or (lambda text: None)
    for contender in what.contenders:
        contender.prepare()
    timed: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    if set(what.workloads) - {MEMORY}:
        timed, entries = _timings(what, say)
    report: dict[str, Any] = {
        "format": 1,
        "rows": what.rows,
        "reads": what.reads,
        "rounds": what.rounds,
        **machine.facts(),
        "versions": machine.versions(contender.name for contender in what.contenders),
        "labels": {contender.name: contender.label for contender in what.contenders},
        "skipped": list(what.skipped),
        "workloads": {name: {"unit": UNITS[name], "contenders": timed[name]} for name in NAMES if name in timed},
    }
    if INDEX_BYTES in what.workloads:
        report["indexes"] = {"unit": "bytes per entry", "contenders": entries}
    if MEMORY in what.workloads:
        report["memory"] = memory.measure_all([one.name for one in what.contenders], what.rows, say)
    report["ratios"] = ratios(report)
    if what.file_workloads and what.file_contenders:
        asked = (what.rows, what.commits, what.rounds, what.file_workloads, what.file_contenders, what.directory)
        report[FILES] = files.run(files.FilePlan(*asked), say)
    return report


def _timings(what: Plan, say: Note) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The figures of every workload, and the bytes of the indexes."""
    rows = list(data.generate(what.rows))
    asked = asked_of(rows, what.reads)
    answers = expected(rows, asked)
    timed: dict[str, dict[str, Any]] = {}
    rounds = what.rounds if BULK_INSERT in what.workloads else 0
    stores, inserts = _bulk_inserts(what.contenders, rows, rounds, say)
    if rounds:
        timed[BULK_INSERT] = inserts
    for name, takes in ((INSERT_COLUMNS, _columns_of), (SINGLE_INSERT, _singles_of)):
        if name in what.workloads:
            timed[name] = _other_inserts(name, takes(rows), what, say)
    for name in changes.CHANGES:
        if name in what.workloads:
            timed[name] = changes.run(name, what.contenders, rows, what.rounds, say)
    # the stores are loaded: what they did not keep is given back before anything is read
    del rows
    entries: dict[str, Any] = {}
    try:
        _hold_side(stores, what)
        for workload in READING:
            if workload.name in what.workloads:
                say(workload.title)
                if workload.name == JOIN:
                    answers[JOIN] = _hold_join(stores, what.rows)
                timed[workload.name] = _reading(workload, stores, asked, answers[workload.name], what)
        if INDEX_BYTES in what.workloads:
            entries = _index_bytes(stores, what.rows)
    finally:
        for store in stores:
            store.close()
    return timed, entries


def _hold_side(stores: list[Contender], what: Plan) -> None:
    """Give the stores the integers that some workloads are about."""
    wanted = SIDE.union((INDEX_BYTES,)).intersection(what.workloads)
    values = data.packed(what.rows) if wanted else []
    for store in stores:
        if wanted - store.lacks:
            store.hold(values)


def _hold_join(stores: list[Contender], rows: int) -> list[tuple[int, str]]:
    """Give the stores the tables of the join; its answer."""
    count = min(rows, JOINED)
    for store in stores:
        if JOIN not in store.lacks:
            store.hold_join(data.visits(count), data.places())
    return joined(count)


def _index_bytes(stores: list[Contender], rows: int) -> dict[str, Any]:
    """Bytes per entry of an index of each kind, for those that can tell."""
    found: dict[str, Any] = {}
    for store in stores:
        taken = {kind: store.index_bytes(kind) for kind in ("hash", "range")}
        if None not in taken.values():
            found[store.name] = {kind: (size or 0) / rows for kind, size in taken.items()}
    return found


def _bulk_inserts(
    contenders: Iterable[type[Contender]], rows: list[dict[str, Any]], rounds: int, say: Note
) -> tuple[list[Contender], dict[str, Any]]:
    """Load each contender: an untimed warm-up on a few rows, then ``rounds`` fresh stores; the last ones are kept."""
    order = list(contenders)
    kept: dict[str, Contender] = {}
    times: dict[str, list[float]] = {contender.name: [] for contender in order}
    for contender in order:
        contender(rows[:1000]).close()
    for number in range(max(rounds, 1)):
        say(f"bulk insert, round {number + 1}" if rounds else "loading")
        for contender in rotated(order, number):
            previous = kept.pop(contender.name, None)
            if previous is not None:
                previous.close()
                del previous
            taken, kept[contender.name] = seconds(partial(contender, rows))
            times[contender.name].append(taken)
    figures = {name: figure(taken, len(rows), 1) for name, taken in times.items()}
    return [kept[contender.name] for contender in order], figures


class _Load(NamedTuple):
    """What one timing of a load takes: its rows in some form, how many they are, and the call."""

    given: Any
    rows: int
    make: Callable[[type[Contender], Any], Contender]


def _columns_of(rows: list[dict[str, Any]]) -> Optional[_Load]:
    """The rows as NumPy arrays; None where NumPy is not installed."""
    if importlib.util.find_spec("numpy") is None:
        return None
    array = importlib.import_module("numpy").array
    arrays = {name: array([row[name] for row in rows], dtype=dtype) for name, dtype in data.ARRAYS.items()}
    return _Load(arrays, len(rows), lambda contender, columns: contender.from_columns(columns))


def _singles_of(rows: list[dict[str, Any]]) -> Optional[_Load]:
    few = rows[:SINGLES]
    return _Load(few, len(few), lambda contender, listed: contender.row_by_row(listed))


def _other_inserts(name: str, load: Optional[_Load], what: Plan, say: Note) -> dict[str, Any]:
    """Load fresh stores in another way, after an untimed one whose rows are counted."""
    order = [contender for contender in what.contenders if name not in contender.lacks and load is not None]
    times: dict[str, list[float]] = {contender.name: [] for contender in order}
    if load is None:
        return {}
    for number in range(-1, what.rounds):
        say(f"{name}, round {number + 1}")
        for contender in rotated(order, max(number, 0)):
            taken, store = seconds(partial(load.make, contender, load.given))
            if number >= 0:
                times[contender.name].append(taken)
            elif store.iterate() != load.rows:
                raise WrongAnswer(f"{contender.label}: {name}: not all of the {load.rows} rows are there")
            store.close()
    return {one: figure(taken, load.rows, 1) for one, taken in times.items()}


def _reading(workload: Workload, stores: list[Contender], asked: Asked, right: Any, what: Plan) -> dict[str, Any]:
    """Time one workload; a first call of each contender warms it up, is checked and says how often to repeat."""
    stores = [store for store in stores if workload.name not in store.lacks]
    times: dict[str, list[float]] = {store.name: [] for store in stores}
    chosen = {store.name: asked_from(type(store), asked) for store in stores}
    calls = {store.name: _warm_up(workload, store, chosen[store.name], right) for store in stores}
    for number in range(what.rounds):
        for store in rotated(stores, number):
            store.before(workload.name)
            taken, _ = seconds(_repeat(workload, store, chosen[store.name], calls[store.name]))
            times[store.name].append(taken / calls[store.name])
    rows = min(what.rows, JOINED) if workload.name == JOIN else what.rows
    return {name: figure(taken, handled(workload, chosen[name], rows), calls[name]) for name, taken in times.items()}


def _warm_up(workload: Workload, store: Contender, asked: Asked, right: Any) -> int:
    """Check a first answer, which is kept no longer than that; how many calls one timing has."""
    store.before(workload.name)
    check(store, workload.name, workload.run(store, asked), right)
    store.before(workload.name)
    taken, _ = seconds(_repeat(workload, store, asked, 1))
    return 1 if workload.once else min(MOST_CALLS, max(1, int(LEAST_SECONDS / max(taken, 1e-9))))


def _repeat(workload: Workload, store: Contender, asked: Asked, calls: int) -> Callable[[], None]:
    run_once = workload.run

    def repeat() -> None:
        for _ in range(calls):
            run_once(store, asked)

    return repeat


def ratios(report: dict[str, Any]) -> dict[str, Any]:
    """Workload → our engine → peer → how many times better ours is (more per second; fewer bytes)."""
    result: dict[str, Any] = {}
    for name, workload in report["workloads"].items():
        result[name] = engine_ratios(workload["contenders"], OURS)
    entries = report.get("indexes", {}).get("contenders", {})
    if entries:
        for part, kind in ((INDEX_BYTES, "hash"), (RANGE_INDEX_BYTES, "range")):
            result[part] = _memory_ratios({name: one[kind] for name, one in entries.items()})
    held = report.get("memory", {}).get("contenders", {})
    if held:
        result[MEMORY] = _memory_ratios({name: one["bytes"] for name, one in held.items()})
        for part, field in ((ALLOCATED, "allocated"), (REPORTED, "reported")):
            result[part] = _memory_ratios({name: one[field] for name, one in held.items()})
    return result


def _memory_ratios(held: dict[str, Any]) -> dict[str, Any]:
    known = {name: size for name, size in held.items() if size}
    return {
        mine: {peer: spread([known[peer] / known[mine]]) for peer in known if peer != mine}
        for mine in OURS
        if mine in known
    }
