"""The row store's kernels for a table in a file: inserts that are logged, and tables that absorb others."""

from __future__ import annotations

import os
import struct
import threading
from typing import Any, Callable, Optional

import pytest
from test_slab import MIXED, PLAIN, plain_row
from test_slab_file import contents, images, make, mixed_row, stored

from snapdb import _ext
from snapdb._ext import _common as c

SALT = bytes(range(16))


# -- the log -------------------------------------------------------------------


class File:
    """A log's file in memory, with what an engine's store does for it."""

    def __init__(self, kernels: Any) -> None:
        self.data = bytearray(64)
        self.calls: list[str] = []
        self.log = kernels.wal.Log(self.write, self.room, self.failed, self.settle)
        self.during: Optional[Callable[[], Any]] = None
        self.fd = -1

    def write(self, data: Any, offset: int) -> None:
        self.calls.append("write")
        if self.during is not None:
            self.during()
        self.data[offset : offset + len(data)] = data

    def room(self, end: int) -> None:
        self.calls.append("room")
        if self.log.limit == 0:
            self.log.start(SALT, 1, 0, 0, 1 << 20, self.fd)
        else:
            self.log.limit *= 2

    def failed(self, error: OSError) -> None:
        self.calls.append("failed")
        raise KeyError("failed") from error

    def settle(self) -> None:
        self.calls.append("settle")
        if self.during is not None:
            self.during()

    def frames(self, kernels: Any, codec: Any) -> list[tuple[int, Any]]:
        data = bytes(self.data)
        found, _, _ = kernels.wal.scan(data, SALT, 1, 0, 0)
        assert all((kind, flags) == (kernels.wal.ROW, 3) for _, _, kind, flags, _, _ in found)
        rows = [data[low:high] for _, _, _, _, low, high in found]
        return [(struct.unpack_from("<Q", row)[0], codec.unpack(row[8:])) for row in rows]


def test_inserts_are_logged(kernels: Any) -> None:
    made, file = make(kernels, MIXED), File(kernels)
    made.table.insert(mixed_row(0))
    made.table.attach(file.log)
    with pytest.raises(ValueError, match="bad value"):
        made.table.insert({**mixed_row(1), "a": "nonsense"})
    assert file.calls == []
    rows = [made.table.insert(mixed_row(1)), made.table.append(mixed_row(2))]
    assert rows == [1, 2]
    made.table.append_values(made.codec.encode(mixed_row(3)))
    made.table.extend(made.codec.encode_rows([mixed_row(4)]))
    made.table.update(1, {"a": 5})
    made.table.delete(0)
    assert file.calls == ["room", "write", "write"]
    assert file.frames(kernels, made.codec) == [(i, made.codec.encode(mixed_row(i))) for i in (1, 2)]
    made.table.attach(None)
    assert made.table.insert(mixed_row(9)) == 5
    assert len(file.frames(kernels, made.codec)) == 2
    assert made.slowly == []


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the log's own pwrite is for POSIX")
def test_inserts_are_logged_to_a_descriptor(kernels: Any, tmp_path: Any) -> None:
    made, file = make(kernels, MIXED, 200), File(kernels)
    file.fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    try:
        made.table.attach(file.log)
        assert [made.table.insert(mixed_row(i)) for i in range(300)] == list(range(300))
        compiled = kernels.name == "c"
        assert file.calls.count("write") == (0 if compiled else 300)
        if compiled:
            file.data = bytearray(os.pread(file.fd, 1 << 20, 0))
        assert file.frames(kernels, made.codec) == [(i, made.codec.encode(mixed_row(i))) for i in range(300)]
        assert all(made.table.get(i) == mixed_row(i) for i in range(300))
    finally:
        os.close(file.fd)


def test_the_log_is_the_same_everywhere() -> None:
    written = set()
    for name in _ext.available():
        kernels = _ext.backend(name)
        made, file = make(kernels, MIXED, 300), File(kernels)
        made.table.attach(file.log)
        for i in range(50):
            made.table.insert(mixed_row(i))
        written.add(bytes(file.data))
    assert len(written) == 1


def test_a_log_that_fails(kernels: Any) -> None:
    """A frame that could not be written is no row, and the next one takes its place."""
    made, file = make(kernels, MIXED, 200), File(kernels)
    made.table.attach(file.log)

    def fail() -> None:
        raise OSError(28, "no space")

    for count in range(4):  # in a fresh slab, and in one that is there
        state = (made.table.rows, made.table.live, made.table.writes, images(made.table))
        file.during = fail
        for write in (made.table.insert, made.table.append):
            with pytest.raises(KeyError, match="failed"):
                write(mixed_row(1))
        assert (made.table.rows, made.table.live, made.table.writes, images(made.table)) == state
        assert made.table.pin().rows == count
        assert not made.table.paused
        file.during = None
        assert made.table.insert(mixed_row(count)) == count
    file.log.limit = file.log.position
    file.log.stop()
    file.room = lambda end: fail()  # type: ignore[method-assign]
    log = kernels.wal.Log(file.write, file.room, file.failed, file.settle)
    made.table.attach(log)
    with pytest.raises(OSError, match="no space"):
        made.table.insert(mixed_row(1))
    assert made.table.rows == 4


def test_a_row_too_long_for_the_log(kernels: Any) -> None:
    columns = [("t", c.BINARY, 0, False)]
    made, file = make(kernels, columns), File(kernels)
    made.table.attach(file.log)
    with pytest.raises(ValueError, match="16777216"):
        made.table.insert({"t": bytes(1 << 24)})
    assert (made.table.rows, made.table.live) == (0, 0)


def test_settling_comes_after_the_row(kernels: Any) -> None:
    made, file = make(kernels, MIXED), File(kernels)
    made.table.attach(file.log)
    file.log.attention = True
    assert made.table.insert(mixed_row(0)) == 0
    assert file.calls == ["room", "write", "settle"]

    def fail() -> None:
        if file.calls[-1] == "settle":
            raise OSError("not on stable storage")

    file.during = fail
    for write in (made.table.insert, made.table.append):
        with pytest.raises(OSError, match="stable"):
            write(mixed_row(1))
    assert made.table.rows == 3
    assert made.table.get(2) == mixed_row(1)


def test_a_write_from_the_log_itself(kernels: Any) -> None:
    """What the log calls while it writes may read the table, and not write to it."""
    made, file = make(kernels, MIXED), File(kernels)
    made.table.insert(mixed_row(0))
    made.table.attach(file.log)
    other = make(kernels, MIXED).table
    calls = [
        lambda: made.table.insert(mixed_row(1)),
        lambda: made.table.append(mixed_row(1)),
        lambda: made.table.append_values(made.codec.encode(mixed_row(1))),
        lambda: made.table.extend(made.codec.encode_rows([mixed_row(1)])),
        lambda: made.table.update(0, {"e": "x"}),
        lambda: made.table.put(0, [(0, 1)]),
        lambda: made.table.delete(0),
        lambda: made.table.truncate(0),
        lambda: made.table.skip(1),
        lambda: made.table.take_over(other),
        lambda: made.table.absorb(other),
        lambda: other.take_over(made.table),
    ]
    said: list[str] = []

    def during() -> None:
        for call in calls:
            with pytest.raises(RuntimeError) as caught:
                call()
            said.append(str(caught.value))
        assert made.table.get(0) == mixed_row(0)
        assert made.table.pin().live == 1

    file.during = during
    assert made.table.insert(mixed_row(5)) == 1
    assert len(said) == len(calls)
    file.during = None
    assert made.table.insert(mixed_row(6)) == 2
    assert [made.table.get(i) for i in range(3)] == [mixed_row(i) for i in (0, 5, 6)]


def test_a_write_of_several_steps_comes_first(kernels: Any) -> None:
    """An insert that meets a pause that began while the log made room goes to ``slow``."""
    made, file = make(kernels, MIXED), File(kernels)
    made.table.attach(file.log)
    made.table.paused = True
    assert made.table.insert(mixed_row(0)) == 0
    assert made.slowly == ["insert"]
    made.table.paused = False
    assert made.table.insert(mixed_row(1)) == 1
    plain = file.room

    def room(end: int) -> None:
        made.table.paused = True
        plain(end)

    log = kernels.wal.Log(file.write, room, file.failed, file.settle)
    file.log = log
    made.table.attach(log)
    assert made.table.insert(mixed_row(2)) == 2
    assert made.table.live == 3
    assert [idx for idx, _ in file.frames(kernels, made.codec)] == [2]


def test_many_threads_and_a_log_in_python(kernels: Any) -> None:
    made, file = make(kernels, MIXED, 300), File(kernels)
    made.table.attach(file.log)
    plain = file.write

    def write(data: Any, offset: int) -> None:
        threading.Event().wait(0.0001)
        plain(data, offset)

    file.log = kernels.wal.Log(write, file.room, file.failed, file.settle)
    made.table.attach(file.log)
    inserted: dict[int, int] = {}

    def work(start: int) -> None:
        for i in range(start, start + 60):
            idx = made.table.insert(mixed_row(i))
            inserted[idx] = i
            if i % 3 == 0:
                made.table.update(idx, {"e": f"changed {i}"})
            if i % 5 == 0:
                made.table.delete(idx)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.table.rows == len(inserted) == 240
    assert [idx for idx, _ in file.frames(kernels, made.codec)] == list(range(240))
    for idx, i in inserted.items():
        expected = {**mixed_row(i), **({"e": f"changed {i}"} if i % 3 == 0 else {})}
        assert made.table.get(idx) == (None if i % 5 == 0 else expected)


def test_a_log_with_missing_groups(kernels: Any) -> None:
    file, log = stored(kernels), File(kernels)
    file.table.attach(log.log)
    assert file.table.insert(mixed_row(4000)) == 4000
    assert file.asked == [len(file.images) - 1]
    assert [idx for idx, _ in log.frames(kernels, file.made.codec)] == [4000]
    assert [file.table.get(i) for i in (3999, 4000)] == [mixed_row(3999), mixed_row(4000)]


# -- absorb ----------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [100, 500, 3000])
@pytest.mark.parametrize(("rows", "more"), [(0, 50), (37, 0), (37, 1), (37, 400), (40, 400), (1, 3)])
def test_absorb_is_extend(kernels: Any, page_size: int, rows: int, more: int) -> None:
    made, same, other = (make(kernels, MIXED, page_size) for _ in range(3))
    for table in (made.table, same.table):
        table.extend(made.codec.encode_rows([mixed_row(i) for i in range(rows)]))
        for idx in range(0, rows, 3):
            table.remove(idx)
    batch = made.codec.encode_rows([mixed_row(i) for i in range(rows, rows + more)])
    same.table.extend(batch)
    other.table.skip(rows)
    other.table.extend(batch)
    writes = made.table.writes
    made.table.absorb(other.table)
    assert made.table.writes > writes
    assert (other.table.rows, other.table.live) == (0, 0)
    assert contents(made.table) == contents(same.table)
    assert images(made.table) == images(same.table)
    assert other.table.get(rows) is None
    for table in (made.table, same.table):
        for i in range(5):
            table.insert(mixed_row(i))
        for idx in range(1, table.rows, 2):
            if table.contains(idx):
                table.update(idx, {"e": "changed " * 9})
    assert images(made.table) == images(same.table)
    other.table.insert(mixed_row(0))
    assert other.table.get(0) == mixed_row(0)


def test_absorb_under_a_view(kernels: Any) -> None:
    made, other = make(kernels, MIXED, 500), make(kernels, MIXED, 500)
    for i in range(30):
        made.table.insert(mixed_row(i))
    view = made.table.pin()
    raw = made.table.get_raw(29)
    before = bytes(raw)
    other.table.skip(30)
    other.table.extend(made.codec.encode_rows([mixed_row(i) for i in range(30, 200)]))
    made.table.absorb(other.table)
    assert view.rows == 30
    assert list(view.items()) == [(i, mixed_row(i)) for i in range(30)]
    for idx in range(200):
        if idx % 3:
            made.table.update(idx, {"e": "changed"})
        else:
            made.table.delete(idx)
    assert list(view.items()) == [(i, mixed_row(i)) for i in range(30)]
    assert bytes(raw) == before
    later = made.table.pin()
    made.table.update(100, {"e": "later"})
    assert dict(later.items())[100] == {**mixed_row(100), "e": "changed"}
    view.release()
    later.release()
    assert made.table.live == len(range(200)) - len(range(0, 200, 3))


def test_absorb_refuses(kernels: Any) -> None:
    made = make(kernels, MIXED, 500)
    for i in range(10):
        made.table.insert(mixed_row(i))
    before = contents(made.table)

    def other(skip: int, page_size: int = 500, columns: Any = MIXED) -> Any:
        found = make(kernels, columns, page_size)
        found.table.skip(skip)
        row = mixed_row if columns == MIXED else plain_row
        found.table.extend(found.codec.encode_rows([row(i) for i in range(20)]))
        return found.table

    viewed = other(10)
    view = viewed.pin()
    asking = make(kernels, MIXED, 500).table
    asking.adopt(10, 0, bytearray(8), pytest.fail)
    for bad in (made.table, other(10, 400), other(10, 500, PLAIN), other(9), other(0), viewed, asking):
        rows = bad.rows
        with pytest.raises(ValueError, match="absorb needs"):
            made.table.absorb(bad)
        assert bad.rows == rows
    small = make(kernels, MIXED, 500).table
    small.skip(9)
    with pytest.raises(ValueError, match="begin at 10"):
        made.table.absorb(small)
    with pytest.raises((TypeError, AttributeError)):
        made.table.absorb(None)
    assert contents(made.table) == before
    view.release()
    made.table.absorb(viewed)
    assert (made.table.rows, made.table.live) == (30, 30)


def test_a_load_under_a_view(kernels: Any) -> None:
    """A view that was there before a group came reads what it read, or the rows that were there all along."""
    file = stored(kernels)
    file.table.get(0)
    view = file.table.pin()
    file.table.update(1, {"e": "changed"})
    file.table.get(file.span)
    file.table.update(file.span + 1, {"e": "changed"})
    seen = dict(view.items())
    assert [seen[i] for i in range(file.span)] == [mixed_row(i) for i in range(file.span)]
    assert seen.get(file.span + 1, mixed_row(file.span + 1)) == mixed_row(file.span + 1)
    assert file.table.get(1)["e"] == file.table.get(file.span + 1)["e"] == "changed"


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the log's own pwrite is for POSIX")
def test_many_threads_and_a_log_that_makes_room(kernels: Any, tmp_path: Any) -> None:
    """Room is made by one thread at a time, and nobody uses it up before that one does."""
    made, file = make(kernels, MIXED, 300), File(kernels)
    file.fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    inside: list[int] = []

    def room(end: int) -> None:
        assert inside == []
        inside.append(end)
        threading.Event().wait(0.001)
        if file.log.limit == 0:
            file.log.start(SALT, 1, 0, 0, 1024, file.fd)
        else:
            file.log.limit = max(file.log.limit, end) + 1024
        inside.clear()

    file.log = kernels.wal.Log(file.write, room, file.failed, file.settle)
    made.table.attach(file.log)
    problems: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for i in range(start, start + 100):
                made.table.insert(mixed_row(i))
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if kernels.name == "c":
        file.data = bytearray(os.pread(file.fd, 1 << 20, 0))
    os.close(file.fd)
    assert problems == []
    frames = file.frames(kernels, made.codec)
    assert [idx for idx, _ in frames] == list(range(400))
    assert [values for _, values in frames] == [made.codec.encode(made.table.get(idx)) for idx in range(400)]
