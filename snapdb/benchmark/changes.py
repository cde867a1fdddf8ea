"""Updates and deletes one by one, each round on a store of its own with all rows; loading it is not timed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from . import rows as data
from .peers import Contender
from .timing import figure, rotated, seconds
from .workloads import SINGLE_DELETE, SINGLE_UPDATE, TITLES, WrongAnswer

__all__ = ["CHANGES", "MOST", "run"]

#: changes in one timing, where so many rows are there twice
MOST = 100_000
_Row = dict[str, Any]
_Changes = Sequence[tuple[int, float]]
CHANGES: dict[str, Callable[[Contender, _Changes], None]] = {
    SINGLE_UPDATE: lambda store, changes: store.update_each(changes),
    SINGLE_DELETE: lambda store, changes: store.delete_each(changes),
}


def run(
    name: str, contenders: Sequence[type[Contender]], rows: list[_Row], rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """The figures of one of CHANGES, after an untimed round whose results are checked."""
    order = [contender for contender in contenders if name not in contender.lacks]
    changes = data.changes(len(rows), MOST)
    times: dict[str, list[float]] = {contender.name: [] for contender in order}
    for number in range(-1, rounds):
        say(f"{TITLES[name]}, round {number + 1}")
        for contender in rotated(order, max(number, 0)):
            store = contender(rows)
            store.before(name)
            taken, _ = seconds(partial(CHANGES[name], store, changes))
            if number >= 0:
                times[contender.name].append(taken)
            else:
                _check(name, store, rows, changes)
            store.close()
    return {one: figure(taken, len(changes), 1) for one, taken in times.items()}


def _check(name: str, store: Contender, rows: list[_Row], changes: _Changes) -> None:
    """Raise WrongAnswer unless the store has the rows that there must be by now."""
    temps = {row["id"]: row["temp"] for row in rows}
    if name == SINGLE_UPDATE:
        temps.update(changes)
    else:
        for key, _ in changes:
            del temps[key]
    right = sum(temps.values())
    if store.iterate() != len(temps) or abs((store.scan_sum() or 0.0) - right) > 1e-9 * right:
        raise WrongAnswer(f"{store.label}: {TITLES[name]}: not the {len(temps)} rows that there must be")
