"""Choosing the kernel that hashes many flows once, at import.

Owns: the choice. `FASTPATH_SIMD=scalar|avx2|avx512` in the environment makes it; otherwise the widest vectors there are.
What follows a dash there (`avx512-loads`) is for the lookup alone.
"""

import os

cdef siphash_kernel chosen = NULL

cdef siphash_kernel siphash_many() noexcept nogil:
    return chosen


def available() -> list[str]:
    """Names of the kernels this processor can run."""
    return [name for name in ("scalar", "avx2", "avx512") if siphash_named(name.encode()) != NULL]


def use(name: str | None) -> None:
    """Take the kernel called `name`, or the widest one when None."""
    global chosen
    cdef bytes wanted = (name or available().pop()).encode()
    if name is not None and name not in available():
        raise ValueError(f"no hash kernel {name!r} on this processor: choose from {', '.join(available())}")
    chosen = siphash_named(wanted)


use(os.environ.get("FASTPATH_SIMD", "").partition("-")[0] or None)
