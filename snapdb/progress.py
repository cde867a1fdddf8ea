"""A bar on standard error for what takes longer than a second, where that is a terminal."""

from __future__ import annotations

import sys
import time
from typing import Optional

__all__ = ["Progress"]


class Progress:
    """How far something is; ``total`` None: not known. ``silent``: nothing is shown. A context manager."""

    def __init__(self, what: str, total: Optional[int], silent: bool = False) -> None:
        self._what = what
        self._total = total
        self._on = not silent and sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + 1.0
        self._shown = False

    def at(self, done: int, rows: int) -> None:
        """So much of the total is done, and so many rows are."""
        if not self._on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 0.1
        self._shown = True
        part = "" if not self._total else _bar(min(1.0, done / self._total))
        sys.stderr.write(f"\r\033[K{self._what} {part}{rows:,} rows")
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _bar(part: float) -> str:
    full = int(part * 30)
    return f"[{'#' * full}{'.' * (30 - full)}] {part:4.0%} "
