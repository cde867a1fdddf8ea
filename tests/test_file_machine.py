"""A table in a file and a plain model side by side, driven by Hypothesis: writes of all kinds, transactions, openings,
killed processes, power cuts, checkpoints, compactions, backups and readers, in any order.

The file system is in memory and recorded, so that a power cut can leave any state of the disk that is legal.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import test_state_machine as memory
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import Model

from snapdb import Schema, SnapDB, tablefile
from snapdb.storage.files import using
from snapdb.testing.disk import Disk
from snapdb.testing.layers import RecordingLayer

PATH = "machine.snapdb"
LEVELS = ("full", "normal", "none")
ENDS = ("commit", "commit", "rollback", "close", "kill", "power cut")
WRITES = {"write", "truncate", "allocate", "create", "rename", "unlink"}


class Stop(Exception):
    """Raised to leave a transaction."""


class Past:
    """A state that the table went through."""

    def __init__(self, model: Model) -> None:
        self.positions = model.positions
        self.rows = dict(model.rows)

    def is_now(self, model: Model) -> bool:
        return self.positions == model.positions and self.rows == model.rows

    def shows(self, db: SnapDB) -> bool:
        """Whether the database holds this state."""
        figures = db.stats()
        if (figures["rows"], figures["rows"] + figures["deleted_rows"]) != (len(self.rows), self.positions):
            return False
        return memory.same(list(db), list(self.rows.items()))


class Lifecycle(RuleBasedStateMachine):
    """What happens to a file besides writes. Subclasses have the rules for these; each rule is one commit at most."""

    engine = "row"
    backend = "python"
    db: SnapDB
    model: Model
    open: list[Any]

    def make(self, schema: Schema, durability: str, maps: bool, **options: Any) -> None:
        self.maps = maps
        self.layer = self.new_layer({})
        self.disk = Disk()
        with using(self.layer):
            self.db = SnapDB(PATH, schema, storage_type=self.engine, durability=durability, **options)
        self.model = Model(schema)
        self.within = False
        self.open = []
        self.settled()

    def new_layer(self, contents: dict[str, bytes]) -> RecordingLayer:
        layer = RecordingLayer(contents, maps=self.maps)
        layer.threads = False  # what is flushed does not depend on the time
        return layer

    def reset(self, past: Past) -> None:
        self.model.positions, self.model.rows = past.positions, dict(past.rows)

    def settled(self) -> None:
        """Everything so far outlives the process and the power."""
        now = Past(self.model)
        self.after_kill, self.after_cut = [now], [now]

    def committed(self, transaction: bool = False) -> None:
        """A commit has returned."""
        now = Past(self.model)
        self.after_kill.append(now)
        self.after_cut.append(now)
        if self.db.durability != "none":
            self.after_kill = [now]
            if self.db.durability == "full" or transaction:
                self.after_cut = [now]

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        self.check_iterators()
        self.agrees(self.db, [Past(self.model)])
        self.db.close()
        with using(self.layer):
            with SnapDB(PATH) as self.db:
                self.agrees(self.db, [Past(self.model)])
        # after a power cut a name that was removed may be back
        assert not {f"{PATH}-wal0", f"{PATH}-wal1"} & set(self.layer.contents())

    def agrees(self, db: SnapDB, allowed: list[Past]) -> Past:
        """The database holds one of these states and is sound; which."""
        report = db.fsck()
        assert report["ok"], report
        for past in reversed(allowed):
            if past.shows(db):
                return past
        raise AssertionError(f"{len(list(db))} rows, not one of {[len(past.rows) for past in allowed]}")

    def check_iterators(self) -> None:
        for iterator, got, expected in self.open:
            got.extend(iterator)
            assert memory.same(got, expected)
        self.open.clear()

    # -- what a commit did ---------------------------------------------------
    @invariant()
    def note(self) -> None:
        """A rule that changed the table was a commit."""
        if hasattr(self, "after_kill") and not self.after_kill[-1].is_now(self.model):
            self.committed()

    # -- lifecycle -------------------------------------------------------------
    @rule(durability=st.sampled_from(LEVELS), mmap=st.booleans())
    def reopen(self, durability: str, mmap: bool) -> None:
        self.db.close()
        self.settled()
        with using(self.layer):
            self.db = SnapDB(PATH, durability=durability, mmap=mmap)
        self.agrees(self.db, self.after_kill)

    @rule(whole=st.booleans())
    def flush(self, whole: bool) -> None:
        (self.db.checkpoint if whole else self.db.flush)()
        self.settled()

    @rule(durability=st.sampled_from(LEVELS))
    def kill(self, durability: str) -> None:
        """The process dies, the system goes on."""
        self.follow()
        self.disk = self.disk.restarted()
        self.go_on(self.layer.contents(), durability, self.after_kill)

    @rule(durability=st.sampled_from(LEVELS), seed=st.integers(0, 999))
    def cut_power(self, durability: str, seed: int) -> None:
        """The system dies: any legal state of the disk."""
        self.follow()
        draw = random.Random(seed)
        states = list(self.disk.states(6, draw))
        contents = draw.choice(states[1:]).contents  # the first is that of a killed process
        self.disk = Disk(contents)
        self.go_on(contents, durability, self.after_cut)

    def follow(self) -> None:
        for op in self.layer.log:
            self.disk.step(op)
        self.layer.log.clear()

    def go_on(self, contents: dict[str, bytes], durability: str, allowed: list[Past]) -> None:
        self.db._abandon()
        self.layer = self.new_layer(contents)
        with using(self.layer):
            self.db = SnapDB(PATH, durability=durability)
        self.reset(self.agrees(self.db, allowed))
        # what recovery found it has put on stable storage, but for a log that needed no recovery
        self.settled()

    @rule()
    def back_up(self) -> None:
        with using(self.layer):
            if self.layer.exists("copy"):  # brought back by a power cut
                self.layer.unlink("copy")
            self.db.backup("copy")
            with SnapDB("copy") as copy:
                self.agrees(copy, [Past(self.model)])
            self.layer.unlink("copy")
        self.settled()  # it makes a checkpoint

    @rule(killed=st.booleans())
    def read_only(self, killed: bool) -> None:
        """A reader sees what is there, and writes nothing."""
        if not killed:
            self.db.flush()
            self.settled()
        layer = self.new_layer(self.layer.contents())
        with using(layer), SnapDB(PATH, read_only=True, schema=self.db.schema) as reader:
            self.agrees(reader, self.after_kill)
        assert [op for op in layer.log if op.kind in WRITES] == []

    @rule()
    def check(self) -> None:
        report = self.db.fsck()
        assert report["ok"], report

    # -- transactions ------------------------------------------------------------
    def write(self, data: Any) -> None:
        """One write of any kind."""
        raise NotImplementedError

    @rule(data=st.data(), steps=st.integers(0, 4), end=st.sampled_from(ENDS), seed=st.integers(0, 999))
    def transaction(self, data: Any, steps: int, end: str, seed: int) -> None:
        before = Past(self.model)
        if end in ("kill", "power cut"):
            endless = self.db.transaction()
            endless.__enter__()
            for _ in range(steps):
                self.write(data)
            self.reset(before)
            if end == "kill":
                self.kill(durability="normal")
            else:
                self.cut_power(durability="full", seed=seed)
            del endless  # it lived as long as its process
            return
        try:
            with self.db.transaction():
                for _ in range(steps):
                    self.write(data)
                if end == "close":
                    self.reset(before)
                    self.reopen(durability="normal", mmap=True)
                elif end == "rollback":
                    raise Stop
        except Stop:
            self.reset(before)
        if end == "commit":
            self.committed(transaction=True)


class SmallFiles(Lifecycle, memory.Tables):
    """A table with unique columns; batches are small. Writes and reads are those of the table in memory."""

    @initialize(
        hints=st.sampled_from([{}, {"dict_columns": ["s", "u"]}, {"delta_columns": ["key"], "for_columns": ["n"]}]),
        count=st.sampled_from([12, 300, 0, 1100]), seed=st.integers(0, 99), durability=st.sampled_from(LEVELS),
        maps=st.booleans(),
    )  # fmt: skip
    def start(self, hints: dict[str, Any], count: int, seed: int, durability: str, maps: bool) -> None:
        self.make(memory.SCHEMA, durability, maps, page_size=512, **hints)
        first = memory.first_rows(count, seed)
        assert self.db.batch_insert(first) == self.model.batch_insert(first)
        self.committed()

    def write(self, data: Any) -> None:
        kind = data.draw(st.sampled_from(["insert", "many", "update", "delete", "upsert", "where", "batch", "compact"]))
        if kind == "insert":
            self.insert(row=data.draw(memory.rows))
        elif kind == "many":
            self.insert_many(batch=data.draw(st.lists(memory.rows, max_size=6)), by_column=data.draw(st.booleans()))
        elif kind == "update":
            self.update(data=data, change=data.draw(memory.changes))
        elif kind == "delete":
            self.delete(data=data)
        elif kind == "upsert":
            self.upsert(row=data.draw(memory.rows))
        elif kind == "where":
            self.delete_where(where=data.draw(memory.wheres.filter(bool)), combine="and")
        elif kind == "batch":
            self.batch_update_by_callable(where=data.draw(memory.wheres))
        else:
            self.compact()


class LargeFiles(Lifecycle, memory.LargeTables):
    """No unique columns; batches across blocks and the sealing of the tail, some of them past the log."""

    sizes = st.sampled_from([1, 1023, 1025, 4000, 8193])

    @initialize(
        hints=st.sampled_from([{}, {"dict_columns": ["t", "n"], "delta_columns": ["id"], "for_columns": ["n"]}]),
        size=st.sampled_from((9300, 1100, 0)), kind=st.integers(0, 2), durability=st.sampled_from(LEVELS),
        maps=st.booleans(),
    )  # fmt: skip
    def start(self, hints: dict[str, Any], size: int, kind: int, durability: str, maps: bool) -> None:  # type: ignore[override]
        self.make(memory.LARGE, durability, maps, **hints)
        self.batch(size=size, seed=1, kind=kind, by_column=False)
        self.committed()

    @precondition(lambda self: self.model.positions < 30_000)
    @rule(size=sizes, seed=st.integers(0, 9), kind=st.integers(0, 2), by_column=st.booleans())
    def batch(self, size: int, seed: int, kind: int, by_column: bool) -> None:
        rows = memory.make_rows(size, seed, kind)
        if by_column:
            assert self.db.insert_columns({name: [row[name] for row in rows] for name in memory.LARGE.names}) == size
        else:
            assert self.db.batch_insert(rows) == size
        self.model.batch_insert(rows)

    # these are many commits
    @rule(count=st.sampled_from([3, 1100]), seed=st.integers(0, 9))
    def singles(self, count: int, seed: int) -> None:
        for row in memory.make_rows(count, seed, 1):
            assert self.db.insert(row) == self.model.insert(row)
            self.committed_one_of_many(count)

    @rule(seed=st.integers(0, 9), count=st.sampled_from([5, 300]))
    def updates(self, seed: int, count: int) -> None:
        draw = random.Random(seed)
        ids = list(self.model.rows)
        for idx in draw.sample(ids, min(count, len(ids))):
            change = {"n": draw.choice((None, idx % 1000, -idx)), "t": draw.choice((None, "short", "long " * 30))}
            self.db.update(idx, change)
            self.model.update(idx, change)
            self.committed_one_of_many(count)

    @rule(start=st.sampled_from([0, 1000, 8000]), length=st.sampled_from([1, 64, 600]))
    def delete_range(self, start: int, length: int) -> None:
        for idx in [idx for idx in range(start, start + length) if idx in self.model.rows]:
            self.db.delete(idx)
            self.model.delete(idx)
            self.committed_one_of_many(length)

    def committed_one_of_many(self, count: int) -> None:
        """Where each step is on stable storage at once there is no need to remember it."""
        if not self.within and self.db.durability != "full" and count < 1000:
            self.committed()
        elif not self.within:
            self.pending = True

    @invariant()
    def note(self) -> None:
        """After very many commits only the last is remembered, so it is flushed."""
        if getattr(self, "pending", False):
            self.pending = False
            self.db.flush()
            self.settled()
        super().note()

    def write(self, data: Any) -> None:
        self.within = True
        try:
            seed = data.draw(st.integers(0, 9))
            kind = data.draw(st.sampled_from(["batch", "singles", "updates", "update", "delete", "compact"]))
            if kind == "batch":
                self.batch(size=data.draw(self.sizes), seed=seed, kind=seed % 3, by_column=seed % 2 == 0)
            elif kind == "singles":
                self.singles(count=data.draw(st.sampled_from([3, 1100])), seed=seed)
            elif kind == "updates":
                self.updates(seed=seed, count=300)
            elif kind == "update":
                self.update_where(low=seed, span=20)
            elif kind == "delete":
                self.delete_where(value=seed * 9)
            else:
                self.compact()
        finally:
            self.within = False

    def compare(self) -> None:
        """Instead of what the table in memory is compared with at its end."""


EXAMPLES = {"c": (16, 10), "numpy": (4, 2), "python": (4, 2)}
LARGE_DOSE = 8  # times as many under `slow`


def run(kind: Any, engine: str, backend: str, examples: int, steps: int) -> None:
    machine = type(kind.__name__, (kind,), {"engine": engine, "backend": backend})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))


def test_small_files(engine: str, backend_name: str) -> None:
    run(SmallFiles, engine, backend_name, EXAMPLES[backend_name][0], 30)


def test_large_files(engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tablefile, "BULK", 60_000)
    run(LargeFiles, engine, backend_name, EXAMPLES[backend_name][1], 12)


@pytest.mark.long
def test_small_files_at_length(engine: str, backend_name: str) -> None:
    run(SmallFiles, engine, backend_name, LARGE_DOSE * EXAMPLES[backend_name][0], 50)


@pytest.mark.long
def test_large_files_at_length(engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tablefile, "BULK", 60_000)
    run(LargeFiles, engine, backend_name, LARGE_DOSE * EXAMPLES[backend_name][1], 20)
