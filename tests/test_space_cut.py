"""A change of the free space that an exception cuts: nothing in use is given out, what is free is found out anew."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any, Callable

import pytest
import test_store
from test_store import Rows, entry, make, reopened

from snapdb.errors import InternalError, StorageError
from snapdb.storage import space as module
from snapdb.storage.space import Space
from snapdb.storage.superblock import PAGE, PREAMBLE, SLOTS
from snapdb.testing.layers import RecordingLayer

let_go = test_store.let_go  # a fixture that closes what ``make`` opens


def cut(n: int, call: Callable[[], Any]) -> bool:
    """Do a call that is cut at the n-th place where the interpreter looks for signals; whether it was cut."""
    left = [n]

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_globals.get("__name__") == module.__name__ and event in ("call", "c_call", "c_return"):
            left[0] -= 1
            if left[0] == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def is_sound(space: Space, used: dict[int, int]) -> bool:
    """Whether the free intervals are in order and none of them is in use."""
    found = space.free
    assert sorted((size, start) for start, size in found) == sorted(space._fits)
    places = sorted([*found, *used.items()])
    ends = [start + size for start, size in places]
    return all(end <= start for end, (start, _) in zip(ends, places[1:])) and (not ends or ends[-1] <= space.high_water)


def crowded(draw: random.Random) -> tuple[Space, dict[int, int], list[Callable[[], Any]]]:
    """A space with parts in every state, the extents in use, and calls that change it."""
    used: dict[int, int] = {}
    space, ended = Space(), []
    for _ in range(30):
        size = draw.randrange(1, 6) * PAGE
        used[space.allocate(size)] = size
    for start in draw.sample(sorted(used), 12):
        if draw.random() < 0.5:
            space.lease(start)
            ended.append(start)
        if draw.random() < 0.5:
            space.wait(start, used.pop(start))
        else:
            space.release(start, used.pop(start))
    for start in ended:
        space.unlease(start)
    last = max(used)
    return (
        space,
        used,
        [
            lambda: space.allocate(2 * PAGE),
            lambda: space.allocate(40 * PAGE),
            lambda: space.reserve(space.high_water + PAGE, PAGE),
            lambda: space.release(last, used.pop(last)),
            lambda: space.promote(),
            lambda: space.lease(PREAMBLE),
            lambda: space.reclaim(),
        ],
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_place_in_every_change(seed: int) -> None:
    draw = random.Random(seed)
    doubts = 0
    for n in range(1, 40):
        for which in range(7):
            space, used, calls = crowded(draw)
            was_cut = cut(n, calls[which])
            if not space.doubtful:
                assert is_sound(space, used)
                continue
            assert was_cut
            doubts += 1
            with pytest.raises(InternalError):
                space.allocate(PAGE)
            with pytest.raises(InternalError):
                space.reserve(space.high_water, PAGE)
            start = next(iter(used))
            space.release(start, used[start])  # what is free is found out anew
            space.promote()
    assert doubts > 20


def fill(toy: Any, draw: random.Random, keys: int) -> None:
    for key in range(keys):
        toy.put(key, draw.randbytes(draw.randrange(1, 20_000)))


@pytest.mark.parametrize("when", ["before a checkpoint", "before a bulk write", "after one", "after a repeat"])
def test_a_store_finds_out_anew(when: str) -> None:
    layer, draw = RecordingLayer(record=False, maps=True), random.Random(when)
    toy = make(layer, map=True)
    fill(toy, draw, 20)
    toy.bulk({40 + n: draw.randbytes(9000) for n in range(5)})
    toy.checkpoint()
    toy.bulk({50 + n: draw.randbytes(9000) for n in range(5)})
    fill(toy, draw, 10)
    toy.checkpoint()
    held = {key: toy.store.read(one.pieces[0].ref) for key, one in sorted(toy.stored.items())[:8]}
    shown: Rows = {key: bytes(view) for key, view in held.items()}
    fill(toy, draw, 8)
    if when == "after a repeat":
        toy.checkpoint()
        toy.store.repeat_block()
    if when == "after one":
        toy.bulk({60 + n: draw.randbytes(9000) for n in range(5)})
    old = toy.store.extents.space
    old.doubt()
    if when == "before a bulk write":
        toy.bulk({60 + n: draw.randbytes(9000) for n in range(5)})
    for _ in range(4):
        fill(toy, draw, 12)
        toy.checkpoint()
    assert toy.store.extents.space is not old and not toy.store.extents.space.doubtful
    assert {key: bytes(view) for key, view in held.items()} == shown, "a view shows something else"
    assert reopened(layer.contents()) == toy.rows
    del held
    toy.close()
    assert reopened(layer.contents()) == toy.rows


def test_what_the_older_slot_reaches_is_not_given_out() -> None:
    """Found out anew it still waits: a damaged newest superblock leads to the same rows."""
    layer, draw = RecordingLayer(record=False), random.Random(3)
    toy = make(layer)
    fill(toy, draw, 20)
    toy.bulk({40 + n: draw.randbytes(9000) for n in range(5)})
    toy.checkpoint()
    toy.bulk({70 + n: draw.randbytes(9000) for n in range(5)})  # only the older log will name these
    for key in (*range(20), *range(40, 45), *range(70, 75)):
        toy.put(key, draw.randbytes(15_000))
    toy.checkpoint()
    waiting = set(toy.store.extents.space.waiting)
    assert waiting
    toy.store.extents.space.doubt()
    toy.store._ensure_space()
    assert set(toy.store.extents.space.waiting) == waiting
    toy.bulk({60 + n: draw.randbytes(9000) for n in range(9)})  # takes what is free
    contents = layer.contents()
    newest = SLOTS[toy.store.block.slot]
    assert reopened(test_store.flip(contents, test_store.PATH, newest + 40)) == toy.rows


def test_a_cut_write_gives_back_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, draw = RecordingLayer(record=False), random.Random(5)
    toy = make(layer)
    fill(toy, draw, 20)
    toy.checkpoint()
    live = toy.store.statistics()["live_bytes"]
    for n in range(1, 12):
        monkeypatch.setattr(module, "insort", Cut(n))
        try:
            toy.store.forget(toy.store.write(99, entry(draw.randbytes(30_000))))
        except (MemoryError, StorageError):
            pass
        monkeypatch.undo()
        assert toy.store.statistics()["live_bytes"] == live
    fill(toy, draw, 20)
    toy.close()
    assert reopened(layer.contents()) == toy.rows


class Cut:
    """``insort`` that finds no memory the n-th time."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, found: Any, item: Any) -> None:
        from bisect import insort

        self.left -= 1
        if self.left == 0:
            raise MemoryError
        insort(found, item)
