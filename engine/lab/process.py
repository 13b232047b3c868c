"""A program running in a host's namespace, with everything it says kept in a file.

Owns: the process and its log file.
Never: leaves it behind: it dies with the lab, and with the lab's process even
when that is killed (the kernel's parent-death signal).
Invariant: after `stop` or `kill` the process has been waited for.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.lab import launch
from engine.lab.namespace import Namespace
from engine.lab.waiting import wait_until


class Process:
    """Made by `Host.start`. `log` holds standard output and standard error in order."""

    def __init__(self, namespace: Namespace, argv: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.argv = tuple(argv)
        self.log = log
        self._popen = namespace.call(self._spawn, dict(environment))

    def _spawn(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                [sys.executable, "-S", "-E", launch.__file__, str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,  # Ctrl-C is for the lab, which stops its processes in order
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def expect(self, pattern: str, *, seconds: float = 10.0) -> re.Match[str]:
        """Wait until the log matches the regular expression; RuntimeError when the process ends first."""

        def seen() -> re.Match[str] | None:
            running = self.running  # before the look: what it said last is then in the output
            match = re.search(pattern, self.output())
            if match is None and not running:
                raise RuntimeError(f"{self.argv[0]} ended with {self.exit_code} before {pattern!r}:\n{self.output()}")
            return match

        match = wait_until(seen, f"{pattern!r} in {self.log}", seconds=seconds)
        assert match is not None
        return match

    def signal(self, number: int) -> None:
        if self.running:
            self._popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        return self._popen.wait(timeout=seconds)

    def stop(self, *, seconds: float = 5.0) -> int:
        """Terminate, wait, kill if need be; the exit code. Idempotent."""
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self.signal(signal.SIGKILL)
        return self._popen.wait()
