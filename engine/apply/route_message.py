"""Routes as the kernel writes them: rtnetlink messages to values, and back.

Owns: the layout of the messages about routes, as far as it concerns us.
Never: does I/O; a message that is cut short or not understood is left out, never guessed at.
Invariant: `decode` of a route that `encode` wrote, as the kernel repeats it, gives the same prefix and next hops.

Thousands of routes at once are why this is written out here: a general
library takes some fifty times as long for each.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from engine.model import Address, Prefix

NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_LINK, DELETE_LINK, NEW_ADDRESS, DELETE_ADDRESS = 16, 17, 20, 21
ERROR, DONE = 2, 3

REQUEST, ACKNOWLEDGE, INTERRUPTED, DUMP = 0x1, 0x4, 0x10, 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
MAIN_TABLE = 254
_UNICAST, _UNSPECIFIED = 1, 0
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_ANY = 0, 253, 255

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_HOP = struct.Struct("=HBBi")  # length, flags, weight - 1, device
_NUMBER = struct.Struct("=I")
_START = HEADER.size + _ROUTE.size
_DESTINATION, _DEVICE, _GATEWAY, _METRIC, _MULTIPATH, _TABLE = 1, 4, 5, 6, 9, 15

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS = {int(family): version for version, family in FAMILIES.items()}
Verb = Literal["add", "replace"]


@dataclass(frozen=True, slots=True)
class KernelHop:
    """Where a route of the kernel leads: by a gateway, or straight out of a device (its index)."""

    gateway: Address | None
    device: int


@dataclass(frozen=True, slots=True)
class Found:
    """A route of the kernel's, or the news of one. `port` is who asked for the change (0: the kernel itself)."""

    kind: int
    port: int
    prefix: Prefix
    protocol: int
    table: int
    hops: tuple[KernelHop, ...]
    metric: int = 0


# -- writing -------------------------------------------------------------------
def next_hops(gateways: tuple[Address, ...], device: int) -> bytes:
    """The attributes that say where a route leads: gateways, or none for straight into `device`."""
    if len(gateways) > 1:
        hops = b"".join(
            _HOP.pack(_HOP.size + len(gateway), 0, 0, 0) + gateway
            for gateway in (_attribute(_GATEWAY, address.packed) for address in gateways)
        )
        return _attribute(_MULTIPATH, hops)
    return _attribute(_GATEWAY, gateways[0].packed) if gateways else _attribute(_DEVICE, _NUMBER.pack(device))


def setting(verb: Verb, sequence: int, prefix: Prefix, protocol: int, hops: bytes, *, linked: bool) -> bytes:
    """Add or replace a route of the main table. `hops`: of `next_hops`; `linked`: they are a device alone."""
    scope = _SCOPE_LINK if linked and prefix.version == 4 else _SCOPE_UNIVERSE
    flags = _CREATE | (_REPLACE if verb == "replace" else _EXCLUSIVE)
    return _message(NEW_ROUTE, flags, sequence, prefix, (protocol, scope, _UNICAST), hops)


def removal(sequence: int, prefix: Prefix, protocol: int) -> bytes:
    """Remove our route to the prefix, wherever it leads."""
    scope = _SCOPE_ANY if prefix.version == 4 else _SCOPE_UNIVERSE
    return _message(DELETE_ROUTE, 0, sequence, prefix, (protocol, scope, _UNSPECIFIED), b"")


def listing(sequence: int, version: int, protocol: int) -> bytes:
    """Ask for all routes of the main table with this protocol number; 0: whatever theirs is."""
    route = _ROUTE.pack(FAMILIES[version], 0, 0, 0, MAIN_TABLE, protocol, 0, 0, 0)
    return HEADER.pack(_START, GET_ROUTE, REQUEST | DUMP, sequence, 0) + route


def acknowledged(message: bytes) -> bytes:
    """The same message, with the wish for an answer when it succeeds too."""
    length, kind, flags, sequence, port = HEADER.unpack_from(message)
    return HEADER.pack(length, kind, flags | ACKNOWLEDGE, sequence, port) + message[HEADER.size :]


def _message(
    kind: int, flags: int, sequence: int, prefix: Prefix, what: tuple[int, int, int], attributes: bytes
) -> bytes:
    protocol, scope, route_type = what
    body = _ROUTE.pack(
        FAMILIES[prefix.version], prefix.prefixlen, 0, 0, MAIN_TABLE, protocol, scope, route_type, 0
    )  # fmt: skip
    destination = _attribute(_DESTINATION, prefix.network_address.packed)
    length = _START + len(destination) + len(attributes)
    return HEADER.pack(length, kind, REQUEST | flags, sequence, 0) + body + destination + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    """Every value here is a multiple of four bytes, as the next attribute must begin at one."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


# -- reading -------------------------------------------------------------------
def messages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence, where it starts, where it ends) of the messages in what one receive brought."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or length > len(data) - at:
            return
        yield kind, flags, sequence, at, at + length
        at += (length + 3) & ~3


def error_number(data: bytes, start: int, end: int) -> int:
    """The errno of an ERROR or DONE message, 0 for success."""
    if end - start < HEADER.size + 4:
        return 0
    number: int = struct.unpack_from("=i", data, start + HEADER.size)[0]
    return -number


def decode(data: bytes, start: int, end: int) -> Found | None:
    """The route in a NEW_ROUTE or DELETE_ROUTE message; None for one we cannot name."""
    if end - start < _START:
        return None
    _, kind, _, _, port = HEADER.unpack_from(data, start)
    family, bits, _, _, table, protocol, _, _, _ = _ROUTE.unpack_from(data, start + HEADER.size)
    version = _VERSIONS.get(family)
    if version is None or bits > (32 if version == 4 else 128):
        return None
    destination, gateway, device, hops, metric = bytes(4 if version == 4 else 16), None, 0, None, 0
    for attribute, value_start, value_end in attributes(data, start + _START, end):
        value = data[value_start:value_end]
        if attribute == _DESTINATION and len(value) == len(destination):
            destination = value
        elif attribute == _GATEWAY:
            gateway = _address(version, value)
        elif attribute == _DEVICE and len(value) == 4:
            device = _NUMBER.unpack(value)[0]
        elif attribute == _METRIC and len(value) == 4:
            metric = _NUMBER.unpack(value)[0]
        elif attribute == _TABLE and len(value) == 4:
            table = _NUMBER.unpack(value)[0]
        elif attribute == _MULTIPATH:
            hops = _hops(version, value)
    if hops is None:
        hops = (KernelHop(gateway, device),)
    return Found(kind, port, _prefix(version, destination, bits), protocol, table, hops, metric)


def is_default(data: bytes, start: int, end: int) -> bool:
    """Whether a NEW_ROUTE message is of a route to everything; cheaper than to decode all the others."""
    return end - start >= _START and data[start + HEADER.size + 1] == 0


def attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, where it starts, where it ends) of the attributes between two places."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or length > end - at:
            return
        yield kind & 0x3FFF, at + _ATTRIBUTE.size, at + length
        at += (length + 3) & ~3


def _hops(version: int, data: bytes) -> tuple[KernelHop, ...]:
    found, at = [], 0
    while at + _HOP.size <= len(data):
        length, _, _, device = _HOP.unpack_from(data, at)
        if length < _HOP.size or length > len(data) - at:
            break
        gateway = None
        for kind, start, end in attributes(data, at + _HOP.size, at + length):
            if kind == _GATEWAY:
                gateway = _address(version, data[start:end])
        found.append(KernelHop(gateway, device))
        at += (length + 3) & ~3
    return tuple(found)


def _address(version: int, value: bytes) -> Address | None:
    if len(value) != (4 if version == 4 else 16):
        return None
    return IPv4Address(value) if version == 4 else IPv6Address(value)


def _prefix(version: int, destination: bytes, bits: int) -> Prefix:
    """The kernel never has host bits set; were there any, they would be cut off."""
    number = int.from_bytes(destination)
    if version == 4:
        return IPv4Network((number >> (32 - bits) << (32 - bits), bits))
    return IPv6Network((number >> (128 - bits) << (128 - bits), bits))
