"""The benchmark: it runs, checks its answers, and reports what docs/benchmarks.md says. No timing is judged."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import types
from pathlib import Path

import pytest

import snapdb
from snapdb import _ext, cli
from snapdb.benchmark import file_peers, files, machine, peers, report, rows, runner, timing, workloads

KEYS = {
    "format", "rows", "reads", "rounds", "machine", "python", "backend", "versions", "labels", "skipped", "workloads",
    "ratios", "files", "indexes",
}  # fmt: skip
ALWAYS = {"columnar", "row", "dict"}
NOT_TIMED = {"memory", "index_bytes"}
ITEMS = {"point_read": 500, "lookup": 500, "bounds": 1, **dict.fromkeys(peers.RANGES, 200)}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The thread limits that the command sets are this test's only."""
    for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def test_rows_are_the_agreed_ones():
    made = list(rows.generate(17))
    assert [(row["id"], row["ts"], row["sensor"], row["status"]) for row in made[:4]] == [
        (0, 1_700_000_000, 0, "active"), (1, 1_700_000_001, 1, "idle"), (2, 1_700_000_002, 2, "banned"),
        (3, 1_700_000_003, 3, "active"),
    ]  # fmt: skip
    assert made[16]["sensor"] == 0
    # random.Random(42).random() is fixed by the language
    assert made[0]["temp"] == 20 + 30 * 0.6394267984578837
    assert made[1]["temp"] == 20 + 30 * 0.025010755222666936


def test_contenders_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(peers.Pandas, "available", classmethod(lambda cls: False))
    plan = runner.plan(300, 20, 1, ["scan_sum", "columnar", "pandas"])
    assert plan.skipped == ("pandas",)
    result = runner.run(plan)
    assert result["skipped"] == ["pandas"]
    assert "Not installed: pandas.\n" in report.markdown(result)


def test_bench_command_writes_json_and_markdown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "OPENINGS", 1)
    monkeypatch.setattr(runner, "LEAST_SECONDS", 0.001)
    monkeypatch.setattr(timing, "gc", types.SimpleNamespace(collect=lambda: 0))  # 0.1 s each with all libraries loaded
    json_file, markdown_file = tmp_path / "bench.json", tmp_path / "bench.md"
    folder = tmp_path / "here"
    folder.mkdir()
    arguments = ["bench", "--rows", "2000", "--reads", "500", "--rounds", "2", "--commits", "20"]
    arguments += ["--directory", str(folder)]
    assert cli.main([*arguments, "--json", str(json_file), "--markdown", str(markdown_file)]) == 0
    text = markdown_file.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    found = json.loads(json_file.read_text(encoding="utf-8"))
    assert set(found) - {"memory"} == KEYS
    assert ("memory" in found) is True
    assert (found["rows"], found["reads"], found["rounds"]) == (2000, 500, 2)
    assert found["backend"]["name"] == _ext.BACKEND
    assert set(found["machine"]) == {"processor", "architecture", "cores", "system"}
    assert ALWAYS <= set(found["labels"])
    assert set(found["workloads"]) == set(workloads.NAMES) - NOT_TIMED
    check_indexes(found)
    for name, workload in found["workloads"].items():
        there = {one for one in found["labels"] if name not in peers.BY_NAME[one].lacks}
        if name == "insert_columns" and not peers.NumPy.available():
            there = set()
        assert set(workload["contenders"]) == there
        for _, figure in workload["contenders"].items():
            assert len(figure["seconds"]) == 2
            assert figure["per_second"] == figure["items"] / statistics.median(figure["seconds"])
            assert figure["items"] <= ITEMS.get(name, 2000)
            assert set(found["ratios"][name]["row"]) == there - {"row"}
    for name, title in workloads.TITLES.items():
        assert title in text or name.startswith("memory")
    for label in found["labels"].values():
        assert label in text
    assert list(folder.iterdir()) == [], "the files are gone"
    assert str(tmp_path) not in json_file.read_text(encoding="utf-8")
    check_files(found["files"], text)


def check_indexes(found):
    told = found["indexes"]["contenders"]
    assert set(told) == {"columnar", "row", "sqlite"} & set(found["labels"])
    for one in told.values():
        assert 4 < one["hash"] < 200 and 4 < one["range"] < 200
    assert set(found["ratios"]["range_index_bytes"]["row"]) == set(told) - {"row"}


def check_files(found, text):
    labels = set(found["labels"])
    assert labels - {"sqlite"} == {"columnar", "row"}
    assert set(found["workloads"]) == set(files.FILE_NAMES) - {"file_size", "file_parquet"}
    assert {"columnar", "row"} <= set(found["weather"]) and min(found["weather"].values()) > 100_000
    assert f"SnapDB columnar {found['weather']['columnar']:,} bytes" in text
    assert set(found["sizes"]) == labels and min(found["sizes"].values()) > 0
    for name, workload in found["workloads"].items():
        there = labels - {"sqlite"} if name == "recover" else labels
        assert set(workload["contenders"]) == there
        for figure in workload["contenders"].values():
            assert len(figure["seconds"]) == 2
        assert set(found["ratios"][name]["row"]) == there - {"row"}
    items = {name: found["workloads"][name]["contenders"]["row"]["items"] for name in found["workloads"]}
    assert items == {
        "commit_full": 19, "insert_normal": 1999, "load_file": 1999, "load_stored": 1999, "open_file": 1,
        "open_bounds": 1, "recover": 1,
    }  # fmt: skip
    for title in files.FILE_TITLES.values():
        assert title in text


def test_file_workloads_alone(tmp_path):
    plan = runner.plan(300, 20, 1, ["open_bounds", "row", "dict"], directory=str(tmp_path))
    assert (plan.workloads, plan.file_workloads) == ((), ("open_bounds",))
    assert plan.file_contenders == (file_peers.FILE_BY_NAME["row"],)
    found = runner.run(plan)
    assert found["workloads"] == {}
    assert set(found["files"]["workloads"]) == {"open_bounds"}
    text = report.markdown(found)
    assert "open, then MIN, MAX, COUNT (ms)" in text
    assert "Figures (median of the rounds)" not in text
    everything = runner.plan(300, 20, 1, ["files"])
    assert (everything.workloads, everything.file_workloads) == ((), files.FILE_NAMES)
    assert "files" not in runner.run(runner.plan(300, 20, 1, ["scan_sum", "dict"]))


def test_files_in_memory_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "file_system", lambda directory: "tmpfs")
    plan = runner.plan(100, 20, 1, ["open_file", "row"], directory=str(tmp_path))
    assert "tmpfs is memory" in report.markdown(runner.run(plan))


def test_lost_rows_stop_the_run(tmp_path, monkeypatch):
    def lose(self, rows):
        self.db.batch_insert(list(rows)[:-1])

    monkeypatch.setattr(file_peers.SnapFileRow, "load", lose)
    with pytest.raises(workloads.WrongAnswer, match="SnapDB row: bulk insert: 99 rows"):
        runner.run(runner.plan(100, 10, 1, ["load_file", "row"], directory=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_is_no_killed_one(tmp_path):
    with pytest.raises(RuntimeError, match="the writer that was to be killed failed"):
        files.killed("row", str(tmp_path / "nothing there"), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")
def test_the_file_system_has_a_name(tmp_path):
    assert machine.file_system(str(tmp_path)) != "unknown"
    assert machine.file_system("/proc") == "proc"
    assert machine.file_system(str(tmp_path / "nothing there")) == "unknown"


def test_ratios_are_taken_within_rounds():
    figures = {
        "row": {"seconds": [1.0, 2.0, 4.0], "items": 10},
        "sqlite": {"seconds": [10.0, 10.0, 10.0], "items": 10},
        "pandas": {"seconds": [1.0, 2.0, 4.0], "items": 1},
    }
    found = runner.ratios({"workloads": {"point_read": {"contenders": figures}}})["point_read"]
    assert set(found) == {"row"}
    assert found["row"]["sqlite"] == {"median": 5.0, "low": 2.5, "high": 10.0}
    assert found["row"]["pandas"] == {"median": 10.0, "low": 10.0, "high": 10.0}


def test_only_picks_workloads_and_contenders():
    plan = runner.plan(10, 10, 1, ["scan_sum", "row", "dict"])
    assert plan.workloads == ("scan_sum",)
    assert [one.name for one in plan.contenders] == ["row", "dict"]
    assert plan.file_workloads == ()
    assert runner.plan(10, 10, 1).workloads == workloads.NAMES
    assert runner.plan(10, 10, 1, ["row"]).file_workloads == files.FILE_NAMES
    with pytest.raises(ValueError, match="unknown workload or contender nobody"):
        runner.plan(10, 10, 1, ["nobody"])


def test_a_missing_library_is_left_out(monkeypatch):
    monkeypatch.setattr(peers.Pandas, "requires", ("a_module_that_is_not_there",))
    names = [one.name for one in runner.plan(10, 10, 1).contenders]
    assert "pandas" not in names
    assert ALWAYS <= set(names)


def test_scan_sum_goes_without_stored_answers(monkeypatch):
    seen = []
    before = peers.SnapColumnar.before

    def spy(self, workload):
        before(self, workload)
        seen.append((workload, self.db._engine.zone_answers))

    monkeypatch.setattr(peers.SnapColumnar, "before", spy)
    runner.run(runner.plan(100, 10, 1, ["scan_sum", "zone_sum", "columnar"]))
    assert set(seen) == {("scan_sum", False), ("zone_sum", True)}
    seen.clear()
    runner.run(runner.plan(100, 10, 1, ["int_sum", "packed_sum", "bounds", "columnar"]))
    assert set(seen) == {("int_sum", False), ("packed_sum", False), ("bounds", True)}


def test_a_wrong_answer_stops_the_run(monkeypatch):
    monkeypatch.setattr(peers.Dicts, "count_three", lambda self: -1)
    with pytest.raises(workloads.WrongAnswer, match="dict: three-condition filter: -1 instead of"):
        runner.run(runner.plan(100, 10, 1, ["count_three", "dict"]))
    monkeypatch.setattr(peers.Dicts, "select_records", lambda self: [{"id": 3}])
    with pytest.raises(workloads.WrongAnswer, match="dict: its ids as records: not the"):
        runner.run(runner.plan(100, 10, 1, ["select_records", "dict"]))
    monkeypatch.setattr(peers.Dicts, "group_sum", lambda self: {"active": 1.0})
    with pytest.raises(workloads.WrongAnswer, match="dict: SUM by status"):
        runner.run(runner.plan(100, 10, 1, ["group_sum", "dict"]))
    monkeypatch.setattr(peers.SnapRow, "iterate", lambda self: 99)
    with pytest.raises(workloads.WrongAnswer, match="SnapDB row: single_insert: not all of the 100 rows"):
        runner.run(runner.plan(100, 10, 1, ["single_insert", "row"]))


def indexes_of(store):
    """The indexes that a store of either library has on the rows."""
    if isinstance(store, peers.Sqlite):
        found = store.connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        return {name for (name,) in found}
    named = store.db._indexes.described()
    return {(column, kind) for kind, columns in named.items() for column in columns}


@pytest.mark.parametrize("name", ["row", "columnar", "sqlite"])
def test_a_question_finds_its_index_and_no_other(name, monkeypatch):
    kind = peers.BY_NAME[name]
    if not kind.available():
        pytest.skip("not installed")
    seen = {}
    before = kind.before

    def spy(self, workload):
        before(self, workload)
        seen.setdefault(workload, set()).add(frozenset(indexes_of(self)))

    monkeypatch.setattr(kind, "before", spy)
    asked = ("lookup", "range_unsorted", "range_sorted", "range_zones", "query_top", "create_index", "count_three")
    runner.run(runner.plan(300, 10, 2, [*asked, name]))
    if name == "sqlite":  # it has its primary key for the lookup; against zone maps it has an index
        right = {"range_unsorted": {"t_temp"}, "range_sorted": {"t_ts"}, "range_zones": {"t_ts"}}
    else:
        right = {
            "lookup": {("id", "hash")}, "range_unsorted": {("temp", "range")}, "range_sorted": {("ts", "range")},
        }  # fmt: skip
    assert seen == {workload: {frozenset(right.get(workload, ()))} for workload in asked}


@pytest.mark.parametrize("name", ["row", "columnar", "sqlite"])
def test_indexes_are_made_anew_in_each_timing(name, monkeypatch):
    kind = peers.BY_NAME[name]
    if not kind.available():
        pytest.skip("not installed")
    made = []
    for call, of in peers.MAKING.items():
        create = getattr(kind, call)

        def spy(self, create=create, of=of):
            try:
                before = self.held(rows.packed(1)[0], of)
            except Exception as error:  # sqlite3 has its own name for a missing index
                before = type(error).__name__
            create(self)
            made.append((before, self.held(rows.packed(1)[0], of)))

        monkeypatch.setattr(kind, call, spy)
    result = runner.run(runner.plan(300, 10, 3, [*peers.MAKING, "index_bytes", name]))
    missing = "OperationalError" if name == "sqlite" else -1
    assert set(made) == {(missing, rows.packed(300).count(rows.packed(1)[0]))}
    assert all(result["workloads"][call]["contenders"][name]["calls"] == 1 for call in peers.MAKING)
    assert set(result["indexes"]["contenders"][name]) == {"hash", "range"}
    assert "hash index, per entry (bytes)" in report.markdown(result)


def test_ranges_hold_as_many_rows_as_they_say():
    made = list(rows.generate(1000))
    asked = workloads.asked_of(made, 10)
    for column, ranges in (("temp", asked.temp), ("ts", asked.ts)):
        assert len(ranges) == rows.RANGES
        assert len(set(ranges)) > 100
        assert {sum(low <= row[column] <= high for row in made) for low, high in ranges} == {rows.SPAN}
    assert workloads.asked_of(made[:7], 10).ts == [(1_700_000_000, 1_700_000_006)] * rows.RANGES


def test_changes_are_of_different_rows():
    made = rows.changes(1000, 400)
    assert len({key for key, _ in made}) == len(made) == 400
    assert len(rows.changes(300, 400)) == 150
    assert {key for key, _ in rows.changes(1, 400)} == {0}


def test_the_join_pairs_each_visit_with_its_place():
    assert workloads.joined(3) == [(row["visit"], f"place {row['place']}") for row in rows.visits(3)]
    assert len({row["place"] for row in rows.visits(20_000)}) == rows.SMALL == len(list(rows.places()))


@pytest.mark.parametrize(
    ("workload", "call", "wrong", "says"),
    [
        ("lookup", "lookup", lambda self, ids: self.db.get(0), "lookup by an indexed id"),
        ("range_unsorted", "range_temp", lambda self, ranges: [], "range of 100 rows, index: not the 100 rows"),
        ("range_zones", "range_ts", lambda self, ranges: self.db.range_find("ts", *ranges[0]), "no index: not the"),
        ("create_index", "create_index", lambda self: None, "create a hash index: -1 instead of"),
        ("create_range_index", "create_range_index", lambda self: None, "create a range index: -1 instead of"),
        ("query_top", "query_top", lambda self: [], "ten best rows under a condition: not the 10 rows"),
        ("join", "join", lambda self: [], "join with 1,000 rows: not the 300 rows"),
        ("single_update", "update_each", lambda self, changes: None, "update row by row: not the 300 rows"),
        ("single_delete", "delete_each", lambda self, changes: None, "delete row by row: not the 150 rows"),
    ],
)
def test_a_wrong_answer_of_the_row_engine_stops_the_run(workload, call, wrong, says, monkeypatch):
    monkeypatch.setattr(peers.SnapRow, call, wrong)
    with pytest.raises(workloads.WrongAnswer, match=f"SnapDB row: .*{says}"):
        runner.run(runner.plan(300, 10, 1, [workload, "row"]))


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from Linux's /proc")
def test_memory_is_measured_in_a_child():
    found = runner.run(runner.plan(2000, 10, 1, ["memory", "columnar", "dict"]))
    assert found["workloads"] == {}
    assert set(found["memory"]["contenders"]) == {"columnar", "dict"}
    assert found["memory"]["contenders"]["columnar"]["reported"] > 0
    assert found["memory"]["contenders"]["dict"]["reported"] is None
    assert found["memory"]["contenders"]["columnar"]["allocated"] > 0
    assert set(found["ratios"]["memory"]["columnar"]) == {"dict"}
    assert found["ratios"]["memory_reported"] == {"columnar": {}}
    assert "memory footprint (MB)" in report.markdown(found)


def test_the_report_names_no_host_and_no_path():
    text = json.dumps(machine.facts())
    assert "/" not in text.replace("\\/", "/") or "/home" not in text
    assert set(machine.facts()) == {"machine", "python", "backend"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0012, "0.0012"), (0.5, "0.50"), (9.996, "10.0"), (99.96, "100"), (999.6, "1.00 k"),
     (12_345, "12.3 k"), (1_000_000, "1.00 M"), (2.5e9, "2.50 G")],
)  # fmt: skip
def test_amounts(value, text):
    assert report.amount(value) == text


def test_tables_line_up():
    text = report.table(["", "long header"], [["a", "1"], ["bbb", "22"]])
    assert len({len(line) for line in text.splitlines()}) == 1
    assert text.splitlines()[1] == "|-----|------------:|"


# -- asv_benchmarks: not installed with the package, run here once on few rows --------------------------------------

SUITE = Path(__file__).resolve().parent.parent / "asv_benchmarks"
needs_suite = pytest.mark.skipif(not SUITE.exists(), reason="asv_benchmarks is only in the checkout")


@needs_suite
def test_asv_benchmarks_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SUITE))
    ran = set()
    for module in ("load", "read", "indexes", "joins", "changes", "files", "snapshots"):
        loaded = importlib.import_module(f"benchmarks.{module}")
        for kind in vars(loaded).values():
            if not inspect.isclass(kind) or kind.__module__ != loaded.__name__ or kind.__name__.startswith("_"):
                continue
            assert kind.params == (["row", "columnar"], [100_000, 1_000_000])
            for engine in kind.params[0]:
                for name in [name for name in dir(kind) if name.startswith(("time_", "peakmem_", "track_"))]:
                    benchmark = kind()
                    ran.add(name)
                    try:
                        if hasattr(benchmark, "setup"):
                            benchmark.setup(engine, 1000)
                    except NotImplementedError:
                        assert not peers.NumPy.available()
                        continue
                    result = getattr(benchmark, name)(engine, 1000)
                    assert (result is not None) == name.startswith("track_")
                    if hasattr(benchmark, "teardown"):
                        benchmark.teardown(engine, 1000)
    assert importlib.import_module("benchmarks.load").timeraw_import() == "import snapdb"
    assert {name.partition("_")[2] for name in ran} >= {
        *set(workloads.NAMES) - {"memory"}, "range_index_bytes", "bytes_per_row", *files.FILE_NAMES,
    }  # fmt: skip
    importlib.import_module("benchmarks.files").root().cleanup()
    assert list(tmp_path.iterdir()) == []
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@needs_suite
def test_the_worker_of_the_baseline_comparison_answers():
    requests = [{"do": "hello"}, {"do": "generate", "rows": 500, "reads": 20}]
    requests += [
        {"do": "time", "engine": engine, "workload": workload, "calls": 1}
        for engine in ("row", "columnar")
        for workload in ("bulk_insert", "point_read", "scan_sum", "filtered_sum", "count_three", "iterate")
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(snapdb.__file__).resolve().parent.parent)}
    done = subprocess.run(
        [sys.executable, str(SUITE / "baseline_worker.py")],
        env=environment, capture_output=True, text=True, check=True,
        input="".join(json.dumps(request) + "\n" for request in requests),
    )  # fmt: skip
    hello, _, *answers = map(json.loads, done.stdout.splitlines())
    assert hello["backend"] == _ext.BACKEND
    made = list(rows.generate(500))
    right = workloads.expected(made, workloads.asked_of(made, 20))
    for half in (answers[:6], answers[6:]):
        assert half[0]["answer"] == 500
        for answer, workload in zip(half[1:], ("point_read", "scan_sum", "filtered_sum", "count_three", "iterate")):
            assert answer["answer"] == pytest.approx(right[workload])
