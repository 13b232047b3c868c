"""What is wrong with a running node though it runs: shown until it is settled.

Owns: the complaints, by what they are about, and the checks of what a node needs and cannot bring about itself.
Never: mends anything, or ends anything.
Invariant: there is at most one complaint about one thing.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.apply.underlay import forwards
from engine.config import Config
from engine.desired.addressing import local_addresses
from engine.errors import ConfigError, KernelError, TowpathError
from engine.model import Desired, Facts, Underlay

FORWARDING = ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding"))
AT_START = ("workers", "control", "cni", "state", "health", "flows")  # sections that are read once


class Complaints:
    def __init__(self) -> None:
        self._errors: dict[str, TowpathError] = {}

    def __iter__(self) -> Iterator[TowpathError]:
        return iter(self._errors.values())

    def has(self, about: str) -> bool:
        return about in self._errors

    def say(self, about: str, error: TowpathError | None) -> None:
        """Show `error` until None settles it."""
        if error is None:
            self._errors.pop(about, None)
        else:
            self._errors[about] = error

    def say_what_is_not_forwarded(self, desired: Desired) -> None:
        """What travels bare, and what comes to a port of the host for a pod, the host's kernel must route."""
        ports = desired.rules.forwards if desired.rules is not None else ()
        versions = {route.prefix.version for route in desired.kernel_routes}
        versions |= {forward.pod_address.version for forward in ports}
        for family, setting in FORWARDING:
            error = KernelError(f"the kernel does not forward IPv{family}", where="host", remedy=f"set {setting}=1")
            self.say(setting, error if family in versions and not forwards(family) else None)

    def say_what_shortcut_is_missing(self, reason: str) -> None:
        """One that was asked for by name and cannot be had, for `reason`; otherwise the sockets do as well."""
        error = KernelError(reason, where="network.offload", remedy="set it to auto, or see docs/performance.md")
        self.say("network.offload", error if reason else None)

    def say_what_needs_a_restart(self, before: Config, after: Config) -> None:
        changed = [section for section in AT_START if getattr(after, section) != getattr(before, section)]
        what = f"changes of [{'], ['.join(changed)}] are not in force"
        error = ConfigError(what, where="configuration", remedy="restart the daemon")
        self.say("restart", error if changed else None)


def unreachable(facts: Facts, seen: Underlay) -> ConfigError | None:
    """A node that has peers needs an address to reach them from."""
    if not facts.peers or local_addresses(facts.node, seen):
        return None
    remedy = "set node.underlay, or node.interface"
    return ConfigError("no underlay address was found on this host", where="node", remedy=remedy)
