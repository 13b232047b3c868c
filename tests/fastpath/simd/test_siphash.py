"""Every kernel of the keyed hash, against SipHash written down in Python."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from fastpath.simd import siphash
from tests.cy import probe_flow

MASK = (1 << 64) - 1


def rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & MASK


def rounds(state: list[int], n: int) -> None:
    a, b, c, d = state
    for _ in range(n):
        a, c = (a + b) & MASK, (c + d) & MASK
        b, d = rotate(b, 13) ^ a, rotate(d, 16) ^ c
        a, c = (rotate(a, 32) + d) & MASK, (c + b) & MASK
        b, d = rotate(b, 17) ^ c, rotate(d, 21) ^ a
        c = rotate(c, 32)
    state[:] = a, b, c, d


def reference(key: tuple[int, int], words: list[int]) -> int:
    state = [
        key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D, key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573,
    ]  # fmt: skip
    for word in words:
        state[3] ^= word
        rounds(state, 1)
        state[0] ^= word
    state[2] ^= 0xFF
    rounds(state, 3)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


@pytest.mark.parametrize("kernel", siphash.available())
@pytest.mark.parametrize("words", [2, 5])
def test_a_kernel_hashes_as_written_down(kernel, words):
    draw = Random(words)
    siphash.use(kernel)
    try:
        for n in (1, 2, 3, 7, 8, 9, 31, 32):
            key = draw.getrandbits(64), draw.getrandbits(64)
            inputs = np.array([[draw.getrandbits(64) for _ in range(words)] for _ in range(n)], np.uint64)
            found = probe_flow.hashes(key, inputs)
            assert found.tolist() == [reference(key, row) for row in inputs.tolist()]
    finally:
        siphash.use(None)


def test_a_kernel_this_processor_lacks_is_refused():
    with pytest.raises(ValueError, match="no hash kernel 'neon'"):
        siphash.use("neon")
