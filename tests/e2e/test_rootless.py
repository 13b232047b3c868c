"""What root does for a cluster, a user does too, as root of a user namespace: containers, masquerade, ports, services."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# /run is where namespaces get their names; the outer one belongs to the outer root.
APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "-")


@pytest.mark.needs("unshare", "nft", "ss")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("tests", ["tests/engine/cni/test_verbs.py", "tests/e2e/test_outside.py"])
def test_in_a_user_namespace(tests):
    allowed = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"the kernel grants no user namespace: {allowed.stderr.strip()}")
    command = [*APART, sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", tests]
    with tempfile.TemporaryDirectory() as folder:  # pytest cleans up after earlier runs, which were of other users
        environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": folder}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout
