"""Kinds of which the plane has one value: the gateways, the peers.

Owns: which value was put in force last.
Never: changes a part of a value.
Invariant: a value that could not be put in force is not said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.apply.delta import Kind
from engine.apply.plane import Forwarding
from engine.model import Address

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


@dataclass(slots=True)
class ValueDriver:
    """Of a kind of which there is one value: `put` puts it in force as a whole, None takes it out."""

    kind: Kind
    key: str
    put: Callable[[Any], None]
    drifts: bool = False
    _value: object | None = None

    def actual(self) -> Mapping[Hashable, object]:
        return {} if self._value is None else {self.key: self._value}

    def set(self, key: Hashable, value: object) -> None:
        self.put(value)
        self._value = value

    def remove(self, key: Hashable) -> None:
        self.put(None)
        self._value = None


def gateway_driver(forwarding: Forwarding) -> ValueDriver:
    def put(gateways: tuple[IPv4Address | None, IPv6Address | None] | None) -> None:
        forwarding.plane.set_gateway(*(gateways or (None, None)))

    return ValueDriver(Kind.GATEWAY, "gateway", put)


def peers_driver(forwarding: Forwarding) -> ValueDriver:
    def put(peers: Mapping[Address, str] | None) -> None:
        forwarding.set_peers(peers or {})

    return ValueDriver(Kind.PEERS, "peers", put)
