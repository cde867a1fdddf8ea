"""Interleaved rounds: every contender once per round, so that a drift of the machine meets all alike.

A ratio is taken within a round; what is reported is the median of the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

from . import machine, memory
from . import rows as data
from .peers import BY_NAME, OURS, Contender
from .workloads import BULK_INSERT, MEMORY, NAMES, READING, REPORTED, UNITS, Workload, check, expected, keys_for

#: one timing lasts at least this long, where repeating the call can make it so
LEAST_SECONDS = 0.02
MOST_CALLS = 2_000
Note = Callable[[str], None]


class Plan(NamedTuple):
    """What to run."""

    rows: int
    reads: int
    rounds: int
    workloads: tuple[str, ...]
    contenders: tuple[type[Contender], ...]
    skipped: tuple[str, ...] = ()  # labels of those whose libraries are not installed


def plan(rows: int, reads: int, rounds: int, only: Sequence[str] = ()) -> Plan:
    """A plan for ``only`` these workloads and contenders (all, where none of a kind is named).

    Contenders whose libraries are not installed are left out. Raises ValueError for an unknown name.
    """
    unknown = [name for name in only if name not in NAMES and name not in BY_NAME]
    if unknown:
        known = ", ".join((*NAMES, *BY_NAME))
        raise ValueError(f"unknown workload or contender {', '.join(unknown)}: use any of {known}")
    workloads = tuple(name for name in NAMES if name in only) or NAMES
    named = tuple(contender for name, contender in BY_NAME.items() if name in only) or tuple(BY_NAME.values())
    there = tuple(contender for contender in named if contender.available())
    skipped = tuple(contender.label for contender in named if contender not in there)
    return Plan(rows, reads, rounds, workloads, there, skipped)


def run(what: Plan, note: Optional[Note] = None) -> dict[str, Any]:
    """Measure, and give the raw rounds, the figures and the ratios as one JSON-ready dict.

    Raises WrongAnswer where a contender's answer is not the rows' own.
    """
    say: Note = note or (lambda text: None)
    for contender in what.contenders:
        contender.prepare()
    timed: dict[str, Any] = {}
    if any(name != MEMORY for name in what.workloads):
        timed = _timings(what, say)
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
    if MEMORY in what.workloads:
        report["memory"] = memory.measure_all([one.name for one in what.contenders], what.rows, say)
    report["ratios"] = ratios(report)
    return report


def _timings(what: Plan, say: Note) -> dict[str, dict[str, Any]]:
    rows = list(data.generate(what.rows))
    keys = data.keys(what.rows, what.reads)
    answers = expected(rows, keys)
    timed: dict[str, dict[str, Any]] = {}
    rounds = what.rounds if BULK_INSERT in what.workloads else 0
    stores, inserts = _bulk_inserts(what.contenders, rows, rounds, say)
    if rounds:
        timed[BULK_INSERT] = inserts
    # the stores are loaded: what they did not keep is given back before anything is read
    del rows
    try:
        for workload in READING:
            if workload.name in what.workloads:
                say(workload.title)
                timed[workload.name] = _reading(workload, stores, keys, answers[workload.name], what)
    finally:
        for store in stores:
            store.close()
    return timed


def _rotated(items: Sequence[Any], by: int) -> list[Any]:
    by %= max(len(items), 1)
    return [*items[by:], *items[:by]]


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _bulk_inserts(
    contenders: Iterable[type[Contender]], rows: list[dict[str, Any]], rounds: int, say: Note
) -> tuple[list[Contender], dict[str, Any]]:
    """Load each contender: an untimed warm-up on a few rows, then ``rounds`` fresh stores; the last ones are kept."""
    order = list(contenders)
    kept: dict[str, Contender] = {}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in order}
    for contender in order:
        contender(rows[:1000]).close()
    for number in range(max(rounds, 1)):
        say(f"bulk insert, round {number + 1}" if rounds else "loading")
        for contender in _rotated(order, number):
            previous = kept.pop(contender.name, None)
            if previous is not None:
                previous.close()
                del previous
            taken, kept[contender.name] = _seconds(partial(contender, rows))
            seconds[contender.name].append(taken)
    figures = {name: _figure(taken, len(rows), 1) for name, taken in seconds.items()}
    return [kept[contender.name] for contender in order], figures


def _reading(workload: Workload, stores: list[Contender], keys: list[int], right: Any, what: Plan) -> dict[str, Any]:
    """Time one workload; a first call of each contender warms it up, is checked and says how often to repeat."""
    calls: dict[str, int] = {}
    seconds: dict[str, list[float]] = {store.name: [] for store in stores}
    chosen = {store.name: keys_for(type(store), keys) for store in stores}
    for store in stores:
        store.before(workload.name)
        _, answer = _seconds(partial(workload.run, store, chosen[store.name]))
        check(store, workload.name, answer, right)
        taken, _ = _seconds(partial(workload.run, store, chosen[store.name]))
        calls[store.name] = min(MOST_CALLS, max(1, int(LEAST_SECONDS / max(taken, 1e-9))))
    for number in range(what.rounds):
        for store in _rotated(stores, number):
            store.before(workload.name)
            taken, _ = _seconds(_repeat(workload, store, chosen[store.name], calls[store.name]))
            seconds[store.name].append(taken / calls[store.name])
    by_read = workload.unit == "ops/s"
    return {
        name: _figure(taken, len(chosen[name]) if by_read else what.rows, calls[name])
        for name, taken in seconds.items()
    }


def _repeat(workload: Workload, store: Contender, keys: list[int], calls: int) -> Callable[[], None]:
    run_once = workload.run

    def repeat() -> None:
        for _ in range(calls):
            run_once(store, keys)

    return repeat


def _figure(seconds: list[float], items: int, calls: int) -> dict[str, Any]:
    """Per-call seconds of each round, what one call handles, and the median rate."""
    return {
        "seconds": seconds,
        "items": items,
        "calls": calls,
        "per_second": items / statistics.median(seconds) if seconds else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(report: dict[str, Any]) -> dict[str, Any]:
    """Workload → our engine → peer → how many times better ours is (more per second; fewer bytes)."""
    result: dict[str, Any] = {}
    for name, workload in report["workloads"].items():
        result[name] = _workload_ratios(workload["contenders"])
    held = report.get("memory", {}).get("contenders", {})
    if held:
        result[MEMORY] = _memory_ratios({name: figure["bytes"] for name, figure in held.items()})
        result[REPORTED] = _memory_ratios({name: figure["reported"] for name, figure in held.items()})
    return result


def _memory_ratios(held: dict[str, Any]) -> dict[str, Any]:
    known = {name: size for name, size in held.items() if size}
    return {
        mine: {peer: spread([known[peer] / known[mine]]) for peer in known if peer != mine}
        for mine in OURS
        if mine in known
    }


def _workload_ratios(figures: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for mine in OURS:
        if mine not in figures:
            continue
        own = [taken / figures[mine]["items"] for taken in figures[mine]["seconds"]]
        result[mine] = {}
        for peer, figure in figures.items():
            if peer != mine:
                theirs = [taken / figure["items"] for taken in figure["seconds"]]
                result[mine][peer] = spread([their / our for their, our in zip(theirs, own)])
    return result
