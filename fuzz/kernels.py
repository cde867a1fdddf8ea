"""What the targets of the kernels share: every backend parses the same bytes, and they must agree."""

from __future__ import annotations

from typing import Any, Callable

from snapdb import _ext
from snapdb.errors import CorruptionError

__all__ = ["BACKENDS", "agree"]

BACKENDS = [_ext.backend(name) for name in ("c", "python") if name in _ext.available()]


def agree(parse: Callable[[_ext.Backend], Any]) -> Any:
    """What all backends make of it, None where they refuse it. AssertionError where they differ."""
    outcomes = []
    for backend in BACKENDS:
        try:
            outcomes.append(("read", parse(backend)))
        except (ValueError, CorruptionError):
            outcomes.append(("refused", None))
    if any(outcome != outcomes[0] for outcome in outcomes):
        raise AssertionError(f"the backends differ: {str(outcomes)[:500]}")
    return outcomes[0][1]
