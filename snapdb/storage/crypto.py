"""Encryption: keys and key slots, and what seals pieces, frames and superblocks. Bytes: ``docs/format.md``.

AES-256-GCM comes from the ``cryptography`` package. Nothing but this module imports it, and this one only where there
is a key: a plain database never asks for it. Derivations are HKDF and scrypt, as the RFCs 5869 and 7914 say.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Any, NamedTuple, NoReturn, Optional, Union

from ..errors import NotSupportedError, StorageError, ValidationError, ValueTypeError, WrongKeyError
from .seals import OVERHEAD, TAG, BadTag, Identity
from .superblock import AES_GCM, RAW, SCRYPT_KEY, SLOT_BYTES, StaticHeader

__all__ = [
    "OVERHEAD", "SALT", "SCRYPT", "TAG", "BadTag", "Cipher", "FrameCipher", "Key", "Keys", "Sealer", "create", "fresh",
    "new_keys", "open_static",
]  # fmt: skip

SCRYPT = (17, 8, 1)  # log2 N, r and p of a new database: 128 MiB and some tenths of a second
SALT = 16  # bytes of a salt
LARGEST = (1 << 31) - 1  # bytes of a piece that the cipher takes
_LARGE = 128 << 10  # bytes of a piece that is not copied to be opened

_KEY = 32
_NONCE = 12
_SLOTS = 4
_MOST_LOG_N, _MOST_R, _MOST_P, _MOST_MEMORY = 20, 32, 16, 1 << 30
_HINT = "pip install cryptography (the extra snapdb[encryption] does)"

_SLOT_AAD = struct.Struct("<4sBBBx16s16s16s")
_EXTENT_AAD = struct.Struct("<4sB3x16sQQQI4x")
_PLACE = struct.Struct("<QQ")  # of a piece, behind the former
_PIECE_NONCE = struct.Struct("<Q4x")
_FRAME_AAD = struct.Struct("<4sBB2x16sQQI4x")

Key = Union[str, bytes, bytearray, memoryview]


def fresh(size: int) -> bytes:
    """Random bytes for a key, a salt or a nonce."""
    return os.urandom(size)


# -- what is given -----------------------------------------------------------
def _secret(key: Any) -> tuple[bytes, int]:
    """The bytes of a key and how a key is derived from them: a raw key is 32 bytes, all else is a passphrase."""
    if isinstance(key, str):
        secret, derivation = key.encode("utf-8", "replace"), SCRYPT_KEY
        if secret.decode("utf-8") != key:  # an error of encode would have the key in it
            raise ValidationError("encryption_key= has half of a surrogate pair, which is no character")
    elif isinstance(key, (bytes, bytearray, memoryview)):
        secret = bytes(key)
        derivation = RAW if len(secret) == _KEY else SCRYPT_KEY
    else:
        raise ValueTypeError(f"encryption_key= must be a str or bytes, not {type(key).__name__}")
    if not secret:
        raise ValidationError("encryption_key= must not be empty; None is no key")
    return secret, derivation


def possible(key: Any) -> Any:
    """A key, as it was given. ValidationError where it can be none, ImportError without the package."""
    _secret(key)
    _aead()
    return key


def _aead() -> Any:
    """The class that encrypts."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ImportError(f"encryption_key= needs the 'cryptography' package: {_HINT}") from error
    return AESGCM


# -- derivations -------------------------------------------------------------
def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256, 32 bytes."""
    return expand(hmac.digest(salt, secret, "sha256"), info)


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand-SHA-256 of one block, 32 bytes."""
    return hmac.digest(key, info + b"\1", "sha256")


def scrypt(secret: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    """32 bytes. NotSupportedError where there is no scrypt, or less memory than it needs."""
    size = 128 * r * ((1 << log_n) + p + 2)
    derive = getattr(hashlib, "scrypt", None)
    try:
        if derive is not None:
            found: bytes = derive(secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=size + (1 << 20), dklen=_KEY)
            return found
        return _scrypt_of_the_package(secret, salt, log_n, r, p)
    except (MemoryError, ValueError) as error:
        raise _no_scrypt(f"{size >> 20} MiB of memory for scrypt") from error


def _scrypt_of_the_package(secret: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    """A Python whose ssl library has no scrypt leaves it out of hashlib."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise _no_scrypt("scrypt") from error
    try:
        found: bytes = Scrypt(salt=salt, length=_KEY, n=1 << log_n, r=r, p=p).derive(secret)
    except UnsupportedAlgorithm as error:
        raise _no_scrypt("scrypt") from error
    return found


def _no_scrypt(what: str) -> NotSupportedError:
    return NotSupportedError(
        f"a passphrase needs {what}, which is not to be had here", hint="a raw key of 32 bytes does without"
    )


class Keys(NamedTuple):
    """The key that wraps a data key, and how it came from the one that was given: what a copy of a database needs."""

    kek: bytes
    derivation: int
    scrypt: bytes
    salt: bytes

    def __repr__(self) -> str:
        return f"Keys(derivation={self.derivation})"  # a traceback or a log is no place for a key


def new_keys(key: Key) -> Keys:
    """Keys of a new database, with a fresh salt; as slow as scrypt is.

    ValidationError where it can be no key, ImportError without the package, NotSupportedError without scrypt.
    """
    secret, derivation = _secret(key)
    _aead()
    cost = bytes(SCRYPT).ljust(16, b"\0") if derivation == SCRYPT_KEY else bytes(16)
    return _derived(secret, derivation, cost, fresh(SALT))


def _derived(secret: bytes, derivation: int, cost: bytes, salt: bytes) -> Keys:
    if derivation == RAW:
        return Keys(hkdf(secret, salt, b"snapdb 1 raw key"), derivation, cost, salt)
    log_n, r, p = cost[:3]
    usual = 1 <= log_n <= _MOST_LOG_N and 1 <= r <= _MOST_R and 1 <= p <= _MOST_P
    if not usual or 128 * r << log_n > _MOST_MEMORY:
        # before anything is derived: a file must not make its reader take all memory
        raise NotSupportedError(f"scrypt with N = 2^{log_n}, r = {r}, p = {p} is out of the bounds of this version")
    return Keys(scrypt(secret, salt, log_n, r, p), derivation, cost, salt)


def same(keys: Keys, key: Key) -> bool:
    """Whether these keys were made of this one; as slow as making them. ValidationError where it can be none."""
    secret, derivation = _secret(key)
    if derivation != keys.derivation:
        return False
    return hmac.compare_digest(_derived(secret, derivation, keys.scrypt, keys.salt).kek, keys.kek)


# -- key slots ---------------------------------------------------------------
def _wrap(static: StaticHeader, slot: int, keys: Keys, data_key: bytes, aead: Any) -> bytes:
    """The bytes of a key slot."""
    nonce = fresh(_NONCE)
    sealed: bytes = aead(keys.kek).encrypt(nonce, data_key, _slot_aad(static, slot))
    return (nonce + sealed).ljust(SLOT_BYTES, b"\0")


def _unwrap(static: StaticHeader, keys: Keys, aead: Any) -> Optional[bytes]:
    """The data key from the first slot that these keys open."""
    from cryptography.exceptions import InvalidTag

    cipher = aead(keys.kek)
    end = _NONCE + _KEY + TAG
    for slot in range(_SLOTS):
        data = static.keys[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]
        if not any(data) or any(data[end:]):
            continue
        try:
            found: bytes = cipher.decrypt(data[:_NONCE], data[_NONCE:end], _slot_aad(static, slot))
        except InvalidTag:
            continue
        return found
    return None


def _slot_aad(static: StaticHeader, slot: int) -> bytes:
    return _SLOT_AAD.pack(b"SNKS", slot, static.cipher, static.derivation, static.uuid, static.scrypt, static.salt)


def create(static: StaticHeader, keys: Keys) -> Cipher:
    """A cipher with a data key of its own for a new database; its ``static`` is the header to be written."""
    return _wrapped(static._replace(cipher=AES_GCM), keys, fresh(_KEY))


def _wrapped(static: StaticHeader, keys: Keys, data_key: bytes) -> Cipher:
    aead = _aead()
    static = static._replace(derivation=keys.derivation, scrypt=keys.scrypt, salt=keys.salt)
    slots = _wrap(static, 0, keys, data_key, aead).ljust(_SLOTS * SLOT_BYTES, b"\0")
    return Cipher(static._replace(keys=slots), keys, data_key, aead)


def open_static(static: StaticHeader, key: Union[Key, Keys, None], path: str = "the database") -> Optional[Cipher]:
    """What opens this database, None for a plain one. ``path`` names it in messages. Keys that were derived before open
    the database that was made with them, without another derivation.

    WrongKeyError where the key opens no slot, is missing, or is given for a plain database; ValidationError where it
    can be no key; ImportError without the package; NotSupportedError where this version or Python cannot derive it.
    """
    if key is None:
        if static.cipher:
            raise WrongKeyError(f"{path} is encrypted", hint="give encryption_key=")
        return None
    secret, derivation = (b"", key.derivation) if isinstance(key, Keys) else _secret(key)
    if not static.cipher:
        raise WrongKeyError(f"{path} is not encrypted", hint="open it without encryption_key=")
    aead = _aead()
    if derivation != static.derivation:
        kind = "a raw key, which is 32 bytes" if static.derivation == RAW else "a passphrase, which is a str"
        _wrong(path, f"it was made with {kind}")
    if isinstance(key, Keys):
        keys = key  # of another salt they open no slot
    else:
        keys = _derived(secret, derivation, static.scrypt, static.salt)
    data_key = _unwrap(static, keys, aead)
    if data_key is None:
        _wrong(path, None)
    return Cipher(static, keys, data_key, aead)


def _wrong(path: str, hint: Optional[str]) -> NoReturn:
    raise WrongKeyError(f"the encryption key does not open {path}", hint=hint)


# -- sealing -----------------------------------------------------------------
class Cipher:
    """The data key of an open database and what is derived from it.

    ``static``: the header that holds it wrapped; ``keys``: what wraps it.
    """

    def __init__(self, static: StaticHeader, keys: Keys, data_key: bytes, aead: Any) -> None:
        self.static = static
        self.uuid = static.uuid
        self.keys = keys
        self._data_key = data_key
        self._aead = aead
        self._extent, self._log, self._superblock = [
            expand(data_key, b"snapdb 1 " + what + self.uuid) for what in (b"extent", b"log", b"superblock")
        ]

    def rewrapped(self, key: Union[Key, Keys]) -> Cipher:
        """The same data key under another key: ``static`` of the result is the header to be written in this one's place
        (a fresh salt, one slot, the next sequence). Errors: those of ``new_keys``.
        """
        static = self.static._replace(sequence=self.static.sequence + 1)
        return _wrapped(static, key if isinstance(key, Keys) else new_keys(key), self._data_key)

    def extent(self, salt: bytes, header: Identity) -> Sealer:
        """What seals and opens the pieces of one extent; ``salt``: fresh for every extent, and kept in its header."""
        fixed = _EXTENT_AAD.pack(
            b"SNEX", header.kind, self.uuid, header.number, header.generation, header.key, header.pieces
        )
        key = expand(self._extent, b"extent" + salt)
        return Sealer(self._aead(key), fixed, key)

    def epoch(self, salt: bytes, epoch: int) -> FrameCipher:
        """What seals and opens the frames of one epoch of the log."""
        key = expand(self._log, b"epoch" + salt + epoch.to_bytes(8, "little"))
        return FrameCipher(self._aead(key), self.uuid, epoch)

    def mac(self, block: bytes) -> bytes:
        """The 16 bytes that belong into a superblock of these 512; those, and the checksum, do not count."""
        return hmac.digest(self._superblock, block[:128] + block[144:508], "sha256")[:TAG]

    def authentic(self, block: bytes) -> bool:
        """Whether somebody who has the key wrote this superblock."""
        return hmac.compare_digest(self.mac(block), block[128:144])


class Sealer:
    """The pieces of one extent. Each place is sealed once, for its nonce is the place."""

    def __init__(self, aes: Any, fixed: bytes, key: bytes) -> None:
        self._aes = aes
        self._fixed = fixed
        self._key = key

    def seal(self, at: int, data: Any) -> tuple[bytes, bytes]:
        """The bytes to store for a piece (bytes-like) at this place of the extent, as many as it has, and their tag.

        StorageError where it is larger than the cipher takes.
        """
        view = memoryview(data)
        size = view.nbytes
        if size > LARGEST:
            raise StorageError(f"a piece of {size} bytes cannot be encrypted, {LARGEST} is the most")
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B") if size else memoryview(b"")
        sealed: bytes = self._aes.encrypt(_PIECE_NONCE.pack(at), view, self._fixed + _PLACE.pack(at, size))
        return sealed[:size], sealed[size:]

    def open(self, at: int, data: Any, tag: bytes) -> bytes:
        """The piece whose stored bytes and tag these are. BadTag."""
        size = memoryview(data).nbytes
        if size > LARGEST or len(tag) != TAG:
            raise BadTag
        nonce, aad = _PIECE_NONCE.pack(at), self._fixed + _PLACE.pack(at, size)
        if size >= _LARGE:
            return _open_large(self._key, nonce, data, tag, aad)
        return _open(self._aes, nonce, b"".join((data, tag)), aad)


class FrameCipher:
    """The payloads of the frames of one epoch.

    Nonces are random: an LSN may be given out twice, where a rollback takes frames back.
    """

    def __init__(self, aes: Any, uuid: bytes, epoch: int) -> None:
        self._aes = aes
        self._uuid = uuid
        self._epoch = epoch

    def seal(self, kind: int, flags: int, lsn: int, before: int, payload: Any) -> bytes:
        """The payload to store, ``OVERHEAD`` bytes longer. ``before``: the CRC field of the frame before."""
        nonce = fresh(_NONCE)
        sealed: bytes = self._aes.encrypt(nonce, payload, self._aad(kind, flags, lsn, before))
        return nonce + sealed

    def open(self, kind: int, flags: int, lsn: int, before: int, payload: Any) -> bytes:
        """The payload of which this is stored. BadTag."""
        data = bytes(payload)
        if len(data) < OVERHEAD:
            raise BadTag
        return _open(self._aes, data[:_NONCE], data[_NONCE:], self._aad(kind, flags, lsn, before))

    def _aad(self, kind: int, flags: int, lsn: int, before: int) -> bytes:
        return _FRAME_AAD.pack(b"SNWL", kind, flags, self._uuid, self._epoch, lsn, before)


def _open_large(key: bytes, nonce: bytes, data: Any, tag: bytes, aad: bytes) -> bytes:
    """As ``_open``, without a copy of so many bytes, which takes longer than decrypting them."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher as Mode
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import GCM

    decryptor = Mode(AES(key), GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    found = decryptor.update(data)
    try:
        decryptor.finalize()
    except InvalidTag:
        raise BadTag from None
    return found


def _open(aes: Any, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        found: bytes = aes.decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise BadTag from None
    return found
