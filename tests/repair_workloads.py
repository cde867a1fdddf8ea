"""Repairs and changes of the key, for the crash tests: see ``snapshot_workloads``."""

from __future__ import annotations

from typing import Any

import damaged
from crash_workloads import Play, Workload, ins, row
from snapshot_workloads import KEY, OTHER, go_on, upd

from snapdb import SnapDB
from snapdb.storage.superblock import PAGE, SLOTS, Superblock
from snapdb.testing import Recording, RecordingLayer, Session, history, read, record
from snapdb.testing.crash import Mismatch, See

REKEYS: dict[str, Workload] = {}
MENDS: dict[str, Workload] = {}
THIRD = bytes(range(60, 92))
#: damages whose repair is crashed: of the header, superblocks, root, nodes, pieces, log, snapshots; two encrypted
REPAIRS = (
    "headers-row-closed", "slots-row-closed", "slots-columnar-open", "slot-newest-row-open", "root-columnar-snapshots",
    "root-newest-columnar-open", "leaf-node-row-tree", "group-row-closed", "patch-row-closed", "tail-columnar-closed",
    "sealed-or-tail-columnar-closed", "sealed-or-tail-columnar-packed", "tail-columnar-beside", "bulk-extent-row-open",
    "log-middle-frame-columnar-open", "log-last-frame-row-open", "pinned-root-row-snapshots",
    "dead-list-columnar-snapshots", "high-water-row-closed", "group-tag-row-closed-key", "bulk-extent-row-open-key",
)  # fmt: skip


# -- repairs -------------------------------------------------------------------
def repaired(path: str, layer: RecordingLayer, see: See, **options: Any) -> Any:
    """What a database shows when it has been repaired: whatever a crash left of that, the damage or the new file."""
    if layer.exists(path) and layer.size(path):
        SnapDB.repair_file(path, options.get("encryption_key"))
    return read(path, layer, see, **options)


def repair(session: Session) -> None:
    """Repaired, then worked with."""
    with session.using():
        SnapDB.repair_file(session.path, session.options.get("encryption_key"))
    go_on(session)


def record_repair(kind: str) -> Recording:
    """A damage of ``damaged``, repaired under record, and the work that follows."""
    key = damaged.seed(damaged.KINDS[kind].seed).key
    options = {} if key is None else {"encryption_key": key}
    return record(
        repair, damaged.PATH, see=history, read=repaired, options=options, files=damaged.build(kind)
    )  # fmt: skip


def mended(p: Play) -> None:
    """An open database loses its newest superblock, is repaired and goes on."""
    p.open(durability="full")
    p.do(("batch_insert", [row(i, 60) for i in range(20)]))
    p.snapshot("a")
    p.do(upd(3, 1), ("delete", 5), *ins(40))
    p.snapshot("b")
    p.do(upd(4, 2))
    spoil(p)
    with p.session.using():
        report = p.db.repair()
    if not report["ok"] or report["lost"]:
        raise Mismatch(f"repair said {report}")
    p.agree()
    p.do(*ins(41))
    p.drop("a")
    p.restore("b")
    p.do(*ins(42))
    p.close()


def spoil(p: Play) -> None:
    """Zeros in the place of the newest superblock, on stable storage."""
    file = p.session.layer.open(p.session.path, "w")
    blocks = [(Superblock.decode(file.pread(PAGE, at)), at) for at in SLOTS]
    newest = max((block.generation, at) for block, at in blocks if block is not None)[1]
    file.pwrite(bytes(512), newest)
    file.sync()
    file.close()


# -- changes of the key ------------------------------------------------------------
def rekeyed(p: Play) -> None:
    """The key changes on a new file, beside a log, after a restore; closed and killed between."""
    p.open(durability="full")
    p.rekey(OTHER)
    p.do(*ins(1, 2))
    p.snapshot("a")
    p.rekey(THIRD)
    p.do(*ins(3))
    p.kill()
    p.do(("delete", 0))
    p.rekey(KEY)
    p.restore("a")
    p.reopen()
    p.rekey(OTHER)
    p.rekey(OTHER)
    p.do(*ins(4))
    p.close()


def go_on_with_another_key(session: Session) -> None:
    """After a crash: another key, and then what is done with snapshots."""
    db = session.open(durability="full")
    session.rekey(db, THIRD if session.key != THIRD else KEY)
    with session.settled():
        db.close()
    go_on(session)


for _engine in ("row", "columnar"):
    _more: dict[str, Any] = {"see": history, "keys": (KEY, OTHER, THIRD)}
    _name = f"rekeyed-{_engine}-encrypted"
    REKEYS[_name] = Workload(_name, _engine, rekeyed, {}, {}, _more, go_on_with_another_key)
    for _key in (None, KEY):
        _more = {"see": history, "read": repaired, "options": {} if _key is None else {"encryption_key": _key}}
        _name = f"mended-{_engine}" + "-encrypted" * (_key is not None)
        MENDS[_name] = Workload(_name, _engine, mended, {}, {}, _more, repair)
