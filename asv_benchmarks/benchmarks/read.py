"""Point reads, scans, filters, iteration: 50,000 reads or REPEAT questions in one timed call.

No peak memory here: asv counts what ``setup`` needs, and loading needs more than any of these.
"""

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


class Iterate(OfEngine):
    """Every row as a dict."""

    workload = "iterate"

    def time_iterate(self, engine, count):
        self.store.iterate()
