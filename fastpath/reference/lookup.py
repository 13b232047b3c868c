"""The golden twin of the tables: longest prefix, and who may send from where.

Owns: the meaning of a route and of the guards for pods and for peers.
Never: orders or caches anything: each question looks at every prefix.
Invariant: a prefix holds addresses of its own family alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import TypeVar

from fastpath.reference.packet import Address, Parsed, Prefix, drop_if

Value = TypeVar("Value")
LINK_LOCAL: tuple[Prefix, ...] = (IPv4Network("169.254.0.0/16"),)


def within(address: Address, prefixes: Iterable[Prefix]) -> bool:
    # `in` would see the IPv4 address inside of a mapped one on some Python versions
    return any(
        address.version == p.version
        and int(address) >> (p.max_prefixlen - p.prefixlen) == int(p.network_address) >> (p.max_prefixlen - p.prefixlen)
        for p in prefixes
    )


def route(routes: Mapping[Prefix, Value], address: Address) -> tuple[Prefix, Value] | None:
    """Longest prefix that holds the address."""
    fitting = [prefix for prefix in routes if within(address, (prefix,))]
    if not fitting:
        return None
    longest = max(fitting, key=lambda prefix: prefix.prefixlen)
    return longest, routes[longest]


def guard_pod(p: Parsed, addresses: Iterable[Address]) -> None:
    drop_if(within(p.source, LINK_LOCAL), "martian")
    drop_if(p.source not in set(addresses), "guard_pod_source")


def guard_peer(p: Parsed, peer: int, owners: Mapping[Prefix, int | None]) -> None:
    """`owners` maps a prefix to the peer behind which it lies, None to this node itself."""
    owner = route(owners, p.source)
    drop_if(owner is None, "guard_peer_source")
    assert owner is not None
    drop_if(owner[1] is None, "guard_own_source")
    drop_if(owner[1] != peer, "guard_peer_source")
    target = route(owners, p.destination)
    drop_if(target is None or target[1] is not None, "guard_not_local")
