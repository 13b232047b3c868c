"""What a program gets appended: groups and classes that an endpoint is the first to be in.

Owns: finding the class and the group of an endpoint's address, and making them where there are none.
Never: decides which sets or policies an endpoint is in, or edits an array of a program.
Invariant: classes and groups are only ever added; a compilation sweeps those left empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.assembly import Assembly, group_key, with_room
from engine.desired.policy.classes import U64, Keys
from engine.desired.policy.program import Program
from engine.desired.policy.sets import NOTHING, OWN_NODE, Derived


def group_of(
    assembly: Assembly, program: Program, blocks: tuple[tuple[int, ...], tuple[int, ...], int], label: int
) -> tuple[Program, int]:
    """The group of an address, a new one if need be."""
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


def class_of(
    assembly: Assembly, program: Program, number: int, version: int, at: int, old: int, toggled: list[int]
) -> tuple[Program, int]:
    """The class of an entry whose endpoint is in other sets than the class `old` by `toggled`, a new one if need be."""
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
