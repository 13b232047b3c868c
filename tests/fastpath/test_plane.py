"""Plane: ports, adjacencies, routes and their errors; every change while packets can flow."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from ipaddress import IPv4Address, ip_address, ip_network

import numpy as np
import pytest

import fastpath
from fastpath.crew import Crew
from fastpath.plane import WORKERS_MAX, Plane
from fastpath.port.memory import MemoryPort, Rings
from fastpath.port.port import INPUTS_MAX
from fastpath.values import Deliver, Encapsulate, Reject, Spread, Tunnel
from tests.fastpath.network import MemoryNode, pair
from tests.fastpath.packets import ipv4, udp


def packet(a: MemoryNode, destination: str, sport: int = 40000, payload: bytes = b"x" * 20) -> bytes:
    to = IPv4Address(destination)
    return ipv4(udp(a.pod4, to, payload, sport=sport), source=a.pod4, destination=to)


def test_reject_answers_and_blackhole_does_not() -> None:
    a, _ = pair()
    for text, value in (
        ("10.9.1.0/24", Reject("unreachable")),
        ("10.9.2.0/24", Reject("prohibited")),
        ("10.9.3.0/24", Reject("blackhole")),
    ):
        a.plane.set_route(ip_network(text), a.plane.set_adjacency(value))
    a.send(packet(a, "10.9.1.1"), packet(a, "10.9.2.1"), packet(a, "10.9.3.1"))
    assert [answer[20:22] for answer in a.pod.drain()] == [b"\x03\x01", b"\x03\x0d"]
    assert a.drops == {"unreachable": 3}


def test_equal_cost_members_share_flows_and_keep_each_flow_together() -> None:
    a, _ = pair()
    remotes = [ip_address(f"198.51.100.{i}") for i in range(4)]
    members = tuple(
        a.plane.set_adjacency(Encapsulate(a.tunnel_port, 20 + i, r, 1450, 4789)) for i, r in enumerate(remotes)
    )
    a.plane.set_route(ip_network("10.50.0.0/16"), a.plane.set_adjacency(Spread(members)))
    seen: dict[int, set] = {}
    for _ in range(3):
        for sport in range(1000, 1200):
            (datagram,) = a.send(packet(a, "10.50.1.1", sport))
            seen.setdefault(sport, set()).add((datagram.remote, datagram.sender))
    assert all(len(paths) == 1 for paths in seen.values())
    used = [next(iter(paths))[0] for paths in seen.values()]
    assert all(20 <= used.count(r) <= 90 for r in remotes), {r: used.count(r) for r in remotes}
    assert len({next(iter(paths))[1] for paths in seen.values()}) == 8  # all source ports are used


def test_a_new_meaning_of_a_number_serves_every_route_to_it() -> None:
    a, _ = pair()
    moved = ip_address("192.0.2.200")
    a.plane.set_adjacency(Encapsulate(a.tunnel_port, 7, moved, 1450, 4789), a.to_peer)
    (datagram,) = a.send(packet(a, "10.0.2.2"))
    assert datagram.remote == moved


def test_routes_are_listed_looked_up_and_withdrawn() -> None:
    a, _ = pair()
    wide = ip_network("10.0.0.0/8")
    a.plane.set_route(wide, a.to_peer)
    assert a.plane.routes()[wide] == a.to_peer
    assert a.plane.lookup(ip_address("10.7.7.7")) == (wide, a.to_peer)
    assert a.plane.lookup(a.pod4) == (ip_network(f"{a.pod4}/32"), a.to_pod)
    a.plane.remove_route(wide)
    assert a.plane.lookup(ip_address("10.7.7.7")) is None
    with pytest.raises(KeyError, match="no route"):
        a.plane.remove_route(wide)


def test_many_routes_change_at_once_and_their_references_are_kept() -> None:
    a, _ = pair()
    addresses = np.array([0x0B000000 + (n << 8) for n in range(1000)], np.uint32)
    lengths = np.full(1000, 24, np.uint8)
    a.plane.set_routes(4, addresses, lengths, np.full(1000, a.to_peer, np.uint32))
    assert a.plane.lookup(ip_address("11.0.5.1")) == (ip_network("11.0.5.0/24"), a.to_peer)
    halves = np.array([(0xFD01 << 48 | n, 0) for n in range(10)], np.uint64)
    a.plane.set_routes(6, halves, np.full(10, 64, np.uint8), np.full(10, a.to_pod, np.uint32))
    assert a.plane.lookup(ip_address("fd01::3:0:0:0:1")) == (ip_network("fd01::3:0:0:0:0/64"), a.to_pod)
    with pytest.raises(ValueError, match="1002 routes"):
        a.plane.remove_adjacency(a.to_peer)
    half = np.where(np.arange(1000) % 2, a.to_pod, 0).astype(np.uint32)  # every other one withdrawn, the rest moved
    a.plane.set_routes(4, addresses, lengths, half)
    assert a.plane.lookup(ip_address("11.0.4.1")) is None
    assert a.plane.lookup(ip_address("11.0.5.1")) == (ip_network("11.0.5.0/24"), a.to_pod)
    with pytest.raises(ValueError, match="2 routes"):
        a.plane.remove_adjacency(a.to_peer)
    before = a.plane.routes()
    with pytest.raises(ValueError, match="no adjacency 999"):
        a.plane.set_routes(4, addresses, lengths, np.full(1000, 999, np.uint32))
    with pytest.raises(ValueError, match="route 3: bits set"):
        wrong = addresses[:4].copy()
        wrong[3] += 1
        a.plane.set_routes(4, wrong, lengths[:4], np.full(4, a.to_peer, np.uint32))
    with pytest.raises(ValueError, match="1 addresses, 2 lengths"):
        a.plane.set_routes(4, addresses[:1], lengths[:2], half[:1])
    single = np.zeros((1, 1), np.uint64), lengths[:1], half[1:2]
    with pytest.raises(ValueError, match="two halves, not 1"):
        a.plane.set_routes(6, *single)
    with pytest.raises(ValueError, match="two halves, not 1"):
        a.plane.change_routes((addresses[:1], lengths[:1], half[1:2]), single)
    assert a.plane.routes() == before
    a.plane.set_routes(4, addresses, lengths, np.zeros(1000, np.uint32))
    a.plane.set_routes(6, halves, np.full(10, 64, np.uint8), np.zeros(10, np.uint32))
    assert len(a.plane.routes()) == len(before) - 510


def test_routes_of_both_families_change_as_one() -> None:
    a, _ = pair()
    before = a.plane.routes()
    ipv4 = np.array([0x0B000000, 0x0B000100], np.uint32), np.full(2, 24, np.uint8), np.full(2, a.to_peer, np.uint32)
    ipv6 = np.array([(0xFD01 << 48, 0)], np.uint64), np.full(1, 64, np.uint8), np.full(1, a.to_pod, np.uint32)
    a.plane.change_routes(ipv4, ipv6)
    assert a.plane.lookup(ip_address("11.0.1.1")) == (ip_network("11.0.1.0/24"), a.to_peer)
    assert a.plane.lookup(ip_address("fd01::1")) == (ip_network("fd01::/64"), a.to_pod)
    known = a.plane.routes()
    unknown = np.full(1, 999, np.uint32)
    withdrawn = np.zeros(2, np.uint32)
    with pytest.raises(ValueError, match="no adjacency 999"):
        a.plane.change_routes((*ipv4[:2], withdrawn), (*ipv6[:2], unknown))
    assert a.plane.routes() == known
    a.plane.change_routes((*ipv4[:2], withdrawn), (*ipv6[:2], np.zeros(1, np.uint32)))
    assert a.plane.routes() == before


STARVED = """
import sys
import numpy as np
from fastpath.plane import Plane
from fastpath.values import Reject
from tests.fastpath.room import address_space, limited

few, second = int(sys.argv[1]), int(sys.argv[2])
plane = Plane()
old, new = (plane.set_adjacency(Reject("blackhole")) for _ in range(2))

def rows(version, n, adjacency):
    upper = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 24)
    addresses = (upper << 8).astype(np.uint32)
    if version == 6:
        addresses = np.stack([upper << 40, np.zeros(n, np.uint64)], axis=1).astype(np.uint64)
    return addresses, np.full(n, 24 if version == 4 else 64, np.uint8), np.full(n, adjacency, np.uint32)

first = 10 - second
plane.set_routes(first, *rows(first, 3000, old))
plane.set_routes(second, *rows(second, 3000, old))
before = plane.routes()
sample = [prefix.network_address for prefix in list(before)[::100]]
changed = {first: rows(first, few, new), second: rows(second, 40_000, new)}
used = address_space()
failed = 0
for room in (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64, 128):
    try:
        with limited(used + (room << 20)):
            plane.change_routes(changed[4], changed[6])
        break
    except MemoryError:
        failed += 1
    assert plane.routes() == before, room
    assert {plane.fib.find(address) for address in sample} == {old}, room
    plane.set_route(next(iter(before)), old)
assert failed > 3, f"hardly starved: {failed}"
after = plane.routes()
assert len(after) == max(few, 3000) + 40_000
assert sum(adjacency == new for adjacency in after.values()) == few + 40_000
assert all(plane.fib.find(prefix.network_address) == after[prefix] for prefix in list(after)[::50])
for version in (4, 6):
    plane.set_routes(version, *rows(version, 40_000, 0))
plane.remove_adjacency(old)
plane.remove_adjacency(new)
assert plane.routes() == {}
print("ok")
"""


@pytest.mark.skipif(fastpath.BUILD in {"asan", "tsan"}, reason="the sanitizers reserve terabytes of addresses")
@pytest.mark.parametrize("few", [3, 3000])
@pytest.mark.parametrize("second", [4, 6])
def test_a_family_without_memory_leaves_the_other_as_it_was(second: int, few: int) -> None:
    """Few routes of one family and many of the other, in a process of its own with ever more room."""
    done = subprocess.run([sys.executable, "-c", STARVED, str(few), str(second)], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


def test_what_is_in_use_is_not_removed() -> None:
    a, _ = pair()
    with pytest.raises(ValueError, match="2 routes"):
        a.plane.remove_adjacency(a.to_peer)
    with pytest.raises(ValueError, match="used by adjacency"):
        a.plane.detach(a.tunnel_port)
    spread = a.plane.set_adjacency(Spread((a.to_peer,)))
    for prefix in (ip_network("10.0.2.0/24"), ip_network("fd00:0:0:2::/64")):
        a.plane.remove_route(prefix)
    with pytest.raises(ValueError, match="member of Spread"):
        a.plane.remove_adjacency(a.to_peer)
    a.plane.remove_adjacency(spread)
    a.plane.remove_adjacency(a.to_peer)
    a.plane.detach(a.tunnel_port)
    assert a.send(packet(a, "10.0.2.2")) == []
    assert a.drops == {"no_route": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Deliver(9, 1500), "no port 9"),
        (Deliver(1, 1500), "is a tunnel"),
        (Encapsulate(0, 1, ip_address("192.0.2.9"), 1450), "is no tunnel"),
        (Encapsulate(1, 1, ip_address("2001:db8::1"), 1450), "not of the family"),
        (Encapsulate(1, 1, ip_address("192.0.2.9"), 1450, mac=b"abc"), "6 bytes"),
        (Encapsulate(1, 1, ip_address("192.0.2.9"), 12), "mtu"),
        (Encapsulate(1, 1, ip_address("192.0.2.9"), 1450, 70000), "remote_port"),
        (Spread(()), "1 to 16"),
        (Spread((1,) * 17), "1 to 16"),
        (Spread((999,)), "999"),
    ],
)
def test_impossible_adjacencies_are_refused(value: object, message: str) -> None:
    a, _ = pair()
    with pytest.raises(ValueError, match=message):
        a.plane.set_adjacency(value)  # type: ignore[arg-type]


def test_a_spread_does_not_nest() -> None:
    a, _ = pair()
    inner = a.plane.set_adjacency(Spread((a.to_peer,)))
    with pytest.raises(ValueError, match="no Deliver or Encapsulate"):
        a.plane.set_adjacency(Spread((inner,)))
    with pytest.raises(ValueError, match="cannot become one"):
        a.plane.set_adjacency(Spread((a.to_pod,)), a.to_peer)


def test_unknown_numbers_and_addresses() -> None:
    plane = Plane()
    with pytest.raises(KeyError, match="no port 3"):
        plane.detach(3)
    with pytest.raises(KeyError, match="no adjacency 5"):
        plane.remove_adjacency(5)
    with pytest.raises(ValueError, match="no adjacency 5"):
        plane.set_route(ip_network("10.0.0.0/8"), 5)
    with pytest.raises(ValueError, match="at most 16"):
        MemoryPort("pod", addresses=[ip_address(i) for i in range(17)])
    with pytest.raises(ValueError, match="workers"):
        Plane(workers=0)
    with pytest.raises(ValueError, match="hash_key"):
        Plane(hash_key=b"short")


def test_a_pod_uses_its_own_addresses_only_and_they_can_change() -> None:
    a, _ = pair()
    other = ip_address("10.0.1.9")
    spoofed = ipv4(udp(other, IPv4Address("10.0.2.2")), source=other, destination=IPv4Address("10.0.2.2"))
    assert a.send(spoofed) == []
    assert a.drops == {"guard_pod_source": 1}
    a.plane.update_port(a.pod_port, addresses=[a.pod4, other])
    assert len(a.send(spoofed)) == 1


def test_tunnel_packets_of_pods_do_not_leave_through_the_host() -> None:
    """A pod could otherwise forge its neighbours' tunnel packets under the node's own address."""
    a, _ = pair()
    host = MemoryPort("towpath0", role="host", mtu=1450)
    out = a.plane.set_adjacency(Deliver(a.plane.attach(host), 1450, transit=True))
    a.plane.set_route(ip_network("0.0.0.0/0"), out)
    peer = IPv4Address("192.0.2.2")
    body = udp(a.pod4, peer, b"x" * 60, dport=4789)
    a.send(
        ipv4(body, source=a.pod4, destination=peer),
        ipv4(body, 4, source=a.pod4, destination=peer),
        ipv4(body, 41, source=a.pod4, destination=peer),
        packet(a, "203.0.113.5"),
    )
    assert len(host.drain()) == 1
    assert a.drops == {"nested": 3}


def test_the_kernel_counts_hops_that_it_routes() -> None:
    a, _ = pair()
    host = MemoryPort("towpath0", role="host", mtu=1450)
    out = a.plane.set_adjacency(Deliver(a.plane.attach(host), 1450, transit=True))
    a.plane.set_route(ip_network("0.0.0.0/0"), out)
    away = packet(a, "203.0.113.5")
    a.send(away)
    assert host.drain() == [away]
    back = ipv4(udp(IPv4Address("203.0.113.5"), a.pod4), source=IPv4Address("203.0.113.5"), destination=a.pod4)
    host.inject(back)
    a.turn()
    assert a.pod.drain() == [back]
    lost = ipv4(
        udp(IPv4Address("203.0.113.5"), IPv4Address("8.8.8.8")),
        source=IPv4Address("203.0.113.5"),
        destination=IPv4Address("8.8.8.8"),
    )
    host.inject(lost)  # the kernel had no better route: sending it back would loop
    spoofed = ipv4(udp(a.pod4, IPv4Address("10.0.2.2")), source=a.pod4, destination=IPv4Address("10.0.2.2"))
    host.inject(spoofed)
    a.turn()
    assert a.drops == {"no_route": 1, "guard_own_source": 1}


def test_a_peer_does_not_use_this_node_as_its_way_out() -> None:
    a, b = pair()
    host = MemoryPort("towpath0", role="host", mtu=1450)
    number = b.plane.attach(host)
    b.plane.set_route(ip_network("0.0.0.0/0"), b.plane.set_adjacency(Deliver(number, 1450, transit=True)))
    b.plane.set_route(ip_network("10.0.2.1/32"), b.plane.set_adjacency(Deliver(number, 1450)))
    a.plane.set_route(ip_network("203.0.113.0/24"), a.to_peer)
    (out,) = a.send(packet(a, "203.0.113.5"))
    assert b.receive(out.payload) == []
    assert b.drops == {"guard_not_local": 1}
    (out,) = a.send(packet(a, "10.0.2.1"))
    b.receive(out.payload)
    assert len(host.drain()) == 1


def test_a_peers_own_address_is_not_encapsulated() -> None:
    a, _ = pair()
    a.plane.set_route(ip_network("192.0.2.0/24"), a.to_peer)
    assert a.send(packet(a, "192.0.2.2")) == []
    assert a.drops == {"encap_loop": 1}


def test_a_port_has_an_input_for_every_worker() -> None:
    assert INPUTS_MAX >= WORKERS_MAX


def test_memory_ports_need_a_single_worker() -> None:
    with pytest.raises(ValueError, match="one worker"):
        Plane(workers=2).attach(MemoryPort("pod"))


def test_numbers_are_used_again_only_when_all_fresh_ones_are_gone() -> None:
    plane = Plane()
    first = plane.set_adjacency(Reject())
    plane.remove_adjacency(first)
    assert plane.set_adjacency(Reject()) != first


def test_closing_under_way_and_collecting() -> None:
    for _ in range(3):
        a, b = pair()
        a.send(packet(a, "10.0.2.2"))
        del a, b
        gc.collect()


def test_what_fails_to_begin_closes_no_descriptor_of_others() -> None:
    """Descriptor 0 is whoever's it is."""
    with open("/dev/null") as file:
        stdin = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            for kind in (Crew, Rings):
                with pytest.raises(TypeError):
                    kind("nothing that it takes")
                gc.collect()
                os.fstat(0)
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)


def test_threads_forward_and_stop() -> None:
    a, _ = pair()
    a.plane.start()
    try:
        with pytest.raises(RuntimeError, match="workers run"):
            a.plane.turn()
        a.pod.inject([packet(a, "10.0.2.2")] * 100)

        deadline = time.monotonic() + 10
        while a.plane.counters().sent < 100 and time.monotonic() < deadline:
            time.sleep(0.001)
        for i in range(50):  # changes while it runs
            prefix = ip_network(f"10.77.{i}.0/24")
            a.plane.set_route(prefix, a.to_peer)
            a.plane.remove_route(prefix)
    finally:
        a.plane.stop()
    a.plane.stop()
    assert len(a.tunnel.drain()) == 100
    a.check()


def test_tunnel_needs_one() -> None:
    with pytest.raises(ValueError, match="is given its Tunnel"):
        MemoryPort("x", role="tunnel")
    with pytest.raises(ValueError, match="is given its Tunnel"):
        MemoryPort("x", tunnel=Tunnel("udp", ip_address("192.0.2.1"), 8285))
