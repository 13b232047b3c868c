"""Memory ports: a port whose two ends are Python and a worker, without any privilege."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastpath.port.port import Port, Role
from fastpath.values import Address, Tunnel

CAPACITY: int
CAPACITY_MIN: int

@dataclass(frozen=True, slots=True)
class Datagram:
    payload: bytes
    remote: Address
    remote_port: int
    traffic_class: int
    sender: int

@dataclass(frozen=True, slots=True)
class Super:
    data: bytes
    gso_type: int = 0
    gso_size: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0
    needs_checksum: bool = False

class Faults:
    def __init__(
        self,
        seed: int,
        *,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        truncate: float = 0.0,
    ) -> None: ...
    def apply(self, packets: Sequence[bytes]) -> list[bytes]: ...

class MemoryPort(Port):
    super_packets: bool
    faults: Faults | None
    def __init__(
        self,
        name: str,
        *,
        role: Role = "pod",
        addresses: Iterable[Address] = (),
        mtu: int = 1500,
        tunnel: Tunnel | None = None,
        super_packets: bool = False,
        faults: Faults | None = None,
        sources: int = 8,
        capacity: int = ...,
    ) -> None: ...
    @property
    def rings(self) -> int: ...
    def inject(self, packets: bytes | Super | Iterable[bytes | Super] | NDArray[np.uint8]) -> None: ...
    def inject_datagram(
        self, payload: bytes, source: Address, *, traffic_class: int = 0, segment_bytes: int = 0
    ) -> None: ...
    def drain(self) -> list[bytes] | list[Super] | list[Datagram]: ...
    def discard(self) -> int: ...
    def close(self) -> None: ...
