"""Who has which address: by this the flows of one pod are told from those of the next one with its address.

Owns: what makes a pod another one, and how a daemon tells its successor whose flows it leaves.
Never: forgets a flow.
Invariant: what `pack` made of pods, `unpack` turns into pods with the same holders.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from engine.model import Address, Pod

_Packed = tuple[str, str, tuple[int, int] | None, list[str]]


def holders(pods: Iterable[Pod]) -> set[tuple[object, Address]]:
    """A pod of the same name in another namespace is another pod."""
    return {((pod.name, pod.namespace, pod.namespace_id), address) for pod in pods for address in pod.addresses}


def pack(pods: Iterable[Pod]) -> bytes:
    return msgspec.json.encode(
        [(pod.name, pod.namespace, pod.namespace_id, list(map(str, pod.addresses))) for pod in pods]
    )


def unpack(data: bytes) -> list[Pod]:
    """Pods as far as they hold addresses. ValueError for anything else."""
    try:
        packed = msgspec.json.decode(data, type=list[_Packed])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return [
        Pod(name, namespace, tuple(map(ip_address, addresses)), namespace_id=namespace_id)
        for name, namespace, namespace_id, addresses in packed
    ]
