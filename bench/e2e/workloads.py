"""What is done to a contender, and the one figure that comes of it.

Owns: the list of workloads.
Never: knows which contender it measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from bench.e2e import tool
from engine.lab import wait_until
from engine.lab.contest import Contender, Measurement
from engine.lab.traffic.flood import flood

IMIX = (64, 64, 64, 64, 64, 64, 64, 576, 576, 576, 576, 1400)  # 7:4:1, the usual "Internet mix"
DESTINATIONS = 15  # addresses of a pod


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    measure: Callable[[Contender, float], Measurement]  # with the seconds to measure for


def _stream(
    contender: Contender,
    seconds: float,
    *,
    streams: int = 1,
    family: Literal[4, 6] = 4,
    congestion: str = tool.CUBIC,
) -> Measurement:
    found = tool.stream(contender, contender.address(family), streams, seconds, congestion=congestion)
    return Measurement(found["gigabits"], found["gigabits"] * (seconds + tool.WARM_UP), {"least": found["least"]})


def _requests(contender: Contender, seconds: float, *, reconnect: bool = False) -> Measurement:
    found = tool.requests(contender, contender.address(), seconds, reconnect=reconnect)
    return Measurement(found["p50"], more=found)


def _flood(
    contender: Contender,
    seconds: float,
    *,
    sizes: tuple[int, ...] = (64,),
    senders: int = 1,
    merged: bool = False,
    destinations: int = 1,
) -> Measurement:
    addresses = contender.addresses[4][:destinations]
    found = flood(
        contender.source, contender.target, addresses, sizes=sizes, senders=senders, merged=merged, seconds=seconds,
        warm_up=tool.WARM_UP,
    )  # fmt: skip
    bits = found.rate * (seconds + tool.WARM_UP) * sum(sizes) / len(sizes) * 8
    return Measurement(found.rate / 1e6, bits / 1e9, {"sent": found.sent, "received": found.received})


def _iperf3(contender: Contender, seconds: float) -> Measurement:
    """One stream of iperf3 as it comes: the figure most people know, though half of it is iperf3's own cost."""
    server = contender.target.start(("iperf3", "-s", "-1"))
    argv = ("iperf3", "-c", contender.address(), "-t", str(max(1, round(seconds))), "-J")
    found: dict[str, Any] = {}

    def answered() -> bool:
        found.update(json.loads(contender.source.run(argv).stdout or "{}"))
        return "sum_received" in found.get("end", {})

    wait_until(answered, "iperf3's server to accept", seconds=10 + seconds)
    server.stop()
    rate = found["end"]["sum_received"]["bits_per_second"] / 1e9
    return Measurement(rate, rate * seconds)


def _tcp(streams: int, family: Literal[4, 6] = 4, congestion: str = tool.CUBIC) -> Workload:
    other = congestion if congestion != tool.CUBIC else ""
    name = f"tcp-{streams}" + ("-v6" if family == 6 else "") + (other and f"-{other}")
    title = f"TCP, {streams} stream{'s' * (streams > 1)}{', IPv6' * (family == 6)}" + (other and f", {other}")
    how = partial(_stream, streams=streams, family=family, congestion=congestion)
    return Workload(name, title, "Gb/s", "higher", how)


def _udp(name: str, title: str, **how: object) -> Workload:
    return Workload(f"udp-{name}", f"UDP, {title}", "Mpps", "higher", partial(_flood, **how))  # type: ignore[arg-type]


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _tcp(1),
        _tcp(4),
        _tcp(16),
        _tcp(1, 6),
        _tcp(1, congestion="bbr"),
        Workload("iperf3", "iperf3, 1 stream", "Gb/s", "higher", _iperf3),
        Workload("rr", "TCP request/response, p50", "us", "lower", _requests),
        Workload("connect-rr", "TCP connect + request, p50", "us", "lower", partial(_requests, reconnect=True)),
        _udp("64", "64 B"),
        _udp("512", "512 B", sizes=(512,)),
        _udp("1400", "1400 B", sizes=(1400,)),
        _udp("64-gro", "64 B, receiver with UDP_GRO", merged=True),
        _udp("64-2", "64 B, 2 senders", senders=2),
        _udp("mixed", "mixed sizes (IMIX)", sizes=IMIX),
        _udp("many", f"64 B, {DESTINATIONS} destinations", destinations=DESTINATIONS),
        _udp("mixed-many", f"IMIX, {DESTINATIONS} destinations", sizes=IMIX, destinations=DESTINATIONS),
    )
}
