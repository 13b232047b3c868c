"""How much of a small node's speed a large one has, in memory and in turn.

    python -m bench.growth.run                 JSON, table and plots into docs/benchmarks

Owns: the counts, and the order of play: one round of the large node and one of the small, turn by turn.
Never: measures a node of which a packet was dropped.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import sys
import time
from pathlib import Path

from bench.e2e import report
from bench.e2e.__main__ import OUTPUT, revision
from bench.e2e.matches import Match
from bench.growth.nodes import BATCH, NODES, Grown
from engine.lab.contest import Measurement, Sample
from engine.lab.contest.machine import describe
from engine.lab.contest.processor import Processor

COUNTS = {"routes": (1_000, 10_000, 100_000, 1_000_000), "peers": (100, 1_000, 5_000), "pods": (10, 100)}
SPREADS = {"one": "one flow", "all": "all destinations"}
WARM_UP = 5  # rounds


def play(large: Grown, small: Grown, spread: str, names: tuple[str, str], rounds: int, repeats: int) -> list[Sample]:
    """A sample is the median of `repeats` turns, so that an interrupt in one does not stand for all."""
    samples = []
    for number in range(-WARM_UP, rounds):
        pairs = list(zip(names, (large, small), strict=True))
        for name, grown in pairs if number % 2 else pairs[::-1]:
            with Processor() as processor:
                value = _millions(grown, spread, repeats)
            if number >= 0:
                samples.append(Sample(name, number, Measurement(value), processor.busy))
    for grown in (large, small):
        grown.node.check()
        if drops := grown.node.plane.counters().drops:
            raise RuntimeError(f"packets were dropped: {drops}")
    return samples


def _millions(grown: Grown, spread: str, repeats: int) -> float:
    """Packets a second, in millions: the median turn."""
    spans = []
    for _ in range(repeats):
        grown.inject(spread)
        began = time.perf_counter()
        grown.turn()
        spans.append(time.perf_counter() - began)
    return BATCH / sorted(spans)[repeats // 2] / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth.run", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15, help="turns a sample")
    parser.add_argument("--kinds", default=",".join(COUNTS))
    parser.add_argument("--name", default="")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    chosen = parser.parse_args()
    matches = []
    for kind in chosen.kinds.split(","):
        small = NODES[kind](1)
        for count in COUNTS[kind]:
            large, names = NODES[kind](count), (f"{count}-{kind}", f"1-{kind}")
            titles = dict(zip(names, (f"{count:,} {kind}", f"1 {kind[:-1]}"), strict=True))
            for spread, title in SPREADS.items():
                samples = play(large, small, spread, names, chosen.rounds, chosen.repeats)
                matches.append(Match(f"growth-{kind}", spread, title, "M", "Mpps", "higher", titles, samples))
                print(kind, count, spread, file=sys.stderr)
    return write(chosen, matches)


def write(chosen: argparse.Namespace, matches: list[Match]) -> int:
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    found = report.document(
        matches,
        date=date,
        machine=describe(),
        versions={"towpath": revision()},
        settings={"pairs": chosen.rounds, "seconds": 0, "turns": chosen.repeats, "batch": BATCH},
        unavailable={},
        command=f"python -m bench.growth.run {shlex.join(sys.argv[1:])}".strip(),
    )
    path = chosen.output / f"{chosen.name or f'{date}-growth-memory'}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.markdown(found, {"M": "memory"}))
    print(path.with_suffix(".md").read_text())
    from bench import plots

    for picture in plots.draw(path):
        print(f"drawn: {picture}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
