"""Encrypted databases: the same answers, nothing readable in any file, one key at a time. The cipher itself and the
layout of what it makes: test_crypto.py; what somebody who writes the files can do: test_tamper.py.
"""

from __future__ import annotations

import builtins
import errno
import functools
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

pytest.importorskip("cryptography", reason="the extra 'encryption' is not installed")

import test_crypto
import test_file_machine
from conftest import Files
from model import Model
from people import PLAIN, SCHEMA, people
from sealed_files import SealedFiles

from snapdb import ColumnDef, Schema, SnapDB, _ext, tablefile
from snapdb.errors import (
    CorruptionError,
    DurabilityError,
    InternalError,
    NotSupportedError,
    ReadOnlyError,
    SnapDBError,
    StorageError,
    TransactionError,
    ValidationError,
    WrongKeyError,
)
from snapdb.storage import crypto, store, superblock, wal
from snapdb.storage.extents import ENTRY, SEALED, Extents, decode_header
from snapdb.storage.files import using
from snapdb.storage.sealed import OVERHEAD, SealedLog, open_frame, open_frames
from snapdb.storage.space import Space
from snapdb.testing import FaultyLayer, Plan, RecordingLayer
from snapdb.testing.crash import Recording, Session, record, run

KEY, OTHER = b"a raw key of thirty-two bytes, 1", b"a raw key of thirty-two bytes, 2"
NAME = "t.snapdb"
ROWS = people(40)


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "SCRYPT", (4, 8, 1))


def keyed(key: Any) -> Any:
    """``SnapDB`` as it is without a key."""

    def opened(path: Any, *args: Any, **options: Any) -> SnapDB:
        return SnapDB(path, *args, **{"encryption_key": key, **options})

    return opened


def model_of(rows: list[dict[str, Any]]) -> Model:
    model = Model(SCHEMA)
    model.batch_insert(rows)
    return model


def same(db: SnapDB, model: Model) -> bool:
    return dict(db) == model.rows


# -- opening -------------------------------------------------------------------
@pytest.mark.smoke
def test_a_database_with_a_key(any_files: Files) -> None:
    files = any_files
    db, model = files.open(SCHEMA, encryption_key=KEY), Model(SCHEMA)
    for it in (db, model):
        it.batch_insert(ROWS)
        it.insert({**ROWS[0], "id": 1})
        it.update(3, {"name": "changed", "blob": bytes(300)})
        it.delete(7)
    with db.transaction():
        for it in (db, model):
            it.delete_where([("age", ">", 80)])
            it.insert({**ROWS[1], "id": 2})
    assert same(db, model) and db.fsck()["ok"]
    db = files.kill(db, encryption_key=KEY)  # the log is replayed
    assert same(db, model) and db.fsck()["ok"]
    db.checkpoint()
    assert same(db, model) and db.fsck()["ok"]
    db.close()
    assert list(files.contents()) == [NAME]
    with files.open(encryption_key=KEY, read_only=True) as reader:
        assert same(reader, model) and reader.fsck()["ok"]
        assert reader.find(name="changed") == [model.rows[3]]


def secret_keys() -> Iterator[Any]:
    """50 keys that are passphrases."""
    yield from ("x", "é", "e\u0301", " ", "\0", "pässwörter", "鍵", "🔑", "correct horse battery staple", "a" * 32)
    yield from (b"x", b"\xff", b"a" * 31, b"a" * 33, bytes(31), bytes(64), bytearray(b"ba"), memoryview(b"mv"))
    yield from (f"passphrase {at}" * (at % 5 + 1) for at in range(32))


@pytest.mark.parametrize("at", range(50))
def test_passphrases(at: int) -> None:
    """50 of them, each made, opened again, refused to others, and changed."""
    key = list(secret_keys())[at]
    taken = key if isinstance(key, (str, bytes)) else bytes(key)
    engine = ("row", "columnar")[at % 2]
    with using(RecordingLayer(record=False)):
        with SnapDB("x", PLAIN, storage_type=engine, encryption_key=key) as db:
            db.insert({"k": at, "v": None, "s": "secret"})
        end: Any = "!" if isinstance(taken, str) else b"!"
        for wrong in (taken + end, taken[:-1], KEY, "another"):
            # HMAC, and with it scrypt, takes no notice of NULs at the end: those are no other passphrases
            if wrong and crypto._secret(wrong)[0].strip(b"\0"):
                with pytest.raises(WrongKeyError):
                    SnapDB("x", encryption_key=wrong)
        with SnapDB("x", encryption_key=taken) as db:
            assert db[0] == {"k": at, "v": None, "s": "secret"}
            db.rekey("new " * (at % 3 + 1))
        with pytest.raises(WrongKeyError):
            SnapDB("x", encryption_key=taken)
        with SnapDB("x", encryption_key="new " * (at % 3 + 1)) as db:
            assert len(db) == 1 and db.fsck()["ok"]


def test_str_and_bytes_are_one_passphrase() -> None:
    with using(RecordingLayer(record=False)):
        SnapDB("x", PLAIN, encryption_key="schlüssel").close()
        SnapDB("x", encryption_key="schlüssel".encode()).close()
        SnapDB("y", PLAIN, encryption_key=bytearray(KEY)).close()
        SnapDB("y", encryption_key=memoryview(KEY)).close()
        SnapDB("y", encryption_key=KEY).close()


def test_a_wrong_key_is_one_error(any_files: Files) -> None:
    files = any_files
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    db._abandon()  # with a log
    before = files.contents()
    for key, told in (
        (None, "is encrypted"), (OTHER, "does not open"), ("a", "raw key"), (KEY[:-1], "raw key"),
        (KEY.decode(), "raw key"),
    ):  # fmt: skip
        for options in ({}, {"read_only": True}, {"schema": SCHEMA}, {"schema": PLAIN}):
            with pytest.raises(WrongKeyError, match=told) as caught:
                files.open(**{"encryption_key": key, **options})
            assert isinstance(caught.value, ValueError) and isinstance(caught.value, SnapDBError)
            text = str(caught.value)
            assert "raw key of thirty" not in text and "name" not in text
    assert files.contents() == before
    assert len(files.open(encryption_key=KEY)) == 40


def test_a_key_for_a_plain_database(any_files: Files) -> None:
    files = any_files
    db = files.open(SCHEMA)
    db.batch_insert(ROWS)
    db._abandon()
    before = files.contents()
    for key in (KEY, "passphrase"):
        with pytest.raises(WrongKeyError, match="is not encrypted"):
            files.open(encryption_key=key)
    assert files.contents() == before and len(files.open()) == 40


@pytest.mark.parametrize("key", ["", b"", bytearray(), memoryview(b""), 5, [1], "\ud800"])
def test_what_is_no_key(any_files: Files, key: Any) -> None:
    with pytest.raises(ValidationError, match="encryption_key="):
        any_files.open(SCHEMA, encryption_key=key)
    with pytest.raises(ValidationError, match="encryption_key="):
        SnapDB(":memory:", SCHEMA, encryption_key=key)
    assert any_files.contents() == {}
    db = any_files.open(SCHEMA, encryption_key=KEY)
    for method in (db.rekey, functools.partial(db.backup, "copy", encryption_key=key)):
        with pytest.raises(ValidationError, match="encryption_key="):
            method(*([key] if method == db.rekey else []))
    assert NAME in any_files.contents() and "copy" not in any_files.contents()


def test_without_the_package(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.open(SCHEMA, encryption_key=KEY).close()
    files.open(SCHEMA, name="plain").close()
    before = files.contents()
    really = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ImportError("No module named 'cryptography'")
        return really(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    for path, schema in ((files.path(), None), (files.path("new"), SCHEMA), (":memory:", SCHEMA)):
        with pytest.raises(ImportError, match=r"'cryptography' package.*pip install cryptography"):
            SnapDB(path, schema, encryption_key=KEY)
    with pytest.raises(WrongKeyError, match="is encrypted"):  # which needs no package to say
        files.open()
    with files.open(name="plain") as db:
        with pytest.raises(ImportError, match="pip install"):
            db.backup(files.path("copy"), encryption_key=KEY)
        assert db.fsck()["ok"]
    after = files.contents()
    assert {name: len(data) for name, data in after.items()} == {name: len(data) for name, data in before.items()}


def test_without_scrypt(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.open(SCHEMA, name="old", encryption_key="passphrase").close()
    monkeypatch.delattr(hashlib, "scrypt", raising=False)
    monkeypatch.setattr(crypto, "_scrypt_of_the_package", lambda *_: crypto._no_scrypt("scrypt").__class__)

    def gone(*_: Any) -> bytes:
        raise crypto._no_scrypt("scrypt")

    monkeypatch.setattr(crypto, "_scrypt_of_the_package", gone)
    for name, schema in (("old", None), ("new", SCHEMA)):
        with pytest.raises(NotSupportedError, match=r"needs scrypt.*raw key of 32 bytes"):
            files.open(schema, name=name, encryption_key="passphrase")
    assert "new" not in files.contents()
    with files.open(SCHEMA, name="new", encryption_key=KEY) as db:
        with pytest.raises(NotSupportedError):
            db.rekey("passphrase")
        db.rekey(OTHER)
    assert len(files.open(name="new", encryption_key=OTHER)) == 0


def test_a_plain_database_asks_for_nothing() -> None:
    """Neither the package nor this one's own module is loaded."""
    program = (
        "import sys\n"
        "from snapdb import SnapDB, Schema, ColumnDef\n"
        "from snapdb.storage.files import using\n"
        "from snapdb.testing.layers import RecordingLayer\n"
        "with using(RecordingLayer(record=False)):\n"
        "    for _ in range(2):\n"
        "        with SnapDB('x', Schema([ColumnDef('k', 'i32')]), durability='full') as db:\n"
        "            db.insert({'k': 1})\n"
        "            db.snapshot('s')\n"
        "            db.fsck()\n"
        "    db = SnapDB('x')\n"
        "    db.insert({'k': 2})\n"
        "    db._abandon()\n"
        "    SnapDB('x').close()\n"
        "print([name for name in sys.modules if 'crypto' in name and 'test' not in name])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_somebody_else_is_faster(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the making another process makes the database, with a salt of its own."""
    real = store.Store.create
    made = []

    def create(path: str, header: Any, options: Any) -> None:
        if not made:
            made.append(1)
            with SnapDB(path, SCHEMA, storage_type=files.engine, encryption_key="passphrase") as db:
                db.batch_insert(ROWS)
        real(path, header, options)

    monkeypatch.setattr(store.Store, "create", create)
    assert len(files.open(SCHEMA, encryption_key="passphrase")) == 40
    made.clear()
    with pytest.raises(WrongKeyError):
        files.open(SCHEMA, name="y", encryption_key="another passphrase")


def test_a_passphrase_is_derived_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half a second."""
    calls = []
    real = crypto.scrypt
    monkeypatch.setattr(crypto, "scrypt", lambda *args: calls.append(1) or real(*args))
    db = files.open(SCHEMA, encryption_key="passphrase")
    assert len(calls) == 1
    db.batch_insert(ROWS)
    db.backup(files.path("copy"))
    db.snapshot("s")
    db.open_snapshot("s").close()
    db.close()
    assert len(calls) == 1
    with files.open(encryption_key="passphrase"):
        assert len(calls) == 2
    with files.open(name="copy", encryption_key="passphrase"):
        assert len(calls) == 3


def test_what_a_handle_says(files: Files) -> None:
    db = files.open(SCHEMA, encryption_key="a very secret key")
    db.insert(ROWS[0])
    keys = db._its_keys()
    assert keys is not None
    for text in (repr(db), str(db.stats()), repr(keys), str(db.fsck()), repr(db._file.store.cipher)):  # type: ignore[union-attr]
        assert "very secret" not in text and keys.kek.hex() not in text and repr(keys.kek) not in text


# -- the model -------------------------------------------------------------------
MACHINE = {"c": (6, 4), "numpy": (2, 1), "python": (2, 1)}


def test_the_model(engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_file_machine, "SnapDB", keyed(KEY))
    test_file_machine.run(test_file_machine.SmallFiles, engine, backend_name, MACHINE[backend_name][0], 25)


def test_the_model_with_large_batches(engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_file_machine, "SnapDB", keyed(KEY))
    monkeypatch.setattr(tablefile, "BULK", 60_000)
    test_file_machine.run(test_file_machine.LargeFiles, engine, backend_name, MACHINE[backend_name][1], 10)


# -- crashes -----------------------------------------------------------------------
SMALL = Schema([ColumnDef("n", "i64"), ColumnDef("s", "str", not_null=False)])
KEYS = (KEY, OTHER, b"k" * 32)


def small(n: int) -> dict[str, Any]:
    return {"n": n, "s": None if n % 3 == 0 else "secret " * (n % 4)}


def changed(session: Session, engine: str) -> None:
    """Commits of each kind with checkpoints and a new key between them."""
    db = session.open(SMALL, storage_type=engine, page_size=64, durability="full")
    for n in range(3):
        with session.commit(db):
            db.insert(small(n))
    session.rekey(db, KEYS[1])
    with session.commit(db), db.transaction():
        db.insert(small(7))
        db.delete(0)
    with session.settled():
        db.checkpoint()
    with session.commit(db):
        db.batch_insert([small(n) for n in range(10, 60)])  # past the log
    session.rekey(db, KEYS[2])
    with session.commit(db):
        db.update(1, {"s": "other"})
    session.kill(db)
    db = session.open(durability="normal")
    with session.commit(db):
        db.delete(2)
    with session.settled():
        db.close()


@functools.cache
def recorded(engine: str) -> Recording:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tablefile, "BULK", 500)
        patch.setattr(wal, "_LEAST_STEP", 4096)
        return record(functools.partial(changed, engine=engine), keys=KEYS)


def test_crashes(engine: str, backend_name: str, record_property: Any) -> None:
    """Every disk state of a run with new keys: exactly one key opens it, and it shows what it must."""
    recording = recorded(engine)
    report = run(recording, random_states=2, double_share=0.02, limit=400 if backend_name == "c" else 80)
    record_property("count: disk states of encrypted databases", report.states)
    assert report.violations == [] and report.states > 60


def test_a_bridge(files: Files) -> None:
    """The newest superblock is gone: the one before answers, with the frames of its log and of the next one."""
    db, model = files.open(SCHEMA, encryption_key=KEY, durability="full"), Model(SCHEMA)
    for it in (db, model):
        it.batch_insert(ROWS[:20])
    db.checkpoint()
    for row in ROWS[20:30]:
        db.insert(row)
        model.insert(row)
    db.checkpoint()
    for row in ROWS[30:]:
        db.insert(row)
        model.insert(row)
    slot = superblock.SLOTS[db._file.store.block.slot]  # type: ignore[union-attr]
    db._abandon()
    files.write(NAME, bytes(512), slot)
    db = files.open(encryption_key=KEY)
    assert same(db, model) and db.fsck()["ok"]


def test_io_errors(engine: str, backend_name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every operation on files fails, once or from there on: no acknowledged commit is lost, and no half is there."""
    caplog.set_level(logging.CRITICAL)
    _, _, operations = faulty(engine, None)
    every = 1 if backend_name == "c" else 6
    failed = 0
    for at in range(1, operations + 1, every):
        for plan in (Plan(at, errno.EIO), Plan(at, errno.ENOSPC, short=True, forever=True)):
            layer, commits, _ = faulty(engine, plan)
            failed += 1
            allowed = [rows for rows, _ in commits]
            least = max((place for place, (_, acknowledged) in enumerate(commits) if acknowledged), default=0)
            with using(layer):
                found = shown(commits)
            assert found in allowed[least:], f"{plan}: {found}, not {allowed[least:]}"
    assert failed > 20


State = tuple[Any, dict[int, Any]]  # the key in force, and the rows


def shown(commits: list[tuple[Optional[State], bool]]) -> Optional[State]:
    """What is there, with the one key that opens it."""
    keys = [key for key in KEYS if any(state is not None and state[0] == key for state, _ in commits)]
    found = []
    for key in keys:
        try:
            with SnapDB("x", encryption_key=key) as db:
                assert db.fsck()["ok"]
                found.append((key, dict(db)))
        except FileNotFoundError:
            return None
        except WrongKeyError:
            continue
    assert len(found) == 1
    return found[0]


def faulty(engine: str, plan: Optional[Plan]) -> tuple[Any, list[tuple[Optional[State], bool]], int]:
    """A short run on a layer that fails: what is on it, the states it was in (and whether they were acknowledged), and
    how many operations there were.
    """
    inner = RecordingLayer(record=False)
    inner.threads = False
    layer = FaultyLayer(inner, plan)
    commits: list[tuple[Optional[State], bool]] = [(None, True)]
    model = Model(SMALL)
    key = KEYS[0]

    def step(db: Any, work: Any, after: Any) -> None:
        commits.append((after, False))
        work()
        commits[-1] = (after, True)

    with using(layer), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tablefile, "BULK", 500)
        try:
            commits.append(((key, {}), False))
            db = SnapDB("x", SMALL, storage_type=engine, page_size=64, durability="full", encryption_key=key)
            commits[-1] = ((key, {}), True)
            try:
                for n in range(2):
                    model.insert(small(n))
                    step(db, lambda n=n: db.insert(small(n)), (key, dict(model.rows)))
                step(db, lambda: db.rekey(KEYS[1]), (KEYS[1], dict(model.rows)))
                key = KEYS[1]
                model.batch_insert([small(n) for n in range(10, 60)])
                step(
                    db, lambda: db.batch_insert([small(n) for n in range(10, 60)]), (key, dict(model.rows))
                )
                db.checkpoint()
                model.delete(1)
                step(db, lambda: db.delete(1), (key, dict(model.rows)))
                db.close()
            finally:
                db._abandon()
        except (SnapDBError, OSError):
            if plan is None:
                raise
    return inner, commits, layer.operations


# -- copies --------------------------------------------------------------------------
def test_backups(any_files: Files) -> None:
    files = any_files
    db = files.open(SCHEMA, encryption_key="passphrase")
    db.batch_insert(ROWS)
    model = model_of(ROWS)
    for name, given, opens, refused in (
        ("same", {}, "passphrase", (None, KEY)), ("raw", {"encryption_key": KEY}, KEY, (None, "passphrase")),
        ("words", {"encryption_key": "other"}, "other", (None, "passphrase")),
        ("plain", {"encryption_key": None}, None, ("passphrase", KEY)),
    ):  # fmt: skip
        assert db.backup(files.path(name), **given) == Path(files.path(name))
        with files.open(name=name, encryption_key=opens) as copy:
            assert same(copy, model) and copy.fsck()["ok"]
        for key in refused:
            with pytest.raises(WrongKeyError):
                files.open(name=name, encryption_key=key)
    pages = [data[:4096] for _, data in sorted(files.contents().items()) if len(data) > 4096]
    assert len({page[16:32] for page in pages}) == len(pages)  # each has a uuid of its own
    sealed = [test_crypto.Layout(files.contents()[name][:4096], "passphrase").data_key for name in (NAME, "same")]
    assert sealed[0] != sealed[1]
    assert sorted(name for name in files.contents() if name[0] not in "prswt") == []


def test_backups_to_an_encrypted_file(any_files: Files, backend_name: str) -> None:
    """Of a plain file, of a table in memory with a key and without one, of a reader and of a snapshot."""
    files = any_files
    plain = files.open(SCHEMA, name="plain")
    plain.batch_insert(ROWS)
    plain.backup(files.path("1"), encryption_key=KEY)
    plain.backup(files.path("2"))
    memory = SnapDB(":memory:", SCHEMA, storage_type=files.engine, encryption_key=KEY)
    files.made.append(memory)
    memory.batch_insert(ROWS)
    memory.backup(files.path("3"))
    memory.backup(files.path("4"), encryption_key=None)
    memory.rekey(OTHER)
    memory.backup(files.path("5"))
    memory.snapshot("s")
    with memory.open_snapshot("s", OTHER) as view:
        memory.rekey(KEY)
        view.backup(files.path("11"))
        memory.rekey(OTHER)
        view.backup(files.path("6"))
    sealed = files.open(SCHEMA, name="sealed", encryption_key=KEY)
    sealed.batch_insert(ROWS)
    sealed.snapshot("s")
    sealed.delete(0)
    with sealed.open_snapshot("s") as view:
        sealed.rekey(OTHER)
        view.backup(files.path("10"))
        sealed.rekey(KEY)
        view.backup(files.path("7"))
        view.backup(files.path("8"), encryption_key=None)
        with pytest.raises(NotSupportedError):
            view.rekey(OTHER)
    sealed.close()
    with files.open(name="sealed", encryption_key=KEY, read_only=True) as reader:
        reader.backup(files.path("9"))
        with pytest.raises(ReadOnlyError):
            reader.rekey(OTHER)
    model = model_of(ROWS)
    shorter = Model(SCHEMA)
    shorter.batch_insert(ROWS)
    shorter.delete(0)
    wanted = {"10": OTHER, "11": KEY}
    wanted.update(zip("123456789", (KEY, None, KEY, None, OTHER, OTHER, KEY, None, KEY)))
    for name, key in wanted.items():
        with files.open(name=name, encryption_key=key) as copy:
            assert same(copy, shorter if name == "9" else model) and copy.fsck()["ok"], name


# -- snapshots -------------------------------------------------------------------------
def test_snapshots(any_files: Files) -> None:
    files = any_files
    db, model = files.open(SCHEMA, encryption_key=KEY), Model(SCHEMA)
    states: dict[str, dict[int, Any]] = {}
    for turn in range(6):
        for it in (db, model):
            it.batch_insert([{**row, "id": row["id"] + 100 * turn} for row in ROWS])
            it.delete(turn * 5)
            it.update(turn + 31, {"name": f"turn {turn}"})
        db.snapshot(f"s{turn}")
        states[f"s{turn}"] = dict(model.rows)
    db.drop_snapshot("s1")
    del states["s1"]
    for again in range(3):
        assert [each["name"] for each in db.list_snapshots()] == sorted(states, reverse=True)
        for name, rows in states.items():
            with db.open_snapshot(name, KEY if again else None) as view:
                assert dict(view) == rows
        assert db.fsck()["ok"]
        db = files.kill(db, encryption_key=KEY) if again == 0 else db
        db.checkpoint()
    for key, told in ((OTHER, "does not open"), ("passphrase", "does not open"), ("", "must not be empty")):
        with pytest.raises(ValidationError if key == "" else WrongKeyError, match=told):
            db.open_snapshot("s0", key)
    added = db.diff_snapshots("s2", "s3")
    assert len(added["added"]) == 40 and added["removed"] == [15]
    db.restore("s2")
    assert dict(db) == states["s2"]
    db.insert({**ROWS[0], "id": 1})
    db = files.kill(db, encryption_key=KEY)
    assert len(db) == len(states["s2"]) + 1 and db.fsck()["ok"]
    before = [row for _, row in db]
    db.compact()
    assert [row for _, row in db] == before and db.fsck()["ok"]
    for name in list(states):
        db.drop_snapshot(name)
    db.compact()
    db.close()
    with files.open(encryption_key=KEY) as db:
        assert [row for _, row in db] == before and db.fsck()["ok"]


def test_a_snapshot_survives_a_new_key(files: Files) -> None:
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    db.snapshot("s")
    view = db.open_snapshot("s")
    db.rekey(OTHER)
    assert dict(view) == dict(db)
    view.close()
    with pytest.raises(WrongKeyError):
        db.open_snapshot("s", KEY)
    with db.open_snapshot("s", OTHER) as view:
        assert len(view) == 40


def test_snapshots_in_memory(engine: str, backend_name: str) -> None:
    with SnapDB(":memory:", SCHEMA, storage_type=engine, encryption_key=KEY) as db:
        db.batch_insert(ROWS)
        db.snapshot("s")
        with db.open_snapshot("s", KEY) as view:
            assert len(view) == 40
        with pytest.raises(WrongKeyError, match="does not open"):
            db.open_snapshot("s", OTHER)
        db.rekey(OTHER)
        db.open_snapshot("s", OTHER).close()
    with SnapDB(":memory:", SCHEMA, storage_type=engine) as db:
        db.snapshot("s")
        with pytest.raises(WrongKeyError, match="is not encrypted"):
            db.open_snapshot("s", KEY)
        with pytest.raises(WrongKeyError, match="no key to change"):
            db.rekey(KEY)


def test_readers_of_snapshots(files: Files) -> None:
    """Beside a handle that writes; a new key does not disturb those that are there."""
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    db.snapshot("s")
    reader = files.open(read_only=True, snapshot="s", encryption_key=KEY)
    db.rekey(OTHER)
    for n in range(3):
        db.insert({**ROWS[0], "id": n})
        db.checkpoint()
    assert same(reader, model_of(ROWS)) and len(db) == 43
    for key in (KEY, None, "x"):
        with pytest.raises(WrongKeyError):
            files.open(read_only=True, snapshot="s", encryption_key=key)
    with files.open(read_only=True, snapshot="s", encryption_key=OTHER) as later:
        assert same(later, model_of(ROWS))
    reader.close()


def test_repair_needs_the_key(any_files: Files) -> None:
    """Without it nothing is touched."""
    files = any_files
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    db.snapshot("s")
    db.close()
    for slot in superblock.SLOTS:
        files.write(NAME, b"\xff" * 600, slot)
    before = files.contents()
    for key in (OTHER, None, "x"):
        with pytest.raises(WrongKeyError):
            SnapDB.repair_file(files.path(), encryption_key=key)
    assert {name: data for name, data in files.contents().items() if name == NAME} == before
    with pytest.raises(CorruptionError):
        files.open(encryption_key=KEY)


# -- another key -------------------------------------------------------------------------
def test_rekey(any_files: Files) -> None:
    files = any_files
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    before = files.contents()
    db.rekey("passphrase")
    after = files.contents()
    assert {name for name in after if after[name] != before[name]} == {NAME}
    assert [at for at in (0, 0x2000) if after[NAME][at : at + 4032] != before[NAME][at : at + 4032]] == [0, 0x2000]
    assert after[NAME][:4032] == after[NAME][0x2000:][:4032] and after[NAME][4032:0x2000] == before[NAME][4032:0x2000]
    assert after[NAME][0x3000:] == before[NAME][0x3000:]
    assert b"pid %d" % os.getpid() in after[NAME][4032:4096]  # who has the lock
    db.insert({**ROWS[0], "id": 1})
    assert test_crypto.Layout(after[NAME][:4096], "passphrase").data_key == test_crypto.Layout(
        before[NAME][:4096], KEY
    ).data_key
    db = files.kill(db, encryption_key="passphrase")
    assert len(db) == 41 and db.fsck()["ok"]
    for turn in range(5):
        db.rekey(KEYS[turn % 3])
    db.close()
    assert test_crypto.struct.unpack_from("<Q", files.contents()[NAME], 80) == (6,)
    for key in ("passphrase", KEY, None):
        with pytest.raises(WrongKeyError):
            files.open(encryption_key=key)
    assert len(files.open(encryption_key=OTHER)) == 41


def test_rekey_where_it_cannot_be(files: Files) -> None:
    db = files.open(SCHEMA, encryption_key=KEY)
    db.insert(ROWS[0])
    with db.transaction(), pytest.raises(TransactionError):
        db.rekey(OTHER)
    plain = files.open(SCHEMA, name="plain")
    plain.insert(ROWS[0])
    before = files.contents()
    with pytest.raises(WrongKeyError, match="backup"):
        plain.rekey(KEY)
    with pytest.raises(ValidationError, match="new_key.*encryption_key=None"):
        db.rekey(None)  # type: ignore[arg-type]
    assert files.contents() == before
    db.close()
    with pytest.raises(SnapDBError, match="closed"):
        db.rekey(OTHER)
    assert len(files.open(encryption_key=KEY)) == 1


def test_rekey_costs_the_same_for_every_size() -> None:
    costs = []
    for rows in (0, 30_000):
        with using(RecordingLayer()) as layer:
            with SnapDB("x", PLAIN, encryption_key=KEY) as db:
                db.batch_insert({"k": n, "v": None, "s": "x" * 20} for n in range(rows))
                db.checkpoint()
                layer.log.clear()  # type: ignore[attr-defined]
                db.rekey(OTHER)
                ops = list(layer.log)  # type: ignore[attr-defined]
        assert [(op.kind, op.offset, op.size) for op in ops] == [
            ("write", 0x2000, 4032), ("sync", 0, 0), ("write", 0, 4032), ("sync", 0, 0)
        ]  # fmt: skip
        costs.append(len(ops))
    assert costs == [4, 4]


@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("at", [1, 2])
def test_rekey_that_fails(kind: str, at: int) -> None:
    """One of the two keys opens it, the handle is of no further use."""
    inner = RecordingLayer(record=False)
    layer = FaultyLayer(inner)
    with using(layer):
        db = SnapDB("x", PLAIN, encryption_key=KEY, durability="full")
        db.insert({"k": 1, "v": None, "s": None})
        layer.plan = Plan(layer.operations + at, errno.EIO, kinds=frozenset({kind}))
        layer.operations = 0
        layer.plan = layer.plan._replace(at=at)
        with pytest.raises(DurabilityError):
            db.rekey(OTHER)
        layer.plan = None
        for use in (lambda: db.insert({"k": 2, "v": None, "s": None}), lambda: db.rekey(KEY), lambda: len(db)):
            with pytest.raises(DurabilityError):
                use()
        db.close()
    opens = []
    for key in (KEY, OTHER):
        with using(inner):
            try:
                with SnapDB("x", encryption_key=key) as db:
                    assert len(db) == 1 and db.fsck()["ok"]
            except WrongKeyError:
                continue
            opens.append(key)
    assert len(opens) == 1
    assert inner.contents()["x"][:4032] == inner.contents()["x"][0x2000:][:4032]  # the other cannot come back


def test_the_older_key_does_not_come_back(files: Files) -> None:
    """A crash between the copies, then damage to the newer one: the database was opened in between, so it is over."""
    db = files.open(SCHEMA, encryption_key=KEY)
    db.insert(ROWS[0])
    db.close()
    old = files.contents()[NAME][:4032]
    files.open(encryption_key=KEY).rekey(OTHER)
    files.made[-1].close()
    files.write(NAME, old, 0)  # as if the second write had not come
    with files.open(encryption_key=OTHER, read_only=True) as db:  # which writes nothing
        assert [issue["kind"] for issue in db.fsck()["issues"]] == []
    assert files.contents()[NAME][:4032] == old
    files.open(encryption_key=OTHER).close()
    assert files.contents()[NAME][:4032] == files.contents()[NAME][0x2000:][:4032] != old
    files.write(NAME, bytes(4032), 0x2000)
    with pytest.raises(WrongKeyError):
        files.open(encryption_key=KEY)
    files.open(encryption_key=OTHER).close()


# -- nothing readable ----------------------------------------------------------------------
MARKS = ("XSCHEMANAMEX", "XSECONDNAMEX", "XVALUEONEX", "XVALUETWOX", "XSNAPSHOTNAMEX", "XPASSPHRASEX", "XBYTESX")
WORDS = (b"storage_type", b"schema", b"page_size", b"id_generation", b"columnar", b"SNRT", b"SNND", b"SNDL")
SECRET = Schema([ColumnDef(MARKS[0], "str"), ColumnDef(MARKS[1], "bytes:12", not_null=False), ColumnDef("n", "i64")])
NUMBER = 0x5AFE_C0DE_DEAD_BEEF - (1 << 62)


def written(layer: RecordingLayer) -> Iterator[tuple[str, bytes]]:
    """Every byte that was ever written, with the name of its file."""
    for op in layer.log:
        if op.kind == "write":
            yield op.path, bytes(op.data)


def secret_run(layer: RecordingLayer, engine: str, **options: Any) -> None:
    """Everything that writes."""
    key = options.get("encryption_key")
    with using(layer), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tablefile, "BULK", 5000)
        row = {MARKS[0]: MARKS[2] * 3, MARKS[1]: MARKS[6].encode(), "n": NUMBER}
        db = SnapDB("x", SECRET, storage_type=engine, durability="full", dict_columns=[MARKS[0]], **options)
        for turn in range(3):
            for _ in range(5):
                db.insert(row)
            db.batch_insert([row] * 20)
            db.batch_insert([{**row, MARKS[0]: MARKS[3] * 2, "n": n} for n in range(600)])
            db.insert_columns({MARKS[0]: [MARKS[3]] * 9, MARKS[1]: [None] * 9, "n": [NUMBER] * 9})
            with db.transaction():
                db.update(turn, {MARKS[0]: MARKS[3] * 7})
                db.delete(turn + 10)
                db.insert(row)
            db.snapshot(f"{MARKS[4]} {turn}")
            db.update(1, {MARKS[0]: f"{MARKS[2]} {turn}"})
            if turn == 1:
                db.checkpoint()
            db.fsck()
        db.backup("y")
        db.restore(f"{MARKS[4]} 1")
        db.drop_snapshot(f"{MARKS[4]} 0")
        db.compact()
        if key is not None:
            db.rekey(MARKS[5])
            key = {"encryption_key": MARKS[5]}
        db.insert(row)
        db._abandon()
        db = SnapDB("x", durability="none", **(key or {}))
        db.insert(row)
        db.delete_where([("n", "==", 5)])
        db.close()


def marks() -> list[bytes]:
    numbers = [NUMBER.to_bytes(8, "little")]
    return [*(mark.encode() for mark in MARKS), *numbers, *WORDS]


def test_nothing_can_be_read(engine: str, backend_name: str) -> None:
    """No value, name or word of a header in any byte that was ever written, whether it is still there or not."""
    layer = RecordingLayer()
    secret_run(layer, engine, encryption_key=MARKS[5])
    found = {(path, mark) for path, data in written(layer) for mark in marks() if mark in data}
    assert found == set()
    assert sum(len(data) for _, data in written(layer)) > 100_000
    whole = b"".join(layer.contents().values())
    assert not [mark for mark in marks() if mark in whole]


def test_the_search_can_fail(engine: str) -> None:
    layer = RecordingLayer()
    secret_run(layer, engine)
    found = {mark for path, data in written(layer) for mark in marks() if mark in data}
    # as it is not encrypted there is no passphrase; numbers may be packed
    assert found >= {mark.encode() for mark in MARKS[:5]} | set(WORDS) - ({b"columnar"} if engine == "row" else set())


def test_what_is_there_to_be_read(files: Files, backend_name: str) -> None:
    """The bytes are what docs/format.md says: another reader of it finds everything that was written."""
    layer = files.layer
    assert layer is not None
    secret = files.open(SECRET, encryption_key=KEY, durability="full")
    row = {MARKS[0]: MARKS[2], MARKS[1]: MARKS[6].encode(), "n": NUMBER}
    secret.batch_insert([{**row, "n": n} for n in range(300)])
    secret.snapshot(MARKS[4])
    secret.update(0, {MARKS[0]: MARKS[3]})
    secret.checkpoint()
    for _ in range(3):
        secret.insert(row)
    with secret.transaction():
        secret.delete(1)
        secret.insert(row)
        secret.insert(row)
    sealed = SealedFiles(files.contents(), NAME, KEY)
    assert [(frame.kind, frame.flags) for frame in sealed.frames] == [
        (1, 3), (1, 3), (1, 3), (4, 1), (1, 0), (1, 0), (7, 2)
    ]  # fmt: skip
    whole = b"".join(sealed.said)
    for mark in (*MARKS[:5], MARKS[6]):
        assert mark.encode() in whole
    for word in WORDS[:4]:
        assert word in sealed.root
    assert {extent.kind for extent in sealed.extents.values()} >= {1, 2, 3}
    assert len(secret) == 304


# -- no key and nonce twice ------------------------------------------------------------------
def test_no_key_and_nonce_twice(engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole runs, with rollbacks, failing checkpoints, crashes and machines that go on twice from one image."""
    monkeypatch.setattr(test_crypto.Recording, "used", {})
    monkeypatch.setattr(test_crypto.Recording, "real", crypto._aead())
    monkeypatch.setattr(crypto, "_aead", lambda: test_crypto.Recording)
    secret_run(RecordingLayer(record=False), engine, encryption_key=KEY)
    layer = FaultyLayer(RecordingLayer(record=False))
    with using(layer):
        db = SnapDB("x", SMALL, storage_type=engine, encryption_key=KEY, durability="full")
        for n in range(50):
            db.insert(small(n))
        for at in (3, 1, 2):
            layer.operations = 0
            layer.plan = Plan(at, errno.ENOSPC, kinds=frozenset({"write"}))
            with pytest.raises(StorageError):
                db.checkpoint()
            layer.plan = None
        for _ in range(4):
            with pytest.raises(ZeroDivisionError), db.transaction():
                for n in range(20):
                    db.insert(small(n))
                raise ZeroDivisionError
        image = layer.inner.contents()  # type: ignore[attr-defined]
        db._abandon()
    for _ in range(3):
        with using(RecordingLayer.from_contents(image, record=False)):
            with SnapDB("x", encryption_key=KEY) as db:
                assert len(db) == 50
                db.insert(small(1))
                db.checkpoint()
                db.insert(small(1))
    assert len(test_crypto.Recording.used) > 200


# -- the log ---------------------------------------------------------------------------------
def sealed_log(kernels: Any, cipher: Any, data: bytearray) -> tuple[SealedLog, list[int]]:
    asked: list[int] = []

    def write(piece: Any, at: int) -> None:
        data[at : at + len(piece)] = piece

    def room(end: int) -> None:
        asked.append(end)
        if log.limit <= 0:
            log.start(SALT, 9, 70, 0xCAFE, len(data))

    def failed(error: OSError) -> None:
        raise error

    log = SealedLog(kernels.wal.Log(write, room, failed, lambda: None), cipher, room)
    return log, asked


SALT = bytes(range(50, 66))


def found(kernels: Any, cipher: Any, data: bytes) -> list[tuple[int, int, int, bytes]]:
    """LSN, kind, flags and payload of the frames."""
    frames, _, _ = kernels.wal.scan(data, SALT, 9, 70, 0xCAFE)
    opened, frames = open_frames(cipher, data, SALT, 9, frames, "/x")
    assert len(opened) == len(data)
    return [(lsn, kind, flags, opened[begin:end]) for lsn, _, kind, flags, begin, end in frames]


def test_the_sealed_log(kernels: Any) -> None:
    cipher = test_crypto.made()
    data = bytearray(1 << 16)
    log, asked = sealed_log(kernels, cipher, data)
    assert (log.limit, log.position, log.hold, log.inner) == (0, kernels.wal.START, False, False)
    assert log.append(1, b"the first") == 71 and asked  # which starts the epoch
    mark = log.mark()
    assert mark == (log.lsn, log.crc, log.position) == (71, log.crc, log.written)
    log.append(2, b"goes")
    assert log.rollback(mark) > 0 and log.mark() == mark
    log.append(2, memoryview(b"stays"), 3)
    log.hold = log.inner = True
    log.append(3, b"")
    log.append(4, bytearray(b"inner"))
    log.append(7, b"", 2)
    assert log.written < log.position
    log.flush()
    assert log.written == log.position
    log.inner = log.hold = False
    log.append(1, b"last")
    assert found(kernels, cipher, bytes(data)) == [
        (71, 1, 3, b"the first"), (72, 2, 3, b"stays"), (73, 3, 1, b""), (74, 4, 0, b"inner"), (75, 7, 2, b""),
        (76, 1, 3, b"last"),
    ]  # fmt: skip
    assert b"first" not in data and b"inner" not in data
    frames, _, _ = kernels.wal.scan(bytes(data), SALT, 9, 70, 0xCAFE)
    assert [end - begin for *_, begin, end in frames] == [9 + 28, 5 + 28, 28, 5 + 28, 28, 4 + 28] and OVERHEAD == 28
    largest = kernels.wal.LARGEST
    before = log.mark()
    with pytest.raises(ValueError, match="payload"):
        log.append(1, bytes(largest - OVERHEAD + 1))
    assert log.mark() == before
    log.stop()
    assert log.limit == 0


def test_a_log_that_cannot_be_started(kernels: Any) -> None:
    log = SealedLog(kernels.wal.Log(*[lambda *_: None] * 4), test_crypto.made(), lambda end: None)
    with pytest.raises(RuntimeError, match="not started"):
        log.append(1, b"x")


def test_a_frame_whose_tag_is_wrong(kernels: Any) -> None:
    cipher = test_crypto.made()
    data = bytearray(1 << 16)
    log, _ = sealed_log(kernels, cipher, data)
    log.append(1, b"one")
    frames, _, _ = kernels.wal.scan(bytes(data), SALT, 9, 70, 0xCAFE)
    wrong = test_crypto.made()
    for act in (
        lambda: open_frames(wrong, bytes(data), SALT, 9, frames, "/x-wal1"),
        lambda: open_frame(wrong.epoch(SALT, 9), bytes(data), frames[0], "/x-wal1"),
        lambda: open_frame(cipher.epoch(SALT, 8), bytes(data), frames[0], "/x-wal1"),
    ):
        with pytest.raises(CorruptionError, match="/x-wal1: frame 71 at 64 was changed") as caught:
            act()
        assert caught.value.offset == 64


def test_the_first_frame_of_a_transaction_after_a_rollback(kernels: Any) -> None:
    """The flags are under the seal, so they must be known before the kernel makes them."""
    cipher = test_crypto.made()
    data = bytearray(1 << 16)
    log, _ = sealed_log(kernels, cipher, data)
    log.append(1, b"before")
    log.inner = True
    mark = log.mark()
    log.append(1, b"gone")
    log.append(1, b"gone")
    log.rollback(mark)
    log.append(1, b"first")
    log.append(1, b"second")
    assert [(flags, said) for _, _, flags, said in found(kernels, cipher, bytes(data))] == [
        (3, b"before"), (1, b"first"), (0, b"second")
    ]  # fmt: skip


def test_a_kernel_does_not_log_rows(any_files: Files) -> None:
    """Single rows go the way of the journal, whatever is called; the kernel's own would be readable."""
    db = any_files.open(Schema([ColumnDef("k", "i32")]), encryption_key=KEY)
    assert "insert" not in db.__dict__
    assert db.insert({"k": 1}) == 0
    with pytest.raises(InternalError, match="as it is"):
        db._engine.insert({"k": 2})
    assert db.insert({"k": 3}) == 1 and [row["k"] for _, row in db] == [1, 3]
    plain = any_files.open(Schema([ColumnDef("k", "i32")]), name="plain")
    assert "insert" in plain.__dict__


def test_a_row_that_is_too_long(any_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    db = any_files.open(Schema([ColumnDef("s", "str")]), encryption_key=KEY)
    monkeypatch.setattr(db._journal._writer, "_largest", 1000 - OVERHEAD)  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match=r"more than the log takes at once \(972\)"):
        db.insert({"s": "x" * 1000})
    with pytest.raises(ValidationError, match="batch_insert"):
        db.update(db.insert({"s": "x"}), {"s": "x" * 1000})
    assert len(db) == 1 and db.fsck()["ok"]


def test_the_largest_row(files: Files) -> None:
    db = files.open(Schema([ColumnDef("s", "binary")]), encryption_key=KEY)
    largest = _ext.backend(_ext.BACKEND).wal.LARGEST
    row = {"s": bytes(largest - OVERHEAD - 64)}
    db.insert(row)
    with pytest.raises(ValidationError):
        db.insert({"s": bytes(largest - OVERHEAD)})
    db = files.kill(db, encryption_key=KEY)
    assert len(db) == 1 and len(db[0]["s"]) == len(row["s"])


def test_rows_from_threads(files: Files) -> None:
    db = files.open(Schema([ColumnDef("k", "i64")]), encryption_key=KEY, durability="none")

    def work(first: int) -> None:
        for n in range(first, first + 200):
            db.insert({"k": n})

    threads = [threading.Thread(target=work, args=(1000 * at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.flush()
    db = files.kill(db, encryption_key=KEY)
    assert sorted(db.select_column("k")) == sorted(1000 * at + n for at in range(4) for n in range(200))


# -- extents ----------------------------------------------------------------------------------
def extents_with(cipher: Any) -> Extents:
    file = RecordingLayer().open("/x", "x")
    return Extents(file, Space(), cipher.uuid if cipher else test_crypto.UUID, True, cipher)


def test_sealed_extents() -> None:
    cipher = test_crypto.made()
    extents = extents_with(cipher)
    parts = [b"one" * 100, b"", memoryview(b"two" * 50_000), b"three"]
    refs = extents.write(ENTRY, 7, parts, 3)
    again = extents.write(ENTRY, 7, parts, 3)
    assert extents.sealed and [len(ref.tag) for ref in refs] == [16] * 4
    assert [ref.length for ref in refs] == [len(part) for part in parts]
    for ref, part in zip([*refs, *again], [*parts, *parts]):
        assert extents.read(ref) == part and extents.load(ref) == bytes(part) and extents.read(ref, False) == part
        stored = extents.file.pread(ref.length, ref.extent + ref.at)
        assert superblock.CRC(stored) == ref.crc and (not part or stored != bytes(part))
    heads = [decode_header(extents.file.pread(128, ref.extent)) for ref in (refs[0], again[0])]
    assert heads[0] is not None and heads[1] is not None
    assert heads[0].flags == heads[1].flags == SEALED and heads[0].salt != heads[1].salt
    assert not any(extents.file.pread(4096, refs[0].extent)[72:124])
    with pytest.raises(CorruptionError, match="another kind of database"):
        extents.check(refs[0]._replace(tag=b""))
    plain = extents_with(None)
    (ref,) = plain.write(ENTRY, 7, [b"x"], 3)
    with pytest.raises(CorruptionError, match="another kind of database"):
        plain.check(ref._replace(tag=bytes(16)))
    for wrong in (
        refs[0]._replace(tag=again[0].tag), refs[0]._replace(extent=again[0].extent),
        refs[0]._replace(extent=again[0].extent, crc=again[0].crc),
    ):  # fmt: skip
        with pytest.raises(CorruptionError):
            extents.read(wrong)


def test_an_extent_that_was_written_by_somebody_else_meanwhile() -> None:
    """A reader of a snapshot looks at roots that a writer may replace: a key that is kept must not hide the new one."""
    cipher = test_crypto.made()
    extents = extents_with(cipher)
    (ref,) = extents.write(ENTRY, 1, [b"before"], 3)
    assert extents.read(ref) == b"before"
    writer = Extents(extents.file, Space(), cipher.uuid, True, cipher)
    (new,) = writer.write(ENTRY, 1, [b"behind"], 4)
    assert new.extent == ref.extent
    assert extents.read(new) == b"behind" and extents.read(new) == b"behind"
    with pytest.raises(CorruptionError):
        extents.read(ref)
    assert extents.read(new) == b"behind"


def test_keys_of_extents_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapdb.storage.extents._SEALERS", 3)
    extents = extents_with(test_crypto.made())
    refs = [extents.write(ENTRY, key, [b"piece %d" % key], 3)[0] for key in range(10)]
    for _ in range(2):
        for key, ref in enumerate(refs):
            assert extents.read(ref) == b"piece %d" % key
            assert len(extents._sealers) <= 3


def test_encrypted_files_are_not_mapped(files: Files) -> None:
    assert files.layer is not None and files.layer.maps
    db = files.open(SCHEMA, encryption_key=KEY)
    db.batch_insert(ROWS)
    db = files.kill(db, encryption_key=KEY, mmap=True)
    assert len(list(db)) == 40 and db._file.store.extents._map is None  # type: ignore[union-attr]
