# The pace of a port: how many bytes may pass, as the time at which the last of them is paid for.
#
# Owns: the arithmetic of one rate and burst (a token bucket, kept as one number).
# Never: waits or drops; who asks does.
# Invariant: `due` is one 64-bit word, so workers share a bucket without a lock;
# over any time no more passes than rate * time + burst + one packet.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.atomic cimport atomic_exchange_if, atomic_load_relaxed

cdef struct pace:
    uint64_t ps_per_byte       # picoseconds; 0: no limit
    uint64_t burst_ns          # how far ahead of time it may be

cdef inline uint64_t pace_ready(const pace *limit, uint64_t due_ns) noexcept nogil:
    """From when on another packet may pass."""
    return due_ns - limit.burst_ns if due_ns > limit.burst_ns else 0

cdef inline uint64_t pace_after(const pace *limit, uint64_t due_ns, uint32_t bytes, uint64_t now_ns) noexcept nogil:
    """`due` once these bytes have passed."""
    return (due_ns if due_ns > now_ns else now_ns) + bytes * limit.ps_per_byte // 1000

cdef inline bint pace_pass(const pace *limit, uint64_t *due_ns, uint32_t bytes, uint64_t now_ns) noexcept nogil:
    """Whether a packet may pass now; it is paid for then."""
    cdef uint64_t due
    while True:
        due = atomic_load_relaxed(due_ns)
        if pace_ready(limit, due) > now_ns:
            return False
        if atomic_exchange_if(due_ns, due, pace_after(limit, due, bytes, now_ns)):
            return True
