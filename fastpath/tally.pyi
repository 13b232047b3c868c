"""What the workers counted, as one: sums over them, by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy import uint64
from numpy.typing import NDArray

from fastpath.crew import Crew
from fastpath.table.flow import FlowTable

@dataclass(frozen=True, slots=True)
class PortCounters:
    """Wire packets, and bytes as they pass the port (with the tunnel's header on a tunnel port)."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    dropped_packets: int

@dataclass(frozen=True, slots=True)
class Counters:
    """A moment's sums over all workers. Packets are wire packets: a super-packet counts its segments.

    received + created == sent + sum(drops.values()) whenever no burst is under way.
    """

    received: int
    created: int
    sent: int
    drops: Mapping[str, int]
    ports: Mapping[int, PortCounters]
    adjacencies: Mapping[int, tuple[int, int]]  # number -> (packets, bytes) sent
    events: Mapping[str, int]  # things that end no packet: see fastpath.events

class Tally:
    def __init__(self, crew: Crew, flows: FlowTable) -> None: ...
    def counters(self, ports: Iterable[int], adjacencies: Iterable[int]) -> Counters:
        """Those of all workers, and of the ports and adjacencies with these numbers."""
    def rules(self, count: int) -> tuple[NDArray[uint64], NDArray[uint64], NDArray[uint64]]:
        """Of the counters of rules below `count`: flows opened (or packets kept out), packets, bytes."""
    def take_flow_events(self) -> tuple[NDArray[Any], int]: ...
    def flows(self) -> dict[str, int]: ...
