"""A step goes to its end or leaves everything as it was, wherever memory runs out or an interrupt comes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import pytest

from snapdb import step


class Failing:
    """A function that fails at some of its calls, before it does anything."""

    def __init__(self, did: list[Any], fails: set[int], error: Callable[[], BaseException] = MemoryError) -> None:
        self.did, self.fails, self.error = did, fails, error
        self.calls = 0

    def __call__(self, *what: Any) -> None:
        self.calls += 1
        if self.calls - 1 in self.fails:
            raise self.error()
        self.did.append(what)


def parts(did: list[Any], function: Any) -> dict[str, Any]:
    """Two calls before, four of a function, three behind."""
    return {
        "first": [partial(function, "first", n) for n in range(2)],
        "then": [partial(function, "then", n) for n in range(3)],
        "function": function,
        "items": [("item", n) for n in range(4)],
        "spread": True,
    }


WHOLE = [*[("first", n) for n in range(2)], *[("item", n) for n in range(4)], *[("then", n) for n in range(3)]]


def test_what_is_done_in_order() -> None:
    did: list[Any] = []
    step.carry_out(**parts(did, Failing(did, set())))
    assert did == WHOLE
    did.clear()
    step.carry_out([], [partial(did.append, 1)], did.append, [7, 8])
    assert did == [7, 8, 1]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_one_call_that_fails(at: int, error: Any) -> None:
    did: list[Any] = []
    if at < 2:
        with pytest.raises(error):
            step.carry_out(**parts(did, Failing(did, {at}, error)))
        assert did == WHOLE[:at]
    elif error is MemoryError:
        step.carry_out(**parts(did, Failing(did, {at})))
        assert did == WHOLE
    else:
        with pytest.raises(error):
            step.carry_out(**parts(did, Failing(did, {at}, error)))
        assert did == WHOLE, "an interrupt waits for the end"


def test_calls_that_fail_again_and_again() -> None:
    for fails in ({2, 3, 4}, {5, 6, 9}, {8, 9, 10, 11}, {2, 4, 6, 8, 10, 12, 14}):
        did: list[Any] = []
        step.carry_out(**parts(did, Failing(did, fails)))
        assert did == WHOLE


def test_no_memory_at_all() -> None:
    did: list[Any] = []
    with pytest.raises(MemoryError) as caught:
        step.carry_out(**parts(did, Failing(did, set(range(3, 99)))))
    assert type(caught.value) is MemoryError and did == WHOLE[:3]  # the caller takes back what the function did
    did = []
    with pytest.raises(step.Half):
        step.carry_out(**parts(did, Failing(did, set(range(7, 99)))))
    assert did == WHOLE[:7]


def test_what_a_call_raises_passes_on() -> None:
    did: list[Any] = []
    with pytest.raises(KeyError):
        step.carry_out(**parts(did, Failing(did, {4}, KeyError)))
    assert did == WHOLE[:4]


def test_insisting() -> None:
    did: list[Any] = []
    work = Failing(did, {0, 1, 2})
    step.insist(work)
    assert did == [()]
    with pytest.raises(step.Half):
        step.insist(Failing(did, set(range(99))))
    with pytest.raises(ValueError):
        step.insist(Failing(did, {0}, ValueError))
