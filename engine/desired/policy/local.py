"""What one node knows of everybody: documents, and the facts about its own pods and peers.

Owns: what becomes of a pod that both speak of, and which addresses mean a node.
Never: reads a document or decides anything.
Invariant: of a pod of this node the addresses are those of the facts; a
document can add labels and ports to it, and take nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from engine.desired.addressing import host_addresses
from engine.desired.policy.model import ClusterNode, Endpoint, Snapshot
from engine.model import Address, Facts, Pod

DEFAULT_NAMESPACE = "default"


def names_of(pod: Pod) -> tuple[str, str]:
    """Namespace and name, as Kubernetes has them."""
    namespace, slash, name = pod.name.partition("/")
    if not slash:
        namespace, name = DEFAULT_NAMESPACE, pod.name
    return pod.identity.namespace or namespace, pod.identity.name or name


class Locality:
    """Puts the facts of one node over documents, again and again; what did not change stays the same object."""

    def __init__(self) -> None:
        self._pods: dict[int, tuple[Pod, str, Endpoint | None, Endpoint]] = {}  # by the identity of the pod's value

    def snapshot(self, documents: Snapshot, facts: Facts, own: Iterable[Address]) -> Snapshot:
        """`own`: the addresses of this node on the underlay."""
        endpoints = dict(documents.endpoints)
        kept: dict[int, tuple[Pod, str, Endpoint | None, Endpoint]] = {}
        node = facts.node.name
        for pod in facts.pods:
            key = "/".join(names_of(pod))
            written = documents.endpoints.get(key)
            known = self._pods.get(id(pod))
            if known is None or known[1] != node or known[2] is not written:
                known = (pod, node, written, _endpoint(pod, node, written))
            kept[id(pod)] = known
            endpoints[key] = known[3]
        self._pods = kept
        nodes = _nodes(documents, facts, own)
        for key, endpoint in documents.endpoints.items():
            if endpoint.is_host and not endpoint.addresses and endpoint.node in nodes:
                endpoints[key] = replace(endpoint, addresses=nodes[endpoint.node].addresses)
        return replace(documents, endpoints=endpoints, nodes=nodes)


def _endpoint(pod: Pod, node: str, written: Endpoint | None) -> Endpoint:
    namespace, name = names_of(pod)
    identity = pod.identity
    labels, ports, account = dict(identity.labels), identity.ports, identity.service_account
    if written is not None:
        labels = {**written.labels, **labels}
        ports = (*ports, *(port for port in written.ports if port not in ports))
        if account == DEFAULT_NAMESPACE and written.service_account:
            account = written.service_account
    return Endpoint(
        name, namespace, labels, pod.addresses, ports, node, account,
        profiles=None if written is None else written.profiles,
    )  # fmt: skip


def _nodes(documents: Snapshot, facts: Facts, own: Iterable[Address]) -> dict[str, ClusterNode]:
    """Every address that means a node: those written down, the underlay's, and ours among the pods."""
    nodes = dict(documents.nodes)
    hosts = (interface.ip for interface in host_addresses(facts.node, facts.overlay)) if facts.host.enabled else ()
    found = {facts.node.name: (*own, *hosts), **{peer.name: peer.underlay for peer in facts.peers}}
    for name, addresses in found.items():
        known = nodes.get(name) or ClusterNode(name)
        nodes[name] = replace(known, addresses=tuple(dict.fromkeys((*known.addresses, *addresses))))
    return nodes
