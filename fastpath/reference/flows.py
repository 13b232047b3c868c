"""The golden twin of track and police: flows as objects in a dict, one packet at a time.

Owns: the meaning of a flow's states, of ICMP errors and of fragments, written
from docs/design/flows.md and not from the .pxd files.
Never: bounds its memory, is fast, or is used outside of tests.
Invariant: `see` returns when the packet goes on, or raises Drop with the
reason's name; what it was told before decides, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from fastpath.reference.packet import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    UDPLITE,
    Address,
    Drop,
    Parsed,
    drop_if,
)
from fastpath.reference.parsing import walk_extensions
from fastpath.values import FLOW_TIMEOUTS

# (source, destination, protocol, source port, destination port or ICMP type << 8 | code) ->
# whether it may be, None when neither end is an endpoint of this node.
Judge = Callable[[Address, Address, int, int, int], bool | None]
Key = tuple[object, ...]
QUERIES = {(4, ICMP): (8, 0), (6, ICMPV6): (128, 129)}
ERRORS = {(4, ICMP): {3, 4, 5, 11, 12}, (6, ICMPV6): {*range(128), 137}}
WORD = 1 << 32
FRAGMENT_SECONDS = 2.0


@dataclass
class Side:
    """What one end of a TCP connection has told of itself."""

    expects: int | None = None  # the sequence number it wants next
    window: int = 0  # the largest it offered
    scale: int | None = None
    spoke: bool = False
    closed: bool = False
    tag: int = 0  # SCTP: what its packets carry


@dataclass
class Flow:
    protocol: int
    opener: Address
    state: str
    seen: float
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    replied: bool = False

    @property
    def timeout(self) -> str:
        return "tcp_unacknowledged" if self.state == "tcp_established" and not self.replied else self.state


def behind(sequence: int, since: int) -> int:
    return (sequence - since) % WORD


# -- TCP ---------------------------------------------------------------------
@dataclass(frozen=True)
class Segment:
    flags: int
    sequence: int
    acknowledged: int
    window: int
    scale: int | None

    @classmethod
    def of(cls, p: Parsed) -> Segment:
        head = p.data[p.transport : p.payload]
        sequence, acknowledged, _, flags, window = struct.unpack_from("!IIBBH", head, 4)
        return cls(flags & (SYN | ACK | FIN | RST), sequence, acknowledged, window, scale_in(head[20:]))


def scale_in(options: bytes) -> int | None:
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or options[1] < 2 or options[1] > len(options):
            return None
        if options[:2] == b"\3\3":
            return min(options[2], 14)
        options = options[options[1] :]
    return None


def note(sides: tuple[Side, Side], sender: int, segment: Segment) -> None:
    if not segment.flags & ACK:
        return
    side, other = sides[sender], sides[1 - sender]
    scaled = not segment.flags & SYN and side.scale is not None and other.scale is not None
    if not side.spoke or 0 < behind(segment.acknowledged, side.expects or 0) < WORD // 2:
        side.expects = segment.acknowledged
    side.window = max(side.window, segment.window << (side.scale or 0) if scaled else segment.window, 1)
    side.spoke = True


def fits(sides: tuple[Side, Side], sender: int, sequence: int) -> bool:
    """The other end would take it."""
    other = sides[1 - sender]
    if not other.spoke:
        return other.expects is not None and behind(sequence + 1, other.expects) <= 1
    return behind(sequence, other.expects or 0) <= other.window


def open_tcp(p: Parsed, now: float, *, pickup: bool) -> Flow:
    segment = Segment.of(p)
    flow = Flow(TCP, p.source, "tcp_syn_sent", now)
    if segment.flags == SYN:
        flow.sides[0].scale = segment.scale
        flow.sides[1].expects = (segment.sequence + 1) % WORD
        return flow
    drop_if(not pickup or segment.flags & (SYN | RST) or not segment.flags & ACK, "flow_invalid")
    flow.state = "tcp_fin_wait" if segment.flags & FIN else "tcp_established"
    flow.sides[0].closed = bool(segment.flags & FIN)
    flow.sides[0].scale = flow.sides[1].scale = 14
    note(flow.sides, 0, segment)
    return flow


def follow_tcp(flow: Flow, sender: int, p: Parsed) -> bool:
    """True when the packet opens another flow instead."""
    segment, over = Segment.of(p), flow.state in ("tcp_time_wait", "tcp_close")
    if segment.flags == SYN:
        return over or follow_syn(flow, sender, segment)
    if segment.flags & RST:
        drop_if(segment.flags & (SYN | FIN), "flow_invalid")
        follow_reset(flow, sender, segment)
        return False
    drop_if(not segment.flags & ACK or segment.flags & (SYN | FIN) == SYN | FIN, "flow_invalid")
    if segment.flags & SYN:
        if sender == 1 and flow.state == "tcp_syn_sent":
            drop_if(segment.acknowledged != flow.sides[1].expects, "flow_invalid")
            flow.sides[1].scale = segment.scale
            flow.sides[0].expects = (segment.sequence + 1) % WORD
            flow.state = "tcp_syn_recv"
        drop_if(over, "flow_invalid")
        note(flow.sides, sender, segment)
        return False
    note(flow.sides, sender, segment)
    if segment.flags & FIN:
        follow_fin(flow, sender, segment)
    elif flow.state == "tcp_syn_recv" and sender == 0:
        flow.state = "tcp_established"
    elif flow.state == "tcp_fin_wait" and flow.sides[1 - sender].closed:
        flow.state = "tcp_close_wait"
    elif flow.state == "tcp_last_ack":
        flow.state = "tcp_time_wait"
    return False


def follow_syn(flow: Flow, sender: int, segment: Segment) -> bool:
    if sender == 1:
        drop_if(flow.state not in ("tcp_syn_sent", "tcp_syn_recv"), "flow_invalid")
        flow.state = "tcp_syn_recv"
    elif flow.state != "tcp_syn_sent":
        return False
    flow.sides[sender].scale = segment.scale
    flow.sides[1 - sender].expects = (segment.sequence + 1) % WORD
    return False


def follow_reset(flow: Flow, sender: int, segment: Segment) -> None:
    other = flow.sides[1 - sender]
    if flow.state == "tcp_syn_sent" and sender == 1:
        drop_if(not segment.flags & ACK or segment.acknowledged != flow.sides[1].expects, "flow_bad_rst")
    elif not other.spoke and not other.expects:
        return
    else:
        drop_if(not fits(flow.sides, sender, segment.sequence), "flow_bad_rst")
    flow.state = "tcp_close"


def follow_fin(flow: Flow, sender: int, segment: Segment) -> None:
    if flow.sides[1 - sender].spoke and not fits(flow.sides, sender, segment.sequence):
        return
    flow.sides[sender].closed = True
    if flow.sides[0].closed and flow.sides[1].closed:
        flow.state = "tcp_time_wait" if flow.state == "tcp_time_wait" else "tcp_last_ack"
    elif flow.state in ("tcp_established", "tcp_syn_recv"):
        flow.state = "tcp_fin_wait"


# -- SCTP --------------------------------------------------------------------
def chunk_of(p: Parsed) -> tuple[int, int, int, int]:
    """First chunk's type and flags, the packet's tag, and the tag an INIT or INIT ACK announces."""
    data = p.data[p.transport :]
    kind, flags = (data[12], data[13]) if len(data) >= 16 else (255, 0)
    announced = int.from_bytes(data[16:20], "big") if len(data) >= 20 else 0
    return kind, flags, int.from_bytes(data[4:8], "big"), announced


def open_sctp(p: Parsed, now: float, *, pickup: bool) -> Flow:
    kind, _, tag, announced = chunk_of(p)
    if kind == 1:
        return Flow(SCTP, p.source, "sctp_cookie_wait", now, (Side(), Side(tag=announced)))
    drop_if(not pickup or kind in (2, 6, 14, 255), "flow_invalid")
    return Flow(SCTP, p.source, "sctp_established", now, (Side(tag=tag), Side()))


def follow_sctp(flow: Flow, sender: int, p: Parsed) -> bool:
    kind, flags, tag, announced = chunk_of(p)
    waits = flow.state == "sctp_cookie_wait"
    if kind == 1:
        if flow.state == "sctp_closed":
            return True
        drop_if(sender == 1, "flow_invalid")
        if waits:
            flow.sides[1].tag = announced
    elif kind == 2:
        drop_if(sender == 0 or not waits, "flow_invalid")
        flow.sides[0].tag = announced
    elif kind == 10 and sender == 0 and waits:
        flow.state = "sctp_cookie_echoed"
    elif kind == 11 and sender == 1 and flow.state == "sctp_cookie_echoed":
        flow.state = "sctp_established"
    elif kind in (6, 14):
        expected = flow.sides[1 - sender if flags & 1 else sender].tag
        drop_if(expected not in (0, tag), "flow_bad_rst")
        flow.state = flow.state if expected == 0 else "sctp_closed"
    elif kind in (7, 8) and flow.state == "sctp_established":
        flow.state = "sctp_shutdown"
    return False


# -- keys --------------------------------------------------------------------
def key_of(source: Address, destination: Address, protocol: int, head: bytes | None) -> Key:
    """Equal for both directions; of an ICMP query also who asked."""
    if head is None:
        return frozenset((source, destination)), protocol
    if protocol in (TCP, UDP, UDPLITE, SCTP):
        ports = struct.unpack_from("!HH", head)
        return frozenset(((source, ports[0]), (destination, ports[1]))), protocol
    ask, tell = QUERIES.get((source.version, protocol), (None, None))
    if head[0] in (ask, tell):
        asker = source if head[0] == ask else destination
        return frozenset((source, destination)), protocol, asker, head[4:6]
    return frozenset((source, destination)), protocol


@dataclass
class Datagram:
    """A fragmented datagram whose first fragment passed."""

    until: float
    first: int
    reached: int
    dead: bool = False


class Tracker:
    """All flows of a node."""

    def __init__(self, judge: Judge, *, pickup: bool = True) -> None:
        self.judge, self.pickup = judge, pickup
        self.flows: dict[Key, Flow] = {}
        self.datagrams: dict[Key, Datagram] = {}

    def see(self, p: Parsed, now: float) -> None:
        if p.later_fragment:
            self.later(p, now)
        elif p.protocol in (ICMP, ICMPV6) and p.data[p.transport] in ERRORS.get((p.family, p.protocol), ()):
            self.error(p, now)
        else:
            self.conversation(p, now)
            if p.fragment:
                self.first(p, now)

    # -- conversations -------------------------------------------------------
    def conversation(self, p: Parsed, now: float) -> None:
        key = key_of(p.source, p.destination, p.protocol, head_of(p))
        flow = self.alive(key, now)
        if flow is not None:
            if not self.follow(flow, p, now):
                return
            del self.flows[key]
        allowed = self.judge(p.source, p.destination, p.protocol, *ports_of(p))
        drop_if(allowed is False, "policy_deny")
        ask, _ = QUERIES.get((p.family, p.protocol), (None, None))
        if ask is not None and p.data[p.transport] != ask:
            return
        try:
            self.flows[key] = self.open(p, now, query=ask is not None)
        except Drop:
            if allowed is not None:
                raise

    def alive(self, key: Key, now: float) -> Flow | None:
        flow = self.flows.get(key)
        if flow is not None and now - flow.seen >= FLOW_TIMEOUTS[flow.timeout]:
            del self.flows[key]
            return None
        return flow

    def open(self, p: Parsed, now: float, *, query: bool) -> Flow:
        if p.protocol == TCP:
            return open_tcp(p, now, pickup=self.pickup)
        if p.protocol == SCTP:
            return open_sctp(p, now, pickup=self.pickup)
        return Flow(p.protocol, p.source, "udp" if p.protocol == UDP else "icmp" if query else "generic", now)

    def follow(self, flow: Flow, p: Parsed, now: float) -> bool:
        sender = 0 if p.source == flow.opener else 1
        if p.protocol == TCP:
            again = follow_tcp(flow, sender, p)
        elif p.protocol == SCTP:
            again = follow_sctp(flow, sender, p)
        else:
            again = False
            if sender == 0 and flow.replied and flow.state == "udp":
                flow.state = "udp_stream"
        if not again:
            flow.seen = now
            flow.replied |= sender == 1
        return again

    # -- errors ----------------------------------------------------------------
    def error(self, p: Parsed, now: float) -> None:
        quoted = quote_of(p)
        drop_if(quoted is None, "icmp_bad_quote")
        assert quoted is not None
        source, destination, protocol, head = quoted
        drop_if(source != p.destination, "icmp_bad_quote")
        if self.alive(key_of(source, destination, protocol, head), now) is None:
            for ends in ((source, destination), (p.source, p.destination)):
                own = Parsed(p.data, *ends, p.family, p.protocol, 0, p.transport, p.payload)
                drop_if(self.judge(*ends, p.protocol, *ports_of(own)) is not None, "icmp_bad_quote")

    # -- fragments -------------------------------------------------------------
    def first(self, p: Parsed, now: float) -> None:
        known = self.datagram(p, now)
        if known is not None:
            known.dead = True
            raise Drop("fragment_overlap")
        carried = position_of(p)[1]
        self.datagrams[datagram_key(p)] = Datagram(now + FRAGMENT_SECONDS, carried, carried)

    def later(self, p: Parsed, now: float) -> None:
        known = self.datagram(p, now)
        drop_if(known is None, "fragment_unknown")
        assert known is not None
        position, carried, more = position_of(p)
        known.dead |= position < known.first
        drop_if(known.dead, "fragment_overlap")
        if position <= known.reached:
            known.reached = max(known.reached, position + carried)
        if not more and known.reached >= position + carried:
            del self.datagrams[datagram_key(p)]

    def datagram(self, p: Parsed, now: float) -> Datagram | None:
        known = self.datagrams.get(datagram_key(p))
        return known if known is not None and now < known.until else None


def head_of(p: Parsed) -> bytes | None:
    return p.data[p.transport :] if p.payload > p.transport else None


def ports_of(p: Parsed) -> tuple[int, int]:
    """Source port, and what policy takes for the destination port."""
    head = head_of(p)
    if head is None:
        return 0, 0xFFFF if p.protocol in (ICMP, ICMPV6) else 0
    first, second = struct.unpack_from("!HH", head)
    if p.protocol in (ICMP, ICMPV6):
        ask, tell = QUERIES[p.family, p.protocol]
        return struct.unpack_from("!H", head, 4)[0] if head[0] in (ask, tell) else 0, first
    return first, second


def quote_of(p: Parsed) -> tuple[Address, Address, int, bytes] | None:
    """Source, destination, protocol and transport header of what an ICMP error quotes, None when it is not usable."""
    head, data = p.data[p.transport :], p.data[p.transport + 8 :]
    maker = type(p.source)
    if p.fragment or impossible_mtu(p.family, head):
        return None
    if p.family == 4:
        if len(data) < 20 or data[0] >> 4 != 4:
            return None
        start, protocol = (data[0] & 15) * 4, data[9]
        if start < 20 or struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
            return None
        ends = data[12:16], data[16:20]
    else:
        if len(data) < 40 or data[0] >> 4 != 6:
            return None
        try:
            protocol, start, position = walk_extensions(data, data[6])
        except Drop:
            return None
        if position:
            return None
        ends = data[8:24], data[24:40]
    quoted = data[start:]
    if len(quoted) < 8:
        return None
    queries = QUERIES.get((p.family, protocol))
    if queries is not None and quoted[0] not in queries:
        return None
    return maker(ends[0]), maker(ends[1]), protocol, quoted


def impossible_mtu(family: int, head: bytes) -> bool:
    if family == 4:
        return head[0] == 3 and head[1] == 4 and 0 < struct.unpack_from("!H", head, 6)[0] < 576
    return head[0] == 2 and struct.unpack_from("!I", head, 4)[0] < 1280


def position_of(p: Parsed) -> tuple[int, int, bool]:
    """Where a fragment lies in its datagram, how many bytes it brings, and whether more follow."""
    if p.family == 4:
        (word,) = struct.unpack_from("!H", p.data, 6)
        return (word & 0x1FFF) * 8, len(p.data) - p.transport, bool(word & 0x2000)
    at = fragment_header(p.data)
    (word,) = struct.unpack_from("!H", p.data, at + 2)
    return word & ~7, len(p.data) - at - 8, bool(word & 1)


def datagram_key(p: Parsed) -> Key:
    if p.family == 4:
        return p.source, p.destination, p.data[4:6], p.protocol
    at = fragment_header(p.data)
    return p.source, p.destination, p.data[at + 4 : at + 8]


def fragment_header(data: bytes) -> int:
    kind, at = data[6], 40
    while kind != 44:
        kind, at = data[at], at + (data[at + 1] + 1) * 8
    return at
