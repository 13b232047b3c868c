"""CHECK: whether a container's interface is still as it was added.

Owns: the comparison of the runtime's prevResult, our record, and the device.
Never: sets anything right; the node's audit does.
Invariant: what a later plugin of the list changed and recorded in prevResult is no fault.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_interface, ip_network
from typing import Any

from engine.apply.links import DeviceState
from engine.cni.answer import CniError, Code, listed
from engine.errors import TowpathError
from engine.model import Prefix
from engine.node import Node
from engine.pod.attach import routes_of
from engine.pod.residents import Attachment


def check_previous(previous: Mapping[str, Any], attachment: Attachment) -> frozenset[Prefix]:
    """The routes of ours that prevResult still has; CniError when it is not the result of this attachment."""
    try:
        addresses = {ip_interface(entry["address"]).ip for entry in previous.get("ips") or ()}
        routes = {ip_network(entry["dst"], strict=False) for entry in previous.get("routes") or ()}
        devices = {entry["name"] for entry in previous.get("interfaces") or () if entry.get("sandbox")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CniError(Code.INVALID_CONFIGURATION, "prevResult is not a result", repr(error)[:200]) from error
    if attachment.interface not in devices:
        raise CniError(Code.NOT_AS_ADDED, f"prevResult has no interface {attachment.interface}")
    missing = [address for address in attachment.ip_addresses() if address not in addresses]
    if missing:
        raise CniError(Code.NOT_AS_ADDED, f"prevResult lacks our addresses: {listed(missing)}")
    return frozenset(routes_of(attachment.as_pod())) & routes


def check_device(node: Node, attachment: Attachment, routes: Collection[Prefix]) -> None:
    """CniError unless the device stands, is up and ours, has its addresses and `routes`, and forwards."""
    if node.residents.is_gone(attachment.key):
        raise CniError(Code.UNKNOWN_CONTAINER, f"network namespace {attachment.namespace} is gone")
    try:
        state = node.pod_device(attachment.pod)
    except TowpathError as error:
        raise CniError(Code.NOT_AS_ADDED, f"pod {attachment.pod} is not attached", str(error)) from error
    problem = _difference(state, attachment, routes)
    if problem:
        raise CniError(Code.NOT_AS_ADDED, f"interface {attachment.interface} {problem}", attachment.namespace)
    if not attachment.ipam:
        held = set(node.addresses.given_to(attachment.handle))
        lost = [address for address in attachment.ip_addresses() if address not in held]
        if lost:
            raise CniError(Code.NOT_AS_ADDED, f"not reserved any more: {listed(lost)}", "see towpath ipam check")


def _difference(state: DeviceState | None, attachment: Attachment, routes: Collection[Prefix]) -> str:
    if state is None:
        return "is gone"
    if not state.up:
        return "is down"
    present = {interface.ip for interface in state.addresses}
    lacking = [address for address in attachment.ip_addresses() if address not in present]
    if lacking:
        return f"has lost {listed(lacking)}"
    lost = [prefix for prefix in routes if prefix not in state.routes]
    return f"has lost the routes {listed(lost)}" if lost else ""
