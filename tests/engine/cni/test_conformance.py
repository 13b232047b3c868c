"""Every verb, in every version, with everything that can be wrong: the right code, nothing leaked, nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from engine.cni.call import MESSAGE_LIMIT
from engine.views import Ipam, IpamCheck
from tests.engine.cni.runtime import SHIM, finished, runtime_of
from tests.engine.namespaces import device, ip, path_of, wait_for
from tests.engine.nodes import two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("conformance"), pods=4) as nodes:
        nodes[0].write(pods=0, peers=False)
        yield nodes[0].start()


@pytest.fixture(autouse=True)
def nothing_is_left(node):
    """Whatever a test did, deletions of all it may have added leave nothing."""
    yield
    runtime = runtime_of(node)
    for attachment in node.ask("ipam", Ipam).addresses:
        network, container, interface = attachment.handle.split("/")
        assert runtime.delete(container, interface=interface, name=network).status == 0
    assert node.ask("ipam", Ipam).addresses == []
    assert node.ask("ipam_check", IpamCheck).leaks == []
    assert node.pods() == {}
    for name in node.pod_namespaces:
        assert device(name) is None
    assert list(runtime.spool.iterdir()) == []


@pytest.fixture
def runtime(node):
    return runtime_of(node)


@pytest.fixture
def sandbox(node):
    return node.pod_namespaces[0]


# -- results ---------------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
def test_a_life_in_each_version(runtime, sandbox, version):
    runtime.version = version
    added = runtime.add("c1", sandbox)
    result = added.json
    assert (added.status, result["cniVersion"]) == (0, version)
    for entry, family in zip(result["ips"], "46", strict=True):
        assert entry["interface"] == 0
        assert entry["address"].endswith({"4": "/32", "6": "/128"}[family])
        assert entry.get("version") == (None if version >= "1.0.0" else family)
    assert ("mtu" in result["interfaces"][0]) == (version >= "1.1.0")
    assert result["interfaces"][0]["sandbox"] == path_of(sandbox)
    checked = runtime.check("c1", sandbox, result)
    assert checked.code == (0 if version >= "0.4.0" else 1)
    assert runtime.collect([("c1", "eth0")]).code == (0 if version >= "1.1.0" else 1)
    assert runtime.call("STATUS").code == (0 if version >= "1.1.0" else 1)
    assert runtime.delete("c1", sandbox, prevResult=result).status == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_daemons_version_is_the_shims(runtime, version):
    said = runtime.call("VERSION", text=json.dumps({"cniVersion": version}).encode())
    assert said.json == {"cniVersion": version, "supportedVersions": VERSIONS}


# -- what is wrong ---------------------------------------------------------------
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


# -- order of things -------------------------------------------------------------
def test_a_second_addition_is_refused_and_harms_nothing(runtime, sandbox):
    first = runtime.add("c1", sandbox)
    assert runtime.add("c1", sandbox).code == 101
    assert runtime.add("c1", sandbox, name="other").code == 101
    assert runtime.add("c2", sandbox).code == 101, "the interface belongs to another container"
    assert runtime.check("c1", sandbox, first.json).status == 0


def test_an_interface_of_somebody_else_is_left_alone(runtime, sandbox):
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far", namespace=sandbox)
    try:
        assert runtime.add("c1", sandbox).code == 101
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox)["linkinfo"]["info_kind"] == "veth"
    finally:
        ip("link", "del", "eth0", namespace=sandbox)


def test_deletion_first_twice_and_without_a_namespace(runtime, sandbox, node):
    assert runtime.delete("never", sandbox).status == 0
    assert runtime.delete("never").status == 0
    assert runtime.add("c1", sandbox).status == 0
    assert runtime.delete("c1").status == 0, "CNI_NETNS is optional"
    assert device(sandbox) is None
    assert runtime.delete("c1", sandbox).status == 0
    name = node.pod_namespaces[3]
    assert runtime.add("c2", name).status == 0
    ip("netns", "del", name)
    try:
        assert runtime.delete("c2", name).status == 0
    finally:
        ip("netns", "add", name)


def test_a_container_whose_namespace_was_made_anew(runtime, node):
    name = node.pod_namespaces[3]
    first = runtime.add("c1", name)
    ip("netns", "del", name)
    ip("netns", "add", name)
    assert runtime.check("c1", name, first.json).code in (3, 104)
    again = runtime.add("c1", name)
    assert again.status == 0, again.output
    assert {a["local"] for a in device(name)["addr_info"]} == set(again.addresses())


def test_checks_find_what_is_wrong(runtime, sandbox, node):
    assert runtime.check("c1", sandbox, {}).code == 3
    result = runtime.add("c1", sandbox).json
    assert runtime.call("CHECK", "c1", sandbox, "eth0").code == 7, "prevResult is missing"
    assert runtime.check("c1", sandbox, {**result, "ips": []}).code == 104
    assert runtime.check("c1", sandbox, {**result, "interfaces": []}).code == 104
    assert runtime.check("c1", sandbox, {"ips": 7}).code == 7
    assert runtime.check("c1", sandbox, result, interface="eth1").code == 3
    assert runtime.check("c1", sandbox, result).status == 0
    node.send(signal.SIGSTOP)  # so that it does not set right what we break before it is asked
    try:
        ip("link", "set", "eth0", "down", namespace=sandbox)
        asked = runtime.start("CHECK", "c1", sandbox, "eth0", prevResult=result)
    finally:
        node.send(signal.SIGCONT)
    assert finished(asked).code in (0, 104), "found, or already set right"
    wait_for(lambda: runtime.check("c1", sandbox, result).status == 0)


def test_two_additions_at_once(runtime, sandbox):
    """Of one container's interface one succeeds; the other finds it there."""
    for _ in range(5):
        running = [runtime.start("ADD", "c1", sandbox, "eth0") for _ in range(4)]
        codes = sorted(finished(process).code for process in running)
        assert codes == [0, 101, 101, 101]
        assert runtime.delete("c1", sandbox).status == 0


def test_many_at_once_get_different_addresses(runtime, node):
    interfaces = [(name, f"eth{number}") for name in node.pod_namespaces for number in range(5)]
    running = [
        runtime.start("ADD", f"c-{name}", name, interface, defaultRoute=False) for name, interface in interfaces
    ]
    answers = [finished(process) for process in running]
    assert [answer.status for answer in answers] == [0] * len(answers), [a.output for a in answers]
    addresses = [address for answer in answers for address in answer.addresses()]
    assert len(set(addresses)) == 2 * len(interfaces)
    running = [runtime.start("DEL", f"c-{name}", name, interface) for name, interface in interfaces]
    assert [finished(process).status for process in running] == [0] * len(interfaces)


def test_garbage_is_what_the_runtime_does_not_know(runtime, node):
    a, b, c = node.pod_namespaces[:3]
    for container, name in (("ca", a), ("cb", b)):
        assert runtime.add(container, name).status == 0
    assert runtime.add("cc", c, name="other").status == 0
    assert runtime.call("GC").code == 7, "without a list everything would be garbage"
    assert runtime.collect([("ca", "eth0"), ("unknown", "eth0")]).status == 0
    assert [device(name) is not None for name in (a, b, c)] == [True, False, True]
    assert len(node.pods()) == 2
    assert runtime.collect([]).status == 0
    assert device(c) is not None, "another network"


# -- several networks ------------------------------------------------------------
def test_two_networks_and_their_default_routes(runtime, sandbox):
    first = runtime.add("c1", sandbox, "eth0")
    second = runtime.add("c1", sandbox, "net1", name="other", ipam={"routes": [{"dst": "198.18.0.0/15"}]})
    assert [route["dst"] for route in second.json["routes"]] == ["198.18.0.0/15", "fd00:1::/64"]
    assert runtime.add("c1", sandbox, "net2", name="third", defaultRoute=True).code == 7
    assert runtime.check("c1", sandbox, first.json).status == 0
    assert runtime.check("c1", sandbox, second.json, "net1", name="other").status == 0
    table = ip("route", "show", namespace=sandbox)
    assert "default dev eth0" in table
    assert "198.18.0.0/15 dev net1" in table
    assert runtime.delete("c1", sandbox, "net1", name="other").status == 0
    assert "net1" not in ip("link", namespace=sandbox)
    assert runtime.check("c1", sandbox, first.json).status == 0


def test_no_default_route_and_one_family(runtime, sandbox):
    said = runtime.add("c1", sandbox, defaultRoute=False, ipam={"families": [6]})
    assert said.addresses()[0].startswith("fd00:1::")
    assert len(said.addresses()) == 1
    assert [route["dst"] for route in said.json["routes"]] == ["fd00:1::/64"]
    assert "default" not in ip("-6", "route", "show", namespace=sandbox)


# -- wishes ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {"runtimeConfig": {"ips": ["10.1.0.77/24", "fd00:1::77"]}},
        {"args": {"cni": {"ips": ["10.1.0.77", "fd00:1::77/64"]}}, "arguments": "IP=10.1.0.78"},
        {"arguments": "IgnoreUnknown=1;IP=10.1.0.77/24,fd00:1::77"},
    ],
)
def test_wanted_addresses(runtime, node, options):
    a, b = node.pod_namespaces[:2]
    assert runtime.add("c1", a, **options).addresses() == ["10.1.0.77", "fd00:1::77"]
    assert runtime.add("c2", b, **options).code == 103
    assert device(b) is None
    for text in ("10.1.0.1", "10.9.9.9", "10.1.0.255"):
        assert runtime.add("c2", b, runtimeConfig={"ips": [text]}).code == 103


def test_sticky_addresses_come_back(runtime, node):
    a, b = node.pod_namespaces[:2]
    names = {"arguments": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=db-0", "ipam": {"sticky": True}}
    first = runtime.add("c1", a, **names).addresses()
    assert runtime.delete("c1", a, **names).status == 0
    assert runtime.add("other", b).addresses() != first
    assert runtime.add("c2", a, **names).addresses() == first
    assert "default/db-0@c2" in node.pods()
    assert runtime.delete("c2", a, **names).status == 0
    assert runtime.delete("other", b).status == 0


def test_ports_of_the_host_have_one_owner(runtime, node):
    a, b = node.pod_namespaces[:2]

    def mapping(port, **keys):
        return {"runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "TCP", **keys}]}}

    assert runtime.add("c1", a, **mapping(8080)).status == 0
    refused = runtime.add("c2", b, **mapping(8080))
    assert refused.code == 106
    assert "8080" in refused.json["msg"]
    assert runtime.add("c2", b, **mapping(8080, hostIP="192.0.2.1")).code == 106, "every address includes this one"
    assert runtime.add("c2", b, **mapping(8080, protocol="udp")).status == 0
    assert runtime.delete("c1", a).status == 0
    assert runtime.delete("c2", b).status == 0
    twice = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": n} for n in (80, 81)]}}
    assert runtime.add("c2", b, **twice).code == 106


def test_dns_is_passed_on(runtime, sandbox):
    wishes = {"dns": {"nameservers": ["10.1.0.10"], "domain": "x"}, "runtimeConfig": {"dns": {"searches": ["a.b"]}}}
    said = runtime.add("c1", sandbox, **wishes)
    assert said.json["dns"] == {"nameservers": ["10.1.0.10"], "domain": "x", "search": ["a.b"]}


def test_status_tells_that_nothing_is_left(runtime):
    assert runtime.call("STATUS").status == 0
    assert runtime.call("STATUS", ipam={"pools": ["10.99.0.0/24"]}).code == 50


# -- killed at every system call ---------------------------------------------------
KILLED_BY_DEFAULT = 12  # of some thirty calls; all of them in the slow form


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    "verb", [pytest.param("ADD"), pytest.param("DEL"), pytest.param("ADD-all", marks=pytest.mark.slow)]
)
def test_killed_at_every_system_call(runtime, sandbox, tmp_path, verb):
    whole = verb.endswith("-all")
    verb = verb.removesuffix("-all")
    if verb == "DEL":
        assert runtime.add("c1", sandbox).status == 0
    calls = traced(runtime, sandbox, verb, tmp_path)
    if verb == "ADD":
        assert runtime.delete("c1", sandbox).status == 0
    assert {"connect", "write" if verb == "ADD" else "exit_group"} <= {name for name, _ in calls}
    chosen = calls if whole else calls[-KILLED_BY_DEFAULT:]
    for name, number in chosen:
        if verb == "DEL" and runtime.add("c1", sandbox).code not in (0, 101):
            pytest.fail("cannot add what is to be deleted")
        killed = injected(runtime, sandbox, verb, f"--inject={name}:signal=SIGKILL:when={number}")
        assert killed.status in (-signal.SIGKILL, 137), (name, number)
        if verb == "ADD" and name != "exit_group":
            wait_for(lambda: device(sandbox) is None)
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox) is None
        again = runtime.add("c1", sandbox)
        assert again.status == 0, again.output
        assert runtime.delete("c1", sandbox).status == 0


def traced(runtime, sandbox, verb, folder):
    """(system call, the how many-eth of its name) of a whole run, in order."""
    log = folder / "trace"
    assert injected(runtime, sandbox, verb, f"--output={log}").status == 0
    counts = {}
    found = []
    for line in log.read_text().splitlines():
        match = re.match(r"(\w+)\(", line)
        if match and match[1] != "execve":
            counts[match[1]] = counts.get(match[1], 0) + 1
            found.append((match[1], counts[match[1]]))
    return found


def injected(runtime, sandbox, verb, option):
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0"}
    text = json.dumps(runtime.configuration()).encode()
    tracer = ["strace", "--quiet=all", option] if "output" in option else ["strace", "--quiet=all", "-o", "/dev/null", option]
    return finished(runtime.start_raw({"PATH": os.environ["PATH"], **variables}, text, prefix=tracer))


def test_killed_at_varying_moments(runtime, sandbox):
    for step in range(15):
        process = runtime.start("ADD", "c1", sandbox, "eth0")
        time.sleep(step * 0.001)  # a moment, not a wait
        process.kill()
        process.communicate()
        assert runtime.delete("c1", sandbox).status == 0
        assert device(sandbox) is None


# -- the daemon dies ---------------------------------------------------------------
def test_a_daemon_that_dies_in_the_middle(runtime, sandbox, node):
    """Whatever was acknowledged stays, whatever was not can be deleted and added again."""
    assert runtime.add("kept", node.pod_namespaces[1]).status == 0
    for step in range(2):
        process = runtime.start("ADD", "c1", sandbox, "eth0")
        time.sleep(0.004)  # a moment, not a wait
        node.stop(signal.SIGKILL)
        said = finished(process)
        assert said.code in (0, 11), said.output
        if step % 2:
            assert runtime.delete("c1", sandbox).status == 0, "remembered"
            node.start()
            wait_for(lambda: device(sandbox) is None)
        else:
            node.start()
            assert runtime.delete("c1", sandbox).status == 0
            assert device(sandbox) is None
    assert device(node.pod_namespaces[1]) is not None
    assert len(node.pods()) == 1


def test_a_deletion_remembered_does_not_hit_what_came_after_it(runtime, sandbox, node):
    assert runtime.add("c1", sandbox).status == 0
    node.stop()
    assert runtime.delete("c1", sandbox).status == 0
    saved = [(path, path.read_bytes()) for path in runtime.spool.iterdir()]
    assert len(saved) == 1
    node.start()
    wait_for(lambda: device(sandbox) is None)
    for path, data in saved:  # as if it had been written while the daemon began to listen
        path.write_bytes(data)
    assert runtime.add("c1", sandbox).status == 0
    assert not saved[0][0].exists()
    assert device(sandbox) is not None


@pytest.mark.needs("host-local")
class TestDelegated:
    """host-local gives the addresses."""

    @pytest.fixture
    def ipam(self, tmp_path):
        return {
            "type": "host-local",
            "dataDir": str(tmp_path / "leases"),
            "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100", "rangeEnd": "10.1.0.103"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }

    @pytest.fixture
    def runtime(self, node):
        return runtime_of(node, version="1.0.0")

    def leases(self, ipam):
        folder = Path(ipam["dataDir"]) / "pods"
        return sorted(path.name for path in folder.iterdir() if path.name.startswith("10.")) if folder.exists() else []

    def test_addresses_are_taken_and_given_back(self, runtime, sandbox, ipam):
        added = runtime.add("c1", sandbox, ipam=ipam)
        assert added.addresses() == ["10.1.0.100"], added.output
        assert self.leases(ipam) == ["10.1.0.100"]
        assert runtime.check("c1", sandbox, added.json, ipam=ipam).status == 0
        assert runtime.delete("c1", sandbox, ipam=ipam).status == 0
        assert self.leases(ipam) == []
        assert runtime.delete("c1", sandbox, ipam=ipam).status == 0

    def test_what_fails_gives_its_address_back(self, runtime, sandbox, ipam):
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "far", namespace=sandbox)
        try:
            assert runtime.add("c1", sandbox, ipam=ipam).code == 101
        finally:
            ip("link", "del", "eth0", namespace=sandbox)
        outside = {**ipam, "ranges": [[{"subnet": "10.77.0.0/24"}]]}
        assert runtime.add("c1", sandbox, ipam=outside).code == 7
        assert self.leases(ipam) == []

    def test_its_own_error_is_passed_on(self, runtime, node, ipam):
        small = {**ipam, "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100", "rangeEnd": "10.1.0.100"}]]}
        assert runtime.add("c1", node.pod_namespaces[0], ipam=small).status == 0
        refused = runtime.add("c2", node.pod_namespaces[1], ipam=small)
        assert refused.code not in (0, 11)
        assert "host-local" in refused.json["msg"]
        assert runtime.delete("c1", node.pod_namespaces[0], ipam=small).status == 0

    def test_the_daemons_environment_stays_with_it(self, runtime, sandbox, tmp_path):
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

    def test_a_plugin_that_says_nonsense(self, runtime, sandbox, tmp_path):
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
        variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(sandbox), "CNI_IFNAME": "eth0", "CNI_PATH": str(plugins)}
        codes = {}
        for name in ("mute", "nonsense", "empty", "failing", "refusing"):
            text = json.dumps(runtime.configuration(ipam={"type": name})).encode()
            codes[name] = finished(runtime.start_raw({"CNI_COMMAND": "ADD", **variables}, text)).code
        assert codes == {"mute": 105, "nonsense": 105, "empty": 105, "failing": 105, "refusing": 11}


    @pytest.mark.parametrize(("knows", "asked"), [(["1.0.0"], ["VERSION"]), (["1.0.0", "1.1.0"], ["VERSION", "{}"])])
    @pytest.mark.parametrize("verb", ["GC", "STATUS"])
    def test_what_came_with_a_version_is_asked_of_plugins_that_know_it(self, runtime, tmp_path, verb, knows, asked):
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


def test_the_shim_stands_where_the_tests_look():
    assert SHIM.exists()
    assert shutil.which(str(SHIM))
