"""Facts from one TOML file, read again whenever it changes.

Owns: the file's last good Config and the reason why a newer text is not it.
Never: acts on a Config; starts no thread and sets no timer, the daemon polls `fileno()`.
Invariant: `config` is always whole and consistent; a text with mistakes leaves
it in force and is reported once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from engine.config import Loaded, load
from engine.errors import ConfigError, KernelError
from engine.source.inotify import PathWatch

LARGEST_FILE = 16 * 1024 * 1024
SETTLE_SECONDS = 0.1  # how long a writer may pause in the middle of a change
_SETTLE_ROUNDS = 10


def read_text(path: str) -> str:
    """The text of a configuration file; ConfigError when it cannot be had."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(file, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ConfigError("is not a regular file", where=path, remedy="name a TOML file")
            data = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=path, remedy="create it, or name another") from error
    except OSError as error:
        what = f"cannot be read: {os.strerror(error.errno or 0)}"
        raise ConfigError(what, where=path, remedy="check its path and permissions") from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"is larger than {LARGEST_FILE} bytes", where=path, remedy="name a configuration file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", where=f"{path}:{line}", remedy="save it as UTF-8", line=line) from error


@contextmanager
def _watching(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches with sysctl"
        raise KernelError(f"cannot watch it: {error.strerror}", where=path, remedy=remedy) from error


class FileSource:
    """Watches `path`. Call `reload()` first, then `read()` whenever `fileno()` is readable.

    Environment and flags override the file, and stay as they were at the start.
    """

    def __init__(
        self,
        path: str,
        *,
        hostname: str = "",
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.loaded: Loaded | None = None  # the last good one
        self.error: ConfigError | None = None  # why the present text is not in force
        self._hostname = hostname
        self._environment = dict(environment or {})
        self._flags = dict(flags or {})
        with _watching(path):
            self._watch = PathWatch(path)

    def fileno(self) -> int:
        """Readable when something happened on the way to the file."""
        return self._watch.fileno()

    def read(self) -> Loaded | None:
        """Take up what happened. The new configuration, or None when it is the one in force.

        ConfigError when a new text has mistakes; the same mistakes are told once.
        KernelError when the new way to the file cannot be watched. May wait
        some tenths of a second for a writer that has not finished.
        """
        with _watching(self.path):
            if not self._watch.drain():
                return None
        known = str(self.error)
        try:
            return self._settled()
        except ConfigError as error:
            if str(error) == known:
                return None
            raise

    def _settled(self) -> Loaded | None:
        """As `reload`, but mistakes count only when the file has come to rest."""
        for _ in range(_SETTLE_ROUNDS):
            try:
                return self.reload()
            except ConfigError:
                if not self._watch.wait(SETTLE_SECONDS):
                    raise
                with _watching(self.path):
                    self._watch.drain()
        return self.reload()

    def reload(self) -> Loaded | None:
        """Read the file now, changed or not. As `read`, but tells mistakes every time."""
        try:
            text = read_text(self.path)
            loaded = load(
                text, file=self.path, hostname=self._hostname, environment=self._environment, flags=self._flags
            )
        except ConfigError as error:
            self.error = error
            raise
        self.error = None
        before, self.loaded = self.loaded, loaded
        return None if before is not None and before.config == loaded.config else loaded

    def close(self) -> None:
        """Idempotent."""
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
