"""Work that Ctrl-C, or another signal whose handler raises, must not cut in two: the handler runs when it is done."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Uninterrupted"]

#: signals that programs give handlers which raise
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGBREAK")


class Uninterrupted:
    """``with Uninterrupted():`` handlers of signals run at the end of the block, in the order in which signals came.

    Python runs them in the main thread only, so elsewhere there is nothing to put off. An exception that a debugger
    raises in a thread from outside is not a signal and is not put off.
    """

    __slots__ = ("_came", "_handlers")

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: list[tuple[int, Any]] = []

    def __enter__(self) -> Uninterrupted:
        if threading.current_thread() is not threading.main_thread():
            return self
        import signal  # not at the top: a table in memory needs it in transactions only

        try:
            for number in [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except BaseException:  # a signal came while its handler was still in force
            self._restore()
            raise
        return self

    def _note(self, number: int, frame: Any) -> None:
        self._came.append((number, frame))

    def _restore(self) -> None:
        import signal

        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __exit__(self, *exc: object) -> None:
        if self._handlers:
            self._restore()
            for number, frame in self._came:
                self._handlers[number](number, frame)
