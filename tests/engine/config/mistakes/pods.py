"""Mistakes about pods."""

from tests.engine.config.mistakes.base import many

# what is replaced, by what, the first sentence
MISTAKES = {
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
    "host port of the IPv6 loopback": (
        'addresses = ["10.244.1.2", "fd00:1::2"]',
        'addresses = ["10.244.1.2", "fd00:1::2"]\nports = [{ host = 80, pod = 80, address = "::1" }]',
        (
            't.toml:23: pods[0].ports[0].address: "::1" cannot lead to a pod: the kernel lets no packet of ::1 leave by'
            ' a device (write "127.0.0.1", or another address of the host)'
        ),
    ),
    "host port of no address": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [{ host = 80, pod = 80, address = "0.0.0.0" }]',
        (
            't.toml:28: pods[1].ports[0].address: "0.0.0.0" is no address of the host'
            " (leave address out to open it on all)"
        ),
    ),
    "host port of many hosts": (
        'addresses = ["10.244.1.3"]',
        'addresses = ["10.244.1.3"]\nports = [{ host = 80, pod = 80, address = "224.0.0.1" }]',
        't.toml:28: pods[1].ports[0].address: "224.0.0.1" is no address of the host (name one of its own)',
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
}
