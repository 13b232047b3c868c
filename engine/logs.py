"""How the daemon logs: structured lines through structlog, rate-limited.

Owns: the set-up of the root logger.
Never: is imported by a part that logs; those use the standard `logging`.
Invariant: one repeated message cannot fill a disk.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

_BURST = 20  # lines of one place in the code
_PER_SECOND = 2.0


def set_up_logs(level: str, form: Literal["auto", "text", "json"]) -> None:
    """Log to standard error: JSON lines, or text for people (coloured on a terminal)."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Structured(as_json=as_json))
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _Structured(logging.Formatter):
    """Loads structlog with the first line that is written: a start has better things to do first."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._formatter is None:
            self._formatter = _formatter(as_json=self._as_json)
        return self._formatter.format(record)


def _formatter(*, as_json: bool) -> logging.Formatter:
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=as_json),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
    )


class RateLimit(logging.Filter):
    """A token bucket for each place in the code; what was held back is counted in the next line let through."""

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[tuple[str, int], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        now = time.monotonic()
        tokens, since, held_back = self._buckets.get(place, (float(_BURST), now, 0))
        tokens = min(_BURST, tokens + (now - since) * _PER_SECOND)
        if tokens < 1:
            self._buckets[place] = tokens, now, held_back + 1
            return False
        self._buckets[place] = tokens - 1, now, 0
        if held_back:
            record.msg = f"{record.getMessage()} (and {held_back} more like it)"
            record.args = ()
        return True
