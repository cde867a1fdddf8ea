"""Reads that an index answers give what a scan gives: every type, values of other types, what is refused."""

from __future__ import annotations

import datetime
import math
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import ColumnDef, Schema, SnapDB, errors
from snapdb.query import query

INTEGERS = {"i8": 7, "i16": 15, "i32": 31, "i64": 63, "u8": 8, "u16": 16, "u32": 32, "u64": 64}
POWERS = [sign * 2**bits for bits in (7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1)]
EDGES = sorted({power + more for power in POWERS for more in (-1, 0, 1)})
FLOATS = [0.0, -0.0, 0.1, 1.5, -2.0, 3.0, math.inf, -math.inf, math.nan, 2.0**63, 1e300, 0.10000000149011612]
TEXTS = ["", "a", "ab", "abcdefgh", "abcdefghi", "a\0", "é", "日本", "\U0001f600"]
DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)


def fitting(dtype: str) -> st.SearchStrategy[Any]:
    """Values that a column of this type takes."""
    if dtype in INTEGERS:
        low, high = (0 if dtype[0] == "u" else -(2 ** INTEGERS[dtype])), 2 ** INTEGERS[dtype] - 1
        return st.sampled_from([n for n in (*EDGES, *range(-3, 4)) if low <= n <= high])
    if dtype == "f32":
        return st.sampled_from([value for value in FLOATS if value != 1e300])
    if dtype == "f64":
        return st.sampled_from(FLOATS)
    if dtype == "bool":
        return st.booleans()
    if dtype == "date":
        return st.sampled_from([DAY, datetime.date(1969, 12, 31)])
    if dtype == "datetime":
        return st.sampled_from([NOON, NOON.replace(year=1952)])
    if dtype == "binary":
        return st.sampled_from([text.encode() for text in TEXTS] + [b"\xff"])
    return st.sampled_from([text for text in TEXTS if dtype == "str" or len(text.encode()) <= 8])


DTYPES = [*INTEGERS, "f32", "f64", "bool", "date", "datetime", "bytes:8", "str", "binary"]
ODD = [None, True, False, b"a", "3", 1 + 0j, [1], DAY, NOON, "\ud800", *EDGES, *FLOATS, *TEXTS, 3, 0]


def outcome(call: Any, *args: Any) -> str:
    """The answer or the error, as text: NaN is like NaN."""
    try:
        return repr(call(*args))
    except errors.SnapDBError as error:
        return repr((type(error), str(error)))


def like(engine: str, dtype: str, values: list[Any]) -> tuple[SnapDB, SnapDB]:
    """The same rows without indexes, and with both of the column."""
    schema = Schema([ColumnDef("n", "i64"), ColumnDef("v", dtype, not_null=False)])
    made = SnapDB(":memory:", schema, storage_type=engine), SnapDB(":memory:", schema, storage_type=engine)
    for db in made:
        db.batch_insert([{"n": n, "v": value} for n, value in enumerate(values)])
    made[1].create_index("v")
    made[1].create_range_index("v")
    return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_index_answers_as_a_scan_does(dtype: str, engine: str, backend_name: str) -> None:
    values = fitting(dtype)
    asked = st.one_of(values, st.sampled_from(ODD))

    @settings(max_examples=40)
    @given(
        st.lists(st.one_of(st.none(), values), max_size=30),
        st.lists(asked, min_size=1, max_size=8),
        st.lists(st.tuples(asked, asked, st.booleans(), st.booleans()), max_size=6),
        st.lists(st.integers(0, 29), max_size=5, unique=True),
    )
    def check(stored: list[Any], points: list[Any], ranges: list[Any], deleted: list[int]) -> None:
        plain, indexed = like(engine, dtype, stored)
        for idx in deleted:
            if idx < len(stored):
                plain.delete(idx)
                indexed.delete(idx)
        for value in (*points, *stored):
            assert outcome(indexed.lookup, "v", value) == outcome(plain.lookup, "v", value)
        for low, high, *include in ranges:
            assert outcome(indexed.range_find, "v", low, high, *include) == outcome(
                plain.range_find, "v", low, high, *include
            )

    check()


def test_lookup_after_its_database_is_closed_or_gone(engine: str, backend_name: str) -> None:
    _, db = like(engine, "i64", [1, 2, 3])
    lookup = db.lookup
    assert lookup("v", 2) == {"n": 1, "v": 2} and lookup(column_name="v", value=4) is None
    with pytest.raises(errors.UnknownColumnError):
        lookup("w", 2)
    db.close()
    with pytest.raises(errors.ClosedError):
        lookup("v", 2)


def test_lookup_of_a_column_whose_index_is_dropped(engine: str, backend_name: str) -> None:
    _, db = like(engine, "i64", [1, 2, 3])
    lookup = db.lookup
    db.drop_index("v")
    db.update(1, {"v": 7})
    for find in (lookup, db.lookup):
        assert find("v", 7) == {"n": 1, "v": 7} and find("v", 2) is None


def test_lookup_inside_a_transaction_and_beside_one(engine: str, backend_name: str) -> None:
    _, db = like(engine, "i64", [1, 2, 3])
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(db.lookup("v", 9)))
    with pytest.raises(KeyError), db.transaction():
        db.update(1, {"v": 9})
        assert db.lookup("v", 9) == {"n": 1, "v": 9} and db.lookup("v", 2) is None
        reader.start()
        raise KeyError("back")
    reader.join(60)
    assert found and found[0] in (None, {"n": 1, "v": 9})
    assert db.lookup("v", 9) is None and db.lookup("v", 2) == {"n": 1, "v": 2}


def test_the_same_short_text_may_be_text_or_bytes(backend_name: str) -> None:
    schema = Schema([ColumnDef(name, dtype) for name, dtype in zip("abcd", ("bytes:8", "binary", "str", "binary:4"))])
    db = SnapDB(":memory:", schema)
    texts = [text for text in TEXTS if len(text.encode()) <= 4] * 3
    rows = [{"a": text, "b": text.encode(), "c": text, "d": text.encode()} for text in texts]
    db.batch_insert(rows)
    assert [db.get(idx) for idx in range(len(rows))] == rows == [row for _, row in db]


ASKED = st.sampled_from(["eq", "ne", "lt", "gte", "between", "in", "is_null"])
CONDITION = st.tuples(st.sampled_from("kv"), ASKED, st.integers(-2, 60), st.integers(-2, 60))


def as_condition(column: str, op: str, one: int, other: int) -> tuple[Any, ...]:
    if op == "is_null":
        return column, op
    return column, op, (one, other) if op == "between" else [one, other] if op == "in" else one


@settings(max_examples=60)
@given(
    st.lists(CONDITION, min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from("kvw"), st.booleans()), max_size=2),
    st.one_of(st.none(), st.integers(0, 40)),
    st.integers(0, 3),
)
def compare_queries(
    given_to: tuple[SnapDB, SnapDB], conditions: list[Any], orders: list[Any], limit: Any, offset: int
) -> None:
    found = []
    for db in given_to:
        asked = query(db).filter([as_condition(*one) for one in conditions])
        for column, desc in orders:
            asked = asked.order(column, desc)
        asked = asked.slice(limit, offset)
        even = asked.where_fn(lambda row: row["w"] % 2 == 0)
        found.append((asked.execute(), list(asked), asked.count(), asked.first(), even.execute(), even.count()))
    assert found[0] == found[1]


def test_queries_by_index(engine: str, backend_name: str) -> None:
    schema = Schema([ColumnDef("k", "i32"), ColumnDef("v", "f64", not_null=False), ColumnDef("w", "u8")])
    rows = [{"k": n * 37 % 61, "v": None if n % 9 == 0 else n * 11 % 53 / 1, "w": n % 256} for n in range(900)]
    made = SnapDB(":memory:", schema, storage_type=engine), SnapDB(":memory:", schema, storage_type=engine)
    for db in made:
        db.batch_insert(rows)
        db.delete_where([("w", "lt", 5)])
    for name in ("k", "v"):
        made[1].create_index(name)
        made[1].create_range_index(name)
    compare_queries(made)
    asked = query(made[1]).filter(k=3).order("w")
    assert "index: of column 'k'" in asked.explain() and "k eq 3 - index" in asked.explain()
    before = iter(asked)
    expected = query(made[0]).filter(k=3).order("w").execute()
    made[1].update(expected[0][0], {"k": 4})
    assert list(before) == expected  # as of its start
    assert asked.execute() == expected[1:]
    with made[1].transaction():
        made[1].update(expected[1][0], {"k": 4})
        assert asked.execute() == expected[2:]


def test_indexes_of_several_columns_are_intersected(engine: str, backend_name: str) -> None:
    schema = Schema([ColumnDef("a", "i32"), ColumnDef("b", "str"), ColumnDef("c", "f64", not_null=False)])
    rows = [{"a": n % 100, "b": f"{n * 7 % 101:03}", "c": None if n % 5 == 0 else n / 4} for n in range(6000)]
    made = SnapDB(":memory:", schema, storage_type=engine), SnapDB(":memory:", schema, storage_type=engine)
    for db in made:
        db.batch_insert(rows)
    made[1].create_index("a")
    made[1].create_range_index("b")
    made[1].create_range_index("c")
    asked: list[tuple[dict[str, Any], str]] = [
        ({"a": 3, "b": "021"}, "indexes: of columns 'a', 'b', which together name 1 rows"),
        ({"a": 3, "c": {"gte": 100, "lt": 119}}, "indexes: of columns 'a', 'c', which together name 1 rows"),
        ({"c": {"gt": 100.0, "lte": 101.5}}, "index: of column 'c', which names 5 rows"),
        ({"c": {"gte": 100}, "a": 5}, "filter: c gte 100 - mask"),
        ({"c": {"gt": 200, "lt": 100}}, "index: of column 'c', which names 0 rows"),
        ({"a": 3, "b": {"gt": "0205", "lte": "021"}}, "indexes: of columns 'a', 'b'"),
    ]
    for conditions, said in asked:
        assert said in query(made[1]).filter(**conditions).explain()
        assert query(made[1]).filter(**conditions).execute() == query(made[0]).filter(**conditions).execute()
        assert made[1].find(a=3, b="021") == made[0].find(a=3, b="021") == [rows[3]]


@settings(max_examples=40)
@given(
    st.sampled_from(["i8", "u8", "i16", "u32", "i64", "f64"]),
    st.integers(-100, 100),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["move", "null", "delete", "add", "look"]), st.integers(0, 99)), max_size=60),
)
def compare_lookups(engine: str, dtype: str, first: int, unique: bool, steps: list[tuple[str, int]]) -> None:
    """Keys that run with the rows, and what comes between: each lookup gives what a scan gives."""
    first = max(first, 0) if dtype[0] == "u" else min(first, 0)
    schema = Schema([ColumnDef("n", "u8"), ColumnDef("k", dtype, unique, False, False)])
    db = SnapDB(":memory:", schema, storage_type=engine)
    kind = float if dtype == "f64" else int
    db.batch_insert([{"n": n, "k": kind(n + first)} for n in range(100)])
    db.create_index("k")
    model = dict(db)
    for step, given_at in [*steps, *[("look", n) for n in range(100)]]:
        at = -first % 100 if step == "null" else given_at  # a null is stored as 0, which the row has had
        if step == "look":
            expected = next((row for row in model.values() if row["k"] == at + first), None)
            assert db.lookup("k", kind(at + first)) == expected
            continue
        row = {"n": at, "k": kind((at * 7 % 100 if step == "move" else at) + first) if step != "null" else None}
        taken = [idx for idx, other in model.items() if row["k"] is not None and other["k"] == row["k"]]
        if unique and taken not in ([], [at]):
            continue
        if step == "add":
            if not unique or not taken:
                model[db.insert(row)] = row
        elif at in model and step == "delete":
            db.delete(at)
            del model[at]
        elif at in model:
            db.update(at, row)
            model[at] = row


def test_lookups_of_keys_that_run_with_the_rows(engine: str, backend_name: str) -> None:
    compare_lookups(engine)
