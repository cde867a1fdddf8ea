"""Change data capture: events of every write path, a file that agrees with the table after every crash, history."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb import CDCLog, ColumnDef, DocumentStore, Schema, SnapDB
from snapdb.cdc import KEPT
from snapdb.commits import line, unline
from snapdb.errors import (
    ClosedError,
    CorruptionError,
    HistoryLostError,
    LockedError,
    StorageError,
    TransactionError,
    UniqueError,
    ValidationError,
    ValueTypeError,
)
from snapdb.storage.files import using
from snapdb.storage.layer import failure
from snapdb.testing.layers import RecordingLayer

SCHEMA = Schema([
    ColumnDef("id", "i64", primary_key=True), ColumnDef("v", "f64", not_null=False), ColumnDef("s", "str"),
])  # fmt: skip
KILLS = int(os.environ.get("SNAPDB_KILLS", "24"))
Row = dict[str, Any]


def apply(state: dict[int, Row], event: dict[str, Any]) -> dict[int, Row]:
    """What a follower of the events makes of its copy; it checks what the event says was there."""
    op, idx = event["op"], event["idx"]
    if op == "compact":
        return {new: state[old] for new, old in enumerate(sorted(state))}
    assert op in ("insert", "update", "delete")
    assert repr(state.get(idx)) == repr(event["old"])
    if op == "delete":
        del state[idx]
    else:
        state[idx] = event["row"]
    return state


def follow(events: list[dict[str, Any]]) -> dict[int, Row]:
    """The rows that events lead to, their order being right: LSNs rise, one for each transaction."""
    state: dict[int, Row] = {}
    last = (0, 0)
    for event in events:
        now = (event["tx"], event["lsn"])
        assert now == last or now[0] > last[1] or last == (0, 0), (last, now)
        assert event["tx"] <= event["lsn"]
        last = now
        state = apply(state, event)
    return state


class Driver:
    """Random work on a table."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.key = 0

    def row(self) -> Row:
        self.key += 1
        value = self.random.choice([None, float("nan"), -0.0, self.random.random()])
        return {"id": self.key, "v": value, "s": self.random.choice(["", "ä", "x" * 40])}

    def step(self, db: SnapDB, inside: bool = False) -> None:
        ids = [idx for idx, _ in db]
        what = self.random.randrange(8 if inside else 13)
        some = self.random.choice(ids) if ids else None
        if what == 0:
            db.insert(self.row())
        elif what == 1:
            db.batch_insert([self.row() for _ in range(self.random.randrange(4))])
        elif what == 2 and some is not None:
            db.update(some, {"s": self.random.choice(["a", "b"]), "v": 1.0})
        elif what == 3 and some is not None:
            db.delete(some)
        elif what == 4:
            db.upsert({**self.row(), "id": self.random.randrange(1, self.key + 2)})
            self.key += 1
        elif what == 5:
            db.batch_update([("v", "is_null")], {"v": 2.5})
        elif what == 6:
            db.delete_where([("v", "gt", 0.9)])
        elif what == 7 and ids:
            with pytest.raises(UniqueError):
                db.batch_insert([self.row(), {**self.row(), "id": next(row["id"] for _, row in db)}])
        elif what == 8:
            with db.transaction():
                for _ in range(3):
                    self.step(db, True)
        elif what == 9:
            with pytest.raises(ZeroDivisionError), db.transaction():
                for _ in range(3):
                    self.step(db, True)
                raise ZeroDivisionError
        elif what == 10:
            db.compact()
        elif what == 11:
            db.snapshot("s")
        elif what == 12 and db.list_snapshots():
            db.restore("s")
            self.key += 100


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("seed", range(6))
def test_events_lead_to_the_table(tmp_path: Path, engine: str, backend_name: str, place: str, seed: int) -> None:
    told: list[dict[str, Any]] = []
    log = CDCLog(told.append, tmp_path / "log.jsonl")
    driver = Driver(seed)
    path = ":memory:" if place == "memory" else tmp_path / "t.snap"
    with SnapDB(path, SCHEMA, storage_type=engine, cdc=log) as db:
        for at in range(60):
            driver.step(db)
            if at % 20 == 19:
                db.checkpoint()
                assert repr(sorted(follow(log.replay()).items())) == repr(list(db))
        rows = list(db)
        assert repr(db.changes()) == repr(told)
        half = told[len(told) // 2]["lsn"]
        assert repr(db.changes(since=half)) == repr([event for event in told if event["lsn"] > half])
    assert repr(log.replay()) == repr(told)
    assert repr(sorted(follow(told).items())) == repr(rows)
    if place == "file":
        with SnapDB(path, cdc=CDCLog(told.append, tmp_path / "log.jsonl")) as db:
            db.insert(driver.row())
            assert repr(sorted(follow(told).items())) == repr(list(db))
        assert repr(log.replay()) == repr(told)


@pytest.mark.parametrize("seed", range(4))
def test_changes_are_read_from_the_log_of_a_file(tmp_path: Path, engine: str, backend_name: str, seed: int) -> None:
    driver = Driver(seed)
    with SnapDB(tmp_path / "t.snap", SCHEMA, storage_type=engine) as db:
        state: dict[int, Row] = {}
        seen = lost = 0
        for at in range(50):
            driver.step(db)
            if at % 7 == 0:
                db.checkpoint()
            try:
                events = db.changes(since=seen)
            except HistoryLostError:  # compact() makes more than one checkpoint
                lost += 1
                state, seen = dict(db), db.stats()["lsn"]
                continue
            for event in events:
                state = apply(state, event)
                seen = event["lsn"]
            assert repr(sorted(state.items())) == repr(list(db)), at
        assert lost < 12
        for _ in range(3):
            db.insert(driver.row())
            db.checkpoint()
        with pytest.raises(HistoryLostError) as problem:
            db.changes(since=seen)
        assert problem.value.oldest is not None and problem.value.oldest > seen + 1
        assert db.changes(since=problem.value.oldest - 1) == db.changes()
        assert db.changes(since=db.stats()["lsn"]) == []
        with pytest.raises(ValidationError, match="to come"):
            db.changes(since=db.stats()["lsn"] + 1)
        with pytest.raises(ValueTypeError):
            db.changes(since="1")  # type: ignore[arg-type]
        with db.transaction(), pytest.raises(TransactionError):
            db.changes()
    with SnapDB(tmp_path / "t.snap") as db:
        assert db.changes() == []
        with pytest.raises(HistoryLostError):
            db.changes(since=1)


def test_a_read_only_handle_reads_the_log(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "t.snap"
    code = (
        "import sys, os; from snapdb import *\n"
        "db = SnapDB(sys.argv[1], Schema([ColumnDef('id', 'i64')]), storage_type=sys.argv[2])\n"
        "db.insert({'id': 1}); db.update(0, {'id': 2}); db.flush(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), engine], check=True)
    with SnapDB(path, read_only=True) as db:
        events = db.changes()
        assert [(event["op"], event["row"], event["old"]) for event in events] == [
            ("insert", {"id": 1}, None), ("update", {"id": 2}, {"id": 1}),
        ]  # fmt: skip


def test_memory_begins_with_the_first_call(engine: str, backend_name: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        insert = db.insert
        insert({"id": 1, "v": None, "s": ""})
        assert db.changes() == []
        with pytest.raises(HistoryLostError):
            db.changes(since=0)
        insert({"id": 2, "v": None, "s": ""})
        assert [event["idx"] for event in db.changes()] == [1]
        for key in range(KEPT + 5):
            db.insert({"id": key + 10, "v": None, "s": ""})
        assert len(db.changes()) == KEPT
        with pytest.raises(HistoryLostError):
            db.changes(since=3)


def test_a_failing_callback_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    def callback(event: dict[str, Any]) -> None:
        told.append(event)
        event["row"]["id"] = "spoilt"
        raise RuntimeError("mine")

    log = CDCLog(callback, tmp_path / "log.jsonl")
    watched: list[Any] = []
    with SnapDB(":memory:", SCHEMA, cdc=log) as db:
        db.watch(None, watched.append)
        db.batch_insert([{"id": 1, "v": 1.0, "s": ""}, {"id": 2, "v": 1.0, "s": ""}])
    assert len(told) == 2 and len(watched) == 2 and "mine" in caplog.text
    assert [event["row"]["id"] for event in log.replay()] == [1, 2]
    assert [row["id"] for _, row in watched[1].added] == [1, 2]


def test_a_callback_may_write(tmp_path: Path, engine: str) -> None:
    order: list[int] = []

    def callback(event: dict[str, Any]) -> None:
        order.append(event["row"]["id"])
        if event["row"]["id"] < 5:
            db.insert({"id": event["row"]["id"] + 1, "v": None, "s": ""})

    with SnapDB(tmp_path / "t.snap", SCHEMA, storage_type=engine, cdc=CDCLog(callback)) as db:
        db.insert({"id": 1, "v": None, "s": ""})
        assert order == [1, 2, 3, 4, 5]
        with db.transaction():
            db.insert({"id": 100, "v": None, "s": ""})
            assert order[-1] == 5
        assert order[-1] == 100


def test_many_threads_are_told_in_order(tmp_path: Path, engine: str) -> None:
    told: list[dict[str, Any]] = []
    with SnapDB(tmp_path / "t.snap", SCHEMA, storage_type=engine, cdc=CDCLog(told.append)) as db:

        def work(base: int) -> None:
            for at in range(100):
                idx = db.insert({"id": base + at, "v": None, "s": ""})
                db.update(idx, {"v": 1.0})

        threads = [threading.Thread(target=work, args=(base * 1000,)) for base in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [event["lsn"] for event in told] == sorted({event["lsn"] for event in told})
        assert len(told) == 1200
        assert sorted(follow(told).items()) == list(db)


# -- the file --------------------------------------------------------------------
def test_what_no_log_saw_is_a_gap(tmp_path: Path) -> None:
    path, name = tmp_path / "t.snap", tmp_path / "log.jsonl"
    with SnapDB(path, SCHEMA, cdc=CDCLog(log_file=name)) as db:
        db.insert({"id": 1, "v": None, "s": ""})
    with SnapDB(path) as db:
        db.insert({"id": 2, "v": None, "s": ""})
    log = CDCLog(log_file=name)
    with SnapDB(path, cdc=log) as db:
        db.insert({"id": 3, "v": None, "s": ""})
        events = log.replay()
        assert [event["op"] for event in events] == ["insert", "gap", "insert"]
        gap = events[1]
        assert events[0]["lsn"] <= gap["since"] < gap["lsn"] < events[2]["lsn"]
        assert [event["row"]["id"] for event in db.changes()] == [3]
        with pytest.raises(HistoryLostError):
            db.changes(since=events[0]["lsn"])
    with SnapDB(path, cdc=CDCLog(log_file=tmp_path / "other.jsonl")) as db:
        assert [event["op"] for event in db._cdc.replay()] == ["gap"]  # type: ignore[union-attr]


def test_another_database_does_not_cut_a_log(tmp_path: Path) -> None:
    name = tmp_path / "log.jsonl"
    for at in range(2):
        with SnapDB(tmp_path / f"{at}.snap", SCHEMA, cdc=CDCLog(log_file=name)) as db:
            db.insert({"id": at, "v": None, "s": ""})
    assert [event["row"]["id"] for event in CDCLog(log_file=name).replay()] == [0, 1]


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    for text in ("hello\n", "hello", "[1]\n", '{"a": 1}\n'):
        (tmp_path / "x").write_text(text)
        with pytest.raises(ValidationError, match="not a change log"):
            CDCLog(log_file=tmp_path / "x")
        assert (tmp_path / "x").read_text() == text
    with pytest.raises(FileNotFoundError):
        CDCLog(log_file=tmp_path / "no" / "x")
    with pytest.raises(ValueTypeError):
        CDCLog(log_file=3)  # type: ignore[arg-type]
    with pytest.raises(ValueTypeError):
        CDCLog("callback")  # type: ignore[arg-type]
    with pytest.raises(ValueTypeError, match="CDCLog"):
        SnapDB(":memory:", SCHEMA, cdc=print)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        SnapDB(tmp_path / "t", SCHEMA, cdc=CDCLog(), read_only=True)


def test_a_handle_that_goes_late_leaves_the_log_alone(tmp_path: Path) -> None:
    log = CDCLog(log_file=tmp_path / "log.jsonl")
    db = SnapDB(tmp_path / "a", SCHEMA, cdc=log)
    db.close()
    other = SnapDB(tmp_path / "a", cdc=log)
    del db
    other.insert({"id": 1, "v": None, "s": ""})
    other.close()
    assert len(log.replay()) == 1


def test_one_log_one_database(tmp_path: Path) -> None:
    log = CDCLog(log_file=tmp_path / "log.jsonl")
    with SnapDB(tmp_path / "a", SCHEMA, cdc=log):
        with pytest.raises(ValidationError, match="belongs to a database"):
            SnapDB(tmp_path / "b", SCHEMA, cdc=log)
        with pytest.raises(LockedError):
            SnapDB(tmp_path / "a", cdc=CDCLog())
    with SnapDB(tmp_path / "a", cdc=log) as db:
        db.insert({"id": 1, "v": None, "s": ""})
    log.close()
    assert len(log.replay()) == 1
    with pytest.raises(ClosedError):
        SnapDB(tmp_path / "a", cdc=log)
    with pytest.raises(ClosedError):
        log.append("insert", 0)


def test_events_by_hand(tmp_path: Path) -> None:
    told: list[Any] = []
    log = CDCLog(told.append, tmp_path / "log.jsonl")
    log.append("update", 3, {"a": 1}, {"a": 0})
    (event,) = log.replay()
    assert (event["op"], event["idx"], event["row"], event["old"]) == ("update", 3, {"a": 1}, {"a": 0})
    assert told == [event]
    with pytest.raises(ValidationError):
        log.append("replace", 3)


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    name = tmp_path / "log.jsonl"
    log = CDCLog(log_file=name)
    log.append("insert", 0, {"a": 1})
    log.append("insert", 1, {"a": 1})
    log.close()
    data = name.read_bytes()
    name.write_bytes(data + b'{"op": "ins')  # torn
    assert len(CDCLog(log_file=name).replay()) == 2
    second = data.index(b"\n") + 1
    name.write_bytes(data[:second] + b"X" + data[second + 1 :])
    with pytest.raises(CorruptionError) as problem:
        CDCLog(log_file=name).replay()
    assert problem.value.offset == second


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.uuids()
    | st.decimals()
    | st.datetimes(timezones=st.sampled_from([None, dt.timezone.utc])).map(lambda it: it.replace(fold=0)),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4) | st.sampled_from(["$bytes", "$object", "$float", "$x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_lines_hold_every_value(row: Row) -> None:
    event = {"op": "insert", "idx": 1, "row": row, "old": None, "ts": 1.5, "lsn": 3, "tx": 2}
    data = line(event)
    assert data.endswith(b"\n") and data.count(b"\n") == 1
    json.loads(data, parse_constant=lambda name: pytest.fail(name))
    assert repr(unline(data)) == repr(event)


# -- crashes -----------------------------------------------------------------------
WRITER = """
import random, sys
from snapdb import *
from test_cdc import SCHEMA, Driver
path, log, engine, level, seed = sys.argv[1:]
db = SnapDB(path, SCHEMA, storage_type=engine, durability=level, cdc=CDCLog(log_file=log))
driver = Driver(int(seed)); driver.key = int(seed) * 1_000_000
sys.stdout.write("R"); sys.stdout.flush()
while True:
    what = driver.random.randrange(20)
    if what < 9: db.insert(driver.row())
    elif what == 9: db.checkpoint()
    else: driver.step(db)
"""


@pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes")
@pytest.mark.parametrize("level", ["normal", "full", "none"])
def test_killed_writers_leave_log_and_table_that_agree(tmp_path: Path, level: str) -> None:
    path, name = tmp_path / "t.snap", tmp_path / "log.jsonl"
    wait = random.Random(level)
    for seed in range(1, 1 + max(3, KILLS // 12)):
        arguments = [str(path), str(name), "row", level, str(seed)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        assert writer.stdout is not None and writer.stdout.read(1) == b"R"
        threading.Event().wait(wait.random() * 0.3)
        writer.kill()
        writer.communicate()
        log = CDCLog(log_file=name)
        with SnapDB(path, cdc=log) as db:
            events = log.replay()
            assert all(event["op"] != "gap" for event in events)
            assert repr(sorted(follow(events).items())) == repr(list(db))


@pytest.mark.parametrize("seed", range(3))
def test_any_tail_of_the_file_may_be_lost_or_too_much(tmp_path: Path, engine: str, seed: int) -> None:
    """The log's file is cut anywhere behind the last checkpoint, or has what the database lost: opening mends it."""
    driver = Driver(seed)
    before = RecordingLayer()
    with using(before):
        log = CDCLog(log_file="/log")
        db = SnapDB("/t", SCHEMA, storage_type=engine, cdc=log)
        for _ in range(12):
            driver.step(db)
        db.checkpoint()
        for _ in range(12):
            driver.step(db)
        db.flush()
        rows = list(db)
        assert db._file is not None and db._file._logged is not None
        kept = db._file._logged["at"]  # as of the last checkpoint
        whole = before.open("/log", "r")
        data = whole.pread(whole.size(), 0)
        files = {one: _content(before, one) for one in ("/t", "/t-wal0", "/t-wal1") if before.exists(one)}
        expected = log.replay()
        db.close()
    cuts = sorted({kept, len(data), *(driver.random.randrange(kept, len(data) + 1) for _ in range(12))})
    extra = line({"op": "insert", "idx": 9999, "row": {"id": 1}, "old": None, "ts": 0, "lsn": 10**6, "tx": 10**6})
    for content in [*(data[:cut] for cut in cuts), data + extra, data[:-1] + b"\n" + extra[:-4]]:
        after = RecordingLayer()
        for name, bytes_ in {**files, "/log": content}.items():
            file = after.open(name, "x")
            file.pwrite(bytes_, 0)
            file.close()
        with using(after):
            told: list[Any] = []
            again = CDCLog(told.append, "/log")
            with SnapDB("/t", cdc=again) as db:
                assert list(map(repr, db)) == list(map(repr, rows))
                found = again.replay()
                assert [{**event, "ts": 0} for event in map(repr_row, found)] == [
                    {**event, "ts": 0} for event in map(repr_row, expected)
                ]
                db.insert(driver.row())
                assert repr(sorted(follow(again.replay()).items())) == repr(list(db))


def repr_row(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "row": repr(event["row"]), "old": repr(event["old"])}


def _content(layer: Any, name: str) -> bytes:
    file = layer.open(name, "r")
    data: bytes = file.pread(file.size(), 0)
    file.close()
    return data


def test_a_log_that_cannot_be_written_holds_up_the_checkpoint(
    tmp_path: Path, engine: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CDCLog(log_file=tmp_path / "log.jsonl")
    with SnapDB(tmp_path / "t.snap", SCHEMA, storage_type=engine, cdc=log) as db:
        db.insert({"id": 1, "v": None, "s": ""})
        assert log.file is not None
        file = log.file._file
        real = file.pwrite
        monkeypatch.setattr(file, "pwrite", lambda *_: (_ for _ in ()).throw(failure(28)), raising=False)
        for key in range(2, 6):
            db.insert({"id": key, "v": None, "s": ""})
        assert "cannot be written" in caplog.text
        with pytest.raises(StorageError, match="change log"):
            db.checkpoint()
        monkeypatch.setattr(file, "pwrite", real)
        db.insert({"id": 6, "v": None, "s": ""})
        db.checkpoint()
        assert [event["row"]["id"] for event in log.replay()] == [1, 2, 3, 4, 5, 6]


def test_repair_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "t.snap"
    log = CDCLog(log_file=tmp_path / "log.jsonl")
    with SnapDB(path, SCHEMA, cdc=log) as db:
        db.batch_insert([{"id": key, "v": None, "s": "x" * 50} for key in range(5000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with SnapDB(path, cdc=log) as db:
        if db.repair()["lost"]:
            assert log.replay()[-1]["op"] == "gap"
        db.insert({"id": 10_000, "v": None, "s": ""})
        assert log.replay()[-1]["row"]["id"] == 10_000


def test_documents_are_told_as_documents(tmp_path: Path) -> None:
    told: list[Any] = []
    log = CDCLog(told.append, tmp_path / "log.jsonl")
    with DocumentStore(tmp_path / "d.snap", cdc=log) as store:
        store.create_index("a")
        idx = store.insert({"a": [1, {"b": None}], "d": dt.datetime(2026, 1, 1), "u": b"\0"})
        store.update_one({}, {"$set": {"a": 2}})
        store.delete(idx)
        store.insert({"z": 1})
    assert [(event["op"], event["idx"]) for event in told] == [
        ("insert", 0), ("update", 0), ("delete", 0), ("insert", 1),
    ]  # fmt: skip
    assert told[0]["row"] == {"a": [1, {"b": None}], "d": dt.datetime(2026, 1, 1), "u": b"\0"}
    assert told[1]["old"] == told[0]["row"] and told[1]["row"]["a"] == 2
    assert told[2]["old"] == told[1]["row"] and told[2]["row"] is None
    assert log.replay() == told
