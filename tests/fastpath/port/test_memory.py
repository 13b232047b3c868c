"""The memory port's rings: what fits wherever it stands, and what of a train fits."""

from __future__ import annotations

import pytest

from fastpath.plane import Plane
from fastpath.port.memory import CAPACITY_MIN, MemoryPort
from tests.fastpath.network import MemoryNode, pair
from tests.fastpath.packets import ipv4, udp
from tests.fastpath.test_transmit import super_tcp

LARGEST = bytes(65535)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_an_empty_ring_takes_a_largest_packet_wherever_it_stands(before: int) -> None:
    for length in range(65535 - 512, 65536, 8):
        plane, port = Plane(), MemoryPort("pod", capacity=CAPACITY_MIN)
        plane.attach(port)
        for data in (*[LARGEST] * before, bytes(length), LARGEST):
            port.inject(data)
            assert plane.turn() == 1
        assert plane.counters().received == before + 2


@pytest.mark.parametrize("capacity", [CAPACITY_MIN // 2, CAPACITY_MIN + 8, 0])
def test_other_capacities_are_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two from 262144"):
        MemoryPort("pod", capacity=capacity)


def single(a: MemoryNode, b: MemoryNode, number: int) -> bytes:
    return ipv4(udp(a.pod4, b.pod4, number.to_bytes(2) + bytes(1300)), source=a.pod4, destination=b.pod4)


@pytest.mark.parametrize("skew", [0, 700, 1700])
def test_what_fits_of_trains_arrives_in_order_and_the_rest_is_counted(skew: int) -> None:
    a, b = pair()
    a.send(*[single(a, b, 0)] * skew)  # the ring does not begin where its memory does
    for first in range(0, 4000, 100):
        a.pod.inject([single(a, b, number) for number in range(first, first + 100)])
        a.turn()
    got = [int.from_bytes(each.payload[50:52]) for each in a.tunnel.drain()]
    assert got == list(range(len(got)))
    assert a.drops == {"tx_full": 4000 - len(got)}
    assert len(got) % 100, "no train was cut short"


@pytest.mark.parametrize("skew", [0, 700, 1700])
def test_the_same_of_datagrams_in_two_pieces(skew: int) -> None:
    a, b = pair(super_packets=True)
    a.send(*[single(a, b, 0)] * skew)
    for first in range(0, 4000, 40):
        payload = b"".join(number.to_bytes(2) * 650 for number in range(first, first + 40))
        a.pod.inject(super_tcp(a, b, payload, 1300))
        a.turn()
    got = [each.payload[-1300:] for each in a.tunnel.drain()]
    assert got == [number.to_bytes(2) * 650 for number in range(len(got))]
    assert len(got) % 40, "no train was cut short"
    assert set(a.drops) == {"tx_full"}
