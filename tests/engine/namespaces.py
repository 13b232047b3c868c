"""Network namespaces of a test: random names, removed whatever happens."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager


def ip(*arguments, namespace=None, check=True):
    prefix = ["ip", "-n", namespace] if namespace else ["ip"]
    return subprocess.run([*prefix, *arguments], check=check, capture_output=True, text=True).stdout


def ip_json(*arguments, namespace=None):
    text = ip("-j", *arguments, namespace=namespace)
    return [entry for entry in json.loads(text or "[]") if entry]


@contextmanager
def namespaces(count):
    """`count` new namespaces; their names."""
    prefix = f"tpd{secrets.token_hex(3)}"
    names = [f"{prefix}n{number}" for number in range(count)]
    try:
        for name in names:
            ip("netns", "add", name)
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def path_of(name):
    return f"/run/netns/{name}"


def wait_for(condition: Callable[[], object], deadline: float = 15.0):
    """What `condition` returns once it is true."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"not so within {deadline} s: {condition}"
        time.sleep(0.02)


def device(namespace, name="eth0"):
    """One device as `ip -d -j link` and `addr` show it, or None."""
    if not os.path.exists(path_of(namespace)):
        return None
    found = [entry for entry in ip_json("-d", "addr", namespace=namespace) if entry["ifname"] == name]
    return found[0] if found else None


def routes(namespace, *selector):
    return [
        (entry["dst"], entry.get("gateway") or entry.get("dev"))
        for family in ("-4", "-6")
        for entry in ip_json(family, "route", "show", *selector, namespace=namespace)
    ]
