"""Devices that somebody changed, took away, or put something in the place of."""

from __future__ import annotations

import pytest

from engine.apply.shortcut import Shortcuts
from tests.engine.namespaces import device, ip, routes
from tests.engine.pod.devices import pod, pods

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


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
