"""What Python holds of the data plane: ports, tables, workers, counters."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, Self, TypeAlias

from numpy import uint8, uint32, uint64
from numpy.typing import NDArray

from fastpath.port.port import Port
from fastpath.table.fib import Fib
from fastpath.table.flow import FlowTable
from fastpath.table.policy import PolicyImage
from fastpath.table.qsbr import Reclaimer
from fastpath.tally import Counters
from fastpath.values import Address, Adjacency, Bandwidth, FlowSettings, Prefix

WORKERS_MAX: int
RouteRows: TypeAlias = tuple[
    NDArray[uint32] | NDArray[uint64], NDArray[uint8], NDArray[uint32]
]  # as set_routes has them

class Plane:
    """The data plane of one node.

    Every method may be called from one control thread at a time while the
    workers run; none of them stops forwarding. What is removed is freed after
    every worker has passed a quiescent point.
    """

    reclaimer: Reclaimer
    fib: Fib
    n_workers: int
    flow_table: FlowTable
    policy: PolicyImage | None  # in force
    policy_generation: int  # one more with every set_policy

    def __init__(
        self,
        *,
        workers: int = 1,
        hash_key: bytes | None = None,
        flows: FlowSettings | None = None,
        busy_poll: int = 0,
    ) -> None:
        """`workers` threads, 1 to 64; `hash_key`, 8 bytes, is random unless a test fixes it.

        `busy_poll`: for how many microseconds a worker looks for packets before it
        sleeps, while it pays; 0 to 10,000.
        """

    # -- ports -----------------------------------------------------------
    def attach(self, opened: Port) -> int:
        """Start to receive from a port; its number, stable until detached.

        ValueError beyond 1024 ports, and for a memory port on a plane of several workers.
        """
    def detach(self, number: int) -> None:
        """Stop using the port and wait until no worker sees it. Does not close it.

        KeyError for an unknown number; ValueError while an adjacency uses it.
        """
    def update_port(
        self,
        number: int,
        *,
        addresses: Iterable[Address] | None = None,
        mtu: int | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """Change what a pod may use as source, the MTU (bytes), or how fast it may send and receive, at once."""
    # -- tables ----------------------------------------------------------
    def set_adjacency(self, value: Adjacency, number: int | None = None) -> int:
        """Make adjacency `number` (a free one when None) mean `value`, at once, for every route to it.

        ValueError, and nothing changed, for a value that cannot be: an unknown
        port, a family that is not the tunnel's, a nested Spread.
        """
    def remove_adjacency(self, number: int) -> None:
        """KeyError when there is none; ValueError while a route or a Spread refers to it."""
    def set_route(self, prefix: Prefix, adjacency: int) -> None:
        """Add or replace the route for `prefix`. ValueError for an unknown adjacency."""
    def remove_route(self, prefix: Prefix) -> None:
        """KeyError when there is no route for exactly `prefix`."""
    def set_routes(
        self,
        version: Literal[4, 6],
        addresses: NDArray[uint32] | NDArray[uint64],
        lengths: NDArray[uint8],
        adjacencies: NDArray[uint32],
    ) -> None:
        """Add, replace or (adjacency 0) withdraw many routes of one family, as one change for every packet.

        `addresses`: uint32 of shape (n,) for version 4, uint64 of shape (n, 2), upper half first, for version 6,
        host order. ValueError, and nothing changed, for an unknown adjacency or a prefix that is none.
        """
    def change_routes(self, ipv4: RouteRows, ipv6: RouteRows) -> None:
        """As `set_routes`, with rows of both families as one change: all of them, or with an error none."""
    def routes(self) -> dict[Prefix, int]:
        """All routes, IPv4 first, in order of address and length."""
    def lookup(self, address: Address) -> tuple[Prefix, int] | None:
        """The longest match: prefix and adjacency number."""
    def set_peers(self, peers: Mapping[Address, int]) -> None:
        """Outer addresses whose packets are decapsulated, with the peer number of each."""
    def set_gateway(self, ipv4: IPv4Address | None, ipv6: IPv6Address | None) -> None:
        """Sources of the ICMP messages this node writes; None: it writes none of that family."""
    # -- policy and flows --------------------------------------------------
    def set_policy(self, image: PolicyImage | None) -> None:
        """Put an image in force, at once and as a whole, for what opens from now on; None: everything passes.

        Known flows are kept or judged once more, as FlowSettings.on_policy_change says. Flows are tracked
        while an image selects somebody (PolicyImage.selects), or always, as FlowSettings.track says.
        """
    def judge(
        self, source: Address, destination: Address, protocol: int, source_port: int = 0, destination_port: int = 0
    ) -> tuple[int, int]:
        """The rows that decide about a connection: egress of the source, ingress of the destination.

        `destination_port` of ICMP is type << 8 | code. Instead of a row one of ROW_OUTSIDE, ROW_SELF,
        ROW_OWN_NODE (all allow) and ROW_NONE (denies) of fastpath.values. Program.explain has words for a row.
        """
    def has_flow(
        self, source: Address, destination: Address, protocol: int, source_port: int = 0, destination_port: int = 0
    ) -> bool:
        """Whether a flow of these ends is known, whoever opened it (of ICMP queries: the source; the port is the id)."""
    def flows(self, cursor: int | None = 0, limit: int = 4096) -> tuple[NDArray[Any], int | None]:
        """A page of the live flows (dtype fastpath.table.flow.LISTING) and the cursor of the next, None at the end.

        `state` indexes FLOW_STATES; `kind` is 1, or 0 when a later policy denied the flow; `rules` are numbers of
        counters (PolicyImage), RULE_NONE where nobody was judged. [0] is the direction of the opener.
        """
    def forget_flows(self, whom: Address | Prefix) -> int:
        """Forget the flows of an address, or of all in a prefix; how many. Before the address of a pod that is gone is
        given again. What was published before is in every worker's sight: none of them comes back by it."""
    def rule_counters(self) -> tuple[NDArray[uint64], NDArray[uint64], NDArray[uint64]]:
        """Flows opened (or, by a denying rule, packets kept out), packets and bytes, by number of counter."""
    def take_flow_events(self) -> tuple[NDArray[Any], int]:
        """Events since the last call (rows as in `flows`; `kind` is a value of FLOW_EVENTS), and how many were
        suppressed for their rate or for lack of room."""
    def flow_counters(self) -> dict[str, int]:
        """live, capacity, opened, expired, evicted, memo_hits, scans, suppressed_events."""
    def export_flows(self) -> bytes:
        """The flow table for the process that takes over. After `stop`, or some packets are missing from it."""
    def import_flows(self, data: bytes) -> int:
        """Take over an export; how many flows. ValueError for anything else. Rules of imported flows are unknown."""
    # -- detours ---------------------------------------------------------
    def set_detour(self, adjacency: int | None) -> None:
        """Let the host hand back packets with a pod's source, and send the replies through `adjacency`, its port.

        For where the host's kernel changes the destinations of pods (services, ports of the host). None, as at the
        start: what the host sends with a pod's source is dropped. ValueError when it leads to no local port.
        """
    def export_detours(self) -> bytes:
        """The connections whose replies go through the host, for `import_detours` of another plane."""
    def import_detours(self, data: bytes) -> None:
        """Before `start`. ValueError for anything but the export of this version."""
    # -- life ------------------------------------------------------------
    def start(self) -> None:
        """Start the worker threads. RuntimeError when they run already."""
    def stop(self) -> None:
        """Stop the workers and wait for them. Idempotent; ports stay open and keep their queues."""
    def turn(self) -> int:
        """One pass over all ports in the calling thread, for tests and embedding without threads.

        Returns how many receives (super-packets count once) it served. RuntimeError while workers run.
        """
    # -- observing -------------------------------------------------------
    def counters(self) -> Counters: ...
    def fileno(self) -> int:
        """A descriptor that is readable when `take_events` has something, for a poll loop."""
    def take_events(self) -> list[tuple[str, int]]:
        """What the workers want the control plane to look at, once each:
        ("path-mtu", adjacency number) after a datagram did not fit the underlay,
        ("port-error", port number) when a device went away,
        ("shortcut", adjacency number) when the device of a shortcut takes no frames; packets go by sockets then."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
