"""Compiles a snapshot to a program, and changes as little as possible when it changes.

Owns: the order of blocks, what is cached between compilations, and the list
of policies that are not enforced as written.
Never: edits an array of a program it has handed out.
Invariant: `update(snapshot)` and `Compiler().compile(snapshot)` give programs
that decide alike, whatever path was taken.

What is reused: the rows of a policy as long as policy, port names and Services
it asked for stay the same. When nothing but the labels of few endpoints changed, only their sets,
classes and groups are computed anew (`relabel`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np

from engine.desired.policy.assembly import Assembly, build
from engine.desired.policy.blocks import Layout, lay_out
from engine.desired.policy.lower import Facts, Rows, facts_of, lower_policy
from engine.desired.policy.model import Direction, Endpoint, Policy, Snapshot
from engine.desired.policy.order import title
from engine.desired.policy.population import Population
from engine.desired.policy.program import Program
from engine.desired.policy.relabel import relabel
from engine.desired.policy.sets import SetTable

SPARE = 4096  # sets and classes that may stand unused
MAX_RELABELLED = 64  # endpoints changed at once; beyond, a compilation is cheaper


@dataclass(frozen=True, slots=True)
class Refused:
    """A policy that denies, or is ignored in part, instead of doing what it says."""

    policy: str
    reason: str
    scope: str


@dataclass(slots=True)
class _Lowered:
    policy: Policy
    rows: Rows
    asked: dict[tuple[str, ...], object]

    def holds(self, facts: Facts) -> bool:
        """Whether what was asked still has the same answers."""
        return all(facts.answer(question) == answer for question, answer in self.asked.items())


class Compiler:
    """Holds what one node, or one caller of the library, compiled last."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(secrets.randbits(128))
        self._sets = SetTable()
        self._lowered: dict[tuple[str, Direction], _Lowered] = {}
        self.assembly: Assembly | None = None  # what was compiled last, for those who look inside
        self.generation = 0

    @property
    def refused(self) -> list[Refused]:
        """What `status` must show."""
        snapshot = self.assembly.population.snapshot if self.assembly else Snapshot()
        return [
            Refused(title(policy), policy.refusal.reason, policy.refusal.scope)
            for policy in snapshot.policies
            if policy.refusal
        ]

    def compile(self, snapshot: Snapshot) -> Program:
        """The program of a snapshot; unchanged policies keep their rows."""
        self.generation += 1
        population = Population(snapshot)
        if self.assembly is not None and len(self._sets.definitions) > SPARE + 4 * int(self.assembly.used.sum()):
            self._sets, self._lowered = SetTable(), {}  # most sets are of policies long gone
        layout = self._lay_out(snapshot)
        self.assembly = build(population, layout, self._sets, self._random, self.generation)
        return self.assembly.program

    def update(self, snapshot: Snapshot) -> Program:
        """Like `compile`, by the shortest way from what was compiled last."""
        before = self.assembly
        changed = None if before is None else _relabelled(before.population.snapshot, snapshot)
        if before is None or changed is None:
            return self.compile(snapshot)
        for endpoint in changed:
            self.relabel(endpoint)
        return self._current().program

    def relabel(self, endpoint: Endpoint) -> Program:
        """One endpoint's labels changed and nothing else did."""
        self.generation += 1
        self.assembly = relabel(self._current(), endpoint, self.generation)
        if len(self.assembly.program.class_family) > SPARE + 2 * self.assembly.classes:
            return self.compile(self.assembly.population.snapshot)  # most classes stand empty
        return self.assembly.program

    def _current(self) -> Assembly:
        if self.assembly is None:
            raise ValueError("nothing was compiled yet")
        return self.assembly

    def _lay_out(self, snapshot: Snapshot) -> Layout:
        facts = facts_of(snapshot)
        kept: dict[tuple[str, Direction], _Lowered] = {}
        for policy in snapshot.policies:
            if policy.staged or (policy.refusal and policy.refusal.scope == "all"):
                continue
            for direction in policy.types:
                key = (f"{type(policy).__name__} {title(policy)}", direction)
                kept[key] = self._lower(key, policy, facts)
        self._lowered = kept
        rows = {(id(lowered.policy), key[1]): lowered.rows for key, lowered in kept.items()}
        return lay_out(snapshot, rows, self._sets, facts)

    def _lower(self, key: tuple[str, Direction], policy: Policy, facts: Facts) -> _Lowered:
        found = self._lowered.get(key)
        if found is not None and found.policy == policy and found.holds(facts):
            return _Lowered(policy, found.rows, found.asked)
        facts.asked = {}
        return _Lowered(policy, lower_policy(policy, key[1], self._sets, facts), facts.asked)


def _relabelled(before: Snapshot, after: Snapshot) -> list[Endpoint] | None:
    """The endpoints that differ by their labels, None when anything else differs too."""
    if any(
        getattr(before, name) is not getattr(after, name) and getattr(before, name) != getattr(after, name)
        for name in Snapshot.__slots__
        if name != "endpoints"
    ):
        return None
    if before.endpoints.keys() != after.endpoints.keys():
        return None
    changed = [e for key, e in after.endpoints.items() if e is not before.endpoints[key] and e != before.endpoints[key]]
    if len(changed) > MAX_RELABELLED:
        return None
    same = all(replace(before.endpoints[e.key], labels=e.labels) == e for e in changed)
    return changed if same else None
