"""Indexes of a table: against a model, through every kind of write, rolled back, compacted and reopened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

from snapdb import ColumnDef, Schema, SnapDB, _ext, errors
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

SCHEMA = Schema(
    [
        ColumnDef("key", "i32", primary_key=True),
        ColumnDef("n", "i64", not_null=False),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("mail", "str", unique=True, not_null=False),
    ]
)
COLUMNS = [column.name for column in SCHEMA]
VALUES = {
    "n": st.one_of(st.none(), st.integers(-4, 4), st.just(2**40)),
    "f": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("nan"), -1e300])),
    "s": st.one_of(st.none(), st.sampled_from(["", "a", "ab", "abcdefgh", "abcdefghi", "abcdefgh\0", "é"])),
    "mail": st.one_of(st.none(), st.integers(0, 30).map(lambda i: f"mail number {i}")),
}
ROWS = st.fixed_dictionaries({"key": st.integers(-20, 40), **VALUES})
CHANGES = st.fixed_dictionaries({}, optional={"key": st.integers(-20, 40), **VALUES})
WRITES = ["insert", "update", "delete"]
Row = dict[str, Any]


def _key(row: Row) -> Any:
    return row["key"]


def _mail(row: Row) -> Any:
    """What no two rows may share."""
    return row["mail"] or row["key"]


class Back(Exception):
    """Rolls a transaction back."""


def unlike(one: Any, other: Any) -> bool:
    return one is None or other is None or one != other


def in_order(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


class Machine(RuleBasedStateMachine):
    """``rows``: what the table must hold, by id; ``before``: what a transaction began with."""

    engine = "row"

    def __init__(self) -> None:
        super().__init__()
        self.layer = RecordingLayer()
        self.rows: dict[int, Row] = {}
        self.next = 0
        self.hash: list[str] = []
        self.range: list[str] = []
        self.open()

    def open(self) -> None:
        with using(self.layer):
            self.db = SnapDB("t.snapdb", SCHEMA, storage_type=self.engine, durability="none")

    # -- what may be written -----------------------------------------------

    def taken(self, row: Row, *but: int) -> bool:
        return any(
            not unlike(row.get(name), other[name])
            for name in ("key", "mail") for idx, other in self.rows.items() if idx not in but
        )  # fmt: skip

    @contextmanager
    def expected(self, wrong: bool) -> Iterator[None]:
        if not wrong:
            yield
            return
        with pytest.raises(errors.UniqueError):
            yield

    def insert_rows(self, rows: list[Row]) -> None:
        for row in rows:
            self.rows[self.next] = {name: row[name] for name in COLUMNS}
            self.next += 1

    # -- rules ---------------------------------------------------------------

    @initialize(rows=st.lists(ROWS, max_size=6, unique_by=(_key, _mail)))
    def begin(self, rows: list[Row]) -> None:
        self.db.batch_insert(rows)
        self.insert_rows(rows)

    @rule(row=ROWS)
    def insert(self, row: Row) -> None:
        wrong = self.taken(row)
        with self.expected(wrong):
            assert self.db.insert(row) == self.next
        if not wrong:
            self.insert_rows([row])

    @rule(rows=st.lists(ROWS, max_size=5), columns=st.booleans())
    def batch(self, rows: list[Row], columns: bool) -> None:
        wrong = any(self.taken(row) for row in rows) or any(
            not unlike(a[name], b[name]) for i, a in enumerate(rows) for b in rows[:i] for name in ("key", "mail")
        )
        with self.expected(wrong):
            if columns:
                self.db.insert_columns({name: [row[name] for row in rows] for name in COLUMNS})
            else:
                self.db.batch_insert(rows)
        if not wrong:
            self.insert_rows(rows)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), change=CHANGES)
    def update(self, data: st.DataObject, change: Row) -> None:
        idx = data.draw(st.sampled_from(sorted(self.rows)))
        wrong = self.taken(change, idx)
        with self.expected(wrong):
            self.db.update(idx, change)
        if not wrong:
            self.rows[idx] = {**self.rows[idx], **change}

    @rule(row=ROWS)
    def upsert(self, row: Row) -> None:
        idx = next((idx for idx, other in self.rows.items() if other["key"] == row["key"]), None)
        wrong = self.taken(row, *(() if idx is None else (idx,)))
        with self.expected(wrong):
            self.db.upsert(row)
        if not wrong and idx is None:
            self.insert_rows([row])
        elif not wrong and idx is not None:
            self.rows[idx] = {name: row[name] for name in COLUMNS}

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        idx = data.draw(st.sampled_from(sorted(self.rows)))
        self.db.delete(idx)
        del self.rows[idx]

    @rule(n=VALUES["n"], to=VALUES["s"])
    def batch_update(self, n: Optional[int], to: Optional[str]) -> None:
        chosen = [idx for idx, row in self.rows.items() if not unlike(row["n"], n)]
        assert self.db.batch_update({"n": n}, {"s": to}) == len(chosen)
        for idx in chosen:
            self.rows[idx] = {**self.rows[idx], "s": to}

    @rule(s=VALUES["s"])
    def delete_where(self, s: Optional[str]) -> None:
        chosen = [idx for idx, row in self.rows.items() if not unlike(row["s"], s)]
        assert self.db.delete_where({"s": s}) == len(chosen)
        for idx in chosen:
            del self.rows[idx]

    @rule(data=st.data(), keep=st.booleans(), writes=st.lists(st.sampled_from(WRITES), max_size=4))
    def transaction(self, data: st.DataObject, keep: bool, writes: list[str]) -> None:
        before = dict(self.rows), self.next
        try:
            with self.db.transaction():
                for what in writes:
                    if what == "insert":
                        self.insert(data.draw(ROWS))
                    elif self.rows and what == "delete":
                        self.delete(data)
                    elif self.rows:
                        self.update(data, data.draw(CHANGES))
                if not keep:
                    raise Back
        except Back:
            self.rows, self.next = before

    @rule()
    def compact(self) -> None:
        self.db.compact()
        self.rows = dict(enumerate(self.rows[idx] for idx in sorted(self.rows)))
        self.next = len(self.rows)

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.open()
        assert self.db.indexes == self.hash

    @rule(name=st.sampled_from(COLUMNS), ordered=st.booleans())
    def index(self, name: str, ordered: bool) -> None:
        kind = self.range if ordered else self.hash
        if name in kind:
            (self.db.drop_range_index if ordered else self.db.drop_index)(name)
            kind.remove(name)
        else:
            (self.db.create_range_index if ordered else self.db.create_index)(name)
            kind.append(name)

    # -- what must hold -------------------------------------------------------

    @rule(name=st.sampled_from(COLUMNS), data=st.data())
    def reads(self, name: str, data: st.DataObject) -> None:
        value = data.draw(VALUES.get(name, st.integers(-20, 40)))
        found = [self.rows[idx] for idx in sorted(self.rows) if not unlike(self.rows[idx][name], value)]
        assert repr(self.db.find(**{name: value})) == repr(found)
        assert repr(self.db.lookup(name, value)) == repr(found[0] if found else None)
        assert self.db.count_where([(name, "in", [value])]) == len(found)

    @rule(name=st.sampled_from(COLUMNS), data=st.data(), ends=st.tuples(st.booleans(), st.booleans()))
    def ranges(self, name: str, data: st.DataObject, ends: tuple[bool, bool]) -> None:
        low, high = (data.draw(VALUES.get(name, st.integers(-20, 40))) for _ in range(2))
        if low != low or high != high:
            return  # what is not a number is refused elsewhere
        def within(value: Any) -> bool:
            if value is None or (value != value and not (low is None and high is None)):
                return False
            at = in_order(value)
            above = low is None or at > in_order(low) or (ends[0] and at == in_order(low))
            return above and (high is None or at < in_order(high) or (ends[1] and at == in_order(high)))

        found = [self.rows[idx] for idx in sorted(self.rows) if within(self.rows[idx][name])]
        found.sort(key=lambda row: (row[name] != row[name], 0 if row[name] != row[name] else in_order(row[name])))
        assert repr(self.db.range_find(name, low, high, *ends)) == repr(found)

    @invariant()
    def as_the_rows(self) -> None:
        assert list(self.db._indexes.verify()) == []
        assert repr(list(self.db)) == repr(sorted(self.rows.items()))

    def teardown(self) -> None:
        self.db.close()
        with using(self.layer), SnapDB("t.snapdb") as db:
            assert repr(list(db)) == repr(sorted(self.rows.items()))


def examples(backend: str) -> int:
    return 400 if backend == "c" else 100


def test_indexes_against_a_model(engine: str, backend_name: str) -> None:
    kind = type("Machine", (Machine,), {"engine": engine})
    run_state_machine_as_test(kind, settings=settings(max_examples=examples(backend_name), stateful_step_count=60))


def test_an_index_is_not_made_by_opening(tmp_path: Path, engine: str, backend_name: str) -> None:
    path = tmp_path / "t.snapdb"
    with SnapDB(path, SCHEMA, storage_type=engine) as db:
        db.batch_insert([{"key": i, "n": i % 7, "f": 0.5, "s": str(i), "mail": None} for i in range(3000)])
        db.create_index("n")
        db.create_range_index("key")
        assert db.find(n=3, s="10") == [db.get(10)]
    with SnapDB(path) as db:
        assert db.indexes == ["n"] and db._indexes.memory_usage() == 0
        assert repr(db).endswith("indexes=['n'])")
        assert db.find(key=17) == [db.get(17)] and db._indexes.memory_usage() > 0


def test_auto_index(engine: str, backend_name: str) -> None:
    db = SnapDB(":memory:", SCHEMA, storage_type=engine, auto_index=True, auto_index_threshold=3)
    db.batch_insert([{"key": i, "n": i, "f": None, "s": None, "mail": None} for i in range(50)])
    for i in range(2):
        assert db.find(n=i) == [db.get(i)]
    assert db.indexes == []
    assert db.lookup("n", 9) == db.get(9)
    assert db.indexes == ["n"]
    assert db.find(n=4) == [db.get(4)]


def test_what_cannot_be_indexed(engine: str, backend_name: str) -> None:
    db = SnapDB(":memory:", SCHEMA, storage_type=engine)
    with pytest.raises(errors.UnknownColumnError):
        db.create_index("nobody")
    with pytest.raises(errors.NotFoundError, match="no hash index"):
        db.drop_index("n")
    with db.transaction(), pytest.raises(errors.TransactionError):
        db.create_index("n")
    assert db.indexes == [] and _ext.BACKEND == backend_name
