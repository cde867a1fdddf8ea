"""A process that writes to a database until it is killed, and says on its standard output what was acknowledged.

    python kill_writer.py PATH ENGINE DURABILITY SEED START

Everything it does follows from SEED, so the table after n steps is known without a look at it: ``Course`` carries the
same steps out on ``model.Model``. START steps are in the file already. One byte each, unbuffered: ``o`` now it opens,
``r`` it is open, ``.`` a step returned, ``!`` a step returned that puts everything before it on stable storage, ``X``
the file did not have the rows, or the snapshots, of START steps.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from typing import Any, NamedTuple

from model import Model

from snapdb import ColumnDef, Schema, SnapDB, tablefile
from snapdb.testing import history

SCHEMA = Schema(
    [
        ColumnDef("id", "i64", primary_key=True),
        ColumnDef("n", "i16"),
        ColumnDef("x", "f64", not_null=False),
        ColumnDef("name", "str"),
        ColumnDef("blob", "binary", not_null=False),
        ColumnDef("code", "bytes:6", not_null=False),
    ]
)
BULK = 1 << 13  # bytes of a batch that goes past the log
WAL_LIMIT = 1 << 16  # bytes of log after which there is a checkpoint
MOST = 1200  # rows; beyond that many are deleted
SETTLING = ("flush", "checkpoint", "compact")
GROUPS = 64  # values of n
NAMES = ("a", "b", "c")  # of snapshots


class RollBack(Exception):
    """Ends a transaction that is to leave nothing."""


class Step(NamedTuple):
    """Calls that are one commit. ``kind``: ``bare``, ``transaction``, or ``undone`` for one that is rolled back."""

    kind: str
    calls: list[tuple[str, tuple[Any, ...]]]

    @property
    def settles(self) -> bool:
        """Whether everything so far is on stable storage when it has returned."""
        return any(name in SETTLING for name, _ in self.calls)


class Kept(Model):
    """A table with snapshots: ``kept`` has the rows and the ids given out of each."""

    def __init__(self, schema: Any) -> None:
        super().__init__(schema)
        self.kept: dict[str, tuple[dict[int, Any], int]] = {}

    def snapshot(self, name: str) -> None:
        self.kept[name] = dict(self.rows), self.positions

    def drop_snapshot(self, name: str) -> None:
        del self.kept[name]

    def restore(self, name: str) -> None:
        rows, self.positions = self.kept[name]
        self.rows = dict(rows)

    @property
    def shown(self) -> Any:
        """As ``history`` gives it."""
        return self.rows, {name: rows for name, (rows, _) in self.kept.items()}


class Course:
    """The steps of one seed, in order, and what the table holds after those that were drawn."""

    def __init__(self, seed: int, most: int = MOST, bulk_rows: int = 150, snapshots: bool = False) -> None:
        self.model = Kept(SCHEMA)
        self.steps = 0
        self._draw = random.Random(seed)
        self._key = 0
        self._most = most
        self._bulk_rows = bulk_rows
        self._snapshots = snapshots

    def next(self) -> Step:
        """Draw the next step; the model is as after it."""
        self.steps += 1
        kind = self._draw.choices(("bare", "transaction", "undone"), (80, 14, 6))[0]
        if kind == "bare":
            step = Step(kind, [self._call(True)])
            carry_out(step, self.model)
            return step
        before, positions = dict(self.model.rows), self.model.positions
        calls = []
        for _ in range(self._draw.randrange(1, 7)):
            calls.append(self._call(False))
            carry_out(Step("bare", calls[-1:]), self.model)
        if kind == "undone":
            self.model.rows, self.model.positions = before, positions
        return Step(kind, calls)

    def skip(self, steps: int) -> None:
        """Draw this many steps."""
        for _ in range(steps):
            self.next()

    # -- calls -------------------------------------------------------------
    def _call(self, settling: bool) -> tuple[str, tuple[Any, ...]]:
        draw, model = self._draw, self.model
        if len(model.rows) > self._most:
            return "delete_where", ([("n", "lt", GROUPS * 3 // 4)],)
        names = ("insert", "update", "delete", "batch_insert", "insert_columns", "bulk", "batch_update", "delete_where")
        weights = [30, 22, 9, 7, 3, 2, 3, 2]
        settle = {"upsert": 6, "flush": 2, "checkpoint": 1, "compact": 1}
        if self._snapshots:
            settle.update(snapshot=4, drop_snapshot=2 if model.kept else 0, restore=1 if model.kept else 0)
        if not settling:
            settle = {"upsert": 6}
        name = draw.choices((*names, *settle), (*weights, *settle.values()))[0]
        idx = self._some_id()
        if idx is None and name in ("update", "delete", "upsert"):
            name = "insert"
        arguments: tuple[Any, ...] = ()
        if name == "insert":
            arguments = (self._row(),)
        elif name == "update":
            arguments = (idx, self._changes())
        elif name == "delete":
            arguments = (idx,)
        elif name == "batch_insert":
            arguments = ([self._row() for _ in range(draw.randrange(1, 30))],)
        elif name in ("insert_columns", "bulk"):
            rows = [self._row() for _ in range(self._bulk_rows if name == "bulk" else draw.randrange(1, 40))]
            name, arguments = "insert_columns", ({key: [row[key] for row in rows] for key in SCHEMA.names},)
        elif name == "batch_update":
            arguments = ([("n", "eq", draw.randrange(GROUPS))], self._changes())
        elif name == "delete_where":
            arguments = ([("n", "eq", draw.randrange(GROUPS))],)
        elif name == "snapshot":
            arguments = (draw.choice(NAMES),)
        elif name in ("drop_snapshot", "restore"):
            arguments = (draw.choice(sorted(model.kept)),)
        elif name == "upsert":
            key = model.rows[idx]["id"] if idx is not None and draw.random() < 0.6 else self._new_key()
            arguments = ({**self._row(), "id": key},)
        return name, arguments

    def _some_id(self) -> Any:
        for _ in range(30):
            idx = self._draw.randrange(max(1, self.model.positions))
            if idx in self.model.rows:
                return idx
        return next(iter(self.model.rows), None)

    def _new_key(self) -> int:
        self._key += 1
        return self._key * 7

    def _row(self) -> dict[str, Any]:
        draw = self._draw
        size = draw.choice((0, 3, 12, 40)) if draw.random() < 0.98 else 3000
        return {
            "id": self._new_key(),
            "n": draw.randrange(GROUPS),
            "x": None if draw.random() < 0.2 else draw.randrange(-1000, 1000) / 8,
            "name": f"{self._key} " + draw.choice("aäz") * size,
            "blob": None if draw.random() < 0.5 else draw.getrandbits(64).to_bytes(8, "little") * (size // 12),
            "code": draw.choice((None, "", "abc", "a\0\0b", "äöü")),
        }

    def _changes(self) -> dict[str, Any]:
        row = self._row()
        names = self._draw.sample(SCHEMA.names[1:], self._draw.randrange(1, 4))
        return {name: row[name] for name in names}


def carry_out(step: Step, table: Any) -> None:
    """Do a step on a database or a model."""
    if step.kind == "bare":
        for name, arguments in step.calls:
            if name in ("flush", "checkpoint") and isinstance(table, Model):
                continue
            getattr(table, name)(*arguments)
    elif not isinstance(table, Model):
        try:
            with table.transaction():
                carry_out(Step("bare", step.calls), table)
                if step.kind == "undone":
                    raise RollBack
        except RollBack:
            pass


def small_files() -> None:
    """Checkpoints and bulk batches come often from here on."""
    tablefile.Options = functools.partial(tablefile.Options, wal_limit=WAL_LIMIT)  # type: ignore[misc,assignment]
    tablefile.BULK = BULK  # type: ignore[misc]


def say(byte: bytes) -> None:
    os.write(1, byte)


def main(path: str, engine: str, durability: str, seed: str, start: str) -> None:
    small_files()
    course = Course(int(seed), snapshots=True)
    course.skip(int(start))
    say(b"o")
    db = SnapDB(path, SCHEMA, storage_type=engine, durability=durability)
    say(b"r")
    if history(db) != course.model.shown:
        say(b"X")
        return
    while True:
        step = course.next()
        carry_out(step, db)
        say(b"!" if step.settles else b".")


if __name__ == "__main__":
    main(*sys.argv[1:])
