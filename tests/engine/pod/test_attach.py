"""Pods' devices for real: made, adopted, set right and removed in namespaces."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from engine.apply.inheritance import Inheritance
from engine.apply.links import GSO_MAX_SIZE, QUEUE_LENGTH
from engine.apply.shortcut import Shortcuts
from engine.errors import KernelError
from engine.model import Desired, HostDevice, KernelRoute, Pod, PodDevice, Via
from engine.pod.namespace import identity, run_inside
from engine.pod.record import Record
from tests.engine.datapaths import datapaths
from tests.engine.namespaces import device, ip, namespaces, path_of, routes, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

A4, A6 = ip_address("10.1.0.5"), ip_address("fd00:1::5")


@pytest.fixture
def names():
    with namespaces(3) as made:
        yield made


@pytest.fixture
def start(tmp_path):
    with datapaths(tmp_path) as start:
        yield start


def pod(name, namespace, addresses=(A4, A6), mtu=1450):
    return PodDevice(Pod(name, path_of(namespace), addresses), mtu)


def pods(*devices):
    return Desired(pods=frozenset(devices))


def kill(datapath):
    """What a kill -9 leaves: queues closed by the kernel, nothing said to anybody."""
    for attachment in datapath.pods.attachments.values():
        attachment.port.close()
    datapath.pods.attachments.clear()


def test_a_pod_gets_a_device_with_all_its_settings(start, names):
    assert start().apply(pods(pod("a", names[0]))).failed == []
    found = device(names[0])
    assert found["linkinfo"]["info_kind"] == "tun"
    assert found["linkinfo"]["info_data"]["vnet_hdr"]
    assert found["ifalias"] == "towpath:a"
    assert found["mtu"] == 1450
    assert found["txqlen"] == QUEUE_LENGTH
    assert found["gso_max_size"] == GSO_MAX_SIZE
    assert "UP" in found["flags"]
    assert [(a["local"], a["prefixlen"]) for a in found["addr_info"]] == [("10.1.0.5", 32), ("fd00:1::5", 128)]
    assert ("default", "eth0") in routes(names[0], "default")
    assert len(routes(names[0], "default")) == 2
    sysctl = run_inside(path_of(names[0]), Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text, where="")
    assert sysctl.strip() == "0"
    assert "UP" in device(names[0], "lo")["flags"]


def test_the_same_state_twice_does_nothing(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    assert datapath.apply(pods(pod("a", names[0]))).done == []
    assert datapath.audit().done == []


def test_the_daemon_stays_in_its_own_namespace(start, names):
    before = os.readlink("/proc/self/ns/net")
    start().apply(pods(pod("a", names[0])))

    def everybody_is_here():
        with contextlib.suppress(FileNotFoundError):  # a thread that just ended
            return {os.readlink(task / "ns/net") for task in Path("/proc/self/task").iterdir()} == {before}

    wait_for(everybody_is_here)
    assert not [thread for thread in threading.enumerate() if thread.name == "towpath-netns"]


def test_a_device_is_adopted_after_a_kill(start, names):
    first = start()
    first.apply(pods(pod("a", names[0])))
    index = device(names[0])["ifindex"]
    kill(first)
    second = start()
    outcome = second.apply(pods(pod("a", names[0])))
    assert [str(operation) for operation in outcome.done] == ["set pod a"]
    assert device(names[0])["ifindex"] == index
    second.close()
    assert device(names[0])["ifindex"] == index, "a clean stop takes no device from a pod"


def test_a_device_that_is_no_longer_wanted_is_swept_after_a_kill(start, names):
    first = start()
    first.apply(pods(pod("a", names[0]), pod("b", names[1])))
    kill(first)
    start().apply(pods(pod("b", names[1])))
    assert device(names[0]) is None
    assert device(names[1]) is not None


def test_a_kill_before_the_mark_was_set_leaves_a_device_that_is_adopted(start, names):
    ip("tuntap", "add", "eth0", "mode", "tun", "vnet_hdr", namespace=names[0])
    assert start().apply(pods(pod("a", names[0]))).failed == []
    assert device(names[0])["ifalias"] == "towpath:a"


def test_a_device_of_somebody_else_is_refused_and_left_alone(start, names):
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", namespace=names[0])
    outcome = start().apply(pods(pod("a", names[0]), pod("b", names[1])))
    assert "device eth0 exists" in str(outcome.failed[0])
    assert "is not Towpath's" in str(outcome.failed[0])
    assert device(names[0])["linkinfo"]["info_kind"] == "veth"
    assert device(names[1]) is not None


def test_a_missing_namespace_is_said_and_served_once_it_is_there(start, names):
    datapath = start()
    wanted = pods(pod("a", names[0]), PodDevice(Pod("x", path_of(f"{names[0]}x"), (A4,)), 1450))
    outcome = datapath.apply(wanted)
    assert "does not exist (create it" in str(outcome.failed[0])
    assert "pod x" in str(outcome.failed[0])
    assert device(names[0]) is not None
    assert "x" not in datapath.pods.actual()


def test_a_path_that_is_no_namespace_is_said(start, names, tmp_path):
    (tmp_path / "file").touch()
    outcome = start().apply(pods(PodDevice(Pod("x", str(tmp_path / "file"), (A4,)), 1450)))
    assert "is not a network namespace" in str(outcome.failed[0])


def test_a_changed_pod_keeps_its_device(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    index = device(names[0])["ifindex"]
    datapath.apply(pods(pod("a", names[0], (A4, ip_address("fd00:1::6")), 1400)))
    found = device(names[0])
    assert found["ifindex"] == index
    assert found["mtu"] == 1400
    assert [a["local"] for a in found["addr_info"]] == ["10.1.0.5", "fd00:1::6"]
    assert len(routes(names[0], "default")) == 2
    assert datapath.plane.log[-1] == "update eth0"


def test_a_pod_that_moves_takes_its_device_along(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    datapath.apply(pods(pod("a", names[1])))
    assert device(names[0]) is None
    assert device(names[1])["ifalias"] == "towpath:a"


def standing(datapath, name):
    """What outlives a new name: the device's index, the queue, and the port's number."""
    attachment = datapath.pods.attachments[name]
    return attachment.port, datapath.forwarding.ports["pod", name]


def route(prefix, *names):
    return {ip_network(prefix): tuple(Via("pod", name, mtu=1450) for name in names)}


class AnyPolicy:
    """In force, whatever it says: its image is the test's."""

    services = ()


@pytest.mark.parametrize("policy", [None, AnyPolicy()])
def test_a_pod_with_another_name_goes_on_with_the_device(start, names, policy, monkeypatch):
    monkeypatch.setattr("engine.apply.policy.policy_image", lambda _, **_parts: None)
    datapath = start()
    before = replace(pods(pod("a", names[0])), routes=route("10.1.0.5/32", "a"), policy=policy)
    datapath.apply(before)
    index, had, meaning = device(names[0])["ifindex"], standing(datapath, "a"), datapath.plane.meaning(ip_network("10.1.0.5/32"))
    datapath.plane.log.clear()
    after = replace(pods(pod("b", names[0], (A4, ip_address("fd00:1::6")), 1400)), routes=route("10.1.0.5/32", "b"))
    outcome = datapath.apply(replace(after, policy=policy))
    assert outcome.failed == []
    assert device(names[0])["ifindex"] == index
    assert device(names[0])["ifalias"] == "towpath:b"
    assert [address["local"] for address in device(names[0])["addr_info"]] == ["10.1.0.5", "fd00:1::6"]
    assert datapath.pods.actual().keys() == {"b"}
    if policy is None:
        assert standing(datapath, "b") == had
        assert datapath.plane.meaning(ip_network("10.1.0.5/32")) == meaning
        assert datapath.plane.log == ["update eth0"], "not one packet waits for that"
    assert datapath.apply(replace(after, policy=policy)).done == []
    datapath.apply(Desired())
    assert device(names[0]) is None
    assert datapath.plane.ports == datapath.plane.adjacencies == {}


def test_pods_that_change_places_are_all_served_at_once(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0]), pod("b", names[1]), pod("c", names[2])))
    outcome = datapath.apply(pods(pod("b", names[0]), pod("a", names[1]), pod("d", names[2])))
    assert outcome.failed == []
    assert [device(name)["ifalias"] for name in names] == ["towpath:b", "towpath:a", "towpath:d"]
    assert datapath.apply(pods(pod("b", names[0]), pod("a", names[1]), pod("d", names[2]))).done == []


def test_names_that_move_on_leave_the_devices(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0]), pod("b", names[1])))
    before = [standing(datapath, name) for name in "ab"]
    assert datapath.apply(pods(pod("b", names[0]), pod("c", names[1]))).failed == []
    assert [standing(datapath, name) for name in "bc"] == before
    assert [device(name)["ifalias"] for name in names[:2]] == ["towpath:b", "towpath:c"]


def test_a_new_name_is_written_down_with_the_device(start, names):
    first = start()
    first.apply(pods(pod("a", names[0])))
    first.apply(pods(pod("b", names[0])))
    kill(first)
    assert start().apply(Desired()).failed == []
    assert device(names[0]) is None


def killed_once_passed_on(datapath, *devices):
    """It dies after the new names were given and before any of them was put on a device."""
    datapath.pods.pass_on(devices)
    kill(datapath)


def standing_devices(names):
    return [found["ifalias"] for found in map(device, names) if found is not None]


@pytest.mark.parametrize("wanted", ["d", "b", "a c", "b c", "bc ", "ba ", "cab", "bca", "d b", " a ", " ab"])
@pytest.mark.parametrize("how", ["killed", "refused"])
def test_no_device_stays_whose_new_name_came_no_further(start, names, wanted, how, monkeypatch):
    """`wanted`: who is to be at which of the places of a, b and c."""
    first = start()
    first.apply(pods(*(pod(name, place) for name, place in zip("abc", names, strict=True))))
    devices = [pod(name, place) for name, place in zip(wanted, names, strict=False) if name != " "]
    if how == "killed":
        killed_once_passed_on(first, *devices)
        first = start()
    else:
        with monkeypatch.context() as patch:
            patch.setattr("engine.pod.attach._configure_pod", refuse)
            patch.setattr(first.pods, "_attach", refuse)
            first.apply(pods(*devices))
    assert first.apply(Desired()).failed == []
    assert standing_devices(names) == []
    assert first.pods.actual() == {}


def refuse(*_, **__):
    raise KernelError("not now")


def test_a_device_that_came_back_to_its_pod_is_not_taken_for_what_was_left(start, names, monkeypatch):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    with monkeypatch.context() as patch:
        patch.setattr("engine.pod.attach._configure_pod", refuse)
        datapath.apply(pods(pod("b", names[0])))
    datapath.pods.release()
    index = device(names[0])["ifindex"]
    assert datapath.apply(pods(pod("a", names[0]))).failed == []
    assert (device(names[0])["ifindex"], device(names[0])["ifalias"]) == (index, "towpath:a")
    assert datapath.pods.actual().keys() == {"a"}


def test_a_device_left_by_an_earlier_run_does_not_lose_its_place_to_a_new_name(start, names):
    """c has one, which nobody looked at yet, when it is to have another pod's."""
    first = start()
    first.apply(pods(pod("a", names[0]), pod("c", names[1])))
    kill(first)
    second = start()
    second.prepare(pods(pod("a", names[0])))
    assert second.apply(pods(pod("c", names[0]))).failed == []
    assert standing_devices(names) == ["towpath:c"]


def test_devices_of_one_namespace_change_their_pods(start, names):
    def at(name, interface):
        return PodDevice(Pod(name, path_of(names[0]), (A4 if interface == "eth0" else A6,), interface), 1450)

    for first, second in ("ab", "ba"):
        datapath = start()
        datapath.apply(pods(at(first, "eth0"), at(second, "eth1")))
        indices = [device(names[0], interface)["ifindex"] for interface in ("eth0", "eth1")]
        assert datapath.apply(pods(at(second, "eth0"), at(first, "eth1"))).failed == []
        found = [device(names[0], interface) for interface in ("eth0", "eth1")]
        assert [one["ifindex"] for one in found] == indices
        assert [one["ifalias"] for one in found] == [f"towpath:{second}", f"towpath:{first}"]
        datapath.apply(Desired())


def test_a_new_name_that_cannot_be_written_down_is_given_all_the_same(start, names, monkeypatch):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    index = device(names[0])["ifindex"]
    monkeypatch.setattr(Record, "pass_on", refuse)
    datapath.apply(pods(pod("b", names[0])))
    assert (device(names[0])["ifindex"], device(names[0])["ifalias"]) == (index, "towpath:b")


def test_a_device_of_two_pods_stays_the_first_ones(start, names):
    datapath = start()
    datapath.apply(pods(pod("b", names[0])))
    outcome = datapath.apply(pods(pod("a", names[0]), pod("b", names[0])))
    assert [failure.operation.key for failure in outcome.failed] == ["a"]
    assert device(names[0])["ifalias"] == "towpath:b"


def test_what_somebody_changed_is_set_right(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    ip("addr", "flush", "dev", "eth0", namespace=names[0])
    ip("link", "set", "eth0", "mtu", "1300", "down", namespace=names[0])
    for _ in range(2):
        datapath.audit()
    found = device(names[0])
    assert found["mtu"] == 1450
    assert len([a for a in found["addr_info"] if a["scope"] == "global"]) == 2
    assert len(routes(names[0], "default")) == 2


def test_a_deleted_device_is_made_again(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    number = datapath.forwarding.ports["pod", "a"]
    ip("link", "del", "eth0", namespace=names[0])
    datapath.plane.events.append(("port-error", number))
    assert datapath.take_events(lambda _: None)
    datapath.repair()
    assert device(names[0])["ifalias"] == "towpath:a"


@pytest.mark.parametrize("noticed", ["announced", "by the worker", "by a change"])
@pytest.mark.parametrize("alias", ["towpath:a", "somebody"])
def test_a_device_with_another_name_and_mark_is_not_left_behind(start, names, alias, noticed):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    number = datapath.forwarding.ports["pod", "a"]
    ip("link", "set", "eth0", "down", "alias", alias, "name", "eth7", namespace=names[0])
    if noticed == "by the worker":
        datapath.plane.events.append(("port-error", number))
        datapath.take_events(lambda _: None)
        datapath.repair()
    elif noticed == "announced":
        datapath.audit()
    else:
        datapath.apply(pods(pod("a", names[0], mtu=1400)))
    assert device(names[0])["ifalias"] == "towpath:a"
    assert device(names[0], "eth7") is None


def test_a_device_in_another_namespace_is_not_left_behind(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    ip("link", "set", "eth0", "netns", names[1], namespace=names[0])
    datapath.audit()
    assert device(names[0])["ifalias"] == "towpath:a"
    assert device(names[1]) is None


def test_what_somebody_put_at_the_place_of_a_device_is_left_alone(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    ip("link", "set", "eth0", "down", "name", "eth7", namespace=names[0])
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", namespace=names[0])
    before = device(names[0])
    for change in (datapath.audit, lambda: datapath.apply(pods(pod("a", names[0], mtu=1400)))):
        change()
        assert device(names[0]) == before
        assert "is not Towpath's" in str(datapath.reconciler.failures[0])


def test_a_shortcut_that_refuses_frames_is_mended(start, monkeypatch):
    mended = []

    def mend(shortcuts):
        mended.append(shortcuts)

    monkeypatch.setattr(Shortcuts, "mend", mend)
    datapath = start()
    datapath.plane.events.append(("shortcut", 1))
    assert not datapath.take_events(lambda _: None), "nothing of a pod's"
    assert mended == [datapath.shortcuts]


def test_a_namespace_that_was_made_anew_gets_a_device(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    ip("netns", "del", names[0])
    ip("netns", "add", names[0])
    for _ in range(2):
        datapath.audit()
    assert device(names[0])["ifalias"] == "towpath:a"


@pytest.fixture
def forgets(start, monkeypatch):
    """A datapath whose plane notes what is forgotten among what else it is told."""
    datapath = start()
    monkeypatch.setattr(datapath.plane, "forget_flows", lambda whom: datapath.plane.log.append(f"forget {whom}"))
    return datapath


def made_anew(name):
    ip("netns", "del", name)
    ip("netns", "add", name)


def comings(datapath):
    return [entry for entry in datapath.plane.log if entry.split()[0] in ("attach", "detach", "forget")]


ANOTHER = ["detach eth0", f"forget {A4}", f"forget {A6}", "attach eth0"]


@pytest.mark.parametrize("noticed", ["by an audit", "by a pass", "by its device"])
def test_a_pod_in_a_namespace_made_anew_inherits_no_flows(forgets, names, noticed):
    forgets.apply(pods(pod("a", names[0])))
    forgets.plane.log.clear()
    if noticed == "by its device":
        ip("netns", "del", names[0])
        forgets.pods.lost("a")
        forgets.repair()
        ip("netns", "add", names[0])
        forgets.reconciler.end_pauses()
    else:
        made_anew(names[0])
    if noticed == "by an audit":
        forgets.audit()
    else:
        forgets.apply(pods(pod("a", names[0], mtu=1400)))
    assert comings(forgets) == ANOTHER
    forgets.plane.log.clear()
    ip("link", "del", "eth0", namespace=names[0])
    forgets.audit()
    assert comings(forgets) == ["detach eth0", "attach eth0"], "where only the device was, it is the same pod"


def test_nothing_is_remembered_of_a_lost_pod_that_leaves(start, names):
    """As a runtime's, whose namespace goes before its pod does: it is in the plane no more, and out of what is wanted."""
    datapath = start()
    seen = identity(path_of(names[0]))
    resident = replace(pod("a", names[0]).pod, namespace_id=seen)
    datapath.apply(pods(PodDevice(resident, 1450)))
    ip("link", "del", "eth0", namespace=names[0])
    datapath.pods.lost("a")
    datapath.apply(Desired())
    departure = datapath.pods.leaving([resident])
    departure.delete()
    datapath.pods.forget(departure)
    assert datapath.pods._before == {}


def test_a_pod_that_moved_while_daemons_changed_inherits_no_flows(start, forgets, names):
    desired = pods(pod("a", names[0]))
    before = start()
    before.apply(desired)
    copies = [replace(left, descriptors=tuple(map(os.dup, left.descriptors))) for left in before.estate()]
    left = Inheritance(copies)
    made_anew(names[0])
    forgets.adopt(desired, left)
    assert forgets.pods.attachments == {}
    forgets.apply(desired)
    assert comings(forgets) == ANOTHER[1:]


def test_a_start_that_is_given_up_leaves_what_was_there(start, names):
    first = start()
    first.apply(pods(pod("a", names[0])))
    kill(first)
    second = start()
    second.apply(pods(pod("a", names[0]), pod("b", names[1])))
    second.abandon()
    assert device(names[0]) is not None
    assert device(names[1]) is None


def test_removing_a_pod_whose_namespace_is_gone_is_no_failure(start, names):
    datapath = start()
    datapath.apply(pods(pod("a", names[0])))
    ip("netns", "del", names[0])
    assert datapath.apply(pods()).failed == []
    assert datapath.pods.actual() == {}


def test_a_broken_record_is_ignored(start, names, tmp_path, caplog):
    (tmp_path / "devices.json").write_text('[{"pod": 1}]')
    assert start().apply(pods(pod("a", names[0]))).failed == []
    assert "ignoring the record" in caplog.text


# -- the host's side, in a namespace that plays the host --------------------------
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


# -- a new start, in a hurry -----------------------------------------------------
def test_standing_devices_are_taken_up_unseen_and_compared_later(start, names):
    wanted = pods(pod("a", names[0]), pod("b", names[1]))
    first = start()
    first.apply(wanted)
    kill(first)
    ip("link", "set", "eth0", "mtu", "1300", namespace=names[0])
    ip("link", "delete", "eth0", namespace=names[1])
    second = start()
    assert second.prepare(wanted).failed == []
    assert list(second.pods.attachments) == ["a"]
    assert device(names[0])["mtu"] == 1300
    assert second.apply(wanted).failed == []
    assert device(names[0])["mtu"] == 1450
    assert device(names[1])["ifalias"] == "towpath:b"
    assert not second.pods.attachments["a"].made


@pytest.mark.parametrize("alias", ["", "towpath:b", "somebody"])
def test_a_device_without_the_pods_mark_is_not_taken_up(start, names, alias):
    wanted = pods(pod("a", names[0]))
    first = start()
    first.apply(wanted)
    kill(first)
    ip("link", "set", "eth0", "alias", alias, namespace=names[0])
    second = start()
    second.prepare(wanted)
    assert second.pods.attachments == {}


def test_what_is_not_written_down_is_not_taken_up(start, names):
    first = start()
    first.apply(pods(pod("a", names[0])))
    kill(first)
    second = start()
    second.prepare(pods(pod("a", names[1])))
    moved = PodDevice(replace(pod("a", names[0]).pod, namespace_id=(1, 1)), 1450)
    second.prepare(pods(moved))
    assert second.pods.attachments == {}
