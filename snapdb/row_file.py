"""The row engine's side of a file: slab groups that are loaded when needed, and written when they have changed.

An entry is a group's image and, where little of the group has changed since, a patch of all rows that have: an update
of one row then writes that row and not its neighbours. Bytes are in ``docs/format.md``, "Slab group".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import index as _index
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from .errors import CorruptionError
from .pieces import Bulk, Entry, Piece

if TYPE_CHECKING:
    from ._ext import Backend, SlabView
    from .pieces import Source
    from .schema import Schema
    from .table import Staged

__all__ = ["RowFile", "SlabOwner", "State", "counters", "entries", "prepare", "verify"]

GROUP, PATCH = 5 << 24, 6 << 24  # tags
MOST_GROUPS = 1 << 32  # 256 TiB of rows: a header that says more is damaged
_FEW = 8  # rows of a group that are read one by one rather than by gathering what is between them
_HEAD = struct.Struct("<II")
_ROW = struct.Struct("<IB3sI")


def counters(header: Mapping[str, Any], span: int) -> tuple[int, int]:
    """``rows`` and ``live`` of a file's header; CorruptionError where they make no sense."""
    rows, live = header.get("rows"), header.get("live")
    if type(rows) is not int or type(live) is not int or not 0 <= live <= rows or rows > MOST_GROUPS * span:
        raise CorruptionError(f"the file says that {live!r} of {rows!r} rows are live")
    return rows, live


class SlabOwner(Protocol):
    """A table of rows in slabs, and no more of it than its file needs."""

    schema: Schema
    kernels: Backend
    codec: Any  # the kernel's RowCodec
    slabs: Any  # the kernel's SlabTable

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held in every call of the file's side."""
        ...

    def new_slabs(self) -> Any:
        """Rows of this table's layout, none yet."""
        ...

    @property
    def rows(self) -> int:
        """Row positions given out."""
        ...

    def __len__(self) -> int:
        """Live rows."""
        ...


def _span(table: SlabOwner) -> int:
    """Rows of a group."""
    span: int = table.slabs.slab_rows * table.slabs.group_slabs
    return span


def _groups(rows: int, span: int) -> int:
    return -(-rows // span)


def _bits(start: int, stop: int) -> int:
    """A bitmap of rows ``start..stop``."""
    return ((1 << max(0, stop - start)) - 1) << start


def _rows_of(bits: int) -> list[int]:
    """The rows of a bitmap, ascending."""
    digits = bin(bits)[:1:-1]
    rows, at = [], digits.find("1")
    while at >= 0:
        rows.append(at)
        at = digits.find("1", at + 1)
    return rows


class State(NamedTuple):
    """What ``RowFile`` knows of the changes since the last checkpoint."""

    dirty: dict[int, int]
    patched: dict[int, int]
    bulk: dict[int, Entry]
    counted: int
    based: int


class RowFile:
    """Which groups of a table are still in the file only, and which differ from what is there.

    Bitmaps of a group's rows are integers. Rows appended since ``counted`` need no note: single-row inserts run no
    Python code. The table's lock is held in every call.
    """

    def __init__(self, table: SlabOwner, source: Source) -> None:
        self._table = table
        self._slabs = table.slabs
        self._source = source
        self._span = _span(table)
        self._missing: Optional[bytearray] = None  # groups not loaded yet, shared with the kernel
        self._dirty: dict[int, int] = {}  # group -> rows changed since the last checkpoint
        self._patched: dict[int, int] = {}  # group -> rows changed since its image, as of the last checkpoint
        self._bulk: dict[int, Entry] = {}  # groups written by themselves and in no checkpoint yet
        self._counted = 0  # rows from here on are appended since the last checkpoint, or since the last bulk
        self._based = 0  # groups below have their image in the source
        self._stored = 0  # groups below may have an entry in the source
        self._planned: dict[int, int] = {}  # what ``_patched`` will be

    # -- loading -------------------------------------------------------------

    def adopt(self, rows: int, live: int) -> None:
        """Be at the state of the last checkpoint."""
        count = _groups(rows, self._span)
        missing = bytearray(b"\xff" * (count >> 3))
        if count & 7:
            missing.append(_bits(0, count & 7))
        try:
            self._slabs.adopt(rows, live, missing if count else None, self.fault)
        except ValueError as error:
            raise CorruptionError(f"the file's counters make no sense: {error}") from error
        self._missing = missing if count else None
        self._counted, self._based, self._stored = rows, count, count

    def fault(self, group: int) -> None:
        """Load a group. The kernel asks for it too, on any thread."""
        with self._table.lock:
            if not self._is_missing(group):
                return
            entry = self._source.entry(group)
            if entry is not None:
                image, patched = self._image(group, entry)
                try:
                    self._slabs.load(group, image)
                except ValueError as error:
                    raise _damaged(group, error) from error
                if patched:
                    self._patched[group] = patched
            missing: Any = self._missing
            missing[group >> 3] &= ~(1 << (group & 7))

    def _is_missing(self, group: int) -> bool:
        missing = self._missing
        return missing is not None and group >> 3 < len(missing) and bool(missing[group >> 3] >> (group & 7) & 1)

    def load(self) -> None:
        """Load every group, for what reads the table as a whole."""
        missing = self._missing
        if missing is None:
            return
        for at in range(len(missing)):
            if missing[at]:
                for group in range(at << 3, (at + 1) << 3):
                    self.fault(group)
        self._missing = None

    def load_open(self) -> None:
        """Load the group that the next row goes to."""
        self.fault(self._slabs.rows // self._span)

    def _image(self, group: int, entry: Entry) -> tuple[Any, int]:
        """The image of a group as of its entry, and the rows that its patch has changed."""
        image, patch = _pieces(group, entry)
        data = self._source.read(image.ref)  # type: ignore[arg-type]
        if patch is None:
            return data, 0
        scratch, patched = _patched(self._table, group, data, self._source.read(patch.ref))  # type: ignore[arg-type]
        return scratch.dump(0), patched

    # -- what has changed ----------------------------------------------------

    def touch(self, ids: Iterable[int]) -> None:
        """Rows are about to change: load their groups and note them."""
        found: dict[int, bytearray] = {}
        for idx in ids:
            idx = _index(idx)
            if 0 <= idx < self._slabs.rows:
                group, row = divmod(idx, self._span)
                rows = found.get(group)
                if rows is None:
                    rows = found[group] = bytearray((self._span + 7) >> 3)
                rows[row >> 3] |= 1 << (row & 7)
        for group in found:
            self.fault(group)
        for group, rows in found.items():
            self._dirty[group] = self._dirty.get(group, 0) | int.from_bytes(rows, "little")

    def renumbered(self) -> State:
        """Nothing of the file is of use any more (``compact``); returns what ``restore`` needs."""
        state = State(self._dirty, self._patched, self._bulk, self._counted, self._based)
        self._dirty, self._patched, self._bulk, self._counted, self._based = {}, {}, {}, 0, 0
        return state

    def restore(self, state: State) -> None:
        """As it was before ``renumbered``."""
        self._dirty, self._patched, self._bulk, self._counted, self._based = state

    def cut(self, rows: int) -> None:
        """The rows from ``rows`` on are taken back."""
        self._bulk = {group: entry for group, entry in self._bulk.items() if group * self._span < rows}
        self._counted = min(self._counted, rows)

    def _appended(self, group: int, start: int, stop: int) -> int:
        base = group * self._span
        return _bits(max(0, start - base), min(self._span, stop - base)) if stop > max(start, base) else 0

    def changes(self) -> Iterator[tuple[int, Optional[Entry]]]:
        """Entries to be written; None: the key is gone."""
        rows = self._slabs.rows
        end = _groups(rows, self._span)
        touched = {*self._dirty, *self._bulk}
        if self._counted < rows:
            touched.update(range(self._counted // self._span, end))
        self._planned = {}
        for group in sorted(touched):
            if group < end:
                entry = self._entry(group, rows)
                if entry is not None or self._is_stored(group):
                    yield group, entry
        for group in range(end, self._stored):
            if self._is_stored(group):
                yield group, None

    def _is_stored(self, group: int) -> bool:
        return group < self._stored and self._source.entry(group) is not None

    def _entry(self, group: int, rows: int) -> Optional[Entry]:
        """What is to be kept of a group; None: it has no live row."""
        self.fault(group)
        changed = self._dirty.get(group, 0) | self._appended(group, self._counted, rows)
        view: SlabView = self._slabs.pin()
        try:
            if not _is_alive(view, group * self._span, min(rows, (group + 1) * self._span)):
                return None
            base = self._bulk.get(group)
            if base is not None and not changed:
                return base
            if base is None and group < self._based:
                base = self._source.entry(group)
            if base is not None:
                image = _pieces(group, base)[0]
                changed |= self._patched.get(group, 0)
                patch = self._patch(view, group, changed, image.ref.length)  # type: ignore[union-attr]
                if patch is not None:
                    self._planned[group] = changed
                    return Entry(b"", [image, Piece(PATCH, b"", patch)])
        finally:
            view.release()
        return Entry(b"", [Piece(GROUP, b"", self._slabs.dump(group))])

    def _patch(self, view: SlabView, group: int, changed: int, size: int) -> Optional[bytes]:
        """The patch of the changed rows; None where it is so large that the image (``size`` bytes) is better."""
        # from one to three eighths, a group's own share: else all that change alike would come due together
        limit = size * (32 + (group * 0x9E3779B1 >> 8 & 63)) >> 8
        base = group * self._span
        rows = [row for row in _rows_of(changed) if base + row < view.rows]
        total = _HEAD.size + _ROW.size * len(rows)
        if total > limit:
            return None
        parts = [_HEAD.pack(len(rows), 0)]
        for row, values in zip(rows, _values(self._table, view, [base + row for row in rows])):
            packed = b"" if values is None else self._table.codec.pack(values)
            total += len(packed)
            if total > limit:
                return None
            parts += (_ROW.pack(row, values is not None, b"\0\0\0", len(packed)), packed)
        return b"".join(parts)

    def saved(self, stored: Iterable[tuple[int, Optional[Entry]]]) -> None:
        """The changes are in the file."""
        patched = dict(self._patched)
        for group, _ in stored:
            patched.pop(group, None)
        patched.update(self._planned)
        rows = self._slabs.rows
        groups = _groups(rows, self._span)
        # all or, where memory runs out, nothing: it is then done again
        self._patched, self._planned, self._dirty, self._bulk = patched, {}, {}, {}
        self._counted, self._based, self._stored = rows, groups, groups

    def published(self, first: int, stored: Sequence[tuple[int, Entry]]) -> None:
        """A batch is in, whose groups that are all its own are in the file as ``stored``."""
        rows, span = self._slabs.rows, self._span
        stop = min(_groups(first, span) * span, rows)  # rows in the group that was begun before count as appended
        dirty = dict(self._dirty)
        if self._counted < stop:
            for group in range(self._counted // span, _groups(stop, span)):
                dirty[group] = dirty.get(group, 0) | self._appended(group, self._counted, stop)
        bulk = {**self._bulk, **{group: entry for group, entry in stored if group * span >= first}}
        self._dirty, self._bulk, self._counted = dirty, bulk, rows

    def read_bulk(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> Any:
        """The batch of a log's frame as a table to be absorbed; CorruptionError."""
        return _read_bulk(self._table, self._source, first, rows, stored)

    # -- looking for damage --------------------------------------------------

    def verify(self) -> Iterator[str]:
        """What is wrong with each group as it is in the file and as it is here, and with the number of live rows."""
        rows, span = self._slabs.rows, self._span
        live, unknown = 0, False
        for group in range(_groups(rows, span)):
            stop = min(rows, (group + 1) * span)
            kept: Optional[int] = None
            try:
                if group < self._based:
                    kept, wrong = self._look_stored(group, stop - group * span)
                    if wrong is not None:
                        yield f"slab group {group}: {wrong}"
            except CorruptionError as error:
                yield str(error)
            if self._is_missing(group):
                unknown = unknown or kept is None
                live += kept or 0
                continue
            here, wrong = _look(self._table, self._slabs, group * span, stop)
            live += here
            if wrong is not None:
                yield f"slab group {group}: {wrong}"
            if kept not in (None, here) and group not in self._dirty and stop <= self._counted:
                yield f"slab group {group} has {here} live rows, and {kept} in the file"
        if live != self._slabs.live and not unknown:
            yield f"{live} rows are live, and the table says {self._slabs.live}"

    def _look_stored(self, group: int, rows: int) -> tuple[int, Optional[str]]:
        """``_look`` for a group of ``rows`` positions as it is in the file."""
        scratch = self._decoded(group)
        if scratch is None:
            return 0, None
        found, wrong = _look(self._table, scratch, 0, self._span)
        if wrong is None and self._is_missing(group) and _look(self._table, scratch, 0, rows)[0] != found:
            wrong = "a live row past the end of the table"
        return found, wrong

    def _decoded(self, group: int) -> Optional[Any]:
        """The group as it is in the file, as a table of its own."""
        entry = self._source.entry(group)
        if entry is None:
            return None
        image, patch = _pieces(group, entry)
        data = self._source.read(image.ref)  # type: ignore[arg-type]
        changes = None if patch is None else self._source.read(patch.ref)  # type: ignore[arg-type]
        return _patched(self._table, group, data, changes)[0]


# -- entries -----------------------------------------------------------------


def _damaged(group: int, why: object) -> CorruptionError:
    text = str(why)
    named = f"slab group {group}"
    return CorruptionError(text if text.startswith(named) else f"{named}: {text}", segment=group)


def _pieces(group: int, entry: Entry) -> tuple[Piece, Optional[Piece]]:
    """The image and the patch of an entry."""
    tags = [piece.tag for piece in entry.pieces]
    if tags not in ([GROUP], [GROUP, PATCH]) or any(piece.ref is None for piece in entry.pieces):
        raise _damaged(group, f"its entry has pieces {tags}")
    return entry.pieces[0], entry.pieces[1] if len(tags) > 1 else None


def _patched(table: SlabOwner, group: int, image: Any, patch: Optional[Any]) -> tuple[Any, int]:
    """A group as a table of its own, and the rows that the patch has changed; CorruptionError."""
    scratch = table.new_slabs()
    scratch.skip(_span(table))
    changed = 0
    try:
        scratch.load(0, image)
        for row, packed in () if patch is None else _read_patch(memoryview(patch), _span(table)):
            changed |= 1 << row
            values = None if packed is None else table.codec.unpack(packed)
            if values is None:
                if scratch.contains(row):
                    scratch.remove(row)
            elif scratch.contains(row):
                scratch.put(row, list(enumerate(values)))
            else:
                scratch.revive(row, values)
    except ValueError as error:
        raise _damaged(group, error) from error
    return scratch, changed


def _read_patch(data: memoryview, span: int) -> Iterator[tuple[int, Optional[memoryview]]]:
    """(row, packed row or None for a dead one) of a patch. ValueError for bytes that are none."""
    if len(data) < _HEAD.size:
        raise ValueError("the patch is cut short")
    count, zero = _HEAD.unpack_from(data)
    at, last = _HEAD.size, -1
    if zero or count > (len(data) - at) // _ROW.size:
        raise ValueError(f"a patch of {len(data)} bytes cannot have {count} rows")
    for _ in range(count):
        if len(data) - at < _ROW.size:
            raise ValueError("the patch is cut short")
        row, live, zeros, size = _ROW.unpack_from(data, at)
        at += _ROW.size
        if not last < row < span or live > 1 or zeros != b"\0\0\0" or size > len(data) - at or (size and not live):
            raise ValueError(f"the patch says row {row}, live {live}, {size} bytes")
        yield row, data[at : at + size] if live else None
        at += size
        last = row
    if at != len(data):
        raise ValueError(f"the patch has {len(data) - at} bytes too many")


def _values(table: SlabOwner, view: SlabView, ids: list[int]) -> Iterator[Optional[list[Any]]]:
    """The physical values of rows by ascending id, None for a dead one."""
    columns = range(len(table.schema.columns))
    if len(ids) <= _FEW:
        for idx in ids:
            live = view.live_mask(idx, idx + 1) is None
            yield [view.gather(j, idx, idx + 1).physical(0) for j in columns] if live else None
        return
    first, stop = ids[0], ids[-1] + 1
    mask = view.live_mask(first, stop)
    buffers = [view.gather(j, first, stop) for j in columns]
    for idx in ids:
        row = idx - first
        live = mask is None or bool(mask[row >> 3] >> (row & 7) & 1)
        yield [buffer.physical(row) for buffer in buffers] if live else None


def _is_alive(view: SlabView, start: int, stop: int) -> bool:
    """Whether there is a live row."""
    mask = view.live_mask(start, stop)
    return mask is None or any(mask)


def _count(table: SlabOwner, view: SlabView, start: int, stop: int) -> int:
    mask = view.live_mask(start, stop)
    return stop - start if mask is None else int(table.kernels.mask.count(mask))


def _look(table: SlabOwner, slabs: Any, start: int, stop: int) -> tuple[int, Optional[str]]:
    """The live rows of positions ``start..stop``, and what is wrong with their values."""
    view: SlabView = slabs.pin()
    try:
        found = _count(table, view, start, stop)
        for column, definition in enumerate(table.schema.columns):
            try:
                view.gather(column, start, stop).tolist()
            except (ValueError, OverflowError) as error:
                return found, f"column {definition.name!r}: {error}"
        return found, None
    finally:
        view.release()


# -- whole tables and batches ------------------------------------------------


def entries(table: SlabOwner) -> Iterator[tuple[int, Entry]]:
    """Every group with a live row, with its image."""
    yield from _dumped(table.slabs, 0, _span(table))


def _dumped(slabs: Any, first: int, span: int) -> Iterator[tuple[int, Entry]]:
    rows = slabs.rows
    for group in range(first // span, _groups(rows, span)):
        view: SlabView = slabs.pin()
        alive = _is_alive(view, group * span, min(rows, (group + 1) * span))
        view.release()
        if alive:
            yield group, Entry(b"", [Piece(GROUP, b"", slabs.dump(group))])


def verify(table: SlabOwner) -> Iterator[str]:
    """What is wrong with a table that has no file."""
    live, span = 0, _span(table)
    for start in range(0, table.rows, span):
        found, wrong = _look(table, table.slabs, start, min(table.rows, start + span))
        live += found
        if wrong is not None:
            yield f"slab group {start // span}: {wrong}"
    if live != len(table):
        yield f"{live} rows are live, and the table says {len(table)}"


def prepare(table: SlabOwner, staged: Staged) -> Bulk:
    """A batch as the groups that it makes."""
    fresh = table.new_slabs()
    first = table.slabs.rows
    fresh.skip(first)
    fresh.extend(staged.buffers)
    return Bulk(first, staged.rows, list(_dumped(fresh, first, _span(table))), fresh)


def _read_bulk(table: SlabOwner, source: Source, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> Any:
    """The groups of a batch as a table whose positions below ``first`` hold none; CorruptionError."""
    span = _span(table)
    keys = [group for group, _ in stored]
    expected = range(first // span, _groups(first + rows, span))
    if first != table.slabs.rows or rows < 1 or len(keys) != len(expected) or keys != list(expected):
        raise CorruptionError(f"a batch of {rows} rows from {first} on is at {table.slabs.rows}, groups {keys[:9]}")
    fresh = table.new_slabs()
    try:
        fresh.adopt(first + rows, rows, None, _none_missing)
    except ValueError as error:
        raise CorruptionError(f"a batch of {rows} rows from {first} on: {error}") from error
    for group, entry in stored:
        image, patch = _pieces(group, entry)
        if patch is not None:
            raise _damaged(group, "a batch has no patch")
        try:
            fresh.load(group, source.read(image.ref))  # type: ignore[arg-type]
        except ValueError as error:
            raise _damaged(group, error) from error
    view: SlabView = fresh.pin()
    try:
        whole = view.live_mask(first, first + rows) is None
        before = first // span * span
        if not whole or (before < first and _is_alive(view, before, first)):
            raise CorruptionError(f"the batch from row {first} on has other live rows than its {rows}")
    finally:
        view.release()
    return fresh


def _none_missing(group: int) -> None:
    """Nothing is to be loaded later."""
