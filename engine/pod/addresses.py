"""The addresses of one node's pods: the allocator over a journal in the state directory, set up by the configuration.

Owns: which addresses of the node may be given away, and the comparison of the
addresses in use with the pods that use them.
Never: attaches a pod.
Invariant: after `settle` every attachment that has its addresses from us has
them taken, and nothing else is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.model import Address
from engine.pod.ipam.allocator import Allocator, Settings, TakenError
from engine.pod.ipam.pool import exclusion, pool_of
from engine.pod.residents import Residents
from engine.pod.store import FileStore, Store

log = logging.getLogger(__name__)


class Addresses(Allocator):
    """An allocator that heeds the configuration: pools, reserved ranges, gateways, and the pods of the file."""

    def __init__(self, store: Store, config: Config, *, close: Callable[[], None] = lambda: None) -> None:
        super().__init__(store, settings_of(config))
        self.close = close
        self._configured: Config | None = config

    def configure(self, config: Config) -> None:
        if config is not self._configured:
            self.settings, self._configured = settings_of(config), config

    def settle(self, residents: Residents) -> None:
        """Give back what no attachment uses, and take again what one uses: a crash may have come between the two."""
        used: dict[Address, str] = {}
        for attachment in residents.attachments:
            if not attachment.ipam:
                used.update(dict.fromkeys(attachment.ip_addresses(), attachment.handle))
        for given in list(self.given()):
            if given.taken.handle != used.get(given.address):
                log.info("giving back %s, which %s had", given.address, given.taken.handle)
                self.release(given.taken.handle, [given.address])
        present = {given.address for given in self.given()}
        for address, handle in used.items():
            if address not in present:
                self._take_again(address, handle)

    def _take_again(self, address: Address, handle: str) -> None:
        try:
            self.assign(handle, (), wanted=[address])
        except TakenError as error:
            log.warning("address %s of %s: %s", address, handle, error)


def open_addresses(directory: Path, config: Config) -> Addresses:
    store = FileStore(directory / "addresses.journal")
    return Addresses(store, config, close=store.close)


def settings_of(config: Config) -> Settings:
    ipam, prefixes = config.ipam, config.node.prefixes
    taken = [*config.gateways.values(), *(address for pod in config.pods for address in pod.addresses)]
    return Settings(
        node=config.node.name or "",
        pools=tuple(pool_of(prefix, ipam.block4, ipam.block6) for prefix in ipam.pools or prefixes),
        excluded=exclusion(prefixes, ipam.reserved, taken),
        forbidden=exclusion(prefixes, (), taken),
        reserved=ipam.reserved,
        cooldown=float(ipam.cooldown),
        borrow=ipam.borrow,
    )
