"""The query builder against plain Python over the same rows, on each engine and backend."""

from __future__ import annotations

import datetime as dt
import math
from functools import cmp_to_key
from typing import Any, Callable, Optional

import pytest
from conftest import Files, MakeDb
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Model, accepts, bits, plain
from people import NAMES, SCHEMA, people

import snapdb.query
from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB, errors, ordering
from snapdb.query import Query, query

TABLE = Schema(
    [
        ColumnDef("n", "i16", not_null=False),
        ColumnDef("x", "f64", not_null=False),
        ColumnDef("f", "f32"),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("b", "bytes:4"),
        ColumnDef("flag", "bool", not_null=False),
        ColumnDef("day", "date", not_null=False),
    ]
)
NUMBERS = (None, math.nan, -math.inf, -1.5, -0.0, 0.0, 1e-300, 1.0, 7.25, math.inf)
TEXTS = (None, "", "a", "a\0", "ab", "b", "é", "\U0001f600")
ROW = st.fixed_dictionaries(
    {
        "n": st.sampled_from((None, -300, -1, 0, 1, 2, 300)),
        "x": st.sampled_from(NUMBERS),
        "f": st.sampled_from((math.nan, -math.inf, -1.5, -0.0, 0.0, 0.125, math.inf)),
        "s": st.sampled_from(TEXTS),
        "b": st.sampled_from((*TEXTS[1:], b"\xff", b"\xc3")),
        "flag": st.sampled_from((None, False, True)),
        "day": st.sampled_from((None, dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2024, 2, 29))),
    }
)
CONDITIONS = st.lists(
    st.sampled_from(
        [
            ("n", "gt", 0), ("n", "lte", 1.5), ("n", "is_null", None), ("x", "lt", 1.0), ("x", "ne", 0.0),
            ("s", "gte", "a"), ("s", "not_null", None), ("b", "ne", b"\xff"), ("flag", "eq", True), ("day", "eq", None),
            ("f", "gte", 0), ("n", "in", [-1, 0, 1, 300]), ("x", "between", (-2, 8)),
        ]
    ),
    max_size=2,
)  # fmt: skip
ORDERS = st.lists(st.tuples(st.sampled_from(TABLE.names), st.booleans()), max_size=3)
LIMITS = st.one_of(st.none(), st.integers(-1, 70))
Items = list[tuple[int, dict[str, Any]]]


def rank(value: Any) -> int:
    return 2 if value is None else 1 if value != value else 0


def in_order(items: Items, orders: list[tuple[str, bool]]) -> Items:
    """Sorted as the guide says, by comparing two rows at a time."""

    def compare(one: tuple[int, dict[str, Any]], other: tuple[int, dict[str, Any]]) -> int:
        for column, desc in orders:
            a, b = one[1][column], other[1][column]
            if rank(a) != rank(b):
                return rank(a) - rank(b)
            if rank(a) == 0 and plain(a) != plain(b):
                return 1 if (plain(a) > plain(b)) != desc else -1
        return one[0] - other[0]

    return sorted(items, key=cmp_to_key(compare))


def cut(items: Items, limit: Optional[int], offset: int) -> Items:
    return items[offset : None if limit is None else offset + max(0, limit)]


def ordered(wanted: Query, orders: list[tuple[str, bool]]) -> Query:
    for column, desc in orders:
        wanted = wanted.order(column, desc)
    return wanted


def same(found: Any, wanted: Any) -> bool:
    return bool(bits(list(found)) == bits(wanted))


@pytest.fixture(params=["whole", "narrowed"])
def narrowing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, where so few rows are sorted as they are; and as it were for many."""
    if request.param == "narrowed":
        monkeypatch.setattr(ordering, "FEW", 2)
        monkeypatch.setattr(ordering, "SAMPLE", 3)
        monkeypatch.setattr(ordering, "SHARE", 1)


@given(
    rows=st.lists(ROW, max_size=60), conditions=CONDITIONS, orders=ORDERS, limit=LIMITS, offset=st.integers(0, 20),
    gone=st.sets(st.integers(0, 59), max_size=9), changed=st.dictionaries(st.integers(0, 59), ROW, max_size=5),
)  # fmt: skip
@settings(max_examples=60)
def test_any_query(
    make_db: MakeDb, narrowing: None, rows: list[dict[str, Any]], conditions: list[Any], orders: list[Any],
    limit: Optional[int], offset: int, gone: set[int], changed: dict[int, Any],
) -> None:  # fmt: skip
    db, model = make_db(TABLE), Model(TABLE)
    for it in (db, model):
        it.batch_insert(rows)
        for idx, row in changed.items():
            if idx < len(rows):
                it.update(idx, row)
        for idx in gone:
            if idx < len(rows):
                it.delete(idx)
    wanted = ordered(query(db).filter(conditions), orders).slice(limit, offset)
    met = [(idx, row) for idx, row in model.items() if accepts(row, conditions)]
    expected = cut(in_order(met, orders), limit, offset)
    assert same(wanted.execute(), expected)
    assert same(wanted, expected)
    assert wanted.count() == len(expected)
    assert bits(wanted.first()) == bits(expected[0] if expected else None)
    odd = cut(in_order([item for item in met if item[1]["n"] != 1], orders), limit, offset)
    called = wanted.where_fn(lambda row: row["n"] != 1)
    assert same(called.execute(), odd)
    assert same(called, odd)
    assert called.count() == len(odd)
    assert str(len(rows)) in wanted.explain()


def test_filled_tables(filled: tuple[SnapDB, Model], narrowing: None) -> None:
    db, model = filled
    for orders in (
        [("age", False)], [("age", True)], [("score", True), ("name", False)], [("flag", True), ("at", False)],
        [("city", True), ("score", False)], [("blob", False)], [("day", True)], [("ratio", True)], [("id", True)], [],
    ):  # fmt: skip
        for conditions in ([], [("age", "gt", 40)], [("flag", "eq", True), ("city", "ne", "Lima")]):
            met = [(idx, row) for idx, row in model.items() if accepts(row, conditions)]
            expected = in_order(met, orders)
            wanted = ordered(query(db).filter(*[{column: {op: value}} for column, op, value in conditions]), orders)
            for limit, offset in ((None, 0), (10, 0), (3, 30), (0, 0), (-5, 0), (10**30, 7), (None, 2000)):
                assert wanted.slice(limit, offset).execute() == cut(expected, limit, offset), (
                    orders,
                    conditions,
                    limit,
                )


# -- several segments --------------------------------------------------------------------------------------------------

LARGE = Schema(
    [
        ColumnDef("id", "i32"),
        ColumnDef("falling", "i64"),
        ColumnDef("word", "str"),
        ColumnDef("few", "u8", not_null=False),
        ColumnDef("x", "f64", not_null=False),
    ]
)
ROWS = 2 * 65_536 + 3000


def large_row(i: int) -> dict[str, Any]:
    x: Any = (i * 7919 % 100_003) / 8
    return {
        "id": i,
        "falling": -3 * i,
        "word": f"w{i * 31 % 5000}",
        "few": None if i % 50 == 7 else i % 6,
        "x": None if i % 1000 == 3 else math.nan if i % 1000 == 4 else x,
    }


@pytest.fixture
def large(make_db: MakeDb) -> tuple[SnapDB, dict[int, dict[str, Any]]]:
    rows = {i: large_row(i) for i in range(ROWS)}
    db = make_db(LARGE)
    db.insert_columns({name: [row[name] for row in rows.values()] for name in LARGE.names})
    for idx in (0, 65_535, 65_536, 70_000, ROWS - 1, 131_072):
        db.delete(idx)
        del rows[idx]
    for idx, changes in (
        (5, {"x": 1e9, "falling": -(10**9)}), (70_001, {"x": -1.0, "few": 200}), (ROWS - 2, {"x": None, "few": 5}),
        (131_073, {"x": 1e9, "falling": 10**9}), (65_537, {"word": "", "few": None}),
    ):  # fmt: skip
        db.update(idx, changes)
        rows[idx].update(changes)
    return db, rows


def best(rows: dict[int, dict[str, Any]], orders: list[tuple[str, bool]]) -> list[int]:
    """Row ids in order, for many rows."""
    ids = list(rows)
    for column, desc in reversed(orders):
        values = {idx: row[column] for idx, row in rows.items()}
        kinds: list[list[int]] = [[], [], []]
        for idx in ids:
            kinds[rank(values[idx])].append(idx)
        kinds[0].sort(key=lambda idx, values=values: values[idx], reverse=desc)  # type: ignore[misc]
        ids = kinds[0] + kinds[1] + kinds[2]
    return ids


def test_many_segments(large: tuple[SnapDB, dict[int, dict[str, Any]]]) -> None:
    db, rows = large
    for orders, conditions in (
        ([("x", True)], {"few": {"gt": 2}}),
        ([("x", False)], {}),
        ([("falling", False)], {}),
        ([("falling", True)], {"x": {"lt": 1000.0}}),
        ([("few", True)], {}),
        ([("few", False), ("x", True)], {"id": {"gte": 1000}}),
        ([("few", True), ("word", False), ("falling", False)], {}),
        ([("word", True)], {"few": {"is_null": None}}),
        ([("few", True)], {"few": {"is_null": None}}),
        ([("id", False)], {"id": {"gt": 10**9}}),
    ):
        triples = [(column, op, value) for column, wanted in conditions.items() for op, value in wanted.items()]
        ids = best({idx: row for idx, row in rows.items() if accepts(row, triples)}, orders)
        wanted = ordered(query(db).filter(conditions), orders)
        for limit, offset in ((1, 0), (10, 0), (10, 37), (2000, 0)):
            found = wanted.slice(limit, offset)
            assert "top-k" in found.explain()
            assert bits(found.execute()) == bits([(idx, rows[idx]) for idx in ids[offset : offset + limit]]), orders
    assert [idx for idx, _ in wanted.order("few").execute()] == []
    full = query(db).filter(few=5).order("x", desc=True)
    assert "full sort" in full.explain()
    fives = {idx: row for idx, row in rows.items() if row["few"] == 5}
    assert [idx for idx, _ in full] == best(fives, [("x", True)])


def test_the_bar_is_not_passed_by_equal_rows_of_an_earlier_segment(make_db: MakeDb) -> None:
    # the zone maps send the search to the last segment first, where 9 stands twice
    db = make_db(Schema([ColumnDef("v", "i32")]))
    values = [0] * 65_536 * 2
    values[40], values[70_000], values[70_001], values[131_000] = 9, 9, 10, 9
    db.insert_columns({"v": values})
    assert [idx for idx, _ in query(db).order("v", desc=True).slice(3)] == [70_001, 40, 70_000]
    assert [idx for idx, _ in query(db).order("v", desc=True).order("v").slice(3)] == [70_001, 40, 70_000]
    assert [idx for idx, _ in query(db).order("v").slice(3)] == [0, 1, 2]


def test_only_rows_that_are_given_out_are_built(
    large: tuple[SnapDB, dict[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, _ = large
    values = db._engine.kernels.values
    built = []
    real = values.records

    def records(names: Any, columns: Any) -> Any:
        built.append(len(columns[0]))
        return real(names, columns)

    monkeypatch.setattr(values, "records", records)
    wanted = query(db).filter(few={"gt": 2}).order("x", desc=True).slice(10, 5)
    assert len(wanted.execute()) == 10
    assert sum(built) == 10
    assert wanted.count() == 10
    assert query(db).filter(few=3).count() > 10_000
    assert wanted.explain()
    assert query(db).slice(0).execute() == []
    assert sum(built) == 10
    assert query(db).where_fn(lambda row: True).first() is not None
    assert sum(built) < 10_000, "and no more than a few are asked where few are wanted"


def test_segments_that_cannot_win_are_not_read(make_db: MakeDb, engine: str) -> None:
    if engine == "row":
        return  # it has no zone maps
    db = make_db(LARGE)
    db.insert_columns({name: [large_row(i)[name] for i in range(ROWS - 3000)] for name in LARGE.names})
    seen = []

    class Watched(type(db._engine.view())):  # type: ignore[misc]
        def chunks(self, j: int, k: int) -> Any:
            seen.append(k)
            return super().chunks(j, k)

    with db._engine.view() as view:
        view.__class__ = Watched
        found = ordering.top_ids(view, [], [ordering.Order(1, False)], 3)
    assert found == [131_071, 131_070, 131_069]
    assert set(seen) == {1}


# -- what a query is ---------------------------------------------------------------------------------------------------


def test_queries_do_not_change(plain: SnapDB) -> None:
    every = query(plain)
    some = every.filter(k={"gte": 3})
    few = some.filter(s="s1").where_fn(lambda row: row["k"] != 4).order("v", desc=True).slice(2, 1)
    assert [len(it.execute()) for it in (every, some, few)] == [12, 9, 1]
    assert every.count() == 12
    assert [idx for idx, _ in few] == [7]
    for name in ("_plan", "limit"):
        with pytest.raises(AttributeError, match="does not change"):
            setattr(every, name, None)
    with pytest.raises(AttributeError):
        del every._db
    assert repr(few).startswith("query(SnapDB(':memory:'")
    assert repr(few).endswith(".order('v', desc=True).slice(2, 1)")
    assert "('k', 'gte', 3)" in repr(few)


def test_the_order_of_calls_does_not_matter_and_the_last_slice_counts(plain: SnapDB) -> None:
    one = query(plain).slice(1).order("k", desc=True).slice(3, 1).filter(s="s1")
    assert [row["k"] for _, row in one] == [7, 4, 1]
    assert one.slice(None).count() == 4
    assert one.slice(None, 3).count() == 1
    assert one.slice(0).first() is None
    assert one.slice(-7).execute() == []
    assert one.slice(1, 100).execute() == []


def test_filters(plain: SnapDB) -> None:
    by = query(plain).filter
    assert [idx for idx, _ in by(k={"gte": 3, "lt": 6}, s="s1")] == [4]
    assert by([("k", "gte", 3), ("k", "<", 6)], {"s": "s1"}, s="s1").count() == 1
    assert by().count() == by([]).count() == by({}).count() == by(None).count() == 12
    assert by(v=None).count() == 0
    assert by(v={"is_null": True}).count() == 3
    with pytest.raises(errors.ConditionError, match="'in'"):
        by(k=[1, 2])


def test_columns_named_as_parameters_are(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef(name, "i8") for name in ("self", "conditions", "column", "limit")]))
    db.insert({"self": 1, "conditions": 2, "column": 3, "limit": 4})
    assert query(db).filter(self=1, conditions=2, column=3, limit=4).order("self").order("column").count() == 1


BAD: list[tuple[Callable[[Query], Any], Any, str]] = [
    (lambda q: q.filter(nope=1), errors.UnknownColumnError, "nope"),
    (lambda q: q.filter([("nope", "eq", 1)]), errors.UnknownColumnError, "nope"),
    (lambda q: q.filter(k={"like": 1}), errors.ConditionError, "like"),
    (lambda q: q.filter(k="text"), errors.ConditionError, "k"),
    (lambda q: q.filter(k={}), errors.ConditionError, "no operator"),
    (lambda q: q.filter(lambda row: True), errors.ConditionError, "list or a dict"),
    (lambda q: q.filter("k"), errors.ConditionError, "list or a dict"),
    (lambda q: q.where_fn({"k": 1}), errors.ValueTypeError, "callable"),
    (lambda q: q.where_fn(None), errors.ValueTypeError, "callable"),
    (lambda q: q.order("nope"), errors.UnknownColumnError, "nope"),
    (lambda q: q.order(["k"]), errors.UnknownColumnError, "k"),
    (lambda q: q.order("k", "desc"), errors.ValueTypeError, "True or False"),
    (lambda q: q.slice("3"), errors.ValueTypeError, "limit"),
    (lambda q: q.slice(2.0), errors.ValueTypeError, "limit"),
    (lambda q: q.slice(3, -1), errors.ValidationError, "offset"),
    (lambda q: q.slice(3, None), errors.ValueTypeError, "offset"),
]


@pytest.mark.parametrize(("say", "error", "match"), BAD)
def test_errors_come_before_anything_is_read(
    make_db: MakeDb, monkeypatch: pytest.MonkeyPatch, say: Any, error: type[Exception], match: str
) -> None:
    db = make_db(Schema([ColumnDef("k", "i32")]))
    monkeypatch.setattr(db._engine, "view", None)
    with pytest.raises(error, match=match) as caught:
        say(query(db))
    assert isinstance(caught.value, (ValueError, KeyError))


def test_what_is_no_table() -> None:
    for wrong in (None, "path", {"schema": 1}, SnapDB):
        with pytest.raises(errors.ValueTypeError, match=r"query\(\) takes"):
            query(wrong)  # type: ignore[arg-type]


def test_a_closed_database(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("k", "i32")]))
    wanted = query(db)
    db.close()
    for call in (
        wanted.execute,
        wanted.count,
        wanted.first,
        wanted.explain,
        wanted.__iter__,
        lambda: wanted.order("k"),
    ):
        with pytest.raises(errors.ClosedError):
            call()
    with pytest.raises(errors.ClosedError):
        query(db)
    assert repr(wanted) == "query(SnapDB(closed))"


# -- callables ---------------------------------------------------------------------------------------------------------


def test_a_callable_is_asked_of_each_row_that_is_left_once_and_in_order(plain: SnapDB) -> None:
    asked: list[int] = []

    def odd(row: dict[str, Any]) -> bool:
        asked.append(row["k"])
        answer = row["k"] % 2 == 1
        row.clear()  # its own dict: nothing comes of it
        return answer

    wanted = query(plain).filter(k={"gte": 2}).where_fn(odd).where_fn(lambda row: row["k"] != 5)
    assert [row["k"] for _, row in wanted.order("k", desc=True).slice(2).execute()] == [11, 9]
    assert asked == list(range(2, 12))
    asked.clear()
    assert [idx for idx, _ in wanted.slice(2, 1).execute()] == [7, 9]
    assert asked == list(range(2, 10)), "none behind the last one wanted"
    asked.clear()
    assert wanted.slice(0).order("k").execute() == []
    assert wanted.slice(0).count() == 0
    assert asked == []
    first = wanted.first()
    assert first is not None
    assert first[1]["k"] == 3


def test_an_exception_of_a_callable_comes_out(plain: SnapDB) -> None:
    with pytest.raises(ZeroDivisionError):
        query(plain).where_fn(lambda row: 1 // row["k"]).execute()
    assert plain.insert({"k": 12}) == 12, "and nothing is held"


def test_rows_are_as_of_the_start_and_the_callers_own(plain: SnapDB) -> None:
    for wanted in (query(plain), query(plain).order("k"), query(plain).where_fn(lambda row: True)):
        before = plain.select()
        running = iter(wanted)
        found = [next(running)]
        plain.batch_update([], {"v": -1.0})
        plain.delete(5)
        plain.insert({"k": 99})
        assert [row for _, row in found + list(running)] == before
        for _, row in wanted.execute():
            row.clear()
        assert len(plain.select()[0]) == 3
        plain.batch_update([], {"v": 1.5})
        plain.delete(len(before))
        plain.compact()
        plain.insert({"k": 100})


def test_a_callable_may_write(plain: SnapDB) -> None:
    def delete(row: dict[str, Any]) -> bool:
        if len(plain):
            plain.delete_where([("k", "gte", 0)])
        return True

    assert query(plain).where_fn(delete).order("k", desc=True).slice(1).execute()[0][1]["k"] == 11
    assert query(plain).execute() == []


# -- where it may read -------------------------------------------------------------------------------------------------


def test_a_file_and_its_snapshots(files: Files) -> None:
    db = files.open(SCHEMA)
    db.batch_insert(people(3000))
    db.snapshot("then")
    db.delete_where([("age", "gt", 3)])

    def oldest(it: SnapDB) -> list[Any]:
        wanted = query(it).filter(age={"not_null": None}).order("age", desc=True).slice(4)
        return [(idx, row["age"]) for idx, row in wanted.execute()]

    now = oldest(db)
    assert {age for _, age in now} == {3}
    with db.open_snapshot("then") as then:
        assert oldest(then) == [(89, 89), (179, 89), (359, 89), (449, 89)]
        then.delete(89)
        assert oldest(then)[0] == (179, 89)
    db.close()
    again = files.open()
    assert oldest(again) == now
    with again.transaction():
        idx = again.insert({**people(90)[-1], "id": 9_999_999})
        assert oldest(again)[0] == (idx, 89)


def test_a_table_without_a_file(backend_name: str) -> None:
    table = ColumnarTable("t", [("k", "i32"), ("v", "f64")])
    table.batch_insert([{"k": i, "v": None if i == 3 else -i / 2} for i in range(10)])
    assert [row["k"] for _, row in query(table).filter(k={"gt": 1}).order("v").slice(3)] == [9, 8, 7]
    assert query(table).order("v").execute()[-1] == (3, {"k": 3, "v": None})
    assert repr(query(table)).startswith("query(")
    assert query(table).explain().startswith("columnar engine: 10 row ids")


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain(make_db: MakeDb, engine: str, backend_name: str) -> None:
    db = make_db(LARGE)
    db.insert_columns({name: [large_row(i)[name] for i in range(ROWS - 3000)] for name in LARGE.names})

    def heavy(row: dict[str, Any]) -> bool:
        raise AssertionError("explain reads no row")

    def told(wanted: Query) -> list[str]:
        return wanted.explain().splitlines()

    assert told(query(db)) == [
        f"{engine} engine: 131072 row ids in 2 segments",
        "every row",
        "order: by row id, as stored",
    ]
    zones = "zone maps: rule out 1 of 2 segments"
    if engine == "row":
        compiled = backend_name == "c"
        zones = "zone maps: of each slab, made when a range is first asked for" if compiled else "zone maps: none"
    wanted = query(db).filter(id={"gte": 70_000}, few={"is_null": True}).order("x", desc=True).order("id")
    assert told(wanted)[1:] == [
        "filter: id gte 70000 - mask",
        "filter: few is_null - mask",
        zones,
        "order: x desc, id, row id - full sort",
    ]
    assert told(wanted.slice(10, 5))[-2:] == [
        "order: x desc, id, row id - top-k, the best 15",
        "slice: at most 10 after the first 5",
    ]
    called = told(wanted.where_fn(heavy).slice(10))
    assert called[4].startswith("where_fn: test_explain")
    assert called[4].endswith("heavy - Python call for each row that is left")
    assert called[5].endswith("full sort")
    assert told(query(db).slice(None, 3))[-1] == "slice: all after the first 3"


def test_module_and_method_have_the_same_name_and_do_not_meet(plain: SnapDB) -> None:
    assert snapdb.query.query is query
    assert [idx for idx, _ in plain.query(lambda row: row["k"] == 2)] == [2]
    assert "query" not in snapdb.__all__
    assert sorted(snapdb.query.__all__) == ["Query", "query"]
    assert isinstance(query(plain), Query)
    assert NAMES


def test_a_condition_may_stand_alone(plain: SnapDB) -> None:
    listed = query(plain).filter([("k", "gte", 2), ("k", "lt", 9)])
    assert query(plain).filter(("k", "gte", 2), ("k", "lt", 9)).execute() == listed.execute()
    assert query(plain).filter([("k", "gte", 2)], k={"lt": 9}).execute() == listed.execute()
    with pytest.raises(errors.ConditionError, match=r"not a callable; for a callable over rows use where_fn\(\)"):
        query(plain).filter(lambda row: True)
    with pytest.raises(errors.ConditionError):
        query(plain).filter(("k", "gte"))
