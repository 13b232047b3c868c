"""An endpoint came or went: the smallest change of a program that follows.

Owns: finding the sets, policies and group of one new endpoint, and taking one out.
Never: looks at other endpoints or rows, or edits an array of a program.
Invariant: the result decides like a full compilation of the changed snapshot.
An endpoint that comes gets the next number; the number of one that went stands
for nobody until the next compilation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.desired.policy.assembly import Assembly, endpoint_blocks
from engine.desired.policy.classes import key_of
from engine.desired.policy.extension import class_of, group_of
from engine.desired.policy.lower import facts_of
from engine.desired.policy.model import Endpoint, Snapshot
from engine.desired.policy.order import endpoint_labels
from engine.desired.policy.population import is_subject
from engine.desired.policy.program import Program, Table
from engine.desired.policy.selector import Leaf
from engine.desired.policy.sets import NOTHING, Base, Listed, holds_endpoint
from engine.model import Address


def arrive(assembly: Assembly, endpoint: Endpoint, generation: int) -> bool:
    """Take an endpoint in. False, and nothing done, where only a compilation can: its rows may ask what is not known."""
    before = assembly.population.snapshot
    snapshot = replace(before, endpoints={**before.endpoints, endpoint.key: endpoint})
    if endpoint.host_network:  # no selector sees it, and its addresses are its node's
        _renew(assembly, snapshot, generation)
        return True
    node = _own_node(assembly, snapshot, endpoint)
    if endpoint.is_host or node is None or _is_claimed(assembly, endpoint) or _renames(before, snapshot, endpoint):
        return False
    number = len(assembly.population.endpoints)
    assembly.population = assembly.population.with_arrival(endpoint, snapshot)
    touched = _labels(snapshot, endpoint)
    assembly.held[number] = _sets(assembly, endpoint, touched)
    policies = _policies(assembly, endpoint, touched)
    assembly.groups.applied.append(np.array(policies, np.int64))
    program = replace(assembly.program, generation=generation)
    if node:
        own = frozenset(snapshot.nodes[endpoint.node].addresses)
        program = replace(program, own_nodes={**program.own_nodes, number: own})
    blocks = (*endpoint_blocks(assembly.layout, policies, endpoint), node or NOTHING << 1)
    for address in endpoint.addresses:
        program = _enter(assembly, program, number, address, blocks)
    assembly.program = program
    return True


def leave(assembly: Assembly, key: str, generation: int) -> bool:
    """Take an endpoint out. False, and nothing done, where only a compilation can."""
    before = assembly.population.snapshot
    endpoint = before.endpoints[key]
    snapshot = replace(before, endpoints={k: e for k, e in before.endpoints.items() if k != key})
    number = assembly.population.number.get(key)
    if number is None:
        _renew(assembly, snapshot, generation)
        return True
    if endpoint.is_host or assembly.compiled.shares_addresses or _renames(before, snapshot, endpoint):
        return False
    assembly.population = assembly.population.with_departure(key, snapshot)
    assembly.held.pop(number, None)
    assembly.groups.applied[number] = np.zeros(0, np.int64)
    program = assembly.program
    assembly.program = replace(
        program,
        generation=generation,
        tables={v: _without(table, number) for v, table in program.tables.items()},
        own_nodes={n: addresses for n, addresses in program.own_nodes.items() if n != number},
    )
    return True


def _renew(assembly: Assembly, snapshot: Snapshot, generation: int) -> None:
    assembly.population = assembly.population.with_snapshot(snapshot)
    assembly.program = replace(assembly.program, generation=generation)


# -- what only a compilation can do --------------------------------------------
def _own_node(assembly: Assembly, snapshot: Snapshot, endpoint: Endpoint) -> int | None:
    """The reference to the addresses of its node; 0 without any; None when no endpoint was there before."""
    node = snapshot.nodes.get(endpoint.node)
    if node is None or not node.addresses:
        return 0
    addresses = tuple(sorted(frozenset(node.addresses), key=int))
    number = assembly.sets.known(Base((Listed(addresses),)))
    if number is None or number >= len(assembly.used) or not assembly.used[number]:
        return None
    return number << 1


def _is_claimed(assembly: Assembly, endpoint: Endpoint) -> bool:
    """Whether somebody has one of its addresses: then the first by name has it."""
    if assembly.compiled.shares_addresses or len(set(endpoint.addresses)) < len(endpoint.addresses):
        return True
    return any(assembly.program.tables[a.version].entry(key_of(a)) >= 0 for a in endpoint.addresses)


def _renames(before: Snapshot, after: Snapshot, endpoint: Endpoint) -> bool:
    """Whether a port's name now means other numbers than when rows were made of it."""
    return bool(endpoint.ports) and facts_of(before).names != facts_of(after).names


# -- what a new endpoint is in -----------------------------------------------------
def _labels(snapshot: Snapshot, endpoint: Endpoint) -> set[Leaf]:
    both = [*endpoint.labels.items(), *endpoint_labels(snapshot, endpoint).items()]
    return {leaf for label, value in both for leaf in ((label, None), (label, value))}


def _sets(assembly: Assembly, endpoint: Endpoint, touched: set[Leaf]) -> set[int]:
    snapshot, found = assembly.population.snapshot, set()
    for number in assembly.dependents.sets_of(touched) | assembly.dependents.unlabelled_sets:
        definition = assembly.sets.definitions[number]
        assert isinstance(definition, Base)
        if any(holds_endpoint(part, endpoint, snapshot) for part in definition.parts):
            found.add(number)
    return found


def _policies(assembly: Assembly, endpoint: Endpoint, touched: set[Leaf]) -> list[int]:
    snapshot, dependents = assembly.population.snapshot, assembly.dependents
    labels = endpoint_labels(snapshot, endpoint)
    return [
        number
        for number in sorted(dependents.policies_of(touched) | dependents.unlabelled_policies)
        if is_subject(assembly.layout.policies[number], dependents.subjects[number], endpoint, labels, snapshot)
    ]


# -- the new program ---------------------------------------------------------------
def _enter(
    assembly: Assembly, program: Program, number: int, address: Address,
    blocks: tuple[tuple[int, ...], tuple[int, ...], int],
) -> Program:  # fmt: skip
    """One address of the new endpoint. To begin with it is in what its prefix is in."""
    key, table = key_of(address), program.tables[address.version]
    at = int(np.searchsorted(table.entry_key, key)[0])
    label = int(table.classes_of(key)[0])
    table = replace(
        table,
        entry_key=np.insert(table.entry_key, at, key),
        entry_class=np.insert(table.entry_class, at, np.uint32(label)),
        entry_group=np.insert(table.entry_group, at, np.uint32(0)),
        entry_owner=np.insert(table.entry_owner, at, np.uint32(number)),
    )
    program = replace(program, tables={**program.tables, address.version: table})
    held = sorted(assembly.endpoint_sets(number))
    program, label = class_of(assembly, program, number, address.version, at, label, held)
    program, group = group_of(assembly, program, blocks, label)
    table.entry_class[at], table.entry_group[at] = label, group  # these two are no program's yet
    return program


def _without(table: Table, number: int) -> Table:
    kept = table.entry_owner != number
    return replace(
        table, entry_key=table.entry_key[kept], entry_class=table.entry_class[kept],
        entry_group=table.entry_group[kept], entry_owner=table.entry_owner[kept],
    )  # fmt: skip
