"""A node with a pod and two peers, and what is asked of a state computed for it."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from engine.model import Facts, Node, Peer, Pod, Underlay

NODE = Node(
    "node-a",
    (ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
    (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64")),
)
NODE4 = replace(NODE, underlay=NODE.underlay[:1], prefixes=NODE.prefixes[:1])
NEAR = Peer(
    "near",
    (ip_address("192.0.2.2"), ip_address("2001:db8::2")),
    (ip_network("10.244.2.0/24"), ip_network("fd00:2::/64")),
)
FAR = Peer("far", (ip_address("198.51.100.3"),), (ip_network("10.244.3.0/24"),))
WEB = Pod("web", "/run/netns/web", (ip_address("10.244.1.2"), ip_address("fd00:1::2")))
SEEN = Underlay()


def route(desired, prefix):
    return desired.routes[ip_network(prefix)]


def only(desired, prefix):
    (via,) = route(desired, prefix)
    return via


def facts(**changes):
    return Facts(**{"node": NODE, "pods": (WEB,), "peers": (NEAR, FAR), **changes})
