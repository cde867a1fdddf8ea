"""The fuzz targets in small doses, without Atheris: they hold what they say, and they still run."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
EXECUTIONS = int(os.environ.get("SNAPDB_FUZZ", "60"))
NAMES = ("superblock", "catalog", "extents", "wal", "segments", "group", "rows", "records", "history", "file", "repair")

pytestmark = pytest.mark.skipif(not FUZZ.is_dir(), reason="the fuzz targets are in the repository only")


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("driver", FUZZ / "driver.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["driver"] = module
    spec.loader.exec_module(module)
    return module


def test_every_target_is_listed(driver: ModuleType) -> None:
    assert {path.stem for path in FUZZ.glob("fuzz_*.py")} == {f"fuzz_{name}" for name in driver.TARGETS}
    assert driver.TARGETS == NAMES
    assert all(f"fuzz_{name}.py" in (FUZZ / "README.md").read_text(encoding="utf-8") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_dose(driver: ModuleType, name: str) -> None:
    executions = EXECUTIONS if name not in ("file", "repair") else max(1, EXECUTIONS // 3)
    done, findings = driver.run(name, executions=executions)
    assert findings == [], findings[0][1]
    assert done == executions
