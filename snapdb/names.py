"""Names of snapshots: what can be one, what is made up where nobody gave one, and what is near one that is missing."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

from .errors import NotFoundError, ValidationError, ValueTypeError, close_names, shorten

__all__ = ["auto_name", "check_name", "not_found"]

LONGEST = 65_535  # bytes of a name


def check_name(name: Any) -> None:
    """ValidationError for what cannot be a snapshot's name."""
    if not isinstance(name, str):
        raise ValueTypeError(f"the name of a snapshot is a str, not {type(name).__name__}")
    if not name or name in (".", "..") or any(letter in name for letter in "/\\\0"):
        raise ValidationError(
            f"{shorten(name)} cannot be the name of a snapshot",
            hint="any text may be without '/', '\\' and NUL, other than '', '.' and '..'",
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValidationError(f"{shorten(name)} cannot be the name of a snapshot: {error}") from error
    if size > LONGEST:
        raise ValidationError(f"the name of a snapshot takes at most {LONGEST:,} bytes of UTF-8, not {size:,}")


def auto_name(serial: int, seconds: float, taken: Any) -> str:
    """``snap_<serial>_<time in UTC>``, with a number behind it where somebody has chosen that name."""
    name = plain = f"snap_{serial}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime(seconds))}"
    for number in count(2):
        if name not in taken:
            break
        name = f"{plain}_{number}"
    return name


def not_found(name: Any, names: list[str]) -> NotFoundError:
    """The error for a name that no snapshot has."""
    close = close_names(name, names)
    hint = f"did you mean {' or '.join(map(shorten, close))}?" if close else "list_snapshots() says which there are"
    return NotFoundError(f"there is no snapshot {shorten(name)}", hint=hint)
