"""A container runtime as the specification has it: starts the plugin, and reads what it prints."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from engine.cni.call import MESSAGE_LIMIT, pack
from tests.engine.namespaces import path_of

SHIM = Path(__file__).parents[3] / "engine" / "cni" / "shim" / "towpath-cni"
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
PLUGINS = "/usr/lib/cni"  # where Debian keeps the reference plugins


@dataclass
class Answer:
    status: int
    output: str
    complaints: str = ""

    @property
    def json(self):
        return json.loads(self.output)

    @property
    def code(self):
        """The error's code; 0 for success."""
        return self.json["code"] if self.status else 0

    def addresses(self):
        return [entry["address"].split("/")[0] for entry in self.json["ips"]]


@dataclass
class Runtime:
    """Calls the plugin of one node: `socket` and `spool` are where its daemon has them."""

    socket: Path
    spool: Path
    inside: str = ""  # the namespace that plays the host
    shim: Path = SHIM
    version: str = "1.1.0"
    network: str = "pods"
    extra: dict = field(default_factory=dict)

    def configuration(self, **keys):
        base = {"cniVersion": self.version, "name": self.network, "type": "towpath-cni"}
        paths = {"socket": str(self.socket), "spool": str(self.spool)}
        return {**base, **paths, **self.extra, **keys}

    def start(self, verb, container="", namespace="", interface="", *, text=None, arguments="", **keys):
        """The running plugin, which has been given its stdin."""
        if text is None:
            text = json.dumps(self.configuration(**keys)).encode()
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": path_of(namespace) if namespace and "/" not in namespace else namespace,
            "CNI_IFNAME": interface,
            "CNI_ARGS": arguments,
            "CNI_PATH": PLUGINS,
        }
        environment = {"PATH": os.environ["PATH"], **{k: v for k, v in variables.items() if v}}
        return self.start_raw(environment, text)

    def start_raw(self, environment, text, prefix=()):
        enter = ["ip", "netns", "exec", self.inside] if self.inside else []
        process = subprocess.Popen(
            [*enter, *prefix, str(self.shim)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for give in (lambda: process.stdin.write(text), process.stdin.close):
            with contextlib.suppress(BrokenPipeError):
                give()
        process.stdin = None
        return process

    def hand_over(self, text, **variables):
        """As the shim does, for texts that do not lead it to this daemon."""
        return self.exchange(pack(variables, text))

    def exchange(self, message):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket))
            connection.send(message)
            status, _, body = connection.recv(MESSAGE_LIMIT).partition(b"\n")
        return Answer(int(status), body.decode())

    def call(self, verb, container="", namespace="", interface="", **options):
        return finished(self.start(verb, container, namespace, interface, **options))

    def add(self, container, namespace, interface="eth0", **options):
        return self.call("ADD", container, namespace, interface, **options)

    def delete(self, container, namespace="", interface="eth0", **options):
        return self.call("DEL", container, namespace, interface, **options)

    def check(self, container, namespace, result, interface="eth0", **options):
        return self.call("CHECK", container, namespace, interface, prevResult=result, **options)

    def collect(self, valid, **options):
        pairs = [{"containerID": container, "ifname": interface} for container, interface in valid]
        return self.call("GC", **{"cni.dev/valid-attachments": pairs}, **options)


def finished(process, seconds=60):
    output, complaints = process.communicate(timeout=seconds)
    return Answer(process.returncode, output.decode(), complaints.decode())


def runtime_of(node, **options):
    """A runtime on one of tests.engine.nodes' nodes."""
    return Runtime(node.folder / "cni.sock", node.folder / "state" / "cni", **options)
