"""A successor that fails on purpose: `python successor.py CONTROL_SOCKET STEP HOW`.

STEP is after what it fails: "asked", "offer", "ready", "go". HOW is "die",
"hang", "refuse" or "babble" (something that is no message).
"""

import os
import signal
import sys
import time
from pathlib import Path

from engine.cli import main as run_towpath
from engine.control.client import Client
from engine.handover import taker
from engine.handover.line import Line
from engine.handover.messages import FORMAT, Go, Hello, Offer, Ready, Refusal
from engine.handover.taker import Takeover
from engine.views import Takeover as Terms


def fail(line, connection, how):
    print("failing", flush=True)
    if how == "hang":
        time.sleep(60)
    elif how == "refuse":
        line.send(Refusal("for the test"))
        time.sleep(0.1)
    elif how == "babble":
        connection.sendall(b"\xff" * 64)
        time.sleep(60)
    os._exit(7)


def main(path, step, how):
    with Client(Path(path)) as client:
        client.ask("takeover", Terms, newest=FORMAT, oldest=FORMAT)
        connection = client.detach()
    line = Line(connection)
    if step == "asked":
        fail(line, connection, how)
    line.send(Hello())
    line.receive(Offer, seconds=5)
    if step == "offer":
        fail(line, connection, how)
    line.send(Ready())
    if step == "ready":
        fail(line, connection, how)
    line.receive(Go, seconds=5)
    fail(line, connection, how)


def outlive(arguments):
    """A successor whose predecessor dies just before it could say "go"."""
    ready = Takeover.ready

    def kill_and_go_on(self):
        os.kill(self._pid, signal.SIGKILL)
        return ready(self)

    Takeover.ready = kill_and_go_on
    run_towpath(arguments)


def speak(newest, oldest, arguments):
    """A successor of another version: it understands the formats from `oldest` to `newest`."""
    taker.FORMAT, taker.OLDEST_FORMAT = newest, oldest
    run_towpath(arguments)


if sys.argv[1] == "outlive":
    outlive(sys.argv[2:])
elif sys.argv[1] == "speak":
    speak(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
else:
    main(*sys.argv[1:])
