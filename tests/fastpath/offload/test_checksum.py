"""Every checksum kernel gives the reference sum, for every length and alignment."""

import random

import pytest

from tests.cy import probe_offload
from tests.fastpath.offload.packets import words

KERNELS = [
    "scalar",
    pytest.param("avx2", marks=pytest.mark.skipif(not probe_offload.HAS_AVX2, reason="CPU has no AVX2")),
    "chosen",
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_lengths_and_alignments(kernel):
    data = random.Random(1).randbytes(2048 + 32)
    for length in range(2049):
        skip = length % 32
        assert probe_offload.checksum(data[: skip + length], kernel, skip) == words(data[skip : skip + length]), length


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("skip", range(64))
def test_alignments(kernel, skip):
    data = random.Random(skip).randbytes(1448 + skip)
    assert probe_offload.checksum(data, kernel, skip) == words(data[skip:])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x00\xff", b"\xff\x00", b"\x80\x00"])
def test_carries(kernel, fill):
    for length in (0, 1, 2, 63, 64, 65, 1448, 65535):
        data = (fill * length)[:length]
        assert probe_offload.checksum(data, kernel) == words(data), length
