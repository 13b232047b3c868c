"""What is shipped: the wheel and the source distribution, built as a stranger would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.so", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info"
)
NO_INDEX = ("Could not find a version", "No matching distribution", "Connection", "Temporary failure")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the sources with nothing built in it."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "towpath", ignore=LEFT_OUT)


@pytest.fixture(scope="module")
def wheel(checkout) -> Path:
    """The wheel of a plain, isolated `pip wheel .`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "out", "."]
    environment = os.environ | {"FASTPATH_PROBES": "1"}  # must make no difference
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
        pytest.skip(f"no package index for an isolated build: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (found,) = (checkout / "out").glob("towpath-*.whl")
    return found


def test_the_wheel_holds_every_module_and_no_probe(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for source in (ROOT / "fastpath").rglob("*.pyx"):
        stem = str(source.relative_to(ROOT).with_suffix(""))
        assert any(name.startswith(stem + ".") and name.endswith(".so") for name in names), f"{stem} is not compiled"
    for source in [*(ROOT / "fastpath").rglob("*"), *(ROOT / "engine").rglob("*")]:
        if source.suffix in {".py", ".pyi", ".pxd", ".h"} or source.name == "py.typed":
            assert str(source.relative_to(ROOT)) in names
    assert not [name for name in names if name.startswith(("tests", "bench", "tools")) or name.endswith(".c")]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    shim = zipfile.ZipFile(wheel).getinfo("engine/cni/shim/towpath-cni")
    assert shim.external_attr >> 16 & 0o111, "the CNI plugin can be run"


def test_the_wheel_can_be_used(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "import fastpath; print(fastpath.BUILD, fastpath.__file__)"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["release", str(tmp_path / "fastpath" / "__init__.py")]


def test_the_source_distribution_holds_all_that_a_build_needs(checkout):
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", "out"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = (checkout / "out").glob("towpath-*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = {p for p in (ROOT / "fastpath").rglob("*") if p.suffix in {".pyx", ".pxd", ".pyi", ".h", ".py"}}
    wanted |= {ROOT / name for name in ("setup.py", "pyproject.toml", "Makefile", "LICENSE", "tests/conftest.py", "engine/cni/shim/towpath-cni.c")}
    assert {str(path.relative_to(ROOT)) for path in wanted} - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
