"""Sets up a virtual environment in ``.ci/``, builds and installs SnapDB into it and runs the tests on that.

    python .ci/test.py [pytest's own arguments]

The switches of ``setup.py`` hold: SNAPDB_NO_EXTENSIONS=1 tests the pure package, SNAPDB_REQUIRE_EXTENSIONS=1 fails
where a kernel does not compile; without either the kernels are tested where they compile: pytest's header says which.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools import ROOT, Failure, clean_environment, install_numpy, make_venv, output, pip_install, pytest


def pytest_arguments(given: list[str]) -> list[str]:
    """Paths made absolute, because pytest runs in another folder; the whole suite where none is given."""
    arguments, paths = [], 0
    for word in given:
        path, separator, node = word.partition("::")
        if not word.startswith("-") and Path(path).exists():
            word, paths = f"{Path(path).resolve()}{separator}{node}", paths + 1
        arguments.append(word)
    return arguments if paths else [*arguments, str(ROOT / "tests")]


def main() -> int:
    python = make_venv(sys.executable, ROOT / ".ci" / f".venv-{sys.version_info[0]}.{sys.version_info[1]}")
    switches = {name: value for name, value in os.environ.items() if name.startswith("SNAPDB_")}
    pip_install(python, f"{ROOT}[test]", env=clean_environment(**switches))
    install_numpy(python)
    # how it was built is the build's business: the tests see only what chooses a backend
    switches.pop("SNAPDB_REQUIRE_EXTENSIONS", None)
    env = clean_environment(**switches)
    if "PYTEST_ADDOPTS" in os.environ:
        env["PYTEST_ADDOPTS"] = os.environ["PYTEST_ADDOPTS"]
    where = output([python, "-c", "import snapdb; print(snapdb.__file__)"], env=env, cwd=Path(python).parent)
    print(f"testing {where}", flush=True)
    workers = ("-n", min(4, os.cpu_count() or 1), "--dist", "worksteal")
    pytest(python, "-q", *workers, *pytest_arguments(sys.argv[1:]), env=env)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(str(failure))
