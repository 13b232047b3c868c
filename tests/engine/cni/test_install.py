"""towpath cni and towpath ipam, as a person uses them."""

from __future__ import annotations

import json
import stat

import pytest

from engine.cni import install as installation
from engine.errors import TowpathError
from tests.engine.cni.runtime import SHIM, Runtime, runtime_of
from tests.engine.namespaces import wait_for
from tests.engine.nodes import towpath, two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("install"), pods=2) as nodes:
        nodes[0].write(pods=0, peers=False)
        yield nodes[0].start()


@pytest.fixture
def places(tmp_path):
    return ["--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "net.d"]


def cni(node, *arguments):
    return towpath("cni", *arguments, "--socket", node.socket)


def ipam(node, *arguments):
    return towpath("ipam", *arguments, "--socket", node.socket)


def test_what_is_installed_works_and_goes_again(node, places, tmp_path):
    done = cni(node, "status", *places)
    assert done.returncode == 1
    assert "the plugin is not installed" in done.stdout
    assert cni(node, "install", *places).returncode == 0
    plugin, conflist = tmp_path / "bin" / "towpath-cni", tmp_path / "net.d" / "10-towpath.conflist"
    assert plugin.read_bytes() == SHIM.read_bytes()
    assert stat.S_IMODE(plugin.stat().st_mode) == 0o755
    assert stat.S_IMODE(conflist.stat().st_mode) == 0o644
    done = cni(node, "status", *places)
    assert done.returncode == 0, done.stdout
    written = json.loads(conflist.read_text())
    runtime = Runtime(None, None, shim=plugin, version=written["cniVersion"], network=written["name"])
    (keys,) = written["plugins"]
    text = json.dumps({"cniVersion": written["cniVersion"], "name": written["name"], **keys}).encode()
    assert runtime.call("ADD", "c1", node.pod_namespaces[0], "eth0", text=text).status == 0
    assert runtime.call("DEL", "c1", node.pod_namespaces[0], "eth0", text=text).status == 0
    assert cni(node, "install", *places).returncode == 0, "again, over itself"
    (tmp_path / "net.d" / "05-other.conf").write_text("{}")
    done = cni(node, "status", *places)
    assert (done.returncode, "05-other.conf" in done.stdout) == (1, True)
    assert towpath("cni", "uninstall", *places).returncode == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["05-other.conf"]
    assert towpath("cni", "uninstall", *places).returncode == 0


def test_without_a_daemon_no_configuration_appears(places, tmp_path):
    done = towpath("cni", "install", *places, "--wait", "0.3", "--socket", tmp_path / "nobody.sock")
    assert done.returncode == 4
    assert "no daemon answers" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_the_plugin_is_replaced_not_followed(node, places, tmp_path):
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "towpath-cni").symlink_to(target)
    assert cni(node, "install", *places).returncode == 0
    assert target.read_text() == "kept"
    assert not (tmp_path / "bin" / "towpath-cni").is_symlink()


def test_versions_are_checked(node, places):
    done = cni(node, "install", *places, "--cni-version", "0.2.0")
    assert done.returncode == 1
    assert "0.2.0 is not supported" in done.stderr
    with pytest.raises(TowpathError):
        installation.known_version("2.0.0")


def test_addresses_are_shown_checked_and_released(node):
    runtime = runtime_of(node)
    name = node.pod_namespaces[0]
    assert runtime.add("c1", name, arguments="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web").status == 0
    shown = ipam(node, "show")
    assert "10.1.0.0/24" in shown.stdout
    assert "default/web@c1" in shown.stdout
    answer = json.loads(ipam(node, "show", "-o", "json").stdout)
    address = answer["addresses"][0]["address"]
    assert answer["pools"][0]["used"] == 1
    assert ipam(node, "check").returncode == 0
    done = ipam(node, "release", address)
    assert done.returncode == 1
    assert "belongs to pod default/web@c1" in done.stderr
    assert runtime.delete("c1", name).status == 0
    assert "was not in use" in ipam(node, "release", address).stdout
    assert ipam(node, "release", "nonsense").returncode == 2
    assert json.loads(ipam(node, "show", "-o", "json").stdout)["addresses"] == []


def test_a_pod_of_the_file_that_takes_an_address_is_found(node):
    runtime = runtime_of(node)
    assert runtime.add("c1", node.pod_namespaces[0], runtimeConfig={"ips": [node.address(0), node.address(0, 6)]}).status == 0
    try:
        before = node.file.read_text()
        node.file.write_text(
            f'{before}\n[[pods]]\nname = "late"\nnamespace = "{node.pod_namespaces[1]}"\naddresses = ["{node.address(0)}"]\n'
        )
        wait_for(lambda: "late" in node.pods())
        done = ipam(node, "check")
        assert done.returncode == 1
        assert "twice" in done.stdout
        assert "late" in done.stdout
        assert runtime.add("c2", node.pod_namespaces[1], "eth1", runtimeConfig={"ips": [node.address(0)]}).code == 103
        node.file.write_text(before)
        wait_for(lambda: "late" not in node.pods())
        assert ipam(node, "check").returncode == 0
    finally:
        assert runtime.delete("c1", node.pod_namespaces[0]).status == 0
