"""Fuzzes what runtimes say: `python -m tests.fuzz.fuzz_cni --seconds 30`.

Target cni_stdin: calls, configurations and answers of delegated plugins, bent
from good ones; each is understood or refused with a CniError. Target shim:
the plugin itself, built with ASan and UBSan, with bent stdin and variables,
without a daemon and with one that answers nonsense; it exits with 0 or 1 and
what it prints is one JSON object or nothing.

Owns: the good texts, the sanitized build, and the daemon that answers nonsense.
Invariant: exits with 1 on a finding, after printing the input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from engine.cni import delegate, spool
from engine.cni.answer import CniError
from engine.cni.call import MESSAGE_LIMIT, arguments_of, pack, unpack
from engine.cni.checking import check_previous
from engine.cni.configuration import asked_version, read, read_for_removal, version_of
from engine.pod.residents import Attachment
from tests.fuzz.fuzz_text import bent

SHIM = Path(__file__).parents[2] / "engine" / "cni" / "shim" / "towpath-cni.c"
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-std=gnu11"]
FINDING = 99  # the sanitizers' exit code
RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/x", "mtu": 1450}],
    "ips": [{"address": "10.1.0.5/32", "interface": 0, "gateway": "10.1.0.1"}],
    "routes": [{"dst": "0.0.0.0/0", "scope": 253}],
    "dns": {"nameservers": ["10.1.0.10"]},
}
GOOD = json.dumps(
    {
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "towpath-cni",
        "socket": "/run/x/cni.sock",
        "spool": "/run/x/spool",
        "defaultRoute": True,
        "args": {"cni": {"ips": ["10.1.0.9/24"], "labels": [{"key": "app", "value": "web"}]}},
        "runtimeConfig": {
            "ips": ["10.1.0.9"],
            "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "::1"}],
            "bandwidth": {"ingressRate": 1000, "ingressBurst": 8000},
            "dns": {"searches": ["a.b"], "servers": ["10.1.0.10"]},
        },
        "ipam": {"type": "towpath", "families": [4, 6], "pools": ["10.1.0.0/24"], "routes": [{"dst": "10.0.0.0/8"}]},
        "dns": {"domain": "x"},
        "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
        "prevResult": RESULT,
    }
).encode()
VARIABLES = {
    "CNI_COMMAND": "DEL",
    "CNI_CONTAINERID": "0123456789abcdef",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
ATTACHMENT = Attachment("pods", "c1", "eth0", "pods@c1", "/run/netns/x", (1, 2), ("10.1.0.5",))


def cni_stdin(chance: random.Random) -> None:
    """Everything that reads what a runtime or a plugin wrote."""
    text = bent(GOOD, chance)
    version_of(text)
    for judge in (
        lambda: asked_version(text),
        lambda: read(text, {"IP": "10.1.0.7"}),
        lambda: read_for_removal(text),
        lambda: call(bent(pack(VARIABLES, GOOD), chance)),
        lambda: delegate.parse("fuzz", bent(json.dumps(RESULT).encode(), chance)),
        lambda: previous(bent(json.dumps(RESULT).encode(), chance)),
    ):
        with contextlib.suppress(CniError):
            judge()


def call(message: bytes) -> None:
    understood = unpack(message)
    assert "/" not in spool.name_of("fuzz", understood.container, understood.interface)
    arguments_of(understood.arguments)


def previous(text: bytes) -> None:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(tree, dict):
        check_previous(tree, ATTACHMENT)


class Nonsense:
    """A daemon whose answers are bent, late, empty or many."""

    def __init__(self, path: Path) -> None:
        self._chance = random.Random(path.name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(MESSAGE_LIMIT + 1)
                    good = b"%d\n%b" % (self._chance.randrange(2), json.dumps(RESULT).encode())
                    connection.send(self._chance.choice((good, bent(good, self._chance), b"0\n" + b"x" * 120_000, b"0")))
                    connection.recv(64)
                except OSError:
                    continue


class Shim:
    """The plugin with sanitizers, and places for it to talk to and to write into."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "shim"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, *SANITIZED, str(SHIM), "-o", str(self._program)], check=True)
        self._spool = spool.open_spool(folder / "spool")
        Nonsense(folder / "there.sock")
        self._sockets = [folder / "there.sock", folder / "absent.sock"]

    def __call__(self, chance: random.Random) -> None:
        good = GOOD.replace(b"/run/x/cni.sock", bytes(chance.choice(self._sockets)))
        text = bent(good.replace(b"/run/x/spool", bytes(self._spool)), chance)
        variables = {name: value for name, value in VARIABLES.items() if chance.random() < 0.95}
        variables["CNI_COMMAND"] = chance.choice(("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "x" * 5000))
        for name in list(variables):
            if chance.random() < 0.2:
                variables[name] = bent(variables[name].encode(), chance).replace(b"\0", b"").decode(errors="surrogateescape")
        options = {"ASAN_OPTIONS": f"exitcode={FINDING}", "UBSAN_OPTIONS": f"exitcode={FINDING}"}
        done = subprocess.run(
            [self._program], input=text, env={**variables, **options}, capture_output=True, timeout=60, check=False
        )
        shown = f"{variables} {text!r}: {done}"
        assert done.returncode in range(10), shown
        assert done.stderr == b"", shown
        for path in self._spool.iterdir():
            assert path.name.endswith(".del"), shown
            path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    seconds: int = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        for name, target in (("cni_stdin", cni_stdin), ("shim", Shim(Path(directory)))):
            runs, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                seed = time.time_ns()
                runs += 1
                try:
                    target(random.Random(seed))
                except Exception as finding:  # noqa: BLE001 - whatever it is, it is a finding
                    print(f"{name}: seed {seed}: {finding!r}")
                    return 1
            print(f"fuzz_cni: {name}: {runs} runs, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
