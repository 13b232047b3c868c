"""Real container runtimes start containers on the plugin: podman, and containerd by ctr, two nodes each."""

from __future__ import annotations

import json

import pytest

from tests.engine.cni.containers import Containerd, Podman, identifier, places_for_mounts
from tests.engine.cni.runtime import runtime_of
from tests.engine.namespaces import wait_for
from tests.engine.nodes import started, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "busybox", "runc"), pytest.mark.timeout(180)]

TUNING = {"type": "tuning", "sysctl": {"net.core.somaxconn": "517"}}


@pytest.fixture
def nodes(tmp_path):
    with two_nodes(tmp_path, pods=1) as made:
        for node in made:
            node.write(pods=0)
        yield started(made)


def nobody_is_left(node):
    cni = runtime_of(node)
    assert list(cni.spool.iterdir()) == []
    wait_for(lambda: node.pods() == {})
    return True


@pytest.mark.needs("podman")
def test_podman(nodes, tmp_path):
    a, b = nodes
    far = runtime_of(b).add("far", b.pod_namespaces[0]).addresses()
    podman = Podman(a, tmp_path / "podman", others=[TUNING])
    try:
        said = podman.run("ping", "-c", "2", "-W", "5", far[0])
        assert said.returncode == 0, said.stderr
        assert "2 packets received" in said.stdout
        said = podman.run("sh", "-c", f"ping -c 1 -W 5 {far[1]} && cat /proc/sys/net/core/somaxconn && ip route")
        assert said.returncode == 0, said.stderr
        assert "517" in said.stdout, "the chained plugin saw the interface"
        assert "default dev eth0 scope link" in said.stdout
        assert nobody_is_left(a)
    finally:
        podman.close()


@pytest.mark.needs("podman")
@pytest.mark.slow
def test_podman_on_both_nodes_with_names_and_inspection(nodes, tmp_path):
    runtimes = [Podman(node, tmp_path / f"podman-{node.name}") for node in nodes]
    try:
        for podman in runtimes:
            done = podman.podman(
                "run", "--detach", "--name", "web", "--network", "pods", "--rootfs", podman.root, "/bin/busybox", "sleep", "300"
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        inspected = json.loads(runtimes[1].podman("inspect", "web").stdout)[0]
        address = inspected["NetworkSettings"]["Networks"]["pods"]["IPAddress"]
        assert address == "10.2.0.2"
        assert any(name.startswith("web/web@") for name in nodes[1].pods()) or len(nodes[1].pods()) == 1
        said = runtimes[0].podman("exec", "web", "/bin/busybox", "ping", "-c", "1", "-W", "5", address)
        assert said.returncode == 0, said.stderr
        for node in nodes:
            node.stop()
            node.start()
        said = runtimes[0].podman("exec", "web", "/bin/busybox", "ping", "-c", "1", "-W", "5", address)
        assert said.returncode == 0, "containers outlive the daemon"
    finally:
        for podman in runtimes:
            podman.close()
    assert all(nobody_is_left(node) for node in nodes)


@pytest.mark.needs("containerd", "ctr", "unshare", "nsenter")
def test_containerd(nodes, tmp_path):
    a, b = nodes
    far = runtime_of(b).add("far", b.pod_namespaces[0]).addresses()
    with places_for_mounts("/etc/cni", "/opt/cni"):
        containerd = Containerd(a, tmp_path / "containerd", others=[TUNING])
        try:
            said = containerd.run("ping", "-c", "2", "-W", "5", far[0])
            assert said.returncode == 0, said.stderr
            assert "2 packets received" in said.stdout
            said = containerd.run("sh", "-c", f"ping -c 1 -W 5 {far[1]}; cat /proc/sys/net/core/somaxconn")
            assert "1 packets received" in said.stdout, said.stderr
            assert "517" in said.stdout
            assert nobody_is_left(a)
        finally:
            containerd.close()


@pytest.mark.needs("containerd", "ctr", "unshare", "nsenter")
@pytest.mark.slow
def test_containerd_on_both_nodes_at_once(nodes, tmp_path):
    with places_for_mounts("/etc/cni", "/opt/cni"):
        runtimes = [Containerd(node, tmp_path / f"containerd-{node.name}") for node in nodes]
        try:
            server = identifier()
            started = runtimes[1].ctr(
                "run", "--detach", "--cni", "--rootfs", runtimes[1].root, server, "/bin/busybox", "sleep", "300"
            )
            assert started.returncode == 0, started.stderr
            (address,) = [pod.addresses[0] for pod in nodes[1].pods().values()]
            said = runtimes[0].run("ping", "-c", "2", "-W", "5", address)
            assert "2 packets received" in said.stdout, said.stderr
            assert runtimes[1].ctr("task", "kill", "--signal", "SIGKILL", server).returncode == 0
        finally:
            for containerd in runtimes:
                containerd.close()
    wait_for(lambda: nodes[0].pods() == {})
