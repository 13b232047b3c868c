"""One call of a runtime: the message of the shim -> a checked Call.

Owns: the frame between shim and daemon, and every check of the environment.
Never: looks into the configuration, or at the system.
Invariant: a Call holds only names that are safe in a path, a key and a log line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from engine.cni.answer import CniError, Code

MESSAGE_LIMIT = 128 * 1024  # bytes of one message in either direction; larger ones the shim refuses
MAGIC = b"towpath-cni 1"
ACKNOWLEDGED = b"ok"

Verb = Literal["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]

_ASKED = "TOWPATH_ASKED"  # the shim's own: the boot, and nanoseconds since it
_MOMENT = re.compile(r"([0-9a-f-]{36}) ([0-9]{1,19})", re.ASCII)
_VARIABLES = frozenset({"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"})
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,4000}")
_TEXT_LIMIT = 8192


@dataclass(frozen=True, slots=True)
class Call:
    verb: Verb
    container: str = ""
    namespace: str = ""
    interface: str = ""
    arguments: str = ""
    search_path: str = ""
    input: bytes = b""
    asked: str = ""  # when, as the shim says it; empty when it did not

    def environment(self) -> dict[str, str]:
        """The variables of the call, for a delegated plugin."""
        values = {
            "CNI_COMMAND": self.verb,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.namespace,
            "CNI_IFNAME": self.interface,
            "CNI_ARGS": self.arguments,
            "CNI_PATH": self.search_path,
        }
        return {name: value for name, value in values.items() if value}


def pack(environment: Mapping[str, str], text: bytes, asked: str = "") -> bytes:
    """The message the shim sends: the magic, NAME=VALUE texts, an empty text, then stdin as it came."""
    variables = [f"{name}={value}".encode() for name, value in environment.items() if name in _VARIABLES]
    variables += [f"{_ASKED}={asked}".encode()] if asked else []
    return b"\0".join([MAGIC, *variables, b"", text])


def unpack(message: bytes) -> Call:
    """The call in `message`; CniError when it is not one."""
    head, _, text = message.partition(b"\0\0")
    magic, *variables = head.split(b"\0")
    if magic != MAGIC:
        raise CniError(
            Code.IO_FAILURE, "the plugin speaks another protocol", "install the plugin of the daemon's version"
        )
    values = {}
    for variable in variables:
        name, _, value = variable.partition(b"=")
        values[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    call = checked({name: value for name, value in values.items() if name in _VARIABLES}, text)
    asked = values.get(_ASKED, "")
    return replace(call, asked=asked) if _MOMENT.fullmatch(asked) else call


def is_later(asked: str, other: str) -> bool:
    """Whether a call of this boot was surely asked for after the other one, of this or an earlier boot."""
    here, there = _MOMENT.fullmatch(asked), _MOMENT.fullmatch(other)
    if here is None or there is None:
        return False
    return here[1] != there[1] or int(here[2]) > int(there[2])


def checked(values: Mapping[str, str], text: bytes) -> Call:
    verb = values.get("CNI_COMMAND", "")
    if verb not in get_args(Verb):
        known = ", ".join(get_args(Verb))
        raise CniError(
            Code.INVALID_ENVIRONMENT, "CNI_COMMAND is missing or unknown", f"{_quoted(verb)} is none of {known}"
        )
    missing = [name for name in _NEEDED[verb] if not values.get(name)]
    if missing:
        raise CniError(Code.INVALID_ENVIRONMENT, f"missing variables: {', '.join(missing)}", f"{verb} needs them")
    for name, value in values.items():
        _check(name, value)
    return Call(
        verb=cast(Verb, verb),
        container=values.get("CNI_CONTAINERID", ""),
        namespace=values.get("CNI_NETNS", ""),
        interface=values.get("CNI_IFNAME", ""),
        arguments=values.get("CNI_ARGS", ""),
        search_path=values.get("CNI_PATH", ""),
        input=text,
    )


def arguments_of(text: str) -> dict[str, str]:
    """CNI_ARGS as a mapping; CniError when it is not NAME=VALUE;NAME=VALUE."""
    found = {}
    for piece in filter(None, text.split(";")):
        name, sign, value = piece.partition("=")
        if not sign or not name:
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS is not NAME=VALUE;...", _quoted(piece))
        found[name] = value
    return found


def _check(name: str, value: str) -> None:
    pattern, rule = {
        "CNI_CONTAINERID": (
            _CONTAINER,
            "1 to 128 letters, digits, dots, dashes and underscores, first a letter or digit",
        ),
        "CNI_IFNAME": (
            _INTERFACE,
            "the name of a network device: at most 15 letters, digits, dots, dashes, underscores",
        ),
        "CNI_NETNS": (_PATH, "an absolute path"),
    }.get(name, (None, ""))
    if value and pattern is not None and not pattern.fullmatch(value):
        raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is invalid", f"{_quoted(value)} is not {rule}")
    if name == "CNI_IFNAME" and value in {"lo", ".", ".."}:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is invalid", f"{_quoted(value)} cannot be made")
    if name == "CNI_NETNS" and ".." in value.split("/"):
        raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is invalid", f"{_quoted(value)} leads upwards")
    if len(value) > _TEXT_LIMIT or not value.isprintable():
        raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is invalid", "it is too long, or not printable")


def _quoted(value: str) -> str:
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return repr(shown)
