"""Mistakes about this node, its network and its daemon."""

# what is replaced, by what, the first sentence
MISTAKES = {
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
