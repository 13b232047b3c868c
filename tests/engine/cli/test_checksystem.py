"""checksystem tells the truth about this kernel, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = "from engine.cli.checksystem import command; command()"
KEYS = {
    "kernel",
    "user-namespaces",
    "namespaces",
    "tun",
    "vnet-header",
    "offload",
    "multi-queue",
    "socket-buffers",
    "udp-segment",
    "udp-gro",
    "raw-sockets",
    "nftables",
    "processor",
}


def checksystem(*arguments, code=RUN, prefix=()):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "200"}
    argv = [*prefix, sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)


def findings(result):
    return {finding["key"]: finding for finding in json.loads(result.stdout)["findings"]}


@pytest.mark.root
def test_everything_is_asked_and_said_in_words():
    result = checksystem("-o", "json")
    found = findings(result)
    assert result.returncode == 0, result.stderr
    assert set(found) == KEYS
    assert json.loads(result.stdout)["complete"] is True
    for finding in found.values():
        assert finding["meaning"]
        assert finding["granted"] in {True, False}
    assert os.uname().release in found["kernel"]["value"]


@pytest.mark.root
def test_offload_is_what_a_port_gets():
    from engine.lab import Lab
    from fastpath.port.tun import TunPort

    said = findings(checksystem("-o", "json"))["offload"]
    with Lab("test") as lab:
        port = lab.host("a").call(lambda: TunPort.open("probe", role="pod", persist=False))
        granted = port.granted
        port.close()
    assert said["granted"] is bool(granted)
    assert not granted or (granted >= 0x6F) == ("UDP" in said["value"])


@pytest.mark.root
@pytest.mark.alone
def test_nothing_changes():
    before = system_state()
    assert checksystem().returncode == 0
    assert system_state() == before


def system_state():
    names = ("net/core/rmem_max", "net/core/wmem_max", "user/max_user_namespaces")
    devices = sorted(os.listdir("/sys/class/net"))
    return devices, [Path("/proc/sys", name).read_text() for name in names], sorted(os.listdir("/run"))


def test_missing_tun_is_exit_code_3_with_a_remedy():
    code = f"import engine.observe.system as s; s.TUN = '/dev/net/towpath-none'; {RUN}"
    result = checksystem("-o", "json", code=code)
    tun = findings(result)["tun"]
    assert result.returncode == 3
    assert json.loads(result.stdout)["complete"] is False
    assert tun["granted"] is False
    assert "/dev/net/towpath-none: No such file or directory" in tun["value"]
    assert "modprobe tun" in tun["remedy"]
    table = checksystem(code=code)
    assert table.returncode == 3
    assert "Towpath cannot run here: TUN device" in table.stdout


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ("1 / 0", "ended with code 1"),
        ("s.os.kill(s.os.getpid(), 9)", "was killed by signal 9"),
        ("s.os._exit(0)", "ended with code 0"),
    ],
)
def test_no_answer_does_not_mean_that_nothing_is_missing(instead, says):
    code = f"import engine.observe.system as s; s._raw_sockets = lambda: {instead}; {RUN}"
    result = checksystem("-o", "json", code=code)
    assert result.returncode == 3
    assert json.loads(result.stdout)["complete"] is False
    found = findings(result)
    assert set(found) == {"kernel", "questions", "processor"}
    assert found["questions"]["granted"] is None
    assert says in found["questions"]["value"]
    assert ("ZeroDivisionError" in result.stderr) is (says == "ended with code 1")
    assert "Whether Towpath can run here is not known." in checksystem(code=code).stdout


@pytest.mark.root
@pytest.mark.needs("nft")
def test_a_missing_nft_is_said_with_what_it_is_for():
    assert findings(checksystem("-o", "json"))["nftables"]["granted"] is True
    code = f"import engine.apply.host_rules as h; h.shutil.which = lambda *_, **__: None; {RUN}"
    result = checksystem("-o", "json", code=code)
    found = findings(result)["nftables"]
    assert result.returncode == 0, "a node without it forwards"
    assert found["granted"] is False
    assert found["value"] == "the program nft is not installed"
    assert "ports of the host" in found["meaning"]
    assert "install nftables" in found["remedy"]


@pytest.mark.root
@pytest.mark.needs("setpriv")
def test_a_user_without_rights_is_told_what_is_left():
    prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    if subprocess.run([*prefix, sys.executable, "-c", "import click"], capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run this Python: its directory is closed")
    namespaces = findings(checksystem("-o", "json", prefix=prefix))["namespaces"]
    if namespaces["granted"]:
        assert "needs root" in namespaces["meaning"]
    else:
        assert "run as root" in namespaces["remedy"]
