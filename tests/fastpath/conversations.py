"""Random conversations between two pods and a stranger, honest and not, and the twin's word on every packet.

Owns: drawing packets that are near to what a flow expects, so that every rule is met often.
Invariant: equal seeds give equal packets.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from engine.desired.policy import golden
from engine.desired.policy.model import Connection, Snapshot
from fastpath import reference
from fastpath.reference import ICMP, ICMPV6, UDP, Drop
from fastpath.reference.flows import Tracker
from fastpath.values import FLOW_STATES, Address
from tests.fastpath import packets
from tests.fastpath.cluster import MemoryCluster, datagram, sctp, segment
from tests.fastpath.policies import PODS

STRANGERS = {4: ip_address("198.51.100.7"), 6: ip_address("2001:db8::7")}
KINDS = ("tcp", "udp", "echo", "sctp", "other", "error", "fragment")
FLAGS = (2, 18, 16, 24, 17, 20, 4, 16, 16, 0, 3, 6, 1, 41)


def verdicts(snapshot: Snapshot) -> Callable[[Address, Address, int, int, int], bool | None]:
    def judge(source: Address, destination: Address, protocol: int, sport: int, dport: int) -> bool | None:
        verdict = golden.judge(snapshot, Connection(source, destination, protocol, dport, sport))
        if verdict.egress.why == verdict.ingress.why == "outside":
            return None
        return verdict.allowed

    return judge


@dataclass
class Conversations:
    """One cluster, its twin, and a generator that knows what was said."""

    cluster: MemoryCluster
    snapshot: Snapshot
    draw: random.Random
    weights: tuple[int, ...] = (8, 2, 2, 3, 1, 2, 2)  # of KINDS
    pods: Mapping[str, tuple[str, str]] = field(default_factory=lambda: PODS)  # the two that speak
    twin: Tracker = field(init=False)
    said: list[bytes] = field(default_factory=list)
    sequences: dict[tuple[object, ...], int] = field(default_factory=dict)
    reasons: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.twin = Tracker(verdicts(self.snapshot))

    # -- drawing ---------------------------------------------------------------
    def ends(self) -> tuple[Address, Address]:
        version = self.draw.choice((4, 6))
        a, b = (ip_address(addresses[version == 6]) for addresses in self.pods.values())
        pairs = [(a, b), (b, a), (a, b), (b, a), (STRANGERS[version], b), (b, STRANGERS[version])]
        return self.draw.choice(pairs)

    def packet(self) -> tuple[Address, Address, bytes]:
        a, b = self.ends()
        kind = self.draw.choices(KINDS, self.weights)[0]
        return self.error(a, b) if kind == "error" else (a, b, getattr(self, kind)(a, b))

    def ports(self, a: Address, b: Address) -> tuple[int, int]:
        """A small world: each pair has two connections, and the lower address is the client of one."""
        client, server = self.draw.choice((40_000, 40_001)), self.draw.choice((80, 80, 81))
        return (client, server) if (a < b) == (client == 40_000) else (server, client)

    def near(self, key: tuple[object, ...]) -> int:
        """A number near to where this side is."""
        base = self.sequences.setdefault(key, self.draw.randrange(1 << 32))
        return (base + self.draw.choice((0, 0, 0, 0, 1, 1, 2, 100, 512, 600, -1, 1 << 29, -(1 << 29)))) % (1 << 32)

    def tcp(self, a: Address, b: Address) -> bytes:
        sport, dport = self.ports(a, b)
        flags = self.draw.choice(FLAGS)
        options = self.draw.choice((b"", b"", b"\3\3\7\1", b"\2\4\5\xb4\3\3\2\0", b"\3\3\xff\0", b"\3\0\0\0"))
        mine, theirs = (a, sport, b, dport), (b, dport, a, sport)
        payload = self.draw.choice((b"", b"", b"data"))
        return segment(
            a, b, flags, sport=sport, dport=dport, seq=self.near(mine), ack=self.near(theirs), payload=payload,
            window=self.draw.choice((0, 100, 512)), options=options if flags & 2 else b"",
        )  # fmt: skip

    def udp(self, a: Address, b: Address) -> bytes:
        sport, dport = self.ports(a, b)
        return datagram(a, b, packets.udp(a, b, b"x", sport=sport, dport=dport), UDP)

    def echo(self, a: Address, b: Address) -> bytes:
        kinds = (8, 0, 13, 17) if a.version == 4 else (128, 129, 130, 200)
        protocol = ICMP if a.version == 4 else ICMPV6
        return datagram(
            a, b, packets.echo(a, b, kind=self.draw.choice(kinds), identifier=self.draw.choice((0, 7))), protocol
        )

    def sctp(self, a: Address, b: Address) -> bytes:
        sport, dport = self.ports(a, b)
        chunk = self.draw.choice((1, 1, 2, 10, 11, 0, 6, 7, 8, 14))
        return sctp(a, b, sport, dport, chunk, self.draw.choice((0, 0x11, 0x22)), self.draw.choice((0x11, 0x22)))

    def other(self, a: Address, b: Address) -> bytes:
        protocol = self.draw.choice((50, 89, 136, 255, 58 if a.version == 4 else 1))
        return datagram(a, b, bytes(self.draw.randrange(1, 255) for _ in range(16)), protocol)

    def error(self, a: Address, b: Address) -> tuple[Address, Address, bytes]:
        """About something that was said, sometimes a little changed, from anybody to its sender."""
        same = [data for data in self.said[-12:] if data[0] >> 4 == a.version]
        if not same:
            return a, b, self.udp(a, b)
        quoted = self.draw.choice(same)[: self.draw.choice((68, 68, 68, 68, 30, 24, 47))]
        if self.draw.random() < 0.2:
            at = self.draw.randrange(len(quoted))
            quoted = quoted[:at] + self.draw.randbytes(1) + quoted[at + 1 :]
        to = ip_address(quoted[12:16] if a.version == 4 else quoted[8:24])
        if to == a or self.draw.random() < 0.1:
            to = b
        known = {*STRANGERS.values(), *(ip_address(text) for texts in self.pods.values() for text in texts)}
        if to not in known or {a, to} <= set(STRANGERS.values()) or a == to:
            return a, b, self.udp(a, b)
        kind, code = self.draw.choice(((3, 1), (3, 4), (11, 0)) if a.version == 4 else ((1, 0), (2, 0), (3, 0)))
        body = struct.pack("!BBHI", kind, code, 0, self.draw.choice((0, 575, 576, 1279, 1280))) + quoted
        if a.version == 4:
            return a, to, datagram(a, to, body[:2] + struct.pack("!H", reference.checksum(body)) + body[4:], ICMP)
        return a, to, datagram(a, to, packets.filled(a, to, ICMPV6, body, 2), ICMPV6)

    def fragment(self, a: Address, b: Address) -> bytes:
        sport, dport = self.ports(a, b)
        whole = packets.udp(a, b, bytes(232), sport=sport, dport=dport)
        at = self.draw.choice((0, 0, 80, 160, 72, 64, 88))
        body, more, number = whole[at : at + 80], at < 160, self.draw.choice((1, 2))
        if a.version == 6:
            options, kind = self.draw.choice(((b"", UDP), (b"", UDP), (bytes([UDP, 0, 1, 4, 0, 0, 0, 0]), 60)))
            head = bytes([kind, 0]) + (at | more).to_bytes(2) + number.to_bytes(4)
            return packets.ipv6(head + (options + body if at == 0 else body), 44, source=a, destination=b)
        raw = bytearray(packets.ipv4(body, UDP, source=a, destination=b, fragment=at // 8 | (0x2000 if more else 0)))
        raw[4:6] = number.to_bytes(2)
        return packets.resealed(bytes(raw))

    # -- judging -----------------------------------------------------------------
    def expected(self, data: bytes) -> str | None:
        try:
            self.twin.see(reference.parse(data), 0.0)
        except Drop as drop:
            return drop.reason
        return None

    def step(self) -> None:
        a, b, data = self.packet()
        expected, before = self.expected(data), self.cluster.drops
        arrived = self.cluster.passes(a, b, data)
        grown = [name for name, n in self.cluster.drops.items() if n != before.get(name, 0)]
        assert (arrived, grown) == ((0, [expected]) if expected else (1, [])), (a, b, data.hex(), expected, grown)
        self.said.append(data)
        self.reasons.update(grown)
        self.said = self.said[-12:]

    def compare_states(self) -> None:
        rows, _ = self.cluster.plane.flows()
        assert sorted(FLOW_STATES[state] for state in rows["state"]) == sorted(f.state for f in self.twin.flows.values())
        assert sorted(rows["replied"].tolist()) == sorted(flow.replied for flow in self.twin.flows.values())
