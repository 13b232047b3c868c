"""Reads the kinds of projectcalico.org/v3: policies, tiers, network sets, host endpoints, profiles.

Owns: their fields, defaults, bounds and refusals.
Never: drops a criterion it cannot honour; such a policy is refused and denies.
Invariant: a rule that was accepted restricts exactly by the fields written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from engine.desired.policy.document import Field
from engine.desired.policy.model import (
    ICMP_PROTOCOLS,
    PROTOCOL_NAMES,
    SCTP,
    TCP,
    UDP,
    Action,
    CalicoPolicy,
    CalicoPort,
    CalicoRule,
    Direction,
    Endpoint,
    Entity,
    IcmpMatch,
    NetworkSet,
    Profile,
    Refusal,
    Tier,
)
from engine.desired.policy.nets import Nets
from engine.desired.policy.selector import All, Selector, SelectorError, parse
from engine.model import Address, NamedPort, Prefix

ACTIONS: Final = {"Allow": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS, "Log": Action.LOG}
TYPES: Final[dict[str, Direction]] = {"Ingress": "ingress", "Egress": "egress"}
STAGED_ACTIONS: Final = ("Set", "Delete", "Learn", "Ignore")
HINTS: Final = ("AssumeNeededOnEveryNode",)
MAX_RULES: Final = 1024
MAX_NETS: Final = 256
MAX_PORTS: Final = 50
_WITH_PORTS: Final = (TCP, UDP, SCTP)

_POLICY_FIELDS: Final = (
    "tier",
    "order",
    "ingress",
    "egress",
    "selector",
    "types",
    "serviceAccountSelector",
    "performanceHints",
)
_GLOBAL_FIELDS: Final = ("doNotTrack", "preDNAT", "applyOnForward", "namespaceSelector")
_ENTITY_FIELDS: Final = (
    "nets", "notNets", "selector", "notSelector", "namespaceSelector", "ports", "notPorts", "serviceAccounts", "services",
)  # fmt: skip
_RULE_FIELDS: Final = (
    "metadata", "action", "ipVersion", "protocol", "notProtocol", "icmp", "notICMP", "source", "destination", "http",
)  # fmt: skip


# -- policies ----------------------------------------------------------------
def read_policy(name: str, namespace: str, spec: Field, *, kind: str, staged: str = "") -> CalicoPolicy:
    """`staged`: the kind is a staged one; its action is read from the document."""
    fields = _POLICY_FIELDS + (() if namespace else _GLOBAL_FIELDS) + (("stagedAction",) if staged else ())
    spec.mapping(*fields)
    for hint in spec.need("performanceHints").items() if spec.get("performanceHints") else ():
        hint.one_of(*HINTS)
    ingress, egress = _rules(spec.get("ingress")), _rules(spec.get("egress"))
    flags = {key: _flag(spec, key) for key in ("doNotTrack", "preDNAT", "applyOnForward")} if not namespace else {}
    types = _types(spec, ingress, egress)
    _check_flags(spec, flags, types)
    return replace(
        _subject(name, namespace, spec, kind),
        types=types,
        ingress=ingress,
        egress=egress,
        hosts_only=bool(flags.get("doNotTrack") or flags.get("preDNAT")),
        staged=_staged_action(spec) if staged else "",
        refusal=_refusal(spec, flags),
    )


def refuse(name: str, namespace: str, spec: Field, reason: str, *, kind: str) -> CalicoPolicy:
    """The stand-in for a policy whose rules could not be read. Raises when its subject cannot be, either."""
    written = spec.get("types")
    types = [TYPES[entry.one_of(*TYPES)] for entry in written.items(2)] if written else TYPES.values()
    return replace(_subject(name, namespace, spec, kind), types=frozenset(types), refusal=Refusal(reason))


def _subject(name: str, namespace: str, spec: Field, kind: str) -> CalicoPolicy:
    """The policy without its rules: whom it selects, and when it is judged."""
    tier, order = spec.get("tier"), spec.get("order")
    return CalicoPolicy(
        name=name,
        namespace=namespace,
        tier=tier.name() if tier else "default",
        order=order.number() if order else None,
        selector=_selector(spec.get("selector")) or All(),
        namespace_selector=None if namespace else _selector(spec.get("namespaceSelector")),
        account_selector=_selector(spec.get("serviceAccountSelector")),
        kind=kind,
    )


def _types(spec: Field, ingress: tuple[CalicoRule, ...], egress: tuple[CalicoRule, ...]) -> frozenset[Direction]:
    """Absent: what the rules suggest, and Ingress when there are none."""
    written = spec.get("types")
    if written is not None and written.items():
        return frozenset(TYPES[entry.one_of(*TYPES)] for entry in written.items(2))
    if egress:
        return frozenset(("ingress", "egress") if ingress else ("egress",))
    return frozenset(("ingress",))


def _check_flags(spec: Field, flags: dict[str, bool], types: frozenset[Direction]) -> None:
    if flags.get("doNotTrack") and flags.get("preDNAT"):
        spec.need("preDNAT").fail("preDNAT beside doNotTrack", "one policy, one of the two")
    for key in ("doNotTrack", "preDNAT"):
        if flags.get(key) and not flags.get("applyOnForward"):
            spec.need(key).fail(f"{key} without applyOnForward", "set applyOnForward: true")
    if flags.get("preDNAT") and "egress" in types:
        spec.need("preDNAT").fail("preDNAT on a policy with egress", "it judges ingress only")


def _refusal(spec: Field, flags: dict[str, bool]) -> Refusal | None:
    for side in ("ingress", "egress"):
        rules = spec.get(side)
        for rule in rules.items() if rules else ():
            if rule.get("http") is not None:
                return Refusal(f"{rule.path}.http needs a proxy that reads HTTP")
    for key in ("doNotTrack", "preDNAT", "applyOnForward"):
        if flags.get(key):
            return Refusal(f"{key} is not enforced on host endpoints", "hosts")
    return None


def _staged_action(spec: Field) -> str:
    action = spec.get("stagedAction")
    return action.one_of(*STAGED_ACTIONS) if action else "Set"


def _flag(spec: Field, key: str) -> bool:
    field = spec.get(key)
    return field.boolean() if field else False


def _selector(field: Field | None) -> Selector | None:
    """None when nothing is written: no criterion, which is not the same as `all()`."""
    if field is None or not field.text().strip(" \t"):
        return None
    try:
        return parse(field.text())
    except SelectorError as error:
        return field.fail(f"no selector: {error}", "for example: role == 'db' && !has(test)")


# -- rules -------------------------------------------------------------------
def _rules(field: Field | None) -> tuple[CalicoRule, ...]:
    return tuple(_rule(entry) for entry in field.items(MAX_RULES)) if field else ()


def _rule(field: Field) -> CalicoRule:
    field.mapping(*_RULE_FIELDS)
    version = field.get("ipVersion")
    if version is not None and version.integer(4, 6) == 5:
        version.fail("5 is no IP version", "4 or 6")
    protocol, not_protocol = _protocol(field.get("protocol")), _protocol(field.get("notProtocol"))
    source = _entity(field.get("source"), protocol)
    destination = _entity(field.get("destination"), protocol)
    if field.get("http"):
        _check_http(field)
    rule = CalicoRule(
        action=ACTIONS[field.need("action").one_of(*ACTIONS)],
        ip_version=None if version is None else version.integer(4, 6),
        protocol=protocol,
        not_protocol=not_protocol,
        icmp=_icmp(field, "icmp", protocol),
        not_icmp=_icmp(field, "notICMP", protocol),
        source=source,
        destination=destination,
    )
    _check_services(field, rule)
    return rule


def _check_http(field: Field) -> None:
    field.need("http").mapping("methods", "paths")
    if field.need("action").text() != "Allow" or ".egress" in field.path or field.path.startswith("egress"):
        field.need("http").fail("http outside an Allow rule of ingress")


def _check_services(field: Field, rule: CalicoRule) -> None:
    destination, source = rule.destination, rule.source
    if destination.service and (
        destination != Entity(service=destination.service) or rule.protocol or rule.not_protocol
    ):
        field.need("destination").fail(
            "services beside another criterion", "a Service brings its own addresses and ports"
        )
    if source.service and source != Entity(service=source.service, ports=source.ports, not_ports=source.not_ports):
        field.need("source").fail("services beside another criterion", "only ports may stand beside services")


def _protocol(field: Field | None) -> int | None:
    if field is None:
        return None
    if isinstance(field.value, int):
        return field.integer(1, 255)
    text = field.text()
    if text.isdigit() and 1 <= int(text[:4]) <= 255:
        return int(text)
    return PROTOCOL_NAMES[field.one_of(*PROTOCOL_NAMES)]


def _icmp(field: Field, key: str, protocol: int | None) -> IcmpMatch | None:
    inner = field.get(key)
    if inner is None:
        return None
    if protocol not in ICMP_PROTOCOLS:
        inner.fail(f"{key} without protocol ICMP or ICMPv6", "name the protocol")
    kind, code = inner.mapping("type", "code").get("type"), inner.get("code")
    if kind is None:
        inner.fail("no type" if code is None else "code without type", "name the type")
    return IcmpMatch(kind.integer(0, 254), code.integer(0, 255) if code else None)


# -- one side of a rule ------------------------------------------------------
def _entity(field: Field | None, protocol: int | None) -> Entity:
    if field is None:
        return Entity()
    field.mapping(*_ENTITY_FIELDS)
    accounts, services = field.get("serviceAccounts"), field.get("services")
    names = accounts.mapping("names", "selector").get("names") if accounts else None
    return Entity(
        nets=_nets(field.get("nets"), MAX_NETS),
        not_nets=_nets(field.get("notNets"), MAX_NETS),
        selector=_selector(field.get("selector")),
        not_selector=_selector(field.get("notSelector")),
        namespace_selector=_selector(field.get("namespaceSelector")),
        account_names=tuple(entry.name() for entry in names.items()) if names else (),
        account_selector=_selector(accounts.get("selector")) if accounts else None,
        ports=_ports(field.get("ports"), protocol),
        not_ports=_ports(field.get("notPorts"), protocol),
        service=_service(services) if services else None,
    )


def _service(field: Field) -> tuple[str, str]:
    field.mapping("name", "namespace")
    namespace = field.get("namespace")
    return (namespace.name() if namespace else "", field.need("name").name())


def _nets(field: Field | None, limit: int | None) -> tuple[Prefix, ...]:
    return tuple(entry.prefix(strict=False, bare=True) for entry in field.items(limit)) if field else ()


def _ports(field: Field | None, protocol: int | None) -> tuple[CalicoPort, ...]:
    if field is None or not field.items(MAX_PORTS):
        return ()
    if protocol not in _WITH_PORTS:
        field.fail("ports without protocol TCP, UDP or SCTP", "name the protocol")
    return tuple(_port(entry) for entry in field.items())


def _port(field: Field) -> CalicoPort:
    if isinstance(field.value, int):
        number = field.integer(0, 65535)
        return CalicoPort(number, number)
    first, colon, last = field.text().partition(":")
    if not first.isdigit():
        return CalicoPort(name=field.name())
    bounds = [
        int(part) if part.isdigit() and len(part) <= 5 else -1 for part in ((first, last) if colon else (first, first))
    ]
    if not 0 <= bounds[0] <= bounds[1] <= 65535:
        field.fail("no port range", "like 8000:8080")
    return CalicoPort(bounds[0], bounds[1])


# -- the other kinds ---------------------------------------------------------
def read_tier(name: str, spec: Field) -> Tier:
    spec.mapping("order", "defaultAction")
    order, action = spec.get("order"), spec.get("defaultAction")
    return Tier(
        name,
        order.number() if order else None,
        ACTIONS[action.one_of("Deny", "Pass")] if action else Action.DENY,
    )


def read_network_set(name: str, namespace: str, labels: dict[str, str], spec: Field) -> NetworkSet:
    spec.mapping("nets", "allowedEgressDomains")
    if spec.get("allowedEgressDomains"):
        spec.need("allowedEgressDomains").fail("domain names are not resolved", "list the nets")
    return NetworkSet(name, namespace, labels, _many_nets(spec.get("nets")))


def _many_nets(field: Field | None) -> Sequence[Prefix]:
    """Straight into arrays; one by one only to tell which entry is none."""
    if field is None or not field.items():
        return ()
    try:
        return Nets.parse([entry if isinstance(entry, str) else "" for entry in field.value])
    except ValueError:
        return _nets(field, None)


def read_profile(name: str, spec: Field) -> Profile:
    spec.mapping("ingress", "egress", "labelsToApply")
    labels = spec.get("labelsToApply")
    return Profile(name, labels.labels() if labels else {}, _rules(spec.get("ingress")), _rules(spec.get("egress")))


def read_host_endpoint(name: str, labels: dict[str, str], spec: Field) -> Endpoint:
    """Without expected addresses it stands for its node's, which the caller fills in."""
    spec.mapping("node", "interfaceName", "expectedIPs", "profiles", "ports")
    if not spec.get("interfaceName") and not spec.get("expectedIPs"):
        spec.fail("neither interfaceName nor expectedIPs", "name one of them")
    ports, profiles, node = spec.get("ports"), spec.get("profiles"), spec.get("node")
    return Endpoint(
        name=name,
        labels=labels,
        addresses=_addresses(spec.get("expectedIPs")),
        ports=tuple(_named_port(entry) for entry in ports.items()) if ports else (),
        node=node.name() if node else "",
        profiles=tuple(entry.name() for entry in profiles.items()) if profiles else (),
    )


def _addresses(field: Field | None) -> tuple[Address, ...]:
    return tuple(entry.address() for entry in field.items()) if field else ()


def _named_port(field: Field) -> NamedPort:
    field.mapping("name", "protocol", "port")
    protocol = _protocol(field.need("protocol"))
    assert protocol is not None
    return NamedPort(field.need("name").name(), protocol, field.need("port").integer(1, 65535))
