"""SnapDB's lifecycle, writes, raw rows and iteration, on each engine and backend. Queries: test_reads.py."""

from __future__ import annotations

import copy
import datetime as dt
import math
import pickle
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeDb
from model import Model, bits
from people import NAMES, PLAIN, SCHEMA, people, person

from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB, errors

pytestmark = pytest.mark.smoke


# -- construction and lifecycle ----------------------------------------------
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


@pytest.mark.parametrize("arguments", [("columnar",), ("row",), ("columnar", "columnar")])
def test_storage_type_given_as_page_size(arguments: Any) -> None:
    with pytest.raises(errors.SchemaError, match=f"did you mean storage_type='{arguments[0]}'"):
        SnapDB(":memory:", PLAIN, *arguments)


@pytest.mark.parametrize("option", ["dict_columns", "delta_columns", "for_columns"])
def test_one_name_where_a_list_is_meant(engine: str, option: str) -> None:
    makers: list[Any] = [
        lambda **given: SnapDB(":memory:", PLAIN, storage_type=engine, **given),
        lambda **given: ColumnarTable("t", [("k", "i32")], **given),
    ]
    for make in makers:
        with pytest.raises(errors.ValidationError, match=rf"{option}: give a list of column names, such as \['k'\]"):
            make(**{option: "k"})
        with pytest.raises(errors.ValueTypeError, match=f"{option}: give a list of column names, not int"):
            make(**{option: 5})


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_is_not_copied(make_db: MakeDb, take: Any) -> None:
    db = make_db(PLAIN)
    for _ in range(2):
        with pytest.raises(errors.NotSupportedError, match="a SnapDB handle cannot be copied or pickled; "):
            take(db)
        db.close()


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
        lambda: db.select_where([]), lambda: db.count_where([]), lambda: db.aggregate("k"),
        lambda: db.group_by("k", "v"),
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
    columns = {
        "a": a[::-1],
        "b": np.linspace(0, 1, 3000, dtype=np.float64),
        "c": a % 2 == 0,
        "d": (a + 1500).astype("u2"),
    }
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
UNIQUE = Schema(
    [
        ColumnDef("id", "i64", primary_key=True),
        ColumnDef("mail", "str", unique=True, not_null=False),
        ColumnDef("n", "i32"),
    ]
)


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
    with pytest.raises(errors.UniqueError, match=r"\(row 1 of the batch\); the stored row with id 1 has it: "):
        users.batch_insert([user(6), user(1, mail="z")])
    with pytest.raises(errors.UniqueError, match="the stored row with id 3 has it"):
        users.update(2, {"id": 3})


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

    for updates, error in (
        (late, ValueError),
        ({"age": "x"}, ValueError),
        ({"nope": 1}, KeyError),
        (lambda row: 5, ValueError),
    ):
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
        with pytest.raises(ValueError, match="conditions") as caught:
            db.delete_where(nothing)
        assert "such as [('id', 'not_null')]" in str(caught.value)
    assert db.delete_where([("id", "not_null", None)]) == len(model.rows)
    assert (len(db), list(db), db.count_where([])) == (0, [], 0)


def test_delete_where_says_how_to_delete_every_row_of_nullable_columns(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "i8", not_null=False)]))
    db.batch_insert([{"a": 1}, {}])
    text = r"\[\('a', 'not_null'\), \('a', 'is_null'\)\] with combine='or'"
    with pytest.raises(errors.ValidationError, match=text):
        db.delete_where([])
    assert db.delete_where([("a", "not_null"), ("a", "is_null")], combine="or") == 2


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
FIXED = Schema(
    [
        ColumnDef("a", "i32"),
        ColumnDef("b", "bytes:5"),
        ColumnDef("c", "f64"),
        ColumnDef("d", "bool"),
        ColumnDef("e", "date"),
    ]
)


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
