"""SnapDB's queries, aggregates, groupings, exports and figures, on each engine and backend. Writes: test_public.py."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
import sys
from array import array
from typing import Any

import pytest
from conftest import MakeDb
from model import Model, bits
from people import NAMES, PLAIN, SCHEMA, person

from snapdb import ColumnDef, Schema, SnapDB, errors

pytestmark = pytest.mark.smoke


# -- reads ----------------------------------------------------------------------
CONDITIONS: list[Any] = [
    [],
    [("age", "eq", 17)],
    [("age", "ne", 17)],
    [("age", ">", 40.5), ("score", "<=", 12)],
    [("age", "between", (20, 30))],
    [("age", "between", (30, 20))],
    [("age", "in", [1, 2, 3.0, None, 999])],
    [("age", "in", [])],
    [("age", "eq", None)],
    [("age", "lt", 10**30)],
    [("age", "gt", -1)],
    [("age", "is_null", None)],
    [("age", "not_null", None), ("flag", "is_null", None)],
    [("score", "eq", 2.5)],
    [("score", "lt", 2)],
    [("score", "ne", math.nan)],
    [("score", "gt", math.nan)],
    [("score", "gte", -math.inf)],
    [("flag", "eq", True)],
    [("flag", "ne", 1)],
    [("flag", "lt", 0.5)],
    [("name", "eq", "name 3")],
    [("name", "eq", b"name 3")],
    [("name", "gt", "name 2"), ("name", "lt", b"name 9")],
    [("name", "in", ["name 1", b"name 2"])],
    [("city", "eq", "Köln")],
    [("city", "eq", "longer than eight bytes")],
    [("city", "gte", "Köln")],
    [("city", "lt", "longer than eight bytes")],
    [("city", "eq", "")],
    [("blob", "gt", b"\x10")],
    [("blob", "eq", b"\x10\x00\xff")],
    [("day", "lt", dt.date(1970, 1, 1))],
    [("at", "gte", dt.datetime(2024, 2, 28, tzinfo=dt.timezone(dt.timedelta(hours=5))))],
    [("ratio", "gt", 0.125), ("ratio", "lte", 2.5), ("id", "ne", 1010)],
    [("ratio", "eq", 0.1)],
    [("id", "between", (1003, 1037)), ("city", "in", ("Lima", "Oslo")), ("age", "not_null", None)],
]


@pytest.mark.parametrize("combine", ["and", "or"])
def test_conditions(filled: tuple[SnapDB, Model], combine: str) -> None:
    db, model = filled
    for conditions in CONDITIONS:
        expected = model.select(conditions, combine=combine)
        assert db.select_where(conditions, combine=combine) == expected, conditions
        assert db.count_where(conditions, combine=combine) == len(expected), conditions
        if combine == "and":
            assert db.select(conditions) == expected


def test_use_numpy_never_changes_an_answer(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    choices = [None, False] + [True] * (importlib.util.find_spec("numpy") is not None)
    for conditions in CONDITIONS[1:25:3]:
        expected = model.select(conditions)
        for choice in choices:
            assert db.select_where(conditions, use_numpy=choice) == expected
            assert db.count_where(conditions, use_numpy=choice) == len(expected)
            for agg in ("sum", "min", "max", "avg", "count"):
                answer = db.aggregate("score", agg, conditions, use_numpy=choice)
                assert bits(answer) == bits(model.aggregate("score", agg, conditions))


def test_dict_conditions(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for shorthand, triples in (
        ({"city": "Lima"}, [("city", "eq", "Lima")]),
        ({"age": {"gte": 10, "lt": 60}, "flag": True}, [("age", "gte", 10), ("age", "lt", 60), ("flag", "eq", True)]),
        ({"age": None}, [("age", "eq", None)]),
        ({"age": {"is_null": True}}, [("age", "is_null", None)]),
    ):
        assert db.select_where(shorthand) == model.select(triples)
        assert db.count_where(shorthand, "or") == len(model.select(triples, combine="or"))
        assert db.select(shorthand, limit=3) == model.select(triples, limit=3)


@pytest.mark.parametrize(
    ("limit", "offset"), [(None, 0), (5, 0), (5, 3), (0, 0), (-1, 0), (10**9, 30), (3, 10**9), (None, 17), (1, 2570)]
)
def test_limit_and_offset(filled: tuple[SnapDB, Model], limit: Any, offset: int) -> None:
    db, model = filled
    for where in ([], [("flag", "eq", True)]):
        for columns in (None, ["name", "id"], ["ratio"]):
            expected = model.select(where, columns, limit, offset)
            assert db.select_where(where, columns, limit, offset) == expected
            assert db.select(where, columns=columns, limit=limit, offset=offset) == expected
    assert db.select(lambda row: row["flag"], ["id"], limit, offset) == model.select(
        [("flag", "eq", True)], ["id"], limit, offset
    )


def test_column_order_of_a_projection(plain: SnapDB) -> None:
    assert list(plain.select(columns=["s", "k"], limit=1)[0]) == ["s", "k"]
    assert plain.select(columns=[], limit=2) == [{}, {}]


def test_orient_columns(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for where, limit, offset in (
        ([], None, 0),
        ([("age", "gt", 30)], None, 0),
        ([("age", "gt", 30)], 7, 2),
        ([("id", "eq", 0)], None, 0),
    ):
        got = db.select_where(where, limit=limit, offset=offset, orient="columns")
        rows = model.select(where, limit=limit, offset=offset)
        assert list(got) == NAMES
        for name in NAMES:
            assert bits(list(got[name])) == bits([row[name] for row in rows])
        assert isinstance(got["id"], array)
        assert got["id"].typecode == "q"
    got = db.select_where([], ["ratio", "id"], orient="columns")
    assert list(got) == ["ratio", "id"]
    with pytest.raises(ValueError, match="orient"):
        db.select_where([], orient="rows")


@pytest.mark.parametrize(
    "conditions",
    [
        [("age", "like", 1)], [("age", 1, 1)], [("age",)], [("age", "eq", 1, 2)], "age", 5, [5], [("age", "eq", "x")],
        [("name", "eq", 5)], [("age", "between", 5)], [("age", "between", (1, 2, 3))], [("age", "in", 5)],
        [("day", "eq", "2020-01-01")], [("at", "lt", dt.datetime(2020, 1, 1))], {"age": {}}, [("flag", "eq", "yes")],
        [("blob", "eq", "text")],
    ],
)  # fmt: skip
def test_bad_conditions(make_db: MakeDb, conditions: Any) -> None:
    db = make_db(SCHEMA)
    for call in (db.select_where, db.count_where, db.delete_where, db.select):
        with pytest.raises(ValueError) as caught:
            call(conditions)
        assert isinstance(caught.value, errors.SnapDBError)
    with pytest.raises(ValueError):
        db.aggregate("age", where=conditions)
    with pytest.raises(ValueError):
        db.group_by("age", "id", where=conditions)
    with pytest.raises(ValueError):
        db.batch_update(conditions, {"age": 1})


def test_bad_combine_and_window(plain: SnapDB) -> None:
    for combine in ("xor", None, 1):
        with pytest.raises(ValueError, match="combine"):
            plain.select_where([], combine=combine)
        with pytest.raises(ValueError, match="combine"):
            plain.count_where([("k", "eq", 1)], combine)
        with pytest.raises(ValueError, match="combine"):
            plain.delete_where([("k", "eq", 1)], combine)
    with pytest.raises(ValueError, match="offset"):
        plain.select(offset=-1)


def test_misused_reads_say_what_to_do(plain: SnapDB) -> None:
    for given in ({"limit": "1"}, {"offset": "x"}, {"limit": 1.5}, {"offset": None}):
        ((option, value),) = given.items()
        for call in (plain.select, plain.select_where):
            with pytest.raises(errors.ValueTypeError, match=f"{option} must be an int, not {type(value).__name__}"):
                call([], **given)
    with pytest.raises(errors.ValueTypeError, match="columns: give a list of column names, not int"):
        plain.select(columns=5)
    for agg, near in (("mean", "avg"), ("average", "avg"), ("len", "count"), ("size", "count"), ("SUM", "sum")):
        with pytest.raises(errors.AggregateError, match=f"unknown aggregate '{agg}'.*did you mean '{near}'"):
            plain.aggregate("k", agg)
    with pytest.raises(errors.AggregateError, match="unknown aggregate \\['sum'\\]"):
        plain.aggregate("k", ["sum"])
    with pytest.raises(errors.UnknownColumnError, match=r"len\(db\) or count_where\(\[\]\)"):
        plain.aggregate("*", "count")
    with pytest.raises(errors.UnknownColumnError, match="count a column that is not null"):
        plain.group_by("s", "*", "count")
    for key, value in ((None, "k"), (5, "k"), ("s", {"k": 5})):
        with pytest.raises(errors.ValueTypeError, match="^group_by: .* is a name or a list of names, not "):
            plain.group_by(key, value)
    with pytest.raises(ValueError, match="columns"):
        plain.select(columns="k")


def test_unknown_columns(plain: SnapDB) -> None:
    calls = [
        lambda: plain.lookup("kk", 1), lambda: plain.find(kk=1), lambda: plain.range_find("kk", 1),
        lambda: plain.select([("kk", "eq", 1)]), lambda: plain.select(columns=["kk"]),
        lambda: plain.select_where({"kk": 1}), lambda: plain.select_where([], ["kk"]),
        lambda: plain.count_where([("kk", "eq", 1)]), lambda: plain.aggregate("kk"),
        lambda: plain.aggregate("k", where=[("kk", "eq", 1)]), lambda: plain.group_by("kk", "v"),
        lambda: plain.group_by("k", "kk"), lambda: plain.group_by(["k", "kk"], "v"),
        lambda: plain.group_by("k", {"kk": "sum"}), lambda: plain.select_column("kk"),
        lambda: plain.to_numpy("kk"), lambda: plain.column_buffer("kk"), lambda: plain.insert({"k": 1, "kk": 1}),
        lambda: plain.update(0, {"kk": 1}), lambda: plain.batch_update([], {"kk": 1}),
        lambda: plain.delete_where([("kk", "eq", 1)]), lambda: plain.insert_columns({"k": [1], "kk": [1]}),
        lambda: plain.batch_update([("kk", "eq", 1)], {}),
    ]  # fmt: skip
    before = list(plain)
    for call in calls:
        with pytest.raises(errors.UnknownColumnError, match="'kk'") as caught:
            call()
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, ValueError)
    assert list(plain) == before


def test_lookup_and_find(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for column, value in (
        ("id", 1012),
        ("name", "name 5"),
        ("name", b"name 5"),
        ("age", 7),
        ("flag", False),
        ("id", 1),
        ("age", None),
    ):
        expected = model.select([(column, "eq", value)])
        assert db.find(**{column: value}) == expected
        assert db.lookup(column, value) == (expected[0] if expected else None)
    assert db.find(city="Lima", flag=True) == model.select([("city", "eq", "Lima"), ("flag", "eq", True)])
    assert db.find() == model.select()


def test_range_find(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for column, low, high in (
        ("age", 10, 40), ("age", None, 12.5), ("age", 80, None), ("score", None, None), ("score", 3, 4),
        ("name", "name 2", "name 5"),
        ("day", dt.date(1970, 1, 1), None), ("age", 40, 10), ("city", None, "M"),
    ):  # fmt: skip
        for include_low in (True, False):
            for include_high in (True, False):
                conditions = [(column, "not_null", None)]
                if low is not None:
                    conditions.append((column, "gte" if include_low else "gt", low))
                if high is not None:
                    conditions.append((column, "lte" if include_high else "lt", high))
                rows = sorted(
                    model.select(conditions),
                    key=lambda row: row[column].encode() if isinstance(row[column], str) else row[column],
                )
                assert db.range_find(column, low, high, include_low, include_high) == rows


def test_range_find_orders_by_value_then_id(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    values = [2.0, 1.0, None, math.nan, 1.0, -0.0, 0.0, 2.0]
    db.batch_insert({"k": i, "v": v} for i, v in enumerate(values))
    assert [row["k"] for row in db.range_find("v")] == [5, 6, 1, 4, 0, 7, 3]
    assert [row["k"] for row in db.range_find("v", low=0)] == [5, 6, 1, 4, 0, 7]
    with pytest.raises(ValueError):
        db.range_find("v", low="1")


def test_query(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    got = db.query(lambda row: row["flag"] is None)
    assert iter(got) is got
    assert list(got) == [(idx, row) for idx, row in model.items() if row["flag"] is None]


def test_rows_are_the_callers(plain: SnapDB) -> None:
    for row in (
        plain.get(0),
        plain[0],
        plain.lookup("k", 0),
        plain.find(k=0)[0],
        plain.select(limit=1)[0],
        next(iter(plain))[1],
    ):
        row.clear()
    assert plain.get(0) == {"k": 0, "v": None, "s": "s0"}


def test_aggregate(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    wheres: list[Any] = [None, [], [("age", "gt", 45)], [("id", "eq", 0)], lambda row: row["flag"]]
    for where in wheres:
        for column in NAMES:
            aggs = (
                ("min", "max", "count")
                if column in ("name", "city", "blob", "day", "at")
                else ("sum", "min", "max", "avg", "count")
            )
            for agg in aggs:
                assert bits(db.aggregate(column, agg, where)) == bits(model.aggregate(column, agg, where)), (
                    column,
                    agg,
                )
    assert db.aggregate("age") == model.aggregate("age", "sum")


def test_aggregate_of_nothing(make_db: MakeDb) -> None:
    db = make_db(SCHEMA)
    for column in ("id", "score", "flag"):
        assert [db.aggregate(column, agg) for agg in ("sum", "count", "min", "max", "avg")] == [0, 0, None, None, None]
    assert db.group_by("city", "id") == {}


def test_bad_aggregates(plain: SnapDB) -> None:
    for column, agg in (("k", "median"), ("k", None), ("s", "sum"), ("s", "avg")):
        with pytest.raises(ValueError):
            plain.aggregate(column, agg)
        with pytest.raises(ValueError):
            plain.group_by("k", column, agg)
        with pytest.raises(ValueError):
            plain.group_by("k", {column: [agg]})
    for keys, values in (([], "k"), ("k", {}), ("k", {"v": []})):
        with pytest.raises(ValueError):
            plain.group_by(keys, values)


def test_group_by(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    wheres: list[Any] = [None, [("age", "gt", 45)], [("id", "eq", 0)], lambda row: row["score"]]
    many = ("city", "flag", "age", "name", "day", ["city"], ["flag", "city"], ["age", "flag", "name"], ("id",))
    for where in wheres:
        for keys in many if where is None and len(model.rows) < 100 else ("age", ["flag", "city"]):
            for column in ("age", "score", "ratio"):
                for agg in ("sum", "min", "max", "avg", "count"):
                    got = db.group_by(keys, column, agg, where)
                    assert bits(got) == bits(model.group_by(keys, column, agg, where)), (keys, column, agg)
    assert db.group_by("city", "age") == model.group_by("city", "age", "count")


def test_group_by_many_values(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    values = {"score": ["sum", "avg", "min", "max"], "id": "count", "name": ["min", "count"], "day": ("max",)}
    for keys in ("city", ["flag", "city"]):
        got = db.group_by(keys, values)
        names = ["score_sum", "score_avg", "score_min", "score_max", "id_count", "name_min", "name_count", "day_max"]
        for name in names:
            column, agg = name.split("_")
            assert all(list(result) == names for result in got.values())
            assert bits({key: result[name] for key, result in got.items()}) == bits(model.group_by(keys, column, agg))


def test_group_keys(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    values = [None, math.nan, -0.0, 0.0, float.fromhex("nan"), None, 1.0]
    db.batch_insert({"k": i, "v": v, "s": None if i < 3 else "x"} for i, v in enumerate(values))
    groups = db.group_by("v", "k", "sum")
    keys = list(groups)
    assert keys[0] is None
    assert math.isnan(keys[1])
    assert bits(keys[2:]) == bits([-0.0, 1.0])
    assert list(groups.values()) == [5, 5, 5, 6]
    assert db.group_by("s", "v", "count") == {None: 2, "x": 3}
    assert bits(db.group_by("v", "v", "sum")[None]) == bits(0.0)
    assert db.group_by("v", "v", "max")[None] is None
    assert db.group_by("v", "v", "avg")[None] is None


def test_select_column(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for name in NAMES:
        assert bits(db.select_column(name)) == bits([row[name] for _, row in model.items()])


# -- export and figures ----------------------------------------------------------
def test_column_buffer(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    formats = {"id": "q", "age": "B", "score": "d", "flag": "?", "day": "i", "at": "q", "ratio": "f"}
    for name, form in formats.items():
        view = db.column_buffer(name)
        assert (view.format, view.readonly, view.contiguous, view.ndim, len(view)) == (
            form,
            True,
            True,
            1,
            model.positions,
        )
        values = view.tolist()
        for idx in range(model.positions):
            value = model.rows[idx][name] if idx in model.rows else None
            if name in ("score", "ratio") and value is None:
                assert math.isnan(values[idx])
            elif name in ("day", "at"):
                assert (values[idx] == 0) or value is not None
            else:
                assert values[idx] == (value or 0)
    for name in ("name", "city", "blob"):
        with pytest.raises(TypeError, match=name):
            db.column_buffer(name)


def test_column_buffer_stays_as_it_was(plain: SnapDB) -> None:
    view = plain.column_buffer("k")
    plain.update(0, {"k": 99})
    plain.batch_insert({"k": i} for i in range(2000))
    assert view.tolist() == list(range(12))
    assert plain.column_buffer("k").tolist() == [99, *range(1, 12), *range(2000)]
    plain.delete(1)
    assert plain.column_buffer("k")[1] == 0


def test_to_numpy(filled: tuple[SnapDB, Model]) -> None:
    np = pytest.importorskip("numpy")
    db, model = filled
    for zero_copy in (False, True):
        for name in NAMES:  # rows are deleted, so every column has nulls
            got = db.to_numpy(name, zero_copy=zero_copy)
            assert got.dtype == object
            assert bits(got.tolist()) == bits(
                [model.rows[i][name] if i in model.rows else None for i in range(model.positions)]
            )
    db.compact()
    model.compact()
    dtypes = {"id": "<i8", "ratio": "<f4", "at": "<M8[us]", "name": "O", "age": "O", "city": "O"}
    for name, dtype in dtypes.items():
        for zero_copy in (False, True):
            got = db.to_numpy(name, zero_copy=zero_copy)
            assert got.dtype == np.dtype(dtype)
            assert len(got) == len(model.rows)
            if not zero_copy:
                assert got.flags.owndata
                assert got.flags.writeable
        if dtype not in ("O", "<M8[us]"):
            assert got.tolist() == [row[name] for _, row in model.items()]
            assert not got.flags.writeable
    whole = db.to_numpy("id")
    whole[:] = 0
    assert db.select_column("id") == [row["id"] for _, row in model.items()]
    assert db.to_numpy("at").tolist() == [row["at"].replace(tzinfo=None) for _, row in model.items()]


def test_to_numpy_without_numpy(plain: SnapDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match="pip install numpy"):
        plain.to_numpy("k")
    with pytest.raises(errors.UnknownColumnError):
        plain.to_numpy("kk")


def test_zero_copy_leaves_the_database_writable(plain: SnapDB) -> None:
    pytest.importorskip("numpy")
    view = plain.to_numpy("k", zero_copy=True)
    plain.update(3, {"k": -3})
    plain.insert({"k": 100})
    plain.delete(0)
    assert view.tolist() == list(range(12))
    assert plain.get(3)["k"] == -3


def test_memory_usage_and_stats(filled: tuple[SnapDB, Model], engine: str) -> None:
    db, model = filled
    stats = db.stats()
    assert (stats["rows"], stats["deleted_rows"]) == (len(model.rows), 4)
    assert list(stats["columns"]) == NAMES
    for column in stats["columns"].values():
        assert isinstance(column["encoding"], str)
        assert column["bytes"] > 0
    before = db.memory_usage()
    assert isinstance(before, int)
    db.batch_insert(person(i) for i in range(10_000, 14_000))
    assert db.memory_usage() > before > 0
    db.flush()
    db.checkpoint()


def test_memory_comes_back(make_db: MakeDb, engine: str) -> None:
    schema = Schema([ColumnDef("k", "i64"), ColumnDef("t", "str")])
    db = make_db(schema)
    db.insert_columns(
        {"k": [i * i * 7919 % 100_003 for i in range(4000)], "t": [f"{i * 7919 % 4001:x} text" for i in range(4000)]}
    )
    full = db.memory_usage()
    db.delete_where([("k", "gte", 0)])
    db.compact()
    assert db.memory_usage() < full / 2


def test_column_buffer_is_decoded_once_until_the_next_write(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    db.batch_insert({"k": i} for i in range(3000))
    small = db.memory_usage()
    held = db.column_buffer("k")
    assert db.column_buffer("k") is held or db.column_buffer("k").obj is held.obj
    assert db.memory_usage() >= small + held.nbytes
    db.update(5, {"k": -1})
    assert db.memory_usage() < small + held.nbytes
    assert (held[5], db.column_buffer("k")[5]) == (5, -1)
    db.delete(7)
    assert db.column_buffer("k")[7] == 0
    db.insert({"k": 9})
    assert (len(db.column_buffer("k")), db.column_buffer("k")[3000]) == (3001, 9)


def test_groups_that_begin_in_the_tail(make_db: MakeDb) -> None:
    """Keys of the last rows alone: past the whole blocks of the columnar engine, numbered after the sealed ones."""
    schema = Schema([ColumnDef("a", "str"), ColumnDef("b", "i32", not_null=False), ColumnDef("v", "f64")])
    db = make_db(schema)
    rows = [{"a": "xy"[i % 2], "b": i % 3, "v": i / 8} for i in range(2048)]
    rows += [{"a": "xzw"[i % 3], "b": None if i % 2 else 7 + i % 3, "v": i / 16} for i in range(30)]
    db.batch_insert(rows)
    single: dict[Any, float] = {}
    pairs: dict[Any, int] = {}
    for row in rows:
        single[row["a"]] = single.get(row["a"], 0.0) + row["v"]  # sums of eighths and sixteenths are exact
        pairs[row["a"], row["b"]] = pairs.get((row["a"], row["b"]), 0) + 1
    assert list(db.group_by("a", "v", "sum").items()) == list(single.items())
    assert list(db.group_by(["a", "b"], "v", "count").items()) == list(pairs.items())
    late = [("v", "lt", 2.0)]
    kept: dict[Any, int] = {}
    for row in rows:
        if row["v"] < 2.0:
            kept[row["b"]] = kept.get(row["b"], 0) + 1
    assert list(db.group_by("b", "v", "count", where=late).items()) == list(kept.items())
