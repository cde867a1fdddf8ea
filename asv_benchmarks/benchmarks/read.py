"""Point reads, scans, filters, the best rows, iteration: 50,000 reads or REPEAT questions in one timed call.

No peak memory here: asv counts what ``setup`` needs, and loading needs more than any of these.
"""

from snapdb.benchmark import rows as data

from .common import REPEAT, OfEngine, keys


class PointRead(OfEngine):
    """50,000 random rows by id."""

    workload = "point_read"

    def time_point_read(self, engine, count):
        self.store.point_read(keys(count))


class ScanSum(OfEngine):
    """SUM of a float column, stored answers off."""

    workload = "scan_sum"

    def time_scan_sum(self, engine, count):
        for _ in range(REPEAT["scan_sum"]):
            self.store.scan_sum()


class ZoneSum(OfEngine):
    """SUM of a float column from the zone maps."""

    workload = "zone_sum"

    def time_zone_sum(self, engine, count):
        for _ in range(REPEAT["zone_sum"]):
            self.store.zone_sum()


class FilteredSum(OfEngine):
    """SUM under one condition."""

    workload = "filtered_sum"

    def time_filtered_sum(self, engine, count):
        for _ in range(REPEAT["filtered_sum"]):
            self.store.filtered_sum()


class CountThree(OfEngine):
    """Rows that meet three conditions."""

    workload = "count_three"

    def time_count_three(self, engine, count):
        for _ in range(REPEAT["count_three"]):
            self.store.count_three()


class IntSum(OfEngine):
    """SUM of an integer column that is an arithmetic sequence, stored answers off."""

    workload = "int_sum"

    def time_int_sum(self, engine, count):
        for _ in range(REPEAT["int_sum"]):
            self.store.int_sum()


class PackedSum(OfEngine):
    """SUM of random integers of 21 bits, stored answers off."""

    workload = "packed_sum"

    def setup(self, engine, count):
        super().setup(engine, count)
        if self.store.side is None:
            self.store.hold(data.packed(count))
            self.store.before(self.workload)

    def time_packed_sum(self, engine, count):
        for _ in range(REPEAT["packed_sum"]):
            self.store.packed_sum()


class Bounds(OfEngine):
    """MIN, MAX, COUNT and SUM of a float column."""

    workload = "bounds"

    def time_bounds(self, engine, count):
        for _ in range(REPEAT["bounds"]):
            self.store.bounds()


class SelectRecords(OfEngine):
    """The ids of the rows that meet three conditions, as dicts."""

    workload = "select_records"

    def time_select_records(self, engine, count):
        for _ in range(REPEAT["select_records"]):
            self.store.select_records()


class SelectColumns(OfEngine):
    """The same ids as a column."""

    workload = "select_columns"

    def time_select_columns(self, engine, count):
        for _ in range(REPEAT["select_columns"]):
            self.store.select_columns()


class GroupSum(OfEngine):
    """SUM of a float column for each status."""

    workload = "group_sum"

    def time_group_sum(self, engine, count):
        for _ in range(REPEAT["group_sum"]):
            self.store.group_sum()


class Iterate(OfEngine):
    """Every row as a dict."""

    workload = "iterate"

    def time_iterate(self, engine, count):
        self.store.iterate()


class QueryTop(OfEngine):
    """The ten best rows under a condition, by the query builder."""

    workload = "query_top"

    def time_query_top(self, engine, count):
        for _ in range(REPEAT["query_top"]):
            self.store.query_top()
