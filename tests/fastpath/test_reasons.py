"""reasons.py and reason.pxd say the same things in the same order."""

from __future__ import annotations

import re
from pathlib import Path

from fastpath import reasons

DECLARATIONS = Path(reasons.__file__).with_name("reason.pxd")


def declared() -> list[str]:
    body = DECLARATIONS.read_text().split("# reasons")[1]
    names = re.findall(r"^    REASON_(\w+)", body, flags=re.MULTILINE)
    assert names[0] == "NONE" and names[-1] == "COUNT", "the enum was not read to its end"
    return [name.lower() for name in names[:-1]]


def test_every_reason_is_described_at_its_own_number() -> None:
    assert [reason.name for reason in reasons.REASONS] == declared()


def test_reasons_fit_the_byte_that_carries_them() -> None:
    assert len(declared()) < 256


def test_every_reason_has_words_and_unique_ones() -> None:
    for reason in reasons.REASONS:
        assert reason.text and reason.means.endswith(".") and reason.remedy.endswith("."), reason.name
        assert reason.severity in ("info", "warning", "error")
    assert len({reason.text for reason in reasons.REASONS}) == len(reasons.REASONS)
    assert reasons.BY_NAME["ttl_expired"].text == "TTL or hop limit used up"
