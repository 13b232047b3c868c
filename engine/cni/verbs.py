"""What each CNI verb does on this node.

Owns: the order of the steps of a verb, and what is undone when one fails.
Never: speaks to a socket, and never waits in the node's loop for a program.
Invariant: calls for one interface of one container are done one after the
other; an ADD whose answer the runtime did not get leaves nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

import msgspec

from engine.cni import planning, sandbox, spool
from engine.cni.answer import CniError, Code, Reply, Result, failure, nothing, success, versions
from engine.cni.aside import Aside
from engine.cni.call import Call, arguments_of
from engine.cni.checking import check_device, check_previous
from engine.cni.configuration import OURS, Configuration, asked_version, read, read_for_removal, version_of
from engine.cni.delegate import Delegated, Plugins
from engine.cni.lanes import Done, Lanes
from engine.cni.removal import Removal, Then, ignored
from engine.errors import TowpathError
from engine.model import Address
from engine.node import Node
from engine.pod.attach import routes_of
from engine.pod.ipam.allocator import NoAddressError, TakenError
from engine.pod.namespace import identity
from engine.pod.residents import Attachment, Key

log = logging.getLogger(__name__)

GRACE = 60.0  # seconds for a runtime to delete a container whose namespace is gone, before we do

Ended = Callable[[bool], None]  # told once: whether the runtime has the answer
Answer = Callable[[Reply, Ended | None], None]


class Verbs:
    """`spool_folder` holds the deletions that were asked for while no daemon answered."""

    def __init__(self, node: Node, spool_folder: Path) -> None:
        self._node = node
        self._spool = spool_folder
        self._lanes = Lanes(node.loop)
        self._aside = Aside(node.loop)
        self._plugins = Plugins()
        self._removal = Removal(node, self._aside, self._plugins)
        self._arriving: list[tuple[Attachment, Callable[[int | TowpathError], None]]] = []

    def close(self) -> None:
        self._aside.close()
        self._plugins.close()

    @property
    def busy(self) -> bool:
        """Something is under way that may still change attachments."""
        return bool(self._lanes) or bool(self._aside)

    def serve(self, call: Call, answer: Answer) -> None:
        """Answer `call`, now or later, exactly once."""
        if call.verb in {"ADD", "DEL", "CHECK"}:
            self._lanes.enter((call.container, call.interface), lambda done: self._begin(call, answer, done))
        else:
            self._begin(call, answer, lambda: None)

    def collect(self) -> None:
        """Do the deletions that wait in the spool, and those that a runtime failed to ask for."""
        for path in spool.pending(self._spool):
            call = spool.read(path)
            lane = (call.container, call.interface) if call is not None else ("", path.name)
            self._lanes.enter(lane, partial(spool.carry_out, path, self._delete_quietly))
        for attachment in self._node.residents.gone_before(self._node.loop.clock() - GRACE):
            log.warning("removing pod %s, whose namespace is gone", attachment.pod)
            self._removal.forget([attachment], ignored)

    def forget_earlier_boot(self) -> None:
        """Tell delegated plugins of the attachments that ended with the last boot."""
        self._removal.take_back([a for a in self._node.residents.forgotten if a.ipam], ignored)

    # -- one call ---------------------------------------------------------------
    def _begin(self, call: Call, answer: Answer, done: Done) -> None:
        """Run the verb; `done` when nothing of it is under way any more."""
        self._guarded(call, answer, done, lambda: self._run(call, answer, done))

    def _run(self, call: Call, answer: Answer, done: Done) -> None:
        arguments = arguments_of(call.arguments)
        if call.verb == "VERSION":
            answer(versions(asked_version(call.input)), None)
            done()
            return
        removal = call.verb in {"DEL", "GC"}
        configuration = read_for_removal(call.input) if removal else read(call.input, arguments)
        verb = {
            "ADD": self._add,
            "DEL": self._delete,
            "CHECK": self._check,
            "GC": self._collect_garbage,
            "STATUS": self._status,
        }[call.verb]
        verb(call, configuration, answer, done)

    def _guarded(self, call: Call, answer: Answer, done: Done, work: Callable[[], None]) -> None:
        """`work()`, whose failure is the answer."""
        try:
            work()
        except (CniError, TowpathError) as error:
            self._fail(call, error, answer, done)
        except Exception as error:
            log.exception("%s of container %s failed", call.verb, call.container)
            self._fail(call, CniError(Code.FAILED, "internal error", repr(error)), answer, done)

    def _fail(self, call: Call, error: Exception, answer: Answer, done: Done) -> None:
        told = as_cni_error(error)
        log.warning("%s of container %s refused: %s", call.verb, call.container or "-", told)
        answer(failure(told, version_of(call.input)), None)
        done()

    def _answering(self, call: Call, answer: Answer, done: Done) -> Then:
        """What ends a verb without output."""

        def ended(error: Exception | None) -> None:
            if error is None:
                answer(nothing(), None)
                done()
            else:
                self._fail(call, error, answer, done)

        return ended

    def _ask_plugin(self, configuration: Configuration, call: Call, verb: str, then: Then) -> None:
        """Have the delegated plugin do its part, where there is one."""
        if configuration.ipam == OURS:
            then(None)
        else:
            self._aside.run(lambda: self._plugins.run(configuration.ipam, call, verb), lambda _: then(None), then)

    # -- ADD --------------------------------------------------------------------
    def _add(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
        if configuration.previous is not None:
            what = "towpath makes the interface, so it must be the first plugin of the list"
            raise CniError(Code.INVALID_CONFIGURATION, what, "move the others behind it")

        guarded = partial(self._guarded, call, answer, done)

        def add(error: Exception | None) -> None:
            ignored(error)
            guarded(lambda: self._add_to_free(call, configuration, answer, done))

        # A deletion that was asked for while no daemon answered comes first.
        waiting = self._spool / spool.name_of(call.container, call.interface)
        spool.carry_out(waiting, self._delete_quietly, lambda: guarded(lambda: self._make_way(call, add)))

    def _make_way(self, call: Call, then: Then) -> None:
        """An attachment of this interface that was never confirmed, or whose namespace is gone, is taken back."""
        earlier = self._node.residents.of_interface(call.container, call.interface)
        if earlier is None:
            then(None)
            return
        if earlier.confirmed and earlier.namespace_id == identity(call.namespace):
            what = f"interface {call.interface} of the container belongs to network {earlier.network} already"
            raise CniError(Code.INTERFACE_EXISTS, what, "DEL comes before another ADD")
        self._removal.forget([earlier], then)

    def _add_to_free(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
        """Nothing of ours is in the way."""
        seen = sandbox.look(call.namespace)
        if call.interface in seen.devices:
            what = f"interface {call.interface} exists in the container already"
            raise CniError(Code.INTERFACE_EXISTS, what, call.namespace)

        def failed(error: Exception) -> None:
            self._fail(call, error, answer, done)

        def attach(given: Delegated) -> None:
            def attached(mtu: int | TowpathError) -> None:
                if isinstance(mtu, TowpathError):
                    self._take_back_addresses(call, configuration, given, lambda: failed(mtu))
                else:
                    reply = success(_result(attachment, mtu, given, configuration), configuration.version)
                    answer(reply, lambda acknowledged: self._ended(attachment, done, acknowledged=acknowledged))

            try:
                attachment = self._plan(call, configuration, seen, given)
                self._node.residents.put(attachment)
            except Exception as error:  # noqa: BLE001 - the addresses go back, whatever it was
                problem = error
                self._take_back_addresses(call, configuration, given, lambda: failed(problem))
            else:
                self._attach_soon(attachment, attached)

        if configuration.ipam == OURS:
            attach(self._assign(call, configuration))
        else:
            self._aside.run(lambda: self._plugins.add(configuration.ipam, call), attach, failed)

    def _assign(self, call: Call, configuration: Configuration) -> Delegated:
        addresses = self._node.addresses
        namespace, name = planning.kubernetes_name(arguments_of(call.arguments))
        given = addresses.assign(
            _handle(call, configuration),
            planning.families(configuration, (pool.prefix for pool in addresses.settings.pools)),
            wanted=configuration.wanted,
            sticky=planning.sticky_identity(configuration, call, namespace, name),
            within=configuration.pools,
        )
        if not given:
            raise CniError(Code.INVALID_CONFIGURATION, "no address is asked for", "see ipam.families and ipam.pools")
        return Delegated(given, configuration.routes, {})

    def _attach_soon(self, attachment: Attachment, attached: Callable[[int | TowpathError], None]) -> None:
        """What came in one turn is done in one pass."""
        self._arriving.append((attachment, attached))
        if len(self._arriving) == 1:
            self._node.loop.call_soon(self._attach_arriving)

    def _attach_arriving(self) -> None:
        arriving, self._arriving = self._arriving, []
        try:
            found = self._node.attach(*(attachment for attachment, _ in arriving))
        except Exception as error:  # each has to be answered, whatever it was
            log.exception("%d pods could not be attached", len(arriving))
            found = [TowpathError(str(error), where="daemon", remedy="see its log")] * len(arriving)
        for (_, attached), mtu in zip(arriving, found, strict=True):
            attached(mtu)

    # -- the parts of ADD ----------------------------------------------------------
    def _plan(self, call: Call, configuration: Configuration, seen: sandbox.Sandbox, given: Delegated) -> Attachment:
        node = self._node
        used: set[Address] = set()
        if configuration.ipam != OURS:  # ours gives nothing twice
            used = {address for other in node.residents.attachments for address in other.ip_addresses()}
            used |= {address for pod in node.config.pods for address in pod.addresses}
        planning.check_addresses(given.addresses, node.config, used)
        if configuration.ports:
            planning.check_ports(configuration.ports, (*node.config.facts().pods, *node.residents.pods()))
        network = planning.network_of(node.config)
        routes = planning.routes(configuration, given.routes, given.addresses, seen.defaults, network)
        delegated = configuration.ipam != OURS
        namespace, name = planning.kubernetes_name(arguments_of(call.arguments))
        label = planning.label(configuration, namespace, name)
        return Attachment(
            network=configuration.name,
            container=call.container,
            interface=call.interface,
            pod=node.residents.name_for(label, call.container, call.interface, ()),
            namespace=call.namespace,
            namespace_id=seen.namespace_id,
            addresses=tuple(map(str, given.addresses)),
            routes=None if routes is None else tuple(map(str, routes)),
            orchestrator=(namespace, name),
            labels=configuration.labels,
            ports=tuple(planning.wish(port) for port in configuration.ports),
            bandwidth=astuple(configuration.bandwidth),
            ipam=configuration.ipam if delegated else "",
            configuration=call.input.decode() if delegated else "",
            arguments=call.arguments,
            search_path=call.search_path,
            since=round(time.time(), 3),
        )

    def _take_back_addresses(
        self, call: Call, configuration: Configuration, given: Delegated, then: Callable[[], None]
    ) -> None:
        if configuration.ipam == OURS:
            self._node.addresses.release(_handle(call, configuration), given.addresses)
        self._ask_plugin(configuration, call, "DEL", lambda _: then())  # the error that led here is the one to tell

    def _ended(self, attachment: Attachment, done: Done, *, acknowledged: bool) -> None:
        """The runtime has the answer, or went away without it."""
        if self._node.residents.get(attachment.key) != attachment:
            done()
            return
        try:
            if acknowledged:
                self._node.residents.put(msgspec.structs.replace(attachment, confirmed=True))
                log.info("pod %s attached: %s", attachment.pod, ", ".join(attachment.addresses))
                done()
            else:
                log.warning("the runtime did not take the answer: pod %s is removed", attachment.pod)
                self._removal.forget([attachment], lambda _: done())
        except TowpathError as error:  # a full disk: what is written down is less than what is
            log.warning("pod %s: %s", attachment.pod, error)
            done()

    # -- DEL and GC ----------------------------------------------------------------
    def _delete(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
        self._remove(call, configuration, self._answering(call, answer, done))

    def _delete_quietly(self, call: Call, then: Then) -> None:
        """A deletion that nobody waits for."""
        try:
            self._remove(call, read_for_removal(call.input), then)
        except CniError as error:
            then(error)

    def _remove(self, call: Call, configuration: Configuration, then: Then) -> None:
        attachment = self._node.residents.get(_key(call, configuration))

        def detached(error: Exception | None) -> None:
            if error is not None:
                then(error)
            else:
                self._ask_plugin(configuration, call, "DEL", then)

        if attachment is None:
            detached(None)
        elif attachment.ipam == ("" if configuration.ipam == OURS else configuration.ipam):
            self._removal.detach_soon(attachment, detached)
        else:  # the configuration was changed since
            self._removal.forget([attachment], detached)

    def _collect_garbage(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
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
        ended = self._answering(call, answer, done)

        def forgotten(error: Exception | None) -> None:
            if configuration.ipam == OURS:
                self._node.addresses.reclaim()
            self._ask_newer_plugin(configuration, call, "GC", lambda refusal: ended(error or refusal))

        self._removal.forget(stale, forgotten)

    # -- looking -------------------------------------------------------------------
    def _check(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
        _needs(configuration, "0.4.0", "CHECK")
        attachment = self._node.residents.get(_key(call, configuration))
        if configuration.previous is None:
            raise CniError(Code.INVALID_CONFIGURATION, "prevResult is missing", "CHECK compares with it")
        if attachment is None:
            raise CniError(Code.UNKNOWN_CONTAINER, f"container {call.container} is not in network {configuration.name}")
        expected = check_previous(configuration.previous, attachment)
        check_device(self._node, attachment, expected)
        self._ask_plugin(configuration, call, "CHECK", self._answering(call, answer, done))

    def _status(self, call: Call, configuration: Configuration, answer: Answer, done: Done) -> None:
        _needs(configuration, "1.1.0", "STATUS")
        if not self._node.ready:
            raise CniError(Code.NOT_AVAILABLE, "the daemon is not ready", "see towpath status")
        if configuration.ipam == OURS:
            addresses = self._node.addresses
            for version in planning.families(configuration, (pool.prefix for pool in addresses.settings.pools)):
                if not addresses.has_free(version, configuration.pools):
                    raise CniError(Code.NOT_AVAILABLE, f"no IPv{version} address is free", "see towpath ipam show")
        self._ask_newer_plugin(configuration, call, "STATUS", self._answering(call, answer, done))

    def _ask_newer_plugin(self, configuration: Configuration, call: Call, verb: str, then: Then) -> None:
        """As `_ask_plugin`, for a verb that plugins before 1.1.0 do not know, and must not be asked for."""

        def ask() -> None:
            if self._plugins.knows(configuration.ipam, call, "1.1.0"):
                self._plugins.run(configuration.ipam, call, verb)

        if configuration.ipam == OURS:
            then(None)
        else:
            self._aside.run(ask, lambda _: then(None), then)


def _result(attachment: Attachment, mtu: int, given: Delegated, configuration: Configuration) -> Result:
    dns = {**given.dns, **configuration.dns}
    through = routes_of(attachment.as_pod())
    return Result(attachment.interface, attachment.namespace, mtu, given.addresses, through, dns)


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
    log.error("unexpected: %r", error)
    return CniError(Code.FAILED, "internal error", repr(error))


def _needs(configuration: Configuration, version: str, verb: str) -> None:
    if configuration.version < version:
        what = f"{verb} needs cniVersion {version}"
        raise CniError(Code.INCOMPATIBLE_VERSION, what, f"the configuration has {configuration.version}")


def _key(call: Call, configuration: Configuration) -> Key:
    return configuration.name, call.container, call.interface


def _handle(call: Call, configuration: Configuration) -> str:
    return "/".join(_key(call, configuration))
