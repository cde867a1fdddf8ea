"""Group numbers: equal values get the same number, in order of the first selected row."""

from __future__ import annotations

from array import array
from itertools import compress
from typing import Any, Optional

from ._bits_py import flags_of, popcount, u32
from ._common import UNSELECTED
from ._lanes_py import as_bytes, expand, keep, typed
from ._mask_py import number, spread

__all__ = ["check_codes", "check_groups", "group_keys", "group_small", "numbered"]

_NULL = object()  # a key no value equals

Groups = tuple[memoryview, memoryview]


def check_groups(groups: int) -> None:
    """ValueError for a number of groups that no u32 codes can have."""
    if not 0 <= groups < UNSELECTED:
        raise ValueError(f"{groups} groups are out of range")


def check_codes(codes: Any, groups: int, rows: int) -> list[int]:
    """Group numbers as a list; ValueError for a wrong length or one neither below ``groups`` nor UNSELECTED."""
    check_groups(groups)
    found: list[int] = u32(codes).tolist()
    if len(found) != rows:
        raise ValueError(f"{len(found)} group codes for {rows} rows")
    if rows and max(found) >= groups:
        wrong = next((code for code in found if groups <= code != UNSELECTED), None)
        if wrong is not None:
            raise ValueError(f"group {wrong} is outside 0..{groups}")
    return found


def numbered(codes: list[int], groups: int) -> list[int]:
    """Group numbers with ``groups`` in the place of UNSELECTED."""
    if codes and max(codes) == UNSELECTED:
        return [groups if code == UNSELECTED else code for code in codes]
    return codes


def group_keys(keys: list[Any], bits: Optional[int], nulls: int, rows: int) -> Groups:
    """Groups of any keys."""
    if nulls:
        keys = [_NULL if flag else key for key, flag in zip(keys, flags_of(nulls, rows))]
    if bits is None or popcount(bits) == rows:
        return spread(*number(keys), bytes(rows))
    flags = flags_of(bits, rows)
    return spread(*number(list(compress(keys, flags))), flags)


def group_small(codes: bytes, count: int, bits: Optional[int], nulls: int, rows: int) -> Optional[Groups]:
    """Groups of one-byte codes below ``count``; None where null and not selected do not fit beside them."""
    if count + (nulls != 0) + (bits is not None) > 256:
        return None
    every = (1 << rows) - 1
    if nulls:
        codes = _put(codes, every ^ nulls, count, rows)
    if bits is not None and bits != every:
        codes = _put(codes, bits, 255, rows)
    present = sorted(set(codes) - ({255} if bits is not None else set()), key=codes.index)
    numbers = array("I", [UNSELECTED]) * 256
    for group, code in enumerate(present):
        numbers[code] = group
    whole = typed("I", expand(codes, 1, as_bytes(numbers), 4))
    return memoryview(whole).toreadonly(), memoryview(array("I", map(codes.index, present))).toreadonly()


def _put(codes: bytes, flags: int, value: int, rows: int) -> bytes:
    """``value`` in every code whose flag is 0."""
    chosen = flags_of(flags, rows)
    kept = int.from_bytes(keep(codes, 1, chosen), "little")
    others = chosen.translate(bytes([value]) + bytes(255))
    return (kept | int.from_bytes(others, "little")).to_bytes(rows, "little")
