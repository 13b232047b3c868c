"""Policies are swapped under traffic, by running workers: no established packet is lost."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from bench.policy.plane import BATCH, stream, turn, with_pod
from bench.policy.workload import production
from engine.apply.policy import policy_image
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import Action, CalicoPolicy, CalicoRule
from fastpath.reference import TCP
from fastpath.values import FlowSettings
from tests.fastpath.cluster import ACK, SYN, MemoryCluster, segment
from tests.fastpath.network import pair
from tests.fastpath.policies import ALLOW_80, about_b, snapshot_of

A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
FLOWS = 32


@pytest.mark.parametrize("setting", ["keep", "revalidate"])
def test_swapping_loses_no_established_packet(setting: str) -> None:
    allowing = snapshot_of([ALLOW_80])
    cluster = MemoryCluster(allowing, FlowSettings(on_policy_change=setting))
    for i in range(FLOWS):
        cluster.passes(A, B, segment(A, B, SYN, sport=20_000 + i, dport=80, seq=1000))
        cluster.passes(B, A, segment(B, A, SYN | ACK, sport=80, dport=20_000 + i, seq=5000, ack=1001))
    # With "keep" even a policy that would deny them may come; with "revalidate" one that allows by another rule.
    other = snapshot_of([about_b("other", ())] if setting == "keep" else [ALLOW_80, about_b("other", ())])
    images = [policy_image(Enforced(Compiler().compile(snapshot))) for snapshot in (other, allowing)]
    data = [segment(A, B, ACK, sport=20_000 + i, dport=80, seq=1001, ack=5001) for i in range(FLOWS)]
    sent = arrived = swaps = 0
    cluster.plane.start()
    try:
        end = time.monotonic() + 2.0
        swap = 0.0
        while time.monotonic() < end or arrived < sent:
            if time.monotonic() >= swap:
                cluster.plane.set_policy(images[swaps % 2])
                swaps, swap = swaps + 1, time.monotonic() + 0.02
            if sent - arrived < 1000 and time.monotonic() < end:
                cluster.port(A).inject(data)
                sent += FLOWS
            arrived += len(cluster.port(B).drain())
            assert time.monotonic() < end + 10, f"{sent - arrived} of {sent} packets did not arrive"
    finally:
        cluster.plane.stop()
    assert sent == arrived > 1000 and swaps > 20
    assert cluster.drops == {}
    assert cluster.plane.reclaimer.reclaim() <= 1
    assert cluster.plane.has_flow(A, B, TCP, 20_000, 80)


@pytest.mark.parametrize("setting", ["keep", "revalidate"])
def test_swapping_19_992_rules_ten_times_a_second_loses_no_established_packet(setting: str) -> None:
    """Images are made anew for each swap, as a node makes them; flows were open before the first."""
    node, other = pair("vxlan", flows=FlowSettings(track="always", quota=1 << 20, on_policy_change=setting))
    whole = with_pod(production(), node)
    allowing = CalicoPolicy("last", "", order=1e6, types=frozenset({"egress"}), egress=(CalicoRule(Action.ALLOW),))
    programs = [
        Compiler().compile(replace(whole, policies=(*policies, allowing))) for policies in (whole.policies, whole.policies[1:])
    ]
    rows = stream(node, other, FLOWS)
    for i in range(FLOWS):
        node.pod.inject([segment(node.pod4, other.pod4, SYN, sport=10_000 + i, dport=80, seq=1000)])
        node.turn()
    node.tunnel.discard()
    sent = swaps = 0
    began = time.monotonic()
    while swaps < 20:
        if time.monotonic() >= began + swaps * 0.1:
            node.plane.set_policy(policy_image(Enforced(programs[swaps % 2])))
            swaps += 1
        turn(node, rows)
        sent += len(rows)
    assert node.drops == {}
    assert sent > 20 * BATCH
    assert len(node.plane.flow_table) == FLOWS
    assert node.plane.reclaimer.reclaim() <= 1
