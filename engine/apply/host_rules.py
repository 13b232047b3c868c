"""The only writer of our nftables table.

Owns: the table, from its first transaction to its removal at a clean stop.
Never: changes a table of somebody else, and never passes a word
through a shell: `nft` reads the rules from its standard input.
Invariant: the table in the kernel is as last written, or is being written
again; without it no packet of the host may carry a pod's address.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from engine.apply import conversations
from engine.apply.delta import Kind
from engine.apply.reconcile import tried
from engine.apply.route_message import ERROR, HEADER, REQUEST, error_number, messages
from engine.apply.ruleset import forwards_in, is_made_by, removal, ruleset, table_name
from engine.apply.table_record import TableRecord
from engine.errors import KernelError
from engine.model import HostRules, PortForward

log = logging.getLogger(__name__)

_KEY = "host"
_WHERE = "host rules"
_DEADLINE = 20.0  # seconds; a table of ten thousand prefixes takes some tenths
_NETLINK_NETFILTER = 12
_NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES
_NEW_GENERATION = 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: one a transaction
_NEW_TABLE, _GET_TABLE = 10 << 8 | 0, 10 << 8 | 1
_ABOUT_TABLE = struct.Struct("=BBHHH")  # NFPROTO_INET, version, resource; length and type (the name) of an attribute
_INET, _TABLE_NAME = 1, 1
# no such table; the rest is what kernels without nftables say, by how much of it they lack
_NONE_THERE = {errno.ENOENT, errno.EPROTONOSUPPORT, errno.ECONNREFUSED, errno.EINVAL, errno.EOPNOTSUPP}
_ANSWERED_WITHIN = 1.0  # seconds; the kernel answers at once or not at all
_AT_ONCE = 1000
_TRIES = 5
_SEARCH = os.pathsep.join(("/usr/sbin", "/sbin"))


@dataclass(slots=True)
class _Table:
    """Our table in the kernel, as far as is known."""

    device: str
    found: bool = False  # it stood before this run
    rules: HostRules | None = None  # what it says, or should where that may be done without; None: it is in doubt
    listed: str = ""  # as the kernel lists it; "" when it is not there
    forwards: frozenset[PortForward] | None = frozenset()  # what leads a conversation that begins; None: never looked
    outdated: frozenset[PortForward] = frozenset()  # what may lead one that began before, and leads none any more

    def leads_by(self, forwards: Iterable[PortForward]) -> None:
        before, self.forwards = self.forwards, frozenset(forwards)
        if before is not None:
            self.outdated |= before ^ self.forwards

    def look(self) -> None:
        """See by what it leads, where that is in doubt."""
        if self.rules is None:
            found = ""
            with contextlib.suppress(KernelError):
                found = listing(self.device)
            self.leads_by(forwards_in(found))


@dataclass(frozen=True, slots=True)
class Left:
    """The key of a table that an earlier run made by another name of the host port, and that nobody wants."""

    device: str

    def __str__(self) -> str:
        return f"left by {self.device}"


class HostRulesDriver:
    """`spoken_for(True)` is called while the kernel lets nobody else speak as a pod, `spoken_for(False)` when not."""

    kind = Kind.HOST_RULES
    drifts = False

    def __init__(self, spoken_for: Callable[[bool], None], record: TableRecord) -> None:
        self._spoken_for = spoken_for
        self._record = record
        self._table: _Table | None = None
        self._untold = ""  # what does not work, and may be done without
        self.bell = RulesBell()

    def tell(self) -> None:
        """Log what does not work. Not at once: a start may be given up, and then has one thing to say."""
        if self._untold:
            log.warning("%s", self._untold)
            self._untold = ""

    def actual(self) -> Mapping[Hashable, object]:
        table = self._table
        used = () if table is None else (table.device,)
        found: dict[Hashable, object] = {Left(device): () for device in self._record.devices if device not in used}
        if table is not None:
            found[_KEY] = table.rules or used
        return found

    def set(self, key: Hashable, value: object) -> None:
        wanted = cast(HostRules, value)
        if self._table is not None and self._table.device != wanted.device:
            self.remove(key)
        if self._table is None:
            self._table = _Table(wanted.device)
        else:
            self._table.look()
        table = self._table
        table.rules = None
        self.bell.mind(table_name(wanted.device))
        self._note(self._record.add, wanted.device)
        try:
            self._write(table, wanted)
        except KernelError as error:
            table.listed = ""
            self._spoken_for(False)
            if wanted.forwards:
                raise
            self._untold = f"pods do not reach the outside by the host's address, nor services: {error}"
        else:
            self._spoken_for(True)
            _lead_anew(table, wanted.forwards)
        table.rules = wanted

    def _write(self, table: _Table, wanted: HostRules) -> None:
        """Write the table and remember how the kernel lists it; again, when somebody came in between."""
        for _ in range(_TRIES):
            self.bell.transactions()  # what was changed so far is about to be replaced
            nft(ruleset(wanted, self._record.mark))
            self._untold = _let_loopback_in(wanted)
            table.listed = listing(wanted.device)
            if self.bell.transactions() <= 1:
                return

    def adopt(self, device: str) -> None:
        """A predecessor, or a run before, has made the table; nobody has looked yet what it says."""
        self._table = _Table(device, found=True, forwards=None)
        self._spoken_for(True)

    def remove(self, key: Hashable) -> None:
        if isinstance(key, Left):
            self._remove_left(key.device)
            return
        table = self._table
        if table is not None:
            self._spoken_for(False)
            table.look()
            if table.listed or table.rules is None:
                nft(removal(table.device))
            self._table = None
            _lead_anew(table, ())
            self._note(self._record.discard, table.device)  # else it stays, as one that is left

    def _note(self, change: Callable[[str], None], device: str) -> None:
        """In the record, if it can be: on a full disk the host's address is of more use than a later removal."""
        error = tried(partial(change, device), _WHERE)
        if error is not None:
            log.warning("%s", error)

    def _remove_left(self, device: str) -> None:
        """Unless it came into use again, maybe by another name, or somebody else has made his in its place."""
        used = None if self._table is None else self._table.device
        if used == device:
            return
        if used is not None and table_name(used) == table_name(device):  # as those of a-b and a_b are
            self._record.discard(device)
            return
        listed = listing(device) if stands(device) else ""
        if is_made_by(self._record.mark, listed):
            log.info("removing the table %s, which an earlier run left", table_name(device))
            nft(removal(device))
            _lead_anew(_Table(device, forwards=forwards_in(listed)), ())
        self._record.discard(device)

    def undo(self) -> None:
        """Remove the table if this run made it."""
        if self._table is not None and not self._table.found:
            self.remove(_KEY)

    def audit(self) -> bool:
        """Whether the table is another than was written, or was not to be had: the next pass writes it again."""
        table = self._table
        if table is None:
            return False
        with contextlib.suppress(KernelError):
            if table.listed and listing(table.device) == table.listed:
                return False
            if table.listed:
                log.warning("the table %s was changed by somebody else", table_name(table.device))
        table.rules = None
        return True

    def close(self) -> None:
        self.bell.close()


def _lead_anew(table: _Table, forwards: Iterable[PortForward]) -> None:
    """These lead from now on: who speaks to a port that led elsewhere, or nowhere, is led anew."""
    table.leads_by(forwards)
    outdated, table.outdated = table.outdated, frozenset()
    try:
        conversations.forget(outdated)
    except OSError as error:
        log.warning("who goes on sending to UDP ports of the host may not reach the pod: %s", error.strerror or error)


class RulesBell:
    """Rings when somebody changes our table: a netlink socket subscribed to nftables' announcements."""

    def __init__(self) -> None:
        self._name = b""
        kind = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | kind, _NETLINK_NETFILTER)
        except OSError:  # the kernel has no netfilter at all: nobody has tables, and this one hears nothing
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | kind)
            return
        with contextlib.suppress(OSError):  # the kernel has no nftables: it will never ring
            self._socket.bind((0, _NFTABLES_GROUP))

    def fileno(self) -> int:
        return self._socket.fileno()

    def mind(self, table: str) -> None:
        self._name = table.encode() + b"\0"

    def listen(self) -> bool:
        """Whether our table was named since the last time, or more was said than the socket holds."""
        rung = False
        for _ in range(_AT_ONCE):
            try:
                rung |= bool(self._name) and self._name in self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS
                rung = True
        return rung

    def transactions(self) -> int:
        """How many transactions, anybody's, were announced since the last time; 2 when more than the socket holds."""
        count = 0
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS
                count += 2
            else:
                count += sum(kind == _NEW_GENERATION for kind, *_ in messages(data))
        return count

    def close(self) -> None:
        self._socket.close()


def nft(text: str) -> None:
    """One transaction: all of it or nothing. KernelError with what nft says."""
    _run(["-f", "-"], text)


def stands(device: str) -> bool:
    """Whether the kernel has our table, whatever is in it. KernelError when it does not tell.

    Asked without `nft`, which takes a start too long.
    """
    name = table_name(device).encode() + b"\0"
    about = _ABOUT_TABLE.pack(_INET, 0, 0, 4 + len(name), _TABLE_NAME) + name + bytes(-len(name) % 4)
    question = HEADER.pack(HEADER.size + len(about), _GET_TABLE, REQUEST, 1, 0) + about
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_ANSWERED_WITHIN)
            kernel.sendto(question, (0, 0))
            return _is_there(kernel.recv(65536))
    except OSError as error:
        if error.errno in _NONE_THERE:
            return False
        what = f"cannot see whether the table {table_name(device)} stands: {error.strerror or error}"
        raise KernelError(what, where=_WHERE, remedy="it is tried again") from error


def _is_there(answer: bytes) -> bool:
    """OSError: what the kernel says against it."""
    for kind, _, _, start, end in messages(answer):
        if kind == _NEW_TABLE:
            return True
        if kind == ERROR:
            number = error_number(answer, start, end)
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def listing(device: str) -> str:
    """The table as the kernel has it. KernelError when there is none."""
    return _run(["-s", "list", "table", "inet", table_name(device)], "")


def _run(arguments: list[str], text: str) -> str:
    program = shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", os.defpath), _SEARCH)))
    if program is None:
        remedy = "install nftables, or set host.masquerade to off and use no host ports"
        raise KernelError("the program nft is not installed", where=_WHERE, remedy=remedy)
    try:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"nft does not run: {error}", where=_WHERE, remedy="it is tried again") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise KernelError(f"nft refuses: {said}", where=_WHERE, remedy="see whether the kernel has nf_tables and nat")
    return done.stdout


def _let_loopback_in(rules: HostRules) -> str:
    """A port of the host is open on 127.0.0.1 too; why not, else nothing.

    Pods cannot use that: what they send to 127/8 is dropped before.
    """
    wanted = "1" if any(forward.pod_address.version == 4 for forward in rules.forwards) else "0"
    setting = Path("/proc/sys/net/ipv4/conf") / rules.device / "route_localnet"
    try:
        if setting.read_text().strip() != wanted:
            setting.write_text(wanted)
    except OSError as error:
        return f"host ports are not open on 127.0.0.1: {setting}: {error.strerror}"
    return ""
