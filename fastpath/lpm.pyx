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

Owns: the mapping's rules, the reading of keys, and who reads which version.
Never: changes a version that somebody reads.
Invariant: a failed call leaves the table as it was; a bulk lookup is answered
from one version, whatever other threads change meanwhile.
"""

from collections.abc import Mapping, MutableMapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from fastpath.lpm_key cimport KEY_ADDRESS, TEXT_MAX, load_be64, prefix_read, prefix_write
from fastpath.simd.lookup cimport fib4 as kernel_fib4, fib6 as kernel_fib6, lookup_ipv4, lookup_ipv6
from fastpath.table.fib cimport fib4_current, fib4_find, fib6_current, fib6_find
from fastpath.table.qsbr cimport qsbr_offline, qsbr_online
from fastpath.table.rib cimport rib, rib_count, rib_get, rib_list, rib_longest, rib_match, rib_route

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    GIL_BATCH = 1024           # smaller lookups take less time than giving up the GIL
    LIST_ROOM = 256            # routes fetched at a time by an iterator
    CHUNK = 256                # addresses converted at a time

# -- keys --------------------------------------------------------------------------

cdef int read_number(object key, prefix *p) except -1:
    """An address as an integer: IPv4 below 2^32, IPv6 from there on."""
    if 0 <= key < 0x100000000:
        p.high = <uint64_t>key << 32
        p.low, p.length = 0, 32
        return 4 | KEY_ADDRESS
    if 0 <= key < 1 << 128:
        p.high, p.low, p.length = key >> 64, key & 0xffffffffffffffff, 128
        return 6 | KEY_ADDRESS
    raise ValueError(f"address {key} is not 0..2^128 - 1")


cdef int read_octets(bytes key, prefix *p) except -1:
    """A packed address in network order."""
    cdef const uint8_t *octets = <const uint8_t *>PyBytes_AS_STRING(key)
    if PyBytes_GET_SIZE(key) == 4:
        p.high = <uint64_t>octets[0] << 56 | <uint64_t>octets[1] << 48 | <uint64_t>octets[2] << 40 | <uint64_t>octets[3] << 32
        p.low, p.length = 0, 32
        return 4 | KEY_ADDRESS
    if PyBytes_GET_SIZE(key) == 16:
        p.high, p.low, p.length = load_be64(octets), load_be64(octets + 8), 128
        return 6 | KEY_ADDRESS
    raise ValueError(f"a packed address has 4 or 16 bytes, not {len(key)}: {key!r}")


cdef int read_pair(tuple key, prefix *p) except -1:
    """(address, length)"""
    cdef int version
    if len(key) != 2:
        raise TypeError(f"a prefix as a tuple is (address, length), not {key!r}")
    address, length = key
    version = read_key(address, p)
    if not version & KEY_ADDRESS:
        raise ValueError(f"{address!r} already has a length, in {key!r}")
    if isinstance(length, bool) or not isinstance(length, (int, numpy.integer)):
        raise TypeError(f"the length of {key!r} is not an integer")
    if not 0 <= length <= p.length:
        raise ValueError(f"the length of {key!r} is not 0..{p.length}")
    p.length = length
    return version & ~KEY_ADDRESS


cdef int read_object(object key, prefix *p) except -1:
    """Objects of the ipaddress module, tuples and numpy integers."""
    cdef int version
    if isinstance(key, tuple):
        return read_pair(key, p)
    if isinstance(key, (IPv4Address, IPv6Address)):
        if getattr(key, "scope_id", None) is not None:
            raise ValueError(f"{key!r} has a scope, which a route has not")
        return read_octets(key.packed, p)
    if isinstance(key, (IPv4Network, IPv6Network)):
        version = read_octets(key.network_address.packed, p) & ~KEY_ADDRESS
        p.length = key.prefixlen
        return version
    if isinstance(key, numpy.integer):
        return read_number(int(key), p)
    raise TypeError(f"a key is str, int, bytes, an ipaddress object or (address, length), not {type(key).__name__}: {key!r}")


cdef int read_key(object key, prefix *p) except -1:
    """Fill `p`: 4 or 6, with KEY_ADDRESS when the key gave no length. Host bits are errors."""
    cdef Py_ssize_t size
    cdef const char *text
    cdef int version
    kind = type(key)
    if kind is str:
        text = PyUnicode_AsUTF8AndSize(key, &size)
        version = prefix_read(text, <uint32_t>min(size, 2 * TEXT_MAX), p)
        if version == 0:
            raise ValueError(f"not an address or prefix: {key!r}")
    elif kind is int:
        version = read_number(key, p)
    elif kind is bytes:
        version = read_octets(key, p)
    else:
        version = read_object(key, p)
    if not version & KEY_ADDRESS and host_bits(p):
        raise ValueError(f"bits set behind the prefix length: {key!r}")
    return version


cdef inline bint host_bits(const prefix *p) noexcept nogil:
    if p.length >= 64:
        return p.length < 128 and (p.low & (~<uint64_t>0 >> (p.length - 64))) != 0
    return p.low != 0 or (p.high & (~<uint64_t>0 >> p.length)) != 0


cdef object text_of(int version, uint64_t high, uint64_t low, uint32_t length):
    cdef char text[TEXT_MAX]
    return PyUnicode_DecodeASCII(text, prefix_write(version, high, low, length, text), NULL)


cdef inline uint64_t high_mask(uint32_t length) noexcept nogil:
    return ~<uint64_t>0 if length >= 64 else ~(~<uint64_t>0 >> length)


cdef inline uint64_t low_mask(uint32_t length) noexcept nogil:
    return 0 if length <= 64 else high_mask(length - 64)

# -- arrays ------------------------------------------------------------------------

cdef enum:
    KEYS_IPV4, KEYS_PAIRS, KEYS_OCTETS

cdef int keys_shape(const Py_buffer *view, object keys) except -1:
    """Which of the three shapes an array of addresses has."""
    cdef char kind = view.format[0] if view.format != NULL and view.format[1] == 0 else 0
    if view.ndim == 1 and view.itemsize == 4 and kind in b"IL":
        return KEYS_IPV4
    if view.ndim == 2 and view.itemsize == 8 and kind in b"LQ" and view.shape[1] == 2:
        return KEYS_PAIRS
    if view.ndim == 2 and kind == c"B" and view.shape[1] == 16:
        return KEYS_OCTETS
    shape = tuple(view.shape[i] for i in range(view.ndim))
    raise TypeError("addresses are uint32 of shape (n,), uint64 of shape (n, 2) or uint8 of shape (n, 16), "
                    f"not {getattr(keys, 'dtype', type(keys).__name__)} of shape {shape}")


cdef int check_values(const Py_buffer *view, Py_ssize_t n, object out) except -1:
    if view.ndim != 1 or view.itemsize != 4 or view.format == NULL or view.format[1] != 0 or view.format[0] not in b"IL":
        raise TypeError(f"out must be uint32 of shape ({n},), not {getattr(out, 'dtype', type(out).__name__)}")
    if view.shape[0] != n:
        raise ValueError(f"out has {view.shape[0]} elements for {n} addresses")
    return 0


cdef void find_octets(const fib6 *fib, const uint8_t *octets, uint32_t *values, size_t n) noexcept nogil:
    cdef uint64_t pairs[2 * CHUNK]
    cdef size_t part, i
    while n:
        part = min(n, <size_t>CHUNK)
        for i in range(2 * part):
            pairs[i] = load_be64(octets + 8 * i)
        lookup_ipv6().find6(<const kernel_fib6 *>fib, pairs, values, part)
        octets += 16 * part
        values += part
        n -= part


cdef void find_all(int shape, const fib4 *four, const fib6 *six, const void *keys, uint32_t *values, size_t n) noexcept nogil:
    if shape == KEYS_IPV4:
        lookup_ipv4().find4(<const kernel_fib4 *>four, <const uint32_t *>keys, values, n)
    elif shape == KEYS_PAIRS:
        lookup_ipv6().find6(<const kernel_fib6 *>six, <const uint64_t *>keys, values, n)
    else:
        find_octets(six, <const uint8_t *>keys, values, n)


cdef int find_released(RouteTable table, int shape, const void *keys, uint32_t *values, size_t n) except -1:
    """A bulk lookup without the GIL, as a reader of its own. With all slots taken, the GIL is kept instead."""
    cdef Reclaimer reclaimer = table.reclaimer
    cdef int slot = reclaimer.claim_slot()
    if slot < 0:
        find_all(shape, table.fib.ipv4, table.fib.ipv6, keys, values, n)
        return 0
    with nogil:
        qsbr_online(reclaimer.readers, slot)
        find_all(shape, fib4_current(&table.fib.ipv4), fib6_current(&table.fib.ipv6), keys, values, n)
        qsbr_offline(reclaimer.readers, slot)
    reclaimer.release_slot(slot)
    return 0


cdef object find_array(RouteTable table, const fib4 *four, const fib6 *six, object keys, object out):
    """Bulk lookup in one version: the given one, or with NULL the one now published."""
    cdef Py_buffer addresses, numbers
    cdef Py_ssize_t n
    cdef int shape
    PyObject_GetBuffer(keys, &addresses, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    try:
        shape = keys_shape(&addresses, keys)
        n = addresses.shape[0]
        if out is None:
            out = numpy.empty(n, numpy.uint32)
        PyObject_GetBuffer(out, &numbers, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            check_values(&numbers, n, out)
            if four != NULL:
                with nogil:
                    find_all(shape, four, six, addresses.buf, <uint32_t *>numbers.buf, n)
            elif n < GIL_BATCH:
                find_all(shape, table.fib.ipv4, table.fib.ipv6, addresses.buf, <uint32_t *>numbers.buf, n)
            else:
                find_released(table, shape, addresses.buf, <uint32_t *>numbers.buf, n)
        finally:
            PyBuffer_Release(&numbers)
    finally:
        PyBuffer_Release(&addresses)
    return out


cdef uint32_t find_one(const fib4 *four, const fib6 *six, int version, const prefix *p) noexcept nogil:
    if version & ~KEY_ADDRESS == 4:
        return fib4_find(four, <uint32_t>(p.high >> 32))
    return fib6_find(six, p.high, p.low)


cdef list resolve_numbers(list values, object numbers):
    cdef const uint32_t[::1] given = numbers
    cdef Py_ssize_t i
    cdef uint32_t most = len(values)
    found = []
    for i in range(given.shape[0]):
        if given[i] >= most:
            raise ValueError(f"number {given[i]} at {i} is none of this table's")
        found.append(values[given[i]])
    return found


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
        out: uint32 (n,) to write to instead of a new array.

        All answers come from one version of the table. From 1,024 addresses on
        the GIL is released. `resolve` turns numbers into values. A number means the same
        value while a route has it; after that, while a snapshot from before is open.
        """
        return find_array(self, NULL, NULL, keys, out)

    def resolve(self, numbers) -> list:
        """The values of an array of numbers from `lookup`; None for 0."""
        return resolve_numbers(self.store.values, numbers)

    def number(self, key) -> int:
        """The number of the value of the longest match, as `lookup` gives it; 0 is no route."""
        return self.number_at(key)

    def snapshot(self) -> "Snapshot":
        """A context in which all lookups see the table as it is now.

        >>> table = RouteTable({"10.0.0.0/8": "old"})
        >>> with table.snapshot() as view:
        ...     table["10.0.0.0/8"] = "new"
        ...     view["10.1.1.1"], table["10.1.1.1"]
        ('old', 'new')
        """
        return Snapshot(self)

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

    def copy(self) -> "RouteTable":
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


cdef class Snapshot:
    """A table as it was at one moment, for lookups only; from `RouteTable.snapshot`.

    While it is open nothing its version needs is freed: close it, or use `with`.
    """

    def __cinit__(self, RouteTable table not None):
        self.slot = table.reclaimer.claim_slot()
        if self.slot < 0:
            raise RuntimeError("too many open snapshots and lookups: 64")
        self.table = table
        qsbr_online(table.reclaimer.readers, self.slot)
        self.ipv4 = fib4_current(&table.fib.ipv4)
        self.ipv6 = fib6_current(&table.fib.ipv6)

    def __dealloc__(self):
        if self.table is not None:
            self.close_slot()

    cdef int close_slot(self) noexcept:
        if self.slot >= 0:
            qsbr_offline(self.table.reclaimer.readers, self.slot)
            self.table.reclaimer.release_slot(self.slot)
            self.slot = -1
        return 0

    def close(self) -> None:
        """End the snapshot; twice is as good as once."""
        self.close_slot()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close_slot()

    cdef int check_open(self) except -1:
        if self.slot < 0:
            raise ValueError("the snapshot is closed")
        return 0

    def lookup(self, keys, out=None):
        """As RouteTable.lookup, in this version."""
        self.check_open()
        return find_array(self.table, self.ipv4, self.ipv6, keys, out)

    def resolve(self, numbers) -> list:
        """As RouteTable.resolve; numbers keep their meaning while the snapshot is open."""
        self.check_open()
        return resolve_numbers(self.table.store.values, numbers)

    def get(self, address, default=None):
        """The value of the longest match of an address in this version, or `default`."""
        cdef prefix p
        cdef uint32_t number
        self.check_open()
        cdef int version = read_key(address, &p)
        if not version & KEY_ADDRESS:
            raise ValueError(f"a snapshot answers for addresses, not for prefixes: {address!r}")
        number = find_one(self.ipv4, self.ipv6, version, &p)
        return self.table.store.values[number] if number else default

    def __getitem__(self, address):
        value = self.get(address, self)
        if value is self:
            raise KeyError(address)
        return value

# -- loading arrays ------------------------------------------------------------------------------

cdef object as_pairs(object addresses):
    """(4 or 6, array of uint32 (n,) or uint64 (n, 2))"""
    cdef Py_buffer view
    cdef int shape
    PyObject_GetBuffer(addresses, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    try:
        shape = keys_shape(&view, addresses)
    finally:
        PyBuffer_Release(&view)
    if shape == KEYS_OCTETS:
        addresses = numpy.asarray(addresses).view(">u8").astype(numpy.uint64)
    return (4 if shape == KEYS_IPV4 else 6), addresses


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


cdef int read_routes(int version, object addresses, object lengths, prefix *p) except -1:
    """Copy and check as many prefixes as there are lengths; ValueError names the first that is wrong."""
    cdef const uint32_t[::1] short_addresses
    cdef const uint64_t[:, ::1] long_addresses
    cdef const uint8_t[::1] bits = lengths
    cdef uint64_t i
    cdef uint32_t longest = 32 if version == 4 else 128
    if version == 4:
        short_addresses = addresses
    else:
        long_addresses = addresses
    for i in range(<uint64_t>bits.shape[0]):
        if version == 4:
            p[i].high, p[i].low = <uint64_t>short_addresses[i] << 32, 0
        else:
            p[i].high, p[i].low = long_addresses[i, 0], long_addresses[i, 1]
        p[i].length = bits[i]
        if bits[i] > longest:
            raise ValueError(f"route {i}: length {bits[i]} is not 0..{longest}")
        if host_bits(&p[i]):
            raise ValueError(f"route {i}: bits set behind the prefix length {bits[i]}")
    return 0


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
        read_routes(version, addresses, lengths, p)
        put_arrays(table, version, p, values, n, acquired)
    finally:
        free(p)
        for number in acquired:
            table.store.leave(number, table.reclaimer)
    return 0


MutableMapping.register(RouteTable)
