"""Bells in pods' namespaces: hung and taken down with the devices, rung by whoever changes something there."""

from __future__ import annotations

import os
import resource

import pytest

from engine.model import Pod, PodDevice
from engine.pod.attach import Attachment
from engine.pod.namespace import identity
from engine.pod.watch import PodWatch
from tests.engine.fakes import FakePort
from tests.engine.namespaces import ip, namespaces, path_of, wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def names():
    with namespaces(2) as made:
        yield made


@pytest.fixture
def watch():
    made = PodWatch()
    yield made
    made.close()


def attachment(name, namespace):
    path = path_of(namespace)
    return Attachment(PodDevice(Pod(name, path, ()), 1450), FakePort("eth0"), identity(path), True)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_the_pod_in_whose_namespace_something_changed_is_named(watch, names):
    watch.follow({name: attachment(name, namespace) for name, namespace in zip("ab", names, strict=True)})
    assert watch.rung() == set()
    ip("link", "set", "lo", "up", namespace=names[1])
    assert wait_for(watch.rung) == {"b"}
    assert watch.rung() == set()


def test_a_bell_goes_with_its_device(watch, names):
    before = descriptors()
    first = attachment("a", names[0])
    watch.follow({"a": first})
    assert descriptors() == before + 1
    watch.follow({"a": first})
    assert descriptors() == before + 1
    watch.follow({"a": attachment("a", names[1])})  # the pod came back, elsewhere
    assert descriptors() == before + 1
    ip("link", "set", "lo", "up", namespace=names[0])
    ip("link", "set", "lo", "up", namespace=names[1])
    assert wait_for(watch.rung) == {"a"}
    watch.follow({})
    assert descriptors() == before


def test_where_no_bell_can_be_hung_the_pod_is_looked_at_in_turn(watch, names, caplog):
    pods = {name: attachment(name, namespace) for name, namespace in zip("ab", names, strict=True)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest number that is free
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        watch.follow(pods)
        assert watch.next_unheard() == ["a", "b"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len([line for line in caplog.messages if "noticed late" in line]) == 2, "each is told once"
    assert watch.next_unheard() == ["a", "b"], "the last look before the bell is there"
    assert watch.next_unheard() == []
    ip("link", "set", "lo", "up", namespace=names[0])
    assert wait_for(watch.rung) == {"a"}


def test_a_namespace_that_is_gone_is_no_failure(watch, names):
    pod = attachment("a", names[0])
    watch.follow({"a": pod})
    ip("netns", "del", names[0])
    assert pod.is_elsewhere
    watch.follow({"a": pod})
    watch.follow({})
    lost = attachment("b", "not-there")
    watch.follow({"b": lost})
    assert watch.next_unheard() == ["b"]
