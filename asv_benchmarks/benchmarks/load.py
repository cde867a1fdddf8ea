"""Bulk insert, memory, import."""

from snapdb.benchmark import rows as data
from snapdb.benchmark.peers import BY_NAME

from .common import ENGINES, ROWS, OfEngine, columns, rows


class BulkInsert:
    """A batch of dicts into a fresh store."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def setup(self, engine, count):
        self.rows = rows(count)

    def time_bulk_insert(self, engine, count):
        BY_NAME[engine](self.rows)


class InsertColumns:
    """NumPy arrays into a fresh store."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def setup(self, engine, count):
        self.columns = columns(count)

    def time_insert_columns(self, engine, count):
        BY_NAME[engine].from_columns(self.columns)


class SingleInsert:
    """100,000 rows into a fresh store, a call each."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def setup(self, engine, count):
        self.rows = rows(count)[:100_000]

    def time_single_insert(self, engine, count):
        BY_NAME[engine].row_by_row(self.rows)


class Footprint:
    """Memory, with rows generated one at a time so that only the store weighs."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def peakmem_bulk_insert(self, engine, count):
        BY_NAME[engine](data.generate(count))


class Size(OfEngine):
    """What the store says it holds."""

    def track_bytes_per_row(self, engine, count):
        return self.store.reported_bytes() / count

    track_bytes_per_row.unit = "bytes/row"


def timeraw_import():
    """Import, in a fresh process."""
    return "import snapdb"
