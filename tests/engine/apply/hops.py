"""A tunnel, next hops and prefixes that tests of the forwarding tables share."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from engine.model import TunnelPort, Via

TUNNEL = TunnelPort("vxlan/192.0.2.1:4789", "vxlan", ip_address("192.0.2.1"), 4789, 1)
TO_B = Via("tunnel", TUNNEL.key, "b", ip_address("192.0.2.2"), 4789, b"\2" * 6, 1450)
TO_C = replace(TO_B, peer="c", remote=ip_address("192.0.2.3"))
TO_POD = Via("pod", "a", mtu=1450)
P1, P2, P3 = (ip_network(f"10.{i}.0.0/16") for i in (1, 2, 3))
