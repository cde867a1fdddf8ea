"""Reads and writes everything in a database that somebody has made to do harm, for the tests below the checksums and
the fuzz targets.

What may come out: CorruptionError, NotSupportedError, or rows that fit their schema.
"""

from __future__ import annotations

import functools
import random
from itertools import islice
from typing import Any

import pytest
from people import SCHEMA, people, person
from reseal import Part, Sealed

from snapdb import ColumnDef, Schema, SnapDB, tablefile
from snapdb.errors import CorruptionError, NotSupportedError, SnapDBError
from snapdb.storage import catalog, wal
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

PATH = "hostile.snapdb"
ENGINES = ("row", "columnar")
TREE = Schema([ColumnDef("k", "i64"), ColumnDef("pad", "bytes:500")])
REFUSED = (CorruptionError, NotSupportedError)
SMALL = (0, 1, 2, 7, 127, 128, 255, 1023, 1024, 1025, 4095, 65535)
WIDE = (
    *SMALL,
    65536,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 4096,
    (1 << 64) - 1,
)
MOST = 200  # rows read one by one


# -- the databases ---------------------------------------------------------
@functools.cache
def image(which: str) -> dict[str, bytes]:
    """The files of a database: ``row`` or ``columnar``, with ``closed`` or ``open`` behind it; or ``tree``."""
    layer = RecordingLayer(record=False)
    with using(layer), pytest.MonkeyPatch.context() as patch:
        patch.setattr(wal, "_LEAST_STEP", 4096)
        patch.setattr(tablefile, "BULK", 4000)
        if which == "tree":
            patch.setattr(catalog, "NODE_BYTES", 300)
            with SnapDB(PATH, TREE, storage_type="row") as db:
                db.batch_insert([{"k": k, "pad": f"{k}" * 20} for k in range(1300)])
            return layer.contents()
        engine, end = which.split()
        if end == "snapshots":
            return with_snapshots(engine, layer)
        db = SnapDB(PATH, SCHEMA, storage_type=engine, dict_columns=["city"], for_columns=["age"])
        db.batch_insert(people(1080))
        db.checkpoint()
        change(db, 3)
        db.checkpoint()
        change(db, 500)
        db.batch_insert(person(i) for i in range(2000, 2003))
        db.batch_insert(person(i) for i in range(3000, 3100))  # past the log
        with db.transaction():
            db.insert(person(4000))
            db.delete_where([("age", "eq", 80)])
        files = layer.contents()
        db.close()
        return layer.contents() if end == "closed" else files


def with_snapshots(engine: str, layer: RecordingLayer) -> dict[str, bytes]:
    """Some in the root, with dead lists, and some that only the log has."""
    db = SnapDB(PATH, SCHEMA, storage_type=engine)
    db.batch_insert(people(200))
    for turn in range(4):
        db.snapshot(f"snapshot {turn}")
        for idx in range(0, 200, 60):
            db.update(idx + turn, {"name": "changed " * 3})
    db.close()
    db = SnapDB(PATH)  # with logs that have nothing of an older epoch
    for turn in range(4, 6):
        db.snapshot(f"snapshot {turn}")
    db.drop_snapshot("snapshot 1")
    db.delete(7)
    files = layer.contents()
    db.close()
    return files


def change(db: SnapDB, first: int) -> None:
    for idx in range(first, first + 400, 40):
        db.update(idx, {"name": "changed " * 3, "age": None, "score": 0.25})
        db.delete(idx + 1)
    db.insert(person(5000 + first))


# -- the damage ------------------------------------------------------------
def damage(sealed: Sealed, part: Part, draw: random.Random) -> str:
    """Change one part somehow and seal it again, and often its twin in the same way; what was done."""
    if part.kind in ("superblock", "static") and draw.random() < 0.7:
        seed = draw.random()
        done = [damage_one(sealed, each, random.Random(seed)) for each in sealed.parts[part.kind]]
        return "; ".join(done)
    return damage_one(sealed, part, draw)


def damage_one(sealed: Sealed, part: Part, draw: random.Random) -> str:
    """Change one part somehow and seal it again; what was done."""
    size = part.end - part.start
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        # most of what is checked stands at the beginning
        at = draw.randrange(max(1, min(size, draw.choice((24, 64, 160, size, size)))))
        how = draw.choice(("byte", "bit", "u16", "u32", "u64", "copy", "zero", "ones", "more", "less"))
        data = sealed.read(part)
        width = {"u16": 2, "u32": 4, "u64": 8, "more": 4, "less": 4}.get(how, 1)
        at -= at % width
        if how == "byte":
            new = bytes([draw.randrange(256)])
        elif how == "bit":
            new = bytes([data[at] ^ 1 << draw.randrange(8)]) if size else b""
        elif how in ("u16", "u32", "u64"):
            new = (draw.choice(WIDE) % (1 << 8 * width)).to_bytes(width, "little")
        elif how in ("more", "less"):
            step = draw.choice((1, 2, 8, 64, 4096)) * (1 if how == "more" else -1)
            new = ((int.from_bytes(data[at : at + 4], "little") + step) % (1 << 32)).to_bytes(4, "little")
        elif how == "copy":
            begin = draw.randrange(max(1, size))
            new = data[begin : begin + draw.choice((1, 4, 8, 40, 200))]
        else:
            new = (b"\0" if how == "zero" else b"\xff") * draw.choice((1, 4, 8, 40, 200))
        sealed.write(part, at, new)
        done.append(f"{how} at {at}: {new[:8].hex()}")
    sealed.seal(part)
    return f"{part}: {'; '.join(done)}"


# -- what is done with it --------------------------------------------------
def exercise(files: dict[str, bytes], writes: bool) -> str:
    """Open, read everything and with ``writes`` change it and read again: ``refused`` or ``answered``.

    Any exception but the two that are allowed passes on, and so does an answer that does not fit the schema.
    """
    with using(RecordingLayer.from_contents(files, record=False)):
        try:
            db = SnapDB(PATH, read_only=not writes)
        except REFUSED:
            return "refused"
        try:
            outcome = read_all(db)
            if writes:
                outcome = write_some(db)
        finally:
            close(db)
        if writes:
            try:
                with SnapDB(PATH) as db:
                    read_all(db)
            except REFUSED:
                return "refused"
    return outcome


def close(db: SnapDB) -> None:
    try:
        db.close()
    except SnapDBError:
        db.close()


def read_all(db: SnapDB) -> str:
    """Every way of reading, each on its own: one that is refused does not spare the others."""
    outcome = "answered"
    names = list(db.schema.names)
    attempts: list[Any] = [
        lambda: read_rows(db),
        lambda: db.fsck(full=True),
        lambda: db.stats(),
        lambda: repr(db),
        lambda: db.select_where([(names[0], "not_null", None)], limit=50),
        lambda: [db.select(columns=[name], limit=2000) for name in names],
        lambda: [db.group_by(name, names[0], "count") for name in names[:4]],
        lambda: [db.count_where([(name, "is_null", None)]) for name in names],
    ]
    for column in db.schema.columns:
        attempts.append(functools.partial(read_column, db, column))
    kept = snapshots(db)
    attempts += [functools.partial(read_snapshot, db, name) for name in kept]
    attempts += [functools.partial(db.diff_snapshots, one, other) for one, other in zip(kept, kept[1:])]
    for attempt in attempts:
        try:
            attempt()
        except REFUSED:
            outcome = "refused"
    return outcome


def snapshots(db: SnapDB) -> list[str]:
    try:
        return [kept["name"] for kept in db.list_snapshots()]
    except REFUSED:
        return []


def read_snapshot(db: SnapDB, name: str) -> None:
    with db.open_snapshot(name) as shown:
        read_rows(shown)
        shown.select(limit=2000)


def read_rows(db: SnapDB) -> None:
    encode = db._engine.codec.encode
    last = -1
    for idx, row in islice(db, MOST):
        assert idx > last and idx in db
        last = idx
        encode(row)  # what does not fit its column raises
        assert db.get(idx) == row or row != row or any(v != v for v in row.values())
    for idx in (0, 1, 1023, 1024, 1070, 65535, 65536, 1 << 40):
        row = db.get(idx)
        assert (row is not None) == (idx in db)
        db.get_raw(idx)


def read_column(db: SnapDB, column: ColumnDef) -> None:
    name = column.name
    values = db.select_column(name)
    if len(values) != len(db):
        assert not db.fsck()["ok"]
    numeric = column.dtype in ("i64", "u8", "f64", "f32", "bool")
    for agg in ("count", "min", "max", *(("sum", "avg") if numeric else ())):
        db.aggregate(name, agg)
    for value in [*values[:2], *values[-2:]]:
        if value is not None:
            db.find(**{name: value})
            db.count_where([(name, "gte", value)])
            db.lookup(name, value)


def write_some(db: SnapDB) -> str:
    """Changes of each kind; they happen or are refused."""
    outcome = "answered"
    ids = [idx for idx, _ in islice(guarded(db), 3)]
    key = db.schema.primary_key
    row = person(9000) if list(db.schema.names) == list(SCHEMA.names) else None
    attempts: list[Any] = [lambda: db.update(ids[0], {}), lambda: db.delete(ids[1])]
    attempts += [db.checkpoint, db.compact, db.checkpoint]
    kept = snapshots(db)
    attempts += [functools.partial(db.restore, name) for name in kept[:2]]
    attempts += [functools.partial(db.drop_snapshot, name) for name in kept]
    attempts += [functools.partial(db.snapshot, "new"), db.checkpoint, functools.partial(db.restore, "new")]
    if row is not None:
        attempts[:0] = [lambda: db.insert(row), lambda: db.update(ids[2], {"name": "new", "age": 3})]
        attempts.append(lambda: db.upsert({**row, "id": 123456}) if key else None)
    for attempt in attempts:
        try:
            attempt()
        except REFUSED:
            outcome = "refused"
        except (IndexError, ValueError) as error:
            # no row to change; or the schema is another one now
            if isinstance(error, ValueError) and not isinstance(error, SnapDBError):
                raise
    return outcome


def guarded(db: SnapDB) -> Any:
    try:
        yield from db
    except REFUSED:
        return
