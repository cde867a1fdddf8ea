"""The slab twin with its whole-array loops done by NumPy."""

from __future__ import annotations

from typing import Union

import numpy as np

from . import _slab_py

__all__ = ["SlabTable", "SlabView"]


def store(block: bytearray, place: int, stride: int, width: int, raw: bytes) -> None:
    """Spread the values of ``raw`` over the records of ``block``."""
    records = np.frombuffer(block, np.uint8).reshape(-1, stride)
    records[:, place : place + width] = np.frombuffer(raw, np.uint8).reshape(-1, width)


def load(block: Union[bytes, bytearray], place: int, stride: int, width: int) -> Union[bytes, bytearray]:
    """Gather one field of the records of ``block``: the reverse of ``store``."""
    return np.frombuffer(block, np.uint8).reshape(-1, stride)[:, place : place + width].tobytes()


class SlabView(_slab_py.SlabView):
    __doc__ = _slab_py.SlabView.__doc__
    _load = staticmethod(load)


class SlabTable(_slab_py.SlabTable):
    __doc__ = _slab_py.SlabTable.__doc__
    _store = staticmethod(store)
    _view = SlabView
