"""What may be lost when bytes of a database are damaged, and what must not: for the tests of ``repair``.

Read from docs/format.md, without the modules that repair: which rows stand on which bytes. A row may be missing only
where bytes that it stands on were changed, and then it must be named; a row that is there is what it was.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from damaged import PATH, SLOTS, Rows, Seed, newest
from reseal import Sealed, log_frames

from snapdb import SnapDB
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

__all__ = ["all_may_be_lost", "judge", "repaired"]

BLOCK, SEGMENT, SCATTERED_KEY = 1024, 65536, 1 << 63
SEALED, TAIL, OVERLAY, DELETED, GROUP, PATCH, SCATTERED = range(1, 8)
ALL = 1 << 40


class Repaired(NamedTuple):
    """What a repair said, and what is there then. ``files``: as they are then."""

    report: dict[str, Any]
    rows: Rows
    snapshots: dict[str, Rows]
    files: dict[str, bytes]


def repaired(files: dict[str, bytes], key: Optional[bytes] = None) -> Repaired:
    """Repair a database, look at it, write to it, and look for damage again."""
    layer = RecordingLayer.from_contents(files, record=False)
    with using(layer):
        report = SnapDB.repair_file(PATH, key)
        after = layer.contents()
        foreign = any("-wal" in name for name in after)  # the log of another database is left where it was
        with SnapDB(PATH, encryption_key=key, read_only=foreign) as db:
            rows = dict(db)
            snapshots = {}
            for one in db.list_snapshots():
                with db.open_snapshot(one["name"], key) as shown:
                    snapshots[one["name"]] = dict(shown)
            assert len(rows) == report["rows"] and set(snapshots) == set(report["snapshots"])
            if not foreign:
                write(db, rows)
        if not foreign:
            again = SnapDB.repair_file(PATH, key)
            assert again["ok"] and not again["issues"], again
    return Repaired(report, rows, snapshots, after)


def write(db: SnapDB, rows: Rows) -> None:
    """It can be written to, and no id that was given out before comes again."""
    for name in list(db.schema.names)[:1]:
        with db.transaction():
            idx = db.insert({**next(iter(rows.values()), {"n": 0, "s": None, "f": None}), name: 77})
            assert idx > max(rows, default=-1)
            db.delete(idx)
    db.checkpoint()
    for one in db.list_snapshots():
        db.drop_snapshot(one["name"])
    db.checkpoint()
    assert db.fsck(full=True)["issues"] == []


# -- which bytes were changed ----------------------------------------------------
class Bytes:
    """The bytes of a file that are not what they were."""

    def __init__(self, before: bytes, after: Optional[bytes]) -> None:
        self.before = before
        self.after = b"" if after is None else after

    def hit(self, start: int, end: int) -> bool:
        """Whether one of these is among them."""
        return self.before[start:end] != self.after[start:end]


class _Tree:
    """What the newest root of an undamaged file reaches, and which rows may go with the bytes that were changed."""

    def __init__(self, made: Seed, data: Bytes) -> None:
        self.data = data
        self.raw = data.before
        self.row = b'"storage_type":"row"' in made.files[PATH]
        self.rows = max(made.rows, default=-1) + 1
        self.entries: dict[int, list[tuple[int, bytes, int, int]]] = {}  # tag, meta, start, end
        self.gone: list[tuple[int, int]] = []  # ids
        self.anything = False
        slot = newest({name: bytearray(found) for name, found in made.files.items()})
        at, size = struct.unpack_from("<QI", self.raw, slot + 32)
        root = at + 128
        self.anything = all(data.hit(one, one + 512) for one in SLOTS) or data.hit(root, root + size)
        self.anything = self.anything or data.hit(slot, slot + 512)
        self.size = 0 if self.anything else json.loads(self.raw[root + 96 :][: self._u32(root + 8)])["rows"]
        self.span = self._span()
        if struct.unpack_from("<I", self.raw, root + 12)[0]:
            self._node(root + 16, ALL << 30)

    def _u32(self, at: int) -> int:
        found: int = struct.unpack_from("<I", self.raw, at)[0]
        return found

    def _span(self) -> int:
        return 102 * 31 if self.row else SEGMENT

    def _lose(self, first: int, stop: int) -> None:
        self.gone.append((first, stop - 1))

    def _node(self, reference: int, limit: int) -> None:
        extent, _, _, at, length = struct.unpack_from("<QIIQQ", self.raw, reference)
        start = extent + at
        level, count, _, first = struct.unpack_from("<4xB3xIIQ", self.raw, start)
        if self.data.hit(start, start + length):
            self._lose(first * self.span, min(limit, ALL) * self.span)
            self.anything = self.anything or (self.row and limit > SCATTERED_KEY)
            return
        place, found = start + 24, []
        for _ in range(count):
            (key,) = struct.unpack_from("<Q", self.raw, place)
            found.append((key, place))
            place = place + 40 if level else self._entry(key, place)
        if level:
            for (_, place), (after, _) in zip(found, [*found[1:], (limit, 0)]):
                self._node(place + 8, after)

    def _entry(self, key: int, place: int) -> int:
        pieces, meta = struct.unpack_from("<8xII", self.raw, place)
        place += 16 + (meta + 7 & -8)
        held = self.entries.setdefault(key, [])
        for _ in range(pieces):
            tag, size, extent, _, _, at, length = struct.unpack_from("<IIQIIQQ", self.raw, place)
            held.append((tag, self.raw[place + 40 : place + 40 + size], extent + at, extent + at + length))
            place += 40 + (size + 7 & -8)
        return place

    # -- the rows on them ----------------------------------------------------
    def allowed(self) -> set[int]:
        """Ids that may be lost."""
        found: set[int] = set()
        for key, pieces in self.entries.items():
            if self.row and key != SCATTERED_KEY:
                found |= self._group(key, pieces)
            elif not self.row:
                found |= self._segment(key, pieces)
        for _, meta, start, end in self.entries.get(SCATTERED_KEY, ()):
            if self.data.hit(start, end):
                bits = int.from_bytes(meta, "little")
                for group in range(bits.bit_length()):
                    if bits >> group & 1:
                        found |= set(range(group * self.span, (group + 1) * self.span))
        for first, last in self.gone:
            found |= set(range(first, min(last + 1, self.rows)))
        return found

    def _group(self, key: int, pieces: list[tuple[int, bytes, int, int]]) -> set[int]:
        base = key * self.span
        known: set[int] = set()
        lost: set[int] = set()
        for tag, _, start, end in pieces:
            if self.data.hit(start, end):
                lost, known = set(range(base, base + self.span)), set()
            elif tag >> 24 == PATCH:
                known |= {base + row for row in rows_in(self.raw[start:end], "<IB3sI")}
        for _, _, start, end in self.entries.get(SCATTERED_KEY, ()):
            known |= set(rows_in(self.raw[start:end], "<QB3sI"))
        return lost - known

    def _segment(self, key: int, pieces: list[tuple[int, bytes, int, int]]) -> set[int]:
        base = key * SEGMENT
        sealed = next(
            (struct.unpack_from("<4xI", meta)[0] for tag, meta, _, _ in pieces if tag >> 24 == SEALED and meta), 0
        )
        held = sealed  # rows in a chunk: without a piece of a tail, and short of the end, the tail is in it too
        if sealed < SEGMENT and all(tag >> 24 != TAIL for tag, *_ in pieces):
            held = min(self.size - base, SEGMENT)
        found: set[int] = set()
        for tag, meta, start, end in pieces:
            if not self.data.hit(start, end):
                continue
            kind = tag >> 24
            if kind in (OVERLAY, DELETED):
                return set(range(base, base + SEGMENT))
            first = 0 if kind == SEALED else sealed + struct.unpack("<I", meta)[0]
            found |= set(range(base + first, base + first + (held if kind == SEALED else BLOCK)))
        return found


def rows_in(data: bytes, form: str) -> Iterator[int]:
    """The rows of a patch or of scattered changes."""
    count, at = struct.unpack_from("<I", data)[0], 8
    for _ in range(count):
        row, _, _, size = struct.unpack_from(form, data, at)
        yield row
        at += struct.calcsize(form) + size


def frames_of(data: bytes, lsn: int) -> Iterator[tuple[int, int, int]]:
    """The frames of a log from this one on: its LSN, and where its payload begins and ends."""
    seed = zlib.crc32(data[44:60] + data[24:32])
    for begin, end in log_frames(data):
        if zlib.crc32(data[begin - 36 : end], seed) != struct.unpack_from("<I", data, begin - 40)[0]:
            return  # of an older epoch
        yield lsn, begin, end
        lsn += 1


# -- the log ---------------------------------------------------------------------
class _Log:
    """What the changes of the running epoch's log leave unsaid. ``torn``: the first frame that is damaged, None: none;
    ``proven``: frames after it prove that it was on stable storage.
    """

    def __init__(self, made: Seed, files: dict[str, bytes]) -> None:
        slot = newest({name: bytearray(found) for name, found in made.files.items()})
        epoch, first = struct.unpack_from("<Q", made.files[PATH], slot + 72)[0], 0
        first = struct.unpack_from("<Q", made.files[PATH], slot + 64)[0] + 1
        name = f"{PATH}-wal{epoch & 1}"
        self.torn: Optional[int] = None
        self.proven = False
        self.missing = name in made.files and files.get(name) is None
        if name not in made.files:
            return
        data = Bytes(made.files[name], files.get(name))
        for lsn, begin, end in frames_of(data.before, first):
            (durable,) = struct.unpack_from("<Q", data.before, begin - 8)
            if data.hit(begin - 40, end):
                self.torn = lsn if self.torn is None else self.torn
            elif self.torn is not None and durable >= self.torn:
                self.proven = True


# -- the judgement -----------------------------------------------------------------
def judge(made: Seed, files: dict[str, bytes], found: Repaired) -> str:
    """Whether a repair has kept what it must, and named what it has not: what is wrong, "" where nothing is."""
    report, rows = found.report, found.rows
    named: set[int] = set()
    commits: Optional[int] = None
    snapshots = 0
    for one in report["lost"]:
        if one["kind"] == "rows":
            named |= set(range(one["first"], one["last"] + 1))
        elif one["kind"] == "commits":
            commits = one["first"] - 1
        else:
            snapshots += 1
    if report["ok"] is not (not report["lost"]):
        return f"ok is {report['ok']} with {report['lost']}"
    log = _Log(made, files)
    expected = made.rows if commits is None else made.at(commits)
    wrong = _compare(expected, rows, named)
    if wrong and commits is None and log.torn is not None and not log.proven:
        # a crash leaves the same behind: the log ends there
        wrong = _compare(made.at(log.torn - 1), rows, named)
        snapshots = len(made.snapshots)
    if wrong:
        return wrong
    data = Bytes(made.files[PATH], files[PATH])
    if made.key is None and made.plain:
        tree = _Tree(made, data)
        if not tree.anything and commits is None and not any(data.hit(at, at + 600) for at in made.bulk):
            more = named - tree.allowed()
            bulk = {idx for idx in more if idx in made.rows and idx not in made.states[0][1]} if made.bulk else set()
            more = {idx for idx in more - bulk if idx in expected}
            if more:
                return f"rows {sorted(more)[:5]} are lost without need: {report['lost'][:3]}"
        if not tree.anything and commits is not None and log.torn is None and not log.missing:
            return f"commits are lost without need: {report['lost'][-1]}"
    ended = commits is not None or (log.torn is not None and not log.proven)
    for name, shown in found.snapshots.items():
        if shown != made.snapshots.get(name, made.dropped.get(name) if ended else None):
            return f"snapshot {name!r} shows other rows"
    missing = set(made.snapshots) - set(found.snapshots)
    if len(missing) > snapshots and commits is None:
        return f"snapshots {missing} are gone and not named"
    return ""


def all_may_be_lost(made: Seed, files: dict[str, bytes]) -> bool:
    """Whether no row need be left."""
    tree = _Tree(made, Bytes(made.files[PATH], files[PATH])) if made.key is None else None
    return tree is None or tree.anything or set(made.rows) <= tree.allowed()


def _compare(expected: Rows, rows: Rows, named: set[int]) -> str:
    for idx, row in rows.items():
        if expected.get(idx) != row:
            return f"row {idx} is {row}, it was {expected.get(idx)}"
    missing = [idx for idx in expected if idx not in rows and idx not in named]
    return f"rows {missing[:5]} are gone and not named" if missing else ""


def sealed_parts(made: Seed) -> Sealed:
    """The parts of an undamaged file."""
    return Sealed(made.files, PATH)
