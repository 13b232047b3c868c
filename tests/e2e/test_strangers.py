"""What must not get in, does not, is counted once under its own reason, and changes nothing else.

One node, three hosts on its underlay that say whatever the test wants: two
configured peers and a stranger. All bad packets of an encapsulation are sent
in one go; then the reasons, read as a user would, must be exactly theirs.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass

import pytest

from engine.lab import Lab, wait_until
from engine.lab.traffic import Responder, ping, udp_echo
from tests.e2e import craft
from tests.e2e.conftest import assert_balanced, told_apart
from tests.e2e.solo import Peer, Solo, derived_mac

PEER, OTHER, STRANGER, NODE = "192.0.2.2", "192.0.2.3", "192.0.2.66", "192.0.2.1"
POD, SECOND, NEAR, FAR = "10.244.1.2", "10.244.1.3", "10.244.2.5", "10.244.3.9"
POD6, SECOND6, NEAR6, FAR6 = "fd00:10:244:1::2", "fd00:10:244:1::3", "fd00:10:244:2::5", "fd00:10:244:3::9"
HOST, HOST6 = "10.244.1.1", "fd00:10:244:1::1"
OWN_MAC, PEER_MAC = derived_mac("node-a"), "02:00:00:00:00:02"
MARK = b"stranger!"
NOISE = {"multicast"}  # what kernels say by themselves
PORTS = {"vxlan": 4789, "udp": 8285}


@dataclass(frozen=True)
class Bad:
    """A packet that must end in the node for `reason`. `tos` is that of the outer header."""

    reason: str
    inner: bytes
    sender: str = "peer"
    tos: int = 0


def good4(source=NEAR, target=POD, **keys):
    return craft.ipv4(source, target, craft.udp(MARK), **keys)


def good6(source=NEAR6, target=POD6, **keys):
    return craft.ipv6(source, target, craft.udp(MARK, addresses=(source, target)), **keys)


def inner_packets():
    """Bad inner packets, the same for every encapsulation."""
    segment = craft.tcp(MARK)
    yield from (
        # who may say what
        Bad("peer_unknown", good4(), "stranger"),
        Bad("peer_unknown", good6(), "stranger"),
        Bad("guard_peer_source", good4(source=FAR)),
        Bad("guard_peer_source", good6(source=FAR6)),
        Bad("guard_peer_source", good4(source="203.0.113.7")),
        Bad("guard_peer_source", good4(), "other"),
        Bad("guard_own_source", good4(source=SECOND)),
        Bad("guard_own_source", good6(source=SECOND6)),
        Bad("guard_own_source", good4(source=HOST)),
        Bad("guard_not_local", good4(target=FAR)),
        Bad("guard_not_local", good6(target=FAR6)),
        Bad("unreachable", good4(target="10.244.1.77")),
        Bad("ecn", good4(), tos=3),
        Bad("ttl_expired", good4(ttl=1)),
        Bad("ttl_expired", good6(hops=1)),
        # a tunnel in the tunnel
        Bad("nested", craft.ipv4(NEAR, HOST, good4(), protocol=craft.IPIP)),
        Bad("nested", craft.ipv4(NEAR, HOST, good6(), protocol=craft.IP6IP)),
        Bad("nested", craft.ipv6(NEAR6, HOST6, good4(), following=craft.IPIP)),
        # addresses that may not travel
        Bad("martian", good4(source="127.0.0.1")),
        Bad("martian", good4(source="0.1.2.3")),
        Bad("martian", good4(target="127.0.0.1")),
        Bad("martian", good6(source="::1")),
        Bad("martian", good6(source="::ffff:10.244.2.5")),
        Bad("land", good4(source=POD)),
        Bad("land", craft.ipv4(NEAR, POD, craft.udp(MARK, target=0))),
        # headers that lie
        Bad("ip4_checksum", good4(bad_sum=1)),
        Bad("ip4_length", good4(length=19)),
        Bad("truncated", good4(length=1400)),
        Bad("ip4_option", good4(options=bytes([131, 7, 4, 10, 244, 1, 3, 0]))),
        Bad("ip6_length", good6(length=0)),
        Bad("truncated", good6(length=1400)),
        Bad(
            "ip6_routing",
            craft.ipv6(NEAR6, POD6, bytes([craft.UDP, 0, 0, 1]) + bytes(4) + craft.udp(MARK), following=craft.ROUTING),
        ),
        Bad("udp_length", craft.ipv4(NEAR, POD, craft.udp(MARK, length=7))),
        Bad("udp_length", craft.ipv4(NEAR, POD, craft.udp(MARK, length=900))),
        Bad("tcp_offset", craft.ipv4(NEAR, POD, craft.tcp(MARK, words=4), protocol=craft.TCP)),
        Bad("tcp_offset", craft.ipv4(NEAR, POD, craft.tcp(MARK, words=15), protocol=craft.TCP)),
        Bad("truncated", craft.ipv4(NEAR, POD, segment[:12], protocol=craft.TCP)),
        # fragments that no honest sender makes
        Bad("fragment_tiny", craft.ipv4(NEAR, POD, segment[:8], protocol=craft.TCP, fragment=0x2000)),
        Bad("fragment_offset", craft.ipv4(NEAR, POD, segment, protocol=craft.TCP, fragment=0x0001)),
    )


def frame(inner, *, target=OWN_MAC, source=PEER_MAC, kind=None):
    if kind is None:
        kind = 0x86DD if inner[0] >> 4 == 6 else 0x0800
    return craft.ethernet(target, source, kind, inner)


def vxlan_datagrams():
    """Inner packets in good frames, then good packets in bad ones."""
    for bad in inner_packets():
        yield Bad(bad.reason, craft.vxlan(frame(bad.inner)), bad.sender, bad.tos)
    good = frame(good4())
    nested = craft.ipv4(NEAR, HOST, craft.udp(craft.vxlan(good), target=4789))
    yield from (
        Bad("nested", craft.vxlan(frame(nested))),
        Bad("vni_unknown", craft.vxlan(good, vni=2)),
        Bad("vni_calico_nodeport", craft.vxlan(good, vni=0xCA11C0)),
        Bad("vxlan_flags", craft.vxlan(good, flags=0)),
        Bad("vxlan_reserved", craft.vxlan(good, last=1)),
        Bad("vxlan_reserved", craft.vxlan(good, reserved=0x010000)),
        Bad("truncated", craft.vxlan(b"")[:7]),
        Bad("truncated", craft.vxlan(good)[:21]),
        Bad("inner_mac", craft.vxlan(frame(good4(), target="02:00:00:00:00:99"))),
        Bad("inner_mac_loop", craft.vxlan(frame(good4(), source=OWN_MAC))),
        Bad("inner_group_mac", craft.vxlan(frame(good4(), target="ff:ff:ff:ff:ff:ff"))),
        Bad("inner_ethernet", craft.vxlan(frame(bytes(28), kind=0x0806))),
        Bad("inner_ethernet", craft.vxlan(frame(b"\0\x01\x08\0" + good4(), kind=0x8100))),
        Bad("ip_version", craft.vxlan(frame(good4(), kind=0x86DD))),
        Bad("ip_version", craft.vxlan(frame(good4(version=5), kind=0x0800))),
    )


def udp_datagrams():
    yield from inner_packets()
    yield Bad("nested", craft.ipv4(NEAR, HOST, craft.udp(good4(), target=8285)))
    yield Bad("ip_version", good4(version=5))
    yield Bad("ip_version", b"\xf0" * 40)


def ipip_packets():
    yield from inner_packets()
    yield Bad("ip_version", good4(version=5))


DATAGRAMS = {"vxlan": vxlan_datagrams, "udp": udp_datagrams, "ipip": ipip_packets}


@pytest.fixture(scope="module", params=DATAGRAMS)
def solo(request):
    with Lab("test") as lab:
        peers = [
            Peer("peer", (f"{PEER}/24",), ("10.244.2.0/24", "fd00:10:244:2::/64"), {"mac": PEER_MAC}),
            Peer("other", (f"{OTHER}/24",), ("10.244.3.0/24", "fd00:10:244:3::/64")),
        ]
        mode = "routed" if request.param == "ipip" else "overlay"
        network = {"mode": mode, "encapsulation": request.param}
        solo = Solo(lab, peers=peers, network=network, pods=((POD, POD6), (SECOND, SECOND6)))
        solo.stranger("stranger", f"{STRANGER}/24")
        for pod in solo.pods:
            Responder(pod)
        with told_apart([solo.daemon]):
            solo.start()
            yield solo


def send(solo, bad):
    """Send the payload of `bad` from its sender's host to the node's tunnel."""
    encapsulation = solo.network["encapsulation"]
    host = solo.lab[bad.sender]
    if encapsulation == "ipip":
        protocol = craft.IP6IP if bad.inner[0] >> 4 == 6 else craft.IPIP
        sock, target = host.socket(socket.AF_INET, socket.SOCK_RAW, protocol), (NODE, 0)
    else:
        sock, target = host.socket(socket.AF_INET, socket.SOCK_DGRAM), (NODE, PORTS[encapsulation])
    with sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, bad.tos)
        sock.sendto(bad.inner, target)


def drops_since(solo, before):
    now = Counter(solo.daemon.drops())
    return {reason: count for reason, count in (now - Counter(before)).items() if reason not in NOISE}


def test_every_bad_packet_is_dropped_for_its_reason(solo):
    bads = list(DATAGRAMS[solo.network["encapsulation"]]())
    expected = dict(Counter(bad.reason for bad in bads))
    before, received = solo.daemon.drops(), solo.daemon.ask("counters")["received"]
    with solo.pod.interface("eth0").capture() as seen, solo.host.interface("towpath0").capture() as host_seen:
        for bad in bads:
            send(solo, bad)
        wait_until(lambda: solo.daemon.ask("counters")["received"] >= received + len(bads), "all to arrive", seconds=3)
    assert drops_since(solo, before) == expected
    assert [each.data for each in seen.frames if MARK in each.data] == []
    assert [each.data for each in host_seen.frames if MARK in each.data and not is_error(each.data)] == []
    assert_balanced(solo.daemon)


def is_error(data):
    """An ICMP error of the node's own, which quotes what it is about."""
    return data[9] == craft.ICMP if data[0] >> 4 == 4 else data[6] == craft.ICMP6


def test_the_same_packet_without_the_mistake_arrives(solo):
    """Each bad packet differs from these in one thing alone."""
    wrap = {"vxlan": lambda inner: craft.vxlan(frame(inner)), "udp": bytes, "ipip": bytes}
    before = solo.daemon.drops()
    for family, inner in ((socket.AF_INET, good4()), (socket.AF_INET6, good6())):
        with solo.pod.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 2222))
            sock.settimeout(2)
            send(solo, Bad("", wrap[solo.network["encapsulation"]](inner)))
            assert sock.recv(100) == MARK
    assert drops_since(solo, before) == {}


def test_another_port_is_nobodys(solo):
    if solo.network["encapsulation"] == "ipip":
        pytest.skip("IP in IP has no ports")
    before = received_by_tunnels(solo)
    with solo.lab["peer"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((NODE, PORTS[solo.network["encapsulation"]] + 1))
        sock.send(craft.vxlan(frame(good4())))
        sock.settimeout(2)
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)
    assert received_by_tunnels(solo) == before


def received_by_tunnels(solo):
    ports = {port["name"]: port["received_packets"] for port in solo.daemon.ask("counters")["ports"]}
    found = [packets for name, packets in ports.items() if name.startswith("tunnel ")]
    assert found, ports
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_pod_cannot_use_another_address(solo, family):
    """Neither its neighbour's, nor a remote pod's, nor the node's."""
    before = solo.daemon.drops()
    with solo.pods[1].interface("eth0").capture() as seen:
        for source in (SECOND, NEAR, HOST, "203.0.113.7") if family == 4 else (SECOND6, NEAR6, HOST6, "2001:db8:7::7"):
            if family == 4:
                spoof(solo.pod, socket.AF_INET, good4(source=source, target=SECOND), SECOND)
            else:
                spoof(solo.pod, socket.AF_INET6, good6(source=source, target=SECOND6), SECOND6)
        expected = {"guard_pod_source": 3, "land": 1}  # the neighbour's own address is source and target
        wait_until(lambda: sum(drops_since(solo, before).values()) >= 4, "four drops", seconds=3)
    assert drops_since(solo, before) == expected
    assert [each.data for each in seen.frames if MARK in each.data] == []


def spoof(pod, family, packet, target):
    with pod.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(packet, (target, 0))


def test_all_is_well_afterwards(solo):
    assert ping(solo.pod, SECOND).ok
    assert ping(solo.pod, SECOND6).ok
    udp_echo(solo.pod, SECOND, size=1000)
    assert solo.daemon.ask("status")["problems"] == []
