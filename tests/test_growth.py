"""How large a file gets, and how much of it is written and read: counted in bytes, on files in memory, so that no
figure depends on the machine. The compiled kernels only; the pure ones write the same bytes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import ENGINES

from snapdb import ColumnDef, Schema, SnapDB, _ext
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingFile, RecordingLayer

pytestmark = pytest.mark.skipif(
    _ext.BACKEND != "c", reason="too slow without the compiled kernels, and the bytes are the same"
)

PATH = "growth.snapdb"
KIB = 1 << 10
LIMIT = 1.8  # times a file may grow at most; 2 is promised
SCHEMA = Schema(
    [
        ColumnDef("id", "i64"), ColumnDef("name", "str"), ColumnDef("kind", "bytes:8"),
        ColumnDef("value", "f64", not_null=False), ColumnDef("active", "bool"),
    ]
)  # fmt: skip


def columns(count: int, first: int = 0) -> dict[str, Any]:
    draw = random.Random(first)
    kinds = ("red", "green", "blue", "grey")
    return {
        "id": range(first, first + count),
        "name": [f"name {i * 7919 % 1_000_003}" for i in range(first, first + count)],
        "kind": [kinds[i % 4] for i in range(count)],
        "value": [draw.random() * 1000 for _ in range(count)],
        "active": [i % 3 == 0 for i in range(count)],
    }


def one(i: int) -> dict[str, Any]:
    return {"id": i, "name": f"name {i * 7919 % 1_000_003}", "kind": "new", "value": i / 7, "active": True}


class Traffic:
    """Bytes read from and written to files since ``clear()``."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.read = self.written = 0


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    counted = Traffic()
    pread, pwrite = RecordingFile.pread, RecordingFile.pwrite

    def counting_pread(self: RecordingFile, size: int, offset: int) -> bytes:
        data = pread(self, size, offset)
        counted.read += len(data)
        return data

    def counting_pwrite(self: RecordingFile, data: Any, offset: int) -> None:
        counted.written += memoryview(data).nbytes
        pwrite(self, data, offset)

    monkeypatch.setattr(RecordingFile, "pread", counting_pread)
    monkeypatch.setattr(RecordingFile, "pwrite", counting_pwrite)
    return counted


@pytest.fixture
def layer() -> Iterator[RecordingLayer]:
    """Files in memory, without maps, so that every byte that is read is seen."""
    with using(RecordingLayer(record=False)) as made:
        yield made  # type: ignore[misc]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tell(what: str, **figures: Any) -> None:
    """The figures, for ``pytest -rP``."""
    print(what, ", ".join(f"{name} {value:,}" for name, value in figures.items()))


def file_bytes(db: SnapDB) -> int:
    return int(db.stats()["file_bytes"])


# -- changes at random ------------------------------------------------------------
def mixed(step: int) -> dict[str, Any]:
    return {"value": step / 3, "name": f"changed {step}"} if step % 3 else {"active": False}


def every(step: int) -> dict[str, Any]:
    return {"value": step / 3, "name": f"name {step}", "active": step % 3 == 0, "id": step}


@pytest.mark.parametrize("change", [mixed, every])
def test_updates_at_random_do_not_grow_the_file(
    layer: RecordingLayer, traffic: Traffic, engine: str, change: Callable[[int], dict[str, Any]]
) -> None:
    rows, updates, interval = 100_000, 100_000, 1000
    draw = random.Random(1)
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        db.insert_columns(columns(rows))
        db.checkpoint()
        start, largest, written = file_bytes(db), 0, 0
        for step in range(1, updates + 1):
            db.update(draw.randrange(rows), change(step))
            if step % interval == 0:
                db.flush()
                traffic.clear()
                db.checkpoint()
                written += traffic.written
                largest = max(largest, file_bytes(db))
        each = written * interval // updates
        live = db.stats()["live_bytes"]
        tell(f"{engine}: 100,000 updates ({change.__name__})", start=start, largest=largest, live=live, each=each)
        assert db.fsck()["ok"]
    assert largest <= (LIMIT if change is mixed else 2) * start
    assert each <= start // 3


# -- rows that come and go -----------------------------------------------------------
def come_and_go(engine: str, steps: int, window: int) -> None:
    """Each step inserts a row and deletes the oldest of a window."""
    first, every = 10_000, 1000
    waiting: deque[int] = deque()
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        start = largest = 0
        for step in range(1, steps + 1):
            waiting.append(db.insert(one(step)))
            if len(waiting) > window:
                db.delete(waiting.popleft())
            if step % every == 0:
                db.checkpoint()
                largest = max(largest, file_bytes(db))
            if step == first:
                start, largest = file_bytes(db), 0
        tell(f"{engine}: {steps:,} inserted and deleted", window=window, start=start, largest=largest)
        assert len(db) == window
        assert db.fsck()["ok"]
    with SnapDB(PATH) as db:
        assert db.fsck()["ok"]
        assert [idx for idx, _ in db] == list(waiting)
    assert largest <= LIMIT * start


@pytest.mark.parametrize("window", [0, 100, 1000, 3000])
def test_rows_that_come_and_go_do_not_grow_the_file(layer: RecordingLayer, engine: str, window: int) -> None:
    come_and_go(engine, 150_000, window)


@pytest.mark.long
@pytest.mark.parametrize("window", [0, 3000])
def test_a_million_rows_that_come_and_go(layer: RecordingLayer, engine: str, window: int) -> None:
    come_and_go(engine, 1_000_000, window)


# -- one row of many ----------------------------------------------------------------------
def test_a_checkpoint_writes_what_changed(layer: RecordingLayer, traffic: Traffic, engine: str) -> None:
    """At most 256 KiB for one row of a million, whatever was done to it."""
    rows = 1_000_000
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        db.insert_columns(columns(rows))
        db.checkpoint()
        changes = {
            "update": lambda: db.update(543_210, {"value": -1.5}),
            "update of text": lambda: db.update(12, {"name": "another name " * 20}),
            "update of the last": lambda: db.update(rows - 1, {"active": False}),
            "insert": lambda: db.insert(one(rows)),
            "delete": lambda: db.delete(700_000),
            "delete of the first": lambda: db.delete(0),
            "delete of the last": lambda: db.delete(rows),
            "update again": lambda: db.update(543_210, {"value": 2.5}),
            "transaction": lambda: in_transaction(db),
        }
        written = {}
        for name, change in changes.items():
            change()
            db.flush()
            traffic.clear()
            db.checkpoint()
            written[name] = traffic.written
        tell(f"{engine}: bytes of a checkpoint", **written)
        assert max(written.values()) <= 256 * KIB
        assert db.get(12) == {
            **one(12),
            "kind": "red",
            "name": "another name " * 20,
            "active": True,
            "value": db[12]["value"],
        }
    traffic.clear()
    with SnapDB(PATH) as db:
        db.update(1, {"value": 0.5})
    tell(f"{engine}: opened, changed and closed", written=traffic.written)
    assert traffic.written <= 512 * KIB  # with the log's beginning and end


def in_transaction(db: SnapDB) -> None:
    with db.transaction():
        db.update(5, {"value": 7.5})


# -- opening -------------------------------------------------------------------------------------
def opening(traffic: Traffic, rows: int, batch: int) -> None:
    with SnapDB(PATH, SCHEMA, storage_type="columnar") as db:
        for first in range(0, rows, batch):
            db.insert_columns(columns(min(batch, rows - first), first))
        expected = {
            (name, agg): db.aggregate(name, agg)
            for name, agg in [("id", "min"), ("id", "max"), ("id", "count"), ("value", "min"), ("value", "max"),
                              ("value", "count"), ("active", "count"), ("name", "count")]
        }  # fmt: skip
    size = 0
    with SnapDB(PATH, read_only=True) as db:
        size = file_bytes(db)
    traffic.clear()
    with SnapDB(PATH) as db:
        opened = traffic.read
        assert len(db) == rows
        assert {key: db.aggregate(*key) for key in expected} == expected
        answered = traffic.read - opened
        tell(f"{rows:,} rows", file=size, read_to_open=opened, read_for_min_max_count=answered)
        assert opened <= 300 * KIB  # the catalog's root and the tail of the last segment, to which rows are appended
        assert answered <= 64 * KIB + rows // 65_536 * 512  # nodes of the catalog, no segment
        assert db.aggregate("id", "sum") == sum(
            range(rows)
        )  # not known without its segments, but without other columns
        assert traffic.read - opened - answered < size // 2


def test_opening_reads_little_of_a_large_file(layer: RecordingLayer, traffic: Traffic) -> None:
    opening(traffic, 1_000_000, 500_000)


@pytest.mark.long
def test_opening_reads_little_of_a_very_large_file(layer: RecordingLayer, traffic: Traffic) -> None:
    opening(traffic, 10_000_000, 1_000_000)


def test_opening_rows_reads_little(layer: RecordingLayer, traffic: Traffic) -> None:
    rows = 300_000
    with SnapDB(PATH, SCHEMA) as db:
        db.insert_columns(columns(rows))
    traffic.clear()
    with SnapDB(PATH) as db:
        opened = traffic.read
        assert len(db) == rows
        assert db[123_456]["id"] == 123_456
        tell("row", read_to_open=opened, read_for_a_row=traffic.read - opened)
        assert opened <= 300 * KIB
        assert traffic.read - opened <= 300 * KIB


# -- free space -------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["delete_where", "one by one", "compact"])
def test_space_comes_back(layer: RecordingLayer, engine: str, way: str) -> None:
    """After every opening the file is sound; without rows it is as empty as it was, whatever happened before."""
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        db.insert(one(0))
        db.delete(0)
        db.checkpoint()
        empty = db.stats()
    sizes = []
    for cycle in range(5):
        with SnapDB(PATH) as db:
            db.insert_columns(columns(30_000, cycle * 30_000))
            db.batch_insert(one(i) for i in range(2000))
            db.checkpoint()
            db.batch_update([("active", "eq", True)], {"value": None, "name": "x" * 20})
            for i in range(50):
                db.insert(one(i))
        with SnapDB(PATH) as db:
            assert db.fsck()["ok"]
            assert len(db) == 32_050
            full = db.stats()
            if way == "one by one":
                for idx in [idx for idx, _ in db]:
                    db.delete(idx)
            else:
                db.delete_where([("active", "not_null")])
            db.checkpoint()
            if way == "compact":
                db.compact()
        with SnapDB(PATH) as db:
            assert db.fsck()["ok"]
            assert len(db) == 0
            figures = db.stats()
            sizes.append(figures["file_bytes"])
            assert figures["live_bytes"] <= empty["live_bytes"] + 64 * KIB
            assert figures["live_bytes"] + figures["free_bytes"] >= figures["file_bytes"] - 64 * KIB
            if way == "compact":
                assert figures["file_bytes"] <= empty["file_bytes"] + 128 * KIB
    tell(
        f"{engine}, {way}",
        empty=empty["live_bytes"],
        full=full["live_bytes"],
        then=figures["live_bytes"],
        file=sizes[-1],
    )
    assert sizes[-1] <= sizes[0] + 256 * KIB


def test_a_file_that_is_killed_again_and_again_keeps_its_size(layer: RecordingLayer, engine: str) -> None:
    db = SnapDB(PATH, SCHEMA, storage_type=engine)
    db.insert_columns(columns(20_000))
    db.checkpoint()
    start = file_bytes(db)
    for step in range(30):
        db.batch_update([("id", "between", (step * 100, step * 100 + 500))], {"value": step / 2})
        if step % 2:
            db.checkpoint()
        db.insert(one(step))
        db._abandon()
        db = SnapDB(PATH)
        assert db.fsck(full=step % 10 == 0)["ok"]
    tell(f"{engine}: killed 30 times", start=start, then=file_bytes(db))
    assert file_bytes(db) <= 2 * start
    db.close()


# -- snapshots --------------------------------------------------------------------------------------
def changed_value(step: int) -> dict[str, Any]:
    return {"value": step / 3}


@pytest.mark.parametrize("change", [changed_value, every])
def test_snapshots_cost_what_changed(
    layer: RecordingLayer, engine: str, change: Callable[[int], dict[str, Any]]
) -> None:
    """Changes here and there between them; dropped, they leave nothing behind."""
    rows, snapshots, each = 100_000, 60, 100
    draw = random.Random(5)
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        db.insert_columns(columns(rows))
        db.checkpoint()
        db.checkpoint()
        start, empty = file_bytes(db), db.stats()["live_bytes"]
        most = 0
        for turn in range(snapshots):
            before = file_bytes(db)
            for idx in draw.sample(range(rows), each):
                db.update(idx, change(turn))
            db.snapshot(f"s{turn}")
            most = max(most, file_bytes(db) - before)
        grown = (file_bytes(db) - start) // snapshots
        for turn in draw.sample(range(snapshots), snapshots):
            db.drop_snapshot(f"s{turn}")
        for _ in range(3):
            db.update(0, change(turn))
            db.checkpoint()
        figures = db.stats()
        tell(f"{engine}: {snapshots} snapshots ({change.__name__})", each=grown, most=most, live=figures["live_bytes"])
        assert db.fsck()["ok"]
    assert grown <= {"row": 64, "columnar": 128}[engine] * KIB
    assert engine == "columnar" or most <= 192 * KIB  # nothing comes due at once
    assert figures["snapshot_bytes"] == 0 and figures["live_bytes"] <= 2 * empty
    assert figures["live_bytes"] + figures["free_bytes"] >= figures["file_bytes"] - 64 * KIB
