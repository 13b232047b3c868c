"""Devices that stay while the pods they belong to have other names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from engine.errors import KernelError
from engine.model import Desired, Pod, PodDevice, Via
from engine.pod.record import Record
from tests.engine.namespaces import device, path_of
from tests.engine.pod.devices import A4, A6, kill, pod, pods, standing_devices

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


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
    index, had, meaning = (
        device(names[0])["ifindex"],
        standing(datapath, "a"),
        datapath.plane.meaning(ip_network("10.1.0.5/32")),
    )
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
