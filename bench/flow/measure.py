"""Measures the flow table: lookups by size, inserts, and a flood of new tuples.

    python -m bench.flow.measure [--quick]

Owns: the order of the runs: every size in turn, round after round, so that a
busy moment meets them all alike. A lookup hashes, finds the record, and counts
a packet in it; keys come in an order like none.
Never: judges; the targets are printed beside the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from statistics import median

from tests.cy.probe_flow import FlowProbe

from fastpath.table.flow import FlowTable
from fastpath.values import FlowSettings

SIZES = (4_096, 16_384, 65_536, 262_144, 1_048_576)
TARGETS = {65_536: 50.0, 1_048_576: 25.0}  # M lookups a second


def filled(flows: int, family: int) -> FlowProbe:
    """A table about half full, as it should be run."""
    probe = FlowProbe(FlowTable(FlowSettings(capacity=2 * flows, quota=flows)))
    refused = probe.fill(0, flows, family)
    assert refused == (0, 0), refused
    return probe


def lookups(rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for family in (4, 6):
        probes = {size: filled(size, family) for size in SIZES}
        for _ in range(rounds):
            for size, probe in probes.items():
                for staged in (True, False):
                    name = f"IPv{family}, {'32 at once' if staged else 'one at a time'}"
                    rate = 1000 / probe.lookups(count, size, family, staged)
                    found.setdefault(name, {}).setdefault(str(size), []).append(rate)
    return found


def flood(tuples: int) -> dict[str, object]:
    """New tuples against a table of established flows: nothing of these may go, no memory may come."""
    established = 50_000
    probe = FlowProbe(FlowTable(FlowSettings(capacity=262_144, quota=1 << 24)))
    assert probe.fill(0, established) == (0, 0)
    probe.fill(established, 1_000_000, 4, established=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = probe.fill(2_000_000, tuples, 4, established=False)
    return {
        "tuples": tuples,
        "established before": established,
        "established after": probe.present(0, established),
        "refused (room, quota)": refused,
        "evicted": probe.counts["evicted"],
        "growth of memory, kB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    result = {"M lookups/s": lookups(3 if quick else 9, 200_000 if quick else 1_000_000)}
    result["flood"] = flood(200_000 if quick else 10_000_000)
    for name, sizes in result["M lookups/s"].items():
        for size, rates in sizes.items():
            target = f"  target {TARGETS[int(size)]:g}" if int(size) in TARGETS and name == "IPv4, 32 at once" else ""
            print(
                f"{name:24} {int(size):>9,} flows {median(rates):7.1f} M/s ({min(rates):.1f}-{max(rates):.1f}){target}",
                file=sys.stderr,
            )
    print(result["flood"], file=sys.stderr)
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
