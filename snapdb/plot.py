"""A picture of what each column takes: ``columns(db)`` gives a matplotlib figure. Needs the extra ``plot``."""

from __future__ import annotations

import importlib
from typing import Any, Optional

from .core import SnapDB

__all__ = ["columns"]

_COLOURS = {
    "const": "#9aa5b1", "delta": "#2b7a78", "for": "#3d85c6", "dict": "#8e63ce", "rle": "#c27ba0", "bool": "#6aa84f",
    "decimal": "#e69138", "raw": "#cc4125", "str": "#a61c00", "row": "#666666",
}  # fmt: skip


def _figure() -> Any:
    """A new figure. Not by pyplot: a library must not choose its user's windows."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: install the extra 'plot', as in pip install '.[plot]'") from error


def columns(db: SnapDB, file: Optional[Any] = None) -> Any:
    """Bars of each column's bytes, coloured by encoding; the matplotlib ``Figure``.

    ``file`` is a path or binary file to save it to (``.svg``, ``.png``, ``.pdf``: what matplotlib writes). Raises
    ImportError where matplotlib is not installed.
    """
    kind = _figure()
    found = db.stats()["columns"]
    names = [column.name for column in db.schema.columns]
    figure = kind(figsize=(8, 1.2 + 0.32 * len(names)), layout="tight")
    axes = figure.subplots()
    shown: set[str] = set()
    for place, name in enumerate(names):
        one = found[name]
        encoding = one["encoding"]
        label = None if encoding in shown else encoding
        shown.add(encoding)
        axes.barh(place, one["bytes"], color=_COLOURS.get(encoding, "#444444"), label=label)
        axes.text(one["bytes"], place, f" {one['bits_per_value']:.1f} bits", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("bytes")
    axes.set_title(f"{len(db):,} rows, {sum(found[name]['bytes'] for name in names):,} bytes")
    if names:
        axes.legend(fontsize=8)
    if file is not None:
        figure.savefig(file)
    return figure
