# How long a worker looks for work before it sleeps.
#
# A sleep costs the next packet a wake-up: an interrupt to another core, and in
# a virtual machine an exit for each, which together take longer than all the
# rest of a packet's way. Looking costs a core that may have better to do.
#
# Owns: the decision, from what looking and sleeping brought so far.
# Never: looks itself (worker does), or keeps a core that somebody waits for.
# Invariants:
#   * An idle worker sleeps: looking in vain halves the budget, down to none.
#   * A sleep shorter than the limit brings the whole budget back: it would have paid.
#   * Whoever waits for the core gets it (sched_yield), and the worker then sleeps,
#     so that the kernel wakes it as it does one that never looks.

from libc.stdint cimport uint64_t

cdef enum:
    LOOK_MIN_NS = 4000         # less than a wake-up costs: not worth a try
    SHARED_NS = 20000          # a yield that took longer gave the core to somebody

cdef struct patience:
    uint64_t limit_ns          # 0: sleep at once, always
    uint64_t budget_ns         # how long to look now

cdef inline void looked_in_vain(patience *p) noexcept nogil:
    p.budget_ns = p.budget_ns >> 1 if p.budget_ns >= 2 * LOOK_MIN_NS else 0

cdef inline void core_is_wanted(patience *p) noexcept nogil:
    p.budget_ns = 0

cdef inline void found_work(patience *p) noexcept nogil:
    p.budget_ns = p.limit_ns

cdef inline void slept(patience *p, uint64_t ns) noexcept nogil:
    if ns < p.limit_ns:
        p.budget_ns = p.limit_ns
