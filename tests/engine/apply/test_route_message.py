"""Messages about routes: what is written is read back, and what is bent is left out."""

import random
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.apply import route_message
from engine.apply.route_message import HEADER, NEW_ROUTE, KernelHop, decode, error_number, messages

ADDRESSES = {
    4: st.integers(0, 2**32 - 1).map(IPv4Address),
    6: st.integers(0, 2**128 - 1).map(IPv6Address),
}
PREFIXES = st.one_of(
    st.builds(lambda a, n: IPv4Network((a, n), strict=False), ADDRESSES[4], st.integers(0, 32)),
    st.builds(lambda a, n: IPv6Network((a, n), strict=False), ADDRESSES[6], st.integers(0, 128)),
)


def only(data):
    (kind, _, _, start, end), *rest = messages(data)
    assert rest == []
    return kind, decode(data, start, end)


@given(PREFIXES, st.data())
def test_what_is_written_is_read_back(prefix, data):
    gateways = tuple(data.draw(st.lists(ADDRESSES[prefix.version], max_size=4)))
    device = data.draw(st.integers(1, 2**31 - 1))
    hops = route_message.next_hops(gateways, device)
    kind, found = only(route_message.setting("add", 7, prefix, 116, hops, linked=not gateways))
    assert kind == NEW_ROUTE
    assert (found.prefix, found.protocol, found.table) == (prefix, 116, 254)
    expected = tuple(KernelHop(gateway, 0) for gateway in gateways)
    assert found.hops == (expected or (KernelHop(None, device),))


@given(PREFIXES)
def test_a_removal_names_its_prefix(prefix):
    _, found = only(route_message.removal(7, prefix, 116))
    assert found.prefix == prefix


def test_a_kernel_answers_with_the_sequence_and_the_error():
    body = struct.pack("=i", -17) + bytes(16)
    data = HEADER.pack(HEADER.size + len(body), route_message.ERROR, 0, 5, 0) + body
    ((kind, _, sequence, start, end),) = messages(data)
    assert (kind, sequence, error_number(data, start, end)) == (route_message.ERROR, 5, 17)


GOOD = b"".join(
    route_message.setting("add", n, prefix, 116, route_message.next_hops(via, 3), linked=not via)
    for n, (prefix, via) in enumerate(
        [
            (IPv4Network("10.0.0.0/8"), ()),
            (IPv6Network("fd00::/64"), (IPv6Address("2001:db8::1"),)),
            (IPv4Network("10.1.0.0/16"), (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))),
        ]
    )
)


def test_every_shortening_is_read_without_a_guess():
    whole = [decode(GOOD, start, end) for *_, start, end in messages(GOOD)]
    assert len(whole) == 3
    for length in range(len(GOOD)):
        data = GOOD[:length]
        found = [decode(data, start, end) for *_, start, end in messages(data)]
        assert found == whole[: len(found)]


@pytest.mark.parametrize("seed", range(20))
def test_bent_messages_are_harmless(seed):
    chance = random.Random(seed)
    for _ in range(500):
        data = bytearray(GOOD)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 3, 4, 255, chance.randrange(256)))
        for kind, _, _, start, end in messages(bytes(data)):
            assert 0 <= start < end <= len(data)
            found = decode(bytes(data), start, end)
            assert found is None or found.kind == kind
            error_number(bytes(data), start, end)
