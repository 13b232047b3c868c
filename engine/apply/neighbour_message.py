"""The way to another host as the kernel writes it: which device, which neighbour, which Ethernet address.

Owns: the layout of the messages about neighbours, and of the answer to "how would you send this".
Never: does I/O; a message that is cut short or not understood is left out, never guessed at.
Invariant: a `Neighbour` that is usable has an Ethernet address of one station.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from engine.apply.route_message import ACKNOWLEDGE, DUMP, FAMILIES, GET_ROUTE, HEADER, REQUEST, attributes
from engine.model import Address

NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30

_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, device, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_VIA, _RTA_ENCAP = 1, 2, 4, 5, 18, 22
_RTA_IP_PROTO, _RTA_DPORT = 27, 29
_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x80
_USABLE = _REACHABLE | _STALE | _DELAY | _PROBE | _PERMANENT  # where the kernel sends at once, too
_NTF_USE = 0x01
_UNICAST = 1


@dataclass(frozen=True, slots=True)
class Way:
    """How the kernel would send: out of `device` (its index), to the neighbour `hop`."""

    device: int
    hop: Address


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What is known of a neighbour. `mac` is empty where no packet can be sent to it now."""

    way: Way
    mac: bytes
    is_stale: bool = False  # unless somebody uses it, nobody finds out that it is wrong


# -- writing -------------------------------------------------------------------
def all_neighbours(sequence: int) -> bytes:
    return _message(GET_NEIGHBOUR, DUMP, sequence, _NEIGHBOUR.pack(0, 0, 0, 0, 0))


def use(sequence: int, way: Way) -> bytes:
    """As if a packet had been sent to the neighbour: the kernel asks it for its address, if that is in doubt."""
    head = _NEIGHBOUR.pack(FAMILIES[way.hop.version], way.device, 0, _NTF_USE, 0)
    return _message(NEW_NEIGHBOUR, ACKNOWLEDGE, sequence, head, _attribute(_NDA_DST, way.hop.packed))


def way_of_datagrams(sequence: int, source: Address, destination: Address, port: int) -> bytes:
    """Ask how a datagram to this port would be sent."""
    bits = source.max_prefixlen
    return _message(
        GET_ROUTE,
        ACKNOWLEDGE,
        sequence,
        _ROUTE.pack(FAMILIES[source.version], bits, bits, 0, 0, 0, 0, 0, 0),
        _attribute(_RTA_DST, destination.packed),
        _attribute(_RTA_SRC, source.packed),
        _attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_UDP])),
        _attribute(_RTA_DPORT, struct.pack("!H", port)),
    )


def _message(kind: int, flags: int, sequence: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


# -- reading -------------------------------------------------------------------
def neighbour(data: bytes, start: int, end: int) -> Neighbour | None:
    """The neighbour in a NEW_NEIGHBOUR or DELETE_NEIGHBOUR message; None for one of another family (a bridge's)."""
    at = start + HEADER.size
    if end - at < _NEIGHBOUR.size:
        return None
    kind = HEADER.unpack_from(data, start)[1]
    family, device, state, _, _ = _NEIGHBOUR.unpack_from(data, at)
    found = {kind: data[first:last] for kind, first, last in attributes(data, at + _NEIGHBOUR.size, end)}
    hop = _address(family, found.get(_NDA_DST, b""))
    if hop is None:
        return None
    mac = found.get(_NDA_LLADDR, b"")
    usable = kind == NEW_NEIGHBOUR and state & _USABLE and is_station(mac)
    return Neighbour(Way(device, hop), mac if usable else b"", bool(state & _STALE))


def is_station(mac: bytes) -> bool:
    """An Ethernet address that can be one station's: no group's, and not nothing."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def way(data: bytes, start: int, end: int, destination: Address) -> Way | None:
    """Where the route in an answer leads; None when that is not simply a neighbour on some device."""
    at = start + HEADER.size
    if end - at < _ROUTE.size:
        return None
    family, *_, kind, _ = _ROUTE.unpack_from(data, at)
    found = {kind: data[first:last] for kind, first, last in attributes(data, at + _ROUTE.size, end)}
    if kind != _UNICAST or _RTA_ENCAP in found or _RTA_VIA in found or len(found.get(_RTA_OIF, b"")) != 4:
        return None
    hop = _address(family, found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else destination
    return None if hop is None else Way(_NUMBER.unpack(found[_RTA_OIF])[0], hop)


def _address(family: int, value: bytes) -> Address | None:
    sizes = {int(FAMILIES[4]): 4, int(FAMILIES[6]): 16}
    return ip_address(value) if sizes.get(family) == len(value) else None
