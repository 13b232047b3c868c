"""Mistakes within one value: addresses, prefixes, names, paths."""

# what is replaced, by what, the first sentence
MISTAKES = {
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
}
