"""Unique columns and the primary key, checked before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Optional

from . import scan
from ._ext._common import FLOATS, logical
from .errors import CorruptionError, UniqueError, shorten
from .step import Call, assign, run

if TYPE_CHECKING:
    from .schema import Schema
    from .table import Change, Staged, Table

__all__ = ["UniqueKeys"]

_ROW_ID_BYTES = sys.getsizeof(2**20)
_ENTERED, _REPLACED = object(), object()
Keys = dict[int, dict[Any, int]]  # column index -> key -> row id
_Note = tuple[Any, Any, Any]  # a dict, a key and what it had (None: nothing); or a dict, keys and a mark from above


class UniqueKeys:
    """The values of a table's unique columns and the row each is in. Nulls and NaN never collide.

    With a ``table`` they are those of its rows, read when they are first needed.
    """

    def __init__(self, schema: Schema, table: Optional[Table] = None) -> None:
        self.schema = schema
        self.keys: Keys = {j: {} for j, column in enumerate(schema.columns) if column.unique}
        self._unread = table  # the table whose rows are still to be read
        self._notes: Optional[list[_Note]] = None  # what takes the open transaction back
        self._begun_unread: Optional[Table] = None  # its rows are read anew when the transaction is taken back

    def __bool__(self) -> bool:
        return bool(self.keys)

    # -- reading them from the rows ------------------------------------------

    def stale(self, table: Table) -> None:
        """Forget every key: those of the table's rows are read when they are next needed."""
        self._unread = table
        if self._notes is not None:
            self._begun_unread = table
        self.keys.update({j: {} for j in self.keys})

    def _fresh(self) -> None:
        """Have the keys read. CorruptionError where two rows have the same: nobody could have written that."""
        table = self._unread
        if table is None:
            return
        found: Keys = {j: {} for j in self.keys}
        with table.lock, table.view() as view:
            for page in scan.pages(view, None):
                for j, keys in found.items():
                    self._add(j, keys, page.column(view, j), page)
            self.keys.update(found)
            self._unread = None

    def _add(self, j: int, keys: dict[Any, int], values: list[Any], page: scan.Page) -> None:
        if self.schema.columns[j].type.code in FLOATS:
            values = list(map(_key, values))
        fresh = dict(zip(values, page.ids()))
        fresh.pop(None, None)
        if len(fresh) + values.count(None) < len(values) or not fresh.keys().isdisjoint(keys):
            seen = set(keys)
            for key in values:
                if key is not None and key in seen:
                    break
                seen.add(key)
            name = self.schema.columns[j].name
            raise CorruptionError(f"column {name!r} is unique and two rows have {shorten(key)}", column=name)
        keys.update(fresh)

    # -- transactions --------------------------------------------------------

    def begin(self) -> None:
        """From here on note what ``rollback`` needs."""
        self._begun_unread = self._unread
        self._notes = []

    def commit(self) -> None:
        """Forget what was noted."""
        self._notes = self._begun_unread = None

    def rollback(self) -> None:
        """The keys as they were at ``begin``; it may be called again where an interrupt cut it short."""
        if self._begun_unread is not None:
            self.stale(self._begun_unread)
        else:
            run(*[_taking_back(*note) for note in reversed(self._notes or ())])
        self._notes = self._begun_unread = None

    def _note(self, keys: dict[Any, Any], changed: Iterable[Any]) -> None:
        """Note what some keys are before they change."""
        if self._notes is not None and self._begun_unread is None:
            self._notes.extend([(keys, key, keys.get(key)) for key in changed if key is not None])

    # -- checks --------------------------------------------------------------

    def find(self, j: int, physical: Any) -> Optional[int]:
        """The row that has this physical value in unique column j."""
        self._fresh()
        key = _key(logical(self.schema.columns[j].type.code, physical))
        return None if key is None else self.keys[j].get(key)

    def check_row(self, values: Sequence[Any]) -> dict[int, Any]:
        """The keys of a new row of physical values; UniqueError where one is taken."""
        self._fresh()
        keys = {j: _key(logical(self.schema.columns[j].type.code, values[j])) for j in self.keys}
        for j, key in keys.items():
            if key is not None and key in self.keys[j]:
                raise self._taken(j, key, _stored(self.keys[j][key]), -1)
        return keys

    # What follows prepares calls for the one step in which the table and its keys change.

    def entering(self, idx: int, keys: dict[int, Any]) -> list[Call]:
        """Calls that note the keys of row ``idx``."""
        self._fresh()
        for j, key in keys.items():
            self._note(self.keys[j], [key])
        return [assign(self.keys[j], key, idx) for j, key in keys.items() if key is not None]

    def leave(self, idx: int, keys: dict[int, Any]) -> None:
        """Forget what ``entering`` noted."""
        for j, key in keys.items():
            if self.keys[j].get(key) == idx:
                del self.keys[j][key]

    def memory_usage(self) -> int:
        """Bytes that the keys hold: the dicts, every key, and the row ids. Nothing while they are not read."""
        if self._unread is not None:
            return 0
        return sum(
            sys.getsizeof(keys) + sum(map(sys.getsizeof, keys)) + _ROW_ID_BYTES * len(keys)
            for keys in self.keys.values()
        )

    def check_batch(self, staged: Staged) -> dict[int, list[Any]]:
        """The keys of staged rows; UniqueError names the first row that repeats one, in the table or in the batch."""
        self._fresh()
        columns: dict[int, list[Any]] = {}
        for j, taken in self.keys.items():
            keys = [_key(value) for value in staged.buffers[j].tolist()]
            columns[j] = keys
            fresh = set(keys) - {None}
            if len(fresh) + keys.count(None) < len(keys) or not fresh.isdisjoint(taken):
                self._raise_first(j, keys)
        return columns

    def _raise_first(self, j: int, keys: list[Any]) -> None:
        seen: set[Any] = set()
        for position, key in enumerate(keys):
            if key is None:
                continue
            if key in self.keys[j]:
                raise self._taken(j, key, _stored(self.keys[j][key]), position)
            if key in seen:
                raise self._taken(j, key, "an earlier row of the same batch has it", position)
            seen.add(key)

    def entering_batch(self, first: int, columns: dict[int, list[Any]]) -> list[Call]:
        """Calls that note the keys of rows ``first`` onwards."""
        self._fresh()
        found: list[Call] = []
        for j, keys in columns.items():
            entered = {key: first + at for at, key in enumerate(keys) if key is not None}
            if self._notes is not None and self._begun_unread is None:
                self._notes.append((self.keys[j], entered, _ENTERED))
            found.append(partial(self.keys[j].update, entered))
        return found

    def check_changes(self, table: Table, changes: Iterable[Change]) -> list[tuple[int, Any, Any, int]]:
        """(column, old key, new key, row id) of planned updates; UniqueError where the table would repeat a key
        after all of them.
        """
        moves: list[tuple[int, Any, Any, int]] = []
        for idx, values in changes:
            for j, physical in values:
                if j in self.keys:
                    self._fresh()
                    column = self.schema.columns[j]
                    row = table.get(idx)
                    old = None if row is None else _key(row[column.name])
                    moves.append((j, old, _key(logical(column.type.code, physical)), idx))
        released = {(j, old) for j, old, _, _ in moves}
        given: dict[tuple[int, Any], int] = {}
        for j, _, new, idx in moves:
            if new is None:
                continue
            owner = self.keys[j].get(new)
            if owner is not None and owner != idx and (j, new) not in released:
                raise self._taken(j, new, _stored(owner), -1)
            if given.setdefault((j, new), idx) != idx:
                raise self._taken(j, new, f"the stored row with id {given[j, new]} would have it too", -1)
        return moves

    def moving(self, moves: Sequence[tuple[int, Any, Any, int]]) -> list[Call]:
        """Calls that carry out checked moves: every old key goes before any new one comes."""
        if moves:
            self._fresh()
        for j, old, new, _ in moves:
            self._note(self.keys[j], [old, new])
        gone = [partial(self.keys[j].pop, old, None) for j, old, _, _ in moves]
        return gone + [assign(self.keys[j], new, idx) for j, _, new, idx in moves if new is not None]

    def forgetting(self, rows: Iterable[Optional[dict[str, Any]]]) -> list[Call]:
        """Calls that drop the keys of deleted rows."""
        if self._unread is not None:
            return []  # they are read without those rows
        found: list[Call] = []
        names = [(keys, self.schema.columns[j].name) for j, keys in self.keys.items()]
        for row in rows:
            if row is not None:
                for keys, name in names:
                    key = _key(row[name])
                    self._note(keys, [key])
                    found.append(partial(keys.pop, key, None))
        return found

    def rebuilding(self, table: Table) -> list[Call]:
        """Calls that replace every row id by what ``compact()`` will make of it."""
        if self._unread is not None:
            return []  # they are read with the new ids
        if self._notes is not None and self._begun_unread is None:
            self._notes.append((self.keys, dict(self.keys), _REPLACED))
        return [partial(self.keys.update, {j: self._read(table, j) for j in self.keys})]

    def _read(self, table: Table, j: int) -> dict[Any, int]:
        # compact() numbers rows densely in order, so the place among the live rows will be the id
        values = enumerate(table.select_column(self.schema.columns[j].name))
        return {key: idx for idx, key in ((idx, _key(value)) for idx, value in values) if key is not None}

    def _taken(self, j: int, key: Any, where: str, position: int) -> UniqueError:
        name = self.schema.columns[j].name
        return UniqueError(
            f"UNIQUE constraint failed: {name}={shorten(key)}", column=name, row_index=position,
            hint=f"{where}: update that row, use upsert() with a primary key, or give another value",
        )  # fmt: skip


def _taking_back(keys: dict[Any, Any], key: Any, had: Any) -> Iterator[Any]:
    """What undoes one note, to be run in a step. Done twice it does no harm."""
    if had is _ENTERED:
        return map(keys.pop, key, repeat(None))
    if had is _REPLACED:
        return map(keys.update, [key])
    return map(keys.pop, [key], [None]) if had is None else map(keys.__setitem__, [key], [had])


def _stored(idx: int) -> str:
    return f"the stored row with id {idx} has it"


def _key(value: Any) -> Any:
    return None if value != value else value
