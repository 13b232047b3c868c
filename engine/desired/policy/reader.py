"""Sorts documents by kind, reads each, and gathers the result in a snapshot.

Owns: the table of kinds, what becomes of documents that cannot be read, and
the assembly of a `Snapshot`.
Never: opens a file.
Invariant: a policy document that is recognised but cannot be read stays in
force as a refusal (it denies) wherever its subject can still be told; every
document that was not taken as written is listed in `problems`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.desired.policy import calico, cluster, inventory, kubernetes
from engine.desired.policy.document import LIMITS, Field, Limits, Origin, PolicyError, parse
from engine.desired.policy.model import (
    BUILT_IN_TIERS,
    DEFAULT_STANCE,
    ClusterNode,
    Endpoint,
    Namespace,
    NetworkSet,
    Policy,
    Profile,
    Service,
    ServiceAccount,
    Snapshot,
    Stance,
    Tier,
)

NOWHERE: Final = Origin()
CALICO: Final = "projectcalico.org/v3"
KUBERNETES: Final = "networking.k8s.io/v1"
CLUSTER: Final = "policy.networking.k8s.io/v1alpha2"

Value = (
    Policy | Tier | Profile | NetworkSet | Namespace | ClusterNode | Endpoint | Service | ServiceAccount
)  # fmt: skip


@dataclass(slots=True)
class Reading:
    """What a set of texts said so far: objects in reading order, each with its origin."""

    objects: list[tuple[Origin, Value]] = field(default_factory=list)
    problems: list[PolicyError] = field(default_factory=list)

    def text(self, text: str | bytes, file: str = "", limits: Limits = LIMITS) -> Reading:
        """Add all documents of one text."""
        try:
            for origin, value in parse(text, file, limits):
                self.document(value, origin)
        except PolicyError as error:
            self.problems.append(error)
        return self

    def document(self, value: Any, origin: Origin = NOWHERE) -> Reading:
        """Add one document; a List adds its items, nothing adds nothing."""
        top = Field(value, "", origin)
        try:
            if value is None:
                return self
            kind = top.get("kind")
            if kind is None and not top.get("apiVersion"):
                self._short(top)
            elif kind is not None and kind.text().endswith("List"):
                for item in top.need("items").items():
                    self.document(item.value, origin)
            else:
                self._read(top)
        except PolicyError as error:
            self.problems.append(error)
        return self

    def raise_first(self) -> Reading:
        """For callers that accept nothing but correct documents."""
        if self.problems:
            raise self.problems[0]
        return self

    def _short(self, top: Field) -> None:
        for group in inventory.read_short(top):
            self.objects.extend((top.origin, value) for value in group)

    def _read(self, top: Field) -> None:
        version, kind = top.need("apiVersion").text(), top.need("kind").text()
        known = _KINDS.get((version, kind))
        if known is None:
            if (version, kind) in _IGNORED:
                return
            Field(kind, "kind", top.origin).fail(f"{version} {kind} is not supported", _advice(version, kind))
        metadata = top.need("metadata")
        name = metadata.need("name").name()
        namespace = _namespace(metadata, namespaced=known.namespaced)
        try:
            self.objects.append((top.origin, known.read(name, namespace, top)))
        except PolicyError as error:
            self.problems.append(error)
            refused = known.refuse(name, namespace, top, str(error)) if known.refuse else None
            if refused is not None:
                self.objects.append((top.origin, refused))


@dataclass(frozen=True, slots=True)
class _Kind:
    read: Callable[[str, str, Field], Value]
    namespaced: bool = True
    refuse: Callable[[str, str, Field, str], Value | None] | None = None


def _namespace(metadata: Field, *, namespaced: bool) -> str:
    written = metadata.get("namespace")
    if not namespaced:
        return written.fail("a namespace on a cluster-wide kind", "leave it out") if written and written.text() else ""
    return written.name() if written and written.text() else "default"


def _advice(version: str, kind: str) -> str:
    if kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy"):
        return f"write it as ClusterNetworkPolicy of {CLUSTER}"
    if version.startswith("crd.projectcalico.org/"):
        return f"export it as {CALICO}"
    known = sorted(v for v, k in _KINDS if k == kind)
    return f"apiVersion {' or '.join(known)}" if known else "remove it from the policy folder"


# -- the table of kinds ------------------------------------------------------
def _spec(top: Field) -> Field:
    return top.mapping("apiVersion", "kind", "metadata", "spec", "status").get("spec") or Field({}, "spec", top.origin)


def _needed_spec(top: Field) -> Field:
    return top.mapping("apiVersion", "kind", "metadata", "spec", "status").need("spec")


def _refuse_kubernetes(name: str, namespace: str, top: Field, reason: str) -> Value:
    value = top.any_mapping().get("spec")
    spec = Field(value, "spec", top.origin) if isinstance(value, dict) else None
    return kubernetes.refuse(name, namespace, spec, reason)


def _refuse_calico(kind: str) -> Callable[[str, str, Field, str], Value | None]:
    def refuse(name: str, namespace: str, top: Field, reason: str) -> Value | None:
        value = top.any_mapping().get("spec")
        spec = Field(value if isinstance(value, dict) else {}, "spec", top.origin)
        try:
            return calico.refuse(name, namespace, spec, reason, kind=kind)
        except PolicyError:
            if not namespace:
                return None  # whom a global policy selects is not known: absent, and reported
            return calico.refuse(name, namespace, Field({}, "spec", top.origin), reason, kind=kind)

    return refuse


def _calico_policy(kind: str, *, namespaced: bool, staged: bool = False) -> _Kind:
    def read(name: str, namespace: str, top: Field) -> Value:
        return calico.read_policy(name, namespace, _spec(top), kind=kind, staged="Set" if staged else "")

    return _Kind(read, namespaced, None if staged else _refuse_calico(kind))


def _read_staged_kubernetes(name: str, namespace: str, top: Field) -> Value:
    spec = _spec(top)
    action = spec.get("stagedAction")
    staged = action.one_of(*calico.STAGED_ACTIONS) if action else "Set"
    return kubernetes.read_policy(name, namespace, spec, staged=staged, kind="StagedKubernetesNetworkPolicy")


def _read_tier(name: str, _namespace: str, top: Field) -> Value:
    tier = calico.read_tier(name, _spec(top))
    built_in = {t.name: t for t in BUILT_IN_TIERS}.get(name)
    return replace(tier, order=built_in.order) if built_in and tier.order is None else tier


def _read_set(name: str, namespace: str, top: Field) -> Value:
    return calico.read_network_set(name, namespace, inventory.read_labels(top.get("metadata")), _spec(top))


def _read_host_endpoint(name: str, _namespace: str, top: Field) -> Value:
    return calico.read_host_endpoint(name, inventory.read_labels(top.get("metadata")), _needed_spec(top))


_KINDS: Final[dict[tuple[str, str], _Kind]] = {
    ("v1", "Namespace"): _Kind(lambda name, _, top: inventory.read_namespace(name, top), namespaced=False),
    ("v1", "Node"): _Kind(lambda name, _, top: inventory.read_node(name, top), namespaced=False),
    ("v1", "Pod"): _Kind(inventory.read_pod),
    ("v1", "ServiceAccount"): _Kind(inventory.read_account),
    ("discovery.k8s.io/v1", "EndpointSlice"): _Kind(lambda _, namespace, top: inventory.read_slice(namespace, top)),
    (KUBERNETES, "NetworkPolicy"): _Kind(
        lambda name, namespace, top: kubernetes.read_policy(name, namespace, _spec(top)), refuse=_refuse_kubernetes
    ),
    (CLUSTER, "ClusterNetworkPolicy"): _Kind(
        lambda name, _, top: cluster.read_policy(name, _needed_spec(top)), namespaced=False
    ),
    (CALICO, "NetworkPolicy"): _calico_policy("NetworkPolicy", namespaced=True),
    (CALICO, "GlobalNetworkPolicy"): _calico_policy("GlobalNetworkPolicy", namespaced=False),
    (CALICO, "StagedNetworkPolicy"): _calico_policy("StagedNetworkPolicy", namespaced=True, staged=True),
    (CALICO, "StagedGlobalNetworkPolicy"): _calico_policy("StagedGlobalNetworkPolicy", namespaced=False, staged=True),
    (CALICO, "StagedKubernetesNetworkPolicy"): _Kind(_read_staged_kubernetes),
    (CALICO, "Tier"): _Kind(_read_tier, namespaced=False),
    (CALICO, "NetworkSet"): _Kind(_read_set),
    (CALICO, "GlobalNetworkSet"): _Kind(_read_set, namespaced=False),
    (CALICO, "HostEndpoint"): _Kind(_read_host_endpoint, namespaced=False),
    (CALICO, "Profile"): _Kind(lambda name, _, top: calico.read_profile(name, _spec(top)), namespaced=False),
}
_IGNORED: Final = {("v1", "Service"), ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet")}


# -- assembly ----------------------------------------------------------------
def assemble(reading: Reading, stance: Stance = DEFAULT_STANCE) -> Snapshot:
    """The snapshot of all objects. Of two with one identity the later wins, and is reported."""
    tables: dict[type, dict[Any, Any]] = {}
    origins: dict[tuple[type, Any], Origin] = {}
    for origin, value in reading.objects:
        table, key = tables.setdefault(type(value), {}), _identity(value)
        if isinstance(value, Service) and key in table:  # several slices make one Service
            table[key] = replace(value, backends=table[key].backends + value.backends)
            continue
        if key in table:
            first = origins[type(value), key]
            twice = PolicyError(f"the same object stands in {first}", origin=origin, path=str(key), remedy="keep one")
            reading.problems.append(twice)
        table[key] = value
        origins[type(value), key] = origin
    nodes: dict[str, ClusterNode] = tables.get(ClusterNode, {})
    endpoints = {key: _with_node_addresses(value, nodes) for key, value in tables.get(Endpoint, {}).items()}
    policies = [value for kind, table in tables.items() for value in table.values() if issubclass(kind, Policy)]
    return Snapshot(
        namespaces=tables.get(Namespace, {}),
        accounts=tables.get(ServiceAccount, {}),
        endpoints=endpoints,
        nodes=nodes,
        sets=tuple(tables.get(NetworkSet, {}).values()),
        services=tables.get(Service, {}),
        profiles=tables.get(Profile, {}),
        tiers=tables.get(Tier, {}),
        policies=tuple(policies),
        stance=stance,
    )


def _identity(value: Value) -> Any:
    match value:
        case Namespace() | ClusterNode() | Tier() | Profile():
            return value.name
        case Endpoint():
            return value.key
        case Service() | ServiceAccount() | NetworkSet():
            return (value.namespace, value.name)
    return (value.kind, value.namespace, value.name)


def _with_node_addresses(endpoint: Endpoint, nodes: dict[str, ClusterNode]) -> Endpoint:
    """A host endpoint without expected addresses stands for all of its node's."""
    if endpoint.is_host and not endpoint.addresses and endpoint.node in nodes:
        return replace(endpoint, addresses=nodes[endpoint.node].addresses)
    return endpoint


def read(*texts: str | bytes, stance: Stance = DEFAULT_STANCE) -> Snapshot:
    """The snapshot of correct documents; the first that is not raises `PolicyError`."""
    reading = Reading()
    for text in texts:
        reading.text(text)
    reading.raise_first()
    return assemble(reading, stance)
