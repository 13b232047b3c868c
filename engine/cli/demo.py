"""`towpath demo`: three nodes, six pods, every way of travelling, shown on this machine.

Owns: the words and tables on the screen, and the order of the show.
Never: measures or builds anything itself; engine/lab does.
Invariant: nothing is left behind unless --keep was given, and the exit code
is 0 only when every check of every mode succeeded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from engine.lab.cluster import Encapsulation
    from engine.lab.survey import Survey

KIND = "demo"
MODES: dict[str, Encapsulation] = {"vxlan": "vxlan", "udp": "udp", "ipip": "ipip", "plain": "none"}
SAYINGS = {
    "vxlan": "overlay, VXLAN: as flannel's and Calico's vxlan",
    "udp": "overlay, UDP: as flannel's udp",
    "ipip": "routed, IP in IP: as Calico's ipip",
    "plain": "routed, bare: the node's kernel routes the packets as they are",
}


@dataclass(frozen=True, slots=True)
class Act:
    """One mode: what was found, or why nothing was."""

    mode: str
    seconds: float
    survey: Survey | None
    failure: str = ""

    @property
    def ok(self) -> bool:
        return self.survey is not None and self.survey.ok


@click.command("demo")
@click.option("--mode", type=click.Choice([*MODES, "all"]), default="all", help="Which way of travelling to show.")
@click.option("--keep", is_flag=True, help="Leave the (last) network up and say how to enter its pods.")
@click.option("--clean", is_flag=True, help="Take down what --keep left up, and sweep what a crash left.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to show the results.")
def command(mode: str, keep: bool, clean: bool, output: str) -> None:
    """Let three nodes and six pods exchange packets on this machine.

    Every node is a network namespace with a towpath daemon of its own; every
    pod another. For each mode all pairs of pods talk by ICMP, TCP and UDP, in
    IPv4 and IPv6, and round trip, TCP throughput and path MTU are measured.
    Runs as root, or in a user namespace where the kernel allows one. Nothing
    outside those namespaces is touched, and everything is removed afterwards.
    """
    from engine.lab.keeping import run_apart

    if clean:
        sys.exit(_clean())
    modes = list(MODES) if mode == "all" else [mode]
    sys.exit(run_apart(lambda leave: _perform(modes, output, leave if keep else None)))


def _clean() -> int:
    from engine.lab import owner

    kept = [found for found in owner.find(KIND) if found.owner]
    for found in kept:
        owner.dismiss(found)
    swept = owner.sweep()
    click.echo(f"Took down {len(kept)} kept network(s), removed {len(swept)} leftover(s).")
    return 0


# -- the show ----------------------------------------------------------------
def _perform(modes: list[str], output: str, leave: Callable[[int], None] | None) -> int:
    """Everything from the first namespace to the last word; runs in the process that owns the lab."""
    from rich.console import Console

    from engine.errors import TowpathError
    from engine.lab import owner, privilege
    from engine.lab.keeping import Ended, signals_raise

    console = Console(stderr=output == "json")
    try:
        with signals_raise():
            owner.sweep()
            way = privilege.enter()
            console.print(f"Three nodes, six pods, as {'root' if way == 'root' else 'root of a user namespace'}.")
            return _show(modes, output, console, leave)
    except TowpathError as error:
        console.print(f"[red]The demo cannot run:[/] {error}", highlight=False)
        return error.exit_code
    except Ended as ended:
        console.print(f"Ended by {ended}; everything is removed.")
        return ended.exit_code


def _show(modes: list[str], output: str, console: Console, leave: Callable[[int], None] | None) -> int:
    from engine.lab import Lab

    acts: list[Act] = []
    for mode in modes:
        with Lab(KIND) as lab:
            acts.append(_act(lab, mode, console))
            if output == "table":
                _print_act(console, acts[-1])
            if mode == modes[-1]:
                _print_end(console, output, acts)
                if leave is not None and acts[-1].survey is not None:
                    _leave_up(lab, console, leave, 0 if all(act.ok for act in acts) else 1)
    return 0 if all(act.ok for act in acts) else 1


def _act(lab: Any, mode: str, console: Console) -> Act:
    """Build the network of one mode and question it. A failure is part of the show, not its end."""
    from engine.lab.cluster import Cluster, Plan
    from engine.lab.survey import Surveyor

    began = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task(f"{mode}: starting three daemons", total=None)
        try:
            cluster = Cluster(lab, Plan(encapsulation=MODES[mode])).start()
            surveyor = Surveyor(cluster, lambda word: progress.update(task, advance=1, description=f"{mode}: {word}"))
            progress.update(task, total=surveyor.steps)
            survey = surveyor.survey()
        except (OSError, RuntimeError) as error:
            return Act(mode, time.monotonic() - began, None, str(error))
    return Act(mode, time.monotonic() - began, survey)


def _leave_up(lab: Any, console: Console, leave: Callable[[int], None], code: int) -> None:
    """Say how to get in and how to end it, give the terminal back, and stay until told to go."""
    import os
    import signal

    from engine.lab.privilege import in_user_namespace

    rootless = os.getpid() if in_user_namespace() else None
    console.print("\nThe network stays up. To enter a pod or a node:")
    for host in lab.hosts:
        if host.name != "switch":
            console.print(
                f"  {host.name:8} {host.enter_command(user_namespace_of=rootless)}", highlight=False, soft_wrap=True
            )
    console.print(f"Configuration and logs: {lab.directory}", highlight=False, soft_wrap=True)
    console.print("To take it down: towpath demo --clean", highlight=False)
    leave(code)
    signal.pause()


# -- the screen --------------------------------------------------------------
def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def _print_act(console: Console, act: Act) -> None:
    console.print()
    console.rule(f"[bold]{act.mode}[/]  {SAYINGS[act.mode]}", align="left")
    if act.survey is None:
        console.print(f"[red]failed:[/] {act.failure}", highlight=False)
        return
    console.print(_reachability(act.survey))
    console.print(_figures(act.survey))
    for check in act.survey.checks:
        if not check.ok:
            text = f"{check.source} to {check.target}, {check.protocol} over IPv{check.family}: {check.detail}"
            console.print(f"[red]failed:[/] {text}", highlight=False)


def _reachability(survey: Survey) -> Table:
    """Rows send, columns are reached; a cell counts the checks that succeeded."""
    from rich.table import Table

    pods = list(dict.fromkeys(check.source for check in survey.checks))
    table = Table(box=None, pad_edge=False, title="ICMP, TCP and UDP over IPv4 and IPv6", title_justify="left")
    table.add_column("from \\ to")
    for pod in pods:
        table.add_column(pod, justify="center")
    for source in pods:
        cells = []
        for target in pods:
            results = [c.ok for c in survey.checks if (c.source, c.target) == (source, target)]
            colour = "green" if all(results) else "red"
            cells.append(f"[{colour}]{sum(results)}/{len(results)}[/]" if results else "·")
        table.add_row(source, *cells)
    return table


def _figures(survey: Survey) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "round trip", "TCP", "path MTU"):
        table.add_column(heading, justify="right" if heading else "left")
    for figure in survey.figures:
        where = "on one node" if figure.same_node else "between nodes"
        table.add_row(
            f"{figure.source} to {figure.target}",
            f"{where}, IPv{figure.family}",
            f"{figure.rtt_ms:.3f} ms" if figure.rtt_ms is not None else "-",
            f"{figure.gigabits:.2f} Gb/s" if figure.gigabits is not None else "-",
            str(figure.path_mtu or "-"),
            *([f"[red]{figure.detail}[/]"] if figure.detail else []),
        )
    return table


def _print_end(console: Console, output: str, acts: list[Act]) -> None:
    if output == "json":
        modes = [asdict(act) | {"ok": act.ok} for act in acts]
        click.echo(json.dumps({"ok": all(act.ok for act in acts), "modes": modes}, indent=2))
        return
    console.print()
    for act in acts:
        checks = act.survey.checks if act.survey else ()
        mark = "[green]ok[/]    " if act.ok else "[red]FAILED[/]"
        passed = f"{sum(check.ok for check in checks)} of {len(checks)} checks"
        console.print(f"{mark} {act.mode:6} {passed}, {act.seconds:.1f} s", highlight=False)
