"""The report of bench.cni: a table and pictures from the samples.  python -m bench.cni.report IN.json

Owns: the look of both.
Never: measures, or leaves a sample out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.e2e.report import hardware
from engine.lab.contest.statistics import quantile, ratio, summarize

NAMES = {"towpath": "towpath-cni", "bridge": "bridge + host-local"}
COLOURS = {"towpath": "#0b6e4f", "bridge": "#c8553d"}


def write(path: Path) -> list[Path]:
    """Table and pictures beside the JSON file."""
    document = json.loads(path.read_text())
    text = path.with_suffix(".md")
    text.write_text(table(document))
    return [path, text, *draw(document, path)]


def table(document: Mapping[str, Any]) -> str:
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {text}" for name, text in document["versions"].items())
    yield f"# CNI, {document['date']}"
    yield ""
    yield f"{hardware(document['machine'])}; load average at the end {document['load']:.1f}. Versions: {versions}."
    yield ""
    yield f"Run again: `{document['command']}`"
    yield ""
    yield "Milliseconds from the start of the plugin's process to its end (for a burst, from the first start to the last end);"
    yield "no cool-down of addresses, as host-local has none;"
    yield "the two sides in turn. The ratio is towpath-cni divided by the reference, of the same round: its median and middle half."
    yield ""
    yield "| what | families | plugin | p50 | p99 | min - max | ratio | its IQR |"
    yield "|---|---|---|---|---|---|---|---|"
    for match in document["matches"]:
        for side, values in match["samples"].items():
            found = summarize(values)
            cells = [match["what"], match["families"], NAMES[side], f"{found.median:.1f}"]
            cells.append(f"{quantile(sorted(values), 0.99):.1f}" if len(values) >= 20 else "")
            cells.append(f"{found.lowest:.1f} - {found.highest:.1f}")
            if side == "towpath":
                compared = ratio(values, match["samples"]["bridge"])
                cells += [
                    f"**{compared.median:.2f}**",
                    f"{compared.lower_quartile:.2f} - {compared.upper_quartile:.2f}",
                ]
            else:
                cells += ["", ""]
            yield f"| {' | '.join(cells)} |"
        if len(match["samples"]["towpath"]) >= 20:
            ours, theirs = (quantile(sorted(match["samples"][side]), 0.99) for side in ("towpath", "bridge"))
            yield f"|  |  | p99 / p99 |  |  |  | **{ours / theirs:.2f}** |  |"


def draw(document: Mapping[str, Any], path: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "towpath", "svg.fonttype": "none", "font.size": 9}
    import matplotlib.pyplot as plt

    matches = document["matches"]
    figure, axes = plt.subplots(2, len(matches) // 2, figsize=(3 * len(matches) // 2, 4.6), layout="constrained")
    for panel, match in zip(axes.flat, matches, strict=True):
        for side, values in match["samples"].items():
            ordered = sorted(values)
            shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
            panel.step(ordered, shares, where="post", color=COLOURS[side], label=NAMES[side])
        panel.set_xlim(left=0)
        panel.set_title(f"{match['what']} ({match['families']})", fontsize=8)
        panel.set_xlabel("ms", fontsize=7)
        panel.grid(visible=True, alpha=0.3)
    axes.flat[0].legend(fontsize=7, loc="lower right")
    axes.flat[0].set_ylabel("share of calls done by then")
    figure.suptitle(f"CNI · {document['date']} · {hardware(document['machine'])}", fontsize=9)
    pictures = []
    for suffix in (".png", ".svg"):
        pictures.append(path.with_suffix(suffix))
        figure.savefig(pictures[-1], dpi=110, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
    return pictures


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
