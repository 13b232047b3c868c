/* Memory orders by name, for Cython, which has none of its own.
 *
 * Owns: one macro for each combination of operation and order the project
 * uses; each works on any pointer or integer of at most eight bytes.
 * Never: chooses an order for the caller. Why an order suffices stands where it is used.
 * Requires: the `__atomic` builtins of gcc and clang.
 */
#ifndef FASTPATH_ATOMIC_H
#define FASTPATH_ATOMIC_H

#define atomic_load_relaxed(place) __atomic_load_n((place), __ATOMIC_RELAXED)
/* Store `after` if the place holds `before`: whether it did. */
#define atomic_exchange_if(place, before, after) \
    __sync_bool_compare_and_swap((place), (before), (after))
#define atomic_load_acquire(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
#define atomic_store_relaxed(place, value) __atomic_store_n((place), (value), __ATOMIC_RELAXED)
#define atomic_store_release(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
#define atomic_add_relaxed(place, value) __atomic_fetch_add((place), (value), __ATOMIC_RELAXED)
#define atomic_add_ordered(place, value) __atomic_fetch_add((place), (value), __ATOMIC_SEQ_CST)
#define atomic_exchange_acquire(place, value) __atomic_exchange_n((place), (value), __ATOMIC_ACQUIRE)
#define atomic_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define atomic_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
#define atomic_fence_ordered() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* Pointers of every type pass through one cast, so that Cython needs one declaration. */
#define atomic_pointer_load(slot) __atomic_load_n((void *const *)(slot), __ATOMIC_ACQUIRE)
#define atomic_pointer_store(slot, value) \
    __atomic_store_n((void **)(slot), (void *)(value), __ATOMIC_RELEASE)

/* A hint to the processor inside a loop that waits for another thread. */
#if defined(__x86_64__)
#define atomic_pause() __builtin_ia32_pause()
#else
#define atomic_pause() __asm__ volatile("" ::: "memory")
#endif

#endif
