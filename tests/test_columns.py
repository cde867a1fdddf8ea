"""ColumnarTable and Column on their own: documented methods, hints by their rules, encodings."""

from __future__ import annotations

import datetime as dt
import math
import random
import sys
from array import array
from typing import Any, Callable

import pytest
from model import Model, bits

from snapdb import Column, ColumnarTable, ColumnDef, Schema, errors

pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures("backend_name")]
UTC = dt.timezone.utc

VALUES: dict[str, list[Any]] = {
    "i8": [-128, 127, 0], "i16": [-5, 300], "i32": [7, 7, -(2**31)], "i64": [2**63 - 1, -(2**63), 0], "u8": [255, 0],
    "u16": [1],
    "u32": [2**32 - 1], "u64": [2**64 - 1, 0], "f32": [0.5, -0.0], "f64": [0.1, -0.0, math.inf], "bool": [True, False],
    "bytes:5": ["abc", "", "é", b"\xff"], "str": ["text", ""], "binary": [b"\0\xff", b""],
    "date": [dt.date(1960, 2, 29)],
    "datetime": [dt.datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=UTC)],
}  # fmt: skip
SIZES = (0, 1, 50, 1024, 3000, 9000)


def column_of(dtype: str, size: int) -> tuple[Column, list[Any]]:
    column, values = Column("c", dtype), []
    draw = random.Random(5)
    for _ in range(size):
        value = draw.choice([None, *VALUES[dtype]])
        column.append(value)
        values.append(value)
    return column, values


# -- Column -------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["i64", "u8", "f64", "bool", "bytes:5", "str", "datetime"])
def test_column_is_a_sequence(dtype: str, size: int) -> None:
    column, values = column_of(dtype, size)
    assert (column.name, column.dtype, len(column)) == ("c", dtype, size)
    assert bits(column.tolist()) == bits(list(column)) == bits(values)
    for at in {0, 1, size // 2, size - 1, -1, -size} if size > 1 else ():
        assert bits(column[at]) == bits(values[at])
    for at in (size, -size - 1):
        with pytest.raises(IndexError):
            column[at]
        with pytest.raises(IndexError):
            column[at] = None
    assert list(column.iter_valid()) == [(i, value) for i, value in enumerate(values) if value is not None]
    assert column.count_valid() == size - values.count(None)
    assert column.null_mask() == [value is None for value in values]
    assert column.unique_count() == len(set(values) - {None})
    assert column.memory_usage() > 0
    assert repr(column).startswith("Column('c'")


@pytest.mark.parametrize("dtype", list(VALUES))
def test_column_takes_every_dtype(dtype: str) -> None:
    column, values = column_of(dtype, 2100)
    assert bits(column.tolist()) == bits(values)


def test_column_set_item() -> None:
    column, values = column_of("i64", 3000)
    draw = random.Random(1)
    for step in range(900):
        at = draw.randrange(-3000, 3000)
        value = draw.choice((None, step, -(2**60)))
        column[at] = value
        values[at] = value
        assert column[at] == value
    assert column.tolist() == values
    column.append(5)
    assert column[-1] == 5
    assert column.count_valid() == 3001 - values.count(None)


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [("u8", 256), ("u8", "1"), ("i64", 1.0), ("bool", 2), ("str", 5), ("bytes:5", "abcdef"), ("f64", "x")],
)
def test_column_refuses(dtype: str, bad: Any) -> None:
    column, values = column_of(dtype, 10)
    with pytest.raises(ValueError, match="'c'"):
        column.append(bad)
    with pytest.raises(ValueError, match="'c'"):
        column[3] = bad
    assert bits(column.tolist()) == bits(values)


def test_unknown_dtype() -> None:
    for dtype in ("int", "bytes", "bytes:0", "", None):
        with pytest.raises(errors.SchemaError):
            Column("c", dtype)  # type: ignore[arg-type]


def test_unique_count_of_floats() -> None:
    column = Column("c", "f64")
    for value in (0.0, -0.0, math.nan, float("nan"), None, 1.0):
        column.append(value)
    assert column.unique_count() == 3


def test_column_buffer() -> None:
    column = Column("c", "i16")
    for value in (1, None, -3):
        column.append(value)
    view = column.buffer()
    assert (view.tolist(), view.format, view.readonly, view.contiguous) == ([1, 0, -3], "h", True, True)
    column[0] = 9
    column.append(4)
    assert view.tolist() == [1, 0, -3]
    assert column.buffer().tolist() == [9, 0, -3, 4]
    if sys.version_info >= (3, 12):
        assert memoryview(column).tolist() == [9, 0, -3, 4]
    with pytest.raises(TypeError, match="'t'"):
        Column("t", "str").buffer()


def test_column_to_numpy() -> None:
    np = pytest.importorskip("numpy")
    column = Column("c", "f32")
    for value in (0.5, 1.5):
        column.append(value)
    copy, shared = column.to_numpy(), column.to_numpy(zero_copy=True)
    assert copy.dtype == shared.dtype == np.float32
    assert (copy.flags.writeable, copy.flags.owndata, shared.flags.writeable) == (True, True, False)
    column.append(None)
    assert column.to_numpy().tolist() == [0.5, 1.5, None]
    assert shared.tolist() == [0.5, 1.5]
    days = Column("d", "date")
    days.append(dt.date(2020, 1, 2))
    assert days.to_numpy().dtype == np.dtype("M8[D]")
    assert days.to_numpy().tolist() == [dt.date(2020, 1, 2)]


# -- hints --------------------------------------------------------------------
def fed(values: Any, **options: Any) -> Column:
    column = Column("c", options.pop("dtype", "i64"), **options)
    for value in values:
        column.append(value)
    return column


def test_dict_hint_shows_from_the_first_value() -> None:
    column = fed([], dtype="bytes:8", dict_encode=True, dict_threshold=3)
    seen = []
    for value in ("a", "b", None, "a", "c", "b", "d", "a"):
        column.append(value)
        seen.append(column.encoding)
    assert seen == ["dict"] * 6 + ["str"] * 2
    assert column.tolist() == ["a", "b", None, "a", "c", "b", "d", "a"]


def test_dict_hint_in_sealed_segments() -> None:
    column = fed((i % 250 for i in range(20_000)), dict_encode=True)
    assert column.encoding == "dict"
    column[5] = 1000
    assert column.encoding == "dict"
    for i in range(10):
        column[i] = 2000 + i
    assert column.encoding != "dict"
    assert column.tolist() == [*range(2000, 2010), *(i % 250 for i in range(10, 20_000))]


def test_delta_hint_is_judged_on_its_samples() -> None:
    column = fed((i * i for i in range(49)), delta_encode=True)
    assert column.encoding == "raw"
    column.append(10_000)
    assert column.encoding == "delta"
    column.append(10_000)
    assert column.encoding == "delta"
    column.append(9_999)
    assert column.encoding == "raw"
    assert column.tolist() == [*(i * i for i in range(49)), 10_000, 10_000, 9_999]
    assert fed([3, 2, *range(100)], delta_encode=True).encoding == "raw"
    assert fed(range(10), delta_encode=True, delta_samples=10).encoding == "delta"
    assert fed(range(100), delta_encode=True, dtype="f64").encoding == "raw"


def test_delta_hint_given_up_by_an_update() -> None:
    for at, value, kept in (
        (10, 55, True),
        (10, 44, False),
        (10, 61, False),
        (99, 10**9, True),
        (0, -(10**9), True),
        (10, None, True),
    ):
        column = fed(range(0, 500, 5), delta_encode=True)
        column[at] = value
        assert (column.encoding == "delta") is kept, (at, value)
        assert column[at] == value
    column = fed(range(100), delta_encode=True)
    column[99] = 1000
    column.append(100)
    assert column.encoding == "raw"


def test_for_hint() -> None:
    column = fed((1_000_000 + i * 7919 % 10_000 for i in range(49)), for_encode=True)
    assert column.encoding == "raw"
    column.append(1_000_000)
    assert column.encoding == "for"
    column.append(1_065_535)
    assert column.encoding == "for"
    column.append(1_065_536)
    assert column.encoding == "raw"
    assert fed([0, 65_536, *range(100)], for_encode=True).encoding == "raw"
    assert fed([5, 3] * 5, for_encode=True, for_threshold=10).encoding == "for"
    column = fed([5, 3] * 50, for_encode=True)
    column[3] = -70_000
    assert column.encoding == "raw"
    assert column[3] == -70_000


def test_delta_and_for_on_one_column() -> None:
    column = fed(range(60), delta_encode=True, for_encode=True)
    assert column.encoding == "delta"
    column.append(0)
    assert column.encoding == "for"
    column.append(10**9)
    assert column.encoding == "raw"
    assert column.tolist() == [*range(60), 0, 10**9]


@pytest.mark.parametrize("dtype", ["i64", "u64"])
def test_every_step_reads_back(dtype: str) -> None:
    lo, hi = (-(2**63), 2**63 - 1) if dtype == "i64" else (0, 2**64 - 1)
    for values in (
        [lo, hi] * 600,
        [lo] * 600 + [hi] * 600,
        [lo, lo + 1, hi] * 400,
        [hi - i for i in range(1100)],
        [lo + i * 2**52 for i in range(1100)],
    ):
        for hints in (
            {},
            {"delta_encode": True},
            {"for_encode": True},
            {"delta_encode": True, "for_encode": True},
            {"dict_encode": True},
        ):
            column = fed(values, dtype=dtype, **hints)
            assert column.tolist() == values
            table = ColumnarTable("t", [("c", dtype)], delta_columns=["c"] if "delta_encode" in hints else None)
            table.insert_columns({"c": values})
            assert table.select_column("c") == values
            assert table.aggregate("c") == sum(values)


def test_active_hint_has_no_buffer() -> None:
    column = fed([1, 2, 1], dict_encode=True)
    with pytest.raises(TypeError, match="'c'"):
        column.buffer()
    pytest.importorskip("numpy")
    copy = column.to_numpy(zero_copy=True)
    assert copy.flags.writeable
    assert copy.tolist() == [1, 2, 1]


def test_hints_of_a_table() -> None:
    table = ColumnarTable(
        "t", [("a", "i64"), ("b", "str"), ("c", "i32"), ("d", "i64")], dict_columns=["b"], dict_threshold=4,
        delta_columns=["a"],
        for_columns=["c"], for_threshold=20,
    )  # fmt: skip
    table.batch_insert({"a": i * i, "b": "xyz"[i % 3], "c": i % 77, "d": i} for i in range(30))
    assert {name: column.encoding for name, column in table.columns.items()} == {
        "a": "raw",
        "b": "dict",
        "c": "for",
        "d": "raw",
    }
    table.batch_insert({"a": 1000 + i * i, "b": "x", "c": 5, "d": i} for i in range(30))
    assert table.columns["a"].encoding == "delta"
    table.update(3, {"b": "new", "c": 10**6})
    assert table.columns["b"].encoding == "dict"
    assert table.columns["c"].encoding == "raw"
    table.insert({"a": 0, "b": "fifth", "c": 0, "d": 0})
    assert (table.columns["a"].encoding, table.columns["b"].encoding) == ("raw", "str")
    with pytest.raises(errors.UnknownColumnError):
        ColumnarTable("t", [("a", "i64")], dict_columns=["zz"])


# -- encodings ------------------------------------------------------------------
AUTOMATIC: list[tuple[str, str, Callable[[int, random.Random], Any]]] = [
    ("const", "i32", lambda i, draw: 7),
    ("const", "str", lambda i, draw: "same"),
    ("const", "f64", lambda i, draw: None),
    ("delta", "i64", lambda i, draw: 1_700_000_000 + i),
    ("delta", "u64", lambda i, draw: 2**64 - 1 - 3 * i),
    ("for", "i32", lambda i, draw: draw.randrange(1000)),
    ("for", "i64", lambda i, draw: 10**15 + draw.randrange(10**6)),
    ("for", "date", lambda i, draw: dt.date(2020, 1, 1) + dt.timedelta(days=draw.randrange(3000))),
    ("for", "i64", lambda i, draw: draw.randrange(-(2**63), 2**63)),  # as large as raw, and then it is FOR
    ("raw", "f64", lambda i, draw: draw.random()),
    ("decimal", "f64", lambda i, draw: draw.randrange(60) / 10),
    ("dict", "f64", lambda i, draw: draw.randrange(60) / 7),
    ("rle", "f64", lambda i, draw: i // 100 / 10),
    ("dict", "i64", lambda i, draw: draw.choice((1, 2**40, -(2**50)))),
    ("dict", "bytes:8", lambda i, draw: draw.choice(("active", "idle", "banned"))),
    ("str", "str", lambda i, draw: f"{draw.random()}"),
    ("bool", "bool", lambda i, draw: draw.random() < 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("encoding", "dtype", "make"), AUTOMATIC)
def test_automatic_encodings(encoding: str, dtype: str, make: Any) -> None:
    draw = random.Random(9)
    values = [make(i, draw) for i in range(5000)]
    table = ColumnarTable("t", [("c", dtype)])
    table.insert_columns({"c": values})
    column = table.columns["c"]
    assert column.encoding == encoding
    assert column.encodings == [encoding]
    assert table.select_column("c") == column.tolist() == values
    assert [table.get(i)["c"] for i in (0, 1023, 1024, 4999)] == [values[i] for i in (0, 1023, 1024, 4999)]


def test_one_encoding_a_segment() -> None:
    table = ColumnarTable("t", [("c", "i64")])
    draw = random.Random(2)
    values = [5] * 65_536 + list(range(65_536)) + [draw.randrange(100) for _ in range(70_000)]
    table.insert_columns({"c": array("q", values)})
    column = table.columns["c"]
    assert column.encodings == ["const", "delta", "for", "for"]
    assert column.encoding == "for"
    assert table.select_column("c") == values


# -- ColumnarTable ----------------------------------------------------------------
COLUMNS = [("k", "i32"), ("v", "f64"), ("s", "str"), ("b", "bool")]


def test_table_methods() -> None:
    table = ColumnarTable("things", COLUMNS)
    model = Model(Schema([ColumnDef(name, dtype, not_null=False) for name, dtype in COLUMNS]))
    rows = [{"k": i, "v": i / 4 if i % 5 else None, "s": f"s{i % 7}", "b": i % 2 == 0} for i in range(2500)]
    assert table.insert({"k": -1}) == model.insert({"k": -1}) == 0
    assert table.batch_insert(rows) == 1  # the first id
    model.batch_insert(rows)
    assert table.insert_columns({"s": ["x", None], "k": [1, 2]}) == 2
    model.insert_columns({"s": ["x", None], "k": [1, 2]})
    assert len(table) == 2503
    assert table.get(0) == {"k": -1, "v": None, "s": None, "b": None}
    assert table.get(2503) is None
    for it in (table, model):
        it.update(5, {"v": 9.5, "s": None})
        it.delete(6)
    for idx in (6, 2503, -1):
        with pytest.raises(KeyError):
            table.update(idx, {"k": 1})
        with pytest.raises(KeyError):
            table.delete(idx)
    where = [("k", "between", (10, 40)), ("b", "eq", True)]
    assert table.batch_update(where, {"s": "even"}) == model.batch_update(where, {"s": "even"})
    assert table.batch_update(lambda row: row["k"] > 2000, lambda row: {"v": -1.0}) == model.batch_update(
        lambda row: row["k"] > 2000, lambda row: {"v": -1.0}
    )
    assert table.select(where) == table.select_where(where) == model.select(where)
    assert table.select(lambda row: row["v"] is None, ["k"], 3, 1) == model.select(
        lambda row: row["v"] is None, ["k"], 3, 1
    )
    assert table.count_where(where, "or") == len(model.ids(where, "or"))
    assert bits(table.aggregate("v", "avg", where)) == bits(model.aggregate("v", "avg", where))
    assert table.group_by("s", "k", "max") == model.group_by("s", "k", "max")
    assert table.select_column("s") == [row["s"] for row in model.select()]
    assert list(table.select_where(where, orient="columns")["k"]) == [row["k"] for row in model.select(where)]
    assert table.column_buffer("k")[0] == -1
    assert table.memory_usage() > 0
    assert list(table) == model.items()
    assert "things" in repr(table)
    assert list(table.columns) == [name for name, _ in COLUMNS]
    assert isinstance(table.columns["k"], Column)


def test_columns_of_a_table_are_read_only() -> None:
    table = ColumnarTable("t", COLUMNS)
    table.insert({"k": 1})
    with pytest.raises(errors.ProgrammingError):
        table.columns["k"].append(2)
    with pytest.raises(errors.ProgrammingError):
        table.columns["k"][0] = 2
    assert len(table) == 1


def test_table_refuses() -> None:
    for schema in ([], [("a", "i64"), ("a", "i64")], [("a", "int")], 5, [("a",)]):
        with pytest.raises((errors.SchemaError, TypeError, ValueError)):
            ColumnarTable("t", schema)  # type: ignore[arg-type]
    table = ColumnarTable("t", COLUMNS)
    with pytest.raises(ValueError, match="'k'"):
        table.batch_insert([{"k": 1}, {"k": "1"}])
    with pytest.raises(KeyError):
        table.insert({"kk": 1})
    assert len(table) == 0


def test_column_of_a_table_follows_it() -> None:
    table = ColumnarTable("t", COLUMNS)
    column = table.columns["k"]
    for size in (1, 2000, 7000):
        table.batch_insert({"k": i} for i in range(size))
        assert len(column) == len(table)
    table.update(3, {"k": 77})
    assert column[3] == 77
    assert column.count_valid() == 9001


def test_dropped_segments_give_their_space_back() -> None:
    table = ColumnarTable("t", [("c", "i64"), ("s", "str")])
    draw = random.Random(4)
    table.insert_columns({"c": [draw.randrange(2**62) for _ in range(70_000)], "s": [None] * 70_000})
    full = table.memory_usage()
    assert table.delete_where([("c", "gte", 0)]) == 70_000
    assert table.memory_usage() < full / 5
    assert (len(table), table.select(), table.aggregate("c"), table.get(5)) == (0, [], 0, None)
    assert table.insert({"c": 5}) == 70_000
    assert list(table) == [(70_000, {"c": 5, "s": None})]
    assert table.columns["c"][0] is None
    assert table.group_by("c", "c") == {5: 1}
    assert table.column_buffer("c")[70_000] == 5
    table.compact()
    assert list(table) == [(0, {"c": 5, "s": None})]
