"""What Python holds of the data plane: ports, tables, workers, counters.

Owns: the published tables, and the numbers of ports and adjacencies; everything
that is replaced goes through one release store here and to the reclaimer afterwards.
Never: sees a packet, runs a worker (`crew` does), or reads what one counts (`tally` does).
Invariant: one control thread changes it at a time; readers (the workers) are
never stopped for a change.
"""

import os

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastpath.atomic cimport atomic_pointer_load, atomic_pointer_store, atomic_store32_release
from fastpath.counters cimport ADJACENCIES_MAX, PORTS_MAX
from fastpath.crew cimport Crew
from fastpath.port.port cimport port
from fastpath.records cimport adjacency_record, peer_record, port_record
from fastpath.stage.reply cimport gateway
from fastpath.stage.route cimport tunnel_ports, TUNNEL_PORTS_MAX
from fastpath.table.adjacency cimport adjacency
from fastpath.table.detour cimport Detours
from fastpath.table.fib cimport Fib
from fastpath.table.fib_rows cimport Rows, rows_of
from fastpath.table.flow cimport FlowTable
from fastpath.table.policy cimport PolicyImage, ROW_OUTSIDE, policy_view
from fastpath.table.qsbr cimport Reclaimer
from fastpath.tally cimport Tally
from fastpath.worker cimport tables

from fastpath.port.port import check_addresses
from fastpath.records import check_adjacency
from fastpath.values import Deliver, Spread

WORKERS_MAX = 64
BUSY_POLL_MAX = 10_000  # microseconds


cdef class Plane:
    """The data plane of one node. See plane.pyi for the contract of every method."""

    cdef readonly Reclaimer reclaimer
    cdef readonly Fib fib
    cdef readonly int n_workers
    cdef tables *shared
    cdef Crew crew
    cdef Tally tally
    cdef Detours detours
    cdef uint64_t key              # of the flow hash
    cdef dict ports                # number -> open port
    cdef dict adjacencies          # number -> value
    cdef dict spreads              # of these, the Spread ones
    cdef list spare_ports          # numbers to use again, after a grace period
    cdef list spare_adjacencies
    cdef unsigned int *references  # routes of each adjacency number
    cdef readonly FlowTable flow_table
    cdef readonly object policy    # the image in force, None when there is none
    cdef readonly unsigned int policy_generation

    def __cinit__(self, *, int workers=1, bytes hash_key=None, flows=None, int busy_poll=0):
        if not 1 <= workers <= WORKERS_MAX:
            raise ValueError(f"workers must be 1..{WORKERS_MAX}, not {workers}")
        if not 0 <= busy_poll <= BUSY_POLL_MAX:
            raise ValueError(f"busy_poll must be 0..{BUSY_POLL_MAX} us, not {busy_poll}")
        if hash_key is not None and len(hash_key) != 8:
            raise ValueError(f"hash_key must be 8 bytes, not {len(hash_key)}")
        self.key = int.from_bytes(os.urandom(8) if hash_key is None else hash_key)
        self.n_workers = workers
        self.reclaimer = Reclaimer(workers=workers)
        self.fib = Fib(self.reclaimer)
        self.flow_table = FlowTable(flows, workers=workers, hash_key=hash_key)
        self.detours = Detours()
        self.crew = Crew(
            self.reclaimer, self.flow_table, workers=workers, key=self.key, busy_poll_ns=<uint64_t>busy_poll * 1000
        )
        self.tally = Tally(self.crew, self.flow_table)
        self.ports, self.adjacencies, self.spreads = {}, {}, {}
        self.spare_ports, self.spare_adjacencies = [], []
        self.shared = <tables *>calloc(1, sizeof(tables))
        self.references = <unsigned int *>calloc(ADJACENCIES_MAX, sizeof(unsigned int))
        if self.shared == NULL or self.references == NULL:
            raise MemoryError
        self.shared.four = &self.fib.ipv4
        self.shared.six = &self.fib.ipv6
        self.shared.detours = self.detours.table
        self.crew.serve(self.shared)
        self.set_gateway(None, None)
        self.publish_tunnel_ports()
        self.set_policy(None)

    def __dealloc__(self):
        if self.shared != NULL:
            for i in range(PORTS_MAX):
                free(self.shared.ports[i])
            for i in range(ADJACENCIES_MAX):
                free(self.shared.adjacencies[i])
            free(self.shared.peers)
            free(self.shared.gateways)
            free(self.shared.tunnels)
            free(self.shared.policy)
        free(self.shared)
        free(self.references)

    cdef int publish(self, void *slot, void *record) except -1:
        """Store a record where the workers find it; what stood there is freed when none can hold it."""
        cdef void *before = atomic_pointer_load(slot)
        atomic_pointer_store(slot, record)
        if before != NULL:
            self.reclaimer.retire(before)
        self.reclaimer.reclaim()
        return 0

    # -- ports -----------------------------------------------------------
    def attach(self, opened):
        if opened.kind == "memory" and self.n_workers > 1:
            raise ValueError("a memory port's rings have one reader and one writer: use a plane with one worker")
        number = self.take_number(self.ports, self.spare_ports, PORTS_MAX, 0, "ports")
        cdef port *record = port_record(number, opened, opened.addresses, opened.mtu)
        self.publish(&self.shared.ports[number], record)
        self.ports[number] = opened
        try:
            self.publish_tunnel_ports()
            for which, fd in enumerate(opened.inputs):
                self.crew.poll(number, which, fd)
        except BaseException:
            self.detach(number)
            raise
        return number

    def detach(self, int number):
        opened = self.port(number)
        users = [n for n, value in self.adjacencies.items() if getattr(value, "port", None) == number]
        if users:
            raise ValueError(f"port {number} is used by adjacency {users[0]}: remove it first")
        for which, fd in enumerate(opened.inputs):
            self.crew.poll_no_more(number, which, fd)
        self.publish(&self.shared.ports[number], NULL)
        del self.ports[number]
        self.publish_tunnel_ports()
        self.reclaimer.synchronize()
        self.spare_ports.append(number)

    def update_port(self, int number, *, addresses=None, mtu=None, bandwidth=None):
        opened = self.port(number)
        addresses = opened.addresses if addresses is None else check_addresses(addresses)
        mtu = opened.mtu if mtu is None else mtu
        opened.bandwidth = opened.bandwidth if bandwidth is None else bandwidth
        cdef port *record = port_record(number, opened, addresses, mtu)
        self.publish(&self.shared.ports[number], record)
        opened.addresses, opened.mtu = addresses, mtu

    cdef object port(self, int number):
        """The open port behind a number; KeyError when there is none."""
        if number not in self.ports:
            raise KeyError(f"there is no port {number}")
        return self.ports[number]

    cdef int publish_tunnel_ports(self) except -1:
        """The UDP ports that no pod's packet may be sent to in our name."""
        cdef tunnel_ports *record = <tunnel_ports *>calloc(1, sizeof(tunnel_ports))
        if record == NULL:
            raise MemoryError
        used = {p.tunnel.port for p in self.ports.values() if p.tunnel is not None and p.tunnel.port}
        if len(used) > TUNNEL_PORTS_MAX:
            free(record)
            raise ValueError(f"tunnels use {len(used)} different UDP ports; {TUNNEL_PORTS_MAX} are supported")
        for each in sorted(used):
            record.ports[record.n] = each
            record.n += 1
        self.publish(&self.shared.tunnels, record)
        self.routes_changed()
        return 0

    cdef int take_number(self, dict used, list spare, int limit, int first, str what) except -1:
        """A number no worker can remember: a fresh one, or one whose grace period is over."""
        for number in range(first + len(used) + len(spare), limit):
            if number not in used and number not in spare:
                return number
        if not spare:
            raise ValueError(f"there are already {limit - first} {what}")
        self.reclaimer.synchronize()
        return spare.pop()

    # -- adjacencies -----------------------------------------------------
    def set_adjacency(self, value, number=None):
        check_adjacency(value, self.ports, self.adjacencies)
        if number is None:
            number = self.take_number(self.adjacencies, self.spare_adjacencies, ADJACENCIES_MAX, 1, "adjacencies")
        elif not 1 <= number < ADJACENCIES_MAX:
            raise ValueError(f"an adjacency number is 1..{ADJACENCIES_MAX - 1}, not {number}")
        elif isinstance(value, Spread) and self.groups_of(number):
            raise ValueError(f"adjacency {number} is a member of a Spread and cannot become one")
        cdef adjacency *record = adjacency_record(number, value, self.ports)
        self.publish(&self.shared.adjacencies[<uint32_t>number], record)
        self.adjacencies[number] = value
        self.spreads.pop(number, None)
        if isinstance(value, Spread):
            self.spreads[number] = value
        self.routes_changed()
        return number

    def remove_adjacency(self, int number):
        if number not in self.adjacencies:
            raise KeyError(f"there is no adjacency {number}")
        if self.references[number]:
            raise ValueError(f"adjacency {number} is used by {self.references[number]} routes: remove them first")
        if self.groups_of(number):
            raise ValueError(f"adjacency {number} is a member of Spread {self.groups_of(number)[0]}")
        self.publish(&self.shared.adjacencies[number], NULL)
        del self.adjacencies[number]
        self.spreads.pop(number, None)
        self.spare_adjacencies.append(number)
        self.routes_changed()

    cdef list groups_of(self, int number):
        """The Spread adjacencies that have this one as a member."""
        return [n for n, value in self.spreads.items() if number in value.members]

    # -- routes ----------------------------------------------------------
    def set_route(self, prefix, int adjacency):
        if adjacency not in self.adjacencies:
            raise ValueError(f"there is no adjacency {adjacency}")
        before = self.fib.get(prefix)
        self.fib.insert(prefix, adjacency)
        self.references[adjacency] += 1
        if before:
            self.references[<uint32_t>before] -= 1
        self.routes_changed()
        self.reclaimer.reclaim()

    cdef void routes_changed(self):
        """What flows remember of their routes counts no longer. After the change, so that none learns the old."""
        atomic_store32_release(&self.shared.route_changes, self.shared.route_changes + 1)

    def remove_route(self, prefix):
        before = self.fib.get(prefix)
        if not before:
            raise KeyError(f"there is no route for {prefix}")
        self.fib.remove(prefix)
        self.references[<uint32_t>before] -= 1
        self.routes_changed()
        self.reclaimer.reclaim()

    def set_routes(self, int version, addresses, lengths, adjacencies):
        self.change(rows_of(version, addresses, lengths, adjacencies, 0), None)

    def change_routes(self, ipv4, ipv6):
        addresses4, lengths4, adjacencies4 = ipv4
        addresses6, lengths6, adjacencies6 = ipv6
        self.change(rows_of(4, addresses4, lengths4, adjacencies4, 0), rows_of(6, addresses6, lengths6, adjacencies6, 0))

    cdef int change(self, Rows one, Rows other) except -1:
        """Put rows in force, of both families at once where there are `other`. Nothing fails after the table changed."""
        self.check_rows(one)
        self.check_rows(other)
        self.fib.put_rows(one, other)
        self.count_rows(one)
        self.count_rows(other)
        self.routes_changed()
        self.reclaimer.reclaim()
        return 0

    cdef int check_rows(self, Rows rows) except -1:
        cdef uint64_t i
        for i in range(rows.n if rows is not None else 0):
            if rows.values[i] and (rows.values[i] >= ADJACENCIES_MAX or self.shared.adjacencies[rows.values[i]] == NULL):
                raise ValueError(f"there is no adjacency {rows.values[i]}")
        return 0

    cdef void count_rows(self, Rows rows) noexcept:
        """Who refers to which adjacency now. The count at 0 is of those without one, and nobody's."""
        cdef uint64_t i
        for i in range(rows.n if rows is not None else 0):
            self.references[rows.values[i]] += 1
            self.references[rows.old[i]] -= 1

    def routes(self):
        return dict(self.fib.items())

    def lookup(self, address):
        return self.fib.longest(address)

    # -- peers and gateways ----------------------------------------------
    def set_peers(self, peers):
        self.publish(&self.shared.peers, peer_record(peers, self.key))

    def set_gateway(self, ipv4, ipv6):
        cdef gateway *record = <gateway *>calloc(1, sizeof(gateway))
        cdef bytes packed
        if record == NULL:
            raise MemoryError
        if ipv4 is not None:
            packed = ipv4.packed
            record.has4 = True
            memcpy(record.gateway4, <const char *>packed, 4)
        if ipv6 is not None:
            packed = ipv6.packed
            record.has6 = True
            memcpy(record.gateway6, <const char *>packed, 16)
        self.publish(&self.shared.gateways, record)

    # -- policy and flows --------------------------------------------------
    def set_policy(self, PolicyImage image):
        cdef policy_view *view = NULL
        cdef uint32_t words = image.image.n_words if image is not None else 0
        before = self.policy
        if image is not None:
            self.tally.make_room(image.n_counters)
        if self.flow_table.settings.track == "always" or (image is not None and image.selects):
            view = <policy_view *>calloc(1, sizeof(policy_view) + 3 * <size_t>words * self.n_workers * 8)
            if view == NULL:
                raise MemoryError
            view.image = &image.image if image is not None else NULL
            view.generation = self.policy_generation + 1
        self.policy = image
        self.policy_generation += 1
        self.publish(&self.shared.policy, view)
        if before is not None:
            self.reclaimer.retire_object(before)

    def judge(self, source, destination, int protocol, int source_port=0, int destination_port=0):
        if self.policy is None:
            return (<uint32_t>ROW_OUTSIDE, <uint32_t>ROW_OUTSIDE)
        return self.policy.judge(source, destination, protocol, source_port, destination_port)

    def flows(self, cursor=0, limit=4096):
        return self.flow_table.listing(cursor, limit)

    def has_flow(self, source, destination, int protocol, int source_port=0, int destination_port=0):
        return self.flow_table.has(source, destination, protocol, source_port, destination_port)

    def forget_flows(self, whom):
        if self.reclaimer.reclaim():
            self.reclaimer.synchronize()
        return self.flow_table.forget(whom)

    def export_flows(self):
        return self.flow_table.export()

    def import_flows(self, data):
        return self.flow_table.load(data)

    def rule_counters(self):
        return self.tally.rules(self.policy.n_counters if self.policy is not None else 0)

    def take_flow_events(self):
        return self.tally.take_flow_events()

    def flow_counters(self):
        return self.tally.flows()

    # -- detours ---------------------------------------------------------
    def set_detour(self, adjacency):
        if adjacency is not None and not isinstance(self.adjacencies.get(adjacency), Deliver):
            raise ValueError(f"adjacency {adjacency} does not lead to a local port")
        atomic_store32_release(&self.shared.host, 0 if adjacency is None else adjacency)

    def export_detours(self):
        return self.detours.export()

    def import_detours(self, data):
        self.detours.load(data)

    # -- life ------------------------------------------------------------
    def start(self):
        self.crew.start(self)

    def stop(self):
        self.crew.stop()

    def turn(self):
        return self.crew.turn()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # -- observing -------------------------------------------------------
    def fileno(self):
        """Readable when `take_events` has something; for the control plane's poll loop."""
        return self.crew.bell

    def take_events(self):
        return self.crew.take_notices()

    def counters(self):
        return self.tally.counters(self.ports, self.adjacencies)
