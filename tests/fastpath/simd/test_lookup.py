"""Every bulk kernel this processor can run, against the linear twin and against each other."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network
from random import Random

import numpy as np
import pytest

from fastpath.simd import lookup
from fastpath.table.fib import Fib
from fastpath.table.qsbr import Reclaimer
from tests.cy import probe_lookup
from tests.fastpath.table.linear import Linear, as_array, edge_addresses, random_prefix

FIND = {4: probe_lookup.find4, 6: probe_lookup.find6}
CAMPAIGN = 100_000_000
LARGEST = 2**31 - 1  # such values look like references but for their first bit


def table(version: int, seed: int, most: int, n: int = 200) -> tuple[Linear, Fib]:
    random = Random(seed)
    twin, fib = Linear(version), Fib(Reclaimer())
    bases = [random.getrandbits(twin.bits) for _ in range(random.choice([1, 4, 30]))]
    if version == 6:  # half of them where global unicast is, which the kernels treat apart
        bases = [b & 2**125 - 1 | 1 << 125 if random.random() < 0.5 else b for b in bases]
    for _ in range(n):
        prefix = random_prefix(random, twin.bits, bases)
        twin.routes[prefix] = random.randint(1, most)
        fib.insert((IPv4Network if version == 4 else IPv6Network)(prefix), twin.routes[prefix])
    return twin, fib


def addresses_near(twin: Linear, random: Random, n: int) -> np.ndarray:
    """Edges of routes, hosts inside them, and anything at all."""
    routes = list(twin.routes)
    found = edge_addresses(routes, twin.bits)
    while len(found) < n:
        start, length = random.choice(routes)
        found.append(start | random.getrandbits(twin.bits - length) if length < twin.bits else start)
        found.append(random.getrandbits(twin.bits))
    return as_array(twin.version, random.sample(found, n))


def test_at_least_the_portable_kernels_are_there():
    assert lookup.available()[0] == "scalar"
    assert set(lookup.in_use().values()) <= set(lookup.available())


@pytest.mark.parametrize("kernel", lookup.available())
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("seed", "most"), [(1, 250), (2, 250), (3, 250), (4, 100_000), (5, 100_000), (6, LARGEST), (7, LARGEST)])
def test_a_kernel_answers_as_the_twin(kernel, version, seed, most):
    twin, fib = table(version, seed, most)
    addresses = addresses_near(twin, Random(seed), 20_000)
    answers = np.empty(len(addresses), np.uint32)
    FIND[version](kernel, fib, addresses, answers)
    assert np.array_equal(answers, twin.find_many(addresses))
    assert len(np.unique(answers)) > 10


@pytest.mark.parametrize("kernel", lookup.available())
@pytest.mark.parametrize("version", [4, 6])
def test_every_length_of_batch(kernel, version):
    twin, fib = table(version, 7, 250)
    addresses = addresses_near(twin, Random(7), 4200)
    expected = twin.find_many(addresses)
    for n in [*range(140), 255, 256, 257, 271, 272, 511, 512, 513, 600, 1023, 1024, 1025, 1040, 2048, 2100, 4095, 4096, 4097, 4112]:
        answers = np.full(n + 1, 0xABADCAFE, np.uint32)
        FIND[version](kernel, fib, addresses[:n], answers[:n])
        assert np.array_equal(answers[:n], expected[:n])
        assert answers[n] == 0xABADCAFE


@pytest.mark.parametrize("kernel", lookup.available())
def test_many_hosts_in_one_slash_64(kernel):
    """Nodes deeper than the upper half of an address."""
    twin, fib = Linear(6), Fib(Reclaimer())
    base = 0xFD00_0000_0000_0001 << 64
    for i in range(1, 700):
        twin.routes[base | i * 0x10001, 128] = i
        fib.insert(IPv6Network((base | i * 0x10001, 128)), i)
    addresses = addresses_near(twin, Random(3), 2000)
    answers = np.empty(len(addresses), np.uint32)
    probe_lookup.find6(kernel, fib, addresses, answers)
    assert np.array_equal(answers, twin.find_many(addresses))


@pytest.mark.parametrize("name", lookup.available())
def test_the_environment_chooses(name):
    code = "import fastpath.plane; from fastpath.simd import lookup; print(lookup.in_use())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "FASTPATH_SIMD": name}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str({"ipv4": name, "ipv6": name}), done.stderr


@pytest.mark.skipif(lookup.available() == ["scalar"], reason="this processor has portable kernels alone")
def test_the_measurement_does_not_choose_the_slowest():
    free = {name: value for name, value in os.environ.items() if name != "FASTPATH_SIMD"}
    code = "from fastpath.simd import lookup; print(*lookup.in_use().values())"
    done = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True)
    assert "scalar" not in done.stdout and done.stdout.split(), done.stderr


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="no lookup kernels 'mmx'"):
        lookup.use("mmx")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("version", [4, 6])
def test_no_mismatch_in_a_hundred_million(version):
    """CAMPAIGN lookups for each kernel, over tables of many shapes."""
    done, seed = 0, 1000
    while done < CAMPAIGN:
        random = Random(seed)
        twin, fib = table(version, seed, random.choice([250, 100_000, LARGEST]), random.choice([5, 60, 200]))
        some = addresses_near(twin, random, 4000)
        # each address again with its low bits changed: near what was asked, and new
        addresses = np.repeat(some, 250, axis=0)
        noise = np.random.default_rng(seed)
        shift = noise.integers(0, 32, len(addresses))
        if version == 4:
            addresses ^= (noise.integers(0, 2**32, len(addresses), dtype=np.uint64) >> shift.astype(np.uint64)).astype(np.uint32)
        else:
            addresses[:, seed % 2] ^= noise.integers(0, 2**64, len(addresses), dtype=np.uint64) >> (shift * 2).astype(np.uint64)
        expected = twin.find_many(addresses)
        answers = np.empty(len(addresses), np.uint32)
        for kernel in lookup.available():
            FIND[version](kernel, fib, addresses, answers)
            assert np.array_equal(answers, expected), (kernel, seed)
        done += len(addresses)
        seed += 1
