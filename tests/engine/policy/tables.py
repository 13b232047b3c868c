"""The truth tables of `fixtures/`, as snapshots and expected verdicts.

Owns: the two fixture formats and the clusters they assume.
Never: judges; whoever does (the slow evaluator, the compiled program, pods
behind a data plane) takes the same steps.
Invariant: every step expects at least one allowed or denied connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path
from typing import Any

from engine.desired.policy.document import parse
from engine.desired.policy.model import (
    PROTOCOL_NAMES,
    ClusterNode,
    Connection,
    Endpoint,
    NamedPort,
    Namespace,
    Policy,
    Snapshot,
)
from engine.desired.policy.order import title
from engine.desired.policy.reader import Reading

FIXTURES = Path(__file__).parent / "fixtures"
LETTERS = {"x": 1, "y": 2, "z": 3, "a": 1, "b": 2, "c": 3}
HOUSES = {"oak": 1, "elm": 2, "ash": 3, "fir": 4}
FOREST = "heath"


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection between two pods, and whether it must succeed."""

    source: str
    destination: str
    protocol: int
    port: int
    allowed: bool

    def connection(self, snapshot: Snapshot) -> Connection:
        source, destination = (snapshot.endpoints[key].addresses[0] for key in (self.source, self.destination))
        return Connection(source, destination, self.protocol, self.port, 40_000)


@dataclass(frozen=True, slots=True)
class Step:
    """A cluster at one moment: what it holds, and what must be so."""

    name: str
    snapshot: Snapshot
    probes: tuple[Probe, ...]
    manifests: tuple[Any, ...] = ()  # the documents of its policies


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    steps: tuple[Step, ...]


def kubernetes_tables() -> list[Table]:
    return [_table(document, _letter_cluster(document["pods"])) for document in _documents("kubernetes.yaml")]


def cluster_tables() -> list[Table]:
    return [_table(document, _house_cluster()) for document in _documents("cluster.yaml")]


def _documents(name: str) -> Iterator[dict[str, Any]]:
    for _, document in parse((FIXTURES / name).read_bytes(), name):
        yield document


def _table(document: dict[str, Any], snapshot: Snapshot) -> Table:
    steps = []
    manifests: dict[str, Any] = {}
    for number, step in enumerate(document["steps"], 1):
        snapshot = _changed(snapshot, step, manifests)
        probes = tuple(_probes(step, snapshot))
        assert probes
        steps.append(Step(f"{number}: {step.get('case', '')}", snapshot, probes, tuple(manifests.values())))
    return Table(f"{document['number']}: {document['test']}", tuple(steps))


def _changed(snapshot: Snapshot, step: dict[str, Any], manifests: dict[str, Any]) -> Snapshot:
    policies: dict[str, Policy] = {title(policy): policy for policy in snapshot.policies}
    for manifest in step.get("apply", ()):
        ((_, value),) = Reading().document(manifest).raise_first().objects
        assert isinstance(value, Policy)
        policies[title(value)] = value
        manifests[title(value)] = manifest
    for name in step.get("delete", ()):
        del policies[name]
        del manifests[name]
    relabel = step.get("relabel", {})
    namespaces = {
        n: replace(snapshot.namespaces[n], labels=labels) for n, labels in relabel.get("namespaces", {}).items()
    }
    pods = {k: replace(snapshot.endpoints[k], labels=labels) for k, labels in relabel.get("pods", {}).items()}
    return replace(
        snapshot,
        policies=tuple(policies.values()),
        namespaces={**snapshot.namespaces, **namespaces},
        endpoints={**snapshot.endpoints, **pods},
    )


def _probes(step: dict[str, Any], snapshot: Snapshot) -> Iterator[Probe]:
    for source, destination, protocol, port, verdict in step.get("probe", ()):
        yield Probe(source, destination, PROTOCOL_NAMES[protocol], port, verdict == "allow")
    for expected in step.get("expect", ()):
        for source, destination in permutations(snapshot.endpoints, 2):
            allowed = expected["default"] == "allow"
            for origin, target, verdict in expected["except"]:
                if fnmatchcase(source, origin) and fnmatchcase(destination, target):
                    allowed = verdict == "allow"
            yield Probe(source, destination, PROTOCOL_NAMES[expected["protocol"]], expected["port"], allowed)


# -- the clusters ------------------------------------------------------------
def _letter_cluster(pods: list[str]) -> Snapshot:
    ports = tuple(
        NamedPort(f"serve-{port}-{name.lower()}", PROTOCOL_NAMES[name], port)
        for port in (80, 81)
        for name in ("TCP", "UDP", "SCTP")
    )
    endpoints = {}
    for key in pods:
        namespace, name = key.split("/")
        address = ip_address(f"10.0.{LETTERS[namespace]}.{LETTERS[name]}")
        endpoints[key] = Endpoint(name, namespace, {"pod": name}, (address,), ports, "node")
    return Snapshot(namespaces={name: Namespace(name) for name in "xyz"}, endpoints=endpoints)


def _house_cluster() -> Snapshot:
    ports = (NamedPort("web", PROTOCOL_NAMES["TCP"], 80), NamedPort("dns", PROTOCOL_NAMES["UDP"], 53))
    nodes = {
        f"n{i}": ClusterNode(f"n{i}", {"kubernetes.io/os": "linux"}, (ip_address(f"192.0.2.{i}"),)) for i in (1, 2, 3)
    }
    endpoints = {}
    for house, number in HOUSES.items():
        for i in (0, 1):
            address = ip_address(f"10.0.{number}.{i + 1}")
            endpoints[f"{house}/{i}"] = Endpoint(str(i), house, {"grove": house}, (address,), ports, "n1")
    for i in (0, 1):
        endpoints[f"{FOREST}/{i}"] = Endpoint(
            str(i),
            FOREST,
            {"grove": FOREST},
            nodes[f"n{i + 2}"].addresses,
            (),
            f"n{i + 2}",
            host_network=True,
        )
    namespaces = {name: Namespace(name, {"grove": name}) for name in (*HOUSES, FOREST)}
    return Snapshot(namespaces=namespaces, nodes=nodes, endpoints=endpoints)
