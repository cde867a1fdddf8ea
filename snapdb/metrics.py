"""Metrics: counts, times and sizes as Prometheus and OpenMetrics text, and as a collector for ``prometheus_client``.

Names, units and label rules are those of https://prometheus.io/docs/practices/naming/ and of the OpenMetrics
specification 1.0. Memory is bounded: histograms have fixed buckets, and labels a fixed number of values, the rest of
which are ``other``.
"""

from __future__ import annotations

import math
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import _ext
from ._version import __version__
from .errors import ValidationError, ValueTypeError, shorten

if TYPE_CHECKING:
    from .core import SnapDB
    from .exposed import Server

__all__ = ["BUCKETS", "Family", "Metrics", "Sample", "serve_metrics"]

#: upper ends of the histograms' buckets, in seconds; one more has no end
BUCKETS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
TABLES, NAMES = 256, 1024  # different values of the labels; further ones are OTHER
OTHER = "other"
_LONGEST = 512  # characters of a label's value

Labels = dict[str, str]


class Sample(NamedTuple):
    """One line of a report; the fields are those of ``prometheus_client``'s."""

    name: str
    labels: Labels
    value: float
    timestamp: Optional[float] = None
    exemplar: Any = None
    native_histogram: Any = None


class Family(NamedTuple):
    """One metric with all its lines; the fields are what ``prometheus_client`` asks of a collector."""

    name: str
    documentation: str
    type: str
    unit: str
    samples: list[Sample]


class Histogram:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_counts", "_lock", "_sum")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # not a plain one: a finalizer in the midst of it may come here too
        self.clear()

    def clear(self) -> None:
        """Begin at 0."""
        with self._lock:
            self._counts = [0] * (len(BUCKETS) + 1)
            self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Note one."""
        at = bisect_left(BUCKETS, seconds)
        with self._lock:
            self._counts[at] += 1
            self._sum += seconds

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """Its lines; none where nothing was observed."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        if not any(counts):
            return []
        lines, below = [], 0
        for end, count in zip((*BUCKETS, math.inf), counts):
            below += count
            lines.append(Sample(f"{name}_bucket", {**labels, "le": number(end)}, float(below)))
        return [*lines, Sample(f"{name}_count", labels, float(below)), Sample(f"{name}_sum", labels, total)]


class _Sizes(NamedTuple):
    """What was last read of a table; ``sizes`` is empty in memory."""

    rows: int
    sizes: Mapping[str, int]


class Metrics:
    """What the databases that have ``metrics=`` this one do, as text that Prometheus reads: ``report()``.

    One may serve several databases, which differ in the label ``table`` (the path), and several threads. Counts are
    exact. Single-row operations are timed one in 64 and others each time, so the ``_count`` of a histogram is how many
    were timed. It is a collector for ``prometheus_client.REGISTRY.register(metrics)``.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kernel = _ext.backend(_ext.BACKEND).index
        self._tallies: dict[tuple[str, str], Any] = {}  # by table and operation
        self._tables: set[str] = set()
        self._durations: dict[str, Histogram] = {}  # by operation
        self._counts: dict[str, float] = {}  # of inc()
        self._latencies: dict[str, Histogram] = {}  # of add_latency()
        self._fsyncs, self._waits = Histogram(), Histogram()
        self._handles: list[weakref.ref[SnapDB]] = []
        self._seen: weakref.WeakKeyDictionary[Any, _Sizes] = weakref.WeakKeyDictionary()  # by handle
        self._lags: dict[str, Callable[[], float]] = {}

    # -- by name ---------------------------------------------------------------

    def inc(self, metric: str, value: float = 1) -> None:
        """Add to a count of your own, in the report as ``snapdb_events_total{name="…"}``. ValueTypeError,
        ValidationError for what is no finite number of 0 or more: a counter does not go down.
        """
        name, amount = _name(metric), _amount("value", value)
        with self._lock:
            if name not in self._counts and len(self._counts) >= NAMES:
                name = OTHER
            self._counts[name] = self._counts.get(name, 0) + amount

    def add_latency(self, metric: str, seconds: float) -> None:
        """Note how long something of your own took, in the report as
        ``snapdb_event_duration_seconds{name="…"}``, a histogram. Errors as for ``inc``.
        """
        name, amount = _name(metric), _amount("seconds", seconds)
        self._histogram(self._latencies, name, NAMES).observe(amount)

    def set_cdc_lag(self, table: str, lag: Optional[Callable[[], float]]) -> None:
        """Have ``snapdb_cdc_lag_events`` of a table (its path) ask this callable for each report; None: no more. It
        must keep no handle alive; what it raises leaves the table out.
        """
        if lag is not None and not callable(lag):
            raise ValueTypeError(f"lag is a callable or None, not {type(lag).__name__}")
        label = self._table(table)
        with self._lock:
            if lag is None:
                self._lags.pop(label, None)
            else:
                self._lags[label] = lag

    def reset(self) -> None:
        """Counts and histograms begin at 0; sizes and rows are as they are."""
        with self._lock:
            for tally in self._tallies.values():
                tally.clear()
            for histogram in (*self._durations.values(), self._fsyncs, self._waits):
                histogram.clear()
            self._counts.clear()
            self._latencies.clear()

    # -- what a handle tells -------------------------------------------------------

    def tally(self, table: str, op: str, every: int) -> Any:
        """The kernel's ``Tally`` of an operation on a table, whichever handle asks for it."""
        label = self._table(table)
        with self._lock:
            found = self._tallies.get((label, op))
            if found is None:
                found = self._kernel.Tally(every, self._histogram(self._durations, op, NAMES).observe)
                self._tallies[label, op] = found
            return found

    def meter(self, tally: Any, call: Any, owner: Any, gone: Any) -> Any:
        """The kernel's ``Meter`` in front of a call."""
        return self._kernel.Meter(tally, call, owner, gone)

    def synced(self, seconds: float) -> None:
        """The log was put on stable storage, which took so long."""
        self._fsyncs.observe(seconds)

    def waited(self, seconds: float) -> None:
        """Somebody waited so long for a lock."""
        self._waits.observe(seconds)

    def show(self, handle: SnapDB) -> None:
        """Have the rows and sizes of a handle in each report, as long as it is open and somebody else keeps it."""
        from .measured import is_open

        with self._lock:
            others = [one for one in self._handles if is_open(one()) and one() is not handle]
            self._handles = [*others, weakref.ref(handle)]

    def _table(self, table: str) -> str:
        label = _label(table)
        with self._lock:
            if label not in self._tables:
                if len(self._tables) >= TABLES:
                    return OTHER
                self._tables.add(label)
        return label

    def _histogram(self, those: dict[str, Histogram], name: str, most: int) -> Histogram:
        with self._lock:
            if name not in those and len(those) >= most:
                name = OTHER
            found = those.get(name)
            if found is None:
                found = those[name] = Histogram()
            return found

    # -- reports ---------------------------------------------------------------

    def report(self, openmetrics: bool = False) -> str:
        """Everything in Prometheus' text format 0.0.4, or in that of OpenMetrics 1.0, which ends with ``# EOF``."""
        text = "".join(_text(family, openmetrics) for family in self.collect())
        return f"{text}# EOF\n" if openmetrics else text

    def describe(self) -> list[Any]:
        """For ``prometheus_client``: what is reported is known when it is."""
        return []

    def collect(self) -> Iterator[Family]:
        """The metrics; for ``prometheus_client`` too."""
        return iter(self._families())

    def _families(self) -> list[Family]:
        with self._lock:
            tallies = sorted((key, (tally.ok, tally.failed)) for key, tally in self._tallies.items())
            durations, latencies = sorted(self._durations.items()), sorted(self._latencies.items())
            counts, lags = sorted(self._counts.items()), dict(self._lags)
        shown = self._shown()
        return [
            Family("snapdb_operations", "Operations by table, kind and outcome.", "counter", "", _operations(tallies)),
            _histograms(
                "snapdb_operation_duration_seconds",
                "Time of operations that went well; of single-row ones each 64th is timed.",
                [({"op": op}, one) for op, one in durations],
            ),
            Family("snapdb_rows", "Live rows.", "gauge", "", _rows(shown)),
            Family(
                "snapdb_file_size_bytes",
                "Bytes of the file in use (live) and free in it (dead), and of its log (wal).",
                "gauge", "bytes", _file_sizes(shown),
            ),
            _histograms(
                "snapdb_wal_fsync_duration_seconds", "Time of putting the log on stable storage.", [({}, self._fsyncs)]
            ),
            Family("snapdb_compactions", "Calls of compact() by outcome.", "counter", "", _compactions(tallies)),
            _histograms(
                "snapdb_lock_wait_seconds", "Time that opening a file or beginning a transaction waited for its turn.",
                [({}, self._waits)],
            ),
            Family("snapdb_cdc_lag_events", "Events not yet in the change log.", "gauge", "", _lags(shown, lags)),
            Family("snapdb_events", "Counts by inc().", "counter", "", [
                Sample("snapdb_events_total", {"name": name}, float(count)) for name, count in counts
            ]),
            _histograms(
                "snapdb_event_duration_seconds", "Times by add_latency().",
                [({"name": name}, one) for name, one in latencies],
            ),
            Family(
                "snapdb_build_info", "The version of SnapDB.", "gauge", "",
                [Sample("snapdb_build_info", {"version": __version__}, 1.0)],
            ),
        ]  # fmt: skip

    def _shown(self) -> dict[str, _Sizes]:
        """What there is to say of each table: of a file its newest handle speaks, tables in memory are added up."""
        with self._lock:
            handles = list(self._handles)
            tables = set(self._tables)
        found: dict[str, _Sizes] = {}
        for one in handles:
            handle = one()
            sizes = None if handle is None else self._sizes(handle)
            if handle is None or sizes is None:
                continue
            label = _label(str(handle.path))
            label = label if label in tables else OTHER
            before = found.get(label)
            if before is not None and (handle._file is None or label == OTHER):
                sizes = _Sizes(before.rows + sizes.rows, _added(before.sizes, sizes.sizes))
            found[label] = sizes
        return dict(sorted(found.items()))

    def _sizes(self, handle: SnapDB) -> Optional[_Sizes]:
        """Rows and sizes now; as they were read last where a writer or a transaction has the table. None: closed."""
        from .measured import is_open, sizes_of

        if not is_open(handle):
            return None
        now = sizes_of(handle)
        with self._lock:
            if now is None:
                return self._seen.get(handle)
            self._seen[handle] = _Sizes(*now)
            return self._seen[handle]


def serve_metrics(port: int, metrics: Metrics, host: str = "127.0.0.1") -> Server:
    """Give out ``metrics`` at ``http://127.0.0.1:<port>/metrics`` from a thread that ends with the process, or with
    ``close()`` of what is returned; ``port`` 0 takes a free one, which its ``port`` then says. OSError where the port
    is taken.

    Whoever can reach the address can read the figures and the paths of the tables.
    """
    from .exposed import Server  # needs http.server

    return Server(host, port, metrics.report)


# -- lines -----------------------------------------------------------------------
def _operations(tallies: Iterable[tuple[tuple[str, str], tuple[int, int]]]) -> list[Sample]:
    return [
        Sample("snapdb_operations_total", {"table": table, "op": op, "result": result}, float(count))
        for (table, op), both in tallies
        for result, count in zip(("ok", "error"), both)
        if count
    ]


def _compactions(tallies: Iterable[tuple[tuple[str, str], tuple[int, int]]]) -> list[Sample]:
    counted = [both for (_, op), both in tallies if op == "compact"]
    totals = (sum(ok for ok, _ in counted), sum(failed for _, failed in counted))
    return [
        Sample("snapdb_compactions_total", {"result": result}, float(total))
        for result, total in zip(("ok", "error"), totals)
    ]


def _rows(shown: Mapping[str, _Sizes]) -> list[Sample]:
    return [Sample("snapdb_rows", {"table": table}, float(found.rows)) for table, found in shown.items()]


def _file_sizes(shown: Mapping[str, _Sizes]) -> list[Sample]:
    return [
        Sample("snapdb_file_size_bytes", {"table": table, "kind": kind}, float(size))
        for table, found in shown.items()
        for kind, size in found.sizes.items()
    ]


def _added(some: Mapping[str, int], others: Mapping[str, int]) -> Mapping[str, int]:
    return {kind: some.get(kind, 0) + others.get(kind, 0) for kind in {**some, **others}}


def _lags(shown: Iterable[str], lags: Mapping[str, Callable[[], float]]) -> list[Sample]:
    """Behind by how many events; 0 of a table without a change log."""
    found: dict[str, float] = dict.fromkeys(shown, 0.0)
    for table, lag in lags.items():
        found.pop(table, None)
        try:
            value = float(lag())
        except Exception:  # noqa: BLE001 - it is somebody else's, and the other figures are wanted all the same
            continue
        if value == value:
            found[table] = value
    return [Sample("snapdb_cdc_lag_events", {"table": table}, value) for table, value in sorted(found.items())]


def _histograms(name: str, documentation: str, those: Iterable[tuple[Labels, Histogram]]) -> Family:
    samples = [sample for labels, one in those for sample in one.samples(name, labels)]
    return Family(name, documentation, "histogram", "seconds", samples)


def _text(family: Family, openmetrics: bool) -> str:
    """The lines of a metric. In the older format a counter is called what its sample is."""
    name = f"{family.name}_total" if family.type == "counter" and not openmetrics else family.name
    lines = [f"# HELP {name} {_escaped(family.documentation, openmetrics)}", f"# TYPE {name} {family.type}"]
    if openmetrics and family.unit:
        lines.append(f"# UNIT {name} {family.unit}")
    for sample in family.samples:
        labels = ",".join(f'{key}="{_escaped(value, True)}"' for key, value in sorted(sample.labels.items()))
        lines.append(f"{sample.name}{{{labels}}} {number(sample.value)}" if labels else _bare(sample))
    return "".join(f"{line}\n" for line in lines)


def _bare(sample: Sample) -> str:
    return f"{sample.name} {number(sample.value)}"


def _escaped(text: str, quotes: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def number(value: float) -> str:
    """A number as both formats have it."""
    if value in (math.inf, -math.inf):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


# -- what is given -----------------------------------------------------------------
def _label(text: str) -> str:
    """A label's value: a path may be no valid text, and there is no end to how long a name may be."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _LONGEST else f"…{plain[1 - _LONGEST :]}"


def _name(metric: Any) -> str:
    if not isinstance(metric, str):
        raise ValueTypeError(f"metric is a str, not {type(metric).__name__}")
    if not metric:
        raise ValidationError("metric must have a name")
    return _label(metric)


def _amount(what: str, value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise ValueTypeError(f"{what} is a number, not {type(value).__name__} {shorten(value)}")
    try:
        amount = float(value)
    except OverflowError:
        amount = math.inf
    if not 0 <= amount < math.inf:
        raise ValidationError(f"{what} is a finite number, 0 or more, not {shorten(value)}")
    return float(amount)
