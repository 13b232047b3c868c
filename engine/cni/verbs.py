"""What each CNI verb does on this node.

Owns: which call is done when, the steps of GC, CHECK and STATUS, and what failures are called.
Never: speaks to a socket, and never waits in the node's loop for a program.
Invariant: every call is answered once; calls for one interface of one container
are done one after the other, and whatever goes wrong in one, the next one's turn comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from engine.cni import planning, spool
from engine.cni.addition import Addition, Awaited
from engine.cni.answer import CniError, Code, Reply, failure, nothing, versions
from engine.cni.aside import Aside
from engine.cni.call import Call, arguments_of
from engine.cni.checking import check_device, check_previous
from engine.cni.collection import Collection
from engine.cni.configuration import OURS, Configuration, asked_version, read, read_for_removal, version_of
from engine.cni.delegate import Plugins
from engine.cni.lanes import Lanes, lane_of
from engine.cni.orphans import Orphans
from engine.cni.owed import Owed
from engine.cni.removal import Removal, key_of
from engine.cni.task import Outcome, Tasks
from engine.errors import TowpathError
from engine.node import Node
from engine.pod.ipam.allocator import NoAddressError, TakenError
from engine.pod.namespace import identity
from engine.pod.residents import Attachment

log = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds for what is to be undone when we stop
GARBAGE_AT_ONCE = 8  # plugins that a GC has take back what it finds; additions have threads of their own

Ended = Callable[[bool], None]  # told once: whether the runtime has the answer
Answer = Callable[[Reply, Ended | None], None]


class Verbs:
    """`spool_folder` holds the deletions that were asked for while no daemon answered."""

    def __init__(self, node: Node, spool_folder: Path) -> None:
        self._node = node
        self._spool = spool_folder
        self._tasks = Tasks()
        self._lanes = Lanes(node.loop)
        self._deletions = Aside(node.loop, "delete")
        self._programs = Aside(node.loop, "plugin")
        self._garbage = Aside(node.loop, "garbage", GARBAGE_AT_ONCE)
        orphans = Orphans(Path(node.config.state.directory) / "plugins.lock")
        self._plugins = Plugins(orphans)
        owed = Owed()
        self._removal = Removal(node, self._tasks, self._deletions, self._programs, self._plugins, owed)
        self._sweeping = Removal(node, self._tasks, self._deletions, self._garbage, self._plugins, owed)
        self._addition = Addition(node, self._programs, self._plugins, self._removal, owed)
        self._collection = Collection(
            node, spool_folder, self._tasks, self._lanes, self._deletions, Plugins(orphans), owed
        )

    def close(self) -> None:
        """Undo what nobody waits for any more; plugins that take too long for that are ended."""
        self._collection.rest()
        for hurry in (None, self._plugins.interrupt, self._plugins.close):
            if hurry is not None:
                hurry()
            if self._node.loop.turn_until(lambda: not self.busy, PATIENCE):
                break
        self._plugins.close()
        self._collection.close()
        for threads in (self._deletions, self._programs, self._garbage):
            threads.close()

    @property
    def busy(self) -> bool:
        """Something is under way that may still change attachments."""
        return len(self._tasks) > 0

    def serve(self, call: Call, answer: Answer, is_awaited: Awaited = lambda: True) -> None:
        """Answer `call`, now or later, exactly once."""
        self._tasks.begin(self._serve(call, answer, is_awaited))

    def collect(self) -> None:
        """Do what nobody asks for now, and is due."""
        self._collection.look()

    def rest(self) -> None:
        """Begin nothing of that, until `resume`."""
        self._collection.rest()

    def resume(self) -> None:
        self._collection.resume()

    # -- one call ---------------------------------------------------------------
    async def _serve(self, call: Call, answer: Answer, is_awaited: Awaited) -> None:
        if call.verb in {"ADD", "DEL", "CHECK"}:
            async with self._lanes.passage(lane_of(call)):
                await self._attend(call, answer, is_awaited)
        else:
            await self._attend(call, answer, is_awaited)

    async def _attend(self, call: Call, answer: Answer, is_awaited: Awaited) -> None:
        """Run the verb, whose failure is the answer."""
        added: Attachment | None = None
        try:
            if call.verb == "ADD":
                if not is_awaited():  # it would be taken back at once
                    raise CniError(Code.TRY_AGAIN_LATER, "the caller went away before its turn")
                added, reply = await self._add(call, is_awaited)
            else:
                reply = await self._run(call)
        except Exception as error:  # noqa: BLE001 - whatever it was, it has to be said
            told = as_cni_error(error)
            log.warning("%s of container %s refused: %s", call.verb, call.container or "-", told)
            reply = failure(told, version_of(call.input))
        if added is None:
            answer(reply, None)
        else:
            await self._addition.conclude(added, acknowledged=await _delivered(reply, answer))

    async def _run(self, call: Call) -> Reply:
        arguments = arguments_of(call.arguments)
        if call.verb == "VERSION":
            return versions(asked_version(call.input))
        removal = call.verb in {"DEL", "GC"}
        configuration = read_for_removal(call.input) if removal else read(call.input, arguments)
        verb = {
            "DEL": self._removal.delete,
            "CHECK": self._check,
            "GC": self._collect_garbage,
            "STATUS": self._status,
        }[call.verb]
        await verb(call, configuration)
        return nothing()

    async def _ask_plugin(self, configuration: Configuration, call: Call, verb: str) -> None:
        """Have the delegated plugin do its part, where there is one."""
        if configuration.ipam != OURS:
            await self._programs.run(lambda: self._plugins.run(configuration.ipam, call, verb))

    # -- ADD --------------------------------------------------------------------
    async def _add(self, call: Call, is_awaited: Awaited) -> tuple[Attachment, Reply]:
        configuration = read(call.input, arguments_of(call.arguments))
        if configuration.previous is not None:
            what = "towpath makes the interface, so it must be the first plugin of the list"
            raise CniError(Code.INVALID_CONFIGURATION, what, "move the others behind it")
        await self._delete_first(call)
        await self._make_way(call)
        return await self._addition.make(call, configuration, is_awaited)

    async def _delete_first(self, call: Call) -> None:
        """Deletions that were asked for while no daemon answered. The runtime believes them done."""
        try:
            waiting = spool.pending_of(self._spool, call.container, call.interface)
        except OSError as error:
            raise CniError(Code.TRY_AGAIN_LATER, "cannot look for deletions that wait", str(error)) from error
        for path in waiting:
            problem = await spool.carry_out(path, self._removal.delete_remembered)
            if problem is None:
                continue
            log.warning("deletion %s fails, and is tried again: %s", path.name, problem)
            if self._node.residents.of_interface(call.container, call.interface) is not None:
                what = "the deletion that was asked for before is not done yet"
                raise CniError(Code.TRY_AGAIN_LATER, what, str(problem))

    async def _make_way(self, call: Call) -> None:
        """An attachment of this interface that is leaving, was never confirmed, or lost its namespace is taken back."""
        earlier = self._node.residents.of_interface(call.container, call.interface)
        if earlier is None:
            return
        if earlier.confirmed and not earlier.leaving and earlier.namespace_id == identity(call.namespace):
            what = f"interface {call.interface} of the container belongs to network {earlier.network} already"
            raise CniError(Code.INTERFACE_EXISTS, what, "DEL comes before another ADD")
        await self._removal.forget(earlier)

    # -- GC ----------------------------------------------------------------------------
    async def _forget_unless_changed(self, attachment: Attachment, problems: list[Exception]) -> None:
        """When its lane is free, and if it is then still the one that was meant."""
        async with self._lanes.passage(lane_of(attachment)):
            if self._node.residents.get(attachment.key) != attachment:
                return
            try:
                await self._sweeping.forget(attachment)
            except Exception as error:  # noqa: BLE001 - others are to be removed all the same
                log.warning("%s", error)
                problems.append(error)

    async def _collect_garbage(self, call: Call, configuration: Configuration) -> None:
        _needs(configuration, "1.1.0", "GC")
        if configuration.valid is None:
            what = "cni.dev/valid-attachments is missing"
            raise CniError(Code.INVALID_CONFIGURATION, what, "without it everything would be garbage")
        valid = set(configuration.valid)
        stale = [
            attachment
            for attachment in self._node.residents.attachments
            if attachment.network == configuration.name
            and attachment.confirmed
            and (attachment.container, attachment.interface) not in valid
        ]
        if stale:
            log.warning("GC of network %s removes %d attachments", configuration.name, len(stale))
        problems: list[Exception] = []
        works = [self._forget_unless_changed(attachment, problems) for attachment in stale]
        for ended in [self._tasks.begin(work) for work in works]:
            await ended
        if configuration.ipam == OURS:
            self._node.addresses.reclaim()
        await self._ask_newer_plugin(configuration, call, "GC")
        if problems:
            raise problems[0]

    # -- looking -------------------------------------------------------------------
    async def _check(self, call: Call, configuration: Configuration) -> None:
        _needs(configuration, "0.4.0", "CHECK")
        attachment = self._node.residents.get(key_of(call, configuration))
        if configuration.previous is None:
            raise CniError(Code.INVALID_CONFIGURATION, "prevResult is missing", "CHECK compares with it")
        if attachment is None:
            raise CniError(Code.UNKNOWN_CONTAINER, f"container {call.container} is not in network {configuration.name}")
        expected = check_previous(configuration.previous, attachment)
        check_device(self._node, attachment, expected)
        await self._ask_plugin(configuration, call, "CHECK")

    async def _status(self, call: Call, configuration: Configuration) -> None:
        _needs(configuration, "1.1.0", "STATUS")
        if not self._node.ready:
            raise CniError(Code.NOT_AVAILABLE, "the daemon is not ready", "see towpath status")
        if configuration.ipam == OURS:
            addresses = self._node.addresses
            for version in planning.families(configuration, (pool.prefix for pool in addresses.settings.pools)):
                if not addresses.has_free(version, configuration.pools):
                    raise CniError(Code.NOT_AVAILABLE, f"no IPv{version} address is free", "see towpath ipam show")
        await self._ask_newer_plugin(configuration, call, "STATUS")

    async def _ask_newer_plugin(self, configuration: Configuration, call: Call, verb: str) -> None:
        """As `_ask_plugin`, for a verb that plugins before 1.1.0 do not know, and must not be asked for."""

        def ask() -> None:
            if self._plugins.knows(configuration.ipam, call, "1.1.0"):
                self._plugins.run(configuration.ipam, call, verb)

        if configuration.ipam != OURS:
            await self._programs.run(ask)


async def _delivered(reply: Reply, answer: Answer) -> bool:
    """Give the answer; whether the runtime has it."""
    told: Outcome[bool] = Outcome()
    try:
        answer(reply, told.settle)
    except Exception:
        log.exception("an answer could not be given")
        return False
    return await told


def as_cni_error(error: Exception) -> CniError:
    if isinstance(error, CniError):
        return error
    if isinstance(error, NoAddressError):
        code = Code.TRY_AGAIN_LATER if error.soon else Code.NO_ADDRESS
        return CniError(code, error.what, f"{error.where}: {error.remedy}")
    if isinstance(error, TakenError):
        return CniError(Code.ADDRESS_TAKEN, f"{error.where} {error.what}", error.remedy)
    if isinstance(error, TowpathError):
        return CniError(Code.FAILED, f"{error.where}: {error.what}", error.remedy)
    log.error("unexpected", exc_info=error)
    return CniError(Code.INTERNAL, "internal error", repr(error))


def _needs(configuration: Configuration, version: str, verb: str) -> None:
    if configuration.version < version:
        what = f"{verb} needs cniVersion {version}"
        raise CniError(Code.INCOMPATIBLE_VERSION, what, f"the configuration has {configuration.version}")
