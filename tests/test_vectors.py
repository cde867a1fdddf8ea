"""The stored bytes of ``tests/data/vectors``: packing and chunks of format 1, read and written by every backend."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import make_vectors
import pytest
import reference_chunks as slow
from chunk_columns import sealed

from snapdb import _ext
from snapdb._ext import _common as c

FOLDER = Path(__file__).parent / "data" / "vectors"
PACKING: list[dict[str, Any]] = json.loads((FOLDER / "packing.json").read_text("ascii"))
CHUNKS: list[dict[str, Any]] = json.loads((FOLDER / "chunks.json").read_text("ascii"))
COLUMNS = {f"{name.replace(' ', '_')}.bin": values for name, _, values, _, _ in make_vectors.chunks()}


def as_typed(code: int, chunk: Any) -> bytes:
    """The chunk's values as the vectors count their CRC."""
    buffer = chunk.decode()
    if code in c.VARLEN:
        return make_vectors.typed(code, [chunk.physical(row) for row in range(chunk.rows)])
    return bytes(memoryview(buffer.data).cast("B")[: chunk.rows * c.WIDTHS[code]])


def test_vectors_are_what_the_generator_makes(tmp_path: Path) -> None:
    make_vectors.make(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    kept = {path.relative_to(FOLDER): path.read_bytes().replace(b"\r\n", b"\n") for path in FOLDER.glob("*.json")}
    kept.update({path.relative_to(FOLDER): path.read_bytes() for path in FOLDER.glob("chunks/*.bin")})
    assert made == kept


def test_every_width_and_every_form_is_there() -> None:
    assert {entry["W"] for entry in PACKING} == set(range(65))
    whats = {entry["what"] for entry in CHUNKS}
    assert whats >= {f"{codec} {layout}" for codec in ("for", "slope", "dec", "dict") for layout in slow_layouts()}
    assert whats >= {f"dict {layout} front" for layout in slow_layouts()}


def slow_layouts() -> list[str]:
    return list(make_vectors.LAYOUTS.values())


@pytest.mark.parametrize("entry", PACKING, ids=[f"{entry['W']}-in-{entry['T']}" for entry in PACKING])
def test_packing(kernels: _ext.Backend, entry: dict[str, Any]) -> None:
    width, size = entry["W"], entry["T"]
    values = make_vectors.packing_values(width, entry["seed"])
    packed = slow.pack(values, width, size)
    assert (len(packed), zlib.crc32(packed), packed[:64].hex()) == (entry["bytes"], entry["crc32"], entry["first"])
    if size == c.container(width):
        if not width:
            made = slow.chunk(c.SLOPE, c.U64, 1024, lines=bytes(24))
        else:
            made = slow.chunk(c.FOR, c.U64, 1024, width=width, packed=size, values=packed)
    else:  # few bits in large containers: one code is an exception
        low = [0, *values[1:]]
        top = (1 << size) - 1
        places = b"\0\0\0\0\1\0\0\0" + b"\0\0"
        made = slow.chunk(
            c.FOR, c.U64, 1024, layout=c.EXCEPTED, width=width, packed=size, marks=1, places=places,
            values=slow.pack(low, width, size), codes=top.to_bytes(size // 8, "little"),
        )  # fmt: skip
        values = [top, *values[1:]]
    chunk = kernels.codecs.Chunk(made)
    assert chunk.take() == values
    assert [chunk.physical(row) for row in range(0, 1024, 37)] == values[::37]
    if width and width == c.packed_width((1 << width) - 1) and size == c.container(width):
        values[0], values[1] = 0, (1 << width) - 1
        written = sealed(kernels, c.U64, values, c.FOR)[0].data
        if written[2] == width:
            assert bytes(written[128:]) == slow.pack(values, width, size)


@pytest.mark.parametrize("entry", CHUNKS, ids=[entry["file"][:-4] for entry in CHUNKS])
def test_chunks_are_read(kernels: _ext.Backend, entry: dict[str, Any]) -> None:
    data = (FOLDER / "chunks" / entry["file"]).read_bytes()
    code, values = entry["dtype"], COLUMNS[entry["file"]]
    chunk = kernels.codecs.Chunk(data)
    assert (chunk.code, chunk.rows, chunk.null_count) == (code, entry["rows"], entry["nulls"])
    assert zlib.crc32(as_typed(code, chunk)) == entry["crc32"]
    assert [chunk.physical(row) for row in range(0, 1024, 29)] == values[::29]
    assert make_vectors.CODECS[chunk.codec] == entry["what"].split()[0]


@pytest.mark.parametrize("entry", [entry for entry in CHUNKS if entry["written"]], ids=lambda entry: entry["file"][:-4])
def test_chunks_are_written(kernels: _ext.Backend, entry: dict[str, Any]) -> None:
    data = (FOLDER / "chunks" / entry["file"]).read_bytes()
    assert bytes(sealed(kernels, entry["dtype"], COLUMNS[entry["file"]])[0].data) == data
