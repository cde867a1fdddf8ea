"""SnapDB: one table's lifecycle and constraints, routed to one engine. Glue; no loop over rows stands here."""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, Union

from .absent import Absent
from .errors import (
    ClosedError,
    CorruptionError,
    DurabilityError,
    InternalError,
    NotFoundError,
    NotSupportedError,
    ReadOnlyError,
    SchemaError,
    SnapDBError,
    StorageError,
    TransactionError,
    ValidationError,
    ValueTypeError,
)
from .indexed import Indexed
from .indexes import Indexes
from .interrupts import Uninterrupted
from .joins import join
from .journal import Journal
from .maintenance import Maintenance
from .opening import MEMORY, CopyKeys, Opened, check, open_file, open_memory, opened_again
from .schema import Schema
from .snapshots import FileSnapshots, MemorySnapshots, NoSnapshots, Shown, Snapshots
from .table import Change, Staged
from .transaction import Transaction, Transactions

if TYPE_CHECKING:
    from pathlib import Path

    from .cdc import CDCLog
    from .commits import Commit
    from .feed import Feed
    from .tablefile import TableFile
    from .watch import Batch, Watch

__all__ = ["SnapDB"]

Row = dict[str, Any]

_A_SNAPSHOT = "a snapshot that is open has none of its own: backup() makes a database of it"


class SnapDB(Indexed, Maintenance):
    """One table with a fixed schema, in a file or, with ``path=":memory:"``, in memory.

    ``storage_type`` is ``"row"`` (the default of a new database: single-row reads and writes) or ``"columnar"``
    (compressed; scans, filters, aggregates). ``schema=None`` and ``storage_type=None`` open an existing file as it was
    made. ``page_size`` bounds the fixed-width part of a row of the row engine (64 … 65,535 bytes).
    ``dict_columns``, ``delta_columns`` and ``for_columns`` prefer an encoding in the columnar engine and never change
    an answer.

    ``durability``: ``"full"`` has every commit on stable storage before it returns; ``"normal"`` an explicit
    transaction, a bare write within 100 ms (a killed process loses nothing); ``"none"`` keeps writes in the process
    until ``flush()``, ``checkpoint()`` or ``close()``. ``read_only=True`` opens share the file, ``timeout`` is how many
    seconds to wait for a lock, ``mmap=False`` reads instead of mapping. ``snapshot="name"``, with ``read_only=True``,
    reads that snapshot while others, in this process or another one, read and write the database.

    Raises SchemaError for a bad schema, SchemaMismatchError where the stored one differs, FileNotFoundError where there
    is no file and no schema, or no folder, LockedError where it is open elsewhere, CorruptionError for damage. A
    context manager: leaving it closes.
    """

    _detach: Callable[[], Any]  # lets the change log belong to nobody
    _metrics: Any

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        schema: Optional[Schema] = None,
        page_size: int = 4096,
        storage_type: Optional[str] = None,
        metrics: Any = None,
        cdc: Any = None,
        auto_index: bool = False,
        auto_index_threshold: int = 8,
        dict_columns: Optional[Iterable[str]] = None,
        delta_columns: Optional[Iterable[str]] = None,
        encryption_key: Union[str, bytes, None] = None,
        *,
        for_columns: Optional[Iterable[str]] = None,
        durability: str = "normal",
        read_only: bool = False,
        timeout: float = 0.0,
        mmap: bool = True,
        snapshot: Optional[str] = None,
    ) -> None:
        self._engine: Any = Absent(f"database {str(path)!r} was not opened")
        hints = {"dict_columns": dict_columns, "delta_columns": delta_columns, "for_columns": for_columns}
        wanted = check(
            path, schema, page_size, storage_type, hints, durability, read_only, timeout, mmap,
            metrics=metrics, encryption_key=encryption_key, snapshot=snapshot, cdc=cdc,
        )  # fmt: skip
        if auto_index and not isinstance(auto_index_threshold, int):
            raise ValueTypeError(f"auto_index_threshold must be an int, not {type(auto_index_threshold).__name__}")
        self._blank(wanted.path, durability, wanted.read_only)
        self._metrics = metrics
        if auto_index:
            self._auto, self._auto_threshold = {}, auto_index_threshold
        if cdc is not None:
            cdc.attach()
            self._cdc = cdc
            detach = weakref.finalize(self, cdc.detach)
            detach.atexit = False
            self._detach = detach
        waited: Optional[float] = None
        try:
            if wanted.path == MEMORY:
                self._take(open_memory(wanted))
            else:
                waited = open_file(wanted, self._take)
        except BaseException:
            self._abandon()  # a signal may have come when it was open already
            raise
        self._bind()
        if metrics is not None:
            from .measured import opened  # few need it

            opened(self, metrics, waited)
        self._tell()

    def _blank(self, path: Union[str, Path], durability: str, read_only: bool) -> None:
        """Have what a handle has that has no table yet."""
        self.path: Union[str, Path] = path
        self.durability = durability
        self._read_only = read_only
        self._file: Optional[TableFile] = None
        self._snapshots: Snapshots = NoSnapshots("there is no table")
        self._shown: Optional[str] = None  # the name of the snapshot that this is
        self._let_go: Callable[[], Any] = _nothing  # what was had for it alone
        self._copies = CopyKeys()
        self._metrics = None
        self._auto = None
        self._auto_threshold = 0
        self._gate: Any = None  # in front of the kernel's insert(), where rows go straight to it
        self._cdc: Optional[CDCLog] = None
        self._detach = _nothing
        self._feed: Optional[Feed] = None  # who is told of commits; None: nobody
        self._counted = 0  # commits in memory before there was a feed, as far as is known

    def _take(self, opened: Opened) -> None:
        """Be the handle of this table."""
        table, file = opened.table, opened.file
        self.schema, self.storage_type, self.page_size = opened.schema, opened.storage_type, opened.page_size
        self._description = opened.description
        cipher = None if file is None else file.store.cipher
        self._copies.keys = opened.keys if cipher is None else cipher.keys
        handle = weakref.ref(self)  # no reference back: a handle that is dropped must go
        self._journal = Journal(lambda error: _on_broken(handle(), error)) if file is None else file.journal()
        self._indexes = Indexes(self.schema, table.kernels, table)
        for kind, names in self._description.get("indexes", {}).items():
            for name in names:
                self._indexes.define(name, kind)
        if self._cdc is not None or self._feed is not None:
            self._announce(table, file, opened.missed)
        self._transactions = Transactions(table, self._indexes, self._journal)
        if file is None:
            self._snapshots = MemorySnapshots(opened, self._indexes)
        else:
            self._shown = opened.shown
            if opened.shown is None:
                self._snapshots = FileSnapshots(file, self._journal, self._indexes)
            else:
                self._snapshots = NoSnapshots(_A_SNAPSHOT)
            self._indexes.stale(table)
            self._watch(table, file)
        self._engine, self._gate = table, None
        self._choose_way()

    def _announce(self, table: Any, file: Optional[TableFile], missed: Sequence[Commit] = ()) -> None:
        """Have commits of this table told to the change log, and to whoever listens already."""
        from .feed import Announced, Feed  # few have one

        before = self._feed
        log = None if file is None else file.store.log
        self._feed = feed = Feed(table, None if log is None else lambda: log.lsn, self._first_lsn(table))
        feed.inner = self._journal
        self._journal = Announced(self._journal, feed, table)
        if self._cdc is not None:
            feed.recorders.append(self._cdc)
            feed.listeners.append(self._cdc)
            if file is None:
                self._cdc.begin(feed.lsn)
            else:
                file.recorded.append(feed.collect)
        if before is not None:
            feed.listeners += [one for one in before.listeners if one is not self._cdc]
            feed.unseen()
        feed.found(missed)

    def _first_lsn(self, table: Any) -> int:
        """In memory: how many commits there were, as nobody has counted 1 if there were any."""
        return max(self._counted, 0 if table.rows == 0 else 1)

    def watch(self, query: Any = None, callback: Optional[Callable[[Batch], Any]] = None) -> Watch:
        """Watch the rows of a query: conditions, a callable over rows, a ``Query`` (with order and limit), None: all.

        ``callback(batch)`` is called at once with the rows that there are as ``batch.added``, and then, after each
        commit that changes them, with those ``added``, ``changed`` and ``removed``, as lists of (row id, row); never
        for one that does not. What a commit costs follows what it changes, not the table. Without a callback:
        ``watch.pull()`` or ``async for batch in watch``. An exception in a callback is logged.

        TransactionError inside a transaction, ReadOnlyError where nothing can be written.
        """
        from .watch import Watch  # few have one

        engine = self._writable()
        made = Watch(self, query, callback)
        with engine.writing():
            self._open_engine()
            self._outside("watch")
            feed = self._listen(engine)
            feed.collect()
            feed.add(made, made.begin(self, feed.lsn))
        feed.tell()
        return made

    def _as_of_now(self, watch: Watch, found: Optional[list[tuple[int, Row]]] = None) -> Optional[int]:
        """Have a watch read its rows again; as of which LSN. None where there is no table any more."""
        engine, feed = self._engine, self._feed
        if feed is None or isinstance(engine, Absent):
            return None
        with engine.writing():
            if isinstance(self._engine, Absent):
                return None
            feed.collect()
            lsn = feed.lsn
            items = watch.read(self, lsn)
            if found is not None:
                found += items
            return lsn

    def _ignore(self, listener: Any) -> None:
        """Tell this one no more; where nobody is left, writes go the short way again."""
        feed, engine = self._feed, self._engine
        if feed is None or listener not in feed.listeners:
            return
        feed.listeners.remove(listener)
        if isinstance(engine, Absent):
            return
        with engine.writing():
            if self._feed is not feed or feed.listeners or feed.recorders or self._transactions.is_open:
                return
            feed.collect()
            if isinstance(self._engine, Absent) or not feed.is_idle:
                return
            self._counted = feed.lsn + 1
            self._feed, self._journal = None, feed.inner
            self._transactions.journal = self._journal
            self._rebind()

    def _listen(self, engine: Any) -> Feed:
        """Have commits told from here on; the caller has the table to itself, and no transaction is open."""
        if self._feed is None:
            self._announce(engine, self._file)
            self._transactions.journal = self._journal
            self._rebind()
        feed: Any = self._feed
        return feed  # type: ignore[no-any-return]

    def _record(self) -> CDCLog:
        from .cdc import CDCLog

        self._cdc = cdc = CDCLog()
        cdc.attach()
        feed = self._listen(self._engine)
        if cdc not in feed.recorders:  # somebody has listened before
            feed.recorders.append(cdc)
        if feed.lsn:
            cdc.lost(feed.lsn)
        return cdc

    def _tell(self) -> None:
        """Tell whoever listens what was committed."""
        if self._feed is not None:
            self._feed.tell()

    def _choose_way(self) -> None:
        file = self._file
        # rows of a table with indexes or listeners, or of an encrypted file, are not for the kernel to log
        self._by_journal: Any = (
            bool(self._indexes) or self._feed is not None or (file is not None and file.store.cipher is not None)
        )
        if self._gate is not None:
            self._gate.open = not self._by_journal

    def _rebind(self) -> None:
        self._choose_way()
        self._unbind()
        self._bind()

    def _unbind(self) -> None:
        for name in ("get", "insert", "lookup"):
            self.__dict__.pop(name, None)

    def _watch(self, table: Any, file: TableFile) -> None:
        """Be told what the file wants, and let go of it when dropped."""
        store = file.store
        # no reference back from what the store calls: a handle that is dropped must go
        handle = weakref.ref(self)
        store.broken = lambda error: _on_broken(handle(), error)
        if not self._read_only:
            table.attach(store.log if store.cipher is None else _no_log(table))
            store.full = lambda: _on_full(handle())
            store.alone = lambda: _alone(handle())
        self._finalizer = weakref.finalize(self, _dropped, store, table)
        self._finalizer.atexit = False
        self._file = file

    def _bind(self) -> None:
        """Let single-row calls go straight to the engine's kernel: a Python frame between would cost more than
        the work.
        """
        kind = type(self)
        if kind.get is SnapDB.get:  # a subclass's own method stands
            self.get = self._engine.get  # type: ignore[method-assign]
        hashed = self._indexes.hashed()
        if kind.lookup is Indexed.lookup and hashed and self._auto is None:
            self.lookup = self._engine.finder(hashed, _looking_up(weakref.ref(self)))  # type: ignore[method-assign]
        direct = not self._by_journal and not self._read_only
        if self._file is not None and any(column.type.is_variable for column in self.schema):
            direct = False  # a row may be too long for the log, which insert() says better than the kernel
        if kind.insert is SnapDB.insert and direct:
            if self._gate is None:
                self._gate = _gate(weakref.ref(self), self._engine)
            self.insert = self._gate.insert  # type: ignore[method-assign]
        if self._metrics is not None:
            from .measured import measure

            measure(self, self._metrics)

    # -- lifecycle ---------------------------------------------------------

    def close(self) -> None:
        """Close; every other call then raises ClosedError. Closing twice does nothing.

        A transaction that is open is rolled back. A file is left complete, without a log beside it; a table in memory
        is gone.
        """
        engine = self._engine
        if isinstance(engine, Absent):
            self._abandon()
            return
        try:
            with engine.writing(), Uninterrupted():  # waits for the transaction of another thread
                if self._transactions.is_open:
                    self._transactions.rollback()
                file = self._file
                closed = self._closed()
                self._leave(closed)
                # whoever has the kernel's insert() still, or waits for its turn, must not write into what is gone
                engine.attach(_closed_log(engine, closed))
                try:
                    if file is not None:
                        self._finalizer.detach()
                        self._file = None
                        file.close()
                finally:
                    engine.release(closed)
                    self._let_go()
        finally:
            self._tell()
            self._unlisten()

    def _unlisten(self) -> None:
        """Nobody is told of anything any more."""
        self._cdc = None
        self._detach()
        feed = self._feed
        if feed is not None:
            for listener in list(feed.listeners):
                listener.stop()
            feed.listeners.clear()

    def _abandon(self) -> None:
        """Let go of the file of a handle that failed."""
        file, self._file = self._file, None
        if file is not None:
            self._finalizer.detach()
            closed = self._closed()
            self._leave(closed)
            self._transactions.disown()
            file.store.abandon()
            _empty(file.table, closed)
        self._unlisten()

    def _closed(self) -> Absent:
        return Absent(f"database {str(self.path)!r} is closed: open it again with SnapDB(...)")

    def _leave(self, absent: Absent) -> None:
        self._engine = absent
        self._snapshots = NoSnapshots("the database is closed")
        self._unbind()
        self._indexes.forget()  # whoever has the kernel's lookup() still asks the handle, which says what is wrong

    def __enter__(self) -> SnapDB:
        self._open_engine()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if isinstance(self._engine, Absent):
            return f"SnapDB({'closed' if self._engine.error is ClosedError else 'failed'})"
        shown = "" if self._shown is None else f", snapshot={self._shown!r}"
        return (
            f"SnapDB({str(self.path)!r}{shown}, storage_type={self.storage_type!r}, rows={len(self)}, "
            f"indexes={self._indexes.names('hash')!r})"
        )

    def _repr_html_(self) -> str:
        """The first rows, for notebooks."""
        from .html_table import html_of, view_html  # notebooks alone ask

        return html_of(self, lambda: view_html(repr(self), self._engine.view(), len(self)))

    def __reduce__(self) -> NoReturn:
        raise NotSupportedError(
            "a SnapDB handle cannot be copied or pickled; hand over its rows, as select() gives them, "
            "and insert them into a table of their own"
        )

    def is_columnar(self) -> bool:
        """Whether the table is stored by column."""
        self._open_engine()
        return self.storage_type == "columnar"

    def transaction(self) -> Transaction:
        """``with db.transaction():`` everything in the block happens, or with an exception nothing of it.

        On stable storage when it returns (``durability="none"``: at the next flush). Other threads' writes wait.
        Nested: TransactionError (a RuntimeError).
        """
        self._writable()
        return Transaction(self._transactions)

    def _repair(self) -> dict[str, Any]:
        if self._file is None:
            raise NotSupportedError("repair() is for a file: a table in memory has nothing to be read again from")
        from .repairing import unharmed  # few need it

        report = self.fsck(full=True)
        if report["ok"]:
            return unharmed(report["rows"], [one["name"] for one in self.list_snapshots()][::-1])
        issues = {"issues": report["issues"]}
        if any(issue["kind"] == "log" for issue in report["issues"]) and self._is_folded_in():
            return {**unharmed(len(self), [one["name"] for one in self.list_snapshots()][::-1]), **issues}
        with self._snapshots.unused("repair()"):
            return {**self._replaced(self._file), **issues}

    def _is_folded_in(self) -> bool:
        """Whether a checkpoint makes the file sound: what a damaged log has is in the table."""
        try:
            self._its_file().checkpoint()
        except (StorageError, CorruptionError):
            return False
        return bool(self.fsck(full=True)["ok"])

    def _replaced(self, file: TableFile) -> dict[str, Any]:
        """Go on with a new file made of what there is of this one; where that fails with the old one."""
        from .repairing import repaired

        engine, store = self._engine, file.store
        store.flush()
        away = Absent(f"database {str(self.path)!r} was repaired meanwhile: call again")
        self._finalizer.detach()
        self._file = None
        self._leave(away)
        engine.attach(_closed_log(engine, away))
        taken: Any = store.hand_over()
        engine.release(away)
        try:
            report, new = repaired(store, taken)
        except CorruptionError as error:
            try:
                self._reopen(store, taken)
            except CorruptionError:  # it does not open any more: closed, and why it cannot be repaired says more
                raise error from None
            raise
        except BaseException:
            self._reopen(store, taken)
            raise
        taken.release()
        self._reopen(store, new)
        return report

    def _reopen(self, store: Any, claim: Any) -> None:
        """Be the handle of the file that has the place now, and which is locked already."""
        self._leave(self._closed())
        self._take(opened_again(store, claim, self._cdc))
        self._bind()

    @staticmethod
    def repair_file(
        path: Union[str, os.PathLike[str]], encryption_key: Union[str, bytes, None] = None, timeout: float = 0.0
    ) -> dict[str, Any]:
        """``repair`` for a file that need not open. FileNotFoundError, LockedError where it is open (after ``timeout``
        seconds), WrongKeyError and what else ``repair`` says.
        """
        from .repairing import repair_file  # few need it

        return repair_file(SnapDB, path, encryption_key, timeout)

    def _outside(self, name: str) -> None:
        if self._transactions.is_open:
            raise TransactionError(f"{name}() inside a transaction: call it after the block")

    def _open_engine(self) -> Any:
        """The engine; ClosedError where the database is closed. Reads nothing."""
        engine = self._engine
        if isinstance(engine, Absent):
            engine.refuse()
        return engine

    def _writable(self) -> Any:
        """The engine, for a write."""
        engine = self._open_engine()
        if self._read_only:
            raise ReadOnlyError(f"{str(self.path)!r} was opened with read_only=True; open it again without to write")
        return engine

    def open_snapshot(self, name: str, encryption_key: Union[str, bytes, None] = None) -> SnapDB:
        """A snapshot as a database of its own, with all that a database has but snapshots: what is written to it is
        kept in memory only, until it is closed. ``backup()`` makes a file of it.

        NotFoundError (a KeyError) where there is no such snapshot. A key that is given must be the database's
        (WrongKeyError); none is needed.
        """
        engine = self._open_engine()
        if encryption_key is not None:
            self._check_key(encryption_key)
        with engine.lock, Uninterrupted():
            self._open_engine()
            shown = self._snapshots.open(name)
            try:
                return self._show(name, shown)
            except BaseException:
                shown.let_go()
                raise

    def _show(self, name: str, shown: Shown) -> SnapDB:
        handle = SnapDB.__new__(SnapDB)
        handle._engine = Absent(f"snapshot {name!r} was not opened")
        handle._blank(self.path, self.durability, False)
        handle._take(shown.opened)
        handle._copies = self._copies  # rekey() of the database is meant for these copies too
        handle._indexes.stale(shown.opened.table)  # they are read when they are first needed
        handle._snapshots = NoSnapshots(_A_SNAPSHOT)
        handle._shown = name
        handle._bind()
        there = weakref.ref(handle)
        shown.watch(lambda error: _on_broken(there(), error))
        finalizer = weakref.finalize(handle, shown.let_go)
        finalizer.atexit = False
        handle._let_go = finalizer
        return handle

    # -- writes ------------------------------------------------------------

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append one row; returns its id.

        ValidationError (a ValueError) names a bad column and value, MissingColumnError (a KeyError) a missing column,
        UnknownColumnError an unknown key, UniqueError (a ValueError) a taken unique value. Whatever it raises,
        nothing was written.
        """
        engine = self._writable()
        if not self._by_journal:
            try:
                idx: int = engine.insert(row)
            except ValueError as error:
                if isinstance(error, SnapDBError):
                    raise
                hint = "insert rows with such values by batch_insert()"
                raise ValidationError(f"the row is too long for the log: {error}", hint=hint) from error
            if self._by_journal:
                self._untold(engine)
            return idx
        values = engine.codec.encode(row)
        with engine.writing():
            self._open_engine()
            keys = self._indexes.check_row(values)
            new: int = engine.rows
            try:
                with self._journal.row(new, values, lambda: bool(engine.rows != new)) as step:
                    engine.append_values(values, [*step.first, *self._indexes.entering(new, keys)])
            except BaseException:
                if engine.rows == new:
                    self._indexes.leave(new, keys)
                raise
        self._tell()
        return new

    def _untold(self, engine: Any) -> None:
        """A row was written as nobody needed to be told, and by now there is an index: it is made again."""
        with engine.lock:
            self._indexes.forget()
            if self._feed is not None:
                self._feed.unseen()
        self._tell()

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append every row of an iterable of dicts, all or none; returns how many. Errors are those of
        ``insert`` with the row's position.
        """
        return self._extend(self._writable().stage(rows))

    def insert_columns(self, columns: Mapping[str, Any]) -> int:
        """Append whole columns (name to sequence, ``array.array``, memoryview or NumPy array of equal length),
        all or none; returns the rows.
        """
        return self._extend(self._writable().stage_columns(columns))

    def _extend(self, staged: Staged) -> int:
        engine = self._open_engine()
        with engine.writing():
            self._open_engine()
            keys = self._indexes.entering_batch(engine.rows, self._indexes.check_batch(staged))
            if self._file is not None and self._file.is_bulk(staged):
                self._file.extend(self._journal, staged, keys)
                if not self._transactions.is_open:
                    _on_full(self, self._file.wants_checkpoint())
            else:
                self._extend_logged(staged, keys)
        self._tell()
        return staged.rows

    def _extend_logged(self, staged: Staged, keys: list[Any]) -> None:
        engine = self._engine
        before = engine.rows
        try:
            with self._journal.rows(before, staged) as step:
                engine.extend(staged, [*keys, *step.then], step.first)
        except MemoryError:
            if self._indexes and engine.rows == before:
                self._indexes.stale(engine)  # some of the keys may have entered before memory ran out
            raise

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into row ``idx``. NotFoundError (a KeyError) where there is no such row; errors as for
        ``insert``.
        """
        try:
            if self._file is None and not self._by_journal:  # in memory
                engine = self._engine
                engine.update(idx, row)
                if self._by_journal:
                    self._untold(engine)
                return
            engine = self._writable()
            with engine.writing():
                self._open_engine()
                self._apply([engine.plan_update(idx, row)])
            self._tell()
        except TypeError:
            _check_id(idx, "to change rows by condition use batch_update()")
            raise

    def _apply(self, changes: list[Change]) -> None:
        moves = self._indexes.check_changes(self._engine, changes) if self._indexes else []
        with self._journal.changes(changes) as step:
            self._engine.apply(changes, [*self._indexes.moving(moves), *step.then], step.first)

    def delete(self, idx: int) -> None:
        """Delete row ``idx``; its id is not given out again. NotFoundError (a KeyError) where there is no such row."""
        try:
            if self._file is None and not self._by_journal:  # in memory
                engine = self._engine
                engine.delete(idx)
                if self._by_journal:
                    self._untold(engine)
                return
            engine = self._writable()
            with engine.writing():
                self._open_engine()
                engine.check_live([idx])
                self._remove([operator.index(idx)])
            self._tell()
        except TypeError:
            _check_id(idx, "to delete rows by condition use delete_where()")
            raise

    def _remove(self, ids: list[int]) -> None:
        engine = self._engine
        gone = self._indexes.forgetting(engine, ids) if self._indexes else []
        with self._journal.deletions(ids) as step:
            engine.remove(ids, [*gone, *step.then], step.first)

    def upsert(self, row: Mapping[str, Any]) -> int:
        """Update the row with the same primary key, or insert; returns the row id. SchemaError without a primary
        key.
        """
        engine = self._writable()
        with engine.writing():
            self._open_engine()
            key = self.schema.primary_key
            if key is None:
                raise SchemaError("upsert needs a primary key: declare one column with primary_key=True")
            given = dict(engine.codec.encode_partial(row))
            j = self.schema.index(key)
            idx = self._indexes.find(j, given[j]) if j in given else None
            if idx is None:
                return type(self).insert(self, row)  # one operation, where they are counted
            self._apply([Change(idx, sorted(given.items()))])
        self._tell()
        return idx

    def batch_update(self, predicate: Any, updates: Any) -> int:
        """Update the rows that a callable or conditions select; ``updates`` is a dict or a callable from row to dict.

        Returns how many rows were updated. All or none: every new value is checked before the first is written.
        """
        engine = self._writable()
        with engine.writing():
            self._open_engine()
            changes: list[Change] = self._read(predicate, lambda those: engine.plan_updates(those, updates))
            self._apply(changes)
        self._tell()
        return len(changes)

    def delete_where(self, conditions: Any, combine: str = "and") -> int:
        """Delete the rows that meet the conditions; returns how many. ValueError for no conditions at all."""
        engine = self._writable()
        with engine.writing():
            self._open_engine()
            ids: list[int] = self._read(conditions, lambda those: engine.select_for_delete(those, combine), combine)
            self._remove(ids)
        self._tell()
        return len(ids)

    def compact(self) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes given back (of the file and its log,
        where there is one).
        """
        engine = self._writable()
        with engine.writing(), Uninterrupted():
            self._open_engine()
            with self._snapshots.unused("compact()"):
                freed = self._compact(engine)
        self._tell()
        return freed

    def _compact(self, engine: Any) -> int:
        file = None if self._transactions.is_open else self._file
        before = 0 if file is None else file.bytes_on_disk()
        keys = self._indexes.rebuilding()
        generation = max(engine.generation, engine.last_generation) + 1
        renumbered = [partial(setattr, engine, name, generation) for name in ("generation", "last_generation")]
        with self._journal.compacted() as step:
            freed: int = engine.compact([*keys, *renumbered, *step.then], step.first)
        if file is not None:
            _quietly(self, file.give_back)  # the rows are renumbered by now: what fails here only costs room
            freed = max(0, before - file.bytes_on_disk())
        return freed

    # -- single-row reads --------------------------------------------------

    def get(self, idx: int) -> Optional[Row]:
        """The row with this id as a dict, None where there is none."""
        row: Optional[Row] = self._engine.get(idx)
        return row

    def get_raw(self, idx: int) -> Optional[memoryview]:
        """Row engine: the row's fixed-width bytes, read-only, valid and unchanged as long as they are held.
        Columnar: None.
        """
        if self.is_columnar():
            return None
        raw: Optional[memoryview] = self._engine.get_raw(idx)
        return raw

    def __getitem__(self, idx: int) -> Row:
        try:
            row = self._engine.get(idx)
        except TypeError:
            _check_id(idx, "to read rows by condition use select_where()")
            raise
        if row is None:
            raise NotFoundError(f"no row with id {idx!r}")
        found: Row = row
        return found

    def __contains__(self, idx: object) -> bool:
        try:
            found: bool = self._engine.contains(operator.index(idx))  # type: ignore[arg-type]
        except TypeError:
            return False
        return found

    def __len__(self) -> int:
        return len(self._engine)

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        items: Iterator[tuple[int, Row]] = self._engine.items()
        return items

    def iter_raw(self) -> Iterator[tuple[int, memoryview]]:
        """(id, bytes) as ``get_raw`` of the live rows in id order; NotSupportedError in the columnar engine,
        which has no row bytes.
        """
        if self.is_columnar():
            raise NotSupportedError("iter_raw() needs storage_type='row': the columnar engine stores no row bytes")
        items: Iterator[tuple[int, memoryview]] = self._engine.raw_items()
        return items

    # -- queries -----------------------------------------------------------

    def select_column(self, column_name: str) -> list[Any]:
        """One column's values of the live rows, in id order."""
        values: list[Any] = self._engine.select_column(column_name)
        return values

    def join(
        self, other: Any, left_column: str, right_column: str, how: str = "inner"
    ) -> list[tuple[Row, Optional[Row]]]:
        """Pairs of a row of this table and a row of ``other`` (a database, an open snapshot, a ``ColumnarTable``, or
        this one again) whose columns are equal, ordered by row id here, then there. ``how="left"``: a row without a
        partner is paired with None.

        Null and NaN equal nothing, -0.0 equals 0.0; numbers compare exactly, whatever their types, text and binary by
        their bytes. Both tables are read as of now. Dicts are new, one for each row: a row that is in several
        pairs is the same dict in each. ConditionError (a ValueError) for columns that do not compare with each other,
        UnknownColumnError, ValidationError for another ``how``.
        """
        return join(self._open_engine(), other, left_column, right_column, how)

    # -- export and figures ------------------------------------------------

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        """One column as a NumPy array; position is row id, a deleted row reads as null.

        The column's dtype where nothing is null, else ``object`` with None; text is ``object``. An owned, writable
        copy; with ``zero_copy=True`` a read-only view where the engine can. ImportError without NumPy.
        """
        return self._engine.to_numpy(column_name, zero_copy)

    def column_buffer(self, column_name: str) -> memoryview:
        """One numeric column as a contiguous read-only buffer; position is row id.

        Null and deleted rows hold 0 (floats: NaN).

        TypeError for text, and for a column whose encoding hint is in force.
        """
        view: memoryview = self._engine.column_buffer(column_name)
        return view


def _nothing() -> None:
    """There is nothing to let go."""


def _on_full(handle: Optional[SnapDB], due: bool = True) -> None:
    """The log is past its limit: fold it in. What goes wrong does not touch the write that came before."""
    if handle is None or not due:
        return
    engine, file = handle._engine, handle._file
    if file is None or isinstance(engine, Absent):
        return
    with engine.writing():
        if handle._transactions.is_open or handle._file is None or file.store.failed is not None:
            return
        _quietly(handle, file.checkpoint)


def _quietly(handle: SnapDB, work: Callable[[], None]) -> None:
    """Do what a write has made due. The write stays, whatever is wrong: a later one tries again, and checkpoint() and
    close() say it.
    """
    try:
        work()
    except (StorageError, CorruptionError, MemoryError) as error:
        import logging  # not at the top: it would be a third of the cost of importing SnapDB

        logging.getLogger("snapdb").warning("%s: the checkpoint failed, the log goes on: %s", handle.path, error)


def _alone(handle: Optional[SnapDB]) -> AbstractContextManager[Any]:
    """A block in which nobody else writes to the table of this handle."""
    engine = None if handle is None else handle._engine
    return nullcontext() if engine is None or isinstance(engine, Absent) else engine.writing()


def _looking_up(handle: weakref.ref[SnapDB]) -> Callable[[str, Any], Optional[Row]]:
    """``lookup`` of a handle, without a reference to it: one that is dropped must go."""

    def lookup(column_name: str, value: Any) -> Optional[Row]:
        db = handle()
        if db is None:
            raise ClosedError("the database was dropped: keep the handle for as long as its methods are called")
        return Indexed.lookup(db, column_name, value)

    return lookup


def _gate(handle: weakref.ref[SnapDB], engine: Any) -> Any:
    """In front of the kernel's ``insert``, as whoever keeps ``db.insert`` for a loop may make an index meanwhile.
    Without a reference to the handle: one that is dropped must go.
    """

    def insert(row: Mapping[str, Any]) -> int:
        db = handle()
        if db is None or db._engine is not engine:
            idx: int = engine.insert(row)  # of a table that is gone, which says so
            return idx
        return SnapDB.insert(db, row)

    def late() -> None:
        db = handle()
        if db is not None and db._engine is engine:
            db._untold(engine)

    return engine.kernels.index.Gate(engine.insert, insert, late)


def _closed_log(engine: Any, absent: Absent) -> Any:
    """A log that refuses every row."""
    return engine.kernels.wal.Log(*[absent.refuse] * 4)


def _on_broken(handle: Optional[SnapDB], error: BaseException) -> None:
    """Stable storage failed: nothing that the handle says from here on could be trusted."""
    if handle is not None:
        kind = type(error) if isinstance(error, SnapDBError) else DurabilityError
        absent, file = Absent(str(error), kind), handle._file
        handle._leave(absent)
        handle._unlisten()
        if kind is ClosedError and file is not None and not handle._transactions.is_open:  # this is a forked child
            _empty(file.table, absent)


def _no_log(table: Any) -> Any:
    """The log of an encrypted file as its table's kernel sees it: what a kernel writes is plain."""

    def refuse(_: object = None) -> NoReturn:
        raise InternalError("a row of an encrypted database was to be logged as it is")

    return table.kernels.wal.Log(refuse, refuse, refuse, refuse)


def _empty(table: Any, absent: Absent) -> None:
    """Let go of the rows, where nobody is at work on them."""
    if table.lock.acquire(blocking=False):  # in a forked child it may be that of a thread which is not there
        try:
            table.release(absent)
        finally:
            table.lock.release()


def _dropped(store: Any, table: Any) -> None:
    """The handle went without ``close()``: the lock goes at once, the log stays, the next opening recovers."""
    import warnings

    store.abandon()
    warnings.warn(f"the database {store.path!r} was not closed", ResourceWarning, stacklevel=2)


def _check_id(idx: Any, hint: str) -> None:
    """ValueTypeError for what is no row id."""
    try:
        operator.index(idx)
    except TypeError:
        raise ValueTypeError(f"a row id is an int, not {type(idx).__name__}", hint=hint) from None
