"""Memory footprint: what a child process's resident memory grows by when it loads one store.

Beside it what Python's allocator counts (tracemalloc, in a second child: counting takes memory itself), for those whose
memory all comes from there.

The same method for every contender. Rows are generated one at a time and the allocator is asked to give back what is
free, so that the growth is what the store keeps. Only Linux says how much is resident now; elsewhere there
is no figure.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from typing import Any, Callable, Optional

from . import rows as data
from .peers import BY_NAME, single_thread

METHOD = "growth of the resident memory of a child process that loads the store"
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from snapdb.benchmark.memory import child, traced; "
    "(traced if sys.argv[4:] else child)(sys.argv[2], int(sys.argv[3]))"
)


def resident() -> Optional[int]:
    """Bytes of this process in memory now, None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as line:
            return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _trim() -> None:
    """Collect garbage and have the C allocator return its free pages, where it can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # not glibc: freed pages may stay resident, alike for every contender


def child(name: str, rows: int) -> None:
    """Load one contender and write its figures as JSON to standard output."""
    single_thread()
    kind = BY_NAME[name]
    kind.prepare()
    kind(data.generate(2000)).close()  # what a library sets up once is not the store's
    _trim()
    before = resident()
    store = kind(data.generate(rows))
    _trim()
    after = resident()
    held = after - before if before is not None and after is not None else None
    sys.stdout.write(json.dumps({"bytes": held, "reported": store.reported_bytes()}))


def traced(name: str, rows: int) -> None:
    """Load one contender and write what Python's allocator counts for it as JSON to standard output."""
    single_thread()
    kind = BY_NAME[name]
    kind.prepare()
    kind(data.generate(2000)).close()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    store = kind(data.generate(rows))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    store.close()
    sys.stdout.write(json.dumps({"allocated": held}))


def measure(name: str, rows: int) -> dict[str, Any]:
    """For one contender ``bytes`` resident, ``allocated`` and ``reported`` by the store itself (None where unknown)."""
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), name, str(rows)]
    result: dict[str, Any] = {"allocated": None}
    for extra in [[], ["traced"]] if BY_NAME[name].traced else [[]]:
        done = subprocess.run([*command, *extra], stdout=subprocess.PIPE, check=True)
        result.update(json.loads(done.stdout))
    return result


def measure_all(names: list[str], rows: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of all contenders; none where the system does not tell."""
    found: dict[str, Any] = {}
    if resident() is not None:
        for name in names:
            say(f"memory footprint, {name}")
            figure = measure(name, rows)
            found[name] = {**figure, "bytes": max(figure["bytes"], 1)}
    return {"method": METHOD, "unit": "bytes", "contenders": found}
