"""A new file from what is left of a damaged one, and its taking that one's place.

Extents are copied as they are, so a sealed one stays sealed; nodes, roots and dead lists are written anew, for they say
where others are. Nothing of the old file is changed: until the new one has its name, it is the database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

from ..errors import CorruptionError, DurabilityError, NotSupportedError
from ..pieces import Entry, Piece, Ref
from . import lock
from .catalog import NO_LIMIT, Root, Tree, encode_node
from .checkpoint import Draft, Places, plain, write_root
from .extents import ENTRY, HEADER, NODE, ROOT, SEALED, ExtentHeader, Extents, _parse_header, encode_header
from .layer import FileLayer
from .nodes import child_item, encode_item
from .recovery import read_logs
from .salvage import Wreck
from .snapshots import LIST_LIMIT, Dead, Snapshot, encode_dead
from .space import Space
from .superblock import NO_TAG, PREAMBLE, Superblock, write_slot, write_static
from .wal import refused, wal_path

__all__ = ["Content", "Kept", "rebuild", "swap"]

_STEP = 4 << 20  # bytes copied at once


class Content(NamedTuple):
    """What the new file is to hold: the table's ``header``, its ``entries`` (references into the damaged file, or
    data), the last frame that is in them, the snapshots' records and the next one's serial.
    """

    header: dict[str, Any]
    entries: dict[int, Entry]
    lsn: int
    records: list[Snapshot]
    serial: int


class Kept(NamedTuple):
    """What became of it: the file's length, the snapshots that are in it, and why which others are not."""

    size: int
    records: list[Snapshot]
    lost: list[tuple[Snapshot, str]]


class _Rebuilding:
    """One new file."""

    def __init__(self, wreck: Wreck, extents: Extents, generation: int) -> None:
        self.wreck = wreck
        self.old = wreck.extents
        self.extents = extents
        self.draft = Draft(extents, generation)
        self.generation = generation
        self._places: dict[tuple[int, int], int] = {}  # where an extent is now
        self._nodes: dict[Ref, Ref] = {}
        self._sound: set[Ref] = set()  # nodes below which everything verifies

    # -- extents -----------------------------------------------------------------
    def _place(self, place: tuple[int, int]) -> int:
        """An extent of the old file, copied; its header is made anew where it is not one of this database."""
        at = self._places.get(place)
        if at is None:
            offset, size = place
            at = self._places[place] = self.extents.space.allocate(size)
            self.extents.make_room(at + size)
            birth = self.wreck.birth(offset)
            for start in range(0, size, _STEP):
                data = self.wreck.file.pread(min(_STEP, size - start), offset + start)
                if birth is None and not start:
                    data = self._header(data[:HEADER], size) + data[HEADER:]
                self.extents.file.pwrite(data, at + start)
        return at

    def _header(self, data: bytes, size: int) -> bytes:
        """A header in place of one that does not verify. Where the extent is sealed its pieces could be opened, so what
        their tags stand for is right, and the salt; the rest is made anew.
        """
        made = ExtentHeader(ENTRY, self.wreck.uuid[:8], 0, 0, 0, 1, size - HEADER)
        if self.old.sealed:
            made = _parse_header(data)._replace(uuid=made.uuid, payload=made.payload, flags=SEALED, crc=0)
        return encode_header(made)

    def _moved(self, ref: Ref) -> Ref:
        return ref._replace(extent=self._place(ref[:2]))

    # -- the live tree -------------------------------------------------------------
    def live(self, entries: dict[int, Entry], read: Callable[[Ref], Any]) -> Optional[Ref]:
        """A tree of these entries; ``read`` gives the bytes of a reference that is none of the old file."""
        owners: dict[tuple[int, int], int] = {}
        stored: dict[int, Optional[Entry]] = {}
        for key in sorted(entries):
            pieces = []
            for piece in entries[key].pieces:
                ref = piece.ref
                if ref is None:
                    pieces.append(piece)
                elif ref.extent < 0 or owners.setdefault(ref[:2], key) != key:  # two entries cannot share an extent
                    pieces.append(Piece(piece.tag, piece.meta, bytes(read(ref))))
                else:
                    pieces.append(Piece(piece.tag, piece.meta, None, self._moved(ref)))
            stored[key] = self.draft.entry(key, Entry(entries[key].meta, pieces))
        return self.draft.apply(Tree(self.extents, None), 0, stored).top

    # -- snapshots -----------------------------------------------------------------
    def check(self, record: Snapshot) -> None:
        """CorruptionError where not everything of a snapshot verifies."""
        root = self.wreck.pinned(record)
        if root.top is not None:
            tree = Tree(self.old, root.top)
            self._check(tree, root.top, tree.node(root.top), NO_LIMIT)

    def _check(self, tree: Tree, ref: Ref, node: Any, limit: int) -> None:
        if ref in self._sound:
            return
        for index in range(len(node.keys)):
            if node.level:
                self._check(tree, *tree.child(node, index, limit))
                continue
            for piece in tree.entry(ref, node, index).pieces:
                if piece.ref is not None and piece.ref not in self._sound:
                    self.old.load(piece.ref)
                    self._sound.add(piece.ref)
        self._sound.add(ref)

    def _node(self, tree: Tree, ref: Ref) -> Ref:
        """A node with all that is below it; what snapshots share they share again."""
        found = self._nodes.get(ref)
        if found is None:
            node = tree.node(ref)
            items: list[tuple[int, bytes]] = []
            for index, key in enumerate(node.keys):
                if node.level:
                    items.append((key, child_item(key, self._node(tree, node.refs[index]))))
                    continue
                entry = tree.entry(ref, node, index)
                pieces = [piece._replace(ref=self._moved(piece.ref)) for piece in entry.pieces if piece.ref is not None]
                items.append((key, encode_item(key, Entry(entry.meta, pieces))))
            # as old as it was: an older snapshot may reach it too
            birth = self.wreck.birth(ref.extent) or 0
            data = encode_node(node.level, items, self.extents.sealed)
            (found,) = self.extents.write(NODE, node.keys[0], [data], birth)
            self._nodes[ref] = found
        return found

    def snapshot(self, record: Snapshot) -> tuple[Snapshot, Optional[Ref]]:
        """A snapshot that was checked: its record without lists, and the top of its tree."""
        root = self.wreck.pinned(record)
        top = None if root.top is None else self._node(Tree(self.old, root.top), root.top)
        data = root._replace(top=top).encode(self.extents.sealed)
        (ref,) = self.extents.write(ROOT, record.serial, [data], record.generation)
        return record._replace(root=ref, lists=(), dead=0, dead_bytes=0), top

    def lists(self, made: list[tuple[Snapshot, Optional[Ref]]], live: Optional[Ref]) -> list[Snapshot]:
        """The records with their dead lists: what the live tree does not reach is in that of the newest snapshot that
        does.
        """
        known: Places = set(Tree(self.extents, live).reachable())
        seen: set[Ref] = set()
        done: list[Snapshot] = []
        for record, top in reversed(made):
            own: Places = set()
            self._reach(Tree(self.extents, top), top, seen, own)
            items = sorted([Dead(*place, self.extents.birth(place[0])) for place in own - known])
            known |= own
            refs = [
                self.draft.dead(record.serial, encode_dead(items[at : at + LIST_LIMIT]))
                for at in range(0, len(items), LIST_LIMIT)
            ]
            sizes = [item.size for item in items]
            done.append(record._replace(lists=tuple(refs), dead=len(items), dead_bytes=sum(sizes)))
        return done[::-1]

    def _reach(self, tree: Tree, ref: Optional[Ref], seen: set[Ref], own: Places) -> None:
        if ref is None or ref in seen:
            return
        seen.add(ref)
        own.add(ref[:2])
        node = tree.node(ref)
        for child in node.refs:
            self._reach(tree, child, seen, own)
        for index in range(0 if node.level else len(node.keys)):
            own.update([piece.ref[:2] for piece in tree.entry(ref, node, index).pieces if piece.ref is not None])


def rebuild(layer: FileLayer, path: str, wreck: Wreck, content: Content, read: Callable[[Ref], Any]) -> Kept:
    """Write the new file, whole and synced, where nothing is. StorageError; it is removed where anything fails."""
    try:
        file = layer.open(path, "x")
    except OSError as error:
        raise refused(error, f"{path}, the repaired copy, cannot be made") from error
    try:
        try:
            file.allocate(0, PREAMBLE)
            extents = Extents(file, Space(), wreck.uuid, mapped=False, cipher=wreck.cipher, inherits=False)
            kept = _write(wreck, extents, content, read)
            file.sync()
        finally:
            file.close()
    except BaseException as error:
        _remove(layer, path)
        if isinstance(error, OSError) and not isinstance(error, DurabilityError):
            raise refused(error, f"{path}, the repaired copy, cannot be written") from error
        raise
    return kept


def _write(wreck: Wreck, extents: Extents, content: Content, read: Callable[[Ref], Any]) -> Kept:
    generation, epoch = wreck.generation + 1, wreck.epoch + 2
    work = _Rebuilding(wreck, extents, generation)
    live = work.live(content.entries, read)
    made, lost = [], []
    for record in content.records:
        try:
            work.check(record)
        except (CorruptionError, NotSupportedError) as error:
            lost.append((record, str(error)))
        else:
            made.append(work.snapshot(record))
    records = work.lists(made, live)
    root = Root(plain(content.header), live, len(content.entries), content.lsn, tuple(records), content.serial)
    ref = write_root(extents, root, generation)
    end = extents.space.high_water
    extents.file.truncate(end)
    salt, now = os.urandom(16), time.time_ns() // 1000
    write_static(extents.file, wreck.static)
    for slot in (0, 1):
        block = Superblock(
            slot, True, wreck.uuid, generation + slot, ref.extent, ref.length, ref.crc, content.lsn, epoch, salt, 0,
            end, end, now, ref.tag or NO_TAG,
        )  # fmt: skip
        write_slot(extents.file, block, wreck.cipher)
    return Kept(end, records, lost)


def swap(layer: FileLayer, path: str, temporary: str, uuid: bytes) -> lock.Claim:
    """Have the new file take the name of the old one, and remove what logs are left of that. The new file is locked
    from before on; returns its lock. StorageError: nothing happened; DurabilityError: it is not known what lasts.
    """
    claim = lock.acquire(layer, temporary, True, 0.0)
    try:
        try:
            layer.rename(temporary, path, True)
        except OSError as error:
            hint = "close the views and iterators of the database that are held"
            raise refused(error, f"{path} cannot be replaced by its repaired copy", hint) from error
        claim.file.path = path
        try:
            layer.sync_dir(path)
        except OSError as error:
            raise DurabilityError(f"{path} was repaired, but it is not known to last: {error}") from error
        _remove_logs(layer, path, uuid)
    except BaseException:
        claim.release()
        raise
    return claim


def _remove_logs(layer: FileLayer, path: str, uuid: bytes) -> None:
    """The logs of the old file; those of another database stay. Left over they are harmless."""
    try:
        foreign = [log.header is not None and log.header.uuid != uuid for log in read_logs(layer, path, whole=False)]
        gone = [wal_path(path, parity) for parity in (0, 1) if not foreign[parity]]
        for name in gone:
            if layer.exists(name):
                layer.unlink(name)
        layer.sync_dir(path)
    except OSError:
        pass


def _remove(layer: FileLayer, path: str) -> None:
    try:
        layer.unlink(path)
    except OSError:
        pass  # not there, or it cannot be helped


def leftovers(layer: FileLayer, names: Iterable[str]) -> None:
    """Remove files that a copy has left."""
    for name in names:
        _remove(layer, name)
