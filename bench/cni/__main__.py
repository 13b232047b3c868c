"""Measures ADD and DEL of the CNI plugin beside the reference `bridge` + `host-local`, in turn.

Owns: one daemon in a namespace that plays the host, containers' namespaces, and the clock around each plugin.
Never: compares figures of two runs.

    python -m bench.cni --name 2026-01-31-cni      root; needs Debian's containernetworking-plugins

What a runtime waits for is measured: from the start of the plugin's process to
its end. Single calls alternate between the two sides, and so do bursts. The
JSON has every sample; the table and the pictures are made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench.cni import report
from engine.lab.contest import machine
from engine.netns import setns
from engine.version import version
from tests.engine.cni.runtime import PLUGINS, SHIM
from tests.engine.namespaces import namespaces, path_of
from tests.engine.nodes import two_nodes

ROOT = Path(__file__).parents[2]
FAMILIES = {"IPv4": [4], "IPv4 and IPv6": [4, 6]}


class Side:
    """One plugin and its configuration for each choice of families."""

    def __init__(self, program: Path, configuration: Callable[[list[int]], dict]) -> None:
        self.program = program
        self.texts = {name: json.dumps(configuration(versions)).encode() for name, versions in FAMILIES.items()}

    def start(self, verb: str, families: str, container: str, namespace: str) -> subprocess.Popen:
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": path_of(namespace),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
            "PATH": os.environ["PATH"],
        }
        pipe = subprocess.PIPE
        process = subprocess.Popen([self.program], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
        process.stdin.write(self.texts[families])
        process.stdin.close()
        process.stdin = None
        return process


def finish(process: subprocess.Popen) -> None:
    output, complaints = process.communicate(timeout=120)
    if process.returncode:
        sys.exit(f"{process.args[0]} failed: {output.decode()} {complaints.decode()}")


def call(side: Side, verb: str, families: str, container: str, namespace: str) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    finish(side.start(verb, families, container, namespace))
    return (time.perf_counter() - began) * 1000


def burst(side: Side, verb: str, families: str, label: str, names: list[str]) -> float:
    """Milliseconds until all of them are done, started as fast as it goes."""
    began = time.perf_counter()
    running = [side.start(verb, families, f"{label}{number}", name) for number, name in enumerate(names)]
    for process in running:
        finish(process)
    return (time.perf_counter() - began) * 1000


def sides(node, folder: Path) -> dict[str, Side]:
    def ours(versions: list[int]) -> dict:
        paths = {"socket": str(node.folder / "cni.sock"), "spool": str(node.folder / "state" / "cni")}
        base = {"cniVersion": "1.0.0", "name": "ours", "type": "towpath-cni"}
        return {**base, **paths, "ipam": {"type": "towpath", "families": versions}}

    def reference(versions: list[int]) -> dict:
        subnets = {4: "10.200.0.0/16", 6: "fd00:200::/64"}
        ipam = {
            "type": "host-local",
            "dataDir": str(folder / "leases"),
            "ranges": [[{"subnet": subnets[version]}] for version in versions],
            "routes": [{"dst": {4: "0.0.0.0/0", 6: "::/0"}[version]} for version in versions],
        }
        base = {"cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "cni0", "isGateway": True}
        return {**base, "ipam": ipam}

    return {"towpath": Side(SHIM, ours), "bridge": Side(Path(PLUGINS) / "bridge", reference)}


def measure(found: dict[str, Side], names: list[str], rounds: int, bursts: int) -> list[dict]:
    matches = []
    for families in FAMILIES:
        single: dict[str, dict[str, list[float]]] = {verb: {side: [] for side in found} for verb in ("ADD", "DEL")}
        for number in range(rounds):
            order = list(found) if number % 2 == 0 else list(reversed(found))
            for verb in ("ADD", "DEL"):
                for place, side in enumerate(order):
                    name = names[(2 * number + place) % len(names)]
                    single[verb][side].append(call(found[side], verb, families, f"single{number}", name))
        for verb, samples in single.items():
            matches.append(
                {"what": f"{verb}, one after the other", "families": families, "unit": "ms", "samples": samples}
            )
        together: dict[str, dict[str, list[float]]] = {verb: {side: [] for side in found} for verb in ("ADD", "DEL")}
        for number in range(bursts):
            for side in list(found) if number % 2 == 0 else list(reversed(found)):
                for verb in ("ADD", "DEL"):
                    together[verb][side].append(burst(found[side], verb, families, f"burst{number}-", names))
        for verb, samples in together.items():
            what = f"{verb}, {len(names)} at once"
            matches.append({"what": what, "families": families, "unit": "ms", "samples": samples})
    return matches


def main() -> None:
    parser = argparse.ArgumentParser(description="ADD and DEL beside the reference bridge plugin.")
    parser.add_argument("--rounds", type=int, default=60, help="single calls of each side")
    parser.add_argument("--bursts", type=int, default=4, help="bursts of each side")
    parser.add_argument("--size", type=int, default=100, help="calls of a burst")
    parser.add_argument("--name", default=f"{datetime.now(UTC):%Y-%m-%d}-cni", help="of the report in docs/benchmarks")
    options = parser.parse_args()
    if not (Path(PLUGINS) / "bridge").exists():
        sys.exit("install containernetworking-plugins")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (node, _) = stack.enter_context(two_nodes(folder, pods=1))
        names = stack.enter_context(namespaces(options.size))
        node.extra = "[ipam]\ncooldown = 0"  # host-local has none: addresses go round
        node.write(pods=0, peers=False)
        node.start()
        descriptor = os.open(path_of(node.host), os.O_RDONLY)
        setns(descriptor)  # both plugins start in the namespace that plays the host
        found = sides(node, folder)
        for side in found.values():  # a first container of each, whose cost is not that of the next
            call(side, "ADD", "IPv4 and IPv6", "first", names[0])
            call(side, "DEL", "IPv4 and IPv6", "first", names[0])
        matches = measure(found, names, options.rounds, options.bursts)
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join(["python -m bench.cni", *sys.argv[1:]]),
        "machine": machine.describe(),
        "load": os.getloadavg()[0],
        "versions": {"towpath": version(), "reference": reference_version()},
        "matches": matches,
    }
    target = ROOT / "docs" / "benchmarks" / f"{options.name}.json"
    target.write_text(json.dumps(document, indent=1) + "\n")
    for path in report.write(target):
        print(path.relative_to(ROOT))
    print(report.table(document))


def reference_version() -> str:
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout or "unknown"


if __name__ == "__main__":
    main()
