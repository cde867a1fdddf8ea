"""Updates and deletes by a call each, on a store of its own for each timing."""

from snapdb.benchmark import rows as data
from snapdb.benchmark.changes import MOST
from snapdb.benchmark.peers import BY_NAME

from .common import ENGINES, ROWS, rows


class _Fresh:
    """A loaded store for each timing, and different keys of half the rows but at most 100,000."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300
    number = 1
    warmup_time = 0.0

    def setup(self, engine, count):
        self.store = BY_NAME[engine](rows(count))
        self.changes = data.changes(count, MOST)

    def teardown(self, engine, count):
        self.store.close()


class SingleUpdate(_Fresh):
    """One field of a row."""

    def time_single_update(self, engine, count):
        self.store.update_each(self.changes)


class SingleDelete(_Fresh):
    """A row."""

    def time_single_delete(self, engine, count):
        self.store.delete_each(self.changes)
