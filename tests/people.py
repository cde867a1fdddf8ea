"""A table with a column of each kind, for the tests of the public methods; its fixtures are in conftest.py."""

from __future__ import annotations

import datetime as dt
from typing import Any

from snapdb import ColumnDef, Schema

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
