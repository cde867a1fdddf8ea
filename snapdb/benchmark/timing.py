"""How a timing is taken, and what is made of the timings of several rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable

__all__ = ["engine_ratios", "figure", "rotated", "seconds", "spread"]


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """The items from another one on: each round begins with the next contender."""
    by %= max(len(items), 1)
    return [*items[by:], *items[:by]]


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and its result. Garbage is collected before; the collector stays on during it."""
    gc.collect()
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def figure(taken: list[float], items: int, calls: int) -> dict[str, Any]:
    """Per-call seconds of each round, what one call handles, and the median rate."""
    return {
        "seconds": taken,
        "items": items,
        "calls": calls,
        "per_second": items / statistics.median(taken) if taken else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def engine_ratios(figures: dict[str, Any], ours: Sequence[str]) -> dict[str, Any]:
    """Our engine → peer → how many times more per second ours does, taken within each round."""
    result: dict[str, Any] = {}
    for mine in ours:
        if mine not in figures:
            continue
        own = [taken / figures[mine]["items"] for taken in figures[mine]["seconds"]]
        result[mine] = {}
        for peer, one in figures.items():
            if peer != mine:
                theirs = [taken / one["items"] for taken in one["seconds"]]
                result[mine][peer] = spread([their / our for their, our in zip(theirs, own)])
    return result
