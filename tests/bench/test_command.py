"""`towpath bench` as a user runs it, as short as it goes."""

from __future__ import annotations

import json
import subprocess

import pytest

from engine.lab.daemon import TOWPATH


def bench(*arguments):
    return subprocess.run([*TOWPATH, "bench", *arguments], capture_output=True, text=True, timeout=100)


@pytest.mark.root
def test_json_has_every_sample_and_the_ratio():
    done = bench("--rounds", "2", "--seconds", "0.1", "--underlay", "no-tunnel", "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["rounds"] == 2
    assert document["machine"]["cores"] >= 1
    found = {(result["workload"], result["contender"]) for result in document["results"]}
    assert found == {
        (workload, contender)
        for workload in ("tcp-1", "tcp-4", "udp-64", "ping")
        for contender in ("towpath", "kernel-vxlan", "veth")
    }
    for result in document["results"]:
        assert result["underlay"] == "no-tunnel"
        assert len(result["samples"]) == 2
        assert all(sample > 0 for sample in result["samples"])
        assert (result["towpath_ratio"] is None) == (result["contender"] == "towpath")


@pytest.mark.root
def test_the_table_names_the_machine():
    done = bench("--rounds", "1", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    assert "kernel VXLAN" in done.stdout
    assert "TCP, 4 streams" in done.stdout
    assert "cores, Linux" in done.stdout


def test_a_wrong_underlay_is_a_usage_error():
    done = bench("--underlay", "tin-can")
    assert done.returncode == 2
    assert "'tin-can' is not one of" in done.stderr
