"""What a handle does with its table as a whole: copies, checks, figures, snapshots. The other half of ``SnapDB``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional, Union

from .errors import (
    HistoryLostError,
    InternalError,
    NotSupportedError,
    ValidationError,
    ValueTypeError,
    WrongKeyError,
    shorten,
)
from .interrupts import Uninterrupted
from .opening import MEMORY, file_name, for_copy, new_keys, same_key

if TYPE_CHECKING:
    from pathlib import Path

    from .cdc import CDCLog
    from .feed import Feed
    from .indexes import Indexes
    from .opening import CopyKeys
    from .snapshots import Snapshots
    from .storage.crypto import Keys
    from .tablefile import TableFile

__all__ = ["Maintenance"]


class Maintenance:
    """The part of ``SnapDB`` that looks at the table as a whole. ``core`` makes and changes what it builds on."""

    path: Union[str, Path]
    storage_type: str
    durability: str
    _engine: Any
    _file: Optional[TableFile]
    _read_only: bool
    _description: dict[str, Any]
    _indexes: Indexes
    _snapshots: Snapshots
    _shown: Optional[str]
    _copies: CopyKeys
    _feed: Optional[Feed]
    _cdc: Optional[CDCLog]

    def _tell(self) -> None:
        """Tell whoever listens what was committed."""
        raise NotImplementedError

    def _open_engine(self) -> Any:
        """The engine; ClosedError where the database is closed."""
        raise NotImplementedError

    def _writable(self) -> Any:
        """The engine, for a write."""
        raise NotImplementedError

    def _outside(self, name: str) -> None:
        """TransactionError where a transaction is open."""
        raise NotImplementedError

    def _repair(self) -> dict[str, Any]:
        """Repair the file, where there is something to repair; the caller has the table to itself."""
        raise NotImplementedError

    def _its_file(self) -> TableFile:
        """The file of a handle that has one; ClosedError where it was closed while this thread waited."""
        file = self._file
        if file is None:
            self._open_engine()
            raise InternalError(f"{str(self.path)!r} has lost its file")
        return file

    def flush(self) -> None:
        """Every acknowledged write is on stable storage; the data file need not change. In memory nothing to do.

        DurabilityError where the system cannot: the handle is then of no further use.
        """
        engine = self._open_engine()
        if self._file is not None and not self._read_only:
            with engine.writing():
                self._outside("flush")
                self._its_file().store.flush()

    def checkpoint(self) -> None:
        """The write-ahead log is folded into the data file; in memory there is nothing to do.

        StorageError where the disk is full: nothing is lost and the database goes on.
        """
        engine = self._open_engine()
        if self._file is not None:
            self._writable()
            with engine.writing():
                self._outside("checkpoint")
                self._its_file().checkpoint()

    def backup(self, destination: Union[str, os.PathLike[str]], encryption_key: Any = ...) -> Path:
        """Write a copy that opens on its own; returns its path. Consistent: no write comes between.

        FileExistsError where something is at ``destination`` already. A table in memory can be written to a file so.
        The copy opens with the key of this one, or without one where this one does; ``encryption_key`` gives it another
        key, and None in so many words none. What is encrypted with it, the data key, is the copy's own.
        """
        from pathlib import Path

        from .tablefile import copy_table

        engine = self._open_engine()
        target = file_name(destination)
        if target == MEMORY:
            raise ValidationError(f"a backup is a file, not {MEMORY!r}")
        given = None if encryption_key is None or encryption_key is ... else new_keys(encryption_key)
        with engine.writing():
            self._open_engine()
            self._outside("backup")
            file = self._file
            if file is not None and not self._read_only:
                file.checkpoint()
            is_whole = file is not None and not self._read_only
            entries = file.entries() if file is not None and is_whole else engine.entries()
            header = {**self._description, **engine.header(), "id_generation": engine.generation}
            copy_table(for_copy(target, self._its_keys() if encryption_key is ... else given), header, entries)
        return Path(target)

    def rekey(self, new_key: Union[str, bytes]) -> None:
        """Have another key open the database from here on, at the same cost for every size: only the header is written.
        A crash leaves it to one of the two keys.

        It does not take back what an older copy of the file tells somebody who has the older key: for that write a new
        database with ``backup()``. In memory it is the key of copies. WrongKeyError where it is not encrypted.
        """
        engine = self._writable()
        if new_key is None:
            raise ValueTypeError(
                "new_key must be a str or bytes, not None",
                hint="backup(destination, encryption_key=None) writes a copy that is not encrypted",
            )
        if self._shown is not None:
            raise NotSupportedError("a snapshot has the key of its database: call rekey() there")
        if self._its_keys() is None:
            raise WrongKeyError(
                f"{str(self.path)!r} is not encrypted, so it has no key to change",
                hint="backup(destination, encryption_key=...) writes an encrypted copy",
            )
        keys = new_keys(new_key)  # as slow as it is meant to be; nobody waits for it
        with engine.writing(), Uninterrupted():
            self._open_engine()
            self._outside("rekey")
            if self._file is not None:
                self._file.store.rekey(keys)
            self._copies.keys = keys

    def _its_keys(self) -> Optional[Keys]:
        """What a copy is encrypted with; None where this one is not."""
        return self._copies.keys

    def _check_key(self, key: Any) -> None:
        """WrongKeyError where this is not the key of the database."""
        keys = self._its_keys()
        if keys is None:
            raise WrongKeyError(f"{str(self.path)!r} is not encrypted", hint="open its snapshots without a key")
        if not same_key(keys, key):
            raise WrongKeyError(f"the encryption key does not open {str(self.path)!r}")

    def fsck(self, full: bool = True) -> dict[str, Any]:
        """Check the database: ``{"ok", "issues", "rows", "full"}``; each issue is a dict with ``kind``, ``where`` and
        ``message``.

        Headers, superblocks, the catalog, free space and the log always; with ``full`` also every checksum, every row
        every zone map and every index that is made.
        """
        engine = self._open_engine()
        with engine.writing():
            self._open_engine()
            issues = [] if self._file is None else self._file.check(full)
            if full:
                issues += [{"kind": "table", "where": str(self.path), "message": text} for text in engine.verify()]
                issues += self._unsound(issues)
                if not issues:  # the rows can be read
                    where = str(self.path)
                    issues = [{"kind": "index", "where": where, "message": text} for text in self._indexes.verify()]
            rows = len(engine)
        return {"ok": not issues, "issues": issues, "rows": rows, "full": bool(full)}

    def _unsound(self, issues: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is wrong with the rows of snapshots, where nothing is with their bytes."""
        file = self._file
        if file is None or self._shown is not None or any(issue["kind"] == "snapshot" for issue in issues):
            return []
        if not file.store.history.records:
            return []
        from .salvaged import unsound  # few need it

        return unsound(file.store)

    def repair(self) -> dict[str, Any]:
        """Where ``fsck(full=True)`` finds damage: have a new file in the place of this one, with all that verifies, and
        go on with that. Row ids stay what they are. Returns ``{"ok", "issues", "rows", "reclaimed", "lost", "source",
        "snapshots"}``: ``ok`` says that nothing is lost, ``issues`` what was wrong, ``lost`` which rows, commits and
        snapshots are gone (dicts with ``kind``, ``first``, ``last``, ``reason``), ``source`` what was left to start
        from, ``snapshots`` the names of those that are there.

        A crash leaves the old file or the new one; the old one is not kept. SnapshotInUseError where a snapshot is
        open, also in another process. CorruptionError where nothing can be kept, StorageError where there is no room:
        the file is as it was. For a file that does not open there is ``SnapDB.repair_file``.
        """
        engine = self._writable()
        with engine.writing(), Uninterrupted():
            self._open_engine()
            self._outside("repair")
            return self._repair()

    # -- snapshots -----------------------------------------------------------

    def snapshot(self, name: Optional[str] = None) -> str:
        """Keep the table as it is now under a name, and return that; without one it is ``snap_<n>_<time>``. However
        large the table is, this takes no time and no room: what is written afterwards takes both.

        A snapshot of the same name is replaced (SnapshotInUseError where it is open). ValidationError for a name that
        is empty, ``.`` or ``..``, or has ``/``, ``\\`` or NUL in it.
        """
        engine = self._writable()
        with engine.writing(), Uninterrupted():
            self._open_engine()
            self._outside("snapshot")
            return self._snapshots.snapshot(name)

    def list_snapshots(self) -> list[dict[str, Any]]:
        """The snapshots, newest first: ``name``, ``created_at`` (an aware datetime, UTC), ``rows`` (live ones) and
        ``storage_type`` of each.
        """
        engine = self._open_engine()
        with engine.lock:
            self._open_engine()
            return self._snapshots.listed()

    def restore(self, name: str) -> None:
        """Have the table be that snapshot: rows, ids and the ids given out next. The snapshot stays, and so do those
        that are newer. Row views and iterators that are held show what they did.

        NotFoundError (a KeyError) where there is no such snapshot.
        """
        engine = self._writable()
        with engine.writing(), Uninterrupted():
            self._open_engine()
            self._outside("restore")
            restored = None if self._feed is None else self._feed.restoring()
            self._snapshots.restore(name)
            if restored is not None:
                restored()
        self._tell()

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot; what only it had is free. NotFoundError (a KeyError) where there is no such snapshot,
        SnapshotInUseError where it is open.
        """
        engine = self._writable()
        with engine.writing(), Uninterrupted():
            self._open_engine()
            self._outside("drop_snapshot")
            self._snapshots.drop(name)

    def diff_snapshots(self, a: str, b: str) -> dict[str, list[int]]:
        """How snapshot ``b`` differs from ``a``: ids, ascending, of the rows ``added`` and ``changed`` (in any stored
        value) and of those ``removed``. What it costs follows the difference.

        Where ``compact()`` came between, rows are told by the primary key: ``removed`` has ids of ``a``, the others
        ids of ``b``; SchemaError where there is none. NotFoundError (a KeyError) for a name that no snapshot has.
        """
        engine = self._open_engine()
        with engine.lock:
            self._open_engine()
            find = self._snapshots.differ(a, b)
        return dict(find()._asdict())

    # -- changes ---------------------------------------------------------------

    def changes(self, since: Optional[int] = None) -> list[dict[str, Any]]:
        """Committed changes that are on record, oldest first, as events of a ``CDCLog``; ``since``: those with a
        greater LSN only, which is how a reader goes on from the last event that it has seen.

        On record are: with ``cdc=`` and a file all that this has without a gap; else, for a database file, what is in
        its write-ahead log, which are the commits since the checkpoint before the last one, none after a clean close;
        in memory the last 10,000 changes since ``changes`` was first called or ``cdc=`` given.

        HistoryLostError where ``since`` lies before that. ValidationError where it is an LSN to come. TransactionError
        inside a transaction.
        """
        if since is not None and (not isinstance(since, int) or isinstance(since, bool)):
            raise ValueTypeError(f"since is an LSN, not {type(since).__name__} {shorten(since)}")
        engine = self._open_engine()
        with engine.writing():
            self._open_engine()
            self._outside("changes")
            lsn, oldest, events = self._recorded()
        if since is None:
            return events
        if since > lsn:
            raise ValidationError(f"since={since} is an LSN to come: the last commit has {lsn}")
        if since < oldest:
            raise HistoryLostError(
                f"changes since LSN {since} are not on record any more, only those since {oldest}",
                oldest=oldest + 1, hint="read the table anew and go on from stats()['lsn']",
            )  # fmt: skip
        return [event for event in events if event["lsn"] > since]

    def _recorded(self) -> tuple[int, int, list[dict[str, Any]]]:
        """The LSN of the last commit, that from which on all are on record, and the events of those."""
        from .cdc import missing_from  # few need it
        from .commits import events_of

        cdc, file = self._cdc, self._file
        if file is not None and (cdc is None or not cdc.has_file):
            from .history import commits_on_record

            past = commits_on_record(file.store)
            lsn = max([past.since, *(commit.lsn for commit in past.commits)])
            if not self._read_only:
                lsn = file.store.log.lsn
            return lsn, past.since, [event for commit in past.commits for event in events_of(commit)]
        if cdc is None:
            cdc = self._record()
        feed = self._feed
        if feed is None:
            raise InternalError("nobody is told of commits")
        feed.collect()
        missing, events = missing_from([event for event in cdc.replay() if event["lsn"] is not None])
        return feed.lsn, missing or 0, events

    def _record(self) -> CDCLog:
        """A log of what happens from here on, in memory."""
        raise NotImplementedError

    # -- figures ---------------------------------------------------------------

    def memory_usage(self) -> int:
        """Bytes this table holds in memory, with the keys of its unique columns and what only its snapshots have."""
        size: int = self._engine.memory_usage()
        return size + self._indexes.memory_usage() + self._snapshots.memory_usage()

    def stats(self) -> dict[str, Any]:
        """Rows, deleted rows, bytes, and per column the encoding of most rows (``encoding``), the number of segments
        with each (``encodings``), ``bytes`` and ``bits_per_value``. File figures are 0 in memory.
        """
        engine = self._open_engine()
        with engine.lock:  # what is free may have to be found out first, and nobody may take of it meanwhile
            self._open_engine()
            return self._figures(engine)

    def _figures(self, engine: Any) -> dict[str, Any]:
        live, held = len(engine), self.memory_usage()
        figures = {"file_bytes": 0, "wal_bytes": 0, "live_bytes": held, "free_bytes": 0, "last_checkpoint": None}
        figures["lsn"] = 0 if self._feed is None else self._feed.lsn
        if self._file is not None:
            figures = self._file.store.statistics()
        return {
            "rows": live,
            "deleted_rows": engine.rows - live,
            "storage_type": self.storage_type,
            "durability": self.durability,
            "memory_bytes": held,
            "snapshot_bytes": self._snapshots.size(),
            **figures,
            "columns": engine.column_stats(),
            "indexes": self._indexes.names("hash"),
        }
