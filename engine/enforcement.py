"""What a node enforces of policy: documents from files and clients, facts about pods, one compiled program.

Owns: the documents, the compiler, which rule counts under which number, and the policies that clients apply.
Never: touches the data plane; it is handed `Enforced`, and asked through the node.
Invariant: while what a file says has never been known, every pod of the node
is closed. Two calls with nothing changed between them give the same object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.counting import Counting
from engine.desired.policy.document import Origin, PolicyError, parse
from engine.desired.policy.enforced import Enforced, judged_here
from engine.desired.policy.local import Locality
from engine.desired.policy.model import Action, CalicoPolicy, Policy, Refusal, Snapshot, Stance
from engine.desired.policy.order import title
from engine.desired.policy.program import Program
from engine.desired.policy.reader import Reading, assemble
from engine.desired.policy.staged import with_staged
from engine.errors import ConfigError, TowpathError
from engine.model import Address, Facts
from engine.source.policies import PolicyFiles, PolicyWatch

log = logging.getLogger(__name__)

Counts = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]  # flows, packets, bytes

CLOSED = CalicoPolicy(
    "towpath-closed", "", "kube-admin", -inf, types=frozenset(("ingress", "egress")),
    refusal=Refusal("policy files could not be read yet"), kind="GlobalNetworkPolicy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Applied:
    """One document that a client applied."""

    kind: str
    namespace: str
    name: str
    version: str

    @property
    def file(self) -> str:
        return f"{self.kind}@{self.namespace}@{self.name}.json"  # no name may hold that sign

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Enforcement:
    """`folder` holds what clients applied; the folder it is in must exist."""

    def __init__(self, folder: Path) -> None:
        self.counting = Counting()
        self.documents = Snapshot()
        self.problems: list[PolicyError] = []
        self._snapshot: Snapshot | None = Snapshot()  # what was compiled last; None: not put together yet
        self._facts: tuple[Facts, tuple[Address, ...]] | None = None
        self._is_open = False  # as of the documents: whether no packet can be denied, now or by a staged policy
        self._folder = folder
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._applied = PolicyFiles([self._folder])
        self._files = PolicyFiles([])
        self._watch: PolicyWatch | None = None
        self._stance = Stance()
        self._locality = Locality()
        self._compiler = Compiler()
        self._enforced: Enforced | None = None
        self._staged_compiler = Compiler()
        self._staged: tuple[Snapshot, Enforced] | None = None
        self._rest: dict[int, tuple[int, int, int]] = {}

    # -- documents -------------------------------------------------------------
    def configure(self, config: Config) -> None:
        """Take up [policy]; the files are read at once."""
        section = config.policy
        action = Action.ALLOW if section.default == "allow" else Action.DENY
        stance = Stance(action, section.failsafe_in, section.failsafe_out, section.services)
        paths = [Path(path) for path in section.files]
        moved = paths != self._files.paths
        if moved:
            self._files = PolicyFiles(paths)
            self.close()
        if self._watch is None and paths:
            self._watch = PolicyWatch(self._files)
        renewed = [self._files.refresh(), self._applied.refresh()]
        if moved or stance != self._stance or any(renewed):
            self._stance = stance
            self._assemble()

    @property
    def watch(self) -> PolicyWatch | None:
        """To be waited for; then `refresh`."""
        return self._watch

    @property
    def unsettled(self) -> bool:
        return self._files.unsettled

    def refresh(self) -> bool:
        """Read what changed; whether anything did."""
        if self._watch is not None:
            self._watch.drain()
        changed = self._files.refresh()
        if changed:
            self._assemble()
        return changed

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _assemble(self) -> None:
        reading, applied = self._files.reading(), self._applied.reading()
        both = Reading([*reading.objects, *applied.objects], [*reading.problems, *applied.problems])
        self.documents = assemble(both, self._stance)
        self._is_open = _is_open(self.documents)
        before, self.problems = {str(problem) for problem in self.problems}, both.problems
        for problem in both.problems:
            if str(problem) not in before:
                log.warning("policy: %s", problem)

    # -- what is put in force ----------------------------------------------------
    def enforced(self, facts: Facts, own: Iterable[Address]) -> Enforced | None:
        """None where nothing is restricted. `own`: this node's addresses on the underlay."""
        self._facts = facts, tuple(own)
        if self._is_open and not self._is_closed:
            self._enforced = self._snapshot = None
            return None
        snapshot = self._put_together()
        program = self._compiler.update(snapshot)
        self._snapshot = snapshot
        judged = judged_here(program, _judged_addresses(snapshot, facts))
        before = self._enforced
        if before is None or before.judged != judged or before.program is not program:
            self._enforced = Enforced(program, judged, self.counting.number(program), snapshot.stance.services)
        return self._enforced

    @property
    def snapshot(self) -> Snapshot:
        """What was compiled last, or would have been."""
        if self._snapshot is None:
            self._snapshot = self._put_together()
        return self._snapshot

    def _put_together(self) -> Snapshot:
        if self._facts is None:
            return Snapshot()
        snapshot = self._locality.snapshot(self.documents, *self._facts)
        return replace(snapshot, policies=(CLOSED,)) if self._is_closed else snapshot

    @property
    def _is_closed(self) -> bool:
        """What the files say has never been known."""
        return bool(self._files.closed and self._files.paths)

    @property
    def current(self) -> Enforced | None:
        return self._enforced

    def rest_on(self, read: Callable[[], Counts] | None) -> None:
        """Numbers of counters that were given again begin at what the plane has counted so far."""
        if read is None:
            return
        counts = read()
        for number in self.counting.again:
            if number < len(counts[0]):
                self._rest[number] = (int(counts[0][number]), int(counts[1][number]), int(counts[2][number]))
        self.counting.again = []

    def counts(self, read: Counts) -> Counts:
        """What the rules of now have counted."""
        flows, packets, size = (column.copy() for column in read)
        for number, (f, p, b) in self._rest.items():
            if number < len(flows):
                flows[number] -= np.uint64(f)
                packets[number] -= np.uint64(p)
                size[number] -= np.uint64(b)
        return flows, packets, size

    @property
    def program(self) -> Program | None:
        return None if self._enforced is None else self._enforced.program

    @property
    def staged(self) -> Enforced | None:
        """The program in which staged policies are enforced, None when there are none. Compiled when asked for."""
        snapshot = with_staged(self.snapshot)
        if snapshot is self.snapshot:
            return None
        if self._staged is None or self._staged[0] is not self.snapshot:
            judged = None if self._enforced is None else self._enforced.judged
            self._staged = (self.snapshot, Enforced(self._staged_compiler.update(snapshot), judged))
        return self._staged[1]

    def refusals(self) -> list[tuple[Policy, Refusal]]:
        """The policies that deny, or are left out on hosts, instead of doing what they say."""
        return [(policy, policy.refusal) for policy in self.snapshot.policies if policy.refusal]

    def complaints(self) -> list[str]:
        """One sentence for each thing that is not enforced as it was written."""
        told = [f"policy: {problem}" for problem in self.problems]
        for policy, refusal in self.refusals():
            whom = "all it selects" if refusal.scope == "all" else "the host endpoints it selects"
            told.append(f"policy: {title(policy)} denies {whom}: {refusal.reason}")
        return told

    # -- what clients apply --------------------------------------------------------
    def apply(self, text: str) -> list[Applied]:
        """Take the documents of a text and keep them. ConfigError at the first mistake: then none of them is kept."""
        found: list[tuple[Applied, Any]] = []
        for origin, value in parse(text, "applied"):
            found += [(_checked(document, origin), document) for document in _flat(value)]
        for applied, document in found:
            _write(self._folder / applied.file, msgspec.json.encode(document))
        self._applied.refresh()
        self._assemble()
        return [applied for applied, _ in found]

    def applied(self) -> list[Applied]:
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                document = msgspec.json.decode(path.read_bytes())
                found.append(_identity(document))
            except (OSError, msgspec.MsgspecError, KeyError, TypeError):
                continue  # told among the problems
        return found

    def delete(self, kind: str, namespace: str, name: str) -> Applied:
        """Forget what was applied. ConfigError when there is no such document."""
        for applied in self.applied():
            if (applied.kind.lower(), applied.name) == (kind.lower(), name) and applied.namespace in (namespace, ""):
                (self._folder / applied.file).unlink(missing_ok=True)
                self._applied.refresh()
                self._assemble()
                return applied
        what = f"no {kind} {namespace}/{name} was applied"
        raise ConfigError(what, where="policy", remedy="see towpath policy list; what stands in files is deleted there")


def _is_open(snapshot: Snapshot) -> bool:
    """Whether no packet can be denied, now or by a staged policy."""
    return (
        not snapshot.policies
        and snapshot.stance.default == Action.ALLOW
        and all(endpoint.profiles is None for endpoint in snapshot.endpoints.values())
    )


def _judged_addresses(snapshot: Snapshot, facts: Facts) -> Iterable[Address]:
    for pod in facts.pods:
        yield from pod.addresses
    for endpoint in snapshot.endpoints.values():
        if endpoint.is_host and endpoint.node == facts.node.name:
            yield from endpoint.addresses


# -- documents one by one -----------------------------------------------------------
def _flat(value: Any) -> Iterable[Any]:
    """The items of a List, else the document itself."""
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        for item in value["items"]:
            yield from _flat(item)
    elif value is not None:
        yield value


def _checked(document: Any, origin: Origin) -> Applied:
    reading = Reading().document(document, origin).raise_first()
    if not reading.objects or not isinstance(document, dict) or not document.get("kind"):
        raise PolicyError("no document with kind and name", origin=origin, remedy="apply policies as kubectl has them")
    return _identity(document)


def _identity(document: Any) -> Applied:
    metadata = document["metadata"]
    kind = str(document["kind"])
    namespaced = not kind.startswith(("Global", "Cluster", "StagedGlobal")) and kind not in _CLUSTER_WIDE
    namespace = str(metadata.get("namespace") or "default") if namespaced else ""
    return Applied(kind, namespace, str(metadata["name"]), str(document["apiVersion"]))


_CLUSTER_WIDE = frozenset({"Namespace", "Node", "Tier", "HostEndpoint", "Profile"})


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, also when the machine stops."""
    fresh = path.with_suffix(".new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise TowpathError(f"cannot keep it: {error.strerror}", where=str(path), remedy="make room there") from error
