"""Mistakes about routes, and about the addresses of Services, which must not be routed elsewhere."""

from tests.engine.config.mistakes.base import many

# what is replaced, by what, the first sentence
MISTAKES = {
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
}
