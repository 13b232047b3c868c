"""Looks at a container's network namespace before anything is made in it, and when CHECK asks.

Owns: what is read from inside the namespace, and which namespaces are refused.
Never: changes anything.
Invariant: the caller's thread stays where it is; no netlink socket is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.cni.answer import CniError, Code
from engine.errors import KernelError
from engine.pod.namespace import Identity, identity, run_inside

_HERE = Path("/proc/thread-self/net")
_FLAG_UP = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`defaults`: IP versions that have a default route, through whatever device."""

    namespace_id: Identity
    devices: frozenset[str]
    defaults: frozenset[int]


def look(path: str) -> Sandbox:
    """The namespace at `path`; CniError when it is none, or the daemon's own."""
    found = identity(path)
    if found is None:
        raise CniError(Code.UNKNOWN_CONTAINER, f"network namespace {path} does not exist", "CNI_NETNS names it")
    if found == identity("/proc/self/ns/net"):
        what = "CNI_NETNS is the network namespace of the host"
        raise CniError(Code.INVALID_ENVIRONMENT, what, f"{path}: give the container a namespace of its own")
    try:
        devices, defaults = run_inside(path, _read, where=path)
    except KernelError as error:
        if "is not a network namespace" in error.what:
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS is not a network namespace", path) from error
        raise CniError(Code.FAILED, error.what, error.remedy) from error
    return Sandbox(found, devices, defaults)


def _read() -> tuple[frozenset[str], frozenset[int]]:
    devices = {line.split(":", 1)[0].strip() for line in _lines("dev")[2:]}
    defaults = set()
    for line in _lines("route")[1:]:
        words = line.split("\t")
        if words[1] == words[7] == "00000000":
            defaults.add(4)
    for line in _lines("ipv6_route"):
        words = line.split()
        if words[1] == "00" and words[9] != "lo":
            defaults.add(6)
    return frozenset(devices), frozenset(defaults)


def _lines(name: str) -> list[str]:
    try:
        return (_HERE / name).read_text().splitlines()
    except FileNotFoundError:  # a kernel without the family
        return []
