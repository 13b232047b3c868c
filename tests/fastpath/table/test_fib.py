"""The compiled tables against the linear twin, one change at a time, and what becomes of their memory."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

import numpy as np
import pytest

import fastpath
from fastpath.table.fib import Fib
from fastpath.table.qsbr import Reclaimer
from tests.fastpath.table.linear import BITS, Linear, as_array, edge_addresses, random_prefix

NETWORK = {4: IPv4Network, 6: IPv6Network}
ADDRESS = {4: IPv4Address, 6: IPv6Address}
ROOT = 32 + 4 * 65536  # of a version of either family
EMPTY = {"routes": 0, "ipv4": ROOT, "ipv6": ROOT}


def change(random: Random, twin: Linear, fib: Fib, bases: list[int], most: int) -> None:
    if twin.routes and random.random() < 0.4:
        prefix = random.choice(list(twin.routes))
        assert fib.remove(NETWORK[twin.version](prefix)) == twin.routes.pop(prefix)
        return
    prefix = random_prefix(random, twin.bits, bases)
    twin.routes[prefix] = random.randint(1, most)
    fib.insert(NETWORK[twin.version](prefix), twin.routes[prefix])


def compare(random: Random, twin: Linear, fib: Fib) -> None:
    known = random.sample(list(twin.routes), min(4, len(twin.routes)))
    for address in [*edge_addresses(known, twin.bits), random.getrandbits(twin.bits)]:
        expected = twin.find(address)
        assert fib.find(ADDRESS[twin.version](address)) == expected
        match = fib.longest(ADDRESS[twin.version](address))
        assert (match[1] if match else 0) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("seed", range(30))
def test_every_change_shows_as_in_the_twin(version, seed):
    random = Random(seed)
    twin, reclaimer = Linear(version), Reclaimer()
    fib = Fib(reclaimer)
    bases = [random.getrandbits(twin.bits) for _ in range(random.choice([1, 3, 20]))]
    most = random.choice([2, 300, 40_000])
    for step in range(250):
        change(random, twin, fib, bases, most)
        if step % 5 == 0:
            compare(random, twin, fib)
    listed = [((int(n.network_address), n.prefixlen), value) for n, value in fib.items()]
    assert listed == sorted(twin.routes.items())
    for prefix in random.sample(list(twin.routes), len(twin.routes)):
        fib.remove(NETWORK[version](prefix))
    reclaimer.synchronize()
    assert reclaimer.waiting == 0
    assert fib.memory == EMPTY


@pytest.mark.parametrize("version", [4, 6])
def test_all_short_prefixes_and_their_withdrawal(version):
    bits = BITS[version]
    twin, fib = Linear(version), Fib(Reclaimer())
    for length in range(9):
        for i in range(1 << length):
            twin.routes[i << (bits - length), length] = length * 256 + i + 1
    for prefix, value in Random(1).sample(list(twin.routes.items()), len(twin.routes)):
        fib.insert(NETWORK[version](prefix), value)
    for length in range(8, -1, -1):
        for i in range(256):
            address = i << (bits - 8)
            assert fib.find(ADDRESS[version](address)) == length * 256 + (i >> (8 - length)) + 1
        for i in range(1 << length):
            fib.remove(NETWORK[version]((i << (bits - length), length)))
    assert len(fib) == 0


def test_the_families_do_not_meet():
    fib = Fib(Reclaimer())
    fib.insert(IPv6Network("2000::/8"), 6)
    assert fib.find(IPv4Address("32.0.0.1")) == 0
    fib.insert(IPv4Network("0.0.0.0/0"), 4)
    assert fib.find(IPv6Address("::1")) == 0
    assert fib.find(IPv6Address("2001::1")) == 6


def compiled(fib: Fib) -> int:
    """Bytes of the one version that is left when nobody reads."""
    assert fib.reclaimer.reclaim() == 0
    return fib.memory["ipv4"]


def test_a_large_value_widens_its_array_only_and_goes_with_it():
    fib = Fib(Reclaimer())
    fib.insert(IPv4Network("10.0.0.0/24"), 255)
    fib.insert(IPv4Network("10.1.0.0/24"), 255)
    narrow = compiled(fib)
    fib.insert(IPv4Network("10.0.1.0/24"), 256)
    middle = compiled(fib)
    fib.insert(IPv4Network("10.0.2.0/24"), 2**31 - 1)
    wide = compiled(fib)
    assert [middle - narrow, wide - narrow] == [256, 768]
    assert [fib.find(IPv4Address(f"10.0.{i}.7")) for i in range(4)] == [255, 256, 2**31 - 1, 0]
    fib.remove(IPv4Network("10.0.2.0/24"))
    fib.insert(IPv4Network("10.0.1.0/24"), 1)
    for i in range(16):  # within so many changes the array is made anew
        fib.insert(IPv4Network("10.0.0.0/24"), 100 + i)
    assert compiled(fib) == narrow


def test_an_ipv6_array_widens_with_its_values_becomes_a_node_and_an_array_again():
    fib = Fib(Reclaimer())
    bytes_now = lambda: fib.reclaimer.reclaim() or fib.memory["ipv6"] - ROOT  # noqa: E731
    for i in range(40):
        fib.insert(IPv6Network((0x2001_0DB8_0000 << 80 | i << 80, 48)), i + 1)
    narrow = bytes_now()
    steps = {}
    for value in (256, 2**31 - 1):
        fib.insert(IPv6Network("2001:db8:7::/48"), value)
        steps[value] = bytes_now() - narrow
    assert steps == {256: 256, 2**31 - 1: 768}
    fib.insert(IPv6Network("2001:db8:9:100::/56"), 77)
    assert [fib.find(IPv6Address(f"2001:db8:{i:x}:100::1")) for i in (7, 9, 39, 40)] == [2**31 - 1, 77, 40, 0]
    fib.remove(IPv6Network("2001:db8:9:100::/56"))
    for i in range(16):  # within so many changes what is wider than it must be is made anew
        fib.insert(IPv6Network("2001:db8:7::/48"), 100 + i)
    assert bytes_now() == narrow
    assert fib.find(IPv6Address("2001:db8:9:100::1")) == 10


@pytest.mark.parametrize("seed", range(20))
def test_batches_where_arrays_buckets_and_nodes_turn_into_each_other(seed):
    """Many changes at a time below one IPv6 /32 and one IPv4 /16, of lengths around the ends of bytes."""
    random = Random(seed)
    for version, free, lengths in ((4, 16, range(17, 33)), (6, 96, range(33, 60))):
        bits = BITS[version]
        base = 10 << 24 if version == 4 else 0x2001_0DB8 << 96
        twin, fib = Linear(version), Fib(Reclaimer())
        for _ in range(40):
            routes = {}
            for _ in range(random.choice([1, 3, 40])):
                length = random.choice(lengths)
                address = base | random.getrandbits(3) << (free - 8) | random.getrandbits(6) << (free - 16)
                prefix = address >> (bits - length) << (bits - length), length
                gone = prefix in twin.routes and random.random() < 0.5
                routes[random.choice([prefix, *random.sample(list(twin.routes), min(1, len(twin.routes)))])] = (
                    0 if gone else random.choice([1, 255, 256, 65_536, 2**31 - 1]))
            twin.routes |= routes
            for prefix in [prefix for prefix, value in routes.items() if value == 0]:
                del twin.routes[prefix]
            addresses = as_array(version, [a for a, _ in routes])
            fib.change(version, addresses, np.array([n for _, n in routes], np.uint8), np.array(list(routes.values()), np.uint32))
            compare(random, twin, fib)
        fib.clear()


def test_many_long_routes_become_one_array_and_few_do_not():
    """A /16 of thousands of hosts is read in one step; one with a single host costs less than 4 KiB."""
    one, many = Fib(Reclaimer()), Fib(Reclaimer())
    one.insert(IPv4Network("10.0.0.1/32"), 1)
    hosts = np.uint32(10 << 24) + np.random.default_rng(1).permutation(65536)[:3000].astype(np.uint32)
    for host in hosts.tolist():
        many.insert(IPv4Network((host, 32)), host & 0xFF or 1)
    assert compiled(one) - ROOT < 4096
    assert compiled(many) - ROOT == 65536
    present = set(hosts.tolist())
    for host in range(10 << 24, (10 << 24) + 65536, 7):
        assert many.find(IPv4Address(host)) == ((host & 0xFF or 1) if host in present else 0)


def test_many_thousands_of_separate_hosts():
    fib = Fib(Reclaimer())
    n = 40_000
    addresses = (np.arange(n, dtype=np.uint64) * 90_001 * 256 % 2**32 & 0xFFFFFF00).astype(np.uint32)
    addresses = np.unique(addresses) + np.uint32(1)
    values = np.arange(1, len(addresses) + 1, dtype=np.uint32) % 30_000 + 1
    fib.load(4, addresses, np.full(len(addresses), 32, np.uint8), values)
    for i in range(0, len(addresses), 997):
        assert fib.find(IPv4Address(int(addresses[i]))) == values[i]
        assert fib.find(IPv4Address(int(addresses[i]) + 1)) == 0


def test_loading_equals_inserting():
    random = Random(5)
    bases = [random.getrandbits(128) for _ in range(20)]
    routes = {random_prefix(random, 128, bases): random.randint(1, 99) for _ in range(3000)}
    one, many = Fib(Reclaimer()), Fib(Reclaimer())
    for prefix, value in routes.items():
        one.insert(IPv6Network(prefix), value)
    many.load(
        6,
        np.array([(a >> 64, a & 2**64 - 1) for a, _ in routes], np.uint64),
        np.array([length for _, length in routes], np.uint8),
        np.array(list(routes.values()), np.uint32),
    )
    assert one.items() == many.items()
    assert one.reclaimer.reclaim() == many.reclaimer.reclaim() == 0
    assert one.memory["ipv6"] == many.memory["ipv6"]


@pytest.mark.parametrize(
    ("address", "length", "value", "words"),
    [
        (0x0A000001, 8, 1, "route 1: bits set behind the prefix length 8"),
        (0x0A000000, 33, 1, r"route 1: length 33 is not 0\.\.32"),
        (0x0A000000, 8, 0, "route 1: value 0 is not"),
        (0x0A000000, 8, 2**31, "route 1: value 2147483648 is not"),
    ],
)
def test_a_wrong_route_in_an_array_changes_nothing(address, length, value, words):
    fib = Fib(Reclaimer())
    fib.insert(IPv4Network("10.0.0.0/8"), 7)
    before = fib.items()
    with pytest.raises(ValueError, match=words):
        fib.load(
            4,
            np.array([0x0B000000, address], np.uint32),
            np.array([8, length], np.uint8),
            np.array([1, value], np.uint32),
        )
    assert fib.items() == before


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (4, 0)])
def test_ipv6_addresses_that_are_not_two_halves_are_refused(shape):
    fib = Fib(Reclaimer())
    with pytest.raises(ValueError, match=f"two halves, not {shape[1]}"):
        fib.load(6, np.zeros(shape, np.uint64), np.zeros(4, np.uint8), np.ones(4, np.uint32))
    assert fib.items() == []


@pytest.mark.parametrize("value", [0, -1, 2**31, True, "1", 1.0])
def test_values_outside_the_range_are_refused(value):
    fib = Fib(Reclaimer())
    with pytest.raises(ValueError, match="must be an integer"):
        fib.insert(IPv4Network("10.0.0.0/8"), value)
    assert len(fib) == 0


def test_what_is_not_a_route_cannot_be_withdrawn():
    fib = Fib(Reclaimer())
    fib.insert(IPv4Network("10.0.0.0/8"), 1)
    with pytest.raises(KeyError):
        fib.remove(IPv4Network("10.0.0.0/9"))
    with pytest.raises(TypeError):
        fib.remove("10.0.0.0/8")
    assert len(fib) == 1


def test_a_reader_that_stays_online_keeps_memory_and_then_frees_it():
    reclaimer = Reclaimer()
    fib = Fib(reclaimer)
    slot = reclaimer.claim()
    for i in range(10):
        fib.insert(IPv4Network((i << 24, 8)), 1)
    assert reclaimer.reclaim() == 0, "a claimed slot is offline until its reader says otherwise"
    reclaimer.release(slot)
    with pytest.raises(ValueError, match="not taken"):
        reclaimer.release(slot)


def test_slots_run_out_with_an_error():
    reclaimer = Reclaimer(workers=62)
    taken = [reclaimer.claim(), reclaimer.claim()]
    assert sorted(taken) == [62, 63]
    with pytest.raises(RuntimeError, match="all 64"):
        reclaimer.claim()
    for workers in (-1, 65):
        with pytest.raises(ValueError, match="workers must be"):
            Reclaimer(workers=workers)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("seed", range(8))
def test_many_changes_at_once_show_as_in_the_twin(version, seed):
    """Routes set and withdrawn in one transaction, fewer and more than make a new table."""
    random = Random(100 + seed)
    twin, reclaimer = Linear(version), Reclaimer()
    fib = Fib(reclaimer)
    bases = [random.getrandbits(twin.bits) for _ in range(random.choice([1, 3, 20]))]
    for n in (300, 40, 10, 200, 3, 60):
        some = random.sample(list(twin.routes), min(len(twin.routes), n // 2))
        changed = dict.fromkeys(some, 0) | {random_prefix(random, twin.bits, bases): random.randint(1, 300) for _ in range(n)}
        addresses = as_array(version, [address for address, _ in changed])
        lengths = np.array([length for _, length in changed], np.uint8)
        before = fib.change(version, addresses, lengths, np.array(list(changed.values()), np.uint32))
        assert before.tolist() == [twin.routes.get(prefix, 0) for prefix in changed]
        twin.routes = {prefix: value for prefix, value in (twin.routes | changed).items() if value}
        compare(random, twin, fib)
    fib.change(version, as_array(version, [a for a, _ in twin.routes]), np.array([n for _, n in twin.routes], np.uint8),
               np.zeros(len(twin.routes), np.uint32))  # fmt: skip
    reclaimer.synchronize()
    assert fib.memory == EMPTY


@pytest.mark.parametrize("shorter", [17, 20, 24])
@pytest.mark.parametrize("longer", [22, 24, 26, 32])
def test_one_change_brings_routes_longer_than_the_array_is_fine(shorter, longer):
    """The array that a short route is painted into cannot hold the long one that came with it, and must not try."""
    fib = Fib(Reclaimer())
    before = {IPv4Network("10.1.0.0/17"): 1, IPv4Network("10.1.128.0/17"): 2}
    for network, value in before.items():
        fib.insert(network, value)
    routes = [(f"10.1.0.0/{shorter}", 3), (f"10.1.0.0/{longer}", 4), (f"10.1.200.0/{longer}", 5)]
    after = {IPv4Network(text): value for text, value in routes}
    fib.change(
        4, np.array([int(n.network_address) for n in after], np.uint32),
        np.array([n.prefixlen for n in after], np.uint8), np.array(list(after.values()), np.uint32),
    )  # fmt: skip
    twin = Linear(4)
    twin.routes = {(int(n.network_address), n.prefixlen): value for n, value in (before | after).items()}
    for address in edge_addresses(list(twin.routes), 32):
        assert fib.find(IPv4Address(address)) == twin.find(address)


STARVED = """
import sys
import numpy as np
from fastpath.table.fib import Fib
from fastpath.table.qsbr import Reclaimer
from tests.fastpath.room import address_space, limited

version, seed = int(sys.argv[1]), int(sys.argv[2])
chance = np.random.default_rng(seed)
n = 60_000
upper = np.unique(chance.integers(1, 2**24, n, dtype=np.uint64))
def arrays(upper, low):
    if version == 4:
        return (upper << 8).astype(np.uint32), np.full(len(upper), 24, np.uint8)
    return np.stack([upper << 40 | low, np.zeros(len(upper), np.uint64)], axis=1).astype(np.uint64), np.full(len(upper), 64, np.uint8)
fib = Fib(Reclaimer())
addresses, lengths = arrays(upper, np.uint64(7))
fib.load(version, addresses, lengths, np.full(len(upper), 5, np.uint32))
before = fib.items()
more = np.setdiff1d(np.unique(chance.integers(1, 2**24, n, dtype=np.uint64)), upper)
added, added_lengths = arrays(more, np.uint64(9))
batch = np.concatenate([addresses[: len(addresses) // 2], added]), np.concatenate([lengths[: len(addresses) // 2], added_lengths])
values = np.concatenate([np.zeros(len(addresses) // 2, np.uint32), np.full(len(added), 6, np.uint32)])
used = address_space()
failed = 0
for room in (4, 6, 8, 10, 12, 16):
    try:
        with limited(used + (room << 20)):
            fib.change(version, *batch, values)
        break
    except MemoryError:
        failed += 1
    assert fib.items() == before, room
assert failed, "never starved"
print("ok", failed)
"""


@pytest.mark.skipif(fastpath.BUILD in {"asan", "tsan"}, reason="the sanitizers reserve terabytes of addresses")
@pytest.mark.parametrize("version", [4, 6])
def test_a_batch_that_runs_out_of_memory_leaves_every_route(version):
    """Half the routes withdrawn and as many new ones, in a process of its own with a few megabytes of room."""
    done = subprocess.run([sys.executable, "-c", STARVED, str(version), "1"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ok"), done.stderr


STARVED_CLEAR = """
import numpy as np
from fastpath.table.fib import Fib
from fastpath.table.qsbr import Reclaimer
from tests.fastpath.room import address_space, limited

n = 1000
upper = np.arange(1, n + 1, dtype=np.uint64)
fib = Fib(Reclaimer())
fib.load(4, (upper << 8).astype(np.uint32), np.full(n, 24, np.uint8), np.full(n, 5, np.uint32))
halves = np.stack([upper << 40, np.zeros(n, np.uint64)], axis=1).astype(np.uint64)
fib.load(6, halves, np.full(n, 64, np.uint8), np.full(n, 6, np.uint32))
before = fib.items()
hoard = []
failed = 0
with limited(address_space()):
    for size in (1 << 20, 1 << 18, 1 << 16):
        try:
            while True:
                hoard.append(bytearray(size))
        except MemoryError:
            pass
while True:
    used = address_space()
    try:
        with limited(used + (failed << 16)):
            fib.clear()
        break
    except MemoryError:
        failed += 1
    assert fib.items() == before, failed
    assert all(fib.find(network.network_address) == value for network, value in before[::50])
    fib.insert(before[0][0], 5)
assert failed, "never starved"
assert fib.items() == []
assert not any(fib.find(network.network_address) for network, _ in before)
print("ok", failed)
"""


@pytest.mark.skipif(fastpath.BUILD in {"asan", "tsan"}, reason="the sanitizers reserve terabytes of addresses")
def test_clearing_that_runs_out_of_memory_leaves_every_route():
    done = subprocess.run([sys.executable, "-c", STARVED_CLEAR], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ok"), done.stderr
