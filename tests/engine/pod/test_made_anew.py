"""Namespaces that were made anew: another device, and nothing remembered of the one before."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from engine.apply.inheritance import Inheritance
from engine.model import Desired, PodDevice
from engine.pod.namespace import identity
from tests.engine.namespaces import device, ip, path_of
from tests.engine.pod.devices import A4, A6, pod, pods

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


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
