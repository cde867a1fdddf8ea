"""Filters of documents: a table of cases whose answers follow from MongoDB's written rules."""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from decimal import Decimal
from typing import Any

import pytest

from snapdb import errors
from snapdb.document_filter import make_filter

UTC = dt.timezone.utc
MOMENT = dt.datetime(2024, 2, 29, 12, tzinfo=UTC)
PARIS = dt.timezone(dt.timedelta(hours=1))
ID = uuid.UUID(int=5)

#: filter, documents that match, documents that do not
CASES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    # equality
    ({}, [{}, {"a": 1}], []),
    ({"a": 1}, [{"a": 1}, {"a": 1.0}, {"a": Decimal(1)}, {"a": [2, 1]}], [{"a": True}, {"a": "1"}, {}, {"a": [[1]]}]),
    ({"a": True}, [{"a": True}, {"a": [True]}], [{"a": 1}, {"a": 1.0}, {"a": "True"}]),
    ({"a": 0}, [{"a": 0}, {"a": -0.0}], [{"a": False}, {"a": None}, {}]),
    ({"a": "x"}, [{"a": "x"}, {"a": ["y", "x"]}], [{"a": "X"}, {"a": b"x"}, {"a": "xx"}]),
    ({"a": b"x"}, [{"a": b"x"}], [{"a": "x"}]),
    ({"a": MOMENT}, [{"a": MOMENT}, {"a": MOMENT.astimezone(PARIS)}], [{"a": MOMENT.replace(tzinfo=None)}]),
    ({"a": dt.date(2024, 2, 29)}, [{"a": dt.date(2024, 2, 29)}], [{"a": dt.datetime(2024, 2, 29)}]),
    ({"a": ID}, [{"a": ID}], [{"a": str(ID)}, {"a": ID.bytes}]),
    ({"a": math.nan}, [{"a": math.nan}, {"a": [math.nan]}], [{"a": 0}, {"a": None}, {}]),
    ({"a": 2**63}, [{"a": 2**63}, {"a": 2.0**63}], [{"a": 2**63 + 1}, {"a": 2**63 - 1}]),
    ({"a": Decimal("0.1")}, [{"a": Decimal("0.10")}], [{"a": 0.1}]),
    ({"a": 1, "b": 2}, [{"a": 1, "b": 2}, {"b": 2, "a": [1]}], [{"a": 1}, {"b": 2}, {"a": 1, "b": 1}]),
    # null and missing
    ({"a": None}, [{"a": None}, {}, {"a": [None, 1]}], [{"a": 0}, {"a": []}, {"a": ""}, {"a": [1]}]),
    ({"a": {"$eq": None}}, [{"a": None}, {}], [{"a": False}]),
    ({"a": {"$ne": None}}, [{"a": 0}, {"a": []}], [{"a": None}, {}, {"a": [None]}]),
    ({"a": {"$gte": None}}, [{"a": None}, {}], [{"a": 0}, {"a": ""}]),
    ({"a": {"$lte": None}}, [{"a": None}, {}], [{"a": 0}]),
    ({"a": {"$gt": None}}, [], [{"a": None}, {}, {"a": 1}]),
    ({"a": {"$exists": True}}, [{"a": None}, {"a": []}, {"a": 0}], [{}, {"b": 1}]),
    ({"a": {"$exists": False}}, [{}, {"b": 1}], [{"a": None}]),
    ({"a": {"$exists": 0}}, [{}], [{"a": 1}]),
    ({"a": None, "b": {"$exists": True}}, [{"b": 1}], [{}, {"a": 1, "b": 1}]),
    ({"a": {"$in": [None]}}, [{}, {"a": None}], [{"a": 1}]),
    ({"a": {"$nin": [None, 1]}}, [{"a": 2}], [{}, {"a": None}, {"a": 1}, {"a": [2, 1]}]),
    ({"a": {"$type": "null"}}, [{"a": None}], [{}, {"a": 0}]),
    # comparison keeps to its family
    (
        {"a": {"$gt": 1}},
        [{"a": 2}, {"a": 1.5}, {"a": [0, 2]}, {"a": Decimal("1.1")}],
        [{"a": 1}, {"a": "2"}, {"a": True}, {}],
    ),
    ({"a": {"$lt": 1}}, [{"a": 0}, {"a": -math.inf}], [{"a": False}, {"a": None}, {}, {"a": math.nan}, {"a": []}]),
    ({"a": {"$gte": "b"}}, [{"a": "b"}, {"a": "ba"}, {"a": "é"}], [{"a": "a"}, {"a": "B"}, {"a": 5}, {"a": b"c"}]),
    ({"a": {"$gt": False}}, [{"a": True}], [{"a": 1}, {"a": False}]),
    (
        {"a": {"$gt": MOMENT}},
        [{"a": MOMENT + dt.timedelta(1)}],
        [{"a": MOMENT}, {"a": dt.datetime(2030, 1, 1)}, {"a": 9e99}],
    ),
    ({"a": {"$lte": b"b"}}, [{"a": b""}, {"a": b"b"}], [{"a": b"ba"}, {"a": "a"}]),
    ({"a": {"$gt": 2, "$lt": 4}}, [{"a": 3}, {"a": [1, 5]}, {"a": [3]}], [{"a": 5}, {"a": [5, 6]}, {"a": []}]),
    ({"a": {"$gte": math.nan}}, [{"a": math.nan}], [{"a": 1}, {"a": math.inf}]),
    ({"a": {"$gt": [1, 2]}}, [{"a": [1, 3]}, {"a": [2]}, {"a": [1, 2, 0]}], [{"a": [1, 2]}, {"a": [1]}, {"a": 5}]),
    (
        {"a": {"$gt": {"x": 1}}},
        [{"a": {"x": 2}}, {"a": {"x": 1, "y": 0}}],
        [{"a": {"x": 1}}, {"a": {"x": 0}}, {"a": 2}],
    ),
    ({"a": {"$ne": 1}}, [{"a": 2}, {}, {"a": True}, {"a": [2]}], [{"a": 1}, {"a": [1, 2]}, {"a": 1.0}]),
    # arrays
    ({"a": [1, 2]}, [{"a": [1, 2]}, {"a": [[1, 2], 3]}], [{"a": [2, 1]}, {"a": [1, 2, 3]}, {"a": 1}]),
    ({"a": []}, [{"a": []}, {"a": [[]]}], [{"a": [1]}, {"a": None}, {}]),
    ({"a": {"$size": 2}}, [{"a": [1, 2]}, {"a": [[], {}]}], [{"a": [1]}, {"a": {"x": 1, "y": 2}}, {"a": "ab"}, {}]),
    ({"a": {"$size": 0}}, [{"a": []}], [{}, {"a": None}, {"a": [[]]}]),
    ({"a": {"$all": [1, 2]}}, [{"a": [2, 3, 1]}], [{"a": [1]}, {"a": 1}, {"a": []}]),
    ({"a": {"$all": [1]}}, [{"a": 1}, {"a": [1]}], [{"a": 2}]),
    ({"a": {"$all": []}}, [], [{"a": []}, {"a": [1]}, {}]),
    ({"a": {"$all": [[1, 2]]}}, [{"a": [1, 2]}, {"a": [[1, 2]]}], [{"a": [1, 2, 3]}]),
    (
        {"a": {"$all": [{"$elemMatch": {"x": 1}}, {"$elemMatch": {"x": 2}}]}},
        [{"a": [{"x": 2}, {"x": 1}]}],
        [{"a": [{"x": 1}]}, {"a": {"x": 1}}],
    ),
    ({"a": {"$elemMatch": {"$gt": 2, "$lt": 4}}}, [{"a": [1, 3]}], [{"a": [1, 5]}, {"a": 3}, {"a": [[3]]}, {}]),
    (
        {"a": {"$elemMatch": {"x": 1, "y": {"$gt": 1}}}},
        [{"a": [{"x": 1, "y": 2}]}, {"a": [5, {"x": [1], "y": [0, 9]}]}],
        [{"a": [{"x": 1, "y": 1}, {"x": 2, "y": 2}]}, {"a": {"x": 1, "y": 2}}],
    ),
    ({"a": {"$elemMatch": {"0": 5}}}, [{"a": [[5]]}, {"a": [{"0": 5}]}], [{"a": [5]}, {"a": [[6]]}]),
    ({"a": {"$elemMatch": {"$ne": 1}}}, [{"a": [1, 2]}], [{"a": [1, 1]}, {"a": []}, {"a": 2}]),
    ({"a": {"$elemMatch": {"$or": [{"x": 1}, {"y": 1}]}}}, [{"a": [{"y": 1}]}], [{"a": [{"z": 1}]}, {"a": [1]}]),
    ({"a": {"$contains": "b"}}, [{"a": "abc"}, {"a": ["b"]}], [{"a": "ac"}, {"a": ["abc"]}, {}, {"a": 1}]),
    ({"a": {"$contains": 1}}, [{"a": [1]}, {"a": [1.0, 2]}], [{"a": 1}, {"a": [True]}, {"a": "1"}]),
    # paths
    (
        {"a.b": 1},
        [{"a": {"b": 1}}, {"a": [{"b": 2}, {"b": 1}]}, {"a": {"b": [1]}}],
        [{"a.b": 1}, {"a": 1}, {"a": [[{"b": 1}]]}],
    ),
    ({"a.b.c": 1}, [{"a": [{"b": [{"c": 1}]}]}], [{"a": {"b": 1}}, {"a": [{"b": [[{"c": 1}]]}]}]),
    (
        {"a.b": None},
        [{}, {"a": 4}, {"a": {}}, {"a": {"b": None}}, {"a": [{"b": 1}, {}]}],
        [{"a": {"b": 1}}, {"a": []}, {"a": [1, 2]}],
    ),
    ({"a.b": {"$exists": False}}, [{}, {"a": []}, {"a": [1]}, {"a": {}}], [{"a": {"b": None}}, {"a": [{}, {"b": 1}]}]),
    ({"a.0": 5}, [{"a": [5, 6]}, {"a": {"0": 5}}, {"a": [{"0": 5}]}], [{"a": [6, 5]}, {"a": 5}, {"a": [[5]]}]),
    ({"a.0": [5]}, [{"a": [[5]]}], [{"a": [5]}, {"a": [[[5]]]}]),
    ({"a.0.b": 1}, [{"a": [{"b": 1}]}, {"a": {"0": {"b": [1]}}}], [{"a": [{}, {"b": 1}]}]),
    ({"a.1.0": 7}, [{"a": [0, [7]]}], [{"a": [7]}, {"a": [[7]]}]),
    ({"a.01": 7}, [{"a": {"01": 7}}], [{"a": [0, 7]}]),
    ({"a.0": {"$exists": True}}, [{"a": [0]}, {"a": [None]}], [{"a": []}, {"a": {}}]),
    ({"a.b": {"$ne": 1}}, [{"a": []}, {"a": [{"b": 2}]}, {}], [{"a": [{"b": 2}, {"b": 1}]}]),
    # sub-documents
    (
        {"a": {"x": 1, "y": 2}},
        [{"a": {"x": 1, "y": 2}}, {"a": [{"x": 1.0, "y": 2}]}],
        [{"a": {"y": 2, "x": 1}}, {"a": {"x": 1}}],
    ),
    ({"a": {}}, [{"a": {}}, {"a": [{}]}], [{"a": {"x": 1}}, {"a": None}, {}, {"a": []}]),
    ({"a": {"x": True}}, [{"a": {"x": True}}], [{"a": {"x": 1}}]),
    ({"a": {"x": {"y": None}}}, [{"a": {"x": {"y": None}}}], [{"a": {"x": {}}}, {"a": {"x": None}}]),
    # operators on operators
    ({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 3}}]}, [{"a": 2}, {"a": [0, 9]}], [{"a": 1}, {"a": 3}]),
    ({"$or": [{"a": 1}, {"b": 1}]}, [{"a": 1}, {"b": 1}, {"a": 2, "b": 1}], [{"a": 2}, {}]),
    ({"$nor": [{"a": 1}, {"b": 1}]}, [{}, {"a": 2}], [{"a": 1}, {"b": 1}]),
    ({"a": 1, "$or": [{"b": 1}, {"b": None}]}, [{"a": 1}, {"a": 1, "b": 1}], [{"b": 1}, {"a": 1, "b": 2}]),
    ({"a": {"$not": {"$gt": 1}}}, [{"a": 1}, {}, {"a": "2"}, {"a": None}], [{"a": 2}, {"a": [0, 2]}]),
    ({"a": {"$not": {"$gt": 1, "$lt": 3}}}, [{"a": 5}, {"a": 0}], [{"a": 2}, {"a": [0, 5]}]),
    ({"a": {"$not": {"$not": {"$eq": 1}}}}, [{"a": 1}], [{"a": 2}, {}]),
    ({"a": {"$not": re.compile("^x")}}, [{"a": "y"}, {}, {"a": 1}], [{"a": "xy"}, {"a": ["y", "x"]}]),
    ({"a": {"$in": [1, "x"]}}, [{"a": 1.0}, {"a": "x"}, {"a": [9, "x"]}], [{"a": True}, {"a": [["x"]]}, {}]),
    ({"a": {"$in": [[1, 2], 3]}}, [{"a": [1, 2]}, {"a": 3}, {"a": [[1, 2]]}], [{"a": 1}, {"a": [2, 1]}]),
    ({"a": {"$in": []}}, [], [{}, {"a": None}, {"a": []}]),
    ({"a": {"$nin": []}}, [{}, {"a": 1}], []),
    ({"a": {"$in": [re.compile("^x"), 1]}}, [{"a": "xy"}, {"a": 1}, {"a": ["z", "xx"]}], [{"a": "yx"}]),
    # text, types, remainders
    ({"a": {"$regex": "^x.z$"}}, [{"a": "xyz"}, {"a": ["q", "xyz"]}], [{"a": "XYZ"}, {"a": 1}, {}, {"a": None}]),
    ({"a": {"$regex": "x", "$options": "i"}}, [{"a": "aX"}], [{"a": "y"}]),
    ({"a": {"$options": "m", "$regex": "^b"}}, [{"a": "a\nb"}], [{"a": "ab"}]),
    ({"a": re.compile("x", re.IGNORECASE)}, [{"a": "X"}], [{"a": "y"}, {"a": b"x"}]),
    ({"a": {"$regex": "x", "$ne": "x"}}, [{"a": "xy"}], [{"a": "x"}, {"a": "y"}]),
    (
        {"a": {"$type": "number"}},
        [{"a": 1}, {"a": 1.5}, {"a": Decimal(1)}, {"a": ["x", 1]}],
        [{"a": True}, {"a": "1"}, {}],
    ),
    ({"a": {"$type": "int"}}, [{"a": 2**31 - 1}, {"a": -(2**31)}], [{"a": 2**31}, {"a": 1.0}, {"a": False}]),
    ({"a": {"$type": ["long", "bool"]}}, [{"a": 2**31}, {"a": True}], [{"a": 1}, {"a": "x"}]),
    ({"a": {"$type": 4}}, [{"a": []}, {"a": [1]}], [{"a": {}}, {"a": "x"}, {}]),
    ({"a": {"$type": "date"}}, [{"a": MOMENT}, {"a": dt.date(2020, 1, 1)}], [{"a": "2020-01-01"}, {"a": 1}]),
    ({"a": {"$type": "binData"}}, [{"a": b""}, {"a": ID}], [{"a": ""}]),
    (
        {"a": {"$mod": [4, 1]}},
        [{"a": 5}, {"a": 5.7}, {"a": [2, 9]}],
        [{"a": 4}, {"a": -5}, {"a": "5"}, {"a": True}, {"a": math.inf}],
    ),
    ({"a": {"$mod": [4, -1]}}, [{"a": -5}], [{"a": 5}, {"a": 3}, {"a": math.nan}]),
]


@pytest.mark.parametrize(("spec", "matching", "others"), CASES, ids=[repr(case[0])[:70] for case in CASES])
def test_case(spec: dict[str, Any], matching: list[Any], others: list[Any]) -> None:
    wanted = make_filter(spec)
    assert [one for one in matching if not wanted.matches(one)] == []
    assert [one for one in others if wanted.matches(one)] == []
    if all(not name.startswith("$") for name in spec):
        for name, condition in spec.items():  # what is denied is what does not match, of each field alone
            operators = condition if isinstance(condition, dict) and any(k[:1] == "$" for k in condition) else None
            denied = (
                make_filter({name: {"$not": operators or {"$eq": condition}}})
                if type(condition) is not re.Pattern
                else None
            )
            for one in [*matching, *others]:
                if denied is not None:
                    assert denied.matches(one) != make_filter({name: condition}).matches(one)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"a": {"$gte2": 1}}, "there is no operator \\$gte2; did you mean \\$gte"),
        ({"$where": "1"}, "there is no operator \\$where"),
        ({"a": {"$near": 1}}, "there is no operator \\$near"),
        ({"a": {"$gt": 1, "b": 2}}, "operators and fields do not mix"),
        ({"a": {"$in": "xyz"}}, "\\$in and \\$nin take a list, not str 'xyz'"),
        ({"a": {"$nin": 5}}, "take a list"),
        ({"a": {"$all": 5}}, "\\$all takes a list"),
        ({"a": {"$size": 1.5}}, "\\$size takes a whole number"),
        ({"a": {"$size": -1}}, "not negative"),
        ({"a": {"$size": True}}, "whole number"),
        ({"a": {"$regex": "("}}, "\\$regex '\\('"),
        ({"a": {"$regex": 5}}, "\\$regex takes a text"),
        ({"a": {"$regex": "a", "$options": "q"}}, "\\$options has 'q'"),
        ({"a": {"$options": "i"}}, "\\$options is for \\$regex"),
        ({"a": {"$type": "nope"}}, "there is no type 'nope'"),
        ({"a": {"$type": True}}, "there is no type True"),
        ({"a": {"$mod": [0, 1]}}, "the divisor is 0"),
        ({"a": {"$mod": [1]}}, "\\$mod takes"),
        ({"a": {"$mod": ["4", 1]}}, "\\$mod takes"),
        ({"a": {"$not": 5}}, "\\$not takes operators"),
        ({"a": {"$not": {}}}, "\\$not takes operators"),
        ({"a": {"$elemMatch": 5}}, "\\$elemMatch takes a dict"),
        ({"$and": []}, "\\$and takes a list of filters, one at least"),
        ({"$or": {"a": 1}}, "\\$or takes a list"),
        ({"$nor": [5]}, "a filter is a dict, not int 5"),
        ({1: 2}, "names of fields, not int 1"),
        ([("a", 1)], "a filter is a dict, not list"),
        ("a", "a filter is a dict, not str"),
        ({"a": {1, 2}}, "cannot compare with"),
        ({"a": {"$gt": object()}}, "cannot compare with"),
        ({"a": {"b": [object()]}}, "cannot compare with"),
    ],
)
def test_what_is_refused(spec: Any, said: str) -> None:
    with pytest.raises(errors.ConditionError, match=said):
        make_filter(spec)
    with pytest.raises(ValueError, match=said):
        make_filter({"$and": [{"x": 1}, spec]} if isinstance(spec, dict) else spec)
