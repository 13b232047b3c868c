"""Choosing the scan kernel of policy once, at import.

Owns: the choice. `FASTPATH_SIMD=scalar` in the environment makes it; otherwise AVX2 is taken where there is AVX2.
"""

import os

cdef meet_kernel chosen = NULL

cdef meet_kernel meet() noexcept nogil:
    return chosen


def available() -> list[str]:
    """Names of the kernels this processor can run."""
    return [name for name in ("scalar", "avx2") if meet_named(name.encode()) != NULL]


def use(name: str | None) -> None:
    """Take the kernel called `name`, or the best one when None."""
    global chosen
    cdef bytes wanted = (name or available().pop()).encode()
    if name is not None and name not in available():
        raise ValueError(f"no scan kernel {name!r} on this processor: choose from {', '.join(available())}")
    chosen = meet_named(wanted)


use("scalar" if os.environ.get("FASTPATH_SIMD") == "scalar" else None)
