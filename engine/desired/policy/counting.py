"""Which counter each row counts under: one a rule, the same for as long as the rule is.

Owns: the numbers of counters, and what each stands for.
Never: holds a count.
Invariant: a rule that did not change keeps its number over every compilation;
a number stands for one thing at a time, and is given again only after many
others were, so that old flows do not soon count for a new rule.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.desired.policy.lower import RULE
from engine.desired.policy.model import Decision, PeerRule, Policy, Profile
from engine.desired.policy.order import rules_of, title
from engine.desired.policy.program import Program, Source

RESTING = 65_536  # numbers that lie unused before one of them is given again

BlockKey = tuple[str, str, str, str, int]  # why, tier, title, direction, and the how many-th such


@dataclass(frozen=True, slots=True)
class _Block:
    rules: tuple[object, ...]  # by number in the block; 0 stands for the policy itself
    numbers: tuple[int, ...]


class Counting:
    """The numbering of one node."""

    def __init__(self) -> None:
        self._blocks: dict[BlockKey, _Block] = {}
        self._meaning: list[tuple[Source, int] | None] = []
        self._resting: deque[int] = deque()
        self._rows: NDArray[np.uint32] | None = None
        self._numbers: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self.again: list[int] = []  # numbers that were given again, for something else, by the last `number`

    def number(self, program: Program) -> NDArray[np.uint32]:
        """For each row of the program the number of its counter."""
        if program.rows is self._rows:  # labels changed, rules did not
            self.again = []
            return self._numbers
        self.again = []
        blocks: dict[BlockKey, _Block] = {}
        by_rule: list[int] = []
        times: Counter[tuple[str, ...]] = Counter()
        for source in program.sources:
            words = block_words(source)
            key = (*words, times[words])
            times[words] += 1
            block = self._block(source, self._blocks.get(key))
            blocks[key] = block
            by_rule += block.numbers
        kept = {number for block in blocks.values() for number in block.numbers}
        for block in self._blocks.values():
            for number in block.numbers:
                if number not in kept and self._meaning[number] is not None:
                    self._meaning[number] = None
                    self._resting.append(number)
        self._blocks = blocks
        self._rows = program.rows
        self._numbers = np.array(by_rule, np.uint32)[program.rows[:, RULE]]
        return self._numbers

    def meaning(self, number: int) -> tuple[Source, int] | None:
        """The block's source and the number of the rule in it; None for a number that stands for nothing now."""
        return self._meaning[number] if 0 <= number < len(self._meaning) else None

    def decision(self, number: int, *, allowed: bool) -> Decision | None:
        """In words; `allowed` is what the rule did."""
        found = self.meaning(number)
        return None if found is None else found[0].decision(1 if allowed else 2, found[1])

    def __len__(self) -> int:
        return len(self._meaning)

    def _block(self, source: Source, before: _Block | None) -> _Block:
        rules = _rules(source)
        if before is not None and before.rules == rules:
            for index, number in enumerate(before.numbers):
                self._meaning[number] = (source, index)
            return before
        staying = {} if before is None else _staying(before, rules)
        numbers = []
        for index in range(len(rules)):
            number = staying[index] if index in staying else self._take()
            self._meaning[number] = (source, index)
            numbers.append(number)
        return _Block(rules, tuple(numbers))

    def _take(self) -> int:
        if len(self._resting) > RESTING:
            number = self._resting.popleft()
            self.again.append(number)
        else:
            number = len(self._meaning)
            self._meaning.append(None)
        return number


def _staying(before: _Block, rules: tuple[object, ...]) -> dict[int, int]:
    """Numbers of rules that were there before, by where they are now: those before and behind what was changed, put in
    or taken out, and those in the midst of it that did not move."""
    shorter = min(len(before.rules), len(rules))
    head = next((i for i in range(shorter) if before.rules[i] != rules[i]), shorter)
    tail = next((i for i in range(shorter - head) if before.rules[-1 - i] != rules[-1 - i]), shorter - head)
    found = {i: before.numbers[i] for i in range(shorter - tail) if before.rules[i] == rules[i]}
    return found | {len(rules) - 1 - i: before.numbers[-1 - i] for i in range(tail)}


def block_words(source: Source) -> tuple[str, str, str, str]:
    named: Policy | Profile | None = source.policy if source.policy is not None else source.profile
    if named is None:
        name = ""
    elif isinstance(named, Profile):
        name = f"Profile {named.name}"
    else:
        name = title(named)
    return (source.why, source.tier, name, source.direction)


def _rules(source: Source) -> tuple[object, ...]:
    """What the numbers of a block stand for."""
    if source.policy is not None:
        if source.why == "refused":
            return (source.policy.refusal,)
        return (None, *rules_of(source.policy, source.direction))
    if source.profile is not None:
        return (None, *(source.profile.ingress if source.direction == "ingress" else source.profile.egress))
    return (None,)


def rule_name(source: Source, index: int) -> str:
    """The name that a rule's author gave it."""
    rules = _rules(source)
    rule = rules[index] if index < len(rules) else None
    return rule.name if isinstance(rule, PeerRule) else ""
