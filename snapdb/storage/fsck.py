"""Is the file what it should be? Both headers, both slots, the tree, its extents, every piece, the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..errors import CorruptionError, DatabaseError, NotSupportedError
from ..pieces import Entry, Ref
from .catalog import Tree
from .checkpoint import Places, places, root_place
from .extents import decode_header
from .recovery import frame_extents, read_pinned, read_root
from .sealed import open_frames
from .snapshots import History, Snapshot
from .space import Space
from .superblock import CRC, PAGE, PREAMBLE, SLOTS, STATIC, StaticHeader, Superblock, changed_slots, read_slots

if TYPE_CHECKING:
    from .store import Store

__all__ = ["check"]

_STEP = 1 << 20  # bytes read at once
_EXTENT_HEADER = 128


def check(store: Store, full: bool = False) -> list[dict[str, Any]]:
    """What is wrong with an open store's file: a dict each with ``kind``, ``where`` (byte of the file, None where that
    makes no sense) and ``message``. ``full``: every piece is read again. Nobody writes meanwhile.
    """
    return list(_Check(store, full).run())


class _Check:
    def __init__(self, store: Store, full: bool) -> None:
        self.store = store
        self.full = full
        self.root = store.root
        self.file = store.file
        self.reached: Places = set()  # by the root in force, but for its snapshots

    def run(self) -> Iterator[dict[str, Any]]:
        if self.full:
            self.store.extents.doubt()
        yield from self._headers()
        blocks = read_slots(self.file, self.store.static.uuid, self.store.cipher)
        yield from self._slots(blocks)
        whole = True
        for finding in self._tree():
            whole = False
            yield finding
        for finding in self._snapshots() if whole else ():
            whole = False
            yield finding
        if whole:
            yield from self._space()
        yield from self._log()

    def _headers(self) -> Iterator[dict[str, Any]]:
        for at in STATIC:
            try:
                StaticHeader.decode(self.file.pread(PAGE, at), self.store.path, at, sealed=True)
            except DatabaseError as error:
                yield _finding("header", at, str(error))

    def _slots(self, blocks: list[Superblock]) -> Iterator[dict[str, Any]]:
        """Both slots verify, and so do the roots they name."""
        there = {block.slot for block in blocks}
        changed = changed_slots(self.file, self.store.static.uuid, self.store.cipher)
        for slot, at in enumerate(SLOTS):
            if slot not in there:
                what = "was changed" if slot in changed else "does not verify"
                yield _finding("superblock", at, f"superblock {slot} {what}")
        for block in blocks:
            if block.file_length > self.file.size():
                what = f"superblock {block.slot} says {block.file_length} bytes, the file has {self.file.size()}"
                yield _finding("superblock", SLOTS[block.slot], what)
                continue
            try:
                read_root(self.store.extents, block)
            except (CorruptionError, NotSupportedError) as error:
                yield _finding("root", block.root_at, str(error))

    # -- the tree ----------------------------------------------------------------
    def _tree(self) -> Iterator[dict[str, Any]]:
        """The tree below the root in force, its extents and with ``full`` its pieces."""
        store = self.store
        count = 0
        try:
            if store.read_only:  # which has not carried out what its log says of extents
                self.root = read_root(store.extents, store.block)
            tree = Tree(store.extents, self.root.top)  # with nothing cached
            for key, entry in tree.items():
                count += 1
                yield from self._entry(key, entry)
            self.reached = set(tree.reachable()) | {root_place(store.block)}
        except CorruptionError as error:
            yield _finding("tree", error.offset, str(error))
            return
        if count != self.root.entries:
            yield _finding("tree", None, f"the tree has {count} entries, its root says {self.root.entries}")

    def _entry(self, key: int, entry: Entry, headers: bool = True) -> Iterator[dict[str, Any]]:
        for piece in entry.pieces:
            ref = piece.ref
            if ref is None:
                continue
            try:
                self.store.extents.check(ref)
            except CorruptionError as error:
                yield _finding("piece", error.offset, f"entry {key}: {error}")
                continue
            if self.full and self._sum(ref) != ref.crc:
                at = ref.extent + ref.at
                yield _finding("piece", at, f"entry {key}: {ref.length} bytes at {at} do not verify")
            elif self.full and self.store.extents.sealed:
                yield from self._seal(key, ref)
        if self.full and headers:
            yield from self._extent_headers(key, entry)

    def _seal(self, key: int, ref: Ref) -> Iterator[dict[str, Any]]:
        """The tag of a piece whose checksum is right."""
        try:
            self.store.extents.read(ref)
        except CorruptionError as error:
            yield _finding("piece", error.offset, f"entry {key}: {error}")

    def _sum(self, ref: Ref) -> int:
        """The CRC-32 of what is on disk now, whatever was verified before."""
        crc, at, end = 0, ref.extent + ref.at, ref.extent + ref.at + ref.length
        while at < end:
            data = self.file.pread(min(_STEP, end - at), at)
            if not data:
                return -1
            crc = CRC(data, crc)
            at += len(data)
        return crc

    def _extent_headers(self, key: int, entry: Entry) -> Iterator[dict[str, Any]]:
        for offset, _ in sorted(places(entry)):
            header = decode_header(self.file.pread(_EXTENT_HEADER, offset))
            if header is None:
                yield _finding("extent", offset, f"entry {key}: the header of its extent at {offset} does not verify")

    # -- snapshots, invariant 9 --------------------------------------------------
    def _snapshots(self) -> Iterator[dict[str, Any]]:
        """Pinned roots and dead lists verify, and the lists name what the rules say."""
        store = self.store
        history = store.history
        if store.read_only:
            history = History(store.extents, self.root.snapshots, self.root.serial)
        tops: dict[int, Optional[Ref]] = {}
        try:
            for record in history.records:
                yield from self._record(history, record, tops)
            if len(tops) == len(history.records):
                yield from self._rules(history, tops)
            if self.full:
                yield from self._pieces(tops)
        except (CorruptionError, NotSupportedError) as error:
            yield _finding("snapshot", getattr(error, "offset", None), str(error))

    def _record(self, history: History, record: Snapshot, tops: dict[int, Optional[Ref]]) -> Iterator[dict[str, Any]]:
        if self.full:
            for ref in (record.root, *record.lists):
                if self._sum(ref) != ref.crc:
                    what = f"snapshot {record.serial}: {ref.length} bytes at {ref.extent + ref.at} do not verify"
                    yield _finding("snapshot", ref.extent, what)
                    return
        history.dead(record)
        tops[record.serial] = read_pinned(self.store.extents, record).top

    def _rules(self, history: History, tops: dict[int, Optional[Ref]]) -> Iterator[dict[str, Any]]:
        """A1 and A2 of "How room is accounted"."""
        owners = {dead[:2]: (record, dead.birth) for record in history.records for dead in history.dead(record)}
        for offset, _ in sorted(self.reached & history.reach()):
            yield _finding("snapshot", offset, f"the extent at {offset} is in use and in a dead list")
        generations = {record.serial: record.generation for record in history.records}
        for place, serial in self._first_reached(sorted(tops), tops).items():
            if place in owners and owners[place][1] > generations[serial]:
                what = f"the extent at {place[0]} is older than its list says: snapshot {serial} reaches it"
                yield _finding("snapshot", place[0], what)
        for place, serial in self._first_reached(sorted(tops, reverse=True), tops).items():
            if place in owners and owners[place][0].serial < serial:
                what = (
                    f"the extent at {place[0]} is in a list of {owners[place][0].serial}, snapshot {serial} reaches it"
                )
                yield _finding("snapshot", place[0], what)
            elif place not in owners and place not in self.reached:
                what = f"the extent at {place[0]} is in no list, and snapshot {serial} reaches it"
                yield _finding("snapshot", place[0], what)

    def _pieces(self, tops: dict[int, Optional[Ref]]) -> Iterator[dict[str, Any]]:
        """The pieces that only snapshots have, each once."""
        tree, seen = Tree(self.store.extents, None), set()
        for serial, top in tops.items():
            waiting = [top]
            while waiting:
                ref = waiting.pop()
                if ref is None or ref in seen:
                    continue
                seen.add(ref)
                node = tree.node(ref)
                waiting += node.refs
                for index in range(0 if node.level else len(node.keys)):
                    for piece in tree.entry(ref, node, index).pieces:
                        if piece.ref is None or piece.ref in seen or piece.ref[:2] in self.reached:
                            continue
                        seen.add(piece.ref)
                        for finding in self._entry(node.keys[index], Entry(b"", [piece]), False):
                            yield _finding("snapshot", finding["where"], f"snapshot {serial}: {finding['message']}")

    def _first_reached(self, serials: list[int], tops: dict[int, Optional[Ref]]) -> dict[tuple[int, int], int]:
        """Which of the snapshots, in this order, is the first to reach an extent. Shared nodes are read once."""
        found: dict[tuple[int, int], int] = {}
        tree, seen = Tree(self.store.extents, None), set()
        for serial in serials:
            waiting = [tops[serial]]
            while waiting:
                ref = waiting.pop()
                if ref is None or ref in seen:
                    continue
                seen.add(ref)
                found.setdefault(ref[:2], serial)
                node = tree.node(ref)
                waiting += node.refs
                for index in range(0 if node.level else len(node.keys)):
                    for place in places(tree.entry(ref, node, index)):
                        found.setdefault(place, serial)
        return found

    # -- invariant 7 -------------------------------------------------------------
    def _space(self) -> Iterator[dict[str, Any]]:
        """Free, waiting and reachable extents are disjoint and are everything up to the high-water mark."""
        store = self.store
        space = store.space
        if space is None:  # opened for reading, or nothing was written yet: only the tree can be looked at
            return
        taken = self.reached | store.bulk | store.history.reach() | store.history.pending
        try:
            rest = {*space.waiting, *space.free}
            end = Space.of(taken | rest, max(space.high_water, PREAMBLE), store.path)
        except CorruptionError as error:
            yield _finding("space", error.offset, str(error))
            return
        if sum(size for _, size in taken) + sum(size for _, size in rest) != space.high_water - PREAMBLE:
            for offset, size in end.free:
                yield _finding("space", offset, f"{size} bytes at {offset} are neither reached nor free")

    # -- the log -----------------------------------------------------------------
    def _log(self) -> Iterator[dict[str, Any]]:
        """The frames of the running epoch follow on the superblock, as far as they were written."""
        store = self.store
        if store.wal is None or not store.wal.started:
            return
        block, log = store.block, store.log
        path, data = store.wal.file.path, store.wal.file.pread(log.written, 0)
        frames, end, _ = store.wal.kernel.scan(data, block.salt, block.epoch, block.lsn, block.frame_crc)
        if end != log.written:
            yield _finding("log", end, f"{path}: the frame at {end} does not verify")
        try:
            if store.cipher is not None:
                data, frames = open_frames(store.cipher, data, block.salt, block.epoch, frames, path)
        except CorruptionError as error:
            yield _finding("log", error.offset, str(error))
            return
        view = memoryview(data)
        for lsn, _, kind, _, begin, stop in frames:
            try:
                frame_extents(kind, view[begin:stop], store.cipher is not None)
            except CorruptionError as error:
                yield _finding("log", begin, f"{path}: frame {lsn}: {error}")


def _finding(kind: str, where: Optional[int], message: str) -> dict[str, Any]:
    return {"kind": kind, "where": where, "message": message}
