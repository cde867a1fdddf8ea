"""Indexes of documents: which documents may have a value where a path leads. In memory, made of the documents when
first asked, then told of every write; whoever asks tests the documents that are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._ext import Backend
from .document_paths import leaves, parts_of
from .document_values import ARRAY, MISSING, NULL, NUMBER, OBJECT, family

__all__ = ["FieldIndex"]

_WORD = 2**64 - 1


class FieldIndex:
    """Documents by the values that one path leads to; an array counts by its elements too, a missing field as null."""

    def __init__(self, path: str, kernels: Backend) -> None:
        self.path = path
        self._parts = parts_of(path)
        self.is_name = "." not in path  # it is that of one field
        self._pairs: Any = kernels.index.HashTable()

    def fill(self, documents: Iterable[tuple[int, Any]]) -> None:
        """Take in documents that it does not know."""
        for idx, document in documents:
            self.add(idx, document)

    def add(self, idx: int, document: Any) -> None:
        """There is a document."""
        for word in self._words(document):
            self._pairs.add(word, idx)

    def remove(self, idx: int, document: Any) -> None:
        """There is a document no more."""
        for word in self._words(document):
            self._pairs.remove(word, idx)

    def count(self, values: Iterable[Any]) -> int:
        """How many documents have one of these values, at most."""
        return sum(self._pairs.count(word) for word in {_word(value) for value in values})

    def of(self, value: Any) -> list[int]:
        """The documents that may have this value, rising."""
        return sorted(self._pairs.ids(_word(value)))

    def ids(self, values: Iterable[Any]) -> list[int]:
        """The documents that may have one of these values, rising."""
        found: set[int] = set()
        for word in {_word(value) for value in values}:
            found.update(self._pairs.ids(word))
        return sorted(found)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return int(self._pairs.nbytes)

    def _words(self, document: Any) -> set[int]:
        found = {_word(value) for leaf in leaves(document, self._parts) for value in leaf.each()}
        return found or {_word(MISSING)}  # an empty array on the way


def _word(value: Any) -> int:
    """A word that equal values share. Of objects and arrays it says no more than that they are some."""
    kind = family(value)
    if kind in (NULL, OBJECT, ARRAY):
        return kind
    if kind == NUMBER and value != value:
        return hash((kind, "nan")) & _WORD
    return hash((kind, value)) & _WORD  # hash(1) == hash(1.0) == hash(Decimal(1))


def equalities(spec: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The fields of a filter, and the values of which a matching document has one: ``{"a": 1}``, ``$eq``, ``$in``, also
    inside of ``$and``.
    """
    for name, condition in spec.items():
        if name == "$and":
            for one in condition:
                yield from equalities(one)
        elif name.startswith("$"):
            continue
        elif isinstance(condition, Mapping) and condition and all(str(key).startswith("$") for key in condition):
            if "$eq" in condition:
                yield name, [condition["$eq"]]
            if "$in" in condition and not any(hasattr(one, "search") for one in condition["$in"]):
                yield name, list(condition["$in"])
        elif not hasattr(condition, "search"):
            yield name, [condition]
