"""The node daemon: a node, its configuration file, signals, and those who ask.

Owns: the order in which things start and stop.
Never: decides or applies anything itself.
Invariant: what was started is stopped, in the reverse order, whatever happens.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from engine import notify, views
from engine.cni import server as cni
from engine.cni.spool import open_spool
from engine.cni.verbs import Verbs
from engine.config import Config
from engine.control.health import HealthServer
from engine.control.server import Handler, Server
from engine.errors import TowpathError
from engine.logs import set_up_logs
from engine.loop import READ
from engine.node import Node
from engine.source.file import FileSource
from engine.version import version

log = logging.getLogger(__name__)

COLLECT_PAUSE = 10.0  # seconds between two looks for deletions that nobody asks for


class Daemon:
    """`file` is the configuration, `flags` what the command line sets in it (key -> text)."""

    def __init__(self, file: str, flags: Mapping[str, str], *, keep_going: bool) -> None:
        self._file = os.path.abspath(file)
        self._flags = flags
        self._keep_going = keep_going

    def run(self) -> None:
        """Serve until a signal ends it. TowpathError when the start fails; nothing is left behind then."""
        with ExitStack() as parts:
            self._source = parts.enter_context(
                FileSource(self._file, hostname=socket.gethostname(), environment=os.environ, flags=self._flags)
            )
            loaded = self._source.reload()
            assert loaded is not None  # the first reading is always news
            config = loaded.config
            set_up_logs(config.log.level, config.log.format)
            self._node = Node(config, keep_going=self._keep_going)
            parts.callback(self._node.loop.close)
            self._listen_to_signals(parts)
            self._start(config, parts)
            self._node.loop.run()
            notify.notify("STOPPING=1")
            log.info("stopping")

    def _start(self, config: Config, parts: ExitStack) -> None:
        """Sockets first, since they may be refused; then the node; then everybody is told."""
        node, loop = self._node, self._node.loop
        path = Path(config.control.socket)
        server = Server(loop, path, self._handlers(), group=config.control.group or "")
        parts.callback(server.close)
        if config.health.listen is not None:
            health = HealthServer(loop, str(config.health.listen.address), config.health.listen.port, node.health)
            parts.callback(health.close)
        parts.callback(node.stop)
        node.start()
        self._listen_to_runtimes(config, parts)
        loop.watch(self._source.fileno(), READ, lambda _: self._file_changed())
        pause = notify.watchdog_pause()
        if pause is not None:
            loop.every(pause, notify.alive)
        notify.notify("READY=1", f"STATUS={self._summary()}", f"MAINPID={os.getpid()}")
        log.info("towpath %s is ready: %s", version(), self._summary())

    def _listen_to_runtimes(self, config: Config, parts: ExitStack) -> None:
        """What was asked for while no daemon ran is done before anything new is."""
        verbs = Verbs(self._node, open_spool(Path(config.state.directory) / "cni"))
        parts.callback(verbs.close)
        verbs.collect()
        verbs.forget_earlier_boot()
        server = cni.Server(self._node.loop, Path(config.cni_socket), verbs)
        parts.callback(server.close)
        self._node.loop.every(COLLECT_PAUSE, verbs.collect)

    def _listen_to_signals(self, parts: ExitStack) -> None:
        loop = self._node.loop
        handlers: dict[signal.Signals, Callable[[int, Any], None]] = {
            signal.SIGTERM: lambda *_: loop.stop(),
            signal.SIGINT: lambda *_: loop.stop(),
            signal.SIGHUP: lambda *_: loop.call_soon(self._reload_on_signal),
        }
        for number, handler in handlers.items():
            parts.callback(signal.signal, number, signal.signal(number, handler))

    # -- configuration ---------------------------------------------------------
    def _file_changed(self) -> None:
        try:
            loaded = self._source.read()
        except TowpathError as error:
            self._refused(error)
            return
        if loaded is not None:
            self._put_in_force(loaded.config)
        elif self._source.error is None:
            self._node.complain("configuration", None)

    def _reload_on_signal(self) -> None:
        try:
            self._reload()
        except TowpathError as error:
            self._refused(error)

    def _reload(self) -> views.Reload:
        """Read the file now, changed or not."""
        notify.reloading()
        try:
            loaded = self._source.reload()
            return self._put_in_force(self._node.config if loaded is None else loaded.config)
        finally:
            notify.notify("READY=1", f"STATUS={self._summary()}")

    def _put_in_force(self, config: Config) -> views.Reload:
        self._node.complain("configuration", None)
        logging.getLogger().setLevel(config.log.level.upper())
        done = self._node.reload(config)
        log.info("configuration in force: %d changes, %s", done.changed, self._summary())
        notify.notify(f"STATUS={self._summary()}")
        return done

    def _refused(self, error: TowpathError) -> None:
        """A text with mistakes changes nothing; it is shown until it is mended."""
        log.error("the configuration in force stays: %s", error)
        self._node.complain("configuration", error)

    def _summary(self) -> str:
        config = self._node.config
        problems = len(self._node.problems())
        words = f"{len(config.pods)} pods, {len(config.peers)} peers"
        return f"{words}, {problems} problems" if problems else words

    # -- control ---------------------------------------------------------------
    def _handlers(self) -> dict[str, Handler]:
        node = self._node

        def plain(view: Callable[[], msgspec.Struct]) -> Handler:
            return lambda _: view()

        def reload() -> msgspec.Struct:
            try:
                return self._reload()
            except TowpathError as error:
                self._refused(error)
                raise

        return {
            "version": plain(node.version),
            "health": plain(node.health),
            "status": plain(lambda: node.status(self._file)),
            "routes": lambda asked: node.routes(**msgspec.structs.asdict(asked)),
            "route_get": lambda asked: node.route_get(**msgspec.structs.asdict(asked)),
            "peers": plain(node.peers),
            "pods": plain(node.pods),
            "counters": plain(node.counters),
            "drops": plain(node.drops),
            "reload": plain(reload),
        }
