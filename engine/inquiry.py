"""What is answered about policy and flows: who decides, which rules count what, which flows there are.

Owns: how names in a question become addresses, and the judgement of staged policies.
Never: changes what is enforced.
Invariant: an answer is of what was put in force last.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from engine import views
from engine.apply.policy import policy_image
from engine.desired.policy.model import PORT_PROTOCOLS, PROTOCOL_NAMES, Connection, Snapshot
from engine.enforcement import Enforcement
from engine.errors import ConfigError
from engine.model import Address, Prefix
from engine.observe import policing
from engine.policy import EPHEMERAL, parse_service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engine.apply.plane import Plane


class Inquiry:
    def __init__(self, enforcement: Enforcement, plane: Plane) -> None:
        self._enforcement = enforcement
        self._plane = plane
        self._staged: policing.Judged | None = None
        self._named: tuple[Snapshot, policing.Names] | None = None

    def explain(
        self, source: str, destination: str, service: str = "", source_port: int = EPHEMERAL
    ) -> views.Explanation:
        protocol, port = parse_service(service)
        pair = self._pair(source, destination)
        connection = Connection(*pair, protocol, port, source_port if protocol in PORT_PROTOCOLS else 0)
        program = self._enforcement.program
        found = (
            policing.explain_open(connection)
            if program is None
            else policing.explain(self._plane, program, self._staged_judged(), connection)
        )
        found.source, found.destination = source, destination
        return found

    def rules(self, policy: str = "", offset: int = 0, limit: int = 10_000, *, counted: bool = False) -> views.Rules:
        program = self._enforcement.program
        if program is None:
            return views.Rules([], 0)
        counts = self._enforcement.counts(self._plane.rule_counters())
        found = policing.rules(program, self._enforcement.counting, counts, policy, counted=counted)
        return views.Rules(found[offset : offset + limit], len(found))

    def flows(
        self,
        within: Iterable[str] = (),
        protocol: str = "",
        port: int = -1,
        cursor: int = 0,
        limit: int = 1000,
        *,
        denied: bool = False,
    ) -> views.Flows:
        number = _protocol(protocol)
        prefixes = tuple(prefix for name in within for prefix in self._prefixes(name))
        wanted = policing.FlowFilter(prefixes, number, port, denied)
        return policing.flows(self._plane, self._enforcement.counting, self._names(), wanted, cursor, limit)

    def event_lines(self, events: NDArray[Any], suppressed: int) -> list[Mapping[str, object]]:
        """What the flow log has of events that the workers noted."""
        lines = policing.event_lines(events, self._enforcement.counting, self._names(), self._staged_judged())
        if suppressed:
            lines.append({"time": policing.now(), "event": "suppressed", "count": suppressed})
        return lines

    def _names(self) -> policing.Names:
        snapshot = self._enforcement.snapshot
        if self._named is None or self._named[0] is not snapshot:
            self._named = snapshot, policing.Names(snapshot)
        return self._named[1]

    def _staged_judged(self) -> policing.Judged | None:
        """What staged policies would do, executed as the plane would; None when there are none."""
        enforced = self._enforcement.staged
        if enforced is None:
            self._staged = None
        elif self._staged is None or self._staged.program is not enforced.program:
            self._staged = policing.Judged(enforced.program, policy_image(enforced).judge)
        return self._staged

    def _pair(self, source: str, destination: str) -> tuple[Address, Address]:
        """Addresses of one family for both."""
        for a in self._addresses_of(source):
            for b in self._addresses_of(destination):
                if a.version == b.version:
                    return a, b
        raise ConfigError(f"{source} and {destination} have no address family in common", remedy="name an address")

    def _addresses_of(self, name: str) -> tuple[Address, ...]:
        endpoints = self._enforcement.snapshot.endpoints
        endpoint = endpoints.get(name) or endpoints.get(f"default/{name}")
        if endpoint is not None:
            return endpoint.addresses
        try:
            return (ip_address(name),)
        except ValueError:
            remedy = "write namespace/pod, a host endpoint, or an address"
            raise ConfigError(f"there is no endpoint {name[:80]!r}", remedy=remedy) from None

    def _prefixes(self, name: str) -> list[Prefix]:
        if "/" in name and name not in self._enforcement.snapshot.endpoints:
            try:
                return [ip_network(name, strict=False)]
            except ValueError:
                pass
        return [ip_network(address) for address in self._addresses_of(name)]


def _protocol(text: str) -> int:
    if not text:
        return -1
    names = {name.lower(): number for name, number in PROTOCOL_NAMES.items()}
    if text.lower() in names:
        return names[text.lower()]
    if text.isascii() and text.isdigit() and int(text[:4]) <= 255:
        return int(text)
    raise ConfigError(f"{text[:40]!r} is no protocol", where="protocol", remedy="like tcp, udp, icmp or 47")
