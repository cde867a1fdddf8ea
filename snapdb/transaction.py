"""Transactions: what happens between ``begin`` and ``commit`` happens whole or not at all.

Changes are applied in place, for this thread to see; the table notes what takes them back, and the log holds their
frames until the commit. Other threads' writes wait.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Optional

from .errors import TransactionError
from .interrupts import Uninterrupted
from .step import insist

if TYPE_CHECKING:
    from .indexes import Indexes
    from .journal import Journal
    from .step import Call
    from .table import Table

__all__ = ["Transaction", "Transactions"]


_PATIENCE = 0.05  # seconds to wait for another thread before signals are looked at


class Transactions:
    """The transactions of one handle, one at a time. ``journal``: what they are told to."""

    def __init__(self, table: Table, keys: Indexes, journal: Journal) -> None:
        self._table = table
        self._keys = keys
        self.journal = journal
        self._let_go: Optional[Call] = None  # one is open and holds the table: lets it go
        self._ending: tuple[Call, ...] = ()  # keeps what was done, takes it back: made while there is memory
        self._committed = False
        self._generations = (0, 0)
        self._owner: object = None
        self.is_open = False

    def begin(self, owner: object) -> None:
        """Have the table to oneself. TransactionError where this thread has a transaction open."""
        while not self._try_begin(owner):  # a signal gets through between two tries
            pass

    def give_up(self, owner: object) -> None:
        """Roll back what this owner has begun, if anything."""
        if self._owner is owner and self.is_open:
            try:
                with Uninterrupted():
                    self.rollback()
            except MemoryError:
                if not self.is_open:
                    raise
                self.rollback()  # there was none to put signals off

    def disown(self) -> None:
        """The table goes without a rollback: nobody is to take back what its owner did."""
        self._owner = None

    def _try_begin(self, owner: object) -> bool:
        with Uninterrupted():
            if not self._table.lock.acquire(timeout=_PATIENCE):
                return False
            try:
                self._begin(owner)
            finally:
                self._table.lock.release()
        return True

    def _begin(self, owner: object) -> None:
        if self.is_open:  # the lock let us in, so it is this thread's own
            raise TransactionError(
                "Nested transactions are not supported", hint="end the transaction that is open first"
            )
        self._generations = self._table.generation, self._table.last_generation
        alone = self._table.writing()
        let_go = partial(alone.__exit__, None, None, None)
        self._ending = (self._keep_all, self._take_back)
        self._committed = False
        alone.__enter__()
        self._let_go, self._owner, self.is_open = let_go, owner, True
        try:
            self.journal.begin()
            self._table.begin()
            self._keys.begin()
        except BaseException:  # memory may run out when the log holds its frames already
            self.rollback()
            raise

    def commit(self) -> None:
        """Make everything since ``begin`` last. Where the log cannot take it, it is taken back and the error raised."""
        try:
            self.journal.commit()
        except BaseException:
            # an interrupt may come when the commit is already in the log: then it holds
            if not self.journal.has_committed():
                self.rollback()
                raise
            self._committed = True
            self._end_with(0)
            raise
        self._committed = True
        self._end_with(0)
        self.journal.settle()

    def rollback(self) -> None:
        """Everything is as it was at ``begin``. Called again, it goes on where an interrupt cut it."""
        self._end_with(1)

    def _end_with(self, which: int) -> None:
        try:
            insist(self._ending[which])
        except Exception as error:
            self.journal.lost(error)  # what the table shows now was never committed, or only a part of what was
            self._end()
            raise
        self._end()

    def _keep_all(self) -> None:
        self.journal.keep()
        self._table.commit()
        self._keys.commit()

    def _take_back(self) -> None:
        self.journal.rollback()
        self._table.rollback()
        self._keys.rollback()
        self._table.generation, self._table.last_generation = self._generations

    def finish(self, owner: object) -> None:
        """End what this owner has begun and an interrupt, or no memory, has cut short."""
        if self.is_open and self._owner is owner:
            if self._committed or self.journal.has_committed():
                self._end_with(0)
            else:
                self.rollback()

    def _end(self) -> None:
        self.is_open, self._owner = False, None
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            insist(let_go)  # the second time nothing is left to be done
        self._ending = ()


class Transaction:
    """``with db.transaction():``. Leaving the block commits; an exception rolls back and goes on."""

    _entered = False  # for __del__, where a signal came before __init__ was done

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._token = object()

    def __enter__(self) -> Transaction:
        if self._entered:
            raise TransactionError("a transaction is used once", hint="call transaction() again")
        self._entered = True
        try:
            self._transactions.begin(self._token)
        except BaseException:
            self._transactions.give_up(self._token)  # a signal may have come when it was open already
            raise
        return self

    def __del__(self) -> None:
        # a signal may have come before the first instruction of __exit__: then nobody has ended it
        if self._entered:
            self._transactions.give_up(self._token)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        transactions = self._transactions
        if not transactions.is_open:  # close() inside the block has rolled back
            return
        try:
            with Uninterrupted():
                if kind is None:
                    transactions.commit()
                else:
                    transactions.rollback()
        except BaseException:
            transactions.finish(self._token)
            raise
