"""SnapDB: an embedded table database. Two engines behind one API, rows and compressed columns; no dependency.

>>> from snapdb import SnapDB, Schema, ColumnDef
>>> schema = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("name", "str"), ColumnDef("score", "f64")])
>>> with SnapDB(":memory:", schema, storage_type="columnar") as db:
...     db.batch_insert([{"id": 1, "name": "ann", "score": 2.5}, {"id": 2, "name": "bob", "score": 4.0}])
...     db.get(0)
...     db.aggregate("score", "avg", where={"id": {"gte": 1}})
2
{'id': 1, 'name': 'ann', 'score': 2.5}
3.25
"""

from typing import TYPE_CHECKING, Any

from . import errors
from ._version import __version__
from .columnar import Column, ColumnarTable
from .core import SnapDB
from .schema import ColumnDef, Schema

if TYPE_CHECKING:
    from .cdc import CDCLog
    from .document_store import DocumentStore
    from .metrics import Metrics

__all__ = [
    "CDCLog", "Column", "ColumnDef", "ColumnarTable", "DocumentStore", "Metrics", "Schema", "SnapDB", "__version__",
    "errors",
]  # fmt: skip

#: what is loaded when it is first asked for: by which module
_LATER = {"CDCLog": "cdc", "DocumentStore": "document_store", "Metrics": "metrics"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
