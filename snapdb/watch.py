"""Live queries: the rows of a query now, and from then on what each commit changes about them.

A commit is judged by its own rows, before and after: what it costs follows what it changed, not the table. A query with
a slice keeps the rows of its slice and some behind them; only when these run out is the table asked again.
"""

from __future__ import annotations

import functools
import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from .commits import Commit
from .errors import ValidationError, ValueTypeError
from .feed import same_rows
from .query import Query

if TYPE_CHECKING:
    import asyncio

    from .indexed import Indexed
    from .ordering import Order
    from .query import _Plan
    from .schema import Schema

__all__ = ["Batch", "Watch"]

Row = dict[str, Any]
Item = tuple[int, Row]
SPARE = 64  # rows that are kept behind a slice
MOST = 1024  # batches that wait for whoever asks for them; then they are given up for the rows as they are


class Batch(NamedTuple):
    """What a commit changed about a query: lists of (row id, row). ``removed`` has the rows as they were. ``lsn``: of
    the commit. ``reset``: begin anew: ``added`` are all rows that there are. So is the first batch, and one after
    ``compact()``, which gives rows new ids.
    """

    added: list[Item]
    changed: list[Item]
    removed: list[Item]
    lsn: int
    reset: bool = False


class _Test:
    """Whether a row, as a dict, meets the conditions of a query."""

    def __init__(self, plan: _Plan, schema: Schema, codec: Any) -> None:
        self._terms = plan.terms
        self._calls = plan.calls
        self._names = sorted({schema.columns[j].name for j, _ in plan.terms})
        self._codec = codec

    def __call__(self, row: Optional[Row]) -> bool:
        if row is None:
            return False
        if self._terms:
            values = dict(self._codec.encode_partial({name: row[name] for name in self._names}))
            if not all(predicate.matches(values[j]) for j, predicate in self._terms):
                return False
        return all(call(dict(row)) for call in self._calls)


class _Window:
    """The rows of a slice, and some behind it; ``whole``: there are no others. Rows stand in order."""

    def __init__(self, plan: _Plan, schema: Schema) -> None:
        self._skip, self._limit = plan.skip, plan.limit
        self._key = functools.cmp_to_key(_comparison(plan.orders, schema))
        self.need = plan.need + SPARE if plan.limit >= 0 else -1
        self._keys: list[Any] = []
        self.whole = True

    def fill(self, items: Sequence[Item]) -> None:
        """These are the first rows, all there are where they are fewer than ``need``."""
        self._keys = [self._key(item) for item in items]
        self.whole = self.need < 0 or len(items) < self.need

    def shown(self) -> dict[int, Row]:
        """The rows of the slice by id, in order."""
        end = None if self._limit < 0 else self._skip + self._limit
        return dict(key.obj for key in self._keys[self._skip : end])

    def put(self, idx: int, old: Optional[Row], row: Optional[Row]) -> None:
        """A row that met the conditions was ``old``, and is ``row`` if it still does."""
        keys = self._keys
        if old is not None:
            at = bisect_left(keys, self._key((idx, old)))
            if at < len(keys) and keys[at].obj[0] == idx:
                del keys[at]
        if row is None:
            return
        key = self._key((idx, row))
        if self.whole or (keys and key < keys[-1]):
            keys.insert(bisect_left(keys, key), key)
            if self.need >= 0 and len(keys) > 2 * self.need:
                del keys[self.need :]
                self.whole = False

    @property
    def short(self) -> bool:
        """Whether rows are missing that only the table has."""
        return not self.whole and len(self._keys) < self._skip + self._limit


def _comparison(orders: Sequence[Order], schema: Schema) -> Callable[[Item, Item], int]:
    named = [(schema.columns[j].name, desc) for j, desc in orders]

    def compare(one: Item, other: Item) -> int:
        for name, desc in named:
            a, b = _placed(one[1][name]), _placed(other[1][name])
            if a[0] != b[0]:
                return -1 if a[0] < b[0] else 1
            if a[1] != b[1]:
                return -1 if (a[1] < b[1]) != desc else 1
        return (one[0] > other[0]) - (one[0] < other[0])

    return compare


def _placed(value: Any) -> tuple[int, Any]:
    """Numbers, then NaN, then null; text by its bytes, as it may read as bytes."""
    if value is None:
        return (2, 0)
    if value != value:
        return (1, 0)
    return (0, value.encode() if isinstance(value, str) else value)


class Watch:
    """A query that is watched, until ``cancel()`` or until the database is closed. Made by ``SnapDB.watch``.

    With a callback that is called with each ``Batch``. Without one the batches wait for ``pull()``, or for
    ``async for batch in watch``.
    """

    def __init__(self, db: Indexed, query: Any, callback: Optional[Callable[[Batch], Any]] = None) -> None:
        if callback is not None and not callable(callback):
            raise ValueTypeError(f"callback= takes a callable over batches, not {type(callback).__name__}")
        asked = _asked(db, query)
        self._db: weakref.ref[Any] = weakref.ref(db)  # no reference back: a handle that is dropped must go
        self._plan = asked.plan
        self._callback = callback
        self._batches: deque[Batch] = deque()
        self._lock = threading.Lock()
        self._waiting: Optional[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = None
        self._over = False
        self._as_of = -1  # the LSN up to which commits are known
        plan, schema = self._plan, db.schema
        self._test = _Test(plan, schema, db._engine.codec)
        self._window = _Window(plan, schema) if plan.limit >= 0 or plan.skip else None

    def __repr__(self) -> str:
        return f"Watch({'over' if self._over else 'on'})"

    # -- for the database ----------------------------------------------------------
    def begin(self, db: Indexed, lsn: int) -> Callable[[], None]:
        """Read the rows as of this LSN; nobody writes meanwhile. What tells them."""
        items = self.read(db, lsn)
        return lambda: self._give(Batch(items, [], [], lsn, True))

    def read(self, db: Indexed, lsn: int) -> list[Item]:
        """The rows as of this LSN; nobody writes meanwhile."""
        self._as_of = lsn
        asked = Query(db).replanned(self._plan)
        window = self._window
        if window is None:
            return asked.execute()
        if window.need >= 0:
            asked = asked.slice(window.need)
        else:
            asked = asked.slice(None)
        window.fill(asked.execute())
        return list(window.shown().items())

    def take(self, commit: Commit) -> None:
        """A commit, as far as it has to do with the query."""
        if self._over or commit.lsn <= self._as_of:
            return
        if commit.renumbered:
            self.unseen()
            return
        self._as_of = commit.lsn
        net: dict[int, tuple[Optional[Row], Optional[Row]]] = {}
        for _, idx, row, old in commit.changes:
            if idx is not None:
                net[idx] = (net[idx][0] if idx in net else old, row)
        test = self._test
        judged = [(idx, old if test(old) else None, row if test(row) else None) for idx, (old, row) in net.items()]
        judged = [(idx, old, row) for idx, old, row in judged if old is not None or row is not None]
        if judged:
            self._differ(commit.lsn, judged)

    def _differ(self, lsn: int, judged: list[tuple[int, Optional[Row], Optional[Row]]]) -> None:
        window = self._window
        if window is None:
            self._give(_batch(lsn, judged))
            return
        before = window.shown()
        for idx, old, row in judged:
            window.put(idx, old, row)
        if window.short:
            lsn = self._again() or lsn
        after = window.shown()
        ids = [*before, *(idx for idx in after if idx not in before)]
        self._give(_batch(lsn, [(idx, before.get(idx), after.get(idx)) for idx in ids]))

    def _again(self) -> Optional[int]:
        """Read the rows again; as of which LSN. None where the database is gone."""
        db = self._db()
        if db is None:
            return None
        lsn: Optional[int] = db._as_of_now(self)
        return lsn

    def unseen(self) -> None:
        """What is known of the rows does not hold: all of them are told again."""
        db = self._db()
        if self._over or db is None:
            return
        found: list[Item] = []
        lsn = db._as_of_now(self, found)
        if lsn is not None:
            self._give(Batch(found, [], [], lsn, True))

    def _give(self, batch: Batch) -> None:
        if self._over or not (batch.reset or batch.added or batch.changed or batch.removed):
            return
        batch = batch._replace(
            added=[(idx, dict(row)) for idx, row in batch.added],
            changed=[(idx, dict(row)) for idx, row in batch.changed],
            removed=[(idx, dict(row)) for idx, row in batch.removed],
        )
        if self._callback is not None:
            self._callback(batch)
            return
        with self._lock:
            self._batches.append(batch)
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            _wake(waiting)
        if len(self._batches) > MOST and not batch.reset:
            with self._lock:
                self._batches.clear()
            self.unseen()

    # -- for whoever watches --------------------------------------------------------
    def pull(self) -> list[Batch]:
        """The batches since the last call, of a watch without a callback. Where more than 1,024 of them wait they are
        given up for one that begins anew.
        """
        with self._lock:
            found = list(self._batches)
            self._batches.clear()
        return found

    def cancel(self) -> None:
        """Watch no longer; no callback begins from here on. Again it does nothing."""
        self.stop()
        db = self._db()
        if db is not None:
            db._ignore(self)

    def stop(self) -> None:
        """The database is closed."""
        with self._lock:
            self._over = True
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            _wake(waiting)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()

    def __aiter__(self) -> Watch:
        if self._callback is not None:
            raise ValidationError("this watch has a callback: its batches go there")
        return self

    async def __anext__(self) -> Batch:
        import asyncio

        while True:
            loop = asyncio.get_running_loop()
            with self._lock:
                if self._batches:
                    return self._batches.popleft()
                if self._over:
                    raise StopAsyncIteration
                done: asyncio.Future[None] = loop.create_future()
                self._waiting = loop, done
            await done


def _wake(waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]) -> None:
    loop, done = waiting
    try:
        loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))
    except RuntimeError:
        pass  # the loop is closed: nobody waits


def _asked(db: Indexed, query: Any) -> Query:
    if isinstance(query, Query):
        if not query.reads(db):
            raise ValidationError("watch() takes a query of this database, not of another one")
        return query
    if callable(query):
        return Query(db).where_fn(query)
    return Query(db) if query is None else Query(db).filter(query)


def _batch(lsn: int, judged: Iterable[tuple[int, Optional[Row], Optional[Row]]]) -> Batch:
    """A batch of what rows were and are; None: not among them."""
    batch = Batch([], [], [], lsn)
    for idx, old, row in judged:
        if old is None:
            if row is not None:
                batch.added.append((idx, row))
        elif row is None:
            batch.removed.append((idx, old))
        elif not same_rows(old, row):
            batch.changed.append((idx, row))
    return batch
