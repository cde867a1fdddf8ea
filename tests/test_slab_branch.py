"""Tables that share slabs: branches of views, which slabs two views do not share, what memory a view keeps."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_slab import CHANGES, MIXED, PLAIN, ROWS, filled, logical_row, make, parts, plain_row

from snapdb import _ext
from snapdb._ext import _common as c
from snapdb._ext._records import Pins

TEXTS = [("a", c.I32, 0, False), ("t", c.STR, 0, True)]


def branch(made: Any, kernels: Any, view: Any, columns: Any = PLAIN, page_size: int = 4096) -> Any:
    """A table of its own that begins as a view."""
    other = make(kernels, columns, page_size)
    other.table.branch(view)
    return other


def rows_of(table: Any) -> list[Any]:
    """Every live row, by three ways that must agree."""
    view = table.pin()
    found = list(view.items())
    assert (len(found), view.rows) == (table.live, table.rows)
    assert [table.get(i) for i, _ in found] == [row for _, row in found]
    assert [bytes(table.get_raw(i)) for i, _ in found] == [bytes(raw) for _, raw in view.raw_items()]
    return found


def plain(rows: Any) -> list[Any]:
    return [(i, plain_row(i)) for i in rows]


# -- branches --------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 140, 141, 142, 282, 36096, 36097, 40000])
def test_a_branch_is_what_its_view_shows(kernels: Any, rows: int) -> None:
    made = filled(kernels, rows)
    view = made.table.pin()
    for _ in range(rows, rows + 300):  # into slabs that the view shares
        made.table.insert(plain_row(-1))
    other = branch(made, kernels, view).table
    view.release()
    assert (other.rows, other.live) == (rows, rows)
    assert rows_of(other) == plain(range(rows))
    assert other.insert(plain_row(rows)) == rows
    assert made.table.get(rows) == plain_row(-1)
    made.table.truncate(rows)
    assert other.get(rows) == plain_row(rows)
    assert rows_of(made.table) == plain(range(rows))


@pytest.mark.parametrize("first", ["original", "branch"])
def test_writes_on_both_sides(kernels: Any, first: str) -> None:
    made = filled(kernels, 1000)
    view = made.table.pin()
    other = branch(made, kernels, view)
    view.release()
    del view
    sides = [made, other] if first == "original" else [other, made]
    for at, side in enumerate(sides):
        side.table.update(5, {"big": at})
        side.table.delete(200 + at)
        side.table.insert(plain_row(7 + at))
    for at, side in enumerate(sides):
        table = side.table
        assert [table.get(i) is None for i in (200, 201)] == [at == 0, at == 1]
        assert table.get(5) == {**plain_row(5), "big": at}
        assert table.get(1000) == plain_row(7 + at)
        assert table.get(6) == plain_row(6)
        assert table.live == 1000
        table.revive(200 + at, side.codec.encode(plain_row(200 + at)))
        table.update(5, plain_row(5))
        table.truncate(1000)
        assert rows_of(table) == plain(range(1000))


@pytest.mark.parametrize("order", ["original", "branch", "both"])
def test_heaps_grow_apart(kernels: Any, order: str) -> None:
    """Each side appends strings to a slab of both: neither may write into what the other has appended."""
    made = make(kernels, TEXTS)
    for i in range(400):
        made.table.insert({"a": i, "t": f"text {i}"})
    view = made.table.pin()
    other = branch(made, kernels, view, TEXTS)
    sides = {"original": [made, other], "branch": [other, made], "both": [made, other, made, other]}[order]
    held = made.table.get_raw(3)
    before = bytes(held)
    for side in sides:
        for i in (3, 4, 399):
            side.table.update(i, {"t": f"{side is made} {i}" * 3})
        side.table.insert({"a": 7, "t": f"{side is made} new"})
    for side in (made, other):
        assert [side.table.get(i)["t"] for i in (3, 4, 399)] == [f"{side is made} {i}" * 3 for i in (3, 4, 399)]
        assert side.table.get(400)["t"] == f"{side is made} new"
        assert [side.table.get(i)["t"] for i in range(5, 399)] == [f"text {i}" for i in range(5, 399)]
        for _ in range(3):  # until heaps are rewritten
            for i in range(400):
                side.table.update(i, {"t": f"{side is made}" * 60})
        assert {row["t"] for i, row in rows_of(side.table) if i < 400} == {f"{side is made}" * 60}
    assert bytes(held) == before
    assert [row["t"] for _, row in view.items()] == [f"text {i}" for i in range(400)]


def test_a_slab_is_shared_until_its_last_reader_goes(kernels: Any) -> None:
    made = filled(kernels, 1000)
    view = made.table.pin()
    other = branch(made, kernels, view)
    late = other.table.pin()
    rows = late.items()
    view.release()
    del view, other
    for i in range(1000):
        made.table.update(i, {"big": 1})
    assert list(late.items()) == plain(range(1000))
    late.release()
    assert list(rows) == plain(range(1000))


@pytest.mark.parametrize("late", ["items", "branch", "gather"])
def test_an_old_view_that_is_read_lets_no_newer_one_go(kernels: Any, late: str) -> None:
    made = filled(kernels, 300)
    old = made.table.pin()
    made.table.update(5, {"big": 1})
    new = made.table.pin()
    if late == "items":
        kept = old.items()
    elif late == "branch":
        kept = branch(made, kernels, old).table
    else:
        kept = old.gather(0, 0, 300)
    made.table.update(5, {"big": 2})
    assert [dict(view.items())[5]["big"] for view in (old, new)] == [2**63 + 5, 1]
    del kept
    gc.collect()
    made.table.update(5, {"big": 3})
    assert [dict(view.items())[5]["big"] for view in (old, new)] == [2**63 + 5, 1]


@pytest.mark.parametrize("gone", [(2,), (1,), (0,), (2, 1), (1, 2), (0, 2), (2, 0), (0, 1), (1, 0)])
def test_views_go_in_any_order(kernels: Any, gone: tuple[int, ...]) -> None:
    made = filled(kernels, 300)
    views = []
    for at in range(3):
        made.table.update(5, {"big": at})
        views.append(made.table.pin())
    for number in gone:
        views[number].release()
        made.table.update(5, {"big": 9})
    for at in set(range(3)) - set(gone):
        assert dict(views[at].items())[5]["big"] == at


def test_branches_of_branches(kernels: Any) -> None:
    made = filled(kernels, 500)
    family = [made]
    for at in range(6):
        view = family[-1].table.pin()
        family[-1].table.update(at, {"big": 1000 + at})
        family.append(branch(made, kernels, view))
        family[-1].table.update(400 + at, {"big": 2000 + at})
    for at, one in enumerate(family):
        expected = {i: plain_row(i)["big"] for i in range(500)}
        expected.update({400 + i: 2000 + i for i in range(at)})
        if at < 6:
            expected[at] = 1000 + at
        assert {i: row["big"] for i, row in rows_of(one.table)} == expected
    del family[::2]
    gc.collect()
    assert family[1].table.get(402)["big"] == 2002
    assert family[0].table.get(402) == plain_row(402)


def test_a_table_goes_back_to_its_view_again_and_again(kernels: Any) -> None:
    made = filled(kernels, 500)
    table, get, spare = made.table, made.table.get, make(kernels, PLAIN).table
    view, iterator = table.pin(), iter(())
    for at in range(3000):  # no chain of owners may grow
        table.update(at % 500, {"big": at})
        table.insert(plain_row(1))
        iterator = table.pin().items() if at == 0 else iterator
        spare.branch(view)
        table.take_over(spare)
        if at % 2:
            view = table.pin()
    assert rows_of(table) == plain(range(500))
    assert get(7) == plain_row(7)
    assert dict(iterator) == {**dict(plain(range(500))), 0: {**plain_row(0), "big": 0}, 500: plain_row(1)}


def test_absorb_and_truncate_in_a_branch(kernels: Any) -> None:
    made = filled(kernels, 300)
    view = made.table.pin()
    other = branch(made, kernels, view)
    more = make(kernels, PLAIN)
    more.table.skip(300)
    more.table.extend(more.codec.encode_rows([plain_row(i) for i in range(300, 700)]))
    other.table.absorb(more.table)
    assert rows_of(other.table) == plain(range(700))
    with pytest.raises(ValueError, match="no views"):
        grown = make(kernels, PLAIN)
        grown.table.skip(300)
        grown.table.absorb(branch(made, kernels, other.table.pin()).table)
    other.table.truncate(100)
    assert rows_of(other.table) == plain(range(100))
    assert rows_of(made.table) == plain(range(300))
    assert other.table.extend(other.codec.encode_rows([plain_row(9)] * 300)) == 100
    assert list(view.items()) == plain(range(300))


def test_truncate_into_the_last_slab_of_a_directory_group(kernels: Any) -> None:
    """The slab is not there, so nothing is copied with it: the group that the next row goes to must be."""
    made = filled(kernels, 40_000)
    table, size = made.table, made.table.slab_rows
    first = 255 * size
    for i in range(first, first + size):
        table.delete(i)
    view = table.pin()
    table.truncate(first + 5)
    assert table.insert(plain_row(1)) == first + 5
    assert (table.get(first + 5), view.live) == (plain_row(1), 40_000 - size)
    assert [i for i, _ in view.items() if first <= i < first + size] == []


def test_what_cannot_be_branched(kernels: Any) -> None:
    made = filled(kernels, 100)
    view = made.table.pin()
    with pytest.raises(ValueError, match="100 rows"):
        made.table.branch(view)
    with pytest.raises(ValueError, match="layout"):
        make(kernels, TEXTS).table.branch(view)
    with pytest.raises(ValueError, match="layout"):
        make(kernels, PLAIN, 512).table.branch(view)
    view.release()
    other = make(kernels, PLAIN).table
    with pytest.raises(ValueError, match="released"):
        other.branch(view)
    assert (other.rows, other.insert(plain_row(0))) == (0, 0)


# -- what differs ----------------------------------------------------------


def test_differing_slabs(kernels: Any) -> None:
    made = filled(kernels, 100_000)
    table, size = made.table, made.table.slab_rows
    one, same = table.pin(), table.pin()
    assert one.differing(same) == []
    assert one.differing(one) == []
    for i in (0, 5, 70_000, 99_999):
        table.update(i, {"big": 1})
    table.delete(40_000)
    for i in range(10 * size, 11 * size):
        table.delete(i)
    other = table.pin()
    expected = sorted({0, 70_000 // size, 99_999 // size, 40_000 // size, 10})
    assert one.differing(other) == expected
    assert other.differing(one) == expected
    for _ in range(3 * size):
        table.insert(plain_row(1))
    last = table.pin()
    late = list(range(100_000 // size, -(-last.rows // size)))
    assert other.differing(last) == late
    assert last.differing(other) == late
    fresh = branch(made, kernels, other)
    assert fresh.table.pin().differing(other) in ([], [99_999 // size])  # the slab that rows go to is copied at once
    other.release()
    with pytest.raises(ValueError, match="released"):
        last.differing(other)
    with pytest.raises(ValueError, match="layout"):
        last.differing(make(kernels, TEXTS).table.pin())


# -- memory ----------------------------------------------------------------


def test_views_and_branches_take_what_is_written(kernels: Any) -> None:
    columns = [("a", c.I64, 0, False), ("t", c.STR, 0, True)]
    made = make(kernels, columns)
    made.table.extend(made.codec.encode_rows([{"a": i, "t": "some text"} for i in range(40_000)]))
    spare = make(kernels, columns)
    gc.collect()
    tracemalloc.start()
    try:
        view = made.table.pin()
        spare.table.branch(view)
        gc.collect()
        shared = tracemalloc.get_traced_memory()[0]
        for i in range(0, 40_000, 400):
            spare.table.update(i, {"a": 1})
            made.table.update(i, {"t": "other"})
        gc.collect()
        both = tracemalloc.get_traced_memory()[0]
        for i in range(0, 40_000, 400):  # once more: it is each table's own by now
            spare.table.update(i, {"a": 2})
            made.table.update(i, {"a": 2})
        gc.collect()
        again = tracemalloc.get_traced_memory()[0]
        spare.table.take_over(make(kernels, columns).table)
        view.release()
        del view
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    whole = made.table.nbytes
    assert shared < whole / 10
    assert both < whole * 1.6  # a copy of every second slab or so on each side
    assert again - both < whole / 20
    assert left < both * 0.6


def test_a_kept_view_does_not_make_every_write_a_copy(kernels: Any) -> None:
    """A view that came and went since the slab was last copied is no reason to copy it again."""
    made = filled(kernels, 40_000)
    kept = made.table.pin()
    made.table.update(0, {"big": 1})
    made.table.pin().release()
    before = made.table.pin()
    before.release()
    tracemalloc.start()
    try:
        made.table.update(0, {"big": 2})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4096
    assert list(kept.items())[0] == (0, plain_row(0))


def test_footprint(kernels: Any) -> None:
    made = make(kernels, TEXTS)
    made.table.extend(made.codec.encode_rows([{"a": i, "t": f"text {i}"} for i in range(100_000)]))
    gc.collect()
    tracemalloc.start()
    try:
        old = made.table.pin()
        for i in range(0, 50_000, 7):
            made.table.update(i, {"a": 7})
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    now = made.table.pin()
    seen: set[int] = set()
    whole = now.footprint(seen)
    assert abs(whole - made.table.nbytes) < whole * 0.02
    extra = old.footprint(seen)
    assert abs(extra - allocated) < allocated * 0.1
    assert old.footprint(seen) == 0
    assert now.footprint(seen) == 0
    alone: set[int] = set()
    assert abs(old.footprint(alone) - whole) < whole * 0.05
    old.release()
    with pytest.raises(ValueError, match="released"):
        old.footprint(set())


# -- side by side ----------------------------------------------------------

Rows = list[Optional[dict[str, Any]]]


class Member:
    """A table on each backend and what it should hold."""

    def __init__(self, made: list[Any], rows: Rows) -> None:
        self.made = made
        self.tables = [one.table for one in made]
        self.rows = rows


class Released(dict):  # type: ignore[type-arg]
    """Holds whose last one is let go by another thread just when they are asked for."""

    def values(self) -> Any:
        self.clear()
        return super().values()


def test_a_hold_released_while_the_newest_is_asked_for() -> None:
    pins = Pins()
    pins.holds = Released({1: 7})
    assert pins.newest == 0


class Family(RuleBasedStateMachine):
    """Tables that were branched from each other do what lists of rows do that were copied from each other."""

    @initialize(page=st.sampled_from([1, 64, 150, 700]), rows=st.lists(ROWS, max_size=12), times=st.integers(1, 20))
    def start(self, page: int, rows: list[dict[str, Any]], times: int) -> None:
        self.page = page
        self.family = [Member(self.fresh(), [])]
        self.views: list[tuple[list[Any], Rows]] = []
        self.raw: list[tuple[Any, bytes]] = []
        self.extend(self.family[0], rows * times)

    def fresh(self) -> list[Any]:
        return [make(_ext.backend(name), MIXED, self.page) for name in _ext.available()]

    def extend(self, member: Member, rows: list[dict[str, Any]]) -> None:
        for made in member.made:
            assert made.table.extend(made.codec.encode_rows(rows)) == len(member.rows)
        member.rows.extend(map(logical_row, rows))

    def member(self, data: Any) -> Member:
        return self.family[data.draw(st.integers(0, len(self.family) - 1))]

    @rule(data=st.data(), rows=st.lists(ROWS, max_size=6), times=st.integers(1, 9))
    def extend_one(self, data: Any, rows: list[dict[str, Any]], times: int) -> None:
        self.extend(self.member(data), rows * times)

    @rule(data=st.data(), row=ROWS)
    def insert(self, data: Any, row: dict[str, Any]) -> None:
        member = self.member(data)
        for table in member.tables:
            assert table.insert(row) == len(member.rows)
        member.rows.append(logical_row(row))

    @rule(data=st.data(), changes=CHANGES, count=st.integers(1, 8))
    def update(self, data: Any, changes: dict[str, Any], count: int) -> None:
        member = self.member(data)
        ids = [i for i, row in enumerate(member.rows) if row is not None]
        for idx in data.draw(st.lists(st.sampled_from(ids), max_size=count, unique=True)) if ids else ():
            for table in member.tables:
                table.update(idx, changes)
            member.rows[idx] = logical_row({**(member.rows[idx] or {}), **changes})

    @rule(data=st.data(), start=st.integers(0, 200), count=st.integers(1, 60))
    def delete(self, data: Any, start: int, count: int) -> None:
        member = self.member(data)
        for idx in range(start, min(start + count, len(member.rows))):
            if member.rows[idx] is not None:
                for table in member.tables:
                    table.delete(idx)
                member.rows[idx] = None

    @rule(data=st.data(), row=ROWS)
    def revive(self, data: Any, row: dict[str, Any]) -> None:
        member = self.member(data)
        ids = [i for i, found in enumerate(member.rows) if found is None]
        if ids:
            idx = data.draw(st.sampled_from(ids))
            for made in member.made:
                made.table.revive(idx, made.codec.encode(row))
            member.rows[idx] = logical_row(row)

    @rule(data=st.data(), back=st.integers(0, 60))
    def truncate(self, data: Any, back: int) -> None:
        member = self.member(data)
        size = max(0, len(member.rows) - back)
        for table in member.tables:
            table.truncate(size)
        del member.rows[size:]

    @rule(data=st.data(), count=st.integers(0, 50))
    def skip(self, data: Any, count: int) -> None:
        member = self.member(data)
        for table in member.tables:
            table.skip(count)
        member.rows.extend([None] * count)

    @rule(data=st.data())
    def hold_raw(self, data: Any) -> None:
        member = self.member(data)
        ids = [i for i, row in enumerate(member.rows) if row is not None]
        if ids:
            idx = data.draw(st.sampled_from(ids))
            self.raw.extend((raw, bytes(raw)) for raw in [table.get_raw(idx) for table in member.tables])

    @precondition(lambda self: len(self.views) < 4)
    @rule(data=st.data())
    def pin(self, data: Any) -> None:
        member = self.member(data)
        self.views.append(([table.pin() for table in member.tables], list(member.rows)))

    @precondition(lambda self: self.views and len(self.family) < 4)
    @rule(data=st.data(), goes=st.booleans())
    def branch(self, data: Any, goes: bool) -> None:
        at = data.draw(st.integers(0, len(self.views) - 1))
        views, rows = self.views.pop(at) if goes else self.views[at]
        made = self.fresh()
        for one, view in zip(made, views):
            one.table.branch(view)
        self.family.append(Member(made, list(rows)))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def go_back(self, data: Any) -> None:
        member = self.member(data)
        views, rows = self.views[data.draw(st.integers(0, len(self.views) - 1))]
        for table, one, view in zip(member.tables, self.fresh(), views):
            one.table.branch(view)
            table.take_over(one.table)
        member.rows = list(rows)

    @precondition(lambda self: len(self.family) > 1)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        self.family.remove(self.member(data))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        views, rows = self.views.pop(data.draw(st.integers(0, len(self.views) - 1)))
        self.check_view(views, rows)
        for view in views:
            view.release()

    @precondition(lambda self: len(self.views) > 1)
    @rule(data=st.data())
    def differ(self, data: Any) -> None:
        (a, old), (b, new) = (self.views[data.draw(st.integers(0, len(self.views) - 1))] for _ in range(2))
        size = self.family[0].tables[0].slab_rows
        found = [one.differing(other) for one, other in zip(a, b)]
        assert all(slabs == found[0] for slabs in found)
        assert found[0] == sorted(set(found[0]))
        for start in range(0, max(len(old), len(new)), size):
            if start // size not in found[0]:
                mine, its = old[start : start + size], new[start : start + size]
                assert [row for row in mine if row] == [row for row in its if row]

    def check_view(self, views: list[Any], rows: Rows) -> None:
        live = [(i, row) for i, row in enumerate(rows) if row is not None]
        for view in views:
            assert (view.rows, view.live) == (len(rows), len(live))
            assert list(view.items()) == live
        for column in range(len(MIXED)):
            buffers = [parts(view.gather(column, 0, len(rows))) for view in views]
            assert all(buffer == buffers[0] for buffer in buffers)

    @invariant()
    def same(self) -> None:
        for member in getattr(self, "family", ()):
            for table in member.tables:
                assert (table.rows, table.live) == (len(member.rows), sum(row is not None for row in member.rows))
                for idx in {0, len(member.rows) // 2, len(member.rows) - 1, len(member.rows)}:
                    assert table.get(idx) == (member.rows[idx] if 0 <= idx < len(member.rows) else None)

    def teardown(self) -> None:
        if hasattr(self, "family"):
            for member in self.family:
                self.check_view([table.pin() for table in member.tables], member.rows)
            for views, rows in self.views:
                self.check_view(views, rows)
            for raw, before in self.raw:
                assert bytes(raw) == before


TestFamily = Family.TestCase
TestFamily.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
