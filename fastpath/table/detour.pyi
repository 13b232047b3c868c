"""The memory of the detours, and how it travels to the next process."""

class Detours:
    def export(self) -> bytes:
        """The connections whose replies go through the host, for `load` in another process."""
    def load(self, data: bytes) -> None:
        """Take over an export, before any packet. ValueError for anything else, and nothing changed."""
