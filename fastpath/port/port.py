"""What every port tells the plane about itself.

Owns: the common attributes and their checks.
Never: opens anything; each kind's own module does.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, Self

from fastpath.values import Address, Bandwidth, Tunnel

Role = Literal["pod", "host", "tunnel"]
Kind = Literal["tun", "udp", "raw", "memory"]

ADDRESSES_MAX = 16  # of one family and port: PORT_ADDRESSES_MAX in port.pxd
INPUTS_MAX, SENDERS_MAX = 64, 16  # as in port.pxd


class Port:
    """An open port. It stays open when a plane lets go of it, until `close`.

    Attributes: `name` for messages; `inputs`, descriptors to receive from,
    each by a worker of its own where there are enough;
    `senders`, descriptors to send by; `mtu` in bytes; `vnet_header`, bytes of
    the virtio header (0 for none); `takes_super` and `takes_super_udp`, whether
    TCP and UDP super-packets may be written; `segments_max`, datagrams of one send; `source_ports`, UDP ports of the
    senders; `bandwidth`, how fast a pod's is.
    """

    kind: Kind

    def __init__(
        self,
        name: str,
        role: Role,
        *,
        inputs: tuple[int, ...],
        senders: tuple[int, ...] = (),
        addresses: Iterable[Address] = (),
        mtu: int = 65535,
        tunnel: Tunnel | None = None,
    ) -> None:
        if len(inputs) > INPUTS_MAX or len(senders) > SENDERS_MAX:
            raise ValueError(
                f"{name}: {len(inputs)} inputs and {len(senders)} senders, at most {INPUTS_MAX} and {SENDERS_MAX}"
            )
        self.name = name
        self.role = role
        self.inputs = inputs
        self.senders = senders
        self.addresses = check_addresses(addresses)
        self.mtu = mtu
        self.tunnel = tunnel
        self.vnet_header = 0
        self.takes_super = False
        self.takes_super_udp = False
        self.segments_max = 1
        self.source_ports: tuple[int, ...] = ()
        self.bandwidth = Bandwidth()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Every descriptor of the port, each once: what another process needs to go on with it (`adopt` of its kind)."""
        return tuple(dict.fromkeys((*self.inputs, *self.senders)))

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.role})>"


def check_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """The addresses a port may use as sources. ValueError when there are too many of a family."""
    found = tuple(addresses)
    for family in (IPv4Address, IPv6Address):
        n = sum(isinstance(address, family) for address in found)
        if n > ADDRESSES_MAX:
            raise ValueError(f"a port has at most {ADDRESSES_MAX} addresses of a family, not {n}")
    return found
