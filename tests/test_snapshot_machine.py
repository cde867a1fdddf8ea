"""Snapshots and copies of a plain model side by side, driven by Hypothesis: whatever is done to a table, its snapshots
and the databases that were opened from them, each shows what its own copy says.
"""

from __future__ import annotations

import copy
import random
from contextlib import ExitStack
from typing import Any, Optional

import pytest
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
from model import Model, bits

from snapdb import ColumnDef, Schema, SnapDB, _ext, errors
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

SCHEMA = Schema(
    [
        ColumnDef("key", "i32", primary_key=True),
        ColumnDef("n", "i64", not_null=False),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("b", "bytes:6"),
        ColumnDef("mail", "str", unique=True, not_null=False),
    ]
)
NAMES = ("a", "b", "é c", "d")

values = {
    "n": st.one_of(st.none(), st.integers(-5, 5), st.just(2**40)),
    "f": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("nan"), 1e300])),
    "s": st.one_of(st.none(), st.text("aé\0", max_size=12), st.sampled_from(["x" * 900, "y" * 3000])),
    "b": st.text("ab", max_size=6),
    "mail": st.one_of(st.none(), st.integers(0, 60).map(lambda i: f"m{i}")),
}
rows = st.fixed_dictionaries({"key": st.integers(-40, 60), **values})
changes = st.fixed_dictionaries({}, optional={"key": st.integers(-40, 60), **values})
names = st.sampled_from(NAMES)
Found = dict[str, list[int]]


def first_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "key": i - count + 20, "n": draw.choice((None, i, 7)), "f": draw.choice((None, 0.5, -0.0, i / 3)),
            "s": draw.choice((None, "", f"text {i % 9}")), "b": draw.choice(("", "abcdef")),
            "mail": None if i % 5 else f"first{i}",
        }
        for i in range(count)
    ]  # fmt: skip


class State:
    """A database, its model and its generation of row ids."""

    def __init__(self, db: SnapDB, model: Model, generation: int) -> None:
        self.db = db
        self.model = model
        self.generation = generation


class Kept:
    """What a snapshot should show."""

    def __init__(self, state: State) -> None:
        self.model = copied(state.model)
        self.generation = state.generation


def copied(model: Model) -> Model:
    made = copy.copy(model)
    made.rows = dict(model.rows)
    return made


def difference(a: Kept, b: Kept) -> Found:
    """What ``diff_snapshots`` should say, found row by row."""
    one: dict[Any, tuple[int, Any]] = {}
    other: dict[Any, tuple[int, Any]] = {}
    for kept, found in ((a, one), (b, other)):
        for idx, row in kept.model.rows.items():
            found[idx if a.generation == b.generation else row["key"]] = (idx, bits(row))
    return {
        "added": sorted(idx for key, (idx, _) in other.items() if key not in one),
        "changed": sorted(idx for key, (idx, row) in other.items() if key in one and one[key][1] != row),
        "removed": sorted(idx for key, (idx, _) in one.items() if key not in other),
    }


class Histories(RuleBasedStateMachine):
    """Subclasses say ``engine`` and ``backend``."""

    engine = "row"
    backend = "python"

    def made(self) -> SnapDB:
        return SnapDB(":memory:", SCHEMA, storage_type=self.engine, page_size=512)

    @initialize(count=st.sampled_from([1100, 12, 0, 2050]), seed=st.integers(0, 99))
    def start(self, count: int, seed: int) -> None:
        self.live = State(self.made(), Model(SCHEMA), 0)
        self.last_generation = 0
        self.kept: dict[str, Kept] = {}
        self.opened: list[tuple[str, State]] = []
        self.iterators: list[tuple[Any, list[Any]]] = []
        first = first_rows(count, seed)
        assert self.live.db.batch_insert(first) == self.live.model.batch_insert(first)

    def teardown(self) -> None:
        if hasattr(self, "live"):
            for name in self.kept:
                shown = self.live.db.open_snapshot(name)
                check(State(shown, self.kept[name].model, 0))
                shown.close()
            for items, expected in self.iterators:
                assert bits(list(items)) == bits(expected)
            for _, state in [("", self.live), *self.opened]:
                check(state)
                state.db.close()

    def state(self, data: Any) -> State:
        """The live table or one of those that were opened."""
        states = [self.live, *(state for _, state in self.opened)]
        return states[data.draw(st.integers(0, len(states) - 1))]

    def in_use(self, name: Optional[str] = None) -> bool:
        return any(name in (None, used) for used, _ in self.opened)

    # -- writes ----------------------------------------------------------------
    @rule(data=st.data(), row=rows)
    def insert(self, data: Any, row: dict[str, Any]) -> None:
        state = self.state(data)
        if state.model.taken(row):
            with pytest.raises(errors.UniqueError):
                state.db.insert(row)
        else:
            assert state.db.insert(row) == state.model.insert(row)

    @rule(data=st.data(), start=st.integers(100, 10**6), count=st.sampled_from([3, 40, 1030]))
    def insert_many(self, data: Any, start: int, count: int) -> None:
        state = self.state(data)
        batch = [{"key": start + i, "n": i, "f": None, "s": "many", "b": "", "mail": None} for i in range(count)]
        held = {row["key"] for row in state.model.rows.values()}
        if held.isdisjoint(row["key"] for row in batch):
            assert state.db.batch_insert(batch) == state.model.batch_insert(batch)

    @rule(data=st.data(), changed=changes, count=st.integers(1, 5))
    def update(self, data: Any, changed: dict[str, Any], count: int) -> None:
        state = self.state(data)
        ids = list(state.model.rows)
        for idx in data.draw(st.lists(st.sampled_from(ids), max_size=count, unique=True)) if ids else ():
            if state.model.taken({**changed}, idx):
                with pytest.raises(errors.UniqueError):
                    state.db.update(idx, changed)
            else:
                state.db.update(idx, changed)
                state.model.update(idx, changed)

    @rule(data=st.data(), low=st.integers(-1000, 60), width=st.sampled_from([1, 30, 400]), text=values["s"])
    def update_some(self, data: Any, low: int, width: int, text: Any) -> None:
        state = self.state(data)
        where = [("key", "between", (low, low + width))]
        assert state.db.batch_update(where, {"s": text}) == state.model.batch_update(where, {"s": text})

    @rule(data=st.data(), low=st.integers(-1000, 60), width=st.sampled_from([1, 30, 400]))
    def delete_some(self, data: Any, low: int, width: int) -> None:
        state = self.state(data)
        where = [("key", "between", (low, low + width))]
        assert state.db.delete_where(where) == state.model.delete_where(where)

    @rule(data=st.data(), low=st.integers(-1000, 60), row=rows)
    def take_back(self, data: Any, low: int, row: dict[str, Any]) -> None:
        state = self.state(data)
        with pytest.raises(ZeroDivisionError), state.db.transaction():
            state.db.batch_update([("key", "gt", low)], {"s": "taken back", "f": -1.0})
            state.db.delete_where([("key", "lt", low)])
            if not state.model.taken(row):
                state.db.upsert(row)
            raise ZeroDivisionError

    @rule(data=st.data())
    def compact(self, data: Any) -> None:
        state = self.state(data)
        if state is self.live and self.in_use():
            with pytest.raises(errors.SnapshotInUseError):
                state.db.compact()
            return
        state.db.compact()
        state.model.compact()
        if state is self.live:
            self.last_generation += 1
            state.generation = self.last_generation

    @precondition(lambda self: len(self.iterators) < 3)
    @rule(data=st.data())
    def iterate(self, data: Any) -> None:
        state = self.state(data)
        self.iterators.append((iter(state.db), state.model.items()))

    # -- snapshots -------------------------------------------------------------
    @rule(name=names)
    def snapshot(self, name: str) -> None:
        if self.in_use(name):
            with pytest.raises(errors.SnapshotInUseError):
                self.live.db.snapshot(name)
            return
        assert self.live.db.snapshot(name) == name
        self.kept.pop(name, None)
        self.kept[name] = Kept(self.live)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def restore(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.live.db.restore(name)
        self.live.model, self.live.generation = copied(self.kept[name].model), self.kept[name].generation

    @rule(name=names)
    def drop(self, name: str) -> None:
        if name not in self.kept:
            with pytest.raises(errors.NotFoundError):
                self.live.db.drop_snapshot(name)
        elif self.in_use(name):
            with pytest.raises(errors.SnapshotInUseError):
                self.live.db.drop_snapshot(name)
        else:
            self.live.db.drop_snapshot(name)
            del self.kept[name]

    @precondition(lambda self: self.kept and len(self.opened) < 2)
    @rule(data=st.data())
    def open(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        state = State(self.live.db.open_snapshot(name), copied(self.kept[name].model), 0)
        self.opened.append((name, state))

    @precondition(lambda self: self.opened)
    @rule(data=st.data(), dropped=st.booleans())
    def close(self, data: Any, dropped: bool) -> None:
        _, state = self.opened.pop(data.draw(st.integers(0, len(self.opened) - 1)))
        check(state)
        if not dropped:
            state.db.close()

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def diff(self, data: Any) -> None:
        a, b = (data.draw(st.sampled_from(sorted(self.kept))) for _ in range(2))
        assert self.live.db.diff_snapshots(a, b) == difference(self.kept[a], self.kept[b])

    # -- always ----------------------------------------------------------------
    @invariant()
    def same(self) -> None:
        if hasattr(self, "live"):
            listed = self.live.db.list_snapshots()
            assert [found["name"] for found in listed] == list(reversed(self.kept))
            assert [found["rows"] for found in listed] == [
                len(kept.model.rows) for kept in reversed(self.kept.values())
            ]
            for _, state in [("", self.live), *self.opened]:
                assert len(state.db) == len(state.model.rows)
                for idx in {0, state.model.positions // 2, state.model.positions - 1, state.model.positions}:
                    assert bits(state.db.get(idx)) == bits(state.model.rows.get(idx))


class FileHistories(Histories):
    """The same in a file, which is closed, killed and opened again; ``sealed``: with a key."""

    sealed = False

    def made(self) -> SnapDB:
        self.stack = ExitStack()
        self.layer = RecordingLayer(record=False, maps=True)
        self.stack.enter_context(using(self.layer))
        self.options: dict[str, Any] = {"encryption_key": b"k" * 32} if self.sealed else {}
        return SnapDB("t.snapdb", SCHEMA, storage_type=self.engine, page_size=512, **self.options)

    def teardown(self) -> None:
        if not hasattr(self, "live"):
            return
        try:
            for a in self.kept:
                for b in self.kept:
                    assert self.live.db.diff_snapshots(a, b) == difference(self.kept[a], self.kept[b])
            super().teardown()
            with SnapDB("t.snapdb", read_only=True, **self.options) as shown:
                check(State(shown, self.live.model, 0))
                assert [found["name"] for found in shown.list_snapshots()] == list(reversed(self.kept))
        finally:
            self.live.db._abandon()
            self.stack.close()

    def settle(self) -> None:
        """Nobody has anything of the table but its handle."""
        for items, expected in self.iterators:
            assert bits(list(items)) == bits(expected)
        for _, state in self.opened:
            check(state)
            state.db.close()
        self.iterators, self.opened = [], []

    @rule()
    def checkpoint(self) -> None:
        self.live.db.checkpoint()

    @rule()
    def locked(self) -> None:
        with pytest.raises(errors.LockedError):
            SnapDB("t.snapdb", **self.options)

    @rule(killed=st.booleans(), read_only=st.booleans())
    def reopen(self, killed: bool, read_only: bool) -> None:
        self.settle()
        if killed:
            self.live.db._abandon()
        else:
            self.live.db.close()
        if read_only:  # what only the log has is shown too
            with SnapDB("t.snapdb", read_only=True, **self.options) as shown:
                check(State(shown, self.live.model, 0))
                for a, b in zip(self.kept, list(self.kept)[1:]):
                    assert shown.diff_snapshots(a, b) == difference(self.kept[a], self.kept[b])
        self.live.db = SnapDB("t.snapdb", **self.options)

    @precondition(lambda self: self.opened)
    @rule()
    def outlive(self) -> None:
        """Opened snapshots stay when their table is closed, and so does its lock."""
        self.live.db.close()
        with pytest.raises(errors.LockedError):
            SnapDB("t.snapdb", **self.options)
        self.settle()
        self.live.db = SnapDB("t.snapdb", **self.options)


def check(state: State) -> None:
    db, model = state.db, state.model
    assert bits(list(db)) == bits(model.items())
    assert db.aggregate("n", "sum") == model.aggregate("n", "sum")
    assert db.fsck()["ok"]
    where = [("s", "eq", "many")]
    assert db.count_where(where) == len(model.ids(where))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["row", "columnar"])
@pytest.mark.parametrize("backend", _ext.available())
def test_snapshots_against_copies(engine: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "BACKEND", backend)
    kind = type("Histories", (Histories,), {"engine": engine, "backend": backend})
    run_state_machine_as_test(kind, settings=settings(max_examples=12, stateful_step_count=30))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["row", "columnar"])
@pytest.mark.parametrize("backend", _ext.available())
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_snapshots_of_files_against_copies(
    engine: str, backend: str, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sealed:
        pytest.importorskip("cryptography")
    monkeypatch.setattr(_ext, "BACKEND", backend)
    kind = type("FileHistories", (FileHistories,), {"engine": engine, "backend": backend, "sealed": sealed})
    examples = 8 if backend == _ext.available()[0] and not sealed else 4
    run_state_machine_as_test(kind, settings=settings(max_examples=examples, stateful_step_count=30))
