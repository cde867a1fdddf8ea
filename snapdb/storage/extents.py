"""Extents: write-once runs of pages that hold the pieces of an entry, a node or the root. Bytes: ``docs/format.md``."""

from __future__ import annotations

import errno
import os
import struct
import weakref
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..errors import CorruptionError, InternalError
from ..pieces import Ref
from .seals import TAG, BadTag
from .space import Space
from .superblock import CRC, MAX_OFFSET, PAGE, PREAMBLE
from .views import Windows, windows_of

if TYPE_CHECKING:
    from .layer import File
    from .seals import Cipher, Sealer

__all__ = [
    "DEAD", "ENTRY", "HEADER", "NODE", "ROOT", "SEALED", "SUMMED", "ExtentHeader", "Extents", "decode_header",
    "encode_header", "pages", "root_ref",
]  # fmt: skip

ENTRY, NODE, ROOT, DEAD = 1, 2, 3, 4  # kinds
SUMMED = 1  # flag of a header: the payload's CRC-32 stands in it
SEALED = 2  # flag of a header: the pieces are encrypted, with a key that its salt makes
HEADER = 128  # bytes of an extent's header; the first piece is behind it
ALIGN = 64  # of a piece

_FIELDS = struct.Struct("<4sBB2xQQQQI4xQ16s48xI")
_CRC_AT = 124
_CRC_FIELD = struct.Struct("<I")
_BATCH = 4 << 20  # bytes of one write
_STEP = 16 << 20  # most bytes that a file grows by ahead of need
_FULL = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)
)  # no space, or no permission for more of it
_PADS = [bytes(size) for size in range(ALIGN)]
_NO_SALT = bytes(16)
_NO_TAGS: Iterable[bytes] = repeat(b"")
#: extents whose keys are kept: few, for a key takes 3 KB of the heap among the slabs that are loaded with it, and
#: scans of slabs that do not lie side by side are a tenth slower (measured with 4,096)
_SEALERS = 4


class ExtentHeader(NamedTuple):
    """What an extent says of itself, for ``repair``; a reader trusts the parent only. ``uuid``: the low half.

    ``number``: the n-th extent written for its generation, which is its birth: no superblock of an earlier one reaches
    it. ``payload``: bytes behind the header. ``crc``: with the flag ``SUMMED`` the CRC-32 of its one piece, as it is
    stored. ``salt``: with the flag ``SEALED`` what makes the key of the pieces, fresh for every extent.
    """

    kind: int
    uuid: bytes
    number: int
    generation: int
    key: int
    pieces: int
    payload: int
    flags: int = 0
    crc: int = 0
    salt: bytes = _NO_SALT


def encode_header(header: ExtentHeader) -> bytes:
    """The 128 bytes."""
    low = int.from_bytes(header.uuid[:8], "little")
    body = _FIELDS.pack(
        b"SNEX", header.kind, header.flags, low, header.number, header.generation, header.key, header.pieces,
        header.payload, header.salt, header.crc,
    )  # fmt: skip
    return body + _CRC_FIELD.pack(CRC(body))


def decode_header(data: bytes) -> Optional[ExtentHeader]:
    """The header in these bytes, None where they do not verify."""
    if len(data) < HEADER or data[:4] != b"SNEX" or CRC(data[:_CRC_AT]) != _CRC_FIELD.unpack_from(data, _CRC_AT)[0]:
        return None
    return _parse_header(data)


def _parse_header(data: bytes) -> ExtentHeader:
    """The header in these bytes, whether they verify or not: where the pieces are sealed their tags tell."""
    _, kind, flags, low, number, generation, key, pieces, payload, salt, crc = _FIELDS.unpack_from(data)
    return ExtentHeader(kind, low.to_bytes(8, "little"), number, generation, key, pieces, payload, flags, crc, salt)


def pages(size: int) -> int:
    """``size`` bytes rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def root_ref(root_at: int, root_bytes: int, root_crc: int, tag: bytes = b"") -> Ref:
    """The reference to the root that a superblock names; ``tag``: in an encrypted file."""
    return Ref(root_at, pages(HEADER + root_bytes), HEADER, root_bytes, root_crc, tag)


def _sealed(
    sealer: Sealer, places: Sequence[int], views: Sequence[memoryview]
) -> tuple[list[memoryview], list[bytes]]:
    """What is stored of parts at these places of an extent, and their tags."""
    sealed = [sealer.seal(at, view) for at, view in zip(places, views)]
    return [memoryview(data) for data, _ in sealed], [tag for _, tag in sealed]


class _Ended(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to a window that knows its extent."""

    __slots__ = ("extent", "size", "space")
    extent: int
    size: int
    space: Space


#: windows of files whose handle was closed while views of it were alive, by the file's identity: whoever opens the
#: file again in this process must not reuse their extents
_outliving: dict[tuple[int, int], list[_Ended]] = {}


def _ended(ended: Any) -> None:
    # called wherever the last view goes, from any thread or in the middle of a collection: it only appends to a deque
    ended.space.unlease(ended.extent)


def _inherit(file: File) -> list[_Ended]:
    """The windows of earlier handles on this file that are still looked through."""
    identity = file.identity() if _outliving else None
    found = [] if identity is None else _outliving.pop(identity, [])
    return [ended for ended in found if ended() is not None]


def _hold(space: Space, ended: _Ended) -> None:
    """Keep the extent of a view of an earlier handle from being used, whether anything still reaches it or not."""
    space.lease(ended.extent)
    ended.space = space
    if ended() is None:  # it went meanwhile, and told the space before
        space.unlease(ended.extent)
        return
    try:
        space.reserve(ended.extent, ended.size)
    except CorruptionError:
        return  # the tree reaches it: it is in use
    space.release(ended.extent, ended.size)  # held until the view goes


class Extents:
    """The extents of one open file: writes new ones, reads the pieces of those that are there.

    ``space`` says where there is room (replace it once what is reachable is known), ``length`` is the file's length in
    whole pages, ``path`` names the file in errors. ``mapped=False`` reads with ``pread``, and so does a platform
    that has no maps. ``cipher``: of an encrypted database; what is read is then a copy, and its tag was verified.
    ``inherits``: it keeps the extents from being used that views of earlier handles show.
    """

    def __init__(
        self,
        file: File,
        space: Space,
        uuid: bytes,
        mapped: bool = True,
        cipher: Optional[Cipher] = None,
        inherits: bool = True,
    ) -> None:
        self.file = file
        self.cipher = cipher
        self.sealed = cipher is not None
        self.path = file.path
        self.uuid = uuid
        self.length = file.size() // PAGE * PAGE
        self._space = space
        self._low = uuid[:8]
        self._mapped = mapped and cipher is None
        self._sealers: dict[int, Sealer] = {}  # by extent, of some that were read
        self._tag = 0 if cipher is None else TAG
        self._map: Optional[memoryview] = None
        self._windows_of: Optional[Windows] = None
        self._windows: dict[int, _Ended] = {}  # of the extents with live views, and of some whose views ended
        self._verified: dict[int, set[tuple[int, int, int]]] = {}  # extent -> (at, length, crc) of pieces that verified
        self._generation = -1
        self._number = 0
        self._births: dict[int, int] = {}  # extent -> the generation that this handle wrote it for
        self._inherited = _inherit(file) if inherits else []

    @property
    def space(self) -> Space:
        """Where there is room. Setting another one forgets no lease: live views are leased from it too."""
        return self._space

    @space.setter
    def space(self, space: Space) -> None:
        with self._space._lock, space._lock:
            for ended in [*self._windows.values(), *self._inherited]:
                if ended() is not None:
                    _hold(space, ended)
            self._space = space

    # -- writing ---------------------------------------------------------------
    def write(self, kind: int, key: int, parts: Sequence[Any], generation: int, ahead: bool = True) -> list[Ref]:
        """Write one new extent, without a flush; references to its parts (bytes-like), in order. ``ahead``: a file that
        must grow for it grows by more than that.

        Where the file system refuses, the space is free again and the OSError passes on.
        """
        places, views, place = [], [], HEADER
        for part in parts:
            view = memoryview(part)
            place = (place + ALIGN - 1) // ALIGN * ALIGN
            places.append(place)
            views.append(view)
            place += view.nbytes
        size = pages(place)
        if generation != self._generation:
            self._generation, self._number = generation, 0
        flags, crc, salt, tags = 0, 0, _NO_SALT, _NO_TAGS
        if self.cipher is not None:
            flags, salt = SEALED, os.urandom(len(_NO_SALT))
            unsealed = ExtentHeader(kind, self._low, self._number, generation, key, len(views), 0)
            views, tags = _sealed(self.cipher.extent(salt, unsealed), places, views)
        sums = [CRC(view) for view in views]
        if kind != ENTRY:
            flags, crc = flags | SUMMED, sums[0]
        header = ExtentHeader(
            kind, self._low, self._number, generation, key, len(views), place - HEADER, flags, crc, salt
        )
        offset = self._space.allocate(size)
        try:
            self._grow(offset + size, ahead)
            self._forget(offset)
            self._births[offset] = generation
            self._put(offset, size, encode_header(header), places, views)
        except BaseException:
            self._space.release(offset, size)
            raise
        self._number += 1
        return [
            Ref(offset, size, at, view.nbytes, crc, tag) for at, view, crc, tag in zip(places, views, sums, tags)
        ]

    def doubt(self) -> None:
        """Have everything verified anew when it is read next."""
        self._verified.clear()

    def make_room(self, end: int) -> None:
        """Have the file reach that far. OSError."""
        self._grow(end, True)

    def birth(self, offset: int) -> int:
        """The generation that the extent at this place was written for: no superblock of an earlier one reaches it. 0
        where its header does not verify. OSError.
        """
        known = self._births.get(offset)
        if known is None:
            header = decode_header(self.file.pread(HEADER, offset))
            known = 0 if header is None or header.uuid != self._low else header.generation
            self._births[offset] = known
        return known

    def release(self, extents: Iterable[tuple[int, int]]) -> None:
        """Give back extents (offset, size) that were written and that nothing on disk reaches."""
        for offset, size in extents:
            self._space.release(offset, size)

    def idle(self) -> bool:
        """Whether no view of a map is alive; the map is given up where that is so, and made anew by the next read."""
        if self._space.leased:
            return False
        self._map = self._windows_of = None
        self._windows.clear()
        return True

    @property
    def viewed(self) -> list[Any]:
        """What live views of the map are made from, one for each extent: it goes with the last of its views."""
        windows = [ended() for ended in list(self._windows.values())]
        return [window for window in windows if window is not None]

    def close(self) -> None:
        """Give the map up. Views of it live on; their extents are kept from whoever opens the file next."""
        alive = [ended for ended in [*self._windows.values(), *self._inherited] if ended() is not None]
        self._map = self._windows_of = None
        self._windows, self._inherited = {}, []
        identity = self.file.identity() if alive else None
        if identity is not None:
            _outliving.setdefault(identity, []).extend(alive)  # readers of one file may close one after the other

    def shorten(self, length: int) -> None:
        """Cut the file to whole pages that hold everything below the high-water mark; ``idle`` must have said so."""
        if length % PAGE or length < self._space.high_water or self._map is not None:
            raise InternalError(f"{self.path} cannot be cut to {length} bytes")
        self.file.truncate(length)
        self.length = length

    def _grow(self, end: int, further: bool) -> None:
        if end <= self.length:
            return
        ahead = min(self.length // 64, _STEP) // PAGE * PAGE if further else 0
        try:
            self.file.allocate(self.length, end + ahead - self.length)
        except OSError as error:
            if not ahead or error.errno not in _FULL:
                raise
            ahead = 0  # what is needed may still be there
            self.file.allocate(self.length, end - self.length)
        self.length = end + ahead

    def _put(self, offset: int, size: int, header: bytes, places: list[int], views: list[memoryview]) -> None:
        parts: list[Any] = [header]
        place = HEADER
        for at, view in zip(places, views):
            parts += (_PADS[at - place], view)
            place = at + view.nbytes
        parts.append(bytes(size - place))
        if size <= _BATCH:
            self.file.pwrite(b"".join(parts), offset)
            return
        batch: list[Any] = []
        held = 0
        for part in parts:
            rest = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while held + len(rest) >= _BATCH:
                cut = _BATCH - held
                self.file.pwrite(b"".join([*batch, rest[:cut]]), offset)
                offset, held, batch, rest = offset + _BATCH, 0, [], rest[cut:]
            batch.append(rest)
            held += len(rest)
        if held:
            self.file.pwrite(b"".join(batch), offset)

    def _forget(self, offset: int) -> None:
        """Nothing is known any more of what was at this place."""
        self._verified.pop(offset, None)
        self._windows.pop(offset, None)
        self._sealers.pop(offset, None)

    # -- reading ---------------------------------------------------------------
    def check(self, ref: Ref) -> None:
        """CorruptionError where a reference leads out of the file or of its extent."""
        extent, size, at, length, _, tag = ref
        if (
            extent < PREAMBLE or (extent | size) % PAGE or extent + size > min(self._space.high_water, self.length)
            or at < HEADER or at % ALIGN or at + length > size
        ):  # fmt: skip
            raise self._damaged(ref, f"a reference to {length} bytes at {at} of an extent of {size} is out of bounds")
        if len(tag) != self._tag:
            raise self._damaged(ref, "a reference has a tag, or none, as in another kind of database")

    def read(self, ref: Ref, verify: bool = True) -> memoryview:
        """The bytes of a piece, read-only. CorruptionError where they do not verify.

        A view of the map where there is one: it stays valid and unchanged as long as it, or any view made from it, is
        held, for the extent is not reused until then. Mapped pieces are verified once, others each time they are read.
        """
        window = self._window(ref)
        if window is None:
            return memoryview(self._pread(ref, verify))
        view = memoryview(window).cast("B").toreadonly()[ref.at : ref.at + ref.length]
        if verify:
            self._verify_mapped(ref, view)
        return view

    def load(self, ref: Ref) -> bytes:
        """A copy of the bytes of a piece, verified."""
        self.check(ref)
        mapped = self._mapping(ref)
        if mapped is None:
            return self._pread(ref, True)
        start = ref.extent + ref.at
        data = bytes(mapped[start : start + ref.length])
        self._verify_mapped(ref, data)
        return data

    def _damaged(self, ref: Ref, what: str) -> CorruptionError:
        return CorruptionError(f"{self.path}: {what}", path=self.path, offset=min(ref.extent + ref.at, MAX_OFFSET))

    def _verify(self, ref: Ref, data: Any) -> None:
        if CRC(data) != ref.crc:
            raise self._damaged(ref, f"{ref.length} bytes at {ref.extent + ref.at} do not verify")

    def _verify_mapped(self, ref: Ref, data: Any) -> None:
        piece = (ref.at, ref.length, ref.crc)
        known = self._verified.get(ref.extent)
        if known is None or piece not in known:
            self._verify(ref, data)
            self._verified.setdefault(ref.extent, set()).add(piece)

    def _pread(self, ref: Ref, verify: bool) -> bytes:
        self.check(ref)
        if self.cipher is not None:
            return self._unseal(self.cipher, ref)
        data = self.file.pread(ref.length, ref.extent + ref.at)
        self._whole(ref, data)
        if verify:
            self._verify(ref, data)
        return data

    def _whole(self, ref: Ref, data: Any) -> None:
        if len(data) != ref.length:
            raise self._damaged(ref, f"the file ends within the {ref.length} bytes at {ref.extent + ref.at}")

    def _unseal(self, cipher: Cipher, ref: Ref) -> bytes:
        """What a sealed piece says."""
        sealer = self._sealers.get(ref.extent)
        if sealer is not None:
            data = self.file.pread(ref.length, ref.extent + ref.at)
            try:
                return sealer.open(ref.at, data, ref.tag)
            except BadTag:
                pass  # the extent may be another one since: somebody else may write the file that this is a reader of
        near = ref.at == HEADER
        first = self.file.pread(HEADER + ref.length if near else HEADER, ref.extent)
        stored: Any = memoryview(first)[HEADER:] if near else self.file.pread(ref.length, ref.extent + ref.at)
        self._whole(ref, stored)
        header = _parse_header(first)
        sealer = cipher.extent(header.salt, header)
        try:
            found = sealer.open(ref.at, stored, ref.tag)
        except BadTag:
            self._verify(ref, stored)  # the tag says all that the checksum could, but not what happened
            what = f"the header of the extent at {ref.extent} does not verify"
            if decode_header(first) is not None:
                what = f"the piece of {ref.length} bytes at {ref.extent + ref.at} was changed"
            raise self._damaged(ref, what) from None
        if len(self._sealers) >= _SEALERS:
            self._sealers.clear()
        self._sealers[ref.extent] = sealer
        return found

    def _window(self, ref: Ref) -> Any:
        """The exporter of the extent, leased; None where there is no map."""
        self.check(ref)
        space = self._space
        with space._lock:
            ended = self._windows.get(ref.extent)
            window = None if ended is None or ended.size != ref.size else ended()
            if window is None:
                if self._mapping(ref) is None or self._windows_of is None:
                    return None
                window = self._windows_of(ref.extent, ref.size)
                ended = _Ended(window, _ended)
                ended.extent, ended.size, ended.space = ref.extent, ref.size, space
                space.lease(ref.extent)
                self._windows[ref.extent] = ended
            return window

    def _mapping(self, ref: Ref) -> Optional[memoryview]:
        """A map that covers the extent; None where there are no maps. An older map lives on in its views."""
        if self._map is not None and len(self._map) >= ref.extent + ref.size:
            return self._map
        if not self._mapped:
            return None
        try:
            mapped = self.file.map(self.length)
            self._windows_of = None if mapped is None else windows_of(mapped)
        except (OSError, ImportError):
            mapped = None  # out of address space or of maps: reading goes on without
        self._map = mapped
        self._mapped = mapped is not None
        return mapped
