"""Network devices and their addresses as the kernel writes them: rtnetlink messages to values, and back.

Owns: the layout of the messages about links and addresses, as far as it concerns us.
Never: does I/O; a message that is cut short or not understood is left out, never guessed at.
Invariant: what is built here is accepted whole or refused whole by the kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from engine.apply.route_message import (
    ACKNOWLEDGE,
    DUMP,
    FAMILIES,
    HEADER,
    REQUEST,
    attributes,
)
from engine.model import Interface

NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, flags to change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NUMBER = struct.Struct("=I")
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_QUEUE, _IFLA_INFO, _IFLA_ALIAS, _IFLA_GSO_MAX = 1, 3, 4, 13, 18, 20, 41
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_UP = 1
_NO_DUPLICATE_DETECTION = 0x02
_CREATE, _EXCLUSIVE = 0x400, 0x200


@dataclass(frozen=True, slots=True)
class Link:
    """A device of the kernel's. `hardware`: its ARPHRD_ type; `station`: its address there, empty where it has none."""

    index: int
    hardware: int
    station: bytes
    name: str
    kind: str
    alias: str
    mtu: int
    up: bool
    queue_length: int
    gso_max_size: int


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """An address that the kernel has. `device`: the index of its device."""

    device: int
    interface: Interface
    flags: int


# -- writing -------------------------------------------------------------------
def link_named(sequence: int, name: str) -> bytes:
    """Ask for the device of this name."""
    return _message(GET_LINK, ACKNOWLEDGE, sequence, _LINK.pack(0, 0, 0, 0, 0), _text(_IFLA_NAME, name))


def link_numbered(sequence: int, index: int) -> bytes:
    return _message(GET_LINK, ACKNOWLEDGE, sequence, _LINK.pack(0, 0, index, 0, 0))


def all_links(sequence: int) -> bytes:
    return _message(GET_LINK, DUMP, sequence, _LINK.pack(0, 0, 0, 0, 0))


def link_setting(
    sequence: int, index: int, *, alias: str = "", mtu: int = 0, queue_length: int = 0, gso_max_size: int = 0, up: bool
) -> bytes:
    """Change what is given, and bring the device up; nothing brings one down."""
    numbers = ((_IFLA_MTU, mtu), (_IFLA_QUEUE, queue_length), (_IFLA_GSO_MAX, gso_max_size))
    parts = [_attribute(kind, _NUMBER.pack(value)) for kind, value in numbers if value]
    if alias:
        parts.append(_attribute(_IFLA_ALIAS, alias.encode()))
    flags = _UP if up else 0
    return _message(SET_LINK, 0, sequence, _LINK.pack(0, 0, index, flags, flags), *parts)


def link_removal(sequence: int, index: int) -> bytes:
    return _message(DELETE_LINK, ACKNOWLEDGE, sequence, _LINK.pack(0, 0, index, 0, 0))


def addresses_of(sequence: int, index: int) -> bytes:
    """Ask for the addresses of a device (0: of all); a kernel that does not sieve gives those of all."""
    return _message(GET_ADDRESS, DUMP, sequence, _ADDRESS.pack(0, 0, 0, 0, index))


def address_setting(sequence: int, index: int, address: Interface) -> bytes:
    flags = _NO_DUPLICATE_DETECTION if address.version == 6 else 0
    return _about_address(NEW_ADDRESS, _CREATE | _EXCLUSIVE, sequence, index, address, flags)


def address_removal(sequence: int, index: int, address: Interface) -> bytes:
    return _about_address(DELETE_ADDRESS, 0, sequence, index, address, 0)


def _about_address(kind: int, wish: int, sequence: int, index: int, address: Interface, flags: int) -> bytes:
    head = _ADDRESS.pack(FAMILIES[address.version], address.network.prefixlen, flags, 0, index)
    packed = address.ip.packed
    return _message(kind, wish, sequence, head, _attribute(_IFA_LOCAL, packed), _attribute(_IFA_ADDRESS, packed))


def _message(kind: int, flags: int, sequence: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


# -- reading -------------------------------------------------------------------
def link(data: bytes, start: int, end: int) -> Link | None:
    """The device in a NEW_LINK message."""
    at = start + HEADER.size
    if end - at < _LINK.size:
        return None
    _, hardware, index, flags, _ = _LINK.unpack_from(data, at)
    station = b""
    numbers: dict[int, int] = {}
    texts: dict[int, str] = {}
    for kind, first, last in attributes(data, at + _LINK.size, end):
        value = data[first:last]
        if kind in (_IFLA_NAME, _IFLA_ALIAS):
            texts[kind] = value.rstrip(b"\0").decode(errors="replace")
        elif kind in (_IFLA_MTU, _IFLA_QUEUE, _IFLA_GSO_MAX) and len(value) == 4:
            numbers[kind] = _NUMBER.unpack(value)[0]
        elif kind == _IFLA_INFO:
            texts[kind] = _kind(value)
        elif kind == _IFLA_ADDRESS:
            station = value
    return Link(
        index=index,
        hardware=hardware,
        station=station,
        name=texts.get(_IFLA_NAME, ""),
        kind=texts.get(_IFLA_INFO, ""),
        alias=texts.get(_IFLA_ALIAS, ""),
        mtu=numbers.get(_IFLA_MTU, 0),
        up=bool(flags & _UP),
        queue_length=numbers.get(_IFLA_QUEUE, 0),
        gso_max_size=numbers.get(_IFLA_GSO_MAX, 0),
    )


def address(data: bytes, start: int, end: int) -> DeviceAddress | None:
    """What a NEW_ADDRESS message says."""
    at = start + HEADER.size
    if end - at < _ADDRESS.size:
        return None
    _, bits, flags, _, index = _ADDRESS.unpack_from(data, at)
    found = {kind: data[first:last] for kind, first, last in attributes(data, at + _ADDRESS.size, end)}
    packed, more = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b"", found.get(_IFA_FLAGS, b"")
    if len(packed) not in (4, 16) or bits > 8 * len(packed):
        return None
    if len(more) == _NUMBER.size:  # the same flags, and those that eight bits have no room for
        flags = _NUMBER.unpack(more)[0]
    return DeviceAddress(index, ip_interface((ip_address(packed), bits)), flags)


def _kind(info: bytes) -> str:
    for kind, first, last in attributes(info, 0, len(info)):
        if kind == _INFO_KIND:
            return info[first:last].rstrip(b"\0").decode(errors="replace")
    return ""
