"""Everything that can be wrong with a call gets the right code and is named."""

from __future__ import annotations

import json
import os

import pytest

from engine.cni.call import MESSAGE_LIMIT
from tests.engine.cni.runtime import VERSIONS, finished
from tests.engine.namespaces import path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 6),
        (b"{", 6),
        (b"nonsense", 6),
        (b"[]", 6),
        (b'"text"', 6),
        (b"\xff\xfe", 6),
        (b"{}", 1),
        (b'{"cniVersion":"1.1.0"', 6),
        (b'{"cniVersion":"0.2.0","name":"pods"}', 1),
        (b'{"cniVersion":"9.9.9","name":"pods"}', 1),
        (b'{"cniVersion":7,"name":"pods"}', 1),
        (b'{"cniVersion":"1.1.0"}', 7),
        (b'{"cniVersion":"1.1.0","name":7}', 7),
        (b'{"cniVersion":"1.1.0","name":"../../etc"}', 7),
        (b'{"cniVersion":"1.1.0","name":"a b"}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","ipam":7}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","ipam":{"type":"../evil"}}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","ipam":{"type":"towpath-cni"}}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","runtimeConfig":[]}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","args":{"cni":7}}', 7),
        (b'{"cniVersion":"1.1.0","name":"pods","dns":{"search":7}}', 7),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 6),
    ],
)
def test_bad_configurations(runtime, sandbox, verb, text, code):
    said = runtime.hand_over(text, CNI_COMMAND=verb, CNI_CONTAINERID="c1", CNI_NETNS=path_of(sandbox), CNI_IFNAME="eth0")
    if verb in ("DEL", "GC") and any(word in text for word in (b"runtimeConfig", b"args", b"dns")):
        assert said.code in (0, 7), "what is to go does not hang on what was wished for it; GC misses its list"
        return
    assert (said.status, said.code) == (1, code), said.output
    assert said.json["msg"]
    assert said.json["cniVersion"] in VERSIONS


@pytest.mark.parametrize(
    ("verb", "missing"),
    [(verb, name) for verb in ("ADD", "CHECK") for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")]
    + [("DEL", "CNI_CONTAINERID"), ("DEL", "CNI_IFNAME")],
)
def test_missing_variables_are_named(runtime, sandbox, verb, missing):
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": path_of(sandbox),
        "CNI_IFNAME": "eth0",
        "PATH": os.environ["PATH"],
    }
    del variables[missing]
    said = finished(runtime.start_raw(variables, json.dumps(runtime.configuration()).encode()))
    assert (said.status, said.code) == (1, 4)
    assert missing in said.json["msg"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CNI_CONTAINERID", "../../../etc/passwd"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", ".."),
        ("CNI_CONTAINERID", "-rf"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "a\nb"),
        ("CNI_CONTAINERID", "x" * 129),
        ("CNI_CONTAINERID", "ünicode"),
        ("CNI_IFNAME", "../x"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "lo"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_NETNS", "relative/path"),
        ("CNI_NETNS", "/run/netns/../../etc/passwd"),
        ("CNI_NETNS", "/run/netns/a\nb"),
        ("CNI_ARGS", "no equals sign"),
        ("CNI_ARGS", "A=" + "x" * 9000),
    ],
)
def test_evil_variables_are_named(runtime, sandbox, verb, name, value):
    given = {"CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0", name: value}
    variables = {"CNI_COMMAND": verb, "PATH": os.environ["PATH"], **given}
    said = finished(runtime.start_raw(variables, json.dumps(runtime.configuration()).encode()))
    assert (said.status, said.code) == (1, 4)
    assert name in said.json["msg"]


def test_an_unknown_command(runtime):
    for verb in ("add", "UPDATE", "ADD "):
        assert runtime.call(verb, "c1").code == 4


@pytest.mark.parametrize("message", [b"x", b"\0" * 100, b"towpath-cni 2\0\0{}", b"towpath-cni 1\0CNI_COMMAND=ADD", b"\xff" * 1000])
def test_messages_that_are_none(runtime, message):
    assert runtime.exchange(message).code in (4, 5, 6)


def test_namespaces_that_are_none(runtime, sandbox, tmp_path):
    plain = tmp_path / "file"
    plain.touch()
    assert runtime.add("c1", "/run/netns/does-not-exist").code == 3
    assert runtime.add("c1", str(plain)).code == 4
    assert runtime.add("c1", str(tmp_path)).code == 4
    assert runtime.add("c1", "/proc/self/ns/mnt").code == 4
    assert runtime.add("c1", f"/proc/{os.getpid()}/ns/uts").code == 4


def test_the_namespace_of_the_host_is_refused(runtime, node):
    said = runtime.add("c1", f"/proc/{node.process.pid}/ns/net")
    assert said.code == 4
    assert "host" in said.json["msg"]


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"ipMasq": True}, "ipMasq"),
        ({"runtimeConfig": {"mac": "c2:11:22:33:44:55"}}, "runtimeConfig.mac"),
        ({"runtimeConfig": {"deviceID": "0000:04:00.5"}}, "runtimeConfig.deviceID"),
        ({"runtimeConfig": {"bandwidth": {"jitter": 1}}}, "runtimeConfig.bandwidth.jitter"),
        ({"ipam": {"type": "towpath", "subnet": "10.1.0.0/24"}}, "ipam.subnet"),
        ({"ipam": {"routes": [{"dst": "10.0.0.0/8", "gw": "10.1.0.1"}]}}, "ipam.routes.gw"),
    ],
)
def test_what_is_not_supported_is_named_with_its_value(runtime, sandbox, keys, field):
    said = runtime.add("c1", sandbox, **keys)
    assert said.code == 2
    assert field in said.json["msg"]
    assert runtime.delete("c1", sandbox, **keys).status == 0, "a deletion does not mind"


@pytest.mark.parametrize(
    "keys",
    [
        {"runtimeConfig": {"ips": ["nonsense"]}},
        {"runtimeConfig": {"ips": [7]}},
        {"runtimeConfig": {"ips": ["10.1.0.9"] * 17 + [f"10.1.0.{n}" for n in range(20)]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 80}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": 5}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "::1%lo"}]}},
        {"runtimeConfig": {"bandwidth": {"ingressRate": "fast"}}},
        {"runtimeConfig": {"bandwidth": {"ingressRate": -1}}},
        {"ipam": {"families": [5]}},
        {"ipam": {"families": [4, 4]}},
        {"ipam": {"pools": ["10.1.0.1/24"]}},
        {"ipam": {"routes": [7]}},
        {"ipam": {"routes": [{"dst": "everywhere"}]}},
        {"ipam": {"sticky": "yes"}},
        {"defaultRoute": 1},
        {"args": {"cni": {"labels": [{"value": "x"}]}}},
        {"prevResult": {"cniVersion": "1.1.0", "ips": []}},
        {"ipam": {"type": "no-such-plugin"}},
    ],
)
def test_values_that_cannot_be(runtime, sandbox, keys):
    said = runtime.add("c1", sandbox, **keys)
    assert said.code == 7, said.output


def test_huge_input(runtime, sandbox):
    big = runtime.configuration(dns={"search": ["x" * (MESSAGE_LIMIT - 2000)]})
    said = runtime.call("ADD", "c1", sandbox, "eth0", text=json.dumps(big).encode())
    assert said.status in (0, 1)
    assert runtime.call("ADD", "c1", sandbox, "eth0", text=b"x" * (8 << 20)).code == 5
