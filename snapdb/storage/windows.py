"""Files on Windows. Every call that only Windows has goes through an ``api`` object, so that a fake one can be tested.

A file that is mapped cannot be renamed over, shortened or removed for good: release the views of its maps first.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, Optional, Protocol

from .disk import DiskFile, DiskLayer, check_regular, map_file
from .layer import File, failure

__all__ = ["Api", "WindowsApi", "WindowsFile", "WindowsLayer"]

READ, WRITE = 0x80000000, 0x40000000  # GENERIC_READ, GENERIC_WRITE
SHARE_ALL = 1 | 2 | 4  # read, write, delete: a file that is open can be renamed and unlinked, as on POSIX
CREATE_NEW, OPEN_EXISTING = 1, 3
NORMAL = 0x80  # FILE_ATTRIBUTE_NORMAL
LOCK_NOW, LOCK_EXCLUSIVE = 1, 2
REPLACE_EXISTING, WRITE_THROUGH = 1, 8
LOCK_VIOLATION, IO_PENDING, NOT_LOCKED = 33, 997, 158

# Locks of Windows keep others from reading and writing the bytes they cover, so the locked byte is far beyond any data.
LOCK_AT = 1 << 62


class Api(Protocol):
    """The calls of Windows that a WindowsLayer makes. Failures are OSError."""

    def create_file(self, path: str, access: int, share: int, disposition: int, flags: int) -> int:
        """CreateFileW: a handle that no child process inherits."""

    def descriptor(self, handle: int, writable: bool) -> int:
        """A binary file descriptor that owns the handle."""

    def lock_file(self, handle: int, flags: int, offset: int, length: int) -> bool:
        """LockFileEx. False: another handle has the range."""

    def unlock_file(self, handle: int, offset: int, length: int) -> None:
        """UnlockFileEx. Nothing where the range is not locked."""

    def flush(self, handle: int) -> None:
        """FlushFileBuffers."""

    def move_file(self, source: str, target: str, flags: int) -> None:
        """MoveFileExW."""

    def close(self, handle: int) -> None:
        """CloseHandle, for a handle that no descriptor owns."""


class WindowsApi:
    """The real calls, found at the first use of one."""

    def __init__(self) -> None:
        self._kernel: Any = None
        self._ctypes: Any = None
        self._overlapped: Any = None

    def _load(self) -> Any:
        if self._kernel is None:
            import ctypes

            self._ctypes = library = _untyped(ctypes)
            pointer, word = library.c_void_p, library.c_uint32

            class Overlapped(ctypes.Structure):
                _fields_ = [
                    ("internal", pointer), ("internal_high", pointer), ("low", word), ("high", word), ("event", pointer)
                ]  # fmt: skip

            self._overlapped = Overlapped
            kernel = library.WinDLL("kernel32", use_last_error=True)
            text, place = library.c_wchar_p, library.POINTER(Overlapped)
            for name, result, arguments in (
                ("CreateFileW", pointer, (text, word, word, pointer, word, word, pointer)),
                ("LockFileEx", word, (pointer, word, word, word, word, place)),
                ("UnlockFileEx", word, (pointer, word, word, word, place)),
                ("FlushFileBuffers", word, (pointer,)),
                ("MoveFileExW", word, (text, text, word)),
                ("CloseHandle", word, (pointer,)),
            ):
                call = getattr(kernel, name)
                call.restype, call.argtypes = result, arguments
            self._kernel = kernel
        return self._kernel

    def _error(self, *paths: str) -> OSError:
        code = self._ctypes.get_last_error()
        error: OSError = self._ctypes.WinError(code)
        if not paths:
            return error
        # this form finds the errno, and with it the subclass, from Windows' own code
        return OSError(0, error.strerror, paths[0], code, *paths[1:])

    def _place(self, offset: int) -> Any:
        place = self._overlapped()
        place.low, place.high = offset & 0xFFFFFFFF, offset >> 32
        return self._ctypes.byref(place)

    def create_file(self, path: str, access: int, share: int, disposition: int, flags: int) -> int:
        """See Api."""
        handle = self._load().CreateFileW(path, access, share, None, disposition, flags, None)
        if handle is None or handle == self._ctypes.c_void_p(-1).value:
            raise self._error(path)
        return int(handle)

    def descriptor(self, handle: int, writable: bool) -> int:
        """See Api."""
        import msvcrt

        system = _untyped(os)
        flags = system.O_BINARY | system.O_NOINHERIT | (os.O_RDWR if writable else os.O_RDONLY)
        return int(_untyped(msvcrt).open_osfhandle(handle, flags))

    def lock_file(self, handle: int, flags: int, offset: int, length: int) -> bool:
        """See Api."""
        kernel = self._load()
        if kernel.LockFileEx(handle, flags, 0, length & 0xFFFFFFFF, length >> 32, self._place(offset)):
            return True
        if self._ctypes.get_last_error() in (LOCK_VIOLATION, IO_PENDING):
            return False
        raise self._error()

    def unlock_file(self, handle: int, offset: int, length: int) -> None:
        """See Api."""
        kernel = self._load()
        if not kernel.UnlockFileEx(handle, 0, length & 0xFFFFFFFF, length >> 32, self._place(offset)):
            if self._ctypes.get_last_error() != NOT_LOCKED:
                raise self._error()

    def flush(self, handle: int) -> None:
        """See Api."""
        if not self._load().FlushFileBuffers(handle):
            raise self._error()

    def move_file(self, source: str, target: str, flags: int) -> None:
        """See Api."""
        if not self._load().MoveFileExW(source, target, flags):
            raise self._error(source, target)

    def close(self, handle: int) -> None:
        """See Api."""
        self._load().CloseHandle(handle)


def _untyped(module: Any) -> Any:
    """A module whose Windows names a type checker on another platform does not know."""
    return module


class WindowsFile(DiskFile):
    """A file behind a descriptor that owns a Windows handle. Reads and writes share one position, under a lock."""

    positioned = False

    def __init__(self, path: str, fd: int, handle: int, writable: bool, api: Api) -> None:
        super().__init__(path, fd)
        self._handle = handle
        self._writable = writable
        self._api = api
        self._locked = False

    def sync(self) -> None:
        self._there()
        if self._writable:  # FlushFileBuffers wants a handle that can write; a reader has nothing to flush
            self._api.flush(self._handle)

    def map(self, size: int) -> Optional[memoryview]:
        if size > self.size():
            raise failure(errno.EINVAL, self.path, "The file is shorter than the map")
        return map_file(self._fd, size)

    def lock(self, exclusive: bool) -> bool:
        self._there()
        self.unlock()  # a second lock through one handle would wait for the first
        self._locked = self._api.lock_file(self._handle, LOCK_NOW | (LOCK_EXCLUSIVE if exclusive else 0), LOCK_AT, 1)
        return self._locked

    def unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._api.unlock_file(self._handle, LOCK_AT, 1)


class WindowsLayer(DiskLayer):
    """Windows: LockFileEx, FlushFileBuffers, MoveFileExW with write-through."""

    maps = True
    locks = True

    def __init__(self, api: Optional[Api] = None) -> None:
        self._api: Api = WindowsApi() if api is None else api

    def promises(self) -> str:
        return (
            "Renames are written through. A directory cannot be flushed: names of new files are as durable as the file "
            "system's journal makes them. A file that is mapped cannot be replaced until its maps are released. The "
            "lock is one byte far beyond the data; on network shares neither locks nor maps can be trusted."
        )

    def open(self, path: str, mode: str) -> File:
        access, disposition = {
            "r": (READ, OPEN_EXISTING),
            "w": (READ | WRITE, OPEN_EXISTING),
            "x": (READ | WRITE, CREATE_NEW),
        }[mode]
        if os.path.isdir(path):  # CreateFileW would say "access denied"
            raise failure(errno.EEXIST if mode == "x" else errno.EISDIR, path)
        handle = self._api.create_file(path, access, SHARE_ALL, disposition, NORMAL)
        try:
            fd = self._api.descriptor(handle, mode != "r")
        except BaseException:
            self._api.close(handle)
            raise
        check_regular(path, fd)
        return WindowsFile(path, fd, handle, mode != "r", self._api)

    def rename(self, source: str, target: str, replace: bool) -> None:
        self._api.move_file(source, target, WRITE_THROUGH | (REPLACE_EXISTING if replace else 0))

    def is_remote(self, path: str) -> bool:
        # a share by its own name; a mapped drive letter is not known for one
        return sys.platform == "win32" and os.path.splitdrive(os.path.realpath(path))[0].startswith("\\\\")
