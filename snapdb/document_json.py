"""Documents as JSON files: one array, or one document a line (``.jsonl``, ``.ndjson``)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional, TextIO, Union

from .errors import ValidationError, ValueTypeError

__all__ = ["Progress", "read_json", "write_json"]

#: what is told how many documents there are by now
Progress = Callable[[int], object]
STEP = 1000  # documents between two tellings


def write_json(
    path: Union[str, os.PathLike[str]], documents: Iterable[Any], progress: Optional[Progress] = None
) -> int:
    """Write documents; how many. The file is there in full or not at all. ValidationError, OSError."""
    lines = str(os.fspath(path)).endswith((".jsonl", ".ndjson"))
    partial = f"{os.fspath(path)}.part"
    documents = _told(documents, progress)
    try:
        with open(partial, "w", encoding="utf-8") as file:
            count = (_write_lines if lines else _write_array)(file, documents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise
    return count


def read_json(path: Union[str, os.PathLike[str]], progress: Optional[Progress] = None) -> list[Any]:
    """The documents of a file. ValidationError with its line; OSError."""
    name = os.fspath(path)
    with open(path, encoding="utf-8-sig") as file:
        try:
            is_array = _first(file) == "["
            return list(_told(_array(file, name) if is_array else _lines(file, name), progress))
        except UnicodeDecodeError as error:
            raise ValidationError(f"{name} is not UTF-8: {error}", hint="save it as UTF-8") from None


def _told(documents: Iterable[Any], progress: Optional[Progress]) -> Iterator[Any]:
    """The documents, while ``progress`` is told."""
    if progress is not None and not callable(progress):
        raise ValueTypeError(f"progress is a callable that is given a number, not {type(progress).__name__}")
    count = 0
    for count, document in enumerate(documents, 1):
        if progress is not None and count % STEP == 0:
            progress(count)
        yield document
    if progress is not None and (count % STEP or not count):
        progress(count)


# -- writing -----------------------------------------------------------------
def _write_lines(file: TextIO, documents: Iterable[Any]) -> int:
    count = 0
    for document in documents:
        file.write(_as_json(document, count) + "\n")
        count += 1
    return count


def _write_array(file: TextIO, documents: Iterable[Any]) -> int:
    count = 0
    for document in documents:
        file.write(("[\n" if count == 0 else ",\n") + _as_json(document, count))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _as_json(document: Any, number: int) -> str:
    try:
        return json.dumps(document)
    except TypeError as error:
        what = f"document {number} cannot be written as JSON: {error}"
        raise ValidationError(what, hint="store such values as text, or leave them out with select=") from None


# -- reading -----------------------------------------------------------------
def _first(file: TextIO) -> str:
    """The first character that is no space; the file is at its start again."""
    for line in file:
        if line.strip():
            file.seek(0)
            return line.strip()[0]
    file.seek(0)
    return ""


def _array(file: TextIO, name: str) -> Iterator[Any]:
    try:
        found = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{name} is no JSON: {error}") from None
    yield from found


def _lines(file: TextIO, name: str) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                hint = "a file is one array of documents, or has a document a line"
                raise ValidationError(f"{name}, line {number}, is no JSON: {error}", hint=hint) from None
