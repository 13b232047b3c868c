"""Fuzzes flow tracking: `python -m tests.fuzz.fuzz_flows --seconds 30 [TARGET ...]`.

Random conversations, packet by packet, against the golden twin. Three targets:
flow_seq (all kinds of packets), frag_seq (fragments, mostly), icmp_quote_seq
(ICMP errors about what was said, mostly).

Owns: the time limit. Drawing and judging are tests/fastpath/conversations.py.
Invariant: exits with 1 when plane and twin disagree, after printing seed and packet.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.fastpath.cluster import MemoryCluster
from tests.fastpath.conversations import Conversations
from tests.fastpath.policies import ALLOW_80, ISOLATED, for_protocol, snapshot_of

PACKETS = 200  # of one conversation; then another begins
TARGETS = {
    "flow_seq": (8, 2, 2, 3, 1, 2, 2),
    "frag_seq": (1, 2, 1, 1, 1, 1, 16),
    "icmp_quote_seq": (4, 2, 2, 2, 1, 16, 1),
}


def one_conversation(seed: int, weights: tuple[int, ...]) -> int:
    policy = ISOLATED if seed % 3 == 0 else for_protocol(ALLOW_80, (6, 17, 132)[seed // 3 % 3])
    snapshot = snapshot_of([policy])
    conversations = Conversations(MemoryCluster(snapshot), snapshot, random.Random(seed), weights)
    for number in range(PACKETS):
        try:
            conversations.step()
        except AssertionError as error:
            raise SystemExit(f"seed {seed}, packet {number}: {error}") from error
    conversations.compare_states()
    return PACKETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - TARGETS.keys():
        parser.error(f"no target {unknown.pop()!r}; there are {', '.join(TARGETS)}")
    for target in chosen.targets or TARGETS:
        end = time.monotonic() + chosen.seconds
        first = seed = time.time_ns()
        packets = 0
        while time.monotonic() < end:
            packets += one_conversation(seed, TARGETS[target])
            seed += 1
        print(f"-- {target}: {packets} packets, plane and twin agree (seeds from {first})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
