"""The crash tests with snapshots tested: each broken variant of what the file says of them must be caught. As in
``test_broken_variants``; what only a damaged superblock can show is looked for there.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any, Callable

import pytest
from repair_workloads import MENDS, REKEYS
from snapshot_workloads import SNAPSHOTS, bridges
from test_broken_variants import Variant, drop_sync, nothing, replace

from snapdb import filejournal, repairing, tablefile
from snapdb.storage import catalog, checkpoint, extents, recovery, shrinking, store, superblock
from snapdb.storage.archive import Archive
from snapdb.storage.snapshots import History
from snapdb.storage.store import Store
from snapdb.testing.crash import Mismatch, run

VARIANTS: dict[str, tuple[Variant, tuple[str, ...], bool]] = {}
FAR = 1 << 50  # a generation that nothing reaches


def variant(*workloads: str, bridge: bool = False) -> Callable[[Variant], Variant]:
    """Register a broken variant and the workloads of which one must catch it; ``bridge``: by a damaged superblock."""

    def register(function: Variant) -> Variant:
        VARIANTS[function.__name__] = (function, workloads, bridge)
        return function

    return register


# -- which extents are kept ------------------------------------------------------
@variant("let_go-row", "let_go-columnar")
def what_was_let_go_of_counts_as_young(stack: ExitStack) -> None:
    replace(stack, extents.Extents, "birth", lambda self, offset: FAR)


@variant("let_go-columnar", "let_go-row")
def no_list_for_what_a_checkpoint_lets_go_of(stack: ExitStack) -> None:
    before = History.write
    replace(
        stack, History, "write", lambda self, draft, released, reached: _free(before, self, draft, released, reached)
    )


def _free(write: Any, history: History, draft: Any, released: Any, reached: Any) -> Any:
    filed = write(history, draft, set(), reached)
    return filed._replace(free=filed.free | set(released))


@variant("taken_over-row", "taken_over-columnar")
def a_drop_frees_its_whole_list(stack: ExitStack) -> None:
    drop = History.drop

    def dropped(self: Any, serial: int) -> None:
        with ExitStack() as inner:
            replace(inner, History, "_reached_by", lambda *_: {})
            drop(self, serial)

    replace(stack, History, "drop", dropped)


@variant("taken_over-columnar", "taken_over-row")
def a_drop_forgets_its_list(stack: ExitStack) -> None:
    drop = History.drop

    def dropped(self: Any, serial: int) -> None:
        pending = set(self.pending)
        with ExitStack() as inner:
            replace(inner, History, "_reached_by", lambda *_: {})
            drop(self, serial)
        self.pending = pending

    replace(stack, History, "drop", dropped)


@variant("gone_back-row")
def a_restore_brings_nothing_back(stack: ExitStack) -> None:
    replace(stack, History, "resurrect", nothing)


@variant("gone_back-columnar")
def a_restore_keeps_nothing_of_what_goes(stack: ExitStack) -> None:
    before = Archive.restored
    replace(stack, Archive, "restored", lambda self, restoring: before(self, restoring._replace(gone=set())))


@variant("gone_back-row")
def a_restore_frees_what_goes(stack: ExitStack) -> None:
    replace(stack, History, "bury", lambda self, places: set(places))


@variant("lists-row", "lists-columnar")
def only_one_dead_list_is_written(stack: ExitStack) -> None:
    before = History._write_lists
    replace(stack, History, "_write_lists", lambda *arguments: before(*arguments)[:1])


@variant("taken_over-row")
def a_list_taken_over_is_not_written(stack: ExitStack) -> None:
    before = History.drop

    def drop(self: Any, serial: int) -> None:
        changed = set(self._changed)
        before(self, serial)
        self._changed = changed - {serial}

    replace(stack, History, "drop", drop)


@variant("taken_over-row", "frames_only-row")
def pinned_roots_count_as_free(stack: ExitStack) -> None:
    before = History.reach
    replace(stack, History, "reach", lambda self: before(self) - {record.root[:2] for record in self.records})


@variant("taken_over-row", "reused-row")
def what_a_drop_gives_up_is_used_at_once(stack: ExitStack) -> None:
    before = Archive.dropped

    def dropped(self: Any, serial: int) -> None:
        before(self, serial)
        if self._spaced:
            self.extents.release(sorted(self.history.pending))
            self.history.pending = set()

    replace(stack, Archive, "dropped", dropped)


@variant("compacted_kept-row", "compacted_kept-columnar")
def compact_cuts_what_snapshots_reach(stack: ExitStack) -> None:
    def shrink(self: Any) -> int:
        self.repeat_block()
        self.repeat_block()
        end = max(offset + size for offset, size in {*self.tree.reachable(), checkpoint.root_place(self.block)})
        shrinking._shorten(self.extents, end)
        self.extents.length = self.file.size()
        return 0

    replace(stack, Store, "shrink", shrink)


# -- what is written when ----------------------------------------------------------
@variant("gone_back-row")
def no_flush_of_the_pinned_root(stack: ExitStack) -> None:
    before = Archive.pin

    def pin(self: Any, *arguments: Any) -> Any:
        waits = self.wal.data_waits
        record = before(self, *arguments)
        self.wal.data_waits = waits
        return record

    replace(stack, Archive, "pin", pin)


@variant("gone_back-row", "recovered_kept-row")
def pinned_roots_are_not_looked_at(stack: ExitStack) -> None:
    replace(stack, recovery, "_NAMING", recovery._NAMING - {recovery.SNAPSHOT})
    before = recovery._Chain._extents_there
    replace(
        stack, recovery._Chain, "_extents_there",
        lambda self, pieces, frame: frame.kind == recovery.SNAPSHOT or before(self, pieces, frame),
    )  # fmt: skip


@variant("made-row", "made-columnar", "frames_only-row")
def a_replacement_is_two_changes(stack: ExitStack) -> None:
    replace(stack, filejournal, "_flags", lambda at, count: 3)


@variant("taken_over-row")
def a_checkpoint_writes_the_snapshots_that_were(stack: ExitStack) -> None:
    before = Store.write_root

    def write_root(self: Any, draft: Any, header: Any, applied: Any, reached: Any) -> Any:
        written = before(self, draft, header, applied, reached)
        old = written.root._replace(snapshots=self.root.snapshots, serial=self.root.serial)
        return draft.root(old, written.filed)

    replace(stack, Store, "write_root", write_root)


# -- the log -----------------------------------------------------------------------
def without(stack: ExitStack, kind: int) -> None:
    """Frames of this kind are passed over."""
    before = Archive.replay_history
    replace(stack, Archive, "replay_history", lambda self, frame: None if frame.kind == kind else before(self, frame))


@variant("taken_over-row")
def drops_are_not_carried_out_again(stack: ExitStack) -> None:
    without(stack, recovery.DROP)


@variant("gone_back-columnar")
def snapshots_are_not_carried_out_again(stack: ExitStack) -> None:
    without(stack, recovery.SNAPSHOT)


@variant("gone_back-row")
def restores_are_not_carried_out_again(stack: ExitStack) -> None:
    without(stack, recovery.RESTORE)
    replace(stack, tablefile, "RESTORE", -1)


@variant("taken_over-columnar", "dropped-row")
def a_reader_shows_what_was_dropped(stack: ExitStack) -> None:
    replace(stack, History, "forget", nothing)


# -- over a damaged superblock -------------------------------------------------------
@variant("gone_back-row", "taken_over-row", "lists-row", "there_and_back-row", bridge=True)
def strangers_are_left_out(stack: ExitStack) -> None:
    replace(stack, Archive, "_strangers", lambda self, record: set())


@variant("older-row", "older-columnar", bridge=True)
def the_older_slots_lists_do_not_count(stack: ExitStack) -> None:
    def older(pieces: Any, block: Any) -> Any:
        return set(catalog.Tree(pieces, recovery.read_root(pieces, block).top).reachable())

    replace(stack, checkpoint, "_older_reach", older)


# -- repairs and changes of the key ----------------------------------------------------
@variant("rekeyed-columnar-encrypted")
def rekey_without_a_flush(stack: ExitStack) -> None:
    def replace_static(file: Any, header: Any) -> None:
        for at in superblock.STATIC:
            file.pwrite(header.encode()[: superblock._HOLDER_AT], at)

    replace(stack, store, "replace_static", replace_static)


@variant("mended-row", "mended-columnar")
def repair_renames_before_its_flush(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: ".tmp-" in file.path and last.offset in superblock.SLOTS)


@variant("mended-row", "mended-columnar")
def repair_removes_the_logs_first(stack: ExitStack) -> None:
    before = repairing.swap

    def swap(layer: Any, path: str, temporary: str, uuid: bytes) -> Any:
        for name in (f"{path}-wal0", f"{path}-wal1"):
            if layer.exists(name):
                layer.unlink(name)
        layer.sync_dir(path)
        return before(layer, path, temporary, uuid)

    replace(stack, repairing, "swap", swap)


# -- running them --------------------------------------------------------------------
def outcome(name: str, bridge: bool, every: int = 1) -> list[Any]:
    """What a few seconds of a workload's crash states show, at each so-manieth operation."""
    workload = {**SNAPSHOTS, **REKEYS, **MENDS}[name]
    try:
        recording = workload.record()
    except (Mismatch, RuntimeError, OSError) as error:
        raise AssertionError(f"broken without a crash, which shows nothing: {error}") from error
    if bridge:
        return bridges(workload, every, only=True)[1]
    options: dict[str, Any] = {"random_states": 4, "double_share": 0.05}
    if name in MENDS:  # which takes longer
        options, every = {"random_states": 1, "double_share": 0.0}, 2 * every
    points = range(1, len(recording.log) + 1, every)
    with workload.limited():
        report = run(recording, seed=7, first=True, passes=9, second=workload.second, points=points, **options)
    return list(report.violations)


@functools.cache
def unbroken(name: str, bridge: bool) -> list[Any]:
    return outcome(name, bridge, 3)


@pytest.mark.parametrize("name", VARIANTS)
def test_caught(name: str, record_property: Callable[[str, object], None]) -> None:
    """The variant breaks its promise in some state, and SnapDB as it is in none of the same run."""
    function, workloads, bridge = VARIANTS[name]
    if any(workload.endswith("encrypted") for workload in workloads):
        pytest.importorskip("cryptography")
    found: list[Any] = []
    for workload in workloads:
        assert not unbroken(workload, bridge)
        with ExitStack() as stack:
            function(stack)
            found = outcome(workload, bridge)
        if found:
            break
    assert found, f"{name} was not caught by {', '.join(workloads)}"
    record_property("count: broken variants with snapshots caught", 1)
