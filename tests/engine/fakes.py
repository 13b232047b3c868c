"""Doubles of the data plane for tests of the control plane: they hold the contract of fastpath/plane.pyi."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import SimpleNamespace

import numpy as np

from engine import parse
from engine.apply.plane import Openers
from fastpath.values import Deliver, Encapsulate, Reject, Spread


def small_config(folder, more):
    """Of a node that makes nothing on the host and keeps its state in `folder`."""
    text = (
        '[node]\nname = "a"\nunderlay = ["127.0.0.1/8"]\nprefixes = ["10.1.0.0/24"]\n'
        f'[state]\ndirectory = "{folder}"\n[host]\nenabled = false\n'
    )
    return parse(text + more, file="test")


@dataclass
class FakePort:
    name: str
    log: list = field(default_factory=list)
    granted: int = 0
    kind: str = "udp"
    segments_max: int = 1
    is_open: bool = True
    exists: bool = True

    def close(self):
        assert self.is_open, f"{self.name} closed twice"
        self.is_open = False
        self.log.append(f"close {self.name}")

    def device_name(self):
        return self.name if self.exists else ""

    def delete(self):
        self.close()
        self.exists = False
        self.log.append(f"delete {self.name}")


class FakePlane:
    """Checks every reference that the real one checks, and remembers the order of calls in `log`."""

    def __init__(self):
        self.ports = {}
        self.adjacencies = {}
        self.table = {}
        self.peers = {}
        self.gateway = (None, None)
        self.policy = None
        self.refuses_policy = None  # the error that `set_policy` fails with
        self.running = False
        self.events = []
        self.log = []
        self._next_port = self._next_adjacency = 0
        self._bell, self._ringer = os.pipe()

    def __del__(self):
        os.close(self._bell)
        os.close(self._ringer)

    def fileno(self):
        return self._bell

    def attach(self, port):
        assert getattr(port, "is_open", True)
        self._next_port += 1
        self.ports[self._next_port] = port
        self.log.append(f"attach {port.name}")
        return self._next_port

    def detach(self, number):
        for adjacency in self.adjacencies.values():
            assert getattr(adjacency, "port", None) != number, "an adjacency still leads to the port"
        self.log.append(f"detach {self.ports.pop(number).name}")

    def update_port(self, number, *, addresses=None, mtu=None, bandwidth=None):
        self.log.append(f"update {self.ports[number].name}")

    def set_adjacency(self, value, number=None):
        if isinstance(value, (Deliver, Encapsulate)) and value.port not in self.ports:
            raise ValueError(f"no port {value.port}")
        if isinstance(value, Spread) and not (value.members and all(m in self.adjacencies for m in value.members)):
            raise ValueError("a member does not exist")
        if number is None:
            self._next_adjacency += 1
            number = self._next_adjacency
        elif number not in self.adjacencies:
            raise ValueError(f"no adjacency {number}")
        self.adjacencies[number] = value
        self.log.append(f"adjacency {number}")
        return number

    def remove_adjacency(self, number):
        if number in self.table.values():
            raise ValueError("a route refers to it")
        if any(isinstance(a, Spread) and number in a.members for a in self.adjacencies.values()):
            raise ValueError("a spread refers to it")
        del self.adjacencies[number]

    def set_route(self, prefix, adjacency):
        if adjacency not in self.adjacencies:
            raise ValueError(f"no adjacency {adjacency}")
        self.table[prefix] = adjacency
        self.log.append(f"route {prefix}")

    def remove_route(self, prefix):
        del self.table[prefix]
        self.log.append(f"unroute {prefix}")

    def change_routes(self, ipv4, ipv6):
        before = dict(self.table)
        try:
            for version, rows in (4, ipv4), (6, ipv6):
                if len(rows[0]):
                    self.set_routes(version, *rows)
        except BaseException:
            self.table = before
            raise

    def set_routes(self, version, addresses, lengths, adjacencies):
        network = IPv4Network if version == 4 else IPv6Network
        if unknown := set(adjacencies.tolist()) - {0, *self.adjacencies}:
            raise ValueError(f"no adjacency {unknown}")
        for address, length, adjacency in zip(addresses.tolist(), lengths.tolist(), adjacencies.tolist(), strict=True):
            number = address if version == 4 else address[0] << 64 | address[1]
            if adjacency:
                self.table[network((number, length))] = adjacency
            else:
                self.table.pop(network((number, length)), None)
        self.log.append(f"routes {len(lengths)}")

    def routes(self):
        return dict(self.table)

    def lookup(self, address):
        matches = [p for p in self.table if p.version == address.version and address in p]
        if not matches:
            return None
        best = max(matches, key=lambda p: p.prefixlen)
        return best, self.table[best]

    def set_peers(self, peers):
        self.peers = dict(peers)
        self.log.append("peers")

    def set_detour(self, adjacency):
        assert adjacency is None or adjacency in self.adjacencies
        self.detour = adjacency

    def export_flows(self):
        return b""

    export_detours = export_flows

    def import_flows(self, data):
        return 0

    import_detours = import_flows

    def set_policy(self, image):
        if self.refuses_policy is not None:
            raise self.refuses_policy
        self.policy = image
        self.log.append("policy" if image is not None else "no policy")

    def forget_flows(self, address):
        return 0

    def rule_counters(self):
        return (np.zeros(0, np.uint64),) * 3

    def set_gateway(self, ipv4, ipv6):
        self.gateway = (ipv4, ipv6)

    def start(self):
        self.running = True

    def stop(self):
        self.running = False

    def take_events(self):
        taken, self.events = self.events, []
        return taken

    def counters(self):
        port = SimpleNamespace(
            received_packets=3, received_bytes=300, sent_packets=2, sent_bytes=200, dropped_packets=1
        )
        return SimpleNamespace(
            received=3,
            created=0,
            sent=2,
            drops={"no_route": 1, "policy": 0},
            ports=dict.fromkeys(self.ports, port),
            adjacencies=dict.fromkeys(self.adjacencies, (2, 200)),
            events={"merges": 0},
        )

    def meaning(self, prefix):
        """The adjacency value a route leads to, spreads resolved."""
        value = self.adjacencies[self.table[prefix]]
        if isinstance(value, Spread):
            return tuple(self.adjacencies[member] for member in value.members)
        return value


class FakeKernel:
    """Opens ports that are not there; `refuse` maps a port's name to the error it fails with."""

    def __init__(self):
        self.log = []
        self.refuse = {}
        self.opened = {}

    def _open(self, name):
        if name in self.refuse:
            raise self.refuse[name]
        port = self.opened[name] = FakePort(name, self.log)
        self.log.append(f"open {name}")
        return port

    @property
    def openers(self):
        return Openers(lambda name, **_: self._open(name), lambda tunnel: self._open(tunnel.key))


REJECTED = Reject("unreachable")
