"""Unique columns and the primary key, checked before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import logical
from .errors import UniqueError, shorten
from .step import Call, assign

if TYPE_CHECKING:
    from .schema import Schema
    from .table import Change, Staged, Table

__all__ = ["UniqueKeys"]

_ROW_ID_BYTES = sys.getsizeof(2**20)
Keys = dict[int, dict[Any, int]]  # column index -> key -> row id


class UniqueKeys:
    """The values of a table's unique columns and the row each is in. Nulls and NaN never collide."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.keys: Keys = {j: {} for j, column in enumerate(schema.columns) if column.unique}

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, j: int, physical: Any) -> Optional[int]:
        """The row that has this physical value in unique column j."""
        key = _key(logical(self.schema.columns[j].type.code, physical))
        return None if key is None else self.keys[j].get(key)

    def check_row(self, values: Sequence[Any]) -> dict[int, Any]:
        """The keys of a new row of physical values; UniqueError where one is taken."""
        keys = {j: _key(logical(self.schema.columns[j].type.code, values[j])) for j in self.keys}
        for j, key in keys.items():
            if key is not None and key in self.keys[j]:
                raise self._taken(j, key, _stored(self.keys[j][key]), -1)
        return keys

    # What follows prepares calls for the one step in which the table and its keys change.

    def entering(self, idx: int, keys: dict[int, Any]) -> list[Call]:
        """Calls that note the keys of row ``idx``."""
        return [assign(self.keys[j], key, idx) for j, key in keys.items() if key is not None]

    def leave(self, idx: int, keys: dict[int, Any]) -> None:
        """Forget what ``entering`` noted."""
        for j, key in keys.items():
            if self.keys[j].get(key) == idx:
                del self.keys[j][key]

    def memory_usage(self) -> int:
        """Bytes that the keys hold: the dicts, every key, and the row ids."""
        return sum(
            sys.getsizeof(keys) + sum(map(sys.getsizeof, keys)) + _ROW_ID_BYTES * len(keys)
            for keys in self.keys.values()
        )

    def check_batch(self, staged: Staged) -> dict[int, list[Any]]:
        """The keys of staged rows; UniqueError names the first row that repeats one, in the table or in the batch."""
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
        return [
            partial(self.keys[j].update, {key: first + at for at, key in enumerate(keys) if key is not None})
            for j, keys in columns.items()
        ]

    def check_changes(self, table: Table, changes: Iterable[Change]) -> list[tuple[int, Any, Any, int]]:
        """(column, old key, new key, row id) of planned updates; UniqueError where the table would repeat a key
        after all of them.
        """
        moves: list[tuple[int, Any, Any, int]] = []
        for idx, values in changes:
            for j, physical in values:
                if j in self.keys:
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
        gone = [partial(self.keys[j].pop, old, None) for j, old, _, _ in moves]
        return gone + [assign(self.keys[j], new, idx) for j, _, new, idx in moves if new is not None]

    def forgetting(self, rows: Iterable[Optional[dict[str, Any]]]) -> list[Call]:
        """Calls that drop the keys of deleted rows."""
        names = [(keys, self.schema.columns[j].name) for j, keys in self.keys.items()]
        return [partial(keys.pop, _key(row[name]), None) for row in rows if row is not None for keys, name in names]

    def rebuilding(self, table: Table) -> list[Call]:
        """Calls that replace every row id by what ``compact()`` will make of it."""
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


def _stored(idx: int) -> str:
    return f"the stored row with id {idx} has it"


def _key(value: Any) -> Any:
    return None if value != value else value
