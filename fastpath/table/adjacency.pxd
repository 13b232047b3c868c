# An adjacency: where a route points, and all that is needed to put a packet there.
#
# Owns: the immutable record and the choice among equal-cost members.
# Never: sends, or knows how a header is written (encap/ does).
# Invariant: a published record never changes; a new meaning of a number is a
# new record behind the same slot, stored with release and read with acquire.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from fastpath.atomic cimport atomic_pointer_load

cdef enum:
    SPREAD_MAX = 16

cdef enum adjacency_kind:
    ADJACENCY_DELIVER = 1      # to a local port: a pod, or the host
    ADJACENCY_ENCAPSULATE = 2  # to a peer through a tunnel port
    ADJACENCY_REJECT = 3
    ADJACENCY_SPREAD = 4       # equal-cost group of the numbers in `members`

cdef struct adjacency:
    uint8_t kind
    uint8_t to_host            # DELIVER into the host's port: the kernel is the next router
    uint8_t transit            # DELIVER into the host's port of packets that travel on from there
    uint8_t answer             # REJECT: REPLY_ number
    uint16_t port
    uint16_t n_members
    uint32_t number
    uint32_t peer
    uint32_t mtu               # bytes of the inner packet
    uint32_t remote_length     # bytes of `remote` in use: sockaddr_in 16, sockaddr_in6 28
    uint8_t remote[28]         # socket address of the peer
    uint8_t mac[6]             # VTEP address of the peer (vxlan)
    uint8_t has_shortcut       # frames go into `tap`, past the sockets:
    uint8_t shortcut_cuts      # TCP alone, and whole; else whole trains of datagrams
    uint32_t shortcut_mtu      # bytes of an outer IP packet that the device behind it sends
    uint8_t link[12]           # Ethernet addresses of these frames: destination, source
    int tap                    # descriptor
    uint16_t members[SPREAD_MAX]

cdef inline const adjacency *adjacency_at(adjacency **slots, uint32_t number) noexcept nogil:
    return <const adjacency *>atomic_pointer_load(&slots[number])

cdef inline const adjacency *adjacency_chosen(adjacency **slots, uint32_t number, uint32_t flow_hash) noexcept nogil:
    """The adjacency behind a number, with a group resolved by flow hash; NULL when there is none.

    Groups do not nest: Plane refuses a group as a member.
    """
    cdef const adjacency *found = adjacency_at(slots, number)
    if found != NULL and found.kind == ADJACENCY_SPREAD:
        # Multiply-shift: flow_hash scaled to 0 .. n_members - 1 without a division.
        return adjacency_at(slots, found.members[(<unsigned long long>flow_hash * found.n_members) >> 32])
    return found

cdef inline bint adjacency_leads_to(adjacency **slots, uint32_t number, uint32_t peer) noexcept nogil:
    """Whether packets of this adjacency may travel to `peer`: reverse-path test of guard."""
    cdef const adjacency *found = adjacency_at(slots, number)
    cdef const adjacency *member
    cdef uint32_t i
    if found == NULL:
        return False
    if found.kind == ADJACENCY_ENCAPSULATE:
        return found.peer == peer
    if found.kind == ADJACENCY_SPREAD:
        for i in range(found.n_members):
            member = adjacency_at(slots, found.members[i])
            if member != NULL and member.kind == ADJACENCY_ENCAPSULATE and member.peer == peer:
                return True
    return False
