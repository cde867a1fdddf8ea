"""Rows as a table of text that fits the terminal."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Sequence
from typing import Any, Optional

from .cell_types import cell

__all__ = ["text_table"]

_LEAST = 8  # columns of the terminal that a column is left with, if need be


def text_table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: Optional[int] = None) -> str:
    """The rows below their names. ``width``: columns of the terminal, None: as many as it has. Long cells are cut."""
    if width is None:
        width = shutil.get_terminal_size((100, 24)).columns
    right = [
        all(isinstance(row[j], (int, float, type(None))) for row in rows) and bool(rows) for j in range(len(names))
    ]
    lines = [[_shown(name) for name in names], *([_shown(value) for value in row] for row in rows)]
    widths = _fitted([max(_width(line[j]) for line in lines) for j in range(len(names))], width)
    left = len(widths)
    while left > 1 and sum(widths[:left]) + 2 * (left - 1) > width:
        left -= 1  # there are more columns than fit
    text = [_line(line[:left], widths, right) for line in lines]
    text.insert(1, "  ".join("-" * size for size in widths[:left]))
    if left < len(widths):
        text.append(f"... and {len(widths) - left} columns more: {', '.join(map(_shown, names[left:]))}")
    return "\n".join(text) + "\n"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list)) else cell(value, "")
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(one, f"\\u{ord(one):04x}")


def _width(text: str) -> int:
    """Columns of the terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _fitted(widths: list[int], room: int) -> list[int]:
    """Widths of columns that fit: the widest are cut first."""
    room -= 2 * (len(widths) - 1)
    while sum(widths) > room:
        widest = max(widths)
        if widest <= _LEAST:
            break
        second = max([one for one in widths if one < widest], default=_LEAST)
        count = widths.count(widest)
        cut = max(second, _LEAST, widest - -(-(sum(widths) - room) // count))
        widths = [min(one, cut) for one in widths]
    return widths


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    shown = []
    for text, size, is_right in zip(cells, widths, right):
        text = _cut(text, size)
        pad = " " * (size - _width(text))
        shown.append(pad + text if is_right else text + pad)
    return "  ".join(shown).rstrip()


def _cut(text: str, size: int) -> str:
    if _width(text) <= size:
        return text
    while _width(text) > size - 1:
        text = text[:-1]
    return text + "…"
