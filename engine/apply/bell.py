"""Rings when something changed in a namespace's network: links, addresses, routes of the main table.

Owns: a netlink socket subscribed to the kernel's announcements.
Never: takes an announcement for the state: whoever is woken looks for himself,
so a message that was lost or misread costs a look too many, and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from dataclasses import dataclass

from engine.apply.route_message import DELETE_ROUTE, MAIN_TABLE, NEW_ROUTE, Found, decode, messages

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_AT_ONCE = 1000  # announcements; the rest rings again
_MOST_ROUTES = 4096  # remembered between two looks; beyond, everything is looked at
_SO_ATTACH_FILTER = 26

# Classic BPF. It loads numbers as the network writes them, which is not how netlink does.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _IF_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_INSTRUCTION = struct.Struct("=HBBI")  # code, steps to jump when true, when false, operand
_TYPE_AT, _PORT_AT, _TABLE_AT = 4, 12, 20
_ALL, _NOTHING = 0xFFFFFFFF, 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What changed since the last time: links or addresses (then anything may have), routes, our table of rules."""

    devices: bool = False
    routes: tuple[Found, ...] = ()
    rules: bool = False

    def __bool__(self) -> bool:
        return self.devices or bool(self.routes) or self.rules

    def __add__(self, later: Heard) -> Heard:
        rules = self.rules or later.rules
        if self.devices or later.devices or len(self.routes) + len(later.routes) > _MOST_ROUTES:
            return Heard(devices=True, rules=rules)
        return Heard(routes=(*self.routes, *later.routes), rules=rules)


EVERYTHING = Heard(devices=True, rules=True)


class Bell:
    """Of the namespace of the calling thread; deaf to route changes that the netlink port `own` asked for."""

    def __init__(self, own: int = 0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            _attach(self._socket, _filter(own))
            self._socket.bind((0, _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def listen(self) -> Heard:
        """What was announced and not yet taken; nothing when it is quiet."""
        routes: list[Found] = []
        devices = False
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:  # more was announced than the socket holds, which is as good
                devices |= error.errno == errno.ENOBUFS
                continue
            for kind, _, _, start, end in messages(data):
                if kind not in (NEW_ROUTE, DELETE_ROUTE):
                    devices = True
                elif (route := decode(data, start, end)) is not None:
                    routes.append(route)
        return Heard(devices=True) if devices else Heard(routes=tuple(routes))

    def close(self) -> None:
        self._socket.close()


def _filter(own: int) -> bytes:
    """Let pass all but routes of other tables and those that `own` asked for."""
    program = [
        (_LOAD_HALF, 0, 0, _TYPE_AT),
        (_IF_EQUAL, 2, 0, socket.htons(NEW_ROUTE)),
        (_IF_EQUAL, 1, 0, socket.htons(DELETE_ROUTE)),
        (_RETURN, 0, 0, _ALL),
        (_LOAD_BYTE, 0, 0, _TABLE_AT),
        (_IF_EQUAL, 1, 0, MAIN_TABLE),
        (_RETURN, 0, 0, _NOTHING),
        (_LOAD_WORD, 0, 0, _PORT_AT),
        (_IF_EQUAL, 0, 1, socket.htonl(own) if own else 0xFFFFFFFF),
        (_RETURN, 0, 0, _NOTHING),
        (_RETURN, 0, 0, _ALL),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _attach(listening: socket.socket, program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))  # the kernel copies it during the call
    described = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
