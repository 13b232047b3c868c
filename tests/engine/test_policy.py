"""The library's face: single answers, the matrix, updates."""

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.policy import Policies, PolicyError, parse_service

PODS = """
namespaces: {x: {}}
pods:
- {ns: x, name: a, labels: {app: a}, ips: [10.0.0.1, "fd00::1"]}
- {ns: x, name: b, labels: {app: b}, ips: [10.0.0.2, "fd00::2"]}
- {ns: x, name: six, ip: "fd00::6"}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: c}}}]}]}
"""


def test_may_and_explain():
    policies = Policies.read(PODS, POLICY)
    assert not policies.may("x/b", "x/a")
    assert policies.may("x/a", "x/b", "udp/53")
    assert policies.may("x/six", "x/b"), "by the family both have"
    assert policies.explain("x/b", "x/a").verdict.ingress.why == "end-of-tier"


def test_reachability():
    found = Policies.read(PODS, POLICY).reachability()
    assert found.names == ("x/a", "x/b")
    assert found.allowed.tolist() == [[True, True], [False, True]]
    assert found.egress.all()
    assert np.array_equal(found.allowed, found.egress & found.ingress)
    six = Policies.read(PODS, POLICY).reachability("icmpv6", version=6)
    assert six.names == ("x/a", "x/b", "x/six")
    assert six.allowed.tolist() == [[True, True, True], [False, True, True], [False, True, True]]
    assert Policies.read(PODS).reachability(names=["192.0.2.1", "x/a"]).allowed.all()
    assert Policies.read(PODS).reachability(names=[]).allowed.shape == (0, 0)


def test_update():
    policies = Policies.read(PODS, POLICY)
    snapshot = policies.snapshot
    pod = replace(snapshot.endpoints["x/b"], labels={"app": "c"})
    policies.update(replace(snapshot, endpoints={**snapshot.endpoints, "x/b": pod}))
    assert policies.may("x/b", "x/a")
    assert policies.refused == []


def test_mistakes():
    with pytest.raises(PolicyError):
        Policies.read(PODS, POLICY.replace("app: a}", "app: 1}"))
    with pytest.raises(ConfigError, match="no endpoint"):
        Policies.read(PODS).may("x/aa", "x/b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (6, 80)), ("tcp/80", (6, 80)), ("8080", (6, 8080)), ("UDP/53", (17, 53)), ("sctp/9", (132, 9)), ("icmp", (1, 0x800)),
        ("icmp/3", (1, 0x300)), ("icmp/3/4", (1, 0x304)), ("icmpv6", (58, 128 << 8)), ("47", (47, 0)), ("6/22", (6, 22)), ("0", (0, 0)),
    ],
)  # fmt: skip
def test_service(text, expected):
    assert parse_service(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "tcp",
        "tcp/",
        "tcp/x",
        "tcp/65536",
        "47/1",
        "icmp/256",
        "icmp/1/2/3",
        "ip/4",
        "70000",
        "tcp/-1",
        "/",
        "tcp/80/90",
    ],
)
def test_no_service(text):
    with pytest.raises(ConfigError):
        parse_service(text)


def test_the_lines_in_the_documentation_are_true():
    found = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "policy.md"), module_relative=False)
    assert found.attempted >= 8
    assert found.failed == 0
