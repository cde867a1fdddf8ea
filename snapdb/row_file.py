"""The row engine's side of a file: slab groups that are loaded when needed, and written when they have changed.

An entry is a group's image and, where little of the group has changed since, a patch of all rows that have: an update
of one row then writes that row and not its neighbours. Where few rows of many groups have changed they are kept in one
entry of their own, see ``row_scattered``. Bytes are in ``docs/format.md``, "Slab group" and "Scattered changes".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from operator import index as _index
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from .errors import CorruptionError
from .pieces import Bulk, Entry, Piece
from .row_scattered import HEAD, LARGEST, PAGE, ROW, Scattered, bits_of, packed_size, pages, read_rows

if TYPE_CHECKING:
    from ._ext import Backend, SlabView
    from .pieces import Source
    from .schema import Schema
    from .step import Call
    from .table import Staged

__all__ = ["RowFile", "SlabOwner", "State", "counters", "entries", "prepare", "verify"]

GROUP, PATCH = 5 << 24, 6 << 24  # tags
MOST_GROUPS = 1 << 32  # 256 TiB of rows: a header that says more is damaged
_FEW = 8  # rows of a group that are read one by one rather than by gathering what is between them
_SPARSE = 64  # changed rows of a group, at most, that are kept with those of others
_ROW = struct.Struct("<IB3sI")

_Rows = Mapping[int, Any]  # row of a group -> its packed values, None for a dead one


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


class _Plan(NamedTuple):
    """What a checkpoint writes otherwise than group by group."""

    rows: dict[int, Optional[bytes]]  # scattered changes: row id -> packed row, None for a dead one
    groups: set[int]  # whose changes these are
    folding: list[int]  # groups to be written by themselves, for what is scattered of them


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
        self._scattered = Scattered(source, self._span, 0)
        self._missing: Optional[bytearray] = None  # groups not loaded yet, shared with the kernel
        self._dirty: dict[int, int] = {}  # group -> rows changed since the last checkpoint
        self._patched: dict[int, int] = {}  # group -> rows changed since its image, as of the last checkpoint
        self._bulk: dict[int, Entry] = {}  # groups written by themselves and in no checkpoint yet
        self._counted = 0  # rows from here on are appended since the last checkpoint, or since the last bulk
        self._based = 0  # groups below have their image in the source
        self._stored = 0  # groups below may have an entry in the source
        self._planned: dict[int, int] = {}  # what ``_patched`` will be
        self._successor: Optional[RowFile] = None  # who knows the table's groups now, where that is somebody else

    # -- loading -------------------------------------------------------------

    def adopt(self, rows: int, live: int, slabs: Any = None) -> None:
        """Be at the state of the last checkpoint. ``slabs``: what the table will take over as its own."""
        count = _groups(rows, self._span)
        missing = bytearray(b"\xff" * (count >> 3))
        if count & 7:
            missing.append(_bits(0, count & 7))
        try:
            (self._slabs if slabs is None else slabs).adopt(rows, live, missing if count else None, self.fault)
        except ValueError as error:
            raise CorruptionError(f"the file's counters make no sense: {error}") from error
        self._missing = missing if count else None
        self._counted, self._based, self._stored = rows, count, count
        self._scattered.saved(count)

    def succeeding(self, before: RowFile, source: Source) -> Call:
        """The call that makes this the table's file in place of another one; it reads from ``source`` from here on."""
        self._source = self._scattered.source = source
        return partial(setattr, before, "_successor", self)

    def fault(self, group: int) -> None:
        """Load a group. The kernel asks for it too, on any thread."""
        if self._successor is None and not self._is_missing(group):
            return  # for most writes: what was loaded stays
        with self._table.lock:
            if self._successor is not None:  # the thread has waited while the table became another one
                self._successor.fault(group)
                return
            if not self._is_missing(group):
                return
            entry, scattered = self._source.entry(group), self._scattered.rows(group)
            if entry is None and scattered:
                raise _damaged(group, "there are changes of its rows, and no image")
            if entry is not None:
                image, patched = self._image(group, entry, scattered)
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

    def _image(self, group: int, entry: Entry, scattered: _Rows) -> tuple[Any, int]:
        """The image of a group as of its entry and its scattered changes, and the rows that its patch has changed."""
        image, patch = _pieces(group, entry)
        data = self._source.read(image.ref)  # type: ignore[arg-type]
        rows = self._patch_rows(group, patch)
        if not rows and not scattered:
            return data, 0
        return _patched(self._table, group, data, {**rows, **scattered}).dump(0), _bitmap(rows)

    def _patch_rows(self, group: int, patch: Optional[Piece]) -> dict[int, Optional[memoryview]]:
        try:
            return {} if patch is None else dict(_read_patch(self._source.read(patch.ref), self._span))  # type: ignore[arg-type]
        except ValueError as error:
            raise _damaged(group, error) from error

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
        touched = {group for group in touched if group < end}
        self._planned = {}
        plan = self._plan(sorted(touched), rows)
        alone = sorted(touched - plan.groups | set(plan.folding))
        for group in alone:
            entry = self._entry(group, rows)
            if entry is not None or self._is_stored(group):
                yield group, entry
        for group in range(end, self._stored):
            if self._is_stored(group):
                yield group, None
        yield from self._scattered.change(bits_of([*alone, *range(end, self._stored)]), plan.rows)

    def _plan(self, touched: list[int], rows: int) -> _Plan:
        """Which groups' changes are kept together: where that takes at most half the pages that patches would."""
        found: dict[int, dict[int, Optional[bytes]]] = {}
        patches = size = 0
        view: SlabView = self._slabs.pin()
        try:
            for group, changed in self._sparse(touched, rows).items():
                patch = self._stored_patch(group)
                if patch is None or not _is_alive(view, group * self._span, min(rows, (group + 1) * self._span)):
                    continue
                packed = self._packed(view, group, changed)
                more = packed_size(packed.values())
                room = pages(patch + more)
                if more * 2 <= room * PAGE:
                    found[group] = packed
                    size, patches = size + more, patches + room
                if size > LARGEST:
                    return _Plan({}, set(), [])
        finally:
            view.release()
        if not found or 2 * pages(size) > patches:
            return _Plan({}, set(), [])
        folding = self._scattered.folding(size)
        for group in folding:
            found.pop(group, None)
        return _Plan({idx: data for one in found.values() for idx, data in one.items()}, set(found), folding)

    def _sparse(self, touched: list[int], rows: int) -> dict[int, int]:
        """The groups that have an image in the source and in which little has changed: group -> rows changed."""
        found, total = {}, 0
        for group in touched:
            if group < self._based and group not in self._bulk:
                changed = self._dirty.get(group, 0) | self._appended(group, self._counted, rows)
                count = bin(changed).count("1")
                if count <= _SPARSE:
                    found[group] = changed
                    total += count
                    if total * ROW.size > LARGEST:
                        return {}
        return found

    def _stored_patch(self, group: int) -> Optional[int]:
        """The bytes of a group's patch in the source; None where it has no entry."""
        entry = self._source.entry(group)
        patch = None if entry is None else _pieces(group, entry)[1]
        return None if entry is None else 0 if patch is None else patch.ref.length  # type: ignore[union-attr]

    def _packed(self, view: SlabView, group: int, changed: int) -> dict[int, Optional[bytes]]:
        """Rows by their ids: the packed row, None for a dead one."""
        ids = [idx for idx in (group * self._span + row for row in _rows_of(changed)) if idx < view.rows]
        pack = self._table.codec.pack
        values = _values(self._table, view, ids)
        return {idx: None if found is None else pack(found) for idx, found in zip(ids, values)}

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
                if group < self._based and group not in self._bulk:
                    changed |= _bitmap(self._scattered.rows(group))
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
        total = HEAD.size + _ROW.size * len(rows)
        if total > limit:
            return None
        parts = [HEAD.pack(len(rows), 0)]
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
        self._scattered.saved(groups)

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
        said = set(self._scattered.verify())
        yield from sorted(said)
        for group in range(_groups(rows, span)):
            stop = min(rows, (group + 1) * span)
            kept: Optional[int] = None
            try:
                if group < self._based:
                    kept, wrong = self._look_stored(group, stop - group * span)
                    if wrong is not None:
                        yield f"slab group {group}: {wrong}"
            except CorruptionError as error:
                if str(error) not in said:
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
        entry, scattered = self._source.entry(group), self._scattered.rows(group)
        if entry is None:
            if scattered:
                raise _damaged(group, "there are changes of its rows, and no image")
            return None
        image, patch = _pieces(group, entry)
        data = self._source.read(image.ref)  # type: ignore[arg-type]
        return _patched(self._table, group, data, {**self._patch_rows(group, patch), **scattered})


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


def _patched(table: SlabOwner, group: int, image: Any, changes: _Rows) -> Any:
    """A group as a table of its own: its image with these rows put over it. CorruptionError."""
    scratch = table.new_slabs()
    scratch.skip(_span(table))
    try:
        scratch.load(0, image)
        for row, packed in changes.items():
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
    return scratch


def _read_patch(data: memoryview, span: int) -> Iterator[tuple[int, Optional[memoryview]]]:
    """(row, packed row or None for a dead one) of a patch. ValueError for bytes that are none."""
    for row, live, start, end in read_rows(data, _ROW, span, "patch"):
        yield row, data[start:end] if live else None


def _bitmap(rows: Iterable[int]) -> int:
    """A bitmap of these rows."""
    found = 0
    for row in rows:
        found |= 1 << row
    return found


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
