"""The code that readers see: README, docs, examples and the package's own docstring all run."""

from __future__ import annotations

import ast
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
    for line, code in python_blocks(page.read_text(encoding="utf-8")):
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
    assert list(tmp_path.iterdir()) == [], "a table in memory leaves no file"


def test_examples_are_there() -> None:
    assert {"quickstart.py", "load_csv.py", "analytics.py", "nullable.py"} <= {path.name for path in EXAMPLES}


def test_package_docstring() -> None:
    result = doctest.testmod(snapdb)
    assert result.attempted > 0
    assert result.failed == 0


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
