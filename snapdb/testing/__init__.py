"""Tools for testing programs that keep data in SnapDB: file systems in memory that record, fail and crash.

``record(workload)`` runs a workload and notes every operation on files; ``run(recording)`` opens the disk states that a
crash at any of them could have left, and compares; with ``record(workload, see=history)`` snapshots too. With pytest:
``pytest_plugins = ["snapdb.testing.fixture"]`` and the fixture ``snapdb_crash``. ``FaultyLayer`` makes operations fail
that are chosen; ``using`` has databases opened on a layer.
"""

from ..storage.files import using
from .crash import Commit, Mismatch, Recording, Report, Session, Violation, again, history, read, record, rows, run
from .disk import Disk, State
from .layers import FaultyLayer, Op, Plan, RecordingLayer

__all__ = [
    "Commit", "Disk", "FaultyLayer", "Mismatch", "Op", "Plan", "Recording", "RecordingLayer", "Report", "Session",
    "State", "Violation", "again", "history", "read", "record", "rows", "run", "using",
]  # fmt: skip
