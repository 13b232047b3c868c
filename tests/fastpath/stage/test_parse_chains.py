"""parse: fragments, and the extension headers before a transport."""

from __future__ import annotations

import struct

import pytest

from fastpath.reference import TCP, UDP
from tests.fastpath.packets import (
    A4,
    A6,
    B4,
    B6,
    chained,
    changed,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    routing_header,
    tcp,
    udp,
)
from tests.fastpath.stage.parsing import MORE, assert_dropped, assert_passed, compiled, extended


# -- fragments ---------------------------------------------------------------
@pytest.mark.parametrize("size", range(8, 80, 8))
def test_first_fragment_holds_the_transport_header(size: int) -> None:  # row 24
    whole = tcp(A4, B4, bytes(100), options=bytes(40))
    six = ipv6(chained([fragment_header(0, True)], TCP, whole[:size])[1], 44)
    if size < 60:
        assert_dropped(ipv4(whole[:size], TCP, fragment=MORE), "fragment_tiny")
        assert_dropped(six, "fragment_tiny")
    else:
        assert_passed(ipv4(whole[:size], TCP, fragment=MORE), fragment=True, later_fragment=False, payload=80)
        assert_passed(six, fragment=True, later_fragment=False, payload=108)


@pytest.mark.parametrize("offset", range(1, 20))
def test_small_offsets(offset: int) -> None:  # row 25
    kind, body = chained([fragment_header(offset * 8)], TCP, bytes(40))
    if offset < 8:
        assert_dropped(ipv4(bytes(40), TCP, fragment=offset), "fragment_offset")
        assert_dropped(ipv6(body, kind), "fragment_offset")
    else:
        assert_passed(ipv4(bytes(40), TCP, fragment=offset), later_fragment=True, payload=20, transport=20)
        assert_passed(ipv6(body, kind), later_fragment=True, payload=48, transport=48)


@pytest.mark.parametrize("size", [1, 7, 9, 1399])
def test_only_the_last_fragment_may_be_odd(size: int) -> None:  # row 27
    kind, body = chained([fragment_header(1400, True)], UDP, bytes(size))
    assert_dropped(ipv4(bytes(size), fragment=MORE | 175), "fragment")
    assert_dropped(ipv6(body, kind), "fragment")
    assert_passed(ipv4(bytes(size), fragment=175), later_fragment=True)


@pytest.mark.parametrize("fragment", [MORE, MORE | 100, 100])
def test_empty_fragments(fragment: int) -> None:
    assert_dropped(ipv4(b"", fragment=fragment), "fragment")


def test_the_whole_never_exceeds_65535() -> None:  # row 28
    assert_passed(ipv4(bytes(65535 - 20 - 65512), fragment=8189))
    assert_dropped(ipv4(bytes(65535 - 20 - 65512 + 1), fragment=8189), "fragment_length")
    assert_dropped(ipv4(bytes(8), fragment=0x1FFF), "fragment_length")
    assert_passed(ipv6(chained([fragment_header(65528)], UDP, bytes(7))[1], 44))
    assert_dropped(ipv6(chained([fragment_header(65528)], UDP, bytes(8))[1], 44), "fragment_length")
    kind, body = chained([options_header(60), fragment_header(65520)], UDP, bytes(8))
    assert_dropped(ipv6(body, kind), "fragment_length")  # the options count too


def test_a_first_fragment_of_udp_speaks_of_more_than_it_holds() -> None:
    body = udp(A4, B4, bytes(100))
    assert_passed(ipv4(body[:64], fragment=MORE), fragment=True, payload=28)
    assert_dropped(ipv4(udp(A4, B4, bytes(100), length=7)[:64], fragment=MORE), "udp_length")


def test_all_fragments_of_a_datagram_have_one_hash() -> None:
    body = udp(A4, B4, bytes(200))
    first = compiled(ipv4(body[:104], fragment=MORE))
    later = compiled(ipv4(body[104:], fragment=13))
    assert first["flow_hash"] == later["flow_hash"]
    six = [
        compiled(ipv6(chained([fragment_header(at, more)], 60, data)[1], 44))
        for at, more, data in [(0, True, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + body[:96]), (104, False, body[96:])]
    ]
    assert six[0]["protocol"] == 17 and six[1]["protocol"] == 60  # the second has no options to look behind
    assert six[0]["flow_hash"] == six[1]["flow_hash"]


# -- extension headers -------------------------------------------------------
def test_chains_are_walked_to_the_transport() -> None:
    assert_passed(
        extended(options_header(0), routing_header(4), options_header(60)), transport=64, payload=72, protocol=UDP
    )
    assert_passed(extended(*[options_header(60)] * 8), transport=104)
    assert_passed(extended(options_header(60, 31)), transport=296)
    assert_passed(extended(protocol=59, body=b"?"), protocol=59, payload=40)


@pytest.mark.parametrize(
    "headers",
    [
        [options_header(60)] * 9,  # more than 8
        [options_header(60), options_header(0)],  # hop-by-hop not first
        [options_header(0), options_header(0)],
        [options_header(60, 31), options_header(60)],  # more than 256 bytes
        [(60, bytes([32]) + bytes(262))],
        [(0, bytes([0, 1, 5, 0, 0, 0, 0]))],  # an option beyond its header
        [(0, bytes([0, 1, 3, 0, 0, 0, 5]))],  # an option without a length
    ],
)
def test_chains_refused(headers: list[tuple[int, bytes]]) -> None:  # row 30
    assert_dropped(extended(*headers), "ip6_extension")


@pytest.mark.parametrize("last", [options_header(60, 2), routing_header(4), fragment_header()])
def test_chains_cut_anywhere(last: tuple[int, bytes]) -> None:
    data = extended(options_header(0), last)
    for n in range(41, 40 + 8 + 1 + len(last[1])):
        assert_dropped(changed(data[:n], 4, struct.pack("!H", n - 40)), "ip6_extension")


def test_routing_type_0() -> None:  # row 32
    assert_dropped(extended(routing_header(0)), "ip6_routing")
    assert_dropped(extended(options_header(0), options_header(60), routing_header(0)), "ip6_routing")
    assert_passed(extended(routing_header(2)))


def test_jumbograms() -> None:
    assert_dropped(extended((0, bytes([0, 0xC2, 4]) + bytes(4))), "ip6_length")


def test_atomic_fragments_are_whole() -> None:  # row 31
    assert_passed(extended(fragment_header()), fragment=False, transport=48, payload=56)
    assert_passed(extended(options_header(60), fragment_header(), options_header(60)), fragment=False, transport=64)


def test_second_fragment_header() -> None:
    assert_dropped(extended(fragment_header(), fragment_header()), "fragment_chain")
    assert_dropped(extended(fragment_header(), fragment_header(64)), "fragment_chain")
    assert_dropped(extended(fragment_header(0, True), options_header(60), fragment_header()), "fragment_chain")


def test_first_fragment_without_the_whole_chain() -> None:  # RFC 7112
    kind, body = chained([fragment_header(0, True), options_header(60, 4)], UDP, udp(A6, B6))
    assert_dropped(ipv6(body[: 8 + 16], kind), "fragment_chain")
    assert_dropped(ipv6(body[: 8 + 40], kind), "fragment_tiny")  # the chain, but no UDP header
    assert_passed(ipv6(body[: 8 + 48], kind), fragment=True, protocol=UDP)
