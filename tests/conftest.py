"""What every test may rely on: root, programs and solitude are asked for by mark, and a skip says why.

Owns: the marks `root` and `needs`, and the stamp check of the test probes; tests/turns.py has `alone`.
Never: makes a device or a namespace; engine/lab and the tests do.
Invariant: a test that could not run is shown as skipped with its reason, never as passed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

import fastpath
from fastpath.build import verify
from tests import turns

TESTS = Path(__file__).parent
CAP_NET_ADMIN = 12


# How long one example takes says nothing under a sanitizer or on a busy machine. Where nothing may be written, no
# example is kept.
kept = {} if os.access(".", os.W_OK) else {"database": None}
hypothesis.settings.register_profile("towpath", deadline=None, **kept)
hypothesis.settings.load_profile("towpath")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse probes that were compiled against other headers than the modules beside them."""
    try:
        verify(str(TESTS / "cy"))
    except ImportError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(turns)


@pytest.fixture
def labs_apart(monkeypatch):
    """Where labs of this process and of its children are, none of another test or of whoever uses this machine."""
    with tempfile.TemporaryDirectory(prefix="tp") as folder:
        os.chmod(folder, 0o1777)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


def pytest_report_header() -> str:
    return f"fastpath: {fastpath.BUILD} build"


def why_no_root() -> str | None:
    """Why devices and namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    if not int(effective.split()[1], 16) >> CAP_NET_ADMIN & 1:
        return "needs CAP_NET_ADMIN"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_root = why_no_root()
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/cni"])
    for item in items:
        if no_root and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=no_root))
        for mark in item.iter_markers("needs"):
            for program in mark.args:
                if not shutil.which(program, path=path):
                    item.add_marker(pytest.mark.skip(reason=f"needs the program {program}"))
