"""Runs a delegated IPAM plugin (host-local, static, ...) in the runtime's stead, and reads what it says.

Owns: where the program is looked for, its environment, its deadline, and the
meaning of its output.
Never: uses a shell, or passes on anything of the daemon's own environment.
Invariant: a call ends within its deadline, with an answer or a CniError, and
leaves no process.
"""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from engine.cni.answer import CniError, Code
from engine.cni.call import Call
from engine.model import Address, Prefix

DEADLINE = 20.0  # seconds
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_LIMIT = 1 << 20
_MOST_DIRECTORIES = 64


@dataclass(frozen=True, slots=True)
class Delegated:
    """What an IPAM plugin gave."""

    addresses: tuple[Address, ...]
    routes: tuple[Prefix, ...]
    dns: dict[str, Any]


def add(name: str, call: Call) -> Delegated:
    """Addresses from the plugin; when it fails, or what it says cannot be used, it is told to take them back."""
    try:
        return parse(name, run(name, call, "ADD"))
    except CniError:
        try:
            run(name, call, "DEL")
        except CniError:
            pass  # what went wrong first is what the runtime is to know
        raise


def run(name: str, call: Call, verb: str) -> bytes:
    """The plugin's output; CniError with its own code when it refuses."""
    program = find(name, call.search_path)
    environment = {**call.environment(), "CNI_COMMAND": verb, "PATH": _PATH}
    try:
        done = subprocess.run(
            [program], input=call.input, env=environment, capture_output=True, timeout=DEADLINE, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        what = f"IPAM plugin {name} did not answer within {DEADLINE:.0f} s"
        raise CniError(Code.TRY_AGAIN_LATER, what) from None
    except OSError as error:
        raise CniError(
            Code.DELEGATE_FAILED, f"cannot run IPAM plugin {name}", f"{program}: {error.strerror}"
        ) from error
    output = done.stdout[:_OUTPUT_LIMIT]
    if done.returncode:
        raise _refused(name, output, done.returncode, done.stderr)
    return output


def find(name: str, search_path: str) -> str:
    """The program, looked for where the runtime says."""
    for directory in search_path.split(":")[:_MOST_DIRECTORIES]:
        candidate = os.path.join(directory, name)
        if os.path.isabs(candidate) and _is_program(candidate):
            return candidate
    raise CniError(Code.INVALID_CONFIGURATION, f"IPAM plugin {name} was not found", f"CNI_PATH={search_path}")


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and os.access(path, os.X_OK)


def _refused(name: str, output: bytes, status: int, complaint: bytes) -> CniError:
    try:
        tree = msgspec.json.decode(output)
        code, message, details = int(tree["code"]), str(tree["msg"]), str(tree.get("details", ""))
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        said = complaint.decode(errors="replace").strip()[-500:]
        return CniError(Code.DELEGATE_FAILED, f"IPAM plugin {name} failed", f"exit code {status}: {said}")
    return CniError(code, f"IPAM plugin {name}: {message}", details)


def parse(name: str, output: bytes) -> Delegated:
    try:
        tree = msgspec.json.decode(output)
        addresses = tuple(ip_interface(entry["address"]).ip for entry in tree["ips"])
        routes = tuple(ip_network(entry["dst"], strict=False) for entry in tree.get("routes") or ())
        dns = dict(tree.get("dns") or {})
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CniError(
            Code.DELEGATE_FAILED, f"IPAM plugin {name} answered with no result", repr(error)[:200]
        ) from error
    if not addresses:
        raise CniError(Code.DELEGATE_FAILED, f"IPAM plugin {name} gave no address")
    return Delegated(tuple(dict.fromkeys(addresses)), tuple(dict.fromkeys(routes)), dns)
