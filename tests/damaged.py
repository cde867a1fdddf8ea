"""Databases that are damaged, one way each: how they are made, and what is to come of them.

``python tests/damaged.py`` writes those that are new to ``tests/data/damaged``: the files of each (a log beside the
data file where it needs one) and a JSON of what ``fsck`` says, whether it opens, and what ``repair`` makes of it. They
are made from seeds, of which the rows after each commit are known, by one change to bytes; where that must be below the
checksums these are made right again (``reseal.py``).
"""

from __future__ import annotations

import functools
import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from unittest import mock

from reseal import Part, Sealed

from snapdb import ColumnDef, Schema, SnapDB, tablefile
from snapdb.errors import SnapDBError
from snapdb.storage import catalog, wal
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

__all__ = ["FOLDER", "KINDS", "PATH", "PREPARED", "Seed", "build", "outcome", "seed"]

PATH = "damaged.snapdb"
FOLDER = Path(__file__).parent / "data" / "damaged"
KEY = bytes(range(32))
SCHEMA = Schema([ColumnDef("n", "i32"), ColumnDef("s", "str", not_null=False), ColumnDef("f", "f64", not_null=False)])
PAGE, SLOTS, STATIC = 4096, (0x1000, 0x3000), (0x0000, 0x2000)
Files = dict[str, bytearray]
Rows = dict[int, dict[str, Any]]


def row(i: int) -> dict[str, Any]:
    return {"n": i * 7, "s": None if i % 5 == 2 else f"row {i % 9}", "f": None if i % 7 == 3 else i % 40 / 4}


# -- seeds -------------------------------------------------------------------
class Seed(NamedTuple):
    """A database without damage. ``states``: (LSN, rows) after each commit, oldest first; ``snapshots``: rows by name,
    ``dropped``: those that were there before; ``key``: of an encrypted one.
    """

    files: dict[str, bytes]
    states: list[tuple[int, Rows]]
    snapshots: dict[str, Rows]
    dropped: dict[str, Rows]
    key: Optional[bytes]
    bulk: list[int]  # offsets of the extents that the log's frames name
    pieces: list[tuple[int, int, int, int]]  # key, kind, first byte and byte behind it, of the last checkpoint
    plain: bool  # what the log does follows on the tree: it neither goes back nor gives ids anew

    @property
    def rows(self) -> Rows:
        """Those of the last commit."""
        return self.states[-1][1]

    def at(self, lsn: int) -> Rows:
        """The rows as of a frame."""
        return ([rows for at, rows in self.states if at <= lsn] or [{}])[-1]


class _Making:
    def __init__(self, engine: str, key: Optional[bytes], page_size: int = 2048) -> None:
        self.key = key
        self.db = SnapDB(PATH, SCHEMA, storage_type=engine, page_size=page_size, durability="full", encryption_key=key)
        self.states: list[tuple[int, Rows]] = []
        self.snapshots: dict[str, Rows] = {}
        self.dropped: dict[str, Rows] = {}
        self.plain = True

    def note(self) -> None:
        """A commit was made."""
        file: Any = self.db._file
        self.states.append((file.store.log.lsn, dict(self.db)))

    def __call__(self, name: str, *arguments: Any, **options: Any) -> None:
        getattr(self.db, name)(*arguments, **options)
        if name == "snapshot":
            self.snapshots[arguments[0]] = dict(self.db)
        elif name == "drop_snapshot":
            self.dropped[arguments[0]] = self.snapshots.pop(arguments[0])
        self.plain = self.plain and name not in ("restore", "compact")
        self.note()

    def reopen(self) -> None:
        """Close it cleanly, and open it again."""
        self.db.close()
        self.db = SnapDB(PATH, durability="full", encryption_key=self.key)

    def seed(self, layer: RecordingLayer, closed: bool) -> Seed:
        files, file = layer.contents(), self.db._file
        assert file is not None
        bulk, pieces = sorted([offset for offset, _ in file.store.bulk]), self.pieces(self.db)
        self.db.close()
        if closed:
            with SnapDB(PATH, read_only=True, encryption_key=self.key) as db:
                pieces = self.pieces(db)
            files = layer.contents()
        files = {name: data for name, data in files.items() if "-pin" not in name}
        return Seed(files, self.states, self.snapshots, self.dropped, self.key, bulk, pieces, self.plain)

    def pieces(self, db: SnapDB) -> list[tuple[int, int, int, int]]:
        assert db._file is not None
        found = [(key, piece.tag >> 24, piece.ref) for key, one in db._file.store.items() for piece in one.pieces]
        return [(key, tag, r.extent + r.at, r.extent + r.at + r.length) for key, tag, r in found if r is not None]


@contextmanager
def _small(node: int = catalog.NODE_BYTES, bulk: int = tablefile.BULK) -> Iterator[RecordingLayer]:
    """A file system on which logs are small, and nodes where asked."""
    layer = RecordingLayer(record=False)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(wal, "_LEAST_STEP", PAGE))
        stack.enter_context(mock.patch.object(catalog, "NODE_BYTES", node))
        stack.enter_context(mock.patch.object(tablefile, "BULK", bulk))
        stack.enter_context(using(layer))
        yield layer


@functools.cache
def seed(name: str) -> Seed:
    """One of the seeds, by name: engine and kind, with ``key`` behind it an encrypted one."""
    engine, kind, *sealed = name.split()
    with _small(
        120 if kind in ("tree", "leaves") else catalog.NODE_BYTES,
        2000 if kind in ("open", "packed") else tablefile.BULK,
    ) as layer:
        made = _Making(engine, KEY if sealed else None)
        return _SEEDS[kind](made, engine, layer)


def _closed(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """A piece of each kind, closed."""
    if engine == "columnar":
        worn(p)
        p("checkpoint")  # all of it is written then, and the closing leaves the tail where it is
        return p.seed(layer, True)
    span, groups = sparse(p, 4)
    for idx in (0, 2, 4):
        p("update", idx, {"f": -1.0})
    p("checkpoint")
    for group in range(groups):
        p("update", group * span + 6, {"s": "scattered"})
    p("delete", span + 8)
    return p.seed(layer, True)


def worn(p: _Making) -> None:
    """A block and a tail, with updated and deleted rows in both."""
    p("batch_insert", [row(i) for i in range(1100)])
    p("checkpoint")
    for idx in (5, 700, 1060):
        p("update", idx, {"f": -1.0, "s": "updated"})
    for idx in (9, 1071):
        p("delete", idx)


def _filled(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """The tail is in the chunks, closed."""
    worn(p)
    return p.seed(layer, True)


def _packed(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Not closed: the tail is in the chunks of the tree, and of a batch outside the log."""
    worn(p)
    p.reopen()
    p("update", 6, {"s": "in the log"})
    p("batch_insert", [row(i) for i in range(1100, 1400)])
    p("delete", 1063)
    p("insert", row(1400))
    p("update", 1399, {"f": -2.0})
    return p.seed(layer, False)


def _beside(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Not closed: the tail is in the chunks as it was, and in pieces that are newer."""
    worn(p)
    p.reopen()
    p("insert", row(1100))
    for idx in (1061, 6):
        p("update", idx, {"s": "later"})
        p("checkpoint")  # twice: the older superblock has the pieces too
    p("insert", row(1101))
    return p.seed(layer, False)


def sparse(p: _Making, groups: int) -> tuple[int, int]:
    """Slab groups with few live rows: (rows of a group, groups)."""
    table: Any = p.db._engine
    span = table.slabs.slab_rows * table.slabs.group_slabs
    kept = {group * span + idx for group in range(groups) for idx in range(0, 24, 2)}
    p.db.batch_insert(row(i) for i in range(groups * span - 500))
    p.db.delete_where(lambda found: found["n"] // 7 not in kept)
    p("checkpoint")
    return span, groups


def _tree(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Nodes so small that three levels are needed."""
    sparse(p, 3)
    return p.seed(layer, True)


def _snapshots(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Two snapshots with dead lists, closed."""
    p("batch_insert", [row(i) for i in range(60)])
    for turn in range(2):
        p("snapshot", f"snapshot {turn}")
        for idx in range(turn, 60, 9):
            p("update", idx, {"s": f"turn {turn}"})
        p("delete", 40 + turn)
    return p.seed(layer, True)


def _open(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Not closed: two epochs, a batch outside the log, a transaction, a snapshot that only the log has."""
    p("batch_insert", [row(i) for i in range(40)])
    p("checkpoint")
    p("update", 3, {"s": "first epoch"})
    p("delete", 4)
    p("insert", row(40))
    p("checkpoint")
    p("update", 5, {"s": "second epoch"})
    p("snapshot", "kept")
    p("batch_insert", [row(i) for i in range(41, 241)])
    with p.db.transaction():
        p.db.update(6, {"f": 0.125})
        p.db.delete(7)
        p.db.insert(row(241))
    p.note()
    for idx in range(8, 12):
        p("update", idx, {"s": "late"})
    return p.seed(layer, False)


def _back(p: _Making, engine: str, layer: RecordingLayer) -> Seed:
    """Not closed: the log goes back to a snapshot, drops one, and gives ids anew."""
    p("batch_insert", [row(i) for i in range(60)])
    p("snapshot", "a")
    p("batch_update", [("n", "lt", 100)], {"s": "changed"})
    p("checkpoint")
    p("snapshot", "b")
    p("update", 30, {"s": "to be taken back"})
    p("restore", "a")
    p("insert", row(60))
    p("delete", 7)
    p("drop_snapshot", "b")
    with mock.patch.object(tablefile.TableFile, "give_back"):  # which would be a checkpoint
        p("compact")
    p("insert", row(61))
    p("update", 3, {"s": "late"})
    return p.seed(layer, False)


_SEEDS: dict[str, Callable[[_Making, str, RecordingLayer], Seed]] = {
    "closed": _closed, "snapshots": _snapshots, "open": _open, "tree": _tree, "back": _back, "leaves": _closed,
    "packed": _packed, "beside": _beside, "filled": _filled,
}  # fmt: skip


# -- damages -----------------------------------------------------------------
class Kind(NamedTuple):
    """One kind of damage: to which seed, and what changes its files. ``stored``: it is in ``tests/data/damaged``."""

    seed: str
    change: Callable[[Seed, Files], None]
    stored: bool


KINDS: dict[str, Kind] = {}
PACKED = ("columnar filled", "columnar packed", "columnar beside")


def kind(*seeds: str) -> Callable[[Any], Any]:
    """A change of files, to each of these seeds; stored are the first one and encrypted and packed ones."""

    def register(change: Callable[[Seed, Files], None]) -> Callable[[Seed, Files], None]:
        for name in seeds:
            title = f"{change.__name__.replace('_', '-')}-{name.replace(' ', '-')}"
            KINDS[title] = Kind(name, change, name is seeds[0] or name.endswith(("key", *PACKED)))
        return change

    return register


def build(name: str) -> dict[str, bytes]:
    """The files of one kind of damage."""
    found = KINDS[name]
    made = seed(found.seed)
    files = {path: bytearray(data) for path, data in made.files.items()}
    found.change(made, files)
    return {path: bytes(data) for path, data in files.items()}


def flip(files: Files, at: int, size: int = 8, name: str = PATH) -> None:
    for place in range(at, at + size):
        files[name][place] ^= 0xA5


def newest(files: Files) -> int:
    """Where the newest superblock is."""
    return max(SLOTS, key=lambda at: struct.unpack_from("<Q", files[PATH], at + 24)[0])


def parts(made: Seed, kind: str) -> list[Part]:
    """The parts of a kind, in the order of a walk from the newest superblock."""
    return Sealed(made.files, PATH).parts[kind]


def spoil(made: Seed, files: Files, kind: str, which: int = 0) -> None:
    """Flip some bytes in the middle of a part."""
    part = parts(made, kind)[which]
    flip(files, (part.start + part.end) // 2 & ~7, min(8, part.end - part.start), part.name)


def resealed(made: Seed, files: Files, part: Callable[[Sealed], Part], at: int, form: str, *values: Any) -> None:
    """Change fields of a part, with all checksums made right again."""
    sealed = Sealed({name: bytes(data) for name, data in files.items()}, PATH)
    found = part(sealed)
    sealed.write(found, at, struct.pack(form, *values))
    sealed.seal(found)
    files.update({name: bytearray(data) for name, data in sealed.contents().items()})


def each_block(files: Files, at: int, form: str, *values: Any) -> None:
    """Change fields of both superblocks, and their checksums."""
    for slot in SLOTS:
        struct.pack_into(form, files[PATH], slot + at, *values)
        struct.pack_into("<I", files[PATH], slot + 508, zlib.crc32(files[PATH][slot : slot + 508]))


CLOSED, OPEN = ("row closed", "columnar closed"), ("row open", "columnar open")
SNAPSHOTS = ("row snapshots", "columnar snapshots")


@kind("row closed")
def header_a(made: Seed, files: Files) -> None:
    flip(files, STATIC[0] + 40)


@kind("row closed")
def header_b(made: Seed, files: Files) -> None:
    flip(files, STATIC[1])


@kind(*CLOSED, "row closed key")
def headers(made: Seed, files: Files) -> None:
    for at in STATIC:
        flip(files, at)


@kind("row closed", "columnar open", "row closed key")
def slot_older(made: Seed, files: Files) -> None:
    flip(files, sum(SLOTS) - newest(files) + 60)


@kind(*CLOSED, *OPEN, "row open key")
def slot_newest(made: Seed, files: Files) -> None:
    flip(files, newest(files) + 60)


@kind(*CLOSED, *OPEN, "row snapshots", "row closed key")
def slots(made: Seed, files: Files) -> None:
    for at in SLOTS:
        flip(files, at + 60)


@kind(*OPEN, "row open key")
def root_newest(made: Seed, files: Files) -> None:
    at = newest(files)
    flip(files, struct.unpack_from("<Q", files[PATH], at + 32)[0] + 140)


@kind(*CLOSED, "columnar snapshots")
def root(made: Seed, files: Files) -> None:
    root_newest(made, files)


@kind("row tree", "columnar open")
def top_node(made: Seed, files: Files) -> None:
    spoil(made, files, "node")


@kind("row tree")
def inner_node(made: Seed, files: Files) -> None:
    nodes = parts(made, "node")
    inner = next(one for one in nodes[1:] if made.files[PATH][one.start + 4])
    flip(files, inner.start + 30)


@kind("row tree", "columnar closed", "row leaves")
def leaf_node(made: Seed, files: Files) -> None:
    leaf = next(one for one in parts(made, "node") if not made.files[PATH][one.start + 4])
    flip(files, leaf.start + 30)


@kind("row tree", "row leaves")
def leaf_node_last(made: Seed, files: Files) -> None:
    leaf = [one for one in parts(made, "node") if not made.files[PATH][one.start + 4]][-1]
    flip(files, leaf.start + 30)


@kind("row closed")
def group(made: Seed, files: Files) -> None:
    spoil(made, files, "group", 1)


@kind("row closed")
def group_below_a_patch(made: Seed, files: Files) -> None:
    spoil(made, files, "group")


@kind("row closed")
def patch(made: Seed, files: Files) -> None:
    spoil(made, files, "patch")


@kind("row closed")
def scattered(made: Seed, files: Files) -> None:
    spoil(made, files, "scattered")


@kind("row closed")
def group_and_scattered(made: Seed, files: Files) -> None:
    spoil(made, files, "group", 2)
    spoil(made, files, "scattered")


@kind("row closed key")
def group_tag(made: Seed, files: Files) -> None:
    flip(files, made.pieces[0][2] + 300)


@kind("columnar closed", "columnar open", *PACKED)
def sealed_or_tail(made: Seed, files: Files) -> None:
    spoil(made, files, "sealed" if parts(made, "sealed") else "tail")


@kind("columnar closed", "columnar beside")
def tail(made: Seed, files: Files) -> None:
    spoil(made, files, "tail", 1)


@kind("columnar closed", "columnar packed")
def overlay(made: Seed, files: Files) -> None:
    spoil(made, files, "overlay")


@kind("columnar closed")
def deleted(made: Seed, files: Files) -> None:
    spoil(made, files, "deleted")


@kind("columnar closed", "columnar filled")
def zone_map(made: Seed, files: Files) -> None:
    """A zone map that is not that of its values, below the checksums."""

    leaf = parts(made, "node")[0]
    meta = parts(made, "sealed")[0].sums[0] - 20 + 40  # flags, rows, nulls, NaNs, bounds
    resealed(made, files, lambda sealed: sealed.parts["node"][0], meta + 16 - leaf.start, "<q", 77)


@kind("columnar filled")
def zone_map_rows(made: Seed, files: Files) -> None:
    """A zone map that counts the rows of the packed tail too, and what is behind them; below the checksums."""

    leaf = parts(made, "node")[0]
    meta = parts(made, "sealed")[0].sums[0] - 20 + 40
    resealed(made, files, lambda sealed: sealed.parts["node"][0], meta + 4 - leaf.start, "<I", 2048)


@kind(*OPEN, "row open key", "columnar packed")
def bulk_extent(made: Seed, files: Files) -> None:
    """A batch that a frame names, written to an extent of its own."""
    (at,) = [at for at in made.bulk if files[PATH][at + 4] == 1]  # not a pinned root
    flip(files, at + 300)


def newest_log(files: Files) -> str:
    """The log of the running epoch."""
    return f"{PATH}-wal{struct.unpack_from('<Q', files[PATH], newest(files) + 72)[0] & 1}"


def frames(made: Seed, files: Files) -> list[Part]:
    name = newest_log(files)
    return [part for part in Sealed(made.files, PATH).parts["frame"] if part.name == name]


@kind(*OPEN)
def log_header(made: Seed, files: Files) -> None:
    flip(files, 20, 8, newest_log(files))


@kind(*OPEN, "row open key")
def log_first_frame(made: Seed, files: Files) -> None:
    flip(files, 64 + 40, 4, newest_log(files))


@kind(*OPEN)
def log_middle_frame(made: Seed, files: Files) -> None:
    found = frames(made, files)
    flip(files, found[3].start, 4, found[3].name)


@kind("row open")
def log_commit_frame(made: Seed, files: Files) -> None:
    (commit,) = [part for part in frames(made, files) if files[part.name][part.start - 28] == 7]
    flip(files, commit.start - 20, 4, commit.name)


@kind("row open")
def log_last_frame(made: Seed, files: Files) -> None:
    found = frames(made, files)[-1]
    flip(files, found.start, 4, found.name)


@kind("row open")
def log_older_epoch(made: Seed, files: Files) -> None:
    flip(files, 64 + 40, 4, newest_log(files)[:-1] + str(1 - int(newest_log(files)[-1])))


@kind(*OPEN)
def log_missing(made: Seed, files: Files) -> None:
    del files[newest_log(files)]


@kind("row open")
def logs_missing(made: Seed, files: Files) -> None:
    for parity in (0, 1):
        del files[f"{PATH}-wal{parity}"]


@kind(*OPEN)
def logs_swapped(made: Seed, files: Files) -> None:
    a, b = f"{PATH}-wal0", f"{PATH}-wal1"
    files[a], files[b] = files[b], files[a]


@kind("row open")
def log_foreign(made: Seed, files: Files) -> None:
    name = newest_log(files)
    files[name] = bytearray(seed("columnar open").files[name])


@kind("row open")
def log_zeroed(made: Seed, files: Files) -> None:
    name = newest_log(files)
    files[name][200:] = bytes(len(files[name]) - 200)


@kind("row closed")
def cut_a_page(made: Seed, files: Files) -> None:
    del files[PATH][-PAGE:]


@kind("row closed", "columnar snapshots")
def cut_a_half(made: Seed, files: Files) -> None:
    del files[PATH][len(files[PATH]) // 2 & ~4095 :]


@kind("columnar closed")
def cut_within_a_page(made: Seed, files: Files) -> None:
    del files[PATH][-3000:]


@kind("row closed")
def cut_behind_the_preamble(made: Seed, files: Files) -> None:
    del files[PATH][0x4000:]


@kind("row closed")
def cut_in_the_preamble(made: Seed, files: Files) -> None:
    del files[PATH][0x1800:]


@kind("row closed")
def longer(made: Seed, files: Files) -> None:
    files[PATH] += b"\xff" * 5000


@kind("row closed")
def high_water(made: Seed, files: Files) -> None:
    """Both superblocks say that there is more than the file has."""
    end = len(files[PATH]) + 8 * PAGE
    each_block(files, 104, "<QQ", end, end)


@kind("row closed")
def overlapping(made: Seed, files: Files) -> None:
    """The second group's reference leads to the first one's extent, below the checksums."""
    sealed = Sealed(made.files, PATH)
    leaf = sealed.parts["node"][0]
    one, other = [part.sums[0] - 12 for part in sealed.parts["group"][:2]]
    reference = bytes(made.files[PATH][one : one + 32])
    resealed(made, files, lambda sealed: sealed.parts["node"][0], other - leaf.start, "32s", reference)


@kind("row tree")
def cycle(made: Seed, files: Files) -> None:
    """An inner node's first child is the node itself, as far as that can be: its checksum cannot be its own."""
    sealed = Sealed(made.files, PATH)
    top = sealed.parts["node"][0]
    reference = struct.pack("<QIIQQ", top.start - 128, 1, 0, 128, top.end - top.start)
    resealed(made, files, lambda sealed: sealed.parts["node"][0], 24 + 8, "32s", reference)


@kind("row closed")
def count_of_entries(made: Seed, files: Files) -> None:
    resealed(made, files, lambda sealed: sealed.parts["root"][0], 48, "<Q", 99)


@kind(*CLOSED)
def count_of_rows(made: Seed, files: Files) -> None:
    """The header says another number of live rows."""
    part = Sealed(made.files, PATH).parts["root"][0]
    at = made.files[PATH].index(b'"live":', part.start) + 8
    digit = made.files[PATH][at]
    resealed(made, files, lambda sealed: sealed.parts["root"][0], at - part.start, "B", digit ^ 1)


@kind("row closed")
def rows_past_the_end(made: Seed, files: Files) -> None:
    """The header says that there are fewer rows than live ones were given ids."""
    part = Sealed(made.files, PATH).parts["root"][0]
    (field,) = re.findall(rb'"rows":\d+', made.files[PATH][part.start : part.end])
    at = made.files[PATH].index(field, part.start)
    less = b'"rows":%d' % (max(made.rows) - 12)
    resealed(
        made, files, lambda sealed: sealed.parts["root"][0], at - part.start, f"{len(field)}s", less.ljust(len(field))
    )


@kind(*SNAPSHOTS)
def what_is_said_of_a_snapshot(made: Seed, files: Files) -> None:
    """A snapshot's record is sound but for what ``list_snapshots()`` shows of it."""
    part = Sealed(made.files, PATH).parts["root"][0]
    at = made.files[PATH].index(b'{"rows"', part.start)
    resealed(made, files, lambda sealed: sealed.parts["root"][0], at - part.start, "7s", b'{"rowz"')


@kind(*SNAPSHOTS)
def pinned_root(made: Seed, files: Files) -> None:
    spoil(made, files, "pinned", 1)


@kind(*SNAPSHOTS)
def dead_list(made: Seed, files: Files) -> None:
    spoil(made, files, "dead")


@kind("row snapshots")
def snapshots_of_one_name(made: Seed, files: Files) -> None:
    part = Sealed(made.files, PATH).parts["root"][0]
    data = made.files[PATH]
    at = data.index(b"snapshot 1", part.start)
    resealed(made, files, lambda sealed: sealed.parts["root"][0], at - part.start, "10s", b"snapshot 0")


@kind("row snapshots")
def what_a_snapshot_has_alone(made: Seed, files: Files) -> None:
    """A node that only the oldest snapshot reaches."""
    sealed = Sealed(made.files, PATH)
    pinned = sealed.parts["pinned"]
    (node,) = [one for one in sealed.parts["node"] if one.above == [pinned[0]]]
    flip(files, node.start + 30)


@kind(*CLOSED, "row closed key")
def extent_header(made: Seed, files: Files) -> None:
    """The header of an entry's extent, which no reader needs."""
    flip(files, made.pieces[0][2] // PAGE * PAGE + 124, 4)


@kind("row closed key")
def slots_mac(made: Seed, files: Files) -> None:
    """Somebody without the key has changed a superblock, checksum and all."""
    at = newest(files)
    struct.pack_into("<Q", files[PATH], at + 112, 1 << 30)
    struct.pack_into("<I", files[PATH], at + 508, zlib.crc32(files[PATH][at : at + 508]))


@kind("row closed")
def no_database(made: Seed, files: Files) -> None:
    files[PATH] = bytearray(b"id,name\n1,a\n" * 3000)


#: what the crash tests of a repair begin with: damage to pieces, to nodes, to superblocks, to logs
PREPARED = (
    "group-row-closed", "leaf-node-row-leaves", "slots-columnar-open", "logs-swapped-row-open",
    "log-middle-frame-columnar-open", "pinned-root-columnar-snapshots",
)  # fmt: skip


# -- what comes of them --------------------------------------------------------
def outcome(files: dict[str, bytes], key: Optional[bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What ``fsck`` says, whether it opens and what ``repair`` does, as the JSON has it; and the files after that."""
    layer = RecordingLayer.from_contents(files, record=False)
    with using(layer):
        found: dict[str, Any] = {"opens": False, "fsck": []}
        try:
            with SnapDB(PATH, read_only=True, encryption_key=key) as db:
                found["opens"] = True
                found["fsck"] = sorted({issue["kind"] for issue in db.fsck(full=True)["issues"]})
        except SnapDBError as error:
            found["error"] = type(error).__name__
        try:
            report = SnapDB.repair_file(PATH, key)
        except SnapDBError as error:
            found["repair"] = {"error": type(error).__name__}
        else:
            lost = [{name: one[name] for name in ("kind", "first", "last")} for one in report["lost"]]
            found["repair"] = {
                "ok": report["ok"], "rows": report["rows"], "lost": lost, "source": report["source"],
                "snapshots": report["snapshots"],
            }  # fmt: skip
    return found, layer.contents()


def main(names: list[str]) -> None:
    """Write the files: those of which there is none yet (what was written before is to be read for ever), or these."""
    FOLDER.mkdir(exist_ok=True)
    for name, found in KINDS.items():
        kept = FOLDER / f"{name}.json"
        if not found.stored or (name not in names if names else kept.exists()):
            continue
        key = seed(found.seed).key
        for path, data in build(name).items():
            (FOLDER / path.replace(PATH, f"{name}.snapdb")).write_bytes(data)
        told = {"key": None if key is None else key.hex(), **outcome(build(name), key)[0]}
        text = json.dumps(told, indent=1, sort_keys=True) + "\n"
        kept.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
