"""Indexes: lookups, ranges, making them, their size; ranges without one. 50,000 lookups or 200 ranges a call."""

from snapdb.benchmark import rows as data

from .common import OfEngine, asked, keys


class Lookup(OfEngine):
    """50,000 random rows by a hash index of id."""

    workload = "lookup"

    def time_lookup(self, engine, count):
        self.store.lookup(keys(count))


class _Ranges(OfEngine):
    """200 ranges of 100 rows; what is asked is made before anything is timed."""

    def setup(self, engine, count):
        super().setup(engine, count)
        self.asked = asked(count)


class RangeUnsorted(_Ranges):
    """By an ordered index of a column in no order."""

    workload = "range_unsorted"

    def time_range_unsorted(self, engine, count):
        self.store.range_temp(self.asked.temp)


class RangeSorted(_Ranges):
    """By an ordered index of a column that rises from row to row."""

    workload = "range_sorted"

    def time_range_sorted(self, engine, count):
        self.store.range_ts(self.asked.ts)


class RangeZones(_Ranges):
    """The same column without an index."""

    workload = "range_zones"

    def time_range_zones(self, engine, count):
        self.store.range_ts(self.asked.ts)


class _OfIntegers(OfEngine):
    """On as many random integers of 21 bits in a table of their own, whose index ``setup`` drops."""

    number = 1
    warmup_time = 0.0

    def setup(self, engine, count):
        super().setup(engine, count)
        if self.store.side is None:
            self.store.hold(data.packed(count))


class CreateIndex(_OfIntegers):
    """A hash index of all integers."""

    workload = "create_index"

    def time_create_index(self, engine, count):
        self.store.create_index()


class CreateRangeIndex(_OfIntegers):
    """An ordered index of all integers."""

    workload = "create_range_index"

    def time_create_range_index(self, engine, count):
        self.store.create_range_index()


class IndexSize(_OfIntegers):
    """What an index of each kind takes per entry."""

    def track_index_bytes(self, engine, count):
        return self.store.index_bytes("hash") / count

    def track_range_index_bytes(self, engine, count):
        return self.store.index_bytes("range") / count

    track_index_bytes.unit = track_range_index_bytes.unit = "bytes/entry"
