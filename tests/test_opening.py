"""Opening: what may be asked for and how what may not is refused; folders, names, full disks, things in the way."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from people import PLAIN

from snapdb import SnapDB, errors
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

ROW = {"k": 1, "v": None, "s": "x"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(path: Any, engine: str = "row", rows: int = 1) -> None:
    with SnapDB(path, PLAIN, storage_type=engine) as db:
        db.batch_insert([{**ROW, "k": k} for k in range(rows)])


# -- paths -------------------------------------------------------------------------
class AsBytes:
    def __fspath__(self) -> bytes:
        return b"in bytes"


@pytest.mark.parametrize("path", ["", "a\0b", "new/", "there/", "\ud800", b"bytes", 5, None, ["x"]])
def test_paths_that_name_no_file(folder: Path, path: Any) -> None:
    (folder / "there").mkdir()
    before = os.listdir(folder)
    with pytest.raises(errors.ValidationError, match="path "):
        SnapDB(path, PLAIN)
    with SnapDB(":memory:", PLAIN) as db, pytest.raises(errors.ValidationError, match="path "):
        db.backup(path)
    if not isinstance(path, str):
        with pytest.raises(TypeError):
            SnapDB(path, PLAIN)
    assert os.listdir(folder) == before


def test_paths_as_objects(folder: Path) -> None:
    for path in (folder / "as Path", AsBytes()):
        made(path)
        with SnapDB(path) as db:
            assert db.path == os.fsdecode(os.fspath(path)) and len(db) == 1
    assert sorted(os.listdir(folder)) == ["as Path", "in bytes"]
    with SnapDB(Path(":memory:"), PLAIN) as db:
        assert db.path == ":memory:"


def test_a_relative_path_stays_where_it_was_opened(folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "below").mkdir()
    with SnapDB("x", PLAIN, storage_type=engine, durability="full") as db:
        db.insert(ROW)
        monkeypatch.chdir(folder / "below")
        db.insert(ROW)
        db.checkpoint()
        db.insert(ROW)
        assert db.backup("copy") == Path("copy")
    assert sorted(os.listdir(folder)) == ["below", "x"] and os.listdir() == ["copy"]
    with SnapDB("copy") as one, SnapDB(folder / "x") as other:
        assert len(one) == len(other) == 3


@pytest.mark.parametrize("schema", [None, PLAIN])
def test_a_folder_that_is_missing(folder: Path, schema: Any) -> None:
    """With a schema it was a StorageError, which nobody looks for."""
    with pytest.raises(FileNotFoundError) as caught:
        SnapDB(Path("no", "where", "x.snapdb"), schema)
    assert caught.value.errno == errno.ENOENT
    if schema is not None:
        missing = os.path.join(os.path.realpath(folder), "no", "where")
        assert caught.value.filename == os.path.join(missing, "x.snapdb")
        assert f"there is no folder {missing!r}; make it first" in str(caught.value)
    assert os.listdir(folder) == []


def test_a_backup_into_a_folder_that_is_missing(folder: Path) -> None:
    with SnapDB(":memory:", PLAIN) as db, pytest.raises(FileNotFoundError, match="make it first"):
        db.backup("nowhere/x")
    assert os.listdir(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="other errors there")
def test_what_is_no_file(folder: Path) -> None:
    made("x")
    (folder / "d").mkdir()
    for options in ({}, {"schema": PLAIN}, {"read_only": True}):
        with pytest.raises(IsADirectoryError):
            SnapDB("d", **options)  # type: ignore[arg-type]
    with pytest.raises(NotADirectoryError):
        SnapDB("x/y", PLAIN)
    with pytest.raises(FileNotFoundError):
        SnapDB("x/y")
    for path in ("/dev/null", "/dev/zero"):
        with pytest.raises(OSError, match="Not a regular file"):
            SnapDB(path, PLAIN)
    assert sorted(os.listdir(folder)) == ["d", "x"]


# -- options -------------------------------------------------------------------------
@pytest.mark.parametrize("timeout", [None, -1, -0.001, "1", float("nan"), 10**400, [1]])
def test_timeouts_that_are_none(folder: Path, timeout: Any) -> None:
    with pytest.raises(errors.ValidationError, match="timeout is a number of seconds"):
        SnapDB("x", PLAIN, timeout=timeout)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("timeout", [0, 0.0, True, 5, float("inf"), sys.maxsize])
def test_timeouts(folder: Path, timeout: Any) -> None:
    for _ in range(2):
        with SnapDB("x", PLAIN, timeout=timeout) as db:
            db.insert(ROW)


@pytest.mark.parametrize("durability", ["FULL", "fulll", "", None, 1, True, b"full", ["full"]])
def test_durabilities_that_are_none(folder: Path, durability: Any) -> None:
    with pytest.raises(errors.ValidationError, match="durability must be one of full, normal, none"):
        SnapDB("x", PLAIN, durability=durability)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("page_size", ["10", "4096", "columnar", 4096.0, None, True, b"x"])
def test_page_sizes_that_are_none(folder: Path, engine: str, page_size: Any) -> None:
    """A columnar file was made with what could not be read again."""
    with pytest.raises(errors.SchemaError, match="page_size must be an int"):
        SnapDB("x", PLAIN, page_size, storage_type=engine)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("key", ["", b"", bytearray(), 7, ["secret"]])
def test_no_key_is_taken_for_none(folder: Path, key: Any) -> None:
    """An empty one, as from a variable that is not set, made a file that anybody can read."""
    with pytest.raises(errors.ValidationError, match="encryption_key="):
        SnapDB("x", PLAIN, encryption_key=key)
    assert os.listdir(folder) == []


# -- disks and things in the way ------------------------------------------------------
def test_a_file_that_was_not_closed_on_a_full_disk(engine: str, backend_name: str) -> None:
    layer = RecordingLayer(record=False)
    with using(layer):
        db = SnapDB("x", PLAIN, storage_type=engine, durability="full")
        db.insert(ROW)
        db._abandon()
        layer.space = sum(map(len, layer.contents().values()))
        for _ in range(2):  # nothing is held by the one that failed
            with pytest.raises(errors.StorageError, match="was not closed.*nothing is lost: .*read_only=True") as found:
                SnapDB("x")
            assert found.value.errno == errno.ENOSPC
        with SnapDB("x", read_only=True) as db:
            assert list(db) == [(0, ROW)]
        layer.space = None
        with SnapDB("x") as db:
            assert list(db) == [(0, ROW)] and db.fsck()["ok"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_file_that_may_not_be_written(engine: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    layer = RecordingLayer(record=False)
    with using(layer):
        made("x", engine)

        def to_read(path: str, mode: str) -> Any:
            if mode != "r":
                raise OSError(code, os.strerror(code), path)
            return plain(path, mode)

        plain = layer.open
        monkeypatch.setattr(layer, "open", to_read)
        with pytest.raises(OSError, match="open it with read_only=True: 'x'") as caught:
            SnapDB("x")
        assert caught.value.errno == code and isinstance(caught.value, PermissionError) is (code == errno.EACCES)
        with SnapDB("x", read_only=True) as db:
            assert list(db) == [(0, {**ROW, "k": 0})]


@pytest.mark.parametrize("parity", [0, 1])
def test_a_folder_in_the_place_of_a_log(folder: Path, engine: str, parity: int) -> None:
    """It was an IsADirectoryError that said nothing of what to do."""
    made("x", engine)
    log = folder / f"x-wal{parity}"
    with SnapDB("x") as db:
        log.mkdir()
        for _ in range(2):
            with pytest.raises(errors.StorageError, match=f"x-wal{parity} .*move it away") as caught:
                db.insert(ROW)
            assert caught.value.errno == errno.EISDIR and caught.value.hint
            assert len(db) == 1
        log.rmdir()
        db.insert(ROW)
    log.mkdir()
    for options in ({}, {"read_only": True}):
        with pytest.raises(errors.StorageError, match="move it away"):
            SnapDB("x", **options)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="in the way"), SnapDB(":memory:", PLAIN) as db:
        log.rename(f"y-wal{parity}")
        db.backup("y")
    assert sorted(os.listdir(folder)) == ["x", f"y-wal{parity}"]
    with SnapDB("x") as db:
        assert len(db) == 2


def test_a_backup_beside_a_log_of_another(folder: Path, engine: str) -> None:
    """It was written, and its first write was refused."""
    (folder / "y-wal1").write_bytes(b"")
    with SnapDB(":memory:", PLAIN, storage_type=engine) as db:
        with pytest.raises(FileExistsError, match="in the way"):
            db.backup("y")
        with pytest.raises(FileExistsError) as caught:
            db.backup("y-wal1")
        assert caught.value.errno == errno.EEXIST and caught.value.filename == os.path.realpath("y-wal1")
        with pytest.raises(errors.ValidationError, match="a backup is a file"):
            db.backup(":memory:")
    assert os.listdir(folder) == ["y-wal1"]
