"""Aggregates to the last bit: over backends, engines, encodings, nulls, deletes, updates, NumPy or not and SIMD
levels, and against the definition itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ENGINES, MakeDb
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Model, bits

from snapdb import ColumnDef, Schema, SnapDB, _ext

AGGS = ("sum", "min", "max", "avg", "count")
COLUMNS = {
    "key": "u8", "tag": "str", "constant": "i16", "sequence": "i64", "narrow": "i32", "wide": "i64", "few": "i32",
    "big": "u64",
    "noise": "f64", "same": "f64", "decimals": "f64", "special": "f64", "single": "f32", "flag": "bool", "huge": "f64",
}  # fmt: skip
SCHEMA = Schema([ColumnDef(name, dtype, not_null=False) for name, dtype in COLUMNS.items()])
NUMBERS = [name for name in COLUMNS if name != "tag"]
#: what the columnar engine should have made of each column, so that every encoding is really met
ENCODINGS = {
    "constant": "const", "sequence": "delta", "narrow": "for", "few": "dict", "noise": "raw", "same": "const",
    "decimals": "decimal",
    "flag": "bool", "tag": "dict",
}  # fmt: skip


def make_rows(count: int, seed: int = 1, nulls: float = 0.0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    special = (0.0, -0.0, math.nan, math.inf, 1e-310, 1.5)
    rows = []
    for i in range(count):
        row = {
            "key": draw.randrange(7), "tag": draw.choice(("a", "bb", "", "ü")), "constant": -300,
            "sequence": 10**12 - 7 * i,
            "narrow": draw.randrange(-500, 500), "wide": draw.randrange(-(2**63), 2**63),
            "few": draw.choice((-(2**30), 7, 2**30)),
            "big": draw.randrange(2**63, 2**64), "noise": draw.uniform(-1e6, 1e6), "same": 0.1,
            "decimals": draw.randrange(90) / 10,
            "special": draw.choice(special), "single": draw.random(), "flag": draw.random() < 0.3,
            "huge": draw.choice((1e308, -1e308, 1e300)),
        }  # fmt: skip
        row["single"] = struct.unpack("<f", struct.pack("<f", row["single"]))[0]
        if nulls:
            row = {name: None if draw.random() < nulls else value for name, value in row.items()}
        rows.append(row)
    return rows


def fill(it: Any, count: int, nulls: float, changed: bool) -> Any:
    """A table or its model with ``count`` rows, written in batches and one by one; then deletes and updates."""
    rows = make_rows(count, nulls=nulls)
    it.batch_insert(rows[: count * 2 // 3])
    it.insert_columns({name: [row[name] for row in rows[count * 2 // 3 :]] for name in COLUMNS})
    tail = make_rows(37, seed=2, nulls=nulls)
    for row in tail:
        it.insert(row)
    if changed:
        draw = random.Random(3)
        total = count + len(tail)
        ids = draw.sample(range(total), total // 5)
        for idx in ids[: total // 8]:
            it.delete(idx)
        for idx in ids[total // 8 :][:300]:
            it.update(
                idx,
                {
                    "noise": idx / 7,
                    "narrow": None,
                    "sequence": -idx,
                    "constant": 5,
                    "flag": None,
                    "tag": "new",
                    "special": -0.0,
                },
            )
        it.update(ids[-1], {"noise": None, "few": 8, "same": 0.2, "decimals": 1e9, "single": 0.5, "key": 200})
    return it


WHERES: list[Any] = [
    None,
    [("narrow", "gt", 0)],
    [("decimals", "lt", 4.5), ("tag", "ne", "bb")],
    [("key", "in", [1, 3, 200])],
    [("special", "is_null", None)],
    [("narrow", "gt", 10**9)],
    [("sequence", "lt", 10**12 - 20_000)],
]
GROUPS: list[tuple[Any, str]] = [
    ("key", "noise"), ("tag", "decimals"), ("flag", "single"), ("special", "noise"), (["key", "tag"], "huge"),
    ("few", "big"),
    ("narrow", "same"), (["flag", "special"], "wide"), ("constant", "special"),
]  # fmt: skip


def answers(it: Any, wheres: list[Any], **options: Any) -> list[Any]:
    """Every aggregate of every column and some groupings, in a form that tells bits apart."""
    found = [bits(it.aggregate(name, agg, where, **options)) for where in wheres for name in NUMBERS for agg in AGGS]
    found += [bits(it.aggregate("tag", agg, where, **options)) for where in wheres for agg in ("min", "max", "count")]
    for where in wheres[:3]:
        found += [bits(it.group_by(keys, column, agg, where)) for keys, column in GROUPS for agg in AGGS]
    return found


def digest(found: list[Any]) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()


SHAPES = [
    (100, 0.0, False),
    (5000, 0.0, False),
    (5000, 0.1, False),
    (5000, 0.0, True),
    (5000, 0.2, True),
    (2100, 0.98, True),
]
_expected: dict[Any, list[Any]] = {}


def expected(shape: tuple[int, float, bool]) -> list[Any]:
    if shape not in _expected:
        _expected[shape] = answers(fill(Model(SCHEMA), *shape), WHERES)
    return _expected[shape]


@pytest.mark.smoke
def test_encodings_are_met(backend_name: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type="columnar") as db:
        fill(db, 5000, 0.0, False)
        used = db.stats()["columns"]
        assert {name: used[name]["encoding"] for name in ENCODINGS} == ENCODINGS


@pytest.mark.parametrize(
    "shape", [SHAPES[0], SHAPES[1], SHAPES[2], pytest.param(SHAPES[3], marks=pytest.mark.smoke), *SHAPES[4:]], ids=str
)
def test_against_the_definition(make_db: MakeDb, shape: tuple[int, float, bool]) -> None:
    db = fill(make_db(SCHEMA), *shape)
    assert answers(db, WHERES) == expected(shape)
    db.compact()
    if shape == SHAPES[-2]:
        model = fill(Model(SCHEMA), *shape)
        model.compact()
        assert answers(db, WHERES[:2]) == answers(model, WHERES[:2])


@pytest.mark.parametrize(
    "hints", [{"dict_columns": NUMBERS[:-1]}, {"for_columns": NUMBERS}, {"delta_columns": NUMBERS}]
)
def test_hints_change_no_answer(backend_name: str, hints: dict[str, Any]) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type="columnar", **hints) as db:
        assert answers(fill(db, *SHAPES[4]), WHERES) == expected(SHAPES[4])


def test_use_numpy(make_db: MakeDb) -> None:
    db = fill(make_db(SCHEMA), *SHAPES[4])
    wanted = expected_aggregates()
    for choice in [False] + [True] * (importlib.util.find_spec("numpy") is not None):
        assert [
            bits(db.aggregate(name, agg, where, use_numpy=choice))
            for where in WHERES[:4]
            for name in NUMBERS
            for agg in AGGS
        ] == wanted


def expected_aggregates() -> list[Any]:
    if "aggregates" not in _expected:
        model = fill(Model(SCHEMA), *SHAPES[4])
        _expected["aggregates"] = [
            bits(model.aggregate(name, agg, where)) for where in WHERES[:4] for name in NUMBERS for agg in AGGS
        ]
    return _expected["aggregates"]


def test_without_numpy(make_db: MakeDb, monkeypatch: pytest.MonkeyPatch) -> None:
    db = make_db(SCHEMA)
    db.batch_insert(make_rows(10))
    monkeypatch.setattr(_ext, "_loaded", {name: found for name, found in _ext._loaded.items() if name != "numpy"})
    monkeypatch.setattr(_ext, "_has_numpy", lambda: False)
    with pytest.raises(ImportError, match="pip install"):
        db.aggregate("noise", use_numpy=True)
    with pytest.raises(ImportError, match="pip install"):
        db.count_where([("noise", "gt", 0)], use_numpy=True)
    assert db.aggregate("sequence", use_numpy=False) == sum(row["sequence"] for row in make_rows(10))


def test_zone_map_answers_are_the_scans(backend_name: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type="columnar") as db:
        fill(db, 5000, 0.1, False)
        found = answers(db, [None])
        db._engine.zone_answers = False
        assert answers(db, [None]) == found


# -- more than one segment ---------------------------------------------------------
SEGMENTED = Schema([ColumnDef("g", "u8"), ColumnDef("f", "f64", not_null=False), ColumnDef("n", "i32")])


def segmented(count: int) -> list[dict[str, Any]]:
    draw = random.Random(8)
    return [
        {"g": i % 11, "f": None if i % 97 == 0 else draw.uniform(-1, 1) * 10 ** (i % 9), "n": i % 1000}
        for i in range(count)
    ]


@pytest.mark.slow
def test_segments_in_order(make_db: MakeDb) -> None:
    rows, wanted = segments()
    db = make_db(SEGMENTED)
    db.batch_insert(rows)
    without_some(db)
    for where in (None, [("n", "lt", 500)]):
        for agg in AGGS:
            assert bits(db.aggregate("f", agg, where)) == next(wanted)
            assert bits(db.group_by("g", "f", agg, where)) == next(wanted)
    assert next(wanted, None) is None


def without_some(it: Any) -> None:
    for idx in (0, 65_535, 65_536, 131_072, 134_999):
        it.delete(idx)
    it.delete_where([("n", "between", (10, 12))])


def segments() -> tuple[list[dict[str, Any]], Iterator[Any]]:
    """The rows, and what the model answers: worked out once for all backends."""
    if "segments" not in _expected:
        model, found = Model(SEGMENTED), []
        model.batch_insert(segmented(135_000))
        without_some(model)
        for where in (None, [("n", "lt", 500)]):
            for agg in AGGS:
                found += [bits(model.aggregate("f", agg, where)), bits(model.group_by("g", "f", agg, where))]
        _expected["segments"] = found
    return segmented(135_000), iter(_expected["segments"])


# -- exactness ---------------------------------------------------------------------
@pytest.mark.smoke
def test_integer_sums_never_wrap(make_db: MakeDb) -> None:
    for dtype, value in (("i64", 2**63 - 1), ("i64", -(2**63)), ("u64", 2**64 - 1), ("i8", -128), ("u32", 2**32 - 1)):
        db = make_db(Schema([ColumnDef("a", dtype), ColumnDef("g", "u8")]))
        db.batch_insert({"a": value if i % 3 else value // 2, "g": i % 2} for i in range(4100))
        total = sum(value if i % 3 else value // 2 for i in range(4100))
        assert db.aggregate("a") == total
        assert db.aggregate("a", where=[("g", "lte", 1)]) == total
        assert sum(db.group_by("g", "a", "sum").values()) == total
        assert db.aggregate("a", "avg") == total / 4100


@pytest.mark.smoke
def test_nan_and_zeros(make_db: MakeDb) -> None:
    other_nan = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]
    for count in (1, 700):  # a tail, sealed blocks
        db = make_db(Schema([ColumnDef("f", "f64", not_null=False)]))
        db.batch_insert({"f": value} for value in (other_nan, -0.0, 0.0, None) * count)
        canonical = struct.pack("<d", math.nan)
        assert struct.pack("<d", db.aggregate("f")) == canonical == bytes.fromhex("000000000000f87f")
        assert struct.pack("<d", db.aggregate("f", "avg")) == canonical
        assert bits(db.aggregate("f", "min")) == bits(-0.0)
        assert bits(db.aggregate("f", "max")) == bits(0.0)
        assert bits(db.aggregate("f", "sum", [("f", "eq", 0)])) == bits(0.0)
        assert db.aggregate("f", "count") == 3 * count
        db.delete_where([("f", "eq", 0)])
        for agg in ("min", "max", "sum"):
            assert struct.pack("<d", db.aggregate("f", agg)) == canonical
        assert db.count_where([("f", "ne", 1)]) == count
        assert db.count_where([("f", "eq", math.nan)]) == 0


@pytest.mark.smoke
def test_nan_written_over_nulls(make_db: MakeDb) -> None:
    db = make_db(Schema([ColumnDef("f", "f64", not_null=False)]))
    db.insert_columns({"f": [None] * 2048})
    db.update(5, {"f": math.nan})
    assert db.count_where([("f", "ne", 1)]) == 1
    assert db.count_where([("f", "eq", 1)]) == 0
    db.update(6, {"f": -1.0})
    assert db.count_where([("f", "ne", 1)]) == 2
    assert db.count_where([("f", "lt", 0)]) == 1
    assert db.aggregate("f", "min") == -1.0


def test_updates_beyond_the_zone_map(make_db: MakeDb) -> None:
    schema = Schema([ColumnDef("n", "i32", not_null=False), ColumnDef("t", "str", not_null=False)])
    db, model = make_db(schema), Model(schema)
    for it in (db, model):
        it.batch_insert({"n": i % 100, "t": f"{i % 100:02}"} for i in range(3000))
        for idx, n, t in (
            (0, 10**6, "zz"),
            (1, -(10**6), ""),
            (2, None, None),
            (2999, 10**7, "~" * 100),
            (1024, 5, "\U0010ffff" * 20),
        ):
            it.update(idx, {"n": n, "t": t})
    for op in ("eq", "ne", "gt", "gte", "lt", "lte"):
        for value in (-(10**6), 0, 50, 99, 10**6, 10**7):
            assert db.count_where([("n", op, value)]) == len(model.ids([("n", op, value)]))
        for text in ("", "50", "zz", "~" * 100, "\U0010ffff" * 20):
            assert db.select_where([("t", op, text)]) == model.select([("t", op, text)])
    for agg in ("min", "max", "count"):
        assert db.aggregate("t", agg) == model.aggregate("t", agg)
        assert db.aggregate("n", agg) == model.aggregate("n", agg)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("idx", "value"),
    [(0, 500), (0, None), (1023, 5), (1023, None), (1099, 5), (1099, -7), (7, 6), (7, None), (8, 6), (8, None)],
)
def test_updates_within_the_zone_map(make_db: MakeDb, idx: int, value: Any) -> None:
    """What a zone map says is stale once a least, greatest, null or NaN row was updated, though nothing was deleted."""
    schema = Schema(
        [
            ColumnDef("n", "i32", not_null=False),
            ColumnDef("f", "f64", not_null=False),
            ColumnDef("t", "str", not_null=False),
        ]
    )
    db, model = make_db(schema), Model(schema)
    rows = [{"n": i, "f": i / 4, "t": f"{i:04}"} for i in range(1100)]
    rows[7] = dict.fromkeys(("n", "f", "t"))
    rows[8]["f"] = math.nan
    change = {"n": value, "f": None if value is None else float(value), "t": None if value is None else f"{value:04}"}
    for it in (db, model):
        it.batch_insert(rows)
        it.update(idx, change)
    for name in ("n", "f", "t"):
        for agg in AGGS if name != "t" else ("min", "max", "count"):
            assert bits(db.aggregate(name, agg)) == bits(model.aggregate(name, agg)), (name, agg)
        for op in ("is_null", "not_null"):
            assert db.count_where([(name, op, None)]) == len(model.ids([(name, op, None)]))


@settings(max_examples=40)
@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-3, 3).map(float)), min_size=1, max_size=60
    ),
    repeat=st.integers(1, 60), low=st.floats(allow_nan=False),
)  # fmt: skip
def test_float_sums_of_anything(make_db: MakeDb, values: list[Any], repeat: int, low: float) -> None:
    schema = Schema([ColumnDef("f", "f64", not_null=False), ColumnDef("g", "u8")])
    db, model = make_db(schema), Model(schema)
    rows = [{"f": value, "g": i % 3} for i, value in enumerate(values * repeat)]
    db.batch_insert(rows)
    model.batch_insert(rows)
    for where in (None, [("f", "gte", low)]):
        for agg in AGGS:
            assert bits(db.aggregate("f", agg, where)) == bits(model.aggregate("f", agg, where))
            assert bits(db.group_by("g", "f", agg, where)) == bits(model.group_by("g", "f", agg, where))
    db.close()


# -- SIMD levels -------------------------------------------------------------------
def answer_digest() -> str:
    """What this process answers, in one word."""
    found: list[Any] = []
    for engine in ENGINES:
        with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
            found.append(digest(answers(fill(db, *SHAPES[4]), WHERES)))
        with SnapDB(":memory:", SEGMENTED, storage_type=engine) as db:
            db.batch_insert(segmented(70_000))
            for where in (None, [("n", "lt", 500)]):
                found += [bits((db.aggregate("f", agg, where), db.group_by("g", "f", agg, where))) for agg in AGGS]
    return digest(found)


LEVELS = {"base": "", "v3": "avx2", "v4": "avx512bw"}


def has_level(level: str) -> bool:
    flag = LEVELS[level]
    if not flag:
        return True
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and f" {flag} " in cpu.read_text(encoding="utf-8").replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("level", list(LEVELS))
def test_simd_levels(level: str) -> None:
    if "c" not in _ext.available():
        pytest.skip("the compiled kernels are not here")
    if not has_level(level):
        pytest.skip(f"this processor has no {level}")
    code = "import test_aggregates; print(test_aggregates.answer_digest())"
    env = {
        **os.environ,
        "SNAPDB_BACKEND": "c",
        "SNAPDB_SIMD": level,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    env.pop("SNAPDB_NO_EXTENSIONS", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "python" not in _expected:
        patched = pytest.MonkeyPatch()
        patched.setattr(_ext, "BACKEND", "numpy" if "numpy" in _ext.available() else "python")
        _expected["python"] = [answer_digest()]
        patched.undo()
    assert done.stdout.strip() == _expected["python"][0]
