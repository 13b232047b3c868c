"""What may change when one label of an endpoint does.

Owns: the index from label and value to sets, policies and derived sets.
Never: decides whether they do change.
Invariant: complete: a set or policy not listed under a changed label keeps
its answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.desired.policy.model import ClusterPolicy, KubernetesPolicy, Policy
from engine.desired.policy.population import calico_subject
from engine.desired.policy.selector import And, Has, In, Not, Or, Selector, Text
from engine.desired.policy.sets import Base, Derived, Known, PodsIn

Leaf = tuple[str, str | None]  # a label and the value that counts, or any


@dataclass(slots=True)
class Dependents:
    """What may change with a label, built once for each compilation."""

    sets: dict[Leaf, list[int]] = field(default_factory=dict)
    policies: dict[Leaf, list[int]] = field(default_factory=dict)
    derived: dict[int, list[int]] = field(default_factory=dict)  # base set -> derived sets in use

    @classmethod
    def of(
        cls,
        definitions: Sequence[Base | Derived],
        bases: Sequence[int],
        used: Sequence[int],
        policies: Sequence[Policy],
    ) -> Dependents:
        found = cls()
        for number in bases:
            definition = definitions[number]
            for part in definition.parts if isinstance(definition, Base) else ():
                if isinstance(part, PodsIn | Known):
                    selector = part.pods if isinstance(part, PodsIn) else part.selector
                    _note(found.sets, _leaves(selector), number)
        for number, policy in enumerate(policies):
            _note(found.policies, _leaves(_subject(policy)), number)
        for number in used:
            definition = definitions[number]
            if isinstance(definition, Derived):
                for base in (*definition.inside, *definition.outside):
                    found.derived.setdefault(base, []).append(number)
        return found


def _note(table: dict[Leaf, list[int]], leaves: Iterator[Leaf], number: int) -> None:
    for leaf in set(leaves):
        table.setdefault(leaf, []).append(number)


def _subject(policy: Policy) -> Selector:
    match policy:
        case KubernetesPolicy():
            return policy.subject
        case ClusterPolicy():
            return policy.subject.pods
    return calico_subject(policy)


def _leaves(selector: Selector) -> Iterator[Leaf]:
    match selector:
        case In(label, values):
            yield from ((label, value) for value in values)
        case Has(label) | Text(label):
            yield label, None
        case Not(inner):
            yield from _leaves(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaves(part)
