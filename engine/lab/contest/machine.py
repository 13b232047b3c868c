"""What a figure was measured on: processor, memory, kernel, versions.

Owns: reading it from /proc and the interpreter.
Never: names the host or anything else that identifies its owner.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> dict[str, str | int]:
    """The machine, as it stands in every report."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) // 1024,
        "virtual": "yes" if "hypervisor" in (_field("/proc/cpuinfo", "flags") or "").split() else "no",
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "congestion": _line("/proc/sys/net/ipv4/tcp_congestion_control"),
    }


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str, separator: str = ":") -> str:
    """The value of the first line `name<separator>value`, or nothing."""
    try:
        text = Path(path).read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""
