"""The package as a thing: kernels and their twins in step, the switches, the layers, what importing costs."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import snapdb
from snapdb import _ext

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(snapdb.__file__).resolve().parent
EXT = PACKAGE / "_ext"
MODULES = sorted(PACKAGE.rglob("*.py"))
HAS_C = "c" in _ext.available()

needs_c = pytest.mark.skipif(not HAS_C, reason="the compiled kernels are not built")


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# -- setup.py, the dispatcher, the stubs and the twins name the same things ------------------------------------------


def run_setup(**environment: str) -> dict[str, Any]:
    """The globals of setup.py, run with ``setuptools.setup`` out of the way."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPDB_", "CIBUILDWHEEL"))}
    with mock.patch("setuptools.setup") as setup, mock.patch.dict(os.environ, {**kept, **environment}, clear=True):
        names = runpy.run_path(str(ROOT / "setup.py"))
    names["arguments_given"] = setup.call_args.kwargs
    return names


@pytest.mark.smoke
def test_kernels_are_the_same_everywhere() -> None:
    pytest.importorskip("setuptools")
    assert run_setup(SNAPDB_NO_EXTENSIONS="1")["KERNELS"] == _ext.KERNELS
    assert {path.stem for path in EXT.glob("_*.pyi")} == set(_ext.KERNELS)
    assert {path.stem for path in (ROOT / "snapdb" / "_ext").glob("*.pyx")} == set(_ext.KERNELS)
    twins = {path.stem[: -len("_py")] for path in EXT.glob("*_py.py")}
    assert set(_ext.KERNELS) <= twins, "others are what the twins share"
    assert {path.stem[: -len("_np")] for path in EXT.glob("*_np.py")} <= twins


@pytest.mark.parametrize(
    ("environment", "optional"),
    [({}, True), ({"SNAPDB_REQUIRE_EXTENSIONS": "1"}, False), ({"CIBUILDWHEEL": "1"}, False)],
)
def test_setup_makes_extensions_optional_for_users_only(environment: dict[str, str], optional: bool) -> None:
    pytest.importorskip("setuptools")
    pytest.importorskip("Cython")
    modules = run_setup(**environment)["arguments_given"]["ext_modules"]
    assert [module.name for module in modules] == [f"snapdb._ext.{kernel}" for kernel in _ext.KERNELS]
    assert {module.optional for module in modules} == {optional}


def test_setup_switches() -> None:
    pytest.importorskip("setuptools")
    assert run_setup(SNAPDB_NO_EXTENSIONS="yes")["arguments_given"] == {}
    with pytest.raises(RuntimeError, match="both set"):
        run_setup(SNAPDB_NO_EXTENSIONS="1", SNAPDB_REQUIRE_EXTENSIONS="1")


@pytest.mark.parametrize("text", ["", "0", "false", "No", " off ", "1", "true", "yes", "Y", "anything"])
def test_both_parsers_of_a_switch_agree(text: str) -> None:
    pytest.importorskip("setuptools")
    built = run_setup(SNAPDB_NO_EXTENSIONS="1")["switch"]
    with mock.patch.dict(os.environ, {"SNAPDB_A_SWITCH": text}):
        assert built("SNAPDB_A_SWITCH") is _ext.switch("SNAPDB_A_SWITCH")


def test_extra_dev_has_all_of_test() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {"numpy", "encryption", "parquet", "plot", "dev"} <= set(extras)
    assert set(extras["test"]) | set(extras["numpy"]) <= set(extras["dev"])
    # the tests of encryption skip without the package, which must not go unseen where all of them are to run
    assert set(extras["encryption"]) <= set(extras["test"])
    assert "dependencies" not in project, "SnapDB has no runtime dependency"


Parameters = list[tuple[str, str, bool]]  # name, kind, whether it has a default
#: dunders whose parameters say nothing (object's own show through) and what only one kind of class needs
UNCHECKED = {"__init__", "__new__", "__class_getitem__"}


def stub_parameters(node: ast.FunctionDef) -> Parameters:
    given = node.args
    positional = given.posonlyargs + given.args
    bare = len(positional) - len(given.defaults)
    found = [(arg.arg, "positional", index >= bare) for index, arg in enumerate(positional)]
    if given.vararg:
        found.append((given.vararg.arg, "star", False))
    found += [(arg.arg, "keyword", default is not None) for arg, default in zip(given.kwonlyargs, given.kw_defaults)]
    if given.kwarg:
        found.append((given.kwarg.arg, "double star", False))
    return found


KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "star",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "double star",
}


def live_parameters(function: Any) -> Parameters:
    return [
        (parameter.name, KINDS[parameter.kind], parameter.default is not inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
    ]


class Stub:
    """What a ``.pyi`` promises: functions, and classes with their methods, properties and attributes."""

    def __init__(self, kernel: str) -> None:
        tree = ast.parse((EXT / f"{kernel}.pyi").read_text(encoding="utf-8"))
        self.functions = {node.name: stub_parameters(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.classes: dict[str, tuple[dict[str, Parameters], set[str]]] = {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = self._members(node)

    @staticmethod
    def _members(owner: ast.ClassDef) -> tuple[dict[str, Parameters], set[str]]:
        methods: dict[str, Parameters] = {}
        attributes: set[str] = set()
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                attributes.add(node.target.id)
            elif isinstance(node, ast.FunctionDef):
                marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
                if "property" in marks:
                    attributes.add(node.name)
                else:
                    skip = 0 if "staticmethod" in marks else 1
                    methods[node.name] = stub_parameters(node)[skip:]
        return methods, attributes


def has_attribute(owner: Any, name: str) -> bool:
    """Whether instances have an attribute: it is on the class, in its slots or annotations, or set by a method."""
    if hasattr(owner, name):
        return True
    for base in inspect.getmro(owner):
        if name in getattr(base, "__slots__", ()) or name in getattr(base, "__annotations__", {}):
            return True
        if base is not object and re.search(rf"\bself\.{name}\b[^=\n]*=[^=]", inspect.getsource(base)):
            return True
    return False


def method_parameters(owner: Any, name: str) -> Parameters:
    """A method's parameters without ``self`` or ``cls``."""
    # a factory may be a class method in one implementation and a static one in another: its callers see no difference
    bound = isinstance(inspect.getattr_static(owner, name), (classmethod, staticmethod))
    return live_parameters(getattr(owner, name))[0 if bound else 1 :]


def backends() -> list[str]:
    return [name for name in _ext.BACKENDS if name in _ext.available()]


@pytest.mark.parametrize("name", backends())
@pytest.mark.parametrize("kernel", _ext.KERNELS)
def test_a_kernel_keeps_its_stub(name: str, kernel: str) -> None:
    module = getattr(_ext.backend(name), kernel[1:])
    stub = Stub(kernel)
    for function, parameters in stub.functions.items():
        assert live_parameters(getattr(module, function)) == parameters, f"{module.__name__}.{function}"
    for owner_name, (methods, attributes) in stub.classes.items():
        owner = getattr(module, owner_name)
        for method, parameters in methods.items():
            assert callable(getattr(owner, method)), f"{module.__name__}.{owner_name}.{method}"
            if method not in UNCHECKED:
                assert method_parameters(owner, method) == parameters, f"{module.__name__}.{owner_name}.{method}"
        assert [attribute for attribute in sorted(attributes) if not has_attribute(owner, attribute)] == []


@pytest.mark.parametrize("name", backends())
@pytest.mark.parametrize("kernel", _ext.KERNELS)
def test_a_kernel_has_nothing_public_beside_its_stub(name: str, kernel: str) -> None:
    module = getattr(_ext.backend(name), kernel[1:])
    stub = Stub(kernel)
    assert sorted(module.__all__) == sorted([*stub.functions, *stub.classes])
    if name == "numpy":
        return  # its classes are the twin's, and what they share among themselves
    for owner_name, (methods, attributes) in stub.classes.items():
        members = {member for member in dir(getattr(module, owner_name)) if not member.startswith("_")}
        assert members - set(methods) - attributes == set(), f"{module.__name__}.{owner_name}"


# -- the choice of a backend ------------------------------------------------------------------------------------------

ASK = "from snapdb import _ext; print(_ext.BACKEND, _ext.REASON, sep=': ')"


def python(code: str, path: Path = PACKAGE.parent, **switches: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that has SnapDB on its path and only these switches."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPDB_", "PYTHON"))}
    env.update(switches, PYTHONPATH=str(path), PYTHONIOENCODING="utf-8", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.run(command, env=env, cwd=path, capture_output=True, encoding="utf-8", timeout=120)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "snapdb", ignore=shutil.ignore_patterns("__pycache__", "data", "*.c"))
    return tmp_path


def extension_files(path: Path) -> list[Path]:
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return sorted(file for file in (path / "snapdb" / "_ext").iterdir() if file.name.endswith(suffixes))


def a_slower_backend() -> str:
    return "numpy" if importlib.util.find_spec("numpy") else "python"


def test_no_extensions_leaves_them_out() -> None:
    said = answer(python(ASK, SNAPDB_NO_EXTENSIONS="1"))
    assert said.startswith(f"{a_slower_backend()}: SNAPDB_NO_EXTENSIONS is set; NumPy")
    assert answer(python(ASK, SNAPDB_NO_EXTENSIONS="0")) == answer(python(ASK))


@needs_c
@pytest.mark.smoke
def test_compiled_kernels_come_first() -> None:
    assert answer(python(ASK)) == "c: the compiled kernels are installed"
    assert answer(python(ASK, SNAPDB_REQUIRE_EXTENSIONS="1")) == "c: the compiled kernels are installed"


@pytest.mark.parametrize("name", backends())
def test_a_backend_can_be_forced(name: str) -> None:
    assert answer(python(ASK, SNAPDB_BACKEND=name)) == f"{name}: SNAPDB_BACKEND={name}"
    inside = "from snapdb import _ext; kernels = vars(_ext.backend(_ext.BACKEND)).values(); "
    names = "print({kernel.__name__ for kernel in kernels if not isinstance(kernel, str)})"
    modules = ast.literal_eval(answer(python(inside + names, SNAPDB_BACKEND=name)))
    suffixes = {"c": ("",), "numpy": ("_np", "_py"), "python": ("_py",)}[name]
    assert len(modules) == len(_ext.KERNELS)
    assert modules <= {f"snapdb._ext.{kernel}{suffix}" for kernel in _ext.KERNELS for suffix in suffixes}, "never a mix"


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"SNAPDB_NO_EXTENSIONS": "1", "SNAPDB_REQUIRE_EXTENSIONS": "1"}, "both set"),
        ({"SNAPDB_BACKEND": "python", "SNAPDB_REQUIRE_EXTENSIONS": "1"}, "both set"),
        ({"SNAPDB_BACKEND": "fortran"}, "use one of c, numpy, python"),
    ],
)
def test_switches_that_contradict_are_errors(switches: dict[str, str], message: str) -> None:
    done = python(ASK, **switches)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert message in done.stderr


def test_a_missing_extension_is_no_error_unless_required(copied: Path) -> None:
    for file in extension_files(copied):
        file.unlink()
    done = python(ASK, copied)
    assert answer(done).startswith(f"{a_slower_backend()}: the compiled kernels are not installed")
    assert done.stderr == ""
    for switches in ({"SNAPDB_REQUIRE_EXTENSIONS": "1"}, {"SNAPDB_BACKEND": "c"}):
        done = python(ASK, copied, **switches)
        assert done.returncode == 1
        assert "ModuleNotFoundError" in done.stderr


def test_a_source_tree_without_kernels_says_so(copied: Path) -> None:
    for file in extension_files(copied):
        file.unlink()
    told = "imported from a source tree without built kernels: run outside it, or build them in place"
    assert told not in answer(python(ASK, copied))
    (copied / "setup.py").touch()
    said = answer(python(ASK, copied))
    assert said.startswith(f"{a_slower_backend()}: the compiled kernels are not installed")
    assert told in said
    assert str(copied) not in said


@needs_c
@pytest.mark.parametrize("kernel", _ext.KERNELS)
def test_all_or_none(copied: Path, kernel: str) -> None:
    for file in extension_files(copied):
        if file.name.startswith(kernel + "."):
            file.unlink()
    done = python(ASK, copied)
    assert answer(done).startswith(f"{a_slower_backend()}: the compiled kernels are not installed")
    assert kernel in answer(done)


def test_an_extension_that_does_not_load_warns_once_and_says_why(copied: Path) -> None:
    for file in extension_files(copied):
        file.unlink()
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (copied / "snapdb" / "_ext" / (_ext.KERNELS[0] + suffix)).write_bytes(b"not a shared library")
    done = python(ASK, copied)
    assert answer(done).startswith(f"{a_slower_backend()}: the compiled kernels do not load: ")
    assert done.stderr.count("RuntimeWarning: SnapDB's compiled kernels do not load") == 1
    done = python(ASK, copied, SNAPDB_REQUIRE_EXTENSIONS="1")
    assert done.returncode == 1
    assert "ImportError" in done.stderr


def test_without_numpy_the_pure_kernels_are_chosen_and_numpy_cannot_be_forced() -> None:
    hidden = "import importlib.util as u; find = u.find_spec; "
    hidden += "u.find_spec = lambda name, *a: None if name == 'numpy' else find(name, *a); "
    assert answer(python(hidden + ASK, SNAPDB_NO_EXTENSIONS="1")).startswith("python: ")
    done = python(hidden + ASK, SNAPDB_BACKEND="numpy")
    assert done.returncode == 1
    assert "NumPy is not installed; install it" in done.stderr


# -- importing --------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("switches", [{}, {"SNAPDB_NO_EXTENSIONS": "1"}], ids=["default", "pure"])
def test_importing_brings_no_numpy_and_no_heavy_module(switches: dict[str, str]) -> None:
    code = "import sys; before = set(sys.modules); import snapdb; print(sorted(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in ast.literal_eval(answer(python(code, **switches)))}
    heavy = {"argparse", "asyncio", "csv", "cryptography", "http", "multiprocessing", "numpy", "pandas", "pyarrow"}
    assert loaded & (heavy | {"sqlite3", "subprocess", "unittest"}) == set()


def test_public_names_exist() -> None:
    assert len(set(snapdb.__all__)) == len(snapdb.__all__)
    assert [name for name in snapdb.__all__ if not hasattr(snapdb, name)] == []
    for path in MODULES:
        if path.name in ("__main__.py",) or path.stem.endswith("_np"):
            continue
        dotted = ".".join(("snapdb", *path.relative_to(PACKAGE).with_suffix("").parts))
        module = importlib.import_module(dotted[: -len(".__init__")] if dotted.endswith(".__init__") else dotted)
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == [], dotted


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", snapdb.__version__)
    others = [p for p in MODULES if p.name != "_version.py" and snapdb.__version__ in p.read_text(encoding="utf-8")]
    assert others == []


def test_the_package_is_typed_and_has_no_generated_c() -> None:
    assert (PACKAGE / "py.typed").exists()
    if not PACKAGE.parent.samefile(ROOT):
        assert list(PACKAGE.rglob("*.c")) == []


def test_the_installed_package_is_the_one_under_test() -> None:
    if os.environ.get("SNAPDB_TEST_INSTALLED"):
        assert not PACKAGE.parent.samefile(ROOT), "the source tree shadows the installed package"


# -- layers and forbidden things, read from the source ----------------------------------------------------------------

FACES = {
    "__main__", "benchmark", "cell_types", "cli", "cli_care", "cli_files", "cli_import", "cli_query", "demo",
    "document_asked", "document_filter", "document_index", "document_json", "document_paths", "document_scan",
    "document_sort", "document_store", "document_update", "document_values", "export", "exposed", "metrics", "plot",
    "progress", "query", "report_columns", "text_table",
}  # fmt: skip
ENGINES = {
    "column", "columnar", "columnar_base", "columnar_bulk", "columnar_check", "columnar_diff", "columnar_file",
    "columnar_image", "columnar_pack", "columnar_patch", "columnar_salvage", "columnar_undo", "columnar_view",
    "kept", "row_diff", "row_file", "row_image", "row_salvage", "row_scattered", "rowstore", "segments",
    "summary", "table",
}  # fmt: skip
STORAGE = {"storage"}
#: where engines and storage meet
CORE = {
    "cdc", "change_file", "core", "feed", "filejournal", "history", "indexed", "indexes", "maintenance", "measured",
    "opening", "records", "repairing", "salvaged", "snapshots", "tablefile", "wal", "wal_file", "watch",
}  # fmt: skip
#: package parts that a part must not import; what stands nowhere here lies under the engines
NEVER = {
    **dict.fromkeys(FACES, STORAGE | {"rowstore", "table"}),
    **dict.fromkeys(ENGINES, STORAGE | CORE | FACES),
    "storage": ENGINES | CORE | FACES | {"schema", "dtypes", "conditions", "index"},
    **dict.fromkeys(CORE, FACES - {"query", "export"}),
    "testing": ENGINES | FACES,  # the crash harness stands on core and on the layer under storage
    "_ext": None,  # nothing above it at all
}
LOWER = STORAGE | CORE | FACES | ENGINES


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but what stands under ``if TYPE_CHECKING``, which never runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name inside the package) of every import of SnapDB's own modules that runs."""
    package = ["snapdb", *path.relative_to(PACKAGE).parent.parts]
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "snapdb":
                yield node.lineno, name[len("snapdb.") :]


def part(path: Path) -> str:
    """The part of the package that a file belongs to: its module, or the folder it stands in."""
    first = path.relative_to(PACKAGE).parts[0]
    return first[: -len(".py")] if first.endswith(".py") else first


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_layers(path: Path) -> None:
    here = part(path)
    wrong = []
    if here == "__init__":
        return  # the front door names what it shows
    for line, name in imports(path):
        target = name.split(".")[0]
        never = NEVER.get(here, LOWER - {here})
        if target != here and (never is None or target in never):
            wrong.append(f"{relative(path)}:{line} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_kernels_are_reached_through_their_dispatcher(path: Path) -> None:
    variants = dict.fromkeys(_ext.KERNELS, "")
    variants.update({file.stem: file.stem[-3:] for file in EXT.glob("_*.py") if file.stem[-3:] in ("_py", "_np")})
    # kernels among themselves: a twin and what the twins share see twins, a NumPy variant sees both
    own = ({"_py", "_np"} if path.stem.endswith("_np") else {"_py"}) if path.parent == EXT else set()
    wrong = []
    if path == EXT / "__init__.py":
        return
    for line, name in imports(path):
        words = name.split(".")
        if words[0] == "_ext" and len(words) > 1 and words[1] in variants and variants[words[1]] not in own:
            wrong.append(f"{relative(path)}:{line} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_forbidden(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = []
    for node in ast.walk(tree):
        found = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = node.func.id if node.func.id in ("print", "eval", "exec", "breakpoint") else None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = {module.split(".")[0]} | {alias.name.split(".")[0] for alias in node.names}
            found = ", ".join(sorted(names & {"pickle", "cPickle", "marshal", "shelve", "dill"}))
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found = "bare except"
        elif isinstance(node, ast.Assert):
            found = "assert"
        if found:
            wrong.append(f"{relative(path)}:{node.lineno}: {found}")
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_numpy_stays_in_its_modules(path: Path) -> None:
    if path.stem.endswith("_np") or part(path) in ("benchmark",):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # inside a function it is imported at use; at the top it would cost every start
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom) and not node.level]
    optional = {"cryptography", "matplotlib", "numpy", "pandas", "polars", "pyarrow"}
    assert [name for name in names if name.split(".")[0] in optional] == []
