"""What the file and its logs say the database is: the superblock that answers, and the frames that follow on it.

Nothing is written here. Two rules decide every case. The log may end early only where nothing proves that more of it
was on stable storage; whatever proves it (a durable LSN in a later frame, the header of the next epoch's file, a newer
superblock) makes the gap a CorruptionError. And a superblock that is not the newest answers only where the log leads
from it past the newer one.
"""

from __future__ import annotations

import errno
import gc
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..errors import CorruptionError, DurabilityError, NotSupportedError
from ..pieces import Entry
from .catalog import Root, decode_items
from .extents import Extents, root_ref
from .layer import FileLayer
from .sealed import open_frame, open_frames
from .snapshots import Snapshot, decode_frame
from .superblock import PAGE, Superblock, read_slots
from .wal import HEADER, WalHeader, refused, wal_path

if TYPE_CHECKING:
    from .seals import Cipher

__all__ = [
    "BULK", "DROP", "RESTORE", "SNAPSHOT", "Frame", "LogFile", "State", "bulk_entries", "bulk_extents",
    "cut_torn_page", "frame_extents", "read_logs", "read_pinned", "read_root", "recover", "retrace",
]  # fmt: skip

BULK, SNAPSHOT = 6, 8  # the kinds of frames that name extents
DROP, RESTORE = 9, 10
_ROWS = frozenset({1, 2, 3, 4, 5, 7})  # the kinds that need nothing else
_NAMING = frozenset({BULK, SNAPSHOT})
_HISTORY = frozenset({SNAPSHOT, DROP, RESTORE})
_KNOWN = _ROWS | _NAMING | {DROP, RESTORE}
_FIRST, _LAST, _WHOLE = 1, 2, 3  # flags
_CRC_BACK, _DURABLE_BACK = 40, 8  # from a frame's payload back to its CRC field and its durable LSN
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_Raw = tuple[int, int, int, int, int, int]  # LSN, transaction, kind, flags, and where the payload begins and ends
_TAGGED = 1  # flag of a bulk frame: its references have tags
_HEAD, _PLACE, _BULK = struct.Struct("<II"), struct.Struct("<QQ"), struct.Struct("<QQI4x")


class Frame(NamedTuple):
    """A frame to be replayed. ``last``: it ends its transaction."""

    lsn: int
    transaction: int
    kind: int
    payload: memoryview
    last: bool


class State(NamedTuple):
    """What recovery found.

    ``block``: the superblock that answers, ``root`` its root; ``older``: the other slot's, where that verifies and has
    another root. ``frames``: whole transactions after it, the last of them ``lsn`` with the CRC field ``crc``.
    ``generation`` and ``epoch``: the highest seen. ``settled``: both slots say the same and no log is needed.
    ``bulk``: extents that the frames name, pinned roots too; ``unproven``: those of them of which nothing says that
    their flush did not fail. ``older_bulk``: those that frames of the older slot's log name, or frames that are torn.
    """

    block: Superblock
    root: Root
    older: Optional[Superblock]
    frames: list[Frame]
    lsn: int
    crc: int
    generation: int
    epoch: int
    settled: bool
    bulk: set[tuple[int, int]]
    unproven: set[tuple[int, int]]
    older_bulk: set[tuple[int, int]]


class LogFile(NamedTuple):
    """A log file as it was found; ``there``: it exists and is long enough for its header."""

    path: str
    there: bool
    data: bytes
    header: Optional[WalHeader]


def read_logs(layer: FileLayer, path: str, whole: bool = True) -> tuple[LogFile, LogFile]:
    """Both log files, by parity of their epoch; only their headers where ``whole`` is False. OSError."""
    return _read_log(layer, wal_path(path, 0), whole), _read_log(layer, wal_path(path, 1), whole)


def _read_log(layer: FileLayer, path: str, whole: bool) -> LogFile:
    try:
        file = layer.open(path, "r")
    except FileNotFoundError:
        return LogFile(path, False, b"", None)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EINVAL):
            raise
        hint = "move it away; a log that belongs there is a file of this name"
        raise refused(error, f"{path} is in the place of a log and is no file", hint) from error
    try:
        data = file.pread(file.size() if whole else HEADER, 0)
    finally:
        file.close()
    return LogFile(path, len(data) >= HEADER, data, WalHeader.decode(data))


def read_root(extents: Extents, block: Superblock) -> Root:
    """The root that a superblock names, and the node at the top of its tree, verified. CorruptionError."""
    if block.file_length > extents.length:
        raise CorruptionError(
            f"{extents.path} is cut short: it has {extents.length} bytes in whole pages, its superblock says "
            f"{block.file_length}",
            path=extents.path,
            offset=extents.length,
        )
    ref = root_ref(block.root_at, block.root_bytes, block.root_crc, block.tag if extents.sealed else b"")
    root = Root.decode(extents.load(ref), extents.path, block.root_at, extents.sealed)
    if root.top is not None:
        extents.load(root.top)
    return root


def read_pinned(extents: Extents, record: Snapshot, alone: bool = False) -> Root:
    """The pinned root of a snapshot, and unless ``alone`` the top node of its tree, verified. CorruptionError."""
    at = record.root.extent
    root = Root.decode(extents.load(record.root), extents.path, at, extents.sealed)
    if root.snapshots or root.lsn > record.lsn:
        what = f"{extents.path}: the root at {at} is not that of snapshot {record.serial}"
        raise CorruptionError(what, path=extents.path, offset=at)
    if root.top is not None and not alone:
        extents.load(root.top)
    return root


def cut_torn_page(extents: Extents) -> None:
    """Where a crash cut the file inside a page, that page goes: nothing in it was acknowledged, and recovery did not
    look at it. If the file grew over it, a second crash could show what the first one did not. StorageError,
    DurabilityError.
    """
    file = extents.file
    if file.size() % PAGE == 0:
        return
    try:
        file.truncate(extents.length)
    except OSError as error:
        raise refused(error, f"{extents.path} ends inside a page, which cannot be cut; nothing is lost") from error
    try:
        file.sync()
    except OSError as error:
        raise DurabilityError(f"{extents.path} could not be put on stable storage ({error})") from error


# -- which superblock answers ------------------------------------------------
def recover(layer: FileLayer, path: str, extents: Extents, uuid: bytes, kernel: Any, history: bool = False) -> State:
    """The state of the database; ``history``: of the frames only those of snapshots. CorruptionError, OSError."""
    cipher = extents.cipher
    blocks = read_slots(extents.file, uuid, cipher)
    if not blocks:
        raise CorruptionError(f"both superblocks of {path} are damaged", path=path, offset=0x1000)
    logs = read_logs(layer, path)
    newest = blocks[0]
    try:
        root = read_root(extents, newest)
        block, others = newest, blocks[1:]
    except CorruptionError:
        # the older one may do where the log leads from it past this one
        if len(blocks) < 2 or _same_root(newest, blocks[1]):
            raise
        root = read_root(extents, blocks[1])
        block, others = blocks[1], []
    chain = _Chain(kernel, path, uuid, logs, block, newest, cipher)
    with _no_collections():
        chain.follow()
        if history:
            chain.leave_rows_out()
        frames, crc = chain.transactions(extents)
    older = others[0] if others and not _same_root(block, others[0]) else None
    return State(
        block, root, older, frames, frames[-1].lsn if frames else block.lsn, crc,
        generation=newest.generation,
        epoch=max([one.epoch for one in blocks] + [_epoch(log, uuid) for log in logs]),
        settled=not frames and _settled(blocks),
        bulk=_named(frames, extents),
        unproven=_named([one for one in frames if one.lsn > chain.known], extents),
        older_bulk=chain.cut_off | (set() if older is None else _older_bulk(kernel, logs, older, cipher)),
    )  # fmt: skip


def retrace(layer: FileLayer, path: str, extents: Extents, uuid: bytes, kernel: Any) -> tuple[Root, list[Frame]]:
    """The oldest root that the logs lead on from, and the frames since. CorruptionError, OSError."""
    blocks, logs = read_slots(extents.file, uuid, extents.cipher), read_logs(layer, path)
    if not blocks:
        raise CorruptionError(f"both superblocks of {path} are damaged", path=path, offset=0x1000)
    for block in blocks[:0:-1]:
        try:
            return _followed(kernel, path, uuid, logs, block, blocks[0], extents)
        except CorruptionError:
            continue  # its log is overwritten, or never was
    return _followed(kernel, path, uuid, logs, blocks[0], blocks[0], extents)


def _followed(
    kernel: Any, path: str, uuid: bytes, logs: tuple[LogFile, LogFile], block: Superblock, newest: Superblock,
    extents: Extents,
) -> tuple[Root, list[Frame]]:  # fmt: skip
    root = read_root(extents, block)
    chain = _Chain(kernel, path, uuid, logs, block, newest, extents.cipher)
    with _no_collections():
        chain.follow()
        return root, chain.transactions(extents)[0]


def _named(frames: list[Frame], extents: Extents) -> set[tuple[int, int]]:
    """The extents that frames name."""
    return {
        place for one in frames if one.kind in _NAMING for place in frame_extents(one.kind, one.payload, extents.sealed)
    }


@contextmanager
def _no_collections() -> Iterator[None]:
    """Hundreds of thousands of frames are made and none is garbage: looking for some takes three times as long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _settled(blocks: list[Superblock]) -> bool:
    """Whether both slots are clean and say the same."""
    if len(blocks) < 2 or not (blocks[0].clean and blocks[1].clean):
        return False
    return _same_root(blocks[0], blocks[1]) and (blocks[0].lsn, blocks[0].epoch) == (blocks[1].lsn, blocks[1].epoch)


def _same_root(one: Superblock, other: Superblock) -> bool:
    return (one.root_at, one.root_bytes, one.root_crc) == (other.root_at, other.root_bytes, other.root_crc)


def _epoch(log: LogFile, uuid: bytes) -> int:
    return log.header.epoch if log.header is not None and log.header.uuid == uuid else 0


# -- the frames that follow --------------------------------------------------
class _Chain:
    """The frames that follow on a superblock: those of its epoch, then those of the next one where it links on."""

    def __init__(
        self,
        kernel: Any,
        path: str,
        uuid: bytes,
        logs: tuple[LogFile, LogFile],
        block: Superblock,
        newest: Superblock,
        cipher: Optional[Cipher],
    ) -> None:
        self.cipher = cipher
        self.kernel = kernel
        self.path = path
        self.uuid = uuid
        self.block = block
        self.newest = newest
        self.own, self.next = logs[block.epoch & 1], logs[(block.epoch + 1) & 1]
        self.lsn, self.crc = block.lsn, block.frame_crc
        self.known = max(block.lsn, newest.lsn)  # frames up to here were on stable storage
        self.parts: list[tuple[bytes, list[_Raw]]] = []  # of each log file the bytes and the frames in them
        #: extents of frames that do not count because one of these is torn: as long as they are in the log, nothing
        #: else may get there, which together with what is there could be what they name
        self.cut_off: set[tuple[int, int]] = set()

    def follow(self) -> None:
        """Collect the frames. CorruptionError where one is missing that must have been there."""
        last, end, salt, epoch = self.own, HEADER, self.block.salt, self.block.epoch
        if self.block.clean:
            self._check_clean()
        else:
            self._check_own()
            end = self._scan(self.own, salt, epoch)
        link = self._next_header()
        if link is not None:
            if (link.first, link.link) != (self.lsn + 1, self.crc):
                raise self._broken(last, end, f"the log goes on in {self.next.path} with frame {link.first}")
            self.known = max(self.known, self.lsn)  # an epoch begins when the one before is on stable storage
            last, salt, epoch = self.next, link.salt, link.epoch
            end = self._scan(last, salt, epoch)
        if self.lsn < self.newest.lsn:
            raise self._broken(last, end, f"a superblock with frame {self.newest.lsn} was written")
        if last.there and not (self.block.clean and link is None):
            found = self.kernel.stray(last.data, end, salt, epoch, self.lsn + 1)
            if found is not None:
                raise self._broken(last, end, f"frame {found[0]} at {found[2]} proves that it was on stable storage")

    def _broken(self, log: LogFile, offset: int, why: str) -> CorruptionError:
        return CorruptionError(
            f"{log.path} is damaged: frame {self.lsn + 1}, at byte {offset}, does not verify, and {why}",
            path=log.path,
            offset=offset,
        )

    def _wrong(self, log: LogFile, what: str, hint: Optional[str] = None) -> CorruptionError:
        return CorruptionError(f"{log.path} {what}", path=log.path, offset=0, hint=hint)

    def _check_clean(self) -> None:
        """A clean superblock needs no log of its epoch, and none of a later one but the next may be there."""
        header = self.own.header
        if header is None or header.uuid != self.uuid:
            return
        later, swapped = header.epoch > self.block.epoch, (header.epoch ^ self.block.epoch) & 1
        if later or (swapped and header.epoch + 1 >= self.block.epoch):  # older ones are leftovers, in whatever place
            raise self._wrong(self.own, f"belongs to a later state of {self.path}")
        block = self.block
        if self.kernel.scan(self.own.data, block.salt, block.epoch, block.lsn, block.frame_crc)[0]:
            raise self._wrong(self.own, f"has changes of {self.path}, which was closed without them")

    def _check_own(self) -> None:
        """The log of an open epoch must be there and be this database's."""
        log, header = self.own, self.own.header
        if not log.there:
            raise self._wrong(
                log,
                "is missing or empty: it has the latest changes of a database that was not closed",
                hint="bring back the -wal0 and -wal1 files that were beside it",
            )
        if header is None:
            return  # its frames verify with the superblock's salt
        if header.uuid != self.uuid:
            raise self._wrong(log, f"belongs to another database than {self.path}")
        block = self.block
        same = (header.first, header.link, header.salt) == (block.lsn + 1, block.frame_crc, block.salt)
        swapped = (header.epoch ^ block.epoch) & 1
        if swapped or header.epoch > block.epoch or (header.epoch == block.epoch and not same):
            raise self._wrong(log, f"belongs to another state of {self.path}")

    def _next_header(self) -> Optional[WalHeader]:
        """How the next epoch begins, None where there is none yet."""
        header, epoch = self.next.header, self.block.epoch + 1
        if header is not None and header.uuid != self.uuid:
            if not self.block.clean:
                raise self._wrong(self.next, f"belongs to another database than {self.path}")
            return None
        settled = self.block.clean and self.newest is self.block
        if header is not None and settled and header.epoch + 1 < self.block.epoch:
            return None  # a leftover, in whatever place
        if header is not None and (header.epoch > epoch or (header.epoch ^ epoch) & 1):
            raise self._wrong(self.next, f"belongs to a later state of {self.path}")
        newest = self.newest
        if newest is not self.block and newest.epoch == epoch and not newest.clean:  # it says what the header says
            return WalHeader(self.uuid, epoch, newest.lsn + 1, newest.frame_crc, newest.salt)
        return header if header is not None and header.epoch == epoch else None

    def _scan(self, log: LogFile, salt: bytes, epoch: int) -> int:
        """Collect the frames of one file; where the next one would be."""
        frames, end, crc = self.kernel.scan(log.data, salt, epoch, self.lsn, self.crc)
        if frames:
            self.lsn, self.crc = frames[-1][0], crc
            # no frame says less than the one before it: rolling back to a mark lowers what is said to below that mark
            self.known = max(self.known, _U64.unpack_from(log.data, frames[-1][4] - _DURABLE_BACK)[0])
            self.parts.append(_opened(self.cipher, log, salt, epoch, frames))
        return int(end)

    def leave_rows_out(self) -> None:
        """Keep what is needed to know which snapshots there are: up to the last frame of one, all but bare rows."""
        parts: list[tuple[bytes, list[_Raw]]] = []
        for data, frames in reversed(self.parts):
            kept = [raw for raw in frames if raw[2] not in _ROWS or raw[3] != _WHOLE]
            while kept and not parts and kept[-1][2] not in _HISTORY:
                kept.pop()
            if kept:
                parts.append((data, kept))
        self.parts = parts[::-1]

    # -- whole transactions ------------------------------------------------------
    def transactions(self, extents: Extents) -> tuple[list[Frame], int]:
        """The frames of whole transactions whose extents are there, up to the first that is torn, and the CRC field of
        the last of them. CorruptionError.
        """
        kept: list[Frame] = []
        group: list[Frame] = []
        crc, new = self.block.frame_crc, tuple.__new__
        for data, frames in self.parts:
            view = memoryview(data)
            at = 0
            for lsn, transaction, kind, flags, begin, end in frames:
                frame = new(Frame, (lsn, transaction, kind, view[begin:end], flags > 1))
                if flags == _WHOLE and kind in _ROWS:  # by far the most
                    kept.append(frame)
                    at = begin
                    continue
                if flags & _FIRST:
                    group = []
                group.append(frame)
                if flags & _LAST:
                    if not all(self._extents_there(extents, one) for one in group):
                        self._cut_off(extents, group[0].lsn)
                        return kept, _crc_of(data, at, crc)
                    kept += group
                    group = []  # what comes without a FIRST does not belong to it
                    at = begin
            crc = _crc_of(data, at, crc)
        return kept, crc

    def _cut_off(self, extents: Extents, first: int) -> None:
        """Note the extents of the frames from ``first`` on, as far as the file has them."""
        for data, frames in self.parts:
            view = memoryview(data)
            for lsn, _, kind, _, begin, end in frames:
                if lsn >= first and kind in _NAMING:
                    for offset, size in frame_extents(kind, view[begin:end], extents.sealed):
                        there = min(size, extents.length - offset)
                        self.cut_off.update([(offset, there)] if there > 0 else [])

    def _extents_there(self, extents: Extents, frame: Frame) -> bool:
        """Whether all that a frame names verifies. Where it must, because it was on stable storage, CorruptionError."""
        if frame.kind not in _KNOWN:
            what = f"frame {frame.lsn} of the log of {self.path} has kind {frame.kind}, which this SnapDB does not know"
            raise NotSupportedError(what, hint="a newer SnapDB reads it")
        try:
            if frame.kind == SNAPSHOT:
                # its tree was on stable storage before: where that is damaged, it is no torn end
                read_pinned(extents, decode_frame(frame.payload, extents.sealed), alone=True)
            elif frame.kind == BULK:
                for _, entry in bulk_entries(frame.payload, extents.path, extents.sealed):
                    for piece in entry.pieces:
                        if piece.ref is not None:
                            extents.read(piece.ref).release()
        except CorruptionError:
            if frame.lsn <= self.known:
                raise
            return False
        return True


def _crc_of(data: bytes, begin: int, otherwise: int) -> int:
    """The CRC field of the frame whose payload begins here; 0: of none."""
    return int(_U32.unpack_from(data, begin - _CRC_BACK)[0]) if begin else otherwise


def _opened(
    cipher: Optional[Cipher], log: LogFile, salt: bytes, epoch: int, frames: list[_Raw]
) -> tuple[bytes, list[_Raw]]:
    """A log's bytes and the frames in them, with what they say. CorruptionError."""
    if cipher is None:
        return log.data, frames
    return open_frames(cipher, log.data, salt, epoch, frames, log.path)


def _older_bulk(
    kernel: Any, logs: tuple[LogFile, LogFile], block: Superblock, cipher: Optional[Cipher]
) -> set[tuple[int, int]]:
    """The extents that the log of the older slot names: they are its own until it is overwritten."""
    log = logs[block.epoch & 1]
    if not log.there or block.clean:
        return set()
    frames, _, _ = kernel.scan(log.data, block.salt, block.epoch, block.lsn, block.frame_crc)
    view = memoryview(log.data)
    opener = None if cipher is None else cipher.epoch(block.salt, block.epoch)
    found: set[tuple[int, int]] = set()
    for raw in frames:
        _, _, kind, _, begin, end = raw
        if kind not in _NAMING:
            continue
        try:
            payload = view[begin:end] if opener is None else memoryview(open_frame(opener, log.data, raw, log.path))
            found.update(frame_extents(kind, payload, opener is not None))
        except CorruptionError:
            continue  # nothing of this is answered from
    return found


# -- frames that name extents --------------------------------------------------
def frame_extents(kind: int, payload: memoryview, tagged: bool = False) -> list[tuple[int, int]]:
    """The extents (offset, size) that a frame names. ``tagged``: in an encrypted database. CorruptionError."""
    if kind == SNAPSHOT:
        return [decode_frame(payload, tagged).root[:2]]
    return bulk_extents(payload) if kind == BULK else []


def bulk_extents(payload: memoryview) -> list[tuple[int, int]]:
    """The extents (offset, size) that a bulk frame names. CorruptionError."""
    return list(_places(payload))


def _places(payload: memoryview) -> Iterator[tuple[int, int]]:
    count = _HEAD.unpack_from(payload)[0] if len(payload) >= _HEAD.size else -1
    if not 0 <= count <= (len(payload) - _HEAD.size) // _PLACE.size:
        raise CorruptionError("a bulk frame of the log is damaged")
    for at in range(count):
        yield _PLACE.unpack_from(payload, _HEAD.size + at * _PLACE.size)


def bulk_entries(payload: memoryview, path: str, tagged: bool = False) -> list[tuple[int, Entry]]:
    """The entries of a bulk frame. CorruptionError, also where one is in an extent that the frame does not name.
    ``tagged``: in an encrypted database.
    """
    places = set(_places(payload))
    extents, flags = _HEAD.unpack_from(payload)
    at = _HEAD.size + extents * _PLACE.size
    if len(payload) < at + _BULK.size or flags != (_TAGGED if tagged else 0):
        raise CorruptionError(f"a bulk frame in the log of {path} is damaged", path=path)
    _, _, count = _BULK.unpack_from(payload, at)
    items = decode_items(payload[at + _BULK.size :], count, tagged=tagged, path=path)
    for _, entry in items:
        for piece in entry.pieces:
            if piece.ref is None or piece.ref[:2] not in places:
                raise CorruptionError(f"a bulk frame in the log of {path} hides an extent", path=path)
    return items
