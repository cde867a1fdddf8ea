"""The stand-alone log: what is committed is read again, in order, whatever happened to the process or the file."""

from __future__ import annotations

import datetime as dt
import errno
import gc
import os
import signal
import struct
import subprocess
import sys
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from snapdb import errors
from snapdb.storage.files import layer_for, using
from snapdb.testing.layers import FaultyLayer, Plan, RecordingLayer
from snapdb.wal import WAL

HEADER = 512
VALUES: dict[str, Any] = {
    "n": -(2**70), "f": float("inf"), "s": "é\n\ud800", "b": b"\0\xff", "none": None, "deep": [{"a": [True, 1.5]}],
    "d": dt.date(2024, 2, 29), "at": dt.datetime(2024, 1, 1, 12), "m": Decimal("1.10"), "u": uuid.UUID(int=7),
}  # fmt: skip


def records(path: Any, **options: Any) -> list[dict[str, Any]]:
    with WAL(path, **options) as log:
        return list(log.replay())


def records_of(path: Path) -> list[dict[str, Any]]:
    """What whoever opens the file now would read."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    return records(copy)


def filled(path: Any, count: int = 5, **options: Any) -> list[int]:
    """Where each frame ends."""
    ends = []
    with WAL(path, **options) as log:
        for n in range(count):
            log.begin()
            log.append("put", n=n, text="x" * (n * 7 % 20))
            log.append("also", n=n)
            log.commit()
            ends.append(os.path.getsize(path))
    return ends


def put(n: int) -> list[dict[str, Any]]:
    return [{"op": "put", "n": n, "text": "x" * (n * 7 % 20)}, {"op": "also", "n": n}]


def test_values_come_back(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "x.log"
    with WAL(str(path)) as log:
        log.append("all", **VALUES)
        log.append("none")
        assert repr(log) == f"WAL({str(path)!r}, frames=2)"
    assert repr(log) == f"WAL({str(path)!r}, closed)"
    assert records(path) == [{"op": "all", **VALUES}, {"op": "none"}]


def test_transactions(tmp_path: Path, backend_name: str) -> None:
    path = tmp_path / "x.log"
    with WAL(path) as log:
        for call in (log.commit, log.rollback):
            with pytest.raises(errors.TransactionError, match=r"without begin\(\)"):
                call()
        assert log.begin() == 1
        log.append("a")
        assert list(log.replay()) == []
        with pytest.raises(errors.TransactionError, match="Nested"):
            log.begin()
        with pytest.raises(errors.TransactionError, match=r"clear\(\)"):
            log.clear()
        with pytest.raises(errors.ValidationError, match="cannot be stored.*object"):
            log.append("bad", value=object())
        log.append("b")
        log.commit()
        assert log.begin() == 2
        log.append("c")
        log.rollback()
        log.begin()
        log.commit()
        with pytest.raises(errors.ValidationError):
            log.append("bad", value={1: 2})
        log.begin()
        log.append("never")
    assert records(path) == [{"op": "a"}, {"op": "b"}]
    with pytest.raises(errors.ClosedError, match="is closed"):
        log.append("d")
    with pytest.raises(errors.ClosedError):
        log.replay()
    log.close()


def test_clear_ends_a_replay(tmp_path: Path) -> None:
    filled(tmp_path / "x.log")
    with WAL(tmp_path / "x.log") as log:
        found = log.replay()
        assert next(found) == put(0)[0]
        log.clear()
        log.append("new")
        assert list(found) == put(0)[1:] and list(log.replay()) == [{"op": "new"}]
    assert records(tmp_path / "x.log") == [{"op": "new"}]


class Model(RuleBasedStateMachine):
    """The log beside two lists; it is closed, killed (its file copied as it is) and torn at any byte."""

    @initialize()
    def begin_all(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "x.log")
        self.log = WAL(self.path)
        self.frames: list[list[dict[str, Any]]] = []
        self.open: Optional[list[dict[str, Any]]] = None

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.directory.cleanup()

    def expected(self) -> list[dict[str, Any]]:
        return [record for frame in self.frames for record in frame]

    @rule(op=st.text(max_size=3), value=st.one_of(st.none(), st.integers(), st.text(), st.binary(max_size=30)))
    def append(self, op: str, value: Any) -> None:
        self.log.append(op, value=value)
        record = {"op": op, "value": value}
        if self.open is None:
            self.frames.append([record])
        else:
            self.open.append(record)

    @precondition(lambda self: self.open is None)
    @rule()
    def begin(self) -> None:
        self.log.begin()
        self.open = []

    @precondition(lambda self: self.open is not None)
    @rule(keep=st.booleans())
    def end(self, keep: bool) -> None:
        (self.log.commit if keep else self.log.rollback)()
        if keep and self.open:
            self.frames.append(self.open)
        self.open = None

    @precondition(lambda self: self.open is None)
    @rule()
    def clear(self) -> None:
        self.log.clear()
        self.frames = []

    @rule(torn=st.floats(0, 1), junk=st.binary(max_size=40))
    def reopen(self, torn: float, junk: bytes) -> None:
        self.log.close()
        self.open = None
        whole = os.path.getsize(self.path)
        if self.frames:  # the last write may be there in part, with anything in the place of the rest
            start = self.starts()[-1]
            cut = start + int(torn * (whole - start))
            if cut < whole:
                with open(self.path, "r+b") as file:
                    file.truncate(cut)
                    file.seek(cut)
                    file.write(junk[: whole - cut - 1])
                self.frames.pop()
        self.log = WAL(self.path)
        assert list(self.log.replay()) == self.expected()

    def starts(self) -> list[int]:
        data, at, found = Path(self.path).read_bytes(), HEADER, []
        while at < len(data):
            found.append(at)
            size = 24 + int.from_bytes(data[at + 4 : at + 8], "little")
            at += size + -size % 8
        return found

    @rule()
    def look(self) -> None:
        assert list(self.log.replay()) == self.expected()


TestModel = Model.TestCase
TestModel.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_cut_at_every_byte(tmp_path: Path, key: Optional[bytes]) -> None:
    """Whole transactions, the first ones; a header that is cut is an error, and the file stays as it is."""
    if key is not None:
        pytest.importorskip("cryptography")
    path, copy = tmp_path / "x.log", tmp_path / "copy.log"
    ends = filled(path, encryption_key=key)
    data = path.read_bytes()
    for size in range(1, len(data)):
        copy.write_bytes(data[:size])
        if size < HEADER:
            with pytest.raises(errors.ValidationError if size < 8 else errors.CorruptionError, match=str(copy)):
                WAL(copy, encryption_key=key)
            assert copy.read_bytes() == data[:size]
            continue
        left = sum(end <= size for end in ends)
        assert records(copy, encryption_key=key) == [one for n in range(left) for one in put(n)]
        assert copy.stat().st_size == [HEADER, *ends][left]


@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_every_byte_flipped(tmp_path: Path, key: Optional[bytes]) -> None:
    """In the last frame it is lost like one that was cut; anywhere else what is before is given, and then an error."""
    if key is not None:
        pytest.importorskip("cryptography")
    path, copy = tmp_path / "x.log", tmp_path / "copy.log"
    starts = [HEADER, *filled(path, encryption_key=key)]
    data = path.read_bytes()
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        copy.write_bytes(bad)
        if at < HEADER:
            with pytest.raises((errors.CorruptionError, errors.ValidationError), match=str(copy)):
                WAL(copy, encryption_key=key)
            continue
        whole = sum(start <= at for start in starts) - 1
        with WAL(copy, encryption_key=key) as log:
            found = []
            if whole < 4:
                with pytest.raises(errors.CorruptionError, match=f"at byte {starts[whole]}$") as raised:
                    found += log.replay()
                assert raised.value.offset == starts[whole]
                found = []
                with pytest.raises(errors.CorruptionError):
                    for record in log.replay():
                        found.append(record)
                with pytest.raises(errors.CorruptionError):
                    log.append("more")
                with pytest.raises(errors.CorruptionError):
                    log.begin()
                assert copy.read_bytes() == bad
                log.clear()
                log.append("more")
                assert list(log.replay()) == [{"op": "more"}]
            else:
                found += log.replay()
        assert found == [one for n in range(whole) for one in put(n)]


def test_a_torn_record_that_looks_like_frames(tmp_path: Path) -> None:
    """What a record holds is no frame, whether it has numbers everywhere, marks, or a copy of the log itself."""
    path = tmp_path / "x.log"
    ends = filled(path, 30)
    whole = path.read_bytes()
    with WAL(path) as log:
        log.clear()
        log.append("first")
        start = path.stat().st_size
        words = b"".join(struct.pack("<QQ", 4000, k) for k in range(1, 4000))
        marks = b"".join(struct.pack("<4sIQII", b"SNLF", 40, k, 0, 0) for k in range(1, 4000))
        for junk in (words, marks, whole, bytes(5) + whole):
            log.append("put", junk=junk)
        assert len(ends) == 30 and [record["op"] for record in log.replay()] == ["first"] + ["put"] * 4
    data = path.read_bytes()
    for number in range(4):  # the last one of each length is torn
        (tmp_path / "torn.log").write_bytes(data[:-7])
        found = records(tmp_path / "torn.log")
        assert len(found) == 4 - number and found[0] == {"op": "first"}
        data = (tmp_path / "torn.log").read_bytes()
    assert len(data) == start


def test_an_interrupt_leaves_all_of_a_record_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    with WAL(path) as log:
        log.append("a")
        assert log._file is not None
        file = log._file.file
        sync = file.sync

        def interrupted() -> None:
            raise KeyboardInterrupt  # as a thread that is interrupted from outside would

        monkeypatch.setattr(type(file), "sync", lambda self: interrupted())
        with pytest.raises(KeyboardInterrupt):
            log.append("b")
        monkeypatch.undo()
        assert file.sync == sync and list(log.replay()) == records_of(path) == [{"op": "a"}]
        log.append("c")
    assert records(path) == [{"op": "a"}, {"op": "c"}]


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals here")
def test_a_signal_waits_for_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    with WAL(path) as log:
        assert log._file is not None
        kind = type(log._file.file)
        sync = kind.sync

        def signalled(self: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            sync(self)

        monkeypatch.setattr(kind, "sync", signalled)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
        try:
            with pytest.raises(KeyboardInterrupt):
                log.append("a")
        finally:
            signal.signal(signal.SIGINT, before)
        monkeypatch.undo()
        assert list(log.replay()) == [{"op": "a"}]
    assert records(path) == [{"op": "a"}]


def test_what_a_killed_process_wrote_is_flushed_before_it_is_read(tmp_path: Path) -> None:
    layer = RecordingLayer()
    with using(layer):
        with WAL("x.log") as log:
            log.append("a")
        start = len(layer.log)
        with WAL("x.log") as log:
            assert [op.kind for op in layer.log[start:]] == ["sync"] and list(log.replay()) == [{"op": "a"}]


def test_a_dropped_log_can_be_opened_again(tmp_path: Path) -> None:
    log = WAL(tmp_path / "x.log")
    log.append("a")
    del log
    gc.collect()
    assert records(tmp_path / "x.log") == [{"op": "a"}]


def test_what_is_no_log_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for data in (b"hello", b"x" * 5000, b"SNAPLOGx" + bytes(600), bytes(1), bytes(512), bytes(513), b"SNAP"):
        path.write_bytes(data)
        with pytest.raises(errors.ValidationError, match="is not such a log"):
            WAL(path)
        assert path.read_bytes() == data
    with pytest.raises(errors.StorageError, match="cannot be opened"):
        WAL(tmp_path)
    with pytest.raises(errors.StorageError, match="cannot be opened"):
        WAL(tmp_path / "no" / "x.log")
    path.write_bytes(b"")  # as somebody makes it who wants the name
    assert records(path) == []
    for key in ("", b"", 5):
        with pytest.raises((errors.ValidationError, errors.ValueTypeError)):
            WAL(tmp_path / "new.log", encryption_key=key)
    assert os.listdir(tmp_path) == ["x.log"]


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    if not layer_for(str(path)).locks:
        pytest.skip("no locks here")
    with WAL(path), pytest.raises(errors.LockedError, match="already open"):
        WAL(path)
    WAL(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with WAL(path) as log:
        log.append("parent", n=1)
        child = os.fork()
        if not child:
            code = 1
            try:
                log.append("child")
            except errors.ClosedError:
                code = 7
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        if layer_for(str(path)).locks:
            with pytest.raises(errors.LockedError):
                WAL(path)
        log.append("parent", n=2)
    assert [record["n"] for record in records(path)] == [1, 2]


def test_keys(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    path = tmp_path / "x.log"
    key = bytes(32)
    with WAL(path, encryption_key=key) as log:
        log.append("put", secret="a very secret word")
    assert b"secret" not in path.read_bytes()
    assert records(path, encryption_key=key) == [{"op": "put", "secret": "a very secret word"}]
    for wrong in (None, bytes(31) + b"1", "word"):
        with pytest.raises(errors.WrongKeyError):
            WAL(path, encryption_key=wrong)
    WAL(tmp_path / "plain.log").close()
    with pytest.raises(errors.WrongKeyError, match="is not encrypted"):
        WAL(tmp_path / "plain.log", encryption_key=key)
    with WAL(tmp_path / "word.log", encryption_key="word") as log:
        log.append("a")
    assert records(tmp_path / "word.log", encryption_key="word") == [{"op": "a"}]


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("step", range(1, 14))
def test_the_file_system_refuses(tmp_path: Path, step: int, short: bool) -> None:
    """Whatever call fails: an error of this package, and afterwards what was told to be there is there."""
    layer = FaultyLayer(layer_for("x"), Plan(at=step, code=errno.ENOSPC, short=short))
    path = str(tmp_path / "x.log")
    done: list[dict[str, Any]] = []
    with using(layer):
        try:
            with WAL(path) as log:
                for n in range(3):
                    log.append("put", n=n)
                    done.append({"op": "put", "n": n})
        except (errors.StorageError, errors.DurabilityError):
            pass
    found = records(path)
    assert found[: len(done)] == done and len(found) <= len(done) + 1


@pytest.mark.parametrize("step", range(1, 12))
def test_the_disk_does_not_read(tmp_path: Path, step: int) -> None:
    path = str(tmp_path / "x.log")
    filled(path, 3)
    layer = FaultyLayer(layer_for("x"), Plan(at=step, kinds=frozenset({"read", "lock", "open"}), reads=True))
    with using(layer):
        try:
            found = records(path)
        except errors.StorageError as error:
            assert layer.failures and error.errno == errno.EIO and repr(path) in str(error)
        else:
            assert not layer.failures and found == [one for n in range(3) for one in put(n)]
    assert records(path) == [one for n in range(3) for one in put(n)]


KILLED = """
import sys
from snapdb.wal import WAL
log = WAL(sys.argv[1])
n = len(list(log.replay())) // 2
while True:
    log.begin()
    log.append("put", n=n, text="x" * (n * 7 % 20))
    log.append("also", n=n)
    log.commit()
    print(n, flush=True)
    n += 1
"""


@pytest.mark.skipif(sys.platform in ("emscripten", "wasi"), reason="no processes")
def test_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for lines in (1, 7, 20):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(lines)][-1]
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        found = records(path)
        assert len(found) >= 2 * (last + 1)
        assert found == [one for n in range(len(found) // 2) for one in put(n)]
