"""Snapshots: named states of a table that it can go back to, that can be opened beside it, and compared."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional

from .absent import Absent
from .differing import Difference, by_key
from .errors import (
    CorruptionError,
    NotSupportedError,
    SchemaError,
    SnapshotInUseError,
    shorten,
)
from .names import auto_name, check_name, not_found
from .opening import open_snapshot
from .step import carry_out, insist

if TYPE_CHECKING:
    from .indexes import Indexes
    from .journal import Journal, Step
    from .opening import Opened
    from .storage.snapshots import Snapshot
    from .storage.sources import SnapshotSource
    from .tablefile import TableFile

__all__ = ["FileSnapshots", "MemorySnapshots", "NoSnapshots", "Shown", "Snapshots"]

MOST = 65_536  # snapshots of one database


def _nothing(_: object) -> None:
    """There is nothing to watch."""


class Shown(NamedTuple):
    """A snapshot that is open: ``let_go`` is to be called when its handle goes, ``watch`` with what is to be told where
    the snapshot can be read no more.
    """

    opened: Opened
    let_go: Callable[[], Any]
    watch: Callable[[Callable[[BaseException], None]], Any] = _nothing


class Snapshots:
    """The snapshots of one handle. The caller has the table to itself; no transaction is open."""

    def snapshot(self, name: Optional[str]) -> str:
        """Keep the table as it is now; returns the name. A snapshot of the same name is replaced."""
        raise NotImplementedError

    def listed(self) -> list[dict[str, Any]]:
        """What is known of each snapshot, newest first."""
        raise NotImplementedError

    def open(self, name: str) -> Shown:
        """A table of its own that begins as a snapshot."""
        raise NotImplementedError

    def restore(self, name: str) -> None:
        """Have the table be that snapshot."""
        raise NotImplementedError

    def drop(self, name: str) -> None:
        """Forget a snapshot."""
        raise NotImplementedError

    def differ(self, one: str, other: str) -> Callable[[], Difference]:
        """What finds out how two snapshots differ; it may be called when others write again."""
        raise NotImplementedError

    def unused(self, what: str) -> AbstractContextManager[Any]:
        """A block in which no snapshot is open; SnapshotInUseError where one is: ``what`` cannot be done then."""
        raise NotImplementedError

    def memory_usage(self) -> int:
        """Bytes of memory that snapshots hold besides the table."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes that only snapshots need, wherever they are."""
        return self.memory_usage()


class NoSnapshots(Snapshots):
    """What a handle has that can have no snapshots: ``reason`` says why."""

    def __init__(self, reason: str, listed: bool = True) -> None:
        self._reason = reason
        self._listed = listed  # whether there are none, rather than that it cannot be said

    def _refuse(self, *_: object) -> NoReturn:
        raise NotSupportedError(self._reason)

    snapshot = open = restore = drop = differ = _refuse  # type: ignore[assignment]

    def listed(self) -> list[dict[str, Any]]:
        return [] if self._listed else self._refuse()

    def unused(self, what: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def memory_usage(self) -> int:
        return 0


class _Kept(NamedTuple):
    """A snapshot in memory."""

    serial: int
    name: str
    seconds: float  # when it was made, since 1970
    rows: int  # live ones
    generation: int
    image: Any


class MemorySnapshots(Snapshots):
    """The snapshots of a table in memory: images of it, which share with it what it has not written since."""

    def __init__(self, opened: Opened, keys: Indexes) -> None:
        self._opened = opened
        self._table = opened.table
        self._keys = keys
        self._kept: dict[str, _Kept] = {}
        self._serial = 1
        self._users: dict[int, int] = {}  # use -> serial of the snapshot that is open
        self._uses = count()

    def snapshot(self, name: Optional[str]) -> str:
        serial, table = self._serial, self._table
        if name is None:
            name = auto_name(serial, time.time(), self._kept)
        else:
            check_name(name)
            if name in self._kept:
                self._check_free(self._kept[name], "replaced")
        if len(self._kept) >= MOST and name not in self._kept:
            raise NotSupportedError(f"there are {MOST} snapshots, and there can be no more", hint="drop some of them")
        kept = _Kept(serial, name, time.time(), len(table), table.generation, table.image())
        self._kept[name] = kept
        self._serial = serial + 1
        return name

    def listed(self) -> list[dict[str, Any]]:
        return [
            described(kept.name, kept.seconds, kept.rows, self._opened.storage_type)
            for kept in sorted(self._kept.values(), reverse=True, key=lambda kept: kept.serial)
        ]

    def open(self, name: str) -> Shown:
        kept = self._find(name)
        table = self._table.branch(kept.image)
        use = next(self._uses)
        self._users[use] = kept.serial
        # one step and no lock: it may be called by a finalizer
        return Shown(self._opened._replace(table=table), partial(self._users.pop, use, None))

    def restore(self, name: str) -> None:
        kept = self._find(name)
        self._keys.stale(self._table)  # they are read again, whatever comes of it
        insist(partial(self._table.become, kept.image))

    def drop(self, name: str) -> None:
        self._check_free(self._find(name), "dropped")
        del self._kept[name]

    def differ(self, one: str, other: str) -> Callable[[], Difference]:
        a, b = self._find(one), self._find(other)
        if a.generation == b.generation:
            return partial(self._table.compare, a.image, b.image)
        key = self._opened.schema.primary_key
        if key is None:
            raise _no_key(one, other)
        return partial(self._differ_by_key, a, b, key)

    def _differ_by_key(self, one: _Kept, other: _Kept, key: str) -> Difference:
        branch = self._table.branch
        with branch(one.image).view() as a, branch(other.image).view() as b:
            return by_key(a, b, key)

    def unused(self, what: str) -> AbstractContextManager[Any]:
        used = list(self._users.values())
        for kept in self._kept.values():
            if kept.serial in used:
                raise in_use(kept.name, f"{what} cannot be done")
        return nullcontext()

    def memory_usage(self) -> int:
        newest = sorted(self._kept.values(), reverse=True, key=lambda kept: kept.serial)
        return int(self._table.held_by([kept.image for kept in newest])) if newest else 0

    def _find(self, name: Any) -> _Kept:
        kept = self._kept.get(name) if isinstance(name, str) else None
        if kept is None:
            raise not_found(name, list(self._kept))
        return kept

    def _check_free(self, kept: _Kept, what: str) -> None:
        if kept.serial in list(self._users.values()):
            raise in_use(kept.name, f"it cannot be {what}")


class FileSnapshots(Snapshots):
    """The snapshots of a table in a file: roots that it keeps, which share with the table what is the same."""

    def __init__(self, file: TableFile, journal: Journal, keys: Indexes) -> None:
        self._file = file
        self._store = file.store
        self._table = file.table
        self._journal = journal
        self._keys = keys

    def snapshot(self, name: Optional[str]) -> str:
        history = self._store.history
        replaced: Optional[Snapshot] = None
        if name is None:
            name = auto_name(history.serial, time.time(), {record.name for record in history.records})
        else:
            check_name(name)
            replaced = history.find(name)
        if replaced is None:
            self._make(name, None)
        else:
            with self._free(replaced, "replaced"):
                self._make(name, replaced.serial)
        return name

    def _make(self, name: str, replaced: Optional[int]) -> None:
        store = self._store
        store.usable()
        if not store.folded:
            self._file.checkpoint()
        meta = {"rows": len(self._table), "storage_type": self._table.storage_type}
        record = store.pin(name, json.dumps(meta).encode(), replaced)
        try:
            self._carry_out(self._journal.snapshot(record, replaced))
        except BaseException:
            if store.failed is None and store.history.serial <= record.serial:
                store.unpin(record)
            raise

    def _carry_out(self, step: Step) -> None:
        """What changes no row."""
        with step:
            carry_out(step.first, step.then)
        self._store.show()

    def listed(self) -> list[dict[str, Any]]:
        return [self._told(record) for record in reversed(self._store.history.records)]

    def _told(self, record: Snapshot) -> dict[str, Any]:
        """An item of ``list_snapshots()``. CorruptionError."""
        try:
            return told(record)
        except ValueError as error:
            raise CorruptionError(
                f"{self._store.path}: what is said of snapshot {shorten(record.name)} is damaged"
            ) from error

    def open(self, name: str) -> Shown:
        source = self._store.snapshot_source(self._find(name))
        try:
            return Shown(open_snapshot(source, self._store.path), source.close, partial(setattr, source, "broken"))
        except BaseException:
            source.close()
            raise

    def restore(self, name: str) -> None:
        record = self._find(name)
        self._store.usable()
        self._keys.stale(self._table)  # they are read again, whatever comes of it
        self._file.restore(self._journal, record.serial)
        self._store.show()

    def drop(self, name: str) -> None:
        record = self._find(name)
        self._store.usable()
        with self._free(record, "dropped"):
            self._carry_out(self._journal.dropped(record.serial))

    def differ(self, one: str, other: str) -> Callable[[], Difference]:
        a, b = self._find(one), self._find(other)
        first = self._store.snapshot_source(a)
        try:
            second = self._store.snapshot_source(b)
        except BaseException:
            first.close()
            raise
        return partial(self._differ, first, second)

    def _differ(self, one: SnapshotSource, other: SnapshotSource) -> Difference:
        opened: list[Opened] = []
        try:
            if stored_generation(one) == stored_generation(other):
                return self._table.compare_stored(one, other)
            for source in (one, other):
                opened.append(open_snapshot(source, self._store.path))
            key = opened[0].schema.primary_key
            if key is None:
                raise _no_key(one.record.name, other.record.name)
            with opened[0].table.view() as before, opened[1].table.view() as after:
                return by_key(before, after, key)
        finally:
            for each in opened:
                each.table.release(Absent("two snapshots were compared"))  # else the file is in use until a collection
            one.close()
            other.close()

    def unused(self, what: str) -> AbstractContextManager[Any]:
        users = self._store.users
        for record in self._store.history.records:
            if users.get(record.serial):
                raise in_use(record.name, f"{what} cannot be done")
        return self._store.pinned_elsewhere(None, f"{what} cannot be done")

    def memory_usage(self) -> int:
        return 0

    def size(self) -> int:
        return sum([size for _, size in self._store.history.reach()])

    def _find(self, name: Any) -> Snapshot:
        history = self._store.history
        record = history.find(name) if isinstance(name, str) else None
        if record is None:
            raise not_found(name, [record.name for record in history.records])
        return record

    def _free(self, record: Snapshot, what: str) -> AbstractContextManager[Any]:
        """A block in which nobody has this snapshot open. SnapshotInUseError where somebody has."""
        if self._store.users.get(record.serial):
            raise in_use(record.name, f"it cannot be {what}")
        return self._store.pinned_elsewhere(record.serial, f"it cannot be {what}")


# -- names and messages --------------------------------------------------------


def described(name: str, seconds: float, rows: int, storage_type: str) -> dict[str, Any]:
    """An item of ``list_snapshots()``."""
    from datetime import datetime, timezone  # not at the top: few ask for it

    made = datetime.fromtimestamp(seconds, timezone.utc)
    return {"name": name, "created_at": made, "rows": rows, "storage_type": storage_type}


def told(record: Snapshot) -> dict[str, Any]:
    """An item of ``list_snapshots()`` from a snapshot's record, ValueError where that is none."""
    try:
        meta = json.loads(record.meta)
        rows, kind = meta["rows"], meta["storage_type"]
        if type(rows) is not int or rows < 0 or type(kind) is not str:
            raise ValueError(f"{rows!r} rows of storage type {kind!r}")
        return described(record.name, record.time / 1e6, rows, kind)
    except (KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
        raise ValueError(f"what is said of it is damaged: {error}") from error


def stored_generation(source: SnapshotSource) -> Any:
    """Of the row ids of a snapshot."""
    return source.header.get("id_generation", 0)


def _no_key(one: str, other: str) -> SchemaError:
    return SchemaError(
        f"row ids changed in compact() between snapshots {shorten(one)} and {shorten(other)}: "
        "comparing them needs a primary key"
    )


def in_use(name: str, what: str) -> SnapshotInUseError:
    """The error for a snapshot that is open in this process."""
    return SnapshotInUseError(f"snapshot {shorten(name)} is open in this process: {what}", hint="close it first")
