"""What stands where something stood that is closed or has failed."""

from __future__ import annotations

from typing import NoReturn

from .errors import ClosedError, SnapDBError

__all__ = ["Absent"]


class Absent:
    """Stands where the engine stood, or its file, or its rows: whatever is asked of it says why it is not there."""

    def __init__(self, message: str, error: type[SnapDBError] = ClosedError) -> None:
        self.__dict__["message"] = message
        self.__dict__["error"] = error

    def refuse(self, *_: object) -> NoReturn:
        """Raise what everything asked of it raises."""
        raise self.__dict__["error"](self.__dict__["message"])

    resolve = refuse  # as a part of a column that is to be read
    __rsub__ = refuse  # as the number of a table's deleted rows

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse()

    def __len__(self) -> int:
        return self.refuse()
