"""Workloads with snapshots, with encryption and with repairs, for the crash, fault and kill tests: see
``crash_workloads``. What a disk state shows is the table and every snapshot of it.
"""

from __future__ import annotations

import random
from typing import Any, Callable

from crash_workloads import KEYED, NARROW, Op, Play, Workload, _soup_ops, ins, keyed, narrow, row

from snapdb import SnapDB
from snapdb.errors import NotFoundError, SnapDBError, UniqueError
from snapdb.storage.superblock import PAGE, SLOTS, Superblock
from snapdb.testing import Disk, RecordingLayer, using
from snapdb.testing.crash import Mismatch, See, Session, history, read

SNAPSHOTS: dict[str, Workload] = {}
KEY = bytes(range(32))
OTHER = bytes(range(100, 132))


def go_on(session: Session) -> None:
    """After a crash: snapshots are made, gone back to and dropped, with writes and checkpoints between; closed."""
    db = session.open(durability="full")
    names = [each["name"] for each in db.list_snapshots()]
    first = next(iter(db), None)
    with session.commit(db):
        db.snapshot("again")
    if first is not None:
        with session.commit(db):
            db.delete(first[0])
        with session.settled():
            db.checkpoint()
        with session.commit(db):
            db.insert(first[1])
    if names:
        with session.commit(db):
            db.restore(names[-1])
        with session.commit(db):
            db.drop_snapshot(names[len(names) // 2])
    with session.settled():
        db.checkpoint()
    if first is not None and not db.schema.primary_key:
        with session.commit(db), db.transaction():
            db.insert(first[1])
    with session.settled():
        db.close()


def bridged(path: str, layer: RecordingLayer, see: See, **options: Any) -> Any:
    """What a database shows, which readers of each snapshot must see too; with its newest superblock damaged it must be
    the same, and go on.
    """
    contents = layer.contents()
    seen = read(path, layer, see, **options)
    if seen is None or options.get("read_only") or not contents[path]:
        return seen
    beside = RecordingLayer.from_contents(contents, record=False)
    with using(beside):
        for name, rows in seen[1].items():
            with SnapDB(path, read_only=True, snapshot=name, **options) as db:
                if dict(db) != rows:
                    raise Mismatch(f"a reader of snapshot {name!r} sees {dict(db)}, not {rows}")
    slots = [(Superblock.decode(contents[path][at : at + PAGE]), at) for at in SLOTS]
    there = [(block.generation, at) for block, at in slots if block is not None]
    if len(there) < 2:
        return seen
    _, newest = max(there)
    damaged = RecordingLayer.from_contents(contents, record=False, maps=layer.maps)
    damaged.open(path, "w").pwrite(bytes(64), newest)
    with using(damaged):
        with SnapDB(path, **options) as db:
            found = see(db)
            db.snapshot("over the bridge")
            db.drop_snapshot("over the bridge")
        again = read(path, damaged, see, **options)
    if not seen == found == again:
        raise Mismatch(f"with a damaged superblock it shows {found}, then {again}, else {seen}")
    return seen


def bridges(workload: Workload, every: int = 1, first: int = 0, only: bool = False) -> tuple[int, list[str]]:
    """Wherever the process dies, the newest superblock may be damaged beside it. Tries that at every so-manieth
    operation; how many states, and what was wrong. ``only``: up to the first that is.
    """
    recording, disk, shown, wrong = workload.record(), Disk(), set(), []
    for point, op in enumerate(recording.log, 1):
        disk.step(op)
        contents = next(disk.states(0, random.Random(0))).contents if point % every == first % every else {}
        key = hash(tuple(sorted(contents.items())))
        if recording.path not in contents or key in shown:
            continue
        shown.add(key)
        layer = RecordingLayer.from_contents(contents, record=False)
        try:
            with workload.limited(), using(layer):
                bridged(recording.path, layer, recording.see, **recording.options)
        except (SnapDBError, OSError, Mismatch) as error:
            wrong.append(f"operation {point}: {error!r}")
            if only:
                break
    return len(shown), wrong


def workload(
    *engines: str, encrypted: bool = False, maps: bool = False, **limits: int
) -> Callable[[Callable[[Play], None]], Callable[[Play], None]]:
    """Register a workload for engines; ``encrypted``: also with a raw key."""

    def register(play: Callable[[Play], None]) -> Callable[[Play], None]:
        layer = {"maps": True} if maps else {}
        for engine in engines or ("row", "columnar"):
            name = f"{play.__name__}-{engine}"
            SNAPSHOTS[name] = Workload(name, engine, play, limits, layer, {"see": history}, go_on)
            if encrypted:
                add_encrypted(SNAPSHOTS[name])
        return play

    return register


def add_encrypted(plain: Workload) -> None:
    """The same workload with a raw key."""
    name = f"{plain.name}-encrypted"
    more = {**plain.more, "options": {"encryption_key": KEY}}
    SNAPSHOTS[name] = plain._replace(name=name, more=more)


def upd(idx: int, i: int) -> Op:
    return ("update", idx, {"s": "u" * (i % 50), "n": i})


# -- making and dropping -------------------------------------------------------
@workload(encrypted=True)
def made(p: Play) -> None:
    """Of an empty table, of one with changes, of the same twice, after a transaction; replaced."""
    p.open(durability="full")
    p.snapshot("empty")
    p.do(*ins(1, 2, 3))
    p.snapshot("a", "b")
    p.do(upd(1, 7), ("delete", 0))
    p.snapshot("a")
    p.transaction(*ins(4), ("delete", 1))
    p.checkpoint()
    p.snapshot("c")
    p.reopen()
    p.snapshot("d")
    p.do(*ins(5))
    p.snapshot("empty")
    p.checkpoint()
    p.close()


@workload(encrypted=True, step=1 << 16)
def dropped(p: Play) -> None:
    """Snapshots of other rows each, dropped: the oldest, one between, the newest, all; writes between."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(16)]))
    for turn in range(5):
        p.snapshot(f"s{turn}")
        p.do(upd(turn, turn), upd(15 - turn, turn), ("delete", turn + 6))
    p.drop("s0", "s2")
    p.do(*ins(3))
    p.checkpoint()
    p.drop("s4")
    p.snapshot("s5")
    p.do(upd(0, 30))
    p.reopen()
    p.drop("s5", "s1", "s3")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(8)]))
    p.close()


@workload()
def reused(p: Play) -> None:
    """The room of a dropped snapshot is written again, beside those that are left."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.snapshot("a")
    p.do(("batch_update", [], {"f": 0.5}))
    p.snapshot("b")
    for turn in range(4):
        p.do(("batch_update", [("n", "lt", 100_000)], {"n": turn, "s": "z" * 40}))
        p.snapshot("c")
        if turn == 1:
            p.drop("a")
        p.checkpoint()
        p.do(("batch_insert", [row(i, 60) for i in range(turn, turn + 6)]))
    p.drop("c", "b")
    p.checkpoint()
    p.do(("delete_where", [("n", "lt", 3)]))
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(12)]))
    p.close()


@workload()
def let_go(p: Play) -> None:
    """What only a snapshot reaches, in one checkpoint."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.snapshot("a")
    p.do(("batch_update", [], {"f": 0.5}))
    p.checkpoint()
    p.close()


@workload(encrypted=True)
def taken_over(p: Play) -> None:
    """What two snapshots reach and the table does not any more: dropping the newer one leaves it to the older one."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(40)]))
    p.snapshot("a")
    p.do(upd(0, 1))
    p.snapshot("b")
    p.do(("batch_update", [], {"f": 0.5}))
    p.checkpoint()
    p.drop("b")
    p.checkpoint()
    p.close()


@workload()
def gone_back(p: Play) -> None:
    """A restore brings back what is in the list of the snapshot, and leaves the newer one what only that has now."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.snapshot("a")
    p.do(("batch_update", [], {"s": "x" * 30}))
    p.snapshot("b")
    p.restore("a")
    p.checkpoint()
    p.close()


@workload()
def older(p: Play) -> None:
    """The root of the older slot has a snapshot with dead lists that the newer one has not; then a recovery writes."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.snapshot("a")
    p.do(("batch_update", [], {"f": 0.5}))
    p.checkpoint()
    p.do(upd(3, 1))
    p.checkpoint()
    p.drop("a")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 300) for i in range(24)]))
    p.kill()
    p.close()


@workload(list=3)
def lists(p: Play) -> None:
    """So much dies under each snapshot that it has several dead lists; they are merged when it is dropped."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 300) for i in range(30)]))
    p.snapshot("a")
    for turn in range(4):
        p.do(("batch_update", [("n", "gt", 30_000 * turn)], {"b": None, "f": float(turn)}))
        p.checkpoint()
        p.do(upd(2 * turn, turn))
        p.snapshot(f"b{turn}")
    p.drop("b1", "a", "b0")
    p.checkpoint()
    p.drop("b3")
    p.checkpoint()
    p.close()


@workload("row", list=8)
def fifty(p: Play) -> None:
    """Fifty snapshots, made and dropped."""
    p.open(durability="normal")
    p.do(("batch_insert", [row(i, 30) for i in range(10)]))
    for turn in range(50):
        p.do(upd(turn % 10, turn))
        p.snapshot(f"s{turn}")
        if turn % 10 == 9:
            p.drop(f"s{turn - 4}", f"s{turn - 9}")
    p.checkpoint()
    p.drop(*list(p.kept)[::3])
    p.close()


@workload(bulk=200)
def bulk_kept(p: Play) -> None:
    """Batches that go straight to extents, kept by snapshots; also ones that are rolled back."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i) for i in range(20)]))
    p.snapshot("a")
    p.do(("batch_insert", [row(i) for i in range(30, 50)]), ("delete", 25))
    p.snapshot("b")
    p.abandoned(("batch_insert", [row(i) for i in range(60, 80)]), ("delete", 1))
    p.transaction(*ins(3), ("batch_insert", [row(i) for i in range(70, 85)]))
    p.drop("a")
    p.do(("delete_where", [("n", "gt", 79190)]), ("batch_insert", [row(i) for i in range(90, 105)]))
    p.snapshot("b", "c")
    p.restore("c")
    p.do(("batch_insert", [row(i) for i in range(100, 115)]))
    p.restore("b")
    p.close()


# -- going back ------------------------------------------------------------------
@workload(encrypted=True)
def restored(p: Play) -> None:
    """Back, on from there, back twice, to the newest, to one that is dropped then."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(16)]))
    p.snapshot("a")
    p.do(upd(3, 1), ("delete", 5), *ins(40))
    p.restore("a")
    p.do(*ins(41), upd(0, 2))
    p.snapshot("b")
    p.do(("delete_where", [("n", "lt", 50_000)]))
    p.checkpoint()
    p.restore("a")
    p.restore("b")
    p.restore("b")
    p.transaction(*ins(42), ("delete", 2))
    p.drop("a")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(10)]))
    p.restore("b")
    p.drop("b")
    p.do(*ins(43))
    p.reopen()
    p.do(*ins(44))
    p.checkpoint()
    p.close()


@workload()
def there_and_back(p: Play) -> None:
    """Restores and drops with checkpoints between: lists that name what is live again."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(20)]))
    p.checkpoint()
    p.snapshot("a")
    p.do(("batch_update", [("b", "eq", True)], {"s": "b" * 30}))
    p.snapshot("b")
    p.do(("batch_update", [("b", "eq", False)], {"s": "c" * 30}))
    p.snapshot("c")
    p.restore("a")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(10)]))
    p.drop("b")
    p.checkpoint()
    p.restore("c")
    p.do(upd(7, 3))
    p.checkpoint()
    p.drop("a")
    p.do(("batch_insert", [row(i, 60) for i in range(10)]))
    p.checkpoint()
    p.restore("c")
    p.drop("c")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(6)]))
    p.checkpoint()
    p.close()


@workload(bulk=1000)
def overlaid(p: Play) -> None:
    """Updates of sealed rows, kept and gone back to."""
    p.open(NARROW, durability="full", page_size=2048)
    p.do(("batch_insert", [{"a": i * 3, "z": None if i % 9 == 4 else i % 100} for i in range(1030)]))
    p.snapshot("a")
    for turn in range(3):
        p.do(("update", 17 * turn, {"a": -turn}), ("update", 1000 + turn, {"z": turn}), ("delete", 500 + turn))
        p.snapshot(f"b{turn}")
    p.restore("b0")
    p.do(("update", 3, {"a": 1 << 30}), ("delete", 1029))
    p.drop("b1")
    p.checkpoint()
    p.restore("a")
    p.drop("a")
    p.do(("update", 3, {"a": 5}))
    p.close()


@workload("columnar", bulk=1000)
def packed_kept(p: Play) -> None:
    """Tails in chunks and in pieces beside them, kept and gone back to."""
    p.open(NARROW, durability="full")
    p.do(("batch_insert", narrow(*range(1100))), ("update", 1090, {"z": 7}))
    p.snapshot("packed")
    p.do(("delete_where", [("a", "between", (3, 78))]))
    p.do(("insert", narrow(5)[0]), ("delete", 1095))
    p.snapshot("pieces")
    p.tail_is(False)
    p.do(("delete", 1094))
    p.reopen()
    p.tail_is(True)
    p.do(("update", 1097, {"a": 1}))
    p.snapshot("again")
    p.restore("pieces")
    p.do(("insert", narrow(6)[0]))
    p.checkpoint()
    p.restore("packed")
    p.drop("again")
    p.do(("update", 1098, {"z": None}), ("delete", 3))
    p.checkpoint()
    p.tail_is(True)
    p.drop("packed")
    p.kill()
    p.restore("pieces")
    p.close()


@workload(bulk=200)
def keys_kept(p: Play) -> None:
    """Unique values: free again after a restore, taken again after one."""
    p.open(KEYED, durability="full")
    p.do(*(("upsert", keyed(i)) for i in range(4)))
    p.snapshot("a")
    p.do(("delete", 1), ("upsert", keyed(9)), ("update", 2, {"u": "moved"}))
    p.snapshot("b")
    p.restore("a")
    p.refused(("insert", keyed(1)), UniqueError)
    p.do(("insert", keyed(9)), ("batch_insert", [keyed(i) for i in range(20, 50)]))
    p.restore("b")
    p.refused(("insert", keyed(9)), UniqueError)
    p.do(("upsert", keyed(1)), ("upsert", keyed(2, 7)))
    p.drop("a")
    p.close()


@workload()
def compacted_kept(p: Play) -> None:
    """compact() gives ids anew; a snapshot keeps the old ones, and going back brings them back."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 200) for i in range(20)]))
    p.snapshot("a")
    p.do(("delete_where", [("n", "lt", 80_000)]), ("compact",), *ins(3))
    p.snapshot("b")
    p.do(("delete", 0), ("compact",))
    p.restore("a")
    p.do(("delete", 2), ("compact",), *ins(4))
    p.restore("b")
    p.drop("a")
    p.do(("compact",))
    p.drop("b")
    p.transaction(("delete", 1), *ins(4))
    p.do(("compact",), *ins(5))
    p.close()


# -- durability, checkpoints that come by themselves, deaths --------------------------
@workload(log=600)
def automatic_kept(p: Play) -> None:
    """The log is soon too long: checkpoints come by themselves between frames of snapshots."""
    p.open(durability="full")
    for turn in range(5):
        p.do(*ins(turn), *ins(turn + 10))
        p.snapshot(f"s{turn % 3}")
        p.do(upd(0, turn))
    p.drop("s1")
    p.restore("s0")
    p.transaction(("batch_insert", [row(i, 30) for i in range(12)]), ("delete", 4))
    p.drop("s0")
    p.do(*ins(1, 2))
    p.restore("s2")
    p.close()


@workload(log=900)
def frames_only(p: Play) -> None:
    """Nothing but frames of snapshots: the log gets too long by them."""
    p.open(durability="normal")
    p.do(("batch_insert", [row(i, 30) for i in range(8)]))
    for turn in range(6):
        p.snapshot(f"s{turn}", "t")
        if turn % 2:
            p.restore(f"s{turn - 1}")
            p.drop(f"s{turn}")
    p.flush()
    p.snapshot("u")
    p.close()


@workload()
def buffered_kept(p: Play) -> None:
    """durability="none": snapshots outlive the process, and with them what they hold."""
    p.open(durability="none")
    p.do(*ins(1, 2, 3))
    p.snapshot("a")
    p.do(*ins(4), ("delete", 0))
    p.drop("a")
    p.do(*ins(5))
    p.snapshot("b")
    p.flush()
    p.do(*ins(6))
    p.restore("b")
    p.do(*ins(7))
    p.checkpoint()
    p.snapshot("c")
    p.do(*ins(8))
    p.close()


@workload()
def killed_kept(p: Play) -> None:
    """durability="normal": the process dies now and then and another one goes on."""
    p.open(durability="normal")
    p.do(*ins(1, 2))
    p.snapshot("a")
    p.kill()
    p.do(*ins(3), upd(1, 4))
    p.snapshot("b")
    p.do(("delete", 0))
    p.kill()
    p.drop("a")
    p.kill()
    p.restore("b")
    p.do(*ins(7))
    p.kill()
    p.snapshot("a")
    p.flush()
    p.snapshot("b")
    p.restore("a")
    p.kill()
    p.kill()
    p.transaction(*ins(9))
    p.close()


@workload(encrypted=True, step=1 << 16)
def recovered_kept(p: Play) -> None:
    """durability="full": killed, recovered, killed again."""
    p.open(durability="full")
    p.snapshot("zero")
    p.kill()
    p.do(*ins(1))
    p.snapshot("a", "b")
    p.kill()
    p.transaction(*ins(2, 3))
    p.restore("a")
    p.kill()
    p.do(("batch_insert", [row(i) for i in range(5, 12)]), ("delete", 2))
    p.drop("zero")
    p.kill()
    p.snapshot("c")
    p.reopen()
    p.drop("b")
    p.kill()
    p.checkpoint()
    p.restore("c")
    p.kill()
    p.close()


@workload()
def reopened_kept(p: Play) -> None:
    """Closed and opened again after each thing that can be done to a snapshot."""
    p.open(durability="full")
    p.do(*ins(1, 2))
    p.snapshot("a")
    p.reopen()
    p.snapshot("b")
    p.reopen()
    p.do(upd(0, 3))
    p.reopen()
    p.restore("a")
    p.reopen()
    p.drop("a")
    p.reopen()
    p.do(*ins(4))
    p.snapshot("b")
    p.reopen()
    p.drop("b")
    p.reopen()
    p.close()


@workload(maps=True)
def mapped_kept(p: Play) -> None:
    """Views of the file and an open snapshot live on while what they show is dropped and written over."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.snapshot("a")
    p.reopen()
    db, shown = p.db, p.db.open_snapshot("a")
    before, held = dict(shown), []
    for turn in range(3):
        view = db.get_raw(turn) if p.engine == "row" else db.column_buffer("n")
        if view is not None:
            held.append((bytes(view), view))
        p.do(upd(turn + 9, turn), ("delete", turn))
        p.snapshot(f"b{turn}")
    p.restore("b0")
    p.drop("b1")
    if dict(shown) != before:
        raise Mismatch("an open snapshot changed")
    shown.close()
    p.drop("a")
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.checkpoint()
    for bytes_before, view in held:
        if bytes(view) != bytes_before:
            raise Mismatch("a view changed")
    p.close()


@workload(encrypted=True)
def growth_kept(p: Play) -> None:
    """Longer rows, more of them, longer names: file, log and root grow."""
    p.open(durability="full")
    names = [f"{turn}" * (40 + 1200 * turn) for turn in range(4)]
    for turn in range(4):
        p.do(("batch_insert", [row(i, 400 * (turn + 1)) for i in range(8 * turn, 8 * turn + 8)]))
        p.snapshot(names[turn])
    p.do(("delete_where", [("n", "lt", 100_000)]))
    p.checkpoint()
    p.restore(names[2])
    p.drop(*names[:2])
    p.do(("batch_insert", [row(i, 900) for i in range(50, 60)]))
    p.checkpoint()
    p.close()


# -- drawn workloads -----------------------------------------------------------
_DURABILITY = ("full", "full", "normal", "none")
_STEPS = (
    *["do"] * 5, *["transaction"] * 2, "abandoned", "checkpoint", "flush", "reopen", "kill",
    *["snapshot"] * 4, *["drop"] * 3, *["restore"] * 2, "refused",
)  # fmt: skip


def soup(seed: int, engine: str, encrypted: bool = False) -> Workload:
    """A workload that is drawn: writes and snapshots, closing, dying, in any order, at any durability."""
    draw = random.Random(f"soup of snapshots {seed}")
    limits = {"bulk": draw.choice([200, 400, 1 << 20]), "log": draw.choice([500, 3000, 1 << 24])}
    limits["step"] = draw.choice([4096, 4096, 1 << 16])
    limits["list"] = draw.choice([2, 5, 2700])
    steps = draw.randrange(16, 34)

    def play(p: Play) -> None:
        draw = random.Random(f"soup of snapshots {seed}, its steps")
        p.open(durability=draw.choice(_DURABILITY))
        for _ in range(steps):
            _step(p, draw)
        p.close()

    more: dict[str, Any] = {"see": history}
    if encrypted:
        more["options"] = {"encryption_key": KEY}
    name = f"snapshot-soup{seed}-{engine}" + "-encrypted" * encrypted
    return Workload(name, engine, play, limits, {"maps": True} if draw.random() < 0.3 else {}, more, go_on)


def _step(p: Play, draw: random.Random) -> None:
    kind = draw.choice(_STEPS)
    names = list(p.kept)
    if kind == "do":
        p.do(*_soup_ops(p.model, draw, 1))
    elif kind in ("transaction", "abandoned"):
        getattr(p, kind)(*_soup_ops(p.model, draw, draw.randrange(1, 5)))
    elif kind in ("checkpoint", "flush"):
        getattr(p, kind)()
    elif kind == "snapshot":
        p.snapshot(f"s{draw.randrange(7)}")
    elif kind in ("drop", "restore"):
        if names:
            getattr(p, kind)(draw.choice(names))
    elif kind == "refused":
        p.refused((draw.choice(["drop_snapshot", "restore"]), "no such"), NotFoundError)
    elif draw.random() < 0.6:
        if kind == "reopen":
            p.reopen(durability=draw.choice(_DURABILITY))
        elif p.db.durability != "none":  # else the model would have to know what was written
            p.kill()
