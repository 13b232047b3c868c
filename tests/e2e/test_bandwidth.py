"""Pods with a bandwidth: what they really send and receive, measured from end to end."""

from __future__ import annotations

import pytest

from engine.lab.traffic import throughput
from tests.e2e.conftest import running_cluster

SLOW = pytest.mark.slow
LINE = "bandwidth = {{ {direction} = '{rate}M' }}\n"


def limited(node, pod, direction, rate):
    """Give a pod of the node's file a bandwidth; inline tables, which the lab's files do not have."""
    text = node.daemon.config.read_text()
    head, mark, rest = text.partition(f'name = "{pod.name}"\n')
    kept = "".join(line for line in rest.splitlines(keepends=True) if not line.startswith("bandwidth"))
    node.daemon.config.write_text(head + mark + (LINE.format(direction=direction, rate=rate) if rate else "") + kept)
    node.daemon.reload()


def megabits(source, target, seconds):
    return throughput(source.host, target.host, target.addresses[4], seconds=seconds).gigabits * 1000


@pytest.mark.parametrize("rate", [50, pytest.param(5, marks=SLOW), pytest.param(500, marks=SLOW)])
def test_a_pod_is_as_fast_as_it_may_be(rate):
    """Egress waits, to within a tenth; ingress drops, and TCP stays a little below; between nodes and on one."""
    with running_cluster(nodes=2, pods=2) as cluster:
        node, other = cluster.nodes
        a, b, far = *node.pods, other.pods[0]
        seconds = 3.0
        limited(node, a, "egress", rate)
        for target in (far, b):
            assert megabits(a, target, seconds) == pytest.approx(rate, rel=0.1), "egress"
        assert node.daemon.drops().get("rate", 0) == 0, "a sender waits"
        assert megabits(far, a, 1.0) > 2 * rate, "the other direction is free"
        limited(node, a, "ingress", rate)
        for source in (far, b):
            assert 0.8 * rate < megabits(source, a, seconds) < 1.1 * rate, "ingress"
        assert node.daemon.drops()["rate"] > 0
        limited(node, a, "", 0)
        assert megabits(a, far, 1.0) > 2 * rate
