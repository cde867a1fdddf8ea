"""Memory that runs out in the middle of a write, at places that matter; ``test_signals`` tries every allocation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from kill_writer import SCHEMA

from snapdb import SnapDB, tablefile
from snapdb.errors import DurabilityError
from snapdb.storage.files import using
from snapdb.storage.store import Store
from snapdb.storage.wal import Wal
from snapdb.testing.layers import RecordingLayer

PATH = "full.snapdb"


def given(first: int, count: int = 25) -> list[dict[str, Any]]:
    """Rows with keys from ``first`` on."""
    return [
        {"id": n, "n": n % 50, "x": n / 2, "name": f"name {n}", "blob": b"b" * 40, "code": b"123456"}
        for n in range(first, first + count)
    ]


def once(function: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """A function that finds no memory the first ``times`` times it is called."""
    left = [times]

    def tries(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise MemoryError
        return function(*arguments)

    return tries


@pytest.fixture
def layer() -> Any:
    layer = RecordingLayer(record=False)
    with using(layer):
        yield layer


def reopened(layer: RecordingLayer) -> dict[int, Any]:
    """What a process that is killed now would leave."""
    with using(RecordingLayer.from_contents(layer.contents(), record=False)):
        with SnapDB(PATH) as db:
            assert db.fsck()["ok"]
            return dict(db)


def test_a_commit_that_is_in_the_log_keeps_its_extents(
    engine: str, layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later rollback gave them back, and what came next was written over committed rows."""
    monkeypatch.setattr(tablefile, "BULK", 100)
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        monkeypatch.setattr(Wal, "_force", once(Wal._force))
        with pytest.raises(MemoryError), db.transaction():
            db.batch_insert(given(0))
        monkeypatch.undo()
        monkeypatch.setattr(tablefile, "BULK", 100)
        assert len(db) == 25  # it has happened
        kept = dict(db)
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.batch_insert(given(100))
            raise ZeroDivisionError
        assert dict(db) == kept
        db.batch_insert(given(200))
        db.batch_insert(given(300))
        db.flush()
        assert reopened(layer) == dict(db)


@pytest.mark.parametrize("times", [1, 3, 1000])
def test_frames_that_are_taken_back_leave_the_file(
    engine: str, layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """They are erased however often memory runs out; where it never comes back the handle says that it is of no use."""
    db = SnapDB(PATH, SCHEMA, storage_type=engine, durability="full")
    db.batch_insert(given(0))
    kept = dict(db)
    append = type(db._engine).apply
    monkeypatch.setattr(Wal, "_erase", once(Wal._erase, times))

    def fails(self: Any, changes: Any, then: Any, first: Any) -> None:
        append(self, [], (), first)  # the frame is in the log
        raise MemoryError

    monkeypatch.setattr(type(db._engine), "apply", fails)
    with pytest.raises((MemoryError, DurabilityError)):
        db.update(3, {"n": 77})
    monkeypatch.undo()
    if times < 1000:
        assert dict(db) == kept == reopened(layer)
        db.update(3, {"n": 78})
        assert reopened(layer) == dict(db)
    else:
        with pytest.raises(DurabilityError):
            db.insert(given(900, 1)[0])
    db.close()


@pytest.mark.parametrize("what", ["saved", "publish"])
def test_the_end_of_a_checkpoint(
    engine: str, layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing behind the superblock may be left undone."""
    with SnapDB(PATH, SCHEMA, storage_type=engine) as db:
        db.batch_insert(given(0, 60))
        db.checkpoint()
        for n in range(6):
            db.update(n, {"n": n + 40})
        owner: Any = type(db._engine) if what == "saved" else Wal
        name = "saved" if what == "saved" else "switch"
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, once(getattr(owner, name)))
            db.checkpoint()
        for n in range(3, 9):
            db.update(n, {"n": n + 50})
        assert reopened(layer) == dict(db)
        db.checkpoint()
        assert reopened(layer) == dict(db)


def test_a_transaction_lets_go_of_the_table(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_signals import is_free

    with SnapDB(tmp_path / "t.snapdb", SCHEMA, storage_type=engine) as db:
        keys = type(db._indexes)
        for name in ("begin", "commit"):
            with monkeypatch.context() as patch:
                patch.setattr(keys, name, once(getattr(keys, name)))
                try:
                    with db.transaction():
                        db.insert(given(len(db) + 10, 1)[0])
                except MemoryError:
                    assert name == "begin"
            assert is_free(db) and not db._transactions.is_open
        assert len(db) == 1


@pytest.mark.parametrize("times", [1, 1000])
@pytest.mark.parametrize("what", ["pinned", "dropped", "restored"])
def test_a_snapshot_that_is_in_the_log(
    engine: str, layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch, what: str, times: int
) -> None:
    """What its frame says is done, or the handle says that it cannot go on; who opens the file sees all of it."""
    db = SnapDB(PATH, SCHEMA, storage_type=engine)
    db.batch_insert(given(0))
    db.snapshot("a")
    before = dict(db)
    db.delete(0)
    db.snapshot("b")
    calls: dict[str, Callable[[], Any]] = {
        "pinned": lambda: db.snapshot("c"),
        "dropped": lambda: db.drop_snapshot("a"),
        "restored": lambda: db.restore("a"),
    }
    monkeypatch.setattr(Store, what, once(getattr(Store, what), times))
    if times == 1:
        calls[what]()
    else:
        with pytest.raises((MemoryError, DurabilityError)):
            calls[what]()
        with pytest.raises(DurabilityError):
            len(db)
    monkeypatch.undo()
    db.close()
    with SnapDB(PATH) as db:
        assert db.fsck()["ok"]
        names = [found["name"] for found in db.list_snapshots()]
        assert names == {"pinned": ["c", "b", "a"], "dropped": ["b"], "restored": ["b", "a"]}[what]
        assert (dict(db) == before) == (what == "restored")
