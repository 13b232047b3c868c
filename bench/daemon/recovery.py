"""How long pods are without their network when the daemon is killed (kill -9) and started again at once.

    python -m bench.daemon.recovery            JSON and table into docs/benchmarks; root

Between two pods of the node a thousand numbered datagrams a second flow; a
recovery is from the kill to the arrival of the next one. What still happens
after that is told by the daemon's own word (READY=1), and what Python and the
imports alone take by a process that does nothing else.
Owns: the cases and their report.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.daemon.keeping import add_options, keep
from bench.daemon.test_start import node
from bench.e2e import report
from engine.lab import Lab
from engine.lab.contest.statistics import summarize
from engine.lab.daemon import Daemon
from engine.lab.traffic import Beat

PAUSE = 0.3  # seconds of quiet between two kills


@dataclass(slots=True)
class Case:
    """Seconds from each kill to the next datagram that arrived, and to READY=1."""

    pods: int  # at least two
    peers: int
    forwarding: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    imports: list[float] = field(default_factory=list)  # of a process that loads what a daemon does, and ends
    hertz: float = 0.0  # of the datagrams, as they were sent


def measure(pods: int, peers: int, rounds: int) -> Case:
    case = Case(pods, peers)
    with Lab("bench") as lab:
        daemon = node(lab, pods=pods, peers=peers)
        daemon.start(seconds=60)
        with Beat(lab["pod-1"], lab["pod-0"], "10.244.1.2") as beat:
            killed = [killed_and_started(daemon, beat, case) for _ in range(rounds)]
        case.forwarding = [beat.silence_after(moment) for moment in killed]
        case.hertz = beat.hertz
        daemon.stop()
    case.imports = [imported() for _ in range(rounds)]
    return case


def killed_and_started(daemon: Daemon, beat: Beat, case: Case) -> float:
    time.sleep(PAUSE)
    moment = time.monotonic()
    daemon.process.kill()
    daemon.start(seconds=60)
    case.ready.append(time.monotonic() - moment)
    beat.wait_for_one_sent_after(moment)
    return moment


def imported() -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import engine.cli.run, engine.daemon, fastpath.plane, fastpath.port.tun"], check=True
    )
    return time.monotonic() - began


# -- the report ----------------------------------------------------------------
def markdown(found: dict[str, Any], cases: Sequence[Case]) -> str:
    lines = [
        *report.heading("kill -9 and a new start", found),
        "Milliseconds: median (lowest - highest).",
        "",
        "| pods | peers | kills | kill to the next datagram | kill to READY=1 | Python and imports alone | datagrams a second |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        columns = (case.forwarding, case.ready, case.imports)
        cells = " | ".join(milliseconds(values) for values in columns)
        lines.append(f"| {case.pods} | {case.peers} | {len(case.forwarding)} | {cells} | {case.hertz:.0f} |")
    return "\n".join(lines) + "\n"


def milliseconds(values: Sequence[float]) -> str:
    found = summarize(values)
    return f"{found.median * 1e3:.0f} ({found.lowest * 1e3:.0f} - {found.highest * 1e3:.0f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.daemon.recovery", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="2:1,10:1,100:1,2:1000", help="PODS:PEERS, several")
    parser.add_argument("--rounds", type=int, default=10, help="kills of each case")
    add_options(parser)
    chosen = parser.parse_args()
    cases = [measure(*map(int, text.split(":")), chosen.rounds) for text in chosen.cases.split(",")]
    path, _ = keep(chosen, "recovery", cases, markdown)
    print(path.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
