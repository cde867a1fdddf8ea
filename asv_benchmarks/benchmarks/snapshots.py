"""Snapshots of a table in a file: made, opened, compared, and what they take.

The handle is started (it has checkpointed before), as that of a writer is. 100 rows change between two snapshots.
"""

import os
import random
import shutil
import tempfile
from pathlib import Path

from snapdb import SnapDB

from .common import ENGINES, ROWS
from .files import built, root

MANY = 20
CHANGED = 100


class _Writer:
    """A copy of the file that has two snapshots, 100 changed rows apart."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300
    number = 1
    warmup_time = 0.0

    def setup(self, engine, count):
        self.folder = Path(tempfile.mkdtemp(dir=root().name))
        self.path = str(self.folder / "t")
        shutil.copyfile(built(engine, count), self.path)
        self.db = SnapDB(self.path, durability="normal")
        self.draw = random.Random(44)
        self.count = count
        self.change()
        self.db.checkpoint()
        self.db.snapshot("before")
        self.change()
        self.db.snapshot("after")

    def change(self):
        for idx in self.draw.sample(range(self.count), CHANGED):
            self.db.update(idx, {"temp": self.draw.random()})

    def teardown(self, engine, count):
        self.db.close()
        shutil.rmtree(self.folder)


class MakeSnapshot(_Writer):
    """20 snapshots, nothing changed between them."""

    def time_snapshot(self, engine, count):
        for number in range(MANY):
            self.db.snapshot(f"s{number}")


class MakeSnapshotOfChanges(_Writer):
    """20 times: change 100 random rows, and a snapshot."""

    def time_snapshot_of_changes(self, engine, count):
        for number in range(MANY):
            self.change()
            self.db.snapshot(f"s{number}")

    def track_snapshot_growth(self, engine, count):
        before = os.path.getsize(self.path)
        self.time_snapshot_of_changes(engine, count)
        return (os.path.getsize(self.path) - before) / MANY

    track_snapshot_growth.unit = "bytes/snapshot"


class OpenSnapshot(_Writer):
    """20 times: open a snapshot, read a row of it, close it."""

    def time_open_snapshot(self, engine, count):
        for _ in range(MANY):
            with self.db.open_snapshot("before") as shown:
                shown.get(0)


class DiffSnapshots(_Writer):
    """Two snapshots with 100 changed rows between them, the first time and 20 times more."""

    def time_diff_first(self, engine, count):
        self.db.diff_snapshots("before", "after")

    def time_diff_again(self, engine, count):
        for _ in range(MANY):
            self.db.diff_snapshots("before", "after")


class RestoreSnapshot(_Writer):
    """20 times there and back."""

    def time_restore(self, engine, count):
        for _ in range(MANY // 2):
            self.db.restore("before")
            self.db.restore("after")
