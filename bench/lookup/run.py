"""Measures the lookup and its peers; writes JSON.  python -m bench.lookup.run [--quick] [--table FILE] [--only STEP...] OUT.json

Owns: what is measured against what.
Never: compares figures of different runs: contenders take turns.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import ipaddress
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.lookup import tables, traffic
from bench.lookup.hugepages import hugepages
from bench.lookup.measure import batches, each, gauge, in_turns, loop_rate, machine, random_loads, summary
from bench.lookup.tables import Table
from fastpath.lpm import RouteTable
from fastpath.simd import lookup as kernels

BATCH = 4096
DPDK_MEBIBYTES = 1024  # two tables of rte_fib and one of rte_lpm, with their rules
DPDK_HUGE = ("--in-memory", "-m", str(DPDK_MEBIBYTES))
DPDK_SMALL = ("--no-huge", "-m", str(DPDK_MEBIBYTES))
HERE = Path(__file__).parent


def compiled(table: Table) -> RouteTable:
    routes: RouteTable = RouteTable()
    routes.load(table.addresses, table.lengths, table.hops)
    return routes


def with_kernel(name: str, routes: RouteTable, keys: np.ndarray) -> Callable[[], list[int]]:
    out = np.empty(BATCH, np.uint32)

    def measure() -> list[int]:
        kernels.use(name)
        return batches(lambda part: routes.lookup(part, out), keys, BATCH)

    return measure


def patterns(table: Table, rounds: int) -> dict[str, object]:
    """Patterns 1 to 5, 7 and 8 with every kernel, and numpy's own DIR-24-8 for the first level."""
    routes, rng = compiled(table), np.random.default_rng(7)
    found: dict[str, object] = {}
    first = numpy_table(table) if table.version == 4 else None
    for name, make in traffic.PATTERNS.items():
        keys = np.ascontiguousarray(make(table, rng))
        contenders = {kernel: with_kernel(kernel, routes, keys) for kernel in kernels.available()}
        if first is not None:
            contenders["numpy take(keys >> 8)"] = lambda keys=keys: batches(
                lambda part: np.take(first, part >> np.uint32(8)), keys, BATCH
            )
        took = in_turns(contenders, rounds)
        found[name] = {contender: summary(ns, BATCH) for contender, ns in took.items()}
    kernels.use(None)
    found["dependent"] = dependent(routes, table, rng)
    return found


def dependent(routes: RouteTable, table: Table, rng: np.random.Generator) -> dict[str, object]:
    """Pattern 6: each key depends on the answer before; one call a key, so Python's part is measured beside it."""
    keys = [int(k) if table.version == 4 else int(k[0]) << 64 | int(k[1]) for k in traffic.hosts(table, rng, 20000)]
    answer, start = 0, time.perf_counter()
    for key in keys:
        answer = routes.number(key ^ (answer & 1))
    took = time.perf_counter() - start
    return {"one call a key": {"mega_per_s": len(keys) / took / 1e6}}


def numpy_table(table: Table) -> np.ndarray:
    """What numpy alone can do: the first 24 bits by direct index (longer prefixes are left out)."""
    first = np.zeros(1 << 24, np.uint16)
    for i in np.argsort(table.lengths, kind="stable"):
        if table.lengths[i] <= 24:
            start = int(table.addresses[i]) >> 8
            first[start : start + (1 << (24 - int(table.lengths[i])))] = table.hops[i]
    return first


def batch_sizes(table: Table) -> dict[str, object]:
    routes, keys = compiled(table), traffic.hosts(table, np.random.default_rng(3))
    found = {}
    for size in (1, 8, 32, 256, 4096):
        out = np.empty(size, np.uint32)
        some = keys[: min(len(keys), size * 20000)]
        found[str(size)] = summary(batches(lambda part, out=out: routes.lookup(part, out), some, size), size)
    return found


def peers(table: Table) -> dict[str, object]:
    """Scalar lookups through each package, string and integer keys, in-table; and a batch against pytricia's loop."""
    rng = np.random.default_rng(5)
    numbers = traffic.hosts(table, rng, 100_000)
    integers = [int(n) for n in numbers]
    texts = [str(ipaddress.IPv4Address(n)) for n in integers]
    names = [f"{ipaddress.IPv4Address(int(a))}/{n}" for a, n in zip(table.addresses, table.lengths, strict=True)]
    hops = table.hops.tolist()
    routes = compiled(table)
    asks: dict[str, tuple[Callable, Callable | None]] = {"towpath": (routes.__getitem__, routes.__getitem__)}
    if tree := optional("pytricia"):
        trie = tree.PyTricia(32)
        for name, hop in zip(names, hops, strict=True):
            trie[name] = hop
        asks["pytricia"] = (trie.__getitem__, trie.__getitem__)
    if tree := optional("radix"):
        radix = tree.Radix()
        for name, hop in zip(names, hops, strict=True):
            radix.add(name).data["hop"] = hop
        asks["py-radix"] = (radix.search_best, None)
    if tree := optional("SubnetTree"):
        subnets = tree.SubnetTree()
        for name, hop in zip(names, hops, strict=True):
            subnets[name] = hop
        asks["pysubnettree"] = (subnets.__getitem__, None)
    found: dict[str, object] = {}
    for _ in range(3):
        for name, (ask_text, ask_integer) in asks.items():
            rates = found.setdefault(name, {"str": 0.0, "int": 0.0})
            rates["str"] = max(rates["str"], loop_rate(ask_text, texts, 2))
            if ask_integer:
                rates["int"] = max(rates["int"], loop_rate(ask_integer, integers, 2))
    out = np.empty(BATCH, np.uint32)
    keys = np.resize(numbers, 1 << 18)
    found["towpath batch 4096"] = summary(batches(lambda part: routes.lookup(part, out), keys, BATCH, 8), BATCH)
    return found


def optional(module: str):
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{module} is not installed: left out")
        return None


@contextmanager
def one_processor() -> Iterator[None]:
    """This process and those it starts on one processor: contenders who take turns see the same neighbours."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def dpdk(table: Table, rounds: int) -> dict[str, object] | None:
    """rte_fib, and rte_lpm for smaller tables, beside the kernel in use: same routes, keys and processor, in turns."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], capture_output=True, text=True, check=False)
    if flags.returncode:
        print("libdpdk is not installed: left out")
        return None
    with tempfile.TemporaryDirectory() as folder:
        program, data = Path(folder, "dpdk"), Path(folder, "data")
        subprocess.run(
            ["cc", "-O3", "-march=native", HERE / "dpdk.c", "-o", program, *flags.stdout.split()], check=True
        )
        rows = np.stack([table.addresses, table.lengths.astype(np.uint32), table.hops], axis=1).astype(np.uint32)
        data.write_bytes(np.uint32(len(rows)).tobytes() + rows.tobytes())
        options = ["--no-pci", "--log-level=1", "--force-max-simd-bitwidth=512", "--no-telemetry"]
        with (
            one_processor(),
            hugepages(DPDK_MEBIBYTES) as huge,
            subprocess.Popen(
                [program, data, *options, *(DPDK_HUGE if huge else DPDK_SMALL)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as peer,
        ):
            found: dict[str, object] = {**json.loads(_line(peer)), "huge_pages": huge}
            for pattern in ("uniform", "in-table", "zipf"):
                keys = traffic.PATTERNS[pattern](table, np.random.default_rng(11))
                data.write_bytes(np.uint32(len(keys)).tobytes() + keys.tobytes())
                found[pattern] = _beside(peer, data, compiled(table), keys, rounds)
            assert peer.stdin is not None
            peer.stdin.close()
        return found


def third(table: Table) -> Table:
    """Every third route: as many as rte_lpm can be given in reasonable time."""
    return Table(table.version, table.addresses[::3].copy(), table.lengths[::3].copy(), table.hops[::3].copy())


def _line(peer: subprocess.Popen[str]) -> str:
    """The next line of JSON; the environment layer may print others."""
    assert peer.stdout is not None
    return next(line for line in peer.stdout if line.startswith("{"))


def _beside(
    peer: subprocess.Popen[str], data: Path, routes: RouteTable, keys: np.ndarray, rounds: int
) -> dict[str, object]:
    measure = with_kernel(kernels.in_use()["ipv4"], routes, keys)
    ours, theirs = [], []
    for _ in range(rounds):
        ours += measure()
        assert peer.stdin is not None
        print(data, file=peer.stdin, flush=True)
        theirs.append(json.loads(_line(peer)))
        ours += measure()
    medians = {name: float(np.median([one[name] for one in theirs])) for name in theirs[0]}
    own = summary(ours, BATCH)
    rows = {name: {"median_ns": ns, "mega_per_s": BATCH / ns * 1e3, "towpath_is_times_as_fast": ns / own["median_ns"]}
            for name, ns in medians.items()}  # fmt: skip
    return {"towpath": own, **rows}


def updates(table: Table) -> dict[str, object]:
    """Single withdrawals and insertions into the full table, keys as text, calls of Python and all."""
    routes, rng = compiled(table), np.random.default_rng(9)
    picked = np.unique(rng.integers(0, len(table), 20_000))
    size, bits = (4, 32) if table.version == 4 else (16, 128)
    keys = []
    for i in rng.permutation(picked):
        address = (
            int(table.addresses[i])
            if table.version == 4
            else int(table.addresses[i, 0]) << 64 | int(table.addresses[i, 1])
        )
        keys.append((address.to_bytes(size, "big"), int(table.lengths[i])))
    texts = [str(ipaddress.ip_network((int.from_bytes(a, "big") if bits == 32 else a, n))) for a, n in keys]
    kept = [(text, routes.exact(text)) for text in texts]
    withdraw = each(routes.__delitem__, [(text,) for text in texts])
    insert = each(routes.__setitem__, kept)
    nothing = each(lambda text: None, [(text,) for text in texts])
    return {"withdraw": summary(withdraw), "insert": summary(insert), "the empty call": summary(nothing)}


def loading(table: Table, times: int = 7) -> dict[str, object]:
    took = []
    for _ in range(times):
        start = time.perf_counter_ns()
        routes = compiled(table)
        took.append(time.perf_counter_ns() - start)
    return {
        **summary(took),
        "best_ns": min(took),
        "memory": routes.memory,
        "bytes_per_prefix": sum(routes.memory.values()) / len(table),
    }


class Writer(threading.Thread):
    """Replaces routes at a rate until it is stopped."""

    def __init__(self, routes: RouteTable, names: list[tuple[bytes, int]], rate: int) -> None:
        super().__init__()
        self.routes, self.names, self.rate = routes, names, rate
        self.stopped, self.done = threading.Event(), 0

    def run(self) -> None:
        began = time.perf_counter()
        while not self.stopped.wait(0.001):
            due = int((time.perf_counter() - began) * self.rate)
            while self.done < due:
                self.routes[self.names[self.done % len(self.names)]] = self.done & 0xFF
                self.done += 1


def under_updates(table: Table, seconds: float) -> dict[str, object]:
    """Pattern 9: lookups while another thread replaces routes at a rate; 7 a second is a real table's churn.

    10,000 a second and none take turns in short slices, so that a pair of neighbours saw the same machine.
    """
    routes, keys = compiled(table), traffic.hosts(table, np.random.default_rng(13), 1 << 18)
    names = [
        (int(a).to_bytes(4, "big"), int(n)) for a, n in zip(table.addresses[::97], table.lengths[::97], strict=True)
    ]
    found: dict[str, object] = {}
    for rate in (7, 700, 70_000):
        found[str(rate)] = [beside_writer(routes, keys, names, rate, seconds)]
    slices = {rate: [] for rate in (0, 10_000)}
    for turn in range(20):
        for rate in (0, 10_000) if turn % 2 else (10_000, 0):
            slices[rate].append(beside_writer(routes, keys, names, rate, seconds / 5))
    found |= {str(rate): rows for rate, rows in slices.items()}
    ratios = [
        beside["throughput_mega_per_s"] / alone["throughput_mega_per_s"]
        for alone, beside in zip(slices[0], slices[10_000], strict=True)
    ]
    quarter, median, most = np.percentile(ratios, [25, 50, 75])
    found["10,000 / without"] = {"n": len(ratios), "median": median, "quarter": quarter, "three_quarters": most}
    return found


def beside_writer(
    routes: RouteTable, keys: np.ndarray, names: list[tuple[bytes, int]], rate: int, seconds: float
) -> dict[str, float]:
    """Lookups for so many seconds while a thread changes routes at a rate."""
    out, writer = np.empty(BATCH, np.uint32), Writer(routes, names, rate)
    writer.start()
    took, until, began = [], time.monotonic() + seconds, time.perf_counter()
    while time.monotonic() < until:
        took += batches(lambda part: routes.lookup(part, out), keys, BATCH, 1)
    elapsed = time.perf_counter() - began
    writer.stopped.set()
    writer.join()
    return {
        **summary(took, BATCH),
        "applied_per_s": writer.done / elapsed,
        "throughput_mega_per_s": len(took) * BATCH / elapsed / 1e6,
    }


def undisturbed(tables_of: dict[str, Table], seconds: float) -> dict[str, object]:
    """In-table traffic while nobody else uses the processor core: other tenants of the host come and go in milliseconds.

    A gauge that knows nothing of our code, loads from 8 KiB, stands before and after each sample; those count
    in which both gauges read at least nine tenths of the best. All samples stand beside them.
    """
    asks = {}
    for name, table in tables_of.items():
        routes, out = compiled(table), np.empty(BATCH, np.uint32)
        asks[name] = (
            (lambda part, routes=routes, out=out: routes.lookup(part, out)),
            traffic.hosts(table, np.random.default_rng(19)),
        )
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in asks}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, (ask, keys) in asks.items():
            batches(ask, keys, BATCH, 1)  # brings the table back into the caches
            before = gauge()
            rate = BATCH / np.median(batches(ask, keys, BATCH, 1)) * 1e3
            samples[name].append((min(before, gauge()), float(rate)))
    limit = 0.9 * float(np.percentile([reading for rows in samples.values() for reading, _ in rows], 98))
    return {
        name: {
            "undisturbed": spread([rate for reading, rate in rows if reading >= limit]),
            "all": spread([rate for _, rate in rows]),
        }
        for name, rows in samples.items()
    } | {"gauge must read, M/s": limit}


def spread(rates: list[float]) -> dict[str, float]:
    """Quartiles of samples, each the median call of a million lookups."""
    if not rates:
        return {"n": 0}
    quarter, median, most = np.percentile(rates, [25, 50, 75])
    return {"n": len(rates), "mega_per_s": float(median), "quarter": float(quarter), "three_quarters": float(most)}


def growth(full: Table, version: int) -> dict[str, object]:
    """From one route to the whole table."""
    found, n, rng = {}, 1, np.random.default_rng(17)
    order = rng.permutation(len(full))
    while True:
        n = min(n, len(full))
        some = np.sort(order[:n])
        table = Table(version, full.addresses[some], full.lengths[some], full.hops[some])
        routes, keys = compiled(table), traffic.hosts(table, rng, 1 << 18)
        out = np.empty(BATCH, np.uint32)
        rate = summary(batches(lambda part, routes=routes, out=out: routes.lookup(part, out), keys, BATCH, 4), BATCH)
        found[str(n)] = {"in-table": rate, "memory": routes.memory}
        if n == len(full):
            return found
        n *= 4


def real_table(path: str) -> tuple[Table, Table, str]:
    """A file of prefixes, one a line, with random next hops; and its checksum."""
    content = Path(path).read_bytes()
    text = (gzip.decompress(content) if path.endswith(".gz") else content).decode()
    nets = [ipaddress.ip_network(line.split()[0]) for line in text.splitlines() if line.strip()]
    rng = np.random.default_rng(1)
    four = [n for n in nets if n.version == 4]
    six = [n for n in nets if n.version == 6]
    t4 = Table(4, np.array([int(n.network_address) for n in four], np.uint32), np.array([n.prefixlen for n in four], np.uint8),
               tables.hops_at_random(len(four), rng))  # fmt: skip
    t6 = Table(6, np.array([divmod(int(n.network_address), 2**64) for n in six], np.uint64), np.array([n.prefixlen for n in six], np.uint8),
               tables.hops_at_random(len(six), rng))  # fmt: skip
    return t4, t6, hashlib.sha256(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--table", help="a file of real prefixes instead of synthetic ones")
    parser.add_argument(
        "--only", nargs="*", default=[], help="these steps, their figures put into OUT.json if it is there"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    rounds = 2 if options.quick else 10
    print("making tables")
    if options.table:
        v4, v6, source = real_table(options.table)
    else:
        v4, v6, source = tables.full_v4(), tables.full_v6(), "synthetic, seed 1"
    out = Path(options.out)
    result: dict[str, object] = json.loads(out.read_text()) if options.only and out.exists() else {}
    result |= {"table": source, "routes": {"v4": len(v4), "v6": len(v6)}}
    result.setdefault("machine", machine())
    result.setdefault("memory while measuring", {})

    def step(name: str, call: Callable[[], object]) -> None:
        if options.only and name not in options.only:
            return
        start = time.monotonic()
        before = random_loads(4)
        result[name] = call()
        result["memory while measuring"][name] = {"4 MiB, before": before, "4 MiB, after": random_loads(4)}
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        out.write_text(json.dumps(result, indent=1) + "\n")

    step("load v4", lambda: loading(v4))
    step("load v6", lambda: loading(v6))
    step("update v4", lambda: updates(v4))
    step("update v6", lambda: updates(v6))
    step("batch sizes", lambda: batch_sizes(v4))
    step("patterns v4", lambda: patterns(v4, rounds))
    step("patterns v6", lambda: patterns(v6, rounds))
    step("patterns pods", lambda: patterns(tables.pods(), rounds))
    step("patterns pods v6", lambda: patterns(tables.pods_v6(), rounds))
    step("patterns nodes v6", lambda: patterns(tables.nodes_v6(), rounds))
    step("undisturbed", lambda: undisturbed({"v4": v4, "v6": v6, "pods": tables.pods()}, 10 if options.quick else 80))
    step("under updates", lambda: under_updates(v4, 1.0 if options.quick else 5.0))
    step("peers", lambda: peers(v4))
    step("growth v4", lambda: growth(v4, 4))
    step("growth v6", lambda: growth(v6, 6))
    step("dpdk", lambda: dpdk(v4, rounds))
    step("dpdk third", lambda: dpdk(third(v4), rounds))


if __name__ == "__main__":
    main()
