"""Making a database: whole under a temporary name, then renamed. A crash leaves a database or none, never a part."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import DurabilityError
from . import lock
from .catalog import Root
from .checkpoint import write_root
from .extents import Extents
from .layer import FileLayer, failure
from .space import Space
from .superblock import NO_TAG, PREAMBLE, StaticHeader, Superblock, write_slot, write_static
from .wal import refused, wal_path

if TYPE_CHECKING:
    from .crypto import Keys

__all__ = ["AS_MADE", "check_beside", "create", "resolved", "sync_name"]

AS_MADE = 2  # the generation of a database that was never written


def create(layer: FileLayer, path: str, header: dict[str, Any], timeout: float, keys: Optional[Keys] = None) -> None:
    """Make a database with this header and no entries; with ``keys`` an encrypted one, whose data key is fresh.
    FileExistsError, FileNotFoundError or NotADirectoryError where there is no folder for it, StorageError, LockedError,
    DurabilityError.
    """
    path = resolved(layer, path)
    check_beside(layer, path)
    claim = _claim_empty(layer, path, timeout) if layer.exists(path) else None
    temporary = f"{path}.tmp-{os.urandom(6).hex()}"
    try:
        _write_new(layer, temporary, header, keys)
        layer.rename(temporary, path, claim is not None)
    except BaseException as error:
        _remove(layer, temporary)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            what = f"there is no folder {os.path.dirname(path)!r}; make it first, or give another path"
            raise type(error)(error.errno, what, path) from error
        if isinstance(error, OSError) and not isinstance(error, FileExistsError):
            raise refused(error, f"{path} cannot be made") from error
        raise
    finally:
        if claim is not None:
            claim.release()
    sync_name(layer, path)


def sync_name(layer: FileLayer, path: str) -> None:
    """The name of a database that was just made is on stable storage, or DurabilityError."""
    try:
        layer.sync_dir(path)
    except OSError as error:
        raise DurabilityError(f"{path} was made, but it is not known to last: {error}") from error


def check_beside(layer: FileLayer, path: str) -> None:
    """FileExistsError where the log of a database is at this path that is not there itself."""
    for parity in (0, 1):
        beside = wal_path(path, parity)
        if layer.exists(beside):
            what = f"The log of a database that is not there is in the way of a new {path}; move it or remove it"
            raise failure(errno.EEXIST, beside, what)


def resolved(layer: FileLayer, path: str) -> str:
    """The file's own name: its log must be found whatever directory or link it is opened from."""
    return os.path.realpath(path) if lock.on_disk(layer) else path


def _claim_empty(layer: FileLayer, path: str, timeout: float) -> Optional[lock.Claim]:
    """Lock an empty file that is to be replaced; None where it went meanwhile."""
    try:
        claim = lock.acquire(layer, path, True, timeout)
    except FileNotFoundError:
        return None
    if claim.file.size():
        claim.release()
        raise failure(errno.EEXIST, path)
    return claim


def _write_new(layer: FileLayer, path: str, header: dict[str, Any], keys: Optional[Keys]) -> None:
    """A whole database in a new file, synced."""
    static, cipher = StaticHeader(os.urandom(16)), None
    if keys is not None:
        from . import crypto

        cipher = crypto.create(static, keys)
        static = cipher.static
    uuid = static.uuid
    file = layer.open(path, "x")
    try:
        file.allocate(0, PREAMBLE)
        extents = Extents(file, Space(), uuid, mapped=False, cipher=cipher)
        ref = write_root(extents, Root(header, None, 0), 1)
        high_water = extents.space.high_water
        write_static(file, static)
        for slot in (0, 1):  # the second has generation AS_MADE
            block = Superblock(
                slot, True, uuid, slot + 1, ref.extent, ref.length, ref.crc, 0, 0, bytes(16), 0, high_water, high_water,
                time.time_ns() // 1000, ref.tag or NO_TAG,
            )  # fmt: skip
            write_slot(file, block, cipher)
        file.sync()
    finally:
        file.close()


def _remove(layer: FileLayer, path: str) -> None:
    try:
        layer.unlink(path)
    except OSError:
        pass  # not there, or it cannot be helped
