"""The code that readers see: README, docs, examples and the package's own docstring all run."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import snapdb

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SKIP = "<!-- not run -->"  # on the line above a block that shows something other than a program


def python_blocks(text: str) -> list[tuple[int, str]]:
    """(line of the first statement, code) of every block that runs; <!-- setup … --> is one that readers do not see."""
    blocks = []
    pattern = r"^( *)(?:```(?:python|pycon)|<!-- setup)\n(.*?)^\1(?:```|-->)$"
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        if not before.rstrip().endswith(SKIP):
            indent, code = match.groups()
            blocks.append((before.count("\n") + 2, "".join(line[len(indent) :] for line in code.splitlines(True))))
    return blocks


def expected(source: list[str], node: ast.stmt) -> str | None:
    """What an expression's trailing ``# -> value`` says it gives."""
    assert node.end_lineno is not None
    found = re.search(r"#\s*->\s*(.+?)\s*$", source[node.end_lineno - 1])
    return found.group(1) if found and isinstance(node, ast.Expr) else None


class Checked(ast.NodeTransformer):
    """Wraps every expression statement that says its value in a call that compares it."""

    def __init__(self, source: list[str]) -> None:
        self.source = source

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        text = expected(self.source, node)
        if text is None:
            return node
        call = ast.Call(ast.Name("check_", ast.Load()), [node.value, ast.Constant(text), ast.Constant(node.lineno)], [])
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))


def run_block(code: str, line: int, page: Path, names: dict[str, Any]) -> None:
    def check_(value: object, text: str, at: int) -> None:
        assert repr(value) == text, f"{page.name}:{line + at - 1}: gives {value!r}, the page says {text}"

    if ">>>" in code:
        test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line - 1)
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
        return
    tree = ast.fix_missing_locations(Checked(code.splitlines()).visit(ast.parse(code)))
    ast.increment_lineno(tree, line - 1)
    names["check_"] = check_
    exec(compile(tree, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_on_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the blocks of a page are one program, as its reader would type it
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    blocks = python_blocks(page.read_text(encoding="utf-8"))
    if any("encryption_key=" in code for _, code in blocks):
        pytest.importorskip("cryptography", reason="the extra 'encryption' is not installed")
        monkeypatch.setattr("snapdb.storage.crypto.SCRYPT", (4, 8, 1))  # passphrases are meant to be slow
    for line, code in blocks:
        run_block(code, line, page, names)


@pytest.mark.smoke
def test_readme_has_checked_code() -> None:
    blocks = python_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 3
    assert sum(code.count("# ->") for _, code in blocks) >= 10


def test_a_wrong_value_on_a_page_is_found() -> None:
    with pytest.raises(AssertionError, match="page.md:12: gives 3, the page says 4"):
        run_block("x = 1\n\nx + 2  # -> 4\n", 10, Path("page.md"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_begins_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks[:2]] == ["sh", "sh"]
    assert [code.count("\n") for _, code in blocks[:2]] == [1, 1]
    assert text.index(blocks[1][1]) < text.index("\n## "), "both stand before the first heading"
    # the name on the package index is another project's
    assert not re.search(r"pip install [\"']?snapdb\b", text)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Path, tmp_path: Path) -> None:
    env = dict(os.environ, PYTHONPATH=str(Path(snapdb.__file__).parent.parent), PYTHONIOENCODING="utf-8")
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == [], "an example leaves no file"


def test_examples_are_there() -> None:
    names = {path.name for path in EXAMPLES}
    assert {"quickstart.py", "bank.py", "load_csv.py", "analytics.py", "nullable.py"} <= names


def test_package_docstring() -> None:
    result = doctest.testmod(snapdb)
    assert result.attempted > 0
    assert result.failed == 0


# -- docs/api.md against the code --------------------------------------------------------------------------------------
API = ROOT / "docs" / "api.md"
METHOD_TABLES = frozenset(
    ("write", "read rows", "indexes", "compute", "take out", "in a file", "snapshots", "look after", "method")
)
OTHER_TABLES = frozenset(("parameter", "name"))


def api_sections() -> dict[str, str]:
    """The text under each heading of docs/api.md that names a class."""
    parts = re.split(r"^## (\w+)$", API.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2]) if hasattr(snapdb, name)}


def listed_methods(text: str) -> dict[str, str]:
    """Method to signature: the first cells of the tables that list methods."""
    found = {}
    for head, body in re.findall(r"^\| ([\w ]+) \| \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE):
        if head in OTHER_TABLES:
            continue
        assert head in METHOD_TABLES, head
        for line in body.splitlines():
            cell = re.match(r"\| `(\w+)(\(.*?\)|)` \|", line)
            assert cell, line
            assert cell.group(1) not in found, line
            found[cell.group(1)] = cell.group(2)
    return found


def parameters(signature: str) -> list[tuple[str, str, object]]:
    """(name, kind, default) of each parameter as a page writes them."""
    scope: dict[str, Any] = {}
    exec(f"def made{signature}: pass", scope)
    return shape(scope["made"])


def shape(function: Any) -> list[tuple[str, str, object]]:
    # an engine's ``then`` and ``first`` are for SnapDB alone
    found = inspect.signature(function).parameters.values()
    return [(one.name, str(one.kind), one.default) for one in found if one.name not in ("self", "then", "first")]


def example_of(name: str) -> Any:
    schema = snapdb.Schema([("a", "i64")])
    makers = {
        "SnapDB": lambda: snapdb.SnapDB(":memory:", schema),
        "ColumnarTable": lambda: snapdb.ColumnarTable("t", schema),
        "Column": lambda: snapdb.Column("a", "i64"),
        "Schema": lambda: schema,
        "ColumnDef": lambda: schema.columns[0],
    }
    return makers[name]()


@pytest.mark.smoke
def test_api_page_names_every_method_of_snapdb() -> None:
    listed = set(listed_methods(api_sections()["SnapDB"]))
    kinds = snapdb.SnapDB.__mro__[:-1]
    public = {name for kind in kinds for name in vars(kind) if not name.startswith("_")}
    assert listed == public
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {f"`{name}`" for name in public} <= set(re.findall(r"`\w+`", readme))


@pytest.mark.parametrize("name", ["SnapDB", "ColumnarTable", "Column", "Schema", "ColumnDef"])
def test_api_page_names_nothing_that_is_not_there(name: str) -> None:
    text = api_sections()[name]
    kind = getattr(snapdb, name)
    for method, signature in listed_methods(text).items():
        if not signature:
            assert isinstance(getattr(kind, method), property), f"{name}.{method}"
            continue
        assert parameters(signature) == shape(getattr(kind, method)), f"{name}.{method}"
    made = re.search(rf"<!-- signature: {name} -->\n```text\n{name}(\(.*?\))\n```", text, re.DOTALL)
    assert made
    assert parameters(made.group(1)) == shape(kind.__init__)
    example = example_of(name)
    for line in re.findall(r"^.*Attributes: (.*(?:\n.+)*)", text, re.MULTILINE):
        for attribute in re.findall(r"`\.(\w+)`", line):
            assert attribute in ("struct_fmt", "struct_size") or hasattr(example, attribute), f"{name}.{attribute}"


def test_api_page_has_the_errors_as_they_are() -> None:
    text = API.read_text(encoding="utf-8").split("\n## Errors\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE)
    assert len(rows) >= 10
    for name, builtin_names in rows:
        error = getattr(snapdb.errors, name)
        assert issubclass(error, snapdb.errors.SnapDBError)
        for builtin in re.findall(r"`(\w+)`", builtin_names):
            assert issubclass(error, getattr(builtins, builtin)), f"{name} is no {builtin}"


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in readme, page.name
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_rows_go_to_pandas_as_the_readme_says() -> None:
    pandas = pytest.importorskip("pandas")
    schema = snapdb.Schema([("id", "i64"), snapdb.ColumnDef("temp", "f64", not_null=False)])
    with snapdb.SnapDB(":memory:", schema) as db:
        db.batch_insert([{"id": 1, "temp": 18.0}, {"id": 2, "temp": None}])
        frame = pandas.DataFrame(db.select_where([], orient="columns"))
    assert list(frame.columns) == ["id", "temp"]
    assert list(frame["id"]) == [1, 2]
    assert list(frame["temp"].isna()) == [False, True]


def public_objects() -> list[tuple[str, Any]]:
    """Every public class, function and method, by dotted name."""
    found: dict[str, Any] = {}
    for name in snapdb.__all__:
        value = getattr(snapdb, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        found[name] = value
        if inspect.isclass(value) and value.__module__.startswith("snapdb"):
            for member, function in vars(value).items():
                if not member.startswith("_") and (inspect.isroutine(function) or isinstance(function, property)):
                    found[f"{name}.{member}"] = function
    errors = importlib.import_module("snapdb.errors")
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_"):
            found[f"errors.{name}"] = value
    return sorted(found.items())


def test_everything_public_has_a_docstring() -> None:
    bare = []
    for name, value in public_objects():
        text = inspect.getdoc(getattr(value, "__func__", value))
        if not text:
            bare.append(name)
    assert bare == []
