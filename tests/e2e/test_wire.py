"""The outer bytes of every encapsulation against golden packets, and what tshark thinks of them.

The golden packets were made by hand from the formats' specifications. Fields a
sender may choose are masked: outer identification, DF, source port, checksums
(which are verified instead), and the outer TTL of IP in IP.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess

import pytest

from engine.lab import Profile, wait_until
from engine.lab.capture import save
from engine.lab.traffic import Responder, ping, tcp_echo, udp_echo
from tests.e2e.conftest import running_cluster, told_apart
from tests.e2e.solo import Peer, Solo

# 10.244.1.2:40000 -> 10.244.2.3:53, UDP "towpath!", identification 0x1234, DF; sent with TTL 64, so 63 on the wire
INNER4 = bytes.fromhex("45000024123440003f1110a90af401020af402039c400035001094f6746f777061746821")
INNER6 = bytes.fromhex(
    "600000000010113ffd000010024400010000000000000002fd0000100244000200000000000000039c4000350010af31746f777061746821"
)
FLANNEL_UDP = bytes.fromhex("450000400001000040117954c0a84003c0a84004205d205d002cd691") + INNER4
FLANNEL_VXLAN = (
    bytes.fromhex(
        "45000056000100004011793ec0a84003c0a84004c000211800426f4d0800000000000100c6d2326f8f4412c66589b4e30800"
    )
    + INNER4
)
CALICO_VXLAN = (
    bytes.fromhex(
        "45000056000100004011793ec0a84003c0a84004c00012b5004243f508000000001000006693 7f54d553660702c1cc600800".replace(
            " ", ""
        )
    )
    + INNER4
)
IPIP = bytes.fromhex("45000038000140003f043a69c0a84003c0a84004") + INNER4
CALICO_VXLAN6 = (
    bytes.fromhex(
        "6000000000561140fd000000000000000000000000000003fd000000000000000000000000000004c00012b500565e8f"
        "080000000010000066d84896ab0166d4d5513d4286dd"
    )
    + INNER6
)
CASES = {
    "flannel-udp": (FLANNEL_UDP, {"encapsulation": "udp", "profile": "flannel"}, {}),
    "flannel-vxlan": (
        FLANNEL_VXLAN,
        {"encapsulation": "vxlan", "profile": "flannel", "mac": "12:c6:65:89:b4:e3"},
        {"mac": "c6:d2:32:6f:8f:44"},
    ),
    "calico-vxlan": (CALICO_VXLAN, {"encapsulation": "vxlan", "profile": "calico"}, {}),
    "calico-vxlan-ipv6": (CALICO_VXLAN6, {"encapsulation": "vxlan", "profile": "calico"}, {}),
    "ipip": (IPIP, {"encapsulation": "ipip", "mode": "routed"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_outer_bytes(lab, case):
    golden, network, keys = CASES[case]
    version = golden[0] >> 4
    own, other = ("192.168.64.3/24", "192.168.64.4/24") if version == 4 else ("fd00::3/64", "fd00::4/64")
    peer = Peer("worker-1", (other,), ("10.244.2.0/24", "fd00:10:244:2::/64"), keys)
    solo = Solo(lab, peers=[peer], network=network, underlay=(own,), profile=Profile.BARE)
    with told_apart([solo.daemon]):
        solo.start()
        with peer.host.interface("eth0").capture() as capture:
            send_inner(solo.pod, version)
            frame = find(capture, lambda frame: b"towpath!" in frame.data)
    packet = frame.data[14:]
    assert not frame.checksum_pending
    assert masked(packet) == masked(golden)
    assert checksums_hold(packet)


def send_inner(pod, version):
    """Send the golden inner packet from the pod, one hop before the node."""
    inner = bytearray(INNER4 if version == 4 else INNER6)
    if version == 4:
        inner[8] += 1
        inner[10:12] = bytes(2)  # the kernel fills it in
        with pod.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            sock.sendto(inner, ("10.244.2.3", 0))
    else:
        inner[7] += 1
        with pod.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            sock.sendto(inner, ("fd00:10:244:2::3", 0))


def find(capture, wanted):
    return wait_until(lambda: next(filter(wanted, list(capture.frames)), None), "the packet on the underlay")


def masked(packet):
    """The packet with what a sender may choose set to zero."""
    data = bytearray(packet)
    if packet[0] >> 4 == 6:
        data[1] &= 0xF0  # flow label
        data[2:4] = bytes(2)
        transport = 40
    else:
        transport = 20
        data[4:8] = bytes(4)
        data[10:12] = bytes(2)
        if data[9] == 4:
            data[8] = 0
            return bytes(data)
    flannel_udp = data[transport + 2 : transport + 4] == (8285).to_bytes(2, "big")
    if not flannel_udp:  # whose source port is fixed
        data[transport : transport + 2] = bytes(2)
    data[transport + 6 : transport + 8] = bytes(2)
    return bytes(data)


def checksums_hold(packet):
    if packet[0] >> 4 == 4:
        if ones_complement(packet[:20]) != 0xFFFF:
            return False
        addresses, transport, protocol = packet[12:20], packet[20:], packet[9]
    else:
        addresses, transport, protocol = packet[8:40], packet[40:], packet[6]
    if protocol != socket.IPPROTO_UDP:
        return True
    pseudo = addresses + struct.pack("!IHH", len(transport), 0, protocol)
    return transport[6:8] == b"\0\0" or ones_complement(pseudo + transport) == 0xFFFF


def ones_complement(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_golden_packets_are_what_they_claim():
    for golden, _, _ in CASES.values():
        assert checksums_hold(golden)
        assert masked(golden) != golden
    for inner in (INNER4, INNER6):
        assert checksums_hold(inner)
    assert ipaddress.ip_address(INNER4[16:20]) == ipaddress.ip_address("10.244.2.3")


WARNING = 0x600000  # tshark's severities: chat, note, warning, error


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("encapsulation", ["vxlan", "udp", "ipip", "none"])
def test_tshark_has_no_complaint(encapsulation, tmp_path):
    """Checksums verified, every frame decoded to the inner echo, no malformed or suspicious field."""
    with running_cluster(encapsulation=encapsulation, nodes=2, pods=1, profile=Profile.BARE) as cluster:
        a, b = cluster.pods
        Responder(b.host)
        with cluster.nodes[1].host.interface("eth0").capture() as capture:
            for address in b.addresses.values():
                assert ping(a.host, address, count=3, size=1000).ok
                udp_echo(a.host, address, size=700)
                tcp_echo(a.host, address, sizes=(100, 20_000))
        path = save(tmp_path / "underlay.pcap", capture.frames)
    assert capture.lost == 0
    rows = tshark(path, encapsulation)
    assert len(rows) == len(capture.frames)
    assert [row for row in rows if complains(row)] == []
    echoes = [row for row in rows if "icmp" in row["protocols"].split(":")[-2:] or "icmpv6" in row["protocols"]]
    assert sum(row["echo"] in {"8", "0"} for row in echoes) == 6
    assert sum(row["echo6"] in {"128", "129"} for row in echoes) == 6


def complains(row):
    """Whether tshark remarks on more than the course of a conversation.

    A duplicate SACK is part of it: on a busy machine a segment is sent again before its acknowledgement was read.
    """
    if row["remark"] == "D-SACK Sequence":
        return False
    return any(int(severity) >= WARNING for severity in row["severity"].split(",") if severity)


def tshark(path, encapsulation):
    fields = {
        "protocols": "frame.protocols",
        "severity": "_ws.expert.severity",
        "remark": "_ws.expert.message",
        "echo": "icmp.type",
        "echo6": "icmpv6.type",
    }
    argv = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    argv += ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    if encapsulation == "udp":
        argv += ["-d", "udp.port==8285,ip"]
    for field in fields.values():
        argv += ["-e", field]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [dict(zip(fields, line.split("|"), strict=True)) for line in result.stdout.splitlines()]
