"""Reads ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).

Owns: the fields of that kind, its bounds, and what happens to fields it does
not know.
Never: skips a Deny or Pass rule it cannot read.
Invariant: a peer or protocol entry without a known field becomes an `unknown`
rule (an Accept matches nothing, a Deny or Pass denies everything); a malformed
subject or tier makes the policy absent, which the caller reports.
"""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from engine.desired.policy.document import Field
from engine.desired.policy.kubernetes import PROTOCOLS, label_selector, port_name
from engine.desired.policy.model import (
    Action,
    Block,
    ClusterPolicy,
    NodePeer,
    Peer,
    PeerRule,
    PodPeer,
    PortMatch,
    UnknownPeer,
)
from engine.desired.policy.selector import All

ACTIONS: Final = {"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}
MAX_ENTRIES: Final = 25
MAX_NAME: Final = 100

_INGRESS_PEERS: Final = ("namespaces", "pods")
_EGRESS_PEERS: Final = ("namespaces", "pods", "networks", "nodes", "domainNames")
_WITHOUT_NAMED_PORTS: Final = (Block, NodePeer, UnknownPeer)
_DOMAIN: Final = re.compile(
    r"(\*\.)?([A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?\.)+[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?\.?"
)


def read_policy(name: str, spec: Field) -> ClusterPolicy:
    spec.mapping("tier", "priority", "subject", "ingress", "egress")
    return ClusterPolicy(
        name=name,
        tier=cast(Literal["Admin", "Baseline"], spec.need("tier").one_of("Admin", "Baseline")),
        priority=spec.need("priority").integer(0, 1000),
        subject=_subject(spec.need("subject")),
        ingress=_rules(spec.get("ingress"), "from"),
        egress=_rules(spec.get("egress"), "to"),
    )


def _subject(field: Field) -> PodPeer:
    field.mapping("namespaces", "pods")
    namespaces, pods = field.get("namespaces"), field.get("pods")
    if (namespaces is None) == (pods is None):
        field.fail("a subject needs exactly one of namespaces and pods")
    return _pods(pods) if pods else PodPeer(All(), label_selector(namespaces))


def _pods(field: Field) -> PodPeer:
    field.mapping("namespaceSelector", "podSelector")
    return PodPeer(label_selector(field.get("podSelector")), label_selector(field.get("namespaceSelector")))


# -- rules -------------------------------------------------------------------
def _rules(field: Field | None, side: str) -> tuple[PeerRule, ...]:
    return tuple(_rule(entry, side) for entry in field.items(MAX_ENTRIES)) if field else ()


def _rule(field: Field, side: str) -> PeerRule:
    field.mapping("name", "action", side, "protocols")
    name = field.get("name")
    if name and len(name.text()) > MAX_NAME:
        name.fail("a rule name too long", f"at most {MAX_NAME} characters")
    action = ACTIONS[field.need("action").one_of(*ACTIONS)]
    peers = field.need(side)
    if not peers.items(MAX_ENTRIES):
        peers.fail("no peers", "at least one is required")
    found = [peer for entry in peers.items() for peer in _peer(entry, side, action)]
    ports, unknown = _ports(field.get("protocols"))
    if any(port.name for port in ports or ()) and any(isinstance(peer, _WITHOUT_NAMED_PORTS) for peer in found):
        field.need("protocols").fail("destinationNamedPort beside a peer without named ports", "use pods or namespaces")
    return PeerRule(action, tuple(found), ports, name.text() if name else "", unknown)


def _peer(field: Field, side: str, action: Action) -> list[Peer]:
    known = _INGRESS_PEERS if side == "from" else _EGRESS_PEERS
    written = [key for key in field.any_mapping() if field.get(key) is not None]
    strangers = [key for key in written if key not in known]
    if strangers or not written:
        return [UnknownPeer(strangers[0] if strangers else "")]
    if len(written) > 1:
        field.fail("a peer with several fields", "one field a peer; peers are alternatives")
    inner = field.need(written[0])
    match written[0]:
        case "namespaces":
            return [PodPeer(All(), label_selector(inner))]
        case "pods":
            return [_pods(inner)]
        case "nodes":
            return [NodePeer(label_selector(inner))]
        case "networks":
            return [Block(entry.prefix(strict=False)) for entry in _filled(inner)]
    return _domain_names(inner, action)


def _domain_names(field: Field, action: Action) -> list[Peer]:
    if action != Action.ALLOW:
        field.fail("domainNames outside an Accept rule")
    for entry in _filled(field):
        if not _DOMAIN.fullmatch(entry.text()):
            entry.fail("no domain name")
    return [UnknownPeer("domainNames")]


def _filled(field: Field) -> list[Field]:
    entries = field.items(MAX_ENTRIES)
    return entries or field.fail("an empty list", "at least one entry is required")


# -- protocols ---------------------------------------------------------------
def _ports(field: Field | None) -> tuple[tuple[PortMatch, ...] | None, str]:
    """The port list, and the name of the first entry that cannot be read."""
    if field is None:
        return None, ""
    ports: list[PortMatch] = []
    for entry in field.items(MAX_ENTRIES):
        keys = [key for key in entry.any_mapping() if entry.get(key) is not None]
        known = [key for key in keys if key.upper() in PROTOCOLS or key == "destinationNamedPort"]
        if not keys or known != keys:
            return (), f"protocols entry {next((k for k in keys if k not in known), 'without a field')}"
        if len(keys) > 1:
            entry.fail("a protocols entry with several fields", "one field an entry; entries are alternatives")
        ports.append(_port(keys[0], entry.need(keys[0])))
    return tuple(ports) or field.fail("an empty list", "leave protocols out to match every protocol"), ""


def _port(key: str, field: Field) -> PortMatch:
    if key == "destinationNamedPort":
        return PortMatch(None, name=port_name(field))
    protocol = PROTOCOLS[key.upper()]
    written = field.mapping("destinationPort").get("destinationPort")
    if written is None:
        return PortMatch(protocol)
    number, span = written.mapping("number", "range").get("number"), written.get("range")
    if (number is None) == (span is None):
        written.fail("destinationPort needs exactly one of number and range")
    if number is not None:
        port = number.integer(1, 65535)
        return PortMatch(protocol, port, port)
    assert span is not None
    low = span.mapping("start", "end").need("start").integer(1, 65535)
    high = span.need("end").integer(1, 65535)
    if low >= high:
        span.fail(f"start {low} is not below end {high}")
    return PortMatch(protocol, low, high)
