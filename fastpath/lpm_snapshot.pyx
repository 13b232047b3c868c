"""One version of a route table, held for several calls; see lpm_snapshot.pxd.

Owns: a reader's slot, from the making to the closing.
Never: sees a later change.
Invariant: while it is open nothing that its version can reach is freed.
"""

from fastpath.lpm_arrays cimport find_array, find_one, resolve_numbers
from fastpath.lpm_key cimport KEY_ADDRESS, read_key
from fastpath.table.fib_rows cimport prefix
from fastpath.table.qsbr cimport qsbr_offline


cdef class Snapshot:
    """A table as it was at one moment, for lookups only; from `RouteTable.snapshot`.

    While it is open nothing its version needs is freed: close it, or use `with`.
    """

    def __cinit__(self, Fib fib not None, Values store not None):
        self.ipv4, self.ipv6 = fib.ipv4, fib.ipv6
        self.slot = fib.reclaimer.hold(self.ipv4, self.ipv6)
        if self.slot < 0:
            raise RuntimeError("too many open snapshots and lookups: 64")
        self.fib, self.store = fib, store

    def __dealloc__(self):
        if self.fib is not None:
            self.close_slot()

    cdef int close_slot(self) noexcept:
        if self.slot >= 0:
            qsbr_offline(self.fib.reclaimer.readers, self.slot)
            self.fib.reclaimer.release_slot(self.slot)
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
        return find_array(self.fib, self.ipv4, self.ipv6, keys, out)

    def resolve(self, numbers) -> list:
        """As RouteTable.resolve; numbers keep their meaning while the snapshot is open."""
        self.check_open()
        return resolve_numbers(self.store.values, numbers)

    def get(self, address, default=None):
        """The value of the longest match of an address in this version, or `default`."""
        cdef prefix p
        cdef uint32_t number
        self.check_open()
        cdef int version = read_key(address, &p)
        if not version & KEY_ADDRESS:
            raise ValueError(f"a snapshot answers for addresses, not for prefixes: {address!r}")
        number = find_one(self.ipv4, self.ipv6, version, &p)
        return self.store.values[number] if number else default

    def __getitem__(self, address):
        value = self.get(address, self)
        if value is self:
            raise KeyError(address)
        return value
