"""The row store's kernels for a table in a file: images of slab groups, groups that come when asked for, the log."""

from __future__ import annotations

import datetime as dt
import random
import struct
import threading
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_slab import MIXED, PLAIN, coerce, plain_row, refuse, width_of

from snapdb import _ext
from snapdb._ext import _common as c

UTC = dt.timezone.utc
ENDS = {c.DATE: (-719162, 2932896), c.DATETIME: (-62135596800000000, 253402300799999999)}  # the years 1 to 9999
KINDS = [(code, 0) for code in (*c.WIDTHS, c.STR, c.BINARY)] + [(c.BYTES, 1), (c.BYTES, 7)]


def make(kernels: Any, columns: Any, page_size: int = 4096, gap: int = 0, **options: Any) -> Any:
    """A table whose columns stand ``gap`` bytes apart, with a lock and a ``slow`` as an engine has them."""
    codec = kernels.values.RowCodec(columns, coerce, refuse)
    offsets, end = [], gap
    for column in columns:
        offsets.append(end)
        end += width_of(column) + gap
    lock = threading.RLock()
    made = SimpleNamespace(codec=codec, lock=lock, slowly=[])

    def slow(name: str, *args: Any) -> Any:
        made.slowly.append(name)
        with lock:
            return getattr(made.table, {"insert": "append", "update": "change", "delete": "remove"}[name])(*args)

    made.table = kernels.slab.SlabTable(codec, offsets, end, page_size, lock, options.get("slow", slow))
    return made


def mixed_row(i: int) -> dict[str, Any]:
    return {
        "a": i % 100,
        "b": None if i % 3 == 0 else i * 10**9,
        "c": f"c{i % 1000}",
        "d": None if i % 5 == 0 else "xyz"[: i % 4],
        "e": "é" * (i % 11),
        "f": None if i % 2 else bytes([i % 256]) * (i % 7),
        "g": dt.date(2000, 1, 1) + dt.timedelta(i) if i % 4 else None,
        "h": dt.datetime(2020, 1, 1, tzinfo=UTC) + dt.timedelta(0, i),
        "i": i / 4 if i % 6 else None,
        "j": None if i % 7 == 0 else i % 2 == 0,
        "k": i % 65536,
    }


def groups(table: Any) -> range:
    return range(-(-table.rows // (table.slab_rows * table.group_slabs)))


def images(table: Any) -> list[bytes]:
    return [table.dump(group) for group in groups(table)]


def contents(table: Any, with_raw: bool = False) -> list[Any]:
    """Every live row and (heap references and all) its raw bytes; an error instead of a row that cannot be shown."""
    found: list[Any] = [table.rows, table.live]
    for idx in range(table.rows):
        try:
            row = repr(table.get(idx))
        except (ValueError, OverflowError) as error:
            row = type(error).__name__
        raw = table.get_raw(idx)
        if raw is not None or row != "None":
            found.append((idx, row, bytes(raw) if with_raw and raw is not None else None))
    return found


def reopened(made: Any, kernels: Any, columns: Any, page_size: int, gap: int = 0) -> Any:
    """A table of the other's rows, every group of it loaded."""
    fresh = make(kernels, columns, page_size, gap)
    fresh.table.adopt(made.table.rows, made.table.live, None, pytest.fail)
    for group in groups(made.table):
        fresh.table.load(group, made.table.dump(group))
    return fresh


# -- images ----------------------------------------------------------------


@pytest.mark.parametrize(("columns", "page_size"), [(PLAIN, 4096), (PLAIN, 64), (MIXED, 500), (MIXED, 200_000)])
def test_group_size(kernels: Any, columns: Any, page_size: int) -> None:
    table = make(kernels, columns, page_size).table
    record = sum(map(width_of, columns)) + 2 * sum(column[1] == c.BYTES for column in columns)
    nullable = sum(column[3] for column in columns)
    block = -(-table.slab_rows * record // 8) * 8 + c.mask_bytes(table.slab_rows) * (1 + nullable)
    assert table.group_slabs == max(1, 65536 // block)


def test_image_of_nothing(kernels: Any) -> None:
    table = make(kernels, PLAIN).table
    empty = table.dump(0)
    assert len(empty) == 32 + 16 * table.group_slabs
    assert struct.unpack_from("<4s3I2Q", empty) == (
        b"SNSG", table.group_slabs, 141, 29, 4096 + 24, len(empty),
    )  # fmt: skip
    assert set(empty[32:]) == {0}
    assert table.dump(7) == empty
    table.insert(plain_row(1))
    table.remove(0)
    assert table.dump(0) == empty
    for group in (-1, 2**70):
        with pytest.raises(ValueError, match="no slab group"):
            table.dump(group)
        with pytest.raises(ValueError, match="no slab group"):
            table.load(group, empty)
    with pytest.raises(TypeError):
        table.dump("0")
    with pytest.raises(TypeError):
        table.load(0, "text")


def test_image_by_hand(kernels: Any) -> None:
    """The bytes of docs/format.md, written out."""
    columns = [("n", c.I16, 0, True), ("s", c.BYTES, 3, False), ("t", c.STR, 0, True)]
    table = make(kernels, columns, 40).table
    assert (table.slab_rows, table.group_slabs) == (3, 65536 // (3 * 15 + 3 + 24))
    table.insert({"n": 1, "s": "ab", "t": "old"})
    table.insert({"n": 2, "s": "", "t": "x"})
    table.insert({"n": None, "s": "abc", "t": "yz"})
    table.insert({"n": 7, "s": "q", "t": None})
    table.update(0, {"t": "new"})
    table.delete(1)
    image = table.dump(0)
    first = (
        struct.pack("<h3sIIH", 1, b"ab", 0, 3, 2) + bytes(15) + struct.pack("<h3sIIH", 0, b"abc", 3, 2, 3) + bytes(3)
    )
    first += struct.pack("<3Q", 0b101, 0b100, 0)
    second = struct.pack("<h3sIIH", 7, b"q", 0, 0, 1) + bytes(33) + struct.pack("<3Q", 1, 0, 1)
    head = 32 + 16 * table.group_slabs
    total = head + 80 + 72
    expected = struct.pack("<4s3I2Q", b"SNSG", table.group_slabs, 3, 15, 72, total)
    expected += struct.pack("<QIIQII", head, 2, 5, head + 80, 1, 0) + bytes(head - 64)
    assert image == expected + first + b"newyz\0\0\0" + second


def values_of(code: int, limit: int, nullable: bool) -> st.SearchStrategy[Any]:
    if code in c.STRINGS:
        texts = st.binary(max_size=limit or 12) if code != c.STR else st.text(max_size=6).map(str.encode)
    elif code in c.FLOATS:
        texts = st.floats(width=32)
    else:
        texts = st.integers(*ENDS.get(code, c.LIMITS.get(code)))
    return st.none() | texts if nullable else texts


@st.composite
def histories(draw: Any) -> Any:
    """A schema, a page size and what is done to a table."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=5))
    columns = [(f"c{j}", code, limit, nullable) for j, ((code, limit), nullable) in enumerate(kinds)]
    row = st.tuples(*[values_of(*column[1:]) for column in columns])
    step = st.one_of(
        st.tuples(st.just("append"), row),
        st.tuples(st.just("extend"), st.lists(row, max_size=20)),
        st.tuples(st.just("put"), st.integers(0, 60), row),
        st.tuples(st.just("remove"), st.integers(0, 60), st.integers(1, 12)),
        st.tuples(st.just("skip"), st.integers(0, 9)),
        st.tuples(st.just("truncate"), st.integers(0, 5)),
    )
    width = sum(map(width_of, columns))
    page = draw(st.sampled_from([1, 3, 8, 70])) * (width + 1)
    return columns, page, draw(st.sampled_from([0, 0, 2])), draw(st.lists(step, min_size=1, max_size=12))


def replay(kernels: Any, columns: Any, page: int, gap: int, steps: Any) -> Any:
    made = make(kernels, columns, page, gap)
    table = made.table
    for name, *args in steps:
        if name == "append":
            table.append_values(args[0])
        elif name == "extend":
            buffers = [kernels.values.ColumnBuffer(column[1]) for column in columns]
            for row in args[0]:
                for buffer, value in zip(buffers, row):
                    buffer.append(value)
            table.extend(buffers)
        elif name == "put" and table.contains(args[0]):
            table.put(args[0], list(enumerate(args[1])))
        elif name == "remove":
            for idx in range(args[0], args[0] + args[1]):
                if table.contains(idx):
                    table.remove(idx)
        elif name == "skip":
            table.skip(args[0])
        elif name == "truncate":
            table.truncate(max(0, table.rows - args[0]))
    return made


@settings(max_examples=60)
@given(histories())
def test_images_are_the_same_everywhere(history: Any) -> None:
    columns, page, gap, _ = history
    made = {name: replay(_ext.backend(name), *history) for name in _ext.available()}
    dumped = {name: images(one.table) for name, one in made.items()}
    rows = {name: contents(one.table) for name, one in made.items()}
    fresh = {name: reopened(one, _ext.backend(name), columns, page, gap).table for name, one in made.items()}
    raw = {name: contents(table, True) for name, table in fresh.items()}
    for name in made:
        assert dumped[name] == dumped["python"] == images(fresh[name]), name
        assert rows[name] == rows["python"] == contents(fresh[name]), name
        assert raw[name] == raw["python"], name


def test_a_loaded_table_goes_on(kernels: Any) -> None:
    """Writes to loaded slabs give what the same writes to the original give."""
    made = make(kernels, MIXED, 500)
    for i in range(90):
        made.table.insert(mixed_row(i))
    for i in range(0, 90, 4):
        made.table.delete(i)
    fresh = reopened(made, kernels, MIXED, 500)
    for table in (made.table, fresh.table):
        for i in range(1, 90, 6):
            if table.contains(i):
                table.update(i, {"e": "longer than before " * 3, "d": None})
        for i in range(90, 130):
            table.insert(mixed_row(i))
        table.revive(0, made.codec.encode(mixed_row(7)))
        table.extend(made.codec.encode_rows([mixed_row(i) for i in range(30)]))
        table.truncate(140)
    assert images(fresh.table) == images(made.table)
    assert contents(fresh.table) == contents(made.table)
    assert list(fresh.table.pin().items()) == list(made.table.pin().items())


def test_heap_garbage_after_a_load(kernels: Any) -> None:
    """What is loaded has no garbage, and what is written to it is counted from there."""
    columns = [("t", c.STR, 0, False)]
    made = make(kernels, columns, 64)
    for i in range(8):
        made.table.insert({"t": f"{i}" * 2000})
    fresh = reopened(made, kernels, columns, 64)
    for _ in range(6):
        for i in range(8):
            fresh.table.update(i, {"t": "z" * 2000 + str(i)})
    assert fresh.table.nbytes < 8 * 2000 * 6
    assert [fresh.table.get(i)["t"] for i in range(8)] == ["z" * 2000 + str(i) for i in range(8)]


# -- images that are not to be trusted -----------------------------------------


def hostile() -> Any:
    columns = [*MIXED[:6], MIXED[9]]
    made = make(_ext.backend("python"), columns, 200, 1)
    for i in range(14):
        made.table.insert({key: value for key, value in mixed_row(i).items() if key in "abcdefj"})
    for i in (3, 8, 9, 10, 11):
        made.table.delete(i)
    return columns, made.table


def test_every_byte_counts(kernels: Any) -> None:
    """A changed byte is an error that takes nothing in, or another value that every backend reads alike."""
    columns, table = hostile()
    image = table.dump(0)
    start = 32 + 16 * table.group_slabs
    places = [*range(64), *range(start, len(image))]
    others = [_ext.backend(name) for name in _ext.available()]
    random.seed(5)
    refused = 0
    for at in places:
        for change in {1 << random.randrange(8), 0x80, 0xFF}:
            bad = bytearray(image)
            bad[at] ^= change
            fresh = make(kernels, columns, 200, 1).table
            fresh.adopt(table.rows, table.live, None, pytest.fail)
            try:
                fresh.load(0, bad)
            except ValueError as error:
                refused += 1
                assert str(error).startswith("slab group 0")
                assert fresh.pin().live_mask(0, fresh.rows) == bytearray(8), "nothing was taken in"
                fresh.load(0, image)
                continue
            assert fresh.dump(0) == bad
            if kernels.name != "python":
                twin = make(others[-1], columns, 200, 1).table
                twin.adopt(table.rows, table.live, None, pytest.fail)
                twin.load(0, bad)
                assert contents(twin, True) == contents(fresh, True)
    assert refused > len(places)


def test_impossible_values_are_refused() -> None:
    """Dates outside the years 1 to 9999 and text that is not UTF-8; the same words everywhere."""
    columns = [("n", c.I8, 0, False), ("d", c.DATE, 0, True), ("s", c.STR, 0, True), ("t", c.DATETIME, 0, True)]
    columns += [("b", c.BINARY, 0, True), ("u", c.STR, 0, False)]
    good = [[1, 5, b"abc", -7, b"\xff", "\u00e9".encode()], [2, None, None, None, None, b""]]
    good.append([3, 0, b"", 0, b"", b"x" * 40])
    cases = [(1, value) for value in (-719163, 2932897, *c.LIMITS[c.DATE])]
    cases += [(3, value) for value in (-62135596800000001, 253402300800000000, *c.LIMITS[c.DATETIME])]
    cases += [(column, text) for column in (2, 5) for text in (b"\xff", b"\xed\xa0\x80", b"a" * 30 + b"\xc3", b"\xa9")]
    for column, value in cases:
        for row in range(3):
            rows = [list(values) for values in good]
            rows[row][column] = value
            said = set()
            for name in _ext.available():
                kernels = _ext.backend(name)
                table = make(kernels, columns, 4096, 1).table
                for values in rows:
                    table.append_values(values)
                fresh = make(kernels, columns, 4096, 1).table
                fresh.adopt(3, 3, None, pytest.fail)
                with pytest.raises(ValueError) as caught:
                    fresh.load(0, table.dump(0))
                assert fresh.pin().live_mask(0, fresh.rows) == bytearray(8), "nothing was taken in"
                said.add(str(caught.value))
                table.remove(row)  # a dead row is zero
                fresh.load(0, table.dump(0))
            what = "text that is not UTF-8" if column in (2, 5) else "a date outside the years 1 to 9999"
            assert said == {f"slab group 0, slab 0: column {column}, row {row}: {what}"}


def test_the_last_possible_values_are_taken(kernels: Any) -> None:
    columns = [("d", c.DATE, 0, True), ("t", c.DATETIME, 0, True), ("b", c.BINARY, 0, True), ("u", c.STR, 0, False)]
    columns.append(("f", c.BYTES, 4, False))
    made = make(kernels, columns)
    for at in range(2):
        made.table.append_values([ENDS[c.DATE][at], ENDS[c.DATETIME][at], b"\xff", "\U0010ffff".encode(), b"\xff"])
    made.table.append_values([None, None, None, b"", b""])
    fresh = reopened(made, kernels, columns, 4096)
    assert [fresh.table.get(idx) for idx in range(3)] == [made.table.get(idx) for idx in range(3)]
    assert fresh.table.get(0)["d"] == dt.date.min and fresh.table.get(1)["t"] == dt.datetime.max.replace(tzinfo=UTC)


def test_errors_are_the_same_everywhere() -> None:
    columns, table = hostile()
    image = table.dump(0)
    random.seed(6)
    for _ in range(300):
        bad = bytearray(image)
        for _ in range(random.choice([1, 1, 2, 4])):
            at = random.choice([random.randrange(96), random.randrange(len(bad))])
            bad[at] = random.choice([0, 1, 255, random.randrange(256)])
        if random.random() < 0.1:
            del bad[random.randrange(len(bad)) :]
        said = set()
        for name in _ext.available():
            fresh = make(_ext.backend(name), columns, 200, 1).table
            fresh.adopt(table.rows, table.live, None, pytest.fail)
            try:
                fresh.load(0, bytes(bad))
                said.add("")
            except ValueError as error:
                said.add(str(error))
        assert len(said) == 1, said


def damage(image: bytes, at: int, form: str, *values: Any) -> bytes:
    bad = bytearray(image)
    struct.pack_into(form, bad, at, *values)
    return bytes(bad)


def test_what_is_wrong_is_named(kernels: Any) -> None:
    columns = [("n", c.I8, 0, True), ("s", c.BYTES, 3, True), ("t", c.STR, 0, True), ("b", c.BOOL, 0, False)]
    made = make(kernels, columns, 52)  # 4 rows of 13, records of 15
    for i in range(4):
        made.table.insert({"n": i, "s": "ab", "t": "xyz", "b": True})
    made.table.update(1, {"n": None, "s": None, "t": None})
    made.table.delete(2)
    image = made.table.dump(0)
    block = 32 + 16 * made.table.group_slabs
    live, nulls, heap = block + 64, block + 72, block + 96
    cases = [
        (image[:20], "less than a header"),
        (damage(image, 0, "B", 0), "not a slab group"),
        (damage(image, 4, "<I", 3), "are .3, 4, 15, 96"),
        (damage(image, 12, "<I", 16), "are .*, not"),
        (damage(image, 24, "<Q", 2**63), "bytes, not"),
        (damage(image, 32, "<Q", 0), "without a block"),
        (damage(image, 32, "<Q", block + 8), "outside its place"),
        (damage(image, 40, "<I", 4), "number of live rows"),
        (damage(image, 44, "<I", 2**32 - 1), "outside its place"),
        (damage(image, 44, "<I", 5), "string outside|of no row"),
        (damage(image, 48, "<Q", block + 104), "outside its place"),
        (image + bytes(8), "bytes, not"),
        (damage(image + bytes(8), 24, "<Q", len(image) + 8), "are used"),
        (damage(image, live, "<Q", 0b11101), "past the last row"),
        (damage(image, live, "<Q", 0b0011), "number of live rows"),
        (damage(image, block + 60, "B", 1), "behind the records"),
        (damage(image, nulls, "<Q", 0b110), "null in a dead row"),
        (damage(image, nulls, "<Q", 0b10010), "null in a dead row"),
        (damage(image, block + 30, "B", 1), "dead row"),
        (damage(image, block + 12, "B", 2), "bool"),
        (damage(image, block + 13, "<H", 4), "longer than"),
        (damage(image, block + 13, "<H", 1), "short string"),
        (damage(image, block + 3, "B", 1), "short string"),
        (damage(image, nulls, "<Q", 0b1010), "null with a value"),
        (damage(image, nulls + 16, "<Q", 0b1010), "null with a value"),
        (damage(image, block + 45 + 4, "<II", 4, 3), "outside its place"),
        (damage(image, block + 45 + 4, "<II", 0, 3), "outside its place"),
        (damage(image, block + 45 + 4, "<II", 3, 4), "outside its place"),
        (damage(image, block + 45 + 4, "<II", 3, 2**32 - 1), "outside its place"),
        (damage(image, block + 45 + 4, "<II", 3, 2), "of no row"),
        (damage(image, block + 19, "<II", 1, 0), "null with a value|outside its place"),
        (damage(image, heap + 6, "B", 1), "behind the heap"),
    ]  # fmt: skip
    for bad, match in cases:
        fresh = make(kernels, columns, 52).table
        fresh.adopt(4, 3, None, pytest.fail)
        with pytest.raises(ValueError, match=match):
            fresh.load(0, bad)
        assert not any(map(fresh.contains, range(4)))
        fresh.load(0, memoryview(image))
        with pytest.raises(ValueError, match="here already"):
            fresh.load(0, image)
        assert fresh.dump(0) == image
    short = make(kernels, columns, 52).table
    short.adopt(3, 3, None, pytest.fail)
    with pytest.raises(ValueError, match="past the end"):
        short.load(0, image)
    shorter = make(kernels, columns, 52).table
    with pytest.raises(ValueError, match="past the end"):
        shorter.load(0, image)


# -- groups that come when they are asked for ------------------------------------


class Stored:
    """A table whose groups are in a dict."""

    def __init__(self, kernels: Any, rows: int = 900, page_size: int = 8000, dead: Any = ()) -> None:
        made = make(kernels, MIXED, page_size)
        made.table.extend(made.codec.encode_rows([mixed_row(i) for i in range(rows)]))
        for idx in dead:
            made.table.remove(idx)
        self.images = images(made.table)
        self.made = make(kernels, MIXED, page_size)
        self.table = self.made.table
        self.asked: list[int] = []
        self.missing = bytearray(c.mask_bytes(len(self.images)))
        for group in range(len(self.images)):
            self.missing[group >> 3] |= 1 << (group & 7)
        self.span = made.table.slab_rows * made.table.group_slabs
        self.table.adopt(made.table.rows, made.table.live, self.missing, self.fault)

    def fault(self, group: int) -> None:
        self.asked.append(group)
        self.table.load(group, self.images[group])
        self.missing[group >> 3] &= ~(1 << (group & 7))


def stored(kernels: Any, **options: Any) -> Stored:
    found = Stored(kernels, 4000, 2000, **options)
    assert len(found.images) > 3
    return found


def test_adopt(kernels: Any) -> None:
    table = make(kernels, PLAIN).table
    for rows, live in ((-1, 0), (1, -1), (1, 2), (2**70, 1)):
        with pytest.raises(ValueError, match="live rows"):
            table.adopt(rows, live, None, pytest.fail)
    with pytest.raises(TypeError):
        table.adopt(1, 1, b"\1", pytest.fail)
    with pytest.raises(TypeError):
        table.adopt("1", 1, None, pytest.fail)
    before = table.writes
    table.adopt(1000, 3, None, pytest.fail)
    assert (table.rows, table.live) == (1000, 3)
    assert table.writes > before
    assert table.get(5) is None
    assert table.insert(plain_row(5)) == 1000
    with pytest.raises(ValueError, match="1001 rows"):
        table.adopt(1000, 3, None, pytest.fail)


READS: dict[str, Callable[[Any, int], Any]] = {
    "get": lambda made, idx: made.table.get(idx) == mixed_row(idx),
    "get_raw": lambda made, idx: made.table.get_raw(idx) is not None,
    "contains": lambda made, idx: made.table.contains(idx),
    "update": lambda made, idx: made.table.update(idx, {"e": "new"}),
    "change": lambda made, idx: made.table.change(idx, {"e": "new"}),
    "put": lambda made, idx: made.table.put(idx, [(0, 5)]),
    "delete": lambda made, idx: made.table.delete(idx),
    "remove": lambda made, idx: made.table.remove(idx),
}


@pytest.mark.parametrize("name", list(READS))
def test_a_group_comes_when_asked_for(kernels: Any, name: str) -> None:
    file = stored(kernels)
    rows, live = file.table.rows, file.table.live
    assert READS[name](file.made, file.span + 5) in (True, None)
    assert file.asked == [1]
    assert (file.table.rows, file.table.live) == (rows, live - (name in ("delete", "remove")))
    assert file.table.get(file.span + 6) == mixed_row(file.span + 6)
    assert file.asked == [1]
    assert file.table.get(0) == mixed_row(0)
    assert file.asked == [1, 0]


def test_revive_asks(kernels: Any) -> None:
    file = stored(kernels, dead=[3])
    file.table.revive(3, file.made.codec.encode(mixed_row(3)))
    assert file.asked == [0]
    assert file.table.live == 4000
    with pytest.raises(ValueError, match="is live"):
        file.table.revive(file.span, file.made.codec.encode(mixed_row(3)))
    assert file.asked == [0, 1]
    with pytest.raises(KeyError):
        file.table.revive(4000, file.made.codec.encode(mixed_row(3)))


def test_ids_that_no_row_has_ask_nothing(kernels: Any) -> None:
    file = stored(kernels)
    for idx in (-1, 4000, 4001, 2**62, 2**70, -(2**70)):
        assert file.table.get(idx) is None
        assert not file.table.contains(idx)
        assert file.table.get_raw(idx) is None
        for write in (file.table.delete, file.table.remove):
            with pytest.raises(KeyError):
                write(idx)
        with pytest.raises(KeyError):
            file.table.update(idx, {})
    assert file.asked == []


@pytest.mark.parametrize("name", ["insert", "append", "append_values", "extend"])
def test_appending_asks_for_the_last_group(kernels: Any, name: str) -> None:
    file = stored(kernels)
    row: Any = mixed_row(4000)
    if name == "append_values":
        row = file.made.codec.encode(row)
    elif name == "extend":
        row = file.made.codec.encode_rows([row])
    assert getattr(file.table, name)(row) == 4000
    last = len(file.images) - 1
    assert file.asked == [last]
    assert [file.table.get(i) for i in (3999, 4000)] == [mixed_row(3999), mixed_row(4000)]
    assert file.asked == [last]


def test_dead_slabs_ask_once(kernels: Any) -> None:
    file = stored(kernels, dead=range(300))
    assert not file.table.contains(5)
    assert not file.table.contains(6)
    assert file.table.get(299) is None
    assert file.asked == [0]


def test_truncate_asks_for_what_it_takes_back(kernels: Any) -> None:
    file = stored(kernels, dead=[3500])
    file.table.truncate(4000)
    assert file.asked == []
    cut = 2 * file.span + 7
    file.table.truncate(cut)
    assert file.asked == list(range(2, len(file.images)))
    assert (file.table.rows, file.table.live) == (cut, cut)
    assert [file.table.get(i) for i in (cut - 1, 0)] == [mixed_row(cut - 1), mixed_row(0)]
    assert file.table.insert(mixed_row(1)) == cut
    file.table.truncate(0)
    assert (file.table.rows, file.table.live) == (0, 0)
    assert not any(file.missing)


def test_absorb_asks(kernels: Any) -> None:
    file = stored(kernels)
    other = make(kernels, MIXED, 2000)
    other.table.skip(4000)
    other.table.extend(other.codec.encode_rows([mixed_row(i) for i in range(4000, 4500)]))
    file.table.absorb(other.table)
    assert file.asked == [len(file.images) - 1]
    assert (file.table.rows, file.table.live) == (4500, 4500)
    assert all(file.table.get(i) == mixed_row(i) for i in range(4500))


def test_take_over_forgets_the_file(kernels: Any) -> None:
    file = stored(kernels)
    fresh = make(kernels, MIXED, 2000)
    fresh.table.insert(mixed_row(1))
    file.table.take_over(fresh.table)
    assert file.table.get(0) == mixed_row(1)
    assert file.table.get(1) is None
    assert file.asked == []


def test_dump_of_what_is_not_here(kernels: Any) -> None:
    file = stored(kernels)
    with pytest.raises(ValueError, match="not loaded"):
        file.table.dump(1)
    file.table.get(file.span)
    assert file.table.dump(1) == file.images[1]


@pytest.mark.parametrize("name", [*READS, "insert", "append", "extend", "truncate", "absorb", "revive"])
def test_a_group_that_does_not_come(kernels: Any, name: str) -> None:
    """An error of ``fault`` comes out, and so does its doing nothing; nothing has changed."""
    file = stored(kernels)
    other = make(kernels, MIXED, 2000)
    other.table.skip(4000)
    calls: dict[str, Callable[[], Any]] = {
        "insert": lambda: file.table.insert(mixed_row(1)),
        "append": lambda: file.table.append(mixed_row(1)),
        "extend": lambda: file.table.extend(file.made.codec.encode_rows([mixed_row(1)])),
        "truncate": lambda: file.table.truncate(10),
        "absorb": lambda: file.table.absorb(other.table),
        "revive": lambda: file.table.revive(0, file.made.codec.encode(mixed_row(3))),
    }
    call = calls.get(name, lambda: READS[name](file.made, 0))
    table = make(kernels, MIXED, 2000).table

    def refuse(group: int) -> None:
        raise OSError(f"group {group}")

    for fault, error in ((refuse, OSError), (lambda group: None, RuntimeError)):
        table = make(kernels, MIXED, 2000).table
        table.adopt(4000, 4000, file.missing, fault)
        file.table = file.made.table = table
        writes = table.writes
        with pytest.raises(error):
            call()
        assert (table.rows, table.live, table.writes) == (4000, 4000, writes)
    assert other.table.rows == 4000


@pytest.mark.parametrize("name", [*READS, "insert", "truncate"])
def test_a_group_that_is_gone_again(kernels: Any, name: str) -> None:
    """Another thread may go back to a state of the file as soon as a group is here: it is asked for again."""
    file = stored(kernels)
    calls = {"insert": lambda: file.table.insert(mixed_row(1)), "truncate": lambda: file.table.truncate(10)}
    call = calls.get(name, lambda: READS[name](file.made, 0))
    expected = call()
    file = stored(kernels)
    plain, tries = file.fault, [0]

    def fault(group: int) -> None:
        tries[0] += 1
        if tries[0] % 4 == 0:
            plain(group)

    table = make(kernels, MIXED, 2000).table
    table.adopt(4000, 4000, file.missing, fault)
    file.table = file.made.table = table
    assert call() == expected and tries[0] >= 4


def test_a_bit_that_is_cleared_elsewhere(kernels: Any) -> None:
    """``missing`` is shared: what others clear counts, and bits that are not there are clear."""
    file = stored(kernels)
    file.missing[0] = 0
    assert file.table.get(0) is None
    assert file.asked == []
    file.missing[0] = 2
    assert file.table.get(file.span) == mixed_row(file.span)
    del file.missing[:]
    assert file.table.get(2 * file.span) is None


def test_groups_come_to_many_threads(kernels: Any) -> None:
    file = stored(kernels)
    plain, lock = file.fault, threading.RLock()

    def fault(group: int) -> None:
        with lock:
            if file.missing[group >> 3] >> (group & 7) & 1:
                plain(group)

    table = make(kernels, MIXED, 2000).table
    table.adopt(4000, 4000, file.missing, fault)
    file.table = table
    wrong: list[int] = []

    def read(seed: int) -> None:
        order = list(range(0, 4000, 7))
        random.Random(seed).shuffle(order)
        wrong.extend(i for i in order if table.get(i) != mixed_row(i))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(file.asked) == list(range(len(file.images)))
