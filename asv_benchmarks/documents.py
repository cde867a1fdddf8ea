"""Compares DocumentStore with sqlite3 (JSON1) and TinyDB; the exact calls are in ``document_peers.py``.

    python -m pip install . tinydb
    python asv_benchmarks/documents.py --rounds 7

Contenders take turns in one process; a ratio is taken within a round, and the median of the rounds is shown with the
smallest and the largest. Every answer is compared before anything is timed.
"""

import argparse
import json
import tempfile
from pathlib import Path

from document_peers import COUNT, PEERS, documents, same

from snapdb.benchmark.timing import rotated, seconds, spread

SINGLE = 500  # documents that are inserted one by one; TinyDB writes its file for each
NAMES = 2_000  # questions of equality in one timing
SCANS = 1  # the same for a store that looks at every document
RANGES = 5


class Comparison:
    """Seconds a piece for each contender and workload, a list of rounds."""

    def __init__(self, directory, given):
        self.directory, self.given = Path(directory), given
        self.made = 0
        self.taken = {}

    def path(self, in_memory):
        self.made += 1
        return ":memory:" if in_memory else str(self.directory / f"{self.made}.db")

    def note(self, workload, name, taken, pieces):
        self.taken.setdefault(workload, {}).setdefault(name, []).append(taken / pieces)

    def inserts(self, kind):
        """Opening, inserting, closing."""
        for where, in_memory in (("memory", True), ("file", False)):
            for workload, given in (("insert_all", self.given), ("insert_each", self.given[:SINGLE])):
                path = self.path(in_memory)

                def whole(path=path, workload=workload, given=given):
                    store = kind(path)
                    getattr(store, workload)(given)
                    store.close()

                self.note(f"{workload}, {where}", kind.name, seconds(whole)[0], len(given))

    def questions(self, store, number):
        count = len(self.given)
        names = SCANS if store.name == "TinyDB" else NAMES
        wanted = [f"user {(number + 7 * at) * 50 % count}" for at in range(names)]
        self.note("indexed equality", store.name, seconds(lambda: [store.equal(name) for name in wanted])[0], names)
        ranges = [(float(number + at), number + at + 1.0) for at in range(RANGES)]
        taken = seconds(lambda: [store.between(*one) for one in ranges])[0]
        self.note("range, no index", store.name, taken, RANGES)

    def run(self, rounds):
        stores = [kind(":memory:") for kind in PEERS]
        for store in stores:
            store.insert_all(self.given)
            store.index()
        for ask in (lambda store: store.equal("user 77"), lambda store: store.between(5, 6)):
            if not same([ask(store) for store in stores]):
                raise SystemExit("the contenders do not find the same documents")
        for number in range(rounds):
            for kind in rotated(PEERS, number):
                self.inserts(kind)
            for store in rotated(stores, number):
                self.questions(store, number)

    def ratios(self):
        """workload → contender → how many times SnapDB's time it takes."""
        return {
            workload: {
                name: spread([theirs / ours for ours, theirs in zip(taken["SnapDB"], taken[name])])
                for name in taken
                if name != "SnapDB"
            }
            for workload, taken in self.taken.items()
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=COUNT)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default=".", help="where files are made, in a directory that is removed")
    parser.add_argument("--json", help="write every figure there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        comparison = Comparison(directory, documents(options.documents))
        comparison.run(options.rounds)
    ratios = comparison.ratios()
    for workload, others in ratios.items():
        figures = {name: spread(taken)["median"] for name, taken in comparison.taken[workload].items()}
        line = [f"{workload:22} SnapDB {figures['SnapDB'] * 1e6:9.2f} us"]
        for name, ratio in others.items():
            times = f"{ratio['median']:.2f}x ({ratio['low']:.2f}-{ratio['high']:.2f})"
            line.append(f"{name} {figures[name] * 1e6:9.2f} us: {times}")
        print(" | ".join(line))
    if options.json:
        Path(options.json).write_text(json.dumps({"seconds": comparison.taken, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
