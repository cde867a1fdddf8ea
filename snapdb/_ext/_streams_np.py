"""``_streams_py`` with NumPy: the same layouts, the loops over codes by NumPy."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from . import _lanes_np
from ._common import MOST_RUNS
from ._streams_py import Stream as _Stream

__all__ = ["Stream"]


class Stream(_Stream):
    """The layout that the choice rule gives codes, and its size by the rule."""

    _lanes = _lanes_np

    def _array(self) -> Any:
        return np.frombuffer(self.data, _lanes_np.unsigned(self.size))

    def longer(self, bits: int) -> list[int]:
        """How many codes are longer than w bits, for w from 0 to ``bits``; null rows have code 0."""
        codes = self._array()
        kind = codes.dtype.type
        return [int(np.count_nonzero(codes >= kind(1 << w))) for w in range(bits)] + [0]

    def split(self, width: int) -> tuple[Any, bytes, bytes]:
        """EXCEPTED: the rows with codes of ``2**width`` or more, all other codes packed, and those rows' codes."""
        codes = self._array()
        high = codes >= codes.dtype.type(1 << width)
        rows = np.flatnonzero(high).tolist()
        if not width:
            return rows, b"", codes[high].tobytes()
        low = np.where(high, codes.dtype.type(0), codes).astype(codes.dtype)
        return rows, _lanes_np.pack(low.tobytes(), width, 8 * self.size), codes[high].tobytes()

    def run_starts(self, most: int) -> Optional[Any]:
        """The non-null rows whose code is not that of the non-null row before; None with more than ``most``."""
        codes, rows = self._array(), None
        if self.flags is not None:
            rows = np.flatnonzero(np.frombuffer(self.flags, np.bool_))
            codes = codes[rows]
        changed = codes[1:] != codes[:-1]
        if 1 + int(np.count_nonzero(changed)) > min(most, MOST_RUNS):
            return None
        starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(changed) + 1))
        return (starts if rows is None else rows[starts]).tolist()
