"""Which address of a node its pods see as their router.

Owns: that one rule, which the checks and the desired state share.
Never: knows where prefixes come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from engine.model import Prefix

POINT_TO_POINT = 1  # host bits of a prefix too short to keep its first address free


def first_host4(prefixes: Iterable[Prefix]) -> IPv4Address | None:
    """The first address after the network's own in the first IPv4 prefix; None without one."""
    first = next((prefix for prefix in prefixes if isinstance(prefix, IPv4Network)), None)
    return None if first is None else first.network_address + (first.prefixlen < first.max_prefixlen - POINT_TO_POINT)


def first_host6(prefixes: Iterable[Prefix]) -> IPv6Address | None:
    """The first address after the network's own in the first IPv6 prefix; None without one."""
    first = next((prefix for prefix in prefixes if isinstance(prefix, IPv6Network)), None)
    return None if first is None else first.network_address + (first.prefixlen < first.max_prefixlen - POINT_TO_POINT)
