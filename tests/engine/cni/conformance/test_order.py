"""Verbs twice, in the wrong order and at once: nothing leaked, nothing lost."""

from __future__ import annotations

import signal

import pytest

from tests.engine.cni.runtime import finished
from tests.engine.namespaces import device, ip, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


def test_a_second_addition_is_refused_and_harms_nothing(runtime, sandbox):
    first = runtime.add("c1", sandbox)
    assert runtime.add("c1", sandbox).code == 101
    assert runtime.add("c1", sandbox, name="other").code == 101
    assert runtime.add("c2", sandbox).code == 101, "the interface belongs to another container"
    assert runtime.check("c1", sandbox, first.json).status == 0


def test_an_interface_of_somebody_else_is_left_alone(runtime, sandbox):
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far", namespace=sandbox)
    try:
        assert runtime.add("c1", sandbox).code == 101
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox)["linkinfo"]["info_kind"] == "veth"
    finally:
        ip("link", "del", "eth0", namespace=sandbox)


def test_deletion_first_twice_and_without_a_namespace(runtime, sandbox, node):
    assert runtime.delete("never", sandbox).status == 0
    assert runtime.delete("never").status == 0
    assert runtime.add("c1", sandbox).status == 0
    assert runtime.delete("c1").status == 0, "CNI_NETNS is optional"
    assert device(sandbox) is None
    assert runtime.delete("c1", sandbox).status == 0
    name = node.pod_namespaces[3]
    assert runtime.add("c2", name).status == 0
    ip("netns", "del", name)
    try:
        assert runtime.delete("c2", name).status == 0
    finally:
        ip("netns", "add", name)


def test_a_container_whose_namespace_was_made_anew(runtime, node):
    name = node.pod_namespaces[3]
    first = runtime.add("c1", name)
    ip("netns", "del", name)
    ip("netns", "add", name)
    assert runtime.check("c1", name, first.json).code in (3, 104)
    again = runtime.add("c1", name)
    assert again.status == 0, again.output
    assert {a["local"] for a in device(name)["addr_info"]} == set(again.addresses())


def test_checks_find_what_is_wrong(runtime, sandbox, node):
    assert runtime.check("c1", sandbox, {}).code == 3
    result = runtime.add("c1", sandbox).json
    assert runtime.call("CHECK", "c1", sandbox, "eth0").code == 7, "prevResult is missing"
    assert runtime.check("c1", sandbox, {**result, "ips": []}).code == 104
    assert runtime.check("c1", sandbox, {**result, "interfaces": []}).code == 104
    assert runtime.check("c1", sandbox, {"ips": 7}).code == 7
    assert runtime.check("c1", sandbox, result, interface="eth1").code == 3
    assert runtime.check("c1", sandbox, result).status == 0
    node.send(signal.SIGSTOP)  # so that it does not set right what we break before it is asked
    try:
        ip("link", "set", "eth0", "down", namespace=sandbox)
        asked = runtime.start("CHECK", "c1", sandbox, "eth0", prevResult=result)
    finally:
        node.send(signal.SIGCONT)
    assert finished(asked).code in (0, 104), "found, or already set right"
    wait_for(lambda: runtime.check("c1", sandbox, result).status == 0)


def test_two_additions_at_once(runtime, sandbox):
    """Of one container's interface one succeeds; the other finds it there."""
    for _ in range(5):
        running = [runtime.start("ADD", "c1", sandbox, "eth0") for _ in range(4)]
        codes = sorted(finished(process).code for process in running)
        assert codes == [0, 101, 101, 101]
        assert runtime.delete("c1", sandbox).status == 0


def test_many_at_once_get_different_addresses(runtime, node):
    interfaces = [(name, f"eth{number}") for name in node.pod_namespaces for number in range(5)]
    running = [
        runtime.start("ADD", f"c-{name}", name, interface, defaultRoute=False) for name, interface in interfaces
    ]
    answers = [finished(process) for process in running]
    assert [answer.status for answer in answers] == [0] * len(answers), [a.output for a in answers]
    addresses = [address for answer in answers for address in answer.addresses()]
    assert len(set(addresses)) == 2 * len(interfaces)
    running = [runtime.start("DEL", f"c-{name}", name, interface) for name, interface in interfaces]
    assert [finished(process).status for process in running] == [0] * len(interfaces)


def test_garbage_is_what_the_runtime_does_not_know(runtime, node):
    a, b, c = node.pod_namespaces[:3]
    for container, name in (("ca", a), ("cb", b)):
        assert runtime.add(container, name).status == 0
    assert runtime.add("cc", c, name="other").status == 0
    assert runtime.call("GC").code == 7, "without a list everything would be garbage"
    assert runtime.collect([("ca", "eth0"), ("unknown", "eth0")]).status == 0
    assert [device(name) is not None for name in (a, b, c)] == [True, False, True]
    assert len(node.pods()) == 2
    assert runtime.collect([]).status == 0
    assert device(c) is not None, "another network"
