"""Gets the peers' programs: Go modules by `go install`, in versions that are named in the report.

Owns: the cache directory ($XDG_CACHE_HOME/towpath-bench).
Never: writes into the repository, and never fetches what is there already.
Invariant: a program is in the cache whole, or its failure is known by its last words.

    python -m bench.peers
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "towpath-bench"

# The newest releases, the first that this machine's Go can build is taken.
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "wireguard": ("golang.zx2c4.com/wireguard", ("latest",)),
    "nebula": ("github.com/slackhq/nebula/cmd/nebula", ("latest", "v1.10.3")),
    "nebula-cert": ("github.com/slackhq/nebula/cmd/nebula-cert", ("latest", "v1.10.3")),
}
FLANNEL = "flannel-udp"  # our main program around flannel's package, versions in flannel/go.mod


class UnavailableError(Exception):
    """A peer cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths and versions of what could be installed, and why the rest could not."""

    paths: Mapping[str, Path]
    versions: Mapping[str, str]
    failures: Mapping[str, str]

    def path(self, name: str) -> str:
        if name not in self.paths:
            raise UnavailableError(self.failures.get(name, f"{name} is not installed"))
        return str(self.paths[name])


def install(cache: Path = CACHE) -> Programs:
    """Install what is missing; never raises for one program's sake."""
    cache.mkdir(parents=True, exist_ok=True)
    paths, versions, failures = {}, {}, {}
    for name in (*MODULES, FLANNEL):
        try:
            paths[name] = _provide(name, cache)
            versions[name] = _version(paths[name], _module(name))
        except UnavailableError as error:
            failures[name] = str(error)
    return Programs(paths, versions, failures)


def _provide(name: str, cache: Path) -> Path:
    path = cache / "bin" / name
    if path.exists():
        return path
    if shutil.which("go") is None:
        raise UnavailableError("there is no Go compiler (install golang)")
    if name == FLANNEL:
        source = cache / "flannel"
        shutil.copytree(HERE / "flannel", source, dirs_exist_ok=True)
        _go(["build", "-o", str(path), "."], source)
        return path
    module, releases = MODULES[name]
    said: list[str] = []
    for release in releases:
        try:
            _go(["install", f"{module}@{release}"], cache, GOBIN=str(path.parent))
        except UnavailableError as error:
            said.append(str(error))
        else:
            return path
    raise UnavailableError("; ".join(said))


def _go(arguments: list[str], directory: Path, **environment: str) -> None:
    try:
        done = subprocess.run(
            ["go", *arguments], cwd=directory, capture_output=True, text=True, timeout=900, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"go {arguments[0]} took more than {error.timeout:g} s") from None
    if done.returncode:
        raise UnavailableError(f"go {' '.join(arguments)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")


def _module(name: str) -> str:
    if name == FLANNEL:
        return "github.com/flannel-io/flannel"
    return MODULES[name][0].partition("/cmd/")[0]


def _version(path: Path, module: str) -> str:
    """What the binary says of the module it was built from."""
    done = subprocess.run(["go", "version", "-m", str(path)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] in {"mod", "dep"} and words[1] == module:
            return words[2]
    return "unknown"
