"""Several changes as one step: neither a signal (Ctrl-C) nor another thread comes between them.

CPython looks for signals and lets other threads run between bytecodes. A C loop over C functions has none, so calls of
built-in types' methods and of compiled kernels that ``run`` is given all happen or, where the first fails, none does.
What can fail stands first. With the pure twin a kernel's method is Python code and is not protected so.

Memory may run out at every call. What was logged must then be in the table too, so the rest of a step is gone on with.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap
from operator import length_hint
from typing import Any, Callable, Optional

from ._ext._common import Half

__all__ = ["Call", "Half", "assign", "calls", "carry_out", "insist", "run"]

Call = Callable[[], Any]
_CALL: Any = partial.__call__
_TRIES = 20  # where there is no memory: what failed has let go of what it held
_HALF = Half("no memory to end a change that was begun")  # made while there is some


def assign(target: Any, key: Any, value: Any) -> Call:
    """``target[key] = value``, to be done in a step; ``target`` is a list or a dict."""
    return partial(operator.setitem, target, key, value)


def calls(prepared: Sequence[Call]) -> Iterator[Any]:
    """Calls of ``partial`` objects, to be made in a step."""
    return map(_CALL, prepared)


def run(*parts: Iterable[Any]) -> None:
    """Exhaust iterators such as ``calls([...])`` or ``map(kernel.remove, ids)`` in one step."""
    deque(chain(*parts), maxlen=0)


def carry_out(
    first: Sequence[Call],
    then: Sequence[Call],
    function: Optional[Callable[..., Any]] = None,
    items: Sequence[Any] = (),
    spread: bool = False,
) -> None:
    """In one step: the calls ``first``, ``function`` of each of ``items`` (``spread``: of what each of them holds), the
    calls ``then``.

    Where one of ``first`` fails nothing more is done. Where memory runs out behind them, or a handler of a signal
    raises in Python code, the step goes on with the call that failed (which must have left everything as it was), and
    an interrupt is raised at its end. MemoryError: there is none for that either, and the caller is to take back what
    ``function`` did; ``Half``: it was in ``then``. What else a call raises passes on.
    """
    left, after = iter(items), iter(then)
    try:
        deque(chain(map(_CALL, first), _over(function, left, spread), map(_CALL, after)), maxlen=0)
    except BaseException as error:
        # an iterator knows what it has given out: the last of it is the call that failed
        begun = length_hint(left) < len(items) or length_hint(after) < len(then)
        if not begun or (isinstance(error, Exception) and not isinstance(error, MemoryError)):
            raise
        _go_on(then, function, items, spread, left, after)
        if not isinstance(error, MemoryError):
            raise


def _over(function: Optional[Callable[..., Any]], items: Iterable[Any], spread: bool) -> Iterable[Any]:
    if function is None:
        return ()
    return starmap(function, items) if spread else map(function, items)


def _go_on(
    then: Sequence[Call], function: Optional[Callable[..., Any]], items: Sequence[Any], spread: bool,
    left: Iterator[Any], after: Iterator[Any],
) -> None:  # fmt: skip
    """The rest of a step, from the call that failed."""
    tries = 0
    while tries < _TRIES:
        try:
            again, behind = _rest(items, left), _rest(then, after)
            if length_hint(after) < len(then):  # all of the items are done
                again = ()
            new, newer = iter(again), iter(behind)
            items, then, left, after = again, behind, new, newer
            deque(chain(_over(function, left, spread), map(_CALL, after)), maxlen=0)
            return
        except MemoryError:
            tries += 1
    if length_hint(after) < len(then):
        raise _HALF.with_traceback(None)
    raise MemoryError


def _rest(items: Sequence[Any], left: Iterator[Any]) -> Sequence[Any]:
    """What is still to be done of a part: all of it where nothing was given out yet."""
    given = len(items) - length_hint(left)
    return items[given - 1 :] if given else items


def insist(work: Callable[[], Any]) -> Any:
    """Do what must be done, again and again where there is no memory. ``Half`` where there never is."""
    tries = 0
    while tries < _TRIES:
        try:
            return work()
        except Half:
            raise
        except MemoryError:
            tries += 1
    raise _HALF.with_traceback(None)
