# A Python face of stage/reply, for tests: parse a packet, then ask for an answer about it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from fastpath.buffer cimport packet, PACKET_CREATED
from fastpath.reason cimport VERDICT_PASS
from fastpath.stage.parse cimport parse
from fastpath.stage.reply cimport REPLY6_MAX, gateway, reply_build, reply_limits, reply_limits_init


cdef class Replier:
    cdef reply_limits limits
    cdef gateway own

    def __cinit__(self, bytes gateway4, bytes gateway6, uint64_t key=1):
        memset(&self.own, 0, sizeof(gateway))
        if gateway4 is not None:
            self.own.has4 = True
            memcpy(self.own.gateway4, <const uint8_t *>gateway4, 4)
        if gateway6 is not None:
            self.own.has6 = True
            memcpy(self.own.gateway6, <const uint8_t *>gateway6, 16)
        reply_limits_init(&self.limits, key)

    @property
    def suppressed(self):
        return self.limits.suppressed

    def build(self, bytes data, reply, mtu=0, uint64_t now_ns=0, room=None, created=False):
        """The message, or None; ValueError when parse already refuses the packet."""
        cdef packet p
        cdef uint32_t n = 0, space = REPLY6_MAX if room is None else room
        cdef uint8_t *block = <uint8_t *>malloc(len(data) or 1)
        cdef uint8_t *out = <uint8_t *>malloc(space or 1)
        cdef bint made
        try:
            memcpy(block, <const uint8_t *>data, len(data))
            memset(&p, 0, sizeof(p))
            p.data = block
            p.length = <uint32_t>len(data)
            parse(&p, 0)
            if p.verdict != VERDICT_PASS:
                raise ValueError(f"parse dropped it for reason {p.reason}")
            if created:
                p.flags |= PACKET_CREATED
            p.reply = reply
            p.reply_mtu = mtu
            made = reply_build(&p, &self.limits, &self.own, now_ns, out, space, &n)
            return <bytes>out[:n] if made else None
        finally:
            free(block)
            free(out)

    def burst(self, bytes data, reply, n, uint64_t start_ns, uint64_t step_ns):
        """How many of `n` answers, one each `step_ns`, are made."""
        return sum(self.build(data, reply, 0, start_ns + i * step_ns) is not None for i in range(n))
