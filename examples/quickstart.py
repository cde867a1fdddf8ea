"""A table in five minutes: define, insert, read, change, delete, and what happens to a bad value."""

from __future__ import annotations

from snapdb import ColumnDef, Schema, SnapDB, errors

USERS = Schema(
    [
        ColumnDef("id", "i64", primary_key=True),
        ColumnDef("name", "str"),
        ColumnDef("email", "bytes:64", unique=True),
        ColumnDef("score", "f32"),
    ]
)


def main() -> None:
    with SnapDB(":memory:", USERS, storage_type="row") as db:
        # insert gives the row's id; a batch gives the number of rows and is all or nothing
        first = db.insert({"id": 1, "name": "Ada", "email": "ada@example.org", "score": 9.5})
        db.batch_insert(
            [
                {"id": 2, "name": "Grace", "email": "grace@example.org", "score": 8.25},
                {"id": 3, "name": "Edsger", "email": "edsger@example.org", "score": 7.75},
            ]
        )
        print("first row:", db[first])
        print("by primary key:", db.lookup("id", 2))
        print("good scores:", [row["name"] for row in db.select_where([("score", ">=", 8)])])

        db.update(first, {"score": 10.0})
        db.upsert({"id": 3, "name": "Edsger W.", "email": "edsger@example.org", "score": 8.0})
        db.delete(1)
        print("left:", [row["name"] for _, row in db])

        try:
            db.insert({"id": 1, "name": "Alan", "email": "alan@example.org", "score": 9.0})
        except errors.UniqueError as error:
            print("refused:", error)
        print("rows:", len(db))


if __name__ == "__main__":
    main()
