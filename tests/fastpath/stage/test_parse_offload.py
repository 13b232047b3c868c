"""parse: super-packets, and metadata that contradicts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastpath.reference import ICMP, SCTP, TCP, UDP, Offload
from tests.fastpath.packets import A4, B4, ipv4, packet, tcp
from tests.fastpath.stage.parsing import MORE, assert_dropped, assert_passed


def super_packet(family: int = 4, protocol: int = TCP, payload: int = 5000, size: int = 1400) -> tuple[bytes, Offload]:
    transport = 20 if family == 4 else 40
    kind = 5 if protocol == UDP else 1 if family == 4 else 4
    return packet(family, protocol, bytes(payload)), Offload(kind, size, (transport, 16 if protocol == TCP else 6))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    ("payload", "size", "n"),
    [
        (5000, 1400, 4),
        (2800, 1400, 2),
        (2801, 1400, 3),
        (1400, 1400, 1),
        (1401, 1400, 2),
        (128 * 9, 9, 128),
    ],
)
def test_segments_are_counted(family: int, protocol: int, payload: int, size: int, n: int) -> None:
    data, offload = super_packet(family, protocol, payload, size)
    assert_passed(data, offload, n_segments=n, gso_size=size if n > 1 else 0)


def contradictions() -> Iterator[tuple[bytes, Offload]]:  # corollary (b) of the catalogue
    for family in (4, 6):
        data, good = super_packet(family)
        start, field = good.pending or (0, 0)
        yield data, replace(good, gso_size=0)
        yield data, replace(good, gso_size=5001)
        yield data, replace(good, gso_size=65535)
        yield data, replace(good, gso_size=7)  # multiplies packets
        yield data, replace(good, pending=None)
        yield data, replace(good, pending=(start, 6))
        yield data, replace(good, pending=(start + 2, field))
        yield data, replace(good, gso_type=4 if family == 4 else 1)  # the other family
        yield data, replace(good, gso_type=5)  # the other protocol
        yield data, replace(good, gso_type=3)
        yield data, replace(good, gso_type=0)  # a size of nothing
        yield data + b"\0", good  # more than the header says
        datagrams, udp_good = super_packet(family, UDP)
        yield datagrams, replace(udp_good, gso_type=0x85)  # no ECN in UDP
        yield datagrams, replace(udp_good, gso_type=1)
        yield datagrams, replace(udp_good, gso_size=39)  # 129 datagrams
        yield packet(family, UDP, bytes(128 * 9 + 1)), replace(udp_good, gso_size=9)
        yield data, replace(good, pending=(start + 20, 0))  # the pending checksum is that of something inside
        yield packet(family, UDP, bytes(5000), length=4000), udp_good
        plain = packet(family, TCP, bytes(100))
        for pending in [
            (start, 0),
            (start, 2),
            (start, 15),
            (start, 17),
            (start, 6),
            (0, 10),
            (start - 4, 20),
            (start + 4, 12),
            (65535, 65535),
            (start, 65535),
            (len(plain) - 1, 0),
            (len(plain), 0),
        ]:
            yield plain, Offload(pending=pending)
    first = ipv4(tcp(A4, B4, bytes(100)), TCP, fragment=MORE)
    yield first, Offload(pending=(20, 16))
    yield first, Offload(1, 40, (20, 16))
    yield packet(4, ICMP), Offload(pending=(20, 2))
    yield packet(4, SCTP), Offload(pending=(20, 8))


@pytest.mark.parametrize(("data", "offload"), list(contradictions()))
def test_contradicting_metadata(data: bytes, offload: Offload) -> None:
    assert_dropped(data, "vnet_header", offload)


@pytest.mark.parametrize("family", [4, 6])
def test_pending_checksums(family: int) -> None:
    start = 20 if family == 4 else 40
    assert_passed(packet(family, TCP), Offload(pending=(start, 16)))
    assert_passed(packet(family, UDP), Offload(pending=(start, 6)))
    # The pod runs a tunnel of its own: the pending checksum is that of the packet inside.
    inside = packet(4, TCP)
    assert_passed(packet(family, UDP, inside, dport=6081), Offload(pending=(start + 8 + 20, 16)))
    assert_passed(packet(family, 4, inside), Offload(pending=(start + 20, 16)))
