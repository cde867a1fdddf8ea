"""``snapdb stats``, ``fsck``, ``repair``, ``compact``, ``backup``, ``snapshot``: how a database is looked after."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from typing import Any, TextIO

from .cell_types import moment_text
from .cli_files import add_database, key_of, opened
from .cli_query import add_snapshot_rows
from .core import SnapDB
from .errors import CorruptionError
from .text_table import text_table

__all__ = ["add_backup", "add_compact", "add_fsck", "add_repair", "add_snapshot", "add_stats"]


def _said(value: Any) -> Any:
    return moment_text(value) if isinstance(value, dt.datetime) else str(value)


def _report(found: Any, options: argparse.Namespace, out: TextIO) -> None:
    """A dict as lines of names and values, or as JSON."""
    if options.json or not isinstance(found, dict):
        out.write(json.dumps(found, default=_said, ensure_ascii=False) + "\n")
        return
    size = max(map(len, found))
    for name, value in found.items():
        if isinstance(value, (dict, list)):
            value = json.dumps(value, default=_said, ensure_ascii=False)
        out.write(f"{name:<{size}}  {_said(value) if isinstance(value, dt.datetime) else value}\n")


def _command(parser: argparse.ArgumentParser, run: Any) -> None:
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def add_stats(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``stats``."""
    _command(parser, _stats)


def _stats(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options) as db:
        found = db.stats()
    columns = found.pop("columns")
    if options.json:
        _report({**found, "columns": columns}, options, out)
        return 0
    _report(found, options, out)
    if columns:
        names = [name for name in next(iter(columns.values())) if name != "encodings"]
        out.write("\n" + text_table(["column", *names], [[c, *(v.get(n) for n in names)] for c, v in columns.items()]))
    return 0


def add_fsck(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fsck``."""
    _command(parser, _fsck)
    parser.add_argument("--quick", action="store_true", help="headers, catalog and log only, not every row")


def _fsck(options: argparse.Namespace, out: TextIO) -> int:
    try:
        with opened(options) as db:
            report = db.fsck(full=not options.quick)
    except CorruptionError as error:
        report = {"ok": False, "rows": None, "full": False, "issues": [
            {"kind": "file", "where": error.offset, "message": str(error)}
        ]}  # fmt: skip
    if options.json:
        _report(report, options, out)
    elif report["ok"]:
        out.write(f"{options.db}: {report['rows']} rows, no damage found\n")
    else:
        for issue in report["issues"]:
            out.write(f"{options.db}: {issue['kind']}: {issue['message']}\n")
    return 0 if report["ok"] else 1


def add_repair(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``repair``."""
    _command(parser, _repair)


def _repair(options: argparse.Namespace, out: TextIO) -> int:
    report = SnapDB.repair_file(options.db, encryption_key=key_of(options), timeout=options.timeout)
    if options.json:
        _report(report, options, out)
        return 0 if report["ok"] else 1
    if report["ok"]:
        out.write(f"{options.db}: {report['rows']} rows, nothing is lost\n")
        return 0
    out.write(f"{options.db}: {report['rows']} rows are there, these are lost:\n")
    for one in report["lost"]:
        out.write(f"  {one['kind']} {one['first']} to {one['last']}: {one['reason']}\n")
    return 1


def add_compact(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``compact``."""
    _command(parser, _compact)


def _compact(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options, write=True) as db:
        freed, rows = db.compact(), len(db)
    if options.json:
        _report({"rows": rows, "freed": freed}, options, out)
    else:
        out.write(f"{options.db}: {rows} rows, {freed} bytes given back\n")
    return 0


def add_backup(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``backup``."""
    add_database(parser)
    parser.add_argument("destination", metavar="DEST", help="the copy, which must not be there yet")
    parser.set_defaults(run=_backup)


def _backup(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options) as db:
        path = db.backup(options.destination)
        out.write(f"{len(db)} rows copied to {path}\n")
    return 0


# -- snapshots ---------------------------------------------------------------------
def add_snapshot(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``snapshot``."""
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(commands.add_parser("list", help="the snapshots, newest first"), _list)
    for name, run, text in (
        ("create", _create, "keep the table as it is now"),
        ("restore", _restore, "have the table be what a snapshot shows"),
        ("drop", _drop, "forget a snapshot"),
    ):
        one = commands.add_parser(name, help=text)
        add_database(one)
        one.add_argument("name", nargs="?" if name == "create" else None, metavar="NAME")
        one.set_defaults(run=run)
    add_snapshot_rows(commands.add_parser("open", help="rows of a snapshot, as of query"))
    diff = commands.add_parser("diff", help="which rows differ between two snapshots")
    _command(diff, _diff)
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")


def _list(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options) as db:
        found = db.list_snapshots()
    if options.json:
        _report(found, options, out)
    else:
        names = ["name", "created_at", "rows", "storage_type"]
        out.write(text_table(names, [[one[name] for name in names] for one in found]))
    return 0


def _create(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options, write=True) as db:
        out.write(f"{db.snapshot(options.name)}\n")
    return 0


def _restore(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options, write=True) as db:
        db.restore(options.name)
        out.write(f"{options.db}: {len(db)} rows, as of {options.name}\n")
    return 0


def _drop(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options, write=True) as db:
        db.drop_snapshot(options.name)
    return 0


def _diff(options: argparse.Namespace, out: TextIO) -> int:
    with opened(options) as db:
        found = db.diff_snapshots(options.a, options.b)
    if options.json:
        _report(found, options, out)
    else:
        for what, ids in found.items():
            out.write(f"{what:<8} {len(ids)}{': ' + _some(ids) if ids else ''}\n")
    return 0


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
