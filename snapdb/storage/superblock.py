"""The first 16 KiB of a file: the static header, twice, and two superblocks. Bytes: ``docs/format.md``, "Preamble"."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Optional

from ..errors import CorruptionError, NotSupportedError

if TYPE_CHECKING:
    from .layer import File
    from .seals import Signer

__all__ = [
    "AES_GCM", "CRC", "MAGIC", "MAJOR", "NO_TAG", "PAGE", "PREAMBLE", "RAW", "ROOT_LIMIT", "SCRYPT_KEY", "SLOTS",
    "SLOT_BYTES", "STATIC", "StaticHeader", "Superblock", "changed_slots", "equalize", "read_holder", "read_slots",
    "read_static", "replace_static", "write_holder", "write_slot", "write_static",
]  # fmt: skip

CRC = zlib.crc32

MAGIC = b"\x89SNAP\r\n\x1a"
MAJOR = 1
PAGE = 4096
PREAMBLE = 0x4000  # the first extent is here
STATIC = (0x0000, 0x2000)  # the static header's copies A and B
SLOTS = (0x1000, 0x3000)  # superblock slots 0 and 1
ROOT_LIMIT = 64 << 20  # bytes of a root that a reader is ready to hold
MAX_OFFSET = (1 << 63) - 1  # of a byte in a file, on every platform
MOST = 1 << 60  # a generation, LSN, epoch or time that no database reaches: more is damage

AES_GCM = 1  # the cipher of an encrypted database
SCRYPT_KEY, RAW = 1, 2  # how its key is derived: from a passphrase, from a raw key
SLOT_BYTES = 64  # of a key slot

_HOLDER_AT, _HOLDER_BYTES = 4032, 64
_STATIC_CRC_AT = 4028
_BLOCK_BYTES = 512
_BLOCK_CRC_AT = 508
_CRC_FIELD = struct.Struct("<I")
_STATIC_FIELDS = struct.Struct("<8sHHI16sIIIBBBx16s16sQ256s")
_BLOCK_FIELDS = struct.Struct("<4sHBB16sQQII16sQQ16sI4xQQQ")
_CLEAN = 1
_COMPATIBLE = _READ_ONLY = _INCOMPATIBLE = 0  # the feature bits that this version knows
_MAC_AT = 128
NO_TAG = bytes(16)  # of the root, in a superblock that is not that of an encrypted database


class StaticHeader(NamedTuple):
    """What never changes after creation but by ``rekey``: the database's uuid and how its bytes are to be read.

    ``sequence``: the copy with the greater one is in force. Encryption: ``derivation`` of the key that wraps the data
    key, its ``scrypt`` parameters and ``salt``, and ``keys``, the slots with the wrapped data key.
    """

    uuid: bytes
    major: int = MAJOR
    minor: int = 0
    page: int = PAGE
    compatible: int = 0
    read_only: int = 0
    incompatible: int = 0
    checksum: int = 1
    cipher: int = 0
    derivation: int = 0
    scrypt: bytes = NO_TAG
    salt: bytes = NO_TAG
    sequence: int = 0
    keys: bytes = bytes(256)

    def encode(self) -> bytes:
        """The page of 4,096 bytes, with nobody as the holder of the lock."""
        fields = _STATIC_FIELDS.pack(
            MAGIC, self.major, self.minor, self.page, self.uuid, self.compatible, self.read_only, self.incompatible,
            self.checksum, self.cipher, self.derivation, self.scrypt, self.salt, self.sequence, self.keys,
        )  # fmt: skip
        body = fields.ljust(_STATIC_CRC_AT, b"\0")
        return (body + _CRC_FIELD.pack(CRC(body))).ljust(PAGE, b"\0")

    @classmethod
    def decode(
        cls, data: bytes, path: Optional[str] = None, offset: int = 0, sealed: bool = False
    ) -> StaticHeader:
        """The header in these bytes. CorruptionError; NotSupportedError where this version cannot read the database."""
        return _parse_static(data, path, offset).supported(path, sealed)

    def supported(self, path: Optional[str] = None, sealed: bool = False) -> StaticHeader:
        """The header itself where this version can read such a database, else NotSupportedError.

        ``sealed``: the caller can open what is encrypted.
        """
        if self.major > MAJOR:
            raise _newer(path, self.major, self.minor)
        unknown = self.incompatible & ~_INCOMPATIBLE
        if unknown:
            raise NotSupportedError(
                f"the database {_named(path)}uses features that this version of SnapDB does not know "
                f"(format {self.major}.{self.minor}, incompatible feature bits {unknown:#x})",
                hint="a newer SnapDB reads it",
            )
        if self.cipher not in (0, AES_GCM) or self.derivation not in ((SCRYPT_KEY, RAW) if self.cipher else (0,)):
            raise NotSupportedError(
                f"the database {_named(path)}has cipher {self.cipher} and key derivation {self.derivation}, "
                f"which this version of SnapDB does not know",
                hint="a newer SnapDB reads it",
            )
        if self.cipher and not sealed:
            raise NotSupportedError(f"the database {_named(path)}is encrypted; this version of SnapDB cannot open it")
        if self.checksum != 1 or self.page != PAGE:
            raise NotSupportedError(
                f"the database {_named(path)}has checksum {self.checksum} and pages of {self.page} bytes; "
                f"this version of SnapDB knows checksum 1 and pages of {PAGE}"
            )
        return self

    @property
    def must_not_write(self) -> bool:
        """Whether a feature that this version does not know allows reading only."""
        return bool(self.read_only & ~_READ_ONLY)


def _named(path: Optional[str]) -> str:
    return "" if path is None else f"{path} "


def _newer(path: Optional[str], major: int, minor: int) -> NotSupportedError:
    return NotSupportedError(
        f"the database {_named(path)}has format {major}.{minor}, this version of SnapDB reads up to {MAJOR}",
        hint="a newer SnapDB reads it",
    )


def _parse_static(data: bytes, path: Optional[str], offset: int) -> StaticHeader:
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptionError("not a SnapDB database", path=path, offset=offset)
    if len(data) < _HOLDER_AT:
        raise CorruptionError("the file ends within its static header", path=path, offset=offset)
    if CRC(data[:_STATIC_CRC_AT]) != _CRC_FIELD.unpack_from(data, _STATIC_CRC_AT)[0]:
        raise CorruptionError("the static header does not verify", path=path, offset=offset)
    fields = _STATIC_FIELDS.unpack_from(data)
    _, major, minor, page, uuid, *rest = fields
    return StaticHeader(uuid, major, minor, page, *rest)


def read_static(file: File, path: str, sealed: bool = False) -> StaticHeader:
    """The static header in force: of the copies that verify, the one with the greater sequence. ``sealed``: the caller
    can open what is encrypted.

    CorruptionError where the file is no database, is cut short or both copies are damaged; NotSupportedError where this
    version cannot read it.
    """
    pages = [file.pread(PAGE, at) for at in STATIC]
    marked = [page for page in pages if page[: len(MAGIC)] == MAGIC]
    if not marked:
        raise CorruptionError(f"{path} is not a SnapDB database", path=path, offset=0, hint="is this the right path?")
    found = []
    for page, at in zip(pages, STATIC):
        try:
            found.append(_parse_static(page, path, at))
        except CorruptionError:
            continue  # the other copy may do
    if not found:
        # another major version may have its checksum elsewhere
        versions = {struct.unpack_from("<HH", page, 8) for page in marked if len(page) >= 12}
        if versions and min(versions)[0] > MAJOR:
            raise _newer(path, *max(versions))
        raise CorruptionError(f"both copies of the static header of {path} are damaged", path=path, offset=0)
    header = max(found, key=lambda one: one.sequence).supported(path, sealed)
    if file.size() < PREAMBLE:
        raise CorruptionError(f"{path} ends within its first {PREAMBLE} bytes", path=path, offset=file.size())
    return header


def write_static(file: File, header: StaticHeader) -> None:
    """Write both copies, without a flush. For a new file only: a live one needs a flush between them."""
    page = header.encode()
    for at in STATIC:
        file.pwrite(page, at)


def replace_static(file: File, header: StaticHeader) -> None:
    """Put another header in force, on stable storage, so that at every moment one of the two is: its ``sequence`` must
    be the greater one. The holder's name stays. OSError: it is not known which.
    """
    page = header.encode()[:_HOLDER_AT]
    there, other = _in_force(file)
    for at in (other, there):
        file.pwrite(page, at)
        file.sync()


def equalize(file: File) -> None:
    """Where the copies of the header differ, write the one in force over the other, on stable storage: a change of the
    key was cut short. OSError.
    """
    there, other = _in_force(file)
    page = file.pread(_HOLDER_AT, there)
    if file.pread(_HOLDER_AT, other) != page:
        file.pwrite(page, other)
        file.sync()


def _in_force(file: File) -> tuple[int, int]:
    """Where the copy of the static header is that is in force, and where the other one."""
    sequences = []
    for at in STATIC:
        try:
            sequences.append(_parse_static(file.pread(PAGE, at), None, at).sequence)
        except CorruptionError:
            sequences.append(-1)
    first, second = STATIC
    return (first, second) if sequences[0] >= sequences[1] else (second, first)


# -- superblocks -----------------------------------------------------------
class Superblock(NamedTuple):
    """One state of the database. ``slot``: 0 or 1, where it is or goes; ``clean``: closed, no log belongs to it.

    ``root_at``, ``root_bytes``, ``root_crc``: the root's extent, the bytes of the root behind its header and their
    CRC-32. ``lsn``: every frame up to it is in the tree; ``epoch``, ``salt``: the log's; ``frame_crc``: the CRC field
    of the frame ``lsn``. ``time``: microseconds since 1970. ``tag``: the root's, in an encrypted database.
    """

    slot: int
    clean: bool
    uuid: bytes
    generation: int
    root_at: int
    root_bytes: int
    root_crc: int
    lsn: int
    epoch: int
    salt: bytes
    frame_crc: int
    high_water: int
    file_length: int
    time: int
    tag: bytes = NO_TAG

    def encode(self, cipher: Optional[Signer] = None) -> bytes:
        """The 512 bytes; ``cipher``: of an encrypted database, whose superblocks have a keyed MAC."""
        fields = _BLOCK_FIELDS.pack(
            b"SNSB", 1, self.slot, _CLEAN if self.clean else 0, self.uuid, self.generation, self.root_at,
            self.root_bytes, self.root_crc, self.tag, self.lsn, self.epoch, self.salt, self.frame_crc, self.high_water,
            self.file_length, self.time,
        )  # fmt: skip
        body = fields.ljust(_BLOCK_CRC_AT, b"\0")
        if cipher is not None:
            body = body[:_MAC_AT] + cipher.mac(body) + body[_MAC_AT + len(NO_TAG) :]
        return body + _CRC_FIELD.pack(CRC(body))

    @classmethod
    def decode(cls, data: bytes) -> Optional[Superblock]:
        """The superblock in these bytes, None where they do not verify. Its MAC is not looked at."""
        if len(data) < _BLOCK_BYTES or data[:4] != b"SNSB":
            return None
        if CRC(data[:_BLOCK_CRC_AT]) != _CRC_FIELD.unpack_from(data, _BLOCK_CRC_AT)[0]:
            return None
        _, version, slot, flags, uuid, generation, at, size, crc, tag, *rest = _BLOCK_FIELDS.unpack_from(data)
        block = cls(slot, bool(flags & _CLEAN), uuid, generation, at, size, crc, *rest)._replace(tag=tag)
        return block if version == 1 and slot < 2 and not flags & ~_CLEAN and block._plausible() else None

    def _plausible(self) -> bool:
        end = self.root_at + self.root_bytes
        return (
            PREAMBLE <= self.root_at
            and not (self.root_at | self.high_water | self.file_length) % PAGE
            and self.root_bytes <= ROOT_LIMIT
            and end < self.high_water <= self.file_length <= MAX_OFFSET
            and max(self.generation, self.lsn, self.epoch, self.time) <= MOST  # there must be room to count on
        )


def read_slots(file: File, uuid: Optional[bytes] = None, cipher: Optional[Signer] = None) -> list[Superblock]:
    """The superblocks that verify and stand in their own slot, newest first; ``uuid``: of this database only.

    ``cipher``: of an encrypted database; without the MAC of somebody who has the key a superblock does not verify.
    """
    blocks = [block for block, authentic in _slots(file, uuid, cipher) if authentic]
    return sorted(blocks, key=lambda block: block.generation, reverse=True)


def changed_slots(file: File, uuid: bytes, cipher: Optional[Signer] = None) -> list[int]:
    """The slots whose superblock has a right checksum and a wrong MAC: no accident leaves that behind."""
    return [block.slot for block, authentic in _slots(file, uuid, cipher) if not authentic]


def _slots(file: File, uuid: Optional[bytes], cipher: Optional[Signer]) -> Iterator[tuple[Superblock, bool]]:
    """The superblocks whose checksum is right, and whether nobody without the key wrote them."""
    for slot, at in enumerate(SLOTS):
        data = file.pread(_BLOCK_BYTES, at)
        block = Superblock.decode(data)
        if block is not None and block.slot == slot and uuid in (None, block.uuid):
            plain = data[_MAC_AT : _MAC_AT + len(NO_TAG)] == block.tag == NO_TAG
            yield block, plain if cipher is None else cipher.authentic(data)


def write_slot(file: File, block: Superblock, cipher: Optional[Signer] = None) -> None:
    """Write a superblock into its slot, without a flush. ``cipher``: of an encrypted database."""
    file.pwrite(block.encode(cipher), SLOTS[block.slot])


# -- the holder of the lock ------------------------------------------------
def write_holder(file: File, pid: Optional[int]) -> None:
    """Say which process has the lock (None: nobody). For messages only."""
    text = b"" if pid is None else b"pid %d\n" % pid
    file.pwrite(text.ljust(_HOLDER_BYTES, b"\0"), _HOLDER_AT)


def read_holder(file: File) -> Optional[int]:
    """The process that says it has the lock; None where none does, or the text is not one of ours."""
    words = file.pread(_HOLDER_BYTES, _HOLDER_AT).rstrip(b"\0").split()
    if len(words) != 2 or words[0] != b"pid" or not words[1].isdigit() or len(words[1]) > 18:
        return None
    return int(words[1]) or None
