"""From the frozen values of Python to the C records the workers read."""

from collections.abc import Mapping

from fastpath.port.port import Port
from fastpath.values import Address, Adjacency

def mapped(address: Address) -> bytes:
    """The 16 bytes of an address, IPv4 as ::ffff:a.b.c.d."""

def socket_address(address: Address, number: int) -> bytes:
    """Struct sockaddr_in or sockaddr_in6 of this machine."""

def hardware_address(value: bytes) -> bytes:
    """The value itself; ValueError unless it has 6 bytes."""

def check_adjacency(value: Adjacency, ports: Mapping[int, Port], adjacencies: Mapping[int, Adjacency]) -> None:
    """Whether a value can be published now. ValueError or TypeError names what is wrong with it."""
