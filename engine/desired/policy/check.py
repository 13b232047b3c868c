"""What a person should know of their policies before a node enforces them.

Owns: the findings: mistakes, refusals, subjects nobody matches, rules that
cannot decide anything, ambiguous order, names that lead nowhere.
Never: changes or rejects anything itself.
Invariant: "never reached" is proven, by one earlier rule that covers the
whole of it for everyone concerned; several that do so together go unnoticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.assembly import Assembly
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.document import PolicyError
from engine.desired.policy.lower import (
    ACTION,
    DESTINATION,
    FAMILY,
    HIGH,
    LOW,
    RULE,
    SOURCE,
    SOURCE_HIGH,
    SOURCE_LOW,
    Facts,
    Rows,
    facts_of,
)
from engine.desired.policy.model import (
    DIRECTIONS,
    Action,
    CalicoPolicy,
    CalicoRule,
    ClusterPolicy,
    Direction,
    PeerRule,
    Policy,
    Snapshot,
    UnknownPeer,
)
from engine.desired.policy.order import policy_order, rules_of, tier_of, tiers, title
from engine.desired.policy.sets import OWN_NODE

Level = Literal["error", "warning"]
MAX_ROWS = 2048  # of one policy; comparing pairs of more takes too long


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    code: str
    where: str
    message: str
    remedy: str = ""


def check(snapshot: Snapshot, problems: list[PolicyError]) -> list[Finding]:
    """Everything worth saying, mistakes first."""
    findings = [Finding("error", "invalid", error.where, error.what, error.remedy) for error in problems]
    compiler = Compiler()
    compiler.compile(snapshot)
    assembly = compiler.assembly
    if assembly is None:
        raise AssertionError("compiled without an assembly")
    findings.extend(_refusals(snapshot))
    findings.extend(_dangling(snapshot))
    findings.extend(_ambiguous(snapshot, assembly))
    findings.extend(_subjects(snapshot, assembly))
    findings.extend(_rules(assembly, peopled=bool(snapshot.endpoints)))
    return findings


# -- what can be told from the documents --------------------------------------
def _refusals(snapshot: Snapshot) -> Iterator[Finding]:
    for policy in snapshot.policies:
        if policy.refusal is not None:
            whom = "all it selects" if policy.refusal.scope == "all" else "host endpoints it selects"
            message = f"not enforced as written, denies {whom}: {policy.refusal.reason}"
            yield Finding("warning", "refused", title(policy), message)
        for direction, index, rule in _each_rule(policy):
            if isinstance(rule, PeerRule):
                strange = rule.unknown or next(
                    (p.field_name for p in rule.peers or () if isinstance(p, UnknownPeer)), None
                )
                if strange is not None:
                    effect = "matches nothing" if rule.action == Action.ALLOW else "denies everything"
                    message = f"{strange or 'a peer without a field'} is not supported: the rule {effect}"
                    yield Finding("warning", "unsupported", f"{title(policy)} {direction}[{index}]", message)


def _each_rule(policy: Policy) -> Iterator[tuple[Direction, int, PeerRule | CalicoRule]]:
    for direction in DIRECTIONS:
        for index, rule in enumerate(rules_of(policy, direction)):
            yield direction, index, rule


def _dangling(snapshot: Snapshot) -> Iterator[Finding]:
    """Names that nothing answers to."""
    declared = {tier.name for tier in tiers(Snapshot(tiers=snapshot.tiers))}
    facts = facts_of(snapshot)
    for policy in snapshot.policies:
        if tier_of(policy) not in declared:
            message = f"tier {tier_of(policy)} is not declared: it comes last and denies"
            yield Finding("warning", "no-tier", title(policy), message, "declare the Tier")
        for direction, index, rule in _each_rule(policy):
            for name in _missing_names(policy, rule, facts) if snapshot.endpoints else ():
                yield Finding("warning", "no-such-name", f"{title(policy)} {direction}[{index}]", f"nobody has {name}")
    for endpoint in snapshot.endpoints.values():
        if endpoint.is_host and not endpoint.addresses:
            message = "no addresses: it matches nothing and nobody is judged by it"
            yield Finding(
                "warning", "no-address", f"HostEndpoint {endpoint.name}", message, "add expectedIPs or the Node"
            )
        for name in endpoint.profiles or ():
            if name not in snapshot.profiles:
                yield Finding(
                    "warning", "no-profile", endpoint.key, f"profile {name} is not declared: it allows nothing"
                )
    yield from _shared_addresses(snapshot)


def _missing_names(policy: Policy, rule: PeerRule | CalicoRule, facts: Facts) -> Iterator[str]:
    if isinstance(rule, PeerRule):
        names = {port.name for port in rule.ports or () if port.name}
    else:
        sides = (rule.source, rule.destination)
        names = {port.name for side in sides for port in (*side.ports, *side.not_ports) if port.name}
        for side in sides:
            if side.service and not facts.service(side.service[0] or policy.namespace, side.service[1]).backends:
                yield f"the Service {side.service[0] or policy.namespace}/{side.service[1]}"
    for name in sorted(names):
        if not facts.named(name):
            yield f"a port named {name}"


def _shared_addresses(snapshot: Snapshot) -> Iterator[Finding]:
    owner: dict[object, str] = {}
    for key in sorted(snapshot.endpoints):
        endpoint = snapshot.endpoints[key]
        for address in () if endpoint.host_network else endpoint.addresses:
            if owner.setdefault(address, key) != key:
                yield Finding(
                    "warning", "shared-address", key, f"{address} belongs to {owner[address]} too, which keeps it"
                )


# -- what takes the compiled program -----------------------------------------
def _ambiguous(snapshot: Snapshot, assembly: Assembly) -> Iterator[Finding]:
    """Policies of one order in one tier that can meet on an endpoint."""
    alike: dict[tuple[str, float], list[int]] = defaultdict(list)
    for number, policy in enumerate(assembly.layout.policies):
        if isinstance(policy, ClusterPolicy | CalicoPolicy):
            alike[tier_of(policy), policy_order(policy)].append(number)
    for (tier, order), numbers in sorted(alike.items()):
        for at, first in enumerate(numbers):
            for second in numbers[at + 1 :]:
                one, other = assembly.layout.policies[first], assembly.layout.policies[second]
                meet = assembly.subjects[first] & assembly.subjects[second] or not snapshot.endpoints
                if one.types & other.types and meet:
                    message = f"same order {order:g} in tier {tier} as {title(one)}, which is judged first by its name"
                    yield Finding("warning", "equal-priority", title(other), message, "give them different orders")


def _subjects(snapshot: Snapshot, assembly: Assembly) -> Iterator[Finding]:
    for number, policy in enumerate(assembly.layout.policies):
        if snapshot.endpoints and not assembly.subjects[number]:
            yield Finding("warning", "selects-nothing", title(policy), "no endpoint is selected", "check its selectors")


def _rules(assembly: Assembly, *, peopled: bool) -> Iterator[Finding]:
    """`peopled`: whether anybody is known; else a rule that matches nobody says nothing."""
    covered: dict[Direction, list[tuple[int, int, str]]] = {direction: [] for direction in DIRECTIONS}
    for number, policy in enumerate(assembly.layout.policies):
        for direction in DIRECTIONS:
            block = assembly.layout.blocks.get((number, direction, False))
            if block is None or policy.refusal:
                continue
            tier, subject = assembly.layout.policy_tier[number], assembly.subjects[number]
            before = _shadow(covered[direction], subject, tier)
            where = f"{title(policy)} {direction}"
            if before:
                yield Finding("warning", "never-reached", where, f"{before} decides everything before it")
                continue
            rows = assembly.layout.rows[block]
            yield from _block_findings(assembly, policy, direction, rows, peopled=peopled)
            total = next((r for r in rows if _matches_all(r) and r[ACTION] != Action.LOG), None)
            if total is not None:
                final = int(total[ACTION]) != Action.PASS
                covered[direction].append((subject, 0 if final else tier, where))


def _shadow(covered: list[tuple[int, int, str]], subject: int, tier: int) -> str:
    """The first policy that leaves nothing to judge for all of `subject`; tier 0: in every later tier too."""
    if not subject:
        return ""
    return next((where for bits, only, where in covered if only in (0, tier) and not subject & ~bits), "")


def _matches_all(row: NDArray[np.uint32]) -> bool:
    everything: list[int] = [1, 1, 0, 0xFFFFFF, 0, 65_535, 3]
    return bool(row[:ACTION].tolist() == everything)


def _block_findings(
    assembly: Assembly, policy: Policy, direction: Direction, rows: Rows, *, peopled: bool
) -> Iterator[Finding]:
    if len(rows) > MAX_ROWS:
        return
    source, destination = _members(assembly, rows[:, SOURCE]), _members(assembly, rows[:, DESTINATION])
    possible = np.logical_and(source.any(axis=1), destination.any(axis=1))
    rules = rules_of(policy, direction)
    for index, rule in enumerate(rules, 1):
        where = f"{title(policy)} {direction}[{index - 1}]"
        own = np.flatnonzero(rows[:, RULE] == index)
        unreadable = isinstance(rule, PeerRule) and (
            rule.unknown or any(isinstance(p, UnknownPeer) for p in rule.peers or ())
        )
        if not possible[own].any():
            if peopled and not unreadable:
                yield Finding(
                    "warning", "matches-nothing", where, "no connection can match", "check its peers and ports"
                )
            continue
        earlier = np.flatnonzero((rows[:, RULE] < index) & (rows[:, RULE] > 0) & (rows[:, ACTION] != Action.LOG))
        covering = {_cover(rows, source, destination, row, earlier) for row in own[possible[own]]}
        if None not in covering:
            names = ", ".join(f"{direction}[{number - 1}]" for number in sorted(filter(None, covering)))
            yield Finding("warning", "never-reached", where, f"{names} decides first, whatever the connection")


def _cover(
    rows: Rows, source: NDArray[np.bool_], destination: NDArray[np.bool_], row: int, earlier: NDArray[np.int64]
) -> int | None:
    """The rule of the first earlier row that matches whatever `row` does."""
    this, others = rows[row], rows[earlier]
    fits = (others[:, LOW] <= this[LOW]) & (this[HIGH] <= others[:, HIGH])
    fits &= (others[:, SOURCE_LOW] <= this[SOURCE_LOW]) & (this[SOURCE_HIGH] <= others[:, SOURCE_HIGH])
    fits &= (others[:, FAMILY] & this[FAMILY]) == this[FAMILY]
    for number in earlier[fits]:
        if not (source[row] & ~source[number]).any() and not (destination[row] & ~destination[number]).any():
            return int(rows[number, RULE])
    return None


def _members(assembly: Assembly, references: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which classes are in each reference. Own-node sets count as some class of their own."""
    program = assembly.program
    sets, position = np.unique(references >> 1, return_inverse=True)
    count = len(program.class_family)
    if not len(sets):
        return np.zeros((0, count), bool)
    inside = np.zeros((len(sets), count), bool)
    owner = np.repeat(np.arange(count), program.class_offset[1:] - program.class_offset[:-1])
    at = np.minimum(np.searchsorted(sets, program.class_sets), len(sets) - 1)
    kept = sets[at] == program.class_sets
    inside[at[kept], owner[kept]] = True
    inside[sets == OWN_NODE] = True
    found: NDArray[np.bool_] = inside[position] ^ (references & 1).astype(bool)[:, None]
    return found
