"""The compiled forwarding tables of both families, and their one writer.

Owns: publication. A change goes into the routes, is compiled into a new version
that shares what did not change, becomes visible with one pointer store, and what
it replaced goes to the Reclaimer.
Never: is changed by two threads at once (the GIL is held throughout), or waits for readers.
Invariant: routes and published version say the same whenever no method is running.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from fastpath.atomic cimport atomic_pointer_store
from fastpath.table.fib_build cimport trie_compile_top, trie_update_top
from fastpath.table.fib_pool cimport (
    FIB_BLOCK, FIB_FANOUT, FIB_INDEX, NARROW_MAX, pool, pool_close, pool_give, pool_open,
)
from fastpath.table.rib cimport rib_clear, rib_get, rib_insert, rib_list, rib_longest, rib_remove

cdef enum:
    NODES_MIN = 2048           # pieces a pool starts with; four times as many when they run out
    NODES_MAX = 0x400000       # so that a kernel's 32-bit gather index stays positive
    BLOCKS_MAX = 0x4000000     # what a reference can name
    REBUILD_SHARE = 16         # more changes at once than this part of the routes: compile anew
    LIST_ROOM = 256            # routes fetched at a time when listing

# -- memory of a version and of its pools ---------------------------------------------------

cdef void release_version(void *owner, uint64_t item) noexcept:
    free(owner)


cdef void release_piece(void *owner, uint64_t item) noexcept:
    pool_give(<pool *>owner, <uint32_t>item)


cdef void release_pool(void *owner, uint64_t item) noexcept:
    pool_close(<pool *>owner)
    free(owner)


cdef pool *new_pool(uint32_t size, uint64_t capacity) noexcept:
    cdef pool *p = <pool *>calloc(1, sizeof(pool))
    if p != NULL and pool_open(p, size, <uint32_t>capacity) != 0:
        free(p)
        p = NULL
    return p


cdef void close_trie(trie *t) noexcept:
    """Free the pools of a trie that was never published."""
    if t.nodes != NULL:
        release_pool(t.nodes, 0)
    if t.blocks != NULL:
        release_pool(t.blocks, 0)
    free(t.dropped)
    memset(t, 0, sizeof(trie))


cdef int open_trie(trie *t, int version, bint narrow, uint64_t capacity) except -1:
    memset(t, 0, sizeof(trie))
    t.narrow = narrow
    t.transaction = 1
    t.nodes = new_pool(FIB_FANOUT * (2 if narrow else 4), min(capacity, <uint64_t>NARROW_MAX + 1 if narrow else NODES_MAX))
    if version == 6:
        t.blocks = new_pool(sizeof(fib_block), min(8 * capacity, <uint64_t>BLOCKS_MAX))
    if t.nodes == NULL or (version == 6 and t.blocks == NULL):
        close_trie(t)
        raise MemoryError("no memory for a compiled table")
    return 0


cdef void *new_version(int version) noexcept:
    return calloc(1, sizeof(fib4) if version == 4 else sizeof(fib6))


cdef uint32_t *top_of(int version, void *fib) noexcept:
    return &(<fib4 *>fib).top[0] if version == 4 else &(<fib6 *>fib).top[0]


cdef void point(int version, void *fib, const trie *t) noexcept:
    """Tell a version where its pieces are."""
    if version == 6:
        (<fib6 *>fib).nodes = <uint32_t *>t.nodes.base
        (<fib6 *>fib).blocks = <fib_block *>t.blocks.base
    else:
        (<fib4 *>fib).narrow = <uint16_t *>t.nodes.base if t.narrow else NULL
        (<fib4 *>fib).wide = NULL if t.narrow else <uint32_t *>t.nodes.base

# -- values as Python has them ------------------------------------------------------------------

cdef int read_prefix(object network, prefix *p) except -1:
    """Fill `p`; the family, 4 or 6."""
    if not isinstance(network, (IPv4Network, IPv6Network)):
        raise TypeError(f"a prefix must be an IPv4Network or IPv6Network, not {network!r}")
    number = int(network.network_address)
    if network.version == 4:
        number <<= 96
    p.high, p.low = number >> 64, number & 0xffffffffffffffff
    p.length = network.prefixlen
    return network.version


cdef object network_of(int version, const rib_route *route):
    if version == 4:
        return IPv4Network((<uint32_t>(route.high >> 32), route.length))
    return IPv6Network(((<object>route.high << 64) | route.low, route.length))


cdef uint32_t read_value(object value) except 0:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= FIB_VALUE_MAX:
        raise ValueError(f"a route's value must be an integer 1..{FIB_VALUE_MAX}, not {value!r}")
    return value


cdef class Fib:
    """Longest-prefix match for threads that never wait: values (1..2^31-1) by prefix, both families.

    One Python thread at a time changes it; readers of the C pointers `ipv4` and
    `ipv6` take part in `reclaimer`.
    """

    def __cinit__(self, Reclaimer reclaimer not None):
        self.reclaimer = reclaimer
        self.rebuild(4)
        self.rebuild(6)

    def __dealloc__(self):
        # Whoever could read holds a reference to us: nobody does.
        cdef int version
        if self.reclaimer is not None:
            self.reclaimer.free_passed()
        for version in (4, 6):
            rib_clear(&self.family_of(version).routes)
            self.discard(version)

    cdef family *family_of(self, int version) noexcept:
        return &self.v4 if version == 4 else &self.v6

    cdef void **slot_of(self, int version) noexcept:
        return <void **>&self.ipv4 if version == 4 else <void **>&self.ipv6

    cdef void discard(self, int version) noexcept:
        """Hand the pools and the last version to the queue, behind the pieces that wait there."""
        cdef trie *t = &self.family_of(version).compiled
        cdef uint64_t token
        if self.reclaimer is None or t.nodes == NULL:
            return
        try:
            self.reclaimer.reserve(3)
        except MemoryError:
            return                    # leaked rather than freed under a queued piece
        token = self.reclaimer.advance()
        self.retire_pools(t, token)
        self.reclaimer.defer(token, release_version, self.slot_of(version)[0], 0)
        self.reclaimer.free_passed()

    cdef void retire_pools(self, trie *t, uint64_t token) noexcept:
        self.reclaimer.defer(token, release_pool, t.nodes, 0)
        if t.blocks != NULL:
            self.reclaimer.defer(token, release_pool, t.blocks, 0)
        free(t.dropped)

    # -- publication -----------------------------------------------------------
    cdef int publish(self, int version, void *new) except -1:
        """Make `new` what readers see, then retire what it replaced."""
        cdef trie *t = &self.family_of(version).compiled
        cdef void *old = self.slot_of(version)[0]
        cdef uint64_t token, i
        self.reclaimer.reserve(t.n_dropped + 1)
        point(version, new, t)
        atomic_pointer_store(self.slot_of(version), new)
        token = self.reclaimer.advance()
        for i in range(t.n_dropped):
            self.reclaimer.defer(token, release_piece, t.blocks if t.dropped[i] & FIB_BLOCK else t.nodes,
                                 t.dropped[i] & FIB_INDEX)
        t.n_dropped = 0
        self.reclaimer.defer(token, release_version, old, 0)
        return 0

    cdef int rebuild(self, int version) except -1:
        """Compile all routes into pools of their own and publish that."""
        cdef family *f = self.family_of(version)
        cdef trie fresh, old = f.compiled
        cdef void *new = new_version(version)
        cdef uint64_t capacity = NODES_MIN, token
        cdef bint narrow = version == 4 and not f.values_wide
        if new == NULL:
            raise MemoryError
        try:
            self.reclaimer.reserve(4)
            while capacity < f.routes.routes // 24:
                capacity *= 2
            while True:
                open_trie(&fresh, version, narrow, capacity)
                trie_compile_top(&fresh, f.routes.root, f.routes.default_value, top_of(version, new))
                if not fresh.full:
                    break
                close_trie(&fresh)
                if capacity >= NODES_MAX:
                    raise MemoryError("more routes than a compiled table can hold")
                narrow = narrow and capacity <= NARROW_MAX
                capacity *= 4
        except BaseException:
            free(new)
            raise
        f.compiled = fresh
        f.broken = False
        self.swap_pools(version, new, &old)
        return 0

    cdef int swap_pools(self, int version, void *new, trie *old) except -1:
        cdef void *replaced = self.slot_of(version)[0]
        cdef uint64_t token
        point(version, new, &self.family_of(version).compiled)
        atomic_pointer_store(self.slot_of(version), new)
        token = self.reclaimer.advance()
        if old.nodes != NULL:
            self.retire_pools(old, token)
            self.reclaimer.defer(token, release_version, replaced, 0)
        return 0

    cdef int apply(self, int version, const prefix *p, uint64_t n) except -1:
        """The routes of n prefixes changed: publish a version that says so."""
        cdef family *f = self.family_of(version)
        cdef trie *t = &f.compiled
        cdef void *new
        cdef uint64_t i
        self.reclaimer.free_passed()
        if f.broken or t.transaction == ~<uint32_t>0 or (n > 64 and n > f.routes.routes // REBUILD_SHARE):
            return self.rebuild(version)
        new = malloc(sizeof(fib4) if version == 4 else sizeof(fib6))
        if new == NULL:
            raise MemoryError
        memcpy(new, self.slot_of(version)[0], sizeof(fib4) if version == 4 else sizeof(fib6))
        t.transaction += 1
        t.n_dropped = 0
        for i in range(n):
            if p[i].length == 0:
                t.full = True         # touches every entry: as good as a new table
            if t.full:
                break
            trie_update_top(t, f.routes.root, p[i].high, p[i].low, p[i].length, f.routes.default_value,
                            top_of(version, new))
        if not t.full:
            return self.publish(version, new)
        free(new)
        f.broken = True               # until the rebuild succeeds
        return self.rebuild(version)

    # -- changes ---------------------------------------------------------------
    cdef uint32_t put(self, int version, const prefix *p, uint32_t value) except? 0xffffffff:
        cdef uint32_t old = 0
        self.put_many(version, p, &value, 1, &old)
        return old

    cdef int put_many(self, int version, const prefix *p, const uint32_t *values, uint64_t n, uint32_t *old) except -1:
        """Set n routes, or withdraw those whose value is 0, as one transaction; `old` gets the values before (0: none)."""
        cdef family *f = self.family_of(version)
        cdef uint64_t i
        cdef bint changed = False
        for i in range(n):
            if version == 4 and values[i] > NARROW_MAX and not f.values_wide:
                f.values_wide = True
                f.broken = f.broken or f.compiled.narrow
            if values[i] == 0:
                old[i] = rib_remove(&f.routes, p[i].high, p[i].low, p[i].length)
            elif rib_insert(&f.routes, p[i].high, p[i].low, p[i].length, values[i], &old[i]) < 0:
                self.undo_many(version, p, old, i)
                raise MemoryError(f"no memory for route {i} of {n}")
            changed = changed or old[i] != values[i]
        if not changed:
            return 0
        try:
            self.apply(version, p, n)
        except MemoryError:
            self.undo_many(version, p, old, n)
            raise
        return 0

    cdef int undo_many(self, int version, const prefix *p, const uint32_t *old, uint64_t n) except -1:
        """Give the first n routes, last first, the values they had. Never needs memory."""
        cdef rib *routes = &self.family_of(version).routes
        cdef uint32_t ignored
        while n:
            n -= 1
            if old[n]:
                rib_insert(routes, p[n].high, p[n].low, p[n].length, old[n], &ignored)
            else:
                rib_remove(routes, p[n].high, p[n].low, p[n].length)
        return 0

    cdef uint32_t take(self, int version, const prefix *p) except? 0xffffffff:
        cdef rib *routes = &self.family_of(version).routes
        cdef uint32_t value = rib_remove(routes, p.high, p.low, p.length)
        cdef uint32_t ignored
        if value == 0:
            return 0
        try:
            self.apply(version, p, 1)
        except MemoryError:
            rib_insert(routes, p.high, p.low, p.length, value, &ignored)
            raise
        return value

    # -- what Python calls --------------------------------------------------------
    def insert(self, network, value) -> None:
        """Route `network` (an IPv4Network or IPv6Network) to `value`, replacing what was there."""
        cdef prefix p
        cdef int version = read_prefix(network, &p)
        self.put(version, &p, read_value(value))

    def remove(self, network) -> int:
        """Withdraw the route for exactly `network`; its value. KeyError when there is none."""
        cdef prefix p
        cdef int version = read_prefix(network, &p)
        cdef uint32_t value = self.take(version, &p)
        if value == 0:
            raise KeyError(network)
        return value

    def get(self, network) -> int:
        """The value of exactly `network`, 0 when there is no such route."""
        cdef prefix p
        cdef int version = read_prefix(network, &p)
        return rib_get(&self.family_of(version).routes, p.high, p.low, p.length)

    def find(self, address) -> int:
        """The value of the longest match, as readers see it; 0 when there is none."""
        number = int(address)
        if isinstance(address, IPv4Address):
            return fib4_find(fib4_current(&self.ipv4), number)
        if isinstance(address, IPv6Address):
            return fib6_find(fib6_current(&self.ipv6), number >> 64, number & 0xffffffffffffffff)
        raise TypeError(f"an address must be an IPv4Address or IPv6Address, not {address!r}")

    def longest(self, address) -> tuple | None:
        """(network, value) of the longest match among the routes, or None."""
        cdef int version = address.version
        cdef rib_route route
        cdef rib_match match
        number = int(address) << 96 if version == 4 else int(address)
        match = rib_longest(&self.family_of(version).routes, number >> 64, number & 0xffffffffffffffff, address.max_prefixlen)
        if match.value == 0:
            return None
        number = number >> (128 - match.length) << (128 - match.length)
        route.high, route.low, route.length = number >> 64, number & 0xffffffffffffffff, match.length
        return network_of(version, &route), match.value

    def items(self) -> list:
        """(network, value) of all routes: IPv4 first, each family in order of address and length."""
        cdef rib_route batch[LIST_ROOM]
        cdef rib_route last
        cdef uint64_t n, i
        cdef int version
        found = []
        for version in (4, 6):
            n = rib_list(&self.family_of(version).routes, 0, 0, 0, NULL, batch, LIST_ROOM)
            while n:
                for i in range(n):
                    found.append((network_of(version, &batch[i]), batch[i].value))
                last = batch[n - 1]
                n = rib_list(&self.family_of(version).routes, 0, 0, 0, &last, batch, LIST_ROOM)
        return found

    def load(self, int version, addresses, lengths, values) -> None:
        """Set many routes at once, as one change for every reader.

        `addresses`: uint32 of shape (n,) for version 4, uint64 of shape (n, 2),
        upper half first, for version 6, host order; `lengths`: uint8 (n,); `values`: uint32 (n,).
        """
        load_arrays(self, version, addresses, lengths, values, 1)

    def change(self, int version, addresses, lengths, values):
        """As `load`, but a value of 0 withdraws the route; the values before, 0 where there was no route."""
        return load_arrays(self, version, addresses, lengths, values, 0)

    def clear(self) -> None:
        """Withdraw every route."""
        cdef int version
        for version in (4, 6):
            rib_clear(&self.family_of(version).routes)
            self.family_of(version).values_wide = False
            self.rebuild(version)
        self.reclaimer.free_passed()

    def __len__(self) -> int:
        return self.v4.routes.routes + self.v6.routes.routes

    @property
    def memory(self) -> dict[str, int]:
        """Bytes: of the routes, and of what lookups read, by family."""
        return {
            "routes": self.v4.routes.bytes + self.v6.routes.bytes,
            "ipv4": compiled_bytes(&self.v4.compiled) + sizeof(fib4),
            "ipv6": compiled_bytes(&self.v6.compiled) + sizeof(fib6),
        }


cdef uint64_t compiled_bytes(const trie *t) noexcept:
    cdef uint64_t bytes = <uint64_t>t.nodes.live * t.nodes.size
    if t.blocks != NULL:
        bytes += <uint64_t>t.blocks.live * t.blocks.size
    return bytes


cdef int read_arrays(int version, object addresses, object lengths, object values, uint32_t least, prefix *p,
                     uint32_t *numbers) except -1:
    """Check and copy n routes; ValueError names the first that is wrong. `least` is the smallest value allowed."""
    cdef const uint32_t[::1] short_addresses
    cdef const uint64_t[:, ::1] long_addresses
    cdef const uint8_t[::1] bits = lengths
    cdef const uint32_t[::1] given = values
    cdef uint64_t i, n = bits.shape[0]
    cdef uint32_t longest = 32 if version == 4 else 128
    if version == 4:
        short_addresses = addresses
    else:
        long_addresses = addresses
    for i in range(n):
        p[i].high = <uint64_t>short_addresses[i] << 32 if version == 4 else long_addresses[i, 0]
        p[i].low = 0 if version == 4 else long_addresses[i, 1]
        p[i].length = bits[i]
        numbers[i] = given[i]
        if bits[i] > longest:
            raise ValueError(f"route {i}: length {bits[i]} is not 0..{longest}")
        if host_bits(&p[i]):
            raise ValueError(f"route {i}: bits set behind the prefix length {bits[i]}")
        if not least <= given[i] <= FIB_VALUE_MAX:
            raise ValueError(f"route {i}: value {given[i]} is not {least}..{FIB_VALUE_MAX}")
    return 0


cdef bint host_bits(const prefix *p) noexcept nogil:
    cdef uint32_t n = p.length
    if n >= 64:
        return n < 128 and (p.low & (~<uint64_t>0 >> (n - 64))) != 0
    return p.low != 0 or (p.high & (~<uint64_t>0 >> n)) != 0


cdef object load_arrays(Fib fib, int version, object addresses, object lengths, object values, uint32_t least):
    """Change many routes at once; the values before."""
    cdef uint64_t n = len(lengths)
    cdef uint32_t[::1] before = numpy.zeros(n + 1, numpy.uint32)
    cdef prefix *p
    cdef uint32_t *numbers
    if version not in (4, 6):
        raise ValueError(f"version must be 4 or 6, not {version}")
    if not len(addresses) == len(lengths) == len(values):
        raise ValueError(f"{len(addresses)} addresses, {len(lengths)} lengths and {len(values)} values")
    p = <prefix *>malloc((n + 1) * sizeof(prefix))
    numbers = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
    try:
        if p == NULL or numbers == NULL:
            raise MemoryError
        read_arrays(version, addresses, lengths, values, least, p, numbers)
        fib.put_many(version, p, numbers, n, &before[0])
    finally:
        free(p)
        free(numbers)
    return numpy.asarray(before)[:n]
