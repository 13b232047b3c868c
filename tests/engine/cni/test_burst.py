"""Many containers at once, each call twice at once, and a daemon that is killed in the middle: nothing leaks or is lost."""

from __future__ import annotations

import signal

import pytest

from engine.views import Ipam, IpamCheck
from tests.engine.cni.runtime import finished, runtime_of
from tests.engine.namespaces import device, ip_json, wait_for
from tests.engine.nodes import two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

AT_ONCE = 100
NAMESPACES = 10


@pytest.fixture
def node(tmp_path):
    with two_nodes(tmp_path, pods=NAMESPACES) as nodes:
        nodes[0].extra = "[ipam]\ncooldown = 0"
        nodes[0].write(pods=0, peers=False)
        yield nodes[0].start()


def burst_of(node, number):
    """(container, namespace, interface) of so many, spread over the namespaces."""
    names = node.pod_namespaces
    return [(f"c{index}", names[index % NAMESPACES], f"eth{index // NAMESPACES}") for index in range(number)]


def wishes(container):
    """Interfaces that share a namespace must not share a route."""
    number = container[2].removeprefix("eth")
    routes = [{"dst": f"198.18.{number}.0/24"}, {"dst": f"2001:db8:99:{number}::/64"}]
    return {"defaultRoute": False, "ipam": {"type": "towpath", "routes": routes}}


def call_all(node, verb, burst, *, twice, kill_after=None):
    """The answers to each, two at once where `twice`; the daemon is killed when so many have been answered."""
    runtime = runtime_of(node)
    running = [
        [runtime.start(verb, *container, **wishes(container)) for _ in range(1 + twice)] for container in burst
    ]
    if kill_after is not None:
        wait_for(lambda: sum(process.poll() is not None for pair in running for process in pair) >= kill_after, 30)
        node.stop(signal.SIGKILL)
    return [[finished(process) for process in pair] for pair in running]


def code_of(answer):
    """0 for success; 11 also for an ADD whose daemon died before the plugin could say thanks."""
    return answer.json.get("code", 11) if answer.status else 0


def is_whole(node, attached):
    """Exactly these containers have their devices and addresses, and the accounts say so."""
    assert node.ask("ipam_check", IpamCheck).leaks == []
    addresses = node.ask("ipam", Ipam).addresses
    assert {entry.handle for entry in addresses} == {f"pods/{name}/{interface}" for name, _, interface in attached}
    assert len({entry.address for entry in addresses}) == len(addresses) == 2 * len(attached)
    devices = {
        (name, entry["ifname"]) for name in node.pod_namespaces for entry in ip_json("link", namespace=name)
    } - {(name, "lo") for name in node.pod_namespaces}
    assert devices == {(name, interface) for _, name, interface in attached}
    assert len(node.pods()) == len(attached)
    assert node.status().problems == []


def churn(node, burst, kept):
    """Added and deleted, each twice at once, with a daemon that is killed while it does either."""
    pairs = call_all(node, "ADD", burst, twice=True, kill_after=len(burst) // 2)
    assert {code_of(answer) for pair in pairs for answer in pair} <= {0, 11, 101}
    assert all([code_of(answer) for answer in pair].count(0) <= 1 for pair in pairs)
    told = {}
    for container, pair in zip(burst, pairs, strict=True):
        for answer in pair:
            if answer.status == 0:
                told[container] = answer.json
    assert told
    node.start()
    runtime = runtime_of(node)
    checks = [runtime.start("CHECK", *one, prevResult=told[one], **wishes(one)) for one in told]
    assert {finished(process).output for process in checks} == {""}, "who was told that it is attached is"
    rest = [container for container in burst if container not in told]
    assert {code_of(answer) for (answer,) in call_all(node, "ADD", rest, twice=False)} <= {0}
    is_whole(node, [kept, *burst])
    pairs = call_all(node, "DEL", burst, twice=True, kill_after=len(burst) // 2)
    assert {code_of(answer) for pair in pairs for answer in pair} == {0}
    node.start()
    wait_for(lambda: len(node.ask("ipam", Ipam).addresses) == 2)  # what was remembered is being carried out
    is_whole(node, [kept])


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_nothing_leaks_and_nothing_is_lost(node, times):
    *burst, kept = burst_of(node, AT_ONCE + 1)
    first = runtime_of(node).add(*kept, **wishes(kept))
    index = device(*kept[1:])["ifindex"]
    for turn in range(times):
        churn(node, [(f"{name}-{turn}", *place) for name, *place in burst], kept)
    assert device(*kept[1:])["ifindex"] == index, "a bystander keeps its device"
    assert runtime_of(node).check(*kept[:2], first.json, kept[2], **wishes(kept)).status == 0
    assert list(runtime_of(node).spool.iterdir()) == []
    assert runtime_of(node).delete(*kept).status == 0
    is_whole(node, [])
