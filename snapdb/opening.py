"""Opening a database: what may be asked for, the table made or loaded, the file made where there is none."""

from __future__ import annotations

import errno
import operator
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from . import _ext
from .absent import Absent
from .columnar import ColumnarTable
from .errors import CorruptionError, LockedError, NotSupportedError, SchemaError, ValidationError, ValueTypeError
from .interrupts import Uninterrupted
from .names import check_name
from .rowstore import RowTable
from .scan import name_list
from .schema import Schema

if TYPE_CHECKING:
    from .cdc import CDCLog
    from .commits import Commit
    from .storage.crypto import Keys
    from .storage.store import Options
    from .tablefile import Opening, PinnedStore, Store, TableFile

__all__ = [
    "MEMORY", "REPAIR", "CopyKeys", "Opened", "Wanted", "check", "described", "file_name", "for_copy", "new_keys",
    "open_file", "open_memory", "open_snapshot", "opened_again", "opening_of", "possible_key", "same_key",
]  # fmt: skip

MEMORY = ":memory:"
REPAIR = "SnapDB.repair_file(path) saves what is whole; copy the file first"
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
    key: Any = None
    snapshot: Optional[str] = None
    cdc: Optional[CDCLog] = None


class Opened(NamedTuple):
    """A table and what is known of it; ``file`` is None in memory. ``description``: what a file keeps of the table
    besides its rows. ``keys``: in memory, what a copy of it is encrypted with. ``missed``: commits that the change log
    did not have.
    """

    table: Any
    schema: Schema
    storage_type: str
    page_size: int
    description: dict[str, Any]
    file: Optional[TableFile]
    keys: Optional[Keys] = None
    shown: Optional[str] = None  # the name of the snapshot that this is
    missed: Sequence[Commit] = ()


class CopyKeys:
    """What copies of a database are encrypted with, ``None`` for nothing; a handle shares it with the snapshots that it
    opens, so that their copies follow ``rekey()``.
    """

    keys: Optional[Keys] = None


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
    encryption_key: Any = None,
    snapshot: Any = None,
    cdc: Any = None,
    metrics: Any = None,
) -> Wanted:
    """Refuse what cannot be, before anything is made.

    ValidationError, SchemaError, NotSupportedError.
    """
    name = file_name(path)
    if durability not in DURABILITY:
        raise ValidationError(f"durability must be one of {', '.join(DURABILITY)}, not {durability!r}")
    seconds = _seconds(timeout)
    if cdc is not None:
        _check_log(cdc, read_only)
    if metrics is not None and not all(callable(getattr(metrics, name, None)) for name in ("inc", "add_latency")):
        raise ValueTypeError(
            f"metrics must have inc() and add_latency(), which {type(metrics).__name__} has not",
            hint="pass snapdb.Metrics()",
        )
    key = None if encryption_key is None else possible_key(encryption_key)
    if snapshot is not None:
        check_name(snapshot)
        if not read_only:
            raise ValidationError("snapshot= is for reading beside a writer: it needs read_only=True")
    if schema is not None and not isinstance(schema, Schema):
        raise SchemaError(f"schema must be a Schema, not {type(schema).__name__}, {_EXAMPLE}")
    if storage_type is not None and storage_type not in ENGINES:
        raise SchemaError(f"storage_type must be 'row' or 'columnar', not {storage_type!r}")
    size = _page_size(page_size)
    listed = {what: None if names is None else list(name_list(what, names)) for what, names in hints.items()}
    return Wanted(
        name, schema, size, storage_type, listed, durability, bool(read_only), seconds, bool(mmap), key, snapshot, cdc
    )


def _check_log(cdc: Any, read_only: Any) -> None:
    from .cdc import CDCLog  # few have one

    if not isinstance(cdc, CDCLog):
        raise ValueTypeError(f"cdc= takes a CDCLog, not {type(cdc).__name__}")
    if read_only:
        raise ValidationError("cdc= is told of what is written: it makes no sense with read_only=True")


def possible_key(key: Any) -> Any:
    """A key as it is kept until it is needed. ValidationError where it can be none, ImportError without the package."""
    from .storage import crypto  # a plain database needs none of it

    return crypto.possible(key)


def new_keys(key: Any) -> Keys:
    """What a new database, or a copy, is encrypted with. ValidationError, ImportError, NotSupportedError."""
    from .storage import crypto

    return crypto.new_keys(key)


def same_key(keys: Keys, key: Any) -> bool:
    """Whether these keys were made of this one. ValidationError where it can be none."""
    from .storage import crypto

    return crypto.same(keys, key)


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
    keys = None if wanted.key is None else new_keys(wanted.key)
    return Opened(table, wanted.schema, kind, wanted.page_size, told, None, keys)


# -- files -------------------------------------------------------------------------
def open_file(wanted: Wanted, take: Callable[[Opened], None]) -> float:
    """Open a file, or make it, and give it to ``take``; no signal comes between. Tries for ``timeout`` seconds to get
    the lock, and returns how many it waited. LockedError and what else ``SnapDB`` says.
    """
    begin = turn = time.monotonic()
    until = begin + wanted.timeout
    opening = _opening(wanted.path, wanted.durability, wanted.read_only, wanted.mmap, wanted.key, wanted.timeout)
    while True:
        try:
            with Uninterrupted():
                _open_once(opening, wanted, take)
            return turn - begin
        except LockedError:
            if time.monotonic() >= until:
                raise
        except CorruptionError as error:
            if error.hint is None:
                error.hint, error.args = REPAIR, (f"{error}; {REPAIR}",)
            raise
        time.sleep(min(_PATIENCE, max(0.0, until - time.monotonic())))
        turn = time.monotonic()


def for_copy(path: str, keys: Optional[Keys]) -> Opening:
    """How a copy is written, whatever the handle may do that it is a copy of; with keys an encrypted one."""
    return _opening(path, "normal", False, False, keys)


def opening_of(path: str, key: Any, patience: float) -> Opening:
    """How a file is opened that is there already, and that nobody has said more of."""
    return _opening(path, "normal", False, False, None if key is None else possible_key(key), patience)


def _opening(path: str, durability: str, read_only: bool, mmap: bool, key: Any, patience: float = 0.0) -> Opening:
    from .tablefile import Opening  # a table in memory needs none of it

    return Opening(path, _ext.backend(_ext.BACKEND).wal, durability, read_only, 0.0, mmap, key, patience)


def _open_once(opening: Opening, wanted: Wanted, take: Callable[[Opened], None]) -> None:
    """Make the file where there is none, take the lock, load. LockedError at once where it is taken."""
    from . import tablefile

    if tablefile.is_new(opening):
        if wanted.schema is None or wanted.read_only:
            missing = "to make one give a schema" + (" and no read_only" if wanted.read_only else "")
            raise FileNotFoundError(errno.ENOENT, f"no database there; {missing}, {_EXAMPLE}", wanted.path)
        options = _create(opening, wanted, wanted.schema)
    else:
        options = opening.options
    store: Union[Store, PinnedStore]
    if wanted.snapshot is None:
        store = tablefile.Store.open(opening.path, options)
    else:
        store = tablefile.PinnedStore.open(opening.path, wanted.snapshot, options)
    try:
        take(_load(store, wanted, wanted.cdc))
    except BaseException:
        store.abandon()
        raise


def _create(opening: Opening, wanted: Wanted, schema: Schema) -> Options:
    """Make the file; how it is opened then."""
    from .tablefile import Store

    options = opening.options
    kind = wanted.storage_type or "row"
    table = _make_table(schema, wanted.page_size, kind, wanted.hints)  # refuses what cannot be before any file is
    header = {**_describe(schema, wanted.page_size, kind, wanted.hints), **table.header()}
    if options.key is not None:
        options = options._replace(key=new_keys(options.key))  # derived once
    try:
        Store.create(opening.path, header, options)
    except FileExistsError:
        if not opening.layer.exists(opening.path):
            raise  # a log is in the way
        return opening.options  # somebody else was faster: open theirs
    return options


def opened_again(store: Store, claim: Any, cdc: Optional[CDCLog] = None) -> Opened:
    """A file as a store had it open that gave its lock away, which is ``claim``."""
    from . import tablefile

    again = tablefile.Store.open(store.path, store.options, claim)
    try:
        return _load(again, cdc=cdc)
    except BaseException:
        again.abandon()
        raise


def _load(store: Union[Store, PinnedStore], wanted: Optional[Wanted] = None, cdc: Optional[CDCLog] = None) -> Opened:
    """Build the table that the file describes."""
    from . import tablefile

    made = described(store.header, store.path, wanted)
    table = made.table
    file = tablefile.file_of(store, table, made.description)
    try:
        missed = file.load(cdc)
    except BaseException:
        table.release(Absent(f"{store.path} could not be opened"))
        raise
    return made._replace(file=file, shown=None if wanted is None else wanted.snapshot, missed=missed)


def open_snapshot(source: Any, path: str) -> Opened:
    """A table of its own that begins as a snapshot, which is a ``SnapshotSource``. CorruptionError."""
    from .tablefile import stored_generations

    made = described(source.header, path)
    made.table.generation, made.table.last_generation = stored_generations(source.header, path)
    made.table.adopt(source.header, source)
    return made


def described(header: Mapping[str, Any], path: str, wanted: Optional[Wanted] = None) -> Opened:
    """An empty table as the header of a file describes it, as far as it is not to be as somebody wants it."""
    from . import tablefile

    asked = (None, None) if wanted is None else (wanted.schema, wanted.storage_type)
    schema = tablefile.check_schema(header, path, *asked)
    hints = tablefile.stored_options(header, path, schema)
    if wanted is not None:
        hints.update({name: names for name, names in wanted.hints.items() if names is not None})
    size, kind = tablefile.stored_page_size(header, path), header["storage_type"]
    table = _make_table(schema, size, kind, hints)
    told = _describe(schema, size, kind, hints)
    told["indexes"] = tablefile.stored_indexes(header, path, schema)
    return Opened(table, schema, kind, size, told, None)
