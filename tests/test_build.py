"""The refusal of a mixed build, on a small package that is really built and really mixed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fastpath
from fastpath import build

ROOT = Path(__file__).parent.parent
SUFFIX = EXTENSION_SUFFIXES[0]

SHARED = "cdef struct pair:\n    int {}\n    int {}\n"
WRITER = """
from fastpath.shared cimport pair
cdef pair both
both.first, both.second = 7, 32
def address():
    return <size_t>&both
"""
READER = """
from fastpath.shared cimport pair
def first(size_t address):
    return (<pair *>address).first
"""
USE = "from fastpath import reader, writer; import fastpath; print(fastpath.BUILD, reader.first(writer.address()))"


def build_in(folder: Path, kind: str = "release") -> None:
    """Build the package in `folder` by the project's own setup.py."""
    place = ["build_ext", "--inplace"] if kind == "release" else ["build"]
    environment = os.environ | {"FASTPATH_BUILD": kind, "FASTPATH_PROBES": ""}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *place], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def use(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", USE], cwd=folder, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A tree with the project's setup.py and two modules that share a struct, built as a release."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "fastpath").mkdir()
    (folder / "fastpath" / "__init__.pxd").touch()
    for name in ("setup.py", "fastpath/__init__.py", "fastpath/build.py", "fastpath/build.h"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text('[project]\nname = "mixed"\nversion = "0"\n')
    (folder / "fastpath" / "shared.pxd").write_text(SHARED.format("first", "second"))
    (folder / "fastpath" / "writer.pyx").write_text(WRITER)
    (folder / "fastpath" / "reader.pyx").write_text(READER)
    build_in(folder)
    return folder


@pytest.fixture
def copy(package, tmp_path) -> Path:
    return shutil.copytree(package, tmp_path / "copy", symlinks=True)


def test_a_whole_build_is_accepted(package):
    done = use(package)
    assert (done.stdout.split(), done.returncode) == (["release", "7"], 0), done.stderr


def test_a_module_left_from_another_layout_is_refused_by_name(copy):
    reader = copy / "fastpath" / f"reader{SUFFIX}"
    stale = reader.read_bytes()
    (copy / "fastpath" / "shared.pxd").write_text(SHARED.format("second", "first"))
    build_in(copy)
    assert use(copy).stdout.split() == ["release", "7"], "a changed header rebuilds everyone who uses it"
    reader.unlink()  # a new inode: nothing may still map the old one
    reader.write_bytes(stale)
    done = use(copy)
    assert done.returncode != 0
    assert f"mixed build: {reader} was compiled from another fastpath/shared.pxd than " in done.stderr
    assert "make clean build" in done.stderr


def test_two_kinds_of_build_are_refused(copy):
    build_in(copy, "debug")
    tree = copy / "build" / "debug" / "tree" / "fastpath"
    assert (tree / f"reader{SUFFIX}").exists(), "a debug build goes into a tree of its own"
    assert use(copy).stdout.split() == ["release", "7"], "and leaves the release in place alone"
    shutil.copy(tree / f"writer{SUFFIX}", copy / "fastpath")
    done = use(copy)
    assert done.returncode != 0
    assert "a debug build" in done.stderr
    assert "a release build" in done.stderr


def test_a_module_without_a_stamp_is_refused(tmp_path):
    module = tmp_path / f"old{SUFFIX}"
    module.write_bytes(b"\x7fELF" + bytes(100_000))
    with pytest.raises(ImportError, match="carries no stamp"):
        build.verify(str(tmp_path))


def test_a_stamp_is_found_wherever_the_linker_put_it(tmp_path):
    text = b"fastpath-stamp:build=release fastpath/buffer.pxd=00ff\0"
    for offset in (0, 4000, 16384 - 20, 200_000):
        module = tmp_path / f"module{SUFFIX}"
        module.write_bytes(bytes(offset) + text + bytes(100))
        assert build.read_stamp(str(module)) == {"build": "release", "fastpath/buffer.pxd": "00ff"}


def test_modules_of_other_interpreters_are_left_alone(tmp_path):
    (tmp_path / "module.cpython-399-sparc-linux-gnu.so").write_bytes(b"nothing")
    assert build.verify(str(tmp_path)) == build.UNBUILT


def test_only_a_release_is_built_in_place(package):
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=package, env=os.environ | {"FASTPATH_BUILD": "asan"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "make asan" in done.stderr


def test_this_very_build_is_whole():
    assert build.verify(str(ROOT / "fastpath")) == fastpath.BUILD
