"""The file layers: one table of behaviour for all of them, then what each adds."""

from __future__ import annotations

import array
import errno
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest

from snapdb.storage import disk as disks
from snapdb.storage import files, windows
from snapdb.storage.files import BareLayer, File, FileLayer, PosixLayer, layer_for, local_layer, using
from snapdb.storage.windows import WindowsLayer
from snapdb.testing.layers import FaultyLayer, RecordingLayer

POSIX = hasattr(os, "posix_fallocate") or sys.platform == "darwin"
fcntl: Any = pytest.importorskip("fcntl") if POSIX else None


class FakeApi:
    """Windows' calls made of POSIX ones: a handle is a descriptor, and a lock covers the file."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuse = False

    def create_file(self, path: str, access: int, share: int, disposition: int, flags: int) -> int:
        self.calls.append(("create_file", share, flags))
        how = os.O_RDWR if access & windows.WRITE else os.O_RDONLY
        if disposition == windows.CREATE_NEW:
            how |= os.O_CREAT | os.O_EXCL
        return os.open(path, how | os.O_NONBLOCK, 0o666)

    def descriptor(self, handle: int, writable: bool) -> int:
        if self.refuse:
            raise OSError(errno.EMFILE, "no descriptor is left")
        return handle

    def lock_file(self, handle: int, flags: int, offset: int, length: int) -> bool:
        assert flags & windows.LOCK_NOW and (offset, length) == (1 << 62, 1)
        how = fcntl.LOCK_EX if flags & windows.LOCK_EXCLUSIVE else fcntl.LOCK_SH
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_file(self, handle: int, offset: int, length: int) -> None:
        assert (offset, length) == (1 << 62, 1)
        fcntl.flock(handle, fcntl.LOCK_UN)

    def flush(self, handle: int) -> None:
        self.calls.append(("flush",))
        os.fsync(handle)

    def move_file(self, source: str, target: str, flags: int) -> None:
        assert flags & windows.WRITE_THROUGH
        if not flags & windows.REPLACE_EXISTING and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", source, None, target)
        os.replace(source, target)

    def close(self, handle: int) -> None:
        self.calls.append(("close",))
        os.close(handle)


class Place(NamedTuple):
    layer: FileLayer
    root: str

    def path(self, name: str = "x") -> str:
        return f"{self.root}/{name}"

    def make(self, data: bytes = b"", name: str = "x") -> File:
        file = self.layer.open(self.path(name), "x")
        file.pwrite(data, 0)
        return file


# the bare layer opens files so that Windows would not rename them; it is never used there
NAMES = ["local", "recording", "faulty"] + ["bare", "seeking", "windows"] * POSIX


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    name = request.param
    if name == "local":
        return Place(local_layer(), str(tmp_path))
    if name == "windows":
        return Place(WindowsLayer(FakeApi()), str(tmp_path))
    if name == "recording":
        return Place(RecordingLayer(maps=True), "/memory")
    if name == "faulty":
        return Place(FaultyLayer(RecordingLayer(maps=True)), "/memory")
    if name == "seeking":
        monkeypatch.setattr(disks.BareFile, "positioned", False)
    return Place(BareLayer(), str(tmp_path))


# -- one table for all -----------------------------------------------------
@pytest.mark.smoke
def test_read_and_write(place: Place) -> None:
    file = place.make(b"0123456789")
    assert file.path == place.path()
    assert file.size() == place.layer.size(place.path()) == 10
    assert file.pread(4, 0) == b"0123"
    assert file.pread(4, 8) == b"89"
    assert file.pread(4, 10) == file.pread(4, 99) == file.pread(0, 3) == b""
    assert type(file.pread(4, 0)) is bytes
    file.pwrite(b"ab", 9)
    assert file.pread(100, 0) == b"012345678ab"
    file.pwrite(b"z", 14)
    assert file.pread(100, 8) == b"8ab\0\0\0z"
    file.pwrite(b"", 50)
    assert file.size() == 15
    file.close()


@pytest.mark.parametrize(
    "data",
    [b"abcdefgh", bytearray(b"abcdefgh"), memoryview(b"_abcdefgh")[1:], array.array("q", [0x6867666564636261])],
    ids=["bytes", "bytearray", "view", "array"],
)
def test_any_buffer_is_written(place: Place, data: Any) -> None:
    if sys.byteorder == "big" and isinstance(data, array.array):
        data.byteswap()
    file = place.make(data)
    assert file.pread(100, 0) == b"abcdefgh"
    file.close()


def test_lengths(place: Place) -> None:
    file = place.make(b"abcdef")
    file.truncate(3)
    assert file.pread(9, 0) == b"abc"
    file.truncate(6)
    assert file.pread(9, 0) == b"abc\0\0\0"
    file.allocate(2, 3)
    assert file.pread(9, 0) == b"abc\0\0\0"  # nothing there changes
    file.allocate(4, 200_000)
    assert file.size() == 200_004
    assert file.pread(200_004, 0) == b"abc" + bytes(200_001)
    file.allocate(0, 0)
    file.allocate(10**12, 0)
    assert file.size() == 200_004
    file.sync()
    file.close()


def test_modes(place: Place) -> None:
    layer, path = place.layer, place.path()
    for mode in "rw":
        with pytest.raises(FileNotFoundError):
            layer.open(path, mode)
    place.make(b"abc").close()
    with pytest.raises(FileExistsError):
        layer.open(path, "x")
    with pytest.raises(KeyError):
        layer.open(path, "a")
    reader, writer = layer.open(path, "r"), layer.open(path, "w")
    writer.pwrite(b"X", 1)
    assert reader.pread(3, 0) == b"aXc"
    for attempt in (lambda: reader.pwrite(b"Y", 0), lambda: reader.truncate(0)):
        with pytest.raises(OSError):
            attempt()
    assert writer.pread(3, 0) == b"aXc"
    reader.sync()
    reader.close()
    writer.close()


def test_a_closed_file_refuses(place: Place) -> None:
    file = place.make(b"abc")
    file.lock(True)
    file.close()
    file.close()
    file.close(abandon=True)
    file.unlock()
    for call in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite(b"x", 0),
        lambda: file.size(),
        lambda: file.sync(),
        lambda: file.truncate(0),
        lambda: file.allocate(0, 9),
        lambda: file.map(1) if place.layer.maps else file.size(),
        lambda: file.lock(True),
        lambda: file.identity(),
    ):
        with pytest.raises(OSError):
            call()
    assert file.fileno() == -1
    assert place.layer.size(place.path()) == 3


def test_bad_offsets_are_os_errors(place: Place) -> None:
    file = place.make(b"abc")
    for call in (lambda: file.pread(1, -1), lambda: file.pwrite(b"x", -1), lambda: file.truncate(-1)):
        with pytest.raises(OSError):
            call()
    assert file.pread(9, 0) == b"abc"
    file.close()


@pytest.mark.smoke
def test_names(place: Place) -> None:
    layer = place.layer
    one, two = place.path("one"), place.path("two")
    assert not layer.exists(one) and layer.identity(one) is None
    for call in (lambda: layer.size(one), lambda: layer.unlink(one), lambda: layer.rename(one, two, True)):
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(FileNotFoundError):
        layer.rename(one, two, False)
    first = place.make(b"1", "one")
    place.make(b"22", "two").close()
    assert layer.exists(one) and layer.size(two) == 2
    assert first.identity() == layer.identity(one) != layer.identity(two)
    with pytest.raises(FileExistsError):
        layer.rename(one, two, False)
    assert layer.size(one) == 1 and layer.size(two) == 2
    layer.rename(one, two, True)
    assert not layer.exists(one) and layer.size(two) == 1
    assert first.identity() == layer.identity(two)
    layer.rename(two, one, False)
    assert not layer.exists(two) and layer.size(one) == 1
    assert first.identity() == layer.identity(one)
    first.pwrite(b"still the same file", 0)
    assert layer.size(one) == 19
    layer.sync_dir(one)
    layer.sync_dir(place.path("not there"))
    layer.unlink(one)
    assert not layer.exists(one)
    assert first.pread(5, 0) == b"still"  # open files outlive their names
    first.close()
    place.make(b"new", "one").close()


@pytest.mark.smoke
def test_maps(place: Place) -> None:
    file = place.make(b"abcdef" * 1000)
    view = file.map(6000)
    if not place.layer.maps:
        assert view is None
        file.close()
        return
    assert view is not None and view.readonly and len(view) == 6000 and view[:6] == b"abcdef"
    with pytest.raises(OSError):
        file.map(6001)
    empty = file.map(0)
    assert empty is not None and bytes(empty) == b""
    part = view[6:12]
    file.pwrite(b"ABC", 6)
    assert part == b"ABCdef"  # one file, however it is read
    file.pwrite(b"more", 6000)
    file.pwrite(b"def", 6)
    assert part == b"defdef"
    longer = file.map(6004)
    assert longer is not None and longer[-4:] == b"more"
    del view
    file.close()
    if sys.platform != "win32":  # which refuses both while there is a map
        place.layer.rename(place.path(), place.path("y"), False)
        place.layer.unlink(place.path("y"))
    gc.collect()
    assert part == b"defdef" and longer[:6] == b"abcdef"


@pytest.mark.smoke
def test_locks(place: Place) -> None:
    layer = place.layer
    one, two, three = place.make(b"x"), layer.open(place.path(), "w"), layer.open(place.path(), "r")
    if not layer.locks:
        assert all(file.lock(True) for file in (one, two, three))
    else:
        assert one.lock(True)
        assert not two.lock(True) and not two.lock(False) and not three.lock(False)
        one.unlock()
        one.unlock()
        assert two.lock(False) and three.lock(False) and not one.lock(True)
        two.unlock()
        assert not one.lock(True)
        three.close()  # closing unlocks
        assert one.lock(True)
        assert one.lock(False)  # given up, taken again, shared now
        assert two.lock(False)
        assert not two.lock(True)  # and not shared any more either
        one.unlock()
        assert one.lock(True)
    for file in (one, two, three):
        file.close()


def test_a_map_does_not_keep_the_lock(place: Place) -> None:
    file = place.make(b"abc")
    view = file.map(3)
    assert file.lock(True)
    file.close()
    other = place.layer.open(place.path(), "w")
    assert other.lock(True)
    assert view is None or view == b"abc"
    other.close()


def test_what_layers_say(place: Place) -> None:
    layer = place.layer
    assert layer.promises().endswith(".") and "  " not in layer.promises()
    assert layer.is_remote(place.path()) is False
    assert all(isinstance(flag, bool) for flag in (layer.threads, layer.maps, layer.locks))


def test_many_threads_read_and_write(place: Place) -> None:
    file = place.make(bytes(80_000))
    wrong: list[int] = []

    def work(number: int) -> None:
        data = bytes([number]) * 1000
        for turn in range(30):
            at = (turn % 10) * 8000 + number * 1000
            file.pwrite(data, at)
            if file.pread(1000, at) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    file.close()


# -- files of the operating system -----------------------------------------
DISK = ["local"] + ["bare", "windows"] * POSIX


@pytest.fixture(params=DISK)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    layers = {"local": local_layer(), "bare": BareLayer(), "windows": WindowsLayer(FakeApi())}
    return Place(layers[request.param], str(tmp_path))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_only_regular_files_open(disk: Place) -> None:
    before = open_descriptors()
    os.mkdir(disk.path("dir"))
    for mode in "rw":
        with pytest.raises(IsADirectoryError):
            disk.layer.open(disk.path("dir"), mode)
    with pytest.raises(FileExistsError):
        disk.layer.open(disk.path("dir"), "x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(disk.path("pipe"))
        with pytest.raises(OSError, match="Not a regular file"):
            disk.layer.open(disk.path("pipe"), "r")  # and does not wait for a writer
    for name in ("/dev/null", os.devnull):
        with pytest.raises(OSError):
            disk.layer.open(name, "w")
    if hasattr(socket, "AF_UNIX") and len(disk.path("socket")) < 100:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(disk.path("socket"))
            with pytest.raises(OSError):
                disk.layer.open(disk.path("socket"), "w")
    assert open_descriptors() == before


def test_names_below_a_file_are_absent(disk: Place) -> None:
    disk.make().close()
    below = disk.path("x") + "/below"
    assert not disk.layer.exists(below) and disk.layer.identity(below) is None


def test_short_writes_and_reads_are_continued(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupted call or a nearly full disk has them."""
    file = disk.make()
    real = {name: getattr(os, name) for name in ("pread", "pwrite", "read", "write") if hasattr(os, name)}
    for name, call in real.items():
        if name.endswith("read"):
            monkeypatch.setattr(os, name, lambda fd, size, *at, call=call: call(fd, min(size, 3), *at))
        else:
            monkeypatch.setattr(os, name, lambda fd, data, *at, call=call: call(fd, bytes(data)[:3], *at))
    file.pwrite(b"0123456789", 0)
    file.pwrite(memoryview(b"abcdefgh"), 10)
    assert file.pread(100, 0) == b"0123456789abcdefgh"
    assert file.pread(7, 2) == b"2345678"
    for name in real:
        if name.endswith("write"):
            monkeypatch.setattr(os, name, lambda *given: 0)
    with pytest.raises(OSError) as caught:
        file.pwrite(b"x", 0)
    assert caught.value.errno == errno.EIO
    file.close()


def test_large_calls_are_cut(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_LARGEST", 5)
    file = disk.make(b"0123456789abc")
    assert file.pread(13, 0) == b"0123456789abc"
    file.close()


def test_space_that_is_not_there_is_given_back(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = disk.make(b"abc")
    calls: list[int] = []

    def full(fd: int, *given: Any) -> None:
        calls.append(fd)
        if len(calls) > 2 or len(given) != 2:
            raise OSError(errno.ENOSPC, "full")
        os.truncate(disk.path(), file.size() + 65536)

    def write(data: Any, offset: int) -> None:
        full(0, data, offset)

    if hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(file, "pwrite", write)
    with pytest.raises(OSError) as caught:
        file.allocate(0, 1 << 20)
        file.allocate(0, 1 << 21)
        file.allocate(0, 1 << 22)
    assert caught.value.errno == errno.ENOSPC
    assert bytes(Path(disk.path()).read_bytes()).rstrip(b"\0") == b"abc"
    monkeypatch.undo()
    assert file.size() % 65536 == 3
    file.close()


def test_zeros_where_nothing_can_be_reserved(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*given: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    if hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = disk.make(b"abc")
    file.allocate(1, 200_000)
    assert file.pread(300_000, 0) == b"abc" + bytes(199_998)
    file.allocate(300_000, 5)
    assert file.size() == 300_005
    file.close()


def test_names_that_cannot_be_looked_up_are_errors(disk: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot be seen must not count as absent."""

    def denied(path: str) -> Any:
        raise PermissionError(errno.EACCES, "denied", path)

    monkeypatch.setattr(os, "stat", denied)
    for call in (disk.layer.exists, disk.layer.size, disk.layer.identity):
        with pytest.raises(PermissionError):
            call(disk.path())
    monkeypatch.undo()


# -- POSIX -----------------------------------------------------------------
pytestmark_posix = pytest.mark.skipif(not POSIX, reason="needs POSIX")


@pytestmark_posix
@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, None])
def test_rename_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Optional[int]) -> None:
    def link(source: str, target: str) -> None:
        assert code is not None
        raise OSError(code, "no links here")

    if code is None:
        monkeypatch.delattr(os, "link")
    else:
        monkeypatch.setattr(os, "link", link)
    place = Place(PosixLayer(), str(tmp_path))
    place.make(b"1", "one").close()
    place.make(b"22", "two").close()
    with pytest.raises(FileExistsError):
        place.layer.rename(place.path("one"), place.path("two"), False)
    place.layer.rename(place.path("one"), place.path("three"), False)
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]
    if code is not None:
        monkeypatch.setattr(os, "link", lambda *given: os.stat("/nowhere/at/all"))
        with pytest.raises(FileNotFoundError):
            place.layer.rename(place.path("two"), place.path("four"), False)


@pytestmark_posix
def test_umask_and_inheritance(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        file = Place(PosixLayer(), str(tmp_path)).make()
    finally:
        os.umask(before)
    assert os.stat(file.path).st_mode & 0o777 == 0o640
    assert file.fileno() > 2 and not os.get_inheritable(file.fileno())
    file.close()


@pytestmark_posix
def test_no_file_takes_the_place_of_stdout(tmp_path: Path) -> None:
    """A program that closed its standard streams must not print into the database."""
    code = (
        "import os, sys; from snapdb.storage.files import PosixLayer\n"
        "os.close(0); os.close(1); os.close(2)\n"
        "file = PosixLayer().open(sys.argv[1], 'x')\n"
        "ok = file.fileno() > 2 and not os.get_inheritable(file.fileno())\n"
        "os._exit(7 if ok else 8)\n"
    )
    assert run(code, str(tmp_path / "x"), check=False).returncode == 7


def run(code: str, *given: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    root = str(Path(files.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, env=environment, timeout=60, check=check
    )


TRY = (
    "import sys; from snapdb.storage.files import local_layer\n"
    "file = local_layer().open(sys.argv[1], 'w')\n"
    "print(file.lock(sys.argv[2] == 'exclusive'))\n"
)


@pytest.mark.skipif(not local_layer().locks, reason="needs locks")
def test_locks_between_processes(tmp_path: Path) -> None:
    place = Place(local_layer(), str(tmp_path))
    file = place.make(b"abc")
    view = file.map(3)
    assert file.lock(True)
    assert run(TRY, file.path, "exclusive").stdout == "False\n"
    assert run(TRY, file.path, "shared").stdout == "False\n"
    assert file.lock(False)
    assert run(TRY, file.path, "exclusive").stdout == "False\n"
    assert run(TRY, file.path, "shared").stdout == "True\n"
    assert file.lock(True)
    file.close()
    assert run(TRY, file.path, "exclusive").stdout == "True\n"
    assert view is not None and view == b"abc"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_its_parents_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from snapdb.storage.files import PosixLayer\n"
        "path = sys.argv[1]; layer = PosixLayer()\n"
        "file = layer.open(path, 'x'); file.pwrite(b'abc', 0); view = file.map(3); ok = file.lock(True)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    file.close(abandon=True)\n"
        "    os._exit(3 if layer.open(path, 'w').lock(True) else 4)\n"
        "status = os.waitpid(child, 0)[1] >> 8\n"
        "held = not layer.open(path, 'w').lock(True)\n"
        "file.close(); other = layer.open(path, 'w')\n"
        "print(ok, status, held, other.lock(True), bytes(view))\n"
    )
    assert run(code, str(tmp_path / "x")).stdout == "True 4 True True b'abc'\n"


class FakeControl:
    """fcntl as macOS has it."""

    F_FULLFSYNC = 51

    def __init__(self, codes: list[Optional[int]]) -> None:
        self.codes = codes

    def __getattr__(self, name: str) -> Any:
        return getattr(fcntl, name)

    def fcntl(self, fd: int, command: int, value: int = 0) -> int:
        assert command == self.F_FULLFSYNC and fd > 2
        code = self.codes.pop(0)
        if code is not None:
            raise OSError(code, "no")
        return 0


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    done: list[str] = []
    for name in ("fsync", "fdatasync"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, lambda fd, name=name: done.append(name))
    yield done


@pytestmark_posix
def test_full_flush_falls_back_only_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushes: list[str]
) -> None:
    place = Place(PosixLayer(), str(tmp_path))
    control = FakeControl([None, None, errno.ENOTSUP])
    monkeypatch.setattr(disks, "_fcntl", control)
    file = place.make(b"abc")
    file.sync()
    file.sync()
    assert flushes == [] and len(control.codes) == 1
    with pytest.raises(OSError):
        file.sync()  # it worked before: this is no file system without it
    assert flushes == []
    file.close()

    for code in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
        control.codes = [code]
        file = place.layer.open(place.path(), "w")
        file.sync()
        assert flushes.pop() == "fsync"
        file.sync()
        assert flushes.pop() in ("fsync", "fdatasync") and not flushes
        file.close()

    control.codes = [errno.EIO]
    file = place.layer.open(place.path(), "w")
    with pytest.raises(OSError):
        file.sync()
    assert flushes == []
    file.close()

    control.codes = [None, errno.ENOTSUP, errno.EIO]
    place.layer.sync_dir(place.path())
    assert flushes == []
    place.layer.sync_dir(place.path())
    assert flushes == ["fsync"]
    with pytest.raises(OSError):
        place.layer.sync_dir(place.path())
    assert "F_FULLFSYNC" in place.layer.promises()


@pytestmark_posix
def test_flushing_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, before = PosixLayer(), open_descriptors()
    code = errno.EINVAL

    def fsync(fd: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(disks, "_fcntl", None)
    monkeypatch.setattr(os, "fsync", fsync)
    layer.sync_dir(str(tmp_path / "x"))  # a file system that flushes no directory
    code = errno.EIO
    with pytest.raises(OSError):
        layer.sync_dir(str(tmp_path / "x"))
    with pytest.raises(FileNotFoundError):
        layer.sync_dir(str(tmp_path / "none" / "x"))
    assert open_descriptors() == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    layer.sync_dir("x")


@pytestmark_posix
@pytest.mark.parametrize(("code", "raises"), [(errno.ENODEV, False), (errno.ENOMEM, False), (errno.EBADF, True)])
def test_no_map_where_the_system_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, raises: bool
) -> None:
    import mmap

    def refuse(*given: Any, **options: Any) -> Any:
        raise OSError(code, "no")

    file = Place(PosixLayer(), str(tmp_path)).make(b"abc")
    monkeypatch.setattr(mmap, "mmap", refuse)
    if raises:
        with pytest.raises(OSError):
            file.map(3)
    else:
        assert file.map(3) is None
    file.close()


@pytestmark_posix
def test_lock_errors_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLocks(FakeControl):
        def flock(self, fd: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

    file = Place(PosixLayer(), str(tmp_path)).make()
    monkeypatch.setattr(disks, "_fcntl", NoLocks([]))
    with pytest.raises(OSError) as caught:
        file.lock(True)
    assert caught.value.errno == errno.ENOLCK
    file.close()


MOUNTS = """\
/dev/root / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
user@host: /home/me/remote fuse.sshfs rw 0 0
/dev/sdb /home/local xfs rw 0 0
/dev/sdc /over ext4 rw 0 0
server:/over /over nfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/var/x", "ext4", False),
        ("/home/x", "nfs4", True),
        ("/home", "nfs4", True),
        ("/homes/x", "ext4", False),
        ("/home/local/x", "xfs", False),
        ("/home/me/remote/x", "fuse.sshfs", True),
        ("/mnt/my share/a/b", "cifs", True),
        ("/over/x", "nfs", True),
    ],
)
def test_remote_file_systems(path: str, kind: str, remote: bool) -> None:
    assert disks.mount_type(path, MOUNTS) == kind
    assert (kind in disks._REMOTE) is remote


def test_no_mounts_are_not_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disks.mount_type("/x", "") == ""
    monkeypatch.setattr(sys, "platform", "linux")
    assert isinstance(PosixLayer().is_remote("/nowhere/x"), bool)
    monkeypatch.setattr(sys, "platform", "sunos5")
    assert PosixLayer().is_remote("/") is False


# -- Windows ---------------------------------------------------------------
@pytestmark_posix
def test_windows_calls(tmp_path: Path) -> None:
    api = FakeApi()
    place = Place(WindowsLayer(api), str(tmp_path))
    file = place.make(b"abc")
    assert api.calls == [("create_file", 7, 0x80)]  # others may read, write, rename and remove it meanwhile
    file.sync()
    assert api.calls.pop() == ("flush",)
    reader = place.layer.open(place.path(), "r")
    calls = len(api.calls)
    reader.sync()
    assert len(api.calls) == calls  # FlushFileBuffers refuses handles that cannot write
    assert file.fileno() == -1
    reader.close()
    file.close()


@pytestmark_posix
def test_windows_handles_are_not_lost(tmp_path: Path) -> None:
    api = FakeApi()
    place = Place(WindowsLayer(api), str(tmp_path))
    place.make(b"abc").close()
    before = open_descriptors()
    api.refuse = True
    with pytest.raises(OSError):
        place.layer.open(place.path(), "w")
    assert api.calls[-1] == ("close",) and open_descriptors() == before


class FakeKernel:
    """kernel32: remembers each call, and answers what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer = 1
        self.last_error = 0

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> int:
            # what byref() made keeps its structure in _obj
            self.calls.append((name, *[(it._obj.low, it._obj.high) if hasattr(it, "_obj") else it for it in given]))
            return self.answer

        setattr(self, name, call)
        return call


@pytestmark_posix
def test_windows_api(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    kernel = FakeKernel()
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: kernel.last_error, raising=False)
    monkeypatch.setattr(ctypes, "WinError", lambda code: OSError(code, f"error {code}"), raising=False)
    api = windows.WindowsApi()
    at = windows.LOCK_AT
    assert api.lock_file(5, 3, at, 1)
    api.unlock_file(5, at, 1)
    api.flush(5)
    api.move_file("a", "b", 9)
    api.close(5)
    kernel.answer = 77
    assert api.create_file("a", windows.READ, 7, 3, 0x80) == 77
    assert kernel.calls == [
        ("LockFileEx", 5, 3, 0, 1, 0, (0, 1 << 30)),
        ("UnlockFileEx", 5, 0, 1, 0, (0, 1 << 30)),
        ("FlushFileBuffers", 5),
        ("MoveFileExW", "a", "b", 9),
        ("CloseHandle", 5),
        ("CreateFileW", "a", 0x80000000, 7, None, 3, 0x80, None),
    ]
    kernel.answer = 0
    kernel.last_error = windows.LOCK_VIOLATION
    assert not api.lock_file(5, 3, at, 1)
    kernel.last_error = windows.NOT_LOCKED
    api.unlock_file(5, at, 1)
    kernel.last_error = 5
    for call in (
        lambda: api.lock_file(5, 3, at, 1),
        lambda: api.unlock_file(5, at, 1),
        lambda: api.flush(5),
        lambda: api.move_file("a", "b", 9),
    ):
        with pytest.raises(OSError, match="error 5"):
            call()
    kernel.answer = ctypes.c_void_p(-1).value or 0
    with pytest.raises(OSError, match="error 5") as caught:
        api.create_file("a", windows.READ, 7, 3, 0x80)
    assert caught.value.filename == "a"


def test_windows_api_is_lazy() -> None:
    assert windows.WindowsApi()._kernel is None
    assert isinstance(WindowsLayer(), FileLayer)


# -- the layer in force ----------------------------------------------------
def test_using_is_for_the_thread_and_nests() -> None:
    local = local_layer()
    assert local is local_layer() is layer_for("x")
    one, two = RecordingLayer(), RecordingLayer()
    seen: list[FileLayer] = []
    with using(one) as given:
        assert given is one is layer_for("x")
        with pytest.raises(KeyError), using(two):
            assert layer_for("x") is two
            raise KeyError
        assert layer_for("x") is one
        thread = threading.Thread(target=lambda: seen.append(layer_for("x")))
        thread.start()
        thread.join()
    assert seen == [local] and layer_for("x") is local


@pytest.mark.parametrize(
    ("platform", "kind"), [("linux", "PosixLayer"), ("win32", "WindowsLayer"), ("wasi", "BareLayer")]
)
@pytestmark_posix
def test_local_layer_by_platform(monkeypatch: pytest.MonkeyPatch, platform: str, kind: str) -> None:
    monkeypatch.setattr(files, "_local", None)
    monkeypatch.setattr(sys, "platform", platform)
    assert type(local_layer()).__name__ == kind


def test_no_fcntl_is_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_local", None)
    monkeypatch.setattr(files, "has_locks", False)
    monkeypatch.setattr(sys, "platform", "other")
    layer = local_layer()
    assert type(layer) is BareLayer and not layer.threads and not layer.maps and not layer.locks
    Place(layer, str(tmp_path)).make(b"abc").close()


def test_import_is_cheap() -> None:
    heavy = "{'mmap', 'ctypes', 'socket', 'subprocess', 'tempfile', 'asyncio', 'logging'}"
    code = f"import sys, snapdb.storage.files; before = set(sys.modules); print(sorted({heavy} & before))"
    assert "mmap" not in run(code).stdout
