# Torture of publication and reclamation, after rcutorture: readers look at published
# elements without end; an element is poisoned the moment it is released.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.atomic cimport atomic_load_relaxed, atomic_pointer_load, atomic_pointer_store, atomic_store_relaxed
from fastpath.table.qsbr cimport Reclaimer, qsbr_offline, qsbr_online, qsbr_quiescent

cdef enum:
    ELEMENTS = 64
    LOOKS = 50                 # at an element, between two reports

cdef uint64_t ALIVE = 0xA11FEA11FEA11FE
cdef uint64_t POISON = 0xDBDBDBDBDBDBDBDB

cdef struct element:
    uint64_t mark
    uint64_t version


cdef void release_element(void *owner, uint64_t item) noexcept:
    cdef element *e = <element *>owner
    atomic_store_relaxed(&e.mark, POISON)
    atomic_store_relaxed(&e.version, 0)


cdef class Torture:
    """One writer, readers that count what they must never see."""
    cdef Reclaimer reclaimer
    cdef element elements[ELEMENTS]
    cdef element *published
    cdef uint64_t version, stop
    cdef bint careless         # release at once, without waiting: must be noticed

    def __cinit__(self, Reclaimer reclaimer not None, *, bint careless=False):
        self.reclaimer = reclaimer
        self.careless = careless
        self.publish()

    def publish(self) -> bool:
        """Replace the published element; False when all others still wait for readers."""
        cdef uint32_t i
        cdef element *old = self.published
        self.reclaimer.free_passed()
        for i in range(ELEMENTS):
            if self.elements[i].mark != ALIVE:
                break
        else:
            return False
        self.version += 1
        atomic_store_relaxed(&self.elements[i].version, self.version)
        atomic_store_relaxed(&self.elements[i].mark, ALIVE)
        self.reclaimer.reserve(1)
        atomic_pointer_store(&self.published, &self.elements[i])
        if old != NULL:
            if self.careless:
                release_element(old, 0)
            else:
                self.reclaimer.defer(self.reclaimer.advance(), release_element, old, 0)
        return True

    def come_online(self, int slot):
        qsbr_online(self.reclaimer.readers, slot)

    def finish(self):
        atomic_store_relaxed(&self.stop, 1)

    def read(self, int slot, bint sleeps) -> tuple[int, int, int]:
        """Until `finish`: (bursts, bad looks, versions that went backwards)."""
        cdef uint64_t bursts = 0, bad = 0, backwards = 0, last = 0, version
        cdef element *e
        cdef uint32_t i
        with nogil:
            qsbr_online(self.reclaimer.readers, slot)
            while not atomic_load_relaxed(&self.stop):
                e = <element *>atomic_pointer_load(&self.published)
                version = atomic_load_relaxed(&e.version)
                for i in range(LOOKS):
                    if atomic_load_relaxed(&e.mark) != ALIVE or atomic_load_relaxed(&e.version) != version:
                        bad += 1
                backwards += version < last
                last = version
                bursts += 1
                if sleeps and bursts % 16 == 0:
                    qsbr_offline(self.reclaimer.readers, slot)
                    qsbr_online(self.reclaimer.readers, slot)
                else:
                    qsbr_quiescent(self.reclaimer.readers, slot)
            qsbr_offline(self.reclaimer.readers, slot)
        return bursts, bad, backwards
