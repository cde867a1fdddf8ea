"""A table's file: made or opened, replayed, checkpointed, copied, checked, closed. Between ``core`` and ``storage``."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast

from .errors import CorruptionError, SchemaError, SchemaMismatchError, StorageError
from .filejournal import BULK_SINCE_CHECKPOINT, FileJournal, ReadOnlyJournal
from .interrupts import Uninterrupted
from .pieces import Entry, Piece
from .records import RESTORE, Replay
from .schema import Schema
from .step import carry_out, insist
from .storage.creation import check_beside
from .storage.files import layer_for
from .storage.fsck import check
from .storage.layer import failure
from .storage.pinned import PinnedStore
from .storage.store import Options, Store
from .storage.wal import refused

if TYPE_CHECKING:
    from .cdc import CDCLog
    from .change_file import ChangeFile
    from .commits import Commit
    from .journal import Journal
    from .pieces import Source
    from .step import Call
    from .storage.store import Frame
    from .table import Staged, Table

__all__ = [
    "HINTS", "Opening", "PinnedFile", "PinnedStore", "Store", "TableFile", "check_schema", "copy_table", "file_of",
    "is_new", "stored_generations", "stored_options", "stored_page_size",
]  # fmt: skip

COPIES = 3  # that compact() writes at most of the rows once they are compact, to make the file short
BULK = 1 << 20  # bytes of a batch that goes to extents of its own rather than through the log
_GENERATIONS = ("id_generation", "last_id_generation")
HINTS = ("dict_columns", "delta_columns", "for_columns")


class Opening:
    """How a file is to be opened."""

    def __init__(
        self,
        path: str,
        kernel: Any,
        durability: str,
        read_only: bool,
        timeout: float,
        mmap: bool,
        key: Any = None,
        patience: float = 0.0,
    ) -> None:
        self.layer = layer_for(path)
        self.path = self.layer.resolve(path)
        self.options = Options(self.layer, kernel, durability, read_only, timeout, mmap, key=key, patience=patience)


def is_new(opening: Opening) -> bool:
    """Whether there is no database at the path yet: no file, or an empty one with nothing beside it."""
    layer, path = opening.layer, opening.path
    if not layer.exists(path):
        return True
    return layer.size(path) == 0 and not any(layer.exists(f"{path}-wal{parity}") for parity in (0, 1))


def check_schema(header: Mapping[str, Any], path: str, schema: Optional[Schema], storage_type: Optional[str]) -> Schema:
    """The stored schema; SchemaMismatchError where another one or another engine is asked for."""
    stored = _stored_schema(header, path)
    if schema is not None and schema != stored:
        raise SchemaMismatchError(
            f"{path}: the schema given differs from the stored one: {_difference(stored, schema)}",
            hint="open it without a schema to use the stored one",
        )
    if storage_type is not None and storage_type != header["storage_type"]:
        raise SchemaMismatchError(
            f"{path} is stored by {header['storage_type']}, not {storage_type!r}",
            hint="open it without storage_type to use what is stored",
        )
    return stored


def _stored_schema(header: Mapping[str, Any], path: str) -> Schema:
    try:
        if header["storage_type"] not in ("row", "columnar"):
            raise SchemaError(f"unknown storage type {header['storage_type']!r}")
        return Schema.from_json(header["schema"])
    except (SchemaError, KeyError, TypeError) as error:
        raise CorruptionError(f"{path}: the stored table description cannot be read: {error}", path=path) from error


def _difference(stored: Schema, given: Schema) -> str:
    for old, new in zip(stored, given):
        if old != new:
            return f"stored {old!r}, given {new!r}"
    return f"stored {len(stored)} columns, given {len(given)}"


def stored_options(header: Mapping[str, Any], path: str, schema: Schema) -> dict[str, Any]:
    """The hints that the table was made with."""
    options = header.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(names, list) for names in options.values()):
        raise CorruptionError(f"{path}: the stored hints cannot be read", path=path)
    kept = {name: names for name, names in options.items() if name in HINTS}
    if not all(name in schema.names for names in kept.values() for name in names):
        raise CorruptionError(f"{path}: the stored hints name columns that are not there", path=path)
    return kept


def stored_indexes(header: Mapping[str, Any], path: str, schema: Schema) -> dict[str, list[str]]:
    """The columns that have an index, by kind."""
    found = header.get("indexes", {})
    if not isinstance(found, dict) or not all(k in ("hash", "range") and isinstance(n, list) for k, n in found.items()):
        raise CorruptionError(f"{path}: the stored indexes cannot be read", path=path)
    if not all(name in schema.names for names in found.values() for name in names):
        raise CorruptionError(f"{path}: the stored indexes name columns that are not there", path=path)
    return found


def stored_page_size(header: Mapping[str, Any], path: str) -> int:
    """The page size that the table was made with."""
    size = header.get("page_size")
    if not isinstance(size, int) or isinstance(size, bool):
        raise CorruptionError(f"{path}: the stored page size is {size!r}", path=path)
    return size


def stored_generations(header: Mapping[str, Any], path: str) -> tuple[int, int]:
    """The generation of the row ids, and the highest that there was. CorruptionError."""
    generation = header.get(_GENERATIONS[0], 0)
    last = header.get(_GENERATIONS[1], generation)
    if type(generation) is not int or type(last) is not int or not 0 <= generation <= last:
        raise CorruptionError(f"{path}: the stored id generations are {generation!r}, {last!r}", path=path)
    return generation, last


class TableFile:
    """An open file and the table that lives in it."""

    def __init__(self, store: Store, table: Table, description: Mapping[str, Any]) -> None:
        self.store = store
        self.table = table
        self._description = dict(description)  # what of the header is not the table's counters
        self.recorded: list[Callable[[], None]] = []  # to be called before a checkpoint: what was committed is recorded
        self._log: Optional[CDCLog] = None  # where events are written, into a file
        self._logged = store.header.get("changes")  # how far a log went, whichever it was

    def journal(self) -> Journal:
        """What the table's writes are told to."""
        if self.store.read_only:
            return ReadOnlyJournal(self.store.path)
        return FileJournal(self.store, self.table, self.table.kernels.wal.LARGEST - self.store.overhead)

    def load(self, log: Optional[CDCLog] = None) -> list[Commit]:
        """Take in what the file and its log say; a log that was left over is folded in at once. ``log``: a change log
        that is to agree with it; the commits that it did not have.
        """
        store, table = self.store, self.table
        table.generation, table.last_generation = stored_generations(store.header, store.path)
        table.adopt(store.header, store)
        replay = Replay(table, store.path, self._replay_history)
        missed: list[Commit] = []
        if log is None or log.file is None:
            replay.run(store.replay)
        else:
            self._resume(log.file)
            replay.run(store.replay, lambda commit: missed.append(commit) if log.confirm(commit) else None)
            log.file.settle()
            self._log = log
        store.replay = []
        if not store.read_only:
            self._fold_in()
        return missed

    def _resume(self, file: ChangeFile) -> None:
        """Have a change log go on where the file does, and have the gap named where it cannot."""
        from .change_file import read_place  # few have one

        place, lsn = read_place(self._logged, self.store.path), self.store.root.lsn
        try:
            if not file.resume(place, lsn):
                file.begin(lsn)
            elif place is not None and place.lsn != lsn:
                file.gap(place.lsn, lsn)
        except OSError as error:
            raise refused(error, f"the change log {file.path} cannot be written") from error

    def _fold_in(self) -> None:
        store = self.store
        if store.unclean or self._is_other_log():
            try:
                self.checkpoint()
            except StorageError as error:
                hint = "nothing is lost: open it with read_only=True to read it, or again when there is room"
                what = f"{store.path} was not closed, and its log cannot be folded in"
                raise refused(error, what, hint) from error

    def _replay_history(self, frame: Frame) -> None:
        store = self.store
        store.replay_history(frame)
        if frame.kind == RESTORE:
            carry_out((), self._replacing(store.header, store))

    def restore(self, journal: Journal, serial: int) -> None:
        """Have the table be what a snapshot shows. The caller has the table to itself. CorruptionError, StorageError:
        nothing happened.
        """
        store = self.store
        restoring = store.prepare_restore(serial)
        source = store.snapshot_source(restoring.record)
        try:
            found = self._replacing(source.header, source)
        finally:
            source.close()
        with journal.restored(restoring) as step:
            carry_out(step.first, [*step.then, *found])

    def _replacing(self, header: Mapping[str, Any], source: Source) -> list[Call]:
        """The calls that make the table that of another header and other entries."""
        table = self.table
        generation, last = stored_generations(header, self.store.path)
        return [
            *table.replacing(header, source, self.store),
            partial(setattr, table, "last_generation", max(last, table.last_generation, table.generation)),
            partial(setattr, table, "generation", generation),
        ]

    def describe(self, description: Mapping[str, Any]) -> None:
        """What the header says besides the table's counters, from the next checkpoint on."""
        self._description = dict(description)

    def _is_other_log(self) -> bool:
        """Whether the file does not know the change log: after a crash it would not be gone on with."""
        file = None if self._log is None else self._log.file
        return file is not None and self._logged != {**(self._logged or {}), "log": file.place(0).log}

    def header(self) -> dict[str, Any]:
        """What the catalog root says of the table."""
        table = self.table
        generations = (table.generation, max(table.generation, table.last_generation))
        logged = {} if self._logged is None else {"changes": self._logged}
        return {**self._description, **table.header(), **dict(zip(_GENERATIONS, generations)), **logged}

    def _sync_log(self) -> None:
        """The change log is on stable storage as far as the checkpoint goes that follows. StorageError."""
        for sync in self.recorded:
            sync()
        file = None if self._log is None else self._log.file
        if file is not None:
            file.sync()
            self._logged = file.place(self.store.log.lsn)._asdict()

    def checkpoint(self, final: bool = False) -> None:
        """Fold the log into the file; ``final``: for the last time. The caller has the table to itself."""
        store = self.store
        before, told = store.root, False
        with Uninterrupted():
            self._sync_log()
            try:
                stored = store.checkpoint(self.header(), self.table.changes(final))
                insist(partial(self.table.saved, stored))
                told = True
            except BaseException:
                # the file has the entries and the table does not know their places: it would go on with places that
                # are given back
                if not told and store.root is not before and store.failed is None:
                    store.poison(InterruptedError(errno.EINTR, "interrupted at the end of a checkpoint"))
                raise

    def is_bulk(self, staged: Staged) -> bool:
        """Whether a batch is large enough to go to extents of its own."""
        return sum(buffer.nbytes for buffer in staged.buffers) > BULK

    def extend(self, journal: Journal, staged: Staged, then: Sequence[Call]) -> None:
        """Append a large batch: its entries are written to free space first, then one frame says where they are."""
        with Uninterrupted():
            self._extend(journal, staged, then)

    def _extend(self, journal: Journal, staged: Staged, then: Sequence[Call]) -> None:
        table, store = self.table, self.store
        bulk = table.prepare(staged)
        stored: list[tuple[int, Entry]] = []
        try:
            for key, entry in bulk.entries:
                stored.append((key, store.write(key, entry)))
            with journal.bulk(bulk.first, bulk.rows, stored) as step:
                table.publish(bulk, stored, [*then, *step.then], step.first)
        except BaseException:
            if table.rows == bulk.first:
                for _, entry in stored:
                    store.forget(entry)
            raise

    def bytes_on_disk(self) -> int:
        """Bytes of the file and its log."""
        figures = self.store.statistics()
        return int(figures["file_bytes"]) + int(figures["wal_bytes"])

    def give_back(self) -> None:
        """After a compaction: fold it in and cut the file where most of it is free. StorageError."""
        self.checkpoint()
        self.store.shrink()
        for _ in range(COPIES):
            figures = self.store.statistics()
            if figures["free_bytes"] * 4 <= figures["file_bytes"]:
                break
            # the new copy went behind the old one: a second copy has room in front of it, and where that went to a
            # small gap behind a large one, a third. The table itself must write it, for it notes where each piece is;
            # compact, it is the same rows again and nothing for the log
            self.table.compact()
            self.checkpoint()
            if not self.store.shrink():
                break

    def wants_checkpoint(self) -> bool:
        """Whether large batches have made one due."""
        return self.store.bulk_bytes >= BULK_SINCE_CHECKPOINT

    def close(self) -> None:
        """A last checkpoint where one is needed, then the clean end; where the disk is full the log stays beside the
        file and the next opening replays it.
        """
        store = self.store
        if store.failed is not None or store.read_only:
            store.abandon()
            return
        try:
            if store.started:
                self.checkpoint(final=True)
        except StorageError as error:
            import logging  # not at the top: it would be a third of the cost of importing SnapDB

            logging.getLogger("snapdb").warning("%s: closed without a checkpoint: %s", store.path, error)
            store.close(clean=False)
        except BaseException:
            store.abandon()
            raise
        else:
            store.close()

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Every entry of the last checkpoint with its data."""
        read = self.store.read
        for key, entry in self.store.items():
            pieces = [Piece(p.tag, p.meta, read(p.ref)) for p in entry.pieces if p.ref is not None]
            yield key, Entry(entry.meta, pieces)

    def check(self, full: bool) -> list[dict[str, Any]]:
        """What is wrong with the file, one dict each."""
        return check(self.store, full)


class PinnedFile(TableFile):
    """A snapshot that is read beside whoever writes to the file."""

    def __init__(self, store: PinnedStore, table: Table, description: Mapping[str, Any]) -> None:
        super().__init__(cast(Store, store), table, description)  # which has what is needed for reading
        self._pinned = store

    def check(self, full: bool) -> list[dict[str, Any]]:
        """What is wrong with the snapshot, one dict each."""
        return self._pinned.check(full)


def file_of(store: Union[Store, PinnedStore], table: Table, description: Mapping[str, Any]) -> TableFile:
    """The file of a store that was opened, or of a snapshot."""
    if isinstance(store, PinnedStore):
        return PinnedFile(store, table, description)
    return TableFile(store, table, description)


def copy_table(opening: Opening, header: dict[str, Any], entries: Iterator[tuple[int, Entry]]) -> None:
    """Write a database of its own at a path where nothing is; FileExistsError where something is, or its log."""
    layer, path = opening.layer, opening.path
    if layer.exists(path):
        raise failure(errno.EEXIST, path, "Something is there already; remove it or choose another name")
    check_beside(layer, path)
    temporary = f"{path}.tmp-{secrets.token_hex(4)}"
    try:
        Store.create(temporary, header, opening.options)
        store = Store.open(temporary, opening.options)
        try:
            store.checkpoint(header, entries)
            store.close()
        except BaseException:
            store.abandon()
            raise
        layer.rename(temporary, path, False)
        layer.sync_dir(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise type(error)(error.errno, error.strerror, path) from error  # nobody has heard of the other name
    finally:
        for name in (temporary, f"{temporary}-wal0", f"{temporary}-wal1"):
            if layer.exists(name):
                layer.unlink(name)
