"""reply: the bytes of every message, who gets none, and how many there are at most."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers import inet
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from tests.cy.probe_reply import Replier

from fastpath import reference
from fastpath.reference import ICMP, ICMPV6, TCP, UDP
from tests.fastpath.packets import A4, A6, B4, B6, bent, chained, echo, fragment_header, ipv4, ipv6, packet, tcp, udp

GATEWAY4, GATEWAY6 = ip_address("10.244.1.1"), ip_address("fd00:10:244:1::1")
KINDS = ["time_exceeded", "too_big", "no_route", "host_unreachable", "prohibited"]  # reply_t from 1 on
SECOND = 1_000_000_000


@pytest.fixture
def replier() -> Replier:
    return Replier(GATEWAY4.packed, GATEWAY6.packed, 99)


def gateway(family: int) -> reference.Address:
    return GATEWAY4 if family == 4 else GATEWAY6


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 8, 519, 520, 521, 1183, 1184, 1185, 9000])
def test_messages_are_the_twins(replier: Replier, family: int, kind: str, size: int) -> None:
    data = packet(family, UDP, bytes(size), ttl=1)
    made = replier.build(data, KINDS.index(kind) + 1, 1450)
    assert made == reference.reply(reference.parse(data), kind, 1450, gateway(family))
    assert len(made) <= (576 if family == 4 else 1280)


def test_scapy_reads_them(replier: Replier) -> None:
    data = packet(4, TCP, bytes(2000), dont_fragment=True)
    message = inet.IP(replier.build(data, 2, 1450))
    assert (message.src, message.dst, message.ttl, message.len) == (str(GATEWAY4), str(A4), 64, 576)
    assert (message[inet.ICMP].type, message[inet.ICMP].code, message[inet.ICMP].nexthopmtu) == (3, 4, 1450)
    assert message[inet.IPerror].dst == str(B4)
    six = IPv6(replier.build(packet(6, TCP, bytes(2000)), 2, 1430))
    assert (six[ICMPv6PacketTooBig].mtu, six.plen) == (1430, 1240)
    six = IPv6(replier.build(packet(6, TCP, bytes(20)), 4))
    assert six[ICMPv6DestUnreach].code == 3
    for message in (inet.IP(replier.build(data, 1)), six):
        again = message.copy()
        for layer in (inet.ICMP, ICMPv6DestUnreach, inet.IP):
            if layer in again:
                field = "chksum" if layer is not ICMPv6DestUnreach else "cksum"
                delattr(again[layer], field)
        assert bytes(again) == bytes(message)  # scapy computes the same checksums


@given(bent(), st.integers(1, 5), st.integers(0, 65535))
def test_twin_agrees(data: bytes, kind: int, mtu: int) -> None:
    try:
        parsed = reference.parse(data)
    except reference.Drop:
        assume(False)
    replier = Replier(GATEWAY4.packed, GATEWAY6.packed, 99)
    expected = reference.reply(parsed, KINDS[kind - 1], mtu, gateway(parsed.family))
    assert replier.build(data, kind, mtu) == expected


# -- who gets none -----------------------------------------------------------
@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_no_answer_to_an_icmp_error(replier: Replier, kind: int) -> None:
    assert replier.build(ipv4(echo(A4, B4, kind=kind), ICMP), 1) is None


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 100, 127, 137])
def test_no_answer_to_an_icmp6_error(replier: Replier, kind: int) -> None:
    assert replier.build(ipv6(echo(A6, B6, kind=kind), ICMPV6), 1) is None


@pytest.mark.parametrize("kind", [0, 8, 13])
def test_queries_are_answered(replier: Replier, kind: int) -> None:
    assert replier.build(ipv4(echo(A4, B4, kind=kind), ICMP), 1) is not None
    assert replier.build(ipv6(echo(A6, B6, kind=128 + kind % 2), ICMPV6), 1) is not None


def test_only_first_fragments_are_answered(replier: Replier) -> None:
    assert replier.build(ipv4(tcp(A4, B4, bytes(20)), TCP, fragment=0x2000), 1) is not None
    assert replier.build(ipv4(bytes(40), TCP, fragment=100), 1) is None
    assert replier.build(ipv6(chained([fragment_header(64)], UDP, udp(A6, B6))[1], 44), 1) is None


def test_nothing_made_here_is_answered(replier: Replier) -> None:
    assert replier.build(packet(4), 1, created=True) is None


def test_nothing_without_a_wish_an_address_or_room(replier: Replier) -> None:
    assert replier.build(packet(4), 0) is None
    assert replier.build(packet(4, UDP, bytes(100)), 1, room=20 + 8 + 128 - 1) is None
    assert replier.build(packet(4, UDP, bytes(100)), 1, room=20 + 8 + 128) is not None
    assert Replier(None, GATEWAY6.packed).build(packet(4), 1) is None
    assert Replier(GATEWAY4.packed, None).build(packet(6), 1) is None
    assert replier.suppressed == 0  # none of these was a matter of rate


# -- rates -------------------------------------------------------------------
@pytest.mark.parametrize("family", [4, 6])
def test_one_destination_gets_a_burst_then_a_rate(replier: Replier, family: int) -> None:
    data = packet(family)
    assert replier.burst(data, 1, 1000, 5 * SECOND, 0) == 20
    assert replier.suppressed == 980
    assert replier.burst(data, 1, 1000, 7 * SECOND, SECOND // 1000) in range(118, 122)  # 20 and 100 a second


def test_a_silent_second_earns_the_burst_again_and_no_more(replier: Replier) -> None:
    data = packet(4)
    for second in (1, 2, 3, 100):
        assert replier.burst(data, 1, 100, second * SECOND, 0) == 20


def test_all_destinations_together_have_a_rate(replier: Replier) -> None:
    made = 0
    for i in range(20_000):  # two seconds, each packet from another source
        source = str(ip_address(0x0A000001 + i))
        made += replier.build(packet(4, source=source), 1, 0, SECOND + i * SECOND // 10_000) is not None
    assert made in range(1900, 2300)  # 100 at once and 1,000 a second, jittered


def test_one_loud_destination_does_not_silence_others(replier: Replier) -> None:
    loud, quiet = packet(4), packet(4, source="10.9.9.9")
    for tick in range(100):
        replier.burst(loud, 1, 50, SECOND * (10 + tick), 0)
        assert replier.build(quiet, 1, 0, SECOND * (10 + tick)) is not None


def test_the_global_rate_is_not_a_clock() -> None:
    """Which packet is the first to go unanswered differs by key: outsiders cannot count others' messages."""
    stops = set()
    for key in range(1, 40):
        replier = Replier(GATEWAY4.packed, GATEWAY6.packed, key * 0x9E3779B97F4A7C15 % 2**64)
        answered = [replier.build(packet(4, source=str(ip_address(0x0A000001 + i))), 1, 0, SECOND) for i in range(200)]
        stops.add(answered.index(None))
    assert len(stops) > 3 and all(60 <= stop <= 160 for stop in stops)


def test_the_quote_keeps_a_pending_checksum(replier: Replier) -> None:
    data = packet(4, TCP)
    pending = data[:36] + struct.pack("!H", 0xBEEF) + data[38:]
    assert replier.build(pending, 1)[28:] == pending
