"""events.py and counters.pxd say the same things in the same order."""

from __future__ import annotations

import re
from pathlib import Path

from fastpath import events


def test_every_event_is_described_at_its_own_number() -> None:
    body = Path(events.__file__).with_name("counters.pxd").read_text().split("# events")[1]
    names = [name.lower() for name in re.findall(r"^    EVENT_(\w+)", body, flags=re.MULTILINE)]
    assert names[-1] == "count"
    assert list(events.EVENT_NAMES) == names[:-1]
    assert all(words for _, words in events.EVENTS)
