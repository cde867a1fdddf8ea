"""What people see of an object at a prompt, in a notebook and in ``help()``."""

from __future__ import annotations

import inspect
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapdb
from snapdb import CDCLog, Column, ColumnarTable, ColumnDef, DocumentStore, Metrics, Schema, SnapDB
from snapdb.index import HashIndex, MultiIndex, RangeIndex
from snapdb.query import Query, query
from snapdb.watch import Batch, Watch

ENGINES = ("row", "columnar")
SCHEMA = Schema([ColumnDef("id", "i64"), ColumnDef("<b>name", "str", not_null=False), ColumnDef("x", "f64")])


class Reader(HTMLParser):
    """The cells of a table, as the text that a browser shows; fails where tags do not fit."""

    VOID = ("br",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.heads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        if tag == "th":
            self.heads.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data
        elif "th" in self.open and "small" not in self.open:
            self.heads[-1] += data


def table(path: Any, engine: str, rows: int = 25) -> SnapDB:
    db = SnapDB(path, SCHEMA, storage_type=engine)
    db.batch_insert([{"id": i, "<b>name": None if i % 3 == 0 else f"<i>&{i}", "x": i / 4} for i in range(rows)])
    return db


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_shows_ten_rows(engine: str, tmp_path: Path) -> None:
    for path in (":memory:", tmp_path / "<x>.snapdb"):
        with table(path, engine) as db:
            db.delete(1)
            found = Reader(db._repr_html_())
            assert found.heads == ["", "id", "<b>name", "x", *map(str, [0, *range(2, 11)])]
            assert found.cells[:6] == ["0", "None", "0.0", "2", "<i>&2", "0.5"] and len(found.cells) == 30
            assert "24 rows" in db._repr_html_() and "i" not in found.tags and "b" not in found.tags


@pytest.mark.parametrize("engine", ENGINES)
def test_a_query_shows_its_first_rows_and_asks_no_callable(engine: str) -> None:
    with table(":memory:", engine) as db:
        asked = query(db).filter(id={"gte": 3}).order("x", desc=True)
        found = Reader(asked._repr_html_())
        assert found.cells[::3] == [str(i) for i in range(24, 14, -1)] and "there are more rows" in asked._repr_html_()
        assert Reader(asked.slice(2, 3)._repr_html_()).cells[::3] == ["21", "20"]
        assert Reader(asked.slice(0)._repr_html_()).cells == []
        calls: list[Any] = []
        shown = asked.where_fn(calls.append)._repr_html_()
        assert calls == [] and "where_fn" in shown and Reader(shown).tags == {"pre"}


def test_a_table_in_memory_and_a_column() -> None:
    rows = ColumnarTable("t", [("id", "i64"), ("name", "str")])
    rows.batch_insert([{"id": i, "name": f"<{i}>"} for i in range(12)])
    assert Reader(rows._repr_html_()).cells[:4] == ["0", "<0>", "1", "<1>"]
    column = rows.columns["name"]
    assert Reader(column._repr_html_()).cells == [f"<{i}>" for i in range(10)] and "12 rows" in column._repr_html_()
    alone = Column("n", "i32")
    assert Reader(alone._repr_html_()).cells == []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=40, unique=True),
    value=st.one_of(st.none(), st.text(max_size=200), st.binary(max_size=200)),
    engine=st.sampled_from(ENGINES),
)  # fmt: skip
def test_nothing_of_the_data_is_markup(names: list[str], value: Any, engine: str) -> None:
    kind = "binary" if isinstance(value, bytes) else "str"
    try:
        schema = Schema([ColumnDef(name, kind, not_null=False) for name in names])
    except snapdb.errors.SchemaError:
        return
    with SnapDB(":memory:", schema, storage_type=engine) as db:
        try:
            db.insert(dict.fromkeys(names, value))
        except ValueError:  # a lone surrogate, say
            return
        found = Reader(db._repr_html_())
        assert len(found.cells) == min(len(names), 30)
        assert found.tags <= {"div", "code", "table", "thead", "tbody", "tr", "th", "td", "br", "small", "em"}
        if isinstance(value, str) and len(value) <= 80 and "\r" not in value:
            assert set(found.cells) == {value}
        assert all(len(cell) <= 80 for cell in found.cells)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_raises_when_it_is_closed(engine: str, tmp_path: Path) -> None:
    for path in (":memory:", tmp_path / "x.snapdb"):
        db = table(path, engine)
        things: list[Any] = [db, query(db), query(db).filter(id=3).order("x").slice(2), query(db).where_fn(bool)]
        if engine == "columnar":
            inner = db._engine
            things += [inner, *inner.column_list]
        db.close()
        for thing in things:
            assert "closed" in repr(thing).lower() or isinstance(thing, ColumnarTable)
            assert Reader(thing._repr_html_()).tags == {"pre"}


def test_a_store_of_documents(tmp_path: Path) -> None:
    with DocumentStore(tmp_path / "d.snapdb") as store:
        store.insert_many([{"a": f"<{i}>"} for i in range(11)])
        store.create_index("a")
        store.delete(0)
        assert repr(store) == f"DocumentStore({str(tmp_path / 'd.snapdb')!r}, documents=10, indexes=['a'])"
        found = Reader(store._repr_html_())
        assert found.cells == [f"{{'a': '<{i}>'}}" for i in range(1, 11)]
    assert repr(store).endswith("closed)") and Reader(store._repr_html_()).tags == {"pre"}


# -- help() --------------------------------------------------------------------
PUBLIC = [
    SnapDB, Schema, ColumnDef, ColumnarTable, Column, CDCLog, DocumentStore, Metrics, Query, Watch, Batch, HashIndex,
    MultiIndex, RangeIndex,
]  # fmt: skip


def members(kind: type) -> list[tuple[str, Any]]:
    return [(name, getattr(kind, name)) for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_everything_public_tells_what_it_does(kind: type) -> None:
    assert inspect.getdoc(kind), kind
    bare = []
    for name, member in members(kind):
        plain = inspect.getdoc(member)
        if callable(member) and not isinstance(member, type):
            if not plain:
                bare.append(name)
            kinds = [one.kind for one in inspect.signature(member).parameters.values()]
            assert name == "filter" or inspect.Parameter.VAR_POSITIONAL not in kinds, name
        elif isinstance(member, property) and not plain:
            bare.append(name)
    assert bare == []


def test_modules_and_errors_tell_too() -> None:
    for name in snapdb.errors.__all__:
        one = getattr(snapdb.errors, name)
        if isinstance(one, type):
            assert "__doc__" in vars(one) and inspect.getdoc(one), name
    assert inspect.getdoc(snapdb) and inspect.getdoc(query)
