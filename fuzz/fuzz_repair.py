"""Whole databases, damaged below their checksums in ways that the input says, and repaired: refused, or a file that is
whole and gives well formed answers.
"""

from __future__ import annotations

import driver
import fuzz_file
import hostile

from snapdb import SnapDB
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer


def seeds() -> list[bytes]:
    return fuzz_file.seeds()


def one(data: bytes) -> None:
    """Bytes as for the target \"file\"; where their number is odd, the last one says where something is cut."""
    files = fuzz_file.damaged(data)
    if files is None:
        return
    if len(data) & 1 and data[-1]:
        name = sorted(files)[data[-1] % len(files)]
        files[name] = files[name][: len(files[name]) * data[-1] // 256]
    layer = RecordingLayer.from_contents(files, record=False)
    with using(layer):
        try:
            said = SnapDB.repair_file(hostile.PATH)
        except hostile.REFUSED:
            return
        with SnapDB(hostile.PATH) as db:
            found = db.fsck()
            assert found["ok"], found["issues"]
            assert len(db) == said["rows"] == sum(1 for _ in db)
            assert sorted(said["snapshots"]) == sorted(kept["name"] for kept in db.list_snapshots())
            for name in said["snapshots"]:
                with db.open_snapshot(name) as shown:
                    assert shown.fsck()["ok"] and len(shown.select()) == len(shown)


if __name__ == "__main__":
    driver.main("repair")
