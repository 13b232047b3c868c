"""Mistakes about peers."""

# what is replaced, by what, the first sentence
MISTAKES = {
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
}
