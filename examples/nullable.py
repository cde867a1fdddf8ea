"""Missing values: how they are declared, stored, found and left out, alike in both engines."""

from __future__ import annotations

from datetime import date

from snapdb import ColumnDef, Schema, SnapDB

ORDERS = Schema(
    [
        ColumnDef("id", "i32", primary_key=True),
        ColumnDef("customer", "str"),
        ColumnDef("total", "f64", not_null=False),
        ColumnDef("shipped", "date", not_null=False),
    ]
)


def main() -> None:
    for engine in ("row", "columnar"):
        with SnapDB(":memory:", ORDERS, storage_type=engine) as db:
            db.batch_insert(
                [
                    {"id": 1, "customer": "Kim", "total": 12.5, "shipped": date(2026, 3, 1)},
                    {"id": 2, "customer": "Lee", "total": None, "shipped": date(2026, 3, 2)},
                    {"id": 3, "customer": "Kim", "total": 7.5},  # a nullable column may be left out
                ]
            )
            print(engine, "engine")
            print("  third row:", db.get(2))
            print("  not shipped:", db.select_where([("shipped", "is_null", None)], columns=["id"]))
            # a null matches no comparison, so these two do not add up to all rows
            below, others = (db.count_where({"total": {op: 10}}) for op in ("lt", "gte"))
            print("  below 10:", below, "not below 10:", others)
            print("  sum and count leave nulls out:", db.aggregate("total", "sum"), db.aggregate("total", "count"))
            db.update(0, {"shipped": None})
            print("  a null groups under None:", db.group_by("shipped", "id", "count"))
            try:
                db.insert({"id": 4, "customer": None})
            except ValueError as error:
                print("  refused:", error)


if __name__ == "__main__":
    main()
