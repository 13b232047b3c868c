"""What is said back to a runtime: results in the form of each version, and errors with their codes.

Owns: the supported versions, the error codes, and the JSON of results.
Never: decides what went wrong.
Invariant: an answer is in the version that was asked in, or in the newest
when that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from engine.model import Address, Prefix

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
NO_MAC = "00:00:00:00:00:00"  # a TUN device has no link-layer address, and some runtimes insist on parsing one


class Code(IntEnum):
    """The codes of the specification, and our own from 100 on."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    FAILED = 100  # the kernel refused
    INTERFACE_EXISTS = 101
    NO_ADDRESS = 102
    ADDRESS_TAKEN = 103
    NOT_AS_ADDED = 104  # CHECK found a difference
    DELEGATE_FAILED = 105
    PORT_TAKEN = 106
    INTERNAL = 999  # a fault of ours, as runtimes call theirs


class CniError(Exception):
    def __init__(self, code: Code | int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = int(code)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.details}" if self.details else self.message


@dataclass(frozen=True, slots=True)
class Reply:
    """What the shim prints, and the exit code it ends with."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """An interface and what belongs to it."""

    interface: str
    sandbox: str
    mtu: int
    addresses: tuple[Address, ...]
    routes: tuple[Prefix, ...]
    dns: Mapping[str, Any] = field(default_factory=dict)


def success(result: Result, version: str) -> Reply:
    interface: dict[str, Any] = {"name": result.interface, "mac": NO_MAC, "sandbox": result.sandbox}
    if version >= "1.1.0":
        interface["mtu"] = result.mtu
    body = {
        "cniVersion": version,
        "interfaces": [interface],
        "ips": [_ip(address, version) for address in result.addresses],
        "routes": [_route(prefix, version) for prefix in result.routes],
        "dns": dict(result.dns),
    }
    return Reply(0, msgspec.json.encode(body))


def nothing() -> Reply:
    """The verbs without output."""
    return Reply(0, b"")


def versions(asked: str) -> Reply:
    return Reply(0, msgspec.json.encode({"cniVersion": asked, "supportedVersions": VERSIONS}))


def failure(error: CniError, version: str) -> Reply:
    body = {"cniVersion": version, "code": error.code, "msg": error.message, "details": error.details}
    return Reply(1, msgspec.json.encode(body))


def _ip(address: Address, version: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"address": f"{address}/{address.max_prefixlen}", "interface": 0}
    return entry if version >= "1.0.0" else {"version": str(address.version), **entry}


def _route(prefix: Prefix, version: str) -> dict[str, Any]:
    if version >= "1.1.0" and prefix.version == 4:
        return {"dst": str(prefix), "scope": _SCOPE_LINK}
    return {"dst": str(prefix)}


_SCOPE_LINK = 253


def listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)
