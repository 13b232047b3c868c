"""Fuzzes what people and programs write: `python -m tests.fuzz.fuzz_text --seconds 30`.

Configuration files, lines to the control socket, what a daemon says to its
successor, dumps of routing tables, and lists of networks, bent from good
ones. A configuration is accepted or refused with a ConfigError; a line gets an
answer; a frame is understood or a HandoverError; a dump gives the same routes
and the same MrtError whole and byte by byte; networks are those that the
standard library reads. Anything else that is raised is a finding.

Owns: the good texts and how they are bent.
Invariant: exits with 1 on a finding, after printing the text.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import msgspec

from engine.config import parse
from engine.control.server import Server
from engine.desired.policy.nets import Nets
from engine.errors import ConfigError
from engine.handover.line import HandoverError, Line
from engine.handover.messages import Offer, PortItem
from engine.loop import Loop
from tests.fastpath.test_lpm_mrt import GOOD as GOOD_DUMP
from tests.fastpath.test_lpm_mrt import outcome

GOOD_FILE = b"""
[node]
name = "a"
underlay = ["192.0.2.1/24", "2001:db8::1/64"]
prefixes = ["10.0.1.0/24", "fd00:1::/64"]
[network]
encapsulation = "vxlan"
vni = 42
mtu = 1400
[[pods]]
name = "web"
namespace = "web"
addresses = ["10.0.1.10", "fd00:1::10"]
[[peers]]
name = "b"
underlay = ["192.0.2.2"]
prefixes = ["10.0.2.0/24"]
[[routes]]
prefix = "10.9.0.0/16"
via = ["b"]
"""
GOOD_LINE = b'{"method": "routes", "params": {"within": "10.0.0.0/8", "offset": 0, "limit": 10}, "id": 7}'
GOOD_NETS = b"10.0.0.0/8,10.1.2.3,192.0.2.7/24,0.0.0.0/0,2001:db8::/32,fd00::1,::/0,::ffff:10.0.0.1/128"
SPLINTERS = (b'"', b"[", b"]", b"{", b"}", b"=", b"\n", b"\0", b"\xff", b"1e999", b"-1", b"9" * 400, b"/33", b"::", b"[" * 300)


def bent(good: bytes, chance: random.Random) -> bytes:
    """A good text with one to eight pieces removed, doubled, moved or put in."""
    text = good
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(text) + 1)
        until = min(len(text), at + chance.choice((0, 1, 1, 4, 30)))
        piece = chance.choice((b"", bytes([chance.randrange(256)]), chance.choice(SPLINTERS), text[at:until] * 2))
        text = text[:at] + piece + text[until:]
    return text


def configuration(text: bytes) -> None:
    try:
        parse(text.decode(errors="surrogateescape"), file="fuzz.toml", hostname="a")
    except ConfigError:
        return


def control(server: Server) -> Callable[[bytes], None]:
    """The handler gives back what it was given, so that an internal error can only come of the line."""

    def judge(line: bytes) -> None:
        answer = server.answer(line)
        msgspec.json.encode(answer)
        assert answer.error is None or not answer.error.what.startswith("internal error"), answer.error

    return judge


def good_frame() -> bytes:
    text = msgspec.json.encode(Offer([PortItem("pod", "default/web", 1, 79, (4, 4026531840))], []))
    return struct.pack("!II", len(text), 0) + text


def frame(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            Line(ours).receive(Offer, seconds=1)
        except HandoverError:
            return


def dump(data: bytes) -> None:
    assert outcome([data]) == outcome([data[i : i + 1] for i in range(len(data))])


def nets(text: bytes) -> None:
    """A list as a policy document's parser reads it, against the standard library: the same addresses, or both refuse."""
    words = text.decode(errors="replace").split(",")
    try:
        found = Nets.parse(words)
    except ValueError:
        found = None
    assert found == by_library(words), words


def by_library(words: list[str]) -> Nets | None:
    if any("." in word.partition("/")[2] or "%" in word for word in words):
        return None  # masks and zones, which the library knows
    try:
        return Nets.of([ip_network(word, strict=False) for word in words])
    except ValueError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    seconds: int = parser.parse_args().seconds
    chance = random.Random(seed := time.time_ns())
    runs, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Loop(), Path(directory, "socket"), {"routes": lambda parameters: parameters})
        targets = (
            (configuration, GOOD_FILE),
            (control(server), GOOD_LINE),
            (frame, good_frame()),
            (dump, GOOD_DUMP),
            (nets, GOOD_NETS),
        )
        while time.monotonic() < end:
            judge, good = targets[runs % len(targets)]
            text = bent(good, chance)
            runs += 1
            try:
                judge(text)
            except Exception as finding:  # noqa: BLE001 - whatever it is, it is a finding
                print(f"seed {seed}: {finding!r} on {text!r}")
                return 1
        server.close()
    print(f"fuzz_text: {runs} texts, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
