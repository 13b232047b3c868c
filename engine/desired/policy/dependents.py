"""What may change when one label of an endpoint does, or an endpoint comes.

Owns: the way from label and value to sets, policies and derived sets.
Never: decides whether they do change.
Invariant: complete: a set or policy not listed under a changed label keeps
its answer; one under no label of an endpoint, and not among the unlabelled, does not have it. Made with each compilation, so that the first change after it is as
quick as the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.desired.policy.classes import Indexes
from engine.desired.policy.model import ClusterPolicy, KubernetesPolicy, Policy
from engine.desired.policy.population import calico_subject
from engine.desired.policy.selector import Leaf, Selector, leaves
from engine.desired.policy.sets import Derived, SetTable


@dataclass(frozen=True, slots=True)
class Dependents:
    by_label: Mapping[Leaf, Sequence[int]]  # sets, also such as no rule names any more
    bases: frozenset[int]  # those in use
    policies: Mapping[Leaf, Sequence[int]]
    subjects: Sequence[Selector]  # of each policy, over derived labels or a pod's own
    part: Indexes  # base sets, beside
    unlabelled_sets: frozenset[int]  # what an endpoint may be in, or be judged by, whatever its labels
    unlabelled_policies: frozenset[int]
    derived: Indexes  # the derived sets in use that they are a part of

    @classmethod
    def of(cls, sets: SetTable, bases: Iterable[int], used: Iterable[int], policies: Sequence[Policy]) -> Dependents:
        by_policy: dict[Leaf, list[int]] = {}
        subjects = list(map(_subject, policies))
        for number, subject in enumerate(subjects):
            for leaf in set(leaves(subject)):
                by_policy.setdefault(leaf, []).append(number)
        parts: list[int] = []
        owners: list[int] = []
        for number in used:
            definition = sets.definitions[number]
            if isinstance(definition, Derived):
                both = (*definition.inside, *definition.outside)
                parts += both
                owners += [number] * len(both)
        in_use = frozenset(bases)
        return cls(
            sets.by_label, in_use, by_policy, subjects, np.array(parts, np.int64),
            in_use.intersection(sets.unlabelled),
            frozenset(number for number, subject in enumerate(subjects) if subject.matches({})),
            np.array(owners, np.int64),
        )  # fmt: skip

    def sets_of(self, touched: Iterable[Leaf]) -> set[int]:
        return {number for leaf in touched for number in self.by_label.get(leaf, ()) if number in self.bases}

    def policies_of(self, touched: Iterable[Leaf]) -> set[int]:
        return {number for leaf in touched for number in self.policies.get(leaf, ())}

    def derived_from(self, bases: Sequence[int]) -> set[int]:
        found: set[int] = set(self.derived[np.isin(self.part, bases)].tolist())
        return found


def _subject(policy: Policy) -> Selector:
    match policy:
        case KubernetesPolicy():
            return policy.subject
        case ClusterPolicy():
            return policy.subject.pods
    return calico_subject(policy)
