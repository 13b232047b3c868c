"""A towpath daemon on a host of the lab, handled as a service manager and a user would.

Owns: its configuration file, its process, and the socket on which it says that it is ready.
Never: reaches into it: it is configured by its file, asked by its commands, told by signals.
Invariant: after `start` and `reload` the daemon has done what its file says.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from engine.lab.host import Host
from engine.lab.process import Process
from engine.lab.waiting import DeadlineError, wait_until

TOWPATH = (sys.executable, "-m", "engine.cli")
Tables = Sequence[tuple[str, Mapping[str, Any]]]


class Daemon:
    """Made once a host; may be started, killed and started again."""

    def __init__(self, host: Host, program: Sequence[str] = (*TOWPATH, "run")) -> None:
        """`program` takes `--config FILE` and says when it is ready, as `towpath run` does."""
        self.host = host
        self.program = program
        self.directory = host.directory
        self.directory.mkdir(exist_ok=True)
        self.config = self.directory / "towpath.toml"
        self.control = self.directory / "control.sock"
        self._notices = _listen(str(self.directory / "notify.sock"))
        self._process: Process | None = None
        host.on_close(self._notices.close)

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"the daemon of {self.host.name} was never started")
        return self._process

    def configure(self, tables: Tables) -> None:
        """Write the file, with the socket and state directory of this lab. A running daemon follows `reload`."""
        own: Tables = [
            ("control", {"socket": str(self.control)}),
            ("state", {"directory": str(self.directory / "state")}),
            ("log", {"format": "text"}),
        ]
        replacement = self.config.with_suffix(".new")
        replacement.write_text(to_toml([*tables, *own]))
        replacement.rename(self.config)

    def launch(self, *flags: str, program: Sequence[str] = TOWPATH) -> Process:
        """Start the daemon without waiting for it; `program` is what plays the towpath command."""
        self._forget_notices()
        self._process = self.host.start(
            [*program, "run", "--config", str(self.config), *flags],
            name="towpath",
            environment={"NOTIFY_SOCKET": str(self.directory / "notify.sock")},
        )
        return self._process

    def start(self, *, seconds: float = 20.0) -> Process:
        process = self.launch()
        self.wait_ready(seconds=seconds)
        return process

    def wait_ready(self, *, seconds: float = 20.0) -> None:
        """Wait until the daemon says READY=1; RuntimeError with its log when it ends or stays silent."""
        try:
            wait_until(self._ready, f"the daemon of {self.host.name} to be ready", seconds=seconds)
        except DeadlineError as error:
            raise RuntimeError(f"{error}\n{self.process.output()}") from error

    def reload(self, *, seconds: float = 20.0) -> None:
        """Have the daemon read its file again."""
        self._forget_notices()
        self.process.signal(signal.SIGHUP)
        self.wait_ready(seconds=seconds)

    def take_over(self, *, seconds: float = 20.0) -> Process:
        """Have another daemon take the place of the one that runs, and wait until that has ended; the new one."""
        before = self.process
        self.launch("--takeover")
        self.wait_ready(seconds=seconds)
        before.wait(seconds)
        return self.process

    def stop(self) -> int:
        """End it cleanly; its exit code."""
        return self.process.stop()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `towpath ARGUMENTS` against this daemon."""
        return self.host.run([*TOWPATH, *arguments], environment={"TOWPATH_CONTROL_SOCKET": str(self.control)})

    def ask(self, *arguments: str) -> Any:
        """What `towpath ARGUMENTS -o json` answers."""
        result = self.command(*arguments, "-o", "json")
        if result.returncode:
            raise RuntimeError(f"towpath {' '.join(arguments)} ended with {result.returncode}: {result.stderr}")
        return json.loads(result.stdout)

    def drops(self) -> dict[str, int]:
        """Packets dropped so far, by reason; reasons without any are left out."""
        return {drop["reason"]: drop["packets"] for drop in self.ask("drops")["drops"] if drop["packets"]}

    def _ready(self) -> bool:
        if not self.process.running:
            raise RuntimeError(
                f"the daemon of {self.host.name} ended with {self.process.exit_code}:\n{self.process.output()}"
            )
        return any("READY=1" in notice.splitlines() for notice in self._take_notices())

    def _take_notices(self) -> list[str]:
        taken = []
        while True:
            try:
                taken.append(self._notices.recv(4096).decode())
            except BlockingIOError:
                return taken

    def _forget_notices(self) -> None:
        self._take_notices()


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    listener.bind(path)
    os.chmod(path, 0o600)
    return listener


def to_toml(tables: Tables) -> str:
    """TOML text of flat tables, "[name]" for one of a list; JSON's scalars and lists are TOML's."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables
    )
