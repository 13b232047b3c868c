"""The shape of the file: every table and key, its type, default and meaning.

Owns: the frozen structs that both the reader and the JSON schema are made from.
Never: parses text or compares two values.
Invariant: a key exists in the file exactly when it is a field here.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.config.gateway import first_host4, first_host6
from engine.config.leaf import BitRate, DeviceName, Endpoint, FilePath, Labels, Mac, Name, Namespace, PodName, failsafe
from engine.config.sharing import share_routes
from engine.model import (
    Address,
    Bandwidth,
    EncapsulationName,
    Facts,
    Failsafe,
    HostPort,
    Identity,
    Interface,
    Mode,
    NamedPort,
    Node,
    Offload,
    Overlay,
    Peer,
    Pod,
    PortMapping,
    Prefix,
    Profile,
    Protocol,
    StaticRoute,
    When,
)

Dscp = Literal["copy", "clear"]
Masquerade = Literal["auto", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]
Stance = Literal["allow", "deny"]
Track = Literal["policy", "always"]
OnPolicyChange = Literal["keep", "revalidate"]
FlowEvent = Literal["new", "denied", "closed", "logged"]
Seconds = Annotated[int, Meta(ge=1, le=30 * 86_400, description="Seconds after its last packet.")]


def _failsafes(texts: str) -> tuple[Failsafe, ...]:
    return tuple(map(failsafe, texts.split()))


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class NodeSection(Section, frozen=True, kw_only=True):
    """The node itself."""

    prefixes: Annotated[tuple[Prefix, ...], Meta(description="The pod prefixes of this node.")]
    name: Annotated[Name | None, Meta(description="Its name among the peers; the host name when absent.")] = None
    underlay: Annotated[
        tuple[Interface, ...],
        Meta(description="Its addresses on the network between the nodes, best with prefix length; found when absent."),
    ] = ()
    interface: Annotated[
        DeviceName | None,
        Meta(description="The device whose addresses are the underlay; that of the default route when absent."),
    ] = None
    gateway4: Annotated[
        IPv4Address | None, Meta(description="What IPv4 pods see as their router; the first host of the first prefix.")
    ] = None
    gateway6: Annotated[
        IPv6Address | None, Meta(description="What IPv6 pods see as their router; the first host of the first prefix.")
    ] = None


class NetworkSection(Section, frozen=True, kw_only=True):
    """How packets travel between the nodes."""

    mode: Annotated[Mode, Meta(description="How routes are learned; it also chooses the default encapsulation.")] = (
        "overlay"
    )
    encapsulation: Annotated[
        EncapsulationName | None,
        Meta(description="How packets travel; vxlan in overlay mode and none in routed mode when absent."),
    ] = None
    when: Annotated[When, Meta(description="Encapsulate always, or only towards nodes outside our subnets.")] = "always"
    profile: Annotated[Profile, Meta(description="Whose port, VNI and MAC rules are the defaults.")] = "towpath"
    port: Annotated[
        int | None, Meta(ge=1, le=65535, description="UDP port of vxlan or udp; the profile's when absent.")
    ] = None
    vni: Annotated[
        int | None, Meta(ge=1, le=16777215, description="VXLAN network identifier; the profile's when absent.")
    ] = None
    mtu: Annotated[
        int | None,
        Meta(
            ge=576, le=65535, description="Largest packet a pod may send, in bytes; derived from the paths when absent."
        ),
    ] = None
    dscp: Annotated[Dscp, Meta(description="Whether the outer header carries the inner DSCP or zero.")] = "copy"
    offload: Annotated[
        Offload,
        Meta(
            description="How packets leave in VXLAN: by sockets (udp); straight to the underlay's device, past routing "
            "and netfilter, TCP whole if that segments tunnels, else trains (tap); or as is faster (auto)."
        ),
    ] = "auto"
    mac: Annotated[
        Mac | None, Meta(description="Our VXLAN endpoint over IPv4; made from the node's name when absent.")
    ] = None
    mac6: Annotated[
        Mac | None, Meta(description="Our VXLAN endpoint over IPv6; made from the node's name when absent.")
    ] = None


class PeerSection(Section, frozen=True, kw_only=True):
    """Another node."""

    name: Annotated[Name, Meta(description="Its name; routes refer to it.")]
    underlay: Annotated[
        tuple[Address, ...],
        Meta(
            description="Its addresses on the network between the nodes: the first of each family is sent to, all are accepted."
        ),
    ]
    prefixes: Annotated[tuple[Prefix, ...], Meta(description="The pod prefixes behind it.")] = ()
    mac: Annotated[Mac | None, Meta(description="Its VXLAN endpoint over IPv4; made from its name when absent.")] = None
    mac6: Annotated[Mac | None, Meta(description="Its VXLAN endpoint over IPv6; made from its name when absent.")] = (
        None
    )
    encapsulation: Annotated[
        EncapsulationName | None, Meta(description="How packets travel to it; as in [network] when absent.")
    ] = None


class PortSection(Section, frozen=True, kw_only=True):
    """A port of the host that leads to one of the pod."""

    host: Annotated[int, Meta(ge=1, le=65535, description="The port of the host.")]
    pod: Annotated[int, Meta(ge=1, le=65535, description="The port of the pod.")]
    protocol: Annotated[Protocol, Meta(description="The transport protocol.")] = "tcp"
    address: Annotated[
        Address | None,
        Meta(description="The address of the host it is open on; every one of the pod's families when absent."),
    ] = None


class BandwidthSection(Section, frozen=True, kw_only=True):
    """How fast the pod may receive and send."""

    ingress: Annotated[BitRate | None, Meta(description="What the pod receives; unlimited when absent.")] = None
    egress: Annotated[BitRate | None, Meta(description="What the pod sends; unlimited when absent.")] = None
    ingress_burst: Annotated[
        int | None,
        Meta(
            ge=1500,
            le=4294967295,
            description="Bytes that may arrive at once; 250 ms at the rate, at least 128 KiB, when absent.",
        ),
    ] = None
    egress_burst: Annotated[
        int | None,
        Meta(
            ge=1500,
            le=4294967295,
            description="Bytes that may leave at once; 20 ms at the rate, at least 128 KiB, when absent.",
        ),
    ] = None


class PodSection(Section, frozen=True, kw_only=True):
    """A pod of this node."""

    name: Annotated[PodName, Meta(description="Its name.")]
    namespace: Annotated[Namespace, Meta(description="Its network namespace: a name known to `ip netns`, or a path.")]
    addresses: Annotated[tuple[Address, ...], Meta(description="Its addresses, inside the node's prefixes; 1 to 16.")]
    interface: Annotated[DeviceName, Meta(description="The device that is made in its namespace.")] = DeviceName("eth0")
    labels: Annotated[Labels | None, Meta(description="What policies select it by.")] = None
    service_account: Annotated[Name, Meta(description="The account it runs under, for policies.")] = Name("default")
    named_ports: Annotated[
        tuple[NamedPort, ...], Meta(description="Ports that policies call by name; of TCP when no protocol is written.")
    ] = ()
    ports: Annotated[tuple[PortSection, ...], Meta(description="Ports of the host that lead to it.")] = ()
    bandwidth: Annotated[
        BandwidthSection | None, Meta(description="How fast it may receive and send; unlimited when absent.")
    ] = None

    def fact(self) -> Pod:
        return Pod(
            self.name,
            self.namespace,
            self.addresses,
            self.interface,
            _identity(self),
            tuple(PortMapping(port.host, port.pod, port.protocol, port.address) for port in self.ports),
            _bandwidth(self.bandwidth),
        )


class RouteSection(Section, frozen=True, kw_only=True):
    """A static route."""

    prefix: Annotated[Prefix, Meta(description="The destinations.")]
    via: Annotated[
        tuple[Name, ...],
        Meta(
            description="Names of 1 to 16 peers, equal cost; "
            'or one of "host", "blackhole", "unreachable", "prohibited".'
        ),
    ]


class HostSection(Section, frozen=True, kw_only=True):
    """The host's own port, through which pods reach the node and the outside."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = True
    name: Annotated[DeviceName, Meta(description="Its device.")] = DeviceName("towpath0")
    masquerade: Annotated[
        Masquerade,
        Meta(description="Whether pods reach the outside by the host's address: where nft is there, or never."),
    ] = "auto"


class IpamSection(Section, frozen=True, kw_only=True):
    """Which addresses pods get that a container runtime attaches."""

    pools: Annotated[
        tuple[Prefix, ...], Meta(description="Parts of the node's prefixes to take them from; all of them when absent.")
    ] = ()
    reserved: Annotated[tuple[Prefix, ...], Meta(description="Ranges that are never given to a pod unasked.")] = ()
    cooldown: Annotated[
        int, Meta(ge=0, le=86400, description="Seconds before an address that was given back is given again.")
    ] = 10
    borrow: Annotated[
        bool,
        Meta(description="Whether addresses may come from blocks of another node, or of this one's earlier name."),
    ] = False
    block4: Annotated[
        int, Meta(ge=24, le=32, description="Prefix length of the blocks in which IPv4 addresses are managed.")
    ] = 26
    block6: Annotated[
        int, Meta(ge=120, le=128, description="Prefix length of the blocks in which IPv6 addresses are managed.")
    ] = 122


class CniSection(Section, frozen=True, kw_only=True):
    """How container runtimes reach the daemon."""

    socket: Annotated[
        FilePath | None,
        Meta(description="Where the CNI plugin finds the daemon; cni.sock beside the control socket when absent."),
    ] = None


class WorkersSection(Section, frozen=True, kw_only=True):
    """The threads that forward."""

    count: Annotated[
        int | None, Meta(ge=1, le=64, description="How many; one for each of `cpus`, else 1, when absent.")
    ] = None
    cpus: Annotated[tuple[int, ...], Meta(description="The CPU of each worker; any when absent.")] = ()
    busy_poll: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="For how many microseconds a worker looks for packets before it sleeps, while it pays; 0: not.",
        ),
    ] = 250


class ControlSection(Section, frozen=True, kw_only=True):
    """The control socket."""

    socket: Annotated[FilePath, Meta(description="Where it is.")] = FilePath("/run/towpath/control.sock")
    group: Annotated[Name | None, Meta(description="Members of this group may use it too; root alone when absent.")] = (
        None
    )


class StateSection(Section, frozen=True, kw_only=True):
    """What outlives the daemon."""

    directory: Annotated[FilePath, Meta(description="Where it is kept.")] = FilePath("/var/lib/towpath")


class HealthSection(Section, frozen=True, kw_only=True):
    """Health over HTTP."""

    listen: Annotated[Endpoint | None, Meta(description="Where it answers; nowhere when absent.")] = None


class LogSection(Section, frozen=True, kw_only=True):
    """What the daemon says."""

    level: Annotated[LogLevel, Meta(description="The least severe message that is written.")] = "info"
    format: Annotated[LogFormat, Meta(description="json, text, or auto: text on a terminal and json elsewhere.")] = (
        "auto"
    )


class PolicySection(Section, frozen=True, kw_only=True):
    """Who may talk to whom."""

    files: Annotated[
        tuple[FilePath, ...],
        Meta(description="Files, and folders of files, with policies, pods and namespaces; watched."),
    ] = ()
    default: Annotated[Stance, Meta(description="What holds for a pod that no policy selects.")] = "allow"
    failsafe_in: Annotated[
        tuple[Failsafe, ...], Meta(description="Ports of host endpoints that stay reachable whatever policies say.")
    ] = _failsafes("tcp/22 tcp/179 tcp/2379 tcp/2380 tcp/5473 tcp/6443 tcp/6666 tcp/6667 udp/68")
    failsafe_out: Annotated[
        tuple[Failsafe, ...], Meta(description="Ports that host endpoints may reach whatever policies say.")
    ] = _failsafes("tcp/179 tcp/2379 tcp/2380 tcp/5473 tcp/6443 tcp/6666 tcp/6667 udp/53 udp/67")
    services: Annotated[
        tuple[Prefix, ...],
        Meta(description="Addresses that the host changes (ClusterIPs): egress to one is judged by what it becomes."),
    ] = ()


class TimeoutsSection(Section, frozen=True, kw_only=True):
    """How long a flow without packets is remembered, in seconds, by Linux's names."""

    tcp_syn_sent: Seconds = 120
    tcp_syn_recv: Seconds = 60
    tcp_established: Seconds = 432_000
    tcp_fin_wait: Seconds = 120
    tcp_close_wait: Seconds = 60
    tcp_last_ack: Seconds = 30
    tcp_time_wait: Seconds = 120
    tcp_close: Seconds = 10
    tcp_unacknowledged: Seconds = 300
    udp: Seconds = 30
    udp_stream: Seconds = 120
    icmp: Seconds = 30
    sctp_cookie_wait: Seconds = 3
    sctp_cookie_echoed: Seconds = 3
    sctp_established: Seconds = 210
    sctp_shutdown: Seconds = 3
    sctp_closed: Seconds = 10
    generic: Seconds = 600


class FlowsSection(Section, frozen=True, kw_only=True):
    """What is remembered of connections."""

    capacity: Annotated[
        int, Meta(ge=1024, le=1 << 24, description="Flows of each IP version; memory is taken as it is used.")
    ] = 262_144
    quota: Annotated[
        int | None,
        Meta(ge=1, le=1 << 24, description="Flows one address may open; a quarter of the capacity when absent."),
    ] = None
    track: Annotated[
        Track, Meta(description="Whether flows are known only while some policy selects somebody, or always.")
    ] = "policy"
    on_policy_change: Annotated[
        OnPolicyChange,
        Meta(description="Whether established flows are kept until they close, or judged again by the new policy."),
    ] = "keep"
    timeouts: Annotated[TimeoutsSection | None, Meta(description="How long a flow without packets is remembered.")] = (
        None
    )
    pickup: Annotated[bool, Meta(description="Whether a TCP or SCTP connection may become known in its middle.")] = True
    log: Annotated[FilePath | None, Meta(description="The file of the flow log, one JSON object a line.")] = None
    log_events: Annotated[tuple[FlowEvent, ...], Meta(description="What is logged.")] = ("denied", "logged")
    log_rate: Annotated[
        int, Meta(ge=1, le=100_000, description="Most lines a second of each worker; the rest is counted.")
    ] = 1000


class Config(Section, frozen=True, kw_only=True):
    """The configuration of a Towpath node."""

    node: Annotated[NodeSection, Meta(description="This node.")]
    network: Annotated[NetworkSection, Meta(description="How packets travel between the nodes.")] = NetworkSection()
    host: Annotated[HostSection, Meta(description="The host's own port.")] = HostSection()
    ipam: Annotated[IpamSection, Meta(description="Which addresses pods get that a container runtime attaches.")] = (
        IpamSection()
    )
    cni: Annotated[CniSection, Meta(description="How container runtimes reach the daemon.")] = CniSection()
    workers: Annotated[WorkersSection, Meta(description="The threads that forward.")] = WorkersSection()
    control: Annotated[ControlSection, Meta(description="The control socket.")] = ControlSection()
    state: Annotated[StateSection, Meta(description="What outlives the daemon.")] = StateSection()
    health: Annotated[HealthSection, Meta(description="Health over HTTP.")] = HealthSection()
    log: Annotated[LogSection, Meta(description="What the daemon says.")] = LogSection()
    policy: Annotated[PolicySection, Meta(description="Who may talk to whom.")] = PolicySection()
    flows: Annotated[FlowsSection, Meta(description="What is remembered of connections.")] = FlowsSection()
    peers: Annotated[tuple[PeerSection, ...], Meta(description="The other nodes.")] = ()
    pods: Annotated[tuple[PodSection, ...], Meta(description="The pods of this node.")] = ()
    routes: Annotated[tuple[RouteSection, ...], Meta(description="Static routes.")] = ()

    @property
    def encapsulation(self) -> EncapsulationName:
        """How packets travel, where the file left it to the mode."""
        return self.network.encapsulation or ("vxlan" if self.network.mode == "overlay" else "none")

    @property
    def gateways(self) -> dict[str, Address]:
        """`gateway4`, `gateway6` -> the address, where there is one."""
        node = self.node
        chosen: dict[str, Address | None] = {
            "gateway4": node.gateway4 or first_host4(node.prefixes),
            "gateway6": node.gateway6 or first_host6(node.prefixes),
        }
        return {name: gateway for name, gateway in chosen.items() if gateway is not None}

    @property
    def workers_count(self) -> int:
        return self.workers.count or len(self.workers.cpus) or 1

    @property
    def cni_socket(self) -> str:
        return self.cni.socket or os.path.join(os.path.dirname(self.control.socket), "cni.sock")

    @property
    def network_of_pods(self) -> tuple[Prefix, ...]:
        """All prefixes that pods are known to live in."""
        return (*self.node.prefixes, *(prefix for peer in self.peers for prefix in peer.prefixes))

    def facts(self) -> Facts:
        """What the file says about the network, in the words that every source uses."""
        network, node = self.network, self.node
        return Facts(
            node=Node(node.name or "", node.underlay, node.prefixes, node.gateway4, node.gateway6),
            overlay=Overlay(
                mode=network.mode,
                encapsulation=self.encapsulation,
                when=network.when,
                profile=network.profile,
                port=network.port or 0,
                vni=network.vni or 0,
                mtu=network.mtu or 0,
                copy_dscp=network.dscp == "copy",
                offload=network.offload,
                mac=_octets(network.mac),
                mac6=_octets(network.mac6),
            ),
            pods=share_routes((pod.fact() for pod in self.pods), self.network_of_pods),
            peers=tuple(
                Peer(peer.name, peer.underlay, peer.prefixes, _octets(peer.mac), _octets(peer.mac6), peer.encapsulation)
                for peer in self.peers
            ),
            routes=tuple(StaticRoute(route.prefix, route.via) for route in self.routes),
            host=HostPort(self.host.enabled, self.host.name, masquerade=self.host.masquerade == "auto"),
        )


def _identity(pod: PodSection) -> Identity:
    labels = pod.labels.pairs if pod.labels is not None else ()
    return Identity(labels=labels, service_account=pod.service_account, ports=pod.named_ports)


def _octets(mac: Mac | None) -> bytes | None:
    return None if mac is None else mac.octets


def _bandwidth(section: BandwidthSection | None) -> Bandwidth:
    if section is None:
        return Bandwidth()
    return Bandwidth(
        ingress=0 if section.ingress is None else section.ingress.bits,
        egress=0 if section.egress is None else section.egress.bits,
        ingress_burst=section.ingress_burst or 0,
        egress_burst=section.egress_burst or 0,
    )
