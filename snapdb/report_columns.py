"""What a table's columns take, as facts and as a table of text; the demo and ``snapdb info FILE`` show it."""

from __future__ import annotations

import os
from typing import Any, TextIO

from .core import SnapDB

__all__ = ["LEGEND", "facts", "show_columns", "show_file"]

LEGEND = """\
  encodings: const, one value; delta, a sequence or what is left of a line; for, offsets from a frame of reference,
  bit-packed; decimal, decimal fractions as whole numbers; dict, numbers of distinct values; rle, runs of equal values;
  bool, a bitmap; raw, the values themselves; str, text or bytes themselves.
"""


def show_columns(db: SnapDB, out: TextIO) -> None:
    """A line for each column, and one for all."""
    columns = db.stats()["columns"]
    width = max(12, *(len(name) for name in columns))
    out.write(f"  {'column':<{width}} {'dtype':<9} {'encoding':<9} {'bytes':>9} {'bits/value':>11}\n")
    total = 0
    for column in db.schema.columns:
        found = columns[column.name]
        total += found["bytes"]
        out.write(f"  {column.name:<{width}} {column.dtype:<9} {found['encoding']:<9} {found['bytes']:>9,} ")
        out.write(f"{found['bits_per_value']:>11.2f}\n")
    out.write(f"  {'all':<{width}} {'':<9} {'':<9} {total:>9,} {total * 8 / max(1, len(db)):>11.2f}\n")


def facts(db: SnapDB, path: str) -> dict[str, Any]:
    """What ``snapdb info FILE --json`` gives. Every column is read, so that all of it is counted."""
    engine: Any = db._engine
    if db.is_columnar():
        engine.load_all()
    stats = db.stats()
    return {
        "file": os.path.basename(path),
        "storage_type": stats["storage_type"],
        "rows": stats["rows"],
        "deleted_rows": stats["deleted_rows"],
        "file_bytes": stats["file_bytes"],
        "free_bytes": stats["free_bytes"],
        "columns": {
            column.name: {"dtype": column.dtype, **stats["columns"][column.name]} for column in db.schema.columns
        },
    }


def show_file(db: SnapDB, path: str, out: TextIO) -> None:
    """The same as text."""
    found = facts(db, path)
    out.write(f"{found['file']}: {found['storage_type']} engine, {found['rows']:,} rows")
    out.write(f" ({found['deleted_rows']:,} deleted)" if found["deleted_rows"] else "")
    out.write(f", {found['file_bytes']:,} bytes ({found['free_bytes']:,} of them free)\n")
    show_columns(db, out)
    if db.is_columnar():
        out.write(LEGEND)
