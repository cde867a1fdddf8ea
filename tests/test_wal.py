"""The write-ahead log: the bytes of its frames, their chain, and what happens where a write fails."""

from __future__ import annotations

import errno
import os
import random
import struct
import tempfile
from array import array
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_frames import (
    BACKENDS,
    EPOCH,
    FIRST,
    LAST,
    LINK,
    LSN,
    OTHER,
    SALT,
    START,
    chain,
    crc_of,
    make,
    scan,
)

from snapdb import _ext

# -- a log on a file in memory ----------------------------------------------------------------------------------------


class Full(Exception):
    """What ``failed`` raises here."""


class Disk:
    """A file in memory and the four functions of a log; ``error`` is raised by the next writes."""

    def __init__(self, wal: Any, start: bool = True, limit: int = 1 << 20) -> None:
        self.data = bytearray()
        self.calls: list[Any] = []
        self.error: Optional[BaseException] = None
        self.on_room: Callable[[int], None] = lambda end: None
        self.log = wal.Log(self.write, self.room, self.failed, self.settle)
        if start:
            self.start(limit)

    def start(self, limit: int = 1 << 20, **more: Any) -> None:
        given = {"salt": SALT, "epoch": EPOCH, "lsn": LSN, "crc": LINK, "limit": limit, **more}
        self.log.start(**given)

    def write(self, data: Any, offset: int) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("write", offset, len(data)))
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def room(self, end: int) -> None:
        self.calls.append(("room", end))
        self.on_room(end)

    def failed(self, error: OSError) -> None:
        self.calls.append(("failed", error.errno))
        raise Full(str(error)) from error

    def settle(self) -> None:
        self.calls.append("settle")

    @property
    def state(self) -> tuple[int, int, int, int]:
        return (self.log.lsn, self.log.crc, self.log.position, self.log.written)


def test_numbers(kernels: Any) -> None:
    wal = kernels.wal
    assert (wal.FRAME, wal.START, wal.LARGEST, wal.FIRST, wal.LAST, wal.ROW) == (40, 64, 16 << 20, 1, 2, 1)


def test_bytes_of_frames(kernels: Any) -> None:
    disk = Disk(kernels.wal)
    payloads = [bytes(range(size)) for size in range(40)] + [random.Random(2).randbytes(70_001)]
    for number, payload in enumerate(payloads):
        assert disk.log.append(1, payload) == LSN + 1 + number
    assert bytes(disk.data) == chain(payloads)
    assert disk.log.position == disk.log.written == len(disk.data)
    assert len(disk.data) % 8 == 0


def test_every_field_of_a_frame(kernels: Any) -> None:
    disk = Disk(kernels.wal)
    disk.log.durable_lsn = 2**63 + 5
    assert disk.log.append(255, b"abc", FIRST) == LSN + 1
    first = make(LINK, 255, FIRST, LSN + 1, LSN + 1, b"abc", 2**63 + 5)
    disk.log.durable_lsn = 3
    disk.log.append(7, b"", LAST)
    second = make(crc_of(first), 7, LAST, LSN + 2, LSN + 1, b"", 3)
    disk.log.append(2, memoryview(array("I", [1, 2])), 0)
    third = make(crc_of(second), 2, 0, LSN + 3, LSN + 1, struct.pack("=II", 1, 2), 3)
    assert bytes(disk.data[START:]) == first + second + third
    assert disk.log.crc == crc_of(third)


def test_bad_arguments(kernels: Any) -> None:
    disk = Disk(kernels.wal)
    before = disk.state
    for kind, payload, flags, error in (
        (0, b"", -1, ValueError), (256, b"", -1, ValueError), (-1, b"", -1, ValueError), (2**70, b"", -1, ValueError),
        (1, b"", 4, ValueError), (1, b"", -2, ValueError), (1, b"", 2**70, ValueError), (1.5, b"", -1, TypeError),
        (1, "text", -1, TypeError), (1, 5, -1, TypeError), (1, None, -1, TypeError), (1, b"", None, TypeError),
        (1, memoryview(b"abcd")[::2], -1, BufferError),
    ):  # fmt: skip
        with pytest.raises(error):
            disk.log.append(kind, payload, flags)
    for salt, error in ((b"", ValueError), (bytes(15), ValueError), (bytes(17), ValueError), (16, TypeError)):
        with pytest.raises(error):
            disk.start(salt=salt)
        with pytest.raises(error):
            kernels.wal.scan(b"", salt, 1, 0, 0)
        with pytest.raises(error):
            kernels.wal.stray(b"", 0, salt, 1, 0)
    for name, value in (("epoch", -1), ("lsn", -1), ("crc", 2**32), ("lsn", 2**64)):
        with pytest.raises(OverflowError):
            disk.start(**{name: value})
    assert disk.state == before and not disk.calls
    for name in ("lsn", "crc", "position", "written"):
        with pytest.raises(AttributeError):
            setattr(disk.log, name, 5)


def test_largest_payload(kernels: Any) -> None:
    largest = kernels.wal.LARGEST
    disk = Disk(kernels.wal, limit=1 << 26)
    with pytest.raises(ValueError, match="16777216"):
        disk.log.append(1, bytes(largest + 1))
    assert disk.log.position == START
    disk.log.append(2, bytes(largest))
    disk.log.append(2, b"after")
    frames, end, crc = scan(kernels.wal, disk.data)
    assert [frame[4:] for frame in frames] == [(104, 104 + largest), (144 + largest, 149 + largest)]
    assert (end, crc) == (disk.log.position, disk.log.crc)


# -- room, start, stop ------------------------------------------------------------------------------------------------


def test_first_frame_starts_the_log(kernels: Any) -> None:
    disk = Disk(kernels.wal, start=False)
    assert disk.state == (0, 0, START, START) and disk.log.limit == 0
    with pytest.raises(RuntimeError, match="not started"):
        disk.log.append(1, b"x" * 9)
    assert disk.calls == [("room", START + 56)] and disk.state == (0, 0, START, START)
    disk.on_room = lambda end: disk.start(end)
    assert disk.log.append(1, b"x" * 9) == LSN + 1
    assert bytes(disk.data) == chain([b"x" * 9])
    assert disk.log.limit == disk.log.position


def test_held_frames_start_it_too(kernels: Any) -> None:
    disk = Disk(kernels.wal, start=False)
    disk.log.hold = True
    disk.on_room = lambda end: disk.start(START + 48)
    assert disk.log.append(1, b"12345678") == LSN + 1
    assert disk.log.append(1, b"") == LSN + 2 and disk.log.position > disk.log.limit
    with pytest.raises(RuntimeError, match="holds frames"):
        disk.log.flush()  # room() would start an epoch, which is refused while frames are held
    disk.on_room = lambda end: None
    with pytest.raises(RuntimeError, match="no room"):
        disk.log.flush()
    disk.on_room = lambda end: setattr(disk.log, "limit", end)
    disk.log.flush()
    assert bytes(disk.data) == chain([b"12345678", b""])


def test_room_is_asked_for(kernels: Any) -> None:
    disk = Disk(kernels.wal, limit=START + 48)
    disk.log.append(1, b"12345678")
    assert not [call for call in disk.calls if call[0] == "room"]
    before = disk.state
    with pytest.raises(RuntimeError, match="no room"):
        disk.log.append(1, b"")
    disk.on_room = lambda end: (_ for _ in ()).throw(Full("disk"))
    with pytest.raises(Full):
        disk.log.append(1, b"")
    assert disk.state == before

    def grow(end: int) -> None:
        disk.log.limit = end + 8

    disk.on_room = grow
    disk.log.append(1, b"")
    assert disk.calls.count(("room", START + 48 + 40)) == 3 and disk.log.limit == disk.log.position + 8
    assert len(scan(kernels.wal, disk.data)[0]) == 2


def test_room_may_start_an_epoch(kernels: Any) -> None:
    disk = Disk(kernels.wal, limit=START + 40)
    disk.log.append(1, b"")
    link = disk.log.crc
    disk.on_room = lambda end: disk.start(salt=OTHER, epoch=EPOCH + 1, lsn=disk.log.lsn, crc=link)
    assert disk.log.append(3, b"new") == LSN + 2
    assert bytes(disk.data[START:]) == make(link, 3, 3, LSN + 2, LSN + 2, b"new", salt=OTHER, epoch=EPOCH + 1)
    assert disk.log.position == len(disk.data)


def test_stop(kernels: Any) -> None:
    disk = Disk(kernels.wal)
    disk.log.append(1, b"")
    disk.log.hold = True
    disk.log.append(1, b"held")
    disk.log.stop()
    assert (disk.log.limit, disk.log.position, disk.log.written) == (0, START, START)
    disk.log.flush()
    assert len(disk.data) == START + 40
    with pytest.raises(RuntimeError, match="not started"):
        disk.log.append(1, b"")
    disk.log.hold = False
    disk.start()
    disk.log.append(1, b"again")
    assert scan(kernels.wal, disk.data)[0] == [(LSN + 1, LSN + 1, 1, 3, 104, 109)]


def test_start_refuses_held_frames(kernels: Any) -> None:
    disk = Disk(kernels.wal)
    disk.log.hold = True
    disk.log.append(1, b"held")
    with pytest.raises(RuntimeError, match="holds frames"):
        disk.start(epoch=EPOCH + 1)
    disk.log.flush()
    assert bytes(disk.data) == chain([b"held"])


# -- holding, transactions, going back --------------------------------------------------------------------------------


def test_hold_and_flush(kernels: Any) -> None:
    disk = Disk(kernels.wal, limit=START)
    disk.on_room = lambda end: setattr(disk.log, "limit", end)
    payloads = [random.Random(3).randbytes(size) for size in (5, 5000, 0, 70_000, 12)]
    disk.log.hold = True
    for payload in payloads:
        disk.log.append(1, payload)
    assert not disk.calls and disk.log.written == START and disk.log.position == len(chain(payloads))
    disk.log.flush()
    disk.log.flush()
    assert disk.calls == [("room", disk.log.position), ("write", START, disk.log.position - START)]
    assert bytes(disk.data) == chain(payloads)
    disk.log.append(1, b"held")
    disk.log.hold = False
    disk.log.append(1, b"written with the one before")
    assert bytes(disk.data) == chain([*payloads, b"held", b"written with the one before"])


def test_room_may_flush(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal, limit=START)).log

    def room(end: int) -> None:
        log.limit = end
        log.flush()

    disk.on_room = room
    log.hold = True
    log.append(1, b"a")
    log.flush()
    assert disk.calls == [("room", START + 48), ("write", START, 48)]


def test_flags_in_a_transaction(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    assert log.inner is False
    log.append(1, b"a")
    log.inner = True
    assert log.inner is True
    log.append(1, b"b")
    log.append(3, b"c")
    log.append(7, b"", LAST)
    log.inner = True
    log.append(4, b"d")
    log.inner = False
    log.append(1, b"e")
    frames = scan(kernels.wal, disk.data)[0]
    assert [frame[1:4] for frame in frames] == [
        (101, 1, 3), (102, 1, 1), (102, 3, 0), (102, 7, 2), (105, 4, 1), (106, 1, 3),
    ]  # fmt: skip


def test_rollback_of_held_frames(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.append(1, b"a")
    log.hold = log.inner = True
    begin = log.mark()
    assert begin == (LSN + 1, log.crc, log.position)
    log.append(1, b"b")
    middle = log.mark()
    log.append(1, b"c")
    assert log.rollback(middle) == 0 and log.mark() == middle
    log.append(1, b"d")
    assert log.rollback(begin) == 0 and log.mark() == begin
    log.append(1, b"e")  # the first of its transaction again
    log.append(7, b"", LAST)
    log.flush()
    assert [frame[:4] for frame in scan(kernels.wal, disk.data)[0]] == [
        (101, 101, 1, 3), (102, 102, 1, 1), (103, 102, 7, 2),
    ]  # fmt: skip
    assert b"e" in disk.data and b"d" not in disk.data


def test_rollback_of_written_frames(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.append(1, b"a")
    mark = log.mark()
    log.append(1, b"b" * 8)
    log.hold = True
    log.append(1, b"c")
    assert log.rollback(mark) == 48
    assert log.mark() == mark and log.written == mark[2]
    log.hold = False
    log.append(1, b"d" * 8)
    assert bytes(disk.data) == chain([b"a", b"d" * 8])


def test_after_a_rollback_no_frame_names_a_forgotten_one(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.append(1, b"")
    mark = log.mark()
    log.append(1, b"")
    log.append(1, b"")
    assert log.rollback(mark) == 80
    log.append(1, b"", 0)
    assert [frame[:4] for frame in scan(kernels.wal, disk.data)[0]] == [(101, 101, 1, 3), (102, 101, 1, 0)]


def test_rollback_refuses_marks_of_another_epoch(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    early = log.mark()
    log.append(1, b"a")
    middle = log.mark()
    log.append(1, b"b" * 100)
    late = log.mark()
    for mark in ((LSN, 0, 56), (LSN, 0, 0), (LSN, 0, -8), (LSN + 3, 0, 112), (LSN + 2, 0, 112), (0, 5, START)):
        with pytest.raises(ValueError):
            log.rollback(mark)
    disk.start(epoch=8, lsn=log.lsn, crc=log.crc)
    for mark in (early, middle):
        with pytest.raises(ValueError):
            log.rollback(mark)
    log.append(1, b"")
    for mark in (early, middle, late):
        with pytest.raises(ValueError):
            log.rollback(mark)


def test_a_mark_from_before_the_start(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal, start=False)).log
    mark = log.mark()
    assert log.rollback(mark) == 0
    disk.on_room = lambda end: disk.start()
    log.hold = log.inner = True
    log.append(1, b"a")
    assert log.rollback(mark) == 0
    assert log.mark() == (LSN, LINK, START)
    log.stop()
    assert log.rollback((LSN + 5, 1, 900)) == 0  # nothing is held, and of what is in the file it knows nothing


def test_after(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.after()
    log.append(1, b"")
    log.after()
    log.threshold = log.position
    log.after()
    assert "settle" not in disk.calls
    log.threshold -= 1
    log.after()
    log.threshold, log.attention = 1 << 40, True
    log.after()
    assert disk.calls.count("settle") == 2
    assert log.attention is True and log.hold is False


# -- writes that fail -------------------------------------------------------------------------------------------------


def test_a_failed_write_does_not_count(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.inner = True
    before = disk.state
    disk.error = OSError(errno.ENOSPC, "full")
    for _ in range(2):
        with pytest.raises(Full):
            log.append(1, b"a")
    assert disk.state == before and disk.calls == [("failed", errno.ENOSPC)] * 2
    disk.error = None
    log.append(1, b"b")
    assert scan(kernels.wal, disk.data)[0] == [(LSN + 1, LSN + 1, 1, 1, 104, 105)]


def test_held_frames_outlive_a_failed_write(kernels: Any) -> None:
    log = (disk := Disk(kernels.wal)).log
    log.hold = True
    log.append(1, b"a")
    before = disk.state
    disk.error = OSError(errno.EIO, "broken")
    kept = []
    for call in (log.flush, lambda: log.append(1, b"lost"), lambda: log.append(1, b"lost" * 5000)):
        with pytest.raises(Full) as caught:
            call()
        kept.append(caught)  # its traceback holds what write() was given
        assert disk.state == before
        log.hold = False
    log.hold, disk.error = True, None
    log.append(1, b"b" * 9000)
    log.flush()
    assert bytes(disk.data) == chain([b"a", b"b" * 9000])


def test_where_failed_returns_the_error_goes_on(kernels: Any) -> None:
    seen: list[OSError] = []
    error = OSError(errno.EIO, "broken")

    def write(data: Any, offset: int) -> None:
        raise error

    log = kernels.wal.Log(write, print, seen.append, print)
    log.start(SALT, EPOCH, LSN, LINK, 1 << 20)
    with pytest.raises(OSError, match="broken"):
        log.append(1, b"")
    assert seen == [error] and log.lsn == LSN


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), Full()])
def test_other_errors_pass(kernels: Any, error: BaseException) -> None:
    log = (disk := Disk(kernels.wal)).log
    disk.error = error
    with pytest.raises(Full):  # what ``failed`` says; an OSError of it would give way to the first error
        log.append(1, b"")
    # the bytes may be there all the same, so whoever keeps the file is told
    assert disk.calls == [("failed", errno.EINTR)] and disk.state == (LSN, LINK, START, START)
    disk.error = None
    log.append(1, b"ok")
    assert bytes(disk.data) == chain([b"ok"])


def test_failed_may_stop_the_log(kernels: Any) -> None:
    log: Any = None

    def write(data: Any, offset: int) -> None:
        raise OSError(errno.EIO, "broken")

    log = kernels.wal.Log(write, lambda end: None, lambda error: log.stop(), print)
    log.start(SALT, EPOCH, LSN, LINK, 1 << 30)
    log.hold = True
    mark = log.mark()
    log.append(1, bytes(5 << 20))
    with pytest.raises(OSError):
        log.flush()
    assert log.limit == 0 and log.position == log.written == START
    assert log.rollback(mark) == 0
    with pytest.raises(RuntimeError):
        log.append(1, b"")


def test_the_log_is_not_used_while_it_writes(kernels: Any) -> None:
    problems = []
    calls: list[Callable[[], Any]] = []

    def write(data: Any, offset: int) -> None:
        for call in calls:
            with pytest.raises(RuntimeError, match="being written") as caught:
                call()
            problems.append(caught.value)

    log = kernels.wal.Log(write, print, print, print)
    log.start(SALT, EPOCH, LSN, LINK, 1 << 20)
    mark = log.mark()
    calls += [
        lambda: log.append(1, b""),
        log.flush,
        lambda: log.rollback(mark),
        lambda: log.start(SALT, EPOCH, LSN, LINK, 1 << 20),
    ]
    log.append(1, b"")
    assert len(problems) == len(calls) and log.lsn == LSN + 1


def test_what_write_keeps_stays_readable(kernels: Any) -> None:
    kept: list[Any] = []
    log = kernels.wal.Log(lambda data, offset: kept.append(memoryview(data)), print, print, print)
    log.start(SALT, EPOCH, LSN, LINK, 1 << 30)
    log.append(1, b"a" * 100)
    for size in (10_000, 100_000, 5_000_000, 1):
        log.append(1, bytes(size))
    del log
    assert [len(data) for data in kept] == [144, 10_040, 100_040, 5_000_040, 48]
    assert all(data.readonly for data in kept) and sum(map(sum, map(bytes, kept))) > 0


# -- a file descriptor ------------------------------------------------------------------------------------------------

needs_pwrite = pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this system has no pwrite")


@needs_pwrite
def test_with_a_descriptor(kernels: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    payloads = [bytes([size % 251]) * size for size in (0, 1, 60, 5000, 5_000_000)]
    with path.open("w+b", buffering=0) as file:
        file.truncate(1 << 16)

        def write(data: Any, offset: int) -> None:
            assert kernels.name != "c"
            os.pwrite(file.fileno(), data, offset)

        log = kernels.wal.Log(write, print, print, print)
        log.start(SALT, EPOCH, LSN, LINK, 1 << 30, file.fileno())
        for payload in payloads:
            log.append(1, payload)
        log.hold = True
        for payload in payloads:
            log.append(1, payload)
        log.flush()
    assert path.read_bytes() == chain(payloads * 2)


@needs_pwrite
@pytest.mark.skipif("c" not in BACKENDS, reason="only the compiled log writes by itself")
def test_a_descriptor_that_fails(tmp_path: Path) -> None:
    disk = Disk(_ext.backend("c").wal, start=False)
    path = tmp_path / "log"
    path.write_bytes(b"")
    expected = []
    with path.open("rb") as file:
        disk.start(fd=file.fileno())
        with pytest.raises(Full) as caught:
            disk.log.append(1, b"a")
        assert isinstance(caught.value.__cause__, OSError)
        expected.append(("failed", errno.EBADF))
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            disk.start(fd=full.fileno())
            with pytest.raises(Full, match="No space left"):
                disk.log.append(1, b"a")
            expected.append(("failed", errno.ENOSPC))
    assert disk.calls == expected and disk.state == (LSN, LINK, START, START)
    with path.open("r+b") as file:
        disk.start(fd=file.fileno())
        disk.log.append(1, b"a")
    assert path.read_bytes() == chain([b"a"])


@needs_pwrite
@pytest.mark.skipif("c" not in BACKENDS, reason="only the compiled log writes by itself")
def test_a_short_write_goes_on(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    disk = Disk(_ext.backend("c").wal, start=False)
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    with tempfile.TemporaryFile(dir=str(tmp_path)) as file:
        disk.start(fd=file.fileno())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            with pytest.raises(Full):
                disk.log.append(1, bytes(200_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert disk.calls == [("failed", errno.EFBIG)] and disk.state == (LSN, LINK, START, START)
        assert os.fstat(file.fileno()).st_size == 100_000  # the first part was written
        disk.log.append(1, b"small")
        data = os.pread(file.fileno(), 200_000, 0)
    frames, end, _ = scan(_ext.backend("c").wal, data)
    assert len(frames) == 1 and end == START + 48


# -- both implementations give the same -------------------------------------------------------------------------------

payloads = st.one_of(
    st.binary(max_size=30),
    st.integers(0, 20_000).map(lambda size: bytes([size & 255]) * size),
    st.just(bytes(4_500_000)),
)
operations = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 255), payloads, st.sampled_from([-1, -1, -1, 0, 1, 2, 3])),
    st.tuples(st.sampled_from(["hold", "inner", "fail"]), st.booleans()),
    st.tuples(st.sampled_from(["flush", "mark", "stop", "after"])),
    st.tuples(st.just("rollback"), st.integers(0, 5)),
    st.tuples(st.just("start"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["durable_lsn", "threshold"]), st.integers(0, 2**60)),
    st.tuples(st.just("limit"), st.integers(0, 40_000)),
)


def play(wal: Any, script: list[Any]) -> list[Any]:
    """What happens in a script of operations, with all that can be seen after each."""
    disk = Disk(wal)
    disk.on_room = lambda end: setattr(disk.log, "limit", end) if end < 9_000_000 and disk.log.limit else disk.start()
    marks: list[Any] = [disk.log.mark()]
    seen: list[Any] = []
    for name, *arguments in script:
        result: Any = None
        try:
            if name == "mark":
                marks.append(disk.log.mark())
            elif name == "rollback":
                result = disk.log.rollback(marks[-1 - arguments[0] % len(marks)])
            elif name == "start":
                disk.start(epoch=arguments[0], lsn=disk.log.lsn, crc=disk.log.crc)
            elif name == "fail":
                disk.error = OSError(errno.ENOSPC, "full") if arguments[0] else None
            elif name in ("append", "flush", "stop", "after"):
                result = getattr(disk.log, name)(*arguments)
            else:
                setattr(disk.log, name, arguments[0])
        except (ValueError, RuntimeError, Full) as error:
            result = (type(error), str(error))
        seen.append((name, result, disk.state, disk.log.limit, disk.log.inner, disk.log.hold, len(disk.calls)))
    return [*seen, disk.calls, bytes(disk.data), scan(wal, disk.data)]


@pytest.mark.skipif(len(BACKENDS) < 2, reason="needs the compiled kernels")
@given(st.lists(operations, max_size=30))
def test_logs_are_the_same(script: list[Any]) -> None:
    one, two = (play(_ext.backend(name).wal, script) for name in BACKENDS)
    assert one == two


def test_a_write_cut_by_an_interrupt_is_a_failed_write(kernels: _ext.Backend) -> None:
    """The bytes may be in the file: whoever keeps it is told, and the frame does not count."""
    told: list[OSError] = []

    def write(data: Any, offset: int) -> None:
        if log.lsn:
            raise KeyboardInterrupt

    def failed(error: OSError) -> None:
        told.append(error)
        raise OSError(error.errno, "nothing is kept")

    log = kernels.wal.Log(write, lambda end: None, failed, lambda: None)
    log.start(bytes(16), 1, 0, 0, 1 << 20)
    log.append(1, b"whole")
    mark = log.mark()
    with pytest.raises(KeyboardInterrupt):
        log.append(1, b"cut")
    assert log.mark() == mark and log.written == mark[2]
    assert [type(error) for error in told] == [InterruptedError]
