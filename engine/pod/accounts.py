"""The addresses of the node's pods as a person asks for them: what is in use, by whom, and what does not fit together.

Owns: the comparison of addresses taken, attachments, and the pods of the file.
Never: changes anything but what `release` is asked to.
Invariant: an address that an attached pod has is never released here.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine import views
from engine.config import Config
from engine.errors import TowpathError
from engine.model import Address
from engine.pod.addresses import Addresses
from engine.pod.ipam.allocator import Given
from engine.pod.ipam.pool import Pool
from engine.pod.residents import Attachment, Residents

LONGEST_LIST = 65536  # addresses of one answer


def show(addresses: Addresses, residents: Residents) -> views.Ipam:
    """Pools and their fill, and every address in use with its pod."""
    pods = {attachment.handle: attachment.pod for attachment in residents.attachments}
    given = list(addresses.given())
    return views.Ipam(
        pools=[_pool(addresses, pool, given) for pool in addresses.settings.pools],
        addresses=[_address(entry, pods) for entry in given[:LONGEST_LIST]],
        total=len(given),
    )


def check(addresses: Addresses, residents: Residents, config: Config) -> views.IpamCheck:
    """Addresses without a pod, pods without their address, and addresses that two have."""
    return views.IpamCheck(list(_leaks(addresses, residents, config)))


def release(addresses: Addresses, residents: Residents, address: Address) -> views.IpamReleased:
    """Give back an address that no attached pod has; TowpathError when one has it."""
    where = f"address {address}"
    for attachment in residents.attachments:
        if address in attachment.ip_addresses():
            remedy = "delete the container; its address is given back then"
            raise TowpathError(f"belongs to pod {attachment.pod}", where=where, remedy=remedy)
    return views.IpamReleased(str(address), addresses.release_address(address) or "")


def _leaks(addresses: Addresses, residents: Residents, config: Config) -> Iterator[views.IpamLeak]:
    attachments = residents.attachments
    handles = {attachment.handle for attachment in attachments}
    taken = {entry.address: entry.taken.handle for entry in addresses.given()}
    for address, handle in taken.items():
        if handle not in handles:
            yield _leak("leaked", address, handle, f"towpath ipam release {address}")
        elif not any(address in pool.prefix for pool in addresses.settings.pools):
            yield _leak("outside", address, handle, "it is in no pool of ipam.pools any more")
    owners: dict[Address, str] = {address: pod.name for pod in config.pods for address in pod.addresses}
    for attachment in attachments:
        if not (attachment.ipam and attachment.leaving):  # its plugin may have given them to another pod
            yield from _leaks_of(attachment, taken, owners)
        if residents.is_gone(attachment.key):
            for first in attachment.ip_addresses()[:1]:  # none, when a plugin may have given some and did not say
                remedy = "its namespace is gone; it is removed within a minute or two"
                yield _leak("gone", first, attachment.handle, remedy)


def _leaks_of(
    attachment: Attachment, taken: dict[Address, str], owners: dict[Address, str]
) -> Iterator[views.IpamLeak]:
    for address in attachment.ip_addresses():
        if not attachment.ipam and taken.get(address) != attachment.handle:
            yield _leak("missing", address, attachment.handle, "it is taken again when the daemon starts")
        if address in owners:
            yield _leak("twice", address, attachment.handle, f"pod {owners[address]} of the file has it too")
        owners[address] = attachment.pod


def _leak(kind: str, address: Address, handle: str, remedy: str) -> views.IpamLeak:
    return views.IpamLeak(kind, str(address), handle, remedy)


def _pool(addresses: Addresses, pool: Pool, given: list[Given]) -> views.IpamPool:
    blocks = [block for _, block in addresses.blocks() if block.network.network_address in pool.prefix]
    kept = sum(1 for block in blocks for free in block.free if free.sticky)
    bits = pool.prefix.max_prefixlen - pool.prefix.prefixlen
    return views.IpamPool(
        prefix=str(pool.prefix),
        block_length=pool.block_length,
        blocks=len(blocks),
        size=f"{1 << bits}" if bits < 32 else f"2^{bits}",
        used=sum(1 for entry in given if entry.address in pool.prefix),
        kept=kept,
        has_free=addresses.has_free(pool.version, (pool.prefix,)),
    )


def _address(entry: Given, pods: dict[str, str]) -> views.IpamAddress:
    taken = entry.taken
    return views.IpamAddress(str(entry.address), taken.handle, taken.since, pods.get(taken.handle, ""), taken.sticky)
