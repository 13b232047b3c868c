"""What a text means: defaults, overrides, origins, and that only ConfigError comes out of a bad one."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Config, load, parse
from engine.config.effective import rows
from engine.config.gateway import first_host4, first_host6
from engine.config.jsonschema import plain
from engine.config.leaf import Endpoint, Mac
from engine.config.overrides import settable, variable_of
from engine.errors import ConfigError
from engine.model import (
    Bandwidth,
    Facts,
    HostPort,
    Identity,
    NamedPort,
    Node,
    Overlay,
    Peer,
    Pod,
    PortMapping,
    StaticRoute,
)

# A busy machine is no mistake of ours.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SMALL = """\
[node]
prefixes = ["10.244.1.0/24"]

[[peers]]
name = "node-b"
underlay = ["192.0.2.2"]
prefixes = ["10.244.2.0/24"]
"""

FULL = """\
[node]
name = "node-a"
underlay = ["192.0.2.1/24"]
prefixes = ["10.244.1.0/24", "fd00:1::/64"]
gateway4 = "10.244.1.254"
gateway6 = "fd00:1::fe"

[network]
mode = "routed"
encapsulation = "vxlan"
when = "cross-subnet"
profile = "flannel"
port = 4790
vni = 77
mtu = 1400
dscp = "clear"
mac = "66:00:00:00:00:01"
mac6 = "66:00:00:00:00:02"

[host]
name = "pods0"

[workers]
cpus = [2, 3]

[control]
socket = "/tmp/s"
group = "towpath"

[state]
directory = "/tmp/state"

[health]
listen = "[::1]:9477"

[log]
level = "debug"
format = "json"

[[peers]]
name = "node-b"
underlay = ["192.0.2.2"]
prefixes = ["10.244.2.0/24"]
mac = "66:00:00:00:00:03"
mac6 = "66:00:00:00:00:04"
encapsulation = "udp"

[[pods]]
name = "default/web"
namespace = "web"
addresses = ["10.244.1.2"]
interface = "net1"
bandwidth = { ingress = "100M", egress = "2500k", egress_burst = 65536 }

[[pods.ports]]
host = 8080
pod = 80

[[pods.ports]]
host = 5353
pod = 53
protocol = "udp"
address = "192.0.2.1"

[[routes]]
prefix = "0.0.0.0/0"
via = ["node-b"]

[[routes]]
prefix = "198.51.100.0/24"
via = ["prohibited"]
"""


def test_small_file_and_its_defaults():
    config = parse(SMALL, hostname="node-a")
    assert config.node.name == "node-a"
    assert config.encapsulation == "vxlan"
    assert config.gateways == {"gateway4": IPv4Address("10.244.1.1")}
    assert config.workers_count == 1
    assert config.health.listen is None
    assert config.facts() == Facts(
        node=Node("node-a", (), (IPv4Network("10.244.1.0/24"),)),
        peers=(Peer("node-b", (IPv4Address("192.0.2.2"),), (IPv4Network("10.244.2.0/24"),)),),
    )


def test_full_file():
    config = parse(FULL, hostname="other")
    assert config.workers_count == 2
    assert config.health.listen == Endpoint(IPv6Address("::1"), 9477)
    assert str(config.health.listen) == "[::1]:9477"
    assert str(Endpoint(IPv4Address("127.0.0.1"), 80)) == "127.0.0.1:80"
    assert str(config.network.mac) == "66:00:00:00:00:01"
    assert config.network.mac6 == Mac(bytes.fromhex("660000000002"))
    facts = config.facts()
    assert facts.node.underlay == (IPv4Interface("192.0.2.1/24"),)
    assert facts.node.gateway6 == IPv6Address("fd00:1::fe")
    assert facts.overlay == Overlay(
        mode="routed",
        encapsulation="vxlan",
        when="cross-subnet",
        profile="flannel",
        port=4790,
        vni=77,
        mtu=1400,
        copy_dscp=False,
        mac=bytes.fromhex("660000000001"),
        mac6=bytes.fromhex("660000000002"),
    )
    assert facts.pods == (
        Pod(
            "default/web",
            "/run/netns/web",
            (IPv4Address("10.244.1.2"),),
            "net1",
            ports=(PortMapping(8080, 80), PortMapping(5353, 53, "udp", IPv4Address("192.0.2.1"))),
            bandwidth=Bandwidth(ingress=100_000_000, egress=2_500_000, egress_burst=65536),
        ),
    )
    assert str(config.pods[0].bandwidth.egress) == "2500k"
    assert facts.peers[0].mac6 == bytes.fromhex("660000000004")
    assert facts.peers[0].encapsulation == "udp"
    assert facts.routes[1] == StaticRoute(IPv4Network("198.51.100.0/24"), ("prohibited",))
    assert facts.host == HostPort(enabled=True, name="pods0")


def test_mode_chooses_the_encapsulation():
    assert parse(SMALL + '[network]\nmode = "routed"', hostname="a").encapsulation == "none"
    assert parse(SMALL + '[network]\nmode = "routed"\nencapsulation = "ipip"', hostname="a").encapsulation == "ipip"


def test_what_policy_knows_a_pod_by():
    pod = """
[[pods]]
name = "shop/web"
namespace = "web"
addresses = ["10.244.1.2"]
labels = { app = "web", "app.kubernetes.io/name" = "" }
service_account = "sa"
named_ports = ["http:8080", "dns:53/udp"]
"""
    config = parse(SMALL + pod, hostname="a")
    assert config.facts().pods[0].identity == Identity(
        labels=(("app", "web"), ("app.kubernetes.io/name", "")),
        service_account="sa",
        ports=(NamedPort("http", 6, 8080), NamedPort("dns", 17, 53)),
    )
    assert plain(config.pods[0].labels) == {"app": "web", "app.kubernetes.io/name": ""}
    assert [plain(port) for port in config.pods[0].named_ports] == ["http:8080/tcp", "dns:53/udp"]
    assert parse(SMALL + pod.replace("web", "db"), hostname="a") != config


def test_namespace_by_path():
    pod = '[[pods]]\nname = "p"\nnamespace = "/proc/7/ns/net"\naddresses = ["10.244.1.2"]\n'
    assert parse(SMALL + pod, hostname="a").pods[0].namespace == "/proc/7/ns/net"


def test_loopback_may_be_the_underlay():
    text = SMALL.replace("192.0.2.2", "127.0.0.2").replace("[node]", '[node]\nunderlay = ["127.0.0.1/8", "::1"]')
    assert parse(text, hostname="a").node.underlay[0] == IPv4Interface("127.0.0.1/8")


@pytest.mark.parametrize(("prefix", "address"), [("10.0.0.2/31", "10.0.0.2"), ("10.0.0.3/32", "10.0.0.3")])
def test_short_prefixes_have_their_first_address_as_gateway(prefix, address):
    assert first_host4([IPv4Network(prefix)]) == IPv4Address(address)
    assert first_host6([IPv4Network(prefix)]) is None


def test_same_content_same_value():
    assert parse(FULL) == parse("# moved\n\n" + FULL)
    assert parse(FULL) != parse(FULL.replace("1400", "1401"))
    assert hash(parse(FULL)) == hash(parse(FULL))


# -- environment and flags -------------------------------------------------------
def test_flag_over_environment_over_file():
    loaded = load(
        FULL,
        environment={"TOWPATH_NETWORK_MTU": "1380", "TOWPATH_NETWORK_VNI": "5", "PATH": "/bin"},
        flags={"network.mtu": "1390"},
    )
    assert loaded.config.network.mtu == 1390
    assert loaded.config.network.vni == 5
    assert loaded.config.network.port == 4790
    assert loaded.origins["network.mtu"] == "flag network.mtu"
    assert loaded.origins["network.vni"] == "environment variable TOWPATH_NETWORK_VNI"
    assert loaded.origins["network.port"] == "towpath.toml:13"
    assert loaded.origins["peers[0].name"] == "towpath.toml:41"
    assert loaded.origins["host.enabled"] == "default"


def test_overrides_of_every_kind():
    flags = {
        "node.name": "x",
        "node.underlay": "192.0.2.1/24, 2001:db8::1",
        "workers.cpus": "0,1",
        "host.enabled": "false",
        "health.listen": "127.0.0.1:1",
    }
    config = parse(SMALL, flags=flags)
    assert [str(address) for address in config.node.underlay] == ["192.0.2.1/24", "2001:db8::1/128"]
    assert config.workers.cpus == (0, 1)
    assert config.host.enabled is False
    assert str(config.health.listen) == "127.0.0.1:1"


def test_environment_alone_makes_a_node():
    config = parse("", hostname="a", environment={"TOWPATH_NODE_PREFIXES": "10.244.1.0/24,fd00:1::/64"})
    assert len(config.node.prefixes) == 2


def test_host_name_is_an_origin():
    assert load(SMALL, hostname="a").origins["node.name"] == "host name"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "TOWPATH_NETWORK_MTU",
            "big",
            (
                'environment variable TOWPATH_NETWORK_MTU: network.mtu: "big" is not a whole number from 576 to 65535'
                " (write a number within the bounds)"
            ),
        ),
        (
            "TOWPATH_NODE_PREFIXES",
            "10.0.0.0/8,10.1.0.1/16",
            (
                'environment variable TOWPATH_NODE_PREFIXES: node.prefixes[1]: "10.1.0.1/16" has host bits set'
                ' (write "10.1.0.0/16")'
            ),
        ),
        (
            "TOWPATH_NETWORK_MUT",
            "1",
            "environment variable TOWPATH_NETWORK_MUT: names no key (did you mean TOWPATH_NETWORK_MTU?)",
        ),
        (
            "TOWPATH_LOG_QQQQQQQQQQQQ",
            "1",
            (
                "environment variable TOWPATH_LOG_QQQQQQQQQQQQ: names no key"
                " (unset it; `towpath config schema` lists the keys)"
            ),
        ),
    ],
)
def test_mistakes_of_the_environment(name, text, sentence):
    with pytest.raises(ConfigError) as caught:
        parse(SMALL, hostname="a", environment={name: text})
    assert str(caught.value).splitlines()[0] == sentence


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("network.mut", 'flag: "network.mut" is not a key that can be set (did you mean network.mtu?)'),
        ("peers", 'flag: "peers" is not a key that can be set (`towpath config schema` lists the keys)'),
        (
            "log.level",
            'flag log.level: log.level: "" is not one of "debug", "info", "warning", "error" (choose one of these)',
        ),
    ],
)
def test_mistakes_of_flags(flag, sentence):
    with pytest.raises(ConfigError) as caught:
        parse(SMALL, hostname="a", flags={flag: ""})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "variable",
    ["TOWPATH_CONFIG", "TOWPATH_SERVICE_HOST", "TOWPATH_NODE_SERVICE_PORT", "TOWPATH_NODE_PORT_80_TCP_ADDR", "NODE_X"],
)
def test_variables_that_are_not_ours(variable):
    assert parse(SMALL, hostname="a", environment={variable: "tcp://10.0.0.1:80"}) == parse(SMALL, hostname="a")


def test_override_beside_a_misshapen_table():
    with pytest.raises(ConfigError, match="log: 3 is not a table"):
        parse("log = 3\n" + SMALL, hostname="a", flags={"log.level": "debug"})


def test_names_of_variables_are_unambiguous():
    assert len({variable_of(name) for name in settable()}) == len(settable()) > 20


# -- what is in force --------------------------------------------------------------
def test_effective_values_of_a_small_file():
    found = {row.key: (row.value, row.origin) for row in rows(load(SMALL, hostname="a"))}
    assert found["node.name"] == ("a", "host name")
    assert found["node.gateway4"] == ("10.244.1.1", "node.prefixes")
    assert found["node.gateway6"] == (None, "default")
    assert found["node.interface"] == (None, "the default route")
    assert found["network.encapsulation"] == ("vxlan", "mode overlay")
    assert found["network.port"] == (4789, "profile towpath")
    assert found["network.vni"] == (1, "profile towpath")
    assert found["workers.count"] == (1, "default")
    assert found["peers[0].encapsulation"] == ("vxlan", "network.encapsulation")
    assert found["peers[0].underlay"] == (["192.0.2.2"], "towpath.toml:6")


def test_effective_values_of_a_full_file():
    found = {row.key: (row.value, row.origin) for row in rows(load(FULL))}
    assert found["network.mac"] == ("66:00:00:00:00:01", "towpath.toml:17")
    assert found["workers.count"] == (2, "workers.cpus")
    assert found["node.interface"] == (None, "node.underlay")
    assert found["routes[1].via"] == (["prohibited"], "towpath.toml:71")
    ipip = parse(FULL).network
    assert ipip.port == 4790


# -- hostile text --------------------------------------------------------------------
def only_config_error(text):
    mistakes = ()
    try:
        config = parse(text, hostname="a")
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        assert isinstance(config, Config)
        assert parse(text, hostname="a") == config
    assert all(mistake.what and mistake.where and mistake.remedy for mistake in mistakes)


@CALM
@given(st.text(max_size=200))
def test_any_text(text):
    only_config_error(text)


@CALM
@given(
    st.integers(0, len(FULL)),
    st.integers(0, 12),
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["[", "]", "{", "}", '"', "=", "\n", "0", "-1", "true", "[]", "{}", '""', '"0.0.0.0/0"', '"::"']
        ),
    ),
)
def test_any_small_change_of_a_file(at, cut, text):
    only_config_error(FULL[:at] + text + FULL[at + cut :])


tokens = st.sampled_from(
    ["10.244.1.0/24", "10.244.0.0/16", "fd00::/8", "10.244.1.1", "::1", "host", "node-b", "", "1", "66:00:00:00:00:01"]
)
junk = st.recursive(
    st.one_of(tokens, st.integers(-2, 70000), st.booleans()), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@CALM
@given(st.dictionaries(st.sampled_from(sorted(settable())), junk, max_size=6), st.lists(junk, max_size=3))
def test_any_value_at_any_key(values, elements):
    lines = [f"{key} = {toml(value)}" for key, value in values.items()]
    lists = [
        f"[[{name}]]\nname = {toml(value)}\nprefix = {toml(value)}"
        for name, value in zip(("peers", "pods", "routes"), elements, strict=False)
    ]
    only_config_error("\n".join([*lines, *lists]))


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(ConfigError, match=r"towpath.toml:2: is not UTF-8 text"):
        parse('[node]\nname = "\udcc1"\n')
