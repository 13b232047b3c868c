"""The memory of the detours, and how it travels to the next process. See detour.pxd.

Owns: the table, its key, and its export.
Never: runs on a packet's way.
Invariant: the key of an export goes with its entries, which mean nothing under another.
"""

import os
import struct

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

MAGIC = b"detours1"
KEY_BYTES = 16
HEAD_BYTES = len(MAGIC) + KEY_BYTES
SAVED = struct.Struct("=IQQ")  # slot, mark, when it was last used


cdef class Detours:
    """See detour.pyi."""

    def __cinit__(self):
        self.table = <detours *>calloc(1, sizeof(detours))
        if self.table == NULL:
            raise MemoryError
        self.set_key(os.urandom(KEY_BYTES))

    def __dealloc__(self):
        free(self.table)

    cdef int set_key(self, bytes key) except -1:
        memcpy(self.table.key, <const char *>key, KEY_BYTES)
        return 0

    def export(self):
        cdef detour *slot
        found = [MAGIC, (<char *>self.table.key)[:KEY_BYTES]]
        for i in range(DETOUR_SLOTS):
            slot = &self.table.slots[i]
            if slot.mark:
                found.append(SAVED.pack(i, slot.mark, slot.used_ns))
        return b"".join(found)

    def load(self, bytes data):
        head, entries = data[:HEAD_BYTES], data[HEAD_BYTES:]
        whole = head.startswith(MAGIC) and len(head) == HEAD_BYTES and len(entries) % SAVED.size == 0
        given = list(SAVED.iter_unpack(entries)) if whole else []
        if not whole or any(i >= DETOUR_SLOTS or not mark for i, mark, _ in given):
            raise ValueError("these are no detours of this version")
        self.set_key(head[len(MAGIC):])
        for i, mark, used_ns in given:
            self.table.slots[<uint32_t>i].mark = mark
            self.table.slots[<uint32_t>i].used_ns = used_ns
            self.table.taken += 1
