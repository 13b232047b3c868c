"""Finds what a selector selects among many labelled things, without asking each.

Owns: postings by label and value, and the set algebra of a selector over them.
Never: knows what the things are.
Invariant: `select` gives exactly the things whose labels the selector matches.
Sets of things are integers used as bitmaps: bit i is thing i.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.selector import And, Has, In, Labels, Not, Or, Selector, Text


class LabelIndex:
    """Built once over a sequence of labels; the answers are bitmaps."""

    def __init__(self, things: Sequence[Labels]) -> None:
        self.things = things
        self.everything = (1 << len(things)) - 1
        self._listed: dict[str, dict[str, list[int]]] = {}
        self._bits: dict[tuple[str, str], int] = {}
        self._known: dict[str, int] = {}
        for number, labels in enumerate(things):
            for key, value in labels.items():
                self._listed.setdefault(key, {}).setdefault(value, []).append(number)

    def select(self, selector: Selector) -> int:
        match selector:
            case In(label, values):
                found = 0
                for value in values:
                    found |= self._equal(label, value)
                return found
            case Has(label):
                return self._has(label)
            case Text(label):
                return self._union((v for v in self._listed.get(label, {}) if selector.matches({label: v})), label)
            case Not(inner):
                return self.everything & ~self.select(inner)
            case And(parts):
                found = self.everything
                for part in parts:
                    found &= self.select(part) if found else 0
                return found
            case Or(parts):
                found = 0
                for part in parts:
                    found |= self.select(part)
                return found
        return self.everything

    def numbers(self, selector: Selector) -> Sequence[int]:
        """The same as ascending numbers; one value of one label, the common case, is looked up."""
        if isinstance(selector, In) and len(selector.values) == 1:
            (value,) = selector.values
            listed = self._listed.get(selector.label)
            return listed.get(value, ()) if listed is not None else ()
        found: list[int] = numbers_of(self.select(selector)).tolist()
        return found

    def _equal(self, label: str, value: str) -> int:
        found = self._bits.get((label, value))
        if found is None:
            found = self._bits[label, value] = bits_of(self._listed.get(label, {}).get(value, ()), len(self.things))
        return found

    def _has(self, label: str) -> int:
        found = self._known.get(label)
        if found is None:
            listed = self._listed.get(label, {})
            found = self._known[label] = bits_of([n for numbers in listed.values() for n in numbers], len(self.things))
        return found

    def _union(self, values: Iterable[str], label: str) -> int:
        found = 0
        for value in values:
            found |= self._equal(label, value)
        return found


def bits_of(numbers: Collection[int], size: int) -> int:
    if len(numbers) <= 1:
        return sum(1 << number for number in numbers)
    array = np.zeros(size // 8 + 1, np.uint8)
    listed = np.fromiter(numbers, np.int64, len(numbers))
    np.bitwise_or.at(array, listed >> 3, (1 << (listed & 7)).astype(np.uint8))
    return int.from_bytes(array.tobytes(), "little")


def numbers_of(bits: int) -> NDArray[np.int64]:
    """The things of a bitmap, ascending."""
    if not bits:
        return np.zeros(0, np.int64)
    if not bits & (bits - 1):
        return np.array([bits.bit_length() - 1])
    raw = np.frombuffer(bits.to_bytes(bits.bit_length() // 8 + 1, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(raw, bitorder="little"))
