"""What a daemon and its successor say to each other.

Owns: the messages, their order, and the rule by which versions understand each other.
Never: does anything.

    successor                        running daemon
    ---------                        --------------
    takeover (control request)  ->
                                <-   its format and process number
    Hello                       ->
                                <-   Offer: every port, listener and lock, as descriptors
    Ready                       ->                              it still forwards until here
                                <-   Go: it has stopped forwarding; what it knows of connections
    Running                     ->   it ends

Invariants: a field is only ever added, with a default, so that neighbouring
versions understand each other; FORMAT counts up when that rule must be broken,
and the older format is spoken for one version more (OLDEST_FORMAT). Before
`Running` either side may end the conversation, and the old one goes on.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

FORMAT = 1
OLDEST_FORMAT = 1


class PortItem(msgspec.Struct):
    """A port: whose it is, how many of the descriptors are its own, and what cannot be seen from outside."""

    kind: Literal["tunnel", "pod", "host"]
    name: str
    descriptors: Annotated[int, msgspec.Meta(ge=1, le=256)]
    granted: int = 0
    namespace: tuple[int, int] | None = None


class Hello(msgspec.Struct, tag=True):
    format: int = FORMAT


class Offer(msgspec.Struct, tag=True):
    """The descriptors that come with it: those of `ports` in order, then one for each of `others`."""

    ports: list[PortItem]
    others: list[str] = []  # "lock", "control", "cni", "health"; "process", readable once the giver has ended
    lent: list[str] = []  # of `others`, the sockets of a service manager: their files are not ours to remove


class Ready(msgspec.Struct, tag=True):
    """The successor has everything in place and has changed nothing."""


class Go(msgspec.Struct, tag=True):
    """Forward now. With it comes what is known of connections: a descriptor of memory for each of `known`."""

    stopped_ns: int  # CLOCK_MONOTONIC when the last worker had stopped
    known: list[str] = []  # "flows", "detours", "open_ranges", "pods": whose the flows are


class Running(msgspec.Struct, tag=True):
    """The successor forwards."""


class Refusal(msgspec.Struct, tag=True):
    """This side gives up; the running daemon goes on."""

    what: str = ""


Message = Hello | Offer | Ready | Go | Running | Refusal
