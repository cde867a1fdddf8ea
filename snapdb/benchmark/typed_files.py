"""Real data as a file: the bundled weather.csv, typed, in SnapDB and as Parquet with snappy of the same typed table."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable

from .. import demo
from ..core import SnapDB

__all__ = ["PARQUET_LABEL", "weather_sizes"]

PARQUET_LABEL = "Parquet, snappy"
_ARROW = {
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32",
    "u64": "uint64", "f32": "float32", "f64": "float64", "date": "date32",
}  # fmt: skip


def weather_sizes(engines: Iterable[str], root: str) -> dict[str, int]:
    """Bytes of a closed file of each of these engines, in ``root``; ``"parquet"`` too where pyarrow is installed."""
    rows, found = demo.weather(), {}
    for engine in engines:
        path = os.path.join(root, f"weather {engine}")
        with SnapDB(path, demo.schema(), storage_type=engine) as db:
            db.batch_insert(rows)
        found[engine] = os.path.getsize(path)
    if importlib.util.find_spec("pyarrow") is not None:
        found["parquet"] = _parquet(rows, os.path.join(root, "weather.parquet"))
    return found


def _parquet(rows: list[demo.Row], path: str) -> int:
    arrow = importlib.import_module("pyarrow")
    kinds = {name: getattr(arrow, kind)() for name, kind in _ARROW.items()}
    kinds["datetime"] = arrow.timestamp("us", tz="UTC")
    fields = [(column.name, kinds.get(column.dtype, arrow.string())) for column in demo.schema().columns]
    table = arrow.Table.from_pylist(rows, schema=arrow.schema(fields))
    importlib.import_module("pyarrow.parquet").write_table(table, path, compression="snappy")
    return os.path.getsize(path)
