"""Single-row access: every backend, and the twins against each other."""

from __future__ import annotations

import datetime as dt
import os
import struct
import threading
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_frames import EPOCH, LINK, LSN, SALT, scan

from snapdb import _ext
from snapdb._ext import _common as c

COLUMNS = [
    ("id", c.I32, 0, False),
    ("s", c.BYTES, 8, True),
    ("x", c.F64, 0, True),
    ("ok", c.BOOL, 0, True),
    ("d", c.DATE, 0, True),
]
BLOCK = c.BLOCK


def coerce(column: int, value: Any, position: int) -> Any:
    if value is None and COLUMNS[column][3]:
        return None
    if column == 0 and hasattr(value, "__index__") and abs(value.__index__()) < 2**31:
        return value.__index__()
    raise ValueError((column, position))


def refuse(row: Any, position: int, partial: bool) -> None:
    raise KeyError((position, partial))


class Table:
    """The lists of an engine around one port."""

    def __init__(self, kernels: Any, tail: bool = True) -> None:
        self.kernels = kernels
        self.codec = kernels.values.RowCodec(COLUMNS, coerce, refuse)
        self.parts: list[list[Any]] = [[] for _ in COLUMNS]
        self.overlays: list[dict[int, dict[int, Any]]] = [{} for _ in COLUMNS]
        self.deleted: list[Any] = []
        self.slow: list[Any] = []
        self.full: list[int] = []
        self.port = kernels.tail.RowPort(
            self.codec, self.parts, self.overlays, self.deleted, threading.Lock(), self.wait, self.fold
        )
        if tail:
            self.open()

    def open(self) -> None:
        """A new open segment."""
        for segments, spec in zip(self.parts, COLUMNS):
            segments.append((None, self.kernels.values.ColumnBuffer(spec[1])))
        self.deleted.append(None)

    def wait(self, row: Any) -> int:
        self.slow.append(row)
        return -7

    def fold(self) -> None:
        """Seal the whole blocks of the tail, as an engine does."""
        self.full.append(self.port.rows)
        for segments, spec in zip(self.parts, COLUMNS):
            chunk, tail = segments[-1]
            assert chunk is None
            blocks = tail.rows // BLOCK * BLOCK
            if blocks:
                rest = self.kernels.values.ColumnBuffer(spec[1])
                rest.extend(tail, blocks, tail.rows)
                segments[-1] = (self.kernels.codecs.encode(tail, 0, blocks)[0], rest)


def row_of(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "s": None if i % 7 == 3 else ("ok", "warn", "grüß")[i % 3],
        "x": None if i % 5 == 2 else i / 4,
        "ok": i % 2 == 0,
        "d": dt.date(2024, 1, 1) + dt.timedelta(days=i % 400),
    }


def test_insert_and_get(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    assert (port.rows, port.limit, port.paused) == (0, c.TAIL, False)
    rows = [row_of(i) for i in range(100)]
    assert [port.insert(row) for row in rows] == list(range(100))
    assert port.rows == 100 and [port.get(i) for i in range(100)] == rows
    assert list(port.get(5)) == [spec[0] for spec in COLUMNS]
    got = port.get(5)
    got["id"] = got["new"] = 99
    assert port.get(5) == rows[5]
    for idx in (-1, 100, 2**16, 2**31, 2**63, 2**64, -(2**70)):
        assert port.get(idx) is None and port.contains(idx) is False
    assert all(port.contains(i) is True for i in range(100))


def test_an_id_is_an_integer(kernels: Any) -> None:
    class Index:
        def __index__(self) -> int:
            return 1

    table = Table(kernels)
    table.port.insert(row_of(0))
    table.port.insert(row_of(1))
    assert table.port.get(Index()) == table.port.get(True) == row_of(1)  # type: ignore[arg-type]
    assert table.port.contains(Index()) is True
    for idx in (1.0, "1", None, [1]):
        for call in (table.port.get, table.port.contains):
            with pytest.raises(TypeError):
                call(idx)


def test_a_bad_row_leaves_no_trace(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    port.insert(row_of(0))
    for row, kind in (
        (5, KeyError),
        ({"id": 1, "y": 2}, KeyError),
        ({"s": "x"}, KeyError),
        ({"id": 1, "d": "x"}, ValueError),
        ({"id": 2**31}, ValueError),
    ):
        for call in (port.insert, port.append):
            with pytest.raises(kind):
                call(row)
    for values in ([1], [1] * 6):
        with pytest.raises(ValueError):
            port.append_values(values)
    assert port.rows == 1 and {segments[0][1].rows for segments in table.parts} == {1}


def test_missing_nullable_columns_are_null(kernels: Any) -> None:
    port = Table(kernels).port
    assert port.insert({"id": 4}) == 0
    assert port.get(0) == {"id": 4, "s": None, "x": None, "ok": None, "d": None}
    assert port.append_values(iter([5, b"\xff", 0.5, 1, 3])) == 1
    assert port.get(1) == {"id": 5, "s": b"\xff", "x": 0.5, "ok": True, "d": dt.date(1970, 1, 4)}


def test_paused(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    port.paused = True
    assert port.insert(row_of(1)) == -7 and table.slow == [row_of(1)] and port.rows == 0
    with pytest.raises(KeyError):
        port.insert({})
    assert len(table.slow) == 1
    assert port.append(row_of(1)) == 0 and port.append_values([1, None, None, None, None]) == 1
    port.paused = False
    assert port.insert(row_of(2)) == 2


def test_pausing_while_a_row_is_read(kernels: Any) -> None:
    table = Table(kernels)

    class Pauses:
        def __index__(self) -> int:
            table.port.paused = True
            return 3

    assert table.port.insert({"id": Pauses()}) == -7 and table.port.rows == 0


def test_on_full_and_sealed_rows(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    port.limit = 1500
    rows = [row_of(i) for i in range(1800)]
    for row in rows[:1500]:
        port.insert(row)
    assert table.full == [1500]
    for row in rows[1500:]:
        port.insert(row)
    assert table.full == [1500]  # the tail starts again at 476 rows
    assert table.parts[0][0][0].rows == BLOCK and table.parts[0][0][1].rows == 776
    assert [port.get(i) for i in range(1801)] == [*rows, None]
    assert port.contains(1023) and port.contains(1024) and not port.contains(1800)


def test_an_error_in_on_full_comes_after_the_row(kernels: Any) -> None:
    table = Table(kernels)

    def fail() -> None:
        raise ArithmeticError

    port = kernels.tail.RowPort(
        table.codec, table.parts, table.overlays, table.deleted, threading.Lock(), table.wait, fail
    )
    port.limit = 2
    port.insert(row_of(0))
    with pytest.raises(ArithmeticError):
        port.insert(row_of(1))
    assert port.rows == 2 and port.get(1) == row_of(1)


@pytest.mark.parametrize("kind", [bytearray, bytes, memoryview])
def test_deleted_and_overlaid(kernels: Any, kind: Any) -> None:
    table = Table(kernels)
    port = table.port
    for i in range(20):
        port.insert(row_of(i))
    bits = bytearray(c.mask_bytes(20))
    bits[0] |= 1 << 3
    bits[2] |= 1 << 1
    table.deleted[0] = kind(bits)
    table.overlays[1][0] = {5: b"new", 6: None}
    table.overlays[3][0] = {5: 1}
    table.overlays[4][0] = {5: 0}
    assert [i for i in range(20) if port.get(i) is None] == [3, 17]
    assert [i for i in range(20) if not port.contains(i)] == [3, 17]
    assert port.get(5) == {**row_of(5), "s": "new", "ok": True, "d": dt.date(1970, 1, 1)}
    assert port.get(6) == {**row_of(6), "s": None}
    assert port.get(7) == row_of(7)
    table.deleted[0] = kind(b"\x08")  # a short bitmap says nothing of the rows behind it
    assert port.get(17) == row_of(17) and port.get(3) is None


def test_amend(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    for i in range(10):
        port.insert(row_of(i))
    table.deleted[0] = bytearray(b"\x08")
    port.amend(5, iter([(1, b"new"), (3, None)]))
    port.amend(5, [(1, b"newer")])
    port.amend(0, [])
    assert port.get(5) == {**row_of(5), "s": "newer", "ok": None} and port.get(0) == row_of(0)
    assert table.overlays == [{}, {0: {5: b"newer"}}, {}, {0: {5: None}}, {}]
    for idx in (3, -1, 10, 2**70):
        with pytest.raises(KeyError) as caught:
            port.amend(idx, [(0, 1)])
        assert caught.value.args == (idx,)
    for column in (-1, 5):
        with pytest.raises(IndexError):
            port.amend(4, [(0, 1), (column, 1)])
    with pytest.raises(TypeError):
        port.amend(1.0, [(0, 1)])
    assert port.get(4) == row_of(4) and table.overlays[0] == {}


def test_segments(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    for i in range(3):
        port.insert(row_of(i))
    port.rows = c.SEGMENT  # as if segment 0 were full
    table.open()
    assert port.insert(row_of(9)) == c.SEGMENT
    assert port.get(c.SEGMENT) == row_of(9) and port.get(c.SEGMENT - 1) is None and not port.contains(c.SEGMENT - 1)
    for segments in table.parts:
        segments[0] = None
    assert port.get(0) is None and not port.contains(0) and port.get(c.SEGMENT) == row_of(9)
    port.rows = 5 * c.SEGMENT
    assert port.get(3 * c.SEGMENT) is None and not port.contains(3 * c.SEGMENT)


def test_no_tail_to_append_to(kernels: Any) -> None:
    table = Table(kernels, tail=False)
    for _ in range(2):
        for call, value in ((table.port.insert, row_of(0)), (table.port.append_values, [1, None, None, None, None])):
            with pytest.raises(RuntimeError):
                call(value)
        for segments in table.parts:
            segments.append((None, None))
    assert table.port.rows == 0
    with pytest.raises(ValueError):
        kernels.tail.RowPort(table.codec, [], [], [], threading.Lock(), table.wait, table.fold)


def test_a_view_of_the_tail_does_not_change(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    held = []
    for i in range(200):
        port.insert(row_of(i))
        held.append([(segments[0][1].data, segments[0][1].offsets) for segments in table.parts])
    for i, views in enumerate(held):
        assert views[0][0].tolist() == list(range(i + 1)) and len(views[1][1]) == i + 2


def test_many_threads(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    port.limit = 10**9
    ids: list[list[int]] = [[] for _ in range(4)]

    def work(mine: list[int]) -> None:
        for _ in range(500):
            mine.append(port.insert({"id": threading.get_ident() % 1000, "s": "a"}))
            assert port.get(mine[-1]) is not None

    threads = [threading.Thread(target=work, args=(mine,)) for mine in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(i for mine in ids for i in mine) == list(range(2000))
    assert {segments[0][1].rows for segments in table.parts} == {2000}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["insert", "append", "delete", "update", "null"]), st.integers(-3, 40)),
        min_size=5,
        max_size=60,
    )
)
def test_the_twins_agree_with_a_model(steps: list[tuple[str, int]]) -> None:
    for name in _ext.available():
        table = Table(_ext.backend(name))
        model: list[Optional[dict[str, Any]]] = []
        bits = table.deleted[0] = bytearray(64)
        for step, i in steps:
            if step in ("insert", "append"):
                assert getattr(table.port, step)(row_of(i + 3)) == len(model)
                model.append(row_of(i + 3))
            elif 0 <= i < len(model) and model[i] is not None:
                if step == "delete":
                    bits[i >> 3] |= 1 << (i & 7)
                    model[i] = None
                else:
                    table.overlays[1].setdefault(0, {})[i] = b"u" if step == "update" else None
                    model[i] = {**model[i], "s": "u" if step == "update" else None}  # type: ignore[dict-item]
        for i in range(-2, len(model) + 2):
            wanted = model[i] if 0 <= i < len(model) else None
            assert table.port.get(i) == wanted and table.port.contains(i) == (wanted is not None)


# -- a log -----------------------------------------------------------------


class Lost(Exception):
    """What ``failed`` raises here."""


class Disk:
    """A log over memory, or over a descriptor that the compiled log writes to itself; ``hooks`` are run by name."""

    def __init__(self, kernels: Any, path: Optional[Path] = None) -> None:
        self.wal = kernels.wal
        self.memory = bytearray()
        self.fd = -1 if path is None else os.open(path, os.O_RDWR | os.O_CREAT)
        self.calls: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.log = kernels.wal.Log(self.write, self.room, self.failed, self.settle)
        self.log.attention = True

    def call(self, name: str) -> None:
        self.calls.append(name)
        self.hooks.get(name, lambda: None)()

    def write(self, data: Any, offset: int) -> None:
        self.call("write")
        if self.fd >= 0:
            os.pwrite(self.fd, data, offset)
        self.memory[len(self.memory) :] = bytes(max(0, offset - len(self.memory)))
        self.memory[offset : offset + len(data)] = data

    def room(self, end: int) -> None:
        self.call("room")
        if not self.log.limit:
            self.log.start(SALT, EPOCH, LSN, LINK, 1 << 12, self.fd)
        self.log.limit = max(self.log.limit, end + (1 << 12))

    def failed(self, error: OSError) -> None:
        self.call("failed")
        raise Lost from error

    def settle(self) -> None:
        self.call("settle")

    def payloads(self) -> list[tuple[int, bytes]]:
        """(row id, packed row) of every frame."""
        data = bytes(self.memory) if self.fd < 0 else os.pread(self.fd, 1 << 24, 0)
        frames, _end, _crc = scan(self.wal, data or bytes(64))
        assert [frame[2:4] for frame in frames] == [(1, 3)] * len(frames)  # kind ROW, first and last
        return [(struct.unpack_from("<Q", data, start)[0], data[start + 8 : stop]) for *_, start, stop in frames]


def packed(table: Table, rows: list[dict[str, Any]], first: int = 0) -> list[tuple[int, bytes]]:
    codec = table.codec
    return [(first + i, codec.pack(codec.encode(row))) for i, row in enumerate(rows)]


@pytest.fixture(params=["function", "descriptor"])
def disk(request: pytest.FixtureRequest, kernels: Any, tmp_path: Path) -> Any:
    """A log that writes by a Python function, and one that has a file descriptor."""
    if request.param == "descriptor" and not hasattr(os, "pwrite"):
        pytest.skip("no pwrite here")
    made = Disk(kernels, tmp_path / "wal" if request.param == "descriptor" else None)
    yield made
    if made.fd >= 0:
        os.close(made.fd)


def test_inserts_are_logged(kernels: Any, disk: Any) -> None:
    table = Table(kernels)
    port = table.port
    assert port.insert(row_of(0)) == 0
    port.attach(disk.log)
    rows = [row_of(i) for i in range(1, 300)]
    assert [port.insert(row) if i % 3 else port.append(row) for i, row in enumerate(rows)] == list(range(1, 300))
    assert disk.payloads() == packed(table, rows, 1)
    assert disk.calls.count("settle") == 299 and disk.calls[0] == "room" and disk.calls.count("room") > 2
    by_itself = disk.fd >= 0 and kernels.name == "c"
    assert disk.calls.count("write") == (0 if by_itself else 299)
    port.append_values([1, None, None, None, None])
    port.amend(300, [(0, 2)])
    assert len(disk.payloads()) == 299 and disk.calls.count("settle") == 299
    port.attach(None)
    port.insert(row_of(301))
    assert len(disk.payloads()) == 299 and port.rows == 302
    assert [port.get(i) for i in range(1, 300)] == rows
    assert {segments[0][1].rows for segments in table.parts} == {302}
    for other in (5, "log", disk):
        with pytest.raises(TypeError):
            port.attach(other)


def test_a_held_log(kernels: Any, disk: Any) -> None:
    table = Table(kernels)
    table.port.attach(disk.log)
    disk.log.hold = True
    rows = [row_of(i) for i in range(50)]
    for row in rows:
        table.port.insert(row)
    assert disk.payloads() == [] and table.port.rows == 50
    disk.log.flush()
    assert disk.payloads() == packed(table, rows)


def test_a_bad_row_is_not_logged(kernels: Any, disk: Any) -> None:
    table = Table(kernels)
    table.port.attach(disk.log)
    for call in (table.port.insert, table.port.append):
        with pytest.raises(ValueError):
            call({"id": 2**31})
    table.port.paused = True
    assert table.port.insert(row_of(1)) == -7
    assert disk.calls == [] and table.port.rows == 0
    for segments in table.parts:
        segments[-1] = (None, None)
    with pytest.raises(RuntimeError):
        table.port.append(row_of(1))
    assert disk.payloads() == [] and table.port.rows == 0 and disk.log.lsn in (0, LSN)


def test_a_failed_write_inserts_nothing(kernels: Any) -> None:
    disk = Disk(kernels)
    table = Table(kernels)
    port = table.port
    port.attach(disk.log)
    port.insert(row_of(0))

    def fail() -> None:
        raise OSError(28, "full")

    for name, kind in (("write", Lost), ("room", OSError)):
        disk.hooks[name] = fail
        if name == "room":
            disk.log.limit = disk.log.position
        for call in (port.insert, port.append):
            with pytest.raises(kind):
                call(row_of(1))
        del disk.hooks[name]
        assert port.rows == 1 and {segments[0][1].rows for segments in table.parts} == {1}
    assert port.insert(row_of(1)) == 1
    assert disk.payloads() == packed(table, [row_of(0), row_of(1)])


def test_a_failed_write_to_a_descriptor(kernels: Any, tmp_path: Path) -> None:
    disk = Disk(kernels, tmp_path / "wal")
    table = Table(kernels)
    table.port.attach(disk.log)
    table.port.insert(row_of(0))
    os.close(disk.fd)
    with pytest.raises(Lost):
        table.port.insert(row_of(1))
    assert table.port.rows == 1 and table.port.get(1) is None and disk.calls[-1] == "failed"


def test_a_failed_settling_comes_after_the_row(kernels: Any, disk: Any) -> None:
    table = Table(kernels)
    table.port.attach(disk.log)

    def fail() -> None:
        assert table.port.get(table.port.rows - 1) == row_of(1)  # it is in, and the lock is free
        raise Lost

    disk.hooks["settle"] = fail
    for call in (table.port.insert, table.port.append):
        with pytest.raises(Lost):
            call(row_of(1))
    assert table.port.rows == 2 and disk.payloads() == packed(table, [row_of(1)] * 2)


def test_settling_comes_after_folding(kernels: Any, disk: Any) -> None:
    table = Table(kernels)

    def full() -> None:
        disk.call("full")
        raise ArithmeticError

    port = kernels.tail.RowPort(
        table.codec, table.parts, table.overlays, table.deleted, threading.RLock(), table.wait, full
    )
    port.attach(disk.log)
    port.limit = 2
    port.insert(row_of(0))
    with pytest.raises(ArithmeticError):
        port.insert(row_of(1))
    assert disk.calls[-2:] == ["full", "settle"]
    assert port.insert(row_of(2)) == -7 and len(disk.payloads()) == 2


def test_writing_from_within_a_write(kernels: Any) -> None:
    disk, table = Disk(kernels), Table(kernels)
    port = kernels.tail.RowPort(
        table.codec, table.parts, table.overlays, table.deleted, threading.RLock(), table.wait, table.fold
    )
    port.attach(disk.log)

    def again() -> None:
        for call, value in ((port.insert, row_of(5)), (port.append, row_of(5)), (port.append_values, [1] + [None] * 4)):
            with pytest.raises(RuntimeError):
                call(value)
        assert port.get(port.rows) is None and port.get(0) == (row_of(0) if port.rows else None)

    disk.hooks["write"] = again
    assert [port.insert(row_of(i)) for i in range(3)] == [0, 1, 2]
    assert disk.payloads() == packed(table, [row_of(i) for i in range(3)])


def test_what_changes_while_room_is_made(disk: Any) -> None:
    if "c" not in _ext.available() or type(disk.log).__module__.endswith("_py"):
        pytest.skip("the twin holds its lock meanwhile")
    kernels = _ext.backend("c")
    table = Table(kernels)
    table.port.attach(disk.log)
    disk.hooks["room"] = lambda: setattr(table.port, "paused", True)
    assert table.port.insert(row_of(0)) == -7 and disk.payloads() == [] and table.port.rows == 0
    table.port.paused = False
    disk.hooks["room"] = lambda: table.port.attach(None)
    disk.log.limit = disk.log.position
    assert table.port.insert(row_of(0)) == 0 and disk.payloads() == []


def test_others_wait_while_room_is_made(kernels: Any, disk: Any) -> None:
    """The log calls Python code then, with a file descriptor too: the caller holds the lock."""
    table = Table(kernels)
    lock = threading.RLock()
    port = kernels.tail.RowPort(table.codec, table.parts, table.overlays, table.deleted, lock, table.wait, table.fold)
    port.attach(disk.log)
    held: list[bool] = []

    def others() -> None:
        held.append(not lock.acquire(blocking=False))
        if not held[-1]:
            lock.release()

    def looks() -> None:
        thread = threading.Thread(target=others)
        thread.start()
        thread.join()

    disk.hooks["room"] = looks
    assert [port.insert(row_of(i)) if i % 2 else port.append(row_of(i)) for i in range(300)] == list(range(300))
    assert len(held) > 2 and all(held) and not port.paused
    assert disk.payloads() == packed(table, [row_of(i) for i in range(300)])


class Full(dict[int, Any]):
    """An overlay that nothing new goes into."""

    def __setitem__(self, key: int, value: Any) -> None:
        raise MemoryError


def test_an_update_of_several_columns_is_whole_or_not_there() -> None:
    kernels = _ext.backend("python")  # the compiled one asks no subclass; test_signals takes its memory away
    table = Table(kernels)
    for i in range(3):
        table.port.insert(row_of(i))
    table.port.amend(1, [(0, 70)])
    table.overlays[1][0] = Full()
    before = [table.port.get(i) for i in range(3)]
    for row in (1, 2):
        with pytest.raises(MemoryError):
            table.port.amend(row, [(0, 71), (1, None)])
    assert [table.port.get(i) for i in range(3)] == before


def test_threads_and_a_log(kernels: Any, disk: Any) -> None:
    table = Table(kernels)
    table.port.attach(disk.log)
    table.port.limit = 10**9
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(200):
                idx = table.port.insert({"id": seed * 1000 + i, "s": "x" * (i % 8)})
                assert table.port.get(idx)["id"] == seed * 1000 + i
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and table.port.rows == 800
    frames = disk.payloads()
    assert [idx for idx, _ in frames] == list(range(800))
    assert [table.codec.decode(table.codec.unpack(data)) for _, data in frames] == list(map(table.port.get, range(800)))


# -- segments that are not read yet ----------------------------------------


class Later:
    """A part of a file that is not read yet; what ``resolve()`` does to the table is given."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.calls = 0

    def resolve(self) -> None:
        self.calls += 1
        self.run()


def unread(table: Table, k: int = 0, deleted: Optional[bytearray] = None, overlay: Any = None) -> list[Later]:
    """Make segment k of every column unread; reading column 0 brings the deleted rows, each column its overlay."""
    made = []

    def reader(j: int, part: Any) -> Callable[[], None]:
        def run() -> None:
            table.parts[j][k] = part
            if j == 0:
                table.deleted[k] = deleted
            if overlay and j in overlay:
                table.overlays[j][k] = dict(overlay[j])

        return run

    for j, segments in enumerate(table.parts):
        made.append(Later(reader(j, segments[k])))
        segments[k] = made[-1]
    return made


def test_rows_that_are_not_read_yet(kernels: Any) -> None:
    for first in ("get", "contains", "amend", "insert", "append", "append_values"):
        table = Table(kernels)
        port = table.port
        for i in range(20):
            port.insert(row_of(i))
        later = unread(table, 0, bytearray(b"\x08"), {1: {5: b"new"}})
        if first == "get":
            assert port.get(20) is None and port.get(-1) is None and not later[0].calls
            assert port.get(3) is None and later[0].calls == 1 and later[1].calls == 0  # the deleted rows came first
            assert port.get(5) == {**row_of(5), "s": "new"}
        elif first == "contains":
            assert not port.contains(20) and not later[0].calls
            assert port.contains(5) and not port.contains(3) and [one.calls for one in later] == [1, 0, 0, 0, 0]
        elif first == "amend":
            with pytest.raises(KeyError):
                port.amend(3, [(1, b"x")])
            with pytest.raises(IndexError):
                port.amend(4, [(9, b"x")])
            port.amend(6, [(1, b"x"), (3, None)])
            assert [one.calls for one in later] == [1, 1, 0, 1, 0]
            assert table.overlays[1] == {0: {5: b"new", 6: b"x"}} and table.overlays[3] == {0: {6: None}}
        elif first == "append_values":
            assert port.append_values([9, None, None, None, None]) == 20
        else:
            assert getattr(port, first)(row_of(20)) == 20
        assert port.get(7) == row_of(7) and port.get(5) == {**row_of(5), "s": "new"} and port.get(3) is None
        assert [one.calls for one in later] == [1] * 5


def test_a_segment_that_turns_out_empty(kernels: Any) -> None:
    table = Table(kernels)
    table.port.insert(row_of(0))
    table.port.rows = c.SEGMENT
    table.open()
    table.port.insert(row_of(1))
    for segments in table.parts:
        segments[0] = None
    unread(table)
    assert table.port.get(0) is None and not table.port.contains(0)
    with pytest.raises(KeyError):
        table.port.amend(0, [(0, 1)])
    assert table.port.get(c.SEGMENT) == row_of(1)


@pytest.mark.parametrize("column", [0, 2])
def test_a_segment_that_cannot_be_read(kernels: Any, column: int) -> None:
    table = Table(kernels)
    port = table.port
    port.insert(row_of(0))
    kept = table.parts[column][0]

    def damage() -> None:
        raise ArithmeticError

    calls: list[Callable[[], Any]] = [
        lambda: port.get(0),
        lambda: port.amend(0, [(column, None)]),
        lambda: port.insert(row_of(1)),
        lambda: port.append(row_of(1)),
        lambda: port.append_values([1, None, None, None, None]),
    ]
    if column == 0:
        calls.append(lambda: port.contains(0))
    for run, kind in ((damage, ArithmeticError), (lambda: None, RuntimeError)):
        table.parts[column][0] = later = Later(run)
        for call in calls:
            with pytest.raises(kind):
                call()
        assert 0 < later.calls < 10 * len(calls)
    table.parts[column][0] = Later(lambda: table.parts[column].__setitem__(0, kept))
    assert port.get(0) == row_of(0) and port.rows == 1 and table.overlays == [{}] * 5


def test_reading_may_take_more_than_one_step(kernels: Any) -> None:
    table = Table(kernels)
    table.port.insert(row_of(0))
    for segments in table.parts:
        kept = segments[0]
        second = Later(lambda segments=segments, kept=kept: segments.__setitem__(0, kept))  # type: ignore[misc]
        segments[0] = Later(lambda segments=segments, second=second: segments.__setitem__(0, second))  # type: ignore[misc]
    assert table.port.get(0) == row_of(0)


def test_reading_may_change_the_table(kernels: Any) -> None:
    table = Table(kernels)
    port = table.port
    for i in range(10):
        port.insert(row_of(i))
    kept = table.parts[3][0]

    def delete() -> None:
        table.parts[3][0] = kept
        table.deleted[0] = bytearray(b"\x20")

    table.parts[3][0] = Later(delete)
    assert port.get(5) is None and port.get(6) == row_of(6)

    def shrink() -> None:
        port.rows = 2
        table.deleted[0] = None
        for segments in table.parts:
            segments.clear()

    for column in (0, 4):
        table = Table(kernels)
        port = table.port
        port.insert(row_of(0))
        port.rows = 10
        table.parts[column][0] = Later(shrink)
        assert port.get(0 if column else 9) is None and not port.contains(0)
        with pytest.raises(KeyError):
            port.amend(0, [(column, 1)])
        with pytest.raises(RuntimeError):
            port.insert(row_of(1))


def test_pausing_while_the_open_segment_is_read(kernels: Any) -> None:
    table = Table(kernels)
    later = unread(table)
    run = later[2].run

    def pause() -> None:
        run()
        table.port.paused = True

    later[2].run = pause
    assert table.port.insert(row_of(0)) == -7 and table.port.rows == 0
    assert table.port.append(row_of(0)) == 0
