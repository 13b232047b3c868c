"""Policy in a running node: when documents are read again, who is asked, what is logged.

Owns: the watch on policy files, the timers, the flow log, and the answers about policy and flows.
Never: decides what is enforced (`enforcement` does) or writes to the plane.
Invariant: everything happens in the loop's thread; a mistake in a document or
in our own compiler leaves the last program in force and is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from engine import views
from engine.apply.plane import policy_image
from engine.config import Config
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import PORT_PROTOCOLS, PROTOCOL_NAMES, Connection
from engine.enforcement import Applied, Enforcement
from engine.errors import ConfigError, TowpathError
from engine.loop import READ, Loop, Timer
from engine.model import Address, Facts, Prefix
from engine.observe import policing
from engine.observe.flowlog import FlowLog
from engine.policy import EPHEMERAL, parse_service

if TYPE_CHECKING:
    from engine.apply.plane import Plane

log = logging.getLogger(__name__)

SETTLE_PAUSE = 0.05  # seconds for changes of files that belong together
LOG_PAUSE = 0.2  # seconds between two looks at what the workers saw of flows
Complain = Callable[[str, TowpathError | None], None]


class Policing:
    """`changed` is called when what is enforced may be another; it asks for `enforced` then."""

    def __init__(self, loop: Loop, directory: Path, plane: Plane, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._plane = plane
        self._changed = changed
        self._enforcement = Enforcement(directory)
        self._watched = -1
        self._timer: Timer | None = None
        self._log_timer: Timer | None = None
        self._staged: policing.Judged | None = None
        self._log: FlowLog | None = None
        self._running = False
        self._log_error = ""
        self._error = ""
        self._addresses: frozenset[Address] = frozenset()
        self._names = policing.Names(self._enforcement.snapshot)

    # -- life ----------------------------------------------------------------
    def start(self) -> None:
        """Begin to watch and to log."""
        self._running = True
        self._watch()
        self._arm_log()

    def stop(self) -> None:
        if self._log is not None and self._running:
            self._write_events(self._log)
        self._running = False
        for timer in filter(None, (self._timer, self._log_timer)):
            timer.cancel()
        if self._watched >= 0:
            self._loop.forget(self._watched)
            self._watched = -1
        self._enforcement.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def configure(self, config: Config) -> None:
        if self._watched >= 0:
            self._loop.forget(self._watched)
            self._watched = -1
        self._enforcement.configure(config)
        self._watch()
        path = None if config.flows.log is None else Path(config.flows.log)
        if self._log is not None:
            self._log.close()  # it opens again with its next line
            if self._log.path != path:
                self._log = None
        if path is not None and self._log is None:
            self._log = FlowLog(path)
        self._arm_log()

    def _watch(self) -> None:
        watch = self._enforcement.watch
        if self._running and watch is not None:
            self._watched = watch.fileno()
            self._loop.watch(self._watched, READ, self._files_rang)

    # -- documents -------------------------------------------------------------
    def _files_rang(self, events: int) -> None:
        """Changes come in groups: wait for the others."""
        watch = self._enforcement.watch
        if watch is not None and watch.drain():
            self._look_soon()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.after(SETTLE_PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._running:
            return
        changed = self._enforcement.refresh()
        if self._enforcement.unsettled:
            self._look_soon()
        if changed:
            self._changed()

    # -- what is enforced --------------------------------------------------------
    def enforced(self, facts: Facts, own: Iterable[Address]) -> Enforced | None:
        """What is to be put in force. A fault of ours leaves in force what is."""
        before = self._enforcement.current
        try:
            found = self._enforcement.enforced(facts, own)
        except Exception as error:
            if before is None:
                raise
            log.exception("policy could not be compiled")
            self._error = f"policy: internal error, the last program stays in force: {error!r} (please report this)"
            return before
        self._error = ""
        self._names = policing.Names(self._enforcement.snapshot)
        self._enforcement.rest_on(self._plane.rule_counters if self._enforcement.counting.again else None)
        return found

    def settled(self, facts: Facts) -> None:
        """The facts are in force: flows of addresses that are gone must not serve those who get them next."""
        addresses = frozenset(address for pod in facts.pods for address in pod.addresses)
        for address in self._addresses - addresses:
            self._plane.forget_flows(address)
        self._addresses = addresses

    def problems(self) -> list[views.Problem]:
        told = [*self._enforcement.complaints(), *filter(None, (self._error, self._log_error))]
        return [views.Problem(text) for text in told]

    # -- who asks ------------------------------------------------------------------
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
        return policing.flows(self._plane, self._enforcement.counting, self._names, wanted, cursor, limit)

    def apply(self, text: str) -> views.PolicyDocuments:
        applied = self._enforcement.apply(text)
        self._changed()
        return _documents(applied)

    def delete(self, kind: str, name: str, namespace: str) -> views.PolicyDocuments:
        gone = self._enforcement.delete(kind, namespace, name)
        self._changed()
        return _documents([gone])

    def applied(self) -> views.PolicyDocuments:
        return _documents(self._enforcement.applied())

    @property
    def policies(self) -> int:
        return len(self._enforcement.snapshot.policies)

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

    # -- the flow log ------------------------------------------------------------------
    def _arm_log(self) -> None:
        """Without a log nobody has to wake for it."""
        if self._running and self._log is not None and self._log_timer is None:
            self._log_timer = self._loop.after(LOG_PAUSE, self._write_log)

    def _write_log(self) -> None:
        self._log_timer = None
        if self._log is not None:
            self._write_events(self._log)
        self._arm_log()

    def _write_events(self, flow_log: FlowLog) -> None:
        events, suppressed = self._plane.take_flow_events()
        if not len(events) and not suppressed:
            return
        lines = policing.event_lines(events, self._enforcement.counting, self._names, self._staged_judged())
        if suppressed:
            lines.append({"time": policing.now(), "event": "suppressed", "count": int(suppressed)})
        try:
            flow_log.write(lines)
            self._log_error = ""
        except TowpathError as error:
            if not self._log_error:
                log.warning("%s", error)
            self._log_error = str(error)


def _documents(applied: Iterable[Applied]) -> views.PolicyDocuments:
    return views.PolicyDocuments([views.PolicyDocument(a.kind, a.namespace, a.name, a.version) for a in applied])


def _protocol(text: str) -> int:
    if not text:
        return -1
    names = {name.lower(): number for name, number in PROTOCOL_NAMES.items()}
    if text.lower() in names:
        return names[text.lower()]
    if text.isascii() and text.isdigit() and int(text[:4]) <= 255:
        return int(text)
    raise ConfigError(f"{text[:40]!r} is no protocol", where="protocol", remedy="like tcp, udp, icmp or 47")
