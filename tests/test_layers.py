"""The layers for tests: what they record, and how they fail."""

from __future__ import annotations

import errno
from typing import Any, Optional

import pytest

from snapdb.storage.files import PosixLayer
from snapdb.testing.layers import FaultyLayer, Op, Plan, RecordingFile, RecordingLayer


def kinds(layer: RecordingLayer) -> list[str]:
    return [op.kind for op in layer.log]


# -- recording -------------------------------------------------------------
def test_the_log() -> None:
    layer = RecordingLayer()
    file = layer.open("/d/x", "x")
    file.pwrite(memoryview(b"abc"), 2)
    file.allocate(0, 10)
    file.truncate(7)
    layer.mark(("commit", 1))
    file.sync()
    layer.rename("/d/x", "/d/y", False)
    layer.sync_dir("/d/y")
    file.pread(3, 0)
    file.pwrite(b"", 0)
    layer.unlink("/d/y")
    assert layer.log == [
        Op("create", "/d/x", 1),
        Op("write", "/d/x", 1, 2, b"abc", 3),
        Op("allocate", "/d/x", 1, 0, None, 10),
        Op("truncate", "/d/x", 1, 0, None, 7),
        Op("mark", data=("commit", 1)),
        Op("sync", "/d/x", 1),
        Op("rename", "/d/x", 1, target="/d/y"),
        Op("sync_dir", "/d"),
        Op("unlink", "/d/y", 1),
    ]
    assert layer.contents() == {}


def test_what_is_logged_does_not_change() -> None:
    layer = RecordingLayer()
    data = bytearray(b"abc")
    layer.open("x", "x").pwrite(data, 0)
    data[0] = 0
    assert layer.log[-1].data == b"abc" and layer.contents() == {"x": b"abc"}


def test_images() -> None:
    image = {"a": b"first", "b": b""}
    layer = RecordingLayer.from_contents(image, record=False)
    assert layer.contents() == image
    assert layer.numbers() == {"a": 1, "b": 2} and layer.numbered() == {1: b"first", 2: b""}
    file = layer.open("a", "w")
    file.pwrite(b"F", 0)
    layer.mark("nothing")
    file.sync()
    layer.rename("a", "c", True)
    layer.unlink("b")
    assert layer.contents() == {"c": b"First"} and layer.log == [] and image["a"] == b"first"
    assert layer.numbers() == {"c": 1}
    layer.open("a", "x")
    assert layer.numbers() == {"c": 1, "a": 3}


def test_no_map_unless_asked() -> None:
    layer = RecordingLayer({"x": b"abc"})
    assert not layer.maps and layer.open("x", "r").map(3) is None


def test_a_map_follows_a_file_that_grows() -> None:
    layer = RecordingLayer({"x": bytes(100)}, maps=True)
    file = layer.open("x", "w")
    views = []
    for turn in range(1, 20):
        view = file.map(file.size())
        assert view is not None
        views.append(view[10:13])
        file.pwrite(b"q" * 50, file.size() - 10)
        file.pwrite(bytes([turn]) * 3, 10)
        assert all(bytes(view) == bytes([turn]) * 3 for view in views)
    node = file._node
    assert node is not None and 5 < len(node.shadows) < 21
    del view
    views.clear()
    file.allocate(0, 5000)
    file.allocate(0, 6000)
    assert len(node.shadows) == 0


def test_shortening_below_a_map_is_refused() -> None:
    layer = RecordingLayer({"x": bytes(100)}, maps=True)
    file = layer.open("x", "w")
    view = file.map(60)
    assert view is not None
    with pytest.raises(OSError) as caught:
        file.truncate(59)
    assert caught.value.errno == errno.EBUSY and file.size() == 100
    file.truncate(60)
    assert file.size() == 60
    file.pwrite(b"abc", 0)
    assert view[:3] == b"abc"
    view.release()
    file.truncate(1)
    assert file.pread(9, 0) == b"a"


def test_abandoning_keeps_the_lock() -> None:
    layer = RecordingLayer({"x": b""})
    one, two = layer.open("x", "w"), layer.open("x", "w")
    assert one.lock(True)
    one.close(abandon=True)
    assert not two.lock(True)  # a child of a fork went away; the parent has the lock


def test_limited_space() -> None:
    layer = RecordingLayer({"a": bytes(50), "b": bytes(30)}, space=100)
    file = layer.open("b", "w")
    file.pwrite(b"x" * 50, 0)
    for attempt in (lambda: file.pwrite(b"y", 50), lambda: file.allocate(0, 51)):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.ENOSPC
    file.pwrite(b"z" * 50, 0)
    layer.unlink("a")
    file.allocate(0, 100)
    assert kinds(layer) == ["write", "write", "unlink", "allocate"]


def test_synced() -> None:
    layer = RecordingLayer({"x": b"abcdef"})
    file = layer.open("x", "w")
    assert layer.synced(1) == b"abcdef"
    file.pwrite(b"X", 0)
    assert layer.synced(1) == b"abcdef"
    file.sync()
    file.truncate(3)
    other = layer.open("y", "x")
    other.pwrite(b"1", 0)
    other.sync()
    assert layer.synced(1) == b"Xbcdef" and layer.synced(2) == b"1"
    file.sync()
    file.allocate(0, 9)
    assert layer.synced(1) == b"Xbc"


# -- failing ---------------------------------------------------------------
def faulty(plan: Optional[Plan], **options: Any) -> tuple[FaultyLayer, RecordingLayer]:
    inner = RecordingLayer({"x": b"0123456789"}, **options)
    return FaultyLayer(inner, plan), inner


def workload(layer: FaultyLayer) -> list[int]:
    """One of everything; returns the errno of each step, 0 where it worked."""
    results: list[int] = []

    def step(call: Any) -> Any:
        try:
            result = call()
        except OSError as error:
            results.append(error.errno or -1)
            return None
        results.append(0)
        return result

    file = step(lambda: layer.open("x", "w"))
    if file is None:
        file = FaultyLayer(layer.inner).open("x", "w")
        file._layer = layer
    for call in (
        lambda: file.lock(True),
        lambda: file.pread(4, 0),
        lambda: file.map(4),
        lambda: file.pwrite(b"abcd", 0),
        lambda: file.allocate(0, 20),
        lambda: file.sync(),
        lambda: file.truncate(15),
        lambda: layer.open("y", "x").close(),
        lambda: layer.sync_dir("y"),
        lambda: layer.rename("x", "z", False),
        lambda: layer.unlink("z"),
    ):
        step(call)
    file.close()
    return results


def test_counting() -> None:
    layer, _ = faulty(None)
    assert workload(layer) == [0] * 12
    expected = ["open", "lock", "write", "allocate", "sync", "truncate", "create", "sync_dir", "rename", "unlink"]
    assert layer.operations == 10 and layer.trace == expected and layer.failures == 0
    layer, _ = faulty(Plan(0, reads=True))
    assert workload(layer) == [0] * 12 and layer.operations == 12
    layer, _ = faulty(Plan(0, forever=True, kinds=frozenset({"sync", "sync_dir"})))
    assert workload(layer) == [0] * 12 and layer.trace == ["sync", "sync_dir"] and layer.failures == 0


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_the_nth_fails_once(code: int) -> None:
    for at in range(1, 13):
        layer, inner = faulty(Plan(at, code, reads=True))
        results = workload(layer)
        assert results[at - 1] == code
        # a file that got no new name cannot be removed by it
        assert sum(map(bool, results)) == (2 if at == 11 else 1) and layer.failures == 1
        assert "x" in inner.contents() if at == 11 else "x" not in inner.contents()


def test_the_nth_fails_for_ever() -> None:
    for at in range(1, 13):
        layer, _ = faulty(Plan(at, forever=True, reads=True))
        assert workload(layer) == [0] * (at - 1) + [errno.EIO] * (13 - at)
        assert layer.failures == 13 - at
        layer.plan = None
        layer.open("w", "x").close()  # healed


def test_nothing_happens_in_an_operation_that_fails() -> None:
    layer, inner = faulty(Plan(1, forever=True, kinds=frozenset({"write", "allocate", "truncate", "rename", "create"})))
    file = layer.open("x", "w")
    for call in (
        lambda: file.pwrite(b"abc", 0),
        lambda: file.allocate(0, 100),
        lambda: file.truncate(0),
        lambda: layer.rename("x", "y", True),
        lambda: layer.open("y", "x"),
    ):
        with pytest.raises(OSError):
            call()
    assert inner.contents() == {"x": b"0123456789"} and inner.log == []
    assert file.size() == layer.size("x") == 10 and layer.exists("x") and not layer.exists("y")
    assert file.identity() == layer.identity("x") == (inner.device, 1)
    assert file.fileno() == -1 and not layer.is_remote("x") and layer.promises() == inner.promises()


def test_short_writes() -> None:
    layer, inner = faulty(Plan(1, errno.ENOSPC, short=True, forever=True))
    layer.plan = None
    file = layer.open("x", "w")
    layer.plan = Plan(1, errno.ENOSPC, short=True, forever=True)
    with pytest.raises(OSError):
        file.pwrite(b"abcdef", 8)
    assert inner.contents()["x"] == b"01234567abc"
    with pytest.raises(OSError):
        file.allocate(0, 30)
    assert file.size() == 15


def test_a_failed_sync_keeps_the_bytes_readable() -> None:
    layer, inner = faulty(Plan(1, kinds=frozenset({"sync"})))
    file = layer.open("x", "w")
    file.pwrite(b"abc", 8)
    with pytest.raises(OSError):
        file.sync()
    assert file.pread(99, 0) == b"01234567abc"
    file.pwrite(b"X", 0)
    file.sync()  # says yes, and yet what was written before is not there
    assert kinds(inner) == ["write", "sync_failed", "write", "sync"]
    assert inner.synced(1) == b"X123456789\0"


def test_a_failed_sync_loses_the_bytes() -> None:
    layer, inner = faulty(Plan(2, lost=True, forever=True, kinds=frozenset({"sync"})))
    file = layer.open("x", "w")
    file.pwrite(b"abc", 0)
    file.sync()
    file.pwrite(b"defghi", 6)
    file.pwrite(b"X", 1)
    for _ in range(2):
        with pytest.raises(OSError):
            file.sync()
        assert file.pread(99, 0) == b"abc3456789\0\0"
    assert inner.synced(1) == b"abc3456789"
    layer.plan = None
    file.sync()
    assert inner.synced(1) == b"abc3456789\0\0"
    assert kinds(inner) == ["write", "sync", "write", "write", "lost", "lost", "sync"]


def test_loss_is_known_only_where_it_is_recorded() -> None:
    file = RecordingLayer({"x": b"abc"}, record=False).open("x", "w")
    assert isinstance(file, RecordingFile)
    with pytest.raises(ValueError):
        file.lose()
    file.fail_sync()


def test_over_real_files(tmp_path: Any) -> None:
    layer = FaultyLayer(PosixLayer(), Plan(2, errno.EIO, lost=True, kinds=frozenset({"sync"})))
    assert layer.maps and layer.locks and layer.threads
    file = layer.open(str(tmp_path / "x"), "x")
    file.pwrite(b"abc", 0)
    file.sync()
    with pytest.raises(OSError):
        file.sync()
    view = file.map(3)
    assert file.pread(9, 0) == b"abc" and view is not None and view == b"abc" and file.lock(True)
    file.unlock()
    file.close()
