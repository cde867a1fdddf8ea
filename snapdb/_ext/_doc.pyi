"""Documents as bytes, and back. See ``_doc_py`` for the readable twin; the form is *Documents* in ``docs/format.md``.

``encode`` raises TypeError for what cannot be stored and ValueError for what is too deep or too large; what reads bytes raises ValueError for damage.
"""

from typing import Any, Optional, Union

DEPTH: int  # arrays and objects inside of each other

def encode(value: Any) -> bytes:
    """The bytes of a value: None, bool, int, float, str, bytes, datetime, date, Decimal, UUID, and lists, tuples (which read back as lists) and dicts with names of str of them. TypeError, ValueError."""

def decode(data: Any) -> Any:
    """The value of these bytes, which are all of it. ValueError for damage."""

def judge(
    documents: list[bytes],
    parts: tuple[bytes, ...],
    text: Optional[bytes],
    low: Union[int, float, None],
    high: Union[int, float, None],
    low_open: bool,
    high_open: bool,
) -> bytearray:
    """For each document (bytes) whether the value that a path of names (bytes) leads to is this text, or with None a number between two bounds (None: without end): a bytearray of 0, no, 1, yes, and 2, which this does not say: the value, or what is on the way, is an array, or a number of another kind."""
