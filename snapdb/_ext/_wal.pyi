"""The write-ahead log's checksum (the log itself comes with the file)."""

from typing import Any

def crc32(data: Any, value: int = 0) -> int:
    """CRC-32 as ``zlib.crc32``, continued from ``value``."""
