"""The demo: a year of hourly weather at three airports, loaded into both engines and asked the same questions.

Then the same in a file: written, changed in transactions, closed, opened again, and asked once more.
"""

from __future__ import annotations

import csv
import datetime
import os
import statistics
import sys
import tempfile
import time
from importlib import resources
from typing import Any, Callable, NamedTuple, Optional, TextIO

from . import _ext
from .core import SnapDB
from .report_columns import LEGEND, show_columns
from .schema import ColumnDef, Schema

Row = dict[str, Any]
ENGINES = ("columnar", "row")
FREEZING_AT_JFK = [("origin", "eq", "JFK"), ("temp", "lt", 32.0)]
POINT = 12_345
TIMINGS = 9  # of each question; their median is shown

_ABOUT_TIMES = """
Times: one call each, the median of several after a first one that is not counted. The columnar engine takes a mean or
maximum of a whole column from its zone maps and tail. Which engine is faster depends on the question and the size.
"""

_TYPES = (
    ("origin", "bytes:3"), ("year", "i16"), ("month", "u8"), ("day", "u8"), ("hour", "u8"),
    ("temp", "f64"), ("dewp", "f64"), ("humid", "f64"), ("wind_dir", "i16"), ("wind_speed", "f64"),
    ("wind_gust", "f64"), ("precip", "f64"), ("pressure", "f64"), ("visib", "f64"), ("time_hour", "datetime"),
)  # fmt: skip
#: what the data has for every row; elsewhere "NA" stands for a missing value
_ALWAYS = frozenset(("origin", "year", "month", "day", "hour", "time_hour"))


def schema() -> Schema:
    """The typed schema of weather.csv."""
    return Schema([ColumnDef(name, dtype, not_null=name in _ALWAYS) for name, dtype in _TYPES])


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _converter(dtype: str) -> Callable[[str], Any]:
    if dtype == "datetime":
        return _moment
    if dtype.startswith("bytes"):
        return str
    return float if dtype.startswith("f") else int


def weather() -> list[Row]:
    """The rows of the bundled weather.csv with typed values, None for NA."""
    converters = [(name, _converter(dtype)) for name, dtype in _TYPES]
    path = resources.files("snapdb").joinpath("data").joinpath("weather.csv")
    with path.open("r", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        head = tuple(next(reader))
        if head != tuple(name for name, _ in _TYPES):
            raise ValueError(f"weather.csv has unexpected columns: {', '.join(head)}")
        return [
            {name: None if text == "NA" else convert(text) for (name, convert), text in zip(converters, line)}
            for line in reader
        ]


class Answers(NamedTuple):
    """What one engine says; the fields must not differ between engines."""

    rows: int
    freezing: int
    mean: Any
    gust: Any
    by_origin: dict[Any, Any]
    point: Any


#: the demo's questions, by the field of ``Answers`` that each fills
QUESTIONS: dict[str, Callable[[SnapDB], Any]] = {
    "rows": len,
    "freezing": lambda db: db.count_where(FREEZING_AT_JFK),
    "mean": lambda db: db.aggregate("temp", "avg"),
    "gust": lambda db: db.aggregate("wind_gust", "max"),
    "by_origin": lambda db: db.group_by("origin", "temp", "avg"),
    "point": lambda db: db.get(POINT),
}


def ask(db: SnapDB) -> Answers:
    """Every question once."""
    return Answers(**{name: question(db) for name, question in QUESTIONS.items()})


def timings(db: SnapDB) -> dict[str, float]:
    """Seconds that each question takes: the median of several calls. The first calls were made by ``ask``."""
    taken = {}
    for name, question in QUESTIONS.items():
        rounds = []
        for _ in range(TIMINGS):
            start = time.perf_counter()
            question(db)
            rounds.append(time.perf_counter() - start)
        taken[name] = statistics.median(rounds)
    return taken


def run(out: TextIO = sys.stdout) -> int:
    """Load, ask and show; 0 if both engines agree and files keep what was written, else 1."""
    start = time.perf_counter()
    rows = weather()
    out.write(f"SnapDB, kernels: {_ext.BACKEND} ({_ext.REASON})\n")
    out.write(f"weather.csv: {len(rows):,} rows, {len(_TYPES)} columns, parsed in {_passed(start)}\n")
    answers = {}
    for engine in ENGINES:
        with SnapDB(":memory:", schema(), storage_type=engine) as db:
            start = time.perf_counter()
            db.batch_insert(rows)
            out.write(f"\n{engine} engine: {len(db):,} rows loaded in {_passed(start)}, {db.memory_usage():,} bytes\n")
            if db.is_columnar():
                show_columns(db, out)
                out.write(LEGEND + "\n")
            answers[engine] = ask(db)
            _show(answers[engine], timings(db), out)
    out.write(_ABOUT_TIMES)
    agree = len(set(map(repr, answers.values()))) == 1
    out.write("\nBoth engines give the same answers.\n" if agree else "\nThe engines DISAGREE.\n")
    return 0 if in_files(rows, answers, out) and agree else 1


class _ChangedMyMindError(Exception):
    pass


def in_files(rows: list[Row], answers: dict[str, Answers], out: TextIO) -> bool:
    """The same in files of a temporary directory; whether each gave, reopened, what it had given before."""
    out.write("\nIn a file (temporary, removed at the end)\n")
    kept = True
    with tempfile.TemporaryDirectory(prefix="snapdb-demo-") as folder:
        for engine in ENGINES:
            path = os.path.join(folder, f"{engine}.snapdb")
            before = _write(path, engine, rows, answers[engine], out)
            kept = _reopen(path, before, out) and kept
    return kept


def proof(db: SnapDB) -> dict[str, Any]:
    """What must not change by closing and opening: every answer of the demo, and counts and sums over all rows."""
    return {
        "answers": ask(db),
        "temp_sum": db.aggregate("temp", "sum"),
        "pressure_sum": db.aggregate("pressure", "sum"),
        "hours": db.group_by("origin", "time_hour", "count"),
        "without_gust": db.count_where([("wind_gust", "is_null")]),
    }


def _write(path: str, engine: str, rows: list[Row], right: Answers, out: TextIO) -> Optional[dict[str, Any]]:
    """Make the file and change it; its proof before it is closed, or None where something was not as it must be."""
    start = time.perf_counter()
    with SnapDB(path, schema(), storage_type=engine) as db:
        db.batch_insert(rows)
        db.flush()
        out.write(f"  {engine} engine: {len(db):,} rows on the disk in {_passed(start)}\n")
        well = repr(ask(db)) == repr(right)  # two NaN are not equal, but read the same
        loaded = repr(proof(db))
        try:
            with db.transaction():
                deleted = db.delete_where({"origin": "JFK"})
                raise _ChangedMyMindError
        except _ChangedMyMindError:
            well = well and repr(proof(db)) == loaded
            out.write(f"    transaction 1 deletes {deleted:,} rows, then fails: {len(db):,} rows, all as before\n")
        with db.transaction():
            changed = db.batch_update({"origin": "LGA", "wind_gust": {"gt": 40}}, {"visib": 0.0})
            new = db.insert({**rows[0], "origin": "JFK", "temp": -40.0})
        well = well and db[new]["temp"] == -40.0
        out.write(f"    transaction 2 changes {changed:,} and adds 1: {len(db):,} rows\n")
        before = proof(db)
    return before if well else None


def _reopen(path: str, before: Optional[dict[str, Any]], out: TextIO) -> bool:
    """Open the file, which knows its schema and engine, and compare."""
    size = os.path.getsize(path)
    start = time.perf_counter()
    with SnapDB(path) as db:
        opened = _passed(start)
        same = repr(proof(db)) == repr(before)
        well = bool(db.fsck()["ok"])
        found = "the same rows, counts and sums" if same else "the answers DIFFER"
        checked = "ok" if well else "finds DAMAGE"
        out.write(f"    closed, {size:,} bytes; reopened in {opened}: {len(db):,} rows, {found}; fsck: {checked}\n")
    return same and well


def _passed(start: float) -> str:
    return f"{(time.perf_counter() - start) * 1000:,.1f} ms"


def _show(answers: Answers, seconds: dict[str, float], out: TextIO) -> None:
    means = ", ".join(f"{origin} {mean:.4f}" for origin, mean in answers.by_origin.items())
    point = ", ".join(f"{name}={_plain(answers.point[name])}" for name in ("origin", "time_hour", "temp", "wind_gust"))
    lines = (
        ("freezing", "hours below 32 F at JFK", f"{answers.freezing:,}"),
        ("mean", "mean temperature", f"{answers.mean:.4f} F"),
        ("gust", "strongest gust", f"{answers.gust:.2f} mph"),
        ("by_origin", "mean temperature by airport", means),
        ("point", f"row {POINT:,}", point),
    )
    for name, question, answer in lines:
        out.write(f"  {seconds[name] * 1e6:>9,.1f} us  {question:<28}  {answer}\n")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)
