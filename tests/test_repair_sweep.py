"""Random damage, and what ``repair`` makes of it: every row that verifies is there and is what it was, every row,
commit and snapshot that is lost is named, and the file is sound.

SNAPDB_LONG=1 takes 1,000 damages of both engines, CI a tenth of that.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from damaged import KINDS, PATH, build, seed
from repair_oracle import all_may_be_lost, judge, repaired

from snapdb import _ext
from snapdb.errors import CorruptionError

SEEDS = (
    "row closed", "columnar closed", "row open", "columnar open", "row snapshots", "columnar snapshots", "row tree",
    "row closed key", "columnar open key", "row back", "columnar back", "row leaves",
    "columnar packed", "columnar beside", "columnar filled",
)  # fmt: skip
DAMAGES = 1000 if os.environ.get("SNAPDB_LONG") else 100
SHARDS = 10
HOW = ("byte", "bit", "zeros", "noise", "page", "pages", "copy", "swap", "cut", "two", "log", "log")
PAGE = 4096


def harm(files: dict[str, bytearray], draw: random.Random) -> str:
    """Damage files somehow; what was done."""
    how = draw.choice(HOW)
    name = PATH
    logs = sorted(set(files) - {PATH})
    if how == "log" and logs:
        name, how = draw.choice(logs), draw.choice(("byte", "zeros", "noise", "cut"))
    elif how == "log":
        how = "byte"
    if how == "two":
        return f"{harm(files, draw)}, {harm(files, draw)}"
    data = files[name]
    if not data:
        return "nothing"
    at = draw.randrange(len(data))
    size = draw.choice((1, 8, 64, 512, 3000, 9000))
    if how in ("byte", "bit"):
        data[at] ^= draw.randrange(1, 256) if how == "byte" else 1 << draw.randrange(8)
    elif how in ("zeros", "noise"):
        size = min(size, len(data) - at)
        data[at : at + size] = bytes(size) if how == "zeros" else draw.randbytes(size)
    elif how in ("page", "pages"):
        at, count = at // PAGE * PAGE, 1 if how == "page" else draw.randrange(2, 6)
        size = min(count * PAGE, len(data) - at)
        data[at : at + size] = draw.choice((bytes(size), draw.randbytes(size), b"\xff" * size))
    elif how in ("copy", "swap"):
        at, other = at // PAGE * PAGE, draw.randrange(len(data)) // PAGE * PAGE
        size = min(PAGE, len(data) - max(at, other))
        one, two = bytes(data[at : at + size]), bytes(data[other : other + size])
        data[other : other + size] = one
        if how == "swap":
            data[at : at + size] = two
    elif how == "cut":
        del data[max(at, 0x4000 if name == PATH else 0) :]
    return f"{how} of {size} at {at} of {name}"


def run(numbers: range) -> None:
    for number in numbers:
        draw = random.Random(number)
        which = SEEDS[number % len(SEEDS)]
        made = seed(which)
        files = {name: bytearray(data) for name, data in made.files.items()}
        done = harm(files, draw)
        harmed = {name: bytes(data) for name, data in files.items()}
        try:
            found = repaired(harmed, made.key)
        except CorruptionError as error:
            assert nothing_left(made, harmed), f"{number}: {which}, {done}: {error}"
            continue
        except BaseException as error:
            raise AssertionError(f"{number}: {which}, {done}: {type(error).__name__}: {error}") from error
        wrong = judge(made, harmed, found)
        assert not wrong, f"{number}: {which}, {done}: {wrong}; {found.report}"


def nothing_left(made: Any, files: dict[str, bytes]) -> bool:
    """Whether it may be that nothing can be kept: no header, or no root from which to go down."""
    before, data = made.files[PATH], files[PATH]
    if all_may_be_lost(made, files):
        return True
    hit = [at for at in (0, 0x1000, 0x2000, 0x3000) if data[at : at + PAGE - 64] != before[at : at + PAGE - 64]]
    if made.key is not None and ({0, 0x2000} <= set(hit) or {0x1000, 0x3000} <= set(hit)):
        return True
    roots = [at for at in range(0x4000, len(before), PAGE) if before[at : at + 5] == b"SNEX\3"]
    return sum([before[at : at + 1200] != data[at : at + 1200] for at in roots]) > 0


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_damage(shard: int, record_property: Any) -> None:
    numbers = range(shard, DAMAGES, SHARDS)
    run(numbers)
    record_property("count: random damages repaired", len(numbers))


@pytest.mark.skipif("python" not in _ext.available(), reason="the twins are not there")
def test_random_damage_with_the_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "BACKEND", "python")
    run(range(5000, 5000 + DAMAGES // 10))


@pytest.mark.parametrize("name", KINDS)
def test_chosen_damage(name: str, record_property: Any) -> None:
    made, files = seed(KINDS[name].seed), build(name)
    try:
        found = repaired(files, made.key)
    except CorruptionError:
        assert nothing_left(made, files) or len(files[PATH]) <= 0x4000 or name.startswith("no-database"), name
    else:
        assert judge(made, files, found) == ""
    record_property("count: chosen damages repaired", 1)
