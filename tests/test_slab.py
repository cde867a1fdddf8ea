"""The row store kernels: every backend beside the others and beside a plain dict of rows."""

from __future__ import annotations

import datetime as dt
import gc
import struct
import threading
import tracemalloc
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snapdb import _ext
from snapdb._ext import _common as c

UTC = dt.timezone.utc
PLAIN = [
    ("id", c.I32, 0, False),
    ("ts", c.I64, 0, False),
    ("temp", c.F64, 0, False),
    ("flag", c.BOOL, 0, False),
    ("big", c.U64, 0, False),
]
MIXED = [
    ("a", c.I8, 0, False),
    ("b", c.I64, 0, True),
    ("c", c.BYTES, 6, False),
    ("d", c.BYTES, 3, True),
    ("e", c.STR, 0, False),
    ("f", c.BINARY, 0, True),
    ("g", c.DATE, 0, True),
    ("h", c.DATETIME, 0, False),
    ("i", c.F32, 0, True),
    ("j", c.BOOL, 0, True),
    ("k", c.U16, 0, False),
]


def coerce(column: int, value: Any, position: int) -> Any:
    raise ValueError(f"bad value {value!r}")


def refuse(row: Any, position: int, partial: bool) -> None:
    raise KeyError("bad row")


def width_of(column: Any) -> int:
    return c.WIDTHS.get(column[1]) or (column[2] if column[1] == c.BYTES else 8)


def make(kernels: Any, columns: Any, page_size: int = 4096, **options: Any) -> Any:
    """A table, with ``codec`` and ``table``."""
    codec = kernels.values.RowCodec(columns, options.get("coerce", coerce), refuse)
    offsets, end = [], 0
    for column in columns:
        offsets.append(end)
        end += width_of(column)
    lock = threading.RLock()
    table = kernels.slab.SlabTable(codec, offsets, end, page_size, lock, options.get("slow"))
    return SimpleNamespace(codec=codec, table=table, width=end, values=kernels.values)


def plain_row(i: int) -> dict[str, Any]:
    return {"id": i, "ts": i * 1000, "temp": i / 2, "flag": i % 3 == 0, "big": 2**63 + i}


def filled(kernels: Any, rows: int, page_size: int = 4096) -> Any:
    made = make(kernels, PLAIN, page_size)
    assert made.table.extend(made.codec.encode_rows([plain_row(i) for i in range(rows)])) == 0
    return made


def parts(buffer: Any) -> tuple[Any, ...]:
    """Everything that a column buffer says."""
    optional = [None if part is None else bytes(part) for part in (buffer.offsets, buffer.nulls)]
    return (buffer.code, buffer.rows, buffer.null_count, bytes(buffer.data), *optional)


def from_bits(mask: Optional[bytearray], rows: int) -> list[bool]:
    if mask is None:
        return [True] * rows
    assert len(mask) == c.mask_bytes(rows)
    bits = int.from_bytes(mask, "little")
    assert bits >> rows == 0
    return [bool(bits >> i & 1) for i in range(rows)]


# -- rows ------------------------------------------------------------------


def test_insert_and_get(kernels: Any) -> None:
    made = make(kernels, PLAIN)
    table = made.table
    assert [table.insert(plain_row(i)) for i in range(500)] == list(range(500))
    assert (table.rows, table.live) == (500, 500)
    assert table.slab_rows == 4096 // 29
    for i in (0, 1, 140, 141, 142, 499):
        assert table.get(i) == plain_row(i)
        assert table.contains(i)
    assert list(table.get(7)) == [column[0] for column in PLAIN]


@pytest.mark.parametrize("idx", [-1, 10, 2**62, 2**63, 2**70, -(2**70)])
def test_no_such_row(kernels: Any, idx: int) -> None:
    table = filled(kernels, 10).table
    assert table.get(idx) is None
    assert table.get_raw(idx) is None
    assert table.contains(idx) is False
    for write in (table.update, table.change):
        with pytest.raises(KeyError) as caught:
            write(idx, {"id": 1})
        assert caught.value.args == (idx,)
        with pytest.raises(KeyError):  # before its values are looked at
            write(idx, {"id": "nonsense"})
    for remove in (table.delete, table.remove):
        with pytest.raises(KeyError) as caught:
            remove(idx)
        assert caught.value.args == (idx,)
    with pytest.raises(KeyError):
        table.put(idx, [(0, 1)])
    assert table.live == 10


@pytest.mark.parametrize("idx", [1.0, "1", None, b"1"])
def test_ids_are_integers(kernels: Any, idx: Any) -> None:
    table = filled(kernels, 10).table
    for call in (table.get, table.get_raw, table.contains, table.delete, table.remove):
        with pytest.raises(TypeError):
            call(idx)
    with pytest.raises(TypeError):
        table.update(idx, {})


def test_ids_with_index(kernels: Any) -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    table = filled(kernels, 10).table
    assert table.get(Three()) == plain_row(3)
    assert table.contains(True)
    table.update(Three(), {"temp": 0.25})
    assert table.get(3)["temp"] == 0.25
    table.delete(Three())
    assert table.get(3) is None


def test_update_merges(kernels: Any) -> None:
    table = filled(kernels, 300).table
    table.update(299, {"temp": -1.0, "flag": True})
    assert table.get(299) == {**plain_row(299), "temp": -1.0, "flag": True}
    table.update(299, {})
    with pytest.raises(KeyError):
        table.update(0, {"nope": 1})
    with pytest.raises(ValueError, match="bad value"):
        table.update(0, {"temp": 2.0, "flag": "x"})
    assert table.get(0) == plain_row(0)


def test_text_and_nulls(kernels: Any) -> None:
    table = make(kernels, MIXED, 300).table
    row = {
        "a": -5, "b": None, "c": "héé", "d": b"\xff\x00", "e": "long" * 50, "f": b"\x00\xff",
        "g": dt.date(1969, 12, 31), "h": dt.datetime(1950, 1, 1, 1, 2, 3, 4, UTC), "i": 0.5, "j": False, "k": 65535,
    }  # fmt: skip
    assert table.get(table.insert(row)) == row
    assert table.get(table.insert(row))["d"] == b"\xff\x00"
    empty = {**row, "c": "", "e": "", "d": None, "f": None, "g": None, "i": None, "j": None}
    assert table.get(table.insert(empty)) == empty
    missing = {key: value for key, value in row.items() if key not in ("b", "d", "f", "g", "i", "j")}
    assert table.get(table.insert(missing)) == {**row, "b": None, "d": None, "f": None, "g": None, "i": None, "j": None}
    table.update(2, {"d": "abc", "f": b"x" * 1000, "b": 7})
    assert table.get(2) == {**empty, "d": "abc", "f": b"x" * 1000, "b": 7}
    assert table.get(0) == row


def test_values_that_do_not_fit_leave_nothing(kernels: Any) -> None:
    made = make(kernels, MIXED)
    good = [1, None, b"abc", None, b"", None, None, 0, None, None, 1]
    assert made.table.append_values(good) == 0
    for bad in (good[:-1], [None, *good[1:]], [1, None, b"1234567", *good[3:]]):
        with pytest.raises(ValueError):
            made.table.append_values(bad)
    with pytest.raises(ValueError):
        made.table.put(0, [(2, b"1234567")])
    with pytest.raises(ValueError):
        made.table.put(0, [(0, None)])
    with pytest.raises(IndexError):
        made.table.put(0, [(11, None)])
    assert (made.table.rows, made.table.live) == (1, 1)
    made.table.put(0, [(10, 9), (4, b"xyz"), (10, 8)])
    assert made.table.get(0)["k"] == 8
    assert made.table.get(0)["e"] == "xyz"


def test_extend_is_all_or_nothing(kernels: Any) -> None:
    made = make(kernels, MIXED, 64)
    good = [1, None, b"abc", None, b"text", None, None, 0, None, None, 1]
    made.table.append_values(good)

    def staged(rows: int) -> list[Any]:
        buffers = [kernels.values.ColumnBuffer(column[1]) for column in MIXED]
        for _ in range(rows):
            for buffer, value in zip(buffers, good):
                buffer.append(value)
        return buffers

    def refused(buffers: list[Any]) -> None:
        with pytest.raises(ValueError):
            made.table.extend(buffers)
        assert (made.table.rows, made.table.live) == (1, 1)

    refused(staged(5)[:-1])
    refused([*staged(5)[:-1], staged(4)[-1]])
    refused([*staged(5)[:-1], staged(5)[0]])
    holes = staged(4)
    for buffer, value in zip(holes, [None, *good[1:]]):
        buffer.append(value)
    refused(holes)
    long = staged(4)
    for buffer, value in zip(long, [1, None, b"1234567", *good[3:]]):
        buffer.append(value)
    refused(long)
    assert made.table.extend(staged(0)) == 1
    assert made.table.extend(staged(5)) == 1
    assert made.table.get(5) == made.table.get(0)


def test_bad_layouts(kernels: Any) -> None:
    codec = kernels.values.RowCodec(PLAIN, coerce, refuse)
    for offsets, width, page in (
        ([0, 4, 12, 20], 29, 64),
        ([0, 2, 12, 20, 21], 29, 64),
        ([0, 4, 12, 20, 21], 28, 64),
        ([0, 4, 12, 20, 21], 0, 64),
        ([0, 4, 12, 20, 21], 29, 0),
        ([-4, 4, 12, 20, 21], 29, 64),
    ):
        with pytest.raises(ValueError):
            kernels.slab.SlabTable(codec, offsets, width, page, threading.RLock(), None)


def test_gaps_between_columns(kernels: Any) -> None:
    codec = kernels.values.RowCodec(PLAIN, coerce, refuse)
    table = kernels.slab.SlabTable(codec, [1, 8, 16, 24, 32], 48, 10, threading.RLock(), None)
    assert table.slab_rows == 1
    table.insert(plain_row(3))
    table.extend(codec.encode_rows([plain_row(4), plain_row(5)]))
    assert [row for _, row in table.pin().items()] == [plain_row(3), plain_row(4), plain_row(5)]
    assert struct.unpack("<xi3xqd?7xQ8x", table.get_raw(1)) == tuple(plain_row(4).values())
    assert table.pin().gather(2, 0, 3).tolist() == [1.5, 2.0, 2.5]


# -- raw rows --------------------------------------------------------------


def test_raw_rows_are_struct_rows_and_never_change(kernels: Any) -> None:
    made = filled(kernels, 300)
    table = made.table
    form = struct.Struct("<iqd?Q")
    assert form.size == made.width
    held = [(i, table.get_raw(i)) for i in (0, 5, 140, 141, 299)]
    held += [(i, view) for i, view in table.pin().raw_items() if i in (1, 298)]
    expected = [tuple(plain_row(i).values()) for i, _ in held]

    def unchanged() -> None:
        for (_, view), row in zip(held, expected):
            assert view.readonly
            assert view.nbytes == made.width
            assert form.unpack(view) == row

    unchanged()
    for i, _ in held:
        table.update(i, {"temp": 99.0, "flag": True})
    unchanged()
    assert table.get(5)["temp"] == 99.0
    assert form.unpack(table.get_raw(5))[2] == 99.0
    for i in range(300):
        table.delete(i)
    unchanged()
    table.truncate(0)
    for i in range(300):
        table.insert(plain_row(i + 1000))
    unchanged()
    del table
    made.table = None
    gc.collect()
    unchanged()
    with pytest.raises(TypeError):
        held[0][1][0] = 1


def test_raw_text_is_zero_padded(kernels: Any) -> None:
    made = make(kernels, [("a", c.BYTES, 5, False), ("b", c.U8, 0, False), ("t", c.STR, 0, False)])
    made.table.insert({"a": "abcde", "b": 1, "t": "xy"})
    made.table.update(0, {"a": "z", "t": "four"})
    assert bytes(made.table.get_raw(0)) == b"z\0\0\0\0" + b"\1" + struct.pack("<II", 2, 4)


# -- turns -----------------------------------------------------------------


def test_paused_writes_go_to_slow(kernels: Any) -> None:
    calls: list[Any] = []

    def slow(*args: Any) -> int:
        calls.append(args)
        return 77

    made = make(kernels, PLAIN, slow=slow)
    table = made.table
    table.insert(plain_row(0))
    table.paused = True
    assert table.paused
    assert table.insert(plain_row(1)) == 77
    assert table.update(0, {"temp": 3.0}) is None
    assert table.delete(0) is None
    assert calls == [("insert", plain_row(1)), ("update", 0, {"temp": 3.0}), ("delete", 0)]
    with pytest.raises(ValueError, match="bad value"):
        table.insert({**plain_row(1), "id": "x"})
    with pytest.raises(ValueError, match="bad value"):
        table.update(0, {"id": "x"})
    assert len(calls) == 3
    assert (table.rows, table.live, table.get(0)) == (1, 1, plain_row(0))
    assert table.append(plain_row(1)) == 1
    table.change(1, {"temp": 8.0})
    assert table.get(1)["temp"] == 8.0
    table.remove(1)
    assert table.live == 1


def test_coerce_may_write_to_the_table(kernels: Any) -> None:
    box: list[Any] = []

    def meddle(column: int, value: Any, position: int) -> Any:
        if value == "insert":
            box[0].insert(plain_row(50))
        elif value == "delete":
            box[0].delete(0)
        return 1

    made = make(kernels, PLAIN, coerce=meddle)
    table = made.table
    box.append(table)
    assert table.insert({**plain_row(0), "ts": "insert"}) == 1
    assert table.get(0) == plain_row(50)
    assert table.get(1) == {**plain_row(0), "ts": 1}
    with pytest.raises(KeyError):
        table.update(0, {"ts": "delete"})
    assert table.get(0) is None
    assert (table.rows, table.live) == (2, 1)


# -- views -----------------------------------------------------------------


def test_iteration_is_as_of_its_start(kernels: Any) -> None:
    table = filled(kernels, 400).table
    seen = []
    for idx, row in table.pin().items():
        seen.append((idx, row))
        if idx == 3:
            for i in range(400):
                table.update(i, {"temp": -1.0})
            for i in range(0, 400, 2):
                table.delete(i)
            for i in range(400, 600):
                table.insert(plain_row(i))
    assert seen == [(i, plain_row(i)) for i in range(400)]
    assert [i for i, _ in table.pin().items()] == [*range(1, 400, 2), *range(400, 600)]
    assert [i for i, _ in table.pin().raw_items()] == [*range(1, 400, 2), *range(400, 600)]


def test_release(kernels: Any) -> None:
    table = filled(kernels, 400).table
    view = table.pin()
    assert (view.rows, view.live) == (400, 400)
    rows = view.items()
    raws = view.raw_items()
    assert next(rows) == (0, plain_row(0))
    view.release()
    view.release()
    for i in range(400):
        table.update(i, {"temp": -1.0})
    assert list(rows) == [(i, plain_row(i)) for i in range(1, 400)]
    assert list(rows) == []
    assert [bytes(raw) for _, raw in raws] == [struct.pack("<iqd?Q", *plain_row(i).values()) for i in range(400)]
    for call in (view.items, view.raw_items, lambda: view.gather(0, 0, 1), lambda: view.live_mask(0, 1)):
        with pytest.raises(ValueError, match="released"):
            call()


def test_gather_bounds(kernels: Any) -> None:
    view = filled(kernels, 10).table.pin()
    for start, stop in ((-1, 1), (0, 11), (5, 4)):
        with pytest.raises(ValueError):
            view.gather(0, start, stop)
        with pytest.raises(ValueError):
            view.live_mask(start, stop)
    for column in (-1, 5):
        with pytest.raises(IndexError):
            view.gather(column, 0, 1)
    assert view.gather(0, 4, 4).rows == 0
    assert view.live_mask(4, 4) is None


def test_gather_over_segments(kernels: Any) -> None:
    table = filled(kernels, 70000).table
    for i in range(65000, 66000):
        table.delete(i)
    view = table.pin()
    table.update(69999, {"ts": 0})
    table.insert(plain_row(70000))
    first, second = view.gather(1, 0, 65536), view.gather(1, 65536, 70000)
    assert first.null_count == 536
    assert second.null_count == 464
    expected = [None if 65000 <= i < 66000 else i * 1000 for i in range(70000)]
    assert first.tolist() + second.tolist() == expected
    assert struct.unpack_from("<q", first.data, 65001 * 8) == (0,)
    assert view.live_mask(0, 65000) is None
    mask = from_bits(view.live_mask(0, 65536), 65536) + from_bits(view.live_mask(65536, 70000), 4464)
    assert mask == [value is not None for value in expected]
    assert list(view.gather(3, 65530, 65540).tolist()) == [None] * 10


def test_readers_beside_a_writer(kernels: Any) -> None:
    """What a view reads never mixes two states: both columns change together."""
    pair = [("a", c.I64, 0, False), ("t", c.STR, 0, False), ("b", c.I64, 0, False)]
    table = make(kernels, pair, 256).table
    for _ in range(3000):
        table.insert({"a": 0, "t": "0", "b": 0})
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            row = table.get(1500)
            if not row["a"] == row["b"] == int(row["t"]):
                wrong.append(row)
            view = table.pin()
            first, text, last = (view.gather(j, 1000, 3000).tolist() for j in range(3))
            if not first == last == list(map(int, text)):
                wrong.append(view)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(1, 20):
        for idx in range(1000, 3000, 7):
            table.update(idx, {"a": i, "t": str(i), "b": i})
        table.update(1500, {"a": -i, "t": str(-i), "b": -i})
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# -- space -----------------------------------------------------------------


def test_a_queue_does_not_grow(kernels: Any) -> None:
    table = make(kernels, PLAIN, 64).table
    for i in range(20000):
        table.insert(plain_row(i))
        if i >= 10:
            table.delete(i - 10)
    assert (table.rows, table.live) == (20000, 10)
    assert table.nbytes < 20000
    assert table.get(0) is None
    assert [i for i, _ in table.pin().items()] == list(range(19990, 20000))
    assert table.pin().gather(0, 0, 20000).null_count == 19990


def test_heap_garbage_is_rewritten(kernels: Any) -> None:
    table = make(kernels, [("a", c.I32, 0, False), ("t", c.STR, 0, False)]).table
    for i in range(50):
        table.insert({"a": i, "t": f"text {i}"})
    view, held = table.pin(), table.get_raw(3)
    before = bytes(held)
    for i in range(3000):
        table.update(i % 50, {"t": "x" * (i % 90)})
    assert table.nbytes < 40000
    assert bytes(held) == before
    assert [row["t"] for _, row in view.items()] == [f"text {i}" for i in range(50)]
    assert [table.get(i)["t"] for i in range(50)] == ["x" * ((2950 + i) % 90) for i in range(50)]


def test_long_strings_in_small_pages(kernels: Any) -> None:
    table = make(kernels, [("a", c.STR, 0, True), ("b", c.BINARY, 0, False)], 64).table
    text = "é" * (5 << 20)
    for i in range(3):
        table.insert({"a": text if i == 1 else None, "b": b"b" * i})
    assert table.get(1)["a"] == text
    assert table.nbytes > 10 << 20
    table.update(1, {"a": "short"})
    assert table.nbytes < 1 << 20
    assert [row["a"] for _, row in table.pin().items()] == [None, "short", None]


def test_nbytes_is_honest(kernels: Any) -> None:
    columns = [("a", c.I64, 0, False), ("n", c.BYTES, 9, False), ("t", c.STR, 0, True)]
    rows = [{"a": i, "n": "name", "t": "some text" if i % 2 else None} for i in range(20000)]
    codec = kernels.values.RowCodec(columns, coerce, refuse)
    staged = codec.encode_rows(rows)
    filled(kernels, 10).table.get(0)
    gc.collect()
    tracemalloc.start()
    try:
        made = make(kernels, columns)
        made.table.extend(staged)
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert abs(made.table.nbytes - allocated) < allocated * 0.1


# -- undo and reopen -------------------------------------------------------


def test_truncate_gives_ids_out_again(kernels: Any) -> None:
    table = filled(kernels, 1000).table
    view = table.pin()
    for bad in (-1, 1001):
        with pytest.raises(ValueError):
            table.truncate(bad)
    table.truncate(500)
    assert (table.rows, table.live, table.get(500)) == (500, 500, None)
    assert table.insert(plain_row(7)) == 500
    assert list(view.items()) == [(i, plain_row(i)) for i in range(1000)]
    assert view.gather(0, 400, 600).tolist() == list(range(400, 600))
    table.truncate(0)
    assert (table.rows, table.live) == (0, 0)
    assert table.insert(plain_row(8)) == 0


def test_truncate_into_a_slab_given_back(kernels: Any) -> None:
    table = filled(kernels, 1000).table
    for i in range(1000):
        table.delete(i)
    view = table.pin()
    table.truncate(70)
    assert table.insert(plain_row(1)) == 70
    assert list(view.items()) == []
    assert [i for i, _ in table.pin().items()] == [70]


def test_revive(kernels: Any) -> None:
    made = filled(kernels, 300)
    table = made.table
    values = made.codec.encode(plain_row(9))
    with pytest.raises(ValueError):
        table.revive(5, values)
    with pytest.raises(KeyError):
        table.revive(300, values)
    with pytest.raises(KeyError):
        table.revive(-1, values)
    for i in range(300):
        table.delete(i)
    view = table.pin()
    table.revive(5, values)
    table.revive(299, values)
    assert (table.live, table.get(5), table.get(299)) == (2, plain_row(9), plain_row(9))
    assert list(view.items()) == []


def test_views_of_skipped_positions(kernels: Any) -> None:
    made = make(kernels, PLAIN)
    made.table.skip(50)
    view = made.table.pin()
    made.table.insert(plain_row(50))
    made.table.revive(49, made.codec.encode(plain_row(49)))
    assert list(view.items()) == []
    assert [i for i, _ in made.table.pin().items()] == [49, 50]


def test_skip(kernels: Any) -> None:
    table = make(kernels, PLAIN).table
    with pytest.raises(ValueError):
        table.skip(-1)
    table.skip(1_000_000)
    assert (table.rows, table.live) == (1_000_000, 0)
    assert list(table.pin().items()) == []
    assert table.insert(plain_row(1)) == 1_000_000
    table.skip(5)
    assert table.extend(make(kernels, PLAIN).codec.encode_rows([plain_row(2)] * 3)) == 1_000_006
    assert [i for i, _ in table.pin().items()] == [1_000_000, 1_000_006, 1_000_007, 1_000_008]
    assert table.nbytes < 50_000


# -- side by side ----------------------------------------------------------


def single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


WHEN = dt.datetime(2000, 1, 1, tzinfo=UTC)
VALUES = {
    "a": st.integers(-128, 127),
    "b": st.none() | st.integers(-(2**63), 2**63 - 1),
    "c": st.text("a\0é漢", max_size=2) | st.binary(max_size=6),
    "d": st.none() | st.binary(max_size=3),
    "e": st.text("a\0é漢", max_size=12) | st.sampled_from(["q" * 900, "w" * 3000]),
    "f": st.none() | st.binary(max_size=12),
    "g": st.none() | st.dates(),
    "h": st.integers(-(10**15), 10**15).map(lambda micros: WHEN + dt.timedelta(microseconds=micros)),
    "i": st.none() | st.sampled_from([0.0, -0.0, 0.5, -3.0e38, 1e-45, float("inf")]).map(single),
    "j": st.none() | st.booleans(),
    "k": st.integers(0, 65535),
}
ROWS = st.fixed_dictionaries(VALUES)
CHANGES = st.fixed_dictionaries({}, optional=VALUES)


def logical_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it reads back."""
    found = dict(row)
    for name in ("c", "d"):
        value = row[name]
        if isinstance(value, bytes):
            found[name] = c.decode_text(value)
    return found


class SideBySide(RuleBasedStateMachine):
    """Every backend's table does the same as a list of rows (None: dead)."""

    @initialize(page=st.sampled_from([1, 64, 150, 700]))
    def start(self, page: int) -> None:
        self.made = [make(_ext.backend(name), MIXED, page) for name in _ext.available()]
        self.tables = [made.table for made in self.made]
        self.rows: list[Optional[dict[str, Any]]] = []
        self.views: list[tuple[list[Any], list[Optional[dict[str, Any]]]]] = []
        self.raw: list[tuple[Any, bytes]] = []

    def pick(self, data: Any, live: bool) -> Optional[int]:
        ids = [i for i, row in enumerate(self.rows) if (row is not None) == live]
        return data.draw(st.sampled_from(ids)) if ids else None

    @rule(row=ROWS, through=st.sampled_from(["insert", "append", "append_values"]))
    def insert(self, row: dict[str, Any], through: str) -> None:
        for made in self.made:
            given = made.codec.encode(row) if through == "append_values" else row
            assert getattr(made.table, through)(given) == len(self.rows)
        self.rows.append(logical_row(row))

    @rule(rows=st.lists(ROWS, max_size=12), times=st.integers(1, 20))
    def extend(self, rows: list[dict[str, Any]], times: int) -> None:
        rows = rows * times
        for made in self.made:
            assert made.table.extend(made.codec.encode_rows(rows)) == len(self.rows)
        self.rows.extend(map(logical_row, rows))

    @rule(data=st.data(), changes=CHANGES, through=st.sampled_from(["update", "change", "put"]))
    def update(self, data: Any, changes: dict[str, Any], through: str) -> None:
        idx = self.pick(data, True)
        if idx is None:
            return
        for made in self.made:
            given = made.codec.encode_partial(changes) if through == "put" else changes
            getattr(made.table, through)(idx, given)
        row = self.rows[idx]
        assert row is not None
        self.rows[idx] = logical_row({**row, **changes})

    @rule(data=st.data(), count=st.integers(1, 60), through=st.sampled_from(["delete", "remove"]))
    def delete(self, data: Any, count: int, through: str) -> None:
        idx = self.pick(data, True)
        if idx is None:
            return
        for at in range(idx, min(idx + count, len(self.rows))):
            for table in self.tables:
                if self.rows[at] is None:
                    with pytest.raises(KeyError):
                        getattr(table, through)(at)
                else:
                    getattr(table, through)(at)
            self.rows[at] = None

    @rule(data=st.data(), row=ROWS)
    def revive(self, data: Any, row: dict[str, Any]) -> None:
        idx = self.pick(data, False)
        if idx is None:
            return
        for made in self.made:
            made.table.revive(idx, made.codec.encode(row))
        self.rows[idx] = logical_row(row)

    @rule(back=st.integers(0, 40))
    def truncate(self, back: int) -> None:
        size = max(0, len(self.rows) - back)
        for table in self.tables:
            table.truncate(size)
        del self.rows[size:]

    @rule(count=st.integers(0, 50))
    def skip(self, count: int) -> None:
        for table in self.tables:
            table.skip(count)
        self.rows.extend([None] * count)

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def pin(self) -> None:
        self.views.append(([table.pin() for table in self.tables], list(self.rows)))

    @rule(data=st.data())
    def hold_raw(self, data: Any) -> None:
        idx = self.pick(data, True)
        if idx is not None:
            views = [table.get_raw(idx) for table in self.tables]
            assert len({bytes(view) for view in views}) == 1
            self.raw.extend((view, bytes(view)) for view in views)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def read_view(self, data: Any) -> None:
        views, rows = self.views.pop(data.draw(st.integers(0, len(self.views) - 1)))
        start = data.draw(st.integers(0, len(rows)))
        stop = data.draw(st.integers(start, len(rows)))
        column = data.draw(st.integers(0, len(MIXED) - 1))
        self.check_view(views, rows, start, stop, column)
        for view in views:
            view.release()

    def check_view(self, views: list[Any], rows: list[Any], start: int, stop: int, column: int) -> None:
        live = [(i, row) for i, row in enumerate(rows) if row is not None]
        expected = [None if row is None else row[MIXED[column][0]] for row in rows[start:stop]]
        raws = []
        buffers = []
        for view in views:
            assert (view.rows, view.live) == (len(rows), len(live))
            assert list(view.items()) == live
            raws.append([(i, bytes(raw)) for i, raw in view.raw_items()])
            buffer = view.gather(column, start, stop)
            assert buffer.tolist() == expected
            buffers.append(parts(buffer))
            assert from_bits(view.live_mask(start, stop), stop - start) == [row is not None for row in rows[start:stop]]
        assert all(raw == raws[0] for raw in raws)
        assert [i for i, _ in raws[0]] == [i for i, _ in live]
        assert all(buffer == buffers[0] for buffer in buffers)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "tables"):
            return
        live = sum(row is not None for row in self.rows)
        for table in self.tables:
            assert (table.rows, table.live) == (len(self.rows), live)
            for idx in {0, len(self.rows) // 2, len(self.rows) - 1, len(self.rows)}:
                expected = self.rows[idx] if 0 <= idx < len(self.rows) else None
                assert table.get(idx) == expected
                assert table.contains(idx) == (expected is not None)

    def teardown(self) -> None:
        if hasattr(self, "tables"):
            self.views.append(([table.pin() for table in self.tables], list(self.rows)))
            for views, rows in self.views:
                for column in range(len(MIXED)):
                    self.check_view(views, rows, 0, len(rows), column)
            for view, before in self.raw:
                assert bytes(view) == before


TestSideBySide = SideBySide.TestCase
TestSideBySide.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def test_take_over_moves_every_row_and_leaves_views_alone(kernels: Any) -> None:
    specs = [("a", 4, 0, False), ("t", 13, 0, True)]

    def table() -> Any:
        codec = kernels.values.RowCodec(specs, lambda j, value, at: value, lambda row, at, partial: None)
        return kernels.slab.SlabTable(codec, [0, 8], 16, 64, threading.RLock(), lambda name, *args: None)

    old, new = table(), table()
    for i in range(20):
        old.append({"a": i, "t": str(i)})
    new.append({"a": 7, "t": "seven"})
    view, get = old.pin(), old.get
    old.take_over(new)
    assert (old.rows, old.live, get(0), get(1)) == (1, 1, {"a": 7, "t": "seven"}, None)
    assert [row["a"] for _, row in view.items()] == list(range(20))
    assert (new.rows, list(new.pin().items())) == (0, [])
    old.update(0, {"a": 8})
    new.append({"a": 9, "t": None})
    assert (old.get(0)["a"], new.get(0)["a"]) == (8, 9)
    with pytest.raises(ValueError):
        old.take_over(old)
