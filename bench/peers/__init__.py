"""Other programs' tunnels on the same field: installed by their ordinary client, run as their manuals say.

Owns: the list of peers. `install` puts their programs into a cache outside of
the repository; `join` makes one a contender.
Never: passes over a peer in silence: one that cannot be had raises
UnavailableError with the reason, and the report carries it.
Invariant: a peer is measured on the underlay and between the addresses that
this package gave it, with the largest MTU its own rules allow.
"""

from bench.peers.install import Programs, UnavailableError, install
from bench.peers.run import PEERS, join

__all__ = ["PEERS", "Programs", "UnavailableError", "install", "join"]
