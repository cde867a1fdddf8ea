"""Documents: dicts of any shape in a table of two columns, an id and the document's bytes.

Ids are given once, rise with every insert and are never given again: where the newest document is deleted its row
stays, without a document, until there is a newer one. Rows with negative ids are the store's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress, islice
from typing import Any, Optional, Union

from . import _ext
from .cdc import CDCLog
from .commits import DELETE, INSERT, UPDATE
from .core import SnapDB
from .document_asked import culprit, directions, projection, seed, shown, window
from .document_filter import Filter, make_filter
from .document_index import FieldIndex, equalities
from .document_json import Progress, read_json, write_json
from .document_paths import parts_of
from .document_scan import question_of
from .document_sort import sort_key
from .document_update import make_update
from .errors import ClosedError, NotFoundError, SnapDBError, ValidationError, ValueTypeError, shorten
from .query import query
from .schema import ColumnDef, Schema

__all__ = ["DocumentStore"]

Document = dict[str, Any]
SCHEMA = Schema([ColumnDef("_id", "i64", primary_key=True), ColumnDef("doc", "binary", not_null=False)])
_DOCUMENTS = [("doc", "not_null", None), ("_id", "gte", 0)]
OWN = -1  # the row that says which fields have an index
#: documents that an index names are read one by one where they are at most one in so many
WORTH = 8
#: so many are read one by one whatever there is
FEW = 12
_PLAIN = (str, int, bool, bytes)  # values that equal nothing but themselves, and the numbers that are equal


class DocumentStore:
    """Documents in a file, or with ``":memory:"`` in memory. A context manager.

    A document is a dict with names of ``str``; its values are what JSON has, and bytes, datetime, date, Decimal and
    UUID, nested up to 200 deep. It comes back as it was stored, tuples as lists. ``max_field_len`` is accepted and cuts
    nothing. The other options are those of ``SnapDB``: ``durability``, ``encryption_key``, ``read_only``, ``timeout``.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], max_field_len: int = 256, **options: Any) -> None:
        unknown = set(options) - {"durability", "encryption_key", "read_only", "timeout", "cdc", "metrics"}
        if unknown:
            raise TypeError(f"DocumentStore() has no option {sorted(unknown)[0]!r}")
        self._lock = threading.RLock()
        self._kernels = _ext.backend(_ext.BACKEND)
        log = options.get("cdc")
        if isinstance(log, CDCLog):
            log.shape = self._event  # before it is told of what it has missed
        self._db = SnapDB(path, SCHEMA, storage_type="row", **options)
        self._shift = 0  # how far ids are ahead of row ids, as far as is known
        self._next: Optional[int] = None  # the next id; None: not looked for yet
        self._fields: Optional[dict[str, Optional[FieldIndex]]] = None  # indexes; None: not looked for, or not made yet
        self._inside = False  # whether the thread that has the lock is in a transaction

    def _event(self, change: dict[str, Any]) -> Optional[dict[str, Any]]:
        """A change of a row as one of a document; None: it is of the store's own, or of none."""
        there = change["row"] or change["old"]
        if there is None or there["_id"] < 0:
            return None
        row, old = (
            None if one is None or one["doc"] is None else self._decode(one["doc"])
            for one in (change["row"], change["old"])
        )
        if row is None and old is None:
            return None  # the row of a document that is gone
        op = INSERT if old is None else DELETE if row is None else UPDATE
        return {"op": op, "idx": there["_id"], "row": row, "old": old}

    # -- lifecycle -------------------------------------------------------------

    def close(self) -> None:
        """Close the store; again it does nothing."""
        self._db.close()

    def __enter__(self) -> DocumentStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        path = str(self._db.path)
        try:
            return f"DocumentStore({path!r}, documents={len(self)}, indexes={self.indexes!r})"
        except SnapDBError as error:  # it is closed, or its file damaged
            return f"DocumentStore({path!r}, {'closed' if isinstance(error, ClosedError) else type(error).__name__})"

    def _repr_html_(self) -> str:
        """The first documents, for notebooks."""
        from .html_table import SHOWN, html_of, html_table  # notebooks alone ask

        def table() -> str:
            first = [(idx, [document]) for idx, document in islice(self._documents(), SHOWN)]
            return html_table(repr(self), [("document", "")], first, len(self))

        return html_of(self, table)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """``with store.transaction():`` everything in the block happens, or with an exception nothing of it. Other
        threads wait meanwhile. TransactionError inside of another one.
        """
        with self._lock, self._step():
            yield

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Several writes as one; within a transaction a part of it."""
        try:
            with self._db.transaction():
                self._inside = True
                try:
                    yield
                finally:
                    self._inside = False
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """What is known of the rows may not be so any more."""
        self._next = self._fields = None

    # -- rows ----------------------------------------------------------------

    def _encode(self, document: Any, position: int = -1) -> bytes:
        if type(document) is not dict and not isinstance(document, Mapping):
            what = f"a document is a dict, not {type(document).__name__} {shorten(document)}"
            raise ValueTypeError(what, row_index=position)
        try:
            return bytes(self._kernels.doc.encode(document if isinstance(document, dict) else dict(document)))
        except (TypeError, ValueError) as error:
            where = culprit(document, self._kernels.doc.encode)
            raise ValidationError(f"a document cannot be stored: {error}{where}", row_index=position) from None

    def _encoded(self, documents: list[Any]) -> list[bytes]:
        encode = self._kernels.doc.encode
        if set(map(type, documents)) == {dict}:
            try:
                return list(map(encode, documents))
            except (TypeError, ValueError):
                pass  # the loop below says of which document
        return [self._encode(document, at) for at, document in enumerate(documents)]

    def _decode(self, data: bytes) -> Document:
        found: Document = self._kernels.doc.decode(data)
        return found

    def _row(self, idx: Any) -> Optional[tuple[int, Document]]:
        """The row of a document, and the document; None where there is none."""
        if not isinstance(idx, int) or isinstance(idx, bool) or not 0 <= idx < 2**63:
            return None
        place = idx - self._shift
        row = self._db.get(place) if place >= 0 else None
        if row is None or row["_id"] != idx:
            found = query(self._db).filter(_id=idx).first()
            if found is None:
                return None
            place, row = found
            self._shift = idx - place
        return None if row["doc"] is None else (place, self._decode(row["doc"]))

    def _known(self, idx: Any) -> tuple[int, Document]:
        found = self._row(idx)
        if found is None:
            raise NotFoundError(f"there is no document {shorten(idx)}")
        return found

    def _new_id(self) -> int:
        if self._next is None:
            newest = self._db.aggregate("_id", "max")
            self._next = 0 if newest is None else max(newest + 1, 0)
        return self._next

    def _documents(self) -> Iterator[tuple[int, Document]]:
        """(id, document) of all, as of now."""
        decode = self._kernels.doc.decode
        for _, row in self._db:
            if row["doc"] is not None and row["_id"] >= 0:
                yield row["_id"], decode(row["doc"])

    # -- single documents --------------------------------------------------------

    def insert(self, doc: Mapping[str, Any]) -> int:
        """Store a document; its id. ValidationError (a ValueError) for a value that cannot be stored, with its path."""
        data = self._encode(doc)
        with self._lock:
            idx = self._new_id()
            self._db.insert({"_id": idx, "doc": data})
            self._next = idx + 1
            for index in self._made():
                index.add(idx, doc)
        return idx

    def insert_many(self, docs: Iterable[Mapping[str, Any]]) -> list[int]:
        """Store documents, all or none; their ids."""
        given = list(docs)
        if len(given) < 2:
            return [self.insert(document) for document in given]
        encoded = self._encoded(given)
        with self._lock:
            first = self._new_id()
            ids = list(range(first, first + len(given)))
            self._db.insert_columns({"_id": ids, "doc": encoded})
            self._next = first + len(given)
            for index in self._made():
                index.fill(zip(ids, given))
        return ids

    def get(self, idx: int) -> Optional[Document]:
        """The document with this id, None where there is none."""
        with self._lock:
            found = self._row(idx)
        return None if found is None else found[1]

    def update(self, idx: int, doc: Mapping[str, Any]) -> None:
        """Put a document in the place of another one. NotFoundError (a KeyError)."""
        data = self._encode(doc)
        with self._lock:
            place, old = self._known(idx)
            self._replace(place, idx, old, doc, data)

    def _replace(self, place: int, idx: int, old: Document, new: Mapping[str, Any], data: bytes) -> None:
        self._db.update(place, {"doc": data})
        for index in self._made():
            index.remove(idx, old)
            index.add(idx, new)

    def delete(self, idx: int) -> None:
        """Delete a document. NotFoundError (a KeyError)."""
        with self._lock:
            place, old = self._known(idx)
            self._remove(place, idx, old)

    def _remove(self, place: int, idx: int, old: Document) -> None:
        if idx + 1 == self._new_id():
            self._db.update(place, {"doc": None})  # its id is not given again
        else:
            self._db.delete(place)
        for index in self._made():
            index.remove(idx, old)

    # -- questions ---------------------------------------------------------------

    def query(
        self,
        filter_spec: Optional[Mapping[str, Any]] = None,
        select: Optional[Sequence[str]] = None,
        sort: Any = None,
        desc: bool = False,
        limit: Optional[int] = None,
        offset: int = 0,
    ) -> list[Document]:
        """The documents that match, in the order in which they were stored.

        ``select``: the fields to give, dotted ones too. ``sort``: a field, a list of fields or of (field, 1 or -1), or
        a dict of them; ``desc`` turns fields without a direction round. ``limit``: at most so many (0 or less: none)
        after the first ``offset``. ConditionError, ValueTypeError.
        """
        if type(filter_spec) is dict and len(filter_spec) == 1 and select is sort is limit is None and offset == 0:
            named = self._by_equality(filter_spec)
            if named is not None:
                return named
        first, most = window(limit, offset)
        wanted = make_filter(filter_spec)
        key = None if sort is None else sort_key(directions(sort, desc))
        tree = None if select is None else projection(select)
        found: Iterable[Document] = (document for _, document in self._matching(filter_spec, wanted))
        if key is not None:
            found = sorted(found, key=key)
        found = islice(found, first, None if most is None else first + most)
        return list(found) if tree is None else [shown(document, tree) for document in found]

    def _by_equality(self, spec: dict[Any, Any]) -> Optional[list[Document]]:
        """The documents with one plain value in a field that has an index: what ``_matching`` gives, at half the cost.
        None: it is not that question.
        """
        ((path, value),) = spec.items()
        if type(value) not in _PLAIN or type(path) is not str:
            return None
        found: list[Document] = []
        wanted: Optional[Filter] = None
        with self._lock:
            index = None if self._fields is None else self._fields.get(path)
            named = [] if index is None else index.of(value)
            if index is None or len(named) > FEW:
                return None
            for idx in named:
                row = self._row(idx)
                if row is None:
                    continue
                there = row[1].get(path) if index.is_name else None
                if type(there) is not type(value) or there != value:  # else nothing is to be asked any more
                    wanted = wanted or make_filter(spec)
                    if not wanted.matches(row[1]):
                        continue
                found.append(row[1])
        return found

    def _matching(self, spec: Optional[Mapping[str, Any]], wanted: Filter) -> list[tuple[int, Document]]:
        with self._lock:
            named = self._plan(spec)
            if named is None:
                return self._scanned(spec, wanted)
            found = []
            for idx in named[1].ids(named[2]):
                row = self._row(idx)
                if row is not None and wanted.matches(row[1]):
                    found.append((idx, row[1]))
            return found

    def _scanned(self, spec: Optional[Mapping[str, Any]], wanted: Filter) -> list[tuple[int, Document]]:
        """The documents that match; the kernel says first which cannot, where the filter has a question for it."""
        question = question_of(spec)
        if question is None:
            return [(idx, document) for idx, document in self._documents() if wanted.matches(document)]
        rows = self._db.select_where(_DOCUMENTS, ["_id", "doc"], orient="columns")
        *asked, alone = question
        verdicts = self._kernels.doc.judge(rows["doc"], *asked)
        found = []
        for idx, data, verdict in compress(zip(rows["_id"], rows["doc"], verdicts), verdicts):
            document = self._decode(data)
            if (alone and verdict == 1) or wanted.matches(document):
                found.append((idx, document))
        return found

    def _plan(self, spec: Optional[Mapping[str, Any]]) -> Optional[tuple[int, FieldIndex, list[Any]]]:
        """How many documents an index names, which, and the values that it is asked for; None: all are read."""
        if not spec or not self._indexed():
            return None
        best: Optional[tuple[int, FieldIndex, list[Any]]] = None
        for path, values in equalities(spec):
            index = self._index(path)
            if index is not None:
                number = index.count(values)
                if best is None or number < best[0]:
                    best = number, index, values
        return None if best is None or best[0] * WORTH > max(len(self._db), 100) else best

    def explain(self, filter_spec: Optional[Mapping[str, Any]] = None) -> str:
        """How a filter is answered, as text."""
        make_filter(filter_spec)
        with self._lock:
            named = self._plan(filter_spec)
            if named is None and question_of(filter_spec) is not None:
                return f"every document is tested as it is stored: {len(self)}"
            if named is None:
                return f"every document is tested: {len(self)}"
            return f"index: of field {named[1].path!r}, which names {named[0]} documents; each is tested"

    def count(self, filter_spec: Optional[Mapping[str, Any]] = None) -> int:
        """How many documents there are, or how many match."""
        if filter_spec:
            return len(self._matching(filter_spec, make_filter(filter_spec)))
        return int(self._db.count_where(_DOCUMENTS))

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[Document]:
        """The documents as of now, in the order in which they were stored."""
        return (document for _, document in self._documents())

    # -- many documents ------------------------------------------------------------

    def update_one(self, filter: Mapping[str, Any], update: Mapping[str, Any], upsert: bool = False) -> int:
        """Update the first document that matches, by operators or by a whole one; how many were updated, or with
        ``upsert`` and no match made. ValidationError where an operator cannot be applied: nothing is changed.
        """
        return self._update(filter, update, upsert, 1)

    def update_many(self, filter: Mapping[str, Any], update: Mapping[str, Any], upsert: bool = False) -> int:
        """Update every document that matches, all or none; else as ``update_one``."""
        return self._update(filter, update, upsert, None)

    def _update(self, spec: Mapping[str, Any], update: Any, upsert: bool, most: Optional[int]) -> int:
        wanted, change = make_filter(spec), make_update(update)
        with self._lock:
            chosen = self._matching(spec, wanted)[:most]
            changed = [(idx, old, change.apply(old)) for idx, old in chosen]
            encoded = [self._encode(new) for _, _, new in changed]
            if not chosen and upsert:
                self.insert(change.apply(seed(spec), inserting=True))
                return 1
            with self._several(len(changed)):
                for (idx, old, new), data in zip(changed, encoded):
                    self._replace(self._known(idx)[0], idx, old, new, data)
            return len(changed)

    def delete_many(self, filter: Mapping[str, Any]) -> int:
        """Delete every document that matches ({}: all); how many."""
        wanted = make_filter(filter)
        with self._lock:
            chosen = self._matching(filter, wanted)
            with self._several(len(chosen)):
                for idx, old in chosen:
                    self._remove(self._known(idx)[0], idx, old)
            return len(chosen)

    @contextmanager
    def _several(self, writes: int) -> Iterator[None]:
        """One transaction for several writes, that of the caller where there is one."""
        if writes < 2 or self._inside:
            yield
            return
        with self._step():
            yield

    # -- indexes -------------------------------------------------------------------

    def create_index(self, field: str) -> None:
        """Have an index of a field, which may be a dotted path, for filters of equality; there is no harm in asking
        twice. It is kept with the store, and made of the documents when it is first needed.
        """
        _checked("create_index()", field)
        with self._lock:
            fields = self._indexed()
            if field not in fields:
                self._keep([*fields, field])
                fields[field] = None

    def drop_index(self, field: str) -> None:
        """Have no index of a field any more. NotFoundError (a KeyError) where there is none."""
        _checked("drop_index()", field)
        with self._lock:
            fields = self._indexed()
            if field not in fields:
                raise NotFoundError(f"there is no index of field {field!r}; there are {list(fields)!r}")
            self._keep([one for one in fields if one != field])
            del fields[field]

    @property
    def indexes(self) -> list[str]:
        """The fields that have an index."""
        with self._lock:
            return list(self._indexed())

    def _keep(self, fields: list[str]) -> None:
        """Note in the store's own row which fields have an index."""
        data = self._kernels.doc.encode({"indexes": fields})
        own = query(self._db).filter(_id=OWN).first()
        if own is None:
            self._db.insert({"_id": OWN, "doc": data})
        else:
            self._db.update(own[0], {"doc": data})

    def _indexed(self) -> dict[str, Optional[FieldIndex]]:
        if self._fields is None:
            own = self._db.lookup("_id", OWN)
            names = [] if own is None else self._decode(own["doc"])["indexes"]
            self._fields = dict.fromkeys(names)
        return self._fields

    def _index(self, path: str) -> Optional[FieldIndex]:
        """The index of a path, made by now; None where it has none."""
        fields = self._indexed()
        if path not in fields:
            return None
        index = fields[path]
        if index is None:
            index = FieldIndex(path, self._kernels)
            index.fill(self._documents())
            fields[path] = index
        return index

    def _made(self) -> list[FieldIndex]:
        """The indexes that are to be told of a write."""
        return [] if not self._fields else [index for index in self._fields.values() if index is not None]

    # -- JSON ------------------------------------------------------------------------

    def export_json(self, path: Union[str, os.PathLike[str]], progress: Optional[Progress] = None) -> int:
        """Write all documents as a JSON array, or where the name ends in ``.jsonl`` or ``.ndjson`` one a line; how
        many. The file is there in full or not at all. ``progress`` is called with the number of documents written,
        every thousand and at the end. ValidationError for a value that JSON does not have.
        """
        return write_json(path, self, progress)

    def import_json(self, path: Union[str, os.PathLike[str]], progress: Optional[Progress] = None) -> int:
        """Store the documents of a JSON array, or of a file with one a line; all or none; how many. ``progress`` is
        called with the number of documents read, every thousand and at the end, before they are stored.
        ValidationError for what is no JSON or no document, with its line or position.
        """
        return len(self.insert_many(read_json(path, progress)))


def _checked(call: str, field: Any) -> None:
    if not isinstance(field, str) or not all(parts_of(field)):
        raise ValueTypeError(f"{call} takes a path of names with dots between them, not {shorten(field)}")
