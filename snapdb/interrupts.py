"""Work that Ctrl-C, or another signal whose handler raises, must not cut in two: the handler runs when it is done."""

from __future__ import annotations

import threading
from typing import Any, Optional

try:
    # what ``signal`` wraps: its wrappers make enums, which takes time and fails in odd ways without memory
    import _signal  # type: ignore[import-not-found]
except ImportError:  # not CPython
    import signal as _signal

__all__ = ["Uninterrupted"]

#: signals that programs give handlers which raise
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_NUMBERS = [int(getattr(_signal, name)) for name in _NAMES if hasattr(_signal, name)]
_TRIES = 20  # to put one handler back


class Uninterrupted:
    """``with Uninterrupted():`` handlers of signals run at the end of the block, in the order in which signals came.

    Python runs them in the main thread only, so elsewhere there is nothing to put off. An exception that a debugger
    raises in a thread from outside is not a signal and is not put off.
    """

    __slots__ = ("_came", "_handlers", "_left")

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._left: list[tuple[int, Any]] = []  # to be put back
        self._came: list[tuple[int, Any]] = []

    def __enter__(self) -> Uninterrupted:
        if threading.current_thread() is not threading.main_thread():
            return self
        try:
            for number in _NUMBERS:
                handler = _signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    self._left.append((number, handler))
                    _signal.signal(number, self._note)
        except BaseException:  # a signal came while its handler was still in force
            self._restore()
            raise
        return self

    def _note(self, number: int, frame: Any) -> None:
        self._came.append((number, frame))

    def _restore(self) -> None:
        """Put every handler back; what one of them raises meanwhile is raised when all are. MemoryError only where
        there is none for any of the tries.
        """
        problem: Optional[BaseException] = None
        tries = 0
        while self._left:
            try:
                number, handler = self._left[-1]
                _signal.signal(number, handler)
                self._left.pop()
                tries = 0
            except BaseException as error:  # noqa: BLE001 - no memory, or a handler that is in force again raised
                tries += 1
                if not isinstance(error, MemoryError) or tries == _TRIES:
                    problem = error
                if tries == _TRIES:
                    self._left.pop()
                    tries = 0
        if problem is not None:
            raise problem

    def __exit__(self, *exc: object) -> None:
        if self._left:
            try:
                self._restore()
            except MemoryError:
                if not self._left:
                    raise
                self._restore()  # there was none for the call itself
            if self._came:  # else there is nothing that could fail any more
                for number, frame in self._came:
                    self._handlers[number](number, frame)
