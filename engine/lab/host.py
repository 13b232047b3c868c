"""A machine of the lab: a network namespace with interfaces, routes, sockets and programs.

Owns: its namespace, the programs started in it and the captures taken in it.
Never: forwards or filters anything by itself unless told so (`forward`).
Invariant: what was made through a host is gone once the host is closed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from engine.apply.features import read_features
from engine.lab import offload
from engine.lab.capture import Capture
from engine.lab.namespace import Namespace
from engine.lab.offload import Profile
from engine.lab.process import Process
from engine.lab.waiting import wait_until

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_IFA_F_NODAD = 2
_NUD_PERMANENT = 128


@dataclass(frozen=True, slots=True)
class Interface:
    """A network device of a host."""

    host: Host
    name: str

    @property
    def index(self) -> int:
        return self.host.call(socket.if_nametoindex, self.name)

    @property
    def mtu(self) -> int:
        return int(self._get("mtu"))

    @property
    def mac(self) -> str:
        return str(self._get("address"))

    def is_up(self) -> bool:
        """Whether packets pass: before the kernel has said so it drops them."""
        return bool(self._get("operstate") == "UP")

    @property
    def statistics(self) -> Mapping[str, int]:
        """The kernel's counters: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, ..."""
        return dict(self._get("stats64"))

    def _get(self, attribute: str) -> Any:
        return self.host.namespace.netlink(lambda ipr: ipr.link("get", index=self.index)[0].get(attribute))

    def set(self, **attributes: Any) -> Interface:
        """Change link attributes: mtu=, state="up"|"down", address=, txqlen=, ..."""
        self.host.namespace.netlink(lambda ipr: ipr.link("set", index=self.index, **attributes))
        return self

    def address(self, *addresses: str) -> Interface:
        """Give the device addresses with prefix lengths ("10.0.0.1/24"), usable at once."""
        for text in addresses:
            value = ip_interface(text)
            request: dict[str, Any] = {"index": self.index, "address": str(value.ip)}
            request["prefixlen"] = value.network.prefixlen
            if value.version == 6:
                request["flags"] = _IFA_F_NODAD
            self.host.namespace.netlink(partial(_replace_address, request))
            if value.version == 6 and self.host.call(_is_up, self.name):
                wait_until(partial(self.host.call, _answers_for, self.name, value.ip.packed), f"{text} to be in use")
        return self

    def addresses(self) -> list[str]:
        """The device's addresses with prefix lengths, link-local ones left out."""
        found = self.host.namespace.netlink(
            lambda ipr: [f"{a.get('address')}/{a['prefixlen']}" for a in ipr.get_addr(index=self.index)]
        )
        return [text for text in found if not ip_interface(text).ip.is_link_local]

    def neighbor(self, address: str, mac: str) -> Interface:
        """State the MAC address behind a neighbour's IP address for good."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.host.namespace.netlink(
            lambda ipr: ipr.neigh(
                "replace", dst=address, lladdr=mac, ifindex=self.index, state=_NUD_PERMANENT, family=family
            )
        )
        return self

    def offload(self, profile: Profile | Mapping[str, bool]) -> Interface:
        features = profile.features if isinstance(profile, Profile) else profile
        self.host.call(offload.set_features, self.name, features)
        return self

    def features(self) -> dict[str, bool]:
        return self.host.call(read_features, self.name)

    def capture(self, path: Path | None = None) -> Capture:
        """Start to record every frame of the device; a context manager."""
        return Capture(self.host.namespace, self.name, path)


class Host:
    """Made by `Lab.host` and `Lab.pod`."""

    def __init__(self, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.directory = directory
        self.namespace = Namespace(name)
        self._environment = environment
        self._processes: list[Process] = []
        self._closing = contextlib.ExitStack()
        self.call(_quiet_ipv6)
        self.sysctl("net/ipv4/ping_group_range", "0 0")  # echo sockets for both families, see traffic.ping
        self.interface("lo").set(state="up")

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    # -- the inside --------------------------------------------------------
    def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Run `function` in the host's namespace. Sockets it makes stay there for good."""
        return self.namespace.call(function, *args, **kwargs)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this host, usable from any thread."""
        return self.call(socket.socket, family, kind, protocol)

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Read, or set and read, a setting below /proc/sys, written with slashes or dots."""
        path = Path("/proc/sys") / name.replace(".", "/")
        if value is not None:
            self.call(path.write_text, str(value))
        return self.call(path.read_text).strip()

    # -- network -----------------------------------------------------------
    def interface(self, name: str) -> Interface:
        return Interface(self, name)

    def interfaces(self) -> list[str]:
        return [name for _, name in self.call(socket.if_nameindex)]

    def forward(self) -> Host:
        """Make the host's kernel a router for both families."""
        self.sysctl("net/ipv4/ip_forward", 1)
        self.sysctl("net/ipv6/conf/all/forwarding", 1)
        return self

    def route(
        self, prefix: str, *, via: str | None = None, device: str | None = None, onlink: bool = False, mtu: int = 0
    ) -> Host:
        """Send `prefix` ("default" for either family is "0.0.0.0/0" and "::/0") to a gateway or device."""
        family = socket.AF_INET6 if ip_network(prefix).version == 6 else socket.AF_INET
        request: dict[str, Any] = {"dst": prefix, "family": family}
        if via is not None:
            request["gateway"] = via
        if device is not None:
            request["oif"] = self.interface(device).index
        if onlink:
            request["flags"] = 4  # RTNH_F_ONLINK
        if mtu:
            request["metrics"] = {"mtu": mtu}
        self.namespace.netlink(lambda ipr: ipr.route("replace", **request))
        return self

    # -- programs ----------------------------------------------------------
    def start(
        self, argv: Sequence[str], *, name: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program that runs on; its output goes to <run directory>/<host>/<name>.log."""
        self.directory.mkdir(exist_ok=True)
        log = self.directory / f"{name or Path(argv[0]).name}.log"
        process = Process(self.namespace, argv, log=log, environment={**self._environment, **(environment or {})})
        self._processes.append(process)
        return process

    def run(
        self, argv: Sequence[str], *, seconds: float = 30.0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Its exit code is for the caller to judge."""
        return self.call(
            lambda: subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env={**os.environ, **self._environment, **(environment or {})},
            )
        )

    def enter_command(self, *, user_namespace_of: int | None = None) -> str:
        """A shell command by which a person gets into this host."""
        user = f"-t {user_namespace_of} -U --preserve-credentials " if user_namespace_of else ""
        return f"nsenter {user}--net={shlex.quote(self.namespace.path)} bash"

    def on_close(self, action: Callable[[], object]) -> None:
        """Do `action` before the host goes away; the last one given comes first."""
        self._closing.callback(action)

    def tell_to_stop(self) -> None:
        """Ask every program to end, without waiting."""
        for process in self._processes:
            process.signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop the programs, the latest first."""
        while self._processes:
            self._processes.pop().stop()

    def close(self) -> None:
        try:
            self._closing.close()
        finally:
            self.stop()
            self.namespace.close()


def _is_up(device: str) -> bool:
    """Whether the device has joined anything: one that is down, or has no multicast, lists no group."""
    return any(line.split()[1] == device for line in _groups())


def _answers_for(device: str, address: bytes) -> bool:
    """Whether neighbour solicitations for the address are heard: the kernel joins their group a moment later."""
    group = f"ff0200000000000000000001ff{address[-3:].hex()}"
    return any(line.split()[1:3] == [device, group] for line in _groups())


def _groups() -> list[str]:
    return Path("/proc/thread-self/net/igmp6").read_text().splitlines()


def _replace_address(request: dict[str, Any], ipr: Any) -> None:
    ipr.addr("replace", **request)


def _quiet_ipv6() -> None:
    """No duplicate detection, no router solicitation: addresses are usable at once, captures are clean."""
    for scope in ("all", "default"):
        base = Path("/proc/sys/net/ipv6/conf") / scope
        for setting, value in (("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")):
            (base / setting).write_text(value)
