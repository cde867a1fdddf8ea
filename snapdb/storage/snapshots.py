"""Snapshots: their records in the root, the lists of extents that only they reach, and the rules for these.

Bytes and rules: ``docs/format.md``, "A snapshot's record", "Dead list" and "How room is accounted".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from ..errors import CorruptionError, InternalError
from ..pieces import Ref
from .extents import HEADER, pages
from .nodes import PAGE_BITS, Bad
from .superblock import MAX_OFFSET, MOST, PAGE, PREAMBLE, ROOT_LIMIT

if TYPE_CHECKING:
    from .extents import Extents

__all__ = [
    "LIST_LIMIT", "MOST_SNAPSHOTS", "NAME_LIMIT", "Dead", "Filed", "History", "Snapshot", "decode_dead",
    "decode_frame", "decode_snapshots", "encode_dead", "encode_frame",
]  # fmt: skip

Places = set[tuple[int, int]]  # extents (offset, size)
Known = AbstractSet[tuple[int, int]]

MOST_SNAPSHOTS = 65_536  # of one database
NAME_LIMIT = (1 << 16) - 1  # bytes of a name, and of a meta
LIST_LIMIT = 2700  # items of one dead list: they fill 64 KiB

_RECORD = struct.Struct("<IHHQQQQIIQQ")
_REF = struct.Struct("<QIIQQ")
_LIST = struct.Struct("<4sIQ")
_DEAD = struct.Struct("<QIIQ")
_FRAME = struct.Struct("<II")
_TAGGED = 1  # flag of a frame: its references have tags
_TAG = 16  # bytes of one
_PADS = [bytes(-size % 8) for size in range(8)]


class Dead(NamedTuple):
    """An extent that the live tree let go of: ``size`` in bytes; ``birth``: the generation it was written for."""

    offset: int
    size: int
    birth: int


class _Fields(NamedTuple):
    serial: int
    name: str
    generation: int
    lsn: int
    time: int
    root: Ref
    meta: bytes = b""
    lists: tuple[Ref, ...] = ()
    dead: int = 0
    dead_bytes: int = 0


class Snapshot(_Fields):
    """A record: the state of LSN ``lsn``, made when ``generation`` was the newest superblock's.

    ``serial``: from 1, never given out twice. ``time``: microseconds since 1970. ``root``: its pinned root. ``lists``:
    its dead lists, with ``dead`` extents of ``dead_bytes`` in them (as of the last checkpoint). ``meta``: the caller's.
    """

    def encode(self) -> bytes:
        """The bytes of the record, made once: a root may have thousands. InternalError: check the name first."""
        data: Optional[bytes] = self.__dict__.get("data")
        if data is None:
            data = self.__dict__["data"] = self._encode()
        return data

    def _encode(self) -> bytes:
        name = self.name.encode("utf-8")
        if not 0 < len(name) <= NAME_LIMIT or len(self.meta) > NAME_LIMIT:
            raise InternalError(f"a snapshot's name of {len(name)} bytes, its meta of {len(self.meta)}")
        refs = b"".join([*map(_encode_ref, (self.root, *self.lists))])
        size = _RECORD.size + len(refs) + len(name) + len(self.meta)
        pad = _PADS[size & 7]
        head = _RECORD.pack(
            size + len(pad), len(name), len(self.meta), self.serial, self.generation, self.lsn, self.time,
            len(self.lists), 0, self.dead, self.dead_bytes,
        )  # fmt: skip
        return b"".join([head, refs, name, self.meta, pad])


# -- records ---------------------------------------------------------------
def _encode_ref(ref: Ref) -> bytes:
    return _REF.pack(ref.extent, ref.size >> PAGE_BITS, ref.crc, ref.at, ref.length) + ref.tag


def _decode_ref(data: bytes, place: int, most: int, tag: int) -> Ref:
    """A reference to the one piece of an extent, of at most so many bytes, with a tag of so many bytes."""
    extent, size, crc, at, length = _REF.unpack_from(data, place)
    size <<= PAGE_BITS
    if extent % PAGE or not PREAMBLE <= extent <= MAX_OFFSET - size or at != HEADER or length > most:
        raise Bad(f"a reference to {length} bytes at {at} of the extent at {extent}")
    if size != pages(HEADER + length):
        raise Bad(f"a reference to {length} bytes in an extent of {size}")
    place += _REF.size
    return Ref(extent, size, at, length, crc, data[place : place + tag])


def decode_snapshots(data: bytes, count: int, tagged: bool = False) -> list[Snapshot]:
    """``count`` records that fill ``data``. ``tagged``: their references have tags. ``Bad`` says what is wrong."""
    if count > MOST_SNAPSHOTS:
        raise Bad(f"{count} snapshots")
    found: list[Snapshot] = []
    names: set[str] = set()
    place = last = 0
    for _ in range(count):
        record, place = _decode_record(data, place, _TAG if tagged else 0)
        if record.serial <= last or record.name in names:
            raise Bad(f"snapshot {record.serial} after {last}, or its name twice")
        last = record.serial
        names.add(record.name)
        found.append(record)
    if place != len(data):
        raise Bad(f"its snapshots end at {place} of {len(data)} bytes")
    return found


def _decode_record(data: bytes, place: int, tag: int) -> tuple[Snapshot, int]:
    """The record at this place, and where it ends; its references have tags of so many bytes."""
    left, each = len(data) - place, _REF.size + tag
    if left < _RECORD.size + each:
        raise Bad(f"a snapshot in {left} bytes")
    size, name_bytes, meta_bytes, serial, generation, lsn, time, lists, zero, dead, dead_bytes = _RECORD.unpack_from(
        data, place
    )
    needed = _RECORD.size + each * (1 + lists) + name_bytes + meta_bytes
    if size > left or size != needed + (-needed & 7):
        raise Bad(f"a snapshot of {size} bytes in {left}, {lists} lists")
    if not 0 < serial < MOST or max(generation, lsn, time) > MOST or not name_bytes or zero:
        raise Bad(f"snapshot {serial} of generation {generation}, LSN {lsn}, time {time}")
    if not lists <= dead <= lists * LIST_LIMIT or not dead * PAGE <= dead_bytes <= (MAX_OFFSET if dead else 0):
        raise Bad(f"snapshot {serial} with {dead} extents in {lists} lists")
    end = place + size
    place += _RECORD.size
    root = _decode_ref(data, place, ROOT_LIMIT, tag)
    place += each
    most = _LIST.size + LIST_LIMIT * _DEAD.size
    refs = tuple(_decode_ref(data, place + at * each, most, tag) for at in range(lists))
    place += lists * each
    try:
        name = data[place : place + name_bytes].decode("utf-8")
    except UnicodeDecodeError:
        raise Bad(f"the name of snapshot {serial} is no text") from None
    place += name_bytes
    meta = data[place : place + meta_bytes]
    if any(data[place + meta_bytes : end]):
        raise Bad(f"something behind the record of snapshot {serial}")
    record = Snapshot(serial, name, generation, lsn, time, root, meta, refs, dead, dead_bytes)
    record.__dict__["data"] = data[end - size : end]
    return record, end


def encode_frame(record: Snapshot) -> bytes:
    """The payload of the frame that makes a snapshot."""
    return _FRAME.pack(0, _TAGGED if record.root.tag else 0) + record._replace(lists=(), dead=0, dead_bytes=0).encode()


def decode_frame(payload: Any, tagged: bool = False) -> Snapshot:
    """The record in such a payload. ``tagged``: its reference must have a tag, and else must not. CorruptionError."""
    try:
        if len(payload) < _FRAME.size:
            raise Bad(f"{len(payload)} bytes")
        zero, flags = _FRAME.unpack_from(payload)
        if zero or flags != (_TAGGED if tagged else 0):
            raise Bad(f"flags {flags:#x}")
        (record,) = decode_snapshots(bytes(payload[_FRAME.size :]), 1, tagged)
        if record.lists:
            raise Bad("it has dead lists")
    except Bad as error:
        raise CorruptionError(f"a snapshot frame of the log is damaged: {error}") from None
    return record


# -- dead lists ------------------------------------------------------------
def encode_dead(items: Sequence[Dead]) -> bytes:
    """The bytes of a dead list: at least one extent, at most ``LIST_LIMIT``, offsets ascending."""
    if not 0 < len(items) <= LIST_LIMIT:
        raise InternalError(f"a dead list of {len(items)} extents")
    pack = _DEAD.pack
    return _LIST.pack(b"SNDL", len(items), 0) + b"".join(
        [pack(offset, size >> PAGE_BITS, 0, birth) for offset, size, birth in items]
    )


def decode_dead(data: bytes, end: int = MAX_OFFSET) -> list[Dead]:
    """The extents that a dead list names, none of them past ``end``. ``Bad`` says what is wrong."""
    if len(data) < _LIST.size:
        raise Bad(f"a dead list in {len(data)} bytes")
    magic, count, zero = _LIST.unpack_from(data)
    if magic != b"SNDL" or zero or not 0 < count <= LIST_LIMIT or len(data) != _LIST.size + count * _DEAD.size:
        raise Bad(f"a dead list of {count} extents in {len(data)} bytes")
    found = []
    place = PREAMBLE
    for offset, size, zero, birth in _DEAD.iter_unpack(memoryview(data)[_LIST.size :]):
        size <<= PAGE_BITS
        if zero or not size or offset % PAGE or offset < place or offset + size > end or birth > MOST:
            raise Bad(f"a dead list with an extent of {size} bytes at {offset}")
        place = offset + size
        found.append(Dead(offset, size, birth))
    return found


# -- who keeps what --------------------------------------------------------
class _List:
    """A dead list: its extents by offset; ``ref`` where the file has it just so."""

    __slots__ = ("items", "ref")

    def __init__(self, items: dict[int, Dead], ref: Optional[Ref] = None) -> None:
        self.items = items
        self.ref = ref


class Filed(NamedTuple):
    """What ``History.write`` has made: the records for the root, and which extents nothing reaches below it: ``free``.
    Nothing of it holds before ``saved``.
    """

    records: list[Snapshot]
    free: Places
    lists: dict[int, list[_List]]


class Lists(Protocol):
    """Where dead lists are written."""

    def dead(self, serial: int, data: bytes) -> Ref:
        """Write a dead list of this snapshot to an extent of its own."""
        ...


class History:
    """The snapshots of an open store, and the extents that only they reach: the rules of "How room is accounted".

    ``records``: serials ascending. ``serial``: the next one's. ``pending``: extents that were given up since the last
    checkpoint, that its root still reaches and the next one does not. The caller has the store to itself.
    """

    def __init__(self, extents: Extents, records: Iterable[Snapshot] = (), serial: int = 1) -> None:
        self.records = list(records)
        self.serial = serial
        self.pending: Places = set()
        self._extents = extents
        self._lists: dict[int, list[_List]] = {}  # by serial, those that were read
        self._changed: set[int] = set()  # whose lists the next checkpoint writes

    # -- finding -----------------------------------------------------------
    def find(self, name: str) -> Optional[Snapshot]:
        """The snapshot of this name."""
        return next((record for record in self.records if record.name == name), None)

    def by_serial(self, serial: int) -> Snapshot:
        """KeyError where there is none."""
        return self.records[self._index(serial)]

    def _index(self, serial: int) -> int:
        for index, record in enumerate(self.records):
            if record.serial == serial:
                return index
        raise KeyError(f"there is no snapshot {serial}")

    @property
    def changed(self) -> bool:
        """Whether the next checkpoint has lists to write or extents to give back."""
        return bool(self._changed or self.pending)

    # -- the lists ---------------------------------------------------------
    def load(self, serial: int) -> None:
        """Read what ``drop`` of this snapshot needs: after it that one reads nothing. CorruptionError, OSError."""
        index = self._index(serial)
        for record in self.records[max(0, index - 1) : index + 1]:
            self._of(record)

    def load_all(self) -> None:
        """Read every list: what changes them reads nothing more. CorruptionError, OSError."""
        self._all()

    def _of(self, record: Snapshot) -> list[_List]:
        found = self._lists.get(record.serial)
        if found is None:
            found = [self._read(record, ref) for ref in record.lists]
            count = sum([len(one.items) for one in found])
            size = sum([item.size for one in found for item in one.items.values()])
            if (count, size) != (record.dead, record.dead_bytes):
                raise self._damaged(record, record.root, f"has {count} extents, {size} bytes, in its dead lists")
            self._lists[record.serial] = found
        return found

    def _read(self, record: Snapshot, ref: Ref) -> _List:
        data = self._extents.load(ref)
        try:
            return _List({item.offset: item for item in decode_dead(data, self._extents.length)}, ref)
        except Bad as error:
            raise self._damaged(record, ref, str(error)) from None

    def _damaged(self, record: Snapshot, ref: Ref, what: str) -> CorruptionError:
        path = self._extents.path
        return CorruptionError(f"{path}: snapshot {record.serial}: {what}", path=path, offset=ref.extent)

    def dead(self, record: Snapshot) -> list[Dead]:
        """The extents in a snapshot's dead lists. CorruptionError."""
        return [item for one in self._of(record) for item in one.items.values()]

    def reach(self) -> Places:
        """Pinned roots, dead lists, and what these name: all that only snapshots reach. CorruptionError."""
        lists = [one for record in self.records for one in self._of(record)]
        refs = {ref[:2] for record in self.records for ref in record.lists}
        refs.update([one.ref[:2] for one in lists if one.ref is not None])
        places = [record.root[:2] for record in self.records]
        places += [item[:2] for one in lists for item in one.items.values()]
        found = refs.union(places)
        if len(found) < len(refs) + len(places):
            path = self._extents.path
            raise CorruptionError(f"{path}: two snapshots name the same extent", path=path)
        return found

    def keeps(self, extents: Known) -> Places:
        """Those of the extents that a dead list names. CorruptionError."""
        if not extents:
            return set()
        lists = [one.items for record in self.records for one in self._of(record)]
        return {place for place in extents if any(place[0] in items for items in lists)}

    # -- what happens to them ------------------------------------------------
    def add(self, record: Snapshot, strangers: Known = frozenset()) -> None:
        """A snapshot was made. ``strangers``: what its tree reaches and the live one does not, where the log is
        replayed on an older root. ValueError where it cannot be the next one.
        """
        if record.serial < self.serial or self.find(record.name) is not None:
            raise ValueError(f"snapshot {record.serial} has a name or a number that is taken")
        items = {place[0]: self._item(place) for place in strangers}
        following = record.serial + 1
        self.resurrect(strangers)
        self._lists[record.serial] = [_List(items)] if items else []
        if items:
            self._changed.add(record.serial)
        self.records.append(record._replace(lists=(), dead=0, dead_bytes=0))
        self.serial = following

    def drop(self, serial: int) -> None:
        """A snapshot is no more: what an older one may reach goes to that one. KeyError; see ``load``."""
        index = self._index(serial)
        record = self.records[index]
        before = self.records[index - 1] if index else None
        lists, kept = self._of(record), [] if before is None else list(self._of(before))
        gone = {ref[:2] for ref in (record.root, *record.lists)}
        for one in lists:
            if one.ref is not None:
                gone.add(one.ref[:2])
            items = {} if before is None else self._reached_by(before, one.items)
            if len(items) == len(one.items) and one.ref is not None:
                kept.append(one)
                gone.discard(one.ref[:2])
                continue
            gone |= {item[:2] for offset, item in one.items.items() if offset not in items}
            if items:
                kept.append(_List(items))
        self.pending |= gone  # up to here it can be done again, if there is no memory
        if before is not None and kept:
            self._changed.add(before.serial)
            refs = [one.ref for one in kept if one.ref is not None and one.ref not in before.lists]
            new = before._replace(lists=before.lists + tuple(refs))  # and those that are taken over as they are
            self._lists[before.serial] = kept
            self.records[index - 1] = new
        self._changed.discard(serial)
        self._lists.pop(serial, None)
        del self.records[index]

    def forget(self, serial: int) -> None:
        """A snapshot is not shown any more, in a file that is only read. KeyError."""
        del self.records[self._index(serial)]

    def _reached_by(self, record: Snapshot, items: dict[int, Dead]) -> dict[int, Dead]:
        """Those of the extents that this snapshot may reach: of its time or older."""
        return {offset: item for offset, item in items.items() if item.birth <= record.generation}

    def _item(self, place: tuple[int, int]) -> Dead:
        return Dead(*place, self._extents.birth(place[0]))

    def _sorted(self, places: Known) -> tuple[dict[int, Dead], Places]:
        """Extents that the live tree let go of: what the newest snapshot may reach, and what none does. OSError."""
        if not self.records or not places:
            return {}, set(places)
        items = {place[0]: self._item(place) for place in places}
        found = self._reached_by(self.records[-1], items)
        return found, {place for place in places if place[0] not in found}

    def bury(self, places: Known) -> Places:
        """The live tree let go of these; those that no snapshot may reach. OSError."""
        items, free = self._sorted(places)
        if items:
            newest = self.records[-1]
            lists = [*self._of(newest), _List(items)]
            self._changed.add(newest.serial)
            self._lists[newest.serial] = lists
        return free

    def shares(self, places: Known) -> Places:
        """Those of the live tree's extents that a snapshot may reach too. OSError."""
        return set(places) - self._sorted(places)[1]

    def resurrect(self, places: Known) -> None:
        """The live tree reaches these again: off every list. CorruptionError where the lists were not read."""
        if places:
            lists, touched = self._without(self._all(), places)
            self._changed |= touched
            self._lists = lists

    def _all(self) -> dict[int, list[_List]]:
        return {record.serial: self._of(record) for record in self.records}

    @staticmethod
    def _without(lists: dict[int, list[_List]], places: Known) -> tuple[dict[int, list[_List]], set[int]]:
        """The lists without these extents, and whose they are."""
        offsets = {offset for offset, _ in places}
        new, touched = dict(lists), set()
        for serial, found in lists.items():
            if any(not offsets.isdisjoint(one.items) for one in found):
                touched.add(serial)
                new[serial] = [
                    one if offsets.isdisjoint(one.items)
                    else _List({offset: item for offset, item in one.items.items() if offset not in offsets})
                    for one in found
                ]  # fmt: skip
        return new, touched

    # -- a checkpoint --------------------------------------------------------
    def write(self, draft: Lists, released: Known = frozenset(), reached: Known = frozenset()) -> Filed:
        """Write the lists that change with a tree that lets go of ``released``. ``reached``: extents that frames of the
        log named and this tree reaches. Nothing is changed before ``saved``. CorruptionError, OSError.
        """
        lists, changed = dict(self._lists), set(self._changed)
        if self.keeps(reached):
            lists, touched = self._without(self._all(), reached)
            changed |= touched
        items, free = self._sorted(released)
        if items:
            newest = self.records[-1]
            self._of(newest)
            lists[newest.serial] = [*lists.get(newest.serial, self._lists[newest.serial]), _List(items)]
            changed.add(newest.serial)
        records = list(self.records)
        for at, record in enumerate(records):
            if record.serial in changed:
                new = self._write_lists(draft, record.serial, lists[record.serial])
                lists[record.serial] = new
                refs = tuple([one.ref for one in new if one.ref is not None])
                free |= {ref[:2] for ref in record.lists} - {ref[:2] for ref in refs}
                dead = [item.size for one in new for item in one.items.values()]
                records[at] = record._replace(lists=refs, dead=len(dead), dead_bytes=sum(dead))
        return Filed(records, (free | self.pending).difference(reached), lists)

    def _write_lists(self, draft: Lists, serial: int, lists: list[_List]) -> list[_List]:
        """The lists of a snapshot with those that are new, or not full beside others, written to new extents."""
        new = any(one.ref is None for one in lists)
        short = sum([len(one.items) < LIST_LIMIT for one in lists])
        kept: list[_List] = []
        moved: list[Dead] = []
        for one in lists:
            if one.ref is not None and (len(one.items) == LIST_LIMIT or not (new or short > 1)):
                kept.append(one)
            else:
                moved += one.items.values()
        moved.sort()
        for start in range(0, len(moved), LIST_LIMIT):
            some = moved[start : start + LIST_LIMIT]
            ref = draft.dead(serial, encode_dead(some))
            kept.append(_List({item.offset: item for item in some}, ref))
        return kept

    def saved(self, filed: Filed) -> None:
        """The root with these records is the database."""
        self.records, self._lists = filed.records, filed.lists
        self._changed.clear()
        self.pending.clear()
