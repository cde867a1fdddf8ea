"""What the commands share: how a database is opened, what its key is, and how rows are shown."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional, TextIO

from .cell_types import cell, plain
from .core import SnapDB
from .document_store import SCHEMA, DocumentStore
from .text_table import text_table

__all__ = [
    "FORMATS",
    "add_database",
    "add_format",
    "is_documents",
    "key_of",
    "opened",
    "show",
    "store_of",
    "write_rows",
]

FORMATS = ("csv", "tsv", "json", "jsonl")
KEY = "SNAPDB_KEY"


def add_database(parser: argparse.ArgumentParser, what: str = "a database") -> None:
    """The arguments that say which database, and how to get into it."""
    parser.add_argument("db", metavar="DB", help=what)
    parser.add_argument("--key-file", metavar="FILE", help=f"whose first line is the passphrase (or set {KEY})")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="to wait where it is in use")


def add_format(parser: argparse.ArgumentParser) -> None:
    """How rows are shown."""
    parser.add_argument("-f", "--format", choices=("table", *FORMATS), help="default: table on a terminal, else json")
    parser.add_argument("--na", default="NA", metavar="TEXT", help="of a null in csv and tsv (default: NA)")


def key_of(options: argparse.Namespace) -> Optional[str]:
    """The passphrase, None where none is given. OSError."""
    if options.key_file is None:
        return os.environ.get(KEY) or None
    with open(options.key_file, encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


@contextmanager
def opened(options: argparse.Namespace, write: bool = False, snapshot: Optional[str] = None) -> Iterator[SnapDB]:
    """The database. FileNotFoundError, and whatever opening it says."""
    if not os.path.exists(options.db):
        raise FileNotFoundError(f"there is no file {options.db!r}")
    key = key_of(options)
    with SnapDB(options.db, read_only=not write, timeout=options.timeout, encryption_key=key, snapshot=snapshot) as db:
        yield db


def is_documents(db: SnapDB) -> bool:
    """Whether the table is that of a document store."""
    return db.schema == SCHEMA


@contextmanager
def store_of(options: argparse.Namespace) -> Iterator[DocumentStore]:
    """A document store, for reading."""
    key = key_of(options)
    with DocumentStore(options.db, read_only=True, timeout=options.timeout, encryption_key=key) as store:
        yield store


def show(names: Sequence[str], rows: Iterable[Sequence[Any]], options: argparse.Namespace, out: TextIO) -> int:
    """Write rows as they are asked for; how many."""
    kind = options.format or ("table" if out.isatty() else "json")
    if kind != "table":
        return write_rows(names, rows, kind, options.na, out)
    found = [list(row) for row in rows]
    out.write(text_table(names, found))
    return len(found)


def write_rows(names: Sequence[str], rows: Iterable[Sequence[Any]], kind: str, null: str, out: TextIO) -> int:
    """Write rows as csv, tsv, json or jsonl; how many."""
    if kind in ("csv", "tsv"):
        return _write_cells(names, rows, "\t" if kind == "tsv" else ",", null, out)
    dicts = ({name: plain(value) for name, value in zip(names, row)} for row in rows)
    return write_json(dicts, kind == "jsonl", out)


def _write_cells(names: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str, null: str, out: TextIO) -> int:
    writer = csv.writer(_Lines(out), delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(names)
    count = 0
    for row in rows:
        writer.writerow([cell(value, null) for value in row])
        count += 1
    return count


class _Lines:
    """A file of cells whose lines end in a line feed. Before Python 3.13 the writer puts quotes around a carriage
    return only where its own lines end in one.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> int:
        """A line, ended by carriage return and line feed."""
        return self._out.write(line[:-2] + "\n")


def write_json(items: Iterable[Any], lines: bool, out: TextIO) -> int:
    """Write values as a JSON array with one a line, or as JSON lines; how many. ValueError for what JSON has not."""
    count = 0
    for item in items:
        if not lines:
            out.write("[" if count == 0 else ",\n ")
        out.write(json.dumps(item, ensure_ascii=False, allow_nan=False, default=_no_json))
        if lines:
            out.write("\n")
        count += 1
    if not lines:
        out.write("]\n" if count else "[]\n")
    return count


def _no_json(value: Any) -> Any:
    if isinstance(value, (dt.datetime, dt.date)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
