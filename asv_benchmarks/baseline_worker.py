"""A worker of baseline.py: one implementation of ``snapdb``, driven by JSON lines on standard input.

It runs in the environment of the implementation it measures and so imports only the standard library and ``snapdb``;
the rows come from ``snapdb/benchmark/rows.py`` of this repository, loaded as a file. Requests:

``{"do": "hello"}`` → version and kernels;
``{"do": "generate", "rows": N, "reads": N}``; ``{"do": "forget"}`` drops the rows;
``{"do": "time", "engine": E, "workload": W, "calls": N}`` → seconds per call and the answer;
``{"do": "memory", "engine": E, "rows": N}`` → bytes by which the resident memory grew.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import snapdb
from snapdb import ColumnDef, Schema, SnapDB

ROWS = Path(__file__).resolve().parent.parent / "snapdb" / "benchmark" / "rows.py"


def _load_rows():
    spec = importlib.util.spec_from_file_location("benchmark_rows", ROWS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


data = _load_rows()
#: pysnapdb 0.14 has no in-memory database (":memory:" is a file's name there)
OLD = not hasattr(snapdb, "_ext")
FOLDER = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def open_store(engine):
    """A fresh store: in memory, or for the baseline a file in a memory-backed folder where there is one."""
    schema = Schema([ColumnDef(name, dtype) for name, dtype in data.SCHEMA])
    path = tempfile.mkdtemp(dir=FOLDER) + "/bench.snap" if OLD else ":memory:"
    return SnapDB(path, schema, storage_type=engine)


def close_store(store):
    path = getattr(store, "path", None)
    store.close()
    if OLD and path is not None:
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def point_read(store, keys):
    get = store.get
    row = None
    for i in keys:
        row = get(i)
    return row


def iterate(store, keys):
    count = 0
    for _pair in store:
        count += 1
    return count


def scan_sum(store, keys):
    if OLD and not store.is_columnar():  # its row engine has neither aggregates nor filters: a loop is what a user has
        return sum(row["temp"] for _, row in store)
    return store.aggregate("temp", "sum")


def filtered_sum(store, keys):
    if not OLD:
        return store.aggregate("temp", "sum", where=list(data.SENSOR))
    if store.is_columnar():  # aggregate() takes only a callable there; this is the faster way
        return sum(row["temp"] for row in store.select_where(list(data.SENSOR), columns=["temp"]))
    return sum(row["temp"] for _, row in store if row["sensor"] > 8)


def count_three(store, keys):
    if OLD and not store.is_columnar():
        found = 0
        for _, row in store:
            if row["sensor"] > 8 and row["status"] == "active" and row["temp"] < 35.0:
                found += 1
        return found
    return store.count_where(list(data.THREE))


READING = {
    "point_read": point_read,
    "scan_sum": scan_sum,
    "filtered_sum": filtered_sum,
    "count_three": count_three,
    "iterate": iterate,
}


class Worker:
    """Keeps the rows and one loaded store per engine between requests."""

    def __init__(self):
        self.rows = []
        self.keys = []
        self.stores = {}

    def hello(self):
        extension = getattr(snapdb, "_ext", None)
        return {
            "version": snapdb.__version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "backend": "python" if extension is None else extension.BACKEND,
            "numpy": importlib.util.find_spec("numpy") is not None,
        }

    def generate(self, rows, reads):
        self.close()
        self.rows = list(data.generate(rows))
        self.keys = data.keys(rows, reads)
        return {}

    def forget(self):
        self.rows = []
        gc.collect()
        return {}

    def time(self, engine, workload, calls):
        if workload == "bulk_insert":
            return self._insert(engine)
        store, run, keys = self.stores[engine], READING[workload], self.keys
        gc.collect()
        start = time.perf_counter()
        for _ in range(calls):
            answer = run(store, keys)
        return {"seconds": (time.perf_counter() - start) / calls, "answer": answer}

    def _insert(self, engine):
        if engine in self.stores:
            close_store(self.stores.pop(engine))
        gc.collect()
        start = time.perf_counter()
        store = self.stores[engine] = open_store(engine)
        store.batch_insert(self.rows)
        return {"seconds": time.perf_counter() - start, "answer": len(store)}

    def memory(self, engine, rows):
        first = open_store(engine)
        first.batch_insert(list(data.generate(2000)))
        close_store(first)
        before = resident()
        store = open_store(engine)
        store.batch_insert(list(data.generate(rows)))
        held = resident() - before
        close_store(store)
        return {"bytes": max(held, 1)}

    def close(self):
        while self.stores:
            close_store(self.stores.popitem()[1])
        return {}


def resident():
    """Bytes of this process in memory, after everything free was given back."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass
    with open("/proc/self/statm", encoding="ascii") as line:
        return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    worker = Worker()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(worker, request.pop("do"))(**request)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        worker.close()
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
