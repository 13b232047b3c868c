"""The host's rules as text for `nft`: masquerade, ports of the host that lead to pods, and who may speak as a pod.

Owns: one table of our own, whole, and what a listing of it says of those ports and of who made it.
Never: runs anything, or writes into a table of somebody else.
Invariant: every word in the text comes from an address, a number or a name
checked here, so that no value can say more than itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import cast

from engine.model import HostRules, PortForward, Prefix, Protocol

KUBE_PROXY_MARK = 0x4000  # what kube-proxy masquerades itself
_FAMILIES = {4: "ip", 6: "ip6"}
_KINDS = {4: "ipv4_addr", 6: "ipv6_addr"}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def table_name(device: str) -> str:
    """Of the node whose host port is `device`: two nodes on one host have a table each."""
    return "towpath" if device == "towpath0" else "towpath_" + re.sub(r"[^A-Za-z0-9]", "_", device)


def ruleset(rules: HostRules, maker: str) -> str:
    """The table in one transaction: what stood there before is replaced at once. `maker`: the mark of who makes it."""
    name = table_name(rules.device)
    body = "\n".join((_signature(maker), *_sets(rules), *_forwards(rules), *_leaving(rules), *_speaking(rules)))
    return f"{removal(rules.device)}table inet {name} {{\n{body}\n}}\n"


def removal(device: str) -> str:
    name = table_name(device)
    return f"table inet {name} {{ }}\ndelete table inet {name}\n"  # the first line makes the second succeed always


def _signature(maker: str) -> str:
    """A chain that nothing leads to: not every kernel keeps comments."""
    if not re.fullmatch(r"[0-9a-f]+", maker):
        raise ValueError(f"{maker!r} is no mark")
    return f"  chain made_by_{maker} {{ }}"


def is_made_by(maker: str, listing: str) -> bool:
    return f"chain made_by_{maker} {{" in listing


def _sets(rules: HostRules) -> Iterator[str]:
    for version in (4, 6):
        yield from _set(f"pods{version}", version, rules.pods)
        if rules.masquerade:
            yield from _set(f"cluster{version}", version, rules.cluster)


def _set(name: str, version: int, prefixes: Iterable[Prefix]) -> Iterator[str]:
    members = ", ".join(str(prefix) for prefix in prefixes if prefix.version == version)
    elements = f" elements = {{ {members} }}" if members else ""
    yield f"  set {name} {{ type {_KINDS[version]}; flags interval; auto-merge;{elements} }}"


# -- from the host's ports to pods ---------------------------------------------
def _forwards(rules: HostRules) -> Iterator[str]:
    if not rules.forwards:
        return
    yield "  chain host_ports {"
    yield from (f"    {_forward(forward)}" for forward in rules.forwards)
    yield "  }"
    for hook in ("prerouting", "output"):
        yield f"  chain {hook} {{"
        yield f"    type nat hook {hook} priority -100; policy accept;"
        yield "    fib daddr type local jump host_ports"
        yield "  }"


def _forward(forward: PortForward) -> str:
    family = _FAMILIES[forward.pod_address.version]
    version = f"meta nfproto ipv{forward.pod_address.version}"
    at = f"{family} daddr {forward.host_address}" if forward.host_address is not None else version
    host = str(forward.pod_address) if forward.pod_address.version == 4 else f"[{forward.pod_address}]"
    ports = f"{forward.protocol} dport {int(forward.host_port)}"
    return f"{at} {ports} dnat {family} to {host}:{int(forward.pod_port)}"


_LISTED = re.compile(
    r"^\s*(?:meta nfproto ipv[46]|ip6? daddr ([0-9a-f.:]+))"
    r" (tcp|udp|sctp) dport (\d+) dnat ip6? to \[?([0-9a-f.:]+?)\]?:(\d+)$",
    re.MULTILINE,
)


def forwards_in(listing: str) -> frozenset[PortForward]:
    """What `nft` lists as we write it; what somebody else wrote in another way is none of ours."""
    return frozenset(
        PortForward(cast(Protocol, protocol), int(port), ip_address(at) if at else None, ip_address(pod), int(pod_port))
        for at, protocol, port, pod, pod_port in _LISTED.findall(listing)
    )


# -- what leaves ---------------------------------------------------------------
def _leaving(rules: HostRules) -> Iterator[str]:
    """Only what pods send out of the cluster takes the host's address, and what could not be answered otherwise."""
    device = _quoted(rules.device)
    yield "  chain postrouting {"
    yield "    type nat hook postrouting priority srcnat; policy accept;"
    yield f"    meta mark & {KUBE_PROXY_MARK:#010x} == {KUBE_PROXY_MARK:#010x} return"
    if rules.forwards:
        yield f"    oifname {device} ip saddr 127.0.0.0/8 masquerade"
    for address in sorted({forward.pod_address for forward in rules.forwards}, key=lambda a: (a.version, int(a))):
        family = _FAMILIES[address.version]
        yield f"    oifname {device} {family} saddr {address} {family} daddr {address} masquerade"
    for version in (4, 6) if rules.masquerade else ():
        yield f"    oifname {device} {_from_outside_to_other_nodes(version)} masquerade fully-random"
    yield f"    oifname {device} return"
    for version in (4, 6) if rules.masquerade else ():
        family = _FAMILIES[version]
        yield f"    {family} saddr @pods{version} {family} daddr @cluster{version} return"
        yield f"    {family} saddr @pods{version} {family} daddr != {_MULTICAST[version]} masquerade fully-random"
    yield "  }"


def _from_outside_to_other_nodes(version: int) -> str:
    """Another node takes from us what comes from our pods and from us, and answers nobody else through us."""
    family, cluster = _FAMILIES[version], f"@cluster{version}"
    return f"{family} saddr != {cluster} {family} daddr {cluster} {family} daddr != @pods{version}"


# -- who may speak as a pod ------------------------------------------------------
def _speaking(rules: HostRules) -> Iterator[str]:
    """What the host hands back to us with a pod's address must have come from us: a service's address was changed."""
    device = _quoted(rules.device)
    yield "  chain forward {"
    yield "    type filter hook forward priority filter - 5; policy accept;"
    for version in (4, 6):
        yield f"    oifname {device} iifname != {device} {_FAMILIES[version]} saddr @pods{version} drop"
    yield "  }"


def _quoted(device: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,15}", device):
        raise ValueError(f"{device!r} is no device name")
    return f'"{device}"'
