"""Pods' devices for real: made, adopted, set right and removed in namespaces."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from engine.apply.links import GSO_MAX_SIZE, QUEUE_LENGTH
from engine.errors import KernelError
from engine.model import Desired, Pod, PodDevice
from engine.pod import departure
from engine.pod.namespace import run_inside
from tests.engine.namespaces import device, ip, path_of, routes, wait_for
from tests.engine.pod.devices import A4, kill, pod, pods, standing_devices

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


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


def test_many_devices_that_are_no_longer_wanted_are_swept_at_once(start, names, monkeypatch):
    """The kernel takes its time for each. One that it refuses keeps no other standing."""
    first = start()
    first.apply(pods(pod("a", names[0]), pod("b", names[1]), pod("c", names[2])))
    kill(first)
    together = threading.Barrier(3)
    delete = departure._delete_standing

    begun = []

    def wait_for_the_others(left, marks):
        begun.append(left.name)
        if begun.count(left.name) == 1:  # b is tried again when the others are gone
            together.wait(10)
        if left.name == "b":
            raise KernelError("not now")
        delete(left, marks)

    second = start()
    with monkeypatch.context() as patch:
        patch.setattr(departure, "_delete_standing", wait_for_the_others)
        assert [failure.operation.key for failure in second.apply(Desired()).failed] == ["b"]
    assert standing_devices(names) == ["towpath:b"]
    assert second.pods.actual().keys() == {"b"}
    second.reconciler.end_pauses()
    assert second.apply(Desired()).failed == []
    assert standing_devices(names) == []


def test_what_cannot_be_swept_for_want_of_threads_is_swept_later(start, names, monkeypatch):
    first = start()
    first.apply(pods(pod("a", names[0]), pod("b", names[1])))
    kill(first)

    def no_thread(*_):
        raise RuntimeError("can't start new thread")

    second = start()
    with monkeypatch.context() as patch:
        patch.setattr(departure.ThreadPoolExecutor, "submit", no_thread)
        failed = second.apply(Desired()).failed
    assert sorted(failure.operation.key for failure in failed) == ["a", "b"]
    second.reconciler.end_pauses()
    assert second.apply(Desired()).failed == []
    assert standing_devices(names) == []


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
