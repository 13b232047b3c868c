"""Each peer between the two nodes of a field.

Owns: their configuration files and keys, in the run directory of the lab.
Never: tunes one beyond its manual; and never switches a cipher off that its users have on.
Invariant: `join` returns when the peer carries packets, or raises UnavailableError with its words.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.peers.install import FLANNEL, Programs, UnavailableError
from engine.lab import DeadlineError, Process, wait_until
from engine.lab.contest import Contender, Field
from engine.lab.contest.field import MTU, UNDERLAY
from engine.lab.host import Host
from engine.lab.traffic import ping

_CRYPTO = "with its crypto"
_serial = itertools.count()


def wireguard(field: Field, programs: Programs) -> Contender:
    """wireguard-go: the ends' addresses 10.246.1.1 and 10.246.2.1."""
    program = programs.path("wireguard")
    names = [f"wg{os.getpid()}-{next(_serial)}"[:15] for _ in field.nodes]
    keys = [_x25519() for _ in field.nodes]
    for index, node in enumerate(field.nodes):
        process = node.start([program, "-f", names[index]], name="wireguard")
        control = Path("/var/run/wireguard") / f"{names[index]}.sock"
        node.on_close(lambda control=control: control.unlink(missing_ok=True))
        _await(process, control.exists)
        own, peer = keys[index], keys[1 - index]
        _ask(
            control,
            f"set=1\nprivate_key={own[0].hex()}\nlisten_port=51820\npublic_key={peer[1].hex()}\n"
            f"endpoint={UNDERLAY[1 - index]}:51820\nallowed_ip=10.246.{2 - index}.1/32\n\n",
        )
        _address(node, names[index], f"10.246.{index + 1}.1", f"10.246.{2 - index}.1", MTU - 60)
    return _checked(Contender("wireguard-go", "wireguard-go", *field.nodes, {4: ["10.246.2.1"]}, _CRYPTO))


def nebula(field: Field, programs: Programs) -> Contender:
    """nebula without lighthouse: each end knows the other's address, as static_host_map."""
    program, certifier = programs.path("nebula"), programs.path("nebula-cert")
    folder = field.lab.directory / f"{field.prefix}nebula"
    folder.mkdir()
    _run([certifier, "ca", "-name", "bench"], folder)
    for index, node in enumerate(field.nodes):
        _run([certifier, "sign", "-name", f"n{index}", "-ip", f"10.247.0.{index + 1}/24"], folder)
        path = folder / f"n{index}.yml"
        path.write_text(_nebula_file(folder, index))
        process = node.start([program, "-config", str(path)], name="nebula")
        _await(process, lambda node=node: "nebula1" in node.interfaces())
    return _checked(Contender("nebula", "nebula", *field.nodes, {4: ["10.247.0.2"]}, _CRYPTO))


def _nebula_file(folder: Path, index: int) -> str:
    return f"""pki:
  ca: {folder}/ca.crt
  cert: {folder}/n{index}.crt
  key: {folder}/n{index}.key
static_host_map:
  "10.247.0.{2 - index}": ["{UNDERLAY[1 - index]}:4242"]
lighthouse:
  am_lighthouse: false
listen:
  host: 0.0.0.0
  port: 4242
tun:
  dev: nebula1
  mtu: {MTU - 60}
firewall:
  outbound:
    - {{port: any, proto: any, host: any}}
  inbound:
    - {{port: any, proto: any, host: any}}
"""


def flannel(field: Field, programs: Programs) -> Contender:
    """flannel's udp backend with its C proxy, leases given by us in place of etcd."""
    program = programs.path(FLANNEL)
    for index, node in enumerate(field.nodes):
        own, peer = (f"10.248.{number + 1}.0/24" for number in (index, 1 - index))
        arguments = ["eth0", UNDERLAY[index], own, UNDERLAY[1 - index], peer, "10.248.0.0/16"]
        process = node.start([program, *arguments], name=FLANNEL)
        _await(process, lambda process=process: "ready" in process.output())
    return _checked(Contender("flannel-udp", "flannel udp", *field.nodes, {4: ["10.248.2.0"]}, "clear text"))


PEERS: dict[str, Callable[[Field, Programs], Contender]] = {
    "flannel-udp": flannel,
    "wireguard-go": wireguard,
    "nebula": nebula,
}


def join(name: str, field: Field, programs: Programs) -> Contender:
    return PEERS[name](field, programs)


# -- what they share -----------------------------------------------------------
def _await(process: Process, condition: Callable[[], object]) -> None:
    def ready() -> object:
        if not process.running:
            raise UnavailableError(f"{process.argv[0]} ended: {process.output().strip()[-300:]}")
        return condition()

    try:
        wait_until(ready, f"{process.argv[0]} to be ready", seconds=15)
    except DeadlineError as error:
        raise UnavailableError(f"{error}: {process.output().strip()[-300:]}") from error


def _checked(contender: Contender) -> Contender:
    """The first packets may go lost while keys are exchanged; then they must not."""
    try:
        wait_until(lambda: ping(contender.source, contender.address(), count=3).ok, contender.name, seconds=15)
    except DeadlineError as error:
        raise UnavailableError(f"{contender.name} carries nothing: {error}") from error
    return contender


def _address(node: Host, device: str, own: str, peer: str, mtu: int) -> None:
    node.interface(device).set(mtu=mtu, state="up").address(f"{own}/32")
    node.route(f"{peer}/32", device=device)


def _ask(control: Path, request: str) -> None:
    """WireGuard's own text protocol."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(str(control))
        sock.sendall(request.encode())
        answer = sock.recv(4096)
    if b"errno=0" not in answer:
        raise UnavailableError(f"wireguard-go refused its configuration: {answer.decode()!r}")


def _x25519() -> tuple[bytes, bytes]:
    """A key pair: openssl writes both parts last in their DER forms."""
    private = _run(["openssl", "genpkey", "-algorithm", "X25519", "-outform", "DER"])
    public = _run(["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"], given=private)
    return private[-32:], public[-32:]


def _run(argv: list[str], folder: Path | None = None, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(argv, cwd=folder, input=given, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        raise UnavailableError(f"there is no program {argv[0]}") from None
    if done.returncode:
        raise UnavailableError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
