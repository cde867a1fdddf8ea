"""What the sources of the compiled kernels must not have."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

_HERE = Path(__file__).parent.parent / "snapdb" / "_ext"
SOURCES = sorted(path for path in _HERE.iterdir() if path.suffix in (".pyx", ".pxi"))
_TOKEN = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|[\[\](){}]|\bfor\b|\n')
OPENS = {"(": ")", "[": "]", "{": "}"}


def comprehensions(text: str) -> list[int]:
    """The lines with a ``for`` right inside of square brackets."""
    found, inside, line = [], [""], 1
    for token in _TOKEN.findall(text):
        if token == "for" and inside[-1] == "[":
            found.append(line)
        elif token in OPENS:
            inside.append(token)
        elif token in OPENS.values():
            inside.pop()
        line += token.count("\n")
    return found


def test_what_is_a_list_comprehension() -> None:
    text = '# [x for x in y]\n"""[x for x in y]"""\nfor x in [1, f(a[2])]:\n  a = {x for x in y}\nb = "[x for"\n'
    assert comprehensions(text) == []
    assert comprehensions(f"{text}c = [f(x[1])\n  for x in y]\nd = g([x for x in z])") == [7, 8]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_list_comprehensions(path: Path) -> None:
    """Cython 3.3 lets go of the new element twice if there is no memory to append it; a loop with append does not."""
    assert comprehensions(path.read_text(encoding="utf-8")) == []


def test_the_sources_are_there() -> None:
    assert {"_wal.pyx", "_values_rows.pxi"} <= {path.name for path in SOURCES} or not SOURCES


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix == ".pyx"], ids=lambda path: path.stem)
def test_objects_of_kernels_do_not_know_how_to_be_pickled(path: Path) -> None:
    """Cython would write a tenth of each module for it, and an object made anew from a pickle is not validated."""
    try:
        module = importlib.import_module(f"snapdb._ext.{path.stem}")
    except ModuleNotFoundError:
        pytest.skip("built without the compiled kernels")
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    assert not [kind.__name__ for kind in own if {"__reduce_cython__", "__reduce__", "__getstate__"} & set(vars(kind))]
    assert not [name for name in vars(module) if "unpickle" in name]
