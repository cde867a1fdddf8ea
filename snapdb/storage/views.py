"""Views of a map whose end of life is known, however they were sliced and cast since.

A slice of a memoryview keeps the object that exported the memory, not the memoryview it was cut from; so a weak
reference to a memoryview tells nothing. A *window* is a small exporter of one range of a map: every view made from it,
at any remove, keeps it, and a weak reference to it tells when the last one is gone.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

__all__ = ["Windows", "windows_of"]

Windows = Callable[[int, int], Any]  # (offset, size) -> an exporter of that range, which can be weakly referenced


class _Window:
    """A range of a map, exported by the protocol of Python 3.12 (PEP 688)."""

    __slots__ = ("__weakref__", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __buffer__(self, flags: int) -> memoryview:
        return self._view


def _exporting(source: memoryview) -> Windows:
    return lambda offset, size: _Window(source[offset : offset + size])


def _addressing(source: memoryview) -> Windows:
    """Before Python 3.12 a class cannot export memory, but an array of ctypes at the map's address does."""
    import ctypes

    class Buffer(ctypes.Structure):  # Py_buffer of Python 3.9 to 3.11
        _fields_ = [
            ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
            ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
        ]  # fmt: skip

    buffer = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(source), ctypes.byref(buffer), 0)
    address, length = buffer.buf or 0, buffer.len
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))

    def window(offset: int, size: int) -> Any:
        if not 0 <= offset <= offset + size <= length:
            raise IndexError("a window outside of its map")
        array = (ctypes.c_ubyte * size).from_address(address + offset)
        array._map = source  # type: ignore[attr-defined]  # an export of the map: it cannot go away, nor be closed
        return array

    return window


def windows_of(source: memoryview) -> Windows:
    """The maker of windows of a map. ImportError on a Python before 3.12 without ctypes."""
    return _exporting(source) if sys.version_info >= (3, 12) else _addressing(source)
