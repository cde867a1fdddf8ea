"""Encoding hints of a column: when one is in force and when it is given up. A hint never changes an answer.

``dict``: from the first value until more than ``dict_threshold`` distinct values were seen. ``delta``: judged on the
first ``delta_samples`` values, in force while no value is less than the one before. ``for``: judged after
``for_threshold`` values, in force while all lie within 16 bits.
"""

from __future__ import annotations

from operator import le
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import AFFINE, CONST, DICT, FOR

if TYPE_CHECKING:
    from ._ext import Backend, Chunk
    from .dtypes import DType

__all__ = ["Hints"]

_FOR_SPAN = 2**16 - 1


class Hints:
    """The hints of one column and what its values have said of them so far."""

    def __init__(
        self,
        dtype: DType,
        dict_encode: bool,
        dict_threshold: int,
        delta_encode: bool,
        delta_samples: int,
        for_encode: bool,
        for_threshold: int,
    ) -> None:
        self.seen = 0  # row positions looked at
        self.values = 0  # non-null values among them
        self.dictionary: Optional[set[Any]] = set() if dict_encode and not dtype.is_bool else None
        self.dict_threshold = dict_threshold
        self.delta = bool(delta_encode) and dtype.is_integer
        self.delta_samples = delta_samples
        self.previous: Any = None
        self.frame = bool(for_encode) and dtype.is_integer
        self.for_threshold = for_threshold
        self.lo: Any = None
        self.hi: Any = None

    @property
    def alive(self) -> bool:
        """Whether any hint has not been given up."""
        return self.dictionary is not None or self.delta or self.frame

    @property
    def in_force(self) -> Optional[str]:
        """The name of the hint in force, None where there is none."""
        if self.dictionary is not None:
            return "dict"
        if self.delta and self.values >= max(1, self.delta_samples):
            return "delta"
        if self.frame and self.values >= max(1, self.for_threshold):
            return "for"
        return None

    @property
    def prefer(self) -> int:
        """The codec number to prefer when sealing, 0 for the automatic choice."""
        if self.dictionary is not None:
            return DICT
        if self.delta:
            return AFFINE
        return FOR if self.frame else 0

    def look(self, kernels: Backend, chunk: Chunk) -> None:
        """Take in the next rows of the column."""
        self.seen += chunk.rows
        if not self.alive:
            return
        self.values += chunk.count()
        if self.dictionary is not None:
            self._look_distinct(chunk)
        if self.delta:
            self._look_order(chunk)
        if self.frame:
            bounds = chunk.bounds()
            if bounds is not None:
                self._widen(*bounds)

    def changed(self, value: Any, before: Any, after: Any, is_last: bool) -> None:
        """Take in an update of a row to ``value`` between its neighbours (None: null or no neighbour)."""
        if value is None:
            return
        if is_last:
            self.previous = value
        if self.dictionary is not None:
            self._enter({value})
        if self.delta and ((before is not None and before > value) or (after is not None and after < value)):
            self.delta = False
        if self.frame:
            self._widen(value, value)

    def _look_distinct(self, chunk: Chunk) -> None:
        _, first = chunk.group()
        self._enter({chunk.physical(row) for row in first} - {None})

    def _enter(self, values: set[Any]) -> None:
        if self.dictionary is not None:
            self.dictionary |= values
            if len(self.dictionary) > self.dict_threshold:
                self.dictionary = None

    def _look_order(self, chunk: Chunk) -> None:
        if chunk.codec in (AFFINE, CONST) and chunk.null_count == 0:
            values: Any = [chunk.physical(0), chunk.physical(chunk.rows - 1)]
        else:
            buffer = chunk.decode()
            values = buffer.data
            if buffer.null_count:
                values = [value for value in (buffer.physical(row) for row in range(buffer.rows)) if value is not None]
        if len(values) == 0:
            return
        ordered = (self.previous is None or self.previous <= values[0]) and all(map(le, values[:-1], values[1:]))
        self.previous = values[-1]
        self.delta = ordered

    def _widen(self, lo: Any, hi: Any) -> None:
        self.lo = lo if self.lo is None else min(self.lo, lo)
        self.hi = hi if self.hi is None else max(self.hi, hi)
        # before the judgement values may spread as they like; only the judgement and later values count
        if self.values >= max(1, self.for_threshold) and self.hi - self.lo > _FOR_SPAN:
            self.frame = False
