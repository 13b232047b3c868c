"""What stands on the plugin's stdin: the network configuration and what the runtime added to it.

Owns: the keys that are known, what is wrong with a value, and where a wish may stand.
Never: knows what is possible on this node.
Invariant: what is accepted is acted upon; a key that is not known is refused
by name, so that nobody relies on something that does not happen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import Any, cast

import msgspec

from engine.cni.answer import NEWEST, VERSIONS, CniError, Code, listed
from engine.config import leaf
from engine.model import Address, Bandwidth, PortMapping, Prefix, Protocol

OURS = "towpath"  # as ipam.type
PLUGIN = "towpath-cni"  # the program that hands calls to us
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_PLUGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_KNOWN = frozenset(
    {"cniVersion", "cniVersions", "name", "type", "args", "capabilities", "runtimeConfig", "ipam", "dns", "prevResult"}
    | {"disableCheck", "disableGC", "loadOnlyInlinedPlugins", "socket", "spool", "defaultRoute"}
)
_KNOWN_IPAM = frozenset({"type", "pools", "families", "routes", "sticky"})
_CAPABILITIES = frozenset({"ips", "mac", "portMappings", "bandwidth", "dns", "aliases", "cgroupPath"})
UNLIMITED = Bandwidth()
_MOST_ROUTES = 64
_MOST_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class Configuration:
    version: str
    name: str
    ipam: str = OURS
    pools: tuple[Prefix, ...] = ()
    families: tuple[int, ...] = ()  # the IP versions; those of the pools when empty
    sticky: bool = False
    routes: tuple[Prefix, ...] = ()
    default_route: bool | None = None
    wanted: tuple[Address, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth = UNLIMITED
    dns: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] | None = None
    valid: tuple[tuple[str, str], ...] | None = None  # for GC: (container, interface)
    text: bytes = b""


def version_of(text: bytes) -> str:
    """The version that is asked in, for an answer to something that may be wrong otherwise."""
    try:
        version = msgspec.json.decode(text).get("cniVersion", "")
    except (msgspec.MsgspecError, ValueError, AttributeError, RecursionError):
        return NEWEST
    return version if version in VERSIONS else NEWEST


def asked_version(text: bytes) -> str:
    """What VERSION echoes: any version at all."""
    version = _decoded(text).get("cniVersion", NEWEST) if text.strip() else NEWEST
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise CniError(Code.DECODING_FAILURE, "cniVersion is not a version", _shown(version))
    return version


def read(text: bytes, arguments: Mapping[str, str]) -> Configuration:
    """The configuration in `text`; CniError names what cannot be."""
    tree = _decoded(text)
    basis = _basis(tree, text)
    runtime = _table(tree, "runtimeConfig")
    _refuse_unknown(tree, runtime)
    conventional = _table(_table(tree, "args"), "cni")
    ipam = _ours(_table(tree, "ipam")) if basis.ipam == OURS else {}
    return replace(
        basis,
        default_route=_boolean(tree, "defaultRoute"),
        wanted=_wanted(runtime, conventional, arguments),
        labels=_labels(conventional),
        ports=tuple(dict.fromkeys(_port(entry) for entry in _list(runtime, "portMappings"))),  # 0.0.0.0, and :: too
        bandwidth=_bandwidth(_table(runtime, "bandwidth")),
        dns=_dns(tree, runtime),
        previous=_table(tree, "prevResult") if tree.get("prevResult") is not None else None,
        **ipam,
    )


def read_for_removal(text: bytes) -> Configuration:
    """As much as DEL and GC need: what has been added must go, whatever became of the configuration since."""
    tree = _decoded(text)
    return replace(_basis(tree, text), valid=_valid(tree))


def _basis(tree: Mapping[str, Any], text: bytes) -> Configuration:
    version = _version(tree)
    name = _string(tree, "name")
    if not _NAME.fullmatch(name):
        raise CniError(Code.INVALID_CONFIGURATION, "name is not the name of a network", _shown(name))
    kind = _string(_table(tree, "ipam"), "type") or OURS
    if not _PLUGIN.fullmatch(kind):
        raise CniError(Code.INVALID_CONFIGURATION, "ipam.type is not the name of a plugin", _shown(kind))
    if kind == PLUGIN:  # it would call us, and wait for the call that waits for it
        raise CniError(Code.INVALID_CONFIGURATION, f"ipam.type {PLUGIN} gives no addresses", f"leave it out, or {OURS}")
    return Configuration(version, name, kind, text=text)


# -- the parts -------------------------------------------------------------------
def _decoded(text: bytes) -> dict[str, Any]:
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CniError(Code.DECODING_FAILURE, "the network configuration is not JSON", str(error)) from error
    if not isinstance(tree, dict):
        raise CniError(Code.DECODING_FAILURE, "the network configuration is not a JSON object")
    return tree


def _version(tree: Mapping[str, Any]) -> str:
    version = tree.get("cniVersion", "")
    if version not in VERSIONS:
        details = f"{_shown(version)} is none of {listed(VERSIONS)}"
        raise CniError(Code.INCOMPATIBLE_VERSION, "cniVersion is missing or not supported", details)
    return str(version)


def _refuse_unknown(tree: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if key not in _KNOWN and not key.startswith("cni.dev/"):
            raise _unsupported(key, value)
    for capability, value in runtime.items():
        if capability not in _CAPABILITIES:
            raise _unsupported(f"runtimeConfig.{capability}", value)
    if runtime.get("mac"):
        raise _unsupported("runtimeConfig.mac", runtime["mac"], "the pod's device is a TUN: it has no MAC address")


def _ours(section: Mapping[str, Any]) -> dict[str, Any]:
    """What our own address management is asked for."""
    for key, value in section.items():
        if key not in _KNOWN_IPAM:
            raise _unsupported(f"ipam.{key}", value)
    families = tuple(_list(section, "families"))
    if not all(type(family) is int and family in {4, 6} for family in families) or len(set(families)) < len(families):
        raise CniError(Code.INVALID_CONFIGURATION, "ipam.families is not a list of 4 and 6", _shown(families))
    return {
        "pools": tuple(_prefix(text, "ipam.pools") for text in _list(section, "pools")),
        "families": families,
        "sticky": _boolean(section, "sticky") or False,
        "routes": _routes(section),
    }


def _routes(section: Mapping[str, Any]) -> tuple[Prefix, ...]:
    entries = _list(section, "routes")
    if len(entries) > _MOST_ROUTES:
        raise CniError(Code.INVALID_CONFIGURATION, f"ipam.routes has more than {_MOST_ROUTES} entries")
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise CniError(Code.INVALID_CONFIGURATION, "ipam.routes is not a list of objects", _shown(entry))
        for key, value in entry.items():
            if key not in {"dst", "scope"}:
                raise _unsupported(f"ipam.routes.{key}", value)
        found.append(_prefix(entry.get("dst"), "ipam.routes.dst"))
    return tuple(dict.fromkeys(found))


def _wanted(
    runtime: Mapping[str, Any], conventional: Mapping[str, Any], arguments: Mapping[str, str]
) -> tuple[Address, ...]:
    """Addresses asked for: by capability, else by args, else by CNI_ARGS, as the conventions have it."""
    texts = (
        _list(runtime, "ips") or _list(conventional, "ips") or list(filter(None, arguments.get("IP", "").split(",")))
    )
    if len(texts) > _MOST_ADDRESSES:
        raise CniError(Code.INVALID_CONFIGURATION, f"more than {_MOST_ADDRESSES} addresses are asked for")
    found = []
    for text in texts:
        try:
            found.append(ip_interface(_text(text)).ip)
        except ValueError:
            raise CniError(Code.INVALID_CONFIGURATION, "ips: not an IP address", _shown(text)) from None
    return tuple(dict.fromkeys(found))


def _labels(conventional: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = {}
    for entry in _list(conventional, "labels"):
        pair = (entry.get("key"), entry.get("value", "")) if isinstance(entry, dict) else (None, None)
        if not all(isinstance(part, str) for part in pair):
            raise CniError(Code.INVALID_CONFIGURATION, "args.cni.labels is not a list of key and value", _shown(entry))
        found[str(pair[0])] = str(pair[1])
    return tuple(sorted(found.items()))


def _port(entry: Any) -> PortMapping:
    table = entry if isinstance(entry, dict) else {}
    host, pod, protocol = table.get("hostPort", 0), table.get("containerPort", 0), table.get("protocol", "tcp")
    valid = all(type(port) is int and 0 < port < 65536 for port in (host, pod)) and isinstance(protocol, str)
    if not valid or protocol.lower() not in {"tcp", "udp", "sctp"}:
        raise CniError(Code.INVALID_CONFIGURATION, "runtimeConfig.portMappings has a bad entry", _shown(entry))
    text = table.get("hostIP") or ""
    try:
        address = leaf.address(str(text)) if text else None
    except leaf.Mistake:
        raise CniError(Code.INVALID_CONFIGURATION, "portMappings.hostIP is no address", _shown(text)) from None
    kind = cast(Protocol, protocol.lower())
    return PortMapping(host, pod, kind, None if address is None or address.is_unspecified else address)


def _bandwidth(table: Mapping[str, Any]) -> Bandwidth:
    """The capability has bursts in bits, and ingress as seen by the pod, as we have it."""
    names = {
        "ingressRate": "ingress",
        "egressRate": "egress",
        "ingressBurst": "ingress_burst",
        "egressBurst": "egress_burst",
    }
    for key, value in table.items():
        if key not in names:
            raise _unsupported(f"runtimeConfig.bandwidth.{key}", value)
        if type(value) is not int or not 0 <= value < 1 << 53:
            raise CniError(Code.INVALID_CONFIGURATION, f"runtimeConfig.bandwidth.{key} is not a rate", _shown(value))
    return Bandwidth(**{names[key]: value // 8 if key.endswith("Burst") else value for key, value in table.items()})


def _dns(tree: Mapping[str, Any], runtime: Mapping[str, Any]) -> Mapping[str, Any]:
    """As configured; the capability has other names for the same."""
    found = dict(_table(tree, "dns"))
    given = _table(runtime, "dns")
    for ours, theirs in (("nameservers", "servers"), ("search", "searches"), ("options", "options")):
        if given.get(theirs):
            found[ours] = given[theirs]
    for key, value in found.items():
        words = value if isinstance(value, list) else [value]
        if key not in {"nameservers", "domain", "search", "options"} or not all(
            isinstance(word, str) for word in words
        ):
            raise CniError(Code.INVALID_CONFIGURATION, f"dns.{key} is not known, or not text", _shown(value))
    return found


def _valid(tree: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """The attachments that the runtime still knows; None: it did not say."""
    key = "cni.dev/valid-attachments"
    if key not in tree:
        return None
    found = []
    for entry in _list(tree, key):
        pair = (entry.get("containerID"), entry.get("ifname")) if isinstance(entry, dict) else (None, None)
        if not all(isinstance(part, str) for part in pair):
            raise CniError(Code.INVALID_CONFIGURATION, f"{key} has a bad entry", _shown(entry))
        found.append((str(pair[0]), str(pair[1])))
    return tuple(found)


# -- values ----------------------------------------------------------------------
def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is not an object", _shown(value))
    return value


def _list(tree: Mapping[str, Any], key: str) -> list[Any]:
    value = tree.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is not a list", _shown(value))
    return value


def _string(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key, "")
    if not isinstance(value, str):
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is not text", _shown(value))
    return value


def _boolean(tree: Mapping[str, Any], key: str) -> bool | None:
    value = tree.get(key)
    if value is not None and not isinstance(value, bool):
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is neither true nor false", _shown(value))
    return value


def _prefix(text: Any, key: str) -> Prefix:
    try:
        return ip_network(_text(text))
    except ValueError:
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is not a prefix", _shown(text)) from None


def _text(value: Any) -> str:
    """ValueError for what is no text: ipaddress would take numbers too."""
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004 - as ipaddress says of a bad text
    return value


def _unsupported(key: str, value: Any, why: str = "") -> CniError:
    return CniError(Code.UNSUPPORTED_FIELD, f"unsupported field {key}: {_shown(value)}", why or "remove it")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
