"""Keys, key slots and seals: the vectors of the RFCs; the layout of docs/format.md made again without the module."""

from __future__ import annotations

import builtins
import functools
import hashlib
import mmap
import random
import struct
import subprocess
import sys
import traceback
import zlib
from array import array
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapdb.errors import NotSupportedError, StorageError, ValidationError, ValueTypeError, WrongKeyError
from snapdb.storage import crypto
from snapdb.storage import superblock as sb
from snapdb.storage.crypto import BadTag, Cipher, create, new_keys, open_static
from snapdb.storage.extents import ENTRY, NODE, ExtentHeader
from snapdb.storage.superblock import StaticHeader, Superblock
from snapdb.testing.layers import RecordingLayer

pytest.importorskip("cryptography", reason="the extra 'encryption' is not installed")

from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

pytestmark = pytest.mark.smoke

UUID = bytes(range(16))
STATIC = StaticHeader(UUID)
RAW = b"raw key of thirty-two bytes 0123"
SALT = b"s" * 16
HEADER = ExtentHeader(ENTRY, UUID[:8], 3, 41, 1 << 63, 2, 5000)
BLOCK = Superblock(1, True, UUID, 41, 0x5000, 999, 7, 12345, 6, SALT, 8, 0x9000, 0xB000, 1 << 50, b"tag of the root!")


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "SCRYPT", (4, 8, 1))


def made(key: Any = RAW, static: StaticHeader = STATIC) -> Cipher:
    return create(static, new_keys(key))


def opened(static: StaticHeader, key: Any = RAW) -> Cipher:
    cipher = open_static(static, key, "/x")
    assert cipher is not None
    return cipher


def equal(a: Cipher, b: Cipher) -> bool:
    """Whether they open the same: what is derived from the data key is in each of these."""
    sealed = a.extent(SALT, HEADER).seal(128, b"piece")
    frame = a.epoch(SALT, 1).seal(1, 0, 1, 0, b"frame")
    try:
        return (
            b.extent(SALT, HEADER).open(128, *sealed) == b"piece"
            and b.epoch(SALT, 1).open(1, 0, 1, 0, frame) == b"frame"
            and a.mac(bytes(512)) == b.mac(bytes(512))
        )
    except BadTag:
        return False


# -- the layout again, with other parts of the package -----------------------
def gcm(key: bytes, nonce: bytes, aad: bytes, data: bytes) -> bytes:
    """Ciphertext and tag."""
    encryptor = Primitive(AES(key), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(aad)
    return encryptor.update(data) + encryptor.finalize() + encryptor.tag


def ungcm(key: bytes, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
    decryptor = Primitive(AES(key), GCM(nonce, sealed[-16:])).decryptor()
    decryptor.authenticate_additional_data(aad)
    return decryptor.update(sealed[:-16]) + decryptor.finalize()


def expanded(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(key)


class Layout:
    """A database's keys from its static header's 4,096 bytes and the key that was given."""

    def __init__(self, page: bytes, key: Any) -> None:
        self.uuid, cost, salt = page[16:32], page[48:64], page[64:80]
        assert page[45] == 1
        if page[46] == 1:
            given = key.encode() if isinstance(key, str) else key
            assert not any(cost[3:])
            kek = hashlib.scrypt(given, salt=salt, n=2 ** cost[0], r=cost[1], p=cost[2], dklen=32, maxmem=1 << 28)
        else:
            assert page[46] == 2 and len(key) == 32 and not any(cost)
            kek = HKDF(SHA256(), 32, salt, b"snapdb 1 raw key").derive(key)
        slot = page[88:152]
        assert not any(slot[60:]) and not any(page[152:344])
        aad = b"SNKS" + bytes([0, 1, page[46], 0]) + self.uuid + cost + salt
        assert len(aad) == 56
        self.data_key = ungcm(kek, slot[:12], aad, slot[12:60])

    def piece(self, salt: bytes, header: ExtentHeader, at: int, data: bytes) -> tuple[bytes, bytes]:
        key = expanded(expanded(self.data_key, b"snapdb 1 extent" + self.uuid), b"extent" + salt)
        aad = b"SNEX" + bytes([header.kind, 0, 0, 0]) + self.uuid
        aad += struct.pack("<QQQ", header.number, header.generation, header.key)
        aad += struct.pack("<IIQQ", header.pieces, 0, at, len(data))
        sealed = gcm(key, struct.pack("<QI", at, 0), aad, data)
        return sealed[:-16], sealed[-16:]

    def frame(self, salt: bytes, epoch: int, kind: int, flags: int, lsn: int, before: int, payload: bytes) -> bytes:
        """What a stored payload says."""
        key = expanded(
            expanded(self.data_key, b"snapdb 1 log" + self.uuid), b"epoch" + salt + struct.pack("<Q", epoch)
        )
        aad = b"SNWL" + bytes([kind, flags, 0, 0]) + self.uuid + struct.pack("<QQII", epoch, lsn, before, 0)
        return ungcm(key, payload[:12], aad, payload[12:])

    def mac(self, block: bytes) -> bytes:
        sign = HMAC(expanded(self.data_key, b"snapdb 1 superblock" + self.uuid), SHA256())
        sign.update(block[:128] + block[144:508])
        return sign.finalize()[:16]


@functools.cache
def twin() -> tuple[Cipher, Layout]:
    """A database, and the second implementation of it."""
    cipher = made()
    return cipher, Layout(cipher.static.encode(), RAW)


# -- vectors -----------------------------------------------------------------
HKDF_VECTORS = {  # RFC 5869, appendix A, 1 to 3: secret, salt, info, output (at least 32 bytes of it)
    "1": ("0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
          "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"),
    "2": (bytes(range(0x50)).hex(), bytes(range(0x60, 0xB0)).hex(), bytes(range(0xB0, 0x100)).hex(),
          "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"),
    "3": ("0b" * 22, "", "",
          "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"),
}  # fmt: skip
KNOWN = {  # bytes 44 ... 151 of the header, a piece and its tag, a frame's payload, a MAC
    "raw": (
        ("0101020000000000000000000000000000000000ea03ca1bf3bb2bfbe07a9ae93bfbae710000000000000000e863d37861f3e068"
        "218200cfea58bd46d5ae41c06cad44b40bbc8fee22e4392a7825fa3fb21bbd551ac210173174e5248d386ac5bc78d5be23a4f304"
        "00000000"),
        "e4e5528a65e603d29d6b037ec428d19d545f9e4ca6da883c57de",
        "9f0276571af0e479032236d55e319bced369174d4b3482d3fceaeec8f7fce19583d339",
        "0cbdcadbb983dcd1a17db2013e7eb2f7",
    ),
    "passphrase": (
        ("010101000408010000000000000000000000000077d625f180ef8eedb2dd3e1760b14171000000000000000067984ba87d779fbd"
        "3c736e8810128450eb3dbb9161d9812156b3ed9e8dbaab57ffd3a8bc98ee70d41ea90eb0e84a6c19a766357ea4564076685acfce"
        "00000000"),
        "f9b892c94233ffe2ccc7d6c635d48f48dfced60a51460025e867",
        "66fc85ec01ccd3c46919ca7d1becc5169139bf130df2e6d7aac3e96fa4d798e2b45f51",
        "784812c0cfaf3eb19c3ed1a4b9f3a518",
    ),
}  # fmt: skip
HKDF_KEYS = {  # the pseudorandom keys of the same
    "1": "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
    "2": "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
    "3": "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
}
SCRYPT_VECTORS = [  # RFC 7914, 12: secret, salt, log2 N, r, p, the first half of the output
    (b"", b"", 4, 1, 1, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"),
    (b"password", b"NaCl", 10, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"),
    (b"pleaseletmein", b"SodiumChloride", 14, 8, 1, "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"),
]


@pytest.mark.parametrize("name", HKDF_VECTORS)
def test_hkdf(name: str) -> None:
    secret, salt, info, output = map(bytes.fromhex, HKDF_VECTORS[name])
    assert crypto.hkdf(secret, salt, info) == output[:32]
    assert crypto.expand(bytes.fromhex(HKDF_KEYS[name]), info) == output[:32]


@pytest.mark.parametrize("package", [False, True], ids=["hashlib", "cryptography"])
@pytest.mark.parametrize("vector", SCRYPT_VECTORS, ids=lambda vector: vector[1].decode() or "empty")
def test_scrypt(vector: Any, package: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if package:
        monkeypatch.delattr(hashlib, "scrypt")
    elif not hasattr(hashlib, "scrypt"):
        pytest.skip("this Python has no scrypt of its own")
    *given, output = vector
    assert crypto.scrypt(*given) == bytes.fromhex(output)


def test_the_cost_of_a_new_database() -> None:
    """What the seam for tests replaces."""
    code = "from snapdb.storage import crypto, superblock; print(crypto.SCRYPT)"
    root = str(Path(crypto.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(17, 8, 1)"


@pytest.mark.parametrize("key", ["raw", "passphrase"])
def test_known_bytes(key: str) -> None:
    """What was written once opens for ever."""
    fields, piece, frame, mac = map(bytes.fromhex, KNOWN[key])
    page = STATIC.encode()[:44] + fields + bytes(4028 - 44 - len(fields))
    page = (page + struct.pack("<I", zlib.crc32(page))).ljust(4096, b"\0")
    cipher = opened(StaticHeader.decode(page, sealed=True), bytes(range(32, 64)) if key == "raw" else "pässword")
    assert cipher.extent(SALT, HEADER).open(192, piece[:-16], piece[-16:]) == b"some bytes"
    assert cipher.epoch(SALT, 9).open(4, 3, 77, 0xCAFEF00D, frame) == b"a frame"
    assert BLOCK.encode(cipher)[128:144] == mac


def shown(value: Any) -> str:
    """The same in every process that collects the tests."""
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


# -- keys --------------------------------------------------------------------
KEYS = [
    RAW, bytearray(RAW), memoryview(RAW), "passphrase", "pässe\u4e2d\U0001f600", "x" * 32, b"bytes", b"y" * 31,
    b"z" * 33,
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=shown)
def test_the_layout_of_a_header(key: Any) -> None:
    cipher = made(key)
    static = cipher.static
    raw = not isinstance(key, str) and len(key) == 32
    assert (static.cipher, static.derivation, static.sequence) == (1, 2 if raw else 1, 0)
    assert static.scrypt == (bytes(16) if raw else bytes([4, 8, 1]) + bytes(13))
    page = static.encode()
    layout = Layout(page, bytes(key) if not isinstance(key, str) else key)
    assert cipher.extent(SALT, HEADER).seal(192, b"data") == layout.piece(SALT, HEADER, 192, b"data")
    again = opened(StaticHeader.decode(page, sealed=True), key)
    assert equal(cipher, again) and again.keys == cipher.keys and again.static == static
    assert static == again.static and equal(again, opened(static, key))


def test_what_keys_are_the_same() -> None:
    assert equal(made("abc"), made("abc")) is False  # each database has a data key of its own
    cipher = made("abc")
    assert equal(cipher, opened(cipher.static, b"abc"))
    assert equal(cipher, opened(cipher.static, bytearray(b"abc")))
    raw = made(RAW)
    assert equal(raw, opened(raw.static, memoryview(RAW)))


@pytest.mark.parametrize(
    ("key", "other"),
    [("abc", "abd"), ("abc", "abc "), ("abc", b"ab"), (RAW, RAW[::-1]), (RAW, RAW[:31] + b"\0"), ("é", "e\u0301")],
)
def test_a_wrong_key(key: Any, other: Any) -> None:
    static = made(key).static
    with pytest.raises(WrongKeyError, match="^the encryption key does not open /x$") as caught:
        open_static(static, other, "/x")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("key", "other", "words"),
    [("x" * 32, b"x" * 32, "made with a passphrase"), (b"x" * 32, "x" * 32, "made with a raw key"), (RAW, b"x", "raw")],
)
def test_a_key_of_the_wrong_kind(key: Any, other: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    static = made(key).static
    monkeypatch.setattr(crypto, "scrypt", None)  # that takes no derivation to know
    with pytest.raises(WrongKeyError, match=words):
        open_static(static, other, "/x")


def test_no_key_and_one_too_many() -> None:
    static = made().static
    with pytest.raises(WrongKeyError, match="^/x is encrypted; give encryption_key="):
        open_static(static, None, "/x")
    assert open_static(STATIC, None) is None
    for key in (RAW, "abc"):
        with pytest.raises(WrongKeyError, match="^/x is not encrypted; open it without encryption_key="):
            open_static(STATIC, key, "/x")


@pytest.mark.parametrize("key", ["", b"", bytearray(), memoryview(b"")], ids=shown)
@pytest.mark.parametrize("static", [STATIC, STATIC._replace(cipher=1, derivation=2)], ids=["plain", "encrypted"])
def test_an_empty_key_is_not_none(key: Any, static: StaticHeader) -> None:
    for attempt in (lambda: new_keys(key), lambda: open_static(static, key)):
        with pytest.raises(ValidationError, match="must not be empty"):
            attempt()


@pytest.mark.parametrize("key", [5, 1.5, True, ["abc"], object(), Path("abc"), array("b", b"abc")], ids=shown)
def test_what_can_be_no_key(key: Any) -> None:
    with pytest.raises(ValueTypeError, match="must be a str or bytes"):
        new_keys(key)


def secrets_in(error: Optional[BaseException], words: str) -> bool:
    """Whether a text is in an exception, in those it came from, or in the values that these keep."""
    while error is not None:
        shown = "".join(traceback.format_exception(type(error), error, None))
        kept = [shown, repr(vars(error)), repr(error.args), repr(getattr(error, "object", ""))]
        if any(words in text for text in kept):
            return True
        error = error.__cause__ or error.__context__
    return False


@pytest.mark.parametrize("key", ["hunter2\ud800", "hunter2", b"hunter2"])
def test_no_key_is_shown(key: Any) -> None:
    found: list[Callable[[], Any]] = [lambda: new_keys(key), lambda: open_static(STATIC, key)]
    found.append(lambda: open_static(made("other").static, key))
    for attempt in found:
        try:
            attempt()
        except ValueError as error:
            assert not secrets_in(error, "hunter2")
    keys = new_keys("hunter2")
    cipher = create(STATIC, keys)
    for shown in (repr(keys), str(keys), repr(cipher), f"{keys}", repr([keys])):
        assert keys.kek.hex() not in shown and repr(keys.kek) not in shown and "hunter2" not in shown


def test_a_lone_surrogate() -> None:
    with pytest.raises(ValidationError, match="surrogate"):
        new_keys("a\udc80b")
    made("a\ufffd?b")  # what a replacement looks like is a character like any other


# -- slots -------------------------------------------------------------------
def test_every_bit_of_what_the_slot_binds() -> None:
    static = made().static
    page = static.encode()
    for at in [*range(16, 32), *range(48, 80), *range(88, 152)]:
        for bit in range(8):
            other = bytearray(page)
            other[at] ^= 1 << bit
            other[4028:4032] = struct.pack("<I", zlib.crc32(other[:4028]))
            with pytest.raises(WrongKeyError):
                open_static(StaticHeader.decode(bytes(other), sealed=True), RAW)


def test_every_bit_of_a_header_with_a_passphrase() -> None:
    static = made("abc").static
    page = static.encode()
    refused = []
    for at in [45, 46, *range(48, 64), 64, 79, 88, 151]:
        for bit in range(8):
            other = bytearray(page)
            other[at] ^= 1 << bit
            other[4028:4032] = struct.pack("<I", zlib.crc32(other[:4028]))
            if at == 48 and other[48] > 10:
                continue  # slow, or out of bounds, which has a test of its own
            try:
                open_static(StaticHeader.decode(bytes(other), sealed=True), "abc")
            except (WrongKeyError, NotSupportedError) as error:
                refused.append(type(error))
            else:
                pytest.fail(f"bit {bit} of byte {at}")
    assert refused.count(WrongKeyError) > 140


@pytest.mark.parametrize(
    "cost",
    [(0, 8, 1), (21, 1, 1), (255, 255, 255), (17, 0, 1), (17, 33, 1), (17, 8, 0), (17, 8, 17), (20, 9, 1), (19, 17, 1)],
)
def test_costs_out_of_bounds(cost: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    static = made("abc").static._replace(scrypt=bytes(cost) + bytes(13))
    monkeypatch.setattr(crypto, "scrypt", lambda *given: pytest.fail("derived before it was checked"))
    with pytest.raises(NotSupportedError, match="scrypt with N"):
        open_static(static, "abc")


@pytest.mark.parametrize("cost", [(20, 8, 1), (18, 32, 1), (1, 1, 1), (17, 8, 16)])
def test_costs_within_bounds(cost: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    static = made("abc").static._replace(scrypt=bytes(cost) + bytes(13))
    asked = []

    def stand_in(secret: bytes, salt: bytes, *given: int) -> bytes:
        asked.append((secret, salt, given))
        return bytes(32)

    monkeypatch.setattr(crypto, "scrypt", stand_in)
    with pytest.raises(WrongKeyError):
        open_static(static, "abc")
    assert asked == [(b"abc", static.salt, cost)]


def moved(cipher: Cipher, key: Any, slot: int) -> StaticHeader:
    """The header with the data key in another slot."""
    static, keys = cipher.static, cipher.keys
    data_key = Layout(static.encode(), key).data_key
    aad = b"SNKS" + bytes([slot, 1, static.derivation, 0]) + UUID + static.scrypt + static.salt
    wrapped = b"n" * 12 + gcm(keys.kek, b"n" * 12, aad, data_key) + bytes(4)
    slots = bytearray(256)
    slots[slot * 64 : slot * 64 + 64] = wrapped
    return static._replace(keys=bytes(slots))


@pytest.mark.parametrize("slot", range(4))
def test_every_slot_is_tried(slot: int) -> None:
    cipher = made()
    static = moved(cipher, RAW, slot)
    assert equal(cipher, opened(static))
    both = bytearray(static.keys)
    other = (slot + 1) % 4 * 64
    both[other : other + 64] = b"?" * 60 + bytes(4)
    assert equal(cipher, opened(static._replace(keys=bytes(both))))
    wrong = static.keys[64:] + static.keys[:64]  # a slot elsewhere is none
    with pytest.raises(WrongKeyError):
        open_static(static._replace(keys=wrong), RAW)
    with pytest.raises(WrongKeyError):
        open_static(static._replace(keys=bytes(256)), RAW)


def test_a_slot_of_another_database() -> None:
    keys = new_keys(RAW)
    one, other = create(STATIC, keys), create(STATIC._replace(uuid=UUID[::-1]), keys)
    assert not equal(one, other)
    with pytest.raises(WrongKeyError):
        open_static(one.static._replace(uuid=other.uuid), RAW)
    with pytest.raises(WrongKeyError):
        open_static(one.static._replace(keys=other.static.keys), RAW)


def test_a_copy_has_a_data_key_of_its_own() -> None:
    cipher = made("abc")
    other = create(STATIC._replace(uuid=UUID[::-1]), cipher.keys)
    assert other.static.salt == cipher.static.salt and other.static.keys[:12] != cipher.static.keys[:12]
    assert equal(other, opened(other.static, "abc")) and not equal(cipher, other)
    page = other.static.encode()
    assert Layout(page, "abc").data_key != Layout(cipher.static.encode(), "abc").data_key


@pytest.mark.parametrize(("key", "new"), [(RAW, RAW[::-1]), ("abc", "abd"), ("abc", RAW), (RAW, "abc"), (RAW, RAW)])
def test_rewrapped(key: Any, new: Any) -> None:
    cipher = made(key, STATIC._replace(sequence=6))
    after = cipher.rewrapped(new)
    assert equal(cipher, after) and equal(cipher, opened(after.static, new))
    assert after.keys == opened(after.static, new).keys
    assert after.static.sequence == 7 and after.static.salt != cipher.static.salt
    assert after.static.keys[:64] != cipher.static.keys[:64] and not any(after.static.keys[64:])
    if key != new:
        with pytest.raises(WrongKeyError):
            open_static(after.static, key)
    assert equal(cipher, opened(cipher.static, key))  # the old header is as it was
    assert after.rewrapped(key).static.sequence == 8
    for bad in ("", b"", 5, None):
        with pytest.raises(ValidationError):
            cipher.rewrapped(bad)


# -- what is missing ---------------------------------------------------------
def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    static = made().static
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for attempt in (lambda: new_keys(RAW), lambda: new_keys("abc"), lambda: open_static(static, RAW)):
        with pytest.raises(ImportError, match=r"needs the 'cryptography' package: pip install .*snapdb\[encryption\]"):
            attempt()
    assert open_static(STATIC, None) is None  # a plain database never asks for it
    with pytest.raises(WrongKeyError):
        open_static(static, None)
    with pytest.raises(WrongKeyError):
        open_static(STATIC, RAW)


def test_a_plain_database_imports_nothing() -> None:
    code = (
        "import sys; from snapdb.storage import crypto; from snapdb.storage.superblock import StaticHeader; "
        "crypto.open_static(StaticHeader(bytes(16)), None); "
        "print([name for name in sys.modules if name.startswith('cryptography')])"
    )
    root = str(Path(crypto.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def no_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither hashlib nor the package has it."""
    monkeypatch.delattr(hashlib, "scrypt", raising=False)
    real = builtins.__import__

    def importing(name: str, *given: Any, **more: Any) -> Any:
        if name.endswith("kdf.scrypt"):
            raise ImportError(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_without_scrypt(no_scrypt: None) -> None:
    with pytest.raises(NotSupportedError, match="a passphrase needs scrypt.*a raw key of 32 bytes does without"):
        new_keys("abc")
    cipher = made(RAW)
    assert equal(cipher, opened(cipher.static))
    with pytest.raises(NotSupportedError):
        cipher.rewrapped("abc")
    static = StaticHeader(UUID, cipher=1, derivation=1, scrypt=bytes([4, 8, 1]) + bytes(13))
    with pytest.raises(NotSupportedError, match="scrypt"):
        open_static(static, "abc")


def test_a_package_without_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import scrypt as theirs

    def refuse(*given: Any, **more: Any) -> None:
        raise UnsupportedAlgorithm("no")

    monkeypatch.delattr(hashlib, "scrypt", raising=False)
    monkeypatch.setattr(theirs, "Scrypt", refuse)
    with pytest.raises(NotSupportedError, match="needs scrypt"):
        new_keys("abc")


@pytest.mark.parametrize("error", [MemoryError(), ValueError("memory limit exceeded")], ids=shown)
def test_without_memory(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(crypto, "SCRYPT", (17, 8, 1))
    monkeypatch.setattr(hashlib, "scrypt", refuse, raising=False)
    with pytest.raises(NotSupportedError, match="128 MiB of memory for scrypt"):
        new_keys("abc")


def test_the_memory_that_is_allowed_is_enough() -> None:
    for cost in ((9, 32, 16), (1, 1, 16), (1, 32, 16), (13, 8, 3)):
        assert len(crypto.scrypt(b"abc", SALT, *cost)) == 32


# -- keys that were derived before -------------------------------------------
@pytest.mark.parametrize("key", [RAW, "a passphrase"], ids=["raw", "passphrase"])
def test_derived_keys(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open what was made with them, and nothing else, without another derivation."""
    keys = new_keys(key)
    one, copy = create(STATIC, keys), create(STATIC._replace(uuid=UUID[::-1]), keys)
    other = create(STATIC, new_keys(key))
    monkeypatch.setattr(crypto, "scrypt", None)
    monkeypatch.setattr(crypto, "hkdf", None)
    assert equal(opened(one.static, keys), one) and equal(opened(copy.static, keys), copy) and not equal(one, copy)
    for static in (other.static, one.static._replace(uuid=UUID[::-1]), one.static._replace(salt=bytes(16))):
        with pytest.raises(WrongKeyError):
            open_static(static, keys)
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        open_static(STATIC, keys)
    again = other.rewrapped(keys)
    assert equal(opened(again.static, keys), other) and again.static.sequence == 1 and again.keys == keys


def test_whether_keys_are_those_of_a_key() -> None:
    for key, others in ((RAW, (b"x" * 32, "x", RAW.decode())), ("a passphrase", ("another", b"x" * 32))):
        keys = new_keys(key)
        assert crypto.same(keys, key) and not any(crypto.same(keys, other) for other in others)
        with pytest.raises(ValidationError):
            crypto.same(keys, "")
    assert crypto.same(new_keys("é"), "é".encode()) and crypto.possible(RAW) is RAW


# -- pieces ------------------------------------------------------------------
U64 = st.integers(0, 2**64 - 1)


FIELDS = st.tuples(st.integers(0, 255), U64, U64, U64, st.integers(0, 2**32 - 1))


@given(st.binary(max_size=300), U64, FIELDS, st.binary(min_size=16, max_size=16))
def test_pieces_against_the_layout(data: bytes, at: int, fields: tuple[int, ...], salt: bytes) -> None:
    cipher, layout = twin()
    kind, number, generation, key, pieces = fields
    header = ExtentHeader(kind, UUID[:8], number, generation, key, pieces, 99)
    sealer = cipher.extent(salt, header)
    stored, tag = sealer.seal(at, data)
    assert (stored, tag) == layout.piece(salt, header, at, data)
    assert len(stored) == len(data) and len(tag) == 16
    assert cipher.extent(salt, header).open(at, memoryview(stored), tag) == data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", bytearray(b"abc"), memoryview(b"abcdef")[1:4], array("d", [1.5, 2.5]), memoryview(array("q", [7])),
        array("i"), memoryview(bytes(12)).cast("B", (3, 4)),
    ],
)  # fmt: skip
def test_what_a_piece_may_be(data: Any) -> None:
    plain = bytes(data)
    sealer = made().extent(SALT, HEADER)
    stored, tag = sealer.seal(128, data)
    assert len(stored) == len(plain) and sealer.open(128, stored, tag) == plain
    assert type(stored) is bytes and type(tag) is bytes
    assert not plain or stored != plain


def test_a_piece_opens_only_as_what_it_is() -> None:
    cipher = made()
    data = b"payload " * 4
    stored, tag = cipher.extent(SALT, HEADER).seal(192, data)
    others = {
        "salt": (cipher, b"t" + SALT[1:], HEADER, 192),
        "kind": (cipher, SALT, HEADER._replace(kind=NODE), 192),
        "number": (cipher, SALT, HEADER._replace(number=4), 192),
        "generation": (cipher, SALT, HEADER._replace(generation=42), 192),
        "key": (cipher, SALT, HEADER._replace(key=0), 192),
        "pieces": (cipher, SALT, HEADER._replace(pieces=3), 192),
        "place": (cipher, SALT, HEADER, 256),
        "place, high": (cipher, SALT, HEADER, 192 + (1 << 40)),
        "database": (made(), SALT, HEADER, 192),
    }
    for name, (other, salt, header, at) in others.items():
        with pytest.raises(BadTag):
            other.extent(salt, header).open(at, stored, tag)
            pytest.fail(name)
    sealer = cipher.extent(SALT, HEADER)
    for end in (*range(len(data)), 1):
        with pytest.raises(BadTag):
            sealer.open(192, stored[:end], tag)
    for short in (b"", tag[:15], tag + b"\0"):
        with pytest.raises(BadTag):
            sealer.open(192, stored, short)
    with pytest.raises(BadTag):
        sealer.open(192, stored + tag[:1], tag[1:] + b"\0")
    for at in range(len(stored) + 16):
        for bit in range(8):
            whole = bytearray(stored + tag)
            whole[at] ^= 1 << bit
            with pytest.raises(BadTag):
                sealer.open(192, bytes(whole[:-16]), bytes(whole[-16:]))
    assert sealer.open(192, stored, tag) == data
    # what is only for accounting is not bound
    assert cipher.extent(SALT, HEADER._replace(payload=1)).open(192, stored, tag) == data


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="needs addresses for 2 GiB")
def test_a_piece_that_the_cipher_does_not_take() -> None:
    sealer = made().extent(SALT, HEADER)
    with mmap.mmap(-1, 1 << 31) as pages, memoryview(pages) as view:  # never touched
        with pytest.raises(StorageError, match="2147483648 bytes cannot be encrypted"):
            sealer.seal(128, view)
        with pytest.raises(BadTag):
            sealer.open(128, view, bytes(16))


@pytest.mark.parametrize("size", [128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 700_001])
def test_large_pieces(size: int) -> None:
    """They are opened by another part of the package, which needs no copy of them."""
    cipher, layout = twin()
    data = random.Random(size).randbytes(size)
    sealer = cipher.extent(SALT, HEADER)
    stored, tag = sealer.seal(128, memoryview(data))
    assert (stored, tag) == layout.piece(SALT, HEADER, 128, data)
    for stored_as in (bytes, bytearray, memoryview):
        assert sealer.open(128, stored_as(stored), tag) == data
    for at in (0, size // 2, size - 1):
        bad = bytearray(stored)
        bad[at] ^= 1
        with pytest.raises(BadTag):
            sealer.open(128, bad, tag)
    for wrong in (bytes(16), tag[:15], tag + b"\0", b""):
        with pytest.raises(BadTag):
            sealer.open(128, stored, wrong)
    for place, header in ((192, HEADER), (128, HEADER._replace(number=1))):
        with pytest.raises(BadTag):
            cipher.extent(SALT, header).open(place, stored, tag)


# -- frames ------------------------------------------------------------------
FRAME = (4, 3, 77, 0xCAFEF00D)


@given(st.binary(max_size=300), st.integers(0, 255), st.integers(0, 255), U64, st.integers(0, 2**32 - 1), U64)
def test_frames_against_the_layout(payload: bytes, kind: int, flags: int, lsn: int, before: int, epoch: int) -> None:
    cipher, layout = twin()
    stored = cipher.epoch(SALT, epoch).seal(kind, flags, lsn, before, payload)
    assert len(stored) == len(payload) + crypto.OVERHEAD
    assert layout.frame(SALT, epoch, kind, flags, lsn, before, stored) == payload
    assert cipher.epoch(SALT, epoch).open(kind, flags, lsn, before, memoryview(stored)) == payload


def test_a_frame_opens_only_as_what_it_is() -> None:
    cipher = made()
    frames = cipher.epoch(SALT, 9)
    payload = b"a row " * 5
    stored = frames.seal(*FRAME, payload)
    for place in range(4):
        other = list(FRAME)
        other[place] += 1
        with pytest.raises(BadTag):
            frames.open(*other, stored)
    for wrong in (cipher.epoch(b"t" * 16, 9), cipher.epoch(SALT, 10), made().epoch(SALT, 9)):
        with pytest.raises(BadTag):
            wrong.open(*FRAME, stored)
    for at in range(len(stored)):
        for bit in range(8):
            bad = bytearray(stored)
            bad[at] ^= 1 << bit
            with pytest.raises(BadTag):
                frames.open(*FRAME, bad)
        with pytest.raises(BadTag):
            frames.open(*FRAME, stored[:at])
    with pytest.raises(BadTag):
        frames.open(*FRAME, stored + b"\0")
    assert frames.open(*FRAME, stored) == payload


def test_a_piece_is_no_frame() -> None:
    """Each use has a subkey of its own."""
    cipher, layout = twin()
    keys = [expanded(layout.data_key, b"snapdb 1 " + what + UUID) for what in (b"extent", b"log", b"superblock")]
    assert len(set(keys)) == 3
    assert {cipher._extent, cipher._log, cipher._superblock} == set(keys)


# -- nothing is sealed twice -------------------------------------------------
class Recording:
    """Stands in for the class that encrypts: remembers keys and nonces."""

    used: dict[tuple[bytes, bytes], bytes] = {}
    real: Any = None

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.aes = self.real(key)

    def encrypt(self, nonce: bytes, data: Any, aad: bytes) -> bytes:
        pair = (self.key, nonce)
        assert pair not in self.used, "a key and a nonce encrypt two plaintexts"
        self.used[pair] = hashlib.sha256(bytes(data)).digest()[:8]
        sealed: bytes = self.aes.encrypt(nonce, data, aad)
        return sealed

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        plain: bytes = self.aes.decrypt(nonce, data, aad)
        return plain


def test_no_key_and_nonce_twice_in_100_000_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "used", {})
    monkeypatch.setattr(Recording, "real", crypto._aead())
    monkeypatch.setattr(crypto, "_aead", lambda: Recording)
    chance = random.Random(3)
    cipher = made()
    count = 0
    for round_ in range(10):
        # one generation again and again, as after a checkpoint that failed or in a copy of the machine
        for number in range(1000):
            sealer = cipher.extent(crypto.fresh(crypto.SALT), HEADER._replace(number=number, generation=round_ % 2))
            for at in range(128, 128 + 64 * 6, 64):
                sealer.seal(at, b"piece %d" % chance.randrange(3))
                count += 1
        # an LSN again and again, as after a rollback, in one epoch that is opened anew
        for opening in range(2):
            frames = cipher.epoch(SALT, round_ // 2)
            for lsn in range(2000):
                frames.seal(1, 0, lsn % 100, 0, b"frame %d" % opening)
                count += 1
        after = cipher.rewrapped(RAW)
        assert equal_keys(after, cipher)
        cipher = after
    assert count == 100_000 and len(Recording.used) == count + 11


def equal_keys(a: Cipher, b: Cipher) -> bool:
    return a.mac(bytes(512)) == b.mac(bytes(512))


def test_the_recording_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "used", {})
    monkeypatch.setattr(Recording, "real", crypto._aead())
    monkeypatch.setattr(crypto, "_aead", lambda: Recording)
    cipher = made()
    sealer = cipher.extent(SALT, HEADER)
    sealer.seal(128, b"a")
    with pytest.raises(AssertionError, match="two plaintexts"):
        cipher.extent(SALT, HEADER).seal(128, b"b")
    monkeypatch.setattr(crypto, "fresh", lambda size: bytes(size))
    frames = cipher.epoch(SALT, 1)
    frames.seal(*FRAME, b"a")
    with pytest.raises(AssertionError, match="two plaintexts"):
        frames.seal(*FRAME, b"b")


def test_fresh_bytes() -> None:
    assert len({crypto.fresh(12) for _ in range(2000)}) == 2000
    assert [len(crypto.fresh(size)) for size in (0, 12, 16, 32)] == [0, 12, 16, 32]


# -- superblocks -------------------------------------------------------------
def test_the_mac_of_a_superblock() -> None:
    cipher, layout = twin()
    data = BLOCK.encode(cipher)
    assert len(data) == 512 and data[128:144] == layout.mac(data) == cipher.mac(data)
    assert data[48:64] == b"tag of the root!" and Superblock.decode(data) == BLOCK
    assert struct.unpack_from("<I", data, 508) == (zlib.crc32(data[:508]),)
    plain = BLOCK.encode()
    assert plain[:128] == data[:128] and plain[144:508] == data[144:508] and not any(plain[128:144])


def file_with(*blocks: tuple[int, bytes]) -> Any:
    file = RecordingLayer().open("/x", "x")
    file.truncate(sb.PREAMBLE)
    for slot, data in blocks:
        file.pwrite(data, sb.SLOTS[slot])
    return file


def test_every_changed_byte_of_a_superblock() -> None:
    cipher = twin()[0]
    data = BLOCK.encode(cipher)
    file = file_with((1, data))
    assert sb.read_slots(file, UUID, cipher) == [BLOCK] and sb.changed_slots(file, UUID, cipher) == []
    changed = []
    for at in range(508):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        file.pwrite(bytes(bad), sb.SLOTS[1])
        assert sb.read_slots(file, UUID, cipher) == []
        assert sb.changed_slots(file, UUID, cipher) == []  # its checksum is wrong: an accident
        bad[508:] = struct.pack("<I", zlib.crc32(bad[:508]))
        file.pwrite(bytes(bad), sb.SLOTS[1])
        assert sb.read_slots(file, UUID, cipher) == []
        changed += [at] if sb.changed_slots(file, UUID, cipher) == [1] else []
    assert len(changed) > 400


def test_superblocks_of_others() -> None:
    cipher, other = twin()[0], made()
    older = BLOCK._replace(slot=0, generation=40)
    file = file_with()
    sb.write_slot(file, BLOCK, cipher)
    sb.write_slot(file, older, other)
    assert sb.read_slots(file, UUID, cipher) == [BLOCK] and sb.changed_slots(file, UUID, cipher) == [0]
    assert sb.read_slots(file, UUID, other) == [older] and sb.changed_slots(file, UUID, other) == [1]
    assert sb.read_slots(file, UUID) == [] and sb.changed_slots(file, UUID) == [0, 1]
    sb.write_slot(file, older, cipher)
    assert sb.read_slots(file, UUID, cipher) == [BLOCK, older]
    sb.write_slot(file, older)  # a plain one in an encrypted database
    assert sb.read_slots(file, UUID, cipher) == [BLOCK]
    file.pwrite(BLOCK.encode(cipher), sb.SLOTS[0])  # one slot's bytes in the other
    assert sb.read_slots(file, UUID, cipher) == [BLOCK]
