# Atomic loads, stores, additions and fences, for code that shares memory between threads.
#
# Owns: the declarations of atomic.h.
# Never: a lock.
# Invariant: what one thread wrote before a release store, another sees after
# the acquire load that read the stored value.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "fastpath/atomic.h" nogil:
    uint64_t atomic_load_relaxed(const uint64_t *place) noexcept
    uint64_t atomic_load_acquire(const uint64_t *place) noexcept
    void atomic_store_relaxed(uint64_t *place, uint64_t value) noexcept
    void atomic_store_release(uint64_t *place, uint64_t value) noexcept
    uint64_t atomic_add_relaxed(uint64_t *place, uint64_t value) noexcept    # the value before
    uint64_t atomic_add_ordered(uint64_t *place, uint64_t value) noexcept    # the value before

    bint atomic_exchange_if(uint64_t *place, uint64_t before, uint64_t after) noexcept  # whether it held `before`

    # The same macros for narrower counters.
    uint32_t atomic_load32_relaxed "atomic_load_relaxed"(const uint32_t *place) noexcept
    uint32_t atomic_load32_acquire "atomic_load_acquire"(const uint32_t *place) noexcept
    void atomic_store32_relaxed "atomic_store_relaxed"(uint32_t *place, uint32_t value) noexcept
    void atomic_store32_release "atomic_store_release"(uint32_t *place, uint32_t value) noexcept
    uint32_t atomic_add32_relaxed "atomic_add_relaxed"(uint32_t *place, uint32_t value) noexcept
    uint32_t atomic_exchange32_acquire "atomic_exchange_acquire"(uint32_t *place, uint32_t value) noexcept
    void atomic_pause() noexcept

    void atomic_fence_acquire() noexcept
    void atomic_fence_release() noexcept
    void atomic_fence_ordered() noexcept

    # `slot` is the address of a pointer of any type: load with acquire, store with release.
    void *atomic_pointer_load(const void *slot) noexcept
    void atomic_pointer_store(void *slot, const void *value) noexcept
