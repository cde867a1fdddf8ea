"""SnapDB and a plain model side by side, driven by Hypothesis: whatever is done to both, both say the same."""

from __future__ import annotations

import math
import random
from typing import Any

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
from model import Model, bits, order

from snapdb import ColumnDef, Schema, SnapDB, errors

SCHEMA = Schema(
    [
        ColumnDef("key", "i32", primary_key=True),
        ColumnDef("n", "i64", not_null=False),
        ColumnDef("u", "u8"),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("g", "f32", not_null=False),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("b", "bytes:6"),
        ColumnDef("flag", "bool", not_null=False),
        ColumnDef("mail", "str", unique=True, not_null=False),
    ]
)
NAMES = list(SCHEMA.names)
OPS = ("eq", "ne", "gt", "gte", "lt", "lte")

keys = st.integers(-40, 40)
numbers = st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1), st.just(1000))
floats = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, -2.25, 0.1, 1e300]), st.floats(width=32), st.floats())
singles = st.one_of(st.none(), st.floats(width=32))
texts = st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", "\0", "zz"]), st.text(max_size=40))
shorts = st.one_of(st.sampled_from(["", "a", "ab", "abcdef", "a\0"]), st.text("aé", max_size=3))
flags = st.sampled_from([None, True, False])
mails = st.one_of(st.none(), st.integers(0, 200).map(lambda i: f"m{i}"))
values = {
    "n": numbers, "u": st.integers(0, 255), "f": floats, "g": singles, "s": texts, "b": shorts, "flag": flags,
    "mail": mails,
}  # fmt: skip
rows = st.fixed_dictionaries({"key": keys, **values})
changes = st.fixed_dictionaries({}, optional={"key": keys, **values})

real = st.one_of(st.integers(-10, 10), st.integers(-(2**70), 2**70), st.floats(), st.just(0.5), st.none())
text = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["", "a", "ab", b"ab", b"\xff"]))
CONSTANTS: dict[str, Any] = {
    "key": real,
    "n": real,
    "u": real,
    "f": real,
    "g": real,
    "s": text,
    "b": text,
    "flag": real,
    "mail": text,
}


@st.composite
def condition(draw: Any) -> tuple[str, str, Any]:
    column = draw(st.sampled_from(NAMES))
    op = draw(st.sampled_from([*OPS, "in", "between", "is_null", "not_null"]))
    if op == "in":
        return column, op, draw(st.lists(CONSTANTS[column], max_size=4))
    if op == "between":
        return column, op, (draw(CONSTANTS[column]), draw(CONSTANTS[column]))
    return column, op, draw(CONSTANTS[column])


wheres = st.lists(condition(), max_size=3)
combines = st.sampled_from(["and", "or"])


def halve(row: dict[str, Any]) -> dict[str, Any]:
    """An update that depends on the row."""
    return {"u": row["u"] // 2, "s": None if row["s"] is None else row["s"][:1]}


def first_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """What a table starts with, so that there are sealed blocks to write to. The last 20 keys can be met again."""
    draw = random.Random(seed)
    return [
        {
            "key": i - count + 20, "n": draw.choice((None, draw.randrange(-5, 6), 1000 + i)),
            "u": draw.randrange(0, 256, 5),
            "f": draw.choice((None, 0.0, -0.0, 1.5, draw.random(), math.nan)), "g": draw.choice((None, 0.5, -2.0)),
            "s": draw.choice((None, "", "a", "ab", "zz")), "b": draw.choice(("", "ab", "abcdef")),
            "flag": draw.choice((None, True, False)), "mail": None if i % 5 else f"first{i}",
        }
        for i in range(count)
    ]  # fmt: skip


class Tables(RuleBasedStateMachine):
    """Subclasses say ``engine`` and ``backend``; batches here are small."""

    engine = "row"
    backend = "python"

    @initialize(
        hints=st.sampled_from(
            [{}, {"dict_columns": ["s", "u"]}, {"delta_columns": ["key"], "for_columns": ["n", "u"]}]
        ),
        count=st.sampled_from([1100, 12, 0, 2050]), seed=st.integers(0, 99),
    )  # fmt: skip
    def start(self, hints: dict[str, Any], count: int, seed: int) -> None:
        self.db = SnapDB(":memory:", SCHEMA, storage_type=self.engine, page_size=512, **hints)
        self.model = Model(SCHEMA)
        self.open: list[Any] = []
        first = first_rows(count, seed)
        assert self.db.batch_insert(first) == self.model.batch_insert(first)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.check_open_iterators()
            self.db.close()

    # -- writes ------------------------------------------------------------
    @rule(row=rows)
    def insert(self, row: dict[str, Any]) -> None:
        if self.model.taken(row):
            with pytest.raises(errors.UniqueError):
                self.db.insert(row)
        else:
            assert self.db.insert(row) == self.model.insert(row)

    @rule(batch=st.lists(rows, max_size=12), by_column=st.booleans())
    def insert_many(self, batch: list[dict[str, Any]], by_column: bool) -> None:
        collide = any(self.model.taken(row) for row in batch)
        for name in ("key", "mail"):
            given = [row[name] for row in batch if row[name] is not None]
            collide = collide or len(set(given)) < len(given)

        def write() -> int:
            if by_column:
                return self.db.insert_columns({name: [row[name] for row in batch] for name in NAMES})
            return self.db.batch_insert(iter(batch))

        if collide:
            with pytest.raises(errors.UniqueError):
                write()
        else:
            assert write() == self.model.batch_insert(batch) == len(batch)

    @rule(data=st.data(), change=changes)
    def update(self, data: Any, change: dict[str, Any]) -> None:
        idx = data.draw(st.integers(-1, self.model.positions), "idx")
        if idx not in self.model.rows:
            with pytest.raises(errors.NotFoundError):
                self.db.update(idx, change)
        elif self.model.taken(change, idx):
            with pytest.raises(errors.UniqueError):
                self.db.update(idx, change)
        else:
            self.db.update(idx, change)
            self.model.update(idx, change)

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        idx = data.draw(st.integers(-1, self.model.positions), "idx")
        if idx in self.model.rows:
            self.db.delete(idx)
            self.model.delete(idx)
        else:
            with pytest.raises(KeyError):
                self.db.delete(idx)

    @rule(row=rows)
    def upsert(self, row: dict[str, Any]) -> None:
        if self.model.taken(row, self.model.find_key(row["key"])):
            with pytest.raises(errors.UniqueError):
                self.db.upsert(row)
        else:
            assert self.db.upsert(row) == self.model.upsert(row)

    @rule(where=wheres.filter(bool), combine=combines)
    def delete_where(self, where: Any, combine: str) -> None:
        assert self.db.delete_where(where, combine) == self.model.delete_where(where, combine)

    @rule(
        where=wheres,
        change=st.fixed_dictionaries({}, optional={name: values[name] for name in values if name != "mail"}),
    )
    def batch_update(self, where: Any, change: dict[str, Any]) -> None:
        assert self.db.batch_update(where, change) == self.model.batch_update(where, change)

    @rule(where=wheres)
    def batch_update_by_callable(self, where: Any) -> None:
        assert self.db.batch_update(where, halve) == self.model.batch_update(where, halve)

    @precondition(lambda self: self.model.rows)
    @rule(
        where=wheres,
        bad=st.sampled_from([{"u": 256}, {"n": 2**63}, {"f": "1"}, {"s": 5}, {"b": "1234567"}, {"u": None}, {"x": 1}]),
    )
    def refused(self, where: Any, bad: dict[str, Any]) -> None:
        good = next(iter(self.model.rows.values()))
        for write in (
            lambda: self.db.insert({**good, "key": 99, "mail": None, **bad}),
            lambda: self.db.batch_insert([{**good, "key": 99, "mail": None}, {**good, "key": 98, "mail": None, **bad}]),
            lambda: self.db.update(next(iter(self.model.rows)), bad),
            lambda: self.db.batch_update(where, bad),
        ):
            with pytest.raises((ValueError, KeyError)):
                write()

    @rule()
    def compact(self) -> None:
        self.db.compact()
        self.model.compact()

    # -- reads -------------------------------------------------------------
    @rule(
        where=wheres,
        combine=combines,
        limit=st.sampled_from([None, 0, 1, 3, 100]),
        offset=st.sampled_from([0, 0, 2, 50]),
    )
    def select(self, where: Any, combine: str, limit: Any, offset: int) -> None:
        got = self.db.select_where(where, ["s", "key", "f"], limit, offset, combine)
        assert same(got, self.model.select(where, ["s", "key", "f"], limit, offset, combine))
        assert self.db.count_where(where, combine) == len(self.model.ids(where, combine))

    @rule(where=wheres, column=st.sampled_from(NAMES), agg=st.sampled_from(["sum", "min", "max", "avg", "count"]))
    def aggregate(self, where: Any, column: str, agg: str) -> None:
        if column in ("s", "b", "mail") and agg in ("sum", "avg"):
            agg = "max"
        assert bits(self.db.aggregate(column, agg, where)) == bits(self.model.aggregate(column, agg, where))

    @rule(
        where=wheres, group=st.sampled_from(["u", "f", "s", "flag", ["flag", "b"], ["g"]]),
        column=st.sampled_from(["n", "f", "g", "u"]),
        agg=st.sampled_from(["sum", "min", "max", "avg", "count"]),
    )  # fmt: skip
    def group_by(self, where: Any, group: Any, column: str, agg: str) -> None:
        assert bits(self.db.group_by(group, column, agg, where)) == bits(self.model.group_by(group, column, agg, where))

    @rule(column=st.sampled_from(NAMES))
    def range_find(self, column: str) -> None:
        found = [row for row in self.model.select() if row[column] is not None]
        key = order if column not in ("f", "g") else (lambda value: (value != value, value if value == value else 0.0))
        found.sort(key=lambda row: key(row[column]))
        assert same(self.db.range_find(column), found)

    @rule(column=st.sampled_from(["n", "u", "f", "g", "flag"]))
    def columns(self, column: str) -> None:
        assert same(self.db.select_column(column), [row[column] for row in self.model.rows.values()])
        if self.engine == "row":
            held = self.db.column_buffer(column).tolist()
            assert len(held) == self.model.positions
            for idx, value in enumerate(held):
                row = self.model.rows.get(idx)
                wanted = None if row is None else row[column]
                if wanted is None:
                    wanted = math.nan if column in ("f", "g") else 0
                assert value == wanted or (value != value and wanted != wanted)

    @rule(data=st.data())
    def get(self, data: Any) -> None:
        idx = data.draw(st.integers(-2, self.model.positions + 1), "idx")
        assert bits(self.db.get(idx)) == bits(self.model.rows.get(idx))
        assert (idx in self.db) == (idx in self.model.rows)

    @rule(taken=st.integers(0, 3))
    def start_iteration(self, taken: int) -> None:
        iterator = iter(self.db)
        expected = self.model.items()
        got = [pair for _, pair in zip(range(taken), iterator)]
        if len(self.open) < 3:
            self.open.append((iterator, got, expected))

    @precondition(lambda self: self.open)
    @rule()
    def check_open_iterators(self) -> None:
        for iterator, got, expected in self.open:
            got.extend(iterator)
            assert same(got, expected)
        self.open.clear()

    @invariant()
    def same_rows(self) -> None:
        if hasattr(self, "db"):
            assert len(self.db) == len(self.model.rows)
            assert same(list(self.db), self.model.items())


def same(got: list[Any], expected: list[Any]) -> bool:
    """Whether every value is the same: repr tells 0.0 from -0.0 and 1 from True, takes NaN for NaN, and is quick."""
    return repr(got) == repr(expected)


# -- large tables -----------------------------------------------------------------
LARGE = Schema(
    [
        ColumnDef("id", "i64"), ColumnDef("n", "i32", not_null=False), ColumnDef("f", "f64", not_null=False),
        ColumnDef("t", "str", not_null=False),
    ]
)  # fmt: skip
SIZES = (1, 1023, 1025, 8191, 8193, 65_535, 66_000)


def make_rows(count: int, seed: int, kind: int) -> list[dict[str, Any]]:
    """Rows whose columns take different encodings by ``kind``."""
    draw = random.Random(seed)
    if kind == 0:  # sequences, constants, few texts
        return [{"id": seed + i, "n": 5, "f": 1.25, "t": ("red", "green", None)[i % 3]} for i in range(count)]
    if kind == 1:  # narrow integers, decimals, texts
        return [
            {"id": i * 3, "n": draw.randrange(100), "f": draw.randrange(1000) / 10, "t": f"t{draw.randrange(500)}"}
            for i in range(count)
        ]
    return [  # noise
        {
            "id": draw.randrange(-(2**62), 2**62), "n": draw.choice((None, draw.randrange(-(2**31), 2**31))),
            "f": draw.choice((None, draw.random(), -0.0)), "t": str(draw.random()),
        }
        for _ in range(count)
    ]  # fmt: skip


class LargeTables(RuleBasedStateMachine):
    """Few steps, batches across 1,024, 8,192 and 65,536 rows; no unique columns."""

    engine = "row"
    backend = "python"

    @initialize(
        hints=st.sampled_from([{}, {"dict_columns": ["t", "n"], "delta_columns": ["id"], "for_columns": ["n"]}]),
        size=st.sampled_from((9_300, 66_000, 1100, 65_536)), kind=st.integers(0, 2),
    )  # fmt: skip
    def start(self, hints: dict[str, Any], size: int, kind: int) -> None:
        self.db = SnapDB(":memory:", LARGE, storage_type=self.engine, **hints)
        self.model = Model(LARGE)
        self.batch(size, 1, kind, False)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.compare()
            self.db.close()

    @precondition(lambda self: self.model.positions < 140_000)
    @rule(size=st.sampled_from(SIZES), seed=st.integers(0, 9), kind=st.integers(0, 2), by_column=st.booleans())
    def batch(self, size: int, seed: int, kind: int, by_column: bool) -> None:
        rows = make_rows(size, seed, kind)
        if by_column:
            assert self.db.insert_columns({name: [row[name] for row in rows] for name in LARGE.names}) == size
        else:
            assert self.db.batch_insert(rows) == size
        self.model.batch_insert(rows)

    @rule(count=st.sampled_from([3, 1100, 8300]), seed=st.integers(0, 9))
    def singles(self, count: int, seed: int) -> None:
        for row in make_rows(count, seed, 1):
            assert self.db.insert(row) == self.model.insert(row)

    @rule(seed=st.integers(0, 9), count=st.sampled_from([5, 1500]))
    def updates(self, seed: int, count: int) -> None:
        draw = random.Random(seed)
        ids = list(self.model.rows)
        for idx in draw.sample(ids, min(count, len(ids))):
            change = {"n": draw.choice((None, idx % 1000, -idx)), "f": draw.choice((None, math.nan, idx / 3))}
            self.db.update(idx, change)
            self.model.update(idx, change)

    @rule(low=st.integers(-50, 100), span=st.sampled_from([1, 20, 10**9]))
    def update_where(self, low: int, span: int) -> None:
        where = [("n", "between", (low, low + span))]
        assert self.db.batch_update(where, {"n": low, "t": "updated"}) == self.model.batch_update(
            where, {"n": low, "t": "updated"}
        )

    @rule(start=st.sampled_from([0, 1000, 65_000]), length=st.sampled_from([1, 1024, 66_000]))
    def delete_range(self, start: int, length: int) -> None:
        ids = [idx for idx in range(start, start + length) if idx in self.model.rows]
        for idx in ids:
            self.db.delete(idx)
            self.model.delete(idx)

    @rule(value=st.integers(0, 100))
    def delete_where(self, value: int) -> None:
        where = [("n", "lt", value), ("f", "is_null", None)]
        assert self.db.delete_where(where, "or") == self.model.delete_where(where, "or")

    @rule()
    def compact(self) -> None:
        self.db.compact()
        self.model.compact()

    @rule(value=st.integers(-3, 110), seed=st.integers(0, 9))
    def read(self, value: int, seed: int) -> None:
        for where in (
            [("n", "gte", value), ("t", "ne", "green")],
            [("f", "lt", value / 10)],
            [("id", "between", (seed, seed + 5000))],
            [("t", "in", ["red", "t7"])],
        ):
            assert self.db.count_where(where) == len(self.model.ids(where))
        assert bits(self.db.aggregate("f", "sum")) == bits(self.model.aggregate("f", "sum"))
        where = [("n", "lt", value)]
        for agg in ("sum", "min", "max", "avg"):
            assert bits(self.db.aggregate("f", agg, where)) == bits(self.model.aggregate("f", agg, where))
        assert bits(self.db.group_by("t", "f", "sum")) == bits(self.model.group_by("t", "f", "sum"))
        page = self.db.select_where([("n", "gt", value)], limit=20, offset=1020)
        assert bits(page) == bits(self.model.select([("n", "gt", value)], limit=20, offset=1020))
        for idx in (0, 1023, 1024, 65_535, 65_536, self.model.positions):
            assert bits(self.db.get(idx)) == bits(self.model.rows.get(idx))

    @invariant()
    def same_count(self) -> None:
        if hasattr(self, "db"):
            assert len(self.db) == len(self.model.rows)

    def compare(self) -> None:
        assert same(list(self.db), self.model.items())
        for name in LARGE.names:
            assert same(self.db.select_column(name), [row[name] for row in self.model.rows.values()])


EXAMPLES = {"c": (60, 30), "numpy": (20, 8), "python": (20, 8)}


@pytest.mark.slow
def test_tables(engine: str, backend_name: str) -> None:
    machine = type("Tables", (Tables,), {"engine": engine, "backend": backend_name})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=EXAMPLES[backend_name][0], stateful_step_count=40)
    )


@pytest.mark.slow
def test_large_tables(engine: str, backend_name: str) -> None:
    machine = type("LargeTables", (LargeTables,), {"engine": engine, "backend": backend_name})
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES[backend_name][1], stateful_step_count=8))


@pytest.mark.smoke
def test_tables_briefly(engine: str, backend_name: str) -> None:
    machine = type("Tables", (Tables,), {"engine": engine, "backend": backend_name})
    run_state_machine_as_test(machine, settings=settings(max_examples=4, stateful_step_count=25))
