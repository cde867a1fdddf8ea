"""A transaction on a columnar table leaves nothing behind, and what fails before a change leaves it out."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import pytest
from entry_disk import (
    PLAIN,
    assert_sound,
    bulk,
    created,
    plain,
    reopened,
    state_of_plain,
)

from snapdb import ColumnarTable
from snapdb._ext._common import SEGMENT
from snapdb.table import Change

# -- transactions --------------------------------------------------------------------------------------------------


def fold(table: ColumnarTable) -> None:
    for i in range(8300):
        table.insert({"a": i, "v": 0.25, "s": None})


def reseal(table: ColumnarTable) -> None:
    values = table.codec.encode_partial({"v": -9.0, "s": "worn"})
    table.apply([Change(idx, values) for idx in range(10, 3010)])
    assert not table.column_list[1].overlays.get(0)


WRITES: dict[str, Callable[[ColumnarTable], Any]] = {
    "insert": lambda it: it.insert({"a": 1, "v": 2.0, "s": "in"}),
    "append_values": lambda it: it.append_values([1, 2.0, b"in"]),
    "batch": lambda it: it.batch_insert([{"a": 1, "v": 2.0, "s": "in"}] * 5),
    "sealed batch": lambda it: it.insert_columns(plain(3000)),
    "several segments": lambda it: it.insert_columns(plain(3 * SEGMENT)),
    "update": lambda it: it.update(5, {"a": -1, "s": None}),
    "update of the tail": lambda it: it.update(SEGMENT + 1999, {"a": -1, "s": "x" * 99}),
    "updates": reseal,
    "delete": lambda it: it.remove([3, SEGMENT + 4]),
    "drop": lambda it: it.remove(range(SEGMENT)),
    "fold": fold,
    "compact": lambda it: it.compact(),
    "everything": lambda it: [WRITES[name](it) for name in ("batch", "updates", "fold", "update", "drop", "compact")],
}


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("write", WRITES)
def test_rollback(backend_name: str, write: str, where: str) -> None:
    table, disk = created(backend_name, PLAIN)
    if where == "memory":
        table = ColumnarTable("t", PLAIN, backend=backend_name, dict_columns=["s"])
    table.insert_columns(plain(SEGMENT + 2000))
    table.update(6, {"v": -4.0})
    table.update(SEGMENT + 1998, {"v": -4.0})
    table.remove([7, SEGMENT + 1])
    if where == "file":
        table = reopened(table, disk, backend_name, dict_columns=["s"])
    before = state_of_plain(table) if where == "memory" else None  # in a file nothing is read before the write
    with table.writing():
        table.begin()
        WRITES[write](table)
        during = table.view()
        size = during.rows, [during.whole(0, k).take()[-2:] for k in range(during.segments()) if not during.dead(k)]
        WRITES["insert"](table)
        table.rollback()
        assert size == (
            during.rows, [during.whole(0, k).take()[-2:] for k in range(during.segments()) if not during.dead(k)]
        )  # fmt: skip
    assert table.rows == SEGMENT + 2000 and len(table) == SEGMENT + 1998
    assert table.select_column("a") == [i for i in range(SEGMENT + 2000) if i not in (7, SEGMENT + 1)]
    assert table.get(6) == {"a": 6, "v": -4.0, "s": "s6"} and table.get(SEGMENT + 1998)["v"] == -4.0  # type: ignore[index]
    assert before is None or state_of_plain(table) == before
    assert list(table.column_buffer("a")[5:9]) == [5, 6, 0, 8]
    assert_sound(table)
    assert table.insert({"a": 1, "v": 1.0, "s": "next"}) == SEGMENT + 2000
    WRITES["update"](table)
    if where == "file":
        again = reopened(table, disk, backend_name)
        assert state_of_plain(again) == state_of_plain(table)
        assert_sound(again)


def test_rollback_of_a_batch_that_was_written(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(500))
    table.update(3, {"a": -3})
    disk.checkpoint(table)
    table.update(4, {"a": -4})
    before = state_of_plain(table)
    for rows in (5, 600, SEGMENT):
        with table.writing():
            table.begin()
            bulk(table, disk, plain(rows))
            table.update(10, {"v": 0.0})
            table.rollback()
        assert state_of_plain(table) == before
        assert_sound(table)
    assert state_of_plain(reopened(table, disk, backend_name)) == before
    with table.writing():
        table.begin()
        bulk(table, disk, plain(SEGMENT))
        table.commit()
    assert len(reopened(table, disk, backend_name)) == SEGMENT + 500


def test_commit_keeps_everything(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 2000))
    table = reopened(table, disk, backend_name)
    with table.writing():
        table.begin()
        WRITES["everything"](table)
        table.commit()
        table.rollback()  # there is nothing to take back any more
    assert len(table) > 2000
    assert state_of_plain(reopened(table, disk, backend_name)) == state_of_plain(table)


def test_what_raises_before_a_change_leaves_the_table_as_it_was(backend_name: str) -> None:
    table, disk = created(backend_name, PLAIN)
    table.insert_columns(plain(SEGMENT + 2000))
    table = reopened(table, disk, backend_name)
    before = state_of_plain(table)
    bad: list[Any] = [partial(divmod, 1, 0)]
    batch = table.stage_columns(plain(3000))
    change = [Change(idx, table.codec.encode_partial({"a": 5})) for idx in (4, SEGMENT + 1)]
    for write in (
        lambda: table.append_values([1, 2.0, b""], bad),
        lambda: table.extend(batch, [], bad),
        lambda: table.apply(change, [], bad),
        lambda: table.apply(change[:1], [], bad),
        lambda: table.remove([3], [], bad),
        lambda: table.remove(range(SEGMENT), [], bad),
        lambda: table.compact([], bad),
    ):
        with pytest.raises(ZeroDivisionError):
            write()
        assert state_of_plain(table) == before
    assert_sound(table)
    told: list[str] = []
    order: Any = {"then": [partial(told.append, "then")], "first": [partial(told.append, "first")]}
    table.extend(batch, **order)
    table.apply(change, **order)
    table.remove([3], **order)
    table.compact(**order)
    table.append_values([1, 2.0, b""], order["first"])
    assert told == ["first", "then"] * 4 + ["first"]
    with pytest.raises(KeyError):  # said before anything is told
        table.apply([Change(10**9, change[0].values)], **order)
    assert told[-1] == "first" and len(told) == 9
