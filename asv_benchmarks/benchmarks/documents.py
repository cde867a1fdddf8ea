"""Documents: inserting them, and finding some with an index and without."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from document_peers import Snap, documents


class Documents:
    """A store in memory."""

    params = ([10_000, 100_000],)
    param_names = ("documents",)
    timeout = 300

    def setup(self, count):
        self.given = documents(count)
        self.store = Snap(":memory:")
        self.store.insert_all(self.given)
        self.store.index()

    def teardown(self, count):
        self.store.close()

    def time_insert_documents(self, count):
        store = Snap(":memory:")
        store.insert_all(self.given)
        store.close()

    def time_find_by_index(self, count):
        for number in range(0, count, count // 1_000):
            self.store.equal(f"user {number}")

    def time_find_by_range(self, count):
        self.store.between(5, 6)

    def peakmem_documents(self, count):
        pass

    def track_bytes_per_document(self, count):
        return self.store.store._db.memory_usage() / count

    track_bytes_per_document.unit = "bytes"
