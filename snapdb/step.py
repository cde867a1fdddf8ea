"""Several changes as one step: neither a signal (Ctrl-C) nor another thread comes between them.

CPython looks for signals and lets other threads run between bytecodes. A C loop over C functions has none, so calls of
built-in types' methods and of compiled kernels that ``run`` is given all happen or, where the first fails, none does.
What can fail stands first. With the pure twin a kernel's method is Python code and is not protected so.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Callable

__all__ = ["Call", "assign", "calls", "run"]

Call = Callable[[], Any]
_CALL: Any = partial.__call__


def assign(target: Any, key: Any, value: Any) -> Call:
    """``target[key] = value``, to be done in a step; ``target`` is a list or a dict."""
    return partial(operator.setitem, target, key, value)


def calls(prepared: Sequence[Call]) -> Iterator[Any]:
    """Calls of ``partial`` objects, to be made in a step."""
    return map(_CALL, prepared)


def run(*parts: Iterable[Any]) -> None:
    """Exhaust iterators such as ``calls([...])`` or ``map(kernel.remove, ids)`` in one step."""
    deque(chain(*parts), maxlen=0)
