"""`towpath policy`: check files, say who decides, count what rules did, apply and delete.

Owns: the words and the exit codes: `check` 0 nothing wrong, 1 warnings with
--strict, 2 mistakes; `explain` 0 allowed, 1 denied.
Never: decides anything: `check`, and `explain` with files, ask the library,
everything else asks the daemon.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click
from click.exceptions import Exit

from engine import views
from engine.cli.ask import Output, ask, options, print_json, print_table
from engine.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.desired.policy.check import Finding
    from engine.desired.policy.model import Decision, Verdict
    from engine.policy import Explanation

_output = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the answer."
)
_files = click.option(
    "-f", "--file", "files", multiple=True, type=click.Path(),
    help="Ask no daemon, but this file or folder of policies, namespaces and pods (repeatable).",
)  # fmt: skip
_deny = click.option("--default-deny", is_flag=True, help="Pods that no policy selects are closed.")


@click.group()
def command() -> None:
    """Check and apply policies, say who decides, count what rules did."""


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
            f"{counted(len(snapshot.policies), 'policy')}: {counted(errors, 'mistake')}, {counted(warnings, 'warning')}"
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
@options
def explain(
    source: str,
    destination: str,
    service: str,
    files: tuple[str, ...],
    source_port: int,
    default_deny: bool,
    output: Output,
    path: Path,
) -> None:
    """Say which tier, policy and rule decide on a connection, in both directions.

    SOURCE and DESTINATION are namespace/pod, the name of a host endpoint, or
    an address. SERVICE is like tcp/80, udp/53, icmp/8/0 or 47. Without
    --file the running daemon answers, by the lookup that packets get.
    Exit code 0: allowed. 1: denied.
    """
    if not files:
        found = ask(
            path, "policy_explain", views.Explanation, source=source, destination=destination, service=service,
            source_port=source_port,
        )  # fmt: skip
        if output == "json":
            print_json(found)
        else:
            click.echo(_explained(found))
        allowed = found.allowed
    else:
        allowed = _explain_files(source, destination, service, files, source_port, default_deny, output)
    if not allowed:
        raise Exit(1)


def _explain_files(
    source: str, destination: str, service: str, files: tuple[str, ...], source_port: int, deny: bool, output: Output
) -> bool:
    from engine.desired.policy.model import Action
    from engine.policy import Policies, Stance

    stance = Stance(default=Action.DENY) if deny else Stance()
    found = Policies.load(*files, stance=stance).explain(source, destination, service, source_port=source_port)
    if output == "json":
        _print_json(_answer(found))
    else:
        click.echo(str(found))
    return found.allowed


# -- what rules did -----------------------------------------------------------
_LIMIT = click.option(
    "--limit", type=click.IntRange(0, 40_000), default=10_000, show_default=True, help="At most so many."
)


@command.command()
@click.argument("policy", default="")
@_LIMIT
@options
def rules(policy: str, limit: int, output: Output, path: Path) -> None:
    """Show the rules in force in the order of judgement; of those policies whose name contains POLICY."""
    _show_rules(path, output, policy=policy, limit=limit)


@command.command()
@click.argument("policy", default="")
@_LIMIT
@options
def counters(policy: str, limit: int, output: Output, path: Path) -> None:
    """Show the rules that did something since the start: flows opened or kept out, packets and bytes."""
    _show_rules(path, output, policy=policy, limit=limit, counted_only=True)


def _show_rules(path: Path, output: Output, *, policy: str, limit: int, counted_only: bool = False) -> None:
    found = ask(path, "policy_rules", views.Rules, policy=policy, limit=limit, counted=counted_only)
    if output == "json":
        print_json(found)
        return
    headers = ("tier", "policy", "direction", "rule", "action", "addresses#", "flows#", "packets#", "bytes#")
    nothing = "no rule did anything yet" if counted_only else "no rules are in force"
    print_table(headers, map(_rule_row, found.rules), nothing=nothing)
    if len(found.rules) < found.total:
        click.echo(f"{len(found.rules)} of {found.total} rules shown (see --limit)", err=True)


def _rule_row(rule: views.Rule) -> tuple[object, ...]:
    which = rule.name or (f"rule {rule.rule}" if rule.rule >= 0 else rule.why)
    return (
        rule.tier or "-", rule.policy or "-", rule.direction, which, rule.action, rule.pods, rule.flows, rule.packets,
        rule.bytes,
    )  # fmt: skip


# -- policies that the daemon keeps ---------------------------------------------
@command.command()
@click.argument("files", nargs=-1, required=True, type=click.File("rb"))
@options
def apply(files: tuple[BinaryIO, ...], output: Output, path: Path) -> None:
    """Put the documents of FILES ("-": standard input) in force, and keep them over a restart.

    A document is taken whole or not at all; the first with a mistake ends it.
    """
    from engine.desired.policy.document import parse

    taken = views.PolicyDocuments([])
    for file in files:
        for _, document in parse(file.read(), getattr(file, "name", "")):
            if document is not None:
                text = json.dumps(document)
                taken.documents += ask(path, "policy_apply", views.PolicyDocuments, text=text).documents
    _show_documents(taken, output, "applied")


@command.command("list")
@options
def list_(output: Output, path: Path) -> None:
    """Show what was applied by `towpath policy apply`. Policies in files are not listed."""
    _show_documents(ask(path, "policy_list", views.PolicyDocuments), output, "")


@command.command()
@click.argument("kind")
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where the document is.")
@options
def delete(kind: str, name: str, namespace: str, output: Output, path: Path) -> None:
    """Forget a document that was applied."""
    gone = ask(path, "policy_delete", views.PolicyDocuments, kind=kind, name=name, namespace=namespace)
    _show_documents(gone, output, "deleted")


def _show_documents(found: views.PolicyDocuments, output: Output, verb: str) -> None:
    if output == "json":
        print_json(found)
    elif verb:
        for document in found.documents:
            place = f"{document.namespace}/" if document.namespace else ""
            click.echo(f"{verb} {document.kind} {place}{document.name}")
    else:
        print_table(
            ("kind", "namespace", "name", "version"),
            ((d.kind, d.namespace or "-", d.name, d.version) for d in found.documents),
            nothing="nothing was applied",
        )


# -- words -------------------------------------------------------------------
def _explained(found: views.Explanation) -> str:
    lines = [
        f"{found.source} -> {found.destination} {found.protocol}: {_verdict(allowed=found.allowed)}",
        f"  {_side(found.egress)}",
        f"  {_side(found.ingress)}",
    ]
    if found.staged_egress is not None and found.staged_ingress is not None:
        lines.append(f"  staged: {_verdict(allowed=bool(found.staged_allowed))}")
        lines += [f"    {_side(found.staged_egress)}", f"    {_side(found.staged_ingress)}"]
    if found.flow:
        lines.append("  such a connection is known now")
    return "\n".join(lines)


def _verdict(*, allowed: bool) -> str:
    return "allowed" if allowed else "denied"


def _side(side: views.Decision) -> str:
    place = " ".join(filter(None, (
        f"tier {side.tier}" if side.tier else "", side.policy, f"rule {side.rule}" if side.rule >= 0 else "",
        f"({side.name})" if side.name else "",
    )))  # fmt: skip
    where = "" if side.here else ", on its own node, by what is known here"
    return f"{side.direction} {_verdict(allowed=side.allowed)} by {side.why}{': ' if place else ''}{place}{where}"


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        advice = f" ({finding.remedy})" if finding.remedy else ""
        click.echo(f"{finding.level} {finding.code}: {finding.where}: {finding.message}{advice}")


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
