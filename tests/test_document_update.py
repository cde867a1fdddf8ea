"""Updates and orders of documents: tables of cases whose answers follow from MongoDB's written rules."""

from __future__ import annotations

import copy
import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pytest

from snapdb import errors
from snapdb.document_sort import sort_key
from snapdb.document_update import make_update

#: update, document, what it becomes
CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"$set": {"a": 1}}, {}, {"a": 1}),
    ({"$set": {"a": 1, "b": None}}, {"a": 5, "c": 2}, {"a": 1, "c": 2, "b": None}),
    ({"$set": {"a.b.c": 1}}, {"a": {"x": 0}}, {"a": {"x": 0, "b": {"c": 1}}}),
    ({"$set": {"a.1": 9}}, {"a": [1, 2, 3]}, {"a": [1, 9, 3]}),
    ({"$set": {"a.4": 9}}, {"a": [1]}, {"a": [1, None, None, None, 9]}),
    ({"$set": {"a.1": 9}}, {"a": {"x": 1}}, {"a": {"x": 1, "1": 9}}),
    ({"$set": {"a.0.b": 9}}, {"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 9, "c": 2}]}),
    ({"$set": {"a.2.b": 9}}, {"a": [1]}, {"a": [1, None, {"b": 9}]}),
    ({"$unset": {"a": ""}}, {"a": 1, "b": 2}, {"b": 2}),
    ({"$unset": {"a.b": "", "x.y": "", "n.m": ""}}, {"a": {"b": 1, "c": 2}, "n": 5}, {"a": {"c": 2}, "n": 5}),
    ({"$unset": {"a.1": ""}}, {"a": [1, 2, 3]}, {"a": [1, None, 3]}),
    ({"$unset": {"a.b": ""}}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
    ({"$inc": {"n": 2, "m": -1.5}}, {"n": 3}, {"n": 5, "m": -1.5}),
    ({"$inc": {"a.0": 1}}, {"a": [1, 2]}, {"a": [2, 2]}),
    ({"$inc": {"n": 2**63}}, {"n": 2**63}, {"n": 2**64}),
    ({"$inc": {"n": 0.5}}, {"n": Decimal("0.1")}, {"n": Decimal("0.6")}),
    ({"$inc": {"n": Decimal(1)}}, {"n": 0.1}, {"n": Decimal("1.1")}),
    ({"$mul": {"n": 3, "m": 2, "f": 2.5}}, {"n": 3}, {"n": 9, "m": 0, "f": 0.0}),
    ({"$min": {"a": 1, "b": 1, "c": 1}}, {"a": 2, "b": 0}, {"a": 1, "b": 0, "c": 1}),
    ({"$max": {"a": 1, "b": 1, "c": "x"}}, {"a": 2, "b": 0, "c": 9e9}, {"a": 2, "b": 1, "c": "x"}),
    ({"$min": {"a": None}}, {"a": 5}, {"a": None}),
    ({"$rename": {"a": "b"}}, {"a": 1, "c": 2}, {"c": 2, "b": 1}),
    ({"$rename": {"a": "b"}}, {"b": 5, "a": 1, "c": 2}, {"c": 2, "b": 1}),
    ({"$rename": {"a": "b"}}, {"c": 2}, {"c": 2}),
    ({"$rename": {"a.b": "x.y"}}, {"a": {"b": [1]}}, {"a": {}, "x": {"y": [1]}}),
    ({"$push": {"a": 1}}, {}, {"a": [1]}),
    ({"$push": {"a": [2]}}, {"a": [1]}, {"a": [1, [2]]}),
    ({"$push": {"a": {"$each": [3, 4]}}}, {"a": [1]}, {"a": [1, 3, 4]}),
    ({"$push": {"a": {"$each": [9], "$position": 1}}}, {"a": [1, 2]}, {"a": [1, 9, 2]}),
    ({"$push": {"a": {"$each": [9], "$position": -1}}}, {"a": [1, 2]}, {"a": [1, 9, 2]}),
    ({"$push": {"a": {"$each": [9], "$position": 77}}}, {"a": [1]}, {"a": [1, 9]}),
    ({"$push": {"a": {"$each": [5, 1], "$sort": 1, "$slice": 2}}}, {"a": [3]}, {"a": [1, 3]}),
    ({"$push": {"a": {"$each": [5, 1], "$sort": -1, "$slice": -2}}}, {"a": [3]}, {"a": [3, 1]}),
    ({"$push": {"a": {"$each": [], "$slice": 0}}}, {"a": [3]}, {"a": []}),
    (
        {"$push": {"a": {"$each": [{"n": 1, "m": 5}], "$sort": {"n": 1, "m": -1}}}},
        {"a": [{"n": 2}, {"n": 1, "m": 7}]},
        {"a": [{"n": 1, "m": 7}, {"n": 1, "m": 5}, {"n": 2}]},
    ),
    ({"$addToSet": {"a": 1}}, {"a": [1.0, 2]}, {"a": [1.0, 2]}),
    ({"$addToSet": {"a": True}}, {"a": [1]}, {"a": [1, True]}),
    ({"$addToSet": {"a": {"$each": [1, 2, 1]}, "b": 5}}, {"a": [2]}, {"a": [2, 1], "b": [5]}),
    ({"$addToSet": {"a": {"x": 1, "y": 2}}}, {"a": [{"y": 2, "x": 1}]}, {"a": [{"y": 2, "x": 1}, {"x": 1, "y": 2}]}),
    ({"$pull": {"a": 1}}, {"a": [1, 2, 1.0, True, [1]]}, {"a": [2, True, [1]]}),
    ({"$pull": {"a": {"$gt": 2}}}, {"a": [1, 3, "x", 5]}, {"a": [1, "x"]}),
    ({"$pull": {"a": {"x": 1}}}, {"a": [{"x": 1, "y": 2}, {"x": 2}, 1]}, {"a": [{"x": 2}, 1]}),
    ({"$pull": {"a": [1]}}, {"a": [[1], 1, [1, 2]]}, {"a": [1, [1, 2]]}),
    ({"$pull": {"a": 1}}, {}, {}),
    ({"$pullAll": {"a": [1, "x"]}}, {"a": [1, 2, "x", 1]}, {"a": [2]}),
    ({"$pop": {"a": 1, "b": -1, "c": 1}}, {"a": [1, 2], "b": [1, 2]}, {"a": [1], "b": [2]}),
    ({"$pop": {"a": 1}}, {"a": []}, {"a": []}),
    ({"$set": {"a": 1}, "$inc": {"b": 1}, "$unset": {"c": 1}}, {"c": 1}, {"a": 1, "b": 1}),
    ({"x": {"y": 1}}, {"a": 5}, {"x": {"y": 1}}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "before", "after"), CASES, ids=[repr(case[0])[:70] for case in CASES])
def test_case(spec: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    given, asked = copy.deepcopy(before), copy.deepcopy(spec)
    found = make_update(spec).apply(before)
    assert repr(found) == repr(after)
    assert (before, spec) == (given, asked)
    for value in found.values():  # nothing is shared with what was given
        if isinstance(value, (list, dict)):
            value.clear()
    assert (before, spec) == (given, asked)


def test_of_documents_that_an_upsert_makes() -> None:
    update = make_update({"$set": {"a": 1}, "$setOnInsert": {"b": 2}})
    assert update.apply({}) == {"a": 1}
    assert update.apply({}, inserting=True) == {"a": 1, "b": 2}
    now = dt.datetime.now(dt.timezone.utc)
    found = make_update({"$currentDate": {"at": True}}).apply({})["at"]
    assert now <= found <= now + dt.timedelta(minutes=5)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (5, "an update is a dict, not int 5"),
        ({}, "an update is not empty"),
        ({"$set": {"a": 1}, "b": 2}, "operators and fields do not mix"),
        ({"$sett": {"a": 1}}, "there is no update operator \\$sett; did you mean \\$set"),
        ({"$bit": {"a": 1}}, "there is no update operator \\$bit"),
        ({"$set": 5}, "\\$set takes a dict of fields"),
        ({"$set": {"": 1}}, "is no path"),
        ({"$set": {"a..b": 1}}, "is no path"),
        ({"$set": {1: 1}}, "is no path"),
        ({"$rename": {"a": 5}}, "is no path"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "two changes meet at 'a'"),
        ({"$set": {"a.b": 1, "a": 1}}, "two changes meet at 'a'"),
        ({"$rename": {"a": "a.b"}}, "two changes meet at 'a'"),
        ({"$inc": {"a": "1"}}, "\\$inc 'a' takes a number, not '1'"),
        ({"$inc": {"a": True}}, "takes a number"),
        ({"$mul": {"a": None}}, "\\$mul 'a' takes a number"),
        ({"$push": {"a": {"$each": 5}}}, "\\$each takes a list"),
        ({"$push": {"a": {"$each": [], "$slize": 1}}}, "there is no modifier '\\$slize'"),
        ({"$push": {"a": {"$each": [], "$slice": 1.5}}}, "\\$slice takes an int"),
        ({"$push": {"a": {"$each": [], "$sort": 2}}}, "\\$sort takes 1, -1"),
        ({"$addToSet": {"a": {"$each": [], "$slice": 1}}}, "there is no modifier"),
        ({"$pullAll": {"a": 5}}, "\\$pullAll 'a' takes a list"),
        ({"$pop": {"a": 2}}, "\\$pop 'a' takes 1"),
        ({"$pull": {"a": {"$gtx": 1}}}, "there is no operator"),
        ({"$currentDate": {"a": "x"}}, "\\$currentDate 'a' takes True"),
    ],
)
def test_what_is_refused(spec: Any, said: str) -> None:
    with pytest.raises(errors.ConditionError, match=said):
        make_update(spec)


@pytest.mark.parametrize(
    ("spec", "document", "said"),
    [
        ({"$inc": {"a": 1}}, {"a": "x"}, "\\$inc 'a': there is 'x', which is no number"),
        ({"$inc": {"a": 1}}, {"a": None}, "no number"),
        ({"$mul": {"a": 2}}, {"a": True}, "no number"),
        ({"$set": {"a.b": 1}}, {"a": 5}, "'a' is 5, which has no fields"),
        ({"$set": {"a.b": 1}}, {"a": [1]}, "an array has places, not a field 'b'"),
        ({"$set": {"a.b.c": 1}}, {"a": [1]}, "an array has places"),
        ({"$set": {"a.999999999": 1}}, {"a": [1]}, "far behind the end"),
        ({"$push": {"a": 1}}, {"a": 5}, "\\$push 'a': there is 5, which is no array"),
        ({"$addToSet": {"a": 1}}, {"a": {}}, "no array"),
        ({"$pull": {"a": 1}}, {"a": "x"}, "no array"),
        ({"$pop": {"a": 1}}, {"a": 1}, "no array"),
        ({"$rename": {"a.0": "b"}}, {"a": [1]}, "an element of an array has no name"),
        ({"$rename": {"b": "a.0"}}, {"a": [1], "b": 1}, "an element of an array has no name"),
    ],
)
def test_what_cannot_be_done(spec: Any, document: dict[str, Any], said: str) -> None:
    given = copy.deepcopy(document)
    with pytest.raises(errors.ValidationError, match=said):
        make_update(spec).apply(document)
    assert document == given


def test_the_order_of_all_values() -> None:
    moment = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    rising = [
        None, math.nan, -math.inf, -1, 0, Decimal("0.5"), 1, 2**70, math.inf, "", "A", "a", "é", {}, {"a": 1}, {"b": 1},
        {"b": 1, "a": 0}, {"a": "x"}, [], [1], [1, 1], [2], b"", b"\xff", False, True, dt.date(2024, 1, 1),
        dt.datetime(2020, 1, 1), moment,
    ]  # fmt: skip
    falling = rising[::-1]
    assert repr(sorted(falling, key=sort_key(1))) == repr(rising)
    assert repr(sorted(rising, key=sort_key(-1))) == repr(falling)


def test_arrays_stand_where_their_ends_do() -> None:
    values: list[Any] = [[3, 9], 5, None, [], [{"b": 7}], [None, 20]]
    rows = [{"n": n} if value is None else {"n": n, "a": value} for n, value in enumerate(values)]
    up = [row["n"] for row in sorted(rows, key=sort_key({"a": 1}))]
    down = [row["n"] for row in sorted(rows, key=sort_key({"a": -1}))]
    assert up == [2, 3, 5, 0, 1, 4] and down == [4, 5, 0, 1, 2, 3]
    assert [row["n"] for row in sorted(rows, key=sort_key({"a.b": -1, "n": -1}))][0] == 4
    for wrong in (2, True, {}, {"a": 0}, {"a": "x"}, "a", None):
        with pytest.raises(errors.ConditionError, match="takes 1, -1"):
            sort_key(wrong)
