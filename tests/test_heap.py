"""Values of any length in row tables: stored whatever the page size, and their space given back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from snapdb import ColumnDef, Schema, SnapDB, errors

TEXTS = Schema([ColumnDef("n", "u32"), ColumnDef("s", "str", not_null=False), ColumnDef("b", "binary")])
LONG = 10 * 2**20


def held(rows: dict[int, dict[str, Any]]) -> int:
    """Bytes of the values of variable length."""
    return sum(len((row["s"] or "").encode()) + len(row["b"]) for row in rows.values())


@pytest.mark.parametrize("place", ["memory", "file"])
def test_values_of_ten_mebibytes_in_the_smallest_page(tmp_path: Path, backend_name: str, place: str) -> None:
    path = ":memory:" if place == "memory" else tmp_path / "long.snap"
    db = SnapDB(path, TEXTS, page_size=64)
    rows: list[dict[str, Any]] = [{"n": n, "s": f"s{n}", "b": b"\xff" * n} for n in range(4)]
    rows[1]["s"], rows[2]["b"] = "é" * (LONG // 2), b"\xff" * LONG
    db.batch_insert(rows)
    db.update(3, {"s": "x" * LONG})
    rows[3]["s"] = "x" * LONG
    if place == "file":
        db.close()
        db = SnapDB(path)
        assert db.page_size == 64
    assert [db.get(n) for n in range(4)] == rows
    assert db.find(s="x" * LONG) == [rows[3]]
    for n in (1, 2, 3):
        db.update(n, {"s": None, "b": b""})
    db.checkpoint()
    assert db.memory_usage() < 2**20
    db.close()


@pytest.mark.parametrize(("width", "page"), [(64, 64), (65, 64), (65_535, 65_535), (4097, 4096)])
def test_only_the_fixed_part_has_to_fit(width: int, page: int, backend_name: str) -> None:
    columns = [ColumnDef("a", f"bytes:{min(width, 60_000)}")]
    spare = width - Schema(columns).row_width
    columns += [ColumnDef(f"c{n}", "u8") for n in range(max(spare, 0))]
    schema = Schema(columns)
    if schema.row_width <= page:
        db = SnapDB(":memory:", schema, page_size=page)
        row = {"a": "x" * 60, **{column.name: 7 for column in columns[1:]}}
        assert db.insert(row) == 0 and db.get(0) == row
        return
    with pytest.raises(errors.SchemaError, match="page_size"):
        SnapDB(":memory:", schema, page_size=page)


@pytest.mark.parametrize("page", [64, 4096, 65_535])
@pytest.mark.parametrize("most", [40, 3000])
def test_space_of_values_comes_back(page: int, most: int, backend_name: str) -> None:
    """Values that change and go, at random: what is held is bounded by what is there, and all of it is right."""
    draw = random.Random(most)
    db = SnapDB(":memory:", TEXTS, page_size=page)
    rows = {}
    for n in range(300):
        rows[n] = {"n": n, "s": "ä" * draw.randrange(most), "b": draw.randbytes(draw.randrange(most))}
    db.batch_insert(rows.values())
    empty = SnapDB(":memory:", TEXTS, page_size=page).memory_usage()
    for step in range(4000 if backend_name == "c" else 800):
        idx = draw.choice([*rows])
        what = draw.random()
        if what < 0.8:
            size = draw.choice((0, most // 50, most))
            text = None if size == 0 else "y" * draw.randrange(size + 1)
            change = {"s": text, "b": draw.randbytes(draw.randrange(size + 1))}
            db.update(idx, change)
            rows[idx].update(change)
        elif what < 0.9 and len(rows) > 100:
            db.delete(idx)
            del rows[idx]
        else:
            row = {"n": step, "s": "z" * draw.randrange(most), "b": b"q"}
            rows[db.insert(row)] = row
        if step % 200 == 0:
            # a heap may hold as much that is no longer wanted as it has values, and room to grow
            slots = 200 * (max(rows) + 1)
            assert db.memory_usage() <= empty + slots + 3 * held(rows) + page + 16_384, step
    assert dict(db) == rows
    for idx in [*rows][:-1]:
        db.delete(idx)
    db.compact()
    assert [*map(dict, db.select())] == [[*rows.values()][-1]]
    assert db.memory_usage() <= empty + 4 * 2 * most + page + 16_384
    db.close()
