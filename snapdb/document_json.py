"""Documents as JSON files: one array, or one document a line (``.jsonl``, ``.ndjson``)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Union

from .errors import ValidationError

__all__ = ["read_json", "write_json"]


def write_json(path: Union[str, os.PathLike[str]], documents: Iterable[Any]) -> int:
    """Write documents; how many. The file is there in full or not at all. ValidationError, OSError."""
    lines = _is_lines(path)
    partial = f"{os.fspath(path)}.part"
    count = 0
    try:
        with open(partial, "w", encoding="utf-8") as file:
            for document in documents:
                file.write("" if lines else "[\n" if count == 0 else ",\n")
                file.write(_as_json(document, count) + ("\n" if lines else ""))
                count += 1
            file.write("" if lines else "\n]\n" if count else "[]\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise
    return count


def read_json(path: Union[str, os.PathLike[str]]) -> list[Any]:
    """The documents of a file. ValidationError with its line; OSError."""
    with open(path, encoding="utf-8-sig") as file:
        return _from_json(file.read(), os.fspath(path))


def _is_lines(path: Any) -> bool:
    return str(os.fspath(path)).endswith((".jsonl", ".ndjson"))


def _as_json(document: Any, number: int) -> str:
    try:
        return json.dumps(document)
    except TypeError as error:
        what = f"document {number} cannot be written as JSON: {error}"
        raise ValidationError(what, hint="store such values as text, or leave them out with select=") from None


def _from_json(text: str, path: str) -> list[Any]:
    start = text.lstrip()[:1]
    try:
        if start == "[":
            found = json.loads(text)
            return list(found)
    except ValueError as error:
        raise ValidationError(f"{path} is no JSON: {error}") from None
    documents = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                documents.append(json.loads(line))
            except ValueError as error:
                hint = "a file is one array of documents, or has a document a line"
                raise ValidationError(f"{path}, line {number}, is no JSON: {error}", hint=hint) from None
    return documents
