"""The secret numbers of this process that hash words depend on, the same for the compiled kernel and its twin.

Whoever picks the values that go into a table does not know them, and so cannot pick values that meet in one place of an
index. Text goes through Python's own seeded hash.
"""

from __future__ import annotations

import os

__all__ = ["SEEDS"]


def _draw() -> tuple[int, int, int, int, int]:
    words = [int.from_bytes(os.urandom(8), "little") for _ in range(5)]
    # multipliers are odd, so that multiplying loses nothing
    return words[0], words[1] | 1, words[2] | 1, words[3] | 1, words[4] | 1


#: what a key is mixed with: a word to begin with and two multipliers; then two multipliers for places in a table
SEEDS = _draw()
