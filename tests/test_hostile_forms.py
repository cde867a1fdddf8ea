"""Damage in the fields and sections of exceptions, runs, lines, decimals and front coding: refused by name, alike on
every backend, or read as what it says.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import make_vectors
import pytest
import reference_chunks as slow
from chunk_columns import ODD_NAN, N, columns
from test_hostile_chunks import ENDS, touch

from snapdb import _ext
from snapdb._ext import _common as c

AT = {
    "codec": (0, "B"), "dtype": (1, "B"), "W": (2, "B"), "T": (3, "B"), "rows": (4, "I"), "nulls": (8, "I"),
    "count": (12, "I"), "base": (16, "q"), "step": (24, "q"), "layout": (72, "B"), "digits": (73, "B"),
    "power": (74, "B"), "flags": (75, "B"), "marks": (76, "I"), "plain": (104, "Q"),
}  # fmt: skip
SECTION = {"nulls": 32, "values": 40, "offsets": 48, "heap": 56, "places": 80, "codes": 88, "lines": 96}
PLAIN, EXCEPTED, RUNS = slow.LAYOUTS


def field(data: bytes, **values: int) -> bytes:
    made = bytearray(data)
    for name, value in values.items():
        place, letter = AT[name]
        struct.pack_into(f"<{letter}", made, place, value)
    return bytes(made)


def part(data: bytes, name: str, place: int, letters: str, *values: int) -> bytes:
    """The chunk with values put into a section, ``place`` bytes from its start."""
    made = bytearray(data)
    struct.pack_into(f"<{letters}", made, struct.unpack_from("<Q", data, SECTION[name])[0] + place, *values)
    return bytes(made)


def ints(layout: int, codec: Any = slow.frame, code: int = c.I32, **options: Any) -> bytes:
    values = [
        row // 60 * 60 if layout == RUNS else row % 8 * 6 + (6000 if row % 100 == 7 else 0) for row in range(2 * N)
    ]
    made: bytes = codec(code, values, layout, **options)
    return made


def cents(layout: int, code: int = c.F64) -> bytes:
    odd = {7: float("inf"), 9: -0.0, 11: float("-inf"), 13: float("nan")}
    values = [odd.get(row, (row // 60 if layout == RUNS else row % 50 + row // 200 * 90) / 4) for row in range(2 * N)]
    return slow.decimals(code, values, layout)


def words(front: bool = True, code: int = c.STR, layout: int = PLAIN) -> bytes:
    return slow.dictionary(code, [b"common %02d" % (row // 20 % 40) for row in range(2 * N)], layout, front=front)


def one_entry_more(heap: bytes, restarts: list[int], count: int) -> bytes:
    """A front-coded dictionary of bytes with this heap; every row has code 0 but one."""
    offsets = struct.pack(f"<{len(restarts)}I", *restarts)
    codes = slow.stream([1, *[0] * (N - 1)], PLAIN)
    return slow.chunk(c.DICT, c.BINARY, N, count=count, flags=c.FRONT, offsets=offsets, heap=heap, **codes)


def cases() -> list[tuple[str, bytes, str]]:
    packed, excepted, runs = (ints(layout) for layout in slow.LAYOUTS)
    line = ints(PLAIN, slow.slope)
    dec, front = cents(PLAIN), words()
    marks = struct.unpack_from("<I", excepted, 76)[0]
    ends = struct.unpack_from("<I", runs, 76)[0]
    top = runs[3] // 8
    found = [
        ("layout 3", field(packed, layout=3), "unknown layout 3"),
        ("codec 9", field(packed, codec=9), "unknown codec 9"),
        ("const with a layout", field(slow.chunk(c.CONST, c.I32, N, base=5), layout=2), "codec 2 has no layout 2"),
        ("affine with a layout", field(slow.chunk(c.AFFINE, c.I32, N, step=1), layout=1), "codec 3 has no layout 1"),
        ("slope of floats", field(line, dtype=c.F64), "codec 7 does not hold dtype 10"),
        ("decimal integers", field(dec, dtype=c.I64), "codec 8 does not hold dtype 4"),
        ("slope with nulls", field(line, nulls=1), "a slope cannot have nulls"),
        ("runs with W", field(runs, W=3), "values of 3 bits"),
        ("exceptions with W = T", field(excepted, W=excepted[3]), f"values of {excepted[3]} bits"),
        ("exceptions of 12 bits", field(excepted, T=12), "containers of 12 bits for values of"),
        ("runs of 64 bits in i32", field(runs, T=64), "containers of 64 bits for values of 0"),
        ("packed of 0 bits", field(packed, W=0, T=0), "values of 0 bits"),
        ("no exceptions", field(excepted, marks=0), "0 exceptions"),
        ("too many exceptions", field(excepted, marks=65536), "65536 exceptions"),
        ("no runs", field(runs, marks=0), "0 runs"),
        ("too many runs", field(runs, marks=8193), "8193 runs"),
        ("packed with marks", field(packed, marks=1), "1 marks"),
        ("raw with marks", field(slow.chunk(c.RAW, c.I8, N, values=bytes(N)), marks=7), "7 marks"),
        ("step 1", field(packed, step=1), "a step of 1"),
        ("step -6", field(packed, step=-6), "a step of -6"),
        ("slope of step 1", field(line, step=1), "a step of 1"),
        ("decimals of step -2", field(dec, step=-2), "a step of -2"),
        ("const with a step", field(slow.chunk(c.CONST, c.I32, N, base=5), step=2), "it has a step"),
        ("slope with a base", field(line, base=7), "it has a base"),
        ("step out of the type", field(packed, step=1 << 40), "outside the dtype's range"),
        ("digits of integers", field(packed, digits=2), "it has decimals"),
        ("power of integers", field(packed, power=14), "it has decimals"),
        ("plain of integers", field(packed, plain=1), "it has decimals"),
        ("16 digits", field(dec, digits=16, power=0), "decimals of 16 digits"),
        ("10 digits of f32", field(cents(PLAIN, c.F32), digits=10), "decimals of 10 digits"),
        ("power 23", field(dec, power=23), "a power of 23 for 2 digits"),
        ("power as digits", field(dec, power=2), "a power of 2 for 2 digits"),
        ("no decimals", field(dec, plain=0), "0 decimals"),
        ("too many decimals", field(dec, plain=(1 << 52) + 2), "4503599627370498 decimals"),
        ("large base", field(dec, base=(1 << 51) - 3), r"its decimals go past 2\*\*51"),
        ("low base", field(dec, base=-(1 << 51) - 1), r"its decimals go past 2\*\*51"),
        ("large step", field(dec, step=1 << 50), r"its decimals go past 2\*\*51"),
        ("17 odd values", field(dec, count=17), "17 odd values"),
        ("flag of integers", field(packed, flags=1), "unknown flags 1"),
        ("flag 2", field(front, flags=2), "unknown flags 2"),
        ("flag of other codecs", field(slow.chunk(c.CONST, c.STR, N, base=1, heap=b"a"), flags=1), "unknown flags 1"),
        ("starts of exceptions", part(excepted, "places", 0, "I", 1), "the starts of its exceptions do not rise"),
        ("end of exceptions", part(excepted, "places", 8, "I", marks + 1), f"do not rise from 0 to {marks}"),
        ("starts that fall", part(excepted, "places", 4, "I", marks + 1), f"do not rise from 0 to {marks}"),
        ("rows out of order", part(excepted, "places", 14, "H", 7), "not in the order of their rows"),
        ("a row of another block", part(excepted, "places", 12, "H", 1100), "not in the order of their rows"),
        ("a row past the end", part(excepted, "places", 12 + 2 * marks - 2, "H", 2 * N), "not in the order of their"),
        ("a small exception", part(excepted, "codes", 0, "I" if excepted[3] == 32 else "H", 1), "fits into .* bits"),
        ("a code below", exception_with_code(), "a row with an exception has a code too"),
        ("last run", part(runs, "places", 4 + 2 * ends - 2, "H", 2 * N - 2), "do not end in rows that rise to 2047"),
        ("runs that fall", part(runs, "places", 4 + 2, "H", 5), "do not end in rows that rise to 2047"),
        ("first run of a block", part(runs, "places", 2, "H", 3), "do not start in the runs that they say"),
        ("first run of all", part(runs, "places", 0, "H", 1), "do not start in the runs that they say"),
        ("a run out of the type", part(field(runs, T=32), "codes", 0, "B" * top, *[255] * top), ""),
        ("zero of a line", part(line, "lines", 20, "I", 1), "the reserved bytes of its lines are not zero"),
        ("base of a line", part(line, "lines", 24, "q", 1 << 40), "a value is outside the dtype's range"),
        ("slope of a line", part(line, "lines", 8, "q", 1 << 40), "a value is outside the dtype's range"),
        ("odd values out of order", part(dec, "heap", 8, "Q", (1 << 63) - 1), "its odd values are not sorted"),
        ("odd values twice", odd_twice(dec), "its odd values are not sorted"),
        ("fewer decimals", field(dec, plain=20), "a code has no value"),
        ("code without entry", code_past_the_dictionary(), "a code has no dictionary value"),
        ("restart", part(front, "offsets", 4, "I", 2), "a restart is not where its entry starts"),
        ("first restart", part(front, "offsets", 0, "I", 1), "a restart is not where its entry starts"),
        ("restart past the heap", part(front, "offsets", 4, "I", 1 << 31), "a restart is not where its entry starts"),
        ("first entry", part(front, "heap", 0, "B", 120), ""),
        (
            "long varint",
            one_entry_more(b"\x80\x80\x80\x80\x80\x01", [0, 6], 2),
            "a length in its dictionary is damaged",
        ),
        ("padded varint", one_entry_more(b"\x81\x00a\x00\x00", [0, 5], 2), "a length in its dictionary is damaged"),
        ("large varint", one_entry_more(b"\xff\xff\xff\xff\x1f", [0, 5], 2), "a length in its dictionary is damaged"),
        ("entry past the heap", one_entry_more(b"\x01a\x01\x09b", [0, 5], 2), "ends past the heap"),
        ("varint past the heap", one_entry_more(b"\x01a\x81", [0, 3], 2), "ends past the heap"),
        ("no second entry", one_entry_more(b"\x01a", [0, 2], 2), "ends past the heap"),
        ("shares too much", one_entry_more(b"\x01a\x02\x01b", [0, 5], 2), "shares more than the one before has"),
        ("heap goes on", one_entry_more(b"\x01a\x01\x01b\x00", [0, 6], 2), "its dictionary ends before its heap"),
        ("not sorted", one_entry_more(b"\x01b\x00\x01a", [0, 5], 2), "its dictionary is not sorted"),
        ("not distinct", one_entry_more(b"\x01b\x01\x00", [0, 4], 2), "its dictionary is not sorted"),
        ("not text", field(one_entry_more(b"\x01a\x00\x01\xff", [0, 5], 2), dtype=c.STR), "entry 1: "),
    ]
    for name, chunk in (("places", excepted), ("codes", runs), ("lines", line)):
        place = SECTION[name]
        moved = struct.unpack_from("<Q", chunk, place)[0] + 64
        made = bytearray(chunk)
        struct.pack_into("<Q", made, place, moved)
        found.append((f"{name} elsewhere", bytes(made), f"its {name} are at {moved}, not at {moved - 64}"))
        struct.pack_into("<Q", made, place, 0)
        found.append((f"no {name}", bytes(made), f"its {name} are at 0"))
    made = bytearray(packed)
    struct.pack_into("<Q", made, SECTION["lines"], 128)
    found.append(("lines of FOR", bytes(made), "it has no lines but says where they are"))
    return found


def exception_with_code() -> bytes:
    """Row 7 of the packed values is not 0."""
    values = [row % 8 * 6 + (6000 if row % 100 == 7 else 0) for row in range(2 * N)]
    fields = slow.stream(list(values), EXCEPTED)
    low = [0 if value >> fields["width"] else value for value in values]
    low[7] = 1
    fields["values"] = slow.pack(low, fields["width"], fields["packed"])
    return slow.chunk(c.FOR, c.I32, 2 * N, **fields)


def odd_twice(dec: bytes) -> bytes:
    heap = struct.unpack_from("<Q", dec, SECTION["heap"])[0]
    return part(dec, "heap", 8, "Q", struct.unpack_from("<Q", dec, heap)[0])


def code_past_the_dictionary() -> bytes:
    data = words(False, layout=RUNS)
    return part(data, "codes", 3 * data[3] // 8, "B", 200)


CASES = cases()


@pytest.mark.parametrize(("data", "what"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_damage_is_named(kernels: _ext.Backend, data: bytes, what: str) -> None:
    if what:
        with pytest.raises(ValueError, match=f"^damaged chunk: .*{what}"):
            kernels.codecs.Chunk(data)
    else:
        with pytest.raises(ValueError, match="^damaged chunk: "):
            kernels.codecs.Chunk(data)


def test_the_chunks_are_whole_before(kernels: _ext.Backend) -> None:
    for layout in slow.LAYOUTS:
        for data in (
            ints(layout),
            ints(layout, slow.slope),
            ints(layout, step=6),
            cents(layout),
            words(True, c.STR, layout),
        ):
            touch(kernels.codecs.Chunk(data))
    for heap, restarts in ((b"\x01a\x00\x01b", [0, 5]), (b"\x00\x00\x81\x01" + b"x" * 129, [0, 133])):
        touch(kernels.codecs.Chunk(one_entry_more(heap, restarts, 2)))


@pytest.mark.parametrize("code", sorted(ENDS))
@pytest.mark.parametrize("layout", slow.LAYOUTS)
def test_dates_that_python_does_not_have(kernels: _ext.Backend, code: int, layout: int) -> None:
    for end, inside in zip(ENDS[code], (1, -1)):
        for past in (0, -inside):
            values = [end + inside * (row // 100 * 9 + 100) for row in range(N)]
            values[500:510] = [end + past] * 10
            for make in (slow.frame, slow.slope, slow.dictionary):
                data = make(code, values, layout)
                if not past:
                    touch(kernels.codecs.Chunk(data))
                else:
                    with pytest.raises(ValueError, match="^damaged chunk: "):
                        kernels.codecs.Chunk(data)


FORMS = [
    ints(EXCEPTED), ints(RUNS), ints(PLAIN, slow.slope), ints(EXCEPTED, slow.slope),
    ints(RUNS, slow.frame, c.I64, step=60), cents(PLAIN), cents(EXCEPTED, c.F32), cents(RUNS),
    words(), words(False, c.BYTES, EXCEPTED), words(True, c.STR, RUNS),
    slow.frame(c.I64, columns(c.I64)["runs null"], RUNS), slow.frame(c.I32, columns(c.I32)["outliers null"], EXCEPTED),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_hostile_headers(number: int) -> None:
    """Any byte of the header: refused alike by all, or read alike."""
    whole, chance = FORMS[number], random.Random(number)
    for place in range(c.HEADER):
        for value in {whole[place] ^ (1 << chance.randrange(8)), whole[place] ^ 0xFF, 0, 0x7F, 2} - {whole[place]}:
            hostile = bytearray(whole)
            hostile[place] = value
            read_alike(bytes(hostile))
            assert place < 112 or not read_alike(bytes(hostile))


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_hostile_bodies(number: int) -> None:
    whole, chance = FORMS[number], random.Random(number)
    for _ in range(25):
        hostile = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8, 100])):
            hostile[chance.randrange(c.HEADER, len(whole))] = chance.choice([0, 1, 255, chance.randrange(256)])
        read_alike(bytes(hostile))
    for size in (c.HEADER - 1, c.HEADER, len(whole) // 2, len(whole) - 64):
        assert not read_alike(whole[:size])


def read_alike(data: bytes) -> bool:
    """Whether all backends read these bytes; they say the same."""
    said = []
    for name in _ext.available():
        try:
            chunk = _ext.backend(name).codecs.Chunk(data)
            touch(chunk)
            said.append(make_vectors.typed(chunk.code, [chunk.physical(row) for row in range(0, chunk.rows, 7)]))
        except ValueError as error:
            assert str(error).startswith("damaged chunk: ")
            said.append(str(error).encode())
    assert len(set(said)) == 1, said
    return not said[0].startswith(b"damaged chunk: ")


def test_odd_bits_are_kept(kernels: _ext.Backend) -> None:
    values = [ODD_NAN if row % 50 == 3 else row / 4 for row in range(N)]
    chunk = kernels.codecs.Chunk(slow.decimals(c.F64, values, PLAIN))
    assert bytes(chunk.decode().data) == struct.pack(f"<{N}d", *values)
