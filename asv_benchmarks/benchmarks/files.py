"""Tables in files: durable commits, bare inserts, loading, opening, reopening after a kill.

Files are made in the directory that asv runs in, on the disk that the benchmarks are meant for, and removed with the
process. A write is timed once on a fresh file (number = 1); opening is repeated in the body, closing included.
"""

import os
import shutil
import tempfile
from functools import cache, lru_cache
from pathlib import Path

from snapdb.benchmark import files
from snapdb.benchmark.file_peers import FILE_BY_NAME, size_on_disk
from snapdb.benchmark.typed_files import weather_sizes

from .common import ENGINES, ROWS, rows

COMMITS = 200
INSERTS = 100_000
OPENINGS = 20


@lru_cache(maxsize=1)
def root():
    """The directory of this process; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="snapdb-asv-", dir=os.curdir)


@cache
def built(engine, count):
    """A closed file of the benchmark's rows."""
    folder = Path(tempfile.mkdtemp(dir=root().name))
    files.built(FILE_BY_NAME[engine], str(folder / "t"), count)
    return folder / "t"


@cache
def killed(engine, count):
    """The same file as a writer left it that was killed when its log was nearly full."""
    path = files.copied(built(engine, count), Path(tempfile.mkdtemp(dir=root().name)))
    files.killed(engine, str(path), count)
    return path


class _Fresh:
    """A directory for each timing."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300
    number = 1
    warmup_time = 0.0
    durability = "normal"

    def setup(self, engine, count):
        self.folder = Path(tempfile.mkdtemp(dir=root().name))
        made = rows(count)
        self.rows = made[1:]
        self.store = FILE_BY_NAME[engine](str(self.folder / "t"), self.durability)
        self.store.insert_each(made[:1])  # makes the log

    def teardown(self, engine, count):
        self.store.close()
        shutil.rmtree(self.folder)


class DurableCommit(_Fresh):
    """200 transactions of one row, each on stable storage."""

    durability = "full"

    def time_commit_full(self, engine, count):
        self.store.commit_each(self.rows[:COMMITS])


class BareInsert(_Fresh):
    """100,000 inserts of one row, durability "normal"."""

    def time_insert_normal(self, engine, count):
        self.store.insert_each(self.rows[:INSERTS])


class LoadFile(_Fresh):
    """A batch of dicts into a fresh file."""

    def time_load_file(self, engine, count):
        self.store.load(self.rows)

    def time_load_stored(self, engine, count):
        self.store.load(self.rows)
        self.store.close()


class FileSize:
    """What a closed file takes."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def track_file_size(self, engine, count):
        return size_on_disk(str(built(engine, count))) / count

    track_file_size.unit = "bytes/row"


class FileOfWeather:
    """What the bundled weather.csv takes as a closed file; the number of rows changes nothing."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def track_file_parquet(self, engine, count):
        with tempfile.TemporaryDirectory(dir=root().name) as folder:
            return weather_sizes([engine], folder)[engine]

    track_file_parquet.unit = "bytes"


class OpenFile:
    """20 times: open a closed file, ask or not, close it."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300

    def setup(self, engine, count):
        self.path = str(built(engine, count))
        self.kind = FILE_BY_NAME[engine]

    def time_open_file(self, engine, count):
        for _ in range(OPENINGS):
            self.kind.open(self.path).close()

    def time_open_bounds(self, engine, count):
        for _ in range(OPENINGS):
            store = self.kind.open(self.path)
            store.bounds()
            store.close()


class Recover:
    """Open what a killed writer left: 16 MiB of log behind a file of the rows."""

    params = (ENGINES, ROWS)
    param_names = ("engine", "rows")
    timeout = 300
    number = 1
    warmup_time = 0.0

    def setup(self, engine, count):
        self.folder = Path(tempfile.mkdtemp(dir=root().name))
        self.path = str(files.copied(killed(engine, count), self.folder))
        self.kind = FILE_BY_NAME[engine]
        self.store = None

    def time_recover(self, engine, count):
        self.store = self.kind.open(self.path)

    def teardown(self, engine, count):
        if self.store is not None:
            self.store.close()
        shutil.rmtree(self.folder)
