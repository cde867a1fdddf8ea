"""What an engine keeps in a file: entries of pieces under integer keys. Engines and storage share these words and no
more.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Protocol

__all__ = ["Bulk", "Entry", "Piece", "Ref", "Source"]


class Ref(NamedTuple):
    """Where a piece is: ``extent`` is the file offset of its extent and ``size`` that extent's bytes, ``at`` the
    piece's place from the extent's first byte, ``length`` its bytes, ``crc`` the CRC-32 of what is stored of it.
    ``tag``: in an encrypted file 16 bytes that prove what was written there, else empty.
    """

    extent: int
    size: int
    at: int
    length: int
    crc: int
    tag: bytes = b""


class Piece(NamedTuple):
    """A part of an entry: ``data`` still to be written, or ``ref`` where it is already (the other one is None).

    ``tag`` (32 bits) and ``meta`` (a few bytes) are the engine's own and stay in the catalog.
    """

    tag: int
    meta: bytes
    data: Any = None
    ref: Optional[Ref] = None


class Entry(NamedTuple):
    """What is kept under one key."""

    meta: bytes
    pieces: list[Piece]


class Bulk(NamedTuple):
    """A large batch made ready: ``entries`` to be written by key, ``state`` what the engine needs to publish it."""

    first: int
    rows: int
    entries: list[tuple[int, Entry]]
    state: Any


class Source(Protocol):
    """Where an engine reads entries from."""

    def entry(self, key: int) -> Optional[Entry]:
        """The entry under a key, every piece a reference; None where there is none. CorruptionError."""
        ...

    def read(self, ref: Ref) -> memoryview:
        """The verified bytes of a piece, read-only, valid and unchanged as long as they are held. CorruptionError."""
        ...
