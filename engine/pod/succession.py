"""Which pod takes over the device of which, when other pods are wanted than before.

Owns: what it means that two pods have one place.
Never: touches a device; `attach` does.
Invariant: a device is passed to one pod, and only where its own pod leaves that place.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.model import Pod

Place = tuple[str, tuple[int, int] | None, str]


def place_of(pod: Pod) -> Place:
    """Where the pod's device stands."""
    return (pod.namespace, pod.namespace_id, pod.interface)


def successions(present: Mapping[str, Pod], wanted: Mapping[str, Pod]) -> dict[str, str]:
    """By the name of the pod that has a device: that of the other pod which is wanted at its place."""
    left = {place_of(pod): name for name, pod in present.items() if _leaves(pod, wanted.get(name))}
    if not left:
        return {}
    heirs = {place_of(pod): name for name, pod in sorted(wanted.items(), reverse=True)}  # the first by name has it
    return {left[place]: heirs[place] for place in left if place in heirs}


def _leaves(pod: Pod, wanted: Pod | None) -> bool:
    return wanted is not pod and (wanted is None or place_of(wanted) != place_of(pod))
