"""Attaching pods while something fails, at every step: nothing half-made stays, and the next try succeeds."""

from __future__ import annotations

import errno

import msgspec
import pytest

from engine.errors import KernelError, TowpathError
from engine.pod import attach, departure
from engine.pod.namespace import identity
from engine.pod.residents import Attachment
from fastpath.port.tun import TunPort
from tests.engine.cni.home import Home, failing
from tests.engine.namespaces import device, namespaces, path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def node(tmp_path):
    with Home(tmp_path) as home:
        yield home.node


@pytest.fixture
def attachments():
    """Two, each in a namespace of its own."""
    with namespaces(2) as names:
        yield [
            Attachment("pods", name, "eth0", f"pod-{name}", path_of(name), identity(path_of(name)), (f"10.1.0.{number}",))
            for number, name in enumerate(names, 10)
        ]


def nothing_is_left(node, attachments):
    datapath = node._keeper.datapath
    assert node.residents.attachments == []
    assert [kind for kind, _ in datapath.forwarding.ports] == ["tunnel"]
    assert list(datapath.plane.counters().ports) == list(datapath.forwarding.ports.values())
    assert datapath.pods.attachments == {}
    assert dict(datapath.pods._record.entries) == {}
    assert [device(found.container) for found in attachments] == [None, None]
    assert node.problems() == []


def leaving(attachments):
    return [msgspec.structs.replace(attachment, leaving=True) for attachment in attachments]


STEPS = {
    "the journal": lambda keeper: (keeper.residents._store, "put"),
    "what is desired": lambda keeper: (keeper, "_computed"),
    "the pass": lambda keeper: (keeper.datapath, "apply_without_waiting"),
    "opening": lambda keeper: (keeper.datapath.pods, "_open_tun"),
    "settings": lambda keeper: (attach, "_configure_pod"),
    "the plane": lambda keeper: (keeper.datapath.forwarding, "attach"),
    "next hops": lambda keeper: (keeper.datapath.forwarding, "_point"),
    "the watch": lambda keeper: (keeper.datapath.watch, "follow"),
    "flows": lambda keeper: (keeper.policing, "forget_departed"),
    "the timer": lambda keeper: (keeper.vigil, "arm_retry"),
    "the answer": lambda keeper: (keeper, "_attached"),
}
FAULTS = [OSError(errno.EBUSY, "busy"), KernelError("no room"), RuntimeError("a fault of ours")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("step", STEPS)
def test_nothing_half_made_stays(node, attachments, monkeypatch, step, fault):
    with failing(monkeypatch, *STEPS[step](node._keeper), fault):
        try:
            found = node.attach(*attachments)
        except (OSError, TowpathError, RuntimeError) as error:
            found = [error, error]
            raised = error
        else:
            raised = None
    assert raised in (None, fault)
    for attachment, mtu in zip(attachments, found, strict=True):
        if isinstance(mtu, Exception):
            assert node.residents.get(attachment.key) is None
            assert device(attachment.container) is None
    assert any(isinstance(mtu, Exception) for mtu in found)
    assert all(isinstance(mtu, int) for mtu in node.attach(*attachments)), "the next try"
    assert [device(found.container)["mtu"] for found in attachments] == [1450, 1450]
    node.detach([found.key for found in attachments])
    nothing_is_left(node, attachments)


@pytest.mark.parametrize("step", ["settings", "the plane"])
def test_a_device_that_cannot_be_undone_at_once_is_undone_later(node, attachments, monkeypatch, step):
    busy = OSError(errno.EBUSY, "busy")
    with (
        failing(monkeypatch, TunPort, "delete", busy, times=99),
        failing(monkeypatch, departure, "delete", busy, times=99),
        failing(monkeypatch, *STEPS[step](node._keeper), times=99),
    ):
        assert all(isinstance(found, TowpathError) for found in node.attach(*attachments))
        assert node.residents.leaving == node.residents.attachments == leaving(attachments)
        assert node.residents.pods() == ()
        assert len(node.problems()) == 2
    node.detach([found.key for found in attachments])
    nothing_is_left(node, attachments)


def test_what_could_not_even_be_undone_can_be_detached_later(node, attachments, monkeypatch):
    with failing(monkeypatch, node._keeper, "_computed", times=2), pytest.raises(RuntimeError):
        node.attach(*attachments)
    assert node.residents.leaving == leaving(attachments)
    node.detach([found.key for found in attachments])
    nothing_is_left(node, attachments)


def test_a_pod_whose_removal_fails_in_the_middle_is_removed_by_the_next_one(node, attachments, monkeypatch):
    for step in ("the pass", "flows", "the watch", "the timer", "what is desired"):
        node.attach(*attachments)
        with failing(monkeypatch, *STEPS[step](node._keeper)), pytest.raises((RuntimeError, TowpathError)):
            node.detach([found.key for found in attachments])
        assert node.residents.pods() == ()
        node.detach([found.key for found in attachments])
        nothing_is_left(node, attachments)
