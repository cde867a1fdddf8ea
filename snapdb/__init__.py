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

from . import errors
from ._version import __version__
from .columnar import Column, ColumnarTable
from .core import SnapDB
from .schema import ColumnDef, Schema

__all__ = ["Column", "ColumnDef", "ColumnarTable", "Schema", "SnapDB", "__version__", "errors"]
