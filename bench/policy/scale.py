"""Measures compilation and a one-pod label change on the scale workloads.

    python -m bench.policy.scale [production|hardened] [--repeat N] [--json]

Owns: the clock. Each figure is the median of the repetitions, with the
shortest and the longest beside it.
Never: generates rules (`workload` does).
Invariant: the program that was measured gives the probe's expected verdict.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from statistics import median

from bench.policy.workload import POD, PROBE, hardened, members, production
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.model import Connection, Snapshot

TARGETS_MS = {"compile, cold": 200.0, "label change, first after compile": 1.0, "label change": 1.0}


def timed(run: Callable[[], object], repeat: int) -> list[float]:
    """Milliseconds of processor time of each run, the collector held off as a daemon would."""
    found = []
    for _ in range(repeat):
        gc.collect()
        gc.disable()
        start = time.thread_time_ns()
        run()
        found.append((time.thread_time_ns() - start) / 1e6)
        gc.enable()
    return found


def measure(snapshot: Snapshot, repeat: int) -> dict[str, list[float]]:
    compiler = Compiler()
    found = {"compile, cold": timed(lambda: Compiler().compile(snapshot), repeat)}
    compiler.compile(snapshot)
    found["compile, rows kept"] = timed(lambda: compiler.compile(snapshot), repeat)
    pods = list(snapshot.endpoints.values())
    found["label change, first after compile"] = [first_change(compiler, snapshot) for _ in range(repeat)]
    count = iter(range(10**6))

    def change() -> None:
        number = next(count)
        pod = pods[number % len(pods)]
        compiler.relabel(replace(pod, labels={**pod.labels, "app": f"a{number * 7 % 20}", "group": f"g{number % 60}"}))

    found["label change"] = timed(change, max(repeat * 20, 100))
    return found


def first_change(compiler: Compiler, snapshot: Snapshot) -> float:
    """Into another group and another class, by labels that rules and policies ask for."""
    compiler.compile(snapshot)
    pod = next(iter(snapshot.endpoints.values()))
    changed = replace(pod, labels={**pod.labels, "app": "a3", "group": "g7", "set": "s1"})
    return timed(lambda: compiler.relabel(changed), 1)[0]


def verdict(snapshot: Snapshot, repeat: int) -> list[float]:
    program = Compiler().compile(snapshot)
    pod = next(iter(snapshot.endpoints.values())).addresses[0]
    probe = PROBE if pod == POD else Connection(pod, ip_address("198.51.100.20"), 6, 8080, 45_000)
    decision = program.judge_direction(probe, "egress")
    assert pod != POD or (not decision.allowed and decision.why == "end-of-tier"), decision
    return timed(lambda: program.judge_direction(probe, "egress"), repeat * 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="?", default="production", choices=("production", "hardened"))
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    snapshot = production() if options.workload == "production" else hardened()
    figures = measure(snapshot, options.repeat)
    figures["one verdict in numpy"] = verdict(snapshot, options.repeat)
    program = Compiler().compile(snapshot)
    facts = {
        "policies": len(snapshot.policies),
        "rows": len(program.rows),
        "sets": len(snapshot.sets),
        "members": members(snapshot),
        "endpoints": len(snapshot.endpoints),
        "classes": len(program.class_family),
        "groups": len(program.group_node),
        "bytes": program.size,
    }
    if options.json:
        json.dump({"workload": options.workload, **facts, "ms": figures}, sys.stdout)
        return 0
    print(options.workload, ", ".join(f"{value:,} {name}" for name, value in facts.items()))
    for name, runs in figures.items():
        target = f"  target {TARGETS_MS[name]:g}" if name in TARGETS_MS else ""
        print(f"{name:36} {median(runs):10.3f} ms  ({min(runs):.3f} - {max(runs):.3f}){target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
