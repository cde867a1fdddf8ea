"""Runs the storage tests on kernels that are built with AddressSanitizer and UndefinedBehaviorSanitizer.

    python .ci/sanitize.py [--keep FOLDER] [--tests FILE ...] [pytest's own arguments]

The package and the tests are copied to a folder of their own (a temporary one; ``--keep`` names it and leaves it, and a
second run builds only what changed), the kernels are compiled there with ``-fsanitize=address,undefined`` for the
running interpreter, and pytest runs there with the sanitizers' libraries loaded first. Without ``--tests`` it is every
test that reads or writes files but those that are about processes; SNAPDB_HOSTILE and SNAPDB_FUZZ set their doses as
everywhere.

It needs gcc or clang with the sanitizers' libraries (CC names another compiler), Cython, setuptools, pytest,
pytest-xdist and hypothesis in the running interpreter's environment. Any finding aborts the process and so fails
the run; its report is on standard error. Leaks are not looked for: an interpreter leaves what it has at its end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("snapdb", "tests", "fuzz", "docs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-fno-sanitize=vptr",
)
# a test of storage uses these; the others named here are of the kernels that read what storage hands them
STORAGE = re.compile(r"snapdb\.(storage|testing|tablefile|records)|import.*\btablefile\b|tmp_path")
KERNELS = {
    "test_wal.py",
    "test_wal_scan.py",
    "test_pack.py",
    "test_slab_file.py",
    "test_slab_log.py",
    "test_hostile_chunks.py",
}
# they start processes or measure time, and show nothing more of the kernels
LEFT_OUT = {
    "test_packaging.py", "test_docs.py", "test_bench.py", "test_cli.py", "test_kill.py", "test_fork_and_locks.py",
    "test_signals.py", "test_threads.py", "test_growth.py", "test_broken_variants.py",
}  # fmt: skip
DOSES = {"SNAPDB_HOSTILE": "40", "SNAPDB_FUZZ": "200"}


def compiler() -> str:
    """The C compiler."""
    return os.environ.get("CC", "gcc").split()[0]


def libraries() -> str:
    """What must be loaded before the interpreter: the sanitizers' libraries, as LD_PRELOAD."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        path = subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        if os.path.isabs(path):
            found.append(os.path.realpath(path))
    if not found:
        sys.exit(f"{compiler()} has no libasan.so: install the sanitizers' libraries")
    return ":".join(found)


def copy(folder: Path) -> None:
    """Bring the folder up to date; what did not change keeps its time, so that it is not compiled again."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy2(source, folder / name)
    for path in [*folder.glob("snapdb/**/*"), *folder.glob("tests/*.py"), *folder.glob("fuzz/*.py")]:
        built = path.suffix == ".so" or "__pycache__" in path.parts
        if path.is_file() and not built and not (ROOT / path.relative_to(folder)).exists():
            path.unlink()


def build(folder: Path) -> None:
    """Compile the kernels in place."""
    setup = folder / "setup.py"
    text = setup.read_text(encoding="utf-8")
    setup.write_text(text.replace('"-O0", "-g3"', '"-O1", "-g"'), encoding="utf-8")  # a third of the time
    flags = " ".join(FLAGS)
    env = dict(os.environ, CC=compiler(), CFLAGS=flags, LDFLAGS=flags)
    env.update(SNAPDB_DEBUG_BUILD="1", SNAPDB_REQUIRE_EXTENSIONS="1")
    env.pop("SNAPDB_NO_EXTENSIONS", None)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"]
    done = subprocess.run(command, cwd=folder, env=env)
    if done.returncode:
        sys.exit(f"the kernels were not built: exit code {done.returncode}")


def storage_tests(folder: Path) -> list[str]:
    """The test files that have to do with files."""
    found = []
    for path in sorted((folder / "tests").glob("test_*.py")):
        if path.name in LEFT_OUT:
            continue
        if path.name in KERNELS or STORAGE.search(path.read_text(encoding="utf-8")):
            found.append(str(path))
    return found


def environment(folder: Path) -> dict[str, str]:
    """What the tests run in."""
    options = {
        # a reservation that is too large is refused as everywhere else, and not a finding
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=1024",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
        "LD_PRELOAD": libraries(),
        "PYTHONMALLOC": "malloc",  # every object is an allocation that the sanitizer knows
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SNAPDB_REQUIRE_EXTENSIONS": "1",
        "SNAPDB_BACKEND": "c",
        "SNAPDB_SANITIZED": "1",
    }
    return {**DOSES, **os.environ, **options}


def main() -> int:
    parser = argparse.ArgumentParser(description="The storage tests under AddressSanitizer and UBSan.")
    parser.add_argument("--keep", type=Path, help="the folder to build in, which stays")
    parser.add_argument("--tests", nargs="+", help="test files, by name")
    given, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="snapdb-sanitize-") as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        copy(folder)
        build(folder)
        tests = [str(folder / "tests" / Path(name).name) for name in given.tests or ()] or storage_tests(folder)
        env = environment(folder)
        where = "import snapdb._ext as e; print('testing', e.__file__, e.BACKEND)"
        subprocess.run([sys.executable, "-c", where], env=env, cwd=folder, check=True)
        workers = ["-n", str(min(4, os.cpu_count() or 1))] if not any(word.startswith("-n") for word in more) else []
        compiled = [] if "-k" in more else ["-k", "not numpy and not python"]  # the twins have nothing to sanitize
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *compiled, *more, *tests]
        sys.stdout.flush()
        return subprocess.run(command, env=env, cwd=folder, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
