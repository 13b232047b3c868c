"""What an ADD makes, decided before anything is made: routes, names, families.

Owns: the rules by which wishes become an Attachment.
Never: does I/O.
Invariant: the same call in the same surroundings plans the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from engine.cni.answer import CniError, Code
from engine.cni.call import Call
from engine.cni.configuration import Configuration
from engine.config import Config
from engine.config.leaf import Mistake, check_leads_to_pod
from engine.model import Address, Pod, PortMapping, Prefix
from engine.pod.residents import PortWish

_NAMESPACE, _NAME = "K8S_POD_NAMESPACE", "K8S_POD_NAME"


def families(configuration: Configuration, pools: Iterable[Prefix]) -> tuple[int, ...]:
    """The IP versions of the addresses to give: as asked, else those that there are pools of."""
    offered = configuration.pools or tuple(pools)
    return configuration.families or tuple(sorted({pool.version for pool in offered}))


def kubernetes_name(arguments: dict[str, str]) -> tuple[str, str]:
    """Namespace and name of the pod as its orchestrator calls it; empty when it did not say."""
    return arguments.get(_NAMESPACE, "")[:253], arguments.get(_NAME, "")[:253]


def label(configuration: Configuration, namespace: str, name: str) -> str:
    """The readable part of the pod's name here."""
    return f"{namespace}/{name}" if namespace and name else name or configuration.name


def sticky_identity(configuration: Configuration, call: Call, namespace: str, name: str) -> str:
    """Whom an address is kept for; nobody when the pod has no name that it will have again."""
    if not (configuration.sticky and name):
        return ""
    return f"{configuration.name}/{namespace}/{name}/{call.interface}"


def routes(
    configuration: Configuration,
    given: Sequence[Prefix],
    addresses: Sequence[Address],
    present: Collection[Prefix],
    network: Iterable[Prefix],
) -> tuple[Prefix, ...] | None:
    """What leaves through the interface; None: everything. `present`: what leaves through others of the container.

    Without a default route and without routes of its own a family leads to the
    pods' `network` alone, as far as no other interface does.
    """
    versions = sorted({address.version for address in addresses})
    explicit = {prefix.version for prefix in given if prefix.prefixlen == 0}
    wanted = versions if configuration.default_route else explicit
    defaults = {prefix.version for prefix in present if prefix.prefixlen == 0}
    clash = [version for version in wanted if version in defaults]
    if clash and configuration.default_route is not False:
        what = f"the container has an IPv{clash[0]} default route already"
        raise CniError(Code.INVALID_CONFIGURATION, what, "set defaultRoute to false, or leave it out")
    default = {version for version in versions if version not in defaults and configuration.default_route is not False}
    own = [prefix for prefix in given if prefix.prefixlen and prefix.version in versions]
    twice = [prefix for prefix in own if prefix in present]
    if twice:
        what = f"the container has a route to {twice[0]} already"
        raise CniError(Code.INVALID_CONFIGURATION, what, "leave it out of ipam.routes")
    if set(versions) == default and not own:
        return None
    found = [prefix for prefix in everything() if prefix.version in default]
    for version in versions:
        here = [prefix for prefix in own if prefix.version == version]
        if version not in default and not here:
            here = [prefix for prefix in network if prefix.version == version and prefix not in present]
        found += here
    return tuple(dict.fromkeys(found))


def check_ports(ports: Sequence[PortMapping], others: Iterable[Pod]) -> None:
    """Refuse a port of the host that another pod has, that is asked for twice, or by which nothing could arrive."""
    taken: dict[tuple[str, int], list[tuple[Address | None, str]]] = {}
    for pod in others:
        for port in pod.ports:
            taken.setdefault((port.protocol, port.host_port), []).append((port.host_address, pod.name))
    for port in ports:
        _check_host_address(port.host_address)
        present = taken.setdefault((port.protocol, port.host_port), [])
        for address, owner in present:
            if None in (address, port.host_address) or address == port.host_address:
                what = f"{port.protocol} port {port.host_port} of the host belongs to {owner}"
                raise CniError(Code.PORT_TAKEN, what, "choose another hostPort")
        present.append((port.host_address, "the same container"))


def _check_host_address(address: Address | None) -> None:
    """Other plugins take any address, and do without what the pod has no address for; so do we."""
    if address is None:
        return
    try:
        check_leads_to_pod(address)
    except Mistake as mistake:
        raise CniError(Code.INVALID_CONFIGURATION, f"portMappings.hostIP {mistake.what}", mistake.remedy) from None


def wish(port: PortMapping) -> PortWish:
    address = "" if port.host_address is None else str(port.host_address)
    return PortWish(port.host_port, port.pod_port, port.protocol, address)


def everything() -> tuple[Prefix, ...]:
    from engine.desired.compute import DEFAULT_ROUTES

    return tuple(DEFAULT_ROUTES.values())


def check_addresses(addresses: Sequence[Address], config: Config, used: Collection[Address]) -> None:
    """Refuse addresses that the network would not look for here, or that somebody has."""
    for address in addresses:
        if not any(address in prefix for prefix in config.node.prefixes if prefix.version == address.version):
            known = ", ".join(map(str, config.node.prefixes))
            what = f"address {address} is in no prefix of this node"
            raise CniError(Code.INVALID_CONFIGURATION, what, f"node.prefixes has {known}")
        if address in config.gateways.values():
            raise CniError(
                Code.ADDRESS_TAKEN, f"address {address} is the gateway of the pods", "reserve it in the IPAM plugin"
            )
        if address in used:
            raise CniError(Code.ADDRESS_TAKEN, f"address {address} belongs to another pod")
