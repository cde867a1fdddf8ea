"""The crash tests tested: each broken variant of the protocol must be caught by a workload's crash states."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any, Callable
from unittest import mock

import pytest
from crash_workloads import WORKLOADS, Play, Workload

from snapdb import _ext, tablefile
from snapdb._ext import _wal_py
from snapdb.storage import catalog, checkpoint, extents, recovery, shrinking, store, superblock, wal
from snapdb.testing.crash import Mismatch, Report, Session, run
from snapdb.testing.layers import RecordingFile, RecordingLayer

Variant = Callable[[ExitStack], None]
VARIANTS: dict[str, tuple[Variant, tuple[str, ...]]] = {}
SAME = 30  # bytes of the text in rows whose frames all have the same length


def variant(*workloads: str) -> Callable[[Variant], Variant]:
    """Register a broken variant and the workloads of which one must catch it."""

    def register(function: Variant) -> Variant:
        VARIANTS[function.__name__] = (function, workloads)
        return function

    return register


def replace(stack: ExitStack, owner: Any, name: str, new: Any) -> Any:
    """Put something else in the place of an attribute; returns what was there."""
    before = getattr(owner, name)
    stack.enter_context(mock.patch.object(owner, name, new))
    return before


def nothing(*_: Any, **__: Any) -> None:
    return None


def drop_sync(stack: ExitStack, which: Callable[[Any, Any], bool]) -> None:
    """Flushes do nothing where ``which`` says so of the file and the last write to it."""
    before = RecordingFile.sync

    def sync(self: Any) -> None:
        number = self._there().number
        last = next((op for op in reversed(self._log) if op.file == number and op.kind == "write"), None)
        if last is None or not which(self, last):
            before(self)

    replace(stack, RecordingFile, "sync", sync)


def is_log(file: Any) -> bool:
    return bool(file.path.endswith(("-wal0", "-wal1")))


def is_superblock(op: Any) -> bool:
    return op.offset in superblock.SLOTS and op.size <= superblock.PAGE


# -- flushes left out --------------------------------------------------------
@variant("checkpoints-row", "single-columnar")
def no_flush_before_the_superblock(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: not is_log(file) and not is_superblock(last) and ".tmp-" not in file.path)


@variant("single-row", "single-columnar")
def no_flush_of_the_log(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: is_log(file) and last.offset >= wal.HEADER)


@variant("checkpoints-columnar", "automatic-row")
def no_flush_of_the_superblock(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: is_superblock(last) and ".tmp-" not in file.path)


@variant("single-row")
def no_flush_of_the_new_logs(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: is_log(file) and last.offset < wal.HEADER)


@variant("creation-row", "single-columnar")
def no_flush_of_a_new_database(stack: ExitStack) -> None:
    drop_sync(stack, lambda file, last: ".tmp-" in file.path)


@variant("single-columnar", "creation-row")
def no_flush_of_the_new_logs_names(stack: ExitStack) -> None:
    replace(stack, wal.Wal, "_sync_names", nothing)


@variant("creation-row", "single-row")
def no_flush_of_a_new_databases_name(stack: ExitStack) -> None:
    before = RecordingLayer.sync_dir

    def sync_dir(self: Any, path: str) -> None:
        if self.exists(f"{path}-wal0"):
            before(self, path)

    replace(stack, RecordingLayer, "sync_dir", sync_dir)


@variant("bulk-row", "bulk-columnar")
def no_flush_of_extents_that_a_frame_names(stack: ExitStack) -> None:
    replace(stack, store.Store, "sync_data", nothing)


@variant("transactions-row", "killed-columnar")
def no_flush_at_the_end_of_a_transaction(stack: ExitStack) -> None:
    before = wal.Wal.commit
    replace(stack, wal.Wal, "commit", lambda self, sync: before(self, False))


@variant("buffered-row")
def flush_only_writes(stack: ExitStack) -> None:
    replace(stack, wal.Wal, "sync", lambda self: self.log.flush())


# -- orders exchanged ----------------------------------------------------------
@variant("checkpoints-row", "automatic-columnar")
def log_switched_before_the_superblock(stack: ExitStack) -> None:
    before = store.Store._write_block

    def write_block(self: Any, block: Any) -> None:
        if self.wal.started and not block.clean and self.wal.epoch != block.epoch:
            file = self.wal._files[block.epoch & 1]
            header = wal.WalHeader(block.uuid, block.epoch, block.lsn + 1, block.frame_crc, block.salt)
            file.pwrite(header.encode(), 0)
            self.wal.file.truncate(wal.HEADER)
            file.sync()
        before(self, block)

    replace(stack, store.Store, "_write_block", write_block)


@variant("single-row", "reopened-columnar")
def logs_removed_before_the_clean_superblocks(stack: ExitStack) -> None:
    before = store.Store._end

    def end(self: Any, log: Any, clean: bool) -> None:
        for epoch in (0, 1):
            if log.started:
                self.layer.unlink(wal.wal_path(self.path, epoch))
        before(self, log, clean)

    replace(stack, store.Store, "_end", end)


@variant("single-row")
def superblock_before_the_new_logs(stack: ExitStack) -> None:
    before = store.Store.first_write

    def first_write(self: Any) -> None:
        self._write_block(self.block._replace(clean=False, epoch=self.block.epoch + 1))
        before(self)

    replace(stack, store.Store, "first_write", first_write)


@variant("compacted-row", "compacted-columnar")
def file_cut_before_the_superblocks(stack: ExitStack) -> None:
    def shrink(self: Any) -> int:
        self.extents.space.promote()
        shrinking._shorten(self.extents, self.extents.space.high_water)
        self.file.sync()
        return 0

    replace(stack, store.Store, "shrink", shrink)


@variant("automatic_normal-row", "many-columnar")
def write_acknowledged_before_it_is_written(stack: ExitStack) -> None:
    before = wal.Wal._idle

    def idle(self: Any) -> None:
        before(self)
        self.log.hold = True

    replace(stack, wal.Wal, "_idle", idle)


# -- places used that are in use -------------------------------------------------
@variant("checkpoints-row", "automatic-columnar")
def superblock_into_the_newest_slot(stack: ExitStack) -> None:
    before = store.Store._write_block

    def write_block(self: Any, block: Any) -> None:
        self.block = self.block._replace(slot=1 - self.block.slot)
        before(self, block)

    replace(stack, store.Store, "_write_block", write_block)


@variant("reuse-row", "checkpoints-columnar")
def space_used_again_before_the_superblock(stack: ExitStack) -> None:
    before = catalog.Tree.apply

    def apply(self: Any, changes: Any, generation: int) -> Any:
        change = before(self, changes, generation)
        for place in change.released:
            self.extents.space.release(*place)
        return change._replace(released=set())

    replace(stack, catalog.Tree, "apply", apply)


@variant("bulk-row", "bulk-columnar")
def extents_of_the_log_are_free_after_a_crash(stack: ExitStack) -> None:
    before = checkpoint.build_space

    def build(pieces: Any, tree: Any, block: Any, older: Any, bulk: Any, older_bulk: Any, history: Any) -> Any:
        return before(pieces, tree, block, older, set(), set(), history)

    replace(stack, store, "build_space", build)


# -- steps left out ----------------------------------------------------------
@variant("automatic-row", "checkpoints-columnar")
def log_goes_on_in_the_old_file(stack: ExitStack) -> None:
    replace(stack, wal.Wal, "switch", nothing)


@variant("single-row", "many-columnar")
def no_checkpoint_after_recovery(stack: ExitStack) -> None:
    before = tablefile.TableFile.load

    def load(self: Any, *log: Any) -> Any:
        with mock.patch.object(tablefile.TableFile, "checkpoint", nothing):
            missed = before(self, *log)
        self.store.unclean = False
        return missed

    replace(stack, tablefile.TableFile, "load", load)


@variant("single-row", "single-columnar")
def clean_flag_without_the_last_checkpoint(stack: ExitStack) -> None:
    before = tablefile.TableFile.close

    def close(self: Any) -> None:
        with mock.patch.object(tablefile.TableFile, "checkpoint", nothing):
            if self.store.started:
                self.store.block = self.store.block._replace(lsn=self.store.log.lsn)
            before(self)

    replace(stack, tablefile.TableFile, "close", close)


@variant("single-row")
def older_root_answers_without_the_log(stack: ExitStack) -> None:
    def follow(self: Any) -> None:
        return None

    replace(stack, recovery._Chain, "follow", follow)


# -- checks left out -----------------------------------------------------------
@variant("transactions-row", "automatic-columnar")
def parts_of_transactions_replayed(stack: ExitStack) -> None:
    use_twin(stack)
    scan = _wal_py.scan

    def whole(*arguments: Any) -> Any:
        frames, *rest = scan(*arguments)
        return ([(lsn, lsn, kind, _wal_py.FIRST | _wal_py.LAST, *at) for lsn, _, kind, _, *at in frames], *rest)

    replace(stack, _wal_py, "scan", whole)


@variant("growth-row", "growth-columnar")
def frames_without_a_checksum(stack: ExitStack) -> None:
    replace(stack, _wal_py, "_verifies", lambda *_: True)
    use_twin(stack)


@variant("bulk_normal-row", "bulk_normal-columnar")
def pieces_without_a_checksum(stack: ExitStack) -> None:
    replace(stack, extents.Extents, "_verify", nothing)


@variant("reopened-columnar", "reopened-row")
def superblock_without_a_checksum(stack: ExitStack) -> None:
    decode = superblock.Superblock.decode

    def anyhow(data: bytes) -> Any:
        body = bytes(data[:508])
        return decode(body + superblock.CRC(body).to_bytes(4, "little"))

    replace(stack, superblock.Superblock, "decode", anyhow)


@variant("equal")
def log_used_again_without_salt_and_chain(stack: ExitStack) -> None:
    def open_log(self: Any, path: str) -> Any:
        file = self.layer.open(path, "w" if self.layer.exists(path) else "x")
        file.truncate = nothing  # what an earlier life wrote stays
        return file

    replace(stack, wal.Wal, "_open", open_log)
    replace(stack, wal.Wal, "remove", nothing)
    replace(stack, _wal_py, "_seed", lambda salt, epoch: 0)
    scan = _wal_py.scan

    def unchained(data: Any, salt: bytes, epoch: int, lsn: int, crc: int) -> Any:
        frames: list[Any] = []
        at = _wal_py.START
        while True:
            fields = _wal_py._look(memoryview(data), at)
            if fields is None or fields[5] != lsn + 1:
                return frames, at, crc
            found, end, after = scan(bytes(64) + bytes(data[at:]), salt, epoch, lsn, fields[0])
            if not found:
                return frames, at, crc
            frames += [(*one[:4], one[4] + at - 64, one[5] + at - 64) for one in found]
            at, lsn, crc = at + end - 64, found[-1][0], after

    replace(stack, _wal_py, "scan", unchained)
    replace(stack, _wal_py, "stray", nothing)
    use_twin(stack)


def use_twin(stack: ExitStack) -> None:
    """Run on the pure kernels, which can be changed."""
    replace(stack, _ext, "BACKEND", "python")


# -- running them ----------------------------------------------------------------
def equal(p: Play) -> None:
    """Rows whose frames all have one length, not flushed."""
    p.open(durability="normal")
    p.do(*(("insert", same(i)) for i in range(3)))
    p.flush()
    p.do(*(("insert", same(i)) for i in range(3, 12)))
    p.close()


def same(i: int) -> dict[str, Any]:
    return {"n": i, "s": chr(65 + i) * SAME, "f": 0.5, "b": True}


def go_on_equal(session: Session) -> None:
    """After a crash: one more row of that length."""
    db = session.open(durability="full")
    with session.commit(db):
        db.insert(same(20))
    with session.settled():
        db.close()


EQUAL = Workload("equal", "row", equal, {}, {})


def outcome(name: str) -> Report:
    """A few seconds of a workload's crash states."""
    workload = EQUAL if name == "equal" else WORKLOADS[name]
    second: dict[str, Any] = {"second": go_on_equal, "double_share": 0.5} if name == "equal" else {"double_share": 0.1}
    try:
        recording = workload.record()
    except (Mismatch, RuntimeError, OSError) as error:
        raise AssertionError(f"broken without a crash, which shows nothing: {error}") from error
    with workload.limited():
        return run(recording, seed=7, random_states=12, first=True, passes=9, **second)


@functools.cache
def unbroken(name: str) -> Report:
    return outcome(name)


@pytest.mark.parametrize("name", VARIANTS)
def test_caught(name: str, record_property: Callable[[str, object], None]) -> None:
    """The variant breaks its promise in some crash state, and SnapDB as it is in none of the same run."""
    function, workloads = VARIANTS[name]
    found: list[Any] = []
    for workload in workloads:
        whole = unbroken(workload)
        assert not whole.violations
        with ExitStack() as stack:
            function(stack)
            found = outcome(workload).violations
        if found:
            break
    assert found, f"{name} was not caught by {', '.join(workloads)}"
    record_property("count: broken variants caught", 1)
