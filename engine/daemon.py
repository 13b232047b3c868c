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
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import msgspec

from engine import notify, views
from engine.cni import server as cni
from engine.cni.spool import open_spool
from engine.cni.verbs import Verbs
from engine.config import Config
from engine.control.activation import PassedSockets, passed_sockets
from engine.control.health import HealthServer
from engine.control.messages import TakeoverParameters
from engine.control.server import Handler, Server
from engine.errors import KernelError, TowpathError, UnreachableDaemonError
from engine.handover.giver import hand_over
from engine.handover.line import HandoverError
from engine.handover.listeners import Listeners
from engine.handover.messages import FORMAT, OLDEST_FORMAT
from engine.handover.predecessor import predecessor_at_our_socket
from engine.handover.taker import Takeover, ask
from engine.logs import set_up_logs
from engine.loop import READ, Timer
from engine.node import Node
from engine.source.file import FileSource
from engine.version import version
from engine.words import counted

log = logging.getLogger(__name__)

IDLE_PATIENCE, IDLE_PAUSE = 20.0, 0.02  # seconds that a successor waits for calls under way, and between two looks
RETRY_PAUSE = 5.0  # seconds until a file that could not be read for want of something is read again

COLLECT_PAUSE = 10.0  # seconds between two looks for deletions that nobody asks for


class Daemon:
    """`file` is the configuration, `flags` what the command line sets in it (key -> text).

    With `takeover`, or with sockets that a service manager passed, it takes the place of the daemon
    that runs; it starts as usual when none does.
    """

    def __init__(self, file: str, flags: Mapping[str, str], *, keep_going: bool, takeover: bool = False) -> None:
        self._file = os.path.abspath(file)
        self._flags = flags
        self._keep_going = keep_going
        self._takes_over = takeover
        self._successors: list[subprocess.Popen[bytes]] = []  # started by us; at most one succeeds
        self._retry = Timer(0.0, 0, None)  # of a configuration that could not be read or put in force

    def run(self) -> None:
        """Serve until a signal ends it. TowpathError when the start fails; nothing is left behind then."""
        with ExitStack() as parts:
            passed = passed_sockets(os.environ)
            parts.callback(passed.close)
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
            self._start(config, passed, parts)
            self._node.loop.run()
            notify.notify("STOPPING=1")
            log.info("stopping")

    def _start(self, config: Config, passed: PassedSockets, parts: ExitStack) -> None:
        """Folders, which may be refused; the lock, so that nobody else comes further; sockets; the node; then all are told."""
        node, loop = self._node, self._node.loop
        spool = open_spool(Path(_spool_folder(config)))
        takeover = self._predecessor(config, passed)
        parts.callback(node.stop)  # the lock is the last to go: nobody else comes while our sockets are there
        if takeover is None:
            node.claim()
        runtimes = self._claim_sockets(config, passed, takeover, parts)
        parts.callback(node.halt)
        if takeover is None:
            node.start()
        else:
            node.take_over(takeover)
        self._server.own = "control" not in self._found.lent
        self._listen_to_runtimes(config, spool, runtimes, parts)
        loop.watch(self._source.fileno(), READ, lambda _: self._file_changed())
        pause = notify.watchdog_pause()
        if pause is not None:
            loop.every(pause, notify.alive)
        notify.notify("READY=1", f"STATUS={self._summary()}", f"MAINPID={os.getpid()}")
        log.info("towpath %s is ready: %s", version(), self._summary())

    def _predecessor(self, config: Config, passed: PassedSockets) -> Takeover | None:
        """The daemon whose place is to be taken, once it has made its offer; None when none runs."""
        path = Path(config.control.socket)
        if passed.has(socket.SOCK_STREAM, str(path)):
            return predecessor_at_our_socket(path, Path(config.state.directory), insist=self._takes_over)
        return ask(path) if self._takes_over or passed else None

    def _claim_sockets(
        self, config: Config, passed: PassedSockets, takeover: Takeover | None, parts: ExitStack
    ) -> socket.socket | None:
        """Listen, but for runtimes, who are not heard yet: the socket for them, where there is one."""
        self._found = Listeners(passed, takeover)
        try:
            runtimes = self._found.take("cni", socket.SOCK_SEQPACKET, config.cni_socket)
            if runtimes is not None:
                parts.callback(runtimes.close)
            self._listen(config, parts)
            self._complain_of_unused(passed)
        except BaseException as error:
            if takeover is not None:  # the other waits for us
                takeover.give_up(error)
            raise
        return runtimes

    def _complain_of_unused(self, passed: PassedSockets) -> None:
        error = passed.refuse_the_rest()
        if error is not None:
            log.warning("%s", error)
        self._node.complain("socket activation", error)

    def _listen_to_runtimes(
        self, config: Config, spool: Path, listening: socket.socket | None, parts: ExitStack
    ) -> None:
        """What was asked for while no daemon ran is begun before calls are taken, which wait only for their own interfaces."""
        verbs = Verbs(self._node, spool)
        parts.callback(verbs.close)
        verbs.collect()
        self._runtimes = cni.Server(self._node.loop, Path(config.cni_socket), verbs, listening=listening)
        self._runtimes.own = "cni" not in self._found.lent
        parts.callback(self._runtimes.close)
        self._listeners["cni"] = self._runtimes.fileno()
        self._node.loop.every(COLLECT_PAUSE, verbs.collect)

    def _listen(self, config: Config, parts: ExitStack) -> None:
        """The control socket and, if wanted, that for health checks: those that are there where they are the same."""
        loop, path, wanted = self._node.loop, Path(config.control.socket), config.health.listen
        self._server = Server(
            loop,
            path,
            self._handlers(),
            group=config.control.group or "",
            listening=self._found.take("control", socket.SOCK_STREAM, str(path)),
            successor=self._hand_over,
        )
        parts.callback(self._server.close)
        self._listeners = {"control": self._server.fileno()}
        if wanted is not None:
            address = (str(wanted.address), wanted.port)
            listening = self._found.take("health", socket.SOCK_STREAM, address)
            health = HealthServer(loop, *address, self._node.health, listening=listening)
            parts.callback(health.close)
            self._listeners["health"] = health.fileno()

    def _listen_to_signals(self, parts: ExitStack) -> None:
        loop = self._node.loop
        handlers: dict[signal.Signals, Callable[[int, Any], None]] = {
            signal.SIGTERM: lambda *_: loop.stop(),
            signal.SIGINT: lambda *_: loop.stop(),
            signal.SIGHUP: lambda *_: loop.call_soon(self._reload_unasked),
        }
        for number, handler in handlers.items():
            parts.callback(signal.signal, number, signal.signal(number, handler))

    # -- a successor -----------------------------------------------------------
    def _hand_over(self, connection: socket.socket) -> None:
        """A successor asks: give way as soon as no runtime's call is under way."""
        if self._node.loop.stopping:
            connection.close()
            return
        self._runtimes.rest()
        self._hand_over_when_idle(connection, self._node.loop.clock() + IDLE_PATIENCE)

    def _hand_over_when_idle(self, connection: socket.socket, deadline: float) -> None:
        loop = self._node.loop
        if loop.stopping:
            connection.close()
        elif self._runtimes.idle:
            self._give(connection)
        elif loop.clock() < deadline:
            loop.after(IDLE_PAUSE, lambda: self._hand_over_when_idle(connection, deadline))
        else:
            log.warning("no successor: a runtime's call has not ended within %.0f s", IDLE_PATIENCE)
            connection.close()
            self._runtimes.resume()

    def _give(self, connection: socket.socket) -> None:
        """Talk to a successor until it forwards or has failed. Nobody else is served meanwhile; packets are."""
        try:
            estate = self._node.estate()
            estate.others.update(self._listeners)
            estate.lent.update(self._found.lent)
            successor = hand_over(connection, estate, check=self._check_handover)
        except BaseException:  # what nobody foresaw: we go on, and so do runtimes
            connection.close()
            self._runtimes.resume()
            raise
        if successor is None:
            self._runtimes.resume()
            return
        self._server.own = self._runtimes.own = False
        self._node.leave()
        notify.notify(f"MAINPID={successor}")
        self._node.loop.stop()

    def _check_handover(self) -> None:
        notify.alive()
        if self._node.loop.stopping:
            raise HandoverError("the running daemon was told to stop")

    def _agree(self, asked: TakeoverParameters) -> views.Takeover:
        """The terms under which a successor may take over."""
        if self._node.loop.stopping:
            raise UnreachableDaemonError("the daemon is stopping", remedy="start another once it has ended")
        if asked.oldest > FORMAT or asked.newest < OLDEST_FORMAT:
            what = f"towpath {asked.version or '?'} cannot take over from towpath {version()}"
            raise TowpathError(what, remedy="restart the daemon instead")
        log.info("towpath %s asks to take over", asked.version or "?")
        return views.Takeover(min(FORMAT, asked.newest), version(), os.getpid())

    def _start_successor(self) -> views.Upgrade:
        """Run the command that is installed now in our place; it asks for the rest itself."""
        settings = [argument for key, text in self._flags.items() for argument in ("--set", f"{key}={text}")]
        keep_going = ["--keep-going"] if self._keep_going else []
        command = [sys.executable, "-m", "engine.cli", "run", "--takeover", "-c", self._file, *settings, *keep_going]
        self._successors = [process for process in self._successors if process.poll() is None]
        environment = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}  # which is ours
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        self._successors.append(process)
        log.info("started process %d to take over", process.pid)
        return views.Upgrade(process.pid)

    # -- configuration ---------------------------------------------------------
    def _file_changed(self) -> None:
        try:
            loaded = self._source.read()
            if loaded is not None:
                self._put_in_force()
            elif self._source.error is None:
                self._node.complain("configuration", None)
        except TowpathError as error:
            self._refused(error)

    def _reload_unasked(self) -> None:
        """On a signal, or because the last try failed for a reason that may be gone."""
        try:
            self._reload()
        except TowpathError as error:
            self._refused(error)

    def _reload(self) -> views.Reload:
        """Read the file now, changed or not."""
        notify.reloading()
        try:
            self._source.reload()
            return self._put_in_force()
        finally:
            notify.notify("READY=1", f"STATUS={self._summary()}")

    def _put_in_force(self) -> views.Reload:
        """What was read last, whether or not it was put in force before."""
        assert self._source.loaded is not None
        config = self._source.loaded.config
        self._node.complain("configuration", None)
        logging.getLogger().setLevel(config.log.level.upper())
        try:
            done = self._node.reload(config)
        except OSError as error:
            what = f"cannot be put in force: {error.strerror or error}"
            raise KernelError(what, where=self._file, remedy="it is tried again") from error
        log.info("configuration in force: %d changes, %s", done.changed, self._summary())
        notify.notify(f"STATUS={self._summary()}")
        return done

    def _refused(self, error: TowpathError) -> None:
        """A text with mistakes changes nothing; it is shown until it is mended. What the system lacks may come back."""
        log.error("the configuration in force stays: %s", error)
        self._node.complain("configuration", error)
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            self._retry.cancel()
            self._retry = self._node.loop.after(RETRY_PAUSE, self._reload_unasked)

    def _summary(self) -> str:
        config = self._node.config
        problems = len(self._node.problems())
        words = f"{counted(len(config.pods), 'pod')}, {counted(len(config.peers), 'peer')}"
        return f"{words}, {counted(problems, 'problem')}" if problems else words

    # -- control ---------------------------------------------------------------
    def _cni(self) -> views.Cni:
        config = self._node.config
        return views.Cni(config.cni_socket, _spool_folder(config), len(self._node.residents.attachments))

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
            "takeover": lambda asked: self._agree(cast(TakeoverParameters, asked)),
            "upgrade": plain(self._start_successor),
            "cni": plain(self._cni),
            "ipam": plain(node.ipam),
            "ipam_check": plain(node.ipam_check),
            "ipam_release": lambda asked: node.ipam_release(**msgspec.structs.asdict(asked)),
            "policy_explain": lambda asked: node.explain(**msgspec.structs.asdict(asked)),
            "policy_rules": lambda asked: node.policy_rules(**msgspec.structs.asdict(asked)),
            "policy_list": plain(node.applied_policies),
            "policy_apply": lambda asked: node.apply_policy(**msgspec.structs.asdict(asked)),
            "policy_delete": lambda asked: node.delete_policy(**msgspec.structs.asdict(asked)),
            "flows": lambda asked: node.flows(**msgspec.structs.asdict(asked)),
        }


def _spool_folder(config: Config) -> str:
    return os.path.join(config.state.directory, "cni")
