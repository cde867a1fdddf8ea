"""The command line: ``python -m snapdb`` and the ``snapdb`` script.

Results go to standard output, progress to standard error when it is a terminal. Exit codes: 0 done, 1 found something
wrong, 2 usage.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Optional, TextIO

from ._version import __version__
from .errors import SnapDBError


def main(arguments: Optional[Sequence[str]] = None, out: Optional[TextIO] = None) -> int:
    """Run one command and give its exit code; SystemExit(2) on wrong usage."""
    if out is None:
        out = sys.stdout
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # a terminal that lacks a sign gets "?", not a traceback
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code: int = options.run(options, out)
        out.flush()
    except BrokenPipeError:
        # the reader has gone (``| head``); without this the interpreter complains once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except (SnapDBError, OSError, ImportError, ValueError) as error:
        sys.stderr.write(f"snapdb: {_one_line(error)}\n")
        return 1
    return code


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and not isinstance(error, SnapDBError) else None
    name = getattr(error, "filename", None)
    told = f"{name}: {text}" if text and name else str(error) or type(error).__name__
    return " ".join(told.split())


class UsageError(Exception):
    """Arguments that argparse took but that make no sense."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snapdb", description="An embedded table store for Python.")
    parser.add_argument("--version", action="version", version=f"snapdb {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_info(commands.add_parser("info", help="version, kernels in use and why; or what a file's columns take"))
    for name, text in _FILES.items():
        _add_file_command(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."), name)
    demo = commands.add_parser("demo", help="load real data into both engines and ask it questions")
    demo.set_defaults(run=_demo)
    _add_bench(commands.add_parser("bench", help="measure SnapDB beside sqlite3, pandas, dict and others"))
    return parser


#: commands on database files
_FILES = {
    "head": "the first rows",
    "query": "rows that meet conditions, in an order, counted or grouped",
    "import": "csv, tsv, json or json lines into a table, or into a document store",
    "export": "all rows as csv, tsv, json or json lines",
    "stats": "rows, bytes, and what each column takes",
    "fsck": "look for damage; exit code 1 where there is some",
    "repair": "save what is whole of a damaged file",
    "compact": "give back the room of deleted rows; row ids change",
    "backup": "a copy that opens on its own",
    "snapshot": "list, create, open, restore, drop or diff snapshots",
}


def _add_file_command(parser: argparse.ArgumentParser, name: str) -> None:
    """The arguments of a command on files."""
    from . import cli_care, cli_import, cli_query

    add = {
        "head": cli_query.add_head, "query": cli_query.add_query, "import": cli_import.add,
        "export": cli_query.add_export, "stats": cli_care.add_stats, "fsck": cli_care.add_fsck,
        "repair": cli_care.add_repair, "compact": cli_care.add_compact, "backup": cli_care.add_backup,
        "snapshot": cli_care.add_snapshot,
    }  # fmt: skip
    add[name](parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="a database: what its columns take, and how encoded")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--plot", metavar="OUT", help="draw the bytes of FILE's columns (.svg, .png; extra 'plot')")
    parser.set_defaults(run=_info)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=_positive, default=100_000, metavar="N", help="rows (default 100000)")
    parser.add_argument("--reads", type=_positive, default=50_000, metavar="N", help="point reads (default 50000)")
    parser.add_argument("--rounds", type=_positive, default=7, metavar="N", help="interleaved rounds (default 7)")
    parser.add_argument("--json", metavar="FILE", help="write raw rounds, figures and ratios as JSON")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--commits", type=_positive, default=500, metavar="N", help="durable commits (default 500)")
    parser.add_argument("--directory", metavar="DIR", help="where files are made and removed (default: here)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these workloads and contenders")
    parser.set_defaults(run=_bench)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a positive integer is needed, not {text!r}")
    return value


def _info(options: argparse.Namespace, out: TextIO) -> int:
    if options.file is not None:
        return _info_of_file(options, out)
    if options.plot is not None:
        raise UsageError("--plot needs a FILE")
    from .benchmark import machine

    kernels = machine.backend()
    facts = {
        "version": __version__,
        "backend": kernels["name"],
        "reason": kernels["reason"],
        "simd": kernels["simd"],
        "python": machine.python(),
    }
    if options.json:
        out.write(json.dumps(facts) + "\n")
    else:
        for name, value in facts.items():
            out.write(f"{name:<9} {value}\n")
    return 0


def _info_of_file(options: argparse.Namespace, out: TextIO) -> int:
    from . import report_columns
    from .core import SnapDB

    try:
        if not os.path.exists(options.file):  # opening to read only would say it at greater length
            raise FileNotFoundError(f"there is no file {options.file!r}")
        with SnapDB(options.file, read_only=True) as db:
            if options.json:
                out.write(json.dumps(report_columns.facts(db, options.file)) + "\n")
            else:
                report_columns.show_file(db, options.file, out)
            if options.plot is not None:
                from . import plot

                plot.columns(db, options.plot)
    except (SnapDBError, OSError, ImportError, ValueError) as error:
        sys.stderr.write(f"snapdb: {error}\n")
        return 1
    return 0


def _demo(options: argparse.Namespace, out: TextIO) -> int:
    from . import demo

    return demo.run(out)


def _bench(options: argparse.Namespace, out: TextIO) -> int:
    # imported here: starting the command line must not cost what only a benchmark needs
    from .benchmark import peers, report, runner

    peers.single_thread()
    if options.directory is not None and not os.path.isdir(options.directory):
        raise UsageError(f"--directory: {options.directory!r} is no directory")
    try:
        plan = runner.plan(
            options.rows, options.reads, options.rounds, options.only, options.commits, options.directory
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    result = runner.run(plan, _progress)
    text = report.markdown(result)
    out.write(text)
    if options.json:
        _write(options.json, json.dumps(result, indent=1) + "\n")
    if options.markdown:
        _write(options.markdown, text)
    return 0


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
