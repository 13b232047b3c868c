"""Numbers of things in sentences for people.

Owns: one and many. Never: knows what is counted. Invariant: pure.
"""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 pod`, `2 pods`, `0 policies`."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("cy") else f"{noun}s"
    return f"{number} {noun}"
