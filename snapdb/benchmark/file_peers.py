"""The contenders that keep a table in a file, and their exact calls; ``peers.py`` has those in memory.

Each writes the same rows through the fastest call that its users would write for the question. sqlite3 works with
a write-ahead log (``journal_mode=WAL``), the mode that its users choose for speed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable
from typing import Any, ClassVar

from ..core import SnapDB
from ..schema import ColumnDef, Schema
from .rows import SCHEMA

__all__ = ["FILE_BY_NAME", "FILE_CONTENDERS", "FileContender"]

Row = dict[str, Any]


class FileContender:
    """One table in a file: made by the constructor, or opened again by ``open``."""

    name: ClassVar[str]
    label: ClassVar[str]
    #: modules that must be importable
    requires: ClassVar[tuple[str, ...]] = ()
    #: bare inserts in one round, more where they are quick: SnapDB's checkpoint, once in 16 MiB of log, must be in it
    inserts: ClassVar[int]
    #: whether a killed writer's log is measured
    recovers: ClassVar[bool] = False

    def __init__(self, path: str, durability: str = "normal") -> None:
        """Make the table where no file is; ``durability`` is SnapDB's word, ``"full"`` or ``"normal"``."""
        raise NotImplementedError

    @classmethod
    def open(cls, path: str) -> FileContender:
        """Open the table of a file, far enough that the next question is answered."""
        raise NotImplementedError

    @classmethod
    def prepare(cls) -> None:
        """Import what is needed, so that no import is timed."""

    @classmethod
    def available(cls) -> bool:
        return all(importlib.util.find_spec(module) is not None for module in cls.requires)

    def insert_each(self, rows: Iterable[Row]) -> None:
        """Each row by a write of its own."""
        raise NotImplementedError

    def commit_each(self, rows: Iterable[Row]) -> None:
        """Each row in a transaction of its own."""
        raise NotImplementedError

    def load(self, rows: Iterable[Row]) -> None:
        """All rows at once, all or none."""
        raise NotImplementedError

    def bounds(self) -> tuple[float, float, int]:
        """MIN, MAX and COUNT of temp."""
        raise NotImplementedError

    def total(self) -> tuple[int, float]:
        """The rows and the SUM of temp, to check what was written."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it; what was written is on stable storage."""
        raise NotImplementedError


class _SnapFile(FileContender):
    storage_type: ClassVar[str]
    inserts = 500_000
    recovers = True

    def __init__(self, path: str, durability: str = "normal") -> None:
        schema = Schema([ColumnDef(name, dtype) for name, dtype in SCHEMA])
        self.db = SnapDB(path, schema, storage_type=self.storage_type, durability=durability)

    @classmethod
    def open(cls, path: str) -> FileContender:
        opened = cls.__new__(cls)
        opened.db = SnapDB(path)
        return opened

    def insert_each(self, rows: Iterable[Row]) -> None:
        insert = self.db.insert
        for row in rows:
            insert(row)

    def commit_each(self, rows: Iterable[Row]) -> None:
        transaction, insert = self.db.transaction, self.db.insert
        for row in rows:
            with transaction():
                insert(row)

    def load(self, rows: Iterable[Row]) -> None:
        self.db.batch_insert(rows)

    def bounds(self) -> tuple[float, float, int]:
        aggregate = self.db.aggregate
        return aggregate("temp", "min"), aggregate("temp", "max"), aggregate("temp", "count")

    def total(self) -> tuple[int, float]:
        return len(self.db), self.db.aggregate("temp", "sum")

    def close(self) -> None:
        self.db.close()


class SnapFileColumnar(_SnapFile):
    """SnapDB in a file, columnar engine."""

    name = "columnar"
    label = "SnapDB columnar"
    storage_type = "columnar"


class SnapFileRow(_SnapFile):
    """SnapDB in a file, row engine."""

    name = "row"
    label = "SnapDB row"
    storage_type = "row"


class SqliteFile(FileContender):
    """sqlite3 of the standard library, write-ahead log, autocommit, its own prepared statements."""

    name = "sqlite"
    label = "sqlite3"
    requires = ("_sqlite3",)  # some builds of Python lack it
    inserts = 100_000
    module: ClassVar[Any] = None
    _INSERT = "INSERT INTO t VALUES(:id, :ts, :sensor, :status, :temp)"

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("sqlite3")

    def __init__(self, path: str, durability: str = "normal") -> None:
        self._connect(path)
        execute = self.connection.execute
        execute("PRAGMA journal_mode=WAL")
        execute(f"PRAGMA synchronous={durability.upper()}")
        execute("PRAGMA fullfsync=1")  # macOS: flushes that reach the disk, as SnapDB's do; elsewhere no effect
        execute("CREATE TABLE t(id INTEGER PRIMARY KEY, ts INTEGER, sensor INTEGER, status TEXT, temp REAL)")

    def _connect(self, path: str) -> None:
        self.connection = self.module.connect(path, isolation_level=None)

    @classmethod
    def open(cls, path: str) -> FileContender:
        opened = cls.__new__(cls)
        opened._connect(path)
        # connecting alone opens nothing; this reads the schema
        opened.connection.execute("SELECT 1 FROM t LIMIT 0").fetchone()
        return opened

    def insert_each(self, rows: Iterable[Row]) -> None:
        execute, statement = self.connection.cursor().execute, self._INSERT
        for row in rows:
            execute(statement, row)

    def commit_each(self, rows: Iterable[Row]) -> None:
        self.insert_each(rows)  # autocommit: a transaction each, without two more statements around it

    def load(self, rows: Iterable[Row]) -> None:
        self.connection.execute("BEGIN")
        self.connection.executemany(self._INSERT, rows)
        self.connection.execute("COMMIT")

    def bounds(self) -> tuple[float, float, int]:
        low, high, count = self.connection.execute("SELECT MIN(temp), MAX(temp), COUNT(temp) FROM t").fetchone()
        return low, high, count

    def total(self) -> tuple[int, float]:
        count, total = self.connection.execute("SELECT COUNT(*), SUM(temp) FROM t").fetchone()
        return count, total

    def close(self) -> None:
        self.connection.close()


FILE_CONTENDERS: tuple[type[FileContender], ...] = (SnapFileColumnar, SnapFileRow, SqliteFile)
FILE_BY_NAME = {contender.name: contender for contender in FILE_CONTENDERS}


def size_on_disk(path: str) -> int:
    """Bytes of the file at a path and of whatever stands beside it under the same name."""
    folder, name = os.path.split(path)
    with os.scandir(folder or ".") as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.startswith(name))
