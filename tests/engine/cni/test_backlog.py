"""Very many deletions that wait, and addresses that are owed, when a daemon starts: nobody waits for long."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address

import pytest

from engine.cni import spool
from engine.pod.residents import Attachment, handle, open_residents
from tests.engine.cni.home import Home

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

SIZES = [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
START, ANSWER = 20.0, 5.0  # seconds; what they took on two busy cores, several times


def settled(home, size):
    """Look until nothing waits any more, as the daemon does from time to time."""
    for _ in range(2 + size // spool.FILES_LIMIT):
        home.settle()
        home.verbs.collect()
    home.settle()
    assert spool.pending(home.spool) == []


def added_in_time(home, sandbox, began):
    home.verbs.collect()
    ready = time.monotonic()
    assert ready - began < START
    said = home.begin("ADD", "new", sandbox)
    home.turn_until(lambda: said)
    assert said[0]["ips"]
    assert time.monotonic() - ready < ANSWER


@pytest.mark.parametrize("size", SIZES)
def test_deletions_that_wait(tmp_path, sandbox, size):
    """A quarter as many containers have addresses, none of which is among them."""
    home = Home(tmp_path, prefix="10.1.0.0/19")
    live = [f"live{number}" for number in range(size // 4)]
    with home:
        for container in live:
            home.node.addresses.assign(handle(("pods", container, "eth0")), (4,))
        for number in range(size):
            home.remember(f"old{number}", "")
        began = time.monotonic()
        added_in_time(home, sandbox, began)
        settled(home, size)
        assert len(home.given()) == len(live) + 1


@pytest.mark.parametrize("size", SIZES)
def test_addresses_that_are_owed(tmp_path, sandbox, size):
    plugin = tmp_path / "hanging"
    plugin.write_text("#!/bin/sh\nexec sleep 60\n")
    plugin.chmod(0o755)
    owe(tmp_path, size, plugin)
    began = time.monotonic()
    home = Home(tmp_path).__enter__()
    try:
        added_in_time(home, sandbox, began)
        assert len(home.node.residents.leaving) == size
        began = time.monotonic()
        home.verbs.collect()
        assert time.monotonic() - began < ANSWER
    finally:
        home.verbs.close()
        home.node.leave()
        home.node.loop.close()


def owe(folder, size, plugin):
    """As an earlier boot left it."""
    (folder / "state").mkdir()
    residents = open_residents(folder / "state")
    configuration = json.dumps({"cniVersion": "1.1.0", "name": "pods", "ipam": {"type": plugin.name}})
    for number in range(size):
        container, address = f"old{number}", str(ip_address("10.1.0.0") + number)
        residents.put(
            Attachment(
                "pods",
                container,
                "eth0",
                f"pods@{container}",
                "/nowhere",
                (0, 0),
                (address,),
                ipam=plugin.name,
                configuration=configuration,
                search_path=str(folder),
                confirmed=True,
                leaving=True,
            )
        )
    residents.close()
