"""The slab twin with its whole-array loops done by NumPy."""

from __future__ import annotations

from typing import Union

import numpy as np

from . import _mask_np, _slab_py
from ._codecs_np import Chunk
from ._slab_py import Lookup

__all__ = ["Lookup", "SlabTable", "SlabView"]


def _field(block: Union[bytes, bytearray], place: int, stride: int, width: int) -> np.ndarray:
    """One field of every record, unaligned and in place."""
    kind = f"u{width}" if width in (1, 2, 4, 8) else f"V{width}"
    return np.ndarray(len(block) // stride, kind, block, place, (stride,))


def store(block: bytearray, place: int, stride: int, width: int, raw: bytes) -> None:
    """Spread the values of ``raw`` over the records of ``block``."""
    if raw:
        field = _field(block, place, stride, width)
        field[:] = np.frombuffer(raw, field.dtype)


def load(block: Union[bytes, bytearray], place: int, stride: int, width: int) -> Union[bytes, bytearray]:
    """Gather one field of the records of ``block``: the reverse of ``store``."""
    return _field(block, place, stride, width).tobytes() if block else b""


class SlabView(_slab_py.SlabView):
    __doc__ = _slab_py.SlabView.__doc__
    _load = staticmethod(load)
    _chunk = Chunk
    _masks = _mask_np


class SlabTable(_slab_py.SlabTable):
    __doc__ = _slab_py.SlabTable.__doc__
    _store = staticmethod(store)
    _view = SlabView
