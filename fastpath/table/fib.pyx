"""The compiled forwarding tables of both families, and their one writer.

Owns: publication. A change goes into the routes, is compiled into a new version
that shares what did not change, becomes visible with one pointer store, and what
it replaced goes to the Reclaimer. All that can fail comes before the store, in both
families where a change concerns both.
Never: is changed by two threads at once (the GIL is held throughout), or waits for readers.
Invariant: routes and published version say the same whenever no method is running.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from libc.stdlib cimport free
from libc.string cimport memset
from fastpath.atomic cimport atomic_pointer_store
from fastpath.table.fib_build cimport root_compile, root_update
from fastpath.table.fib_change cimport change, change_trace
from fastpath.table.fib_pool cimport (
    FIB4_OFFSET, FIB6_OFFSET, FIB_LINE, edition_give, edition_retire, edition_take, piece_give, pool_free, pool_new,
)
from fastpath.table.fib_rows cimport FIB_VALUE_MAX, rows_of
from fastpath.table.rib cimport (
    rib_clear, rib_drop_kept, rib_get, rib_insert, rib_keep, rib_list, rib_longest, rib_remove, rib_undo,
)

cdef enum:
    LINES_MIN = 4096           # of a pool; four times as many when they run out
    REBUILD_SHARE = 16         # more changes at once than this part of the routes: compile anew
    LIST_ROOM = 256            # routes fetched at a time when listing

# -- memory of editions and pieces -----------------------------------------------------------

cdef void release_piece(void *owner, uint64_t item) noexcept:
    piece_give(<pool *>owner, <uint32_t>item & 0x3ffffff, <uint32_t>item >> 26)


cdef void release_pool(void *owner, uint64_t item) noexcept:
    pool_free(<pool *>owner)


cdef void *readable(edition *e) noexcept:
    """What readers of an edition get."""
    return &e.base


cdef int open_trie(trie *t, int version, uint64_t lines) except -1:
    memset(t, 0, sizeof(trie))
    t.six = version == 6
    t.transaction = 1
    t.pieces = pool_new(<uint32_t>lines)
    if t.pieces != NULL:
        t.making = edition_take(t.pieces, NULL)
    if t.making == NULL:
        close_trie(t)
        raise MemoryError("no memory for a compiled table")
    return 0


cdef void close_trie(trie *t) noexcept:
    """Free a trie of which nothing was published."""
    free(t.making)
    if t.pieces != NULL:
        pool_free(t.pieces)
    free(t.dropped)
    memset(t, 0, sizeof(trie))

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
        """Hand the pool and the last edition to the queue, behind the pieces that wait there."""
        cdef family *f = self.family_of(version)
        if self.reclaimer is None or f.published == NULL:
            return
        try:
            self.reclaimer.reserve(1)
        except MemoryError:
            return                    # leaked rather than freed under a queued piece
        self.retire_table(f)
        self.reclaimer.free_passed()

    cdef void retire_table(self, family *old) noexcept:
        """A table nobody will read any more. Room for it was reserved."""
        cdef uint64_t token = self.reclaimer.advance()
        edition_retire(old.compiled.pieces, old.published, token)
        self.reclaimer.defer(token, release_pool, old.compiled.pieces, 0)
        free(old.compiled.dropped)

    # -- compilation -----------------------------------------------------------
    cdef int compile(self, int version, const prefix *p, uint64_t n) except -1:
        """The routes of n prefixes changed: make a version that says so, for `publish`."""
        cdef family *f = self.family_of(version)
        cdef trie *t = &f.compiled
        cdef change c
        cdef uint64_t i
        self.reclaimer.free_passed()
        if f.broken or t.transaction == ~<uint32_t>0 or (n > 64 and n > f.routes.routes // REBUILD_SHARE):
            return self.compile_anew(version)
        self.collect_editions(t.pieces)
        t.making = edition_take(t.pieces, f.published)
        if t.making == NULL:
            raise MemoryError
        t.transaction += 1
        t.n_dropped = 0
        for i in range(n):
            if p[i].length == 0:
                t.full = True         # touches every entry: as good as a new table
            if t.full:
                break
            c.high, c.low, c.length = p[i].high, p[i].low, p[i].length
            change_trace(&c, &f.routes)
            root_update(t, &c)
        if not t.full:
            try:
                return self.reserve(f, t.n_dropped)
            except MemoryError:
                pass
        self.discard_making(f)
        return self.compile_anew(version)

    cdef int compile_anew(self, int version) except -1:
        """Compile all routes into a pool of their own, for `publish`."""
        cdef family *f = self.family_of(version)
        cdef uint64_t most = (<uint64_t>(FIB4_OFFSET if version == 4 else FIB6_OFFSET) + FIB_LINE) // FIB_LINE
        cdef uint64_t lines = LINES_MIN
        self.reserve(f, 1)
        while lines < f.routes.routes // 2:
            lines *= 2
        while True:
            open_trie(&f.fresh, version, min(lines, most))
            root_compile(&f.fresh, f.routes.root, f.routes.default_value)
            if not f.fresh.full:
                return 0
            close_trie(&f.fresh)
            if lines >= most:
                raise MemoryError("more routes than a compiled table can hold")
            lines *= 4

    cdef int rebuild(self, int version) except -1:
        """Compile all routes anew and publish that."""
        self.compile_anew(version)
        self.publish(version)
        return 0

    cdef int reserve(self, family *f, uint64_t n) except -1:
        """Room in the queue for the n entries that publishing `f` will take, beside those of the other family."""
        f.owed = 0
        self.reclaimer.reserve(self.v4.owed + self.v6.owed + n)
        f.owed = n
        return 0

    cdef void discard_making(self, family *f) noexcept:
        """Give up the version being made. The pieces made for it belong to nobody until all is compiled anew."""
        if f.compiled.making != NULL:
            free(f.compiled.making)
            f.compiled.making = NULL
            f.broken = True

    cdef void collect_editions(self, pool *p) noexcept:
        """Take back the editions that no reader has. An open snapshot keeps its own only, however many changes come."""
        cdef uint64_t oldest = self.reclaimer.oldest_unknown()
        cdef edition **link = &p.retired
        cdef edition *e = p.retired
        while e != NULL and e.token <= oldest:
            if self.reclaimer.is_held(readable(e)):
                link = &e.next
            else:
                link[0] = e.next
                if p.retired_end == &e.next:
                    p.retired_end = link
                edition_give(p, e)
            e = link[0]

    # -- publication -----------------------------------------------------------
    cdef void publish(self, int version) noexcept:
        """Make what was compiled, if anything, what readers see, then retire what it replaced. Room was reserved."""
        cdef family *f = self.family_of(version)
        cdef trie *t = &f.compiled
        cdef edition *old = f.published
        cdef uint64_t token, i
        f.owed = 0
        if f.fresh.pieces != NULL:
            self.publish_fresh(version)
            return
        if t.making == NULL:
            return
        t.making.position = t.pieces.n_changed
        f.published = t.making
        t.making = NULL
        atomic_pointer_store(self.slot_of(version), readable(f.published))
        token = self.reclaimer.advance()
        for i in range(t.n_dropped):
            self.reclaimer.defer(token, release_piece, t.pieces, t.dropped[i])
        t.n_dropped = 0
        edition_retire(t.pieces, old, token)

    cdef void publish_fresh(self, int version) noexcept:
        """The same with a table compiled anew."""
        cdef family *f = self.family_of(version)
        cdef family old = f[0]
        f.compiled, f.published, f.broken = f.fresh, f.fresh.making, False
        f.compiled.making = NULL
        memset(&f.fresh, 0, sizeof(trie))
        atomic_pointer_store(self.slot_of(version), readable(f.published))
        if old.published != NULL:
            self.retire_table(&old)

    # -- changes ---------------------------------------------------------------
    cdef uint32_t put(self, int version, const prefix *p, uint32_t value) except? 0xffffffff:
        cdef uint32_t old = 0
        self.put_many(version, p, &value, 1, &old)
        return old

    cdef int put_many(self, int version, const prefix *p, const uint32_t *values, uint64_t n, uint32_t *old) except -1:
        """Set n routes, or withdraw those whose value is 0, as one transaction; `old` gets the values before (0: none)."""
        self.prepare(version, p, values, n, old)
        self.commit(version)
        return 0

    cdef int put_rows(self, Rows one, Rows other) except -1:
        """The same with rows, of both families at once where there are `other`."""
        self.prepare(one.version, one.prefixes, one.values, one.n, &one.old[0])
        if other is not None:
            try:
                self.prepare(other.version, other.prefixes, other.values, other.n, &other.old[0])
            except MemoryError:
                self.abandon(one.version, one.prefixes, &one.old[0], one.n)
                raise
            self.commit(other.version)
        self.commit(one.version)
        return 0

    cdef int prepare(self, int version, const prefix *p, const uint32_t *values, uint64_t n, uint32_t *old) except -1:
        """Change the routes and compile them, unseen by readers; `commit` or `abandon` is to follow."""
        cdef family *f = self.family_of(version)
        cdef uint64_t i
        cdef bint changed = False
        rib_keep(&f.routes)
        for i in range(n):
            if values[i] == 0:
                old[i] = rib_remove(&f.routes, p[i].high, p[i].low, p[i].length)
            elif rib_insert(&f.routes, p[i].high, p[i].low, p[i].length, values[i], &old[i]) < 0:
                self.abandon(version, p, old, i)
                raise MemoryError(f"no memory for route {i} of {n}")
            changed = changed or old[i] != values[i]
        if changed:
            try:
                self.compile(version, p, n)
            except MemoryError:
                self.abandon(version, p, old, n)
                raise
        return 0

    cdef void commit(self, int version) noexcept:
        """What was prepared is what counts."""
        self.publish(version)
        rib_drop_kept(&self.family_of(version).routes)

    cdef void abandon(self, int version, const prefix *p, const uint32_t *old, uint64_t n) noexcept:
        """Nothing was prepared: the first n routes get back, last first, the values they had. Never needs memory: the
        nodes they were in were kept, and no array of a node ever shrinks."""
        cdef family *f = self.family_of(version)
        cdef uint32_t ignored
        self.discard_making(f)
        close_trie(&f.fresh)
        f.owed = 0
        rib_undo(&f.routes)
        while n:
            n -= 1
            if old[n]:
                rib_insert(&f.routes, p[n].high, p[n].low, p[n].length, old[n], &ignored)
            else:
                rib_remove(&f.routes, p[n].high, p[n].low, p[n].length)
        rib_drop_kept(&f.routes)

    cdef uint32_t take(self, int version, const prefix *p) except? 0xffffffff:
        cdef uint32_t nothing = 0, old = 0
        self.put_many(version, p, &nothing, 1, &old)
        return old

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
        self.put_rows(rows_of(version, addresses, lengths, values, 1), None)

    def change(self, int version, addresses, lengths, values):
        """As `load`, but a value of 0 withdraws the route; the values before, 0 where there was no route."""
        cdef Rows rows = rows_of(version, addresses, lengths, values, 0)
        self.put_rows(rows, None)
        return rows.before

    def clear(self) -> None:
        """Withdraw every route of both families, or none (MemoryError)."""
        cdef rib old4 = self.v4.routes
        cdef rib old6 = self.v6.routes
        memset(&self.v4.routes, 0, sizeof(rib))
        memset(&self.v6.routes, 0, sizeof(rib))
        try:
            self.compile_anew(4)
            self.compile_anew(6)
        except MemoryError:
            self.v4.routes, self.v6.routes = old4, old6
            self.v4.owed = self.v6.owed = 0
            close_trie(&self.v4.fresh)
            close_trie(&self.v6.fresh)
            raise
        self.publish(4)
        self.publish(6)
        rib_clear(&old4)
        rib_clear(&old6)
        self.reclaimer.free_passed()

    def __len__(self) -> int:
        return self.v4.routes.routes + self.v6.routes.routes

    @property
    def memory(self) -> dict[str, int]:
        """Bytes: of the routes, and of what lookups read, by family."""
        return {
            "routes": self.v4.routes.bytes + self.v6.routes.bytes,
            "ipv4": compiled_bytes(&self.v4.compiled),
            "ipv6": compiled_bytes(&self.v6.compiled),
        }


cdef uint64_t compiled_bytes(const trie *t) noexcept:
    """Of one version."""
    return <uint64_t>t.pieces.live * FIB_LINE + sizeof(edition)
