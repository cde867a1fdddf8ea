"""The only way to files: a small layer of calls, so that another platform, a recorder or a failing disk can stand in.

A ``FileLayer`` opens ``File`` objects and knows names (``layer.py`` says what they do; ``disk.py`` and ``windows.py``
do it). Here is said which one a database is opened with.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from .disk import BareLayer, PosixLayer, has_locks
from .layer import File, FileLayer

__all__ = ["BareLayer", "File", "FileLayer", "PosixLayer", "layer_for", "local_layer", "using"]


class _Here(threading.local):
    layer: Optional[FileLayer] = None


_here = _Here()
_local: Optional[FileLayer] = None


def local_layer() -> FileLayer:
    """The layer of the platform: one object for the whole process."""
    global _local
    if _local is None:
        if sys.platform == "win32":
            from .windows import WindowsApi, WindowsLayer

            _local = WindowsLayer(WindowsApi())
        elif not has_locks or sys.platform in ("emscripten", "wasi"):
            _local = BareLayer()
        else:
            _local = PosixLayer()
    return _local


def layer_for(path: str) -> FileLayer:
    """The layer to open ``path`` with: that of ``using`` in this thread, else the platform's."""
    return _here.layer or local_layer()


@contextmanager
def using(layer: FileLayer) -> Iterator[FileLayer]:
    """Within the block, every database that this thread opens is on ``layer`` (for tests)."""
    before, _here.layer = _here.layer, layer
    try:
        yield layer
    finally:
        _here.layer = before
