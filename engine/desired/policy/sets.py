"""Sets of addresses as rules name them: what each consists of, and how sets are combined.

Owns: the parts a set can have, the numbering of sets, and their algebra.
Never: computes members (`classes` does) or knows which rule uses a set.
Invariant: every set a row can refer to is a small set or the complement of
one, so that a class of addresses is described by the few sets it is in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from engine.desired.policy.classes import Span
from engine.desired.policy.model import Block, Endpoint, NodePeer, Snapshot
from engine.desired.policy.order import endpoint_labels, namespace_labels
from engine.desired.policy.selector import In, Leaf, Selector, labels_of, leaves
from engine.model import Address

NOTHING: Final = 0  # the empty set; its complement is every address
OWN_NODE: Final = 1  # the addresses of the judged endpoint's own node
ANY: Final = NOTHING << 1 | 1


# -- parts -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PodsIn:
    """Pods by their own labels, in one namespace or in those that `namespaces` selects."""

    pods: Selector
    namespaces: Selector | None
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """Endpoints and network sets by their derived labels."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class Named:
    """Endpoints that call this port by this name."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Listed:
    addresses: tuple[Address, ...]


Part = Span | Block | PodsIn | Known | Named | Listed | NodePeer
Parts = tuple[Part, ...]  # their union


def holds_endpoint(part: Part, endpoint: Endpoint, snapshot: Snapshot) -> bool:
    """Whether a part that speaks of endpoints means this one."""
    match part:
        case PodsIn():
            return _holds_pod(part, endpoint, snapshot)
        case Known(selector):
            return selector.matches(endpoint_labels(snapshot, endpoint))
        case Named(name, protocol, port):
            return any((p.name, p.protocol, p.port) == (name, protocol, port) for p in endpoint.ports)
    return False


def _holds_pod(part: PodsIn, endpoint: Endpoint, snapshot: Snapshot) -> bool:
    if endpoint.is_host:
        return False
    if part.namespaces is None:
        inside = endpoint.namespace == part.namespace
    else:
        inside = part.namespaces.matches(namespace_labels(snapshot, endpoint.namespace))
    return inside and part.pods.matches(endpoint.labels)


def labels_in(parts: Parts) -> set[str]:
    """The endpoint labels on which membership depends."""
    found: set[str] = set()
    for part in parts:
        match part:
            case PodsIn(pods):
                found.update(labels_of(pods))
            case Known(selector):
                found.update(labels_of(selector))
    return found


# -- numbering and algebra ---------------------------------------------------
@dataclass(frozen=True, slots=True)
class Base:
    """The union of its parts."""

    parts: Parts


@dataclass(frozen=True, slots=True)
class Derived:
    """In all of `inside` and in none of `outside`; with `inside` empty: in any of `outside`."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]


Literal = tuple[Parts, bool]  # the set, and whether its complement is meant


@dataclass(slots=True)
class SetTable:
    """Gives equal sets equal numbers. A reference is number * 2, plus 1 for the complement."""

    definitions: list[Base | Derived] = field(default_factory=lambda: [Base(()), Base(())])
    by_label: dict[Leaf, list[int]] = field(default_factory=dict)  # what a label may take an endpoint into
    unlabelled: list[int] = field(default_factory=list)  # what an endpoint without labels may be in
    _numbers: dict[Base | Derived, int] = field(default_factory=lambda: {Base(()): NOTHING})
    _bases: dict[Parts, int] = field(default_factory=dict)

    def base(self, parts: Parts) -> int:
        found = self._bases.get(parts)
        if found is None:
            found = self._bases[parts] = self.number(Base(parts))
        return found

    def known(self, definition: Base | Derived) -> int | None:
        return self._numbers.get(definition)

    def number(self, definition: Base | Derived) -> int:
        found = self._numbers.get(definition)
        if found is None:
            found = self._numbers[definition] = len(self.definitions)
            self.definitions.append(definition)
            if isinstance(definition, Base):
                self._note_labels(definition, found)
        return found

    def _note_labels(self, definition: Base, number: int) -> None:
        for part in definition.parts:
            selector = part.selector if isinstance(part, Known) else part.pods if isinstance(part, PodsIn) else None
            if isinstance(selector, In) and len(selector.values) == 1:
                (value,) = selector.values
                self.by_label.setdefault((selector.label, value), []).append(number)
            elif selector is not None:
                for leaf in set(leaves(selector)):
                    self.by_label.setdefault(leaf, []).append(number)
                if selector.matches({}):
                    self.unlabelled.append(number)
            elif isinstance(part, Named):
                self.unlabelled.append(number)

    def reference(self, literals: Iterable[Literal]) -> int:
        """The intersection of all literals as one reference; of none: any address."""
        literals = tuple(literals)
        if len(literals) == 1:
            ((parts, negated),) = literals
            return self.base(parts) << 1 | negated
        if not literals:
            return ANY
        inside: set[int] = set()
        outside: set[int] = set()
        for parts, negated in literals:
            (outside if negated else inside).add(self.base(parts))
        outside.discard(NOTHING)
        if NOTHING in inside or inside & outside:
            return NOTHING << 1
        if not inside:
            return self._outside(outside)
        if len(inside) == 1 and not outside:
            return inside.pop() << 1
        return self.number(Derived(tuple(sorted(inside)), tuple(sorted(outside)))) << 1

    def _outside(self, outside: set[int]) -> int:
        if not outside:
            return ANY
        if len(outside) == 1:
            return outside.pop() << 1 | 1
        return self.number(Derived((), tuple(sorted(outside)))) << 1 | 1
