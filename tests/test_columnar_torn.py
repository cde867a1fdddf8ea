"""Where a columnar table is sealed anew: what readers see between the calls of a step, and what happens where memory
runs out in it.
"""

from __future__ import annotations

import random
from array import array
from functools import partial
from typing import Any, Callable, Optional

import pytest
from entry_disk import PLAIN, assert_sound, created, opened, plain, reopened

from snapdb import ColumnarTable, SnapDB, column, columnar, step
from snapdb._ext._common import BLOCK, SEGMENT
from snapdb.column import Column
from snapdb.errors import DatabaseError, DurabilityError
from snapdb.storage.files import using
from snapdb.testing.layers import RecordingLayer

KEPT = range(7, 2 * BLOCK, 40)


def thin_rows() -> list[int]:
    return [idx for idx in range(2 * BLOCK) if idx not in KEPT]


def made(backend: str, rows: int = 2 * BLOCK) -> ColumnarTable:
    table = ColumnarTable("t", PLAIN, backend=backend)
    table.insert_columns(plain(rows))
    return table


def expected(idx: int) -> dict[str, Any]:
    return {"a": idx, "v": idx * 0.5, "s": f"s{idx % 7}"}


class Between:
    """``carry_out`` that looks at the table before and after each of the calls behind the first ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
        self.look = look
        self.real = step.carry_out
        for module in (column, columnar):
            monkeypatch.setattr(module, "carry_out", self)

    def __call__(self, first: Any, then: Any, *rest: Any) -> None:
        looking = partial(self.look)
        self.real([*first, looking], [call for one in then for call in (one, looking)], *rest)


@pytest.mark.parametrize("folds", [False, True])
def test_a_reader_between_two_calls_sees_the_rows(
    backend_name: str, monkeypatch: pytest.MonkeyPatch, folds: bool
) -> None:
    table = made(backend_name)
    tail = [table.insert(expected(2 * BLOCK + i)) for i in range(BLOCK if folds else 5)]
    seen = []
    table.update(47, {"v": -1.0})
    rows = {idx: expected(idx) for idx in KEPT}
    rows[47]["v"] = -1.0
    looks = backend_name == "c" or not folds  # the twin reads under the lock: all columns are folded then, or none

    def look() -> None:
        for idx in (7, 47, KEPT[-1]) if looks else ():
            if table.get(idx) != rows[idx]:
                seen.append((idx, table.get(idx)))

    Between(monkeypatch, look)
    table.remove([*thin_rows(), *(tail[:-3] if folds else ())])
    assert seen == []
    monkeypatch.undo()
    chunk = table.column_list[0].parts[0][0]
    assert chunk.rows == (3 if folds else 2) * BLOCK and chunk.nbytes <= 256  # it was sealed without them
    assert {idx: table.get(idx) for idx in KEPT} == rows
    assert_sound(table)


@pytest.mark.parametrize("at", range(8))
def test_no_memory_where_it_is_sealed_anew(backend_name: str, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """All values stay, or the table refuses."""
    table = made(backend_name)
    real = step.carry_out
    left = [at]

    def failing(*_: Any) -> None:
        raise MemoryError

    def cut(first: Any, then: Any, *rest: Any) -> None:
        """The call ``at`` of the first step of a column fails for ever."""
        if left[0] < 0 or left[0] >= len(first) + len(then):
            return real(first, then, *rest)
        number, left[0] = left[0], -1
        if number < len(first):
            first = [*first[:number], partial(failing)]
        else:
            then = [*then[: number - len(first)], partial(failing)]
        return real(first, then, *rest)

    monkeypatch.setattr(column, "carry_out", cut)
    try:
        table.remove(thin_rows())
    except step.Half:
        assert left[0] < 0
        for ask in (lambda: table.get(47), lambda: len(table), table.select, lambda: table.insert(expected(1)),
                    lambda: table.aggregate("a"), lambda: table.update(47, {"a": 1})):  # fmt: skip
            with pytest.raises(DurabilityError, match="memory ran out in the middle"):
                ask()
        return
    monkeypatch.undo()
    assert {idx: table.get(idx) for idx in KEPT} == {idx: expected(idx) for idx in KEPT}
    assert table.aggregate("a") == sum(KEPT) and table.aggregate("s", "count") == len(KEPT)
    assert_sound(table)
    table.remove([7])
    assert_sound(table)


def no_memory_for_the_warning(monkeypatch: pytest.MonkeyPatch, error: type[MemoryError]) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Column, "reseal", fail)
    monkeypatch.setattr("logging.Logger.warning", fail)


def test_a_write_that_is_done_stays_where_nothing_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made("python")
    no_memory_for_the_warning(monkeypatch, MemoryError)
    table.remove(thin_rows())
    assert len(table) == len(KEPT) and table.get(47) == expected(47)
    table = made("python")
    table.apply([table.plan_update(idx, {"v": 1.0}) for idx in range(BLOCK)])
    assert table.aggregate("v", "max") == (2 * BLOCK - 1) * 0.5 and table.get(3) == {**expected(3), "v": 1.0}
    monkeypatch.setattr(ColumnarTable, "_afterwards", fail_plainly)
    table.remove([3])
    table.update(4, {"v": 2.0})
    assert table.get(3) is None and table.get(4) == {**expected(4), "v": 2.0}


def fail_plainly(*_: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("write", [
    lambda db: db._remove(thin_rows()),
    lambda db: db.batch_update([("a", "lt", BLOCK)], {"v": 1.0}),
])  # fmt: skip
@pytest.mark.parametrize("path", [":memory:", "torn.snapdb"])
def test_a_table_left_in_between_refuses(
    monkeypatch: pytest.MonkeyPatch, path: str, write: Callable[[SnapDB], None]
) -> None:
    with using(RecordingLayer(record=False)):
        db = SnapDB(path, PLAIN, storage_type="columnar")
        db.insert_columns(plain(2 * BLOCK))
        with monkeypatch.context() as patched:
            no_memory_for_the_warning(patched, step.Half)
            with pytest.raises(step.Half):
                write(db)
        for ask in (lambda: db.get(47), lambda: len(db), lambda: db.insert(expected(1)), lambda: db.select(),
                    lambda: db.aggregate("a")):  # fmt: skip
            with pytest.raises(DurabilityError):
                ask()
        try:
            db.close()
        except DatabaseError:
            pass
        if path != ":memory:":
            with SnapDB(path) as db:
                assert db.fsck()["ok"] and db.get(47) in (expected(47), {**expected(47), "v": 1.0})


def test_a_full_tail_left_in_between_refuses(monkeypatch: pytest.MonkeyPatch, backend_name: str) -> None:
    table = ColumnarTable("t", PLAIN, backend=backend_name)
    table.port.limit = 3
    table.insert(expected(0))
    table.insert(expected(1))
    real = step.carry_out

    def cut(first: Any, then: Any, *rest: Any) -> None:
        real(first, [then[0], partial(fail_plainly)], *rest)

    with monkeypatch.context() as patched:
        patched.setattr(columnar, "carry_out", cut)
        with pytest.raises(step.Half):
            table.insert(expected(2))
    with pytest.raises(DurabilityError):
        table.get(0)
    with pytest.raises(DurabilityError):
        table.insert(expected(3))


def test_a_batch_that_is_in_some_columns_refuses(monkeypatch: pytest.MonkeyPatch, backend_name: str) -> None:
    for write in (lambda t: t.insert_columns(plain(2000)), lambda t: t.remove([3]), lambda t: t.compact()):
        table = made(backend_name)
        real = step.carry_out

        def cut(first: Any, then: Any, *rest: Any, real: Any = real) -> None:
            real(first, [*then[:-1], partial(fail_plainly)], *rest)

        with monkeypatch.context() as patched:
            patched.setattr(columnar, "carry_out", cut)
            with pytest.raises(step.Half):
                write(table)
        for ask in (lambda t: t.get(0), lambda t: len(t), lambda t: t.select()):
            with pytest.raises(DurabilityError):
                ask(table)


def test_a_tail_that_cannot_be_folded_yet(monkeypatch: pytest.MonkeyPatch, backend_name: str) -> None:
    table = ColumnarTable("t", PLAIN, backend=backend_name)
    table.port.limit = 3
    with monkeypatch.context() as patched:
        patched.setattr(ColumnarTable, "_fold", fail_plainly)
        patched.setattr("logging.Logger.warning", fail_plainly)
        assert [table.insert(expected(idx)) for idx in range(3)] == [0, 1, 2]
    assert table.insert(expected(3)) == 3 and table.select_column("a") == [0, 1, 2, 3]


class Full(array):  # type: ignore[type-arg]
    """An array for which there is no more memory."""

    def append(self, value: Any) -> None:
        raise MemoryError


@pytest.mark.parametrize("nulls", [False, True])
def test_a_row_that_the_twin_cannot_end(nulls: bool) -> None:
    for insert in (lambda table: table.insert(expected(1)), lambda table: table.append_values([1, 0.5, b"s1"])):
        table = ColumnarTable("t", [("a", "i64"), ("v", "f64"), ("s", "str")], backend="python")
        table.insert({**expected(0), "v": None if nulls else 0.0})
        tail = table.column_list[1].parts[-1][1]
        assert (tail.null_count == 1) is nulls
        tail._items = Full("d", tail._items)
        with pytest.raises(step.Half):
            insert(table)
        for ask in (lambda t: t.get(0), lambda t: t.insert(expected(1)), lambda t: t.select()):
            with pytest.raises(DurabilityError):
                ask(table)


@pytest.mark.parametrize("logged", [False, True])
def test_an_open_segment_without_a_live_row_is_read_before_its_room_is_given_back(
    backend_name: str, monkeypatch: pytest.MonkeyPatch, logged: bool
) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(3000))
    table = reopened(table, disk, backend_name)

    def fail(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(ColumnarTable, "_reseal_dead", fail)
        table.remove(range(3000))
    view = table.view()
    header: Optional[dict[str, Any]] = disk.checkpoint(table)
    assert disk.tree == {} and not any(disk.extents.values())  # all of it is something else from now on
    assert list(table.verify()) == [] and view.whole(0, 0).take() == list(range(3000))
    assert table.column_stats() and table.insert(expected(3000)) == 3000
    if logged:
        table.insert_columns(plain(2000, 3001))
    header = disk.checkpoint(table)
    again = opened(disk, header, backend_name, PLAIN)
    assert dict(again.items()) == dict(table.items()) and again.get(3000) == expected(3000)
    assert_sound(again)


def test_thinning_a_table_changes_few_values_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting nearly all rows in small steps: the values of deleted rows are overwritten a few times, not each time
    that some more are gone.
    """
    table = ColumnarTable("t", PLAIN)
    table.insert_columns(plain(SEGMENT))
    patched = [0]
    blank = Column._blank

    def counting(self: Column, work: Any, *args: Any) -> None:
        patched[0] += work.rows
        blank(self, work, *args)

    monkeypatch.setattr(Column, "_blank", counting)
    ids = list(range(SEGMENT))
    random.Random(1).shuffle(ids)
    for start in range(0, SEGMENT - 1000, 256):
        table.remove(ids[start : start + 256])
    assert patched[0] <= 4 * SEGMENT * len(PLAIN.columns)
    assert len(table) == SEGMENT - len(range(0, SEGMENT - 1000, 256)) * 256
    assert_sound(table)
