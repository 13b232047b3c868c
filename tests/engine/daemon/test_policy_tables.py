"""The upstream truth tables on real pods: two daemons, TUN devices, handshakes, and replies that come back.

TCP and UDP are asked by sockets of the kernel, SCTP by packets written here,
since few kernels have it. A connection is allowed when what was sent over it
came back from the other pod.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from engine.desired.policy.model import SCTP, TCP, UDP
from engine.pod.namespace import run_inside
from engine.views import Status
from tests.engine.namespaces import path_of, wait_for
from tests.engine.nodes import started, two_nodes
from tests.engine.policy.tables import FOREST, HOUSES, cluster_tables, kubernetes_tables

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

QUIET = 0.15  # seconds without a reply after which the rest is taken for denied, once all that is expected has come
DEADLINE = 10.0
ALWAYS = {"Kubernetes": {1, 10, 17, 22, 35, 44, 46}, "cluster": {1, 9, 12}}  # tables that are not left to `make soak`
PORTS = (80, 81, 53, 5353, 8080, 9003, 9005)
LETTERS = [f"{namespace}/{name}" for namespace in "xyz" for name in "abc"]


# -- the pods ----------------------------------------------------------------------
@dataclass
class Pods:
    """All pods of one kind of table on two running nodes, each serving every port of the three protocols."""

    nodes: list
    folder: object
    homes: dict  # pod -> path of its namespace
    addresses: dict
    stop: threading.Event = field(default_factory=threading.Event)
    steps: int = 0

    def inside(self, pod, function):
        return run_inside(self.homes[pod], function, where=pod)

    def enforce(self, step):
        """Have both nodes judge by the step's policies and labels."""
        before = [node.ask("status", Status).policy_generation for node in self.nodes]
        self.steps += 1
        snapshot = step.snapshot
        namespaces = {name: {"labels": dict(n.labels)} for name, n in snapshot.namespaces.items()}
        namespaces["step"] = {"labels": {"number": str(self.steps)}}  # so that every step is another program
        pods = [
            {"ns": e.namespace, "name": e.name, "labels": dict(e.labels), "ips": list(map(str, e.addresses)),
             "hostNetwork": e.host_network,
             "ports": [{"name": p.name, "proto": {6: "TCP", 17: "UDP", 132: "SCTP"}[p.protocol], "port": p.port} for p in e.ports]}
            for e in snapshot.endpoints.values()
        ]  # fmt: skip
        nodes = {n.name: {"labels": dict(n.labels), "addresses": list(map(str, n.addresses))} for n in snapshot.nodes.values()}
        documents = [{"namespaces": namespaces, "pods": pods, "nodes": nodes}, *step.manifests]
        aside = self.folder / ".new"
        aside.write_text("\n---\n".join(map(json.dumps, documents)))
        aside.replace(self.folder / "all.yaml")
        for node, generation in zip(self.nodes, before, strict=True):
            wait_for(lambda node=node, generation=generation: node.ask("status", Status).policy_generation > generation)
            assert not node.ask("status", Status).problems


def serve(sockets, stop):
    """Give back what arrives, until told to stop."""
    with selectors.DefaultSelector() as selector:
        for kind, opened in sockets:
            opened.setblocking(False)
            selector.register(opened, selectors.EVENT_READ, kind)
        while not stop.is_set():
            for key, _ in selector.select(0.2):
                try:
                    give_back(selector, key.fileobj, key.data)
                except OSError:
                    pass


def give_back(selector, opened, kind):
    if kind == "listening":
        connection, _ = opened.accept()
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, "connected")
    elif kind == "connected":
        data = opened.recv(100)
        if data:
            opened.sendall(data)
        else:
            selector.unregister(opened)
            opened.close()
    elif kind == "datagrams":
        data, peer = opened.recvfrom(100)
        opened.sendto(data, peer)
    else:
        packet, (address, _) = opened.recvfrom(200)
        source, destination, chunk = sctp_of(packet)
        if chunk == 1:  # INIT
            opened.sendto(sctp(destination, source, 2), (address, 0))


def sctp(source, destination, chunk):
    """A packet of one chunk, INIT (1) or INIT ACK (2); tag 1 belongs to who opens."""
    return struct.pack("!HHIIBBHIIHHI", source, destination, chunk - 1, 0, chunk, 0, 20, chunk, 1 << 16, 1, 1, 1)


def sctp_of(packet):
    start = (packet[0] & 15) * 4
    source, destination = struct.unpack_from("!HH", packet, start)
    return source, destination, packet[start + 12]


def servers():
    found = []
    for port in PORTS:
        found.append(("listening", socket.create_server(("", port), backlog=100)))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("", port))
        found.append(("datagrams", datagrams))
    found.append(("raw", socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP)))
    return found


# -- what is asked -----------------------------------------------------------------
def asked(pods, probes):
    """Which of the probes brought an answer: waits for all that should, and a little for those that should not."""
    answered = [False] * len(probes)
    wanted = {number for number, probe in enumerate(probes) if probe.allowed}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for source in {probe.source for probe in probes}:
            mine = [(number, probe) for number, probe in enumerate(probes) if probe.source == source]
            for number, opened in pods.inside(source, lambda mine=mine: [(n, opening(pods, n, p)) for n, p in mine]):
                stack.callback(opened.close)
                selector.register(opened, selectors.EVENT_READ | selectors.EVENT_WRITE, number)
        end = time.monotonic() + DEADLINE
        last = time.monotonic()
        while time.monotonic() < end and (not all(answered[n] for n in wanted) or time.monotonic() < last + QUIET):
            for key, events in selector.select(0.02):
                if advance(selector, key, events, probes[key.data]):
                    answered[key.data] = True
                    last = time.monotonic()
    return answered


def opening(pods, number, probe):
    address = pods.addresses[probe.destination]
    if probe.protocol == TCP:
        opened = socket.socket()
        opened.setblocking(False)
        opened.connect_ex((address, probe.port))
    elif probe.protocol == UDP:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.connect((address, probe.port))
        opened.send(b"hello")
    else:
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP)
        opened.setblocking(False)
        opened.connect((address, 0))
        opened.send(sctp(20_000 + number, probe.port, 1))
    return opened


def advance(selector, key, events, probe):
    """One event of a socket; whether the answer has come."""
    try:
        if events & selectors.EVENT_READ:
            data = key.fileobj.recv(200)
            if probe.protocol == SCTP:
                return sctp_of(data) == (probe.port, 20_000 + key.data, 2)
            return data == b"hello"
        if probe.protocol == TCP:
            key.fileobj.send(b"hello")
        selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
    except OSError:
        selector.unregister(key.fileobj)
    return False


# -- the clusters ------------------------------------------------------------------
def configuration(node, other, prefixes, theirs, policies, pods):
    """`pods`: name, namespace, address."""
    quoted = lambda values: ", ".join(f'"{value}"' for value in values)  # noqa: E731
    text = [
        f'[node]\nname = "{node.name}"\nunderlay = ["192.0.2.{node.number + 1}/24"]\nprefixes = [{quoted(prefixes)}]',
        f'gateway4 = "{prefixes[0][:-4]}254"\n[control]\nsocket = "{node.socket}"',
        f'[state]\ndirectory = "{node.folder / "state"}"\n[policy]\nfiles = ["{policies}"]',
        f'[[peers]]\nname = "{other.name}"\nunderlay = ["192.0.2.{other.number + 1}"]\nprefixes = [{quoted(theirs)}]',
        *(f'[[pods]]\nname = "{name}"\nnamespace = "{path}"\naddresses = ["{address}"]' for name, path, address in pods),
    ]
    node.file.write_text("\n".join(text) + "\n")


def running(stack, folder, pods, number_of):
    """`pods`: name -> address 10.0.<n>.<m>; odd n live on the first node."""
    policies = folder / "policies"
    policies.mkdir()
    nodes = stack.enter_context(two_nodes(folder, pods=(len(pods) + 2) // 2 + 2))
    homes = {}
    prefixes = [[f"10.0.{n}.0/24" for n in sorted(set(number_of.values())) if n % 2 != side] for side in (0, 1)]
    for side, node in enumerate(nodes):
        local = [name for name in pods if number_of[name] % 2 != side]
        homes |= {name: path_of(node.pod_namespaces[i]) for i, name in enumerate(local)}
        listed = [(name, homes[name], pods[name]) for name in local]
        configuration(node, nodes[1 - side], prefixes[side], prefixes[1 - side], policies, listed)
    started(nodes)
    found = Pods(nodes, policies, homes, pods)
    sockets = [opened for name in pods for opened in found.inside(name, servers)]
    thread = threading.Thread(target=serve, args=(sockets, found.stop), daemon=True)
    thread.start()
    stack.callback(lambda: [opened.close() for _, opened in sockets])
    stack.callback(thread.join)
    stack.callback(found.stop.set)
    return found


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    numbers = {"x": 1, "y": 2, "z": 3, "a": 1, "b": 2, "c": 3}
    with ExitStack() as stack:
        pods = {key: f"10.0.{numbers[key[0]]}.{numbers[key[2]]}" for key in LETTERS}
        yield running(stack, tmp_path_factory.mktemp("letters"), pods, {key: numbers[key[0]] for key in pods})


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    with ExitStack() as stack:
        pods = {f"{house}/{i}": f"10.0.{n}.{i + 1}" for house, n in HOUSES.items() for i in (0, 1)}
        yield running(
            stack, tmp_path_factory.mktemp("houses"), pods, {key: HOUSES[key.split("/")[0]] for key in pods}
        )


def tables(found, always):
    return [
        pytest.param(table, id=table.name, marks=() if int(table.name.split(":")[0]) in always else pytest.mark.slow)
        for table in found
    ]


def judge(pods, table):
    for step in table.steps:
        pods.enforce(step)
        # Pods in their node's network are the node's address; here they would be hosts of neither node.
        probes = [p for p in step.probes if not {p.source, p.destination} & {f"{FOREST}/0", f"{FOREST}/1"}]
        answered = asked(pods, probes)
        wrong = [
            f"{p.source} -> {p.destination} {p.protocol}/{p.port}: expected {p.allowed}, got {found}"
            for p, found in zip(probes, answered, strict=True)
            if p.allowed != found
        ]
        assert not wrong, "\n".join([step.name, *wrong])


@pytest.mark.parametrize("table", tables(kubernetes_tables(), ALWAYS["Kubernetes"]))
def test_kubernetes_table_on_real_pods(table, letters):
    judge(letters, table)


@pytest.mark.parametrize("table", tables(cluster_tables(), ALWAYS["cluster"]))
def test_cluster_table_on_real_pods(table, houses):
    judge(houses, table)
