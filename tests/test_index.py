"""HashIndex, MultiIndex and RangeIndex: rows from anywhere, against models."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb.errors import NotFoundError, SchemaError, ValueTypeError
from snapdb.index import HashIndex, MultiIndex, RangeIndex

numbers = st.one_of(st.integers(-5, 5), st.sampled_from([0.0, -0.0, 2.5, math.nan, math.inf, True]))
texts = st.sampled_from(["", "a", "ü", b"a", "ü".encode(), b"\xff", b"", bytearray(b"a")])
anything = st.one_of(st.none(), numbers, texts, st.sampled_from([(1, "a"), dt.date(2024, 1, 1)]))
WHAT = st.sampled_from(["insert", "insert", "update", "delete"])


def plain(value: Any) -> Any:
    if not isinstance(value, (bytes, bytearray)):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytes(value)


def row_of(value: Any) -> dict[str, Any]:
    return {"other": 1} if value is None else {"v": value, "other": 1}


def scan(rows: dict[int, Any], value: Any) -> list[int]:
    return sorted(idx for idx, each in rows.items() if plain(each) == plain(value))


def play(index: Any, rows: dict[int, Any], what: str, idx: int, value: Any) -> None:
    """A change to an index and to its model; what has no meaning is left out."""
    if what == "insert" and idx not in rows:
        index.insert(idx, row_of(value))
        rows[idx] = value
    elif what == "update" and idx in rows:
        index.update(idx, row_of(rows[idx]), row_of(value))
        rows[idx] = value
    elif what == "delete" and idx in rows:
        index.delete(idx, row_of(rows.pop(idx)))


@given(st.lists(st.tuples(WHAT, st.integers(0, 8), anything), max_size=60))
def test_a_hash_index_finds_what_a_scan_finds(course: list[tuple[str, int, Any]]) -> None:
    index, rows = HashIndex("v"), {}
    for what, idx, value in course:
        play(index, rows, what, idx, value)
        assert index.lookup(value) == scan(rows, value)
        assert index.has(value) == bool(scan(rows, value))
        assert len(index) == sum(each == each for each in rows.values())


readable = texts.filter(lambda value: plain(value) != b"\xff")  # with text alone it cannot be compared


@pytest.mark.parametrize("values", [numbers, readable], ids=["numbers", "texts"])
@given(data=st.data())
@settings(max_examples=60)
def test_a_range_index_finds_what_a_scan_finds(values: st.SearchStrategy[Any], data: Any) -> None:
    maybe = st.one_of(st.none(), values)
    course = data.draw(st.lists(st.tuples(WHAT, st.integers(0, 8), maybe), max_size=40))
    index, rows = RangeIndex("v"), {}
    if data.draw(st.booleans()):
        rows = data.draw(st.dictionaries(st.integers(0, 20), maybe, max_size=12))
        index.insert(99, row_of(data.draw(maybe)))
        index.build((idx, row_of(value)) for idx, value in rows.items())
    for what, idx, value in course:
        play(index, rows, what, idx, value)
        low, high = data.draw(maybe), data.draw(maybe)
        include_low, include_high = data.draw(st.booleans()), data.draw(st.booleans())
        found = index.range_lookup(low, high, include_low, include_high)
        there = {idx: plain(each) for idx, each in rows.items() if each is not None and each == each}
        inside = [(each, idx) for idx, each in there.items() if between(each, low, high, include_low, include_high)]
        assert found == [idx for _, idx in sorted(inside)]
        assert len(index) == len(there)


def between(value: Any, low: Any, high: Any, include_low: bool, include_high: bool) -> bool:
    low, high = plain(low), plain(high)
    above = low is None or (value >= low if include_low else value > low)
    return above and (high is None or (value <= high if include_high else value < high))


PAIRS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=20)


@given(PAIRS, st.integers(0, 3), st.sampled_from("abc"))
def test_several_columns(rows: list[tuple[int, str]], n: int, s: str) -> None:
    indexes = MultiIndex()
    for column in ("n", "s"):
        index = indexes.create(column)
        for idx, row in enumerate(rows):
            index.insert(idx, {"n": row[0], "s": row[1]})
    assert indexes.lookup(n=n, s=s) == [idx for idx, row in enumerate(rows) if row == (n, s)]
    assert indexes.lookup(s=s) == [idx for idx, row in enumerate(rows) if row[1] == s]


def test_a_multi_index_knows_its_columns() -> None:
    indexes = MultiIndex()
    assert indexes.lookup() is None and indexes.get("city") is None
    with pytest.raises(NotFoundError, match=r"'city' has no index; create\(\) it first"):
        indexes.lookup(city="Graz")
    made = indexes.create("city")
    assert isinstance(made, HashIndex) and indexes.get("city") is made and made.column == "city"
    assert "city" in indexes and "age" not in indexes
    assert indexes.lookup(city="Graz") == []
    with pytest.raises(SchemaError, match="'city' has an index already"):
        indexes.create("city")
    assert indexes.get("city") is made
    with pytest.raises(KeyError, match="there is one of 'city'"):
        indexes.lookup(city="Graz", cty="Graz")
    indexes.create("self")
    assert indexes.lookup(self=1) == [] and repr(indexes) == "MultiIndex('city', 'self')"
    indexes.drop("city")
    assert "city" not in indexes
    with pytest.raises(KeyError):
        indexes.drop("city")


def test_the_same_row_twice_is_one_row_and_one_that_is_not_there_is_none() -> None:
    for index in (HashIndex("v"), RangeIndex("v")):
        index.insert(4, {"v": 1})
        index.insert(4, {"v": 1})
        index.delete(4, {"v": 2})
        index.delete(5, {"v": 1})
        assert len(index) == 1
        index.update(4, {"v": 3}, {"v": 1})
        index.update(4, {"v": 1}, {"v": 1})
        assert len(index) == 1
        index.delete(4, {"v": 1})
        index.delete(4, {"v": 1})
        assert len(index) == 0
    index = RangeIndex("v")
    index.build([(2, {"v": [1]}), (1, {"v": [1]}), (2, {"v": [1]}), (3, {})])
    assert index.range_lookup() == [1, 2] and repr(index) == "RangeIndex('v', 2 rows)"


def test_what_cannot_be_hashed_changes_nothing() -> None:
    index = HashIndex("v")
    index.insert(1, {"v": 5})
    for call in (
        lambda: index.insert(2, {"v": [1]}),
        lambda: index.update(1, {"v": 5}, {"v": {}}),
        lambda: index.update(1, {"v": []}, {"v": 6}),
        lambda: index.delete(1, {"v": [5]}),
        lambda: index.lookup([5]),
        lambda: index.has({}),
    ):
        with pytest.raises(ValueTypeError, match=r"column 'v': .* cannot be hashed") as caught:
            call()
        assert caught.value.column == "v" and isinstance(caught.value, TypeError)
    for bad in ("1", 1.0, None):
        with pytest.raises(TypeError):
            index.update(bad, {"v": 5}, {"v": 6})
    assert index.lookup(5) == [1] and len(index) == 1 and repr(index) == "HashIndex('v', 1 values, 1 rows)"


def test_what_cannot_be_compared_changes_nothing() -> None:
    index = RangeIndex("v")
    index.build([(1, {"v": 5}), (2, {"v": 7})])
    wrong: list[Optional[Any]] = ["a", (1,), dt.date(2024, 1, 1), b"\xff"]
    for value in wrong:
        for call in (
            lambda value=value: index.insert(3, {"v": value}),
            lambda value=value: index.update(1, {"v": 5}, {"v": value}),
            lambda value=value: index.update(1, {"v": value}, {"v": 5}),
            lambda value=value: index.delete(1, {"v": value}),
            lambda value=value: index.range_lookup(value),
            lambda value=value: index.range_lookup(None, value),
        ):
            with pytest.raises(ValueTypeError, match="column 'v': cannot compare"):
                call()
    with pytest.raises(ValueTypeError, match="column 'v': cannot compare the values"):
        index.build([(1, {"v": 5}), (2, {"v": "a"})])
    for bad in ("1", 1.0, None):
        with pytest.raises(TypeError):
            index.update(bad, {"v": 5}, {"v": 6})
    assert index.range_lookup() == [1, 2] and index.range_lookup(5, 5) == [1] and index.range_lookup(8, 1) == []
