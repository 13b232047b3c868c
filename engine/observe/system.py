"""What this machine's kernel grants, found out by asking it, and what each answer means to a user.

Owns: the questions, and the child process with a network namespace of its own
in which they are asked.
Never: changes the system: what is made is made in that namespace and ends with it.
Invariant: a finding tells what was tried, not what a version number promises.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import socket
import struct
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import netns
from engine.apply.host_rules import nft
from engine.errors import KernelError

TUN = "/dev/net/tun"
OFFLOADS = ((0x1EF, 24), (0x6F, 10), (0x0F, 10))  # the ladder, with the header size of each rung
_RUNGS = {
    0x1EF: "TCP, UDP and tunnelled segmentation (0x1ef)",
    0x6F: "TCP and UDP segmentation (0x6f)",
    0x0F: "TCP segmentation (0x0f)",
    0: "none",
}
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ, _TUNGETFEATURES = 0x400454CA, 0x400454D0, 0x400454D8, 0x800454CF
_IFF_TUN, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x100, 0x1000, 0x4000
_UDP_SEGMENT, _UDP_GRO, _SO_RCVBUFFORCE = 103, 104, 33
_WIDE_BUFFER = 7 << 20  # bytes of socket buffer that carry a fast flow through a scheduling pause
_MULTIBLOCK = {"avx512f", "avx512bw", "avx512vl"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `granted` None: not asked, because something before it failed."""

    key: str
    title: str
    granted: bool | None
    value: str
    meaning: str
    required: bool = False
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SystemReport:
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        """What Towpath cannot run without and did not get, or nobody knows whether it would."""
        return tuple(finding for finding in self.findings if finding.required and not finding.granted)


def examine() -> SystemReport:
    """Ask everything. Takes some ten milliseconds; call it before starting threads."""
    if threading.active_count() > 1:
        raise RuntimeError("examine() forks: call it before starting threads")
    receiving, sending = os.pipe()
    limits = {name: _setting(f"net/core/{name}") for name in ("rmem_max", "wmem_max")}  # hidden in some namespaces
    child = os.fork()
    if child == 0:
        _answer(sending, limits)
    os.close(sending)
    with os.fdopen(receiving) as answers:
        text = answers.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return SystemReport((_kernel(), *_understood(text, ended), _processor()))


def _answer(sending: int, limits: dict[str, int | None]) -> None:
    """The child's life: enter a namespace, ask, write the findings, end."""
    code = 1
    try:
        users, place = _user_namespaces(), _namespace()
        found = [users, place, *_tun(), _buffers(limits), *_datagrams(), _raw_sockets(), _nftables(place)]
        with os.fdopen(sending, "w") as answers:
            json.dump([asdict(finding) for finding in found], answers)
        code = 0
    except Exception:  # noqa: BLE001 - of which the parent shall hear more than a number
        traceback.print_exc()
    finally:
        os._exit(code)


def _understood(text: str, ended: int) -> list[Finding]:
    """The child's findings. One that said nothing, or not all, has not found that nothing is missing."""
    if ended == 0:
        with contextlib.suppress(ValueError, TypeError):
            return [Finding(**each) for each in json.loads(text)]
    how = f"was killed by signal {-ended}" if ended < 0 else f"ended with code {ended}"
    return [
        Finding(
            "questions",
            "Questions to the kernel",
            granted=None,
            value=f"not answered: the process that asks {how}",
            meaning="whether Towpath can run here is not known",
            required=True,
            remedy="see what it says above, and what the kernel's log says",
        )
    ]


# -- the machine -------------------------------------------------------------
def _kernel() -> Finding:
    release = platform.release()
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    return Finding(
        "kernel",
        "Kernel",
        granted=version >= (4, 18),
        value=f"{platform.system()} {release}",
        meaning="6.2 or later gives UDP segmentation on pod devices, 6.9 longer bursts, 6.17 tunnelled segmentation",
    )


def _processor() -> Finding:
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("flags", "features")):
            flags = set(line.split(":", 1)[1].split())
            break
    kernels = [name for name, needed in (("AVX-512", _MULTIBLOCK), ("AVX2", {"avx2"})) if needed <= flags]
    return Finding(
        "processor",
        "Vector instructions",
        granted=bool(kernels),
        value=f"{', '.join(kernels) or 'none used'}; {os.cpu_count()} cores, {platform.machine()}",
        meaning="checksums and lookups run vectorised"
        if kernels
        else "checksums and lookups run in plain code, somewhat slower",
    )


# -- rights ------------------------------------------------------------------
def _user_namespaces() -> Finding:
    granted = _succeeds_apart(lambda: netns.unshare(netns.NEWUSER | netns.NEWNET))
    return Finding(
        "user-namespaces",
        "User namespaces",
        granted=granted,
        value="yes" if granted else "refused",
        meaning="the demo runs without root" if granted else "the demo needs root",
        remedy=""
        if granted
        else "set kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0 or, with AppArmor, "
        "kernel.apparmor_restrict_unprivileged_userns=0",
    )


def _namespace() -> Finding:
    """Step into a namespace of our own, as root of it if we are nobody here."""
    uid, gid = os.geteuid(), os.getegid()
    way = "as this user"
    try:
        netns.unshare(netns.NEWNET)
    except OSError:
        try:
            netns.unshare(netns.NEWUSER | netns.NEWNET)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            way = "inside a user namespace only"
        except OSError as error:
            return Finding(
                "namespaces",
                "Network namespaces",
                granted=False,
                value=error.strerror or "refused",
                meaning="no devices can be made: neither a daemon nor the demo can run",
                required=True,
                remedy="run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN",
            )
    return Finding(
        "namespaces",
        "Network namespaces",
        granted=True,
        value=way,
        meaning="a daemon for this machine can run"
        if way == "as this user"
        else "the demo and rootless pods can run; a daemon for this machine needs root",
        required=True,
    )


# -- the TUN device ----------------------------------------------------------
class _Ifreq(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 16), ("flags", ctypes.c_uint16), ("rest", ctypes.c_char * 22))


def _tun() -> list[Finding]:
    try:
        device = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return [_no_tun(error)]
    try:
        features = struct.unpack("I", fcntl.ioctl(device, _TUNGETFEATURES, bytes(4)))[0]
        request = _Ifreq(b"towpath%d", _IFF_TUN | _IFF_NO_PI | (features & _IFF_VNET_HDR))
        fcntl.ioctl(device, _TUNSETIFF, request)
        return [_tun_made(features), _vnet(features), _ladder(device), _queues(features)]
    except OSError as error:
        return [_no_tun(error)]
    finally:
        os.close(device)


def _no_tun(error: OSError) -> Finding:
    remedies = {
        2: "load the module (modprobe tun); in a container pass --device /dev/net/tun",
        13: "run as root, or let root chmod 0666 /dev/net/tun",
        1: "run as root, or with CAP_NET_ADMIN",
    }
    return Finding(
        "tun",
        "TUN device",
        granted=False,
        value=f"{TUN}: {error.strerror}",
        meaning="pods cannot be given a device: nothing works without",
        required=True,
        remedy=remedies.get(error.errno or 0, "load the module: modprobe tun"),
    )


def _tun_made(features: int) -> Finding:
    return Finding(
        "tun",
        "TUN device",
        granted=True,
        value=f"opened and made, features {features:#x}",
        meaning="pods can be given a device",
        required=True,
    )


def _vnet(features: int) -> Finding:
    granted = bool(features & _IFF_VNET_HDR)
    return Finding(
        "vnet-header",
        "virtio header on TUN",
        granted=granted,
        value="yes" if granted else "no",
        meaning="up to 64 kB cross the pod's device at once"
        if granted
        else "every packet crosses the device by itself",
        required=True,
    )


def _ladder(device: int) -> Finding:
    rung = next((bits for bits, header in OFFLOADS if _accepts(device, bits, header)), 0)
    meaning = {
        0x1EF: "large TCP and UDP sends of a pod are carried whole, also those of a tunnel inside the pod",
        0x6F: "large TCP and UDP sends of a pod are carried whole",
        0x0F: "large TCP sends are carried whole; UDP goes packet by packet (kernel 6.2 changes that)",
        0: "every packet is handled by itself: about a tenth of the speed",
    }[rung]
    return Finding("offload", "Segmentation on TUN", granted=rung != 0, value=_RUNGS[rung], meaning=meaning)


def _accepts(device: int, offload: int, header: int) -> bool:
    try:
        fcntl.ioctl(device, _TUNSETVNETHDRSZ, struct.pack("i", header))
        fcntl.ioctl(device, _TUNSETOFFLOAD, offload)
    except OSError:
        return False
    return True


def _queues(features: int) -> Finding:
    granted = bool(features & _IFF_MULTI_QUEUE)
    return Finding(
        "multi-queue",
        "Several queues on TUN",
        granted=granted,
        value="yes" if granted else "no",
        meaning="several workers may serve one pod" if granted else "one worker serves a pod",
    )


# -- sockets -----------------------------------------------------------------
def _datagrams() -> list[Finding]:
    segment, merge = _udp_takes(_UDP_SEGMENT, 1400), _udp_takes(_UDP_GRO, 1)
    return [
        Finding(
            "udp-segment",
            "UDP_SEGMENT",
            granted=segment,
            value="yes" if segment else "no",
            meaning="many tunnel packets leave in one call"
            if segment
            else "a call for every tunnel packet: slow sending",
            remedy="" if segment else "kernel 4.18 or later",
        ),
        Finding(
            "udp-gro",
            "UDP_GRO",
            granted=merge,
            value="yes" if merge else "no",
            meaning="many tunnel packets arrive in one call"
            if merge
            else "a call for every tunnel packet: slow receiving",
            remedy="" if merge else "kernel 5.0 or later",
        ),
    ]


def _udp_takes(option: int, value: int) -> bool:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_UDP, option, value)
            return sock.getsockopt(socket.IPPROTO_UDP, option) == value
    except OSError:
        return False


def _buffers(limits: dict[str, int | None]) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WIDE_BUFFER)
        forced = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * _WIDE_BUFFER
    wide = forced or min((limit for limit in limits.values() if limit is not None), default=0) >= _WIDE_BUFFER
    text = ", ".join(f"{name} {limit if limit is not None else 'not visible here'}" for name, limit in limits.items())
    return Finding(
        "socket-buffers",
        "Socket buffers",
        granted=wide,
        value=f"{text}; limit {'can' if forced else 'cannot'} be passed",
        meaning="fast flows are buffered through scheduling pauses"
        if wide
        else "fast flows may lose packets in bursts",
        remedy="" if wide else f"sysctl net.core.rmem_max={_WIDE_BUFFER} net.core.wmem_max={_WIDE_BUFFER}",
    )


def _setting(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


def _raw_sockets() -> Finding:
    refused = [
        f"{'IPv4' if family == socket.AF_INET else 'IPv6'}/{protocol}"
        for family in (socket.AF_INET, socket.AF_INET6)
        for protocol in (4, 41)
        if not _opens(family, protocol)
    ]
    return Finding(
        "raw-sockets",
        "Raw sockets, protocols 4 and 41",
        granted=not refused,
        value="yes" if not refused else f"refused: {', '.join(refused)}",
        meaning="the encapsulation ipip can be used" if not refused else "the encapsulation ipip cannot be used",
        remedy="" if not refused else "run with CAP_NET_RAW",
    )


# -- the host's table --------------------------------------------------------
def _nftables(place: Finding) -> Finding:
    """A table with masquerade is made where it ends with this process; nothing is tried in the host's namespace."""
    refused = None
    if place.granted:
        try:
            nft("table inet towpath { chain out { type nat hook postrouting priority srcnat; masquerade; }; }\n")
        except KernelError as error:
            refused = error
    granted = None if not place.granted else refused is None
    return Finding(
        "nftables",
        "nft, and nftables in the kernel",
        granted=granted,
        value="not asked" if granted is None else "yes" if refused is None else refused.what,
        meaning="pods reach the outside by the host's address, Services, and are reached by ports of the host"
        if granted
        else "without it pods reach no outside by the host's address and no Services, and have no ports of the host",
        remedy="" if refused is None else refused.remedy,
    )


def _opens(family: int, protocol: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_RAW, protocol).close()
    except OSError:
        return False
    return True


def _succeeds_apart(action: Callable[[], None]) -> bool:
    """Whether `action` succeeds, tried in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            action()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
