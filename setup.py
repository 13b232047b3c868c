"""Builds the extensions of fastpath/; everything else stands in pyproject.toml.

FASTPATH_BUILD chooses the kind of build. Only a release is built in place;
every other kind is a whole tree of its own, build/<kind>/tree, so that two
kinds never meet in one directory. "none" compiles nothing: an editable install
of modules that stand compiled in place. FASTPATH_PROBES=1 adds the test probes of
tests/cy, which never enter a wheel.

The CNI plugin, engine/cni/shim/towpath-cni.c, is a program and not a module: it is
linked statically where the C library allows it, since runtimes start it for every pod.

Each extension carries a stamp: the kind and a digest of every .pxd and .h it
was compiled from (fastpath/build.h holds it, fastpath/build.py reads it).
"""

import os
import platform
import shlex
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

from Cython.Build import cythonize
from Cython.Build.Dependencies import create_dependency_tree
from numpy import get_include
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KIND = os.environ.get("FASTPATH_BUILD", "release")
BUILD = Path("build", KIND)
JOBS = os.cpu_count() or 1

QUIET = [
    "-Wno-unused-function",
    "-Wno-sign-compare",
    "-Wno-unused-result",
    "-Wno-discarded-qualifiers",
]  # what Cython writes, not what we write
# The worker is one unit of everything a packet touches. What gcc calls a large unit is smaller than that, and beyond it
# even a reader of four instructions is called instead of inlined.
ALWAYS = ["-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "--param=large-unit-insns=200000", *QUIET]
# What gcc tunes for by default clears a structure with `rep stos`, whose start alone costs a packet more than the stores.
TUNED = ["-mtune=skylake"] if platform.machine() == "x86_64" else []
SANITIZED = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]  # -fwrapv would hide signed overflow from UBSan
KINDS: dict[str, list[str]] = {
    "release": ["-O2", *TUNED, "-g1", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
    "debug": ["-O0", "-g3", "-DFASTPATH_DEBUG=1"],
    "asan": [*SANITIZED, "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DFASTPATH_DEBUG=1"],
    "tsan": [*SANITIZED, "-O0", "-fsanitize=thread"],  # at -O1 gcc removes the very loops that race
    "cov": ["-O0", "-g", "-DCYTHON_TRACE_NOGIL=1"],
}
DIRECTIVES = {
    "language_level": 3,
    "cdivision": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "embedsignature": False,
    "linetrace": KIND == "cov",
}


def stamped(source: Path, headers: list[Path]) -> Path:
    """The header that gives `source` its stamp; when the stamp changed, its C is generated anew."""
    cimported = [Path(name) for name in create_dependency_tree().all_dependencies(str(source))]
    parts = sorted({p for p in [*cimported, *headers] if p.suffix in {".pxd", ".h"} and not p.is_absolute()})
    digests = [f"{part.as_posix()}={blake2b(part.read_bytes(), digest_size=8).hexdigest()}" for part in parts]
    text = f'#define FASTPATH_STAMP "{" ".join([f"build={KIND}", *digests])}"\n#include "fastpath/build.h"\n'
    header = BUILD / "stamp" / source.with_suffix(".h")
    if not header.exists() or header.read_text() != text:
        (BUILD / "c" / source.with_suffix(".c")).unlink(missing_ok=True)
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text(text)
    return header


def extension(source: Path, headers: list[Path]) -> Extension:
    stamp = stamped(source, headers)
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        include_dirs=[".", get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=[*ALWAYS, *KINDS[KIND], "-include", str(stamp)],
        extra_link_args=[flag for flag in KINDS[KIND] if flag.startswith("-fsanitize")],
        depends=[str(stamp), "setup.py"],
    )


def extensions() -> list[Extension]:
    sources = sorted(Path("fastpath").rglob("*.pyx"))
    if os.environ.get("FASTPATH_PROBES") and "bdist_wheel" not in sys.argv:
        sources += sorted(Path("tests/cy").glob("*.pyx"))
    headers = sorted(Path("fastpath").rglob("*.h"))
    modules = [extension(source, headers) for source in sources]
    emit_lines = KIND in {"debug", "asan", "tsan"}
    return cythonize(
        modules, build_dir=str(BUILD / "c"), nthreads=JOBS, emit_linenums=emit_lines, compiler_directives=DIRECTIVES
    )


SHIM = Path("engine/cni/shim/towpath-cni.c")
SHIM_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-s"]


def build_shim(target: Path) -> None:
    """Compile the CNI plugin, unless the one that stands there is newer than its source."""
    if target.exists() and target.stat().st_mtime >= SHIM.stat().st_mtime:
        return
    compiler = shlex.split(os.environ.get("CC", "cc"))
    aside = target.with_name(f"{target.name}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    static = [*compiler, *SHIM_FLAGS, "-static", str(SHIM), "-o", str(aside)]
    if subprocess.run(static, capture_output=True, check=False).returncode:
        subprocess.run([word for word in static if word != "-static"], check=True)
    aside.replace(target)


class BuildAll(build_ext):
    """The extensions, and the CNI plugin at its place."""

    def run(self) -> None:
        super().run()
        root = Path() if self.inplace else Path(self.build_lib)
        if SHIM.exists():  # a part of the sources is compiled alone, too
            build_shim(root / SHIM.with_suffix(""))


if __name__ == "__main__":
    if KIND == "none":
        setup()
        sys.exit()
    if KIND not in KINDS:
        sys.exit(f"FASTPATH_BUILD={KIND} is none of {', '.join(KINDS)}")
    if KIND != "release" and {"--inplace", "-i", "editable_wheel", "bdist_wheel"} & set(sys.argv):
        sys.exit(f"FASTPATH_BUILD={KIND} is built as a tree of its own: use `make {KIND}` or `setup.py build`")
    folders = {"build_base": str(BUILD)} | ({"build_lib": str(BUILD / "tree")} if KIND != "release" else {})
    setup(
        cmdclass={"build_ext": BuildAll},
        ext_modules=extensions(),
        options={"build": folders, "build_ext": {"parallel": JOBS}},
    )
