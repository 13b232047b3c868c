"""Runs a delegated IPAM plugin (host-local, static, ...) in the runtime's stead, and reads what it says.

Owns: where the program is looked for, its environment, its deadline, and the
meaning of its output.
Never: uses a shell, or passes on anything of the daemon's own environment.
Invariant: a call ends within its deadline, or when the daemon stops, with an answer or a CniError, and
leaves no process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from engine.cni.answer import CniError, Code
from engine.cni.call import Call
from engine.cni.orphans import Orphans
from engine.model import Address, Prefix

DEADLINE = 20.0  # seconds
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_LIMIT = 1 << 20
_MOST_DIRECTORIES = 64
_CODES = 1 << 31  # what a code may be below


@dataclass(frozen=True, slots=True)
class Delegated:
    """What an IPAM plugin gave."""

    addresses: tuple[Address, ...]
    routes: tuple[Prefix, ...]
    dns: dict[str, Any]


class NotBegunError(CniError):
    """The plugin did not run, so it has nothing to take back."""


class MissingPluginError(NotBegunError):
    """There is no such program where the runtime says."""


class Plugins:
    """Those that run now. To be called from any thread; `close` ends them, and lets no other begin until `open`.

    None begins before the `orphans` have ended: what they still do could undo what it does.
    """

    def __init__(self, orphans: Orphans) -> None:
        self._orphans = orphans
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def interrupt(self) -> None:
        """End those that run now; others may still begin."""
        with self._lock:
            for process in self._running:
                _end(process)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.interrupt()

    def open(self) -> None:
        with self._lock:
            self._closed = False

    def add(self, name: str, call: Call) -> Delegated:
        """Addresses from the plugin. When it fails, or what it says cannot be used, it may have to take some back."""
        return parse(name, self.run(name, call, "ADD"))

    def knows(self, name: str, call: Call, version: str) -> bool:
        """Whether the plugin says that it knows this version of the specification; CniError when it says nothing."""
        asked = replace(call, input=msgspec.json.encode({"cniVersion": version}))
        try:
            return version in msgspec.json.decode(self.run(name, asked, "VERSION"))["supportedVersions"]
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            what = f"IPAM plugin {name} does not tell its versions"
            raise CniError(Code.DELEGATE_FAILED, what, repr(error)[:200]) from error

    def run(self, name: str, call: Call, verb: str) -> bytes:
        """The plugin's output; CniError with its own code when it refuses."""
        program = find(name, call.search_path)
        environment = {**call.environment(), "CNI_COMMAND": verb, "PATH": _PATH}
        with self._marked(name) as mark, self._start(name, program, environment, mark) as process:
            try:
                output, complaint = process.communicate(call.input, timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                _end(process)
                what = f"IPAM plugin {name} did not answer within {DEADLINE:.0f} s"
                raise CniError(Code.TRY_AGAIN_LATER, what) from None
            finally:
                with self._lock:
                    self._running.discard(process)
            if process.returncode < 0:  # ended, not over: what it started and is still at work stays known
                raise _refused(name, output[:_OUTPUT_LIMIT], process.returncode, complaint)
        if process.returncode:
            raise _refused(name, output[:_OUTPUT_LIMIT], process.returncode, complaint)
        return output[:_OUTPUT_LIMIT]

    @contextmanager
    def _marked(self, name: str) -> Iterator[int]:
        """What makes the plugin known to the next daemon, should it outlive this one."""
        with ExitStack() as stack:
            try:
                if not self._orphans.end():
                    what = f"IPAM plugin {name} is not asked: one that an earlier daemon asked does not end"
                    raise NotBegunError(Code.TRY_AGAIN_LATER, what)
                mark = stack.enter_context(self._orphans.call())
            except OSError as error:
                what = f"IPAM plugin {name} is not asked: it could not be told from others later"
                raise NotBegunError(Code.IO_FAILURE, what, error.strerror or str(error)) from error
            yield mark

    def _start(self, name: str, program: str, environment: dict[str, str], mark: int) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        with self._lock:
            if self._closed:
                raise NotBegunError(Code.TRY_AGAIN_LATER, f"IPAM plugin {name} is not asked", "the daemon stops")
            try:
                process = subprocess.Popen(
                    [program],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=pipe,
                    env=environment,
                    cwd="/",
                    start_new_session=True,  # what it starts ends with it
                    pass_fds=(mark,),
                )
            except OSError as error:
                what = f"cannot run IPAM plugin {name}"
                raise NotBegunError(Code.DELEGATE_FAILED, what, f"{program}: {error.strerror}") from error
            self._running.add(process)
            return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """It, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def find(name: str, search_path: str) -> str:
    """The program, looked for where the runtime says."""
    for directory in search_path.split(":")[:_MOST_DIRECTORIES]:
        candidate = os.path.join(directory, name)
        if os.path.isabs(candidate) and _is_program(candidate):
            return candidate
    what = f"IPAM plugin {name} was not found"
    raise MissingPluginError(Code.INVALID_CONFIGURATION, what, f"CNI_PATH={search_path}")


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
        if not 0 < code < _CODES:
            raise ValueError(code)
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
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
