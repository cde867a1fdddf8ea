"""A columnar table in a file and a dict of its rows: whatever is done to both, both say the same."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, Optional
from unittest import mock

import pytest
from entry_disk import (
    SCHEMA,
    assert_sound,
    bulk,
    columns_of,
    created,
    reopened,
    row,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model import bits

from snapdb import _ext, columnar_file
from snapdb._ext._common import SEGMENT
from snapdb.pieces import Entry
from snapdb.table import Change

# -- anything in any order ---------------------------------------------------------------------------------------------


class Driver:
    """A table in a file and a dict of its rows, side by side."""

    def __init__(self, backend: str, hints: dict[str, Any]) -> None:
        self.backend, self.hints = backend, hints
        self.table, self.disk = created(backend, SCHEMA, **hints)
        self.rows: dict[int, dict[str, Any]] = {}
        self.positions = 0
        self.log: list[tuple[int, int, list[tuple[int, Entry]]]] = []
        self.before: Optional[tuple[dict[int, dict[str, Any]], int]] = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.rows.update(enumerate(rows, self.positions))
        self.positions += len(rows)

    def insert(self, draw: random.Random) -> None:
        rows = [row(draw.randrange(10_000)) for _ in range(draw.choice((1, 3, 60)))]
        for one in rows:
            self.table.insert(one)
        self.add(rows)

    def values(self, draw: random.Random) -> None:
        one = row(draw.randrange(10_000))
        self.table.append_values(self.table.codec.encode(one))
        self.add([one])

    def batch(self, draw: random.Random) -> None:
        rows = [row(i) for i in range(draw.choice((1, 700, 1100, 2500)))]
        self.table.batch_insert(rows)
        self.add(rows)

    def large(self, draw: random.Random) -> None:
        rows = [row(i) for i in range(draw.choice((5, 1500, 3000)))]
        bulk(self.table, self.disk, columns_of(rows))
        self.add(rows)

    def segment(self, draw: random.Random) -> None:
        """Past the end of a segment."""
        rows = [row(i % 5000) for i in range(SEGMENT + 10)]
        (self.table.insert_columns if draw.random() < 0.5 else partial(bulk, self.table, self.disk))(columns_of(rows))
        self.add(rows)

    def drop(self, draw: random.Random) -> None:
        ids = [idx for idx in self.rows if idx < SEGMENT]
        self.table.remove(ids)
        for idx in ids:
            del self.rows[idx]

    def ids(self, draw: random.Random, most: int) -> list[int]:
        known = list(self.rows)
        return draw.sample(known, min(len(known), draw.randrange(1, most)))

    def update(self, draw: random.Random) -> None:
        for idx in self.ids(draw, 12):
            given = dict(draw.sample(list(row(draw.randrange(10_000)).items()), 2))
            self.table.update(idx, given)
            self.rows[idx] = {**self.rows[idx], **given}

    def wear(self, draw: random.Random) -> None:
        given = {"f": draw.random(), "s": "x" * draw.choice((1, 50))}
        ids = self.ids(draw, 200)
        values = self.table.codec.encode_partial(given)
        self.table.apply([Change(idx, values) for idx in ids])
        for idx in ids:
            self.rows[idx] = {**self.rows[idx], **given}

    def delete(self, draw: random.Random) -> None:
        ids = self.ids(draw, 300) if self.rows else []
        self.table.remove(ids)
        for idx in ids:
            del self.rows[idx]

    def thin(self, draw: random.Random) -> None:
        """Few rows are left, or none."""
        kept = set(draw.sample(list(self.rows), min(len(self.rows), draw.choice((0, 1, 20)))))
        gone = [idx for idx in self.rows if idx not in kept]
        self.table.remove(gone)
        for idx in gone:
            del self.rows[idx]

    def compact(self, draw: random.Random) -> None:
        self.table.compact()
        self.rows = dict(enumerate(self.rows.values()))
        self.positions = len(self.rows)

    def save(self, draw: random.Random) -> None:
        if self.before is None:
            self.disk.checkpoint(self.table)

    def reopen(self, draw: random.Random) -> None:
        if self.before is None:
            self.table = reopened(self.table, self.disk, self.backend, **self.hints)
            if draw.random() < 0.5:
                self.check()

    def begin(self, draw: random.Random) -> None:
        if self.before is None:
            self.table.begin()
            self.table.port.paused = True
            self.before = dict(self.rows), self.positions

    def end(self, draw: random.Random) -> None:
        if self.before is None:
            return
        if draw.random() < 0.4:
            self.table.commit()
        else:
            self.table.rollback()
            self.rows, self.positions = self.before
        self.table.port.paused = False
        self.before = None
        self.check()

    def check(self) -> None:
        table = self.table
        assert (table.rows, len(table)) == (self.positions, len(self.rows))
        assert repr(dict(table.items())) == repr(self.rows)  # tells 0.0 from -0.0 and True from 1, and is quick
        assert table.aggregate("a") == sum(one["a"] for one in self.rows.values())
        assert table.aggregate("s", "count") == sum(one["s"] is not None for one in self.rows.values())
        for idx in list(self.rows)[::500]:
            assert bits(table.get(idx)) == bits(self.rows[idx])
        assert_sound(table)


OPS = (
    "insert", "insert", "values", "batch", "large", "update", "update", "wear", "wear", "delete", "save", "save",
    "reopen", "begin", "begin", "end", "compact", "thin", "drop",
)  # fmt: skip
HINTS: list[dict[str, Any]] = [{}, {"dict_columns": ["s", "f"], "delta_columns": ["a"], "for_columns": ["n"]}]


def drive(backend: str, seed: int, steps: int, segments: bool = False) -> None:
    draw = random.Random(seed)
    small = {"_PART": draw.choice((512, columnar_file._PART)), "_FEWER": draw.choice((1, columnar_file._FEWER))}
    with mock.patch.multiple(columnar_file, **small):  # chunks are small here, and there are few updates
        play(draw, backend, steps, segments)


def play(draw: random.Random, backend: str, steps: int, segments: bool) -> None:
    driver = Driver(backend, draw.choice(HINTS))
    if segments:
        driver.segment(draw)
        driver.reopen(draw)
    for _ in range(steps):
        getattr(driver, draw.choice(OPS[: len(OPS) - (len(driver.rows) < SEGMENT)]))(draw)
    driver.check()
    driver.end(draw)
    driver.reopen(draw)
    driver.check()


@pytest.mark.parametrize("backend", _ext.available())
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40))
def test_a_table_in_a_file_and_a_model(backend: str, seed: int, steps: int) -> None:
    drive(backend, seed, steps)


@pytest.mark.parametrize("seed", range(3))
def test_several_segments_and_a_model(seed: int) -> None:
    drive(_ext.available()[0], seed, 20, True)
