# route: destination address -> adjacency, and what may not travel there.
#
# Owns: the longest-prefix match of the destination and the rules about
# directions: from tunnel to tunnel never, from a tunnel out of this node never,
# a pod's own tunnel packets never onto the underlay under our address.
# Never: judges size or hop count (hop does), or meets a group address (parse drops those).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fastpath.buffer cimport (
    burst, packet, packet_drop, packet_refuse, PACKET_CREATED, PACKET_FROM_HOST, PACKET_FROM_TUNNEL,
    PACKET_LATER_FRAGMENT,
)
from fastpath.reason cimport (
    VERDICT_PASS, REASON_ENCAP_LOOP, REASON_GUARD_NOT_LOCAL, REASON_MARTIAN, REASON_NESTED,
    REASON_NO_ROUTE, REASON_UNREACHABLE, REPLY_NO_ROUTE,
)
from fastpath.stage.lookup cimport lookup4, lookup6, routes
from fastpath.table.adjacency cimport (
    adjacency, adjacency_at, adjacency_chosen, ADJACENCY_DELIVER, ADJACENCY_ENCAPSULATE, ADJACENCY_REJECT,
)
from fastpath.table.detour cimport detour_applies, detour_expects
from fastpath.wire.octets cimport load16, load32, load64
from fastpath.wire.transport cimport PROTOCOL_GRE, PROTOCOL_IPIP, PROTOCOL_IPV6, PROTOCOL_UDP

cdef enum:
    TUNNEL_PORTS_MAX = 8

# The UDP ports of our own tunnels on this node.
cdef struct tunnel_ports:
    uint32_t n
    uint16_t ports[TUNNEL_PORTS_MAX]

cdef inline bint is_tunnel_packet(const packet *p, const tunnel_ports *own) noexcept nogil:
    """Whether a packet is itself a tunnel's: IP in IP, GRE, or UDP to one of our tunnel ports."""
    cdef uint32_t i
    if p.protocol == PROTOCOL_IPIP or p.protocol == PROTOCOL_IPV6 or p.protocol == PROTOCOL_GRE:
        return True
    if p.protocol == PROTOCOL_UDP and not p.flags & PACKET_LATER_FRAGMENT:
        for i in range(own.n):
            if load16(p.data + p.transport + 2) == own.ports[i]:
                return True
    return False

cdef inline bint goes_to_endpoint(const packet *p, const adjacency *to) noexcept nogil:
    """Whether the destination is the peer's own outer address: it would be encapsulated for ever."""
    cdef const uint8_t *remote = to.remote
    if p.family == 4:
        return to.remote_length == 16 and load32(p.data + 16) == load32(remote + 4)
    return to.remote_length == 28 and load64(p.data + 24) == load64(remote + 8) \
        and load64(p.data + 32) == load64(remote + 16)

cdef inline void route_judge(packet *p, const adjacency *to, const tunnel_ports *own) noexcept nogil:
    """The rules about where a packet may go, given where it came from."""
    if to.kind == ADJACENCY_REJECT:
        packet_refuse(p, REASON_UNREACHABLE, to.answer)
    elif to.kind == ADJACENCY_ENCAPSULATE:
        if p.flags & PACKET_FROM_TUNNEL and not p.flags & PACKET_CREATED:
            packet_drop(p, REASON_GUARD_NOT_LOCAL)
        elif goes_to_endpoint(p, to):
            packet_drop(p, REASON_ENCAP_LOOP)
    elif to.to_host and not p.flags & (PACKET_CREATED | PACKET_FROM_HOST):
        if p.flags & PACKET_FROM_TUNNEL:
            if is_tunnel_packet(p, own):
                packet_drop(p, REASON_NESTED)
            elif to.transit:
                packet_drop(p, REASON_GUARD_NOT_LOCAL)
        elif to.transit and is_tunnel_packet(p, own):
            packet_drop(p, REASON_NESTED)
    elif to.to_host and p.flags & PACKET_FROM_HOST:
        # The host's kernel sent it here for lack of a better route: sending it back would loop.
        packet_refuse(p, REASON_NO_ROUTE, REPLY_NO_ROUTE)

cdef inline bint link_local_ends(const packet *p, const adjacency *to) noexcept nogil:
    """Whether a packet with a link-local end goes from a pod into the host, or from the host into a pod."""
    if to == NULL or to.kind != ADJACENCY_DELIVER:
        return False
    return (to.to_host == 0) == (p.flags & PACKET_FROM_HOST != 0)

cdef inline bint comes_back(const packet *p) noexcept nogil:
    """From the host, of a flow whose way leads into the host: what it did not change must not go round again."""
    return p.flags & PACKET_FROM_HOST and (<const adjacency *>p.adjacency).to_host

cdef inline const adjacency *through_host(const packet *p, const adjacency *to, const routes *r) noexcept nogil:
    """The host port in place of a pod of ours, for replies that the host's kernel must change first."""
    cdef const adjacency *host
    if p.flags & (PACKET_FROM_HOST | PACKET_CREATED) or not detour_applies(p):
        return to
    if not detour_expects(r.detours, p, r.now_ns):
        return to
    host = adjacency_at(r.adjacencies, r.host) if r.host else NULL
    return to if host == NULL else host

cdef inline void route(burst *b, const routes *r, const tunnel_ports *own) noexcept nogil:
    cdef uint32_t i, number
    cdef packet *p
    cdef const adjacency *to
    for i in range(b.n):
        p = &b.packets[i]
        if p.verdict != VERDICT_PASS or p.adjacency != NULL and not comes_back(p):
            continue           # a known flow brings its adjacency, judged when it was learnt
        if p.family == 4:
            number = lookup4(r, load32(p.data + 16))
        else:
            number = lookup6(r, load64(p.data + 24), load64(p.data + 32))
        to = adjacency_chosen(r.adjacencies, number, p.flow_hash) if number else NULL
        if p.link_local and not link_local_ends(p, to):
            packet_drop(p, REASON_MARTIAN)
            continue
        if to == NULL:
            packet_refuse(p, REASON_NO_ROUTE, REPLY_NO_ROUTE)
            continue
        if r.detours.taken and to.kind == ADJACENCY_DELIVER and not to.to_host:
            to = through_host(p, to, r)
        p.adjacency = <void *>to
        route_judge(p, to, own)
