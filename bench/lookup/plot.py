"""Draws what run.py measured.  python -m bench.lookup.plot IN.json FOLDER

Owns: three pictures, IN-*.png and .svg in the folder: the traffic patterns, the batch sizes, the growth.
Never: measures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "towpath"  # the same file from the same figures
import matplotlib.pyplot as plt  # noqa: E402  # after the back end is chosen


def save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=90)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def patterns(result: dict, start: Path) -> None:
    figure, axes = plt.subplots(3, 1, figsize=(9, 10))
    for axis, (step, title) in zip(axes, [("patterns v4", "full IPv4 table"), ("patterns v6", "full IPv6 table"),
                                          ("patterns pods", "pod table")], strict=True):  # fmt: skip
        rows = {name: row for name, row in result[step].items() if name != "dependent"}
        contenders = list(next(iter(rows.values())))
        for i, contender in enumerate(contenders):
            rates = [row[contender]["mega_per_s"] for row in rows.values()]
            axis.bar(
                [x + i / (len(contenders) + 1) for x in range(len(rows))],
                rates,
                1 / (len(contenders) + 1),
                label=contender,
            )
        axis.set_xticks([x + 0.3 for x in range(len(rows))], list(rows))
        axis.set_ylabel("M lookups/s, median")
        axis.set_title(title)
        axis.legend(fontsize=8)
    save(figure, start.with_name(f"{start.name}-patterns"))


def batch_sizes(result: dict, start: Path) -> None:
    figure, axis = plt.subplots(figsize=(6, 4))
    sizes = [int(size) for size in result["batch sizes"]]
    axis.loglog(sizes, [row["mega_per_s"] for row in result["batch sizes"].values()], marker="o")
    axis.set_xlabel("addresses a call")
    axis.set_ylabel("M lookups/s, full IPv4 table, in-table")
    axis.grid(visible=True)
    save(figure, start.with_name(f"{start.name}-batches"))


def growth(result: dict, start: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for version in (4, 6):
        rows = result[f"growth v{version}"]
        sizes = [int(size) for size in rows]
        left.semilogx(
            sizes, [row["in-table"]["mega_per_s"] for row in rows.values()], marker="o", label=f"IPv{version}"
        )
        right.loglog(
            sizes, [row["memory"][f"ipv{version}"] / 2**20 for row in rows.values()], marker="o", label=f"IPv{version}"
        )
    left.set_ylabel("M lookups/s, in-table")
    right.set_ylabel("compiled table, MiB")
    for axis in (left, right):
        axis.set_xlabel("routes")
        axis.grid(visible=True)
        axis.legend()
    save(figure, start.with_name(f"{start.name}-growth"))


def main() -> None:
    source = Path(sys.argv[1])
    result, start = json.loads(source.read_text()), Path(sys.argv[2], source.stem)
    patterns(result, start)
    batch_sizes(result, start)
    growth(result, start)


if __name__ == "__main__":
    main()
