"""Every dtype x every kind of wrong value, by every way in: error class, message, and that nothing changed."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Callable

import pytest
from conftest import MakeDb
from model import bits

from snapdb import ColumnDef, Schema, SnapDB, errors

pytestmark = pytest.mark.smoke
UTC = dt.timezone.utc

GOOD: dict[str, Any] = {
    "i8": -5, "i16": 300, "i32": -70_000, "i64": 2**40, "u8": 200, "u16": 60_000, "u32": 2**31, "u64": 2**63,
    "f32": 1.5,
    "f64": 0.1, "bool": True, "bytes:4": "abcd", "str": "text é", "binary": b"\x00\xff", "binary:3": b"abc",
    "date": dt.date(2020, 2, 29), "datetime": dt.datetime(2020, 1, 1, tzinfo=UTC),
}  # fmt: skip
INTEGERS = [name for name in GOOD if name[0] in "iu"]
LIMITS = {
    name: (0, 2 ** int(name[1:]) - 1) if name[0] == "u" else (-(2 ** (int(name[1:]) - 1)), 2 ** (int(name[1:]) - 1) - 1)
    for name in INTEGERS
}


class Odd:
    """Nothing any column takes."""


class BadIndex:
    def __index__(self) -> int:
        raise RuntimeError("no index today")


class WrongIndex:
    def __index__(self) -> Any:
        return "7"


class BadFloat:
    def __float__(self) -> float:
        raise RuntimeError("no float today")


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


class HugeRepr:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class BadZone(dt.tzinfo):
    def utcoffset(self, when: Any) -> Any:
        raise RuntimeError("no zone today")


ODD: list[Any] = [Odd(), [1], {"a": 1}, {1}, (1, 2), object, len, BadRepr(), HugeRepr(), ..., NotImplemented]
TYPE, RANGE = "type", "range"


def wrong_values(dtype: str) -> Iterator[tuple[Any, str]]:
    """(value, ``"type"`` where the dtype never takes its type, else ``"range"``)."""
    for value in ODD:
        yield value, TYPE
    if dtype in INTEGERS:
        lo, hi = LIMITS[dtype]
        for value in (lo - 1, hi + 1, -(10**30), 10**30, 10**5000):
            yield value, RANGE
        for value in (1.0, 0.5, math.nan, math.inf, "1", b"1", "", Decimal(1), 1j, dt.date(2020, 1, 1), WrongIndex()):
            yield value, TYPE
        yield BadIndex(), RANGE
    elif dtype in ("f32", "f64"):
        for value in ("1.5", b"1.5", "nan", "", 1j, dt.date(2020, 1, 1)):
            yield value, TYPE
        yield BadFloat(), RANGE
        yield 10**400, RANGE
        if dtype == "f32":
            yield 1e300, RANGE
            yield -3.5e38, RANGE
    elif dtype == "bool":
        for value in (2, -1, 10**30):
            yield value, RANGE
        for value in (1.0, 0.0, "True", "", b"", "1"):
            yield value, TYPE
    elif dtype.startswith("bytes") or dtype == "str":
        for value in (1, 1.5, True, dt.date(2020, 1, 1)):
            yield value, TYPE
        yield "\ud800", RANGE
        if dtype == "str":
            yield b"\xff\xfe", RANGE
            yield b"abc\xc3", RANGE
        else:
            for value in ("abcde", b"abcde", "ééé", "x" * 1_000_000):
                yield value, RANGE
    elif dtype.startswith("binary"):
        for value in ("text", "", 1, 1.5, True):
            yield value, TYPE
        if dtype == "binary:3":
            yield b"abcd", RANGE
            yield b"x" * 1_000_000, RANGE
    elif dtype == "date":
        for value in (
            "2020-01-01",
            18262,
            1.5,
            dt.datetime(2020, 1, 1),
            dt.datetime(2020, 1, 1, tzinfo=UTC),
            dt.time(1),
        ):
            yield value, TYPE
    else:
        for value in ("2020-01-01T00:00:00Z", 10**15, dt.date(2020, 1, 1), dt.time(1)):
            yield value, TYPE
        yield dt.datetime(2020, 1, 1), RANGE
        yield dt.datetime(2020, 1, 1, tzinfo=BadZone()), RANGE
        yield dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-1))), RANGE


def numpy_values(dtype: str) -> Iterator[tuple[Any, str]]:
    if importlib.util.find_spec("numpy") is None:
        return
    import numpy as np

    if dtype in INTEGERS:
        yield np.float64(1), TYPE
        yield np.array([1, 2]), TYPE
        lo, hi = LIMITS[dtype]
        if hi < 2**63 - 1:
            yield np.int64(hi + 1), RANGE
        if lo == 0:
            yield np.int64(-1), RANGE
    elif dtype == "bool":
        yield np.float32(1), TYPE
        yield np.int8(2), RANGE
    elif dtype in ("f32", "f64"):
        yield np.str_("1.5"), TYPE


CASES = [(dtype, value, kind) for dtype in GOOD for value, kind in (*wrong_values(dtype), *numpy_values(dtype))]
ERROR = {TYPE: errors.ValueTypeError, RANGE: errors.ValidationError}

Insert = Callable[[SnapDB, Any], Any]


def row(value: Any, key: int) -> dict[str, Any]:
    return {"key": key, "bad": value, "other": "o"}


def ways_in(dtype: str) -> list[tuple[str, Insert, int]]:
    """(name, write, position of the bad value in the batch or -1)."""
    good = GOOD[dtype]

    def late(db: SnapDB, bad: Any) -> None:
        db.batch_insert(row(bad if i == 1500 else good, 100 + i) for i in range(1600))

    def by_callable(db: SnapDB, bad: Any) -> None:
        db.batch_update([], lambda found: {"key": found["key"] + 50, "bad": good if found["key"] < 2 else bad})

    return [
        ("insert", lambda db, bad: db.insert(row(bad, 100)), -1),
        ("first of a batch", lambda db, bad: db.batch_insert([row(bad, 100), row(good, 101)]), 0),
        ("late in a batch", late, 1500),
        ("columns", lambda db, bad: db.insert_columns({"key": [100, 101], "bad": [good, bad], "other": ["a", "b"]}), 1),
        ("update", lambda db, bad: db.update(1, {"other": "changed", "bad": bad}), -1),
        ("batch_update", lambda db, bad: db.batch_update([("key", "gte", 0)], {"other": "changed", "bad": bad}), -1),
        ("batch_update with a callable", by_callable, -1),
        ("upsert of a new row", lambda db, bad: db.upsert(row(bad, 100)), -1),
        ("upsert of a row there is", lambda db, bad: db.upsert({"key": 1, "bad": bad}), -1),
    ]  # fmt: skip


def fresh(make_db: MakeDb, dtype: str, nullable: bool = False) -> SnapDB:
    schema = Schema(
        [
            ColumnDef("key", "i64", primary_key=True),
            ColumnDef("bad", dtype, not_null=not nullable),
            ColumnDef("other", "str"),
        ]
    )
    db = make_db(schema)
    db.batch_insert(row(GOOD[dtype], key) for key in range(3))
    return db


def assert_untouched(db: SnapDB, before: Any, deep: bool = True) -> None:
    """Rows, count and indexes as before; with ``deep`` also that keys and ids were given back (writes a row)."""
    assert len(db) == 3
    assert bits(list(db)) == before
    if deep:
        good = db.get(0)["bad"]
        assert db.insert(row(good, 100)) == 3  # neither the id nor the key was used up
        for key in (0, 1, 2):
            with pytest.raises(errors.UniqueError):
                db.insert(row(good, key))


def shown(value: Any) -> str:
    """What a message shows of a value at least."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "bits"
    if isinstance(value, BadRepr):
        return "BadRepr"
    text = repr(value)
    return " ".join(text.split())[:12] if len(text) < 40 else ""


@pytest.mark.parametrize("dtype", list(GOOD))
def test_wrong_values(make_db: MakeDb, dtype: str) -> None:
    for name, write, position in ways_in(dtype):
        db = fresh(make_db, dtype)
        before = bits(list(db))
        for case_dtype, value, kind in CASES:
            if case_dtype != dtype:
                continue
            if position > 1 and isinstance(value, str) and len(value) > 1000:
                continue
            with pytest.raises(errors.ValidationError) as caught:
                write(db, value)
            told = str(caught.value)
            where = f"{name}: {told}"
            assert type(caught.value) is ERROR[kind], where
            assert isinstance(caught.value, ValueError), where
            assert caught.value.column == "bad", where
            assert "'bad'" in told, where
            assert shown(value) in told, where
            assert len(told) < 400, where
            assert caught.value.row_index == (None if position < 0 else position), where
            if position >= 0:
                assert f"row {position}" in told, where
            assert_untouched(db, before, deep=False)
        assert_untouched(db, before)
        db.close()


@pytest.mark.parametrize("dtype", list(GOOD))
def test_null_where_there_may_be_none(make_db: MakeDb, dtype: str) -> None:
    for name, write, position in ways_in(dtype):
        db = fresh(make_db, dtype)
        before = bits(list(db))
        with pytest.raises(errors.NotNullError, match="NOT NULL constraint failed: bad") as caught:
            write(db, None)
        assert isinstance(caught.value, ValueError)
        assert caught.value.row_index == (None if position < 0 else position), name
        assert_untouched(db, before)


@pytest.mark.parametrize("dtype", list(GOOD))
def test_null_where_there_may_be_one(make_db: MakeDb, dtype: str) -> None:
    db = fresh(make_db, dtype, nullable=True)
    db.insert(row(None, 10))
    db.batch_insert([row(None, 11), {"key": 12, "other": "o"}])
    db.insert_columns({"key": [13], "bad": [None], "other": ["o"]})
    db.update(0, {"bad": None})
    assert [found["bad"] for _, found in db] == [None, GOOD[dtype], GOOD[dtype], None, None, None, None]
    db.update(3, {"bad": GOOD[dtype]})
    assert bits(db.get(3)["bad"]) == bits(GOOD[dtype])


# -- rows that are no rows --------------------------------------------------------
class Dict(dict):  # type: ignore[type-arg]
    """A dict subclass is a mapping like any other."""


class Own(Mapping):  # type: ignore[type-arg]
    """A mapping that is no dict."""

    def __init__(self, **values: Any) -> None:
        self.values_ = values

    def __getitem__(self, key: str) -> Any:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class Broken(Own):
    def __getitem__(self, key: str) -> Any:
        raise OSError("the row is gone")


SMALL = Schema([ColumnDef("key", "i64", primary_key=True), ColumnDef("bad", "i32"), ColumnDef("other", "str")])


@pytest.fixture
def small(make_db: MakeDb) -> SnapDB:
    db = make_db(SMALL)
    db.batch_insert(row(7, key) for key in range(3))
    return db


def each_way(db: SnapDB, bad: Any) -> list[Callable[[], Any]]:
    return [
        lambda: db.insert(bad),
        lambda: db.batch_insert([row(1, 100), bad]),
        lambda: db.batch_insert(iter([bad])),
        lambda: db.upsert(bad),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "row",
        b"row",
        5,
        None,
        [1, 2, 3],
        (100, 1, "o"),
        [("key", 100), ("bad", 1), ("other", "o")],
        {1, 2},
        Odd(),
        BadRepr(),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_rows_that_are_no_mappings(small: SnapDB, bad: Any) -> None:
    before = bits(list(small))
    for call in (
        *each_way(small, bad),
        lambda: small.update(1, bad),
        lambda: small.batch_update([], bad),
        lambda: small.batch_update([], lambda _: bad),
    ):
        with pytest.raises(errors.ValueTypeError, match="mapping") as caught:
            call()
        assert isinstance(caught.value, TypeError)
    assert_untouched(small, before)


@pytest.mark.parametrize("rows", ["key", b"key", {"key": 1}, {"abc"}])
def test_batches_of_no_rows(small: SnapDB, rows: Any) -> None:
    before = bits(list(small))
    with pytest.raises(errors.ValueTypeError, match="mapping"):
        small.batch_insert(rows)
    assert_untouched(small, before)


@pytest.mark.parametrize("rows", [5, None, Odd()])
def test_batches_that_are_not_iterable(small: SnapDB, rows: Any) -> None:
    before = bits(list(small))
    with pytest.raises(errors.ValueTypeError, match="batch_insert takes an iterable of dicts, not "):
        small.batch_insert(rows)
    assert_untouched(small, before)


def test_a_type_error_of_the_iterable_itself_stays(small: SnapDB) -> None:
    def rows() -> Iterator[Any]:
        yield row(1, 100)
        raise TypeError("my own")

    before = bits(list(small))
    with pytest.raises(TypeError, match="^my own$"):
        small.batch_insert(rows())
    assert_untouched(small, before)


@pytest.mark.parametrize("bad", [{"key": 1}, "0", 1.0, None, slice(0, 1), [1]], ids=repr)
@pytest.mark.parametrize("unique", [False, True])
def test_what_is_no_row_id(make_db: MakeDb, bad: Any, unique: bool) -> None:
    db = make_db(Schema([ColumnDef("key", "i64", unique=unique)]))
    db.insert({"key": 7})
    for call, words in (
        (lambda: db.update(bad, {"key": 1}), "to change rows by condition use batch_update()"),
        (lambda: db.delete(bad), "to delete rows by condition use delete_where()"),
        (lambda: db[bad], "to read rows by condition use select_where()"),
    ):
        with pytest.raises(errors.ValueTypeError, match=f"^a row id is an int, not {type(bad).__name__}; ") as caught:
            call()
        assert words in str(caught.value)
    assert list(db) == [(0, {"key": 7})]


def test_unknown_and_missing_keys(small: SnapDB) -> None:
    before = bits(list(small))
    for bad in (
        {"key": 100, "bad": 1, "other": "o", "extra": 1},
        {"key": 100, "bad": 1, "other": "o", 5: 1},
        {"key": 100, "bad": 1, "other": "o", None: 1},
        {"key": 100, "bad": 1, "other": "o", b"key": 1},
        Own(key=100, bad=1, other="o", extra=2),
    ):
        for call in (
            *each_way(small, bad),
            lambda bad=bad: small.update(1, bad),
            lambda bad=bad: small.batch_update([], bad),
        ):
            with pytest.raises(errors.UnknownColumnError) as caught:
                call()
            assert isinstance(caught.value, KeyError)
    for bad in ({"key": 100, "other": "o"}, {}, Own(key=100, other="o"), {"key": 100, "other": "o", "badd": 1}):
        for call in each_way(small, bad)[
            : 3 if "badd" in bad else 4
        ]:  # what upsert is given may be partial: unknown first
            with pytest.raises(errors.MissingColumnError, match="^Missing required column: (key|bad)") as caught:
                call()
            assert isinstance(caught.value, KeyError)
    with pytest.raises(errors.MissingColumnError, match="row 1 of the batch"):
        small.batch_insert([row(1, 100), {"key": 101}])
    assert_untouched(small, before)


def test_any_mapping_is_a_row(small: SnapDB) -> None:
    assert small.insert(Dict(row(1, 10))) == 3
    assert small.insert(Own(**row(2, 11))) == 4
    assert small.batch_insert([Own(**row(3, 12)), Dict(row(4, 13)), row(5, 14)]) == 3
    small.update(4, Own(bad=22))
    assert [found["bad"] for _, found in small][3:] == [1, 22, 3, 4, 5]


def test_a_mapping_that_fails(small: SnapDB) -> None:
    before = bits(list(small))
    bad = Broken(**row(1, 100))
    for call in (*each_way(small, bad), lambda: small.update(1, bad)):
        with pytest.raises(OSError, match="gone"):
            call()
    assert_untouched(small, before)


def test_generator_that_raises(small: SnapDB) -> None:
    def rows(count: int) -> Iterator[dict[str, Any]]:
        for i in range(count):
            yield row(i, 100 + i)
        raise LookupError("the source is gone")

    before = bits(list(small))
    for count in (0, 1, 1500, 9000):
        with pytest.raises(LookupError, match="gone"):
            small.batch_insert(rows(count))
        assert_untouched(small, before, deep=False)
    assert_untouched(small, before)


class Meddling:
    """An integer whose conversion changes the row it stands in, or the table."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __index__(self) -> int:
        self.act()
        return 9


def test_row_changed_while_it_is_read(small: SnapDB) -> None:
    for change in (
        lambda d: d.clear(),
        lambda d: d.update(zzz=1),
        lambda d: d.pop("other"),
        lambda d: d.update({str(i): i for i in range(5000)}),
    ):
        bad: dict[str, Any] = {"key": 100}
        bad["bad"] = Meddling(lambda bad=bad, change=change: change(bad))
        bad["other"] = "o"
        before = list(small)
        try:
            idx = small.insert(bad)
        except (KeyError, ValueError, RuntimeError):
            assert list(small) == before
        else:
            assert small.get(idx)["bad"] == 9
            small.delete(idx)


def test_batch_changed_while_it_is_read(small: SnapDB) -> None:
    rows: list[Any] = [row(1, 100), row(2, 101), row(3, 102)]
    rows[1]["bad"] = Meddling(rows.clear)
    before = list(small)
    try:
        added = small.batch_insert(rows)
    except (KeyError, ValueError, RuntimeError):
        assert list(small) == before
    else:
        assert list(small)[:3] == before
        assert len(small) == 3 + added


def test_table_written_while_a_row_is_read(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "i32"), ColumnDef("b", "str", not_null=False)]))
    inner = {"a": 1, "b": "inner"}
    outer = {"a": Meddling(lambda: db.insert(inner)), "b": "outer"}
    idx = db.insert(outer)
    assert len(db) == 2
    assert db.get(idx) == {"a": 9, "b": "outer"}
    assert db.get(1 - idx) == inner
    assert db.batch_insert([{"a": 5}, {"a": Meddling(lambda: db.batch_insert([inner] * 1500))}, {"a": 6}]) == 3
    assert len(db) == 1505
    assert db.count_where([("b", "eq", "inner")]) == 1501
    db.update(0, {"b": "x", "a": Meddling(lambda: db.delete(5))})
    assert db.get(0) == {"a": 9, "b": "x"}
    assert len(db) == 1504
    db.insert_columns({"a": [1, Meddling(db.compact), 3]})
    assert len(db) == 1507
    assert [found["a"] for _, found in db][-3:] == [1, 9, 3]


def test_deleted_while_its_update_is_read(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "i32")]))
    db.batch_insert([{"a": 1}, {"a": 2}])
    with pytest.raises(KeyError):
        db.update(0, {"a": Meddling(lambda: db.delete(0))})
    assert list(db) == [(1, {"a": 2})]


def test_values_are_copied_in(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("a", "binary"), ColumnDef("b", "str")]))
    raw, given = bytearray(b"abc"), {"a": b"x", "b": "y"}
    db.insert({"a": raw, "b": raw})
    db.insert(given)
    raw[:] = b"zzz"
    given["b"] = "changed"
    assert [found for _, found in db] == [{"a": b"abc", "b": "abc"}, {"a": b"x", "b": "y"}]


# -- what must be accepted --------------------------------------------------------
class Index:
    def __index__(self) -> int:
        return 1


class Text(str):
    def __str__(self) -> str:
        return "wrong"

    def encode(self, *args: Any) -> bytes:
        return b"wrong"


class Number(float):
    def __float__(self) -> float:
        return float.__float__(self)


class Int(int):
    pass


ACCEPTED: list[tuple[str, Any, Any]] = [
    *((name, True, 1) for name in INTEGERS), *((name, Index(), 1) for name in INTEGERS),
    *((name, LIMITS[name][0], LIMITS[name][0]) for name in INTEGERS),
    *((name, LIMITS[name][1], LIMITS[name][1]) for name in INTEGERS),
    *((name, Int(7), 7) for name in INTEGERS),
    ("f64", 1, 1.0), ("f64", True, 1.0), ("f64", Decimal("0.1"), 0.1), ("f64", 2**53 + 1, float(2**53)),
    ("f64", Index(), 1.0),
    ("f64", math.inf, math.inf), ("f64", -0.0, -0.0), ("f64", math.nan, math.nan), ("f64", Number(2.5), 2.5),
    ("f64", 5e-324, 5e-324),
    ("f32", 0.1, 0.10000000149011612), ("f32", math.inf, math.inf), ("f32", -math.inf, -math.inf), ("f32", 1e-50, 0.0),
    ("f32", math.nan, math.nan),
    ("bool", 0, False), ("bool", 1, True), ("bool", Index(), True),
    ("bytes:4", b"\xff\xfe", b"\xff\xfe"), ("bytes:4", "éé", "éé"), ("bytes:4", "", ""), ("bytes:4", "a\0\0", "a\0\0"),
    ("bytes:4", b"\0\0\0\0", "\0\0\0\0"),
    ("bytes:4", Text("ab"), "ab"), ("bytes:4", memoryview(b"abcd")[::2], "ac"),
    ("str", b"abc", "abc"), ("str", bytearray(b"abc"), "abc"), ("str", "", ""), ("str", "\0", "\0"),
    ("str", "\U0001f600" * 3000, "\U0001f600" * 3000), ("str", Text("ab"), "ab"),
    ("binary", b"", b""), ("binary", bytearray(b"a\0"), b"a\0"), ("binary", memoryview(b"abc"), b"abc"),
    ("binary:3", b"abc", b"abc"),
    ("date", dt.date.min, dt.date.min), ("date", dt.date.max, dt.date.max),
    ("date", dt.date(1969, 12, 31), dt.date(1969, 12, 31)),
    ("datetime", dt.datetime.min.replace(tzinfo=UTC), dt.datetime.min.replace(tzinfo=UTC)),
    ("datetime", dt.datetime.max.replace(tzinfo=UTC), dt.datetime.max.replace(tzinfo=UTC)),
    (
        "datetime", dt.datetime(2020, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2, microseconds=1))),
        dt.datetime(2019, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ),
]  # fmt: skip


def test_accepted_values(make_db: MakeDb) -> None:
    for dtype in GOOD:
        db = make_db(Schema([ColumnDef("a", dtype)]))
        for case, given, stored in ACCEPTED:
            if case != dtype:
                continue
            start = len(db)
            db.insert({"a": given})
            db.batch_insert([{"a": given}])
            db.insert_columns({"a": [given]})
            db.insert({"a": GOOD[dtype]})
            db.update(start + 3, {"a": given})
            assert bits(db.select_column("a")[start:]) == bits([stored] * 4), (dtype, given)
            assert bits(db.get(start + 3)["a"]) == bits(stored)
        db.insert_columns({"a": [found for found in db.select_column("a") for _ in range(200)]})
        assert len({repr(found) for found in db.select_column("a")}) <= 2 + sum(case == dtype for case, *_ in ACCEPTED)


def test_numpy_scalars_are_accepted(make_db: MakeDb) -> None:
    np = pytest.importorskip("numpy")
    db = make_db(Schema([ColumnDef("a", "i32"), ColumnDef("b", "f64"), ColumnDef("c", "bool"), ColumnDef("d", "str")]))
    given = {"a": np.int64(-5), "b": np.float32(0.5), "c": np.bool_(True), "d": np.str_("x")}
    db.insert(given)
    db.batch_insert([given])
    db.insert({"a": np.bool_(True), "b": np.int8(3), "c": np.uint8(0), "d": np.bytes_(b"y")})
    assert bits([found for _, found in db]) == bits(
        [{"a": -5, "b": 0.5, "c": True, "d": "x"}] * 2 + [{"a": 1, "b": 3.0, "c": False, "d": "y"}]
    )


# -- whole columns ------------------------------------------------------------------
@pytest.mark.parametrize("position", [0, 1499])
def test_bad_values_in_typed_columns(make_db: MakeDb, position: int) -> None:
    np = pytest.importorskip("numpy")
    db = make_db(SMALL)
    db.batch_insert(row(7, key) for key in range(3))
    before = bits(list(db))
    keys, others = np.arange(100, 1600), ["o"] * 1500
    for kind, value, error in (
        ("i8", 2**31, errors.ValidationError),
        ("i8", -(2**31) - 1, errors.ValidationError),
        ("u8", 2**64 - 1, errors.ValidationError),
        ("f8", 1.5, errors.ValueTypeError),
        ("f4", 1.0, errors.ValueTypeError),
    ):
        values = np.ones(1500, dtype=kind)
        values[position] = value
        with pytest.raises(error, match="'bad'") as caught:
            db.insert_columns({"key": keys, "bad": values, "other": others})
        if kind[0] != "f":
            assert caught.value.row_index == position
        assert_untouched(db, before, deep=False)
    with pytest.raises(ValueError, match="bad"):
        db.insert_columns({"key": keys, "bad": np.ones((1500, 2), dtype="i4"), "other": others})
    with pytest.raises(errors.NotNullError):
        db.insert_columns({"key": keys, "bad": [*range(1499), None], "other": others})
    assert_untouched(db, before)


def test_columns_that_raise(small: SnapDB) -> None:
    class Sequence_:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, at: int) -> Any:
            raise OSError("no item")

    before = bits(list(small))
    with pytest.raises(OSError, match="no item"):
        small.insert_columns({"key": [100, 101], "bad": Sequence_(), "other": ["a", "b"]})
    with pytest.raises(errors.SnapDBError):
        small.insert_columns({"key": [100, 101], "bad": 3, "other": ["a", "b"]})
    with pytest.raises(errors.SnapDBError):
        small.insert_columns({"key": [100, 101], "bad": [1, 2], "other": "ab"})
    assert_untouched(small, before)
