"""What is said on the control socket: one JSON object a line, typed.

Owns: the methods, their parameters, and the frame of request and answer; what
an answer holds is declared in engine/views.py.
Never: does anything.
Invariant: a field is only ever added, with a default; `PROTOCOL` counts up
when that rule must be broken.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from engine import views

PROTOCOL = 1
REQUEST_LIMIT = 64 * 1024  # bytes of one request line, its end included
ANSWER_LIMIT = 16 * 1024 * 1024  # bytes of one answer line
ROUTES_LIMIT = 50_000  # routes of one answer
RULES_LIMIT = 40_000
FLOWS_LIMIT = 20_000

READING = frozenset({"version", "health", "status", "routes", "route_get", "peers", "pods", "counters", "drops"})
READING |= {"cni", "ipam", "ipam_check"}
READING |= {"policy_explain", "policy_rules", "policy_list", "flows"}
CHANGING = frozenset({"reload", "ipam_release", "policy_apply", "policy_delete"})
SUCCEEDING = frozenset({"takeover", "upgrade"})  # for root and the daemon's own user alone


class Request(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: int = 0


class Fault(msgspec.Struct):
    """Why a request was not answered; `exit_code` is that of engine.errors."""

    what: str
    where: str = ""
    remedy: str = ""
    exit_code: int = 1


class Answer(msgspec.Struct, omit_defaults=True):
    id: int = 0
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Fault | None = None


# -- parameters ----------------------------------------------------------------
class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    pass


class RoutesParameters(msgspec.Struct, forbid_unknown_fields=True):
    within: str = ""  # only routes inside this prefix
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)] = 0
    limit: Annotated[int, msgspec.Meta(ge=0, le=ROUTES_LIMIT)] = 10_000


class ExplainParameters(msgspec.Struct, forbid_unknown_fields=True):
    source: str  # namespace/pod, a host endpoint, or an address
    destination: str
    service: str = ""  # tcp/80, udp/53, icmp/8/0, 47
    source_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 49_152


class RulesParameters(msgspec.Struct, forbid_unknown_fields=True):
    policy: str = ""  # part of its name
    counted: bool = False  # only those that did something
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)] = 0
    limit: Annotated[int, msgspec.Meta(ge=0, le=RULES_LIMIT)] = 10_000


class FlowsParameters(msgspec.Struct, forbid_unknown_fields=True):
    within: list[str] = []  # pods, addresses or prefixes, one of which holds one of both ends
    protocol: str = ""
    port: Annotated[int, msgspec.Meta(ge=-1, le=65_535)] = -1
    denied: bool = False
    cursor: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=FLOWS_LIMIT)] = 1000


class ApplyParameters(msgspec.Struct, forbid_unknown_fields=True):
    text: str  # YAML or JSON


class DeleteParameters(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    name: str
    namespace: str = "default"


class RouteGetParameters(msgspec.Struct, forbid_unknown_fields=True):
    address: str


class TakeoverParameters(msgspec.Struct):
    """Of a successor, maybe a later version: what it does not know yet is no mistake."""

    newest: int
    oldest: int
    version: str = ""


class AddressParameters(msgspec.Struct, forbid_unknown_fields=True):
    address: str


PARAMETERS: dict[str, type[msgspec.Struct]] = {
    **dict.fromkeys(READING | CHANGING, NoParameters),
    "routes": RoutesParameters,
    "route_get": RouteGetParameters,
    "takeover": TakeoverParameters,
    "upgrade": NoParameters,
    "ipam_release": AddressParameters,
    "policy_explain": ExplainParameters,
    "policy_rules": RulesParameters,
    "flows": FlowsParameters,
    "policy_apply": ApplyParameters,
    "policy_delete": DeleteParameters,
}
RESULTS: dict[str, type[msgspec.Struct]] = {
    "version": views.Version,
    "health": views.Health,
    "status": views.Status,
    "routes": views.Routes,
    "route_get": views.RouteGet,
    "peers": views.Peers,
    "pods": views.Pods,
    "counters": views.Counters,
    "drops": views.Drops,
    "reload": views.Reload,
    "takeover": views.Takeover,
    "upgrade": views.Upgrade,
    "cni": views.Cni,
    "ipam": views.Ipam,
    "ipam_check": views.IpamCheck,
    "ipam_release": views.IpamReleased,
    "policy_explain": views.Explanation,
    "policy_rules": views.Rules,
    "policy_list": views.PolicyDocuments,
    "policy_apply": views.PolicyDocuments,
    "policy_delete": views.PolicyDocuments,
    "flows": views.Flows,
}
