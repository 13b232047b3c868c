"""Refuses a mixed build: compiled modules that do not agree on the headers they share.

C compilers and the loader do not notice when one module was compiled against
another layout of a struct than its neighbour; it reads the wrong fields. Each
module therefore carries a stamp (build.h), and the stamps are compared when
the package is imported.

Owns: reading the stamps and the sentence that names the stale module.
Never: imports a compiled module; the stamps are read from the files.
Invariant: after `verify` returns, any two modules below the directory which
share a header were compiled from the same text of it, in the same kind of build.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES

_MARK = b"fastpath-stamp:"
_HEAD_BYTES = 16384  # linkers place notes right behind the program headers
_REMEDY = "rebuild all of it: `make clean build` in a checkout, `pip install --force-reinstall towpath` elsewhere"

UNBUILT = "unbuilt"


def verify(directory: str) -> str:
    """The kind of build all modules below `directory` are of ("unbuilt" when there are none).

    Raises ImportError, with the stale module and the remedy, when they do not agree.
    """
    agreed: dict[str, tuple[str, str]] = {}  # header, or "build" -> (digest, the first module which names it)
    for module in compiled_modules(directory):
        for name, digest in read_stamp(module).items():
            first_digest, first_module = agreed.setdefault(name, (digest, module))
            if digest != first_digest:
                raise _mixed(directory, name, {first_module: first_digest, module: digest})
    return agreed["build"][0] if agreed else UNBUILT


def compiled_modules(directory: str) -> list[str]:
    """Paths of the extension modules below `directory` that this interpreter would load, sorted."""
    suffix = EXTENSION_SUFFIXES[0]
    return sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names if name.endswith(suffix)
    )


def read_stamp(module: str) -> dict[str, str]:
    """The stamp in the extension file `module`: {"build": kind, header: digest, ...}."""
    with open(module, "rb") as file:
        image = file.read(_HEAD_BYTES)
        start = image.find(_MARK)
        if start < 0 or b"\0" not in image[start:]:
            image += file.read()  # a tool that rewrites ELF files may have moved the note
            start = image.find(_MARK)
    if start < 0:
        raise ImportError(f"{module} was built by an earlier version and carries no stamp; {_REMEDY}", path=module)
    text = image[start + len(_MARK) : image.index(b"\0", start)].decode()
    return dict(entry.split("=", 1) for entry in text.split())


def _mixed(directory: str, name: str, digests: dict[str, str]) -> ImportError:
    """The error for two modules which disagree about `name`; stale is what differs from the header at hand."""
    current = _digest_of(os.path.join(os.path.dirname(os.path.abspath(directory)), name))
    stale = [module for module, digest in digests.items() if digest != current]
    if len(stale) != 1:  # no header at hand, or neither is current: the older file is the stale one
        stale = [min(digests, key=os.path.getmtime)]
    (other,) = set(digests) - set(stale)
    if name == "build":
        difference = f"is a {digests[stale[0]]} build and {other} a {digests[other]} build"
    else:
        difference = f"was compiled from another {name} than {other}"
    return ImportError(f"mixed build: {stale[0]} {difference}; {_REMEDY}", path=stale[0])


def _digest_of(path: str) -> str:
    """The digest setup.py would write for the file, or "" when there is no such file."""
    from hashlib import blake2b  # only a refused import pays for it

    try:
        with open(path, "rb") as file:
            return blake2b(file.read(), digest_size=8).hexdigest()
    except OSError:
        return ""
