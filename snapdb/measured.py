"""A handle whose operations are counted and timed. Loaded for handles with ``metrics=`` alone; others pay nothing.

The instance gets methods of its own in front of those of its class. None refers to the handle but weakly: one that is
dropped must go.
"""

from __future__ import annotations

import logging
import weakref
from time import perf_counter as clock
from typing import Any, Callable, NoReturn, Optional

from .absent import Absent
from .errors import ClosedError
from .transaction import Transactions

__all__ = ["OPERATIONS", "POINTS", "is_open", "measure", "opened", "sizes_of"]

#: single-row operations, of which one in EVERY is timed
POINTS = ("get", "insert", "lookup", "update", "delete")
EVERY = 64
#: those that a handle binds to its kernel, anew each time that an index or a listener comes or goes
BOUND = ("get", "insert", "lookup")
#: the others, each of which is timed
OPERATIONS = (
    "batch_insert", "insert_columns", "upsert", "batch_update", "delete_where", "find", "range_find", "query",
    "select", "select_where", "select_column", "count_where", "aggregate", "group_by", "join", "to_numpy", "flush",
    "checkpoint", "compact", "backup", "fsck", "repair", "rekey", "snapshot", "restore", "drop_snapshot",
    "open_snapshot", "diff_snapshots", "changes", "create_index", "drop_index", "create_range_index",
    "drop_range_index",
)  # fmt: skip


class _Told:
    """As the kernel's ``Tally``, for somebody else's metrics: every call is told by ``inc`` and ``add_latency``."""

    def __init__(self, metrics: Any, op: str) -> None:
        self._metrics = metrics
        self._op = op

    def done(self, seconds: float) -> None:
        """A call went well and took so long."""
        self._tell("inc", f"db_{self._op}_total", 1)
        self._tell("add_latency", f"db_{self._op}_latency", seconds)

    def fail(self) -> None:
        """A call raised."""
        self._tell("inc", f"db_{self._op}_errors_total", 1)

    def _tell(self, name: str, *given: Any) -> None:
        try:
            getattr(self._metrics, name)(*given)
        except Exception as error:  # noqa: BLE001 - what was counted is done, whatever the one who counts does
            logging.getLogger("snapdb").warning("metrics: %s() failed: %s", name, error)


def measure(handle: Any, metrics: Any) -> None:
    """Have the operations of a handle counted. Called anew whenever it has bound its single-row calls."""
    kind, there = type(handle), weakref.ref(handle)
    own = getattr(metrics, "tally", None)
    for name in (*POINTS, *OPERATIONS):
        if not callable(getattr(kind, name, None)):
            continue
        tally = _Told(metrics, name) if own is None else own(str(handle.path), name, EVERY if name in POINTS else 1)
        if own is not None and name in POINTS:
            # what _bind() has made the instance's own refers to the kernel and not to the handle
            bound = handle.__dict__.get(name) if name in BOUND else None
            call, owner = (getattr(kind, name), there) if bound is None else (bound, None)
            made: Any = getattr(metrics.meter(tally, call, owner, _gone), name)
        else:
            made = _counting(getattr(kind, name), there, tally)
        handle.__dict__[name] = made
    _watch_transactions(handle, metrics, own)
    file = handle._file
    if own is not None and file is not None:
        file.store.synced = metrics.synced


def _watch_transactions(handle: Any, metrics: Any, own: Any) -> None:
    transactions = handle._transactions
    there = weakref.ref(transactions)
    for name in ("commit", "rollback"):
        tally = _Told(metrics, name) if own is None else own(str(handle.path), name, 1)
        transactions.__dict__[name] = _counting(getattr(Transactions, name), there, tally)
    if own is not None:
        transactions.__dict__["begin"] = _waiting(there, metrics.waited)


def opened(handle: Any, metrics: Any, waited: Optional[float]) -> None:
    """The handle is open, after so many seconds of waiting for its file; None: there is none."""
    if getattr(metrics, "tally", None) is not None:
        metrics.show(handle)
        if waited is not None:
            metrics.waited(waited)
        if handle._cdc is not None:
            metrics.set_cdc_lag(str(handle.path), _lag(weakref.ref(handle)))


def _lag(handle: weakref.ref[Any]) -> Callable[[], float]:
    """How many changes the callback of a change log is still to be told of."""

    def lag() -> float:
        it = handle()
        return 0.0 if it is None or it._feed is None else float(it._feed.waiting)

    return lag


def is_open(handle: Any) -> bool:
    """Whether a handle is there and open."""
    return handle is not None and not isinstance(handle._engine, Absent)


def sizes_of(handle: Any) -> Optional[tuple[int, dict[str, int]]]:
    """Live rows and the sizes of the file's parts. None where somebody writes, or nothing can be said: nobody waits."""
    engine, file = handle._engine, handle._file
    lock = getattr(engine, "lock", None)
    try:
        if lock is None or not lock.acquire(blocking=False):
            return None
    except ClosedError:
        return None
    try:
        rows = len(engine)
        if file is None:
            return rows, {}
        figures = file.store.statistics()
        return rows, {"live": figures["live_bytes"], "dead": figures["free_bytes"], "wal": figures["wal_bytes"]}
    except Exception:  # noqa: BLE001 - closed meanwhile, damaged, forked: its own calls say so, a report goes on
        return None
    finally:
        lock.release()


def _counting(function: Callable[..., Any], owner: Callable[[], Any], tally: Any) -> Callable[..., Any]:
    """A method of what ``owner`` refers to, with each call counted and timed."""

    def call(*given: Any, **named: Any) -> Any:
        it = owner()
        begin = clock()
        try:
            found = _gone() if it is None else function(it, *given, **named)
        except BaseException:
            tally.fail()
            raise
        tally.done(clock() - begin)
        return found

    call.__name__, call.__qualname__, call.__doc__ = function.__name__, function.__qualname__, function.__doc__
    return call


def _waiting(owner: Callable[[], Any], waited: Callable[[float], None]) -> Callable[[object], None]:
    """``Transactions.begin``, which waits for the transactions and writes of other threads."""

    def begin(token: object) -> None:
        start = clock()
        it = owner()
        try:
            _gone() if it is None else Transactions.begin(it, token)
        finally:
            waited(clock() - start)

    return begin


def _gone() -> NoReturn:
    raise ClosedError("the database was dropped: keep the handle for as long as its methods are called")
