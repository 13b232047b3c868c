"""A daemon with many pods and peers: how long it starts, what it holds, what one pod more costs, what it does idle.

    python -m bench.daemon.scale               JSON, table and plots into docs/benchmarks; root

Pods are added through the CNI plugin, as a container runtime does, each into a
namespace that was made before. Idle time is the scheduler's, in nanoseconds.
Owns: the cases and their report.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.daemon.keeping import add_options, keep
from bench.daemon.test_start import daemon_on_a_link, peer
from bench.e2e import report
from engine.lab import Lab
from engine.lab.contest.processor import process_seconds
from engine.lab.contest.statistics import summarize
from engine.lab.daemon import Daemon
from engine.lab.host import Host
from tests.engine.cni.runtime import Runtime

ENDS = 25  # pods: the first and the last so many are compared


@dataclass(slots=True)
class Case:
    """What one daemon with `peers` peers showed. Times in seconds, memory in MiB."""

    peers: int
    pods: int
    first_start: float = 0.0  # no pods
    memory_empty: float = 0.0
    add: list[float] = field(default_factory=list)  # one CNI ADD each, in order
    memory_full: float = 0.0
    descriptors: int = 0
    restart: float = 0.0  # after a clean stop, with all pods to take up again
    status: float = 0.0  # one `towpath status`
    idle: list[float] = field(default_factory=list)  # share of one processor, percent
    idle_seconds: float = 0.0

    @property
    def growth(self) -> float:
        """What the last ADDs cost, in the first ones."""
        return summarize(self.add[-ENDS:]).median / summarize(self.add[:ENDS]).median


def daemon_with(lab: Lab, peers: int) -> Daemon:
    daemon = daemon_on_a_link(lab)
    node = {"name": "node", "underlay": ["192.0.2.1/24"], "prefixes": ["10.244.0.0/22", "fd00:10:244::/64"]}
    daemon.configure([("node", node), *(("[peers]", peer(number)) for number in range(peers))])
    return daemon


def measure(peers: int, pods: int, idle: float, rounds: int) -> Case:
    case = Case(peers, pods)
    with Lab("bench") as lab:
        daemon = daemon_with(lab, peers)
        case.first_start = timed(lambda: daemon.start(seconds=120))
        case.memory_empty = memory(daemon)
        namespaces = [lab.pod(f"pod-{number}") for number in range(pods)]
        runtime = Runtime(daemon.directory / "cni.sock", daemon.directory / "state" / "cni")
        case.add = [added(runtime, number, pod) for number, pod in enumerate(namespaces)]
        case.memory_full = memory(daemon)
        case.descriptors = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
        case.status = timed(lambda: daemon.command("status"))
        say(f"{peers} peers: {pods} pods added, the last for {case.growth:.2f} times the first")
        daemon.stop()
        case.restart = timed(lambda: daemon.start(seconds=120))
        if idle:
            time.sleep(5)  # the last of starting up
            case.idle_seconds = idle
            case.idle = [idle_share(daemon.process.pid, idle) for _ in range(rounds)]
            say(f"idle: {', '.join(f'{share:.4f}' for share in case.idle)} %")
        daemon.stop()
    return case


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def added(runtime: Runtime, number: int, pod: Host) -> float:
    began = time.perf_counter()
    answer = runtime.add(f"container-{number}", pod.namespace.path)
    spent = time.perf_counter() - began
    if answer.status:
        raise RuntimeError(f"ADD {number}: {answer.output}{answer.complaints}")
    return spent


def memory(daemon: Daemon) -> float:
    """Resident, in MiB."""
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def idle_share(pid: int, seconds: float) -> float:
    before, began = process_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (process_seconds(pid) - before) / (time.monotonic() - began) * 100


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- the report ----------------------------------------------------------------
def markdown(found: dict[str, Any], cases: Sequence[Case]) -> str:
    lines = [
        *report.heading("A daemon with many pods and peers", found),
        (
            "| peers | start, no pods | start, all pods taken up | memory without, with pods | pods | CNI ADD, first 25 "
            "| last 25 | last / first | files open | `towpath status` | idle CPU |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        first, last = summarize(case.add[:ENDS]), summarize(case.add[-ENDS:])
        idle = summarize(case.idle) if case.idle else None
        lines.append(
            f"| {case.peers:,} | {case.first_start:.2f} s | {case.restart:.2f} s "
            f"| {case.memory_empty:.0f}, {case.memory_full:.0f} MiB | {case.pods} "
            f"| {first.median * 1e3:.1f} ms ({first.lower_quartile * 1e3:.1f} - {first.upper_quartile * 1e3:.1f}) "
            f"| {last.median * 1e3:.1f} ms ({last.lower_quartile * 1e3:.1f} - {last.upper_quartile * 1e3:.1f}) "
            f"| {case.growth:.2f} | {case.descriptors} | {case.status * 1e3:.0f} ms "
            f"| {f'{idle.median:.4f} % ({idle.lowest:.4f} - {idle.highest:.4f})' if idle else ''} |"
        )
    lines += ["", "ADD times are medians with the middle half; idle CPU is that of all threads, each sample "]
    lines[-1] += f"{max((case.idle_seconds for case in cases), default=0):g} s, lowest and highest in brackets."
    return "\n".join(lines) + "\n"


def draw(path: Path, cases: Sequence[Case], title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "towpath", "svg.fonttype": "none", "font.size": 9}
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for case in cases:
        axis.plot([spent * 1e3 for spent in case.add], linewidth=0.7, label=f"{case.peers:,} peers")
    axis.set(xlabel="pods there already", ylabel="CNI ADD, ms", ylim=(0, None), title=title)
    axis.legend(fontsize=7)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=110, metadata={"Date": None} if suffix == ".svg" else None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.daemon.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="1:250,5000:250", help="PEERS:PODS, several")
    parser.add_argument("--idle", type=float, default=60, help="seconds of an idle sample; 0: none")
    parser.add_argument("--rounds", type=int, default=1, help="idle samples")
    add_options(parser)
    chosen = parser.parse_args()
    cases = []
    for text in chosen.cases.split(","):
        peers, pods = map(int, text.split(":"))
        cases.append(measure(peers, pods, chosen.idle, chosen.rounds))
    path, found = keep(chosen, "daemon", cases, markdown)
    draw(path, cases, f"{found['date']} · {report.hardware(found['machine'])}")
    print(path.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
