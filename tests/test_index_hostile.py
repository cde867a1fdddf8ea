"""Indexes under odd use: writes beside the making of one, values and moments that nobody would choose."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import Files, MakeDb
from test_signals import At, is_free

from snapdb import ColumnDef, Schema, SnapDB, _ext

PAIRS = Schema([ColumnDef("k", "i64"), ColumnDef("v", "i64", not_null=False)])


def sound(db: SnapDB) -> bool:
    """Whether every index says what the rows say."""
    return list(db._indexes.verify()) == []


# -- writes that began before there was an index -----------------------------


def test_an_insert_that_was_kept_tells_the_indexes_made_since(make_db: MakeDb) -> None:
    db = make_db(PAIRS)
    insert = db.insert
    insert({"k": 0, "v": 5})
    for n in range(1, 4):  # each time the same method, through and past the gate
        db.create_index("v")
        db.create_range_index("v")
        assert db.lookup("v", 5) == {"k": 0, "v": 5}
        insert({"k": n, "v": 10 + n})
        assert db.lookup("v", 10 + n) == {"k": n, "v": 10 + n} == db.find(v=10 + n)[0]
        assert db.range_find("v", 10 + n) == [{"k": n, "v": 10 + n}]
        assert sound(db)
        db.drop_index("v")
        db.drop_range_index("v")
        insert({"k": -n})
    assert len(db) == 7


def test_an_insert_into_a_file_that_was_kept_tells_them_too(any_files: Files) -> None:
    with any_files.open(PAIRS) as db:
        insert = db.insert
        db.create_index("v")
        insert({"k": 1, "v": 2})
        assert db.find(v=2) == [{"k": 1, "v": 2}] and sound(db)
        db = any_files.kill(db)
        assert db.find(v=2) == [{"k": 1, "v": 2}]


def test_an_insert_that_was_kept_outlasts_no_database(make_db: MakeDb) -> None:
    db = make_db(PAIRS)
    insert = db.insert
    db.create_index("v")
    db.close()
    with pytest.raises(RuntimeError, match="closed"):
        insert({"k": 1})


class Meddling(dict):  # type: ignore[type-arg]
    """A row that does something when it is read."""

    def __init__(self, row: dict[str, Any], does: Callable[[], Any]) -> None:
        super().__init__(row)
        self.does = does

    def __getitem__(self, key: str) -> Any:
        self.does()
        return super().__getitem__(key)

    def items(self) -> Any:
        self.does()
        return super().items()

    def keys(self) -> Any:
        self.does()
        return super().keys()

    def __iter__(self) -> Iterator[Any]:
        self.does()
        return super().__iter__()


class Number(int):
    """A value that does something when it is read."""

    does: Callable[[], Any]

    def __index__(self) -> int:
        self.does()
        return int(self) + 0


def meddling(value: int, does: Callable[[], Any]) -> Number:
    number = Number(value)
    number.does = does
    return number


@pytest.mark.parametrize("write", ["insert", "update", "upsert"])
def test_a_row_that_makes_an_index_while_it_is_written(make_db: MakeDb, write: str) -> None:
    for make in (
        lambda does: {"k": meddling(7, does), "v": 8},
        lambda does: Meddling({"k": 7, "v": 8}, does),
    ):
        key = write == "upsert"
        db = make_db(Schema([ColumnDef("k", "i64", primary_key=key), ColumnDef("v", "i64")]))
        db.insert({"k": 1, "v": 1})

        def index(db: SnapDB = db) -> None:
            db.create_index("v")
            db.create_range_index("k")
            db.find(v=1)

        row = make(index)
        if write == "update":
            db.update(0, row)
        else:
            getattr(db, write)(row)
        assert sound(db) and db.find(v=8) == [{"k": 7, "v": 8}] == db.range_find("k", 7)


def test_a_write_between_whose_beginning_and_end_an_index_is_made(
    make_db: MakeDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread's ``create_index`` behind the look at the indexes, before the row changes."""
    for write in ("update", "delete", "insert"):
        db = make_db(PAIRS)
        db.batch_insert({"k": n, "v": n} for n in range(9))
        engine: Any = db._engine
        kernel = getattr(engine, write)

        def late(*args: Any, db: SnapDB = db, kernel: Any = kernel) -> Any:
            db.create_index("v")
            return kernel(*args)

        with monkeypatch.context() as patch:
            patch.setattr(engine, write, late)
            args = {"update": (3, {"v": 77}), "delete": (3,), "insert": ({"k": 0, "v": 77},)}[write]
            getattr(SnapDB, write)(db, *args)
        assert sound(db)
        assert db.find(v=77) == ([] if write == "delete" else [{"k": 3 if write == "update" else 0, "v": 77}])
        assert len(db.find(v=3)) == (write == "insert")


# -- interrupts --------------------------------------------------------------

READS: dict[str, Callable[[SnapDB], Any]] = {
    "find": lambda db: db.find(v=3),
    "select_where": lambda db: db.select_where([("v", "eq", 3)]),
    "count_where": lambda db: db.count_where([("v", "eq", 3)]),
    "aggregate": lambda db: db.aggregate("k", "sum", [("v", "eq", 3)]),
    "group_by": lambda db: db.group_by("k", "v", "count", [("v", "eq", 3)]),
    "batch_update": lambda db: db.batch_update([("v", "eq", 3)], {"k": 1}),
    "delete_where": lambda db: db.delete_where([("v", "eq", 3), ("k", "eq", -1)]),
}


@pytest.mark.skipif(_ext.BACKEND != "c", reason="a twin's kernel is Python code, which an interrupt may cut anywhere")
@pytest.mark.parametrize("name", READS)
def test_an_interrupted_read_by_index_leaves_no_lock(engine: str, name: str) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        db = SnapDB(":memory:", PAIRS, storage_type=engine)
        db.batch_insert({"k": n, "v": n % 50} for n in range(400))
        db.create_index("v")
        places = 1
        while At(places).run(lambda: READS[name](db)):
            assert is_free(db), f"interrupted at place {places}"
            places += 1
        assert places > 10 and sound(db)
        db.close()
    finally:
        signal.signal(signal.SIGINT, before)


# -- names and arguments -----------------------------------------------------


def test_columns_that_are_named_as_parameters_are(make_db: MakeDb) -> None:
    names = ["self", "column", "value", "where", "conditions", "limit", " ", "class"]
    db = make_db(Schema([ColumnDef(name, "i64") for name in names]))
    db.insert(dict.fromkeys(names, 1))
    db.insert(dict.fromkeys(names, 2))
    for _ in range(2):
        for name in names:
            assert db.find(**{name: 2}) == [dict.fromkeys(names, 2)]
            db.create_index(name)


@pytest.mark.parametrize("threshold", ["8", None, 1.5])
def test_a_threshold_that_is_no_int_is_refused_at_once(make_db: MakeDb, threshold: Any) -> None:
    with pytest.raises(TypeError, match="auto_index_threshold"):
        make_db(PAIRS, auto_index=True, auto_index_threshold=threshold)
