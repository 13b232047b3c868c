"""A loaded configuration -> what is in force, key by key, and why.

Owns: the values that follow from others when the file leaves them out.
Never: decides them: it asks the rules that the daemon uses.
Invariant: every key of the file's tables has one row; peers, pods and routes
have the rows that they have keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.config.jsonschema import plain
from engine.config.load import Loaded, values
from engine.config.profile import PROFILES
from engine.config.report import key_text
from engine.config.schema import Config


class Row(NamedTuple):
    key: str
    value: Any  # as JSON has it; None: found or computed by the daemon
    origin: str  # "towpath.toml:3", "environment variable ...", "flag ...", "default", or what it follows from


def rows(loaded: Loaded) -> Iterator[Row]:
    derived = _derived(loaded.config)
    for path, value in values(loaded.config):
        key = key_text(path)
        if value is None and key in derived:
            yield Row(key, *derived[key])
        else:
            yield Row(key, plain(value), loaded.origins[key])


def _derived(config: Config) -> dict[str, tuple[Any, str]]:
    """For keys that were left out: the value and what it follows from."""
    network = config.network
    numbers = PROFILES[network.profile, config.encapsulation]
    found: dict[str, tuple[Any, str]] = {
        "network.encapsulation": (config.encapsulation, f"mode {network.mode}"),
        "network.port": (numbers.port or None, f"profile {network.profile}"),
        "network.vni": (numbers.vni or None, f"profile {network.profile}"),
        "network.mtu": (None, "the paths to the peers"),
        "network.mac": (None, "the node's name"),
        "network.mac6": (None, "the node's name"),
        "node.interface": (None, "node.underlay" if config.node.underlay else "the default route"),
        "cni.socket": (config.cni_socket, "control.socket"),
        "workers.count": (config.workers_count, "workers.cpus" if config.workers.cpus else "default"),
    }
    for name, gateway in config.gateways.items():
        found[f"node.{name}"] = (str(gateway), "node.prefixes")
    for index in range(len(config.peers)):
        found[f"peers[{index}].encapsulation"] = (config.encapsulation, "network.encapsulation")
        found[f"peers[{index}].mac"] = found[f"peers[{index}].mac6"] = (None, "the peer's name")
    return found
