"""Our traffic program (traffic.c): compiled once, run between two hosts.

Owns: the binary in the cache, and reading what it prints.
Never: lets a failed run pass for a slow one.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
from pathlib import Path

from bench.peers.install import CACHE
from engine.lab import Process
from engine.lab.contest import Contender
from engine.lab.host import Host

SOURCE = Path(__file__).with_name("traffic.c")
WARM_UP = 0.3  # seconds
CUBIC = "cubic"  # what Linux ships as its default; a machine set to another must not change what is measured
_serial = itertools.count()


class LoadError(Exception):
    """The traffic program failed; the text has its words."""


def program() -> str:
    """The compiled program, built anew when its source changed."""
    digest = hashlib.blake2b(SOURCE.read_bytes(), digest_size=6).hexdigest()
    path = CACHE / "bin" / f"traffic-{digest}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["cc", "-O2", "-pthread", str(SOURCE), "-o", str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LoadError(f"{SOURCE.name} does not compile: {done.stderr.strip()}")
    return str(path)


def stream(
    contender: Contender, address: str, streams: int, seconds: float, *, congestion: str = CUBIC
) -> dict[str, float]:
    """Bulk TCP under one congestion control. Keys: gigabits (a second), least (the slowest stream's share of the mean)."""
    sink = _start(contender.target, ["receive", address, str(streams), str(WARM_UP), str(seconds)])
    try:
        source = _start(contender.source, ["send", address, _port(sink), str(streams), congestion])
        try:
            found = _figures(sink, ("bytes", "seconds", "least"), seconds + 10)
        finally:
            source.stop()
    finally:
        sink.stop()
    if not found["bytes"]:
        raise LoadError(f"{contender.name}: nothing arrived at {address}")
    return {
        "gigabits": found["bytes"] * 8 / found["seconds"] / 1e9,
        "least": found["least"] * streams / found["bytes"],
    }


def requests(contender: Contender, address: str, seconds: float, *, reconnect: bool = False) -> dict[str, float]:
    """One byte there, one byte back. Keys: p50, p99, mean (microseconds), count."""
    server = _start(contender.target, ["answer", address])
    try:
        kind = "connect" if reconnect else "ask"
        client = _start(contender.source, [kind, address, _port(server), str(WARM_UP), str(seconds)])
        try:
            return _figures(client, ("p50", "p99", "mean", "count"), seconds + 10)
        finally:
            client.stop()
    finally:
        server.stop()


def _start(host: Host, arguments: list[str]) -> Process:
    """Each run has a log of its own: what an earlier one said is not to be read again."""
    return host.start([program(), *arguments], name=f"traffic-{next(_serial)}")


def _port(process: Process) -> str:
    return process.expect(r"port (\d+)\n")[1]


def _figures(process: Process, names: tuple[str, ...], seconds: float) -> dict[str, float]:
    pattern = " ".join(rf"{name} (?P<{name}>[\d.e+]+)" for name in names)
    process.wait(seconds)
    said = process.output()
    found = re.search(pattern, said)
    if found is None:
        raise LoadError(f"{' '.join(process.argv[1:])}: {said.strip() or 'nothing said'}")
    return {name: float(text) for name, text in found.groupdict().items()}
