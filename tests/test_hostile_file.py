"""Files that are no database, and databases damaged below their checksums: refused by name or answered, nothing else.

``reseal.py`` makes the checksums right again after a change; ``hostile.py`` changes and exercises. SNAPDB_HOSTILE says
how many databases are damaged for each kind of image.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import PLAIN
from reseal import KINDS, Sealed

from snapdb import SnapDB
from snapdb.errors import CorruptionError, LockedError, NotSupportedError, SchemaMismatchError, SnapDBError

IMAGES = ("row closed", "row open", "columnar closed", "columnar open", "tree", "row snapshots", "columnar snapshots")
EXAMPLES = int(os.environ.get("SNAPDB_HOSTILE", "150"))
MOST_MEMORY = 256 << 20
PATIENCE = 60.0  # seconds for one database


class Hangs(BaseException):
    """One database took too long."""


@contextmanager
def bounded() -> Iterator[None]:
    """Neither more memory than is decent nor more time, where the platform can see to that."""
    if sys.platform != "linux" or os.environ.get("SNAPDB_SANITIZED"):  # a sanitizer has limits of its own
        yield
        return
    import resource

    def ring(*_: Any) -> None:
        raise Hangs

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


# -- below the checksums -----------------------------------------------------
@pytest.mark.parametrize("which", IMAGES)
def test_sealing_again_what_is_whole_changes_nothing(which: str) -> None:
    """And so docs/format.md, from which reseal.py was made, says where everything is."""
    files = hostile.image(which)
    sealed = Sealed(files, hostile.PATH)
    for kind in sealed.kinds():
        for part in sealed.parts[kind]:
            sealed.seal(part)
    assert sealed.contents() == files
    assert hostile.exercise(files, True) == "answered"


def test_every_kind_of_part_is_there() -> None:
    assert {kind for which in IMAGES for kind in Sealed(hostile.image(which), hostile.PATH).kinds()} == set(KINDS)
    tree = Sealed(hostile.image("tree"), hostile.PATH)
    levels = {struct.unpack_from("<B", tree.read(node), 4)[0] for node in tree.parts["node"]}
    assert levels >= {0, 1}


@pytest.mark.parametrize("which", IMAGES)
def test_damage_below_the_checksum(which: str, backend_name: str) -> None:
    outcomes = set()

    @settings(max_examples=EXAMPLES if backend_name == "c" else max(1, EXAMPLES // 6))
    @given(st.integers(0, (1 << 64) - 1))
    def check(seed: int) -> None:
        draw = random.Random(seed)
        sealed = Sealed(hostile.image(which), hostile.PATH)
        done = hostile.damage(sealed, draw.choice(sealed.parts[draw.choice(sealed.kinds())]), draw)
        try:
            with bounded():
                outcomes.add(hostile.exercise(sealed.contents(), draw.random() < 0.5))
        except BaseException as error:
            raise AssertionError(f"{done}: {type(error).__name__}: {error}") from error

    check()
    assert EXAMPLES < 100 or outcomes == {"answered", "refused"}


JSON = (b"[]", b"{}", b"null", b"1e999", b"[" * 4000, b'{"schema":' * 700, b"\xff\xfe", b'"x"')


@pytest.mark.parametrize("header", JSON)
def test_a_root_that_says_something_else(header: bytes) -> None:
    sealed = Sealed(hostile.image("row closed"), hostile.PATH)
    (root,) = sealed.parts["root"]
    size = root.end - root.start - 96
    sealed.write(root, 96, header[:size].ljust(size))
    sealed.seal(root)
    with bounded():
        assert hostile.exercise(sealed.contents(), False) == "refused"


@pytest.mark.parametrize(
    "old, new",
    [
        (b'"rows":', b'"rowz":'),
        (b'"live":', b'"lief":'),
        (b'"page_size":4096', b'"page_size":"4k"'),
        (b'"storage_type":"row"', b'"storage_type":"raw"'),
        (b'"schema":', b'"schemb":'),
        (b'"dtype":"f64"', b'"dtype":"f65"'),
        (b'"rows":1', b'"rows":-'),
        (b'"live":1', b'"live":9'),
        (b'"rows":1186', b'"rows":9e99'),
        (b'"primary_key":true', b'"primary_key":[1]}'),
    ],
)
def test_a_header_that_says_something_else(old: bytes, new: bytes) -> None:
    sealed = Sealed(hostile.image("row closed"), hostile.PATH)
    (root,) = sealed.parts["root"]
    text = sealed.read(root)[64:]
    if old not in text:
        pytest.skip(f"the header has no {old!r} any more: {text[:400]!r}")
    changed = text.replace(old, new, 1)[: len(text)].ljust(len(text))
    sealed.write(root, 64, changed)
    sealed.seal(root)
    with bounded():
        outcome = hostile.exercise(sealed.contents(), True)
    assert outcome == "refused"


# -- no database ---------------------------------------------------------------
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(5000)
TEXT = b"id,name\n1,a\n" * 3000
NOISE = random.Random(3).getrandbits(320_000).to_bytes(40_000, "little")
SQLITE = b"SQLite format 3\0\x10\0\1\1\0\x40\x20\x20" + bytes(8000)


@pytest.mark.parametrize(
    "content",
    [PNG, SQLITE, TEXT, b"\0", bytes(100), bytes(16384), bytes(1 << 20), b"\x89SNAP\r\n\x1a", NOISE],
    ids=["png", "sqlite", "text", "one byte", "100 bytes", "zeros", "many zeros", "only the magic", "noise"],
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    for options in ({}, {"read_only": True}, {"schema": PLAIN}, {"schema": PLAIN, "storage_type": "columnar"}):
        with pytest.raises(CorruptionError) as caught:
            SnapDB(path, **options)  # type: ignore[arg-type]
        assert "other.bin" in str(caught.value)
        assert caught.value.path == str(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["other.bin"]


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "new.snapdb"
    path.touch()
    with pytest.raises(FileNotFoundError):
        SnapDB(path)
    with pytest.raises(FileNotFoundError):
        SnapDB(path, PLAIN, read_only=True)
    assert path.read_bytes() == b""
    with SnapDB(path, PLAIN) as db:
        db.insert({"k": 1, "v": None, "s": "x"})
    with SnapDB(path) as db:
        assert len(db) == 1
    assert os.listdir(tmp_path) == ["new.snapdb"]


def with_static(path: Path, **fields: tuple[int, str, int]) -> None:
    """Change fields of both static headers and seal them."""
    data = bytearray(path.read_bytes())
    for start in (0, 0x2000):
        for at, form, value in fields.values():
            struct.pack_into(form, data, start + at, value)
        struct.pack_into("<I", data, start + 4028, zlib.crc32(data[start : start + 4028]))
    path.write_bytes(data)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A database with a row."""
    path = tmp_path / "small.snapdb"
    with SnapDB(path, PLAIN) as db:
        db.insert({"k": 1, "v": 0.5, "s": "x"})
    return path


@pytest.mark.parametrize(
    "field",
    [(8, "<H", 2), (8, "<H", 65535), (40, "<I", 1), (40, "<I", 1 << 31), (44, "<B", 2), (12, "<I", 8192)],
    ids=["major 2", "major 65535", "incompatible 1", "incompatible 31", "checksum", "page"],
)
def test_a_newer_version(small: Path, field: tuple[int, str, int]) -> None:
    with_static(small, field=field)
    content = small.read_bytes()
    for options in ({}, {"read_only": True}):
        with pytest.raises(NotSupportedError, match="version"):
            SnapDB(small, **options)  # type: ignore[arg-type]
    assert small.read_bytes() == content


def test_a_newer_version_whose_checksum_is_elsewhere(small: Path) -> None:
    data = bytearray(small.read_bytes())
    for start in (0, 0x2000):
        struct.pack_into("<H", data, start + 8, 7)
    small.write_bytes(data)
    with pytest.raises(NotSupportedError, match="7"):
        SnapDB(small)


def test_features_that_allow_only_reading(small: Path) -> None:
    with_static(small, field=(36, "<I", 4))
    with pytest.raises(NotSupportedError, match="read_only"):
        SnapDB(small)
    with SnapDB(small, read_only=True) as db:
        assert db[0]["k"] == 1


def test_compatible_features_and_a_minor_version(small: Path) -> None:
    with_static(small, field=(32, "<I", 255), minor=(10, "<H", 9))
    with SnapDB(small) as db:
        assert db[0]["k"] == 1
        db.update(0, {"k": 2})


def test_encryption_of_a_later_version(small: Path) -> None:
    with_static(small, field=(45, "<B", 1))
    with pytest.raises((NotSupportedError, SnapDBError), match="encrypt|key"):
        SnapDB(small)


# -- names -----------------------------------------------------------------
def test_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "folder.snapdb"
    folder.mkdir()
    for options in ({}, {"schema": PLAIN}, {"read_only": True}):
        with pytest.raises((IsADirectoryError, SnapDBError)) as caught:
            SnapDB(folder, **options)  # type: ignore[arg-type]
        assert isinstance(caught.value, OSError)
    assert os.listdir(folder) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_and_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        for options in ({}, {"schema": PLAIN}, {"read_only": True}):
            with pytest.raises((OSError, SnapDBError)):
                SnapDB(path, **options)  # type: ignore[arg-type]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for options in ({}, {"schema": PLAIN}):
        with pytest.raises(OSError) as caught:
            SnapDB(tmp_path / "no" / "such.snapdb", **options)  # type: ignore[arg-type]
        assert "such.snapdb" in str(caught.value)
    with pytest.raises(OSError):
        SnapDB(tmp_path / ("long" * 100), PLAIN)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not stop this user")
def test_permission_denied(small: Path, tmp_path: Path) -> None:
    small.chmod(0o400)
    with pytest.raises(PermissionError):
        SnapDB(small)
    with SnapDB(small, read_only=True) as db:
        assert len(db) == 1
    small.chmod(0)
    with pytest.raises(PermissionError):
        SnapDB(small, read_only=True)
    small.chmod(0o600)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError):
            SnapDB(tmp_path / "new.snapdb", PLAIN)
        with SnapDB(small, read_only=True) as db:
            assert len(db) == 1
    finally:
        tmp_path.chmod(0o700)


needs_links = pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="no links")


@needs_links
def test_a_link_to_a_database(small: Path, tmp_path: Path) -> None:
    """The log stands beside the real file, so that it is found whatever name is used next."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(small)
    with SnapDB(link) as db:
        db.insert({"k": 2, "v": None, "s": None})
        assert sorted(os.listdir(tmp_path)) == ["elsewhere", "small.snapdb", "small.snapdb-wal0", "small.snapdb-wal1"]
        assert os.listdir(tmp_path / "elsewhere") == ["link"]
    with SnapDB(small) as db:
        assert len(db) == 2
    assert link.is_symlink() and sorted(os.listdir(tmp_path)) == ["elsewhere", "small.snapdb"]


@needs_links
def test_a_link_to_nothing_and_to_itself(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target.snapdb")
    with pytest.raises(FileNotFoundError):
        SnapDB(link)
    with SnapDB(link, PLAIN) as db:
        db.insert({"k": 1, "v": None, "s": None})
    assert link.is_symlink() and (tmp_path / "target.snapdb").is_file()
    with SnapDB(tmp_path / "target.snapdb") as db:
        assert len(db) == 1
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for options in ({}, {"schema": PLAIN}):
        with pytest.raises(OSError):
            SnapDB(loop, **options)  # type: ignore[arg-type]


NAMES = ("plain", "a.b.c.snapdb", ".hidden", "with space.db", "ünï – 数据.snapdb", "x-wal0", "#?%.db", "trailing.")


@pytest.mark.parametrize("name", NAMES)
def test_any_name(tmp_path: Path, name: str, engine: str) -> None:
    path = tmp_path / name
    with SnapDB(path, PLAIN, storage_type=engine) as db:
        db.insert({"k": 1, "v": None, "s": "x"})
        assert sorted(os.listdir(tmp_path)) == sorted([name, f"{name}-wal0", f"{name}-wal1"])
    assert os.listdir(tmp_path) == [name]
    for spelling in (path, str(path), os.path.relpath(path)):
        with SnapDB(spelling) as db:
            assert len(db) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes are a matter of Linux")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff\xfe.db")
    with SnapDB(path, PLAIN) as db:
        db.insert({"k": 1, "v": None, "s": "x"})
    with pytest.raises(SchemaMismatchError):
        SnapDB(path, PLAIN, storage_type="columnar")
    with SnapDB(path) as db, pytest.raises(LockedError):
        SnapDB(path)
    Path(path).write_bytes(b"damaged")
    with pytest.raises(CorruptionError) as caught:
        SnapDB(path)
    str(caught.value).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", ["", "a\0b", None, 5, b"bytes"])
def test_no_name(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SnapDBError, ValueError, TypeError)):
        SnapDB(name, PLAIN)
    assert os.listdir(tmp_path) == []
