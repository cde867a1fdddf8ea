"""Encoding hints of a column: when one is in force and when it is given up. A hint never changes an answer.

``dict``: from the first value until more than ``dict_threshold`` distinct values were seen. ``delta``: judged on the
first ``delta_samples`` values, in force while no value is less than the one before. ``for``: judged after
``for_threshold`` values, in force while all lie within 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import le
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import AFFINE, CONST, DICT, FOR

if TYPE_CHECKING:
    from ._ext import Backend, Chunk
    from .dtypes import DType

__all__ = ["Hints"]

_FOR_SPAN = 2**16 - 1
_MOST_KEPT = 4096  # distinct values that a file keeps; where there are more they are looked for again


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
        self.given = bool(dict_encode or delta_encode or for_encode)
        self._dtype = dtype
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

    def copy(self) -> Hints:
        """These hints as they are now."""
        made = Hints.__new__(Hints)
        made.__dict__.update(self.__dict__)
        if self.dictionary is not None:
            made.dictionary = set(self.dictionary)
        return made

    def state(self) -> Optional[dict[str, Any]]:
        """What a file keeps of the hints, ready for JSON; None where none was given."""
        if not self.given:
            return None
        kept = None if self.dictionary is None else [self._plain(value) for value in self.dictionary]
        forgets = kept is not None and len(kept) > _MOST_KEPT
        return {
            "seen": 0 if forgets else self.seen,
            "values": 0 if forgets else self.values,
            "dictionary": [] if forgets else kept,
            "delta": self.delta,
            "for": self.frame,
            "thresholds": [self.dict_threshold, self.delta_samples, self.for_threshold],
            **{name: None if forgets else self._plain(getattr(self, name)) for name in ("previous", "lo", "hi")},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state()`` said. ValueError for a state that is none."""
        try:
            thresholds = [_whole(number) for number in state["thresholds"]]
            self.dict_threshold, self.delta_samples, self.for_threshold = thresholds
            self.seen, self.values = _whole(state["seen"]), _whole(state["values"])
            kept = state["dictionary"]
            self.dictionary = None if kept is None else {self._value(plain) for plain in kept}
            self.delta = state["delta"] is True and self._dtype.is_integer
            self.frame = state["for"] is True and self._dtype.is_integer
            self.previous, self.lo, self.hi = (self._value(state[name]) for name in ("previous", "lo", "hi"))
            self.given = True
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def _plain(self, value: Any) -> Any:
        """A physical value for JSON, which has neither bytes nor every float."""
        return value.hex() if isinstance(value, (bytes, float)) else value

    def _value(self, plain: Any) -> Any:
        if plain is None:
            return None
        if self._dtype.is_varlen or self._dtype.is_float:
            if not isinstance(plain, str):
                raise ValueError(f"{plain!r} is no value of a {self._dtype.name} column")
            return float.fromhex(plain) if self._dtype.is_float else bytes.fromhex(plain)
        return _whole(plain, None)

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


def _whole(number: Any, least: Optional[int] = 0) -> int:
    if type(number) is not int or (least is not None and number < least):
        raise ValueError(f"{number!r} is no number that hints have")
    return number
