"""Snapshots in storage: the bytes of records, frames and dead lists, and the rules for extents against plain sets."""

from __future__ import annotations

import random
import struct
from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.errors import CorruptionError, InternalError
from snapdb.pieces import Ref
from snapdb.storage import snapshots
from snapdb.storage.extents import HEADER
from snapdb.storage.nodes import Bad
from snapdb.storage.snapshots import (
    LIST_LIMIT,
    Dead,
    History,
    Snapshot,
    decode_dead,
    decode_frame,
    decode_snapshots,
    encode_dead,
    encode_frame,
)
from snapdb.storage.superblock import PAGE, PREAMBLE

Place = tuple[int, int]
ROOT = Ref(0x9000, 0x1000, 128, 99, 0xCAFEF00D)
LIST = Ref(0xA000, 0x1000, 128, 40, 8)
ONE = Snapshot(3, "naïve", 5, 70, 1_000_000, ROOT, b"{}", (LIST, LIST._replace(extent=0xB000)), 9, 40_960)


# -- bytes -------------------------------------------------------------------
def test_record_bytes() -> None:
    data = ONE.encode()
    assert len(data) == 64 + 3 * 32 + 6 + 2
    assert struct.unpack_from("<IHH", data) == (168, 6, 2)
    assert struct.unpack_from("<QQQQ", data, 8) == (3, 5, 70, 1_000_000)
    assert struct.unpack_from("<IIQQ", data, 40) == (2, 0, 9, 40_960)
    assert struct.unpack_from("<QIIQQ", data, 64) == (0x9000, 1, 0xCAFEF00D, 128, 99)
    assert struct.unpack_from("<QIIQQ", data, 96) == (0xA000, 1, 8, 128, 40)
    assert struct.unpack_from("<QIIQQ", data, 128) == (0xB000, 1, 8, 128, 40)
    assert data[160:] == "naïve".encode() + b"{}"
    (read,) = decode_snapshots(data, 1)
    assert read == ONE and read.encode() == data and read._replace(lsn=71).encode() == ONE._replace(lsn=71).encode()
    padded = ONE._replace(name="x")
    assert len(padded.encode()) == 168 and not any(padded.encode()[163:])
    assert decode_snapshots(data + padded._replace(serial=4).encode(), 2) == [ONE, padded._replace(serial=4)]


def test_frame_bytes() -> None:
    data = encode_frame(ONE)
    plain = ONE._replace(lists=(), dead=0, dead_bytes=0)
    assert data[:8] == bytes(8) and data[8:] == plain.encode()
    assert decode_frame(memoryview(data)) == plain
    for bad in (b"", data[:7], data[:-8], data + bytes(8), b"\1" + data[1:], data[:4] + b"\2" + data[5:],
                data[:4] + b"\1" + data[5:], bytes(8) + ONE.encode()):  # fmt: skip
        with pytest.raises(CorruptionError):
            decode_frame(bad)


def test_records_and_frames_with_tags() -> None:
    """In an encrypted file 16 bytes stand behind each reference."""
    one = ONE._replace(root=ROOT._replace(tag=b"r" * 16), lists=tuple(ref._replace(tag=b"l" * 16) for ref in ONE.lists))
    data, plain = one.encode(), ONE.encode()
    assert data[64:112] == plain[64:96] + b"r" * 16 and data[112:160] == plain[96:128] + b"l" * 16
    assert decode_snapshots(data, 1, True) == [one] and decode_snapshots(plain, 1) == [ONE]
    for wrong, kind in ((data, False), (plain, True)):
        with pytest.raises(Bad):
            decode_snapshots(wrong, 1, kind)
    frame = encode_frame(one)
    assert frame[:8] == b"\0\0\0\0\1\0\0\0"
    assert decode_frame(frame, True) == one._replace(lists=(), dead=0, dead_bytes=0)
    for wrong, kind in ((frame, False), (encode_frame(ONE), True), (bytes(8) + frame[8:], True)):
        with pytest.raises(CorruptionError):
            decode_frame(wrong, kind)


def test_dead_list_bytes() -> None:
    items = [Dead(0x4000, 0x1000, 5), Dead(0x5000, 0x3000, 0), Dead(0x9000, 0x1000, 9)]
    data = encode_dead(items)
    assert data[:16] == b"SNDL\3" + bytes(11) and len(data) == 16 + 3 * 24
    assert struct.unpack_from("<QIIQ", data, 40) == (0x5000, 3, 0, 0)
    assert decode_dead(data) == items == decode_dead(data, 0xA000)
    full = [Dead(PREAMBLE + PAGE * at, PAGE, at) for at in range(LIST_LIMIT)]
    assert len(encode_dead(full)) <= (64 << 10) - HEADER and decode_dead(encode_dead(full)) == full
    for wrong in ([], [*full, Dead(1 << 40, PAGE, 1)]):
        with pytest.raises(InternalError):
            encode_dead(wrong)
    with pytest.raises(Bad):
        decode_dead(data, 0x9000)
    for place, value in ((0, 0), (4, 2), (4, 4), (4, 0), (8, 1), (17, 0x30), (16, 1), (24, 0), (24, 2), (28, 1),
                         (39, 255), (41, 0x40)):  # fmt: skip
        bad = bytearray(data)
        bad[place] = value
        with pytest.raises(Bad):
            decode_dead(bytes(bad))
    for size in (0, 3, 15, 16, len(data) - 1):
        with pytest.raises(Bad):
            decode_dead(data[:size])


def bad_records() -> list[tuple[str, bytes]]:
    good = ONE.encode()

    def put(at: int, form: str, *values: int) -> bytes:
        data = bytearray(good)
        struct.pack_into(form, data, at, *values)
        return bytes(data)

    return [
        ("short", good[:95]), ("cut", good[:-8]), ("more", good + bytes(8)), ("size", put(0, "<I", 160)),
        ("huge", put(0, "<I", 0xFFFFFFF8)), ("no name", put(4, "<H", 0)), ("name", put(4, "<H", 0xFFFF)),
        ("meta", put(6, "<H", 0xFFFF)), ("serial 0", put(8, "<Q", 0)), ("serial", put(8, "<Q", 1 << 61)),
        ("generation", put(16, "<Q", 1 << 61)), ("lists", put(40, "<I", 1)), ("many lists", put(40, "<I", 0xFFFFFFFF)),
        ("zero", put(44, "<I", 1)), ("dead", put(48, "<Q", 1)), ("too many dead", put(48, "<Q", 5401)),
        ("offset", put(64, "<Q", 0x9001)), ("preamble", put(64, "<Q", 0x3000)), ("far", put(64, "<Q", 1 << 63)),
        ("pages", put(72, "<I", 2)), ("at", put(80, "<Q", 192)), ("length", put(88, "<Q", 1 << 40)),
        ("list offset", put(96, "<Q", 0)), ("list length", put(120, "<Q", 70_000)), ("text", put(160, "<B", 0xFF)),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), bad_records(), ids=[name for name, _ in bad_records()])
def test_bad_records(name: str, data: bytes) -> None:
    with pytest.raises(Bad):
        decode_snapshots(data, 1)


def test_records_ascend_and_their_names_differ() -> None:
    for other in (ONE, ONE._replace(serial=2, name="other"), ONE._replace(serial=4)):
        with pytest.raises(Bad, match="after 3"):
            decode_snapshots(ONE.encode() + other.encode(), 2)
    with pytest.raises(Bad):
        decode_snapshots(b"", 1 << 31)
    with pytest.raises(Bad, match="2 lists"):  # they would be longer with tags
        decode_snapshots(ONE.encode(), 1, True)
    with pytest.raises(Bad, match="behind"):
        decode_snapshots(ONE._replace(name="x").encode()[:-1] + b"\1", 1)
    for wrong in (ONE._replace(name=""), ONE._replace(name="x" * 65_536), ONE._replace(meta=bytes(65_536))):
        with pytest.raises(InternalError):
            wrong.encode()


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_changed_records_are_refused_or_well_formed(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(ONE.encode() + ONE._replace(serial=9, name="other", lists=(), dead=0).encode())
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = decode_snapshots(bytes(data[: len(data) - max(0, cut - 200)]), 2)
    except Bad:
        return
    assert len(found) == 2 and 0 < found[0].serial < found[1].serial
    assert all(
        ref.extent >= PREAMBLE and ref.at + ref.length <= ref.size for one in found for ref in (one.root, *one.lists)
    )


# -- the rules, against sets ---------------------------------------------------
class Wrong(Exception):
    """What a broken rule leads to."""


def sure(fact: bool, what: str) -> None:
    if not fact:
        raise Wrong(what)


class Room:
    """Extents of a page each: which are alive, of what generation; dead lists are in them."""

    path, length = "x", 1 << 62

    def __init__(self) -> None:
        self.alive: set[Place] = set()
        self.births: dict[int, int] = {}
        self.data: dict[int, bytes] = {}
        self.next = PREAMBLE
        self.made: set[Place] = set()
        self.generation = 1

    def new(self) -> Place:
        place = (self.next, PAGE)
        self.next += PAGE
        self.births[place[0]] = self.generation
        self.alive.add(place)
        return place

    def birth(self, offset: int) -> int:
        return self.births[offset]

    def dead(self, serial: int, data: bytes) -> Ref:
        place = self.new()
        self.made.add(place)
        self.data[place[0]] = data
        return Ref(*place, HEADER, len(data), serial)

    def load(self, ref: Ref) -> bytes:
        sure(ref[:2] in self.alive, "a list is gone")
        return self.data[ref.extent]


class State:
    """What one root says, and the frames behind it."""

    def __init__(self, live: set[Place], records: list[Snapshot], serial: int) -> None:
        self.live = frozenset(live)
        self.records = b"".join(record.encode() for record in records), len(records), serial
        self.frames: list[tuple[Any, ...]] = []


class Model:
    """A store of extents without contents, its snapshots as sets beside it, two slots and the frames behind them."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.room = Room()
        self.live: set[Place] = set()
        self.trees: dict[int, frozenset[Place]] = {}
        self.history = History(self.room)  # type: ignore[arg-type]
        self.bulk: set[Place] = set()  # named by frames, as the store has it
        self.rows: set[Place] = set()  # those of them that the table uses
        self.older_bulk: set[Place] = set()
        self.waiting: set[Place] = set()
        self.generation = 1
        self.newest = self.older = State(self.live, [], 1)

    # -- what a store does
    def checkpoint(self, fails: bool = False, settle: bool = False) -> None:
        draw, room, history = self.draw, self.room, self.history
        self.room.generation = self.generation + 1
        room.made = set()
        share = draw.choice([0.02, 0.2, 0.6])
        gone = {place for place in self.live if draw.random() < share}
        kept = {place for place in self.rows if draw.random() < 0.7}
        fresh = {room.new() for _ in range(draw.randrange(6))}
        before = (sorted(history.reach()), set(history.pending), history.records)
        unused = self.bulk - kept - {record.root[:2] for record in history.records}
        unused -= history.keeps(unused)
        filed = history.write(room, gone, kept)
        if fails:
            room.alive -= fresh | room.made
            sure((sorted(history.reach()), history.pending, history.records) == before, "a failed write changed it")
            return
        self.live = (self.live - gone) | fresh | kept
        self.generation = room.generation
        released = filed.free | unused
        history.saved(filed)
        self.give(self.waiting)
        self.waiting = released
        self.older_bulk, self.bulk, self.rows = self.bulk, set(), set()
        self.older, self.newest = self.newest, State(self.live, history.records, history.serial)
        if settle:
            self.older, self.older_bulk = self.newest, set()
            self.give(self.waiting)
            self.waiting, self.generation = set(), self.generation + 1

    def give(self, places: set[Place]) -> None:
        for place in places:
            sure(place in self.room.alive, "given back twice")
            sure(place not in self.live and place not in self.history.reach(), "given back and reached")
            sure(all(place not in tree for tree in self.trees.values()), "given back, and a snapshot reaches it")
        self.room.alive -= places

    def insert(self) -> None:
        self.room.generation = self.generation + 1
        place = self.room.new()
        self.bulk.add(place)
        self.rows.add(place)
        self.newest.frames.append(("b", place))

    def snapshot(self) -> None:
        if self.bulk - {record.root[:2] for record in self.history.records} or self.draw.random() < 0.3:
            self.checkpoint()
        self.room.generation = self.generation + 1
        root = self.room.new()
        serial = self.history.serial
        record = Snapshot(serial, f"s{serial}", self.generation, 0, 0, Ref(*root, HEADER, 9, 0))
        self.bulk.add(root)
        self.newest.frames.append(("s", record, frozenset(self.live)))
        self.added(record, frozenset(self.live))

    def added(self, record: Snapshot, tree: frozenset[Place]) -> None:
        self.history.add(record, tree - self.live)
        self.trees[record.serial] = tree

    def drop(self, serial: Optional[int] = None) -> None:
        if serial is None:
            serial = self.draw.choice(self.history.records).serial
            self.newest.frames.append(("d", serial))
        self.history.load(serial)
        self.history.drop(serial)
        del self.trees[serial]

    def restore(self, serial: Optional[int] = None) -> None:
        if serial is None:
            serial = self.draw.choice(self.history.records).serial
            self.newest.frames.append(("r", serial))
        tree = self.trees[serial]
        back, gone = tree - self.live, self.live - tree
        self.live = set(tree)
        self.history.resurrect(back)
        self.history.pending |= self.history.bury(gone)
        self.bulk -= back
        self.rows = set()

    def crash(self, bridge: bool) -> None:
        """The handle is gone; a new one begins at either slot, and replays what is behind it."""
        wanted = [(record.serial, self.trees[record.serial]) for record in self.history.records]
        state = self.older if bridge else self.newest
        frames = list(state.frames) if state is self.newest else [*state.frames, *self.newest.frames]
        reached, older_bulk = self.reached(), self.older_bulk
        data, count, serial = state.records
        self.history = History(self.room, decode_snapshots(data, count), serial)  # type: ignore[arg-type]
        self.live, self.rows = set(state.live), set()
        trees = {**self.trees, **{frame[1].serial: frame[2] for frame in frames if frame[0] == "s"}}
        self.trees = {record.serial: self.known[record.serial] for record in self.history.records}
        self.bulk = {frame[1] for frame in frames if frame[0] == "b"} | {
            frame[1].root[:2] for frame in frames if frame[0] == "s"
        }
        for frame in frames:
            if frame[0] == "s":
                self.added(frame[1], trees[frame[1].serial])
            elif frame[0] == "d":
                self.drop(frame[1])
            elif frame[0] == "r":
                self.restore(frame[1])
            else:
                self.rows.add(frame[1])
            self.check_rules()
        found = [(record.serial, self.trees[record.serial]) for record in self.history.records]
        sure(found == wanted, "another history")
        ours = self.reached()
        theirs = set() if bridge else self.reach_of(self.older) | older_bulk
        sure(ours | theirs <= self.room.alive, "used again")
        if not bridge:
            sure(ours | theirs | self.bulk >= reached - self.waiting, "forgotten")
        self.room.alive = ours | theirs
        self.waiting = theirs - ours
        self.checkpoint(settle=True)

    def reach_of(self, state: State) -> set[Place]:
        """What a root reaches on disk."""
        data, count, serial = state.records
        return set(state.live) | History(self.room, decode_snapshots(data, count), serial).reach()  # type: ignore[arg-type]

    def reached(self) -> set[Place]:
        return self.live | self.history.reach() | self.history.pending | self.bulk

    # -- what must hold
    def check_rules(self) -> None:
        records = self.history.records
        lists = [{item[:2] for item in self.history.dead(record)} for record in records]
        named = [place for one in lists for place in one]
        sure(len(named) == len(set(named)), "A1: on two lists")
        sure(not self.live & set(named), "A1: listed and live")
        for at, record in enumerate(records):
            sure(self.trees[record.serial] <= self.live | set(named), "A1: lost")
            for item in self.history.dead(record):
                sure(item.birth <= record.generation, "kept for nothing")
                sure(all(item[:2] not in self.trees[one.serial] for one in records[at + 1 :]), "A2: newer")
                older = [one for one in records[: at + 1] if item[:2] in self.trees[one.serial]]
                sure(all(item.birth <= one.generation for one in older), "A2: birth")

    def check(self) -> None:
        self.check_rules()
        alive = self.room.alive
        sure(self.reached() <= alive, "reached and given back")
        sure(alive == self.reached() | self.waiting, "neither reached nor given back")
        sure(self.reach_of(self.newest) | self.reach_of(self.older) <= alive, "a slot reaches what was given back")

    def step(self) -> None:
        draw, there = self.draw, bool(self.history.records)
        chance = draw.random()
        if chance < 0.3:
            self.checkpoint()
        elif chance < 0.35:
            self.checkpoint(fails=True)
        elif chance < 0.4:
            self.generation += 1
        elif chance < 0.5:
            self.insert()
        elif chance < 0.67:
            self.snapshot()
        elif chance < 0.79 and there:
            self.drop()
        elif chance < 0.89 and there:
            self.restore()
        elif chance > 0.94:
            self.crash(draw.random() < 0.5)
        self.known.update(self.trees)
        self.check()

    def run(self, steps: int) -> None:
        self.known: dict[int, frozenset[Place]] = {}
        for _ in range(steps):
            self.step()
        while self.history.records:
            self.drop()
            self.check()
        for _ in range(3):
            self.checkpoint()
            self.check()
        sure(self.room.alive == self.live | self.waiting, "dropped, and not given back")


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LIST_LIMIT", 8)


@pytest.mark.usefixtures("short_lists")
def test_the_rules_against_sets() -> None:
    for seed in range(200):
        Model(seed).run(60)
    Model(1).run(1000)


# -- rules that are broken ---------------------------------------------------
Patch = Callable[[pytest.MonkeyPatch], None]
VARIANTS: dict[str, Patch] = {}


def variant(function: Patch) -> Patch:
    VARIANTS[function.__name__] = function
    return function


@variant
def nothing_is_buried(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "_sorted", lambda self, places: ({}, set(places)))


@variant
def everything_is_buried(patch: pytest.MonkeyPatch) -> None:
    before = History._sorted

    def all_of_them(self: Any, places: Any) -> Any:
        if not self.records:
            return before(self, places)
        return {place[0]: self._item(place) for place in places}, set()

    patch.setattr(History, "_sorted", all_of_them)


@variant
def births_are_one_too_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        History,
        "_reached_by",
        lambda self, record, items: {o: i for o, i in items.items() if i.birth < record.generation},
    )


@variant
def a_drop_frees_its_whole_list(patch: pytest.MonkeyPatch) -> None:
    drop = History.drop

    def broken(self: Any, serial: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(History, "_reached_by", lambda self, record, items: {})
            drop(self, serial)

    patch.setattr(History, "drop", broken)


@variant
def a_drop_forgets_its_list(patch: pytest.MonkeyPatch) -> None:
    drop = History.drop

    def broken(self: Any, serial: int) -> None:
        named = {item[:2] for item in self.dead(self.by_serial(serial))}
        drop(self, serial)
        self.pending -= named

    patch.setattr(History, "drop", broken)


@variant
def nothing_is_resurrected(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "resurrect", lambda self, places: None)


@variant
def a_restore_buries_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "bury", lambda self, places: set())


@variant
def strangers_are_left_out(patch: pytest.MonkeyPatch) -> None:
    add = History.add
    patch.setattr(History, "add", lambda self, record, strangers: add(self, record))


@variant
def strangers_stay_on_other_lists(patch: pytest.MonkeyPatch) -> None:
    add = History.add

    def broken(self: Any, record: Any, strangers: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(History, "resurrect", lambda self, places: None)
            add(self, record, strangers)

    patch.setattr(History, "add", broken)


@variant
def what_the_log_brought_back_stays_listed(patch: pytest.MonkeyPatch) -> None:
    write = History.write
    patch.setattr(History, "write", lambda self, draft, released, reached: write(self, draft, released))


@variant
def what_the_log_left_unused_is_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "keeps", lambda self, places: set())


@variant
def a_write_holds_before_it_is_saved(patch: pytest.MonkeyPatch) -> None:
    write = History.write

    def broken(self: Any, *arguments: Any) -> Any:
        filed = write(self, *arguments)
        self._lists, self.records = filed.lists, filed.records
        return filed

    patch.setattr(History, "write", broken)


@variant
def what_is_saved_goes_on_pending(patch: pytest.MonkeyPatch) -> None:
    saved = History.saved

    def broken(self: Any, filed: Any) -> None:
        pending = set(self.pending)
        saved(self, filed)
        self.pending |= pending

    patch.setattr(History, "saved", broken)


@variant
def lists_are_written_once(patch: pytest.MonkeyPatch) -> None:
    write = History._write_lists

    def broken(self: Any, draft: Any, serial: int, lists: Any) -> Any:
        if self.by_serial(serial).lists and any(one.ref is None for one in lists):
            return [one for one in lists if one.ref is not None]
        return write(self, draft, serial, lists)

    patch.setattr(History, "_write_lists", broken)


@variant
def old_lists_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    write = History.write

    def broken(self: Any, *arguments: Any) -> Any:
        filed = write(self, *arguments)
        return filed._replace(free=filed.free - {ref[:2] for record in self.records for ref in record.lists})

    patch.setattr(History, "write", broken)


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_broken_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    VARIANTS[name](monkeypatch)
    for seed in range(400):
        model = Model(seed)
        try:
            model.run(60)
        except (Wrong, CorruptionError):
            return
    pytest.fail(f"{name} goes unnoticed")
