"""The compiled checksum against the twin, and the incremental update against computing anew."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import reference
from tests.cy import probe_wire as wire


@given(st.binary(max_size=300))
def test_sum_is_the_twins(data: bytes) -> None:
    assert wire.checksum_fold(wire.checksum_add(0, data)) == reference.ones_sum(data)


@pytest.mark.parametrize("n", [*range(40), 1448, 9000, 65535])
def test_largest_words_of_every_length(n: int) -> None:
    data = b"\xff" * n
    assert wire.checksum_fold(wire.checksum_add(0, data)) == reference.ones_sum(data)


@given(st.binary(max_size=64).map(lambda data: data[: len(data) & ~1]), st.binary(max_size=64))
def test_even_pieces_may_be_summed_apart(first: bytes, second: bytes) -> None:
    apart = wire.checksum_add(wire.checksum_add(0, first), second)
    assert wire.checksum_fold(apart) == reference.ones_sum(first + second)


@given(st.integers(0, 2**64 - 1))
def test_fold_keeps_the_value_modulo_ffff(total: int) -> None:
    folded = wire.checksum_fold(total)
    assert folded % 0xFFFF == total % 0xFFFF
    assert (folded == 0) == (total == 0)


@given(st.binary(min_size=18, max_size=18).map(lambda data: b"\x45" + data + b"\0"), st.integers(0, 0xFFFF))
def test_twenty_bytes_are_right_in_either_byte_order(data: bytes, field: int) -> None:
    right = (reference.ones_sum(data[:10] + bytes(2) + data[12:]) ^ 0xFFFF).to_bytes(2)
    assert wire.checksum_right20(data[:10] + right + data[12:])
    for header in (data, data[:10] + field.to_bytes(2) + data[12:]):
        assert wire.checksum_right20(header) == (reference.ones_sum(header) == 0xFFFF)


def test_twenty_bytes_of_the_largest_words() -> None:
    assert wire.checksum_right20(b"\xff" * 20)
    assert not wire.checksum_right20(b"\xff" * 19 + b"\xfe")


def test_udp_never_says_that_it_has_no_checksum() -> None:
    assert wire.checksum_finish_udp(0xFFFF) == 0xFFFF
    assert wire.checksum_finish_udp(0xFFFE) == 1


def test_incremental_update_of_every_word() -> None:
    # RFC 1624 equation 3 fails where equation 2 does not, and the other way round, only for sums of
    # 0 and 0xffff: all new words, for the corner cases and for random ones.
    dice = random.Random(1624)
    corners = [0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF]
    pairs = [(field, old) for field in corners for old in corners]
    pairs += [(dice.randrange(0x10000), dice.randrange(0x10000)) for _ in range(200)]
    for field, old in pairs:
        # A field of 0xffff says that every covered word is 0, which a header never is.
        wrong = wire.replace16_disagreements(field, old)
        assert wrong == 0, (hex(field), hex(old), wrong)


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=4, max_size=4))
def test_address_change_equals_computing_anew(header: bytes, address: bytes) -> None:
    header = b"\x45" + header[1:10] + b"\0\0" + header[12:]
    before = reference.checksum(header)
    after = reference.checksum(header[:12] + address + header[16:])
    old, new = int.from_bytes(header[12:16], "big"), int.from_bytes(address, "big")
    assert wire.checksum_replace32(before, old, new) == after
