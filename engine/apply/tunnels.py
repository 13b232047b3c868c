"""The sockets of the tunnels, opened and closed as they are wanted.

Owns: which sockets are open for which tunnel.
Never: decides which tunnels there are, or what leads through one.
Invariant: an open port here is attached to the plane, and no tunnel has two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from engine.apply.delta import Kind
from engine.apply.plane import Forwarding
from engine.apply.refusal import refusal
from engine.model import TunnelPort

if TYPE_CHECKING:
    from engine.apply.plane import Port


@dataclass(slots=True)
class TunnelDriver:
    """Opens and closes the tunnels' sockets."""

    forwarding: Forwarding
    open_tunnel: Callable[[TunnelPort], Port]
    kind: Kind = Kind.TUNNEL
    drifts: bool = True
    _open: dict[Hashable, tuple[TunnelPort, Port]] = field(default_factory=dict)

    def actual(self) -> Mapping[Hashable, object]:
        return {key: value for key, (value, _) in self._open.items()}

    def set(self, key: Hashable, value: object) -> None:
        wanted = cast(TunnelPort, value)
        entry = self._open.get(key)
        if entry is not None and replace(entry[0], offload=wanted.offload) == wanted:
            self._open[key] = wanted, entry[1]  # its sockets are as they should be
            return
        self.remove(key)  # two sockets cannot hold one port
        try:
            port = self.open_tunnel(wanted)
        except OSError as error:
            raise refusal(error, where=f"tunnel {wanted.key}", doing="cannot open the socket") from error
        try:
            self.forwarding.attach(("tunnel", wanted.key), port)
        except BaseException:
            port.close()
            raise
        self._open[key] = wanted, port

    def remove(self, key: Hashable) -> None:
        entry = self._open.pop(key, None)
        if entry is not None:
            self.forwarding.detach(("tunnel", entry[0].key))
            entry[1].close()

    def adopt(self, wanted: TunnelPort, port: Port) -> None:
        """Go on with sockets that another process opened and `adopt_tunnel` took."""
        self.forwarding.attach(("tunnel", wanted.key), port)
        self._open[wanted.key] = wanted, port

    def release(self) -> None:
        """Let go of every socket, for a successor that has them too."""
        for _, port in self._open.values():
            port.close()

    def lost(self, key: str) -> None:
        """The socket failed: close it, so that the next pass opens another."""
        self.remove(key)
