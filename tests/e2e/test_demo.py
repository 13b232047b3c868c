"""The demo does what it says, takes everything away again, and can be left up and cleaned."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.lab import owner, wait_until

# What --clean takes down is every demo that it finds.
pytestmark = pytest.mark.usefixtures("labs_apart")

ROOT = Path(__file__).parents[2]
DEMO = (sys.executable, "-m", "engine.cli", "demo")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
PAIRS, PROTOCOLS, FAMILIES = 30, 3, 2
PATH_MTU = {"vxlan": 1430, "udp": 1452, "ipip": 1460, "plain": 1500}  # what an IPv6 underlay of 1500 leaves


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "200"}


def runs_for_nobody(python):
    """Whether a user without rights can run this interpreter, start it again from itself, and load the data plane."""
    script = "import subprocess, sys, fastpath.plane; subprocess.run([sys.executable, '-c', ''], check=True)"
    return not subprocess.run(
        [*NOBODY, python, "-c", script], capture_output=True, env=environment(), check=False
    ).returncode


def ended(pid):
    """Gone, or waiting for a parent that does not ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def demo(*arguments, seconds=110):
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, env=environment(), timeout=seconds, check=False
    )


def leftovers():
    return {found.path for found in owner.find("demo")}


def test_every_mode_works_and_nothing_stays():
    before = leftovers()
    result = demo("-o", "json")
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    assert answer["ok"] is True
    assert [mode["mode"] for mode in answer["modes"]] == ["vxlan", "udp", "ipip", "plain"]
    for mode in answer["modes"]:
        survey = mode["survey"]
        assert len(survey["checks"]) == PAIRS * PROTOCOLS * FAMILIES
        assert all(check["ok"] for check in survey["checks"])
        assert len(survey["figures"]) == 4
        for figure in survey["figures"]:
            assert figure["rtt_ms"] > 0
            assert figure["gigabits"] > 0
            assert figure["path_mtu"] == PATH_MTU[mode["mode"]]
    assert leftovers() <= before


def test_kept_network_can_be_entered_and_cleaned():
    result = demo("--mode", "vxlan", "--keep")
    try:
        assert result.returncode == 0, result.stdout + result.stderr
        assert "6/6" in result.stdout
        assert re.search(r"ok\s+vxlan\s+180 of 180 checks", result.stdout)
        enter = re.search(r"^ *a1 +(nsenter .*) bash$", result.stdout, re.MULTILINE)
        assert enter, result.stdout
        argv = [*shlex.split(enter[1]), "ping", "-c", "1", "-W", "2", "10.244.3.2"]
        pinged = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert pinged.returncode == 0, pinged.stdout + pinged.stderr
        (kept,) = [found for found in owner.find("demo") if str(found.path) in result.stdout]
        assert kept.owner
    finally:
        cleaned = demo("--clean")
    assert cleaned.returncode == 0
    assert not kept.path.exists()
    wait_until(lambda: ended(kept.owner), "the keeper to end", seconds=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_takes_everything_away(number):
    before = leftovers()
    with subprocess.Popen([*DEMO, "--mode", "vxlan"], stdout=subprocess.PIPE, text=True, env=environment()) as process:
        wait_until(lambda: leftovers() - before, "the demo to begin", seconds=20)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert leftovers() <= before


@pytest.mark.needs("setpriv")
def test_without_root_it_runs_or_says_why():
    python = next(filter(runs_for_nobody, (sys.executable, "/usr/bin/python3")), None)
    if python is None:
        pytest.skip("another user can run no Python of this version with what the demo needs")
    argv = [*NOBODY, python, *DEMO[1:], "--mode", "vxlan", "-o", "json"]
    result = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=110, check=False)
    if result.returncode == 3:
        assert "The demo cannot run" in result.stderr
        assert "as root" in result.stderr
    else:
        assert result.returncode == 0, result.stdout + result.stderr
        assert json.loads(result.stdout)["ok"] is True
