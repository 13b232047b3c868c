"""Looks at a container's network namespace before anything is made in it, and when CHECK asks.

Owns: what is read from inside the namespace, and which namespaces are refused.
Never: changes anything.
Invariant: the caller's thread stays where it is; no netlink socket is opened.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from engine.cni.answer import CniError, Code
from engine.errors import KernelError
from engine.model import Prefix
from engine.pod.namespace import Identity, identity, run_inside

_HERE = Path("/proc/thread-self/net")
_FLAG_UP = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`routes`: where they lead to, through whatever device but lo."""

    namespace_id: Identity
    devices: frozenset[str]
    routes: frozenset[Prefix]


def look(path: str) -> Sandbox:
    """The namespace at `path`; CniError when it is none, or the daemon's own."""
    found = identity(path)
    if found is None:
        raise CniError(Code.UNKNOWN_CONTAINER, f"network namespace {path} does not exist", "CNI_NETNS names it")
    if found == identity("/proc/self/ns/net"):
        what = "CNI_NETNS is the network namespace of the host"
        raise CniError(Code.INVALID_ENVIRONMENT, what, f"{path}: give the container a namespace of its own")
    try:
        devices, routes = run_inside(path, _read, where=path)
    except KernelError as error:
        if "is not a network namespace" in error.what:
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS is not a network namespace", path) from error
        raise CniError(Code.FAILED, error.what, error.remedy) from error
    return Sandbox(found, devices, routes)


def _read() -> tuple[frozenset[str], frozenset[Prefix]]:
    devices = {line.split(":", 1)[0].strip() for line in _lines("dev")[2:]}
    routes: set[Prefix] = set()
    for line in _lines("route")[1:]:
        device, destination, *_, mask = line.split()[:8]
        if device != "lo":
            routes.add(IPv4Network((_in_host_order(destination), int(mask, 16).bit_count())))
    for line in _lines("ipv6_route"):
        destination, length, *_, device = line.split()
        if device != "lo":
            routes.add(IPv6Network((int(destination, 16), int(length, 16))))
    return frozenset(devices), frozenset(routes)


def _in_host_order(digits: str) -> int:
    """An IPv4 address as /proc has it: the number that its bytes are to this processor."""
    return int.from_bytes(int(digits, 16).to_bytes(4, sys.byteorder), "big")


def _lines(name: str) -> list[str]:
    try:
        return (_HERE / name).read_text().splitlines()
    except FileNotFoundError:  # a kernel without the family
        return []
