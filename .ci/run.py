"""Everything that must pass before a change lands, in parts. ``bash .ci/run [part ...]``; without a name, all of them.

Tests run against wheels that were built from the sdist, never against the checkout. Each part has a budget of minutes
on two cores; a part that takes longer fails, so that the whole keeps within what CI has.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

from tools import (
    ROOT,
    Failure,
    clean_environment,
    install_numpy,
    interpreter,
    make_venv,
    output,
    pip_install,
    pytest,
    run,
    scripts,
)

#: minutes a part may take on two cores; what CI has is 90
BUDGET = {
    "environment": 2,
    "build": 4,
    "lint": 1,
    "aarch64": 3,
    "tests": 49,
    "crashes": 17,
    "smoke": 5,
    "readme": 6,
    "docs": 1,
    "bench": 2,
}
WHEEL_MEGABYTES = 1.35  # beside the bundled data; 0.9 before files, 1.2 before snapshots, repair and encryption
DATA = "snapdb/data/weather.csv"
OLDEST = (3, 9)
SIMD_KERNELS = ("_codecs", "_mask")  # as in setup.py
AARCH64 = (183).to_bytes(2, "little")  # the machine in the header of an object file
ASV = "asv>=0.6.6,<0.7"  # pinned: its sampling rules change between versions
SIMD_LEVELS = {"base": "", "v3": "avx2", "v4": "avx512bw"}  # the level, and the CPU flag it cannot do without
TESTS = ROOT / "tests"
#: where files are crashed, killed, damaged and refused; a plain run of these takes a sixteenth of the cases
CRASHES = (
    "test_crash_states.py", "test_broken_variants.py", "test_io_errors.py", "test_kill.py", "test_flips.py",
    "test_snapshot_crashes.py", "test_repair_crashes.py", "test_broken_snapshots.py",
)  # fmt: skip
FULL_DOSE = {"SNAPDB_CRASH_STATES": "1", "SNAPDB_KILLS": "200", "SNAPDB_FLIPS": "1"}
#: each worker begins with its half in order, so that what a file's tests share is made once; the first to end helps
PARALLEL = ("-q", "-n", "2", "--dist", "worksteal")


class Python:
    """One interpreter, the virtual environment made from it and the wheel built for it."""

    def __init__(self, version: tuple[int, int, int], program: str) -> None:
        self.version = version
        self.program = program
        self.tag = f"{version[0]}.{version[1]}"
        self.venv = ROOT / ".ci" / f".venv-{self.tag}"
        self.python = interpreter(self.venv)
        self.wheel: Path | None = None
        self.numpy = False

    def __repr__(self) -> str:
        return "Python " + ".".join(map(str, self.version))


def find_pythons() -> list[Python]:
    """The running interpreter and the newest of each other minor version that pyenv or the path has, oldest first."""
    candidates = [getattr(sys, "_base_executable", sys.executable)]
    roots = [os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")]
    if shutil.which("pyenv"):
        roots.append(output(["pyenv", "root"]))
    for root in dict.fromkeys(filter(None, roots)):
        candidates += [str(path) for path in sorted(Path(root, "versions").glob("*/bin/python"))]
    candidates += filter(None, (shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 30)))
    ask = (
        "import json, sys, sysconfig; print(json.dumps([sys.version_info[:3], sys.implementation.name,"
        " bool(sysconfig.get_config_var('Py_GIL_DISABLED')), sys.version_info[3]]))"
    )
    found: dict[tuple[int, ...], Python] = {}
    for position, program in enumerate(candidates):
        try:
            version, implementation, free_threaded, level = json.loads(output([program, "-c", ask]))
        except (Failure, OSError, ValueError):
            continue
        minor = tuple(version[:2])
        if minor < OLDEST or implementation != "cpython" or free_threaded:
            continue
        if position and (level != "final" or (minor in found and found[minor].version >= tuple(version))):
            continue
        if position and minor == sys.version_info[:2]:
            continue  # the running interpreter stands for its version
        found[minor] = Python((version[0], version[1], version[2]), program)
    return [found[minor] for minor in sorted(found)]


class Steps:
    """Runs every step of a part although an earlier one failed; Failure with the names of those at the end."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __enter__(self) -> Steps:
        return self

    def do(self, name: str, step: Callable[..., None], *arguments: object, **options: object) -> None:
        print(f"--- {name}", flush=True)
        started = time.monotonic()
        try:
            step(*arguments, **options)
        except Failure as failure:
            print(f"--- {name}: failed: {failure}")
            self.failed.append(name)
        print(f"--- {name}: {time.monotonic() - started:.0f} s", flush=True)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None and self.failed:
            raise Failure("; ".join(self.failed))


class Checks:
    """The parts, each a method, and what they leave to the next ones."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.pythons = find_pythons()
        self.main = next(python for python in self.pythons if python.version[:2] == sys.version_info[:2])
        self.ends = [self.pythons[0]] if len(self.pythons) == 1 else [self.pythons[0], self.pythons[-1]]
        self.others = [python for python in self.pythons if python not in self.ends]
        self.kernels: tuple[str, ...] = ()
        self.pure_wheel: Path | None = None

    def environment(self) -> None:
        """A virtual environment for each interpreter."""
        print("interpreters:", ", ".join(map(str, self.pythons)))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda python: make_venv(python.program, python.venv), self.pythons))
        pip_install(self.main.python, "build")

    def build(self) -> None:
        """The sdist of what git would commit, a wheel of it for each interpreter, what they hold; installed."""
        tree = self.export()
        dist = self.work / "dist"
        output([self.main.python, "-m", "build", "--sdist", "--outdir", dist, tree], env=clean_environment())
        (sdist,) = dist.glob("*.tar.gz")
        shutil.unpack_archive(sdist, self.work / "sdist")
        (source,) = (self.work / "sdist").iterdir()
        self.check_sdist(tree, source)
        self.kernels = kernels_of(source / "setup.py")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda python: self.build_wheel(python, sdist), self.pythons))
        for python in self.pythons:
            self.check_wheel(python)
        pure = self.work / "pure"
        output(
            [self.main.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", pure, sdist],
            env=clean_environment(SNAPDB_NO_EXTENSIONS="1"),
        )
        (self.pure_wheel,) = pure.glob("*.whl")
        if not self.pure_wheel.name.endswith("-py3-none-any.whl"):
            raise Failure(f"the pure wheel is tagged for a platform: {self.pure_wheel.name}")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.install, self.pythons))

    def export(self) -> Path:
        """A copy of the files that git knows or would add: nothing that an earlier build left behind."""
        tree = self.work / "tree"
        listed = output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        return tree

    @staticmethod
    def check_sdist(tree: Path, source: Path) -> None:
        left_out = {".github", ".gitignore", ".gitattributes"}
        missing = [
            str(path.relative_to(tree))
            for path in sorted(tree.rglob("*"))
            if path.is_file() and not (source / path.relative_to(tree)).exists()
        ]
        missing = [name for name in missing if Path(name).parts[0] not in left_out]
        if missing:
            raise Failure(f"not in the sdist: {', '.join(missing[:20])}")

    def build_wheel(self, python: Python, sdist: Path) -> None:
        folder = self.work / f"wheel-{python.tag}"
        output(
            [python.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, sdist],
            env=clean_environment(SNAPDB_REQUIRE_EXTENSIONS="1"),
        )
        (python.wheel,) = folder.glob("*.whl")

    def check_wheel(self, python: Python) -> None:
        """Every kernel compiled and stripped, stubs there, no source of one, no foreign file, and a small whole."""
        assert python.wheel is not None
        suffix = output([python.python, "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"])
        with zipfile.ZipFile(python.wheel) as wheel:
            names = set(wheel.namelist())
            needed = {"snapdb/py.typed", DATA, "snapdb/_ext/_common.py"}
            for kernel in self.kernels:
                stem = f"snapdb/_ext/{kernel}"
                needed |= {stem + suffix, stem + ".pyi", stem + "_py.py"}
            if needed - names:
                raise Failure(f"{python.wheel.name} lacks {', '.join(sorted(needed - names))}")
            foreign = re.compile(r"(?!snapdb/|[^/]+\.dist-info/)|.*\.(c|h|inc|o|pxd|pxi|pyc|pyx)\Z")
            wrong = sorted(filter(foreign.match, names))
            if wrong:
                raise Failure(f"{python.wheel.name} should not have {', '.join(wrong[:20])}")
            for name in sorted(names):
                if name.endswith(".so") and re.search(rb"\.debug_info\0|\.symtab\0", wheel.read(name)):
                    raise Failure(f"{python.wheel.name}: {name} is not stripped")
            data = wheel.getinfo(DATA).compress_size / 1e6
        size = python.wheel.stat().st_size / 1e6
        print(f"{python.wheel.name}: {size:.2f} MB with {data:.2f} MB of data, {len(self.kernels)} extensions")
        if size - data > WHEEL_MEGABYTES:
            raise Failure(f"{python.wheel.name} is over {WHEEL_MEGABYTES} MB without its data")

    def install(self, python: Python) -> None:
        """The wheel with what its part needs: linters on the main interpreter, the suite's packages on all."""
        extra = "dev" if python is self.main else "test"
        env = clean_environment()
        pip = [python.python, "-m", "pip", "install", "--quiet"]
        output([*pip, f"{python.wheel}[{extra}]"], env=env)
        output([*pip, "--force-reinstall", "--no-deps", python.wheel], env=env)
        output([python.python, "-c", "import cryptography"], env=env)  # without it the tests of encryption would skip
        python.numpy = install_numpy(python.python)

    def lint(self) -> None:
        """ruff, mypy --strict, and the stubs against the compiled modules."""
        modules = [f"snapdb._ext.{kernel}" for kernel in self.kernels]
        allowed = ROOT / ".ci" / "stubtest-allowlist.txt"
        tools: list[tuple[Path, list[object]]] = [
            (ROOT, ["ruff", "check", "--no-cache", "--output-format=concise", "."]),
            (ROOT, ["mypy", "--cache-dir", self.work / "mypy"]),
            (self.work, ["mypy.stubtest", "--ignore-unused-allowlist", "--allowlist", allowed, *modules]),
        ]
        with Steps() as steps:
            for folder, tool in tools:
                command = [self.main.python, "-m", *tool]
                steps.do(str(tool[0]), run, command, env=clean_environment(), cwd=folder)

    def aarch64(self) -> None:
        """The SIMD loops and the kernels that link them compile for aarch64; only where ziglang can be imported."""
        if importlib.util.find_spec("ziglang") is None:
            print("ziglang is not installed: left out")
            return
        source = next((self.work / "sdist").iterdir())
        (cython,) = re.findall(
            r'"(cython[^"]*)"', (source / "pyproject.toml").read_text(encoding="utf-8"), re.IGNORECASE
        )
        pip_install(self.main.python, cython)
        made = self.work / "aarch64"
        made.mkdir()
        headers = output([self.main.python, "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"])
        env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(made), "ZIG_LOCAL_CACHE_DIR": str(made)}
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu", "-c", "-fPIC", "-O3"]
        compiler += ["-ffp-contract=off", "-fno-strict-aliasing", f"-I{headers}", "-Isnapdb/_ext"]
        with Steps() as steps:
            for name in ("kernels", *SIMD_KERNELS):
                code = f"snapdb/_ext/{name}.c"
                if name in SIMD_KERNELS:
                    code = str(made / f"{name}.c")
                    options = ["-3", "-X", "embedsignature=True", "-X", "auto_pickle=False", "-I", "."]
                    command = [self.main.python, "-m", "cython", *options, f"snapdb/_ext/{name}.pyx", "-o", code]
                    steps.do(f"{name}, to C", run, command, env=clean_environment(), cwd=source)
                there = made / f"{name}.o"
                steps.do(f"{name}, aarch64-linux-gnu", run, [*compiler, code, "-o", there], env=env, cwd=source)
                if there.exists() and there.read_bytes()[18:20] != AARCH64:
                    raise Failure(f"{name} was compiled for another machine")

    def tests(self) -> None:
        """All on both ends of Python, and pure without NumPy; the surface per backend; the loops per SIMD level."""
        oldest, newest = self.ends[0], self.ends[-1]
        surface, loops = split_tests()
        with Steps() as steps:
            for python in self.ends:
                # what runs once on each backend runs on the oldest's twins below, with the pure wheel: not here too
                on = ["--on=c,numpy"] if python is oldest and oldest is not newest else []
                steps.do(f"everything, {python}", pytest, python.python, *PARALLEL, *on, TESTS)
            steps.do(f"everything, {oldest}, the pure wheel without NumPy", self.test_pure_wheel)
            without = "numpy" if newest.numpy else "python"
            for switch, backend in (
                ("SNAPDB_BACKEND=numpy", "numpy"),
                ("SNAPDB_BACKEND=python", "python"),
                ("SNAPDB_NO_EXTENSIONS=1", without),
            ):
                if backend == "numpy" and not newest.numpy:
                    continue
                env = clean_environment(**dict([switch.split("=")]))
                # a test that chooses its backend by itself ran on the others above, on this interpreter
                arguments = [*PARALLEL, "-m", "smoke", f"--on={backend}", *surface]
                steps.do(f"the surface, {switch}, {newest}", pytest, newest.python, *arguments, env=env)
            flags = cpu_flags()
            ask = "from snapdb.benchmark.machine import simd_level; print(simd_level())"
            used = output([newest.python, "-c", ask], env=clean_environment(), cwd=self.work)
            for level, flag in SIMD_LEVELS.items():
                if level == used:
                    print(f"--- SIMD level {level}: what everything has run with")
                    continue
                if flag and flag not in flags:
                    print(f"--- SIMD level {level}: not on this processor")
                    continue
                env = clean_environment(SNAPDB_SIMD=level)
                arguments = [*PARALLEL, "-k", "not numpy and not python", *loops]  # the twins have no such levels
                steps.do(f"SIMD level {level}, {newest}", pytest, newest.python, *arguments, env=env)

    def test_pure_wheel(self) -> None:
        pure = make_venv(self.ends[0].program, self.work / "pure-environment")
        pip_install(pure, f"{self.pure_wheel}[test]")
        pytest(pure, *PARALLEL, TESTS)

    def crashes(self) -> None:
        """Every crash state, kill, flipped byte and failing operation on the compiled kernels; a part with NumPy."""
        files = [TESTS / name for name in CRASHES]
        python = self.main
        with Steps() as steps:
            env = clean_environment(**FULL_DOSE)
            steps.do(f"all of them, {python}", pytest, python.python, *PARALLEL, *files, env=env)
            if python.numpy:
                env = clean_environment(SNAPDB_BACKEND="numpy")
                arguments = [*PARALLEL, "--on=numpy", *files]
                steps.do("a sixteenth, SNAPDB_BACKEND=numpy", pytest, python.python, *arguments, env=env)

    def smoke(self) -> None:
        """A few tests of every part on each interpreter between the oldest and the newest."""
        with Steps() as steps:
            for python in self.others:
                steps.do(f"smoke, {python}", pytest, python.python, *PARALLEL, "-m", "smoke", TESTS)

    def readme(self) -> None:
        """The README's two commands, word for word, each time in an empty environment on a clean clone."""
        missing = "the compiled kernels are not installed"
        with Steps() as steps:
            for label, switches, backend, reason in (
                ("compiled", {}, "c", "the compiled kernels are installed"),
                ("pure", {"SNAPDB_NO_EXTENSIONS": "1"}, "python", "SNAPDB_NO_EXTENSIONS"),
                ("no compiler", {"CC": "false"}, "python", missing),
            ):
                steps.do(f"README, {label}", self.try_readme, label, switches, backend, reason)

    def try_readme(self, label: str, switches: dict[str, str], backend: str, reason: str) -> None:
        demo, test = readme_commands()
        clone = self.work / f"clone {label}"  # the space is meant: paths have them
        self.clone(clone)
        venv = self.work / f"empty-{label.replace(' ', '-')}"
        run([self.main.program, "-m", "venv", venv])
        path = f"{scripts(venv)}{os.pathsep}{os.environ['PATH']}"
        env = clean_environment(PATH=path, VIRTUAL_ENV=str(venv), PYTEST_ADDOPTS="-m smoke", **switches)
        run(["sh", "-c", demo], env=env, cwd=clone)
        ask = "from snapdb import _ext; print(_ext.BACKEND, _ext.REASON, sep=': ')"
        answer = output([interpreter(venv), "-c", ask], env=env, cwd=self.work)
        print(answer)
        if not answer.startswith(backend + ": ") or reason not in answer:
            raise Failure(f"expected the backend {backend} because {reason!r}, found {answer}")
        run(["sh", "-c", test], env=env, cwd=clone)

    def clone(self, where: Path) -> None:
        head = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=ROOT, capture_output=True)
        if head.returncode == 0:
            run(["git", "clone", "--quiet", ROOT, where])
        else:  # before the first commit: what that commit would hold
            shutil.copytree(self.work / "tree", where)

    def docs(self) -> None:
        """The code of README, docs and examples."""
        pytest(self.main.python, "-q", TESTS / "test_docs.py")

    def bench(self) -> None:
        """The benchmarks import and run; their figures mean nothing here."""
        python = self.main.python
        pip_install(python, ASV)
        run([python, "-m", "asv", "check", "-E", "existing"], env=clean_environment(), cwd=ROOT / "asv_benchmarks")
        command = [python, "-m", "snapdb", "bench", "--rows", "20000", "--reads", "1000"]
        run(command, env=clean_environment(), cwd=self.work)


def kernels_of(setup: Path) -> tuple[str, ...]:
    """``KERNELS`` as ``setup.py`` has it."""
    found = re.search(r"^KERNELS = \((.*)\)$", setup.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise Failure("setup.py has no KERNELS")
    return tuple(re.findall(r'"(\w+)"', found.group(1)))


def split_tests() -> tuple[list[Path], list[Path]]:
    """The test files of the public surface, and those that reach the kernels' loops."""
    surface, loops = [], []
    for path in sorted(TESTS.glob("test_*.py")):
        if path.name == "test_packaging.py":
            continue
        on_kernels = re.search(r"def test_\w+\([^)]*\bkernels\b", path.read_text(encoding="utf-8")) is not None
        if on_kernels or "aggregate" in path.name:
            loops.append(path)
        if not on_kernels:
            surface.append(path)
    if not surface or not loops:
        raise Failure("tests/ has no test of the public surface or none of the kernels")
    return surface, loops


def cpu_flags() -> set[str]:
    """What the processor says it can do; empty where it cannot be read (then only the baseline is forced)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    return set(re.findall(r"\w+", " ".join(re.findall(r"^flags\s*:(.*)$", text, re.MULTILINE)[:1])))


def readme_commands() -> tuple[str, str]:
    """The two commands of the README's first screen: its first two shell blocks, one line each."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if len(blocks) < 2 or any(block.count("\n") != 1 for block in blocks[:2]):
        raise Failure("README.md does not begin with two shell blocks of one command each")
    return blocks[0].strip(), blocks[1].strip()


def run_part(name: str, part: Callable[[], None]) -> tuple[float, str]:
    """A part's minutes and its result."""
    print(f"\n===== {name}: {(part.__doc__ or '').strip()}", flush=True)
    started = time.monotonic()
    result = "ok"
    try:
        part()
    except Failure as failure:
        print(f"{name} failed: {failure}", flush=True)
        result = "FAILED"
    minutes = (time.monotonic() - started) / 60
    if result == "ok" and minutes > BUDGET[name]:
        result = "OVER BUDGET"
    return minutes, result


def chosen_parts(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in BUDGET]
    if unknown:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(BUDGET)}")
    wanted = set(names or BUDGET) | {"environment", "build"}  # the others test what these two make
    return [name for name in BUDGET if name in wanted]


def main() -> int:
    results: dict[str, tuple[float, str]] = {}
    with tempfile.TemporaryDirectory(prefix="snapdb-ci-") as work:
        checks = Checks(Path(work))
        for name in chosen_parts(sys.argv[1:]):
            results[name] = run_part(name, getattr(checks, name))
            if results[name][1] == "FAILED" and name in ("environment", "build"):
                break
    print("\npart         minutes  budget  result")
    for name, (minutes, result) in results.items():
        print(f"{name:<12} {minutes:7.1f}  {BUDGET[name]:6d}  {result}")
    total = sum(minutes for minutes, _ in results.values())
    print(f"{'total':<12} {total:7.1f}  {sum(BUDGET.values()):6d}")
    return int(any(result != "ok" for _, result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
