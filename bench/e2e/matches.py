"""Who meets whom, on which underlay, at what.

Owns: the suites, and building the field of each match.
Never: measures or prints.
Invariant: all contenders of a match are up before its first sample, and each has a sample a round.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from bench.e2e.tool import LoadError, stream
from bench.e2e.workloads import DESTINATIONS, WORKLOADS, Workload
from bench.peers import PEERS, Programs, UnavailableError, install, join
from bench.policy.documents import write
from engine.lab import Lab, Profile
from engine.lab.contest import Contender, Field, Measurement, Sample, play
from engine.lab.contest.processor import process_seconds
from engine.lab.traffic import TrafficError, ping

PROFILES = {"A": Profile.DEFAULT, "B": Profile.NO_TUNNEL, "C": Profile.DUMB}
PROFILE_TITLES = {"A": "default veth", "B": "no tunnel segmentation", "C": "dumb NIC"}


@dataclass(frozen=True, slots=True)
class Settings:
    pairs: int = 10
    seconds: float = 2.0  # of one sample
    profiles: tuple[str, ...] = tuple(PROFILES)
    workloads: tuple[str, ...] = ()  # of the suite's, all when empty
    large: bool = True  # growth to its ends
    growth: tuple[tuple[str, int], ...] = ()  # kinds and counts, all when empty


@dataclass(frozen=True, slots=True)
class Match:
    """One workload on one underlay, all samples of all its contenders."""

    suite: str
    workload: str
    title: str
    profile: str
    unit: str
    better: str
    contenders: dict[str, str]  # name -> title, ours first
    samples: list[Sample]


@dataclass(slots=True)
class Session:
    """What has been found so far. `say` tells a person what goes on."""

    settings: Settings
    say: Callable[[str], None]
    matches: list[Match] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def run(self, suite: str, workload: Workload, profile: str, contenders: Sequence[Contender]) -> None:
        seconds = self.settings.seconds
        self.say(f"{suite}: {workload.title}, profile {profile}")
        try:
            samples = play(
                contenders,
                lambda contender: workload.measure(contender, seconds),
                pairs=self.settings.pairs,
                advance=lambda s: self.say(f"  {s.contender:18} {s.measurement.value:9.3f} {workload.unit}"),
            )
        except (LoadError, TrafficError) as error:
            self.unavailable[f"{suite}, {contenders[0].title}, {workload.title}, {profile}"] = str(error)
            self.say(f"  failed: {error}")
        else:
            self.add(suite, workload, profile, contenders, samples)

    def add(
        self, suite: str, workload: Workload, profile: str, contenders: Sequence[Contender], samples: list[Sample]
    ) -> None:
        titles = {contender.name: contender.title for contender in contenders}
        self.matches.append(
            Match(suite, workload.name, workload.title, profile, workload.unit, workload.better, titles, samples)
        )

    def chosen(self, *names: str) -> Iterator[Workload]:
        wanted = self.settings.workloads
        return (WORKLOADS[name] for name in names if not wanted or name in wanted)


def _warm(contenders: Sequence[Contender]) -> None:
    """Neighbours found, routes cached, and proof that each carries packets."""
    for contender in contenders:
        for addresses in contender.addresses.values():
            for address in addresses:
                result = ping(contender.source, address, count=3)
                if result.received == 0:
                    raise RuntimeError(f"{contender.name} does not carry packets to {address}")


def overlay(session: Session) -> None:
    """TCP over three underlays, beside the kernel's VXLAN and no tunnel at all."""
    for letter in session.settings.profiles:
        with Lab("bench") as lab:
            ground = Field(lab, profile=PROFILES[letter])
            contenders = [ground.towpath(), ground.kernel_vxlan(), ground.kernel_vxlan_pods(), ground.veth()]
            _warm(contenders)
            for workload in session.chosen("tcp-1", "tcp-4", "tcp-16", "tcp-1-v6", "tcp-1-bbr", "iperf3"):
                session.run("overlay", workload, letter, contenders)


def packets(session: Session) -> None:
    """Datagrams a second and latency, on the default underlay."""
    with Lab("bench") as lab:
        ground = Field(lab)
        kernel = ground.kernel_vxlan(destinations=DESTINATIONS)
        contenders = [ground.towpath(destinations=DESTINATIONS), kernel, ground.veth()]
        _warm(contenders)
        names = ("64", "512", "1400", "64-gro", "64-2", "mixed")
        for workload in session.chosen("rr", "connect-rr", *(f"udp-{name}" for name in names)):
            session.run("packets", workload, "A", contenders)
        for workload in session.chosen("udp-many", "udp-mixed-many"):
            session.run("packets", workload, "A", contenders[:2])  # veth has one address


def local(session: Session) -> None:
    """Pod to pod on one node."""
    with Lab("bench") as lab:
        ground = Field(lab)
        ground.towpath(pods=2)
        contenders = [ground.local(), ground.bridge()]
        _warm(contenders)
        for workload in session.chosen("tcp-1", "tcp-4", "tcp-16", "rr", "udp-64", "udp-1400"):
            session.run("local", workload, "A", contenders)


def offload(session: Session) -> None:
    """TCP past the sockets beside TCP through them, each on a cable of its own."""
    for letter in session.settings.profiles:
        with Lab("bench") as lab:
            contenders = []
            for name, title in (("tap", "Towpath, past the sockets"), ("udp", "Towpath, sockets")):
                found = Field(lab, name[0], PROFILES[letter]).towpath(offload=name)
                contenders.append(replace(found, name=name, title=title))
            contenders.append(Field(lab, "k", PROFILES[letter]).kernel_vxlan())
            _warm(contenders)
            for workload in session.chosen("tcp-1", "tcp-4", "tcp-16", "tcp-1-v6", "rr"):
                session.run("offload", workload, letter, contenders)


WORKER_PODS = 4
FROM_PODS = Workload(
    "pods-4", f"TCP, {WORKER_PODS} pods, a stream each", "Gb/s", "higher", lambda _c, _s: Measurement(0)
)


def workers(session: Session) -> None:
    """A daemon of one worker beside one of two: one stream, several of one pod, and one each of several pods."""
    with Lab("bench") as lab:
        contenders, pods = [], {}
        for count in (1, 2):
            ground = Field(lab, f"w{count}")
            found = ground.towpath(pods=WORKER_PODS, workers=count)
            contenders.append(replace(found, name=f"workers-{count}", title=f"{count} workers"))
            pods[contenders[-1].name] = [replace(found, source=pod) for pod in ground.pods]
        _warm(contenders)
        for workload in session.chosen("tcp-1", "tcp-4", "udp-64"):
            session.run("workers", workload, "A", contenders)

        def measure(contender: Contender) -> Measurement:
            seconds = session.settings.seconds
            with ThreadPoolExecutor(WORKER_PODS) as threads:
                ways = pods[contender.name]
                found = threads.map(lambda way: stream(way, way.address(), 1, seconds)["gigabits"], ways)
                return Measurement(sum(found))

        session.say(FROM_PODS.title)
        samples = play(contenders, measure, pairs=session.settings.pairs)
        session.add("workers", FROM_PODS, "A", contenders, samples)


def peers(session: Session) -> None:
    """The other programs, each as its manual says, and Towpath among them."""
    programs: Programs = install()
    session.versions.update(programs.versions)
    with Lab("bench") as lab:
        ground = Field(lab)
        contenders = [ground.towpath()]
        for name in PEERS:
            try:
                contenders.append(join(name, ground, programs))
            except UnavailableError as error:
                session.unavailable[name] = str(error)
                session.say(f"{name} cannot be had: {error}")
        _warm(contenders)
        for workload in session.chosen("tcp-1", "tcp-4", "rr", "udp-64", "udp-1400"):
            session.run("peers", workload, "A", contenders)


def policy(session: Session) -> None:
    """A node whose pod's egress is judged by the production workload, and one without any policy, in turn."""
    with Lab("bench") as lab:
        judged, free = Field(lab, "j"), Field(lab, "f")
        folder = judged.nodes[0].directory / "policy"
        rules = write(folder)
        began = time.monotonic()
        under = judged.towpath(tables=[("policy", {"files": [str(folder)]})], seconds=120)
        session.say(f"policy: both nodes ready after {time.monotonic() - began:.1f} s")
        in_force = judged.daemons[0].ask("policy", "rules", "--limit", "1")["total"]
        if in_force < rules:
            raise RuntimeError(f"{in_force} of {rules} rules are in force")
        without = free.towpath()
        contenders = [
            Contender("policy", f"{rules:,} rules", under.source, under.target, under.addresses),
            Contender("open", "no policy", without.source, without.target, without.addresses),
        ]
        _warm(contenders)
        for workload in session.chosen("tcp-1", "udp-64", "rr", "connect-rr"):
            session.run("policy", workload, "A", contenders)


# -- growth --------------------------------------------------------------------
COUNTS = {"routes": (1_000, 10_000, 100_000, 1_000_000), "peers": (100, 5_000), "pods": (10, 100)}
_LARGE = 50_000  # more rows than this only with `large`
_FILE_HOLDS = 100_000  # static routes; more are put into the plane by the program that embeds the node


def growth(session: Session) -> None:
    """One stream and small datagrams through a node that has little, and one that has much, in turn."""
    chosen = [(kind, count) for kind, counts in COUNTS.items() for count in counts]
    for kind, count in session.settings.growth or chosen:
        if count <= _LARGE or session.settings.large:
            _grow(session, kind, count)


def _grow(session: Session, kind: str, count: int) -> None:
    with Lab("bench") as lab:
        small, large = Field(lab, "s"), Field(lab, "l")
        large.nodes[0].route("100.64.0.0/10", via="192.0.2.2")
        few, many = small.towpath(), None
        began = time.monotonic()
        try:
            many = large.towpath(
                pods=count if kind == "pods" else 1,
                tables=_tables(kind, count),
                seconds=120,
                program=_program(kind, count),
            )
        except (RuntimeError, OSError) as error:
            session.unavailable[f"growth: {count} {kind}"] = str(error).splitlines()[0]
            session.say(f"growth: {count} {kind}: {error}")
            return
        ready = time.monotonic() - began
        session.say(f"growth: {count:,} {kind}: both nodes ready after {ready:.1f} s")
        contenders = [
            Contender(f"{count}-{kind}", f"{count:,} {kind}", many.source, many.target, many.addresses),
            Contender(f"1-{kind}", f"1 {kind[:-1]}", few.source, few.target, few.addresses),
        ]
        _warm(contenders)
        for workload in session.chosen("tcp-1", "udp-64"):
            session.run(f"growth-{kind}", workload, "A", contenders)


def _program(kind: str, count: int) -> tuple[str, ...]:
    if kind != "routes" or count <= _FILE_HOLDS:
        return ()
    return (sys.executable, "-m", "bench.e2e.filled", str(count))


def _tables(kind: str, count: int) -> list[tuple[str, dict[str, object]]]:
    """What the large node's file has beyond the small one's."""
    if kind == "routes" and count <= _FILE_HOLDS:
        return [
            (
                "[routes]",
                {"prefix": f"{11 + (i >> 18)}.{i >> 10 & 255}.{i >> 2 & 255}.{(i & 3) << 6}/26", "via": ["lb"]},
            )
            for i in range(count)
        ]
    if kind == "peers":
        return [
            (
                "[peers]",
                {
                    "name": f"peer-{i}",
                    "underlay": [f"100.64.{i >> 8}.{i & 255}"],
                    "prefixes": [f"100.{80 + (i >> 8)}.{i & 255}.0/24"],
                },
            )
            for i in range(1, count)
        ]
    return []


# -- idle ----------------------------------------------------------------------
IDLE_PODS = 100
IDLE = Workload("idle", f"CPU of an idle daemon with {IDLE_PODS} pods", "%", "lower", lambda _c, _s: Measurement(0))


def idle(session: Session) -> None:
    """The daemon's own processor time while nobody sends."""
    with Lab("bench") as lab:
        ground = Field(lab)
        contender = ground.towpath(pods=IDLE_PODS, seconds=60)
        pid = ground.daemons[0].process.pid
        session.say(IDLE.title)
        time.sleep(3)  # the last of starting up: neighbour discovery, first timers

        def measure(_: Contender) -> Measurement:
            before, began = process_seconds(pid), time.monotonic()
            time.sleep(session.settings.seconds * 5)
            spent, elapsed = process_seconds(pid) - before, time.monotonic() - began
            return Measurement(spent / elapsed * 100, more={"seconds": spent, "elapsed": elapsed})

        samples = play([contender], measure, pairs=min(3, session.settings.pairs))
        session.add("idle", IDLE, "A", [contender], samples)


SUITES: dict[str, Callable[[Session], None]] = {
    "overlay": overlay,
    "packets": packets,
    "local": local,
    "offload": offload,
    "workers": workers,
    "peers": peers,
    "policy": policy,
    "growth": growth,
    "idle": idle,
}
