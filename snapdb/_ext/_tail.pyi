"""Single-row access to a columnar table in one call."""

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ._codecs import Chunk
from ._values import ColumnBuffer, RowCodec

Part = Optional[tuple[Optional[Chunk], Optional[ColumnBuffer]]]

class Alone:
    """``with``: the lock is held, and single-row writes of other threads, which take none, wait for ``kernel.paused``. Compiled, neither a
    signal nor missing memory comes between the lock and what is noted of it."""
    def __init__(self, lock: Any, kernel: Any) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, kind: object, error: object, traceback: object) -> None: ...

class RowPort:
    """Reads and appends rows over lists that the columnar engine owns and changes in place.

    ``parts[j][k]`` is what segment k of column j is made of: (sealed chunk or None, tail buffer or None), one tuple so that a
    change of both is one assignment; None for a segment without a live row. ``overlays[j][k]`` maps in-segment rows to
    physical values that replace the stored ones (``overlays[j]`` is a dict that has only the segments with updates). ``deleted[k]`` is None or a bitmap of deleted rows.
    ``rows`` counts positions given out; a position at or past it reads as missing.
    An entry of ``parts`` may also be an object with ``resolve()`` (a segment of a file that is not read yet): reads and writes of its rows call
    that and look again; it has put a tuple or None there by then, and ``overlays[j][k]`` and ``deleted[k]`` beside it. So parts[0][k] is looked at before ``deleted[k]``.
    The tail of the open (last) segment is appended to by ``insert``; ``on_full()`` is called when it reaches ``limit`` rows,
    after the row is in. The compiled methods are one step under the GIL; the twin takes ``lock``. While ``paused`` is true, or the
    tail is full and another thread is about to fold it, ``insert`` goes to ``slow(row)``, which waits for its turn; ``append`` is the same without that check.
    """

    rows: int
    limit: int
    paused: bool
    def __init__(
        self,
        codec: RowCodec,
        parts: list[list[Part]],
        overlays: list[dict[int, dict[int, Any]]],
        deleted: list[Any],
        lock: Any,
        slow: Callable[[Mapping[str, Any]], int],
        on_full: Callable[[], None],
    ) -> None: ...
    def insert(self, row: Mapping[str, Any]) -> int: ...
    def append(self, row: Mapping[str, Any]) -> int: ...
    def attach(self, log: Any) -> None:
        """From now on ``insert`` and ``append`` write each row to this ``_wal.Log`` (None: to none) as a ROW frame, after room for the row was made and before it is in, and call its ``after()`` once it is (and after ``on_full()``). ``append_values`` and ``amend`` log nothing."""
    def append_values(self, values: Any) -> int:
        """Append one row of checked physical values in column order."""
    def amend(self, idx: int, values: Any) -> None:
        """Overlay (column, checked physical value) pairs on a live row, in one step. KeyError(idx) where there is none."""
    def get(self, idx: int) -> Optional[dict[str, Any]]:
        """The live row as a dict of logical values, None where there is none."""
    def contains(self, idx: int) -> bool: ...
