"""A network in one process: hosts, links, switches and pods, gone when the `with` ends.

Owns: everything it made, and the run directory with the logs.
Never: touches a namespace, device or process that it did not make.
Invariant: when the owning process ends, however it ends, the kernel removes
hosts, links and programs; only the run directory can stay, for `sweep` to find.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.lab.host import Host, Interface
from engine.lab.offload import Profile
from engine.lab.owner import MARK, RunDirectory
from engine.lab.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two hosts (a veth pair)."""

    left: Interface
    right: Interface

    def cut(self) -> None:
        self.left.set(state="down")

    def mend(self) -> None:
        self.left.set(state="up")


class Switch:
    """A bridge in a namespace of its own, joining any number of hosts."""

    def __init__(self, lab: Lab, host: Host, mtu: int) -> None:
        self.host = host
        self.mtu = mtu
        self._lab = lab
        self._ports = itertools.count()
        host.namespace.netlink(lambda ipr: ipr.link("add", ifname="br0", kind="bridge", br_mcast_snooping=0))
        self.bridge = host.interface("br0").set(mtu=mtu, state="up")

    def join(
        self, host: Host, *, device: str = "eth0", addresses: Sequence[str] = (), profile: Profile = Profile.DEFAULT
    ) -> Interface:
        """Plug `host` in; its new device."""
        names = (device, f"port{next(self._ports)}")
        link = self._lab.link(host, self.host, names=names, mtu=self.mtu, profile=profile)
        link.right.set(master=self.bridge.index)
        return link.left.address(*addresses)


class Lab:
    """Hosts and what joins them.

    >>> with Lab() as lab:  # doctest: +SKIP
    ...     a, b = lab.host("a"), lab.host("b")
    ...     link = lab.link(a, b, mtu=9000)
    ...     link.left.address("10.0.0.1/24")
    ...     link.right.address("10.0.0.2/24")
    ...     print(ping(a, "10.0.0.2").median_ms)
    """

    def __init__(self, kind: str = "lab") -> None:
        self._directory = RunDirectory(kind)
        self._hosts: dict[str, Host] = {}

    @property
    def directory(self) -> Path:
        """Logs, configuration and sockets of this run; deleted with the lab."""
        return self._directory.path

    @property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(self._hosts.values())

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def host(self, name: str) -> Host:
        """A new machine with nothing but its loopback device."""
        if name in self._hosts:
            raise ValueError(f"there is a host {name!r} already")
        host = Host(name, self.directory / name, {MARK: str(self.directory), "PYTHONUNBUFFERED": "1"})
        self._hosts[name] = host
        return host

    def pod(self, name: str) -> Host:
        """A namespace for a pod: a host whose devices somebody else makes."""
        return self.host(name)

    def link(
        self,
        left: Host,
        right: Host,
        *,
        names: tuple[str, str] = ("eth0", "eth0"),
        mtu: int = 1500,
        profile: Profile = Profile.DEFAULT,
    ) -> Link:
        """Join two hosts by a veth pair, both ends up and of one MTU and offload profile."""
        peer = {"ifname": names[1], "net_ns_fd": right.namespace.descriptor, "mtu": mtu}
        left.namespace.netlink(lambda ipr: ipr.link("add", ifname=names[0], kind="veth", mtu=mtu, peer=peer))
        link = Link(left.interface(names[0]), right.interface(names[1]))
        for end in (link.left, link.right):
            end.offload(profile).set(state="up")
        for end in (link.left, link.right):
            wait_until(end.is_up, f"{end.name} of {end.host.name} to come up", interval=0.001)
        return link

    def switch(self, name: str = "switch", *, mtu: int = 1500) -> Switch:
        return Switch(self, self.host(name), mtu)

    def remove(self, host: Host) -> None:
        """Take a host down, with its programs and its ends of links."""
        del self._hosts[host.name]
        host.close()

    def close(self) -> None:
        """Stop every program, drop every namespace, delete the run directory. Idempotent."""
        try:
            for host in self.hosts:
                host.tell_to_stop()
            for host in reversed(self.hosts):
                self.remove(host)
        finally:
            self._directory.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
