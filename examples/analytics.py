"""Columns: loading them whole, what each is encoded as, and questions that run on the encoded data."""

from __future__ import annotations

from array import array

from snapdb.columnar import ColumnarTable

ROWS = 100_000
STATUS = ("active", "idle", "banned")


def main() -> None:
    table = ColumnarTable("readings", [("ts", "i64"), ("sensor", "u8"), ("status", "bytes:8"), ("temp", "f64")])
    table.insert_columns(
        {
            "ts": array("q", range(1_700_000_000, 1_700_000_000 + ROWS)),
            "sensor": array("B", (i % 16 for i in range(ROWS))),
            "status": [STATUS[i % 3] for i in range(ROWS)],
            "temp": array("d", (20 + (i * 7919 % 1000) / 32 for i in range(ROWS))),
        }
    )
    print(f"{len(table)} rows in {table.memory_usage() / ROWS:.1f} bytes each")
    for name, column in table.columns.items():
        print(f"{name:<7} {column.encoding:<6} {column.memory_usage() / ROWS:5.2f} bytes a row")

    warm = [("sensor", ">", 8), ("status", "==", "active"), ("temp", "<", 35.0)]
    print("warm and active:", table.count_where(warm))
    print("their mean:", table.aggregate("temp", "avg", where=warm))
    print("rows by status:", table.group_by("status", "ts", "count"))
    for key, row in table.group_by(["status", "sensor"], {"temp": ["min", "max"]}, where=[("sensor", "<", 2)]).items():
        print(key, row)


if __name__ == "__main__":
    main()
