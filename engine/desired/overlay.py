"""Encapsulated travel: tunnel ports, and the next hop to a peer through one of them.

Owns: which local and remote address carry a prefix, MACs, ports and VNIs by profile.
Never: decides whether a peer is reached by a tunnel at all (routed.py).
Invariant: a next hop names a tunnel port that exists, of its remote's family.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from engine.config.profile import PROFILES
from engine.desired.addressing import inner_mtu, path_mtu, shares_subnet
from engine.model import Address, Facts, Interface, Overlay, Peer, TunnelPort, Underlay, Via

Tunnelled = Literal["vxlan", "udp", "ipip"]


def vtep_mac(name: str, version: int) -> bytes:
    """Calico's rule, which Towpath shares: 0x66 and the start of the SHA-1 of the node's name."""
    text = name if version == 4 else f"{name}-v6"
    return b"\x66" + hashlib.sha1(text.encode(), usedforsecurity=False).digest()[:5]


def tunnel_port(facts: Facts, encapsulation: Tunnelled, local: Address) -> TunnelPort:
    """The socket that carries `encapsulation` on `local`."""
    overlay = facts.overlay
    numbers = PROFILES[overlay.profile, encapsulation]
    port, vni = _configured(overlay, encapsulation)
    port, vni = port or numbers.port, vni or numbers.vni
    mac = b"\0" * 6
    if encapsulation == "vxlan":
        mac = (overlay.mac if local.version == 4 else overlay.mac6) or vtep_mac(facts.node.name, local.version)
    return TunnelPort(
        key=_key(encapsulation, local, port),
        encapsulation=encapsulation,
        local=local,
        port=port,
        vni=vni,
        mac=mac,
        source_ports=numbers.source_ports,
        copy_dscp=overlay.copy_dscp,
        offload=overlay.offload,
    )


def _configured(overlay: Overlay, encapsulation: Tunnelled) -> tuple[int, int]:
    """The port and VNI that were set belong to the node's own encapsulation, not to one set for a peer."""
    return (overlay.port, overlay.vni) if overlay.encapsulation == encapsulation else (0, 0)


def _key(encapsulation: Tunnelled, local: Address, port: int) -> str:
    host = f"[{local}]" if local.version == 6 and port else str(local)
    return f"{encapsulation}/{host}:{port}" if port else f"{encapsulation}/{host}"


def outer_pair(local: Iterable[Interface], peer: Peer, inner: int) -> tuple[Interface, Address] | None:
    """Our address and the peer's for packets of version `inner`; None when no family is shared.

    The family of the inner packet is preferred: peers of other projects carry each family over itself.
    Then a local address in the peer's subnet, then the order in which the addresses are given.
    """
    ends = tuple(local)
    for version in (inner, 10 - inner):
        ours = [end for end in ends if end.version == version]
        theirs = [address for address in peer.underlay if address.version == version]
        if ours and theirs:
            remote = theirs[0]
            return next((end for end in ours if shares_subnet((end,), remote)), ours[0]), remote
    return None


def tunnel_via(
    facts: Facts, peer: Peer, encapsulation: Tunnelled, pair: tuple[Interface, Address], underlay: Underlay
) -> Via:
    """The next hop to `peer` between the two addresses of `pair`."""
    local, remote = pair
    port = tunnel_port(facts, encapsulation, local.ip)
    mac = b"\0" * 6
    if encapsulation == "vxlan":
        mac = (peer.mac if remote.version == 4 else peer.mac6) or vtep_mac(peer.name, remote.version)
    return Via(
        kind="tunnel",
        target=port.key,
        peer=peer.name,
        remote=remote,
        remote_port=port.port,
        mac=mac,
        mtu=inner_mtu(path_mtu(remote, underlay), encapsulation, remote.version, facts),
    )
