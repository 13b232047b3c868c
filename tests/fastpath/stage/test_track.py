"""Flows and the ways around policy: each attempt is dropped, counted under its own reason, and opens nothing."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address, ip_network
from itertools import count

import numpy as np
import pytest

from engine.desired.policy.model import Action, Connection, PeerRule, PortMatch
from fastpath import reference
from fastpath.port.memory import Super
from fastpath.reference import ICMP, ICMPV6, TCP, UDP
from fastpath.values import FLOW_EVENTS, FLOW_STATES, FlowSettings
from tests.fastpath import packets
from tests.fastpath.cluster import ACK, FIN, RST, SYN, MemoryCluster, datagram, opening, sctp, segment
from tests.fastpath.policies import ALLOW_80, ISOLATED, about_b, cluster_of, snapshot_of

A4, B4, OUT4 = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("198.51.100.7")
A6, B6, OUT6 = ip_address("fd00::1"), ip_address("fd00::2"), ip_address("2001:db8::7")
PAIRS = [(A4, B4), (A6, B6)]
SPORTS = count(30_000)


def state_of(cluster: MemoryCluster) -> list[str]:
    return [FLOW_STATES[state] for state in cluster.plane.flows()[0]["state"]]


def refused(cluster: MemoryCluster, source: object, destination: object, data: bytes, reason: str) -> None:
    """One packet is dropped for one reason and no other, and leaves no flow."""
    before, live = cluster.drops, len(cluster.plane.flow_table)
    assert cluster.passes(source, destination, data) == 0
    grown = {name: n - before.get(name, 0) for name, n in cluster.drops.items() if n != before.get(name, 0)}
    assert grown == {reason: 1}
    assert len(cluster.plane.flow_table) <= live


def connected(cluster: MemoryCluster, a: object, b: object, sport: int, dport: int = 80) -> None:
    assert cluster.passes(a, b, segment(a, b, SYN, sport=sport, dport=dport, seq=1000))
    assert cluster.passes(b, a, segment(b, a, SYN | ACK, sport=dport, dport=sport, seq=5000, ack=1001))
    assert cluster.passes(a, b, segment(a, b, ACK, sport=sport, dport=dport, seq=1001, ack=5001))
    assert state_of(cluster)[-1:] == ["tcp_established"] or "tcp_established" in state_of(cluster)


# -- tracking is off until it is needed ---------------------------------------
def test_nothing_is_tracked_without_a_policy() -> None:
    cluster = cluster_of([])
    assert cluster.passes(A4, B4, opening(A4, B4, TCP, 80))
    assert len(cluster.plane.flow_table) == 0
    assert not cluster.plane.policy.selects


def test_a_policy_switches_tracking_on_and_its_end_off() -> None:
    cluster = cluster_of([ALLOW_80])
    assert cluster.passes(A4, B4, opening(A4, B4, TCP, 80))
    assert len(cluster.plane.flow_table) == 1
    cluster.plane.set_policy(None)
    assert cluster.passes(B4, A4, opening(B4, A4, TCP, 9))
    assert len(cluster.plane.flow_table) == 1


def test_tracking_can_be_asked_for() -> None:
    cluster = cluster_of([], FlowSettings(track="always"))
    assert cluster.passes(A4, B4, opening(A4, B4, UDP, 53))
    cluster.plane.set_policy(None)
    assert cluster.passes(A4, B4, opening(A4, B4, UDP, 54))
    assert len(cluster.plane.flow_table) == 2


# -- TCP -----------------------------------------------------------------------
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_connection_opens_and_closes(a: object, b: object) -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, a, b, 40_000)
    assert cluster.passes(a, b, segment(a, b, FIN | ACK, sport=40_000, dport=80, seq=1001, ack=5001))
    assert state_of(cluster) == ["tcp_fin_wait"]
    assert cluster.passes(b, a, segment(b, a, ACK, sport=80, dport=40_000, seq=5001, ack=1002))
    assert state_of(cluster) == ["tcp_close_wait"]
    assert cluster.passes(b, a, segment(b, a, FIN | ACK, sport=80, dport=40_000, seq=5001, ack=1002))
    assert state_of(cluster) == ["tcp_last_ack"]
    assert cluster.passes(a, b, segment(a, b, ACK, sport=40_000, dport=80, seq=1002, ack=5002))
    assert state_of(cluster) == ["tcp_time_wait"]
    assert cluster.drops == {}


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_an_isolated_pod_opens_but_is_not_opened(a: object, b: object) -> None:
    cluster = cluster_of([ISOLATED])       # b accepts nothing
    refused(cluster, a, b, opening(a, b, TCP, 80), "policy_deny")
    connected(cluster, b, a, 40_001)       # its own connections get their answers
    refused(cluster, a, b, segment(a, b, SYN, sport=80, dport=40_002), "policy_deny")


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_answering_side_opens_nothing(a: object, b: object) -> None:
    """A SYN against the direction of an established connection would reach an isolated pod."""
    cluster = cluster_of([ISOLATED])
    connected(cluster, b, a, 40_001)
    before = cluster.drops
    assert cluster.passes(a, b, segment(a, b, SYN, sport=80, dport=40_001, seq=9)) == 0
    assert cluster.drops == {**before, "flow_invalid": 1}


def test_a_closed_connection_is_judged_anew_when_it_opens_again() -> None:
    cluster = cluster_of([ISOLATED])
    connected(cluster, B4, A4, 40_001)
    assert cluster.passes(B4, A4, segment(B4, A4, RST, sport=40_001, dport=80, seq=1001))
    assert state_of(cluster) == ["tcp_close"]
    refused(cluster, A4, B4, segment(A4, B4, SYN, sport=80, dport=40_001), "policy_deny")
    assert cluster.passes(B4, A4, segment(B4, A4, SYN, sport=40_001, dport=80))
    assert state_of(cluster) == ["tcp_syn_sent"]


@pytest.mark.parametrize("off", [-2, 1 << 20, 1 << 30, -(1 << 30)])
def test_a_reset_outside_of_the_window_is_dropped_and_ends_nothing(off: int) -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    for a, b, sport, dport, next_ in ((A4, B4, 40_000, 80, 1001), (B4, A4, 80, 40_000, 5001)):
        forged = segment(a, b, RST, sport=sport, dport=dport, seq=(next_ + off) % (1 << 32))
        before = cluster.drops.get("flow_bad_rst", 0)
        assert cluster.passes(a, b, forged) == 0
        assert cluster.drops == {"flow_bad_rst": before + 1}
    assert state_of(cluster) == ["tcp_established"]
    assert cluster.passes(B4, A4, segment(B4, A4, RST, sport=80, dport=40_000, seq=5001))
    assert state_of(cluster) == ["tcp_close"]


def test_a_fin_outside_of_the_window_changes_nothing() -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    cluster.passes(A4, B4, segment(A4, B4, FIN | ACK, sport=40_000, dport=80, seq=1001 + (1 << 24), ack=5001))
    assert state_of(cluster) == ["tcp_established"]


def test_a_refused_connection_is_closed_by_the_right_reset_only() -> None:
    cluster = cluster_of([ALLOW_80])
    assert cluster.passes(A4, B4, segment(A4, B4, SYN, sport=40_000, dport=80, seq=1000))
    for flags, ack in ((RST, 0), (RST | ACK, 1000), (RST | ACK, 1002)):
        assert cluster.passes(B4, A4, segment(B4, A4, flags, sport=80, dport=40_000, seq=0, ack=ack)) == 0
    assert cluster.drops == {"flow_bad_rst": 3} and state_of(cluster) == ["tcp_syn_sent"]
    assert cluster.passes(B4, A4, segment(B4, A4, RST | ACK, sport=80, dport=40_000, seq=0, ack=1001))
    assert state_of(cluster) == ["tcp_close"]


@pytest.mark.parametrize("flags", [0, FIN, 8, 32, SYN | FIN, SYN | RST, RST, RST | ACK, SYN | ACK, FIN | 8 | 32])
def test_what_opens_no_connection_is_invalid(flags: int) -> None:
    cluster = cluster_of([ALLOW_80])
    refused(cluster, A4, B4, segment(A4, B4, flags, sport=40_000, dport=80), "flow_invalid")


def test_a_connection_in_its_middle_is_picked_up_by_setting() -> None:
    middle = segment(A4, B4, ACK, sport=40_000, dport=80, seq=7, ack=9)
    assert cluster_of([ALLOW_80]).passes(A4, B4, middle)
    refused(cluster_of([ALLOW_80], FlowSettings(pickup=False)), A4, B4, middle, "flow_invalid")
    refused(cluster_of([ISOLATED]), A4, B4, middle, "policy_deny")


def test_a_super_packet_is_one_lookup_and_counts_its_segments() -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    data = segment(A4, B4, ACK, sport=40_000, dport=80, seq=1001, ack=5001, payload=bytes(4000))
    cluster.port(A4).inject(Super(data, 1, 1000, 20, 16, True))
    cluster.turn()
    row = cluster.plane.flows()[0][0]
    assert row["packets"].tolist() == [2 + 4, 1]
    assert row["bytes"].tolist() == [40 * 2 + 4 * 1040, 40]


# -- ICMP ------------------------------------------------------------------------
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_an_echo_request_against_a_known_echo_is_judged(a: object, b: object) -> None:
    """GHSA-c66w-hq56-4q97: the same identifier from the other side is another flow."""
    cluster = cluster_of([ISOLATED])
    protocol, ask, tell = (ICMP, 8, 0) if a.version == 4 else (ICMPV6, 128, 129)
    request = datagram(b, a, packets.echo(b, a, kind=ask), protocol)
    assert cluster.passes(b, a, request)
    assert cluster.passes(a, b, datagram(a, b, packets.echo(a, b, kind=tell), protocol))
    refused(cluster, a, b, datagram(a, b, packets.echo(a, b, kind=ask), protocol), "policy_deny")
    refused(cluster, a, b, datagram(a, b, packets.echo(a, b, kind=tell, identifier=78), protocol), "policy_deny")


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_message_without_an_identifier_does_not_ride_on_the_echo_with_identifier_0(a: object, b: object) -> None:
    protocol, ask, tell, others = (ICMP, 8, 0, (13, 14, 42)) if a.version == 4 else (ICMPV6, 128, 129, (130, 160, 200))
    only_echo = PeerRule(Action.ALLOW, ports=(PortMatch(protocol, ask << 8, ask << 8),))
    cluster = MemoryCluster(snapshot_of([about_b("echo", (only_echo,))]))
    assert cluster.passes(a, b, datagram(a, b, packets.echo(a, b, kind=ask, identifier=0), protocol))
    assert cluster.passes(b, a, datagram(b, a, packets.echo(b, a, kind=tell, identifier=0), protocol))
    for kind in others:
        refused(cluster, a, b, datagram(a, b, packets.echo(a, b, kind=kind, identifier=0), protocol), "policy_deny")
    assert cluster.plane.flows()[0]["packets"].tolist() == [[1, 1]]


def quoting(router: object, to: object, quoted: bytes, kind: int, code: int, rest: int = 0) -> bytes:
    body = struct.pack("!BBHI", kind, code, 0, rest) + quoted
    if to.version == 4:
        body = body[:2] + struct.pack("!H", reference.checksum(body)) + body[4:]
        return datagram(router, to, body, ICMP)
    return datagram(router, to, packets.filled(router, to, ICMPV6, body, 2), ICMPV6)


@pytest.mark.parametrize(("a", "b", "router", "kind"), [(A4, B4, OUT4, 3), (A6, B6, OUT6, 1)])
def test_an_icmp_error_passes_for_the_flow_it_quotes_and_for_no_other(
    a: object, b: object, router: object, kind: int
) -> None:
    cluster = cluster_of([ISOLATED])
    sent = segment(b, a, SYN, sport=40_000, dport=80)
    assert cluster.passes(b, a, sent)
    assert cluster.passes(router, b, quoting(router, b, sent[:60], kind, 1))
    for quoted in (
        segment(b, a, SYN, sport=40_001, dport=80)[:60],  # another port
        segment(a, b, SYN, sport=80, dport=40_000)[:60],  # not sent by whom the error goes to
        sent[:24],  # cut
        datagram(b, a, packets.udp(b, a, b"x", sport=40_000, dport=80), UDP),  # another protocol
        datagram(b, a, packets.echo(b, a, kind=0 if a.version == 4 else 129), ICMP if a.version == 4 else ICMPV6),
    ):
        refused(cluster, router, b, quoting(router, b, quoted, kind, 1), "icmp_bad_quote")


@pytest.mark.parametrize(("pod", "out", "other", "kind"), [(B4, OUT4, "203.0.113.9", 3), (B6, OUT6, "2001:db8::9", 1)])
def test_who_is_judged_says_nothing_in_errors_about_what_strangers_sent(
    pod: object, out: object, other: str, kind: int
) -> None:
    cluster = cluster_of([ISOLATED])
    sent = segment(out, ip_address(other), SYN, sport=40_000, dport=80)
    refused(cluster, pod, out, quoting(pod, out, sent, kind, 1), "icmp_bad_quote")


def test_an_icmp_error_may_not_ask_for_an_impossible_mtu() -> None:
    cluster = cluster_of([ISOLATED])
    for a, b, router, kind, code, least in ((A4, B4, OUT4, 3, 4, 576), (A6, B6, OUT6, 2, 0, 1280)):
        sent = segment(b, a, SYN, sport=40_000, dport=80)
        assert cluster.passes(b, a, sent)
        assert cluster.passes(router, b, quoting(router, b, sent, kind, code, least))
        refused(cluster, router, b, quoting(router, b, sent, kind, code, least - 1), "icmp_bad_quote")


# -- SCTP ------------------------------------------------------------------------
def test_an_association_opens_and_only_the_right_tag_aborts_it() -> None:
    cluster = cluster_of([ISOLATED])
    a, b = B4, A4
    assert cluster.passes(a, b, sctp(a, b, 4000, 5000, 1, 0, 0x1111))
    assert cluster.passes(b, a, sctp(b, a, 5000, 4000, 2, 0x1111, 0x2222))
    assert cluster.passes(a, b, sctp(a, b, 4000, 5000, 10, 0x2222, 0))
    assert cluster.passes(b, a, sctp(b, a, 5000, 4000, 11, 0x1111, 0))
    assert state_of(cluster) == ["sctp_established"]
    assert cluster.passes(b, a, sctp(b, a, 5000, 4000, 6, 0x9999, 0)) == 0
    assert cluster.passes(b, a, sctp(b, a, 5000, 4000, 1, 0, 0x3333)) == 0
    assert cluster.drops == {"flow_bad_rst": 1, "flow_invalid": 1} and state_of(cluster) == ["sctp_established"]
    assert cluster.passes(b, a, sctp(b, a, 5000, 4000, 6, 0x1111, 0))
    assert state_of(cluster) == ["sctp_closed"]


# -- other protocols ---------------------------------------------------------------
@pytest.mark.parametrize("protocol", [0, 2, 50, 51, 89, 99, 253, 255])
def test_unknown_protocols_are_judged_and_told_apart(protocol: int) -> None:
    cluster = cluster_of([ISOLATED])
    body = bytes(range(32))
    refused(cluster, A4, B4, datagram(A4, B4, body, protocol), "policy_deny")
    assert cluster.passes(B4, A4, datagram(B4, A4, body, protocol))
    assert cluster.passes(A4, B4, datagram(A4, B4, body, protocol)), "the answer of the flow"
    refused(cluster, A4, B4, datagram(A4, B4, body, 254), "policy_deny")


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_ports_0_and_cut_headers_never_reach_policy(protocol: int) -> None:
    cluster = cluster_of([ALLOW_80])
    build = packets.tcp if protocol == TCP else packets.udp
    refused(cluster, A4, B4, datagram(A4, B4, build(A4, B4, sport=1, dport=0), protocol), "land")
    refused(cluster, A4, B4, datagram(A4, B4, build(A4, B4, dport=80)[:7], protocol), "truncated")


def test_a_pod_cannot_speak_for_another() -> None:
    cluster = cluster_of([ISOLATED])
    connected(cluster, B4, A4, 40_001)
    cluster.port(A4).inject([segment(B4, A4, ACK, sport=40_001, dport=80, seq=1001, ack=5001)])
    cluster.turn()
    assert cluster.drops == {"guard_pod_source": 1}


# -- fragments ----------------------------------------------------------------------
def fragments4(a: object, b: object, identification: int, dport: int = 80, size: int = 200) -> list[bytes]:
    """A UDP datagram in pieces of 80, 80 and the rest."""
    whole = packets.udp(a, b, bytes(size), sport=40_000, dport=dport)
    return [
        fragment4(a, b, identification, at, whole[at : at + 80], more=at + 80 < len(whole))
        for at in range(0, len(whole), 80)
    ]


def fragment4(a: object, b: object, identification: int, at: int, body: bytes, *, more: bool, protocol: int = UDP) -> bytes:
    whole = bytearray(packets.ipv4(body, protocol, source=a, destination=b, fragment=at // 8 | (0x2000 if more else 0)))
    whole[4:6] = identification.to_bytes(2)
    return packets.resealed(bytes(whole))


def fragment6(a: object, b: object, identification: int, at: int, body: bytes, *, more: bool) -> bytes:
    head = bytes([UDP, 0]) + (at | more).to_bytes(2) + identification.to_bytes(4)
    return packets.ipv6(head + body, 44, source=a, destination=b)


def fragments6(a: object, b: object, identification: int) -> list[bytes]:
    whole = packets.udp(a, b, bytes(200), sport=40_000, dport=80)
    return [
        fragment6(a, b, identification, at, whole[at : at + 80], more=at + 80 < len(whole))
        for at in range(0, len(whole), 80)
    ]


@pytest.mark.parametrize(("a", "b", "cut"), [(A4, B4, fragments4), (A6, B6, fragments6)])
def test_later_fragments_follow_the_first(a: object, b: object, cut: object) -> None:
    cluster = cluster_of([ALLOW_80], protocol=UDP)
    assert cluster.passes(a, b, *cut(a, b, 1)) == 3
    assert cluster.passes(a, b, *cut(a, b, 1)) == 3, "complete: the identification may be used again"
    first, second, last = cut(a, b, 2)
    refused(cluster, a, b, second, "fragment_unknown")
    refused(cluster, a, b, last, "fragment_unknown")
    assert cluster.passes(a, b, first, last, second) == 3, "the order of the later ones is free"


@pytest.mark.parametrize(("a", "b", "cut"), [(A4, B4, fragments4)])
def test_fragments_of_a_denied_datagram_stay_out(a: object, b: object, cut: object) -> None:
    cluster = cluster_of([ALLOW_80], protocol=UDP)
    pieces = cut(a, b, 1, 81)
    assert cluster.passes(a, b, *pieces) == 0
    assert cluster.drops == {"policy_deny": 1, "fragment_unknown": 2}


def test_a_fragment_over_the_first_ends_the_datagram() -> None:
    cluster = cluster_of([ALLOW_80], protocol=UDP)
    first, second, last = fragments4(A4, B4, 1)
    assert cluster.passes(A4, B4, first) == 1
    refused(cluster, A4, B4, fragment4(A4, B4, 1, 64, bytes(80), more=True), "fragment_overlap")
    refused(cluster, A4, B4, second, "fragment_overlap")
    assert cluster.passes(A4, B4, fragments4(A4, B4, 2)[0]) == 1
    before = cluster.drops["fragment_overlap"]
    assert cluster.passes(A4, B4, fragments4(A4, B4, 2)[0]) == 0, "a second first fragment could name another port"
    assert cluster.drops["fragment_overlap"] == before + 1
    refused(cluster, A4, B4, last, "fragment_overlap")


@pytest.mark.parametrize("size", [8, 16, 19])
def test_a_first_fragment_holds_the_transport_header(size: int) -> None:
    cluster = cluster_of([ALLOW_80])
    body = packets.tcp(A4, B4, flags=SYN, dport=80)[: size // 8 * 8]
    refused(cluster, A4, B4, fragment4(A4, B4, 1, 0, body, more=True, protocol=TCP), "fragment_tiny")
    refused(cluster, A4, B4, fragment4(A4, B4, 1, 8, bytes(24), more=False, protocol=TCP), "fragment_offset")


def test_one_source_cannot_fill_the_fragment_table() -> None:
    cluster = cluster_of([ALLOW_80], protocol=UDP)
    firsts = [fragments4(A4, B4, n)[0] for n in range(200)]
    passed = sum(cluster.passes(A4, B4, *firsts[at : at + 50]) for at in range(0, 200, 50))
    assert 0 < passed <= 64
    assert cluster.drops == {"fragment_full": 200 - passed}


# -- room ------------------------------------------------------------------------------
def test_a_flood_leaves_established_flows_alone_and_memory_flat() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(capacity=512, quota=512))
    connected(cluster, A4, B4, 20_000)
    room = cluster.plane.flow_table.capacity
    for at in range(0, 4000, 100):
        cluster.passes(A4, B4, *(segment(A4, B4, SYN, sport=21_000 + at + i, dport=80) for i in range(100)))
    assert len(cluster.plane.flow_table) <= room
    assert cluster.plane.flow_counters()["evicted"] > 0
    assert cluster.passes(B4, A4, segment(B4, A4, ACK, sport=80, dport=20_000, seq=5001, ack=1001))
    assert cluster.plane.has_flow(A4, B4, TCP, 20_000, 80)


def test_a_source_has_a_quota() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(capacity=512, quota=10))
    assert cluster.passes(A4, B4, *(segment(A4, B4, SYN, sport=21_000 + i, dport=80) for i in range(30))) == 10
    assert cluster.drops == {"flow_quota": 20}


def test_when_all_are_established_new_ones_are_refused() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(capacity=8, quota=100))
    for i in range(40):
        if cluster.passes(A4, B4, segment(A4, B4, SYN, sport=21_000 + i, dport=80)):
            cluster.passes(B4, A4, segment(B4, A4, SYN | ACK, sport=80, dport=21_000 + i, seq=5000, ack=1001))
            cluster.passes(A4, B4, segment(A4, B4, ACK, sport=21_000 + i, dport=80, seq=1001, ack=5001))
    rows, _ = cluster.plane.flows()
    assert len(rows) == 8 and rows["assured"].all()
    assert cluster.drops == {"flow_full": 32}
    # What nobody judges passes even so: strangers through this node.
    assert cluster.plane.flow_counters()["evicted"] == 0


def test_flows_of_a_pod_that_is_gone_are_forgotten() -> None:
    cluster = cluster_of([ISOLATED])
    connected(cluster, B4, A4, 40_001)
    assert cluster.plane.forget_flows(B4) == 1
    assert not cluster.plane.has_flow(B4, A4, TCP, 40_001, 80)
    refused(cluster, A4, B4, segment(A4, B4, ACK, sport=80, dport=40_001, seq=5001, ack=1001), "policy_deny")


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_flows_into_a_prefix_are_forgotten_and_no_others(a: object, b: object) -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, a, b, 40_000)
    for prefix, found in ((f"{b + 2}/{b.max_prefixlen - 1}", 0), (f"{b}/{b.max_prefixlen}", 1)):
        assert cluster.plane.forget_flows(ip_network(prefix)) == found
    connected(cluster, a, b, 40_000)
    assert cluster.plane.forget_flows(ip_network(f"{a}/{a.max_prefixlen - 8}", strict=False)) == 1
    assert len(cluster.plane.flow_table) == 0


# -- a policy that changes ---------------------------------------------------------------
@pytest.mark.parametrize("setting", ["keep", "revalidate"])
def test_a_change_of_policy_keeps_or_judges_again(setting: str) -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(on_policy_change=setting))
    connected(cluster, A4, B4, 40_000)
    data = segment(A4, B4, ACK, sport=40_000, dport=80, seq=1001, ack=5001)
    answer = segment(B4, A4, ACK, sport=80, dport=40_000, seq=5001, ack=1001)
    cluster.apply(snapshot_of([ISOLATED]))
    kept = setting == "keep"
    assert cluster.passes(B4, A4, answer) == kept, "the answer is judged as its flow is"
    assert cluster.passes(A4, B4, data) == kept
    assert cluster.drops == ({} if kept else {"policy_deny": 2})
    cluster.apply(snapshot_of([ALLOW_80]))
    assert cluster.passes(A4, B4, data) == 1


@pytest.mark.parametrize("setting", ["keep", "revalidate"])
@pytest.mark.parametrize(("a", "b", "kind"), [(A4, B4, 3), (A6, B6, 1)])
def test_an_icmp_error_does_not_pass_for_a_flow_that_is_to_be_judged_again(
    a: object, b: object, kind: int, setting: str
) -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(on_policy_change=setting))
    connected(cluster, a, b, 40_000)
    data = segment(a, b, ACK, sport=40_000, dport=80, seq=1001, ack=5001)
    error = quoting(b, a, data, kind, 1)
    for policy, passes in ((ISOLATED, False), (ALLOW_80, True)):
        cluster.apply(snapshot_of([policy]))
        assert cluster.passes(b, a, error) == (setting == "keep")
        cluster.passes(a, b, data)
        assert cluster.passes(b, a, error) == (setting == "keep" or passes)


def test_a_denied_flow_is_not_opened_by_its_answers() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(on_policy_change="revalidate"))
    connected(cluster, A4, B4, 40_000)
    cluster.apply(snapshot_of([ISOLATED]))
    for _ in range(3):
        assert cluster.passes(B4, A4, segment(B4, A4, ACK, sport=80, dport=40_000, seq=5001, ack=1001)) == 0
        assert cluster.passes(A4, B4, segment(A4, B4, ACK, sport=40_000, dport=80, seq=1001, ack=5001)) == 0
    assert cluster.plane.flows()[0]["kind"].tolist() == [0]


def test_a_flow_follows_its_route() -> None:
    """The adjacency of a flow is remembered, and forgotten when a route changes."""
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    data = segment(A4, B4, ACK, sport=40_000, dport=80, seq=1001, ack=5001)
    assert cluster.passes(A4, B4, data, data) == 2
    route = cluster.plane.routes()
    prefix = next(p for p in route if p.network_address == B4)
    cluster.plane.remove_route(prefix)
    assert cluster.passes(A4, B4, data) == 0
    assert len(cluster.host.drain()) == 1, "it goes where the table now says"
    cluster.plane.set_route(prefix, route[prefix])
    assert cluster.passes(A4, B4, data) == 1


# -- telling ---------------------------------------------------------------------------------
def test_events_tell_of_new_denied_and_closed_flows() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(events=frozenset({"new", "denied", "closed"})))
    cluster.passes(A4, B4, opening(A4, B4, TCP, 80))
    cluster.passes(A4, B4, opening(A4, B4, TCP, 81))
    cluster.plane.forget_flows(A4)
    events, suppressed = cluster.plane.take_flow_events()
    kinds = {number: name for name, number in FLOW_EVENTS.items()}
    assert [kinds[kind] for kind in events["kind"]] == ["new", "denied"]
    assert events["destination_port"].tolist() == [80, 81] and suppressed == 0
    assert bytes(events["source"][0]).endswith(A4.packed)
    assert len(cluster.plane.take_flow_events()[0]) == 0


def test_events_are_limited_and_the_rest_counted() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(events=frozenset({"denied"}), events_per_second=1))
    for _ in range(12):
        cluster.passes(A4, B4, *[opening(A4, B4, TCP, 81)] * 100)
    events, suppressed = cluster.plane.take_flow_events()
    assert len(events) + suppressed == 1200
    assert suppressed > 500


def test_rules_are_counted() -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    cluster.passes(A4, B4, *[opening(A4, B4, TCP, 81)] * 3)
    flows, packets_, octets = cluster.plane.rule_counters()
    connection = Connection(A4, B4, TCP, 80, 40_000)
    _, row = cluster.plane.judge(connection.source, connection.destination, TCP, 40_000, 80)
    _, denying = cluster.plane.judge(A4, B4, TCP, 40_000, 81)
    rule, denied = (int(cluster.program.rows[r, 8]) for r in (row, denying))
    assert (flows[rule], packets_[rule], octets[rule]) == (1, 3, 120)
    assert (flows[denied], packets_[denied]) == (3, 3)


def totals(cluster: MemoryCluster) -> np.ndarray:
    return np.array(cluster.plane.rule_counters())


def deciding(cluster: MemoryCluster, dport: int) -> int:
    _, row = cluster.plane.judge(A4, B4, TCP, 40_000, dport)
    return int(cluster.program.rows[row, 8])


def test_what_a_rule_counted_outlives_flows_that_are_forgotten() -> None:
    cluster = cluster_of([ALLOW_80])
    connected(cluster, A4, B4, 40_000)
    before = totals(cluster)
    assert before[:, deciding(cluster, 80)].tolist() == [1, 3, 120]
    assert cluster.plane.forget_flows(B4) == 1
    assert totals(cluster).tolist() == before.tolist()


def test_what_a_rule_counted_outlives_flows_that_are_over() -> None:
    cluster = cluster_of([ALLOW_80], FlowSettings(timeouts={"tcp_syn_sent": 0.3}))
    assert cluster.passes(A4, B4, segment(A4, B4, SYN, sport=40_000, dport=80))
    before = totals(cluster)
    end = time.monotonic() + 10
    while len(cluster.plane.flows()[0]) and time.monotonic() < end:
        assert totals(cluster).tolist() == before.tolist()
    assert len(cluster.plane.flows()[0]) == 0 and len(cluster.plane.flow_table) == 1, "over, and not swept yet"
    assert totals(cluster).tolist() == before.tolist()


def test_each_rule_keeps_what_it_decided_when_flows_are_judged_again() -> None:
    """What was carried under the old rule is not the new one's, whatever becomes of the flow."""
    cluster = cluster_of([ALLOW_80], FlowSettings(on_policy_change="revalidate"))
    connected(cluster, A4, B4, 40_000)
    rule, before = deciding(cluster, 80), totals(cluster)
    data = segment(A4, B4, ACK, sport=40_000, dport=80, seq=1001, ack=5001)
    cluster.apply(snapshot_of([about_b("none", (PeerRule(Action.ALLOW, ports=(PortMatch(TCP, 81, 81),)),))]))
    assert cluster.passes(A4, B4, data) == 0
    assert totals(cluster).tolist() == before.tolist()
    cluster.apply(snapshot_of([ALLOW_80]))
    assert cluster.passes(A4, B4, data, data) == 2
    assert (totals(cluster) - before)[1:, rule].tolist() == [2, 80]
    cluster.plane.forget_flows(B4)
    assert (totals(cluster) - before)[1:].sum(axis=1).tolist() == [2 * 2, 80 * 2], "of egress and of ingress"
    assert (totals(cluster) >= before).all()


def test_flows_travel_to_the_next_process() -> None:
    old, new = cluster_of([ISOLATED]), cluster_of([ISOLATED])
    connected(old, B4, A4, 40_001)
    connected(old, B6, A6, 40_001)
    assert new.plane.import_flows(old.plane.export_flows()) == 2
    assert new.passes(A4, B4, segment(A4, B4, ACK, sport=80, dport=40_001, seq=5001, ack=1001))
    assert new.passes(A6, B6, segment(A6, B6, RST, sport=80, dport=40_001, seq=77)) == 0
    assert new.drops == {"flow_bad_rst": 1}
    assert new.plane.flows()[0]["packets"].sum() == 7
    for spoilt in (b"", b"x" * 100, old.plane.export_flows()[:-1], old.plane.export_flows() + b"\0"):
        with pytest.raises(ValueError, match="export"):
            new.plane.import_flows(spoilt)
