"""`towpath bench`: Towpath's VXLAN, the kernel's, and no tunnel, measured in turn on this machine.

Owns: the choice of what a user wants to know, and the tables on the screen.
Never: measures by itself (engine/lab does), and touches no network but its own namespaces.
Invariant: a ratio compares samples of the same round, and is shown with its spread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console

    from engine.lab.contest import Contender, Measurement, Sample

KIND = "bench"
UNDERLAYS = {
    "default": "a veth as the kernel makes it: carries tunnelled super-packets whole",
    "no-tunnel": "a card without segmentation of tunnelled packets",
    "dumb": "a card without any transmit offload",
}


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    title: str
    unit: str
    better: str
    measure: Callable[..., Measurement]  # (contender, seconds=)


@dataclass(frozen=True, slots=True)
class Answer:
    question: Question
    underlay: str
    contenders: dict[str, str]
    samples: list[Sample]


@click.command("bench")
@click.option("--underlay", type=click.Choice([*UNDERLAYS, "all"]), default="default", help="What joins the two nodes.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Samples of each contender.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="How long a sample takes."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to show the results.")
def command(underlay: str, rounds: int, seconds: float, output: str) -> None:
    """Measure Towpath on this machine, beside the kernel's VXLAN and a plain veth.

    Two nodes are made in network namespaces and joined by a veth pair. TCP
    throughput, small UDP datagrams and round trips go from one to the other:
    through Towpath's VXLAN between two pods, through the kernel's VXLAN device
    with no pod in between (the shortest way it has), and without a tunnel, in
    turn, so that what else the machine does disturbs all alike. Runs as root,
    or in a user namespace where the kernel allows one.
    """
    from engine.lab.keeping import run_apart

    underlays = list(UNDERLAYS) if underlay == "all" else [underlay]
    sys.exit(run_apart(lambda _: _perform(underlays, rounds, seconds, output)))


def _perform(underlays: list[str], rounds: int, seconds: float, output: str) -> int:
    """Everything from the first namespace to the last word; runs in the process that owns the lab."""
    from rich.console import Console

    from engine.errors import TowpathError
    from engine.lab import owner, privilege
    from engine.lab.keeping import Ended, signals_raise
    from engine.lab.traffic import TrafficError

    console = Console(stderr=output == "json")
    try:
        with signals_raise():
            owner.sweep()
            privilege.enter()
            answers = _measure(underlays, rounds, seconds, console)
    except TowpathError as error:
        click.echo(f"towpath: {error}", err=True)
        return error.exit_code
    except (TrafficError, OSError, RuntimeError) as error:
        click.echo(f"towpath: the measurement failed: {error}", err=True)
        return 1
    except Ended as ended:
        console.print(f"Ended by {ended}; everything is removed.")
        return ended.exit_code
    if output == "json":
        click.echo(json.dumps(_document(answers, rounds, seconds), indent=2))
    else:
        _print(console, answers)
    return 0


# -- measuring -----------------------------------------------------------------
def _questions() -> list[Question]:
    return [
        Question("tcp-1", "TCP, 1 stream", "Gb/s", "higher", partial(_tcp, streams=1)),
        Question("tcp-4", "TCP, 4 streams", "Gb/s", "higher", partial(_tcp, streams=4)),
        Question("udp-64", "UDP, 64 B, delivered", "Mpps", "higher", _udp),
        Question("ping", "round trip (ICMP), median", "us", "lower", _round_trip),
    ]


def _tcp(contender: Contender, seconds: float, *, streams: int) -> Measurement:
    from engine.lab.contest import Measurement
    from engine.lab.traffic import throughput

    found = throughput(
        contender.source, contender.target, contender.address(), seconds=seconds, streams=streams, warm_up=0.2
    )
    return Measurement(found.gigabits, found.gigabits * (seconds + 0.2))


def _udp(contender: Contender, seconds: float) -> Measurement:
    from engine.lab.contest import Measurement
    from engine.lab.traffic.flood import flood

    found = flood(contender.source, contender.target, [contender.address()], seconds=seconds, warm_up=0.2)
    return Measurement(found.rate / 1e6)


def _round_trip(contender: Contender, seconds: float) -> Measurement:
    from engine.lab.contest import Measurement
    from engine.lab.contest.statistics import quantile
    from engine.lab.traffic import TrafficError, ping

    result = ping(contender.source, contender.address(), count=max(20, int(seconds * 500)))
    if not result.ok:
        raise TrafficError(f"ping {contender.address()}: {result.received} of {result.sent} answered")
    times = sorted(1e3 * each for each in result.times_ms)
    return Measurement(quantile(times, 0.5), more={"p99": quantile(times, 0.99)})


def _measure(underlays: Sequence[str], rounds: int, seconds: float, console: Console) -> list[Answer]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from engine.lab import Lab, Profile
    from engine.lab.contest import Field, play

    questions = _questions()
    answers = []
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting two nodes", total=len(underlays) * len(questions) * rounds * 3)
        for underlay in underlays:
            with Lab(KIND) as lab:
                field = Field(lab, profile=Profile(underlay))
                contenders = [field.towpath(), field.kernel_vxlan(), field.veth()]
                titles = {contender.name: contender.title for contender in contenders}
                for question in questions:
                    progress.update(task, description=f"{underlay}: {question.title}")
                    samples = play(
                        contenders,
                        partial(question.measure, seconds=seconds),
                        pairs=rounds,
                        advance=lambda _: progress.update(task, advance=1),
                    )
                    answers.append(Answer(question, underlay, titles, samples))
    return answers


# -- telling --------------------------------------------------------------------
def _document(answers: Sequence[Answer], rounds: int, seconds: float) -> dict[str, Any]:
    from engine.lab.contest.machine import describe
    from engine.lab.contest.match import values
    from engine.lab.contest.statistics import ratio, summarize
    from engine.version import version

    results = []
    for answer in answers:
        ours, *_ = answer.contenders
        for name in answer.contenders:
            found = values(answer.samples, name)
            results.append(
                {
                    "underlay": answer.underlay,
                    "workload": answer.question.name,
                    "unit": answer.question.unit,
                    "better": answer.question.better,
                    "contender": name,
                    "samples": found,
                    **asdict(summarize(found)),
                    "towpath_ratio": asdict(ratio(values(answer.samples, ours), found)) if name != ours else None,
                }
            )
    return {
        "machine": describe(),
        "version": version(),
        "rounds": rounds,
        "seconds": seconds,
        "results": results,
    }


def _print(console: Console, answers: Sequence[Answer]) -> None:
    from rich.table import Table

    from engine.lab.contest.machine import describe

    machine = describe()
    for underlay in dict.fromkeys(answer.underlay for answer in answers):
        table = Table(title=f"{underlay}: {UNDERLAYS[underlay]}", title_justify="left", title_style="bold")
        table.add_column("")
        for title in next(answer.contenders for answer in answers).values():
            table.add_column(title, justify="right")
        table.add_column("Towpath / kernel", justify="right")
        for answer in answers:
            if answer.underlay == underlay:
                table.add_row(*_row(answer))
        console.print()
        console.print(table)
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}. Medians; behind a ratio the "
        f"middle half of its rounds.\nHigher is better in Gb/s and Mpps, lower in us. TCP under {machine['congestion']}, "
        "this machine's congestion control.",
        highlight=False,
    )


def _row(answer: Answer) -> list[str]:
    from engine.lab.contest.match import values
    from engine.lab.contest.statistics import ratio, summarize

    ours, kernel, *_ = answer.contenders
    against = ratio(values(answer.samples, ours), values(answer.samples, kernel))
    figures = [
        f"{summarize(values(answer.samples, name)).median:.3g} {answer.question.unit}" for name in answer.contenders
    ]
    spread = f"({against.lower_quartile:.2f} to {against.upper_quartile:.2f})"
    return [answer.question.title, *figures, f"{against.median:.2f} {spread}"]
