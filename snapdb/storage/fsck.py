"""Is the file what it should be? Both headers, both slots, the tree, its extents, every piece, the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..errors import CorruptionError, DatabaseError
from ..pieces import Entry, Ref
from .catalog import Tree
from .checkpoint import Places, places, root_place
from .extents import decode_header
from .recovery import BULK, bulk_extents, read_root
from .space import Space
from .superblock import CRC, PAGE, PREAMBLE, SLOTS, STATIC, StaticHeader, Superblock, read_slots

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
        self.file = store.file
        self.reached: Places = set()  # by the root in force

    def run(self) -> Iterator[dict[str, Any]]:
        yield from self._headers()
        blocks = read_slots(self.file, self.store.static.uuid)
        yield from self._slots(blocks)
        whole = True
        for finding in self._tree():
            whole = False
            yield finding
        if whole:
            yield from self._space(blocks)
        yield from self._log()

    def _headers(self) -> Iterator[dict[str, Any]]:
        for at in STATIC:
            try:
                StaticHeader.decode(self.file.pread(PAGE, at), self.store.path, at)
            except DatabaseError as error:
                yield _finding("header", at, str(error))

    def _slots(self, blocks: list[Superblock]) -> Iterator[dict[str, Any]]:
        """Both slots verify, and so do the roots they name."""
        there = {block.slot for block in blocks}
        for slot, at in enumerate(SLOTS):
            if slot not in there:
                yield _finding("superblock", at, f"superblock {slot} does not verify")
        for block in blocks:
            if block.file_length > self.file.size():
                what = f"superblock {block.slot} says {block.file_length} bytes, the file has {self.file.size()}"
                yield _finding("superblock", SLOTS[block.slot], what)
                continue
            try:
                read_root(self.store.extents, block)
            except CorruptionError as error:
                yield _finding("root", block.root_at, str(error))

    # -- the tree ----------------------------------------------------------------
    def _tree(self) -> Iterator[dict[str, Any]]:
        """The tree below the root in force, its extents and with ``full`` its pieces."""
        store = self.store
        tree = Tree(store.extents, store.tree.top)  # with nothing cached
        count = 0
        try:
            for key, entry in tree.items():
                count += 1
                yield from self._entry(key, entry)
            self.reached = set(tree.reachable()) | {root_place(store.block)}
        except CorruptionError as error:
            yield _finding("tree", error.offset, str(error))
            return
        if count != store.root.entries:
            yield _finding("tree", None, f"the tree has {count} entries, its root says {store.root.entries}")

    def _entry(self, key: int, entry: Entry) -> Iterator[dict[str, Any]]:
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
        if self.full:
            yield from self._extent_headers(key, entry)

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

    # -- invariant 7 -------------------------------------------------------------
    def _space(self, blocks: list[Superblock]) -> Iterator[dict[str, Any]]:
        """Free, waiting and reachable extents are disjoint and are everything up to the high-water mark."""
        store = self.store
        space = store.space
        if space is None:  # opened for reading, or nothing was written yet: only the tree can be looked at
            return
        taken = self.reached | store.bulk
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
        view = memoryview(data)
        for lsn, _, kind, _, begin, stop in frames:
            problem = _bulk_problem(kind, view[begin:stop])
            if problem is not None:
                yield _finding("log", begin, f"{path}: frame {lsn}: {problem}")


def _bulk_problem(kind: int, payload: memoryview) -> Optional[str]:
    if kind == BULK:
        try:
            bulk_extents(payload)
        except CorruptionError as error:
            return str(error)
    return None


def _finding(kind: str, where: Optional[int], message: str) -> dict[str, Any]:
    return {"kind": kind, "where": where, "message": message}
