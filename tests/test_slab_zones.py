"""Zone maps of slabs: a range condition never misses a row, whatever was written since they were made."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from snapdb import ColumnDef, Schema, SnapDB, _ext

SCHEMA = Schema(
    [
        ColumnDef("a", "i64"),
        ColumnDef("b", "f64", not_null=False),
        ColumnDef("c", "u8"),
        ColumnDef("d", "f32", not_null=False),
        ColumnDef("e", "u64"),
    ]
)
KINDS = {"a": int, "b": float, "c": int, "d": float, "e": int}
TOP = {"a": 2**63 - 1, "c": 255, "e": 2**64 - 1}
Row = dict[str, Any]


class Undone(Exception):
    """Takes a transaction back."""


def make_row(draw: random.Random, n: int) -> Row:
    """Values that rise with ``n``, so that slabs can be left out, and now and then one that does not."""
    odd = draw.random() < 0.01
    b = draw.choice([None, math.nan, -math.inf, -0.0]) if odd else n / 8
    edge = draw.random() < 0.002
    return {
        "a": -(2**63) if edge else draw.randrange(-9000, 9000) if odd else n - 400,
        "b": b,
        "c": n // 8 % 256,
        "d": None if odd else float(n // 4),
        "e": 2**64 - 1 if edge else 2**63 - 200 + n,
    }


def in_range(value: Any, low: Any, high: Any) -> bool:
    return value is not None and low <= value <= high  # false of NaN


class Bench:
    """A table of small slabs and the rows that it must have."""

    def __init__(self, seed: int, path: Any = ":memory:") -> None:
        self.db = SnapDB(path, SCHEMA, page_size=64)
        self.rows: dict[int, Row] = {}
        self.draw = random.Random(seed)
        self.next = 0

    def insert(self, count: int) -> None:
        rows = [make_row(self.draw, self.next + i) for i in range(count)]
        if count == 1:
            self.db.insert(rows[0])
        else:
            self.db.batch_insert(rows)
        self.rows.update(zip(range(self.next, self.next + count), rows))
        self.next += count

    def update(self) -> None:
        idx = self.draw.choice(list(self.rows))
        changes = make_row(self.draw, self.draw.randrange(2 * self.next))
        self.db.update(idx, changes)
        self.rows[idx] = changes

    def delete(self) -> None:
        first = self.draw.choice(list(self.rows))
        for idx in range(first, first + self.draw.choice([1, 1, 9])):
            if idx in self.rows:
                self.db.delete(idx)
                del self.rows[idx]

    def back(self) -> None:
        """A transaction that asks, and is taken back."""
        kept = dict(self.rows), self.next
        with pytest.raises(Undone), self.db.transaction():
            for step in (self.update, self.ask, lambda: self.insert(5), self.delete, self.ask):
                step()
            raise Undone
        self.rows, self.next = kept

    def compact(self) -> None:
        self.db.compact()
        self.rows = dict(enumerate(row for _, row in sorted(self.rows.items())))
        self.next = len(self.rows)

    def ends(self, name: str) -> tuple[Any, Any]:
        kind = KINDS[name]
        middle = self.draw.choice(list(self.rows.values()))[name]
        if middle is None or middle != middle or math.isinf(middle):
            middle = kind(7)
        width = self.draw.choice([0, 3, 40])
        return kind(max(middle - width, 0 if name in "ce" else middle - width)), min(
            kind(middle + width), TOP.get(name, math.inf)
        )

    def ask(self) -> None:
        name, other = self.draw.choice("abcde"), self.draw.choice("abcde")
        low, high = self.ends(name)
        first, last = self.ends(other)
        found = [row for _, row in sorted(self.rows.items()) if in_range(row[name], low, high)]
        both = [row for row in found if in_range(row[other], first, last)]
        conditions = [(name, "between", (low, high)), (other, "between", (first, last))]
        assert repr(self.db.range_find(name, low, high)) == repr(sorted(found, key=lambda row: row[name]))
        assert self.db.count_where(conditions) == len(both)
        assert repr(self.db.select_where(conditions)) == repr(both)
        either = sum(
            in_range(row[name], low, high) or in_range(row[other], first, last) for row in self.rows.values()
        )
        assert self.db.count_where(conditions, combine="or") == either
        assert self.db.count_where([(name, "ne", low)]) == sum(
            row[name] is not None and row[name] != low for row in self.rows.values()
        )


@pytest.mark.parametrize("seed", range(6))
def test_ranges_after_writes(seed: int, backend_name: str) -> None:
    bench = Bench(seed)
    bench.insert(900)
    ways = [bench.ask] * 8 + [bench.update] * 4 + [bench.delete, lambda: bench.insert(1), lambda: bench.insert(70)]
    ways += [bench.back]
    for step in range(400 if backend_name == "c" else 60):
        bench.draw.choice(ways)()
        if step % 90 == 50:
            bench.compact()
    bench.ask()


def test_a_view_does_not_ask_zones_of_later_rows(backend_name: str) -> None:
    db = SnapDB(":memory:", SCHEMA, page_size=64)
    rows = [make_row(random.Random(1), n) for n in range(300)]
    db.batch_insert(rows)
    term = (0, "range", rows[100]["a"], rows[100]["a"], False, False, (), False)
    table = db._engine
    with table.view() as view:
        assert view.slabs.select_rows([term], False) == [rows[100]]
        db.update(100, {"a": 5000})
        assert db.count_where([("a", "eq", 5000)]) == 1  # its zones are made anew
        assert view.slabs.select_rows([term], False) == [rows[100]]
        db.delete(100)
        db.insert(rows[100])
        db.compact()
        assert db.count_where([("a", "eq", rows[100]["a"])]) == 1
        assert view.slabs.select_rows([term], False) == [rows[100]]


def test_ranges_of_rows_that_come_from_a_file(tmp_path: Any, backend_name: str) -> None:
    bench = Bench(3, tmp_path / "t.snapdb")
    bench.insert(700)
    bench.ask()
    bench.db.close()
    for _ in range(3):
        with SnapDB(tmp_path / "t.snapdb") as bench.db:
            for way in (bench.update, bench.ask, lambda: bench.insert(1), bench.ask, bench.delete, bench.ask):
                way()


def test_select_rows_refuses_what_select_does(kernels: _ext.Backend) -> None:
    db = SnapDB(":memory:", SCHEMA, page_size=64)
    view = db._engine.slabs.pin()
    assert view.select_rows([], False) == []
    with pytest.raises(IndexError):
        view.select_rows([(9, "null", None, None, False, False, (), False)], False)
    view.release()
    with pytest.raises(ValueError, match="released"):
        view.select_rows([], False)
