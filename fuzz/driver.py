"""Runs a fuzz target: under Atheris where that is installed, else by mutating the seeds at random.

A target is a module with ``seeds() -> list[bytes]`` and ``one(data: bytes) -> None``, which raises for a finding. Every
target works below the checksums: what a checksum covers is sealed again before it is parsed.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Optional

__all__ = ["TARGETS", "fuzz", "main", "mutate", "run", "target"]

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

TARGETS = (
    "superblock", "catalog", "extents", "wal", "segments", "group", "rows", "records", "history", "file", "repair",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 1023, 1024, 4095, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def target(name: str) -> ModuleType:
    """The module of a target."""
    if name not in TARGETS:
        raise SystemExit(f"no target {name}; there are {', '.join(TARGETS)}")
    return importlib.import_module(f"fuzz_{name}")


def mutate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """A changed copy: bytes, numbers, pieces of itself or of another seed, cut or longer."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        at = draw.randrange(len(changed) + 1)
        at = min(at, draw.choice((len(changed), len(changed), 24, 64, 160)))
        how = draw.randrange(7)
        if how == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 1 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            width = draw.choice((2, 4, 8))
            at -= at % width
            changed[at : at + width] = (draw.choice(_NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
        elif how == 3:
            source = draw.choice((data, other))
            begin = draw.randrange(len(source) + 1)
            piece = source[begin : begin + draw.choice((1, 8, 40, 200))]
            changed[at : at + len(piece)] = piece
        elif how == 4:
            del changed[at : at + draw.choice((1, 4, 8, 40, 1 << 20))]
        elif how == 5:
            changed[at:at] = bytes([draw.choice((0, 255, 65))]) * draw.choice((1, 4, 8, 64))
        else:
            end = at + draw.choice((1, 4, 8, 64))
            changed[at:end] = bytes([draw.choice((0, 255))]) * len(changed[at:end])
    return bytes(changed)


def run(
    name: str, executions: Optional[int] = None, seconds: Optional[float] = None, seed: int = 0
) -> tuple[int, list[tuple[bytes, str]]]:
    """Mutate the seeds of a target without Atheris; how many were tried, and (input, traceback) of each finding."""
    module = target(name)
    draw = random.Random(seed)
    pool = list(module.seeds())
    findings: list[tuple[bytes, str]] = []
    done, until = 0, time.monotonic() + (seconds or 0.0)
    for data in pool:
        module.one(data)  # a seed that is a finding is a mistake of the target
    while done < executions if executions is not None else time.monotonic() < until:
        data = mutate(draw.choice(pool), draw.choice(pool), draw)
        done += 1
        try:
            module.one(data)
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            findings.append((data, traceback.format_exc()))
            if len(findings) >= 20:
                break
    return done, findings


def main(name: str) -> None:
    """The program of one target: ``python fuzz/fuzz_NAME.py [SECONDS] [options of Atheris]``.

    A new interpreter, in which nothing of SnapDB is imported yet: Atheris instruments what is imported under its eyes.
    """
    os.execv(sys.executable, [sys.executable, str(HERE / "driver.py"), name, *sys.argv[1:]])


def fuzz(name: str, *words: str) -> None:
    """Fuzz one target for some seconds."""
    seconds = int(words[0]) if words and words[0].isdigit() else 60
    options = words[1:] if words and words[0].isdigit() else words
    try:
        import atheris
    except ImportError:
        done, findings = run(name, seconds=seconds)
        for data, text in findings:
            sys.stdout.write(f"{data!r}\n{text}\n")
        sys.stdout.write(f"{name}: {done} executions in {seconds} s without Atheris, {len(findings)} findings\n")
        raise SystemExit(bool(findings)) from None
    with atheris.instrument_imports(include=["snapdb"]):
        module = target(name)
    corpus = Path(os.environ.get("SNAPDB_CORPUS", Path(tempfile.gettempdir()) / "snapdb-corpus")) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(module.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    found = corpus.parent / f"found-{name}-"  # where findings go
    limits = [
        f"-artifact_prefix={found}",
        "-rss_limit_mb=2048",
        "-malloc_limit_mb=512",
        "-timeout=20",
        "-max_len=65536",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *limits, *options, str(corpus)], module.one)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(*sys.argv[1:])
