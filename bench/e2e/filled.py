"""A node whose table has many more routes by its first peer than a file could hold, put there at once.

    python -m bench.e2e.filled ROUTES --config FILE

A program that embeds a node hands it a plane, and fills that by Plane.set_routes.
Owns: the process, from start to the signal that ends it.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import numpy as np

from bench.growth.nodes import FIRST
from engine import Node, parse
from engine.notify import notify
from fastpath.plane import Plane


def fill(plane: Plane, routes: int, adjacency: int) -> None:
    """`routes` prefixes of 64 addresses each, from 11.0.0.0 on."""
    addresses = (FIRST + np.arange(routes, dtype=np.uint32) * 64).astype(np.uint32)
    plane.set_routes(4, addresses, np.full(routes, 26, np.uint8), np.full(routes, adjacency, np.uint32))


def main() -> None:
    routes, file = int(sys.argv[1]), Path(sys.argv[3])
    config = parse(file.read_text(), file=str(file), hostname=socket.gethostname())
    plane = Plane()
    ended = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    with Node(config, plane=plane):
        found = plane.lookup(config.peers[0].prefixes[0].network_address + 2)
        if found is None:
            sys.exit("the first peer has no route")
        fill(plane, routes, found[1])
        notify("READY=1")
        signal.sigwait(ended)


if __name__ == "__main__":
    main()
