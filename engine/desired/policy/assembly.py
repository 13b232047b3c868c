"""Puts a program together: sets to classes, endpoints to groups, blocks to arrays.

Owns: the numbering of classes and groups.
Never: reads a rule; rows arrive lowered.
Invariant: Python loops run over policies, sets and groups, never over the
addresses of a set or over rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.blocks import Layout
from engine.desired.policy.classes import (
    U32,
    L4Classes,
    distinct,
    source_classes,
)
from engine.desired.policy.dependents import Dependents
from engine.desired.policy.index import numbers_of
from engine.desired.policy.lower import DESTINATION, HIGH, LOW, RULE, SOURCE, SOURCE_HIGH, SOURCE_LOW, Rows
from engine.desired.policy.membership import VERSIONS, Parts, classify, draw, membership
from engine.desired.policy.model import DIRECTIONS, Endpoint
from engine.desired.policy.population import Population
from engine.desired.policy.program import NO_CLASS, Program
from engine.desired.policy.sets import ANY, NOTHING, OWN_NODE, Base, Derived, Listed, SetTable
from engine.model import Address

ROOM = 8192  # entries appended before an array must be copied


# -- the whole ---------------------------------------------------------------
@dataclass
class Assembly:
    """A program with what is needed to derive the next one from it."""

    population: Population
    compiled: Population  # as it was then; its indexes are not given up in the middle of a label change
    layout: Layout
    sets: SetTable
    used: NDArray[np.bool_]  # sets that rows refer to
    bases: list[int]  # base sets in use, directly or inside a derived set
    parts: Parts
    groups: Groups
    local_blocks: NDArray[np.bool_]
    subjects: list[int]  # bitmap of endpoints for each policy, as compiled
    program: Program
    classes: int  # as compiled
    dependents: Dependents
    buffers: dict[str, NDArray[Any]] = field(default_factory=dict)  # room behind arrays that grow
    held: dict[int, set[int]] = field(default_factory=dict)  # base sets of endpoints changed since

    def endpoint_sets(self, number: int) -> set[int]:
        """The base sets an endpoint is in by what it is, addresses aside."""
        found = self.held.get(number)
        if found is None:
            owners, owned = self.parts.pairs
            low, high = np.searchsorted(owners, (number, number + 1))
            found = self.held[number] = set(owned[low:high].tolist())
        return found


def build(
    population: Population,
    layout: Layout,
    sets: SetTable,
    random: np.random.Generator,
    generation: int,
) -> Assembly:
    own_nodes = _own_nodes(population)
    node_sets = {a: sets.number(Base((Listed(tuple(sorted(a, key=int))),))) for a in set(own_nodes.values())}
    rows, start, end = _stack(layout)
    used = _used_sets(rows, sets, node_sets.values())
    bases = _bases(used, sets)
    parts = classify(population, sets, bases, random)
    class_offset, class_sets = membership(parts, sets, used)
    subjects = [population.subject(policy) for policy in layout.policies]
    local_blocks = _local_blocks(rows, start, layout)
    groups = _groups(population, layout, subjects, own_nodes, node_sets, parts, local_blocks)
    spans = distinct(rows[:, LOW].astype(np.uint64) << np.uint64(32) | rows[:, HIGH])
    program = Program(
        generation=generation,
        rows=rows,
        block_start=start,
        block_end=end,
        block_tier=np.array(layout.tier, np.uint32),
        block_rule=np.array(layout.rule, np.uint32),
        class_offset=class_offset,
        class_sets=class_sets,
        class_family=parts.class_family,
        l4=L4Classes.of((spans >> np.uint64(32)).astype(np.uint32), spans.astype(np.uint32), draw(random, len(spans))),
        source_l4=source_classes(rows[:, SOURCE_LOW], rows[:, SOURCE_HIGH], random),
        set_count=len(sets.definitions),
        sources=tuple(layout.sources),
        own_nodes=own_nodes,
        **groups.arrays(),
        tables={v: parts.table(v, groups.of_entry[v]) for v in VERSIONS},
    )
    program, buffers = _room(program, parts)
    return Assembly(
        population, population, layout, sets, used, bases, parts, groups, local_blocks, subjects, program, len(parts.class_family),
        Dependents.of(sets, bases, np.flatnonzero(used).tolist(), layout.policies),
        buffers,
    )  # fmt: skip


GROWING = ("group_blocks", "group_offset", "group_node", "group_local", "class_sets", "class_offset", "class_family")


def with_room(array: NDArray[Any], extra: int = 0) -> NDArray[Any]:
    """A copy with room behind it, half as much again unless `extra` says how much."""
    buffer = np.empty(len(array) + (extra or len(array) // 2 + 1024), array.dtype)
    buffer[: len(array)] = array
    return buffer


def _room(program: Program, parts: Parts) -> tuple[Program, dict[str, NDArray[Any]]]:
    """The same program, its arrays with room for what label changes append, so that the first need not copy them."""
    buffers = {name: with_room(getattr(program, name), ROOM) for name in GROWING}
    buffers |= {f"lane {i}": with_room(lane, ROOM) for i, lane in enumerate(parts.class_lanes)}
    first, second = (buffers[f"lane {i}"][: len(parts.class_lanes[0])] for i in (0, 1))
    parts.class_lanes = (first, second)
    grown: dict[str, Any] = {name: buffers[name][: len(getattr(program, name))] for name in GROWING}
    return replace(program, **grown), buffers


def _stack(layout: Layout) -> tuple[Rows, U32, U32]:
    """One table of all rows, rule numbers made unique."""
    length = np.array([len(rows) for rows in layout.rows], np.int64)
    end = np.cumsum(length)
    rows = np.concatenate(layout.rows)
    rows[:, RULE] += np.repeat(np.array(layout.rule, np.uint32), length)
    return rows, (end - length).astype(np.uint32), end.astype(np.uint32)


def _own_nodes(population: Population) -> dict[int, frozenset[Address]]:
    nodes = {name: frozenset(node.addresses) for name, node in population.snapshot.nodes.items() if node.addresses}
    return {
        number: nodes[endpoint.node]
        for number, endpoint in enumerate(population.endpoints)
        if not endpoint.is_host and endpoint.node in nodes
    }


def _used_sets(rows: Rows, sets: SetTable, others: Iterable[int]) -> NDArray[np.bool_]:
    used = np.zeros(len(sets.definitions), bool)
    used[rows[:, SOURCE] >> 1] = True
    used[rows[:, DESTINATION] >> 1] = True
    used[list(others)] = True
    used[[NOTHING, OWN_NODE]] = False
    return used


def _bases(used: NDArray[np.bool_], sets: SetTable) -> list[int]:
    found: set[int] = set()
    for number in np.flatnonzero(used):
        definition = sets.definitions[number]
        if isinstance(definition, Derived):
            found.update(definition.inside, definition.outside)
        else:
            found.add(int(number))
    return sorted(found - {NOTHING})


# -- groups ------------------------------------------------------------------
GroupKey = tuple[tuple[int, ...], tuple[int, ...], int, int]  # blocks in, blocks out, node, local class


@dataclass(slots=True)
class Groups:
    """Which blocks judge which address."""

    numbers: dict[GroupKey, int]
    of_entry: dict[int, U32]
    applied: list[NDArray[np.int64]]  # policies of each endpoint, in order

    def arrays(self) -> dict[str, U32]:
        lists = [blocks for key in self.numbers for blocks in key[:2]]
        return {
            "group_offset": np.cumsum([0, *map(len, lists)]).astype(np.uint32),
            "group_blocks": np.array([block for blocks in lists for block in blocks], np.uint32),
            "group_node": np.array([key[2] for key in self.numbers], np.uint32),
            "group_local": np.array([key[3] for key in self.numbers], np.uint32),
        }


def _local_blocks(rows: Rows, start: U32, layout: Layout) -> NDArray[np.bool_]:
    """Blocks in which some row asks for the local address."""
    outgoing = np.repeat(
        np.array([s.direction == "egress" for s in layout.sources], bool), [len(r) for r in layout.rows]
    )
    asks = np.where(outgoing, rows[:, SOURCE], rows[:, DESTINATION]) != ANY
    total = np.concatenate([[0], np.cumsum(asks)])
    ends = np.append(start[1:], len(rows))
    found: NDArray[np.bool_] = total[ends] > total[start]
    return found


def _groups(
    population: Population, layout: Layout, subjects: list[int], own_nodes: dict[int, frozenset[Address]],
    node_sets: Mapping[frozenset[Address], int], parts: Parts, local_blocks: NDArray[np.bool_],
) -> Groups:  # fmt: skip
    applied = _applied(subjects, len(population.endpoints))
    numbers: dict[GroupKey, int] = {}
    cached: dict[tuple[object, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {}
    of_endpoint = []
    for number, endpoint in enumerate(population.endpoints):
        key = (applied[number].tobytes(), endpoint.is_host, endpoint.profiles)
        if key not in cached:
            cached[key] = endpoint_blocks(layout, applied[number].tolist(), endpoint)
        node = node_sets[own_nodes[number]] << 1 if number in own_nodes else NOTHING << 1
        of_endpoint.append((*cached[key], node))
    of_entry = {}
    for v in VERSIONS:
        listed = [
            numbers.setdefault(group_key(of_endpoint[owner], int(label), local_blocks), len(numbers))
            for owner, label in zip(parts.entry_owner[v].tolist(), parts.entry_class[v].tolist(), strict=True)
        ]
        of_entry[v] = np.array(listed, np.uint32)
    return Groups(numbers, of_entry, applied)


def group_key(
    blocks: tuple[tuple[int, ...], tuple[int, ...], int], label: int, local_blocks: NDArray[np.bool_]
) -> GroupKey:
    local = bool(local_blocks[[*blocks[0], *blocks[1]]].any())
    return (*blocks, label if local else NO_CLASS)


def endpoint_blocks(layout: Layout, policies: list[int], endpoint: Endpoint) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The blocks that judge an endpoint, inwards and outwards."""
    found = [
        layout.group_blocks(policies, direction, host=endpoint.is_host, profiles=endpoint.profiles)
        for direction in DIRECTIONS
    ]
    return found[0], found[1]


def _applied(subjects: list[int], count: int) -> list[NDArray[np.int64]]:
    """For each endpoint the policies that select it, in order."""
    listed = [numbers_of(bits) for bits in subjects]
    owners = np.concatenate([np.zeros(0, np.int64), *listed])
    policies = np.repeat(np.arange(len(subjects)), [len(numbers) for numbers in listed])
    order = np.lexsort((policies, owners))
    bounds = np.searchsorted(owners[order], np.arange(count + 1))
    sorted_policies = policies[order]
    return [sorted_policies[bounds[n] : bounds[n + 1]] for n in range(count)]
