"""Which devices of the file's pods stand in which namespaces, written down before they are made.

Owns: one small file in the state directory. What runtimes attach is written down in `residents`.
Never: is the truth: a device is ours by its alias; the record only says where
to look for one that is no longer wanted.
Invariant: the file is replaced whole, so a kill at any moment leaves the old
or the new one; an unreadable file counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from engine.recordfile import read_record, write_record

_SIZE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """Device `interface` of pod `pod` in the namespace at `namespace`.

    `marks`: the other pods whose device it was, and whose mark it may still carry.
    """

    pod: str
    namespace: str
    interface: str
    marks: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, str]:
        return self.namespace, self.interface


class Record:
    def __init__(self, file: Path) -> None:
        self._file = file
        entries = read_record(file, list[Entry], of="devices", limit=_SIZE_LIMIT) or []
        self._entries = {entry.pod: entry for entry in entries}

    @property
    def entries(self) -> Mapping[str, Entry]:
        return MappingProxyType(self._entries)  # which is never changed, but replaced

    def add(self, entry: Entry) -> None:
        """Where the pod's device is written down as standing there, it may carry other marks still."""
        present = self._entries.get(entry.pod)
        if present is None or present.place != entry.place:
            self._replace({**self._entries, entry.pod: entry})

    def marked(self, pod: str) -> None:
        """The pod's device carries its own mark."""
        entry = self._entries.get(pod)
        if entry is not None and entry.marks:
            self._replace({**self._entries, pod: replace(entry, marks=())})

    def pass_on(self, heirs: Mapping[str, str]) -> None:
        """What was written down of each of these is its heir's from now on: all at once, since names may change places."""
        if heirs.keys().isdisjoint(self._entries):
            return
        passed = [
            replace(entry, pod=heirs[name], marks=(*(mark for mark in entry.marks if mark != name), name))
            for name, entry in self._entries.items()
            if name in heirs
        ]
        kept = {name: entry for name, entry in self._entries.items() if name not in heirs}
        self._replace(kept | {entry.pod: entry for entry in passed})

    def marks_of(self, pod: str) -> tuple[str, ...]:
        """The pods whose marks the pod's device may carry, but for those whose device stands at its place by now."""
        entry = self._entries.get(pod)
        if entry is None:
            return (pod,)
        at_its_place = {name for name, other in self._entries.items() if other.place == entry.place}
        return (pod, *(mark for mark in entry.marks if mark not in at_its_place))

    def interfaces_of_others(self, pod: str, namespace: str) -> set[str]:
        """The names of the devices that other pods have in the namespace."""
        return {
            entry.interface for name, entry in self._entries.items() if name != pod and entry.namespace == namespace
        }

    def discard(self, *pods: str) -> None:
        if not self._entries.keys().isdisjoint(pods):
            self._replace({name: entry for name, entry in self._entries.items() if name not in pods})

    def _replace(self, entries: dict[str, Entry]) -> None:
        """What is believed to be written is written."""
        written = sorted(entries.values(), key=lambda entry: entry.pod)
        write_record(self._file, written, what="where devices stand")
        self._entries = entries
