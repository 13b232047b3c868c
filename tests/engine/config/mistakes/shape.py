"""Mistakes in TOML itself, and in which keys and types stand where."""

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
}
