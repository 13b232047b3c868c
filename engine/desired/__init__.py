"""Pure: what the sources say, and what is seen of the underlay, to the state that should be."""

from __future__ import annotations

from engine.desired.compute import Recomputation, desired_state

__all__ = ["Recomputation", "desired_state"]
