"""What is left of a damaged file: the roots it can be read from, the entries below them that verify, the log's frames.

Nothing is written here, and nothing is believed that no checksum stands for. A *candidate* is a root with all its state
is known of: the frames that its tree has. What comes after it stands in the log. A candidate is *current* where the log
leads from it to the last frame that anything in the file proves to have been on stable storage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional

from ..errors import CorruptionError, NotSupportedError
from ..pieces import Entry, Ref
from .catalog import NO_LIMIT, Node, Root, Tree
from .extents import HEADER, ROOT, SEALED, SUMMED, Extents, decode_header, pages, root_ref
from .layer import File, FileLayer
from .nodes import Bad
from .recovery import BULK, SNAPSHOT, Frame, LogFile, bulk_entries, read_logs, read_pinned
from .sealed import open_frame
from .snapshots import MOST_SNAPSHOTS, Snapshot, decode_frame, decode_snapshots
from .space import Space
from .superblock import PAGE, PREAMBLE, ROOT_LIMIT, SLOTS, StaticHeader, Superblock, read_slots, read_static
from .wal import WalHeader

__all__ = ["NEWEST", "Candidate", "Lost", "Wreck", "surviving"]

_STEP = 1 << 20  # bytes of the file that are looked through at once
_WHOLE, _FIRST, _LAST = 3, 1, 2  # flags of frames
_KNOWN = frozenset(range(1, 11))  # kinds of frames
_CRC_BACK, _DURABLE_BACK = 40, 8  # from a frame's payload back to its CRC field and its durable LSN
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MAC = slice(128, 144)  # of a superblock
_RECORDS = slice(56, 64)  # of a root: how many records of snapshots there are, and their bytes

NEWEST, OTHER, SCAN = "newest", "other slot", "scan"


class Candidate(NamedTuple):
    """A root that verifies: what says so (``source``), up to which frame its tree goes, and the snapshots that there
    were then; ``broken``: how many records of others make no sense. ``stray``: a pinned root that nothing leads to: its
    frame may never have come to be, so ``lsn`` may be another state's too, and no log may be followed from it.
    ``scanned``: found by looking through the file.
    """

    source: str
    root: Root
    lsn: int
    records: tuple[Snapshot, ...]
    broken: int = 0
    stray: bool = False
    scanned: bool = False


class Lost(NamedTuple):
    """Keys from ``first`` to before ``stop`` of which nothing is known, and why."""

    first: int
    stop: int
    reason: str


class _Run(NamedTuple):
    """Frames of one epoch that follow on each other: whole transactions ``first`` to ``last``, whose CRC is ``crc``.
    ``link``: what the first one links to. ``known``: the last that the frames, whole or not, prove to have been on
    stable storage; ``seen``: the last that is there.
    """

    epoch: int
    first: int
    link: int
    frames: list[Frame]
    last: int
    crc: int
    known: int
    seen: int


class Wreck:
    """A database file that is damaged, and its logs, open for reading.

    ``static``: its header, made up as far as needed where both copies are damaged; ``blocks``: the superblocks that
    verify, newest first; ``known``: the last frame that something proves to have been on stable storage.
    ``cipher_of``: what opens a database with this header (None: a plain one); it raises where the key is wrong.
    ``static``: its header, where the caller knows it.
    """

    def __init__(
        self, layer: FileLayer, path: str, file: File, kernel: Any, cipher_of: Callable[[StaticHeader], Any],
        static: Optional[StaticHeader] = None,
    ) -> None:  # fmt: skip
        self.path = path
        self.file = file
        self._kernel = kernel
        self.logs = read_logs(layer, path)
        self.static = self._read_static() if static is None else static
        self.uuid = self.static.uuid
        self.cipher = cipher_of(self.static)
        self.blocks = read_slots(file, self.uuid, self.cipher)
        length = max(PREAMBLE, pages(file.size()))  # what is in a page that was cut may be all that counts of it
        self.extents = Extents(file, Space(length), self.uuid, mapped=False, cipher=self.cipher, inherits=False)
        self.extents.length = length
        self._runs = self._read_runs()
        self.known = max([block.lsn for block in self.blocks] + [run.known for run in self._runs], default=0)
        self._found: Optional[list[tuple[Candidate, int]]] = None

    # -- what the file is ------------------------------------------------------
    def _read_static(self) -> StaticHeader:
        """The static header, made up of what else there is where it must be. CorruptionError: nothing is there."""
        try:
            return read_static(self.file, self.path, True)
        except CorruptionError:
            uuid = self._guess_uuid()
            if uuid is None:
                raise
        return StaticHeader(uuid)

    def _guess_uuid(self) -> Optional[bytes]:
        """The uuid as the superblocks, the logs or the extents say. None where nothing says it, or where nothing could
        be read with it: what opens an encrypted database is in the static header alone.
        """
        blocks = [self.file.pread(512, at) for at in SLOTS]
        blocks = [data for data in blocks if Superblock.decode(data) is not None]
        headers = [decode_header(data) for _, data in _extents_of(self.file)]
        extents = [header for header in headers if header is not None]
        if any(any(data[_MAC]) for data in blocks) or any(header.flags & SEALED for header in extents):
            raise CorruptionError(
                f"both copies of the static header of {self.path} are damaged, and with them what its key opens",
                path=self.path, offset=0, hint="the database is encrypted: without them nothing of it can be read",
            )  # fmt: skip
        for data in blocks:
            return data[8:24]
        for log in self.logs:
            if log.header is not None:
                return log.header.uuid
        found: dict[bytes, int] = {}
        for header in extents:
            found[header.uuid] = found.get(header.uuid, 0) + 1
        if not found:
            return None
        return max(found, key=lambda low: found[low]).ljust(16, b"\0")

    @property
    def generation(self) -> int:
        """The highest that anything tells."""
        return max([block.generation for block in self.blocks] + [self._born], default=0)

    @property
    def _born(self) -> int:
        """The highest that an extent was written for, where no superblock says more."""
        if len(self.blocks) == len(SLOTS):
            return 0
        headers = [decode_header(data) for _, data in _extents_of(self.file)]
        return max([one.generation for one in headers if one is not None and one.uuid == self.uuid[:8]], default=0)

    @property
    def epoch(self) -> int:
        """The highest of a superblock or a log's header."""
        logs = [log.header.epoch for log in self.logs if log.header is not None and log.header.uuid == self.uuid]
        return max([block.epoch for block in self.blocks] + logs + [run.epoch for run in self._runs], default=0)

    @property
    def seen(self) -> int:
        """The last frame of which there is anything."""
        return max([self.known, *[run.seen for run in self._runs]])

    @property
    def uncertain(self) -> str:
        """Why nobody knows whether there was a later state than the last one known; empty where that is known."""
        if not self.blocks:
            return "both superblocks are damaged: whether there was a later state is not known"
        block = self.blocks[0]
        for parity, log in enumerate(self.logs):
            header = log.header
            own = parity == block.epoch & 1
            if log.there and header is None:
                return ""
            if log.there and header is not None and header.uuid == self.uuid:
                # a superblock is there before its log has a new header
                older = own and header.epoch < block.epoch and not (header.epoch ^ block.epoch) & 1
                if header.epoch == block.epoch or older:
                    return ""
        return "" if block.clean else "the log of a database that was not closed is missing: what it had is not known"

    # -- candidates --------------------------------------------------------------
    def current(self) -> list[Candidate]:
        """The candidates from which the log leads to the last frame that is known: they say the same of it."""
        return [candidate for candidate, reach in self._named() if reach >= self.known]

    def others(self) -> list[Candidate]:
        """The candidates that are older than that, those first from which most can be reached."""
        found = sorted(self._named(), key=lambda one: one[1], reverse=True)
        return [candidate for candidate, reach in found if reach < self.known]

    def is_current(self, candidate: Candidate) -> bool:
        """Whether that is the last one known."""
        return any(candidate is one for one in self.current())

    def reach(self, candidate: Candidate) -> int:
        """The last frame to which the log leads from there."""
        return -1 if candidate.stray else self.frames(candidate.lsn)[1]

    def _named(self) -> list[tuple[Candidate, int]]:
        """The roots that superblocks name, with those of the snapshots that they know, and how far each leads."""
        if self._found is None:
            found: list[Candidate] = []
            for block in self.blocks:
                if block is self.blocks[0] or not _same_root(block, self.blocks[0]):
                    found += self._root(NEWEST if block is self.blocks[0] else OTHER, self._ref(block), block.lsn)
            found += self._pinned(found)
            self._found = [(one, self.reach(one)) for one in found]
        return self._found

    def scanned(self) -> list[Candidate]:
        """The roots of a plain file that nothing names but their own checksums, newest states first: what was written
        last need not have become the database.
        """
        if self.cipher is not None:  # a root's tag is in what names it
            return []
        found = self._scan()
        return [*found, *[one._replace(scanned=True) for one in self._pinned(found)]]

    def _ref(self, block: Superblock) -> Ref:
        tag = b"" if self.cipher is None else block.tag
        return root_ref(block.root_at, block.root_bytes, block.root_crc, tag)

    def _root(self, source: str, ref: Ref, lsn: Optional[int] = None) -> list[Candidate]:
        """The root at a reference, if it is one."""
        try:
            root, broken = self._decoded(self.extents.load(ref), ref)
        except CorruptionError:
            return []
        return [Candidate(source, root, root.lsn if lsn is None else lsn, root.snapshots, broken)]

    def _decoded(self, data: bytes, ref: Ref) -> tuple[Root, int]:
        """A root, without the records that make no sense, and how many these are. CorruptionError."""
        sealed = self.extents.sealed
        try:
            return Root.decode(data, self.path, ref.extent, sealed), 0
        except CorruptionError:
            if len(data) < _RECORDS.stop:
                raise
        count, records = _U32.unpack_from(data, _RECORDS.start)[0], _U32.unpack_from(data, _RECORDS.start + 4)[0]
        kept = data[: len(data) - min(records, len(data) - _RECORDS.stop)]
        kept = kept[: _RECORDS.start] + bytes(8) + kept[_RECORDS.stop :]
        root = Root.decode(kept, self.path, ref.extent, sealed)
        snapshots: list[Snapshot] = []
        for record in _records(data[len(kept) :], sealed):
            earlier = {one.name for one in snapshots}
            last = snapshots[-1].serial if snapshots else 0
            if last < record.serial < root.serial and record.lsn <= root.lsn and record.name not in earlier:
                snapshots.append(record)
        return root._replace(snapshots=tuple(snapshots)), max(1, min(count, MOST_SNAPSHOTS) - len(snapshots))

    def _pinned(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The states of the snapshots that these roots know, newest first."""
        records = {record.serial: record for one in candidates for record in one.root.snapshots}
        found: list[Candidate] = []
        for serial in sorted(records, reverse=True):
            record = records[serial]
            known = tuple([records[one] for one in sorted(records) if one <= serial])
            roots = self._root(f"snapshot {record.name}", record.root, record.lsn)
            found += [one._replace(records=known) for one in roots]
        return found

    def _scan(self) -> list[Candidate]:
        """Every root in the file whose own checksum verifies, newest state first."""
        found: list[tuple[tuple[bool, int, int, int], Candidate]] = []
        for offset, data in _extents_of(self.file):
            header = decode_header(data)
            if (
                header is None or header.kind != ROOT or not header.flags & SUMMED or header.uuid != self.uuid[:8]
                or header.payload > ROOT_LIMIT
            ):  # fmt: skip
                continue
            ref = Ref(offset, pages(HEADER + header.payload), HEADER, header.payload, header.crc)
            try:
                roots = self._root(SCAN, ref)
            except NotSupportedError:
                continue
            for one in roots:
                place = (not header.key, one.lsn, one.root.serial, header.generation)
                found.append((place, one._replace(stray=bool(header.key), scanned=True)))
        found.sort(key=lambda item: item[0], reverse=True)
        return [one for _, one in found]

    # -- the log -----------------------------------------------------------------
    def _read_runs(self) -> list[_Run]:
        """What the logs have, wherever they stand and whichever of header and superblock says how an epoch begins."""
        found: dict[tuple[int, int, int], _Run] = {}
        for log in self.logs:
            for start in self._starts(log):
                run = self._read_run(log, start)
                place = (run.epoch, run.first, run.link)
                if place in found:
                    other = found[place]
                    known, seen = max(run.known, other.known), max(run.seen, other.seen)
                    run = (run if run.last > other.last else other)._replace(known=known, seen=seen)
                found[place] = run
        return list(found.values())

    def _starts(self, log: LogFile) -> Iterator[WalHeader]:
        if not log.data:
            return
        if log.header is not None and log.header.uuid == self.uuid:
            yield log.header
        for block in self.blocks:
            if not block.clean:
                yield WalHeader(self.uuid, block.epoch, block.lsn + 1, block.frame_crc, block.salt)

    def _read_run(self, log: LogFile, start: WalHeader) -> _Run:
        data, salt, epoch = log.data, start.salt, start.epoch
        raw, end, _ = self._kernel.scan(data, salt, epoch, start.first - 1, start.link)
        found = start.first - 1
        known = found if log.header == start else 0  # an epoch begins when the one before is on stable storage
        if raw:
            found = raw[-1][0]
            known = max(known, _U64.unpack_from(data, raw[-1][4] - _DURABLE_BACK)[0])
        stray, seen = self._kernel.stray(data, end, salt, epoch, found + 1), found
        while stray is not None:
            seen, known = max(seen, stray[0]), max(known, stray[1])
            stray = self._kernel.stray(data, stray[2], salt, epoch, found + 1)
        frames, last, crc = self._whole(start, data, raw)
        return _Run(epoch, start.first, start.link, frames, last, crc, known, seen)

    def _whole(self, start: WalHeader, data: bytes, raw: list[Any]) -> tuple[list[Frame], int, int]:
        """The frames of whole transactions, the last of them and its CRC field."""
        kept: list[Frame] = []
        group: list[Frame] = []
        view, last, crc = memoryview(data), start.first - 1, start.link
        opener = None if self.cipher is None else self.cipher.epoch(start.salt, start.epoch)
        for one in raw:
            lsn, transaction, kind, flags, begin, end = one
            try:
                payload = view[begin:end] if opener is None else memoryview(open_frame(opener, data, one, self.path))
            except CorruptionError:
                break  # somebody without the key has changed it
            if flags & _FIRST:
                group = []
            group.append(Frame(lsn, transaction, kind, payload, flags > 1))
            if flags & _LAST:
                kept += group
                group, last, crc = [], lsn, _U32.unpack_from(data, begin - _CRC_BACK)[0]
        return kept, last, crc

    def frames(self, lsn: int) -> tuple[list[Frame], int]:
        """The frames that follow on one, as far as the logs have them without a gap, and the last one's LSN.

        NotSupportedError for a kind that a newer version made.
        """
        found: list[Frame] = []
        runs = [run for run in self._runs if run.first <= lsn + 1 and run.last > lsn]
        if not runs:
            return found, lsn
        run: Optional[_Run] = max(runs, key=lambda one: one.epoch)
        while run is not None:
            for group in _groups([frame for frame in run.frames if frame.lsn > lsn]):
                if group[-1].lsn > self.known and not all(map(self._is_there, group)):
                    return found, lsn  # a torn end, as a crash leaves it
                found += group
                lsn = group[-1].lsn
            before: _Run = run
            run = next(
                (one for one in self._runs if (one.first, one.link) == (lsn + 1, before.crc) and one.last > lsn), None
            )
        return found, lsn

    def _is_there(self, frame: Frame) -> bool:
        """Whether all that a frame names verifies."""
        if frame.kind not in _KNOWN:
            what = f"frame {frame.lsn} of the log of {self.path} has kind {frame.kind}, which this SnapDB does not know"
            raise NotSupportedError(what, hint="a newer SnapDB reads it")
        try:
            if frame.kind == SNAPSHOT:
                read_pinned(self.extents, decode_frame(frame.payload, self.extents.sealed), alone=True)
            elif frame.kind == BULK:
                for _, entry in bulk_entries(frame.payload, self.path, self.extents.sealed):
                    for piece in entry.pieces:
                        if piece.ref is not None:
                            self.extents.load(piece.ref)
        except CorruptionError:
            return False
        return True

    def pinned(self, record: Snapshot) -> Root:
        """The root of a snapshot. CorruptionError."""
        root = Root.decode(self.extents.load(record.root), self.path, record.root.extent, self.extents.sealed)
        if root.snapshots or root.lsn > record.lsn:
            at = record.root.extent
            raise CorruptionError(f"{self.path}: the root at {at} is another one's", path=self.path, offset=at)
        return root

    def owner(self, offset: int) -> Optional[int]:
        """The key that an extent was written for, as its header says."""
        header = decode_header(self.file.pread(HEADER, offset))
        return None if header is None or header.uuid != self.uuid[:8] else header.key

    def birth(self, offset: int) -> Optional[int]:
        """The generation that an extent was written for; None where its header is not one of this database."""
        header = decode_header(self.file.pread(HEADER, offset))
        return None if header is None or header.uuid != self.uuid[:8] else header.generation


def _groups(frames: list[Frame]) -> Iterator[list[Frame]]:
    """The frames by transaction."""
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if frame.last:
            yield group
            group = []


def _same_root(one: Superblock, other: Superblock) -> bool:
    return (one.root_at, one.root_bytes, one.root_crc) == (other.root_at, other.root_bytes, other.root_crc)


def _extents_of(file: File) -> Iterator[tuple[int, bytes]]:
    """Every page that begins like an extent: (offset, the bytes of its header)."""
    at, end = PREAMBLE, file.size()
    while at < end:
        data = file.pread(_STEP, at)
        for place in range(0, len(data), PAGE):
            if data[place : place + 4] == b"SNEX":
                yield at + place, data[place : place + HEADER]
        at += _STEP


def _records(data: bytes, sealed: bool) -> Iterator[Snapshot]:
    """The records of snapshots that make sense by themselves."""
    while len(data) >= 4:
        (size,) = _U32.unpack_from(data)
        if not 8 <= size <= len(data):
            return
        try:
            yield from decode_snapshots(data[:size], 1, sealed)
        except Bad:
            pass
        data = data[size:]


# -- a tree with holes -------------------------------------------------------------
def surviving(tree: Tree) -> Iterator[tuple[int, Optional[Entry], Optional[Lost]]]:
    """What a tree still says, keys ascending: (key, entry, None), or (first key, None, what is lost from there on).

    Nothing of the entries' pieces is read.
    """
    if tree.top is None:
        return
    try:
        node = tree.node(tree.top)
    except CorruptionError as error:
        yield 0, None, Lost(0, NO_LIMIT, str(error))
        return
    yield from _below(tree, tree.top, node, NO_LIMIT)


def _below(tree: Tree, ref: Ref, node: Node, limit: int) -> Iterator[tuple[int, Optional[Entry], Optional[Lost]]]:
    for index, key in enumerate(node.keys):
        stop = node.keys[index + 1] if index + 1 < len(node.keys) else limit
        try:
            if not node.level:
                yield key, tree.entry(ref, node, index), None
                continue
            below, child, stop = tree.child(node, index, limit)
        except CorruptionError as error:
            yield key, None, Lost(key, key + 1 if not node.level else stop, str(error))
            continue
        yield from _below(tree, below, child, stop)
