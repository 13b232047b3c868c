"""The data plane: everything a packet touches, compiled and without the GIL.

Owns: the package's face (`Plane` and the values that describe tunnels), and
the refusal of a mixed build before any compiled module is loaded.
Never: knows anything of the control plane in engine/.
Invariant: importing this package alone loads no compiled module.
"""

from __future__ import annotations

import os
from importlib import import_module

from fastpath.build import verify

BUILD: str = verify(os.path.dirname(__file__))
"""What the compiled modules are: "release", "debug", "asan", "tsan", "cov" or "unbuilt"."""

_HOMES = {
    "Adjacency": "fastpath.values",
    "Address": "fastpath.values",
    "Counters": "fastpath.tally",
    "Deliver": "fastpath.values",
    "Encapsulate": "fastpath.values",
    "Encapsulation": "fastpath.values",
    "FlowSettings": "fastpath.values",
    "Plane": "fastpath.plane",
    "PolicyImage": "fastpath.table.policy",
    "PortCounters": "fastpath.tally",
    "Prefix": "fastpath.values",
    "Reject": "fastpath.values",
    "RouteTable": "fastpath.lpm",
    "Spread": "fastpath.values",
    "Tunnel": "fastpath.values",
}


def __getattr__(name: str) -> object:
    """Load a name of the face from its module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fastpath' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
