"""Keys of a route table: str, int, bytes, objects of ipaddress, or (address, length); see lpm_key.pxd.

Owns: which family and prefix a Python object means.
Never: guesses; what is not exactly an address or a prefix is an error that names it.
Invariant: a prefix that was read has no bits set behind its length.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from fastpath.table.fib_rows cimport host_bits

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


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


cdef object text_of(int version, uint64_t high, uint64_t low, uint32_t length):
    cdef char text[TEXT_MAX]
    return PyUnicode_DecodeASCII(text, prefix_write(version, high, low, length, text), NULL)
