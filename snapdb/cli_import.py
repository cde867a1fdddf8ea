"""``snapdb import``: csv, tsv, json and json lines into a table, or json into a document store. All or nothing."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, NamedTuple, Optional, TextIO

from .cell_types import Detector, read, reader_of
from .cli_files import FORMATS, add_database, key_of
from .core import SnapDB
from .document_store import DocumentStore
from .errors import SchemaError, ValidationError, shorten
from .progress import Progress
from .schema import ColumnDef, Schema

__all__ = ["add", "run"]

AT_ONCE = 8192  # rows
_ENDINGS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".geojson": "json", ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_database(parser, "the database, made if it is not there")
    parser.add_argument("file", metavar="FILE", help="what to import, - for standard input")
    parser.add_argument("-f", "--format", choices=FORMATS, help="default: by the ending of FILE, else csv")
    parser.add_argument("--row", action="store_true", help="make a row store (default: columnar)")
    parser.add_argument("--pk", metavar="COLUMN", help="the primary key of a new table")
    parser.add_argument("--na", action="append", metavar="TEXT", help="a cell that is a null (default: NA); repeatable")
    parser.add_argument("--no-detect-types", action="store_true", help="every column is text, byte for byte")
    parser.add_argument("--no-headers", action="store_true", help="the first line is a row: columns are column_1, ...")
    parser.add_argument("--delimiter", metavar="CHARACTER", help="between cells (default: , or a tab)")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file (default: UTF-8)")
    parser.add_argument("--documents", action="store_true", help="JSON into a document store")
    parser.add_argument("--path", metavar="NAME", help="of the JSON: where the array is, names with dots between")
    parser.add_argument("--silent", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, out: TextIO) -> int:
    """Import; 0. Whatever is wrong is raised, and nothing has changed then."""
    kind = options.format or _ending(options.file) or "csv"
    if _ending(options.db) and options.file != "-" and not _ending(options.file):
        hint = f"snapdb import {options.file} {options.db}"
        raise ValidationError("the database comes before the file that is imported", hint=hint)
    with _source(options.file) as path:
        if options.documents:
            count, what = _documents(options, path, kind), "documents"
        else:
            made = _cells(options, path, kind) if kind in ("csv", "tsv") else _objects(options, path, kind)
            count, what = _store(options, made), "rows"
    sys.stderr.write(f"{count} {what} imported into {options.db}\n")
    return 0


def _ending(name: str) -> Optional[str]:
    """The format that a file's name tells of."""
    return _ENDINGS.get(os.path.splitext(name)[1].lower())


@contextmanager
def _source(name: str) -> Iterator[str]:
    """A file that can be read twice: of standard input a copy."""
    if name != "-":
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "input")
        with open(path, "wb") as file:
            while True:
                data = sys.stdin.buffer.read(1 << 20)
                if not data:
                    break
                file.write(data)
        yield path


class _Made(NamedTuple):
    """What is to be stored. ``schema`` of a new table; ``batches`` gives (line of the first row, columns) for a schema,
    each column a list of values.
    """

    schema: Callable[[], Schema]
    batches: Callable[[Schema], Iterator[tuple[int, dict[str, list[Any]]]]]
    size: int


# -- cells -------------------------------------------------------------------
class _Cells(NamedTuple):
    """A file of cells and how it is read."""

    path: str
    encoding: str
    delimiter: str
    headers: bool

    def names(self) -> list[str]:
        """The names of the columns. ValidationError for a file without any."""
        with self._open() as file:
            first = next(self._rows(file), None)
        if first is None:
            raise ValidationError("there is nothing in it, not even a line of column names")
        if not self.headers:
            return [f"column_{at}" for at in range(1, len(first) + 1)]
        return _unlike(first)

    def batches(self, width: int) -> Iterator[tuple[int, int, list[Sequence[str]]]]:
        """(line of the first row, bytes read, columns of cells)."""
        with self._open() as file:
            rows = self._rows(file)
            if self.headers:
                next(rows)
            some: list[list[str]] = []
            line = rows.line
            for row in rows:
                if not row and width > 1:
                    continue  # an empty line
                row = row or [""]  # of a single column
                if len(row) != width:
                    columns = f"{width} column{'s' * (width != 1)}"
                    hint = None if width > 1 else "name the --delimiter, where it is not a comma"
                    raise ValidationError(f"line {rows.line}: it has {len(row)} cells, there are {columns}", hint=hint)
                if not some:
                    line = rows.line
                some.append(row)
                if len(some) == AT_ONCE:
                    yield line, _place(file), list(zip(*some))
                    some = []
            if some:
                yield line, _place(file), list(zip(*some))

    def _open(self) -> io.TextIOWrapper:
        return open(self.path, encoding=self.encoding, newline="")

    def _rows(self, file: TextIO) -> _Lines:
        return _Lines(csv.reader(file, delimiter=self.delimiter, strict=True), self.encoding)


class _Lines:
    """Rows of cells. ValidationError, with the line, for what is no csv or not in the encoding."""

    def __init__(self, reader: Any, encoding: str) -> None:
        self._reader = reader
        self._encoding = encoding

    @property
    def line(self) -> int:
        """Where the last row ended."""
        found: int = self._reader.line_num
        return found

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> list[str]:
        try:
            row: list[str] = next(self._reader)
        except csv.Error as error:
            raise ValidationError(f"line {self.line}: {error}") from None
        except UnicodeDecodeError as error:
            raise ValidationError(
                f"behind line {self.line}: it is not {self._encoding.upper().replace('-SIG', '')}: {error.reason}",
                hint="name the --encoding",
            ) from None
        return row


def _place(file: io.TextIOWrapper) -> int:
    """How many bytes were read of it."""
    buffer: Any = file.buffer
    at: int = buffer.tell()
    return at


def _unlike(names: list[str]) -> list[str]:
    """Names that differ: empty and repeated ones get a number."""
    found: list[str] = []
    for at, name in enumerate(names, 1):
        base = name or f"column_{at}"
        new, count = base, 2
        while new in found or (new != name and new in names):
            new, count = f"{base}_{count}", count + 1
        if new != name:
            sys.stderr.write(f"column {at} is called {new!r}: its name is {'empty' if not name else 'taken'}\n")
        found.append(new)
    return found


def _cells(options: argparse.Namespace, path: str, kind: str) -> _Made:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    delimiter = options.delimiter or ("\t" if kind == "tsv" else ",")
    if len(delimiter) != 1:
        raise ValidationError(f"--delimiter is one character, not {delimiter!r}")
    file = _Cells(path, options.encoding, delimiter, not options.no_headers)
    names = file.names()
    nulls = frozenset(["NA"] if options.na is None else options.na)
    detect = not options.no_detect_types

    def schema() -> Schema:
        if not detect:
            return Schema([ColumnDef(name, "str", primary_key=name == options.pk) for name in names])
        detectors = [Detector({*nulls, ""}) for _ in names]
        with Progress("looking at", os.path.getsize(path), options.silent) as bar:
            rows = 0
            for _, at, columns in file.batches(len(names)):
                for detector, texts in zip(detectors, columns):
                    detector.see(texts)
                rows += len(columns[0])
                bar.at(at, rows)
        return Schema([_column(options, name, one) for name, one in zip(names, detectors)])

    def batches(schema: Schema) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            raise ValidationError(f"the table has no column {unknown[0]!r}: it has {', '.join(schema.names)}")
        readers = [_reader(schema.columns[schema.index(name)], nulls if detect else frozenset()) for name in names]
        for line, _, columns in file.batches(len(names)):
            yield line, {name: make(texts, line) for name, make, texts in zip(names, readers, columns)}

    return _Made(schema, batches, os.path.getsize(path))


def _column(options: argparse.Namespace, name: str, seen: Detector) -> ColumnDef:
    if name == options.pk:
        return ColumnDef(name, seen.dtype, primary_key=True)
    return ColumnDef(name, seen.dtype, not_null=False)


def _reader(column: ColumnDef, nulls: frozenset[str]) -> Callable[[Sequence[str], int], list[Any]]:
    """What makes values of the cells of a column: an empty one is a null but where the column is of text."""
    is_text = column.dtype == "str" or column.dtype.startswith("bytes")
    reader = reader_of(column.dtype)
    missing = nulls if is_text else nulls | {""}

    def make(texts: Sequence[str], line: int) -> list[Any]:
        if is_text:
            return [None if text in missing else text for text in texts] if missing else list(texts)
        try:
            return [None if text in missing else reader(text) for text in texts]
        except ValueError:
            return [
                None if one in missing else read(reader, one, column.name, line + at) for at, one in enumerate(texts)
            ]

    return make


# -- JSON ----------------------------------------------------------------------
def _load(options: argparse.Namespace, path: str, kind: str) -> list[Any]:
    """The array of a JSON file, or its lines. ValidationError."""
    with open(path, encoding=options.encoding) as file:
        try:
            if kind == "jsonl":
                return [_line(text, at) for at, text in enumerate(file, 1) if text.strip()]
            found = json.load(file)
        except (ValueError, RecursionError) as error:
            if isinstance(error, ValidationError):
                raise
            raise ValidationError(f"it is no JSON: {error}") from None
    for name in options.path.split(".") if options.path else ():
        if not isinstance(found, dict) or name not in found:
            raise ValidationError(f"--path: the JSON has no {name!r} there")
        found = found[name]
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise ValidationError(f"the JSON is a {type(found).__name__}, not an array of objects")
    for at, item in enumerate(found):
        if not isinstance(item, dict):
            raise ValidationError(f"item {at} of the array is {shorten(item)}, not an object")
    return found


def _line(text: str, at: int) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"line {at}: it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValidationError(f"line {at}: it is {shorten(found)}, not an object")
    return found


def _objects(options: argparse.Namespace, path: str, kind: str) -> _Made:
    items = _load(options, path, kind)
    names = list(dict.fromkeys(name for item in items for name in item))

    def schema() -> Schema:
        if not names:
            raise ValidationError("no object in it has a name: there is nothing to make columns of")
        return Schema([
            ColumnDef(name, _json_type(name, items), primary_key=name == options.pk, not_null=name == options.pk)
            for name in names
        ])  # fmt: skip

    def batches(schema: Schema) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        unknown = [name for name in names if name not in schema.names]
        if unknown:
            raise ValidationError(f"the table has no column {unknown[0]!r}: it has {', '.join(schema.names)}")
        makers = {name: _json_reader(schema.columns[schema.index(name)]) for name in names}
        for at in range(0, len(items), AT_ONCE):
            part = items[at : at + AT_ONCE]
            yield at + 1, {name: [make(item.get(name)) for item in part] for name, make in makers.items()}

    return _Made(schema, batches, os.path.getsize(path))


def _json_type(name: str, items: Iterable[dict[str, Any]]) -> str:
    kinds = {type(item.get(name)) for item in items} - {type(None)}
    if kinds & {dict, list}:
        raise ValidationError(
            f"column {name!r} has objects or arrays in it", column=name, hint="import --documents keeps them"
        )
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        values = [item[name] for item in items if item.get(name) is not None]
        for dtype, low, high in (("i64", -(2**63), 2**63 - 1), ("u64", 0, 2**64 - 1)):
            if low <= min(values) and max(values) <= high:
                return dtype
        raise ValidationError(
            f"column {name!r} has integers of more than 64 bits", column=name, hint="import --documents keeps them"
        )
    if kinds and kinds <= {int, float}:
        if all(item[name] == float(item[name]) for item in items if type(item.get(name)) is int):
            return "f64"
    elif kinds <= {str}:
        return "str"
    told = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ValidationError(
        f"column {name!r} has values of several types ({told})", column=name, hint="import --documents keeps them"
    )


def _json_reader(column: ColumnDef) -> Callable[[Any], Any]:
    reader = reader_of(column.dtype)
    if column.dtype in ("date", "datetime") or column.dtype.startswith("binary"):
        return lambda value: read(reader, value, column.name, 0) if isinstance(value, str) else value
    return lambda value: value


# -- into the database -------------------------------------------------------------
def _store(options: argparse.Namespace, made: _Made) -> int:
    if os.path.exists(options.db) and os.path.getsize(options.db):
        with SnapDB(options.db, timeout=options.timeout, encryption_key=key_of(options)) as db:
            with db.transaction():
                return _insert(options, db, made)
    schema = made.schema()
    if options.pk is not None and options.pk not in schema.names:
        raise SchemaError(f"--pk: there is no column {options.pk!r}: there are {', '.join(schema.names)}")
    with _new(options.db) as path:
        kind = "row" if options.row else "columnar"
        with SnapDB(path, schema, storage_type=kind, encryption_key=key_of(options)) as db:
            return _insert(options, db, made)


def _insert(options: argparse.Namespace, db: SnapDB, made: _Made) -> int:
    count = 0
    with Progress("storing", None, options.silent) as bar:
        for line, columns in made.batches(db.schema):
            try:
                count += db.insert_columns(columns)
            except ValueError as error:
                row = getattr(error, "row_index", -1)
                where = f"line {line + row}: " if isinstance(row, int) and row >= 0 else ""
                raise ValidationError(f"{where}{error}") from error
            bar.at(0, count)
    return count


@contextmanager
def _new(path: str) -> Iterator[str]:
    """A name for a new database, which has the right one when it is whole."""
    temporary = f"{path}.tmp-{secrets.token_hex(4)}"
    try:
        yield temporary
        if os.path.exists(path) and os.path.getsize(path):
            raise FileExistsError(f"{path!r} has come to be meanwhile")
        os.replace(temporary, path)
    finally:
        for name in (temporary, f"{temporary}-wal0", f"{temporary}-wal1"):
            if os.path.exists(name):
                os.remove(name)


def _documents(options: argparse.Namespace, path: str, kind: str) -> int:
    if kind not in ("json", "jsonl"):
        raise ValidationError(f"--documents is for JSON, not for {kind}", hint="name the --format")
    items = _load(options, path, kind)
    key = key_of(options)
    if os.path.exists(options.db) and os.path.getsize(options.db):
        with DocumentStore(options.db, timeout=options.timeout, encryption_key=key) as store:
            return len(store.insert_many(items))
    with _new(options.db) as temporary:
        with DocumentStore(temporary, encryption_key=key) as store:
            return len(store.insert_many(items))
