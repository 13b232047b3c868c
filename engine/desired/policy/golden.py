"""The slow, obvious judge: walks the uncompiled objects for one connection at a time.

Owns: the reference meaning of every field; the compiled program must agree.
Never: indexes, caches or rewrites anything; clarity is its only purpose.
Invariant: reads the model exactly as the readers left it.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.desired.policy.model import (
    ICMP_PROTOCOLS,
    Action,
    Block,
    CalicoPolicy,
    CalicoPort,
    CalicoRule,
    ClusterPolicy,
    Connection,
    Decision,
    Direction,
    Endpoint,
    Entity,
    KubernetesPolicy,
    NodePeer,
    Peer,
    PeerRule,
    PodPeer,
    Policy,
    PortMatch,
    Snapshot,
    UnknownPeer,
    Verdict,
)
from engine.desired.policy.order import (
    ACCOUNT_LABEL,
    ACCOUNT_PREFIX,
    NAME_LABEL,
    NAMESPACE_LABEL,
    endpoint_labels,
    namespace_labels,
    policy_key,
    rules_of,
    set_labels,
    tier_of,
    tiers,
    title,
)
from engine.desired.policy.selector import All, Global, Not, Selector, prefixed, rewrite
from engine.model import Address, Prefix

Rule = PeerRule | CalicoRule


def judge(snapshot: Snapshot, connection: Connection) -> Verdict:
    """Both directions of one connection."""
    return Verdict(
        egress=judge_direction(snapshot, connection, "egress"),
        ingress=judge_direction(snapshot, connection, "ingress"),
    )


def endpoint_at(snapshot: Snapshot, address: Address) -> Endpoint | None:
    """The endpoint that owns an address; a pod in its node's network owns none of its own."""
    for key in sorted(snapshot.endpoints):
        endpoint = snapshot.endpoints[key]
        if address in endpoint.addresses and not endpoint.host_network:
            return endpoint
    return None


def judge_direction(snapshot: Snapshot, connection: Connection, direction: Direction) -> Decision:
    local, remote = connection.destination, connection.source
    if direction == "egress":
        local, remote = remote, local
    endpoint = endpoint_at(snapshot, local)
    if endpoint is None:
        return Decision(True, direction, "outside")
    if endpoint_at(snapshot, remote) is endpoint:
        return Decision(True, direction, "self")
    if endpoint.is_host:
        if _is_failsafe(snapshot, connection, direction, remote):
            return Decision(True, direction, "failsafe")
    elif direction == "ingress" and _is_own_node(snapshot, endpoint, remote):
        return Decision(True, direction, "own-node")
    elif direction == "egress" and _is_service(snapshot, remote):
        return Decision(True, direction, "service")
    return _walk_tiers(snapshot, connection, direction, endpoint)


def _is_service(snapshot: Snapshot, remote: Address) -> bool:
    """Whether the host changes the address. A pod or node that has it is meant itself."""
    if endpoint_at(snapshot, remote) or any(remote in node.addresses for node in snapshot.nodes.values()):
        return False
    return any(remote in net for net in snapshot.stance.services)


def _walk_tiers(snapshot: Snapshot, connection: Connection, direction: Direction, endpoint: Endpoint) -> Decision:
    for tier in tiers(snapshot):
        policies = sorted((p for p in snapshot.policies if tier_of(p) == tier.name), key=policy_key)
        applied = [p for p in policies if not p.staged and _applies(snapshot, p, endpoint, direction)]
        left_tier = False
        for policy in applied:
            found = _walk_policy(snapshot, connection, direction, endpoint, policy)
            if found is None:
                continue
            action, why, index, name = found
            if action == Action.PASS:
                left_tier = True
                break
            return Decision(action == Action.ALLOW, direction, why, tier.name, title(policy), index, name)
        if applied and not left_tier and tier.default_action == Action.DENY:
            return Decision(False, direction, "end-of-tier", tier.name)
    return _default(snapshot, connection, direction, endpoint)


def _default(snapshot: Snapshot, connection: Connection, direction: Direction, endpoint: Endpoint) -> Decision:
    if endpoint.profiles is None:
        return Decision(snapshot.stance.default == Action.ALLOW, direction, "default")
    for name in endpoint.profiles:
        profile = snapshot.profiles.get(name)
        rules = () if profile is None else profile.ingress if direction == "ingress" else profile.egress
        for index, rule in enumerate(rules):
            if rule.action in (Action.ALLOW, Action.DENY) and _calico_matches(snapshot, "", rule, connection):
                return Decision(rule.action == Action.ALLOW, direction, "profile", "", f"Profile {name}", index)
    return Decision(False, direction, "default")


def _walk_policy(
    snapshot: Snapshot, connection: Connection, direction: Direction, endpoint: Endpoint, policy: Policy
) -> tuple[Action, str, int, str] | None:
    if policy.refusal and (policy.refusal.scope == "all" or endpoint.is_host):
        return Action.DENY, "refused", -1, policy.refusal.reason
    outward = isinstance(policy, KubernetesPolicy) and direction == "egress"
    if outward and _is_own_node(snapshot, endpoint, connection.destination):
        return Action.ALLOW, "own-node", -1, ""
    for index, rule in enumerate(rules_of(policy, direction)):
        action = _rule_action(snapshot, policy, rule, connection, direction)
        if action is not None and action != Action.LOG:
            return action, "rule", index, rule.name if isinstance(rule, PeerRule) else ""
    return None


def _is_own_node(snapshot: Snapshot, endpoint: Endpoint, address: Address) -> bool:
    node = snapshot.nodes.get(endpoint.node)
    return node is not None and address in node.addresses


def _is_failsafe(snapshot: Snapshot, connection: Connection, direction: Direction, remote: Address) -> bool:
    wanted = (connection.protocol, connection.destination_port)
    failsafes = snapshot.stance.failsafe_in if direction == "ingress" else snapshot.stance.failsafe_out
    return any((f.protocol, f.port) == wanted and (f.net is None or remote in f.net) for f in failsafes)


# -- subjects ----------------------------------------------------------------
def _applies(snapshot: Snapshot, policy: Policy, endpoint: Endpoint, direction: Direction) -> bool:
    if direction not in policy.types or endpoint.host_network:
        return False
    match policy:
        case KubernetesPolicy():
            return endpoint.namespace == policy.namespace and policy.subject.matches(endpoint.labels)
        case ClusterPolicy():
            return _is_pod_peer(snapshot, policy.subject, endpoint, "")
        case CalicoPolicy():
            return _applies_calico(snapshot, policy, endpoint)


def _applies_calico(snapshot: Snapshot, policy: CalicoPolicy, endpoint: Endpoint) -> bool:
    if policy.hosts_only and not endpoint.is_host:
        return False
    if policy.namespace and endpoint.namespace != policy.namespace:
        return False
    if policy.namespace_selector and not _in_namespaces(snapshot, policy.namespace_selector, endpoint.namespace):
        return False
    labels = endpoint_labels(snapshot, endpoint)
    if policy.account_selector and not prefixed(policy.account_selector, ACCOUNT_PREFIX).matches(labels):
        return False
    return policy.selector.matches(labels)


def _in_namespaces(snapshot: Snapshot, selector: Selector, namespace: str) -> bool:
    """`all()` is every namespace, `global()` what is in none."""
    everywhere, nowhere = (All(), Not(All())) if namespace else (Not(All()), All())

    def leaf(part: Selector) -> Selector:
        match part:
            case All():
                return everywhere
            case Global():
                return nowhere
        return part

    labels = namespace_labels(snapshot, namespace) | {NAME_LABEL: namespace} if namespace else {}
    return rewrite(selector, leaf).matches(labels)


# -- the two Kubernetes languages --------------------------------------------
def _rule_action(
    snapshot: Snapshot, policy: Policy, rule: Rule, connection: Connection, direction: Direction
) -> Action | None:
    if isinstance(rule, CalicoRule):
        return rule.action if _calico_matches(snapshot, policy.namespace, rule, connection) else None
    if rule.unknown or any(isinstance(peer, UnknownPeer) for peer in rule.peers or ()):
        return None if rule.action == Action.ALLOW else Action.DENY
    remote = connection.source if direction == "ingress" else connection.destination
    if rule.peers is not None and not any(_is_peer(snapshot, policy, peer, remote) for peer in rule.peers):
        return None
    if rule.ports is not None and not any(_is_port(snapshot, port, connection) for port in rule.ports):
        return None
    return rule.action


def _is_peer(snapshot: Snapshot, policy: Policy, peer: Peer, remote: Address) -> bool:
    match peer:
        case Block():
            return remote in peer.net and not any(remote in net for net in peer.excepted)
        case NodePeer():
            return any(remote in n.addresses and peer.nodes.matches(n.labels) for n in snapshot.nodes.values())
        case PodPeer():
            endpoint = endpoint_at(snapshot, remote)
            return endpoint is not None and _is_pod_peer(snapshot, peer, endpoint, policy.namespace)
    return False


def _is_pod_peer(snapshot: Snapshot, peer: PodPeer, endpoint: Endpoint, own: str) -> bool:
    if endpoint.is_host:
        return False
    if peer.namespaces is None:
        if endpoint.namespace != own:
            return False
    elif not peer.namespaces.matches(namespace_labels(snapshot, endpoint.namespace)):
        return False
    return peer.pods.matches(endpoint.labels)


def _is_port(snapshot: Snapshot, port: PortMatch, connection: Connection) -> bool:
    if port.protocol is not None and port.protocol != connection.protocol:
        return False
    if port.name:
        return _has_named(snapshot, connection.destination, port.name, connection.protocol, connection.destination_port)
    return port.low <= connection.destination_port <= port.high


def _has_named(snapshot: Snapshot, address: Address, name: str, protocol: int, port: int) -> bool:
    endpoint = endpoint_at(snapshot, address)
    return endpoint is not None and any((p.name, p.protocol, p.port) == (name, protocol, port) for p in endpoint.ports)


# -- Calico ------------------------------------------------------------------
def _calico_matches(snapshot: Snapshot, namespace: str, rule: CalicoRule, connection: Connection) -> bool:
    family = connection.source.version
    if rule.ip_version not in (None, family):
        return False
    if rule.protocol not in (None, connection.protocol) or rule.not_protocol == connection.protocol:
        return False
    if connection.protocol in ICMP_PROTOCOLS:
        kind = divmod(connection.destination_port, 256)
        if rule.icmp and not _is_icmp(rule.icmp.type, rule.icmp.code, kind):
            return False
        if rule.not_icmp and _is_icmp(rule.not_icmp.type, rule.not_icmp.code, kind):
            return False
    sides = (
        (rule.source, connection.source, connection.source_port, False),
        (rule.destination, connection.destination, connection.destination_port, True),
    )
    return all(
        _is_entity(snapshot, namespace, entity, address, port, connection.protocol, with_ports=with_ports)
        for entity, address, port, with_ports in sides
    )


def _is_icmp(wanted_type: int | None, wanted_code: int | None, kind: tuple[int, int]) -> bool:
    return wanted_type in (None, kind[0]) and wanted_code in (None, kind[1])


def _is_entity(
    snapshot: Snapshot, namespace: str, entity: Entity, address: Address, port: int, protocol: int, *, with_ports: bool
) -> bool:
    """`with_ports`: a Service on this side means its ports too."""
    if not _in_nets(entity.nets, address, wanted=True) or not _in_nets(entity.not_nets, address, wanted=False):
        return False
    if _is_selective(entity) and not _is_selected(snapshot, namespace, entity, address):
        return False
    if entity.not_selector is not None and _holds(snapshot, entity.not_selector, address):
        return False
    if entity.ports and not any(_is_calico_port(snapshot, p, address, protocol, port) for p in entity.ports):
        return False
    if any(_is_calico_port(snapshot, p, address, protocol, port) for p in entity.not_ports):
        return False
    if entity.service is None:
        return True
    service = snapshot.services.get((entity.service[0] or namespace, entity.service[1]))
    return service is not None and any(
        backend.address == address and (not with_ports or (backend.protocol, backend.port) == (protocol, port))
        for backend in service.backends
    )


def _in_nets(nets: tuple[Prefix, ...], address: Address, *, wanted: bool) -> bool:
    """A list that holds only the other family makes the rule not exist in this one."""
    if not nets:
        return True
    same = [net for net in nets if net.version == address.version]
    return bool(same) and any(address in net for net in same) == wanted


def _is_selective(entity: Entity) -> bool:
    written = (entity.selector, entity.not_selector, entity.namespace_selector, entity.account_selector)
    return any(selector is not None for selector in written) or bool(entity.account_names)


def _is_selected(snapshot: Snapshot, namespace: str, entity: Entity, address: Address) -> bool:
    """The positive selectors, and the scope that any selector at all brings."""
    if not _has_positive(entity) and not namespace:
        return True  # a lone notSelector of a global policy: every address
    return any(
        _in_scope(snapshot, namespace, entity, where)
        and (entity.selector is None or entity.selector.matches(labels))
        and (entity.account_selector is None or prefixed(entity.account_selector, ACCOUNT_PREFIX).matches(labels))
        and (not entity.account_names or labels.get(ACCOUNT_LABEL) in entity.account_names)
        for labels, where in _known_at(snapshot, address)
    )


def _has_positive(entity: Entity) -> bool:
    written = (entity.selector, entity.namespace_selector, entity.account_selector)
    return any(selector is not None for selector in written) or bool(entity.account_names)


def _in_scope(snapshot: Snapshot, namespace: str, entity: Entity, where: str) -> bool:
    if entity.namespace_selector is not None:
        return _in_namespaces(snapshot, entity.namespace_selector, where)
    return not namespace or where == namespace


def _holds(snapshot: Snapshot, selector: Selector, address: Address) -> bool:
    return any(selector.matches(labels) for labels, _ in _known_at(snapshot, address))


def _known_at(snapshot: Snapshot, address: Address) -> list[tuple[Mapping[str, str], str]]:
    """Labels and namespace of every endpoint and network set that holds the address."""
    found: list[tuple[Mapping[str, str], str]] = []
    endpoint = endpoint_at(snapshot, address)
    if endpoint is not None:
        labels = endpoint_labels(snapshot, endpoint)
        found.append((labels, labels.get(NAMESPACE_LABEL, "")))
    found.extend(
        (set_labels(snapshot, network_set), network_set.namespace)
        for network_set in snapshot.sets
        if any(address in net for net in network_set.nets)
    )
    return found


def _is_calico_port(snapshot: Snapshot, wanted: CalicoPort, address: Address, protocol: int, port: int) -> bool:
    if wanted.name:
        return _has_named(snapshot, address, wanted.name, protocol, port)
    return wanted.low <= port <= wanted.high
