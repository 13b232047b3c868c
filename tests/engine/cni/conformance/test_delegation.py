"""Addresses that another plugin gives: host-local, and plugins of our own that misbehave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.cni.runtime import finished, runtime_of
from tests.engine.namespaces import ip, path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip", "host-local")]


@pytest.fixture
def ipam(tmp_path):
    return {
        "type": "host-local",
        "dataDir": str(tmp_path / "leases"),
        "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100", "rangeEnd": "10.1.0.103"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


@pytest.fixture
def runtime(node):
    return runtime_of(node, version="1.0.0")


def leases(ipam):
    folder = Path(ipam["dataDir"]) / "pods"
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("10.")) if folder.exists() else []


def test_addresses_are_taken_and_given_back(runtime, sandbox, ipam):
    added = runtime.add("c1", sandbox, ipam=ipam)
    assert added.addresses() == ["10.1.0.100"], added.output
    assert leases(ipam) == ["10.1.0.100"]
    assert runtime.check("c1", sandbox, added.json, ipam=ipam).status == 0
    assert runtime.delete("c1", sandbox, ipam=ipam).status == 0
    assert leases(ipam) == []
    assert runtime.delete("c1", sandbox, ipam=ipam).status == 0


def test_what_fails_gives_its_address_back(runtime, sandbox, ipam):
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far", namespace=sandbox)
    try:
        assert runtime.add("c1", sandbox, ipam=ipam).code == 101
    finally:
        ip("link", "del", "eth0", namespace=sandbox)
    outside = {**ipam, "ranges": [[{"subnet": "10.77.0.0/24"}]]}
    assert runtime.add("c1", sandbox, ipam=outside).code == 7
    assert leases(ipam) == []


def test_its_own_error_is_passed_on(runtime, node, ipam):
    small = {**ipam, "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100", "rangeEnd": "10.1.0.100"}]]}
    assert runtime.add("c1", node.pod_namespaces[0], ipam=small).status == 0
    refused = runtime.add("c2", node.pod_namespaces[1], ipam=small)
    assert refused.code not in (0, 11)
    assert "host-local" in refused.json["msg"]
    assert runtime.delete("c1", node.pod_namespaces[0], ipam=small).status == 0


def test_a_container_that_is_not_known_goes_without_a_plugin_that_is_not_there(runtime, sandbox):
    """It was uninstalled, and what it gave was written off: a runtime that could never delete would try for ever."""
    assert runtime.delete("nobody", sandbox, ipam={"type": "uninstalled"}).status == 0
    assert runtime.add("c1", sandbox, ipam={"type": "uninstalled"}).code == 7


def test_the_daemons_environment_stays_with_it(runtime, sandbox, tmp_path):
    """A plugin of our own that writes down what it is given."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    spy = plugins / "spy"
    spy.write_text(
        f'#!/bin/sh\nenv | sort > {tmp_path}/env.$CNI_COMMAND\ncat > {tmp_path}/stdin\n'
        '[ "$CNI_COMMAND" = ADD ] && echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.200/24"}]}\'; exit 0\n'
    )
    spy.chmod(0o755)
    text = json.dumps(runtime.configuration(ipam={"type": "spy"})).encode()
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    said = finished(runtime.start_raw({**variables, "CNI_PATH": f"relative:{plugins}", "SECRET": "x"}, text))
    assert said.status == 0, said.output
    names = {line.split("=")[0] for line in (tmp_path / "env.ADD").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {*variables, "CNI_PATH", "PATH"}
    assert (tmp_path / "stdin").read_bytes() == text
    variables["CNI_COMMAND"] = "DEL"
    assert finished(runtime.start_raw({**variables, "CNI_PATH": str(plugins)}, text)).status == 0
    assert (tmp_path / "env.DEL").exists()


def test_a_plugin_that_says_nonsense(runtime, sandbox, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name, script in {
        "mute": "exit 0",
        "nonsense": "echo nonsense",
        "empty": "echo '{\"ips\":[]}'",
        "failing": "echo help >&2; exit 3",
        "refusing": 'echo \'{"code":11,"msg":"busy"}\'; exit 1',
    }.items():
        (plugins / name).write_text(f"#!/bin/sh\n{script}\n")
        (plugins / name).chmod(0o755)
    variables = {"CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0", "CNI_PATH": str(plugins)}
    codes = {}
    for name in ("mute", "nonsense", "empty", "failing", "refusing"):
        text = json.dumps(runtime.configuration(ipam={"type": name})).encode()
        call = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, **variables}
        codes[name] = finished(runtime.start_raw(call, text)).code
    assert codes == {"mute": 105, "nonsense": 105, "empty": 105, "failing": 105, "refusing": 11}


@pytest.mark.parametrize(("knows", "asked"), [(["1.0.0"], ["VERSION"]), (["1.0.0", "1.1.0"], ["VERSION", "{}"])])
@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_what_came_with_a_version_is_asked_of_plugins_that_know_it(runtime, tmp_path, verb, knows, asked):
    plugin = tmp_path / "plugins" / "dated"
    plugin.parent.mkdir()
    told = json.dumps({"cniVersion": "1.1.0", "supportedVersions": knows})
    plugin.write_text(
        f"#!/bin/sh\necho $CNI_COMMAND >> {tmp_path}/asked\n[ $CNI_COMMAND = VERSION ] && echo '{told}'; exit 0\n"
    )
    plugin.chmod(0o755)
    keys = {"cniVersion": "1.1.0", "ipam": {"type": "dated"}, "cni.dev/valid-attachments": []}
    text = json.dumps(runtime.configuration(**keys)).encode()
    said = finished(runtime.start_raw({"CNI_COMMAND": verb, "CNI_PATH": str(plugin.parent)}, text))
    assert said.status == 0, said.output
    assert (tmp_path / "asked").read_text().split() == [word.format(verb) for word in asked]
