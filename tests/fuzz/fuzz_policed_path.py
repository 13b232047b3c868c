"""Fuzzes the whole path under policy: `python -m tests.fuzz.fuzz_policed_path --seconds 30`.

A pod behind memory ports speaks with its peer's pod through a tunnel, honestly and not, while random policies of
all three languages (allow, deny, pass, log) are enforced by a compiled image and a small flow table: both families,
fragments, ICMP errors, super-packets, bent bytes. Three things are asked of every packet. The golden twins of path
and flows say what comes out and why nothing does. What comes out belongs to a conversation whose first packet the
slow evaluator allows; that is asked without the twin of flows, and also after policies changed under open ones.

Owns: drawing, and the time limit.
Invariant: exits with 1 when something else comes out, after printing seed, packet and reason.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace

from engine.apply.policy import policy_image
from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced, judged_here
from engine.desired.policy.model import Connection, Snapshot
from fastpath import reference
from fastpath.port.memory import Super
from fastpath.reference import PLAIN, TCP, UDP, Drop, Offload, Parsed
from fastpath.reference.flows import ERRORS, Key, Tracker, datagram_key, head_of, key_of, ports_of, quote_of
from fastpath.values import FLOW_EVENTS, Address, FlowSettings
from tests.engine.policy.generator import Generator
from tests.fastpath.conversations import Conversations
from tests.fastpath.network import MemoryNode, pair
from tests.fastpath.packets import changed, resealed
from tests.fastpath.test_whole_path import plain
from tests.fastpath.twin_path import Outcome, inbound, outbound, stripped, wrapped

EXACT = 16  # packets that the twins follow, who know no rates of answers; then policies change
AFTER = 48  # more, of which it is asked whether they may come out
WEIGHTS = (8, 4, 3, 3, 1, 4, 6)  # of conversations.KINDS
MANY = bytes(300)


class Scene:
    """Two nodes of which the first enforces; what was said between their pods, and what it opened."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        change = self.draw.choice(("keep", "revalidate"))
        self.settings = FlowSettings(
            capacity=1024, track="always", on_policy_change=change, events=frozenset(FLOW_EVENTS)
        )
        kind = self.draw.choice(("vxlan", "udp"))
        self.node, self.peer = pair(kind, super_packets=self.draw.random() < 0.5, flows=self.settings)
        self.compiler = Compiler()
        self.enforce()
        pods = {name: (str(node.pod4), str(node.pod6)) for name, node in (("a", self.node), ("b", self.peer))}
        self.conversations = Conversations(self.node, self.snapshot, self.draw, WEIGHTS, pods)
        self.twin = Tracker(self.verdict)
        self.opened: dict[Key, set[tuple[Address, Address, int, int, int]]] = {}
        self.begun: set[Key] = set()  # datagrams whose first fragment belongs to one of these

    # -- policy --------------------------------------------------------------
    def enforce(self) -> None:
        self.snapshot = world(self.draw.getrandbits(64), self.node, self.peer)
        program = self.compiler.update(self.snapshot)
        judged = judged_here(program, (self.node.pod4, self.node.pod6))
        self.node.plane.set_policy(policy_image(Enforced(program, judged)))

    def change(self) -> None:
        """Other policies. With "revalidate" what they deny is open no more."""
        self.enforce()
        if self.settings.on_policy_change == "revalidate":
            still = {key: {o for o in openers if self.verdict(*o) is not False} for key, openers in self.opened.items()}
            self.opened = {key: openers for key, openers in still.items() if openers}

    def verdict(self, source: Address, destination: Address, protocol: int, sport: int, dport: int) -> bool | None:
        own = (self.node.pod4, self.node.pod6)
        if source not in own and destination not in own:
            return None
        found = golden.judge(self.snapshot, Connection(source, destination, protocol, dport, sport))
        return (source not in own or found.egress.allowed) and (destination not in own or found.ingress.allowed)

    # -- drawing -------------------------------------------------------------
    def packet(self) -> tuple[bool, bytes, Offload]:
        """Whether the pod writes it, or the peer sends it, and the packet."""
        source, _, data = self.conversations.packet()
        self.conversations.said = [*self.conversations.said[-11:], data]
        outwards = (source in (self.node.pod4, self.node.pod6)) ^ (self.draw.random() < 0.03)
        if outwards and self.draw.random() < 0.15 and (offload := offload_of(data)) is not None:
            return True, grown(data), offload
        return outwards, self.bent(data), PLAIN

    def bent(self, data: bytes) -> bytes:
        if self.draw.random() < 0.1 and data[0] >> 4 == 6:
            data = extended(data)
        if self.draw.random() < 0.05:
            return resealed(changed(data, 8 if data[0] >> 4 == 4 else 7, bytes([self.draw.randrange(3)])))
        if self.draw.random() < 0.7:
            return data
        for _ in range(self.draw.randint(1, 3)):
            data = changed(data, self.draw.randrange(min(len(data), 100)), self.draw.randbytes(1))
        if self.draw.random() < 0.1:
            data = data[: self.draw.randint(1, len(data))]
        return resealed(data) if self.draw.random() < 0.7 else data

    # -- one packet ------------------------------------------------------------
    def step(self, *, exact: bool) -> None:
        outwards, data, offload = self.packet()

        def track(p: Parsed) -> None:
            self.note(p)
            if exact:
                self.twin.see(p, 0.0)

        payload = wrapped(self.peer, data)
        expected = outbound(self.node, data, offload, track) if outwards else inbound(self.node, payload, track=track)
        before = self.node.plane.counters()
        if outwards:
            start, field = offload.pending or (0, 0)
            sent = Super(data, offload.gso_type, offload.gso_size, start, field, offload.pending is not None)
            tunnel, pod = self.node.send(sent), self.node.pod.drain()
        else:
            pod, tunnel = self.node.receive(payload), self.node.tunnel.drain()
        out = Outcome(tuple(datagram.payload for datagram in tunnel), tuple(plain(pod)))
        said = f"{'to' if outwards else 'from'} the tunnel {data.hex()} {offload}"
        for each in (*out.to_pod, *(stripped(self.peer, each) for each in out.to_tunnel)):
            if not self.may_come_out(reference.parse(each, link_local=True)):
                raise AssertionError(f"{said}: {each.hex()} came out, and nobody allowed it")
        if exact:
            self.compare(said, expected, replace(out, reason=self.reason(before), n_segments=expected.n_segments))

    def reason(self, before: object) -> str | None:
        drops = self.node.plane.counters().drops
        return next((name for name, n in drops.items() if n != before.drops.get(name, 0)), None)

    @staticmethod
    def compare(said: str, expected: Outcome, found: Outcome) -> None:
        if found != expected:
            raise AssertionError(f"{said}: expected {expected}, found {found}")

    # -- what may come out ---------------------------------------------------------
    def note(self, p: Parsed) -> None:
        """A packet that may open a conversation does, as far as this asks: nobody looks at its state."""
        if p.later_fragment or is_error(p):
            return
        key = key_of(p.source, p.destination, p.protocol, head_of(p))
        opener = (p.source, p.destination, p.protocol, *ports_of(p))
        if self.verdict(*opener) is not False:
            self.opened.setdefault(key, set()).add(opener)
        if p.fragment and key in self.opened:
            self.begun.add(datagram_key(p))

    def may_come_out(self, p: Parsed) -> bool:
        if p.source in (self.node.gateway4, self.node.gateway6):
            return is_error(p)
        if p.later_fragment:
            return datagram_key(p) in self.begun
        if not is_error(p):
            return key_of(p.source, p.destination, p.protocol, head_of(p)) in self.opened
        quoted = quote_of(p)
        return quoted is not None and key_of(*quoted) in self.opened


def is_error(p: Parsed) -> bool:
    return (
        not p.later_fragment
        and p.data[p.transport : p.transport + 1] != b""
        and (p.data[p.transport] in ERRORS.get((p.family, p.protocol), ()))
    )


def world(seed: int, node: MemoryNode, peer: MemoryNode) -> Snapshot:
    """Random policies about two pods, which are those of the nodes."""
    snapshot = Generator(seed).snapshot()
    pods = [end for end in snapshot.endpoints.values() if not end.is_host][:2]
    homes = ((node.pod4, node.pod6), (peer.pod4, peer.pod6))
    moved = [replace(pod, addresses=home, host_network=False) for pod, home in zip(pods, homes, strict=True)]
    return replace(snapshot, endpoints={pod.key: pod for pod in moved})


def offload_of(data: bytes) -> Offload | None:
    """What the metadata of a packet with more payload would be; None where there are no super-packets."""
    try:
        p = reference.parse(data)
    except Drop:
        return None
    if p.fragment or p.protocol not in (TCP, UDP):
        return None
    kind = 5 if p.protocol == UDP else 1 if p.family == 4 else 4
    return Offload(kind, 100, (p.transport, 6 if p.protocol == UDP else 16))


def grown(data: bytes) -> bytes:
    """With more payload; the checksum is left to who splits it."""
    at, size = (2, len(data) + len(MANY)) if data[0] >> 4 == 4 else (4, len(data) + len(MANY) - 40)
    data = changed(data, at, size.to_bytes(2)) + MANY
    start = (data[0] & 15) * 4 if data[0] >> 4 == 4 else 40
    protocol = data[9] if data[0] >> 4 == 4 else data[6]
    return resealed(changed(data, start + 4, (len(data) - start).to_bytes(2)) if protocol == UDP else data)


def extended(data: bytes) -> bytes:
    """With a header of destination options in front."""
    size = int.from_bytes(data[4:6]) + 8
    return data[:4] + size.to_bytes(2) + bytes([60]) + data[7:40] + bytes([data[6], 0, 1, 4, 0, 0, 0, 0]) + data[40:]


def one_scene(seed: int) -> int:
    scene = Scene(seed)
    try:
        for _ in range(EXACT):
            scene.step(exact=True)
        scene.change()
        for _ in range(AFTER):
            scene.step(exact=False)
    except AssertionError as error:
        raise SystemExit(f"seed {seed}: {error}") from error
    return EXACT + AFTER


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--seed", type=int, help="this one scene")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        print(one_scene(chosen.seed), "packets")
        return 0
    end = time.monotonic() + chosen.seconds
    first = seed = time.time_ns()
    packets = 0
    while time.monotonic() < end:
        packets += one_scene(seed)
        seed += 1
    print(f"{packets} packets under policy: nothing else comes out than may (seeds from {first})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
