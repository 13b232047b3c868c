"""One endpoint's labels changed: the smallest change of a program that follows.

Owns: finding the sets, policies and groups that a label touches.
Never: looks at other endpoints or rows, or edits an array of a program.
Invariant: the result decides like a full compilation of the changed snapshot.
Classes and groups are only ever added; a compilation sweeps those left empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.assembly import Assembly, endpoint_blocks, group_key, with_room
from engine.desired.policy.classes import U64, Keys
from engine.desired.policy.membership import VERSIONS
from engine.desired.policy.model import Endpoint, Snapshot
from engine.desired.policy.order import endpoint_labels
from engine.desired.policy.population import is_subject
from engine.desired.policy.program import Program, Table
from engine.desired.policy.selector import Leaf
from engine.desired.policy.sets import NOTHING, OWN_NODE, Base, Derived, holds_endpoint


def relabel(assembly: Assembly, endpoint: Endpoint, generation: int) -> Assembly:
    """The assembly for the same snapshot with this endpoint in its place. The old one must not be used again."""
    number = assembly.population.number.get(endpoint.key)
    if number is None:  # a pod in its node's network: no selector sees it
        return _renewed(assembly, endpoint, generation)
    before = assembly.population.endpoints[number]
    touched = _touched(assembly.population.snapshot, before, endpoint)
    _renewed(assembly, endpoint, generation)
    toggled = _toggle_sets(assembly, number, touched)
    policies_changed = _toggle_policies(assembly, number, touched)
    if toggled or policies_changed:
        assembly.program = _program(assembly, number, toggled)
    return assembly


def _touched(snapshot: Snapshot, before: Endpoint, after: Endpoint) -> set[Leaf]:
    """What changed, also where a profile's label shows again under one that went."""
    found: set[Leaf] = set()
    for was, now in (
        (before.labels, after.labels),
        (endpoint_labels(snapshot, before), endpoint_labels(snapshot, after)),
    ):
        for label in was.keys() | now.keys():
            if was.get(label) != now.get(label):
                found.update({(label, None), (label, was.get(label)), (label, now.get(label))})
    return found


def _renewed(assembly: Assembly, endpoint: Endpoint, generation: int) -> Assembly:
    """The new endpoint recorded, nothing decided anew."""
    snapshot = assembly.population.snapshot
    endpoints = dict(snapshot.endpoints)
    endpoints[endpoint.key] = endpoint
    assembly.population = assembly.population.with_endpoint(endpoint, replace(snapshot, endpoints=endpoints))
    assembly.program = replace(assembly.program, generation=generation)
    return assembly


def _toggle_sets(assembly: Assembly, number: int, touched: set[Leaf]) -> list[int]:
    """Base sets that the endpoint entered or left."""
    held = assembly.endpoint_sets(number)
    population = assembly.population
    endpoint = population.endpoints[number]
    toggled = []
    for candidate in assembly.dependents.sets_of(touched):
        definition = assembly.sets.definitions[candidate]
        assert isinstance(definition, Base)
        holds = any(holds_endpoint(part, endpoint, population.snapshot) for part in definition.parts)
        if holds != (candidate in held):
            toggled.append(candidate)
    if toggled:
        assembly.held[number] = held ^ set(toggled)
    return toggled


def _toggle_policies(assembly: Assembly, number: int, touched: set[Leaf]) -> bool:
    population = assembly.population
    applied = set(assembly.groups.applied[number].tolist())
    old = frozenset(applied)
    endpoint, subjects = population.endpoints[number], assembly.dependents.subjects
    labels = endpoint_labels(population.snapshot, endpoint)
    for candidate in assembly.dependents.policies_of(touched):
        policy = assembly.layout.policies[candidate]
        if is_subject(policy, subjects[candidate], endpoint, labels, population.snapshot):
            applied.add(candidate)
        else:
            applied.discard(candidate)
    if applied == old:
        return False
    assembly.groups.applied[number] = np.array(sorted(applied), np.int64)
    return True


# -- the new program ---------------------------------------------------------
def _program(assembly: Assembly, number: int, toggled: list[int]) -> Program:
    endpoint = assembly.population.endpoints[number]
    program = assembly.program
    policies = assembly.groups.applied[number].tolist()
    blocks = endpoint_blocks(assembly.layout, policies, endpoint)
    tables = dict(program.tables)
    for version in VERSIONS:
        for at in np.flatnonzero(program.tables[version].entry_owner == number).tolist():
            table = tables[version]
            label = int(table.entry_class[at])
            if toggled:
                program, label = _class(assembly, program, number, version, at, label, toggled)
            node = int(program.group_node[table.entry_group[at]])
            program, group = _group(assembly, program, (*blocks, node), label)
            tables[version] = _with_entry(table, at, label, group)
    return replace(program, tables=tables)


def _with_entry(table: Table, at: int, label: int, group: int) -> Table:
    classes, groups = table.entry_class.copy(), table.entry_group.copy()
    classes[at], groups[at] = label, group
    return replace(table, entry_class=classes, entry_group=groups)


def _group(
    assembly: Assembly, program: Program, blocks: tuple[tuple[int, ...], tuple[int, ...], int], label: int
) -> tuple[Program, int]:
    key = group_key(blocks, label, assembly.local_blocks)
    numbers = assembly.groups.numbers
    if key in numbers:
        return program, numbers[key]
    numbers[key] = len(numbers)
    both = [*key[0], *key[1]]
    end = len(program.group_blocks)
    return replace(
        program,
        group_blocks=_append(assembly, "group_blocks", program.group_blocks, *both),
        group_offset=_append(assembly, "group_offset", program.group_offset, end + len(key[0]), end + len(both)),
        group_node=_append(assembly, "group_node", program.group_node, key[2]),
        group_local=_append(assembly, "group_local", program.group_local, key[3]),
    ), numbers[key]


def _append(assembly: Assembly, name: str, array: NDArray[Any], *values: object) -> NDArray[Any]:
    """The array with values behind it. Older programs hold shorter views of the same buffer, and never see them."""
    size = len(array) + len(values)
    buffer = assembly.buffers.get(name)
    if buffer is None or array.base is not buffer or len(buffer) < size:
        buffer = assembly.buffers[name] = with_room(array)
    buffer[len(array) : size] = values
    return buffer[:size]


def _class(
    assembly: Assembly, program: Program, number: int, version: int, at: int, old: int, toggled: list[int]
) -> tuple[Program, int]:
    """The class of an entry whose endpoint is now in other sets, a new one if need be."""
    parts = assembly.parts
    address = program.tables[version].entry_key[at : at + 1]
    bases = parts.intervals[version].at(address)
    lanes = [
        _signature(assembly, weight, base, number, version) for weight, base in zip(parts.weights, bases, strict=True)
    ]
    same = np.flatnonzero((parts.class_lanes[0] == lanes[0]) & (parts.class_lanes[1] == lanes[1]))
    if len(same):
        return program, int(same[0])
    first, second = parts.class_lanes
    parts.class_lanes = (_append(assembly, "lane 0", first, lanes[0]), _append(assembly, "lane 1", second, lanes[1]))
    sets = _class_sets(assembly, program, number, version, address, old, toggled)
    label = len(program.class_family)
    return replace(
        program,
        class_sets=_append(assembly, "class_sets", program.class_sets, *sets),
        class_offset=_append(assembly, "class_offset", program.class_offset, len(program.class_sets) + len(sets)),
        class_family=_append(assembly, "class_family", program.class_family, version),
    ), label


def _signature(assembly: Assembly, weight: U64, base: U64, number: int, version: int) -> np.uint64:
    held = np.fromiter(assembly.endpoint_sets(number), np.int64)
    family = weight[[OWN_NODE]] if version == 6 else np.zeros(1, np.uint64)
    total: np.uint64 = (base + weight[held].sum(dtype=np.uint64) + family)[0]
    return total


def _class_sets(
    assembly: Assembly,
    program: Program,
    number: int,
    version: int,
    address: Keys,
    old: int,
    toggled: list[int],
) -> list[int]:
    """The referenced sets of a new class: those of the old one, but for what the toggled sets decide."""
    sets = set(program.class_sets[program.class_offset[old] : program.class_offset[old + 1]].tolist())
    decided = assembly.dependents.derived_from(toggled)
    definitions = [assembly.sets.definitions[derived] for derived in decided]
    asked = {base for d in definitions if isinstance(d, Derived) for base in (*d.inside, *d.outside)}
    bases = assembly.parts.spans[version].around(address, {*toggled, *asked}) | assembly.endpoint_sets(number)
    for base in toggled:
        if assembly.used[base]:
            (sets.add if base in bases else sets.discard)(base)
    for number_of_derived in decided:
        definition = assembly.sets.definitions[number_of_derived]
        assert isinstance(definition, Derived)
        outside = not bases.isdisjoint(definition.outside)
        inside = bases.issuperset(definition.inside) and not outside if definition.inside else outside
        (sets.add if inside else sets.discard)(number_of_derived)
    return sorted(sets - {NOTHING})
