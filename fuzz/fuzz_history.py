"""Records of snapshots, their frames, dead lists, scattered changes: refused, or what encodes to the same bytes."""

from __future__ import annotations

import driver

from snapdb.errors import CorruptionError
from snapdb.pieces import Ref
from snapdb.row_scattered import Changes, decode_bits, encode_bits, pack_rows
from snapdb.storage.nodes import Bad
from snapdb.storage.snapshots import (
    Dead,
    Snapshot,
    decode_dead,
    decode_frame,
    decode_snapshots,
    encode_dead,
    encode_frame,
)

_TAG = bytes(range(16))
_SPAN, _GROUPS = 64, 40


def _records(tag: bytes) -> list[Snapshot]:
    root = Ref(0x4000, 4096, 128, 500, 7, tag)
    lists = (Ref(0x8000, 4096, 128, 16 + 24, 8, tag), Ref(0x9000, 4096, 128, 16 + 24, 9, tag))
    return [
        Snapshot(1, "first", 3, 10, 1_700_000_000_000_000, root),
        Snapshot(4, "zweit\u00e9 \u4e2d", 5, 20, 1_700_000_000_000_001, root, b'{"rows": 5}', lists, 2, 8192),
    ]


def seeds() -> list[bytes]:
    plain, tagged = _records(b""), _records(_TAG)
    rows = {3: b"packed", 64: None, 65: b"x" * 40, 2000: b""}
    return [
        b"\0" + b"".join(record.encode() for record in plain),
        b"\1" + b"".join(record.encode() for record in tagged),
        *(b"\2" + encode_frame(record) for record in plain),
        *(b"\3" + encode_frame(record) for record in tagged),
        b"\4" + encode_dead([Dead(0x4000, 4096, 1), Dead(0x8000, 65536, 9)]),
        b"\5" + pack_rows(rows),
        b"\6" + encode_bits(0b1011 | 1 << 39),
    ]


def one(data: bytes) -> None:
    if not data:
        return
    which, data = bytes([data[0] % 7]), data[1:]
    try:
        _parse(which, data)
    except (Bad, CorruptionError):
        pass
    except ValueError:
        assert which in (b"\5", b"\6")  # where the caller says of what piece


def _parse(which: bytes, data: bytes) -> None:
    if which in (b"\0", b"\1"):
        found = decode_snapshots(data, 2, which == b"\1")
        assert b"".join(record._replace(name=record.name).encode() for record in found) == data
    elif which in (b"\2", b"\3"):
        assert encode_frame(decode_frame(data, which == b"\3")) == data
    elif which == b"\4":
        assert encode_dead(decode_dead(data)) == data
    elif which == b"\5":
        changes = Changes(data, _SPAN, _GROUPS)
        rows = {group * _SPAN + at: row for group in range(_GROUPS) for at, row in changes.rows(group)}
        assert pack_rows(rows) == data
    else:
        bits = decode_bits(data, _GROUPS)
        assert 0 < bits < 1 << _GROUPS and decode_bits(encode_bits(bits), _GROUPS) == bits


if __name__ == "__main__":
    driver.main("history")
