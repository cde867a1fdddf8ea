"""The operating system's files: POSIX, and bare where there is neither map nor lock. Windows is in ``windows.py``."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from typing import Any, Optional

from .layer import File, FileLayer, failure

_fcntl: Any
try:
    import fcntl

    _fcntl = fcntl
except ImportError:  # Windows, WebAssembly
    _fcntl = None
has_locks = _fcntl is not None

__all__ = ["BareLayer", "DiskFile", "DiskLayer", "PosixFile", "PosixLayer", "check_regular", "map_file"]

_LARGEST = 1 << 30  # bytes of one read or write call: macOS refuses 2 GiB, Linux cuts there
_ZEROS = bytes(65536)  # larger writes of zeros make some file systems find the space late
_ABSENT = (FileNotFoundError, NotADirectoryError)


def _codes(*names: str) -> frozenset[int]:
    """The errno values of these names; a platform need not have all of them."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_UNSUPPORTED = _codes("EOPNOTSUPP", "ENOTSUP", "EINVAL", "ENOTTY", "ENOSYS")
_NO_MAP = _codes("ENODEV", "ENOMEM", "ENOSYS", "EACCES", "EPERM", "ENOTSUP", "EOPNOTSUPP", "EAGAIN")
_NO_LINK = _codes("EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS")
_BUSY = _codes("EWOULDBLOCK", "EAGAIN", "EACCES")

# Types in /proc/mounts whose locks or caches are not one machine's.
_REMOTE = frozenset(
    "9p afs beegfs ceph cifs coda davfs glusterfs gpfs lustre ncpfs nfs nfs4 orangefs smb3 smbfs "
    "fuse.ceph fuse.ceph-fuse fuse.davfs fuse.davfs2 fuse.gcsfuse fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs "
    "fuse.smbnetfs fuse.sshfs".split()
)


# -- files of the operating system -----------------------------------------
class DiskFile(File):
    """A file behind a descriptor: what the platforms share. No lock, no map."""

    positioned = hasattr(os, "pread")  # False: seek and read, one call at a time

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._seeking = threading.Lock()

    def _there(self) -> int:
        """The descriptor; some calls have a ValueError for that of a closed file."""
        if self._fd < 0:
            raise failure(errno.EBADF, self.path)
        return self._fd

    def _read(self, size: int, offset: int) -> bytes:
        size = min(size, _LARGEST)
        if self.positioned:
            return os.pread(self._fd, size, offset)
        with self._seeking:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.read(self._fd, size)

    def _write(self, data: Any, offset: int) -> int:
        if self.positioned:
            return os.pwrite(self._fd, data, offset)
        with self._seeking:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.write(self._fd, data)

    def pread(self, size: int, offset: int) -> bytes:
        data = self._read(size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        missing = size - len(data)
        while missing and data:
            data = self._read(missing, offset + size - missing)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def pwrite(self, data: Any, offset: int) -> None:
        view = memoryview(data)
        if view.ndim != 1 or view.format != "B":
            view = view.cast("B")
        size = len(view)
        at = 0
        while at < size:
            done = self._write(view[at : at + _LARGEST] if at or size > _LARGEST else view, offset + at)
            if done <= 0:
                raise failure(errno.EIO, self.path)
            at += done

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        os.fsync(self._there())

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def allocate(self, offset: int, size: int) -> None:
        if size <= 0:
            return
        before = self.size()
        try:
            self._allocate(offset, size, before)
        except OSError:
            # a full disk: give back what was taken of it (nobody maps or uses what is past the old end)
            try:
                if self.size() > before:
                    self.truncate(before)
            except OSError:
                pass
            raise

    def _allocate(self, offset: int, size: int, before: int) -> None:
        at, end = max(before, offset), offset + size
        while at < end:
            count = min(len(_ZEROS), end - at)
            self.pwrite(_ZEROS if count == len(_ZEROS) else _ZEROS[:count], at)
            at += count

    def map(self, size: int) -> Optional[memoryview]:
        return None

    def lock(self, exclusive: bool) -> bool:
        self._there()
        return True

    def unlock(self) -> None:
        pass

    def identity(self) -> Optional[tuple[int, int]]:
        return _identity(os.fstat(self._fd))

    def fileno(self) -> int:
        return -1

    def close(self, abandon: bool = False) -> None:
        fd = self._fd
        if fd < 0:
            return
        try:
            if not abandon:
                self.unlock()
        finally:
            self._fd = -1
            os.close(fd)


def _identity(status: os.stat_result) -> Optional[tuple[int, int]]:
    return (status.st_dev, status.st_ino) if status.st_ino else None


def check_regular(path: str, fd: int) -> None:
    """Close the descriptor and raise unless it is a regular file's."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise failure(errno.EISDIR, path)
        if not stat.S_ISREG(mode):
            raise failure(errno.EINVAL, path, "Not a regular file")
    except BaseException:
        os.close(fd)
        raise


class DiskLayer(FileLayer):
    """What the layers over the operating system's files share."""

    threads = True
    maps = False
    locks = False

    def exists(self, path: str) -> bool:
        # os.path.exists() would take a directory that cannot be searched, or a failing disk, for an absent file
        try:
            os.stat(path)
        except _ABSENT:
            return False
        return True

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def identity(self, path: str) -> Optional[tuple[int, int]]:
        try:
            return _identity(os.stat(path))
        except _ABSENT:
            return None

    def rename(self, source: str, target: str, replace: bool) -> None:
        if replace:
            os.replace(source, target)
            return
        try:
            if not hasattr(os, "link"):
                raise failure(errno.ENOSYS)
            # the only rename of POSIX that never replaces; a crash between the two leaves both names, which is harmless
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            if os.path.lexists(target):
                raise failure(errno.EEXIST, target) from None
            os.rename(source, target)
        else:
            os.unlink(source)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_dir(self, path: str) -> None:
        pass

    def is_remote(self, path: str) -> bool:
        return False


def _open(path: str, mode: str) -> int:
    """A descriptor of a regular file, never 0 to 2: what other code prints to a closed stdout must not land in it."""
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    # without O_NONBLOCK, opening a named pipe waits for its other end; on a regular file it has no effect
    flags |= getattr(os, "O_NONBLOCK", 0)
    flags |= {"r": os.O_RDONLY, "w": os.O_RDWR, "x": os.O_RDWR | os.O_CREAT | os.O_EXCL}[mode]
    fd = os.open(path, flags, 0o666)
    check_regular(path, fd)
    if fd > 2 or _fcntl is None:
        return fd
    try:
        return int(_fcntl.fcntl(fd, _fcntl.F_DUPFD_CLOEXEC, 3))
    finally:
        os.close(fd)


# -- POSIX -----------------------------------------------------------------
def _sync_data(fd: int, full: bool) -> bool:
    """fdatasync or, where the platform has it and ``full``, F_FULLFSYNC; returns whether that is still worth trying.

    The fallback to fsync is for file systems that do not know F_FULLFSYNC. Any other failure of it stands.
    """
    if full:
        try:
            _fcntl.fcntl(fd, _fcntl.F_FULLFSYNC)
            return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        os.fsync(fd)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)
    return False


class PosixFile(DiskFile):
    """A file with flock, mmap and fdatasync."""

    def __init__(self, path: str, fd: int) -> None:
        super().__init__(path, fd)
        self._full = hasattr(_fcntl, "F_FULLFSYNC")
        self._proven = False  # F_FULLFSYNC worked here once, so a later failure is one
        self._locked = False

    def sync(self) -> None:
        fd = self._there()
        if self._proven:
            _fcntl.fcntl(fd, _fcntl.F_FULLFSYNC)
        else:
            self._full = self._proven = _sync_data(fd, self._full)

    def _allocate(self, offset: int, size: int, before: int) -> None:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, offset, size)
                return
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
        super()._allocate(offset, size, before)

    def map(self, size: int) -> Optional[memoryview]:
        if size > self.size():
            raise failure(errno.EINVAL, self.path, "The file is shorter than the map")
        return map_file(self._fd, size)

    def lock(self, exclusive: bool) -> bool:
        fd = self._there()
        try:
            _fcntl.flock(fd, (_fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH) | _fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            self.unlock()  # a failed conversion drops the old lock on some systems and keeps it on others
            return False
        self._locked = True
        return True

    def unlock(self) -> None:
        if self._locked:
            self._locked = False
            _fcntl.flock(self._fd, _fcntl.LOCK_UN)

    def fileno(self) -> int:
        return self._fd


def map_file(fd: int, size: int) -> Optional[memoryview]:
    """A read-only map as a view, None where the system has none to give (a read finds out about real errors)."""
    if size <= 0:
        return memoryview(b"")
    import mmap

    options: dict[str, Any] = {"access": mmap.ACCESS_READ}
    if sys.version_info >= (3, 13):
        options["trackfd"] = False  # no second descriptor, which would keep a lock
    try:
        return memoryview(mmap.mmap(fd, size, **options))
    except OSError as error:
        if error.errno not in _NO_MAP:
            raise
        return None


class PosixLayer(DiskLayer):
    """Linux, macOS, BSD."""

    maps = True
    locks = True

    def promises(self) -> str:
        text = (
            "Renames are atomic. Locks are advisory (flock): only programs that ask for them are kept out, and a child "
            "process that inherited the file keeps its lock alive. On network file systems neither locks nor maps can "
            "be trusted. Space is reserved where the file system does it; one that copies on write may still run out."
        )
        if hasattr(_fcntl, "F_FULLFSYNC"):
            return text + " Flushes empty the drive's cache (F_FULLFSYNC) where the file system can."
        return text + " Flushes are as good as the drive's answer to them."

    def resolve(self, path: str) -> str:
        return os.path.realpath(path)

    def open(self, path: str, mode: str) -> File:
        return PosixFile(path, _open(path, mode))

    def sync_dir(self, path: str) -> None:
        flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(os.path.dirname(path) or os.curdir, flags)
        try:
            if not hasattr(_fcntl, "F_FULLFSYNC"):
                os.fsync(fd)  # not fdatasync, which owes a directory nothing
            else:
                _sync_data(fd, True)
        except OSError as error:
            # some file systems flush no directory by itself; the names are then as durable as they make them
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            os.close(fd)

    def is_remote(self, path: str) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        try:
            with open("/proc/mounts", "rb") as mounts:
                text = mounts.read()
        except OSError:
            return False
        return mount_type(os.path.realpath(path), os.fsdecode(text)) in _REMOTE


def mount_type(path: str, mounts: str) -> str:
    """The file system type of an absolute path in the text of /proc/mounts: the longest mount point, the last such."""
    longest, found = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(code, character)
        inside = path == point or path.startswith(point if point.endswith("/") else point + "/")
        if inside and len(point) >= longest:
            longest, found = len(point), fields[2]
    return found


# -- the least a platform can have -----------------------------------------
class BareFile(DiskFile):
    """A file with nothing but reads and writes."""


class BareLayer(DiskLayer):
    """No lock, no map, no thread: WebAssembly."""

    threads = False

    def promises(self) -> str:
        return (
            "Nothing keeps a second program out of the file. A flush is as good as the host makes it; in a browser, "
            "files outlive the page only where the host stores them. Names are durable when the host says so."
        )

    def open(self, path: str, mode: str) -> File:
        return BareFile(path, _open(path, mode))
