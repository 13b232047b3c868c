"""Fuzzes the whole path: `python -m tests.fuzz.fuzz_whole_path --seconds 30`.

Bent packets, with true and false metadata, go through planes with memory ports
in both directions; the golden twin says what has to come out. Under `make fuzz`
the compiled modules carry AddressSanitizer and UBSan.

Owns: the time limit. The judging is that of tests/fastpath/test_whole_path.py.
Invariant: exits with 1 when plane and twin disagree, after printing the smallest example.
"""

from __future__ import annotations

import argparse
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fastpath import test_whole_path as path
from tests.fastpath.packets import bent, changed, offloads
from tests.fastpath.twin_path import wrapped

EXAMPLES = 500  # of one round; then the clock is looked at


def one_round(number: int) -> None:
    kind = path.KINDS[number % len(path.KINDS)]
    nodes = path.Fresh(kind, super_packets=True)

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(bent(), st.data())
    def agrees(data: bytes, more: st.DataObject) -> None:
        a, b = nodes.pair()
        data = path.readdressed(data, a, b)
        path.send(a, data, more.draw(st.just(path.PLAIN) | offloads(data)))
        payload = wrapped(a, data or b"\x40")
        at = more.draw(st.integers(0, 60))
        path.receive(b, changed(payload, at, more.draw(st.binary(max_size=3))) if at < 22 else payload, at % 4)

    agrees()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30)
    seconds: int = parser.parse_args().seconds
    start = time.monotonic()
    first = time.time_ns()
    rounds = 0
    while time.monotonic() - start < seconds:
        one_round(first + rounds)
        rounds += 1
    print(f"{rounds * EXAMPLES} packets in both directions: plane and twin agree (seeds from {first})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
