"""Deletes the devices of pods that left the plane.

Owns: what is left of such a pod until its device is gone.
Never: touches the plane, the record, or a device that carries none of the marks it is known by.
Invariant: a queue that was to be deleted is closed, whatever became of its device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engine.apply.links import ALIAS_PREFIX, delete, netlink, read
from engine.apply.plane import LocalPort
from engine.apply.reconcile import tried
from engine.errors import TowpathError
from engine.model import Pod
from engine.pod.namespace import identity, run_inside

log = logging.getLogger(__name__)

_DELETED_AT_ONCE = 16  # threads


@dataclass(frozen=True, slots=True)
class Leaver:
    """A pod that is out of the plane. `port`: its queue; None when only its device may still stand.

    `marks`: the pods by whose marks the device is known.
    """

    pod: Pod
    port: LocalPort | None
    marks: tuple[str, ...]

    def delete(self) -> None:
        """The device, by the queue; where that is refused, or there is none, by its name and mark."""
        if self.port is not None:
            error = tried(self.port.delete, f"pod {self.pod.name}")
            if error is None:
                return
            log.debug("not by its queue: %s", error)
            self.close()
        _delete_standing(self.pod, self.marks)

    def close(self) -> None:
        if self.port is not None:
            tried(self.port.close, f"pod {self.pod.name}")


@dataclass(slots=True)
class Departure:
    """Devices to be deleted, which takes the kernel some 15 ms and needs nobody's attention."""

    leaving: dict[str, Leaver]
    deleted: set[str] = field(default_factory=set)
    refused: dict[str, TowpathError] = field(default_factory=dict)

    def delete(self) -> None:
        """In any thread. All at once: the kernel waits long for each, and not longer for several."""
        if len(self.leaving) > 1:
            with ThreadPoolExecutor(
                min(len(self.leaving), _DELETED_AT_ONCE), thread_name_prefix="towpath-delete"
            ) as threads:
                list(threads.map(self._delete, self.leaving))
        else:
            for name in self.leaving:
                self._delete(name)

    def _delete(self, name: str) -> None:
        error = tried(self.leaving[name].delete, f"pod {name}")
        if error is None:
            self.deleted.add(name)
        else:
            self.refused[name] = error


def _delete_standing(pod: Pod, marks: Iterable[str]) -> None:
    """Remove a device that was left, if it still stands and carries one of the marks, or none yet."""
    aliases = {"", *(f"{ALIAS_PREFIX}{name}" for name in marks)}
    seen = identity(pod.namespace)
    if seen is None or pod.namespace_id not in (None, seen):
        return

    def delete_if_ours() -> None:
        with netlink() as ip:
            state = read(ip, pod.interface)
            if state is not None and state.is_ours and state.alias in aliases:
                delete(ip, pod.interface)

    run_inside(pod.namespace, delete_if_ours, where=f"pod {pod.name}")
