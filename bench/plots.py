"""Draws a report of bench.e2e: one picture a suite, as PNG and SVG.

Owns: the pictures' look.
Never: computes a figure: bench.e2e.report does.

    python -m bench.plots docs/benchmarks/<report>.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.e2e import report
from engine.lab.contest.statistics import summarize

COLOURS = {
    "towpath": "#0b6e4f",
    "towpath-local": "#0b6e4f",
    "kernel-vxlan": "#c8553d",
    "kernel-vxlan-pods": "#e3a08f",
    "veth": "#9aa5b1",
    "veth-bridge": "#9aa5b1",
    "flannel-udp": "#5b8fb9",
    "wireguard-go": "#8d6a9f",
    "nebula": "#d9a441",
}


def draw(path: Path) -> list[Path]:
    """The pictures of a report, beside it. Bars are medians, whiskers the middle half of the samples."""
    document = json.loads(path.read_text())
    mpl.rcParams |= {"svg.hashsalt": "towpath", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    mpl.rcParams |= {"axes.spines.right": False}
    pictures = []
    for name, matches in _pictures(document["matches"]):
        figure = _growth(matches) if name.startswith("growth") else _bars(matches)
        figure.suptitle(f"{name} · {document['date']} · {report.hardware(document['machine'])}", fontsize=9)
        for suffix in (".png", ".svg"):
            pictures.append(path.with_name(f"{path.stem.removesuffix(f'-{name}')}-{name}{suffix}"))
            figure.savefig(pictures[-1], dpi=110, metadata={"Date": None} if suffix == ".svg" else None)
        plt.close(figure)
    return pictures


def _pictures(matches: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Matches by suite, all growth in one picture. A single figure needs none."""
    suites: dict[str, list[Mapping[str, Any]]] = {}
    for match in matches:
        suites.setdefault("growth" if match["suite"].startswith("growth") else match["suite"], []).append(match)
    suites.pop("idle", None)
    yield from suites.items()


def _bars(matches: Sequence[Mapping[str, Any]]) -> Any:
    """A panel for each workload and underlay, a bar for each contender."""
    columns = min(3, len(matches))
    rows = -(-len(matches) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 1.9 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for panel, match in zip(axes.flat, matches, strict=False):
        names = list(match["contenders"])
        summaries = [summarize(report.series(match, name)) for name in names]
        for index, (name, found) in enumerate(zip(names, summaries, strict=True)):
            whisker = [[found.median - found.lower_quartile], [found.upper_quartile - found.median]]
            panel.barh(index, found.median, xerr=whisker, color=COLOURS.get(name, "#777777"), height=0.7, capsize=2)
            panel.text(found.upper_quartile, index, f"  {report.figure(found.median)}", va="center", fontsize=7)
        panel.set_xlim(0, 1.2 * max(found.upper_quartile for found in summaries))
        panel.invert_yaxis()
        panel.set_yticks(range(len(names)), list(match["contenders"].values()), fontsize=7)
        panel.set_xlabel(f"{match['unit']}, {match['better']} is better", fontsize=7)
        panel.set_title(f"{match['title']} ({match['profile']})", fontsize=8)
    for panel in list(axes.flat)[len(matches) :]:
        panel.set_visible(False)
    return figure


def _growth(matches: Sequence[Mapping[str, Any]]) -> Any:
    """How much of the small node's figure is left as tables grow."""
    kinds = list(dict.fromkeys(match["suite"].removeprefix("growth-") for match in matches))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(3.2 * len(kinds), 2.8), squeeze=False, sharey=True, layout="constrained"
    )
    for panel, kind in zip(axes.flat, kinds, strict=True):
        chosen = [match for match in matches if match["suite"] == f"growth-{kind}"]
        for title in dict.fromkeys(match["title"] for match in chosen):
            points = sorted(
                (int(report.ours(m).partition("-")[0]), report.ratio_to(m, list(m["contenders"])[1]))
                for m in chosen
                if m["title"] == title
            )
            counts, ratios = [count for count, _ in points], [found for _, found in points]
            low = [found.median - found.lower_quartile for found in ratios]
            high = [found.upper_quartile - found.median for found in ratios]
            panel.errorbar(
                counts, [found.median for found in ratios], yerr=[low, high], marker="o", capsize=2, label=title
            )
        panel.axhline(1, color="#9aa5b1", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlabel(kind)
    axes.flat[0].set_ylim(0, 1.5)
    axes.flat[0].set_ylabel("share of what one has")
    axes.flat[0].legend(fontsize=7, loc="lower left")
    return figure


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*draw(Path(name)), sep="\n")
