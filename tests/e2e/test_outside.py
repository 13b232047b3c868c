"""Pods, their host and the world: masquerade, host ports, services that the host's kernel handles, link-local ones."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from engine.lab import Lab, wait_until
from engine.lab.cluster import Cluster, Plan
from engine.lab.traffic import Responder, TrafficError, ping, tcp_echo, udp_echo
from tests.e2e.conftest import told_apart

pytestmark = [pytest.mark.needs("nft", "ss")]

SLOW = pytest.mark.slow
OUTSIDE = {4: "192.0.2.200", 6: "2001:db8::200"}
ECHO = 7
DIAMETER, SCTP = 3869, 132  # where the pod has it, and the protocol's number
INIT, INIT_ACK = (struct.pack("!BBHIIHHI", kind, 0, 20, 7 * kind, 65536, 1, 1, 1) for kind in (1, 2))
SERVICES = {(4, "far"): "10.96.0.10", (4, "near"): "10.96.0.11", (6, "far"): "fd00:96::10", (6, "near"): "fd00:96::11"}


class World:
    """A cluster of two nodes with two pods each, and a host beside it that knows nothing of pods."""

    def __init__(self, lab, cluster):
        self.lab = lab
        self.cluster = cluster
        self.node, self.other = cluster.nodes
        self.a, self.b = self.node.pods
        self.far = self.other.pods[0]
        self.outside = lab.host("outside")
        cluster.switch.join(self.outside, addresses=[f"{OUTSIDE[4]}/24", f"{OUTSIDE[6]}/64"])

    def nft(self, node, *arguments, text=""):
        path = node.daemon.directory / "rules.nft"
        path.write_text(text)
        return node.host.run(["nft", *(arguments or ("-f", str(path)))])

    def tables(self, node):
        return self.nft(node, "list", "tables").stdout


@contextlib.contextmanager
def world(encapsulation="vxlan"):
    with Lab("test") as lab:
        cluster = Cluster(lab, Plan(encapsulation=encapsulation, nodes=2, pods=2))
        with told_apart([node.daemon for node in cluster.nodes]):
            add_ports(cluster.nodes[0])
            made = World(lab, cluster)
            for node in cluster.nodes:  # as a real host, and so that its kernel looks for a way to a service at all
                node.host.route("0.0.0.0/0", via=OUTSIDE[4]).route("::/0", via=OUTSIDE[6])
            cluster.start()
            for host in (*(pod.host for pod in cluster.pods), made.outside, *(node.host for node in cluster.nodes)):
                Responder(host)
            yield made


def add_ports(node):
    """Ports of the host that lead to the node's first pod; inline tables, which the lab's files do not have."""
    text = node.daemon.config.read_text()
    ports = (
        f"ports = [{{ host = 8080, pod = {ECHO} }}, {{ host = 5353, pod = {ECHO}, protocol = 'udp' }}, "
        f"{{ host = 9090, pod = {ECHO}, address = '{node.underlay[4]}' }}, "
        f"{{ host = 7070, pod = {ECHO}, address = '127.0.0.1' }}, "
        f"{{ host = 7070, pod = {ECHO}, protocol = 'udp', address = '127.0.0.1' }}, "
        f"{{ host = 3868, pod = {DIAMETER}, protocol = 'sctp' }}]\n"
    )
    head, mark, rest = text.partition(f'name = "{node.pods[0].name}"\n')
    node.daemon.config.write_text(head + mark + ports + rest)


@pytest.fixture(scope="module")
def here():
    with world() as made:
        yield made


def seen_by(target, source, address, port=9):
    """The address that a server on `target` sees when `source` connects to `address`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with target.socket(family, socket.SOCK_STREAM) as server, source.socket(family, socket.SOCK_STREAM) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        server.listen()
        server.settimeout(5)
        client.settimeout(5)
        client.connect((address, port))
        connection, peer = server.accept()
        connection.close()
        return peer[0]


@pytest.mark.parametrize("family", [4, 6])
def test_pods_speak_to_the_outside_by_the_hosts_address_and_inside_by_their_own(here, family):
    assert seen_by(here.outside, here.a.host, OUTSIDE[family]) == here.node.underlay[family]
    assert seen_by(here.far.host, here.a.host, here.far.addresses[family]) == here.a.addresses[family]
    assert seen_by(here.b.host, here.a.host, here.b.addresses[family]) == here.a.addresses[family]
    tcp_echo(here.a.host, OUTSIDE[family])
    udp_echo(here.a.host, OUTSIDE[family])
    assert ping(here.a.host, OUTSIDE[family], count=2).ok


@pytest.mark.parametrize("family", [4, 6])
def test_pods_and_their_node(here, family):
    gateway = {4: "10.244.1.1", 6: "fd00:10:244:1::1"}[family]
    assert seen_by(here.node.host, here.a.host, gateway) == here.a.addresses[family]
    tcp_echo(here.a.host, here.node.underlay[family])
    tcp_echo(here.node.host, here.a.addresses[family])
    tcp_echo(here.node.host, here.far.addresses[family])


@pytest.mark.parametrize("family", [4, 6])
def test_host_ports(here, family):
    """From outside, from the host itself, from the same pod, from one beside it, and from another node."""
    address = here.node.underlay[family]
    for source in (here.outside, here.node.host, here.a.host, here.b.host, here.far.host, here.other.host):
        tcp_echo(source, address, port=8080)
        udp_echo(source, address, port=5353)
    assert peer_of(here.outside, here.a.host, address) == OUTSIDE[family]
    if family == 4:
        tcp_echo(here.node.host, "127.0.0.1", port=8080)
        tcp_echo(here.outside, address, port=9090)
    else:
        with pytest.raises((TrafficError, OSError)):
            tcp_echo(here.outside, address, port=9090)
    with pytest.raises((TrafficError, OSError)):
        tcp_echo(here.outside, here.other.underlay[family], port=8080)


def test_a_host_port_of_the_loopback_alone(here):
    tcp_echo(here.node.host, "127.0.0.1", port=7070)
    udp_echo(here.node.host, "127.0.0.1", port=7070)
    address = here.node.underlay[4]
    for source in (here.outside, here.node.host, here.a.host):
        with pytest.raises((TrafficError, OSError)):
            tcp_echo(source, address, port=7070)
    for pod in (here.a, here.b):
        with pytest.raises((TrafficError, OSError)):
            tcp_echo(pod.host, "127.0.0.1", port=7070)


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_port_of_sctp(here, family):
    """An INIT finds the pod's port, and its answer comes from the host's: both with a right checksum."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with here.outside.socket(kind, socket.SOCK_RAW, SCTP) as client, here.a.host.socket(kind, socket.SOCK_RAW, SCTP) as server:
        client.settimeout(5)
        server.settimeout(5)
        client.sendto(sctp(40000, 3868, INIT), (here.node.underlay[family], 0))
        packet, peer = server.recvfrom(2048)
        assert peer[0] == OUTSIDE[family]
        assert packet[-len(sctp(40000, DIAMETER, INIT)) :] == sctp(40000, DIAMETER, INIT)
        server.sendto(sctp(DIAMETER, 40000, INIT_ACK, tag=7), (OUTSIDE[family], 0))
        packet, peer = client.recvfrom(2048)
        assert peer[0] == here.node.underlay[family]
        expected = sctp(3868, 40000, INIT_ACK, tag=7)
        assert packet[-len(expected) :] == expected


def sctp(source, target, chunk, tag=0):
    head = struct.pack("!HHI", source, target, tag)
    return head + crc32c(head + bytes(4) + chunk).to_bytes(4, "little") + chunk


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def reload(daemon, text):
    daemon.config.write_text(text)
    daemon.reload()


def start_again(daemon, text):
    daemon.process.kill()
    daemon.config.write_text(text)
    daemon.start()


@pytest.mark.parametrize(("family", "put_in_force"), [(4, reload), (6, reload), (4, start_again)])
def test_who_goes_on_sending_reaches_the_pod_that_has_the_port_now(family, put_in_force):
    """One socket, so one conversation to the kernel: before there is a pod, with one, and with another."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with world() as here, here.outside.socket(kind, socket.SOCK_DGRAM) as client:
        lines = here.node.daemon.config.read_text().splitlines(keepends=True)
        without = "".join(line for line in lines if not line.startswith("ports = ["))
        client.settimeout(0.1)
        client.connect((here.node.underlay[family], 6060))
        told_by(client)
        for pod in (here.a, here.b):
            mark = f'name = "{pod.name}"\n'
            put_in_force(here.node.daemon, without.replace(mark, f"{mark}{PORT_6060}"))
            with pod.host.socket(kind, socket.SOCK_DGRAM) as server:
                server.bind((pod.addresses[family], 6161))
                answering = threading.Thread(target=answer_as, args=(server, pod.name))
                answering.start()
                wait_until(lambda pod=pod: told_by(client) == pod.name, f"{pod.name} to be reached", seconds=10)
                answering.join()


PORT_6060 = "ports = [{ host = 6060, pod = 6161, protocol = 'udp' }]\n"


def told_by(client):
    """Who answers; None when nobody does."""
    with contextlib.suppress(OSError):
        client.send(b"who is there?")
        return client.recv(100).decode()
    return None


def answer_as(server, name):
    server.settimeout(20)
    with contextlib.suppress(OSError):
        _, peer = server.recvfrom(100)
        server.sendto(name.encode(), peer)


def peer_of(source, pod, address):
    """Connect and look at the pod's connections: its echo server keeps no list, the kernel does."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with source.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((address, 8080))
        client.sendall(b"x")
        client.recv(1)
        mine = client.getsockname()
        lines = pod.run(["ss", "-Htn", "state", "established"]).stdout
    peers = [line.split()[-1].rpartition(":") for line in lines.splitlines()]
    return next(host.strip("[]").removeprefix("::ffff:") for host, _, port in peers if int(port) == mine[1])


def services(here):
    """What kube-proxy would write, in nftables: the address of a service becomes that of a pod."""
    rules = []
    for (family, where), address in SERVICES.items():
        pod = here.far if where == "far" else here.b
        ip = "ip" if family == 4 else "ip6"
        target = pod.addresses[family] if family == 4 else f"[{pod.addresses[family]}]"
        rules.append(f"{ip} daddr {address} meta l4proto {{ tcp, udp }} th dport 80 dnat {ip} to {target}:{ECHO}")
    body = "\n".join(rules)
    chains = "\n".join(
        f"chain {hook} {{ type nat hook {hook} priority -100; policy accept; {body}\n }}" for hook in ("prerouting", "output")
    )
    return f"table inet kube {{\n{chains}\n}}\n"


@pytest.mark.parametrize(("family", "where"), list(SERVICES))
def test_services_of_the_host(here, family, where):
    """The pod behind the service sees who asks, and the answer comes from the service."""
    assert here.nft(here.node, text="table inet kube { }\ndelete table inet kube\n" + services(here)).returncode == 0
    address = SERVICES[family, where]
    for source in (here.a.host, here.node.host):
        tcp_echo(source, address, port=80)
        udp_echo(source, address, port=80)


def test_a_service_survives_a_takeover(here):
    here.nft(here.node, text="table inet kube { }\ndelete table inet kube\n" + services(here))
    family = socket.AF_INET
    for where in ("far", "near"):
        with here.a.host.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect((SERVICES[4, where], 80))
            for number in range(3):
                client.sendall(bytes([number]) * 1000)
                got = b""
                while len(got) < 1000:
                    got += client.recv(4096)
                assert got == bytes([number]) * 1000
                if number == 0:
                    here.node.daemon.take_over()


def test_link_local_services(here):
    for address in ("169.254.20.10", "169.254.169.254"):
        here.node.host.interface("lo").address(f"{address}/32")
        tcp_echo(here.a.host, address)
    assert here.node.daemon.drops().get("martian", 0) == 0


def test_nobody_outside_speaks_as_a_pod(here):
    """A stranger with a pod's address reaches no other pod, though the node forwards for him."""
    here.outside.route("10.244.1.0/24", via=here.node.underlay[4])
    here.node.host.sysctl("net/ipv4/conf/all/rp_filter", 0)
    here.node.host.sysctl("net/ipv4/conf/eth0/rp_filter", 0)
    victim = here.b.addresses[4]
    with here.b.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind((victim, 99))
        sink.settimeout(2)
        here.outside.interface("lo").address(f"{here.a.addresses[4]}/32")
        for source, text in ((here.a.addresses[4], b"spoofed"), (OUTSIDE[4], b"honest")):
            with here.outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((source, 0))
                sender.sendto(text, (victim, 99))
        assert sink.recv(100) == b"honest"
        sink.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sink.recv(100)


def test_the_table_is_repaired(here):
    node = here.node
    before = here.nft(node, "-s", "list", "table", "inet", "towpath").stdout
    for change in ("delete table inet towpath", "flush chain inet towpath postrouting", "flush ruleset"):
        assert here.nft(node, text=change + "\n").returncode == 0
        wait_until(
            lambda: here.nft(node, "-s", "list", "table", "inet", "towpath").stdout == before, f"repair after {change}", seconds=10
        )
    tcp_echo(here.outside, node.underlay[4], port=8080)
    tcp_echo(here.a.host, OUTSIDE[4])
    assert node.daemon.ask("status")["problems"] == []


def test_table_and_daemon():
    """It outlives a kill, is replaced at the next start, and goes with a clean stop."""
    with world() as here:
        node = here.node
        assert "table inet towpath" in here.tables(node)
        node.daemon.process.kill()
        assert "table inet towpath" in here.tables(node)
        node.daemon.start()
        tcp_echo(here.outside, node.underlay[4], port=8080)
        text = node.daemon.config.read_text()
        node.daemon.config.write_text(text + '[host]\nmasquerade = "off"\n')
        node.daemon.reload()
        with pytest.raises((TrafficError, OSError)):
            tcp_echo(here.a.host, OUTSIDE[4], seconds=1)
        assert node.daemon.stop() == 0
        assert "towpath" not in here.tables(node)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_shows_no_address_of_a_pod(here, end):
    """A pod sends all the while; a connection that once left by its own address would go on so."""
    daemon = here.node.daemon
    with here.outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink, pouring(here.a.host, (OUTSIDE[4], 9)):
        sink.bind((OUTSIDE[4], 9))
        sink.settimeout(10)
        sources = {sink.recvfrom(100)[1][0]}
        daemon.stop() if end == "stop" else daemon.process.kill()
        daemon.start()
        sink.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sources.add(sink.recvfrom(100)[1][0])
        sink.settimeout(10)
        sources.add(sink.recvfrom(100)[1][0])
    assert sources == {here.node.underlay[4]}


@contextlib.contextmanager
def pouring(host, address):
    """A thread that sends a datagram every millisecond, or tries to."""
    over = threading.Event()

    def pour(sender):
        while not over.wait(0.001):
            with contextlib.suppress(OSError):  # nobody reads the pod's device just now
                sender.sendto(b"x", address)

    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        thread = threading.Thread(target=pour, args=(sender,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("encapsulation", ["none", "ipip", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_the_other_encapsulations(encapsulation, family):
    with world(encapsulation) as here:
        test_pods_speak_to_the_outside_by_the_hosts_address_and_inside_by_their_own(here, family)
        test_host_ports(here, family)
        test_services_of_the_host(here, family, "far")
        test_services_of_the_host(here, family, "near")
