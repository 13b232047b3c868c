"""The single values of the file: text -> address, prefix, MAC, name, path.

Owns: how each kind is written, what is wrong with a bad one, and what to write instead.
Never: knows where in the file a value stands, or compares two of them.
Invariant: a parser returns a value or raises Mistake; it accepts one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, NewType

from engine.model import Address, Failsafe, Interface, NamedPort, Prefix

_LOCALHOST6 = IPv6Address("::1")
PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
NAMED_NAMESPACES = "/run/netns"  # where `ip netns add` keeps them

Name = NewType("Name", str)  # of a node or peer
PodName = NewType("PodName", str)  # may hold one "/": namespace/pod
DeviceName = NewType("DeviceName", str)
FilePath = NewType("FilePath", str)
Namespace = NewType("Namespace", str)  # always an absolute path


class Mistake(ValueError):  # noqa: N818 - it is what the user made
    """What is wrong with one value, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a TCP port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Labels:
    """A table of the user's own keys, sorted."""

    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mac:
    """A unicast Ethernet address."""

    octets: bytes

    def __str__(self) -> str:
        return self.octets.hex(":")


@dataclass(frozen=True, slots=True)
class BitRate:
    """Bits per second."""

    bits: int

    def __str__(self) -> str:
        units = {"G": 10**9, "M": 10**6, "k": 10**3}
        unit, size = next(((unit, size) for unit, size in units.items() if self.bits % size == 0), ("", 1))
        return f"{self.bits // size}{unit}"


@dataclass(frozen=True, slots=True)
class Leaf:
    """How one kind of value is parsed and described in the schema."""

    parse: Callable[[str], Any]
    noun: str
    example: str
    schema: dict[str, Any]


def quote(value: object) -> str:
    """The value as the user wrote it, on one line, not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        text = str(value)
    else:
        text = '"' + "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in value) + '"'
    return text if len(text) <= 80 else f"{text[:76]}..."


# -- addresses -----------------------------------------------------------------
def _ip(text: str, noun: str, example: str) -> Address:
    if "%" in text:
        raise Mistake(f"{quote(text)} has a zone", "leave out % and what follows; link-local addresses cannot be used")
    try:
        return ip_address(text)
    except ValueError:
        raise Mistake(f"{quote(text)} is not {noun}", f"write it like {example}") from None


def address(text: str) -> Address:
    head, slash, _ = text.partition("/")
    if slash:
        _ip(head, "an IP address", '"192.0.2.1"')
        raise Mistake(f"{quote(text)} has a prefix length where only an address is meant", f'write "{head}"')
    return _ip(text, "an IP address", '"192.0.2.1" or "2001:db8::1"')


def address4(text: str) -> IPv4Address:
    value = address(text)
    if not isinstance(value, IPv4Address):
        raise Mistake(f"{quote(text)} is not an IPv4 address", 'write it like "192.0.2.1"')
    return value


def address6(text: str) -> IPv6Address:
    value = address(text)
    if not isinstance(value, IPv6Address):
        raise Mistake(f"{quote(text)} is not an IPv6 address", 'write it like "2001:db8::1"')
    return value


def _length(text: str, value: Address, digits: str) -> int:
    longest = value.max_prefixlen
    if not re.fullmatch(r"[0-9]{1,3}", digits) or int(digits) > longest:
        what = f"{quote(text)} has the prefix length {quote(digits)}"
        raise Mistake(what, f"IPv{value.version} prefix lengths are 0 to {longest}")
    return int(digits)


def interface(text: str) -> Interface:
    head, slash, digits = text.partition("/")
    value = _ip(head, "an address of an interface", '"192.0.2.1/24" or "2001:db8::1/64"')
    length = _length(text, value, digits) if slash else value.max_prefixlen
    return ip_interface((value, length))


def prefix(text: str) -> Prefix:
    head, slash, digits = text.partition("/")
    value = _ip(head, "a prefix", '"10.244.1.0/24" or "fd00:10:244:1::/64"')
    if not slash:
        length = value.max_prefixlen
        raise Mistake(f"{quote(text)} has no prefix length", f'write "{head}/{length}" for this one address')
    network = ip_network((value, _length(text, value, digits)), strict=False)
    if network.network_address != value:
        raise Mistake(f"{quote(text)} has host bits set", f'write "{network}"')
    return network


def endpoint(text: str) -> Endpoint:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})", text)
    if match is None:
        what = f"{quote(text)} is not an address and a port"
        raise Mistake(what, 'write it like "127.0.0.1:9477" or "[::1]:9477"')
    value = _ip(match[1] or match[2], "an IP address", '"127.0.0.1:9477"')
    if (value.version == 6) is not (match[1] is not None):
        raise Mistake(f"{quote(text)} has its brackets wrong", "IPv6 addresses stand in [ ], IPv4 addresses do not")
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise Mistake(f"{quote(text)} has the port {port}", "ports are 1 to 65535")
    return Endpoint(value, port)


def mac(text: str) -> Mac:
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", text):
        raise Mistake(f"{quote(text)} is not a MAC address", 'write it like "66:07:02:c1:cc:60"')
    octets = bytes.fromhex(text.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        what = f"{quote(text)} is not the MAC address of one device"
        raise Mistake(what, "its first byte must be even, and not all bytes zero")
    return Mac(octets)


# -- rates ---------------------------------------------------------------------
LOWEST_RATE, HIGHEST_RATE = 10**3, 10**12  # bits per second


def bit_rate(text: str) -> BitRate:
    match = re.fullmatch(r"([0-9]{1,13})([kMG]?)", text)
    if match is None:
        raise Mistake(f"{quote(text)} is not a rate", 'write bits per second, like "500k", "100M" or "1G"')
    bits = int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]
    if not LOWEST_RATE <= bits <= HIGHEST_RATE:
        raise Mistake(f"{quote(text)} is not a rate from 1k to 1000G", "leave it out for no limit")
    return BitRate(bits)


# -- names and paths -----------------------------------------------------------
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAME_RULE = "letters, digits, dots, dashes and underscores, at most 253, the first and last a letter or digit"


def name(text: str) -> Name:
    if not _NAME.fullmatch(text):
        raise Mistake(f"{quote(text)} is not a name", f"use {_NAME_RULE}")
    return Name(text)


def pod_name(text: str) -> PodName:
    parts = text.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        what = f"{quote(text)} is not the name of a pod"
        raise Mistake(what, f'use {_NAME_RULE}; "namespace/name" is allowed')
    return PodName(text)


def device_name(text: str) -> DeviceName:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", text):
        what = f"{quote(text)} is not the name of a network device"
        raise Mistake(what, "use at most 15 letters, digits, dots, dashes and underscores")
    return DeviceName(text)


def file_path(text: str) -> FilePath:
    if not text.startswith("/") or not text.isprintable() or text.endswith("/"):
        raise Mistake(f"{quote(text)} is not an absolute path", 'begin it with "/" and end it with a name')
    return FilePath(text)


def namespace(text: str) -> Namespace:
    if not text:
        raise Mistake(
            '"" names no network namespace', 'write the name that `ip netns` shows, or a path like "/proc/1234/ns/net"'
        )
    if text.startswith("/"):
        return Namespace(file_path(text))
    if not _NAME.fullmatch(text):
        what = f"{quote(text)} is neither the name of a network namespace nor an absolute path"
        raise Mistake(what, 'write the name that `ip netns` shows, or a path like "/proc/1234/ns/net"')
    return Namespace(f"{NAMED_NAMESPACES}/{text}")


_PORT_NAME = r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)"


def named_port(text: str) -> NamedPort:
    match = re.fullmatch(_PORT_NAME + r":([0-9]{1,5})(?:/(tcp|udp|sctp))?", text)
    if match is None or match[1].isdigit() or not 1 <= int(match[2]) <= 65535:
        remedy = 'write name, number and protocol, like "http:8080" or "dns:53/udp"'
        raise Mistake(f"{quote(text)} is not a named port", remedy)
    return NamedPort(match[1], PORT_PROTOCOLS[match[3] or "tcp"], int(match[2]))


def failsafe(text: str) -> Failsafe:
    head, at, net = text.partition("@")
    match = re.fullmatch(r"(tcp|udp|sctp)/([0-9]{1,5})", head)
    if match is None or int(match[2]) > 65535:
        raise Mistake(f"{quote(text)} is not a failsafe port", 'write it like "tcp/22" or "tcp/22@10.0.0.0/8"')
    return Failsafe(PORT_PROTOCOLS[match[1]], int(match[2]), prefix(net) if at else None)


def check_leads_to_pod(address: Address) -> None:
    """Refuse an address of the host whose packets cannot be turned to a pod."""
    if address == _LOCALHOST6:
        what = f"{quote(str(address))} cannot lead to a pod: the kernel lets no packet of ::1 leave by a device"
        raise Mistake(what, 'write "127.0.0.1", or another address of the host')


_LABEL = re.compile(r"[ -~]{1,512}")


def label(key: str, value: object) -> tuple[str, str]:
    """One entry of a table of labels."""
    if not isinstance(value, str):
        raise Mistake(f"{quote(value)} is not text", "write it in quotes")
    if not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value or " "):
        raise Mistake(f"{quote(value)} is not a label", "use printable ASCII, at most 512 characters")
    return key, value


LEAVES: dict[Any, Leaf] = {
    Address: Leaf(address, "an IP address", '"192.0.2.1"', {"format": "ip-address"}),
    IPv4Address: Leaf(address4, "an IPv4 address", '"192.0.2.1"', {"format": "ipv4"}),
    IPv6Address: Leaf(address6, "an IPv6 address", '"2001:db8::1"', {"format": "ipv6"}),
    Interface: Leaf(interface, "an address of an interface", '"192.0.2.1/24"', {"format": "ip-interface"}),
    Prefix: Leaf(prefix, "a prefix", '"10.244.1.0/24"', {"format": "ip-prefix"}),
    Endpoint: Leaf(endpoint, "an address and a port", '"127.0.0.1:9477"', {"format": "ip-endpoint"}),
    NamedPort: Leaf(
        named_port, "a named port", '"http:8080"', {"pattern": f"^{_PORT_NAME}:[0-9]{{1,5}}(/(tcp|udp|sctp))?$"}
    ),
    BitRate: Leaf(bit_rate, "a rate in bits per second", '"100M"', {"pattern": "^[0-9]{1,13}[kMG]?$"}),
    Failsafe: Leaf(failsafe, "a failsafe port", '"tcp/22"', {"pattern": "^(tcp|udp|sctp)/[0-9]{1,5}(@.+)?$"}),
    Mac: Leaf(mac, "a MAC address", '"66:07:02:c1:cc:60"', {"pattern": "^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"}),
    Name: Leaf(name, "a name", '"node-a"', {"minLength": 1, "maxLength": 253}),
    PodName: Leaf(pod_name, "a name", '"default/web"', {"minLength": 1, "maxLength": 507}),
    DeviceName: Leaf(device_name, "a device name", '"eth0"', {"minLength": 1, "maxLength": 15}),
    FilePath: Leaf(file_path, "an absolute path", '"/run/towpath/control.sock"', {"pattern": "^/"}),
    Namespace: Leaf(namespace, "a network namespace", '"web"', {"minLength": 1}),
}
