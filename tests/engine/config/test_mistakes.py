"""Every kind of mistake, with the whole sentence it gets: place, value, remedy."""

import pytest

from engine.config import parse
from engine.errors import ConfigError

BASE = """\
[node]
name = "node-a"
underlay = ["192.0.2.1/24", "2001:db8::1/64"]
prefixes = ["10.244.1.0/24", "fd00:1::/64"]

[network]
encapsulation = "vxlan"

[[peers]]
name = "node-b"
underlay = ["192.0.2.2"]
prefixes = ["10.244.2.0/24"]

[[peers]]
name = "node-c"
underlay = ["192.0.2.3", "2001:db8::3"]
prefixes = ["10.244.3.0/24", "fd00:3::/64"]

[[pods]]
name = "web"
namespace = "web"
addresses = ["10.244.1.2", "fd00:1::2"]

[[pods]]
name = "db"
namespace = "/run/netns/db"
addresses = ["10.244.1.3"]

[[routes]]
prefix = "198.18.0.0/15"
via = ["node-b", "node-c"]
"""


def test_base_is_valid():
    assert parse(BASE).node.name == "node-a"


def many(count, text):
    return "[" + ", ".join(text.format(n) for n in range(2, count + 2)) + "]"


# what is replaced, by what, the first sentence
MISTAKES = {
    # -- TOML ------------------------------------------------------------------
    "no equals sign": (
        'name = "node-a"',
        "name",
        "t.toml:2: is not valid TOML at column 5: expected '=' after a key in a key/value pair (write key = \"value\")",
    ),
    "text without quotes": (
        'name = "node-a"',
        "name = node-a",
        "t.toml:2: is not valid TOML at column 8: invalid value (put text in double quotes)",
    ),
    "key twice": (
        'name = "node-a"',
        'name = "a"\nname = "b"',
        "t.toml:3: is not valid TOML at column 11: cannot overwrite a value (a key may stand only once in a table)",
    ),
    "table twice": (
        "[network]",
        "[node]",
        (
            "t.toml:6: is not valid TOML at column 6: cannot declare ('node',) twice"
            " (a table may be opened only once; a list of tables is opened with [[name]])"
        ),
    ),
    "open list at the end": (
        'via = ["node-b", "node-c"]',
        'via = ["node-b"',
        "t.toml:32: is not valid TOML at the end: unclosed array (close the list with ])",
    ),
    "control character": (
        'name = "node-a"',
        'name = "node\x01-a"',
        "t.toml:2: is not valid TOML at column 13: illegal character '\\x01' (correct the line)",
    ),
    # -- shape -----------------------------------------------------------------
    "unknown key, near one": (
        'underlay = ["192.0.2.2"]',
        'underlay = ["192.0.2.2"]\nprefix = []',
        "t.toml:12: peers[0].prefix: is not a known key (did you mean prefixes?)",
    ),
    "unknown key of another table": (
        "[network]",
        "vni = 3\n[network]",
        "t.toml:6: node.vni: is not a known key (it belongs under [network])",
    ),
    "unknown key of another list": (
        "[network]",
        "via = 3\n[network]",
        "t.toml:6: node.via: is not a known key (it belongs under [[routes]])",
    ),
    "unknown key, near none": (
        "[[routes]]",
        "[[routes]]\nquux = 3",
        "t.toml:30: routes[0].quux: is not a known key (known here are prefix, via)",
    ),
    "unknown table": (
        "[network]",
        "[netwrok]",
        "t.toml:6: netwrok: is not a known key (did you mean network?)",
    ),
    "unknown key that needs quotes": (
        "[network]",
        '[network]\n"a b" = 1\n',
        (
            't.toml:7: network."a b": is not a known key (known here are mode, encapsulation, when, profile, port,'
            " vni, mtu, dscp, offload, mac, mac6)"
        ),
    ),
    "missing key": (
        'namespace = "web"\n',
        "",
        't.toml:19: pods[0]: has no namespace (add namespace = "web")',
    ),
    "missing list": (
        'prefixes = ["10.244.1.0/24", "fd00:1::/64"]\n',
        "",
        't.toml:1: node: has no prefixes (add prefixes = ["10.244.1.0/24"])',
    ),
    "table where a value stands": (
        "[network]",
        "workers = 3\n[network]",
        (
            "t.toml:6: node.workers: is not a known key (known here are prefixes, name, underlay, interface, gateway4,"
            " gateway6)"
        ),
    ),
    "value where a table stands": (
        "[node]",
        "workers = 3\n[node]",
        "t.toml:1: workers: 3 is not a table (write [workers] on a line of its own, and its keys below)",
    ),
    "table where a list of tables stands": (
        "[[routes]]",
        "[routes]",
        "t.toml:29: routes: a table is not a list (open each with [[routes]])",
    ),
    "value where a list stands": (
        'via = ["node-b", "node-c"]',
        'via = "node-b"',
        't.toml:31: routes[0].via: "node-b" is not a list (write via = ["node-b"])',
    ),
    "list where a value stands": (
        'namespace = "web"',
        'namespace = ["web"]',
        't.toml:21: pods[0].namespace: a list is not a network namespace (write text in quotes, like "web")',
    ),
    "date where text stands": (
        'namespace = "web"',
        "namespace = 2020-01-01",
        't.toml:21: pods[0].namespace: 2020-01-01 is not a network namespace (write text in quotes, like "web")',
    ),
    "truth where text stands": (
        'namespace = "web"',
        "namespace = true",
        't.toml:21: pods[0].namespace: true is not a network namespace (write text in quotes, like "web")',
    ),
    "number in quotes": (
        "[network]",
        '[network]\nport = "4789"',
        't.toml:7: network.port: "4789" is not a whole number from 1 to 65535 (write 4789 without quotes)',
    ),
    "number as words": (
        "[network]",
        '[network]\nport = "vxlan"',
        't.toml:7: network.port: "vxlan" is not a whole number from 1 to 65535 (write a number within the bounds)',
    ),
    "port 0": (
        "[network]",
        "[network]\nport = 0",
        "t.toml:7: network.port: 0 is not a whole number from 1 to 65535 (write a number within the bounds)",
    ),
    "port too large": (
        "[network]",
        "[network]\nport = 65536",
        "t.toml:7: network.port: 65536 is not a whole number from 1 to 65535 (write a number within the bounds)",
    ),
    "VNI too large": (
        "[network]",
        "[network]\nvni = 16777216",
        "t.toml:7: network.vni: 16777216 is not a whole number from 1 to 16777215 (write a number within the bounds)",
    ),
    "fraction": (
        "[network]",
        "[network]\nmtu = 1400.5",
        "t.toml:7: network.mtu: 1400.5 is not a whole number from 576 to 65535 (write a number within the bounds)",
    ),
    "truth as number": (
        "[network]",
        "[network]\nmtu = true",
        "t.toml:7: network.mtu: true is not a whole number from 576 to 65535 (write a number within the bounds)",
    ),
    "truth in quotes": (
        "[network]",
        '[host]\nenabled = "no"\n[network]',
        't.toml:7: host.enabled: "no" is not true or false (write true or false without quotes)',
    ),
    "CPU in quotes": (
        "[network]",
        '[workers]\ncpus = [0, "x"]\n[network]',
        't.toml:7: workers.cpus[1]: "x" is not a whole number (write a number without quotes)',
    ),
    "misspelt choice": (
        'encapsulation = "vxlan"',
        'encapsulation = "vxlam"',
        't.toml:7: network.encapsulation: "vxlam" is not one of "vxlan", "udp", "ipip", "none" (write "vxlan")',
    ),
    "no choice at all": (
        'encapsulation = "vxlan"',
        'when = "?"',
        't.toml:7: network.when: "?" is not one of "always", "cross-subnet" (choose one of these)',
    ),
    "number where a choice stands": (
        'encapsulation = "vxlan"',
        "when = 1",
        't.toml:7: network.when: 1 is not one of "always", "cross-subnet" (choose one of these)',
    ),
    "too long a list": (
        'via = ["node-b", "node-c"]',
        "via = [" + '"a",' * 131073 + "]",
        "t.toml:31: routes[0].via: has 131073 elements (at most 131072 are allowed)",
    ),
    # -- values ----------------------------------------------------------------
    "no address": (
        '"192.0.2.2"',
        '"192.0.2.256"',
        (
            't.toml:11: peers[0].underlay[0]: "192.0.2.256" is not an IP address'
            ' (write it like "192.0.2.1" or "2001:db8::1")'
        ),
    ),
    "address with length": (
        '"192.0.2.2"',
        '"192.0.2.2/24"',
        (
            't.toml:11: peers[0].underlay[0]: "192.0.2.2/24" has a prefix length where only an address is meant'
            ' (write "192.0.2.2")'
        ),
    ),
    "address with zone": (
        '"192.0.2.2"',
        '"fe80::1%eth0"',
        (
            't.toml:11: peers[0].underlay[0]: "fe80::1%eth0" has a zone'
            " (leave out % and what follows; link-local addresses cannot be used)"
        ),
    ),
    "address of the other family": (
        "[network]",
        'gateway4 = "fd00:1::1"\n[network]',
        't.toml:6: node.gateway4: "fd00:1::1" is not an IPv4 address (write it like "192.0.2.1")',
    ),
    "address of the other family 6": (
        "[network]",
        'gateway6 = "10.244.1.1"\n[network]',
        't.toml:6: node.gateway6: "10.244.1.1" is not an IPv6 address (write it like "2001:db8::1")',
    ),
    "host bits": (
        '"10.244.2.0/24"',
        '"10.244.2.7/24"',
        't.toml:12: peers[0].prefixes[0]: "10.244.2.7/24" has host bits set (write "10.244.2.0/24")',
    ),
    "prefix without length": (
        '"10.244.2.0/24"',
        '"10.244.2.0"',
        't.toml:12: peers[0].prefixes[0]: "10.244.2.0" has no prefix length (write "10.244.2.0/32" for this one address)',
    ),
    "prefix too long": (
        '"10.244.2.0/24"',
        '"10.244.2.0/33"',
        't.toml:12: peers[0].prefixes[0]: "10.244.2.0/33" has the prefix length "33" (IPv4 prefix lengths are 0 to 32)',
    ),
    "prefix with netmask": (
        '"fd00:3::/64"',
        '"fd00:3::/ffff::"',
        (
            't.toml:17: peers[1].prefixes[1]: "fd00:3::/ffff::" has the prefix length "ffff::"'
            " (IPv6 prefix lengths are 0 to 128)"
        ),
    ),
    "no interface address": (
        '"192.0.2.1/24"',
        '"eth0"',
        (
            't.toml:3: node.underlay[0]: "eth0" is not an address of an interface'
            ' (write it like "192.0.2.1/24" or "2001:db8::1/64")'
        ),
    ),
    "MAC with dashes": (
        "[network]",
        '[network]\nmac = "66-07-02-c1-cc-60"',
        't.toml:7: network.mac: "66-07-02-c1-cc-60" is not a MAC address (write it like "66:07:02:c1:cc:60")',
    ),
    "group MAC": (
        "[network]",
        '[network]\nmac = "ff:ff:ff:ff:ff:ff"',
        (
            't.toml:7: network.mac: "ff:ff:ff:ff:ff:ff" is not the MAC address of one device'
            " (its first byte must be even, and not all bytes zero)"
        ),
    ),
    "name with a blank": (
        '"node-a"',
        '"node a"',
        (
            't.toml:2: node.name: "node a" is not a name (use letters, digits, dots, dashes and underscores,'
            " at most 253, the first and last a letter or digit)"
        ),
    ),
    "pod name with two slashes": (
        'name = "web"',
        'name = "a/b/c"',
        (
            't.toml:20: pods[0].name: "a/b/c" is not the name of a pod (use letters, digits, dots, dashes and'
            ' underscores, at most 253, the first and last a letter or digit; "namespace/name" is allowed)'
        ),
    ),
    "long device name": (
        'namespace = "web"',
        'namespace = "web"\ninterface = "a234567890123456"',
        (
            't.toml:22: pods[0].interface: "a234567890123456" is not the name of a network device'
            " (use at most 15 letters, digits, dots, dashes and underscores)"
        ),
    ),
    "empty namespace": (
        'namespace = "web"',
        'namespace = ""',
        (
            't.toml:21: pods[0].namespace: "" names no network namespace'
            ' (write the name that `ip netns` shows, or a path like "/proc/1234/ns/net")'
        ),
    ),
    "relative namespace": (
        'namespace = "web"',
        'namespace = "../web"',
        (
            't.toml:21: pods[0].namespace: "../web" is neither the name of a network namespace nor an absolute path'
            ' (write the name that `ip netns` shows, or a path like "/proc/1234/ns/net")'
        ),
    ),
    "namespace path with a line feed": (
        'namespace = "web"',
        'namespace = "/a\\n"',
        't.toml:21: pods[0].namespace: "/a\\n" is not an absolute path (begin it with "/" and end it with a name)',
    ),
    "relative socket": (
        "[network]",
        '[control]\nsocket = "control.sock"\n[network]',
        't.toml:7: control.socket: "control.sock" is not an absolute path (begin it with "/" and end it with a name)',
    ),
    "health without port": (
        "[network]",
        '[health]\nlisten = "127.0.0.1"\n[network]',
        (
            't.toml:7: health.listen: "127.0.0.1" is not an address and a port'
            ' (write it like "127.0.0.1:9477" or "[::1]:9477")'
        ),
    ),
    "health on port 0": (
        "[network]",
        '[health]\nlisten = "127.0.0.1:0"\n[network]',
        't.toml:7: health.listen: "127.0.0.1:0" has the port 0 (ports are 1 to 65535)',
    ),
    "health on a name": (
        "[network]",
        '[health]\nlisten = "localhost:80"\n[network]',
        't.toml:7: health.listen: "localhost" is not an IP address (write it like "127.0.0.1:9477")',
    ),
    "health with brackets around IPv4": (
        "[network]",
        '[health]\nlisten = "[127.0.0.1]:80"\n[network]',
        (
            't.toml:7: health.listen: "[127.0.0.1]:80" has its brackets wrong'
            " (IPv6 addresses stand in [ ], IPv4 addresses do not)"
        ),
    ),
    # -- this node -------------------------------------------------------------
    "no prefix": (
        'prefixes = ["10.244.1.0/24", "fd00:1::/64"]',
        "prefixes = []",
        't.toml:4: node.prefixes: is empty (add the pod prefix of this node, like "10.244.1.0/24")',
    ),
    "underlay and interface": (
        "[network]",
        'interface = "eth0"\n[network]',
        (
            "t.toml:6: node.interface: is given beside node.underlay"
            " (keep underlay for fixed addresses, or interface to take those of a device)"
        ),
    ),
    "multicast underlay": (
        '"192.0.2.1/24"',
        '"224.0.0.1"',
        't.toml:3: node.underlay[0]: "224.0.0.1" cannot be the address of a node (write its address on the underlay)',
    ),
    "underlay twice": (
        '"2001:db8::1/64"',
        '"192.0.2.1/25"',
        't.toml:3: node.underlay[1]: "192.0.2.1" is also node.underlay[0] (remove or change one of the two)',
    ),
    "gateway elsewhere": (
        "[network]",
        'gateway4 = "10.244.9.1"\n[network]',
        't.toml:6: node.gateway4: "10.244.9.1" is in no IPv4 prefix of this node (node.prefixes has 10.244.1.0/24)',
    ),
    "gateway at the end": (
        "[network]",
        'gateway6 = "fd00:1::"\n[network]',
        (
            't.toml:6: node.gateway6: "fd00:1::" is the first or last address of fd00:1::/64, not a host\'s'
            " (choose one between fd00:1::1 and fd00:1::ffff:ffff:ffff:fffe)"
        ),
    ),
    # -- the network -------------------------------------------------------------
    "profile without the encapsulation": (
        'encapsulation = "vxlan"',
        'encapsulation = "udp"\nprofile = "calico"',
        "t.toml:8: network.profile: calico has no encapsulation udp (it has vxlan, ipip, none)",
    ),
    "port of ipip": (
        'encapsulation = "vxlan"',
        'encapsulation = "ipip"\nport = 4',
        "t.toml:8: network.port: means nothing with encapsulation ipip (remove it)",
    ),
    "VNI of udp": (
        'encapsulation = "vxlan"',
        'encapsulation = "udp"\nvni = 4',
        "t.toml:8: network.vni: means nothing with encapsulation udp (remove it)",
    ),
    "VNI of Calico's node ports": (
        "[network]",
        "[network]\nvni = 0xCA11C0",
        "t.toml:7: network.vni: 13242816 is reserved for Calico's node ports (choose another)",
    ),
    "MTU too small for IPv6": (
        "[network]",
        "[network]\nmtu = 1279",
        (
            "t.toml:7: network.mtu: 1279 is too small for the IPv6 prefixes of this node"
            " (IPv6 needs 1280 bytes; raise it or remove the IPv6 prefixes)"
        ),
    ),
    "peer's encapsulation is not of the profile": (
        'encapsulation = "vxlan"\n\n[[peers]]',
        'profile = "calico"\n\n[[peers]]\nencapsulation = "udp"',
        (
            "t.toml:10: peers[0].encapsulation: profile calico has no encapsulation udp"
            " (choose another encapsulation or profile)"
        ),
    ),
    "bare without the host port": (
        'encapsulation = "vxlan"',
        'when = "cross-subnet"\n[host]\nenabled = false',
        (
            "t.toml:9: host.enabled: is false, but packets without encapsulation travel through the host"
            " (set it to true, or encapsulate always)"
        ),
    ),
    "bare peer without the host port": (
        "[[routes]]",
        '[[peers]]\nname="node-d"\nunderlay=["192.0.2.9"]\nencapsulation="none"\n[host]\nenabled=false\n[[routes]]',
        (
            "t.toml:34: host.enabled: is false, but packets without encapsulation travel through the host"
            " (set it to true, or encapsulate always)"
        ),
    ),
    "bare prefix of another family": (
        'prefixes = ["10.244.2.0/24"]',
        'prefixes = ["fd00:2::/64"]\nencapsulation = "none"',
        (
            't.toml:12: peers[0].prefixes[0]: "fd00:2::/64" cannot travel bare to node-b, whose underlay has no IPv6'
            " (add an IPv6 address to peers[0].underlay, or encapsulate)"
        ),
    ),
    "bare route of another family": (
        'prefix = "198.18.0.0/15"\nvia = ["node-b", "node-c"]',
        (
            'prefix = "2000::/3"\nvia = ["node-b"]\n[[peers]]\nname="x"\nunderlay=["192.0.2.77"]\nencapsulation="none"\n'
            '[[routes]]\nprefix = "2400::/12"\nvia = ["x"]'
        ),
        (
            't.toml:37: routes[1].prefix: "2400::/12" cannot travel bare to x, whose underlay has no IPv6'
            " (add an IPv6 address to peers[2].underlay, or encapsulate)"
        ),
    ),
    # -- peers -------------------------------------------------------------------
    "peer twice": (
        'name = "node-c"',
        'name = "node-b"',
        't.toml:15: peers[1].name: "node-b" is also peers[0].name (remove or change one of the two)',
    ),
    "peer is this node": (
        'name = "node-c"',
        'name = "node-a"',
        't.toml:15: peers[1].name: "node-a" is this node itself (remove the peer, or rename one of the two)',
    ),
    "peer with a special name": (
        'name = "node-c"',
        'name = "blackhole"',
        't.toml:15: peers[1].name: "blackhole" has a meaning of its own in routes (choose another name)',
    ),
    "peer without underlay": (
        'underlay = ["192.0.2.2"]',
        "underlay = []",
        "t.toml:11: peers[0].underlay: is empty (add the address of the node on the underlay)",
    ),
    "own address as peer": (
        '"192.0.2.2"',
        '"192.0.2.1"',
        (
            't.toml:11: peers[0].underlay[0]: "192.0.2.1" is this node\'s own address'
            " (write the address of node-b, or remove the peer)"
        ),
    ),
    "address of two peers": (
        '"192.0.2.3"',
        '"192.0.2.2"',
        't.toml:16: peers[1].underlay[0]: "192.0.2.2" is also peers[0].underlay[0] (remove or change one of the two)',
    ),
    "peer's underlay is martian": (
        '"192.0.2.3"',
        '"169.254.0.3"',
        (
            't.toml:16: peers[1].underlay[0]: "169.254.0.3" cannot be the address of a node'
            " (write its address on the underlay)"
        ),
    ),
    "no family in common": (
        'underlay = ["192.0.2.1/24", "2001:db8::1/64"]',
        'underlay = ["2001:db8::1/64"]',
        (
            "t.toml:11: peers[0].underlay: is IPv4 only, while node.underlay is IPv6 only"
            " (give both nodes an underlay address of one family)"
        ),
    ),
    "prefixes of two peers overlap": (
        '"10.244.3.0/24"',
        '"10.244.2.128/25"',
        (
            't.toml:17: peers[1].prefixes[0]: "10.244.2.128/25" overlaps peers[0].prefixes[0], 10.244.2.0/24'
            " (make the prefixes of nodes disjoint)"
        ),
    ),
    "prefix around another peer's": (
        '"10.244.3.0/24"',
        '"10.244.2.0/23"',
        (
            't.toml:17: peers[1].prefixes[0]: "10.244.2.0/23" overlaps peers[0].prefixes[0], 10.244.2.0/24'
            " (make the prefixes of nodes disjoint)"
        ),
    ),
    "peer has our prefix": (
        '"10.244.2.0/24"',
        '"10.244.0.0/16"',
        (
            't.toml:12: peers[0].prefixes[0]: "10.244.0.0/16" overlaps this node\'s own prefix 10.244.1.0/24'
            " (make the prefixes of nodes disjoint)"
        ),
    ),
    "prefix of ours twice": (
        '"fd00:1::/64"]',
        '"fd00:1::/64", "10.244.1.0/24"]',
        (
            't.toml:4: node.prefixes[2]: "10.244.1.0/24" overlaps this node\'s own prefix 10.244.1.0/24'
            " (make the prefixes of nodes disjoint)"
        ),
    ),
    "default route as prefix": (
        '"10.244.2.0/24"',
        '"0.0.0.0/0"',
        (
            't.toml:12: peers[0].prefixes[0]: "0.0.0.0/0" holds addresses of 0.0.0.0/8, which pods cannot have'
            " (use a private prefix; a default route is a [[routes]] entry)"
        ),
    ),
    "martian prefix": (
        '"fd00:3::/64"',
        '"fe80::/64"',
        (
            't.toml:17: peers[1].prefixes[1]: "fe80::/64" holds addresses of fe80::/10, which pods cannot have'
            " (use a private prefix; a default route is a [[routes]] entry)"
        ),
    ),
    "underlay inside a pod prefix": (
        '"192.0.2.2"',
        '"10.244.3.9"',
        (
            't.toml:11: peers[0].underlay[0]: "10.244.3.9" lies in the pod prefix 10.244.3.0/24 (peers[1].prefixes[0])'
            " (underlay and pods need addresses of their own)"
        ),
    ),
    # -- pods --------------------------------------------------------------------
    "pod twice": (
        'name = "db"',
        'name = "web"',
        't.toml:25: pods[1].name: "web" is also pods[0].name (remove or change one of the two)',
    ),
    "namespace and interface twice": (
        'namespace = "/run/netns/db"',
        'namespace = "web"',
        "t.toml:24: pods[1]: has the namespace and interface of pods[0] (give one of them another interface)",
    ),
    "pod without address": (
        'addresses = ["10.244.1.3"]',
        "addresses = []",
        "t.toml:27: pods[1].addresses: is empty (a pod has 1 to 16 addresses)",
    ),
    "pod with 17 addresses": (
        'addresses = ["10.244.1.3"]',
        "addresses = " + many(17, '"10.244.1.1{}"'),
        "t.toml:27: pods[1].addresses: has 17 addresses (a pod has 1 to 16 addresses)",
    ),
    "labels as a list": (
        'namespace = "web"',
        'namespace = "web"\nlabels = ["app=web"]',
        't.toml:22: pods[0].labels: a list is not a table of labels (write labels = { app = "web" })',
    ),
    "label that is no text": (
        'namespace = "web"',
        'namespace = "web"\nlabels = { app = 1 }',
        "t.toml:22: pods[0].labels.app: 1 is not text (write it in quotes)",
    ),
    "label that cannot be printed": (
        'namespace = "web"',
        'namespace = "web"\nlabels = { app = "\\n" }',
        't.toml:22: pods[0].labels.app: "\\n" is not a label (use printable ASCII, at most 512 characters)',
    ),
    "named port without a number": (
        'namespace = "web"',
        'namespace = "web"\nnamed_ports = ["http"]',
        (
            't.toml:22: pods[0].named_ports[0]: "http" is not a named port'
            ' (write name, number and protocol, like "http:8080" or "dns:53/udp")'
        ),
    ),
    "named port 0": (
        'namespace = "web"',
        'namespace = "web"\nnamed_ports = ["http:0"]',
        (
            't.toml:22: pods[0].named_ports[0]: "http:0" is not a named port'
            ' (write name, number and protocol, like "http:8080" or "dns:53/udp")'
        ),
    ),
    "pod elsewhere": (
        '"10.244.1.3"',
        '"10.244.2.3"',
        't.toml:27: pods[1].addresses[0]: "10.244.2.3" is in no prefix of this node (node.prefixes has 10.244.1.0/24)',
    ),
    "martian pod": (
        '"10.244.1.3"',
        '"127.0.0.1"',
        't.toml:27: pods[1].addresses[0]: "127.0.0.1" is in no prefix of this node (node.prefixes has 10.244.1.0/24)',
    ),
    "pod of a family we do not have": (
        '"10.244.1.0/24", "fd00:1::/64"',
        '"10.244.1.0/24"',
        't.toml:22: pods[0].addresses[1]: "fd00:1::2" is in no prefix of this node (node.prefixes has none of IPv6)',
    ),
    "pod is the gateway": (
        '"10.244.1.3"',
        '"10.244.1.1"',
        (
            't.toml:27: pods[1].addresses[0]: "10.244.1.1" is the gateway of the pods'
            " (choose another, or set node.gateway4)"
        ),
    ),
    "pod at the broadcast address": (
        '"10.244.1.3"',
        '"10.244.1.255"',
        (
            't.toml:27: pods[1].addresses[0]: "10.244.1.255" is the first or last address of 10.244.1.0/24, not a host\'s'
            " (choose one between 10.244.1.1 and 10.244.1.254)"
        ),
    ),
    "address of two pods": (
        '"10.244.1.3"',
        '"10.244.1.2"',
        't.toml:27: pods[1].addresses[0]: "10.244.1.2" is also pods[0].addresses[0] (remove or change one of the two)',
    ),
    "host port twice": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [{ host = 80, pod = 1 }, { host = 80, pod = 2, address = "192.0.2.1" }]',
        (
            "t.toml:28: pods[1].ports[1]: is tcp port 80 of the host, which pods[1].ports[0] has"
            " (choose another host port)"
        ),
    ),
    "host port of a family the pod lacks": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [{ host = 80, pod = 80, address = "2001:db8::1" }]',
        (
            't.toml:28: pods[1].ports[0].address: "2001:db8::1" is IPv6, of which the pod has no address'
            " (give the pod one, or name an address of the other family)"
        ),
    ),
    "host port that is no port": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [{ host = 0, pod = 80 }]',
        (
            "t.toml:28: pods[1].ports[0].host: 0 is not a whole number from 1 to 65535"
            " (write a number within the bounds)"
        ),
    ),
    "ports that are no tables": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [8080]',
        "t.toml:28: pods[1].ports[0]: 8080 is not a table (write a table in braces, like { host = 1 })",
    ),
    "rate in words": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nbandwidth = { egress = "fast" }',
        (
            't.toml:28: pods[1].bandwidth.egress: "fast" is not a rate'
            ' (write bits per second, like "500k", "100M" or "1G")'
        ),
    ),
    "rate of nothing": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nbandwidth = { ingress = "0" }',
        't.toml:28: pods[1].bandwidth.ingress: "0" is not a rate from 1k to 1000G (leave it out for no limit)',
    ),
    # -- Services ----------------------------------------------------------------
    "Services among our pods": (
        "[[routes]]",
        '[policy]\nservices = ["10.96.0.0/12", "10.244.1.128/25"]\n[[routes]]',
        (
            't.toml:30: policy.services[1]: "10.244.1.128/25" overlaps node.prefixes[0], 10.244.1.0/24, so that egress to it'
            " would not be judged (name the addresses of Services alone)"
        ),
    ),
    "Services around a peer's pods": (
        "[[routes]]",
        '[policy]\nservices = ["fd00:2::/31"]\n[[routes]]',
        (
            't.toml:30: policy.services[0]: "fd00:2::/31" overlaps peers[1].prefixes[1], fd00:3::/64, so that egress to it'
            " would not be judged (name the addresses of Services alone)"
        ),
    ),
    "Services around a node": (
        "[[routes]]",
        '[policy]\nservices = ["192.0.2.3/32"]\n[[routes]]',
        (
            't.toml:30: policy.services[0]: "192.0.2.3/32" overlaps peers[1].underlay[0], 192.0.2.3/32, so that egress to it'
            " would not be judged (name the addresses of Services alone)"
        ),
    ),
    "Services that a peer is sent": (
        "[[routes]]",
        '[policy]\nservices = ["198.18.1.0/24"]\n[[routes]]',
        (
            't.toml:30: policy.services[0]: "198.18.1.0/24" leads to a peer by routes[0].prefix, 198.18.0.0/15, and would'
            ' not be judged (add a route of 198.18.1.0/24 via "host", or leave the addresses out)'
        ),
    ),
    "Services of which a peer is sent a part": (
        "[[routes]]",
        '[policy]\nservices = ["198.16.0.0/12"]\n[[routes]]\nprefix = "198.16.0.0/12"\nvia = ["host"]\n[[routes]]',
        (
            't.toml:30: policy.services[0]: "198.16.0.0/12" leads to a peer by routes[1].prefix, 198.18.0.0/15, and would'
            ' not be judged (add a route of 198.16.0.0/12 via "host", or leave the addresses out)'
        ),
    ),
    # -- routes ------------------------------------------------------------------
    "route twice": (
        "[[routes]]",
        '[[routes]]\nprefix = "198.18.0.0/15"\nvia = ["host"]\n[[routes]]',
        't.toml:33: routes[1].prefix: "198.18.0.0/15" is also routes[0].prefix (remove or change one of the two)',
    ),
    "route to our prefix": (
        '"198.18.0.0/15"',
        '"10.244.1.0/24"',
        (
            't.toml:30: routes[0].prefix: "10.244.1.0/24" is this node\'s own prefix'
            " (remove the route, or write a part of the prefix)"
        ),
    ),
    "martian route": (
        '"198.18.0.0/15"',
        '"224.1.0.0/16"',
        (
            't.toml:30: routes[0].prefix: "224.1.0.0/16" lies in 224.0.0.0/4, whose packets are never forwarded'
            " (remove the route)"
        ),
    ),
    "route without next hop": (
        '["node-b", "node-c"]',
        "[]",
        "t.toml:31: routes[0].via: is empty (a route has 1 to 16 next hops)",
    ),
    "route with 17 next hops": (
        '["node-b", "node-c"]',
        many(17, '"node-{}"'),
        "t.toml:31: routes[0].via: has 17 next hops (a route has 1 to 16 next hops)",
    ),
    "next hop twice": (
        '["node-b", "node-c"]',
        '["node-b", "node-b"]',
        't.toml:31: routes[0].via[1]: "node-b" is also routes[0].via[0] (remove or change one of the two)',
    ),
    "misspelt next hop": (
        '["node-b", "node-c"]',
        '["node-bb"]',
        't.toml:31: routes[0].via[0]: "node-bb" is not a peer (did you mean "node-b"?)',
    ),
    "unknown next hop": (
        '["node-b", "node-c"]',
        '["192.0.2.2"]',
        't.toml:31: routes[0].via[0]: "192.0.2.2" is not a peer (add the peer, or name one that is there)',
    ),
    "special next hop among others": (
        '["node-b", "node-c"]',
        '["node-b", "host"]',
        't.toml:31: routes[0].via[1]: "host" stands beside other next hops (let it stand alone)',
    ),
    "host as next hop without a host port": (
        '["node-b", "node-c"]',
        '["host"]\n[host]\nenabled = false',
        't.toml:31: routes[0].via[0]: "host" is not there: host.enabled is false (set it to true)',
    ),
    # -- the daemon --------------------------------------------------------------
    "CPU twice": (
        "[network]",
        "[workers]\ncpus = [1, 1]\n[network]",
        "t.toml:7: workers.cpus[1]: 1 is also workers.cpus[0] (remove or change one of the two)",
    ),
    "negative CPU": (
        "[network]",
        "[workers]\ncpus = [-1]\n[network]",
        "t.toml:7: workers.cpus[0]: -1 is not the number of a CPU (CPUs are numbered from 0)",
    ),
    "too many CPUs": (
        "[network]",
        f"[workers]\ncpus = {list(range(65))}\n[network]",
        "t.toml:7: workers.cpus: names 65 CPUs (at most 64 workers are possible)",
    ),
    "CPUs and workers": (
        "[network]",
        "[workers]\ncount = 3\ncpus = [1, 2]\n[network]",
        "t.toml:8: workers.cpus: names 2 CPUs for 3 workers (name one CPU for each worker, or leave workers.count out)",
    ),
    "long socket path": (
        "[network]",
        f'[control]\nsocket = "/{"a" * 107}"\n[network]',
        (
            "t.toml:7: control.socket: is 108 bytes long, too long for the path of a socket"
            " (choose a path of at most 107 bytes)"
        ),
    ),
}


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(old, new, sentence):
    assert old in BASE
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace(old, new, 1), file="t.toml")
    assert str(caught.value).splitlines()[0] == sentence
    assert caught.value.exit_code == 2
    assert caught.value.line == int(sentence.split(":")[1])


def test_all_mistakes_at_once_in_the_order_of_lines():
    text = BASE.replace('"node-a"', "1").replace('"10.244.2.0/24"', '"10.244.2.1/24"').replace("via =", "vai =")
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert [mistake.key for mistake in caught.value.mistakes] == ["node.name", "peers[0].prefixes[0]", "routes[0].vai"]
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 12, 31]
    assert str(caught.value).count("\n") == 2


def test_services_beside_everybody_else():
    services = '[policy]\nservices = ["10.96.0.0/12", "198.18.1.0/24", "fd00:10::/108"]\n'
    to_host = '[[routes]]\nprefix = "198.18.1.0/24"\nvia = ["host"]\n[[routes]]'
    assert len(parse(BASE.replace("[[routes]]", services + to_host)).policy.services) == 3


def test_no_node_at_all():
    with pytest.raises(ConfigError) as caught:
        parse("")
    assert str(caught.value) == "towpath.toml: has no node (add [node])"


def test_host_name_that_cannot_be_a_node():
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace('name = "node-a"\n', ""), hostname="")
    assert str(caught.value) == (
        'towpath.toml: the node has no name, and the host name "" is not a name (add name = "node-a" under [node])'
    )


def test_nested_without_end():
    for text in ("a = " + "[" * 5000 + "]" * 5000, "a = " + "{b=" * 5000 + "1" + "}" * 5000):
        with pytest.raises(ConfigError, match="nested too deeply"):
            parse(text)


def test_number_beyond_reading():
    with pytest.raises(ConfigError, match=r"a value cannot be read: .* \(correct the value\)"):
        parse("a = " + "9" * 5000)


def test_long_value_is_cut():
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace('"192.0.2.2"', '"' + "x" * 5000 + '"'))
    assert len(str(caught.value)) < 250
    assert "xxx... is not an IP address" in str(caught.value)
