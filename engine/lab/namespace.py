"""A network namespace without a name, and the thread that lives in it.

Owns: one namespace, held open by a descriptor, and one thread that has entered it.
Never: binds the namespace to a file, so that nothing outlives the process
(the kernel removes it with the last descriptor, socket and process in it).
Invariant: code given to `call` runs in the namespace; no other thread ever enters it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from engine import netns
from engine.errors import KernelError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Namespace:
    """A new network namespace. `path` names it for other processes while this one lives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._netlink: Any = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"netns-{name}")
        try:
            self._thread = self._worker.submit(threading.get_ident).result()
            self.descriptor = self._worker.submit(_unshared).result()
        except OSError as error:
            self._worker.shutdown()
            raise KernelError(
                f"cannot make a network namespace: {error.strerror}",
                where=name,
                remedy="run as root, or allow unprivileged user namespaces",
            ) from error

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Run `function` inside the namespace and return what it returns."""
        if threading.get_ident() == self._thread:
            return function(*args, **kwargs)
        return self._worker.submit(function, *args, **kwargs).result()

    def netlink(self, function: Callable[[Any], Result]) -> Result:
        """Run `function(ipr)` inside the namespace with its pyroute2 IPRoute socket."""
        return self.call(lambda: function(self._open_netlink()))

    def _open_netlink(self) -> Any:
        if self._netlink is None:
            from pyroute2.iproute.linux import IPRoute

            self._netlink = IPRoute()  # type: ignore[no-untyped-call]
        return self._netlink

    def close(self) -> None:
        """Let go of the namespace. Idempotent."""
        if self.descriptor < 0:
            return
        if self._netlink is not None:
            self.call(self._netlink.close)
        self._worker.shutdown()
        os.close(self.descriptor)
        self.descriptor = -1


def _unshared() -> int:
    netns.unshare(netns.NEWNET)
    return netns.current()
