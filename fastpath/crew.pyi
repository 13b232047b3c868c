"""The workers of one plane: their memory, their descriptors, their threads."""

from fastpath.table.flow import FlowTable
from fastpath.table.qsbr import Reclaimer

class Crew:
    """As many workers as are asked for; they read no table before a plane names the tables."""

    size: int
    bell: int

    def __init__(
        self, reclaimer: Reclaimer, flows: FlowTable, *, workers: int, key: int, busy_poll_ns: int
    ) -> None: ...
    def start(self, plane: object) -> None:
        """Start a thread for each; the threads hold `plane`. RuntimeError when they run already."""
    def run(self, i: int, plane: object) -> None:
        """The body of worker thread `i`: returns after `stop`. It holds `plane`, whose tables it reads."""
    def stop(self) -> None: ...
    def turn(self) -> int: ...
    def take_notices(self) -> list[tuple[str, int]]: ...
