"""``snapdb head``, ``query``, ``export``: rows of a table, or documents, as text."""

from __future__ import annotations

import argparse
import io
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional, TextIO

from .cell_types import reader_of
from .cli_files import FORMATS, add_database, add_format, is_documents, opened, show, store_of, write_json, write_rows
from .core import SnapDB
from .errors import ValidationError
from .progress import Progress
from .query import Query, query

__all__ = ["add_export", "add_head", "add_query", "add_snapshot_rows"]

_UNARY = ("is_null", "not_null")


def add_head(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``head``."""
    add_database(parser)
    add_format(parser)
    parser.add_argument("-n", "--limit", type=int, default=10, metavar="N", help="rows (default: 10)")
    parser.set_defaults(run=run_query, **_NOTHING)


def add_query(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``query``."""
    add_database(parser)
    _add_question(parser)
    parser.set_defaults(run=run_query)


def add_snapshot_rows(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``snapshot open``."""
    add_database(parser)
    parser.add_argument("name", metavar="NAME", help="of the snapshot")
    _add_question(parser, False)
    parser.set_defaults(run=run_snapshot)


def _add_question(parser: argparse.ArgumentParser, snapshots: bool = True) -> None:
    add_format(parser)
    parser.add_argument(
        "-w", "--where", nargs="+", action="append", metavar="COLUMN OP VALUE",
        help="a condition, such as --where temp gt 30 or --where name is_null; repeatable, all are to hold",
    )  # fmt: skip
    parser.add_argument("-c", "--columns", nargs="+", metavar="COLUMN", help="only these")
    parser.add_argument("--order", metavar="COLUMN", help="sort by this column")
    parser.add_argument("--desc", action="store_true", help="the greatest first")
    parser.add_argument("-n", "--limit", type=int, metavar="N", help="at most so many rows")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the first")
    parser.add_argument("--count", action="store_true", help="only how many there are")
    parser.add_argument("--group-by", nargs="+", metavar="COLUMN", help="a row for each group")
    parser.add_argument(
        "--agg", nargs=2, action="append", metavar=("COLUMN", "FUNCTION"), help="of each group: sum min max avg count"
    )
    parser.add_argument("--filter", metavar="JSON", help="of a document store: a MongoDB filter")
    parser.set_defaults(snapshot=None)
    if snapshots:
        parser.add_argument("--snapshot", metavar="NAME", help="rows of this snapshot; others may write meanwhile")


_NOTHING: dict[str, Any] = {
    "where": None, "columns": None, "order": None, "desc": False, "offset": 0, "count": False, "group_by": None,
    "agg": None, "filter": None, "snapshot": None,
}  # fmt: skip


def run_snapshot(options: argparse.Namespace, out: TextIO) -> int:
    """``snapshot open``: its rows."""
    options.snapshot = options.name
    return run_query(options, out)


def run_query(options: argparse.Namespace, out: TextIO) -> int:
    """Show what was asked for; 1 where there is nothing."""
    with opened(options, snapshot=options.snapshot) as db:
        if not is_documents(db):
            return _rows(db, options, out)
        if options.snapshot is not None:
            raise ValidationError("a document store has no snapshots")
    return _documents(options, out)


def _rows(db: SnapDB, options: argparse.Namespace, out: TextIO) -> int:
    if options.filter is not None:
        raise ValidationError("--filter is for document stores: a table takes --where")
    where = conditions(db, options.where)
    if options.group_by or options.agg:
        return _groups(db, options, where, out)
    asked = query(db).filter(where)
    if options.order is not None:
        asked = asked.order(options.order, options.desc)
    asked = asked.slice(options.limit, options.offset)
    if options.count:
        count = asked.count()
        out.write(f"{count}\n")
        return 0 if count else 1
    names = _columns(db, options.columns)
    return 0 if show(names, _listed(asked, names), options, out) else 1


def _listed(asked: Query, names: Sequence[str]) -> Iterator[list[Any]]:
    return ([row[name] for name in names] for _, row in asked)


def _columns(db: SnapDB, given: Optional[Sequence[str]]) -> list[str]:
    for name in given or ():
        db.schema.index(name)
    return list(given or db.schema.names)


def conditions(db: SnapDB, given: Optional[Sequence[Sequence[str]]]) -> list[tuple[str, str, Any]]:
    """The conditions of the command line, their values of the types of their columns. ValidationError."""
    found: list[tuple[str, str, Any]] = []
    for parts in given or ():
        if len(parts) == 2 and parts[1] in _UNARY:
            found.append((parts[0], parts[1], None))
            continue
        if len(parts) < 3:
            hint = "such as --where temp gt 30, or --where name is_null"
            raise ValidationError(f"--where takes COLUMN OP VALUE, not {' '.join(parts)!r}", hint=hint)
        name, op, *texts = parts
        dtype = db.schema.columns[db.schema.index(name)].dtype
        reader = _number if dtype[0] in "iuf" and dtype[1:].isdigit() else reader_of(dtype)
        values = [_value(reader, text, name) for text in texts]
        if op not in ("in", "between") and len(values) > 1:
            raise ValidationError(f"--where {name} {op} takes one value, not {len(values)}: put quotes around it")
        found.append((name, op, values if op in ("in", "between") else values[0]))
    return found


def _value(reader: Any, text: str, name: str) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise ValidationError(f"--where {name}: {text!r} is no value of the column: {error}", column=name) from None


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _groups(db: SnapDB, options: argparse.Namespace, where: Any, out: TextIO) -> int:
    keys: list[str] = options.group_by or []
    if not keys:
        raise ValidationError("--agg needs --group-by")
    asked: dict[str, list[str]] = {}
    for column, function in options.agg or [[keys[0], "count"]]:
        asked.setdefault(column, []).append(function)
    found = db.group_by(keys, asked, where=where)
    names = [*keys, *(f"{column}_{function}" for column, functions in asked.items() for function in functions)]
    rows = [[*(key if isinstance(key, tuple) else (key,)), *values.values()] for key, values in found.items()]
    if options.order is not None:
        if options.order not in names:
            raise ValidationError(f"--order: the groups have no {options.order!r}, they have {', '.join(names)}")
        at = names.index(options.order)
        known = [row for row in rows if row[at] is not None]
        rows = sorted(known, key=lambda row: row[at], reverse=options.desc) + [row for row in rows if row[at] is None]
    end = None if options.limit is None else options.offset + max(0, options.limit)
    return 0 if show(names, rows[options.offset : end], options, out) else 1


def _documents(options: argparse.Namespace, out: TextIO) -> int:
    wanted = _filter(options.filter)
    if options.where or options.group_by or options.agg:
        raise ValidationError("this is a document store: ask it with --filter")
    with store_of(options) as store:
        if options.count:
            count = store.count(wanted)
            out.write(f"{count}\n")
            return 0 if count else 1
        found = store.query(wanted, options.columns, options.order, options.desc, options.limit, options.offset)
    kind = options.format or "json"
    if kind in ("json", "jsonl"):
        write_json(found, kind == "jsonl", out)
    else:
        names = list(dict.fromkeys(name for document in found for name in document))
        rows = ([_flat(document.get(name)) for name in names] for document in found)
        show(names, rows, options, out)
    return 0 if found else 1


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list)) else value


def _filter(text: Optional[str]) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"--filter is no JSON: {error}") from None


# -- export --------------------------------------------------------------------
def add_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``export``."""
    add_database(parser)
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: -, standard output")
    parser.add_argument("-f", "--format", choices=FORMATS, help="default: by the ending of FILE, else json")
    parser.add_argument("--na", default="NA", metavar="TEXT", help="of a null in csv and tsv (default: NA)")
    parser.add_argument("-w", "--where", nargs="+", action="append", metavar="COLUMN OP VALUE", help="as of query")
    parser.add_argument("-c", "--columns", nargs="+", metavar="COLUMN", help="only these")
    parser.add_argument("--snapshot", metavar="NAME", help="rows of this snapshot")
    parser.add_argument("--silent", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace, out: TextIO) -> int:
    """Write every row to a file, which is there in full or not at all."""
    ending = os.path.splitext(options.file)[1].lower().lstrip(".")
    kind = options.format or {"ndjson": "jsonl", "tab": "tsv"}.get(ending, ending if ending in FORMATS else "json")
    with opened(options, snapshot=options.snapshot) as db:
        documents = is_documents(db)
        if not documents:
            names = _columns(db, options.columns)
            asked = query(db).filter(conditions(db, options.where))
            with _target(options.file, out) as target, Progress("exporting", len(db), options.silent) as bar:
                count = write_rows(names, _counted(_listed(asked, names), bar), kind, options.na, target)
    if documents:
        if kind not in ("json", "jsonl"):
            raise ValidationError(f"documents are exported as json or jsonl, not as {kind}", hint="name the --format")
        with store_of(options) as store, _target(options.file, out) as target:
            count = write_json(store, kind == "jsonl", target)
    if options.file != "-":
        sys.stderr.write(f"{count} {'documents' if documents else 'rows'} exported to {options.file}\n")
    return 0


def _counted(rows: Iterator[list[Any]], bar: Progress) -> Iterator[list[Any]]:
    for at, row in enumerate(rows, 1):
        if at % 4096 == 0:
            bar.at(at, at)
        yield row


@contextmanager
def _target(name: str, out: TextIO) -> Iterator[TextIO]:
    if name == "-":
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(encoding="utf-8", errors="strict", newline="\n")
        yield out
        return
    temporary = f"{name}.tmp-{secrets.token_hex(4)}"
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, name)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
