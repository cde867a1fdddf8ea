"""Column definitions, schemas and fixed-width rows."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.dtypes import parse
from snapdb.errors import MissingColumnError, SchemaError, UnknownColumnError, ValidationError
from snapdb.schema import ColumnDef, Schema

FIXED = Schema(
    [
        ColumnDef("id", "i32", primary_key=True),
        ColumnDef("big", "i64"),
        ColumnDef("flag", "u8"),
        ColumnDef("text", "bytes:8"),
        ColumnDef("score", "f64", not_null=False),
    ]
)
VARIABLE = Schema(
    [ColumnDef("id", "u16"), ColumnDef("text", "str", unique=True), ColumnDef("blob", "binary:9"), ("on", "bool")]
)


# -- ColumnDef -------------------------------------------------------------
def test_defaults_and_positions() -> None:
    column = ColumnDef("a", "i8")
    assert (column.name, column.dtype) == ("a", "i8")
    assert (column.unique, column.primary_key, column.not_null) == (False, False, True)
    assert ColumnDef("a", "i8", True, False, False) == ColumnDef("a", "i8", unique=True, not_null=False)
    assert repr(column) == "ColumnDef(name='a', dtype='i8', unique=False, primary_key=False, not_null=True)"


def test_primary_key_implies_unique_and_not_null() -> None:
    column = ColumnDef("a", "i8", primary_key=True, not_null=False)
    assert column.unique and column.not_null


def test_frozen_hashable_and_copied_whole() -> None:
    column = ColumnDef("a", "bytes:08", unique=True)
    with pytest.raises(AttributeError):
        column.name = "b"  # type: ignore[misc]
    assert column.dtype == "bytes:8" and column == ColumnDef("a", "bytes:8", unique=True)
    assert hash(column) == hash(ColumnDef("a", "bytes:8", unique=True)) and column != ColumnDef("a", "bytes:8")
    for twin in (pickle.loads(pickle.dumps(column)), copy.deepcopy(column)):
        assert twin == column and twin.type == parse("bytes:8") and twin.width == 8


@pytest.mark.parametrize(
    ("name", "width"),
    [("i8", 1), ("u16", 2), ("f32", 4), ("bool", 1), ("bytes:33", 33), ("str", 8), ("binary:3", 8), ("date", 4)],
)
def test_width(name: str, width: int) -> None:
    assert ColumnDef("a", name).width == width


@pytest.mark.parametrize("name", ["", None, 5, b"a", "a\0b", "\ud800"])
def test_bad_names(name: Any) -> None:
    with pytest.raises(SchemaError):
        ColumnDef(name, "i8")


@pytest.mark.parametrize("name", [" ", "é", "a.b", "a" * 5000, "select", "__class__"])
def test_odd_names_are_names(name: str) -> None:
    assert Schema([(name, "i8")]).index(name) == 0


def test_bad_dtype_names_the_column_once() -> None:
    with pytest.raises(SchemaError, match="^column 'a': unknown dtype 'int'; did you mean 'i64'") as caught:
        ColumnDef("a", "int")
    assert caught.value.column == "a" and caught.value.hint and str(caught.value).count(caught.value.hint) == 1


@pytest.mark.parametrize("key", ["unique", "primary_key", "not_null"])
def test_flags_are_bools(key: str) -> None:
    with pytest.raises(SchemaError, match=f"{key} must be True or False"):
        ColumnDef("a", "i8", **{key: 1})


# -- Schema ----------------------------------------------------------------
def test_layout() -> None:
    assert FIXED.struct_fmt == "<iqB8sd" and FIXED.struct_size == FIXED.row_width == struct.calcsize("<iqB8sd")
    assert [FIXED.offset(name) for name in FIXED.names] == [0, 4, 12, 13, 21] == list(FIXED.offsets)
    assert [FIXED.index(name) for name in FIXED.names] == [0, 1, 2, 3, 4]
    assert FIXED.primary_key == "id" and VARIABLE.primary_key is None
    assert FIXED.is_fixed and not VARIABLE.is_fixed
    assert VARIABLE.row_width == 2 + 8 + 8 + 1 and VARIABLE.offset("on") == 18
    assert VARIABLE.specs == (("id", 6, 0, False), ("text", 13, 0, False), ("blob", 14, 9, False), ("on", 11, 0, False))
    assert FIXED.specs[4] == ("score", 10, 0, True)
    assert VARIABLE.to_columnar_schema() == [("id", "u16"), ("text", "str"), ("blob", "binary:9"), ("on", "bool")]
    assert len(FIXED) == 5 and list(FIXED) == list(FIXED.columns)
    assert "id" in FIXED and "x" not in FIXED and 5 not in FIXED
    assert FIXED.column("big") is FIXED.columns[1]


@pytest.mark.parametrize(
    "columns",
    [None, [], (), 5, "ab", b"ab", {"a": "i8"}, ["a"], [5], [("a",)], [("a", "i8", True)], [("a", "x")],
     [("a", "i8"), ("a", "u8")],
     [ColumnDef("a", "i8", primary_key=True), ColumnDef("b", "i8", primary_key=True)],
     [("a", "bytes:2147483647"), ("b", "i8")]],
)  # fmt: skip
def test_bad_columns(columns: Any) -> None:
    with pytest.raises(SchemaError):
        Schema(columns)


@pytest.mark.parametrize("name", ["idd", "", None, 5, [], "ID"])
def test_unknown_columns(name: Any) -> None:
    for call in (FIXED.index, FIXED.offset, FIXED.column):
        with pytest.raises(UnknownColumnError, match="the columns are 'id', 'big'"):
            call(name)


def test_equality_hash_repr_pickle_json() -> None:
    for schema in (FIXED, VARIABLE):
        twins = [Schema(schema.columns), Schema.from_json(json.loads(json.dumps(schema.to_json())))]
        twins += [pickle.loads(pickle.dumps(schema)), copy.deepcopy(schema), eval(repr(schema))]
        for twin in twins:
            assert twin == schema and hash(twin) == hash(schema) and twin.specs == schema.specs
    assert FIXED != VARIABLE and FIXED != [1] and Schema([("a", "i8")]) != Schema([("a", "u8")])
    assert Schema([("a", "i8"), ("b", "i8")]) != Schema([("b", "i8"), ("a", "i8")])
    assert FIXED.to_json()[0] == {"name": "id", "dtype": "i32", "unique": True, "primary_key": True, "not_null": True}


@pytest.mark.parametrize(
    "data", [None, {}, "[]", [], [1], [{}], [{"name": "a"}], [{"name": "a", "dtype": "i8", "x": 1}],
        [{"name": 1, "dtype": "i8"}],
             [{"name": "a", "dtype": "i8", "unique": "yes"}]],
)  # fmt: skip
def test_from_json_refuses_other_things(data: Any) -> None:
    with pytest.raises(SchemaError):
        Schema.from_json(data)


def test_from_json_fills_in_defaults() -> None:
    assert Schema.from_json([{"name": "a", "dtype": "i8"}]) == Schema([("a", "i8")])


# -- fixed-width rows ------------------------------------------------------
ROW = {"id": -5, "big": 2**40, "flag": 255, "text": "é", "score": 1.5}


def test_encode_and_decode() -> None:
    data = FIXED.encode_row(ROW)
    assert data == struct.pack("<iqB8sd", -5, 2**40, 255, "é".encode(), 1.5)
    for buf in (data, bytearray(data), memoryview(data)):
        assert FIXED.decode_row(buf) == ROW
    assert list(FIXED.iter_unpack_rows(memoryview(data * 3))) == [ROW] * 3 and list(FIXED.iter_unpack_rows(b"")) == []
    assert list(FIXED.decode_row(data)) == list(FIXED.names)


def test_what_lies_outside_the_bytes_reads_as_zeros() -> None:
    data = FIXED.encode_row({**ROW, "text": "a\0", "score": None})
    assert FIXED.decode_row(data) == {**ROW, "text": "a", "score": 0.0}
    assert FIXED.decode_row(FIXED.encode_row({**ROW, "text": b"\xff"}))["text"] == b"\xff"


def test_every_fixed_type_comes_back() -> None:
    schema = Schema([(n, n) for n in ("u64", "f32", "bool", "date", "datetime", "i16")])
    row = {"u64": 2**64 - 1, "f32": 0.5, "bool": True, "date": dt.date(1, 1, 1), "i16": -1,
           "datetime": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.timezone.utc)}  # fmt: skip
    decoded = schema.decode_row(schema.encode_row(row))
    assert decoded == row and decoded["bool"] is True


def test_encode_keeps_the_value_rules() -> None:
    with pytest.raises(MissingColumnError):
        FIXED.encode_row({"id": 1})
    with pytest.raises(UnknownColumnError):
        FIXED.encode_row({**ROW, "x": 1})
    with pytest.raises(ValidationError):
        FIXED.encode_row({**ROW, "id": 2**31})
    without = {key: value for key, value in ROW.items() if key != "score"}
    assert FIXED.decode_row(FIXED.encode_row(without))["score"] == 0.0


@pytest.mark.parametrize("size", [0, 28, 30])
def test_wrong_lengths(size: int) -> None:
    with pytest.raises(SchemaError):
        FIXED.decode_row(bytes(size))
    if size:
        with pytest.raises(SchemaError):
            FIXED.iter_unpack_rows(bytes(size))


def test_variable_length_columns_have_no_fixed_rows() -> None:
    calls = [
        lambda: VARIABLE.struct_fmt, lambda: VARIABLE.struct_size, lambda: VARIABLE.encode_row({}),
        lambda: VARIABLE.decode_row(b""), lambda: VARIABLE.iter_unpack_rows(b""),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(SchemaError, match="column 'text' is str, which has no fixed width") as caught:
            call()
        assert caught.value.column == "text"


@given(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**31), 2**31 - 1),
            "big": st.integers(-(2**63), 2**63 - 1),
            "flag": st.integers(0, 255),
            "text": st.text(max_size=8).filter(lambda t: len(t.encode()) <= 8 and not t.endswith("\0")),
            "score": st.floats(allow_nan=False),
        }
    )
)
def test_rows_come_back(row: dict[str, Any]) -> None:
    assert FIXED.decode_row(FIXED.encode_row(row)) == row
