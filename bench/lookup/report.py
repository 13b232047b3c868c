"""Writes what run.py measured as tables.  python -m bench.lookup.report IN.json OUT.md

Owns: the tables of a report in docs/benchmarks, from the first heading of its kind to the end.
Never: measures, or writes a judgement: what stands above that heading is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FIRST = "## What was measured"

Rows = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rate(row: Rows) -> str:
    """Median and best decile, M/s."""
    return f"{row['mega_per_s']:.0f} / {row['mega_per_s_best_decile']:.0f}"


def patterns(step: Rows) -> str:
    rows = {name: row for name, row in step.items() if name != "dependent"}
    contenders = list(next(iter(rows.values())))
    body = [[name, *(rate(row[contender]) for contender in contenders)] for name, row in rows.items()]
    dependent = step["dependent"]["one call a key"]["mega_per_s"]
    return table(["M/s, median / best decile", *contenders], body) + (
        f"\nEach key made from the answer before, one call a key: {dependent:.1f} M/s.\n"
    )


def machine(result: Rows) -> str:
    it = result["machine"]
    loads = result["memory while measuring"].values()
    least = min(min(pair.values()) for pair in loads)
    most = max(max(pair.values()) for pair in loads)
    return (
        f"{it['cpu']}, AVX-512: {'yes' if it['avx512'] else 'no'}, Python {it['python']}, numpy {it['numpy']}, Linux {it['kernel']}, "
        f"revision {it['revision']}. Table: {result['table']}; {result['routes']['v4']} IPv4 and {result['routes']['v6']} IPv6 routes.\n"
        f"Independent loads by `numpy.take` from 4 MiB, before and after each step: {least:.0f} to {most:.0f} M/s. That is how much the "
        "machine changed under us.\n"
    )


def single(result: Rows) -> str:
    rows = []
    for version in ("v4", "v6"):
        load = result[f"load {version}"]
        memory = load["memory"]["ipv4" if version == "v4" else "ipv6"] / 2**20
        rows.append(
            [
                f"load the full {version} table",
                f"{load['median_ns'] / 1e6:.0f} ms, best {load['best_ns'] / 1e6:.0f}",
                f"{memory:.1f} MiB compiled",
            ]
        )
        for what in ("insert", "withdraw", "the empty call"):
            row = result[f"update {version}"][what]
            rows.append(
                [f"{what} ({version})", f"p50 {row['median_ns'] / 1e3:.2f} us", f"p99 {row['p99_ns'] / 1e3:.2f} us"]
            )
    for size, row in result["batch sizes"].items():
        rows.append([f"one call with {size} addresses", f"{row['median_ns'] / 1e3:.2f} us", f"{rate(row)} M/s"])
    return table(["", "median", ""], rows)


def undisturbed(result: Rows) -> str:
    rows = []
    for name in ("v4", "v6", "pods"):
        cells = []
        for which in ("undisturbed", "all"):
            row = result["undisturbed"][name][which]
            cells.append(
                f"{row['mega_per_s']:.0f} ({row['quarter']:.0f}-{row['three_quarters']:.0f}), {row['n']}"
                if row["n"]
                else "none"
            )
        rows.append([name, *cells])
    return table(["in-table, M/s: median (middle half), samples", "undisturbed", "all"], rows) + (
        f"\nUndisturbed: a gauge of loads from 8 KiB read at least {result['undisturbed']['gauge must read, M/s']:.0f} M/s "
        "before and after the sample, nine tenths of its best.\n"
    )


def updates(result: Rows) -> str:
    step = dict(result["under updates"])
    ratio = step.pop("10,000 / without")
    rows = []
    for asked, runs in sorted(step.items(), key=lambda item: int(item[0])):
        middle = sorted(runs, key=lambda row: row["throughput_mega_per_s"])[len(runs) // 2]
        rows.append(
            [asked, str(len(runs)), f"{middle['applied_per_s']:.0f}", f"{middle['throughput_mega_per_s']:.0f}", rate(middle),
             f"{middle['median_ns'] / 1e3:.0f} / {middle['p999_ns'] / 1e3:.0f}"]
        )  # fmt: skip
    head = ["updates/s asked", "runs", "applied", "M lookups/s, all time counted", "calls: median / best decile",
            "us a call of 4,096, p50 / p99.9"]  # fmt: skip
    return table(head, rows) + (
        f"\nAt 10,000 updates/s / without, all time counted, {ratio['n']} pairs of neighbouring slices: "
        f"{ratio['median']:.2f} ({ratio['quarter']:.2f}-{ratio['three_quarters']:.2f}). Of several runs the middle one is shown.\n"
    )


def peers(result: Rows) -> str:
    step = dict(result["peers"])
    batch = step.pop("towpath batch 4096")
    rows = [[name, f"{row['str']:.2f}", f"{row['int']:.2f}" if row["int"] else "-"] for name, row in step.items()]
    text = table(["M lookups/s, one call a key, in-table", "str", "int"], rows)
    if "pytricia" in step:
        text += f"\nA batch of 4,096 / pytricia's loop with integers: {batch['mega_per_s'] / step['pytricia']['int']:.0f}.\n"
    return text


def dpdk(step: Rows) -> str:
    rows = []
    for pattern in ("uniform", "in-table", "zipf"):
        for name, row in step[pattern].items():
            ratio = "" if name == "towpath" else f"{row['towpath_is_times_as_fast']:.2f}"
            rows.append([pattern, name, f"{row['mega_per_s']:.0f}", ratio])
    built = ", ".join(f"{name} {ms / 1e3:.1f} s" for name, ms in step["build_ms"].items())
    pages = "huge" if step.get("huge_pages") else "small"
    return (
        table(["pattern", "contender", "M/s", "towpath / it"], rows) + f"\nDPDK in {pages} pages, built in: {built}.\n"
    )


def growth(result: Rows) -> str:
    rows = []
    for version in (4, 6):
        for n, row in result[f"growth v{version}"].items():
            rows.append([f"IPv{version}", n, rate(row["in-table"]), f"{row['memory'][f'ipv{version}'] / 2**20:.2f}"])
    return table(["", "routes", "M/s, in-table", "MiB compiled"], rows)


def report(result: Rows, name: str) -> str:
    parts = [FIRST, machine(result), single(result)]
    if "undisturbed" in result:
        parts += ["## While nobody else is there", undisturbed(result)]
    for step, title in (
        ("patterns v4", "Full IPv4 table"),
        ("patterns v6", "Full IPv6 table"),
        ("patterns pods", "Pod table"),
        ("patterns pods v6", "IPv6 pod table: blocks of /122"),
        ("patterns nodes v6", "IPv6 node table: a /64 for each of 256"),
    ):
        if step in result:
            parts += [f"## {title}", patterns(result[step])]
    if "under updates" in result:
        parts += ["## Lookups under updates", updates(result)]
    if "peers" in result:
        parts += ["## Beside Python packages", peers(result)]
    for step, title in (("dpdk", "Beside DPDK, full table"), ("dpdk third", "Beside DPDK, every third route")):
        if result.get(step):
            parts += [f"## {title}", dpdk(result[step])]
    parts += ["## Growth", growth(result)]
    parts += ["\n".join(f"![{what}]({name}-{what}.png)" for what in ("patterns", "batches", "growth"))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def main() -> None:
    result, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    kept = out.read_text().partition(FIRST)[0] if out.exists() else ""
    out.write_text(kept + report(result, out.stem))


if __name__ == "__main__":
    main()
