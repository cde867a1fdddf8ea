"""The commands on files: what is imported comes out again, cell by cell; damage and mistakes are one clear line."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import snapdb
from snapdb import ColumnDef, DocumentStore, Schema, SnapDB, cli
from snapdb.cell_types import Detector, cell, reader_of
from snapdb.text_table import text_table

DATA = Path(__file__).with_name("data")
FILES = [DATA / "airports.csv", DATA / "planes.csv", DATA / "birdstrikes.csv"]
WEATHER = Path(snapdb.__file__).with_name("data") / "weather.csv"


def run(*arguments: Any) -> tuple[int, str]:
    """A command in this process: its exit code and what it wrote."""
    out = io.StringIO()
    return cli.main([str(one) for one in arguments], out), out.getvalue()


def cells(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def types_of(path: Path) -> dict[str, str]:
    with SnapDB(path, read_only=True) as db:
        return {column.name: column.dtype for column in db.schema}


@pytest.mark.parametrize("path", [*FILES, WEATHER], ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["row", "columnar"])
def test_a_table_comes_out_as_it_went_in(tmp_path: Path, path: Path, kind: str) -> None:
    if kind == "row" and path == WEATHER:
        pytest.skip("large")
    db, back = tmp_path / "t.snap", tmp_path / "back.csv"
    assert run("import", db, path, *(["--row"] if kind == "row" else [])) == (0, "")
    assert run("export", db, back)[0] == 0
    types = types_of(db)
    before, after = cells(path), cells(back)
    assert before[0] == after[0] == list(types) and len(before) == len(after)
    for one, other in zip(before[1:], after[1:]):
        for dtype, given_, got in zip(types.values(), one, other):
            if dtype == "str":
                assert got == given_
            elif given_ in ("NA", ""):
                assert got == "NA"
            else:
                assert reader_of(dtype)(got) == reader_of(dtype)(given_)
    with SnapDB(db, read_only=True) as table:
        assert table.storage_type == kind
        row = next(iter(table))[1]
        at = {name: j for j, name in enumerate(types)}
        expected = {name: None if before[1][at[name]] == "NA" else before[1][at[name]] for name in types}
        assert {name: None if value is None else cell(value, "") for name, value in row.items()} == {
            name: None if text is None else cell(reader_of(types[name])(text), "") for name, text in expected.items()
        }


def test_the_types_of_real_data(tmp_path: Path) -> None:
    run("import", tmp_path / "a", FILES[0])
    assert types_of(tmp_path / "a") == {
        "faa": "str", "name": "str", "lat": "f64", "lon": "f64", "alt": "i64", "tz": "i64", "dst": "str",
        "tzone": "str",
    }  # fmt: skip
    run("import", tmp_path / "b", FILES[2])
    assert types_of(tmp_path / "b")["Flight Date"] == "date"
    run("import", tmp_path / "w", WEATHER)
    assert types_of(tmp_path / "w")["time_hour"] == "datetime"


@pytest.mark.parametrize("path", [*FILES, WEATHER], ids=lambda path: path.stem)
def test_without_types_every_cell_is_as_it_was(tmp_path: Path, path: Path) -> None:
    db, back = tmp_path / "t.snap", tmp_path / "back.csv"
    run("import", db, path, "--no-detect-types")
    run("export", db, back)
    assert cells(path) == cells(back)
    assert set(types_of(db).values()) == {"str"}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
CELL = st.sampled_from(
    ["", "NA", "0", "-0", "007", "+5", "1.10", "1e5", " 1", "1 ", "true", "True", "2026-01-01", "2026-02-30", "NaN",
     "inf",
     "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "9223372036854775807", "9223372036854775808",
     "18446744073709551616", "0.1234567890123456789", "-1.5", "1_000", "٣", 'a"b', "a\nb", "a\r\nb", "a,b", "\ufeff",
     "\r", "\r0", "a\r"]
) | st.integers().map(str) | st.floats().map(repr) | TEXT | st.dates().map(str)  # fmt: skip
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=8)
)


@settings(max_examples=150)
@given(rows=TABLES, detect=st.booleans())
def test_any_table_comes_out_as_it_went_in(tmp_path_factory: pytest.TempPathFactory, rows: Any, detect: bool) -> None:
    folder = tmp_path_factory.mktemp("t")
    names = [f"c{at}" for at in range(len(rows[0]))]
    with open(folder / "in.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows([names, *rows])  # \n: old Pythons do not quote a \r then
    run("import", folder / "t.snap", folder / "in.csv", *([] if detect else ["--no-detect-types"]))
    run("export", folder / "t.snap", folder / "out.csv")
    types = list(types_of(folder / "t.snap").values())
    after = cells(folder / "out.csv")[1:]
    assert len(after) == len(rows)
    for one, other in zip(rows, after):
        for dtype, given_, got in zip(types, one, other):
            if dtype == "str":
                assert got == given_
            elif given_ in ("NA", ""):
                assert got == "NA"
            else:
                value = reader_of(dtype)(given_)
                assert reader_of(dtype)(got) == value
                if dtype != "f64":
                    assert got == given_


@pytest.mark.parametrize(
    ("texts", "dtype"),
    [
        (["1", "-2", ""], "i64"),
        (["1", str(2**63)], "u64"),
        (["-1", str(2**63)], "str"),
        (["01"], "str"),
        (["+1"], "str"),
        (["1", "1.5"], "f64"),
        (["1.50"], "f64"),
        ([str(2**64)], "str"),
        ([str(2**64 + 1)], "str"),
        (["0.1" + "0" * 20 + "1"], "str"),
        (["48.053808600000004"], "f64"),
        (["0.12345678901234567"], "str"),
        (["1e400"], "str"),
        (["nan"], "str"),
        (["-0"], "str"),
        (["-0.0"], "str"),
        (["true", "false"], "bool"),
        (["True"], "str"),
        (["2026-01-31"], "date"),
        (["2026-1-31"], "str"),
        (["2026-01-31T10:00:00Z"], "datetime"),
        (["2026-01-31T10:00:00"], "str"),
        (["2026-01-31T10:00:00.500000Z"], "datetime"),
        (["NA"], "str"),
        ([], "str"),
        (["1", "x"], "str"),
        (["٣"], "str"),
    ],
)
def test_types_of_texts(texts: list[str], dtype: str) -> None:
    seen = Detector({"NA", ""})
    seen.see(texts)
    assert seen.dtype == dtype


def test_tsv_json_and_lines(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx, y\n2\tNA\n", encoding="utf-8")
    run("import", tmp_path / "t.snap", tmp_path / "t.tsv", "--pk", "a")
    rows = [{"a": 1, "b": "x, y"}, {"a": 2, "b": None}]
    for kind in ("json", "jsonl"):
        assert run("export", tmp_path / "t.snap", tmp_path / f"o.{kind}")[0] == 0
        text = (tmp_path / f"o.{kind}").read_text(encoding="utf-8")
        assert (json.loads(text) if kind == "json" else [json.loads(one) for one in text.splitlines()]) == rows
        run("import", tmp_path / f"{kind}.snap", tmp_path / f"o.{kind}")
        with SnapDB(tmp_path / f"{kind}.snap") as db:
            assert [row for _, row in db] == rows
    assert run("export", tmp_path / "t.snap", "-f", "tsv")[1] == "a\tb\n1\tx, y\n2\tNA\n"
    assert run("export", tmp_path / "t.snap", "-f", "csv", "--na", "", "-c", "b")[1] == 'b\n"x, y"\n""\n'
    with SnapDB(tmp_path / "t.snap") as db:
        assert db.schema.primary_key == "a"


def test_appending_is_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, file = tmp_path / "t.snap", tmp_path / "t.csv"
    file.write_text("a,b\n1,x\n2,y\n")
    run("import", db, file, "--pk", "a")
    for text, told in (
        ("a,b\n3,z\n1,w\n", "UNIQUE constraint failed: a=1"), ("a,b\n3,z\nx,w\n", "line 3, column 'a': 'x'"),
        ("a,c\n3,z\n", "no column 'c'"), ("b\nz\n", "column"), ("a,b\n3\n", "line 2: it has 1 cells, there are 2"),
        ("", "nothing in it"), ('a,b\n3,"z\n', "line"), ("a,b\nNA,z\n", "a"),
    ):  # fmt: skip
        file.write_text(text)
        assert run("import", db, file)[0] == 1
        lines = capsys.readouterr().err.splitlines()
        assert told in lines[-1] and lines[-1].startswith("snapdb: ") and len(lines) <= 2, lines
        with SnapDB(db) as table:
            assert [row["a"] for _, row in table] == [1, 2]
    file.write_text("b,a\nz,3\n\nNA,4\n")
    assert run("import", db, file)[0] == 0
    with SnapDB(db) as table:
        assert [row for _, row in table][2:] == [{"a": 3, "b": "z"}, {"a": 4, "b": None}]


def test_a_new_database_is_there_whole_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n" + "1\n" * 20_000 + "2,3\n")
    assert run("import", tmp_path / "t.snap", file)[0] == 1
    file.write_bytes(b"a\n\xff\n")
    assert run("import", tmp_path / "t.snap", file)[0] == 1
    assert "--encoding" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.csv"]
    assert run("import", tmp_path / "t.snap", file, "--encoding", "latin-1")[0] == 0
    assert run("import", tmp_path / "u.snap", tmp_path / "none.csv")[0] == 1
    assert run("import", tmp_path / "u.snap", file, "--pk", "b", "--encoding", "latin-1")[0] == 1
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", b"id;name\n1;x,y\n", "there are 1 column; name the --delimiter"),
        ("a.csv", b"id,name\n1,\xff\n", "it is not UTF-8: invalid start byte; name the --encoding"),
        ("a.csv", b"", "there is nothing in it"),
    ],
)
def test_what_is_to_be_done_is_said(
    tmp_path: Path, name: str, data: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    assert run("import", tmp_path / "t.snap", tmp_path / name) == (1, "")
    assert told in capsys.readouterr().err
    assert run("import", tmp_path / name, tmp_path / "t.snap") == (1, "")
    assert f"comes before the file that is imported; snapdb import {tmp_path / 't.snap'}" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == data and os.listdir(tmp_path) == [name]


def test_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_text("\ufeffa,,a,a_2\n1,2,3,4\n", encoding="utf-8")
    run("import", tmp_path / "t.snap", file)
    assert list(types_of(tmp_path / "t.snap")) == ["a", "column_2", "a_3", "a_2"]
    assert "column 3 is called 'a_3'" in capsys.readouterr().err
    file.write_text("1,x\n2,y\n")
    run("import", tmp_path / "n.snap", file, "--no-headers")
    assert types_of(tmp_path / "n.snap") == {"column_1": "i64", "column_2": "str"}
    file.write_text("a,b\n")
    assert run("import", tmp_path / "h.snap", file)[0] == 0
    assert run("export", tmp_path / "h.snap", "-f", "csv")[1] == "a,b\n"


def test_standard_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO("a;ü\n1;x\n".encode())

    monkeypatch.setattr(sys, "stdin", Input)
    assert run("import", tmp_path / "t.snap", "-", "-f", "csv", "--delimiter", ";")[0] == 0
    assert run("export", tmp_path / "t.snap", "-", "-f", "jsonl")[1] == '{"a": 1, "ü": "x"}\n'


# -- documents ---------------------------------------------------------------------
GEO = {
    "type": "FeatureCollection",
    "features": [
        {"id": "a", "properties": {"mag": 5.5, "time": 1517966773840, "felt": None}, "geometry": {"c": [1.5, -2, 0.0]}},
        {"id": "b", "properties": {"mag": 1, "time": 2**70, "place": "ä"}, "extra": []},
    ],
}


def test_documents(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps(GEO))
    db = tmp_path / "g.snap"
    assert run("import", db, tmp_path / "g.json", "--documents", "--path", "features")[0] == 0
    code, text = run("export", db, "-f", "json")
    assert code == 0 and json.dumps(json.loads(text)) == json.dumps(GEO["features"])
    code, text = run("query", db, "--filter", '{"properties.mag": {"$gt": 2}}', "-c", "id")
    assert (code, json.loads(text)) == (0, [{"id": "a"}])
    assert run("query", db, "--filter", '{"id": "z"}') == (1, "[]\n")
    assert run("query", db, "--count") == (0, "2\n")
    assert "5.5" in run("head", db, "-f", "table")[1]
    run("import", db, tmp_path / "g.json", "--documents")
    with DocumentStore(db) as store:
        assert list(store)[2] == GEO
    for arguments in (("--filter", "{"), ("--filter", '{"a": {"$no": 1}}'), ("--where", "a", "eq", "1")):
        assert run("query", db, *arguments)[0] == 1
    assert run("import", tmp_path / "n.snap", tmp_path / "g.json", "--documents", "--path", "no")[0] == 1
    assert run("import", tmp_path / "n.snap", tmp_path / "g.json")[0] == 1
    assert not (tmp_path / "n.snap").exists()


# -- questions -----------------------------------------------------------------------
@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.snap"
    schema = Schema([ColumnDef("id", "i64"), ColumnDef("v", "f64", not_null=False), ColumnDef("s", "str")])
    with SnapDB(path, schema) as db:
        db.batch_insert([{"id": at, "v": None if at % 5 == 0 else at / 2, "s": "ab"[at % 2]} for at in range(20)])
    return path


def ids(text: str) -> list[int]:
    return [row["id"] for row in json.loads(text)]


def test_query(table: Path) -> None:
    assert ids(run("query", table, "--where", "id", "gte", "18")[1]) == [18, 19]
    assert ids(run("query", table, "-w", "id", "<", "10.5", "-w", "s", "eq", "a", "-w", "v", "not_null")[1]) == [
        2,
        4,
        6,
        8,
    ]
    assert ids(run("query", table, "-w", "id", "in", "3", "4")[1]) == [3, 4]
    assert ids(run("query", table, "--order", "v", "--desc", "-n", "2", "--offset", "1")[1]) == [18, 17]
    assert run("query", table, "-w", "id", "gt", "100") == (1, "[]\n")
    assert run("query", table, "--count") == (0, "20\n")
    assert json.loads(run("query", table, "-c", "s", "id", "-n", "1")[1]) == [{"s": "a", "id": 0}]
    found = json.loads(
        run("query", table, "--group-by", "s", "--agg", "v", "sum", "--agg", "id", "max", "--order", "id_max")[1]
    )
    assert found == [{"s": "a", "v_sum": 40.0, "id_max": 18}, {"s": "b", "v_sum": 40.0, "id_max": 19}]
    assert ids(run("head", table, "-n", "3")[1]) == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-w", "no", "eq", "1"), ("-w", "id", "like", "1"), ("-w", "id", "eq", "x"), ("-w", "id"), ("--order", "no"),
        ("-c", "no"), ("--agg", "id", "sum"), ("--group-by", "s", "--agg", "id", "median"), ("--filter", "{}"),
        ("-w", "id", "eq", "1", "2"), ("--offset", "-1"), ("--snapshot", "no"),
    ],
)  # fmt: skip
def test_wrong_questions(table: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("query", table, *arguments) == (1, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("snapdb: ")


# -- care ------------------------------------------------------------------------------
def test_care(table: Path, tmp_path: Path) -> None:
    assert run("fsck", table)[0] == 0
    assert json.loads(run("stats", table, "--json")[1])["rows"] == 20
    assert "bits_per_value" in run("stats", table)[1] or "rows" in run("stats", table)[1]
    with SnapDB(table) as db:
        db.delete(3)
    assert json.loads(run("compact", table, "--json")[1])["rows"] == 19
    assert run("backup", table, tmp_path / "copy.snap")[0] == 0
    assert run("backup", table, tmp_path / "copy.snap")[0] == 1
    assert ids(run("query", tmp_path / "copy.snap")[1]) == ids(run("query", table)[1])
    assert run("repair", table)[0] == 0


def test_damage(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(table.read_bytes())
    at = data.index(b"SNAP") if b"SNAP" in data else 0
    with SnapDB(table) as db:
        db.insert_columns({"id": range(5000), "v": [1.0] * 5000, "s": ["x" * 30] * 5000})
    data = bytearray(table.read_bytes())
    place = data.rindex(b"x" * 30)
    data[place] ^= 1
    table.write_bytes(data)
    code, text = run("fsck", table)
    assert code == 1 and text.count("\n") >= 1 and at >= 0
    assert run("query", table)[0] == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    code, text = run("repair", table)
    assert code == 1 and "lost" in text
    assert run("fsck", table)[0] == 0
    table.write_bytes(b"no database at all" * 1000)
    for command in ("fsck", "head", "stats", "compact", "repair"):
        assert run(command, table)[0] == 1
    assert "Traceback" not in capsys.readouterr().err


def test_locked_missing_and_wrong_key(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SnapDB(table):
        for command in (("head", table), ("compact", table), ("fsck", table), ("backup", table, tmp_path / "b")):
            assert run(*command)[0] == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert str(os.getpid()) in line
    assert run("head", tmp_path / "none")[0] == 1
    assert "no file" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit) as end:
        run("head")
    assert end.value.code == 2


def test_encrypted(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    (tmp_path / "t.csv").write_text("a\n1\n")
    (tmp_path / "key").write_text("secret\n")
    db = tmp_path / "e.snap"
    assert run("import", db, tmp_path / "t.csv", "--key-file", tmp_path / "key")[0] == 0
    assert run("head", db)[0] == 1
    monkeypatch.setenv("SNAPDB_KEY", "secret")
    assert run("head", db) == (0, '[{"a": 1}]\n')
    monkeypatch.setenv("SNAPDB_KEY", "wrong")
    assert run("head", db)[0] == 1


def test_snapshots(table: Path) -> None:
    assert run("snapshot", "create", table, "one") == (0, "one\n")
    with SnapDB(table) as db:
        db.update(1, {"v": 9.0})
        db.delete(2)
        db.insert({"id": 99, "v": None, "s": ""})
    assert run("snapshot", "create", table, "two")[0] == 0
    assert [one["name"] for one in json.loads(run("snapshot", "list", table, "--json")[1])] == ["two", "one"]
    assert "one" in run("snapshot", "list", table)[1]
    assert json.loads(run("snapshot", "diff", table, "one", "two", "--json")[1]) == {
        "added": [20], "changed": [1], "removed": [2],
    }  # fmt: skip
    assert "changed  1: 1" in run("snapshot", "diff", table, "one", "two")[1]
    assert ids(run("snapshot", "open", table, "one", "-w", "id", "lt", "4")[1]) == [0, 1, 2, 3]
    with SnapDB(table):
        assert ids(run("query", table, "--snapshot", "one", "-w", "id", "lt", "4")[1]) == [0, 1, 2, 3]
    assert run("snapshot", "restore", table, "one")[0] == 0
    assert len(ids(run("query", table)[1])) == 20
    assert run("snapshot", "drop", table, "one")[0] == 0
    assert run("snapshot", "drop", table, "one")[0] == 1


# -- tables of text ------------------------------------------------------------------------
@given(
    st.lists(st.lists(st.text(max_size=30) | st.integers() | st.none(), min_size=3, max_size=3), max_size=5),
    st.integers(20, 100),
)
def test_tables_fit(rows: list[list[Optional[Any]]], width: int) -> None:
    lines = text_table(["a", "long name", "漢字"], rows, width).splitlines()
    table = [line for line in lines if not line.startswith("... and")]
    assert len(table) == len(rows) + 2
    assert all(line.isprintable() for line in table)


def test_a_table_is_cut() -> None:
    text = text_table(["id", "text"], [[1, "x" * 100], [20, None]], 30)
    assert text == f"id  text\n--  {'-' * 26}\n 1  {'x' * 25}…\n20\n"
    assert "and 2 columns more" in text_table([f"column {at}" for at in range(4)], [["x" * 20] * 4], 20)
