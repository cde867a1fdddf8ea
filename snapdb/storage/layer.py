"""What storage asks of files: the abstract ``File`` and ``FileLayer``.

Every layer behaves the same within what its ``promises()`` say: errors are OSError with an errno, a read is short only
at the end of the file, a write is whole or raises.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, Optional

__all__ = ["File", "FileLayer", "failure"]


def failure(code: int, path: Optional[str] = None, text: Optional[str] = None) -> OSError:
    """An OSError (of the subclass that belongs to ``code``) with the system's text or this one."""
    return OSError(code, text or os.strerror(code), path)


class File(ABC):
    """An open file. Offsets and sizes are bytes; every method but ``close`` raises OSError once it is closed."""

    path: str

    @abstractmethod
    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer only where the file ends."""

    @abstractmethod
    def pwrite(self, data: Any, offset: int) -> None:
        """Write all of a contiguous bytes-like object. Where that raises, any part of it may be in the file."""

    @abstractmethod
    def size(self) -> int:
        """The file's length."""

    @abstractmethod
    def sync(self) -> None:
        """Put what was written, and the length, on stable storage. Never try again after an error: see durability."""

    @abstractmethod
    def truncate(self, size: int) -> None:
        """Set the length; zeros where it grows. Never below what a live map covers."""

    @abstractmethod
    def allocate(self, offset: int, size: int) -> None:
        """Take space so that a later write to this range will not lack it; the file grows to its end, with zeros.

        Bytes that are in the file stay as they are. Where it raises, the file has its old length if that was possible.
        """

    @abstractmethod
    def map(self, size: int) -> Optional[memoryview]:
        """The first ``size`` bytes as a read-only view that shows later writes; None where there are no maps.

        It lives on after ``close``. OSError where the file is shorter.
        """

    @abstractmethod
    def lock(self, exclusive: bool) -> bool:
        """Lock the file against every other File, in this process too, without waiting. False: another one has it.

        A lock that this File has already is given up first; no lock is ever strengthened in one step.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Give up the lock; nothing where there is none."""

    @abstractmethod
    def identity(self) -> Optional[tuple[int, int]]:
        """(device, inode), None where the platform has none."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor, for kernels that call ``pwrite`` themselves; -1: every write must go through this object."""

    @abstractmethod
    def close(self, abandon: bool = False) -> None:
        """Unlock and close; nothing where that is done. ``abandon``: close without unlocking, in a forked child,
        where unlocking would drop the parent's lock.
        """


class FileLayer(ABC):
    """Names of files, and the way to open them. ``threads``, ``maps`` and ``locks``: whether the platform has these."""

    threads: bool
    maps: bool
    locks: bool

    @abstractmethod
    def promises(self) -> str:
        """What this layer can and cannot promise, as sentences for people."""

    def resolve(self, path: str) -> str:
        """The one name of a file that may have several (links): the log's names are made from it."""
        return path

    @abstractmethod
    def open(self, path: str, mode: str) -> File:
        """``"r"``: an existing file for reading, ``"w"``: an existing one for both, ``"x"``: a new one for both.

        FileNotFoundError, FileExistsError, IsADirectoryError; OSError for anything else that is no regular file.
        """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file of this name. OSError where that cannot be known."""

    @abstractmethod
    def size(self, path: str) -> int:
        """The length of a file by name. FileNotFoundError."""

    @abstractmethod
    def identity(self, path: str) -> Optional[tuple[int, int]]:
        """(device, inode) of the file that has this name now; None where there is no file or the platform has none."""

    @abstractmethod
    def rename(self, source: str, target: str, replace: bool) -> None:
        """Give a file another name; a file of that name is replaced, or, without ``replace``, is a FileExistsError."""

    @abstractmethod
    def unlink(self, path: str) -> None:
        """Remove a name. FileNotFoundError."""

    @abstractmethod
    def sync_dir(self, path: str) -> None:
        """Put the names in the directory of this file (which need not be there) on stable storage."""

    @abstractmethod
    def is_remote(self, path: str) -> bool:
        """Whether the file is on a network file system; False where that is not known."""
