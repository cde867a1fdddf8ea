"""Makes the files of ``tests/data/golden`` whose names begin with ``v2``: ``python tests/golden_files.py FOLDER``.

They are made once, by the version that first writes them so, and later versions must read them: do not make them again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Union

from people import SCHEMA, people, person

from snapdb import SnapDB
from snapdb.storage import crypto

RAW = bytes(range(32))
PASSPHRASE = "pässe"
KEYS: dict[str, Union[str, bytes, None]] = {"plain": None, "raw": RAW, "scrypt": PASSPHRASE}
ENGINES = ("row", "columnar")
State = dict[int, dict[str, Any]]


def write(db: SnapDB) -> tuple[State, dict[str, State]]:
    """Snapshots in the root, then some that only the log has, one gone and one gone back to; what the table and each
    snapshot then have.
    """
    kept: dict[str, State] = {}
    db.batch_insert(people(40))
    db.snapshot("first")
    kept["first"] = dict(db)
    db.update(3, {"name": "changed"})
    db.delete(7)
    db.snapshot("gone")
    db.snapshot("zweité")
    kept["zweité"] = dict(db)
    db.checkpoint()
    db.insert(person(60))
    db.snapshot("late")
    kept["late"] = dict(db)
    db.drop_snapshot("gone")
    db.insert(person(61))
    db.restore("first")
    db.update(5, {"name": "last"})
    return dict(db), kept


def make(folder: Path) -> None:
    """All of them, closed and as a killed process leaves them."""
    crypto.SCRYPT = (4, 8, 1)
    for engine in ENGINES:
        for kind, key in KEYS.items():
            with tempfile.TemporaryDirectory() as work:
                path = Path(work) / "x.snapdb"
                db = SnapDB(path, SCHEMA, storage_type=engine, encryption_key=key)
                write(db)
                db.flush()
                copy(path, folder / f"v2-{engine}-{kind}-open.snapdb")
                db.close()
                copy(path, folder / f"v2-{engine}-{kind}.snapdb")


def copy(path: Path, to: Path) -> None:
    """The file and its logs, these without the zeros at their end."""
    for end in ("", "-wal0", "-wal1"):
        source = Path(f"{path}{end}")
        if source.exists():
            shutil.copyfile(source, f"{to}{end}")
            if end:
                data = source.read_bytes().rstrip(b"\0")
                Path(f"{to}{end}").write_bytes(data + bytes(-len(data) % 4096 + 4096))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
