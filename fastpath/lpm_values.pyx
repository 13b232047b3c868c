"""Python values by number: what stands behind the 31 bits of a route.

Owns: the list from number to value, and how often each number is used.
Never: gives a number to another value while a reader may still hold it.
Invariant: integers, strings and bytes that are equal share a number; any other
object has its own, so that a lookup returns the very object that was put in.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef void release_number(void *owner, uint64_t number) noexcept:
    cdef Values values = <Values>owner
    values.uses[number].queued -= 1
    values.forget(<uint32_t>number)
    Py_DECREF(values)


cdef inline object identity_of(object value):
    """What two values have in common when they share a number. Integers and strings stand for themselves: nothing is made for them."""
    kind = type(value)
    if kind is int or kind is str:
        return value
    if kind is bytes:
        return (bytes, value)
    return (id(value),)       # stays unique: the list below keeps the object alive


cdef class Values:
    def __cinit__(self):
        self.values = [None]
        self.numbers = {}
        self.free = []

    def __dealloc__(self):
        free(self.uses)

    cdef uint32_t acquire(self, object value) except 0:
        """The number of a value, with one use more, which the caller gives to a route or leaves again."""
        identity = identity_of(value)
        known = self.numbers.get(identity)
        if known is None:
            known = self.add(value)
            self.numbers[identity] = known
        self.keep(known)
        return known

    cdef uint32_t add(self, object value) except 0:
        if self.free:
            number = self.free.pop()
            self.values[number] = value
            return number
        number = len(self.values)
        if number > 0x7fffffff:
            raise OverflowError("more than 2^31 - 1 different values")
        self.grow(number)
        self.values.append(value)
        return number

    cdef int grow(self, uint64_t number) except -1:
        cdef uint64_t room = self.room
        cdef void *uses
        if number < room:
            return 0
        while room <= number:
            room = 2 * room + 64
        uses = realloc(self.uses, room * sizeof(number_use))
        if uses == NULL:
            raise MemoryError
        self.uses = <number_use *>uses
        memset(self.uses + self.room, 0, (room - self.room) * sizeof(number_use))
        self.room = room
        return 0

    cdef void keep(self, uint32_t number) noexcept:
        """One use more of a number that has some."""
        self.uses[number].routes += 1

    cdef void leave(self, uint32_t number, Reclaimer reclaimer) noexcept:
        """One use less; the last one's value is let go when no reader can hold the number."""
        self.uses[number].routes -= 1
        if self.uses[number].routes:
            return
        try:
            reclaimer.reserve(1)
        except MemoryError:
            return                     # the value stays: better than a number that changes its meaning
        self.uses[number].queued += 1
        Py_INCREF(self)
        reclaimer.defer(reclaimer.advance(), release_number, <void *>self, number)

    cdef void forget(self, uint32_t number) noexcept:
        """Free a number, unless a route uses it or it waits for readers (again)."""
        if self.uses[number].routes or self.uses[number].queued:
            return
        value = self.values[number]
        self.numbers.pop(identity_of(value), None)
        self.values[number] = GONE
        self.free.append(number)


cdef object GONE = object()
