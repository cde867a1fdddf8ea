"""What ``test.py`` and ``run.py`` share: virtual environments, pip, pytest on the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """A step that did not succeed; the message says which."""


def run(command: list[object], env: dict[str, str] | None = None, cwd: Path | str = ROOT) -> None:
    """Run a command with its output shown; Failure where it does not exit with 0."""
    words = [str(word) for word in command]
    sys.stdout.flush()
    code = subprocess.run(words, env=env, cwd=cwd, stdin=subprocess.DEVNULL).returncode
    if code:
        shown = " ".join(words)
        raise Failure(f"exit code {code}: {shown[:200]}{'…' if len(shown) > 200 else ''}")


def output(command: list[object], env: dict[str, str] | None = None, cwd: Path | str = ROOT) -> str:
    """A command's standard output, stripped; Failure with its standard error where it does not exit with 0."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise Failure(f"exit code {done.returncode}: {' '.join(words)[:200]}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout.strip()


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would steer SnapDB, Python or pytest, plus ``changes``."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SNAPDB_") and name not in ("PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "VIRTUAL_ENV")
    }
    env.update({"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}, **changes)
    return env


def scripts(venv: Path) -> Path:
    """Where a virtual environment keeps its programs."""
    return venv / ("Scripts" if os.name == "nt" else "bin")


def interpreter(venv: Path) -> Path:
    return scripts(venv) / ("python.exe" if os.name == "nt" else "python")


def make_venv(python: Path | str, where: Path) -> Path:
    """The interpreter of the virtual environment ``where``, made by ``python`` unless one that works is there."""
    inside = interpreter(where)
    if inside.exists():
        try:
            output([inside, "-m", "pip", "--version"])
            return inside
        except (Failure, OSError):
            pass  # left behind by an interpreter that has gone: made anew
    run([python, "-m", "venv", "--clear", where])
    return inside


def pip_install(python: Path, *what: object, env: dict[str, str] | None = None) -> None:
    run([python, "-m", "pip", "install", "--quiet", *what], env=env)


def install_numpy(python: Path) -> bool:
    """Install NumPy where a wheel of it exists; the suite runs without it too."""
    try:
        output([python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "numpy"])
    except Failure:
        print("NumPy has no wheel for this interpreter: its backend is left out", flush=True)
        return False
    return True


def pytest(python: Path, *arguments: object, env: dict[str, str] | None = None) -> None:
    """Run pytest on the installed package: from an empty folder, so that the source tree cannot shadow it."""
    env = dict(clean_environment() if env is None else env, SNAPDB_TEST_INSTALLED="1")
    with tempfile.TemporaryDirectory(prefix="snapdb-tests-") as empty:
        settings = ["-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
        # pytest exits with 5 where it collects nothing, which is a failure here like any other
        run([python, "-m", "pytest", *settings, *arguments], env=env, cwd=empty)


def tag(python: Path | str) -> str:
    """``3.12`` for an interpreter."""
    return output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
