"""From the frozen values of Python to the C records the workers read. See records.pxd."""

import socket
import struct

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from fastpath.buffer cimport SEGMENTS_MAX
from fastpath.encap.registry cimport encap_bytes
from fastpath.encap.tunnel cimport (
    tunnel, ENCAP_IPIP, ENCAP_PLAIN, ENCAP_UDP, ENCAP_VXLAN, RESERVED_DROP, RESERVED_GBP, RESERVED_IGNORE,
)
from fastpath.port.pace cimport pace
from fastpath.port.port cimport (
    port, PORT_MEMORY, PORT_RAW, PORT_TUN, PORT_UDP, ROLE_HOST, ROLE_POD, ROLE_TUNNEL,
)
from fastpath.reason cimport REPLY_HOST_UNREACHABLE, REPLY_NONE, REPLY_PROHIBITED
from fastpath.table.adjacency cimport (
    adjacency, ADJACENCY_DELIVER, ADJACENCY_ENCAPSULATE, ADJACENCY_REJECT, ADJACENCY_SPREAD, SPREAD_MAX,
)
from fastpath.table.peer cimport peer_hash, peer_slot, peer_table

from fastpath.values import Deliver, Encapsulate, Reject, Spread

BURST_MIN = 131072  # bytes
EGRESS_BURST_MS = 20
INGRESS_BURST_MS = 250  # longer than the least time (200 ms) after which TCP sends again what was dropped

KINDS = {"tun": PORT_TUN, "udp": PORT_UDP, "raw": PORT_RAW, "memory": PORT_MEMORY}
ROLES = {"pod": ROLE_POD, "host": ROLE_HOST, "tunnel": ROLE_TUNNEL}
ENCAPSULATIONS = {"vxlan": ENCAP_VXLAN, "udp": ENCAP_UDP, "ipip": ENCAP_IPIP, "plain": ENCAP_PLAIN}
RESERVED = {"drop": RESERVED_DROP, "ignore": RESERVED_IGNORE, "gbp": RESERVED_GBP}
ANSWERS = {"blackhole": REPLY_NONE, "unreachable": REPLY_HOST_UNREACHABLE, "prohibited": REPLY_PROHIBITED}


cdef void *fresh(size_t size) except NULL:
    cdef void *memory = calloc(1, size)
    if memory == NULL:
        raise MemoryError(f"no memory for a record of {size} bytes")
    return memory


def mapped(address) -> bytes:
    """The 16 bytes of an address, IPv4 as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def socket_address(address, int number) -> bytes:
    """struct sockaddr_in or sockaddr_in6 of this machine."""
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", number) + address.packed + b"\0" * 8
    return (
        struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", number, 0) + address.packed + struct.pack("=I", 0)
    )


def hardware_address(value) -> bytes:
    if len(value) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(value)}: {value!r}")
    return value


# -- adjacencies -------------------------------------------------------------

cdef adjacency *adjacency_record(uint32_t number, object value, object ports) except NULL:
    """`ports` maps port numbers to open ports: the roles decide what DELIVER means."""
    cdef adjacency *record = <adjacency *>fresh(sizeof(adjacency))
    record.number = number
    if isinstance(value, Deliver):
        record.kind = ADJACENCY_DELIVER
        record.port = value.port
        record.mtu = value.mtu
        record.to_host = ports[value.port].role == "host"
        record.transit = value.transit
    elif isinstance(value, Encapsulate):
        encapsulate_fill(record, value)
    elif isinstance(value, Reject):
        record.kind = ADJACENCY_REJECT
        record.answer = ANSWERS[value.answer]
    else:
        record.kind = ADJACENCY_SPREAD
        record.n_members = len(value.members)
        for i, member in enumerate(value.members):
            record.members[i] = member
    return record


cdef void encapsulate_fill(adjacency *record, object value):
    cdef bytes remote = socket_address(value.remote, value.remote_port)
    cdef bytes mac = value.mac
    record.kind = ADJACENCY_ENCAPSULATE
    record.port = value.port
    record.peer = value.peer
    record.mtu = value.mtu
    record.remote_length = len(remote)
    memcpy(record.remote, <const char *>remote, len(remote))
    memcpy(record.mac, <const char *>mac, 6)
    if value.shortcut is not None:
        shortcut_fill(record, value.shortcut)


cdef void shortcut_fill(adjacency *record, object value):
    cdef bytes link = value.destination + value.source
    record.has_shortcut = True
    record.shortcut_cuts = value.cuts
    record.shortcut_mtu = value.mtu
    record.tap = value.tap
    memcpy(record.link, <const char *>link, 12)


def check_adjacency(value, ports, adjacencies) -> None:
    """Whether a value can be a record now. ValueError names what is wrong with it."""
    if isinstance(value, Spread):
        if not 1 <= len(value.members) <= SPREAD_MAX:
            raise ValueError(f"a Spread has 1 to {SPREAD_MAX} members, not {len(value.members)}")
        for member in value.members:
            if not isinstance(adjacencies.get(member), Deliver | Encapsulate):
                raise ValueError(f"member {member} of a Spread is no Deliver or Encapsulate adjacency")
        return
    if isinstance(value, Reject):
        return
    if not isinstance(value, Deliver | Encapsulate):
        raise TypeError(f"not an adjacency: {value!r}")
    if value.port not in ports:
        raise ValueError(f"there is no port {value.port}")
    is_tunnel = ports[value.port].role == "tunnel"
    if not 68 <= value.mtu <= 65535:
        raise ValueError(f"mtu must be 68..65535, not {value.mtu}")
    if isinstance(value, Deliver) and is_tunnel:
        raise ValueError(f"port {value.port} is a tunnel: use Encapsulate")
    if isinstance(value, Encapsulate):
        if not is_tunnel:
            raise ValueError(f"port {value.port} is no tunnel: use Deliver")
        hardware_address(value.mac)
        if value.remote.version != ports[value.port].tunnel.local.version:
            raise ValueError(f"{value.remote} is not of the family of {ports[value.port].name}")
        if not 0 <= value.remote_port <= 65535:
            raise ValueError(f"remote_port must be 0..65535, not {value.remote_port}")
        if value.shortcut is not None:
            check_shortcut(value.shortcut, ports[value.port])


def check_shortcut(value, port) -> None:
    if port.kind != "udp" or port.tunnel.encapsulation != "vxlan":
        raise ValueError(f"{port.name} has no shortcut: Linux segments frames of VXLAN alone")
    hardware_address(value.destination)
    hardware_address(value.source)
    if not 68 <= value.mtu <= 65535:
        raise ValueError(f"the mtu of a shortcut must be 68..65535, not {value.mtu}")
    if value.tap < 0:
        raise ValueError(f"{value.tap} is no descriptor")


# -- ports -------------------------------------------------------------------

cdef port *port_record(uint32_t number, object opened, object addresses, uint32_t mtu) except NULL:
    cdef port *record = <port *>fresh(sizeof(port))
    record.index = number
    record.kind = KINDS[opened.kind]
    record.role = ROLES[opened.role]
    record.vnet_header = opened.vnet_header
    record.takes_super = opened.takes_super
    record.takes_super_udp = opened.takes_super_udp
    record.segments_max = min(opened.segments_max, SEGMENTS_MAX)
    record.mtu = mtu
    record.n_inputs = len(opened.inputs)
    for i, fd in enumerate(opened.inputs):
        record.inputs[i] = fd
    record.n_senders = len(opened.senders)
    for i, fd in enumerate(opened.senders):
        record.senders[i] = fd
    for i, source in enumerate(opened.source_ports):
        record.source_ports[i] = source
    for address in addresses:
        if address.version == 4:
            record.addresses4[record.n4] = int(address)
            record.n4 += 1
        else:
            record.addresses6[record.n6][0] = int(address) >> 64
            record.addresses6[record.n6][1] = int(address) & 0xFFFFFFFFFFFFFFFF
            record.n6 += 1
    pace_fill(&record.egress, opened.bandwidth.egress, opened.bandwidth.egress_burst, EGRESS_BURST_MS)
    pace_fill(&record.ingress, opened.bandwidth.ingress, opened.bandwidth.ingress_burst, INGRESS_BURST_MS)
    if opened.tunnel is not None:
        tunnel_fill(&record.tunnel, opened.tunnel)
    if record.kind == PORT_MEMORY:
        record.memory = <void *><size_t>opened.rings
    return record


cdef int pace_fill(pace *limit, uint64_t bits, uint64_t burst, uint64_t burst_ms) except -1:
    """A burst that was not given: so long at the rate, and at least two super-packets."""
    if bits:
        limit.ps_per_byte = max(1, <uint64_t>8000000000000 // bits)
        limit.burst_ns = (burst or max(bits * burst_ms // 8000, BURST_MIN)) * limit.ps_per_byte // 1000
    return 0


cdef void tunnel_fill(tunnel *record, object value):
    cdef bytes mac = hardware_address(value.mac)
    cdef bytes local = mapped(value.local)
    record.encapsulation = ENCAPSULATIONS[value.encapsulation]
    record.outer_family = value.local.version
    record.strict_mac = value.strict_mac
    record.reserved = RESERVED[value.reserved]
    record.copy_dscp = value.copy_dscp
    record.fixed_source = value.source_ports == "fixed"
    record.port = value.port
    record.vni = value.vni
    record.header_bytes = <uint8_t>encap_bytes(record)
    memcpy(record.mac, <const char *>mac, 6)
    memcpy(record.local, <const char *>local, 16)


# -- peers -------------------------------------------------------------------

cdef peer_table *peer_record(object peers, uint64_t key) except NULL:
    """An open-addressed table, at most half full."""
    cdef uint32_t capacity = 8
    cdef peer_table *table
    while capacity < 2 * len(peers):
        capacity *= 2
    table = <peer_table *>fresh(sizeof(peer_table) + capacity * sizeof(peer_slot))
    table.key = key
    table.mask = capacity - 1
    table.n = len(peers)
    for address, peer in peers.items():
        peer_add(table, int.from_bytes(mapped(address)), peer)
    return table


cdef void peer_add(peer_table *table, object address, uint32_t peer):
    cdef uint64_t high = address >> 64
    cdef uint64_t low = address & 0xFFFFFFFFFFFFFFFF
    cdef uint32_t at = peer_hash(high, low, table.key) & table.mask
    while table.slots[at].used:
        at = (at + 1) & table.mask
    table.slots[at].high = high
    table.slots[at].low = low
    table.slots[at].peer = peer
    table.slots[at].used = 1
