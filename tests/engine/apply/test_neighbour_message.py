"""Messages about neighbours and ways: what counts is read, and what is bent or no station's is left out."""

import random
import struct
from ipaddress import ip_address

import pytest

from engine.apply import neighbour_message
from engine.apply.neighbour_message import DELETE_NEIGHBOUR, NEW_NEIGHBOUR, Neighbour, Way, is_station, neighbour, way
from engine.apply.route_message import HEADER, NEW_ROUTE

MAC = bytes.fromhex("020000000001")
REACHABLE, STALE, FAILED, INCOMPLETE, NO_ARP = 0x02, 0x04, 0x20, 0x01, 0x40
ADDRESSES = [ip_address("192.0.2.7"), ip_address("2001:db8::7")]
FAMILY = {4: 2, 6: 10}


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind, body):
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


def told(hop, mac=MAC, state=REACHABLE, kind=NEW_NEIGHBOUR, device=3, family=None):
    head = struct.pack("=BxxxiHBB", family or FAMILY[hop.version], device, state, 0, 0)
    return message(kind, head + attribute(1, hop.packed) + (attribute(2, mac) if mac else b""))


def route(version, *attributes, kind=1):
    return message(NEW_ROUTE, struct.pack("=BBBBBBBBI", FAMILY[version], 0, 0, 0, 254, 0, 0, kind, 0) + b"".join(attributes))


def read(data):
    return neighbour(data, 0, len(data))


@pytest.mark.parametrize("hop", ADDRESSES, ids=str)
def test_a_neighbour_is_usable_where_the_kernel_would_send(hop):
    assert read(told(hop)) == Neighbour(Way(3, hop), MAC)
    assert read(told(hop, state=STALE)) == Neighbour(Way(3, hop), MAC, is_stale=True)
    for gone in (told(hop, state=FAILED), told(hop, state=INCOMPLETE), told(hop, mac=b""), told(hop, kind=DELETE_NEIGHBOUR)):
        assert read(gone).mac == b""


@pytest.mark.parametrize("mac", ["ffffffffffff", "01005e000001", "333300000001", "000000000000", "0200000000", "02" * 20])
def test_an_address_of_no_single_station_is_none(mac):
    assert not is_station(bytes.fromhex(mac))
    assert read(told(ADDRESSES[0], mac=bytes.fromhex(mac))).mac == b""


def test_a_bridge_s_entries_are_not_ours():
    assert read(told(ADDRESSES[0], family=7)) is None
    assert read(told(ADDRESSES[1], family=2)) is None


@pytest.mark.parametrize("hop", ADDRESSES, ids=str)
def test_a_way_leads_to_the_gateway_or_straight_there(hop):
    device = attribute(4, struct.pack("=I", 5))
    gateway = ip_address("192.0.2.1") if hop.version == 4 else ip_address("2001:db8::1")
    straight, by_gateway = route(hop.version, device), route(hop.version, device, attribute(5, gateway.packed))
    assert way(straight, 0, len(straight), hop) == Way(5, hop)
    assert way(by_gateway, 0, len(by_gateway), hop) == Way(5, gateway)


@pytest.mark.parametrize(
    "odd",
    [
        route(4, attribute(4, struct.pack("=I", 1)), kind=2),  # our own address
        route(4, attribute(4, struct.pack("=I", 5)), attribute(22, b"\0\0\0\0")),  # another tunnel
        route(4, attribute(4, struct.pack("=I", 5)), attribute(18, bytes(18))),  # by a neighbour of the other family
        route(4),
        route(4, attribute(4, b"\0")),
    ],
)
def test_a_way_that_is_no_plain_neighbour_is_none(odd):
    assert way(odd, 0, len(odd), ADDRESSES[0]) is None


def test_what_is_bent_or_cut_short_is_harmless():
    chance = random.Random(7)
    good = [told(hop) for hop in ADDRESSES] + [route(4, attribute(4, struct.pack("=I", 5)), attribute(5, bytes(4)))]
    for whole in good:
        for length in range(len(whole)):
            neighbour(whole[:length], 0, length)
            way(whole[:length], 0, length, ADDRESSES[0])
        for _ in range(2000):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            found = neighbour(bytes(data), 0, len(data))
            assert found is None or found.mac == b"" or is_station(found.mac)
            way(bytes(data), 0, len(data), ADDRESSES[0])


def test_requests_are_whole_messages():
    for data in (
        neighbour_message.all_neighbours(1),
        neighbour_message.use(2, Way(3, ADDRESSES[0])),
        neighbour_message.way_of_datagrams(3, ADDRESSES[1], ADDRESSES[1], 4789),
    ):
        assert HEADER.unpack_from(data)[0] == len(data)
        assert len(data) % 4 == 0
