"""One endpoint's labels changed: the smallest change of a program that follows.

Owns: finding the sets, policies and groups that a label touches.
Never: looks at other endpoints or rows, or edits an array of a program.
Invariant: the result decides like a full compilation of the changed snapshot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.desired.policy.assembly import Assembly, endpoint_blocks
from engine.desired.policy.extension import class_of, group_of
from engine.desired.policy.membership import VERSIONS
from engine.desired.policy.model import Endpoint, Snapshot
from engine.desired.policy.order import endpoint_labels
from engine.desired.policy.population import is_subject
from engine.desired.policy.program import Program, Table
from engine.desired.policy.selector import Leaf
from engine.desired.policy.sets import Base, holds_endpoint


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
                program, label = class_of(assembly, program, number, version, at, label, toggled)
            node = int(program.group_node[table.entry_group[at]])
            program, group = group_of(assembly, program, (*blocks, node), label)
            tables[version] = _with_entry(table, at, label, group)
    return replace(program, tables=tables)


def _with_entry(table: Table, at: int, label: int, group: int) -> Table:
    classes, groups = table.entry_class.copy(), table.entry_group.copy()
    classes[at], groups[at] = label, group
    return replace(table, entry_class=classes, entry_group=groups)
