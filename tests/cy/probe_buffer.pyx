# Probe of fastpath/buffer.pxd.
#
# Owns: Python access to the arena arithmetic for tests/fastpath/test_buffer.py.
# Never: enters a wheel.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from fastpath.buffer cimport HEADROOM as _HEADROOM, arena, arena_room, arena_take

HEADROOM = _HEADROOM


def rooms(uint32_t size, needs):
    """Offsets at which an arena of `size` bytes puts one block after the other; None where it is full.

    Every byte of a granted block, and of the headroom before it, is written.
    """
    cdef arena a
    cdef uint8_t *room
    cdef uint32_t need, i
    a.base = <uint8_t *>malloc(size)
    a.size = size
    a.used = 0
    if a.base == NULL:
        raise MemoryError
    offsets = []
    try:
        for need in needs:
            room = arena_room(&a, need)
            if room == NULL:
                offsets.append(None)
                continue
            for i in range(need + _HEADROOM):
                (room - _HEADROOM)[i] = 0xDB
            arena_take(&a, room + need)
            offsets.append(room - a.base)
    finally:
        free(a.base)
    return offsets
