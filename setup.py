"""Builds the optional compiled kernels; everything else stands in pyproject.toml.

SNAPDB_NO_EXTENSIONS=1 builds a pure-Python package. SNAPDB_REQUIRE_EXTENSIONS=1 (or CIBUILDWHEEL=1) makes a kernel that
does not compile an error; otherwise the package installs without it and ``snapdb._ext.REASON`` says so at run time.
SNAPDB_DEBUG_BUILD=1 compiles for a debugger.
"""

import os
import platform
import sys
from glob import glob

from setuptools import setup

#: the hot modules of ``snapdb/_ext``; the dispatcher, the stubs and the twins are tested against this tuple
KERNELS = ("_values", "_codecs", "_mask", "_slab", "_tail", "_wal", "_index", "_doc")
#: kernels that link the SIMD loops, and what they need not have of them
SIMD_KERNELS = {"_codecs": [], "_mask": [("SNAPDB_BITMAPS_ONLY", "1")]}
#: kernels that gain by -O3; the others are a sixth larger with it and no faster (kernels.c asks for it itself)
LARGE_KERNELS = ("_values",)
#: kernels that are a quarter smaller with -Os and no slower: they wait for memory, or for the loops of kernels.c, which
#: asks for its own level
SMALL_KERNELS = ("_index", "_wal", "_mask", "_doc")
#: kernels that are an eighth to a sixth smaller where GCC inlines less than its two fifths more code, in percent. What
#: they do once for a row is no slower; a batch of dicts takes 6 % more, and with 10 for _slab a lookup would take 16 %
LESS_INLINED = {"_codecs": 10, "_values": 10, "_tail": 10, "_slab": 20}
#: calls of other libraries without a stub each, and less read again behind a call: a hundredth of a kernel, no slower
DIRECT = ["-fno-plt", "-fipa-pta"]
#: with them a single columnar insert takes two fifths more, and a filtered sum three tenths
INDIRECT = ("_tail", "_codecs")
#: what -O3 aligns in all of its copies of a loop: a fortieth of _values, no slower
UNALIGNED = ["-fno-align-functions", "-fno-align-loops", "-fno-align-jumps", "-fno-align-labels"]
#: no tables for unwinding, which C code that throws nothing has no use for, no lines of C in tracebacks, no loop that
#: nobody calls: a twentieth of a wheel
SMALLER = (
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-DCYTHON_CLINE_IN_TRACEBACK=0", "-ffunction-sections",
    "-fvisibility=hidden",
)  # fmt: skip


def switch(name):
    """Whether an environment switch is on: '', '0', 'false', 'no' and 'off' are off, anything else is on."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


NO_EXTENSIONS = switch("SNAPDB_NO_EXTENSIONS")
REQUIRE_EXTENSIONS = switch("SNAPDB_REQUIRE_EXTENSIONS")
if NO_EXTENSIONS and REQUIRE_EXTENSIONS:
    raise RuntimeError("SNAPDB_NO_EXTENSIONS and SNAPDB_REQUIRE_EXTENSIONS are both set; unset one of them")
REQUIRED = REQUIRE_EXTENSIONS or switch("CIBUILDWHEEL")


def compile_arguments(name):
    """Flags that give every compiler and level the same float bits, and release objects without debug information."""
    if sys.platform == "win32":
        return ["/O2", "/fp:precise"], []
    same_bits = ["-ffp-contract=off", "-fno-strict-aliasing"]
    if switch("SNAPDB_DEBUG_BUILD"):
        return ["-O0", "-g3", *same_bits], []
    speed = ["-Os"] if name in SMALL_KERNELS else ["-O2", "-ftree-vectorize"]
    if name in LARGE_KERNELS:
        speed = ["-O3"]
    if sys.platform.startswith("linux"):
        speed += ["--param", f"inline-unit-growth={LESS_INLINED[name]}"] if name in LESS_INLINED else []
        speed += DIRECT if name not in INDIRECT else []
        speed += UNALIGNED if name in LARGE_KERNELS else []
    compiling = [*speed, "-g0", "-Wno-unreachable-code", *SMALLER, *same_bits]
    if sys.platform == "darwin":
        return compiling, ["-Wl,-x", "-Wl,-dead_strip"]
    return compiling, ["-Wl,-s", "-Wl,--gc-sections"]


def extensions():
    """The extension modules; ``optional`` covers the C compiler only, a Cython error always fails the build."""
    from Cython.Distutils.extension import Extension

    arguments = {name: compile_arguments(name) for name in KERNELS}
    return [
        Extension(
            f"snapdb._ext.{name}",
            [f"snapdb/_ext/{name}.pyx"] + (["snapdb/_ext/kernels.c"] if name in SIMD_KERNELS else []),
            include_dirs=["snapdb/_ext"],
            define_macros=SIMD_KERNELS.get(name, []),
            depends=sorted(sum((glob(f"snapdb/_ext/*.{kind}") for kind in ("h", "inc", "pxd", "pxi")), [])),
            extra_compile_args=arguments[name][0],
            extra_link_args=arguments[name][1],
            # no code that pickles a kernel's objects, which nothing may do: a tenth of the compiled modules
            cython_directives={"language_level": 3, "embedsignature": True, "binding": True, "auto_pickle": False},
            cython_c_in_temp=True,  # generated C belongs to the build, not to the source tree
            optional=not REQUIRED,
        )
        for name in KERNELS
    ]


def arguments():
    """Keyword arguments for ``setup``; Cython is imported only where something is compiled."""
    if NO_EXTENSIONS or platform.python_implementation() != "CPython":
        return {}
    try:
        from Cython.Build import build_ext
    except ModuleNotFoundError:
        if REQUIRED:
            raise
        sys.stderr.write("Cython is not installed: SnapDB is built without its compiled kernels\n")
        return {}
    # not cythonize(): it drops `optional`
    return {"ext_modules": extensions(), "cmdclass": {"build_ext": build_ext}}


setup(**arguments())
