"""The write-ahead log's checksum. The readable twin of ``_wal.pyx``."""

from __future__ import annotations

import zlib
from typing import Any

__all__ = ["crc32"]


def crc32(data: Any, value: int = 0) -> int:
    """CRC-32 as ``zlib.crc32``, continued from ``value``."""
    return zlib.crc32(data, value)
