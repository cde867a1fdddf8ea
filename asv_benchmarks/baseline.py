"""Compares SnapDB with pysnapdb 0.14 from its own environment; both install a package named ``snapdb``.

    python -m venv OLD && OLD/bin/python -m pip install pysnapdb==0.14.0
    python -m pip install .
    python asv_benchmarks/baseline.py --python OLD/bin/python --rows 100000

One long-lived worker process per implementation: pysnapdb, SnapDB with the compiled kernels, SnapDB with the
pure-Python ones (no NumPy in use). Workers take turns, one at a time; a ratio is taken within a round, and the median
of the rounds is shown with the smallest and the largest. SnapDB is used as a user
would: stored answers (zone maps) allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINES = ("row", "columnar")
WORKLOADS = ("bulk_insert", "point_read", "scan_sum", "filtered_sum", "count_three", "iterate")
LEAST_SECONDS = 0.02
BASELINE = "pysnapdb"


class Peer:
    """One worker process."""

    def __init__(self, name, python, backend=None):
        self.name = name
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAPDB_", "PYTHON"))}
        if backend is not None:
            environment["SNAPDB_BACKEND"] = backend
        self.start = [python, str(HERE / "baseline_worker.py")], environment
        self.process = self._spawn()

    def _spawn(self):
        command, environment = self.start
        return subprocess.Popen(
            command, env=environment, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do, **request):
        """Send one request and wait for its answer."""
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended (exit code {self.process.wait()})")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def restart(self):
        """A fresh process, for a figure of memory."""
        self.close()
        self.process = self._spawn()


def same(one, other):
    """Whether two answers agree; sums may differ in the order of addition."""
    if isinstance(one, float):
        return abs(one - other) <= 1e-9 * abs(one)
    return one == other


def measure(peers, rows, reads, rounds, note):
    """{engine: {workload: {peer: [seconds per round]}}}"""
    for peer in peers:
        peer.ask("generate", rows=rows, reads=reads)
    result = {engine: {} for engine in ENGINES}
    for workload in WORKLOADS:
        for engine in ENGINES:
            note(f"{rows:,} rows, {engine}, {workload}")
            result[engine][workload] = one_workload(peers, engine, workload, rounds)
        if workload == "bulk_insert":
            for peer in peers:
                peer.ask("forget")
    return result


def one_workload(peers, engine, workload, rounds):
    """{peer: [seconds per round]}; answers are compared first."""
    calls, answers = {}, {}
    for peer in peers:
        peer.ask("time", engine=engine, workload=workload, calls=1)  # builds what is built once
        first = peer.ask("time", engine=engine, workload=workload, calls=1)
        answers[peer.name] = first["answer"]
        calls[peer.name] = max(1, int(LEAST_SECONDS / max(first["seconds"], 1e-9)))
    right = answers[BASELINE]
    for name, answer in answers.items():
        if not same(right, answer):
            raise SystemExit(f"{engine} {workload}: {name} answers {answer!r}, {BASELINE} {right!r}")
    seconds = {peer.name: [] for peer in peers}
    for number in range(rounds):
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            answer = peer.ask("time", engine=engine, workload=workload, calls=calls[peer.name])
            seconds[peer.name].append(answer["seconds"])
    return seconds


def measure_memory(peers, rows, note):
    """{engine: {peer: bytes}}, each in a fresh process."""
    result = {engine: {} for engine in ENGINES}
    for peer in peers:
        for engine in ENGINES:
            note(f"{rows:,} rows, {engine}, memory, {peer.name}")
            peer.restart()
            result[engine][peer.name] = peer.ask("memory", engine=engine, rows=rows)["bytes"]
    return result


def ratio(seconds, name):
    """Median, smallest and largest of baseline / ours over the rounds."""
    values = [old / new for old, new in zip(seconds[BASELINE], seconds[name])]
    return statistics.median(values), min(values), max(values)


def render(rows, times, memory, names):
    """The ratios as a Markdown table."""
    lines = [f"{rows:,} rows: times faster than {BASELINE} (median of the rounds, smallest–largest)", ""]
    lines.append("| engine | workload | " + BASELINE + " ms | " + " | ".join(names) + " |")
    lines.append("|---|---|---:|" + "---:|" * len(names))
    for engine in ENGINES:
        for workload, seconds in times[engine].items():
            cells = ["{:.2f}× ({:.2f}–{:.2f})".format(*ratio(seconds, name)) for name in names]
            old = statistics.median(seconds[BASELINE]) * 1000
            lines.append(f"| {engine} | {workload} | {old:,.2f} | " + " | ".join(cells) + " |")
        if memory:
            held = memory[engine]
            cells = [f"{held[BASELINE] / held[name]:.2f}× smaller" for name in names]
            lines.append(f"| {engine} | memory | {held[BASELINE] / 1e6:,.1f} MB | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def arguments():
    parser = argparse.ArgumentParser(description="Ratios of SnapDB to pysnapdb 0.14.")
    parser.add_argument("--python", required=True, help="the interpreter that has pysnapdb 0.14, without NumPy")
    parser.add_argument("--ours", default=sys.executable, help="the interpreter for SnapDB (default: this one)")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--reads", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backends", nargs="+", default=["c", "python"], choices=["c", "numpy", "python"])
    parser.add_argument("--json", help="write every round's seconds")
    return parser.parse_args()


def note(text):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def main():
    options = arguments()
    peers = [Peer(BASELINE, options.python)]
    peers += [Peer(f"snapdb {backend}", options.ours, backend) for backend in options.backends]
    try:
        hello = {peer.name: peer.ask("hello") for peer in peers}
        if len({one["python"] for one in hello.values()}) > 1:
            sys.stderr.write("warning: the interpreters differ in version; ratios then compare them too\n")
        if hello[BASELINE]["numpy"]:
            sys.stderr.write(f"warning: {BASELINE} has NumPy in its environment and will use it\n")
        report = {"format": 1, "workers": hello, "reads": options.reads, "rounds": options.rounds, "runs": {}}
        for rows in options.rows:
            times = measure(peers, rows, options.reads, options.rounds, note)
            memory = measure_memory(peers, rows, note) if sys.platform == "linux" else {}
            report["runs"][rows] = {"seconds": times, "memory": memory}
            note("")
            sys.stdout.write(render(rows, times, memory, [peer.name for peer in peers[1:]]) + "\n")
    finally:
        for peer in peers:
            peer.close()
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
