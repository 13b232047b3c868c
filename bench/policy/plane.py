"""Measures policy in the data plane: new flows, the price of established ones, growth with the number of rules.

    python -m bench.policy.plane [--quick] [--draw FOLDER] > result.json

Owns: the order of the runs. What is compared runs in turn, round after round.
  new flows    judged and entered into the flow table, without ports: each question new to the memo
               ("scanned"), or all of one memo entry ("remembered")
  established  64-byte packets through memory ports and the whole loop, with and without the policy
  growth       the same, and scans, from 0 to 20,000 rules
Never: generates rules (`workload` does).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.cy.probe_flow import FlowProbe

from bench.policy.workload import hardened, production
from engine.apply.policy import policy_image
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import Snapshot
from fastpath.table.flow import FlowTable
from fastpath.table.policy import PolicyImage
from fastpath.values import FlowSettings
from tests.fastpath.cluster import ACK, SYN, segment
from tests.fastpath.network import MemoryNode, pair

BATCH = 2048
U32 = NDArray[np.uint32]


def image_of(snapshot: Snapshot) -> PolicyImage:
    return policy_image(Enforced(Compiler().compile(snapshot)))


def questions(snapshot: Snapshot, count: int, *, alike: bool) -> U32:
    """(source, destination, protocol, port): from the endpoints to addresses in and out of the sets."""
    draw = random.Random(7)
    sources = [int(endpoint.addresses[0]) for endpoint in snapshot.endpoints.values()]
    members = [int(net.network_address) for network_set in snapshot.sets for net in network_set.nets]
    rows = np.empty((count, 4), np.uint32)
    rows[:, 0] = draw.choices(sources, k=count)
    rows[:, 1] = draw.choices([*draw.sample(members, 20_000), *(draw.randrange(1 << 32) for _ in range(5000))], k=count)
    rows[:, 2] = draw.choices((6, 6, 17, 132), k=count)
    rows[:, 3] = [draw.randrange(1, 65_536) for _ in range(count)]
    if alike:
        rows[:] = rows[0]
    return rows


def new_flows(rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    """M a second: judged alone, and judged with the insertion of the flow."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, snapshot in (("production", production()), ("hardened", hardened())):
        image = image_of(snapshot)
        asked = {kind: questions(snapshot, count, alike=kind == "remembered") for kind in ("scanned", "remembered")}
        for _ in range(rounds):
            for kind, rows in asked.items():
                for insert in (False, True):
                    probe = FlowProbe(FlowTable(FlowSettings(capacity=131_072, quota=1 << 24)))
                    if insert:
                        probe.fill(1 << 40, 60_000, 4, False)  # pages are there, as in a table in use
                    ns, _ = probe.new_flows(image, rows, 0, insert)
                    what = f"{name}, {kind}, {'judged and entered' if insert else 'judged'}"
                    found.setdefault(what, {"M/s": [], "share scanned": []})["M/s"].append(1000 / ns)
                    counts = probe.counts
                    share = counts["scans"] / max(counts["scans"] + counts["hits"], 1)
                    found[what]["share scanned"].append(share)
    return found


# -- established flows ---------------------------------------------------------
def with_pod(snapshot: Snapshot, node: MemoryNode) -> Snapshot:
    """The workload's first endpoint is the node's pod."""
    key, endpoint = next(iter(snapshot.endpoints.items()))
    mine = replace(endpoint, addresses=(node.pod4,))
    return replace(snapshot, endpoints={**snapshot.endpoints, key: mine})


def stream(node: MemoryNode, other: MemoryNode, flows: int) -> U32:
    """BATCH segments of established connections from the pod, 64 bytes each."""
    rows = [
        np.frombuffer(
            segment(node.pod4, other.pod4, ACK, sport=10_000 + i, dport=80, seq=1001, ack=5001, payload=bytes(24)),
            np.uint8,
        )
        for i in range(flows)
    ]
    return np.ascontiguousarray(np.stack(rows)[np.arange(BATCH) % flows])


def tracked(node: MemoryNode, other: MemoryNode, flows: int, image: PolicyImage) -> None:
    """Open connections while nothing is judged, then put the policy in force: flows are kept."""
    a, b = node.pod4, other.pod4
    for i in range(flows):
        node.pod.inject([segment(a, b, SYN, sport=10_000 + i, dport=80, seq=1000)])
        node.turn()
        node.tunnel.discard()
    node.plane.set_policy(image)


def turn(node: MemoryNode, rows: U32) -> float:
    """Nanoseconds a packet of one batch through the loop."""
    node.tunnel.discard()
    node.pod.inject(rows)
    began = time.perf_counter_ns()
    while node.plane.turn():
        pass
    return (time.perf_counter_ns() - began) / len(rows)


def established(snapshot: Snapshot, rounds: int, flows: int) -> dict[str, list[float]]:
    """ns a packet without and with the policy, in turn."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    nodes = {}
    for name in found:
        always = FlowSettings(track="always", quota=1 << 20) if name == "with" else None
        nodes[name] = pair("vxlan", flows=always)
        if name == "with":
            tracked(*nodes[name], flows, image_of(with_pod(snapshot, nodes[name][0])))
    rows = stream(*nodes["with"], flows)
    for round_ in range(rounds + 20):
        for name, (node, _) in nodes.items():
            took = turn(node, rows)
            if round_ >= 20:
                found[name].append(took)
    assert nodes["with"][0].drops == nodes["without"][0].drops == {}
    assert len(nodes["with"][0].plane.flow_table) == flows
    return found


def cut(snapshot: Snapshot, rules: int) -> Snapshot:
    """The first policies, so many that there are about `rules` rules; no set without a rule that names it is left out."""
    return replace(snapshot, policies=snapshot.policies[: round(rules / 68)])


def growth(sizes: tuple[int, ...], rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    whole = hardened()
    for rules in sizes:
        part = cut(whole, rules)
        asked = questions(whole, count, alike=False)
        image = image_of(part)
        row: dict[str, list[float]] = {"judging a new flow": []}
        for _ in range(rounds // 4 + 1):
            probe = FlowProbe(FlowTable(FlowSettings(capacity=1024)))
            row["judging a new flow"].append(probe.new_flows(image, asked, 0, False)[0])
        row |= established(part, rounds, 64)
        found[str(rules)] = row
    return found


# -- the whole -------------------------------------------------------------------
def draw(result: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "towpath", "axes.spines.top": False, "axes.spines.right": False}
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5))
    rows = result["growth, ns"]
    sizes = [int(size) for size in rows]
    names = {
        "without": "established, no policy",
        "with": "established, with policy",
        "judging a new flow": "judging a new flow",
    }
    for name, label in names.items():
        middle = [median(row[name]) for row in rows.values()]
        low, high = ([np.percentile(row[name], q) for row in rows.values()] for q in (25, 75))
        axis.plot(sizes, middle, marker="o", label=label)
        axis.fill_between(sizes, low, high, alpha=0.2)
    axis.set_xlabel("rules (hardened workload, 500 endpoints)")
    axis.set_ylabel("ns, median and middle half")
    axis.set_ylim(0)
    axis.legend()
    figure.suptitle(f"Cost of a packet and of a new flow by number of rules · {result['machine']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(folder / "policy-growth.png", dpi=90)
    figure.savefig(folder / "policy-growth.svg", metadata={"Date": None})
    plt.close(figure)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def timed(name: str, run: Callable[[], Any]) -> Any:
    began = time.monotonic()
    found = run()
    print(f"-- {name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--draw", type=Path, help="a folder for the picture and the JSON")
    options = parser.parse_args()
    quick = options.quick
    sizes = (0, 2_000, 20_000) if quick else (0, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
    result = {
        "machine": processor(),
        "new flows": timed("new flows", lambda: new_flows(3 if quick else 7, 20_000 if quick else 50_000)),
        "established, ns": timed("established", lambda: established(production(), 100 if quick else 400, 64)),
        "growth, ns": timed("growth", lambda: growth(sizes, 40 if quick else 100, 10_000)),
    }
    for name, row in result["new flows"].items():
        rates, share = row["M/s"], median(row["share scanned"])
        print(
            f"{name:44} {median(rates):6.2f} M/s ({min(rates):.2f}-{max(rates):.2f}), {share:.0%} scanned",
            file=sys.stderr,
        )
    without, with_ = (median(result["established, ns"][name]) for name in ("without", "with"))
    print(f"established: {without:.1f} ns without, {with_:.1f} ns with: ratio {without / with_:.3f}", file=sys.stderr)
    for rules, row in result["growth, ns"].items():
        print(f"{int(rules):>6} rules: " + ", ".join(f"{k} {median(v):.1f}" for k, v in row.items()), file=sys.stderr)
    if options.draw:
        draw(result, options.draw)
        (options.draw / "policy-growth.json").write_text(json.dumps(result, indent=1) + "\n")
    else:
        json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
