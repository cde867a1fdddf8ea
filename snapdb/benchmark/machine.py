"""Facts about the machine and the versions, without host names or paths."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from typing import Any

from .. import _ext
from .._version import __version__

_DISTRIBUTIONS = ("pandas", "numpy", "polars", "duckdb")


def simd_level() -> str:
    """The SIMD level of the compiled kernels in use; "none" for the others."""
    if _ext.BACKEND != "c":
        return "none"  # without loading anything
    return str(_ext.backend("c").mask.simd_level())


def backend() -> dict[str, str]:
    """The kernels in use: name, reason, SIMD level."""
    return {"name": _ext.BACKEND, "reason": _ext.REASON, "simd": simd_level()}


def python() -> str:
    """Implementation and version of this interpreter."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def file_system(directory: str) -> str:
    """The kind of file system that a directory is on ("ext4", "tmpfs" …); "unknown" where the system does not say."""
    try:
        device = os.stat(directory).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                mount, _, kind = line.partition(" - ")
                major, minor = mount.split()[2].split(":")
                if os.makedev(int(major), int(minor)) == device:
                    return kind.split()[0]
    except (OSError, ValueError, AttributeError):
        pass
    return "unknown"


def facts() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "machine": {
            "processor": _processor(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        "python": python(),
        "backend": backend(),
    }


def versions(contenders: Iterable[str]) -> dict[str, str]:
    """Version of each library that took part."""
    found = {"snapdb": __version__, "python": platform.python_version()}
    for name in contenders:
        if name == "sqlite":
            found[name] = str(importlib.import_module("sqlite3").sqlite_version)
        elif name in _DISTRIBUTIONS:
            found[name] = importlib.metadata.version(name)
    return found
