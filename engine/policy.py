"""The library's face of policy: may A talk to B, and who decided.

Owns: names for endpoints, the textual form of protocol and port, and the
answers as values.
Never: needs a data plane, a daemon or a cluster.
Invariant: every answer comes from the compiled program that a node would run.

    from engine.policy import Policies

    policies = Policies.read(manifests, pods)
    policies.may("shop/web", "shop/db", "tcp/5432")       # True or False
    print(policies.explain("shop/web", "shop/db", "tcp/5432"))
    policies.reachability("tcp/5432").allowed             # numpy, [source, destination]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.compiler import Compiler, Refused
from engine.desired.policy.document import PolicyError
from engine.desired.policy.matrix import reachability
from engine.desired.policy.model import (
    DEFAULT_STANCE,
    ICMP_PROTOCOLS,
    PORT_PROTOCOLS,
    PROTOCOL_NAMES,
    PROTOCOL_NUMBERS,
    Connection,
    Decision,
    Snapshot,
    Stance,
    Verdict,
)
from engine.desired.policy.program import Program
from engine.desired.policy.reader import Reading, assemble
from engine.desired.policy.staged import with_staged
from engine.errors import ConfigError
from engine.model import Address
from engine.source.policies import read_files

__all__ = ["Connection", "Decision", "Explanation", "Policies", "PolicyError", "Reachability", "Stance", "Verdict"]

EPHEMERAL = 49_152  # the source port assumed where none is given


@dataclass(frozen=True, slots=True)
class Explanation:
    """One connection, both decisions, and what staged policies would have said."""

    source: str
    destination: str
    connection: Connection
    verdict: Verdict
    staged: Verdict

    @property
    def allowed(self) -> bool:
        return self.verdict.allowed

    def __str__(self) -> str:
        lines = [
            f"{self.source} -> {self.destination} {format_protocol(self.connection)}: {_word(self.verdict)}",
            f"  {self.verdict.egress}",
            f"  {self.verdict.ingress}",
        ]
        if self.staged != self.verdict:
            lines += [f"  staged: {_word(self.staged)}", f"    {self.staged.egress}", f"    {self.staged.ingress}"]
        return "\n".join(lines)


def _word(verdict: Verdict) -> str:
    return "allowed" if verdict.allowed else "denied"


@dataclass(frozen=True, slots=True)
class Reachability:
    """`allowed[i, j]`: may `names[i]` open a connection to `names[j]`; the two sides beside it."""

    names: tuple[str, ...]
    allowed: NDArray[np.bool_]
    egress: NDArray[np.bool_]
    ingress: NDArray[np.bool_]


class Policies:
    """Policies and the pods they are about, compiled."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._compiler = Compiler()
        self.snapshot = snapshot
        self._program = self._compiler.compile(snapshot)

    @classmethod
    def read(cls, *texts: str | bytes, stance: Stance = DEFAULT_STANCE) -> Policies:
        """YAML or JSON texts: policies, namespaces, pods. `PolicyError` at the first mistake."""
        reading = Reading()
        for text in texts:
            reading.text(text)
        reading.raise_first()
        return cls(assemble(reading, stance))

    @classmethod
    def load(cls, *paths: str | Path, stance: Stance = DEFAULT_STANCE) -> Policies:
        """Like `read`, from files and folders."""
        return cls(assemble(read_files(paths).raise_first(), stance))

    def update(self, snapshot: Snapshot) -> None:
        """Change to another snapshot; what stayed the same is not compiled again."""
        self._program = self._compiler.update(snapshot)
        self.snapshot = snapshot
        self.__dict__.pop("_staged", None)

    @property
    def refused(self) -> list[Refused]:
        """Policies that deny instead of doing what they say."""
        return self._compiler.refused

    def may(self, source: str, destination: str, service: str = "", *, source_port: int = EPHEMERAL) -> bool:
        """Whether `source` may open a connection to `destination`. `service`: "tcp/80", "icmp", "" (tcp/80)."""
        return self.explain(source, destination, service, source_port=source_port).allowed

    def explain(self, source: str, destination: str, service: str = "", *, source_port: int = EPHEMERAL) -> Explanation:
        """Who decided, in both directions. Both sides are `namespace/name`, a host endpoint's name, or an address."""
        protocol, port = parse_service(service)
        pair = self._pair(source, destination)
        connection = Connection(*pair, protocol, port, source_port if protocol in PORT_PROTOCOLS else 0)
        return Explanation(
            source, destination, connection, self._program.judge(connection), self._staged.judge(connection)
        )

    def reachability(
        self, service: str = "", names: Iterable[str] | None = None, *, version: int = 4, source_port: int = EPHEMERAL
    ) -> Reachability:
        """The matrix over the named endpoints, or over all that have an address of this family."""
        protocol, port = parse_service(service)
        chosen = list(names) if names is not None else sorted(self.snapshot.endpoints)
        found = [(name, [a for a in self._addresses(name) if a.version == version]) for name in chosen]
        usable = [(name, addresses[0]) for name, addresses in found if addresses]
        egress, ingress = reachability(
            self._program,
            [address for _, address in usable],
            protocol << 16 | port,
            source_port if protocol in PORT_PROTOCOLS else 0,
        )
        return Reachability(tuple(name for name, _ in usable), egress & ingress, egress, ingress)

    @cached_property
    def _staged(self) -> Program:
        snapshot = with_staged(self.snapshot)
        return self._program if snapshot is self.snapshot else Compiler().compile(snapshot)

    def _pair(self, source: str, destination: str) -> tuple[Address, Address]:
        """Addresses of one family for both."""
        for a in self._addresses(source):
            for b in self._addresses(destination):
                if a.version == b.version:
                    return a, b
        raise ConfigError(f"{source} and {destination} have no address family in common", remedy="name an address")

    def _addresses(self, name: str) -> tuple[Address, ...]:
        endpoint = self.snapshot.endpoints.get(name)
        if endpoint is not None:
            return endpoint.addresses
        try:
            return (ip_address(name),)
        except ValueError:
            near = get_close_matches(name, self.snapshot.endpoints, 1)
            hint = f"did you mean {near[0]}?" if near else "write namespace/name or an address"
            raise ConfigError(f"there is no endpoint {name!r}", remedy=hint) from None


# -- protocol and port -------------------------------------------------------
def parse_service(text: str) -> tuple[int, int]:
    """Protocol number and the value beside it: "tcp/80", "80", "udp/53", "icmp/8/0", "47"; empty: tcp/80."""
    first, *rest = text.lower().split("/") if text else ["tcp", "80"]
    names = {name.lower(): number for name, number in PROTOCOL_NAMES.items()}
    if first.isdigit() and not rest and text.isdigit() and int(first) > 255:
        first, rest = "tcp", [first]
    protocol = names.get(first, int(first) if first.isdigit() and len(first) <= 3 else -1)
    numbers = [int(part) if part.isdigit() and len(part) <= 5 else -1 for part in rest]
    if not 0 <= protocol <= 255 or -1 in numbers:
        raise _no_service(text)
    if protocol in PORT_PROTOCOLS and len(numbers) == 1 and numbers[0] <= 65_535:
        return protocol, numbers[0]
    if protocol in ICMP_PROTOCOLS and len(numbers) <= 2 and all(number <= 255 for number in numbers):
        kind, code = (*numbers, *(8 if protocol == 1 else 128, 0)[len(numbers) :])
        return protocol, kind << 8 | code
    if protocol not in PORT_PROTOCOLS and not numbers:
        return protocol, 0
    raise _no_service(text)


def _no_service(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is no protocol and port", remedy="like tcp/80, udp/53, icmp/8/0 or 47")


def format_protocol(connection: Connection) -> str:
    name = PROTOCOL_NUMBERS.get(connection.protocol, str(connection.protocol)).lower()
    if connection.protocol in PORT_PROTOCOLS:
        return f"{name}/{connection.destination_port}"
    if connection.protocol in ICMP_PROTOCOLS:
        kind, code = divmod(connection.destination_port, 256)
        return f"{name}/{kind}/{code}"
    return name
