"""Which rows differ between two states of a row table in a file. What both have in common is not read: of groups with
the same image only the rows of patches and of scattered changes are looked at.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Protocol, Union

from .differing import Difference, differing_rows, is_same, rows_of
from .errors import CorruptionError
from .row_file import _ROW as ROW_OF_PATCH
from .row_file import _damaged as damaged
from .row_file import _pieces, counters
from .row_file import _values as values_of
from .row_scattered import HEAD, ROW, SCATTERED_KEY, Scattered, bits_of, groups_of

if TYPE_CHECKING:
    from ._ext import Backend, SlabView
    from .differing import Stored
    from .pieces import Entry, Ref
    from .schema import Schema

__all__ = ["compare"]

#: a row of one side: packed, as values, or None where none is live
State = Union[bytes, list[Any], None]
Changes = dict[int, Optional[bytes]]  # row id, or row of a group -> the packed row, None where it is deleted


class RowsLike(Protocol):
    """A table of rows in slabs, and no more of it than says how they are stored."""

    schema: Schema
    kernels: Backend
    page_size: int


def compare(table: RowsLike, one: Stored, other: Stored) -> Difference:
    """What differs between two states of a table of one generation of row ids. Of the table only the layout is used.
    CorruptionError.
    """
    return _Work(_Layout(table), one, other).run()


class _Layout:
    """How rows are stored, for tables of one group that nobody else has."""

    def __init__(self, table: RowsLike) -> None:
        self.schema: Schema = table.schema
        self.kernels: Backend = table.kernels
        self.codec: Any = table.kernels.values.RowCodec(table.schema.specs, _nothing, _nothing)
        self._page_size = table.page_size
        self._lock = threading.RLock()  # of its own: whoever writes to the table has that one's
        fresh = self.new_slabs()
        self.span: int = fresh.slab_rows * fresh.group_slabs

    def new_slabs(self) -> Any:
        """Rows of this layout, none yet."""
        slab, schema = self.kernels.slab, self.schema
        return slab.SlabTable(self.codec, schema.offsets, schema.row_width, self._page_size, self._lock, _nothing)


def _nothing(*_: Any) -> NoReturn:
    raise TypeError("a group that is only read takes no rows")


class _Side:
    """One of the two states."""

    def __init__(self, layout: _Layout, source: Stored) -> None:
        self.source = source
        self.span = layout.span
        self.rows, _ = counters(source.header, layout.span)
        self.scattered: dict[int, Changes] = {}  # by group, of those that are looked at: later than images and patches

    def size(self, group: int) -> int:
        """Row positions of a group."""
        return max(0, min(self.span, self.rows - group * self.span))

    def scatter(self, rows: Changes, groups: Iterable[int]) -> None:
        """Take what a piece, by row ids, has of some groups."""
        span = self.span
        found = {group: self.scattered.setdefault(group, {}) for group in groups}
        for idx, packed in rows.items():
            group = idx // span
            if group in found:
                found[group][idx - group * span] = packed

    def pieces(self) -> dict[Ref, int]:
        """The pieces of scattered changes in order of time, and the groups in which each counts."""
        kept = Scattered(self.source, self.span, -(-self.rows // self.span)).kept()
        return {one.piece.ref: one.bits for one in kept if one.piece.ref is not None}


class _Half:
    """A group of one side."""

    def __init__(self, side: _Side, group: int, entry: Optional[Entry]) -> None:
        self.side = side
        self.size = side.size(group)
        self.image: Optional[Ref] = None  # None: no row
        self.patch: Optional[Ref] = None
        self.scattered = side.scattered.get(group, {})
        self._changes: Optional[Changes] = None
        if entry is not None:
            image, patch = _pieces(group, entry)
            self.image, self.patch = image.ref, None if patch is None else patch.ref
        elif self.scattered:
            raise ValueError("there are changes of its rows, and no image")
        if self.image is not None and not self.size:
            raise ValueError(f"there is no such group in {side.rows} rows")

    def changes(self) -> Changes:
        """What has changed since the image."""
        if self._changes is None:
            self._changes = {}
            if self.patch is not None:
                self._changes.update(_rows_in(bytes(self.side.source.read(self.patch)), ROW_OF_PATCH, self.side.span))
            self._changes.update(self.scattered)
        return self._changes

    def doubtful(self, other: _Half) -> set[int]:
        """The rows that may differ from those of another state with the same image."""
        if self.patch == other.patch:
            return {row for row, _ in self.scattered.items() ^ other.scattered.items()}
        return {row for row, _ in self.changes().items() ^ other.changes().items()}


class _Work:
    """One comparison."""

    def __init__(self, layout: _Layout, one: Stored, other: Stored) -> None:
        self._layout = layout
        self._one, self._other = _Side(layout, one), _Side(layout, other)
        self._images: dict[Ref, SlabView] = {}  # of the group at hand
        self._found = Difference([], [], [])

    def run(self) -> Difference:
        one, other = self._one, self._other
        entries = {key: (mine, its) for key, mine, its in one.source.differing(other.source)}
        is_scattered = entries.pop(SCATTERED_KEY, None) is not None
        if entries or is_scattered:
            groups = {*entries, *self._scatter(set(entries))}
            for group in sorted(groups):
                mine, its = entries[group] if group in entries else [one.source.entry(group)] * 2
                self._compare(group, mine, its)
        return self._found

    # -- scattered changes ---------------------------------------------------

    def _scatter(self, entered: set[int]) -> set[int]:
        """Read what both sides have scattered of the groups that may differ by it, which are returned, and of those of
        ``entered``.
        """
        mine, its = self._one.pieces(), self._other.pieces()
        bits = 0
        for ref in {**mine, **its}:
            bits |= mine.get(ref, 0) ^ its.get(ref, 0)
        if [ref for ref in mine if ref in its] != [ref for ref in its if ref in mine]:
            for both in (*mine.values(), *its.values()):  # in another order another piece may be the later one
                bits |= both
        doubtful = set(groups_of(bits))
        wanted = bits | bits_of(entered)
        known: dict[Ref, Changes] = {}
        for side, pieces in ((self._one, mine), (self._other, its)):
            for ref, counting in pieces.items():
                if counting & wanted:
                    if ref not in known:
                        known[ref] = self._piece(side, ref)
                    side.scatter(known[ref], groups_of(counting & wanted))
        return doubtful

    def _piece(self, side: _Side, ref: Ref) -> Changes:
        """The rows of a piece by row id."""
        try:
            return _rows_in(bytes(side.source.read(ref)), ROW, side.rows)
        except ValueError as error:
            offset = ref.extent + ref.at
            raise CorruptionError(f"the scattered changes at {offset}: {error}", offset=offset) from error

    # -- a group -------------------------------------------------------------

    def _compare(self, group: int, mine: Optional[Entry], its: Optional[Entry]) -> None:
        try:
            a, b = _Half(self._one, group, mine), _Half(self._other, group, its)
            if a.image == b.image:
                self._rows(group * self._layout.span, a, b, sorted(a.doubtful(b)))
            else:
                self._whole(group * self._layout.span, a, b)
        except ValueError as error:
            raise damaged(group, error) from error
        finally:
            for view in self._images.values():
                view.release()
            self._images.clear()

    def _image(self, side: _Side, ref: Ref) -> SlabView:
        view = self._images.get(ref)
        if view is None:
            view = self._images[ref] = self._made(side, ref, {})
        return view

    def _made(self, side: _Side, ref: Optional[Ref], changes: Changes) -> SlabView:
        """A group with changes, as a table of its own."""
        scratch = self._layout.new_slabs()
        scratch.skip(self._layout.span)
        if ref is not None:
            scratch.load(0, side.source.read(ref))
        for row, packed in changes.items():
            if scratch.contains(row):
                scratch.remove(row)
            if packed is not None:
                scratch.revive(row, self._layout.codec.unpack(packed))
        view: SlabView = scratch.pin()
        return view

    def _rows(self, start: int, a: _Half, b: _Half, rows: list[int]) -> None:
        """Compare these rows alone."""
        before, after = self._states(a, rows), self._states(b, rows)
        for row in rows:
            mine, its = before[row], after[row]
            if mine is None or its is None:
                if mine is not its:
                    (self._found.added if mine is None else self._found.removed).append(start + row)
            elif not self._is_same(mine, its):
                self._found.changed.append(start + row)

    def _is_same(self, one: Union[bytes, list[Any]], other: Union[bytes, list[Any]]) -> bool:
        if one == other and type(one) is type(other) is bytes:
            return True
        unpack = self._layout.codec.unpack
        mine, its = (unpack(state) if isinstance(state, bytes) else state for state in (one, other))
        return all(map(is_same, mine, its))

    def _states(self, half: _Half, rows: Iterable[int]) -> dict[int, State]:
        """What each of these rows is."""
        changes: Changes = {}
        found: dict[int, State] = {}
        stored: list[int] = []
        for row in rows:
            if row in half.scattered:
                found[row] = half.scattered[row]
                continue
            changes = changes or half.changes()
            if row in changes:
                found[row] = changes[row]
            elif row < half.size and half.image is not None:
                stored.append(row)
            else:
                found[row] = None
        if stored:
            layout: Any = self._layout
            view = self._image(half.side, half.image)  # type: ignore[arg-type]
            found.update(zip(stored, values_of(layout, view, stored)))
        return found

    def _whole(self, start: int, a: _Half, b: _Half) -> None:
        """Compare every row."""
        views: list[SlabView] = []
        try:
            views += [self._made(half.side, half.image, half.changes()) for half in (a, b)]
            mine, its = _alive(views[0], a.size), _alive(views[1], b.size)
            self._found.added.extend([start + row for row in rows_of(its & ~mine)])
            self._found.removed.extend([start + row for row in rows_of(mine & ~its)])
            both = mine & its
            if both:
                changed: set[int] = set()
                for j in range(len(self._layout.schema.columns)):
                    one, other = (view.gather(j, 0, both.bit_length()) for view in views)
                    changed |= differing_rows(one, other)
                self._found.changed.extend([start + row for row in rows_of(both) if row in changed])
        finally:
            for view in views:
                view.release()


def _rows_in(data: bytes, form: struct.Struct, limit: int) -> Changes:
    """The rows of a patch or of a piece of scattered changes: what ``read_rows`` gives, several times faster.
    ValueError for bytes that are none.
    """
    found: Changes = {}  # no list of pairs: each would be work for the garbage collector
    unpack, width = form.unpack_from, form.size
    try:
        count, _ = HEAD.unpack_from(data)
        at = HEAD.size
        for _ in range(count):
            row, live, _, size = unpack(data, at)
            start = at + width
            at = start + size
            found[row] = data[start:at] if live else None
    except struct.error:
        raise ValueError("it is cut short") from None
    rows = list(found)
    if at != len(data) or len(rows) != count or any(map(int.__ge__, rows, rows[1:])) or (rows and rows[-1] >= limit):
        raise ValueError(f"{count} rows in {len(data)} bytes do not ascend, or are past the end")
    return found


def _alive(view: SlabView, size: int) -> int:
    """The live rows among the first ``size``."""
    if not size:
        return 0
    mask = view.live_mask(0, size)
    return (1 << size) - 1 if mask is None else int.from_bytes(mask, "little")
