"""The table of a damaged file as far as it can be known: entries that were judged, and the log carried out on them.

Nothing is guessed. A row is kept where checksums stand for all that says what it is now; else it is lost, and its id is
remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional, Union

from . import columnar_salvage, row_salvage
from ._ext._common import SEGMENT
from .errors import CorruptionError, NotSupportedError
from .opening import described
from .pieces import Entry, Piece, Ref
from .records import BULK, CHANGE, COMPACT, DELETE, DROP, RESTORE, ROW, SNAPSHOT, Replay, read_bulk
from .remains import Judged, Ranges
from .row_scattered import SCATTERED_KEY, groups_of
from .snapshots import told
from .storage.catalog import Root, Tree
from .storage.recovery import Frame, read_pinned
from .storage.salvage import Candidate, Wreck, surviving
from .storage.snapshots import Snapshot, decode_frame
from .table import Change, Staged
from .tablefile import stored_generations

__all__ = ["UNKNOWN", "Salvaged", "unsound", "unsound_snapshots"]

UNKNOWN = (CorruptionError, NotSupportedError)  # what says that a state cannot be had


class _Remains:
    """A ``Source`` of entries that are sound: pieces in the damaged file, and some in memory that were made anew."""

    def __init__(self, wreck: Wreck) -> None:
        self.path = wreck.path
        self.entries: dict[int, Entry] = {}
        self._extents = wreck.extents
        self._made: dict[int, Any] = {}

    def entry(self, key: int) -> Optional[Entry]:
        """The entry under a key."""
        return self.entries.get(key)

    def read(self, ref: Ref) -> memoryview:
        """The bytes of a piece. CorruptionError."""
        made = self._made.get(ref.extent)
        return self._extents.read(ref) if made is None else memoryview(made)

    def keep(self, key: int, entry: Optional[Entry]) -> None:
        """Have this entry, whose data need not be in a file."""
        if entry is None:
            self.entries.pop(key, None)
            return
        pieces = []
        for piece in entry.pieces:
            if piece.ref is None:
                at = -1 - len(self._made)
                self._made[at] = bytes(piece.data)
                piece = Piece(piece.tag, piece.meta, None, Ref(at, 0, 0, len(self._made[at]), 0))
            pieces.append(piece)
        self.entries[key] = Entry(entry.meta, pieces)


_ENOUGH = 64 << 20  # bytes of snapshots that ``fsck`` has the engine read: beyond, their checksums must do


class _Known:
    """Entries that are sound as they are, with what lies over them: their live rows; ``bytes`` were read for that."""

    def __init__(self) -> None:
        self.live: dict[Any, int] = {}
        self.bytes = 0


class _Sound:
    """A file that is open, as far as a state needs it."""

    def __init__(self, store: Any) -> None:
        self.path: str = store.path
        self.extents = store.extents

    def owner(self, offset: int) -> Optional[int]:
        """Nobody owns an extent that two entries have."""
        return None


def unsound_snapshots(
    wreck: Union[Wreck, _Sound], records: Sequence[Snapshot], most: Optional[int] = None
) -> list[tuple[Snapshot, str]]:
    """The snapshots that are not what was written, and why. What they share is looked at once. Newest first, until so
    many bytes were read.
    """
    found = []
    known = _Known()
    for record in reversed(records):
        if most is not None and known.bytes > most:
            break
        try:
            root = read_pinned(wreck.extents, record)
            reason = Salvaged(wreck, Candidate("", root, record.lsn, ()), known).unsound()
            told(record)
        except (*UNKNOWN, ValueError, OSError) as error:
            reason = str(error)
        if reason:
            found.append((record, reason))
    return found


def unsound(store: Any) -> list[dict[str, Any]]:
    """What is wrong with the snapshots of an open file, for ``fsck``."""
    return [
        {"kind": "snapshot", "where": record.root.extent, "message": f"snapshot {record.name!r}: {reason}"}
        for record, reason in unsound_snapshots(_Sound(store), store.history.records, _ENOUGH)
    ]


class _Stop(Exception):
    """The log cannot be followed any further: says why."""


class Salvaged:
    """The table of one candidate as far as it can be known: ``reached`` is the last frame that is in it, ``stopped``
    why that is not the last one of the log.
    """

    def __init__(self, wreck: Union[Wreck, _Sound], candidate: Candidate, known: Optional[_Known] = None) -> None:
        self.wreck: Any = wreck
        self._known = known
        self.candidate = candidate
        self.reached = candidate.lsn
        self.stopped = ""
        self.records = list(candidate.records)
        self.serial = max([candidate.root.serial, *[one.serial + 1 for one in self.records]])
        self.lost = Ranges()
        self._begin(candidate.root)

    # -- entries ---------------------------------------------------------------
    def _begin(self, root: Root) -> None:
        """Be what a root shows. CorruptionError where its header makes no sense."""
        self.header = root.header
        table: Any = described(root.header, self.wreck.path).table
        self.table = table
        rows = root.header.get("rows")
        if type(rows) is not int or rows < 0:
            raise CorruptionError(f"{self.wreck.path}: the stored number of rows is {rows!r}", path=self.wreck.path)
        self.rows: int = rows
        self._row = table.storage_type == "row"
        self.span: int = table.slabs.slab_rows * table.slabs.group_slabs if self._row else SEGMENT
        self._layers: list[row_salvage.Layer] = []
        self._folded = 0  # groups in which no scattered change counts any more
        self.lost = Ranges()
        self.past = Ranges()  # apart from those that are lost: the log may give these ids out
        self.source = _Remains(self.wreck)
        self._live: dict[int, int] = {}
        self._made: list[Judged] = []  # entries that could not stay as they are
        self._doubtful: dict[int, str] = {}  # keys of which something is lost
        self._collect(Tree(self.wreck.extents, root.top))

    def _collect(self, tree: Tree) -> None:
        """Every entry, judged."""
        keys = -(-self.rows // self.span)
        entries: dict[int, Entry] = {}
        holes: dict[int, str] = {}
        unknown = ""  # why it is not known which rows have changed since
        for key, entry, hole in surviving(tree):
            if hole is not None:
                holes.update([(one, hole.reason) for one in range(hole.first, min(hole.stop, keys))])
                unknown = unknown or (hole.reason if self._row and hole.stop > SCATTERED_KEY else "")
            elif entry is not None:
                entries[key] = entry
        if self._row and not unknown:
            try:
                self._layers = row_salvage.layers(self.source, entries.get(SCATTERED_KEY), self.span, keys)
            except ValueError as error:
                unknown = str(error)
        if unknown:
            entries, holes = {}, dict.fromkeys(range(keys), unknown)
        counting = {group for layer in self._layers for group in groups_of(layer.bits)}
        for key, reason in self._sharing(entries):
            del entries[key]
            holes[key] = reason
        for key in sorted({*entries, *holes, *counting}):
            if key < keys:
                entry = entries.get(key)
                found = self._judged(key, entry, holes.get(key, ""))
                if found.entry is not entry:
                    self._made.append(found)
                self._take(key, found)
            elif key != SCATTERED_KEY or not self._row:
                self._made.append(Judged(None, 0, [], f"there is an entry {key}, which is past the end"))

    def _sharing(self, entries: dict[int, Entry]) -> Iterator[tuple[int, str]]:
        """The entries that have an extent, or a part of one, which is another one's."""
        places = {(piece.ref[:2], key) for key, entry in entries.items() for piece in entry.pieces if piece.ref}
        found: dict[int, str] = {}
        end, before = 0, (0, 0)
        for (offset, size), key in sorted(places):
            if offset < end:
                for at, one in (before, (offset, key)):
                    if self.wreck.owner(at) != one:
                        found[one] = f"the extent at {at} overlaps another one's"
            if offset + size > end:
                end, before = offset + size, (offset, key)
        yield from found.items()

    def _judged(self, key: int, entry: Optional[Entry], hole: str = "") -> Judged:
        """What there is of an entry; None: it is lost."""
        place: Any = None
        if self._known is not None and entry is not None:
            layers = [layer for layer in self._layers if layer.bits >> key & 1]
            size = self._ids(key)[1]
            place = (key, size, entry.meta, *[(one.tag, one.meta, one.ref) for one in entry.pieces])
            place += tuple([layer.piece.ref for layer in layers])
            if place in self._known.live:
                return Judged(entry, self._known.live[place], [])
            self._known.bytes += sum([one.ref.length for one in entry.pieces if one.ref is not None])
        found = self._judge(key, entry, hole)
        if place is not None and self._known is not None and found.entry is entry:
            self._known.live[place] = found.live
        return found

    def _judge(self, key: int, entry: Optional[Entry], hole: str) -> Judged:
        source: Any = self.source
        if self._row:
            found = row_salvage.judge(self.table, source, key, entry, self.rows, self._layers)
            if found.entry is not entry or entry is None:
                self._folded |= 1 << key
        elif entry is not None:
            found = columnar_salvage.judge(self.table, source, key, entry, self.rows)
        else:
            found = Judged(None, 0, [self._ids(key)], hole)
        return found._replace(reason=hole or found.reason)

    def _take(self, key: int, found: Judged) -> None:
        self.source.keep(key, found.entry)
        self._live[key] = found.live
        self.lost.update(found.lost, found.reason)
        self.past.update(found.past, found.reason)
        if found.lost:
            self._doubtful[key] = found.reason

    def _ids(self, key: int) -> tuple[int, int]:
        return key * self.span, min(self.rows, (key + 1) * self.span) - 1

    def fill(self, others: Iterator[Salvaged]) -> None:
        """Take what is lost from states that are the same one, found another way."""
        while self._doubtful:
            other = next(others, None)
            if other is None:
                return
            sound = [key for key in self._doubtful if not other.lost.meets(*self._ids(key))]
            entries = {} if not sound else {key: entry for key, entry in other.table.entries() if key in sound}
            for key in sound:
                del self._doubtful[key]
                self.lost.remove(*self._ids(key))
                self.past.remove(key * self.span, (key + 1) * self.span - 1)
                self._folded |= 1 << key
                self.source.keep(key, entries.get(key))
                entry = self.source.entry(key)
                self._live[key] = 0
                if entry is not None:
                    self._take(key, self._again(key, entry))

    def _again(self, key: int, entry: Entry) -> Judged:
        """An entry that says all there is, judged."""
        judge: Any = row_salvage.judge if self._row else columnar_salvage.judge
        found: Judged = judge(self.table, self.source, key, entry, self.rows)
        return found

    def same(self, lsn: int) -> Iterator[Salvaged]:
        """The states that other candidates lead to at this frame."""
        for candidate in self.wreck.current():
            if candidate is self.candidate or candidate.lsn > lsn:
                continue
            try:
                other = Salvaged(self.wreck, candidate)
                other.follow(lsn)
            except UNKNOWN:
                continue
            if other.reached == lsn and (other.rows, other.span) == (self.rows, self.span):
                yield other

    def unsound(self) -> str:
        """Why this is not what was written, "" where it is."""
        changed = [one.reason for one in self._made]
        if self.lost or changed:
            return next(iter(self.lost), (0, 0, changed[0] if changed else ""))[2]
        live = sum(self._live.values())
        if live != self.header.get("live"):
            return f"{live} rows are live, and it says {self.header.get('live')}"
        self.adopt()
        return ""

    # -- the log -----------------------------------------------------------------
    def adopt(self) -> None:
        """Have the table be that of the entries."""
        if self._layers:
            self.source.keep(SCATTERED_KEY, row_salvage.without(self._layers, self._folded))
        live = sum(self._live.values())
        header = {**self.header, "rows": self.rows, "live": live}
        table = self.table
        table.generation, table.last_generation = stored_generations(header, self.wreck.path)
        try:
            table.adopt(header, self.source)
        except CorruptionError:
            if "hints" not in header:
                raise
            header.pop("hints")
            table.adopt(header, self.source)

    def follow(self, until: Optional[int] = None) -> None:
        """Carry out the frames that follow, up to ``until``."""
        self.adopt()
        frames = [] if self.candidate.stray else self.wreck.frames(self.reached)[0]
        replay = _Tolerant(self)
        rows: list[Frame] = []  # single-row inserts that follow each other
        try:
            for group in _transactions(frames):
                if until is not None and group[-1].lsn > until:
                    break
                if len(group) == 1 and group[0].kind == ROW:
                    rows += group
                    continue
                replay.run(rows)
                self.reached, rows = rows[-1].lsn if rows else self.reached, []
                replay.whole(group)
                self.reached = group[-1].lsn
            replay.run(rows)
            self.reached = rows[-1].lsn if rows else self.reached
        except _Stop as stop:
            self.stopped = str(stop)
        self.rows = self.table.rows

    def final(self) -> dict[int, Entry]:
        """The entries of the table as it is now."""
        entries = dict(self.source.entries)
        for key, entry in self.table.changes():
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
        return entries

    # -- snapshots ---------------------------------------------------------------
    def remember(self, record: Snapshot) -> None:
        """A snapshot was made."""
        self.records = [one for one in self.records if one.serial != record.serial and one.name != record.name]
        self.records.append(record)
        self.serial = max(self.serial, record.serial + 1)

    def forget(self, serial: int) -> None:
        """A snapshot was dropped."""
        self.records = [one for one in self.records if one.serial != serial]

    def restore(self, serial: int) -> None:
        """The table is what a snapshot shows."""
        record = next((one for one in self.records if one.serial == serial), None)
        if record is None:
            raise _Stop(f"it goes back to snapshot {serial}, which is lost")
        last = max(self.table.generation, self.table.last_generation)
        try:
            self._begin(self.wreck.pinned(record))
            self.adopt()
        except UNKNOWN as error:
            raise _Stop(f"it goes back to snapshot {record.name!r}, which is lost: {error}") from error
        self.table.last_generation = max(last, self.table.last_generation)

    @property
    def missing(self) -> int:
        """How many rows are lost."""
        return sum(last - first + 1 for first, last, _ in self.lost)


def _transactions(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if frame.last:
            yield group
            group = []


class _Tolerant(Replay):
    """Carries out frames on a table that lacks rows: what is said of those is passed over."""

    def __init__(self, state: Salvaged) -> None:
        self._state = state
        super().__init__(state.table, state.wreck.path, self._of_history)

    def whole(self, group: list[Frame]) -> None:
        """A transaction: all of it or nothing."""
        if len(group) == 1:
            self.run(group)
            return
        table, lost = self._table, self._state.lost.copy()
        table.begin()
        try:
            self.run(group)
        except _Stop:
            table.rollback()
            self._state.lost = lost
            raise
        table.commit()

    def _damaged(self, frame: Frame, error: object) -> CorruptionError:
        raise _Stop(f"frame {frame.lsn} cannot be carried out: {error}")

    def _one(self, frame: Frame) -> None:
        state, table, payload = self._state, self._table, frame.payload
        try:
            if frame.kind == CHANGE:
                changes = [Change(idx, values) for idx, values in table.codec.unpack_changes(payload)]
                changes = [change for change in changes if change.idx not in state.lost]
                table.check_live(change.idx for change in changes)
                table.apply(changes)
            elif frame.kind == DELETE:
                ids = [int.from_bytes(payload[at : at + 8], "little") for at in range(0, len(payload), 8)]
                ids = [idx for idx in ids if not state.lost.discard(idx)]
                table.check_live(ids)
                table.remove(ids)
            elif frame.kind == COMPACT and state.lost:
                raise _Stop("it gives ids anew, and which rows had them is lost")
            elif frame.kind == BULK:
                self._bulk(payload)
            else:
                super()._one(frame)
        except CorruptionError as error:
            raise _Stop(f"frame {frame.lsn}: {error}") from error

    def _bulk(self, payload: Any) -> None:
        """A batch in extents of its own; where some are damaged, what there is of it."""
        state, table = self._state, self._table
        first, rows, stored = read_bulk(payload)
        if first != table.rows:
            raise ValueError(f"a batch of {rows} rows from {first} on is at {table.rows}")
        try:
            for _, entry in stored:
                for piece in entry.pieces:
                    if piece.ref is not None:
                        state.source.read(piece.ref)
        except CorruptionError:
            pass
        else:
            table.replay(first, rows, stored)
            return
        salvage = row_salvage.batch if state.table.storage_type == "row" else columnar_salvage.batch
        batch = salvage(table, state.source, first, rows, stored)  # type: ignore[arg-type]
        table.extend(Staged(rows, batch.buffers))
        table.remove([idx for a, b in batch.lost for idx in range(a, b + 1)])
        state.lost.update(batch.lost, batch.reason)

    def _of_history(self, frame: Frame) -> None:
        state, payload = self._state, frame.payload
        if frame.kind == SNAPSHOT:
            state.remember(decode_frame(payload, state.wreck.extents.sealed))
            return
        serial = int.from_bytes(payload, "little")
        if frame.kind == DROP:
            state.forget(serial)
        elif frame.kind == RESTORE:
            state.restore(serial)
            self._table = state.table
