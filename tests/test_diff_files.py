"""What differs between two states of a table in a file: against dicts, at a cost that follows the difference, beside a
writer, and of damaged files.
"""

from __future__ import annotations

import gc
import random
import struct
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Callable, Optional

import entry_disk
import pytest
from conftest import Files
from model import bits
from people import SCHEMA, people, person

from snapdb import ColumnarTable, ColumnDef, Schema, SnapDB, _ext, differing, errors, row_diff, row_scattered
from snapdb.differing import Difference
from snapdb.pieces import Entry, Piece, Ref
from snapdb.row_file import GROUP, PATCH
from snapdb.row_scattered import ROW, SCATTERED, SCATTERED_KEY, encode_bits, pack_rows
from snapdb.rowstore import RowTable
from snapdb.storage.extents import Extents

Rows = dict[int, Any]
Engine = Any

WIDE = Schema(  # few rows a group
    [
        ColumnDef("k", "i64"),
        ColumnDef("pad", "bytes:6000"),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("g", "f32"),
        ColumnDef("day", "date", not_null=False),
    ]
)
PAGE = {"row": 8192, "columnar": 4096}
NUMBERS = Schema([ColumnDef("n", "i64"), ColumnDef("f", "f64", not_null=False), ColumnDef("t", "str", not_null=False)])


class Disk(entry_disk.Disk):
    """Nothing that was written ever goes, as where snapshots keep it."""

    def collect(self) -> None:
        pass


class Kept:
    """A state of a table in a file, and its rows."""

    def __init__(self, disk: Disk, table: Engine) -> None:
        self.header: dict[str, Any] = disk.checkpoint(table)
        self.tree = dict(disk.tree)
        self.disk = disk
        self.rows: Rows = {idx: repr(row) for idx, row in table.items()}  # the bits of floats, but for those of NaN

    def entry(self, key: int) -> Optional[Entry]:
        return self.tree.get(key)

    def read(self, ref: Ref) -> memoryview:
        return self.disk.read(ref)

    def differing(self, other: Kept) -> Iterable[tuple[int, Optional[Entry], Optional[Entry]]]:
        for key in sorted({*self.tree, *other.tree}):
            if self.tree.get(key) != other.tree.get(key):
                yield key, self.tree.get(key), other.tree.get(key)


def made(engine: str, backend: str, schema: Schema) -> Engine:
    return (
        RowTable(schema, PAGE[engine], backend=backend)
        if engine == "row"
        else ColumnarTable("t", schema, backend=backend)
    )


def adopted(engine: str, backend: str, schema: Schema, header: Mapping[str, Any], disk: Disk) -> Engine:
    table = made(engine, backend, schema)
    table.adopt(header, disk)
    return table


def expected(a: Mapping[int, Any], b: Mapping[int, Any]) -> Difference:
    return Difference(
        sorted(b.keys() - a.keys()),
        sorted(idx for idx in a.keys() & b.keys() if a[idx] != b[idx]),
        sorted(a.keys() - b.keys()),
    )


def same(found: Difference, wanted: Difference) -> None:
    """Long lists are not compared by pytest, which would take minutes to say where they differ."""
    for one, other in zip(found, wanted):
        assert len(one) == len(other)
        assert bool(one == other)


def wide(i: int) -> dict[str, Any]:
    return {
        "k": i, "pad": "p" * (i % 400), "s": None if i % 3 == 0 else f"text {i}" * (i % 5),
        "f": None if i % 4 == 0 else i / 8, "g": i / 4, "day": None,
    }  # fmt: skip


def change(draw: random.Random) -> dict[str, Any]:
    return draw.choice(
        [
            {"f": draw.choice([0.0, -0.0, float("nan"), None, 1.5, draw.random()])},
            {"g": draw.choice([0.0, -0.0, float("nan"), 1.5])},
            {"s": draw.choice([None, "", "é", "\0", "x" * draw.randrange(3000)])},
            {"k": draw.randrange(5), "day": None},
            {"pad": "q" * draw.randrange(6000)},
        ]
    )


# -- against dicts -------------------------------------------------------------
@contextmanager
def small_limits(yes: bool) -> Iterator[None]:
    """Scattered changes are folded early."""
    before = row_scattered.LIMIT, row_scattered.MOST
    if yes:
        row_scattered.LIMIT, row_scattered.MOST = 3000, 6
    try:
        yield
    finally:
        row_scattered.LIMIT, row_scattered.MOST = before


@pytest.mark.parametrize("seed", range(6))
def test_random_states_against_dicts(engine: str, backend_name: str, seed: int) -> None:
    """Every two states of a table's life are compared, those across which everything was stored anew included."""
    draw = random.Random(seed)
    disk = Disk()
    table = adopted(engine, backend_name, WIDE, {"rows": 0, "live": 0}, disk)
    count = (0, 30, 150, 700, 400, 90)[seed]
    table.batch_insert([wide(i) for i in range(count)])
    states, seen = [Kept(disk, table)], set()
    with small_limits(seed % 2 == 0):
        for _ in range(12):
            live = list(states[-1].rows)
            for _ in range(draw.choice((1, 1, 2))):
                step = draw.randrange(6)
                if step == 0 and live:
                    gone = set(draw.sample(live, min(len(live), draw.choice((1, 3, 40)))))
                    live = [idx for idx in live if idx not in gone]
                    table.remove(sorted(gone))
                elif step == 1:
                    table.batch_insert([wide(draw.randrange(99)) for _ in range(draw.choice((1, 9, 60)))])
                elif live:
                    some = draw.sample(live, min(len(live), draw.choice((1, 4, 12, 30, 200))))
                    table.apply([table.plan_update(idx, change(draw)) for idx in some])
            states.append(Kept(disk, table))
            seen |= {piece.tag >> 24 for entry in disk.tree.values() for piece in entry.pieces}
            if draw.randrange(4) == 0:
                table = adopted(engine, backend_name, WIDE, states[-1].header, disk)
            elif draw.randrange(4) == 0:  # gone back to; what comes now has nothing to do with what came then
                back = draw.choice(states)
                disk.tree = dict(back.tree)
                table = adopted(engine, backend_name, WIDE, back.header, disk)
                states.append(Kept(disk, table))
    other = made(engine, backend_name, WIDE)
    pairs = [*zip(states, states[1:]), *zip(states[1:], states)]
    for a, b in [*pairs, *((draw.choice(states), draw.choice(states)) for _ in range(25))]:
        same(other.compare_stored(a, b), expected(a.rows, b.rows))
    assert len(other) == 0
    if engine == "row" and count >= 90:
        assert seen >= {GROUP >> 24, PATCH >> 24, SCATTERED >> 24}


@pytest.mark.parametrize("count", [40, 1500])
def test_lives_that_went_apart(engine: str, backend_name: str, count: int) -> None:
    """One state gone on with in several ways: the same ids are rows of which one value is another, updated or not."""
    disk = Disk()
    table = adopted(engine, backend_name, WIDE, {"rows": 0, "live": 0}, disk)
    table.batch_insert([wide(i) for i in range(count)])
    first = Kept(disk, table)
    states = [first]
    for new, updated in (
        ([1, 2, 3, 4, 5, 6], {}), ([1, 9, 3, 9, 5, 9], {}), ([1, 9, 3, 9, 5], {1: "x", 3: "x", 4: "x", -2: "x"}),
        ([1, 2, 3, 4, 5, 6], {1: "x", 3: "y", 4: "x", 5: "x", -2: "x"}), ([1, 9, 3, 8], {0: "1", 1: "2", 2: "3"}),
        ([], {-2: "y"}),
    ):  # fmt: skip
        disk.tree = dict(first.tree)
        table = adopted(engine, backend_name, WIDE, first.header, disk)
        if new:
            table.batch_insert([{**wide(at), "s": str(text)} for at, text in enumerate(new)])
        states.append(Kept(disk, table))
        table.apply([table.plan_update(count + row, {"s": text}) for row, text in updated.items()])
        states.append(Kept(disk, table))
        if new:
            table.remove([count + 2, count - 1])
            states.append(Kept(disk, table))
    fresh = made(engine, backend_name, WIDE)
    pairs = [(a, b) for a in states for b in states]
    for a, b in pairs if count == 40 else random.Random(7).sample(pairs, 60):
        same(fresh.compare_stored(a, b), expected(a.rows, b.rows))


@pytest.mark.parametrize("backend", _ext.available())
def test_segments_against_dicts(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one columnar segment; chunks in parts, sealed anew, with rows of nothing but deleted ones."""
    monkeypatch.setattr(_ext, "BACKEND", backend)
    disk, count = Disk(), 65536 + 9000
    table = adopted("columnar", backend, NUMBERS, {"rows": 0, "live": 0}, disk)
    table.insert_columns(
        {"n": array("q", range(count)), "f": array("d", bytes(8 * count)), "t": [f"t{i % 50}" for i in range(count)]}
    )
    states = [Kept(disk, table)]

    def keep() -> None:
        states.append(Kept(disk, table))

    draw = random.Random(3)
    for _ in range(2):
        for idx in draw.sample(range(count), 30):
            table.update(idx, {"f": draw.choice([-0.0, 1.0]), "t": "new"} if idx % 2 else {"f": 0.0})
        keep()
    table.apply([table.plan_update(idx, {"n": 7}) for idx in range(20_000, 22_000)])  # sealed anew
    keep()
    table.remove(range(70_000, count))
    keep()
    table.insert_columns({"n": range(3000), "f": [None] * 3000, "t": ["late"] * 3000})  # the open segment is folded
    table.remove(range(65_000, 65_536))
    keep()
    table.remove(range(65_000))
    keep()
    fresh = made("columnar", backend, NUMBERS)
    for a, b in [*zip(states, states[1:]), *zip(states[1:], states), (states[0], states[-1]), (states[4], states[1])]:
        same(fresh.compare_stored(a, b), expected(a.rows, b.rows))


# -- in files ------------------------------------------------------------------
def rows_of(db: SnapDB) -> Rows:
    return {idx: bits(row) for idx, row in db}


@pytest.mark.parametrize("options", [{}, {"encryption_key": b"k" * 32}], ids=["plain", "sealed"])
def test_a_life_of_a_file(files: Files, engine: str, options: dict[str, Any]) -> None:
    """All pairs of snapshots of a file: through reopening, kills, restores, compaction, read-only handles."""
    if options:
        pytest.importorskip("cryptography")
    draw = random.Random(5)
    db = files.open(SCHEMA, **options)
    db.batch_insert(people(700))
    kept: dict[str, tuple[int, Rows]] = {}
    generations = [0]

    def keep(name: str) -> None:
        db.snapshot(name)
        kept[name] = (generations[-1], rows_of(db))

    def work(low: int) -> None:
        for idx in draw.sample(sorted(kept[next(iter(kept))][1]), 25):
            if db.get(idx) is not None:
                db.update(idx, {"name": f"changed {idx}", "score": draw.choice([0.0, -0.0, None, 2.5])})
        db.delete_where([("id", "between", (1000 + low, 1003 + low))])
        db.batch_insert([person(2000 + low + i) for i in range(3)])

    def check(db: SnapDB) -> None:
        for a, (a_generation, a_rows) in kept.items():
            for b, (b_generation, b_rows) in kept.items():
                if a_generation == b_generation:
                    same(Difference(**db.diff_snapshots(a, b)), expected(a_rows, b_rows))
                    continue
                one, other = by_key(a_rows), by_key(b_rows)
                wanted = Difference(
                    sorted(other[key][0] for key in other.keys() - one.keys()),
                    sorted(other[key][0] for key in one.keys() & other.keys() if one[key][1] != other[key][1]),
                    sorted(one[key][0] for key in one.keys() - other.keys()),
                )
                same(Difference(**db.diff_snapshots(a, b)), wanted)

    keep("first")
    work(10)
    keep("second")
    db.close()
    db = files.open(**options)
    work(20)
    keep("third")
    work(30)
    db = files.kill(db, **options)
    keep("fourth")
    db.restore("second")
    work(40)
    keep("fifth")
    check(db)
    db.compact()
    generations.append(1)
    work(50)
    keep("sixth")
    db.drop_snapshot("third")
    del kept["third"]
    work(60)
    keep("seventh")
    db.checkpoint()
    check(db)
    db.close()
    db = files.open(read_only=True, **options)
    check(db)
    assert db.diff_snapshots("first", "first") == {"added": [], "changed": [], "removed": []}


def by_key(rows: Rows) -> dict[Any, tuple[int, Any]]:
    return {str(row[0]): (idx, row) for idx, row in rows.items()}


# -- what it costs ---------------------------------------------------------------
class Reads:
    """What is read of a file, in its place in the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces: list[Ref] = []
        self.nodes: list[Ref] = []
        read, load = Extents.read, Extents.load
        monkeypatch.setattr(
            Extents, "read", lambda extents, ref, *a: [self.pieces.append(ref), read(extents, ref, *a)][1]
        )
        monkeypatch.setattr(Extents, "load", lambda extents, ref: [self.nodes.append(ref), load(extents, ref)][1])

    def of(self, work: Callable[[], Any]) -> tuple[Any, int, int, int]:
        """(result, pieces, bytes of these, nodes)."""
        self.pieces.clear()
        self.nodes.clear()
        found = work()
        return found, len(self.pieces), sum(ref.length for ref in self.pieces), len(self.nodes)


def filled(files: Files, rows: int) -> SnapDB:
    db = files.open(NUMBERS, f"{rows}.snapdb")
    db.insert_columns(
        {"n": array("q", range(rows)), "f": array("d", range(rows)), "t": [f"t{i % 99}" for i in range(rows)]}
    )
    return db


def test_the_cost_follows_the_difference(
    files: Files, engine: str, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Reads(monkeypatch)
    found = {}
    for rows in (40_000, 80_000) if backend_name == "python" else (150_000, 600_000):
        db = filled(files, rows)
        db.snapshot("a")
        db.snapshot("same")
        assert counted.of(lambda db=db: db.diff_snapshots("a", "same"))[1:3] == (0, 0)
        ids = list(range(0, rows, rows // 5))
        for idx in ids:
            db.update(idx, {"f": -1.0})
        db.snapshot("b")
        changed, *found[rows] = counted.of(lambda db=db: db.diff_snapshots("a", "b"))
        assert changed == {"added": [], "changed": ids, "removed": []}
        for _ in range(3):
            start = db.insert({"n": 0, "f": None, "t": None})
        db.delete(7)
        db.snapshot("c")
        changed, pieces, size, nodes = counted.of(lambda db=db: db.diff_snapshots("b", "c"))
        assert changed == {"added": [start - 2, start - 1, start], "changed": [], "removed": [7]}
        assert pieces <= 12 and nodes <= 6
        assert size <= 500_000
        db.close()
    (few, small, nodes), (more, larger, its) = found.values()
    if engine == "row":  # the scattered changes, and the image of each row's group
        assert few == more <= 6 and larger <= 6 * 66_000
    else:  # updates and the chunk of one column of each segment
        assert more <= 5 * 2 and max(small, larger) <= 5 * (65536 * 8 + 1000)
    assert max(nodes, its) <= 6


def test_the_table_is_left_alone(files: Files, engine: str, backend_name: str) -> None:
    """Nothing of it is loaded, and what a diff reads is not kept."""
    rows = 20_000 if backend_name == "python" else 140_000
    db = filled(files, rows)
    db.snapshot("a")
    db.update(5, {"t": "x"})
    db.update(rows - 1, {"t": "x"})
    db.snapshot("b")
    db.close()
    for read_only in (True, False):
        db = files.open(name=f"{rows}.snapdb", read_only=read_only)
        before = db.memory_usage()
        assert db.diff_snapshots("a", "b")["changed"] == [5, rows - 1]
        assert db.memory_usage() == before
        assert db.stats()["wal_bytes"] == 0
        db.close()


# -- beside others -----------------------------------------------------------------
def test_a_diff_goes_on_beside_a_transaction(files: Files) -> None:
    """Another thread's transaction has the table to itself; a diff that was begun does not wait for it."""
    db = filled(files, 9000)
    db.snapshot("a")
    db.update(17, {"t": "changed"})
    db.delete(4000)
    db.snapshot("b")
    with db._engine.lock:
        find = db._snapshots.differ("a", "b")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(find()))
    with db.transaction():
        db.update(18, {"t": "in the transaction"})
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert found == [Difference([], [17], [4000])]


def test_diffs_beside_a_writer(files: Files, backend_name: str) -> None:
    """What a diff reads stays where it is whatever is written, checkpointed and dropped meanwhile."""
    rows = 3000
    db = filled(files, rows)
    model: dict[str, dict[int, int]] = {}
    wrong: list[Any] = []
    stop = threading.Event()
    values = dict.fromkeys(range(rows), 0)

    def keep(name: str) -> None:
        db.snapshot(name)
        model[name] = dict(values)

    keep("0")
    keep("1")

    def compare() -> None:
        while not stop.is_set():
            a, b = sorted(model, key=int)[-2:]
            try:
                found = db.diff_snapshots(a, b)
            except errors.NotFoundError:
                continue
            if found["changed"] != sorted(idx for idx in model[a] if model[a][idx] != model[b][idx]):
                wrong.append((a, b, found))

    threads = [threading.Thread(target=compare) for _ in range(2)]
    for thread in threads:
        thread.start()
    draw = random.Random(1)
    try:
        for number in range(2, 14 if backend_name == "python" else 40):
            for idx in draw.sample(range(rows), 40):
                values[idx] = number
                db.update(idx, {"n": 10**6 + number})
            keep(str(number))
            if number > 6:
                with suppress(errors.SnapshotInUseError):
                    db.drop_snapshot(str(number - 5))
            if number % 7 == 0:
                db.checkpoint()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


# -- damage ------------------------------------------------------------------------
def test_every_damaged_piece_is_found(files: Files, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = filled(files, 9000)
    db.snapshot("a")
    for idx in (3, 4000, 8999):
        db.update(idx, {"t": "changed", "f": None})
    db.delete(10)
    db.insert({"n": 1, "f": 2.0, "t": "t"})
    db.snapshot("b")
    db.batch_update([("n", "lt", 2000)], {"n": -1})
    db.snapshot("c")
    db.close()
    name = "9000.snapdb"
    contents = files.contents()[name]
    counted = Reads(monkeypatch)
    pairs = [("a", "b"), ("b", "c")]
    for a, b in pairs:
        db = files.open(name=name, read_only=True)
        counted.of(lambda db=db, a=a, b=b: db.diff_snapshots(a, b))
        places = {ref.extent + ref.at + ref.length // 2 for ref in counted.pieces}
        db.close()
        assert places
        for place in sorted(places):
            files.write(name, bytes([contents[place] ^ 0x10]), place)
            try:
                with pytest.raises(errors.CorruptionError), files.open(name=name, read_only=True) as damaged:
                    damaged.diff_snapshots(a, b)  # if the table's own open segment is not the damaged one
            finally:
                files.write(name, contents[place : place + 1], place)


def damaged_states(engine: str, backend: str) -> tuple[Engine, list[Kept]]:
    disk = Disk()
    table = adopted(engine, backend, WIDE, {"rows": 0, "live": 0}, disk)
    count = 60 if engine == "row" else 1500
    table.batch_insert([wide(i) for i in range(count)])
    table.remove([count - 1])
    states = [Kept(disk, table)]
    for step in range(3):
        table.apply([table.plan_update(idx, {"s": f"step {step}", "f": -0.0}) for idx in range(step, count - 1, 11)])
        if step == 1:
            table.apply([table.plan_update(idx, {"s": "much" * 9}) for idx in range(12)])
        table.batch_insert([wide(5)])
        states.append(Kept(disk, table))
    return made(engine, backend, WIDE), states


def test_bytes_are_not_trusted(engine: str, backend_name: str) -> None:
    """Whatever stands below checksums that are right: an answer or CorruptionError, and ids that make sense."""
    table, states = damaged_states(engine, backend_name)
    disk = states[0].disk
    draw = random.Random(0)
    refused = 0
    for _ in range(150 if backend_name == "python" else 400):
        a, b = draw.sample(states, 2)
        key = draw.choice(sorted({*a.tree, *b.tree}))
        victim = draw.choice([state for state in (a, b) if key in state.tree])
        good, header = victim.tree[key], victim.header
        pieces = list(good.pieces)
        at = draw.randrange(len(pieces))
        piece = pieces[at]
        what = draw.randrange(8)
        assert piece.ref is not None
        if what == 0:
            pieces[at] = piece._replace(meta=draw.choice([b"", b"\1", b"\xff" * 8, piece.meta + b"\0"]))
        elif what == 1:
            pieces[at] = piece._replace(tag=draw.choice([0, PATCH, SCATTERED, GROUP, 1 << 24, 3 << 24, 99 << 24]))
        elif what == 2:
            del pieces[at]
        elif what == 3:
            pieces.append(draw.choice(pieces))
        elif what == 4:
            victim.header = {**header, "rows": draw.choice([0, 1, header["rows"] - 1, 10**6, -1, None, "x"]), "live": 0}
        else:
            data = bytearray(disk.read(piece.ref))
            for _ in range(draw.randrange(1, 4)):
                data[draw.randrange(len(data))] = draw.choice([0, 1, 0xFF, draw.randrange(256)])
            data = data[: draw.choice([len(data), len(data), draw.randrange(len(data))])]
            pieces[at] = disk.write(Entry(b"", [Piece(piece.tag, piece.meta, bytes(data))])).pieces[0]
        victim.tree[key] = Entry(draw.choice([b"", b"", b"", b"x"]), pieces)
        try:
            found = table.compare_stored(a, b)
        except errors.CorruptionError:
            refused += 1
        else:
            for ids in found:
                assert ids == sorted(set(ids)) and all(idx >= 0 for idx in ids)
        victim.tree[key], victim.header = good, header
    assert refused > 50
    for a in states:
        for b in states:
            same(table.compare_stored(a, b), expected(a.rows, b.rows))


# -- scattered changes -------------------------------------------------------------
def scattered(backend: str) -> tuple[RowTable, int, Kept, Callable[..., Kept]]:
    """A table of ten groups, the rows of each, its state, and what makes a state of it with other scattered changes:
    pieces of (groups in which they count, rows).
    """
    disk = Disk()
    table = adopted("row", backend, WIDE, {"rows": 0, "live": 0}, disk)
    span = int(table.slabs.slab_rows * table.slabs.group_slabs)
    table.batch_insert([wide(i) for i in range(span * 10)])
    plain = Kept(disk, table)
    known: dict[Any, Piece] = {}

    def state(*pieces: tuple[list[int], Mapping[int, Optional[dict[str, Any]]]]) -> Kept:
        new = Kept.__new__(Kept)
        new.disk, new.header, new.tree, new.rows = disk, plain.header, dict(plain.tree), dict(plain.rows)
        found = []
        for groups, rows in pieces:
            key = str(rows)
            if key not in known:
                packed = {
                    idx: None if row is None else table.codec.pack(table.codec.encode(row)) for idx, row in rows.items()
                }
                known[key] = disk.write(Entry(b"", [Piece(SCATTERED, b"", pack_rows(packed))])).pieces[0]
            found.append(known[key]._replace(meta=encode_bits(sum(1 << group for group in groups))))
            for idx, row in rows.items():
                if idx // span in groups:
                    if row is None:
                        new.rows.pop(idx, None)
                    else:
                        new.rows[idx] = repr(row)
        if found:
            new.tree[SCATTERED_KEY] = Entry(b"", found)
        return new

    return made("row", backend, WIDE), span, plain, state


def test_which_scattered_changes_count(backend_name: str) -> None:
    table, span, plain, state = scattered(backend_name)
    one = {0: wide(70), 1: None, 30: wide(71)}
    other = {0: wide(72), 1: wide(73), 50: None}
    back = {0: wide(0), 30: wide(30)}
    groups = [sorted({idx // span for idx in rows}) for rows in (one, other, back)]
    states = [
        plain, state((groups[0], one)), state((groups[0], one), (groups[1], other)), state((groups[1], other)),
        state((groups[1], other), (groups[0], one)), state(([0], one)), state((groups[0][1:], one), (groups[1], other)),
        state((groups[0], one), (groups[2], back)), state((groups[2], back)),
        state(([0], one), ([0], other), ([0], back)),
    ]  # fmt: skip
    for a in states:
        for b in states:
            assert table.compare_stored(a, b) == expected(a.rows, b.rows)


def test_scattered_changes_are_later_than_patches_and_images(backend_name: str) -> None:
    """Also where both states have them alike, and what they are put over is not the same."""
    table, span, plain, state = scattered(backend_name)
    pack = table.codec.pack
    packed = [pack(table.codec.encode(wide(i))) for i in (60, 61)]
    a, b, c = (state(([0], {0: wide(80), 1: None}), ([1], {span: wide(81)})) for _ in range(3))
    patch = struct.pack("<II", 3, 0) + b"".join(
        struct.pack("<IBxxxI", row, 1, len(packed[row & 1])) + packed[row & 1] for row in range(3)
    )
    image = plain.tree[0].pieces[0]
    b.tree[0] = b.disk.write(Entry(b"", [image, Piece(PATCH, b"", patch)]))
    b.rows[2] = repr(wide(60))
    c.tree[0] = c.disk.write(Entry(b"", [Piece(GROUP, b"", bytes(c.read(image.ref)))]))  # type: ignore[arg-type]
    c.tree[1] = plain.tree[2]
    c.rows.update({span + row: plain.rows[2 * span + row] for row in range(1, span)})
    for one in (a, b, c):
        for other in (a, b, c):
            assert table.compare_stored(one, other) == expected(one.rows, other.rows)


@pytest.mark.parametrize("dtype", ["i32", "f64", "str"])
def test_rows_by_their_keys(engine: str, backend_name: str, dtype: str) -> None:
    """Across a compaction, over segments, and where the rows come in another order."""
    schema = Schema(
        [ColumnDef("v", "f64", not_null=False), ColumnDef("key", dtype, primary_key=True), ColumnDef("s", "str")]
    )
    value: Callable[[int], Any] = {"i32": int, "f64": float, "str": str}[dtype]
    count = 2 * 65536 + 100 if backend_name == "c" else 3000
    tables, rows = [], []
    for step in (0, 1):
        table = made(engine, backend_name, schema)
        others = [*range(9, count - 700), 3, 1, 2, *range(count - 700, count - 500), *range(count, count + 20), 4]
        keys = others if step else list(range(count))
        values = [-0.0 if step and key % 1000 == 11 else 0.0 for key in keys]
        texts = ["other" if step and key in (2, 20, count - 600) else "s" for key in keys]
        table.extend(table.stage_columns({"v": values, "key": list(map(value, keys)), "s": texts}))
        if dtype == "f64":
            table.batch_insert([{"v": None, "key": float("nan"), "s": "s"}])
        table.remove([5, 6])
        tables.append(table)
        rows.append(
            {key: (at, str(v), text) for at, (key, v, text) in enumerate(zip(keys, values, texts)) if at not in (5, 6)}
        )
    one, other = rows
    nans = [[table.rows - 1] if dtype == "f64" else [] for table in tables]
    wanted = Difference(
        sorted([*(other[key][0] for key in other.keys() - one.keys()), *nans[1]]),
        sorted(other[key][0] for key in other.keys() & one.keys() if other[key][1:] != one[key][1:]),
        sorted([*(one[key][0] for key in one.keys() - other.keys()), *nans[0]]),
    )
    with tables[0].view() as before, tables[1].view() as after:
        same(differing.by_key(before, after, "key"), wanted)


def test_rows_that_are_none() -> None:
    """What is read fast refuses what it must not take for rows."""
    good = pack_rows({3: b"three", 7: None, 9: b""})
    assert row_diff._rows_in(good, ROW, 10) == {3: b"three", 7: None, 9: b""}
    three, seven = ROW.pack(3, 1, bytes(3), 5) + b"three", ROW.pack(7, 0, bytes(3), 0)
    for data in (
        b"", good[:-1], good + b"\0", good[:20], struct.pack("<II", 2**32 - 1, 0) + three,
        struct.pack("<II", 2, 0) + seven + three, struct.pack("<II", 2, 0) + three + three,
        struct.pack("<II", 3, 0) + three + three + seven,
        struct.pack("<II", 1, 0) + ROW.pack(3, 1, bytes(3), 6) + b"three",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="cut short|do not ascend"):
            row_diff._rows_in(data, ROW, 10)
    with pytest.raises(ValueError, match="past the end"):
        row_diff._rows_in(good, ROW, 9)


def test_common_scattered_changes_are_read_once_and_images_where_needed(backend_name: str) -> None:
    table, span, plain, state = scattered(backend_name)
    pieces = [({group}, {group * span: wide(90 + group)}) for group in range(10)]
    a, b = (state(*[(sorted(groups), rows) for groups, rows in pieces[:count]]) for count in (9, 10))
    a.disk.reads.clear()
    assert table.compare_stored(a, b) == Difference([], [9 * span], [])
    images = [ref for ref in a.disk.reads if ref == plain.tree[9].pieces[0].ref]
    assert len(a.disk.reads) == 2 and len(images) == 1  # the new piece, and what its row was before


def test_nothing_is_held_afterwards(files: Files) -> None:
    """No view of the file outlives a comparison or a check until the next collection of garbage: compact() cuts it."""
    keyed = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("s", "str")])
    db = files.open(keyed)
    db.batch_insert({"id": i, "s": f"{i * 7919 % 100_003} unlike the others"} for i in range(3000))
    db.snapshot("a")
    db.delete(0)
    db.compact()
    db.snapshot("b")
    gc.collect()
    gc.disable()
    try:
        assert db.diff_snapshots("a", "b")["changed"] == []
        assert db._file is not None and db._file.store.extents.idle()
        assert db.fsck(full=True)["ok"]
        assert db._file.store.extents.idle()
        with db.open_snapshot("a") as shown:
            assert len(shown.select()) == 3000
        assert db._file.store.extents.idle()
    finally:
        gc.enable()
