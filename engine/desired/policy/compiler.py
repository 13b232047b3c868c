"""Compiles a snapshot to a program, and changes as little as possible when it changes.

Owns: the order of blocks, what is cached between compilations, and the list
of policies that are not enforced as written.
Never: edits an array of a program it has handed out.
Invariant: `update(snapshot)` and `Compiler().compile(snapshot)` give programs
that decide alike, whatever path was taken, and whatever went wrong on the way before.

What is reused: the rows of a policy as long as policy, port names and Services
it asked for stay the same. When nothing but few endpoints changed, only their sets, classes and groups
are computed anew: labels by `relabel`, those that came and went by `arrival`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from engine.desired.policy.arrival import arrive, leave
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
MAX_CHANGED = 64  # endpoints changed at once; beyond, a compilation is cheaper


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
        change = None if before is None else _difference(before.population.snapshot, snapshot)
        with self._whole_or_forgotten():
            if change is None or not self._move(change):
                return self.compile(snapshot)
            for endpoint in change.relabelled:
                self.relabel(endpoint)
            return self._current().program

    @contextmanager
    def _whole_or_forgotten(self) -> Iterator[None]:
        """An assembly that was moved by half is no ground for the next program."""
        try:
            yield
        except BaseException:
            self.assembly = None
            raise

    def _move(self, change: _Difference) -> bool:
        """Let endpoints go and come. False, with some of it done, when the whole must be compiled."""
        assembly = self._current()
        for key in change.gone:
            self.generation += 1
            if not leave(assembly, key, self.generation):
                return False
        for endpoint in change.new:
            self.generation += 1
            if not arrive(assembly, endpoint, self.generation):
                return False
        return not (change.gone or change.new) or not self._is_worn(assembly)

    def _is_worn(self, assembly: Assembly) -> bool:
        """Whether most classes, or most numbers of endpoints, stand empty."""
        population = assembly.population
        return len(assembly.program.class_family) > SPARE + 2 * assembly.classes or len(
            population.endpoints
        ) > SPARE + 2 * len(population.number)

    def relabel(self, endpoint: Endpoint) -> Program:
        """One endpoint's labels changed and nothing else did."""
        self.generation += 1
        with self._whole_or_forgotten():
            self.assembly = relabel(self._current(), endpoint, self.generation)
            if self._is_worn(self.assembly):
                return self.compile(self.assembly.population.snapshot)
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


@dataclass(frozen=True, slots=True)
class _Difference:
    """What happened to endpoints, where nothing else did."""

    gone: list[str]
    new: list[Endpoint]
    relabelled: list[Endpoint]


def _difference(before: Snapshot, after: Snapshot) -> _Difference | None:
    """None when more than a few endpoints differ, or anything else does."""
    if any(
        getattr(before, name) is not getattr(after, name) and getattr(before, name) != getattr(after, name)
        for name in Snapshot.__slots__
        if name != "endpoints"
    ):
        return None
    old, new = before.endpoints, after.endpoints
    changed = [e for key, e in new.items() if key in old and e is not old[key] and e != old[key]]
    relabelled = [e for e in changed if replace(old[e.key], labels=e.labels) == e]
    others = [e for e in changed if replace(old[e.key], labels=e.labels) != e]
    gone = [*(key for key in old if key not in new), *(e.key for e in others)]
    come = [*(e for key, e in new.items() if key not in old), *others]
    return _Difference(gone, come, relabelled) if len(gone) + len(come) + len(relabelled) <= MAX_CHANGED else None
