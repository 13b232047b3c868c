"""Longest-prefix match for Python programs: a mapping from prefixes to any values.

>>> from fastpath.lpm import RouteTable
>>> table = RouteTable({"10.0.0.0/8": "core", "10.1.0.0/16": "edge", "2001:db8::/32": "lab"})
>>> table["10.1.2.3"], table["10.2.0.0"], table["2001:db8::1"]
('edge', 'core', 'lab')
>>> table.get("192.0.2.1", "nowhere")
'nowhere'

Arrays in, arrays out, without the GIL:

>>> import numpy
>>> numbers = table.lookup(numpy.array([0x0a010203, 0x0a020000, 0xc0000201], numpy.uint32))
>>> table.resolve(numbers)
['edge', 'core', None]

Owns: the mapping's rules, and loading many routes.
Never: changes a version that somebody reads.
Invariant: a failed call leaves the table as it was.
"""

from collections.abc import Mapping, MutableMapping

import numpy

from libc.stdlib cimport free, malloc
from fastpath.lpm_arrays cimport as_pairs, find_array, find_one, resolve_numbers
from fastpath.lpm_key cimport KEY_ADDRESS, high_mask, low_mask, read_key, text_of
from fastpath.lpm_snapshot cimport Snapshot
from fastpath.table.fib_rows cimport read_prefixes
from fastpath.table.rib cimport rib_count, rib_get, rib_list, rib_longest, rib_match, rib_route

cdef enum:
    LIST_ROOM = 256            # routes fetched at a time by an iterator


cdef class RouteTable:
    """A mutable mapping from IPv4 and IPv6 prefixes to any Python values, read by longest match.

    A key is a str ("10.0.0.0/8", "10.1.2.3", "2001:db8::/32"), an int (an IPv4
    address below 2**32, an IPv6 address from there on), bytes (4 or 16, network
    order), an object of the ipaddress module, or (address, length). A key
    without a length is an address: a prefix of 32 or 128 bits where one is set.

    `table[key]`, `get`, `get_key` and `in` ask for the longest prefix that
    covers the key; `del`, `pop`, `exact` and `has_key` for exactly the key.
    Iteration, `keys`, `values` and `items` go in order: IPv4 before IPv6, then
    by address, shorter prefixes first. The two families never mix.

    One thread may change a table while any number look up: a lookup never waits
    and never sees half a change.
    """

    def __cinit__(self, *args, **kwargs):
        self.reclaimer = Reclaimer()
        self.fib = Fib(self.reclaimer)
        self.store = Values()

    def __init__(self, routes=()):
        self.update(routes)

    # -- changes -------------------------------------------------------------------
    cdef int put(self, int version, const prefix *p, object value) except -1:
        cdef uint32_t number = self.store.acquire(value)
        cdef uint32_t old
        try:
            old = self.fib.put(version, p, number)
        except MemoryError:
            self.store.leave(number, self.reclaimer)
            raise
        if old:
            self.store.leave(old, self.reclaimer)
        self.changes += 1
        return 0

    cdef int take(self, int version, const prefix *p, object key) except -1:
        cdef uint32_t number = self.fib.take(version, p)
        if number == 0:
            raise KeyError(key)
        self.store.leave(number, self.reclaimer)
        self.changes += 1
        return 0

    def __setitem__(self, key, value):
        cdef prefix p
        self.put(read_key(key, &p) & ~KEY_ADDRESS, &p, value)

    def __delitem__(self, key):
        cdef prefix p
        self.take(read_key(key, &p) & ~KEY_ADDRESS, &p, key)

    def insert(self, *route) -> None:
        """insert(prefix, value) or insert(address, length, value): the same as table[prefix] = value."""
        if len(route) == 2:
            self[route[0]] = route[1]
        elif len(route) == 3:
            self[route[0], route[1]] = route[2]
        else:
            raise TypeError(f"insert takes (prefix, value) or (address, length, value), not {len(route)} arguments")

    def pop(self, key, *default):
        """Withdraw exactly `key` and return its value; `default`, if given, when it is not there."""
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        cdef uint32_t number = rib_get(self.routes_of(version), p.high, p.low, p.length)
        if number == 0:
            if default:
                return default[0]
            raise KeyError(key)
        value = self.store.values[number]
        self.take(version, &p, key)
        return value

    def popitem(self) -> tuple:
        """Withdraw the first route in order and return (prefix, value)."""
        for item in self.items():
            del self[item[0]]
            return item
        raise KeyError("the table is empty")

    def setdefault(self, key, default=None):
        """The value of exactly `key`, which is set to `default` when it is not there."""
        if not self.has_key(key):
            self[key] = default
        return self.exact(key)

    def clear(self) -> None:
        """Withdraw every route."""
        cdef uint32_t number
        self.fib.clear()
        for number in range(1, len(self.store.values)):
            if self.store.uses[number].routes:
                self.store.uses[number].routes = 1     # all its routes are gone at once
                self.store.leave(number, self.reclaimer)
        self.changes += 1
        self.reclaimer.free_passed()

    def update(self, routes=()) -> None:
        """Set the routes of a mapping, or of an iterable of (prefix, value), as one change for every reader.

        With an error in any of them none is set.
        """
        if isinstance(routes, (Mapping, RouteTable)):
            routes = routes.items()
        staged = ([], [], []), ([], [], [])
        cdef prefix p
        for route in routes:
            try:
                key, value = route
            except (TypeError, ValueError):
                raise TypeError(f"a route is (prefix, value), not {route!r}") from None
            addresses, lengths, values = staged[(read_key(key, &p) & ~KEY_ADDRESS) == 6]
            addresses.append((p.high, p.low))
            lengths.append(p.length)
            values.append(value)
        self.put_lists(4, *staged[0])
        self.put_lists(6, *staged[1])

    def put_lists(self, int version, list addresses, list lengths, list values) -> None:
        """For `update`: routes whose keys were read."""
        cdef uint64_t i, n = len(values), acquired = 0
        cdef prefix *p = <prefix *>malloc((n + 1) * sizeof(prefix))
        cdef uint32_t *numbers = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        try:
            if p == NULL or numbers == NULL:
                raise MemoryError
            for i in range(n):
                p[i].high, p[i].low = addresses[i]
                p[i].length = lengths[i]
                numbers[i] = self.store.acquire(values[i])
                acquired += 1
            self.put_staged(version, p, numbers, n)
        except (MemoryError, OverflowError):
            for i in range(acquired):
                self.store.leave(numbers[i], self.reclaimer)
            raise
        finally:
            free(p)
            free(numbers)

    cdef int put_staged(self, int version, const prefix *p, const uint32_t *numbers, uint64_t n) except -1:
        """Set n routes as one change. Each has acquired its number; with an error the caller leaves them."""
        cdef uint64_t i
        cdef uint32_t *old = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        try:
            if old == NULL:
                raise MemoryError
            self.fib.put_many(version, p, numbers, n, old)
            for i in range(n):
                if old[i]:
                    self.store.leave(old[i], self.reclaimer)
            self.changes += 1
        finally:
            free(old)
        return 0

    def load(self, addresses, lengths, values) -> None:
        """Set many routes of one family from arrays, as one change for every reader.

        addresses: uint32 (n,), or uint64 (n, 2) with the upper half first, or
        uint8 (n, 16); host order but for the last. lengths: uint8 (n,), bits.
        values: n values; an integer array is taken as Python ints.

        >>> table = RouteTable()
        >>> table.load(numpy.array([0x0a000000], numpy.uint32), numpy.array([8], numpy.uint8), [7])
        >>> table["10.9.8.7"]
        7
        """
        load_arrays(self, addresses, lengths, values)

    # -- longest match -----------------------------------------------------------------
    cdef object match(self, int version, const prefix *p):
        """(length, number) of the longest route covering p, or None."""
        cdef rib_match found = rib_longest(self.routes_of(version), p.high, p.low, p.length)
        return (found.length, found.value) if found.value else None

    cdef rib *routes_of(self, int version) noexcept:
        return &self.fib.family_of(version & ~KEY_ADDRESS).routes

    cdef uint32_t number_at(self, object key) except? 0:
        cdef prefix p
        cdef int version = read_key(key, &p)
        if version & KEY_ADDRESS:
            return find_one(self.fib.ipv4, self.fib.ipv6, version, &p)
        return rib_longest(self.routes_of(version), p.high, p.low, p.length).value

    def __getitem__(self, key):
        cdef uint32_t number = self.number_at(key)
        if number == 0:
            raise KeyError(key)
        return self.store.values[number]

    def get(self, key, default=None):
        """The value of the longest prefix that covers `key`, or `default`."""
        cdef uint32_t number = self.number_at(key)
        return self.store.values[number] if number else default

    def __contains__(self, key) -> bool:
        return self.number_at(key) != 0

    def get_key(self, key) -> str | None:
        """The longest prefix that covers `key`, or None.

        >>> RouteTable({"10.0.0.0/8": 1}).get_key("10.1.2.3")
        '10.0.0.0/8'
        """
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        cdef rib_match found = rib_longest(self.routes_of(version), p.high, p.low, p.length)
        if found.value == 0:
            return None
        return text_of(version, p.high & high_mask(found.length), p.low & low_mask(found.length), found.length)

    def lookup(self, keys, out=None):
        """Longest match of every address of an array: numbers of values, uint32 of shape (n,); 0 is no route.

        keys: uint32 (n,) in host order for IPv4; for IPv6 uint64 (n, 2) in host
        order, the upper half first, or uint8 (n, 16) in network order. C-contiguous.
        out: uint32 (n,) to write to instead of a new array; ValueError when it overlaps `keys`.

        All answers come from one version of the table. From 1,024 addresses on
        the GIL is released. `resolve` turns numbers into values. A number means the same
        value while a route has it; after that, while a snapshot from before is open.
        """
        return find_array(self.fib, NULL, NULL, keys, out)

    def resolve(self, numbers) -> list:
        """The values of an array of numbers from `lookup`; None for 0."""
        return resolve_numbers(self.store.values, numbers)

    def number(self, key) -> int:
        """The number of the value of the longest match, as `lookup` gives it; 0 is no route."""
        return self.number_at(key)

    def snapshot(self) -> Snapshot:
        """A context in which all lookups see the table as it is now.

        >>> table = RouteTable({"10.0.0.0/8": "old"})
        >>> with table.snapshot() as view:
        ...     table["10.0.0.0/8"] = "new"
        ...     view["10.1.1.1"], table["10.1.1.1"]
        ('old', 'new')
        """
        return Snapshot(self.fib, self.store)

    # -- exactly one prefix ---------------------------------------------------------------
    def exact(self, key, *default):
        """The value of exactly `key`; `default`, if given, when it is not there."""
        cdef prefix p
        cdef int version = read_key(key, &p)
        cdef uint32_t number = rib_get(self.routes_of(version), p.high, p.low, p.length)
        if number:
            return self.store.values[number]
        if default:
            return default[0]
        raise KeyError(key)

    def has_key(self, key) -> bool:
        """Whether exactly `key` is a route."""
        cdef prefix p
        cdef int version = read_key(key, &p)
        return rib_get(self.routes_of(version), p.high, p.low, p.length) != 0

    # -- relations --------------------------------------------------------------------------
    def parent(self, key) -> str | None:
        """The longest route that covers `key` and is shorter, or None. `key` need not be a route."""
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        if p.length == 0:
            return None
        p.length -= 1
        found = self.match(version, &p)
        if found is None:
            return None
        return text_of(version, p.high & high_mask(found[0]), p.low & low_mask(found[0]), found[0])

    def supernets(self, key) -> list[tuple[str, object]]:
        """(prefix, value) of every route that covers `key`, itself included, longest first.

        >>> RouteTable({"0.0.0.0/0": "all", "10.0.0.0/8": "ten"}).supernets("10.1.1.1")
        [('10.0.0.0/8', 'ten'), ('0.0.0.0/0', 'all')]
        """
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        cdef rib_match found
        covering = []
        while True:
            found = rib_longest(self.routes_of(version), p.high, p.low, p.length)
            if found.value == 0:
                return covering
            covering.append((text_of(version, p.high & high_mask(found.length), p.low & low_mask(found.length), found.length),
                             self.store.values[found.value]))
            if found.length == 0:
                return covering
            p.length = found.length - 1

    def subnets(self, key) -> list[tuple[str, object]]:
        """(prefix, value) of every route inside `key`, itself included, in order. `key` need not be a route."""
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        return list(self.listing(version, p.high, p.low, p.length))

    def children(self, key) -> list[str]:
        """The routes inside `key` that are longer, in order."""
        cdef prefix p
        cdef int version = read_key(key, &p) & ~KEY_ADDRESS
        own = text_of(version, p.high, p.low, p.length)
        return [text for text, _ in self.listing(version, p.high, p.low, p.length) if text != own]

    def overlaps(self, key) -> bool:
        """Whether some route covers `key` or lies inside it."""
        cdef prefix p
        cdef int version = read_key(key, &p)
        return (rib_longest(self.routes_of(version), p.high, p.low, p.length).value != 0
                or rib_count(self.routes_of(version), p.high, p.low, p.length) != 0)

    # -- iteration ---------------------------------------------------------------------------
    def listing(self, int version, uint64_t high, uint64_t low, uint32_t length):
        """(prefix, value) of the routes of one family inside a prefix, in order."""
        cdef rib_route batch[LIST_ROOM]
        cdef rib_route last
        cdef uint64_t i, changes = self.changes
        cdef uint64_t n = rib_list(self.routes_of(version), high, low, length, NULL, batch, LIST_ROOM)
        while n:
            for i in range(n):
                yield (text_of(version, batch[i].high, batch[i].low, batch[i].length), self.store.values[batch[i].value])
                if self.changes != changes:
                    raise RuntimeError("the route table changed during iteration")
            last = batch[n - 1]
            n = rib_list(self.routes_of(version), high, low, length, &last, batch, LIST_ROOM)

    def items(self):
        """(prefix, value) of every route, in order."""
        yield from self.listing(4, 0, 0, 0)
        yield from self.listing(6, 0, 0, 0)

    def keys(self):
        """Every prefix, in order."""
        return (key for key, _ in self.items())

    def values(self):
        """The value of every route, in order."""
        return (value for _, value in self.items())

    def __iter__(self):
        return self.keys()

    def __len__(self) -> int:
        return len(self.fib)

    def __bool__(self) -> bool:
        return len(self.fib) != 0

    # -- as a whole ------------------------------------------------------------------------------
    def __eq__(self, other):
        if isinstance(other, RouteTable):
            return len(self) == len(other) and all(mine == its for mine, its in zip(self.items(), other.items()))
        if isinstance(other, Mapping):
            return self == RouteTable(other)
        return NotImplemented

    __hash__ = None

    def copy(self) -> RouteTable:
        """A table of its own with the same routes and the same value objects."""
        return type(self)(self)

    __copy__ = copy

    def __reduce__(self):
        return (type(self), (list(self.items()),))

    def __repr__(self) -> str:
        return f"<RouteTable: {self.fib.v4.routes.routes} IPv4 and {self.fib.v6.routes.routes} IPv6 routes>"

    @property
    def memory(self) -> dict[str, int]:
        """Bytes: "routes" for the prefixes, "ipv4" and "ipv6" for what lookups read; values not counted."""
        return self.fib.memory

    def reclaim(self) -> int:
        """Free what no lookup can see any more; how many things still wait. Changes do this by themselves."""
        return self.reclaimer.free_passed()

# -- loading arrays ------------------------------------------------------------------------------

cdef object as_numbers(Values table, object values, uint64_t n, list acquired):
    """A uint32 array of the numbers of n values; what was acquired, each distinct integer of an array once."""
    if len(values) != n:
        raise ValueError(f"{len(values)} values for {n} addresses")
    if isinstance(values, numpy.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        if n and values.min() >= 0 and values.max() < 4 * n + 65536:
            present = numpy.flatnonzero(numpy.bincount(values))      # no sorting: a table by value
            numbers = numpy.zeros(int(values.max()) + 1, numpy.uint32)
            numbers[present] = acquire_all(table, present.tolist(), acquired)
            return numbers[values]
        present, places = numpy.unique(values, return_inverse=True)
        return acquire_all(table, present.tolist(), acquired)[places]
    return acquire_all(table, values, acquired)


cdef object acquire_all(Values table, object values, list acquired):
    for value in values:
        acquired.append(table.acquire(value))
    return numpy.array(acquired, numpy.uint32)


cdef int put_arrays(RouteTable table, int version, const prefix *p, object values, uint64_t n, list acquired) except -1:
    """Set n routes; `acquired` gets the numbers the caller must leave afterwards, whatever happened."""
    cdef const uint32_t[::1] numbers = as_numbers(table.store, values, n, acquired)
    cdef uint64_t i
    for i in range(n):
        table.store.keep(numbers[i])
    try:
        table.put_staged(version, p, &numbers[0] if n else NULL, n)
    except MemoryError:
        for i in range(n):
            table.store.leave(numbers[i], table.reclaimer)
        raise
    return 0


cdef int load_arrays(RouteTable table, object addresses, object lengths, object values) except -1:
    cdef uint64_t n = len(lengths)
    cdef prefix *p = NULL
    cdef uint32_t number
    version, addresses = as_pairs(addresses)
    if len(addresses) != n:
        raise ValueError(f"{n} lengths for {len(addresses)} addresses")
    acquired = []
    p = <prefix *>malloc((n + 1) * sizeof(prefix))
    if p == NULL:
        raise MemoryError
    try:
        read_prefixes(version, addresses, lengths, p)
        put_arrays(table, version, p, values, n, acquired)
    finally:
        free(p)
        for number in acquired:
            table.store.leave(number, table.reclaimer)
    return 0


MutableMapping.register(RouteTable)
