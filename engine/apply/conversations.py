"""UDP conversations through ports of the host, as the kernel remembers them.

Owns: the messages of ctnetlink that list and delete them.
Never: touches a conversation with another port; TCP and SCTP begin anew by themselves.
Invariant: what is forgotten is looked up again with the next packet, by the rules in force then.

A conversation keeps the destination that its first packet got. So a client that goes on sending would never reach a
pod whose port came later, and would go on reaching the address of one that is gone.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from engine.apply.route_message import (
    ACKNOWLEDGE,
    DONE,
    DUMP,
    ERROR,
    FAMILIES,
    HEADER,
    REQUEST,
    attributes,
    error_number,
    messages,
)
from engine.model import PortForward

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_ABOUT = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TUPLE, _ZONE, _FILTER = 1, 18, 25  # the tuple of the first packet
_ADDRESSES, _TRANSPORT = 1, 2  # in a tuple
_DESTINATIONS = {4: 2, 6: 4}  # in _ADDRESSES, by IP version
_NUMBER, _DESTINATION_PORT = 1, 3  # in _TRANSPORT
_FILTER_FLAGS, _BY_NUMBER_AND_PORT = 1, 1 << 3 | 1 << 5
_PATIENCE = 2.0  # seconds; the kernel answers at once


def forget(forwards: Iterable[PortForward]) -> None:
    """Those with the UDP ports of these. OSError as the kernel says it."""
    places = {(f.pod_address.version, f.host_port, f.host_address) for f in forwards if f.protocol == "udp"}
    if not places:
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_PATIENCE)
        for version, port, address in sorted(places, key=str):
            only = None if address is None else address.packed
            for known in list(_listed(kernel, version, port, only)):
                with suppress(FileNotFoundError):  # it ended by itself
                    _ask(kernel, _DELETE, REQUEST | ACKNOWLEDGE, version, known)


def _listed(kernel: socket.socket, version: int, port: int, only: bytes | None) -> Iterator[bytes]:
    """What names each conversation with this port, and with no other address of the host than `only`."""
    transport = _attribute(_NUMBER, bytes([socket.IPPROTO_UDP])) + _attribute(
        _DESTINATION_PORT, struct.pack("!H", port)
    )
    wanted = _nested(_TUPLE, _nested(_TRANSPORT, transport))
    narrow = _nested(_FILTER, _attribute(_FILTER_FLAGS, struct.pack("=I", _BY_NUMBER_AND_PORT)))
    for data, start, end in _ask(kernel, _GET, REQUEST | DUMP, version, wanted + narrow):
        name = {kind: data[a:b] for kind, a, b in attributes(data, start, end) if kind in (_TUPLE, _ZONE)}
        if _is_meant(name.get(_TUPLE, b""), version, port, only):  # a kernel before 5.8 lists all
            yield b"".join(_attribute(kind | (_NESTED if kind == _TUPLE else 0), value) for kind, value in name.items())


def _is_meant(first: bytes, version: int, port: int, only: bytes | None) -> bool:
    parts = {kind: _parts(first[a:b]) for kind, a, b in attributes(first, 0, len(first))}
    transport, addresses = parts.get(_TRANSPORT, {}), parts.get(_ADDRESSES, {})
    return (
        transport.get(_NUMBER) == bytes([socket.IPPROTO_UDP])
        and transport.get(_DESTINATION_PORT) == struct.pack("!H", port)
        and only in (None, addresses.get(_DESTINATIONS[version]))
    )


def _parts(data: bytes) -> dict[int, bytes]:
    return {kind: data[a:b] for kind, a, b in attributes(data, 0, len(data))}


def _ask(kernel: socket.socket, kind: int, flags: int, version: int, body: bytes) -> list[tuple[bytes, int, int]]:
    """What the kernel answers: the attributes of each message, as data and two places in it."""
    about = _ABOUT.pack(FAMILIES[version], 0, 0) + body
    kernel.sendto(HEADER.pack(HEADER.size + len(about), kind, flags, 0, 0) + about, (0, 0))
    found: list[tuple[bytes, int, int]] = []
    while True:
        data = kernel.recv(1 << 16)
        for answer, _, _, start, end in messages(data):
            if answer in (ERROR, DONE):
                number = error_number(data, start, end)
                if number:
                    raise OSError(number, os.strerror(number))
                return found
            found.append((data, start + HEADER.size + _ABOUT.size, end))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)
