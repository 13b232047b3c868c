"""The policy image against the compiled program and the slow evaluator, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from engine.apply.policy import policy_image
from engine.desired.policy import golden
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced, judged_here
from engine.desired.policy.model import Connection, Decision
from engine.desired.policy.program import Program
from fastpath.simd import meet
from fastpath.table.policy import PolicyImage
from fastpath.values import NO_GROUP, ROW_NONE, ROW_OUTSIDE, ROW_OWN_NODE, ROW_SELF
from tests.engine.policy.generator import Generator

FEW = 48
WORDS = {ROW_OUTSIDE: "outside", ROW_SELF: "self", ROW_OWN_NODE: "own-node"}


def said(program: Program, row: int, direction: str) -> Decision:
    """A row as the decision it stands for."""
    assert row != ROW_NONE, "every endpoint has a default"
    return Decision(True, direction, WORDS[row]) if row in WORDS else program.explain(row)


def compare(seeds: Iterable[int], *, steps: int, connections: int, few: int = FEW) -> Counter[tuple[str, bool]]:
    seen: Counter[tuple[str, bool]] = Counter()
    for seed in seeds:
        generator = Generator(seed)
        snapshot, compiler = generator.snapshot(), Compiler()
        program = compiler.compile(snapshot)
        for step in range(steps):
            image = policy_image(Enforced(program), few=few)
            for _ in range(connections):
                c = generator.connection(snapshot)
                rows = image.judge(c.source, c.destination, c.protocol, c.source_port, c.destination_port)
                slow = golden.judge(snapshot, c)
                for row, decision in zip(rows, (slow.egress, slow.ingress), strict=True):
                    assert said(program, row, decision.direction) == decision, f"seed {seed}, step {step}: {c}"
                    assert image.allows(row) == decision.allowed
                    seen[decision.why, decision.allowed] += 1
            snapshot = generator.relabelled(snapshot)
            program = compiler.update(snapshot)
    return seen


@pytest.mark.parametrize(("kernel", "few"), [*((kernel, 0) for kernel in meet.available()), ("scalar", FEW), ("scalar", 6)])
def test_random_verdicts(kernel: str, few: int) -> None:
    """By bitmaps alone, by the rows of a key alone, and by both in turn."""
    meet.use(kernel)
    try:
        seen = compare(range(24), steps=3, connections=20, few=few)
    finally:
        meet.use(None)
    assert seen.total() == 24 * 3 * 20 * 2
    assert seen["rule", True] and seen["rule", False] and seen["end-of-tier", False] and seen["own-node", True], seen


@pytest.mark.slow
def test_a_hundred_thousand_random_verdicts() -> None:
    assert compare(range(5000, 5625), steps=4, connections=20).total() == 100_000


def test_who_is_judged_elsewhere_is_outside() -> None:
    generator = Generator(3)
    snapshot = generator.snapshot()
    program = Compiler().compile(snapshot)
    mine = next(e for e in snapshot.endpoints.values() if e.addresses and not e.host_network)
    image = policy_image(Enforced(program, judged_here(program, mine.addresses)))
    judged = set(mine.addresses)
    asked = [generator.connection(snapshot) for _ in range(300)]
    asked += [
        Connection(mine.addresses[0], other, 6, 80, 40_000)
        for e in snapshot.endpoints.values()
        for other in e.addresses
        if other.version == mine.addresses[0].version and other not in judged
    ]
    for c in asked:
        egress, ingress = image.judge(c.source, c.destination, c.protocol, c.source_port, c.destination_port)
        whole = program.judge(c)
        assert (egress == ROW_OUTSIDE) == (c.source not in judged)
        assert (ingress == ROW_OUTSIDE) == (c.destination not in judged)
        if c.source in judged:
            assert said(program, egress, "egress") == whole.egress
        if c.destination in judged:
            assert said(program, ingress, "ingress") == whole.ingress


def test_an_image_selects_when_somebody_is_judged() -> None:
    generator = Generator(1)
    program = Compiler().compile(generator.snapshot())
    assert policy_image(Enforced(program)).selects
    assert not policy_image(Enforced(program, frozenset())).selects


# -- what is refused -----------------------------------------------------------
def arrays(**changed: object) -> dict[str, object]:
    """The smallest program: one group that allows, one class."""
    u32 = np.uint32
    nothing = np.zeros(0, u32)
    six = np.array([b"\0" * 16], "S16")
    return {
        "rows": np.array([[1, 1, 0, 0xFFFFFF, 0, 65535, 3, 1, 0]], u32),
        "block_start": np.array([0], u32),
        "block_end": np.array([1], u32),
        "block_tier": np.array([0], u32),
        "group_offset": np.array([0, 1, 2], u32),
        "group_blocks": np.array([0, 0], u32),
        "group_node": np.array([0], u32),
        "class_offset": np.array([0, 0], u32),
        "class_sets": nothing,
        "entries": {
            4: (np.array([5], u32), np.array([0], u32), np.array([0], u32), np.array([0], u32)),
            6: (np.zeros(0, "S16"), nothing, nothing, nothing),
        },
        "ranges": {4: (np.array([0], u32), np.array([0], u32)), 6: (six, np.array([0], u32))},
        "l4_slot": np.full(256, 255, np.uint8),
        "l4_table": np.zeros((1, 65536), np.uint16),
        "source_l4": np.zeros(65536, np.uint16),
    } | changed


def test_the_smallest_program_is_taken() -> None:
    assert PolicyImage(**arrays()).n_rows == 1


def bent(name: str, at: object, value: int) -> object:
    array = np.array(arrays()[name])
    array[at] = value
    return {name: array}


@pytest.mark.parametrize(
    "change",
    [
        bent("rows", (0, 7), 5),
        bent("rows", (0, 7), 0),
        bent("rows", (0, 3), 1 << 24),
        bent("rows", (0, 2), 0xFFFFFFFF),
        bent("rows", (0, 0), 0xFFFFFFFE),
        bent("block_end", 0, 2),
        bent("block_start", 0, 2),
        bent("group_offset", 2, 3),
        bent("group_offset", 1, 9),
        bent("group_blocks", 1, 1),
        bent("class_offset", 1, 1),
        bent("l4_slot", 6, 1),
        {"ranges": {4: (np.array([1], np.uint32), np.array([0], np.uint32)), 6: arrays()["ranges"][6]}},
        {"ranges": {4: (np.array([0], np.uint32), np.array([1], np.uint32)), 6: arrays()["ranges"][6]}},
        {"ranges": {4: (np.array([0, 0], np.uint32), np.zeros(2, np.uint32)), 6: arrays()["ranges"][6]}},
        {"entries": {4: (np.array([5], np.uint32), *[np.array([1], np.uint32)] * 3), 6: arrays()["entries"][6]}},
        {"source_l4": np.zeros(10, np.uint16)},
        {"counters": np.zeros(3, np.uint32)},
    ],
)
def test_what_points_outside_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a policy program"):
        PolicyImage(**arrays(**change))


def test_an_endpoint_without_a_deciding_row_is_denied() -> None:
    from ipaddress import ip_address

    image = PolicyImage(**arrays(**bent("rows", (0, 7), 4)))
    assert image.judge(ip_address("0.0.0.5"), ip_address("0.0.0.6"), 6, 1, 2) == (ROW_NONE, ROW_OUTSIDE)
    assert not image.allows(ROW_NONE)
    assert NO_GROUP == ROW_OUTSIDE
