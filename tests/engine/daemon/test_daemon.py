"""Daemons for real: two nodes, their pods, and everything that can happen to them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from engine import daemon
from engine.apply.host_rules import stands
from engine.control.server import Server
from engine.lockfile import LockFile, is_held
from engine.node import Node
from engine.pod.namespace import run_inside
from engine.views import Drops
from tests.engine.namespaces import device, ip, path_of, routes, wait_for
from tests.engine.nodes import Talk, started, towpath, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "ping")]


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path) as made:
        yield made


def index_of(node, pod=0):
    return device(node.pod_namespaces[pod])["ifindex"]


def has_nothing(node):
    """Nothing of ours is in the host's or the pods' namespaces."""
    assert routes(node.host, "proto", "116") == []
    assert device(node.host, "towpath0") is None
    assert [device(name) for name in node.pod_namespaces] == [None] * len(node.pod_namespaces)
    assert not node.socket.exists()
    return True


def test_pods_of_two_nodes_reach_each_other(nodes):
    a, b = started(nodes)
    assert a.ping(0, b.address(0))
    assert b.ping(0, a.address(0, 6))
    assert a.ping(0, b.address(0), "-M", "do", "-s", "1422"), "the full MTU of 1450 bytes"
    with Talk(a, b) as four, Talk(b, a, 6) as six:
        assert four.works(5_000_000)
        assert six.works(5_000_000)
    assert a.ping(0, "10.1.0.1"), "the gateway, which is the host"
    assert run_ping(a.host, b.address(0)), "from the host to a far pod"


def run_ping(namespace, address):
    command = ["ip", "netns", "exec", namespace, "ping", "-c1", "-W5", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_reload_touches_only_what_differs(nodes):
    a, b = started(nodes)
    assert a.reload().changed == 0
    before = index_of(a)
    with Talk(a, b) as talk:
        assert talk.works()
        a.write(pods=2)
        wait_for(lambda: "a1" in a.pods() and a.pods()["a1"].state == "attached")
        assert index_of(a) == before
        assert talk.works()
        assert b.ping(0, a.address(1))
        a.write(pods=1)
        wait_for(lambda: "a1" not in a.pods())
        assert device(a.pod_namespaces[1]) is None
        assert talk.works()
    dropped = {drop.reason for drop in a.ask("drops", Drops).drops}
    assert dropped <= {"multicast"}


def test_a_signal_reloads_too(nodes):
    a = nodes[0].start()
    applied = a.status().applied
    a.send(signal.SIGHUP)
    wait_for(lambda: a.status().applied == applied + 1)


def test_a_file_with_mistakes_changes_nothing_and_is_shown(nodes):
    a = nodes[0].start()
    good = a.file.read_text()
    a.file.write_text(good + "\nnonsense = 1\n")
    problem = wait_for(lambda: a.status().problems)[0]
    assert "nonsense" in problem.what
    assert str(a.file) in problem.what
    done = towpath("reload", "--socket", a.socket)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert a.ping(0, "10.1.0.1")
    a.file.write_text(good)
    wait_for(lambda: not a.status().problems)


def test_settings_that_need_a_restart_say_so(nodes):
    a = nodes[0].start()
    a.extra = "[workers]\ncount = 2"
    a.write()
    problem = wait_for(lambda: a.status().problems)[0]
    assert "[workers]" in problem.what
    assert "restart" in problem.what


def test_a_killed_daemon_is_succeeded_and_connections_go_on(nodes):
    a, b = started(nodes)
    before = index_of(a)
    with Talk(a, b) as talk:
        assert talk.works()
        for _ in range(3):
            a.stop(signal.SIGKILL)
            assert index_of(a) == before, "the pod keeps its device"
            a.start()
            assert index_of(a) == before
            assert talk.works()


@pytest.mark.needs("nft")
def test_what_is_no_longer_wanted_after_a_kill_is_swept(nodes):
    a = nodes[0]
    a.write(pods=2)
    a.start()
    a.stop(signal.SIGKILL)
    assert device(a.host, "towpath0") is not None
    assert run_inside(path_of(a.host), lambda: stands("towpath0"), where="test")
    ip("route", "add", "10.77.0.0/16", "dev", "under", "proto", "116", namespace=a.host)
    a.extra = "[host]\nenabled = false"
    a.write(pods=1)
    a.start()
    assert device(a.pod_namespaces[1]) is None
    assert device(a.host, "towpath0") is None
    assert not run_inside(path_of(a.host), lambda: stands("towpath0"), where="test")
    assert routes(a.host, "proto", "116") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_leaves_the_pods_devices_and_nothing_else(nodes, number):
    a = nodes[0].start()
    assert ("10.1.0.0/24", "towpath0") in routes(a.host, "proto", "116")
    before = index_of(a)
    assert a.stop(number) == 0
    assert routes(a.host, "proto", "116") == []
    assert device(a.host, "towpath0") is None
    assert not a.socket.exists()
    assert index_of(a) == before
    assert "Traceback" not in a.log.read_text()


def test_bare_mode_programs_the_kernel_and_takes_it_back(tmp_path):
    network = '[network]\nmode = "routed"\nencapsulation = "none"'
    with two_nodes(tmp_path, network=network, dual=True) as nodes:
        a, b = started(nodes)
        assert "does not forward IPv4 (set net.ipv4.ip_forward=1)" in a.status().problems[0].what
        for node in nodes:
            run_inside(path_of(node.host), open_forwarding, where="test")
        wait_for(lambda: not a.status().problems, 30)
        assert ("10.2.0.0/24", "192.0.2.2") in routes(a.host, "proto", "116")
        assert a.ping(0, b.address(0), "-M", "do", "-s", "1472")
        for version in (4, 6):
            with Talk(a, b, version) as talk:
                assert talk.works(1_000_000)
        ip("route", "del", "10.2.0.0/24", namespace=a.host)
        wait_for(lambda: ("10.2.0.0/24", "192.0.2.2") in routes(a.host, "proto", "116"), 30)
        assert a.stop() == 0
        assert routes(a.host, "proto", "116") == []


def open_forwarding():
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


@pytest.mark.parametrize("encapsulation", ["udp", "ipip"])
def test_the_other_encapsulations(tmp_path, encapsulation):
    with two_nodes(tmp_path, network=f'[network]\nencapsulation = "{encapsulation}"') as nodes:
        a, b = started(nodes)
        assert a.ping(0, b.address(0))
        assert a.ping(0, b.address(0, 6))


def test_changing_the_encapsulation_live(nodes):
    """The new tunnel wants the port of the old one; pods keep their devices and connections."""
    a, b = started(nodes)
    before = index_of(a)
    with Talk(a, b) as talk:
        for encapsulation, port in (("udp", "port = 4789"), ("ipip", ""), ("vxlan", "")):
            for node in nodes:
                node.write(network=f'[network]\nencapsulation = "{encapsulation}"\n{port}')
            for node in nodes:
                wait_for(lambda node=node, wanted=encapsulation: node.status().encapsulation == wanted)
                assert node.status().problems == []
            assert talk.works()
    assert index_of(a) == before


def test_a_smaller_path_is_learned_and_taken_up(nodes):
    a, _ = started(nodes)
    assert device(a.pod_namespaces[0])["mtu"] == 1450
    ip("link", "set", "under", "mtu", "1400", namespace=a.host)
    wait_for(lambda: device(a.pod_namespaces[0])["mtu"] == 1350, 30)
    ip("link", "set", "under", "mtu", "1500", namespace=a.host)
    wait_for(lambda: device(a.pod_namespaces[0])["mtu"] == 1450, 30)


def test_a_deleted_device_comes_back(nodes):
    a, b = started(nodes)
    ip("link", "del", "eth0", namespace=a.pod_namespaces[0])
    wait_for(lambda: device(a.pod_namespaces[0]), 30)
    wait_for(lambda: a.ping(0, b.address(0)), 30)
    ip("link", "del", "towpath0", namespace=a.host)
    wait_for(lambda: ("10.1.0.0/24", "towpath0") in routes(a.host, "proto", "116"), 30)


# -- starts that fail ---------------------------------------------------------------
def failed(node, code, *words, flags=(), **options):
    """The start failed with this code and one sentence that holds all words; nothing was left behind."""
    done = towpath("run", "-c", node.file, *flags, inside=options.pop("inside", node.host), **options)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("towpath: ")
    for word in words:
        assert word in lines[0]
    assert re.search(r"\(.+\)$", lines[0]), "a remedy at the end"
    assert "Traceback" not in done.stderr
    return lines[0]


def test_a_missing_namespace(nodes):
    a = nodes[0]
    a.write(pods=2)
    a.file.write_text(a.file.read_text().replace(a.pod_namespaces[1], f"{a.host}x"))
    failed(a, 3, "pod a1", f"{a.host}x does not exist")
    assert has_nothing(a)


def test_a_port_in_use(nodes):
    a = nodes[0]

    def occupy():
        occupied = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        occupied.bind(("192.0.2.1", 4789))
        return occupied

    with run_inside(path_of(a.host), occupy, where="test"):
        failed(a, 3, "vxlan/192.0.2.1:4789", "in use")
        assert has_nothing(a)


def test_a_device_of_somebody_else(nodes):
    a = nodes[0]
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", namespace=a.pod_namespaces[0])
    failed(a, 3, "pod a0", "eth0", "not Towpath's")
    assert device(a.pod_namespaces[0])["linkinfo"]["info_kind"] == "veth"


@pytest.mark.needs("setpriv")
def test_no_permission(nodes):
    a = nodes[0]
    capabilities = ["setpriv", "--bounding-set=-net_admin,-net_raw,-sys_admin", "--inh-caps=-all"]
    enter = ["ip", "netns", "exec", a.host]
    failed(a, 3, "not permitted", prefix=[*enter, *capabilities], inside=None)
    assert has_nothing(a)


@pytest.mark.needs("unshare", "mount")
def test_no_tun_driver(nodes, tmp_path):
    a = nodes[0]
    empty = tmp_path / "dev-net"
    empty.mkdir()
    hide = ["unshare", "--mount", "sh", "-c", f'mount --bind {empty} /dev/net && exec "$@"', "sh"]
    failed(a, 3, "/dev/net/tun", prefix=hide)
    assert has_nothing(a)


def test_an_underlay_address_that_is_not_ours(nodes):
    a = nodes[0]
    a.file.write_text(a.file.read_text().replace("192.0.2.1/24", "192.0.2.77/24"))
    failed(a, 3, "192.0.2.77", "not on this host")
    assert has_nothing(a)


def test_a_second_daemon_on_the_same_state(nodes):
    a = nodes[0].start()
    failed(a, 3, f"another daemon (process {a.status().pid})")
    failed(a, 3, f"process {a.status().pid}", flags=("--set", f"control.socket={a.folder}/other.sock"))
    failed(a, 3, "control.sock", "another program serves", flags=("--set", f"state.directory={a.folder}/other"))
    assert a.ping(0, "10.1.0.1")


def test_of_two_that_start_at_once_the_later_touches_no_socket_of_the_other(nodes):
    """Which may be bound, and not listen yet: it looks as one that a killed daemon left."""
    a = nodes[0]
    lock = LockFile(a.folder / "state")
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(a.socket))
            failed(a, 3, f"another daemon (process {os.getpid()})")
            bound.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(a.socket))
    finally:
        lock.release()


def test_one_that_stops_holds_the_lock_until_its_sockets_are_gone(tmp_path, monkeypatch):
    """Whoever starts meanwhile would come upon them."""
    held = []

    class Seen(Server):
        def close(self):
            held.append(is_held(tmp_path / "state"))
            super().close()

    network = 'name = "a"\nunderlay = ["192.0.2.1"]\nprefixes = ["10.1.0.0/24"]\n'
    (tmp_path / "towpath.toml").write_text(f"[node]\n{network}")
    monkeypatch.setattr(daemon, "Server", Seen)
    monkeypatch.setattr(Node, "start", lambda node: node.loop.call_soon(node.loop.stop))
    monkeypatch.setattr(daemon.Daemon, "_listen_to_runtimes", lambda *_: None)
    monkeypatch.setattr(daemon, "set_up_logs", lambda *_: None)
    monkeypatch.setattr(daemon.Daemon, "_summary", lambda _: "")
    flags = {"state.directory": str(tmp_path / "state"), "control.socket": str(tmp_path / "socket")}
    daemon.Daemon(str(tmp_path / "towpath.toml"), flags, keep_going=False).run()
    assert held == [True]
    assert not is_held(tmp_path / "state")


def test_a_file_that_is_missing_or_wrong(nodes):
    a = nodes[0]
    text = a.file.read_text()
    a.file.write_text(text.replace("prefixes", "prefixs", 1))
    failed(a, 2, "prefixs")
    a.file.unlink()
    failed(a, 2, "no such file")
    failed(a, 2, "has no value", flags=("--set", "network.mtu"))
    assert has_nothing(a)


def test_keep_going_serves_the_rest_and_the_missing_once_it_is_there(nodes):
    a = nodes[0]
    a.write(pods=2)
    ip("netns", "del", a.pod_namespaces[1])
    a.start("--keep-going")
    assert a.pods()["a0"].state == "attached"
    assert "does not exist" in a.pods()["a1"].state
    assert a.routes()["10.1.0.6/32"].state == "unreachable"
    shown = towpath("status", "--socket", a.socket)
    assert shown.returncode == 1
    assert "does not exist" in shown.stdout
    ip("netns", "add", a.pod_namespaces[1])
    wait_for(lambda: a.pods()["a1"].state == "attached", 30)
    assert a.status().problems == []
    assert a.routes()["10.1.0.6/32"].state == "active"


# -- those who look after a daemon ---------------------------------------------------
def test_the_service_manager_is_told(nodes, tmp_path):
    a = nodes[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(tmp_path / "notify"))

        def told(word):
            while word not in (text := manager.recv(4096).decode()):
                pass
            return text

        a.start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        assert "STATUS=1 pod, 1 peer" in told("READY=1")
        told("WATCHDOG=1")
        told("WATCHDOG=1")
        a.send(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in told("RELOADING=1")
        told("READY=1")
        a.send(signal.SIGTERM)
        told("STOPPING=1")
    assert a.stop() == 0


def test_health_over_http(nodes):
    a = nodes[0]
    a.extra = '[health]\nlisten = "127.0.0.1:9475"'
    a.write()
    a.start()

    def get(path):
        def fetch():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:9475{path}", timeout=10) as answer:
                    return answer.status, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, None

        return run_inside(path_of(a.host), fetch, where="test")

    assert get("/healthz") == (200, {"live": True, "ready": True, "problems": []})
    assert get("/readyz")[0] == 200
    assert get("/etc/passwd")[0] == 404


def test_logs_are_json_lines_off_a_terminal(nodes):
    a = nodes[0].start()
    a.stop()
    lines = [json.loads(line) for line in a.log.read_text().splitlines()]
    assert {"event", "level", "timestamp", "logger"} <= set(lines[0])


# -- the commands ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """One node for all questions, none of which changes it."""
    with two_nodes(tmp_path_factory.mktemp("asked")) as made:
        yield made[0].start()


@pytest.mark.parametrize("command", ["status", "routes", "peers", "pods", "counters", "drops", "version"])
def test_every_question_in_both_forms(asked, command):
    table = towpath(command, "--socket", asked.socket)
    assert table.returncode == 0, table.stderr
    assert table.stdout.strip()
    assert "\x1b" not in table.stdout
    answer = towpath(command, "-o", "json", "--socket", asked.socket)
    assert isinstance(json.loads(answer.stdout), dict)


def test_where_an_address_goes(asked):
    found = towpath("routes", "get", "10.2.0.9", "-o", "json", "--socket", asked.socket)
    assert json.loads(found.stdout)["route"]["via"][0]["peer"] == "b"
    assert "unreachable" in towpath("routes", "get", "10.1.0.99", "--socket", asked.socket).stdout
    wrong = towpath("routes", "get", "nonsense", "--socket", asked.socket)
    assert wrong.returncode == 2
    assert "no IP address" in wrong.stderr
    inside = towpath("routes", "--within", "10.1.0.0/24", "--limit", "1", "--socket", asked.socket)
    assert "10.1.0.0/24" in inside.stdout
    assert "1 of 3 routes shown" in inside.stderr


def test_the_environment_names_the_socket(asked):
    assert towpath("status", environment={"TOWPATH_CONTROL_SOCKET": str(asked.socket)}).returncode == 0
