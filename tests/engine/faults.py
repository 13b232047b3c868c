"""Faults at every place where one can be: an exception in the n-th call of some functions."""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager


class FaultError(Exception):
    """What was injected."""


@contextmanager
def fault_at(call, modules):
    """Raise `FaultError` when the functions of these modules (generators aside) are called for the `call`-th time, counted from 0, in this thread."""
    files = {module.__file__ for module in modules}
    left = call

    def watch(frame, event, _):
        nonlocal left
        code = frame.f_code
        if event == "call" and code.co_filename in files and not code.co_flags & inspect.CO_GENERATOR:
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise FaultError

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
