"""What every write tells the log: in memory nothing; in a file each change is a step that the log begins, see
``filejournal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from .step import Call

if TYPE_CHECKING:
    from .pieces import Entry
    from .storage.snapshots import Snapshot
    from .storage.store import Restoring
    from .table import Change, Staged

__all__ = ["Journal", "Step"]


class Step:
    """One change: ``first`` are calls to make before it and ``then`` after it, all in one step with it."""

    first: Sequence[Call] = ()
    then: Sequence[Call] = ()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        return None


_NOTHING = Step()


class Journal:
    """The journal of a table in memory: no change is told to anybody. ``unusable(error)`` is told where the table is of
    no further use: the handle is to refuse every call.
    """

    def __init__(self, unusable: Optional[Callable[[BaseException], None]] = None) -> None:
        self._unusable = unusable

    def row(self, idx: int, values: Sequence[Any], happened: Callable[[], bool]) -> Step:
        """One row is inserted as ``idx``; ``happened`` tells afterwards whether it was."""
        return _NOTHING

    def rows(self, first: int, staged: Staged) -> Step:
        """A batch is inserted from ``first`` on."""
        return _NOTHING

    def changes(self, changes: Sequence[Change]) -> Step:
        """Rows are updated."""
        return _NOTHING

    def deletions(self, ids: Sequence[int]) -> Step:
        """Rows are deleted."""
        return _NOTHING

    def compacted(self) -> Step:
        """Live rows only, renumbered."""
        return _NOTHING

    def bulk(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> Step:
        """A batch whose entries are written is inserted."""
        return _NOTHING

    def snapshot(self, record: Snapshot, replaced: Optional[int]) -> Step:
        """A snapshot is made of what is there, in place of the one with the serial ``replaced``."""
        return _NOTHING

    def dropped(self, serial: int) -> Step:
        """A snapshot is dropped."""
        return _NOTHING

    def restored(self, restoring: Restoring) -> Step:
        """The table is what a snapshot shows; it is to be read again behind the step's calls."""
        return _NOTHING

    def begin(self) -> None:
        """What follows is one transaction."""

    def commit(self) -> None:
        """It is whole."""

    def keep(self) -> None:
        """``commit`` has made it whole, and raised."""

    def settle(self) -> None:
        """What a commit has made due, when the transaction is over: a checkpoint where the log is long."""

    def has_committed(self) -> bool:
        """Whether the transaction is whole although ``commit`` raised."""
        return False

    def rollback(self) -> None:
        """It never was. Called again, it goes on where it was cut."""

    def lost(self, error: BaseException) -> None:
        """The table could neither be changed as a step says nor be left as it was."""
        if self._unusable is not None:
            self._unusable(error)
