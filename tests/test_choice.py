"""The choice rule of ``docs/format.md``: the bytes of every backend are those of a slow, literal reading of it."""

from __future__ import annotations

import random
import struct
from array import array
from typing import Any, Callable, Optional

import pytest
from chunk_columns import INF, NAN, ODD_NAN, N, columns, every_case, f32, nulled, sealed
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_choice import choose
from reference_chunks import HEAD

from snapdb import _ext
from snapdb._ext import _common as c

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

CODED = (c.FOR, c.DICT, c.SLOPE, c.DEC)
INTS = (c.I16, c.I32, c.I64, c.U64, c.DATETIME)
MOST_INT = 1 << 51


def of(code: int, values: list[Any], prefer: int = 0, backend: str = "python") -> dict[str, int]:
    """The header of a sealed column, with the same bytes from every backend."""
    made = {bytes(sealed(_ext.backend(each), code, values, prefer)[0].data) for each in (backend, *_ext.available())}
    assert len(made) == 1, f"the backends differ: {prefer}"
    names = "codec dtype W T rows nulls count base step n v o h total layout digits power flags marks p c l plain"
    return dict(zip(names.split(), HEAD.unpack_from(made.pop())))


def check(code: int, values: list[Any], prefer: int) -> None:
    chosen = choose(code, values, prefer)
    made = {name: bytes(sealed(_ext.backend(name), code, values, prefer)[0].data) for name in _ext.available()}
    for name, data in made.items():
        assert (data[0], data[72]) == (chosen.codec, chosen.layout), name
    if chosen.codec in CODED:
        wanted = chosen.chunk(code, values)
        assert all(data == wanted for data in made.values()), [name for name in made if made[name] != wanted]


@every_case
def test_the_rule(code: int, name: str) -> None:
    hints = (c.DICT, c.FOR, c.AFFINE) if code in (c.I64, c.F32, c.STR) else ()
    for prefer in (0, *hints):
        check(code, columns(code)[name], prefer)


# -- random columns of the shapes that the forms are made for --------------------
def shaped(draw: Any, code: int) -> list[Any]:
    low, high = c.LIMITS[code]
    if code == c.DATETIME:
        low, high = -62135596800000000, 253402300799999999
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    span = min(high - low, 2 ** draw(st.integers(1, 64)))
    base = draw(st.sampled_from([low, high - span, max(low, 0) if span <= high - max(low, 0) else low]))
    step = draw(st.sampled_from([1, 1, 2, 250, 3600]))
    rows = N * draw(st.integers(1, 3))
    shape = draw(st.sampled_from(["any", "line", "few", "rare", "runs", "curve"]))
    rare = draw(st.sampled_from([0.001, 0.01, 0.1]))
    slope = (span // rows) * draw(st.sampled_from([1, -1, 0]))
    noise = 2 ** draw(st.integers(0, 20))
    few = [base + chance.randrange(span + 1) for _ in range(draw(st.sampled_from([2, 40, 300])))]
    found = []
    for row in range(rows):
        if shape == "any":
            value = base + chance.randrange(span + 1) // step * step
        elif shape == "line":
            value = base + row * slope + chance.randrange(noise) * step
        elif shape == "few":
            value = chance.choice(few)
        elif shape == "rare":
            value = base + (chance.randrange(span + 1) if chance.random() < rare else chance.randrange(noise))
        elif shape == "runs":
            value = few[row // 9 * 7 % len(few)]
        else:
            value = base + row * row * step
        found.append(min(max(value, low), high))
    return found


def shaped_floats(draw: Any, code: int) -> list[Any]:
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    digits, size = draw(st.integers(0, 16)), 10 ** draw(st.integers(1, 17))
    step, rows = draw(st.sampled_from([1, 1, 5, 60])), N * draw(st.integers(1, 2))
    values = [chance.randrange(-size, size) * step / 10**digits for _ in range(rows)]
    shape = draw(st.sampled_from(["plain", "odd", "bits", "rare", "few", "runs"]))
    strange = [NAN, INF, -INF, -0.0, 1e300, 5e-324, 1 / 3, ODD_NAN, 2.0**51, -(2.0**51), 2.0**51 + 1, 0.1 + 0.2]
    share = draw(st.sampled_from([0.001, 0.02]))
    for row in range(rows):
        if shape == "odd" and chance.random() < share:
            values[row] = chance.choice(strange)
        elif shape == "bits" and chance.random() < share:
            values[row] = struct.unpack("<d", struct.pack("<Q", chance.getrandbits(64)))[0]
        elif shape == "rare" and chance.random() > share:
            values[row] /= 1000
        elif shape == "few":
            values[row] = values[row % 7]
        elif shape == "runs":
            values[row] = values[row // 50]
    return [f32(value) for value in values] if code == c.F32 else values


@settings(max_examples=60)
@given(st.data())
def test_random_columns(data: Any) -> None:
    code = data.draw(st.sampled_from([*INTS, c.F32, c.F64, c.F64]))
    values: list[Any] = (shaped_floats if code in c.FLOATS else shaped)(data.draw, code)
    if data.draw(st.booleans()):
        share = data.draw(st.sampled_from([2, 9, 100]))
        values = nulled(values, share)
    check(code, values, data.draw(st.sampled_from([0, 0, 0, c.DICT, c.FOR, c.AFFINE])))


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=6), min_size=2, max_size=60), st.binary(max_size=30), st.integers(1, 40))
def test_random_texts(words: list[bytes], prefix: bytes, run: int) -> None:
    check(c.BINARY, [(prefix + words[row // run % len(words)]) for row in range(N)], 0)


# -- each threshold from both sides ------------------------------------------------
def test_steps() -> None:
    def steps(values: list[int], code: int = c.I64) -> int:
        found = of(code, values, c.FOR)
        assert found["codec"] == c.FOR
        return found["step"]

    chance = random.Random(1)
    assert steps([chance.randrange(50) * 60 - 7 for _ in range(N)]) == 60
    assert steps([0, 60, 61] * (N // 3) + [0]) == 0
    assert steps([0, 2, 14] * (N // 3) + [0]) == 0  # 4 bits are not divided
    assert steps([0, 2, 16] * (N // 3) + [0]) == 2
    assert steps([0, (1 << 63) - 1] * (N // 2), c.U64) == (1 << 63) - 1
    assert steps([0, 1 << 63] * (N // 2), c.U64) == 0  # the field holds no more
    # 63 and 62 bits both take 64: a half of it does not pay, a quarter does
    assert steps([0, 2, (1 << 63) - 2] * (N // 3) + [0]) == 0
    assert steps([0, 4, (1 << 63) - 4] * (N // 3) + [0]) == 4
    late = [0] * N + [30 * 36, 30 * 48] * (N // 2)
    assert steps(late) == 360


def test_runs() -> None:
    def layout(lengths: list[int], top: int = 200) -> int:
        values = [place % 2 * top for place, length in enumerate(lengths) for _ in range(length)]
        values[-1] = 3  # a run more, of one row
        return of(c.I32, values)["layout"]

    assert layout([9, 7] * (N // 16)) == c.PACKED  # 129 runs in 1,024 rows
    assert layout([9, 7] * (N // 16 - 1) + [16]) == c.RUNS  # 128
    # by size: 2 + 3 bytes a run against 128 a bit; 15 runs of 1 bit are 47 bytes of 128
    values = [row // 30 % 2 for row in range(N)]
    assert of(c.I32, values)["layout"] == c.RUNS
    # 10 * (2 + 3 * runs) <= 9 * 128: 37 runs
    for runs, wanted in ((37, c.RUNS), (38, c.PACKED)):
        ends = [row * runs // N % 2 for row in range(N)]
        assert 1 + sum(a != b for a, b in zip(ends, ends[1:])) == runs
        assert of(c.I32, ends)["layout"] == wanted
    # nulls break no run
    broken: list[Optional[int]] = [None if row % 3 else row // 100 for row in range(N)]
    found = of(c.I32, broken)
    assert (found["layout"], found["marks"]) == (c.RUNS, 11)


def test_exceptions() -> None:
    def layout(count: int, bits: int) -> tuple[int, int, int]:
        """One block of codes of 4 bits, with ``count`` that have ``bits``."""
        values = [row * 7 % 16 for row in range(N)]
        for place in range(count):
            values[place * N // count + 1] = (1 << bits) - 1 - place
        found = of(c.U32, values, c.FOR)
        return found["layout"], found["W"], found["marks"]

    # 12 bits: 10 * (512 + 8 + 4 * e) <= 9 * 1536 up to e = 215
    assert layout(215, 12) == (c.EXCEPTED, 4, 215)
    assert layout(216, 12)[0] == c.PACKED
    # in the sample (every fourth row of these) as many as there: at 1 of 4 rows nothing is looked at
    assert layout(1, 30) == (c.EXCEPTED, 4, 1)
    assert layout(0, 30)[0] == c.PACKED
    # all in rows that the sample looks at: the estimate is too high and exceptions are not looked at
    values = [row * 7 % 16 for row in range(N)]
    for place in range(70):
        values[place * 12] = 4095 - place
    assert of(c.U32, values, c.FOR)["layout"] == c.PACKED
    values = [row * 7 % 16 for row in range(N)]
    for place in range(70):
        values[place * 12 + 1] = 4095 - place
    assert of(c.U32, values, c.FOR)["layout"] == c.EXCEPTED


def test_slopes() -> None:
    chance = random.Random(2)

    def codec(noise: int, prefer: int = 0, code: int = c.I64, rows: int = N) -> int:
        return of(code, [row * 1000 + chance.randrange(noise) for row in range(rows)], prefer)["codec"]

    assert codec(100) == codec(100, c.AFFINE) == c.SLOPE
    assert codec(100, c.FOR) == c.FOR
    assert codec(400_000) == c.FOR  # 19 of 20 bits are left
    assert codec(400_000, c.AFFINE) == c.SLOPE  # no gate, and as soon as it is smaller
    assert of(c.I64, nulled([row * 1000 + row % 7 for row in range(N)], 50))["codec"] == c.FOR
    wide = [row % 2 * 5 + row * ((1 << 62) // N) for row in range(N)]
    wide[-1] = (1 << 62) - 1
    assert of(c.I64, wide, c.AFFINE)["codec"] == c.SLOPE
    wide[-1] = 1 << 62
    assert of(c.I64, wide, c.AFFINE)["codec"] in (c.FOR, c.RAW)
    exact = [row * 5 + row // N * 77 for row in range(4 * N)]
    found = of(c.I32, exact)
    assert (found["codec"], found["W"], found["T"], found["v"]) == (c.SLOPE, 0, 0, 0)
    for code in INTS:
        low, high = c.LIMITS[code]
        if code == c.DATETIME:
            continue
        falling = [high - row * 20 - row % 3 for row in range(N)]
        assert of(code, falling)["codec"] == c.SLOPE
        assert of(code, [low + high - value for value in falling])["codec"] == c.SLOPE


def test_decimals() -> None:
    def codec(values: list[Any], code: int = c.F64, prefer: int = 0) -> int:
        return of(code, values, prefer)["codec"]

    chance = random.Random(3)
    cents: list[Any] = [chance.randrange(100_000) / 100 for _ in range(N)]
    assert codec(cents) == c.DEC
    assert of(c.F64, cents)["digits"] == 2
    for count, wanted in ((16, c.DEC), (17, c.RAW)):
        odd = list(cents)
        for place in range(count):
            odd[place * 60 + 3] = 1 / (place + 3.1)
        assert codec(odd) == wanted
    for count, wanted in ((4, c.DEC), (5, c.RAW)):  # in the sample, always the same one
        odd = list(cents)
        for place in range(count):
            odd[place * 16] = 1 / 3
        assert codec(odd) == wanted
    assert codec([NAN] * (N - 1) + [2.5]) == c.DICT  # no decimal in the sample
    assert codec([2.5] + [NAN] * (N - 1)) == c.DEC
    late = [*cents[:-1], 0.12345]
    assert of(c.F64, late)["digits"] == 5
    # 85 of 100: 54 bits of 64 would do, 53 bits is the most there is; f32: 27 of 32
    assert codec([float(chance.randrange(-MOST_INT, MOST_INT)) for _ in range(N)]) == c.DEC
    assert codec([f32(float(chance.randrange(1 << 24) * 8)) for _ in range(N)], c.F32) == c.DEC
    past = [float(MOST_INT - row) for row in range(N)]
    found = of(c.F64, [*past, *[-value for value in past]])
    assert (found["codec"], found["digits"], found["plain"], found["count"]) == (c.DEC, 0, 2 * MOST_INT + 1, 0)
    past[5] = MOST_INT + 1.0
    assert of(c.F64, past)["count"] == 1
    # hints: DICT takes what it can have
    assert codec([float(row % 30) for row in range(N)], prefer=c.DICT) == c.DICT
    assert codec([float(row % 30) for row in range(N)]) == c.DEC
    # multiplied back where every value comes out, else divided
    assert of(c.F64, [row / 100 for row in range(N)])["power"] == 14
    thousandths = [row / 1000 for row in range(0, 2 * N, 2)]
    assert of(c.F64, thousandths)["power"] in (0, 14, 17, 20)
    tiny = [row * 1e-15 for row in range(40)] * 26
    assert of(c.F64, tiny[:N])["power"] in (0, 17, 20)


def test_front_coding() -> None:
    def flags(entries: list[bytes]) -> int:
        found = of(c.BYTES, [entries[row % len(entries)] for row in range(N)])
        assert found["codec"] == c.DICT
        return found["flags"]

    assert flags([b"a prefix of %03d" % i for i in range(200)]) == c.FRONT
    # 16 entries of k bytes that share nothing: 39 + 16k against 68 + 16k, 10 to 9: up to k = 13
    assert flags([bytes([64 + i]) * 13 for i in range(16)]) == c.FRONT
    assert flags([bytes([64 + i]) * 14 for i in range(16)]) == 0


def test_dictionaries_against_other_forms() -> None:
    chance = random.Random(5)
    # 300 values of 17 bits: 9 bits a row and 2,400 bytes; allowed from 1,200 rows on
    few = [chance.randrange(1 << 17) for _ in range(100)]
    values = [chance.choice(few) for _ in range(8 * N)]
    assert of(c.I32, values)["codec"] == c.DICT
    assert of(c.I32, values, c.FOR)["codec"] == c.FOR
    assert of(c.I32, [value & 0xFFFF for value in values])["codec"] == c.FOR  # 16 bits
    sixty = [chance.choice(few[:60]) * 3600 for _ in range(8 * N)]
    assert of(c.I64, sixty)["step"] == 0 and of(c.I64, sixty)["codec"] == c.DICT
    narrow = [chance.choice(few[:60]) % 5000 * 3600 for _ in range(8 * N)]
    found = of(c.I64, narrow)
    assert (found["codec"], found["step"]) == (c.FOR, 3600)  # divided they are narrow


# -- whole segments ----------------------------------------------------------------
WHOLE = c.SEGMENT
SHAPES: dict[str, Callable[[random.Random, int], list[int]]] = {
    "few": lambda chance, rows: chance.choices([chance.getrandbits(20) for _ in range(chance.randint(1, 300))], k=rows),
    "narrow": lambda chance, rows: chance.choices(range(chance.randint(2, 5000)), k=rows),
    "wide": lambda chance, rows: [chance.getrandbits(31) for _ in range(rows)],
    "line": lambda chance, rows: [row * 37 + jitter for row, jitter in enumerate(chance.choices(range(50), k=rows))],
    "exact": lambda chance, rows: list(range(rows)),
    "runs": lambda chance, rows: [row // 700 * 11 % 400 for row in range(rows)],
    "rare": lambda chance, rows: [chance.getrandbits(30 if row % 3001 == 7 else 3) for row in range(rows)],
}


def whole_segment(code: int, chance: random.Random) -> list[Any]:
    """All 64 blocks, in one shape or in several that change at any row."""
    cuts = [0, *sorted(chance.sample(range(1, WHOLE), chance.choice([0, 0, 1, 3]))), WHOLE]
    found: list[int] = []
    for start, stop in zip(cuts, cuts[1:]):
        found += SHAPES[chance.choice(list(SHAPES))](chance, stop - start)
    values: list[Any]
    if code in c.VARLEN:
        values = [b"a prefix of %05d" % (value % 20_000) for value in found]
    elif code in c.FLOATS:
        part = chance.choice([1, 10, 100, 1000, 7])
        values = [value / part for value in found]
        for row in chance.sample(range(WHOLE), chance.choice([0, 5, 900, 2500])):
            values[row] = chance.choice([NAN, INF, -0.0, 1e-30, chance.random()])
        values = list(map(f32, values)) if code == c.F32 else values
    else:
        low, high = c.LIMITS[code]
        step, base = chance.choice([1, 1, 60, 900]), chance.choice([low, 0, low // 3])
        values = [min(base + value * step, high) for value in found]
    if chance.random() < 0.4:
        for row in chance.sample(range(WHOLE), chance.choice([3, 2000, 40_000])):
            values[row] = None
    return values


@pytest.mark.parametrize("seed", range(28))
def test_whole_segments(seed: int) -> None:
    """The compiled writer and NumPy's, with what changes from block to block."""
    makers = [name for name in _ext.available() if name != "python"]
    if len(makers) < 2:
        pytest.skip("only one of the fast writers is there")
    chance = random.Random(seed)
    code = (c.I32, c.I64, c.U64, c.DATETIME, c.F64, c.F32, c.STR)[seed % 7]
    values = whole_segment(code, chance)
    some = array("I", chance.sample(range(WHOLE), 300))
    for prefer in (0, chance.choice([c.DICT, c.FOR, c.AFFINE])):
        made = [sealed(_ext.backend(name), code, values, prefer) for name in makers]
        assert len({bytes(chunk.data) for chunk, _ in made}) == 1, prefer
        assert len({repr(zone) for _, zone in made}) == 1, prefer
        for chunk, _ in made:
            assert repr([chunk.physical(row) for row in some]) == repr([values[row] for row in some])
