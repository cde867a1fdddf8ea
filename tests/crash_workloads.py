"""Workloads for the crash, fault and kill tests: each goes through an engine's writes with a model beside it.

Tables and pages are small, and so are the limits that start a checkpoint or the bulk path, so that a disk state costs
about a millisecond.
"""

from __future__ import annotations

import copy
import functools
import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, NamedTuple, Optional
from unittest import mock

from model import Model

from snapdb import ColumnDef, Schema, SnapDB, tablefile
from snapdb.columnar_file import TAIL_ROWS
from snapdb.storage import snapshots, wal
from snapdb.testing.crash import Mismatch, Recording, Session, again, history, record, rows

SCHEMA = Schema(
    [
        ColumnDef("n", "i64"),
        ColumnDef("s", "str", not_null=False),
        ColumnDef("f", "f64", not_null=False),
        ColumnDef("b", "bool", not_null=False),
    ]
)
KEYED = Schema(
    [ColumnDef("k", "i32", primary_key=True), ColumnDef("u", "str", unique=True, not_null=False), ColumnDef("v", "u8")]
)
NARROW = Schema([ColumnDef("a", "i32"), ColumnDef("z", "u8", not_null=False)])
Op = tuple[Any, ...]  # a method's name and its arguments


def row(i: int, size: int = 5) -> dict[str, Any]:
    return {
        "n": i * 7919 - 3,
        "s": None if i % 7 == 3 else chr(97 + i % 26) * (i % size),
        "f": None if i % 5 == 2 else i / 4,
        "b": (True, False, None)[i % 3],
    }


def keyed(i: int, v: Optional[int] = None) -> dict[str, Any]:
    return {"k": i, "u": None if i % 4 == 1 else f"u{i}", "v": i % 200 if v is None else v}


def copied(model: Model) -> Model:
    """A copy that goes its own way."""
    other = copy.copy(model)
    other.rows = dict(model.rows)
    return other


class RolledBack(Exception):
    """Raised to leave a transaction."""


class Play:
    """What a workload works with: each write goes to the database and to the model, and both must agree after it.

    ``kept``: the models of the snapshots, by name.
    """

    def __init__(self, session: Session, engine: str) -> None:
        self.session = session
        self.engine = engine
        self.db: Any = None
        self.model: Any = None
        self.kept: dict[str, Model] = {}
        self.options: dict[str, Any] = {}

    # -- lifecycle -----------------------------------------------------------
    def open(self, schema: Optional[Schema] = SCHEMA, **options: Any) -> SnapDB:
        """Open the database; ``schema`` None: as it was made."""
        if schema is not None:
            options = {"storage_type": self.engine, "page_size": 64, **options}
            self.model, self.kept = Model(schema), {}
        self.options = options
        self.db = self.session.open(schema, **options)
        self.agree()
        return self.db  # type: ignore[no-any-return]

    def reopen(self, **options: Any) -> None:
        """Close and open again."""
        durability = self.db.durability
        self.close()
        self.open(None, **{"durability": durability, **options})

    def kill(self) -> None:
        """The process dies and another one opens the database."""
        durability = self.db.durability
        self.session.kill(self.db)
        self.open(None, durability=durability)

    def close(self) -> None:
        with self.session.settled():
            self.db.close()

    def flush(self) -> None:
        with self.session.settled():
            self.db.flush()

    def checkpoint(self) -> None:
        with self.session.settled():
            self.db.checkpoint()

    def agree(self) -> None:
        """The table is as the model says, and so are its ids and its snapshots."""
        seen, wanted = self.session.see(self.db), self.expected(self.model, self.kept)
        if seen != wanted:
            raise Mismatch(f"the table holds {seen}, not {wanted}")

    def tail_is(self, packed: bool) -> None:
        """The file has the tail of a table of one segment in its chunks, or in pieces."""
        entry = self.db._file.store.entry(0)
        if any(piece.tag >> 24 == TAIL_ROWS for piece in entry.pieces) is packed:
            raise Mismatch(f"the tail is {'not ' * packed}in the chunks")

    def expected(self, model: Model, kept: dict[str, Model]) -> Any:
        """What the session sees of a table like this model, with snapshots like these."""
        if self.session.see is history:
            return dict(model.rows), {name: dict(each.rows) for name, each in kept.items()}
        return dict(model.rows)

    # -- writes --------------------------------------------------------------
    def do(self, *ops: Op) -> None:
        """Each operation is a commit."""
        for op in ops:
            after = self.after([op])
            self.commit(after, lambda op=op: self.call(op), False)  # type: ignore[misc]

    def transaction(self, *ops: Op) -> None:
        """The operations are one commit."""
        self.commit(self.after(ops), lambda: self._transaction(ops), True)

    def abandoned(self, *ops: Op) -> None:
        """A transaction that is rolled back."""
        self.commit(self.model, lambda: self._rolled_back(ops), False)

    def refused(self, op: Op, error: type[Exception]) -> None:
        """An operation that raises, and changes nothing."""
        self.commit(self.model, lambda: self._refused(op, error), False)

    def after(self, ops: Any) -> Model:
        """The model after these operations."""
        model = copied(self.model)
        for name, *arguments in ops:
            getattr(model, name)(*arguments)
        return model

    def call(self, op: Op) -> None:
        getattr(self.db, op[0])(*op[1:])

    def commit(
        self, after: Model, action: Callable[[], None], transaction: bool, kept: Optional[dict[str, Model]] = None
    ) -> None:
        """One commit, after which there is this, with snapshots like ``kept`` (None: as they were)."""
        durable = True if transaction and self.db.durability == "normal" else None
        shown = None if kept is None else True  # what is done to snapshots outlives the process at any durability
        kept = self.kept if kept is None else kept
        with self.session.commit(self.db, durable, shown, self.expected(after, kept)):
            action()
        self.model, self.kept = after, kept

    # -- snapshots -----------------------------------------------------------
    def snapshot(self, *names: str) -> None:
        """Make these snapshots, or replace them."""
        for name in names:
            kept = {**self.kept, name: copied(self.model)}
            self.commit(self.model, lambda name=name: self.db.snapshot(name), False, kept)  # type: ignore[misc]

    def drop(self, *names: str) -> None:
        for name in names:
            kept = {other: model for other, model in self.kept.items() if other != name}
            self.commit(self.model, lambda name=name: self.db.drop_snapshot(name), False, kept)  # type: ignore[misc]

    def restore(self, name: str) -> None:
        self.commit(copied(self.kept[name]), lambda: self.db.restore(name), False, self.kept)

    def rekey(self, key: bytes) -> None:
        """From here on only this key opens it."""
        self.session.rekey(self.db, key)
        self.agree()

    def repair(self) -> None:
        """Repair a database that has no damage."""
        with self.session.settled():
            report = self.db.repair()
        if not report["ok"] or report["lost"]:
            raise Mismatch(f"repair found {report}")
        self.agree()

    def _transaction(self, ops: Any) -> None:
        with self.db.transaction():
            for op in ops:
                self.call(op)

    def _rolled_back(self, ops: Any) -> None:
        try:
            with self.db.transaction():
                for op in ops:
                    self.call(op)
                raise RolledBack
        except RolledBack:
            pass

    def _refused(self, op: Op, error: type[Exception]) -> None:
        try:
            self.call(op)
        except error:
            return
        raise Mismatch(f"{op} was not refused")


class Workload(NamedTuple):
    """A workload on one engine. ``limits``: what is made small for it; ``layer``: options of the layer."""

    name: str
    engine: str
    play: Callable[[Play], None]
    limits: dict[str, int]
    layer: dict[str, Any]
    more: dict[str, Any] = {}  # options of record() beside these
    second: Callable[[Session], None] = again  # what goes on after a crash

    def run(self, session: Session) -> None:
        self.play(Play(session, self.engine))

    def record(self) -> Recording:
        with self.limited():
            return record(self.run, **self.more, **self.layer)

    def session(self, layer: Any, kind: type[Session] = Session) -> Any:
        """A session as it is recorded, but on this layer."""
        more = self.more
        return kind(
            layer, "crash.snapdb", see=more.get("see", rows), options=more.get("options"), keys=more.get("keys", ())
        )

    @contextmanager
    def limited(self) -> Iterator[None]:
        """The limits in force."""
        limits = {"bulk": tablefile.BULK, "log": 1 << 24, "step": 4096, "list": snapshots.LIST_LIMIT, **self.limits}
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(tablefile, "BULK", limits["bulk"]))
            stack.enter_context(mock.patch.object(wal, "_LEAST_STEP", limits["step"]))
            # a run on a busy machine has the operations of any other: what is late there is not flushed for it
            stack.enter_context(mock.patch.object(wal, "_DELAY", math.inf))
            stack.enter_context(mock.patch.object(snapshots, "LIST_LIMIT", limits["list"]))
            options = functools.partial(tablefile.Options, wal_limit=limits["log"])
            stack.enter_context(mock.patch.object(tablefile, "Options", options))
            yield


WORKLOADS: dict[str, Workload] = {}


def workload(*engines: str, maps: bool = False, **limits: int) -> Callable[[Any], Any]:
    def register(play: Callable[[Play], None]) -> Callable[[Play], None]:
        for engine in engines or ("row", "columnar"):
            name = f"{play.__name__}-{engine}"
            WORKLOADS[name] = Workload(name, engine, play, limits, {"maps": True} if maps else {})
        return play

    return register


def ins(*numbers: int) -> list[Op]:
    return [("insert", row(i)) for i in numbers]


# -- the workloads -----------------------------------------------------------
@workload(step=1 << 16)
def single(p: Play) -> None:
    """Single writes, each on stable storage."""
    p.open(durability="full")
    p.do(*ins(1, 2, 3), ("update", 1, {"s": "changed", "f": None}), ("delete", 0), *ins(4), ("delete", 3))
    p.close()


@workload()
def creation(p: Play) -> None:
    """A new file, closed and opened without a write, an empty file, one row."""
    p.session.layer.open(p.session.path, "x").close()
    p.open(durability="full")
    p.reopen()
    p.flush()
    p.checkpoint()
    p.do(*ins(1))
    p.reopen()
    p.close()


@workload()
def transactions(p: Play) -> None:
    """Transactions, with rolled back ones between."""
    p.open(durability="full")
    p.transaction(*ins(0, 1, 2))
    p.abandoned(("update", 1, {"n": 5}), *ins(7), ("delete", 0))
    p.transaction(("update", 1, {"n": 6}), ("delete", 2), *ins(8))
    p.transaction()
    p.abandoned(*ins(1, 2, 3, 4))
    p.do(*ins(9))
    p.checkpoint()
    p.transaction(("batch_insert", [row(i) for i in range(10, 20)]), ("delete_where", [("n", "lt", 100)]), *ins(20))
    p.abandoned(("batch_update", [], {"b": True}))
    p.transaction(("batch_update", [("b", "eq", True)], {"b": False, "s": "x" * 40}))
    p.close()


@workload(bulk=200)
def bulk(p: Play) -> None:
    """Batches that go straight to extents, also in transactions, also ones that are rolled back."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i) for i in range(20)]), ("update", 3, {"s": "new"}), ("delete", 5))
    p.abandoned(("batch_insert", [row(i) for i in range(30, 50)]), ("delete", 1))
    p.do(("batch_insert", [row(i, 30) for i in range(50, 65)]))
    p.transaction(*ins(3), ("batch_insert", [row(i) for i in range(70, 85)]), ("delete", 22))
    p.checkpoint()
    p.do(("delete_where", [("n", "gt", 79190)]), ("batch_insert", [row(i) for i in range(90, 105)]))
    p.checkpoint()
    p.do(("batch_insert", [row(i) for i in range(100, 115)]))
    p.close()


@workload(bulk=200)
def bulk_normal(p: Play) -> None:
    """The bulk path where only a transaction or a flush makes it last."""
    p.open(durability="normal")
    p.do(("batch_insert", [row(i) for i in range(15)]), ("delete", 5), ("batch_insert", [row(i) for i in range(9)]))
    p.flush()
    p.do(("batch_insert", [row(i) for i in range(30, 45)]))
    p.checkpoint()
    p.do(("batch_insert", [row(i) for i in range(60, 75)]), ("update", 50, {"n": 0}))
    p.kill()
    p.do(("batch_insert", [row(i) for i in range(80, 95)]))
    p.abandoned(("batch_insert", [row(i) for i in range(80, 99)]))
    p.close()


@workload()
def growth(p: Play) -> None:
    """Longer rows and more of them: file and log grow."""
    p.open(durability="full")
    for turn in range(5):
        p.do(("batch_insert", [row(i, 400 * (turn + 1)) for i in range(8 * turn, 8 * turn + 8)]))
    p.checkpoint()
    p.do(("batch_insert", [row(i, 900) for i in range(50, 65)]))
    p.checkpoint()
    p.do(*ins(70, 71))
    p.close()


@workload()
def reuse(p: Play) -> None:
    """Deletes and inserts with checkpoints between: space is used again."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.checkpoint()
    for turn in range(5):
        p.do(("delete_where", [("n", "lt", 7919 * 4 * (turn + 1))]))
        p.do(("batch_insert", [row(i, 60) for i in range(30 + turn, 36 + turn)]))
        p.checkpoint()
    p.do(("delete_where", [("n", "gte", 0)]))
    p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.close()


@workload(maps=True)
def mapped(p: Play) -> None:
    """Space is used again beside views of the file that live on."""
    db = p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.reopen()
    db = p.db
    held: list[tuple[bytes, Any]] = []
    for turn in range(4):
        view = db.get_raw(turn) if p.engine == "row" else db.column_buffer("n")
        if view is not None:
            held.append((bytes(view), view))
        p.do(("update", turn + 9, {"s": "y" * 50, "n": turn}), ("delete", turn))
        p.checkpoint()
    p.do(("batch_insert", [row(i, 60) for i in range(24)]))
    p.checkpoint()
    for before, view in held:
        if bytes(view) != before:
            raise Mismatch("a view changed")
    p.close()


@workload(bulk=1000)
def overlays(p: Play) -> None:
    """Updates of rows that are sealed, with checkpoints between."""
    p.open(NARROW, durability="full", page_size=2048)
    p.do(("batch_insert", [{"a": i * 3, "z": None if i % 9 == 4 else i % 100} for i in range(1030)]))
    p.checkpoint()
    for turn in range(4):
        p.do(("update", 17 * turn, {"a": -turn}), ("update", 1000 + turn, {"z": turn}), ("delete", 500 + turn))
        p.checkpoint()
    p.do(("batch_update", [("a", "lt", 90)], {"z": 200}))
    p.transaction(("update", 3, {"a": 1 << 30}), ("update", 1029, {"a": 5}))
    p.close()


def narrow(*numbers: int) -> list[dict[str, Any]]:
    """Rows of runs: a block more of them takes next to no room."""
    return [{"a": i // 40 * 3, "z": None if i // 40 % 9 == 4 else i // 40} for i in numbers]


@workload("columnar", bulk=1000)
def packed(p: Play) -> None:
    """A tail that goes into the chunks when the database is closed and with a batch, and into pieces beside them."""
    p.open(NARROW, durability="full")
    p.do(("batch_insert", narrow(*range(1100))), ("delete_where", [("a", "between", (3, 78))]))  # to be compared fast
    p.reopen()
    p.tail_is(True)
    p.do(("update", 1091, {"a": -1, "z": None}), ("delete", 1092), ("insert", narrow(1100)[0]))
    p.kill()
    p.tail_is(False)
    p.do(("batch_insert", narrow(*range(1200, 1450))))
    p.transaction(("update", 1201, {"a": 5}), ("batch_insert", narrow(*range(250))))
    p.checkpoint()
    p.tail_is(True)
    p.do(("delete_where", [("a", "gt", 90)]))
    p.close()


@workload()
def checkpoints(p: Play) -> None:
    """A checkpoint after each commit."""
    p.open(durability="full")
    p.checkpoint()
    for i in range(6):
        p.do(*ins(i))
        p.checkpoint()
    p.do(("update", 2, {"s": None}))
    p.checkpoint()
    p.checkpoint()
    p.transaction(("delete", 1), *ins(8))
    p.checkpoint()
    p.close()


@workload(log=600)
def automatic(p: Play) -> None:
    """The log is soon too long: checkpoints come by themselves."""
    p.open(durability="full")
    for i in range(12):
        p.do(*ins(i))
    p.transaction(("batch_insert", [row(i, 30) for i in range(20)]), ("delete", 4))
    p.do(("delete_where", [("b", "eq", True)]), *ins(1, 2))
    p.close()


@workload(log=600)
def automatic_normal(p: Play) -> None:
    """The same, where single writes are not flushed."""
    p.open(durability="normal")
    for i in range(10):
        p.do(*ins(i))
    p.transaction(*ins(20, 21))
    p.do(("batch_insert", [row(i, 30) for i in range(10)]), ("delete", 4))
    p.flush()
    p.do(*ins(1, 2))
    p.close()


@workload()
def reopened(p: Play) -> None:
    """Closed and opened again, with and without writes between."""
    p.open(durability="full")
    p.do(*ins(1, 2))
    for i in range(3):
        p.reopen()
        p.do(*ins(i), ("update", 1, {"n": i}))
        p.reopen()
    p.transaction(("delete", 1), *ins(9))
    p.reopen()
    p.checkpoint()
    p.close()


@workload()
def compacted(p: Play) -> None:
    """compact() gives ids anew and cuts the file."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 200) for i in range(20)]))
    p.checkpoint()
    p.do(("delete_where", [("n", "lt", 80000)]), ("compact",), *ins(3), ("delete", 0), ("compact",))
    p.transaction(("delete", 1), *ins(4))
    p.do(("delete_where", [("n", "gte", 0)]), ("compact",), *ins(5))
    p.close()


@workload(bulk=200)
def keys(p: Play) -> None:
    """Unique values: upserts, refused duplicates, values that move."""
    from snapdb.errors import UniqueError

    p.open(KEYED, durability="full")
    p.do(*(("upsert", keyed(i)) for i in range(4)), ("upsert", keyed(2, 77)))
    p.refused(("insert", keyed(3)), UniqueError)
    p.refused(("batch_insert", [keyed(10), keyed(11), keyed(2)]), UniqueError)
    p.do(("batch_insert", [keyed(i) for i in range(20, 50)]))
    p.refused(("batch_insert", [keyed(i) for i in range(49, 80)]), UniqueError)
    p.abandoned(("delete", 0), ("insert", keyed(0)), ("upsert", keyed(60)))
    p.transaction(("delete", 0), ("insert", keyed(0)), ("upsert", keyed(3, 9)))
    p.checkpoint()
    p.do(("update", 1, {"u": "moved"}), ("delete", 2), ("upsert", keyed(2)))
    p.reopen()
    p.refused(("insert", keyed(2)), UniqueError)
    p.do(("insert", keyed(99)))
    p.close()


@workload()
def buffered(p: Play) -> None:
    """durability="none": what a flush, a checkpoint or closing did not reach may be gone."""
    p.open(durability="none")
    p.do(*ins(1, 2, 3))
    p.flush()
    p.do(*ins(4, 5), ("delete", 0))
    p.transaction(*ins(6, 7), ("update", 2, {"s": "q"}))
    p.abandoned(*ins(8))
    p.do(*ins(9))
    p.checkpoint()
    p.do(*ins(10), ("batch_insert", [row(i, 100) for i in range(12)]))
    p.flush()
    p.do(("delete", 3), *ins(11))
    p.close()


@workload()
def killed(p: Play) -> None:
    """durability="normal": the process dies now and then and another one goes on."""
    p.open(durability="normal")
    p.do(*ins(1, 2))
    p.kill()
    p.do(*ins(3), ("update", 1, {"n": 4}))
    p.transaction(*ins(5, 6))
    p.do(("delete", 0))
    p.kill()
    p.kill()
    p.do(*ins(7))
    p.flush()
    p.do(*ins(8))
    p.abandoned(("delete", 1), *ins(9))
    p.checkpoint()
    p.do(*ins(10))
    p.kill()
    p.close()


@workload(step=1 << 16)
def recovered(p: Play) -> None:
    """durability="full": killed, recovered, killed again."""
    p.open(durability="full")
    p.kill()
    p.do(*ins(1))
    p.kill()
    p.transaction(*ins(2, 3))
    p.checkpoint()
    p.do(("update", 1, {"f": 0.5}))
    p.kill()
    p.do(("batch_insert", [row(i) for i in range(5, 12)]), ("delete", 2))
    p.kill()
    p.reopen()
    p.do(*ins(20))
    p.kill()
    p.checkpoint()
    p.kill()
    p.close()


@workload(bulk=400)
def many(p: Play) -> None:
    """Writes of many rows at once."""
    p.open(durability="normal")
    columns = {"n": list(range(12)), "s": ["c"] * 12, "f": [0.25] * 12, "b": [None] * 12}
    p.do(("insert_columns", columns), ("batch_update", [("n", "gte", 6)], {"s": "upper"}))
    p.do(("delete_where", [("n", "in", [1, 3, 5])]))
    p.flush()
    p.do(("batch_update", [("n", "gte", 0)], lambda it: {"n": it["n"] + 1}), ("insert_columns", columns))
    p.transaction(("insert_columns", columns), ("delete_where", [("n", "lte", 4)]))
    p.do(("batch_insert", [row(i, 12) for i in range(40)]), ("batch_update", [], {"f": None}))
    p.close()


# -- drawn workloads -----------------------------------------------------------
def soup(seed: int, engine: str) -> Workload:
    """A workload that is drawn: writes of all kinds, checkpoints, closing, dying, in any order, at any durability."""
    draw = random.Random(f"soup {seed}")
    limits = {"bulk": draw.choice([200, 400, 1 << 20]), "log": draw.choice([500, 3000, 1 << 24])}
    limits["step"] = draw.choice([4096, 4096, 1 << 16])
    steps = draw.randrange(14, 30)

    def play(p: Play) -> None:
        draw = random.Random(f"soup {seed}, its steps")
        p.open(durability=draw.choice(_DURABILITY))
        for _ in range(steps):
            _soup_step(p, draw)
        p.close()

    return Workload(f"soup{seed}-{engine}", engine, play, limits, {"maps": True} if draw.random() < 0.3 else {})


_DURABILITY = ("full", "full", "normal", "none")
_STEPS = ("do", "do", "do", "do", "transaction", "transaction", "abandoned", "checkpoint", "flush", "reopen", "kill")


def _soup_step(p: Play, draw: random.Random) -> None:
    kind = draw.choice(_STEPS)
    if kind == "do":
        p.do(*_soup_ops(p.model, draw, 1))
    elif kind in ("transaction", "abandoned"):
        getattr(p, kind)(*_soup_ops(p.model, draw, draw.randrange(1, 5)))
    elif kind in ("checkpoint", "flush"):
        getattr(p, kind)()
    elif draw.random() < 0.6:
        if kind == "reopen":
            p.reopen(durability=draw.choice(_DURABILITY))
        elif p.db.durability != "none":  # else the model would have to know what was written
            p.kill()


def _soup_ops(model: Model, draw: random.Random, count: int) -> list[Op]:
    """Operations that can be carried out one after the other."""
    ahead = copied(model)
    ops: list[Op] = []
    for _ in range(count):
        op = _soup_op(ahead, draw)
        getattr(ahead, op[0])(*op[1:])
        ops.append(op)
    return ops


def _soup_op(model: Model, draw: random.Random) -> Op:
    i = draw.randrange(200)
    size = draw.choice([3, 10, 60])
    ids = list(model.rows)
    kind = draw.randrange(20 if len(ids) < 60 else 12)
    if kind >= 15 or not ids:
        return ("insert", row(i, size))
    if kind >= 12:
        return ("batch_insert", [row(i + j, size) for j in range(draw.choice([2, 8, 25]))])
    if kind >= 8:
        return ("update", draw.choice(ids), draw.choice([{"s": "u" * size}, {"n": i, "f": None}, {"b": None}, row(i)]))
    if kind >= 4:
        return ("delete", draw.choice(ids))
    if kind >= 2:
        return ("batch_update", [("n", draw.choice(["lt", "gt"]), i * 7919)], {"f": i / 8})
    if kind == 1:
        return ("delete_where", [("n", "between", [i * 7000, i * 7919 + 9000])])
    return ("compact",)
