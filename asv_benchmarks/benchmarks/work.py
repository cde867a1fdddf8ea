"""Tables that are worked with: reads by indexes, in an order, with another table; changes row by row."""

from snapdb.benchmark.workloads import JOINED, RANGES

from .common import REPEAT, OfEngine, changed_order, fresh, keys


class Lookup(OfEngine):
    """50,000 random rows by an indexed column."""

    workload = "lookup"

    def time_lookup(self, engine, count):
        self.store.lookups(keys(count))


class RangeIndex(OfEngine):
    """100 rows between two values of a column with an ordered index, 500 times."""

    workload = "range_index"

    def time_range_index(self, engine, count):
        self.store.ranges("temp", keys(count)[-RANGES:])


class RangeSorted(OfEngine):
    """The same of a column that is sorted as it stands."""

    workload = "range_sorted"

    def time_range_sorted(self, engine, count):
        self.store.ranges("ts", keys(count)[-RANGES:])


class RangeZones(OfEngine):
    """The same without an index."""

    workload = "range_zones"

    def time_range_zones(self, engine, count):
        self.store.ranges("ts", keys(count)[-RANGES:])


class QueryTop(OfEngine):
    """The ten best rows under a condition."""

    workload = "query_top"

    def time_query_top(self, engine, count):
        for _ in range(REPEAT["query_top"]):
            self.store.top()


class Join(OfEngine):
    """A join with 1,000 rows; every row has one partner."""

    workload = "join"

    def setup(self, engine, count):
        super().setup(engine, count)
        self.store.hold_rooms(min(count, JOINED))

    def time_join(self, engine, count):
        self.store.join()


class CreateIndex(OfEngine):
    """A hash index of integers; it is dropped before each call."""

    workload = "create_index"

    def time_create_index(self, engine, count):
        self.store.make_index()


class Changes(OfEngine):
    """Every row of a table of up to 100,000 in a random order, by a call of its own."""

    def setup(self, engine, count):
        self.fresh = fresh(engine, count)
        self.order = changed_order(count)

    def teardown(self, engine, count):
        self.fresh.close()

    def time_update_each(self, engine, count):
        self.fresh.update_each(self.order)

    def time_delete_each(self, engine, count):
        self.fresh.delete_each(self.order)
