"""Documents in a store against a plain dict of them: in memory and in files, reopened, rolled back, by indexes."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import errors
from snapdb.document_asked import seed
from snapdb.document_filter import make_filter
from snapdb.document_store import DocumentStore
from snapdb.document_update import make_update

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -0.0]), st.sampled_from(["", "x", "y"]),
    st.lists(st.integers(0, 2), max_size=2), st.dictionaries(st.sampled_from("bc"), st.integers(0, 2), max_size=2),
)  # fmt: skip
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b", "n"]), VALUES, max_size=3)
FILTERS: list[dict[str, Any]] = [
    {}, {"a": 1}, {"a": None}, {"a": {"$in": [1, "x", None]}}, {"a.b": 1}, {"n": {"$gt": 0}}, {"a": [1]}, {"a": True},
    {"a": {"$eq": {"b": 1}}, "n": {"$exists": True}}, {"$and": [{"a": 0}, {"b": 0}]}, {"$or": [{"a": 1}, {"b": 1}]},
    {"a": {"$ne": 1}}, {"a.0": 1}, {"nope": 1}, {"a": "x"}, {"n": {"$lt": 0.5}},
    {"a": {"$gt": 0, "$lte": 2, "$gte": 0}},
    {"a": {"$eq": 1}, "b": "y"}, {"a.b": {"$gte": 1}}, {"n": {"$gt": 5, "$lt": 1}}, {"a": {"$gt": 0, "$ne": 1}},
]  # fmt: skip
UPDATES: list[dict[str, Any]] = [
    {"$set": {"n": 7}}, {"$unset": {"a": 1}}, {"$set": {"a": {"b": 1}}}, {"a": "x"}, {"$rename": {"a": "b"}},
    {"$push": {"list": 1}},
]  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), DOCUMENTS),
        st.tuples(st.just("insert_many"), st.lists(DOCUMENTS, max_size=4)),
        st.tuples(st.just("update"), st.integers(0, 30), DOCUMENTS),
        st.tuples(st.just("delete"), st.integers(0, 30)),
        st.tuples(st.just("delete_newest")),
        st.tuples(st.just("update_many"), st.sampled_from(FILTERS), st.sampled_from(UPDATES), st.booleans()),
        st.tuples(st.just("update_one"), st.sampled_from(FILTERS), st.sampled_from(UPDATES), st.booleans()),
        st.tuples(st.just("delete_many"), st.sampled_from(FILTERS[1:])),
        st.tuples(st.just("create_index"), st.sampled_from(["a", "a.b", "n"])),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("rolled_back"), DOCUMENTS),
        st.tuples(st.just("compact")),
    ),
    max_size=25,
)


class Model:
    """What a store is to be: documents by id, and the next id."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.next = 0

    def insert(self, document: dict[str, Any]) -> int:
        self.rows[self.next] = document
        self.next += 1
        return self.next - 1

    def matching(self, spec: dict[str, Any]) -> list[int]:
        wanted = make_filter(spec)
        return [idx for idx, document in self.rows.items() if wanted.matches(document)]

    def update(self, spec: Any, update: Any, upsert: bool, most: Optional[int]) -> int:
        change = make_update(update)
        chosen = {idx: change.apply(self.rows[idx]) for idx in self.matching(spec)[:most]}
        if not chosen and upsert:
            self.insert(change.apply(seed(spec), inserting=True))
            return 1
        self.rows.update(chosen)
        return len(chosen)


class Ended(Exception):
    """A transaction is to be rolled back."""


def step(store: DocumentStore, model: Model, what: tuple[Any, ...]) -> None:
    name, *given_to = what
    if name == "insert":
        assert store.insert(given_to[0]) == model.insert(given_to[0])
    elif name == "insert_many":
        assert store.insert_many(given_to[0]) == [model.insert(one) for one in given_to[0]]
    elif name in ("update", "delete", "delete_newest"):
        idx = model.next - 1 if name == "delete_newest" else given_to[0]
        if idx not in model.rows:
            with pytest.raises(KeyError, match="there is no document"):
                store.delete(idx) if name != "update" else store.update(idx, {})
        elif name == "update":
            store.update(idx, given_to[1])
            model.rows[idx] = given_to[1]
        else:
            store.delete(idx)
            del model.rows[idx]
    elif name in ("update_many", "update_one"):
        spec, update, upsert = given_to
        most = 1 if name == "update_one" else None
        try:
            expected = model.update(spec, update, upsert, most)
        except errors.ValidationError as error:
            with pytest.raises(errors.ValidationError) as caught:
                getattr(store, name)(spec, update, upsert)
            assert str(caught.value) == str(error)
            return
        assert getattr(store, name)(spec, update, upsert) == expected
    elif name == "delete_many":
        gone = model.matching(given_to[0])
        assert store.delete_many(given_to[0]) == len(gone)
        for idx in gone:
            del model.rows[idx]
    elif name == "create_index":
        store.create_index(given_to[0])
    elif name == "rolled_back":
        with pytest.raises(Ended), store.transaction():
            store.insert(given_to[0])
            store.update_many({}, {"$set": {"a": 1}})
            store.delete_many({"n": {"$exists": True}})
            store.insert_many([given_to[0]] * 3)
            raise Ended
    elif name == "compact":
        store._db.compact()


def check(store: DocumentStore, model: Model) -> None:
    assert repr(list(store)) == repr(list(model.rows.values()))
    assert len(store) == store.count() == len(model.rows)
    for idx in range(model.next + 2):
        assert repr(store.get(idx)) == repr(model.rows.get(idx))
    for spec in FILTERS:
        found = [model.rows[idx] for idx in model.matching(spec)]
        assert repr(store.query(spec)) == repr(found), spec
        assert store.count(spec) == len(found)


@settings(max_examples=60)
@given(STEPS, st.booleans())
def machine(folder: Path, steps: list[tuple[Any, ...]], in_file: bool) -> None:
    path: Any = Path(tempfile.mkdtemp(dir=folder)) / "docs.snap" if in_file else ":memory:"
    store, model = DocumentStore(path), Model()
    try:
        for what in steps:
            if what[0] != "reopen":
                step(store, model, what)
            elif in_file:
                store.close()
                store = DocumentStore(path)
            check(store, model)
    finally:
        store.close()


def test_against_a_model(tmp_path: Path, backend_name: str) -> None:
    machine(tmp_path)


def test_everything_comes_back(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "docs.snap"
    document = {
        "text": "é" * 5000, "n": 2**70, "d": Decimal("1.50"), "u": UUID(int=7), "b": b"\xff" * 10_000, "": {"": [[]]},
        "at": dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=-3))), "$odd.name": 1,
        "day": dt.date(2024, 2, 29), "many": list(range(3000)), "bool": [True, 1, 1.0, None],
    }  # fmt: skip
    with DocumentStore(path, max_field_len=4, durability="full") as store:
        assert store.insert(document) == 0
    with DocumentStore(path, read_only=True) as store:
        assert repr(store.get(0)) == repr(document)
        with pytest.raises(errors.ReadOnlyError):
            store.insert({})
        assert store.query({"many": 2999, "d": Decimal("1.5")}, select=["n"]) == [{"n": 2**70}]


def test_ids_are_given_once(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "docs.snap"
    with DocumentStore(path) as store:
        assert store.insert_many([{"n": n} for n in range(5)]) == [0, 1, 2, 3, 4]
        store.delete(4)
        store.delete(3)
        assert store.delete_many({"n": 2}) == 1
    with DocumentStore(path) as store:
        assert store.insert({"n": 9}) == 5
        store._db.compact()
        assert [store.get(n) for n in range(6)] == [{"n": 0}, {"n": 1}, None, None, None, {"n": 9}]
        store.delete(5)
        store._db.compact()
    with DocumentStore(path) as store:
        assert store.insert({}) == 6
        assert store.get(-1) is None and store.get(True) is None and store.get("0") is None  # type: ignore[arg-type]


def test_orders_windows_and_fields(backend_name: str) -> None:
    store = DocumentStore(":memory:")
    store.insert_many({"n": n % 3, "m": {"k": -n, "l": [{"x": n, "y": 0}]}} for n in range(7))
    assert [one["m"]["k"] for one in store.query(sort=["n", ("m.k", -1)])] == [0, -3, -6, -1, -4, -2, -5]
    assert [one["m"]["k"] for one in store.query(sort="m.k", limit=2, offset=1)] == [-5, -4]
    assert [one["m"]["k"] for one in store.query(sort="m.k", desc=True, limit=2)] == [0, -1]
    assert store.query(sort={"n": -1, "m.k": 1}, limit=1)[0]["m"]["k"] == -5
    assert store.query({"n": 0}, select=["m.k", "nope"], limit=1) == [{"m": {"k": 0}}]
    assert store.query({"n": 0}, select=["m.l.x", "n"], limit=1) == [{"n": 0, "m": {"l": [{"x": 0}]}}]
    assert store.query(limit=0) == store.query(limit=-3) == store.query(offset=99) == []
    wrong: list[dict[str, Any]] = [{"limit": "1"}, {"offset": 1.5}, {"offset": -1}, {"sort": 5}, {"sort": [5]}]
    for options in [*wrong, {"sort": {"n": 2}}, {"select": "n"}]:
        with pytest.raises(ValueError):
            store.query(**options)


def test_upserts(backend_name: str) -> None:
    store = DocumentStore(":memory:")
    asked = {"name": "x", "a.b": 1, "n": {"$gt": 5}, "tag": {"$in": ["one"]}}
    assert store.update_one(asked, {"$set": {"v": 1}, "$setOnInsert": {"new": True}}, upsert=True) == 1
    made = {"name": "x", "a": {"b": 1}, "tag": "one", "v": 1, "new": True}
    assert list(store) == [made]
    assert store.update_many({"name": "x"}, {"$set": {"v": 2}, "$setOnInsert": {"new": False}}, upsert=True) == 1
    assert list(store) == [{**made, "v": 2}]
    assert store.update_one({"name": "y"}, {"whole": 1}, upsert=True) == 1
    assert store.get(1) == {"whole": 1}


def test_what_cannot_be_stored_changes_nothing(backend_name: str) -> None:
    store = DocumentStore(":memory:")
    store.insert({"n": 1})
    bad = [{"n": 2}, {"a": [{"b": {1, 2}}]}]
    with pytest.raises(errors.ValidationError, match=r"set cannot be stored \(at 'a.0.b'\) \(row 1 of the batch\)"):
        store.insert_many(bad)
    with pytest.raises(errors.ValidationError, match="a name is a str, not int"):
        store.update(0, {"a": {1: 2}})
    with pytest.raises(errors.ValueTypeError, match="a document is a dict, not list"):
        store.insert([1])  # type: ignore[arg-type]
    with pytest.raises(errors.ValidationError, match="no number"):
        store.update_many({}, {"$inc": {"n": 1, "x": 1}, "$mul": {"s": 1}}) if store.insert({"s": "x"}) else None
    assert list(store) == [{"n": 1}, {"s": "x"}]
    with pytest.raises(ValueError, match="there is no operator"):
        store.query({"a": {"$nope": 1}})


def test_indexes_are_used_and_kept(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "docs.snap"
    documents = [{"n": n, "tags": [f"t{n % 50}", "all"], "in": {"city": f"c{n % 100}"}} for n in range(500)]
    with DocumentStore(path) as store:
        store.insert_many(documents)
        assert store.explain({"in.city": "c7"}) == "every document is tested as it is stored: 500"
        store.create_index("in.city")
        store.create_index("tags")
        store.create_index("tags")
    with DocumentStore(path) as store:
        assert store.explain({"in.city": "c7", "n": {"$gt": 0}}).startswith("index: of field 'in.city', which names 5 ")
        assert "'tags', which names 10 documents" in store.explain({"tags": "t3"})
        assert store.explain({"tags": "all"}) == "every document is tested as it is stored: 500"
        assert store.query({"tags": "t3", "in.city": "c3"}) == [one for one in documents if one["n"] % 100 == 3]
        store.update_many({"tags": "t3"}, {"$set": {"tags": "none"}})
        assert store.query({"tags": "t3"}) == [] and store.count({"tags": "none"}) == 10
    with pytest.raises(errors.ValueTypeError, match="create_index"):
        DocumentStore(":memory:").create_index("a..b")


@pytest.mark.parametrize("name", ["docs.json", "docs.jsonl", "docs.ndjson"])
def test_json_files(tmp_path: Path, backend_name: str, name: str) -> None:
    documents = [{"n": n, "s": "é\n\ud800", "f": 0.1 * n, "deep": {"l": [None, True, {"x": 2**80}]}} for n in range(5)]
    path = tmp_path / name
    store = DocumentStore(":memory:")
    assert store.export_json(path) == 0 and DocumentStore(":memory:").import_json(path) == 0
    store.insert_many(documents)
    assert store.export_json(path) == 5
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if name == "docs.json" else [json.loads(line) for line in text.splitlines()]
    assert found == documents
    again = DocumentStore(":memory:")
    assert again.import_json(path) == 5 and list(again) == documents
    store.insert({"at": dt.date(2024, 1, 1)})
    with pytest.raises(errors.ValidationError, match="document 5 cannot be written as JSON.*date"):
        store.export_json(path)
    assert path.read_text(encoding="utf-8") == text and [one.name for one in tmp_path.iterdir()] == [name]
    path.write_text('{"n": 1}\n{"n": \n', encoding="utf-8")
    with pytest.raises(errors.ValidationError, match="line 2, is no JSON"):
        again.import_json(path)
    path.write_text('[{"n": 1}, 5]', encoding="utf-8")
    with pytest.raises(errors.ValueTypeError, match="a document is a dict, not int 5"):
        again.import_json(path)
    path.write_bytes(b'{"n": "\xff"}\n')
    with pytest.raises(errors.ValidationError, match="is not UTF-8"):
        again.import_json(path)
    assert len(again) == 5


@pytest.mark.parametrize("count", [0, 999, 1000, 2500])
def test_json_files_tell_how_far_they_are(tmp_path: Path, backend_name: str, count: int) -> None:
    store = DocumentStore(":memory:")
    store.insert_many({"n": n} for n in range(count))
    expected = [*range(1000, count + 1, 1000), *([count] if count % 1000 or not count else [])]
    for name in ("docs.json", "docs.jsonl"):
        told: list[int] = []
        assert store.export_json(tmp_path / name, progress=told.append) == count and told == expected
        again = DocumentStore(":memory:")
        told.clear()
        assert again.import_json(tmp_path / name, progress=told.append) == count and told == expected
    before = (tmp_path / "docs.json").read_bytes()

    def tired(done: int) -> None:
        raise KeyError(done)

    with pytest.raises(KeyError):
        store.export_json(tmp_path / "docs.json", progress=tired)
    with pytest.raises(KeyError):
        store.import_json(tmp_path / "docs.jsonl", progress=tired)
    with pytest.raises(errors.ValueTypeError, match="progress is a callable"):
        store.export_json(tmp_path / "docs.json", progress=1)  # type: ignore[arg-type]
    assert len(store) == count and (tmp_path / "docs.json").read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docs.json", "docs.jsonl"]


def test_indexes_are_listed_and_dropped(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "d.snapdb"
    with DocumentStore(path) as store:
        store.insert_many([{"a": n % 7, "b": {"c": n % 50}} for n in range(300)])
        assert store.indexes == []
        store.create_index("a")
        store.create_index("b.c")
        assert store.indexes == ["a", "b.c"] and "index" in store.explain({"b.c": 9})
        store.drop_index("a")
        assert store.indexes == ["b.c"] and store.count({"a": 3}) == 43
        with pytest.raises(errors.NotFoundError, match=r"no index of field 'a'; there are \['b.c'\]"):
            store.drop_index("a")
        with pytest.raises(errors.ValueTypeError, match="drop_index"):
            store.drop_index("")
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.drop_index("b.c")
            store.create_index("a")
            raise ZeroDivisionError
        assert store.indexes == ["b.c"] and len(store) == 300
    with DocumentStore(path) as store:
        assert store.indexes == ["b.c"] and store.query({"b.c": 2})[0] == {"a": 2, "b": {"c": 2}}


KILLED = """
import os, sys
from snapdb.document_store import DocumentStore
store = DocumentStore(sys.argv[1], durability="full")
store.create_index("n")
n = 0
while True:
    with store.transaction():
        store.insert({"n": n, "half": 0})
        store.insert({"n": n, "half": 1})
    print(n, flush=True)
    n += 1
"""


@pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes")
def test_killed(tmp_path: Path) -> None:
    path = tmp_path / "docs.snap"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(20):
            said = int(child.stdout.readline())
        child.kill()
        said = max([said, *(int(line) for line in child.stdout if line.endswith("\n"))])
    with DocumentStore(path) as store:
        found = [(one["n"], one["half"]) for one in store]
        assert found == [(n, half) for n in range(len(found) // 2) for half in (0, 1)] and len(found) // 2 > said
        assert len(store.query({"n": said})) == 2
