"""The compiled policy: flat arrays, and their execution with numpy.

Owns: the layout that the data plane executes, and the vectorised evaluator
that defines how.
Never: changes an array once the program is published; an update makes a new
program that shares what stayed the same.
Invariant: for every connection `judge` gives the decision of the golden
evaluator.

Layout (all arrays C-contiguous; `reference` = set number * 2 + complement bit)

rows, one 9-column uint32 table in the order of judgement within a block:
    source, destination   references the two addresses must be in
    low, high             L4 key range: protocol << 16 | destination port (ICMP: type << 8 | code; others 0)
    source_low, source_high
    family                bit 0 IPv4, bit 1 IPv6
    action                1 allow, 2 deny, 3 pass (go to the first later block with a higher tier), 4 log (go on)
    rule                  rule id
blocks: start, end (rows), tier (ascending order of judgement), rule base
groups: block numbers of group g, direction d (0 ingress, 1 egress):
    group_blocks[group_offset[2g + d] : group_offset[2g + d + 1]]
    group_node[g]: reference that set 1 stands for; group_local[g]: class of the
    local address when a row constrains it (then the memo needs no local class), else NO_CLASS
classes: sets of class c: class_sets[class_offset[c] : class_offset[c + 1]], ascending
addresses, per family: exact entries (entry_key sorted, entry_class, entry_group),
    then intervals (range_start sorted, range_class): the last start <= address
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.classes import U32, Keys, L4Classes, key_of
from engine.desired.policy.lower import (
    ACTION,
    DESTINATION,
    FAMILY,
    HIGH,
    LOW,
    RULE,
    SOURCE,
    SOURCE_HIGH,
    SOURCE_LOW,
    Rows,
)
from engine.desired.policy.model import Action, Connection, Decision, Direction, PeerRule, Policy, Profile, Verdict
from engine.desired.policy.order import rules_of, title
from engine.desired.policy.sets import OWN_NODE
from engine.model import Address

NO_CLASS: Final = 0xFFFFFFFF
NO_GROUP: Final = 0xFFFFFFFF
CHUNK: Final = 64  # remote classes judged at once

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """The addresses of one family."""

    entry_key: Keys
    entry_class: U32
    entry_group: U32
    entry_owner: U32  # number of the endpoint
    range_start: Keys
    range_class: U32

    def entry(self, key: Keys) -> int:
        """The exact entry of an address, -1 when it is no endpoint's."""
        at = int(np.searchsorted(self.entry_key, key)[0])
        return at if at < len(self.entry_key) and self.entry_key[at] == key[0] else -1

    def classes_of(self, wanted: Keys) -> U32:
        ranges: U32 = self.range_class[np.searchsorted(self.range_start, wanted, "right") - 1]
        if not len(self.entry_key):
            return ranges
        at = np.minimum(np.searchsorted(self.entry_key, wanted), len(self.entry_key) - 1)
        return np.where(self.entry_key[at] == wanted, self.entry_class[at], ranges)


@dataclass(frozen=True, slots=True)
class Source:
    """What a block was made of, to put its decisions into words."""

    why: str
    tier: str = ""
    policy: Policy | None = None
    profile: Profile | None = None
    direction: Direction = "ingress"

    def decision(self, action: int, rule: int) -> Decision:
        allowed = action == Action.ALLOW
        if self.profile is not None:
            return Decision(allowed, self.direction, "profile", "", f"Profile {self.profile.name}", rule - 1)
        policy = self.policy
        if policy is None:
            return Decision(allowed, self.direction, self.why, self.tier)
        if rule == 0:
            why = "own-node" if self.why == "rule" else self.why
            reason = policy.refusal.reason if policy.refusal and why == "refused" else ""
            return Decision(allowed, self.direction, why, self.tier, title(policy), -1, reason)
        written = rules_of(policy, self.direction)[rule - 1]
        name = written.name if isinstance(written, PeerRule) else ""
        return Decision(allowed, self.direction, "rule", self.tier, title(policy), rule - 1, name)


@dataclass(frozen=True, slots=True)
class Program:
    generation: int
    rows: Rows
    block_start: U32
    block_end: U32
    block_tier: U32
    block_rule: U32
    group_offset: U32
    group_blocks: U32
    group_node: U32
    group_local: U32
    class_offset: U32
    class_sets: U32
    class_family: NDArray[np.uint8]
    tables: dict[int, Table]
    l4: L4Classes
    source_l4: NDArray[np.uint16]  # source port -> class
    set_count: int
    sources: tuple[Source, ...]
    own_nodes: dict[int, frozenset[Address]]  # endpoint number -> addresses of its node, pods only

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        arrays: list[NDArray[np.generic]] = [
            self.rows, self.block_start, self.block_end, self.block_tier, self.block_rule, self.group_offset,
            self.group_blocks, self.group_node, self.group_local, self.class_offset, self.class_sets,
            self.class_family, self.l4.table, self.source_l4,
        ]  # fmt: skip
        for table in self.tables.values():
            arrays += [table.entry_key, table.entry_class, table.entry_group, table.range_start, table.range_class]
        return sum(array.nbytes for array in arrays)

    # -- judging -------------------------------------------------------------
    def judge(self, connection: Connection) -> Verdict:
        return Verdict(
            egress=self.judge_direction(connection, "egress"),
            ingress=self.judge_direction(connection, "ingress"),
        )

    def judge_direction(self, connection: Connection, direction: Direction) -> Decision:
        local, remote = connection.destination, connection.source
        if direction == "egress":
            local, remote = remote, local
        table = self.tables[local.version]
        at = table.entry(key_of(local))
        if at < 0:
            return Decision(True, direction, "outside")
        owner = int(table.entry_owner[at])
        other = table.entry(key_of(remote))
        if other >= 0 and int(table.entry_owner[other]) == owner:
            return Decision(True, direction, "self")
        if direction == "ingress" and remote in self.own_nodes.get(owner, ()):
            return Decision(True, direction, "own-node")
        classes = table.classes_of(key_of(remote))
        key = connection.protocol << 16 | connection.destination_port
        row = self.first_rows(
            int(table.entry_group[at]),
            direction,
            int(table.entry_class[at]),
            classes,
            key,
            connection.source_port,
            local.version,
        )[0]
        return self.explain(int(row))

    def explain(self, row: int) -> Decision:
        """The decision of a row, in words."""
        block = int(np.searchsorted(self.block_start, row, "right")) - 1
        return self.sources[block].decision(
            int(self.rows[row, ACTION]), int(self.rows[row, RULE] - self.block_rule[block])
        )

    def first_rows(
        self, group: int, direction: Direction, local: int, remote: U32, key: int, source_port: int, version: int
    ) -> NDArray[np.int64]:
        """The deciding row for each remote class."""
        found = np.empty(len(remote), np.int64)
        for start in range(0, len(remote), CHUNK):
            part = remote[start : start + CHUNK]
            found[start : start + CHUNK] = self._scan(group, direction, local, part, key, source_port, version)
        return found

    def _scan(
        self, group: int, direction: Direction, local: int, remote: U32, key: int, source_port: int, version: int
    ) -> NDArray[np.int64]:
        numbers, tiers = self.group_rows(group, direction)
        rows = self.rows[numbers]
        kept = (rows[:, LOW] <= key) & (key <= rows[:, HIGH]) & ((rows[:, FAMILY] & (1 if version == 4 else 2)) != 0)
        kept &= (
            (rows[:, SOURCE_LOW] <= source_port)
            & (source_port <= rows[:, SOURCE_HIGH])
            & (rows[:, ACTION] != Action.LOG)
        )
        local_side, remote_side = (DESTINATION, SOURCE) if direction == "ingress" else (SOURCE, DESTINATION)
        node = int(self.group_node[group])
        numbers, tiers, rows = numbers[kept], tiers[kept], rows[kept]
        kept = self.members(rows[:, local_side], np.array([local], np.uint32), node)[:, 0]
        numbers, tiers, rows = numbers[kept], tiers[kept], rows[kept]
        matches = self.members(rows[:, remote_side], remote, node)
        return _first_match(matches, rows[:, ACTION], tiers, numbers)

    def group_rows(self, group: int, direction: Direction) -> tuple[NDArray[np.int64], U32]:
        """Row numbers of a group in the order of judgement, and the tier of each."""
        at = 2 * group + (direction == "egress")
        blocks = self.group_blocks[self.group_offset[at] : self.group_offset[at + 1]]
        starts, ends = self.block_start[blocks].astype(np.int64), self.block_end[blocks].astype(np.int64)
        count = ends - starts
        which = np.repeat(np.arange(len(blocks)), count)
        numbers = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + starts[which]
        return numbers, self.block_tier[blocks][which]

    def members(self, references: U32, classes: U32, own_node: int) -> Bools:
        """Whether each class is in each referenced set."""
        references = np.where(references >> 1 == OWN_NODE, own_node ^ (references & 1), references)
        inside = np.zeros((self.set_count, len(classes)), bool)
        for column, number in enumerate(classes):
            inside[self.class_sets[self.class_offset[number] : self.class_offset[number + 1]], column] = True
        found: Bools = inside[references >> 1] ^ (references & 1).astype(bool)[:, None]
        return found


def _first_match(matches: Bools, actions: U32, tiers: U32, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first deciding row of each column; a Pass rules out the rest of its tier."""
    matches = matches.copy()
    columns = np.arange(matches.shape[1])
    while True:
        first = matches.argmax(axis=0)
        passing = (actions[first] == Action.PASS) & matches[first, columns]
        if not passing.any():
            found: NDArray[np.int64] = numbers[first]
            return found
        for column in np.flatnonzero(passing):
            matches[tiers <= tiers[first[column]], column] = False
