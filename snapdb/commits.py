"""What a commit did to a table: which rows came, changed and went; and how that is said as events and as lines of JSON.

Rows are as they read back. JSON has no bytes, dates, NaN and so on: they stand as an object of one name that begins
with ``$``, and so does an object of the document store that would look like one.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any, Callable, NamedTuple, Optional

__all__ = ["COMPACT", "DELETE", "GAP", "INSERT", "START", "UPDATE", "Changed", "Commit", "events_of", "line", "unline"]

INSERT, UPDATE, DELETE, COMPACT = "insert", "update", "delete", "compact"
START, GAP = "start", "gap"  # lines of a log that are no changes

Row = dict[str, Any]


class Changed(NamedTuple):
    """One change: ``op`` is one of ``insert update delete compact``; ``row`` is what is there after it, ``old`` what
    was there before. ``compact`` has neither, and no ``idx``: live rows are numbered anew, densely, in order.
    """

    op: str
    idx: Optional[int]
    row: Optional[Row] = None
    old: Optional[Row] = None


class Commit(NamedTuple):
    """Changes that became true at once, in order. ``lsn``: of the last frame of the transaction; ``transaction``: LSN
    of its first one; ``time``: seconds since 1970, None where it is not on record. ``renumbered``: ids mean other rows
    from here on.
    """

    lsn: int
    transaction: int
    time: Optional[float]
    changes: list[Changed]
    renumbered: bool = False


def events_of(commit: Commit) -> list[dict[str, Any]]:
    """The commit as events, one for each change."""
    return [
        {
            "op": op, "idx": idx, "row": row, "old": old, "ts": commit.time, "lsn": commit.lsn,
            "tx": commit.transaction,
        }
        for op, idx, row, old in commit.changes
    ]  # fmt: skip


# -- lines of JSON -------------------------------------------------------------
def line(event: dict[str, Any]) -> bytes:
    """An event as a line of JSON, its end included."""
    shown = {**event, "row": _plain(event.get("row")), "old": _plain(event.get("old"))}
    return json.dumps(shown, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def unline(data: bytes) -> dict[str, Any]:
    """The event of a line. ValueError where it is none."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(event, dict) or not isinstance(event.get("op"), str):
        raise ValueError("it is no event")
    if type(event.get("lsn")) not in (int, type(None)):
        raise ValueError("its lsn is no number")
    for name in ("row", "old"):
        if event.get(name) is not None:
            event[name] = _rich(event[name])
    return event


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is int or kind is str or kind is bool:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is dict:
        made = {name: _plain(one) for name, one in value.items()}
        return {"$object": made} if len(made) == 1 and next(iter(made)).startswith("$") else made
    if kind is list or kind is tuple:
        return [_plain(one) for one in value]
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, dt.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, dt.date):
        return {"$date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if kind.__name__ == "UUID":
        return {"$uuid": str(value)}
    raise ValueError(f"{kind.__name__} cannot stand in a change log")


def _uuid(text: str) -> Any:
    from uuid import UUID  # not at the top: CPython 3.9 loads subprocess with it

    return UUID(text)


_READERS: dict[str, Callable[[str], Any]] = {
    "$float": float,
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$decimal": Decimal,
    "$uuid": _uuid,
}


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return [_rich(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name == "$object" and isinstance(inner, dict):
            return {each: _rich(one) for each, one in inner.items()}
        reader = _READERS.get(name)
        if reader is not None:
            if not isinstance(inner, str):
                raise ValueError(f"{name} holds no text")
            try:
                return reader(inner)
            except ArithmeticError as error:
                raise ValueError(f"{name}: {error}") from None
    return {name: _rich(one) for name, one in value.items()}
