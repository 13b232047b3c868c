"""The views of policy: who decides, which rules count what, which flows there are.

Owns: how rows, counters and addresses are joined with names.
Never: changes anything.
Invariant: a decision that is said to be made here is the plane's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine import views
from engine.desired.policy.counting import Counting
from engine.desired.policy.lower import ACTION, RULE
from engine.desired.policy.model import (
    ICMP,
    ICMP6,
    ICMP_PROTOCOLS,
    PORT_PROTOCOLS,
    PROTOCOL_NUMBERS,
    Action,
    Connection,
    Decision,
    Direction,
    Snapshot,
)
from engine.desired.policy.program import Program, Source
from engine.model import Address, Prefix

if TYPE_CHECKING:
    from fastpath.plane import Plane

Counts = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]
ECHO = {ICMP: 8 << 8, ICMP6: 128 << 8}
PAGE = 512  # flows looked at at once: a narrow search may give so many more than were asked for


# -- one connection --------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Judged:
    """A program and the compiled lookup over it: rows, or what stands for one, for both directions."""

    program: Program
    rows: Callable[[Address, Address, int, int, int], tuple[int, int]]

    def sides(self, connection: Connection, *, predict: bool = True) -> tuple[views.Decision, views.Decision]:
        """Egress and ingress. `predict`: say what another node would say of its own, which takes longer."""
        c = connection
        rows = self.rows(c.source, c.destination, c.protocol, c.source_port, c.destination_port)
        return (
            _decided(self.program, rows[0], c, "egress", predict=predict),
            _decided(self.program, rows[1], c, "ingress", predict=predict),
        )


def explain(plane: Plane, program: Program, staged: Judged | None, connection: Connection) -> views.Explanation:
    """What the plane itself would do, and what staged policies would change. The names are the caller's to fill in."""
    c = connection
    egress, ingress = Judged(program, plane.judge).sides(c)
    found = views.Explanation(
        source=str(c.source),
        destination=str(c.destination),
        source_address=str(c.source),
        destination_address=str(c.destination),
        protocol=protocol_text(c.protocol, c.destination_port),
        allowed=egress.allowed and ingress.allowed,
        egress=egress,
        ingress=ingress,
        flow=plane.has_flow(c.source, c.destination, c.protocol, c.source_port, c.destination_port),
    )
    if staged is not None:
        sides = staged.sides(c)
        if sides != (egress, ingress):
            found.staged_allowed = sides[0].allowed and sides[1].allowed
            found.staged_egress, found.staged_ingress = sides
    return found


def explain_open(connection: Connection) -> views.Explanation:
    """Where no policy restricts anything, nobody is asked."""
    c = connection
    sides = [views.Decision(direction, True, "default", here=True) for direction in ("egress", "ingress")]
    return views.Explanation(
        str(c.source), str(c.destination), str(c.source), str(c.destination),
        protocol_text(c.protocol, c.destination_port), True, sides[0], sides[1],
    )  # fmt: skip


def _decided(
    program: Program, row: int, connection: Connection, direction: Direction, *, predict: bool
) -> views.Decision:
    from fastpath.values import ROW_NONE, ROW_OUTSIDE, ROW_OWN_NODE, ROW_SELF

    words = {ROW_SELF: (True, "self"), ROW_OWN_NODE: (True, "own-node"), ROW_NONE: (False, "nothing")}
    if row == ROW_OUTSIDE and not predict:
        return views.Decision(direction, True, "outside")
    if row == ROW_OUTSIDE:
        there = program.judge_direction(connection, direction)
        return _view(there, here=there.why == "outside")
    if row in words:
        allowed, why = words[row]
        return views.Decision(direction, allowed, why)
    return _view(program.explain(row))


def _view(decision: Decision, *, here: bool = True) -> views.Decision:
    d = decision
    return views.Decision(d.direction, d.allowed, d.why, d.tier, d.policy, d.rule, d.name, here)


# -- rules -------------------------------------------------------------------------
def rules(program: Program, counting: Counting, counts: Counts, wanted: str, *, counted: bool) -> list[views.Rule]:
    """Every rule in the order of judgement. `wanted`: part of a policy's name; `counted`: only what did something."""
    asked = _asked(program)
    _, first = np.unique(program.rows[:, RULE], return_index=True)
    numbers = counting.number(program)
    found = []
    for row in first.tolist():
        block = int(np.searchsorted(program.block_start, row, "right")) - 1
        source, index = program.sources[block], int(program.rows[row, RULE] - program.block_rule[block])
        number = int(numbers[row])
        flows, packets, size = (int(column[number]) if number < len(column) else 0 for column in counts)
        rule = _rule(source, index, int(program.rows[row, ACTION]), asked[block], (flows, packets, size))
        if wanted.lower() in rule.policy.lower() and (not counted or flows or packets):
            found.append(rule)
    return found


def _rule(source: Source, index: int, action: int, pods: int, counts: tuple[int, int, int]) -> views.Rule:
    words = source.decision(action, index)
    return views.Rule(
        words.tier, words.policy, source.direction, words.rule, Action(action).name.lower(), words.why, words.name, pods,
        *counts,
    )  # fmt: skip


def _asked(program: Program) -> list[int]:
    """For each block the number of addresses it is asked for."""
    uses = np.zeros(len(program.group_node), np.int64)
    for table in program.tables.values():
        uses += np.bincount(table.entry_group, minlength=len(uses))[: len(uses)]
    lengths = np.diff(program.group_offset)
    owner = np.repeat(np.arange(len(lengths)) // 2, lengths)
    found: list[int] = (
        np.bincount(program.group_blocks, uses[owner], minlength=len(program.block_start)).astype(np.int64).tolist()
    )
    return found


# -- flows -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class FlowFilter:
    """None and 0: any."""

    within: tuple[Prefix, ...] = ()  # one of both ends lies in one of these
    protocol: int = -1
    port: int = -1
    denied: bool = False

    @property
    def narrow(self) -> bool:
        return bool(self.within) or self.protocol >= 0 or self.port >= 0 or self.denied

    def rows(self, found: NDArray[Any]) -> NDArray[Any]:
        kept = np.ones(len(found), bool)
        if self.protocol >= 0:
            kept &= found["protocol"] == self.protocol
        if self.port >= 0:
            kept &= (found["source_port"] == self.port) | (found["destination_port"] == self.port)
        if self.denied:
            kept &= found["kind"] == 0
        found = found[kept]
        if self.within:
            ends = (found["source"], found["destination"])
            inside = [any(_in(row, self.within) for row in pair) for pair in zip(*ends, strict=True)]
            found = found[np.array(inside, bool)]
        return found


def _in(octets: object, prefixes: Iterable[Prefix]) -> bool:
    address = address_of(octets)
    return any(address.version == prefix.version and address in prefix for prefix in prefixes)


def address_of(octets: object) -> Address:
    """16 bytes, IPv4 as IPv6 maps it."""
    found = IPv6Address(bytes(octets))  # type: ignore[call-overload]
    mapped: IPv4Address | None = found.ipv4_mapped
    return found if mapped is None else mapped


class Names:
    """The names of addresses, from one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._names: dict[Address, str] = {}
        for key in sorted(snapshot.endpoints, reverse=True):
            endpoint = snapshot.endpoints[key]
            if not endpoint.host_network:
                self._names.update(dict.fromkeys(endpoint.addresses, key))

    def __call__(self, address: Address) -> str:
        return self._names.get(address, "")


def flows(
    plane: Plane, counting: Counting, names: Callable[[Address], str], wanted: FlowFilter, cursor: int, limit: int
) -> views.Flows:
    """A page of about `limit` flows; the search for them ends after many that are not wanted, with a cursor to go on."""
    found: list[views.Flow] = []
    at: int | None = cursor
    looked = 0
    while at is not None and len(found) < limit and looked < 1 << 18:
        page, at = plane.flows(at, PAGE if wanted.narrow else min(PAGE, limit - len(found)))
        looked += max(len(page), 1)
        found += [_flow(row, counting, names) for row in wanted.rows(page)]
    counters = plane.flow_counters()
    return views.Flows(found, at, counters.get("live", 0), counters.get("capacity", 0))


def _flow(row: Any, counting: Counting, names: Callable[[Address], str]) -> views.Flow:
    from fastpath.values import FLOW_STATES

    source, destination = address_of(row["source"]), address_of(row["destination"])
    allowed = int(row["kind"]) == 1
    egress, ingress = (_words(counting, int(number), allowed=allowed) for number in row["rules"])
    state = int(row["state"])
    return views.Flow(
        source=str(source),
        destination=str(destination),
        protocol=_protocol_name(int(row["protocol"])),
        source_port=int(row["source_port"]),
        destination_port=int(row["destination_port"]),
        state=FLOW_STATES[state] if state < len(FLOW_STATES) else str(state),
        verdict="allowed" if allowed else "denied",
        source_name=names(source),
        destination_name=names(destination),
        egress=egress,
        ingress=ingress,
        packets=int(row["packets"][0]),
        bytes=int(row["bytes"][0]),
        reply_packets=int(row["packets"][1]),
        reply_bytes=int(row["bytes"][1]),
        age=round(float(row["age"]), 1),
        idle=round(float(row["idle"]), 1),
        expires=round(float(row["expires"]), 1),
        generation=int(row["generation"]),
    )


def _words(counting: Counting, number: int, *, allowed: bool) -> str:
    """Policy and rule behind a counter; empty where nobody was judged, or the rule is gone."""
    decision = counting.decision(number, allowed=allowed)
    if decision is None:
        return ""
    return (
        f"{decision.policy} rule {decision.rule}"
        if decision.rule >= 0
        else " ".join(filter(None, (decision.why, decision.policy or decision.tier)))
    )


def protocol_text(protocol: int, port: int) -> str:
    name = _protocol_name(protocol)
    if protocol in PORT_PROTOCOLS:
        return f"{name}/{port}"
    return f"{name}/{port >> 8}/{port & 255}" if protocol in ICMP_PROTOCOLS else name


def _protocol_name(protocol: int) -> str:
    return PROTOCOL_NUMBERS.get(protocol, str(protocol)).lower()


# -- the flow log ------------------------------------------------------------------
def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def event_lines(
    events: NDArray[Any], counting: Counting, names: Callable[[Address], str], staged: Judged | None
) -> list[Mapping[str, object]]:
    """One object for each event, as the flow log has it."""
    from fastpath.values import FLOW_EVENTS

    kinds = {value: name for name, value in FLOW_EVENTS.items()}
    began = time.time_ns() - time.monotonic_ns()
    return [_event(row, kinds.get(int(row["kind"]), "event"), began, counting, names, staged) for row in events]


def _event(
    row: Any, kind: str, began: int, counting: Counting, names: Callable[[Address], str], staged: Judged | None
) -> Mapping[str, object]:
    source, destination = address_of(row["source"]), address_of(row["destination"])
    protocol, ports = int(row["protocol"]), (int(row["source_port"]), int(row["destination_port"]))
    line: dict[str, object] = {
        "time": datetime.fromtimestamp((began + int(row["time_ns"])) / 1e9, UTC).isoformat(timespec="milliseconds"),
        "event": kind,
        "source": str(source),
        "destination": str(destination),
        "protocol": _protocol_name(protocol),
        "source_port": ports[0],
        "destination_port": ports[1],
    }
    for key, address in (("source_name", source), ("destination_name", destination)):
        if name := names(address):
            line[key] = name
    for direction, number in zip(("egress", "ingress"), row["rules"], strict=True):
        decision = counting.decision(int(number), allowed=kind != "denied")
        if decision is not None:
            line[direction] = {
                "why": decision.why, "tier": decision.tier, "policy": decision.policy, "rule": decision.rule,
            }  # fmt: skip
    if kind == "closed":
        line |= {
            "packets": int(row["packets"][0]), "bytes": int(row["bytes"][0]),
            "reply_packets": int(row["packets"][1]), "reply_bytes": int(row["bytes"][1]), "age": round(float(row["age"]), 3),
        }  # fmt: skip
    if staged is not None and kind in ("new", "denied"):
        asked = ECHO.get(protocol, ports[1])  # what opens a flow of ICMP is a query; its port is an identifier
        sides = staged.sides(Connection(source, destination, protocol, asked, ports[0]), predict=False)
        line["staged"] = {"allowed": all(side.allowed for side in sides)} | {
            side.direction: {"allowed": side.allowed, "why": side.why, "policy": side.policy, "rule": side.rule}
            for side in sides
            if side.why != "outside"
        }
    return line
