"""Many segments at a call give what each segment alone gives, and what plain Python says."""

from __future__ import annotations

import random
import threading
import time
from array import array
from typing import Any, Callable

import pytest
import reference_chunks
from chunk_columns import CASES, columns
from hypothesis import given, settings
from hypothesis import strategies as st

from snapdb import ColumnDef, Schema, SnapDB, scan
from snapdb._ext import _common as c
from snapdb.columnar_view import ColumnarView

ROWS = c.SEGMENT + 9000  # a closed segment, blocks of an open one and a tail
SCHEMA = Schema([
    ColumnDef("id", "i32"),
    ColumnDef("sensor", "u8"),
    ColumnDef("wide", "i64", not_null=False),
    ColumnDef("temp", "f64", not_null=False),
    ColumnDef("narrow", "f32"),
    ColumnDef("status", "str", not_null=False),
    ColumnDef("name", "str"),
    ColumnDef("on", "bool", not_null=False),
])  # fmt: skip
NAMES = list(SCHEMA.names)
Row = dict[str, Any]


def one_row(rng: random.Random, i: int) -> Row:
    return {
        "id": i,
        "sensor": i % 16,
        "wide": None if i % 7 == 0 else rng.randrange(-(2**40), 2**40),
        "temp": None if i % 11 == 0 else float("nan") if i % 501 == 0 else rng.choice([-0.0, 0.5, rng.uniform(-5, 5)]),
        "narrow": rng.choice([0.25, 1.5, -3.0, 7.75]),
        "status": None if i % 13 == 0 else ("active", "idle", "banned")[i % 3],
        "name": f"n{rng.randrange(10**9)}",
        "on": None if i % 17 == 0 else i % 2 == 0,
    }


def make_rows(rows: int = ROWS) -> list[Row]:
    rng = random.Random(5)
    return [one_row(rng, i) for i in range(rows)]


ALL_ROWS = make_rows()
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "in": lambda a, b: a in b,
    "between": lambda a, b: b[0] <= a <= b[1],
}


def holds(row: Row, condition: tuple[str, str, Any]) -> bool:
    name, op, wanted = condition
    value = row[name]
    if op == "is_null":
        return value is None
    if value is None:
        return False
    if op == "!=":
        return bool(value != wanted)
    return op == "not_null" or OPERATORS[op](value, wanted)


CONDITIONS: list[tuple[str, str, Any]] = [
    ("id", "<", 70000),
    ("id", ">=", 65536),
    ("id", "between", (1000, 66000)),
    ("id", ">", 10**9),
    ("id", ">=", 0),
    ("sensor", ">", 8),
    ("sensor", "!=", 3),
    ("sensor", "in", [1, 5, 9]),
    ("wide", "<", 0),
    ("wide", "!=", 1),
    ("wide", "is_null", None),
    ("wide", "not_null", None),
    ("temp", "<", 0.5),
    ("temp", "==", 0.0),
    ("temp", "!=", 0.5),
    ("narrow", ">", 0.25),
    ("narrow", "in", [1.5, 7.75]),
    ("status", "==", "active"),
    ("status", "!=", "idle"),
    ("status", "in", ["banned", "none"]),
    ("status", ">", "b"),
    ("name", "<", "n5"),
    ("on", "==", True),
    ("on", "!=", True),
]


class Table:
    """A table, and its rows in plain Python."""

    def __init__(self, backend: str, rows: list[Row], change: bool) -> None:
        self.db = SnapDB(":memory:", SCHEMA, storage_type="columnar")
        self.db.batch_insert(rows)
        self.rows = dict(enumerate(rows))
        if change:
            for i in (3, 1024, 40000, len(rows) - 1):
                self.delete(i)
            self.db.update(50000, {"sensor": 15, "temp": 99.5})
            self.rows[50000] = {**self.rows[50000], "sensor": 15, "temp": 99.5}

    def delete(self, i: int) -> None:
        self.db.delete(i)
        del self.rows[i]

    def matching(self, conditions: list[tuple[str, str, Any]], combine: str) -> list[Row]:
        join = all if combine == "and" else any
        return [row for row in self.rows.values() if not conditions or join(holds(row, one) for one in conditions)]


_tables: dict[tuple[str, bool], Table] = {}


@pytest.fixture(params=[False, True], ids=["fresh", "changed"])
def table(request: pytest.FixtureRequest, backend_name: str) -> Table:
    key = backend_name, request.param
    if key not in _tables:
        _tables[key] = Table(backend_name, ALL_ROWS, request.param)
    return _tables[key]


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Runs a call segment by segment, without the sweep."""

    def run(call: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(ColumnarView, "sweep", scan.View.sweep)
            return call()

    return run


def same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)  # NaN is itself, -0.0 is not 0.0


PICKS = st.lists(st.sampled_from(CONDITIONS), max_size=4)


@given(conditions=PICKS, combine=st.sampled_from(["and", "or"]), data=st.data())
@settings(max_examples=15, deadline=None)
def test_every_answer(
    table: Table, slowly: Any, conditions: list[tuple[str, str, Any]], combine: str, data: st.DataObject
) -> None:
    db = table.db
    expected = table.matching(conditions, combine)
    assert db.count_where(conditions, combine=combine) == len(expected)
    found = db.select_where(conditions, columns=["id"], combine=combine)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    few = db.select_where(conditions, columns=["id"], combine=combine, limit=7, offset=5)
    assert few == found[5:12]
    if combine == "or":
        return
    name = data.draw(st.sampled_from(["id", "sensor", "wide", "temp", "narrow"]))
    values = [row[name] for row in expected if row[name] is not None]
    assert db.aggregate(name, "count", where=conditions) == len(values)
    for agg in ("sum", "min", "max", "avg"):
        answer = db.aggregate(name, agg, where=conditions)
        assert same(answer, slowly(lambda agg=agg: db.aggregate(name, agg, where=conditions)))
    if name in ("id", "sensor", "wide"):
        assert db.aggregate(name, "sum", where=conditions) == sum(values)
    numbers = [value for value in values if value == value]
    if numbers:
        assert db.aggregate(name, "min", where=conditions) == min(numbers)
        assert db.aggregate(name, "max", where=conditions) == max(numbers)


def test_each_condition(table: Table, slowly: Any) -> None:
    for condition in CONDITIONS:
        expected = table.matching([condition], "and")
        assert table.db.count_where([condition]) == len(expected), condition
        for text in ("status", "name", "on"):
            answer = table.db.aggregate(text, "max", where=[condition])
            known = [row[text] for row in expected if row[text] is not None]
            assert answer == (max(known) if known else None), (condition, text)


def test_zone_maps_change_nothing(table: Table) -> None:
    engine: Any = table.db._engine
    for name in ("id", "wide", "temp", "narrow"):
        for where in (None, [("id", ">=", 0)], [("id", "<", 65536)]):
            for agg in ("sum", "count", "min", "max"):
                answers = []
                for on in (True, False):
                    engine.zone_answers = on
                    answers.append(table.db.aggregate(name, agg, where=where))
                engine.zone_answers = True
                assert same(*answers), (name, where, agg)


def test_many_conditions(table: Table) -> None:
    conditions = [("id", "!=", i) for i in range(80)]
    assert table.db.count_where(conditions) == len(table.matching(conditions, "and"))


# -- chunks of every form --------------------------------------------------
def sweep_over(kernels: Any, code: int, values: list[Any], chunk: Any) -> Any:
    return kernels.codecs.Sweep([[(chunk, None)]], [[None]], [{}], [None], len(values))


def term(kind: str, lo: Any = None, hi: Any = None, values: Any = (), negate: bool = False) -> tuple[Any, ...]:
    return 0, kind, lo, hi, False, False, values, negate


def asked_of(code: int, values: list[Any]) -> list[tuple[Any, ...]]:
    known = sorted({value for value in values if value is not None and value == value})
    if not known:
        return [term("null"), term("not_null")]
    low, high = known[len(known) // 3], known[2 * len(known) // 3]
    some = tuple(known[:: max(1, len(known) // 6)])
    return [
        term("range", low, high),
        term("range", low, low),
        term("range", low, high, negate=True),
        term("range", known[0], high),
        term("in", values=some),
        term("in", values=some, negate=True),
        term("null"),
        term("not_null"),
        term("never", negate=True),
        term("never"),
    ]


FORMS = sorted({(code, name) for code, name in CASES if code in (c.I32, c.F32, c.F64, c.STR)})


@pytest.mark.parametrize("code", sorted({code for code, _ in FORMS}))
def test_every_form(kernels: Any, code: int) -> None:
    """The sweep against the chunk's own verbs, whatever its codec and layout are."""
    masks, codecs = kernels.mask, kernels.codecs
    for name in [name for other, name in FORMS if other == code]:
        values = columns(code)[name]
        for form, data in reference_chunks.every_form(code, values):
            chunk = codecs.Chunk(data)
            sweep = sweep_over(kernels, code, values, chunk)
            for one in asked_of(code, values):
                expected = mask_of(masks, chunk, one)
                found = sweep.masks(codecs.Filter([one]), 0, 1)
                assert found[1] == 1
                got = masks.empty(len(values)) if not found[0] else found[0][0][1]
                got = masks.full(len(values)) if got is None else got
                assert got == expected, (name, form, one)
                assert sweep.count(codecs.Filter([one]), 0) == (masks.count(expected), 1), (name, form, one)
                start: Any = 0.0 if code in c.FLOATS else 0
                if code not in c.VARLEN and masks.any_set(expected):
                    total = chunk.sum(expected, start)
                    assert same(sweep.sum(codecs.Filter([one]), 0, 0, start, False), (total, 1)), (name, form, one)


@pytest.mark.parametrize("step", [1, 3, 2**40, 10**15, 2**61, 2**62, 3 * 2**60])
def test_half_open_ranges_of_steps(kernels: Any, step: int) -> None:
    """The largest code times the step may be past what 61 or 63 bits hold."""
    rng = random.Random(step)
    for base in (0, -5, -(2**60), 2**60):
        most = min(2**40, (2**63 - 1 - base) // step)
        values = [base + step * rng.randint(0, most) for _ in range(1024)]
        values[:2] = [base, base + step * most]
        chunk = encoded(kernels, c.I64, values)
        sweep = sweep_over(kernels, c.I64, values, chunk)
        for bound in (base - 1, base, base + 1, base + step, 0, values[2], values[1]):
            below, above = sum(value <= bound for value in values), sum(value >= bound for value in values)
            assert sweep.count(kernels.codecs.Filter([term("range", None, bound)]), 0) == (below, 1), (base, bound)
            assert sweep.count(kernels.codecs.Filter([term("range", bound, None)]), 0) == (above, 1), (base, bound)


def mask_of(masks: Any, chunk: Any, one: tuple[Any, ...]) -> bytearray:
    _, kind, lo, hi, _, _, values, negate = one
    valid: bytearray = chunk.valid()
    found: bytearray
    if kind == "null":
        found = masks.full(chunk.rows)
        masks.andnot_into(found, valid)
        return found
    if kind == "not_null":
        return valid
    if kind == "never":
        found = masks.empty(chunk.rows)
    elif kind == "in":
        found = chunk.select_in(values)
    else:
        found = chunk.select(lo, hi)
    if negate:
        masks.andnot_into(valid, found)
        return valid
    return found


def grouped_keys(kernels: Any) -> list[Any]:
    rng = random.Random(3)
    rows = 5 * 1024
    keys = [
        (c.I32, [i % 9 + 100 for i in range(rows)]),
        (c.I32, [i // 700 for i in range(rows)]),
        (c.I64, [rng.randrange(5000) * 3 for _ in range(rows)]),
        (c.STR, [(b"idle", b"active", b"banned")[rng.randrange(3)] for _ in range(rows)]),
        (c.STR, [None if i % 5 == 0 else b"x%d" % (i % 3) for i in range(rows)]),
        (c.F64, [(0.0, -0.0, 1.5, float("nan"))[i % 4] for i in range(rows)]),
        (c.BOOL, [i % 3 == 0 for i in range(rows)]),
        (c.I64, [7] * rows),
    ]
    return [encoded(kernels, code, values) for code, values in keys]


def encoded(kernels: Any, code: int, values: list[Any]) -> Any:
    buffer = kernels.values.ColumnBuffer(code)
    for value in values:
        buffer.append(value)
    return kernels.codecs.encode(buffer, 0, len(values))[0]


def test_grouped(kernels: Any) -> None:
    """One call gives what grouping, and then counting and adding up by group numbers, gives."""
    rng = random.Random(4)
    rows = 5 * 1024
    special = [-0.0, 1e300, -1e300, float("nan"), 0.1]
    columns_of_values = [
        (c.F64, [rng.choice(special) if i % 50 == 0 else rng.uniform(-9, 9) for i in range(rows)]),
        (c.F32, [None if i % 3 == 0 else i / 8 for i in range(rows)]),
        (c.I64, [rng.getrandbits(63) - 2**62 for _ in range(rows)]),
        (c.U64, [rng.getrandbits(64) for _ in range(rows)]),
        (c.I32, [None if i % 4 == 1 else i % 1000 - 500 for i in range(rows)]),
        (c.U8, [i % 16 for i in range(rows)]),
        (c.BOOL, [i % 2 == 0 for i in range(rows)]),
        (c.I16, [None] * rows),
    ]
    chunks = [encoded(kernels, code, values) for code, values in columns_of_values]
    wanted = [(chunk, kind) for chunk in chunks for kind in ("sum", "count")]
    some = kernels.mask.from_ids(array("I", [row for row in range(2000, rows) if row % 7 < 3]), rows)
    for key in grouped_keys(kernels):
        for mask in (None, some, kernels.mask.empty(rows), kernels.mask.from_ids(array("I", [4000]), rows)):
            for asked in (wanted, [*wanted, (chunks[2], "bounds")]):
                codes, first = key.group(mask)
                found, answers = key.grouped(mask, asked)
                assert found.tolist() == first.tolist()
                for (chunk, kind), answer in zip(asked, answers):
                    assert same(answer, getattr(chunk, f"group_{kind}")(codes, len(first))), (key.codec, kind)
    with pytest.raises(ValueError):
        key.grouped(None, [(chunks[0], "median")])


def halves(kernels: Any, code: int, values: list[Any], base: int) -> list[Any]:
    """Two chunks, the first of them sealed, and one of all rows."""
    buffer, rest = kernels.values.ColumnBuffer(code), kernels.values.ColumnBuffer(code)
    for row, value in enumerate(values):
        buffer.append(value)
        if row >= base:
            rest.append(value)
    view = kernels.codecs.Chunk.view
    return [kernels.codecs.encode(buffer, 0, base)[0], view(rest), view(buffer)]


@pytest.mark.parametrize("rest", [1, 700, 1024, 2500])
def test_grouped_on(kernels: Any, rest: int) -> None:
    """Grouping over two chunks is grouping over one of all their rows, to the last bit."""
    rng = random.Random(rest)
    base = 3 * 1024
    rows = base + rest
    some = kernels.mask.from_ids(array("I", [i for i in range(rows) if rng.random() < 0.5]), rows)
    late = bytes(base // 8) + some[base // 8 :]
    floats = [None if i % 11 == 0 else rng.uniform(-9, 9) * 10 ** rng.randrange(12) for i in range(rows)]
    values = [
        halves(kernels, code, some_values, base)
        for code, some_values in (
            (c.F64, floats),
            (c.F32, [None if i % 3 == 0 else i / 8 for i in range(rows)]),
            (c.I64, [rng.getrandbits(63) - 2**62 for _ in range(rows)]),
            (c.I16, [None] * rows),
        )
    ]
    wanted = [(at, kind) for at in range(len(values)) for kind in ("sum", "count")]
    texts = [b"idle", b"active", b"banned", b""]
    known = 0
    for code, keys in (
        (c.STR, [rng.choice(texts) for _ in range(rows)]),
        (c.STR, [rng.choice(texts[:2] if i < base else texts) for i in range(rows)]),
        (c.STR, [texts[2] if i == 5 else rng.choice(texts[2:] if i >= base else texts[:2]) for i in range(rows)]),
        (c.I32, [rng.randrange(-9, 9) * 3 for _ in range(rows)]),
        (c.I32, [rng.randrange(-9, 9) * 3 + (i >= base) for i in range(rows)]),
        (c.U64, [2**64 - 1 - rng.randrange(300) for _ in range(rows)]),
        (c.I64, [rng.choice([-(2**63), 2**63 - 1, 0]) for _ in range(rows)]),
        (c.I64, [None if i > base and i % 7 == 0 else i % 5 for i in range(rows)]),
        (c.F64, [i % 3 / 2 for i in range(rows)]),
        (c.BOOL, [i % 3 == 0 for i in range(rows)]),
    ):
        sealed, tail, whole = halves(kernels, code, keys, base)
        for mask in (None, some, late, bytes(len(some))):
            found = sealed.grouped_on(
                mask, [(values[at][0], kind) for at, kind in wanted], tail, [values[at][1] for at, _ in wanted]
            )
            if found is None:
                continue
            known += 1
            codes, first = whole.group(mask)
            assert found[0].tolist() == first.tolist()
            for (at, kind), answer in zip(wanted, found[1]):
                assert same(answer, getattr(values[at][2], f"group_{kind}")(codes, len(first))), (code, kind)
    if kernels.name != "c":
        assert known == 0
        return
    assert known >= 16
    sealed, tail, _ = halves(kernels, c.I32, [i % 7 for i in range(rows)], base)
    with pytest.raises(ValueError, match="a mask over"):
        sealed.grouped_on(bytes(3), [], tail, [])


# -- what it cannot do alone -----------------------------------------------
def lists(kernels: Any, segments: int = 3) -> tuple[Any, ...]:
    buffer = kernels.values.ColumnBuffer(c.I32)
    for i in range(c.SEGMENT):
        buffer.append(i % 100)
    chunk, zone = kernels.codecs.encode(buffer, 0, c.SEGMENT)
    tail = kernels.values.ColumnBuffer(c.I32)
    for i in range(10):
        tail.append(i)
    parts = [(chunk, None)] * (segments - 1) + [(None, tail)]
    return [parts], [[zone] * (segments - 1) + [None]], [{}], [None] * segments, c.SEGMENT * (segments - 1) + 10


def test_it_stops(kernels: Any) -> None:
    codecs = kernels.codecs
    parts, zones, overlays, deleted, rows = lists(kernels)
    some = codecs.Filter([term("range", 3, 5)])
    share = sum(3 <= i % 100 <= 5 for i in range(c.SEGMENT))
    assert codecs.Sweep(parts, zones, overlays, deleted, rows).count(some, 0) == (2 * share + 3, 3)
    updated = codecs.Sweep(parts, zones, [{1: {5: 1}}], deleted, rows)
    assert updated.count(some, 0) == (share, 1)
    assert updated.count(some, 1) == (0, 1)
    assert updated.count(some, 2) == (3, 3)
    assert updated.count(codecs.Filter([term("range", 1000, 2000)]), 0) == (0, 3)  # the zone maps settle it
    unread = codecs.Sweep([[parts[0][0], object(), parts[0][2]]], zones, overlays, deleted, rows)
    assert unread.sum(some, 0, 0, 0, True)[1] == 1
    gone = codecs.Sweep([[None, *parts[0][1:]]], zones, overlays, deleted, rows)
    assert gone.count(None, 0) == (c.SEGMENT + 10, 3)
    for call in (lambda: gone.count(None, 4), lambda: gone.count(None, -1), lambda: gone.values(None, 1, 0, True)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        gone.count(codecs.Filter([(7, "range", 1, 2, False, False, (), False)]), 0)
    one = codecs.Sweep([*parts, []], [*zones, []], [{}, {}], deleted, rows)
    other = codecs.Filter([(1, "range", 1, 2, False, False, (), False)])
    for call in (lambda: one.count(other, 0), lambda: one.sum(None, 1, 0, 0, False), lambda: one.masks(other, 0, 1)):
        with pytest.raises(ValueError, match="column 1 is not in this sweep"):
            call()
    for wrong in ((parts, [*zones, []], [{}], deleted), (parts, zones, [], deleted), (parts, zones, [{}], [])):
        with pytest.raises(ValueError, match="differ"):
            codecs.Sweep(*wrong, rows)


def test_masks_in_portions(kernels: Any) -> None:
    codecs = kernels.codecs
    sweep = codecs.Sweep(*lists(kernels))
    some = codecs.Filter([term("range", 3, 5)])
    found, k = sweep.masks(some, 0, 1)
    assert [at for at, _ in found] == [0] and k == 1
    found, k = sweep.masks(some, k, 10**9)
    assert [at for at, _ in found] == [1, 2] and k == 3
    assert sweep.masks(None, 0, 10**9)[0] == [(0, None), (1, None), (2, None)]


def test_deleted_rows(kernels: Any) -> None:
    codecs, masks = kernels.codecs, kernels.mask
    parts, zones, overlays, _, rows = lists(kernels, 2)
    dead = masks.from_ids(array("I", [3, 4, 103]), c.SEGMENT)
    short = masks.from_ids(array("I", [9]), 10)
    sweep = codecs.Sweep(parts, zones, overlays, [dead, short], rows)
    assert sweep.count(None, 0) == (rows - 4, 2)
    assert sweep.sum(None, 0, 0, 0, True)[0] == sum(i % 100 for i in range(c.SEGMENT)) - 10 + 36
    assert sweep.bounds(None, 0, 0, True)[0] == [(0, 99), (0, 8)]


# -- threads ---------------------------------------------------------------
def test_a_count_lets_other_threads_run() -> None:
    """On the compiled kernels a scan does not hold the interpreter: another thread goes on in the middle of one."""
    db = SnapDB(":memory:", Schema([ColumnDef("v", "i64")]), storage_type="columnar")
    if db._engine.kernels.name != "c":  # type: ignore[attr-defined]
        pytest.skip("only compiled scans run beside other threads")
    rng = random.Random(1)
    db.insert_columns({"v": array("q", [rng.getrandbits(40) for _ in range(c.SEGMENT)] * 8)})
    conditions = [("v", "!=", 2**39 + i) for i in range(60)]
    taken: list[tuple[float, float]] = []

    def work() -> None:
        start = time.monotonic()
        db.count_where(conditions)
        taken.append((start, time.monotonic()))

    for _ in range(50):  # a busy machine may not have run this thread meanwhile
        thread = threading.Thread(target=work)
        thread.start()
        moments = []
        while thread.is_alive():
            moments.append(time.monotonic())
        thread.join()
        start, end = taken.pop()
        fifth = (end - start) / 5
        if any(start + fifth < moment < end - fifth for moment in moments):
            break
    else:
        raise AssertionError("no other thread ran while the rows were counted")
    db.close()


def test_rows_that_come_and_go_meanwhile() -> None:
    """Counts beside a writer: each is the count of some moment."""
    db = SnapDB(":memory:", Schema([ColumnDef("v", "i64")]), storage_type="columnar")
    db.insert_columns({"v": array("q", range(2 * c.SEGMENT))})
    done = threading.Event()
    counts: list[int] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                counts.append(db.count_where([("v", ">=", 0), ("v", "!=", 2 * c.SEGMENT + 1)]))
        except BaseException as error:
            problems.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    for i in range(300):
        db.insert({"v": -1})
        db.delete(i)
        db.update(c.SEGMENT + i, {"v": -2})
    done.set()
    thread.join()
    assert not problems
    assert counts == sorted(counts, reverse=True) and all(2 * c.SEGMENT - 600 <= n <= 2 * c.SEGMENT for n in counts)
    assert db.count_where([("v", ">=", 0)]) == 2 * c.SEGMENT - 600
    db.close()
