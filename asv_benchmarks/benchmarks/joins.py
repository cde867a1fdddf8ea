"""Joins."""

from snapdb.benchmark import rows as data

from .common import OfEngine


class Join(OfEngine):
    """All rows with 1,000 others, each of which has one of their keys."""

    def setup(self, engine, count):
        super().setup(engine, count)
        if not self.store.tables:
            self.store.hold_join(data.visits(count), data.places())

    def time_join(self, engine, count):
        self.store.join()
