"""Every contender's exact calls: what is timed, by the bench command and by ``asv_benchmarks``, is what stands here.

A contender is loaded by its constructor (the bulk insert) and answers the same questions as all others. Each uses the
fastest call that its users would write for the question; answers are compared before anything is timed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from heapq import nlargest
from operator import itemgetter
from typing import Any, ClassVar, Optional

from ..core import SnapDB
from ..query import query
from ..schema import ColumnDef, Schema
from .rows import ARRAYS, NAMES, PLACES, SCHEMA, SENSOR, THREE, VISITS, packed

Row = dict[str, Any]
Ranges = Iterable[tuple[Any, Any]]

#: questions of indexes, which are put to those that users give indexes to
LOOKUP = "lookup"
RANGES = frozenset(("range_unsorted", "range_sorted", "range_zones"))
MAKING = {"create_index": "hash", "create_range_index": "range"}
OF_INDEXES = RANGES.union(MAKING, (LOOKUP,))
#: loops over rows that change one at a time
SINGLY = frozenset(("single_insert", "single_update", "single_delete"))
#: the index that a question is answered by: its column and kind; every other question finds no index
SNAP_INDEXES = {LOOKUP: ("id", "hash"), "range_unsorted": ("temp", "range"), "range_sorted": ("ts", "range")}
#: the same of sqlite3, which has its primary key for the lookup and needs an index where SnapDB has zone maps
SQL_INDEXES = {"range_unsorted": "temp", "range_sorted": "ts", "range_zones": "ts"}


def single_thread() -> None:
    """Hold every library to one thread. Call it before any of them is imported; some read this only then."""
    for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


class Contender:
    """One store, loaded with the rows. Methods return their answer so that it can be checked."""

    name: ClassVar[str]
    label: ClassVar[str]
    #: modules that must be importable
    requires: ClassVar[tuple[str, ...]] = ()
    #: point reads in one round, fewer where one takes long (figures are per read)
    most_reads: ClassVar[Optional[int]] = None
    #: workloads that it has no call for, or none that its users would write
    lacks: ClassVar[frozenset[str]] = frozenset()
    #: whether Python's allocator (tracemalloc) sees all of its memory
    traced: ClassVar[bool] = False

    def __init__(self, rows: Iterable[Row]) -> None:
        raise NotImplementedError

    @classmethod
    def prepare(cls) -> None:
        """Import what is needed, so that no import is timed."""

    @classmethod
    def available(cls) -> bool:
        return all(importlib.util.find_spec(module) is not None for module in cls.requires)

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Contender:
        """A store of NumPy arrays, one a column, of the types of the schema."""
        raise NotImplementedError

    @classmethod
    def row_by_row(cls, rows: Iterable[Row]) -> Contender:
        """A store that each row went into by a call of its own."""
        raise NotImplementedError

    def before(self, workload: str) -> None:
        """Set up for a workload; not timed."""

    def hold(self, values: list[int]) -> None:
        """Keep the integers of ``packed_sum`` and ``create_index``; not timed."""
        raise NotImplementedError

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        """Keep the two tables of ``join``; not timed."""
        raise NotImplementedError

    def point_read(self, ids: Iterable[int]) -> Any:
        """Read the rows with these keys; the last one."""
        raise NotImplementedError

    def as_dict(self, row: Any) -> Row:
        """A row of ``point_read`` as a dict, to check it."""
        return dict(zip(NAMES, row))

    def lookup(self, ids: Iterable[int]) -> Any:
        """Find the rows with these ids by an index; the last one."""
        raise NotImplementedError

    def range_temp(self, ranges: Ranges) -> Any:
        """The rows with a temp in each of these ranges, ordered by it; those of the last one."""
        raise NotImplementedError

    def range_ts(self, ranges: Ranges) -> Any:
        """The same of ts, which rises from row to row."""
        raise NotImplementedError

    def create_index(self) -> None:
        """An index for equality of the integers that ``hold`` gave."""
        raise NotImplementedError

    def create_range_index(self) -> None:
        """An ordered index of them."""
        raise NotImplementedError

    def held(self, value: int, kind: str) -> int:
        """How often that index has a value."""
        raise NotImplementedError

    def index_bytes(self, kind: str) -> Optional[int]:
        """Bytes that an index ("hash" or "range") of the integers takes; None where nothing tells."""
        return None

    def update_each(self, changes: Iterable[tuple[int, float]]) -> None:
        """Give the rows with these ids a new temp, by a call each."""
        raise NotImplementedError

    def delete_each(self, changes: Iterable[tuple[int, float]]) -> None:
        """Delete the rows with these ids, by a call each."""
        raise NotImplementedError

    def query_top(self) -> Any:
        """The ten rows with the highest temp where sensor > 8, the highest first."""
        raise NotImplementedError

    def join(self) -> Any:
        """Each of the visits with its place, as rows."""
        raise NotImplementedError

    def scan_sum(self) -> Any:
        """SUM(temp) over all rows."""
        raise NotImplementedError

    def zone_sum(self) -> Any:
        """The same question where a stored answer may be used."""
        return self.scan_sum()

    def filtered_sum(self) -> Any:
        """SUM(temp) where sensor > 8."""
        raise NotImplementedError

    def int_sum(self) -> Any:
        """SUM(ts) over all rows."""
        raise NotImplementedError

    def packed_sum(self) -> Any:
        """SUM of the integers that ``hold`` gave."""
        raise NotImplementedError

    def bounds(self) -> Any:
        """MIN, MAX, COUNT and SUM of temp, stored answers allowed; by name."""
        raise NotImplementedError

    def select_records(self) -> Any:
        """The ids of the rows that ``count_three`` counts, as rows of one field."""
        raise NotImplementedError

    def select_columns(self) -> Any:
        """The same ids as a column."""
        raise NotImplementedError

    def group_sum(self) -> Any:
        """SUM(temp) for each status."""
        raise NotImplementedError

    def comparable(self, workload: str, answer: Any) -> Any:
        """An answer in the form that is compared; not timed."""
        if workload in ("point_read", LOOKUP):
            return self.as_dict(answer)
        if workload in RANGES or workload == "query_top":
            return [self.as_dict(row) for row in answer]
        if workload == "join":
            return sorted((one["visit"], one["name"]) if isinstance(one, dict) else (one[0], one[-1]) for one in answer)
        if workload in MAKING:
            return self.held(packed(1)[0], MAKING[workload])  # the first of all that hold() gave
        if workload == "select_records":
            return [one["id"] if isinstance(one, dict) else one[0] for one in answer]
        if workload == "select_columns":
            return [int(one) for one in answer["id"]]
        return dict(answer) if workload == "group_sum" else answer

    def count_three(self) -> int:
        """Rows with sensor > 8, status "active" and temp < 35."""
        raise NotImplementedError

    def iterate(self) -> int:
        """Walk over all rows; how many there were."""
        raise NotImplementedError

    def reported_bytes(self) -> Optional[int]:
        """What the store itself says it holds, None where it cannot."""
        return None

    def close(self) -> None:
        """Give everything back."""


def walk(rows: Iterable[Any]) -> int:
    """Visit each row; how many there were."""
    count = 0
    for _row in rows:
        count += 1
    return count


#: the ten best rows, for those that speak SQL
TOP = "SELECT * FROM t WHERE sensor > 8 ORDER BY temp DESC LIMIT 10"
#: workloads that must read every row
UNAIDED = ("scan_sum", "int_sum", "packed_sum")


class _Snap(Contender):
    storage_type: ClassVar[str]
    traced = True

    def __init__(self, rows: Iterable[Row]) -> None:
        schema = Schema([ColumnDef(name, dtype) for name, dtype in SCHEMA])
        self.db = SnapDB(":memory:", schema, storage_type=self.storage_type)
        self.side: Optional[SnapDB] = None
        self.side_index: Optional[str] = None
        self.index: Optional[tuple[str, str]] = None
        self.tables: list[SnapDB] = []
        self.db.batch_insert(rows)

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Contender:
        made = cls([])
        made.db.insert_columns(columns)
        return made

    @classmethod
    def row_by_row(cls, rows: Iterable[Row]) -> Contender:
        made = cls([])
        insert = made.db.insert
        for row in rows:
            insert(row)
        return made

    def before(self, workload: str) -> None:
        # the private switch: a SUM without a filter would otherwise be read off the zone maps
        for db in (self.db, self.side):
            if db is not None:
                engine: Any = db._engine
                engine.zone_answers = workload not in UNAIDED
        wanted = SNAP_INDEXES.get(workload)
        if wanted != self.index:
            if self.index is not None:
                self._drop(self.db, *self.index)
            if wanted is not None:
                self._create(self.db, *wanted)
            self.index = wanted
        self._drop_side()

    @staticmethod
    def _create(db: SnapDB, column: str, kind: str) -> None:
        (db.create_index if kind == "hash" else db.create_range_index)(column)

    @staticmethod
    def _drop(db: SnapDB, column: str, kind: str) -> None:
        (db.drop_index if kind == "hash" else db.drop_range_index)(column)

    def _drop_side(self) -> None:
        if self.side is not None and self.side_index is not None:
            self._drop(self.side, "v", self.side_index)
            self.side_index = None

    def _memory_table(self, columns: Iterable[tuple[str, str]], rows: Iterable[Row]) -> SnapDB:
        made = SnapDB(":memory:", Schema([ColumnDef(*one) for one in columns]), storage_type=self.storage_type)
        made.batch_insert(rows)
        return made

    def hold(self, values: list[int]) -> None:
        self.side = self._memory_table([("v", "i64")], [])
        self.side.insert_columns({"v": values})

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        self.tables = [self._memory_table(VISITS, visits), self._memory_table(PLACES, places)]

    def lookup(self, ids: Iterable[int]) -> Any:
        lookup = self.db.lookup
        row = None
        for i in ids:
            row = lookup("id", i)
        return row

    def range_temp(self, ranges: Ranges) -> Any:
        return self._ranges("temp", ranges)

    def range_ts(self, ranges: Ranges) -> Any:
        return self._ranges("ts", ranges)

    def _ranges(self, column: str, ranges: Ranges) -> Any:
        range_find = self.db.range_find
        rows = None
        for low, high in ranges:
            rows = range_find(column, low, high)
        return rows

    def create_index(self) -> None:
        if self.side is not None:
            self.side.create_index("v")
            self.side_index = "hash"

    def create_range_index(self) -> None:
        if self.side is not None:
            self.side.create_range_index("v")
            self.side_index = "range"

    def held(self, value: int, kind: str) -> int:
        if self.side is None or self.side_index != kind:
            return -1
        return len(self.side.find(v=value) if kind == "hash" else self.side.range_find("v", value, value))

    def index_bytes(self, kind: str) -> Optional[int]:
        side = self.side
        if side is None:
            return None
        self._drop_side()
        before = side.memory_usage()
        self._create(side, "v", kind)
        taken = side.memory_usage() - before
        self._drop(side, "v", kind)
        return int(taken)

    def update_each(self, changes: Iterable[tuple[int, float]]) -> None:
        update = self.db.update
        for i, temp in changes:
            update(i, {"temp": temp})

    def delete_each(self, changes: Iterable[tuple[int, float]]) -> None:
        delete = self.db.delete
        for i, _ in changes:
            delete(i)

    def query_top(self) -> Any:
        return query(self.db).filter(list(SENSOR)).order("temp", desc=True).slice(10).execute()

    def join(self) -> Any:
        visits, places = self.tables
        return visits.join(places, "place", "place")

    def comparable(self, workload: str, answer: Any) -> Any:
        if workload == "query_top":
            answer = [row for _, row in answer]
        elif workload == "join":
            answer = ({**visit, **place} for visit, place in answer)
        return super().comparable(workload, answer)

    def point_read(self, ids: Iterable[int]) -> Any:
        get = self.db.get
        row = None
        for i in ids:
            row = get(i)
        return row

    def as_dict(self, row: Any) -> Row:
        return dict(row)

    def scan_sum(self) -> Any:
        return self.db.aggregate("temp", "sum")

    def filtered_sum(self) -> Any:
        return self.db.aggregate("temp", "sum", where=list(SENSOR))

    def int_sum(self) -> Any:
        return self.db.aggregate("ts", "sum")

    def packed_sum(self) -> Any:
        return self.side.aggregate("v", "sum") if self.side is not None else None

    def bounds(self) -> Any:
        aggregate = self.db.aggregate
        return {kind: aggregate("temp", kind) for kind in ("min", "max", "count", "sum")}

    def count_three(self) -> int:
        return int(self.db.count_where(list(THREE)))

    def select_records(self) -> Any:
        return self.db.select_where(list(THREE), ["id"])

    def select_columns(self) -> Any:
        return self.db.select_where(list(THREE), ["id"], orient="columns")

    def group_sum(self) -> Any:
        return self.db.group_by("status", "temp", "sum")

    def iterate(self) -> int:
        return walk(self.db)

    def reported_bytes(self) -> Optional[int]:
        return int(self.db.memory_usage())

    def close(self) -> None:
        for db in (self.db, self.side, *self.tables):
            if db is not None:
                db.close()


class SnapColumnar(_Snap):
    """SnapDB, columnar engine."""

    name = "columnar"
    label = "SnapDB columnar"
    storage_type = "columnar"


class SnapRow(_Snap):
    """SnapDB, row engine."""

    name = "row"
    label = "SnapDB row"
    storage_type = "row"


class Sqlite(Contender):
    """sqlite3 of the standard library, in memory."""

    name = "sqlite"
    label = "sqlite3"
    requires = ("_sqlite3",)  # some builds of Python lack it
    lacks = frozenset(("insert_columns", "select_columns"))
    module: ClassVar[Any] = None

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("sqlite3")

    @classmethod
    def row_by_row(cls, rows: Iterable[Row]) -> Contender:
        made = cls([])
        execute = made.connection.execute
        execute("BEGIN")
        for row in rows:
            execute("INSERT INTO t VALUES(:id, :ts, :sensor, :status, :temp)", row)
        made.connection.commit()
        return made

    def before(self, workload: str) -> None:
        # an index that a question is not about would change how sqlite3 answers it
        wanted = SQL_INDEXES.get(workload)
        for column in ("temp", "ts"):
            if column == wanted:
                self.connection.execute(f"CREATE INDEX IF NOT EXISTS t_{column} ON t({column})")
            else:
                self.connection.execute(f"DROP INDEX IF EXISTS t_{column}")
        self.connection.execute("DROP INDEX IF EXISTS side_v")

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        connection = self.connection
        connection.execute("CREATE TABLE visits(visit INTEGER PRIMARY KEY, place INTEGER, spent REAL)")
        connection.execute("CREATE TABLE places(place INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO visits VALUES(:visit, :place, :spent)", visits)
        connection.executemany("INSERT INTO places VALUES(:place, :name)", places)
        connection.commit()

    def lookup(self, ids: Iterable[int]) -> Any:
        return self.point_read(ids)

    def range_temp(self, ranges: Ranges) -> Any:
        return self._ranges("SELECT * FROM t WHERE temp BETWEEN ? AND ? ORDER BY temp, id", ranges)

    def range_ts(self, ranges: Ranges) -> Any:
        return self._ranges("SELECT * FROM t WHERE ts BETWEEN ? AND ? ORDER BY ts, id", ranges)

    def _ranges(self, sql: str, ranges: Ranges) -> Any:
        # whole rows in the order of the values, as range_find gives them; the index has that order, nothing is sorted
        execute = self.connection.execute
        rows = None
        for ends in ranges:
            rows = execute(sql, ends).fetchall()
        return rows

    def create_index(self) -> None:
        self.connection.execute("CREATE INDEX side_v ON side(v)")

    def create_range_index(self) -> None:
        self.create_index()  # it has one kind

    def held(self, value: int, kind: str) -> int:
        return int(self._one(f"SELECT COUNT(*) FROM side INDEXED BY side_v WHERE v = {value}"))

    def index_bytes(self, kind: str) -> Optional[int]:
        self.connection.execute("DROP INDEX IF EXISTS side_v")
        before = self._bytes()
        self.create_index()
        taken = self._bytes() - before
        self.connection.execute("DROP INDEX side_v")
        return taken

    def _bytes(self) -> int:
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return int(pages * self._one("PRAGMA page_size"))

    def update_each(self, changes: Iterable[tuple[int, float]]) -> None:
        execute = self.connection.execute
        execute("BEGIN")
        for i, temp in changes:
            execute("UPDATE t SET temp=? WHERE id=?", (temp, i))
        self.connection.commit()

    def delete_each(self, changes: Iterable[tuple[int, float]]) -> None:
        execute = self.connection.execute
        execute("BEGIN")
        for i, _ in changes:
            execute("DELETE FROM t WHERE id=?", (i,))
        self.connection.commit()

    def query_top(self) -> Any:
        return self.connection.execute(TOP).fetchall()

    def join(self) -> Any:
        return self.connection.execute("SELECT * FROM visits JOIN places USING(place)").fetchall()

    def hold(self, values: list[int]) -> None:
        self.connection.execute("CREATE TABLE side(v INTEGER)")
        self.connection.executemany("INSERT INTO side VALUES(?)", zip(values))
        self.connection.commit()

    def __init__(self, rows: Iterable[Row]) -> None:
        self.connection = self.module.connect(":memory:")
        self.connection.execute(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, ts INTEGER, sensor INTEGER, status TEXT, temp REAL)"
        )
        self.connection.executemany("INSERT INTO t VALUES(:id, :ts, :sensor, :status, :temp)", rows)
        self.connection.commit()

    def point_read(self, ids: Iterable[int]) -> Any:
        execute = self.connection.execute
        row = None
        for i in ids:
            row = execute("SELECT * FROM t WHERE id=?", (i,)).fetchone()
        return row

    def _one(self, query: str) -> Any:
        return self.connection.execute(query).fetchone()[0]

    def scan_sum(self) -> Any:
        return self._one("SELECT SUM(temp) FROM t")

    def filtered_sum(self) -> Any:
        return self._one("SELECT SUM(temp) FROM t WHERE sensor > 8")

    def count_three(self) -> int:
        return int(self._one("SELECT COUNT(*) FROM t WHERE sensor > 8 AND status = 'active' AND temp < 35.0"))

    def int_sum(self) -> Any:
        return self._one("SELECT SUM(ts) FROM t")

    def packed_sum(self) -> Any:
        return self._one("SELECT SUM(v) FROM side")

    def bounds(self) -> Any:
        found = self.connection.execute("SELECT MIN(temp), MAX(temp), COUNT(temp), SUM(temp) FROM t").fetchone()
        return dict(zip(("min", "max", "count", "sum"), found))

    def select_records(self) -> Any:
        query = "SELECT id FROM t WHERE sensor > 8 AND status = 'active' AND temp < 35.0"
        return self.connection.execute(query).fetchall()

    def group_sum(self) -> Any:
        return self.connection.execute("SELECT status, SUM(temp) FROM t GROUP BY status").fetchall()

    def iterate(self) -> int:
        return walk(self.connection.execute("SELECT * FROM t"))

    def close(self) -> None:
        self.connection.close()


class Dicts(Contender):
    """A dict of dicts by key."""

    name = "dict"
    label = "dict"
    lacks = frozenset(("insert_columns", "select_columns", "join")) | (OF_INDEXES - {LOOKUP})
    traced = True

    def __init__(self, rows: Iterable[Row]) -> None:
        self.table = {row["id"]: row.copy() for row in rows}
        self.side: list[int] = []

    @classmethod
    def row_by_row(cls, rows: Iterable[Row]) -> Contender:
        made = cls([])
        table = made.table
        for row in rows:
            table[row["id"]] = row.copy()
        return made

    def hold(self, values: list[int]) -> None:
        self.side = values

    def int_sum(self) -> Any:
        return sum(row["ts"] for row in self.table.values())

    def packed_sum(self) -> Any:
        return sum(self.side)

    def bounds(self) -> Any:
        values = [row["temp"] for row in self.table.values()]
        return {"min": min(values), "max": max(values), "count": len(values), "sum": sum(values)}

    def select_records(self) -> Any:
        return [
            {"id": row["id"]}
            for row in self.table.values()
            if row["sensor"] > 8 and row["status"] == "active" and row["temp"] < 35.0
        ]

    def group_sum(self) -> Any:
        found: dict[str, float] = {}
        for row in self.table.values():
            found[row["status"]] = found.get(row["status"], 0.0) + row["temp"]
        return found

    def lookup(self, ids: Iterable[int]) -> Any:
        return self.point_read(ids)

    def update_each(self, changes: Iterable[tuple[int, float]]) -> None:
        table = self.table
        for i, temp in changes:
            table[i]["temp"] = temp

    def delete_each(self, changes: Iterable[tuple[int, float]]) -> None:
        table = self.table
        for i, _ in changes:
            del table[i]

    def query_top(self) -> Any:
        return nlargest(10, (row for row in self.table.values() if row["sensor"] > 8), key=itemgetter("temp"))

    def point_read(self, ids: Iterable[int]) -> Any:
        table = self.table
        row = None
        for i in ids:
            row = table[i].copy()
        return row

    def as_dict(self, row: Any) -> Row:
        return dict(row)

    def scan_sum(self) -> Any:
        return sum(row["temp"] for row in self.table.values())

    def filtered_sum(self) -> Any:
        return sum(row["temp"] for row in self.table.values() if row["sensor"] > 8)

    def count_three(self) -> int:
        return sum(
            1 for row in self.table.values() if row["sensor"] > 8 and row["status"] == "active" and row["temp"] < 35.0
        )

    def iterate(self) -> int:
        return walk(self.table.items())

    def close(self) -> None:
        self.table = {}


class Pandas(Contender):
    """A pandas DataFrame."""

    name = "pandas"
    label = "pandas"
    requires = ("pandas",)
    lacks = SINGLY | OF_INDEXES
    most_reads = 2_000
    module: ClassVar[Any] = None

    @classmethod
    def prepare(cls) -> None:
        _arrow_single_thread()
        cls.module = importlib.import_module("pandas")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.frame = self.module.DataFrame(rows)
        self.side: Any = None
        self.visits: Any = None
        self.places: Any = None

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Contender:
        made = cls([])
        made.frame = cls.module.DataFrame(columns, copy=True)
        return made

    def hold(self, values: list[int]) -> None:
        self.side = self.module.Series(values, dtype="int64")

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        self.visits, self.places = self.module.DataFrame(visits), self.module.DataFrame(places)

    def query_top(self) -> Any:
        frame = self.frame
        return frame[frame["sensor"] > 8].nlargest(10, "temp").to_dict("records")

    def join(self) -> Any:
        return self.visits.merge(self.places, on="place").to_dict("records")

    def _chosen(self) -> Any:
        frame = self.frame
        return (frame["sensor"] > 8) & (frame["status"] == "active") & (frame["temp"] < 35.0)

    def int_sum(self) -> Any:
        return self.frame["ts"].sum()

    def packed_sum(self) -> Any:
        return self.side.sum()

    def bounds(self) -> Any:
        column = self.frame["temp"]
        return {"min": column.min(), "max": column.max(), "count": column.count(), "sum": column.sum()}

    def select_records(self) -> Any:
        return self.frame.loc[self._chosen(), ["id"]].to_dict("records")

    def select_columns(self) -> Any:
        return {"id": self.frame.loc[self._chosen(), "id"].to_numpy()}

    def group_sum(self) -> Any:
        return self.frame.groupby("status")["temp"].sum().to_dict()

    def point_read(self, ids: Iterable[int]) -> Any:
        read = self.frame.iloc
        row = None
        for i in ids:
            row = read[i].to_dict()
        return row

    def as_dict(self, row: Any) -> Row:
        return dict(row)

    def scan_sum(self) -> Any:
        return self.frame["temp"].sum()

    def filtered_sum(self) -> Any:
        frame = self.frame
        return frame["temp"][frame["sensor"] > 8].sum()

    def count_three(self) -> int:
        return int(self._chosen().sum())

    def iterate(self) -> int:
        return walk(self.frame.itertuples())

    def reported_bytes(self) -> Optional[int]:
        return int(self.frame.memory_usage(deep=True).sum())

    def close(self) -> None:
        self.frame = None


class NumPy(Contender):
    """One NumPy array per column, of the same types as the schema."""

    name = "numpy"
    label = "NumPy"
    requires = ("numpy",)
    most_reads = 20_000
    module: ClassVar[Any] = None
    lacks = frozenset(("select_records", "query_top", "join")) | SINGLY | OF_INDEXES
    traced = True

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("numpy")

    def __init__(self, rows: Iterable[Row]) -> None:
        listed = rows if isinstance(rows, list) else list(rows)
        array = self.module.array
        self.columns = {name: array([row[name] for row in listed], dtype=dtype) for name, dtype in ARRAYS.items()}
        self.side: Any = None

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Contender:
        made = cls([])
        made.columns = {name: column.copy() for name, column in columns.items()}
        return made

    def hold(self, values: list[int]) -> None:
        self.side = self.module.array(values, dtype="i8")

    def _chosen(self) -> Any:
        columns = self.columns
        return (columns["sensor"] > 8) & (columns["status"] == b"active") & (columns["temp"] < 35.0)

    def int_sum(self) -> Any:
        return self.columns["ts"].sum()

    def packed_sum(self) -> Any:
        return self.side.sum()

    def bounds(self) -> Any:
        column = self.columns["temp"]
        return {"min": column.min(), "max": column.max(), "count": column.size, "sum": column.sum()}

    def select_columns(self) -> Any:
        return {"id": self.columns["id"][self._chosen()]}

    def group_sum(self) -> Any:
        names, codes = self.module.unique(self.columns["status"], return_inverse=True)
        return zip(names.astype("U").tolist(), self.module.bincount(codes, weights=self.columns["temp"]))

    def point_read(self, ids: Iterable[int]) -> Any:
        columns = tuple(self.columns.items())
        row = None
        for i in ids:
            row = {name: column.item(i) for name, column in columns}
        return row

    def as_dict(self, row: Any) -> Row:
        return {**row, "status": row["status"].decode()}

    def scan_sum(self) -> Any:
        return self.columns["temp"].sum()

    def filtered_sum(self) -> Any:
        return self.columns["temp"][self.columns["sensor"] > 8].sum()

    def count_three(self) -> int:
        return int(self.module.count_nonzero(self._chosen()))

    def iterate(self) -> int:
        return walk(zip(*(column.tolist() for column in self.columns.values())))

    def reported_bytes(self) -> Optional[int]:
        return int(sum(column.nbytes for column in self.columns.values()))

    def close(self) -> None:
        self.columns = {}
        self.side = None


class Polars(Contender):
    """A polars DataFrame, one thread."""

    name = "polars"
    label = "polars"
    requires = ("polars",)
    lacks = SINGLY | OF_INDEXES
    module: ClassVar[Any] = None

    @classmethod
    def prepare(cls) -> None:
        cls.module = importlib.import_module("polars")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.frame = self.module.DataFrame(rows)
        self.side: Any = None
        self.visits: Any = None
        self.places: Any = None

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Contender:
        made = cls([])
        made.frame = cls.module.DataFrame(columns)
        return made

    def hold(self, values: list[int]) -> None:
        self.side = self.module.Series(values, dtype=self.module.Int64)

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        self.visits, self.places = self.module.DataFrame(visits), self.module.DataFrame(places)

    def query_top(self) -> Any:
        # lazily: only then does it look for the best rows instead of sorting all
        chosen = self.frame.lazy().filter(self.module.col("sensor") > 8)
        return chosen.sort("temp", descending=True).head(10).collect().to_dicts()

    def join(self) -> Any:
        return self.visits.join(self.places, on="place").to_dicts()

    def _chosen(self) -> Any:
        col = self.module.col
        return (col("sensor") > 8) & (col("status") == "active") & (col("temp") < 35.0)

    def int_sum(self) -> Any:
        return self.frame["ts"].sum()

    def packed_sum(self) -> Any:
        return self.side.sum()

    def bounds(self) -> Any:
        column = self.frame["temp"]
        return {"min": column.min(), "max": column.max(), "count": column.count(), "sum": column.sum()}

    def select_records(self) -> Any:
        return self.frame.filter(self._chosen()).select("id").to_dicts()

    def select_columns(self) -> Any:
        return self.frame.filter(self._chosen()).select("id")

    def group_sum(self) -> Any:
        return self.frame.group_by("status").agg(self.module.col("temp").sum()).iter_rows()

    def point_read(self, ids: Iterable[int]) -> Any:
        read = self.frame.row
        row = None
        for i in ids:
            row = read(i, named=True)
        return row

    def as_dict(self, row: Any) -> Row:
        return dict(row)

    def scan_sum(self) -> Any:
        return self.frame["temp"].sum()

    def filtered_sum(self) -> Any:
        col = self.module.col
        return self.frame.select(col("temp").filter(col("sensor") > 8).sum()).item()

    def count_three(self) -> int:
        # counting the condition takes half the time of frame.filter(condition).height
        return int(self.frame.select(self._chosen().sum()).item())

    def iterate(self) -> int:
        return walk(self.frame.iter_rows(named=True))

    def reported_bytes(self) -> Optional[int]:
        return int(self.frame.estimated_size())

    def close(self) -> None:
        self.frame = None


class PolarsCategorical(Polars):
    """The same with ``status`` as a Categorical, which its users choose for a column of few values."""

    name = "polars_cat"
    label = "polars Categorical"
    lacks = Polars.lacks | {"insert_columns"}

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        if self.frame.height:
            self.frame = self.frame.with_columns(self.module.col("status").cast(self.module.Categorical))


class DuckDB(Contender):
    """DuckDB in memory, one thread; rows go in through an Arrow table, its fastest way in from Python."""

    name = "duckdb"
    label = "DuckDB"
    requires = ("duckdb", "pyarrow")
    lacks = frozenset(("insert_columns",)) | SINGLY | OF_INDEXES
    most_reads = 500
    module: ClassVar[Any] = None
    arrow: ClassVar[Any] = None

    @classmethod
    def prepare(cls) -> None:
        _arrow_single_thread()
        cls.module = importlib.import_module("duckdb")
        cls.arrow = importlib.import_module("pyarrow")

    def __init__(self, rows: Iterable[Row]) -> None:
        listed = rows if isinstance(rows, list) else list(rows)
        self.connection = self.module.connect(":memory:", config={"threads": 1})
        # no key: its index slows the load and does not make a point read faster here
        self.connection.execute("CREATE TABLE t(id INTEGER, ts BIGINT, sensor UTINYINT, status VARCHAR, temp DOUBLE)")
        self.connection.register("source", self.arrow.Table.from_pylist(listed))
        self.connection.execute("INSERT INTO t SELECT * FROM source")
        self.connection.unregister("source")

    def hold(self, values: list[int]) -> None:
        other = self.connection.cursor()  # the last answer of this one may not be read to its end
        other.register("source", self.arrow.table({"v": values}))
        other.execute("CREATE TABLE side AS SELECT * FROM source")
        other.close()

    def hold_join(self, visits: Iterable[Row], places: Iterable[Row]) -> None:
        other = self.connection.cursor()
        for name, rows in (("visits", visits), ("places", places)):
            other.register("source", self.arrow.Table.from_pylist(list(rows)))
            other.execute(f"CREATE TABLE {name} AS SELECT * FROM source")
            other.unregister("source")
        other.close()

    def query_top(self) -> Any:
        return self.connection.execute(TOP).fetchall()

    def join(self) -> Any:
        return self.connection.execute("SELECT * FROM visits JOIN places USING(place)").fetchall()

    def point_read(self, ids: Iterable[int]) -> Any:
        execute = self.connection.execute
        row = None
        for i in ids:
            row = execute("SELECT * FROM t WHERE id=?", [i]).fetchone()
        return row

    def _one(self, query: str) -> Any:
        return self.connection.execute(query).fetchone()[0]

    def scan_sum(self) -> Any:
        return self._one("SELECT sum(temp) FROM t")

    def filtered_sum(self) -> Any:
        return self._one("SELECT sum(temp) FROM t WHERE sensor > 8")

    def count_three(self) -> int:
        return int(self._one("SELECT count(*) FROM t WHERE sensor > 8 AND status = 'active' AND temp < 35.0"))

    def int_sum(self) -> Any:
        return self._one("SELECT SUM(ts) FROM t")

    def packed_sum(self) -> Any:
        return self._one("SELECT SUM(v) FROM side")

    def bounds(self) -> Any:
        found = self.connection.execute("SELECT MIN(temp), MAX(temp), COUNT(temp), SUM(temp) FROM t").fetchone()
        return dict(zip(("min", "max", "count", "sum"), found))

    def select_records(self) -> Any:
        query = "SELECT id FROM t WHERE sensor > 8 AND status = 'active' AND temp < 35.0"
        return self.connection.execute(query).fetchall()

    def group_sum(self) -> Any:
        return self.connection.execute("SELECT status, SUM(temp) FROM t GROUP BY status").fetchall()

    def select_columns(self) -> Any:
        query = "SELECT id FROM t WHERE sensor > 8 AND status = 'active' AND temp < 35.0"
        return self.connection.execute(query).fetchnumpy()

    def _batches(self) -> Iterator[Any]:
        cursor = self.connection.execute("SELECT * FROM t")
        while True:
            batch = cursor.fetchmany(10_000)
            if not batch:
                return
            yield from batch

    def iterate(self) -> int:
        return walk(self._batches())

    def close(self) -> None:
        self.connection.close()


def _arrow_single_thread() -> None:
    """pandas and DuckDB use pyarrow where it is installed; its pool does not read the environment."""
    if importlib.util.find_spec("pyarrow") is not None:
        arrow = importlib.import_module("pyarrow")
        arrow.set_cpu_count(1)
        arrow.set_io_thread_count(1)


CONTENDERS: tuple[type[Contender], ...] = (
    SnapColumnar, SnapRow, Sqlite, Pandas, Dicts, NumPy, Polars, PolarsCategorical, DuckDB,
)  # fmt: skip
BY_NAME = {contender.name: contender for contender in CONTENDERS}
OURS = (SnapColumnar.name, SnapRow.name)
