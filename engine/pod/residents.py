"""The pods that container runtimes attached: written down before their device is made, forgotten after it is gone.

Owns: the journal of attachments in the state directory, and which of them still have their namespace.
Never: makes a device, or gives an address.
Invariant: an attachment that was acknowledged is here after every crash, and one
that was let go is never a pod again; no pod is of an earlier boot, since no namespace outlives the kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from engine.errors import TowpathError
from engine.model import Address, Bandwidth, Pod, PortMapping, Protocol
from engine.model import Identity as ModelIdentity
from engine.pod.namespace import Identity, identity
from engine.pod.store import FileStore, Store

log = logging.getLogger(__name__)

Key = tuple[str, str, str]  # network, container, interface

_ATTACHMENTS = "attachment/"
_BOOT = "boot"
_LONGEST_LABEL = 100  # with a container and an interface behind it, it is to fit a device's alias
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NOWHERE: Identity = (0, 0)  # a namespace of an earlier boot: its numbers may be another one's now


class PortWish(msgspec.Struct, frozen=True, array_like=True):
    """A port of the host that is to lead to one of the container."""

    host_port: int
    pod_port: int
    protocol: Protocol
    host_address: str = ""


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One interface of one container in one network, as the runtime asked for it and as it was answered."""

    network: str
    container: str
    interface: str
    pod: str  # the name of the Pod it becomes
    namespace: str
    namespace_id: Identity
    addresses: tuple[str, ...]
    routes: tuple[str, ...] | None = None
    orchestrator: tuple[str, str] = ("", "")  # namespace and name of the pod as its orchestrator calls it
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[PortWish, ...] = ()
    bandwidth: tuple[int, int, int, int] = (0, 0, 0, 0)  # as in model.Bandwidth
    ipam: str = ""  # the delegated plugin that gave the addresses; ours when empty
    configuration: str = ""  # what the delegated plugin was given, and is given again to take them back
    arguments: str = ""
    search_path: str = ""
    since: float = 0.0
    asked: str = ""  # when the runtime asked for it, by a clock that nobody sets
    confirmed: bool = False  # the runtime has the answer
    leaving: bool = False  # it is to be gone, and no pod any more

    @property
    def key(self) -> Key:
        return self.network, self.container, self.interface

    @property
    def handle(self) -> str:
        return handle(self.key)

    def ip_addresses(self) -> tuple[Address, ...]:
        return tuple(ip_address(text) for text in self.addresses)

    def as_pod(self) -> Pod:
        return Pod(
            name=self.pod,
            namespace=self.namespace,
            addresses=self.ip_addresses(),
            interface=self.interface,
            routes=None if self.routes is None else tuple(ip_network(text) for text in self.routes),
            namespace_id=self.namespace_id,
            identity=ModelIdentity(*self.orchestrator, self.labels),
            ports=tuple(_mapping(wish) for wish in self.ports),
            bandwidth=Bandwidth(*self.bandwidth),
        )


def _mapping(wish: PortWish) -> PortMapping:
    address = ip_address(wish.host_address) if wish.host_address else None
    return PortMapping(wish.host_port, wish.pod_port, wish.protocol, address)


def handle(key: Key) -> str:
    """What the addresses of an attachment are taken under."""
    return "/".join(key)


class Residents:
    """`store` is read once; from then on nobody else may write it."""

    def __init__(self, store: Store, *, boot: str | None = None, close: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self.close = close
        self._attachments: dict[Key, Attachment] = {}
        self._pods: dict[Key, Pod] = {}
        self._names: dict[str, Key] = {}
        self._interfaces: dict[tuple[str, str], set[Key]] = {}  # of a container: in usually one network
        self._gone: dict[Key, float] = {}  # since when their namespace is missing
        self._leaving: set[Key] = set()
        self._load(_boot_id() if boot is None else boot)

    @property
    def attachments(self) -> list[Attachment]:
        return list(self._attachments.values())

    def get(self, key: Key) -> Attachment | None:
        return self._attachments.get(key)

    def of_interface(self, container: str, interface: str) -> Attachment | None:
        """Whoever has this interface of the container, in whatever network."""
        keys = self._interfaces.get((container, interface), ())
        return next((self._attachments[key] for key in keys), None)

    def put(self, attachment: Attachment) -> None:
        self._write(attachment)
        self._take(attachment)

    def _write(self, attachment: Attachment) -> None:
        key, value = _ATTACHMENTS + attachment.handle, msgspec.json.encode(attachment)
        stored = self._store.get(key)
        if stored is None or stored.value != value:
            self._store.put(key, value, stored.revision if stored else 0)

    def _take(self, attachment: Attachment) -> None:
        before = self._pods.get(attachment.key)
        pod = attachment.as_pod()
        (self._leaving.add if attachment.leaving else self._leaving.discard)(attachment.key)
        self._attachments[attachment.key] = attachment
        self._names[attachment.pod] = attachment.key
        self._interfaces.setdefault((attachment.container, attachment.interface), set()).add(attachment.key)
        self._pods[attachment.key] = before if before == pod else pod  # the same object compares faster

    def let_go(self, keys: Iterable[Key]) -> None:
        """They are no pods any more, but written down, as such, until `discard`: their devices may still stand."""
        for attachment in [self._attachments[key] for key in keys]:
            leaving = msgspec.structs.replace(attachment, leaving=True)
            try:
                self._write(leaving)
            except TowpathError as error:  # a full disk: they go all the same
                log.warning("pod %s would be back after a crash: %s", attachment.pod, error)
            self._take(leaving)

    @property
    def leaving(self) -> list[Attachment]:
        """What is to be gone, but may not be yet."""
        return [attachment for key, attachment in self._attachments.items() if key in self._leaving]

    def pod(self, key: Key) -> Pod:
        """What the attachment is, or was until it was let go."""
        return self._pods[key]

    def discard(self, key: Key) -> None:
        """Out of the journal first: what cannot be written down is still here, and can be discarded again."""
        stored = self._store.get(_ATTACHMENTS + handle(key))
        if stored is not None:
            self._store.delete(_ATTACHMENTS + handle(key), stored.revision)
        self._gone.pop(key, None)
        self._leaving.discard(key)
        self._pods.pop(key, None)
        attachment = self._attachments.pop(key, None)
        if attachment is not None:
            self._names.pop(attachment.pod, None)
            keys = self._interfaces[attachment.container, attachment.interface]
            keys.discard(key)
            if not keys:
                del self._interfaces[attachment.container, attachment.interface]

    def pods(self) -> tuple[Pod, ...]:
        """Those that have their namespace, as of the last look."""
        absent = self._leaving.union(self._gone)
        pods = self._pods
        return tuple(pod for key, pod in pods.items() if key not in absent) if absent else tuple(pods.values())

    def look(self, now: float, is_there: Callable[[Attachment], bool] | None = None) -> bool:
        """See which namespaces are still there; whether that changed."""
        is_there = is_there or _has_namespace
        before = set(self._gone)
        for key, attachment in self._attachments.items():
            if is_there(attachment):
                self._gone.pop(key, None)
            elif key not in self._gone:
                log.info("the namespace of pod %s is gone", attachment.pod)
                self._gone[key] = now
        return set(self._gone) != before

    def gone_before(self, limit: float) -> list[Attachment]:
        """Attachments whose namespace has been missing since `limit`, or longer."""
        return [self._attachments[key] for key, since in self._gone.items() if since <= limit]

    def is_gone(self, key: Key) -> bool:
        return key in self._gone

    def is_leaving(self, key: Key) -> bool:
        return key in self._leaving

    def name_for(self, label: str, container: str, interface: str, taken: Container[str]) -> str:
        """A name for the pod that nobody has, and no pod of the file can have."""
        label = label[:_LONGEST_LABEL]
        suffix = "" if interface == "eth0" else f":{interface}"
        short = f"{label}@{container[:12]}{suffix}"
        return short if short not in self._names and short not in taken else f"{label}@{container}:{interface}"

    def _load(self, boot: str) -> None:
        stored = self._store.get(_BOOT)
        same = stored is not None and msgspec.json.decode(stored.value) == boot
        for key, entry in list(self._store.items(_ATTACHMENTS)):
            try:
                attachment = msgspec.json.decode(entry.value, type=Attachment)
            except (msgspec.MsgspecError, ValueError) as error:
                log.warning("ignoring attachment %s: %s", key, error)
                continue
            if same:
                self._take(attachment)
            elif attachment.ipam:  # nothing is left of it but what its plugin has to be told
                self.put(msgspec.structs.replace(attachment, namespace_id=_NOWHERE, leaving=True))
            else:
                self._store.delete(key, entry.revision)
        if not same:
            self._store.put(_BOOT, msgspec.json.encode(boot), stored.revision if stored else 0)


def open_residents(directory: Path) -> Residents:
    """Those of a state directory."""
    store = FileStore(directory / "attachments.journal")
    return Residents(store, close=store.close)


def _has_namespace(attachment: Attachment) -> bool:
    return identity(attachment.namespace) == attachment.namespace_id


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
