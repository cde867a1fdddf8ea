"""Files that earlier versions wrote, as they are in ``tests/data/golden``: they open, and can be written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden_files
import pytest
from people import SCHEMA, people

from snapdb import SnapDB
from snapdb.storage.catalog import Root

GOLDEN = Path(__file__).parent / "data" / "golden"


def expected(late: bool) -> list[dict[str, Any]]:
    """The rows of every golden file."""
    rows = list(people(40))
    rows[3] = {**rows[3], "name": "changed"}
    if late:
        rows[5] = {**rows[5], "name": "late"}
    return [row for idx, row in enumerate(rows) if idx != 7 and not (late and idx == 8)]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("engine", ["row", "columnar"])
def test_a_file_with_a_root_of_version_1(engine: str, late: bool, tmp_path: Path) -> None:
    name = f"v1-{engine}{'-open' if late else ''}.snapdb"
    for end in ("", "-wal0", "-wal1") if late else ("",):
        (tmp_path / ("x.snapdb" + end)).write_bytes((GOLDEN / (name + end)).read_bytes())
    path = tmp_path / "x.snapdb"
    before = path.read_bytes()
    assert b"SNRT\1\0\0\0" in before and b"SNRT\2\0\0\0" not in before
    with SnapDB(str(path), read_only=True) as db:
        assert [row for _, row in db.query(lambda row: True)] == expected(late)
    assert path.read_bytes()[:4032] + path.read_bytes()[4096:] == before[:4032] + before[4096:]
    for _ in range(2):
        with SnapDB(str(path)) as db:
            assert [row for _, row in db.query(lambda row: True)] == expected(late)
            assert db.fsck(full=True)["ok"]
            with db.transaction():
                idx = db.insert({**expected(late)[0], "id": 1})
                db.delete(idx)
    data = path.read_bytes()
    at = int.from_bytes(data[0x1020:0x1028], "little")
    assert data[at + 128 : at + 136] == b"SNRT\2\0\0\0"
    size = int.from_bytes(data[0x1028:0x102C], "little")
    assert Root.decode(data[at + 128 : at + 128 + size]).snapshots == ()


@pytest.mark.parametrize("end", ["", "-open"])
@pytest.mark.parametrize("kind", list(golden_files.KEYS))
@pytest.mark.parametrize("engine", golden_files.ENGINES)
def test_a_file_with_snapshots(engine: str, kind: str, end: str, tmp_path: Path) -> None:
    key = golden_files.KEYS[kind]
    if key is not None:
        pytest.importorskip("cryptography")
    for log in ("", "-wal0", "-wal1"):
        source = GOLDEN / f"v2-{engine}-{kind}{end}.snapdb{log}"
        if source.exists():
            (tmp_path / ("x.snapdb" + log)).write_bytes(source.read_bytes())
    path = tmp_path / "x.snapdb"
    assert (tmp_path / "x.snapdb-wal0").exists() is (end == "-open")
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        rows, kept = golden_files.write(db)
    for options in ({"read_only": True}, {}, {}):
        with SnapDB(path, encryption_key=key, **options) as db:
            assert dict(db) == rows
            assert [each["name"] for each in db.list_snapshots()] == ["late", "zweité", "first"]
            for name, state in kept.items():
                with db.open_snapshot(name) as shown:
                    assert dict(shown) == state
            assert db.diff_snapshots("first", "zweité") == {"added": [], "changed": [3], "removed": [7]}
            assert db.fsck(full=True)["ok"]
    with SnapDB(path, encryption_key=key) as db:
        db.restore("late")
        assert dict(db) == kept["late"]
        for name in kept:
            db.drop_snapshot(name)
        db.compact()
        assert len(db) == len(kept["late"]) and db.fsck(full=True)["ok"]
