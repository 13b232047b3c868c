"""Puts the plugin and its configuration where container runtimes look for them, and takes them away again.

Owns: the names of the two files, and the order in which they come and go.
Never: touches another plugin's file.
Invariant: a file is there whole or not at all; the configuration is there only
while the plugin is, since a runtime takes it for "the network is ready".
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.cni.answer import NEWEST, VERSIONS
from engine.cni.configuration import PLUGIN as PLUGIN  # noqa: PLC0414 - its file is named so
from engine.errors import KernelError, TowpathError

BIN_DIRECTORY = "/opt/cni/bin"
CONF_DIRECTORY = "/etc/cni/net.d"
CONFLIST = "10-towpath.conflist"
_CAPABILITIES = ("ips", "portMappings", "bandwidth", "dns")


def shim() -> Path:
    """The program in this installation."""
    path = Path(__file__).parent / "shim" / PLUGIN
    if not path.exists():
        raise TowpathError(
            "the CNI plugin was not built", where=str(path), remedy="install from a wheel, or run make build"
        )
    return path


def conflist(name: str, version: str, socket: str, spool: str) -> dict[str, Any]:
    """The network configuration list for runtimes."""
    plugin = {
        "type": PLUGIN,
        "socket": socket,
        "spool": spool,
        "ipam": {"type": "towpath"},
        "capabilities": dict.fromkeys(_CAPABILITIES, True),
    }
    return {"cniVersion": version, "name": name, "plugins": [plugin]}


def install(bin_directory: Path, conf_directory: Path, configuration: Mapping[str, Any]) -> None:
    """Plugin first, configuration last."""
    _write(bin_directory / PLUGIN, shim().read_bytes(), 0o755)
    text = msgspec.json.format(msgspec.json.encode(configuration), indent=2) + b"\n"
    _write(conf_directory / CONFLIST, text, 0o644)


def uninstall(bin_directory: Path, conf_directory: Path) -> list[Path]:
    """Configuration first, plugin last; what there was."""
    found = []
    for path in (conf_directory / CONFLIST, bin_directory / PLUGIN):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _refused(error, path) from error
        found.append(path)
    return found


def first_conflist(conf_directory: Path) -> str:
    """The file that runtimes take: the first by name; empty when there is none."""
    try:
        names = sorted(os.listdir(conf_directory))
    except OSError:
        return ""
    return next((name for name in names if name.endswith((".conf", ".conflist", ".json"))), "")


def is_current(bin_directory: Path) -> bool | None:
    """Whether the plugin there is this installation's; None when there is none."""
    try:
        return (bin_directory / PLUGIN).read_bytes() == shim().read_bytes()
    except OSError:
        return None


def ask_status(bin_directory: Path, configuration: Mapping[str, Any]) -> str:
    """What the plugin in place says to STATUS: empty when it could serve an ADD now."""
    plugin = {"cniVersion": NEWEST, "name": configuration["name"], **configuration["plugins"][0]}
    environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(bin_directory)}
    try:
        done = subprocess.run(
            [bin_directory / PLUGIN],
            input=msgspec.json.encode(plugin),
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.decode(errors="replace").strip() if done.returncode else ""


def read_conflist(conf_directory: Path) -> dict[str, Any] | None:
    """The configuration in place, None when there is none that is ours."""
    try:
        tree = msgspec.json.decode((conf_directory / CONFLIST).read_bytes())
        return tree if tree["name"] and tree["plugins"][0]["type"] == PLUGIN else None
    except (OSError, msgspec.MsgspecError, ValueError, KeyError, TypeError, IndexError):
        return None


def known_version(text: str) -> str:
    if text not in VERSIONS:
        raise TowpathError(f"CNI version {text} is not supported", remedy=f"choose one of {', '.join(VERSIONS)}")
    return text


def _write(path: Path, data: bytes, mode: int) -> None:
    """The file appears under its name when it is whole, and replaces a link, not what the link leads to."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), mode)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _refused(error, path) from error


def _refused(error: OSError, path: Path) -> KernelError:
    return KernelError(error.strerror or str(error), where=str(path), remedy="run as root, or choose another directory")
