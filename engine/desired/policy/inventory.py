"""Reads who exists: namespaces, pods, nodes, accounts and endpoint slices, and a short form of them.

Owns: the few fields of those kinds that policy depends on.
Never: checks the rest of such an object; a cluster writes many fields of its own.
Invariant: a pod that has ended, or has no address yet, holds no address.
"""

from __future__ import annotations

from typing import Final

from engine.desired.policy.document import Field
from engine.desired.policy.kubernetes import PROTOCOLS
from engine.desired.policy.model import (
    ClusterNode,
    Endpoint,
    Namespace,
    Service,
    ServiceAccount,
    ServicePort,
)
from engine.model import Address, NamedPort

SERVICE_LABEL: Final = "kubernetes.io/service-name"
_ENDED: Final = ("Succeeded", "Failed")


def read_labels(metadata: Field | None) -> dict[str, str]:
    labels = metadata.get("labels") if metadata else None
    return labels.labels() if labels else {}


def read_namespace(name: str, document: Field) -> Namespace:
    return Namespace(name, read_labels(document.get("metadata")))


def read_account(name: str, namespace: str, document: Field) -> ServiceAccount:
    return ServiceAccount(name, namespace, read_labels(document.get("metadata")))


def read_node(name: str, document: Field) -> ClusterNode:
    status = document.get("status")
    written = status.get("addresses") if status else None
    addresses = [
        entry.need("address").address()
        for entry in (written.items() if written else ())
        if entry.need("type").text() in ("InternalIP", "ExternalIP")
    ]
    return ClusterNode(name, read_labels(document.get("metadata")), tuple(dict.fromkeys(addresses)))


def read_pod(name: str, namespace: str, document: Field) -> Endpoint:
    spec, status = document.get("spec"), document.get("status")
    node = spec.get("nodeName") if spec else None
    account = spec.get("serviceAccountName") if spec else None
    host_network = spec.get("hostNetwork") if spec else None
    return Endpoint(
        name=name,
        namespace=namespace,
        labels=read_labels(document.get("metadata")),
        addresses=_pod_addresses(status),
        ports=_container_ports(spec),
        node=node.name() if node else "",
        service_account=account.name() if account else "default",
        host_network=host_network.boolean() if host_network else False,
    )


def _pod_addresses(status: Field | None) -> tuple[Address, ...]:
    if status is None:
        return ()
    phase = status.get("phase")
    if phase is not None and phase.text() in _ENDED:
        return ()
    several, one = status.get("podIPs"), status.get("podIP")
    found = [entry.need("ip").address() for entry in several.items()] if several else []
    return tuple(dict.fromkeys([*found, *([one.address()] if one else [])]))


def _container_ports(spec: Field | None) -> tuple[NamedPort, ...]:
    containers = spec.get("containers") if spec else None
    found: list[NamedPort] = []
    for container in containers.items() if containers else ():
        ports = container.get("ports")
        for port in ports.items() if ports else ():
            name, protocol = port.get("name"), port.get("protocol")
            if name is not None:
                number = PROTOCOLS[protocol.one_of(*PROTOCOLS)] if protocol else PROTOCOLS["TCP"]
                found.append(NamedPort(name.name(), number, port.need("containerPort").integer(1, 65535)))
    return tuple(found)


def read_slice(namespace: str, document: Field) -> Service:
    """One EndpointSlice: part of the Service that its label names."""
    name = read_labels(document.get("metadata")).get(SERVICE_LABEL, "")
    ports, endpoints = document.get("ports"), document.get("endpoints")
    numbers: list[tuple[int, int]] = []
    for entry in ports.items() if ports else ():
        protocol, port = entry.get("protocol"), entry.get("port")
        if port is not None:
            numbers.append(
                (PROTOCOLS[protocol.one_of(*PROTOCOLS)] if protocol else PROTOCOLS["TCP"], port.integer(1, 65535))
            )
    backends = [
        ServicePort(address.address(), protocol, number)
        for endpoint in (endpoints.items() if endpoints else ())
        for address in endpoint.need("addresses").items()
        for protocol, number in numbers
    ]
    return Service(name, namespace, tuple(backends))


# -- the short form ----------------------------------------------------------
def read_short(document: Field) -> tuple[list[Namespace], list[ClusterNode], list[Endpoint]]:
    """`{namespaces: {x: {labels}}, nodes: {n: {labels, addresses}}, pods: [{ns, name, labels, ip, ports}]}`."""
    document.mapping("namespaces", "nodes", "pods")
    namespaces, nodes, pods = (document.get(key) for key in ("namespaces", "nodes", "pods"))
    return (
        [_short_namespace(*entry) for entry in _entries(namespaces)],
        [_short_node(*entry) for entry in _entries(nodes)],
        [_short_pod(entry) for entry in (pods.items() if pods else ())],
    )


def _entries(field: Field | None) -> list[tuple[str, Field]]:
    if field is None:
        return []
    return [(key, Field(value, f"{field.path}.{key}", field.origin)) for key, value in field.any_mapping().items()]


def _short_namespace(name: str, field: Field) -> Namespace:
    labels = None if field.value is None else field.mapping("labels").get("labels")
    return Namespace(name, labels.labels() if labels else {})


def _short_node(name: str, field: Field) -> ClusterNode:
    labels, addresses = field.mapping("labels", "addresses").get("labels"), field.get("addresses")
    return ClusterNode(
        name,
        labels.labels() if labels else {},
        tuple(entry.address() for entry in addresses.items()) if addresses else (),
    )


def _short_pod(field: Field) -> Endpoint:
    field.mapping("ns", "name", "labels", "ip", "ips", "ports", "node", "account", "hostNetwork")
    labels, ports, one, several = (field.get(key) for key in ("labels", "ports", "ip", "ips"))
    node, account, host_network = (field.get(key) for key in ("node", "account", "hostNetwork"))
    addresses = ([one] if one else []) + (several.items() if several else [])
    return Endpoint(
        name=field.need("name").name(),
        namespace=field.need("ns").name(),
        labels=labels.labels() if labels else {},
        addresses=tuple(entry.address() for entry in addresses),
        ports=tuple(_short_port(entry) for entry in ports.items()) if ports else (),
        node=node.name() if node else "",
        service_account=account.name() if account else "default",
        host_network=host_network.boolean() if host_network else False,
    )


def _short_port(field: Field) -> NamedPort:
    field.mapping("name", "proto", "port")
    protocol = field.get("proto")
    return NamedPort(
        field.need("name").name(),
        PROTOCOLS[protocol.one_of(*PROTOCOLS)] if protocol else PROTOCOLS["TCP"],
        field.need("port").integer(1, 65535),
    )
