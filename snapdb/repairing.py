"""A damaged database made whole again, without what is lost: what ``SnapDB.repair`` and ``repair_file`` do.

An older state is taken only where nothing leads to a newer one, and then the commits since are said to be lost.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from .errors import CorruptionError, NotSupportedError, SnapDBError, ValidationError
from .interrupts import Uninterrupted
from .opening import MEMORY, REPAIR, described, file_name, opening_of
from .salvaged import UNKNOWN, Salvaged, unsound_snapshots
from .storage import lock
from .storage.pins import Unpinned, tidy
from .storage.rebuilding import Content, leftovers, rebuild, swap
from .storage.salvage import NEWEST, Wreck
from .storage.sealed import unlock
from .storage.snapshots import Snapshot
from .storage.store import Store
from .storage.wal import wal_path
from .tablefile import file_of, is_new

if TYPE_CHECKING:
    from .storage.layer import FileLayer
    from .storage.store import Options

__all__ = ["repair_file", "repaired", "unharmed"]

_ATTEMPTS = 4  # candidates that are tried where all of them have losses


# -- the best of what there is -------------------------------------------------------
def _best(wreck: Wreck) -> Salvaged:
    """The state that has most of what was there. CorruptionError where there is none."""
    best: Optional[Salvaged] = None
    problem: Optional[Exception] = None
    tried = 0
    for candidate in [*wreck.current(), *wreck.others()]:
        is_current = wreck.is_current(candidate)
        if best is not None and (tried >= _ATTEMPTS or not (is_current or wreck.reach(candidate) > best.reached)):
            break
        try:
            state = Salvaged(wreck, candidate)
            if is_current:
                state.fill(state.same(candidate.lsn))
            state.follow()
        except UNKNOWN as error:
            problem = problem or error
            continue
        tried += 1
        if best is None or (state.reached, -state.missing) > (best.reached, -best.missing):
            best = state
        if best.reached >= wreck.known and not best.lost:
            break
    if best is None or best.reached < wreck.known:
        best = _scanned(wreck, best)
    if best is None:
        if isinstance(problem, NotSupportedError):
            raise problem
        what = f"{wreck.path} cannot be repaired: no part of it says what the table was"
        raise CorruptionError(what, path=wreck.path, hint="bring back a backup") from problem
    _check_keys(best)
    return best


def _scanned(wreck: Wreck, best: Optional[Salvaged]) -> Optional[Salvaged]:
    """The latest state that a scan of the file finds, where it is later than the best one so far."""
    for candidate in wreck.scanned():
        if best is None or wreck.reach(candidate) > best.reached:
            try:
                state = Salvaged(wreck, candidate)
                state.follow()
            except UNKNOWN:
                continue
            if best is None or state.reached > best.reached:
                return state
    return best


def _check_keys(state: Salvaged) -> None:
    """No two rows have one key: the later one is lost, should that be."""
    table = state.table
    names = [column.name for column in table.schema.columns if column.unique]
    if not names:
        return
    taken: dict[str, set[Any]] = {name: set() for name in names}
    twice = []
    for idx, row in table.items():
        keys = [(name, row[name]) for name in names if row[name] is not None and row[name] == row[name]]
        if any(key in taken[name] for name, key in keys):
            twice.append(idx)
            continue
        for name, key in keys:
            taken[name].add(key)
    if twice:
        table.remove(twice)
        for idx in twice:
            state.lost.add(idx, idx, "its key is another row's")


def _losses(wreck: Wreck, state: Salvaged, gone: list[tuple[Snapshot, str]]) -> list[dict[str, Any]]:
    lost: list[dict[str, Any]] = [
        {"kind": "rows", "first": first, "last": last, "reason": reason}
        for first, last, reason in [*state.lost, *state.past]
    ]
    is_scanned = state.candidate.scanned
    if state.reached < wreck.known or wreck.uncertain or is_scanned:
        reason = state.stopped or wreck.uncertain or "the log does not go on, and no later state verifies"
        last = None if wreck.uncertain or state.reached >= wreck.seen else wreck.seen
        lost.append({"kind": "commits", "first": state.reached + 1, "last": last, "reason": reason})
    for record, reason in gone:
        one = {"kind": "snapshot", "first": record.serial, "last": record.serial, "reason": reason}
        lost.append({**one, "name": record.name})
    if state.candidate.broken:
        reason = f"the records of {state.candidate.broken} snapshots make no sense"
        lost.append({"kind": "snapshot", "first": None, "last": None, "reason": reason, "name": None})
    return lost


# -- the whole of it -----------------------------------------------------------------
def _rebuilt(options: Options, path: str, wreck: Wreck, before: int) -> tuple[dict[str, Any], lock.Claim]:
    """Put a sound file in the place of a damaged one, whose lock the caller has; what to say of it, and the lock on the
    new one. ``before``: bytes of the old one and its logs.

    CorruptionError where nothing can be kept, StorageError: the old file is as it was.
    """
    layer = options.layer
    state = _best(wreck)
    table = state.table
    header = {**state.header, **table.header(), "id_generation": table.generation}
    header.pop("changes", None)  # what was lost is in no change log
    header["last_id_generation"] = max(table.generation, table.last_generation)
    lsn = max(state.reached, wreck.seen)
    gone = unsound_snapshots(wreck, state.records)
    records = [record for record in state.records if all(record is not one for one, _ in gone)]
    content = Content(header, state.final(), lsn, records, state.serial)
    temporary = f"{path}.tmp-{secrets.token_hex(6)}"
    try:
        kept = rebuild(layer, temporary, wreck, content, state.source.read)
        issues, rows = _inspected(temporary, options)
        if issues and kept.records:  # their trees verify, but do not go together
            gone += [(record, _said(issues[0])) for record in kept.records]
            leftovers(layer, [temporary])
            kept = rebuild(layer, temporary, wreck, content._replace(records=[]), state.source.read)
            issues, rows = _inspected(temporary, options)
        if issues or rows != len(table):
            wrong = _said(issues[0]) if issues else f"it has {rows} rows, and {len(table)} were found"
            raise CorruptionError(f"what is left of {path} does not make a sound database: {wrong}", path=path)
        lost = _losses(wreck, state, [*gone, *kept.lost])
        if lost and not rows and not kept.records:
            what = f"nothing of {path} can be kept: {lost[0]['reason']}"
            raise CorruptionError(what, path=path, hint="bring back a backup")
        claim = swap(layer, path, temporary, wreck.uuid)
    except BaseException:
        leftovers(layer, [temporary])
        raise
    names = [record.name for record in kept.records]
    return _report(rows, state.candidate.source, names, lost, max(0, before - kept.size)), claim


def _said(issue: Any) -> str:
    """What one of the things says that are wrong with a file."""
    return str(issue["message"] if isinstance(issue, dict) else issue)


def _report(
    rows: int, source: str, snapshots: list[str], lost: Sequence[Any] = (), reclaimed: int = 0
) -> dict[str, Any]:
    return {
        "ok": not lost, "issues": [], "rows": rows, "reclaimed": reclaimed, "lost": list(lost), "source": source,
        "snapshots": snapshots,
    }  # fmt: skip


def unharmed(rows: int, snapshots: list[str]) -> dict[str, Any]:
    """What to say of a database where there was nothing to repair."""
    return _report(rows, NEWEST, snapshots)


def _inspected(path: str, options: Options) -> tuple[list[Any], int]:
    """What is wrong with a file, and its rows."""
    store = Store.open(path, options)
    try:
        table = described(store.header, path).table
        file = file_of(store, table, {})
        file.load()
        issues = [*file.check(True), *table.verify()]
        return issues, len(table)
    finally:
        store.close()


def repaired(store: Store, claim: lock.Claim) -> tuple[dict[str, Any], lock.Claim]:
    """``_rebuilt`` for a store that gave its lock away."""
    options = store.options._replace(read_only=False)
    if store.cipher is not None:
        options = options._replace(key=store.cipher.keys)
    path = store.path
    wreck = Wreck(options.layer, path, claim.file, options.kernel, lambda static: store.cipher, store.static)
    return _rebuilt(options, path, wreck, _bytes_of(options.layer, path))


def _bytes_of(layer: FileLayer, path: str) -> int:
    """Bytes of a database and its logs."""
    names = [path, *[wal_path(path, parity) for parity in (0, 1)]]
    return sum([layer.size(name) for name in names if layer.exists(name)])


def repair_file(opener: Callable[..., Any], path: Any, key: Any = None, timeout: float = 0.0) -> dict[str, Any]:
    """See ``SnapDB.repair_file``; ``opener`` is that class."""
    name = file_name(path)
    if name == MEMORY:
        raise ValidationError(f"a repair is of a file, not of {MEMORY!r}")
    _check_there(name)
    for read_only in (True, False):  # a reader changes nothing of what could be needed
        issues, rows, snapshots = _looked_at(opener, name, key, timeout, read_only)
        if issues:
            break
    else:
        return unharmed(rows, snapshots)
    opening = opening_of(name, key, timeout)
    options, where = opening.options, opening.path
    claim = lock.acquire(options.layer, where, True, timeout)
    try:
        with Uninterrupted(), Unpinned(options.layer, where, "repair() cannot be done", timeout=timeout):
            wreck = Wreck(
                options.layer, where, claim.file, options.kernel, lambda static: unlock(static, options.key, where)
            )
            if wreck.cipher is not None:
                options = options._replace(key=wreck.cipher.keys)  # derived once
            report, new = _rebuilt(options, where, wreck, _bytes_of(options.layer, where))
        new.release()
    finally:
        claim.release()
        tidy(options.layer, where)
    return {**report, "issues": issues}


def _check_there(name: str) -> None:
    """FileNotFoundError, CorruptionError where there is nothing that could be repaired."""
    opening = opening_of(name, None, 0.0)
    if is_new(opening):
        if not opening.layer.exists(opening.path):
            raise FileNotFoundError(errno.ENOENT, "no database there to repair", name)
        raise CorruptionError(f"{name} is empty: there is nothing to repair", path=name, hint="bring back a backup")


def _looked_at(
    opener: Callable[..., Any], name: str, key: Any, timeout: float, read_only: bool
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """What is wrong with a file, its rows and its snapshots."""
    db: Any = None
    try:
        db = opener(name, encryption_key=key, read_only=read_only, timeout=timeout)
        report = db.fsck(full=True)
        names = [one["name"] for one in db.list_snapshots()][::-1]
        db.close()
        return report["issues"], report["rows"], names
    except CorruptionError as error:
        message = str(error)
        if error.hint == REPAIR:
            message = message[: -len(f"; {REPAIR}")]
        return [{"kind": "open", "where": error.offset, "message": message}], 0, []
    finally:
        if db is not None:
            _closed(db)


def _closed(db: Any) -> None:
    """Close a handle whose file may not let itself be closed."""
    try:
        db.close()
    except SnapDBError:
        db.close()
