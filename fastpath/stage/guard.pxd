# guard: who may use which source address.
#
# Owns: the three rules.
#   from a pod     its source is one of the pod's own addresses      (spoofing between pods)
#   from a peer    the route back to the source leads to that peer   (a peer speaking for another)
#   link-local     from a pod towards the host, and back             (the flag is set for local ports alone)
#   from the host  the source is no pod of ours, unless the host may hand back what pods sent to it (detours)
# Never: looks at destinations; route does.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from fastpath.buffer cimport burst, packet, packet_drop, PACKET_CREATED, PACKET_FROM_HOST
from fastpath.port.port cimport port, port_owns4, port_owns6, ROLE_HOST, ROLE_POD, ROLE_TUNNEL
from fastpath.reason cimport (
    VERDICT_PASS, REASON_GUARD_OWN_SOURCE, REASON_GUARD_PEER_SOURCE, REASON_GUARD_POD_SOURCE,
    REASON_MARTIAN,
)
from fastpath.stage.lookup cimport lookup4, lookup6, routes
from fastpath.table.adjacency cimport adjacency, adjacency_at, adjacency_leads_to, ADJACENCY_DELIVER
from fastpath.table.detour cimport detour_applies, detour_forget, detour_remember
from fastpath.wire.ipv4 cimport ipv4_is_link_local
from fastpath.wire.octets cimport load32, load64

cdef inline uint32_t source_route(const packet *p, const routes *r) noexcept nogil:
    """Number of the adjacency a packet to this packet's source would take; 0: none."""
    if p.family == 4:
        return lookup4(r, load32(p.data + 12))
    return lookup6(r, load64(p.data + 8), load64(p.data + 16))

cdef inline bint is_own(const routes *r, uint32_t number) noexcept nogil:
    """Whether an adjacency stands for an address of this node: a pod, or the host itself."""
    cdef const adjacency *found = adjacency_at(r.adjacencies, number)
    return found != NULL and found.kind == ADJACENCY_DELIVER and not found.transit

cdef inline void guard_pod(packet *p, const port *source, const routes *r) noexcept nogil:
    cdef bint owned
    if p.family == 4:
        owned = port_owns4(source, load32(p.data + 12))
    else:
        owned = port_owns6(source, load64(p.data + 8), load64(p.data + 16))
    if not owned:
        packet_drop(p, REASON_GUARD_POD_SOURCE)
    elif r.detours.taken and detour_applies(p):
        detour_forget(r.detours, p)

cdef inline bint guard_link_local(const packet *p, const port *source) noexcept nogil:
    """From a pod such an address may be the destination alone, from the host the source alone."""
    if source.role == ROLE_POD:
        return ipv4_is_link_local(load32(p.data + 16))
    return source.role == ROLE_HOST and ipv4_is_link_local(load32(p.data + 12))

cdef inline void guard_peer(packet *p, const routes *r) noexcept nogil:
    cdef uint32_t number = source_route(p, r)
    if not adjacency_leads_to(r.adjacencies, number, p.peer):
        packet_drop(p, REASON_GUARD_OWN_SOURCE if is_own(r, number) else REASON_GUARD_PEER_SOURCE)

cdef inline void guard_host(packet *p, const routes *r) noexcept nogil:
    cdef const adjacency *found = adjacency_at(r.adjacencies, source_route(p, r))
    p.flags |= PACKET_FROM_HOST
    if found != NULL and found.kind == ADJACENCY_DELIVER and not found.to_host:
        if r.host == 0:
            packet_drop(p, REASON_GUARD_OWN_SOURCE)
        elif detour_applies(p):
            detour_remember(r.detours, p, r.now_ns)

cdef inline void guard(burst *b, const port *source, const routes *r) noexcept nogil:
    cdef uint32_t i
    cdef packet *p
    for i in range(b.n):
        p = &b.packets[i]
        if p.verdict != VERDICT_PASS or p.flags & PACKET_CREATED:
            continue
        if p.link_local and not guard_link_local(p, source):
            packet_drop(p, REASON_MARTIAN)
        elif source.role == ROLE_POD:
            guard_pod(p, source, r)
        elif source.role == ROLE_TUNNEL:
            guard_peer(p, r)
        else:
            guard_host(p, r)
