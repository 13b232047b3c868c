"""The host's port and the kernel's routes, in a namespace that plays the host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from engine.model import Desired, HostDevice, KernelRoute, Via
from engine.pod.namespace import run_inside
from tests.engine.namespaces import device, ip, path_of, routes
from tests.engine.pod.devices import pod, pods

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


HOST = HostDevice(
    (ip_interface("10.1.0.1/32"), ip_interface("fd00:1::1/128")),
    1450,
    (ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")),
)


@pytest.fixture
def on_host(names):
    """Runs a function with the third namespace as the host's."""
    ip("link", "set", "lo", "up", namespace=names[2])
    ip("link", "add", "under", "type", "veth", "peer", "name", "far", namespace=names[2])
    ip("link", "set", "far", "up", namespace=names[2])
    ip("link", "set", "under", "up", namespace=names[2])
    ip("addr", "add", "192.0.2.1/24", "dev", "under", namespace=names[2])
    ip("addr", "add", "2001:db8::1/64", "dev", "under", "nodad", namespace=names[2])
    return lambda function: run_inside(path_of(names[2]), function, where="host")


def test_the_host_port_and_its_routes(start, names, on_host):
    datapath = start()
    outcome = on_host(lambda: datapath.apply(Desired(host=HOST)))
    assert outcome.failed == []
    found = device(names[2], "towpath0")
    assert found["ifalias"] == "towpath:host"
    assert [a["local"] for a in found["addr_info"]] == ["10.1.0.1", "fd00:1::1"]
    assert set(routes(names[2], "proto", "116")) == {("10.1.0.0/24", "towpath0"), ("fd00:1::/64", "towpath0")}
    assert on_host(lambda: datapath.apply(Desired(host=HOST))).done == []
    assert on_host(datapath.audit).done == []
    on_host(datapath.close)
    assert routes(names[2], "proto", "116") == []
    assert device(names[2], "towpath0") is None


@pytest.mark.parametrize("by_the_worker", [True, False])
def test_the_host_port_with_another_name_and_mark_is_not_left_behind(start, names, on_host, by_the_worker):
    datapath = start()
    on_host(lambda: datapath.apply(Desired(host=HOST)))
    number = datapath.forwarding.ports["host", "host"]
    ip("link", "set", "towpath0", "down", "alias", "somebody", "name", "other0", namespace=names[2])

    def notice():
        if by_the_worker:
            datapath.plane.events.append(("port-error", number))
            datapath.take_events(lambda _: None)
            datapath.repair()
        else:
            datapath.audit()

    on_host(notice)
    assert device(names[2], "towpath0")["ifalias"] == "towpath:host"
    assert device(names[2], "other0") is None


def kernel_routes(**via):
    return Desired(kernel_routes=frozenset(KernelRoute(ip_network(p), v) for p, v in via["via"].items()))


def hops(*texts):
    return tuple(ip_address(text) for text in texts)


def test_kernel_routes_change_and_only_ours(start, names, on_host):
    ip("route", "add", "10.9.0.0/16", "via", "192.0.2.9", namespace=names[2])
    ip("route", "add", "10.8.0.0/16", "via", "192.0.2.9", "proto", "116", namespace=names[2])
    datapath = start()
    wanted = kernel_routes(
        via={"10.2.0.0/16": hops("192.0.2.2"), "fd00:2::/64": hops("2001:db8::2"), "10.9.0.0/16": hops("192.0.2.2")}
    )
    outcome = on_host(lambda: datapath.apply(wanted))
    assert [str(failure.operation) for failure in outcome.failed] == ["set kernel route 10.9.0.0/16"]
    assert "is not Towpath's" in str(outcome.failed[0])
    ours = {("10.2.0.0/16", "192.0.2.2"), ("fd00:2::/64", "2001:db8::2")}
    assert set(routes(names[2], "proto", "116")) == ours, "the stale route of an earlier run is swept"
    assert ("10.9.0.0/16", "192.0.2.9") in routes(names[2])

    several = kernel_routes(
        via={"10.2.0.0/16": hops("192.0.2.3", "192.0.2.2"), "fd00:2::/64": hops("2001:db8::3", "2001:db8::2")}
    )
    assert on_host(lambda: datapath.apply(several)).failed == []
    assert on_host(datapath.audit).done == []
    assert len(routes(names[2], "proto", "116")) == 2

    ip("route", "del", "10.2.0.0/16", namespace=names[2])
    assert [str(operation) for operation in on_host(datapath.audit).done] == ["set kernel route 10.2.0.0/16"]
    on_host(datapath.close)
    assert routes(names[2], "proto", "116") == []


def test_an_unreachable_next_hop_is_said(start, names, on_host):
    outcome = on_host(lambda: start().apply(kernel_routes(via={"10.2.0.0/16": hops("203.0.113.9")})))
    assert "kernel route 10.2.0.0/16: " in str(outcome.failed[0])
    assert "same subnet" in str(outcome.failed[0])


def test_a_next_hop_into_a_pod_follows_the_device(start, names):
    datapath = start()
    prefix = ip_network("10.1.0.5/32")
    wanted = replace(pods(pod("a", names[0])), routes={prefix: (Via("pod", "a", mtu=1450),)})
    datapath.apply(wanted)
    assert datapath.plane.meaning(prefix).port == datapath.forwarding.ports["pod", "a"]
