"""A table in a file: transactions, what happens when one fails, opening again, a backup, a check."""

from __future__ import annotations

import tempfile
from pathlib import Path

from snapdb import ColumnDef, Schema, SnapDB, errors

ACCOUNTS = Schema(
    [
        ColumnDef("owner", "str", primary_key=True),
        ColumnDef("cents", "i64"),
    ]
)


def move(db: SnapDB, giver: str, taker: str, cents: int) -> None:
    """Take from one account and give to another: both or neither."""
    with db.transaction():
        for owner, change in ((giver, -cents), (taker, cents)):
            account = db.lookup("owner", owner)
            if account is None:
                raise LookupError(f"no account of {owner}")
            if account["cents"] + change < 0:
                raise ValueError(f"{owner} has {account['cents']} cents only")
            db.upsert({"owner": owner, "cents": account["cents"] + change})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:  # so that this example leaves nothing behind
        path = Path(folder, "bank.snapdb")

        # "full": a change is on stable storage when its call returns; docs/durability.md has the other levels
        with SnapDB(path, ACCOUNTS, durability="full") as db:
            db.batch_insert([{"owner": "Ada", "cents": 5_000}, {"owner": "Grace", "cents": 2_000}])
            move(db, "Ada", "Grace", 1_500)
            try:
                move(db, "Ada", "Edsger", 1_000)  # taken from Ada already when it turns out that there is no Edsger
            except LookupError as error:
                print("rolled back:", error)
            print("total:", db.aggregate("cents", "sum"))

            try:
                SnapDB(path)
            except errors.LockedError as error:
                print("one writer at a time, the holder is this process:", error.pid is not None)

        # the schema and the engine are in the file
        with SnapDB(path) as db:
            print("after reopening:", {row["owner"]: row["cents"] for row in db.select()})
            copy = db.backup(Path(folder, "copy.snapdb"))
            print("fsck:", db.fsck()["ok"])

        with SnapDB(copy, read_only=True) as db:
            print("the backup has", len(db), "accounts and", db.aggregate("cents", "sum"), "cents")
            try:
                db.insert({"owner": "Edsger", "cents": 0})
            except errors.ReadOnlyError as error:
                print("refused:", type(error).__name__)


if __name__ == "__main__":
    main()
