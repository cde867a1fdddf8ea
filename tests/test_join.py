"""Joins against plain Python over the same rows: two loops and an equals sign."""

from __future__ import annotations

import datetime as dt
import gc
import math
from typing import Any

import pytest
from conftest import ENGINES, Files, MakeDb
from hypothesis import given, settings
from hypothesis import strategies as st
from model import bits, plain
from people import PLAIN, SCHEMA, people

from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB, errors, joins

UTC = dt.timezone.utc
DAYS = (None, dt.date(1969, 12, 31), dt.date(2024, 2, 29))
MOMENTS = (None, *(dt.datetime(2024, 2, 29, 12, 0, 0, us, tzinfo=UTC) for us in (0, 1)))
WHOLE = (None, -1, 0, 1, 2, 2**53, 2**53 + 1, -(2**63), 2**63 - 1)
REAL = (None, math.nan, -math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, float(2**53), float(2**63), -float(2**63))
TEXT = (None, "", "a", "a\0", "ab", "é", "\U0001f600")
RAW = (None, *(text.encode() for text in TEXT[1:]), b"\xff")
#: a column's type and what stands in it
KINDS: dict[str, tuple[Any, ...]] = {
    "i64": WHOLE,
    "u8": (None, 0, 1, 2, 255),
    "u64": (None, 0, 1, 2**53 + 1, 2**63, 2**64 - 1),
    "f64": REAL,
    "f32": (None, math.nan, -0.0, 0.0, 0.5, 1.0, float(2**53), math.inf),
    "bool": (None, False, True),
    "str": TEXT,
    "bytes:4": (*TEXT, b"\xff"),
    "binary": RAW,
    "binary:4": RAW,
    "date": DAYS,
    "datetime": MOMENTS,
}
NUMBERS = ("i64", "u8", "u64", "f64", "f32", "bool")
TEXTS = ("str", "bytes:4", "binary", "binary:4")
PAIRS = [(a, b) for kinds in (NUMBERS, TEXTS, ("date",), ("datetime",)) for a in kinds for b in kinds]
Pairs = list[tuple[Any, Any]]


def equal(a: Any, b: Any) -> bool:
    """As SQL has it; Python compares ints with floats exactly."""
    return a is not None and b is not None and bool(plain(a) == plain(b))


def joined(left: dict[int, Any], right: dict[int, Any], one: str, other: str, how: str) -> Pairs:
    """By two loops."""
    pairs: Pairs = []
    for row in left.values():
        found = [partner for partner in right.values() if equal(row[one], partner[other])]
        pairs += [(row, partner) for partner in found]
        if how == "left" and not found:
            pairs.append((row, None))
    return pairs


def contents(db: SnapDB) -> dict[int, Any]:
    return dict(db)


@pytest.fixture(params=["kernels", "dict"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few keys, which kernels look for; and as it were many, which a dict has."""
    if request.param == "dict":
        monkeypatch.setattr(joins, "FEW", 0)


def table(dtype: str) -> Schema:
    return Schema([ColumnDef("key", dtype, not_null=False), ColumnDef("n", "i32")])


@st.composite
def two_tables(draw: st.DrawFn) -> tuple[str, list[Any], str, list[Any]]:
    one, other = draw(st.sampled_from(PAIRS))
    keys = [draw(st.lists(st.sampled_from(KINDS[kind]), max_size=12)) for kind in (one, other)]
    if draw(st.booleans()):
        keys = [list(dict.fromkeys(some)) for some in keys]  # unique but for the zeros
    return one, keys[0], other, keys[1]


@given(
    tables=two_tables(), how=st.sampled_from(("inner", "left")), gone=st.sets(st.integers(0, 11), max_size=3),
    changed=st.integers(0, 11), storage=st.sampled_from(ENGINES),
)  # fmt: skip
@settings(max_examples=80)
def test_any_join(
    make_db: MakeDb, few: None, tables: tuple[str, list[Any], str, list[Any]], how: str, gone: set[int], changed: int,
    storage: str,
) -> None:  # fmt: skip
    one, left_keys, other, right_keys = tables
    left, right = make_db(table(one)), make_db(table(other), storage_type=storage)
    for db, keys in ((left, left_keys), (right, right_keys)):
        db.batch_insert({"key": key, "n": i} for i, key in enumerate(keys))
        if changed < len(keys):
            db.update(changed, {"key": keys[0]})
        for idx in gone:
            if idx < len(keys):
                db.delete(idx)
    rows, others = contents(left), contents(right)
    assert bits(left.join(right, "key", "key", how)) == bits(joined(rows, others, "key", "key", how))
    assert bits(right.join(left, "key", "key", how)) == bits(joined(others, rows, "key", "key", how))


def test_filled_tables(filled: tuple[SnapDB, Any], few: None) -> None:
    db, model = filled
    rows = dict(list(model.items())[:400])
    small = SnapDB(":memory:", SCHEMA, storage_type=db.storage_type)
    some = people(3000)[5:2000:41]
    small.batch_insert(some)
    with small:
        others = dict(enumerate(some))
        for one, other in (("id", "id"), ("age", "age"), ("score", "ratio"), ("name", "name"), ("day", "day")):
            for how in ("inner", "left"):
                found = db.join(small, one, other, how)
                expected = joined(rows, others, one, other, how)
                last = max(rows)
                assert [pair for pair in found if pair[0]["id"] <= 1000 + last] == expected, (one, how)
                backward = small.join(db, other, one, how)
                assert [pair for pair in backward if pair[1] and pair[1]["id"] <= 1000 + last] == [
                    pair for pair in joined(others, rows, other, one, how) if pair[1]
                ]


def test_numbers_compare_exactly(make_db: MakeDb, few: None) -> None:
    left, right = make_db(table("i64")), make_db(table("f64"))
    left.insert_columns({"key": [2**53, 2**53 + 1, 0, 2**63 - 1], "n": [0, 1, 2, 3]})
    right.insert_columns({"key": [-0.0, float(2**53), float(2**63), math.nan], "n": [0, 1, 2, 3]})
    assert [(a["n"], b["n"]) for a, b in left.join(right, "key", "key") if b] == [(0, 1), (2, 0)]


def test_null_and_nan_have_no_partner(make_db: MakeDb, few: None) -> None:
    db = make_db(table("f64"))
    db.insert_columns({"key": [None, math.nan, 1.0, math.nan, None], "n": [0, 1, 2, 3, 4]})
    assert [(a["n"], b["n"]) for a, b in db.join(db, "key", "key") if b] == [(2, 2)]
    assert [(a["n"], b and b["n"]) for a, b in db.join(db, "key", "key", how="left")] == [
        (0, None), (1, None), (2, 2), (3, None), (4, None),
    ]  # fmt: skip


def test_the_same_table_twice(make_db: MakeDb, few: None) -> None:
    db = make_db(PLAIN)
    db.insert_columns({"k": [1, 2, 3, 2], "v": [2.0, 2.0, 1.0, None], "s": ["a", "b", None, "c"]})
    assert db.join(db, "k", "v") == joined(contents(db), contents(db), "k", "v", "inner")
    assert [(a["s"], b["s"]) for a, b in db.join(db, "k", "k") if b] == [
        ("a", "a"), ("b", "b"), ("b", "c"), (None, None), ("c", "b"), ("c", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["inner", "left"])
@pytest.mark.parametrize("unique", [True, False])
def test_every_row_is_one_new_dict(make_db: MakeDb, few: None, how: str, unique: bool) -> None:
    left, right = make_db(table("i64")), make_db(table("i64"))
    left.insert_columns({"key": [1, 2, 1, 3, 5], "n": list(range(5))})
    right.insert_columns({"key": [1, 2, 4] if unique else [1, 1, 2, 4], "n": list(range(3 if unique else 4))})
    for one, other in ((left, right), (right, left), (left, left), (right, right)):
        pairs = one.join(other, "key", "key", how)
        mine, theirs = {id(row): row for row, _ in pairs}, {id(row): row for _, row in pairs if row is not None}
        for dicts in (mine, theirs):  # ``n`` is another one in each row
            assert len({row["n"] for row in dicts.values()}) == len(dicts)
        assert not set(mine) & set(theirs)
        for row in [*mine.values(), *theirs.values()]:
            row.clear()
        assert one.join(other, "key", "key", how) == joined(contents(one), contents(other), "key", "key", how)


def test_what_the_caller_has_frozen_stays_frozen(make_db: MakeDb) -> None:
    db = make_db(table("i64"))
    db.insert_columns({"key": [1, 2, 2], "n": [0, 1, 2]})
    enabled = gc.isenabled()
    gc.enable()
    try:
        assert len(db.join(db, "key", "key")) == 5
        assert gc.isenabled()
        if hasattr(gc, "get_freeze_count"):
            assert gc.get_freeze_count() == 0
            gc.freeze()
            frozen = gc.get_freeze_count()
            db.join(db, "key", "key")
            assert 0 < gc.get_freeze_count() <= frozen
        gc.disable()
        db.join(db, "key", "key")
        assert not gc.isenabled()
    finally:
        if hasattr(gc, "unfreeze"):
            gc.unfreeze()
        (gc.enable if enabled else gc.disable)()


def test_many_segments(make_db: MakeDb, few: None) -> None:
    rows = 65_536 + 5000
    db = make_db(Schema([ColumnDef("id", "i32"), ColumnDef("of", "i32", not_null=False), ColumnDef("tag", "bytes:8")]))
    db.insert_columns(
        {
            "id": list(range(rows)),
            "of": [None if i % 9 == 4 else i % 300 for i in range(rows)],
            "tag": [f"t{i % 7}" for i in range(rows)],
        }
    )
    for idx in (3, 65_535, 65_536, rows - 1):
        db.delete(idx)
    db.update(65_540, {"of": 299, "tag": "t299"})
    small = make_db(Schema([ColumnDef("id", "f64"), ColumnDef("name", "str")]))
    small.batch_insert({"id": float(i * 2), "name": f"n{i}"} for i in range(200))
    live = contents(db)
    by_of: dict[Any, list[Any]] = {}
    for row in live.values():
        by_of.setdefault(row["of"], []).append(row)
    names = {row["id"]: row for row in contents(small).values()}
    assert db.join(small, "of", "id") == [(row, names[row["of"]]) for row in live.values() if row["of"] in names]
    assert db.join(small, "of", "id", "left") == [(row, names.get(row["of"])) for row in live.values()]
    assert small.join(db, "id", "of") == [
        (row, it) for row in contents(small).values() for it in by_of.get(row["id"], ())
    ]
    by_id = {row["id"]: row for row in live.values()}
    assert db.join(db, "of", "id") == [(row, by_id[row["of"]]) for row in live.values() if row["of"] in by_id]


def test_across_engines_files_snapshots_and_tables(files: Files) -> None:
    db = files.open(table("i64"))
    db.insert_columns({"key": [3, 1, 2], "n": [0, 1, 2]})
    db.snapshot("then")
    other_engine = "columnar" if db.storage_type == "row" else "row"
    other = files.open(table("u8"), name="other.snapdb", storage_type=other_engine)
    other.insert_columns({"key": [2, 3, 9], "n": [0, 1, 2]})
    memory = ColumnarTable("t", [("key", "f64"), ("n", "i32")])
    memory.batch_insert([{"key": 2.0, "n": 0}, {"key": None, "n": 1}])

    def numbers(pairs: Any) -> list[Any]:
        return [(a["n"], b and b["n"]) for a, b in pairs]

    assert numbers(db.join(other, "key", "key")) == [(0, 1), (2, 0)]
    assert numbers(other.join(db, "key", "key", "left")) == [(0, 2), (1, 0), (2, None)]
    assert numbers(db.join(memory, "key", "key")) == [(2, 0)]
    db.delete(0)
    with db.open_snapshot("then") as then:
        assert numbers(then.join(db, "key", "key", "left")) == [(0, None), (1, 1), (2, 2)]
        assert numbers(db.join(then, "n", "n")) == [(1, 1), (2, 2)]
    with db.transaction():
        db.insert({"key": 9, "n": 3})
        assert numbers(db.join(other, "key", "key")) == [(2, 0), (3, 2)]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("nope", "k"), errors.UnknownColumnError, "nope"),
        (("k", "nope"), errors.UnknownColumnError, "nope"),
        ((["k"], "k"), errors.UnknownColumnError, "k"),
        (("k", "k", "outer"), errors.ValidationError, "'inner' or 'left', not 'outer'"),
        (("k", "k", ["inner"]), errors.ValidationError, "'inner' or 'left'"),
        (("k", "k", None), errors.ValidationError, "'inner' or 'left'"),
        (("k", "s"), errors.ConditionError, r"'k' \(i32\) does not compare with column 's' \(str\)"),
        (("s", "v"), errors.ConditionError, r"'s' \(str\) does not compare with column 'v' \(f64\)"),
        (("k", "day"), errors.ConditionError, "does not compare"),
        (("day", "at"), errors.ConditionError, "does not compare"),
        (("at", "s"), errors.ConditionError, "does not compare"),
    ],
)
def test_errors_come_before_anything_is_read(
    make_db: MakeDb, monkeypatch: pytest.MonkeyPatch, arguments: Any, error: type[Exception], match: str
) -> None:
    db = make_db(Schema([*PLAIN.columns, ColumnDef("day", "date"), ColumnDef("at", "datetime")]))
    monkeypatch.setattr(db._engine, "view", None)
    with pytest.raises(error, match=match) as caught:
        db.join(db, *arguments)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_table_and_what_is_closed(make_db: MakeDb) -> None:
    db, gone = make_db(PLAIN), make_db(PLAIN)
    gone.close()
    for wrong in (None, [{"k": 1}], "path", SnapDB):
        with pytest.raises(errors.ValueTypeError, match=r"join\(\) takes"):
            db.join(wrong, "k", "k")
    for one, other in ((db, gone), (gone, db), (gone, gone)):
        with pytest.raises(errors.ClosedError):
            one.join(other, "k", "k")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_it_was(make_db: MakeDb, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    db = make_db(PLAIN)
    db.insert({"k": 1})
    try:
        if not enabled:
            gc.disable()
        assert len(db.join(db, "k", "k")) == 1
        assert gc.isenabled() is enabled

        def broken(*args: Any) -> Any:
            assert not gc.isenabled()
            raise MemoryError

        monkeypatch.setattr(joins, "_joined", broken)
        with pytest.raises(MemoryError):
            db.join(db, "k", "k")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_empty_tables(make_db: MakeDb, few: None) -> None:
    db, empty = make_db(PLAIN), make_db(PLAIN)
    db.insert({"k": 1})
    assert db.join(empty, "k", "k") == empty.join(db, "k", "k", "left") == empty.join(empty, "k", "k") == []
    assert db.join(empty, "k", "k", "left") == [({"k": 1, "v": None, "s": None}, None)]
