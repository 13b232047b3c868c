# From the frozen values of Python to the C records the workers read.
#
# Owns: the translation, one function a record. Every record is fresh malloc'ed
# memory that the caller publishes and later retires.
# Never: publishes anything.

from libc.stdint cimport uint32_t, uint64_t
from fastpath.port.port cimport port
from fastpath.table.adjacency cimport adjacency
from fastpath.table.peer cimport peer_table

cdef adjacency *adjacency_record(uint32_t number, object value, object ports) except NULL
cdef port *port_record(uint32_t number, object opened, object addresses, uint32_t mtu) except NULL
cdef peer_table *peer_record(object peers, uint64_t key) except NULL
