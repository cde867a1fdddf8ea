"""Metrics: exact counts, figures of handles that are open, and text that Prometheus' own parsers read."""

from __future__ import annotations

import gc
import threading
import urllib.error
import urllib.request
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb import CDCLog, ColumnDef, DocumentStore, Metrics, Schema, SnapDB, __version__
from snapdb.errors import ClosedError, NotFoundError, ValidationError, ValueTypeError
from snapdb.measured import OPERATIONS
from snapdb.metrics import BUCKETS, NAMES, TABLES, serve_metrics

SCHEMA = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("v", "f64")])
PLAIN = Schema([ColumnDef("id", "i64"), ColumnDef("v", "f64")])


def values(metrics: Metrics, name: str, /, **labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    return sum(
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def operations(metrics: Metrics) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for family in metrics.collect():
        if family.name == "snapdb_operations":
            for sample in family.samples:
                found[sample.labels["op"], sample.labels["result"]] += int(sample.value)
    return found


def work(db: SnapDB, path: Any) -> None:
    """Something of everything."""
    db.insert({"id": 1, "v": 1.0})
    db.batch_insert([{"id": at, "v": 0.5} for at in range(2, 50)])
    db.get(0), db.lookup("id", 3), db.find(id=4), db.update(0, {"v": 2.0}), db.delete(5)
    db.create_index("v")
    with db.transaction():
        db.upsert({"id": 1, "v": 3.0})
    with pytest.raises(NotFoundError):
        db.delete(5)
    with pytest.raises(ZeroDivisionError), db.transaction():
        raise ZeroDivisionError
    db.select_where([("v", "gt", 1)]), db.aggregate("v"), db.group_by("v", "id"), db.count_where([])
    db.snapshot("s"), db.flush(), db.checkpoint(), db.compact(), db.fsck()


@pytest.mark.parametrize("place", ["memory", "file"])
def test_prometheus_reads_every_line(tmp_path: Path, engine: str, backend_name: str, place: str) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
    from prometheus_client.parser import text_string_to_metric_families as read_plain

    metrics = Metrics()
    path = ":memory:" if place == "memory" else tmp_path / 'a "b"\\c.snap'
    with SnapDB(path, SCHEMA, storage_type=engine, metrics=metrics, cdc=CDCLog()) as db:
        work(db, path)
        metrics.inc('mine "x"\n\\', 2.5)
        metrics.add_latency("mine", 0.003)
        plain, openmetrics = list(read_plain(metrics.report())), list(read_open(metrics.report(openmetrics=True)))
        registry = prometheus.CollectorRegistry()
        registry.register(metrics)
        from prometheus_client.exposition import generate_latest
        from prometheus_client.openmetrics.exposition import generate_latest as generate_open

        again = list(read_plain(generate_latest(registry).decode())), list(read_open(generate_open(registry).decode()))
        # the report of the registry made the same reads, so only what reading changes may differ
        for one, other in zip((plain, openmetrics), again):
            assert lines_of(one) == lines_of(other)
        assert lines_of(plain) == lines_of(openmetrics)
        names = {family.name for family in openmetrics}
        assert names == {
            "snapdb_operations", "snapdb_operation_duration_seconds", "snapdb_rows", "snapdb_file_size_bytes",
            "snapdb_wal_fsync_duration_seconds", "snapdb_compactions", "snapdb_lock_wait_seconds",
            "snapdb_cdc_lag_events", "snapdb_events", "snapdb_event_duration_seconds", "snapdb_build_info",
        }  # fmt: skip
        assert values(metrics, "snapdb_rows", table=str(path)) == len(db)
        assert values(metrics, "snapdb_build_info", version=__version__) == 1
        assert values(metrics, "snapdb_compactions_total", result="ok") == 1
        assert values(metrics, "snapdb_cdc_lag_events", table=str(path)) == 0
        assert values(metrics, "snapdb_events_total", name='mine "x"\n\\') == 2.5
        assert values(metrics, "snapdb_lock_wait_seconds_count") > 0
        if place == "file":
            sizes = {kind: values(metrics, "snapdb_file_size_bytes", kind=kind) for kind in ("live", "dead", "wal")}
            assert sizes["live"] > 0 and sizes["wal"] > 0
            assert values(metrics, "snapdb_wal_fsync_duration_seconds_count") > 0
    assert values(metrics, "snapdb_rows") == 0


def lines_of(families: Any) -> Any:
    return sorted(
        (sample.name, sorted(sample.labels.items()), sample.value)
        for family in families
        for sample in family.samples
        if not sample.name.startswith(("snapdb_lock_wait", "snapdb_wal_fsync"))
    )


def test_counts_are_exact(tmp_path: Path, engine: str, backend_name: str) -> None:
    metrics = Metrics()
    with SnapDB(":memory:", SCHEMA, storage_type=engine, metrics=metrics) as db:
        work(db, ":memory:")
        found = operations(metrics)
        assert found["insert", "ok"] == found["upsert", "ok"] == found["get", "ok"] == found["find", "ok"] == 1
        assert (found["delete", "ok"], found["delete", "error"]) == (1, 1)
        assert (found["commit", "ok"], found["rollback", "ok"]) == (1, 1)
        assert found["select", "ok"] == 0  # find() is one operation
        assert values(metrics, "snapdb_operation_duration_seconds_count", op="find") == 1
        for call in (lambda: db.insert({}), lambda: db.update(0, {"v": "x"}), lambda: db.find(no=1)):
            with pytest.raises((KeyError, ValueError)):
                call()
        found = operations(metrics)
        assert found["insert", "error"] == found["update", "error"] == found["find", "error"] == 1
        with db.watch():
            db.update(0, {"v": 9.0})
        db.update(0, {"v": 9.5})
        assert operations(metrics)["update", "ok"] == 3
        metrics.reset()
        assert not +operations(metrics) and values(metrics, "snapdb_rows") == len(db)
        insert = db.insert
        insert({"id": 1000, "v": 1.0})
        assert operations(metrics)["insert", "ok"] == 1


def test_threads_lose_no_count(engine: str) -> None:
    metrics = Metrics()
    with SnapDB(":memory:", PLAIN, storage_type=engine, metrics=metrics) as db:

        def run() -> None:
            for at in range(3000):
                db.insert({"id": at, "v": 1.0})
                db.get(at)
                metrics.inc("mine")

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = operations(metrics)
        assert found["insert", "ok"] == found["get", "ok"] == 24_000 == len(db)
        assert values(metrics, "snapdb_events_total", name="mine") == 24_000
        timed = values(metrics, "snapdb_operation_duration_seconds_count", op="insert")
        assert 24_000 // 64 - 9 <= timed <= 24_000 // 64 + 9


def test_every_operation_that_is_counted_is_one() -> None:
    assert all(callable(getattr(SnapDB, name)) for name in OPERATIONS)


def test_handles_come_and_go(tmp_path: Path, engine: str) -> None:
    metrics = Metrics()
    db = SnapDB(":memory:", PLAIN, storage_type=engine, metrics=metrics)
    get, there = db.get, weakref.ref(db)
    db.insert({"id": 1, "v": 1.0})
    gc.disable()
    try:
        del db
        assert there() is None
    finally:
        gc.enable()
    assert values(metrics, "snapdb_rows") == 0
    one = SnapDB(":memory:", PLAIN, metrics=metrics)
    other = SnapDB(":memory:", PLAIN, metrics=metrics)
    one.insert({"id": 1, "v": 1.0})
    other.insert({"id": 1, "v": 1.0})
    assert values(metrics, "snapdb_rows", table=":memory:") == 2
    one.close()
    with pytest.raises(ClosedError):
        one.insert({"id": 1, "v": 1.0})
    assert values(metrics, "snapdb_rows", table=":memory:") == 1
    other.close()
    get(0)  # of a table that is held by this method alone


def test_a_report_waits_for_nobody(tmp_path: Path) -> None:
    metrics = Metrics()
    with SnapDB(tmp_path / "t", PLAIN, metrics=metrics) as db:
        db.insert({"id": 1, "v": 1.0})
        assert values(metrics, "snapdb_rows") == 1
        found: list[float] = []
        with db.transaction():
            db.insert({"id": 2, "v": 1.0})
            thread = threading.Thread(target=lambda: found.append(values(metrics, "snapdb_rows")))
            thread.start()
            thread.join(10)
            assert found == [1.0]


def test_memory_is_bounded() -> None:
    metrics = Metrics()
    for at in range(NAMES * 3):
        metrics.inc(f"name {at}")
        metrics.add_latency(f"name {at}", 0.1)
    assert values(metrics, "snapdb_events_total") == NAMES * 3
    assert values(metrics, "snapdb_events_total", name="other") == NAMES * 2
    for at in range(TABLES + 10):
        with SnapDB(":memory:", PLAIN, metrics=metrics) as db:
            db.path = f"table {at}"
            db.insert({"id": 1, "v": 1.0})
    assert metrics.report().count("\n") < 3 * NAMES * 25


def test_wrong_arguments() -> None:
    metrics = Metrics()
    for value in (-1, float("nan"), float("inf"), 10**400):
        with pytest.raises(ValidationError):
            metrics.inc("a", value)
        with pytest.raises(ValidationError):
            metrics.add_latency("a", value)
    for name, value in ((1, 1), ("a", "1"), ("a", None)):
        with pytest.raises(ValueTypeError):
            metrics.inc(name, value)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        metrics.inc("")
    with pytest.raises(ValueTypeError, match="Metrics"):
        SnapDB(":memory:", PLAIN, metrics=3)
    assert values(metrics, "snapdb_events_total") == 0


@given(st.lists(st.floats(0, 100), max_size=30), st.text(min_size=1))
def test_histograms_add_up(seconds: list[float], name: str) -> None:
    metrics = Metrics()
    for one in seconds:
        metrics.add_latency(name, one)
    samples = [s for f in metrics.collect() if f.name == "snapdb_event_duration_seconds" for s in f.samples]
    if not seconds:
        assert samples == []
        return
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert buckets == [sum(one <= end for one in seconds) for end in (*BUCKETS, float("inf"))]
    assert [sample.value for sample in samples if sample.name.endswith("_count")] == [len(seconds)]


def test_somebody_elses_metrics(engine: str) -> None:
    class Mine:
        def __init__(self) -> None:
            self.told: Counter[str] = Counter()

        def inc(self, metric: str, value: float = 1) -> None:
            self.told[metric] += int(value)

        def add_latency(self, metric: str, seconds: float) -> None:
            raise RuntimeError("mine")

    mine = Mine()
    with SnapDB(":memory:", PLAIN, storage_type=engine, metrics=mine) as db:
        db.insert({"id": 1, "v": 1.0})
        db.get(0)
        with pytest.raises(NotFoundError):
            db.delete(9)
    assert mine.told == {"db_insert_total": 1, "db_get_total": 1, "db_delete_errors_total": 1}


def test_documents_are_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    with DocumentStore(tmp_path / "d", metrics=metrics) as store:
        store.insert({"a": 1})
        assert operations(metrics)["insert", "ok"] == 1


def test_over_http() -> None:
    metrics = Metrics()
    metrics.inc("mine")
    with serve_metrics(0, metrics) as server:
        for accept, kind in (("", "text/plain"), ("application/openmetrics-text", "application/openmetrics-text")):
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read().decode()
                assert answer.headers["Content-Type"].startswith(kind)
                assert 'snapdb_events_total{name="mine"} 1.0' in text
                assert text.endswith("# EOF\n") == kind.startswith("application")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/other", timeout=10)
    server.close()
