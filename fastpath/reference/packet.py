"""What the golden twin says of a packet: its fields, its virtio metadata, and that it ends here.

Owns: the values that the twin's functions pass to each other, and the numbers of the protocols.
Never: reads a byte.
Invariant: a Parsed exists only of a packet whose headers were checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
ICMP, IPIP, TCP, UDP, IPV6, ICMPV6, SCTP, UDPLITE = 1, 4, 6, 17, 41, 58, 132, 136
GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 0, 1, 4, 5, 0x80
FIN, SYN, RST, PSH, ACK, CWR = 1, 2, 4, 8, 16, 128


class Drop(Exception):  # noqa: N818 - it is the ordinary end of a packet, no error
    """The packet ends here. `reply` names the message it asks for, `mtu` goes with "too_big"."""

    def __init__(self, reason: str, reply: str | None = None, mtu: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.reply, self.mtu = reason, reply, mtu


def drop_if(condition: object, reason: str) -> None:
    if condition:
        raise Drop(reason)


@dataclass(frozen=True, slots=True)
class Offload:
    """The virtio metadata of a packet; `pending` is (start, offset) of an unfinished checksum."""

    gso_type: int = GSO_NONE
    gso_size: int = 0
    pending: tuple[int, int] | None = None


PLAIN = Offload()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A packet whose headers were checked. Offsets are bytes from the IP header's first."""

    data: bytes
    source: Address
    destination: Address
    family: int
    protocol: int
    traffic_class: int
    transport: int
    payload: int
    fragment: bool = False
    later_fragment: bool = False
    dont_fragment: bool = False
    n_segments: int = 1
    offload: Offload = PLAIN

    @property
    def ttl(self) -> int:
        return self.data[8 if self.family == 4 else 7]
