"""The command line: in a process of its own, on every backend, against answers computed here from the CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snapdb
from snapdb import _ext, cli, demo
from snapdb._version import __version__

PACKAGE = Path(snapdb.__file__).resolve().parent


def run(*arguments, backend=None, cwd=None, temporary=None):
    """``python -m snapdb`` of the package under test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAPDB_")}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    environment["PYTHONIOENCODING"] = "utf-8"
    environment["SNAPDB_BACKEND"] = backend or _ext.BACKEND
    if temporary is not None:
        environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)))
    return subprocess.run(
        [sys.executable, "-m", "snapdb", *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip


def weather():
    with open(PACKAGE / "data" / "weather.csv", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("backend", _ext.available())
def test_demo_prints_what_the_data_says(backend, tmp_path):
    rows = weather()
    temperatures = [float(row["temp"]) for row in rows if row["temp"] != "NA"]
    freezing = sum(1 for row in rows if row["origin"] == "JFK" and row["temp"] != "NA" and float(row["temp"]) < 32.0)
    gust = max(float(row["wind_gust"]) for row in rows if row["wind_gust"] != "NA")
    by_origin = {}
    for row in rows:
        if row["temp"] != "NA":
            by_origin.setdefault(row["origin"], []).append(float(row["temp"]))
    means = ", ".join(f"{name} {math.fsum(values) / len(values):.4f}" for name, values in by_origin.items())
    point = rows[demo.POINT]

    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    done = run("demo", backend=backend, cwd=here, temporary=temporary)

    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())  # the layout is free
    assert f"kernels: {backend} (" in text
    for expected in (
        f"weather.csv: {len(rows):,} rows, 15 columns",
        f"hours below 32 F at JFK {freezing:,}",
        f"mean temperature {math.fsum(temperatures) / len(temperatures):.4f} F",
        f"strongest gust {gust:.2f} mph",
        f"mean temperature by airport {means}",
        f"origin={point['origin']}, time_hour={point['time_hour'].replace('Z', '+00:00')}, temp={float(point['temp'])}",
    ):
        assert text.count(expected) == (1 if expected.startswith("weather") else 2), expected
    assert "Both engines give the same answers." in text
    assert len(rows) == 26_115
    lines = done.stdout.splitlines()
    # a time for each of five questions in both engines
    assert sum(1 for line in lines if line.split()[1:2] == ["us"] and float(line.split()[0].replace(",", "")) > 0) == 10
    shown = {line.split()[0]: line.split() for line in lines if line.startswith("  ") and len(line.split()) == 5}
    for name in rows[0]:
        _, dtype, encoding, size, bits = shown[name]
        assert dtype == demo.schema().column(name).dtype
        assert encoding.isalpha() and int(size.replace(",", "")) > 0 and float(bits) > 0
    check_the_file_part(text, rows)
    assert not list(here.iterdir())
    assert not list(temporary.iterdir()), "its files are gone"


def check_the_file_part(text, rows):
    text = text[text.index("In a file") :]
    at_jfk = sum(1 for row in rows if row["origin"] == "JFK")
    gusts = [float(row["wind_gust"]) for row in rows if row["origin"] == "LGA" and row["wind_gust"] != "NA"]
    gusty = sum(gust > 40 for gust in gusts)
    assert gusty > 0
    for engine in demo.ENGINES:
        assert text.count(f"{engine} engine: {len(rows):,} rows on the disk in ") == 1
    for expected in (
        f"transaction 1 deletes {at_jfk:,} rows, then fails: {len(rows):,} rows, all as before",
        f"transaction 2 changes {gusty:,} and adds 1: {len(rows) + 1:,} rows",
        f": {len(rows) + 1:,} rows, the same rows, counts and sums; fsck: ok",
    ):
        assert text.count(expected) == 2, expected


@pytest.mark.parametrize("engine", demo.ENGINES)
def test_the_demos_files_hold_what_it_says(engine, tmp_path):
    rows = demo.weather()
    path, out = str(tmp_path / "weather"), io.StringIO()
    with snapdb.SnapDB(":memory:", demo.schema(), storage_type=engine) as db:
        db.batch_insert(rows)
        right = demo.ask(db)
    before = demo._write(path, engine, rows, right, out)
    with snapdb.SnapDB(path) as db:
        assert db.storage_type == engine
        assert demo.proof(db) == before
        assert len(db) == len(rows) + 1
        temperatures = [row["temp"] for row in rows if row["temp"] is not None] + [-40.0]
        assert db.aggregate("temp", "sum") == math.fsum(temperatures)
    assert demo._reopen(path, before, out)
    assert demo._write(str(tmp_path / "other"), engine, rows, right._replace(freezing=-1), out) is None


def test_demo_exits_with_1_when_a_file_answers_differently(monkeypatch):
    monkeypatch.setattr(demo, "TIMINGS", 1)
    reopen = demo._reopen

    def damage(path, before, out):
        with snapdb.SnapDB(path) as db:
            db.delete(7)
        return reopen(path, before, out)

    monkeypatch.setattr(demo, "_reopen", damage)
    out = io.StringIO()
    assert demo.run(out) == 1
    assert "Both engines give the same answers." in out.getvalue()
    assert out.getvalue().count("the answers DIFFER; fsck: ok") == 2


def test_demo_exits_with_1_when_the_engines_differ(monkeypatch):
    ask = demo.ask

    def lie(db):
        answers = ask(db)
        return answers if db.is_columnar() else answers._replace(freezing=answers.freezing + 1)

    monkeypatch.setattr(demo, "ask", lie)
    out = io.StringIO()
    assert demo.run(out) == 1
    assert "The engines DISAGREE" in out.getvalue()


def test_demo_rows_are_typed():
    row = demo.weather()[0]
    assert [type(value).__name__ for value in row.values()] == [
        "str", "int", "int", "int", "int", "float", "float", "float", "int", "float", "NoneType", "float", "float",
        "float", "datetime",
    ]  # fmt: skip
    assert row["time_hour"].utcoffset().total_seconds() == 0


@pytest.mark.parametrize("backend", _ext.available())
def test_info(backend):
    done = run("info", "--json", backend=backend)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert list(facts) == ["version", "backend", "reason", "simd", "python"]
    assert facts["version"] == __version__
    assert facts["backend"] == backend
    assert facts["reason"] == f"SNAPDB_BACKEND={backend}"
    assert (facts["simd"] == "none") == (backend != "c")


def test_info_as_text(capsys):
    assert cli.main(["info"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["version"] == __version__
    assert shown["backend"] == _ext.BACKEND
    assert shown["reason"] == _ext.REASON


def made(path, engine):
    rows = demo.weather()[:3000]
    with snapdb.SnapDB(str(path), demo.schema(), storage_type=engine) as db:
        db.batch_insert(rows)
        db.delete(7)
    return str(path)


@pytest.mark.parametrize("engine", demo.ENGINES)
def test_info_of_a_file(engine, tmp_path, capsys):
    path = made(tmp_path / "t", engine)
    before = (tmp_path / "t").read_bytes()
    assert cli.main(["info", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["storage_type"], found["rows"], found["deleted_rows"]) == ("t", engine, 2999, 1)
    assert found["file_bytes"] == len(before)
    with snapdb.SnapDB(path, read_only=True) as db:
        assert [(name, one["dtype"]) for name, one in found["columns"].items()] == [
            (column.name, column.dtype) for column in db.schema.columns
        ]
    for one in found["columns"].values():
        assert one["bytes"] > 0 and one["bits_per_value"] == pytest.approx(one["bytes"] * 8 / 2999, rel=0.01)
        assert one["encodings"] == ({one["encoding"]: 1} if engine == "columnar" else {})
    assert cli.main(["info", path]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"t: {engine} engine, 2,999 rows (1 deleted), {len(before):,} bytes (")
    shown = {line.split()[0]: line.split() for line in text.splitlines()[2:18]}
    for name, one in found["columns"].items():
        assert shown[name][1:3] == [one["dtype"], one["encoding"]]
        assert shown[name][3:] == [f"{one['bytes']:,}", f"{one['bits_per_value']:.2f}"]
    assert (tmp_path / "t").read_bytes() == before


def test_info_of_what_is_no_database(tmp_path, capsys):
    (tmp_path / "text").write_text("nothing of ours, but long enough to be looked at\n" * 100)
    for name in ("absent", "text"):
        assert cli.main(["info", str(tmp_path / name)]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("snapdb: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "absent").exists()


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = made(tmp_path / "t", "columnar")
    assert cli.main(["info", path, "--plot", str(tmp_path / "x.svg")]) == 1
    assert "install the extra 'plot'" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()


def test_a_plot_of_the_columns(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    path = made(tmp_path / "t", "columnar")
    assert cli.main(["info", path, "--plot", str(tmp_path / "x.svg")]) == 0
    assert capsys.readouterr().out.startswith("t: columnar engine")
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    from snapdb import plot

    with snapdb.SnapDB(path, read_only=True) as db:
        figure = plot.columns(db)
        (axes,) = figure.axes
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == [column.name for column in db.schema.columns]
        stats = db.stats()["columns"]
        assert [bar.get_width() for bar in axes.patches] == [stats[name]["bytes"] for name in labels]
        assert "2,999 rows" in axes.get_title()
    assert "pyplot" not in " ".join(name for name in sys.modules if name.startswith("matplotlib"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("info", "x", "y"),
        ("info", "--plot", "x.svg"),
        ("bench", "--rows", "0"),
        ("bench", "--rows", "abc"),
        ("bench", "--rounds", "x"),
        ("bench", "--only", "nobody"),
        ("bench", "--commits", "0"),
        ("bench", "--directory", "no such directory"),
    ],  # fmt: skip
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: snapdb" in captured.err
    if "--rows" in arguments or "--rounds" in arguments:
        assert f"a positive integer is needed, not '{arguments[-1]}'" in captured.err


def test_no_command_prints_help_and_exits_with_2(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: snapdb" in captured.err
    assert "demo" in captured.err


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"snapdb {__version__}"


def test_a_reader_that_leaves_early_is_no_traceback():
    script = f'"{sys.executable}" -m snapdb info'
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    if os.name != "posix":
        pytest.skip("needs a POSIX shell")
    done = subprocess.run(
        ["sh", "-c", f"{script} | true"], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_command_line_imports_no_numpy():
    code = "import sys, snapdb.cli; snapdb.cli.main(['info']); sys.exit('numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
