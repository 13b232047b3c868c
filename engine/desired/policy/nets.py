"""Many prefixes of one owner, kept as arrays: what a network set is made of.

Owns: reading texts straight into arrays, and giving the prefixes back one by one.
Never: keeps an object for each prefix; a set may hold hundreds of thousands.
Invariant: iterates as the prefixes it was made of, IPv4 first, each family in
its own order; equal contents compare equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET, AF_INET6, inet_pton
from typing import overload

import numpy as np

from engine.desired.policy.classes import WIDTH, Keys, address_of, keys, span_of
from engine.model import Prefix

Family = tuple[Keys, Keys]  # first and last address of each prefix


class Nets(Sequence[Prefix]):
    """Immutable. `spans[version]`: first and last addresses, of one family."""

    __slots__ = ("spans",)

    def __init__(self, spans: dict[int, Family]) -> None:
        self.spans = {version: family for version, family in sorted(spans.items()) if len(family[0])}

    @classmethod
    def of(cls, prefixes: Iterable[Prefix]) -> Nets:
        listed: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for prefix in prefixes:
            version, first, last = span_of(prefix)
            listed[version].append((first, last))
        return cls({v: (keys(v, [s[0] for s in found]), keys(v, [s[1] for s in found])) for v, found in listed.items()})

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Nets:
        """Of addresses and prefixes; bits below the length are ignored. ValueError at the first that is none."""
        packed: dict[int, list[bytes]] = {4: [], 6: []}
        lengths: dict[int, list[int]] = {4: [], 6: []}
        for text in texts:
            address, slash, length = text.partition("/")
            version = 6 if ":" in address else 4
            try:
                packed[version].append(inet_pton(AF_INET if version == 4 else AF_INET6, address))
            except OSError:
                raise ValueError(text) from None
            if slash and not (length.isascii() and length.isdigit() and len(length) <= 3):
                raise ValueError(text)
            bits = int(length) if slash else WIDTH[version]
            if bits > WIDTH[version]:
                raise ValueError(text)
            lengths[version].append(bits)
        return cls({4: _spans4(packed[4], lengths[4]), 6: _spans6(packed[6], lengths[6])})

    # -- as a sequence -------------------------------------------------------
    def __len__(self) -> int:
        return sum(len(first) for first, _ in self.spans.values())

    @overload
    def __getitem__(self, index: int) -> Prefix: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prefix, ...]: ...
    def __getitem__(self, index: int | slice) -> Prefix | tuple[Prefix, ...]:
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Prefix]:
        for version, (first, last) in self.spans.items():
            for low, high in zip(first, last, strict=True):
                start, end = address_of(version, low), address_of(version, high)
                length = WIDTH[version] - (int(start) ^ int(end)).bit_length()
                yield IPv4Network((int(start), length)) if version == 4 else IPv6Network((int(start), length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Nets):
            return NotImplemented
        return self.spans.keys() == other.spans.keys() and all(
            np.array_equal(mine, theirs)
            for version, family in self.spans.items()
            for mine, theirs in zip(family, other.spans[version], strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple((version, first.tobytes()) for version, (first, _) in self.spans.items()))

    def __repr__(self) -> str:
        return f"Nets({', '.join(map(str, self[:4]))}{', ...' if len(self) > 4 else ''})"


def _spans4(packed: list[bytes], lengths: list[int]) -> Family:
    address = np.frombuffer(b"".join(packed), ">u4").astype(np.uint32)
    host = ((np.uint64(1) << (np.uint64(32) - np.array(lengths, np.uint64))) - np.uint64(1)).astype(np.uint32)
    return address & ~host, address | host


def _spans6(packed: list[bytes], lengths: list[int]) -> Family:
    octets = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16)
    bits = np.clip(np.array(lengths, np.int64)[:, None] - 8 * np.arange(16), 0, 8)
    host = (0xFF >> bits).astype(np.uint8)
    return _whole(octets & ~host), _whole(octets | host)


def _whole(octets: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Keys:
    return np.ascontiguousarray(octets).view("S16").reshape(-1)
