"""The blocks of a program: each policy's rows, tier ends, profiles and defaults, in order.

Owns: the order of judgement, and which blocks judge an endpoint.
Never: knows addresses or classes.
Invariant: a group's blocks ascend by tier; a tier's end stands in a group
exactly when an enforced policy of that tier does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.desired.policy.lower import Facts, Rows, lower_failsafes, lower_final, lower_rules, lower_services
from engine.desired.policy.model import DIRECTIONS, Action, Direction, Policy, Profile, Snapshot
from engine.desired.policy.order import policy_key, rules_of, tier_of, tiers
from engine.desired.policy.program import Source
from engine.desired.policy.sets import SetTable


@dataclass(slots=True)
class Layout:
    """All blocks in the order of judgement, and where to find those a group needs."""

    rows: list[Rows] = field(default_factory=list)
    tier: list[int] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    rule: list[int] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)  # enforced ones, in order
    policy_tier: list[int] = field(default_factory=list)
    blocks: dict[tuple[int, Direction, bool], int] = field(default_factory=dict)  # policy number, for hosts
    ends: dict[tuple[int, Direction], int] = field(default_factory=dict)  # tier
    profiles: dict[tuple[str, Direction], int] = field(default_factory=dict)
    failsafes: dict[Direction, int] = field(default_factory=dict)
    services: int | None = None
    defaults: dict[tuple[bool, Direction], int] = field(default_factory=dict)  # has profiles of its own
    rules: int = 0

    def add(self, rows: Rows, tier: int, source: Source, rules: int = 0) -> int:
        """A new block with `rules` rules besides its own number 0."""
        self.rows.append(rows)
        self.tier.append(tier)
        self.sources.append(source)
        self.rule.append(self.rules)
        self.rules += rules + 1
        return len(self.rows) - 1

    def group_blocks(
        self, policies: Sequence[int], direction: Direction, *, host: bool, profiles: tuple[str, ...] | None
    ) -> tuple[int, ...]:
        """The blocks that judge an endpoint to which these policies apply."""
        found = [self.failsafes[direction]] if host else []
        if self.services is not None and direction == "egress" and not host:
            found.append(self.services)
        tier = -1
        for number in policies:
            block = self.blocks.get((number, direction, host))
            if block is None:
                continue
            if tier not in (-1, self.policy_tier[number]):
                self._close(found, tier, direction)
            tier = self.policy_tier[number]
            found.append(block)
        self._close(found, tier, direction)
        found.extend(self.profiles[n, direction] for n in profiles or () if (n, direction) in self.profiles)
        found.append(self.defaults[profiles is not None, direction])
        return tuple(found)

    def _close(self, found: list[int], tier: int, direction: Direction) -> None:
        if (tier, direction) in self.ends:
            found.append(self.ends[tier, direction])


def lay_out(snapshot: Snapshot, lowered: Mapping[tuple[int, Direction], Rows], sets: SetTable, facts: Facts) -> Layout:
    """`lowered`: the rows of each policy, by the identity of the object."""
    layout = Layout()
    for direction in DIRECTIONS:
        failsafes = snapshot.stance.failsafe_in if direction == "ingress" else snapshot.stance.failsafe_out
        rows = lower_failsafes(failsafes, direction, sets)
        layout.failsafes[direction] = layout.add(rows, 0, Source("failsafe", direction=direction))
    if snapshot.stance.services:
        hosts = [address for end in snapshot.endpoints.values() if end.is_host for address in end.addresses]
        rows = lower_services(snapshot.stance.services, hosts, sets)
        layout.services = layout.add(rows, 0, Source("service", direction="egress"))
    by_tier: dict[str, list[Policy]] = {}
    for policy in snapshot.policies:
        if not policy.staged:
            by_tier.setdefault(tier_of(policy), []).append(policy)
    ordered = tiers(snapshot)
    for number, tier in enumerate(ordered, 1):
        for policy in sorted(by_tier.get(tier.name, ()), key=policy_key):
            _lay_policy(layout, policy, number, tier.name, lowered)
        if tier.default_action == Action.DENY:
            for direction in DIRECTIONS:
                source = Source("end-of-tier", tier.name, direction=direction)
                layout.ends[number, direction] = layout.add(lower_final(Action.DENY), number, source)
    last = len(ordered) + 1
    for profile in snapshot.profiles.values():
        _lay_profile(layout, profile, last, sets, facts)
    for direction in DIRECTIONS:
        for own, action in ((False, snapshot.stance.default), (True, Action.DENY)):
            layout.defaults[own, direction] = layout.add(
                lower_final(action), last + 1, Source("default", direction=direction)
            )
    return layout


def _lay_policy(
    layout: Layout, policy: Policy, tier: int, tier_name: str, lowered: Mapping[tuple[int, Direction], Rows]
) -> None:
    number = len(layout.policies)
    layout.policies.append(policy)
    layout.policy_tier.append(tier)
    for direction in DIRECTIONS:
        if direction not in policy.types:
            continue
        refused: int | None = None
        if policy.refusal:
            source = Source("refused", tier_name, policy, direction=direction)
            refused = layout.add(lower_final(Action.DENY), tier, source)
            layout.blocks[number, direction, True] = refused
            if policy.refusal.scope == "all":
                layout.blocks[number, direction, False] = refused
                continue
        rules = rules_of(policy, direction)
        source = Source("rule", tier_name, policy, direction=direction)
        block = layout.add(lowered[id(policy), direction], tier, source, len(rules))
        layout.blocks[number, direction, False] = block
        layout.blocks.setdefault((number, direction, True), block)


def _lay_profile(layout: Layout, profile: Profile, tier: int, sets: SetTable, facts: Facts) -> None:
    for direction in DIRECTIONS:
        rules = profile.ingress if direction == "ingress" else profile.egress
        source = Source("profile", profile=profile, direction=direction)
        layout.profiles[profile.name, direction] = layout.add(lower_rules(rules, sets, facts), tier, source, len(rules))
