"""Opening a database: what may be asked for, the table made or loaded, the file made where there is none."""

from __future__ import annotations

import errno
import operator
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import _ext
from .absent import Absent
from .columnar import ColumnarTable
from .errors import LockedError, NotSupportedError, SchemaError, ValidationError, ValueTypeError
from .interrupts import Uninterrupted
from .rowstore import RowTable
from .scan import name_list
from .schema import Schema

if TYPE_CHECKING:
    from .tablefile import Opening, Store, TableFile

__all__ = ["MEMORY", "Opened", "Wanted", "check", "file_name", "for_copy", "open_file", "open_memory"]

MEMORY = ":memory:"
ENGINES = ("row", "columnar")
DURABILITY = ("full", "normal", "none")
_PATIENCE = 0.05  # seconds between two tries to get a lock
_EXAMPLE = "such as Schema([ColumnDef('id', 'i64'), ColumnDef('name', 'str')])"

Hints = dict[str, Any]  # by the name of the argument a list of columns; None: not given


class Wanted(NamedTuple):
    """What is asked for, checked. ``schema`` and ``storage_type`` are None where the file is to say; seconds."""

    path: str
    schema: Optional[Schema]
    page_size: int
    storage_type: Optional[str]
    hints: Hints
    durability: str
    read_only: bool
    timeout: float
    mmap: bool


class Opened(NamedTuple):
    """A table and what is known of it; ``file`` is None in memory. ``description``: what a file keeps of the table
    besides its rows.
    """

    table: Any
    schema: Schema
    storage_type: str
    page_size: int
    description: dict[str, Any]
    file: Optional[TableFile]


# -- what may be asked for -------------------------------------------------------
def check(
    path: Any,
    schema: Any,
    page_size: Any,
    storage_type: Any,
    hints: Mapping[str, Optional[Iterable[str]]],
    durability: Any,
    read_only: Any,
    timeout: Any,
    mmap: Any,
    **later: Any,
) -> Wanted:
    """Refuse what cannot be, and by name what this version does not have, before anything is made.

    ValidationError, SchemaError, NotSupportedError.
    """
    name = file_name(path)
    if durability not in DURABILITY:
        raise ValidationError(f"durability must be one of {', '.join(DURABILITY)}, not {durability!r}")
    seconds = _seconds(timeout)
    for what, value in later.items():
        if value is not None and value is not False:  # an empty key is not the same as none
            raise NotSupportedError(f"{what}= needs a later version of SnapDB")
    if schema is not None and not isinstance(schema, Schema):
        raise SchemaError(f"schema must be a Schema, not {type(schema).__name__}, {_EXAMPLE}")
    if storage_type is not None and storage_type not in ENGINES:
        raise SchemaError(f"storage_type must be 'row' or 'columnar', not {storage_type!r}")
    size = _page_size(page_size)
    listed = {what: None if names is None else list(name_list(what, names)) for what, names in hints.items()}
    return Wanted(name, schema, size, storage_type, listed, durability, bool(read_only), seconds, bool(mmap))


def file_name(path: Any) -> str:
    """A path as a str. ValidationError where it can name no file."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueTypeError(f"path must be a str, a Path or {MEMORY!r}, not {type(path).__name__}")
    name = os.fsdecode(os.fspath(path))
    if not name or "\0" in name:
        raise ValidationError(f"path must name a file, not {path!r}")
    if name[-1] in (os.sep, os.altsep):
        raise ValidationError(f"path must name a file, not a folder: {path!r}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValidationError(f"path cannot be the name of a file: {error}") from error
    return name


def _seconds(timeout: Any) -> float:
    try:
        seconds = float(timeout) if isinstance(timeout, (int, float)) else -1.0
    except OverflowError:
        seconds = -1.0
    if not seconds >= 0:  # NaN is not
        raise ValidationError(f"timeout is a number of seconds, 0 or more, not {timeout!r}")
    return seconds


def _page_size(given: Any) -> int:
    """The third argument by position is often meant for the engine; the row engine checks the number."""
    if isinstance(given, str) and given in ENGINES:
        raise SchemaError(f"page_size must be an int, not {given!r}; did you mean storage_type={given!r}?")
    if not isinstance(given, bool):
        try:
            return operator.index(given)
        except TypeError:
            pass
    raise SchemaError(f"page_size must be an int, not {given!r}")


# -- tables ------------------------------------------------------------------------
def _make_table(schema: Schema, page_size: int, storage_type: str, hints: Hints) -> Any:
    """An empty table of the engine asked for."""
    if storage_type == "columnar":
        return ColumnarTable(MEMORY, schema, **hints)
    for names in hints.values():
        for name in names or ():
            schema.index(name)  # hints have no effect on rows, but a misspelt one is still a mistake
    return RowTable(schema, page_size)


def _describe(schema: Schema, page_size: int, storage_type: str, hints: Hints) -> dict[str, Any]:
    return {
        "storage_type": storage_type,
        "page_size": page_size,
        "schema": schema.to_json(),
        "options": {name: names for name, names in hints.items() if names is not None},
    }


def open_memory(wanted: Wanted) -> Opened:
    """An empty table in memory. SchemaError, NotSupportedError."""
    if wanted.schema is None:
        raise SchemaError(f"a new database needs a schema, {_EXAMPLE}")
    if wanted.read_only:
        raise NotSupportedError("read_only= needs a database file: a table in memory starts empty")
    kind = wanted.storage_type or "row"
    table = _make_table(wanted.schema, wanted.page_size, kind, wanted.hints)
    told = _describe(wanted.schema, wanted.page_size, kind, wanted.hints)
    return Opened(table, wanted.schema, kind, wanted.page_size, told, None)


# -- files -------------------------------------------------------------------------
def open_file(wanted: Wanted, take: Callable[[Opened], None]) -> None:
    """Open a file, or make it, and give it to ``take``; no signal comes between. Tries for ``timeout`` seconds to get
    the lock. LockedError and what else ``SnapDB`` says.
    """
    until = time.monotonic() + wanted.timeout
    opening = _opening(wanted.path, wanted.durability, wanted.read_only, wanted.mmap)
    while True:
        try:
            with Uninterrupted():
                _open_once(opening, wanted, take)
            return
        except LockedError:
            if time.monotonic() >= until:
                raise
        time.sleep(min(_PATIENCE, max(0.0, until - time.monotonic())))


def for_copy(path: str) -> Opening:
    """How a copy is written, whatever the handle may do that it is a copy of."""
    return _opening(path, "normal", False, False)


def _opening(path: str, durability: str, read_only: bool, mmap: bool) -> Opening:
    from .tablefile import Opening  # a table in memory needs none of it

    return Opening(path, _ext.backend(_ext.BACKEND).wal, durability, read_only, 0.0, mmap)


def _open_once(opening: Opening, wanted: Wanted, take: Callable[[Opened], None]) -> None:
    """Make the file where there is none, take the lock, load. LockedError at once where it is taken."""
    from . import tablefile

    if tablefile.is_new(opening):
        if wanted.schema is None or wanted.read_only:
            missing = "to make one give a schema" + (" and no read_only" if wanted.read_only else "")
            raise FileNotFoundError(errno.ENOENT, f"no database there; {missing}, {_EXAMPLE}", wanted.path)
        _create(opening, wanted, wanted.schema)
    store = tablefile.Store.open(opening.path, opening.options)
    try:
        take(_load(store, wanted))
    except BaseException:
        store.abandon()
        raise


def _create(opening: Opening, wanted: Wanted, schema: Schema) -> None:
    from .tablefile import Store

    kind = wanted.storage_type or "row"
    table = _make_table(schema, wanted.page_size, kind, wanted.hints)  # refuses what cannot be before any file is
    header = {**_describe(schema, wanted.page_size, kind, wanted.hints), **table.header()}
    try:
        Store.create(opening.path, header, opening.options)
    except FileExistsError:
        if not opening.layer.exists(opening.path):
            raise  # a log is in the way
        # somebody else was faster: open theirs


def _load(store: Store, wanted: Wanted) -> Opened:
    """Build the table that the file describes."""
    from . import tablefile

    header = store.header
    schema = tablefile.check_schema(header, store.path, wanted.schema, wanted.storage_type)
    kept = tablefile.stored_options(header, store.path)
    hints = {name: kept.get(name) if names is None else names for name, names in wanted.hints.items()}
    size, kind = tablefile.stored_page_size(header, store.path), header["storage_type"]
    table = _make_table(schema, size, kind, hints)
    told = _describe(schema, size, kind, hints)
    file = tablefile.TableFile(store, table, told)
    try:
        file.load()
    except BaseException:
        table.release(Absent(f"{store.path} could not be opened"))
        raise
    return Opened(table, schema, kind, size, told, file)
