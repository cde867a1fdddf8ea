"""The public methods of SnapDB, one by one, on each engine and backend. What they do together: test_state_machine.py."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeDb
from model import Model, bits

from snapdb import ColumnDef, Schema, SnapDB, errors

UTC = dt.timezone.utc
SCHEMA = Schema(
    [
        ColumnDef("id", "i64", primary_key=True),
        ColumnDef("name", "str"),
        ColumnDef("age", "u8", not_null=False),
        ColumnDef("score", "f64", not_null=False),
        ColumnDef("flag", "bool", not_null=False),
        ColumnDef("city", "bytes:8"),
        ColumnDef("blob", "binary", not_null=False),
        ColumnDef("day", "date", not_null=False),
        ColumnDef("at", "datetime", not_null=False),
        ColumnDef("ratio", "f32"),
    ]
)
NAMES = list(SCHEMA.names)
PLAIN = Schema([ColumnDef("k", "i32"), ColumnDef("v", "f64", not_null=False), ColumnDef("s", "str", not_null=False)])
CITIES = ("Oslo", "Lima", "Köln", "", "Ankara")


def person(i: int) -> dict[str, Any]:
    return {
        "id": 1000 + i,
        "name": f"name {i % 23}",
        "age": None if i % 7 == 3 else i % 90,
        "score": None if i % 11 == 5 else (i * 37 % 101) / 4,
        "flag": (True, False, None)[i % 3],
        "city": CITIES[i % 5],
        "blob": None if i % 2 else bytes([i % 256, 0, 255]),
        "day": None if i % 13 == 1 else dt.date(1969, 12, 25) + dt.timedelta(days=i),
        "at": dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC) - dt.timedelta(hours=i),
        "ratio": i / 8,
    }


def people(count: int) -> list[dict[str, Any]]:
    return [person(i) for i in range(count)]


@pytest.fixture(params=[40, 2600], ids=["tail", "sealed"])
def filled(request: pytest.FixtureRequest, make_db: MakeDb) -> tuple[SnapDB, Model]:
    """A table with deleted and updated rows, and its model; small enough to be all tail, or with sealed blocks."""
    db, model = make_db(SCHEMA), Model(SCHEMA)
    for it in (db, model):
        it.batch_insert(people(request.param))
        for idx in (0, 7, 8, 33):
            it.delete(idx)
        for idx, changes in ((1, {"age": None}), (2, {"name": "ü" * 50, "score": -0.5}), (35, {"flag": True, "age": 7})):
            it.update(idx, changes)
    return db, model


@pytest.fixture
def plain(make_db: MakeDb) -> SnapDB:
    db = make_db(PLAIN)
    db.batch_insert({"k": i, "v": i / 2 if i % 4 else None, "s": f"s{i % 3}"} for i in range(12))
    return db


# -- construction and lifecycle ----------------------------------------------
pytestmark = pytest.mark.smoke


def test_attributes(make_db: MakeDb, engine: str) -> None:
    db = make_db(PLAIN, page_size=512)
    assert (str(db.path), db.schema, db.storage_type, db.page_size) == (":memory:", PLAIN, engine, 512)
    assert db.is_columnar() is (engine == "columnar")
    assert repr(db).startswith("SnapDB(")
    assert len(db) == 0
    assert list(db) == []


def test_row_engine_is_the_default() -> None:
    with SnapDB(":memory:", PLAIN) as db:
        assert db.storage_type == "row"


def test_memory_path_may_be_a_path_object() -> None:
    with SnapDB(Path(":memory:"), PLAIN) as db:
        assert db.insert({"k": 1}) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"schema": None}, ValueError),
        ({"schema": [("k", "i32")]}, ValueError),
        ({"storage_type": "heap"}, ValueError),
        ({"durability": "maybe"}, ValueError),
        ({"page_size": 10, "storage_type": "row"}, ValueError),
        ({"page_size": 70_000, "storage_type": "row"}, ValueError),
        ({"page_size": "4096", "storage_type": "row"}, ValueError),
        ({"dict_columns": ["nope"], "storage_type": "row"}, KeyError),
        ({"dict_columns": ["nope"], "storage_type": "columnar"}, KeyError),
        ({"delta_columns": ["nope"], "storage_type": "columnar"}, KeyError),
        ({"for_columns": ["nope"], "storage_type": "columnar"}, KeyError),
    ],
)
def test_bad_construction(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        SnapDB(":memory:", **{"schema": PLAIN, **arguments})
    assert isinstance(caught.value, errors.SnapDBError)


def test_row_wider_than_page() -> None:
    with pytest.raises(errors.SchemaError, match="page_size"):
        SnapDB(":memory:", Schema([ColumnDef("a", "bytes:100")]), page_size=64)


def test_close(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    db.insert({"k": 1})
    db.close()
    db.close()
    assert "closed" in repr(db)
    calls = [
        lambda: len(db), lambda: list(db), lambda: db.get(0), lambda: db.get_raw(0), lambda: db[0], lambda: 0 in db,
        lambda: db.insert({"k": 1}), lambda: db.batch_insert([]), lambda: db.insert_columns({"k": []}),
        lambda: db.update(0, {"k": 2}), lambda: db.delete(0), lambda: db.upsert({"k": 1}), lambda: db.compact(),
        lambda: db.batch_update([], {"k": 1}), lambda: db.delete_where([("k", "eq", 1)]), lambda: db.lookup("k", 1),
        lambda: db.find(k=1), lambda: db.range_find("k"), lambda: list(db.query(bool)), lambda: db.select(),
        lambda: db.select_where([]), lambda: db.count_where([]), lambda: db.aggregate("k"), lambda: db.group_by("k", "v"),
        lambda: db.select_column("k"), lambda: db.to_numpy("k"), lambda: db.column_buffer("k"),
        lambda: db.memory_usage(), lambda: db.stats(), lambda: list(db.iter_raw()), lambda: db.flush(),
        lambda: db.checkpoint(), lambda: db.is_columnar(), db.__enter__,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(errors.ClosedError, match="closed"):
            call()


def test_context_manager_closes(make_db: MakeDb) -> None:
    with make_db(PLAIN) as db:
        db.insert({"k": 1})
    with pytest.raises(RuntimeError, match="closed"):
        len(db)


def test_subclass_may_override_single_row_calls(backend_name: str, engine: str) -> None:
    class Doubled(SnapDB):
        def get(self, idx: int) -> Any:
            row = super().get(idx)
            return row and {**row, "k": 2 * row["k"]}

        def insert(self, row: Any) -> int:
            return super().insert({**row, "k": row["k"] + 1})

    with Doubled(":memory:", PLAIN, storage_type=engine) as db:
        db.insert({"k": 1})
        db.compact()
        assert db.get(0)["k"] == 4


# -- single rows --------------------------------------------------------------
def test_insert_get_every_dtype(make_db: MakeDb) -> None:
    db = make_db(SCHEMA)
    assert [db.insert(person(i)) for i in range(30)] == list(range(30))
    for i in range(30):
        assert bits(db.get(i)) == bits(person(i))
        assert list(db.get(i)) == NAMES


def test_missing_nullable_columns_are_null(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    assert db.insert({"k": 3}) == 0
    assert db.batch_insert([{"k": 4}]) == 1
    assert db.insert_columns({"k": [5]}) == 1
    assert [row for _, row in db] == [{"k": k, "v": None, "s": None} for k in (3, 4, 5)]


def test_get_outside(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    db.insert({"k": 1})
    for idx in (-1, 1, 2**31, 2**63 - 1, -(2**63), 2**70, -(2**70)):
        assert db.get(idx) is None
        assert db.get_raw(idx) is None
        assert idx not in db
        with pytest.raises(KeyError):
            db[idx]
        with pytest.raises(KeyError, match="no row"):
            db.update(idx, {"k": 2})
        with pytest.raises(KeyError, match="no row"):
            db.delete(idx)
    assert 0 in db
    assert "0" not in db
    assert None not in db
    assert list(db) == [(0, {"k": 1, "v": None, "s": None})]


def test_ids_are_any_index(make_db: MakeDb) -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    db = make_db(PLAIN)
    db.batch_insert([{"k": i} for i in range(4)])
    assert db.get(True)["k"] == 1
    assert db.get(Two())["k"] == 2
    for bad in ("0", 1.0, None):
        with pytest.raises(TypeError):
            db.get(bad)


def test_update_merges(make_db: MakeDb) -> None:
    db = make_db(SCHEMA)
    db.batch_insert(people(20))
    db.update(3, {"name": "longer than it was before", "age": None})
    db.update(3, {})
    assert db.get(3) == {**person(3), "name": "longer than it was before", "age": None}
    assert db.get(4) == person(4)
    db.update(3, {"name": "", "age": 200})
    assert db.get(3) == {**person(3), "name": "", "age": 200}
    db.delete(3)
    for idx in (3, 20, -1):
        with pytest.raises(errors.NotFoundError):
            db.update(idx, {"age": 1})
    with pytest.raises(KeyError):
        db.update(0, {"agee": 1})


def test_delete_keeps_ids(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    db.batch_insert([{"k": i} for i in range(5)])
    db.delete(4)
    db.delete(1)
    with pytest.raises(KeyError):
        db.delete(1)
    assert db.insert({"k": 9}) == 5
    assert [idx for idx, _ in db] == [0, 2, 3, 5]
    assert (len(db), db.get(1), db.get(4)) == (4, None, None)


def test_getitem_and_contains(plain: SnapDB) -> None:
    assert plain[2] == plain.get(2)
    assert (2 in plain, 12 in plain) == (True, False)


# -- batches ------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 3000])
def test_batch_insert_sizes(make_db: MakeDb, count: int) -> None:
    db = make_db(PLAIN)
    rows = [{"k": i * 7919 % 1000 - 500, "v": i / 3, "s": str(i % 50)} for i in range(count)]
    assert db.batch_insert(iter(rows)) == count
    assert [row for _, row in db] == rows
    assert db.batch_insert(rows[:10]) == min(10, count)
    assert db.select() == rows + rows[:10]
    assert len(db) == count + min(10, count)


def test_insert_columns_takes_any_sequence(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "i32"), ColumnDef("b", "f64"), ColumnDef("c", "u8")]))
    assert db.insert_columns({"a": [1, 2, 3], "b": (0.5, 1, 2.5), "c": bytes([7, 8, 9])}) == 3
    assert db.insert_columns({"c": memoryview(bytearray([1])), "b": array("d", [4.5]), "a": array("q", [-4])}) == 1
    assert db.insert_columns({"a": range(0), "b": [], "c": ()}) == 0
    assert [tuple(row.values()) for _, row in db] == [(1, 0.5, 7), (2, 1.0, 8), (3, 2.5, 9), (-4, 4.5, 1)]


def test_insert_columns_numpy(make_db: MakeDb) -> None:
    np = pytest.importorskip("numpy")
    schema = Schema([ColumnDef("a", "i64"), ColumnDef("b", "f32"), ColumnDef("c", "bool"), ColumnDef("d", "u16")])
    db = make_db(schema)
    a = np.arange(3000, dtype=np.int32) - 1500
    columns = {"a": a[::-1], "b": np.linspace(0, 1, 3000, dtype=np.float64), "c": a % 2 == 0, "d": (a + 1500).astype("u2")}
    assert db.insert_columns(columns) == 3000
    assert db.select_column("a") == list(range(1499, -1501, -1))
    assert db.select_column("b") == np.linspace(0, 1, 3000).astype("f4").astype("f8").tolist()
    assert db.select_column("c") == [i % 2 == 0 for i in range(3000)]
    assert db.select_column("d") == list(range(3000))


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"k": [1, 2], "v": [0.5]}, ValueError, "length"),
        ({"v": [0.5]}, KeyError, "Missing required column: k"),
        ({"k": [1], "zz": [1]}, KeyError, "zz"),
        ({"k": 5}, ValueError, "k"),
        ({"k": "12"}, ValueError, "k"),
        ([("k", [1])], ValueError, "mapping"),
        (None, ValueError, "mapping"),
    ],
)
def test_insert_columns_refuses(make_db: MakeDb, columns: Any, error: type[Exception], words: str) -> None:
    db = make_db(PLAIN)
    with pytest.raises(error, match=words) as caught:
        db.insert_columns(columns)
    assert isinstance(caught.value, errors.SnapDBError)
    assert len(db) == 0
    assert db.insert({"k": 1}) == 0


def test_insert_columns_missing_column_is_named(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "i32"), ColumnDef("b", "i32")]))
    with pytest.raises(KeyError, match="Missing required column: b"):
        db.insert_columns({"a": [1]})


# -- unique columns and the primary key ----------------------------------------
UNIQUE = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("mail", "str", unique=True, not_null=False), ColumnDef("n", "i32")])


def user(i: int, **changes: Any) -> dict[str, Any]:
    return {"id": i, "mail": f"{i}@x", "n": i, **changes}


@pytest.fixture
def users(make_db: MakeDb) -> SnapDB:
    db = make_db(UNIQUE)
    db.batch_insert(user(i) for i in range(6))
    return db


def assert_users_intact(db: SnapDB) -> None:
    assert list(db) == [(i, user(i)) for i in range(6)]
    assert db.insert(user(6)) == 6  # neither an id nor a key was used up


@pytest.mark.parametrize(
    ("write", "column", "value"),
    [
        (lambda db: db.insert(user(3, mail="new")), "id", "3"),
        (lambda db: db.insert(user(7, mail="3@x")), "mail", "'3@x'"),
        (lambda db: db.batch_insert([user(6), user(2, mail="new")]), "id", "2"),
        (lambda db: db.batch_insert([user(6), user(7), user(6, mail="new")]), "id", "6"),
        (lambda db: db.insert_columns({"id": [6, 7], "mail": ["a", "a"], "n": [1, 1]}), "mail", "'a'"),
        (lambda db: db.update(2, {"id": 3}), "id", "3"),
        (lambda db: db.update(2, {"mail": "3@x", "n": 9}), "mail", "'3@x'"),
        (lambda db: db.batch_update([("n", "gt", 2)], {"mail": "same"}), "mail", "'same'"),
        (lambda db: db.batch_update([("n", "gt", 2)], lambda row: {"id": row["id"] // 2 + 10}), "id", "12"),
        (lambda db: db.batch_update([("n", "gt", 2)], lambda row: {"id": row["id"] - 1}), "id", "2"),
        (lambda db: db.upsert(user(3, mail="4@x")), "mail", "'4@x'"),
        (lambda db: db.upsert(user(8, mail="4@x")), "mail", "'4@x'"),
    ],
)
def test_unique_violations(users: SnapDB, write: Any, column: str, value: str) -> None:
    with pytest.raises(errors.UniqueError, match=f"^UNIQUE constraint failed: {column}={value}") as caught:
        write(users)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, errors.IntegrityError)
    assert caught.value.column == column
    assert_users_intact(users)


def test_unique_batch_names_the_row(users: SnapDB) -> None:
    with pytest.raises(errors.UniqueError, match="row 2 of the batch") as caught:
        users.batch_insert([user(6), user(7), user(6, mail="z")])
    assert caught.value.row_index == 2


def test_keys_are_free_after_delete_update_and_compact(users: SnapDB) -> None:
    users.delete(1)
    assert users.insert(user(1)) == 6
    users.update(6, {"id": 50})
    assert users.insert(user(1, mail="other")) == 7
    users.update(6, {"id": 50, "mail": "1@x"})  # its own values do not collide
    users.delete_where([("n", "lte", 2)])
    users.compact()
    with pytest.raises(errors.UniqueError):
        users.insert(user(4, mail="z"))
    assert users.insert(user(0)) == 3
    assert users.upsert({"id": 4, "mail": "q", "n": 5}) == 1
    assert users.get(1) == {"id": 4, "mail": "q", "n": 5}


def test_keys_may_be_exchanged_in_one_batch_update(users: SnapDB) -> None:
    assert users.batch_update([], lambda row: {"id": 5 - row["id"]}) == 6
    assert users.select_column("id") == [5, 4, 3, 2, 1, 0]
    with pytest.raises(errors.UniqueError):
        users.insert(user(0, mail="z"))
    assert users.upsert(user(0, mail="z")) == 5


def test_nulls_and_nan_do_not_collide(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("f", "f64", unique=True, not_null=False)]))
    db.batch_insert([{"f": None}, {"f": None}, {"f": math.nan}, {"f": math.nan}, {"f": 0.0}])
    with pytest.raises(errors.UniqueError):
        db.insert({"f": -0.0})
    db.insert({"f": None})
    db.insert({"f": math.nan})
    assert len(db) == 7


def test_unique_text_as_bytes_or_str(users: SnapDB) -> None:
    with pytest.raises(errors.UniqueError):
        users.insert(user(9, mail=b"3@x"))
    assert_users_intact(users)


def test_upsert(users: SnapDB) -> None:
    assert users.upsert(user(3, n=33, mail="m")) == 3
    assert users.get(3) == user(3, n=33, mail="m")
    assert users.upsert(user(9)) == 6
    assert len(users) == 7
    users.delete(3)
    assert users.upsert(user(3)) == 7
    with pytest.raises(KeyError, match="Missing required column: id"):
        users.upsert({"n": 1})
    with pytest.raises(ValueError, match="id"):
        users.upsert(user(3, id=None))
    with pytest.raises(KeyError, match="nn"):
        users.upsert({"id": 3, "nn": 1})


def test_upsert_needs_a_primary_key(plain: SnapDB) -> None:
    with pytest.raises(errors.SchemaError, match="primary key"):
        plain.upsert({"k": 1})


# -- writes of many rows -------------------------------------------------------
def test_batch_update(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    steps: list[tuple[Any, Any]] = [
        ([("age", "lt", 30)], {"score": 1.25}),
        ({"city": "Lima"}, {"name": "changed", "blob": None}),
        (lambda row: row["ratio"] > 3, lambda row: {"ratio": row["ratio"] - 1, "flag": None}),
        ([("age", "is_null", None)], lambda row: {"age": row["id"] % 100}),
        ([("id", "eq", -1)], {"age": 1}),
        ([], {"day": dt.date(2000, 1, 1)}),
    ]
    for where, updates in steps:
        triples = [("city", "eq", "Lima")] if isinstance(where, dict) else where
        assert db.batch_update(where, updates) == model.batch_update(triples, updates)
        assert list(db) == model.items()


def test_batch_update_is_all_or_nothing(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled

    def late(row: dict[str, Any]) -> dict[str, Any]:
        return {"age": 5 if row["id"] < 1030 else 999}

    for updates, error in ((late, ValueError), ({"age": "x"}, ValueError), ({"nope": 1}, KeyError), (lambda row: 5, ValueError)):
        with pytest.raises(error):
            db.batch_update([], updates)
        assert list(db) == model.items()
    with pytest.raises(ZeroDivisionError):
        db.batch_update(lambda row: 1 / 0, {"age": 1})
    with pytest.raises(ZeroDivisionError):
        db.batch_update([], lambda row: 1 / 0)
    assert list(db) == model.items()


def test_delete_where(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    steps: list[tuple[Any, str]] = [
        ([("age", "between", (10, 20)), ("flag", "eq", True)], "and"),
        ([("city", "eq", "Oslo"), ("name", "eq", "name 4")], "or"),
        ([("id", "eq", -5)], "and"),
        ([("score", "is_null", None)], "and"),
    ]
    for conditions, combine in steps:
        assert db.delete_where(conditions, combine) == model.delete_where(conditions, combine)
        assert list(db) == model.items()
        assert len(db) == len(model.rows)
    for nothing in ([], {}, None):
        with pytest.raises(ValueError, match="conditions"):
            db.delete_where(nothing)
    assert db.delete_where([("id", "not_null", None)]) == len(model.rows)
    assert (len(db), list(db), db.count_where([])) == (0, [], 0)


def test_compact(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    model.compact()
    assert db.compact() >= 0
    assert list(db) == model.items()
    assert db.get(0) == model.rows[0]
    assert db.insert(person(9000)) == model.insert(person(9000))
    assert list(db) == model.items()
    assert db.stats()["deleted_rows"] == 0


def test_compact_empty(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    assert db.compact() == 0
    db.insert({"k": 1})
    db.delete(0)
    db.compact()
    assert (len(db), list(db), db.insert({"k": 2})) == (0, [], 0)


def test_held_methods_survive_compact(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    get, insert = db.get, db.insert
    for i in range(5):
        insert({"k": i})
    db.delete(0)
    db.compact()
    assert get(0) == db.get(0) == {"k": 1, "v": None, "s": None}
    assert insert({"k": 9}) == 4
    assert get(4)["k"] == 9


# -- raw rows ------------------------------------------------------------------
FIXED = Schema([ColumnDef("a", "i32"), ColumnDef("b", "bytes:5"), ColumnDef("c", "f64"), ColumnDef("d", "bool"), ColumnDef("e", "date")])


def test_get_raw(make_db: MakeDb, engine: str) -> None:
    db = make_db(FIXED)
    rows = [{"a": i - 2, "b": "x" * i, "c": i / 7, "d": i % 2 == 0, "e": dt.date(2020, 1, 1 + i)} for i in range(5)]
    db.batch_insert(rows)
    if engine == "columnar":
        assert db.get_raw(0) is None
        with pytest.raises(errors.NotSupportedError):
            db.iter_raw()
        return
    raws = [db.get_raw(i) for i in range(5)]
    for raw, row in zip(raws, rows):
        assert isinstance(raw, memoryview)
        assert raw.readonly
        assert raw.nbytes == FIXED.struct_size
        assert FIXED.decode_row(raw) == row
        assert bytes(raw) == FIXED.encode_row(row)
    assert [(idx, bytes(raw)) for idx, raw in db.iter_raw()] == [(i, bytes(raw)) for i, raw in enumerate(raws)]
    held = bytes(raws[2])
    db.update(2, {"a": 77, "b": "zz"})
    db.delete(3)
    db.batch_insert(rows * 100)
    assert bytes(raws[2]) == held
    assert FIXED.decode_row(raws[3]) == rows[3]
    assert FIXED.decode_row(db.get_raw(2)) == {**rows[2], "a": 77, "b": "zz"}
    assert db.get_raw(3) is None
    assert [idx for idx, _ in db.iter_raw()][:4] == [0, 1, 2, 4]
    db.compact()
    db.close()
    assert bytes(raws[2]) == held


# -- iteration -----------------------------------------------------------------
def test_iteration_sees_its_start(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    expected = model.items()
    iterators: list[Iterator[Any]] = [iter(db), iter(db), db.query(lambda row: True)]
    started = [next(iterators[0])]
    db.batch_update([], {"name": "later", "age": None})
    db.delete_where([("id", "lt", 1020)])
    db.insert(person(5000))
    db.batch_insert(person(i) for i in range(6000, 7500))
    assert started + list(iterators[0]) == expected
    assert list(iterators[1]) == expected
    assert list(iterators[2]) == expected
    third = iter(db)
    now = list(db)
    db.compact()
    assert list(third) == now


def test_iteration_may_write(make_db: MakeDb) -> None:
    db = make_db(PLAIN)
    db.batch_insert({"k": i} for i in range(3000))
    for idx, row in db:
        if row["k"] % 3 == 0:
            db.delete(idx)
        elif row["k"] % 3 == 1:
            db.update(idx, {"k": -row["k"]})
        else:
            db.insert({"k": 10_000})
    assert len(db) == 3000
    assert db.count_where([("k", "lt", 0)]) == 1000


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


@pytest.mark.parametrize(("limit", "offset"), [(None, 0), (5, 0), (5, 3), (0, 0), (-1, 0), (10**9, 30), (3, 10**9), (None, 17), (1, 2570)])
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
    for where, limit, offset in (([], None, 0), ([("age", "gt", 30)], None, 0), ([("age", "gt", 30)], 7, 2), ([("id", "eq", 0)], None, 0)):
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
    for column, value in (("id", 1012), ("name", "name 5"), ("name", b"name 5"), ("age", 7), ("flag", False), ("id", 1), ("age", None)):
        expected = model.select([(column, "eq", value)])
        assert db.find(**{column: value}) == expected
        assert db.lookup(column, value) == (expected[0] if expected else None)
    assert db.find(city="Lima", flag=True) == model.select([("city", "eq", "Lima"), ("flag", "eq", True)])
    assert db.find() == model.select()


def test_range_find(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    for column, low, high in (
        ("age", 10, 40), ("age", None, 12.5), ("age", 80, None), ("score", None, None), ("score", 3, 4), ("name", "name 2", "name 5"),
        ("day", dt.date(1970, 1, 1), None), ("age", 40, 10), ("city", None, "M"),
    ):  # fmt: skip
        for include_low in (True, False):
            for include_high in (True, False):
                conditions = [(column, "not_null", None)]
                if low is not None:
                    conditions.append((column, "gte" if include_low else "gt", low))
                if high is not None:
                    conditions.append((column, "lte" if include_high else "lt", high))
                rows = sorted(model.select(conditions), key=lambda row: (row[column].encode() if isinstance(row[column], str) else row[column]))
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
    for row in (plain.get(0), plain[0], plain.lookup("k", 0), plain.find(k=0)[0], plain.select(limit=1)[0], next(iter(plain))[1]):
        row.clear()
    assert plain.get(0) == {"k": 0, "v": None, "s": "s0"}


def test_aggregate(filled: tuple[SnapDB, Model]) -> None:
    db, model = filled
    wheres: list[Any] = [None, [], [("age", "gt", 45)], [("id", "eq", 0)], lambda row: row["flag"]]
    for where in wheres:
        for column in NAMES:
            aggs = ("min", "max", "count") if column in ("name", "city", "blob", "day", "at") else ("sum", "min", "max", "avg", "count")
            for agg in aggs:
                assert bits(db.aggregate(column, agg, where)) == bits(model.aggregate(column, agg, where)), (column, agg)
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
        assert (view.format, view.readonly, view.contiguous, view.ndim, len(view)) == (form, True, True, 1, model.positions)
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
            assert bits(got.tolist()) == bits([model.rows[i][name] if i in model.rows else None for i in range(model.positions)])
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
    db.insert_columns({"k": [i * i * 7919 % 100_003 for i in range(4000)], "t": [f"{i * 7919 % 4001:x} text" for i in range(4000)]})
    full = db.memory_usage()
    db.delete_where([("k", "gte", 0)])
    db.compact()
    assert db.memory_usage() < full / 2
