"""What must hold between the values of a configuration.

Owns: every check that compares two values or knows what an address is for.
Never: parses, or asks the kernel.
Invariant: a configuration that passes can be computed with: names are unique,
prefixes disjoint, every peer reachable in a family that we have too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network

from engine.config.document import Path
from engine.config.leaf import Mistake, check_leads_to_pod, quote
from engine.config.profile import CALICO_NODEPORT_VNI, PROFILES
from engine.config.report import Report, key_text, nearest
from engine.config.schema import Config, PeerSection
from engine.config.service_ranges import service_ranges
from engine.model import SPECIAL_NEXT_HOPS, Address, Prefix

MAX_POD_ADDRESSES = 16
MAX_NEXT_HOPS = 16
MIN_MTU6 = 1280  # RFC 8200
LONGEST_SOCKET_PATH = 107  # sockaddr_un, less the final zero

# Addresses that no pod may have and no peer may announce.
_MARTIANS: tuple[Prefix, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(IPv6Network, ("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8")),
)
# The underlay may be the loopback: that is how nodes are tried out on one host.
_LOOPBACKS: tuple[Prefix, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def all_rules(config: Config, report: Report) -> tuple[Callable[[], None], ...]:
    rules = (
        *(node, network, families, peers, peer_encapsulations, peer_underlays, prefixes, underlays_outside),
        *(pods, pod_addresses, pod_ports, routes, next_hops, bare, workers, ipam, service_ranges, paths),
    )
    return tuple(partial(rule, config, report) for rule in rules)


# -- this node -----------------------------------------------------------------
def node(config: Config, report: Report) -> None:
    section = config.node
    if not section.prefixes:
        report.add(("node", "prefixes"), "is empty", 'add the pod prefix of this node, like "10.244.1.0/24"')
    if section.underlay and section.interface is not None:
        remedy = "keep underlay for fixed addresses, or interface to take those of a device"
        report.add(("node", "interface"), "is given beside node.underlay", remedy)
    for index, interface in enumerate(section.underlay):
        _underlay_address(interface.ip, ("node", "underlay", index), report)
    unique(((("node", "underlay", i), address.ip) for i, address in enumerate(section.underlay)), report)
    for version, key, gateway in ((4, "gateway4", section.gateway4), (6, "gateway6", section.gateway6)):
        if gateway is not None and section.prefixes:
            _inside_own(gateway, ("node", key), config, report, f"IPv{version} prefix of this node")


def _underlay_address(address: Address, path: Path, report: Report) -> None:
    if any(address in martian for martian in _MARTIANS) and not any(address in loop for loop in _LOOPBACKS):
        report.add(path, f"{quote(str(address))} cannot be the address of a node", "write its address on the underlay")


def _inside_own(address: Address, path: Path, config: Config, report: Report, noun: str) -> None:
    """The address is a host's, in one of our prefixes."""
    own = [prefix for prefix in config.node.prefixes if prefix.version == address.version]
    home = next((prefix for prefix in own if address in prefix), None)
    if home is None:
        known = ", ".join(map(str, own)) or f"none of IPv{address.version}"
        report.add(path, f"{quote(str(address))} is in no {noun}", f"node.prefixes has {known}")
    elif home.max_prefixlen - home.prefixlen >= 2 and address in _ends(home):
        remedy = f"choose one between {home.network_address + 1} and {home.broadcast_address - 1}"
        report.add(path, f"{quote(str(address))} is the first or last address of {home}, not a host's", remedy)


def _ends(prefix: Prefix) -> tuple[Address, ...]:
    if isinstance(prefix, IPv4Network):
        return (prefix.network_address, prefix.broadcast_address)
    return (prefix.network_address,)  # the subnet-router anycast address; IPv6 has no broadcast


# -- the network ---------------------------------------------------------------
def network(config: Config, report: Report) -> None:
    section = config.network
    encapsulation = config.encapsulation
    if (section.profile, encapsulation) not in PROFILES:
        known = ", ".join(name for profile, name in PROFILES if profile == section.profile)
        report.add(("network", "profile"), f"{section.profile} has no encapsulation {encapsulation}", f"it has {known}")
    if section.port is not None and encapsulation not in {"vxlan", "udp"}:
        report.add(("network", "port"), f"means nothing with encapsulation {encapsulation}", "remove it")
    if section.vni is not None and encapsulation != "vxlan":
        report.add(("network", "vni"), f"means nothing with encapsulation {encapsulation}", "remove it")
    if section.vni == CALICO_NODEPORT_VNI:
        report.add(("network", "vni"), f"{section.vni} is reserved for Calico's node ports", "choose another")
    ipv6 = any(prefix.version == 6 for prefix in config.node.prefixes)
    if ipv6 and section.mtu is not None and section.mtu < MIN_MTU6:
        what = f"{section.mtu} is too small for the IPv6 prefixes of this node"
        report.add(("network", "mtu"), what, f"IPv6 needs {MIN_MTU6} bytes; raise it or remove the IPv6 prefixes")


def families(config: Config, report: Report) -> None:
    """Each peer has an underlay address of a family that we have too."""
    own = {interface.version for interface in config.node.underlay}
    for index, peer in enumerate(config.peers):
        theirs = {address.version for address in peer.underlay}
        if own and theirs and not own & theirs:
            what = f"is IPv{theirs.pop()} only, while node.underlay is IPv{own.copy().pop()} only"
            report.add(("peers", index, "underlay"), what, "give both nodes an underlay address of one family")


def peer_encapsulations(config: Config, report: Report) -> None:
    profile = config.network.profile
    for index, peer in enumerate(config.peers):
        if peer.encapsulation is not None and (profile, peer.encapsulation) not in PROFILES:
            what = f"profile {profile} has no encapsulation {peer.encapsulation}"
            report.add(("peers", index, "encapsulation"), what, "choose another encapsulation or profile")


def bare(config: Config, report: Report) -> None:
    """Packets without encapsulation travel through the host's kernel, each family over its own."""
    if not config.host.enabled and (config.network.when == "cross-subnet" or _bare_peers(config)):
        what = "is false, but packets without encapsulation travel through the host"
        report.add(("host", "enabled"), what, "set it to true, or encapsulate always")
    for name, (index, versions) in _bare_peers(config).items():
        wanted = [
            *((prefix, ("peers", index, "prefixes", i)) for i, prefix in enumerate(config.peers[index].prefixes)),
            *((route.prefix, ("routes", i, "prefix")) for i, route in enumerate(config.routes) if name in route.via),
        ]
        for prefix, path in wanted:
            if versions and prefix.version not in versions:
                what = f"{quote(str(prefix))} cannot travel bare to {name}, whose underlay has no IPv{prefix.version}"
                remedy = f"add an IPv{prefix.version} address to peers[{index}].underlay, or encapsulate"
                report.add(path, what, remedy)


def _bare_peers(config: Config) -> dict[str, tuple[int, set[int]]]:
    """The peers that are never reached by a tunnel: their numbers, and the families of their underlay."""
    return {
        peer.name: (index, {address.version for address in peer.underlay})
        for index, peer in enumerate(config.peers)
        if (peer.encapsulation or config.encapsulation) == "none"
    }


# -- peers ---------------------------------------------------------------------
def peers(config: Config, report: Report) -> None:
    unique(((("peers", i, "name"), peer.name) for i, peer in enumerate(config.peers)), report)
    for index, peer in enumerate(config.peers):
        path: Path = ("peers", index, "name")
        if peer.name == config.node.name:
            report.add(path, f"{quote(peer.name)} is this node itself", "remove the peer, or rename one of the two")
        if peer.name in SPECIAL_NEXT_HOPS:
            report.add(path, f"{quote(peer.name)} has a meaning of its own in routes", "choose another name")


def peer_underlays(config: Config, report: Report) -> None:
    own = {interface.ip for interface in config.node.underlay}
    for index, peer in enumerate(config.peers):
        if not peer.underlay:
            report.add(("peers", index, "underlay"), "is empty", "add the address of the node on the underlay")
        for number, address in enumerate(peer.underlay):
            path: Path = ("peers", index, "underlay", number)
            _underlay_address(address, path, report)
            if address in own:
                what = f"{quote(str(address))} is this node's own address"
                report.add(path, what, f"write the address of {peer.name}, or remove the peer")
    unique(_peer_addresses(config.peers), report)


def _peer_addresses(sections: Iterable[PeerSection]) -> Iterator[tuple[Path, Address]]:
    for index, peer in enumerate(sections):
        for number, address in enumerate(peer.underlay):
            yield ("peers", index, "underlay", number), address


def prefixes(config: Config, report: Report) -> None:
    """No two prefixes overlap, ours and our peers' alike, and none is martian."""
    for prefix, path in _prefixes(config):
        martian = _martian(prefix)
        if martian is not None:
            what = f"{quote(str(prefix))} holds addresses of {martian}, which pods cannot have"
            report.add(path, what, "use a private prefix; a default route is a [[routes]] entry")
    owned = [(prefix, path) for prefix, path in _prefixes(config) if _martian(prefix) is None]
    owned.sort(key=lambda entry: (entry[0].version, int(entry[0].network_address), entry[0].prefixlen))
    around: list[tuple[Prefix, Path]] = []
    for prefix, path in owned:
        while around and prefix.network_address not in around[-1][0]:
            around.pop()
        if around:
            # Tell it at the later key: the earlier one was there first.
            (first, there), (second, here) = sorted((around[-1], (prefix, path)), key=lambda entry: _order(entry[1]))
            whose = "this node's own prefix" if there[0] == "node" else f"{key_text(there)},"
            what = f"{quote(str(second))} overlaps {whose} {first}"
            report.add(here, what, "make the prefixes of nodes disjoint")
        around.append((prefix, path))


def _order(path: Path) -> tuple[int, ...]:
    return (path[0] != "node", *(part for part in path if isinstance(part, int)))


def _prefixes(config: Config) -> Iterator[tuple[Prefix, Path]]:
    for number, prefix in enumerate(config.node.prefixes):
        yield prefix, ("node", "prefixes", number)
    for index, peer in enumerate(config.peers):
        for number, prefix in enumerate(peer.prefixes):
            yield prefix, ("peers", index, "prefixes", number)


def _martian(prefix: Prefix) -> Prefix | None:
    """The range that pods cannot have and the prefix holds a part of."""
    return next((martian for martian in _MARTIANS if overlaps(prefix, martian)), None)


def overlaps(left: Prefix, right: Prefix) -> bool:
    if isinstance(left, IPv4Network):
        return isinstance(right, IPv4Network) and left.overlaps(right)
    return isinstance(right, IPv6Network) and left.overlaps(right)


def within(inner: Prefix, outer: Prefix) -> bool:
    return overlaps(inner, outer) and inner.prefixlen >= outer.prefixlen


def underlays_outside(config: Config, report: Report) -> None:
    """A tunnel whose end lies in a pod prefix would have to travel through itself."""
    ends: list[tuple[Path, Address]] = [
        *((("node", "underlay", i), interface.ip) for i, interface in enumerate(config.node.underlay)),
        *_peer_addresses(config.peers),
    ]
    homes = {prefix: path for prefix, path in _prefixes(config) if _martian(prefix) is None}
    lengths = {(prefix.version, prefix.prefixlen) for prefix in homes}
    for path, address in ends:
        for length in sorted(length for version, length in lengths if version == address.version):
            around = ip_network((address, length), strict=False)
            if around in homes:
                what = f"{quote(str(address))} lies in the pod prefix {around} ({key_text(homes[around])})"
                report.add(path, what, "underlay and pods need addresses of their own")


# -- pods ----------------------------------------------------------------------
def pods(config: Config, report: Report) -> None:
    unique(((("pods", i, "name"), pod.name) for i, pod in enumerate(config.pods)), report)
    devices: dict[tuple[str, str], Path] = {}
    for index, pod in enumerate(config.pods):
        first = devices.setdefault((pod.namespace, pod.interface), ("pods", index))
        if first != ("pods", index):
            what = f"has the namespace and interface of {key_text(first)}"
            report.add(("pods", index), what, "give one of them another interface")
        if not 1 <= len(pod.addresses) <= MAX_POD_ADDRESSES:
            what = f"has {len(pod.addresses)} addresses" if pod.addresses else "is empty"
            report.add(("pods", index, "addresses"), what, f"a pod has 1 to {MAX_POD_ADDRESSES} addresses")


def pod_addresses(config: Config, report: Report) -> None:
    gateways = {gateway: name for name, gateway in config.gateways.items()}
    places = [
        (("pods", index, "addresses", number), address)
        for index, pod in enumerate(config.pods)
        for number, address in enumerate(pod.addresses)
    ]
    for path, address in places:
        if address in gateways:
            remedy = f"choose another, or set node.{gateways[address]}"
            report.add(path, f"{quote(str(address))} is the gateway of the pods", remedy)
        _inside_own(address, path, config, report, "prefix of this node")
    unique(places, report)


def pod_ports(config: Config, report: Report) -> None:
    """No two pods share a port of the host, and an address that is named is one the pod could be reached for."""
    taken: dict[tuple[str, int], list[tuple[Address | None, Path]]] = {}
    for index, pod in enumerate(config.pods):
        versions = {address.version for address in pod.addresses}
        for number, port in enumerate(pod.ports):
            path: Path = ("pods", index, "ports", number)
            if port.address is not None and port.address.version not in versions:
                what = f"{quote(str(port.address))} is IPv{port.address.version}, of which the pod has no address"
                report.add((*path, "address"), what, "give the pod one, or name an address of the other family")
            else:
                _host_address(port.address, (*path, "address"), report)
            others = taken.setdefault((port.protocol, port.host), [])
            for address, place in others:
                if address is None or port.address is None or address == port.address:
                    what = f"is {port.protocol} port {port.host} of the host, which {key_text(place)} has"
                    report.add(path, what, "choose another host port")
                    break
            others.append((port.address, path))


def _host_address(address: Address | None, path: Path, report: Report) -> None:
    """One that packets for the host are sent to, and can be turned to a pod from."""
    if address is None:
        return
    if address.is_unspecified:
        report.add(path, f"{quote(str(address))} is no address of the host", "leave address out to open it on all")
    elif address.is_multicast:
        report.add(path, f"{quote(str(address))} is no address of the host", "name one of its own")
    else:
        try:
            check_leads_to_pod(address)
        except Mistake as mistake:
            report.add(path, mistake.what, mistake.remedy)


# -- routes --------------------------------------------------------------------
def routes(config: Config, report: Report) -> None:
    unique(((("routes", i, "prefix"), route.prefix) for i, route in enumerate(config.routes)), report)
    for index, route in enumerate(config.routes):
        path: Path = ("routes", index, "prefix")
        if route.prefix in config.node.prefixes:
            what = f"{quote(str(route.prefix))} is this node's own prefix"
            report.add(path, what, "remove the route, or write a part of the prefix")
        martian = next((martian for martian in _MARTIANS if within(route.prefix, martian)), None)
        if martian is not None:
            what = f"{quote(str(route.prefix))} lies in {martian}, whose packets are never forwarded"
            report.add(path, what, "remove the route")


def next_hops(config: Config, report: Report) -> None:
    names = {peer.name for peer in config.peers}
    for index, route in enumerate(config.routes):
        path: Path = ("routes", index, "via")
        if not 1 <= len(route.via) <= MAX_NEXT_HOPS:
            what = f"has {len(route.via)} next hops" if route.via else "is empty"
            report.add(path, what, f"a route has 1 to {MAX_NEXT_HOPS} next hops")
        unique((((*path, number), name) for number, name in enumerate(route.via)), report)
        for number, name in enumerate(route.via):
            if name in names:
                continue
            here: Path = (*path, number)
            if name not in SPECIAL_NEXT_HOPS:
                guess = nearest(name, sorted(names))
                remedy = f"did you mean {quote(guess)}?" if guess else "add the peer, or name one that is there"
                report.add(here, f"{quote(name)} is not a peer", remedy)
            elif len(route.via) > 1:
                report.add(here, f"{quote(name)} stands beside other next hops", "let it stand alone")
            elif name == "host" and not config.host.enabled:
                report.add(here, '"host" is not there: host.enabled is false', "set it to true")


# -- the daemon ----------------------------------------------------------------
def workers(config: Config, report: Report) -> None:
    section = config.workers
    path: Path = ("workers", "cpus")
    unique((((*path, number), cpu) for number, cpu in enumerate(section.cpus)), report)
    for number, cpu in enumerate(section.cpus):
        if not 0 <= cpu < 4096:
            report.add((*path, number), f"{cpu} is not the number of a CPU", "CPUs are numbered from 0")
    if len(section.cpus) > 64:
        report.add(path, f"names {len(section.cpus)} CPUs", "at most 64 workers are possible")
    elif section.cpus and section.count not in {None, len(section.cpus)}:
        what = f"names {len(section.cpus)} CPUs for {section.count} workers"
        report.add(path, what, "name one CPU for each worker, or leave workers.count out")


def ipam(config: Config, report: Report) -> None:
    """Pools are disjoint parts of the node's prefixes: only there does the network look for its pods."""
    pools = config.ipam.pools
    for index, pool in enumerate(pools):
        path: Path = ("ipam", "pools", index)
        if not any(within(pool, prefix) for prefix in config.node.prefixes):
            known = ", ".join(map(str, config.node.prefixes))
            report.add(path, f"{quote(str(pool))} lies in no prefix of this node", f"node.prefixes has {known}")
        for other in pools[:index]:
            if overlaps(pool, other):
                report.add(path, f"{quote(str(pool))} overlaps {other}", "keep one of them")


def paths(config: Config, report: Report) -> None:
    """A path that was not set follows from the control socket's."""
    for section, path in (("control", config.control.socket), ("cni", config.cni.socket or "")):
        size = len(path.encode())
        if size > LONGEST_SOCKET_PATH:
            what = f"is {size} bytes long, too long for the path of a socket"
            report.add((section, "socket"), what, f"choose a path of at most {LONGEST_SOCKET_PATH} bytes")
    if config.cni.socket == config.control.socket:
        report.add(("cni", "socket"), "is the control socket", "give it a path of its own")


# -- shared --------------------------------------------------------------------
def unique(places: Iterable[tuple[Path, Hashable]], report: Report) -> None:
    """Each value stands in one place only."""
    seen: dict[Hashable, Path] = {}
    for path, value in places:
        first = seen.setdefault(value, path)
        if first != path:
            shown = value if isinstance(value, int | str) else str(value)
            report.add(path, f"{quote(shown)} is also {key_text(first)}", "remove or change one of the two")
