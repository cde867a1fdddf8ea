"""Chooses the kernels: compiled, NumPy or pure Python. All of one kind, never a mix.

``BACKEND`` is the kind chosen at import, ``REASON`` says why. ``backend(name)`` gives any of them as a namespace with
the modules ``values codecs mask slab tail wal index``. ``SNAPDB_BACKEND=c|numpy|python`` forces one;
``SNAPDB_NO_EXTENSIONS=1`` leaves the compiled one out; ``SNAPDB_REQUIRE_EXTENSIONS=1`` makes its absence an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ._codecs import Chunk as Chunk
    from ._slab import SlabTable as SlabTable
    from ._slab import SlabView as SlabView
    from ._tail import RowPort as RowPort
    from ._values import ColumnBuffer as ColumnBuffer
    from ._values import RowCodec as RowCodec

__all__ = ["BACKEND", "BACKENDS", "KERNELS", "REASON", "Backend", "available", "backend"]

#: the hot modules; ``setup.py``, the stubs and the twins are tested against this tuple
KERNELS = ("_values", "_codecs", "_mask", "_slab", "_tail", "_wal", "_index", "_doc")
BACKENDS = ("c", "numpy", "python")
_NUMPY_KERNELS = ("_codecs", "_mask", "_slab")  # the twins with whole-array loops worth doing in NumPy
_NUMPY_HINT = "NumPy is not installed; install it with: pip install numpy (or the extra 'numpy')"

_SOURCE_TREE = "; imported from a source tree without built kernels: run outside it, or build them in place"


class Backend:
    """One kind of kernels: a module per name, and ``name`` itself."""

    def __init__(self, name: str, modules: dict[str, Any]) -> None:
        self.name = name
        self.values = modules["_values"]
        self.codecs = modules["_codecs"]
        self.mask = modules["_mask"]
        self.slab = modules["_slab"]
        self.tail = modules["_tail"]
        self.wal = modules["_wal"]
        self.index = modules["_index"]
        self.doc = modules["_doc"]

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"


def switch(name: str) -> bool:
    """Whether an environment switch is on, read as ``setup.py`` reads it."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


_loaded: dict[str, Backend] = {}


def _module_name(kind: str, kernel: str) -> str:
    if kind == "c":
        return f"{__name__}.{kernel}"
    if kind == "numpy" and kernel in _NUMPY_KERNELS:
        return f"{__name__}.{kernel}_np"
    return f"{__name__}.{kernel}_py"


def backend(name: str) -> Backend:
    """The kernels of one kind, loaded at first use.

    Raises ValueError for an unknown name, ImportError where NumPy or the compiled modules are not there.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: use one of {', '.join(BACKENDS)}")
    found = _loaded.get(name)
    if found is None:
        if name == "numpy" and not _has_numpy():
            raise ImportError(_NUMPY_HINT)
        modules = {kernel: importlib.import_module(_module_name(name, kernel)) for kernel in KERNELS}
        found = _loaded[name] = Backend(name, modules)
    return found


def available() -> list[str]:
    """The names of the backends that can be loaded here, best first."""
    names = []
    for name in BACKENDS:
        try:
            backend(name)
        except ImportError:
            continue
        names.append(name)
    return names


def _has_numpy() -> bool:
    return importlib.util.find_spec("numpy") is not None


def _without_extensions(reason: str) -> tuple[str, str]:
    # NumPy is found here but loaded at first use: importing it would cost more than all of SnapDB
    if _has_numpy():
        return "numpy", reason + "; NumPy is installed"
    return "python", reason + "; NumPy is not installed"


def _choose() -> tuple[str, str]:
    no, required = switch("SNAPDB_NO_EXTENSIONS"), switch("SNAPDB_REQUIRE_EXTENSIONS")
    if no and required:
        raise ImportError("SNAPDB_NO_EXTENSIONS and SNAPDB_REQUIRE_EXTENSIONS are both set; unset one of them")
    forced = os.environ.get("SNAPDB_BACKEND", "").strip().lower()
    if forced:
        if forced not in BACKENDS:
            raise ImportError(f"SNAPDB_BACKEND={forced!r}: use one of {', '.join(BACKENDS)}")
        if forced == "c":
            backend("c")
        elif required:
            raise ImportError(f"SNAPDB_REQUIRE_EXTENSIONS and SNAPDB_BACKEND={forced} are both set; unset one of them")
        elif forced == "numpy" and not _has_numpy():
            raise ImportError(_NUMPY_HINT)
        return forced, f"SNAPDB_BACKEND={forced}"
    if no:
        return _without_extensions("SNAPDB_NO_EXTENSIONS is set")
    problem = _load_compiled(required)
    if problem is None:
        return "c", "the compiled kernels are installed"
    return _without_extensions(problem)


def _in_tree() -> bool:
    """Whether the package lies in a source tree: a setup.py stands beside its folder."""
    return os.path.isfile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "setup.py"))


def _load_compiled(required: bool) -> Optional[str]:
    """Load the compiled kernels; None, or why they cannot be used."""
    try:
        backend("c")
    except ModuleNotFoundError as error:
        if required:
            raise
        return f"the compiled kernels are not installed ({error.name} is missing){_SOURCE_TREE if _in_tree() else ''}"
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        if required:
            raise
        # There, but it will not load (a stale build raises ValueError where its types have another size):
        # a broken install must not look like a slow one
        warnings.warn(f"SnapDB's compiled kernels do not load: {error}", RuntimeWarning, stacklevel=2)
        return f"the compiled kernels do not load: {error}"
    return None


BACKEND, REASON = _choose()
