"""What a disk may hold after a crash: the legal states of the files at one point of a recorded run.

The rules (``docs/durability.md``): what a completed ``sync`` of a file covered is there. Later writes of the file may
be there in part and in any order, in sectors of 512 bytes; a file's length and its data are independent; the part of a
sector that was being written may hold garbage. A name that was made, moved or removed is as before unless its directory
was synced. What a failed ``sync`` covered may never get there, although the running system shows it.
"""

from __future__ import annotations

import os.path
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

__all__ = ["SECTOR", "Change", "Disk", "State"]

SECTOR = 512
MANY = 12  # unsynced changes from which on prefixes and single ones are drawn, not all tried


class Change(NamedTuple):
    """A change of a file that no ``sync`` has covered: bytes at an offset, or with ``data`` None a new length.

    ``doubtful``: a ``sync`` of it failed, so that no later one will put it on the disk.
    """

    offset: int
    data: Optional[bytes]
    size: int = 0
    doubtful: bool = False

    @property
    def end(self) -> int:
        """The byte past the last one written."""
        return self.offset + len(self.data or b"")


class Node:
    """One file: what is surely on the disk, what is not, and what the running system sees."""

    def __init__(self, data: bytes = b"") -> None:
        self.durable = data
        self.pending: list[Change] = []
        self._image: Optional[bytearray] = None  # what the system sees, from the first change on
        self._now: Optional[bytes] = data

    def change(self, change: Change) -> None:
        """Note a change."""
        if self._image is None:
            self._image = bytearray(self.durable)
        _apply(self._image, change)
        self.pending.append(change)
        self._now = None

    def sync(self) -> None:
        """Everything so far is on the disk, but for what an earlier sync failed on."""
        if not self.pending:
            return
        doubtful = [change for change in self.pending if change.doubtful and change.data is not None]
        if not doubtful:
            self.durable, self.pending = self.now(), []
            return
        image = bytearray(self.durable)
        for change in self.pending:
            _apply(image, Change(0, None, max(len(image), change.end)) if change in doubtful else change)
        sure = [change for change in self.pending if change not in doubtful]
        self.durable = bytes(image)
        self.pending = [change for change in doubtful if not any(_overlap(change, later) for later in sure)]

    def sync_failed(self) -> None:
        """A sync failed: what it was to write can be read, and is on the disk or not; later syncs do not write it."""
        self.pending = [change._replace(doubtful=True) for change in self.pending]

    def lost(self, data: bytes) -> None:
        """A sync failed and the system forgot what it was to write: it reads from the disk again. Lengths wait on."""
        self.pending = [_only_length(change) for change in self.pending]
        self._image, self._now = bytearray(data), None

    def now(self) -> bytes:
        """What the running system sees."""
        if self._now is None:
            self._now = self.durable if self._image is None else bytes(self._image)
        return self._now

    def with_changes(self, changes: Sequence[Change]) -> bytes:
        """The durable bytes with some of the changes."""
        if not changes:
            return self.durable
        image = bytearray(self.durable)
        for change in changes:
            _apply(image, change)
        return bytes(image)

    def copy(self) -> Node:
        """A copy that goes its own way."""
        node = Node(self.durable)
        node.pending, node._now = list(self.pending), self.now()
        node._image = None if self._image is None else bytearray(self._image)
        return node


def _apply(image: bytearray, change: Change) -> None:
    if change.data is None:
        if change.size < len(image):
            del image[change.size :]
        else:
            image.extend(bytes(change.size - len(image)))
        return
    if len(image) < change.end:
        image.extend(bytes(change.end - len(image)))
    image[change.offset : change.end] = change.data


def _overlap(one: Change, other: Change) -> bool:
    return other.data is not None and one.offset < other.end and other.offset < one.end


class Rename(NamedTuple):
    """A change of names that no ``sync_dir`` has covered: ``old`` goes, ``new`` comes; "" for neither."""

    old: str
    new: str
    node: Optional[Node]


Names = dict[str, Node]
Waiting = list[tuple[str, Change]]


class State:
    """One legal disk state. ``variant`` says how it came about, ``killed`` that only the process died, ``within`` that
    it did so within the last operation; ``contents`` is made when it is asked for.
    """

    def __init__(
        self, variant: str, names: Names, changes: Optional[Waiting], killed: bool = False, within: bool = False
    ) -> None:
        self.variant = variant
        self.killed = killed
        self.within = within
        self._names = names
        self._changes = changes  # None: what the running system sees

    @property
    def contents(self) -> dict[str, bytes]:
        """The bytes of each file by name."""
        if self._changes is None:
            return {name: node.now() for name, node in self._names.items()}
        chosen: dict[str, list[Change]] = {}
        for name, change in self._changes:
            chosen.setdefault(name, []).append(change)
        return {name: node.with_changes(chosen.get(name, ())) for name, node in self._names.items()}


class Disk:
    """The files of a recorded run, followed operation by operation. ``contents``: what is on the disk at first."""

    def __init__(self, contents: Optional[Mapping[str, bytes]] = None) -> None:
        self._names: Names = {name: Node(data) for name, data in (contents or {}).items()}
        self._files: dict[int, Node] = {}  # by the number that the log gives a file: a rename does not change it
        self._durable_names = dict(self._names)
        self._renames: list[Rename] = []
        self._written: Optional[Node] = None  # by the last operation

    def restarted(self) -> Disk:
        """A copy for another run that begins here: the process died, the system goes on. Files get new numbers."""
        copies = {id(node): node.copy() for node in [*self._names.values(), *self._durable_names.values()]}
        for rename in self._renames:
            if rename.node is not None and id(rename.node) not in copies:
                copies[id(rename.node)] = rename.node.copy()
        disk = Disk()
        disk._names = {name: copies[id(node)] for name, node in self._names.items()}
        disk._durable_names = {name: copies[id(node)] for name, node in self._durable_names.items()}
        disk._renames = [
            rename if rename.node is None else rename._replace(node=copies[id(rename.node)]) for rename in self._renames
        ]
        return disk

    # -- following ---------------------------------------------------------
    def step(self, op: Any) -> None:
        """Follow one operation of a ``RecordingLayer``'s log."""
        kind = op.kind
        self._written = None
        if kind == "write":
            self._written = self._node(op)
            self._written.change(Change(op.offset, bytes(op.data)))
        elif kind == "truncate":
            self._node(op).change(Change(0, None, op.size))
        elif kind == "allocate":
            node = self._node(op)
            if op.offset + op.size > len(node.now()):
                node.change(Change(0, None, op.offset + op.size))
        elif kind == "sync":
            self._node(op).sync()
        elif kind == "sync_failed":
            self._node(op).sync_failed()
        elif kind == "lost":
            self._node(op).lost(bytes(op.data))
        elif kind == "sync_dir":
            self._sync_names(op.path)
        elif kind in ("create", "rename", "unlink"):
            self._rename(op)

    def _node(self, op: Any) -> Node:
        node = self._files.get(op.file)
        if node is None:
            node = self._files[op.file] = self._names[op.path]
        return node

    def _rename(self, op: Any) -> None:
        if op.kind == "create":
            rename = Rename("", op.path, Node())
        elif op.kind == "rename":
            rename = Rename(op.path, op.target, self._names[op.path])
        else:
            rename = Rename(op.path, "", None)
        if rename.node is not None:
            self._files[op.file] = rename.node
        elif op.path in self._names:
            self._files.setdefault(op.file, self._names[op.path])
        _carry_out(self._names, rename)
        self._renames.append(rename)

    def _sync_names(self, directory: str) -> None:
        waiting = []
        for rename in self._renames:
            if directory in (os.path.dirname(name) for name in (rename.old, rename.new) if name):
                _carry_out(self._durable_names, rename)
            else:
                waiting.append(rename)
        self._renames = waiting

    # -- states ------------------------------------------------------------
    def states(self, random_states: int, draw: random.Random) -> Iterator[State]:
        """The states of a crash here: what the system sees (the process was killed), then what a power cut may leave.

        ``random_states`` of them are drawn, where anything is not synced.
        """
        yield State("killed", dict(self._names), None, True)
        yield from self._killed_within(draw)
        for label, names in self._name_sets():
            yield from self._power_cuts(label, names, random_states, draw)

    def _killed_within(self, draw: random.Random) -> Iterator[State]:
        """The process died in the middle of the last write."""
        node = self._written
        if node is None or any(change.doubtful for change in node.pending):
            return
        *before, last = node.pending
        data = last.data or b""
        if len(data) < 2:
            return
        size = draw.randrange(1, len(data))
        half = Node(node.with_changes([*before, last._replace(data=data[:size])]))
        names = {name: half if there is node else there for name, there in self._names.items()}
        yield State(f"killed after {size} bytes", names, None, True, True)

    def _name_sets(self) -> Iterator[tuple[str, Names]]:
        """The names that may be there: all that was done since their directory was synced, the first n, all but one."""
        yield "", dict(self._names)
        count = len(self._renames)
        kept = [range(n) for n in range(count)]
        kept += [[*range(n), *range(n + 1, count)] for n in range(count - 1)]  # type: ignore[misc]
        for at, chosen in enumerate(kept):
            names = dict(self._durable_names)
            for number in chosen:
                _carry_out(names, self._renames[number])
            yield (f"{len(chosen)} of {count} names, " if at < count else f"names without {at - count}, "), names

    def _power_cuts(self, label: str, names: Names, random_states: int, draw: random.Random) -> Iterator[State]:
        yield State(f"{label}nothing unsynced", names, [])
        waiting = [(name, change) for name, node in names.items() for change in node.pending]
        if not waiting:
            return
        yield State(f"{label}all", names, waiting)
        count = len(waiting)
        if count > 1:
            for at in range(count) if count <= MANY else sorted(draw.sample(range(count), MANY)):
                yield State(f"{label}first {at}", names, waiting[:at])
                yield State(f"{label}without {at}", names, waiting[:at] + waiting[at + 1 :])
                yield State(f"{label}only {at}", names, waiting[at : at + 1])
        for number in range(random_states):
            how, changes = _torn(names, waiting, draw)
            yield State(f"{label}{how} {number}", names, changes)


def _carry_out(names: Names, rename: Rename) -> None:
    names.pop(rename.old, None)
    if rename.new and rename.node is not None:
        names[rename.new] = rename.node


# -- parts of writes -------------------------------------------------------
_HOW = ("sectors", "sectors", "cut", "zeros", "garbage", "length", "one sector")


def _torn(names: Names, waiting: Waiting, draw: random.Random) -> tuple[str, Waiting]:
    """Some of the changes, in sectors; and how: any of them, cut within one, only lengths, garbage, another length."""
    how = draw.choice(_HOW)
    if how == "sectors":
        return how, list(_any_sectors(waiting, draw))
    if how == "length":
        return how, [*_any_sectors(waiting, draw), *_lengths(names, waiting, draw)]
    if how == "zeros":
        return how, [(name, _only_length(change) if draw.random() < 0.5 else change) for name, change in waiting]
    at = draw.randrange(len(waiting))
    name, change = waiting[at]
    # those behind it may be there too
    rest = waiting[at + 1 :] if draw.random() < 0.5 else []
    if change.data is None:
        return how, waiting[:at] + rest
    if how == "cut":
        begun = change._replace(data=change.data[: draw.randrange(len(change.data) + 1)])
        return how, [*waiting[:at], (name, begun), *rest]
    sectors = list(_sectors(change))
    bad = draw.randrange(len(sectors))
    if how == "one sector":
        del sectors[bad]
    else:
        garbage = bytes(draw.getrandbits(8) for _ in sectors[bad].data or b"")
        sectors[bad] = sectors[bad]._replace(data=garbage)
    return how, [*waiting[:at], *((name, sector) for sector in sectors), *rest]


def _any_sectors(waiting: Waiting, draw: random.Random) -> Iterator[tuple[str, Change]]:
    share = draw.choice((0.1, 0.5, 0.9))
    for name, change in waiting:
        for sector in _sectors(change):
            if draw.random() < share:
                yield name, sector


def _lengths(names: Names, waiting: Waiting, draw: random.Random) -> Iterator[tuple[str, Change]]:
    """For each file one of the lengths that it had since its last sync."""
    for name in {name: None for name, _ in waiting}:
        size = len(names[name].durable)
        sizes = [size]
        for owner, change in waiting:
            if owner == name:
                size = change.size if change.data is None else max(size, change.end)
                sizes.append(size)
        yield name, Change(0, None, draw.choice(sizes))


def _only_length(change: Change) -> Change:
    """What a write does to the length. It never makes a file shorter."""
    return change if change.data is None else Change(change.end, b"")


def _sectors(change: Change) -> Iterable[Change]:
    """A write as the sectors of the disk that it touches; a change of length as it is."""
    data = change.data
    if data is None or (change.offset % SECTOR + len(data) <= SECTOR):
        return [change]
    found, at = [], 0
    while at < len(data):
        size = min(SECTOR - (change.offset + at) % SECTOR, len(data) - at)
        found.append(Change(change.offset + at, data[at : at + size]))
        at += size
    return found
