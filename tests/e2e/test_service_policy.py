"""Egress policy and the services of the host's kernel: a pod behind a service is judged, not the service's address."""

from __future__ import annotations

import json

import pytest

from engine.lab.traffic import TrafficError, tcp_echo, udp_echo
from tests.e2e.streams import Conversation
from tests.e2e.test_outside import ECHO, SERVICES, services, world

pytestmark = [pytest.mark.needs("nft", "ss")]

RANGES = ["10.96.0.0/12", "fd00:96::/112"]
FAST = 1.0  # seconds for what must not arrive


def egress_of(pod, *others):
    """The egress policy of a pod: nobody but these pods."""
    peers = [{"podSelector": {"matchLabels": {"pod": other.name}}} for other in others]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "egress", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"pod": pod.name}},
            "policyTypes": ["Egress"],
            "egress": [{"to": peers}] if peers else [],
        },
    }


def inventory(pods):
    items = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": p.name, "namespace": "default", "labels": {"pod": p.name}},
         "status": {"podIPs": [{"ip": address} for address in p.addresses.values()]}}
        for p in pods
    ]  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": items}


@pytest.fixture(scope="module")
def here():
    with world() as made:
        folder = made.node.daemon.directory / "policy"
        folder.mkdir()
        (folder / "pods.json").write_text(json.dumps(inventory(made.cluster.pods)))
        config = made.node.daemon.config
        section = f"[policy]\nfiles = {json.dumps([str(folder)])}\nservices = {json.dumps(RANGES)}\n"
        config.write_text(config.read_text() + section)
        made.node.daemon.reload()
        made.nft(made.node, text="table inet kube { }\ndelete table inet kube\n" + services(made))
        yield made


def enforce(here, *others):
    """Let the node's first pod reach these pods alone; in force when it returns."""
    path = here.node.daemon.directory / "egress.json"
    path.write_text(json.dumps(egress_of(here.a, *others)))
    done = here.node.daemon.command("policy", "apply", str(path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("family", [4, 6])
def test_who_is_behind_the_service_is_judged(here, family):
    """An egress policy that names pods lets a service of theirs pass, and no other's."""
    for allowed, name, denied, other in ((here.far, "far", here.b, "near"), (here.b, "near", here.far, "far")):
        enforce(here, allowed)
        tcp_echo(here.a.host, SERVICES[family, name], port=80)
        udp_echo(here.a.host, SERVICES[family, name], port=80)
        tcp_echo(here.a.host, allowed.addresses[family], port=ECHO)
        for address, port in ((SERVICES[family, other], 80), (denied.addresses[family], ECHO)):
            with pytest.raises(TrafficError):
                tcp_echo(here.a.host, address, port=port, seconds=FAST)
    assert here.node.daemon.drops()["policy_deny"] > 0


def test_nobody_is_reached_through_a_service_when_nobody_may_be(here):
    enforce(here)
    for address in SERVICES.values():
        with pytest.raises(TrafficError):
            tcp_echo(here.a.host, address, port=80, seconds=FAST)


def test_a_takeover_keeps_policy_and_connections(here):
    """What was open goes on, judged or not; what nobody may open stays shut, and the policy can be changed."""
    enforce(here, here.far)
    conversation = Conversation(here.a.host, here.far.host, here.far.addresses[4])
    try:
        conversation.goes_on()
        here.node.daemon.take_over()
        conversation.goes_on()
    finally:
        conversation.end()
    tcp_echo(here.a.host, here.far.addresses[6], port=ECHO)
    with pytest.raises(TrafficError):
        tcp_echo(here.a.host, here.b.addresses[6], port=ECHO, seconds=FAST)
    enforce(here, here.b)
    tcp_echo(here.a.host, here.b.addresses[6], port=ECHO)
    with pytest.raises(TrafficError):
        tcp_echo(here.a.host, here.far.addresses[6], port=ECHO, seconds=FAST)


def test_explain_says_who_judges(here):
    enforce(here)
    done = here.node.daemon.command("policy", "explain", f"default/{here.a.name}", SERVICES[4, "far"], "tcp/80")
    assert "service" in done.stdout, done.stdout
