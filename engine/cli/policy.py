"""`towpath policy`: check policy files, and say who decides on a connection.

Owns: the words and the exit codes: `check` 0 nothing wrong, 1 warnings with
--strict, 2 mistakes; `explain` 0 allowed, 1 denied.
Never: talks to a daemon or changes anything.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

import rich_click as click
from click.exceptions import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.desired.policy.check import Finding
    from engine.desired.policy.model import Decision, Verdict
    from engine.policy import Explanation

Output = Literal["table", "json"]

_output = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the answer."
)
_files = click.option(
    "-f", "--file", "files", multiple=True, required=True, type=click.Path(),
    help="A file or folder of policies, namespaces and pods (repeatable).",
)  # fmt: skip
_deny = click.option("--default-deny", is_flag=True, help="Pods that no policy selects are closed.")


@click.group()
def command() -> None:
    """Check policy files, and say who decides on a connection."""


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--strict", is_flag=True, help="Exit with 1 when there are warnings.")
@_output
def check(files: tuple[str, ...], strict: bool, output: Output) -> None:
    """Check FILES (or folders) and say what is wrong or surprising.

    With pods among the documents it also finds policies that select nothing
    and names that nobody has. Exit code 0: no mistakes. 2: there are some.
    """
    from engine.desired.policy.check import check as findings_of
    from engine.desired.policy.reader import assemble
    from engine.source.policies import read_files

    reading = read_files(files)
    snapshot = assemble(reading)
    findings = findings_of(snapshot, reading.problems)
    errors = sum(finding.level == "error" for finding in findings)
    if output == "json":
        _print_json(
            {"valid": not errors, "policies": len(snapshot.policies), "findings": [_fields(f) for f in findings]}
        )
    else:
        _print_findings(findings)
        warnings = len(findings) - errors
        click.echo(
            f"{_count(len(snapshot.policies), 'policy')}: {_count(errors, 'mistake')}, {_count(warnings, 'warning')}"
        )
    if errors:
        raise Exit(2)
    if strict and findings:
        raise Exit(1)


@command.command()
@click.argument("source")
@click.argument("destination")
@click.argument("service", default="tcp/80")
@_files
@click.option(
    "--source-port", type=click.IntRange(0, 65_535), default=49_152, show_default=True, help="Of TCP, UDP, SCTP."
)
@_deny
@_output
def explain(
    source: str,
    destination: str,
    service: str,
    files: tuple[str, ...],
    source_port: int,
    default_deny: bool,
    output: Output,
) -> None:
    """Say which tier, policy and rule decide on a connection, in both directions.

    SOURCE and DESTINATION are namespace/pod, the name of a host endpoint, or
    an address. SERVICE is like tcp/80, udp/53, icmp/8/0 or 47.
    Exit code 0: allowed. 1: denied.
    """
    from engine.desired.policy.model import Action
    from engine.policy import Policies, Stance

    stance = Stance(default=Action.DENY) if default_deny else Stance()
    found = Policies.load(*files, stance=stance).explain(source, destination, service, source_port=source_port)
    if output == "json":
        _print_json(_answer(found))
    else:
        click.echo(str(found))
    if not found.allowed:
        raise Exit(1)


# -- words -------------------------------------------------------------------
def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        advice = f" ({finding.remedy})" if finding.remedy else ""
        click.echo(f"{finding.level} {finding.code}: {finding.where}: {finding.message}{advice}")


def _count(number: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _fields(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in ("level", "code", "where", "message", "remedy")}


def _answer(found: Explanation) -> dict[str, object]:
    return {
        "source": found.source,
        "destination": found.destination,
        "allowed": found.allowed,
        **_sides(found.verdict),
        "staged": {"allowed": found.staged.allowed, **_sides(found.staged)},
    }


def _sides(verdict: Verdict) -> dict[str, object]:
    return {"egress": _decision(verdict.egress), "ingress": _decision(verdict.ingress)}


def _decision(decision: Decision) -> dict[str, object]:
    return {name: getattr(decision, name) for name in ("allowed", "why", "tier", "policy", "rule", "name")}


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
