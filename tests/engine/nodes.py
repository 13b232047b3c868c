"""Two nodes in namespaces, each with pods and a `towpath run` of its own: what end-to-end tests stand on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.control.client import Client
from engine.errors import TowpathError
from engine.pod.namespace import run_inside
from engine.views import Health, Pods, Reload, Routes, Status
from tests.engine.namespaces import ip, namespaces, path_of, wait_for

ROOT = Path(__file__).parents[2]
ACTIVATE = Path(__file__).with_name("activate.py")
MAIN = "from engine.cli import main; main()"
RUN = (sys.executable, "-c", MAIN, "run")


def towpath(*arguments, inside=None, environment=None, prefix=(), **options):
    """A finished `towpath` command."""
    enter = ["ip", "netns", "exec", inside] if inside else []
    command = [*prefix, *enter, sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=child_environment(environment), check=False, timeout=60, **options
    )


def child_environment(extra=None):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TOWPATH_", "NOTIFY_", "WATCHDOG_"))}
    return kept | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"} | (extra or {})


def handing_over(sockets):
    """What stands before a command to which a service manager hands these sockets, and their descriptors."""
    descriptors = [sock.fileno() for sock in sockets.values()]
    if not sockets:
        return [], []
    return [sys.executable, str(ACTIVATE), ":".join(sockets), *map(str, descriptors), "--"], descriptors


class Node:
    """One node: a namespace that plays the host, pods, a configuration file, and a daemon once started."""

    def __init__(self, number, host, pods, folder, network="", dual=False):
        self.number = number
        self.name = "ab"[number]
        self.host = host
        self.pod_namespaces = pods
        self.folder = folder / self.name
        self.folder.mkdir()
        self.file = self.folder / "towpath.toml"
        self.socket = self.folder / "control.sock"
        self.network = network
        self.dual = dual
        self.extra = ""
        self.process = None
        self.log = self.folder / "log"

    def write(self, *, pods=1, peers=True, network=None):
        """The configuration with so many pods."""
        other = 1 - self.number
        text = [
            f'[node]\nname = "{self.name}"\nunderlay = [{self.underlay(self.number, "/24", "/64")}]',
            f'prefixes = ["10.{self.number + 1}.0.0/24", "fd00:{self.number + 1}::/64"]',
            f'[control]\nsocket = "{self.socket}"\n[state]\ndirectory = "{self.folder / "state"}"',
            self.network if network is None else network,
            self.extra,
        ]
        if peers:
            text.append(
                f'[[peers]]\nname = "{"ab"[other]}"\nunderlay = [{self.underlay(other)}]\n'
                f'prefixes = ["10.{other + 1}.0.0/24", "fd00:{other + 1}::/64"]'
            )
        text.extend(
            f'[[pods]]\nname = "{self.name}{index}"\nnamespace = "{self.pod_namespaces[index]}"\n'
            f'addresses = ["{self.address(index)}", "{self.address(index, 6)}"]'
            for index in range(pods)
        )
        aside = self.file.with_suffix(".new")
        aside.write_text("\n".join(text) + "\n")
        aside.replace(self.file)

    def underlay(self, number, length4="", length6=""):
        four = f'"192.0.2.{number + 1}{length4}"'
        return f'{four}, "2001:db8::{number + 1}{length6}"' if self.dual else four

    def address(self, index, version=4):
        return f"10.{self.number + 1}.0.{index + 5}" if version == 4 else f"fd00:{self.number + 1}::{index + 5}"

    def start(self, *flags, wait=True, environment=None, sockets=None):
        """`sockets`: by name, those that a service manager hands over."""
        handed, descriptors = handing_over(sockets or {})
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.host, *handed, *RUN, "-c", str(self.file), *flags],
                stdout=log,
                stderr=log,
                env=child_environment(environment),
                pass_fds=descriptors,
            )
        if wait:
            wait_for(self.is_ready, 30)
        return self

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("health", Health).ready
        except TowpathError:
            return False

    def ask(self, method, result, **parameters):
        with Client(self.socket) as client:
            return client.ask(method, result, **parameters)

    def reload(self):
        return self.ask("reload", Reload)

    def status(self):
        return self.ask("status", Status)

    def pods(self):
        return {pod.name: pod for pod in self.ask("pods", Pods).pods}

    def routes(self):
        return {route.prefix: route for route in self.ask("routes", Routes).routes}

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """The daemon's exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def inside_pod(self, index, function):
        return run_inside(path_of(self.pod_namespaces[index]), function, where="test")

    def ping(self, index, address, *options):
        """Whether one packet came back."""
        command = ["ip", "netns", "exec", self.pod_namespaces[index], "ping", "-c1", "-W5", *options, address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def two_nodes(folder, *, pods=2, network="", dual=False):
    """Nodes a and b on one link, configured, not started. Stopped and removed at the end."""
    with ExitStack() as stack:
        names = stack.enter_context(namespaces(2 + 2 * pods))
        nodes = [
            Node(number, names[number], names[2 + number * pods : 2 + (number + 1) * pods], folder, network, dual)
            for number in range(2)
        ]
        ip("link", "add", "under", "type", "veth", "peer", "name", "under", "netns", names[1], namespace=names[0])
        for node in nodes:
            ip("link", "set", "lo", "up", namespace=node.host)
            ip("addr", "add", f"192.0.2.{node.number + 1}/24", "dev", "under", namespace=node.host)
            ip("addr", "add", f"2001:db8::{node.number + 1}/64", "dev", "under", "nodad", namespace=node.host)
            ip("link", "set", "under", "up", namespace=node.host)
            node.write()
            stack.callback(node.stop, signal.SIGKILL)
        yield nodes


def started(nodes):
    """The nodes, whose daemons start at once and are all ready."""
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        wait_for(node.is_ready, 30)
    return nodes


class Talk:
    """A TCP connection between two pods that can be asked whether it still lives."""

    def __init__(self, client_node, server_node, version=4):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        address = server_node.address(0, version)

        def listen():
            listening = socket.socket(family)
            listening.bind((address, 0))
            listening.listen()
            return listening

        with server_node.inside_pod(0, listen) as listening:
            port = listening.getsockname()[1]
            self.near = client_node.inside_pod(0, lambda: socket.create_connection((address, port), timeout=20))
            self.far, _ = listening.accept()
        self.far.settimeout(20)

    def works(self, size=100_000):
        """Sends `size` bytes there and back."""
        data = os.urandom(size)
        for source, sink in ((self.near, self.far), (self.far, self.near)):
            received = bytearray()
            sent = 0
            while len(received) < size:
                if sent < size:
                    sent += source.send(data[sent : sent + 50_000])
                received += sink.recv(1 << 16)
            assert received == data
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.far.close()
