"""From samples to a document, and from the document to tables: pure, no clock, no I/O.

Owns: the JSON's shape (version 1) and the reading of it.
Never: keeps a summary in the document: every sample is there, and summaries follow from them.
Invariant: a ratio is ours / theirs of the same round, and its spread is told with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.e2e.matches import Match
from engine.lab.contest.statistics import Summary, ratio, summarize

SCHEMA = 1


def document(
    matches: Sequence[Match],
    *,
    date: str,
    machine: Mapping[str, object],
    versions: Mapping[str, str],
    settings: Mapping[str, object],
    unavailable: Mapping[str, str],
    command: str,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "date": date,
        "machine": dict(machine),
        "versions": dict(versions),
        "settings": dict(settings),
        "command": command,
        "unavailable": dict(unavailable),
        "matches": [_plain(match) for match in matches],
    }


def _plain(match: Match) -> dict[str, Any]:
    table = asdict(match)
    table["samples"] = [
        {
            "contender": sample.contender,
            "turn": sample.turn,
            "value": round(sample.measurement.value, 5),
            "gigabits": round(sample.measurement.gigabits, 4),
            "more": {key: round(value, 4) for key, value in sample.measurement.more.items()},
            "busy": {key: round(value, 3) for key, value in asdict(sample.busy).items()},
        }
        for sample in match.samples
    ]
    return table


# -- reading -------------------------------------------------------------------
def series(match: Mapping[str, Any], contender: str, key: str = "value") -> list[float]:
    """One contender's figures in the order of rounds; `key` may name one of `more`."""
    samples = sorted(match["samples"], key=lambda sample: sample["turn"])
    return [s[key] if key in s else s["more"][key] for s in samples if s["contender"] == contender]


def ours(match: Mapping[str, Any]) -> str:
    return next(iter(match["contenders"]))


def ratio_to(match: Mapping[str, Any], contender: str) -> Summary:
    """Ours / theirs, whatever is better."""
    return ratio(series(match, ours(match)), series(match, contender))


def processor_per_gigabit(match: Mapping[str, Any], contender: str) -> float | None:
    """Processor seconds of the whole machine, softirq included, for each Gb moved; None where bits are not the point."""
    chosen = [s for s in match["samples"] if s["contender"] == contender and s["gigabits"] > 0]
    return summarize([s["busy"]["seconds"] / s["gigabits"] for s in chosen]).median if chosen else None


def foreign_load(document: Mapping[str, Any]) -> float:
    """The median load average before a sample: what else the machine did, and what we did a moment ago."""
    loads = [s["busy"]["load"] for match in document["matches"] for s in match["samples"]]
    return summarize(loads).median if loads else 0.0


# -- tables ---------------------------------------------------------------------
def markdown(document: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The whole report; `titles` names the underlay profiles."""
    machine = document["machine"]
    settings = document["settings"]
    method = f"{settings['pairs']} rounds in turn, {settings['seconds']:g} s a sample"
    lines = [
        f"# Results of {document['date']}",
        "",
        f"{hardware(machine)}. {method}; median load average before a sample {foreign_load(document):.1f}.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()) + ".",
        "",
        f"Run again: `{document['command']}`",
    ]
    for name, reason in document["unavailable"].items():
        lines += ["", f"**Not measured: {name}.** {reason}"]
    for suite in dict.fromkeys(match["suite"] for match in document["matches"]):
        lines += ["", f"## {suite}", ""]
        lines += [
            "| workload | underlay | contender | median | min - max | first / this | its IQR | CPU s/Gb |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for match in document["matches"]:
            if match["suite"] == suite:
                lines += rows(match, titles)
    return "\n".join(lines) + "\n"


def hardware(machine: Mapping[str, Any]) -> str:
    parts = [machine["processor"], f"{machine['cores']} cores", f"{machine['memory_mib'] / 1024:.0f} GiB"]
    parts += [f"Linux {machine['kernel']}", "virtual machine"][: 2 if machine["virtual"] == "yes" else 1]
    return ", ".join(parts)


def heading(title: str, found: Mapping[str, Any]) -> list[str]:
    """How a page of figures begins: when they were taken, on what, and how to take them again."""
    origin = f"{hardware(found['machine'])}. Towpath {found['version']}. Run again: `{found['command']}`"
    return [f"# {title}, {found['date']}", "", origin, ""]


def rows(match: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """One row a contender, ours first."""
    lines = []
    for index, (name, title) in enumerate(match["contenders"].items()):
        found = summarize(series(match, name))
        first = f"{match['title']}" if index == 0 else ""
        underlay = f"{match['profile']}: {titles[match['profile']]}" if index == 0 else ""
        against, spread = "", ""
        if index:
            quotient = ratio_to(match, name)
            against = f"**{figure(quotient.median)}**"
            spread = f"{figure(quotient.lower_quartile)} - {figure(quotient.upper_quartile)}"
        cost = processor_per_gigabit(match, name)
        lines.append(
            f"| {first} | {underlay} | {title} | {figure(found.median)} {match['unit']} "
            f"| {figure(found.lowest)} - {figure(found.highest)} | {against} | {spread} "
            f"| {figure(cost) if cost is not None else ''} |"
        )
    return lines


def figure(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    for limit, places in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:.{places}f}"
    return f"{value:.3f}"
