"""Reads Kubernetes NetworkPolicy (networking.k8s.io/v1), and label selectors for its siblings.

Owns: the fields of that kind, their defaults and their validation.
Never: applies a default that belongs to another language.
Invariant: a policy that was accepted means what its fields say; one that was
not is raised as `PolicyError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from engine.desired.policy.document import Field
from engine.desired.policy.model import (
    SCTP,
    TCP,
    UDP,
    Action,
    Block,
    Direction,
    KubernetesPolicy,
    Peer,
    PeerRule,
    PodPeer,
    PortMatch,
    Refusal,
)
from engine.desired.policy.selector import EVERYTHING, All, Has, In, Not, Selector, equals, every
from engine.errors import ConfigError
from engine.model import Prefix

T = TypeVar("T")

PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_FIELDS: Final = frozenset(("podSelector", "policyTypes", "ingress", "egress", "stagedAction"))
TYPES: Final[dict[str, Direction]] = {"Ingress": "ingress", "Egress": "egress"}


def read_policy(
    name: str, namespace: str, spec: Field, *, staged: str = "", kind: str = "NetworkPolicy"
) -> KubernetesPolicy:
    spec.mapping(*_FIELDS)
    if not staged and spec.get("stagedAction"):
        spec.need("stagedAction").fail("unknown field", "only staged kinds carry it")
    return KubernetesPolicy(
        name=name,
        namespace=namespace,
        subject=label_selector(spec.get("podSelector")),
        types=read_types(spec),
        ingress=_rules(spec.get("ingress"), "from"),
        egress=_rules(spec.get("egress"), "to"),
        staged=staged,
        kind=kind,
    )


def refuse(name: str, namespace: str, spec: Field | None, reason: str, kind: str = "NetworkPolicy") -> KubernetesPolicy:
    """The stand-in for a policy that could not be read: closed wherever it may have applied."""
    return KubernetesPolicy(
        name=name,
        namespace=namespace,
        subject=_tolerant(lambda: label_selector(spec.get("podSelector") if spec else None), EVERYTHING),
        types=_tolerant(lambda: _claimed(spec), frozenset(TYPES.values())),
        refusal=Refusal(reason),
        kind=kind,
    )


def _claimed(spec: Field | None) -> frozenset[Direction]:
    """Both directions unless the document says, or clearly implies, one."""
    if spec is None or not _FIELDS.issuperset(spec.any_mapping()):
        return frozenset(TYPES.values())
    return read_types(spec)


def _tolerant(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except ConfigError:
        return otherwise


def read_types(spec: Field) -> frozenset[Direction]:
    """Absent: always Ingress, and Egress when there are egress rules."""
    written = spec.get("policyTypes")
    if written is None:
        egress = spec.get("egress")
        return frozenset(("ingress", "egress") if egress and egress.items() else ("ingress",))
    return frozenset(TYPES[entry.one_of(*TYPES)] for entry in written.items(2))


# -- selectors ---------------------------------------------------------------
def label_selector(field: Field | None) -> Selector:
    """The labels and expressions, all of which must hold; nothing written selects everything."""
    if field is None:
        return All()
    field.mapping("matchLabels", "matchExpressions")
    labels = field.get("matchLabels")
    parts: list[Selector] = [equals(key, value) for key, value in sorted(labels.labels().items())] if labels else []
    expressions = field.get("matchExpressions")
    parts.extend(_expression(entry) for entry in (expressions.items() if expressions else ()))
    return every(*parts)


def _expression(field: Field) -> Selector:
    field.mapping("key", "operator", "values")
    key = field.need("key").text()
    operator = field.need("operator").one_of("In", "NotIn", "Exists", "DoesNotExist")
    written = field.get("values")
    values = [entry.text() for entry in written.items()] if written else []
    if (operator in ("In", "NotIn")) != bool(values):
        needs = "needs values" if not values else "takes no values"
        (written or field).fail(f"{operator} {needs}")
    match operator:
        case "In":
            return In(key, frozenset(values))
        case "NotIn":
            return Not(In(key, frozenset(values)))
        case "Exists":
            return Has(key)
    return Not(Has(key))


# -- rules -------------------------------------------------------------------
def _rules(field: Field | None, side: str) -> tuple[PeerRule, ...]:
    return tuple(_rule(entry, side) for entry in field.items()) if field else ()


def _rule(field: Field, side: str) -> PeerRule:
    field.mapping(side, "ports")
    peers = field.get(side)
    ports = field.get("ports")
    return PeerRule(
        action=Action.ALLOW,
        peers=tuple(_peer(entry) for entry in peers.items()) or None if peers else None,
        ports=tuple(_port(entry) for entry in ports.items()) or None if ports else None,
    )


def _peer(field: Field) -> Peer:
    field.mapping("podSelector", "namespaceSelector", "ipBlock")
    pods, namespaces, block = (field.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock"))
    if block is not None:
        if pods or namespaces:
            field.fail("ipBlock stands beside a selector", "make them two entries of the list")
        return read_block(block)
    if pods is None and namespaces is None:
        field.fail("an entry without a peer", "name a podSelector, a namespaceSelector or an ipBlock")
    return PodPeer(label_selector(pods), None if namespaces is None else label_selector(namespaces))


def read_block(field: Field) -> Block:
    field.mapping("cidr", "except")
    net = field.need("cidr").prefix(strict=False)
    excepted = field.get("except")
    return Block(net, tuple(_excepted(entry, net) for entry in (excepted.items() if excepted else ())))


def _excepted(field: Field, net: Prefix) -> Prefix:
    inner = field.prefix(strict=False)
    if inner.version != net.version or not _inside(inner, net):
        field.fail(f"{inner} is not inside {net}", "except must narrow its cidr")
    return inner


def _inside(inner: Prefix, net: Prefix) -> bool:
    return inner.network_address in net and inner.prefixlen > net.prefixlen


def _port(field: Field) -> PortMatch:
    field.mapping("protocol", "port", "endPort")
    written = field.get("protocol")
    protocol = PROTOCOLS[written.one_of(*PROTOCOLS)] if written else TCP
    port, end = field.get("port"), field.get("endPort")
    if port is None:
        if end is not None:
            end.fail("endPort without port", "add the number it starts from")
        return PortMatch(protocol)
    if isinstance(port.value, str):
        if end is not None:
            end.fail("endPort beside a named port", "give the port as a number")
        return PortMatch(protocol, name=port_name(port))
    low = port.integer(1, 65535)
    high = end.integer(1, 65535) if end else low
    if end is not None and high < low:
        end.fail(f"endPort {high} is below port {low}")
    return PortMatch(protocol, low, high)


def port_name(field: Field) -> str:
    name = field.name()
    if len(name) > 63 or name.isdigit():
        field.fail("no port name", "a number is written without quotes")
    return name
