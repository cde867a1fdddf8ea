"""What the rest of ``storage`` knows of encryption: the words for it. How it is done is in ``crypto``."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["OVERHEAD", "TAG", "BadTag", "Cipher", "FrameCipher", "Identity", "Sealer", "Signer"]

TAG = 16  # bytes of a tag
OVERHEAD = 12 + TAG  # bytes that a frame's payload grows by: a nonce and a tag


class BadTag(Exception):
    """The bytes are not what was sealed, or are not what or where they say; the caller knows their place."""


class Identity(Protocol):
    """What of an extent's header is bound into the seals of its pieces."""

    @property
    def kind(self) -> int:
        """What it holds."""
        ...

    @property
    def number(self) -> int:
        """The how-manieth of its generation it is."""
        ...

    @property
    def generation(self) -> int:
        """What it was written for."""
        ...

    @property
    def key(self) -> int:
        """Of the entry, or of the first one."""
        ...

    @property
    def pieces(self) -> int:
        """How many."""
        ...


class Sealer(Protocol):
    """The pieces of one extent."""

    def seal(self, at: int, data: Any) -> tuple[bytes, bytes]:
        """The bytes to store for a piece at this place, as many as it has, and their tag. StorageError."""
        ...

    def open(self, at: int, data: Any, tag: bytes) -> bytes:
        """The piece whose stored bytes and tag these are. BadTag."""
        ...


class FrameCipher(Protocol):
    """The payloads of the frames of one epoch of the log."""

    def seal(self, kind: int, flags: int, lsn: int, before: int, payload: Any) -> bytes:
        """The payload to store, ``OVERHEAD`` bytes longer. ``before``: the CRC field of the frame before."""
        ...

    def open(self, kind: int, flags: int, lsn: int, before: int, payload: Any) -> bytes:
        """The payload of which this is stored. BadTag."""
        ...


class Signer(Protocol):
    """The keyed check of superblocks."""

    def mac(self, block: bytes) -> bytes:
        """The 16 bytes that belong into a superblock."""
        ...

    def authentic(self, block: bytes) -> bool:
        """Whether somebody who has the key wrote this superblock."""
        ...


class Cipher(Signer, Protocol):
    """All of one database."""

    def extent(self, salt: bytes, header: Identity) -> Sealer:
        """What seals and opens the pieces of one extent; ``salt``: fresh for every extent, and kept in its header."""
        ...

    def epoch(self, salt: bytes, epoch: int) -> FrameCipher:
        """What seals and opens the frames of one epoch of the log."""
        ...
