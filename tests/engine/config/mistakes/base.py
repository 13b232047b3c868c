"""The configuration without a mistake, of which every mistake changes one place."""

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


def many(count, text):
    return "[" + ", ".join(text.format(n) for n in range(2, count + 2)) + "]"
