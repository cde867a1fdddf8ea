"""Rows and loaded stores, shared by the benchmarks of one process.

asv calls ``setup`` before each timed call and then times single calls (number = 1). So stores are kept here between
calls, and quick questions are repeated in the body: REPEAT says how often, and the time shown is for all of them.
"""

import importlib
from functools import lru_cache

from snapdb.benchmark import rows as data
from snapdb.benchmark.peers import BY_NAME, OURS
from snapdb.benchmark.workloads import asked_of

ROWS = [100_000, 1_000_000]
#: "row" and "columnar"; parameters must not depend on what is installed
ENGINES = sorted(OURS, reverse=True)
#: questions in one timed call
REPEAT = {
    "scan_sum": 20, "filtered_sum": 5, "zone_sum": 200, "int_sum": 20, "packed_sum": 20, "bounds": 100,
    "count_three": 5, "select_records": 2, "select_columns": 5, "group_sum": 5, "query_top": 5,
}  # fmt: skip


@lru_cache(maxsize=1)
def rows(count):
    """The benchmark's rows as a list."""
    return list(data.generate(count))


@lru_cache(maxsize=1)
def columns(count):
    """The same rows as NumPy arrays."""
    try:
        array = importlib.import_module("numpy").array  # only what needs it imports it
    except ImportError:
        raise NotImplementedError("NumPy is not installed") from None  # asv leaves the benchmark out
    return {name: array([row[name] for row in rows(count)], dtype=kind) for name, kind in data.ARRAYS.items()}


@lru_cache(maxsize=1)
def keys(count):
    """Keys of the point reads."""
    return data.keys(count)


@lru_cache(maxsize=1)
def asked(count):
    """The ranges of two columns."""
    return asked_of(list(data.generate(count)), data.READS)


@lru_cache(maxsize=1)
def store(engine, count):
    """A loaded store; one is kept at a time."""
    kind = BY_NAME[engine]
    kind.prepare()
    return kind(data.generate(count))


class OfEngine:
    """Parameters of every benchmark here, and the store set for its workload."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300
    workload = ""

    def setup(self, engine, count):
        self.store = store(engine, count)
        self.store.before(self.workload)
