"""The errors of the control plane: each says what is wrong, where, and what to do about it."""

from __future__ import annotations


class TowpathError(Exception):
    """Base of all. `where` names the place (file and key, device, address), `remedy` the next step."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.remedy})" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class ConfigError(TowpathError):
    """The configuration cannot be accepted; nothing was changed.

    `key` and `line` repeat the place in parts (0: no line). `also` holds the
    further mistakes of the same text, so that all can be mended at once.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        key: str = "",
        line: int = 0,
        also: tuple[ConfigError, ...] = (),
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.key = key
        self.line = line
        self.also = also

    @property
    def mistakes(self) -> tuple[ConfigError, ...]:
        """Every mistake, this one first."""
        return (self, *self.also)

    def __str__(self) -> str:
        return "\n".join((super().__str__(), *map(str, self.also)))


class KernelError(TowpathError):
    """The kernel refused: no permission, no TUN, no such namespace, a port in use."""

    exit_code = 3


class UnreachableDaemonError(TowpathError):
    """No daemon answers on the control socket."""

    exit_code = 4
