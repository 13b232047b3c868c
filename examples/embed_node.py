"""Run a node inside a program.

Without privileges the node below has a tunnel on the loopback and no pods.
As root, name a network namespace, and it gets an eth0 with 10.1.0.2:

    ip netns add blue
    python examples/embed_node.py blue &
    ip netns exec blue ping 10.1.0.1
"""

from __future__ import annotations

import sys
import tempfile
import time

from engine import Node, TowpathError, parse

BASE = """
[node]
name = "embedded"
underlay = ["127.0.0.1/8"]
prefixes = ["10.1.0.0/24"]

[network]
encapsulation = "udp"
port = {port}

[state]
directory = "{state}"

[host]
enabled = {host}

[[peers]]
name = "other"
underlay = ["127.0.0.2"]
prefixes = ["10.2.0.0/24"]
"""
POD = """
[[pods]]
name = "blue"
namespace = "{namespace}"
addresses = ["10.1.0.2"]
"""


def main(namespace: str = "", port: int = 8285) -> None:
    with tempfile.TemporaryDirectory() as state:
        text = BASE.format(port=port, state=state, host=str(bool(namespace)).lower())
        config = parse(text + (POD.format(namespace=namespace) if namespace else ""), file="embed_node.py")
        with Node(config) as node:
            for route in node.routes().routes:
                print(f"{route.prefix:>14}  {', '.join(via.peer or via.target for via in route.via)}")
            found = node.route_get("10.2.0.7").route
            assert found is not None
            print(f"10.2.0.7 goes to {found.via[0].peer} at {found.via[0].remote}, at most {found.via[0].mtu} bytes")

            more = parse(text.replace("10.2.0.0/24", "10.3.0.0/24"), file="embed_node.py")
            print(f"another configuration: {node.reload(more if not namespace else config).changed} changes")
            if namespace:
                print("serving until interrupted")
                while True:
                    time.sleep(3600)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except TowpathError as error:
        sys.exit(f"embed_node.py: {error}")
    except KeyboardInterrupt:
        pass
