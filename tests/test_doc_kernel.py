"""Documents as bytes: each value comes back, every backend writes the same bytes, and damage is refused alike."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import math
import random
import struct
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import _ext

TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates too
OFFSETS = st.integers(-86_399_999_999, 86_399_999_999).map(lambda n: dt.timezone(dt.timedelta(microseconds=n)))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**63) - 3, -(2**63) + 3), st.integers(2**63 - 3, 2**64),
    st.floats(), TEXTS, st.binary(max_size=12), st.datetimes(), st.datetimes(timezones=OFFSETS), st.dates(),
    st.decimals(), st.uuids(),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXTS, inner, max_size=5))
)


def exact(value: Any) -> Any:
    """What tells values apart: types, order of names, signs of zero; NaN is like NaN."""
    if isinstance(value, dict):
        return "object", [(name, exact(one)) for name, one in value.items()]
    if isinstance(value, list):
        return "array", [exact(one) for one in value]
    if isinstance(value, dt.datetime):
        return "moment", value.replace(tzinfo=None, fold=0), value.utcoffset()
    return type(value), repr(value)


def backends() -> list[Any]:
    return [_ext.backend(name).doc for name in _ext.available() if name != "numpy"]  # NumPy's is the pure one


@settings(max_examples=300)
@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    written = {kernel.encode(value) for kernel in backends()}
    assert len(written) == 1
    for kernel in backends():
        for data in (written.copy().pop(), bytearray(*written), memoryview(*written)):
            assert exact(kernel.decode(data)) == exact(value)


@settings(max_examples=150)
@given(VALUES, st.randoms(use_true_random=False))
def test_damage_is_refused_alike(value: Any, draw: random.Random) -> None:
    whole = backends()[0].encode(value)
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 3)):
            data[draw.randrange(len(data))] = draw.choice((0, 1, 4, 255, draw.randrange(256)))
        cut = draw.choice((len(data), len(data), draw.randrange(len(data) + 1)))
        outcomes = []
        for kernel in backends():
            try:
                found = kernel.decode(data[:cut])
            except ValueError as error:
                assert str(error).startswith("a damaged document: ")
                outcomes.append("damage")
            else:
                outcomes.append(repr(exact(found)))
        assert len(set(outcomes)) == 1, (bytes(data[:cut]), outcomes)


def test_what_is_cut_off_is_damage(kernels: Any) -> None:
    doc = kernels.doc
    day = dt.date(2020, 1, 1)
    values = [None, 1, 2**80, 0.5, "é", b"x", dt.datetime(2020, 1, 1), day, Decimal("1.5"), uuid.UUID(int=7)]
    for value in [*values, values, {"a": values}, [], {}]:
        whole = doc.encode(value)
        for end in range(len(whole)):
            with pytest.raises(ValueError, match="damaged document"):
                doc.decode(whole[:end])
        with pytest.raises(ValueError, match="damaged document"):
            doc.decode(whole + b"\0")


def test_damage_of_each_kind(kernels: Any) -> None:
    def sized(tag: int, data: bytes) -> bytes:
        return bytes((tag,)) + struct.pack("<I", len(data)) + data

    one = b"\x01\0\0\0a\x00"
    for data in (
        b"\x0c", b"\xff", sized(4, b"\x01" * 8), sized(4, b"\x01" * 9 + b"\0"), sized(6, b"\xff"), sized(10, b"x"),
        sized(10, b"+1"), b"\x08" + struct.pack("<qq", 2**62, 0), b"\x08" + struct.pack("<qq", 0, 2**62),
        b"\x09" + struct.pack("<i", 2**31 - 1), b"\x11" + struct.pack("<IIII", 17 + 12, 2, 17, 23) + one + one,
        b"\x10" + struct.pack("<III", 15, 1, 14) + b"\0\0", b"\x10" + struct.pack("<II", 9, 2**32 - 1),
        b"\x10" + struct.pack("<II", 2**32 - 1, 2**30), b"\x10" + struct.pack("<IIII", 18, 2, 17, 17) + b"\0",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="damaged document"):
            kernels.doc.decode(data)


class Colour(enum.IntEnum):
    RED = 3


class Name(str):
    def __str__(self) -> str:
        return "another"

    def __len__(self) -> int:
        return 99


def test_derived_types_are_written_as_what_they_are(kernels: Any) -> None:
    doc = kernels.doc
    point = collections.namedtuple("point", "x y")(1, (2,))
    value = {
        Name("n"): Name("text"), "c": Colour.RED, "o": collections.OrderedDict(b=1, a=2), "t": point, "b": True,
        "d": collections.defaultdict(list, x=[1]),
    }  # fmt: skip
    found = doc.decode(doc.encode(value))
    assert exact(found) == exact(
        {"n": "text", "c": 3, "o": {"b": 1, "a": 2}, "t": [1, [2]], "b": True, "d": {"x": [1]}}
    )


def test_integers_of_other_libraries(kernels: Any) -> None:
    numpy = pytest.importorskip("numpy")
    assert exact(kernels.doc.decode(kernels.doc.encode([numpy.int8(-3), numpy.float64(0.5)]))) == exact([-3, 0.5])
    for value in (numpy.bool_(True), numpy.float32(0.5), numpy.zeros(2), numpy.datetime64("2020")):
        with pytest.raises(TypeError, match="cannot be stored"):
            kernels.doc.encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, print, range(3), dt.time(1), dt.timedelta(1), math])
def test_what_cannot_be_stored(kernels: Any, value: Any) -> None:
    for nested in (value, [value], {"a": [1, {"b": value}]}):
        with pytest.raises(TypeError, match="cannot be stored"):
            kernels.doc.encode(nested)
    for name in (1, None, b"a", (1,)):
        with pytest.raises(TypeError, match="a name is a str, not "):
            kernels.doc.encode({"a": {name: 1}})


def test_depth(kernels: Any) -> None:
    doc = kernels.doc
    value: Any = 1
    for number in range(doc.DEPTH):
        value = [value] if number % 2 else {"a": value}
    assert doc.decode(doc.encode(value)) == value
    with pytest.raises(ValueError, match="nested more than 200 deep"):
        doc.encode([value])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested more than 200 deep"):
        doc.encode(loop)
    data = b"\0"
    for _ in range(doc.DEPTH + 1):
        data = b"\x10" + struct.pack("<III", 13 + len(data), 1, 13) + data
    with pytest.raises(ValueError, match="damaged document: it is nested more than 200 deep"):
        doc.decode(data)


def test_a_container_that_changes_while_it_is_written(kernels: Any) -> None:
    fields: dict[str, Any] = {}
    items: list[Any] = []

    class Number:
        def __index__(self) -> int:
            fields.clear()
            items.clear()
            return 1

    for n in range(50):
        fields[f"f{n}"] = "x" * n
    fields["f3"] = Number()
    items.extend([Number(), *["y" * 99] * 50])
    for value in (fields, items):
        try:
            kernels.doc.encode(value)
        except (ValueError, RuntimeError) as error:
            assert "changed" in str(error)


def test_the_bytes(kernels: Any) -> None:
    """As docs/format.md says."""
    value = {"a": [None, True, -2], "é": "x"}
    inner = b"\x10" + struct.pack("<IIIII", 32, 3, 21, 22, 23) + b"\0\x02\x03" + struct.pack("<q", -2)
    fields = [b"\x01\0\0\0a" + inner, b"\x02\0\0\0\xc3\xa9\x06\x01\0\0\0x"]
    head = struct.pack("<IIII", 17 + sum(map(len, fields)), 2, 17, 17 + len(fields[0]))
    assert kernels.doc.encode(value) == b"\x11" + head + b"".join(fields)
    assert kernels.doc.encode(math.nan) == kernels.doc.encode(-math.nan) == b"\x05" + struct.pack("<Q", 0x7FF8 << 48)


BOUNDS = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
    st.sampled_from([2**53, 2.0**53, 2**53 + 1, 2**63 - 1, 2.0**63, -(2.0**63), -(2**63), 0.5, -0.5, 0, -0.0, 1]),
)  # fmt: skip
LONG = st.integers(-(2**70), 2**70)
NUMBERS = st.one_of(BOUNDS, LONG, st.just(math.nan), st.decimals(allow_nan=False), st.booleans())
NESTED = st.dictionaries(st.sampled_from("xé"), NUMBERS, max_size=2)
INNER = st.one_of(NUMBERS, TEXTS, st.lists(NUMBERS, max_size=2), NESTED)
JUDGED = st.dictionaries(st.sampled_from("aé"), INNER, max_size=2)


@settings(max_examples=300)
@given(
    st.lists(JUDGED, max_size=5), st.lists(st.sampled_from("aéx"), max_size=3), BOUNDS, BOUNDS, st.booleans(),
    st.booleans(), st.one_of(st.none(), TEXTS),
)  # fmt: skip
def test_documents_are_judged_alike(
    documents: list[Any], path: list[str], low: Any, high: Any, low_open: bool, high_open: bool, text: Any
) -> None:
    encoded = [backends()[0].encode(document) for document in documents]
    parts = tuple(name.encode() for name in path)
    wanted = None if text is None else text.encode("utf-8", "surrogatepass")
    found = {bytes(kernel.judge(encoded, parts, wanted, low, high, low_open, high_open)) for kernel in backends()}
    assert len(found) == 1 and len(found.pop()) == len(documents)


def test_what_is_no_question(kernels: Any) -> None:
    doc = kernels.doc
    whole = doc.encode({"a": 1})
    documents = [whole, doc.encode({"a": [1]}), doc.encode({"a": 2**70})]
    assert list(doc.judge(documents, (b"a",), None, 1, 1.0, False, False)) == [1, 2, 2]
    assert list(doc.judge([whole], (b"a",), None, 1, None, True, False)) == [0]
    for bound in (math.nan, 2**63):
        with pytest.raises((ValueError, OverflowError)):
            doc.judge([whole], (b"a",), None, bound, None, False, False)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="damaged document"):
            doc.judge([whole[:end]], (b"a",), None, 1, 1, False, False)
