"""Does everybody reach everybody, how fast, and with packets of which size?

Owns: the questions put to a running cluster and the answers as plain values.
Never: judges speed: a slow network is a working one.
Invariant: `Survey.ok` only when every check was made and succeeded.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from engine.lab.cluster import Cluster, Family, Pod
from engine.lab.traffic import Responder, TrafficError, path_mtu, ping, tcp_echo, throughput, udp_echo

Protocol = Literal["icmp", "tcp", "udp"]
PROTOCOLS: tuple[Protocol, ...] = ("icmp", "tcp", "udp")
_AT_ONCE = 6  # checks under way together; each mostly waits


@dataclass(frozen=True, slots=True)
class Check:
    """One question between two pods; `detail` says what went wrong."""

    source: str
    target: str
    family: Family
    protocol: Protocol
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Measurements between two pods, in one family. None: it could not be measured, see `detail`."""

    source: str
    target: str
    family: Family
    same_node: bool
    rtt_ms: float | None
    gigabits: float | None
    path_mtu: int | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    checks: tuple[Check, ...]
    figures: tuple[Figure, ...]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks) and not any(f.detail for f in self.figures)


class Surveyor:
    """Asks a cluster's pods. `advance` is called with a word after every answer."""

    def __init__(self, cluster: Cluster, advance: Callable[[str], None] = lambda _: None) -> None:
        self.cluster = cluster
        self._advance = advance
        for pod in cluster.pods:
            Responder(pod.host)

    @property
    def steps(self) -> int:
        """How many answers there will be."""
        return len(list(self._questions())) + len(list(self._measured()))

    def survey(self, *, seconds: float = 0.5) -> Survey:
        """Every pair of pods by every protocol, then the figures; `seconds` for each TCP transfer."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            checks = tuple(pool.map(lambda question: self._check(*question), self._questions()))
        figures = tuple(self._figure(*measured, seconds) for measured in self._measured())
        return Survey(checks, figures)

    def _questions(self) -> Iterator[tuple[Pod, Pod, Family, Protocol]]:
        for source, target in permutations(self.cluster.pods, 2):
            for family in self.cluster.plan.inner:
                for protocol in PROTOCOLS:
                    yield source, target, family, protocol

    def _measured(self) -> Iterator[tuple[Pod, Pod, Family]]:
        first, *_ = self.cluster.nodes
        source = first.pods[0]
        for target in (first.pods[-1], self.cluster.nodes[-1].pods[0]):
            if target is not source:
                for family in self.cluster.plan.inner:
                    yield source, target, family

    def _check(self, source: Pod, target: Pod, family: Family, protocol: Protocol) -> Check:
        detail = ""
        try:
            _ask(source, target.addresses[family], protocol)
        except TrafficError as error:
            detail = str(error)
        self._advance(f"{protocol} {source.name} to {target.name}")
        return Check(source.name, target.name, family, protocol, not detail, detail)

    def _figure(self, source: Pod, target: Pod, family: Family, seconds: float) -> Figure:
        address = target.addresses[family]
        rtt, speed, size, detail = None, None, None, ""
        try:
            rtt = statistics.median(_round_trips(source, address))
            size = path_mtu(source.host, address)
            speed = throughput(source.host, target.host, address, seconds=seconds).gigabits
        except TrafficError as error:
            detail = str(error)
        self._advance(f"speed {source.name} to {target.name}")
        return Figure(source.name, target.name, family, source.node == target.node, rtt, speed, size, detail)


def _ask(source: Pod, address: str, protocol: Protocol) -> None:
    if protocol == "icmp":
        _round_trips(source, address, count=1)
    elif protocol == "tcp":
        tcp_echo(source.host, address)
    else:
        udp_echo(source.host, address)


def _round_trips(source: Pod, address: str, *, count: int = 100) -> tuple[float, ...]:
    result = ping(source.host, address, count=count)
    if not result.ok:
        said = f"; {result.errors[0]}" if result.errors else ""
        raise TrafficError(f"ping {address}: {result.received} of {result.sent} answered{said}")
    return result.times_ms
